//! Requests and answers over streams, without waiting: what the control socket and the listener for Prometheus share.
//!
//! No client can hold the loop or its memory, whatever it sends or does not read: every call is non-blocking and does a
//! bounded piece of work; there are so many places, and who finds none is closed at once; each client has a bounded
//! request and five seconds for everything.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use crate::time::{Now, Uptime};

/// How long a client may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Connections accepted in one turn of the loop.
pub(super) const ACCEPTS: usize = 32;
/// Wait after a connection that could not be accepted, such as for want of a descriptor.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// Octets that are read from a client that has its answer before it is closed all the same.
const FAREWELL_LIMIT: usize = 64 << 10;
/// Octets read at a time.
const PIECE: usize = 1024;

pub(super) trait Listener {
    type Stream: Source + Read + Write;

    fn accept(&self) -> io::Result<Self::Stream>;

    /// Ends the sending, and says whether the client is to be waited for: to close while something is unread would reset
    /// a TCP connection, and take the answer away from the client (RFC 9112 section 9.6).
    fn end(stream: &Self::Stream) -> bool;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    fn accept(&self) -> io::Result<UnixStream> {
        self.accept().map(|(stream, _)| stream)
    }

    fn end(_: &UnixStream) -> bool {
        false
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept(&self) -> io::Result<TcpStream> {
        self.accept().map(|(stream, _)| stream)
    }

    fn end(stream: &TcpStream) -> bool {
        stream.shutdown(Shutdown::Write).is_ok()
    }
}

/// The form of a request, and the answer to it. `W` is the part of an answer that only the rest of the daemon can give.
#[derive(Debug)]
pub(super) struct Protocol<W> {
    /// Longest request.
    pub(super) limit: usize,
    pub(super) is_whole: fn(&[u8]) -> bool,
    /// Also for a request that ended or reached the limit before it was whole.
    pub(super) next: fn(&[u8]) -> Phase<W>,
}

/// A listener and its clients.
#[derive(Debug)]
pub(super) struct Server<L: Listener, W> {
    listener: L,
    protocol: Protocol<W>,
    first: Token,
    /// Connections may wait. mio reports readiness by edges.
    acceptable: bool,
    /// Nothing is accepted before.
    retry: Option<Uptime>,
    pub(super) clients: Vec<Option<Client<L::Stream, W>>>,
}

#[derive(Debug)]
pub(super) struct Client<S, W> {
    pub(super) stream: S,
    /// Something has happened to the stream while the client waited.
    pub(super) is_ready: bool,
    /// Closed then, finished or not.
    pub(super) deadline: Option<Uptime>,
    pub(super) phase: Phase<W>,
}

#[derive(Debug)]
pub(super) enum Phase<W> {
    /// Its request is not complete.
    Asking(Vec<u8>),
    Waiting(W),
    /// This much of the answer has gone.
    Answering {
        answer: Vec<u8>,
        sent: usize,
    },
    /// It has everything. So much of what it still sends has been read.
    Leaving(usize),
}

impl<L: Listener + Source, W> Server<L, W> {
    /// The tokens from `first` on, one more than there are places, are its own.
    pub(super) fn new(
        mut listener: L,
        protocol: Protocol<W>,
        places: usize,
        registry: &Registry,
        first: Token,
    ) -> io::Result<Self> {
        registry.register(&mut listener, first, Interest::READABLE)?;
        Ok(Self {
            listener,
            protocol,
            first,
            acceptable: true,
            retry: None,
            clients: (0..places).map(|_| None).collect(),
        })
    }

    /// A socket of its own is ready. Other tokens are none of its business.
    pub(super) fn handle_ready(&mut self, token: Token) {
        match token.0.checked_sub(self.first.0) {
            Some(0) => self.acceptable = true,
            Some(place) => self.go_on(place - 1),
            None => {}
        }
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Uptime> {
        let clients = self.clients.iter().flatten();
        let accept = self.acceptable.then(|| self.retry.unwrap_or_default());
        clients
            .filter_map(|client| client.deadline)
            .chain(accept)
            .min()
    }

    /// Closes the clients whose time is over, and accepts new ones. Spurious calls do nothing.
    pub(super) fn handle_timeout(&mut self, registry: &Registry, now: Now) {
        for place in &mut self.clients {
            let deadline = place.as_ref().and_then(|client| client.deadline);
            if deadline.is_some_and(|deadline| deadline <= now.up) {
                *place = None;
            }
        }
        if !self.acceptable || self.retry.is_some_and(|at| now.up < at) {
            return;
        }
        self.retry = None;
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok(stream) => self.welcome(stream, registry, now),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    ErrorKind::WouldBlock => {
                        self.acceptable = false;
                        return;
                    }
                    _ => {
                        self.retry = Some(now.up.saturating_add(ACCEPT_RETRY));
                        return;
                    }
                },
            }
        }
    }

    /// The answers that the clients wait for.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &W> {
        let clients = self.clients.iter().flatten();
        clients.filter_map(|client| match &client.phase {
            Phase::Waiting(wanted) => Some(wanted),
            _ => None,
        })
    }

    /// Lets a client go on with another phase.
    pub(super) fn advance(&mut self, place: usize, phase: Phase<W>) {
        if let Some(client) = &mut self.clients[place] {
            client.phase = phase;
        }
        self.go_on(place);
    }

    /// Lets all who wait for the same go on with it.
    pub(super) fn answer(&mut self, is_it: fn(&W) -> bool, phase: impl Fn() -> Phase<W>) {
        for place in 0..self.clients.len() {
            if let Some(client) = &self.clients[place]
                && let Phase::Waiting(wanted) = &client.phase
                && is_it(wanted)
            {
                self.advance(place, phase());
            }
        }
    }

    /// Gives the connection a place, or closes it when there is none.
    fn welcome(&mut self, mut stream: L::Stream, registry: &Registry, now: Now) {
        let Some(place) = self.clients.iter().position(Option::is_none) else {
            return;
        };
        let token = Token(self.first.0 + 1 + place);
        let interests = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut stream, token, interests).is_err() {
            return;
        }
        self.clients[place] = Some(Client {
            stream,
            is_ready: true,
            deadline: Some(now.up.saturating_add(PATIENCE)),
            phase: Phase::Asking(Vec::new()),
        });
        self.go_on(place);
    }

    fn go_on(&mut self, place: usize) {
        let Some(place) = self.clients.get_mut(place) else {
            return;
        };
        if let Some(client) = place
            && !client.go_on(&self.protocol, L::end).unwrap_or(false)
        {
            *place = None;
        }
    }
}

impl<S: Read + Write, W> Client<S, W> {
    /// Reads and writes what goes without waiting. Returns whether it stays.
    fn go_on(&mut self, protocol: &Protocol<W>, end: fn(&S) -> bool) -> io::Result<bool> {
        self.is_ready = true;
        if let Phase::Asking(request) = &mut self.phase
            && read(&mut self.stream, request, protocol)?
        {
            self.phase = (protocol.next)(request);
        }
        if let Phase::Answering { answer, sent } = &mut self.phase
            && write(&mut self.stream, answer, sent)?
        {
            self.phase = Phase::Leaving(0);
            if !end(&self.stream) {
                return Ok(false);
            }
        }
        if let Phase::Leaving(read) = &mut self.phase {
            while *read < FAREWELL_LIMIT {
                match self.stream.read(&mut [0; PIECE]) {
                    Ok(0) => return Ok(false),
                    Ok(count) => *read += count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                    Err(error) => return Err(error),
                }
            }
            return Ok(false);
        }
        Ok(true)
    }
}

impl<W> Phase<W> {
    pub(super) const fn answering(answer: Vec<u8>) -> Self {
        Self::Answering { answer, sent: 0 }
    }
}

/// Reads what has come of a request. Returns whether there will be no more of it.
fn read<W>(
    stream: &mut impl Read,
    request: &mut Vec<u8>,
    protocol: &Protocol<W>,
) -> io::Result<bool> {
    loop {
        let mut room = [0; PIECE];
        let room = &mut room[..PIECE.min(protocol.limit - request.len())];
        match stream.read(room) {
            // The client has gone without a word.
            Ok(0) if request.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(true),
            Ok(count) => request.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        if (protocol.is_whole)(request) || request.len() == protocol.limit {
            return Ok(true);
        }
    }
}

/// Writes what goes of an answer of which so much has been sent. Returns whether all of it has.
fn write(stream: &mut impl Write, answer: &[u8], sent: &mut usize) -> io::Result<bool> {
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
