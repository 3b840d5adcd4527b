//! The database: pending sessions, the record log, and where the outputs stand. SQLite, one transaction per flush.
//!
//! It holds the sessions that were pending at the last commit, the records that an output has not taken yet, and each
//! output's place: all of one moment, so that a daemon that is started again goes on with them.
//!
//! # Durability
//! Write-ahead log with `synchronous = NORMAL`: a commit survives the end of the process, however that comes. A loss of
//! power may undo the last commits, but never damages the file; the connections of which those commits told did not
//! survive it either.
//!
//! # Damage
//! Every blob and every row that names somebody has a checksum (`codec`). A session that cannot be read is not restored,
//! and the database is [`Error::Damaged`]; a block of records that cannot be read costs these records, which are stated.
//!
//! # Locking
//! One daemon per database, by a lock on a file beside it. Readers (`nattrail pending`, sqlite3) are welcome at any time.
//!
//! # Privacy
//! The file is made with mode 0640, its directory, where it is missing, with 0750. SQLite gives its log files the mode of
//! the database.

mod blocks;
mod checkpoint;
mod codec;
mod files;
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
use self::files::{create, identity, lock, set_heartbeat, suffixed};
pub use self::files::{heartbeat, set_aside};
use self::run::malformed;
pub use self::run::{LastRun, Places};
use self::schema::Origin;
use self::segment::{Directory, Due, Merged, Segment};
use crate::engine::{Changes, Row, StoredSession};
use crate::place::{Place, Serial, Span};
use crate::time::Wall;
use crate::wire::record::Block;

/// Blocks deleted in one commit, beside as many as it writes: the pages of each are read and freed one by one.
const MAX_DELETED_BLOCKS: usize = 8;

/// Waiting for another connection's lock happens inside the event loop, so it must stay short.
const BUSY_TIMEOUT: Duration = Duration::from_millis(20);

/// An error, by the remedy.
#[derive(Debug)]
pub enum Error {
    /// The file is not a sound database: set it aside and begin a new one.
    Damaged { path: PathBuf, reason: String },
    /// The file is not for this program to write: leave it alone, go on without and try again.
    Refused { path: PathBuf, reason: String },
    /// Another daemon is using the file.
    Locked { path: PathBuf },
    /// The disk is full or read-only, a permission is missing, or the like: go on without and try again.
    Unavailable { path: PathBuf, reason: String },
    /// The file was deleted or replaced while it was in use: begin a new one.
    Gone { path: PathBuf },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, what, reason) = match self {
            Self::Gone { path } => {
                let path = path.display();
                return write!(
                    f,
                    "database \"{path}\" was deleted or replaced while in use"
                );
            }
            Self::Locked { path } => {
                let path = path.display();
                return write!(
                    f,
                    "database \"{path}\" is in use by another nattrail; give each instance its own pending.database"
                );
            }
            Self::Damaged { path, reason } => (path, "is damaged", reason),
            Self::Refused { path, reason } => (path, "cannot be used", reason),
            Self::Unavailable { path, reason } => (path, "is not available", reason),
        };
        write!(f, "database \"{}\" {what}: {reason}", path.display())
    }
}

impl std::error::Error for Error {}

/// All that one commit writes.
#[derive(Debug)]
pub struct Commit<'a> {
    pub changes: &'a Changes<'a>,
    /// Blocks that the database does not have yet.
    pub blocks: Vec<&'a Block>,
    /// Serials of blocks that have to go although not every output has taken them.
    pub evicted: &'a [Stored],
    pub places: &'a [(String, Place)],
    /// The first record that an output has not taken.
    pub needed: Serial,
    /// The serial of the next record.
    pub next: Serial,
    /// Until when the kernel was listened to.
    pub heard: Wall,
    /// See [`LastRun::socket`].
    pub socket: Option<u64>,
    /// See [`LastRun::stopped`]: `Some` makes this the last commit of the run.
    pub stopped: Option<u32>,
    /// Whether it has to survive a loss of power: the first commit of a run, without which the next run would take the end
    /// of the one before for that of its predecessor.
    pub durable: bool,
}

/// The open store. No second one can be opened for the same file meanwhile.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Goes before the connection, whose end then merges the write-ahead log.
    checkpointer: Checkpointer,
    connection: Connection,
    directory: Directory,
    /// Room for a blob, used again and again.
    blob: Vec<u8>,
    /// Where the outputs stood at the last commit of this run.
    places: Option<Places>,
    /// Octets of the record log.
    log_octets: u64,
    /// Device and inode of the file.
    identity: (u64, u64),
    lock: File,
}

impl Store {
    /// Opens the database, makes it where there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unavailable = |error: io::Error| Error::unavailable(path, &error);
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(directory);
            made.map_err(unavailable)?;
        }
        let lock = lock(path)?;
        // SQLite would make it readable for everyone. Should another file come to stand in its place before SQLite opens that,
        // the first commit finds it.
        let identity = create(path).map_err(unavailable)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|error| Error::of_sqlite(path, &error))?;
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .map_err(|error| Error::of_sqlite(path, &error))?;
        // Until it is known to be ours nothing of it is to change: as the connection is closed, SQLite would merge the log.
        let has_log = fs::metadata(suffixed(path, "-wal")).is_ok_and(|log| log.len() > 0);
        let keep_log = |keep| {
            let setting = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            let set = connection.set_db_config(setting, keep);
            set.map_err(|error| Error::of_sqlite(path, &error))
        };
        keep_log(has_log)?;
        let is_empty = is_empty(&connection, path)?;
        let prepared = schema::prepare(&connection, is_empty);
        prepared.map_err(|error| Error::of_sqlite(path, &error))?;
        keep_log(false)?;
        let log_octets =
            blocks::octets(&connection).map_err(|error| Error::of_sqlite(path, &error))?;
        let checkpointer = Checkpointer::new(path, &connection);
        let checkpointer = checkpointer.map_err(|error| Error::of_sqlite(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            checkpointer,
            connection,
            directory: Directory::default(),
            blob: Vec::new(),
            places: None,
            log_octets,
            identity,
            lock,
        })
    }

    /// Hands every stored session to `restore`. To be called once, before the first commit.
    ///
    /// # Errors
    /// `Damaged` when a part of the file cannot be read or understood. The sessions before it have been handed over then.
    pub fn load(&mut self, restore: impl FnMut(StoredSession)) -> Result<(), Error> {
        load(&self.connection, &self.path, &mut self.directory, restore)
    }

    /// The run that made the last commit, which may have been this one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn last_run(&self) -> Result<LastRun, Error> {
        run::read(&self.connection).map_err(|error| self.error(&error))
    }

    /// Where the outputs stood at the last commit.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn places(&self) -> Result<Places, Error> {
        run::read_places(&self.connection).map_err(|error| self.error(&error))
    }

    /// Octets of the record log.
    #[must_use]
    pub const fn log_octets(&self) -> u64 {
        self.log_octets
    }

    /// The block with the record `serial`, or the one after where that record is no longer there. The inner error is a
    /// block that was damaged.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn block(&self, serial: Serial) -> Result<Option<Result<Block, Span>>, Error> {
        blocks::read(&self.connection, serial).map_err(|error| self.error(&error))
    }

    /// The oldest blocks of the record log, at most `count` of them.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn oldest_blocks(&self, count: usize) -> Result<Vec<Stored>, Error> {
        blocks::oldest(&self.connection, count).map_err(|error| self.error(&error))
    }

    /// Deletes the record log, as it is not that of this run.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn clear_log(&mut self) -> Result<(), Error> {
        let deleted = self.connection.execute(schema::DELETE_BLOCKS, []);
        deleted.map_err(|error| self.error(&error))?;
        self.log_octets = 0;
        Ok(())
    }

    /// Whether a commit has to wait for a checkpoint, which is under way on another thread.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.checkpointer.is_busy()
    }

    /// Writes everything in one transaction: all of it or nothing. Not while [`Self::is_busy`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Error> {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::unavailable(&self.path, &error));
            }
            _ => {
                return Err(Error::Gone {
                    path: self.path.clone(),
                });
            }
        }
        let written = self.write(commit);
        written.map_err(|error| self.error(&error))?;
        let blocks = commit.blocks.iter().map(|block| block.bytes.len() as u64);
        self.checkpointer.note(blocks.sum());
        // A failure costs only the second witness.
        let _ = set_heartbeat(&self.lock, commit.heard);
        Ok(())
    }

    fn write(&mut self, commit: &Commit<'_>) -> rusqlite::Result<()> {
        if commit.durable {
            self.connection.execute_batch("PRAGMA synchronous = FULL")?;
        }
        let written = self.write_transaction(commit);
        if commit.durable {
            self.connection
                .execute_batch("PRAGMA synchronous = NORMAL")?;
        }
        written
    }

    fn write_transaction(&mut self, commit: &Commit<'_>) -> rusqlite::Result<()> {
        for &row in commit.changes.ended {
            self.directory.end(row);
        }
        let transaction = self.connection.transaction()?;
        for (due, segment) in self.directory.due() {
            match due {
                Due::WriteEnded => write_ended(&transaction, segment, &mut self.blob)?,
                Due::Delete => delete(&transaction, segment)?,
            }
        }
        let merged = match self.directory.mergeable() {
            Some(run) => Some(merge(&transaction, run, &mut self.blob)?),
            None => None,
        };
        let fresh = insert(&transaction, commit.changes, &mut self.blob)?;
        let log_octets = write_log(&transaction, commit, self.log_octets)?;
        if self.places.as_deref() != Some(commit.places) {
            run::write_places(&transaction, commit.places)?;
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
        let places = self.places.get_or_insert_default();
        places.clear();
        places.extend_from_slice(commit.places);
        Ok(())
    }

    fn error(&self, error: &rusqlite::Error) -> Error {
        Error::of_sqlite(&self.path, error)
    }
}

/// Reads the sessions of a database that a daemon may be using, without changing anything.
///
/// # Errors
/// See [`Error`]; `Unavailable` also when there is no such file.
pub fn read(path: &Path, each: impl FnMut(StoredSession)) -> Result<(), Error> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| Error::of_sqlite(path, &error))?;
    connection
        .busy_timeout(Duration::from_secs(5))
        .map_err(|error| Error::of_sqlite(path, &error))?;
    if is_empty(&connection, path)? {
        return Err(Error::Refused {
            path: path.to_owned(),
            reason: "it is empty: no nattrail has written to it yet".to_owned(),
        });
    }
    load(&connection, path, &mut Directory::default(), each)
}

fn load(
    connection: &Connection,
    path: &Path,
    directory: &mut Directory,
    mut each: impl FnMut(StoredSession),
) -> Result<(), Error> {
    let of_sqlite = |error| Error::of_sqlite(path, &error);
    let mut statement = connection
        .prepare(schema::SELECT_SEGMENTS)
        .map_err(of_sqlite)?;
    let mut records = statement.query([]).map_err(of_sqlite)?;
    while let Some(record) = records.next().map_err(of_sqlite)? {
        let first: i64 = record.get(0).map_err(of_sqlite)?;
        let blob = record.get_ref(1).and_then(|blob| Ok(blob.as_blob()?));
        let bitmap = record
            .get_ref(2)
            .and_then(|blob| Ok(blob.as_blob_or_null()?));
        let (blob, bitmap) = (blob.map_err(of_sqlite)?, bitmap.map_err(of_sqlite)?);
        let damaged = |reason: &dyn fmt::Display| {
            Error::damaged(path, format!("sessions from {first} on: {reason}"))
        };
        let blob = unseal(blob, &[first]).map_err(|reason| damaged(&reason))?;
        let bitmap = bitmap.map(|bitmap| unseal(bitmap, &[first])).transpose();
        let bitmap = bitmap.map_err(|reason| damaged(&reason))?;
        let mut rows = Vec::with_capacity(blob.len() / codec::SHORTEST);
        for session in Sessions::new(blob) {
            rows.push(session.map_err(|reason| damaged(&reason))?.0.row);
        }
        let segment = directory.load(rows, bitmap);
        let segment = segment.map_err(|reason| damaged(&reason))?;
        for (index, session) in Sessions::new(blob).flatten().enumerate() {
            if segment.is_live(index) {
                each(session.0);
            }
        }
    }
    // SQLite may no longer find a row, or a bitmap without which ended sessions would be taken for pending ones.
    let expected = run::read(connection).map_err(of_sqlite)?.sessions;
    let found = directory.live() as u64;
    if found != expected {
        let reason = format!("{expected} pending sessions expected, {found} found");
        return Err(Error::damaged(path, reason));
    }
    Ok(())
}

/// Whether the database is nobody's yet.
fn is_empty(connection: &Connection, path: &Path) -> Result<bool, Error> {
    let refused = |reason: String| Error::Refused {
        path: path.to_owned(),
        reason,
    };
    match schema::origin(connection).map_err(|error| Error::of_sqlite(path, &error))? {
        Origin::Empty => Ok(true),
        Origin::Ours => Ok(false),
        Origin::Outdated(version) => Err(Error::damaged(
            path,
            format!("its schema is version {version}, of before the first release"),
        )),
        Origin::Newer(version) => Err(refused(format!(
            "its schema is version {version}, this nattrail knows versions up to {}: use the newer nattrail that wrote it, or \
             another pending.database",
            schema::VERSION
        ))),
        Origin::Foreign => Err(refused("it is the database of another program".to_owned())),
    }
}

/// Writes the blocks that are new, and deletes those that nobody needs or has room for. Returns how many octets are left.
fn write_log(
    transaction: &Transaction<'_>,
    commit: &Commit<'_>,
    mut octets: u64,
) -> rusqlite::Result<u64> {
    for stored in commit.evicted {
        blocks::delete(transaction, stored.span.first)?;
        octets = octets.saturating_sub(stored.octets);
    }
    for block in &commit.blocks {
        octets += blocks::insert(transaction, block)?;
    }
    // Looking costs a statement, which is spared when the log is empty.
    if octets > 0 {
        let most = commit.blocks.len() + MAX_DELETED_BLOCKS;
        for stored in blocks::oldest(transaction, most)? {
            if stored.span.end > commit.needed {
                break;
            }
            blocks::delete(transaction, stored.span.first)?;
            octets = octets.saturating_sub(stored.octets);
        }
    }
    Ok(octets)
}

/// Writes which of the segment's sessions have ended.
fn write_ended(
    transaction: &Transaction<'_>,
    segment: &Segment,
    blob: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    let first = segment.first().0;
    blob.clear();
    blob.extend_from_slice(segment.bitmap());
    seal(blob, &[first]);
    let mut write = transaction.prepare_cached(schema::WRITE_ENDED)?;
    write.execute(params![first, blob.as_slice()])?;
    Ok(())
}

fn delete(transaction: &Transaction<'_>, segment: &Segment) -> rusqlite::Result<()> {
    for sql in [schema::DELETE_SEGMENT, schema::DELETE_ENDED] {
        let mut delete = transaction.prepare_cached(sql)?;
        delete.execute(params![segment.first().0])?;
    }
    Ok(())
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
        let mut select = transaction.prepare_cached(schema::SELECT_SEGMENT)?;
        let mut records = select.query(params![segment.first().0])?;
        let record = records
            .next()?
            .ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let sealed = record.get_ref(0)?.as_blob()?;
        let sessions = unseal(sealed, &[segment.first().0]).map_err(malformed)?;
        let sessions = Sessions::new(sessions).flatten();
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
    let (from, count) = (run[0].first(), run.len());
    let segment = (!rows.is_empty()).then(|| Segment::new(rows));
    if let Some(segment) = &segment {
        insert_segment(transaction, segment.first(), left)?;
    }
    Ok(Merged {
        segment,
        from,
        count,
    })
}

/// Writes the sessions that have begun, in as many segments as they need.
fn insert(
    transaction: &Transaction<'_>,
    changes: &Changes<'_>,
    blob: &mut Vec<u8>,
) -> rusqlite::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut begun = changes.begun().peekable();
    while begun.peek().is_some() {
        blob.clear();
        let mut rows = Vec::new();
        for pending in begun.by_ref().take(segment::MAX_SESSIONS) {
            rows.push(pending.row);
            codec::encode(&pending.to_stored(), blob);
        }
        let segment = Segment::new(rows);
        insert_segment(transaction, segment.first(), blob)?;
        segments.push(segment);
    }
    Ok(segments)
}

fn insert_segment(
    transaction: &Transaction<'_>,
    first: Row,
    sessions: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    seal(sessions, &[first.0]);
    let mut insert = transaction.prepare_cached(schema::INSERT_SEGMENT)?;
    insert.execute(params![first.0, sessions.as_slice()])?;
    Ok(())
}

impl Error {
    fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    fn unavailable(path: &Path, error: &io::Error) -> Self {
        Self::Unavailable {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }

    fn of_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::damaged(path, reason)
            }
            // A statement that does not fit the schema, or a value of another type than the schema allows.
            Some(ErrorCode::TypeMismatch | ErrorCode::ConstraintViolation | ErrorCode::Unknown)
            | None => Self::damaged(path, reason),
            Some(_) => Self::Unavailable {
                path: path.to_owned(),
                reason,
            },
        }
    }
}
