//! From the kernel's datagrams to the bytes on the wire, by a script of (time, datagram): no socket, no clock.

#![allow(clippy::unwrap_used)]

#[path = "support/datagram.rs"]
mod datagram;

use std::ops::ControlFlow;

use nattrail::config::{Collector, Config, Format, Syslog, Version};
use nattrail::engine::{Engine, Filter, Policy};
use nattrail::export::encoder::Encoder;
use nattrail::export::queue::Queue;
use nattrail::place::Serial;
use nattrail::session::Record;
use nattrail::time::{Now, Uptime, Wall};
use nattrail::wire::ctnetlink::Event;
use nattrail::wire::netlink::Messages;
use nattrail::wire::syslog::{self, Host, Message};

use datagram::{DESTROY, NEW, START, STOP, bytes};

/// The machine had been up for 100 s when the session began.
const UP_AT_START: u64 = 100_000;

fn at(wall_millis: u64) -> Now {
    let up = UP_AT_START + wall_millis - START;
    Now::new(Wall::from_millis(wall_millis), Uptime::from_millis(up))
}

/// Runs the script and returns the records with the time at which each became known.
fn records(script: &[(Now, &str)]) -> Vec<(Now, Record)> {
    let config = Config::default();
    let filter = Filter::new(config.selections());
    let mut engine = Engine::new(filter, Policy::new(&config), script[0].0);
    let mut records = Vec::new();
    for &(now, hex) in script {
        for message in Messages::new(&bytes(hex)) {
            let event = Event::decode(&message.unwrap()).unwrap().unwrap();
            engine.handle_events(&[event], now);
        }
        while let Some(record) = engine.poll_record() {
            records.push((now, record));
        }
    }
    records
}

/// The session's two records; its end is read 300 ms after it happened.
fn whole_life() -> Vec<(Now, Record)> {
    records(&[(at(START), NEW), (at(STOP + 300), DESTROY)])
}

fn collector(version: Version, events: bool) -> Collector {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), "[[collector]]\naddress = \"127.0.0.1\"\n").unwrap();
    let loaded = Config::load(Some(file.path()), std::iter::empty()).unwrap();
    let mut collector = loaded.config.collectors[0].clone();
    collector.version = version;
    (collector.events, collector.triplet) = (events, !events);
    collector
}

/// The messages of a collector for the whole life of the session, each event sent at its deadline.
fn messages(collector: &Collector) -> Vec<Vec<u8>> {
    let mut packer = Encoder::of_collector(collector, at(START));
    let mut queue = Queue::new();
    for (serial, (now, record)) in (1..).map(Serial).zip(whole_life()) {
        packer.push(&[record], serial, 0, now, &mut queue).unwrap();
        let due = at(now.wall.as_millis() + 1000);
        packer.handle_timeout(due, &mut queue);
    }
    let mut messages = Vec::new();
    while let Some(message) = queue.front() {
        messages.push(message.bytes.to_vec());
        queue.pop();
    }
    messages
}

fn be32(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap().to_be_bytes()
}

#[test]
fn netflow5_events_are_two_dummy_flows_at_the_times_of_the_kernel() {
    let messages = messages(&collector(Version::NetflowV5, true));
    assert_eq!(messages.len(), 2);
    for (index, (time, flags)) in [(START, 0x12), (STOP, 0x05)].into_iter().enumerate() {
        let uptime = be32(UP_AT_START + time - START);
        let mut expected = bytes("0a010203 cb007107 cb007109 0000 0000 00000000 00000000");
        expected.extend(uptime);
        expected.extend(uptime);
        expected.extend(bytes("cc7c 0035 00"));
        expected.push(flags);
        expected.extend(bytes("11 00 cc7c 0000 0000 0000"));
        assert_eq!(&messages[index][24..], expected, "message {index}");
    }
    assert_eq!(messages[0][16..20], be32(0), "flows before the first");
    assert_eq!(messages[1][16..20], be32(1), "flows before the second");
}

#[test]
fn netflow5_triplet_is_pre_nat_post_nat_and_return() {
    let messages = messages(&collector(Version::NetflowV5, false));
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].len(), 24 + 3 * 48);
    let addresses = [
        "0a010203 cb007107",
        "cb007109 cb007107",
        "cb007107 cb007109",
    ];
    let counters = [
        "00000001 0000001f",
        "00000001 0000001f",
        "00000000 00000000",
    ];
    for (index, record) in messages[0][24..].chunks(48).enumerate() {
        assert_eq!(record[..8], bytes(addresses[index]), "addresses {index}");
        assert_eq!(record[8..12], [0; 4], "next hop {index}");
        assert_eq!(record[16..24], bytes(counters[index]), "counters {index}");
        assert_eq!(record[24..28], be32(UP_AT_START), "first {index}");
        let last = UP_AT_START + STOP - START;
        assert_eq!(record[28..32], be32(last), "last {index}");
    }
}

/// Octets of the set with the delete's template, which precedes its first use.
const DELETE_TEMPLATE: usize = 4 + 4 + 4 * 17;

#[test]
fn ipfix_events_are_rfc_8158_sessions_with_totals_in_the_delete() {
    let messages = messages(&collector(Version::Ipfix, true));
    assert_eq!(messages.len(), 2);
    let session = "11 0a010203 cc7c cb007109 cc7c cb007107 0035 cb007107 0035";
    let mut create = START.to_be_bytes().to_vec();
    create.extend(bytes(&format!("04 {session}")));
    let first = &messages[0];
    assert!(
        first
            .windows(create.len())
            .any(|window| window == create.as_slice()),
        "{first:02x?} has no create {create:02x?}"
    );

    let mut delete = STOP.to_be_bytes().to_vec();
    delete.extend(bytes(&format!("05 {session}")));
    for value in [START, STOP, 31, 1, 0, 0] {
        delete.extend(value.to_be_bytes());
    }
    assert_eq!(messages[1][16 + DELETE_TEMPLATE + 4..], delete);
    let length = u16::from_be_bytes([messages[1][2], messages[1][3]]);
    assert_eq!(usize::from(length), messages[1].len());
}

#[test]
fn netflow9_has_the_same_delete_record_as_ipfix() {
    let record = |version, header: usize| {
        messages(&collector(version, true))[1][header + DELETE_TEMPLATE + 4..][..34 + 48].to_vec()
    };
    assert_eq!(record(Version::NetflowV9, 20), record(Version::Ipfix, 16));
}

#[test]
fn csv_has_flow_tools_fields_for_each_record_of_the_triplet() {
    let syslog = Syslog {
        format: Format::Csv,
        ..Config::default().syslog[0].clone()
    };
    let host = Host {
        hostname: "gateway".to_owned(),
        pid: 1,
    };
    let mut encoder = syslog::Encoder::new(&syslog.style(), &host);
    let mut text = String::new();
    for (now, record) in whole_life() {
        let _ = encoder.encode(&record, now, &mut |message: Message<'_>| {
            text.push_str(std::str::from_utf8(message.bytes).unwrap());
            ControlFlow::Continue(())
        });
    }
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines.iter().all(|fields| fields.len() == 18), "{text}");
    let ends: Vec<[&str; 4]> = lines
        .iter()
        .map(|fields| [fields[8], fields[9], fields[13], fields[14]])
        .collect();
    assert_eq!(
        ends,
        [
            ["10.1.2.3", "203.0.113.7", "52348", "53"],
            ["203.0.113.9", "203.0.113.7", "52348", "53"],
            ["203.0.113.7", "203.0.113.9", "53", "52348"],
        ]
    );
    let counters: Vec<[&str; 2]> = lines.iter().map(|fields| [fields[4], fields[5]]).collect();
    assert_eq!(counters, [["1", "31"], ["1", "31"], ["0", "0"]]);
}
