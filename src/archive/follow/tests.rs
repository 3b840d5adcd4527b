//! The archiver beside a daemon's real database, both of which end and begin again at any time.
#![allow(clippy::unwrap_used)]

mod orders;

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::archive::audit::{self, Known};
use crate::archive::spool::Reader;
use crate::archive::table::Table;
use crate::archive::tree::ArchivedGap;
use crate::archive::wanted::Wanted;
use crate::session::{Gap, GapCause, NatEvent};
use crate::store::Places;
use crate::store::record_log::RecordLog;
use crate::store::tests::{Scene, database};
use crate::wire::samples::{checkpoint, create, delete, snat};

const DAY_LONG: Duration = Duration::from_secs(86_400);
const START: u64 = 1_795_276_800; // 2026-11-21T16:00:00Z

/// A gateway whose sessions have a port each.
struct Gateway {
    scene: Scene,
    log: RecordLog,
    archive: Follow,
    root: TempDir,
    /// The ports of the sessions that ended, and when.
    ended: Vec<(u16, Wall)>,
    /// How many of them the database has.
    committed: usize,
    taken: Serial,
    /// Those of the outputs, in the database.
    places: Places,
    now: Wall,
}

impl Gateway {
    fn new() -> Self {
        let scene = Scene::new();
        let root = TempDir::new().unwrap();
        Self {
            archive: follow(&scene, &root),
            scene,
            log: RecordLog::new(Serial(1)),
            root,
            ended: Vec::new(),
            committed: 0,
            taken: Serial(1),
            places: Places::new(),
            now: Wall::from_secs(START),
        }
    }

    fn session(&mut self) {
        let number = self.ended.len() as u16 + 1;
        let mut session = snat();
        session.original.src_port = number;
        let millis = self.now.as_millis();
        let records: [NatEvent; 2] = [create(session, millis), delete(session, millis, millis)];
        records
            .iter()
            .for_each(|event| self.log.push(&Record::Event(*event)));
        self.ended.push((number, self.now));
    }

    fn gap(&mut self) {
        self.log.push(&Record::Gap(Gap {
            cause: GapCause::Overflow,
            from: self.now,
            to: self.now,
            lost: Some(7),
        }));
    }

    fn commit(&mut self) {
        self.scene.heard = self.now;
        self.scene.places.clone_from(&self.places);
        self.scene.commit(&mut self.log, self.taken);
        self.committed = self.ended.len();
    }

    fn step(&mut self) {
        while {
            let step = self.archive.step(self.now).unwrap();
            self.taken = step.taken;
            step.has_more
        } {}
    }

    fn pass(&mut self, duration: Duration) {
        self.now = self.now.saturating_add(duration);
        self.commit();
        self.step();
    }

    fn place(&self) -> crate::place::Place {
        crate::place::Place {
            position: Position::before(self.taken),
            ..crate::place::Place::default()
        }
    }

    /// So many hours, one by one, and what is deleted in them.
    fn live(&mut self, hours: u64) -> u64 {
        let mut deleted = 0;
        for _ in 0..hours {
            self.pass(Duration::from_secs(3_600));
            for seal in self.archive.expire(self.now).unwrap() {
                deleted += seal.purge.unwrap().rows;
            }
        }
        deleted
    }

    /// The archiver's process ends, and another begins.
    fn kill_archiver(&mut self) {
        let old = follow(&self.scene, &self.root);
        drop(std::mem::replace(&mut self.archive, old));
    }

    /// The daemon's process ends, and another begins: it knows only what was committed.
    fn kill_daemon(&mut self) {
        self.scene.reopen();
        self.now = self.now.saturating_add(Duration::from_secs(1));
        self.scene.run = self.now;
        let end = reading::piece(&database(&self.scene.directory), None)
            .unwrap()
            .end;
        self.log = RecordLog::new(end);
        self.ended.truncate(self.committed);
    }

    /// How often the archive has each port.
    fn archived(&self) -> BTreeMap<u16, u32> {
        let mut found = BTreeMap::new();
        let mut count = |row: Row| *found.entry(row.pre.src_port).or_default() += 1;
        let all = Wanted::alive(Millis::default()..=Millis::MAX);
        let reader = Reader::open(self.root.path()).unwrap();
        reader.find(&all, &mut count).unwrap();
        for path in reader.sessions(&all.alive).unwrap() {
            Table::open(&path).unwrap().for_each(&mut count).unwrap();
        }
        found
    }

    fn assert_whole(&self) {
        let expected: BTreeMap<_, _> = self.ended.iter().map(|(port, _)| (*port, 1)).collect();
        assert_eq!(self.archived(), expected);
    }

    /// The hours for which there are sealed files.
    fn hours(&self) -> Vec<String> {
        let mut hours = Vec::new();
        for day in entries(&self.root.path().join("sessions")) {
            hours.extend(
                entries(&day)
                    .iter()
                    .map(|hour| hour.file_name().unwrap().to_str().unwrap().to_owned()),
            );
        }
        hours.sort();
        hours
    }
}

fn follow(scene: &Scene, root: &TempDir) -> Follow {
    Follow::new(
        database(&scene.directory),
        root.path().to_owned(),
        "gw".to_owned(),
        Retention::new(Some(3 * DAY_LONG), Some(2 * DAY_LONG)),
    )
}

fn entries(path: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Session,
    Gap,
    Commit,
    Step,
    KillArchiver,
    KillDaemon,
    Hour,
}

#[test]
fn a_narrower_selection_leaves_sessions_out_and_no_gap() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.gap();
    gateway.archive.select(Some(Selection {
        zone: Some(9),
        ..Selection::ANY
    }));
    gateway.pass(Duration::ZERO);
    assert_eq!(gateway.archived(), BTreeMap::new());
    gateway.archive.select(None);
    gateway.session();
    gateway.pass(Duration::from_secs(3_600));
    assert_eq!(gateway.archived(), BTreeMap::from([(2, 1)]));
    let reader = Reader::open(gateway.root.path()).unwrap();
    let seals = reader.seals(&(Millis::default()..=Millis::MAX)).unwrap();
    assert_eq!(seals.iter().map(|seal| seal.gaps.len()).sum::<usize>(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_session_is_archived_once_whatever_ends_either_process(
        acts in prop::collection::vec(
            prop_oneof![
                5 => Just(Act::Session), 1 => Just(Act::Gap), 3 => Just(Act::Commit), 3 => Just(Act::Step),
                1 => Just(Act::KillArchiver), 1 => Just(Act::KillDaemon), 1 => Just(Act::Hour),
            ],
            0..40,
        )
    ) {
        let mut gateway = Gateway::new();
        gateway.commit();
        for act in acts {
            match act {
                Act::Session => gateway.session(),
                Act::Gap => gateway.gap(),
                Act::Commit => gateway.commit(),
                Act::Step => gateway.step(),
                Act::KillArchiver => gateway.kill_archiver(),
                Act::KillDaemon => gateway.kill_daemon(),
                Act::Hour => gateway.pass(Duration::from_secs(3_700)),
            }
        }
        gateway.pass(Duration::from_secs(1));
        gateway.assert_whole();
    }
}

#[test]
fn a_checkpoint_in_the_log_counts_as_nothing() {
    let mut gateway = Gateway::new();
    for _ in 0..2 {
        gateway.session();
        gateway.log.push(&checkpoint(gateway.now.as_millis()));
    }
    gateway.pass(Duration::from_secs(3_700));
    gateway.assert_whole();
    assert_eq!(gateway.taken, Serial(7));
    let reader = Reader::open(gateway.root.path()).unwrap();
    let seals = reader.seals(&(Millis::MIN..=Millis::MAX)).unwrap();
    assert!(seals.iter().all(|seal| seal.gaps.is_empty()));
    // The audit adds up the sessions that began and ended.
    gateway.archive.sign(gateway.now).unwrap();
    let root = gateway.root.path();
    let audit = audit::audit(root, &Known::default(), gateway.now, &mut |_, _| ()).unwrap();
    assert_eq!(audit.findings, []);
}

#[test]
fn an_hour_is_sealed_a_minute_after_its_end() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.pass(Duration::from_secs(3_600 + 59));
    assert_eq!(gateway.hours(), [""; 0]);
    gateway.session();
    gateway.pass(Duration::from_secs(1));
    assert_eq!(gateway.hours(), ["hour=16"]);
    gateway.pass(Duration::from_secs(3_600));
    assert_eq!(gateway.hours(), ["hour=16", "hour=17"]);
    gateway.assert_whole();
}

#[test]
fn hours_are_sealed_also_after_the_clock_went_back() {
    let mut gateway = Gateway::new();
    gateway.pass(Duration::from_secs(1));
    gateway.session();
    gateway.now = Wall::from_secs(START + 80 * 365 * 86_400);
    gateway.session();
    gateway.pass(Duration::from_secs(3_700));
    gateway.now = Wall::from_secs(START);
    for sealed in 2..5 {
        gateway.session();
        gateway.pass(Duration::from_secs(3_700));
        let seals = Reader::open(gateway.root.path()).unwrap();
        let all = Millis::default()..=Millis::MAX;
        assert_eq!(seals.seals(&all).unwrap().len(), sealed);
    }
    gateway.assert_whole();
}

#[test]
fn records_that_the_log_gave_up_are_a_gap_with_their_number() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.pass(Duration::from_secs(1));
    gateway.session();
    gateway.commit();
    gateway.session();
    gateway.session();
    gateway.commit();
    // Nobody needs the four records of the last two sessions, as far as the database knows.
    gateway.taken = gateway.log.next();
    gateway.commit();
    gateway.session();
    gateway.pass(Duration::from_secs(1));
    let reader = Reader::open(gateway.root.path()).unwrap();
    let before_the_archive = |gap: &&ArchivedGap| gap.from.wall() < Wall::from_secs(START);
    assert_eq!(reader.gaps().iter().find(before_the_archive), None);
    let lost: Vec<_> = reader
        .gaps()
        .iter()
        .map(|gap| (gap.cause.as_str(), gap.lost))
        .collect();
    assert_eq!(lost, [("undelivered", Some(6))]);
    assert_eq!(gateway.archived().len(), 2);
}

#[test]
fn a_directory_that_is_gone_for_a_while_costs_nothing() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.pass(Duration::from_secs(1));
    gateway.places = vec![("archive".to_owned(), gateway.place())];
    let away = gateway.root.path().with_extension("away");
    fs::rename(gateway.root.path(), &away).unwrap();
    // The mount point without its disk.
    fs::create_dir(gateway.root.path()).unwrap();
    gateway.session();
    gateway.commit();
    gateway.kill_archiver();
    for _ in 0..3 {
        let error = gateway.archive.step(gateway.now).unwrap_err();
        assert!(matches!(error, Error::Missing(_)), "{error}");
    }
    assert!(entries(gateway.root.path()).is_empty());
    fs::remove_dir(gateway.root.path()).unwrap();
    fs::rename(&away, gateway.root.path()).unwrap();
    gateway.step();
    gateway.assert_whole();
}

#[test]
fn seals_are_signed_also_when_the_process_ends_before_that() {
    let mut gateway = Gateway::new();
    for _ in 0..3 {
        gateway.session();
        gateway.pass(Duration::from_secs(3_700));
        gateway.kill_archiver();
    }
    gateway.step();
    let told = gateway.archive.sign(gateway.now).unwrap();
    assert!(told.is_some_and(|note| note.text().starts_with("nattrail/gw\n")));
    assert_eq!(gateway.archive.sign(gateway.now).unwrap(), None, "once");
    let reader = Reader::open(gateway.root.path()).unwrap();
    let seals = reader.seals(&(Millis::MIN..=Millis::MAX)).unwrap();
    let root = gateway.root.path();
    let audit = audit::audit(root, &Known::default(), gateway.now, &mut |_, _| ()).unwrap();
    assert_eq!(audit.findings, []);
    assert_eq!(
        (audit.logs[0].seals, audit.unsigned),
        (seals.len() as u64, 0)
    );
}

#[test]
fn a_day_of_25_hours_has_the_sessions_of_both_hours_that_were_the_same() {
    let mut gateway = Gateway::new();
    gateway.now = Wall::from_secs(START - 16 * 3_600 + 1_800);
    for hour in 0..25 {
        gateway.session();
        gateway.pass(Duration::from_secs(3_600));
        if hour == 12 {
            gateway.now = gateway.now.saturating_sub(Duration::from_secs(3_600));
        }
    }
    gateway.pass(Duration::from_secs(2 * 86_400));
    gateway.archive.sign(gateway.now).unwrap();
    gateway.assert_whole();
    let reader = Reader::open(gateway.root.path()).unwrap();
    let twelve = Millis::from(gateway.ended[12].1);
    let (mut found, wanted) = (Vec::new(), Wanted::alive(twelve..=twelve));
    for path in reader.sessions(&wanted.alive).unwrap() {
        let mut table = Table::open(&path).unwrap();
        let each = &mut |row: Row| found.push(row.pre.src_port);
        table.find(&wanted, each).unwrap();
    }
    found.sort_unstable();
    assert_eq!(found, [13, 14]);
    let root = gateway.root.path();
    let audit = audit::audit(root, &Known::default(), gateway.now, &mut |_, _| ()).unwrap();
    assert_eq!(audit.findings, []);
}

#[test]
fn sessions_go_within_a_day_after_their_time_is_over_and_not_before() {
    let mut gateway = Gateway::new();
    // Until midnight, and a minute for the seal.
    gateway.live(8);
    gateway.now = gateway.now.saturating_add(Duration::from_secs(60));
    gateway.live(1);
    gateway.session();
    assert_eq!(gateway.live(3 * 24), 0);
    gateway.kill_archiver();
    assert_eq!(gateway.live(22), 0);
    gateway.assert_whole();
    assert_eq!(gateway.live(2), 1);
    assert_eq!(gateway.archived().len(), 0);
}

#[test]
fn a_start_deletes_what_is_too_old_once() {
    let mut gateway = Gateway::new();
    gateway.archive.retention = Retention::default();
    gateway.session();
    assert_eq!(gateway.live(6 * 24), 0);
    gateway.kill_archiver();
    gateway.step();
    let deleted = gateway.archive.expire(gateway.now).unwrap();
    assert_eq!(deleted.len(), 1);
    assert_eq!(gateway.archive.expire(gateway.now).unwrap(), []);
}

#[test]
fn a_clock_that_is_far_ahead_deletes_nothing_for_a_day() {
    let mut gateway = Gateway::new();
    gateway.live(30);
    gateway.session();
    gateway.live(1);
    let right = gateway.now;
    // The archiver's own clock.
    let far = Wall::from_secs(START + 20 * 365 * 86_400);
    gateway.kill_archiver();
    gateway.archive.step(gateway.now).unwrap();
    assert_eq!(gateway.archive.expire(far).unwrap(), []);
    // That of the daemon as well.
    gateway.now = far;
    assert_eq!(gateway.live(20), 0);
    gateway.kill_archiver();
    assert_eq!(gateway.live(2), 0);
    gateway.assert_whole();
    // It is right again.
    gateway.now = right;
    gateway.kill_archiver();
    assert_eq!(gateway.live(48), 0);
    gateway.assert_whole();
    assert_eq!(gateway.live(72), 1);
}

#[test]
fn a_clock_that_stays_ahead_for_more_than_a_day_is_believed() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.live(1);
    gateway.now = gateway.now.saturating_add(Duration::from_secs(9 * 86_400));
    assert_eq!(gateway.live(24), 0);
    assert_eq!(gateway.live(24), 1);
}
