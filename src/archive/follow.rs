//! Following the daemon's record log into the spool, sealing it when an hour is over, and deleting what is too old.
//!
//! The spool keeps the records and the place in the log together, so whatever ends this process, the next one goes on
//! with the first record that the archive does not have. The daemon hears of a place only once that is on the disk.

mod retention;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use self::retention::Retention;
use super::evidence::Evidence;
use super::proof::{self, note::Note};
use super::row::{Millis, Row};
use super::spool::{self, Place, Spool};
use crate::config::{Selection, Share};
use crate::place::{Missing, Position, Serial, Span};
use crate::session::{EventKind, Record};
use crate::store;
use crate::store::reading::{self, Bookmark, Piece};
use crate::time::Wall;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// Ends that the daemon hears of late still come into the file of their hour.
const GRACE: Duration = Duration::from_secs(60);
/// The small files of a day are merged when no more ends of that day are expected. Days on which nothing ran are made up for.
const MERGED_DAYS: std::ops::RangeInclusive<u64> = 2..=8;

/// The reason why a step could not be taken. Nothing is lost: the log keeps what the archive does not have.
#[derive(Debug)]
pub enum Error {
    /// The daemon's database cannot be read.
    Log(PathBuf, store::Error),
    /// The directory has no archive, although the daemon keeps records for one: a disk is not mounted, or the like.
    Missing(PathBuf),
    Spool(spool::Error),
    Proof(proof::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(path, error) => write!(f, "database \"{}\" {error}", path.display()),
            Self::Missing(root) => write!(
                f,
                "archive \"{}\": expected the archive that the daemon keeps records for, found none; mount it, or run \
                 \"nattrail archive forget\" to begin a new one",
                root.display()
            ),
            Self::Spool(error) => error.fmt(f),
            Self::Proof(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<spool::Error> for Error {
    fn from(error: spool::Error) -> Self {
        Self::Spool(error)
    }
}

impl From<proof::Error> for Error {
    fn from(error: proof::Error) -> Self {
        Self::Proof(error)
    }
}

/// The state after a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// The archive has every record of the log before it, on its disk.
    pub taken: Serial,
    /// Whether there is more to read at once.
    pub has_more: bool,
}

/// The one writer of an archive.
pub struct Follow {
    database: PathBuf,
    root: PathBuf,
    gateway: String,
    /// `None` before the first step, and after an error.
    spool: Option<Spool>,
    /// The end of the hour that was sealed last.
    sealed: Option<Millis>,
    evidence: Evidence,
    retention: Retention,
    only: Option<Selection>,
}

impl Follow {
    pub fn new(database: PathBuf, root: PathBuf, gateway: String, retention: Retention) -> Self {
        Self {
            evidence: Evidence::new(&root, &gateway),
            database,
            root,
            gateway,
            spool: None,
            sealed: None,
            retention,
            only: None,
        }
    }

    /// From the next step on, the archive takes only the records that this selection shares, or all of the log.
    pub fn select(&mut self, only: Option<Selection>) {
        self.only = only;
    }

    /// Takes a piece of the log, and seals what is due.
    ///
    /// # Errors
    /// Then the same call later goes on.
    pub fn step(&mut self, now: Wall) -> Result<Step, Error> {
        let mut spool = match self.spool.take() {
            Some(spool) => spool,
            None => self.open(now)?,
        };
        let step = self.take(&mut spool);
        if !matches!(step, Err(Error::Spool(_))) {
            self.spool = Some(spool);
        }
        step
    }

    /// Puts records of seals that the evidence log does not have there; that never holds up a [step](Self::step). Returns the
    /// newest checkpoint when there were some, for others to keep.
    ///
    /// # Errors
    /// Then the same call later goes on.
    pub fn sign(&mut self, now: Wall) -> Result<Option<Note>, proof::Error> {
        let Some(spool) = &self.spool else {
            return Ok(None);
        };
        let has_all = self.evidence.append(spool.sealed_number(), now)?;
        Ok(has_all.then(|| self.evidence.take_news()).flatten())
    }

    fn open(&self, now: Wall) -> Result<Spool, Error> {
        if !Spool::exists(&self.root) && self.read(None)?.is_expected {
            return Err(Error::Missing(self.root.clone()));
        }
        let spool = Spool::open(&self.root, &self.gateway, now.into())?;
        let inbox = |error| spool::Error::Io(self.root.join("inbox"), error);
        super::acts::open(&self.root).map_err(inbox)?;
        Ok(spool)
    }

    fn read(&self, bookmark: Option<Bookmark>) -> Result<Piece, Error> {
        reading::piece(&self.database, bookmark)
            .map_err(|error| Error::Log(self.database.clone(), error))
    }

    fn take(&mut self, spool: &mut Spool) -> Result<Step, Error> {
        let bookmark = spool.place().map(|place| Bookmark {
            run: Wall::from_nanos(place.run),
            next: Serial(place.next),
        });
        let piece = self.read(bookmark)?;
        let taken = push(&piece, self.only.as_ref(), spool);
        let place = Place {
            run: piece.at.run.as_nanos(),
            next: taken.0,
        };
        if spool.place() != Some(place) {
            spool.commit(place)?;
        }
        let has_more = taken < piece.end;
        self.seal(spool, &piece, has_more)?;
        Ok(Step { taken, has_more })
    }

    fn seal(&mut self, spool: &mut Spool, piece: &Piece, has_more: bool) -> Result<(), Error> {
        // In the middle of a backlog, only what the records themselves show is known.
        let known = match piece.blocks.first() {
            Some(block) if has_more => block.since.min(piece.heard),
            _ => piece.heard,
        };
        let known = Millis::from(known.saturating_sub(GRACE)).get();
        let hour = Millis::new(known - known % HOUR);
        let sealed = *self
            .sealed
            .get_or_insert_with(|| spool.sealed_until().min(hour));
        // The clock may have gone back.
        let is_due = hour != sealed && known > 0 && !has_more;
        if is_due {
            spool.seal(hour)?;
            self.sealed = Some(hour);
        } else if spool.is_full() {
            spool.seal(Millis::new(known))?;
        }
        if is_due && sealed.get() / DAY != hour.get() / DAY {
            for days in MERGED_DAYS {
                spool.compact(Millis::new(hour.get().saturating_sub(days * DAY)))?;
            }
        }
        Ok(())
    }
}

/// Pushes all of a piece, and returns the serial after it. Records that nobody can read any more become gaps.
fn push(piece: &Piece, only: Option<&Selection>, spool: &mut Spool) -> Serial {
    let mut next = piece.at.next;
    if let Some(missing) = piece.missing {
        // Everything before that is in the archive.
        let since = missing.since.max(spool.sealed_until().wall());
        spool.push_gap(&Missing { since, ..missing }.gap());
    }
    for block in &piece.blocks {
        for record in reading::unread(block, next) {
            let Ok(record) = record else { break };
            next.0 += 1;
            match only.map_or(Share::Whole, |only| only.share(&record)) {
                Share::Nothing => continue,
                Share::Whole => {}
                Share::After(_) => spool.push_begun(),
            }
            match record {
                Record::Gap(gap) => spool.push_gap(&gap),
                // Of this archive's own log.
                Record::Checkpoint(_) => {}
                Record::Event(event) => match event.kind {
                    EventKind::Create => spool.push_begun(),
                    EventKind::Delete => Row::of(&event).iter().for_each(|row| spool.push(row)),
                    // The delete has the sums.
                    EventKind::Flow => {}
                },
            }
        }
        if next < block.end() {
            let span = Span {
                first: next,
                end: block.end(),
                since: block.since,
                until: block.until,
            };
            next = give_up(&span, next, spool);
        }
    }
    match &piece.damaged {
        Some(span) => give_up(span, next, spool),
        None => next,
    }
}

fn give_up(span: &Span, next: Serial, spool: &mut Spool) -> Serial {
    if let Some(missing) = span.missing_at(Position::before(next)) {
        spool.push_gap(&missing.gap());
    }
    span.end.max(next)
}

#[cfg(test)]
mod tests;
