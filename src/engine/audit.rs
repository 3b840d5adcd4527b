//! Audits: the kernel's table held against the pending sessions.
//!
//! An audit begins with a dump of the table. What stands in it is marked as seen, or adopted when it was not known. A
//! session that was not seen may still have its DESTROY in the event socket's queue: only when the dump has ended *and*
//! that queue has been read to its end is it gone for certain. Then the table is walked, a slice per turn of the loop.
//!
//! The first audit of a run closes everything that was not seen: it ended while nobody listened. Later ones close what
//! was not seen and is older than the TTL.

use std::time::Duration;

use super::{Engine, began_by, same_id};
use crate::session::{EventKind, NatEvent, Provenance, Record};
use crate::time::{Now, Uptime, Wall};
use crate::wire::ctnetlink::Flow;

/// Slots walked in one turn of the loop.
const SLICE: usize = 4096;
/// Wait before a dump that failed is asked for again.
const RETRY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Audit {
    phase: Phase,
    /// Number of the audit that is under way, or was the last; 0 before the first.
    number: u32,
    /// Sessions that began before this and were not seen are closed whatever their age.
    closes_before: Wall,
    /// When the oldest session reaches the TTL.
    due: Option<Uptime>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Idle,
    Dumping,
    Draining,
    Closing { next_slot: usize, since: Uptime },
}

impl Audit {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Idle,
            number: 0,
            closes_before: Wall::from_nanos(0),
            due: None,
        }
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) const fn poll_timeout(&self) -> Option<Uptime> {
        match self.phase {
            Phase::Idle => self.due,
            Phase::Dumping | Phase::Draining => None,
            Phase::Closing { since, .. } => Some(since),
        }
    }

    pub(super) fn note_session(&mut self, due: Uptime) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }
}

impl Engine {
    /// Asks for an audit as soon as possible.
    pub fn request_audit(&mut self, now: Now) {
        self.audit.due = Some(now.up);
    }

    /// The first audit of a run, which closes every restored session that the kernel no longer has.
    pub fn request_first_audit(&mut self, now: Now) {
        self.audit.closes_before = now.wall;
        self.request_audit(now);
    }

    /// Whether a dump of the kernel's table is due. Returns `true` once per dump; answer with
    /// [`handle_dumped`](Self::handle_dumped) for each entry, then [`handle_dump_end`](Self::handle_dump_end) or
    /// [`handle_dump_failed`](Self::handle_dump_failed).
    #[must_use]
    pub fn poll_dump(&mut self, now: Now) -> bool {
        if self.audit.phase != Phase::Idle || self.audit.due.is_none_or(|due| due > now.up) {
            return false;
        }
        self.audit.due = None;
        self.audit.number += 1;
        self.audit.phase = Phase::Dumping;
        self.statistics.audits += 1;
        true
    }

    /// An entry of the kernel's table.
    pub fn handle_dumped(&mut self, flow: &Flow, now: Now) {
        let number = self.audit.number;
        let known = self
            .table
            .find(&flow.session)
            .find(|(_, pending)| {
                same_id(&pending.session, &flow.session) && began_by(pending.begun, flow.start)
            })
            .map(|(slot, _)| slot);
        if let Some(pending) = known.and_then(|slot| self.table.at_mut(slot)) {
            pending.audit = number;
            return;
        }
        // It may have ended since this piece of the dump was made, and its DESTROY may have been read first.
        if !self.filter.accepts(&flow.session) || self.recent.contains(&flow.session, flow.start) {
            return;
        }
        self.statistics.adopted += 1;
        self.begin(
            flow.session,
            flow.start.unwrap_or(now.wall),
            Provenance::Inferred,
            now,
        );
    }

    /// The dump has ended, and was complete.
    pub fn handle_dump_end(&mut self) {
        if self.audit.phase == Phase::Dumping {
            self.audit.phase = Phase::Draining;
        }
    }

    /// The dump could not be made, or broke off. It is asked for again in 10 s.
    pub fn handle_dump_failed(&mut self, now: Now) {
        self.audit.phase = Phase::Idle;
        self.audit.due = Some(now.up.saturating_add(RETRY));
    }

    /// The event socket has nothing queued: every event from before this moment has been handled.
    pub fn handle_events_drained(&mut self, now: Now) {
        if self.audit.phase == Phase::Draining {
            self.audit.phase = Phase::Closing {
                next_slot: 0,
                since: now.up,
            };
        }
    }

    pub(super) fn close_some(&mut self, now: Now) {
        let Phase::Closing { next_slot, since } = self.audit.phase else {
            return;
        };
        let mut walked = 0;
        for slot in self.table.slots(next_slot, SLICE) {
            walked += 1;
            let gone = self.table.at(slot).is_some_and(|pending| {
                pending.audit != self.audit.number
                    && (pending.begun <= self.audit.closes_before
                        || now.wall.saturating_since(pending.begun) >= self.ttl)
            });
            if gone {
                self.close(slot, now);
            }
        }
        if walked == SLICE {
            let next_slot = next_slot + SLICE;
            self.audit.phase = Phase::Closing { next_slot, since };
        } else {
            self.audit.phase = Phase::Idle;
            self.audit.closes_before = Wall::from_nanos(0);
            self.schedule_audit(now);
        }
    }

    /// Sets the next audit to when the oldest session reaches the TTL, counted anew from now for those that the last audit
    /// has seen.
    pub(super) fn schedule_audit(&mut self, now: Now) {
        if self.audit.phase != Phase::Idle {
            return;
        }
        let (ttl, number) = (self.ttl, self.audit.number);
        let left = |pending: &super::Pending| {
            if pending.audit == number {
                ttl
            } else {
                ttl.saturating_sub(now.wall.saturating_since(pending.begun))
            }
        };
        let shortest = self.table.iter().map(left).min();
        let due = shortest.map(|left| now.up.saturating_add(left));
        // A gap may have asked for an audit while this one was under way.
        self.audit.due = match (self.audit.due, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    fn close(&mut self, slot: super::Slot, now: Now) {
        let Some(pending) = self.table.remove(slot) else {
            return;
        };
        self.forget(&pending);
        self.statistics.inferred_ends += 1;
        self.statistics.deletes += 1;
        self.records.push_back(Record::Event(NatEvent {
            kind: EventKind::Delete,
            session: pending.session,
            time: now.wall.max(pending.begun),
            start: Some(pending.begun),
            totals: None,
            provenance: Provenance::Inferred,
        }));
    }
}
