//! A finished session as the archive keeps it, and its canonical octets.
//!
//! Times are milliseconds since 1970, as in IPFIX; a finer start or end is rounded down. The canonical form is what the
//! spool holds and what the row root of a sealed file is made of, so it never changes for a given version of the schema.
//! Big endian, no padding:
//!
//! | octets | |
//! |---|---|
//! | 1 | flags: 1 IPv6, 2 inferred, 4 has a start, 8 has counters, 16 has a translated destination, 32 has a mark, 64 has a zone |
//! | 1 | protocol |
//! | 6 | end |
//! | 6 | start, where the flags say so |
//! | 4 or 16, and 2 | post-NAT source and port |
//! | the same | pre-NAT source and port |
//! | the same | pre-NAT destination and port |
//! | the same | post-NAT destination and port, where the flags say so; else they are those before NAT |
//! | 4, 2 | mark and zone, each where the flags say so |
//! | | packets and octets of the original direction, then of the reply (LEB128 each), where the flags say so |
//!
//! An IPv4 session with counters takes some 40 octets, so that its leaf hash (RFC 9162 section 2.1.1) is one block of
//! SHA-256. Whatever the octets, decoding does not panic, and decoded octets encode to themselves.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::session::{Counters, EventKind, NatEvent, Protocol, Provenance, Totals, Tuple};
use crate::time::Wall;
use crate::wire::record::{Malformed, Reader, put_number};

/// A time in milliseconds since 1970, below 2^48. In JSON it is that of [`Wall`].
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(from = "Wall", into = "Wall")]
pub struct Millis(u64);

/// A finished session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row {
    /// The packet as the gateway received it, and as it left. Both are of one address family.
    pub pre: Tuple,
    pub post: Tuple,
    pub protocol: Protocol,
    /// `None` when nothing known bounds it.
    pub start: Option<Millis>,
    pub end: Millis,
    pub totals: Option<Totals>,
    pub mark: u32,
    pub zone: u16,
    pub provenance: Provenance,
}

/// The part of a session that the sums of a day need.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Brief {
    pub post_src: IpAddr,
    pub post_sport: u16,
    pub protocol: Protocol,
    /// The subscriber.
    pub pre_src: IpAddr,
    /// Whether the source is translated.
    pub has_snat: bool,
    pub start: Option<Millis>,
    /// That of an open session is the last time at which it is known to have been open.
    pub end: Millis,
    /// Of both directions.
    pub octets: Option<u64>,
    pub is_open: bool,
}

/// The order of rows in a file: a question names the public address and port, and often the protocol.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    pub post_src: IpAddr,
    pub post_sport: u16,
    pub protocol: u8,
    /// A row without a start comes first.
    pub start: Option<Millis>,
    pub end: Millis,
}

const IPV6: u8 = 1;
const INFERRED: u8 = 2;
const HAS_START: u8 = 4;
const HAS_TOTALS: u8 = 8;
const HAS_DNAT: u8 = 16;
const HAS_MARK: u8 = 32;
const HAS_ZONE: u8 = 64;

impl Millis {
    pub const MIN: Self = Self(0);

    /// The latest time.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// Later times become [`Self::MAX`].
    pub fn new(millis: u64) -> Self {
        Self(millis).min(Self::MAX)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    pub fn wall(self) -> Wall {
        Wall::from_millis(self.0)
    }
}

impl From<Wall> for Millis {
    fn from(time: Wall) -> Self {
        Self::new(time.as_millis())
    }
}

impl From<Millis> for Wall {
    fn from(time: Millis) -> Self {
        time.wall()
    }
}

impl Row {
    /// `None` unless it is a delete: nothing else says how a session ended.
    pub fn of(event: &NatEvent) -> Option<Self> {
        (event.kind == EventKind::Delete).then(|| Self {
            pre: event.session.pre_nat(),
            post: event.session.post_nat(),
            protocol: event.session.protocol,
            start: event.start.map(Millis::from),
            end: event.time.into(),
            totals: event.totals,
            mark: event.session.mark,
            zone: event.session.zone.id,
            provenance: event.provenance,
        })
    }

    pub const fn key(&self) -> Key {
        Key {
            post_src: self.post.src,
            post_sport: self.post.src_port,
            protocol: self.protocol.0,
            start: self.start,
            end: self.end,
        }
    }

    /// Whether the destination is translated as well.
    pub fn has_dnat(&self) -> bool {
        (self.pre.dst, self.pre.dst_port) != (self.post.dst, self.post.dst_port)
    }

    /// Appends the canonical octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        out.push(
            flag(self.pre.src.is_ipv6(), IPV6)
                | flag(self.provenance == Provenance::Inferred, INFERRED)
                | flag(self.start.is_some(), HAS_START)
                | flag(self.totals.is_some(), HAS_TOTALS)
                | flag(self.has_dnat(), HAS_DNAT)
                | flag(self.mark != 0, HAS_MARK)
                | flag(self.zone != 0, HAS_ZONE),
        );
        out.push(self.protocol.0);
        for time in [Some(self.end), self.start].into_iter().flatten() {
            out.extend_from_slice(&time.0.to_be_bytes()[2..]);
        }
        put_endpoint(self.post.src, self.post.src_port, out);
        put_endpoint(self.pre.src, self.pre.src_port, out);
        put_endpoint(self.pre.dst, self.pre.dst_port, out);
        if self.has_dnat() {
            put_endpoint(self.post.dst, self.post.dst_port, out);
        }
        if self.mark != 0 {
            out.extend_from_slice(&self.mark.to_be_bytes());
        }
        if self.zone != 0 {
            out.extend_from_slice(&self.zone.to_be_bytes());
        }
        for Counters { packets, octets } in self.totals.iter().flat_map(both) {
            put_number(packets, out);
            put_number(octets, out);
        }
    }

    /// Takes a row off the beginning of `octets`.
    ///
    /// # Errors
    /// When the octets there are not those of a row. `octets` is then somewhere within them.
    pub fn decode(octets: &mut &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(octets);
        let row = Self::read(&mut reader);
        *octets = reader.0;
        row
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let [flags, protocol] = reader.take()?;
        let has = |flag| flags & flag != 0;
        let endpoint = |reader: &mut Reader<'_>| endpoint(reader, has(IPV6));
        let end = time(reader)?;
        let start = has(HAS_START).then(|| time(reader)).transpose()?;
        let post_src = endpoint(reader)?;
        let pre_src = endpoint(reader)?;
        let pre_dst = endpoint(reader)?;
        let dnat = has(HAS_DNAT).then(|| endpoint(reader)).transpose()?;
        let mark = has(HAS_MARK).then(|| reader.take()).transpose()?;
        let zone = has(HAS_ZONE).then(|| reader.take()).transpose()?;
        let (mark, zone) = (mark.map(u32::from_be_bytes), zone.map(u16::from_be_bytes));
        let totals = has(HAS_TOTALS).then(|| reader.totals()).transpose()?;
        if flags > 127 || dnat == Some(pre_dst) || mark == Some(0) || zone == Some(0) {
            return Err(Malformed("the flags of a row say what it does not have"));
        }
        Ok(Self {
            pre: tuple(pre_src, pre_dst),
            post: tuple(post_src, dnat.unwrap_or(pre_dst)),
            protocol: Protocol(protocol),
            start,
            end,
            totals,
            mark: mark.unwrap_or_default(),
            zone: zone.unwrap_or_default(),
            provenance: if has(INFERRED) {
                Provenance::Inferred
            } else {
                Provenance::Kernel
            },
        })
    }
}

impl From<&Row> for Brief {
    fn from(row: &Row) -> Self {
        let octets = |totals: Totals| totals.original.octets.saturating_add(totals.reply.octets);
        Self {
            post_src: row.post.src,
            post_sport: row.post.src_port,
            protocol: row.protocol,
            pre_src: row.pre.src,
            has_snat: (row.pre.src, row.pre.src_port) != (row.post.src, row.post.src_port),
            start: row.start,
            end: row.end,
            octets: row.totals.map(octets),
            is_open: false,
        }
    }
}

impl Brief {
    /// From its start, or its end where that is all that is known, to its end.
    pub fn life(&self) -> RangeInclusive<Millis> {
        self.start.map_or(self.end, |start| start.min(self.end))..=self.end
    }
}

fn time(reader: &mut Reader<'_>) -> Result<Millis, Malformed> {
    let [a, b, c, d, e, f] = reader.take()?;
    Ok(Millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f])))
}

fn endpoint(reader: &mut Reader<'_>, ipv6: bool) -> Result<(IpAddr, u16), Malformed> {
    let address = if ipv6 {
        IpAddr::from(reader.take::<16>()?)
    } else {
        IpAddr::from(reader.take::<4>()?)
    };
    Ok((address, u16::from_be_bytes(reader.take()?)))
}

const fn tuple(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Tuple {
    Tuple {
        src: src.0,
        dst: dst.0,
        src_port: src.1,
        dst_port: dst.1,
    }
}

const fn both(totals: &Totals) -> [Counters; 2] {
    [totals.original, totals.reply]
}

fn put_endpoint(address: IpAddr, port: u16, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
    out.extend_from_slice(&port.to_be_bytes());
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::wire::samples::{delete, sessions, snat};

    /// Any row that a gateway can make.
    pub(crate) fn rows() -> impl Strategy<Value = Row> {
        let counters =
            any::<(u64, u64)>().prop_map(|(packets, octets)| Counters { packets, octets });
        let totals =
            (counters.clone(), counters).prop_map(|(original, reply)| Totals { original, reply });
        let times = (0_u64..1 << 48, prop::option::of(0_u64..1 << 48));
        let rest = (prop::option::of(totals), any::<bool>());
        (sessions(), times, rest).prop_map(|(session, (end, start), (totals, inferred))| Row {
            pre: session.pre_nat(),
            post: session.post_nat(),
            protocol: session.protocol,
            start: start.map(Millis::new),
            end: Millis::new(end),
            totals,
            mark: session.mark,
            zone: session.zone.id,
            provenance: if inferred {
                Provenance::Inferred
            } else {
                Provenance::Kernel
            },
        })
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were_encoded(rows in prop::collection::vec(rows(), 0..5)) {
            let mut octets = Vec::new();
            rows.iter().for_each(|row| row.encode(&mut octets));
            let mut rest = octets.as_slice();
            for row in rows {
                prop_assert_eq!(Row::decode(&mut rest), Ok(row));
            }
            prop_assert_eq!(rest, b"");
        }

        #[test]
        fn octets_that_decode_are_those_that_the_row_encodes_to(
            mut octets in prop::collection::vec(any::<u8>(), 0..120), flags in any::<u8>(),
        ) {
            octets.insert(0, flags);
            let mut rest = octets.as_slice();
            if let Ok(row) = Row::decode(&mut rest) {
                let mut again = Vec::new();
                row.encode(&mut again);
                prop_assert_eq!(&again, &octets[..octets.len() - rest.len()]);
            }
        }
    }

    #[test]
    fn a_usual_row_fits_one_block_of_sha_256() {
        let mut event = delete(snat(), 1_000, 2_000);
        let counters = Counters {
            packets: 120,
            octets: 1 << 20,
        };
        event.totals = Some(Totals {
            original: counters,
            reply: counters,
        });
        let mut octets = Vec::new();
        Row::of(&event).unwrap().encode(&mut octets);
        assert_eq!(octets.len(), 40);
    }
}
