//! The control socket: programs ask the running daemon about itself.
//!
//! The protocol: a client connects and writes a request, which is one line. A request that cannot be answered is answered
//! with `{"error":"…"}`.
//!
//! - `status`: the client reads one JSON object and a line feed, and the daemon closes.
//! - `tail`, and after it the words of a filter ([`Filter::parse`]): the client gets `{"tail":"begin"}` and then the records
//!   that come, each a line of the format `json`, until it closes. A daemon that stops says `{"tail":"end"}`.
//!
//! No client can hold the loop or its memory, whatever it sends or does not read: every call is non-blocking and does a
//! bounded piece of work; there are at most 16 clients, further ones are closed at once; each has 1024 bytes for its
//! request, a bounded answer, and five seconds for everything. At most 8 of them are viewers, whose memory and share of the
//! work [`View`] bounds; one that reads nothing for a minute goes when another wants its place.

mod file;
mod viewer;

use std::io;
use std::path::Path;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use serde_json::json;

use self::file::{SocketFile, Unusable};
use self::viewer::Viewer;
use super::exchange::{self, Door, PATIENCE, Progress};
use crate::export::view::filter::Filter;
use crate::export::view::{Line, View};
use crate::session::Record;
use crate::time::{Now, Uptime};

/// Clients at a time.
const CLIENTS: usize = 16;
/// Of these, viewers at a time: there is always room for who asks for the status.
const VIEWERS: usize = 8;
/// Longest request, with its line feed.
const REQUEST_LIMIT: usize = 1024;
/// Longest answer, with its line feed.
const ANSWER_LIMIT: usize = 1 << 20;
/// What a client may ask that only the rest of the daemon can answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// All metrics, as one JSON object.
    Status,
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
    door: Door,
    first: Token,
    clients: [Option<Client>; CLIENTS],
    /// What all viewers share.
    line: Line,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// Closed then, finished or not. A viewer stays as long as it wants.
    deadline: Option<Uptime>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Its request is not complete.
    Asking(Vec<u8>),
    /// It waits for [`Control::answer`].
    Asked(Request),
    /// It wants to view, and waits for a place.
    Applying(Filter),
    /// This much of the answer has gone.
    Answering { answer: Vec<u8>, sent: usize },
    /// It gets records until it goes.
    Viewing(Box<Viewer>),
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
            door: Door::new(),
            first,
            clients: [const { None }; CLIENTS],
            line: Line::default(),
        })
    }

    /// A socket of its own is ready. Tokens below the first are none of its business.
    pub fn handle_ready(&mut self, token: Token) {
        let Some(offset) = token.0.checked_sub(self.first.0) else {
            return;
        };
        match offset.checked_sub(1) {
            None => self.door.handle_ready(),
            Some(slot) => self.go_on(slot),
        }
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let clients = self
            .clients
            .iter()
            .flatten()
            .filter_map(Client::poll_timeout);
        clients.chain(self.door.poll_timeout()).min()
    }

    /// Closes the clients whose time is over, accepts new ones, and writes to the viewers what goes. Spurious calls do
    /// nothing.
    pub fn handle_timeout(&mut self, registry: &Registry, now: Now) {
        for slot in &mut self.clients {
            let deadline = slot.as_ref().and_then(|client| client.deadline);
            if deadline.is_some_and(|deadline| deadline <= now.up) {
                *slot = None;
            }
        }
        let accept = || self.listener.accept().map(|(stream, _)| stream);
        for stream in self.door.accept(now, accept) {
            self.welcome(stream, registry, now);
        }
        self.admit(now);
        self.write_to_viewers(now);
    }

    /// A client with a complete request, until it has been answered.
    #[must_use]
    pub fn poll_request(&self) -> Option<(ClientId, Request)> {
        let mut clients = self.clients.iter().enumerate();
        clients.find_map(|(slot, client)| match client.as_ref()?.phase {
            Phase::Asked(request) => Some((ClientId(slot), request)),
            Phase::Applying(_) | Phase::Asking(_) | Phase::Answering { .. } | Phase::Viewing(_) => {
                None
            }
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

    /// Whether anyone is to be shown records.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        let mut clients = self.clients.iter().flatten();
        clients.any(|client| matches!(client.phase, Phase::Viewing(_)))
    }

    /// Queues the record for all who want it.
    pub fn show(&mut self, record: &Record, now: Now) {
        self.line.clear();
        for client in self.clients.iter_mut().flatten() {
            if let Phase::Viewing(viewer) = &mut client.phase {
                viewer.view.push(record, &mut self.line, now);
            }
        }
    }

    /// Tells the viewers that the daemon stops, as far as they have read what was before.
    pub fn farewell(&mut self, now: Now) {
        for client in self.clients.iter_mut().flatten() {
            if let Phase::Viewing(viewer) = &mut client.phase {
                viewer.view.end(now, &mut self.line);
            }
        }
        self.write_to_viewers(now);
    }

    /// Lets those view who have asked to. When there is no place, a viewer that has read nothing for long gives way.
    fn admit(&mut self, now: Now) {
        for slot in 0..CLIENTS {
            let applies = |client: &Client| matches!(client.phase, Phase::Applying(_));
            if !self.clients[slot].as_ref().is_some_and(applies) {
                continue;
            }
            let admitted = self.make_room(now);
            if let Some(client) = &mut self.clients[slot] {
                client.begin_viewing(admitted);
            }
            // The refusal of one that is not admitted; a viewer's turn comes.
            self.go_on(slot);
        }
    }

    /// Whether there is a place for another viewer now.
    fn make_room(&mut self, now: Now) -> bool {
        let viewers = self.clients.iter().enumerate();
        let viewers = viewers.filter_map(|(slot, client)| match &client.as_ref()?.phase {
            Phase::Viewing(viewer) => Some((slot, viewer.stuck_since())),
            _ => None,
        });
        let (mut count, mut longest) = (0, None);
        for (slot, since) in viewers {
            count += 1;
            if let Some(since) = since
                && longest.is_none_or(|(_, before)| since < before)
            {
                longest = Some((slot, since));
            }
        }
        if count < VIEWERS {
            return true;
        }
        match longest {
            Some((slot, since)) if now.up.saturating_since(since) >= viewer::TOLERANCE => {
                self.clients[slot] = None;
                true
            }
            _ => false,
        }
    }

    fn write_to_viewers(&mut self, now: Now) {
        for place in &mut self.clients {
            if let Some(client) = place
                && let Phase::Viewing(viewer) = &mut client.phase
                && viewer
                    .go_on(&mut client.stream, &mut self.line, now)
                    .is_err()
            {
                *place = None;
            }
        }
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
            deadline: Some(now.up.saturating_add(PATIENCE)),
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
    fn poll_timeout(&self) -> Option<Uptime> {
        match &self.phase {
            Phase::Viewing(viewer) => viewer.poll_timeout(),
            _ => self.deadline,
        }
    }

    /// Goes over to viewing, or to being told that there is no place.
    fn begin_viewing(&mut self, admitted: bool) {
        if !admitted {
            self.phase = failing(&format!(
                "{VIEWERS} others are viewing, which is the most: try again when one has ended"
            ));
        } else if let Phase::Applying(filter) = &mut self.phase {
            let view = View::new(std::mem::take(filter));
            self.phase = Phase::Viewing(Box::new(Viewer::new(view)));
            self.deadline = None;
        }
    }

    /// Reads and writes what goes without waiting.
    fn go_on(&mut self) -> Fate {
        if let Phase::Viewing(viewer) = &mut self.phase {
            // Nothing more is read from it: what it sends stays with the kernel, and stops it when that is full.
            viewer.handle_ready();
            return Fate::Stays;
        }
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
        let is_whole = |request: &[u8]| request.contains(&b'\n');
        let progress = exchange::read(&mut self.stream, request, REQUEST_LIMIT, is_whole)?;
        Ok(match progress {
            Progress::Partial => None,
            Progress::Whole => Some(next_phase(request)),
            Progress::TooLong => Some(failing("expected a line of at most 1024 bytes")),
        })
    }

    fn write(&mut self) -> io::Result<Fate> {
        if let Phase::Answering { answer, sent } = &mut self.phase
            && exchange::write(&mut self.stream, answer, sent)?
        {
            return Ok(Fate::Goes);
        }
        Ok(Fate::Stays)
    }
}

fn next_phase(request: &[u8]) -> Phase {
    let line = request.split(|byte| *byte == b'\n').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    match line.trim_ascii().split_once(' ') {
        None if line.trim_ascii() == "status" => Phase::Asked(Request::Status),
        None if line.trim_ascii() == "tail" => Phase::Applying(Filter::default()),
        Some(("tail", words)) => match Filter::parse(words) {
            Ok(filter) => Phase::Applying(filter),
            Err(error) => failing(&error),
        },
        _ => failing(&format!(
            "expected \"status\" or \"tail\", found \"{line}\""
        )),
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
