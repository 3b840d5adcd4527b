//! The socket half, over loopback; only the receiving side waits.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{NatEventValues, Version};
use crate::session::{Gap, GapCause, NatEvent};
use crate::time::Wall;
use crate::wire::samples::{create, nat66, snat};

fn config(address: SocketAddr, version: Version) -> config::Collector {
    config::Collector {
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

fn at(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(1_795_206_288_000 + millis),
        Uptime::from_millis(3_600_000 + millis),
    )
}

fn event() -> NatEvent {
    create(snat(), 1_795_206_288_000)
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
    Collector::new(&config(address, version), None, at(0)).unwrap()
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
    let mut collector = Collector::new(&config, None, at(0)).unwrap();
    collector.push(&Record::Event(event()), at(0));
    collector.drain(at(0));
    let (_, from) = socket.recv_from(&mut [0; 2000]).unwrap();
    assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 77]));
}

#[test]
fn a_later_run_goes_on_from_the_same_port_with_the_next_sequence_number() {
    let (socket, address) = receiver();
    let config = config(address, Version::Ipfix);
    let mut first = Collector::new(&config, None, at(0)).unwrap();
    first.push(&Record::Event(event()), at(0));
    first.drain(at(0));
    let (_, from) = socket.recv_from(&mut [0; 2000]).unwrap();
    let past = first.past();
    assert_eq!(past.port, from.port());
    assert_eq!(past.progress.sequence, first.statistics().sequence);
    drop(first);

    let mut second = Collector::new(&config, Some(&past), at(1)).unwrap();
    second.push(&Record::Event(event()), at(1));
    second.drain(at(1));
    let mut message = [0; 2000];
    let (_, again) = socket.recv_from(&mut message).unwrap();
    assert_eq!(again, from);
    assert_eq!(message[8..12], past.progress.sequence.to_be_bytes());
}

#[test]
fn a_port_that_somebody_else_has_now_costs_only_the_port() {
    let (taken, address) = receiver();
    let config = config(address, Version::NetflowV5);
    let mut past = Collector::new(&config, None, at(0)).unwrap().past();
    past.port = taken.local_addr().unwrap().port();
    past.progress.sequence = 7;
    let again = Collector::new(&config, Some(&past), at(1)).unwrap();
    assert_ne!(again.past().port, past.port);
    assert_eq!(again.past().progress, past.progress);
}

#[test]
fn a_source_that_is_not_this_machines_is_an_error() {
    let config = config::Collector {
        source: Some("192.0.2.1:0".parse().unwrap()),
        ..config("127.0.0.1:2055".parse().unwrap(), Version::NetflowV5)
    };
    let error = Collector::new(&config, None, at(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
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
    let mut collector = Collector::new(&config, None, at(0)).unwrap();
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
fn a_message_that_cannot_be_sent_is_counted_and_the_next_one_tried_later() {
    let (socket, address) = receiver();
    let mut collector = exporter(address, Version::Ipfix);
    for _ in 0..2 {
        collector.push(&Record::Event(event()), at(0));
        collector.packer.flush(at(0), &mut collector.queue);
    }
    // Every send now fails with EPIPE.
    let working = collector.socket.try_clone().unwrap();
    collector.socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.socket.connect(address).unwrap();
    collector.connected = true;
    rustix::net::shutdown(&collector.socket, rustix::net::Shutdown::Write).unwrap();
    collector.flush(at(0));
    let statistics = collector.statistics();
    assert_eq!((statistics.failed, statistics.queued_messages), (1, 1));
    assert_eq!(collector.poll_timeout(), Some(at(5).up));

    working.connect(address).unwrap();
    collector.socket = working;
    collector.flush(at(5));
    assert_eq!(collector.statistics().records, 1);
    assert!(receive(&socket).len() < 100);
    // The templates were in the message that was lost.
    collector.push(&Record::Event(event()), at(6));
    collector.drain(at(6));
    assert!(receive(&socket).len() > 200);
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
    assert_eq!((statistics.not_representable, statistics.gaps), (1, 1));
    assert!(collector.is_idle());
}
