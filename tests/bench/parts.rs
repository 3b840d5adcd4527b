//! nattrail with many open connections that are accounted in parts, and before that in the same run without.

use std::thread;
use std::time::{Duration, Instant};

use crate::generator::{Generator, Rate, Until};
use crate::levels::{FOREVER, PASSING, PATIENCE, STAYING, fill, probe, wait_for_pending};
use crate::network::Network;
use crate::process::{Cpu, memory, wait_until_idle};
use crate::reader::{Kind, Reader};
use crate::report::Parts;

/// So that four sweeps take place in a minute.
const ACTIVE_TIMEOUT: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);

/// The state of nattrail at a moment.
struct Moment {
    time: Instant,
    cpu: Duration,
    flows: u64,
    /// Those that were followed by another one.
    sweeps: u64,
    longest_turn: u64,
}

impl Moment {
    fn now(reader: &Reader) -> Self {
        let metrics = reader.metrics().unwrap_or_default();
        Self {
            time: Instant::now(),
            cpu: Cpu::of(reader.pid()).total,
            flows: metrics.sessions.flows,
            sweeps: metrics.sessions.sweeps.saturating_sub(1),
            longest_turn: metrics.turns.longest_last_minute_microseconds,
        }
    }
}

pub fn measure(entries: u64) -> Parts {
    let network = Network::new(FOREVER);
    let reader = Reader::start(Kind::Nattrail, network.gateway());
    wait_until_idle(reader.pid(), PATIENCE);
    let mut staying = Generator::new(network.client(), STAYING);
    fill(&network, &mut staying, entries);
    drop(staying);
    wait_for_pending(&reader, entries);
    let mut passing = Generator::new(network.client(), PASSING);
    let connection = probe(&network, &reader, &mut passing, entries);
    let before = Moment::now(&reader);
    thread::sleep(MINUTE + MINUTE / 20);
    let off = Moment::now(&reader);
    let idle = (off.cpu - before.cpu).div_f64((off.time - before.time).as_secs_f64());
    let rss_before = memory(reader.pid(), "VmRSS");

    reader.reload(&format!(
        "active-timeout = \"{}s\"",
        ACTIVE_TIMEOUT.as_secs()
    ));
    let first = wait_for_flows(&reader, off.flows + entries);
    // All are due again, and nothing was transferred.
    thread::sleep(ACTIVE_TIMEOUT);
    let quiet = wait_for_sweep(&reader, 1);
    let swept = wait_for_sweep(&reader, 4);
    assert_eq!(quiet.flows, swept.flows, "nothing was transferred");
    let sweeps = (swept.sweeps - quiet.sweeps) as u32;
    let busy = |from: &Moment, to: &Moment| {
        let idle = idle.mul_f64((to.time - from.time).as_secs_f64());
        (to.cpu - from.cpu).saturating_sub(idle)
    };
    let sweep = busy(&quiet, &swept) / sweeps;
    let until = Until {
        duration: FOREVER,
        count: entries,
    };
    // The same connections once more.
    Generator::new(network.client(), STAYING).run(Rate::Full, until);
    let next = wait_for_flows(&reader, swept.flows + entries);
    let per_record = |from: &Moment, to: &Moment| {
        let sweeps = sweep * (to.sweeps - from.sweeps) as u32;
        let records = (to.flows - from.flows) as f64;
        busy(from, to).saturating_sub(sweeps).as_secs_f64() * 1e6 / records
    };
    Parts {
        entries,
        active_timeout_seconds: ACTIVE_TIMEOUT.as_secs(),
        cpu_microseconds_per_connection: connection,
        idle_cpu_microseconds: idle.as_secs_f64() * 1e6,
        sweep_cpu_seconds: sweep.as_secs_f64(),
        first_cpu_microseconds: per_record(&off, &first),
        next_cpu_microseconds: per_record(&swept, &next),
        longest_turn_microseconds: [off.longest_turn, swept.longest_turn, next.longest_turn],
        rss_octets: [rss_before, memory(reader.pid(), "VmRSS")],
    }
}

/// Waits for so many flow records, a few strays aside, and for the end of the sweep and the commit.
fn wait_for_flows(reader: &Reader, flows: u64) -> Moment {
    wait_for(reader, |moment| moment.flows + 8 > flows);
    wait_for_sweep(reader, 1)
}

/// Waits for the beginning of the sweep after so many.
fn wait_for_sweep(reader: &Reader, count: u64) -> Moment {
    let sweeps = Moment::now(reader).sweeps + count;
    wait_for(reader, |moment| moment.sweeps >= sweeps)
}

/// Looks once a second, as every look costs nattrail time.
fn wait_for(reader: &Reader, reached: impl Fn(&Moment) -> bool) -> Moment {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let moment = Moment::now(reader);
        if reached(&moment) {
            return moment;
        }
        assert!(Instant::now() < deadline, "{} flow records", moment.flows);
        thread::sleep(Duration::from_secs(1));
    }
}
