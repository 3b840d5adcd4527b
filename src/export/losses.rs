//! Records that an output can never get: how many, and where they are missing.
//!
//! A lost range is a hole in the log. It is counted once, when the log gives it up or when the output finds it, and stated
//! each time that the output comes by: a statement that was refused is made again.

use std::collections::VecDeque;
use std::ops::Range;

use crate::place::{Missing, Place, Position, Serial, Span};
use crate::session::Gap;

/// Holes that are remembered, should the output have to go back before them.
const MOST_HOLES: usize = 16;

#[derive(Debug)]
pub(super) struct Losses {
    /// Records that the log gave up before the output had taken them, as far as it has not passed them by.
    gone: Option<Missing>,
    /// All that is lost before this record is counted.
    counted: Serial,
    /// The latest holes: their records do not count as taken.
    holes: VecDeque<Range<Serial>>,
    total: u64,
    /// Lost since somebody asked.
    recent: Option<Missing>,
}

impl Losses {
    /// Those of an output that goes on at `place`.
    pub(super) fn new(place: &Place) -> Self {
        let count = place.missing.map_or(0, |missing| missing.count);
        Self {
            gone: place.missing,
            counted: Serial(place.position.serial.0 + count),
            holes: VecDeque::new(),
            total: 0,
            recent: None,
        }
    }

    /// Records that are gone and have not been passed by.
    pub(super) const fn gone(&self) -> Option<Missing> {
        self.gone
    }

    /// All that was ever lost.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    pub(super) const fn inherit(&mut self, total: u64) {
        self.total = total;
    }

    /// Lost since this was asked last.
    pub(super) const fn take(&mut self) -> Option<Missing> {
        self.recent.take()
    }

    /// The log no longer has these records, which end before `end`. Returns how many had not been counted.
    pub(super) fn give_up(&mut self, missing: Missing, end: Serial) -> u64 {
        self.gone = Some(self.gone.map_or(missing, |earlier| earlier.and(missing)));
        self.count(missing, end)
    }

    /// The output comes by a hole. Returns the gap that stands in its place, and how many records had not been counted.
    pub(super) fn pass_by(&mut self, span: &Span) -> (Gap, u64) {
        let count = span.end.0 - span.first.0;
        let times = self.gone.unwrap_or(Missing {
            count,
            since: span.since,
            until: span.until,
        });
        let missing = Missing { count, ..times };
        let is_apart = |hole: &Range<Serial>| hole.end <= span.first || hole.start >= span.end;
        self.holes.retain(is_apart);
        self.holes.push_back(span.first..span.end);
        if self.holes.len() > MOST_HOLES {
            self.holes.pop_front();
        }
        (missing.gap(), self.count(missing, span.end))
    }

    /// All before this place has been taken or passed by.
    pub(super) fn leave_behind(&mut self, position: Position) {
        self.gone = self.gone.filter(|_| position.serial < self.counted);
    }

    /// Records that lie between two places and are not lost.
    pub(super) fn records_between(&self, from: Position, to: Position) -> u64 {
        let (from, to) = (from.serial.0, to.serial.0);
        let lost = |hole: &Range<Serial>| hole.end.0.min(to).saturating_sub(hole.start.0.max(from));
        (to - from).saturating_sub(self.holes.iter().map(lost).sum())
    }

    fn count(&mut self, missing: Missing, end: Serial) -> u64 {
        let count = missing.count.min(end.0.saturating_sub(self.counted.0));
        self.counted = self.counted.max(end);
        if count > 0 {
            self.total += count;
            let missing = Missing { count, ..missing };
            self.recent = Some(self.recent.map_or(missing, |earlier| earlier.and(missing)));
        }
        count
    }
}
