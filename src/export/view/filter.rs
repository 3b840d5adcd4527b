//! The selection of a viewer: the options of `nattrail tail`, the words of its request, and the test of a record.
//!
//! Values of one kind are alternatives; conditions of different kinds must all hold. [`Display`](fmt::Display) writes
//! the form that [`Filter::parse`] reads: ` src=10.0.0.0/8 proto=tcp`. A filter has at most [`MOST_VALUES`] values, so
//! no viewer can make a record cost the daemon more than a little.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::config::{MarkFilter, Prefix, values};
use crate::session::{EventKind, NatEvent, Protocol, Tuple};

/// The most values of all conditions together.
pub const MOST_VALUES: usize = 16;

/// Which events are shown. The default shows every one.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct Filter {
    /// Only sessions with this source before translation
    #[arg(long, value_name = "END", value_delimiter = ',')]
    pub src: Vec<End>,
    /// Only sessions with this destination before translation
    #[arg(long, value_name = "END", value_delimiter = ',')]
    pub dst: Vec<End>,
    /// Only sessions with this source or destination after translation
    #[arg(long, value_name = "END", value_delimiter = ',')]
    pub post: Vec<End>,
    /// Only sessions of this protocol, by name or number
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',', value_parser = protocol)]
    pub proto: Vec<Protocol>,
    /// Only sessions whose mark, under the mask, is this
    #[arg(long, value_name = "VALUE[/MASK]", value_delimiter = ',')]
    pub mark: Vec<MarkFilter>,
    /// Only sessions in this conntrack zone
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = zone)]
    pub zone: Vec<u16>,
    /// Only these events: create, delete, or flow (of connections that are accounted in parts)
    #[arg(long, value_name = "EVENT", value_delimiter = ',', value_parser = kinds())]
    pub event: Vec<EventKind>,
}

/// One end of a connection, as far as it is given: `10.0.0.0/8`, `203.0.113.9:50001`, `[2001:db8::1]:443`, `:443`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    prefix: Option<Prefix>,
    port: Option<u16>,
}

impl Filter {
    /// Reads the words of a request.
    ///
    /// # Errors
    /// The text says what was expected and what was found.
    pub fn parse(words: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for word in words.split_ascii_whitespace() {
            let Some((name, value)) = word.split_once('=') else {
                return Err(format!("expected NAME=VALUE, found \"{word}\""));
            };
            filter
                .add(name, value)
                .map_err(|expected| format!("expected {expected}, found \"{word}\""))?;
        }
        filter.check()?;
        Ok(filter)
    }

    /// # Errors
    /// When it has too many values.
    pub fn check(&self) -> Result<(), String> {
        match self.values() {
            ..=MOST_VALUES => Ok(()),
            values => Err(format!(
                "expected at most {MOST_VALUES} values in a filter, found {values}"
            )),
        }
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "src" => self.src.push(value.parse()?),
            "dst" => self.dst.push(value.parse()?),
            "post" => self.post.push(value.parse()?),
            "proto" => self.proto.push(protocol(value)?),
            "mark" => self.mark.push(value.parse()?),
            "zone" => self.zone.push(zone(value)?),
            "event" => self.event.push(kind(value)?),
            _ => return Err("src, dst, post, proto, mark, zone or event".to_owned()),
        }
        Ok(())
    }

    fn values(&self) -> usize {
        let ends = self.src.len() + self.dst.len() + self.post.len();
        let numbers = self.proto.len() + self.mark.len() + self.zone.len();
        ends + numbers + self.event.len()
    }

    pub fn accepts(&self, event: &NatEvent) -> bool {
        let session = &event.session;
        let icmp = session.protocol.is_icmp();
        any(&self.event, |kind| *kind == event.kind)
            && any(&self.proto, |one| *one == session.protocol)
            && any(&self.mark, |mark| mark.accepts(session.mark))
            && any(&self.zone, |zone| *zone == session.zone.id)
            && any(&self.src, |end| end.is_source(&session.original))
            && any(&self.dst, |end| end.is_destination(&session.original, icmp))
            && any(&self.post, |end| {
                let post = session.post_nat();
                end.is_source(&post) || end.is_destination(&post, icmp)
            })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(f, "src", &self.src)?;
        write_all(f, "dst", &self.dst)?;
        write_all(f, "post", &self.post)?;
        write_all(f, "proto", &self.proto)?;
        write_all(f, "mark", &self.mark)?;
        write_all(f, "zone", &self.zone)?;
        let kinds: Vec<_> = self.event.iter().copied().map(kind_name).collect();
        write_all(f, "event", &kinds)
    }
}

impl End {
    fn is_source(&self, tuple: &Tuple) -> bool {
        self.is(tuple.src, Some(tuple.src_port))
    }

    /// The destination port of ICMP holds type and code, which nobody means by a port.
    fn is_destination(&self, tuple: &Tuple, icmp: bool) -> bool {
        self.is(tuple.dst, (!icmp).then_some(tuple.dst_port))
    }

    fn is(&self, address: IpAddr, port: Option<u16>) -> bool {
        (self.port.is_none() || self.port == port)
            && self.prefix.is_none_or(|prefix| prefix.contains(address))
    }
}

/// The error says what was expected.
impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "an address, a prefix such as 10.0.0.0/8, or one of them with a port \
                                (203.0.113.9:50001, [2001:db8::1]:443, :443)";
        let expected = || EXPECTED.to_owned();
        let (prefix, port) = split_port(text).ok_or_else(expected)?;
        let number = |digits| values::plain(digits).ok_or_else(expected);
        let port = port.map(number).transpose()?;
        let prefix = match prefix {
            "" if port.is_some() => None,
            _ => Some(Prefix::parse(prefix, EXPECTED)?),
        };
        Ok(Self { prefix, port })
    }
}

/// The form that [`FromStr`] reads back.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.prefix, self.port) {
            (None, None) => Ok(()),
            (Some(prefix), None) => prefix.fmt(f),
            (None, Some(port)) => write!(f, ":{port}"),
            (Some(prefix), Some(port)) if prefix.address.is_ipv4() => write!(f, "{prefix}:{port}"),
            (Some(prefix), Some(port)) => write!(f, "[{prefix}]:{port}"),
        }
    }
}

/// The errors say what was expected, here and below.
fn protocol(text: &str) -> Result<Protocol, String> {
    let expected = || "a protocol such as tcp, udp, icmp or 47".to_owned();
    Protocol::parse(text).ok_or_else(expected)
}

fn kind(text: &str) -> Result<EventKind, String> {
    let mut kinds = [EventKind::Create, EventKind::Delete, EventKind::Flow].into_iter();
    let named = kinds.find(|kind| kind_name(*kind) == text);
    named.ok_or_else(|| "create, delete or flow".to_owned())
}

fn kinds() -> impl TypedValueParser<Value = EventKind> {
    PossibleValuesParser::new(["create", "delete", "flow"]).try_map(|text| kind(&text))
}

fn zone(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "a zone, which is a number from 0 to 65535".to_owned())
}

/// The name in the records.
const fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Create => "create",
        EventKind::Delete => "delete",
        EventKind::Flow => "flow",
    }
}

/// Whether one of the values matches; no values mean no condition.
fn any<T>(values: &[T], matches: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(matches)
}

/// The port follows the only colon, or a bracket: other colons belong to an IPv6 address.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest
            .split_once(']')
            .filter(|(inside, _)| !inside.is_empty())?;
        if after.is_empty() {
            return Some((inside, None));
        }
        return Some((inside, Some(after.strip_prefix(':')?)));
    }
    match text.split_once(':') {
        Some((prefix, port)) if !port.contains(':') => Some((prefix, Some(port))),
        _ => Some((text, None)),
    }
}

fn write_all(f: &mut fmt::Formatter<'_>, name: &str, values: &[impl fmt::Display]) -> fmt::Result {
    values
        .iter()
        .try_for_each(|value| write!(f, " {name}={value}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::session::{Provenance, Session, Zone, ZoneDirection};
    use crate::time::Wall;

    fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
        Tuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            src_port,
            dst_port,
        }
    }

    /// 10.1.2.3:40000 to 198.51.100.7:443, as 203.0.113.9:50001.
    fn event(protocol: Protocol) -> NatEvent {
        let session = Session {
            original: tuple("10.1.2.3", 40_000, "198.51.100.7", 443),
            reply: tuple("198.51.100.7", 443, "203.0.113.9", 50_001),
            protocol,
            zone: Zone {
                id: 7,
                direction: ZoneDirection::Both,
            },
            id: None,
            mark: 0x12,
        };
        NatEvent::create(session, Wall::default(), Provenance::Kernel)
    }

    #[test]
    fn each_condition_looks_at_its_own_end() {
        let event = event(Protocol::TCP);
        let accepted = [
            "",
            "src=10.0.0.0/8",
            "src=10.1.2.3",
            "src=10.1.2.3:40000",
            "src=:40000",
            "dst=198.51.100.0/24:443",
            "dst=:443",
            "post=203.0.113.9",
            "post=203.0.113.9:50001",
            "post=203.0.113.0/24",
            "post=198.51.100.7:443",
            "proto=tcp",
            "proto=6",
            "mark=0x12",
            "mark=0x10/0x10",
            "zone=7",
            "event=create",
        ];
        for words in accepted {
            assert!(Filter::parse(words).unwrap().accepts(&event), "{words}");
        }
        let refused = [
            "src=203.0.113.9",
            "src=10.1.2.3:443",
            "src=:443",
            "src=::/0",
            "dst=10.1.2.3",
            "dst=198.51.100.7:40000",
            "post=10.1.2.3",
            "post=203.0.113.9:443",
            "post=203.0.113.9:40000",
            "proto=udp",
            "mark=0x2",
            "mark=0",
            "zone=0",
            "event=delete",
        ];
        for words in refused {
            assert!(!Filter::parse(words).unwrap().accepts(&event), "{words}");
        }
    }

    #[test]
    fn values_of_one_kind_are_alternatives_and_kinds_have_to_hold_together() {
        let event = event(Protocol::TCP);
        let accepts = |words: &str| Filter::parse(words).unwrap().accepts(&event);
        assert!(accepts("proto=udp proto=tcp"));
        assert!(accepts("proto=tcp src=10.0.0.0/8 src=192.168.0.0/16"));
        assert!(!accepts("proto=tcp src=192.168.0.0/16"));
    }

    #[test]
    fn the_identifier_of_icmp_is_a_source_port_and_its_type_no_port_at_all() {
        let mut event = event(Protocol::ICMP);
        event.session.reply.src_port = 50_001;
        event.session.original.dst_port = 0x0800;
        let accepts = |words: &str| Filter::parse(words).unwrap().accepts(&event);
        assert!(accepts("src=10.1.2.3:40000 dst=198.51.100.7"));
        assert!(accepts("post=203.0.113.9:50001"));
        assert!(!accepts("dst=:2048"));
        assert!(!accepts("post=:2048"));
    }

    #[test]
    fn a_destination_that_was_translated_is_post_nat() {
        let mut event = event(Protocol::TCP);
        event.session.original.dst = "203.0.113.9".parse().unwrap();
        event.session.reply = tuple("192.168.1.5", 8443, "10.1.2.3", 40_000);
        let accepts = |words: &str| Filter::parse(words).unwrap().accepts(&event);
        assert!(accepts("dst=203.0.113.9:443 post=192.168.1.5:8443"));
        assert!(!accepts("dst=192.168.1.5"));
    }

    #[test]
    fn ends_of_every_form_are_read_and_written() {
        let forms = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3:0", "10.1.2.3/32:0"),
            ("10.0.0.0/8:65535", "10.0.0.0/8:65535"),
            (":443", ":443"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("[2001:db8::1]", "2001:db8::1/128"),
            ("[2001:db8::1]:443", "[2001:db8::1/128]:443"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("::", "::/128"),
        ];
        for (text, written) in forms {
            let end = End::from_str(text).unwrap();
            assert_eq!(end.to_string(), written);
            assert_eq!(End::from_str(written), Ok(end));
        }
        let wrong = [
            "",
            ":",
            "x",
            "10.1.2.3:",
            "10.1.2.3:65536",
            "10.1.2.3:+1",
            "10.1.2.3:x",
            "[::1",
            "[::1]443",
            "[]:443",
            "10.1.2.3/33",
            "10.1.2.3/8",
            "1:2:3",
        ];
        for text in wrong {
            assert!(End::from_str(text).is_err(), "{text}");
        }
        let more = End::from_str("10.1.2.3/8:1").unwrap_err();
        assert_eq!(more, "no bits set beyond the prefix, \"10.0.0.0/8\"");
    }

    #[test]
    fn a_filter_reads_back_what_it_writes() {
        let words = " src=10.0.0.0/8 src=:53 dst=[2001:db8::/32]:443 post=203.0.113.9/32 proto=tcp proto=253 \
                     mark=0x10/0xf0 zone=7 event=delete event=flow";
        assert_eq!(Filter::parse(words).unwrap().to_string(), words);
        assert_eq!(Filter::default().to_string(), "");
    }

    #[test]
    fn what_is_wrong_in_a_request_is_named() {
        let error = |words| Filter::parse(words).unwrap_err();
        assert_eq!(error("all"), "expected NAME=VALUE, found \"all\"");
        assert_eq!(
            error("proto=tcp host=10.0.0.1"),
            "expected src, dst, post, proto, mark, zone or event, found \"host=10.0.0.1\""
        );
        assert_eq!(
            error("event=gap"),
            "expected create, delete or flow, found \"event=gap\""
        );
        assert_eq!(
            error(&"zone=1 ".repeat(17)),
            "expected at most 16 values in a filter, found 17"
        );
        assert!(Filter::parse(&"zone=1 ".repeat(16)).is_ok());
    }
}
