//! Requests and answers over streams, without waiting: the common part of the control socket and the listener for Prometheus.
//!
//! No client can hold up the loop or fill its memory, whatever it sends or does not read: every call is non-blocking
//! and does a bounded piece of work; places are limited, and a client that finds none is closed at once; each client
//! has a bounded request and five seconds for everything.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, recv, send, shutdown};

use crate::time::{Now, Uptime};

/// How long a client may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Connections accepted in one turn of the loop.
pub(super) const ACCEPTS: usize = 32;
/// Wait after a connection that could not be accepted, for example without a free descriptor.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// Octets read from a client that has its answer before it is closed all the same.
const FAREWELL_LIMIT: usize = 64 << 10;
/// Octets read at a time.
const PIECE: usize = 1024;

/// The form of a request, and the answer to it. `W` is the part of an answer that only the rest of the daemon can give.
#[derive(Debug)]
pub(super) struct Protocol<W> {
    /// Longest request.
    pub(super) limit: usize,
    pub(super) is_whole: fn(&[u8]) -> bool,
    /// This is also for a request that ended or reached the limit before it was whole.
    pub(super) next: fn(&[u8]) -> Phase<W>,
    /// Whether to wait for a client that has its answer: closing with unread data would reset a TCP connection, and
    /// take the answer away from the client (RFC 9112 section 9.6).
    pub(super) lingers: bool,
}

/// A listener and its clients.
#[derive(Debug)]
pub(super) struct Server<W> {
    listener: OwnedFd,
    protocol: Protocol<W>,
    first: Token,
    /// Connections may wait. mio reports readiness by edges.
    acceptable: bool,
    /// Nothing is accepted before this time.
    retry: Uptime,
    pub(super) clients: Vec<Option<Client<W>>>,
}

#[derive(Debug)]
pub(super) struct Client<W> {
    pub(super) stream: OwnedFd,
    /// The stream has changed while the client waited.
    pub(super) is_ready: bool,
    /// It is closed at this time, finished or not.
    pub(super) deadline: Option<Uptime>,
    pub(super) phase: Phase<W>,
}

#[derive(Debug)]
pub(super) enum Phase<W> {
    /// Its request is not complete.
    Asking(Vec<u8>),
    Waiting(W),
    /// This much of the answer is still to be sent.
    Answering(Vec<u8>),
    /// It has everything; this many octets have been read from it since.
    Leaving(usize),
}

impl<W> Server<W> {
    /// The listener does not block. Its tokens are those from `first` on, one more than there are places.
    pub(super) fn new(
        listener: OwnedFd,
        protocol: Protocol<W>,
        places: usize,
        registry: &Registry,
        first: Token,
    ) -> io::Result<Self> {
        let mut source = SourceFd(&listener.as_raw_fd());
        registry.register(&mut source, first, Interest::READABLE)?;
        Ok(Self {
            listener,
            protocol,
            first,
            acceptable: true,
            retry: Uptime::default(),
            clients: (0..places).map(|_| None).collect(),
        })
    }

    /// A socket of its own is ready. Other tokens are ignored.
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
        let accept = self.acceptable.then_some(self.retry);
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
        if !self.acceptable || now.up < self.retry {
            return;
        }
        for _ in 0..ACCEPTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.listener, flags) {
                Ok(stream) => self.welcome(stream, registry, now),
                Err(Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => {
                    self.acceptable = false;
                    return;
                }
                Err(_) => {
                    self.retry = now.up.saturating_add(ACCEPT_RETRY);
                    return;
                }
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

    /// Moves a client on to another phase. A client that waits has unlimited time.
    pub(super) fn advance(&mut self, place: usize, phase: Phase<W>) {
        if let Some(client) = &mut self.clients[place] {
            if matches!(phase, Phase::Waiting(_)) {
                client.deadline = None;
            }
            client.phase = phase;
        }
        self.go_on(place);
    }

    /// Moves on every client that waits for the same.
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
    fn welcome(&mut self, stream: OwnedFd, registry: &Registry, now: Now) {
        let Some(place) = self.clients.iter().position(Option::is_none) else {
            return;
        };
        let token = Token(self.first.0 + 1 + place);
        let mut source = SourceFd(&stream.as_raw_fd());
        let interests = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut source, token, interests).is_err() {
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
        if let Some(place) = self.clients.get_mut(place)
            && let Some(client) = place
            && client.go_on(&self.protocol) != Err(Errno::AGAIN)
        {
            *place = None;
        }
    }
}

impl<W> Client<W> {
    /// Reads and writes what goes without waiting: `EAGAIN` while the client stays, anything else when it has to be closed.
    fn go_on(&mut self, protocol: &Protocol<W>) -> Result<(), Errno> {
        self.is_ready = true;
        let mut room = [0; PIECE];
        loop {
            match &mut self.phase {
                Phase::Asking(request) => {
                    let free = PIECE.min(protocol.limit - request.len());
                    let (count, _) = recv(&self.stream, &mut room[..free], RecvFlags::empty())?;
                    request.extend_from_slice(&room[..count]);
                    if request.is_empty() {
                        // The client left without a word.
                        return Ok(());
                    }
                    if count == 0 || request.len() == protocol.limit || (protocol.is_whole)(request)
                    {
                        self.phase = (protocol.next)(request);
                    }
                }
                Phase::Waiting(_) => return Err(Errno::AGAIN),
                Phase::Answering(rest) if !rest.is_empty() => {
                    let sent = send(&self.stream, rest, SendFlags::NOSIGNAL)?;
                    rest.drain(..sent);
                }
                Phase::Answering(_) if protocol.lingers => {
                    shutdown(&self.stream, Shutdown::Write)?;
                    self.phase = Phase::Leaving(0);
                }
                Phase::Answering(_) => return Ok(()),
                Phase::Leaving(read) => {
                    let (count, _) = recv(&self.stream, &mut room, RecvFlags::empty())?;
                    *read += count;
                    if count == 0 || *read >= FAREWELL_LIMIT {
                        return Ok(());
                    }
                }
            }
        }
    }
}
