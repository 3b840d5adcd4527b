//! Sessions that are accounted in parts: `capture.active-timeout`.
//!
//! A *sweep* is a dump of the kernel's table beside the audits. It reports what long sessions have transferred since
//! their last report, and proves nothing about those that it lacks. There are four in the time of the active timeout, and
//! each reports the sessions whose last report is at least three quarters of that time old: so a part covers hardly more
//! than the active timeout, unless nothing was transferred.
//!
//! It guarantees that the parts of a session add up to the counters of its delete record: the baseline, up to which
//! a session has been reported, and the record of it are in one commit of the store. Only where somebody sets the kernel's
//! counters to zero (`conntrack -Z`), the parts together have more than the delete, which has what was counted since.

use std::time::Duration;

use super::changes::MAX_CHANGES;
use super::table::{Key, Slot};
use super::{Engine, Pending};
use crate::session::{Counters, EndReason, EventKind, NatEvent, Provenance, Record, Totals};
use crate::time::{Now, Uptime, Wall};
use crate::wire::ctnetlink::Entry;

/// Sweeps in the time of the active timeout.
const SWEEPS: u32 = 4;
/// The wait before a failed sweep is repeated, if its period is no shorter.
const RETRY: Duration = Duration::from_secs(10);

/// Up to where a session has been reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Baseline {
    pub time: Wall,
    pub totals: Totals,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sweep {
    Off,
    Due(Uptime),
    /// One is under way, since then.
    Running(Uptime),
}

impl Sweep {
    pub(super) const fn new(active_timeout: Option<Duration>, now: Now) -> Self {
        match active_timeout {
            Some(_) => Self::Due(now.up),
            None => Self::Off,
        }
    }

    pub(super) const fn poll_timeout(self) -> Option<Uptime> {
        match self {
            Self::Due(due) => Some(due),
            Self::Off | Self::Running(_) => None,
        }
    }
}

impl Engine {
    /// Whether the kernel's table is to be read for a sweep from now on, and how long that should take at most. Answer
    /// with [`handle_swept`](Self::handle_swept) for each piece, then [`handle_sweep_end`](Self::handle_sweep_end) or
    /// [`handle_sweep_failed`](Self::handle_sweep_failed).
    ///
    /// Without a working store there is none: a baseline that is lost at a restart would repeat what was reported.
    pub fn poll_sweep(&mut self, is_stored: bool, now: Now) -> Option<Duration> {
        let period = self.policy.active_timeout? / SWEEPS;
        if !matches!(self.sweep, Sweep::Due(due) if due <= now.up) {
            return None;
        }
        if !is_stored {
            self.sweep = Sweep::Due(now.up.saturating_add(RETRY.min(period)));
            return None;
        }
        self.sweep = Sweep::Running(now.up);
        self.statistics.sweeps += 1;
        Some(period)
    }

    /// Entries of the kernel's table, as they are now.
    pub fn handle_swept(&mut self, entries: &[Entry], now: Now) {
        let Some(active_timeout) = self.policy.active_timeout else {
            return;
        };
        let latest = now
            .wall
            .saturating_sub(active_timeout / SWEEPS * (SWEEPS - 1));
        // After the clock was set back, times may lie ahead.
        let is_due = |since: Wall| since <= latest || since > now.wall;
        let old = |entry: &&Entry| entry.totals.is_some() && entry.start.is_none_or(is_due);
        // As for events, the places of all are touched before any is changed.
        let mut keys = std::mem::take(&mut self.keys);
        let looked = entries.iter().filter(old).map(|entry| {
            let key = self.table.key(&entry.session);
            keys.push(key);
            self.table.look(key)
        });
        std::hint::black_box(looked.fold(0, |all, one| all ^ one));
        for (entry, key) in entries.iter().filter(old).zip(keys.drain(..)) {
            // It may have ended since the kernel made this piece, and a session with its tuples and id may have begun.
            let has_ended = self.recent.may_contain(key, entry.session.id, entry.start);
            let known = self.dumped(key, entry).filter(|_| !has_ended);
            if let Some((slot, totals)) = known.zip(entry.totals) {
                self.report(slot, entry, totals, is_due, now);
            }
        }
        self.keys = keys;
    }

    /// The sweep has read the whole table.
    pub fn handle_sweep_end(&mut self, now: Now) {
        if let (Sweep::Running(since), Some(active_timeout)) =
            (self.sweep, self.policy.active_timeout)
        {
            self.sweep = Sweep::Due(since.saturating_add(active_timeout / SWEEPS).max(now.up));
        }
    }

    /// The sweep broke off. The next one begins in 10 s at the latest.
    pub fn handle_sweep_failed(&mut self, now: Now) {
        if let (Sweep::Running(_), Some(active_timeout)) = (self.sweep, self.policy.active_timeout)
        {
            self.sweep = Sweep::Due(now.up.saturating_add(RETRY.min(active_timeout / SWEEPS)));
        }
    }

    /// The pending session that an entry of a dump is about: the latest of those that it may be.
    pub(super) fn dumped(&self, key: Key, entry: &Entry) -> Option<Slot> {
        self.table
            .find(key, &entry.session)
            .filter(|(_, pending)| self.may_be(pending, entry))
            .max_by_key(|(_, pending)| pending.begun)
            .map(|(slot, _)| slot)
    }

    /// Reports a part of a session if that is due and there is something to report.
    fn report(
        &mut self,
        slot: Slot,
        entry: &Entry,
        totals: Totals,
        is_due: impl Fn(Wall) -> bool,
        now: Now,
    ) {
        let Some(pending) = self.table.at(slot) else {
            return;
        };
        let (begun, provenance) = pending.start(entry.start);
        let baseline = self.table.baseline(slot);
        let since = baseline.map_or(begun, |baseline| baseline.time);
        let part = part(totals, baseline);
        // The baseline has to be in the next commit, as its record is.
        if !is_due(since)
            || part == Totals::default()
            || self.begun.len() >= MAX_CHANGES
            || self.uncounted.may_have(entry, Some(begun), now.wall)
        {
            return;
        }
        let flow = NatEvent {
            kind: EventKind::Flow,
            start: Some(since),
            totals: Some(part),
            end_reason: Some(EndReason::Active),
            first_mark: first_mark(pending, entry),
            ..NatEvent::create(
                entry.session,
                now.wall.max(since),
                // The time of an earlier report is certain.
                baseline.map_or(provenance, |_| Provenance::Kernel),
            )
        };
        self.emit_flow(flow);
        let time = now.wall;
        self.table.set_baseline(slot, Baseline { time, totals });
        self.rewrite(slot);
    }

    /// Emits the delete record of a session; before it, if there is a baseline, the last part, which is known by
    /// `provenance`.
    pub(super) fn emit_delete(
        &mut self,
        delete: NatEvent,
        baseline: Option<Baseline>,
        provenance: Provenance,
    ) {
        if let Some(baseline) = baseline {
            let rest = delete.totals.map(|totals| part(totals, Some(baseline)));
            if rest != Some(Totals::default()) {
                self.emit_flow(NatEvent {
                    kind: EventKind::Flow,
                    time: delete.time.max(baseline.time),
                    start: Some(baseline.time),
                    totals: rest,
                    provenance,
                    ..delete
                });
            }
        }
        self.statistics.deletes += 1;
        self.records.push_back(Record::Event(NatEvent {
            in_parts: baseline.is_some(),
            ..delete
        }));
    }

    fn emit_flow(&mut self, flow: NatEvent) {
        self.statistics.flows += 1;
        self.records.push_back(Record::Event(flow));
    }
}

/// The mark at the beginning, if the session has another one now.
pub(super) fn first_mark(pending: &Pending, entry: &Entry) -> Option<u32> {
    let first = pending.session.mark;
    (first != entry.session.mark).then_some(first)
}

/// The counters since the last report. Where any is lower than then, they were set to zero meanwhile.
fn part(totals: Totals, baseline: Option<Baseline>) -> Totals {
    let less = |now: Counters, before: Counters| {
        Some(Counters {
            packets: now.packets.checked_sub(before.packets)?,
            octets: now.octets.checked_sub(before.octets)?,
        })
    };
    let before = baseline.map_or_else(Totals::default, |baseline| baseline.totals);
    let original = less(totals.original, before.original);
    let reply = less(totals.reply, before.reply);
    match original.zip(reply) {
        Some((original, reply)) => Totals { original, reply },
        None => totals,
    }
}
