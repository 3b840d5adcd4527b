//! Memory of the sessions that ended lately, to know a repeated DESTROY when it comes.
//!
//! The kernel delivers an event again to every listener when one of them could not take it, and an entry that ended
//! may still stand in a piece of a dump. The memory is a table of fixed size in which a later session takes the place of
//! an earlier one: what was forgotten is reported twice, never not at all.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use super::{CLOCK_SLACK, began_by, table};
use crate::session::Session;
use crate::time::Wall;

/// Power of two. 65,536 places of 24 bytes: more than the kernel redelivers within a second.
const PLACES: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct RecentEnds {
    places: Box<[Place]>,
    hasher: DefaultHashBuilder,
}

/// The session's fingerprint, and its start. Zeros where none was kept.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    fingerprint: u64,
    start: Wall,
    /// Whether `start` is the kernel's; otherwise the time at which the session was seen to begin.
    exact: bool,
}

impl Place {
    fn holds(self, fingerprint: u64, start: Wall) -> bool {
        self.fingerprint == fingerprint
            && if self.exact {
                self.start == start
            } else {
                began_by(self.start, Some(start)) && start.saturating_add(CLOCK_SLACK) >= self.start
            }
    }
}

impl RecentEnds {
    pub(super) fn new() -> Self {
        Self {
            places: vec![Place::default(); PLACES].into_boxed_slice(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Remembers that the session that began at `start` ended, and says whether that is news. Without the kernel's start
    /// time a session cannot be told from the next one with the same tuples: then it always is.
    pub(super) fn insert(&mut self, session: &Session, start: Option<Wall>) -> bool {
        let Some(start) = start else { return true };
        let fingerprint = self.fingerprint(session);
        let place = &mut self.places[place_of(fingerprint)];
        let known = place.holds(fingerprint, start);
        *place = Place {
            fingerprint,
            start,
            exact: true,
        };
        !known
    }

    /// Remembers a session that was closed without its DESTROY, should that come after all.
    pub(super) fn insert_inferred(&mut self, session: &Session, begun: Wall) {
        let fingerprint = self.fingerprint(session);
        self.places[place_of(fingerprint)] = Place {
            fingerprint,
            start: begun,
            exact: false,
        };
    }

    pub(super) fn contains(&self, session: &Session, start: Option<Wall>) -> bool {
        let fingerprint = self.fingerprint(session);
        let place = self.places[place_of(fingerprint)];
        start.is_some_and(|start| place.holds(fingerprint, start))
    }

    fn fingerprint(&self, session: &Session) -> u64 {
        let key = table::hash(&self.hasher, session);
        self.hasher.hash_one((key, session.id))
    }
}

const fn place_of(fingerprint: u64) -> usize {
    fingerprint as usize & (PLACES - 1)
}
