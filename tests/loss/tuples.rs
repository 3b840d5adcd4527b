//! The same tuple again and again, exhausted tuples, changing marks, and zones.

use std::net::UdpSocket;

use crate::ledger::{Generator, open};
use crate::support::gateway::{CLIENT, Gateway, SERVER};
use crate::support::record::{Fields, parse_json, parse_millis};
use crate::support::status::number;
use crate::support::wait_for;
use crate::{Scene, records};

fn socket(net: &Gateway, port: u16) -> UdpSocket {
    net.client.run(|| {
        let socket = UdpSocket::bind((CLIENT, port)).unwrap();
        socket.connect((SERVER, 53)).unwrap();
        socket
    })
}

/// Sends a datagram of `octets` octets until the table has `count` entries.
fn begin(net: &Gateway, socket: &UdpSocket, octets: usize, count: usize) {
    wait_for("the session", || {
        // The server may answer that nobody listens.
        let _ = socket.send(&vec![0x5a; octets]);
        (open(net) == count).then_some(())
    });
}

/// The records that the daemon wrote, in order; there are no gaps.
fn lines(scene: Scene) -> Vec<Fields> {
    let Scene { daemon, home, net } = scene;
    daemon.terminate();
    let text = std::fs::read_to_string(records(&home)).unwrap();
    drop(net);
    text.lines().map(parse_json).collect()
}

/// One tuple, 200 sessions, each begun right after the end of the one before.
fn reused(timestamps: bool) {
    const COUNT: u64 = 200;
    let Some(scene) = Scene::new("") else {
        return;
    };
    let keep = if timestamps { "1" } else { "0" };
    let net = &scene.net;
    net.gateway
        .sysctl("net/netfilter/nf_conntrack_timestamp", keep);
    Generator::silence(net);
    let socket = socket(net, 40_000);
    for _ in 0..COUNT {
        begin(net, &socket, 1, 1);
        net.conntrack(&["-D", "-p", "udp"]);
    }
    let metrics = scene.wait_for_deletes(COUNT);
    for way in [
        "/sessions/creates",
        "/sessions/deletes",
        "/events/new",
        "/events/destroy",
    ] {
        assert_eq!(number(&metrics, way), COUNT, "{way}");
    }
    let records = lines(scene);
    assert_eq!(records.len() as u64, 2 * COUNT);
    let mut ended = 0;
    for session in records.chunks(2) {
        assert_eq!(
            (&session[0]["event"][..], &session[1]["event"][..]),
            ("create", "delete")
        );
        let (start, end) = (&session[1]["start"], &session[1]["end"]);
        assert!(ended <= parse_millis(start) && parse_millis(start) <= parse_millis(end));
        ended = parse_millis(end);
    }
}

#[test]
fn a_tuple_that_comes_again_at_once_is_another_session_each_time() {
    reused(true);
}

#[test]
fn so_it_is_without_the_kernels_timestamps() {
    reused(false);
}

#[test]
fn of_sessions_for_ten_ports_ten_are_recorded_and_the_others_are_in_a_gap() {
    const TRIED: u16 = 40;
    const PORTS: u64 = 10;
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    net.nft(
        "table inet nat {
           chain postrouting {
             type nat hook postrouting priority srcnat
             oifname wan meta l4proto udp masquerade to :50000-50009
           }
         }",
    );
    let scene = Scene::on(net, "");
    Generator::silence(&scene.net);
    for port in 0..TRIED {
        socket(&scene.net, 40_000 + port).send(b"x").unwrap();
    }
    let others = u64::from(TRIED) - PORTS;
    let metrics = scene.wait_for_status("the gap", |metrics| {
        number(metrics, "/gaps/insert-failed/lost") == others
            && number(metrics, "/sessions/creates") == PORTS
    });
    assert_eq!(number(&metrics, "/gaps/table-full/count"), 0);
    scene.net.end_connections();
    scene.wait_for_deletes(PORTS);
    let ledger = scene.finish();
    assert_eq!(ledger.sessions.len() as u64, PORTS);
    let made: Vec<_> = (0..TRIED).map(|port| (40_000 + port, 53)).collect();
    ledger.assert_each_once(&made);
    let lost: u64 = ledger.gaps.iter().map(|gap| gap.lost.unwrap()).sum();
    assert_eq!(lost, others);
    assert_eq!(ledger.gaps_of("insert-failed").len(), ledger.gaps.len());
}

#[test]
fn a_mark_that_changes_costs_no_end_and_a_late_one_no_session() {
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    // The length of the latest datagram decides: 1 octet is the logged mark, 2 another.
    net.nft(
        "table inet nat {
           chain postrouting {
             type nat hook postrouting priority srcnat
             oifname wan masquerade
           }
           chain forward {
             type filter hook forward priority mangle
             udp length 9 ct mark set 0x1
             udp length 10 ct mark set 0x2
           }
         }",
    );
    let scene = Scene::on(net, "mark = \"0x1\"\nresync = \"1s\"\n");
    let net = &scene.net;
    Generator::silence(net);
    let datagrams: [&[usize]; 4] = [&[1, 2], &[2, 1], &[1, 1], &[2, 2]];
    for (number, lengths) in datagrams.into_iter().enumerate() {
        let socket = socket(net, 40_000 + number as u16);
        for &octets in lengths {
            begin(net, &socket, octets, number + 1);
        }
    }
    // Audits take place meanwhile: a session whose mark has changed is still the one that was announced.
    let audits = number(&crate::ask(&scene.home), "/sessions/audits");
    scene.wait_for_status("an audit", |metrics| {
        number(metrics, "/sessions/audits") > audits + 1
    });
    net.end_connections();
    let metrics = scene.wait_for_deletes(3);
    assert_eq!(number(&metrics, "/sessions/creates"), 3);
    assert_eq!(number(&metrics, "/sessions/inferred_ends"), 0);
    let ledger = scene.finish();
    ledger.assert_complete(&[(40_000, 53), (40_001, 53), (40_002, 53)]);
}

#[test]
fn the_same_tuple_in_two_zones_is_two_sessions() {
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    // The length of the datagram decides.
    net.nft(
        "table inet nat {
           chain raw {
             type filter hook prerouting priority raw
             udp length 9 ct zone set 1
             udp length 10 ct zone set 2
           }
           chain postrouting {
             type nat hook postrouting priority srcnat
             oifname wan masquerade
           }
         }",
    );
    let scene = Scene::on(net, "");
    let net = &scene.net;
    Generator::silence(net);
    let socket = socket(net, 40_000);
    begin(net, &socket, 1, 1);
    begin(net, &socket, 2, 2);
    scene.wait_for_status("both", |metrics| number(metrics, "/sessions/pending") == 2);
    net.conntrack(&["-D", "-w", "1"]);
    scene.wait_for_status("one end", |metrics| {
        number(metrics, "/sessions/pending") == 1
    });
    begin(net, &socket, 1, 2);
    net.end_connections();
    scene.wait_for_deletes(3);
    let records = lines(scene);
    let seen: Vec<_> = records
        .iter()
        .map(|r| (&r["event"][..], &r["zone"][..]))
        .collect();
    let count = |event, zone| seen.iter().filter(|s| **s == (event, zone)).count();
    for event in ["create", "delete"] {
        assert_eq!((count(event, "1"), count(event, "2")), (2, 1), "{seen:?}");
    }
    assert_eq!(
        seen[..3],
        [("create", "1"), ("create", "2"), ("delete", "1")]
    );
}
