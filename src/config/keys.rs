//! The one table of configuration keys.
//!
//! The parser takes its defaults and its "expected" from here, messages about misspelt keys their suggestions, the
//! environment its variable names, and `conf/nattrail.toml` and the manual page nattrail.toml(5) every line.
//! `NATTRAIL_WRITE=1 cargo test` writes both anew. Of a section that is no list the table also makes the struct and its
//! reading. A reload cannot change a key that is `fixed`.

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
    Control,
    Metrics,
    Collector,
    Syslog,
}

impl Section {
    pub const ALL: [Self; 7] = [
        Self::Capture,
        Self::Pending,
        Self::Log,
        Self::Control,
        Self::Metrics,
        Self::Collector,
        Self::Syslog,
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
                "Which connections are logged, and how the kernel is asked about them.",
                Capture::KEYS,
            ),
            Self::Pending => (
                "pending",
                "The connections that are still open, and the database that keeps them.",
                Pending::KEYS,
            ),
            Self::Log => (
                "log",
                "The record log: the database keeps each record until every collector and copy has taken it, within \
                 these bounds. Beyond them the oldest records go, and an output that had not taken them states one \
                 gap with their exact number.",
                Log::KEYS,
            ),
            Self::Control => (
                "control",
                "How a running nattrail is asked about itself.",
                Control::KEYS,
            ),
            Self::Metrics => ("metrics", "Metrics for Prometheus.", Metrics::KEYS),
            Self::Collector => (
                "collector",
                "A NetFlow or IPFIX collector. Instead of [[collector]], [collector.NAME] is possible: in INI files, \
                 where it is the only way, and in all others.",
                COLLECTOR,
            ),
            Self::Syslog => (
                "syslog",
                "A copy of the records, as lines. With neither collector nor syslog there is one: target \"stdout\".",
                SYSLOG,
            ),
        }
    }

    /// Whether the section may appear any number of times: `[[collector]]` or `[collector.NAME]`.
    pub const fn is_list(self) -> bool {
        matches!(self, Self::Collector | Self::Syslog)
    }
}

/// Puts the value that is in use in the place of the new one, and says whether they differ.
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
    /// For a key of something that stays open over a reload: how it is kept as it is.
    keep: Option<Keep>,
}

/// The defaults of the keys. Values are in TOML's notation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Preset {
    Value(&'static str),
    /// Nothing, which may also be written as `""`.
    Unset,
    /// There is no default; this is an example.
    Required(&'static str),
    /// The default follows from other keys or the environment; this is the usual one.
    Varies(&'static str),
}

impl Preset {
    /// The value to show in a sample configuration, in TOML's notation.
    pub const fn sample(self) -> &'static str {
        match self {
            Self::Value(text) | Self::Required(text) | Self::Varies(text) => text,
            Self::Unset => "\"\"",
        }
    }
}

impl Key {
    /// Whether a change takes a restart: a reload leaves the key as it is.
    pub const fn is_fixed(&self) -> bool {
        self.keep.is_some()
    }

    /// The key's part of a variable name: upper case, `_` for `-`.
    pub(crate) fn variable_suffix(&self) -> String {
        self.name.to_ascii_uppercase().replace('-', "_")
    }
}

impl Config {
    /// The configuration after a reload: the new one, but for the keys that take a restart; with the names of those
    /// of them that differ.
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

/// Advice about an unknown name: the one that was probably meant, the section to which it belongs, or all known ones.
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

/// The keys of a section: a comment for operators, name, preset, and what is expected.
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

/// The same with a struct that is made of them. A key is `fixed` or `live`, and its field `one` value, an `optional`
/// one or a `list`.
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

            /// `None` when there is a mistake in the section; it is among the table's problems then.
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

use Preset::{Required, Unset, Value, Varies};

const OUTPUT_NAME: &str = "a name of at most 64 letters, digits, \"-\", \"_\" and \".\"";

section! {
    /// `[capture]`: what is read from the kernel, and how.
    capture: Capture {
        /// The network namespace whose translations are logged, by name (ip netns) or path. Empty: the one nattrail
        /// is started in.
        fixed "namespace" namespace: Option<Namespace> = optional(values::namespace),
            Unset, "the name of a network namespace or an absolute path to one";
        /// Name of nattrail's own nftables table (family inet). Its only rule keeps connection tracking switched on;
        /// it goes when nattrail stops, unless a service manager keeps the event socket for the next start.
        fixed "table" table: String = one(values::table_name),
            Value("\"nattrail\""), "a name of at most 63 letters, digits, \"_\", \".\" and \"-\" that begins with a letter";
        /// Which connections are logged: "nat" (translated ones) or "all".
        live "log" log: LogScope = one(values::log_scope),
            Value("\"nat\""), "\"nat\" or \"all\"";
        /// Log only connections whose ct mark, masked, equals the value: "0x10/0xff" or "16". Without a mask all 32
        /// bits count. Empty: any mark.
        live "mark" mark: Option<MarkFilter> = optional(values::mark),
            Unset, "a connection mark as value or value/mask, decimal or with 0x";
        /// Log only these protocols, by name or number: ["tcp", "udp", 47]. Empty: all.
        live "protocols" protocols: Vec<Protocol> = list(values::protocol),
            Value("[]"), "protocols by name (icmp, tcp, udp, dccp, gre, icmpv6, sctp, udplite) or by number from 0 to 255";
        /// Log only connections whose source before translation is in one of these prefixes. Empty: any.
        live "source" source: Vec<Prefix> = list(values::prefix),
            Value("[]"), "address prefixes such as \"10.0.0.0/8\"";
        /// Log only connections whose destination before translation is in one of these prefixes. Empty: any.
        live "destination" destination: Vec<Prefix> = list(values::prefix),
            Value("[]"), "address prefixes such as \"10.0.0.0/8\"";
        /// Whether nattrail itself sets net.netfilter.nf_conntrack_events, _acct and _timestamp to 1 at start. With
        /// false it only says which are off.
        fixed "set-sysctls" set_sysctls: bool = one(values::flag),
            Value("false"), "true or false";
        /// Room for events that wait in the kernel, in bytes (KiB, MiB, GiB). 64MiB holds about 100,000 events;
        /// memory is used only while they wait.
        fixed "receive-buffer" receive_buffer: usize = one(values::buffer),
            Value("\"64MiB\""), "a size from 4KiB to 1GiB";
        /// Whether the kernel keeps the end of a connection until nattrail could take it. The price: while nattrail
        /// is stalled, ended connections still count toward nf_conntrack_max.
        fixed "reliable" reliable: bool = one(values::flag),
            Value("true"), "true or false";
        /// How often the open connections are compared with the kernel's table: a connection whose end was never
        /// reported is closed then, and one that was never announced is found. 0s: only at start and after a gap.
        live "resync" resync: Option<Duration> = one(values::interval),
            Value("\"10m\""), "a duration from 1s, or 0s";
    }
}

section! {
    /// `[pending]`: the store of connections that are still open.
    pending: Pending {
        /// SQLite file of the connections that are still open, the record log, and the place of each output in it.
        /// Default: pending.db in the state directory ($STATE_DIRECTORY, or /var/lib/nattrail).
        fixed "database" database: PathBuf = one(values::absolute_path),
            Varies("\"/var/lib/nattrail/pending.db\""), "an absolute path";
        /// Age (ms, s, m, h, d) after which a connection that the kernel no longer has is closed with an inferred
        /// delete record.
        live "ttl" ttl: Duration = one(values::at_least_a_second),
            Value("\"7d\""), "a duration of at least 1s, such as \"7d\"";
        /// How often the database is written, from 100ms to 1m. Records leave after that, so that they wait at most
        /// this long; a crash costs at most the records of this time, and repeats at most as many.
        live "flush" flush: Duration = one(values::duration(Duration::from_millis(100)..=MINUTE)),
            Value("\"1s\""), "a duration from 100ms to 1m";
        /// Most connections kept at a time, about 160 octets of memory each. Connections beyond are logged all the
        /// same, but after a crash or a restart nattrail does not know of them. The kernel's own bound is
        /// nf_conntrack_max.
        live "max" max: usize = one(values::whole(1..=4_000_000_000)),
            Value("4000000"), "a whole number from 1 to 4000000000";
    }
}

section! {
    /// `[log]`: how much of the records that an output has not taken yet the database keeps.
    log: Log {
        /// Most bytes (KiB, MiB, GiB, TiB) of records that wait in the database, from 16MiB to 1TiB. 1GiB has room for
        /// the records of some ten million IPv4 connections.
        live "size" size: u64 = one(values::size(16 << 20..=1 << 40)),
            Value("\"1GiB\""), "a size from 16MiB to 1TiB";
        /// Age (ms, s, m, h, d) after which a record waits no longer, whether it was taken or not.
        live "age" age: Duration = one(values::at_least_a_second),
            Value("\"7d\""), "a duration of at least 1s, such as \"7d\"";
    }
}

section! {
    /// `[control]`: how a running daemon is asked about itself.
    control: Control {
        /// Unix socket that "nattrail status" and "nattrail tail" ask. Default: control.sock in the runtime directory
        /// ($RUNTIME_DIRECTORY, or /run/nattrail), which is made when it is missing. "": none.
        fixed "socket" socket: Option<PathBuf> = one(values::optional_socket),
            Value("\"/run/nattrail/control.sock\""), "an absolute path of at most 107 bytes, or \"\" for no socket";
    }
}

section! {
    /// `[metrics]`: what Prometheus fetches.
    metrics: Metrics {
        /// Where Prometheus may fetch metrics (http, /metrics): an IP address and a TCP port, by default 9469. Anyone
        /// who reaches it can read them: neither password nor encryption. Empty: nowhere.
        fixed "listen" listen: Option<SocketAddr> = optional(values::address(METRICS_PORT)),
            Unset, "an IP address, with or without a port, such as \"127.0.0.1:9469\"";
    }
}

const COLLECTOR: &[Key] = keys! {
    Collector {
        /// The collector's name, which no other collector has. With a name it keeps its place in the record log even
        /// when its address changes; without one it is known by its address. In [collector.NAME] the default is NAME.
        "name" = Unset, OUTPUT_NAME;
        /// Where to send: an IP address and a UDP port, IPv6 as [address]:port. Required. Default port: 2055 for v5
        /// and v9, 4739 for ipfix.
        "address" = Required("\"192.0.2.10:4739\""), "an IP address, with or without a port, such as \"192.0.2.10:2055\" or \
         \"[2001:db8::10]:4739\" (names are not looked up)";
        /// Transport protocol: "udp" is the only one.
        "transport" = Value("\"udp\""), "\"udp\"";
        /// Export protocol: "v5", "v9" (NetFlow) or "ipfix". v5 knows IPv4 only.
        "version" = Value("\"ipfix\""), "\"v5\", \"v9\" or \"ipfix\"";
        /// Local address to send from, with or without a port. Empty: the system chooses.
        "source" = Unset, "a local IP address, with or without a port";
        /// The records that are sent: "events" (one when a session begins and one when it ends), "triplet" (three flow
        /// records when it ends: pre-NAT, post-NAT, return), or both.
        "records" = Value("[\"events\"]"), "\"events\", \"triplet\" or both, each once";
        /// natEvent values for create and delete: "rfc8158" (4 and 5) or "legacy" (1 and 2). Not for v5.
        "nat-event" = Value("\"rfc8158\""), "\"rfc8158\" or \"legacy\"";
        /// Whether events carry the destination. false leaves it out, as RFC 6888 REQ-12 asks for privacy; not for
        /// v5, not with triplets.
        "destination" = Value("true"), "true or false";
        /// Whether events carry the conntrack zone, as ingressVRFID. Not for v5.
        "zone" = Value("false"), "true or false";
        /// Whether a triplet's post-NAT record repeats the counters of the pre-NAT record. false: it has zeros, so
        /// that no traffic is counted twice.
        "post-nat-counters" = Value("true"), "true or false";
        /// Largest IP packet sent, in bytes with headers: 576 to 9216, over IPv6 at least 1280.
        "mtu" = Value("1500"), "a whole number from 576 to 9216";
        /// Templates are sent again after this time. Not for v5.
        "template-refresh" = Value("\"30m\""), "a duration of at least 1s";
        /// Templates are sent again after this many packets. Not for v5.
        "template-refresh-packets" = Value("20"), "a whole number from 1 to 4294967295";
        /// Size of the socket's send buffer in bytes (KiB, MiB, GiB). Empty: the system's default.
        "send-buffer" = Unset, "a size from 4KiB to 1GiB";
        /// Observation domain (ipfix), source id (v9), or engine type and id (v5, at most 65535). Tells gateways and
        /// streams apart at the collector.
        "observation-domain" = Value("1"), "a whole number from 0 to 4294967295";
        /// Longest time a record waits for its packet to fill, after the wait for the database (pending.flush). From 0s
        /// to 1m.
        "export-delay" = Value("\"1s\""), "a duration from 0s to 1m";
    }
};

const SYSLOG: &[Key] = keys! {
    Syslog {
        /// The copy's name, which no other copy has. With a name it keeps its place in the record log even when its
        /// target changes; without one it is known by its target. In [syslog.NAME] the default is NAME.
        "name" = Unset, OUTPUT_NAME;
        /// Where copies go: "local" (the syslog socket), "udp" (a syslog server), "file", "stdout" or "journal"
        /// (systemd). Required.
        "target" = Required("\"local\""), "\"local\", \"udp\", \"file\", \"stdout\" or \"journal\"";
        /// The syslog server, for udp only and required there. Default port: 514.
        "address" = Unset, "an IP address, with or without a port, such as \"192.0.2.20:514\"";
        /// The file (required for file), or another socket than /dev/log (local) or /run/systemd/journal/socket
        /// (journal).
        "path" = Unset, "an absolute path";
        /// "csv" (flow-tools' 18 fields, three lines per session), "text" (key=value), "json" or "rfc5424"
        /// (structured data). Default: text for stdout and journal, csv otherwise.
        "format" = Varies("\"csv\""), "\"csv\", \"text\", \"json\" or \"rfc5424\"";
        /// Syslog facility: kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, authpriv, ftp or local0 to
        /// local7.
        "facility" = Value("\"local6\""), "a syslog facility such as \"daemon\" or \"local6\"";
        /// Syslog severity: emerg, alert, crit, err, warning, notice, info or debug.
        "severity" = Value("\"info\""), "a syslog severity: emerg, alert, crit, err, warning, notice, info or debug";
        /// APP-NAME, tag or SYSLOG_IDENTIFIER of the copies.
        "app-name" = Value("\"nattrail\""), "a name of at most 48 letters, digits, \"_\", \".\", \"/\" and \"-\"";
        /// The address that the csv format puts into its field exaddr, which has room for IPv4 only. Only for csv.
        "exporter-address" = Value("\"127.0.0.1\""), "an IPv4 address";
    }
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;
    use crate::config::Config;

    #[test]
    fn every_key_is_in_the_table_once() {
        let mut seen = HashSet::new();
        for key in all() {
            assert!(
                seen.insert((key.section, key.name)),
                "{} twice in {}",
                key.name,
                key.section.name()
            );
        }
    }

    #[test]
    fn a_misspelt_word_finds_its_nearest() {
        let names: Vec<_> = all().map(|key| key.name).collect();
        assert_eq!(nearest("lgo", &names), Some("log"));
        assert_eq!(nearest("TTL", &names), Some("ttl"));
        assert_eq!(nearest("set_sysctls", &names), Some("set-sysctls"));
        assert_eq!(nearest("recieve-buffer", &names), Some("receive-buffer"));
        assert_eq!(nearest("colour", &names), None);
        assert_eq!(nearest("", &names), None);
    }

    #[test]
    fn a_reload_keeps_the_keys_that_take_a_restart_and_names_those_that_differ() {
        let current =
            load("[capture]\ntable = \"a\"\n[control]\nsocket = \"/a\"\n[pending]\nttl = \"1d\"");
        let read =
            load("[capture]\ntable = \"b\"\n[control]\nsocket = \"/b\"\n[pending]\nttl = \"2d\"");
        let (merged, differing) = current.reloaded(read.clone());
        assert_eq!(differing, ["capture.table", "control.socket"]);
        assert_eq!(
            (&merged.capture, &merged.control),
            (&current.capture, &current.control)
        );
        assert_eq!(merged.pending, read.pending);
        assert!(merged.reloaded(merged.clone()).1.is_empty());
    }

    /// `conf/nattrail.toml`, as it follows from the table.
    fn sample() -> String {
        let mut text = String::from(INTRODUCTION);
        for section in Section::ALL {
            text += &format!("\n{}", comment(section.introduction()));
            let name = section.name();
            if section.is_list() {
                text += &format!("#[[{name}]]\n");
            } else {
                text += &format!("[{name}]\n");
            }
            for key in section.keys() {
                text += &format!("\n{}", comment(key.doc));
                text += &format!("#{} = {}\n", key.name, key.preset.sample());
            }
        }
        text
    }

    const INTRODUCTION: &str = "\
# Configuration of nattrail. Every key is here, as a comment with its default: take away the # of what you change.
# Keys of collectors and syslog targets also need the # of their section taken away; copy the section for more of them.
#
# A variable of the environment overrides a key: NATTRAIL_CAPTURE_LOG, NATTRAIL_PENDING_TTL, lists with commas; collectors
# and syslog targets are counted from 0: NATTRAIL_COLLECTOR_0_ADDRESS. \"nattrail check\" says whether all is well.
";

    fn comment(text: &str) -> String {
        let mut comment = String::new();
        let mut line = String::from("#");
        for word in text.split(' ') {
            if line.len() + 1 + word.len() > 118 {
                comment += &format!("{line}\n");
                line = String::from("#");
            }
            line += &format!(" {word}");
        }
        format!("{comment}{line}\n")
    }

    #[test]
    fn the_sample_shows_every_key_with_its_default() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/nattrail.toml");
        if std::env::var_os("NATTRAIL_WRITE").is_some() {
            std::fs::write(file, sample()).unwrap();
        }
        let found = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            found == sample(),
            "conf/nattrail.toml: expected this text, which follows from the table of keys:\n{}",
            sample()
        );
    }

    #[test]
    fn the_sample_is_the_default_configuration() {
        assert_eq!(load(&sample()), Config::default());
    }

    #[test]
    fn the_sample_with_every_key_taken_out_of_its_comment_keeps_the_defaults() {
        let text: Vec<_> = sample()
            .lines()
            .map(|line| {
                // Keys and sections begin right after the mark, sentences after a space.
                let setting = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
                setting.unwrap_or(line).to_owned()
            })
            .collect();
        let config = load(&text.join("\n"));
        assert_eq!(config.capture, Config::default().capture);
        assert_eq!(config.pending, Config::default().pending);
        assert_eq!(config.control, Config::default().control);
        assert_eq!(config.metrics, Config::default().metrics);
        let bare = load("[[collector]]\naddress = \"192.0.2.10\"\n[[syslog]]\ntarget = \"local\"");
        assert_eq!(config.log, Config::default().log);
        assert_eq!(config.collectors, bare.collectors);
        assert_eq!(config.syslog, bare.syslog);
    }

    fn load(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nattrail.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), std::iter::empty())
            .unwrap()
            .config
    }
}
