//! kill -9 at random moments under a steady load, again and again: gaps cover whatever the records lack.
//!
//! About 15 s; `SOAK_SECONDS=600` makes it ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use crate::ledger::{Gap, Generator, Key, now};
use crate::support::daemon::{Daemon, Home};
use crate::support::gateway::{Gateway, MASQUERADE};
use crate::support::record::{parse_json, parse_millis};
use crate::support::status::number;
use crate::{Scene, config_for};

const SECONDS: u64 = 15;
/// Sessions begun at once, and the number of such batches before some sessions end.
const BATCH: u32 = 8;
const BATCHES: u32 = 4;

/// The begin and the end of a session, as far as the test knows them, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Life {
    /// Not before the first time and not after the second.
    begun: (i64, i64),
    /// The same.
    ended: (i64, i64),
}

/// Makes sessions until told to stop, and ends them all, in the order of `random`.
fn load(
    net: &Gateway,
    generator: &mut Generator,
    stop: &AtomicBool,
    mut random: Random,
) -> BTreeMap<Key, Life> {
    let mut open: BTreeMap<Key, (i64, i64)> = BTreeMap::new();
    let mut lives = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BATCHES {
            let before = now();
            let keys = generator.begin(BATCH);
            let begun = (before, now());
            open.extend(keys.into_iter().map(|key| (key, begun)));
            sleep(random.up_to(Duration::from_millis(30)));
        }
        let keys: Vec<Key> = open.keys().copied().collect();
        if generator.confirm(net, &keys, 0) {
            let confirmed = now();
            open.values_mut().for_each(|begun| begun.1 = confirmed);
        }
        let sources: BTreeSet<u16> = keys.iter().map(|key| key.0).collect();
        for source in sources {
            if random.below(3) == 0 {
                let before = now();
                net.conntrack(&["-D", "-p", "udp", "--orig-port-src", &source.to_string()]);
                let ended = (before, now());
                open.retain(|&key, &mut begun| {
                    let gone = key.0 == source;
                    if gone {
                        lives.insert(key, Life { begun, ended });
                    }
                    !gone
                });
            }
        }
    }
    let before = now();
    net.end_connections();
    let ended = (before, now());
    lives.extend(
        open.into_iter()
            .map(|(key, begun)| (key, Life { begun, ended })),
    );
    lives
}

fn records(home: &Home, run: u32) -> PathBuf {
    home.path().join(format!("records-{run}.json"))
}

/// A record of a session.
#[derive(Clone, Copy, Debug)]
struct Entry {
    run: u32,
    create: bool,
    inferred: bool,
    time: i64,
}

#[derive(Default)]
struct Books {
    sessions: BTreeMap<Key, Vec<Entry>>,
    /// Each gap with the run that stated it.
    gaps: Vec<(u32, Gap)>,
}

impl Books {
    fn read(home: &Home, runs: u32) -> Self {
        let mut books = Self::default();
        for run in 0..runs {
            let text = fs::read_to_string(records(home, run)).unwrap_or_default();
            // A line that a kill cut off is not a record.
            for line in text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
            {
                books.add(run, line);
            }
        }
        books
    }

    fn add(&mut self, run: u32, line: &str) {
        let record = parse_json(line);
        if let Some(gap) = Gap::of(&record) {
            assert_eq!(gap.cause, "restart", "in run {run}: {line}");
            self.gaps.push((run, gap));
            return;
        }
        let port = |name: &str| record[name].parse().unwrap();
        let entry = Entry {
            run,
            create: record["event"] == "create",
            inferred: record.contains_key("inferred"),
            time: parse_millis(&record["time"]),
        };
        let key = (port("pre_sport"), port("pre_dport"));
        self.sessions.entry(key).or_default().push(entry);
    }

    /// Whether gaps say that the beginning and the end of this session may have been missed. It may have been open
    /// throughout the time between two gaps, if the daemon was killed before its audit.
    fn excuse(&self, life: Life) -> bool {
        let in_gap = |(earliest, latest): (i64, i64)| {
            let mut gaps = self.gaps.iter().map(|(_, gap)| gap);
            gaps.any(|gap| gap.from <= latest && earliest <= gap.to)
        };
        in_gap(life.begun) && in_gap(life.ended)
    }

    /// The way in which a session was recorded.
    ///
    /// # Panics
    /// When that way is not allowed.
    fn judge(&self, key: Key, life: Life) -> Outcome {
        let entries = self.sessions.get(&key).map_or(&[][..], Vec::as_slice);
        let show = || {
            let near = |gap: &&(u32, Gap)| {
                gap.1.to >= life.begun.0 - 1000 && gap.1.from <= life.ended.1 + 1000
            };
            let gaps: Vec<_> = self.gaps.iter().filter(near).collect();
            format!("{key:?} {life:?}\n{entries:#?}\n{gaps:#?}")
        };
        let of = |create| entries.iter().filter(move |entry| entry.create == create);
        let (creates, deletes) = (of(true).count(), of(false).count());
        if deletes == 0 {
            assert!(self.excuse(life), "lost, and in no gap: {}", show());
            return if creates == 0 {
                Outcome::Missing
            } else {
                Outcome::NoEnd
            };
        }
        assert!(entries[0].create, "a delete without its create: {}", show());
        for create in [true, false] {
            let entries: Vec<&Entry> = of(create).collect();
            for pair in entries.windows(2) {
                let (first, second) = (pair[0], pair[1]);
                // The crash came before the place in the log was stored.
                let is_repeated = (first.time, first.inferred) == (second.time, second.inferred);
                let is_by_crash = first.run < second.run;
                assert!(
                    is_repeated && is_by_crash,
                    "twice, and not by a crash: {}",
                    show()
                );
            }
        }
        if creates + deletes == 2 {
            Outcome::Once
        } else {
            Outcome::Repeated
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Outcome {
    Once,
    /// One of its records left again after a crash, unchanged.
    Repeated,
    /// In a gap, with only its create.
    NoEnd,
    /// In a gap.
    Missing,
}

#[test]
fn killed_at_random_under_load_each_session_is_in_a_record_or_a_gap() {
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    net.nft(MASQUERADE);
    let seconds = std::env::var("SOAK_SECONDS")
        .ok()
        .map(|text| text.parse().unwrap());
    let duration = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let seed = now().unsigned_abs();
    eprintln!("seed {seed}");
    let mut random = Random(seed);

    let home = Home::new("");
    let mut runs = 0;
    let mut start = || {
        home.configure(&config_for(&records(&home, runs), "resync = \"1s\"\n"));
        runs += 1;
        Daemon::spawn(&net.gateway, &mut home.command())
    };
    let mut first = start();
    first.wait_until_ready(&net.gateway);
    let _ = first.wait_for_message("started");

    let mut generator = Generator::new(&net);
    let stop = AtomicBool::new(false);
    let deadline = Instant::now() + duration;
    let (daemon, lives) = scope(|scope| {
        let mut daemon = first;
        let order = Random(seed.rotate_left(32) | 1);
        let load = scope.spawn(|| load(&net, &mut generator, &stop, order));
        while Instant::now() < deadline && !load.is_finished() {
            // Some runs are killed while they start.
            let patience = [100, 400, 2000][random.below(3) as usize];
            sleep(random.up_to(Duration::from_millis(patience)));
            daemon.kill();
            sleep(random.up_to(Duration::from_millis(100)));
            daemon = start();
        }
        stop.store(true, Ordering::Relaxed);
        (daemon, load.join().unwrap())
    });
    let _ = daemon.wait_for_message("started");
    let scene = Scene { daemon, home, net };
    scene.wait_for_status("the last audit", |metrics| {
        number(metrics, "/sessions/audits") >= 2 && number(metrics, "/sessions/pending") == 0
    });
    let Scene { daemon, home, net } = scene;
    daemon.terminate();
    drop(net);

    let books = Books::read(&home, runs);
    let made = |key: &Key| assert!(lives.contains_key(key), "never made: {key:?}");
    books.sessions.keys().for_each(made);
    let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
    for (&key, &life) in &lives {
        *outcomes.entry(books.judge(key, life)).or_default() += 1;
    }
    eprintln!("{} sessions, {runs} runs: {outcomes:?}", lives.len());
    assert!(runs > 5 && lives.len() > 500);
    // The slower the machine, the larger is the share of the last flush in a run, and that is repeated.
    let recorded = [Outcome::Once, Outcome::Repeated].map(|one| outcomes.get(&one).unwrap_or(&0));
    assert!(
        recorded[0] + recorded[1] > 3 * lives.len() / 4,
        "{outcomes:?}"
    );
    assert!(*recorded[0] > lives.len() / 4, "{outcomes:?}");
}

/// Numbers in an order that a seed gives (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn up_to(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(limit.as_micros() as u64))
    }
}
