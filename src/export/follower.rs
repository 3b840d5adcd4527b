//! The archive as the daemon sees it: a process of its own that reads the log from the database and says how far it is.
//!
//! It is known from its first word until somebody tells the daemon to forget it. The log keeps what it has not taken, as
//! it does for an output.

use std::time::Duration;

use super::losses::Losses;
use crate::metrics::{self, State};
use crate::place::{Missing, Place, Position, Serial, Span};
use crate::time::{Now, Uptime};

pub const NAME: &str = "archive";

/// An archive that says nothing for so long is not at work. It says something every second.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Follower {
    /// The first record that it has not taken.
    next: Serial,
    losses: Losses,
    /// Records that it has taken from this run of the daemon.
    records: u64,
    heard: Uptime,
    is_silent: bool,
}

impl Follower {
    pub fn new(place: &Place, now: Now) -> Self {
        Self {
            next: place.position.serial,
            losses: Losses::new(place),
            records: 0,
            heard: now.up,
            is_silent: false,
        }
    }

    /// It has everything before `next` on its disk.
    pub fn handle_taken(&mut self, next: Serial, now: Now) {
        self.records += self.losses.records_between(self.next, next);
        self.next = next;
        self.heard = now.up;
        if std::mem::take(&mut self.is_silent) {
            log::info!("{NAME}: takes records again");
        }
    }

    /// Takes note that the log no longer has some records.
    pub fn handle_evicted(&mut self, span: &Span) {
        let missing = span.missing_at(Position::before(self.next));
        let first = span.first.max(self.next);
        if missing.is_some() && self.losses.lose(&Span { first, ..*span }) > 0 {
            log::warn!("{NAME}: records are lost: the log has no more room for them");
        }
    }

    /// Logs once that it has fallen silent.
    pub fn handle_timeout(&mut self, now: Now) {
        if !self.is_silent && now.up.saturating_since(self.heard) > SILENCE {
            self.is_silent = true;
            log::warn!(
                "{NAME}: nothing has taken records for {SILENCE:?}: they wait in the log within log.size; start \
                 nattrail-archive.service, or tell the daemon to do without it (nattrail archive forget)"
            );
        }
    }

    pub fn place(&self) -> Place {
        let position = Position::before(self.next);
        Place {
            position,
            missing: self.losses.ahead_of(position),
            ..Place::default()
        }
    }

    pub const fn needed(&self) -> Serial {
        self.next
    }

    /// The records lost since the last call, and in how many gaps.
    pub const fn take_lost(&mut self) -> Option<(Missing, u64)> {
        self.losses.take()
    }

    pub fn metrics(&self, end: Serial) -> metrics::Output {
        metrics::Output {
            name: NAME.to_owned(),
            format: NAME.to_owned(),
            target: "process".to_owned(),
            state: match self.is_silent {
                true => State::Failing,
                false => State::Working,
            },
            records: self.records,
            behind: self.losses.records_between(self.next, end),
            lost: self.losses.total(),
            ..metrics::Output::default()
        }
    }
}
