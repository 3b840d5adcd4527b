//! Windows of flows as the collector gets them, with injected time.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::slice::from_ref;

use netflow_parser::NetflowParser;
use proptest::prelude::*;

use super::*;
use crate::export::encoder::{Amount, Encoder};
use crate::export::samples::collector;
use crate::place::Position;
use crate::session::{Gap, GapCause};
use crate::wire::samples::{delete, icmp, nat66, snat, totals, tuple};

const START: u64 = 1_772_366_400_000;

fn at(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(START + millis),
        Uptime::from_millis(50_000 + millis),
    )
}

fn aggregating(version: Version, rules: &str) -> config::Collector {
    config::Collector {
        events: false,
        flow: true,
        aggregation: rules.split(',').map(|rule| rule.parse().unwrap()).collect(),
        ..collector(version)
    }
}

struct Scene {
    encoder: Encoder,
    done: Queue<Load>,
    next: Serial,
}

impl Scene {
    fn new(collector: &config::Collector) -> Self {
        Self {
            encoder: Encoder::of_collector(collector, at(0)),
            done: Queue::new(),
            next: Serial(1),
        }
    }

    fn push(&mut self, record: &Record, millis: u64) -> Result<(), NotRepresentable> {
        let (serial, now) = (self.next, at(millis));
        self.next.0 += 1;
        self.encoder
            .push(from_ref(record), serial, 0, now, &mut self.done)
    }

    fn end(&mut self, event: NatEvent, millis: u64) {
        self.push(&Record::Event(event), millis).unwrap();
    }

    fn take(&mut self) -> Vec<(Vec<u8>, Load)> {
        let mut messages = Vec::new();
        while let Some(message) = self.done.front() {
            messages.push((message.bytes.to_vec(), message.tag));
            self.done.pop();
        }
        messages
    }

    fn flush(&mut self, millis: u64) -> Vec<(Vec<u8>, Load)> {
        self.encoder.flush(at(millis), &mut self.done);
        self.take()
    }

    /// Ends the window, and returns `source:port > destination:port packets octets` of each record in it, sorted.
    fn sums(&mut self, millis: u64) -> Vec<String> {
        let messages = self.flush(millis);
        let flows = messages.iter().flat_map(|(message, _)| records(message));
        let mut lines: Vec<_> = flows
            .map(|it| {
                let (from, to) = (it.ends[0], it.ends[1]);
                format!(
                    "{}:{} > {}:{} {} {}",
                    from.0, from.1, to.0, to.1, it.packets, it.octets
                )
            })
            .collect();
        lines.sort();
        lines
    }
}

/// A record of NetFlow v5.
struct Flow5 {
    ends: [(Ipv4Addr, u16); 2],
    packets: u64,
    octets: u64,
    first: u32,
    last: u32,
}

fn records(message: &[u8]) -> Vec<Flow5> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |all, one| all << 8 | u32::from(*one));
    let flows = message[24..].chunks(48);
    flows
        .map(|bytes| Flow5 {
            ends: [(0, 32), (4, 34)].map(|(address, port)| {
                (
                    Ipv4Addr::from_bits(number(&bytes[address..address + 4])),
                    number(&bytes[port..port + 2]) as u16,
                )
            }),
            packets: number(&bytes[16..20]).into(),
            octets: number(&bytes[20..24]).into(),
            first: number(&bytes[24..28]),
            last: number(&bytes[28..32]),
        })
        .collect()
}

/// A session from 10.1.2.`host`, port 40000, to a port of 198.51.100.5, with 3 packets out and 2 back.
fn ended(host: u8, port: u16, start: u64, millis: u64) -> NatEvent {
    let source = format!("10.1.2.{host}");
    let session = Session {
        original: tuple(&source, 40_000, "198.51.100.5", port),
        reply: tuple("198.51.100.5", port, "203.0.113.9", 50_000 + port),
        protocol: Protocol::UDP,
        ..snat()
    };
    NatEvent {
        totals: Some(totals([3, 2], [300, 200])),
        ..delete(session, START + start, START + millis)
    }
}

const RULES: &str = "10.1.0.0/16=16,10.0.0.0/8=8,80-89=80,80-90=443,3128=80";

#[test]
fn the_first_rule_that_matches_holds_for_each_address_and_port_in_both_directions() {
    let mut scene = Scene::new(&aggregating(Version::NetflowV5, RULES));
    for (host, port) in [(3, 81), (4, 89), (5, 3128), (6, 90), (7, 91)] {
        scene.end(ended(host, port, 0, 10), 10);
    }
    assert_eq!(
        scene.sums(20),
        [
            "10.1.0.0:40000 > 198.51.100.5:443 3 300",
            "10.1.0.0:40000 > 198.51.100.5:80 9 900",
            "10.1.0.0:40000 > 198.51.100.5:91 3 300",
            // The answers go to the translated address.
            "198.51.100.5:443 > 203.0.113.9:50090 2 200",
            "198.51.100.5:80 > 203.0.113.9:50081 2 200",
            "198.51.100.5:80 > 203.0.113.9:50089 2 200",
            "198.51.100.5:80 > 203.0.113.9:53128 2 200",
            "198.51.100.5:91 > 203.0.113.9:50091 2 200",
        ]
    );
}

#[test]
fn rules_of_ports_leave_icmp_types_alone() {
    let mut scene = Scene::new(&aggregating(Version::NetflowV5, "0-65535=0"));
    scene.end(
        NatEvent {
            totals: Some(totals([1, 1], [84, 84])),
            ..delete(icmp(), START, START + 5)
        },
        5,
    );
    assert_eq!(
        scene.sums(6),
        [
            "10.1.2.3:0 > 203.0.113.7:2048 1 84",
            "203.0.113.7:0 > 203.0.113.9:0 1 84"
        ]
    );
}

#[test]
fn a_sum_begins_with_the_first_flow_and_ends_with_the_last() {
    let mut scene = Scene::new(&aggregating(Version::NetflowV5, "10.0.0.0/8=8"));
    let one_way = |event: NatEvent| NatEvent {
        totals: Some(totals([3, 0], [300, 0])),
        ..event
    };
    for (host, start, end) in [(3, 500, 1_000), (4, 200, 700), (5, 900, 990)] {
        scene.end(one_way(ended(host, 80, start, end)), 1_000);
    }
    let messages = scene.flush(1_000);
    let flows = records(&messages[0].0);
    assert_eq!(flows.len(), 1);
    assert_eq!((flows[0].first, flows[0].last), (50_200, 51_000));
}

/// The values of the only data record of some IPFIX messages, by the names of its elements.
fn only_ipfix_record(messages: &[(Vec<u8>, Load)]) -> String {
    let mut parser = NetflowParser::default();
    let mut found = Vec::new();
    for (message, _) in messages {
        let parsed = serde_json::to_value(parser.parse_bytes(message).packets).unwrap();
        for set in parsed[0]["IPFix"]["flowsets"].as_array().unwrap() {
            if let Some(fields) = set["body"]["Data"]["fields"].as_array() {
                found.extend(fields.iter().map(serde_json::Value::to_string));
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn ipv6_prefixes_are_aggregated_and_a_reason_leaves_only_when_all_agree() {
    for (reasons, is_there) in [
        ([EndReason::Idle, EndReason::Idle], true),
        ([EndReason::Idle, EndReason::Detected], false),
    ] {
        let mut scene = Scene::new(&aggregating(Version::Ipfix, "fd00::/8=48,2001:db8::/32=40"));
        for (host, reason) in (1_u128..).zip(reasons) {
            let mut session = nat66();
            session.original.src = std::net::Ipv6Addr::from_bits((0xfd00 << 112) + host).into();
            scene.end(
                NatEvent {
                    totals: Some(totals([3, 0], [300, 0])),
                    end_reason: Some(reason),
                    ..delete(session, START, START + 5)
                },
                5,
            );
        }
        let record = only_ipfix_record(&scene.flush(6));
        for expected in ["\"fd00::\"", "\"2001:db8::\"", "600"] {
            assert!(record.contains(expected), "{expected} in {record}");
        }
        assert_eq!(record.contains("FlowEndReason"), is_there, "{record}");
        assert!(!record.contains("FlowId"), "{record}");
        assert!(!record.contains("PostNat"), "{record}");
    }
}

#[test]
fn a_window_ends_by_the_clock() {
    let mut scene = Scene::new(&aggregating(Version::NetflowV5, RULES));
    scene.end(ended(3, 80, 0, 10), 10);
    assert_eq!(scene.encoder.poll_timeout(), Some(at(60_010).up));
    assert!(!scene.encoder.is_idle());
    scene.encoder.handle_timeout(at(60_009), &mut scene.done);
    assert_eq!(scene.take(), []);
    scene.encoder.handle_timeout(at(60_010), &mut scene.done);
    assert_eq!(scene.take().len(), 1);
    assert!(scene.encoder.is_idle());
    assert_eq!(scene.encoder.poll_timeout(), None);
}

#[test]
fn a_window_of_a_backlog_ends_by_the_times_of_the_records() {
    let mut scene = Scene::new(&aggregating(Version::NetflowV5, RULES));
    for end in [0, 59_999, 60_000, 119_000] {
        scene.end(ended(3, 80, 0, end), 200_000);
    }
    let first = scene.take();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].1.end, Position::before(Serial(3)));
    let packets = |message: &[u8]| records(message).iter().map(|it| it.packets).sum::<u64>();
    assert_eq!(packets(&first[0].0), 10);
    assert_eq!(packets(&scene.flush(200_000)[0].0), 10);
}

#[test]
fn a_gap_leaves_after_the_window_before_it() {
    let mut scene = Scene::new(&aggregating(Version::Ipfix, RULES));
    scene.end(ended(3, 80, 0, 10), 10);
    let gap = Gap {
        cause: GapCause::Overflow,
        from: Wall::from_millis(START),
        to: Wall::from_millis(START + 1),
        lost: Some(1),
    };
    scene.push(&Record::Gap(gap), 10).unwrap();
    let window = scene.take();
    assert_eq!(window.len(), 1);
    let (_, load) = window[0];
    assert_eq!(
        (load.flow_records, load.gaps, load.end),
        (2, 0, Position::before(Serial(2)))
    );
    let after = scene.flush(10);
    assert_eq!(
        (after[0].1.gaps, after[0].1.end),
        (1, Position::before(Serial(3)))
    );
}

#[test]
fn the_messages_of_a_window_end_before_its_first_record_but_the_last() {
    let mut scene = Scene::new(&aggregating(Version::NetflowV5, "0.0.0.0/0=32"));
    for host in 0..100 {
        scene.end(ended(host, 80, 0, 10), 10);
    }
    // It is no part of the window's traffic, but of its records.
    scene.end(
        NatEvent::create(snat(), at(10).wall, Provenance::Kernel),
        10,
    );
    let ends: Vec<_> = scene.flush(11).iter().map(|(_, load)| load.end).collect();
    let before_first = Position::before(Serial(1));
    assert_eq!(
        ends,
        [
            [before_first; 3].as_slice(),
            &[Position::before(Serial(102))],
        ]
        .concat()
    );
}

#[test]
fn a_sum_never_leaves_its_range() {
    let with = |octets| NatEvent {
        totals: Some(totals([1, 1], [octets, 1])),
        ..ended(3, 80, 0, 10)
    };
    let mut scene = Scene::new(&aggregating(Version::Ipfix, RULES));
    scene.end(with(u64::MAX - 1), 10);
    assert_eq!(scene.take(), []);
    scene.end(with(100), 10);
    assert_eq!(scene.take().len(), 1, "the next would be too much");
    scene.flush(10);
    let too_large = Record::Event(with(u64::MAX));
    assert_eq!(scene.push(&too_large, 10), Err(NotRepresentable));
    assert!(scene.encoder.is_idle());
    let mut v5 = Scene::new(&aggregating(Version::NetflowV5, RULES));
    assert_eq!(v5.push(&too_large, 10), Err(NotRepresentable));
}

#[test]
fn a_window_has_no_more_records_than_the_log_keeps() {
    let collector = config::Collector {
        aggregation_records: 3,
        ..aggregating(Version::NetflowV5, "0-65535=0")
    };
    let mut scene = Scene::new(&collector);
    scene.end(ended(1, 5000, 0, 0), 0);
    for serial in 2..=4 {
        // Those of others count as well.
        let (encoder, done) = (&mut scene.encoder, &mut scene.done);
        encoder.push(&[], Serial(serial), 0, at(1), done).unwrap();
    }
    assert_eq!(scene.take()[0].1.end, Position::before(Serial(4)));

    let mut scene = Scene::new(&collector);
    for number in 0..7 {
        scene.end(ended(1, 5000, 0, number), number);
    }
    // Two windows of three, with a record for each direction.
    let sent: usize = scene
        .take()
        .iter()
        .map(|(message, _)| records(message).len())
        .sum();
    assert_eq!(sent, 4);
}

#[test]
fn a_window_has_at_most_so_many_sums() {
    let mut scene = Scene::new(&aggregating(Version::NetflowV5, "10.0.0.0/8=32"));
    for number in 0..MOST as u32 / 2 {
        let mut event = ended(1, 80, 0, 10);
        event.session.original.src = Ipv4Addr::from_bits(0x0a00_0000 + number).into();
        event.session.reply.dst = event.session.original.src;
        scene.end(event, 10);
    }
    assert_eq!(scene.take(), []);
    scene.end(ended(3, 80, 0, 10), 10);
    let sent: usize = scene
        .take()
        .iter()
        .map(|(message, _)| records(message).len())
        .sum();
    assert_eq!(sent, MOST);
    assert_eq!(scene.sums(10).len(), 2);
}

type Traffic = BTreeMap<[(Ipv4Addr, u16); 2], (u64, u64)>;

/// The sums of some messages.
fn traffic(messages: &[(Vec<u8>, Load)]) -> Traffic {
    let mut all = Traffic::new();
    for flow in messages.iter().flat_map(|(message, _)| records(message)) {
        let sum = all.entry(flow.ends).or_default();
        sum.0 += flow.packets;
        sum.1 += flow.octets;
    }
    all
}

#[derive(Clone, Debug)]
enum Step {
    End(NatEvent),
    Pass(u64),
    Timeout,
    Flush,
    /// Everything that was not taken is packed again from the position of the last message that was.
    GoBack(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = (any::<[u8; 2]>(), 78_u16..92, any::<[u32; 4]>(), 0_u64..300).prop_map(
        |([host, other], port, counters, ended_at)| {
            let mut event = ended(host, port, 0, ended_at);
            if other > 128 {
                event.session.original.src = Ipv4Addr::new(10, other, 2, host).into();
            }
            let [a, b, c, d] = counters.map(u64::from);
            // Each record makes a flow, so that a window begins where the one before it ends.
            let (there, back) = (a % 3 + 1, b % 3);
            event.totals = Some(totals([there, back], [c * there, d * back]));
            Step::End(event)
        },
    );
    let step = prop_oneof![
        8 => end,
        1 => (0_u64..90_000).prop_map(Step::Pass),
        1 => Just(Step::Timeout),
        1 => Just(Step::Flush),
        2 => any::<prop::sample::Index>().prop_map(Step::GoBack),
    ];
    proptest::collection::vec(step, 0..150)
}

/// The traffic of the directions, by the keys that the rules of [`RULES`] make of them.
fn expected(events: &[NatEvent]) -> Traffic {
    let end = |address: std::net::IpAddr, port: u16| {
        let std::net::IpAddr::V4(address) = address else {
            unreachable!("only IPv4")
        };
        let address = match address.octets() {
            [10, 1, ..] => Ipv4Addr::new(10, 1, 0, 0),
            [10, ..] => Ipv4Addr::new(10, 0, 0, 0),
            _ => address,
        };
        let port = match port {
            80..=89 | 3128 => 80,
            90 => 443,
            other => other,
        };
        (address, port)
    };
    let mut all = Traffic::new();
    for event in events {
        let Totals { original, reply } = event.totals.unwrap();
        for (packet, counters) in [
            (event.session.original, original),
            (event.session.reply, reply),
        ] {
            if counters.packets > 0 {
                let ends = [
                    end(packet.src, packet.src_port),
                    end(packet.dst, packet.dst_port),
                ];
                let sum = all.entry(ends).or_default();
                sum.0 += counters.packets;
                sum.1 += counters.octets;
            }
        }
    }
    all
}

proptest! {
    /// Messages are taken whole windows at a time here; what is not taken is packed again.
    #[test]
    fn nothing_is_lost_and_nothing_counted_twice(steps in steps()) {
        let mut scene = Scene::new(&aggregating(Version::NetflowV5, RULES));
        let (mut events, mut taken, mut now) = (Vec::new(), Vec::new(), 1_000);
        let (mut position, mut sequence) = (Position::before(Serial(1)), 0);
        let mut waiting: Vec<(Vec<u8>, Load)> = Vec::new();
        for step in steps {
            match step {
                Step::End(event) => {
                    scene.end(event, now);
                    events.push(event);
                }
                Step::Pass(millis) => now += millis,
                Step::Timeout => scene.encoder.handle_timeout(at(now), &mut scene.done),
                Step::Flush => scene.encoder.flush(at(now), &mut scene.done),
                Step::GoBack(index) => {
                    waiting.extend(scene.take());
                    // The messages up to the last one of each window, whose end alone is a new one.
                    let mut windows = vec![(0, position)];
                    for (count, (_, load)) in (1..).zip(&waiting) {
                        if windows.iter().all(|(_, end)| load.end > *end) {
                            windows.push((count, load.end));
                        }
                    }
                    let (count, end) = windows[index.index(windows.len())];
                    position = end;
                    let back = waiting.split_off(count);
                    if let Some((message, load)) = waiting.last() {
                        sequence = load.sequence + records(message).len() as u32;
                    }
                    taken.append(&mut waiting);
                    let back = back.iter().map(|(message, load)| Amount::of(*load, message.len()));
                    scene.encoder.go_back(sequence, back.sum());
                    scene.next = position.serial;
                    for event in &events[position.serial.0 as usize - 1..] {
                        scene.end(*event, now);
                    }
                }
            }
        }
        waiting.extend(scene.flush(now));
        taken.extend(waiting);
        prop_assert_eq!(traffic(&taken), expected(&events));
    }
}
