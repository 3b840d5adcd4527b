//! A connection to the running daemon's control socket, and what there is to say when there is none.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::Exit;
use crate::daemon::clock;
use crate::time::Uptime;

/// How long a daemon may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// `control.socket` is empty.
    SwitchedOff,
    NoDaemon(PathBuf, io::Error),
    NotPermitted(PathBuf),
    NoAnswer(PathBuf),
    Broken(PathBuf, io::Error),
    /// It did answer, but not with what was asked for.
    Refused(PathBuf, String),
    /// It answered for a while, and said that it stops.
    Stopped(PathBuf),
    /// It answered for a while, and then no more.
    Gone(PathBuf),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchedOff => f.write_str(
                "control.socket is \"\" in the configuration: expected the path of the daemon's control socket",
            ),
            Self::NoDaemon(path, error) => write!(
                f,
                "no daemon answers on \"{}\": {error}; start it (nattrail start), or name the configuration that it has, \
                 with --config",
                path.display()
            ),
            Self::NotPermitted(path) => write!(
                f,
                "\"{}\": permission denied; run as root, or as the user or in the group of the socket",
                path.display()
            ),
            Self::NoAnswer(path) => write!(
                f,
                "the daemon on \"{}\" did not answer within 5 s; its log may say why",
                path.display()
            ),
            Self::Broken(path, error) => write!(
                f,
                "the daemon on \"{}\" did not answer: {error}; it may be stopping, or have too many others to answer: \
                 try again",
                path.display()
            ),
            Self::Refused(path, message) => {
                write!(f, "the daemon on \"{}\" answered: {message}", path.display())
            }
            Self::Stopped(path) => write!(
                f,
                "the daemon on \"{}\" has stopped or is being restarted; what comes from now on is not shown: start this \
                 again when it runs",
                path.display()
            ),
            Self::Gone(path) => write!(
                f,
                "the daemon on \"{}\" has closed the connection without a word; what comes from now on is not shown: it may \
                 have ended, or others wanted to view while nothing was read here; \"nattrail status\" says which",
                path.display()
            ),
        }
    }
}

impl Failure {
    /// Why the daemon on `path` gave no answer.
    pub fn explain(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            ErrorKind::PermissionDenied => Self::NotPermitted(path),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
                Self::NoDaemon(path, error)
            }
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::NoAnswer(path),
            _ => Self::Broken(path, error),
        }
    }

    pub const fn exit(&self) -> Exit {
        match self {
            Self::NotPermitted(_) => Exit::NoPermission,
            _ => Exit::Unavailable,
        }
    }
}

/// A connection, waiting for room in a full backlog until the deadline: std's own connect would wait for ever.
pub fn connect_by(path: &Path, deadline: Uptime) -> io::Result<UnixStream> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // connect(2) of a Unix socket waits as long as a send may (net/unix/af_unix.c).
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(left(deadline)?))?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        match connect(&socket, &address) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                return Ok(UnixStream::from(socket));
            }
        }
    }
}

/// The time that is left; an error when none is.
pub fn left(deadline: Uptime) -> io::Result<Duration> {
    let left = deadline.saturating_since(clock::uptime());
    // Less than a microsecond is no timeout at all for the kernel.
    if left < Duration::from_millis(1) {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// The daemon's message without what a terminal would obey.
pub fn printable(message: &str) -> String {
    message.replace(|c: char| c.is_control(), "?")
}
