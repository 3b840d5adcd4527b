//! Files that lines are appended to, and named pipes.
//!
//! A deleted file is begun anew; a broken line is ended before the next one.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;

use super::stream::{FILE_CHUNK, whole_lines};
use super::transport::{Failure, Trouble};
use crate::time::{Now, Uptime};

/// Time between checks of whether a file has been deleted. Records written in between are lost with it.
const LOOK: Duration = Duration::from_secs(1);

/// The remedies for somebody else's link.
pub(crate) const LINK_ADVICE: &str =
    "give the link to root (chown -h), or name the file itself in path";

/// A file that lines are appended to, or a named pipe.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    open: Option<OpenFile>,
    /// It was closed in the middle of a line.
    is_torn: bool,
}

#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    /// The file ends inside a line, which a newline must end before anything else is written.
    is_torn: bool,
    /// When it was last seen to have a name; `None` if it never had one.
    seen: Option<Uptime>,
}

impl Appender {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: None,
            is_torn: false,
        }
    }

    pub(super) fn open(&mut self) -> io::Result<&mut OpenFile> {
        let open = match self.open.take() {
            Some(open) => open,
            None => OpenFile::open(&self.path, self.is_torn)?,
        };
        self.is_torn = false;
        Ok(self.open.insert(open))
    }

    /// `is_torn`: in the middle of a line. The next open ends that line, so that the message begins on a line of its own.
    pub(super) fn close(&mut self, is_torn: bool) {
        self.open = None;
        self.is_torn |= is_torn;
    }

    /// Takes note that the rest of the line does not follow.
    pub(super) const fn break_off(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_torn = true;
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], now: Now) -> Result<usize, Failure> {
        if self.open.as_mut().is_some_and(|open| open.is_deleted(now)) {
            self.open = None;
            log::warn!(
                "the file \"{}\" was deleted: nattrail begins a new one; records of the last second may be lost with it",
                self.path.display()
            );
            let error = io::ErrorKind::NotFound.into();
            return Err(Failure::Broken(Trouble::new("write", error)));
        }
        let written = self
            .open()
            .and_then(|open| open.append(whole_lines(bytes, FILE_CHUNK)));
        written.map_err(|error| match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Failure::Busy,
            Some(libc::ENOSPC | libc::EDQUOT) => Failure::Stalled(Trouble::new("write", error)),
            _ => {
                self.open = None;
                Failure::Broken(Trouble::new("write", error))
            }
        })
    }
}

impl OpenFile {
    /// A pipe does not tell whether it ends inside a line: `was_torn` does.
    fn open(path: &Path, was_torn: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            // Without O_NONBLOCK opening a named pipe waits for its reader; a regular file does not mind.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | of_link(path)?)
            .open(path)?;
        let metadata = file.metadata()?;
        let mut last = [b'\n'];
        let is_torn = match metadata.len() {
            _ if !metadata.is_file() => was_torn,
            0 => false,
            // A file that may be written but not read is taken to end with a whole line.
            length => File::open(path).is_ok_and(|file| {
                file.read_exact_at(&mut last, length - 1).is_ok() && last != [b'\n']
            }),
        };
        Ok(Self {
            file,
            is_torn,
            seen: (metadata.nlink() > 0).then(Uptime::default),
        })
    }

    /// Whether it no longer has a name, so that nobody can ever read it. Checks once in a while.
    fn is_deleted(&mut self, now: Now) -> bool {
        match &mut self.seen {
            Some(seen) if now.up.saturating_since(*seen) >= LOOK => *seen = now.up,
            _ => return false,
        }
        let metadata = self.file.metadata();
        metadata.is_ok_and(|metadata| metadata.nlink() == 0)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_torn {
            if self.file.write(b"\n")? == 0 {
                return Ok(0);
            }
            self.is_torn = false;
        }
        self.file.write(bytes)
    }
}

/// The flag for opening `path`.
fn of_link(path: &Path) -> io::Result<libc::c_int> {
    let is_link = follows_link(path, geteuid().as_raw()).map_err(|found| {
        let message = format!("{found}: {LINK_ADVICE}");
        io::Error::new(io::ErrorKind::PermissionDenied, message)
    })?;
    Ok(if is_link { 0 } else { libc::O_NOFOLLOW })
}

/// Whether `path` is a symbolic link that `user` follows: one that root or the user made. Anybody else's could lead to a
/// file that only this program may write.
pub(crate) fn follows_link(path: &Path, user: u32) -> Result<bool, String> {
    let link = fs::symlink_metadata(path).ok().filter(Metadata::is_symlink);
    match link.map(|link| link.uid()) {
        None => Ok(false),
        Some(owner) if owner == 0 || owner == user => Ok(true),
        Some(owner) => Err(format!(
            "expected no symbolic link but one of root or user {user}, found one of user {owner}"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read as _;

    use super::*;
    use crate::export::encoder::Load;
    use crate::export::queue::Queue;
    use crate::export::transport::Transport;
    use crate::place::Position;
    use crate::time::Wall;

    fn at(seconds: u64) -> Now {
        Now::new(
            Wall::from_secs(1000 + seconds),
            Uptime::from_millis(seconds * 1000),
        )
    }

    /// Writes these lines, and returns the content of the file.
    fn written(file: &mut Transport, lines: &[&[u8]], path: &Path, now: Now) -> String {
        let mut queue = Queue::new();
        for line in lines {
            queue.push(line, Load::default());
        }
        while !queue.is_empty() {
            match file.write(&mut queue, Position::default(), now) {
                Ok(_) | Err(Failure::Broken(_)) => {}
                Err(failure) => panic!("{failure:?}"),
            }
        }
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_file_that_was_deleted_is_begun_anew_within_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nat.log");
        let mut file = Transport::File(Appender::new(path.clone()));
        assert_eq!(written(&mut file, &[b"one\n"], &path, at(10)), "one\n");
        fs::remove_file(&path).unwrap();
        assert_eq!(written(&mut file, &[b"two\n"], &path, at(11)), "two\n");
    }

    #[test]
    fn a_symbolic_link_is_followed_unless_somebody_else_made_it() {
        let directory = tempfile::tempdir().unwrap();
        let [path, target] = ["nat.log", "target"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let mut file = Transport::File(Appender::new(path.clone()));
        assert_eq!(written(&mut file, &[b"one\n"], &target, at(10)), "one\n");
        if !geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            return;
        }
        std::os::unix::fs::lchown(&path, Some(1000), None).unwrap();
        let error = OpenFile::open(&path, false).unwrap_err();
        assert!(
            error.to_string().contains("found one of user 1000"),
            "{error}"
        );
    }

    #[test]
    fn a_line_that_was_broken_off_is_ended_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nat.log");
        let mut file = Transport::File(Appender::new(path.clone()));
        assert_eq!(written(&mut file, &[b"on"], &path, at(10)), "on");
        file.break_off();
        let lines = [&b"two\n"[..], b"three\n"];
        assert_eq!(
            written(&mut file, &lines, &path, at(10)),
            "on\ntwo\nthree\n"
        );
    }

    #[test]
    fn a_pipe_that_is_opened_anew_in_the_middle_of_a_line_gets_the_line_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &path,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .unwrap();
        // The reader is as nonblocking as the writer, or opening would wait.
        let flags = libc::O_NONBLOCK;
        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .unwrap();
        let mut pipe = Transport::File(Appender::new(path));
        pipe.open().unwrap();
        let mut queue = Queue::new();
        queue.push(b"one\n", Load::default());
        queue.consume(2, |_| {});
        pipe.close(&mut queue);
        pipe.open().unwrap();
        pipe.write(&mut queue, Position::default(), at(10)).unwrap();
        let mut text = [0; 9];
        let count = reader.read(&mut text).unwrap();
        assert_eq!(&text[..count], b"\none\n");
    }
}
