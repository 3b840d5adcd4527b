//! The bound of waiting records: up to `log.size` they wait as long as it takes, and no loss beyond it is silent.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::account::gaps;
use crate::read::{self, Item, Lines};
use crate::scene::{Mailbox, OUTPUTS, Scene};
use crate::support::netns::succeed;
use crate::support::status::number;

/// Sessions of one flush: fewer than the kernel's table holds.
const FLUSH: u32 = 47_000;
/// Enough of them for more records than 16 MiB hold.
const FLUSHES: u64 = 4;

#[test]
fn beyond_the_size_of_the_log_one_gap_says_how_much_each_output_lost() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    // All receivers are missing: closed ports, no sockets, and a directory in the place of the file.
    (scene.local, scene.journal) = (None, None);
    scene.configure("export-delay = \"50ms\"", "[log]\nsize = \"16MiB\"");
    let parked = scene.home.path().join("parked");
    fs::create_dir(scene.file()).unwrap();
    scene.add_route();
    scene.start();
    for _ in 0..FLUSHES {
        scene.make(FLUSH);
    }
    // A probe in flight while its records were evicted counts once it is answered.
    let lost_by = |status: &Value, index: usize| number(status, &format!("/outputs/{index}/lost"));
    let status = scene.wait_for_status("all outputs to have lost as much", |status| {
        let lost = lost_by(status, 0);
        lost > 0 && (0..OUTPUTS.len()).all(|index| lost_by(status, index) == lost)
    });
    let records = number(&status, "/log/serial");
    assert_eq!(records, 2 * FLUSHES * u64::from(FLUSH));
    assert!(number(&status, "/log/octets") <= 16 << 20);
    let lost = [lost_by(&status, 0); OUTPUTS.len()];
    assert_eq!(
        number(&status, "/gaps/undelivered/lost"),
        lost.iter().sum::<u64>()
    );

    // The next run knows a loss that was not stated yet.
    scene.take_daemon().terminate();
    fs::rename(scene.file(), parked).unwrap();
    scene.local = Some(Mailbox::bind(scene.home.path().join("local.sock")));
    scene.journal = Some(Mailbox::bind(scene.home.path().join("journal.sock")));
    scene.listen();
    scene.start();
    let status = scene.wait_for_status("all outputs to take all", |status| {
        let behind = |index: usize| number(status, &format!("/outputs/{index}/behind"));
        (0..OUTPUTS.len()).all(|index| behind(index) == 0)
    });
    // This includes the gap of the restart.
    assert_eq!(number(&status, "/log/serial"), records + 1);
    scene.take_daemon().terminate();
    scene.close();
    for (index, output) in OUTPUTS.iter().enumerate() {
        let (events, gaps) = scene.counts(index);
        assert_eq!(events + lost[0], records, "{output} has {gaps:?}");
        let undelivered = Item::Gap {
            cause: "undelivered".to_owned(),
            lost: Some(lost[0]),
        };
        let restart = Item::Gap {
            cause: "restart".to_owned(),
            lost: None,
        };
        match *output {
            "v5" => assert_eq!(gaps, []),
            _ => assert_eq!(gaps, [undelivered, restart], "{output}"),
        }
    }
}

#[test]
fn beyond_the_age_of_the_log_nothing_is_delivered_that_counts_as_lost() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    (scene.local, scene.journal) = (None, None);
    scene.configure("export-delay = \"50ms\"", "[log]\nage = \"1s\"");
    fs::create_dir(scene.file()).unwrap();
    scene.start();
    scene.make(500);
    scene.wait_for_status("all outputs to have lost all", |status| {
        let lost = |index: usize| number(status, &format!("/outputs/{index}/lost"));
        (0..OUTPUTS.len()).all(|index| lost(index) == 1000)
    });
    fs::remove_dir(scene.file()).unwrap();
    scene.local = Some(Mailbox::bind(scene.home.path().join("local.sock")));
    scene.journal = Some(Mailbox::bind(scene.home.path().join("journal.sock")));
    scene.listen();
    scene.add_route();
    // They have every record that is not lost; this waits for the gap.
    scene.wait_until_committed(&[""]);
    scene.take_daemon().terminate();
    for (index, output) in OUTPUTS.iter().enumerate() {
        let undelivered = Item::Gap {
            cause: "undelivered".to_owned(),
            lost: Some(1000),
        };
        let expected = match *output {
            "v5" => vec![],
            _ => vec![undelivered],
        };
        assert_eq!(scene.counts(index), (0, expected), "{output}");
    }
}

#[test]
fn a_flush_of_47_000_sessions_costs_slow_readers_nothing() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let path = |name: &str| scene.home.path().join(name);
    let pause = Duration::from_micros(100);
    (scene.local, scene.journal) = (None, None);
    scene.local = Some(Mailbox::slow(path("local.sock"), pause));
    scene.journal = Some(Mailbox::slow(path("journal.sock"), pause));
    succeed(Command::new("mkfifo").arg(scene.file()), "");
    scene.configure("export-delay = \"50ms\"", "");
    let stop = AtomicBool::new(false);
    let text = thread::scope(|scope| {
        let (file, done) = (scene.file(), Done(&stop));
        let fifo = scope.spawn(|| read_slowly(file, pause, &stop));
        scene.start();
        scene.make(FLUSH);
        let status = scene.wait_for_status("the local outputs to take all", |status| {
            let behind = |index: usize| number(status, &format!("/outputs/{index}/behind"));
            (4..OUTPUTS.len()).all(|index| behind(index) == 0)
        });
        assert_eq!(number(&status, "/gaps/undelivered/count"), 0);
        scene.take_daemon().kill();
        drop(done);
        fifo.join().unwrap()
    });
    let of_file: Vec<Item> = text
        .lines()
        .map(|line| read::line(Lines::Json, line))
        .collect();
    for (index, output) in OUTPUTS.iter().enumerate().skip(4) {
        let items = match *output {
            "file" => of_file.clone(),
            _ => scene.items(index),
        };
        assert_eq!(gaps(&items), []);
        crate::account::assert_each(output, &items, &scene.made, crate::account::Twice::Never);
    }
}

/// Ends the work of another thread, even while a panic unwinds.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads a fifo page by page.
fn read_slowly(path: PathBuf, pause: Duration, stop: &AtomicBool) -> String {
    // This does not wait for the writer.
    let mut options = fs::OpenOptions::new();
    let mut fifo = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .unwrap();
    let (mut bytes, mut page) = (Vec::new(), [0; 4096]);
    loop {
        match fifo.read(&mut page) {
            Ok(length) if length > 0 => bytes.extend_from_slice(&page[..length]),
            _ if stop.load(Ordering::Relaxed) => return String::from_utf8(bytes).unwrap(),
            _ => {}
        }
        thread::sleep(pause);
    }
}
