//! The record log's numbering, and where those that follow the log stand in it.
//!
//! Every record that leaves the engine gets the next [`Serial`]. A follower (an output) has a [`Position`]: the first
//! message that it has not taken. Its [`Place`], a row of the database, holds that and all else that a later run needs
//! to go on as if it were the same run.

use crate::session::{Gap, GapCause};
use crate::time::Wall;

/// The number of a record, in the order in which records became known. A database begins with 1, and each run that uses
/// it continues the count.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Serial(pub u64);

/// A place between two messages: one record can make several (lines, datagrams or flow records), and not all of them
/// leave together.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    pub serial: Serial,
    /// How many of the record's messages lie before it.
    pub part: u32,
}

impl Position {
    /// Before the first message of a record.
    pub const fn before(serial: Serial) -> Self {
        Self { serial, part: 0 }
    }

    /// After the last one.
    pub const fn after(serial: Serial) -> Self {
        Self::before(Serial(serial.0 + 1))
    }
}

/// Records that a follower can no longer get and has not been told of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Missing {
    pub count: u64,
    pub since: Wall,
    pub until: Wall,
}

impl Missing {
    /// Both together, with an interval that covers both.
    pub fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            since: self.since.min(other.since),
            until: self.until.max(other.until),
        }
    }

    /// The record that reports them.
    pub const fn gap(&self) -> Gap {
        Gap {
            cause: GapCause::Undelivered,
            from: self.since,
            to: self.until,
            lost: Some(self.count),
        }
    }
}

/// Where a later run, or the same one with another configuration, goes on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Place {
    pub position: Position,
    /// The local port, which is part of an exporter's identity for collectors; 0 when none has been chosen yet.
    pub port: u16,
    /// Sequence number of the next message.
    pub sequence: u32,
    pub missing: Option<Missing>,
    /// The receiver's host refused the last message.
    pub refused: bool,
}

impl Place {
    /// The same place after the log has dropped `span`.
    pub fn without(self, span: &Span) -> Self {
        let missing = self
            .missing
            .into_iter()
            .chain(span.missing_at(self.position));
        Self {
            missing: missing.reduce(Missing::and),
            ..self
        }
    }
}

/// A range of the log, without its records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    pub first: Serial,
    /// The serial after that of the last record.
    pub end: Serial,
    /// The earliest and the latest time of any record in it.
    pub since: Wall,
    pub until: Wall,
}

impl Span {
    /// The part of it that a follower at `position` has not taken.
    pub fn missing_at(&self, position: Position) -> Option<Missing> {
        let first = self.first.max(position.serial);
        (first < self.end).then(|| Missing {
            count: self.end.0 - first.0,
            since: self.since,
            until: self.until,
        })
    }
}
