//! A damaged database, and one of another program: logging goes on, and no record names a bystander.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::ledger::Key;
use crate::read::{Event, Item};
use crate::scene::Scene;
use crate::support::gateway::CLIENT;
use crate::support::status::number;

const ENDED: u32 = 100;
const PENDING: u32 = 300;
/// The first ones are in the header that no checksum covers: application id and version.
const HEADER: [usize; 3] = [62, 69, 71];
const RANDOM: usize = 60;

/// xorshift64: the same offsets in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn database(scene: &Scene) -> PathBuf {
    scene.home.state().join("pending.db")
}

/// Blocks writing to the file, or allows it again.
fn block_file(scene: &Scene, is_blocked: bool) {
    if is_blocked {
        fs::create_dir(scene.file()).unwrap();
    } else {
        let _ = fs::remove_dir(scene.file());
    }
}

/// A database with pending sessions, and with records that no output has taken. Returns the ended sessions.
fn prepare(scene: &mut Scene) -> BTreeSet<Key> {
    (scene.local, scene.journal) = (None, None);
    scene.configure("", "");
    block_file(scene, true);
    scene.start();
    scene.make(ENDED);
    let ended = scene.made.iter().copied().collect();
    scene.begin(PENDING);
    scene.take_daemon().terminate();
    block_file(scene, false);
    ended
}

/// Starts with a database of these octets, and waits until the sessions were compared with the kernel's table. Returns
/// the daemon's records and log.
fn run_with(scene: &mut Scene, octets: &[u8]) -> (Vec<Item>, String, u64) {
    for entry in fs::read_dir(scene.home.state()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let _ = fs::remove_file(scene.file());
    fs::write(database(scene), octets).unwrap();
    scene.start();
    let status = scene.wait_for_status("the first audit", |status| {
        number(status, "/sessions/audits") >= 1
            && number(status, "/sessions/pending") == u64::from(PENDING)
            && number(status, "/outputs/5/behind") == 0
    });
    let logged = scene.take_daemon().terminate().stderr.join("\n");
    (
        scene.items(5),
        logged,
        number(&status, "/sessions/restored"),
    )
}

#[test]
fn a_flipped_bit_anywhere_names_nobody_who_was_not_there() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let ended = prepare(&mut scene);
    let sound = fs::read(database(&scene)).unwrap();
    let made: BTreeSet<Key> = scene.made.iter().copied().collect();
    let mut random = Random(8);
    // Only used octets count: most of a small database is free.
    let used = |offset: &usize| sound[*offset] != 0;
    let random = std::iter::repeat_with(|| random.below(sound.len())).filter(used);
    let random: Vec<_> = random.take(RANDOM).collect();
    let mut outcomes = [0; 3];
    for (number, offset) in HEADER.into_iter().chain(random).enumerate() {
        let mut octets = sound.clone();
        octets[offset] ^= 1 << (number % 8);
        let (items, logged, restored) = run_with(&mut scene, &octets);
        let mut creates = 0;
        for item in &items {
            let Item::Event {
                event,
                protocol,
                source,
                key,
                inferred,
                ..
            } = item
            else {
                continue;
            };
            creates += u32::from(*event == Event::Create && !inferred);
            assert!(made.contains(key), "octet {offset}: {item:?}\n{logged}");
            assert_eq!((*protocol, *source), (17, CLIENT), "octet {offset}");
            let is_over = !inferred && ended.contains(key);
            assert!(
                *event == Event::Create || is_over,
                "octet {offset}: {item:?}\n{logged}"
            );
        }
        let says_so = logged.contains("damaged");
        let is_whole = restored == u64::from(PENDING) && creates == ENDED + PENDING;
        assert!(
            is_whole || says_so,
            "octet {offset}: {restored} restored, {creates} creates\n{logged}"
        );
        outcomes[if !says_so {
            0
        } else if logged.contains("set aside") {
            1
        } else {
            2
        }] += 1;
    }
    let [unharmed, aside, lost] = outcomes;
    eprintln!(
        "{unharmed} without harm, {aside} set aside, {lost} with records lost, of {} octets",
        sound.len()
    );
    assert!(aside > 0);
}

/// A database that this program must not write stays as it is, and logging goes on.
fn is_left_alone(make: impl Fn(&Path), reason: &str) {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.configure("", "");
    make(&database(&scene));
    let before = fs::read(database(&scene)).unwrap();
    scene.start();
    let message = scene.daemon().wait_for_message(reason);
    assert!(message.contains("records leave from memory"), "{message}");
    scene.made = scene.sessions.begin_all(&scene.net, 50, 0);
    scene.net.end_connections();
    scene.wait_for_status("the records in the file", |status| {
        number(status, "/outputs/5/records") == 100
    });
    let status = crate::support::status::ask(&scene.home);
    assert_eq!(status["store"]["available"], false);
    scene.take_daemon().terminate();
    crate::account::assert_each(
        "file",
        &scene.items(5),
        &scene.made,
        crate::account::Twice::Never,
    );
    assert_eq!(fs::read(database(&scene)).unwrap(), before);
    let left = fs::read_dir(scene.home.state()).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["pending.db", "pending.db.lock"]);
}

#[test]
fn the_database_of_another_program_is_left_as_it_is() {
    is_left_alone(
        |path| {
            let connection = Connection::open(path).unwrap();
            let schema = "CREATE TABLE bookmark (url TEXT); INSERT INTO bookmark VALUES ('x');";
            connection.execute_batch(schema).unwrap();
        },
        "it is the database of another program",
    );
}

#[test]
fn the_database_of_a_newer_version_is_left_as_it_is() {
    is_left_alone(
        |path| {
            let connection = Connection::open(path).unwrap();
            let schema = "PRAGMA application_id = 0x6e74726c; PRAGMA user_version = 6;
                 CREATE TABLE run (version INTEGER, more TEXT); INSERT INTO run VALUES (6, 'x');";
            connection.execute_batch(schema).unwrap();
        },
        "its schema is version 6",
    );
}
