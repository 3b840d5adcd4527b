//! The sessions that have begun and have not ended, in memory.
//!
//! Protocol, zone and both tuples find a session, but are not unique: the end of one may be reported after the
//! beginning of the next with the same tuples, so several are kept side by side and the caller chooses. Entries stay in
//! their slot for life; a slot is reused after its entry was removed.
//!
//! The index is in shards, which grow one by one: growing an index of millions of sessions in one piece would hold up
//! the loop for a quarter of a second.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Baseline, StoredSession, began_by};
use crate::session::{Provenance, Session};
use crate::time::Wall;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Number of a session in the store; never used again for another one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Row(pub i64);

impl Row {
    /// The first of a run. It lies above those of every run that started at least a second before, so that the sessions
    /// of a store that opens late keep theirs. Whatever the clock says, there is room for 2^62 more.
    pub(super) const fn first(start: Wall) -> Self {
        Self((start.as_secs() as u32 as i64) << 30)
    }
}

/// A session that has begun and has not ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pending {
    pub session: Session,
    /// When it was seen to begin: never before the kernel's own start time, and later by the delay of the event at most.
    pub begun: Wall,
    pub row: Row,
    /// The last audit that found the session in the kernel, or that had begun when the session began; [`RESTORED`] for
    /// one of an earlier run that no audit has found yet.
    pub(super) audit: u32,
    pub provenance: Provenance,
    /// Whether `begun` is the kernel's start time.
    pub(super) exact: bool,
    /// Whether the store has it.
    pub(super) stored: bool,
}

impl Pending {
    /// Whether it may be the session that the kernel says began at `start`.
    pub(super) fn may_have_begun_at(&self, start: Option<Wall>) -> bool {
        if self.exact && start.is_some() {
            start == Some(self.begun)
        } else {
            began_by(self.begun, start)
        }
    }

    /// When it began, and who says so, once the kernel has reported its end and this `start`. The event of its
    /// beginning was dated some microseconds later, or at worst at the beginning of the turn in which it was read: for
    /// so small a difference, both records have the same time.
    pub(super) fn start(&self, start: Option<Wall>) -> (Wall, Provenance) {
        let near = self.begun.saturating_sub(MILLISECOND)..self.begun.saturating_add(MILLISECOND);
        match start {
            None => (self.begun, self.provenance),
            Some(start) if near.contains(&start) => (self.begun, Provenance::Kernel),
            Some(start) => (start, Provenance::Kernel),
        }
    }

    /// The session as the store keeps it.
    pub(super) const fn to_stored(self, row: Row, baseline: Option<Baseline>) -> StoredSession {
        StoredSession {
            row,
            session: self.session,
            begun: self.begun,
            provenance: self.provenance,
            baseline,
        }
    }
}

/// [`Pending::audit`] of a session of an earlier run that no audit has found yet.
pub(super) const RESTORED: u32 = 0;

/// A hash of the fields that [`Table::find`] compares.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Key(pub(super) u64);

/// Place of a session in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Slot(u32);

/// Power of two.
pub(super) const SHARDS: usize = 256;
/// Sessions for which a shard has room from the beginning, so that on a quiet gateway none ever grows.
const ROOM: usize = 56;

#[derive(Debug)]
struct Reported {
    baseline: Baseline,
    /// The row that is to replace the one in the store.
    replacement: Option<Row>,
}

#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Option<Pending>>,
    /// By slot, of the sessions that are accounted in parts: as long as the highest slot of one. Most sessions end before
    /// they have any, so that eight octets for each are better than forty-eight.
    reported: Vec<Option<Box<Reported>>>,
    free: Vec<Slot>,
    index: Box<[HashTable<Slot>; SHARDS]>,
    hasher: DefaultHashBuilder,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            reported: Vec::new(),
            free: Vec::new(),
            index: Box::new(std::array::from_fn(|_| HashTable::with_capacity(ROOM))),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub(super) fn key(&self, session: &Session) -> Key {
        key(&self.hasher, session)
    }

    /// # Panics
    /// Beyond 2^32 sessions, for which no gateway has the memory.
    pub(super) fn insert(&mut self, key: Key, pending: Pending) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 pending sessions"))
        });
        self.slots[slot.0 as usize] = Some(pending);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index[shard_of(key)].insert_unique(key.0, slot, |slot| {
            let pending = slots[slot.0 as usize].as_ref();
            pending.map_or(0, |pending| self::key(hasher, &pending.session).0)
        });
        slot
    }

    /// Every session with the protocol, zone and tuples of `session`, whose key is `key`.
    pub(super) fn find(
        &self,
        key: Key,
        session: &Session,
    ) -> impl Iterator<Item = (Slot, &Pending)> {
        self.index[shard_of(key)]
            .iter_hash(key.0)
            .filter_map(|&slot| Some((slot, self.at(slot)?)))
            .filter(|(_, pending)| same_key(&pending.session, session))
    }

    /// Fetches the memory that finding a session of this key touches. The value means nothing.
    pub(super) fn look(&self, key: Key) -> u64 {
        let mut slots = self.index[shard_of(key)].iter_hash(key.0);
        let pending = slots.next().and_then(|slot| self.at(*slot));
        pending.map_or(0, |pending| pending.begun.as_nanos())
    }

    pub(super) fn at(&self, slot: Slot) -> Option<&Pending> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> Option<&mut Pending> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }

    pub(super) fn baseline(&self, slot: Slot) -> Option<Baseline> {
        Some(self.reported(slot)?.baseline)
    }

    pub(super) fn set_baseline(&mut self, slot: Slot, baseline: Baseline) {
        let index = slot.0 as usize;
        if self.reported.len() <= index {
            self.reported.resize_with(self.slots.len(), || None);
        }
        match &mut self.reported[index] {
            Some(reported) => reported.baseline = baseline,
            place => {
                *place = Some(Box::new(Reported {
                    baseline,
                    replacement: None,
                }));
            }
        }
    }

    /// Whether no session has ever had a baseline.
    pub(super) const fn has_no_baselines(&self) -> bool {
        self.reported.is_empty()
    }

    fn reported(&self, slot: Slot) -> Option<&Reported> {
        self.reported.get(slot.0 as usize)?.as_deref()
    }

    /// The session that the store does not have in this row, but is to have.
    pub(super) fn written_as(&self, slot: Slot, row: Row) -> Option<&Pending> {
        let replacement = || self.reported(slot)?.replacement;
        let is_row = |pending: &&Pending| pending.row == row || replacement() == Some(row);
        self.at(slot).filter(is_row)
    }

    /// The store has it there now.
    pub(super) fn handle_written(&mut self, slot: Slot, row: Row) {
        let index = slot.0 as usize;
        let reported = self.reported.get_mut(index).and_then(Option::as_deref_mut);
        let replaced = || reported?.replacement.take_if(|other| *other == row);
        if let Some(pending) = self.slots.get_mut(index).and_then(Option::as_mut)
            && (pending.row == row || replaced().is_some())
        {
            pending.row = row;
            pending.stored = true;
        }
    }

    /// Has the store replace a session with a baseline by one in this row. Returns whether it waited for nothing before.
    pub(super) fn replace(&mut self, slot: Slot, row: Row) -> bool {
        let index = slot.0 as usize;
        let reported = self.reported.get_mut(index).and_then(Option::as_deref_mut);
        let is_stored = self.slots[index].is_some_and(|pending| pending.stored);
        match reported {
            Some(reported) if is_stored && reported.replacement.is_none() => {
                reported.replacement = Some(row);
                true
            }
            _ => false,
        }
    }

    /// Has a session that waits to be written go to this row. Returns it if there is one.
    pub(super) fn write_anew(&mut self, slot: Slot, row: Row) -> Option<Row> {
        let index = slot.0 as usize;
        let reported = self.reported.get_mut(index).and_then(Option::as_deref_mut);
        let pending = self.slots[index].as_mut()?;
        let replacement = reported.map(|it| &mut it.replacement);
        let replacement = replacement.filter(|it| it.is_some());
        match replacement {
            Some(replacement) if pending.stored => *replacement = Some(row),
            None if pending.stored => return None,
            replacement => {
                replacement.map(Option::take);
                pending.row = row;
            }
        }
        Some(row)
    }

    /// Removes the session at `slot`, whose key is `key`.
    pub(super) fn remove(&mut self, key: Key, slot: Slot) -> Option<(Pending, Option<Baseline>)> {
        let pending = self.slots.get_mut(slot.0 as usize)?.take()?;
        let reported = self.reported.get_mut(slot.0 as usize);
        let reported = reported.and_then(Option::take);
        if let Ok(entry) = self.index[shard_of(key)].find_entry(key.0, |&other| other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        Some((pending, reported.map(|reported| reported.baseline)))
    }

    /// The slots from number `from` on, at most `count` of them; none when the table ends there.
    pub(super) fn slots(&self, from: usize, count: usize) -> impl Iterator<Item = Slot> + use<> {
        let end = self.slots.len().min(from.saturating_add(count));
        (from..end).map(|number| Slot(number as u32))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.slots.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Pending)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(number, slot)| Some((Slot(number as u32), slot.as_mut()?)))
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// Uses bits of the hash that a shard does not use: a shard finds a place by the lowest, and tells places apart by the
/// highest.
const fn shard_of(key: Key) -> usize {
    (key.0 >> 32) as usize & (SHARDS - 1)
}

/// Hashes whole words: a tuple's own `Hash` would feed the hasher field by field, at more cost than all the rest.
fn key(hasher: &DefaultHashBuilder, session: &Session) -> Key {
    let mut state = hasher.build_hasher();
    let Session {
        original, reply, ..
    } = session;
    for [src, dst] in [[original.src, original.dst], [reply.src, reply.dst]] {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                state.write_u64(u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()));
            }
            (src, dst) => [src, dst].map(wide).into_iter().for_each(|address| {
                state.write_u128(address);
            }),
        }
    }
    let ports = [
        original.src_port,
        original.dst_port,
        reply.src_port,
        reply.dst_port,
    ];
    state.write_u64(
        ports
            .into_iter()
            .fold(0, |word, port| word << 16 | u64::from(port)),
    );
    let zone = u64::from(session.zone.id) << 8 | session.zone.direction as u64;
    state.write_u64(zone << 8 | u64::from(session.protocol.0));
    Key(state.finish())
}

fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn same_key(a: &Session, b: &Session) -> bool {
    a.original == b.original && a.reply == b.reply && a.protocol == b.protocol && a.zone == b.zone
}
