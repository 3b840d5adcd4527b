//! A connection to the running daemon's control socket, and the messages for its failures.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::{Exit, Failure, exit_of};
use crate::config::Config;
use crate::kernel::clock;
use crate::time::Uptime;

/// The time that a daemon has to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The path of the daemon's socket.
pub(super) fn socket(config: &Config) -> Result<&Path, Failure> {
    config.control.socket.as_deref().ok_or_else(|| {
        let message = "control.socket is \"\" in the configuration: expected the path of the daemon's control socket";
        Failure::new(Exit::Unavailable, message)
    })
}

/// The reason why the daemon on `path` gave no answer.
pub(super) fn explain(path: &Path, error: io::Error) -> Failure {
    let path = path.display();
    let message = match error.kind() {
        ErrorKind::PermissionDenied => format!(
            "\"{path}\": permission denied; run as root, or as the user or in the group of the socket"
        ),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => format!(
            "no daemon answers on \"{path}\": {error}; start it (nattrail start), or name its configuration \
             (--config) or its instance (--instance)"
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            format!("the daemon on \"{path}\" did not answer within 5 s; its log may say why")
        }
        _ => format!(
            "the daemon on \"{path}\" did not answer: {error}; it may be stopping, or serve too many others: try again"
        ),
    };
    Failure::new(exit_of(&error), message)
}

/// The daemon answered, but not the question.
pub(super) fn refused(path: &Path, message: impl Display) -> Failure {
    let message = format!("the daemon on \"{}\" answered: {message}", path.display());
    Failure::new(Exit::Unavailable, message)
}

/// A connection with this request sent, after waiting for room in a full backlog until the deadline: std's own connect
/// would wait for ever.
pub(super) fn ask(path: &Path, request: &str, deadline: Uptime) -> io::Result<UnixStream> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // connect(2) of a Unix socket waits as long as a send may (net/unix/af_unix.c).
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(left(deadline)?))?;
    let address = SocketAddrUnix::new(path)?;
    rustix::io::retry_on_intr(|| connect(&socket, &address))?;
    let mut stream = UnixStream::from(socket);
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// The remaining time; an error when there is none.
pub(super) fn left(deadline: Uptime) -> io::Result<Duration> {
    let left = deadline.saturating_since(clock::uptime());
    // The kernel takes less than a microsecond for no timeout at all.
    if left < Duration::from_millis(1) {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// The daemon's message without characters that control a terminal.
pub(super) fn printable(message: &str) -> String {
    message.replace(|c: char| c.is_control(), "?")
}
