//! Requests as lines of text, one on each.

use std::collections::HashMap;

use super::super::moment::{self, Moment};
use super::super::request::{Request, dotted, endpoint, port_of};
use super::{Entry, SOURCE, TIME, normal, request};
use crate::archive::question::Endpoint;
use crate::session::Protocol;

/// The most words of a time: `Fri 20 Nov 2026 14:30:00 +0000`.
const MOST_WORDS: usize = 6;

pub(super) fn read(text: &str) -> Vec<Entry> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let mut lines = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    let heading = lines.peek().and_then(|(_, text)| heading(text));
    if heading.is_some() {
        lines.next();
    }
    let entry = |(line, text)| {
        let request = match &heading {
            Some(heading) => row(heading, text),
            None => words(text),
        };
        Entry { line, request }
    };
    lines.map(entry).collect()
}

/// The separator and the columns of a first line that names them.
struct Heading {
    separator: char,
    names: Vec<String>,
}

fn heading(line: &str) -> Option<Heading> {
    let mut separators = [',', ';', '\t'].into_iter();
    let separator = separators.find(|separator| line.contains(*separator))?;
    let names: Vec<_> = cells(line, separator).iter().map(|it| normal(it)).collect();
    let has = |wanted: &[&str]| names.iter().any(|name| wanted.contains(&&**name));
    (has(&SOURCE) && has(&TIME)).then_some(Heading { separator, names })
}

fn row(heading: &Heading, line: &str) -> Result<Request, String> {
    let names = heading.names.iter().cloned();
    let values: HashMap<_, _> = names.zip(cells(line, heading.separator)).collect();
    request(&values)
}

/// The cells of a line of CSV (RFC 4180), quoted or not.
pub(in crate::cli::who) fn cells(line: &str, separator: char) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let cell = cells.last_mut();
        match (c, cell) {
            ('"', Some(cell)) if is_quoted && chars.next_if_eq(&'"').is_some() => cell.push('"'),
            ('"', Some(cell)) if is_quoted || cell.trim().is_empty() => is_quoted = !is_quoted,
            (c, _) if c == separator && !is_quoted => cells.push(String::new()),
            (c, Some(cell)) => cell.push(c),
            (_, None) => {}
        }
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// Finds a time, addresses, ports and a protocol among the words of a line.
fn words(line: &str) -> Result<Request, String> {
    let is_separator = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '|');
    let words = line
        .split(is_separator)
        .map(|word| word.trim_matches(['"', '\'', '(', ')']));
    let mut words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let time = take_time(&mut words)?;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut protocol = None;
    let mut is_after_address = false;
    for word in words {
        let bare = word.trim_end_matches(':');
        let port = port_of(bare).filter(|_| is_after_address);
        // The word between an address and its port.
        let is_port_word = bare.eq_ignore_ascii_case("port");
        if is_port_word && is_after_address {
            continue;
        }
        is_after_address = false;
        // Two addresses are enough; later ones are those of the packet's content.
        let found = endpoint(word)
            .or_else(|| endpoint(bare))
            .or_else(|| dotted(bare));
        if let Some(found) = found.filter(|_| endpoints.len() < 2) {
            is_after_address = found.port.is_none();
            endpoints.push(found);
        } else if let (Some(port), Some(last)) = (port, endpoints.last_mut()) {
            last.port = Some(port);
        } else if protocol.is_none() {
            protocol = named_protocol(bare);
        }
    }
    let mut endpoints = endpoints.into_iter();
    let at = endpoints
        .next()
        .ok_or_else(|| format!("expected an address and a time, found no address in \"{line}\""))?;
    Ok(Request {
        at,
        to: endpoints.next(),
        protocol,
        time,
    })
}

/// Takes the longest run of words that is a time.
fn take_time(words: &mut Vec<&str>) -> Result<Moment, String> {
    for length in (1..=MOST_WORDS).rev() {
        for first in 0..(words.len() + 1).saturating_sub(length) {
            let run = words[first..first + length].join(" ");
            // A date alone may belong to a time of day that cannot be read.
            let is_number = run
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
            let has_clock = run.contains(':') || run.starts_with('@') || is_number && run.len() > 9;
            let Some(time) = has_clock.then(|| moment::parse(&run).ok()).flatten() else {
                continue;
            };
            // A zone that cannot be read must not become UTC.
            let next = words.get(first + length).copied().unwrap_or_default();
            let is_zone = (2..=5).contains(&next.len())
                && next.chars().all(|c| c.is_ascii_uppercase())
                && named_protocol(next).is_none()
                && next != "IP";
            if time.is_assumed_utc && is_zone {
                return moment::parse(&format!("{run} {next}"));
            }
            words.drain(first..first + length);
            return Ok(time);
        }
    }
    let line = words.join(" ");
    Err(format!(
        "expected an address and a time such as \"203.0.113.9:50520 2026-11-20 14:30:00\", found no time in \"{line}\""
    ))
}

/// A protocol by its name. tcpdump prints flags only for TCP.
fn named_protocol(word: &str) -> Option<Protocol> {
    if word == "Flags" {
        return Some(Protocol::TCP);
    }
    Protocol::parse(word).filter(|_| word.starts_with(|c: char| c.is_ascii_alphabetic()))
}
