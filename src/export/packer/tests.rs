//! Scripts of (time, event) → bytes.
#![allow(clippy::unwrap_used)]

mod decoding;
mod gaps;
mod messages;
mod positions;
mod property;
mod traffic;

use std::slice::from_ref;

use decoding::decode;

use super::*;
use crate::config::NatEventValues;
use crate::export::encoder::Encoder;
use crate::export::samples::collector;
use crate::session::{EventKind, NatEvent, Provenance, Session};
use crate::time::Wall;
use crate::wire::samples::{
    checkpoint, create, delete, dnat, gre, hairpin, hex, icmp, nat66, snat, totals, tuple,
    untranslated,
};

const START: u64 = 1_795_206_288_000;

const ALL: [Version; 3] = [Version::NetflowV5, Version::NetflowV9, Version::Ipfix];
const TEMPLATED: [Version; 2] = [Version::NetflowV9, Version::Ipfix];

/// `millis` after the start of the test, an hour after boot.
fn at(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(START + millis),
        Uptime::from_millis(3_600_000 + millis),
    )
}

/// A packer and the queue that it fills, with records from serial 1 on.
struct Script {
    packer: Encoder,
    done: Queue<Load>,
    next: Serial,
}

impl Script {
    fn new(collector: &config::Collector) -> Self {
        Self {
            packer: Encoder::of_collector(collector, at(0)),
            done: Queue::new(),
            next: Serial(1),
        }
    }

    fn try_push(&mut self, record: &Record, millis: u64) -> Result<(), NotRepresentable> {
        let serial = self.next;
        self.next.0 += 1;
        self.packer
            .push(from_ref(record), serial, 0, at(millis), &mut self.done)
    }

    fn push(&mut self, event: &NatEvent, millis: u64) {
        self.try_push(&Record::Event(*event), millis).unwrap();
    }

    /// Sends one record in a message of its own.
    fn send(&mut self, event: &NatEvent, millis: u64) -> Vec<Vec<u8>> {
        self.push(event, millis);
        self.flush(millis)
    }

    fn timeout(&mut self, millis: u64) -> Vec<Vec<u8>> {
        self.packer.handle_timeout(at(millis), &mut self.done);
        self.take()
    }

    fn flush(&mut self, millis: u64) -> Vec<Vec<u8>> {
        self.packer.flush(at(millis), &mut self.done);
        self.take()
    }

    /// The sum of all finished messages.
    fn totals(&self) -> Amount {
        match &self.packer {
            Encoder::Flows(packer) => packer.message().totals,
            Encoder::Aggregated(_) | Encoder::Lines(_) => unreachable!("made for a collector"),
        }
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        let messages = self.take_with_loads().into_iter();
        messages.map(|(message, _)| message).collect()
    }

    fn take_with_loads(&mut self) -> Vec<(Vec<u8>, Load)> {
        let mut messages = Vec::new();
        while let Some(message) = self.done.front() {
            messages.push((message.bytes.to_vec(), message.tag));
            self.done.pop();
        }
        messages
    }
}

fn started() -> NatEvent {
    create(snat(), START)
}

fn ended(session: Session) -> NatEvent {
    NatEvent {
        totals: Some(totals([4, 3], [218, 216])),
        ..delete(session, START, START + 5)
    }
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn sequence(message: &[u8]) -> u32 {
    match message[1] {
        5 => word(message, 16),
        9 => word(message, 12),
        10 => word(message, 8),
        version => panic!("version {version}"),
    }
}

/// Create, IPv4.
const TEMPLATE_1024: &str =
    "0400 000b 0143 0008 00e6 0001 0004 0001 0008 0004 0007 0002 00e1 0004 00e3 0002
    000c 0004 000b 0002 00e2 0004 00e4 0002";
/// Delete, IPv4, with start and counters.
const TEMPLATE_1112: &str =
    "0458 0011 0143 0008 00e6 0001 0004 0001 0008 0004 0007 0002 00e1 0004 00e3 0002
    000c 0004 000b 0002 00e2 0004 00e4 0002
    0098 0008 0099 0008 00e7 0008 012a 0008 00e8 0008 012b 0008";
/// START is 0x1a1faa21280 ms.
const STATISTICS: &str =
    "000001a1faa21280 0000000000000000 0000000000000000 0000000000000000 0000000000000000";
const SESSION: &str = "06 0a010203 9da4 cb007109 c558 cb007107 01bb cb007107 01bb";
/// The times and counters of [`ended`].
const ENDED: &str = "000001a1faa21280 000001a1faa21285 00000000000000da 0000000000000004
     00000000000000d8 0000000000000003";

#[test]
fn the_first_ipfix_message_is_as_documented_byte_for_byte() {
    let mut script = Script::new(&collector(Version::Ipfix));
    script.push(&started(), 0);
    script.push(&ended(snat()), 5);
    let messages = script.flush(999);
    let expected = format!(
        "000a 01da 6b00ac90 00000000 0a0b0c0d
         0002 0034 {TEMPLATE_1024}
         0003 0022 0200 0006 0001 0095 0004 00a0 0008 0028 0008 0029 0008 002a 0008 00a6 0008
         0003 0022 0201 0006 0002 0095 0004 008f 0004 0098 0008 0099 0008 0003 0008 00a6 0008
         0003 0022 0202 0006 0002 0095 0004 008f 0004 0098 0008 0099 0008 0085 0008 00a4 0008
         0003 001e 0203 0005 0001 0090 0004 0098 0008 0099 0008 0003 0008 00a6 0008
         0003 001a 0204 0004 0002 0095 0004 008f 0004 0098 0008 0099 0008
         0200 0030 0a0b0c0d {STATISTICS}
         0400 0026 000001a1faa21280 04 {SESSION}
         0002 004c {TEMPLATE_1112}
         0458 0056 000001a1faa21285 05 {SESSION} {ENDED}"
    );
    assert_eq!(messages, [hex(&expected)]);
}

#[test]
fn the_first_netflow_9_message_is_as_documented_byte_for_byte() {
    let mut script = Script::new(&collector(Version::NetflowV9));
    script.push(&started(), 0);
    script.push(&ended(snat()), 5);
    // At 2026-11-20 20:24:48.999, 3,600.999 s after boot; the header has the next whole second.
    let messages = script.flush(999);
    let expected = format!(
        "0009 000a 0036f268 6b00ac91 00000000 0a0b0c0d
         0000 0034 {TEMPLATE_1024}
         0001 0024 0210 0004 0014 0001 0004 00a0 0008 0028 0008 0029 0008 002a 0008 00a6 0008 0000
         0001 0024 0211 0004 0014 0001 0004 008f 0004 0098 0008 0099 0008 0003 0008 00a6 0008 0000
         0001 0024 0212 0004 0014 0001 0004 008f 0004 0098 0008 0099 0008 0085 0008 00a4 0008 0000
         0001 0024 0213 0004 0014 0001 0004 0090 0004 0098 0008 0099 0008 0003 0008 00a6 0008 0000
         0001 001c 0214 0004 000c 0001 0004 008f 0004 0098 0008 0099 0008 0000
         0210 0030 00000000 {STATISTICS}
         0400 0028 000001a1faa21280 04 {SESSION} 0000
         0000 004c {TEMPLATE_1112}
         0458 0058 000001a1faa21285 05 {SESSION} {ENDED} 0000"
    );
    assert_eq!(messages, [hex(&expected)]);
}

#[test]
fn netflow_9_flows_have_both_kinds_of_times_byte_for_byte() {
    let mut script = Script::new(&config::Collector {
        events: false,
        triplet: true,
        post_nat_counters: false,
        ..collector(Version::NetflowV9)
    });
    script.send(&ended(snat()), 5);
    // A session of 50 days, reported 7 ms after its end.
    let long = NatEvent {
        start: Some(Wall::from_millis(START - 50 * 86_400_000)),
        ..ended(snat())
    };
    // SysUptime is 3,600,012 ms: 2^32 - 3,600,000 ms earlier is 7,200,012 modulo 2^32.
    let times = "006ddd0c 0036ee85 000001a0f9241a80 000001a1faa21285";
    let expected = format!(
        "0009 0003 0036f268 6b00ac91 00000001 0a0b0c0d
         04d8 00a4
         0a010203 cb007107 9da4 01bb 06 00000000000000da 0000000000000004 {times}
         cb007109 cb007107 c558 01bb 06 0000000000000000 0000000000000000 {times}
         cb007107 cb007109 01bb c558 06 00000000000000d8 0000000000000003 {times} 00"
    );
    assert_eq!(script.send(&long, 12), [hex(&expected)]);
}

/// The times of a flow that lived 5 ms from the start on.
const TIMES: [(Version, &str); 2] = [
    (Version::NetflowV9, "@3600000 @3600005 +0 +5"),
    (Version::Ipfix, "+0 +5"),
];

#[test]
fn events_and_triplets_are_read_back_by_an_independent_decoder() {
    for (version, times) in TIMES {
        let mut script = Script::new(&config::Collector {
            triplet: true,
            ..collector(version)
        });
        script.push(&started(), 0);
        script.push(&ended(snat()), 5);
        let decoded = decode(&script.flush(5));
        assert_eq!(
            decoded.flows,
            [
                "+0 Nat44SessionCreate Tcp 10.1.2.3 40356 203.0.113.9 50520 203.0.113.7 443 203.0.113.7 443",
                "+5 Nat44SessionDelete Tcp 10.1.2.3 40356 203.0.113.9 50520 203.0.113.7 443 203.0.113.7 443 \
                 +0 +5 218 4 216 3",
                &format!("10.1.2.3 203.0.113.7 40356 443 Tcp 218 4 {times}"),
                &format!("203.0.113.9 203.0.113.7 50520 443 Tcp 218 4 {times}"),
                &format!("203.0.113.7 203.0.113.9 443 50520 Tcp 216 3 {times}"),
            ]
        );
        // Create, delete, flow, statistics and four kinds of gaps.
        assert_eq!(decoded.templates, 8);
    }
}

#[test]
fn nat66_uses_the_ipv6_elements_and_the_historic_values() {
    for (version, times) in TIMES {
        let mut script = Script::new(&config::Collector {
            triplet: true,
            ..collector(version)
        });
        script.push(&ended(nat66()), 5);
        let decoded = decode(&script.flush(5));
        assert_eq!(
            decoded.flows,
            [
                "+5 NatTranslationDelete Tcp fd00::3 40000 2001:db8:9::9 50000 2001:db8:7::7 443 \
                 2001:db8:7::7 443 +0 +5 218 4 216 3",
                &format!("fd00::3 2001:db8:7::7 40000 443 Tcp 218 4 {times}"),
                &format!("2001:db8:9::9 2001:db8:7::7 50000 443 Tcp 218 4 {times}"),
                &format!("2001:db8:7::7 2001:db8:9::9 443 50000 Tcp 216 3 {times}"),
            ]
        );
    }
}

#[test]
fn a_delete_says_what_is_known_and_that_it_was_inferred() {
    let event = delete(dnat(), START, START + 7);
    let inferred = NatEvent {
        provenance: Provenance::Inferred,
        ..event
    };
    let without_start = NatEvent {
        start: None,
        totals: ended(dnat()).totals,
        ..event
    };
    for version in TEMPLATED {
        let mut script = Script::new(&collector(version));
        let session = "Nat44SessionDelete Tcp 198.51.100.5 33000 198.51.100.5 33000 203.0.113.9 80 \
             10.0.0.80 8080";
        script.push(&event, 7);
        script.push(&inferred, 7);
        script.push(&without_start, 7);
        assert_eq!(
            decode(&script.flush(7)).flows,
            [
                format!("+7 {session} +0 +7"),
                format!("+7 {session} +0 +7 9"),
                format!("+7 {session} +7 218 4 216 3"),
            ]
        );
    }
}

#[test]
fn a_create_says_that_it_was_inferred() {
    for version in TEMPLATED {
        let mut script = Script::new(&collector(version));
        let adopted = NatEvent {
            provenance: Provenance::Inferred,
            ..started()
        };
        let session = "Nat44SessionCreate Tcp 10.1.2.3 40356 203.0.113.9 50520 203.0.113.7 443 203.0.113.7 443";
        assert_eq!(
            decode(&script.send(&adopted, 0)).flows,
            [format!("+0 {session} 9")]
        );
    }
}

#[test]
fn flows_without_counters_claim_none() {
    for (version, times) in TIMES {
        let mut script = Script::new(&config::Collector {
            events: false,
            triplet: true,
            ..collector(version)
        });
        let event = delete(snat(), START, START + 5);
        assert_eq!(
            decode(&script.send(&event, 5)).flows,
            [
                format!("10.1.2.3 203.0.113.7 40356 443 Tcp {times}"),
                format!("203.0.113.9 203.0.113.7 50520 443 Tcp {times}"),
                format!("203.0.113.7 203.0.113.9 443 50520 Tcp {times}"),
            ]
        );
    }
}

#[test]
fn icmp_and_gre_have_their_identifiers_as_ports() {
    let mut script = Script::new(&collector(Version::Ipfix));
    script.push(&create(icmp(), START), 0);
    script.push(&create(gre(), START), 0);
    assert_eq!(
        decode(&script.flush(0)).flows,
        [
            "+0 Nat44SessionCreate Icmp 10.1.2.3 321 203.0.113.9 654 203.0.113.7 2048 203.0.113.7 2048",
            "+0 Nat44SessionCreate Gre 10.1.2.3 4369 203.0.113.9 4369 203.0.113.7 8738 203.0.113.7 8738",
        ]
    );
}

#[test]
fn legacy_values_are_1_and_2_for_every_family() {
    let mut script = Script::new(&config::Collector {
        nat_event: NatEventValues::Legacy,
        ..collector(Version::NetflowV9)
    });
    script.push(&started(), 0);
    script.push(&ended(snat()), 0);
    script.push(&create(nat66(), START), 0);
    let kinds: Vec<_> = decode(&script.flush(0))
        .flows
        .iter()
        .map(|flow| flow.split(' ').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds,
        [
            "NatTranslationCreate",
            "NatTranslationDelete",
            "NatTranslationCreate"
        ]
    );
}

#[test]
fn the_destination_can_be_left_out_and_the_zone_put_in() {
    let mut script = Script::new(&config::Collector {
        log_destination: false,
        ingress_vrf: true,
        ..collector(Version::Ipfix)
    });
    let mut event = started();
    event.session.zone.id = 77;
    assert_eq!(
        decode(&script.send(&event, 0)).flows,
        ["+0 Nat44SessionCreate Tcp 10.1.2.3 40356 203.0.113.9 50520 77"]
    );
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let mut script = Script::new(&collector(Version::NetflowV5));
    let result = script.try_push(&Record::Event(create(nat66(), START)), 0);
    assert_eq!(result, Err(NotRepresentable));
    let mut mixed = snat();
    mixed.reply = tuple("2001:db8::1", 1, "2001:db8::2", 2);
    for version in ALL {
        let mut script = Script::new(&collector(version));
        let result = script.try_push(&Record::Event(create(mixed, START)), 0);
        assert_eq!(result, Err(NotRepresentable));
        assert!(script.packer.is_idle());
    }
}
