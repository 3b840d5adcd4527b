//! Keeping the store: opening it, one commit per flush, and what to do when the disk fails.
//!
//! A damaged database is set aside and a new one begun. One that is not available (disk full, read-only) is tried again
//! at each flush, and the daemon goes on without: records leave as before, only a crash would cost the early state. Both
//! are logged as the state changes, not per attempt. Whether it can become available in this process at all is a matter of
//! what the daemon has confined itself to ([`super::confine`]).
//!
//! It also decides what there is to say of the time between two runs: nothing when the last one ended as planned and its
//! event socket was kept; else a gap, and an audit looks for what was missed.

use std::time::Duration;

use super::clock;
use super::outputs::Outputs;
use super::takeover::Listening;
use crate::config;
use crate::engine::Engine;
use crate::session::{Gap, GapCause};
use crate::store::{self, Error, Export, LastRun, Run, Store};
use crate::time::{Now, Uptime, Wall};

/// Counts since the start of the daemon.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    pub commits: u64,
    pub failed: u64,
    /// Damaged databases set aside.
    pub set_aside: u64,
    pub longest_commit: Duration,
}

pub struct Keeper {
    config: config::Pending,
    store: Option<Store>,
    /// Whether the engine has what an earlier run left: what a store holds that is opened later is not taken over.
    restored: bool,
    /// Whether the last attempt to open or to write failed.
    failing: bool,
    next_flush: Uptime,
    /// Since when events have been heard in this run.
    listening_since: Wall,
    listening: Listening,
    /// Until when records had been sent on as this run began.
    complete: Wall,
    /// The same as it was last committed with all that the store had to know.
    committed: Wall,
    /// Whether what was missed before is still to be looked for: a crash until then must not forget it.
    awaiting_audit: bool,
    /// How far the collectors have been served: by the last run, then by this one.
    exports: Vec<Export>,
    statistics: Statistics,
}

/// The store, opened but not read yet: what the last run left decides which event socket is used.
pub struct Opened {
    store: Result<(Store, LastRun), Error>,
    /// The same moment as in [`LastRun::last_commit`], as a file beside the database has it.
    heartbeat: Option<Wall>,
}

impl Opened {
    /// # Errors
    /// Only when the database is not for this daemon to use ([`Error::Refused`]).
    pub fn open(config: &config::Pending) -> Result<Self, Error> {
        let heartbeat = store::heartbeat(&config.database);
        let store = Store::open(&config.database).and_then(|store| {
            let last_run = store.last_run()?;
            Ok((store, last_run))
        });
        match store {
            Err(error @ Error::Refused { .. }) => Err(error),
            store => Ok(Self { store, heartbeat }),
        }
    }

    #[must_use]
    pub fn last_run(&self) -> Option<&LastRun> {
        self.store.as_ref().ok().map(|(_, last_run)| last_run)
    }
}

impl Keeper {
    /// Gives the sessions of the store back to the engine.
    #[must_use]
    pub fn new(
        config: &config::Pending,
        opened: Opened,
        listening: Listening,
        engine: &mut Engine,
        now: Now,
    ) -> Self {
        let mut this = Self {
            config: config.clone(),
            store: None,
            restored: false,
            failing: false,
            next_flush: now.up.saturating_add(config.flush),
            listening_since: now.wall,
            listening,
            complete: now.wall,
            committed: now.wall,
            awaiting_audit: false,
            exports: Vec::new(),
            statistics: Statistics::default(),
        };
        this.restore(opened, engine, now);
        if this.store.is_none() {
            engine.request_audit(now);
        }
        // A store that can only be opened later: its run ended before this one went without it.
        this.listening.kept = false;
        this
    }

    /// How far the collectors had been served when the last run ended.
    #[must_use]
    pub fn take_exports(&mut self) -> Vec<Export> {
        std::mem::take(&mut self.exports)
    }

    /// Until when records had been sent on as this run began: later only if nothing may be missing.
    #[must_use]
    pub const fn complete(&self) -> Wall {
        self.complete
    }

    /// Applies a changed interval; another database needs a restart.
    pub fn reconfigure(&mut self, config: &config::Pending) {
        self.config.flush = config.flush;
        self.config.ttl = config.ttl;
    }

    #[must_use]
    pub const fn poll_timeout(&self) -> Uptime {
        self.next_flush
    }

    /// Commits when the interval has passed. `heard` is until when the kernel has been heard.
    pub fn handle_timeout(
        &mut self,
        engine: &mut Engine,
        outputs: &mut Outputs,
        heard: Wall,
        now: Now,
    ) {
        if now.up >= self.next_flush && self.commit(engine, outputs, heard, None, now) {
            self.next_flush = now.up;
        }
    }

    /// Commits all there is, now.
    pub fn flush(&mut self, engine: &mut Engine, outputs: &mut Outputs, heard: Wall, now: Now) {
        while self.commit(engine, outputs, heard, None, now) {}
    }

    /// The last commit of a run that ends as planned. `drops` are those of the event socket that are in a gap.
    pub fn finish(
        &mut self,
        engine: &mut Engine,
        outputs: &mut Outputs,
        heard: Wall,
        drops: u32,
        now: Now,
    ) {
        while self.commit(engine, outputs, heard, Some(drops), now) {}
    }

    #[must_use]
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failing
    }

    /// Makes one commit. Returns whether there is more for another.
    fn commit(
        &mut self,
        engine: &mut Engine,
        outputs: &mut Outputs,
        heard: Wall,
        stopped: Option<u32>,
        now: Now,
    ) -> bool {
        self.next_flush = now
            .up
            .saturating_add(self.config.flush.max(Duration::from_millis(1)));
        if self.store.is_none() {
            if self.restored {
                self.begin_anew(engine, now);
            } else {
                match Opened::open(&self.config) {
                    Ok(opened) => self.restore(opened, engine, now),
                    Err(error) => self.note_failure(&error),
                }
            }
        }
        self.exports.clear();
        self.exports.extend(outputs.exports());
        let Some(store) = &mut self.store else {
            engine.handle_commit_failed();
            return false;
        };
        let changes = engine.changes();
        let run = Run {
            socket: self.listening.socket,
            // A stop is planned once the store holds all there is: killed before, the next run must not rely on it.
            stopped: stopped.filter(|_| changes.whole),
            exports: &self.exports,
        };
        let begun = clock::uptime();
        let served = outputs.served_until(heard);
        self.awaiting_audit &= !engine.has_audited();
        let complete = if self.awaiting_audit {
            self.complete
        } else if changes.whole {
            served
        } else {
            // Sessions whose records have left are not in the store as they are: whoever goes on from there repeats some, and
            // has to say so.
            self.committed
        };
        let result = store.commit(&changes, &run, complete);
        let took = clock::uptime().saturating_since(begun);
        self.statistics.longest_commit = self.statistics.longest_commit.max(took);
        match result {
            Ok(()) => {
                self.statistics.commits += 1;
                self.committed = complete;
                self.note_success();
                return engine.handle_committed();
            }
            Err(Error::Damaged { reason, .. }) => {
                engine.handle_commit_failed();
                self.replace(engine, &reason, now);
            }
            Err(error @ Error::Gone { .. }) => {
                log::error!("{error}: a new one is begun");
                // With its lock, before the new one is locked.
                self.store = None;
                self.begin_anew(engine, now);
            }
            Err(error) => {
                engine.handle_commit_failed();
                self.note_failure(&error);
            }
        }
        false
    }

    /// Goes on from what the store holds, or notes that it is not available.
    fn restore(&mut self, opened: Opened, engine: &mut Engine, now: Now) {
        let Opened { store, heartbeat } = opened;
        let mut count = 0_u64;
        let loaded = store.and_then(|(mut store, last_run)| {
            store.load(|session| {
                count += 1;
                engine.restore(session);
            })?;
            Ok((store, last_run))
        });
        match loaded {
            Ok((store, last_run)) => {
                self.restored = true;
                engine.handle_store_opened();
                self.note_success();
                log::info!(
                    "pending database \"{}\": {count} sessions of an earlier run",
                    self.config.database.display()
                );
                self.go_on(store, last_run, heartbeat, engine, now);
            }
            Err(Error::Damaged { reason, .. }) => {
                self.restored = true;
                self.replace(engine, &reason, now);
                self.state_gap(engine, heartbeat, now);
                engine.request_audit(now);
            }
            Err(error) => self.note_failure(&error),
        }
    }

    /// Draws the conclusions from how the last run ended.
    fn go_on(
        &mut self,
        mut store: Store,
        last_run: LastRun,
        heartbeat: Option<Wall>,
        engine: &mut Engine,
        now: Now,
    ) {
        let run = Run {
            socket: self.listening.socket,
            ..Run::default()
        };
        let kept = last_run.stopped.is_some() && self.listening.kept;
        if !kept && let Some(complete) = last_run.last_commit.or(heartbeat) {
            // Until the gap that is stated below has reached every output.
            self.complete = complete.min(now.wall);
            self.committed = self.complete;
        }
        let noted = store.begin_run(&run, self.complete);
        if let Err(error) = &noted {
            self.note_failure(error);
        }
        self.store = Some(store);
        // An end that could not be noted may be taken for that of this run by the next: so it does not count.
        let planned = last_run.stopped.is_some() && noted.is_ok();
        self.exports = last_run.exports;
        if !planned {
            for export in &mut self.exports {
                export.past = export.past.leaping();
            }
        }
        // Nothing was missed if the socket was kept, but the last run may have had an audit to make.
        engine.request_audit(now);
        if planned && self.listening.kept {
            log::info!("the event socket was kept since the last run");
        } else {
            if last_run.last_commit.is_none() && heartbeat.is_some() {
                log::warn!(
                    "pending database \"{}\" is empty, though there was an earlier run: ends of sessions that only it knew \
                     are lost",
                    self.config.database.display()
                );
            }
            self.awaiting_audit = true;
            self.state_gap(engine, last_run.last_commit.or(heartbeat), now);
        }
    }

    /// States that records may be missing between `from`, until when an earlier run was complete, and the start of this one.
    fn state_gap(&self, engine: &mut Engine, from: Option<Wall>, now: Now) {
        let Some(from) = from else {
            return;
        };
        let to = self.listening_since;
        if from > to {
            log::warn!(
                "an earlier run listened until {from}, which is in the future: the clock has been set back since"
            );
        } else {
            log::warn!(
                "records from {from} to {to} may be missing: nattrail did not run, or had not sent them yet when it ended"
            );
        }
        let gap = Gap {
            cause: GapCause::Restart,
            from: from.min(to),
            to,
            lost: None,
        };
        engine.handle_gap(gap, now);
    }

    /// Sets a damaged database aside and begins a new one with what is pending now.
    fn replace(&mut self, engine: &mut Engine, reason: &str, now: Now) {
        let path = self.config.database.clone();
        self.store = None;
        let fresh = store::set_aside(&path, "damaged", now.wall)
            .map_err(|error| error.to_string())
            .and_then(|aside| {
                self.statistics.set_aside += 1;
                log::error!(
                    "pending database \"{}\" is damaged ({reason}): set aside as \"{}\", a new one is begun; ends of \
                     sessions that only it knew are lost",
                    path.display(),
                    aside.display()
                );
                Store::open(&path).map_err(|error| error.to_string())
            });
        match fresh {
            Ok(store) => {
                self.store = Some(store);
                engine.handle_store_replaced();
            }
            Err(error) => {
                let reason = format!("{reason}; it could not be replaced: {error}");
                self.note_failure(&Error::Damaged { path, reason });
            }
        }
    }

    /// Writes what is pending to a database that has nothing in it yet. One that has, because it was put in the place of
    /// this run's or because it is this run's own, moved away and back, is set aside: all that counts is known.
    fn begin_anew(&mut self, engine: &mut Engine, now: Now) {
        let path = self.config.database.clone();
        let opened = Store::open(&path).and_then(|store| {
            if store.last_run()?.last_commit.is_none() {
                return Ok(store);
            }
            drop(store);
            let aside = store::set_aside(&path, "replaced", now.wall);
            let aside = aside.map_err(|error| Error::Unavailable {
                path: path.clone(),
                reason: format!("what is in its place could not be set aside: {error}"),
            })?;
            log::warn!(
                "what was in the place of the pending database is now \"{}\"",
                aside.display()
            );
            Store::open(&path)
        });
        match opened {
            Ok(store) => {
                self.store = Some(store);
                self.note_success();
                engine.handle_store_replaced();
            }
            Err(Error::Damaged { reason, .. }) => self.replace(engine, &reason, now),
            Err(error) => self.note_failure(&error),
        }
    }

    fn note_failure(&mut self, error: &Error) {
        self.statistics.failed += 1;
        if !self.failing {
            self.failing = true;
            log::error!(
                "{error}; records leave as before, but a crash would lose what is pending; trying again every {:?}",
                self.config.flush
            );
        }
    }

    fn note_success(&mut self) {
        if self.failing {
            self.failing = false;
            log::info!(
                "pending database \"{}\" is available again",
                self.config.database.display()
            );
        }
    }
}
