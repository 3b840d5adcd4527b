//! Flows: the traffic of connections, by their packets before and after translation.

use nattrail::config::{self, Version};
use nattrail::session::{
    Counters, EndReason, EventKind, NatEvent, Protocol, Provenance, Record, Session, Totals, Zone,
};
use nattrail::time::Wall;

use crate::tools::{Pcap, have, through_nfdump};
use crate::{BEGIN, END, START, VERSIONS, collector, lines, tuple};

fn flows(version: Version) -> config::Collector {
    config::Collector {
        events: false,
        flow: true,
        mtu: 9000,
        ..collector(version)
    }
}

/// The ends of connections: TCP behind source NAT with a mark, UDP without NAT, an echo with a translated identifier, and TCP
/// over IPv6 to a translated destination. The first one has counters of more than 32 bits.
fn connections() -> Vec<Record> {
    let session = |protocol, original, reply, mark| Session {
        original,
        reply,
        protocol,
        zone: Zone::default(),
        id: Some(4_000_000_001),
        mark,
    };
    let sessions = [
        session(
            Protocol::TCP,
            tuple("10.1.2.3", 40356, "203.0.113.7", 443),
            tuple("203.0.113.7", 443, "203.0.113.9", 50520),
            0x2a,
        ),
        session(
            Protocol::UDP,
            tuple("192.0.2.1", 5000, "198.51.100.5", 53),
            tuple("198.51.100.5", 53, "192.0.2.1", 5000),
            0,
        ),
        session(
            Protocol::ICMP,
            tuple("10.1.2.3", 321, "203.0.113.7", 8 * 256),
            tuple("203.0.113.7", 654, "203.0.113.9", 0),
            0,
        ),
        session(
            Protocol::TCP,
            tuple("2001:db8::5", 33000, "2001:db8:9::9", 80),
            tuple("fd00::80", 8080, "2001:db8::5", 33000),
            0,
        ),
    ];
    let counters = [
        [(4_000_000, 6_000_000_000), (8, 436)],
        [(1, 60), (2, 120)],
        [(3, 252), (3, 253)],
        [(7, 700), (5, 5000)],
    ];
    let end = |(session, [original, reply]): (Session, [(u64, u64); 2])| {
        let count = |(packets, octets)| Counters { packets, octets };
        let begun = Wall::from_millis(START + 123);
        Record::Event(NatEvent {
            kind: EventKind::Delete,
            time: Wall::from_millis(START + 4567),
            totals: Some(Totals {
                original: count(original),
                reply: count(reply),
            }),
            end_reason: Some(EndReason::Detected),
            ..NatEvent::create(session, begun, Provenance::Kernel)
        })
    };
    sessions.into_iter().zip(counters).map(end).collect()
}

#[test]
fn dump() {
    for version in VERSIONS {
        println!("{:#?}", through_nfdump(&flows(version), &connections()));
        println!(
            "{}",
            Pcap::new(&flows(version), &connections()).tshark(&["-V"])
        );
    }
    let c = crate::tools::capture(&flows(Version::NetflowV9), &connections());
    for args in [
        &["-o", "line"][..],
        &["-s", "srcip/bytes"],
        &["-A", "proto"],
        &["-I"],
        &["-o", "extended"],
        &["proto udp"],
    ] {
        println!("OUT {}", c.nfdump(args));
    }
    let biflow = config::Collector {
        biflow: true,
        ..flows(Version::Ipfix)
    };
    println!("{:#?}", through_nfdump(&biflow, &connections()));
    println!("{}", Pcap::new(&biflow, &connections()).tshark(&["-V"]));
}
