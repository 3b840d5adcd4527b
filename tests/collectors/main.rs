//! The records that independent collectors and decoders read from the messages of [`nattrail::export::output::Output`].
//!
//! Needs nfcapd and nfdump, tshark and text2pcap, and for one test root and ip. Without one of them, the test reports
//! that and does nothing; with CI=true it fails.

#![allow(clippy::unwrap_used)]

mod backpressure;
mod flows;
#[path = "../support/log.rs"]
mod log;
mod tools;

use std::time::Duration;

use nattrail::config::{self, NatEventValues, Version};
use nattrail::session::{
    Counters, EventKind, Gap, GapCause, NatEvent, Protocol, Provenance, Record, Session, Totals,
    Tuple, Zone,
};
use nattrail::time::{Now, Uptime, Wall};
use serde_json::Value;

use tools::{Pcap, capture, have, through_nfdump};

/// 2026-11-20 20:24:48 UTC.
const START: u64 = 1_795_206_288_000;
/// The begin and the end of the sessions, as nfdump writes them.
const BEGIN: &str = "2026-11-20T20:24:48.123";
const END: &str = "2026-11-20T20:24:52.567";
const VERSIONS: [Version; 3] = [Version::NetflowV5, Version::NetflowV9, Version::Ipfix];

#[test]
fn nfdump_reads_nat_events_from_netflow_9_and_ipfix() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    for version in [Version::NetflowV9, Version::Ipfix] {
        let config = config::Collector {
            ingress_vrf: true,
            ..collector(version)
        };
        let flows = through_nfdump(&config, &events());
        let text = lines(
            &flows,
            "nat_event_id t_event proto src4_addr src_port src4_xlt_ip src_xlt_port dst4_addr dst_port \
             dst4_xlt_ip dst_xlt_port ingress_vrf",
        );
        let snat = "6 10.1.2.3 40356 203.0.113.9 50520 203.0.113.7 443 203.0.113.7 443 77";
        let dnat = "17 198.51.100.5 33000 198.51.100.5 33000 203.0.113.9 53 10.0.0.53 5353 77";
        let expected = [
            format!("4 {BEGIN} {snat}"),
            format!("5 {END} {snat}"),
            format!("4 {BEGIN} {dnat}"),
            format!("5 {END} {dnat}"),
        ];
        assert_eq!(text, expected, "{version:?}");
        // The delete records have the duration of the session. Since 1.7.5 nfdump's v9 reader takes the time of the
        // event as its start.
        assert_eq!(lines(&flows, "last")[1], END);
        if version == Version::Ipfix {
            assert_eq!(lines(&flows, "first")[1], BEGIN);
        }
    }
}

#[test]
fn nfdump_reads_triplets_from_every_version() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    for version in VERSIONS {
        let config = config::Collector {
            events: false,
            triplet: true,
            ..collector(version)
        };
        let flows = through_nfdump(&config, &events()[..2]);
        let text = lines(
            &flows,
            "proto src4_addr src_port dst4_addr dst_port in_packets in_bytes first last",
        );
        let expected = [
            format!("6 10.1.2.3 40356 203.0.113.7 443 4 218 {BEGIN} {END}"),
            format!("6 203.0.113.9 50520 203.0.113.7 443 4 218 {BEGIN} {END}"),
            format!("6 203.0.113.7 443 203.0.113.9 50520 8 436 {BEGIN} {END}"),
        ];
        assert_eq!(text, expected, "{version:?}");
    }
}

#[test]
fn nfdump_reads_dummy_flows_from_netflow_5() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    let flows = through_nfdump(&collector(Version::NetflowV5), &events());
    let text = lines(
        &flows,
        "first last proto src4_addr src_port dst4_addr dst_port ip4_next_hop src_as dst_as tcp_flags \
         in_packets in_bytes",
    );
    let snat = "6 10.1.2.3 40356 203.0.113.7 443 203.0.113.9 50520 0";
    let dnat = "17 198.51.100.5 33000 10.0.0.53 5353 203.0.113.9 0 53";
    let expected = [
        format!("{BEGIN} {BEGIN} {snat} ...A..S. 0 0"),
        format!("{END} {END} {snat} .....R.F 0 0"),
        format!("{BEGIN} {BEGIN} {dnat} ...A..S. 0 0"),
        format!("{END} {END} {dnat} .....R.F 0 0"),
    ];
    assert_eq!(text, expected);
}

#[test]
fn nfcapd_misses_nothing_in_a_sequence_of_messages() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    for version in VERSIONS {
        let config = config::Collector {
            template_refresh_packets: 3,
            triplet: true,
            ..collector(version)
        };
        let events: Vec<_> = (0..50).flat_map(|_| events()).collect();
        let capture = capture(&config, &events);
        // Two sessions make four NAT events and six flows.
        assert_eq!(capture.flows().len(), 500, "{version:?}");
        // Against RFC 7011 section 3.1, nfdump does not count the options data records of IPFIX.
        if version != Version::Ipfix {
            let summary = capture.nfdump(&["-I"]);
            assert!(summary.contains("Sequence failures: 0"), "{summary}");
        }
    }
}

#[test]
fn tshark_finds_nothing_wrong_with_a_sequence_of_messages() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    let events: Vec<_> = (0..50).flat_map(|_| events()).collect();
    for version in VERSIONS {
        for mtu in [576, 1500] {
            let config = config::Collector {
                template_refresh_packets: 3,
                triplet: true,
                ingress_vrf: version != Version::NetflowV5,
                mtu,
                ..collector(version)
            };
            let pcap = Pcap::new(&config, &events);
            assert!(pcap.messages > 5);
            let complaints = pcap.tshark(&["-Y", "_ws.malformed || _ws.expert"]);
            assert_eq!(complaints, "", "{version:?}");
            let decoded = pcap.tshark(&["-Y", "cflow"]);
            assert_eq!(decoded.lines().count(), pcap.messages, "{version:?}");
        }
    }
}

#[test]
fn tshark_reads_the_fields_of_nat_events() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    for version in [Version::NetflowV9, Version::Ipfix] {
        let config = config::Collector {
            ingress_vrf: true,
            ..collector(version)
        };
        let pcap = Pcap::new(&config, &events());
        let fields = [
            ("nat_event", "4,5,4,5"),
            ("protocol", "6,6,17,17"),
            ("srcaddr", "10.1.2.3,10.1.2.3,198.51.100.5,198.51.100.5"),
            ("srcport", "40356,40356,33000,33000"),
            (
                "post_natsource_ipv4_address",
                "203.0.113.9,203.0.113.9,198.51.100.5,198.51.100.5",
            ),
            ("post_naptsource_transport_port", "50520,50520,33000,33000"),
            ("dstaddr", "203.0.113.7,203.0.113.7,203.0.113.9,203.0.113.9"),
            ("dstport", "443,443,53,53"),
            (
                "post_natdestination_ipv4_address",
                "203.0.113.7,203.0.113.7,10.0.0.53,10.0.0.53",
            ),
            ("post_naptdestination_transport_port", "443,443,5353,5353"),
            ("ingress_vrfid", "77,77,77,77"),
            ("initiator_octets", "218,60"),
            ("initiator_packets", "4,1"),
            ("responder_octets", "436,120"),
            ("responder_packets", "8,2"),
        ];
        pcap.check(&fields);
        let times = pcap.fields(&["observation_time_milliseconds"]).remove(0);
        assert_eq!(times.matches("20:24:48.123").count(), 2, "{times}");
        assert_eq!(times.matches("20:24:52.567").count(), 2, "{times}");
    }
}

#[test]
fn nfdump_reads_what_is_known_of_a_session_and_no_more() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    for version in [Version::NetflowV9, Version::Ipfix] {
        let config = config::Collector {
            triplet: true,
            ..collector(version)
        };
        let flows = through_nfdump(&config, &forms());
        let (deletes, flows): (Vec<_>, Vec<_>) = flows
            .into_iter()
            .filter(|flow| flow["nat_event_id"] != "4")
            .partition(|flow| flow["nat_event_id"] == "5");
        let delete = format!("203.0.113.9 50520 {END} {END}");
        let deletes = lines(&deletes, "src4_xlt_ip src_xlt_port t_event last");
        assert_eq!(deletes, vec![delete; 8], "{version:?}");
        let expected: Vec<_> = forms()[1..]
            .iter()
            .flat_map(|record| {
                let Record::Event(event) = record else {
                    panic!("{record:?}")
                };
                let first = event.start.map_or("1970-01-01T00:00:00.000", |_| BEGIN);
                let octets = |octets| event.totals.map_or(0, |_| octets);
                [218, 218, 436].map(|all| format!("{first} {END} {}", octets(all)))
            })
            .collect();
        assert_eq!(
            lines(&flows, "first last in_bytes"),
            expected,
            "{version:?}"
        );
    }
}

#[test]
fn tshark_reads_what_is_known_of_a_session_and_no_more() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    for version in [Version::NetflowV9, Version::Ipfix] {
        let config = config::Collector {
            mtu: 9000,
            ..collector(version)
        };
        let pcap = Pcap::new(&config, &forms());
        let complaints = pcap.tshark(&["-Y", "_ws.malformed || _ws.expert"]);
        assert_eq!(complaints, "", "{version:?}");
        pcap.check(&[
            ("nat_event", "4,5,5,5,5,5,5,5,5"),
            // The create and one half of the deletes were inferred.
            ("mp_id", "9,9,9,9,9"),
            ("initiator_octets", "218,218,218,218"),
            ("responder_packets", "8,8,8,8"),
        ]);
        let times = pcap.fields(&["abstimestart", "abstimeend"]);
        assert_eq!(times[0].matches("20:24:48.123").count(), 4, "{times:?}");
        assert_eq!(times[1].matches("20:24:52.567").count(), 8, "{times:?}");
    }
}

#[test]
fn nfdump_reads_the_events_around_gaps() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    for version in VERSIONS {
        let config = config::Collector {
            template_refresh_packets: 2,
            mtu: 576,
            ..collector(version)
        };
        let mixed: Vec<_> = (0..30).flat_map(|_| [events(), gaps()].concat()).collect();
        let capture = capture(&config, &mixed);
        assert_eq!(capture.flows().len(), 120, "{version:?}");
        if version != Version::Ipfix {
            let summary = capture.nfdump(&["-I"]);
            assert!(summary.contains("Sequence failures: 0"), "{summary}");
        }
    }
}

#[test]
fn tshark_reads_gaps_and_finds_nothing_wrong_with_them() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    for version in [Version::NetflowV9, Version::Ipfix] {
        let records = [events(), gaps(), events()].concat();
        let pcap = Pcap::new(&collector(version), &records);
        assert_eq!(
            pcap.tshark(&["-Y", "_ws.malformed || _ws.expert"]),
            "",
            "{version:?}"
        );
        let fields = [
            ("nat_event", "4,5,4,5,4,5,4,5"),
            ("mp_id", "1,2,3,4,5,7,8,10,11"),
            ("flow_exporter", "6"),
            ("flows", "2,8,5,6"),
            ("drop_packets", "3,4,7"),
            ("ignore_packets", "3,4,7"),
        ];
        pcap.check(&fields);
        // The times of four deletes and ten gaps.
        let times = pcap.fields(&["abstimestart", "abstimeend"]);
        assert_eq!(
            times[0].matches("20:24:48.123").count(),
            4 + 10,
            "{times:?}"
        );
        assert_eq!(
            times[1].matches("20:24:52.567").count(),
            4 + 10,
            "{times:?}"
        );
    }
}

#[test]
fn tshark_reads_the_fields_of_dummy_flows() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    let pcap = Pcap::new(&collector(Version::NetflowV5), &events());
    let fields = [
        ("srcaddr", "10.1.2.3,10.1.2.3,198.51.100.5,198.51.100.5"),
        ("srcport", "40356,40356,33000,33000"),
        ("dstaddr", "203.0.113.7,203.0.113.7,10.0.0.53,10.0.0.53"),
        ("dstport", "443,443,5353,5353"),
        ("nexthop", "203.0.113.9,203.0.113.9,203.0.113.9,203.0.113.9"),
        ("srcas", "50520,50520,0,0"),
        ("dstas", "0,0,53,53"),
        ("tcpflags", "0x12,0x05,0x12,0x05"),
        ("protocol", "6,6,17,17"),
    ];
    pcap.check(&fields);
}

fn collector(version: Version) -> config::Collector {
    config::Collector {
        name: None,
        address: "127.0.0.1:0".parse().unwrap(),
        version,
        selection: config::Selection::ANY,
        source_address: None,
        events: true,
        triplet: false,
        flow: false,
        biflow: false,
        aggregation: Vec::new(),
        aggregation_window: Duration::from_secs(60),
        aggregation_records: 1_000_000,
        nat_event: NatEventValues::Rfc8158,
        log_destination: true,
        ingress_vrf: false,
        post_nat_counters: true,
        mtu: 1500,
        template_refresh: Duration::from_secs(1800),
        template_refresh_packets: 20,
        send_buffer: None,
        observation_domain: 5,
        export_delay: Duration::from_secs(1),
    }
}

fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
    Tuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        src_port,
        dst_port,
    }
}

/// The lives of two sessions, one with its source translated and one with its destination.
fn events() -> Vec<Record> {
    let zone = Zone {
        id: 77,
        ..Zone::default()
    };
    let snat = Session {
        original: tuple("10.1.2.3", 40356, "203.0.113.7", 443),
        reply: tuple("203.0.113.7", 443, "203.0.113.9", 50520),
        protocol: Protocol::TCP,
        zone,
        id: Some(1),
        mark: 0,
    };
    let dnat = Session {
        original: tuple("198.51.100.5", 33000, "203.0.113.9", 53),
        reply: tuple("10.0.0.53", 5353, "198.51.100.5", 33000),
        protocol: Protocol::UDP,
        ..snat
    };
    let life = |session, packets: u64, octets: u64| {
        let begun = Wall::from_millis(START + 123);
        let create = NatEvent::create(session, begun, Provenance::Kernel);
        let counters = |factor| Counters {
            packets: factor * packets,
            octets: factor * octets,
        };
        let delete = NatEvent {
            kind: EventKind::Delete,
            time: Wall::from_millis(START + 4567),
            totals: Some(Totals {
                original: counters(1),
                reply: counters(2),
            }),
            ..create
        };
        [create, delete].map(Record::Event)
    };
    [life(snat, 4, 218), life(dnat, 1, 60)].concat()
}

/// An inferred create, and the end of its session with every value known and unknown.
fn forms() -> Vec<Record> {
    let events = events();
    let [Record::Event(create), Record::Event(delete), ..] = events[..] else {
        panic!("{events:?}")
    };
    let mut forms = vec![NatEvent {
        provenance: Provenance::Inferred,
        ..create
    }];
    for provenance in [Provenance::Kernel, Provenance::Inferred] {
        for start in [None, delete.start] {
            forms.extend([None, delete.totals].map(|totals| NatEvent {
                provenance,
                start,
                totals,
                ..delete
            }));
        }
    }
    forms.into_iter().map(Record::Event).collect()
}

/// A gap of each cause, from [`BEGIN`] to [`END`]; counted ones have their index as the count.
fn gaps() -> Vec<Record> {
    GapCause::ALL
        .into_iter()
        .zip([
            None,
            Some(2),
            Some(3),
            Some(4),
            None,
            None,
            Some(8),
            Some(5),
            Some(6),
            Some(7),
        ])
        .map(|(cause, lost)| {
            Record::Gap(Gap {
                cause,
                from: Wall::from_millis(START + 123),
                to: Wall::from_millis(START + 4567),
                lost,
            })
        })
        .collect()
}

fn at(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(START + millis),
        Uptime::from_millis(3_600_000 + millis),
    )
}

/// The named fields of each flow in one line.
fn lines(flows: &[Value], names: &str) -> Vec<String> {
    let line = |flow: &Value| {
        let values: Vec<_> = names
            .split_whitespace()
            .map(|name| match &flow[name] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect();
        values.join(" ")
    };
    flows.iter().map(line).collect()
}
