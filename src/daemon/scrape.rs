//! The listener from which Prometheus fetches metrics: `GET /metrics` over HTTP/1.1 (RFC 9110, RFC 9112), and nothing else.
//!
//! No client can hold the loop or its memory, whatever it sends or does not read: every call is non-blocking and does a
//! bounded piece of work; there are at most 8 clients, further ones are closed at once; each has 4 KiB for its request and
//! five seconds for everything. However often they ask, the metrics are written down ten times a second at most.

use std::io::{self, ErrorKind, Read as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use super::exchange::{self, Door, PATIENCE, Progress};
use crate::metrics::CONTENT_TYPE;
use crate::time::{Now, Uptime};

/// Clients at a time.
const CLIENTS: usize = 8;
/// Longest request with all its header fields.
const REQUEST_LIMIT: usize = 4096;
/// How long a page is good for everybody.
const PAGE_LIFE: Duration = Duration::from_millis(100);
/// Octets that are read from a client that has its answer before it is closed all the same.
const FAREWELL_LIMIT: usize = 64 << 10;

/// The listener and its clients.
#[derive(Debug)]
pub(super) struct Scrape {
    listener: TcpListener,
    door: Door,
    first: Token,
    clients: [Option<Client>; CLIENTS],
    /// What was served last, and since when.
    page: Option<(Uptime, String)>,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    /// Closed then, finished or not.
    deadline: Uptime,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Its request is not complete.
    Asking(Vec<u8>),
    /// It waits for the page.
    Asked,
    /// This much of the answer has gone.
    Answering { answer: Vec<u8>, sent: usize },
    /// It has everything. To close while something is unread would reset the connection, and take the answer away from it
    /// (RFC 9112 section 9.6). So much of the rest has been read.
    Leaving(usize),
}

impl Scrape {
    /// Listens at `address`. The tokens from `first` on, 9 of them, are its own.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn open(address: SocketAddr, registry: &Registry, first: Token) -> io::Result<Self> {
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, first, Interest::READABLE)?;
        Ok(Self {
            listener,
            door: Door::new(),
            first,
            clients: [const { None }; CLIENTS],
            page: None,
        })
    }

    /// A socket of its own is ready. Other tokens are none of its business.
    pub(super) fn handle_ready(&mut self, token: Token) {
        match token.0.checked_sub(self.first.0) {
            Some(0) => self.door.handle_ready(),
            Some(place) => self.go_on(place - 1),
            None => {}
        }
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Uptime> {
        let clients = self.clients.iter().flatten();
        let clients = clients.map(|client| client.deadline);
        clients.chain(self.door.poll_timeout()).min()
    }

    /// Closes the clients whose time is over, and accepts new ones. Spurious calls do nothing.
    pub(super) fn handle_timeout(&mut self, registry: &Registry, now: Now) {
        for place in &mut self.clients {
            if place
                .as_ref()
                .is_some_and(|client| client.deadline <= now.up)
            {
                *place = None;
            }
        }
        let accept = || self.listener.accept().map(|(stream, _)| stream);
        for stream in self.door.accept(now, accept) {
            self.welcome(stream, registry, now);
        }
    }

    /// Whether somebody waits for a page that is to be made and given to [`Self::handle_page`].
    pub(super) fn wants_page(&mut self, now: Now) -> bool {
        let asked = |client: &Client| matches!(client.phase, Phase::Asked);
        if !self.clients.iter().flatten().any(asked) {
            return false;
        }
        let fresh = |(since, _): &(Uptime, _)| now.up.saturating_since(*since) < PAGE_LIFE;
        match self.page.take_if(|page| fresh(page)) {
            Some((since, page)) => {
                self.serve(page, since);
                false
            }
            None => true,
        }
    }

    /// Serves the metrics of this moment.
    pub(super) fn handle_page(&mut self, page: String, now: Now) {
        self.serve(page, now.up);
    }

    fn serve(&mut self, page: String, since: Uptime) {
        for place in 0..CLIENTS {
            if let Some(client) = &mut self.clients[place]
                && matches!(client.phase, Phase::Asked)
            {
                client.phase = answering("200 OK", &page);
                self.go_on(place);
            }
        }
        self.page = Some((since, page));
    }

    /// Gives the connection a place, or closes it when there is none.
    fn welcome(&mut self, mut stream: TcpStream, registry: &Registry, now: Now) {
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
            deadline: now.up.saturating_add(PATIENCE),
            phase: Phase::Asking(Vec::new()),
        });
        self.go_on(place);
    }

    fn go_on(&mut self, place: usize) {
        let Some(place) = self.clients.get_mut(place) else {
            return;
        };
        if let Some(client) = place
            && !client.go_on().unwrap_or(false)
        {
            *place = None;
        }
    }
}

impl Client {
    /// Reads and writes what goes without waiting. Returns whether it stays.
    fn go_on(&mut self) -> io::Result<bool> {
        if let Phase::Asking(request) = &mut self.phase {
            match exchange::read(&mut self.stream, request, REQUEST_LIMIT, is_whole)? {
                Progress::Partial => {}
                Progress::Whole => self.phase = next_phase(request),
                Progress::TooLong => self.phase = refusing("400 Bad Request"),
            }
        }
        if let Phase::Answering { answer, sent } = &mut self.phase
            && exchange::write(&mut self.stream, answer, sent)?
        {
            self.stream.shutdown(Shutdown::Write)?;
            self.phase = Phase::Leaving(0);
        }
        if let Phase::Leaving(read) = &mut self.phase {
            let mut room = [0; REQUEST_LIMIT];
            while *read < FAREWELL_LIMIT {
                match self.stream.read(&mut room) {
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

/// With the empty line after the header fields. A line may end in LF alone (RFC 9112 section 2.2).
fn is_whole(request: &[u8]) -> bool {
    let ends = |end: &[u8]| request.windows(end.len()).any(|window| window == end);
    ends(b"\n\r\n") || ends(b"\n\n")
}

fn next_phase(request: &[u8]) -> Phase {
    let text = String::from_utf8_lossy(request);
    let mut lines = text.lines();
    let words: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    // RFC 9112 section 3.2: without it a request of HTTP/1.1 is a bad one.
    let has_host = lines.any(|line| line.to_ascii_lowercase().starts_with("host:"));
    let [method, target, version] = words.as_slice() else {
        return refusing("400 Bad Request");
    };
    let path = target.split_once('?').map_or(*target, |(path, _)| path);
    match (*version, *method, path) {
        ("HTTP/1.1", _, _) if !has_host => refusing("400 Bad Request"),
        ("HTTP/1.0" | "HTTP/1.1", _, _) if !is_whole(request) => refusing("400 Bad Request"),
        ("HTTP/1.0" | "HTTP/1.1", "GET", "/metrics") => Phase::Asked,
        ("HTTP/1.0" | "HTTP/1.1", _, "/metrics") => {
            refusing("405 Method Not Allowed\r\nAllow: GET")
        }
        ("HTTP/1.0" | "HTTP/1.1", _, _) => refusing("404 Not Found"),
        _ => refusing("400 Bad Request"),
    }
}

/// A status and the fields that belong to it alone, without a page.
fn refusing(status: &str) -> Phase {
    answering(status, "nattrail has metrics at /metrics, for GET\n")
}

fn answering(status: &str, page: &str) -> Phase {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    Phase::Answering {
        answer: answer.into_bytes(),
        sent: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status that the request has, none when it gets the page.
    fn refusal(request: &str) -> Option<String> {
        match next_phase(request.as_bytes()) {
            Phase::Answering { answer, .. } => {
                let text = String::from_utf8_lossy(&answer).into_owned();
                assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
                text.lines().next().map(str::to_owned)
            }
            phase => {
                assert!(matches!(phase, Phase::Asked), "{phase:?}");
                None
            }
        }
    }

    #[test]
    fn only_a_get_of_metrics_gets_the_page() {
        for request in [
            "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /metrics?format=text HTTP/1.1\r\nAccept: */*\r\nhost:a\r\n\r\n",
            "GET /metrics HTTP/1.0\n\n",
        ] {
            assert_eq!(refusal(request), None, "{request}");
        }
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"),
            (
                "POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
                "405 Method Not Allowed",
            ),
            ("GET /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n", "400 Bad Request"),
            ("GET /metrics HTTP/2\r\nHost: a\r\n\r\n", "400 Bad Request"),
            (
                "GET  /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 Bad Request",
            ),
            ("GET /metrics\r\n\r\n", "400 Bad Request"),
            ("\u{16}\u{3}\u{1}", "400 Bad Request"),
        ] {
            assert_eq!(
                refusal(request),
                Some(format!("HTTP/1.1 {status}")),
                "{request}"
            );
        }
    }
}
