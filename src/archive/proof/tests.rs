//! Logs on a disk: appended, reopened, cut short at any operation, and tampered with.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::log::Log;
use super::merkle::is_consistent;
use super::note::{Checkpoint, Note, PublicKey};
use super::tiles::Reader;
use super::verify::{Fault, Report, verify};
use crate::time::Wall;

mod bundles;
mod crashes;
mod tampering;

const ORIGIN: &str = "gw1.example/nattrail";
const DAY: u64 = 86_400;

/// A day in 2026, and some seconds.
fn at(day: u64, secs: u64) -> Wall {
    Wall::from_secs(20_700 * DAY + day * DAY + secs)
}

/// A time by which files that were written just now are old.
fn later() -> Wall {
    Wall::from_secs(1 << 33)
}

/// Directories for a log and its keys.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("proof")
    }

    fn keys(&self) -> PathBuf {
        self.0.path().join("keys")
    }

    fn open(&self, now: Wall) -> Log {
        Log::open(&self.log(), &self.keys(), ORIGIN, now).unwrap()
    }

    /// A log of three keys: the entries are those that name them (0, 3 and 5), and some JSON.
    fn three_days() -> Self {
        let place = Self::new();
        let mut log = place.open(at(0, 0));
        for (day, secs) in [(0, 10), (0, 20), (1, 10), (3, 10), (3, 20)] {
            log.append(entry(day, secs).as_bytes(), at(day, secs))
                .unwrap();
        }
        place
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.log()).unwrap()
    }

    fn report(&self) -> Report {
        verify(&self.log(), None, &[], later(), &mut |_, _| ()).unwrap()
    }

    fn first_key(&self) -> PublicKey {
        self.report().epochs[0].key.clone()
    }

    fn witness(&self) -> (Note, Checkpoint) {
        let reader = self.reader();
        (reader.note().clone(), reader.checkpoint().clone())
    }

    /// The entries that do not name keys.
    fn entries(&self) -> Vec<String> {
        let (reader, mut found) = (self.reader(), Vec::new());
        let mut each = |_, entry: &[u8]| {
            let entry = String::from_utf8(entry.to_vec()).unwrap();
            found.extend(entry.starts_with('{').then_some(entry));
        };
        reader.for_each(0..reader.size(), &mut each).unwrap();
        found
    }
}

fn entry(day: u64, secs: u64) -> String {
    format!("{{\"day\":{day},\"secs\":{secs}}}")
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    let below = |path: PathBuf| {
        if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        }
    };
    items.flat_map(below).collect()
}

#[test]
fn a_log_has_its_entries_and_a_key_for_each_day_that_wrote() {
    let place = Place::three_days();
    let report = place.report();
    assert_eq!(report.findings, []);
    assert_eq!(place.entries().len(), 5);
    let named: Vec<_> = report
        .epochs
        .iter()
        .map(|epoch| (epoch.entry, epoch.made))
        .collect();
    assert_eq!(named, [(0, at(0, 0)), (3, at(1, 10)), (5, at(3, 10))]);
}

#[test]
fn a_reopened_log_goes_on() {
    let place = Place::three_days();
    let old = place.witness();
    assert_eq!(place.open(at(3, 30)).append(b"{}", at(3, 30)).unwrap(), 8);
    let (new, reader) = (place.witness().1, place.reader());
    let proof = reader.consistency(8, 9).unwrap();
    assert!(is_consistent((8, old.1.root), (9, new.root), &proof));
    let report = verify(
        &place.log(),
        Some(&place.first_key()),
        &[old],
        later(),
        &mut |_, _| (),
    );
    assert_eq!(report.unwrap().findings, []);
}

#[test]
fn full_tiles_replace_partial_ones() {
    let place = Place::new();
    let mut log = place.open(at(0, 0));
    for number in 1..260 {
        assert_eq!(
            log.append(number.to_string().as_bytes(), at(0, number))
                .unwrap(),
            number
        );
    }
    drop(log);
    place.open(at(0, 300)).append(b"last", at(0, 300)).unwrap();
    assert_eq!(place.report().findings, []);
    assert!(place.log().join("tile/0/000").is_file() && !place.log().join("tile/0/000.p").exists());
    let (reader, root) = (place.reader(), place.report().root);
    for index in [0, 1, 255, 256, 260] {
        let leaf = super::merkle::Hash::leaf(&reader.entry(index).unwrap());
        let proof = reader.inclusion(index, 261).unwrap();
        assert_eq!(super::merkle::root_of(leaf, index, 261, &proof), Some(root));
    }
}

#[test]
fn entries_that_do_not_fit_and_those_that_look_like_keys_are_refused() {
    let place = Place::new();
    let mut log = place.open(at(0, 0));
    log.append(&vec![b' '; 65_535], at(0, 1)).unwrap();
    let error = log.append(&vec![b' '; 65_536], at(0, 1)).unwrap_err();
    assert!(error.to_string().contains("at most 65535"), "{error}");
    let key_entry = log.reader(at(0, 1)).unwrap().entry(0).unwrap();
    log.append(&key_entry, at(0, 1)).unwrap_err();
    assert_eq!(place.report().size, 2);
}

#[test]
fn a_log_is_open_once() {
    let place = Place::new();
    let _open = place.open(at(0, 0));
    let error = Log::open(&place.log(), &place.keys(), ORIGIN, at(0, 0)).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[test]
fn a_log_whose_keys_are_gone_does_not_begin_anew() {
    let place = Place::three_days();
    fs::remove_dir_all(place.keys()).unwrap();
    let error = Log::open(&place.log(), &place.keys(), ORIGIN, at(4, 0)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the private key of this log is missing"),
        "{error}"
    );
}

#[test]
fn a_log_that_was_restored_from_an_older_copy_does_not_go_on() {
    let place = Place::three_days();
    let checkpoint = place.log().join("checkpoint");
    let old = fs::read(&checkpoint).unwrap();
    place.open(at(3, 30)).append(b"{}", at(3, 30)).unwrap();
    fs::write(&checkpoint, old).unwrap();
    for path in ["tile/0/000.p/9", "tile/entries/000.p/9"] {
        fs::remove_file(place.log().join(path)).unwrap();
    }
    Log::open(&place.log(), &place.keys(), ORIGIN, at(3, 40)).unwrap_err();
}

#[test]
fn private_keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::three_days();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.keys()), 0o700);
    assert!(files(&place.keys()).iter().all(|file| mode(file) == 0o600));
    assert!(
        files(&place.log())
            .iter()
            .all(|file| mode(file) & 0o137 == 0)
    );
}

#[test]
fn a_clock_that_steps_back_makes_another_key_and_no_error() {
    let place = Place::three_days();
    place.open(at(2, 0)).append(b"{}", at(2, 0)).unwrap();
    let report = place.report();
    assert_eq!((report.findings, report.epochs.len()), (vec![], 4));
}

#[test]
fn the_octets_of_the_key_of_yesterday_are_gone_from_the_disk() {
    let place = Place::new();
    let mut log = place.open(at(0, 0));
    log.append(entry(0, 10).as_bytes(), at(0, 10)).unwrap();
    // Another name of the same octets.
    let (key, old) = (place.keys().join("current"), place.0.path().join("old"));
    fs::hard_link(&key, &old).unwrap();
    let before = fs::read(&old).unwrap();
    log.append(entry(1, 10).as_bytes(), at(1, 10)).unwrap();
    let after = fs::read(&old).unwrap();
    assert!(after.len() == before.len() && after.iter().all(|&octet| octet == 0));
    let new = fs::read(&key).unwrap();
    assert!(!new.is_empty() && new != before);
}
