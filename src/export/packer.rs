//! Packs NAT events into the messages of one collector: batching, sequence numbers and the template clock.
//!
//! Sans-IO: events and `now` go in, finished messages come out in a [`Queue`] with the number of their flow records as
//! tag. What is guaranteed of them:
//!
//! - none is longer than [`config::Collector::max_message`] (the least `mtu` has room for any record), and none is
//!   empty;
//! - a record leaves no later than `export-delay` after it came, if [`Packer::handle_timeout`] is called at
//!   [`Packer::poll_timeout`];
//! - no data record is in a message before the one with its template, unless the queue refused that one; then the next
//!   message begins with the templates again;
//! - sequence numbers also count what the queue refused or the network lost, so that the collector sees the loss.
//!
//! Nothing is allocated per record.

mod netflow5;
mod templated;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::config::{self, Version};
use crate::export::queue::{Full, Queue};
use crate::session::NatEvent;
use crate::time::{Now, Uptime, Wall};

/// How messages travel, which decides when templates are sent again (RFC 7011 sections 8.1 and 8.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Messages may get lost: templates are repeated.
    Datagram,
    /// Nothing gets lost while the connection lasts: templates are sent once for each.
    Stream,
}

/// The format has no record for an event: it is of another address family, or its counters are out of range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotRepresentable;

impl fmt::Display for NotRepresentable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the session has no record in this format")
    }
}

impl std::error::Error for NotRepresentable {}

/// What has been packed since the start, or since that of the run which this one goes on from: see [`Packer::resume`].
/// Lost messages are not among `messages`, `octets` and `records`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    pub since: Wall,
    pub messages: u64,
    pub octets: u64,
    /// Flow records: templates and options do not count.
    pub records: u64,
    /// Flow records that the queue refused, in this run.
    pub dropped: u64,
    /// Flow records that did not leave, for whatever reason.
    pub not_sent: u64,
    /// How many times all templates were sent, in this run.
    pub template_sends: u64,
}

/// How far a collector has been served, for the packer of a later run to go on from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Sequence number of the next message.
    pub sequence: u32,
    /// Since when the rest is counted.
    pub since: Wall,
    pub messages: u64,
    pub octets: u64,
    pub records: u64,
    pub not_sent: u64,
}

impl Progress {
    /// By how much the sequence moves on when it is not known how far it got: 2^24, more than leaves between two commits
    /// of the store.
    const LEAP: u32 = 1 << 24;

    /// What a packer goes on from when its predecessor has packed more than this, and nobody knows how much. The collector
    /// sees a leap, and never the same number twice; the exporter's statistics begin anew.
    #[must_use]
    pub const fn leaping(self, now: Now) -> Self {
        Self {
            sequence: self.sequence.wrapping_add(Self::LEAP),
            since: now.wall,
            messages: 0,
            octets: 0,
            records: 0,
            not_sent: 0,
        }
    }
}

/// The packer of one collector.
#[derive(Debug)]
pub struct Packer(Encoding);

#[derive(Debug)]
enum Encoding {
    NetflowV5(netflow5::Packer),
    Templated(templated::Packer),
}

impl Packer {
    #[must_use]
    pub fn new(collector: &config::Collector, transport: Transport, now: Now) -> Self {
        Self(match collector.version {
            Version::NetflowV5 => Encoding::NetflowV5(netflow5::Packer::new(collector, now)),
            Version::NetflowV9 => Encoding::Templated(templated::Packer::new(
                collector,
                templated::Dialect::NetflowV9,
                transport,
                now,
            )),
            Version::Ipfix => Encoding::Templated(templated::Packer::new(
                collector,
                templated::Dialect::Ipfix,
                transport,
                now,
            )),
        })
    }

    /// Goes on where another packer of the same collector stopped. To be called before anything is packed; the templates
    /// come first all the same.
    pub fn resume(&mut self, progress: &Progress) {
        match &mut self.0 {
            Encoding::NetflowV5(packer) => packer.sequence = progress.sequence,
            Encoding::Templated(packer) => packer.sequence = progress.sequence,
        }
        let totals = &mut self.assembly_mut().totals;
        totals.since = progress.since;
        totals.messages = progress.messages;
        totals.octets = progress.octets;
        totals.records = progress.records;
        totals.not_sent = progress.not_sent;
    }

    /// How far the finished messages got.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let totals = self.totals();
        Progress {
            sequence: self.sequence(),
            since: totals.since,
            messages: totals.messages,
            octets: totals.octets,
            records: totals.records,
            not_sent: totals.not_sent,
        }
    }

    /// Packs the records of `event`; messages that are full go to `done`. Call [`Self::poll_timeout`] afterwards.
    ///
    /// # Errors
    /// [`NotRepresentable`], and then some or all of the records are missing.
    pub fn push(
        &mut self,
        event: &NatEvent,
        now: Now,
        done: &mut Queue,
    ) -> Result<(), NotRepresentable> {
        match &mut self.0 {
            Encoding::NetflowV5(packer) => packer.push(event, now, done),
            Encoding::Templated(packer) => packer.push(event, now, done),
        }
    }

    /// Finishes what is due at `now`: a message that has waited long enough, or the repetition of the templates. Does
    /// nothing when nothing is due.
    pub fn handle_timeout(&mut self, now: Now, done: &mut Queue) {
        if self.assembly().deadline.is_some_and(|at| at <= now.up) {
            self.flush(now, done);
        }
        match &mut self.0 {
            Encoding::NetflowV5(_) => {}
            Encoding::Templated(packer) => packer.refresh_templates(now, done),
        }
    }

    /// When [`Self::handle_timeout`] has something to do. Changes with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let refresh = match &self.0 {
            Encoding::NetflowV5(_) => None,
            Encoding::Templated(packer) => packer.refresh_deadline(),
        };
        self.assembly().deadline.into_iter().chain(refresh).min()
    }

    /// Finishes the message in hand, if there is one.
    pub fn flush(&mut self, now: Now, done: &mut Queue) {
        if !self.is_idle() {
            match &mut self.0 {
                Encoding::NetflowV5(packer) => packer.finish(now, done),
                Encoding::Templated(packer) => packer.finish(now, done),
            }
        }
    }

    /// Takes note that a finished message of `octets` with `records` flow records did not reach the network.
    /// The templates are then sent again with the next message, as they may have been in it.
    pub fn handle_not_sent(&mut self, octets: usize, records: u32) {
        self.assembly_mut().totals.take_back(octets, records);
        self.resend_templates();
    }

    /// Begins the next message with the templates.
    pub fn resend_templates(&mut self) {
        match &mut self.0 {
            Encoding::NetflowV5(_) => {}
            Encoding::Templated(packer) => packer.resend_templates(),
        }
    }

    /// Goes over to a new transport session: the message in hand is finished for the old one, sequence numbers begin at
    /// zero and the next message begins with the templates (RFC 7011 section 10.4).
    pub fn restart_stream(&mut self, now: Now, done: &mut Queue) {
        self.flush(now, done);
        match &mut self.0 {
            Encoding::NetflowV5(packer) => packer.sequence = 0,
            Encoding::Templated(packer) => packer.sequence = 0,
        }
        self.resend_templates();
    }

    /// Whether no message is in hand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.assembly().is_idle()
    }

    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.assembly().totals
    }

    /// The sequence number of the next message.
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        match &self.0 {
            Encoding::NetflowV5(packer) => packer.sequence,
            Encoding::Templated(packer) => packer.sequence,
        }
    }

    const fn assembly(&self) -> &Assembly {
        match &self.0 {
            Encoding::NetflowV5(packer) => &packer.assembly,
            Encoding::Templated(packer) => &packer.assembly,
        }
    }

    const fn assembly_mut(&mut self) -> &mut Assembly {
        match &mut self.0 {
            Encoding::NetflowV5(packer) => &mut packer.assembly,
            Encoding::Templated(packer) => &mut packer.assembly,
        }
    }
}

/// The message in hand, in whichever format.
#[derive(Debug)]
struct Assembly {
    /// Empty while no message has begun.
    bytes: Vec<u8>,
    max_len: usize,
    /// Flow records in `bytes`.
    records: u32,
    deadline: Option<Uptime>,
    delay: Duration,
    totals: Totals,
}

impl Assembly {
    fn new(collector: &config::Collector, now: Now) -> Self {
        let max_len = collector.max_message();
        Self {
            bytes: Vec::with_capacity(max_len),
            max_len,
            records: 0,
            deadline: None,
            delay: collector.export_delay,
            totals: Totals {
                since: now.wall,
                ..Totals::default()
            },
        }
    }

    const fn is_idle(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Begins a message with room for its header.
    fn begin(&mut self, header_len: usize) {
        self.bytes.resize(header_len, 0);
    }

    /// Counts a flow record that has been appended; the first one sets the deadline of the message.
    fn count_record(&mut self, now: Now) {
        self.records += 1;
        if self.deadline.is_none() {
            self.deadline = Some(now.up.saturating_add(self.delay));
        }
    }

    /// Writes the header and hands the message over.
    fn finish(&mut self, header: &[u8], done: &mut Queue) -> Result<(), Full> {
        self.bytes[..header.len()].copy_from_slice(header);
        let result = done.push(&self.bytes, self.records);
        self.totals.messages += 1;
        self.totals.octets += self.bytes.len() as u64;
        self.totals.records += u64::from(self.records);
        if result.is_err() {
            self.totals.dropped += u64::from(self.records);
            self.totals.take_back(self.bytes.len(), self.records);
        }
        self.bytes.clear();
        self.records = 0;
        self.deadline = None;
        result
    }
}

impl Totals {
    const fn take_back(&mut self, octets: usize, records: u32) {
        self.messages -= 1;
        self.octets -= octets as u64;
        self.records -= records as u64;
        self.not_sent += records as u64;
    }
}
