//! Watching for causes of lost records that no event reports: once a second, with one log line per change of state.
//!
//! - Packets that connection tracking dropped, because the table was full or no translated tuple was free, become gaps.
//! - Messages of the kernel that could not be decoded become a gap.
//! - Reaching the most pending sessions that are kept is a warning.
//! - The table nearing its limit is a warning: with reliable delivery, connections that have ended and could not be
//!   reported count as well.
//! - The nftables rule that keeps connection tracking on is restored when somebody has removed it (`nft flush
//!   ruleset`), and the time without it is a gap. So is the time while events are switched off (`nf_conntrack_events`).
//! - An nftables flowtable without `counter` is a warning, and costs records their counters.
//! - Frames that a monitor port has dropped become gaps ([`Ports`]).
//! - A network namespace made anew under the same name ends the daemon: its sockets are in the old one.
//! - A step of the clock is a gap of no duration.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::mirror::Ports;
use super::setup::switch_on;
use crate::config::{self, Config};
use crate::engine::Engine;
use crate::kernel::namespace::{identity, within};
use crate::kernel::tracking::{COUNT, Statistics, Tracking, UNCOUNTED};
use crate::kernel::{nftables, sysctl};
use crate::session::{Gap, GapCause};
use crate::time::{Now, Uptime, Wall};

const INTERVAL: Duration = Duration::from_secs(1);
/// The least time between gaps of one cause.
const TALLY: Duration = Duration::from_secs(10);
/// A slewed clock moves by far less within a turn of the loop.
const STEP: Duration = Duration::from_millis(250);

pub struct Watch {
    config: config::Capture,
    tracking: Tracking,
    /// Device and inode of the namespace's file, if one is configured.
    namespace: Option<(u64, u64)>,
    next: Uptime,
    /// When connections were last known to be tracked and reported.
    on: Wall,
    /// No gap of the time since then is stated before this.
    next_gap: Uptime,
    /// Whether events are switched off.
    silent: bool,
    /// The flowtables already named in the log, and the time of the last check.
    uncounted: Vec<String>,
    looked: Wall,
    statistics: Statistics,
    table_full: Tally,
    insert_failed: Tally,
    undecoded: Tally,
    ports: Ports,
    full: bool,
    nearly_full: bool,
    failing: bool,
}

/// A counter of losses, and the losses that are not in a gap yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    cause: GapCause,
    /// The last value of the counter, and when it was read.
    counted: u32,
    read: Wall,
    /// The losses that are in no gap yet, and the time before the first.
    lost: u64,
    since: Wall,
    /// No gap is stated before this time.
    next: Uptime,
}

impl Watch {
    /// The nftables table must exist already.
    pub fn new(whole: &Config, engine: &mut Engine, now: Now) -> io::Result<Self> {
        let config = &whole.capture;
        let mut tracking = within(config.namespace.as_ref(), Tracking::open)??;
        let statistics = tracking.statistics()?;
        let mut this = Self {
            config: config.clone(),
            tracking,
            namespace: identity_of(config)?,
            next: now.up.saturating_add(INTERVAL),
            on: now.wall,
            next_gap: now.up,
            silent: false,
            uncounted: Vec::new(),
            looked: Wall::default(),
            statistics,
            table_full: Tally::new(GapCause::TableFull, table_full(&statistics), now),
            insert_failed: Tally::new(GapCause::InsertFailed, statistics.drops.insert_failed, now),
            undecoded: Tally::new(GapCause::Undecoded, 0, now),
            ports: Ports::new(&whole.monitors, config, now),
            full: false,
            nearly_full: false,
            failing: false,
        };
        // Before the first event is handled: it may have counters that are false.
        let looked = this.check_flowtables(engine, now);
        this.tell(looked);
        Ok(this)
    }

    /// Other keys that matter here take a restart.
    pub fn reconfigure(&mut self, monitors: &[config::Monitor], engine: &mut Engine, now: Now) {
        self.ports.reconfigure(monitors, &self.config, engine, now);
    }

    pub const fn poll_timeout(&self) -> Uptime {
        self.next
    }

    /// `malformed` is the number of messages that could not be decoded since the start.
    ///
    /// # Errors
    /// When the daemon cannot go on: its network namespace is no longer the one of that name.
    pub fn handle_timeout(
        &mut self,
        engine: &mut Engine,
        malformed: u64,
        now: Now,
    ) -> io::Result<()> {
        if now.up < self.next {
            return Ok(());
        }
        self.next = now.up.saturating_add(INTERVAL);
        self.check_namespace()?;
        self.check_decoded(engine, malformed, now);
        self.check_pending(engine, now);
        self.ports.look(engine, now);
        let looked = self.look(engine, now);
        self.tell(looked);
        Ok(())
    }

    /// States the last gaps, as no other follows.
    pub fn finish(&mut self, engine: &mut Engine, malformed: u64, now: Now) {
        for tally in [
            &mut self.table_full,
            &mut self.insert_failed,
            &mut self.undecoded,
        ] {
            tally.hurry(now);
        }
        self.ports.finish(engine, now);
        self.next_gap = now.up;
        self.check_decoded(engine, malformed, now);
        // The namespace may be gone by now.
        let _ = self.look(engine, now);
    }

    /// Compares the progress of the two clocks from `before` to `now`.
    pub fn check_clock(&self, engine: &mut Engine, before: Now, now: Now) {
        let expected = before
            .wall
            .saturating_add(now.up.saturating_since(before.up));
        let ahead = now.wall.saturating_since(expected);
        let behind = expected.saturating_since(now.wall);
        if ahead.max(behind) < STEP {
            return;
        }
        let direction = if ahead > behind { "ahead" } else { "back" };
        log::warn!("the clock was set {direction} by {:?}", ahead.max(behind));
        engine.state_gap(Gap {
            cause: GapCause::ClockStep,
            from: expected,
            to: now.wall,
            lost: None,
        });
    }

    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    fn look(&mut self, engine: &mut Engine, now: Now) -> io::Result<()> {
        self.check_tracking(engine, now)?;
        self.statistics = self.tracking.statistics()?;
        let insert_failed = self.statistics.drops.insert_failed;
        let gaps = [
            self.table_full.count(table_full(&self.statistics), now),
            self.insert_failed.count(insert_failed, now),
        ];
        for gap in gaps.into_iter().flatten() {
            engine.state_gap(gap);
        }
        self.check_size();
        // At the end: where it fails, losses are counted all the same.
        self.check_flowtables(engine, now)
    }

    fn tell(&mut self, looked: io::Result<()>) {
        match (looked, self.failing) {
            (Err(error), false) => {
                self.failing = true;
                log::warn!("cannot watch connection tracking: {error}; trying again every second");
            }
            (Ok(()), true) => {
                self.failing = false;
                log::info!("connection tracking can be watched again");
            }
            _ => {}
        }
    }

    fn check_decoded(&mut self, engine: &mut Engine, malformed: u64, now: Now) {
        if malformed > 0 && self.undecoded.counted == 0 {
            log::warn!(
                "the kernel sent messages that cannot be decoded, {malformed} so far: their sessions are lost, and each such \
                 loss is in a gap record; please report it with the kernel's version"
            );
        }
        if let Some(gap) = self.undecoded.count(malformed as u32, now) {
            engine.state_gap(gap);
        }
    }

    fn check_pending(&mut self, engine: &mut Engine, now: Now) {
        let pending = engine.pending();
        if engine.is_full() && !self.full {
            self.full = true;
            log::warn!(
                "{pending} sessions are pending, as many as pending.max allows: more are logged as before, but not kept, \
                 and a crash or restart forgets them; raise pending.max if there is memory for it"
            );
        } else if self.full && pending < engine.max_pending() / 20 * 19 {
            if engine.unkept() > 0 {
                // The audit keeps those that are still there.
                engine.request_audit(now);
            } else {
                self.full = false;
                log::info!("every pending session is kept again");
            }
        }
    }

    fn check_size(&mut self) {
        let Statistics {
            entries,
            max_entries,
            ..
        } = self.statistics;
        let (entries_10, max) = (u64::from(entries) * 10, u64::from(max_entries));
        if max_entries != 0 && !self.nearly_full && entries_10 >= max * 9 {
            self.nearly_full = true;
            log::warn!(
                "the connection table is nearly full: {entries} of {max_entries} entries; beyond that new connections \
                 are dropped: raise net.netfilter.nf_conntrack_max"
            );
        } else if self.nearly_full && entries_10 < max * 8 {
            self.nearly_full = false;
            log::info!("the connection table has room again: {entries} of {max_entries} entries");
        }
    }

    fn check_tracking(&mut self, engine: &mut Engine, now: Now) -> io::Result<()> {
        let table = &self.config.table;
        let mut was_on = !self.silent;
        if !self.tracking.has_rule(table, nftables::CHAIN)? {
            was_on = false;
            within(self.config.namespace.as_ref(), || nftables::install(table))??;
            log::warn!(
                "the nftables table \"inet {table}\", or the rule in it, was removed; nattrail restored it: connection \
                 tracking may have been off"
            );
        }
        let is_silent = !self.tracking.has_events()?;
        if std::mem::replace(&mut self.silent, is_silent) != is_silent {
            was_on = false;
            self.next_gap = now.up;
            if is_silent {
                log::error!(
                    "net.netfilter.nf_conntrack_events: expected 1, found 0: connections that begin now are not reported and \
                     appear only as a gap; set it to 1 again"
                );
                if self.config.set_sysctls {
                    let settings = Path::new(sysctl::DIRECTORY);
                    within(self.config.namespace.as_ref(), || switch_on(settings))?;
                }
            } else {
                log::info!("connections that begin are reported again");
            }
        }
        if was_on {
            self.on = now.wall;
        } else if now.up >= self.next_gap {
            self.next_gap = now.up.saturating_add(TALLY);
            let from = std::mem::replace(&mut self.on, now.wall);
            engine.handle_gap(
                Gap {
                    cause: GapCause::TrackingOff,
                    from,
                    to: now.wall.max(from),
                    lost: None,
                },
                now,
            );
        }
        Ok(())
    }

    fn check_flowtables(&mut self, engine: &mut Engine, now: Now) -> io::Result<()> {
        let found = self.tracking.uncounted_flowtables()?;
        let before = std::mem::replace(&mut self.looked, now.wall);
        engine.handle_uncounted(!found.is_empty(), before, now.wall);
        for name in found.iter().filter(|name| !self.uncounted.contains(name)) {
            log::warn!("nftables flowtable \"{name}\": {UNCOUNTED}; {COUNT}");
        }
        if found.is_empty() && !self.uncounted.is_empty() {
            log::info!(
                "no flowtable is without counter any more: sessions that begin now have counters"
            );
        }
        self.uncounted = found;
        Ok(())
    }

    fn check_namespace(&self) -> io::Result<()> {
        if self.namespace.is_none() || identity_of(&self.config).ok() == Some(self.namespace) {
            return Ok(());
        }
        Err(io::Error::other(
            "the network namespace of capture.namespace was removed or made anew: start nattrail again",
        ))
    }
}

impl Tally {
    pub(super) const fn new(cause: GapCause, counted: u32, now: Now) -> Self {
        Self {
            cause,
            counted,
            read: now.wall,
            lost: 0,
            since: now.wall,
            next: Uptime::from_nanos(0),
        }
    }

    /// The counter begins anew. Losses so far stay.
    pub(super) const fn restart(&mut self, counted: u32, now: Now) {
        self.counted = counted;
        self.read = now.wall;
    }

    /// No gap waits any longer.
    pub(super) const fn hurry(&mut self, now: Now) {
        self.next = now.up;
    }

    /// Takes note of the value of the counter, which wraps at 32 bits. Returns the gap that is due.
    pub(super) fn count(&mut self, counted: u32, now: Now) -> Option<Gap> {
        let lost = counted.wrapping_sub(self.counted).cast_signed();
        let since = std::mem::replace(&mut self.read, now.wall);
        // The difference of two counters that are not read at one moment may go back for a while.
        if lost > 0 {
            if self.lost == 0 {
                self.since = since;
            }
            self.lost += u64::from(lost.unsigned_abs());
            self.counted = counted;
        }
        if self.lost == 0 || now.up < self.next {
            return None;
        }
        self.next = now.up.saturating_add(TALLY);
        Some(Gap {
            cause: self.cause,
            from: self.since,
            to: now.wall.max(self.since),
            lost: Some(std::mem::take(&mut self.lost)),
        })
    }
}

/// A packet whose insertion failed also counts as dropped.
const fn table_full(statistics: &Statistics) -> u32 {
    let drops = statistics.drops;
    drops.all.wrapping_sub(drops.insert_failed)
}

fn identity_of(config: &config::Capture) -> io::Result<Option<(u64, u64)>> {
    config.namespace.as_ref().map(identity).transpose()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;
    use crate::config::Config;
    use crate::engine::{Filter, Policy};

    fn at(seconds: u64) -> Now {
        Now::new(
            Wall::from_secs(1000 + seconds),
            Uptime::from_millis(seconds * 1000),
        )
    }

    /// The kernel answers this thread's questions about flowtables with EPERM.
    #[test]
    fn flowtables_that_cannot_be_listed_do_not_keep_the_daemon_from_watching() {
        let config = Config::default();
        let (filter, policy) = (Filter::new(config.selections()), Policy::new(&config));
        let mut engine = Engine::new(filter, policy, at(0));
        // The capabilities of a thread go with it.
        let watch = std::thread::spawn(move || {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, sets).unwrap();
            Watch::new(&config, &mut engine, at(0)).map(|watch| watch.failing)
        });
        assert!(watch.join().unwrap().unwrap());
    }

    #[test]
    fn drops_are_one_gap_at_once_and_then_one_per_ten_seconds() {
        // Just before the counter wraps.
        let mut counter = u32::MAX - 3;
        let mut tally = Tally::new(GapCause::TableFull, counter, at(0));
        let mut gaps = Vec::new();
        for second in 1..=25 {
            counter = counter.wrapping_add(u32::from(second <= 15));
            gaps.extend(tally.count(counter, at(second)));
        }
        let gaps: Vec<_> = gaps
            .iter()
            .map(|gap| (gap.from.as_secs() - 1000, gap.to.as_secs() - 1000, gap.lost))
            .collect();
        assert_eq!(
            gaps,
            [(0, 1, Some(1)), (1, 11, Some(10)), (11, 21, Some(4))]
        );
    }

    #[test]
    fn messages_that_could_not_be_decoded_become_a_gap_since_the_last_look() {
        let mut undecoded = Tally::new(GapCause::Undecoded, 0, at(0));
        assert_eq!(undecoded.count(0, at(1)), None);
        let gap = Gap {
            cause: GapCause::Undecoded,
            from: at(1).wall,
            to: at(2).wall,
            lost: Some(3),
        };
        assert_eq!(undecoded.count(3, at(2)), Some(gap));
        assert_eq!(undecoded.count(3, at(20)), None);
    }
}
