//! Keeping the store: opening it, one commit per flush, and what to do when the disk fails.
//!
//! A damaged database is set aside and a new one begun. One that is not available (disk full, read-only) is tried again
//! at each flush, and the daemon goes on without: records leave as before, only a crash would cost the early state. Both
//! are logged as the state changes, not per attempt.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::clock;
use crate::config;
use crate::engine::Engine;
use crate::session::{Gap, GapCause};
use crate::store::{self, Error, Store};
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
    /// Whether the last attempt to open or to write failed.
    failing: bool,
    next_flush: Uptime,
    /// Since when events have been heard in this run.
    listening_since: Wall,
    statistics: Statistics,
}

impl Keeper {
    /// Opens the store and gives its sessions back to the engine.
    ///
    /// # Errors
    /// Only when the database is not for this daemon to use ([`Error::Refused`]).
    pub fn open(config: &config::Pending, engine: &mut Engine, now: Now) -> Result<Self, Error> {
        let mut this = Self {
            config: config.clone(),
            store: None,
            failing: false,
            next_flush: now.up.saturating_add(config.flush),
            listening_since: now.wall,
            statistics: Statistics::default(),
        };
        this.try_open(engine, now)?;
        Ok(this)
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
    pub fn handle_timeout(&mut self, engine: &mut Engine, now: Now) {
        if now.up >= self.next_flush {
            self.flush(engine, now);
        }
    }

    /// Commits now.
    pub fn flush(&mut self, engine: &mut Engine, now: Now) {
        self.next_flush = now
            .up
            .saturating_add(self.config.flush.max(Duration::from_millis(1)));
        if self.store.is_none()
            && let Err(error) = self.try_open(engine, now)
        {
            self.note_failure(&error);
        }
        let Some(store) = &mut self.store else {
            engine.handle_commit_failed();
            return;
        };
        let begun = clock::uptime();
        let result = store.commit(&engine.changes(), now.wall);
        let took = clock::uptime().saturating_since(begun);
        self.statistics.longest_commit = self.statistics.longest_commit.max(took);
        match result {
            Ok(()) => {
                self.statistics.commits += 1;
                if engine.handle_committed() {
                    self.next_flush = now.up;
                }
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

    /// Opens the database, or notes that it is not available.
    fn try_open(&mut self, engine: &mut Engine, now: Now) -> Result<(), Error> {
        let modified = modified(&self.config.database);
        let mut store = match Store::open(&self.config.database) {
            Ok(store) => store,
            Err(Error::Damaged { reason, .. }) => {
                self.replace(engine, &reason, now);
                self.state_gap(engine, modified, now);
                return Ok(());
            }
            Err(error @ Error::Refused { .. }) => return Err(error),
            Err(error) => {
                self.note_failure(&error);
                return Ok(());
            }
        };
        let last_commit = store.last_commit();
        let mut count = 0_u64;
        let loaded = store.load(|session| {
            count += 1;
            engine.restore(session);
        });
        match loaded.and(last_commit) {
            Ok(last_commit) => {
                self.store = Some(store);
                engine.handle_store_opened();
                self.note_success();
                log::info!(
                    "pending database \"{}\": {count} sessions of an earlier run",
                    self.config.database.display()
                );
                self.state_gap(engine, last_commit, now);
                engine.request_audit(now);
            }
            Err(Error::Damaged { reason, .. }) => {
                drop(store);
                self.replace(engine, &reason, now);
                self.state_gap(engine, modified, now);
            }
            Err(error) => self.note_failure(&error),
        }
        Ok(())
    }

    /// States that nobody listened between `from`, when an earlier run last wrote, and the start of this one.
    fn state_gap(&self, engine: &mut Engine, from: Option<Wall>, now: Now) {
        if let Some(from) = from {
            let gap = Gap {
                cause: GapCause::Restart,
                from,
                to: self.listening_since.max(from),
                lost: None,
            };
            engine.handle_gap(gap, now);
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

/// When a file was last written to.
fn modified(path: &Path) -> Option<Wall> {
    let time = fs::metadata(path).ok()?.modified().ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Wall::from_nanos(u64::try_from(since.as_nanos()).ok()?))
}
