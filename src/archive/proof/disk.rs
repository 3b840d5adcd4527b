//! The file operations of the log and its keys, one by one, so that tests can make any of them the last.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Each operation is on the disk when it returns, except that names in a directory are there after [`Disk::sync`].
#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

impl Disk {
    /// Makes a directory and those above it.
    pub(super) fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.create_dir(parent, mode)?;
        }
        self.step()?;
        match DirBuilder::new().mode(mode).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => dir.parent().map_or(Ok(()), |parent| self.sync(parent)),
        }
    }

    /// Makes or replaces a file, by way of another in the same file system.
    pub(super) fn replace(
        &self,
        path: &Path,
        octets: &[u8],
        by: &Path,
        mode: u32,
    ) -> io::Result<()> {
        self.tear(by, octets)?;
        // A file that was left over could have other rights.
        match fs::remove_file(by) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.create_new(true).write(true).mode(mode).open(by)?;
        file.write_all(octets)?;
        self.step()?;
        file.sync_all()?;
        self.rename(by, path)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        #[cfg(test)]
        if let Some(from) = self.faults.hold(from, to) {
            return from;
        }
        fs::rename(from, to)
    }

    pub(super) fn sync(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        #[cfg(test)]
        self.faults.release(dir)?;
        File::open(dir)?.sync_all()
    }

    /// Overwrites a file with zeros, in place.
    pub(super) fn erase(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let mut file = OpenOptions::new().write(true).open(path)?;
        let length = file.metadata()?.len();
        io::copy(&mut io::Read::take(io::repeat(0), length), &mut file)?;
        self.step()?;
        file.sync_all()
    }

    /// Removes a file or a directory with all that is in it.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
    }

    /// Where a test lets the machine stop.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps))]
    fn step(&self) -> io::Result<()> {
        #[cfg(test)]
        self.faults.step()?;
        Ok(())
    }

    /// Where a test lets the machine stop in the middle of a write.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps))]
    fn tear(&self, _path: &Path, _octets: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Err(error) = self.faults.step() {
            fs::write(_path, &_octets[.._octets.len() / 2])?;
            return Err(error);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod faults {
    use std::cell::{Cell, RefCell};
    use std::fs;
    use std::io;
    use std::path::{Path, PathBuf};

    /// Lets the machine stop at the n-th operation.
    #[derive(Debug, Default)]
    pub(in super::super) struct Faults {
        /// Operations from now on that succeed; `None` for all.
        pub(in super::super) left: Cell<Option<u32>>,
        pub(in super::super) taken: Cell<u32>,
        /// A directory for files with a new name that is not yet on the disk, if such names are to be lost.
        pub(in super::super) limbo: Option<PathBuf>,
        pub(in super::super) held: RefCell<Vec<[PathBuf; 3]>>,
    }

    impl Faults {
        pub(super) fn step(&self) -> io::Result<()> {
            self.taken.set(self.taken.get() + 1);
            match self.left.get() {
                Some(0) => Err(io::Error::other("the machine has stopped")),
                left => {
                    self.left.set(left.map(|left| left - 1));
                    Ok(())
                }
            }
        }

        /// Lets a new name of a file wait until its directory is synced.
        pub(super) fn hold(&self, from: &Path, to: &Path) -> Option<io::Result<()>> {
            let copy = self.limbo.as_ref()?.join(self.taken.get().to_string());
            let copied = fs::copy(from, &copy).map(drop);
            let mut held = self.held.borrow_mut();
            held.push([from.to_owned(), copy, to.to_owned()]);
            Some(copied)
        }

        pub(super) fn release(&self, dir: &Path) -> io::Result<()> {
            let mut held = self.held.borrow_mut();
            let synced = held.extract_if(.., |[_, _, to]| to.parent() == Some(dir));
            for [from, copy, to] in synced {
                fs::rename(copy, to)?;
                let _ = fs::remove_file(from);
            }
            Ok(())
        }
    }
}
