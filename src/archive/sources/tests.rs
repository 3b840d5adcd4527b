//! Questions to a real database, spool and sealed files.
#![allow(clippy::unwrap_used)]

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::archive::answer::{Answer, Verdict, answer};
use crate::archive::question::{Endpoint, Question, Role, SKEW, Subject};
use crate::archive::row::{Millis, Row};
use crate::archive::spool::{Place, Spool};
use crate::archive::tree::Order;
use crate::archive::wanted::Wanted;
use crate::config::{Capture, LogScope, Prefix};
use crate::engine::{Engine, Filter, Policy};
use crate::place::Serial;
use crate::session::{Gap, GapCause, Record, Session};
use crate::store::record_log::RecordLog;
use crate::store::tests::only;
use crate::store::{Commit, Store};
use crate::time::{Now, Uptime, Wall};
use crate::wire::ctnetlink::{Entry, Event};
use crate::wire::samples::{create, delete, dnat, snat};

pub(super) const HOUR: u64 = 3_600_000;

/// A full hour. The archive began two hours before the one in which the gateway is.
pub(super) const BEGIN: u64 = 500_000 * HOUR;
pub(super) const NOW: u64 = BEGIN + 2 * HOUR + HOUR / 2;

/// A gateway's database and archive.
pub(super) struct Gateway {
    directory: TempDir,
    pub(super) spool: Spool,
    log: RecordLog,
}

impl Gateway {
    pub(super) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let spool = Spool::open(&directory.path().join("archive"), "gw", Millis::new(BEGIN));
        Self {
            directory,
            spool: spool.unwrap(),
            log: RecordLog::new(Serial(1)),
        }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("pending.db")
    }

    pub(super) fn archive(&mut self, port: u16, start: u64, end: u64) {
        let row = Row::of(&delete(numbered(port), start, end)).unwrap();
        self.spool.push(&row);
        self.spool.commit(Place { run: 1, next: 1 }).unwrap();
    }

    pub(super) fn log(&mut self, port: u16, start: u64, end: u64) {
        self.log
            .push(&Record::Event(delete(numbered(port), start, end)));
    }

    /// Writes the database of a daemon that has heard the kernel until now.
    pub(super) fn write(&mut self, pending: &[u16]) {
        let now = Now::new(Wall::from_millis(NOW), Uptime::from_millis(5000));
        let capture = Capture {
            log: LogScope::All,
            ..Config::default().capture
        };
        let policy = Policy::new(&Config::default());
        let mut engine = Engine::new(Filter::new([capture.selection()]), policy, now);
        for port in pending {
            let entry = Entry {
                session: numbered(*port),
                totals: None,
                start: None,
                stop: None,
                event_time: None,
                is_unannounced: false,
                end_reason: None,
            };
            engine.handle_events(&[Event::New(entry)], now);
        }
        self.log.close_block();
        let changes = engine.changes();
        let commit = Commit {
            blocks: self.log.unstored().collect(),
            next: self.log.next(),
            heard: now.wall,
            ..only(&changes)
        };
        Store::open(&self.database())
            .unwrap()
            .commit(&commit)
            .unwrap();
    }

    pub(super) fn sources(&self) -> Sources {
        self.sources_with(Config::default())
    }

    fn sources_with(&self, mut config: Config) -> Sources {
        config.pending.database = self.database();
        config.archive.directory = self.root();
        Sources::new(&config, &[]).unwrap()
    }
}

/// A session of 10.1.2.3 with this public port.
pub(super) fn numbered(port: u16) -> Session {
    let mut session = snat();
    session.reply.dst_port = port;
    session
}

fn ask(sources: &Sources, subject: Subject, from: u64, until: u64) -> Answer {
    let question = Question {
        subject,
        protocol: None,
        time: Millis::new(from)..=Millis::new(until),
        skew: SKEW,
    };
    answer(&question, &mut sources.open(), Millis::new(NOW)).unwrap()
}

fn public(port: u16) -> Subject {
    Subject::Public {
        at: Endpoint {
            address: "203.0.113.9".parse().unwrap(),
            port: Some(port),
        },
        to: None,
    }
}

fn holes(answer: &Answer) -> Vec<&'static str> {
    answer
        .holes
        .iter()
        .map(|hole| hole.absence.name())
        .collect()
}

#[test]
fn a_session_is_found_wherever_it_is_and_once() {
    let mut gateway = Gateway::new();
    gateway.archive(1, BEGIN + 1_000, BEGIN + 5_000);
    gateway.archive(2, BEGIN + 2_000, BEGIN + HOUR + 5_000);
    gateway.spool.seal(Millis::new(BEGIN + HOUR)).unwrap();
    gateway.archive(3, BEGIN + 3_000, BEGIN + 2 * HOUR);
    gateway.log(3, BEGIN + 3_000, BEGIN + 2 * HOUR);
    gateway.log(4, BEGIN + 4_000, NOW - 1_000);
    gateway.log.push(&Record::Event(create(numbered(5), NOW)));
    gateway.write(&[5]);
    let sources = gateway.sources();
    let all = Subject::Subscriber(Prefix::parse("10.1.2.3", "").unwrap());
    let answer = ask(&sources, all, BEGIN, NOW);
    assert_eq!(answer.problems, [""; 0]);
    let ports: Vec<_> = answer
        .candidates
        .iter()
        .map(|it| it.row.post.src_port)
        .collect();
    assert_eq!(ports, [1, 2, 3, 4, 5]);
    let open: Vec<_> = answer.candidates.iter().map(|it| it.is_open).collect();
    assert_eq!(open, [false, false, false, false, true]);
    assert!(answer.candidates.iter().all(|it| &*it.gateway == "gw"));
    for (port, at) in [
        (1, 3_000),
        (2, HOUR),
        (3, HOUR),
        (4, HOUR),
        (5, NOW - BEGIN),
    ] {
        let answer = ask(&sources, public(port), BEGIN + at, BEGIN + at);
        assert_eq!(
            (answer.verdict, answer.candidates.len()),
            (Verdict::One, 1),
            "{port}"
        );
    }
}

#[test]
fn none_is_complete_from_the_beginning_of_the_archive_until_the_daemon_was_last_heard() {
    let mut gateway = Gateway::new();
    gateway.spool.seal(Millis::new(BEGIN + HOUR)).unwrap();
    gateway.log.push(&Record::Gap(Gap {
        cause: GapCause::Overflow,
        from: Wall::from_millis(BEGIN + 2 * HOUR),
        to: Wall::from_millis(BEGIN + 2 * HOUR + 5_000),
        lost: Some(3),
    }));
    gateway.write(&[]);
    let sources = gateway.sources();
    let cases: [(u64, &[&str]); 6] = [
        (BEGIN - 10_000, &["missing-records"]),
        (BEGIN + 1_000, &[]),
        (BEGIN + HOUR, &[]),
        (BEGIN + 2 * HOUR - 1_000, &["overflow"]),
        (NOW - 1_001, &[]),
        (NOW, &["future", "after-last-record"]),
    ];
    for (at, expected) in cases {
        let answer = ask(&sources, public(1), at, at);
        assert_eq!(holes(&answer), expected, "{at}");
    }
}

#[test]
fn a_copy_does_not_know_the_sessions_that_are_open() {
    let mut gateway = Gateway::new();
    gateway.archive(1, BEGIN + 1_000, BEGIN + 5_000);
    gateway.spool.seal(Millis::new(BEGIN + HOUR)).unwrap();
    fs::remove_dir_all(gateway.root().join("spool")).unwrap();
    let mut config = Config::default();
    config.pending.database = "/nonexistent/pending.db".into();
    config.archive.directory = "/nonexistent/archive".into();
    let sources = Sources::new(&config, &[gateway.root()]).unwrap();
    assert_eq!(
        ask(&sources, public(1), BEGIN + 3_000, BEGIN + 3_000).verdict,
        Verdict::One
    );
    let none = ask(&sources, public(2), BEGIN + 3_000, BEGIN + 3_000);
    assert_eq!(holes(&none), ["open-sessions"]);
    let error = Sources::new(&config, &[]).unwrap_err();
    assert!(error.contains("found neither"), "{error}");
    let error = Sources::new(&config, &[gateway.root().join("x")]).unwrap_err();
    assert!(
        error.contains("expected a directory, found none"),
        "{error}"
    );
}

#[test]
fn a_forwarded_port_is_found_in_a_sealed_file() {
    let mut gateway = Gateway::new();
    gateway.archive(80, BEGIN + 1_000, BEGIN + 5_000);
    let forwarded = Row::of(&delete(dnat(), BEGIN + 1_000, BEGIN + 5_000)).unwrap();
    gateway.spool.push(&forwarded);
    gateway.spool.commit(Place { run: 1, next: 1 }).unwrap();
    gateway.spool.seal(Millis::new(BEGIN + HOUR)).unwrap();
    gateway.write(&[]);
    let answer = ask(&gateway.sources(), public(80), BEGIN + 3_000, BEGIN + 3_000);
    let mut roles: Vec<_> = answer.candidates.iter().map(|it| it.role).collect();
    roles.sort_unstable();
    assert_eq!(
        (answer.verdict, roles),
        (Verdict::Several, vec![Role::Subscriber, Role::Server])
    );
}

#[test]
fn an_empty_directory_has_no_records() {
    let directory = TempDir::new().unwrap();
    let mut config = Config::default();
    config.pending.database = "/nonexistent/pending.db".into();
    config.archive.directory = "/nonexistent/archive".into();
    let sources = Sources::new(&config, &[directory.path().to_owned()]).unwrap();
    let answer = ask(&sources, public(1), BEGIN, BEGIN);
    assert_eq!(
        (answer.verdict, holes(&answer)),
        (Verdict::NoneGap, vec!["no-records"])
    );
}

#[test]
fn a_file_that_is_damaged_or_missing_is_named_and_the_others_are_read() {
    let mut gateway = Gateway::new();
    gateway.archive(1, BEGIN + 1_000, BEGIN + 5_000);
    let first = gateway.spool.seal(Millis::new(BEGIN + HOUR)).unwrap();
    gateway.archive(2, BEGIN + 2_000, BEGIN + HOUR + 5_000);
    gateway.spool.seal(Millis::new(BEGIN + 2 * HOUR)).unwrap();
    gateway.write(&[]);
    let sources = gateway.sources();
    let at = BEGIN + 3_000;
    let file = gateway.root().join(&first.files[0].path);
    let whole = fs::read(&file).unwrap();
    for octets in [&whole[..whole.len() / 2], b"not of this program"] {
        fs::write(&file, octets).unwrap();
        let other = ask(&sources, public(2), at, at);
        assert_eq!(other.verdict, Verdict::One);
        let none = ask(&sources, public(1), at, at);
        assert_eq!((none.verdict, none.problems.len()), (Verdict::NoneGap, 1));
        assert!(
            none.problems[0].contains(&first.files[0].path),
            "{:?}",
            none.problems
        );
    }
    fs::remove_file(&file).unwrap();
    let none = ask(&sources, public(1), at, at);
    assert_eq!(none.verdict, Verdict::NoneGap);
    assert!(
        none.problems[0].contains("is missing, and its 1 sessions"),
        "{:?}",
        none.problems
    );
}

#[test]
fn files_that_were_merged_are_not_missing() {
    let mut gateway = Gateway::new();
    gateway.archive(1, BEGIN + 1_000, BEGIN + 5_000);
    gateway.spool.seal(Millis::new(BEGIN + HOUR)).unwrap();
    gateway.archive(2, BEGIN + HOUR, BEGIN + HOUR + 5_000);
    gateway.spool.seal(Millis::new(BEGIN + 2 * HOUR)).unwrap();
    assert!(
        !gateway
            .spool
            .compact(Millis::new(BEGIN))
            .unwrap()
            .is_empty()
    );
    gateway
        .spool
        .seal(Millis::new(BEGIN + 2 * HOUR + 1))
        .unwrap();
    gateway.write(&[]);
    let sources = gateway.sources();
    let none = ask(&sources, public(3), BEGIN + 3_000, BEGIN + 3_000);
    assert_eq!(
        (none.verdict, none.problems),
        (Verdict::NoneComplete, vec![])
    );
    for (port, at) in [(1, BEGIN + 3_000), (2, BEGIN + HOUR + 1)] {
        assert_eq!(ask(&sources, public(port), at, at).candidates.len(), 1);
    }
}

const DAY: u64 = 24 * HOUR;

/// Two sessions of the archive's first hour, one that ends a day later, and one of that day; the first day is deleted, but
/// for the first session.
fn purged(gateway: &mut Gateway) -> u64 {
    let day = BEGIN - BEGIN % DAY + DAY;
    gateway.archive(1, BEGIN + 1_000, BEGIN + 5_000);
    gateway.archive(2, BEGIN + 1_000, BEGIN + 5_000);
    gateway.spool.seal(Millis::new(day)).unwrap();
    gateway.archive(3, BEGIN + 1_000, day + HOUR);
    gateway.archive(4, day, day + HOUR);
    gateway.spool.seal(Millis::new(day + DAY)).unwrap();
    let held = Wanted {
        post_sport: Some(1),
        ..Wanted::alive(Millis::MIN..=Millis::MAX)
    };
    let order = Order {
        rule: "365d".to_owned(),
        before: Millis::new(day),
        at: Millis::new(day + 365 * DAY),
        act: None,
    };
    let seals = gateway.spool.purge(&order, &[held]).unwrap();
    let purge = seals[0].purge.as_ref().unwrap();
    assert_eq!((seals.len(), purge.rows), (1, 1));
    gateway.spool.seal(Millis::new(day + DAY + HOUR)).unwrap();
    day
}

/// Asks when all of that is long over.
fn ask_late(sources: &Sources, port: u16, at: u64) -> Answer {
    let question = Question {
        subject: public(port),
        protocol: None,
        time: Millis::new(at)..=Millis::new(at),
        skew: SKEW,
    };
    let now = Millis::new(BEGIN + 3 * DAY);
    answer(&question, &mut sources.open(), now).unwrap()
}

#[test]
fn a_time_of_which_sessions_were_deleted_is_not_complete_and_names_the_rule() {
    let mut gateway = Gateway::new();
    let day = purged(&mut gateway);
    let sources = gateway.sources();
    let at = BEGIN + 3_000;
    let none = ask_late(&sources, 2, at);
    assert_eq!(none.problems, [""; 0]);
    assert_eq!(none.verdict, Verdict::NoneGap);
    let hole = none.holes.iter().find(|it| it.purge.is_some()).unwrap();
    assert_eq!(
        (hole.absence.name(), hole.to),
        ("purged", Some(Millis::new(day)))
    );
    assert_eq!(hole.purge.as_ref().unwrap().rule, "365d");
    // The held session, and the one that ended later.
    for port in [1, 3] {
        let found = ask_late(&sources, port, at);
        assert_eq!(
            (found.verdict, holes(&found)),
            (Verdict::One, vec!["purged"])
        );
    }
    // No deleted session was alive at these times.
    for (port, at) in [(1, BEGIN + 9_000), (4, day + 1_000)] {
        let found = ask_late(&sources, port, at);
        assert!(!holes(&found).contains(&"purged"), "{port}");
        assert_eq!(found.problems, [""; 0]);
    }
}

#[test]
fn a_copy_from_before_a_purge_still_has_the_sessions() {
    let mut gateway = Gateway::new();
    let copy = TempDir::new().unwrap();
    gateway.archive(1, BEGIN + 1_000, BEGIN + 5_000);
    gateway.spool.seal(Millis::new(BEGIN + HOUR)).unwrap();
    let folders = ["sessions", "seals"];
    for folder in folders {
        copy_files(&gateway.root().join(folder), &copy.path().join(folder));
    }
    purged(&mut gateway);
    let mut config = Config::default();
    config.pending.database = "/nonexistent/pending.db".into();
    config.archive.directory = "/nonexistent/archive".into();
    let sources = Sources::new(&config, &[copy.path().to_owned()]).unwrap();
    let found = ask_late(&sources, 1, BEGIN + 3_000);
    assert_eq!((found.verdict, holes(&found)), (Verdict::One, vec![]));
    // With the records of the purge, but without --delete.
    for folder in folders {
        copy_files(&gateway.root().join(folder), &copy.path().join(folder));
    }
    let found = ask_late(&sources, 1, BEGIN + 3_000);
    assert_eq!((found.verdict, found.candidates.len()), (Verdict::One, 1));
    assert_eq!(holes(&found), ["purged"]);
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_files(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
