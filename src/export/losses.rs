//! Records that an output can never get: how many, and where they are missing.
//!
//! A lost range is a hole in the log. Its records are counted once, when the log gives them up or when the output finds
//! them gone, and stated each time the output passes the hole: a statement that was refused is made again.

use std::collections::VecDeque;
use std::ops::Range;

use crate::place::{Missing, Place, Position, Serial, Span};
use crate::session::Gap;

/// The most holes remembered, in case the output has to go back before them.
const MOST_HOLES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Losses {
    /// In the order of the log, and not touching each other.
    holes: VecDeque<Span>,
    total: u64,
    /// Lost since the last [`Self::take`], and in how many new holes.
    recent: Option<(Missing, u64)>,
}

impl Losses {
    /// The losses of an output that goes on at `place`.
    pub(super) fn new(place: &Place) -> Self {
        let first = place.position.serial;
        let hole = place.missing.map(|missing| Span {
            first,
            end: Serial(first.0 + missing.count),
            since: missing.since,
            until: missing.until,
        });
        Self {
            holes: hole.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Lost records that the output has not passed yet at this position.
    pub(super) fn ahead_of(&self, position: Position) -> Option<Missing> {
        let ahead = self
            .holes
            .iter()
            .filter_map(|hole| hole.missing_at(position));
        ahead.reduce(Missing::and)
    }

    /// All losses ever.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Counts lost records whose place is not known.
    pub(super) const fn add(&mut self, count: u64) {
        self.total += count;
    }

    /// The losses since the last call, and in how many new holes.
    pub(super) const fn take(&mut self) -> Option<(Missing, u64)> {
        self.recent.take()
    }

    /// Takes note that these records are lost. Returns how many of them had not been counted.
    pub(super) fn lose(&mut self, lost: &Span) -> u64 {
        let touches = |hole: &Span| hole.first <= lost.end && lost.first <= hole.end;
        let known = self.records_lost(lost.first, lost.end);
        let mut whole = *lost;
        let mut is_new = true;
        self.holes.retain(|hole| {
            if touches(hole) {
                is_new = false;
                whole = Span {
                    first: whole.first.min(hole.first),
                    end: whole.end.max(hole.end),
                    since: whole.since.min(hole.since),
                    until: whole.until.max(hole.until),
                };
            }
            !touches(hole)
        });
        let at = self.holes.partition_point(|hole| hole.first < whole.first);
        self.holes.insert(at, whole);
        if self.holes.len() > MOST_HOLES {
            self.holes.pop_front();
        }
        let count = lost.end.0 - lost.first.0 - known;
        if count > 0 {
            self.total += count;
            let missing = Missing {
                count,
                since: lost.since,
                until: lost.until,
            };
            let new = u64::from(is_new);
            self.recent = Some(match self.recent {
                Some((earlier, holes)) => (earlier.and(missing), holes + new),
                None => (missing, new),
            });
        }
        count
    }

    /// The gap that takes the place of a hole that the output has reached.
    pub(super) fn gap_at(&self, span: &Span) -> Gap {
        let hole = self.holes.iter().find(|hole| hole.end > span.first);
        let times = hole.unwrap_or(span);
        let missing = Missing {
            count: span.end.0 - span.first.0,
            since: times.since,
            until: times.until,
        };
        missing.gap()
    }

    /// The position, or the beginning of the hole around it: a gap is taken whole, even when templates leave before it.
    pub(super) fn outside(&self, position: Position) -> Position {
        let is_in = |hole: &&Span| (hole.first..hole.end).contains(&position.serial);
        let hole = self.holes.iter().find(is_in);
        hole.map_or(position, |hole| Position::before(hole.first))
    }

    /// Records between two serials that are not lost.
    pub(super) fn records_between(&self, from: Serial, to: Serial) -> u64 {
        to.0.saturating_sub(from.0) - self.records_lost(from, to)
    }

    fn records_lost(&self, from: Serial, to: Serial) -> u64 {
        let lost = |hole: &Span| {
            let Range { start, end } = hole.first.max(from)..hole.end.min(to);
            end.0.saturating_sub(start.0)
        };
        self.holes.iter().map(lost).sum()
    }
}
