//! The listener from which Prometheus fetches metrics: `GET /metrics` over HTTP/1.1 (RFC 9110, RFC 9112), and nothing else.
//!
//! There are at most 8 clients, each with 4 KiB for its request ([`super::exchange`]). All clients of one turn of the
//! loop get the same page.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use mio::{Registry, Token};

use super::exchange::{Protocol, Server};
use crate::metrics::CONTENT_TYPE;

/// Clients at a time.
const CLIENTS: usize = 8;
/// The longest request with all its header fields.
const REQUEST_LIMIT: usize = 4096;

type Phase = super::exchange::Phase<Page>;

/// The answers that clients wait for.
#[derive(Debug)]
pub(super) struct Page;

/// The listener and its clients.
pub(super) type Scrape = Server<Page>;

impl Scrape {
    /// Listens at `address`. Its tokens are the 9 from `first` on.
    pub(super) fn open(address: SocketAddr, registry: &Registry, first: Token) -> io::Result<Self> {
        let protocol = Protocol {
            limit: REQUEST_LIMIT,
            is_whole,
            next: next_phase,
            lingers: true,
        };
        let listener = TcpListener::bind(address)?.into();
        Self::new(listener, protocol, CLIENTS, registry, first)
    }

    /// Whether a client waits for a page, which goes to [`Self::handle_page`].
    pub(super) fn wants_page(&self) -> bool {
        self.waiting().next().is_some()
    }

    /// Serves the current metrics.
    pub(super) fn handle_page(&mut self, page: &str) {
        self.answer(|Page| true, || answering("200 OK", page));
    }
}

/// A whole request ends with an empty line. A line may end in LF alone (RFC 9112 section 2.2).
fn is_whole(request: &[u8]) -> bool {
    let ends = |end: &[u8]| request.windows(end.len()).any(|window| window == end);
    ends(b"\n\r\n") || ends(b"\n\n")
}

fn next_phase(request: &[u8]) -> Phase {
    let text = String::from_utf8_lossy(request);
    let mut lines = text.lines();
    let words: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    // RFC 9112 section 3.2 makes a request of HTTP/1.1 without it a bad one.
    let has_host = lines.any(|line| line.to_ascii_lowercase().starts_with("host:"));
    let [method, target, version] = words.as_slice() else {
        return refusing("400 Bad Request");
    };
    let is_valid = match *version {
        "HTTP/1.1" => has_host && is_whole(request),
        version => version == "HTTP/1.0" && is_whole(request),
    };
    let path = target.split_once('?').map_or(*target, |(path, _)| path);
    match (*method, path) {
        _ if !is_valid => refusing("400 Bad Request"),
        ("GET", "/metrics") => Phase::Waiting(Page),
        (_, "/metrics") => refusing("405 Method Not Allowed\r\nAllow: GET"),
        _ => refusing("404 Not Found"),
    }
}

/// A status, with the fields that belong to it, and no page.
fn refusing(status: &str) -> Phase {
    answering(status, "nattrail has metrics at /metrics, for GET\n")
}

fn answering(status: &str, page: &str) -> Phase {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    Phase::Answering(answer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of the answer to the request; `None` when the answer is the page.
    fn refusal(request: &str) -> Option<String> {
        match next_phase(request.as_bytes()) {
            Phase::Answering(answer) => {
                let text = String::from_utf8_lossy(&answer).into_owned();
                assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
                text.lines().next().map(str::to_owned)
            }
            phase => {
                assert!(matches!(phase, Phase::Waiting(Page)), "{phase:?}");
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
