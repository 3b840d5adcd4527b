//! A memory of the sessions that ended lately, to recognise a repeated DESTROY.
//!
//! The kernel delivers an event again to every listener when one of them could not take it, and an entry that ended may
//! still be in a piece of a dump. The memory consists of sets the size of a cache line, in which the latest session
//! takes the place of the oldest. It grows, up to a bound, while it forgets ends of the last minutes.
//!
//! Each set remembers the latest end among the sessions that it has forgotten: a session that ended later and is not in
//! the set is new.

use std::time::Duration;

use super::began_by;
use super::table::Key;
use crate::time::Wall;

/// Sets at first, and at most: 262,144 ends in 4 MiB, and 2,097,152 in 32 MiB. Powers of two.
const SETS: usize = 1 << 16;
const MOST_SETS: usize = 1 << 19;
const WAYS: usize = 4;

/// How long an end should be remembered. The kernel dates an expiry back to its due time, which its garbage collector
/// notices up to a minute later, and the event may have waited in the socket's queue.
const HORIZON: Duration = Duration::from_secs(180);

#[derive(Debug)]
pub(super) struct RecentEnds {
    /// Indexed by the lowest bits of a fingerprint.
    sets: Box<[Set]>,
    /// The latest end that each set has forgotten.
    forgotten: Box<[Seconds]>,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Place; WAYS]);

/// An ended session; all zeros for an empty place.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    start: Start,
    /// The 32 bits of the fingerprint above those that index the first [`SETS`].
    tag: u32,
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
    /// It ended no later than sessions that are forgotten, and may be one of those.
    Unknown,
    Repeated,
}

impl RecentEnds {
    /// A memory that has forgotten every end until `now`.
    pub(super) fn new(now: Wall) -> Self {
        Self {
            sets: vec![Set::default(); SETS].into_boxed_slice(),
            forgotten: vec![Seconds::of(now); SETS].into_boxed_slice(),
        }
    }

    /// Remembers that the session that began at `start` ended at `end`, and returns whether that is new. Without the
    /// kernel's start time it always is: the session cannot be told from the next one with the same tuples and id.
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
        if self.may_contain(key, id, Some(start)) {
            return Sighting::Repeated;
        }
        let forgotten = self.forgotten[self.number_of(fingerprint)];
        self.put(fingerprint, Start::exact(start), end);
        match Seconds::of(end).is_after(forgotten) {
            true => Sighting::First,
            false => Sighting::Unknown,
        }
    }

    /// Fetches the memory that remembering an end touches. The value means nothing.
    pub(super) fn look(&self, key: Key, id: Option<u32>) -> u64 {
        self.sets[self.number_of(fingerprint(key, id))].0[0].start.0
    }

    /// Remembers a session that was closed at `now` without its DESTROY, in case that still comes.
    pub(super) fn insert_inferred(&mut self, key: Key, id: Option<u32>, begun: Wall, now: Wall) {
        self.put(fingerprint(key, id), Start::seen(begun), now);
    }

    /// Whether an entry of a dump may be one that has ended. Without start times a later connection with the same
    /// tuples and id is taken for it as well; its own events report it.
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
        let ended = Seconds::of(end);
        let last = self.sets[self.number_of(fingerprint)].0[WAYS - 1];
        let is_recent = !ended.is_after(last.ended.later(HORIZON));
        if !last.is_empty() && is_recent && self.sets.len() < MOST_SETS {
            self.grow();
        }
        let place = Place {
            start,
            tag: tag_of(fingerprint),
            ended,
        };
        self.push(self.number_of(fingerprint), place);
    }

    fn push(&mut self, number: usize, place: Place) {
        let set = &mut self.sets[number].0;
        let last = set[WAYS - 1];
        if !last.is_empty() && last.ended.is_after(self.forgotten[number]) {
            self.forgotten[number] = last.ended;
        }
        set.copy_within(..WAYS - 1, 1);
        set[0] = place;
    }

    /// Splits each set into two.
    fn grow(&mut self) {
        let half = self.sets.len();
        let sets = vec![Set::default(); 2 * half].into_boxed_slice();
        let old = std::mem::replace(&mut self.sets, sets);
        self.forgotten = self.forgotten.repeat(2).into_boxed_slice();
        for (number, set) in old.iter().enumerate() {
            for place in set.0.iter().rev().filter(|place| !place.is_empty()) {
                let is_upper = place.tag as usize & (half / SETS) != 0;
                self.push(number + usize::from(is_upper) * half, *place);
            }
        }
    }
}

impl Place {
    const fn is_empty(self) -> bool {
        self.start.0 == 0
    }

    const fn has(self, fingerprint: u64) -> bool {
        self.tag == tag_of(fingerprint) && !self.is_empty()
    }

    fn is(self, fingerprint: u64, start: Wall) -> bool {
        self.has(fingerprint) && self.start.is(start)
    }
}

impl Start {
    /// The kernel's start time.
    const EXACT: u64 = 1;
    /// The time when the session was seen to begin.
    const SEEN: u64 = 2;
    const KIND: u64 = 3;
    /// The kernel does not say when connections start.
    const UNKNOWN: Self = Self(Self::KIND);

    const fn exact(start: Wall) -> Self {
        Self(start.as_nanos() & !Self::KIND | Self::EXACT)
    }

    const fn seen(begun: Wall) -> Self {
        Self(begun.as_nanos() & !Self::KIND | Self::SEEN)
    }

    fn is(self, start: Wall) -> bool {
        let known = Wall::from_nanos(self.0 & !Self::KIND);
        match self.0 & Self::KIND {
            // Its NEW may have been read long after it began. By then every event of an earlier session with the same tuples
            // and id has been read: the id is made of an address in memory, which the next one can only get after that.
            Self::SEEN => began_by(known, Some(start)),
            _ => self == Self::exact(start),
        }
    }
}

impl Seconds {
    const fn of(time: Wall) -> Self {
        Self(time.as_secs() as u32)
    }

    const fn later(self, duration: Duration) -> Self {
        Self(self.0.wrapping_add(duration.as_secs() as u32))
    }

    const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }
}

const fn tag_of(fingerprint: u64) -> u32 {
    (fingerprint >> SETS.trailing_zeros()) as u32
}

/// The key is a good hash already; the id only has to affect all of its bits.
pub(super) fn fingerprint(key: Key, id: Option<u32>) -> u64 {
    let id = id.map_or(0, |id| u64::from(id) + 1);
    key.0 ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sightings of `count` ends, as each comes for the second time.
    fn said_of(count: u64, forget: bool) -> [usize; 3] {
        let start = Wall::from_secs(1_800_000_000);
        let later = if forget { 2 * HORIZON } else { Duration::ZERO };
        let mut memory = RecentEnds::new(Wall::default());
        let mut said = [0; 3];
        for round in 0..2 {
            for number in 0..count {
                let key = Key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let end = start.saturating_add(later * u32::from(number > count / 2));
                let sighting = memory.insert(key, Some(1), Some(start), end);
                said[sighting as usize] += round;
            }
        }
        said
    }

    #[test]
    fn the_memory_grows_while_it_would_forget_ends_of_the_last_minutes() {
        let [first, unknown, repeated] = said_of(1 << 20, false);
        assert_eq!(first, 0);
        assert!(repeated > 40 * unknown, "{repeated}, {unknown}");
    }

    #[test]
    fn an_end_that_is_forgotten_is_not_taken_for_the_first() {
        let [first, unknown, _] = said_of(1 << 22, true);
        assert_eq!(first, 0);
        assert!(unknown > 0);
    }
}
