//! A connection to the running daemon's control socket, and the messages for its failures.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use serde_json::Value;

use super::{Exit, Failure, exit_of};
use crate::config::Config;
use crate::kernel::clock;
use crate::time::Uptime;

/// The time that a daemon has to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Longer than any answer of a daemon.
const ANSWER_LIMIT: usize = 16 << 20;

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

/// The answer of the daemon on `path` to a request of one line.
pub(super) fn request(path: &Path, line: &str) -> io::Result<Vec<u8>> {
    let deadline = clock::uptime().saturating_add(PATIENCE);
    let mut stream = ask(path, line, deadline)?;
    let mut answer = Vec::new();
    let mut room = [0; 16 << 10];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut room) {
            Ok(0) if answer.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(answer),
            Ok(_) if answer.len() > ANSWER_LIMIT => return Err(ErrorKind::FileTooLarge.into()),
            Ok(count) => answer.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The object in an answer, or a message about its content.
pub(super) fn value(answer: &[u8]) -> Result<Value, String> {
    let value: Value = serde_json::from_slice(answer).map_err(wrong)?;
    match value["error"].as_str() {
        Some(message) => Err(printable(message)),
        None => Ok(value),
    }
}

pub(super) fn wrong(error: serde_json::Error) -> String {
    format!("expected a JSON object, found: {error}")
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
