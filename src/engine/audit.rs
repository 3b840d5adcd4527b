//! Audits: comparisons of the kernel's table with the pending sessions.
//!
//! An audit begins with a dump of the table. Sessions in it are marked as seen, or adopted when they were not known. Then
//! comes a dump of the dying list: entries that have left the table and whose DESTROY the kernel still owes us. The DESTROY
//! of a session in neither may still be queued in the event socket: only when the dumps have ended *and* that queue has
//! been read to its end is the session certainly gone. Then the pending sessions are walked, a slice per turn of the loop,
//! and closed if they are gone: with an inferred end, at the latest that of the gap that hid the true one.
//!
//! While a listener is slow, the dying list is too long to be read completely, and such an audit in doubt closes nothing. When
//! no audit has been certain for the whole TTL, the sessions that none of them found are closed, with a gap that says so.
//!
//! Audits take place at the start, after every gap, and every `resync`. Without a resync, one is due when the oldest session
//! reaches the TTL.

use std::time::Duration;

use super::table::Key;
use super::{Engine, Pending, Slot};
use crate::session::{EventKind, Gap, GapCause, NatEvent, Provenance};
use crate::time::{Now, Uptime, Wall};
use crate::wire::ctnetlink::{Entry, Listing};

/// Slots walked in one turn of the loop: even if all of them are closed, no more records than an output takes in one turn.
const SLICE: usize = 1024;
/// The least time between audits: a flood that overflows the queue again and again must not keep the daemon dumping.
const PAUSE: Duration = Duration::from_secs(5);
/// The wait before a failed dump is repeated.
const RETRY: Duration = Duration::from_secs(10);
/// The wait before an audit in doubt is repeated, as the kernel was too busy for complete listings.
const IN_DOUBT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Audit {
    phase: Phase,
    /// Number of the audit that is under way, or was the last; 1 before the first.
    number: u32,
    /// When the next one begins.
    due: Option<Uptime>,
    /// When the last one ended.
    ended: Option<Uptime>,
    /// Entries of the dying list, as the last audit counted them.
    dying: u64,
    /// The audits in doubt since the last certain one.
    doubted: Option<Doubted>,
    /// The end of the last gap in which ends may have been missed, and the number of the audit before it.
    gap: Option<(Wall, u32)>,
}

/// A series of audits whose listings may lack entries.
#[derive(Clone, Copy, Debug)]
struct Doubted {
    first: u32,
    since: Now,
    /// Sessions closed or forgotten in spite of the doubt.
    closed: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Idle,
    /// The listing has to be requested.
    Due(Listing),
    Dumping(Listing),
    Draining,
    Closing {
        next_slot: usize,
        since: Uptime,
    },
    /// Connections that are not kept are forgotten once they are gone.
    Forgetting {
        next_shard: usize,
        since: Uptime,
    },
}

impl Audit {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Idle,
            number: 1,
            due: None,
            ended: None,
            dying: 0,
            doubted: None,
            gap: None,
        }
    }

    /// Takes note of a gap in which ends may have been missed.
    pub(super) const fn note_gap(&mut self, gap: &Gap) {
        self.gap = Some((gap.to, self.number));
    }

    /// The latest possible end of a session that is gone: that of the gap that hid it, unless it was seen since.
    fn end_of(&self, pending: &Pending, now: Now) -> Wall {
        let hidden = |(end, audit): &(Wall, u32)| pending.audit <= *audit && pending.begun <= *end;
        let gap = self.gap.filter(hidden).map(|(end, _)| end);
        gap.unwrap_or(now.wall).min(now.wall).max(pending.begun)
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) const fn dying(&self) -> u64 {
        self.dying
    }

    pub(super) const fn poll_timeout(&self) -> Option<Uptime> {
        match self.phase {
            Phase::Idle => self.due,
            Phase::Dumping(_) | Phase::Draining => None,
            // An audit that is due begins at once.
            Phase::Due(_) => Some(Uptime::from_nanos(0)),
            Phase::Closing { since, .. } | Phase::Forgetting { since, .. } => Some(since),
        }
    }

    /// Takes note of a session that reaches the TTL at `due`.
    pub(super) fn note_session(&mut self, due: Uptime) {
        self.due.get_or_insert(due);
    }
}

impl Engine {
    /// Requests an audit, at once if the last one is not very recent.
    pub fn request_audit(&mut self, now: Now) {
        let pause = self.audit.doubted.map_or(PAUSE, |_| IN_DOUBT);
        let ended = self.audit.ended;
        let earliest = ended.map_or(now.up, |ended| ended.saturating_add(pause).max(now.up));
        self.audit.due = Some(self.audit.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// The listing that the kernel is to dump now, given once per dump. Answer with
    /// [`handle_dumped`](Self::handle_dumped) for each entry, then [`handle_dump_end`](Self::handle_dump_end),
    /// [`handle_dump_failed`](Self::handle_dump_failed) or [`handle_dump_in_doubt`](Self::handle_dump_in_doubt).
    pub fn poll_dump(&mut self, now: Now) -> Option<Listing> {
        if self.audit.phase == Phase::Idle && self.audit.due.is_some_and(|due| due <= now.up) {
            self.audit.due = None;
            self.audit.number += 1;
            self.audit.phase = Phase::Due(Listing::Table);
            self.statistics.audits += 1;
        }
        let Phase::Due(listing) = self.audit.phase else {
            return None;
        };
        if listing == Listing::Dying {
            self.audit.dying = 0;
        }
        self.audit.phase = Phase::Dumping(listing);
        Some(listing)
    }

    /// An entry of the listing that is being dumped.
    pub fn handle_dumped(&mut self, flow: &Entry, now: Now) {
        let number = self.audit.number;
        let key = self.table.key(&flow.session);
        let known = self.dumped(key, flow);
        let pending = known.and_then(|slot| self.table.at_mut(slot));
        if self.audit.phase == Phase::Dumping(Listing::Dying) {
            self.audit.dying += 1;
            if let Some(pending) = pending {
                pending.audit = number;
            } else if !self.unkept.confirm(key, flow.session.id, number)
                && let Some(start) = flow.start.filter(|start| self.unheard.may_hide(*start))
            {
                // Its DESTROY reports it, maybe after the audit that would end the doubt about its NEW.
                self.unheard.note(start, start, number);
            }
            return;
        }
        if let Some(pending) = pending {
            pending.audit = number;
            return;
        }
        // It may have ended since the kernel made this piece of the dump, and its DESTROY may have been read first.
        let session = flow.session;
        let ended = || self.recent.may_contain(key, session.id, flow.start);
        if !self.filter.accepts(&session) || ended() {
            return;
        }
        // A session for which not even a fingerprint has room may have been announced: its records come with its DESTROY.
        let known = self.unkept.confirm(key, session.id, number);
        let start = flow.start.unwrap_or(now.wall);
        if self.is_full() && (known || self.is_unkept_full()) {
            if !known {
                self.unheard.note(start, start, number);
            }
            return;
        }
        if !self.unkept.remove(key, session.id) {
            self.statistics.adopted += 1;
            if self.is_full() {
                return self.begin_unkept(key, session, start, Provenance::Inferred);
            }
            self.emit_create(session, start, Provenance::Inferred);
        }
        let slot = self.keep(key, session, start, Provenance::Inferred, now);
        if let Some(pending) = self.table.at_mut(slot) {
            pending.exact = flow.start.is_some();
        }
    }

    /// The dump has ended and is complete.
    pub fn handle_dump_end(&mut self) {
        self.audit.phase = match self.audit.phase {
            Phase::Dumping(Listing::Table) => Phase::Due(Listing::Dying),
            Phase::Dumping(Listing::Dying) => {
                self.audit.doubted = None;
                Phase::Draining
            }
            other => other,
        };
    }

    /// The dump failed or broke off. The audit begins anew in 10 s.
    pub fn handle_dump_failed(&mut self, now: Now) {
        self.audit.phase = Phase::Idle;
        self.audit.due = Some(now.up.saturating_add(RETRY));
    }

    /// The dump has ended and may lack entries: nothing follows from the absence of an entry.
    pub fn handle_dump_in_doubt(&mut self, now: Now) {
        let doubted = self.audit.doubted.get_or_insert(Doubted {
            first: self.audit.number,
            since: now,
            closed: 0,
        });
        if now.up.saturating_since(doubted.since.up) >= self.policy.ttl {
            self.audit.phase = Phase::Draining;
            return;
        }
        self.audit.phase = Phase::Idle;
        self.audit.ended = Some(now.up);
        self.audit.due = Some(now.up.saturating_add(IN_DOUBT));
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
        let oldest = self.oldest_seen();
        match self.audit.phase {
            Phase::Closing { next_slot, since } => {
                let walked = self.close_slice(next_slot, oldest, now);
                if walked == SLICE {
                    let next_slot = next_slot + SLICE;
                    self.audit.phase = Phase::Closing { next_slot, since };
                } else if self.unkept.count() > 0 {
                    let next_shard = 0;
                    self.audit.phase = Phase::Forgetting { next_shard, since };
                } else {
                    self.conclude(now);
                }
            }
            Phase::Forgetting { next_shard, since } => {
                let (forgotten, next) = self.unkept.forget_unseen(next_shard, oldest);
                self.statistics.forgotten += forgotten as u64;
                if let Some(doubted) = &mut self.audit.doubted {
                    doubted.closed += forgotten as u64;
                }
                match next {
                    Some(next_shard) => self.audit.phase = Phase::Forgetting { next_shard, since },
                    None => self.conclude(now),
                }
            }
            _ => {}
        }
    }

    /// The audit from which on every open session has been seen by at least one.
    fn oldest_seen(&self) -> u32 {
        let doubted = self.audit.doubted;
        doubted.map_or(self.audit.number, |doubted| doubted.first)
    }

    /// Closes the sessions of a slice that are gone, and returns how many slots were walked.
    fn close_slice(&mut self, next_slot: usize, oldest: u32, now: Now) -> usize {
        let mut walked = 0;
        for slot in self.table.slots(next_slot, SLICE) {
            walked += 1;
            let unseen = |pending: &super::Pending| pending.audit < oldest;
            let Some(pending) = self.table.at(slot).filter(|pending| unseen(pending)) else {
                continue;
            };
            if let Some(doubted) = &mut self.audit.doubted {
                doubted.closed += 1;
            }
            let key = self.table.key(&pending.session);
            self.close(key, slot, now);
        }
        walked
    }

    fn conclude(&mut self, now: Now) {
        self.audit.phase = Phase::Idle;
        self.audit.ended = Some(now.up);
        let number = self.audit.number;
        match self.audit.doubted.take() {
            Some(Doubted { since, closed, .. }) => {
                self.audit.due = Some(now.up.saturating_add(IN_DOUBT));
                if closed > 0 {
                    // Some of these were known only by a fingerprint, and their ends may still come.
                    self.unheard.note(Wall::default(), now.wall, number);
                    self.state_gap(Gap {
                        cause: GapCause::Expired,
                        from: since.wall.min(now.wall),
                        to: now.wall,
                        lost: Some(closed),
                    });
                }
            }
            None => self.unheard.forget_before(number),
        }
        self.schedule_audit(now);
    }

    /// Sets the time of the next audit, unless something requests an earlier one: every pending session has just been
    /// seen, or no event can have been missed.
    pub fn schedule_audit(&mut self, now: Now) {
        if self.audit.phase != Phase::Idle {
            return;
        }
        let next = match (self.policy.resync, self.pending()) {
            (Some(resync), _) => Some(resync.min(self.policy.ttl)),
            (None, 0) => None,
            (None, _) => Some(self.policy.ttl),
        };
        let due = next.map(|wait| now.up.saturating_add(wait));
        // A gap may have asked for an audit while this one was under way.
        self.audit.due = [self.audit.due, due].into_iter().flatten().min();
    }

    /// Closes a session that the kernel no longer has.
    pub(super) fn close(&mut self, key: Key, slot: Slot, now: Now) {
        let Some((pending, baseline)) = self.table.remove(key, slot) else {
            return;
        };
        self.forget(&pending);
        self.recent
            .insert_inferred(key, pending.session.id, pending.begun, now.wall);
        self.statistics.inferred_ends += 1;
        let end = self.audit.end_of(&pending, now);
        let delete = NatEvent {
            kind: EventKind::Delete,
            start: Some(pending.begun),
            ..NatEvent::create(pending.session, end, Provenance::Inferred)
        };
        self.emit_delete(delete, baseline, Provenance::Inferred);
    }
}
