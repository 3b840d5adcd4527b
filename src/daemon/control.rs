//! The control socket: programs ask the running daemon about itself.
//!
//! The protocol: a client connects and writes a request of one line. The answer to a wrong request is `{"error":"…"}`.
//!
//! - `status`: the client reads one JSON object and a line feed, and the daemon closes.
//! - `tail`, followed by the words of a filter ([`Filter::parse`]): the client gets `{"tail":"begin"}` and then the records
//!   as they come, each a line of the format `json`, until it closes. A daemon that stops sends `{"tail":"end"}`.
//! - `archived` and a serial: the archive says that it has all records before it, and the client reads `{"archived":N}`.
//!   `archived never` makes the daemon forget the archive.
//! - `checkpoint`, followed by the words of one ([`witness::parse`]): the archive has signed its log, the copies get a line
//!   that says so, and the client reads `{"checkpoint":SIZE}`.
//!
//! There are at most 16 clients, each with 1024 bytes for its request ([`super::exchange`]) and a bounded answer. At
//! most 8 of them are viewers, who have unlimited time and whose memory and share of the work
//! [`View`](crate::export::view::View) bounds; one that reads nothing for a minute goes when another wants its place.

mod file;
mod viewer;

use std::io;
use std::path::Path;

use mio::{Registry, Token};
use serde_json::json;

use self::file::SocketFile;
use self::viewer::Viewer;
use super::exchange::{Protocol, Server};
use crate::archive::proof::witness;
use crate::export::view::Line;
use crate::export::view::filter::Filter;
use crate::place::Serial;
use crate::session::{Record, SignedCheckpoint};
use crate::time::{Now, Uptime};

/// Clients at a time.
const CLIENTS: usize = 16;
/// Viewers at a time, fewer than clients: there is always room for a request for the status.
const VIEWERS: usize = 8;
/// The longest request, with its line feed.
const REQUEST_LIMIT: usize = 1024;
/// The longest answer, with its line feed.
const ANSWER_LIMIT: usize = 1 << 20;

type Phase = super::exchange::Phase<Wanted>;

/// The answers that clients wait for.
#[derive(Debug)]
enum Wanted {
    Status,
    /// The archive is told that it was heard.
    Archive(Word),
    /// A place among the viewers.
    View(Filter),
    /// Records, until the client goes.
    Records(Box<Viewer>),
}

/// A word of the archive.
#[derive(Clone, Debug)]
pub enum Word {
    /// How far it is; `None` when the log need not keep anything for it.
    Archived(Option<Serial>),
    /// Its newest checkpoint, without the time.
    Checkpoint(Box<SignedCheckpoint>),
}

/// The socket and its clients.
#[derive(Debug)]
pub struct Control {
    /// Removed on drop.
    _file: SocketFile,
    server: Server<Wanted>,
    /// The text of a record, which all viewers share.
    line: Line,
}

impl Control {
    /// Listens on a socket of mode 0660 at `path`, and makes its directory if only that is missing. Its tokens are the
    /// 17 from `first` on.
    ///
    /// # Errors
    /// When another process listens there, or the kernel's error.
    pub fn open(path: &Path, registry: &Registry, first: Token) -> io::Result<Self> {
        let (file, listener) = SocketFile::bind(path)?;
        let protocol = Protocol {
            limit: REQUEST_LIMIT,
            is_whole: |request| request.contains(&b'\n'),
            next: next_phase,
            lingers: false,
        };
        Ok(Self {
            _file: file,
            server: Server::new(listener, protocol, CLIENTS, registry, first)?,
            line: Line::default(),
        })
    }

    pub fn handle_ready(&mut self, token: Token) {
        self.server.handle_ready(token);
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let viewers = self.server.waiting().filter_map(|wanted| match wanted {
            Wanted::Records(viewer) => viewer.view.poll_timeout(),
            Wanted::Status | Wanted::Archive(_) | Wanted::View(_) => None,
        });
        viewers.chain(self.server.poll_timeout()).min()
    }

    /// Closes the clients whose time is over, accepts new ones, and writes to the viewers what goes without waiting.
    /// Spurious calls do nothing.
    pub fn handle_timeout(&mut self, registry: &Registry, now: Now) {
        self.server.handle_timeout(registry, now);
        self.admit(now);
        self.write_to_viewers(now);
    }

    /// Whether a client waits for the status, which goes to [`Self::handle_status`].
    pub fn wants_status(&self) -> bool {
        let mut waiting = self.server.waiting();
        waiting.any(|wanted| matches!(wanted, Wanted::Status))
    }

    /// Answers every request for the status: one line without a line feed.
    pub fn handle_status(&mut self, status: &str) {
        let is_status = |wanted: &Wanted| matches!(wanted, Wanted::Status);
        self.server.answer(is_status, || {
            if status.len() < ANSWER_LIMIT {
                answering(status)
            } else {
                failing("the answer would be longer than 1 MiB")
            }
        });
    }

    /// Hands over the words of the archive, and answers that they were heard, or why they make no sense.
    pub fn handle_archive(&mut self, mut hear: impl FnMut(Word) -> Result<(), String>) {
        for place in 0..CLIENTS {
            if let Some(client) = &self.server.clients[place]
                && let Phase::Waiting(Wanted::Archive(word)) = &client.phase
            {
                let answer = match word {
                    Word::Archived(next) => json!({ "archived": next.map(|next| next.0) }),
                    Word::Checkpoint(checkpoint) => json!({ "checkpoint": checkpoint.size }),
                };
                let phase = match hear(word.clone()) {
                    Ok(()) => answering(&answer.to_string()),
                    Err(reason) => failing(&reason),
                };
                self.server.advance(place, phase);
            }
        }
    }

    /// Whether any viewer waits for records.
    pub fn is_watched(&self) -> bool {
        let mut waiting = self.server.waiting();
        waiting.any(|wanted| matches!(wanted, Wanted::Records(_)))
    }

    /// Queues the record for every viewer that wants it.
    pub fn show(&mut self, record: &Record, now: Now) {
        self.line.clear();
        for viewer in viewers(&mut self.server) {
            viewer.view.push(record, &mut self.line, now);
        }
    }

    /// Tells the viewers that have read the rest that the daemon stops.
    pub fn farewell(&mut self, now: Now) {
        for viewer in viewers(&mut self.server) {
            viewer.view.end(now, &mut self.line);
        }
        self.write_to_viewers(now);
    }

    /// Admits the clients that want to view. When there is no place, a viewer that has read nothing for long gives way.
    fn admit(&mut self, now: Now) {
        for place in 0..CLIENTS {
            if let Some(client) = &mut self.server.clients[place]
                && let Phase::Waiting(Wanted::View(filter)) = &mut client.phase
            {
                let viewer = Viewer::new(std::mem::take(filter));
                let phase = match self.make_room(now) {
                    true => Phase::Waiting(Wanted::Records(Box::new(viewer))),
                    false => failing(&format!(
                        "{VIEWERS} others are viewing, which is the most: try again when one has ended"
                    )),
                };
                self.server.advance(place, phase);
            }
        }
    }

    /// Whether there is a place for another viewer now.
    fn make_room(&mut self, now: Now) -> bool {
        let clients = self.server.clients.iter().enumerate();
        let viewers = clients.filter_map(|(place, client)| match &client.as_ref()?.phase {
            Phase::Waiting(Wanted::Records(viewer)) => Some((place, viewer.stuck_since)),
            _ => None,
        });
        let viewers: Vec<_> = viewers.collect();
        if viewers.len() < VIEWERS {
            return true;
        }
        let stuck = viewers.into_iter().filter(|(_, since)| {
            since.is_some_and(|since| now.up.saturating_since(since) >= viewer::TOLERANCE)
        });
        let longest = stuck.min_by_key(|(_, since)| *since);
        if let Some((place, _)) = longest {
            self.server.clients[place] = None;
        }
        longest.is_some()
    }

    fn write_to_viewers(&mut self, now: Now) {
        for place in &mut self.server.clients {
            if let Some(client) = place
                && let Phase::Waiting(Wanted::Records(viewer)) = &mut client.phase
            {
                let is_ready = std::mem::take(&mut client.is_ready);
                let gone = viewer.go_on(&client.stream, is_ready, &mut self.line, now);
                if gone.is_err() {
                    *place = None;
                }
            }
        }
    }
}

fn viewers(server: &mut Server<Wanted>) -> impl Iterator<Item = &mut Viewer> {
    let clients = server.clients.iter_mut().flatten();
    clients.filter_map(|client| match &mut client.phase {
        Phase::Waiting(Wanted::Records(viewer)) => Some(&mut **viewer),
        _ => None,
    })
}

fn next_phase(request: &[u8]) -> Phase {
    let line = request.split(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    if line.len() == REQUEST_LIMIT {
        return failing("expected a line of at most 1024 bytes");
    }
    let line = String::from_utf8_lossy(line);
    let filter = match line.trim_ascii().split_once(' ') {
        None if line.trim_ascii() == "status" => return Phase::Waiting(Wanted::Status),
        None if line.trim_ascii() == "tail" => Ok(Filter::default()),
        Some(("tail", words)) => Filter::parse(words),
        Some(("archived", "never")) => {
            return Phase::Waiting(Wanted::Archive(Word::Archived(None)));
        }
        Some(("archived", next)) => match next.parse() {
            Ok(next) => {
                return Phase::Waiting(Wanted::Archive(Word::Archived(Some(Serial(next)))));
            }
            Err(_) => Err(format!("expected a serial or \"never\", found \"{next}\"")),
        },
        Some(("checkpoint", words)) => match witness::parse(words) {
            Some(checkpoint) => {
                return Phase::Waiting(Wanted::Archive(Word::Checkpoint(Box::new(checkpoint))));
            }
            None => Err(format!(
                "expected the name, size, root and signature of a checkpoint, found \"{words}\""
            )),
        },
        _ => Err(format!(
            "expected \"status\", \"tail\", \"archived\" or \"checkpoint\", found \"{line}\""
        )),
    };
    filter.map_or_else(
        |error| failing(&error),
        |filter| Phase::Waiting(Wanted::View(filter)),
    )
}

fn failing(message: &str) -> Phase {
    answering(&json!({ "error": message }).to_string())
}

fn answering(line: &str) -> Phase {
    Phase::Answering([line.as_bytes(), b"\n"].concat())
}

#[cfg(test)]
mod tests;
