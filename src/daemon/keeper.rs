//! Keeping the database: opening it, one commit per flush, and going on when the disk fails.
//!
//! A damaged database is set aside and a new one begun. One that is not available (disk full, read-only, another
//! program's) is tried again at each flush, and the daemon goes on without it: records leave from memory, and only a crash
//! would cost those that have not left. Both are logged as the state changes, not per attempt.
//!
//! A commit holds the pending sessions, the records and the places of the outputs as they are at one moment. Records leave
//! only after it, so that a crash repeats the records that left since the last commit, with the same ids and times, and no
//! others.

use std::thread;
use std::time::Duration;

use super::clock;
use super::outputs::Outputs;
use super::takeover::Left;
use crate::config;
use crate::engine::Engine;
use crate::metrics;
use crate::place::{Place, Serial, Span};
use crate::session::{Gap, GapCause, Record};
use crate::store::record_log::{Reading, RecordLog};
use crate::store::{self, Commit, Error, LastRun, Places, Store, Stored};
use crate::time::{Now, Uptime, Wall};

/// A commit is made before its time when so many records wait for it: it must not hold up the loop for long, and a
/// commit in pieces would not be of one moment.
const MANY_RECORDS: u64 = 1 << 17;
/// The same for pending sessions that the database has to learn of.
const MANY_CHANGES: usize = (1 << 16) - 4096;
/// How long a commit waits for a checkpoint before records leave without it, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(10);
const BUSY_RETRY: Duration = Duration::from_millis(5);
/// Blocks of the log that one commit gives up for want of room, beside as many as it writes.
const MAX_EVICTED: usize = 8;

pub struct Keeper {
    pending: config::Pending,
    bounds: config::Log,
    store: Option<Store>,
    log: RecordLog,
    /// Whether the engine has the sessions that an earlier run left. Those of a store that is opened later are not taken
    /// over.
    restored: bool,
    /// Whether the last attempt to open or to write failed.
    failing: bool,
    /// Whether this run has made a commit.
    has_committed: bool,
    next_flush: Uptime,
    last_flush: Uptime,
    /// A checkpoint is under way, and no commit is tried before.
    not_before: Uptime,
    /// Since when events have been heard in this run.
    listening_since: Wall,
    /// Cookie of the socket that it listens with.
    socket: Option<u64>,
    places: Places,
    statistics: metrics::Store,
}

/// The database, opened but not read yet: the state that the last run left decides which event socket is used.
pub struct Opened {
    store: Result<(Store, LastRun, Places), Error>,
    heartbeat: Option<Wall>,
}

impl Opened {
    /// # Errors
    /// Only when another daemon is using the database ([`Error::Locked`]).
    pub fn open(config: &config::Pending) -> Result<Self, Error> {
        let heartbeat = store::heartbeat(&config.database);
        let store = Store::open(&config.database).and_then(|store| {
            let (last_run, places) = (store.last_run()?, store.places()?);
            Ok((store, last_run, places))
        });
        match store {
            Err(error @ Error::Locked { .. }) => Err(error),
            store => Ok(Self { store, heartbeat }),
        }
    }

    #[must_use]
    pub fn left(&self) -> Left {
        Left {
            run: self.store.as_ref().ok().map(|(_, last_run, _)| *last_run),
            heartbeat: self.heartbeat,
        }
    }
}

/// How events are heard in this run.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    pub since: Wall,
    /// Cookie of the socket, if the kernel told.
    pub socket: Option<u64>,
}

impl Keeper {
    /// Gives the sessions of the database back to the engine, and the places of the outputs to the caller.
    #[must_use]
    pub fn new(
        config: &config::Config,
        opened: Opened,
        listening: Listening,
        engine: &mut Engine,
        now: Now,
    ) -> (Self, Places) {
        let mut this = Self {
            pending: config.pending.clone(),
            bounds: config.log.clone(),
            store: None,
            log: RecordLog::new(Serial(1)),
            restored: false,
            failing: false,
            has_committed: false,
            next_flush: now.up,
            last_flush: now.up,
            not_before: now.up,
            listening_since: listening.since,
            socket: listening.socket,
            places: Places::new(),
            statistics: metrics::Store::default(),
        };
        let places = match opened.store {
            Ok((store, last_run, places)) => {
                this.log = RecordLog::new(last_run.next);
                // If it is damaged, its log goes with it: outputs find that their records are gone.
                this.restore(store, engine, now);
                places
            }
            Err(Error::Damaged { reason, .. }) => {
                this.restored = true;
                this.replace(engine, None, &reason, now);
                Places::new()
            }
            Err(error) => {
                this.note_failure(&error);
                Places::new()
            }
        };
        engine.request_audit(now);
        (this, places)
    }

    /// Whether the sessions of the last run have been restored, all of them.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.store.is_some() && self.statistics.set_aside == 0
    }

    /// Applies a changed interval and changed bounds; another database needs a restart.
    pub fn reconfigure(&mut self, config: &config::Config) {
        self.pending.flush = config.pending.flush;
        self.pending.ttl = config.pending.ttl;
        self.bounds = config.log.clone();
    }

    /// Adds a record to the log.
    pub fn push(&mut self, record: &Record) {
        self.log.push(record);
    }

    /// The log, for those that follow it.
    pub const fn reading(&mut self) -> Reading<'_> {
        Reading {
            log: &mut self.log,
            store: self.store.as_ref(),
        }
    }

    #[must_use]
    pub const fn log(&self) -> &RecordLog {
        &self.log
    }

    /// Octets of the log in the database.
    #[must_use]
    pub fn log_octets(&self) -> u64 {
        self.store.as_ref().map_or(0, Store::log_octets)
    }

    #[must_use]
    pub fn poll_timeout(&self) -> Uptime {
        self.next_flush.max(self.not_before)
    }

    /// Commits when the interval has passed or much waits for it. `heard` is until when the kernel has been heard.
    pub fn handle_timeout(
        &mut self,
        engine: &mut Engine,
        outputs: &mut Outputs,
        heard: Wall,
        now: Now,
    ) {
        let is_much =
            self.log.waiting() >= MANY_RECORDS || engine.changes_waiting() >= MANY_CHANGES;
        let is_due = now.up >= self.next_flush || is_much && !self.failing;
        if !is_due || now.up < self.not_before {
            return;
        }
        let is_patient = now.up < self.next_flush.saturating_add(PATIENCE);
        if is_patient && self.store.as_ref().is_some_and(Store::is_busy) {
            self.not_before = now.up.saturating_add(BUSY_RETRY);
        } else if self.commit(engine, outputs, heard, None, now) {
            self.next_flush = now.up;
        }
    }

    /// Commits all there is, now.
    pub fn flush(&mut self, engine: &mut Engine, outputs: &mut Outputs, heard: Wall, now: Now) {
        self.wait_for_checkpoint();
        while self.commit(engine, outputs, heard, None, now) {}
    }

    /// The last commit of a run that ends as planned. `drops` are those of the event socket that are in a gap. Says whether
    /// the database has it: if not, the next run must not rely on the socket.
    pub fn finish(
        &mut self,
        engine: &mut Engine,
        outputs: &mut Outputs,
        heard: Wall,
        drops: u32,
        now: Now,
    ) -> bool {
        self.wait_for_checkpoint();
        while self.commit(engine, outputs, heard, Some(drops), now) {}
        self.store.is_some() && !self.failing
    }

    #[must_use]
    pub const fn statistics(&self) -> &metrics::Store {
        &self.statistics
    }

    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failing
    }

    /// For the begin and the end of a run, which have nothing else to do.
    fn wait_for_checkpoint(&self) {
        let begun = clock::uptime();
        while self.store.as_ref().is_some_and(Store::is_busy)
            && clock::uptime().saturating_since(begun) < PATIENCE
        {
            thread::sleep(BUSY_RETRY);
        }
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
        self.next_flush = now.up.saturating_add(self.pending.flush);
        let since = now.up.saturating_since(self.last_flush);
        self.last_flush = now.up;
        self.open_late(engine, outputs, now);
        self.log.close_block();
        let needed = outputs.needed(self.log.next());
        if self.store.is_some() {
            let begun = clock::uptime();
            let (result, more) = self.write(engine, outputs, heard, stopped, now);
            let took = clock::uptime().saturating_since(begun);
            let longest = &mut self.statistics.longest_commit_microseconds;
            *longest = metrics::micros(took).max(*longest);
            self.statistics.commit_histogram.count(took);
            match result {
                Ok(()) => {
                    self.statistics.commits += 1;
                    self.has_committed = true;
                    self.log.handle_stored(needed, since);
                    self.note_success();
                    return more;
                }
                Err(Error::Damaged { reason, .. }) => {
                    self.replace(engine, Some(outputs), &reason, now);
                }
                Err(error @ Error::Gone { .. }) => {
                    log::error!("{error}: a new one is begun");
                    // With its lock, before the new one is locked.
                    self.store = None;
                    self.begin_anew(engine, outputs, now);
                }
                Err(error) => self.note_failure(&error),
            }
        } else {
            engine.handle_commit_failed();
        }
        while let Some(span) = self.log.handle_not_stored(needed, since) {
            outputs.handle_evicted(&span);
        }
        false
    }

    /// Writes all there is to the database, or the first piece of it. Says whether there is more.
    fn write(
        &mut self,
        engine: &mut Engine,
        outputs: &mut Outputs,
        heard: Wall,
        stopped: Option<u32>,
        now: Now,
    ) -> (Result<(), Error>, bool) {
        if self.store.as_ref().is_some_and(Store::is_busy) {
            engine.handle_commit_failed();
            let error = Error::Unavailable {
                path: self.pending.database.clone(),
                reason: format!("the disk has been busy for more than {PATIENCE:?}"),
            };
            return (Err(error), false);
        }
        let evicted = match self.evicted(outputs, now) {
            Ok(evicted) => evicted,
            Err(error) => {
                engine.handle_commit_failed();
                return (Err(error), false);
            }
        };
        self.places.clear();
        self.places.extend(outputs.places().map(|(key, place)| {
            let spans = evicted.iter().map(|stored| &stored.span);
            (key.to_owned(), spans.fold(place, Place::without))
        }));
        let changes = engine.changes();
        let commit = Commit {
            changes: &changes,
            blocks: self.log.unstored().collect(),
            evicted: &evicted,
            places: &self.places,
            needed: outputs.needed(self.log.next()),
            next: self.log.next(),
            heard,
            socket: self.socket,
            // A stop is planned once the database holds all there is: killed before, the next run must not rely on it.
            stopped: stopped.filter(|_| changes.whole),
            durable: !self.has_committed || stopped.is_some(),
        };
        let result = match &mut self.store {
            Some(store) => store.commit(&commit),
            None => Ok(()),
        };
        let more = result.is_ok() && engine.handle_committed();
        if result.is_err() {
            engine.handle_commit_failed();
        } else {
            // Not before: what a failed commit was to delete is still there.
            for stored in &evicted {
                self.log.handle_evicted(stored.span.end);
                outputs.handle_evicted(&stored.span);
            }
        }
        (result, more)
    }

    /// The blocks that have to go although not every output has taken them.
    fn evicted(&self, outputs: &Outputs, now: Now) -> Result<Vec<Stored>, Error> {
        let Some(store) = self.store.as_ref().filter(|store| store.log_octets() > 0) else {
            return Ok(Vec::new());
        };
        let fresh: Vec<usize> = self.log.unstored().map(|block| block.bytes.len()).collect();
        let mut octets = store.log_octets() + fresh.iter().sum::<usize>() as u64;
        let needed = outputs.needed(self.log.next());
        let oldest_time = now.wall.saturating_sub(self.bounds.age);
        let mut evicted = Vec::new();
        for stored in store.oldest_blocks(fresh.len() + MAX_EVICTED)? {
            let is_needed = stored.span.end > needed;
            if is_needed && octets <= self.bounds.size && stored.span.until >= oldest_time {
                break;
            }
            octets = octets.saturating_sub(stored.octets);
            if is_needed {
                evicted.push(stored);
            }
        }
        Ok(evicted)
    }

    /// Opens a database that was not there before.
    fn open_late(&mut self, engine: &mut Engine, outputs: &mut Outputs, now: Now) {
        if self.store.is_some() {
            return;
        }
        if self.restored {
            return self.begin_anew(engine, outputs, now);
        }
        match Opened::open(&self.pending).and_then(|opened| opened.store) {
            Ok((mut store, last_run, places)) => {
                // Its serials are not those of this run: this run's records are written in the place of its own.
                if let Err(error) = store.clear_log() {
                    return self.note_failure(&error);
                }
                if let Some(gap) = untaken(&last_run, &places) {
                    engine.state_gap(gap);
                }
                if self.restore(store, engine, now) {
                    self.state_gap(engine, last_run.heard, now);
                    engine.request_audit(now);
                }
            }
            Err(Error::Damaged { reason, .. }) => {
                self.restored = true;
                self.replace(engine, Some(outputs), &reason, now);
            }
            Err(error) => self.note_failure(&error),
        }
    }

    /// Goes on with the sessions that the database holds. A damaged one is replaced. Returns whether it was sound.
    fn restore(&mut self, mut store: Store, engine: &mut Engine, now: Now) -> bool {
        let mut count = 0_u64;
        let loaded = store.load(|session| {
            count += 1;
            engine.restore(session);
        });
        self.restored = true;
        match loaded {
            Ok(()) => {
                self.store = Some(store);
                engine.handle_store_opened();
                self.note_success();
                log::info!(
                    "database \"{}\": {count} sessions of an earlier run",
                    self.pending.database.display()
                );
                true
            }
            Err(error) => {
                drop(store);
                let reason = match error {
                    Error::Damaged { reason, .. } => reason,
                    other => other.to_string(),
                };
                self.replace(engine, None, &reason, now);
                false
            }
        }
    }

    /// States that records may be missing between `from`, until when an earlier run listened, and the start of this one.
    pub fn state_gap(&self, engine: &mut Engine, from: Option<Wall>, now: Now) {
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
                "records from {from} to {to} may be missing: nattrail did not run, or was ended before it had written them down"
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

    /// Sets a damaged database aside and begins a new one with the sessions that are pending now.
    fn replace(
        &mut self,
        engine: &mut Engine,
        outputs: Option<&mut Outputs>,
        reason: &str,
        now: Now,
    ) {
        let path = self.pending.database.clone();
        self.store = None;
        let fresh = store::set_aside(&path, "damaged", now.wall)
            .map_err(|error| error.to_string())
            .and_then(|aside| {
                self.statistics.set_aside += 1;
                log::error!(
                    "database \"{}\" is damaged ({reason}): set aside as \"{}\", a new one is begun; ends of sessions and \
                     records that only it knew are lost",
                    path.display(),
                    aside.display()
                );
                Store::open(&path).map_err(|error| error.to_string())
            });
        match fresh {
            Ok(store) => self.go_on_with(store, engine, outputs, now),
            Err(error) => {
                let reason = format!("{reason}; it could not be replaced: {error}");
                self.note_failure(&Error::Damaged { path, reason });
            }
        }
    }

    /// Writes the pending sessions to a database that is empty. One that is not, because somebody put it in the place of
    /// this run's or because it is this run's own, moved away and back, is set aside: all that counts is in memory.
    fn begin_anew(&mut self, engine: &mut Engine, outputs: &mut Outputs, now: Now) {
        let path = self.pending.database.clone();
        let opened = Store::open(&path).and_then(|store| {
            if store.last_run()?.heard.is_none() {
                return Ok(store);
            }
            drop(store);
            let aside = store::set_aside(&path, "replaced", now.wall);
            let aside = aside.map_err(|error| Error::Unavailable {
                path: path.clone(),
                reason: format!("the file in its place could not be set aside: {error}"),
            })?;
            log::warn!(
                "the file that was in the place of the database is now \"{}\"",
                aside.display()
            );
            Store::open(&path)
        });
        match opened {
            Ok(store) => {
                self.go_on_with(store, engine, Some(outputs), now);
                self.note_success();
            }
            Err(Error::Damaged { reason, .. }) => self.replace(engine, Some(outputs), &reason, now),
            Err(error) => self.note_failure(&error),
        }
    }

    /// Goes on with an empty database: the records that only the one before had are lost.
    fn go_on_with(
        &mut self,
        store: Store,
        engine: &mut Engine,
        outputs: Option<&mut Outputs>,
        now: Now,
    ) {
        self.store = Some(store);
        engine.handle_store_replaced();
        let first = self.log.handle_store_replaced();
        if let Some(outputs) = outputs {
            let needed = outputs.needed(first);
            let span = Span {
                first: needed,
                end: first,
                // Their own times are gone with them.
                since: self.listening_since,
                until: now.wall,
            };
            outputs.handle_evicted(&span);
        }
    }

    fn note_failure(&mut self, error: &Error) {
        self.statistics.failed += 1;
        if !self.failing {
            self.failing = true;
            log::error!(
                "{error}; records leave from memory, but a crash would lose those that wait and forget which sessions are open; \
                 trying again every {:?}",
                self.pending.flush
            );
        }
    }

    fn note_success(&mut self) {
        if self.failing {
            self.failing = false;
            log::info!(
                "database \"{}\" is available again",
                self.pending.database.display()
            );
        }
    }
}

/// The records of a log that is given up, as far as the output that is furthest behind has not taken them.
fn untaken(last_run: &LastRun, places: &Places) -> Option<Gap> {
    let behind = |place: &Place| last_run.next.0.saturating_sub(place.position.serial.0);
    let most = places.iter().map(|(_, place)| behind(place)).max()?;
    let until = last_run.heard.unwrap_or_default();
    (most > 0).then_some(Gap {
        cause: GapCause::Undelivered,
        from: until,
        to: until,
        lost: Some(most),
    })
}
