//! Keeping the database: opening it, one commit per flush, and going on when the disk fails.
//!
//! A damaged database is set aside and a new one begins. One that is not available (disk full, read-only, another
//! program's) is tried again at each flush, and the daemon goes on without it: records leave from memory, and only a
//! crash costs those that have not left. Both are logged when the state changes, not per attempt.
//!
//! A commit holds the pending sessions, the records and the places of the outputs of one moment. Records leave only
//! after it, so a crash repeats only the records that left since the last commit, with the same ids and times.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::clock;
use super::outputs::Outputs;
use crate::config;
use crate::engine::Engine;
use crate::metrics;
use crate::place::{Place, Serial, Span};
use crate::session::{Gap, GapCause, Record};
use crate::store::record_log::{Reading, RecordLog};
use crate::store::{self, Commit, Error, Heartbeat, LastRun, Places, Store, Stored};
use crate::time::{Now, Uptime, Wall};
use crate::wire::record::Block;

/// This many waiting records bring a commit forward: it must not hold up the loop for long, and a commit in pieces would
/// not be of one moment.
const MANY_RECORDS: u64 = 1 << 17;
/// The same for changed pending sessions.
const MANY_CHANGES: usize = (1 << 16) - 4096;
/// How long a commit waits for a checkpoint before records leave without it, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(10);
const BUSY_RETRY: Duration = Duration::from_millis(5);
/// How long the start waits for a database that is locked. After a crash, whoever opens it first has it locked while
/// reading the write-ahead log, and that may be a reader.
const OPENING: Duration = Duration::from_secs(5);
/// The least time between attempts while the database cannot be written: each also bounds the records that wait in memory.
const FAILING_PAUSE: Duration = Duration::from_secs(1);
/// Blocks that one commit evicts for want of room, beyond as many as it writes.
const MAX_EVICTED: usize = 8;

pub struct Keeper {
    pending: config::Pending,
    bounds: config::Log,
    store: Option<Store>,
    log: RecordLog,
    /// Whether the engine has the sessions of an earlier run. A store that opens after that cannot add its own.
    restored: bool,
    /// Whether the last attempt to open or to write failed.
    failing: bool,
    /// Whether the database has a commit of this run.
    has_committed: bool,
    next_flush: Uptime,
    last_flush: Uptime,
    /// No commit is tried before this time, as a checkpoint is under way.
    not_before: Uptime,
    listening: Listening,
    /// When this run began.
    run: Wall,
    statistics: metrics::Store,
}

/// A database with the state of the last run. Its sessions have not been read yet.
type Found = (Store, LastRun, Places);

/// The database at the start: the state of the last run decides on the event socket.
pub struct Opened {
    store: Result<Found, Error>,
    pub heartbeat: Option<Heartbeat>,
}

impl Opened {
    /// # Errors
    /// Only when another daemon is using the database.
    pub fn open(config: &config::Pending) -> Result<Self, super::Error> {
        let path = &config.database;
        let heartbeat = store::heartbeat(path);
        match find(path, OPENING) {
            Err(error @ Error::Locked) => {
                let path = path.display();
                Err(super::Error::Busy(format!("database \"{path}\" {error}")))
            }
            store => Ok(Self { store, heartbeat }),
        }
    }

    /// `None` when the database cannot be used.
    pub fn last_run(&self) -> Option<LastRun> {
        self.store.as_ref().ok().map(|(_, last_run, _)| *last_run)
    }
}

fn find(path: &Path, patience: Duration) -> Result<Found, Error> {
    let store = Store::open_within(path, patience)?;
    let (last_run, places) = (store.last_run()?, store.places()?);
    Ok((store, last_run, places))
}

/// The way in which this run hears events.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    pub since: Wall,
    /// Cookie of the socket, if the kernel reported it.
    pub socket: Option<u64>,
}

impl Keeper {
    /// Returns the sessions of the database to the engine, and the places of the outputs to the caller.
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
            listening,
            run: now.wall,
            statistics: metrics::Store::default(),
        };
        let places = match opened.store {
            Ok((store, last_run, places)) => {
                this.log = RecordLog::new(last_run.next);
                // A damaged log is lost with its database: the outputs find that their records are gone.
                this.restore(store, engine, None, now);
                places
            }
            Err(error) => {
                this.begin_anew(Err(error), engine, None, now);
                Places::new()
            }
        };
        engine.request_audit(now);
        (this, places)
    }

    /// Whether all sessions of the last run have been restored.
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

    /// The log, for its followers.
    pub const fn reading(&mut self) -> Reading<'_> {
        Reading {
            log: &mut self.log,
            store: self.store.as_ref(),
        }
    }

    pub const fn log(&self) -> &RecordLog {
        &self.log
    }

    /// Octets of the log in the database.
    pub fn log_octets(&self) -> u64 {
        self.store.as_ref().map_or(0, Store::log_octets)
    }

    pub fn poll_timeout(&self) -> Uptime {
        self.next_flush.max(self.not_before)
    }

    /// Commits when the interval has passed or much is waiting. The kernel has been heard until `heard`.
    pub fn handle_timeout(
        &mut self,
        engine: &mut Engine,
        outputs: &mut Outputs,
        heard: Wall,
        now: Now,
    ) {
        let is_much =
            self.log.waiting() >= MANY_RECORDS || engine.changes_waiting() >= MANY_CHANGES;
        let pause = FAILING_PAUSE * u32::from(self.failing);
        let is_due =
            now.up >= self.next_flush || is_much && now.up >= self.last_flush.saturating_add(pause);
        if !is_due || now.up < self.not_before {
            return;
        }
        let is_patient = now.up < self.next_flush.saturating_add(PATIENCE);
        if is_patient && self.is_busy() {
            self.not_before = now.up.saturating_add(BUSY_RETRY);
        } else if self.commit(engine, outputs, heard, None, now) {
            self.next_flush = now.up;
        }
    }

    /// Commits everything now, and returns whether the database has it. `stopped`, see [`LastRun::stopped`], makes it
    /// the end of a planned run: without the database, the next run must not rely on the socket.
    pub fn flush(
        &mut self,
        engine: &mut Engine,
        outputs: &mut Outputs,
        heard: Wall,
        stopped: Option<u32>,
        now: Now,
    ) -> bool {
        let begun = clock::uptime();
        while self.is_busy() && clock::uptime().saturating_since(begun) < PATIENCE {
            thread::sleep(BUSY_RETRY);
        }
        // The second round is for a database begun anew in the first.
        for _ in 0..2 {
            while self.commit(engine, outputs, heard, stopped, now) {}
            if self.has_committed {
                break;
            }
        }
        self.has_committed && !self.failing
    }

    pub const fn statistics(&self) -> &metrics::Store {
        &self.statistics
    }

    pub const fn is_failing(&self) -> bool {
        self.failing
    }

    /// Whether a checkpoint is under way.
    fn is_busy(&self) -> bool {
        self.store.as_ref().is_some_and(Store::is_busy)
    }

    /// Makes one commit. Returns whether there is more for another one.
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
        if self.store.is_none() {
            self.open_late(engine, outputs, now);
        }
        self.log.close_block();
        let needed = outputs.needed(self.log.next());
        if self.store.is_some() {
            let begun = clock::uptime();
            let written = self.write(engine, outputs, heard, stopped, now);
            let took = clock::uptime().saturating_since(begun);
            let longest = &mut self.statistics.longest_commit_microseconds;
            *longest = metrics::micros(took).max(*longest);
            self.statistics.commit_histogram.count(took);
            let Err(error) = written else {
                self.statistics.commits += 1;
                self.has_committed = true;
                self.log.handle_stored(needed, since);
                self.note_success();
                return engine.handle_committed();
            };
            let mut found = Err(error);
            if let Err(error @ Error::Gone) = &found {
                log::error!("{}: nattrail begins a new one", self.named(error));
                // This releases its lock before the new one is locked.
                self.store = None;
                found = Store::open(&self.pending.database);
            }
            self.begin_anew(found, engine, Some(outputs), now);
        }
        engine.handle_commit_failed();
        while let Some(span) = self.log.handle_not_stored(needed, since) {
            outputs.handle_evicted(&span);
        }
        false
    }

    /// Writes everything to the database, if there is one, or the first piece of it.
    fn write(
        &mut self,
        engine: &Engine,
        outputs: &mut Outputs,
        heard: Wall,
        stopped: Option<u32>,
        now: Now,
    ) -> Result<(), Error> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        if store.is_busy() {
            return Err(Error::Unavailable(format!(
                "the disk has been busy for more than {PATIENCE:?}"
            )));
        }
        let next = self.log.next();
        let blocks: Vec<_> = self.log.unstored().collect();
        let evicted = evicted(store, &blocks, outputs.needed(next), &self.bounds, now)?;
        let spans = || evicted.iter().map(|stored| &stored.span);
        let places = outputs.places();
        let places: Places = places
            .map(|(key, place)| (key.to_owned(), spans().fold(place, Place::without)))
            .collect();
        let changes = engine.changes();
        store.commit(&Commit {
            changes: &changes,
            blocks,
            evicted: &evicted,
            places: &places,
            needed: outputs.needed(next),
            next,
            run: self.run,
            heard,
            socket: self.listening.socket,
            // A stop is planned only once the database holds everything: the next run must not rely on one that was cut
            // short.
            stopped: stopped.filter(|_| changes.whole),
            durable: !self.has_committed || stopped.is_some(),
        })?;
        // This comes last: after a failed commit, the blocks that it was to delete are still there.
        for span in spans() {
            self.log.handle_evicted(span.end);
            outputs.handle_evicted(span);
        }
        Ok(())
    }

    /// Opens a database that was not available before.
    fn open_late(&mut self, engine: &mut Engine, outputs: &mut Outputs, now: Now) {
        if self.restored {
            let found = Store::open(&self.pending.database);
            return self.begin_anew(found, engine, Some(outputs), now);
        }
        // Its serials are not those of this run: this run's records replace its own.
        let cleared = |mut found: Found| found.0.clear_log().map(|()| found);
        match find(&self.pending.database, Duration::ZERO).and_then(cleared) {
            Ok((store, last_run, places)) => {
                if let Some(gap) = untaken(&last_run, &places) {
                    engine.state_gap(gap);
                }
                if self.restore(store, engine, Some(outputs), now) {
                    self.state_gap(engine, last_run.heard, now);
                    engine.request_audit(now);
                }
            }
            Err(error) => self.begin_anew(Err(error), engine, Some(outputs), now),
        }
    }

    /// Goes on with the sessions of the database. A damaged one is replaced. Returns whether it was sound.
    fn restore(
        &mut self,
        mut store: Store,
        engine: &mut Engine,
        outputs: Option<&mut Outputs>,
        now: Now,
    ) -> bool {
        let mut count = 0_u64;
        let loaded = store.load(|session| {
            count += 1;
            engine.restore(session);
        });
        if let Err(error) = loaded {
            drop(store);
            let reason = match error {
                Error::Damaged(reason) => reason,
                other => self.named(&other),
            };
            self.begin_anew(Err(Error::Damaged(reason)), engine, outputs, now);
            return false;
        }
        self.restored = true;
        self.store = Some(store);
        engine.handle_store_opened();
        let path = self.pending.database.display();
        log::info!("database \"{path}\": sessions of an earlier run: {count}");
        true
    }

    /// States that records may be missing between `from`, the end of an earlier run's listening, and the start of this run's.
    pub fn state_gap(&self, engine: &mut Engine, from: Option<Wall>, now: Now) {
        let Some(from) = from else {
            return;
        };
        let to = self.listening.since;
        if from > to {
            log::warn!(
                "an earlier run listened until {from}, which is in the future: the clock was set back since then"
            );
        } else {
            log::warn!(
                "records from {from} to {to} may be missing: nattrail did not run, or ended before it had stored them"
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

    /// Goes on with an empty database, to which all pending sessions are written: records that only the earlier one had
    /// are lost. `found` is the file in its place. A damaged database is set aside. So is one that is not empty,
    /// because somebody put it there or because it is this run's own, moved away and back: memory has everything that
    /// matters. After any other error the daemon goes on as before, and tries again.
    fn begin_anew(
        &mut self,
        found: Result<Store, Error>,
        engine: &mut Engine,
        outputs: Option<&mut Outputs>,
        now: Now,
    ) {
        let path = self.pending.database.clone();
        let found = found.and_then(|store| Ok((store.last_run()?.heard.is_none(), store)));
        let empty = match found {
            Ok((true, store)) => Ok(store),
            Ok((false, store)) => {
                drop(store);
                let aside = store::set_aside(&path, "replaced", now.wall).map_err(|error| {
                    let what = "cannot set aside the file in its place";
                    Error::Unavailable(format!("{what}: {error}"))
                });
                aside.and_then(|aside| {
                    log::warn!(
                        "the file that was in the place of the database is now \"{}\"",
                        aside.display()
                    );
                    Store::open(&path)
                })
            }
            Err(Error::Damaged(reason)) => {
                self.store = None;
                self.restored = true;
                let aside = store::set_aside(&path, "damaged", now.wall);
                let fresh = aside.map_err(|error| error.to_string()).and_then(|aside| {
                    self.statistics.set_aside += 1;
                    log::error!(
                        "database \"{}\" is damaged ({reason}): set aside as \"{}\", nattrail begins a new one; ends of \
                         sessions and records that only it knew are lost",
                        path.display(),
                        aside.display()
                    );
                    Store::open(&path).map_err(|error| self.named(&error))
                });
                fresh.map_err(|error| {
                    Error::Damaged(format!("{reason}; it cannot be replaced: {error}"))
                })
            }
            Err(error) => Err(error),
        };
        match empty {
            Ok(store) => self.store = Some(store),
            Err(error) => return self.note_failure(&error),
        }
        self.has_committed = false;
        engine.handle_store_replaced();
        let first = self.log.handle_store_replaced();
        if let Some(outputs) = outputs {
            outputs.handle_evicted(&Span {
                first: outputs.needed(first),
                end: first,
                // The times of the records are lost with them.
                since: self.listening.since,
                until: now.wall,
            });
        }
    }

    fn named(&self, error: &Error) -> String {
        format!("database \"{}\" {error}", self.pending.database.display())
    }

    fn note_failure(&mut self, error: &Error) {
        self.statistics.failed += 1;
        if !self.failing {
            self.failing = true;
            log::error!(
                "{}; records leave from memory, but a crash would lose those that wait and forget which sessions are open; \
                 nattrail tries again every {:?}",
                self.named(error),
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

/// The blocks that make room for `fresh`, although an output still needs `needed` and the records after it.
fn evicted(
    store: &Store,
    fresh: &[&Block],
    needed: Serial,
    bounds: &config::Log,
    now: Now,
) -> Result<Vec<Stored>, Error> {
    let mut octets = store.log_octets();
    if octets == 0 {
        return Ok(Vec::new());
    }
    let lengths = fresh.iter().map(|block| block.bytes.len() as u64);
    octets += lengths.sum::<u64>();
    let oldest_time = now.wall.saturating_sub(bounds.age);
    let mut evicted = Vec::new();
    for stored in store.oldest_blocks(fresh.len() + MAX_EVICTED)? {
        let is_needed = stored.span.end > needed;
        if is_needed && octets <= bounds.size && stored.span.until >= oldest_time {
            break;
        }
        octets = octets.saturating_sub(stored.octets);
        if is_needed {
            evicted.push(stored);
        }
    }
    Ok(evicted)
}

/// The records of an abandoned log that the output furthest behind has not taken.
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
