//! Sessions that began when no more could be kept: their create record has left, and only a fingerprint of them is kept.
//!
//! It tells their end from that of a session whose beginning was missed, recognises a repeated NEW, and spares an audit
//! from announcing them again. A fingerprint costs 16 octets and its place in a table; a kept session costs ten times
//! as much. The table is in shards, like the index of the kept ones, and has a bound of its own.

use hashbrown::HashTable;

use super::recent::fingerprint;
use super::table::{Key, SHARDS};

/// Shards searched in one turn of the loop at the end of an audit.
const SHARDS_PER_TURN: usize = 16;

#[derive(Debug)]
pub(super) struct Unkept {
    shards: Box<[HashTable<Place>; SHARDS]>,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    fingerprint: u64,
    /// The last audit that found the session, or that had begun when the session began.
    audit: u32,
}

impl Unkept {
    pub(super) fn new() -> Self {
        Self {
            shards: Box::new(std::array::from_fn(|_| HashTable::new())),
            count: 0,
        }
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, key: Key, id: Option<u32>, audit: u32) {
        let fingerprint = fingerprint(key, id);
        let place = Place { fingerprint, audit };
        self.shards[shard_of(fingerprint)]
            .insert_unique(fingerprint, place, |place| place.fingerprint);
        self.count += 1;
    }

    pub(super) fn contains(&self, key: Key, id: Option<u32>) -> bool {
        let fingerprint = fingerprint(key, id);
        self.count > 0
            && self.shards[shard_of(fingerprint)]
                .find(fingerprint, |place| place.fingerprint == fingerprint)
                .is_some()
    }

    /// The session has ended, or is kept from now on. Returns whether it was one of these.
    pub(super) fn remove(&mut self, key: Key, id: Option<u32>) -> bool {
        if self.count == 0 {
            return false;
        }
        let fingerprint = fingerprint(key, id);
        let found = self.shards[shard_of(fingerprint)]
            .find_entry(fingerprint, |place| place.fingerprint == fingerprint);
        let Ok(entry) = found else {
            return false;
        };
        entry.remove();
        self.count -= 1;
        true
    }

    /// An audit has found the session. Returns whether it is one of these.
    pub(super) fn confirm(&mut self, key: Key, id: Option<u32>, audit: u32) -> bool {
        if self.count == 0 {
            return false;
        }
        let fingerprint = fingerprint(key, id);
        let mut found = false;
        for place in self.shards[shard_of(fingerprint)].iter_hash_mut(fingerprint) {
            if place.fingerprint == fingerprint {
                place.audit = audit;
                found = true;
            }
        }
        found
    }

    /// Forgets, in the shards from `first` on, the sessions that no audit since number `oldest` has seen. Returns how
    /// many, and the shard to continue with, if there is one.
    pub(super) fn forget_unseen(&mut self, first: usize, oldest: u32) -> (usize, Option<usize>) {
        let before = self.count;
        let end = SHARDS.min(first + SHARDS_PER_TURN);
        for shard in &mut self.shards[first..end] {
            let length = shard.len();
            shard.retain(|place| place.audit >= oldest);
            self.count -= length - shard.len();
        }
        let next = (end < SHARDS && self.count > 0).then_some(end);
        (before - self.count, next)
    }
}

/// The fingerprint is a good hash: see [`super::table`] for which bits are free.
const fn shard_of(fingerprint: u64) -> usize {
    (fingerprint >> 32) as usize & (SHARDS - 1)
}
