//! An audit of an archive that is being written, and of one of which something was deleted.
#![allow(clippy::unwrap_used)]

mod acts;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::archive::evidence::Evidence;
use crate::archive::row::Row;
use crate::archive::spool::{Place, Spool};
use crate::archive::tree::Order;
use crate::kernel::clock;
use crate::wire::samples::{delete, snat};

const HOUR: u64 = 3_600_000;

#[test]
fn an_archive_is_sound_while_it_is_written() {
    let root = TempDir::new().unwrap();
    let mut spool = Spool::open(root.path(), "gw", Millis::new(HOUR)).unwrap();
    let mut evidence = Evidence::new(root.path(), "gw");
    evidence.append(0, Wall::from_millis(HOUR)).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for hour in 1..=60 {
                let end = hour * HOUR + 1;
                spool.push(&Row::of(&delete(snat(), end - 1, end)).unwrap());
                let place = Place { run: 1, next: hour };
                spool.commit(place).unwrap();
                spool.seal(Millis::new((hour + 1) * HOUR)).unwrap();
                let now = Wall::from_millis((hour + 1) * HOUR);
                if hour % 2 == 0 {
                    evidence.append(spool.sealed_number(), now).unwrap();
                }
                if hour % 12 == 0 {
                    spool.compact(Millis::new((hour - 1) * HOUR)).unwrap();
                }
                if hour % 25 == 0 {
                    spool.purge(&older_than((hour - 1) * HOUR), &[]).unwrap();
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let now = clock::read().wall;
        while !is_over.load(Ordering::Relaxed) {
            let audit = audit(root.path(), &Known::default(), now, &mut |_, _| ()).unwrap();
            assert_eq!(audit.findings, []);
        }
    });
}

const DAY: u64 = 24 * HOUR;

/// A session on each of four days, of which the first two are deleted; signed. `change` may change the purge's record before
/// that. Also the paths of the files of the first day.
fn purged(change: impl Fn(&mut Seal)) -> (TempDir, Vec<u8>, PathBuf) {
    let root = TempDir::new().unwrap();
    let mut spool = Spool::open(root.path(), "gw", Millis::new(DAY)).unwrap();
    let mut first = None;
    for day in 1..=4 {
        let end = day * DAY + 5_000;
        spool.push(&Row::of(&delete(snat(), end - 1, end)).unwrap());
        spool.commit(Place { run: 1, next: day }).unwrap();
        let seal = spool.seal(Millis::new((day + 1) * DAY)).unwrap();
        first.get_or_insert(root.path().join(&seal.files[0].path));
    }
    let first = first.unwrap();
    let octets = fs::read(&first).unwrap();
    let mut seal = spool.purge(&older_than(3 * DAY), &[]).unwrap().remove(0);
    let path = root.path().join(seal.path());
    change(&mut seal);
    fs::write(path, serde_json::to_vec_pretty(&seal).unwrap()).unwrap();
    let mut evidence = Evidence::new(root.path(), "gw");
    let now = Wall::from_millis(5 * DAY);
    assert!(evidence.append(spool.sealed_number(), now).unwrap());
    (root, octets, first)
}

fn older_than(time: u64) -> Order {
    Order {
        rule: "2d".to_owned(),
        before: Millis::new(time),
        at: Millis::new(5 * DAY),
        act: None,
    }
}

fn findings(root: &Path) -> (Audit, Vec<String>) {
    let now = Wall::from_millis(5 * DAY);
    let audit = audit(root, &Known::default(), now, &mut |_, _| ()).unwrap();
    let findings = audit.findings.iter().map(|it| it.reason.clone()).collect();
    (audit, findings)
}

#[test]
fn what_was_deleted_under_a_rule_is_told_and_no_finding() {
    let (root, ..) = purged(|_| {});
    let (audit, found) = findings(root.path());
    assert_eq!(found, [""; 0]);
    let log = &audit.logs[0];
    let rule = log
        .purge
        .as_ref()
        .map(|purge| (purge.rule.as_str(), purge.before));
    assert_eq!((log.deleted, rule), (2, Some(("2d", Millis::new(3 * DAY)))));
    assert_eq!((audit.rows, audit.replaced, audit.purged), (2, 0, 0));
}

#[test]
fn a_file_that_was_deleted_without_a_purge_is_a_finding() {
    let (root, ..) = purged(|_| {});
    let tree = crate::archive::tree::Tree::new(root.path());
    let files = tree.sessions(&(Millis::MIN..=Millis::MAX)).unwrap();
    fs::remove_file(&files[0]).unwrap();
    let (_, found) = findings(root.path());
    assert!(
        found[0].starts_with("the file is missing, and with it 1 sessions"),
        "{found:?}"
    );
    assert_eq!(found.len(), 1);
}

#[test]
fn a_purged_file_that_is_there_is_a_finding_in_the_archive_and_not_in_a_copy() {
    let (root, octets, first) = purged(|_| {});
    fs::create_dir_all(first.parent().unwrap()).unwrap();
    fs::write(&first, octets).unwrap();
    let (_, found) = findings(root.path());
    assert_eq!(
        found,
        ["the file is still there, although seal 5 of gw deleted sessions of it"]
    );
    fs::remove_dir_all(root.path().join("spool")).unwrap();
    let (audit, found) = findings(root.path());
    assert_eq!((found, audit.purged, audit.rows), (vec![], 1, 2));
}

#[test]
fn a_purge_that_does_not_add_up_or_goes_too_far_is_a_finding() {
    let (root, ..) = purged(|seal| seal.purge.as_mut().unwrap().rows = 1);
    let (_, found) = findings(root.path());
    let expected = "2 sessions were in the files before, 0 are in files, and 1 were deleted";
    assert!(found[0].ends_with(expected), "{found:?}");
    let (root, ..) = purged(|seal| {
        seal.purge.as_mut().unwrap().order.before = Millis::new(2 * DAY);
    });
    let (_, found) = findings(root.path());
    assert!(found[0].contains("had others"), "{found:?}");
}

#[test]
fn a_file_is_read_again_only_when_it_was_changed() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("file");
    fs::write(&path, b"abc").unwrap();
    let mut sums = Sums::default();
    let first = sums.of(&path, &mut |_| ()).unwrap();
    let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(first, of_abc);
    // What is known is given without a look at the octets.
    sums.0.get_mut(&path).unwrap().1 = "known".to_owned();
    assert_eq!(sums.of(&path, &mut |_| ()).unwrap(), "known");
    fs::write(&path, b"abcd").unwrap();
    assert_ne!(sums.of(&path, &mut |_| ()).unwrap(), "known");
}
