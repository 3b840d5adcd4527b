//! The ways a syslog copy leaves the program: datagram sockets, files and the standard output.
//!
//! Nothing here blocks. There is no registration for readiness either: what cannot be written is tried again when its
//! target's back-off says so ([`super::syslog`]). A transport opens itself when it is first written to, and what a caller
//! must do about an error is in [`Failure`].

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::queue::Queue;
use super::stream::{FILE_CHUNK, Stream, whole_lines};
use crate::config::Target;

/// Why nothing was written, by what is to be done about it.
#[derive(Debug)]
pub(super) enum Failure {
    /// The receiver has no room now: try again soon.
    Busy,
    /// The receiver refused an earlier datagram; the present one was not sent: try again at once.
    Refused,
    /// The front message can never be sent: drop it.
    TooLarge,
    /// There is no room on the disk: try again later, without opening anew.
    Stalled(Trouble),
    /// Closed by now: try again later.
    Broken(Trouble),
    /// Gone for good.
    Ended(Trouble),
}

/// An error with what failed.
#[derive(Debug)]
pub(super) struct Trouble {
    action: &'static str,
    error: io::Error,
}

impl Trouble {
    pub(super) const fn new(action: &'static str, error: io::Error) -> Self {
        Self { action, error }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.action, self.error)
    }
}

#[derive(Debug)]
pub(super) enum Transport {
    Datagram(Datagram),
    File(Appender),
    Stdout(Stdout),
    #[cfg(test)]
    Fake(fake::Fake),
}

impl Transport {
    pub(super) fn new(target: &Target) -> Self {
        match target {
            Target::File { path } => Self::File(Appender::new(path.clone())),
            Target::Journal { path } | Target::Local { path } => {
                Self::Datagram(Datagram::new(Peer::Unix(path.clone())))
            }
            Target::Stdout => Self::Stdout(Stdout::new(io::stdout().as_fd().try_clone_to_owned())),
            Target::Udp { address } => Self::Datagram(Datagram::new(Peer::Udp(*address))),
        }
    }

    /// Opens it unless it is open.
    pub(super) fn open(&mut self) -> Result<(), Failure> {
        match self {
            Self::Datagram(datagram) => datagram.open().map(|_| ()),
            Self::File(file) => file.open().map(|_| ()),
            Self::Stdout(_) => Ok(()),
            #[cfg(test)]
            Self::Fake(fake) => fake.open(),
        }
    }

    /// Closes it, to be opened again by the next write. The standard output stays as it is.
    pub(super) fn close(&mut self, queue: &mut Queue) {
        match self {
            Self::Datagram(datagram) => datagram.socket = None,
            Self::File(file) => {
                file.open = None;
                // The next open ends a torn line, so the message begins anew on its own line.
                queue.rewind();
            }
            Self::Stdout(_) => {}
            #[cfg(test)]
            Self::Fake(fake) => fake.is_open = false,
        }
    }

    /// Does one write of what is queued, takes it off the queue and gives the sum of its tags. The queue must not be
    /// empty.
    pub(super) fn write(&mut self, queue: &mut Queue) -> Result<u64, Failure> {
        match self {
            Self::Datagram(datagram) => datagram.write(queue),
            Self::File(file) => file.write(queue),
            Self::Stdout(stdout) => stdout.write(queue),
            #[cfg(test)]
            Self::Fake(fake) => fake.write(queue),
        }
    }
}

#[derive(Debug)]
enum Peer {
    Udp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Socket {
    fn connect(peer: &Peer) -> io::Result<Self> {
        match peer {
            Peer::Udp(address) => {
                let local: SocketAddr = if address.is_ipv4() {
                    (Ipv4Addr::UNSPECIFIED, 0).into()
                } else {
                    (Ipv6Addr::UNSPECIFIED, 0).into()
                };
                let socket = UdpSocket::bind(local)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
            Peer::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(path)?;
                Ok(Self::Unix(socket))
            }
        }
    }

    fn send(&self, message: &[u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.send(message),
            Self::Unix(socket) => socket.send(message),
        }
    }
}

/// A connected datagram socket. A local receiver that was restarted has a new socket under the old path, so any error
/// but a full queue means to connect again.
#[derive(Debug)]
pub(super) struct Datagram {
    peer: Peer,
    socket: Option<Socket>,
}

impl Datagram {
    const fn new(peer: Peer) -> Self {
        Self { peer, socket: None }
    }

    fn open(&mut self) -> Result<&Socket, Failure> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::connect(&self.peer)
                .map_err(|error| Failure::Broken(Trouble::new("connect", error)))?,
        };
        Ok(self.socket.insert(socket))
    }

    fn write(&mut self, queue: &mut Queue) -> Result<u64, Failure> {
        let socket = self.open()?;
        let sent = match queue.front() {
            Some(message) => socket.send(message.bytes),
            None => return Ok(0),
        };
        match sent {
            Ok(_) => Ok(queue.pop().unwrap_or(0).into()),
            Err(error) => {
                let failure = self.failure(error);
                if matches!(failure, Failure::Broken(_)) {
                    self.socket = None;
                }
                Err(failure)
            }
        }
    }

    fn failure(&self, error: io::Error) -> Failure {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => Failure::Busy,
            Some(libc::EMSGSIZE) => Failure::TooLarge,
            // The kernel reports an ICMP port unreachable in place of the next send.
            Some(libc::ECONNREFUSED) if matches!(self.peer, Peer::Udp(_)) => Failure::Refused,
            _ => Failure::Broken(Trouble::new("send", error)),
        }
    }
}

/// A file that lines are appended to, or a named pipe.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// The file ends inside a line, which a newline must end before anything else is written.
    is_torn: bool,
}

impl Appender {
    const fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    fn open(&mut self) -> Result<&mut OpenFile, Failure> {
        let open = match self.open.take() {
            Some(open) => open,
            None => OpenFile::open(&self.path)
                .map_err(|error| Failure::Broken(Trouble::new("open", error)))?,
        };
        Ok(self.open.insert(open))
    }

    fn write(&mut self, queue: &mut Queue) -> Result<u64, Failure> {
        let open = self.open()?;
        let written = open.append(whole_lines(queue.contiguous(), FILE_CHUNK));
        match written {
            Ok(count) => Ok(queue.consume(count)),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Err(Failure::Busy),
                Some(libc::ENOSPC | libc::EDQUOT) => {
                    Err(Failure::Stalled(Trouble::new("write", error)))
                }
                _ => {
                    self.open = None;
                    queue.rewind();
                    Err(Failure::Broken(Trouble::new("write", error)))
                }
            },
        }
    }
}

impl OpenFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            // Without O_NONBLOCK opening a named pipe waits for its reader; a regular file does not mind.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let metadata = file.metadata()?;
        let is_torn = metadata.is_file() && metadata.len() > 0 && {
            let mut last = [b'\n'];
            // One that may be written but not read cannot be looked at; it is taken to be whole.
            File::open(path).is_ok_and(|file| {
                file.read_exact_at(&mut last, metadata.len() - 1).is_ok() && last != [b'\n']
            })
        };
        Ok(Self { file, is_torn })
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

/// The standard output, unless it could not be had.
#[derive(Debug)]
pub(super) struct Stdout {
    stream: io::Result<Stream>,
}

impl Stdout {
    pub(super) fn new(fd: io::Result<OwnedFd>) -> Self {
        Self {
            stream: fd.map(Stream::new),
        }
    }

    fn write(&self, queue: &mut Queue) -> Result<u64, Failure> {
        let trouble = |error| Trouble::new("write", error);
        let stream = self.stream.as_ref().map_err(|error| {
            Failure::Ended(trouble(io::Error::new(error.kind(), error.to_string())))
        })?;
        match stream.write(queue.contiguous()) {
            Ok(count) => Ok(queue.consume(count)),
            Err(error) => Err(match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Failure::Busy,
                Some(libc::ENOSPC | libc::EDQUOT) => Failure::Stalled(trouble(error)),
                _ => Failure::Ended(trouble(error)),
            }),
        }
    }
}

#[cfg(test)]
pub(super) mod fake {
    //! A transport that does what a test tells it to.

    use std::collections::VecDeque;

    use super::{Failure, Queue};

    #[derive(Debug, Default)]
    pub(crate) struct Fake {
        pub(crate) is_open: bool,
        pub(crate) opens: usize,
        /// What the coming opens and writes fail with; `None` is success.
        pub(crate) open_failures: VecDeque<Failure>,
        pub(crate) write_failures: VecDeque<Option<Failure>>,
        pub(crate) is_blocked: bool,
        pub(crate) taken: Vec<String>,
    }

    impl Fake {
        pub(super) fn open(&mut self) -> Result<(), Failure> {
            if self.is_open {
                return Ok(());
            }
            self.opens += 1;
            if let Some(failure) = self.open_failures.pop_front() {
                return Err(failure);
            }
            self.is_open = true;
            Ok(())
        }

        pub(super) fn write(&mut self, queue: &mut Queue) -> Result<u64, Failure> {
            self.open()?;
            if self.is_blocked {
                return Err(Failure::Busy);
            }
            if let Some(Some(failure)) = self.write_failures.pop_front() {
                if matches!(failure, Failure::Broken(_)) {
                    self.is_open = false;
                }
                return Err(failure);
            }
            let message = queue.front().map_or(&[][..], |message| message.bytes);
            self.taken
                .push(String::from_utf8_lossy(message).into_owned());
            Ok(queue.pop().unwrap_or(0).into())
        }
    }
}
