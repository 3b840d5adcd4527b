//! The size of the archive, the cost of writing it, and the time of an answer: `make bench BENCH=archive`.
//!
//! Writes files of one hour each, of the sessions that [`cgn`] makes, and asks for sessions that are in them. Every question
//! opens its files anew. Before a cold one the files are dropped from the page cache; what the disk itself caches stays.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on has failed, and reads the clock"
)]

#[path = "cgn.rs"]
mod cgn;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use nattrail::archive::question::{Endpoint, Question, Subject};
use nattrail::archive::report::Day;
use nattrail::archive::row::{Millis, Row};
use nattrail::archive::sources::Sources;
use nattrail::archive::table::Writer;
use nattrail::archive::wanted::Wanted;
use nattrail::config::{Config, Prefix};
use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};

use cgn::{ADDRESSES, Cgn};

/// Sessions of a day of a large carrier.
const DAY: f64 = 1e9;
const HOURS: f64 = 24.0;

/// Measures the archive with synthetic sessions of a carrier-grade NAT
#[derive(Parser)]
struct Options {
    /// Sessions of a file; the default is an hour of 10⁹ a day
    #[arg(long, default_value_t = 41_666_667)]
    sessions: u64,
    /// Files of which a question is asked; all but the first are copies of it
    #[arg(long, default_value_t = 1)]
    files: u32,
    /// Questions of each kind
    #[arg(long, default_value_t = 50)]
    questions: usize,
    /// Let subscribers have a public address per session, rather than always the same
    #[arg(long)]
    unbound: bool,
    /// Where the files go, for as long as this runs
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// `cargo bench` passes it
    #[arg(long, hide = true)]
    bench: bool,
}

struct Written {
    sort: Duration,
    write: Duration,
    /// Beyond the rows that are being sorted.
    memory: u64,
    /// Rows to ask for.
    samples: Vec<Row>,
}

fn main() {
    let options = Options::parse();
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    let mut files = vec![dir.path().join("0.parquet")];
    let written = write(&files[0], &options);
    for index in 1..options.files {
        files.push(dir.path().join(format!("{index}.parquet")));
        fs::copy(&files[0], files.last().unwrap()).unwrap();
    }
    File::open(dir.path())
        .and_then(|dir| dir.sync_all())
        .unwrap();
    rustix::fs::sync();

    let sessions = options.sessions as f64;
    let size = fs::metadata(&files[0]).unwrap().len() as f64 / sessions;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / sessions;
    let (sort, write) = (micros(written.sort), micros(written.write));
    let memory = written.memory as f64 / f64::from(1 << 20);
    println!("                             each session   a day of 10⁹");
    println!(
        "octets                       {size:>12.2} {:>11.1} GB",
        size * DAY / 1e9
    );
    println!(
        "CPU to sort, µs              {sort:>12.3} {:>11.0} s",
        sort * DAY / 1e6
    );
    println!(
        "CPU to write, µs             {write:>12.3} {:>11.0} s",
        write * DAY / 1e6
    );
    println!("memory of the writer, MiB    {memory:>12.1}");
    println!(
        "\nms for a question in files of {sessions} sessions; a day of 10⁹ has {HOURS} of {:.0}",
        DAY / HOURS
    );
    println!(
        "{:<28}{:>6}{:>7}{:>10}{:>10}{:>10}{:>10}",
        "", "files", "rows", "warm", "worst", "cold", "worst"
    );
    let all = files.len();
    let public = |row: &Row, address| {
        let subject = Subject::Public {
            at: Endpoint {
                address,
                port: Some(row.post.src_port),
            },
            to: None,
        };
        let question = Question {
            subject,
            protocol: Some(row.protocol),
            time: row.end..=row.end,
            skew: Duration::ZERO,
        };
        question.selections()
    };
    let who = |row: &Row| public(row, row.post.src);
    let elsewhere = |row: &Row| public(row, [192, 0, 2, 1].into());
    let subscriber = |row: &Row| {
        vec![Wanted {
            pre_src: Some(Prefix {
                address: row.pre.src,
                length: 32,
            }),
            ..Wanted::alive(Millis::default()..=Millis::MAX)
        }]
    };
    let server = |row: &Row| {
        vec![Wanted {
            post_dst: Some(row.post.dst),
            post_dport: Some(row.post.dst_port),
            ..Wanted::alive(row.end..=row.end)
        }]
    };
    let samples = &written.samples;
    let few = &samples[..samples.len().min(5)];
    // At most two files of an hour have the sessions of a moment.
    for count in [1, 2.min(all), all].into_iter().collect::<BTreeSet<_>>() {
        let (files, sources) = (&files[..count], archive(dir.path(), &files[..count]));
        ask("address, port, proto, time", files, &sources, samples, &who);
        ask(
            "an address that has none",
            files,
            &sources,
            samples,
            &elsewhere,
        );
        ask(
            "subscriber, whole hours",
            files,
            &sources,
            samples,
            &subscriber,
        );
        if count == 1 {
            ask("server, port, time", files, &sources, few, &server);
        }
    }
    report(&archive(dir.path(), &files), &options);
}

/// An archive that has these files.
fn archive(dir: &Path, files: &[PathBuf]) -> Sources {
    let root = dir.join(files.len().to_string());
    let folder = root.join("sessions/date=2026-11-20/hour=14");
    fs::create_dir_all(&folder).unwrap();
    for (index, file) in files.iter().enumerate() {
        let name = format!("gw-1-20261120T000000Z-20261120T150000Z-{index}-1.parquet");
        // The archive of all files may be there already.
        let _ = fs::hard_link(file, folder.join(name));
    }
    let mut config = Config::default();
    config.pending.database = root.join("none");
    config.archive.directory = root;
    Sources::new(&config, &[]).unwrap()
}

/// The sums of a day that has all files.
fn report(sources: &Sources, options: &Options) {
    let mut found = None;
    let time = cpu_time(|| {
        let day = Day::parse("2026-11-20").unwrap();
        found = Some(sources.day(day, Millis::MAX, &mut |_, _| {}));
    });
    let (totals, holdings) = found.unwrap();
    assert!(holdings.problems.is_empty(), "{:?}", holdings.problems);
    let rate = (options.sessions * u64::from(options.files)) as f64 / time.as_secs_f64() / 1e6;
    println!(
        "\nreport of a day: {rate:.2} million sessions a second of CPU, {} of them; at most {} ports of TCP in a minute",
        totals.sessions, totals.addresses[0].ports[0].peak
    );
}

/// Prints the median and the longest time of an answer.
fn ask(
    name: &str,
    files: &[PathBuf],
    sources: &Sources,
    samples: &[Row],
    wanted: &dyn Fn(&Row) -> Vec<Wanted>,
) {
    let mut most = 0;
    let mut times = |prepare: &dyn Fn(&Path)| {
        let mut times: Vec<_> = samples
            .iter()
            .map(|row| {
                files.iter().for_each(|file| prepare(file));
                let (rows, time) = answer(sources, &wanted(row));
                most = most.max(rows);
                time.as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() - 1])
    };
    // The first time they come from the disk.
    times(&|_| ());
    let (warm, cold) = (times(&|_| ()), times(&drop_from_cache));
    let count = files.len();
    println!(
        "{name:<28}{count:>6}{most:>7}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
        warm.0, warm.1, cold.0, cold.1
    );
}

fn answer(sources: &Sources, wanted: &[Wanted]) -> (u64, Duration) {
    let (begin, mut rows, mut problems) = (Instant::now(), 0, Vec::new());
    for source in &mut sources.open() {
        source.find(wanted, &mut |_| rows += 1, &mut problems);
    }
    assert!(problems.is_empty(), "{problems:?}");
    (rows, begin.elapsed())
}

fn write(path: &Path, options: &Options) -> Written {
    let mut cgn = Cgn::new(!options.unbound);
    let mut writer = Writer::new(BufWriter::new(File::create(path).unwrap()), "gw-1").unwrap();
    let (mut sort, mut write, mut memory) = (Duration::ZERO, Duration::ZERO, 0);
    let mut samples = Vec::new();
    for address in 0..ADDRESSES {
        let count =
            options.sessions / ADDRESSES + u64::from(address < options.sessions % ADDRESSES);
        let mut rows = cgn.sessions(address, count);
        sort += cpu_time(|| rows.sort_unstable_by_key(Row::key));
        let step = (rows.len() * ADDRESSES as usize / options.questions).max(1);
        samples.extend(rows.iter().skip(rows.len() / 2).step_by(step).take(1));
        let held = (rows.capacity() * size_of::<Row>()) as u64;
        write += cpu_time(|| rows.iter().for_each(|row| writer.push(row).unwrap()));
        memory = memory.max(status("VmHWM").saturating_sub(held));
    }
    let mut out = None;
    write += cpu_time(|| out = Some(writer.finish().unwrap()));
    let (out, _) = out.unwrap();
    out.into_inner().unwrap().sync_all().unwrap();
    samples.truncate(options.questions);
    Written {
        sort,
        write,
        memory,
        samples,
    }
}

fn cpu_time(work: impl FnOnce()) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let begin = now();
    work();
    now() - begin
}

fn drop_from_cache(file: &Path) {
    fadvise(File::open(file).unwrap(), 0, None, Advice::DontNeed).unwrap();
}

/// Octets, of this process.
fn status(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    let number: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    number << 10
}
