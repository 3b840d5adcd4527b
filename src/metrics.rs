//! Everything that is counted, at one moment, as plain values.
//!
//! A counter is declared once, as a line of a table below: name, kind, type, meaning. The code that counts uses the
//! table's struct as its statistics. The line makes the field in the JSON object of `nattrail status --json` (names may
//! be added, not changed), the words for people and the metric for Prometheus. Counters begin at zero with the daemon,
//! and never go back while it runs. Names end in the unit, unless the value is a plain number of things.
//!
//! These always hold, whatever was lost on the way:
//! - `sessions.creates + sessions.restored = sessions.deletes + sessions.pending + sessions.unkept + sessions.forgotten`,
//!   of which the last two are zero until `pending.max` is first reached;
//! - `events.new + events.destroy - sessions.filtered - sessions.duplicates + sessions.unannounced + sessions.adopted +
//!   sessions.inferred_ends = sessions.creates + sessions.deletes`;
//! - `log.records` is the sum of creates, deletes, flows and gaps; for an output that has been there since the start, `records
//!   + behind + lost` is that sum and the records that an earlier run left it.

mod histogram;
mod prometheus;
mod section;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use self::histogram::micros;
pub use self::histogram::{Bucket, Histogram};
pub(crate) use self::prometheus::CONTENT_TYPE;
use self::section::{Flag, Micros, Moment, Number, Octets, Rate, Section, Word, section};
use crate::session::Protocol;
use crate::time::Wall;

/// All metrics of a daemon. A value that a daemon of another version does not report is zero.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Metrics {
    pub version: String,
    pub pid: u32,
    /// When these values were taken.
    pub time: Wall,
    pub started: Wall,
    pub uptime_seconds: u64,
    /// The network namespace; none stands for the one in which the daemon was started.
    pub namespace: Option<String>,
    /// The configuration file, with its whole path; none when the built-in defaults hold.
    pub configuration: Option<String>,
    /// When it was read.
    pub configuration_read: Option<Wall>,
    pub confinement: Confinement,
    pub sessions: Sessions,
    pub rates: Rates,
    pub events: Events,
    pub kernel: Kernel,
    /// By cause, with an entry for every cause.
    pub gaps: BTreeMap<String, Gaps>,
    pub log: Log,
    pub store: Store,
    pub turns: Turns,
    pub outputs: Vec<Output>,
}

/// The rights that the daemon has given up.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Confinement {
    /// Capabilities that it still has.
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
}

section! {
    /// The session state machine.
    Sessions "sessions" {
        creates: counter Number, "Sessions whose create record left";
        deletes: counter Number, "Sessions whose delete record left";
        pending: gauge Number, "Sessions that have begun and have not ended";
        max: gauge Number, "The most sessions that are kept (pending.max)";
        pending_peak: gauge Number, "The most sessions that were ever pending";
        pending_peak_time: gauge Moment, "When that peak was first reached";
        beyond_max: counter Number, "Sessions that began while pending.max were kept: logged, but not kept";
        unkept: gauge Number, "Sessions beyond pending.max whose end is still expected";
        forgotten: counter Number, "Sessions beyond pending.max whose end was not seen and is no longer expected";
        restored: counter Number, "Sessions taken back from the database at the start";
        unannounced: counter Number, "Deletes whose create was not seen: its record left with them";
        adopted: counter Number, "Sessions found in the kernel's table without an event";
        inferred_ends: counter Number, "Sessions closed because the kernel no longer had them";
        duplicates: counter Number, "Events that repeated one that was already recorded";
        filtered: counter Number, "Events of sessions that the filters leave out";
        audits: counter Number, "Comparisons of the pending sessions with the kernel's table";
        flows: counter Number, "Flow records of sessions that are accounted in parts (capture.active-timeout)";
        sweeps: counter Number, "Readings of the kernel's table for such records";
    }
}

section! {
    /// Records per second, averaged over the last whole second, minute and five minutes; over the time since the start
    /// while that is shorter.
    Rates "rates" {
        creates_1s: detail Rate, "Creates in the last second";
        creates_1min: detail Rate, "Creates in the last minute";
        creates_5min: detail Rate, "Creates in the last five minutes";
        deletes_1s: detail Rate, "Deletes in the last second";
        deletes_1min: detail Rate, "Deletes in the last minute";
        deletes_5min: detail Rate, "Deletes in the last five minutes";
    }
}

section! {
    /// The messages that came from the kernel.
    Events "events" {
        new: detail Number, "NEW events, logged or not";
        destroy: detail Number, "DESTROY events, logged or not";
        messages: counter Number, "Messages of the event socket: new, destroy, malformed, and others, which the kernel does not send";
        batches: counter Number, "System calls that returned events";
        dumped: counter Number, "Entries of the kernel's table that audits and sweeps have read";
        dumped_malformed: counter Number, "Entries of the kernel's table that could not be decoded";
        malformed: counter Number, "Messages of the kernel that could not be decoded, or were longer than any event";
        foreign: counter Number, "Datagrams that did not come from the kernel";
        overflows: counter Number, "How often events were lost because the receive buffer was full; never with capture.reliable";
        new_by_protocol: counter ByProtocol, "NEW events, logged or not, by protocol";
        destroy_by_protocol: counter ByProtocol, "DESTROY events, logged or not, by protocol";
    }
}

section! {
    /// Counts by transport protocol.
    #[derive(Copy, Eq)]
    ByProtocol "protocol" {
        tcp: counter Number, "TCP";
        udp: counter Number, "UDP";
        icmp: counter Number, "ICMP";
        icmpv6: counter Number, "ICMPv6";
        gre: counter Number, "GRE";
        sctp: counter Number, "SCTP";
        other: counter Number, "All others";
    }
}

section! {
    /// The state of the event socket and of connection tracking.
    Kernel "kernel" {
        receive_buffer_octets: gauge Octets, "Receive buffer of the event socket, as the kernel counts it: twice the size asked for";
        queued_octets: gauge Octets, "Octets that wait in the event socket";
        drops: counter Number, "How often an event did not fit at first: with capture.reliable a sign of pressure, not of loss";
        table_entries: gauge Number, "Connections in the kernel's table, including those that have ended but could not be reported yet";
        table_limit: gauge Number, "The most connections in the kernel's table (nf_conntrack_max); 0 when the kernel does not say";
        dying: gauge Number, "Connections that had ended but could not be reported yet when an audit last counted them";
    }
}

section! {
    /// The gaps of one cause.
    #[derive(Copy)]
    Gaps "gaps" {
        count: counter Number, "Gap records, each an interval in which records may be missing";
        lost: counter Number, "Events, packets or records lost in gaps, where that is known";
        last: gauge Moment, "End of the last gap";
    }
}

section! {
    /// The log of records, which the outputs follow.
    Log "log" {
        records: counter Number, "Records that entered the log: creates, deletes, flows and gaps";
        serial: gauge Number, "Serial number of the newest record";
        oldest: gauge Number, "Serial number of the oldest record that is kept";
        octets: gauge Octets, "Octets of the log in the database";
        limit_octets: gauge Octets, "The most octets that the log may have in the database";
    }
}

section! {
    /// The database of pending sessions and records.
    Store "store" {
        available: gauge Flag, "Whether the last write to the database succeeded";
        commits: counter Number, "Transactions that succeeded";
        failed: counter Number, "Attempts to open or to write the database that failed";
        set_aside: counter Number, "Damaged databases set aside";
        longest_commit_microseconds: gauge Micros, "The longest time that a commit took";
        commit_histogram: histogram Histogram, "How long commits took, those that failed included";
    }
}

section! {
    /// Turns of the daemon's loop: each from the end of a wait to the beginning of the next.
    Turns "turns" {
        count: detail Number, "Turns";
        longest_microseconds: gauge Micros, "The longest time that a turn took";
        longest_last_minute_microseconds: gauge Micros, "The longest time that a turn took in the last minute";
        histogram: histogram Histogram, "How long turns of the daemon's loop took";
    }
}

section! {
    /// A collector or a copy.
    Output "output" {
        name: label Word, "As the log names it";
        format: label Word, "ipfix, v9, v5, text, json, csv or rfc5424";
        target: label Word, "udp, file, journal, local or stdout";
        selection: detail Word, "The connections that it gets; empty when those are all that are logged";
        state: gauge State, "Whether it takes records: 1 for its present state";
        records: counter Number, "Records of the log that it has taken";
        behind: gauge Number, "Records of the log that it has not taken yet";
        lost: counter Number, "Records of the log that it can never get";
        not_representable: counter Number, "Records that its format cannot express";
        flow_records: counter Number, "Flow records made from the records: none, one or several for each";
        messages: counter Number, "Messages that it has taken";
        octets: counter Octets, "Octets that it has taken, without headers of IP and UDP";
        gaps: counter Number, "Gap records written to it";
        refused: counter Number, "Messages that its host refused because nothing listens on the port";
        errors: counter Number, "Failed attempts to open, connect or write";
        sequence: detail Number, "Sequence number of the next message";
        template_sends: counter Number, "How many times templates were sent";
        observation_domain: detail Number, "Observation domain, source id, or engine";
    }
}

/// How an output fares.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Working,
    /// The last attempt failed; it is tried again.
    Failing,
    /// Its host says that nobody listens; it is tried again.
    Refused,
    /// It can take nothing any more, such as a closed standard output.
    Ended,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [Self::Working, Self::Failing, Self::Refused, Self::Ended];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Failing => "failing",
            Self::Refused => "refused",
            Self::Ended => "ended",
        }
    }
}

impl ByProtocol {
    pub(crate) const fn count(&mut self, protocol: Protocol) {
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

impl Metrics {
    /// All tables except those of the gaps, of which each cause has one.
    fn sections(&self) -> Vec<&dyn Section> {
        let mut sections: Vec<&dyn Section> = vec![
            &self.sessions,
            &self.rates,
            &self.events,
            &self.kernel,
            &self.log,
            &self.store,
            &self.turns,
        ];
        sections.extend(self.outputs.iter().map(|output| output as &dyn Section));
        sections
    }

    /// The JSON object, on one line.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text, numbers and names of fields are always JSON")
    }
}

#[cfg(test)]
mod tests;
