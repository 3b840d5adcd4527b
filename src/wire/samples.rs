//! Sessions and events for the tests of the codecs and of the packer.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::session::{
    Counters, EventKind, NatEvent, Protocol, Provenance, Record, Session, SignedCheckpoint, Totals,
    Tuple, Zone, ZoneDirection,
};
use crate::time::Wall;

pub(crate) fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
    Tuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        src_port,
        dst_port,
    }
}

pub(crate) fn session(protocol: Protocol, original: Tuple, reply: Tuple) -> Session {
    Session {
        original,
        reply,
        protocol,
        zone: Zone::default(),
        id: Some(7),
        mark: 0,
    }
}

/// A client behind 203.0.113.9, as in the reference captures.
pub(crate) fn snat() -> Session {
    session(
        Protocol::TCP,
        tuple("10.1.2.3", 40356, "203.0.113.7", 443),
        tuple("203.0.113.7", 443, "203.0.113.9", 50520),
    )
}

/// A published server, 10.0.0.80:8080 behind 203.0.113.9:80.
pub(crate) fn dnat() -> Session {
    session(
        Protocol::TCP,
        tuple("198.51.100.5", 33000, "203.0.113.9", 80),
        tuple("10.0.0.80", 8080, "198.51.100.5", 33000),
    )
}

/// A client that reaches a server of its own network by the public address.
pub(crate) fn hairpin() -> Session {
    session(
        Protocol::UDP,
        tuple("10.0.0.3", 5000, "203.0.113.9", 53),
        tuple("10.0.0.53", 5353, "10.0.0.1", 6000),
    )
}

pub(crate) fn untranslated() -> Session {
    session(
        Protocol::UDP,
        tuple("10.0.0.3", 5000, "198.51.100.5", 53),
        tuple("198.51.100.5", 53, "10.0.0.3", 5000),
    )
}

/// An echo request (type 8, code 0) whose identifier the translation changed, and its reply (type 0).
pub(crate) fn icmp() -> Session {
    session(
        Protocol::ICMP,
        tuple("10.1.2.3", 321, "203.0.113.7", 8 * 256),
        tuple("203.0.113.7", 654, "203.0.113.9", 0),
    )
}

/// An echo request that nothing translates, and its reply.
pub(crate) fn ping() -> Session {
    session(
        Protocol::ICMP,
        tuple("10.0.0.3", 5, "198.51.100.5", 8 * 256),
        tuple("198.51.100.5", 5, "10.0.0.3", 0),
    )
}

pub(crate) fn gre() -> Session {
    session(
        Protocol::GRE,
        tuple("10.1.2.3", 0x1111, "203.0.113.7", 0x2222),
        tuple("203.0.113.7", 0x2222, "203.0.113.9", 0x1111),
    )
}

pub(crate) fn nat66() -> Session {
    session(
        Protocol::TCP,
        tuple("fd00::3", 40000, "2001:db8:7::7", 443),
        tuple("2001:db8:7::7", 443, "2001:db8:9::9", 50000),
    )
}

pub(crate) fn create(session: Session, at: u64) -> NatEvent {
    NatEvent::create(session, Wall::from_millis(at), Provenance::Kernel)
}

/// The end of a session at `at` ms, without counters.
pub(crate) fn delete(session: Session, start: u64, at: u64) -> NatEvent {
    NatEvent {
        kind: EventKind::Delete,
        start: Some(Wall::from_millis(start)),
        ..create(session, at)
    }
}

pub(crate) fn checkpoint(at: u64) -> Record {
    Record::Checkpoint(Box::new(SignedCheckpoint {
        time: Wall::from_millis(at),
        origin: "nattrail/gw1".to_owned(),
        size: 26,
        root: [1; 32],
        signature: [2; 68],
    }))
}

pub(crate) const fn totals(packets: [u64; 2], octets: [u64; 2]) -> Totals {
    Totals {
        original: Counters {
            packets: packets[0],
            octets: octets[0],
        },
        reply: Counters {
            packets: packets[1],
            octets: octets[1],
        },
    }
}

/// `"0a0b 0c"` as bytes.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// Any session at all.
pub(crate) fn sessions() -> impl Strategy<Value = Session> {
    let v4 = any::<[u32; 4]>().prop_map(|a| a.map(|a| IpAddr::from(Ipv4Addr::from(a))));
    let v6 = any::<[u128; 4]>().prop_map(|a| a.map(|a| IpAddr::from(Ipv6Addr::from(a))));
    let directions = [
        ZoneDirection::Both,
        ZoneDirection::Original,
        ZoneDirection::Reply,
    ];
    let ids = any::<(u8, u16, Option<u32>, u32)>();
    let direction = prop::sample::select(directions.to_vec());
    (prop_oneof![v4, v6], any::<[u16; 4]>(), ids, direction).prop_map(
        |(addresses, ports, (protocol, zone, id, mark), direction)| {
            let tuple = |at: usize| Tuple {
                src: addresses[at],
                dst: addresses[at + 1],
                src_port: ports[at],
                dst_port: ports[at + 1],
            };
            Session {
                original: tuple(0),
                reply: tuple(2),
                protocol: Protocol(protocol),
                zone: Zone {
                    id: zone,
                    direction,
                },
                id,
                mark,
            }
        },
    )
}
