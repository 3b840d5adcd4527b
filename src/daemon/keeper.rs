//! Keeping the store: opening it, one commit per flush, and what to do when the disk fails.
//!
//! A damaged database is set aside and a new one begun. One that is not available (disk full, read-only) is tried again
//! at each flush, and the daemon goes on without: records leave as before, only a crash would cost the early state. Both
//! are logged as the state changes, not per attempt.
//!
//! It also decides what there is to say of the time between two runs: nothing when the last one ended as planned and its
//! event socket was kept; else a gap.

use std::time::Duration;

use super::outputs::Outputs;
use super::takeover::Listening;
use crate::config;
use crate::engine::Engine;
use crate::session::{Gap, GapCause};
use crate::store::{self, Error, Export, LastRun, Run, Store};
use crate::time::{Now, Uptime};

/// Counts since the start of the daemon.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    pub commits: u64,
    pub failed: u64,
    /// Damaged databases set aside.
    pub set_aside: u64,
}

pub struct Keeper {
    config: config::Pending,
    store: Option<Store>,
    /// Whether the last attempt to open or to write failed.
    failing: bool,
    next_flush: Uptime,
    listening: Listening,
    /// Of the last run, for the outputs to go on from.
    exports: Vec<Export>,
    statistics: Statistics,
}

/// The store, opened but not read: what the last run left decides which event socket is used.
pub struct Opened(Result<(Store, LastRun), Error>);

impl Opened {
    /// # Errors
    /// Only when the database is not for this daemon to use ([`Error::Refused`]).
    pub fn open(config: &config::Pending) -> Result<Self, Error> {
        let opened = Store::open(&config.database).and_then(|store| {
            let last_run = store.last_run()?;
            Ok((store, last_run))
        });
        match opened {
            Err(error @ Error::Refused { .. }) => Err(error),
            other => Ok(Self(other)),
        }
    }

    /// [Cookie](LastRun::socket) of the event socket of the last run, if that is known.
    #[must_use]
    pub fn last_socket(&self) -> Option<u64> {
        self.0.as_ref().ok()?.1.socket
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
            failing: false,
            next_flush: now.up.saturating_add(config.flush),
            listening,
            exports: Vec::new(),
            statistics: Statistics::default(),
        };
        this.restore(opened, engine, now);
        // It is over with that: a store that can only be opened later finds the gap that its run has made.
        this.listening.taken_over = None;
        this
    }

    /// How far the collectors had been served when the last run ended.
    #[must_use]
    pub fn take_exports(&mut self) -> Vec<Export> {
        std::mem::take(&mut self.exports)
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

    /// Commits when the interval has passed.
    pub fn handle_timeout(&mut self, engine: &mut Engine, outputs: &Outputs, now: Now) {
        if now.up >= self.next_flush {
            self.flush(engine, outputs, None, now);
        }
    }

    /// Commits now. With `stopped`, the drops of the event socket that have been made a gap, this is the end of the run as
    /// planned.
    pub fn flush(
        &mut self,
        engine: &mut Engine,
        outputs: &Outputs,
        stopped: Option<u32>,
        now: Now,
    ) {
        self.next_flush = now
            .up
            .saturating_add(self.config.flush.max(Duration::from_millis(1)));
        if self.store.is_none() {
            match Opened::open(&self.config) {
                Ok(opened) => self.restore(opened, engine, now),
                Err(error) => self.note_failure(&error),
            }
        }
        self.exports.clear();
        self.exports.extend(outputs.exports());
        let Some(store) = &mut self.store else {
            engine.handle_commit_failed();
            return;
        };
        let run = Run {
            socket: self.listening.socket,
            stopped,
            exports: &self.exports,
        };
        match store.commit(&engine.changes(), &run, now.wall) {
            Ok(()) => {
                self.statistics.commits += 1;
                engine.handle_committed();
                self.note_success();
            }
            Err(Error::Damaged { reason, .. }) => {
                engine.handle_commit_failed();
                self.replace(engine, &reason, now);
            }
            Err(error) => {
                engine.handle_commit_failed();
                self.note_failure(&error);
            }
        }
    }

    #[must_use]
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failing
    }

    /// Goes on from what the store holds, or notes that it is not available.
    fn restore(&mut self, Opened(opened): Opened, engine: &mut Engine, now: Now) {
        let loaded = opened.and_then(|(store, last_run)| {
            let mut count = 0_u64;
            store.load(|session| {
                count += 1;
                engine.restore(session);
            })?;
            log::info!(
                "pending database \"{}\": {count} sessions of an earlier run",
                self.config.database.display()
            );
            Ok((store, last_run))
        });
        match loaded {
            Ok((store, last_run)) => {
                self.note_success();
                self.go_on(store, last_run, engine, now);
            }
            Err(Error::Damaged { reason, .. }) => self.replace(engine, &reason, now),
            Err(error) => return self.note_failure(&error),
        }
        engine.request_audit(now);
    }

    /// Draws the conclusions from how the last run ended.
    fn go_on(&mut self, mut store: Store, last_run: LastRun, engine: &mut Engine, now: Now) {
        let run = Run {
            socket: self.listening.socket,
            ..Run::default()
        };
        let noted = store.begin_run(&run, now.wall);
        if let Err(error) = &noted {
            self.note_failure(error);
        }
        self.store = Some(store);
        // An end that could not be noted may be taken for that of this run by the next: so it does not count.
        let stopped = last_run.stopped.filter(|_| noted.is_ok());
        self.exports = last_run.exports;
        if stopped.is_none() {
            for export in &mut self.exports {
                export.past.progress = export.past.progress.leaping(now);
            }
        }
        let Some(from) = last_run.last_commit else {
            return;
        };
        let gap = |cause, lost| Gap {
            cause,
            from,
            to: now.wall.max(from),
            lost,
        };
        match (stopped, self.listening.taken_over) {
            (Some(drops), Some(kept)) if kept.drops_are_lost && kept.drops != drops => {
                let lost = kept.drops.wrapping_sub(drops);
                log::warn!(
                    "the kernel could not queue {lost} events between two runs: capture.receive-buffer was full"
                );
                engine.handle_gap(gap(GapCause::Overflow, Some(lost.into())), now);
            }
            (Some(_), Some(_)) => {
                log::info!("the event socket was kept since the last run: nothing was missed");
            }
            _ => engine.handle_gap(gap(GapCause::Restart, None), now),
        }
    }

    /// Sets a damaged database aside and begins a new one with what is pending now.
    fn replace(&mut self, engine: &mut Engine, reason: &str, now: Now) {
        let path = self.config.database.clone();
        self.store = None;
        let fresh = store::set_aside(&path, now.wall)
            .map_err(|error| error.to_string())
            .and_then(|aside| {
                self.statistics.set_aside += 1;
                log::error!(
                    "pending database \"{}\" is damaged ({reason}): set aside as \"{}\", a new one is begun; ends of \
                     sessions that only it knew are found by an audit of the connection table",
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
