//! The one table of configuration keys.
//!
//! The parser takes its defaults and its "expected" from here, messages about misspelt keys their suggestions, the
//! environment its variable names, and `conf/nattrail.toml` and the manual page nattrail.toml(5) every line: a key exists
//! when it is in [`KEYS`]. `NATTRAIL_WRITE=1 cargo test` writes both anew. A key that a reload cannot change says here how it
//! is kept, for [`Config::reloaded`] and for the manual page.

use super::Config;

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

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Pending => "pending",
            Self::Log => "log",
            Self::Control => "control",
            Self::Metrics => "metrics",
            Self::Collector => "collector",
            Self::Syslog => "syslog",
        }
    }

    /// What the section is about: a sentence for an operator.
    #[must_use]
    pub const fn introduction(self) -> &'static str {
        match self {
            Self::Capture => "What is read from the kernel, and how.",
            Self::Pending => "The connections that are still open.",
            Self::Log => {
                "The record log: the database keeps the records that an output has not taken yet, within these bounds. \
                 Beyond them the oldest go, and each output that had not taken them states one gap with their number."
            }
            Self::Control => "How a running nattrail is asked about itself.",
            Self::Metrics => "Metrics for Prometheus.",
            Self::Collector => {
                "A NetFlow or IPFIX collector. Instead of [[collector]], [collector.NAME] is possible: in INI files, \
                 where it is the only way, and in all others."
            }
            Self::Syslog => {
                "A copy of the records, as lines. With neither collector nor syslog there is one: target \"stdout\"."
            }
        }
    }

    /// Whether the section may appear any number of times: `[[collector]]` or `[collector.NAME]`.
    #[must_use]
    pub const fn is_list(self) -> bool {
        matches!(self, Self::Collector | Self::Syslog)
    }

    /// The keys of the section, in the order of the table.
    pub fn keys(self) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(move |key| key.section == self)
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
    /// What a value must be, to follow "expected" in a message.
    pub expected: &'static str,
    /// What it means for an operator: the comment in `conf/nattrail.toml`.
    pub doc: &'static str,
    /// For a key of something that stays open over a reload: how it is kept as it is.
    keep: Option<Keep>,
}

/// What holds where a key is not set. Values are in TOML's notation.
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
    #[must_use]
    pub const fn sample(self) -> &'static str {
        match self {
            Self::Value(text) | Self::Required(text) | Self::Varies(text) => text,
            Self::Unset => "\"\"",
        }
    }
}

impl Key {
    const fn fixed(mut self, keep: Keep) -> Self {
        self.keep = Some(keep);
        self
    }

    /// Whether a change takes a restart: a reload leaves the key as it is.
    #[must_use]
    pub const fn is_fixed(&self) -> bool {
        self.keep.is_some()
    }

    /// The key's part of a variable name: upper case, `_` for `-`.
    #[must_use]
    pub(crate) fn variable_suffix(&self) -> String {
        self.name.to_ascii_uppercase().replace('-', "_")
    }
}

impl Config {
    /// What holds after a reload: the new configuration, but for the keys that take a restart; with the names of those of them
    /// that differ.
    #[must_use]
    pub(crate) fn reloaded(&self, mut new: Self) -> (Self, Vec<String>) {
        let mut differing = Vec::new();
        for key in KEYS {
            if key.keep.is_some_and(|keep| keep(self, &mut new)) {
                differing.push(format!("{}.{}", key.section.name(), key.name));
            }
        }
        (new, differing)
    }
}

/// The key `name` of `section`.
#[must_use]
pub(crate) fn find(section: Section, name: &str) -> Option<&'static Key> {
    section.keys().find(|key| key.name == name)
}

/// The candidate that a misspelt word most likely meant; `None` when none is close.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Number of letters to insert, remove, replace or swap with their neighbour (optimal string alignment distance).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=right.len()).collect();
    for i in 1..=left.len() {
        for j in 1..=right.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[left.len()][right.len()]
}

const fn key(
    section: Section,
    name: &'static str,
    preset: Preset,
    expected: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        section,
        name,
        preset,
        expected,
        doc,
        keep: None,
    }
}

fn keep<T: Clone + PartialEq>(current: &T, new: &mut T) -> bool {
    let differs = current != new;
    new.clone_from(current);
    differs
}

use Preset::{Required, Unset, Value, Varies};
use Section::{Capture, Collector, Control, Log, Metrics, Pending, Syslog};

const OUTPUT_NAME: &str = "a name of at most 64 letters, digits, \"-\", \"_\" and \".\"";

pub(crate) const KEYS: &[Key] = &[
    key(
        Capture,
        "namespace",
        Unset,
        "the name of a network namespace or an absolute path to one",
        "The network namespace whose translations are logged, by name (ip netns) or path. Empty: the one nattrail is \
         started in.",
    )
    .fixed(|current, new| keep(&current.capture.namespace, &mut new.capture.namespace)),
    key(
        Capture,
        "table",
        Value("\"nattrail\""),
        "a name of at most 63 letters, digits, \"_\", \".\" and \"-\" that begins with a letter",
        "Name of nattrail's own nftables table (family inet). Its only rule keeps connection tracking switched on; it \
         goes when nattrail stops, unless a service manager keeps the event socket for the next start.",
    )
    .fixed(|current, new| keep(&current.capture.table, &mut new.capture.table)),
    key(
        Capture,
        "log",
        Value("\"nat\""),
        "\"nat\" or \"all\"",
        "Which connections are logged: \"nat\" (translated ones) or \"all\".",
    ),
    key(
        Capture,
        "mark",
        Unset,
        "a connection mark as value or value/mask, decimal or with 0x",
        "Log only connections whose ct mark, masked, equals the value: \"0x10/0xff\" or \"16\". Without a mask all 32 \
         bits count. Empty: any mark.",
    ),
    key(
        Capture,
        "protocols",
        Value("[]"),
        "protocols by name (icmp, tcp, udp, dccp, gre, icmpv6, sctp, udplite) or by number from 0 to 255",
        "Log only these protocols, by name or number: [\"tcp\", \"udp\", 47]. Empty: all.",
    ),
    key(
        Capture,
        "source",
        Value("[]"),
        "address prefixes such as \"10.0.0.0/8\"",
        "Log only connections whose source before translation is in one of these prefixes. Empty: any.",
    ),
    key(
        Capture,
        "destination",
        Value("[]"),
        "address prefixes such as \"10.0.0.0/8\"",
        "Log only connections whose destination before translation is in one of these prefixes. Empty: any.",
    ),
    key(
        Capture,
        "set-sysctls",
        Value("false"),
        "true or false",
        "Whether nattrail itself sets net.netfilter.nf_conntrack_events, _acct and _timestamp to 1 at start. With \
         false it only says which are off.",
    )
    .fixed(|current, new| keep(&current.capture.set_sysctls, &mut new.capture.set_sysctls)),
    key(
        Capture,
        "receive-buffer",
        Value("\"64MiB\""),
        "a size from 4KiB to 1GiB",
        "Room for events that wait in the kernel, in bytes (KiB, MiB, GiB). 64MiB holds about 100,000 events; memory \
         is used only while they wait.",
    )
    .fixed(|current, new| keep(&current.capture.receive_buffer, &mut new.capture.receive_buffer)),
    key(
        Capture,
        "reliable",
        Value("true"),
        "true or false",
        "Whether the kernel keeps the end of a connection until nattrail could take it. The price: while nattrail is \
         stalled, ended connections still count toward nf_conntrack_max.",
    )
    .fixed(|current, new| keep(&current.capture.reliable, &mut new.capture.reliable)),
    key(
        Capture,
        "resync",
        Value("\"10m\""),
        "a duration from 1s, or 0s",
        "How often the open connections are held against the kernel's table, so that those whose end was never reported \
         are closed, and those never announced are found. 0s: only at start and after a gap.",
    ),
    key(
        Pending,
        "database",
        Varies("\"/var/lib/nattrail/pending.db\""),
        "an absolute path",
        "SQLite file of the connections that are still open. Default: pending.db in the state directory \
         ($STATE_DIRECTORY, or /var/lib/nattrail).",
    )
    .fixed(|current, new| keep(&current.pending.database, &mut new.pending.database)),
    key(
        Pending,
        "ttl",
        Value("\"7d\""),
        "a duration of at least 1s, such as \"7d\"",
        "Age (ms, s, m, h, d) after which a connection that the kernel no longer has is closed with an inferred delete \
         record.",
    ),
    key(
        Pending,
        "flush",
        Value("\"1s\""),
        "a duration from 100ms to 1m",
        "How often the database is written: a crash loses at most this much of it. From 100ms to 1m.",
    ),
    key(
        Pending,
        "max",
        Value("4000000"),
        "a whole number from 1 to 4000000000",
        "Most connections kept at a time, about 160 octets of memory each. Of those beyond, all records still leave, but \
         after a crash or a restart nattrail does not know of them. The kernel's own bound is nf_conntrack_max.",
    ),
    key(
        Log,
        "size",
        Value("\"1GiB\""),
        "a size from 16MiB to 1TiB",
        "Most bytes (KiB, MiB, GiB, TiB) of records that wait in the database, from 16MiB to 1TiB.",
    ),
    key(
        Log,
        "age",
        Value("\"7d\""),
        "a duration of at least 1s, such as \"7d\"",
        "Age (ms, s, m, h, d) after which a record waits no longer.",
    ),
    key(
        Control,
        "socket",
        Value("\"/run/nattrail/control.sock\""),
        "an absolute path of at most 107 bytes, or \"\" for no socket",
        "Unix socket that \"nattrail status\" and \"nattrail tail\" ask. Default: control.sock in the runtime directory ($RUNTIME_DIRECTORY, or \
         /run/nattrail), which is made when it is missing. \"\": none.",
    )
    .fixed(|current, new| keep(&current.control.socket, &mut new.control.socket)),
    key(
        Collector,
        "name",
        Unset,
        OUTPUT_NAME,
        "The collector's name, which no other collector has; it keeps its place in the record log when its address changes. In \
         [collector.NAME] the default is NAME.",
    ),
    key(
        Metrics,
        "listen",
        Unset,
        "an IP address, with or without a port, such as \"127.0.0.1:9469\"",
        "Where Prometheus may fetch metrics (http, /metrics): an IP address and a TCP port, by default 9469. Anyone who \
         reaches it can read them: neither password nor encryption. Empty: nowhere.",
    )
    .fixed(|current, new| keep(&current.metrics.listen, &mut new.metrics.listen)),
    key(
        Collector,
        "address",
        Required("\"192.0.2.10:4739\""),
        "an IP address and port, such as \"192.0.2.10:2055\" or \"[2001:db8::10]:4739\"",
        "Where to send: an IP address and a UDP port, IPv6 as [address]:port. Required. Default port: 2055 for v5 and \
         v9, 4739 for ipfix.",
    ),
    key(
        Collector,
        "transport",
        Value("\"udp\""),
        "\"udp\"",
        "Transport protocol: \"udp\" is the only one.",
    ),
    key(
        Collector,
        "version",
        Value("\"ipfix\""),
        "\"v5\", \"v9\" or \"ipfix\"",
        "Export protocol: \"v5\", \"v9\" (NetFlow) or \"ipfix\". v5 knows IPv4 only.",
    ),
    key(
        Collector,
        "source",
        Unset,
        "a local IP address, with or without a port",
        "Local address to send from, with or without a port. Empty: the system chooses.",
    ),
    key(
        Collector,
        "records",
        Value("[\"events\"]"),
        "\"events\", \"triplet\" or both, each once",
        "What to send: \"events\" (one record when a session begins and one when it ends), \"triplet\" (three flow \
         records when it ends: pre-NAT, post-NAT, return), or both.",
    ),
    key(
        Collector,
        "nat-event",
        Varies("\"rfc8158\""),
        "\"rfc8158\" or \"legacy\"",
        "natEvent values for create and delete: \"rfc8158\" (4 and 5) or \"legacy\" (1 and 2). Not for v5.",
    ),
    key(
        Collector,
        "destination",
        Value("true"),
        "true or false",
        "Whether events carry the destination. false leaves it out, as RFC 6888 REQ-12 asks for privacy; not for v5, \
         not with triplets.",
    ),
    key(
        Collector,
        "zone",
        Value("false"),
        "true or false",
        "Whether events carry the conntrack zone, as ingressVRFID. Not for v5.",
    ),
    key(
        Collector,
        "post-nat-counters",
        Value("true"),
        "true or false",
        "Whether a triplet's post-NAT record repeats the counters of the pre-NAT record. false: it has zeros, so that \
         no traffic is counted twice.",
    ),
    key(
        Collector,
        "mtu",
        Value("1500"),
        "a whole number from 576 to 9216",
        "Largest IP packet sent, in bytes with headers: 576 to 9216, over IPv6 at least 1280.",
    ),
    key(
        Collector,
        "template-refresh",
        Varies("\"30m\""),
        "a duration of at least 1s",
        "Templates are sent again after this time. Not for v5.",
    ),
    key(
        Collector,
        "template-refresh-packets",
        Varies("20"),
        "a whole number from 1 to 4294967295",
        "Templates are sent again after this many packets. Not for v5.",
    ),
    key(
        Collector,
        "send-buffer",
        Unset,
        "a size from 4KiB to 1GiB",
        "Size of the socket's send buffer in bytes (KiB, MiB, GiB). Empty: the system's default.",
    ),
    key(
        Collector,
        "observation-domain",
        Value("1"),
        "a whole number from 0 to 4294967295",
        "Observation domain (ipfix), source id (v9), or engine type and id (v5, at most 65535). Tells gateways and \
         streams apart at the collector.",
    ),
    key(
        Collector,
        "export-delay",
        Value("\"1s\""),
        "a duration from 0s to 1m",
        "Longest time a record waits for its packet to fill, from 0s to 1m.",
    ),
    key(
        Syslog,
        "name",
        Unset,
        OUTPUT_NAME,
        "The copy's name, which no other copy has; it keeps its place in the record log when its target changes. In [syslog.NAME] \
         the default is NAME.",
    ),
    key(
        Syslog,
        "target",
        Required("\"local\""),
        "\"local\", \"udp\", \"file\", \"stdout\" or \"journal\"",
        "Where copies go: \"local\" (the syslog socket), \"udp\" (a syslog server), \"file\", \"stdout\" or \
         \"journal\" (systemd). Required.",
    ),
    key(
        Syslog,
        "address",
        Unset,
        "an IP address, with or without a port, such as \"192.0.2.20:514\"",
        "The syslog server, for udp only and required there. Default port: 514.",
    ),
    key(
        Syslog,
        "path",
        Unset,
        "an absolute path",
        "The file (required for file), or another socket than /dev/log (local) or /run/systemd/journal/socket \
         (journal).",
    ),
    key(
        Syslog,
        "format",
        Varies("\"csv\""),
        "\"csv\", \"text\", \"json\" or \"rfc5424\"",
        "\"csv\" (flow-tools' 18 fields, three lines per session), \"text\" (key=value), \"json\" or \"rfc5424\" \
         (structured data). Default: text for stdout and journal, csv otherwise.",
    ),
    key(
        Syslog,
        "facility",
        Value("\"local6\""),
        "a syslog facility such as \"daemon\" or \"local6\"",
        "Syslog facility: kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, authpriv, ftp or local0 to \
         local7.",
    ),
    key(
        Syslog,
        "severity",
        Value("\"info\""),
        "a syslog severity: emerg, alert, crit, err, warning, notice, info or debug",
        "Syslog severity: emerg, alert, crit, err, warning, notice, info or debug.",
    ),
    key(
        Syslog,
        "app-name",
        Value("\"nattrail\""),
        "a name of at most 48 letters, digits, \"_\", \".\", \"/\" and \"-\"",
        "APP-NAME, tag or SYSLOG_IDENTIFIER of the copies.",
    ),
    key(
        Syslog,
        "exporter-address",
        Varies("\"127.0.0.1\""),
        "an IPv4 address",
        "What the csv format puts into its field exaddr, which has 32 bits. Only for csv.",
    ),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;
    use crate::config::Config;

    #[test]
    fn every_key_is_in_the_table_once() {
        let mut seen = HashSet::new();
        for key in KEYS {
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
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("lgo", names()), Some("log"));
        assert_eq!(nearest("set_sysctls", names()), Some("set-sysctls"));
        assert_eq!(nearest("recieve-buffer", names()), Some("receive-buffer"));
        assert_eq!(nearest("colour", names()), None);
        assert_eq!(nearest("", names()), None);
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
