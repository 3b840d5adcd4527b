//! `nattrail verify` and `nattrail who --proof` as a user runs them: a sound archive is accepted, and each kind of damage is
//! found and named.

#![allow(clippy::unwrap_used)]

#[path = "../support/answer.rs"]
mod answer;
#[path = "../support/mod.rs"]
mod support;

mod bundles;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use nattrail::archive::evidence::Evidence;
use nattrail::archive::row::Millis;
use nattrail::archive::spool::{Place, Spool};
use nattrail::archive::tree::Order;
use nattrail::archive::wanted::Wanted;
use nattrail::session::{Gap, GapCause, Protocol};
use nattrail::time::Wall;
use serde_json::Value;
use tempfile::TempDir;

use self::answer::{row, status, stderr, stdout};
use self::bundles::QUESTION;

/// 2026-11-20T20:00:00Z.
const START: u64 = 1_795_204_800_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// The archive of a gateway, six hours over a midnight. Each hour has three sessions that ended, and one that ends after
/// its end and waits in the spool.
struct Archive {
    directory: TempDir,
    spool: Spool,
    hours: u64,
}

impl Archive {
    /// Sealed and signed.
    fn new() -> Self {
        let mut archive = Self::empty();
        for _ in 0..6 {
            archive.hour();
            archive.sign();
        }
        archive
    }

    fn empty() -> Self {
        let directory = TempDir::new().unwrap();
        let root = directory.path().join("archive");
        Self {
            spool: Spool::open(&root, "gw1", Millis::new(START)).unwrap(),
            directory,
            hours: 0,
        }
    }

    /// Seals an hour.
    fn hour(&mut self) {
        let hour = START + self.hours * HOUR;
        let port = 1_000 * (self.hours as u16 + 1);
        for number in 0..4 {
            let end = hour + u64::from(number) * 20 * MINUTE + MINUTE;
            self.spool.push_begun();
            self.spool.push(&row(
                "10.1.2.3",
                port + number,
                Protocol::UDP,
                end - MINUTE,
                end,
            ));
        }
        self.spool.push_gap(&Gap {
            cause: GapCause::Overflow,
            from: Wall::from_millis(hour),
            to: Wall::from_millis(hour + MINUTE),
            lost: Some(12),
        });
        self.hours += 1;
        let next = self.hours;
        self.spool.commit(Place { run: 1, next }).unwrap();
        self.spool.seal(Millis::new(hour + HOUR)).unwrap();
    }

    fn sign(&mut self) {
        let now = Wall::from_millis(START + self.hours * HOUR + MINUTE);
        // A process of its own each time.
        let mut evidence = Evidence::new(&self.root(), "gw1");
        // A process that another test starts may hold the lock until it runs its program.
        let sealed = self.spool.sealed_number();
        let append = || evidence.append(sealed, now).ok();
        assert!(support::wait_for("the lock of the log", append));
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    /// The files below a directory of the archive, sorted.
    fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.root().join(below)];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => directories.push(path),
                    false => files.push(path),
                }
            }
        }
        files.sort();
        files
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let config = self.directory.path().join("n.toml");
        let text = format!(
            "[pending]\ndatabase = \"/nonexistent/pending.db\"\n[archive]\ndirectory = \"{}\"\n",
            self.root().display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nattrail"));
        command.arg("-c").arg(config).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("NATTRAIL_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn key(&self) -> String {
        let output = self.run(&["archive", "key"]);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        stdout(&output).trim_end().to_owned()
    }

    fn verify(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[&["verify", "--json"], arguments].concat());
        let object = serde_json::from_slice(&output.stdout);
        let why = stderr(&output);
        (status(&output), object.unwrap_or_else(|_| panic!("{why}")))
    }

    fn assert_sound(&self) {
        let (status, audit) = self.verify(&["--key", &self.key()]);
        assert_eq!((status, &audit["sound"]), (0, &true.into()), "{audit:#}");
    }

    /// Expects exactly these findings: files, and a part of each reason.
    fn assert_found(&self, arguments: &[&str], expected: &[(&Path, &str)]) {
        let (status, audit) = self.verify(arguments);
        assert_eq!((status, &audit["sound"]), (4, &false.into()), "{audit:#}");
        let found = audit["findings"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{audit:#}");
        for (file, reason) in expected {
            let file = file.strip_prefix(self.root()).unwrap_or(file);
            let is_it = |finding: &&Value| {
                finding["file"] == file.to_str().unwrap()
                    && finding["reason"].as_str().unwrap().contains(reason)
            };
            assert!(
                found.iter().any(|it| is_it(&it)),
                "{file:?} {reason}: {audit:#}"
            );
        }
    }
}

/// Changes one octet in the middle.
fn flip(path: &Path) {
    let mut octets = fs::read(path).unwrap();
    let at = octets.len() / 2;
    octets[at] ^= 1;
    fs::write(path, octets).unwrap();
}

fn age(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

/// Edits a record before it is signed, as a false gateway would.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut record = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut record);
    fs::write(path, serde_json::to_vec_pretty(&record).unwrap()).unwrap();
}

#[test]
fn a_sound_archive_is_accepted_and_says_what_it_has() {
    let archive = Archive::new();
    let output = archive.run(&["verify"]);
    assert_eq!(status(&output), 0, "{}", stdout(&output));
    let (shown, key) = (stdout(&output), archive.key());
    assert!(key.starts_with("nattrail/gw1+"), "{key}");
    assert!(
        shown.starts_with("gateway gw1: 8 entries, 6 seals until 2026-11-21T02:00:00"),
        "{shown}"
    );
    assert!(
        shown.contains(&format!(
            "this trusts the first key of the log itself, {key}\n"
        )),
        "{shown}"
    );
    // 23 of 24 sessions: the last one ends later.
    assert!(
        shown.contains("files with 23 sessions are as they were sealed\n"),
        "{shown}"
    );
    let output = archive.run(&["verify", "--key", &key]);
    assert!(!stdout(&output).contains("trusts"), "{}", stdout(&output));
}

#[test]
fn an_archive_with_nothing_in_it_shows_nothing() {
    let shown = stdout(&Archive::empty().run(&["verify"]));
    assert!(shown.ends_with("has no evidence log: nothing shows that it is sound\n"));
}

#[test]
fn an_archive_is_sound_after_its_files_were_merged_and_in_a_copy() {
    let mut archive = Archive::new();
    for day in [START, START + 24 * HOUR] {
        assert!(!archive.spool.compact(Millis::new(day)).unwrap().is_empty());
    }
    archive.sign();
    archive.assert_sound();
    let (_, audit) = archive.verify(&[]);
    let found = (&audit["sessions"], &audit["files"]);
    assert_eq!(found, (&23.into(), &2.into()), "{audit:#}");
    let copy = archive.directory.path().join("copy");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(archive.root())
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    fs::remove_dir_all(copy.join("spool")).unwrap();
    let (status, audit) = archive.verify(&[copy.to_str().unwrap()]);
    assert_eq!(status, 0, "{audit:#}");
}

#[test]
fn what_was_deleted_under_a_rule_is_told_and_a_held_session_keeps_its_proof() {
    let mut archive = Archive::new();
    let midnight = START + 4 * HOUR;
    let held = Wanted {
        post_sport: Some(3_000),
        ..Wanted::alive(Millis::MIN..=Millis::MAX)
    };
    let order = Order {
        rule: "365d".to_owned(),
        before: Millis::new(midnight),
        at: Millis::new(midnight + 365 * 24 * HOUR),
        act: None,
    };
    assert_eq!(archive.spool.purge(&order, &[held]).unwrap().len(), 1);
    archive.sign();
    archive.assert_sound();
    let (_, audit) = archive.verify(&[]);
    let log = &audit["logs"][0];
    assert_eq!(
        (&log["deleted"], &log["purge"]["rule"]),
        (&14.into(), &"365d".into())
    );
    assert_eq!(
        (&audit["sessions"], &audit["purged"]),
        (&9.into(), &0.into())
    );
    let shown = stdout(&archive.run(&["verify"]));
    let line = "  14 sessions were deleted; the purge that went furthest was of those that ended before \
                2026-11-21T00:00:00.000Z, under the rule \"365d\"\n";
    assert!(shown.contains(line), "{shown}");

    let output = archive.prove(&QUESTION);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(status(&archive.verify_proof(&archive.key())), 0);
    let output = archive.run(&["who", "203.0.113.9:2000", "--at", "2026-11-20 21:00:30"]);
    assert_eq!(status(&output), 3);
    let sentence = "gateway gw1: the sessions that ended before 2026-11-21 00:00:00 UTC were deleted on 2027-11-21 under the \
                    rule \"365d\"";
    let shown = stdout(&output);
    assert!(shown.contains(sentence), "{shown}");
}

#[test]
fn a_file_that_was_changed_cut_short_deleted_or_added_is_named() {
    let archive = Archive::new();
    let file = archive.files("sessions").remove(2);
    let whole = fs::read(&file).unwrap();
    flip(&file);
    archive.assert_found(&[], &[(&file, "the file was changed: its SHA-256 is ")]);
    fs::write(&file, &whole[..whole.len() - 9]).unwrap();
    archive.assert_found(&[], &[(&file, "it is damaged")]);
    fs::remove_file(&file).unwrap();
    archive.assert_found(
        &[],
        &[(
            &file,
            "the file is missing, and with it 4 sessions: seal 3 of gw1",
        )],
    );
    fs::write(&file, &whole).unwrap();
    archive.assert_sound();
    let added = file.with_file_name("other.parquet");
    fs::write(&added, &whole).unwrap();
    archive.assert_found(&[], &[(&added, "the file was added")]);
    fs::create_dir(archive.root().join("sessions2")).unwrap();
    let elsewhere = archive.root().join("sessions2/other.parquet");
    fs::rename(&added, &elsewhere).unwrap();
    archive.assert_found(&[], &[(&elsewhere, "the file was added")]);
}

#[test]
fn a_seal_record_that_was_changed_deleted_or_added_is_named() {
    let archive = Archive::new();
    let records = archive.files("seals");
    let whole = fs::read(&records[1]).unwrap();
    flip(&records[1]);
    archive.assert_found(&[], &[(&records[1], "the seal record was changed")]);
    fs::remove_file(&records[1]).unwrap();
    archive.assert_found(&[], &[(&records[1], "the seal record is missing")]);
    fs::write(&records[1], &whole).unwrap();
    let added = records[1].with_file_name("other.json");
    fs::write(&added, &whole).unwrap();
    archive.assert_found(&[], &[(&added, "does not belong here")]);
    let mut other = Archive::empty();
    other.hour();
    let false_one = archive.root().join("seals/date=2026-11-20/false.json");
    fs::copy(&other.files("seals")[0], &false_one).unwrap();
    fs::remove_file(&added).unwrap();
    edit(&false_one, |seal| {
        seal["until"] = "2026-11-20T21:30:00.000Z".into()
    });
    let name = "gw1-20261120T200000Z-20261120T213000Z-1-0.json";
    let named = false_one.with_file_name(name);
    fs::rename(&false_one, &named).unwrap();
    archive.assert_found(&[], &[(&named, "the seal record was added: no entry")]);
}

#[test]
fn a_log_that_was_changed_cut_off_or_taken_away_is_named() {
    let mut archive = Archive::new();
    let key = archive.key();
    let (log, away) = (
        archive.root().join("log/gw1"),
        archive.directory.path().join("away"),
    );
    let tile = log.join("tile/0/000.p/8");
    let whole = fs::read(&tile).unwrap();
    flip(&tile);
    archive.assert_found(&[], &[(&tile, "was changed")]);
    fs::write(&tile, whole).unwrap();
    let copied = Command::new("cp").arg("-a").arg(&log).arg(&away).status();
    assert!(copied.unwrap().success());
    archive.hour();
    archive.sign();
    let witness = archive.directory.path().join("witness");
    fs::copy(log.join("checkpoint"), &witness).unwrap();
    let witness = ["--witness", witness.to_str().unwrap()];
    assert_eq!(archive.verify(&witness).0, 0);
    // The log as it was before the last seal, whose record and files go, too.
    for below in ["sessions", "seals"] {
        fs::remove_file(archive.files(below).last().unwrap()).unwrap();
    }
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&away, &log).unwrap();
    archive.assert_found(&witness, &[(&log.join("checkpoint"), "the log is cut off")]);
    fs::remove_dir_all(archive.root().join("log")).unwrap();
    let missing = [(Path::new("log"), "the log \"nattrail/gw1\", of which a key")];
    let records = (
        Path::new("log/gw1"),
        "there are seal records of this gateway",
    );
    archive.assert_found(&["--key", &key], &[missing[0], records]);
    archive.assert_found(&[], &[records]);
}

#[test]
fn a_log_that_was_written_anew_has_another_key() {
    let (archive, other) = (Archive::new(), Archive::new());
    let (status, audit) = archive.verify(&["--key", &other.key()]);
    assert_eq!(status, 4);
    let reason = audit["findings"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("the key that was given"), "{audit:#}");
}

#[test]
fn a_seal_that_was_not_signed_for_an_hour_is_named() {
    let mut archive = Archive::new();
    archive.hour();
    let (status, audit) = archive.verify(&[]);
    assert_eq!((status, &audit["unsigned"]), (0, &1.into()), "{audit:#}");
    let record = archive.files("seals").pop().unwrap();
    age(&record);
    archive.assert_found(
        &[],
        &[(
            &record,
            "written over an hour ago, and its log does not have it",
        )],
    );
    // The process that comes next makes up for it.
    archive.sign();
    archive.assert_sound();
}

#[test]
fn counters_that_do_not_add_up_are_named() {
    for (name, expected) in [
        (
            "ended",
            "1 sessions were kept before and 5 ended, but 4 are in files",
        ),
        ("kept", "the counters do not add up"),
        ("damaged", "the counters do not add up"),
        ("lost", "13 records were lost, and 12 by its gaps"),
    ] {
        let mut archive = Archive::new();
        archive.hour();
        let record = archive.files("seals").pop().unwrap();
        edit(&record, |seal| {
            seal[name] = (seal[name].as_u64().unwrap() + 1).into()
        });
        archive.sign();
        archive.assert_found(&[], &[(&record, expected)]);
    }
}

#[test]
fn a_seal_that_says_another_number_of_rows_is_named() {
    let mut archive = Archive::new();
    archive.hour();
    let record = archive.files("seals").pop().unwrap();
    edit(&record, |seal| {
        seal["files"][0]["rows"] = 3.into();
        seal["kept"] = 2.into();
    });
    archive.sign();
    let file = archive.files("sessions").pop().unwrap();
    archive.assert_found(
        &[],
        &[(
            &file,
            "the file has 4 sessions of gw1, seal 7 of gw1 says 3",
        )],
    );
}

#[test]
fn a_seal_that_the_log_lacks_is_a_hole() {
    let mut archive = Archive::new();
    archive.hour();
    fs::remove_file(archive.files("seals").pop().unwrap()).unwrap();
    let file = archive.files("sessions").pop().unwrap();
    archive.hour();
    archive.sign();
    let record = archive.files("seals").pop().unwrap();
    archive.assert_found(
        &[],
        &[
            (&file, "the file was added"),
            (&record, "seals 7 to 7 are missing before it"),
            (&record, "it tells of the time from 2026-11-21T03:00:00"),
        ],
    );
}
