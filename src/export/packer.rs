//! Packs NAT events and gaps into the messages of one collector: batching, sequence numbers and the template clock.
//!
//! Sans-IO, as [`super::encoder`] says. The messages are guaranteed to keep these rules:
//!
//! - none is longer than [`config::Collector::max_message`] (the least `mtu` has room for any record), and none is
//!   empty;
//! - a record leaves no later than `export-delay` after it arrived, if [`Packer::handle_timeout`] is called at
//!   [`Message::poll_timeout`];
//! - a data record never precedes its template;
//! - after [`Message::go_back`] the same sequence numbers count the same messages again, and templates come first.
//!
//! Nothing is allocated per record.

mod templated;
#[cfg(test)]
mod tests;

use super::encoder::{Amount, Load, NotRepresentable};
use super::queue::Queue;
use crate::config::{self, Version};
use crate::place::{Position, Serial};
use crate::session::{EventKind, NatEvent, Record};
use crate::time::{BootTime, Now, Uptime};
use crate::wire::dialect::{self, Dialect};
use crate::wire::netflow5;
use crate::wire::template::OpenSet;

/// The packer of one collector.
#[derive(Debug)]
pub enum Packer {
    NetflowV5(Box<Message>),
    Templated(Box<templated::Packer>),
}

impl Packer {
    pub(super) fn new(collector: &config::Collector, now: Now) -> Self {
        let dialect = match collector.version {
            Version::NetflowV5 => return Self::NetflowV5(Message::new(collector).into()),
            Version::NetflowV9 => Dialect::NetflowV9,
            Version::Ipfix => Dialect::Ipfix,
        };
        let packer = templated::Packer::new(Message::new(collector), dialect, now);
        Self::Templated(Box::new(packer))
    }

    /// Packs the flow records of `records`, which stand for the record `serial`, except the first `skip`; full messages go to
    /// `done`.
    ///
    /// # Errors
    /// [`NotRepresentable`]; some or all of the flow records are then missing.
    pub(super) fn push(
        &mut self,
        records: &[Record],
        serial: Serial,
        skip: u32,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        let message = self.message_mut();
        message.next = Position::before(serial);
        message.skip = skip;
        let mut result = Ok(());
        for record in records {
            result = result.and(self.pack(record, now, done));
        }
        let message = self.message_mut();
        message.next = Position::after(serial);
        message.load.end = message.next;
        result
    }

    fn pack(
        &mut self,
        record: &Record,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        match (self, record) {
            (Self::NetflowV5(message), Record::Event(event)) => {
                message.push_netflow5(event, now, done)
            }
            // Collectors have no use for it: it takes no place in a message.
            (_, Record::Checkpoint(_)) => Ok(()),
            (Self::NetflowV5(_), Record::Gap(_)) => Err(NotRepresentable),
            (Self::Templated(packer), Record::Event(event)) => packer.push(event, now, done),
            (Self::Templated(packer), Record::Gap(gap)) => {
                packer.push_gap(*gap, now, done);
                Ok(())
            }
        }
    }

    /// Packs flows that together stand for all records from `first` to before `next`: every message but the last, which is
    /// finished, ends before `first`.
    pub(super) fn push_whole(
        &mut self,
        flows: impl Iterator<Item = NatEvent>,
        first: Serial,
        next: Serial,
        now: Now,
        done: &mut Queue<Load>,
    ) {
        let message = self.message_mut();
        (message.next, message.skip) = (Position::before(first), 0);
        message.is_whole = true;
        for flow in flows {
            // The caller has none that the format cannot represent.
            let _ = self.pack(&Record::Event(flow), now, done);
        }
        let message = self.message_mut();
        message.is_whole = false;
        message.next = Position::before(next);
        message.load.end = message.next;
        message.flush(now, done);
    }

    /// Finishes the messages that are due at `now`: one that has waited long enough, or the repeated templates. Does
    /// nothing when none is due.
    pub(super) fn handle_timeout(&mut self, now: Now, done: &mut Queue<Load>) {
        let message = self.message_mut();
        if message.deadline.is_some_and(|at| at <= now.up) {
            message.flush(now, done);
        }
        if let Self::Templated(packer) = self {
            packer.refresh_templates(now, done);
        }
    }

    pub(super) fn message(&self) -> &Message {
        match self {
            Self::NetflowV5(message) => message,
            Self::Templated(packer) => &packer.message,
        }
    }

    pub(super) fn message_mut(&mut self) -> &mut Message {
        match self {
            Self::NetflowV5(message) => message,
            Self::Templated(packer) => &mut packer.message,
        }
    }
}

/// The message in hand, in any format, and the counters that go on from message to message.
#[derive(Debug)]
pub struct Message {
    config: config::Collector,
    /// Empty while no message has begun.
    bytes: Vec<u8>,
    /// The contents of `bytes`.
    load: Load,
    /// The reference of the message's times in SysUptime.
    boot: BootTime,
    deadline: Option<Uptime>,
    set: Option<OpenSet>,
    /// Template records in the message.
    definitions: u16,
    /// Options data records in the message.
    options: u16,
    /// The flow record that comes next.
    next: Position,
    /// Flow records of the current record that have been taken.
    skip: u32,
    /// Whether the position stays where it is meanwhile.
    is_whole: bool,
    /// Sequence number of the next message. IPFIX: data records packed so far. NetFlow v9: messages. NetFlow v5: flows.
    pub(super) sequence: u32,
    /// The sum of all finished messages.
    totals: Amount,
    /// Records that the collector can no longer get.
    pub(super) lost: u64,
    /// When all templates were last sent; `None` when they must be sent next, and in NetFlow v5.
    templates_sent: Option<Uptime>,
    /// Messages since then, the one with the templates included.
    since_templates: u32,
    /// How many times all templates were sent.
    pub(super) template_sends: u64,
}

impl Message {
    fn new(collector: &config::Collector) -> Self {
        Self {
            config: collector.clone(),
            bytes: Vec::with_capacity(collector.max_message()),
            load: Load::default(),
            boot: BootTime::default(),
            deadline: None,
            set: None,
            definitions: 0,
            options: 0,
            next: Position::default(),
            skip: 0,
            is_whole: false,
            sequence: 0,
            totals: Amount::default(),
            lost: 0,
            templates_sent: None,
            since_templates: 0,
            template_sends: 0,
        }
    }

    /// When [`Packer::handle_timeout`] has something to do. Templates that are due begin the message after the one in
    /// hand; with no message in hand they leave on their own. Changes with every other call.
    pub(super) fn poll_timeout(&self) -> Option<Uptime> {
        if self.is_idle() {
            let sent = self.templates_sent?;
            Some(sent.saturating_add(self.config.template_refresh))
        } else {
            self.deadline
        }
    }

    /// Finishes the message in hand, if there is one.
    pub(super) fn flush(&mut self, now: Now, done: &mut Queue<Load>) {
        if !self.is_idle() {
            self.finish(now, done);
        }
    }

    /// Forgets the message in hand, and goes back to the message with this sequence number. `back` is the sum of all
    /// messages that were finished from there on.
    pub(super) fn go_back(&mut self, sequence: u32, back: Amount) {
        self.abandon();
        self.sequence = sequence;
        self.totals -= back;
        self.templates_sent = None;
    }

    /// Whether no message is in hand.
    pub(super) const fn is_idle(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the next flow record has been taken; passes it in that case.
    const fn skips(&mut self) -> bool {
        let skips = self.next.part < self.skip;
        self.next.part += skips as u32;
        skips
    }

    fn sends_event(&self, event: &NatEvent) -> bool {
        self.config.events && event.is_nat_event(self.config.flow)
    }

    /// Packs the NetFlow v5 records of an event.
    fn push_netflow5(
        &mut self,
        event: &NatEvent,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        if self.sends_event(event) {
            for record in netflow5::dummy_flows(event)? {
                self.put_netflow5(&record, now, done);
            }
        }
        if self.config.triplet && event.kind == EventKind::Delete {
            for record in netflow5::triplet(event, self.config.post_nat_counters)? {
                self.put_netflow5(&record, now, done);
            }
        }
        if self.config.flow && event.is_flow() {
            for record in netflow5::directions(event)? {
                self.put_netflow5(&record, now, done);
            }
        }
        Ok(())
    }

    fn put_netflow5(&mut self, record: &netflow5::Record, now: Now, done: &mut Queue<Load>) {
        if self.skips() {
            return;
        }
        if usize::from(self.load.flow_records) == netflow5::MAX_RECORDS
            || self.bytes.len() + netflow5::RECORD_LEN > self.config.max_message()
        {
            self.finish(now, done);
        }
        if self.is_idle() {
            self.begin(now);
        }
        record.put(self.boot, &mut self.bytes);
        self.load.flow_records += 1;
        self.advance(now);
    }

    /// Begins a message with room for its header.
    fn begin(&mut self, now: Now) {
        let header_len = match self.config.version {
            Version::NetflowV5 => netflow5::HEADER_LEN,
            Version::NetflowV9 => dialect::NETFLOW_9_HEADER_LEN,
            Version::Ipfix => dialect::IPFIX_HEADER_LEN,
        };
        self.bytes.resize(header_len, 0);
        self.load.end = self.next;
        self.boot = BootTime::new(now);
    }

    /// Takes note that a flow record or a gap has been appended; the first one sets the deadline of the message.
    fn advance(&mut self, now: Now) {
        self.next.part += u32::from(!self.is_whole);
        self.load.end = self.next;
        let deadline = now.up.saturating_add(self.config.export_delay);
        self.deadline.get_or_insert(deadline);
    }

    /// Writes the header and hands the message over.
    fn finish(&mut self, now: Now, done: &mut Queue<Load>) {
        self.close_set();
        let data = self.load.flow_records + self.options;
        let (boot, sequence, domain) = (self.boot, self.sequence, self.config.observation_domain);
        // It is at most max_message, which is below 65,536.
        let length = self.bytes.len() as u16;
        let mut write = |header: &[u8]| self.bytes[..header.len()].copy_from_slice(header);
        let counted = match self.config.version {
            Version::NetflowV5 => {
                let engine = domain as u16;
                write(&netflow5::header(data, boot, now.up, sequence, engine));
                data
            }
            Version::NetflowV9 => {
                let count = data + self.definitions;
                write(&dialect::netflow_9_header(
                    count, boot, now.up, sequence, domain,
                ));
                1
            }
            Version::Ipfix => {
                write(&dialect::ipfix_header(length, now.wall, sequence, domain));
                data
            }
        };
        self.load.sequence = sequence;
        done.push(&self.bytes, self.load);
        self.sequence = sequence.wrapping_add(counted.into());
        self.totals += Amount::of(self.load, self.bytes.len());
        self.since_templates = self.since_templates.saturating_add(1);
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
        self.set = None;
        self.definitions = 0;
        self.options = 0;
    }
}
