//! The records that arrived at each output, read by the RFCs and the manual, without the code that wrote them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::ledger::Key;
use crate::support::collector::Datagram;
use crate::support::record::{Fields, parse_json, parse_text};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Event {
    Create,
    Delete,
}

/// A record as one output delivered it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Item {
    Event {
        event: Event,
        protocol: u8,
        source: IpAddr,
        key: Key,
        /// The data that a second copy of the record must repeat: its time, and the id where the format has one.
        identity: String,
        inferred: bool,
    },
    Gap {
        cause: String,
        lost: Option<u64>,
    },
}

/// The header of one message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    pub version: u16,
    pub from: SocketAddr,
    pub sequence: u32,
    /// Its increment of the sequence: flows (v5), messages (v9), data records (IPFIX).
    pub counts: u32,
    pub begins_with_templates: bool,
}

/// A format of lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lines {
    Json,
    Rfc5424,
    Rfc3164,
    Journal,
}

const UDP: u8 = 17;

/// # Panics
/// When it is not a line of the format.
pub fn line(format: Lines, line: &str) -> Item {
    let told = |line: &str, mark: &str| line.split_once(mark).unwrap().1.to_owned();
    match format {
        Lines::Json => of_fields(&parse_json(line)),
        Lines::Rfc3164 => of_fields(&parse_text(&told(line, "]: "))),
        Lines::Journal => {
            let fields = line
                .lines()
                .filter_map(|line| line.strip_prefix("NAT_")?.split_once('='));
            let fields = fields.map(|(key, value)| (key.to_lowercase(), value.to_owned()));
            of_fields(&fields.collect())
        }
        Lines::Rfc5424 => match line.split(' ').nth(5) {
            Some("GAP") => of_fields(&parse_text(&told(line, " GAP - "))),
            Some(id) => {
                let parameter = |name: &str| {
                    let value = told(line, &format!(" {name}=\""));
                    value.split_once('"').unwrap().0.to_owned()
                };
                let port = |name: &str| parameter(name).parse().unwrap();
                Item::Event {
                    event: if id == "SADD" {
                        Event::Create
                    } else {
                        assert_eq!(id, "SDEL");
                        Event::Delete
                    },
                    protocol: parameter("PROTO").parse().unwrap(),
                    source: parameter("ISADDR").parse().unwrap(),
                    key: (port("ISPORT"), port("IDPORT")),
                    identity: line.split(' ').nth(1).unwrap().to_owned(),
                    inferred: line.ends_with(" inferred=yes"),
                }
            }
            None => panic!("{line:?}"),
        },
    }
}

fn of_fields(fields: &Fields) -> Item {
    if fields["event"] == "gap" {
        return Item::Gap {
            cause: fields["cause"].clone(),
            lost: fields.get("lost").map(|lost| lost.parse().unwrap()),
        };
    }
    assert_eq!(fields["proto"], "udp");
    let port = |name: &str| fields[name].parse().unwrap();
    Item::Event {
        event: match fields["event"].as_str() {
            "create" => Event::Create,
            "delete" => Event::Delete,
            other => panic!("{other}"),
        },
        protocol: UDP,
        source: fields["pre_src"].parse().unwrap(),
        key: (port("pre_sport"), port("pre_dport")),
        identity: format!("{} {:?}", fields["time"], fields.get("id")),
        inferred: fields.contains_key("inferred"),
    }
}

/// Reads the messages of one collector: NetFlow v5, RFC 3954 and RFC 7011.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Elements and lengths by template.
    templates: BTreeMap<u16, Vec<(u16, usize)>>,
}

impl Decoder {
    /// # Panics
    /// When the message is malformed, or has a set without an earlier template.
    pub fn message(&mut self, datagram: &Datagram, items: &mut Vec<Item>) -> Header {
        let bytes = datagram.payload.as_slice();
        let version = half(bytes, 0);
        let (sequence, sets) = match version {
            5 => (word(bytes, 16), None),
            9 => (word(bytes, 12), Some(20)),
            10 => (word(bytes, 8), Some(16)),
            other => panic!("version {other}"),
        };
        let counts = match sets {
            None => netflow5(bytes, items),
            Some(sets) => {
                // A collector in a new session knows no template of the one before.
                if sequence == 0 {
                    self.templates.clear();
                }
                let records = self.sets(bytes, sets, version, items);
                if version == 9 { 1 } else { records }
            }
        };
        Header {
            version,
            from: datagram.from,
            sequence,
            counts,
            begins_with_templates: sets.is_some_and(|sets| half(bytes, sets) < 4),
        }
    }

    fn sets(&mut self, bytes: &[u8], first: usize, version: u16, items: &mut Vec<Item>) -> u32 {
        let (mut at, mut records) = (first, 0);
        while at < bytes.len() {
            let (id, end) = (half(bytes, at), at + usize::from(half(bytes, at + 2)));
            let set = &bytes[at + 4..end];
            match id {
                0..4 => self.templates(set, id, version),
                _ => records += self.data(set, id, items),
            }
            at = end;
        }
        records
    }

    fn templates(&mut self, set: &[u8], id: u16, version: u16) {
        let is_options = matches!(id, 1 | 3);
        let mut at = 0;
        while at + 4 <= set.len() && half(set, at) >= 256 {
            let template = half(set, at);
            let (count, header) = match (is_options, version) {
                (false, _) => (usize::from(half(set, at + 2)), 4),
                // The lengths of scope and options, in octets (RFC 3954 section 6.1).
                (true, 9) => (usize::from(half(set, at + 2) + half(set, at + 4)) / 4, 6),
                (true, _) => (usize::from(half(set, at + 2)), 6),
            };
            let fields = (0..count).map(|index| {
                let field = at + header + 4 * index;
                (half(set, field), usize::from(half(set, field + 2)))
            });
            let fields = fields.collect();
            if let Some(known) = self.templates.insert(template, fields) {
                assert_eq!(known, self.templates[&template], "an id with two meanings");
            }
            at += header + 4 * count;
        }
    }

    fn data(&self, set: &[u8], id: u16, items: &mut Vec<Item>) -> u32 {
        let template = &self.templates[&id];
        let length: usize = template.iter().map(|(_, length)| length).sum();
        let records = set.chunks_exact(length);
        // Padding is shorter than any record.
        assert!(records.remainder().len() < 4);
        let mut count = 0;
        for record in records {
            count += 1;
            let mut fields = BTreeMap::new();
            let mut rest = record;
            for &(element, length) in template {
                let (value, more) = rest.split_at(length);
                rest = more;
                let number = value
                    .iter()
                    .fold(0, |sum, octet| sum << 8 | u64::from(*octet));
                fields.insert(element, number);
            }
            items.extend(of_elements(&fields));
        }
        count
    }
}

/// A NAT event or a gap. The exporter's statistics are neither.
fn of_elements(fields: &BTreeMap<u16, u64>) -> Option<Item> {
    const GAPS: [&str; 11] = [
        "",
        "restart",
        "overflow",
        "table-full",
        "insert-failed",
        "clock-step",
        "undelivered",
        "tracking-off",
        "undecoded",
        // This is an inference and not a gap.
        "",
        "expired",
    ];
    if let Some(event) = fields.get(&230) {
        return Some(Item::Event {
            event: match event {
                4 => Event::Create,
                5 => Event::Delete,
                other => panic!("natEvent {other}"),
            },
            protocol: fields[&4] as u8,
            source: Ipv4Addr::from(fields[&8] as u32).into(),
            key: (fields[&7] as u16, fields[&11] as u16),
            identity: fields[&323].to_string(),
            inferred: fields.contains_key(&143),
        });
    }
    let process = fields.get(&143).or(fields.get(&144))?;
    // The statistics of the exporter have no interval.
    let _ = fields.get(&152)?;
    Some(Item::Gap {
        cause: GAPS[*process as usize].to_owned(),
        lost: fields.get(&3).or(fields.get(&133)).copied(),
    })
}

/// Dummy flows, as ipt_NETFLOW makes them. Returns how many there were.
fn netflow5(bytes: &[u8], items: &mut Vec<Item>) -> u32 {
    let count = half(bytes, 2);
    let flows = bytes[24..].chunks_exact(48);
    assert_eq!(flows.len(), usize::from(count));
    for flow in flows {
        items.push(Item::Event {
            event: match flow[37] {
                0x12 => Event::Create,
                0x05 => Event::Delete,
                other => panic!("flags {other:#x}"),
            },
            protocol: flow[38],
            source: Ipv4Addr::from(word(flow, 0)).into(),
            key: (half(flow, 32), half(flow, 34)),
            identity: event_time(bytes, word(flow, 24)).to_string(),
            inferred: false,
        });
    }
    count.into()
}

/// Milliseconds since 1970 of an uptime, as collectors compute it from the header's two clocks.
fn event_time(header: &[u8], uptime: u32) -> u64 {
    let unix = u64::from(word(header, 8)) * 1000 + u64::from(word(header, 12)) / 1_000_000;
    unix - u64::from(word(header, 4).wrapping_sub(uptime))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}
