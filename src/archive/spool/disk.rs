//! The file operations of the archive: each is one step, at which a test can end the program. Tests do not wait for the
//! disk, but take from it what was not synced (`faults`).
//!
//! Files get mode 0640 and directories 0750, since they say who did what.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::Error;

/// A file that is being written, from its beginning on.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// Where the next octet goes.
    end: u64,
    /// There may be octets beyond the end, of a write that failed.
    is_dirty: bool,
}

impl Output {
    /// Begins the file anew.
    pub fn create(path: &Path) -> Result<Self, Error> {
        step(Step::Create(path)).map_err(Error::io(path))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(path)
            .map_err(Error::io(path))?;
        Ok(Self::at(file, 0))
    }

    /// Goes on at `end` in a file that exists.
    pub fn open(path: &Path, end: u64) -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(Self::at(file.map_err(Error::io(path))?, end))
    }

    const fn at(file: File, end: u64) -> Self {
        Self {
            file,
            end,
            is_dirty: true,
        }
    }

    /// Writes all of it and waits until the disk has it, or leaves the file as it was.
    pub fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.file.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it was deleted"));
        }
        if self.is_dirty {
            step(Step::Cut(&self.file))?;
            self.file.set_len(self.end)?;
        }
        let begin = self.end;
        self.is_dirty = true;
        let result = self.write_all(octets).and_then(|()| self.sync());
        if result.is_ok() {
            self.is_dirty = false;
        } else {
            self.end = begin;
        }
        result
    }

    pub fn sync(&self) -> io::Result<()> {
        step(Step::Sync(&self.file))?;
        if cfg!(test) {
            return Ok(());
        }
        self.file.sync_data()
    }
}

impl Write for Output {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if let Err(error) = step(Step::Write(&self.file)) {
            // A disk that is full takes a part.
            self.file
                .write_all_at(&octets[..octets.len() / 2], self.end)?;
            return Err(error);
        }
        let written = self.file.write_at(octets, self.end)?;
        self.end += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    step(Step::Rename(from, to)).map_err(Error::io(to))?;
    fs::rename(from, to).map_err(Error::io(from))
}

/// A file that is gone already is as good.
pub fn remove(path: &Path) -> Result<(), Error> {
    step(Step::Remove(path)).map_err(Error::io(path))?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// Waits until the disk has the names in a directory.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    step(Step::SyncDirectory(path)).map_err(Error::io(path))?;
    if cfg!(test) {
        return Ok(());
    }
    let directory = File::open(path).map_err(Error::io(path))?;
    directory.sync_all().map_err(Error::io(path))
}

/// Makes it and those above it, as far as they are missing.
pub fn create_directory(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new("/"));
    create_directory(above)?;
    step(Step::CreateDirectory(path)).map_err(Error::io(path))?;
    match DirBuilder::new().mode(0o750).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io(path)(error));
        }
        _ => {}
    }
    sync_directory(above)
}

/// Nobody else can have the lock until the file is closed.
pub fn lock(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(path)
        .map_err(Error::io(path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked(path.into())),
        Err(error) => Err(Error::io(path)(error.into())),
    }
}

/// An operation that is about to be done.
#[cfg_attr(not(test), allow(dead_code))]
pub enum Step<'a> {
    Create(&'a Path),
    Write(&'a File),
    Cut(&'a File),
    Sync(&'a File),
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
    SyncDirectory(&'a Path),
    CreateDirectory(&'a Path),
}

#[cfg(not(test))]
#[allow(clippy::unnecessary_wraps, clippy::needless_pass_by_value)]
const fn step(_: Step<'_>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
use super::faults::step;
