//! Everything that is counted, at one moment, as plain values.
//!
//! The names of the fields are those of the JSON object that `nattrail status --json` prints, and stay as they are; others
//! may be added. Counters begin at zero with the daemon, and never go back while it runs. Displayed, it is the form for
//! people. Field names end in the unit where it is not "how many".
//!
//! What always holds, whatever was lost on the way:
//! - `sessions.creates + sessions.restored = sessions.deletes + sessions.pending + sessions.unkept + sessions.forgotten`,
//!   of which the last two are zero as long as `pending.max` was never reached;
//! - `events.new + events.destroy - sessions.filtered - sessions.duplicates + sessions.unannounced + sessions.adopted +
//!   sessions.inferred_ends = sessions.creates + sessions.deletes`;
//! - of a collector since the start: `records` is all creates, deletes and gaps, and `flow_records = sent + failed +
//!   dropped + queued`;
//! - of a syslog target: `records = sent + failed + dropped + queued`.

mod text;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::session::Protocol;
use crate::time::Wall;

/// All counters of a daemon. What a daemon of another version does not say is zero.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Metrics {
    pub version: String,
    pub pid: u32,
    /// When these values were taken.
    pub time: Time,
    pub started: Time,
    pub uptime_seconds: u64,
    /// The network namespace; none is the one in which the daemon was started.
    pub namespace: Option<String>,
    /// The configuration file; none when the built-in defaults hold.
    pub configuration: Option<String>,
    pub confinement: Confinement,
    pub events: Events,
    pub kernel: Kernel,
    pub sessions: Sessions,
    pub rates: Rates,
    /// By cause; each cause that there is, but for `undelivered`, which is of one output and counted there.
    pub gaps: BTreeMap<String, Gaps>,
    pub store: Store,
    pub turns: Turns,
    pub collectors: Vec<Collector>,
    pub syslog: Vec<Syslog>,
}

/// What the daemon has given up.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Confinement {
    /// Capabilities that it still has.
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    /// Version of Landlock that withholds all files but its own; none when the kernel does not.
    pub landlock_abi: Option<u32>,
}

/// What came from the kernel.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Events {
    /// NEW events, logged or not.
    pub new: u64,
    /// DESTROY events, logged or not.
    pub destroy: u64,
    pub new_by_protocol: ByProtocol,
    pub destroy_by_protocol: ByProtocol,
    /// Messages of the event socket: `new`, `destroy`, `malformed`, and others, of which the kernel sends none.
    pub messages: u64,
    /// System calls that returned events.
    pub batches: u64,
    /// Entries of the kernel's table that audits have read.
    pub dumped: u64,
    /// Of those, the ones that could not be decoded.
    pub dumped_malformed: u64,
    /// Messages of the kernel that could not be decoded, or were longer than any event.
    pub malformed: u64,
    /// Datagrams that did not come from the kernel.
    pub foreign: u64,
    /// How often events were lost because the receive buffer was full; never with `capture.reliable`.
    pub overflows: u64,
}

/// Counts by transport protocol.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct ByProtocol {
    pub tcp: u64,
    pub udp: u64,
    pub icmp: u64,
    pub icmpv6: u64,
    pub gre: u64,
    pub sctp: u64,
    pub other: u64,
}

impl ByProtocol {
    pub const fn count(&mut self, protocol: Protocol) {
        let counter = match protocol {
            Protocol::TCP => &mut self.tcp,
            Protocol::UDP => &mut self.udp,
            Protocol::ICMP => &mut self.icmp,
            Protocol::ICMPV6 => &mut self.icmpv6,
            Protocol::GRE => &mut self.gre,
            Protocol::SCTP => &mut self.sctp,
            _ => &mut self.other,
        };
        *counter += 1;
    }
}

/// The state of the event socket and of connection tracking.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Kernel {
    /// As the kernel counts it: twice what was asked for.
    pub receive_buffer_octets: u64,
    /// What waits in it now.
    pub queued_octets: u64,
    /// How often an event did not fit at first: with `capture.reliable` a sign of pressure, not of loss.
    pub drops: u64,
    /// Connections in the kernel's table, those included that have ended and could not be reported yet.
    pub table_entries: u64,
    /// `nf_conntrack_max`; 0 when the kernel does not say.
    pub table_limit: u64,
    /// Connections that had ended and could not be reported yet, when an audit last counted them.
    pub dying: u64,
}

/// The session state machine.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Sessions {
    pub pending: u64,
    /// `pending.max`.
    pub max: u64,
    /// Begun when so many were pending: logged, and not kept.
    pub beyond_max: u64,
    /// Of those, the ones whose end is waited for.
    pub unkept: u64,
    /// Of those, the ones whose end was not seen, and is no longer waited for.
    pub forgotten: u64,
    pub pending_peak: u64,
    /// When there were so many for the first time.
    pub pending_peak_time: Option<Time>,
    /// Taken back from the store at the start.
    pub restored: u64,
    pub creates: u64,
    pub deletes: u64,
    /// Deletes whose create was not seen, and left with it.
    pub unannounced: u64,
    /// Found in the kernel's table without an event.
    pub adopted: u64,
    /// Closed because the kernel no longer had them.
    pub inferred_ends: u64,
    /// Events that repeated one that was already recorded.
    pub duplicates: u64,
    /// Events of sessions that the filters leave out.
    pub filtered: u64,
    pub audits: u64,
}

/// Records per second, averaged over the last whole second, minute and five minutes; over the time since the start while
/// that is shorter.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Rates {
    pub creates_1s: f64,
    pub creates_1min: f64,
    pub creates_5min: f64,
    pub deletes_1s: f64,
    pub deletes_1min: f64,
    pub deletes_5min: f64,
}

/// The gaps of one cause.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Gaps {
    pub count: u64,
    /// Events or packets lost in them, where that is known.
    pub lost: u64,
    /// End of the last one.
    pub last: Option<Time>,
}

/// The database of pending sessions.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Store {
    pub available: bool,
    pub commits: u64,
    pub failed: u64,
    /// Damaged databases set aside.
    pub set_aside: u64,
    pub longest_commit_microseconds: u64,
}

/// Turns of the daemon's loop: each from the end of a wait to the beginning of the next.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Turns {
    pub count: u64,
    pub longest_microseconds: u64,
    pub longest_last_minute_microseconds: u64,
    /// By time taken, from short to long.
    pub histogram: Vec<Bucket>,
}

/// How many turns took less than this, and not less than the bucket before.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Bucket {
    /// A power of two; none in the last bucket.
    pub below_microseconds: Option<u64>,
    pub turns: u64,
}

/// A NetFlow or IPFIX collector.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Collector {
    pub address: String,
    /// `v5`, `v9` or `ipfix`.
    pub version: String,
    pub observation_domain: u32,
    /// Records handed to it: creates, deletes and gaps.
    pub records: u64,
    /// Of these, the ones for which the format has no record.
    pub not_representable: u64,
    /// Flow records made of the creates and deletes: none, one or several for each.
    pub flow_records: u64,
    /// Flow records that the network took.
    pub sent: u64,
    /// Flow records in messages that are too large for the way to the collector.
    pub failed: u64,
    /// Flow records for which the queue had no room.
    pub dropped: u64,
    /// Flow records that wait, for their message to fill or for the socket.
    pub queued: u64,
    /// Messages that the network took, and their octets without IP and UDP headers.
    pub messages: u64,
    pub octets: u64,
    /// Gaps in them, also those that say which records this collector missed.
    pub gaps: u64,
    /// Messages to which the collector's host answered that nobody listens on the port.
    pub refused: u64,
    /// Messages that wait for the socket.
    pub queued_messages: u64,
    pub queued_octets: u64,
    /// The most octets that ever waited.
    pub peak_octets: u64,
    /// Sequence number of the next message.
    pub sequence: u32,
    /// How many times the templates were sent; never for v5, which has none.
    pub template_sends: u64,
}

/// A target for copies.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Syslog {
    /// As the log names it.
    pub target: String,
    /// Records handed to it, without those that its format does not write.
    pub records: u64,
    pub sent: u64,
    pub failed: u64,
    pub dropped: u64,
    pub queued: u64,
    /// Datagrams that the receiver refused; they are among the sent.
    pub refused: u64,
    /// Failed attempts to open, connect or write.
    pub errors: u64,
    /// Gaps written into the copy where records are missing that this target could not take.
    pub own_gaps: u64,
    pub queued_octets: u64,
    pub peak_octets: u64,
}

/// A time in JSON: RFC 3339 in UTC, to the millisecond.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Time(pub Wall);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wall = Wall::parse(&text);
        wall.map(Self)
            .ok_or_else(|| D::Error::custom(format!("expected a time in UTC, found \"{text}\"")))
    }
}

impl Metrics {
    /// The JSON object, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text, numbers and names of fields are always JSON")
    }

    /// # Errors
    /// When `text` is not such an object.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

#[cfg(test)]
mod tests;
