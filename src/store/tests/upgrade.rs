//! From one schema to the next: what is brought up to date, what is kept of it, and what is left alone.

use std::collections::BTreeSet;

use super::*;
use crate::store::schema::{APPLICATION_ID, MIGRATIONS};

/// A database as the first version made it, with two sessions, which stand in its log only.
fn of_the_first_version(directory: &TempDir) -> PathBuf {
    let present = written(directory);
    let segment: (i64, Vec<u8>) = Connection::open(&present)
        .unwrap()
        .query_row("SELECT first, sessions FROM segment", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let _ = fs::remove_file(suffixed(&present, suffix));
    }
    let connection = Connection::open(&present).unwrap();
    keep_log(&connection);
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; {}
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;",
            MIGRATIONS[0]
        ))
        .unwrap();
    connection
        .execute("INSERT INTO segment VALUES (?, ?)", segment)
        .unwrap();
    let time = NOW.wall.as_nanos().cast_signed();
    connection
        .execute("UPDATE state SET last_commit = ?", [time])
        .unwrap();
    assert!(log_len(&present) > 0);
    present
}

fn keep_log(connection: &Connection) {
    let setting = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(setting, true).unwrap();
}

fn log_len(path: &Path) -> u64 {
    fs::metadata(suffixed(path, "-wal")).map_or(0, |log| log.len())
}

fn schema_version(path: &Path) -> i64 {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap()
}

/// The names of the files beside the database.
fn beside(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    entries.map(|entry| name(entry.unwrap())).collect()
}

fn both() -> [Session; 2] {
    [
        session("10.0.0.1", "192.0.2.1", 1),
        session("fd00::1", "2001:db8::1", 2),
    ]
}

fn sessions(path: &Path) -> Vec<Session> {
    let mut store = Store::open(path).unwrap();
    let stored = loaded(&mut store);
    stored.into_iter().map(|stored| stored.session).collect()
}

#[test]
fn a_database_of_the_first_version_keeps_its_sessions() {
    let directory = TempDir::new().unwrap();
    let path = of_the_first_version(&directory);
    let mut store = Store::open(&path).unwrap();
    let mut engine = engine();
    let mut stored = Vec::new();
    for session in loaded(&mut store) {
        stored.push(session.session);
        engine.restore(session);
    }
    assert_eq!(stored, both());
    let last_run = store.last_run().unwrap();
    assert_eq!(last_run.last_commit, Some(NOW.wall));
    assert_eq!(last_run.exports, []);
    begin(&mut engine, numbered(3));
    commit(&mut store, &mut engine);
    drop(store);
    assert_eq!(sessions(&path).len(), 3);
    assert_eq!(schema_version(&path), 2);
}

#[test]
fn the_copy_of_before_is_whole_with_what_stood_in_the_log_and_private() {
    let directory = TempDir::new().unwrap();
    let path = of_the_first_version(&directory);
    drop(Store::open(&path).unwrap());
    let copy = directory.path().join("state/pending.db.schema-1.bak");
    assert_eq!(schema_version(&copy), 1);
    let mode = fs::metadata(&copy).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o640);
    // Whoever goes back puts it into the place of the database.
    fs::rename(&copy, &path).unwrap();
    assert_eq!(schema_version(&path), 1);
    assert_eq!(sessions(&path), both());
}

#[test]
fn there_is_one_copy_for_a_version_and_none_without_a_migration() {
    let directory = TempDir::new().unwrap();
    let path = written(&directory);
    drop(Store::open(&path).unwrap());
    let without = beside(&path);
    for _ in 0..2 {
        let path = of_the_first_version(&directory);
        drop(Store::open(&path).unwrap());
    }
    let added: Vec<_> = beside(&path).difference(&without).cloned().collect();
    assert_eq!(added, ["pending.db.schema-1.bak"]);
}

#[test]
fn a_database_that_cannot_be_copied_is_not_migrated_until_it_can() {
    let directory = TempDir::new().unwrap();
    let path = of_the_first_version(&directory);
    let in_the_way = suffixed(&path, ".schema-1.bak.part");
    fs::create_dir(&in_the_way).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("not changed without a copy"), "{message}");
    assert_eq!(schema_version(&path), 1);
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(sessions(&path), both());
}

#[test]
fn a_database_of_a_newer_version_or_another_program_is_left_alone() {
    for (pragma, expected) in [
        ("user_version = 99", "its schema is version 99"),
        (
            "application_id = 1",
            "it is the database of another program",
        ),
    ] {
        for with_log in [false, true] {
            let directory = TempDir::new().unwrap();
            let path = written(&directory);
            let connection = Connection::open(&path).unwrap();
            if with_log {
                keep_log(&connection);
            }
            let pragma = format!("PRAGMA {pragma}");
            connection.execute_batch(&pragma).unwrap();
            drop(connection);
            assert_eq!(log_len(&path) > 0, with_log);
            let contents = || ["", "-wal"].map(|suffix| fs::read(suffixed(&path, suffix)).ok());
            let before = contents();
            let error = Store::open(&path).unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            assert!(contents() == before, "{pragma}, log {with_log}: changed");
        }
    }
}
