//! Damage of any kind: it is found, and the undamaged rest still comes back.

use super::*;

#[test]
fn a_block_whose_pages_no_longer_hang_together_is_damaged_and_no_other() {
    const PAGE: usize = 16_384;
    let mut scene = Scene::new();
    let mut log = RecordLog::new(Serial(1));
    for first in [0, 10_000, 20_000] {
        (first..first + 10_000).for_each(|number| log.push(&numbered_record(number)));
        scene.commit(&mut log, Serial(1));
    }
    scene.reopen();
    let path = database(&scene.directory);
    let mut bytes = fs::read(&path).unwrap();
    // A page in the middle of the second block: its first four octets are the number of the next page.
    let block = scene.store.block(Serial(15_000)).unwrap().unwrap().unwrap();
    let part = &block.bytes[block.bytes.len() / 2..][..64];
    let page = bytes.windows(64).position(|window| window == part).unwrap() / PAGE;
    bytes[page * PAGE] ^= 0x40;
    fs::write(&path, bytes).unwrap();
    scene.reopen();
    let found = |serial| scene.store.block(Serial(serial)).unwrap().unwrap();
    assert!(found(5_000).is_ok());
    assert_eq!(found(15_000).unwrap_err().end, block.end());
    assert!(found(25_000).is_ok());
}

#[test]
fn what_a_run_or_an_output_left_is_damage_once_a_bit_of_it_has_flipped() {
    for (table, change) in [
        ("run", "heard = heard + 1"),
        ("run", "stopped = 0"),
        ("run", "serial = serial | 64"),
        ("output", "serial = serial - 1"),
        ("output", "key = 'onf'"),
        ("output", "lost = 1"),
    ] {
        let directory = TempDir::new().unwrap();
        let mut store = Store::open(&database(&directory)).unwrap();
        let engine = engine();
        let changes = engine.changes();
        let commit = Commit {
            places: &[("one".to_owned(), place(1))],
            ..only(&changes)
        };
        store.commit(&commit).unwrap();
        let change = format!("UPDATE {table} SET {change}");
        store.connection.execute(&change, []).unwrap();
        let read = store.last_run().and_then(|_| store.places());
        assert!(matches!(read, Err(Error::Damaged(_))), "{change}");
    }
}

#[test]
fn a_header_that_lies_about_the_version_is_put_right() {
    for pragma in ["application_id", "user_version"] {
        for value in [0, 7, 1 << 20] {
            let directory = TempDir::new().unwrap();
            let path = written(&directory);
            let connection = Connection::open(&path).unwrap();
            connection.pragma_update(None, pragma, value).unwrap();
            drop(connection);
            assert_eq!(ports(&path), [1, 2], "{pragma} {value}");
            let connection = Connection::open(&path).unwrap();
            let read = connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
            assert_ne!(read.unwrap(), value);
        }
    }
}

#[test]
fn a_bitmap_that_is_missing_ends_nobody_and_is_damage() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    let mut store = Store::open(&path).unwrap();
    let mut engine = engine();
    (1..=3).for_each(|port| begin(&mut engine, numbered(port)));
    commit(&mut store, &mut engine);
    end(&mut engine, numbered(2));
    commit(&mut store, &mut engine);
    store.connection.execute("DELETE FROM ended", []).unwrap();
    drop(store);
    let error = Store::open(&path).unwrap().load(|_| ()).unwrap_err();
    let expected = "2 pending sessions expected, 3 found";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn garbage_is_damaged_and_can_be_set_aside_for_a_new_beginning() {
    let directory = TempDir::new().unwrap();
    let path = database(&directory);
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, [0xa5; 8192]).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
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
    assert!(matches!(error, Error::Damaged(_)), "{error}");
}

#[test]
fn whatever_bit_of_the_file_has_flipped_nothing_comes_back_that_was_not_there() {
    let directory = TempDir::new().unwrap();
    let path = written(&directory);
    let mut block = Block::new(Serial(1), Vec::new());
    (1..=9).for_each(|number| block.push(&numbered_record(number)));
    let mut store = Store::open(&path).unwrap();
    let sessions = loaded(&mut store);
    let engine = engine();
    let changes = engine.changes();
    let commit = Commit {
        blocks: vec![&block],
        next: Serial(10),
        ..only(&changes)
    };
    store.commit(&commit).unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut damaged = 0;
    // A prime number, so that in time every bit of an octet has its turn.
    for bit in (0..whole.len() * 8).step_by(997) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        let read = Store::open(&path).and_then(|mut store| {
            let result = store.load(|found| assert!(sessions.contains(&found), "bit {bit}"));
            if let Some(Ok(found)) = store.block(Serial(1))? {
                assert_eq!(found, block, "bit {bit}");
            }
            result
        });
        damaged += usize::from(read.is_err());
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(suffixed(&path, suffix));
        }
    }
    assert!(damaged > 0);
}

#[test]
fn blobs_that_were_changed_are_damage_and_the_segment_is_named() {
    for (change, expected) in [
        ("segment SET sessions = x'0102'", "its checksum is missing"),
        (
            "segment SET sessions = x'01020304'",
            "its checksum does not match",
        ),
        (
            "segment SET sessions = CAST(sessions || sessions AS BLOB)",
            "its checksum does not match",
        ),
        (
            "segment SET first = first + 1",
            "its checksum does not match",
        ),
        (
            "ended SET bitmap = x'01020304'",
            "its checksum does not match",
        ),
    ] {
        let directory = TempDir::new().unwrap();
        let path = written(&directory);
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("INSERT OR REPLACE INTO ended SELECT first, x'0100000000' FROM segment")
            .unwrap();
        connection.execute(&format!("UPDATE {change}"), []).unwrap();
        drop(connection);
        let error = Store::open(&path).unwrap().load(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
        assert!(error.to_string().ends_with(expected), "{change}: {error}");
    }
}
