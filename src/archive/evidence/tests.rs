//! Seals and their log, whatever comes in between.
#![allow(clippy::unwrap_used)]

use tempfile::TempDir;

use super::*;
use crate::archive::acts::{Act, Notice};
use crate::archive::spool::{Place, Spool};
use crate::session::{Gap, GapCause};

const HOUR: u64 = 3_600_000;

struct Gateway {
    root: TempDir,
    spool: Spool,
    evidence: Evidence,
    hours: u64,
}

impl Gateway {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        Self {
            spool: Spool::open(root.path(), "gw 1", Millis::new(HOUR)).unwrap(),
            evidence: Evidence::new(root.path(), "gw 1"),
            root,
            hours: 1,
        }
    }

    fn seal(&mut self) {
        self.hours += 1;
        self.spool.seal(Millis::new(self.hours * HOUR)).unwrap();
    }

    fn now(&self) -> Wall {
        Wall::from_millis(self.hours * HOUR + 60_000)
    }

    fn sign(&mut self) -> Result<bool, proof::Error> {
        self.evidence.append(self.spool.sealed_number(), self.now())
    }

    /// The process ends, and another begins.
    fn kill(&mut self) {
        self.evidence = Evidence::new(self.root.path(), "gw 1");
    }

    fn reader(&self) -> Reader {
        Reader::open(&log_directory(self.root.path(), "gw 1")).unwrap()
    }

    /// The numbers of the seals in the log.
    fn logged(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        let log = self.reader();
        let number = |_: u64, entry: &[u8]| match Entry::read(entry) {
            Entry::Seal(seal) => numbers.push(seal.number),
            Entry::Digest(digest) => numbers.push(digest.number),
            Entry::Act(_) | Entry::Other(_) => {}
        };
        log.for_each(0..log.size(), &mut { number }).unwrap();
        numbers
    }
}

#[test]
fn each_seal_is_an_entry_once_and_in_order_whatever_ends_the_process() {
    let mut gateway = Gateway::new();
    gateway.sign().unwrap();
    assert_eq!(gateway.logged(), [0; 0]);
    for hours in [1, 2, 30] {
        (0..hours).for_each(|_| gateway.seal());
        gateway.kill();
        assert!(gateway.sign().unwrap());
        assert!(gateway.sign().unwrap());
        gateway.seal();
        assert!(gateway.sign().unwrap());
        gateway.kill();
        assert!(gateway.sign().unwrap());
    }
    assert_eq!(gateway.logged(), (1..=36).collect::<Vec<_>>());
}

#[test]
fn an_entry_is_the_file_of_the_seal_record() {
    let mut gateway = Gateway::new();
    gateway.seal();
    gateway.sign().unwrap();
    let records = Tree::new(gateway.root.path()).seal_files(&(Millis::MIN..=Millis::MAX));
    let record = fs::read(&records.unwrap()[0].1).unwrap();
    assert_eq!(gateway.reader().entry(1).unwrap(), record);
}

#[test]
fn an_archive_without_a_log_gets_one_little_by_little() {
    let mut gateway = Gateway::new();
    (0..2 * PIECE).for_each(|_| gateway.seal());
    assert!(!gateway.sign().unwrap());
    assert_eq!(gateway.logged().len(), PIECE);
    while !gateway.sign().unwrap() {}
    assert_eq!(gateway.logged(), (1..=2 * PIECE as u64).collect::<Vec<_>>());
}

#[test]
fn a_log_that_cannot_be_written_is_made_up_for() {
    let mut gateway = Gateway::new();
    let blocked = gateway.root.path().join("log");
    fs::write(&blocked, "").unwrap();
    gateway.seal();
    gateway.sign().unwrap_err();
    gateway.seal();
    gateway.sign().unwrap_err();
    fs::remove_file(&blocked).unwrap();
    gateway.sign().unwrap();
    assert_eq!(gateway.logged(), [1, 2]);
    let (log, away) = (blocked.join("gw%201/tile"), blocked.join("away"));
    fs::rename(&log, &away).unwrap();
    fs::write(&log, "").unwrap();
    gateway.seal();
    gateway.sign().unwrap_err();
    fs::remove_file(&log).unwrap();
    fs::rename(&away, &log).unwrap();
    gateway.sign().unwrap();
    assert_eq!(gateway.logged(), [1, 2, 3]);
}

#[test]
fn a_record_that_is_too_long_for_an_entry_is_named_by_its_hash() {
    let mut gateway = Gateway::new();
    for number in 0..2_000 {
        gateway.spool.push_gap(&Gap {
            cause: GapCause::Overflow,
            from: Wall::from_secs(3_600),
            to: Wall::from_secs(3_601),
            lost: Some(number),
        });
    }
    gateway.spool.commit(Place { run: 1, next: 1 }).unwrap();
    gateway.seal();
    gateway.sign().unwrap();
    gateway.kill();
    gateway.seal();
    gateway.sign().unwrap();
    assert_eq!(gateway.logged(), [1, 2]);
    let Entry::Digest(digest) = Entry::read(&gateway.reader().entry(1).unwrap()) else {
        panic!("expected the hash of a record");
    };
    let record = fs::read(gateway.root.path().join(digest.record)).unwrap();
    assert!(record.len() > MAX_ENTRY);
    assert_eq!(digest.sha256, hex(&Hash::of(&record)));
}

fn lookup(gateway: &Gateway) -> Notice {
    Notice::new(Act::Lookup { lookups: vec![] }, gateway.now().into()).unwrap()
}

#[test]
fn an_act_is_an_entry_once_whatever_ends_the_process() {
    let mut gateway = Gateway::new();
    gateway.seal();
    gateway.sign().unwrap();
    let now = gateway.now();
    let (first, second) = (lookup(&gateway), lookup(&gateway));
    for notice in [first.clone(), first, second.clone(), second] {
        let record = gateway.evidence.record(notice.clone(), Some(7), now);
        assert_eq!(record.unwrap().notice, notice);
        gateway.kill();
    }
    gateway.seal();
    gateway.sign().unwrap();
    let mut acts = Vec::new();
    let log = gateway.reader();
    let take = &mut |_: u64, entry: &[u8]| {
        if let Entry::Act(leaf) = Entry::read(entry) {
            acts.push(leaf.number);
        }
    };
    log.for_each(0..log.size(), take).unwrap();
    assert_eq!(acts, [1, 2]);
    assert_eq!(gateway.logged(), [1, 2]);
}

#[test]
fn expired_lookups_are_deleted_by_an_act_of_their_own() {
    let mut gateway = Gateway::new();
    let now = gateway.now();
    let notice = lookup(&gateway);
    let record = gateway.evidence.record(notice, Some(7), now).unwrap();
    let path = gateway.root.path().join(record.path());
    let mut expire = |before: &str| gateway.evidence.expire("30d", before.to_owned(), now);
    assert!(!expire("1970-01-01").unwrap() && path.exists());
    assert!(expire("1970-01-02").unwrap() && !path.exists());
    assert!(!expire("1970-01-02").unwrap());
    let leaf = gateway.reader().entry(2).unwrap();
    let Entry::Act(leaf) = Entry::read(&leaf) else {
        panic!("{leaf:?}");
    };
    assert_eq!(
        (leaf.number, leaf.before.as_deref()),
        (2, Some("1970-01-02"))
    );
}
