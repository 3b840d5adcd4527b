//! The files of a database: the database itself, its write-ahead log, and its lock file.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::Error;
use super::schema::APPLICATION_ID;
use crate::time::Wall;

/// A second witness of the last commit, in case the database is damaged or gone: the dates of the lock file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heartbeat {
    /// The end of the time that the last run fully covered (the date of the last change).
    pub heard: Wall,
    /// The time of the oldest record that an output had not taken; equal to `heard` when all were taken (the date of
    /// the last access, which a reader of the file may have moved to a later time).
    pub untaken: Wall,
}

/// `None` when there was no such run.
pub fn heartbeat(path: &Path) -> Option<Heartbeat> {
    let metadata = fs::metadata(lock_path(path)).ok()?;
    let wall = |time: io::Result<SystemTime>| {
        let since = time.ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Wall::from_nanos(u64::try_from(since.as_nanos()).ok()?))
    };
    let heard = wall(metadata.modified())?;
    let untaken = wall(metadata.accessed())?.min(heard);
    Some(Heartbeat { heard, untaken })
}

/// Whether the file is not a database of this program, by its header (sqlite.org/fileformat2.html). Opening it as a
/// database would make other files beside it.
///
/// # Errors
/// When the file cannot be read.
pub fn is_foreign(path: &Path) -> io::Result<bool> {
    let mut header = Vec::new();
    File::open(path)?.take(72).read_to_end(&mut header)?;
    // The identity may still be in the write-ahead log.
    let has_log = fs::metadata(suffixed(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let is_ours = has_log || header.ends_with(&APPLICATION_ID.to_be_bytes()[4..]);
    Ok(!(header.is_empty() || header.starts_with(b"SQLite format 3\0") && is_ours))
}

/// Renames a database that is `what` (damaged, replaced) and its log files, so that a new one can begin and the old one
/// can be examined.
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

fn lock_path(path: &Path) -> PathBuf {
    suffixed(path, ".lock")
}

pub(super) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn set_heartbeat(lock: &File, beat: Heartbeat) -> io::Result<()> {
    let time = |time: Wall| SystemTime::UNIX_EPOCH + Duration::from_nanos(time.as_nanos());
    let times = FileTimes::new().set_modified(time(beat.heard));
    lock.set_times(times.set_accessed(time(beat.untaken)))
}

/// Device and inode.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let file = open(&lock_path(path), OFlags::NOFOLLOW)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Makes the file if it is missing, and returns its identity. A file that is not regular could block, or be somebody
/// else's by a link.
pub(super) fn create(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = open(path, OFlags::NOFOLLOW | OFlags::NONBLOCK)?.metadata()?;
    if metadata.is_file() {
        Ok((metadata.dev(), metadata.ino()))
    } else {
        Err(io::Error::other("expected a regular file"))
    }
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}
