//! nattrail with more and more pending connections, and restarted on the most.

use std::time::{Duration, Instant};

use crate::generator::{Generator, Rate, Until};
use crate::network::Network;
use crate::process::{Cpu, memory, wait_until_idle};
use crate::reader::{Kind, Reader};
use crate::report::{Level, Startup};
use crate::support::wait_until;

pub const PATIENCE: Duration = Duration::from_secs(180);
pub const FOREVER: Duration = Duration::from_secs(86_400);

/// Source ports of the connections that stay, that come and go, and that change while nattrail is down.
pub const STAYING: u16 = 40_000;
pub const PASSING: u16 = 40_001;
const ENDING: u16 = 40_002;
const BEGINNING: u16 = 40_003;
const MEANWHILE: u16 = 40_004;

/// Connections that come and go at each level, and their rate.
pub const PROBES: u64 = 50_000;
const PROBE_RATE: Rate = Rate::PerSecond(20_000);
const CHANGED: u64 = 1_000;
const MEANWHILE_RATE: Rate = Rate::PerSecond(2_000);

/// Measures at each of the ascending levels, and passes every result to `done` at once; then the start.
pub fn measure(levels: &[u64], mut done: impl FnMut(Level)) -> Startup {
    let network = Network::new(FOREVER);
    let reader = Reader::start(Kind::Nattrail, network.gateway());
    wait_until_idle(reader.pid(), PATIENCE);
    let empty = memory(reader.pid(), "VmRSS");
    let mut staying = Generator::new(network.client(), STAYING);
    let mut passing = Generator::new(network.client(), PASSING);
    for &level in levels {
        fill(&network, &mut staying, level);
        wait_for_pending(&reader, level);
        let rss_octets = memory(reader.pid(), "VmRSS");
        let before = reader.metrics().unwrap_or_default().events;
        let microseconds = probe(&network, &reader, &mut passing, level);
        let metrics = reader.metrics().unwrap_or_default();
        let batches = metrics.events.batches - before.batches;
        done(Level {
            pending: level,
            rss_octets,
            octets_per_pending: rss_octets.saturating_sub(empty) as f64 / level as f64,
            cpu_microseconds_per_connection: microseconds,
            events_per_batch: (metrics.events.messages - before.messages) as f64 / batches as f64,
            longest_turn_microseconds: metrics.turns.longest_microseconds,
        });
    }
    start_again(&network, reader)
}

pub fn fill(network: &Network, staying: &mut Generator, level: u64) {
    while network.entries() < level {
        let until = Until {
            duration: FOREVER,
            count: level - network.entries(),
        };
        staying.run(Rate::Full, until);
    }
}

/// CPU time of a connection that comes and goes, in microseconds.
pub fn probe(network: &Network, reader: &Reader, passing: &mut Generator, level: u64) -> f64 {
    let (made, before) = (network.made(), Cpu::of(reader.pid()));
    let until = Until {
        duration: FOREVER,
        count: PROBES,
    };
    passing.run(PROBE_RATE, until);
    let made = network.made() - made;
    network.end_connections_from(PASSING);
    wait_for_pending(reader, level);
    let used = Cpu::of(reader.pid()).since(before);
    used.total.as_secs_f64() * 1e6 / made as f64
}

/// Waits until this many are pending and in the database, a few strays aside.
pub fn wait_for_pending(reader: &Reader, level: u64) {
    let pending = || reader.metrics().map(|metrics| metrics.sessions.pending);
    let reached = || pending().filter(|pending| pending.abs_diff(level) < 8);
    let found = wait_until(Instant::now() + PATIENCE, reached);
    assert!(
        found.is_some(),
        "expected {level} pending sessions, found {:?}",
        pending()
    );
    wait_until_idle(reader.pid(), PATIENCE);
}

fn start_again(network: &Network, reader: Reader) -> Startup {
    let run = |port, rate, until| Generator::new(network.client(), port).run(rate, until);
    let few = Until {
        duration: FOREVER,
        count: CHANGED,
    };
    run(ENDING, PROBE_RATE, few);
    let kernel_entries = network.entries();
    wait_for_pending(&reader, kernel_entries);
    let stored = reader
        .metrics()
        .map_or(0, |metrics| metrics.sessions.pending);
    let mut begin = Instant::now();
    let reader = reader.restart(network.gateway(), || {
        network.end_connections_from(ENDING);
        run(BEGINNING, PROBE_RATE, few);
        begin = Instant::now();
    });
    let made = network.made();
    let seconds = std::thread::scope(|scope| {
        let reconciled = scope.spawn(|| {
            wait_until(Instant::now() + PATIENCE, || {
                let sessions = reader.metrics()?.sessions;
                let done = sessions.adopted >= CHANGED && sessions.inferred_ends >= CHANGED;
                done.then(|| begin.elapsed())
            })
        });
        let mut meanwhile = Generator::new(network.client(), MEANWHILE);
        while !reconciled.is_finished() {
            let until = Until {
                duration: Duration::from_millis(100),
                count: u64::MAX,
            };
            meanwhile.run(MEANWHILE_RATE, until);
        }
        let waited = reconciled.join().ok().flatten();
        waited
            .expect("nattrail finds what has changed")
            .as_secs_f64()
    });
    let cpu_seconds = Cpu::of(reader.pid()).total.as_secs_f64();
    wait_until_idle(reader.pid(), PATIENCE);
    let metrics = reader.metrics().unwrap_or_default();
    Startup {
        kernel_entries,
        stored,
        changed: CHANGED,
        seconds,
        cpu_seconds,
        made_meanwhile: network.made() - made,
        missing: network.entries() as i64 - metrics.sessions.pending as i64,
        longest_turn_microseconds: metrics.turns.longest_microseconds,
    }
}
