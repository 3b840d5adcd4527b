//! The state of an output, as it tells it to others.

use std::net::IpAddr;

use super::{Amount, Output, State, after_probe};
use crate::metrics;
use crate::place::{Place, Serial};
use crate::time::Uptime;

impl Output {
    /// Its place. Messages in doubt are not taken yet.
    pub fn place(&self) -> Place {
        let doubtful = self.transport.doubtful().filter(|_| self.probing.is_some());
        let taken = || (self.position, self.next_sequence());
        let (position, sequence) = doubtful.unwrap_or_else(taken);
        Place {
            position,
            port: self.transport.port(),
            sequence,
            missing: self.losses.ahead_of(position),
            refused: self.probing.is_some(),
        }
    }

    /// The sequence number of the first message that is not taken.
    pub(super) fn next_sequence(&self) -> u32 {
        match self.ahead.front() {
            Some(message) => message.tag.sequence,
            None => self.encoder.sequence(),
        }
    }

    /// The host to which datagrams go, if it limits the rate of its answers.
    pub fn host(&self) -> Option<IpAddr> {
        self.transport.host()
    }

    /// As the program's log names it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All counters. `end` is that of the source.
    pub fn metrics(&self, end: Serial) -> metrics::Output {
        let Amount {
            messages,
            octets,
            flow_records,
            gaps,
        } = self.taken.max(self.shown);
        metrics::Output {
            name: self.name.clone(),
            state: self.health,
            behind: self.behind(end),
            records: self.statistics.records.max(self.shown_records),
            lost: self.losses.total(),
            messages,
            octets,
            flow_records,
            gaps,
            sequence: self.place().sequence.into(),
            template_sends: self.encoder.template_sends(),
            ..self.statistics.clone()
        }
    }

    /// When to call [`Self::pump`] next; a time in the past means at once. `end` is that of the source.
    pub fn poll_timeout(&self, end: Serial) -> Option<Uptime> {
        if self.health == State::Ended {
            return None;
        }
        let is_behind = !self.ahead.is_empty() || self.reader.next < end;
        let work = match self.probing {
            Some(Some(sent)) => Some(after_probe(sent)),
            _ if is_behind => Some(Uptime::default()),
            // With nothing to write, it is opened again.
            _ if self.health == State::Failing && self.encoder.is_idle() => Some(Uptime::default()),
            _ => self.encoder.poll_timeout(),
        };
        let work = work.map(|at| at.max(self.retry.unwrap_or_default()));
        work.into_iter().chain(self.look).min()
    }

    /// Whether waiting is of no use: everything in the source was taken, or nothing can be at present.
    pub fn is_settled(&self, end: Serial) -> bool {
        let has_all = self.position.serial >= end && self.ahead.is_empty();
        match (self.health, self.probing) {
            (_, Some(Some(_))) => false,
            (State::Working, _) => has_all,
            _ => true,
        }
    }

    /// The first record that it still needs, or may have to go back to; `None` when it needs none any more.
    pub fn needed(&self) -> Option<Serial> {
        let on_the_way = self.transport.earliest();
        let earliest = on_the_way.map_or(self.position, |earliest| earliest.min(self.position));
        (self.health != State::Ended).then_some(earliest.serial)
    }

    /// Records before `end` that it has not taken.
    pub fn behind(&self, end: Serial) -> u64 {
        match self.health {
            State::Ended => 0,
            _ => self
                .losses
                .records_between(self.place().position.serial, end),
        }
    }
}
