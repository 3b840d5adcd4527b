//! The control socket: programs ask the running daemon about itself.
//!
//! The protocol: a client connects, writes a request, which is one line, reads one JSON object and a line feed, and the
//! daemon closes. A request that cannot be answered is answered with `{"error":"…"}`. The only request is `status`; a
//! client that is to hear more than one line would be another phase of its [`Client`].
//!
//! No client can hold the loop or its memory, whatever it sends or does not read: every call is non-blocking and does a
//! bounded piece of work; there are at most 16 clients, further ones are closed at once; each has 256 bytes for its
//! request, a bounded answer, and five seconds for everything.

mod file;

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use serde_json::json;

use self::file::SocketFile;
pub use self::file::Unusable;
use crate::time::{Now, Uptime};

/// Clients at a time.
const CLIENTS: usize = 16;
/// Longest request, with its line feed.
const REQUEST_LIMIT: usize = 256;
/// Longest answer, with its line feed.
const ANSWER_LIMIT: usize = 1 << 20;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections accepted in one turn of the loop.
const ACCEPTS: usize = 32;
/// Wait after a connection that could not be accepted, such as for want of a descriptor.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// What a client may ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// All metrics, as one JSON object.
    Status,
}

impl Request {
    fn parse(line: &[u8]) -> Option<Self> {
        match line.trim_ascii() {
            b"status" => Some(Self::Status),
            _ => None,
        }
    }
}

/// Whom to answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientId(usize);

/// The socket and its clients.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    /// Removed when this goes away.
    _file: SocketFile,
    /// Connections may wait. mio reports readiness by edges.
    acceptable: bool,
    /// Nothing is accepted before.
    retry: Option<Uptime>,
    first: Token,
    clients: [Option<Client>; CLIENTS],
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// Closed then, finished or not.
    deadline: Uptime,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Its request is not complete.
    Asking(Vec<u8>),
    /// It waits for [`Control::answer`].
    Asked(Request),
    /// This much of the answer has gone.
    Answering { answer: Vec<u8>, sent: usize },
}

/// What is to become of a client.
enum Fate {
    Stays,
    Goes,
}

impl Control {
    /// Listens on a socket of mode 0660 at `path`, whose directory is made if only that is missing. The tokens from
    /// `first` on, 17 of them, are its own.
    ///
    /// # Errors
    /// When another process listens there, or what the kernel says.
    pub fn open(path: &Path, registry: &Registry, first: Token) -> Result<Self, Unusable> {
        let (file, listener) = SocketFile::bind(path)?;
        let mut listener = UnixListener::from_std(listener);
        registry
            .register(&mut listener, first, Interest::READABLE)
            .map_err(Unusable::System)?;
        Ok(Self {
            listener,
            _file: file,
            acceptable: true,
            retry: None,
            first,
            clients: [const { None }; CLIENTS],
        })
    }

    /// A socket of its own is ready. Tokens below the first are none of its business.
    pub fn handle_ready(&mut self, token: Token) {
        let Some(offset) = token.0.checked_sub(self.first.0) else {
            return;
        };
        match offset.checked_sub(1) {
            None => self.acceptable = true,
            Some(slot) => self.go_on(slot),
        }
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let accept = self.acceptable.then(|| self.retry.unwrap_or_default());
        let clients = self.clients.iter().flatten().map(|client| client.deadline);
        clients.chain(accept).min()
    }

    /// Closes the clients whose time is over, and accepts new ones. Spurious calls do nothing.
    pub fn handle_timeout(&mut self, registry: &Registry, now: Now) {
        for slot in &mut self.clients {
            if slot
                .as_ref()
                .is_some_and(|client| client.deadline <= now.up)
            {
                *slot = None;
            }
        }
        if !self.acceptable || self.retry.is_some_and(|at| now.up < at) {
            return;
        }
        self.retry = None;
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream, registry, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.acceptable = false;
                    return;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(_) => {
                    self.retry = Some(now.up.saturating_add(ACCEPT_RETRY));
                    return;
                }
            }
        }
    }

    /// A client with a complete request, until it has been answered.
    #[must_use]
    pub fn poll_request(&self) -> Option<(ClientId, Request)> {
        let mut clients = self.clients.iter().enumerate();
        clients.find_map(|(slot, client)| match client.as_ref()?.phase {
            Phase::Asked(request) => Some((ClientId(slot), request)),
            Phase::Asking(_) | Phase::Answering { .. } => None,
        })
    }

    /// Sends a client its answer, one line without a line feed, and then closes it.
    pub fn answer(&mut self, client: ClientId, answer: &str) {
        let Some(waiting) = &mut self.clients[client.0] else {
            return;
        };
        waiting.phase = if answer.len() < ANSWER_LIMIT {
            answering(answer)
        } else {
            failing("the answer would be longer than 1 MiB")
        };
        self.go_on(client.0);
    }

    /// Gives the connection a place, or closes it when there is none.
    fn welcome(&mut self, mut stream: UnixStream, registry: &Registry, now: Now) {
        let Some(slot) = self.clients.iter().position(Option::is_none) else {
            return;
        };
        let token = Token(self.first.0 + 1 + slot);
        let interests = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut stream, token, interests).is_err() {
            return;
        }
        self.clients[slot] = Some(Client {
            stream,
            deadline: now.up.saturating_add(PATIENCE),
            phase: Phase::Asking(Vec::with_capacity(REQUEST_LIMIT)),
        });
        self.go_on(slot);
    }

    fn go_on(&mut self, slot: usize) {
        let Some(place) = self.clients.get_mut(slot) else {
            return;
        };
        if let Some(client) = place
            && matches!(client.go_on(), Fate::Goes)
        {
            *place = None;
        }
    }
}

impl Client {
    /// Reads and writes what goes without waiting.
    fn go_on(&mut self) -> Fate {
        if let Phase::Asking(_) = self.phase {
            match self.read() {
                Ok(Some(next)) => self.phase = next,
                Ok(None) => return Fate::Stays,
                Err(_) => return Fate::Goes,
            }
        }
        match self.write() {
            Ok(fate) => fate,
            Err(_) => Fate::Goes,
        }
    }

    /// The next phase, once the request is complete.
    fn read(&mut self) -> io::Result<Option<Phase>> {
        let Phase::Asking(request) = &mut self.phase else {
            return Ok(None);
        };
        loop {
            let mut room = [0; REQUEST_LIMIT];
            let left = REQUEST_LIMIT - request.len();
            let ended = match self.stream.read(&mut room[..left]) {
                Ok(0) if request.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(0) => true,
                Ok(count) => {
                    request.extend_from_slice(&room[..count]);
                    request.contains(&b'\n')
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            if ended {
                return Ok(Some(next_phase(request)));
            }
            if request.len() == REQUEST_LIMIT {
                return Ok(Some(failing("expected a line of at most 256 bytes")));
            }
        }
    }

    fn write(&mut self) -> io::Result<Fate> {
        let Phase::Answering { answer, sent } = &mut self.phase else {
            return Ok(Fate::Stays);
        };
        while *sent < answer.len() {
            match self.stream.write(&answer[*sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => *sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Fate::Stays),
                Err(error) => return Err(error),
            }
        }
        Ok(Fate::Goes)
    }
}

fn next_phase(request: &[u8]) -> Phase {
    let line = request.split(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    match Request::parse(line) {
        Some(request) => Phase::Asked(request),
        None => {
            let found = String::from_utf8_lossy(line);
            failing(&format!("expected \"status\", found \"{found}\""))
        }
    }
}

fn failing(message: &str) -> Phase {
    answering(&json!({ "error": message }).to_string())
}

fn answering(line: &str) -> Phase {
    let answer = [line.as_bytes(), b"\n"].concat();
    Phase::Answering { answer, sent: 0 }
}

#[cfg(test)]
mod tests;
