//! A session as bytes, as it stands in a segment's blob.
//!
//! Little endian, addresses in network order, no padding. 52 octets for IPv4 and 100 for IPv6:
//!
//! | octets | |
//! |---|---|
//! | 1 | flags: 1 IPv6, 2 inferred, 4 has an id, 8 and 16 the zone's direction (0 both, 1 original, 2 reply) |
//! | 1 | protocol |
//! | 2 | zone |
//! | 8 | row |
//! | 8 | begun, nanoseconds since 1970 (UTC) |
//! | 4 | id |
//! | 4 | mark |
//! | 2 × 4 | ports: original source and destination, reply source and destination |
//! | 4 or 16 × 4 | addresses, in the same order |
//!
//! Whatever the bytes, decoding does not panic.

use std::net::IpAddr;

use crate::engine::{Row, StoredSession};
use crate::session::{Protocol, Provenance, Session, Tuple, Zone, ZoneDirection};
use crate::time::Wall;

const IPV6: u8 = 1;
const INFERRED: u8 = 2;
const HAS_ID: u8 = 4;
const DIRECTION_SHIFT: u8 = 3;
const KNOWN_FLAGS: u8 = 0x1f;

/// Rows of this run have to lie above: no daemon counts as far.
const LAST_ROW: i64 = i64::MAX / 2;

/// Octets before the addresses.
const FIXED: usize = 36;
pub(super) const IPV4_LEN: usize = FIXED + 4 * 4;
const IPV6_LEN: usize = FIXED + 4 * 16;

/// Appends the session to `out`.
pub(super) fn encode(stored: &StoredSession, out: &mut Vec<u8>) {
    let session = &stored.session;
    let mut flags = (session.zone.direction as u8) << DIRECTION_SHIFT;
    if !session.is_ipv4() {
        flags |= IPV6;
    }
    if stored.provenance == Provenance::Inferred {
        flags |= INFERRED;
    }
    if session.id.is_some() {
        flags |= HAS_ID;
    }
    out.extend_from_slice(&[flags, session.protocol.0]);
    out.extend_from_slice(&session.zone.id.to_le_bytes());
    out.extend_from_slice(&stored.row.0.to_le_bytes());
    out.extend_from_slice(&stored.begun.as_nanos().to_le_bytes());
    out.extend_from_slice(&session.id.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&session.mark.to_le_bytes());
    for tuple in [&session.original, &session.reply] {
        out.extend_from_slice(&tuple.src_port.to_le_bytes());
        out.extend_from_slice(&tuple.dst_port.to_le_bytes());
    }
    for tuple in [&session.original, &session.reply] {
        for address in [tuple.src, tuple.dst] {
            match address {
                IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
            }
        }
    }
}

/// The sessions of a blob, each with its bytes. The first that cannot be understood ends it, with a reason.
pub(super) struct Sessions<'a> {
    rest: &'a [u8],
}

impl<'a> Sessions<'a> {
    pub(super) const fn new(blob: &'a [u8]) -> Self {
        Self { rest: blob }
    }
}

impl<'a> Iterator for Sessions<'a> {
    type Item = Result<(StoredSession, &'a [u8]), String>;

    fn next(&mut self) -> Option<Self::Item> {
        let &flags = self.rest.first()?;
        let length = if flags & IPV6 == 0 {
            IPV4_LEN
        } else {
            IPV6_LEN
        };
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            let left = self.rest.len();
            self.rest = &[];
            return Some(Err(format!(
                "a session of {length} octets expected, {left} found"
            )));
        };
        self.rest = rest;
        let decoded = decode(bytes);
        if decoded.is_err() {
            self.rest = &[];
        }
        Some(decoded.map(|session| (session, bytes)))
    }
}

/// Decodes a session of the length that its flags call for.
fn decode(bytes: &[u8]) -> Result<StoredSession, String> {
    let mut reader = Reader(bytes);
    let [flags, protocol] = reader.take()?;
    if flags & !KNOWN_FLAGS != 0 {
        return Err(format!("unknown flags {flags:#04x}"));
    }
    let direction = match flags >> DIRECTION_SHIFT {
        0 => ZoneDirection::Both,
        1 => ZoneDirection::Original,
        2 => ZoneDirection::Reply,
        other => return Err(format!("unknown zone direction {other}")),
    };
    let zone = u16::from_le_bytes(reader.take()?);
    let row = i64::from_le_bytes(reader.take()?);
    if !(0..=LAST_ROW).contains(&row) {
        return Err(format!("row {row} is out of range"));
    }
    let begun = u64::from_le_bytes(reader.take()?);
    let id = u32::from_le_bytes(reader.take()?);
    let mark = u32::from_le_bytes(reader.take()?);
    let mut ports = [0; 4];
    for port in &mut ports {
        *port = u16::from_le_bytes(reader.take()?);
    }
    let mut address = || {
        if flags & IPV6 == 0 {
            reader.take::<4>().map(IpAddr::from)
        } else {
            reader.take::<16>().map(IpAddr::from)
        }
    };
    let mut tuple = |src_port, dst_port| {
        Ok::<_, String>(Tuple {
            src: address()?,
            dst: address()?,
            src_port,
            dst_port,
        })
    };
    Ok(StoredSession {
        row: Row(row),
        session: Session {
            original: tuple(ports[0], ports[1])?,
            reply: tuple(ports[2], ports[3])?,
            protocol: Protocol(protocol),
            zone: Zone {
                id: zone,
                direction,
            },
            id: (flags & HAS_ID != 0).then_some(id),
            mark,
        },
        begun: Wall::from_nanos(begun),
        provenance: if flags & INFERRED == 0 {
            Provenance::Kernel
        } else {
            Provenance::Inferred
        },
    })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (first, rest) = self.0.split_first_chunk().ok_or("too short")?;
        self.0 = rest;
        Ok(*first)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn stored() -> impl Strategy<Value = StoredSession> {
        let v4 = any::<[u32; 4]>().prop_map(|a| a.map(|a| IpAddr::from(Ipv4Addr::from(a))));
        let v6 = any::<[u128; 4]>().prop_map(|a| a.map(|a| IpAddr::from(Ipv6Addr::from(a))));
        let directions = [
            ZoneDirection::Both,
            ZoneDirection::Original,
            ZoneDirection::Reply,
        ];
        let rest = (
            any::<[u16; 4]>(),
            any::<(u8, u16, Option<u32>, u32)>(),
            prop::sample::select(directions.to_vec()),
            (0..=LAST_ROW, any::<u64>(), any::<bool>()),
        );
        (prop_oneof![v4, v6], rest).prop_map(|(addresses, (ports, ids, direction, life))| {
            let tuple = |at: usize| Tuple {
                src: addresses[at],
                dst: addresses[at + 1],
                src_port: ports[at],
                dst_port: ports[at + 1],
            };
            let (protocol, zone, id, mark) = ids;
            let (row, begun, inferred) = life;
            StoredSession {
                row: Row(row),
                session: Session {
                    original: tuple(0),
                    reply: tuple(2),
                    protocol: Protocol(protocol),
                    zone: Zone {
                        id: zone,
                        direction,
                    },
                    id,
                    mark,
                },
                begun: Wall::from_nanos(begun),
                provenance: if inferred {
                    Provenance::Inferred
                } else {
                    Provenance::Kernel
                },
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(sessions in proptest::collection::vec(stored(), 0..5)) {
            let mut blob = Vec::new();
            for session in &sessions {
                encode(session, &mut blob);
            }
            let decoded: Vec<_> = Sessions::new(&blob).map(|session| session.unwrap().0).collect();
            prop_assert_eq!(decoded, sessions);
        }

        #[test]
        fn random_bytes_never_panic(blob in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Sessions::new(&blob).count();
        }
    }

    #[test]
    fn the_lengths_are_those_of_the_table() {
        assert_eq!((IPV4_LEN, IPV6_LEN), (52, 100));
    }
}
