//! Connections that are accounted in parts (`capture.active-timeout`), on a real kernel: their flow records add up to
//! their delete records and to what nftables counted, through crashes and planned restarts.
//!
//! The records are read from the record log, which keeps them for a copy that nobody can write.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use nattrail::session::{Counters, EndReason, EventKind, NatEvent, Protocol, Record, Totals};
use nattrail::store::reading;
use support::daemon::{CAPTURE, Daemon, Home};
use support::gateway::{CLIENT, Gateway, MASQUERADE, SERVER};
use support::manager::Manager;
use support::status::{ask, number};
use support::traffic::{Tcp, Udp};
use support::wait_for;

/// The source port of every connection.
const PORT: u16 = 40_000;

const COUNTERS: &str = "
table ip witness {
  counter tcp-original {}
  counter tcp-reply {}
  counter udp-original {}
  counter udp-reply {}
  chain forward {
    type filter hook forward priority filter
    ip saddr 10.1.2.3 tcp sport 40000 counter name tcp-original
    ip daddr 10.1.2.3 tcp dport 40000 counter name tcp-reply
    ip saddr 10.1.2.3 udp sport 40000 counter name udp-original
    ip daddr 10.1.2.3 udp dport 40000 counter name udp-reply
  }
}
";

struct Scene {
    net: Gateway,
    manager: Manager,
    home: Home,
}

impl Scene {
    fn new() -> Option<Self> {
        let net = Gateway::new(&[])?;
        net.nft(MASQUERADE);
        net.nft(COUNTERS);
        let home = Home::new("");
        home.configure(&format!(
            "{CAPTURE}active-timeout = \"1s\"
             [[syslog]]
             target = \"file\"
             format = \"json\"
             path = {:?}
             [pending]
             flush = \"100ms\"
             ",
            home.path().join("nowhere/records")
        ));
        Some(Self {
            net,
            manager: Manager::new(),
            home,
        })
    }

    fn start(&self) -> Daemon {
        self.manager.start(&self.net.gateway, &self.home)
    }

    fn tcp(&self) -> Tcp {
        let (client, server) = (&self.net.client, &self.net.server);
        Tcp::open(client, (CLIENT, PORT), (SERVER, 443), server, (SERVER, 443))
    }

    fn udp(&self) -> Udp {
        let (client, server) = (&self.net.client, &self.net.server);
        Udp::open(client, (CLIENT, PORT), (SERVER, 53), server, (SERVER, 53))
    }

    /// The events of a protocol in the record log.
    fn events(&self, protocol: Protocol) -> Vec<NatEvent> {
        let mut events = Vec::new();
        let database = self.home.state().join("pending.db");
        let read = reading::records(&database, None, |record| match record {
            Record::Event(event) if event.session.protocol == protocol => events.push(event),
            _ => {}
        });
        read.unwrap();
        events
    }

    /// Waits until the log has so many flow records of each protocol.
    fn wait_for_parts(&self, count: usize) {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            wait_for(&format!("{count} flow records of {protocol}"), || {
                let parts = flows(&self.events(protocol)).count();
                (parts >= count).then_some(())
            });
        }
    }

    fn wait_for_delete(&self, protocol: Protocol) -> NatEvent {
        wait_for(&format!("a delete of {protocol}"), || {
            let mut events = self.events(protocol).into_iter();
            events.find(|event| event.kind == EventKind::Delete)
        })
    }

    /// What nftables counted.
    fn counted(&self, protocol: Protocol) -> Totals {
        let counter = |direction| {
            let name = format!("{protocol}-{direction}");
            let mut command = Command::new("nft");
            command.args(["list", "counter", "ip", "witness", &name]);
            let text = self.net.gateway.succeed(&mut command, "");
            let words: Vec<_> = text.split_whitespace().collect();
            let after = |word| {
                let index = words.iter().position(|other| *other == word).unwrap();
                words[index + 1].parse().unwrap()
            };
            Counters {
                packets: after("packets"),
                octets: after("bytes"),
            }
        };
        Totals {
            original: counter("original"),
            reply: counter("reply"),
        }
    }
}

fn flows(events: &[NatEvent]) -> impl Iterator<Item = &NatEvent> {
    events.iter().filter(|event| event.kind == EventKind::Flow)
}

/// The sum of all flow records, each of which begins where the one before ends.
fn sum(events: &[NatEvent]) -> Totals {
    let mut sum = Totals::default();
    let mut until = None;
    for flow in flows(events) {
        assert!(until.is_none() || flow.start == until, "{flow:?}");
        until = Some(flow.time);
        let part = flow.totals.unwrap();
        assert_ne!(part, Totals::default());
        for (sum, part) in [
            (&mut sum.original, part.original),
            (&mut sum.reply, part.reply),
        ] {
            sum.packets += part.packets;
            sum.octets += part.octets;
        }
    }
    sum
}

#[test]
fn parts_add_up_to_the_delete_and_to_what_nftables_counted_through_crashes_and_restarts() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let mut daemon = scene.start();
    let (mut tcp, mut udp) = (scene.tcp(), scene.udp());
    // The stream's timeout of conntrack begins with the third packet.
    for octets in [100, 200] {
        udp.exchange(octets, 2 * octets);
    }
    let ends: [fn(Daemon); 3] = [
        |daemon| drop(daemon.kill()),
        |daemon| drop(daemon.terminate()),
        |daemon| drop(daemon.kill()),
    ];
    for (round, end) in ends.into_iter().enumerate() {
        tcp.exchange(1000, 100_000);
        udp.exchange(300, 1000);
        scene.wait_for_parts(round + 1);
        tcp.exchange(2000, 50_000);
        end(daemon);
        // Nobody listens, and the kernel goes on counting.
        tcp.exchange(10, 20_000);
        udp.exchange(50, 60);
        daemon = scene.start();
    }
    scene.wait_for_parts(4);
    tcp.exchange(1, 1);

    // Sweeps have the kernel notice at once what has expired.
    for name in ["tcp_timeout_time_wait", "udp_timeout", "udp_timeout_stream"] {
        let name = format!("net/netfilter/nf_conntrack_{name}");
        scene.net.gateway.sysctl(&name, "1");
    }
    udp.exchange(7, 7);
    drop(tcp);
    let reasons = [
        (Protocol::TCP, EndReason::Detected),
        (Protocol::UDP, EndReason::Idle),
    ];
    for (protocol, reason) in reasons {
        let delete = scene.wait_for_delete(protocol);
        let events = scene.events(protocol);
        assert_eq!(delete.totals, Some(sum(&events)), "{events:#?}");
        assert_eq!(delete.totals, Some(scene.counted(protocol)));
        assert!(delete.in_parts);
        assert_eq!(delete.end_reason, Some(reason));
        // A sweep may have reported everything just before the end.
        let reasons: Vec<_> = flows(&events).map(|flow| flow.end_reason).collect();
        let (last, earlier) = reasons.split_last().unwrap();
        assert!([Some(EndReason::Active), Some(reason)].contains(last));
        assert!(earlier.iter().all(|one| *one == Some(EndReason::Active)));
        assert_eq!(flows(&events).next().unwrap().start, events[0].start);
        for kind in [EventKind::Create, EventKind::Delete] {
            let count = events.iter().filter(|event| event.kind == kind).count();
            assert_eq!(count, 1, "{kind:?} in {events:#?}");
        }
    }
    let metrics = ask(&scene.home);
    assert!(number(&metrics, "/sessions/sweeps") > 0);
    support::status::assert_conserved(&metrics);
    drop(daemon);
}

#[test]
fn a_connection_that_somebody_deletes_has_no_reason_of_its_end() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let _daemon = scene.start();
    let (mut tcp, mut udp) = (scene.tcp(), scene.udp());
    tcp.exchange(1, 1);
    udp.exchange(1, 1);
    scene.wait_for_parts(1);
    scene.net.end_connections();
    for protocol in [Protocol::TCP, Protocol::UDP] {
        let delete = scene.wait_for_delete(protocol);
        assert_eq!((delete.end_reason, delete.in_parts), (None, true));
    }
}
