//! The fate of a segment as its sessions end.

use super::*;

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
    assert_eq!(length, 10 * (16 + 12 + 24) + 4);
    drop(store);
    assert_eq!(ports(&path), (0..10).collect::<Vec<_>>());
}
