//! A standard output of any kind, written to without ever waiting.
//!
//! Other processes share it, so it is not itself made non-blocking. A terminal or pipe is opened anew, for us alone and
//! non-blocking; where that is not allowed, it is polled before each write, which is no longer than a writable pipe is
//! sure to take (pipe(7)). A socket, such as the one from systemd to the journal, is asked not to wait with each write.
//! A regular file makes nobody wait.

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// Most bytes of one write to a regular file.
pub(super) const FILE_CHUNK: usize = 64 * 1024;

/// Most bytes of one write to anything else: `PIPE_BUF`. A terminal may take fewer.
const PIPE_CHUNK: usize = 4096;

#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    File,
    Socket,
    /// A pipe, a terminal or another device.
    Other,
}

impl Stream {
    pub fn new(fd: OwnedFd) -> Self {
        let found = rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let (fd, kind) = match found {
            Ok(FileType::RegularFile) => (fd, Kind::File),
            Ok(FileType::Socket) => (fd, Kind::Socket),
            Ok(FileType::Fifo) => (reopened(fd), Kind::Other),
            _ if fd.is_terminal() => (reopened(fd), Kind::Other),
            _ => (fd, Kind::Other),
        };
        Self { fd, kind }
    }

    /// Does one write of the beginning of `bytes`, up to the end of a line if one ends there, and returns its length.
    ///
    /// # Errors
    /// `EAGAIN` or `EINTR` when it takes nothing now; any other error is final.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.kind {
            Kind::File => rustix::io::write(&self.fd, whole_lines(bytes, FILE_CHUNK)),
            Kind::Socket => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                rustix::net::send(&self.fd, whole_lines(bytes, PIPE_CHUNK), flags)
            }
            Kind::Other if is_writable(&self.fd)? => {
                rustix::io::write(&self.fd, whole_lines(bytes, PIPE_CHUNK))
            }
            Kind::Other => Err(Errno::AGAIN),
        };
        Ok(written?)
    }
}

/// The same terminal or pipe through an open file description of our own, or `fd` itself where opening is not allowed.
fn reopened(fd: OwnedFd) -> OwnedFd {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags, Mode::empty()).unwrap_or(fd)
}

/// Whether a write would not block. An error condition counts as writable: the write then reports it.
fn is_writable(fd: &OwnedFd) -> Result<bool, Errno> {
    let mut fds = [PollFd::new(fd, PollFlags::OUT)];
    rustix::event::poll(&mut fds, Some(&Timespec::default())).map(|ready| ready > 0)
}

/// At most `limit` bytes, up to the end of a line if one ends there: others may write to the same terminal.
pub(super) fn whole_lines(bytes: &[u8], limit: usize) -> &[u8] {
    if bytes.len() <= limit {
        return bytes;
    }
    let end = bytes[..limit]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(limit, |newline| newline + 1);
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use rustix::fs::fcntl_getfl;

    use super::*;

    /// Writes until nothing more is taken.
    fn fill(stream: &Stream) -> usize {
        let line = [&[b'x'; 99][..], b"\n"].concat().repeat(100);
        let mut sum = 0;
        loop {
            match stream.write(&line) {
                Ok(count) => sum += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return sum;
                }
            }
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_does_not_block() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stream = Stream::new(writer.into());
        let sum = fill(&stream);
        assert!(sum > 0);
        reader.read_exact(&mut vec![0; sum]).unwrap();
        assert_eq!(stream.write(b"y\n").unwrap(), 2);
    }

    #[test]
    fn a_pipe_stays_blocking_for_the_others_who_have_it() {
        let (_reader, writer) = io::pipe().unwrap();
        let stream = Stream::new(writer.try_clone().unwrap().into());
        let is_nonblocking = |flags: OFlags| flags.contains(OFlags::NONBLOCK);
        assert!(is_nonblocking(fcntl_getfl(&stream.fd).unwrap()));
        assert!(!is_nonblocking(fcntl_getfl(&writer).unwrap()));
    }

    #[test]
    fn a_pipe_that_must_not_be_opened_anew_does_not_block() {
        let (_reader, writer) = io::pipe().unwrap();
        let stream = Stream {
            fd: writer.into(),
            kind: Kind::Other,
        };
        assert!(fill(&stream) > 0);
    }

    #[test]
    fn a_socket_that_nobody_reads_does_not_block() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let stream = Stream::new(writer.try_clone().unwrap().into());
        let sum = fill(&stream);
        assert!(sum > 0);
        reader.read_exact(&mut vec![0; sum]).unwrap();
        assert_eq!(stream.write(b"y\n").unwrap(), 2);
        let flags = fcntl_getfl(&writer).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
    }

    #[test]
    fn a_file_takes_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let stream = Stream::new(File::create(&path).unwrap().into());
        let lines = [&[b'x'; 9_999][..], b"\n"].concat().repeat(10);
        assert_eq!(stream.write(&lines).unwrap(), 60_000);
        assert_eq!(std::fs::read(&path).unwrap(), lines[..60_000]);
    }
}
