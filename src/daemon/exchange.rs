//! A request and its answer over a stream, without waiting: what the control socket and the listener for Prometheus share.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use crate::time::{Now, Uptime};

/// How long a client may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Connections accepted in one turn of the loop.
pub(super) const ACCEPTS: usize = 32;
/// Wait after a connection that could not be accepted, such as for want of a descriptor.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// Octets read at a time.
const PIECE: usize = 1024;

/// When to accept connections.
#[derive(Debug)]
pub(super) struct Door {
    /// Connections may wait. mio reports readiness by edges.
    acceptable: bool,
    /// Nothing is accepted before.
    retry: Option<Uptime>,
}

/// How far a request has come.
pub(super) enum Progress {
    Partial,
    Whole,
    /// It has reached its limit, and is not whole.
    TooLong,
}

impl Door {
    pub(super) const fn new() -> Self {
        Self {
            acceptable: true,
            retry: None,
        }
    }

    pub(super) const fn handle_ready(&mut self) {
        self.acceptable = true;
    }

    /// When to call [`Self::accept`] at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Uptime> {
        self.acceptable.then(|| self.retry.unwrap_or_default())
    }

    /// The connections that wait, or some of them. Spurious calls do nothing.
    pub(super) fn accept<S>(&mut self, now: Now, next: impl Fn() -> io::Result<S>) -> Vec<S> {
        let mut accepted = Vec::new();
        if !self.acceptable || self.retry.is_some_and(|at| now.up < at) {
            return accepted;
        }
        self.retry = None;
        for _ in 0..ACCEPTS {
            match next() {
                Ok(stream) => accepted.push(stream),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    ErrorKind::WouldBlock => {
                        self.acceptable = false;
                        break;
                    }
                    _ => {
                        self.retry = Some(now.up.saturating_add(ACCEPT_RETRY));
                        break;
                    }
                },
            }
        }
        accepted
    }
}

/// Reads what has come of a request of at most `limit` octets. Its end may also be that of what the client sends.
///
/// # Errors
/// What the stream says; [`ErrorKind::UnexpectedEof`] when the client has gone without a word.
pub(super) fn read(
    stream: &mut impl Read,
    request: &mut Vec<u8>,
    limit: usize,
    is_whole: impl Fn(&[u8]) -> bool,
) -> io::Result<Progress> {
    loop {
        let mut room = [0; PIECE];
        let room = &mut room[..PIECE.min(limit - request.len())];
        match stream.read(room) {
            Ok(0) if request.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(Progress::Whole),
            Ok(count) => request.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Partial),
            Err(error) => return Err(error),
        }
        if is_whole(request) {
            return Ok(Progress::Whole);
        }
        if request.len() == limit {
            return Ok(Progress::TooLong);
        }
    }
}

/// Writes what goes of an answer of which so much has been sent. Returns whether all of it has.
///
/// # Errors
/// What the stream says.
pub(super) fn write(stream: &mut impl Write, answer: &[u8], sent: &mut usize) -> io::Result<bool> {
    while *sent < answer.len() {
        match stream.write(&answer[*sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
