//! Real traffic through real kernel NAT: the daemon prints what conntrack(8) prints, field by field.
//!
//! Every test makes its own network, lets the daemon and conntrack(8) listen to the same events, sends traffic through
//! and ends the connections. Times are the kernel's own, so they are equal to the millisecond; only the time of a
//! create is that of its report, see `support::record`.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::IpAddr;

use support::conntrack::{Flow, Kind};
use support::gateway::{CLIENT, CLIENT6, LAN, MASQUERADE, NEIGHBOUR, SERVER, SERVER6, WAN, WAN6};
use support::packet;
use support::scene::{Scene, destroyed};
use support::traffic::{self, Tcp, Udp, ping};

#[test]
fn masquerade_of_tcp_udp_and_icmp() {
    let Some(scene) = Scene::new(MASQUERADE, "") else {
        return;
    };
    let server = (SERVER, 443);
    let mut tcp = scene.tcp((CLIENT, 40_356), server, server);
    assert_eq!(tcp.seen_by_server().ip(), WAN);
    tcp.exchange(100_000, 300_000);
    drop(tcp);
    scene
        .udp((CLIENT, 40_357), (SERVER, 53), (SERVER, 53))
        .exchange(60, 500);
    ping(&scene.net.client, CLIENT, SERVER, 4711, 3);

    let events = scene.compare_translated(&[
        (packet::ICMP, "snat"),
        (packet::TCP, "snat"),
        (packet::UDP, "snat"),
    ]);
    // The counters are conntrack's; they match the sent packets, so all of these went through.
    let udp = events
        .iter()
        .find(|event| event.kind == Kind::Destroy && event.protocol == packet::UDP)
        .unwrap();
    assert_eq!(udp.original.octets, Some(20 + 8 + 60));
    assert_eq!(udp.reply.octets, Some(20 + 8 + 500));
    assert_eq!((udp.original.src, udp.reply.dst), (CLIENT, WAN));
}

#[test]
fn source_ports_are_translated_with_the_address() {
    let ruleset = MASQUERADE.replace(
        "oifname wan masquerade",
        "oifname wan meta l4proto { tcp, udp } masquerade to :50000-50099",
    );
    let Some(scene) = Scene::new(&ruleset, "") else {
        return;
    };
    scene
        .udp((CLIENT, 40_356), (SERVER, 53), (SERVER, 53))
        .exchange(1, 1);
    let mut tcp = scene.tcp((CLIENT, 40_356), (SERVER, 443), (SERVER, 443));
    tcp.exchange(1, 1);
    let events = scene.compare_translated(&[(packet::TCP, "snat"), (packet::UDP, "snat")]);
    for event in events {
        assert_eq!(event.original.src_port, 40_356);
        assert!((50_000..50_100).contains(&event.reply.dst_port));
    }
}

#[test]
fn the_identifier_of_an_icmp_query_is_translated() {
    let Some(scene) = Scene::new(MASQUERADE, "") else {
        return;
    };
    // Two hosts use one identifier: behind the masquerade one of them must get another.
    ping(&scene.net.client, CLIENT, SERVER, 7, 1);
    ping(&scene.net.client, NEIGHBOUR, SERVER, 7, 1);
    let events = scene.compare_translated(&[(packet::ICMP, "snat"), (packet::ICMP, "snat")]);
    let second = &events[1];
    assert_eq!(second.original.icmp.unwrap().id, 7);
    assert_ne!(second.reply.icmp.unwrap().id, 7);
}

#[test]
fn destination_nat() {
    let Some(scene) = Scene::new(
        "table ip nat {
           chain prerouting {
             type nat hook prerouting priority dstnat
             ip daddr 203.0.113.9 tcp dport 8080 dnat to 10.1.2.3:80
           }
         }",
        "",
    ) else {
        return;
    };
    let net = &scene.net;
    let mut tcp = Tcp::open(
        &net.server,
        (SERVER, 51_000),
        (WAN, 8080),
        &net.client,
        (CLIENT, 80),
    );
    tcp.exchange(10, 20_000);
    let events = scene.compare_translated(&[(packet::TCP, "dnat")]);
    let event = destroyed(&events);
    assert_eq!((event.original.dst, event.original.dst_port), (WAN, 8080));
    assert_eq!((event.reply.src, event.reply.src_port), (CLIENT, 80));
}

#[test]
fn source_and_destination_nat_of_one_connection() {
    let ruleset = format!(
        "{MASQUERADE}
         table ip forward {{
           chain prerouting {{
             type nat hook prerouting priority dstnat
             ip daddr 198.51.100.1 udp dport 4000 dnat to 203.0.113.7:4001
           }}
         }}"
    );
    let Some(scene) = Scene::new(&ruleset, "") else {
        return;
    };
    let outside = IpAddr::from([198, 51, 100, 1]);
    scene
        .udp((CLIENT, 40_000), (outside, 4000), (SERVER, 4001))
        .exchange(100, 200);
    let events = scene.compare_translated(&[(packet::UDP, "snat+dnat")]);
    let event = destroyed(&events);
    assert_eq!((event.original.src, event.original.dst), (CLIENT, outside));
    assert_eq!((event.reply.src, event.reply.dst), (SERVER, WAN));
}

#[test]
fn hairpin() {
    let Some(scene) = Scene::new(
        "table ip nat {
           chain prerouting {
             type nat hook prerouting priority dstnat
             ip daddr 203.0.113.9 tcp dport 8000 dnat to 10.1.2.4:80
           }
           chain postrouting {
             type nat hook postrouting priority srcnat
             iifname lan oifname lan masquerade
           }
         }",
        "",
    ) else {
        return;
    };
    let net = &scene.net;
    let mut tcp = Tcp::open(
        &net.client,
        (CLIENT, 40_000),
        (WAN, 8000),
        &net.client,
        (NEIGHBOUR, 80),
    );
    assert_eq!(tcp.seen_by_server().ip(), LAN);
    tcp.exchange(10, 10);
    let events = scene.compare_translated(&[(packet::TCP, "snat+dnat")]);
    let event = destroyed(&events);
    assert_eq!((event.original.src, event.original.dst), (CLIENT, WAN));
    assert_eq!((event.reply.src, event.reply.dst), (NEIGHBOUR, LAN));
}

#[test]
fn redirect_to_the_gateway_itself() {
    let Some(scene) = Scene::new(
        "table ip nat {
           chain prerouting {
             type nat hook prerouting priority dstnat
             iifname lan udp dport 53 redirect to :5353
           }
         }",
        "",
    ) else {
        return;
    };
    let net = &scene.net;
    let mut udp = Udp::open(
        &net.client,
        (CLIENT, 40_000),
        (SERVER, 53),
        &net.gateway,
        (LAN, 5353),
    );
    udp.exchange(40, 80);
    let events = scene.compare_translated(&[(packet::UDP, "dnat")]);
    let event = destroyed(&events);
    assert_eq!((event.original.dst, event.original.dst_port), (SERVER, 53));
    assert_eq!((event.reply.src, event.reply.src_port), (LAN, 5353));
}

#[test]
fn ports_alone_are_translated() {
    let Some(scene) = Scene::new(
        "table ip nat {
           chain prerouting {
             type nat hook prerouting priority dstnat
             ip daddr 10.1.2.1 udp dport 53 dnat to 10.1.2.1:5353
           }
           chain postrouting {
             type nat hook postrouting priority srcnat
             oifname wan udp sport 40000 masquerade to :50000-50000
           }
         }",
        "",
    ) else {
        return;
    };
    let net = &scene.net;
    Udp::open(
        &net.client,
        (CLIENT, 40_000),
        (LAN, 53),
        &net.gateway,
        (LAN, 5353),
    )
    .exchange(1, 1);
    Udp::open(
        &net.gateway,
        (WAN, 40_000),
        (SERVER, 4000),
        &net.server,
        (SERVER, 4000),
    )
    .exchange(1, 1);
    let events = scene.compare_translated(&[(packet::UDP, "dnat"), (packet::UDP, "snat")]);
    assert!(events.iter().all(|event| {
        event.original.src == event.reply.dst && event.original.dst == event.reply.src
    }));
}

#[test]
fn netmap() {
    let Some(scene) = Scene::new(
        "table ip nat {
           chain postrouting {
             type nat hook postrouting priority srcnat
             oifname wan snat ip prefix to ip saddr map { 10.1.2.0/24 : 198.51.100.0/24 }
           }
         }",
        "",
    ) else {
        return;
    };
    let mut tcp = scene.tcp((NEIGHBOUR, 40_000), (SERVER, 443), (SERVER, 443));
    tcp.exchange(1, 1);
    ping(&scene.net.client, NEIGHBOUR, SERVER, 1, 1);
    let events = scene.compare_translated(&[(packet::ICMP, "snat"), (packet::TCP, "snat")]);
    assert!(
        events
            .iter()
            .all(|event| event.reply.dst == IpAddr::from([198, 51, 100, 4]))
    );
}

#[test]
fn nat66_masquerade() {
    let Some(scene) = Scene::new(MASQUERADE, "") else {
        return;
    };
    let mut tcp = scene.tcp((CLIENT6, 40_000), (SERVER6, 443), (SERVER6, 443));
    assert_eq!(tcp.seen_by_server().ip(), WAN6);
    tcp.exchange(5000, 5000);
    scene
        .udp((CLIENT6, 40_000), (SERVER6, 53), (SERVER6, 53))
        .exchange(30, 60);
    ping(&scene.net.client, CLIENT6, SERVER6, 4711, 2);
    scene.compare_translated(&[
        (packet::ICMPV6, "snat"),
        (packet::TCP, "snat"),
        (packet::UDP, "snat"),
    ]);
}

#[test]
fn nat66_by_prefix_and_destination() {
    let Some(scene) = Scene::new(
        "table ip6 nat {
           chain prerouting {
             type nat hook prerouting priority dstnat
             ip6 daddr 2001:db8:9::9 tcp dport 8080 dnat to [fd00:1:2::3]:80
           }
           chain postrouting {
             type nat hook postrouting priority srcnat
             oifname wan snat ip6 prefix to ip6 saddr map { fd00:1:2::/64 : 2001:db8:51::/64 }
           }
         }",
        "",
    ) else {
        return;
    };
    scene
        .udp((CLIENT6, 40_000), (SERVER6, 53), (SERVER6, 53))
        .exchange(30, 60);
    let net = &scene.net;
    let mut tcp = Tcp::open(
        &net.server,
        (SERVER6, 51_000),
        (WAN6, 8080),
        &net.client,
        (CLIENT6, 80),
    );
    tcp.exchange(1, 1);
    let events = scene.compare_translated(&[(packet::TCP, "dnat"), (packet::UDP, "snat")]);
    let mapped: IpAddr = "2001:db8:51::3".parse().unwrap();
    assert_eq!(events[0].reply.dst, mapped);
}

#[test]
fn every_protocol_of_the_internet() {
    let Some(scene) = Scene::new(MASQUERADE, "") else {
        return;
    };
    let IpAddr::V4(client) = CLIENT else {
        unreachable!("it is an IPv4 address")
    };
    let IpAddr::V4(server) = SERVER else {
        unreachable!("it is an IPv4 address")
    };
    let net = &scene.net;
    // The kernel checks a UDP-Lite checksum as a UDP one, and tracks no connection with a correct one.
    net.gateway
        .sysctl("net/netfilter/nf_conntrack_checksum", "0");
    let send = |protocol: u8, payload: &[u8]| {
        traffic::send_ip(
            &net.client,
            (CLIENT, SERVER),
            &net.server,
            SERVER,
            protocol,
            payload,
        );
    };
    send(packet::GRE, &packet::gre(100));
    send(packet::GRE, &packet::gre_pptp(0x1234, 40));
    send(packet::SCTP, &packet::sctp_init(2905, 3868));
    send(
        packet::UDPLITE,
        &packet::udplite((client, 1000), (server, 2000), 50),
    );
    send(
        packet::DCCP,
        &packet::dccp_request((client, 1000), (server, 2000)),
    );
    send(packet::EXPERIMENT, b"for experimentation and testing");

    scene.compare_translated(&[
        (packet::DCCP, "snat"),
        (packet::GRE, "snat"),
        (packet::GRE, "snat"),
        (packet::SCTP, "snat"),
        (packet::UDPLITE, "snat"),
        (packet::EXPERIMENT, "snat"),
    ]);
}

#[test]
fn a_session_ends_when_it_expired_not_when_the_kernel_noticed() {
    let Some(scene) = Scene::new(MASQUERADE, "") else {
        return;
    };
    let net = &scene.net;
    net.gateway
        .sysctl("net/netfilter/nf_conntrack_udp_timeout", "1");
    let mut udp = scene.udp((CLIENT, 40_000), (SERVER, 53), (SERVER, 53));
    udp.request(10);
    // Reading the table makes the kernel notice expired entries.
    support::wait_for("the end of the connection", || {
        net.table().is_empty().then_some(())
    });
    udp.request(10);
    let events = scene.compare_translated(&[(packet::UDP, "snat"), (packet::UDP, "snat")]);

    // The sessions share a tuple and often an id, but are two.
    let ended: Vec<&Flow> = events
        .iter()
        .filter(|event| event.kind == Kind::Destroy)
        .collect();
    let lasted = ended[0].stop.unwrap() - ended[0].start.unwrap();
    assert!(
        (900_000_000..2_000_000_000).contains(&lasted),
        "{lasted} ns"
    );
    assert!(ended[1].start.unwrap() > ended[0].stop.unwrap());
}
