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

mod row;
mod run;
mod schema;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use rustix::fs::{FlockOperation, flock};

pub use self::run::{Export, LastRun, Run};
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
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, what, reason) = match self {
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
    /// What the table `export` holds, once this run has written it.
    exports: Option<Vec<Export>>,
    _lock: File,
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
        schema::prepare(&connection).map_err(|error| error.at(path))?;
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .map_err(|error| Error::of_sqlite(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            connection,
            exports: None,
            _lock: lock,
        })
    }

    /// Hands every stored session to `restore`.
    ///
    /// # Errors
    /// `Damaged` when a part of the file cannot be read or understood; what could be was handed over before.
    pub fn load(&self, restore: impl FnMut(StoredSession)) -> Result<(), Error> {
        load(&self.connection, &self.path, restore)
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
    pub fn begin_run(&mut self, run: &Run<'_>, now: Wall) -> Result<(), Error> {
        let mut write = || {
            self.connection.execute_batch("PRAGMA synchronous = FULL")?;
            let transaction = self.connection.transaction()?;
            write_state(&transaction, run, now)?;
            transaction.commit()
        };
        let written = write();
        self.connection
            .execute_batch("PRAGMA synchronous = NORMAL")
            .and(written)
            .map_err(|error| Error::of_sqlite(&self.path, &error))
    }

    /// Writes the changes in one transaction: all of them or none.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn commit(&mut self, changes: &Changes<'_>, run: &Run<'_>, now: Wall) -> Result<(), Error> {
        self.write(changes, run, now)
            .map_err(|error| Error::of_sqlite(&self.path, &error))
    }

    fn write(&mut self, changes: &Changes<'_>, run: &Run<'_>, now: Wall) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut insert = transaction.prepare_cached(schema::INSERT)?;
        for pending in changes.begun() {
            row::insert(&mut insert, pending)?;
        }
        drop(insert);
        let mut delete = transaction.prepare_cached(schema::DELETE)?;
        for row in changes.ended {
            delete.execute(params![row.0])?;
        }
        drop(delete);
        if self.exports.as_deref() != Some(run.exports) {
            transaction
                .prepare_cached(schema::DELETE_EXPORTS)?
                .execute([])?;
            let mut insert = transaction.prepare_cached(schema::INSERT_EXPORT)?;
            for export in run.exports {
                run::insert_export(&mut insert, export)?;
            }
        }
        write_state(&transaction, run, now)?;
        transaction.commit()?;
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
    load(&connection, path, each)
}

/// Renames a damaged database and its log files, so that a new one can be begun and the old one examined.
///
/// # Errors
/// When the file cannot be renamed.
pub fn set_aside(path: &Path, now: Wall) -> io::Result<PathBuf> {
    let suffixed = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let stamp = format!(".damaged-{}", now.as_secs());
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
    mut each: impl FnMut(StoredSession),
) -> Result<(), Error> {
    let of_sqlite = |error| Error::of_sqlite(path, &error);
    let mut statement = connection.prepare(schema::SELECT).map_err(of_sqlite)?;
    let mut rows = statement.query([]).map_err(of_sqlite)?;
    while let Some(row) = rows.next().map_err(of_sqlite)? {
        each(row::read(row).map_err(|reason| Error::damaged(path, reason))?);
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

fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
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

fn create(path: &Path) -> io::Result<()> {
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(path);
    match open {
        // A read-only database can still be loaded.
        Err(error) if path.exists() && error.kind() != io::ErrorKind::PermissionDenied => Ok(()),
        other => other.map(drop),
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
