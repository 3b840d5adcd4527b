//! The figures, as a table for people and as JSON for programs.

use serde::Serialize;

/// One program under the load.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub reader: &'static str,
    /// Connections that were translated and entered the kernel's table.
    pub connections: u64,
    pub connections_per_second: f64,
    /// `None` for a program that does not write them.
    pub creates: Option<u64>,
    pub deletes: u64,
    pub creates_percent: Option<f64>,
    pub deletes_percent: f64,
    /// `None` for a program that does not state them.
    pub gaps: Option<u64>,
    pub user_seconds: f64,
    pub system_seconds: f64,
    pub cpu_seconds: f64,
    pub cpu_microseconds_per_connection: f64,
    pub ratio_to_null_reader: Option<f64>,
    pub peak_rss_octets: u64,
    pub longest_turn_microseconds: Option<u64>,
    /// A part of one of the turns.
    pub longest_commit_microseconds: Option<u64>,
    /// Whether all connections ended and the program became idle in time.
    pub complete: bool,
}

/// nattrail with this many connections pending.
#[derive(Clone, Debug, Serialize)]
pub struct Level {
    pub pending: u64,
    pub rss_octets: u64,
    /// Beyond the memory with nothing pending.
    pub octets_per_pending: f64,
    pub cpu_microseconds_per_connection: f64,
    /// Each batch costs a wake-up, so slow ends cost more. The more connections there are, the longer the kernel takes
    /// to find the ones to end.
    pub events_per_batch: f64,
    pub longest_turn_microseconds: u64,
}

/// nattrail started on a full table and a full database.
#[derive(Clone, Debug, Serialize)]
pub struct Startup {
    pub kernel_entries: u64,
    pub stored: u64,
    /// The stored sessions that ended meanwhile; as many others began.
    pub changed: u64,
    /// From the start of the process until it has found all of them.
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Connections made between its first listening and the end of the search.
    pub made_meanwhile: u64,
    /// Connections in the table less pending sessions, at the end.
    pub missing: i64,
    pub longest_turn_microseconds: u64,
}

/// nattrail with this many open connections, first without `capture.active-timeout`, then with it.
#[derive(Clone, Debug, Serialize)]
pub struct Parts {
    pub entries: u64,
    pub active_timeout_seconds: u64,
    /// Of a connection that comes and goes, without it.
    pub cpu_microseconds_per_connection: f64,
    /// CPU time of a second in which nothing happens, without it.
    pub idle_cpu_microseconds: f64,
    /// Of one sweep, all of whose entries are looked up and none is reported.
    pub sweep_cpu_seconds: f64,
    /// Of one flow record beyond the sweep that made it, its way into the database included: of those that were the first
    /// of their connection, and of the next.
    pub first_cpu_microseconds: f64,
    pub next_cpu_microseconds: f64,
    /// Without it, in a minute of sweeps without reports, and in the last minute of a million reports.
    pub longest_turn_microseconds: [u64; 3],
    pub rss_octets: [u64; 2],
}

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub kernel: String,
    pub cpus: usize,
    /// The load of the whole machine, over the last minute, before and after.
    pub load_average: [f64; 2],
    pub seconds: u64,
    pub rate: String,
    pub end: String,
    pub rows: Vec<Row>,
    pub levels: Vec<Level>,
    pub startup: Option<Startup>,
    pub parts: Option<Parts>,
}

pub const ROW_HEAD: &str = "reader                  conns   conn/s   creates   deletes  gaps  user s   sys s   CPU s  \
                            µs/conn  ratio  peak MB  turn ms  commit ms";

impl Row {
    pub fn line(&self) -> String {
        format!(
            "{:<20} {:>8} {:>8.0} {:>9} {:>9} {:>5} {:>7.2} {:>7.2} {:>7.2} {:>8.2} {:>6} {:>8.1} {:>8} {:>10}{}",
            self.reader,
            self.connections,
            self.connections_per_second,
            or_dash(self.creates_percent.map(percent)),
            percent(self.deletes_percent),
            or_dash(self.gaps),
            self.user_seconds,
            self.system_seconds,
            self.cpu_seconds,
            self.cpu_microseconds_per_connection,
            or_dash(self.ratio_to_null_reader.map(|ratio| format!("{ratio:.2}"))),
            megabytes(self.peak_rss_octets),
            or_dash(self.longest_turn_microseconds.map(tenths)),
            or_dash(self.longest_commit_microseconds.map(tenths)),
            if self.complete { "" } else { "  (not at rest)" },
        )
    }
}

pub const LEVEL_HEAD: &str = "pending      RSS MB  octets/pending  µs/conn  events/batch  turn ms";

impl Level {
    pub fn line(&self) -> String {
        format!(
            "{:<9} {:>9.1} {:>15.0} {:>8.2} {:>13.1} {:>8.1}",
            self.pending,
            megabytes(self.rss_octets),
            self.octets_per_pending,
            self.cpu_microseconds_per_connection,
            self.events_per_batch,
            millis(self.longest_turn_microseconds),
        )
    }
}

impl Startup {
    pub fn line(&self) -> String {
        format!(
            "start-up with {} entries and {} stored, {} of them changed: reconciled in {:.2} s ({:.2} s CPU), {} made \
             meanwhile, {} missing, longest turn {:.1} ms",
            self.kernel_entries,
            self.stored,
            self.changed,
            self.seconds,
            self.cpu_seconds,
            self.made_meanwhile,
            self.missing,
            millis(self.longest_turn_microseconds),
        )
    }
}

impl Parts {
    pub fn line(&self) -> String {
        let share = |microseconds: f64| microseconds / self.cpu_microseconds_per_connection;
        let per_entry = self.sweep_cpu_seconds * 1e6 / self.entries as f64;
        let [off, sweeps, reports] = self.longest_turn_microseconds.map(millis);
        let [before, after] = self.rss_octets.map(megabytes);
        format!(
            "active-timeout {} s at {} open connections: a sweep {:.2} s CPU, {per_entry:.2} µs per entry ({:.2} of a \
             connection that comes and goes, {:.2} µs), a flow record {:.2} µs the first time ({:.2}) and {:.2} µs after that \
             ({:.2}); idle second {:.0} µs without; longest turn {off:.1} ms without, {sweeps:.1} ms with sweeps, \
             {reports:.1} ms with reports; RSS {before:.1} MB without, {after:.1} MB with",
            self.active_timeout_seconds,
            self.entries,
            self.sweep_cpu_seconds,
            share(per_entry),
            self.cpu_microseconds_per_connection,
            self.first_cpu_microseconds,
            share(self.first_cpu_microseconds),
            self.next_cpu_microseconds,
            share(self.next_cpu_microseconds),
            self.idle_cpu_microseconds,
        )
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn percent(value: f64) -> String {
    // This never shows 100 for less than all.
    let shown = if value < 100.0 {
        value.min(99.999)
    } else {
        value
    };
    format!("{shown:.3}")
}

fn megabytes(octets: u64) -> f64 {
    octets as f64 / 1e6
}

fn tenths(microseconds: u64) -> String {
    format!("{:.1}", millis(microseconds))
}

fn millis(microseconds: u64) -> f64 {
    microseconds as f64 / 1e3
}
