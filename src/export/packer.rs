//! Packs NAT events and gaps into the messages of one collector: batching, sequence numbers and the template clock.
//!
//! Sans-IO: events and `now` go in, finished messages come out in a [`Queue`] with their [`Load`] as tag, and what became
//! of each comes back in their order ([`Packer::handle_sent`], [`Packer::handle_not_sent`]). What is guaranteed of them:
//!
//! - none is longer than [`config::Collector::max_message`] (the least `mtu` has room for any record), and none is
//!   empty;
//! - a record leaves no later than `export-delay` after it came, if [`Packer::handle_timeout`] is called at
//!   [`Packer::poll_timeout`];
//! - no data record is in a message before the one with its template, unless the queue refused that one; then the next
//!   message begins with the templates again;
//! - sequence numbers also count what the queue refused or the network lost, so that the collector sees the loss;
//! - flow records that were lost so become a gap that is due, which [`Packer::tell_losses`] puts into the stream of the
//!   collector itself; a gap that is lost in its turn is due again. NetFlow v5 has no record for a gap.
//!
//! Nothing is allocated per record.

mod losses;
mod netflow5;
mod templated;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::config::{self, Version};
use crate::export::queue::{Full, Queue};
use crate::session::{Gap, NatEvent};
use crate::time::{Now, Uptime, Wall};

/// How messages travel, which decides when templates are sent again (RFC 7011 sections 8.1 and 8.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Messages may get lost: templates are repeated.
    Datagram,
    /// Nothing gets lost while the connection lasts: templates are sent once for each.
    Stream,
}

/// What a message holds, and is lost with it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Load {
    /// Flow records.
    pub records: u16,
    /// Gaps.
    pub gaps: u16,
    /// Time of the earliest event among the flow records.
    pub from: Wall,
    /// Time of the latest.
    pub to: Wall,
}

/// The format has no record for an event or a gap: it is of another address family, its counters are out of range, or
/// NetFlow v5 does not know the like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotRepresentable;

impl fmt::Display for NotRepresentable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the format has no record for this")
    }
}

impl std::error::Error for NotRepresentable {}

/// What has been packed since the start. Lost messages are not among `messages`, `octets` and `records`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    pub messages: u64,
    pub octets: u64,
    /// Flow records: templates and options do not count.
    pub records: u64,
    /// Flow records, whatever became of them, with those of the message in hand.
    pub packed: u64,
    /// Flow records that the queue refused.
    pub dropped: u64,
    /// Flow records that did not leave, for whatever reason.
    pub not_sent: u64,
    /// How many times all templates were sent.
    pub template_sends: u64,
}

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
    pub fn new(collector: &config::Collector, transport: Transport, now: Now) -> Self {
        let templated = |dialect| {
            let packer = templated::Packer::new(collector, dialect, transport, now);
            Encoding::Templated(Box::new(packer))
        };
        Self(match collector.version {
            Version::NetflowV5 => Encoding::NetflowV5(netflow5::Packer::new(collector)),
            Version::NetflowV9 => templated(templated::Dialect::NetflowV9),
            Version::Ipfix => templated(templated::Dialect::Ipfix),
        })
    }

    /// Packs the records of `event`; messages that are full go to `done`. Call [`Self::poll_timeout`] afterwards.
    ///
    /// # Errors
    /// [`NotRepresentable`], and then some or all of the records are missing.
    pub fn push(
        &mut self,
        event: &NatEvent,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        match &mut self.0 {
            Encoding::NetflowV5(packer) => packer.push(event, now, done),
            Encoding::Templated(packer) => packer.push(event, now, done),
        }
    }

    /// Packs `gap`. Call [`Self::poll_timeout`] afterwards.
    ///
    /// # Errors
    /// [`NotRepresentable`] for NetFlow v5.
    pub fn push_gap(
        &mut self,
        gap: Gap,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        match &mut self.0 {
            Encoding::NetflowV5(_) => Err(NotRepresentable),
            Encoding::Templated(packer) => {
                packer.push_gap(gap, now, done);
                Ok(())
            }
        }
    }

    /// Whether the collector is still to be told of records that were lost.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        match &self.0 {
            Encoding::NetflowV5(_) => false,
            Encoding::Templated(packer) => packer.losses.is_due(),
        }
    }

    /// Packs the gaps that are due: for when messages can be sent again. Call [`Self::poll_timeout`] afterwards.
    pub fn tell_losses(&mut self, now: Now, done: &mut Queue<Load>) {
        match &mut self.0 {
            Encoding::NetflowV5(_) => {}
            Encoding::Templated(packer) => packer.tell_losses(now, done),
        }
    }

    /// Finishes what is due at `now`: a message that has waited long enough, or the repetition of the templates. Does
    /// nothing when nothing is due.
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

    /// Takes note that the oldest message of the queue reached the network.
    pub fn handle_sent(&mut self, load: Load) {
        match &mut self.0 {
            Encoding::NetflowV5(_) => {}
            Encoding::Templated(packer) => packer.losses.arrive(load),
        }
    }

    /// Takes note that a message which had left was refused by the host it was for: the one of `load`, which left last, or
    /// one before it. The templates are then sent again with the next message, as they may have been in it.
    pub fn handle_refused(&mut self, load: Load) {
        match &mut self.0 {
            Encoding::NetflowV5(_) => {}
            Encoding::Templated(packer) => packer.losses.refuse(load),
        }
        self.resend_templates();
    }

    /// Takes note that the oldest message of the queue, of `octets`, did not reach the network. The templates are then
    /// sent again with the next message, as they may have been in it.
    pub fn handle_not_sent(&mut self, octets: usize, load: Load) {
        self.assembly_mut().totals.take_back(octets, load.records);
        match &mut self.0 {
            Encoding::NetflowV5(_) => {}
            Encoding::Templated(packer) => packer.losses.lose_oldest(load),
        }
        self.resend_templates();
    }

    /// Begins the next message with the templates.
    pub fn resend_templates(&mut self) {
        match &mut self.0 {
            Encoding::NetflowV5(_) => {}
            Encoding::Templated(packer) => packer.resend_templates(),
        }
    }

    /// Goes on with the sequence of an earlier packer of the same collector. To be called before anything is packed; the
    /// templates come first all the same.
    pub fn resume(&mut self, sequence: u32) {
        match &mut self.0 {
            Encoding::NetflowV5(packer) => packer.sequence = sequence,
            Encoding::Templated(packer) => packer.sequence = sequence,
        }
    }

    /// Goes over to a new transport session: the message in hand is finished for the old one, sequence numbers begin at
    /// zero and the next message begins with the templates (RFC 7011 section 10.4).
    pub fn restart_stream(&mut self, now: Now, done: &mut Queue<Load>) {
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

    /// Flow records in the message in hand.
    #[must_use]
    pub fn in_hand(&self) -> u16 {
        self.assembly().load.records
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
    /// What `bytes` hold.
    load: Load,
    deadline: Option<Uptime>,
    delay: Duration,
    totals: Totals,
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
            totals: Totals::default(),
        }
    }

    const fn is_idle(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Begins a message with room for its header.
    fn begin(&mut self, header_len: usize) {
        self.bytes.resize(header_len, 0);
    }

    /// Counts a flow record of an event at `time` that has been appended; the first one sets the deadline of the message.
    fn count_record(&mut self, time: Wall, now: Now) {
        let load = &mut self.load;
        if load.records == 0 {
            (load.from, load.to) = (time, time);
        }
        load.from = load.from.min(time);
        load.to = load.to.max(time);
        // A record takes more than one octet, and a message has fewer than 65,536.
        load.records += 1;
        self.totals.packed += 1;
        self.expect(now);
    }

    /// Counts a gap that has been appended, which sets the deadline as a flow record does.
    fn count_gap(&mut self, now: Now) {
        self.load.gaps += 1;
        self.expect(now);
    }

    fn expect(&mut self, now: Now) {
        if self.deadline.is_none() {
            self.deadline = Some(now.up.saturating_add(self.delay));
        }
    }

    /// Writes the header and hands the message over. What it holds comes back when the queue refuses it.
    fn finish(&mut self, header: &[u8], done: &mut Queue<Load>) -> Result<(), Load> {
        self.bytes[..header.len()].copy_from_slice(header);
        let load = std::mem::take(&mut self.load);
        let result = done.push(&self.bytes, load);
        self.totals.messages += 1;
        self.totals.octets += self.bytes.len() as u64;
        self.totals.records += u64::from(load.records);
        if result.is_err() {
            self.totals.dropped += u64::from(load.records);
            self.totals.take_back(self.bytes.len(), load.records);
        }
        self.bytes.clear();
        self.deadline = None;
        result.map_err(|Full| load)
    }
}

impl Totals {
    const fn take_back(&mut self, octets: usize, records: u16) {
        self.messages -= 1;
        self.octets -= octets as u64;
        self.records -= records as u64;
        self.not_sent += records as u64;
    }
}
