//! The pid file of a daemon of our own: who it is, and proof that it lives.
//!
//! The proof is a lock (flock(2)) that the daemon has from the process that started it, and that goes with the daemon,
//! however it ends. A file is written once: each start makes its own and puts it in the place of the one before, under
//! that one's lock. So a file that is locked, before and after a descriptor of the process in it was opened (pidfd_open(2)),
//! names the process behind that descriptor: no other can have got its number meanwhile, and none but nattrail is ever
//! signalled.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Who looks whether the lock is held holds it for a moment, and a start writes the number a moment after it has the lock:
/// then it is tried again, so often and after such a time.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// A daemon that lives.
#[derive(Debug)]
pub struct Running {
    pub pid: Pid,
    pub process: OwnedFd,
}

/// What is known of the daemon.
#[derive(Debug)]
pub enum State {
    Running(Running),
    /// Somebody is starting it, and has not written down its number yet.
    Starting,
    /// There is none; perhaps the file of one that has ended.
    Stopped,
}

#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

/// The lock, and the file to write the number into.
#[derive(Debug)]
pub struct Claim {
    file: File,
}

impl PidFile {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks for the daemon.
    pub fn find(&self) -> io::Result<State> {
        for _ in 0..TRIES {
            let mut file = match File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(State::Stopped);
                }
                Err(error) => return Err(error),
            };
            if !is_locked(&file)? {
                return Ok(State::Stopped);
            }
            if let Some(pid) = read(&mut file)? {
                match pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(process) if is_locked(&file)? => {
                        return Ok(State::Running(Running { pid, process }));
                    }
                    Ok(_) | Err(Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            thread::sleep(PAUSE);
        }
        Ok(State::Starting)
    }

    /// Takes the lock for a daemon that is about to be started; `None` when another has it.
    pub fn claim(&self) -> io::Result<Option<Claim>> {
        for _ in 0..TRIES {
            let current = options().create(true).open(&self.path)?;
            if !lock(&current)? {
                match self.find()? {
                    // It was only looked at.
                    State::Stopped => {
                        thread::sleep(PAUSE);
                        continue;
                    }
                    State::Running(_) | State::Starting => return Ok(None),
                }
            }
            if !self.is_at_its_place(&current)? {
                continue;
            }
            let fresh = self
                .path
                .with_extension(format!("pid.{}", std::process::id()));
            let _ = fs::remove_file(&fresh);
            let file = options().create_new(true).open(&fresh)?;
            let taken = lock(&file)?;
            fs::rename(&fresh, &self.path)?;
            return Ok(taken.then_some(Claim { file }));
        }
        Ok(None)
    }

    /// Removes the file of a daemon that has ended, unless another is being started.
    pub fn clear(&self) -> io::Result<()> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        if lock(&file)? && self.is_at_its_place(&file)? {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }

    fn is_at_its_place(&self, file: &File) -> io::Result<bool> {
        let ours = file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Claim {
    /// The lock for the daemon to inherit: it goes when the last process that has this descriptor ends.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Writes down who has it. To be called once, while the process is not yet waited for.
    pub fn write(mut self, pid: Pid) -> io::Result<()> {
        writeln!(self.file, "{}", pid.as_raw_nonzero())
    }
}

/// Whoever may read the file could lock it (flock(2) asks for no more), and so keep the daemon from being started.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed());
    options
}

fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_locked(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            flock(file, FlockOperation::NonBlockingUnlock)?;
            Ok(false)
        }
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The number, once it is there with its line feed.
fn read(file: &mut File) -> io::Result<Option<Pid>> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text)?;
    let number = text.strip_suffix('\n').and_then(|text| text.parse().ok());
    Ok(number.and_then(Pid::from_raw))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tempfile::TempDir;

    use super::*;

    fn fresh() -> (TempDir, PidFile) {
        let directory = tempfile::tempdir().unwrap();
        let file = PidFile::new(directory.path().join("nattrail.pid"));
        (directory, file)
    }

    /// As a daemon that was started: who started it has closed its descriptor, the daemon's own is what is returned.
    fn started(file: &PidFile, pid: Pid) -> File {
        let claim = file.claim().unwrap().unwrap();
        let inherited = claim.file().try_clone().unwrap();
        claim.write(pid).unwrap();
        inherited
    }

    fn own() -> Pid {
        rustix::process::getpid()
    }

    #[test]
    fn without_a_file_nothing_runs() {
        let (_directory, file) = fresh();
        assert!(matches!(file.find().unwrap(), State::Stopped));
        file.clear().unwrap();
    }

    #[test]
    fn the_daemon_is_found_while_it_holds_the_lock() {
        let (_directory, file) = fresh();
        let daemon = started(&file, own());
        let State::Running(running) = file.find().unwrap() else {
            panic!("not found");
        };
        assert_eq!(running.pid, own());
        let mode = fs::metadata(file.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "whoever reads it can lock it");
        assert!(file.claim().unwrap().is_none());
        file.clear().unwrap();
        assert!(file.path().exists(), "the file of a living daemon stays");
        drop(daemon);
        assert!(matches!(file.find().unwrap(), State::Stopped));
    }

    #[test]
    fn a_stale_file_names_nobody_though_its_number_is_that_of_a_process() {
        let (_directory, file) = fresh();
        fs::write(file.path(), format!("{}\n", own().as_raw_nonzero())).unwrap();
        assert!(matches!(file.find().unwrap(), State::Stopped));
        let before = fs::metadata(file.path()).unwrap().ino();
        let daemon = started(&file, own());
        assert!(matches!(file.find().unwrap(), State::Running(_)));
        let after = fs::metadata(file.path()).unwrap().ino();
        assert_ne!(before, after, "a file is written once");
        drop(daemon);
        file.clear().unwrap();
        assert!(!file.path().exists());
    }

    #[test]
    fn a_start_that_has_not_written_its_number_yet_is_no_daemon() {
        let (_directory, file) = fresh();
        let _claim = file.claim().unwrap().unwrap();
        assert!(matches!(file.find().unwrap(), State::Starting));
    }

    #[test]
    fn of_many_starts_at_once_one_has_the_lock() {
        let (_directory, file) = fresh();
        let claims: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| started_or_not(&file)))
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(claims.len(), 1);
    }

    fn started_or_not(file: &PidFile) -> Option<File> {
        let claim = file.claim().unwrap()?;
        let inherited = claim.file().try_clone().unwrap();
        claim.write(own()).unwrap();
        Some(inherited)
    }
}
