//! The store on real files: commits come back, and damage is told from files of others.

#![allow(clippy::unwrap_used)]

mod damage;
mod segments;

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::record_log::RecordLog;
use super::*;
use crate::config::{Capture, LogScope};
use crate::engine::{Engine, Filter, Policy};
use crate::place::{Missing, Position};
use crate::session::{Gap, GapCause, Protocol, Record, Session, Tuple, Zone, ZoneDirection};
use crate::time::{Now, Uptime};
use crate::wire::ctnetlink::{Entry, Event};

const NOW: Now = Now::new(Wall::from_secs(1_800_000_000), Uptime::from_millis(5000));

const POLICY: Policy = Policy {
    ttl: Duration::from_secs(60),
    resync: None,
    max_pending: usize::MAX,
    active_timeout: None,
};

fn engine() -> Engine {
    let capture = Capture {
        namespace: None,
        table: "nattrail".to_owned(),
        log: LogScope::All,
        mark: None,
        zone: None,
        protocols: Vec::new(),
        source: Vec::new(),
        destination: Vec::new(),
        set_sysctls: false,
        receive_buffer: 1 << 20,
        reliable: true,
        resync: None,
        active_timeout: None,
    };
    Engine::new(Filter::new([capture.selection()]), POLICY, NOW)
}

fn session(src: &str, dst: &str, port: u16) -> Session {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let original = Tuple {
        src,
        dst,
        src_port: port,
        dst_port: 443,
    };
    let reply = Tuple {
        src: dst,
        dst: src,
        src_port: 443,
        dst_port: port,
    };
    let zone = Zone {
        id: 7,
        direction: ZoneDirection::Original,
    };
    Session {
        original,
        reply,
        protocol: Protocol::TCP,
        zone,
        id: Some(0xffff_fffe),
        mark: 0x8000_0001,
    }
}

fn flow(session: Session) -> Entry {
    Entry {
        session,
        totals: None,
        start: None,
        stop: None,
        event_time: None,
        is_unannounced: false,
        end_reason: None,
    }
}

fn begin(engine: &mut Engine, session: Session) {
    engine.handle_events(&[Event::New(flow(session))], NOW);
}

fn loaded(store: &mut Store) -> Vec<StoredSession> {
    let mut sessions = Vec::new();
    store.load(|session| sessions.push(session)).unwrap();
    sessions
}

pub(crate) fn database(directory: &TempDir) -> PathBuf {
    directory.path().join("state/pending.db")
}

/// A commit of these changes and nothing else.
pub(crate) fn only<'a>(changes: &'a Changes<'a>) -> Commit<'a> {
    Commit {
        changes,
        blocks: Vec::new(),
        evicted: &[],
        places: &[],
        needed: Serial(1),
        next: Serial(1),
        run: NOW.wall,
        heard: NOW.wall,
        socket: None,
        stopped: None,
        durable: false,
    }
}

/// The database of a record log.
pub(crate) struct Scene {
    pub(crate) directory: TempDir,
    pub(super) store: Store,
    engine: Engine,
    /// Those of the next commit.
    pub(crate) run: Wall,
    pub(crate) heard: Wall,
    pub(crate) places: Places,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store = Store::open(&database(&directory)).unwrap();
        Self {
            directory,
            store,
            engine: engine(),
            run: NOW.wall,
            heard: NOW.wall,
            places: Places::new(),
        }
    }

    /// Writes the new records of the log; `needed` is the first that a follower still needs.
    pub(crate) fn commit(&mut self, log: &mut RecordLog, needed: Serial) {
        log.close_block();
        let changes = self.engine.changes();
        let commit = Commit {
            blocks: log.unstored().collect(),
            needed,
            next: log.next(),
            run: self.run,
            heard: self.heard,
            places: &self.places,
            ..only(&changes)
        };
        self.store.commit(&commit).unwrap();
        log.handle_stored(needed, Duration::from_secs(1));
    }

    /// Puts an empty database in the place of this one.
    pub(super) fn replace(&mut self) {
        *self = Self::new();
    }

    /// Reopens it as a later run does.
    pub(crate) fn reopen(&mut self) {
        let path = database(&self.directory);
        let elsewhere = Store::open(&self.directory.path().join("other.db")).unwrap();
        drop(std::mem::replace(&mut self.store, elsewhere));
        self.store = Store::open(&path).unwrap();
    }
}

/// A record whose time is its number.
pub(super) fn numbered_record(number: u64) -> Record {
    Record::Gap(Gap {
        cause: GapCause::Overflow,
        from: Wall::from_nanos(number),
        to: Wall::from_nanos(number),
        lost: Some(u64::MAX - 1),
    })
}

/// A database with two sessions in it, closed.
fn written(directory: &TempDir) -> PathBuf {
    let path = database(directory);
    let mut store = Store::open(&path).unwrap();
    let mut engine = engine();
    begin(&mut engine, session("10.0.0.1", "192.0.2.1", 1));
    begin(&mut engine, session("fd00::1", "2001:db8::1", 2));
    store.commit(&only(&engine.changes())).unwrap();
    path
}

#[test]
fn what_was_committed_comes_back_as_it_was() {
    let directory = TempDir::new().unwrap();
    let path = written(&directory);
    let mut store = Store::open(&path).unwrap();
    let sessions = loaded(&mut store);
    assert_eq!(sessions[0].session, session("10.0.0.1", "192.0.2.1", 1));
    assert_eq!(sessions[1].session, session("fd00::1", "2001:db8::1", 2));
    assert_eq!(sessions[0].begun, NOW.wall);
    assert_eq!(store.last_run().unwrap().heard, Some(NOW.wall));
}

/// The source ports of the sessions in a store, which this opens anew.
fn ports(path: &Path) -> Vec<u16> {
    let mut store = Store::open(path).unwrap();
    let port = |stored: &StoredSession| stored.session.original.src_port;
    loaded(&mut store).iter().map(port).collect()
}

fn commit(store: &mut Store, engine: &mut Engine) {
    while {
        store.commit(&only(&engine.changes())).unwrap();
        engine.handle_committed()
    } {}
}

fn end(engine: &mut Engine, session: Session) {
    engine.handle_events(&[Event::Destroy(flow(session))], NOW);
}

fn numbered(port: u16) -> Session {
    session("10.0.0.1", "192.0.2.1", port)
}

fn place(port: u16) -> Place {
    Place {
        position: Position {
            serial: Serial(u64::from(port) << 32),
            part: u32::MAX,
        },
        port,
        sequence: u32::MAX,
        missing: (port > 1).then_some(Missing {
            count: 7,
            since: Wall::from_secs(1),
            until: NOW.wall,
        }),
        refused: port > 1,
    }
}

#[test]
fn a_planned_end_is_remembered_until_the_next_run_begins() {
    let directory = TempDir::new().unwrap();
    let mut store = Store::open(&database(&directory)).unwrap();
    assert_eq!(store.last_run().unwrap(), LastRun::default());
    let engine = engine();
    let changes = engine.changes();
    let running = Commit {
        socket: Some(u64::MAX),
        next: Serial(9),
        ..only(&changes)
    };
    store.commit(&running).unwrap();
    assert_eq!(store.last_run().unwrap().stopped, None, "it runs");
    let stopping = Commit {
        stopped: Some(u32::MAX),
        durable: true,
        ..running
    };
    store.commit(&stopping).unwrap();
    let ended = LastRun {
        heard: Some(NOW.wall),
        socket: Some(u64::MAX),
        stopped: Some(u32::MAX),
        next: Serial(9),
        ..LastRun::default()
    };
    assert_eq!(store.last_run().unwrap(), ended);
    let later = Commit {
        heard: NOW.wall.saturating_add(Duration::from_secs(1)),
        socket: Some(7),
        ..only(&changes)
    };
    store.commit(&later).unwrap();
    let begun = LastRun {
        heard: Some(later.heard),
        socket: Some(7),
        ..LastRun::default()
    };
    assert_eq!(store.last_run().unwrap(), begun);
}

#[test]
fn places_are_replaced_by_those_of_the_latest_commit() {
    let directory = TempDir::new().unwrap();
    let mut store = Store::open(&database(&directory)).unwrap();
    let (one, other) = (("one".to_owned(), place(1)), ("other".to_owned(), place(2)));
    for places in [vec![one.clone(), other.clone()], vec![other], vec![]] {
        let engine = engine();
        let changes = engine.changes();
        let commit = Commit {
            places: &places,
            ..only(&changes)
        };
        store.commit(&commit).unwrap();
        assert_eq!(store.places().unwrap(), places);
    }
}

#[test]
fn a_database_of_another_program_or_of_a_newer_version_is_refused_and_left_as_it_is() {
    for schema in [
        "CREATE TABLE theirs (a); PRAGMA user_version = 3",
        "CREATE TABLE run (version); INSERT INTO run VALUES (6); PRAGMA user_version = 6",
    ] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("theirs.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch(schema)
            .unwrap();
        let before = fs::read(&path).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn only_the_owner_and_the_group_may_read() {
    let directory = TempDir::new().unwrap();
    let path = written(&directory);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(path.parent().unwrap()), 0o750);
    assert_eq!(mode(&path), 0o640);
    let _open = Store::open(&path).unwrap();
    assert_eq!(mode(&path.with_extension("db-wal")), 0o640);
}

#[test]
fn a_second_daemon_is_refused_and_a_reader_is_not() {
    let directory = TempDir::new().unwrap();
    let path = written(&directory);
    let _first = Store::open(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Locked), "{error}");
    assert!(
        error.to_string().contains("is in use by another nattrail"),
        "{error}"
    );
    let mut count = 0;
    reading::sessions(&path, |_| count += 1).unwrap();
    assert_eq!(count, 2);
}

#[test]
fn a_place_that_cannot_be_written_is_unavailable() {
    let error = Store::open(Path::new("/proc/nattrail/pending.db")).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[test]
fn a_database_that_was_deleted_in_use_is_gone_and_the_lock_keeps_the_time() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    assert_eq!(heartbeat(&path), None, "no run yet");
    let mut store = Store::open(&path).unwrap();
    let engine = engine();
    let changes = engine.changes();
    store.commit(&only(&changes)).unwrap();
    let all_taken = Heartbeat {
        heard: NOW.wall,
        untaken: NOW.wall,
    };
    assert_eq!(heartbeat(&path), Some(all_taken));
    fs::remove_file(&path).unwrap();
    let later = Commit {
        heard: Wall::from_secs(NOW.wall.as_secs() + 1),
        ..only(&changes)
    };
    let error = store.commit(&later).unwrap_err();
    assert!(matches!(error, Error::Gone), "{error}");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.last_run().unwrap().heard, None);
    assert_eq!(heartbeat(&path), Some(all_taken));
}

#[test]
fn the_lock_keeps_the_time_of_the_oldest_record_that_was_not_taken() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let mut store = Store::open(&path).unwrap();
    let engine = engine();
    let changes = engine.changes();
    let long_ago = Wall::from_secs(NOW.wall.as_secs() - 86_400);
    let mut block = Block::new(Serial(1), Vec::new());
    block.push(&Record::Gap(Gap {
        cause: GapCause::ClockStep,
        from: long_ago,
        to: long_ago,
        lost: None,
    }));
    // The log keeps the record, taken or not, as it may have to be sent again.
    let mut untaken = |position| {
        let place = Place {
            position: Position::before(Serial(position)),
            ..Place::default()
        };
        let commit = Commit {
            blocks: if position == 1 {
                vec![&block]
            } else {
                Vec::new()
            },
            places: &[("output".to_owned(), place)],
            needed: Serial(1),
            next: Serial(2),
            ..only(&changes)
        };
        store.commit(&commit).unwrap();
        heartbeat(&path).unwrap().untaken
    };
    assert_eq!(untaken(1), long_ago);
    assert_eq!(untaken(2), NOW.wall);
}

#[test]
fn what_is_no_regular_file_is_unavailable_and_does_not_block() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pending.db");
    let status = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(status.unwrap().success());
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    fs::remove_file(&path).unwrap();
    let elsewhere = directory.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert!(!elsewhere.exists());
}

#[test]
fn a_failed_commit_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let path = written(&directory);
    let mut store = Store::open(&path).unwrap();
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON run BEGIN SELECT RAISE(ABORT, 'no'); END";
    store.connection.execute_batch(trigger).unwrap();
    let mut engine = engine();
    begin(&mut engine, session("10.0.0.9", "192.0.2.1", 9));
    assert!(store.commit(&only(&engine.changes())).is_err());
    drop(store);
    assert_eq!(ports(&path), [1, 2]);
}

#[test]
fn the_write_ahead_log_does_not_grow_with_the_database() {
    let mut scene = Scene::new();
    let mut log = RecordLog::new(Serial(1));
    for first in (0..1_000_000).step_by(50_000) {
        (first..first + 50_000).for_each(|number| log.push(&numbered_record(number)));
        while scene.store.is_busy() {
            std::thread::yield_now();
        }
        scene.commit(&mut log, Serial(1));
    }
    let ahead = suffixed(&database(&scene.directory), "-wal");
    let length = fs::metadata(ahead).unwrap().len();
    let octets = scene.store.log_octets();
    assert!(length < octets / 2, "{length} beside {octets}");
}
