//! `destination=`: the module's collectors. Entries between commas, semicolons and white space, each an address with a
//! port, `@` and a source address, `%` and an interface.
//!
//! An IPv6 address may be in brackets; its port follows `:`, `.`, `p` or `#`. The module leaves out what it cannot read.

use std::net::{IpAddr, SocketAddr};

use super::super::destination;
use super::integer;

const DEFAULT_PORT: u16 = 2055;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Destination {
    pub address: SocketAddr,
    pub source: Option<IpAddr>,
    /// An interface, and text without meaning.
    pub rest: String,
}

pub(super) fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', ';', '\t', '\n'])
        .filter(|entry| !entry.is_empty())
}

impl Destination {
    /// The error says what was expected.
    pub(super) fn parse(entry: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "address:port, and perhaps @source and %interface";
        // The module decides it like this.
        let v6 = entry.matches(':').count() >= 2;
        let end = entry.find(['@', '%']).unwrap_or(entry.len());
        let (target, rest) = entry.split_at(end);
        let (source, rest) = match rest.strip_prefix('@') {
            Some(text) => {
                source_of(text, v6).ok_or("a source address of the same family behind @")?
            }
            None => (None, rest),
        };
        let (address, port) = split(target, v6);
        let address: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        if address.is_ipv6() != v6 {
            return Err(EXPECTED);
        }
        let port = match port {
            Some(port) => integer(port).and_then(|port| u16::try_from(port).ok()),
            None => Some(DEFAULT_PORT),
        };
        let address = port.and_then(|port| destination(address, port));
        let address = address.ok_or("the address of one host and a port from 1 to 65535")?;
        Ok(Self {
            address,
            source,
            rest: rest.to_owned(),
        })
    }
}

/// The source address, `None` for "any", and the text after it.
fn source_of(text: &str, v6: bool) -> Option<(Option<IpAddr>, &str)> {
    let part = |c: char| c.is_ascii_hexdigit() || c == '.' || (v6 && c == ':');
    let end = text.find(|c| !part(c)).unwrap_or(text.len());
    let (address, rest) = text.split_at(end);
    let address: IpAddr = address.parse().ok()?;
    let specified = Some(address).filter(|address| !address.is_unspecified());
    (address.is_ipv6() == v6).then_some((specified, rest))
}

/// The address, and the text of the port.
fn split(text: &str, v6: bool) -> (&str, Option<&str>) {
    let within = text.strip_prefix('[').filter(|_| v6);
    if let Some((address, port)) = within.and_then(|rest| rest.split_once(']')) {
        return (address, port.strip_prefix([':', '.', 'p', '#']));
    }
    // Without brackets a colon would belong to the address.
    let separators: &[char] = if v6 { &['p', '#'] } else { &[':'] };
    let split = text.split_once(separators);
    split.map_or((text, None), |(address, port)| (address, Some(port)))
}
