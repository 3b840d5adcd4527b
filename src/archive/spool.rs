//! The spool: rows and gaps that are not sealed yet, on disk.
//!
//! Rows are pushed and then committed together with the [`Place`] up to which the record log was read: after a crash the
//! spool holds what was committed, all of it and once. A commit appends a frame to the [journal]. When the journal is
//! long, its rows are sorted into a [run], and the journal begins anew; [sealing](super::seal) merges the runs.
//!
//! # Crashes
//! The journal's first frame names the runs and the last seal, and the journal is replaced by a rename. That rename is the
//! one moment at which a run takes the place of the rows in the journal, or sealed files that of runs. Files that no
//! journal names are leftovers, which the next start removes. What comes after a seal (files go to their places, its record
//! is written, files that were merged go) is done again at the next start, until the journal says that it was done.
//!
//! # Readers
//! A [`Reader`], in any process, sees the spool and the sealed files as of one moment: it leaves out files with a number
//! above that of the last seal in the journal that it read, whose rows it still has. A file or run that is gone when it is
//! opened was replaced meanwhile: open a new `Reader` and ask again.
//!
//! # Damage
//! All octets have checksums. A damaged end of the journal is cut off (see there). Rows of a run that cannot be read again
//! are stated as a gap by the seal, and the run is kept with `.damaged` after its name. A journal without a sound
//! beginning is [`Error::Damaged`].

mod journal;
mod reader;
mod run;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fmt, mem};

use serde::{Deserialize, Serialize};

pub(super) use self::journal::{Change, Head, Manifest, RunInfo};
pub use self::reader::Reader;
pub(super) use self::run::{Cursor, Run, RunWriter};
use super::disk::{self, Lock, Output, create_directory, remove, sync_directory};
use super::row::{Key, Millis, Row};
use super::tree::{ArchivedGap, Partition, Tree};
use crate::session::Gap;

/// A journal of so many rows becomes a run. Readers go through the journal row by row.
const JOURNAL_ROWS: usize = if cfg!(test) { 8 } else { 131_072 };

/// So many runs are 33 million rows.
const MANY_RUNS: usize = 256;

/// How far the record log was read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Place {
    /// Which log: a database that was begun anew counts from one again.
    pub run: u64,
    /// The serial of the first record that is not here.
    pub next: u64,
}

/// An error, by its remedy.
#[derive(Debug)]
pub enum Error {
    /// The disk is full or read-only, a directory is gone, or the like: nothing was changed. Try again later, with what
    /// comes after [`Spool::place`]; when the directory was replaced, with a new [`Spool`].
    Io(PathBuf, io::Error),
    /// The file is not sound: the archive's directory `spool` has to be set aside.
    Damaged(PathBuf, &'static str),
    /// Another process writes to the archive.
    Locked(PathBuf),
    /// More was pushed than one commit takes: commit more often.
    TooLarge(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(path, reason) => write!(f, "{} is damaged: {reason}", path.display()),
            Self::Locked(path) => {
                let path = path.display();
                write!(
                    f,
                    "{path} is locked: another nattrail writes to this archive"
                )
            }
            Self::TooLarge(reason) => write!(f, "too much to commit: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<disk::Error> for Error {
    fn from(disk::Error(path, error): disk::Error) -> Self {
        Self::Io(path, error)
    }
}

impl Error {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |error| Self::Io(path.into(), error)
    }

    /// Whether a file is missing.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Io(_, error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// The spool, for the one process that writes it.
#[derive(Debug)]
pub struct Spool {
    pub(super) tree: Tree,
    pub(super) directory: PathBuf,
    pub(super) manifest: Manifest,
    journal: Output,
    /// Rows in the journal.
    rows: Rows,
    pending: Pending,
    /// Whether the disk has the name of the journal.
    is_settled: bool,
    _lock: Lock,
}

#[derive(Debug, Default)]
struct Pending {
    rows: Rows,
    begun: u64,
    gaps: Vec<ArchivedGap>,
}

#[derive(Debug, Default)]
struct Rows {
    octets: Vec<u8>,
    order: Vec<Position>,
}

/// Where the octets of a row are, and what they are sorted by.
#[derive(Debug)]
struct Position {
    partition: Partition,
    prefix: u64,
    key: Key,
    begin: u32,
    length: u8,
}

impl Spool {
    /// Opens the spool of an archive, or begins one; finishes or undoes what a crash left. `now` is used for a new
    /// archive only: it can tell about the time from then on.
    ///
    /// # Errors
    /// When there is no spool that can be used.
    pub fn open(root: &Path, gateway: &str, now: Millis) -> Result<Self, Error> {
        let tree = Tree::new(root);
        let directory = tree.spool();
        create_directory(&directory, disk::DIRECTORY)?;
        let path = directory.join("lock");
        let lock = Lock::take(&path, disk::FILE)?.ok_or(Error::Locked(path))?;
        let path = directory.join("journal");
        let (manifest, journal, octets) = match journal::read(&path) {
            Ok(contents) => (
                contents.manifest,
                Output::open(&path, contents.end)?,
                contents.rows,
            ),
            Err(error) if error.is_gone() => {
                if runs(&directory)?
                    .iter()
                    .any(|name| name.starts_with("run-"))
                {
                    return Err(Error::Damaged(path, "it is missing"));
                }
                let number = tree.last_number(gateway).map_err(Error::io(root))?;
                let manifest = Manifest::new(gateway.to_owned(), number, now);
                (
                    manifest.clone(),
                    journal::begin(&directory, &manifest)?,
                    Vec::new(),
                )
            }
            Err(error) => return Err(error),
        };
        let mut spool = Self {
            tree,
            directory,
            manifest,
            journal,
            rows: Rows::default(),
            pending: Pending::default(),
            is_settled: false,
            _lock: lock,
        };
        let mut rest = octets.as_slice();
        while !rest.is_empty() {
            let damaged = |_| Error::Damaged(path.clone(), "a row has an unknown form");
            spool.rows.push(&Row::decode(&mut rest).map_err(damaged)?);
        }
        // What a process wrote that ended before the disk had it can be read now, but would not survive a loss of power.
        spool.journal.append(&[]).map_err(Error::io(&path))?;
        spool.settle()?;
        spool.finish_seal()?;
        spool.remove_leftovers()?;
        if spool.manifest.gateway != gateway {
            spool.end_journal()?;
            let gateway = gateway.to_owned();
            let manifest = spool.manifest.clone();
            spool.replace_journal(Manifest {
                gateway,
                ..manifest
            })?;
        }
        Ok(spool)
    }

    /// Whether there is one in this archive.
    pub fn exists(root: &Path) -> bool {
        Tree::new(root).spool().join("journal").exists()
    }

    /// That of the last commit; `None` when there was none.
    pub const fn place(&self) -> Option<Place> {
        self.manifest.place
    }

    /// Until when everything is sealed.
    pub const fn sealed_until(&self) -> Millis {
        self.manifest.from
    }

    /// The number of the last seal, 0 when there was none.
    pub const fn sealed_number(&self) -> u64 {
        self.manifest.sealed
    }

    /// Whether it holds so much that sealing should not wait for the end of the hour.
    pub const fn is_full(&self) -> bool {
        self.manifest.runs.len() >= MANY_RUNS
    }

    /// A session that began.
    pub const fn push_begun(&mut self) {
        self.pending.begun += 1;
    }

    /// A session that ended. Commit at least every million.
    pub fn push(&mut self, row: &Row) {
        self.pending.rows.push(row);
    }

    pub fn push_gap(&mut self, gap: &Gap) {
        self.pending.gaps.push(gap.into());
    }

    /// Makes all that was pushed since the last commit durable, together with the place.
    ///
    /// # Errors
    /// Then what was pushed since the last commit is forgotten: push what comes after [`Self::place`] again.
    pub fn commit(&mut self, place: Place) -> Result<(), Error> {
        let Pending { rows, begun, gaps } = mem::take(&mut self.pending);
        if self.rows.order.len() >= JOURNAL_ROWS {
            self.end_journal()?;
        }
        let head = Head::Commit {
            place,
            rows: rows.order.len() as u64,
            begun,
            gaps,
        };
        self.append(head, &rows.octets)?;
        self.rows.append(rows);
        Ok(())
    }

    pub(super) fn run_path(&self, number: u64) -> PathBuf {
        run_path(&self.directory, number)
    }

    /// Where a file of a seal is until its seal is committed.
    pub(super) fn sealed_path(&self, number: u64, part: usize) -> PathBuf {
        sealed_path(&self.directory, number, part)
    }

    pub(super) fn append(&mut self, head: Head, rows: &[u8]) -> Result<(), Error> {
        self.settle()?;
        let frame = journal::frame(&head, rows)?;
        let path = || self.directory.join("journal");
        self.journal
            .append(&frame)
            .map_err(|error| Error::Io(path(), error))?;
        self.manifest.apply(head);
        Ok(())
    }

    /// Sorts the rows of the journal into a run, and begins the journal anew.
    pub(super) fn end_journal(&mut self) -> Result<(), Error> {
        if self.rows.order.is_empty() {
            return Ok(());
        }
        let mut manifest = self.manifest.clone();
        let number = manifest.next_run;
        manifest.next_run += 1;
        let run = self.rows.write_run(&self.run_path(number), number)?;
        manifest.runs.push(run);
        self.replace_journal(manifest)
    }

    /// The new journal has no rows: they have to be elsewhere.
    pub(super) fn replace_journal(&mut self, manifest: Manifest) -> Result<(), Error> {
        self.journal = journal::begin(&self.directory, &manifest)?;
        self.manifest = manifest;
        self.rows = Rows::default();
        self.is_settled = false;
        self.settle()
    }

    /// Makes sure that no loss of power brings back the journal before this one.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        if !self.is_settled {
            sync_directory(&self.directory)?;
            self.is_settled = true;
        }
        Ok(())
    }

    /// Removes files that the journal does not name. No seal may be unfinished.
    pub(super) fn remove_leftovers(&self) -> Result<(), Error> {
        let run = |info: &RunInfo| self.run_path(info.number);
        let named: Vec<_> = self.manifest.runs.iter().map(run).collect();
        for name in runs(&self.directory)? {
            let path = self.directory.join(&name);
            if !named.contains(&path) && !name.ends_with(".damaged") {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Rows {
    fn push(&mut self, row: &Row) {
        // A journal and a commit are together less than 2^32 octets.
        let begin = self.octets.len() as u32;
        row.encode(&mut self.octets);
        let key = row.key();
        self.order.push(Position {
            partition: Partition::of(row),
            prefix: prefix(&key),
            key,
            begin,
            // A row has 132 octets at most.
            length: (self.octets.len() as u32 - begin) as u8,
        });
    }

    fn append(&mut self, other: Self) {
        let begin = self.octets.len() as u32;
        self.octets.extend_from_slice(&other.octets);
        self.order
            .extend(other.order.into_iter().map(|mut position| {
                position.begin += begin;
                position
            }));
    }

    fn write_run(&mut self, path: &Path, number: u64) -> Result<RunInfo, Error> {
        let mut info = RunInfo::empty(number);
        self.order.sort_unstable_by(|a, b| {
            let first = (a.partition, a.prefix).cmp(&(b.partition, b.prefix));
            first.then_with(|| a.key.cmp(&b.key))
        });
        let mut run = RunWriter::create(path)?;
        for position in &self.order {
            let octets = &self.octets[position.begin as usize..][..position.length.into()];
            info.add(position.key.end);
            run.push(position.partition, &position.key, octets)?;
        }
        run.finish()?;
        Ok(info)
    }
}

/// A number in the order of keys, equal where only the keys tell.
pub(super) fn prefix(key: &Key) -> u64 {
    match key.post_src {
        IpAddr::V4(address) => {
            let port = u64::from(key.post_sport) << 8;
            u64::from(address.to_bits()) << 24 | port | u64::from(key.protocol)
        }
        IpAddr::V6(address) => 1 << 63 | (address.to_bits() >> 65) as u64,
    }
}

fn run_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("run-{number}"))
}

fn sealed_path(directory: &Path, number: u64, part: usize) -> PathBuf {
    directory.join(format!("seal-{number}-{part}"))
}

/// The names of all runs and of files of seals.
fn runs(directory: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let entry = entry.map_err(Error::io(directory))?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.starts_with("run-") || name.starts_with("seal-") {
            names.push(name);
        }
    }
    Ok(names)
}
