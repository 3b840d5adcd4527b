//! The store on real files: what was committed comes back, what is damaged is told from what is not for us.

#![allow(clippy::unwrap_used)]

mod upgrade;

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::config::{Capture, LogScope, Version};
use crate::engine::{Engine, Filter, Policy};
use crate::export::collector::Past;
use crate::session::{Protocol, Session, Tuple, Zone, ZoneDirection};
use crate::time::{Now, Uptime};
use crate::wire::ctnetlink::{Event, Flow};

const NOW: Now = Now::new(Wall::from_secs(1_800_000_000), Uptime::from_millis(5000));

const POLICY: Policy = Policy {
    ttl: Duration::from_secs(60),
    resync: None,
    max_pending: usize::MAX,
};

fn engine() -> Engine {
    let capture = Capture {
        namespace: None,
        table: "nattrail".to_owned(),
        log: LogScope::All,
        mark: None,
        protocols: Vec::new(),
        source: Vec::new(),
        destination: Vec::new(),
        set_sysctls: false,
        receive_buffer: 1 << 20,
        reliable: true,
        resync: None,
    };
    Engine::new(Filter::new(&capture), POLICY, NOW)
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

fn flow(session: Session) -> Flow {
    Flow {
        session,
        totals: None,
        start: None,
        stop: None,
        event_time: None,
    }
}

fn begin(engine: &mut Engine, session: Session) {
    engine.handle_event(&Event::New(flow(session)), NOW);
}

fn loaded(store: &mut Store) -> Vec<StoredSession> {
    let mut sessions = Vec::new();
    store.load(|session| sessions.push(session)).unwrap();
    sessions
}

fn database(directory: &TempDir) -> PathBuf {
    directory.path().join("state/pending.db")
}

/// A database with two sessions in it, closed.
fn written(directory: &TempDir) -> PathBuf {
    let path = database(directory);
    let mut store = Store::open(&path).unwrap();
    let mut engine = engine();
    begin(&mut engine, session("10.0.0.1", "192.0.2.1", 1));
    begin(&mut engine, session("fd00::1", "2001:db8::1", 2));
    store
        .commit(&engine.changes(), &Run::default(), NOW.wall)
        .unwrap();
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
    assert_eq!(store.last_run().unwrap().last_commit, Some(NOW.wall));
}

/// The source ports of what a store holds that is opened anew.
fn ports(path: &Path) -> Vec<u16> {
    let mut store = Store::open(path).unwrap();
    let port = |stored: &StoredSession| stored.session.original.src_port;
    loaded(&mut store).iter().map(port).collect()
}

fn commit(store: &mut Store, engine: &mut Engine) {
    while {
        store
            .commit(&engine.changes(), &Run::default(), NOW.wall)
            .unwrap();
        engine.handle_committed()
    } {}
}

fn end(engine: &mut Engine, session: Session) {
    engine.handle_event(&Event::Destroy(flow(session)), NOW);
}

fn numbered(port: u16) -> Session {
    session("10.0.0.1", "192.0.2.1", port)
}

#[test]
fn a_session_that_ended_is_no_longer_stored() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let mut store = Store::open(&path).unwrap();
    let mut engine = engine();
    for port in 1..=3 {
        begin(&mut engine, numbered(port));
    }
    commit(&mut store, &mut engine);
    end(&mut engine, numbered(2));
    commit(&mut store, &mut engine);
    drop(store);
    assert_eq!(ports(&path), [1, 3]);
}

#[test]
fn what_has_ended_stays_ended_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let mut engine = engine();
    let mut store = Store::open(&path).unwrap();
    for port in 1..=3 {
        begin(&mut engine, numbered(port));
    }
    commit(&mut store, &mut engine);
    end(&mut engine, numbered(1));
    commit(&mut store, &mut engine);
    drop(store);
    let mut store = Store::open(&path).unwrap();
    let mut engine = self::engine();
    store.load(|session| engine.restore(session)).unwrap();
    engine.handle_store_opened();
    end(&mut engine, numbered(3));
    commit(&mut store, &mut engine);
    drop(store);
    assert_eq!(ports(&path), [2]);
}

#[test]
fn a_segment_whose_sessions_have_all_ended_is_deleted() {
    let directory = TempDir::new().unwrap();
    let mut store = Store::open(&database(&directory)).unwrap();
    let mut engine = engine();
    begin(&mut engine, numbered(1));
    commit(&mut store, &mut engine);
    end(&mut engine, numbered(1));
    commit(&mut store, &mut engine);
    for table in ["segment", "ended"] {
        let count = format!("SELECT count(*) FROM {table}");
        let count: i64 = store
            .connection
            .query_row(&count, [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 0, "{table}");
    }
}

#[test]
fn what_is_left_of_many_segments_is_written_as_few() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let mut store = Store::open(&path).unwrap();
    let mut engine = engine();
    for port in 0..1000 {
        begin(&mut engine, numbered(port));
        begin(&mut engine, session("fd00::1", "2001:db8::1", port));
        commit(&mut store, &mut engine);
        end(&mut engine, numbered(port));
    }
    commit(&mut store, &mut engine);
    let count: i64 = store
        .connection
        .query_row("SELECT count(*) FROM segment", [], |row| row.get(0))
        .unwrap();
    assert!(count < 40, "{count} segments for 1000 sessions");
    drop(store);
    assert_eq!(ports(&path), (0..1000).collect::<Vec<_>>());
}

#[test]
fn segments_that_end_all_at_once_are_deleted_a_few_at_a_time_and_stay_ended_meanwhile() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let mut store = Store::open(&path).unwrap();
    let mut engine = engine();
    // Large ones, which are not merged.
    for port in 0..20_000 {
        begin(&mut engine, numbered(port));
        if port % 2000 == 1999 {
            commit(&mut store, &mut engine);
        }
    }
    for port in 0..20_000 {
        end(&mut engine, numbered(port));
    }
    let segments = |store: &Store| -> i64 {
        let sql = "SELECT count(*) FROM segment";
        let count = store.connection.query_row(sql, [], |row| row.get(0));
        count.unwrap()
    };
    assert_eq!(segments(&store), 10);
    commit(&mut store, &mut engine);
    assert_eq!(segments(&store), 6);
    drop(store);
    assert!(ports(&path).is_empty());

    let mut store = Store::open(&path).unwrap();
    assert_eq!(loaded(&mut store), []);
    commit(&mut store, &mut engine);
    commit(&mut store, &mut engine);
    assert_eq!(segments(&store), 0);
}

#[test]
fn a_large_segment_that_has_nearly_emptied_shrinks() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let mut store = Store::open(&path).unwrap();
    let mut engine = engine();
    for port in 0..8000 {
        begin(&mut engine, numbered(port));
    }
    commit(&mut store, &mut engine);
    for port in 10..8000 {
        end(&mut engine, numbered(port));
    }
    commit(&mut store, &mut engine);
    let length: i64 = store
        .connection
        .query_row("SELECT sum(length(sessions)) FROM segment", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(length, 10 * 52);
    drop(store);
    assert_eq!(ports(&path), (0..10).collect::<Vec<_>>());
}

fn export(address: &str, version: Version) -> Export {
    Export {
        address: address.parse().unwrap(),
        version,
        domain: u32::MAX,
        past: Past {
            port: 65_535,
            sequence: u32::MAX,
        },
    }
}

#[test]
fn a_planned_end_is_remembered_until_the_next_run_begins() {
    let directory = TempDir::new().unwrap();
    let mut store = Store::open(&database(&directory)).unwrap();
    assert_eq!(store.last_run().unwrap(), LastRun::default());
    let exports = [
        export("192.0.2.1:2055", Version::NetflowV5),
        export("192.0.2.1:2055", Version::NetflowV9),
        export("[2001:db8::1]:4739", Version::Ipfix),
    ];
    let mut run = Run {
        socket: Some(u64::MAX),
        stopped: None,
        exports: &exports,
    };
    store.commit(&engine().changes(), &run, NOW.wall).unwrap();
    assert_eq!(store.last_run().unwrap().stopped, None, "it runs");
    run.stopped = Some(u32::MAX);
    store.commit(&engine().changes(), &run, NOW.wall).unwrap();
    let ended = LastRun {
        last_commit: Some(NOW.wall),
        socket: Some(u64::MAX),
        stopped: Some(u32::MAX),
        exports: exports.to_vec(),
    };
    assert_eq!(store.last_run().unwrap(), ended);

    let later = NOW.wall.saturating_add(Duration::from_secs(1));
    let next = Run {
        socket: Some(7),
        ..Run::default()
    };
    store.begin_run(&next, later).unwrap();
    let begun = LastRun {
        last_commit: Some(later),
        socket: Some(7),
        stopped: None,
        ..ended
    };
    assert_eq!(store.last_run().unwrap(), begun);
}

#[test]
fn exports_are_replaced_by_those_of_the_latest_commit() {
    let directory = TempDir::new().unwrap();
    let mut store = Store::open(&database(&directory)).unwrap();
    let one = [export("192.0.2.1:2055", Version::NetflowV5)];
    let other = [export("192.0.2.2:2055", Version::NetflowV5)];
    for exports in [&one[..], &other[..], &[]] {
        let run = Run {
            exports,
            ..Run::default()
        };
        store.commit(&engine().changes(), &run, NOW.wall).unwrap();
        assert_eq!(store.last_run().unwrap().exports, exports);
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
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("another nattrail is using it"),
        "{error}"
    );
    let mut count = 0;
    read(&path, |_| count += 1).unwrap();
    assert_eq!(count, 2);
}

#[test]
fn garbage_is_damaged_and_can_be_set_aside_for_a_new_beginning() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, [0xa5; 8192]).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let aside = set_aside(&path, "damaged", NOW.wall).unwrap();
    assert_eq!(fs::read(&aside).unwrap(), [0xa5; 8192]);
    assert!(loaded(&mut Store::open(&path).unwrap()).is_empty());
}

#[test]
fn two_damaged_files_within_a_second_are_both_kept() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pending.db");
    for content in ["one", "two"] {
        fs::write(&path, content).unwrap();
        let aside = set_aside(&path, "damaged", NOW.wall).unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), content);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn pages_overwritten_in_the_middle_are_damage() {
    let directory = TempDir::new().unwrap();
    let path = written(&directory);
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len();
    bytes[16_384..length].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let error = Store::open(&path)
        .and_then(|mut store| store.load(|_| ()))
        .unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn blobs_no_daemon_writes_are_damage_and_the_segment_is_named() {
    for (change, expected) in [
        (
            "segment SET sessions = x'0102'",
            "a session of 100 octets expected, 2 found",
        ),
        (
            "segment SET sessions = x''",
            "its sessions are not in ascending order",
        ),
        (
            "segment SET sessions = CAST(sessions || sessions AS BLOB)",
            "its sessions are not in ascending order",
        ),
        (
            "ended SET bitmap = x'010203'",
            "its bitmap has another length",
        ),
    ] {
        let directory = TempDir::new().unwrap();
        let path = written(&directory);
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("INSERT OR REPLACE INTO ended SELECT first, x'01' FROM segment")
            .unwrap();
        connection.execute(&format!("UPDATE {change}"), []).unwrap();
        drop(connection);
        let error = Store::open(&path).unwrap().load(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_unavailable() {
    let error = Store::open(Path::new("/proc/nattrail/pending.db")).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[test]
fn a_database_that_was_deleted_in_use_is_gone_and_the_lock_keeps_the_time() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    assert_eq!(heartbeat(&path), None, "no run yet");
    let mut store = Store::open(&path).unwrap();
    let engine = engine();
    let run = Run::default();
    store.commit(&engine.changes(), &run, NOW.wall).unwrap();
    assert_eq!(heartbeat(&path), Some(NOW.wall));
    fs::remove_file(&path).unwrap();
    let later = Wall::from_secs(NOW.wall.as_secs() + 1);
    let error = store.commit(&engine.changes(), &run, later).unwrap_err();
    assert!(matches!(error, Error::Gone { .. }), "{error}");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.last_run().unwrap().last_commit, None);
    assert_eq!(heartbeat(&path), Some(NOW.wall));
}

#[test]
fn what_is_no_regular_file_is_unavailable_and_does_not_block() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pending.db");
    let status = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(status.unwrap().success());
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    let elsewhere = directory.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(!elsewhere.exists());
}

#[test]
fn a_failed_commit_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let path = written(&directory);
    let mut store = Store::open(&path).unwrap();
    let trigger = "CREATE TRIGGER full BEFORE UPDATE ON state BEGIN SELECT RAISE(ABORT, 'no'); END";
    store.connection.execute_batch(trigger).unwrap();
    let mut engine = engine();
    begin(&mut engine, session("10.0.0.9", "192.0.2.1", 9));
    assert!(
        store
            .commit(&engine.changes(), &Run::default(), NOW.wall)
            .is_err()
    );
    drop(store);
    assert_eq!(ports(&path), [1, 2]);
}
