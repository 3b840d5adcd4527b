//! Packs NAT events and gaps into the messages of one collector: batching, sequence numbers and the template clock.
//!
//! Sans-IO, as [`super::encoder`] says. The messages are guaranteed to keep these rules:
//!
//! - none is longer than [`config::Collector::max_message`] (the least `mtu` has room for any record), and none is
//!   empty;
//! - a record leaves no later than `export-delay` after it came, if [`Packer::handle_timeout`] is called at
//!   [`Packer::poll_timeout`];
//! - no data record is in a message before the one with its template;
//! - after [`Packer::go_back`] the same sequence numbers count the same messages again, and templates come first.
//!
//! Nothing is allocated per record.

mod netflow5;
mod templated;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::encoder::{Amount, Load, NotRepresentable};
use super::queue::Queue;
use crate::config::{self, Version};
use crate::place::{Position, Serial};
use crate::session::Record;
use crate::time::{Now, Uptime};
use crate::wire::layout::Dialect;

/// The packer of one collector.
#[derive(Debug)]
pub struct Packer(Encoding);

#[derive(Debug)]
enum Encoding {
    NetflowV5(netflow5::Packer),
    Templated(Box<templated::Packer>),
}

impl Packer {
    #[must_use]
    pub fn new(collector: &config::Collector, now: Now) -> Self {
        let templated = |dialect| {
            let packer = templated::Packer::new(collector, dialect, now);
            Encoding::Templated(Box::new(packer))
        };
        Self(match collector.version {
            Version::NetflowV5 => Encoding::NetflowV5(netflow5::Packer::new(collector)),
            Version::NetflowV9 => templated(Dialect::NetflowV9),
            Version::Ipfix => templated(Dialect::Ipfix),
        })
    }

    /// Packs the flow records of a record but for the first `skip`; messages that are full go to `done`. Call
    /// [`Self::poll_timeout`] afterwards.
    ///
    /// # Errors
    /// [`NotRepresentable`], and then some or all of the flow records are missing.
    pub fn push(
        &mut self,
        record: &Record,
        serial: Serial,
        skip: u32,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        self.assembly_mut().begin_record(serial, skip);
        let result = match (&mut self.0, record) {
            (Encoding::NetflowV5(packer), Record::Event(event)) => packer.push(event, now, done),
            (Encoding::NetflowV5(_), Record::Gap(_)) => Err(NotRepresentable),
            (Encoding::Templated(packer), Record::Event(event)) => packer.push(event, now, done),
            (Encoding::Templated(packer), Record::Gap(gap)) => {
                packer.push_gap(*gap, now, done);
                Ok(())
            }
        };
        self.assembly_mut().end_record(serial);
        result
    }

    /// Finishes the messages that are due at `now`: one that has waited long enough, or the repetition of the templates.
    /// Does nothing when none is.
    pub fn handle_timeout(&mut self, now: Now, done: &mut Queue<Load>) {
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
    pub fn flush(&mut self, now: Now, done: &mut Queue<Load>) {
        if !self.is_idle() {
            match &mut self.0 {
                Encoding::NetflowV5(packer) => packer.finish(now, done),
                Encoding::Templated(packer) => packer.finish(now, done),
            }
        }
    }

    /// Forgets the message in hand, and goes back to the message with this sequence number. `back` is the sum of all
    /// messages that were finished from there on.
    pub fn go_back(&mut self, sequence: u32, back: Amount) {
        self.assembly_mut().abandon();
        self.assembly_mut().totals -= back;
        match &mut self.0 {
            Encoding::NetflowV5(packer) => packer.sequence = sequence,
            Encoding::Templated(packer) => packer.go_back(sequence),
        }
    }

    /// Takes note that the collector can no longer get so many records.
    pub fn count_lost(&mut self, lost: u64) {
        self.assembly_mut().lost += lost;
    }

    /// Whether no message is in hand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.assembly().is_idle()
    }

    /// How many times all templates were sent.
    #[must_use]
    pub fn template_sends(&self) -> u64 {
        match &self.0 {
            Encoding::NetflowV5(_) => 0,
            Encoding::Templated(packer) => packer.template_sends,
        }
    }

    /// The sequence number of the next message.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        match &self.0 {
            Encoding::NetflowV5(packer) => packer.sequence,
            Encoding::Templated(packer) => packer.sequence,
        }
    }

    fn assembly(&self) -> &Assembly {
        match &self.0 {
            Encoding::NetflowV5(packer) => &packer.assembly,
            Encoding::Templated(packer) => &packer.assembly,
        }
    }

    fn assembly_mut(&mut self) -> &mut Assembly {
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
    /// The contents of `bytes`.
    load: Load,
    deadline: Option<Uptime>,
    delay: Duration,
    /// The flow record that comes next.
    next: Position,
    /// Flow records of the record in hand that have been taken.
    skip: u32,
    /// Of all messages that are finished.
    totals: Amount,
    /// Records that the collector can no longer get.
    lost: u64,
}

impl Assembly {
    fn new(collector: &config::Collector) -> Self {
        let max_len = collector.max_message();
        Self {
            bytes: Vec::with_capacity(max_len),
            max_len,
            load: Load::default(),
            deadline: None,
            delay: collector.export_delay,
            next: Position::default(),
            skip: 0,
            totals: Amount::default(),
            lost: 0,
        }
    }

    const fn is_idle(&self) -> bool {
        self.bytes.is_empty()
    }

    const fn begin_record(&mut self, serial: Serial, skip: u32) {
        self.next = Position::before(serial);
        self.skip = skip;
    }

    /// No more flow records come of the record.
    const fn end_record(&mut self, serial: Serial) {
        self.next = Position::after(serial);
        self.load.end = self.next;
    }

    /// Whether the next flow record has been taken, and passes it by in that case.
    const fn skips(&mut self) -> bool {
        let skips = self.next.part < self.skip;
        self.next.part += skips as u32;
        skips
    }

    /// Begins a message with room for its header.
    fn begin(&mut self, header_len: usize) {
        self.bytes.resize(header_len, 0);
        self.load.end = self.next;
    }

    /// Counts a flow record that has been appended; the first one sets the deadline of the message.
    fn count_record(&mut self, now: Now) {
        // A record takes more than one octet, and a message has fewer than 65,536.
        self.load.flow_records += 1;
        self.expect(now);
    }

    /// Counts a gap that has been appended, which sets the deadline as a flow record does.
    fn count_gap(&mut self, now: Now) {
        self.load.gaps += 1;
        self.expect(now);
    }

    fn expect(&mut self, now: Now) {
        self.next.part += 1;
        self.load.end = self.next;
        if self.deadline.is_none() {
            self.deadline = Some(now.up.saturating_add(self.delay));
        }
    }

    /// Writes the header and hands the message over.
    fn finish(&mut self, header: &[u8], sequence: u32, done: &mut Queue<Load>) {
        self.bytes[..header.len()].copy_from_slice(header);
        self.load.sequence = sequence;
        done.push(&self.bytes, self.load);
        self.totals += Amount::of(self.load, self.bytes.len());
        self.abandon();
    }

    /// Forgets the message in hand.
    fn abandon(&mut self) {
        self.load = Load {
            end: self.next,
            ..Load::default()
        };
        self.bytes.clear();
        self.deadline = None;
    }
}
