//! The store of pending sessions: SQLite, one transaction per flush.
//!
//! It holds the sessions that were pending at the last commit, so that a daemon that is started again goes on with them,
//! and where the exports stood.
//!
//! # Durability
//! Write-ahead log with `synchronous = NORMAL`: what was committed survives the end of the process, however it comes; a
//! loss of power may take the last commits with it, but never damages the file. The connections that such a commit told
//! of did not survive the loss of power either.
//!
//! # Locking
//! One daemon per database, by a lock on a file beside it. Readers (`nattrail pending`, sqlite3) are welcome at any time.
//!
//! # Privacy
//! The file is made with mode 0640, its directory, where it is missing, with 0750. SQLite gives its log files the mode of
//! the database.
//!
//! # Upgrades
//! An older schema is brought up to date after a copy of the file was made beside it, one for each version. Where there is
//! no room for it the database is [`Error::Unavailable`]: the daemon logs without it and tries again, which costs less than
//! a daemon that does not start, and less than a file that only the new version can read. A newer schema is
//! [`Error::Refused`], and no octet of the file or its log is changed.

mod backup;
mod codec;
mod run;
mod schema;
mod segment;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, params};
use rustix::fs::{FlockOperation, OFlags, flock};

use self::codec::Sessions;
pub use self::run::{Export, LastRun, Run};
use self::segment::{Directory, Due, Merged, Segment};
use crate::engine::{Changes, StoredSession};
use crate::time::Wall;

/// Waiting for another connection's lock happens inside the event loop, so it must stay short.
const BUSY_TIMEOUT: Duration = Duration::from_millis(20);

/// What went wrong, by what to do about it.
#[derive(Debug)]
pub enum Error {
    /// The file is not a sound database: set it aside and begin a new one.
    Damaged { path: PathBuf, reason: String },
    /// The file is sound but not for this program to use: leave it alone and stop.
    Refused { path: PathBuf, reason: String },
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
                    "pending database \"{path}\" was deleted or replaced while in use"
                );
            }
            Self::Damaged { path, reason } => (path, "is damaged", reason),
            Self::Refused { path, reason } => (path, "cannot be used", reason),
            Self::Unavailable { path, reason } => (path, "is not available", reason),
        };
        write!(
            f,
            "pending database \"{}\" {what}: {reason}",
            path.display()
        )
    }
}

impl std::error::Error for Error {}

/// The open store. No second one can be opened for the same file meanwhile.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Connection,
    directory: Directory,
    /// Room for a segment's blob, used again and again.
    blob: Vec<u8>,
    /// What the table `export` holds, once this run has written it.
    exports: Option<Vec<Export>>,
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
        // SQLite would make it readable for everyone.
        create(path).map_err(unavailable)?;
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
        schema::prepare(&connection, path).map_err(|error| error.at(path))?;
        keep_log(false)?;
        Ok(Self {
            path: path.to_owned(),
            connection,
            directory: Directory::default(),
            blob: Vec::new(),
            exports: None,
            identity: identity(path).map_err(unavailable)?,
            lock,
        })
    }

    /// Hands every stored session to `restore`. To be called once, before the first commit.
    ///
    /// # Errors
    /// `Damaged` when a part of the file cannot be read or understood; what could be was handed over before.
    pub fn load(&mut self, restore: impl FnMut(StoredSession)) -> Result<(), Error> {
        load(&self.connection, &self.path, &mut self.directory, restore)
    }

    /// What is known of the run that made the last commit, which may have been this one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn last_run(&self) -> Result<LastRun, Error> {
        let of_sqlite = |error| Error::of_sqlite(&self.path, &error);
        let state = self
            .prepare(schema::SELECT_STATE)?
            .query_row([], run::read_state);
        let mut last = state.map_err(of_sqlite)?;
        let mut statement = self.prepare(schema::SELECT_EXPORTS)?;
        let mut rows = statement.query([]).map_err(of_sqlite)?;
        while let Some(row) = rows.next().map_err(of_sqlite)? {
            let export = run::read_export(row);
            last.exports
                .push(export.map_err(|reason| Error::damaged(&self.path, reason))?);
        }
        Ok(last)
    }

    /// Writes the first commit of a run, which says that the last one's end is known. Unlike later ones it survives a loss
    /// of power: otherwise the run after that would take this end for that of its predecessor.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn begin_run(&mut self, run: &Run<'_>, complete: Wall) -> Result<(), Error> {
        let mut write = || {
            self.connection.execute_batch("PRAGMA synchronous = FULL")?;
            let transaction = self.connection.transaction()?;
            write_state(&transaction, run, complete)?;
            transaction.commit()
        };
        let written = write();
        self.connection
            .execute_batch("PRAGMA synchronous = NORMAL")
            .and(written)
            .map_err(|error| Error::of_sqlite(&self.path, &error))
    }

    /// Writes the changes in one transaction: all of them or none. `complete` is until when the kernel was heard and what
    /// it said was sent on.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn commit(
        &mut self,
        changes: &Changes<'_>,
        run: &Run<'_>,
        complete: Wall,
    ) -> Result<(), Error> {
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
        self.write(changes, run, complete)
            .map_err(|error| Error::of_sqlite(&self.path, &error))?;
        // A failure costs only the second witness.
        let _ = set_heartbeat(&self.lock, complete);
        Ok(())
    }

    fn write(&mut self, changes: &Changes<'_>, run: &Run<'_>, now: Wall) -> rusqlite::Result<()> {
        for &row in changes.ended {
            self.directory.end(row);
        }
        let transaction = self.connection.transaction()?;
        for (due, segment) in self.directory.due() {
            match due {
                Due::WriteEnded => write_ended(&transaction, segment)?,
                Due::Delete => delete(&transaction, segment)?,
            }
        }
        let merged = match self.directory.mergeable() {
            Some(run) => Some(merge(&transaction, run, &mut self.blob)?),
            None => None,
        };
        let fresh = insert(&transaction, changes, &mut self.blob)?;
        if self.exports.as_deref() != Some(run.exports) {
            write_exports(&transaction, run.exports)?;
        }
        write_state(&transaction, run, now)?;
        transaction.commit()?;
        self.directory.handle_committed(merged, fresh);
        let exports = self.exports.get_or_insert_default();
        exports.clear();
        exports.extend_from_slice(run.exports);
        Ok(())
    }

    fn prepare(&self, sql: &str) -> Result<rusqlite::CachedStatement<'_>, Error> {
        self.connection
            .prepare_cached(sql)
            .map_err(|error| Error::of_sqlite(&self.path, &error))
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
    schema::verify(&connection).map_err(|error| error.at(path))?;
    load(&connection, path, &mut Directory::default(), each)
}

/// Until when the run that used the database last was complete, by the date of the lock file: a second witness, should the
/// database be damaged or gone. `None` when there was no such run.
#[must_use]
pub fn heartbeat(path: &Path) -> Option<Wall> {
    let modified = fs::metadata(lock_path(path)).ok()?.modified().ok()?;
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Wall::from_nanos(u64::try_from(since.as_nanos()).ok()?))
}

/// Renames a database that is `what` (damaged, replaced) and its log files, so that a new one can be begun and the old one
/// examined.
///
/// # Errors
/// When the file cannot be renamed.
pub fn set_aside(path: &Path, what: &str, now: Wall) -> io::Result<PathBuf> {
    let stamp = format!(".{what}-{}", now.as_secs());
    let mut aside = suffixed(path, &stamp);
    let mut count = 1;
    while aside.exists() {
        aside = suffixed(path, &format!("{stamp}.{count}"));
        count += 1;
    }
    fs::rename(path, &aside)?;
    for log in ["-wal", "-shm"] {
        match fs::rename(suffixed(path, log), suffixed(&aside, log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
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
        let damaged = |reason: String| Error::damaged(path, format!("segment {first}: {reason}"));
        let mut rows = Vec::with_capacity(blob.len() / codec::IPV4_LEN);
        for session in Sessions::new(blob) {
            rows.push(session.map_err(damaged)?.0.row);
        }
        let segment = directory.load(rows, bitmap).map_err(damaged)?;
        for (index, session) in Sessions::new(blob).flatten().enumerate() {
            if segment.is_live(index) {
                each(session.0);
            }
        }
    }
    Ok(())
}

/// Writes which of the segment's sessions have ended.
fn write_ended(transaction: &Transaction<'_>, segment: &Segment) -> rusqlite::Result<()> {
    let mut write = transaction.prepare_cached(schema::WRITE_ENDED)?;
    write.execute(params![segment.first().0, segment.bitmap()])?;
    Ok(())
}

fn delete(transaction: &Transaction<'_>, segment: &Segment) -> rusqlite::Result<()> {
    for sql in [schema::DELETE_SEGMENT, schema::DELETE_ENDED] {
        let mut delete = transaction.prepare_cached(sql)?;
        delete.execute(params![segment.first().0])?;
    }
    Ok(())
}

/// Writes what is left of a run of segments as one.
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
        let sessions = Sessions::new(record.get_ref(0)?.as_blob()?).flatten();
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
        let mut insert = transaction.prepare_cached(schema::INSERT_SEGMENT)?;
        insert.execute(params![segment.first().0, left.as_slice()])?;
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
        let mut insert = transaction.prepare_cached(schema::INSERT_SEGMENT)?;
        insert.execute(params![segment.first().0, blob.as_slice()])?;
        segments.push(segment);
    }
    Ok(segments)
}

/// Writes how far each collector has been served, in place of what was known before.
fn write_exports(transaction: &Connection, exports: &[Export]) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(schema::DELETE_EXPORTS)?
        .execute([])?;
    let mut insert = transaction.prepare_cached(schema::INSERT_EXPORT)?;
    for export in exports {
        run::insert_export(&mut insert, export)?;
    }
    Ok(())
}

fn write_state(transaction: &Connection, run: &Run<'_>, now: Wall) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(schema::UPDATE_STATE)?
        .execute(params![
            now.as_nanos().cast_signed(),
            run.socket.map(u64::cast_signed),
            run.stopped,
        ])?;
    Ok(())
}

fn lock_path(path: &Path) -> PathBuf {
    suffixed(path, ".lock")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn set_heartbeat(lock: &File, time: Wall) -> io::Result<()> {
    let since = Duration::from_nanos(time.as_nanos());
    lock.set_modified(SystemTime::UNIX_EPOCH + since)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn lock(path: &Path) -> Result<File, Error> {
    let name = lock_path(path);
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(name);
    let file = open.map_err(|error| Error::unavailable(path, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Refused {
            path: path.to_owned(),
            reason: "another nattrail is using it; give each instance its own pending.database"
                .to_owned(),
        }),
        Err(error) => Err(Error::unavailable(path, &error.into())),
    }
}

/// Makes the file where there is none. One that is not a regular file could block, or be somebody else's by a link.
fn create(path: &Path) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(())
    } else {
        Err(io::Error::other("expected a regular file"))
    }
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
