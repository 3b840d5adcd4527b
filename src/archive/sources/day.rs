//! All sessions of a day, for its sums.
//!
//! Sealed files and the runs of the spool are merged by public address, so that no more of them is in memory than a few
//! rows of each. Rows that nothing has sorted yet (the journal of the spool, the log, the list of open sessions) are
//! sorted in memory, up to a bound.
//!
//! A session of the host's own gateway is taken as it was when the list of open sessions was read, which comes first: what
//! ended later is in that list. Each other session is in one place only: the log is read from the record on that the spool
//! does not have, and of files with the same rows only those count that replace the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::fs;
use std::iter::Peekable;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Sources;
use super::database::{self, Database};
use super::directory::{Directory, explain, is_gone};
use crate::archive::answer::{Source as _, gateways, holes, other_gaps};
use crate::archive::evidence;
use crate::archive::proof::tiles;
use crate::archive::report::{Day, EvidenceLog, Holdings, Sums, Totals};
use crate::archive::row::{Brief, Millis, Row};
use crate::archive::spool::{Cursor, Reader};
use crate::archive::table::{Scan, Table};
use crate::archive::tree::Name;
use crate::place::Serial;
use crate::store::reading::{Bookmark, Piece};
use crate::time::Wall;

/// How often the archive may replace a file, or take records off the log, while both are being opened.
const TRIES: usize = 20;
/// So many rows are sorted in memory, in 100 MB.
const MOST_LOOSE: usize = if cfg!(test) { 64 } else { 1 << 20 };
/// Rows between two looks at the progress.
const STEP: u64 = 1 << 16;

/// Rows by public address.
type Rows<'a> = Peekable<Box<dyn Iterator<Item = Result<Brief, String>> + 'a>>;

/// An archive directory as of one moment, and the database that belongs to it.
struct Opened<'a> {
    directory: Directory<'a>,
    /// Of the spool and the database.
    gateway: Option<Rc<str>>,
    files: Vec<(PathBuf, Table)>,
    loose: Vec<Brief>,
    /// When the list of open sessions was read.
    as_of: Option<Millis>,
}

/// All there is of a gateway.
#[derive(Default)]
struct Input<'a> {
    files: Vec<(PathBuf, Table)>,
    cursors: Vec<Cursor<'a>>,
    loose: Vec<Brief>,
    as_of: Option<Millis>,
}

struct Reading<'a> {
    day: Day,
    sums: Sums,
    holdings: Holdings,
    progress: &'a mut dyn FnMut(u64, u64),
    /// Rows of files that were read, and all of them.
    read: u64,
    rows: u64,
}

impl Sources {
    /// The sums of a day and what they come from. `progress` gets octets of files that are read, and those that there are.
    pub fn day(
        &self,
        day: Day,
        now: Millis,
        progress: &mut dyn FnMut(u64, u64),
    ) -> (Totals, Holdings) {
        let mut reading = Reading {
            day,
            sums: Sums::new(day),
            holdings: Holdings::default(),
            progress,
            read: 0,
            rows: 0,
        };
        let places = self.places();
        let mut opened: Vec<_> = places
            .map(|(root, database)| reading.open(root, database))
            .collect();
        reading.survey(&mut opened, now);
        // The same file may be in several directories, and files that another one has replaced in a copy.
        let replaced: HashSet<_> = opened.iter().flat_map(|it| it.replaced(day)).collect();
        // The log of the first one was read; it may have begun already.
        let own = opened.first().and_then(|it| it.gateway.clone());
        let mut seen = HashSet::new();
        let mut inputs: BTreeMap<Rc<str>, Input<'_>> = BTreeMap::new();
        for Opened {
            directory,
            gateway,
            files,
            loose,
            as_of,
        } in &mut opened
        {
            for (path, table) in files.drain(..) {
                let name = sealed_name(&path);
                if name.is_none_or(|name| !replaced.contains(&name) && seen.insert(name)) {
                    reading.hold(&path, &table);
                    let input = inputs.entry(table.gateway().into()).or_default();
                    input.files.push((path, table));
                }
            }
            if let Some(gateway) = gateway {
                let input = inputs.entry(gateway.clone()).or_default();
                input.loose.append(loose);
                input.as_of = input.as_of.or(*as_of);
                let reader = directory.reader();
                input
                    .cursors
                    .extend(reader.into_iter().flat_map(Reader::cursors));
            }
        }
        let own = own.and_then(|own| inputs.remove_entry(&own));
        for (gateway, input) in own.into_iter().chain(inputs) {
            reading.add(&gateway, input);
        }
        let mut holdings = reading.holdings;
        holdings.problems.sort_unstable();
        holdings.problems.dedup();
        (reading.sums.finish(), holdings)
    }
}

impl Reading<'_> {
    fn open<'a>(
        &mut self,
        root: &'a Path,
        database: Option<(&'a Database, &'a Rc<str>)>,
    ) -> Opened<'a> {
        let mut loose = Vec::new();
        let mut as_of = None;
        if let Some((path, name)) = database {
            let spool = Reader::open(root).ok();
            let gateway = spool.as_ref().and_then(Reader::gateway).map(Rc::from);
            self.sums.begin(&gateway.unwrap_or_else(|| name.clone()));
            let mut each = |row: Row| {
                let is_open = true;
                let brief = Brief {
                    is_open,
                    ..Brief::from(&row)
                };
                self.push(&mut loose, brief);
            };
            match database::open_sessions(path, &mut each) {
                Ok(until) => as_of = Some(until),
                Err(problem) => self.holdings.problems.push(problem),
            }
        }
        let path = database.map(|(path, _)| path);
        let (reader, files, log) = self.settle(root, path);
        let heard = path.zip(log).and_then(|(path, log)| {
            let mut each = |row: Row| {
                if as_of.is_none_or(|as_of| row.end <= as_of) {
                    self.push(&mut loose, Brief::from(&row));
                }
            };
            let heard = database::finished(path, log, &mut each);
            heard.map_err(|it| self.holdings.problems.push(it)).ok()
        });
        if let Some(reader) = &reader {
            let read = reader.journal(&mut |row| loose.push(Brief::from(&row)));
            let problem = read.err().map(|error| error.to_string());
            self.holdings.problems.extend(problem);
        }
        let directory = Directory::read_before(root, database, heard, reader);
        Opened {
            gateway: directory.gateway(directory.reader()),
            directory,
            files,
            loose,
            as_of,
        }
    }

    /// The spool, the sealed files and the log, as of one moment.
    fn settle(
        &mut self,
        root: &Path,
        database: Option<&Database>,
    ) -> (Option<Reader>, Vec<(PathBuf, Table)>, Option<Piece>) {
        let known = self.holdings.problems.len();
        let mut found = (None, Vec::new(), None);
        for _ in 0..TRIES {
            self.holdings.problems.truncate(known);
            let problems = &mut self.holdings.problems;
            let reader = Reader::open(root).map_err(|error| problems.push(error.to_string()));
            let reader = reader.ok();
            let bookmark = reader
                .as_ref()
                .and_then(Reader::place)
                .map(|place| Bookmark {
                    run: Wall::from_nanos(place.run),
                    next: Serial(place.next),
                });
            let log = database.map(|path| database::log(path, bookmark));
            let log = log.and_then(|log| log.map_err(|it| problems.push(it)).ok());
            let is_taken = log.as_ref().is_some_and(|log| log.missing.is_some());
            let (files, is_replaced) = match &reader {
                Some(reader) => open_files(reader, &self.day.range(), problems),
                None => (Vec::new(), false),
            };
            found = (reader, files, log);
            if !is_taken && !is_replaced {
                break;
            }
        }
        found
    }

    /// Keeps a row that is to be sorted.
    fn push(&mut self, loose: &mut Vec<Brief>, brief: Brief) {
        if self.day.minutes(&brief.life()).is_none() {
            return;
        }
        if loose.len() < MOST_LOOSE {
            loose.push(brief);
        } else {
            self.holdings.without_ports += 1;
            self.note(&brief, false);
            self.sums.add_without_ports(&brief);
        }
    }

    fn note(&mut self, brief: &Brief, is_sealed: bool) {
        let Holdings {
            sealed,
            unsealed,
            open,
            ..
        } = &mut self.holdings;
        *match (brief.is_open, is_sealed) {
            (true, _) => open,
            (_, true) => sealed,
            (_, false) => unsealed,
        } += 1;
    }

    /// The state of the records and of the evidence logs.
    fn survey(&mut self, opened: &mut [Opened<'_>], now: Millis) {
        let range = self.day.range();
        let problems = &mut self.holdings.problems;
        let all = *range.start()..=Millis::MAX;
        let coverages = opened.iter_mut();
        let coverages = coverages.flat_map(|it| it.directory.coverage(&all, problems));
        let coverages: Vec<_> = coverages.collect();
        self.holdings.holes = holes(&coverages, &range, now, true);
        self.holdings.other_gaps = other_gaps(&coverages, &range);
        self.holdings.gateways = gateways(&coverages);
        for it in opened {
            match evidence::logs(it.directory.root()) {
                Ok(logs) => {
                    let read = logs.iter().map(|(name, path)| log_of(name, path));
                    let logs: Result<Vec<_>, _> = read.collect();
                    match logs {
                        Ok(logs) => self.holdings.logs.extend(logs),
                        Err(error) => problems.push(error.to_string()),
                    }
                }
                Err(error) => {
                    let root = it.directory.root().display();
                    problems.push(format!("archive \"{root}\" cannot be read: {error}"));
                }
            }
        }
        self.holdings.logs.sort_by(|a, b| {
            (&a.gateway, std::cmp::Reverse(a.entries))
                .cmp(&(&b.gateway, std::cmp::Reverse(b.entries)))
        });
        self.holdings.logs.dedup_by(|a, b| a.gateway == b.gateway);
    }

    fn hold(&mut self, path: &Path, table: &Table) {
        self.holdings.files += 1;
        self.holdings.octets += fs::metadata(path).map_or(0, |file| file.len());
        self.rows += table.summary().rows;
    }

    fn add(&mut self, gateway: &Rc<str>, input: Input<'_>) {
        self.sums.begin(gateway);
        let Input {
            files,
            cursors,
            mut loose,
            as_of,
        } = input;
        let alive = self.day.range();
        let sealed = files.len();
        let mut rows: Vec<Rows<'_>> = Vec::new();
        for (path, table) in files {
            let scan = Scan::new(table, alive.clone());
            rows.push(boxed(
                scan.map(move |row| row.map_err(|it| explain(&path, &it))),
            ));
        }
        rows.extend(cursors.into_iter().map(|cursor| boxed(rows_of(cursor))));
        loose.sort_unstable_by_key(|row| row.post_src);
        rows.push(boxed(loose.into_iter().map(Ok)));
        let is_seen = |row: &Brief| row.is_open || as_of.is_none_or(|as_of| row.end <= as_of);
        let mut heap = BinaryHeap::new();
        for (index, rows) in rows.iter_mut().enumerate() {
            let next = self.next_address(rows);
            heap.extend(next.map(|address| Reverse((address, index))));
        }
        while let Some(Reverse((address, index))) = heap.pop() {
            let is_sealed = index < sealed;
            let is_here =
                |row: &Result<Brief, String>| row.as_ref().is_ok_and(|row| row.post_src == address);
            while let Some(Ok(row)) = rows[index].next_if(is_here) {
                if is_sealed {
                    self.advance();
                }
                if is_seen(&row) && self.day.minutes(&row.life()).is_some() {
                    self.note(&row, is_sealed);
                    self.sums.add(&row);
                }
            }
            let next = self.next_address(&mut rows[index]);
            heap.extend(next.map(|address| Reverse((address, index))));
        }
        self.tell();
    }

    /// The address of the next row that can be read.
    fn next_address(&mut self, rows: &mut Rows<'_>) -> Option<std::net::IpAddr> {
        loop {
            match rows.peek()? {
                Ok(row) => return Some(row.post_src),
                Err(problem) => self.holdings.problems.push(problem.clone()),
            }
            rows.next();
        }
    }

    fn advance(&mut self) {
        self.read += 1;
        if self.read.is_multiple_of(STEP) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let all = self.holdings.octets;
        let share = self.read as f64 / self.rows.max(1) as f64;
        (self.progress)((all as f64 * share) as u64, all);
    }
}

impl Opened<'_> {
    /// The names of files that others have replaced.
    fn replaced(&self, day: Day) -> Vec<String> {
        let all = *day.range().start()..=Millis::MAX;
        // A record that cannot be read was a problem before.
        let seals = self
            .directory
            .reader()
            .and_then(|reader| reader.seals(&all).ok());
        let paths = seals.into_iter().flatten().flat_map(|seal| seal.replaces);
        paths
            .filter_map(|path| sealed_name(Path::new(&path)))
            .collect()
    }
}

/// Opens the files that can have sessions of the time. Returns whether one was gone.
fn open_files(
    reader: &Reader,
    time: &RangeInclusive<Millis>,
    problems: &mut Vec<String>,
) -> (Vec<(PathBuf, Table)>, bool) {
    let mut files = Vec::new();
    let paths = match reader.sessions(time) {
        Ok(paths) => paths,
        Err(error) => {
            problems.push(error.to_string());
            return (files, error.is_gone());
        }
    };
    for path in paths {
        match Table::open(&path) {
            Ok(table) => files.push((path, table)),
            Err(error) => {
                problems.push(explain(&path, &error));
                if is_gone(&error) {
                    return (files, true);
                }
            }
        }
    }
    (files, false)
}

fn boxed<'a>(rows: impl Iterator<Item = Result<Brief, String>> + 'a) -> Rows<'a> {
    (Box::new(rows) as Box<dyn Iterator<Item = _>>).peekable()
}

/// The rows of a cursor, and at the end why there are not more.
fn rows_of(cursor: Cursor<'_>) -> impl Iterator<Item = Result<Brief, String>> {
    let mut cursor = Some(cursor);
    std::iter::from_fn(move || match cursor.as_mut()?.next() {
        Ok(Some((row, _))) => Some(Ok(Brief::from(&row))),
        Ok(None) => {
            let damaged = cursor.take()?.damaged;
            let problem = format!("{damaged} rows of the spool are damaged and left out");
            (damaged > 0).then_some(Err(problem))
        }
        Err(error) => {
            cursor = None;
            Some(Err(error.to_string()))
        }
    })
}

fn log_of(name: &str, path: &Path) -> Result<EvidenceLog, crate::archive::proof::Error> {
    let log = tiles::Reader::open(path)?;
    let changed = fs::metadata(path.join("checkpoint")).and_then(|file| file.modified());
    let since_1970 = changed
        .ok()
        .and_then(|it| it.duration_since(std::time::UNIX_EPOCH).ok());
    Ok(EvidenceLog {
        gateway: name.to_owned(),
        entries: log.size(),
        written: since_1970.map(|it| Wall::from_secs(it.as_secs())),
        key: log.newest_key()?,
    })
}

/// The name of a sealed file in its place, which no other has.
fn sealed_name(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    Name::parse(stem).map(|_| stem.to_owned())
}

#[cfg(test)]
mod tests;
