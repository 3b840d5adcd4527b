//! Memory of the sessions that ended lately, to know a repeated DESTROY when it comes.
//!
//! The kernel delivers an event again to every listener when one of them could not take it, and an entry that ended
//! may still stand in a piece of a dump. The memory is of fixed size, in sets in which the latest session takes the place
//! of the oldest: what was forgotten is reported twice, never not at all.

use super::table::Key;
use super::{CLOCK_SLACK, began_by};
use crate::time::Wall;

/// Power of two. Sets are found by the lowest bits of a fingerprint.
const SETS: usize = 1 << 16;
const WAYS: usize = 4;
/// Ends that are remembered.
pub(super) const CAPACITY: usize = SETS * WAYS;

#[derive(Debug)]
pub(super) struct RecentEnds {
    sets: Box<[[Place; WAYS]]>,
}

/// An ended session. All zeros where there is none.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    fingerprint: u64,
    start: Start,
}

#[derive(Clone, Copy, Debug, Default)]
enum Start {
    /// The kernel does not say when connections start.
    #[default]
    Unknown,
    /// The kernel's.
    Exact(Wall),
    /// When the session was seen to begin.
    Seen(Wall),
}

impl RecentEnds {
    pub(super) fn new() -> Self {
        Self {
            sets: vec![[Place::default(); WAYS]; SETS].into_boxed_slice(),
        }
    }

    /// Remembers that the session that began at `start` ended, and says whether that is news. Without the kernel's start
    /// time a session cannot be told from the next one with the same tuples and id: then it always is.
    pub(super) fn insert(&mut self, key: Key, id: Option<u32>, start: Option<Wall>) -> bool {
        let fingerprint = fingerprint(key, id);
        let known = start.is_some_and(|start| {
            let set = self.set(fingerprint).iter();
            set.clone().any(|place| place.is(fingerprint, start))
        });
        if !known {
            let start = start.map_or(Start::Unknown, Start::Exact);
            self.put(Place { fingerprint, start });
        }
        !known
    }

    /// Has the memory at hand that remembering an end takes. The value means nothing.
    pub(super) fn look(&self, key: Key, id: Option<u32>) -> u64 {
        self.set(fingerprint(key, id))[0].fingerprint
    }

    /// Remembers a session that was closed without its DESTROY, should that come after all.
    pub(super) fn insert_inferred(&mut self, key: Key, id: Option<u32>, begun: Wall) {
        self.put(Place {
            fingerprint: fingerprint(key, id),
            start: Start::Seen(begun),
        });
    }

    /// Whether a DESTROY without the kernel's start time is that of a session that was closed without it. If so, the next
    /// one like it is not.
    pub(super) fn take_inferred(&mut self, key: Key, id: Option<u32>) -> bool {
        let fingerprint = fingerprint(key, id);
        let set = &mut self.sets[set_of(fingerprint)];
        let closed = |place: &&mut Place| {
            place.fingerprint == fingerprint && matches!(place.start, Start::Seen(_))
        };
        let found = set.iter_mut().find(closed);
        let is_found = found.is_some();
        if let Some(place) = found {
            place.start = Start::Unknown;
        }
        is_found
    }

    /// Whether an entry of a dump may be one that has ended. Without start times a later connection with the same tuples
    /// and id is taken for it as well; its own events tell of it.
    pub(super) fn may_contain(&self, key: Key, id: Option<u32>, start: Option<Wall>) -> bool {
        let fingerprint = fingerprint(key, id);
        self.set(fingerprint).iter().any(|place| match start {
            Some(start) => place.is(fingerprint, start),
            None => place.fingerprint == fingerprint,
        })
    }

    fn put(&mut self, place: Place) {
        let set = &mut self.sets[set_of(place.fingerprint)];
        set.copy_within(..WAYS - 1, 1);
        set[0] = place;
    }

    fn set(&self, fingerprint: u64) -> &[Place; WAYS] {
        &self.sets[set_of(fingerprint)]
    }
}

impl Place {
    fn is(self, fingerprint: u64, start: Wall) -> bool {
        self.fingerprint == fingerprint
            && match self.start {
                Start::Unknown => false,
                Start::Exact(known) => known == start,
                Start::Seen(begun) => {
                    began_by(begun, Some(start)) && start.saturating_add(CLOCK_SLACK) >= begun
                }
            }
    }
}

const fn set_of(fingerprint: u64) -> usize {
    fingerprint as usize & (SETS - 1)
}

/// The key is a good hash already; the id only has to reach all of its bits.
pub(super) fn fingerprint(key: Key, id: Option<u32>) -> u64 {
    let id = id.map_or(0, |id| u64::from(id) + 1);
    key.0 ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
