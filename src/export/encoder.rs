//! The encoder of an output, which makes messages for a collector, or lines, from records.
//!
//! Sans-IO: records and `now` go in, finished messages come out in a [`Queue`], each with its [`Load`]. The load tells
//! the follower's place after the message, so a message that is lost on the way can be encoded again: the queue is a
//! cache of encodings, and may be emptied at any time.

use std::iter::Sum;
use std::ops::{Add, AddAssign, ControlFlow, Sub as _, SubAssign};

use super::aggregate::Aggregator;
use super::packer::{Message, Packer};
use super::queue::Queue;
use crate::config;
use crate::place::{Position, Serial};
use crate::session::Record;
use crate::time::{Now, Uptime};
pub use crate::wire::flow::NotRepresentable;
use crate::wire::syslog::{self, Host};

/// The contents of a message in numbers, and its end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Load {
    /// The place of the follower once it is taken.
    pub end: Position,
    /// Its sequence number, for formats that have one.
    pub sequence: u32,
    /// Flow records; none in lines.
    pub flow_records: u16,
    /// Gaps.
    pub gaps: u16,
}

/// Sums over messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Amount {
    pub messages: u64,
    pub octets: u64,
    pub flow_records: u64,
    pub gaps: u64,
}

impl Amount {
    /// The amount of one message of `octets`.
    pub const fn of(load: Load, octets: usize) -> Self {
        Self {
            messages: 1,
            octets: octets as u64,
            flow_records: load.flow_records as u64,
            gaps: load.gaps as u64,
        }
    }

    /// The larger of both, number by number.
    pub fn max(self, other: Self) -> Self {
        self.zip(other, u64::max)
    }

    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            messages: with(self.messages, other.messages),
            octets: with(self.octets, other.octets),
            flow_records: with(self.flow_records, other.flow_records),
            gaps: with(self.gaps, other.gaps),
        }
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, u64::add)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Amount {
    /// Of an amount that was added before.
    fn sub_assign(&mut self, other: Self) {
        *self = self.zip(other, u64::sub);
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

/// The encoder of one output.
#[derive(Debug)]
pub enum Encoder {
    Flows(Packer),
    Aggregated(Box<Aggregator>),
    Lines(syslog::Encoder),
}

impl Encoder {
    pub fn of_collector(config: &config::Collector, now: Now) -> Self {
        let packer = Packer::new(config, now);
        if config.aggregation.is_empty() {
            Self::Flows(packer)
        } else {
            Self::Aggregated(Box::new(Aggregator::new(packer, config)))
        }
    }

    pub fn of_copy(config: &config::Syslog, host: &Host) -> Self {
        Self::Lines(syslog::Encoder::new(&config.style(), host))
    }

    /// Encodes the messages of the record `serial` except the first `skip`, which have been taken. The messages are those of
    /// `records`: it alone, or none, or others that stand for it. Finished messages go to `done`.
    ///
    /// # Errors
    /// [`NotRepresentable`]; some or all of the messages are then missing.
    pub fn push(
        &mut self,
        records: &[Record],
        serial: Serial,
        skip: u32,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        let encoder = match self {
            Self::Flows(packer) => return packer.push(records, serial, skip, now, done),
            Self::Aggregated(all) => return all.push(records, serial, skip, now, done),
            Self::Lines(encoder) => encoder,
        };
        let mut part = 0;
        for (left, record) in (0..records.len()).rev().zip(records) {
            let gaps = u16::from(matches!(record, Record::Gap(_)));
            let _ = encoder.encode(record, now, &mut |message| {
                part += 1;
                if part > skip {
                    let end = if message.is_last && left == 0 {
                        Position::after(serial)
                    } else {
                        Position { serial, part }
                    };
                    let load = Load {
                        end,
                        gaps,
                        ..Load::default()
                    };
                    done.push(message.bytes, load);
                }
                ControlFlow::Continue(())
            });
        }
        Ok(())
    }

    /// Finishes the message that is due at `now`. Does nothing when none is.
    pub fn handle_timeout(&mut self, now: Now, done: &mut Queue<Load>) {
        match self {
            Self::Flows(packer) => packer.handle_timeout(now, done),
            Self::Aggregated(all) => all.handle_timeout(now, done),
            Self::Lines(_) => {}
        }
    }

    /// When [`Self::handle_timeout`] has something to do. Changes with every other call.
    pub fn poll_timeout(&self) -> Option<Uptime> {
        match self {
            Self::Aggregated(all) => all.poll_timeout(),
            _ => self.message()?.poll_timeout(),
        }
    }

    /// Finishes the message and the window in hand, if there are any.
    pub fn flush(&mut self, now: Now, done: &mut Queue<Load>) {
        match self {
            Self::Aggregated(all) => all.flush(now, done),
            _ => self.flush_message(now, done),
        }
    }

    /// Finishes the message in hand, if there is one.
    pub fn flush_message(&mut self, now: Now, done: &mut Queue<Load>) {
        if let Some(message) = self.message_mut() {
            message.flush(now, done);
        }
    }

    /// Whether neither a message nor a window is in hand.
    pub fn is_idle(&self) -> bool {
        self.message().is_none_or(Message::is_idle) && self.window().is_none()
    }

    /// Before this position, nothing is in hand; `next` is the record that comes next. `None` when a message is in hand.
    pub fn passed(&self, next: Serial) -> Option<Position> {
        let is_idle = self.message().is_none_or(Message::is_idle);
        is_idle.then(|| Position::before(self.window().unwrap_or(next)))
    }

    /// Forgets the message and the window in hand, and goes back to the message with this sequence number. `back` is the
    /// sum of all messages that were finished from there on.
    pub fn go_back(&mut self, sequence: u32, back: Amount) {
        if let Self::Aggregated(all) = self {
            all.forget();
        }
        if let Some(message) = self.message_mut() {
            message.go_back(sequence, back);
        }
    }

    /// The sequence number of the next message.
    pub fn sequence(&self) -> u32 {
        self.message().map_or(0, |message| message.sequence)
    }

    /// How many times all templates were sent; 0 for formats without them.
    pub fn template_sends(&self) -> u64 {
        self.message().map_or(0, |message| message.template_sends)
    }

    /// Takes note that the receiver can no longer get `lost` records.
    pub fn count_lost(&mut self, lost: u64) {
        if let Some(message) = self.message_mut() {
            message.lost += lost;
        }
    }

    /// The first record of the window in hand.
    fn window(&self) -> Option<Serial> {
        match self {
            Self::Aggregated(all) => all.first(),
            _ => None,
        }
    }

    /// The message in hand, in formats that gather records.
    fn message(&self) -> Option<&Message> {
        match self {
            Self::Flows(packer) => Some(packer.message()),
            Self::Aggregated(all) => Some(all.message()),
            Self::Lines(_) => None,
        }
    }

    fn message_mut(&mut self) -> Option<&mut Message> {
        match self {
            Self::Flows(packer) => Some(packer.message_mut()),
            Self::Aggregated(all) => Some(all.message_mut()),
            Self::Lines(_) => None,
        }
    }
}
