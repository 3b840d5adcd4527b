//! Scripts of (time, event) → bytes.
#![allow(clippy::unwrap_used)]

mod decoding;
mod gaps;
mod property;

use decoding::decode;

use super::*;
use crate::config::NatEventValues;
use crate::session::{EventKind, Session};
use crate::time::Wall;
use crate::wire::samples::{
    create, delete, dnat, gre, hairpin, hex, icmp, nat66, snat, totals, tuple, untranslated,
};

const START: u64 = 1_795_206_288_000;

fn collector(version: Version) -> config::Collector {
    config::Collector {
        name: None,
        address: "192.0.2.1:2055".parse().unwrap(),
        version,
        source: None,
        events: true,
        triplet: false,
        nat_event: NatEventValues::Rfc8158,
        destination: true,
        zone: false,
        post_nat_counters: true,
        mtu: 1500,
        template_refresh: Duration::from_secs(1800),
        template_refresh_packets: 20,
        send_buffer: None,
        observation_domain: 0x0a0b_0c0d,
        export_delay: Duration::from_secs(1),
    }
}

/// `millis` after the start of the test, an hour after boot.
fn at(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(START + millis),
        Uptime::from_millis(3_600_000 + millis),
    )
}

/// A packer and the queue it fills.
struct Script {
    packer: Packer,
    done: Queue<Load>,
}

impl Script {
    fn new(collector: &config::Collector) -> Self {
        Self::over(collector, Transport::Datagram)
    }

    fn over(collector: &config::Collector, transport: Transport) -> Self {
        Self {
            packer: Packer::new(collector, transport, at(0)),
            done: Queue::new(1 << 24),
        }
    }

    fn push(&mut self, event: &NatEvent, millis: u64) {
        self.packer.push(event, at(millis), &mut self.done).unwrap();
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

    fn take(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some(message) = self.done.front() {
            messages.push(message.bytes.to_vec());
            let load = self.done.pop().unwrap();
            self.packer.handle_sent(load);
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

const TEMPLATE_256: &str =
    "0100 000b 0143 0008 00e6 0001 0004 0001 0008 0004 0007 0002 00e1 0004 00e3 0002
    000c 0004 000b 0002 00e2 0004 00e4 0002";
const TEMPLATE_257: &str =
    "0101 0011 0143 0008 00e6 0001 0004 0001 0008 0004 0007 0002 00e1 0004 00e3 0002
    000c 0004 000b 0002 00e2 0004 00e4 0002
    0098 0008 0099 0008 00e7 0008 012a 0008 00e8 0008 012b 0008";
const TEMPLATE_258: &str =
    "0102 000b 0143 0008 00e6 0001 0004 0001 001b 0010 0007 0002 0119 0010 00e3 0002
    001c 0010 000b 0002 011a 0010 00e4 0002";
const TEMPLATE_259: &str =
    "0103 0011 0143 0008 00e6 0001 0004 0001 001b 0010 0007 0002 0119 0010 00e3 0002
    001c 0010 000b 0002 011a 0010 00e4 0002
    0098 0008 0099 0008 00e7 0008 012a 0008 00e8 0008 012b 0008";
/// START is 0x1a1faa21280 ms.
const STATISTICS: &str =
    "000001a1faa21280 0000000000000000 0000000000000000 0000000000000000 0000000000000000";
const CREATE: &str =
    "000001a1faa21280 04 06 0a010203 9da4 cb007109 c558 cb007107 01bb cb007107 01bb";

#[test]
fn the_first_ipfix_message_is_as_documented_byte_for_byte() {
    let mut script = Script::new(&collector(Version::Ipfix));
    script.push(&started(), 0);
    let messages = script.flush(999);
    let expected = format!(
        "000a 0204 6b00ac90 00000000 0a0b0c0d
         0002 00f4 {TEMPLATE_256} {TEMPLATE_257} {TEMPLATE_258} {TEMPLATE_259}
         0003 0024 0106 0006 0001 0095 0004 00a0 0008 0028 0008 0029 0008 002a 0008 00a6 0008 0000
         0003 0024 0107 0006 0002 0095 0004 008f 0004 0143 0008 0143 0008 0003 0008 00a6 0008 0000
         0003 0024 0108 0006 0002 0095 0004 008f 0004 0143 0008 0143 0008 0085 0008 00a4 0008 0000
         0003 0020 0109 0005 0001 0090 0004 0143 0008 0143 0008 0003 0008 00a6 0008 0000
         0003 001c 010a 0004 0002 0095 0004 008f 0004 0143 0008 0143 0008 0000
         0106 0030 0a0b0c0d {STATISTICS}
         0100 0028 {CREATE} 0000"
    );
    assert_eq!(messages, [hex(&expected)]);
}

#[test]
fn the_first_netflow_9_message_is_as_documented_byte_for_byte() {
    let mut script = Script::new(&collector(Version::NetflowV9));
    script.push(&started(), 0);
    let messages = script.flush(999);
    let expected = format!(
        "0009 000b 0036f267 6b00ac90 00000000 0a0b0c0d
         0000 00f4 {TEMPLATE_256} {TEMPLATE_257} {TEMPLATE_258} {TEMPLATE_259}
         0001 0024 0106 0004 0014 0001 0004 00a0 0008 0028 0008 0029 0008 002a 0008 00a6 0008 0000
         0001 0024 0107 0004 0014 0001 0004 008f 0004 0143 0008 0143 0008 0003 0008 00a6 0008 0000
         0001 0024 0108 0004 0014 0001 0004 008f 0004 0143 0008 0143 0008 0085 0008 00a4 0008 0000
         0001 0024 0109 0004 0014 0001 0004 0090 0004 0143 0008 0143 0008 0003 0008 00a6 0008 0000
         0001 001c 010a 0004 000c 0001 0004 008f 0004 0143 0008 0143 0008 0000
         0106 0030 00000000 {STATISTICS}
         0100 0028 {CREATE} 0000"
    );
    assert_eq!(messages, [hex(&expected)]);
}

#[test]
fn events_and_triplets_are_read_back_by_an_independent_decoder() {
    for version in [Version::NetflowV9, Version::Ipfix] {
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
                "10.1.2.3 203.0.113.7 40356 443 Tcp 218 4 +0 +5",
                "203.0.113.9 203.0.113.7 50520 443 Tcp 218 4 +0 +5",
                "203.0.113.7 203.0.113.9 443 50520 Tcp 216 3 +0 +5",
            ]
        );
        assert_eq!(decoded.templates, 11);
    }
}

#[test]
fn nat66_uses_the_ipv6_elements_and_the_historic_values() {
    for version in [Version::NetflowV9, Version::Ipfix] {
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
                "fd00::3 2001:db8:7::7 40000 443 Tcp 218 4 +0 +5",
                "2001:db8:9::9 2001:db8:7::7 50000 443 Tcp 218 4 +0 +5",
                "2001:db8:7::7 2001:db8:9::9 443 50000 Tcp 216 3 +0 +5",
            ]
        );
    }
}

#[test]
fn a_delete_without_counters_uses_the_template_of_the_create() {
    let mut script = Script::new(&collector(Version::Ipfix));
    let decoded = decode(&script.send(&delete(dnat(), START, START + 7), 7));
    assert_eq!(
        decoded.flows,
        [
            "+7 Nat44SessionDelete Tcp 198.51.100.5 33000 198.51.100.5 33000 203.0.113.9 80 10.0.0.80 8080"
        ]
    );
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
        destination: false,
        zone: true,
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
fn netflow_5_sequence_numbers_count_flows() {
    let mut script = Script::new(&collector(Version::NetflowV5));
    let mut messages = script.send(&create(hairpin(), START), 0);
    messages.extend(script.send(&started(), 0));
    messages.extend(script.send(&started(), 0));
    let sequences: Vec<_> = messages.iter().map(|message| sequence(message)).collect();
    assert_eq!(sequences, [0, 2, 3]);
}

#[test]
fn netflow_9_sequence_numbers_count_messages() {
    let mut script = Script::new(&collector(Version::NetflowV9));
    for expected in 0..3 {
        script.push(&started(), 0);
        script.push(&ended(snat()), 0);
        let messages = script.flush(0);
        assert_eq!(sequence(&messages[0]), expected);
    }
}

#[test]
fn ipfix_sequence_numbers_count_data_records_with_those_of_options() {
    let mut script = Script::new(&collector(Version::Ipfix));
    script.push(&started(), 0);
    script.push(&ended(snat()), 0);
    assert_eq!(sequence(&script.flush(0)[0]), 0);
    assert_eq!(sequence(&script.send(&started(), 0)[0]), 3);
    assert_eq!(sequence(&script.send(&started(), 0)[0]), 4);
}

#[test]
fn a_new_stream_begins_with_sequence_zero_and_templates() {
    for version in [Version::NetflowV9, Version::Ipfix] {
        let mut script = Script::over(&collector(version), Transport::Stream);
        script.send(&started(), 0);
        script.send(&started(), 0);
        script.push(&started(), 0);
        script.packer.restart_stream(at(0), &mut script.done);
        assert_eq!(script.take().len(), 1);
        let messages = script.send(&started(), 0);
        assert_eq!(sequence(&messages[0]), 0);
        assert_eq!(decode(&messages).templates, 9);
    }
}

#[test]
fn a_stream_gets_its_templates_once() {
    let mut script = Script::over(
        &config::Collector {
            template_refresh_packets: 1,
            ..collector(Version::Ipfix)
        },
        Transport::Stream,
    );
    let mut messages = script.send(&started(), 0);
    for hour in 1..10 {
        assert!(script.timeout(hour * 3_600_000).is_empty());
        messages.extend(script.send(&started(), hour * 3_600_000));
    }
    assert_eq!(decode(&messages).templates, 9);
}

#[test]
fn templates_are_repeated_after_the_configured_number_of_messages() {
    for version in [Version::NetflowV9, Version::Ipfix] {
        let mut script = Script::new(&config::Collector {
            template_refresh_packets: 3,
            ..collector(version)
        });
        let messages: Vec<_> = (0..7).flat_map(|_| script.send(&started(), 0)).collect();
        let long: Vec<_> = messages.iter().map(|message| message.len() > 100).collect();
        assert_eq!(long, [true, false, false, true, false, false, true]);
        assert_eq!(decode(&messages).templates, 27);
    }
}

#[test]
fn templates_are_repeated_after_the_configured_time() {
    for version in [Version::NetflowV9, Version::Ipfix] {
        let mut script = Script::new(&collector(version));
        assert_eq!(script.packer.poll_timeout(), None);
        script.send(&started(), 0);
        assert_eq!(script.packer.poll_timeout(), Some(at(1_800_000).up));
        assert!(script.timeout(1_799_999).is_empty());
        // With nothing else to send, on their own.
        let decoded = decode(&script.timeout(1_800_000));
        assert_eq!((decoded.templates, decoded.flows.len()), (9, 0));
        assert_eq!(script.packer.poll_timeout(), Some(at(3_600_000).up));
        // Or in front of the next record.
        let decoded = decode(&script.send(&started(), 3_600_000));
        assert_eq!((decoded.templates, decoded.flows.len()), (9, 1));
    }
}

#[test]
fn a_message_leaves_when_its_first_record_has_waited_long_enough() {
    for version in [Version::NetflowV5, Version::NetflowV9, Version::Ipfix] {
        let mut script = Script::new(&collector(version));
        script.push(&started(), 100);
        script.push(&started(), 900);
        assert_eq!(script.packer.poll_timeout(), Some(at(1100).up));
        assert!(script.timeout(1099).is_empty());
        let messages = script.timeout(1100);
        assert_eq!(decode(&messages).flows.len(), 2);
        assert!(script.packer.is_idle());
        assert!(script.timeout(1100).is_empty());
    }
}

#[test]
fn a_record_that_just_fits_is_packed_and_one_octet_less_begins_another_message() {
    for version in [Version::NetflowV5, Version::NetflowV9, Version::Ipfix] {
        for event in [started(), ended(snat()), ended(nat66())] {
            if version == Version::NetflowV5 && !event.session.is_ipv4() {
                continue;
            }
            let messages = |mtu| {
                let mut script = Script::new(&config::Collector {
                    mtu,
                    ..collector(version)
                });
                (0..5).for_each(|_| script.push(&event, 0));
                script.flush(0)
            };
            let whole = messages(9000);
            assert_eq!(whole.len(), 1);
            let exact = whole[0].len() as u16 + 28;
            assert_eq!(messages(exact), whole);
            let split = messages(exact - 1);
            assert_eq!(split.len(), 2);
            assert_eq!(decode(&split[..1]).flows.len(), 4);
        }
    }
}

#[test]
fn netflow_5_messages_hold_30_records_at_most() {
    let mut script = Script::new(&config::Collector {
        mtu: 9000,
        ..collector(Version::NetflowV5)
    });
    (0..31).for_each(|_| script.push(&started(), 0));
    let messages = script.flush(0);
    assert_eq!(messages[0].len(), 24 + 30 * 48);
    assert_eq!(messages[1].len(), 24 + 48);
    assert_eq!(sequence(&messages[1]), 30);
}

#[test]
fn templates_that_do_not_fit_one_message_take_several() {
    for (version, address, mtu) in [
        (Version::NetflowV9, "192.0.2.1:2055", 576),
        (Version::Ipfix, "192.0.2.1:2055", 576),
        (Version::NetflowV9, "192.0.2.1:2055", 300),
        (Version::Ipfix, "[2001:db8::1]:4739", 300),
    ] {
        let config = config::Collector {
            name: None,
            address: address.parse().unwrap(),
            mtu,
            triplet: true,
            zone: true,
            template_refresh_packets: 1,
            ..collector(version)
        };
        let mut script = Script::new(&config);
        for _ in 0..10 {
            script.push(&ended(nat66()), 0);
            script.push(&ended(snat()), 0);
        }
        let messages = script.flush(0);
        assert!(
            messages
                .iter()
                .all(|message| message.len() <= config.max_message())
        );
        let decoded = decode(&messages);
        assert_eq!(decoded.flows.len(), 80);
        assert_eq!(
            decoded.templates as u64,
            11 * script.packer.totals().template_sends
        );
    }
}

#[test]
fn the_statistics_count_what_was_sent_before_and_what_was_not() {
    let mut script = Script::new(&config::Collector {
        template_refresh_packets: 3,
        ..collector(Version::Ipfix)
    });
    let first = script.send(&started(), 0);
    script.push(&started(), 0);
    let second = script.send(&started(), 0);
    let load = Load {
        records: 2,
        ..Load::default()
    };
    script.packer.handle_not_sent(second[0].len(), load);
    let third = script.send(&started(), 0);
    let octets = first[0].len();
    assert_eq!(
        decode(&third).options,
        [format!("168496141 +0 {octets} 1 1 2")]
    );
}

#[test]
fn templates_follow_a_message_that_the_queue_refused() {
    let config = collector(Version::Ipfix);
    let mut packer = Packer::new(&config, Transport::Datagram, at(0));
    let mut full = Queue::new(10);
    packer.push(&started(), at(0), &mut full).unwrap();
    packer.flush(at(0), &mut full);
    assert_eq!(packer.totals().dropped, 1);
    assert_eq!(packer.totals().not_sent, 1);
    assert_eq!(packer.totals().messages, 0);
    let mut done = Queue::new(10_000);
    packer.push(&started(), at(0), &mut done).unwrap();
    packer.flush(at(0), &mut done);
    let message = done.front().unwrap().bytes.to_vec();
    // The lost records show in the sequence number.
    assert_eq!(sequence(&message), 2);
    assert_eq!(decode(&[message]).templates, 9);
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let mut done = Queue::new(10_000);
    let mut packer = Packer::new(&collector(Version::NetflowV5), Transport::Datagram, at(0));
    let result = packer.push(&create(nat66(), START), at(0), &mut done);
    assert_eq!(result, Err(NotRepresentable));
    let mut mixed = snat();
    mixed.reply = tuple("2001:db8::1", 1, "2001:db8::2", 2);
    for version in [Version::NetflowV5, Version::NetflowV9, Version::Ipfix] {
        let mut packer = Packer::new(&collector(version), Transport::Datagram, at(0));
        let result = packer.push(&create(mixed, START), at(0), &mut done);
        assert_eq!(result, Err(NotRepresentable));
        assert!(packer.is_idle());
    }
}
