//! The database: pending sessions, the record log, and the places of the outputs. SQLite, one transaction per flush.
//!
//! It holds the sessions that were pending at the last commit, the records that an output has not taken yet, and each
//! output's place: all of one moment, so that a restarted daemon goes on with them.
//!
//! # Durability
//! Write-ahead log with `synchronous = NORMAL`: a commit survives any end of the process. A loss of power may undo the
//! last commits, but never damages the file; the connections in those commits do not survive it either.
//!
//! # Damage
//! Every blob and every row that names somebody has a checksum (`codec`). A session that cannot be read is not restored,
//! and the database is [`Error::Damaged`]; a block of records that cannot be read costs its records, and a gap states them.
//!
//! # Locking
//! One daemon per database, by a lock on a file beside it. Readers (`nattrail pending`, sqlite3) are welcome at any time.
//!
//! # Privacy
//! The file is made with mode 0640, a missing directory with 0750. SQLite gives its log files the mode of
//! the database.

mod blocks;
mod checkpoint;
pub mod codec;
mod files;
pub mod reading;
pub mod record_log;
mod run;
mod schema;
mod segment;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, params};

pub use self::blocks::Stored;
use self::checkpoint::Checkpointer;
use self::codec::{Sessions, seal, unseal};
pub use self::files::{Heartbeat, heartbeat, is_foreign, set_aside};
use self::files::{create, identity, lock, set_heartbeat, suffixed};
use self::run::malformed;
pub use self::run::{LastRun, Origin, Places};
use self::segment::{Directory, Merged, Segment};
use crate::engine::{Changes, Row, StoredSession};
use crate::place::{Place, Serial, Span};
use crate::time::Wall;
use crate::wire::record::{Block, Malformed};

/// Blocks deleted in one commit, beyond as many as it writes: the pages of each are read and freed one by one.
const MAX_DELETED_BLOCKS: usize = 8;

/// Waiting for another connection's lock happens inside the event loop, so it must stay short.
const BUSY_TIMEOUT: Duration = Duration::from_millis(20);

/// An error, by its remedy. Its text follows the name of the database.
#[derive(Debug)]
pub enum Error {
    /// The file is not a sound database: set it aside and begin a new one.
    Damaged(String),
    /// The file is not for this program to write: leave it alone, go on without it and try again.
    Refused(String),
    /// Another daemon is using the file.
    Locked,
    /// The disk is full or read-only, a permission is missing, or the like: go on without it and try again.
    Unavailable(String),
    /// The file was deleted or replaced while it was in use: begin a new one.
    Gone,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(reason) => write!(f, "is damaged: {reason}"),
            Self::Refused(reason) => write!(f, "cannot be used: {reason}"),
            Self::Locked => f.write_str(
                "is in use by another nattrail; give each instance its own pending.database",
            ),
            Self::Unavailable(reason) => write!(f, "is not available: {reason}"),
            Self::Gone => f.write_str("was deleted or replaced while in use"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(reason),
            // A statement that does not fit the schema, or a value of another type than the schema allows.
            Some(ErrorCode::TypeMismatch | ErrorCode::ConstraintViolation | ErrorCode::Unknown)
            | None => Self::Damaged(reason),
            Some(_) => Self::Unavailable(reason),
        }
    }
}

/// Everything that one commit writes.
#[derive(Debug)]
pub struct Commit<'a> {
    pub changes: &'a Changes<'a>,
    /// Blocks that the database does not have yet.
    pub blocks: Vec<&'a Block>,
    /// Blocks that have to go although not every output has taken them.
    pub evicted: &'a [Stored],
    pub places: &'a [(String, Place)],
    /// The first record that an output still needs or may have to go back to.
    pub needed: Serial,
    /// The serial of the next record.
    pub next: Serial,
    /// See [`Origin::run`].
    pub run: Wall,
    /// The end of the time in which the daemon listened to the kernel.
    pub heard: Wall,
    /// See [`LastRun::socket`].
    pub socket: Option<u64>,
    /// See [`LastRun::stopped`]: `Some` makes this the last commit of the run.
    pub stopped: Option<u32>,
    /// Whether it has to survive a loss of power: the first commit of a run, without which the next run would see the
    /// end of the run before this one.
    pub durable: bool,
}

/// The open store. No second one can be opened for the same file meanwhile.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Dropped before the connection, whose end then merges the write-ahead log.
    checkpointer: Checkpointer,
    connection: Connection,
    directory: Directory,
    /// Room for a blob, to be reused.
    blob: Vec<u8>,
    /// Where the outputs stood at the last commit of this run.
    places: Option<Places>,
    /// Whether the database has the origin of this run.
    has_origin: bool,
    /// Octets of the record log.
    log_octets: u64,
    /// Device and inode of the file.
    identity: (u64, u64),
    lock: File,
}

impl Store {
    /// Opens the database, makes a missing one, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_within(path, Duration::ZERO)
    }

    /// The same, and waits so long while another connection has it locked.
    pub fn open_within(path: &Path, patience: Duration) -> Result<Self, Error> {
        let directory = path.parent().unwrap_or(path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)?;
        let lock = lock(path)?;
        // SQLite would make it readable for everyone. If another file takes its place before SQLite opens it, the first
        // commit finds out.
        let identity = create(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(patience.max(BUSY_TIMEOUT))?;
        // Nothing may change until it is known to be ours: closing the connection would make SQLite merge the log.
        let has_log = fs::metadata(suffixed(path, "-wal")).is_ok_and(|log| log.len() > 0);
        let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(keep_log, has_log)?;
        let is_empty = schema::is_empty(&connection)?;
        schema::prepare(&connection, is_empty)?;
        connection.set_db_config(keep_log, false)?;
        let log_octets = blocks::octets(&connection)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let checkpointer = Checkpointer::new(path, &connection)?;
        Ok(Self {
            path: path.to_owned(),
            checkpointer,
            connection,
            directory: Directory::default(),
            blob: Vec::new(),
            places: None,
            has_origin: false,
            log_octets,
            identity,
            lock,
        })
    }

    /// Hands every stored session to `restore`. To be called once, before the first commit.
    ///
    /// # Errors
    /// `Damaged` when a part of the file cannot be read or decoded. The sessions before it have been handed over by then.
    pub fn load(&mut self, restore: impl FnMut(StoredSession)) -> Result<(), Error> {
        load(&self.connection, &mut self.directory, restore)
    }

    /// The run that made the last commit, which may have been this one.
    pub fn last_run(&self) -> Result<LastRun, Error> {
        Ok(run::read(&self.connection)?)
    }

    /// Where the outputs stood at the last commit.
    pub fn places(&self) -> Result<Places, Error> {
        Ok(run::read_places(&self.connection)?)
    }

    /// Octets of the record log.
    pub const fn log_octets(&self) -> u64 {
        self.log_octets
    }

    /// The block with the record `serial`, or the next one if that record is gone. The inner error is a block that is
    /// damaged.
    pub fn block(&self, serial: Serial) -> Result<Option<Result<Block, Span>>, Error> {
        Ok(blocks::read(&self.connection, serial)?)
    }

    /// The oldest blocks of the record log, at most `count` of them.
    pub fn oldest_blocks(&self, count: usize) -> Result<Vec<Stored>, Error> {
        Ok(blocks::oldest(&self.connection, count)?)
    }

    /// Deletes the record log, as it belongs to another run.
    pub fn clear_log(&mut self) -> Result<(), Error> {
        self.connection.execute(schema::DELETE_BLOCKS, [])?;
        self.log_octets = 0;
        Ok(())
    }

    /// Whether a commit has to wait for a checkpoint, which is under way on another thread.
    pub fn is_busy(&self) -> bool {
        self.checkpointer.is_busy()
    }

    /// Writes everything in one transaction: all of it or nothing. Not while [`Self::is_busy`].
    pub fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Error> {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => return Err(Error::Gone),
        }
        let untaken = self.write(commit)?;
        let blocks = commit.blocks.iter().map(|block| block.bytes.len() as u64);
        self.checkpointer.note(blocks.sum());
        // A failure costs only the second witness.
        let heard = commit.heard;
        let untaken = untaken.map_or(heard, |since| since.min(heard));
        let _ = set_heartbeat(&self.lock, Heartbeat { heard, untaken });
        Ok(())
    }

    /// Returns the time of the oldest record that an output has not taken.
    fn write(&mut self, commit: &Commit<'_>) -> rusqlite::Result<Option<Wall>> {
        for row in commit.changes.ended() {
            self.directory.end(row);
        }
        let synchronous = if commit.durable { "FULL" } else { "NORMAL" };
        self.connection
            .pragma_update(None, "synchronous", synchronous)?;
        let transaction = self.connection.transaction()?;
        for segment in self.directory.dirty() {
            write_ended(&transaction, segment, &mut self.blob)?;
        }
        for segment in self.directory.deletable() {
            delete(&transaction, segment)?;
        }
        let merged = match self.directory.mergeable() {
            Some(run) => Some(merge(&transaction, run, &mut self.blob)?),
            None => None,
        };
        let fresh = insert(&transaction, commit.changes, &mut self.blob)?;
        let (log_octets, untaken) = write_log(&transaction, commit, self.log_octets)?;
        if self.places.as_deref() != Some(commit.places) {
            run::write_places(&transaction, commit.places)?;
        }
        if !self.has_origin {
            let first = commit
                .blocks
                .first()
                .map_or(commit.next, |block| block.first);
            let run = commit.run;
            run::write_origin(&transaction, Origin { run, first })?;
        }
        let begun: usize = fresh.iter().map(Segment::live).sum();
        let run = LastRun {
            heard: Some(commit.heard),
            socket: commit.socket,
            stopped: commit.stopped,
            sessions: (self.directory.live() + begun) as u64,
            next: commit.next,
        };
        run::write(&transaction, &run)?;
        transaction.commit()?;
        self.directory.handle_committed(merged, fresh);
        self.log_octets = log_octets;
        self.has_origin = true;
        let places = self.places.get_or_insert_default();
        places.clear();
        places.extend_from_slice(commit.places);
        Ok(untaken)
    }
}

fn load(
    connection: &Connection,
    directory: &mut Directory,
    mut each: impl FnMut(StoredSession),
) -> Result<(), Error> {
    let mut statement = connection.prepare(schema::SELECT_SEGMENTS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let columns = || -> rusqlite::Result<_> {
            let (sessions, ended) = (row.get_ref(1)?, row.get_ref(2)?);
            Ok((row.get(0)?, sessions.as_blob()?, ended.as_blob_or_null()?))
        };
        let (first, sessions, ended) = columns()?;
        load_segment(first, sessions, ended, directory, &mut each)
            .map_err(|reason| Error::Damaged(format!("sessions from {first} on: {reason}")))?;
    }
    // SQLite may miss a damaged row, or a bitmap without which ended sessions look pending.
    let expected = run::read(connection)?.sessions;
    let found = directory.live() as u64;
    if found != expected {
        let reason = format!("{expected} pending sessions expected, {found} found");
        return Err(Error::Damaged(reason));
    }
    Ok(())
}

fn load_segment(
    first: i64,
    sessions: &[u8],
    ended: Option<&[u8]>,
    directory: &mut Directory,
    each: &mut impl FnMut(StoredSession),
) -> Result<(), Malformed> {
    let sessions = unseal(sessions, &[first])?;
    let ended = ended.map(|ended| unseal(ended, &[first])).transpose()?;
    let row = |session: Result<(StoredSession, _), _>| session.map(|(session, _)| session.row);
    let rows: Result<_, _> = Sessions::new(sessions).map(row).collect();
    let segment = directory.load(rows?, ended)?;
    for (index, (session, _)) in Sessions::new(sessions).flatten().enumerate() {
        if segment.is_live(index) {
            each(session);
        }
    }
    Ok(())
}

/// Writes the new blocks, and deletes those that nobody needs or that have no room. Returns the octets that are left,
/// and the time of the oldest record that an output has not taken.
fn write_log(
    transaction: &Transaction<'_>,
    commit: &Commit<'_>,
    mut octets: u64,
) -> rusqlite::Result<(u64, Option<Wall>)> {
    let mut untaken = None;
    for stored in commit.evicted {
        blocks::delete(transaction, stored.span.first)?;
        octets = octets.saturating_sub(stored.octets);
    }
    for block in &commit.blocks {
        octets += blocks::insert(transaction, block)?;
    }
    // Looking costs a statement; an empty log spares it.
    if octets > 0 {
        let most = commit.blocks.len() + MAX_DELETED_BLOCKS;
        let oldest = blocks::oldest(transaction, most)?;
        for stored in &oldest {
            if stored.span.end <= commit.needed {
                blocks::delete(transaction, stored.span.first)?;
                octets = octets.saturating_sub(stored.octets);
            }
        }
        let taken = commit.places.iter().map(|(_, place)| place.position.serial);
        let taken = taken.min().unwrap_or(commit.next);
        let first = oldest.iter().find(|stored| stored.span.end > taken);
        // There may be more blocks than the ones read.
        let last = oldest.last().filter(|_| oldest.len() == most);
        untaken = first.or(last).map(|stored| stored.span.since);
    }
    Ok((octets, untaken))
}

/// Writes the bitmap of the segment's ended sessions.
fn write_ended(
    transaction: &Transaction<'_>,
    segment: &Segment,
    blob: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    let first = segment.first().0;
    blob.clear();
    blob.extend_from_slice(segment.bitmap());
    seal(blob, &[first]);
    execute(transaction, schema::WRITE_ENDED, params![first, &*blob])
}

fn delete(transaction: &Transaction<'_>, segment: &Segment) -> rusqlite::Result<()> {
    let first = segment.first().0;
    execute(transaction, schema::DELETE_SEGMENT, [first])?;
    execute(transaction, schema::DELETE_ENDED, [first])
}

/// Writes the live sessions of neighbouring segments as one segment.
fn merge(
    transaction: &Transaction<'_>,
    run: &[Segment],
    left: &mut Vec<u8>,
) -> rusqlite::Result<Merged> {
    left.clear();
    let mut rows = Vec::new();
    for segment in run.iter().filter(|segment| !segment.is_empty()) {
        let first = segment.first().0;
        let mut select = transaction.prepare_cached(schema::SELECT_SEGMENT)?;
        let sealed: Vec<u8> = select.query_one([first], |row| row.get(0))?;
        let sessions = Sessions::new(unseal(&sealed, &[first]).map_err(malformed)?).flatten();
        for (_, (session, bytes)) in sessions
            .enumerate()
            .filter(|(index, _)| segment.is_live(*index))
        {
            rows.push(session.row);
            left.extend_from_slice(bytes);
        }
    }
    for segment in run {
        delete(transaction, segment)?;
    }
    let segment = match rows.is_empty() {
        true => None,
        false => Some(insert_segment(transaction, rows, left)?),
    };
    let rows = run[0].first()..=run[run.len() - 1].first();
    Ok(Merged { segment, rows })
}

/// Writes the sessions that have begun, in as few segments as hold them.
fn insert(
    transaction: &Transaction<'_>,
    changes: &Changes<'_>,
    blob: &mut Vec<u8>,
) -> rusqlite::Result<Vec<Segment>> {
    let (mut segments, mut rows) = (Vec::new(), Vec::new());
    blob.clear();
    for stored in changes.begun() {
        rows.push(stored.row);
        codec::encode(&stored, blob);
        if rows.len() == segment::MAX_SESSIONS {
            segments.push(insert_segment(
                transaction,
                std::mem::take(&mut rows),
                blob,
            )?);
            blob.clear();
        }
    }
    if !rows.is_empty() {
        segments.push(insert_segment(transaction, rows, blob)?);
    }
    Ok(segments)
}

fn insert_segment(
    transaction: &Transaction<'_>,
    rows: Vec<Row>,
    sessions: &mut Vec<u8>,
) -> rusqlite::Result<Segment> {
    let segment = Segment::new(rows.into());
    let first = segment.first().0;
    seal(sessions, &[first]);
    execute(
        transaction,
        schema::INSERT_SEGMENT,
        params![first, &*sessions],
    )?;
    Ok(segment)
}

fn execute(
    connection: &Connection,
    statement: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute(values)?;
    Ok(())
}
