//! The log in memory and in a real database, as followers read it.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::session::{Gap, GapCause};
use crate::store::tests::{Scene, numbered_record};
use crate::time::Wall;

const SECOND: Duration = Duration::from_secs(1);

fn push(log: &mut RecordLog, numbers: std::ops::Range<u64>) {
    numbers.for_each(|number| log.push(&numbered_record(number)));
}

/// The numbers of the records from `serial` on that may leave.
fn read(log: &mut RecordLog, store: Option<&Store>, serial: u64) -> Vec<u64> {
    let mut reading = Reading { log, store };
    let (mut numbers, mut next) = (Vec::new(), Serial(serial));
    while let Found::Block(block) = reading.block(next) {
        let mut offset = 0;
        let mut at = block.first;
        while let Some(record) = block.record_at(&mut offset).unwrap() {
            if at >= next {
                numbers.push(record.time().as_nanos());
            }
            at.0 += 1;
        }
        next = block.end();
    }
    numbers
}

#[test]
fn records_may_leave_once_the_database_has_them() {
    let mut scene = Scene::new();
    let mut log = RecordLog::new(Serial(1));
    push(&mut log, 1..4);
    assert!(read(&mut log, Some(&scene.store), 1).is_empty());
    assert_eq!(log.waiting(), 3);
    scene.commit(&mut log, Serial(1));
    assert_eq!(log.waiting(), 0);
    assert_eq!(read(&mut log, Some(&scene.store), 1), [1, 2, 3]);
    assert_eq!(read(&mut log, Some(&scene.store), 3), [3]);
}

#[test]
fn without_a_database_they_leave_all_the_same() {
    let mut log = RecordLog::new(Serial(1));
    push(&mut log, 1..4);
    log.close_block();
    assert_eq!(log.handle_not_stored(Serial(1), SECOND), None);
    assert_eq!(read(&mut log, None, 1), [1, 2, 3]);
}

#[test]
fn a_backlog_is_read_from_the_database_and_takes_no_memory() {
    let mut scene = Scene::new();
    let mut log = RecordLog::new(Serial(1));
    let count = 800_000;
    for first in (1..=count).step_by(50_000) {
        push(&mut log, first..first + 50_000);
        scene.commit(&mut log, Serial(1));
    }
    assert!(log.octets <= NEWEST, "{} octets in memory", log.octets);
    assert!(scene.store.log_octets() > NEWEST as u64 * 5 / 4);
    let all: Vec<_> = (1..=count).collect();
    assert_eq!(read(&mut log, Some(&scene.store), 1), all);
    let end = log.next();
    scene.commit(&mut log, end);
    assert_eq!(log.octets, 0);
}

#[test]
fn blocks_that_all_have_taken_leave_the_database_a_few_at_a_time() {
    let mut scene = Scene::new();
    let mut log = RecordLog::new(Serial(1));
    for first in 0..20 {
        push(&mut log, first..first + 1);
        scene.commit(&mut log, Serial(1));
    }
    let octets = scene.store.log_octets();
    let end = log.next();
    scene.commit(&mut log, end);
    assert_eq!(scene.store.log_octets(), octets / 20 * 12);
    scene.commit(&mut log, end);
    scene.commit(&mut log, end);
    assert_eq!(scene.store.log_octets(), 0);
}

#[test]
fn what_the_database_gave_up_memory_gives_up_too() {
    let mut scene = Scene::new();
    let mut log = RecordLog::new(Serial(1));
    for first in [1, 4, 7] {
        push(&mut log, first..first + 3);
        scene.commit(&mut log, Serial(1));
    }
    log.handle_evicted(Serial(7));
    assert_eq!(log.blocks.len(), 1);
    assert_eq!(read(&mut log, Some(&scene.store), 7), [7, 8, 9]);
    // This includes the block last read from the database.
    let mut late = RecordLog::new(log.next());
    push(&mut late, 10..11);
    scene.commit(&mut late, Serial(1));
    assert_eq!(read(&mut late, Some(&scene.store), 1).len(), 10);
    late.handle_evicted(Serial(10));
    assert!(late.read.is_none());
}

#[test]
fn without_a_database_the_oldest_go_when_memory_is_full() {
    let mut log = RecordLog::new(Serial(1));
    let (mut number, mut lost) = (1, Vec::new());
    while lost.is_empty() {
        push(&mut log, number..number + 100_000);
        number += 100_000;
        log.close_block();
        lost.extend(log.handle_not_stored(Serial(1), SECOND));
    }
    assert_eq!(lost[0].first, Serial(1));
    assert_eq!(lost[0].since, Wall::from_nanos(1));
    assert_eq!(lost[0].until, Wall::from_nanos(lost[0].end.0 - 1));
    let first = lost[0].end.0;
    assert_eq!(read(&mut log, None, first)[0], first);
    assert_eq!(log.handle_not_stored(log.next(), SECOND), None);
    assert_eq!(log.octets, 0, "all have taken all");
}

#[test]
fn a_database_that_was_replaced_gets_what_memory_still_has() {
    let mut scene = Scene::new();
    let mut log = RecordLog::new(Serial(1));
    push(&mut log, 1..4);
    scene.commit(&mut log, Serial(2));
    assert_eq!(log.unstored().count(), 0);
    scene.replace();
    assert_eq!(log.handle_store_replaced(), Serial(1));
    assert_eq!(log.unstored().count(), 1);
    scene.commit(&mut log, Serial(2));
    let mut anew = RecordLog::new(scene.store.last_run().unwrap().next);
    anew.readable = log.readable;
    assert_eq!(read(&mut anew, Some(&scene.store), 2), [2, 3]);
}

#[test]
fn a_later_run_counts_on_and_reads_what_was_left() {
    let mut scene = Scene::new();
    let mut log = RecordLog::new(Serial(1));
    push(&mut log, 1..4);
    scene.commit(&mut log, Serial(1));
    scene.reopen();
    let mut log = RecordLog::new(scene.store.last_run().unwrap().next);
    push(&mut log, 4..6);
    scene.commit(&mut log, Serial(1));
    assert_eq!(read(&mut log, Some(&scene.store), 1), [1, 2, 3, 4, 5]);
}

#[test]
fn a_damaged_block_is_told_from_its_neighbours() {
    let mut scene = Scene::new();
    let mut log = RecordLog::new(Serial(1));
    for first in [1, 4, 7] {
        push(&mut log, first..first + 3);
        scene.commit(&mut log, Serial(1));
    }
    let damage = "UPDATE log SET records = CAST(zeroblob(octets) AS BLOB) WHERE first = 4";
    scene.store.connection.execute(damage, []).unwrap();
    let mut log = RecordLog::new(log.next());
    let mut reading = Reading {
        log: &mut log,
        store: Some(&scene.store),
    };
    assert!(matches!(reading.block(Serial(3)), Found::Block(block) if block.first == Serial(1)));
    let Found::Damaged(span) = reading.block(Serial(5)) else {
        panic!("the block is damaged");
    };
    assert_eq!((span.first, span.end), (Serial(5), Serial(7)));
    assert!(matches!(reading.block(Serial(7)), Found::Block(block) if block.first == Serial(7)));
}

#[test]
fn a_full_block_is_closed_before_the_commit() {
    let mut log = RecordLog::new(Serial(1));
    let gap = Record::Gap(Gap {
        cause: GapCause::Overflow,
        from: Wall::from_secs(1),
        to: Wall::from_secs(2),
        lost: Some(1),
    });
    while log.unstored().next().is_none() {
        log.push(&gap);
    }
    let block = log.unstored().next().unwrap();
    assert!((BLOCK..BLOCK + 100).contains(&block.bytes.len()));
    assert_eq!(log.next(), block.end());
}
