//! What goes in comes out, once, whatever fails and whenever; and a reader sees it all the while.

#![allow(clippy::unwrap_used)]

mod damage;
mod purge;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use tempfile::TempDir;

use super::*;
use crate::archive::disk::faults::{self, Fault};
use crate::archive::row::tests::rows;
use crate::archive::table::Table;
use crate::archive::tree::{DAY, HOUR, SealedFile};
use crate::archive::wanted::Wanted;
use crate::session::{Counters, GapCause, Protocol, Provenance, Totals, Tuple};
use crate::time::Wall;

/// The first hour of a day.
const BEGIN: u64 = 1_763_596_800_000;

const GATEWAY: &str = "gw-1.example";

/// A record of the log: a session that ended, or a gap.
#[derive(Clone, Copy)]
enum Entry {
    Row(Row),
    Gap(Gap),
}

fn time(millis: u64) -> Millis {
    Millis::new(millis)
}

/// Time between two records.
const STEP: u64 = 240_000;

/// Sessions of three hours in the order of their ends, with some late ones, some long ones, and gaps.
fn log() -> Vec<Entry> {
    let entry = |index| {
        if index % 17 == 5 {
            gap(index)
        } else {
            Entry::Row(row(index))
        }
    };
    (0..40).map(entry).collect()
}

fn gap(index: u64) -> Entry {
    let from = Wall::from_millis(BEGIN + index * STEP);
    Entry::Gap(Gap {
        cause: GapCause::Overflow,
        from,
        to: from,
        lost: Some(index),
    })
}

fn row(index: u64) -> Row {
    let end = BEGIN + index * STEP - if index % 16 == 1 { HOUR } else { 0 };
    let life = match index % 8 {
        3 => 2 * HOUR,
        7 => 3 * DAY,
        _ => 1_000,
    };
    let host = |prefix: &str| match index % 5 {
        0 => format!("2001:db8::{prefix}:{index:x}").parse().unwrap(),
        _ => format!("10.{prefix}.0.{}", index * 7 % 100)
            .parse()
            .unwrap(),
    };
    let tuple = |src: &str, src_port| Tuple {
        src: host(src),
        dst: host("9"),
        src_port,
        dst_port: 443,
    };
    let counters = Counters {
        packets: index,
        octets: index * 100,
    };
    Row {
        pre: tuple("1", 1024 + index as u16),
        post: tuple("2", 2048 + index as u16),
        protocol: Protocol::TCP,
        start: (index != 13).then(|| time(end - life)),
        end: time(end),
        totals: Some(Totals {
            original: counters,
            reply: counters,
        }),
        mark: 0,
        zone: 0,
        provenance: Provenance::Kernel,
    }
}

fn place(next: usize) -> Place {
    let next = next as u64;
    Place { run: 7, next }
}

fn open(root: &Path) -> Result<Spool, Error> {
    Spool::open(root, GATEWAY, time(BEGIN))
}

fn next(spool: &Spool) -> usize {
    spool.place().map_or(0, |place| place.next as usize)
}

/// What the archiver does: reads the log from the place on, commits, and seals each hour and once in the middle of one.
fn archive(spool: &mut Spool, log: &[Entry]) -> Result<(), Error> {
    for _ in 0..1_000 {
        let (first, hour) = (next(spool), |it: Millis| it.get() / HOUR);
        if first == log.len() {
            break;
        }
        let last = (first + 3).min(log.len());
        for entry in &log[first..last] {
            match entry {
                Entry::Row(row) => spool.push(row),
                Entry::Gap(gap) => spool.push_gap(gap),
            }
        }
        spool.push_begun();
        spool.commit(place(last))?;
        let known = time(BEGIN + last as u64 * STEP);
        let is_early = last == 9;
        if is_early || hour(known) > hour(spool.sealed_until()) {
            spool.seal(if is_early {
                known
            } else {
                time(hour(known) * HOUR)
            })?;
        }
    }
    spool.seal(time(BEGIN + 3 * HOUR))?;
    spool.compact(time(BEGIN))?;
    Ok(())
}

/// The rows and the gaps of an archive as a question finds them, in octets, sorted.
fn found(reader: &Reader) -> Option<(Vec<Vec<u8>>, Vec<String>)> {
    let all = Millis::MIN..=Millis::MAX;
    let mut octets = Vec::new();
    let mut each = |row: Row| {
        let mut one = Vec::new();
        row.encode(&mut one);
        octets.push(one);
    };
    reader.find(&Wanted::alive(all.clone()), &mut each).unwrap();
    let paths = match reader.sessions(&all) {
        Err(error) if error.is_gone() => return None,
        paths => paths.unwrap(),
    };
    for path in paths {
        if !path.exists() {
            return None;
        }
        Table::open(&path).unwrap().for_each(&mut each).unwrap();
    }
    octets.sort();
    let mut seals = reader.seals(&all).unwrap();
    seals.sort_by_key(|seal| seal.number);
    let gaps = seals
        .iter()
        .flat_map(|seal| &seal.gaps)
        .chain(reader.gaps());
    let mut gaps: Vec<_> = gaps.map(|gap| format!("{gap:?}")).collect();
    gaps.sort();
    Some((octets, gaps))
}

fn expected(log: &[Entry]) -> (Vec<Vec<u8>>, Vec<String>) {
    let (mut octets, mut gaps) = (Vec::new(), Vec::new());
    for entry in log {
        match entry {
            Entry::Row(row) => {
                octets.push(Vec::new());
                row.encode(octets.last_mut().unwrap());
            }
            Entry::Gap(gap) => gaps.push(format!("{:?}", ArchivedGap::from(gap))),
        }
    }
    octets.sort();
    gaps.sort();
    (octets, gaps)
}

/// The archive has the log as far as its place says, each record once; its records add up, and nothing is left over.
fn check(root: &Path, log: &[Entry]) {
    let reader = Reader::open(root).unwrap();
    let next = reader.place().map_or(0, |place| place.next as usize);
    assert!(found(&reader).unwrap() == expected(&log[..next]));

    let mut seals = reader.seals(&(Millis::MIN..=Millis::MAX)).unwrap();
    seals.sort_by_key(|seal| seal.number);
    let (mut kept, mut until, mut files) = (0, time(BEGIN), BTreeMap::new());
    for (seal, number) in seals.iter().zip(1..) {
        assert_eq!((seal.number, seal.from), (number, until));
        let rows: u64 = seal.files.iter().map(|file| file.rows).sum();
        if seal.replaces.is_empty() {
            assert_eq!(kept + seal.ended, rows + seal.kept + seal.damaged);
            kept = seal.kept;
        } else {
            let replaced = seal.replaces.iter().map(|path| files.remove(path).unwrap());
            assert_eq!(
                replaced.map(|file: &SealedFile| file.rows).sum::<u64>(),
                rows
            );
        }
        until = seal.until;
        files.extend(seal.files.iter().map(|file| (file.path.clone(), file)));
    }
    for file in files.values() {
        let digest = digest(&SHA256, &fs::read(root.join(&file.path)).unwrap());
        let hex = digest.as_ref().iter().map(|octet| format!("{octet:02x}"));
        assert_eq!(file.sha256, hex.collect::<String>());
    }
    let tree = Tree::new(root);
    let sealed = tree.sessions(&(Millis::MIN..=Millis::MAX)).unwrap().len();
    assert_eq!(sealed, files.len());
    let runs = runs(&tree.spool()).unwrap();
    assert!(runs.iter().all(|name| name.starts_with("run-")), "{runs:?}");
}

#[test]
fn what_is_committed_is_found_once_before_and_after_it_is_sealed() {
    let (root, log) = (TempDir::new().unwrap(), log());
    let mut spool = open(root.path()).unwrap();
    archive(&mut spool, &log).unwrap();
    assert_eq!(next(&spool), log.len());
    check(root.path(), &log);
}

/// Runs the scenario with a fault at some of its [operations](faults::operations). `reboot` is what happens to the disk before
/// the next start.
fn at_every_operation(fault: Fault, first: u64, reboot: impl Fn(&Path)) {
    let log = log();
    for at in faults::operations(first, 23) {
        let root = TempDir::new().unwrap();
        faults::begin(at, fault);
        let mut committed = 0;
        for _ in 0..2 {
            let Ok(mut spool) = open(root.path()) else {
                continue;
            };
            // A fault that passes leaves a spool that goes on.
            let _ = archive(&mut spool, &log).or_else(|_| archive(&mut spool, &log));
            committed = next(&spool);
        }
        let was_hit = faults::end();
        reboot(root.path());
        let mut spool = open(root.path()).unwrap();
        assert!(next(&spool) >= committed, "operation {at}");
        check(root.path(), &log);
        archive(&mut spool, &log).unwrap();
        check(root.path(), &log);
        if !was_hit {
            assert!(at > 200, "only {at} operations");
            return;
        }
    }
}

#[test]
fn a_program_that_ends_at_any_operation_loses_and_doubles_nothing() {
    at_every_operation(Fault::End, 1, |_| {});
}

#[test]
fn an_operation_that_fails_loses_and_doubles_nothing() {
    at_every_operation(Fault::Once, 3, |_| {});
}

#[test]
fn a_loss_of_power_at_any_operation_loses_and_doubles_nothing() {
    at_every_operation(Fault::End, 2, |root| faults::lose_power(root, |_| 0));
}

#[test]
fn a_loss_of_power_that_spares_some_names_loses_and_doubles_nothing() {
    at_every_operation(Fault::End, 5, |root| {
        faults::lose_power(root, |names| names / 2)
    });
}

#[test]
fn a_reader_finds_every_record_once_at_any_operation() {
    let (root, log) = (TempDir::new().unwrap(), log());
    let path = root.path().to_owned();
    let (complete, mut readers, mut steps) = (Rc::new(Cell::new(0)), Vec::new(), 0);
    let (watched, count) = (log.clone(), complete.clone());
    open(root.path()).unwrap();
    faults::watch(move || {
        readers.push(Reader::open(&path).unwrap());
        // The sealed files are listed some operations after the spool was opened.
        let agos = [1, 2, 5, 9];
        // All of them, or one at each operation in turn.
        let tried = match faults::tries_all() {
            true => &agos[..],
            false => &agos[steps % 4..][..1],
        };
        steps += 1;
        for &ago in tried {
            let Some(index) = readers.len().checked_sub(ago) else {
                break;
            };
            let reader = &readers[index];
            let next = reader.place().map_or(0, |place| place.next as usize);
            if let Some(found) = found(reader) {
                assert!(found == expected(&watched[..next]));
                count.set(count.get() + 1);
            }
        }
        if readers.len() > 9 {
            readers.remove(0);
        }
    });
    let result = open(root.path()).and_then(|mut spool| archive(&mut spool, &log));
    faults::unwatch();
    result.unwrap();
    assert!(complete.get() > 60, "{}", complete.get());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_rows_come_back(
        rows in prop::collection::vec(rows(), 0..80), until in 0_u64..1 << 48, commits in 1_usize..20,
    ) {
        let root = TempDir::new().unwrap();
        let mut spool = Spool::open(root.path(), "a/b %", Millis::MIN).unwrap();
        for (index, rows) in rows.chunks(commits).enumerate() {
            rows.iter().for_each(|row| spool.push(row));
            spool.commit(place(index)).unwrap();
        }
        let all: Vec<_> = rows.iter().map(|row| Entry::Row(*row)).collect();
        let found_now = || found(&Reader::open(root.path()).unwrap()).unwrap();
        prop_assert_eq!(found_now(), expected(&all));
        let seal = spool.seal(time(until)).unwrap();
        prop_assert_eq!(found_now(), expected(&all));
        prop_assert_eq!(seal.kept, rows.iter().filter(|row| row.end >= time(until)).count() as u64);

        // Every question about a time finds what was alive then, by the spool's index and the names of the files.
        for row in &rows {
            let mut wanted = Wanted::alive(row.end..=row.end);
            wanted.post_src = Some(row.post.src);
            wanted.post_sport = Some(row.post.src_port);
            let reader = Reader::open(root.path()).unwrap();
            let mut count = 0;
            let mut each = |row: Row| count += usize::from(wanted.accepts(&row));
            reader.find(&wanted, &mut each).unwrap();
            for path in reader.sessions(&wanted.alive).unwrap() {
                Table::open(&path).unwrap().for_each(&mut each).unwrap();
            }
            prop_assert_eq!(count, rows.iter().filter(|row| wanted.accepts(row)).count());
        }
    }
}
