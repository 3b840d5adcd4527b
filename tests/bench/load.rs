//! nattrail and its peers under the same load: one-packet UDP connections through SNAT, at the given rate.
//!
//! `make bench` runs this. Each program gets a gateway of its own (network namespaces), the same receive buffer and the
//! same load; its records are compared with the kernel's connections. All CPU times are those of the program alone:
//! this process makes the load, and forwarding counts as its own time.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "real programs are measured by the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

mod generator;
mod levels;
mod limits;
mod network;
mod parts;
mod process;
mod reader;
mod report;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use generator::{Generator, Rate, Until};
use network::Network;
use process::{Cpu, memory, wait_until_idle};
use reader::{Kind, Reader};
use report::{LEVEL_HEAD, ROW_HEAD, Report, Row};

/// Measures nattrail and its peers under load.
#[derive(Parser)]
#[command(name = "make bench BENCH=")]
struct Options {
    /// Where the figures go, as JSON
    #[arg(default_value = "target/bench.json")]
    json: PathBuf,
    /// How long connections are made for each program
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
    /// Connections per second, or "full"
    #[arg(long, default_value_t = Rate::Full)]
    rate: Rate,
    /// How connections end: all at once when all are made, or by themselves after two seconds
    #[arg(long, value_enum, default_value_t = End::Flush)]
    end: End,
    /// The programs, with commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    readers: Vec<Kind>,
    /// Numbers of pending connections at which nattrail is measured, ascending, with commas; "" for none
    #[arg(long, default_value = "1000,100000,1000000", value_name = "NUMBERS")]
    levels: Levels,
    /// Connections with which interim flow records are measured; 0 for none
    #[arg(long, default_value_t = 1_000_000, value_name = "NUMBER")]
    parts: u64,
    /// cargo bench sets this
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum End {
    Flush,
    Expire,
}

#[derive(Clone, Debug)]
struct Levels(Vec<u64>);

impl std::str::FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .split(',')
            .filter(|part| !part.is_empty())
            .map(str::parse);
        let levels: Vec<u64> = numbers
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{error}"))?;
        if levels.contains(&0) || !levels.is_sorted() {
            return Err("expected numbers above 0, ascending".to_owned());
        }
        Ok(Self(levels))
    }
}

/// More connections than the kernel makes in a second here.
const MOST_PER_SECOND: u64 = 250_000;
/// The kernel's garbage collector may take a minute to find expired connections.
const PATIENCE: Duration = Duration::from_secs(180);
const SOURCE_PORT: u16 = 40_000;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(reader::NULL_READER) {
        return reader::null_reader();
    }
    let options = Options::parse();
    if !network::is_possible() {
        std::process::exit(77);
    }
    limits::with_room_for(most_connections(&options));
    let report = run(&options);
    if let Some(directory) = options.json.parent() {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(
        &options.json,
        serde_json::to_string_pretty(&report).unwrap() + "\n",
    )
    .unwrap();
    println!("\nwritten to {}", options.json.display());
}

fn most_connections(options: &Options) -> u64 {
    let rate = match options.rate {
        Rate::Full => MOST_PER_SECOND,
        Rate::PerSecond(rate) => rate,
    };
    let level = options.levels.0.last().copied().unwrap_or(0);
    let level = level.max(options.parts);
    // Undelivered ends also count, as do the connections of other namespaces.
    (rate * options.seconds).max(level + 3 * levels::PROBES) + 100_000
}

fn run(options: &Options) -> Report {
    let mut report = Report {
        kernel: read("/proc/sys/kernel/osrelease"),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        load_average: [load_average(), 0.0],
        seconds: options.seconds,
        rate: options.rate.to_string(),
        end: format!("{:?}", options.end).to_lowercase(),
        ..Report::default()
    };
    println!(
        "{} s of connections at rate {}, end: {}; Linux {} on {} CPUs, load average {:.2}\n\n{ROW_HEAD}",
        report.seconds, report.rate, report.end, report.kernel, report.cpus, report.load_average[0]
    );
    for &kind in &options.readers {
        if let Some(program) = kind.missing() {
            println!(
                "*** {} IS LEFT OUT: {program} is not installed ***",
                kind.name()
            );
            continue;
        }
        let null = report
            .rows
            .iter()
            .find(|row| row.reader == Kind::Null.name());
        let row = measure(
            kind,
            options,
            null.map(|row| row.cpu_microseconds_per_connection),
        );
        println!("{}", row.line());
        report.rows.push(row);
    }
    if !options.levels.0.is_empty() {
        println!("\n{LEVEL_HEAD}");
        let levels = &mut report.levels;
        let startup = levels::measure(&options.levels.0, |level| {
            println!("{}", level.line());
            levels.push(level);
        });
        println!("\n{}", startup.line());
        report.startup = Some(startup);
    }
    if options.parts > 0 {
        let parts = parts::measure(options.parts);
        println!("\n{}", parts.line());
        report.parts = Some(parts);
    }
    report.load_average[1] = load_average();
    report
}

/// One program under the load. `null` is the cost of a connection for the null reader, in microseconds.
fn measure(kind: Kind, options: &Options, null: Option<f64>) -> Row {
    let timeout = match options.end {
        End::Flush => Duration::from_secs(options.seconds + 600),
        End::Expire => Duration::from_secs(2),
    };
    let network = Network::new(timeout);
    let reader = Reader::start(kind, network.gateway());
    wait_until_idle(reader.pid(), PATIENCE);
    let before = Cpu::of(reader.pid());

    let until = Until {
        duration: Duration::from_secs(options.seconds),
        count: u64::MAX,
    };
    let (_, took) = Generator::new(network.client(), SOURCE_PORT).run(options.rate, until);
    if matches!(options.end, End::Flush) {
        network.end_connections();
    }
    let complete = network.wait_until_empty(PATIENCE) & wait_until_idle(reader.pid(), PATIENCE);

    let connections = network.made();
    let cpu = Cpu::of(reader.pid()).since(before);
    let peak_rss_octets = memory(reader.pid(), "VmHWM");
    let kept = reader.finish();
    let share = |count: u64| count as f64 * 100.0 / connections as f64;
    let microseconds = cpu.total.as_secs_f64() * 1e6 / connections as f64;
    Row {
        reader: kind.name(),
        connections,
        connections_per_second: connections as f64 / took.as_secs_f64(),
        creates: kept.creates,
        deletes: kept.deletes,
        creates_percent: kept.creates.map(share),
        deletes_percent: share(kept.deletes),
        gaps: kept
            .metrics
            .as_ref()
            .map(|metrics| metrics.gaps.values().map(|gaps| gaps.count).sum()),
        user_seconds: cpu.user.as_secs_f64(),
        system_seconds: cpu.system.as_secs_f64(),
        cpu_seconds: cpu.total.as_secs_f64(),
        cpu_microseconds_per_connection: microseconds,
        ratio_to_null_reader: null
            .map(|null| microseconds / null)
            .or((kind == Kind::Null).then_some(1.0)),
        peak_rss_octets,
        longest_turn_microseconds: kept
            .metrics
            .as_ref()
            .map(|metrics| metrics.turns.longest_microseconds),
        longest_commit_microseconds: kept
            .metrics
            .map(|metrics| metrics.store.longest_commit_microseconds),
        complete,
    }
}

fn load_average() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or(0.0)
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}
