//! The socket half, over loopback; only the receiving side waits.
#![allow(clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use super::*;
use crate::config::{NatEventValues, Version};
use crate::session::{Gap, GapCause, NatEvent};
use crate::time::Wall;
use crate::wire::samples::{create, nat66, snat};

fn config(address: SocketAddr, version: Version) -> config::Collector {
    config::Collector {
        name: None,
        address,
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
        observation_domain: 1,
        export_delay: Duration::from_secs(1),
    }
}

const START: u64 = 1_795_206_288_000;

fn at(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(START + millis),
        Uptime::from_millis(3_600_000 + millis),
    )
}

fn event() -> NatEvent {
    create(snat(), START)
}

fn receiver() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 2000];
    let length = socket.recv(&mut bytes).unwrap();
    bytes[..length].to_vec()
}

fn exporter(address: SocketAddr, version: Version) -> Collector {
    Collector::new(&config(address, version), at(0))
}

/// Every flow record that was packed is somewhere, once.
fn assert_accounted(collector: &Collector) {
    let statistics = collector.statistics();
    let Statistics {
        records,
        failed,
        dropped,
        queued,
        ..
    } = statistics;
    assert_eq!(
        statistics.packed,
        records + failed + dropped + queued,
        "{statistics:?}"
    );
}

#[test]
fn records_arrive_when_their_message_is_due() {
    let (socket, address) = receiver();
    let mut collector = exporter(address, Version::NetflowV5);
    collector.push(&Record::Event(event()), at(0));
    collector.push(&Record::Event(event()), at(10));
    assert_eq!(collector.poll_timeout(), Some(at(1000).up));
    collector.flush(at(999));
    assert_eq!(collector.statistics().messages, 0);
    collector.flush(at(1000));
    assert_eq!(receive(&socket).len(), 24 + 2 * 48);
    let statistics = collector.statistics();
    assert_eq!(
        (
            statistics.messages,
            statistics.records,
            statistics.octets,
            statistics.sequence
        ),
        (1, 2, 120, 2)
    );
    assert!(collector.is_idle());
    assert_eq!(collector.poll_timeout(), None);
}

#[test]
fn draining_sends_the_message_in_hand() {
    let (socket, address) = receiver();
    let mut collector = exporter(address, Version::Ipfix);
    collector.push(&Record::Event(event()), at(0));
    assert!(!collector.is_idle());
    collector.drain(at(1));
    assert!(collector.is_idle());
    assert_eq!(receive(&socket)[..2], [0, 10]);
    assert_eq!(collector.statistics().template_sends, 1);
}

#[test]
fn messages_come_from_the_configured_source() {
    let (socket, address) = receiver();
    let config = config::Collector {
        source: Some("127.0.0.77:0".parse().unwrap()),
        ..config(address, Version::NetflowV5)
    };
    let mut collector = Collector::new(&config, at(0));
    collector.push(&Record::Event(event()), at(0));
    collector.drain(at(0));
    let (_, from) = socket.recv_from(&mut [0; 2000]).unwrap();
    assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 77]));
}

#[test]
fn a_later_run_goes_on_from_the_same_port_with_the_next_sequence_number() {
    for version in [Version::NetflowV5, Version::NetflowV9, Version::Ipfix] {
        let (socket, address) = receiver();
        let send = |collector: &mut Collector, millis| {
            collector.push(&Record::Event(event()), at(millis));
            collector.drain(at(millis));
            let mut message = [0; 2000];
            let (length, from) = socket.recv_from(&mut message).unwrap();
            (message[..length].to_vec(), from)
        };
        let mut first = exporter(address, version);
        let (begin, from) = send(&mut first, 0);
        let past = first.past();
        assert_eq!(past.port, from.port());
        assert_ne!(past.sequence, 0);
        drop(first);

        let mut second = exporter(address, version);
        second.resume(&past);
        assert_eq!(second.past(), past);
        let (mut message, again) = send(&mut second, 0);
        assert_eq!(again, from);
        let field = match version {
            Version::NetflowV5 => 16..20,
            Version::NetflowV9 => 12..16,
            Version::Ipfix => 8..12,
        };
        assert_eq!(message[field.clone()], past.sequence.to_be_bytes());
        // But for that and the exporter's statistics behind it, the second run begins like the first: with templates.
        message[field.clone()].copy_from_slice(&begin[field]);
        assert_eq!(message.len(), begin.len());
        assert_eq!(
            message[..200.min(begin.len())],
            begin[..200.min(begin.len())]
        );
    }
}

#[test]
fn a_port_that_cannot_be_had_again_costs_only_the_port() {
    let (taken, address) = receiver();
    let past = Past {
        port: taken.local_addr().unwrap().port(),
        sequence: 7,
    };
    let config = config::Collector {
        source: Some("127.0.0.1:0".parse().unwrap()),
        ..config(address, Version::NetflowV5)
    };
    let mut collector = Collector::new(&config, at(0));
    collector.resume(&past);
    collector.push(&Record::Event(event()), at(0));
    collector.drain(at(0));
    let (_, from) = taken.recv_from(&mut [0; 2000]).unwrap();
    assert_ne!(from.port(), past.port);
    assert_eq!(collector.past().sequence, 8);
}

#[test]
fn a_run_that_does_not_know_how_far_the_last_one_got_leaps() {
    let past = Past {
        port: 1,
        sequence: u32::MAX,
    };
    assert_eq!(past.leaping().sequence, (1 << 24) - 1);
}

#[test]
fn records_wait_for_a_source_that_this_machine_does_not_have_yet() {
    let (socket, address) = receiver();
    let config = config::Collector {
        source: Some("192.0.2.1:0".parse().unwrap()),
        ..config(address, Version::NetflowV5)
    };
    let mut collector = Collector::new(&config, at(0));
    collector.push(&Record::Event(event()), at(0));
    collector.drain(at(0));
    assert_eq!(collector.statistics().queued_messages, 1);
    assert_eq!(collector.statistics().queued, 1);
    assert_accounted(&collector);
    assert_eq!(collector.poll_timeout(), Some(at(5).up));

    collector.source = "127.0.0.1:0".parse().unwrap();
    collector.flush(at(5));
    assert_eq!(receive(&socket).len(), 24 + 48);
    let statistics = collector.statistics();
    assert_eq!((statistics.records, statistics.failed), (1, 0));
}

#[test]
fn a_refused_port_is_counted_and_no_later_message_is_lost() {
    let (socket, address) = receiver();
    drop(socket);
    let mut collector = exporter(address, Version::Ipfix);
    // The first is lost without a word; the second learns of it and is lost in turn.
    for millis in [0, 1] {
        collector.push(&Record::Event(event()), at(millis));
        collector.drain(at(millis));
    }
    assert_eq!(collector.statistics().refused, 1);
    assert!(collector.is_idle());

    let socket = UdpSocket::bind(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    collector.push(&Record::Event(event()), at(2));
    collector.drain(at(2));
    let statistics = collector.statistics();
    assert_eq!((statistics.refused, statistics.messages), (2, 3));
    // The templates went with the refused messages, so they come again.
    assert!(receive(&socket).len() > 200);
    assert_ne!(collector.trouble.kinds, 0);

    for millis in [10_002, 10_003] {
        collector.push(&Record::Event(event()), at(millis));
        collector.drain(at(millis));
    }
    assert_eq!(collector.statistics().refused, 2);
    assert_eq!(collector.trouble.kinds, 0);
}

#[test]
fn an_unreachable_collector_keeps_its_records_and_backs_off() {
    // A socket bound to the loopback address has no way to any other (EINVAL).
    let config = config::Collector {
        source: Some("127.0.0.1:0".parse().unwrap()),
        ..config("192.0.2.1:2055".parse().unwrap(), Version::NetflowV5)
    };
    let mut collector = Collector::new(&config, at(0));
    collector.push(&Record::Event(event()), at(0));
    let mut tries = Vec::new();
    let mut now = 0;
    for _ in 0..11 {
        collector.drain(at(now));
        let next = collector.poll_timeout().unwrap();
        let wait = next.saturating_since(at(now).up).as_millis() as u64;
        tries.push(wait);
        // Not before its time.
        collector.flush(at(now + wait - 1));
        assert_eq!(collector.poll_timeout(), Some(next));
        now += wait;
    }
    assert_eq!(tries, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    assert_eq!(collector.statistics().queued_messages, 1);
}

#[test]
fn a_broken_way_costs_no_message() {
    let (socket, address) = receiver();
    let mut collector = exporter(address, Version::Ipfix);
    collector.connect().unwrap();
    // Every send now fails with EPIPE.
    let broken = UdpSocket::bind("127.0.0.1:0").unwrap();
    broken.connect(address).unwrap();
    rustix::net::shutdown(&broken, rustix::net::Shutdown::Write).unwrap();
    let working = collector.socket.replace(broken).unwrap();
    for millis in [0, 1] {
        collector.push(&Record::Event(event()), at(millis));
        collector.drain(at(millis));
    }
    assert_eq!(collector.statistics().queued_messages, 2);
    assert_eq!(collector.poll_timeout(), Some(at(5).up));

    collector.socket = Some(working);
    collector.flush(at(5));
    assert!(receive(&socket).len() > 200);
    assert!(receive(&socket).len() < 100);
    let statistics = collector.statistics();
    assert_eq!((statistics.records, statistics.failed), (2, 0));
    assert!(!collector.packer.has_losses());
}

/// Lets every message of more than about 4.5 KiB fail with EMSGSIZE and the others vanish, and gives back the socket that
/// works.
fn narrow_socket(collector: &mut Collector) -> UdpSocket {
    collector.connect().unwrap();
    let (narrow, other) = UnixDatagram::pair().unwrap();
    sockopt::set_socket_send_buffer_size(&narrow, 1).unwrap();
    narrow.set_nonblocking(true).unwrap();
    // Kept open, or there would be other errors.
    std::mem::forget(other);
    let narrow = UdpSocket::from(OwnedFd::from(narrow));
    collector.socket.replace(narrow).unwrap()
}

/// Pushes what fills a message of more than 4.5 KiB.
fn push_large(collector: &mut Collector, millis: u64) {
    for _ in 0..150 {
        collector.push(&Record::Event(create(snat(), START + millis)), at(millis));
    }
}

fn jumbo(address: SocketAddr) -> Collector {
    let config = config::Collector {
        mtu: 9000,
        ..config(address, Version::Ipfix)
    };
    Collector::new(&config, at(0))
}

#[test]
fn a_message_too_large_for_the_way_is_lost_and_told_with_the_next_record() {
    let (socket, address) = receiver();
    let mut collector = jumbo(address);
    let working = narrow_socket(&mut collector);
    push_large(&mut collector, 0);
    collector.drain(at(0));
    let statistics = collector.statistics();
    assert_eq!((statistics.failed, statistics.records), (150, 0));
    assert_accounted(&collector);
    assert_eq!(collector.poll_timeout(), Some(at(5).up));

    collector.socket = Some(working);
    collector.push(&Record::Event(event()), at(1));
    collector.drain(at(5));
    // The templates were in the message that was lost.
    let message = receive(&socket);
    assert!(message.len() > 400);
    assert_eq!(gap_record(&message, 265), None);
    // Messages leave again, so that the gap may follow.
    assert_eq!(collector.poll_timeout(), Some(at(1005).up));
    collector.push(&Record::Event(event()), at(6));
    collector.flush(at(1005));
    let gap = gap_record(&receive(&socket), 265).unwrap();
    assert_eq!(gap, [START, START, 150, 150]);
    let statistics = collector.statistics();
    assert_eq!((statistics.records, statistics.gaps), (2, 1));
    assert!(collector.is_idle());
}

/// From, to (milliseconds), lost and total of the first gap in data set `id` of an IPFIX message; for the uncounted 266
/// only the times.
fn gap_record(message: &[u8], id: u16) -> Option<Vec<u64>> {
    let mut rest = &message[16..];
    while !rest.is_empty() {
        let (set, length) = (
            u16::from_be_bytes([rest[0], rest[1]]),
            usize::from(u16::from_be_bytes([rest[2], rest[3]])),
        );
        if set == id {
            let (scope, values) = if id == 265 { (4, 4) } else { (8, 2) };
            let values = rest[4 + scope..].chunks(8).take(values);
            return Some(
                values
                    .map(|value| u64::from_be_bytes(value.try_into().unwrap()))
                    .collect(),
            );
        }
        rest = &rest[length..];
    }
    None
}

#[test]
fn an_idle_collector_is_told_what_it_missed_without_waiting_for_a_record() {
    let (socket, address) = receiver();
    let mut collector = jumbo(address);
    let working = narrow_socket(&mut collector);
    push_large(&mut collector, 0);
    collector.drain(at(0));
    push_large(&mut collector, 100);
    collector.connected = true;
    collector.drain(at(100));
    assert_eq!(collector.statistics().failed, 300);
    let next = collector.poll_timeout().unwrap();
    assert!(next > at(100).up);

    collector.socket = Some(working);
    collector.flush(at(200));
    let gap = gap_record(&receive(&socket), 265).unwrap();
    assert_eq!(gap, [START, START + 100, 300, 300]);
    assert!(!collector.packer.has_losses());
    assert!(collector.is_idle());
}

#[test]
fn an_overflow_is_one_gap_that_follows_what_was_queued() {
    let (_socket, address) = receiver();
    let mut collector = exporter(address, Version::Ipfix);
    // Nothing is flushed, as while a full socket is waited for.
    let mut pushed = 0;
    while collector.statistics().dropped < 1000 {
        let millis = pushed / 100;
        collector.push(&Record::Event(create(snat(), START + millis)), at(millis));
        pushed += 1;
    }
    // Over this way no message gets lost: when it is full, the sender has to wait.
    let (way, end) = UnixDatagram::pair().unwrap();
    way.set_nonblocking(true).unwrap();
    end.set_nonblocking(true).unwrap();
    collector.connect().unwrap();
    collector.socket = Some(UdpSocket::from(OwnedFd::from(way)));
    let (mut gaps, mut now, mut bytes) = (Vec::new(), 2000, [0; 2000]);
    while !collector.is_idle() || collector.packer.has_losses() {
        now += 1000;
        collector.flush(at(now));
        while let Ok(length) = end.recv(&mut bytes) {
            gaps.extend(gap_record(&bytes[..length], 265));
        }
    }
    let statistics = collector.statistics();
    let [from, to, lost, total] = gaps.concat()[..] else {
        panic!("{gaps:?}")
    };
    assert_eq!([lost, total], [statistics.dropped; 2]);
    assert!(START < from && from <= to && to <= START + pushed / 100);
    assert_eq!(statistics.records + lost, pushed);
}

#[test]
fn refused_messages_are_told_without_a_count_when_nothing_is_refused_any_more() {
    let (socket, address) = receiver();
    drop(socket);
    let mut collector = exporter(address, Version::Ipfix);
    for millis in [0, 1, 2] {
        let event = create(snat(), START + millis);
        collector.push(&Record::Event(event), at(millis));
        collector.packer.flush(at(millis), &mut collector.queue);
        collector.flush(at(millis));
    }
    assert_eq!(collector.statistics().refused, 2);
    let socket = UdpSocket::bind(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    assert_eq!(collector.poll_timeout(), Some(at(10_002).up));
    collector.flush(at(10_001));
    assert_eq!(collector.statistics().gaps, 0);
    collector.flush(at(10_002));
    let gap = gap_record(&receive(&socket), 266).unwrap();
    assert_eq!(gap, [START, START + 1]);
    // Only now the error of the third message has come back.
    assert_eq!(collector.poll_timeout(), Some(at(20_002).up));
    collector.flush(at(20_002));
    let gap = gap_record(&receive(&socket), 266).unwrap();
    assert_eq!(gap, [START + 2, START + 2]);
    assert_eq!(collector.statistics().refused, 3);
}

#[test]
fn gaps_are_sent_and_counted() {
    let (socket, address) = receiver();
    let mut collector = exporter(address, Version::Ipfix);
    collector.push(
        &Record::Gap(Gap {
            cause: GapCause::Restart,
            from: at(0).wall,
            to: at(1).wall,
            lost: None,
        }),
        at(1),
    );
    assert_eq!(collector.poll_timeout(), Some(at(1001).up));
    collector.flush(at(1001));
    let gap = gap_record(&receive(&socket), 266).unwrap();
    assert_eq!(gap, [START, START + 1]);
    let statistics = collector.statistics();
    assert_eq!((statistics.gaps, statistics.records), (1, 0));
    assert_eq!(statistics.not_representable, 0);
}

#[test]
fn what_the_queue_cannot_hold_is_dropped_and_counted() {
    let (socket, address) = receiver();
    drop(socket);
    let mut collector = exporter(address, Version::NetflowV5);
    // Nothing is flushed, as while a full socket is waited for.
    for _ in 0..100_000 {
        collector.push(&Record::Event(event()), at(0));
    }
    let statistics = collector.statistics();
    let queued = statistics.queued_messages * 30;
    assert!(statistics.dropped > 0);
    assert!(queued + statistics.dropped + 30 > 100_000);
    assert!(statistics.queued_octets <= QUEUE_LIMIT as u64);
    assert_eq!(statistics.peak_octets, statistics.queued_octets);
    assert_eq!(statistics.packed, 100_000);
    assert_accounted(&collector);
}

#[test]
fn one_call_sends_no_more_than_a_burst() {
    let (_socket, address) = receiver();
    let mut collector = exporter(address, Version::NetflowV5);
    for _ in 0..30 * (BURST + 6) {
        collector.push(&Record::Event(event()), at(0));
    }
    collector.drain(at(0));
    assert_eq!(collector.statistics().messages, BURST as u64);
    // The rest is due at once.
    assert!(collector.poll_timeout().unwrap() <= at(0).up);
    collector.flush(at(0));
    assert!(collector.is_idle());
}

#[test]
fn what_has_no_record_is_counted() {
    let (_socket, address) = receiver();
    let mut collector = exporter(address, Version::NetflowV5);
    collector.push(&Record::Event(create(nat66(), 0)), at(0));
    collector.push(
        &Record::Gap(Gap {
            cause: GapCause::Restart,
            from: at(0).wall,
            to: at(1).wall,
            lost: None,
        }),
        at(1),
    );
    let statistics = collector.statistics();
    assert_eq!((statistics.not_representable, statistics.gaps), (2, 0));
    assert!(collector.is_idle());
}
