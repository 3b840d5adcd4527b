//! Reading the database beside the daemon that uses it, without changing anything.
//!
//! Each call opens the file anew, as the daemon may have replaced it, and reads all of one moment. It needs the permission
//! to read the file and those beside it, and holds nobody up: a writer never waits for readers (SQLite's write-ahead log).

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::files::suffixed;
use super::run::{self, Origin};
use super::segment::Directory;
use super::{Error, blocks, load, schema};
use crate::engine::StoredSession;
use crate::export::follower;
use crate::place::{Missing, Serial, Span};
use crate::session::Record;
use crate::time::Wall;
use crate::wire::record::Block;

/// Octets of records after which a piece is large enough.
const PIECE: usize = 1 << 20;

/// The place of a reader in the log of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bookmark {
    /// The latest run ([`Origin::run`]) when it was there.
    pub run: Wall,
    /// The first record that it has not read.
    pub next: Serial,
}

/// A piece of the log, and the state of the daemon at that moment.
#[derive(Debug)]
pub struct Piece {
    /// The place at which the reader really is, in the latest run. Records before it that the reader does not have are
    /// [missing](Self::missing).
    pub at: Bookmark,
    pub missing: Option<Missing>,
    /// Whether the daemon keeps records for an archive that it has heard of.
    pub is_expected: bool,
    /// The records at that place, in blocks: none at the end of the log.
    pub blocks: Vec<Block>,
    /// Records behind those that nobody can read any more.
    pub damaged: Option<Span>,
    /// The serial after the last record.
    pub end: Serial,
    /// The daemon has heard the kernel until then.
    pub heard: Wall,
}

/// Hands over the pending sessions, and returns until when the daemon had heard the kernel then.
///
/// # Errors
/// As for the daemon; the sessions before it have been handed over by then.
pub fn sessions(path: &Path, each: impl FnMut(StoredSession)) -> Result<Wall, Error> {
    let connection = open(path)?;
    let transaction = connection.unchecked_transaction()?;
    load(&transaction, &mut Directory::default(), each)?;
    Ok(run::read(&transaction)?.heard.unwrap_or_default())
}

/// The records of the log at `bookmark`; a reader without one begins where the archive stands, or else with the oldest.
///
/// # Errors
/// As for the daemon.
pub fn piece(path: &Path, bookmark: Option<Bookmark>) -> Result<Piece, Error> {
    let connection = open(path)?;
    let transaction = connection.unchecked_transaction()?;
    let run = run::read(&transaction)?;
    let origins = run::read_origins(&transaction)?;
    let places = run::read_places(&transaction)?;
    let archive = places.into_iter().find(|(key, _)| key == follower::NAME);
    let archive = archive.map(|(_, place)| place);
    let from = bookmark.and_then(|bookmark| continued(bookmark, &origins));
    let from = from.or(archive.map(|place| place.position.serial));
    let (found, damaged) = contiguous(&transaction, from.unwrap_or_default())?;
    let first = found.first().map(|block| block.first);
    let first = first.or(damaged.map(|span| span.first)).unwrap_or(run.next);
    let next = from.map_or(first, |from| from.max(first));
    let lost = from.map_or(0, |from| next.0 - from.0);
    let missing = (lost > 0).then(|| {
        let stated = archive.and_then(|place| place.missing);
        Missing {
            count: lost,
            since: stated.map_or(Wall::default(), |missing| missing.since),
            until: stated.map_or_else(|| run.heard.unwrap_or_default(), |missing| missing.until),
        }
    });
    let latest = origins.last().map_or(Wall::default(), |origin| origin.run);
    Ok(Piece {
        at: Bookmark { run: latest, next },
        missing,
        is_expected: archive.is_some(),
        blocks: found,
        damaged,
        end: run.next,
        heard: run.heard.unwrap_or_default(),
    })
}

/// Hands over the records of the log from `bookmark` on, and returns until when the daemon has heard the kernel.
///
/// # Errors
/// As for the daemon, and a damaged block.
pub fn records(
    path: &Path,
    bookmark: Option<Bookmark>,
    each: impl FnMut(Record),
) -> Result<Wall, Error> {
    records_from(path, piece(path, bookmark)?, each)
}

/// Hands over the records of a piece and those after it, as [`records`].
///
/// # Errors
/// As for [`records`].
pub fn records_from(
    path: &Path,
    mut piece: Piece,
    mut each: impl FnMut(Record),
) -> Result<Wall, Error> {
    loop {
        let damaged = || Error::Damaged("records of its log cannot be read".to_owned());
        for block in &piece.blocks {
            for record in unread(block, piece.at.next) {
                each(record.map_err(|_| damaged())?);
            }
        }
        match piece.blocks.last() {
            _ if piece.damaged.is_some() => return Err(damaged()),
            None => return Ok(piece.heard),
            Some(last) => {
                let bookmark = Bookmark {
                    next: last.end(),
                    ..piece.at
                };
                piece = self::piece(path, Some(bookmark))?;
            }
        }
    }
}

/// The records of a block from `next` on.
pub fn unread(
    block: &Block,
    next: Serial,
) -> impl Iterator<Item = Result<Record, crate::wire::record::Malformed>> {
    let mut offset = 0;
    let records = std::iter::from_fn(move || block.record_at(&mut offset).transpose());
    records.skip(next.0.saturating_sub(block.first.0) as usize)
}

/// The blocks from `next` on without a hole between them, up to a bound, and a damaged one after them.
fn contiguous(
    connection: &Connection,
    mut next: Serial,
) -> rusqlite::Result<(Vec<Block>, Option<Span>)> {
    let (mut found, mut octets) = (Vec::<Block>::new(), 0);
    while octets < PIECE {
        match blocks::read(connection, next)? {
            Some(Ok(block)) if found.is_empty() || block.first == next => {
                (octets, next) = (octets + block.bytes.len(), block.end());
                found.push(block);
            }
            Some(Err(span)) if found.is_empty() || span.first == next => {
                return Ok((found, Some(span)));
            }
            _ => break,
        }
    }
    Ok((found, None))
}

/// The place in the latest run; `None` when the log is not the one of the bookmark.
///
/// A run numbers its records from the last ones that it found in the database. Those that a reader had read beyond that
/// have other contents now.
fn continued(bookmark: Bookmark, origins: &[Origin]) -> Option<Serial> {
    let index = origins
        .iter()
        .rposition(|origin| origin.run == bookmark.run)?;
    let later = origins[index + 1..].iter().map(|origin| origin.first);
    Some(later.fold(bookmark.next, Serial::min))
}

fn open(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let opened = Connection::open_with_flags(path, flags)?;
    opened.busy_timeout(Duration::from_secs(5))?;
    let (connection, is_empty) = match schema::is_empty(&opened) {
        Ok(is_empty) => (opened, is_empty),
        // A daemon that stopped took the write-ahead log along, and who may only read cannot make one. The file alone is
        // whole then, as long as nobody opens it for writing; what that would change meanwhile has checksums.
        Err(Error::Unavailable(_)) if !suffixed(path, "-wal").exists() => {
            let octets = path.as_os_str().as_encoded_bytes().iter();
            let name: String = octets.map(|octet| format!("%{octet:02x}")).collect();
            let name = format!("file:{name}?immutable=1");
            let alone = Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_URI)?;
            let is_empty = schema::is_empty(&alone)?;
            (alone, is_empty)
        }
        Err(error) => return Err(error),
    };
    if is_empty {
        let reason = "it is empty: no nattrail has written to it yet";
        return Err(Error::Refused(reason.to_owned()));
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::record_log::RecordLog;
    use crate::store::tests::{Scene, database, numbered_record};

    fn origins(all: &[(u64, u64)]) -> Vec<Origin> {
        let origin = |&(run, first)| Origin {
            run: Wall::from_secs(run),
            first: Serial(first),
        };
        all.iter().map(origin).collect()
    }

    fn next(run: u64, next: u64, all: &[(u64, u64)]) -> Option<u64> {
        let bookmark = Bookmark {
            run: Wall::from_secs(run),
            next: Serial(next),
        };
        continued(bookmark, &origins(all)).map(|serial| serial.0)
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        assert_eq!(next(1, 700, &[(1, 1)]), Some(700));
        assert_eq!(next(1, 700, &[(1, 1), (2, 900), (3, 1_000)]), Some(700));
        assert_eq!(next(2, 700, &[(1, 1), (2, 500), (3, 1_000)]), Some(700));
    }

    #[test]
    fn records_that_a_later_run_has_replaced_are_read_again() {
        assert_eq!(next(1, 700, &[(1, 1), (2, 600)]), Some(600));
        assert_eq!(next(1, 700, &[(1, 1), (2, 600), (3, 900)]), Some(600));
        assert_eq!(next(1, 700, &[(1, 1), (2, 900), (3, 1)]), Some(1));
        assert_eq!(next(2, 700, &[(1, 1), (2, 600), (3, 900)]), Some(700));
    }

    #[test]
    fn another_log_has_no_such_place() {
        assert_eq!(next(1, 700, &[]), None);
        assert_eq!(next(1, 700, &[(2, 1), (3, 900)]), None);
    }

    fn times(found: &Piece) -> Vec<u64> {
        let records = found
            .blocks
            .iter()
            .flat_map(|block| unread(block, found.at.next));
        records
            .map(|record| record.unwrap().time().as_nanos())
            .collect()
    }

    #[test]
    fn a_reader_gets_each_record_once_and_is_told_what_is_gone() {
        let mut scene = Scene::new();
        let path = database(&scene.directory);
        let mut log = RecordLog::new(Serial(1));
        let mut commit = |numbers: std::ops::Range<u64>, needed| {
            numbers.for_each(|number| log.push(&numbered_record(number)));
            scene.commit(&mut log, Serial(needed));
        };
        commit(1..4, 1);
        let first = piece(&path, None).unwrap();
        assert_eq!((times(&first), first.missing), (vec![1, 2, 3], None));
        let bookmark = |next| Bookmark {
            next: Serial(next),
            ..first.at
        };
        let last = piece(&path, Some(bookmark(3))).unwrap();
        assert_eq!((times(&last), last.end), (vec![3], Serial(4)));
        let end = piece(&path, Some(bookmark(4))).unwrap();
        assert!(end.blocks.is_empty() && end.missing.is_none());
        commit(4..6, 4);
        commit(6..8, 6);
        let gone = piece(&path, Some(bookmark(3))).unwrap();
        assert_eq!((times(&gone), gone.at.next), (vec![6, 7], Serial(6)));
        assert_eq!(gone.missing.unwrap().count, 3);
        let mut all = Vec::new();
        records(&path, None, |record| all.push(record.time().as_nanos())).unwrap();
        assert_eq!(all, [6, 7]);
    }
}
