//! A copy of the database before its schema changes.
//!
//! SQLite makes it (`VACUUM INTO`), so it holds what is in the write-ahead log too, and is consistent whatever else reads
//! the file. It gets its name once it is whole and on the disk: a crash leaves at most a file with `.part` in its name,
//! which the next attempt replaces. A second upgrade from the same version replaces the copy of the first.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::OFlags;

use super::suffixed;

/// Why there is no copy.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(PathBuf, rusqlite::Error),
    System(PathBuf, io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, error): (_, &dyn fmt::Display) = match self {
            Self::Sqlite(path, error) => (path, error),
            Self::System(path, error) => (path, error),
        };
        write!(f, "cannot make \"{}\": {error}", path.display())
    }
}

/// The name of the copy of a schema's version.
#[must_use]
pub(super) fn path_of(database: &Path, version: usize) -> PathBuf {
    suffixed(database, &format!(".schema-{version}.bak"))
}

/// Copies the database, mode 0640, and returns where to.
pub(super) fn make(
    connection: &Connection,
    database: &Path,
    version: usize,
) -> Result<PathBuf, Failure> {
    let kept = path_of(database, version);
    let part = suffixed(&kept, ".part");
    let result = copy(connection, &part).and_then(|()| {
        let system = |error| Failure::System(kept.clone(), error);
        fs::rename(&part, &kept).map_err(system)?;
        sync_directory(&kept).map_err(system)
    });
    if let Err(failure) = result {
        // As much of it as there was room for would keep others from having that room.
        let _ = fs::remove_file(&part);
        return Err(failure);
    }
    Ok(kept)
}

fn copy(connection: &Connection, part: &Path) -> Result<(), Failure> {
    let system = |error| Failure::System(part.to_owned(), error);
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(error)),
        _ => {}
    }
    // SQLite takes a file that is empty; one that it makes itself everyone could read.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(part)
        .map_err(system)?;
    let name = part.to_str().ok_or_else(|| {
        system(io::Error::other(
            "expected a path of UTF-8, which SQLite wants",
        ))
    })?;
    connection
        .execute("VACUUM INTO ?", [name])
        .map_err(|error| Failure::Sqlite(part.to_owned(), error))?;
    file.sync_all().map_err(system)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    File::open(directory)?.sync_all()
}
