//! The session state machine: conntrack events in, NAT records and store changes out.
//!
//! Sans-IO: no socket, no file, no clock. Input goes in by `handle_*`, with `now`; records come out by
//! [`poll_record`](Engine::poll_record), changes for the store by [`changes`](Engine::changes), and the time of the
//! next work by [`poll_timeout`](Engine::poll_timeout). Calls that find nothing to do are harmless.
//!
//! It guarantees:
//! - every delete record has its create record before it: a DESTROY whose NEW was never seen gives both;
//! - a session is reported once: a repeated NEW or DESTROY gives nothing. A repeated DESTROY is taken for the end of a
//!   session that was not announced only where the two look alike: where the kernel keeps no timestamps, and, once
//!   [`recent`] has forgotten it, where NEWs may have been missed;
//! - an *audit* (a dump of the kernel's table) closes sessions that the kernel no longer has and adopts unknown ones,
//!   with inferred records;
//! - with an active timeout, the parts in which a session is reported add up to its delete record ([`sweep`]);
//! - no more sessions are kept than [`Policy::max_pending`]: the records of those beyond leave on time and complete,
//!   but an end that the kernel does not report is only counted, and after a restart they are adopted.
//!
//! `CTA_ID` is a hash of addresses in memory and tuples, and recurs for a later connection with the same tuples. So
//! zone, protocol, both tuples, id and start time together identify a session, and NEW is paired with DESTROY in order.

mod audit;
mod changes;
mod filter;
#[cfg(test)]
mod model;
mod recent;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod uncounted;
mod unheard;
mod unkept;

use std::collections::VecDeque;
use std::time::Duration;

pub use changes::Changes;
pub use filter::Filter;
pub use sweep::Baseline;
pub use table::{Pending, Row};

use self::audit::Audit;
use self::recent::{RecentEnds, Sighting};
use self::sweep::{Sweep, first_mark};
use self::table::{Key, RESTORED, Slot, Table};
use self::uncounted::Uncounted;
use self::unheard::Unheard;
use self::unkept::Unkept;
use crate::config::Config;
use crate::metrics::Sessions;
use crate::session::{EventKind, Gap, NatEvent, Provenance, Record, Session};
use crate::time::{Now, Uptime, Wall};
use crate::wire::ctnetlink::{Entry, Event};

/// How much later than the time read for its NEW the kernel's start time of a session may be: the clock is read once
/// per wake-up, before the events that come in during it.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// The most fingerprints of sessions that are not kept: this many times the kept sessions, and at least the second number.
const UNKEPT_FACTOR: usize = 4;
const LEAST_UNKEPT: usize = 1 << 20;

/// The times of audits, and the number of sessions kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// The age at which a session is looked for in the kernel's table, unless an audit took place before.
    pub ttl: Duration,
    /// Time between audits.
    pub resync: Option<Duration>,
    /// The most sessions kept; those restored from the store are always kept.
    pub max_pending: usize,
    /// The age at which a session is reported in parts.
    pub active_timeout: Option<Duration>,
}

impl Policy {
    pub fn new(config: &Config) -> Self {
        Self {
            ttl: config.pending.ttl,
            resync: config.capture.resync,
            max_pending: config.pending.max,
            active_timeout: config.capture.active_timeout,
        }
    }
}

/// A session as the store returns it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredSession {
    pub row: Row,
    pub session: Session,
    pub begun: Wall,
    pub provenance: Provenance,
    /// For one that is accounted in parts.
    pub baseline: Option<Baseline>,
}

/// The session state machine.
#[derive(Debug)]
pub struct Engine {
    filter: Filter,
    policy: Policy,
    table: Table,
    recent: RecentEnds,
    unheard: Unheard,
    uncounted: Uncounted,
    /// Room for the keys of a batch, to be reused.
    keys: Vec<Key>,
    /// Whether the kernel leaves NEWs out although nothing is missed.
    leaves_out_new: bool,
    audit: Audit,
    sweep: Sweep,
    records: VecDeque<Record>,
    next_row: Row,
    /// Begun since the last commit; some may have ended since.
    begun: VecDeque<(Slot, Row)>,
    /// Ended, and still in the store.
    ended: Vec<Row>,
    /// Pending sessions that would not be logged if they began now.
    left_out: usize,
    unkept: Unkept,
    /// The most fingerprints kept.
    max_unkept: usize,
    /// Whether the filter has changed since some of the unkept began.
    unkept_left_out: bool,
    statistics: Sessions,
}

impl Engine {
    /// An engine that hears of everything that begins after `now`.
    pub fn new(filter: Filter, policy: Policy, now: Now) -> Self {
        let (audit, before) = (Audit::new(), now.wall.saturating_sub(CLOCK_SLACK));
        let mut unheard = Unheard::default();
        unheard.note(Wall::default(), before, audit.number());
        Self {
            filter,
            policy,
            table: Table::new(),
            recent: RecentEnds::new(now.wall),
            unheard,
            uncounted: Uncounted::default(),
            keys: Vec::new(),
            leaves_out_new: false,
            audit,
            sweep: Sweep::new(policy.active_timeout, now),
            records: VecDeque::new(),
            next_row: Row::first(now.wall),
            begun: VecDeque::new(),
            ended: Vec::new(),
            left_out: 0,
            unkept: Unkept::new(),
            max_unkept: max_unkept(&policy),
            unkept_left_out: false,
            statistics: Sessions::default(),
        }
    }

    /// Applies a changed configuration. Sessions that are pending stay so and get their delete record.
    pub fn reconfigure(&mut self, filter: Filter, policy: Policy, now: Now) {
        if self.filter != filter {
            self.unkept_left_out = true;
            self.unheard
                .note(Wall::default(), now.wall, self.audit.number());
        }
        self.filter = filter;
        let pending = self.table.iter();
        self.left_out = pending
            .filter(|pending| !self.filter.accepts(&pending.session))
            .count();
        if self.policy.active_timeout != policy.active_timeout {
            // One that is under way is handed over still, and does no harm.
            self.sweep = Sweep::new(policy.active_timeout, now);
        }
        if self.policy != policy {
            self.policy = policy;
            self.max_unkept = max_unkept(&policy);
            self.schedule_audit(now);
        }
    }

    /// Takes back a session of an earlier run from the store, even when events came in before. An audit should follow.
    pub fn restore(&mut self, stored: StoredSession) {
        self.next_row = Row(self.next_row.0.max(stored.row.0.saturating_add(1)));
        let key = self.table.key(&stored.session);
        let known = self
            .table
            .find(key, &stored.session)
            .find(|(_, pending)| {
                // A session that was seen to begin is another one with the same tuples and id.
                !pending.stored
                    && pending.provenance == Provenance::Inferred
                    && same_id(&pending.session, &stored.session)
            })
            .map(|(slot, _)| slot);
        if let Some((slot, pending)) = known.and_then(|slot| Some((slot, self.table.at_mut(slot)?)))
        {
            pending.row = stored.row;
            pending.begun = pending.begun.min(stored.begun);
            pending.stored = true;
            match (self.table.baseline(slot), stored.baseline) {
                (Some(_), _) => self.rewrite(slot),
                (None, Some(baseline)) => self.table.set_baseline(slot, baseline),
                (None, None) => {}
            }
            return;
        }
        let pending = Pending {
            session: stored.session,
            begun: stored.begun,
            row: stored.row,
            audit: RESTORED,
            provenance: stored.provenance,
            exact: false,
            stored: true,
        };
        let slot = self.table.insert(key, pending);
        if let Some(baseline) = stored.baseline {
            self.table.set_baseline(slot, baseline);
        }
        self.left_out += usize::from(!self.filter.accepts(&stored.session));
        self.statistics.restored += 1;
        self.note_peak();
    }

    /// An earlier run listened with the same socket, and its sessions have been restored: no end of theirs was missed.
    pub fn handle_continued(&mut self) {
        let number = self.audit.number();
        for (_, pending) in self.table.iter_mut() {
            pending.audit = pending.audit.max(number);
        }
    }

    /// The socket dropped events between `from` and `to`. With reliable delivery that is no gap: the end of a session
    /// whose NEW could not be queued is still reported.
    pub fn handle_drops(&mut self, from: Wall, to: Wall) {
        self.unheard.note(from, to, self.audit.number());
    }

    /// From now on packets may go uncounted, or no longer. The change lies between `before`, the last check, and `now`.
    pub fn handle_uncounted(&mut self, is_so: bool, before: Wall, now: Wall) {
        self.uncounted.note(is_so, before, now);
    }

    /// Handles events in their order.
    pub fn handle_events(&mut self, events: &[Event], now: Now) {
        // The places of all are touched before any is changed. These reads are independent, so the processor waits for
        // the memory of many sessions at once: with millions pending, that wait is most of the cost of an event.
        let mut keys = std::mem::take(&mut self.keys);
        let looked = events.iter().map(|event| {
            let (Event::New(entry) | Event::Destroy(entry)) = event;
            let key = self.table.key(&entry.session);
            keys.push(key);
            self.table.look(key) ^ self.recent.look(key, entry.session.id)
        });
        std::hint::black_box(looked.fold(0, |all, one| all ^ one));
        for (event, key) in events.iter().zip(keys.drain(..)) {
            match event {
                Event::New(flow) => self.handle_new(flow, key, now),
                Event::Destroy(flow) => self.handle_destroy(flow, key, now),
            }
        }
        self.keys = keys;
    }

    /// States that events may have been missed, and has an audit look for them.
    pub fn handle_gap(&mut self, gap: Gap, now: Now) {
        self.state_gap(gap);
        self.request_audit(now);
    }

    /// States a gap whose sessions no audit can find any more.
    pub fn state_gap(&mut self, gap: Gap) {
        if gap.cause.may_hide_sessions() {
            self.audit.note_gap(&gap);
            self.unheard.note(gap.from, gap.to, self.audit.number());
        }
        self.records.push_back(Record::Gap(gap));
    }

    /// The next record to send, in the order in which they became known.
    #[must_use = "a record that is not sent is lost"]
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), at the latest.
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let deadlines = [self.audit.poll_timeout(), self.sweep.poll_timeout()];
        deadlines.into_iter().flatten().min()
    }

    /// Does a bounded piece of what is due. Spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        self.close_some(now);
    }

    /// Whether every pending session would be logged if it began now. Not so after filters were made narrower.
    pub const fn accepts_all_pending(&self) -> bool {
        self.left_out == 0 && !(self.unkept_left_out && self.unkept.count() > 0)
    }

    /// Entries of the kernel's dying list, when an audit last counted them.
    pub const fn dying(&self) -> u64 {
        self.audit.dying()
    }

    pub fn pending(&self) -> usize {
        self.table.len()
    }

    /// Whether as many sessions are pending as are kept.
    pub fn is_full(&self) -> bool {
        self.pending() >= self.policy.max_pending
    }

    /// Sessions that have begun and are known by a fingerprint only.
    pub const fn unkept(&self) -> usize {
        self.unkept.count()
    }

    /// Sessions kept at a time.
    pub const fn max_pending(&self) -> usize {
        self.policy.max_pending
    }

    pub const fn statistics(&self) -> &Sessions {
        &self.statistics
    }

    fn handle_new(&mut self, flow: &Entry, key: Key, now: Now) {
        let session = flow.session;
        if !self.filter.accepts(&session) {
            self.statistics.filtered += 1;
            return;
        }
        let same = self
            .table
            .find(key, &session)
            .find(|(_, pending)| session.id.is_some() && pending.session.id == session.id)
            .map(|(slot, pending)| (slot, pending.audit, pending.begun));
        match same {
            // A session of an earlier run ended while nobody listened: this is the next with its tuples and id.
            Some((slot, RESTORED, _)) => self.close(key, slot, now),
            // Another listener could not take the event, so the kernel sent it again to all of them. Or the end of the
            // pending session was missed, and this is the next.
            Some((.., begun)) => {
                if self.unheard.is_after(begun) {
                    self.unheard.note(begun, now.wall, self.audit.number());
                }
                self.statistics.duplicates += 1;
                return;
            }
            None if session.id.is_some() && self.unkept.contains(key, session.id) => {
                self.statistics.duplicates += 1;
                return;
            }
            None => {}
        }
        let time = flow.event_time.unwrap_or(now.wall);
        if self.is_full() {
            self.begin_unkept(key, session, time, Provenance::Kernel);
        } else {
            self.keep(key, session, time, Provenance::Kernel, now);
            self.emit_create(session, time, Provenance::Kernel);
        }
    }

    fn handle_destroy(&mut self, flow: &Entry, key: Key, now: Now) {
        let end = flow.stop.or(flow.event_time).unwrap_or(now.wall);
        // Before pairing: a repeated end must not end the next session with the same tuples.
        let sighting = self.recent.insert(key, flow.session.id, flow.start, end);
        if sighting == Sighting::Repeated {
            self.statistics.duplicates += 1;
            return;
        }
        let paired = self.paired(key, flow);
        if let Some((pending, baseline)) = paired.and_then(|slot| self.table.remove(key, slot)) {
            self.forget(&pending);
            let (start, provenance) = pending.start(flow.start);
            let delete = NatEvent {
                first_mark: first_mark(&pending, flow),
                ..self.delete(flow, Some(start), end, provenance)
            };
            self.emit_delete(delete, baseline, Provenance::Kernel);
            return;
        }
        if !self.unkept.remove(key, flow.session.id) {
            if !self.filter.accepts(&flow.session) {
                self.statistics.filtered += 1;
                return;
            }
            if self.is_repetition(flow, sighting) {
                self.statistics.duplicates += 1;
                return;
            }
            self.statistics.unannounced += 1;
            let start = flow.start.map(|start| (start, Provenance::Kernel));
            let (start, provenance) = start.unwrap_or((end, Provenance::Inferred));
            self.emit_create(flow.session, start, provenance);
        }
        let delete = self.delete(flow, flow.start, end, Provenance::Kernel);
        self.emit_delete(delete, None, Provenance::Kernel);
    }

    /// Whether the end of an unknown session is a repetition. If not, its NEW was missed, or there was none: a filter
    /// by a mark may accept a session only at its end, and rules of the kernel may leave NEWs out (`CT --ctevents`).
    fn is_repetition(&mut self, flow: &Entry, sighting: Sighting) -> bool {
        let is_heard = |start| !self.unheard.may_hide(start);
        if flow.is_unannounced
            || self.filter.may_have_rejected(&flow.session)
            || !flow.start.is_some_and(is_heard)
        {
            return false;
        }
        // Two processors may report a session that ends as it begins at once, and its end first.
        let is_late = |start: Wall| flow.stop > Some(start.saturating_add(CLOCK_SLACK));
        self.leaves_out_new |= sighting == Sighting::First && flow.start.is_some_and(is_late);
        sighting != Sighting::First && !self.leaves_out_new
    }

    /// The pending session that `flow` is the end of: of those with its tuples and id, the oldest that was not seen before
    /// the kernel's start time. One seen earlier is another session, unless nothing has been missed since: then the clock
    /// was set back before its NEW was read.
    fn paired(&self, key: Key, flow: &Entry) -> Option<Slot> {
        self.table
            .find(key, &flow.session)
            .filter(|(_, pending)| self.may_be(pending, flow))
            .min_by_key(|(_, pending)| (pending.begun, pending.row))
            .map(|(slot, _)| slot)
    }

    fn may_be(&self, pending: &Pending, flow: &Entry) -> bool {
        let is_set_back = || !pending.exact && !self.unheard.is_after(pending.begun);
        same_id(&pending.session, &flow.session)
            && (pending.may_have_begun_at(flow.start) || is_set_back())
    }

    /// A session begins beyond the number that is kept.
    fn begin_unkept(&mut self, key: Key, session: Session, time: Wall, provenance: Provenance) {
        self.statistics.beyond_max += 1;
        self.unkept_left_out &= self.unkept.count() > 0;
        if self.is_unkept_full() {
            self.statistics.forgotten += 1;
            self.unheard.note(time, time, self.audit.number());
        } else {
            self.unkept.insert(key, session.id, self.audit.number());
        }
        self.emit_create(session, time, provenance);
    }

    fn keep(
        &mut self,
        key: Key,
        session: Session,
        time: Wall,
        provenance: Provenance,
        now: Now,
    ) -> Slot {
        let row = self.next_row;
        self.next_row = Row(row.0 + 1);
        let audit = self.audit.number();
        let slot = self.table.insert(
            key,
            Pending {
                session,
                begun: time,
                row,
                audit,
                provenance,
                exact: false,
                stored: false,
            },
        );
        self.begun.push_back((slot, row));
        self.note_peak();
        self.audit
            .note_session(now.up.saturating_add(self.policy.ttl));
        slot
    }

    fn is_unkept_full(&self) -> bool {
        self.unkept.count() >= self.max_unkept
    }

    /// Takes note that a session is no longer pending.
    fn forget(&mut self, pending: &Pending) {
        if pending.stored {
            self.ended.push(pending.row);
        }
        if self.left_out > 0 && !self.filter.accepts(&pending.session) {
            self.left_out -= 1;
        }
    }

    fn emit_create(&mut self, session: Session, time: Wall, provenance: Provenance) {
        self.statistics.creates += 1;
        let event = NatEvent::create(session, time, provenance);
        self.records.push_back(Record::Event(event));
    }

    /// The delete record of a session whose end the kernel reports.
    fn delete(
        &self,
        flow: &Entry,
        start: Option<Wall>,
        end: Wall,
        provenance: Provenance,
    ) -> NatEvent {
        let is_uncounted = self.uncounted.may_have(flow, start, end);
        NatEvent {
            kind: EventKind::Delete,
            start,
            totals: flow.totals.filter(|_| !is_uncounted),
            end_reason: flow.end_reason,
            // A record never ends before it begins, even when the clock was set back.
            ..NatEvent::create(
                flow.session,
                start.map_or(end, |start| end.max(start)),
                provenance,
            )
        }
    }

    fn note_peak(&mut self) {
        let pending = self.table.len() as u64;
        self.statistics.pending_peak = self.statistics.pending_peak.max(pending);
    }
}

fn max_unkept(policy: &Policy) -> usize {
    let factored = policy.max_pending.saturating_mul(UNKEPT_FACTOR);
    factored.max(LEAST_UNKEPT)
}

/// Whether two sessions with the same tuples may be the same, by their ids.
fn same_id(a: &Session, b: &Session) -> bool {
    a.id.is_none() || b.id.is_none() || a.id == b.id
}

/// Whether a session that was seen to begin at `begun` may be the one that the kernel says began at `start`.
fn began_by(begun: Wall, start: Option<Wall>) -> bool {
    start.is_none_or(|start| start <= begun.saturating_add(CLOCK_SLACK))
}
