//! A backlog of very many records: it costs no memory, leaves fast, and delays no new record.
//!
//! `RECORD_LOG_BACKLOG` sets the number of records; the test prints its measurements.

use std::fs;
use std::time::{Duration, Instant};

use crate::generator::{Generator, Rate, Until};
use crate::read::Item;
use crate::scene::Scene;
use crate::support::status::{ask, number};

const USUAL: u64 = 200_000;
/// Sessions that are open at a time.
const BATCH: u64 = 50_000;
const CATCHING_UP: Duration = Duration::from_secs(600);

/// The process's own memory in kilobytes: pages of the database file may come and go with the page cache.
fn resident(scene: &Scene) -> u64 {
    let pid = scene.daemon().pid();
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1);
    kilobytes.unwrap().parse().unwrap()
}

/// Seconds of CPU that the daemon has used.
fn cpu(scene: &Scene) -> f64 {
    let pid = scene.daemon().pid();
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
}

#[test]
fn a_backlog_takes_no_memory_leaves_fast_and_delays_nothing() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let records = std::env::var("RECORD_LOG_BACKLOG");
    let wanted = records.map_or(USUAL, |text| text.parse().unwrap());
    let config = format!(
        "{}[pending]\nflush = \"100ms\"\n[log]\nsize = \"8GiB\"\n
         [[collector]]\naddress = \"192.0.2.129:4739\"\n
         [[syslog]]\ntarget = \"file\"\npath = \"{}\"\nformat = \"text\"\n",
        crate::support::daemon::CAPTURE,
        scene.file().display()
    );
    scene.home.configure(&config);
    scene
        .net
        .gateway
        .ip("route add 198.18.0.0/15 via 203.0.113.7");
    scene.start();
    let mut generator = Generator::new(&scene.net.client, 30_000);
    let mut batch = |scene: &Scene| {
        let until = Until {
            duration: Duration::from_secs(60),
            count: BATCH,
        };
        let _ = generator.run(Rate::PerSecond(40_000), until);
        let open = || {
            scene
                .run("conntrack", &["-C"])
                .trim()
                .parse::<u64>()
                .unwrap()
        };
        scene.wait_for_status("the creates", |status| {
            number(status, "/sessions/pending") == open()
        });
        scene.end();
    };
    batch(&scene);
    let before = resident(&scene);
    let mut highest = before;
    while number(&ask(&scene.home), "/log/serial") < wanted {
        batch(&scene);
        highest = highest.max(resident(&scene));
        // It has had all lines, and would only be long.
        fs::File::create(scene.file()).unwrap();
    }
    let behind = number(&ask(&scene.home), "/outputs/0/behind");
    assert!(behind >= wanted);
    let waited = resident(&scene);
    let octets = number(&ask(&scene.home), "/log/octets");

    scene.listen();
    let (begun, used) = (Instant::now(), cpu(&scene));
    scene.add_route();
    let mut slowest = Duration::ZERO;
    let mut made = 0;
    let took = loop {
        assert!(begun.elapsed() < CATCHING_UP);
        // New sessions, and the time until the file has them.
        let asked = Instant::now();
        made += u64::from(made < 2000) * 200;
        if made < 2000 {
            scene.begin(200);
            scene.wait_for_status("the file to have them", |status| {
                number(status, "/outputs/1/behind") == 0
            });
            slowest = slowest.max(asked.elapsed());
            scene.net.end_connections();
        }
        highest = highest.max(resident(&scene));
        if number(&ask(&scene.home), "/outputs/0/behind") < 2000 {
            break begun.elapsed();
        }
    };
    let used = cpu(&scene) - used;
    let status = scene.wait_until_taken();
    let turn = number(&status, "/turns/longest_last_minute_microseconds");
    let commit = number(&status, "/store/longest_commit_microseconds");
    let rate = behind as f64 / took.as_secs_f64();
    eprintln!(
        "{behind} records of {octets} octets: {rate:.0} records/s in {took:.1?} with {used:.1} s of CPU; resident {before} kB \
         before, {waited} with the backlog, {highest} at most; longest turn {turn} µs, longest commit {commit} µs; new \
         sessions in the file after {slowest:.0?} at most"
    );
    let records = number(&status, "/log/serial");
    scene.take_daemon().terminate();
    scene.close();
    let (_, items) = scene.far(0);
    assert_eq!(items.len() as u64, records);
    assert!(!items.iter().any(|item| matches!(item, Item::Gap { .. })));
    assert_eq!(number(&status, "/outputs/0/lost"), 0);
    // The newest blocks (16 MiB), the messages encoded ahead, and SQLite's cache.
    assert!(highest < before + (64 << 10), "{before} kB, then {highest}");
    assert!(rate > 10_000.0, "{rate}");
    // The bound allows for a busy machine; on an idle one it is a tenth of a second.
    assert!(turn < 5_000_000, "{turn} µs");
}
