//! The one table of configuration keys.
//!
//! The parser takes its defaults and its "expected" from here, messages about misspelt keys their suggestions, the
//! environment its variable names, and `conf/nattrail.toml` and the manual page nattrail.toml(5) every line.
//! `NATTRAIL_WRITE=1 cargo test` rewrites both. For a section that is no list, the table also makes the struct and its
//! parser. A reload cannot change a key that is `fixed`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::tree::{Table, every};
use super::values;
use super::{Config, LogScope, MarkFilter, Namespace, Prefix};
use crate::session::Protocol;

const METRICS_PORT: u16 = 9469;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Section {
    Capture,
    Pending,
    Log,
    Archive,
    Control,
    Metrics,
    Collector,
    Syslog,
    Monitor,
}

impl Section {
    pub const ALL: [Self; 9] = [
        Self::Capture,
        Self::Pending,
        Self::Log,
        Self::Archive,
        Self::Control,
        Self::Metrics,
        Self::Collector,
        Self::Syslog,
        Self::Monitor,
    ];

    pub const fn name(self) -> &'static str {
        self.about().0
    }

    /// A sentence for an operator.
    pub const fn introduction(self) -> &'static str {
        self.about().1
    }

    /// The keys of the section, in the order of the table.
    pub const fn keys(self) -> &'static [Key] {
        self.about().2
    }

    const fn about(self) -> (&'static str, &'static str, &'static [Key]) {
        match self {
            Self::Capture => (
                "capture",
                "These keys select the connections that are logged, and say how nattrail reads them from the kernel. A collector \
                 or copy may have log, mark, zone, protocols, source and destination of its own; here they are for those \
                 that do not, and for the archive, \"nattrail who\", \"nattrail tail\" and \"nattrail pending\".",
                Capture::KEYS,
            ),
            Self::Pending => (
                "pending",
                "A database keeps the connections that are still open.",
                Pending::KEYS,
            ),
            Self::Log => (
                "log",
                "In the record log, the database keeps each record until every collector and copy has taken it, within \
                 these bounds. Beyond them the oldest records are deleted, and an output that had not taken them \
                 states one gap with their exact number.",
                Log::KEYS,
            ),
            Self::Archive => (
                "archive",
                "The archive keeps finished connections for years (\"nattrail archive run\"), and \"nattrail who\" answers \
                 from it.",
                Archive::KEYS,
            ),
            Self::Control => (
                "control",
                "A running nattrail answers queries about itself over a socket.",
                Control::KEYS,
            ),
            Self::Metrics => (
                "metrics",
                "nattrail can offer metrics to Prometheus.",
                Metrics::KEYS,
            ),
            Self::Collector => (
                "collector",
                "Each [[collector]] is a NetFlow or IPFIX collector. You may also write [collector.NAME]; in INI files \
                 this is the only way.",
                COLLECTOR,
            ),
            Self::Syslog => (
                "syslog",
                "Each [[syslog]] is a copy of the records, as lines. With neither a collector nor a syslog target there \
                 is one copy, with the target \"stdout\".",
                SYSLOG,
            ),
            Self::Monitor => (
                "monitor",
                "Each [[monitor]] is a port to which a switch mirrors traffic. \"nattrail monitor up\" makes connection \
                 tracking see its frames; nattrail-monitor(7) goes from the cable to the first flow.",
                MONITOR,
            ),
        }
    }

    /// Whether the section may appear any number of times: `[[collector]]` or `[collector.NAME]`.
    pub const fn is_list(self) -> bool {
        matches!(self, Self::Collector | Self::Syslog | Self::Monitor)
    }
}

/// Replaces the new value by the current one, and returns whether they differ.
type Keep = fn(&Config, &mut Config) -> bool;

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub section: Section,
    pub name: &'static str,
    pub preset: Preset,
    /// The form of a value, to follow "expected" in a message.
    pub expected: &'static str,
    /// Its meaning for an operator: the comment in `conf/nattrail.toml`.
    pub doc: &'static str,
    /// Keeps the value over a reload; for a key of something that stays open.
    keep: Option<Keep>,
}

/// The defaults of the keys. Values are in TOML notation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Preset {
    Value(&'static str),
    /// Nothing, which may also be written as `""`.
    Unset,
    /// There is no default; this is an example.
    Required(&'static str),
    /// The default follows from other keys or the environment; this is the usual one.
    Varies(&'static str),
    /// The default is the value of the same key in `[capture]`; this is the usual one.
    Inherited(&'static str),
}

impl Preset {
    /// The value to show in a sample configuration, in TOML notation.
    pub const fn sample(self) -> &'static str {
        match self {
            Self::Value(text)
            | Self::Required(text)
            | Self::Varies(text)
            | Self::Inherited(text) => text,
            Self::Unset => "\"\"",
        }
    }
}

impl Key {
    /// Whether a change needs a restart: a reload leaves the key as it is.
    pub const fn is_fixed(&self) -> bool {
        self.keep.is_some()
    }

    /// The key's part of a variable name: upper case, `_` for `-`.
    pub(crate) fn variable_suffix(&self) -> String {
        self.name.to_ascii_uppercase().replace('-', "_")
    }
}

impl Config {
    /// The configuration after a reload: the new one, except for the keys that need a restart; with the names of those
    /// that differ.
    pub(crate) fn reloaded(&self, mut new: Self) -> (Self, Vec<String>) {
        let mut differing = Vec::new();
        for key in all() {
            if key.keep.is_some_and(|keep| keep(self, &mut new)) {
                differing.push(format!("{}.{}", key.section.name(), key.name));
            }
        }
        (new, differing)
    }
}

/// Every key, section by section.
pub(crate) fn all() -> impl Iterator<Item = &'static Key> {
    Section::ALL.into_iter().flat_map(Section::keys)
}

/// Advice about an unknown name: the one probably meant, the section to which it belongs, or all known ones.
pub(super) fn advice(name: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(name, known) {
        return format!("did you mean \"{near}\"");
    }
    match all().find(|key| key.name == name) {
        Some(key) => format!("{name} is a key of [{}]", key.section.name()),
        None => format!("expected one of {}", known.join(", ")),
    }
}

/// The candidate that a misspelt word most likely meant; `None` when none is close.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let word = word.to_ascii_lowercase();
    let distance = |candidate: &&&str| strsim::osa_distance(&word, &candidate.to_ascii_lowercase());
    let near = candidates.iter().min_by_key(distance)?;
    (distance(&near) <= limit).then_some(near)
}

fn keep<T: Clone + PartialEq>(current: &T, new: &mut T) -> bool {
    let differs = current != new;
    new.clone_from(current);
    differs
}

/// The keys of a section: a comment for operators, name, preset, and expected form.
macro_rules! keys {
    ($section:ident { $($(#[doc = $doc:literal])+ $name:literal = $preset:expr, $expected:expr $(, $keep:expr)?;)* }) => {
        &[$(Key {
            section: Section::$section,
            name: $name,
            preset: $preset,
            expected: $expected,
            doc: concat!($($doc),+).trim_ascii_start(),
            keep: keys!(@keep $($keep)?),
        }),*]
    };
    (@keep) => { None };
    (@keep $keep:expr) => { $keep };
}

/// The same with a struct made of them. A key is `fixed` or `live`, and its field `one` value, an `optional` one or a
/// `list`.
macro_rules! section {
    ($(#[$meta:meta])* $section:ident: $struct:ident { $(
        $(#[doc = $doc:literal])+
        $life:ident $name:literal $field:ident: $type:ty = $take:ident($parse:expr), $preset:expr, $expected:expr;
    )* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $struct {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl $struct {
            const KEYS: &[Key] = keys! { $struct { $(
                $(#[doc = $doc])+ $name = $preset, $expected, section!(@$life $section.$field);
            )* } };

            /// `None` when the section has a mistake, which is then among the table's problems.
            pub(super) fn take(table: &mut Table) -> Option<Self> {
                let section = every!(Self { $($field: section!(@$take table, $name, $parse)),* });
                table.finish();
                section
            }
        }
    };
    (@live $section:ident.$field:ident) => { None };
    (@fixed $section:ident.$field:ident) => {
        Some(|current, new| keep(&current.$section.$field, &mut new.$section.$field))
    };
    (@one $table:ident, $name:literal, $parse:expr) => { $table.take($name, $parse) };
    (@optional $table:ident, $name:literal, $parse:expr) => { Some($table.take($name, $parse)) };
    (@list $table:ident, $name:literal, $parse:expr) => { $table.take_list($name, $parse) };
}

use Preset::{Inherited, Required, Unset, Value, Varies};

const SCOPE: &str = "\"nat\" or \"all\"";
const MARK: &str = "a connection mark as value or value/mask, decimal or with 0x";
const ZONE: &str = "a whole number from 0 to 65535";
const PROTOCOLS: &str = "protocols by name (icmp, tcp, udp, dccp, gre, icmpv6, sctp, udplite) or by number from 0 to 255";
const PREFIXES: &str = "address prefixes such as \"10.0.0.0/8\"";
const DAYS: &str = "a whole number of days, at least one, such as \"365d\"";
const INTERFACE_NAME: &str =
    "the name of an interface: at most 15 letters, digits, \"-\", \"_\" and \".\"";
const OUTPUT_NAME: &str = "a name of at most 64 letters, digits, \"-\", \"_\" and \".\"";

section! {
    /// `[capture]`: what is read from the kernel, and how.
    capture: Capture {
        /// The translations in this network namespace are logged; it is given by name (ip netns) or path. If empty, it
        /// is the one in which nattrail starts.
        fixed "namespace" namespace: Option<Namespace> = optional(values::namespace),
            Unset, "the name of a network namespace or an absolute path to one";
        /// This is the name of nattrail's own nftables table (family inet). Its only rule keeps connection tracking
        /// switched on. The table goes away when nattrail stops, unless a service manager keeps the event socket for
        /// the next start.
        fixed "table" table: String = one(values::table_name),
            Value("\"nattrail\""), "a name of at most 63 letters, digits, \"_\", \".\" and \"-\" that begins with a letter";
        /// Log only translated connections ("nat") or every connection ("all").
        live "log" log: LogScope = one(values::log_scope),
            Value("\"nat\""), SCOPE;
        /// Log only connections whose ct mark equals this value, in the bits of the mask ("0x10/0xff") or, without a
        /// mask, in all 32 bits ("16"). If empty, any mark matches.
        live "mark" mark: Option<MarkFilter> = optional(values::mark),
            Unset, MARK;
        /// Log only connections in this conntrack zone; 0 is the default zone. If empty, any zone matches.
        live "zone" zone: Option<u16> = optional(values::whole(0..=u16::MAX)),
            Unset, ZONE;
        /// Log only these protocols, by name or number: ["tcp", "udp", 47]. If empty, all protocols are logged.
        live "protocols" protocols: Vec<Protocol> = list(values::protocol),
            Value("[]"), PROTOCOLS;
        /// Log only connections whose source before translation is in one of these prefixes. If empty, any source
        /// matches.
        live "source" source: Vec<Prefix> = list(values::prefix),
            Value("[]"), PREFIXES;
        /// Log only connections whose destination before translation is in one of these prefixes. If empty, any
        /// destination matches.
        live "destination" destination: Vec<Prefix> = list(values::prefix),
            Value("[]"), PREFIXES;
        /// With true, nattrail itself sets net.netfilter.nf_conntrack_events, _acct and _timestamp to 1 at start. With
        /// false, it only says which of them are off.
        fixed "set-sysctls" set_sysctls: bool = one(values::flag),
            Value("false"), "true or false";
        /// Events that wait in the kernel have this much room, in bytes (KiB, MiB, GiB). 64MiB holds about 100,000
        /// events; memory is used only while they wait.
        fixed "receive-buffer" receive_buffer: usize = one(values::buffer),
            Value("\"64MiB\""), "a size from 4KiB to 1GiB";
        /// With true, the kernel keeps the end of a connection until nattrail can take it. In return, ended connections
        /// still count toward nf_conntrack_max while nattrail is stalled.
        fixed "reliable" reliable: bool = one(values::flag),
            Value("true"), "true or false";
        /// At this interval, nattrail compares the open connections with the kernel's table: it closes a connection
        /// whose end was never reported, and finds one that was never announced. With 0s, it does so only at start and
        /// after a gap.
        live "resync" resync: Option<Duration> = one(values::interval),
            Value("\"10m\""), "a duration from 1s, or 0s";
        /// A connection that lasts longer than this (s, m, h, d) has a flow record about once in this time, between three
        /// quarters of it and all of it, with the traffic since the last one: see FLOWS IN PARTS in nattrail-records(7).
        /// Only outputs with records "flow" get them. "30m" is usual. nattrail reads the kernel's table four times in this
        /// time. If empty, the traffic of a connection is reported at its end.
        live "active-timeout" active_timeout: Option<Duration> = optional(values::at_least_a_second),
            Unset, "a duration of at least 1s, such as \"30m\"";
    }
}

section! {
    /// `[pending]`: the store of connections that are still open.
    pending: Pending {
        /// This SQLite file has the connections that are still open, the record log, and the place of each output in
        /// it. Default: pending.db in the state directory ($STATE_DIRECTORY, or /var/lib/nattrail).
        fixed "database" database: PathBuf = one(values::absolute_path),
            Varies("\"/var/lib/nattrail/pending.db\""), "an absolute path";
        /// At this age (ms, s, m, h, d), a connection that the kernel no longer has is closed with an inferred delete
        /// record.
        live "ttl" ttl: Duration = one(values::at_least_a_second),
            Value("\"7d\""), "a duration of at least 1s, such as \"7d\"";
        /// nattrail writes the database at this interval, from 100ms to 1m. Records leave after that, so they wait at
        /// most this long; a crash loses at most the records of this time, and repeats at most as many.
        live "flush" flush: Duration = one(values::duration(Duration::from_millis(100)..=MINUTE)),
            Value("\"1s\""), "a duration from 100ms to 1m";
        /// nattrail keeps at most this many connections at a time, with about 160 octets of memory each. It logs
        /// connections beyond that number as well, but does not know of them after a crash or a restart. The kernel's
        /// own bound is nf_conntrack_max.
        live "max" max: usize = one(values::whole(1..=4_000_000_000)),
            Value("4000000"), "a whole number from 1 to 4000000000";
    }
}

section! {
    /// `[log]`: how much of the records that an output has not taken yet the database keeps.
    log: Log {
        /// At most this many bytes (KiB, MiB, GiB, TiB) of records wait in the database, from 16MiB to 1TiB. 1GiB has
        /// room for the records of some ten million IPv4 connections.
        live "size" size: u64 = one(values::size(16 << 20..=1 << 40)),
            Value("\"1GiB\""), "a size from 16MiB to 1TiB";
        /// At this age (ms, s, m, h, d), a record no longer waits, whether it was taken or not.
        live "age" age: Duration = one(values::at_least_a_second),
            Value("\"7d\""), "a duration of at least 1s, such as \"7d\"";
    }
}

section! {
    /// `[archive]`: finished connections, for years.
    archive: Archive {
        /// The archive has this directory for itself.
        live "directory" directory: PathBuf = one(values::absolute_path),
            Value("\"/var/lib/nattrail-archive\""), "an absolute path";
        /// This name is in every file of the archive, so that those of several gateways may lie side by side. If empty,
        /// it is the host's name.
        live "gateway" gateway: Option<String> = optional(values::output_name),
            Unset, OUTPUT_NAME;
        /// "nattrail who" answers only with --case, the reference of a case, which goes into the access log.
        live "require-case" require_case: bool = one(values::flag),
            Value("false"), "true or false";
        /// For so many days, connections are kept after their end; then the archive deletes them, unless a hold keeps
        /// them. If empty, it never deletes any. See RETENTION in nattrail-archive(5).
        live "keep" keep: Option<Duration> = optional(values::days),
            Unset, DAYS;
        /// For so many days, the archive keeps who asked it what. If empty, it never deletes that.
        live "keep-lookups" keep_lookups: Option<Duration> = optional(values::days),
            Unset, DAYS;
        /// "nattrail archive timestamp" runs this program with its arguments, without a shell: it gets a time-stamp request
        /// (RFC 3161) on its standard input, and prints an authority's response. nattrail-proof(7) has an example.
        live "timestamp" timestamp: Vec<String> = list(values::argument), Value("[]"), "a program and its arguments";
    }
}

section! {
    /// `[control]`: how a running daemon is asked about itself.
    control: Control {
        /// "nattrail status" and "nattrail tail" ask the daemon over this Unix socket. Default: control.sock in the
        /// runtime directory ($RUNTIME_DIRECTORY, or /run/nattrail), which nattrail makes if it is missing. With ""
        /// there is no socket.
        fixed "socket" socket: Option<PathBuf> = one(values::optional_socket),
            Value("\"/run/nattrail/control.sock\""), "an absolute path of at most 107 bytes, or \"\" for no socket";
    }
}

section! {
    /// `[metrics]`: what Prometheus fetches.
    metrics: Metrics {
        /// Prometheus may fetch metrics (http, /metrics) from this IP address and TCP port, by default 9469. Anyone who
        /// reaches it can read them: there is neither a password nor encryption. If empty, there are no metrics.
        fixed "listen" listen: Option<SocketAddr> = optional(values::address(METRICS_PORT)),
            Unset, "an IP address, with or without a port, such as \"127.0.0.1:9469\"";
    }
}

const COLLECTOR: &[Key] = keys! {
    Collector {
        /// This name has to be unique among the collectors. With a name, a collector keeps its place in the record log
        /// even when its address changes; without one, it is known by its address. In [collector.NAME] the default is
        /// NAME.
        "name" = Unset, OUTPUT_NAME;
        /// Records go to this IP address and UDP port; IPv6 is written as [address]:port. This key is required. The
        /// default port is 2055 for v5 and v9, and 4739 for ipfix.
        "address" = Required("\"192.0.2.10:4739\""), "an IP address, with or without a port, such as \"192.0.2.10:2055\" or \
         \"[2001:db8::10]:4739\" (names are not looked up)";
        /// The transport protocol is always "udp".
        "transport" = Value("\"udp\""), "\"udp\"";
        /// The export protocol is "v5" or "v9" (NetFlow), or "ipfix". v5 knows IPv4 only.
        "version" = Value("\"ipfix\""), "\"v5\", \"v9\" or \"ipfix\"";
        /// Send only translated connections ("nat") or every connection ("all"). Default: capture.log.
        "log" = Inherited("\"nat\""), SCOPE;
        /// Send only connections with this ct mark, as value or value/mask; with "" any mark matches. Default:
        /// capture.mark.
        "mark" = Inherited("\"\""), MARK;
        /// Send only connections in this conntrack zone; with "" any zone matches. Default: capture.zone.
        "zone" = Inherited("\"\""), ZONE;
        /// Send only these protocols; with [] all of them. Default: capture.protocols.
        "protocols" = Inherited("[]"), PROTOCOLS;
        /// Send only connections whose source before translation is in one of these prefixes; with [] any source
        /// matches. Default: capture.source.
        "source" = Inherited("[]"), PREFIXES;
        /// Send only connections whose destination before translation is in one of these prefixes; with [] any
        /// destination matches. Default: capture.destination.
        "destination" = Inherited("[]"), PREFIXES;
        /// Send from this local address, with or without a port. If empty, the system chooses.
        "source-address" = Unset, "a local IP address, with or without a port";
        /// Send "events" (one record when a session begins and one when it ends), "triplet" (three flow records when it
        /// ends: pre-NAT, post-NAT, return), "flow" (its traffic, one flow record for each direction), or several of
        /// them. With "events" and "flow", a connection that is not translated makes flows alone, and the counters are
        /// in the flows alone.
        "records" = Value("[\"events\"]"), "one or more of \"events\", \"triplet\" and \"flow\", each once";
        /// With true, one flow record (RFC 5103) is for both directions of a connection. This key is only for ipfix, with
        /// "flow".
        "biflow" = Value("false"), "true or false";
        /// Flows of one window that these rules make alike become one, with the sums of their packets and octets:
        /// "10.0.0.0/8=16" keeps 16 bits of an address in 10.0.0.0/8, "80-89=80" replaces ports. The first rule that
        /// matches an address or a port holds for it, at source and destination alike; commas separate rules. This key is
        /// only for records = ["flow"], without biflow.
        "aggregation" = Value("\"\""), "rules such as \"192.0.0.0/8=16,10.0.0.0/8=16,80-89=80,3128=80\"";
        /// The window of aggregation has this length, from 1s to 1h. It ends early when it has 65,536 different flows, and
        /// at a gap.
        "aggregation-window" = Value("\"60s\""), "a duration from 1s to 1h";
        /// The natEvent of create and delete is 4 and 5 ("rfc8158") or 1 and 2 ("legacy"). This key is not for v5.
        "nat-event" = Value("\"rfc8158\""), "\"rfc8158\" or \"legacy\"";
        /// With true, events have the destination. With false, they leave it out, as RFC 6888 REQ-12 asks for the sake
        /// of privacy. false is not for v5, and not with triplets
        /// or flows.
        "log-destination" = Value("true"), "true or false";
        /// With true, records have the conntrack zone, as ingressVRFID. v5 has no room for it.
        "ingress-vrf" = Value("false"), "true or false";
        /// With true, a triplet's post-NAT record repeats the counters of the pre-NAT record. With false, it has zeros,
        /// so that no traffic is counted twice.
        "post-nat-counters" = Value("true"), "true or false";
        /// An IP packet has at most this many bytes with its headers. The range is from 576, or 1280 over IPv6, to 9216.
        "mtu" = Value("1500"), "a whole number from 576 to 9216";
        /// Templates are sent again after this time. This key is not for v5.
        "template-refresh" = Value("\"30m\""), "a duration of at least 1s";
        /// Templates are sent again after this many packets. This key is not for v5.
        "template-refresh-packets" = Value("20"), "a whole number from 1 to 4294967295";
        /// The socket's send buffer has this size in bytes (KiB, MiB, GiB). If empty, it has the system's default.
        "send-buffer" = Unset, "a size from 4KiB to 1GiB";
        /// This is the observation domain (ipfix), the source id (v9), or the engine type and id (v5, at most 65535).
        /// It tells gateways and streams apart at the collector.
        "observation-domain" = Value("1"), "a whole number from 0 to 4294967295";
        /// A record waits at most this long for its packet to fill, after the wait for the database (pending.flush).
        /// The range is from 0s to 1m.
        "export-delay" = Value("\"1s\""), "a duration from 0s to 1m";
    }
};

const SYSLOG: &[Key] = keys! {
    Syslog {
        /// This name has to be unique among the copies. With a name, a copy keeps its place in the record log even when
        /// its target changes; without one, it is known by its target. In [syslog.NAME] the default is NAME.
        "name" = Unset, OUTPUT_NAME;
        /// The copy goes to "local" (the syslog socket), "udp" (a syslog server), "file", "stdout" or "journal"
        /// (systemd). This key is required.
        "target" = Required("\"local\""), "\"local\", \"udp\", \"file\", \"stdout\" or \"journal\"";
        /// This is the syslog server; udp requires it, and it is only for udp. The default port is 514.
        "address" = Unset, "an IP address, with or without a port, such as \"192.0.2.20:514\"";
        /// This is the file (required for file), or a socket other than /dev/log (local) or /run/systemd/journal/socket
        /// (journal).
        "path" = Unset, "an absolute path";
        /// The format is "csv" (flow-tools' 18 fields), "text" (key=value), "json" or
        /// "rfc5424" (structured data). Default: text for stdout and journal, csv otherwise.
        "format" = Varies("\"csv\""), "\"csv\", \"text\", \"json\" or \"rfc5424\"";
        /// Copy only translated connections ("nat") or every connection ("all"). Default: capture.log.
        "log" = Inherited("\"nat\""), SCOPE;
        /// Copy only connections with this ct mark, as value or value/mask; with "" any mark matches. Default:
        /// capture.mark.
        "mark" = Inherited("\"\""), MARK;
        /// Copy only connections in this conntrack zone; with "" any zone matches. Default: capture.zone.
        "zone" = Inherited("\"\""), ZONE;
        /// Copy only these protocols; with [] all of them. Default: capture.protocols.
        "protocols" = Inherited("[]"), PROTOCOLS;
        /// Copy only connections whose source before translation is in one of these prefixes; with [] any source
        /// matches. Default: capture.source.
        "source" = Inherited("[]"), PREFIXES;
        /// Copy only connections whose destination before translation is in one of these prefixes; with [] any
        /// destination matches. Default: capture.destination.
        "destination" = Inherited("[]"), PREFIXES;
        /// The copy has "events" (a line when a session begins and one when it ends; in csv the three lines of a triplet),
        /// "flow" (a line for the traffic; in csv one for each direction), or both. With both, which is not for csv, a
        /// connection that is not translated makes a flow alone.
        "records" = Value("[\"events\"]"), "\"events\", \"flow\" or both, each once";
        /// The syslog facility is kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, authpriv, ftp or
        /// local0 to local7.
        "facility" = Value("\"local6\""), "a syslog facility such as \"daemon\" or \"local6\"";
        /// The syslog severity is emerg, alert, crit, err, warning, notice, info or debug.
        "severity" = Value("\"info\""), "a syslog severity: emerg, alert, crit, err, warning, notice, info or debug";
        /// The copy has this APP-NAME, tag or SYSLOG_IDENTIFIER.
        "app-name" = Value("\"nattrail\""), "a name of at most 48 letters, digits, \"_\", \".\", \"/\" and \"-\"";
        /// The csv format puts this address into its field exaddr, which has room for IPv4 only. This key is only for
        /// csv.
        "exporter-address" = Value("\"127.0.0.1\""), "an IPv4 address";
    }
};

const MONITOR: &[Key] = keys! {
    Monitor {
        /// This name has to be unique among the monitors; "nattrail monitor up NAME" takes it, or the interface. In
        /// [monitor.NAME] the default is NAME.
        "name" = Unset, OUTPUT_NAME;
        /// The mirrored frames arrive at this interface, which has to be there for nothing else. This key is required.
        "interface" = Required("\"eth1\""), INTERFACE_NAME;
        /// The interface is moved into this network namespace, which keeps mirrored traffic apart from the gateway's; it is
        /// given by name (ip netns) or path, and has to exist. "nft" requires it.
        "namespace" = Unset, "the name of a network namespace or an absolute path to one";
        /// The frames get into connection tracking by "tc" (nothing is routed; the kernel needs CONFIG_NET_ACT_CT), by
        /// "nft" (they are routed into a sink) or by means of your own ("external").
        "method" = Value("\"tc\""), "\"tc\", \"nft\" or \"external\"";
        /// Mirrored connections get this ct mark, or have it with "external". If empty, they get none.
        "mark" = Unset, "a connection mark from 1 to 4294967295, decimal or with 0x";
        /// Mirrored connections get this conntrack zone, or have it with "external". Default: 65535 for "tc" without a
        /// namespace, so that a mirrored copy of the gateway's own traffic is a connection of its own; otherwise none.
        "zone" = Varies("65535"), "a conntrack zone from 1 to 65535";
    }
};

#[cfg(test)]
mod tests;
