//! Flow records of the traffic of connections: both directions, translated or not, and biflows.

use super::*;
use crate::session::{EndReason, Totals, Zone};
use crate::wire::samples::ping;

/// The times of a flow and the kernel's id of its connection, which NetFlow v9 has not.
const FORMS: [(Version, &str, &str); 2] =
    [(TIMES[0].0, TIMES[0].1, ""), (TIMES[1].0, TIMES[1].1, " 7")];

fn flows(version: Version) -> config::Collector {
    config::Collector {
        events: false,
        flow: true,
        ..collector(version)
    }
}

fn biflows() -> config::Collector {
    config::Collector {
        biflow: true,
        ..flows(Version::Ipfix)
    }
}

fn decoded(config: &config::Collector, event: &NatEvent) -> Vec<String> {
    decode(&Script::new(config).send(event, 5)).flows
}

/// The end of a session about which everything is known.
fn known(session: Session) -> NatEvent {
    NatEvent {
        session: Session {
            mark: 0x2a,
            zone: Zone {
                id: 77,
                ..Zone::default()
            },
            ..session
        },
        end_reason: Some(EndReason::Detected),
        ..ended(session)
    }
}

#[test]
fn an_ipfix_flow_is_as_documented_byte_for_byte() {
    let mut script = Script::new(&config::Collector {
        ingress_vrf: true,
        ..flows(Version::Ipfix)
    });
    script.send(&started(), 0);
    script.send(&known(snat()), 5);
    let expected = "000a 00aa 6b00ac90 00000003 0a0b0c0d
        0fba 009a
        0a010203 cb007107 9da4 01bb 06 00000000000000da 0000000000000004 000001a1faa21280 000001a1faa21285
        cb007109 cb007107 c558 01bb 03 0000000000000007 01 0000004d 0000002a
        cb007107 cb007109 01bb c558 06 00000000000000d8 0000000000000003 000001a1faa21280 000001a1faa21285
        cb007107 0a010203 01bb 9da4 03 0000000000000007 00 0000004d 0000002a";
    assert_eq!(script.send(&known(snat()), 5), [hex(expected)]);
}

#[test]
fn a_netflow_9_flow_has_neither_mark_nor_id_and_both_kinds_of_times_byte_for_byte() {
    let mut script = Script::new(&flows(Version::NetflowV9));
    script.send(&known(dnat()), 5);
    // Set 2048 + 8 + 16 + 32 + 128 + 512 + 4096. In the original direction, destination NAT leads in.
    let expected = "0009 0002 0036f268 6b00ac91 00000001 0a0b0c0d
        1ab8 008c
        c6336405 cb007109 80e8 0050 06 00000000000000da 0000000000000004
        0036ee80 0036ee85 000001a1faa21280 000001a1faa21285
        c6336405 0a000050 80e8 1f90 03 00
        0a000050 c6336405 1f90 80e8 06 00000000000000d8 0000000000000003
        0036ee80 0036ee85 000001a1faa21280 000001a1faa21285
        cb007109 c6336405 0050 80e8 03 01 0000";
    assert_eq!(script.send(&known(dnat()), 5), [hex(expected)]);
}

#[test]
fn a_biflow_has_the_reply_direction_in_reverse_elements_byte_for_byte() {
    let mut script = Script::new(&biflows());
    script.send(&known(icmp()), 5);
    let expected = "000a 0070 6b00ac90 00000002 0a0b0c0d
        17f8 0060
        0a010203 cb007107 0000 0800 01 00000000000000da 0000000000000004 000001a1faa21280 000001a1faa21285
        cb007109 cb007107 0000 0800 0000 0800 03 0000000000000007 01 0000002a
        01 00000000000000d8 0000000000000003";
    assert_eq!(script.send(&known(icmp()), 5), [hex(expected)]);
}

#[test]
fn each_direction_has_its_own_packet_and_the_type_of_its_own_icmp_message() {
    for (version, times, id) in FORMS {
        assert_eq!(
            decoded(&flows(version), &ended(icmp())),
            [
                format!(
                    "10.1.2.3 203.0.113.7 0 2048 Icmp 218 4 {times} 203.0.113.9 203.0.113.7 0 2048 2048{id} 1"
                ),
                format!(
                    "203.0.113.7 203.0.113.9 0 0 Icmp 216 3 {times} 203.0.113.7 10.1.2.3 0 0 0{id} 0"
                ),
            ]
        );
        assert_eq!(
            decoded(&flows(version), &ended(ping())),
            [
                format!("10.0.0.3 198.51.100.5 0 2048 Icmp 218 4 {times} 2048{id}"),
                format!("198.51.100.5 10.0.0.3 0 0 Icmp 216 3 {times} 0{id}"),
            ]
        );
        assert_eq!(
            decoded(&flows(version), &ended(nat66())),
            [
                format!(
                    "fd00::3 2001:db8:7::7 40000 443 Tcp 218 4 {times} 2001:db8:9::9 2001:db8:7::7 50000 443{id} 1"
                ),
                format!(
                    "2001:db8:7::7 2001:db8:9::9 443 50000 Tcp 216 3 {times} 2001:db8:7::7 fd00::3 443 40000{id} 0"
                ),
            ]
        );
    }
}

/// With both translations, nothing tells inside from outside.
#[test]
fn a_hairpin_has_no_direction() {
    for (version, times, id) in FORMS {
        assert_eq!(
            decoded(&flows(version), &ended(hairpin())),
            [
                format!(
                    "10.0.0.3 203.0.113.9 5000 53 Udp 218 4 {times} 10.0.0.1 10.0.0.53 6000 5353{id}"
                ),
                format!(
                    "10.0.0.53 10.0.0.1 5353 6000 Udp 216 3 {times} 203.0.113.9 10.0.0.3 53 5000{id}"
                ),
            ]
        );
    }
}

#[test]
fn a_direction_without_packets_makes_no_flow_and_unknown_counters_make_the_original_one() {
    let event = |totals| NatEvent {
        totals,
        ..ended(untranslated())
    };
    let counted = |original, reply| event(Some(totals([original, reply], [original, reply])));
    for version in ALL {
        let count = |event: &NatEvent| decoded(&flows(version), event).len();
        assert_eq!(count(&counted(1, 0)), 1);
        assert_eq!(count(&counted(0, 1)), 1);
        assert_eq!(count(&counted(0, 0)), 0);
        assert_eq!(count(&event(None)), 1);
    }
    for (version, times, id) in FORMS {
        assert_eq!(
            decoded(&flows(version), &event(None)),
            [format!("10.0.0.3 198.51.100.5 5000 53 Udp {times}{id}")]
        );
    }
    let times = TIMES[1].1;
    let packet = "10.0.0.3 198.51.100.5 5000 53 Udp";
    assert_eq!(
        decoded(&biflows(), &counted(0, 1)),
        [format!("{packet} 0 0 {times} 7 1 1 1")]
    );
    assert_eq!(decoded(&biflows(), &counted(0, 0)), [""; 0]);
    assert_eq!(
        decoded(&biflows(), &event(None)),
        [format!("{packet} {times} 7 1")]
    );
}

#[test]
fn traffic_is_reported_once_by_the_parts_or_by_the_delete() {
    let part = NatEvent {
        kind: EventKind::Flow,
        end_reason: Some(EndReason::Active),
        ..ended(snat())
    };
    let in_parts = NatEvent {
        in_parts: true,
        ..ended(snat())
    };
    let (begun, whole) = (create(snat(), START), ended(snat()));
    for version in ALL {
        let only_flows = flows(version);
        let all = config::Collector {
            events: true,
            triplet: true,
            ..only_flows.clone()
        };
        for (event, flows, of_all) in [
            (begun, 0, 1),
            (part, 2, 2),
            (in_parts, 0, 1 + 3),
            (whole, 2, 1 + 3 + 2),
        ] {
            assert_eq!(
                decoded(&only_flows, &event).len(),
                flows,
                "{version:?} {event:?}"
            );
            assert_eq!(decoded(&all, &event).len(), of_all, "{version:?} {event:?}");
        }
    }
}

#[test]
fn a_netflow_5_flow_is_split_where_its_counters_need_it() {
    let event = NatEvent {
        totals: Some(Totals {
            original: totals([9, 0], [5_000_000_000, 0]).original,
            ..totals([0, 3], [0, 216])
        }),
        ..ended(snat())
    };
    let message = &Script::new(&flows(Version::NetflowV5)).send(&event, 5)[0];
    let records: Vec<_> = message[24..].chunks(48).collect();
    let sum = |offset, records: &[&[u8]]| -> u64 {
        records
            .iter()
            .map(|record| u64::from(word(record, offset)))
            .sum()
    };
    let [original, reply] = [&records[..2], &records[2..]];
    assert_eq!((sum(16, original), sum(20, original)), (9, 5_000_000_000));
    assert_eq!((sum(16, reply), sum(20, reply)), (3, 216));
    let immense = NatEvent {
        totals: Some(totals([1, 1], [1, u64::MAX])),
        ..ended(snat())
    };
    let mut script = Script::new(&flows(Version::NetflowV5));
    let result = script.try_push(&Record::Event(immense), 0);
    assert_eq!(result, Err(NotRepresentable));
    assert!(script.packer.is_idle());
}

#[test]
fn events_beside_flows_are_those_of_translated_connections() {
    for version in ALL {
        let config = config::Collector {
            events: true,
            ..flows(version)
        };
        let count = |event: &NatEvent| decoded(&config, event).len();
        assert_eq!(count(&create(untranslated(), START)), 0);
        assert_eq!(count(&ended(untranslated())), 2);
        assert_eq!(count(&create(snat(), START)), 1);
        assert_eq!(count(&ended(snat())), 3);
    }
}

#[test]
fn beside_flows_a_delete_has_no_counters() {
    for version in [Version::NetflowV9, Version::Ipfix] {
        let beside = config::Collector {
            events: true,
            ..flows(version)
        };
        let uncounted = NatEvent {
            totals: None,
            ..ended(snat())
        };
        let alone = decoded(&collector(version), &uncounted);
        assert_eq!(decoded(&beside, &ended(snat()))[..1], alone);
    }
}
