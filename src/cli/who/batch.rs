//! Many requests in one text, in the forms in which they arrive.
//!
//! - Lines ([`lines`]): CSV with or without a heading, "IP:port time" in any order and with the usual separators, and
//!   packets as tcpdump prints them.
//! - ARF (RFC 5965, RFC 6692) and X-ARF: mail fields, or JSON with the same or camel-case names.
//! - ACNS: the elements `TimeStamp`, `IP_Address` and `Port` of each `Source`, also where the XML is part of a mail.
//!
//! A request that cannot be read has its line and the reason in its place, and the others are read all the same.

mod lines;

pub(super) use self::lines::cells;

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::moment;
use super::request::{Request, endpoint, port_of};
use crate::session::Protocol;

/// A part of the text that is one request, or should be.
#[derive(Debug)]
pub(super) struct Entry {
    /// The line on which it begins.
    pub(super) line: usize,
    pub(super) request: Result<Request, String>,
}

/// Reads all requests.
pub(super) fn read(text: &str) -> Vec<Entry> {
    let text = text.trim_start_matches('\u{feff}');
    if find_tag(text, "IP_Address").is_some() {
        return acns(text);
    }
    let beginning = text.trim_start();
    let first = beginning.strip_prefix('[').unwrap_or(beginning);
    if first.trim_start().starts_with('{') {
        return json(text);
    }
    let is_source = |line| {
        let (name, value) = field(line)?;
        (name == "source" || name == "sourceip").then(|| endpoint(value))?
    };
    if text.lines().any(|line| is_source(line).is_some()) {
        return fields(text);
    }
    lines::read(text)
}

/// The names of the values of a request in mail fields, in JSON and in the headings of CSV: lower case, without
/// hyphens, underscores and spaces.
const SOURCE: [&str; 13] = [
    "source",
    "sourceip",
    "srcip",
    "src",
    "ip",
    "ipaddress",
    "address",
    "publicip",
    "sourceidentifier",
    "sourceaddress",
    "srcaddr",
    "postsrc",
    "client",
];
const SOURCE_PORT: [&str; 8] = [
    "sourceport",
    "srcport",
    "sport",
    "port",
    "publicport",
    "ipport",
    "postsport",
    "clientport",
];
const TIME: [&str; 8] = [
    "date",
    "time",
    "timestamp",
    "datetime",
    "arrivaldate",
    "at",
    "incidentdate",
    "when",
];
const PROTOCOL: [&str; 4] = ["protocol", "proto", "transport", "ipprotocol"];
const DESTINATION: [&str; 8] = [
    "destination",
    "destinationip",
    "dstip",
    "dst",
    "destinationaddress",
    "dstaddr",
    "postdst",
    "server",
];
const DESTINATION_PORT: [&str; 5] = [
    "destinationport",
    "dstport",
    "dport",
    "postdport",
    "serverport",
];

fn normal(name: &str) -> String {
    let name = name.trim().trim_matches('"');
    let letters = name.chars().filter(|c| !matches!(c, '-' | '_' | ' '));
    letters.collect::<String>().to_ascii_lowercase()
}

/// Makes a request of named values. The names are [`normal`].
fn request(values: &HashMap<String, String>) -> Result<Request, String> {
    let get = |names: &[&str]| {
        let found = names.iter().filter_map(|name| values.get(*name));
        found
            .map(|value| value.trim())
            .find(|value| !value.is_empty())
    };
    let address = get(&SOURCE).ok_or("expected the public address, found none")?;
    let mut at = endpoint(address)
        .ok_or_else(|| format!("expected an address such as 203.0.113.9, found \"{address}\""))?;
    let port = |text: &str| {
        port_of(text).ok_or_else(|| format!("expected a port from 1 to 65535, found \"{text}\""))
    };
    if let Some(text) = get(&SOURCE_PORT) {
        at.port = Some(port(text)?);
    }
    let to = get(&DESTINATION).map(|text| {
        endpoint(text).ok_or_else(|| {
            format!("expected a destination such as 198.51.100.7:443, found \"{text}\"")
        })
    });
    let mut to = to.transpose()?;
    if let (Some(to), Some(text)) = (&mut to, get(&DESTINATION_PORT)) {
        to.port = Some(port(text)?);
    }
    let protocol = get(&PROTOCOL).map(|text| {
        Protocol::parse(text)
            .ok_or_else(|| format!("expected a protocol such as udp, found \"{text}\""))
    });
    let protocol = protocol.transpose()?;
    // A column for the date and another for the time of day.
    let time = match (values.get("date"), values.get("time")) {
        (Some(date), Some(time)) if !date.contains(':') => Some(format!("{date} {time}")),
        _ => get(&TIME).map(str::to_owned),
    };
    let time = time.ok_or("expected a time, found none")?;
    Ok(Request {
        at,
        to,
        protocol,
        time: moment::parse(&time)?,
    })
}

/// A mail field, with its [`normal`] name.
fn field(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.split_once(':')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (!name.is_empty() && name.chars().all(is_name)).then(|| (normal(name), value.trim()))
}

/// Mail fields: a block of them that has a source is a request.
fn fields(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut block = HashMap::new();
    let mut begun = None;
    let lines = text.lines().map(str::trim_end).chain([""]);
    for (line, text) in (1..).zip(lines) {
        match field(text) {
            Some((name, value)) => {
                if SOURCE.contains(&&*name) {
                    begun.get_or_insert(line);
                }
                block.entry(name).or_insert_with(|| value.to_owned());
            }
            None if text.is_empty() || text.starts_with("--") => {
                if let Some(line) = begun.take() {
                    // The name of the mail's own field is that of the incident's in X-ARF.
                    if let Some(arrival) = block.remove("arrivaldate") {
                        block.insert("date".to_owned(), arrival);
                    }
                    let request = request(&block);
                    entries.push(Entry { line, request });
                }
                block.clear();
            }
            None => {}
        }
    }
    entries
}

/// JSON, one document or one on each line: every object that has a source is a request.
fn json(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut begun = 0;
    while let Some(document) = documents.next() {
        let blank = text[begun..].len() - text[begun..].trim_start().len();
        let line = 1 + text[..begun + blank].matches('\n').count();
        match document {
            Ok(value) => collect(&value, line, &mut entries),
            Err(error) => {
                let line = error.line();
                let request = Err(format!("expected JSON, found something else: {error}"));
                entries.push(Entry { line, request });
                // The rest of the text has no known beginning.
                break;
            }
        }
        begun = documents.byte_offset();
    }
    entries
}

fn collect(value: &Value, line: usize, entries: &mut Vec<Entry>) {
    match value {
        Value::Array(values) => values.iter().for_each(|it| collect(it, line, entries)),
        Value::Object(object) => {
            let values = texts(object);
            if SOURCE.iter().any(|name| values.contains_key(*name)) {
                let request = request(&values);
                entries.push(Entry { line, request });
            } else {
                object.values().for_each(|it| collect(it, line, entries));
            }
        }
        _ => {}
    }
}

fn texts(object: &Map<String, Value>) -> HashMap<String, String> {
    let texts = object.iter().filter_map(|(name, value)| match value {
        Value::String(text) => Some((normal(name), text.clone())),
        Value::Number(number) => Some((normal(name), number.to_string())),
        _ => None,
    });
    texts.collect()
}

/// The three elements of ACNS, without the rest of XML.
fn acns(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut at = 0;
    while let Some((start, found)) = find_tag(&text[at..], "IP_Address") {
        // The source around it, or else all up to the next one.
        let before = text[..at + start].rfind("Source").filter(|it| *it >= at);
        let end = text[at + start..]
            .find("</")
            .map_or(text.len(), |it| at + start + it);
        let next = find_tag(&text[end..], "IP_Address").map_or(text.len(), |(it, _)| end + it);
        let close = text[end..next].find("Source").map_or(next, |it| end + it);
        let source = &text[before.unwrap_or(at)..close];
        let mut values = HashMap::from([("ip".to_owned(), found)]);
        for name in ["Port", "TimeStamp"] {
            if let Some((_, value)) = find_tag(source, name) {
                values.insert(normal(name), value);
            }
        }
        let line = 1 + text[..at + start].matches('\n').count();
        let request = request(&values);
        entries.push(Entry { line, request });
        at = close;
    }
    entries
}

/// Where an element of that name, with or without a prefix, begins, and its text.
fn find_tag(text: &str, name: &str) -> Option<(usize, String)> {
    for (at, _) in text.match_indices('<') {
        let tag = text[at + 1..].split('>').next()?;
        let local = tag.split_whitespace().next().unwrap_or_default();
        if local.rsplit(':').next() == Some(name) {
            let value = text[at + 1 + tag.len()..].strip_prefix('>')?;
            let value = value.split('<').next()?;
            return Some((at, value.trim().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests;
