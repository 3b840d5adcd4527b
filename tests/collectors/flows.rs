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

fn biflows() -> config::Collector {
    config::Collector {
        biflow: true,
        ..flows(Version::Ipfix)
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
fn nfdump_reads_the_flows_of_both_directions_from_every_version() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    for version in VERSIONS {
        let found = through_nfdump(&flows(version), &connections());
        let names = "proto src4_addr src_port dst4_addr dst_port icmp_type icmp_code first last in_packets in_bytes";
        let ipv6 = "proto src6_addr src_port dst6_addr dst_port icmp_type icmp_code first last in_packets in_bytes";
        let times = format!("null null {BEGIN} {END}");
        let icmp = |kind| format!("{kind} 0 {BEGIN} {END}");
        // NetFlow v5 has counters of 32 bits, and neither translations nor IPv6.
        let large: &[&str] = match version {
            Version::NetflowV5 => &["2000000 2999999999", "2000000 3000000001"],
            _ => &["4000000 6000000000"],
        };
        let mut expected: Vec<_> = large
            .iter()
            .map(|counters| format!("6 10.1.2.3 40356 203.0.113.7 443 {times} {counters}"))
            .collect();
        expected.extend([
            format!("6 203.0.113.7 443 203.0.113.9 50520 {times} 8 436"),
            format!("17 192.0.2.1 5000 198.51.100.5 53 {times} 1 60"),
            format!("17 198.51.100.5 53 192.0.2.1 5000 {times} 2 120"),
            format!("1 10.1.2.3 null 203.0.113.7 null {} 3 252", icmp(8)),
            format!("1 203.0.113.7 null 203.0.113.9 null {} 3 253", icmp(0)),
        ]);
        let (over_ipv4, over_ipv6) = found.split_at(expected.len());
        assert_eq!(lines(over_ipv4, names), expected, "{version:?}");
        if version == Version::NetflowV5 {
            assert_eq!(over_ipv6.len(), 0);
            continue;
        }
        assert_eq!(
            lines(over_ipv6, ipv6),
            [
                format!("6 2001:db8::5 33000 2001:db8:9::9 80 {times} 7 700"),
                format!("6 fd00::80 8080 2001:db8::5 33000 {times} 5 5000"),
            ],
            "{version:?}"
        );
        assert_eq!(
            lines(
                &found,
                "type src4_xlt_ip src_xlt_port dst4_xlt_ip dst_xlt_port"
            )[..6],
            [
                "FLOW 203.0.113.9 50520 203.0.113.7 443",
                "FLOW 203.0.113.7 443 10.1.2.3 40356",
                "FLOW null null null null",
                "FLOW null null null null",
                "FLOW 203.0.113.9 0 203.0.113.7 2048",
                "FLOW 203.0.113.7 0 10.1.2.3 0",
            ],
            "{version:?}"
        );
    }
}

#[test]
fn nfdump_reads_both_directions_of_a_biflow() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    let found = through_nfdump(&biflows(), &connections());
    assert_eq!(
        lines(
            &found,
            "proto src4_addr icmp_type in_packets in_bytes out_packets out_bytes first last"
        ),
        [
            format!("6 10.1.2.3 null 4000000 6000000000 8 436 {BEGIN} {END}"),
            format!("17 192.0.2.1 null 1 60 2 120 {BEGIN} {END}"),
            format!("1 10.1.2.3 8 3 252 3 253 {BEGIN} {END}"),
            format!("6 null null 7 700 5 5000 {BEGIN} {END}"),
        ]
    );
}

#[test]
fn tshark_reads_flows_of_both_directions_and_finds_nothing_wrong() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    for version in [Version::NetflowV9, Version::Ipfix] {
        let pcap = Pcap::new(&flows(version), &connections());
        assert_eq!(pcap.tshark(&["-Y", "_ws.malformed || _ws.expert"]), "");
        pcap.check(&[
            ("protocol", "6,6,17,17,1,1,6,6"),
            (
                "srcaddr",
                "10.1.2.3,203.0.113.7,192.0.2.1,198.51.100.5,10.1.2.3,203.0.113.7",
            ),
            ("dstaddrv6", "2001:db8:9::9,2001:db8::5"),
            ("srcport", "40356,443,5000,53,0,0,33000,8080"),
            ("dstport", "443,50520,53,5000,2048,0,80,33000"),
            ("octets", "6000000000,436,60,120,252,253,700,5000"),
            ("packets", "4000000,8,1,2,3,3,7,5"),
            (
                "post_natsource_ipv4_address",
                "203.0.113.9,203.0.113.7,203.0.113.9,203.0.113.7",
            ),
            (
                "post_natdestination_ipv4_address",
                "203.0.113.7,10.1.2.3,203.0.113.7,10.1.2.3",
            ),
            ("post_nat_source_ipv6_address", "2001:db8::5,2001:db8:9::9"),
            ("post_nat_destination_ipv6_address", "fd00::80,2001:db8::5"),
            ("post_naptsource_transport_port", "50520,443,0,0,33000,80"),
            (
                "post_naptdestination_transport_port",
                "443,40356,2048,0,8080,33000",
            ),
            ("icmp_type_code_ipv4", "0x0800,0x0000"),
            ("flow_end_reason", "3,3,3,3,3,3,3,3"),
            ("direction", "1,0,1,0,0,1"),
        ]);
        let times = pcap.fields(&["abstimestart", "abstimeend"]);
        assert_eq!(times[0].matches("20:24:48.123").count(), 8, "{times:?}");
        assert_eq!(times[1].matches("20:24:52.567").count(), 8, "{times:?}");
        if version == Version::Ipfix {
            pcap.check(&[("flow_id", &["4000000001"; 8].join(","))]);
        }
    }
}

#[test]
fn tshark_reads_the_reverse_elements_of_biflows_and_finds_nothing_wrong() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    let pcap = Pcap::new(&biflows(), &connections());
    assert_eq!(pcap.tshark(&["-Y", "_ws.malformed || _ws.expert"]), "");
    pcap.check(&[
        ("protocol", "6,17,1,6"),
        ("biflow_direction", "1,1,1,1"),
        // Those of the reply direction follow.
        ("octets", "6000000000,436,60,120,252,253,700,5000"),
        ("packets", "4000000,8,1,2,3,3,7,5"),
        ("icmp_type_code_ipv4", "0x0000,0x0800"),
    ]);
    let text = pcap.tshark(&["-V"]);
    for line in [
        "Octets: 436 (Reverse Type 1 BYTES)",
        "Packets: 8 (Reverse Type 2 PKTS)",
        "ICMP Type: 0x0000 (Reverse Type 32 ICMP_TYPE)",
        "(netfilter/iptables project) Type 4: Value (hex bytes): 00 00 00 2a",
    ] {
        assert_eq!(text.matches(line).count(), 1, "{line}");
    }
}

#[test]
fn nfdump_reads_the_sums_of_aggregated_flows_from_every_version() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    let Record::Event(first) = connections()[1] else {
        panic!("the end of a connection")
    };
    let of = |host: &str, port, octets| {
        let session = Session {
            original: tuple(host, port, "198.51.100.5", 53),
            reply: tuple("198.51.100.5", 53, host, port),
            ..first.session
        };
        let counters = |octets| Counters { packets: 1, octets };
        Record::Event(NatEvent {
            session,
            totals: Some(Totals {
                original: counters(octets),
                reply: counters(1000 * octets),
            }),
            ..first
        })
    };
    let records = [
        of("192.0.2.1", 5000, 60),
        of("192.0.77.9", 6000, 70),
        of("192.9.2.1", 5000, 80),
    ];
    for version in VERSIONS {
        let rules = ["192.0.0.0/8=16", "1024-65535=0"];
        let config = config::Collector {
            aggregation: rules.map(|rule| rule.parse().unwrap()).to_vec(),
            ..flows(version)
        };
        let found = through_nfdump(&config, &records);
        let names = "proto src4_addr src_port dst4_addr dst_port first last in_packets in_bytes";
        let mut found = lines(&found, names);
        found.sort();
        let times = format!("{BEGIN} {END}");
        assert_eq!(
            found,
            [
                format!("17 192.0.0.0 0 198.51.100.5 53 {times} 2 130"),
                format!("17 192.9.0.0 0 198.51.100.5 53 {times} 1 80"),
                format!("17 198.51.100.5 53 192.0.0.0 0 {times} 2 130000"),
                format!("17 198.51.100.5 53 192.9.0.0 0 {times} 1 80000"),
            ],
            "{version:?}"
        );
    }
}
