//! Memory of the sessions that ended lately, to know a repeated DESTROY when it comes.
//!
//! The kernel delivers an event again to every listener when one of them could not take it, and an entry that ended
//! may still stand in a piece of a dump. The memory is of fixed size, in sets of one line of the processor's cache, in which
//! the latest session takes the place of the oldest. A set remembers until when the sessions ended that it forgot: one that
//! ended later and is not in the set has not been here before.

use super::table::Key;
use super::{CLOCK_SLACK, began_by};
use crate::time::Wall;

/// Power of two. Sets are found by the lowest bits of a fingerprint.
pub(super) const SETS: usize = 1 << 16;
const WAYS: usize = 4;

#[derive(Debug)]
pub(super) struct RecentEnds {
    sets: Box<[Set]>,
    /// Until when those ended that each set has forgotten.
    forgotten: Box<[Option<Seconds>]>,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Place; WAYS]);

/// An ended session. All zeros where there is none.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    start: Start,
    fingerprint: u32,
    ended: Seconds,
}

/// A time in nanoseconds, with its kind in the two lowest bits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Start(u64);

/// Seconds of civil time, which wrap every 136 years.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Seconds(u32);

/// Whether an end has come before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sighting {
    First,
    /// It ended before sessions that are forgotten, so that it may be one of those.
    Unknown,
    Repeated,
}

impl RecentEnds {
    pub(super) fn new(sets: usize) -> Self {
        Self {
            sets: vec![Set::default(); sets].into_boxed_slice(),
            forgotten: vec![None; sets].into_boxed_slice(),
        }
    }

    /// Remembers that the session that began at `start` ended at `end`, and says whether that is news. Without the kernel's
    /// start time a session cannot be told from the next one with the same tuples and id: then it always is.
    pub(super) fn insert(
        &mut self,
        key: Key,
        id: Option<u32>,
        start: Option<Wall>,
        end: Wall,
    ) -> Sighting {
        let fingerprint = fingerprint(key, id);
        let Some(start) = start else {
            self.put(fingerprint, Start::UNKNOWN, end);
            return Sighting::First;
        };
        let number = self.number_of(fingerprint);
        let mut places = self.sets[number].0.iter();
        if places.any(|place| place.is(fingerprint, start)) {
            return Sighting::Repeated;
        }
        let forgotten = self.forgotten[number];
        self.put(fingerprint, Start::exact(start), end);
        match forgotten {
            Some(until) if !Seconds::of(end).is_after(until) => Sighting::Unknown,
            _ => Sighting::First,
        }
    }

    /// Has the memory at hand that remembering an end takes. The value means nothing.
    pub(super) fn look(&self, key: Key, id: Option<u32>) -> u64 {
        self.sets[self.number_of(fingerprint(key, id))].0[0].start.0
    }

    /// Remembers a session that was closed at `now` without its DESTROY, should that come after all.
    pub(super) fn insert_inferred(&mut self, key: Key, id: Option<u32>, begun: Wall, now: Wall) {
        self.put(fingerprint(key, id), Start::seen(begun), now);
    }

    /// Whether an entry of a dump may be one that has ended. Without start times a later connection with the same tuples
    /// and id is taken for it as well; its own events tell of it.
    pub(super) fn may_contain(&self, key: Key, id: Option<u32>, start: Option<Wall>) -> bool {
        let fingerprint = fingerprint(key, id);
        let mut places = self.sets[self.number_of(fingerprint)].0.iter();
        places.any(|place| match start {
            Some(start) => place.is(fingerprint, start),
            None => place.has(fingerprint),
        })
    }

    const fn number_of(&self, fingerprint: u64) -> usize {
        fingerprint as usize & (self.sets.len() - 1)
    }

    fn put(&mut self, fingerprint: u64, start: Start, end: Wall) {
        let number = self.number_of(fingerprint);
        let set = &mut self.sets[number].0;
        let last = set[WAYS - 1];
        if last.fingerprint != 0 {
            let forgotten = &mut self.forgotten[number];
            if forgotten.is_none_or(|until| last.ended.is_after(until)) {
                *forgotten = Some(last.ended);
            }
        }
        set.copy_within(..WAYS - 1, 1);
        set[0] = Place {
            start,
            fingerprint: tag_of(fingerprint),
            ended: Seconds::of(end),
        };
    }
}

impl Place {
    const fn has(self, fingerprint: u64) -> bool {
        self.fingerprint == tag_of(fingerprint)
    }

    fn is(self, fingerprint: u64, start: Wall) -> bool {
        self.has(fingerprint) && self.start.is(start)
    }
}

impl Start {
    /// The kernel does not say when connections start.
    const UNKNOWN: Self = Self(0);
    /// The kernel's.
    const EXACT: u64 = 1;
    /// When the session was seen to begin.
    const SEEN: u64 = 2;
    const KIND: u64 = 3;

    const fn exact(start: Wall) -> Self {
        Self(start.as_nanos() & !Self::KIND | Self::EXACT)
    }

    const fn seen(begun: Wall) -> Self {
        Self(begun.as_nanos() & !Self::KIND | Self::SEEN)
    }

    const fn is_seen(self) -> bool {
        self.0 & Self::KIND == Self::SEEN
    }

    fn is(self, start: Wall) -> bool {
        let known = Wall::from_nanos(self.0 & !Self::KIND);
        if self.is_seen() {
            began_by(known, Some(start)) && start.saturating_add(CLOCK_SLACK) >= known
        } else {
            self == Self::exact(start)
        }
    }
}

impl Seconds {
    const fn of(time: Wall) -> Self {
        Self(time.as_secs() as u32)
    }

    const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }
}

/// The half of a fingerprint that does not find the set; never zero, which is no session.
const fn tag_of(fingerprint: u64) -> u32 {
    (fingerprint >> 32) as u32 | 1
}

/// The key is a good hash already; the id only has to reach all of its bits.
pub(super) fn fingerprint(key: Key, id: Option<u32>) -> u64 {
    let id = id.map_or(0, |id| u64::from(id) + 1);
    key.0 ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
