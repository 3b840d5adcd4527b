//! The file operations of the archive: each is one step, at which a test can end the program. Tests do not wait for the
//! disk, but take from it what was not synced (`faults`).
//!
//! Files of the archive have mode [`FILE`] and directories [`DIRECTORY`], since they say who did what.

#[cfg(test)]
pub mod faults;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

#[cfg(test)]
use self::faults::step;

pub const FILE: u32 = 0o640;
pub const DIRECTORY: u32 = 0o750;

/// An operation on this file or directory has failed.
#[derive(Debug)]
pub struct Error(pub PathBuf, pub io::Error);

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
    /// Begins the file anew. One that was left over could have other rights, or be another name of a file in use.
    pub fn create(path: &Path, mode: u32) -> Result<Self, Error> {
        remove(path)?;
        step(Step::Create(path)).map_err(at(path))?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(mode);
        Ok(Self {
            file: options.open(path).map_err(at(path))?,
            end: 0,
            is_dirty: true,
        })
    }

    /// Goes on at `end` in a file that exists.
    pub fn open(path: &Path, end: u64) -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(Self {
            file: file.map_err(at(path))?,
            end,
            is_dirty: true,
        })
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
        self.file.sync_all()
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

/// Makes or replaces a file, by way of another in the same file system: at any moment the disk has the old content or the
/// new, and the new when this returns.
pub fn replace(path: &Path, by: &Path, octets: &[u8], mode: u32) -> Result<(), Error> {
    Output::create(by, mode)?.append(octets).map_err(at(by))?;
    rename(by, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Overwrites a file with zeros, in place.
pub fn erase(path: &Path) -> Result<(), Error> {
    let length = fs::metadata(path).map_err(at(path))?.len();
    let mut file = Output::open(path, 0)?;
    io::copy(&mut io::repeat(0).take(length), &mut file)
        .and_then(|_| file.sync())
        .map_err(at(path))
}

pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    step(Step::Rename(from, to))
        .and_then(|()| fs::rename(from, to))
        .map_err(at(to))
}

/// Removes a file, or a directory with all that is in it. One that is gone already is as good.
pub fn remove(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(at(path))?,
    };
    step(Step::Remove(path)).map_err(at(path))?;
    let removed = match metadata.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// Waits until the disk has the names in a directory.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    step(Step::SyncDirectory(path)).map_err(at(path))?;
    if cfg!(test) {
        return Ok(());
    }
    let directory = File::open(path).map_err(at(path))?;
    directory.sync_all().map_err(at(path))
}

/// Makes it and those above it, as far as they are missing.
pub fn create_directory(path: &Path, mode: u32) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new("/"));
    create_directory(above, mode)?;
    step(Step::CreateDirectory(path)).map_err(at(path))?;
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(path)(error)),
        _ => sync_directory(above),
    }
}

/// Nobody else can have the lock until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// `None` when another process has it.
    pub fn take(path: &Path, mode: u32) -> Result<Option<Self>, Error> {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(mode);
        let file = options.open(path).map_err(at(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at(path)(error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the file is not enough: a child that was just forked has it open until it executes another program.
        let _ = self.0.unlock();
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

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    |error| Error(path.into(), error)
}
