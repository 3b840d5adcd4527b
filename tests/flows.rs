//! The flows of real traffic, translated and not: in every format, their packets and octets are those that nftables counted.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use support::collector::{self, Decoded, Receiver};
use support::daemon::{Daemon, Home};
use support::gateway::{CLIENT, CLIENT6, Gateway, SERVER, SERVER6, WAN};
use support::record::{self, Fields};
use support::traffic::{Tcp, Udp, loopback, ping};
use support::wait_for;

/// IPv4 is translated, IPv6 is not. The test has one connection of each protocol below.
const RULESET: &str = r#"
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname wan masquerade
  }
}
table inet count {
  counter tcp-original { }
  counter tcp-reply { }
  counter udp-original { }
  counter udp-reply { }
  counter icmp-original { }
  counter icmp-reply { }
  counter icmpv6-original { }
  counter icmpv6-reply { }
  chain forward {
    type filter hook forward priority filter
    meta l4proto tcp ct mark set 42
    ct direction original counter name meta l4proto map {
      tcp : "tcp-original", udp : "udp-original", icmp : "icmp-original", icmpv6 : "icmpv6-original"
    }
    ct direction reply counter name meta l4proto map {
      tcp : "tcp-reply", udp : "udp-reply", icmp : "icmp-reply", icmpv6 : "icmpv6-reply"
    }
  }
}
"#;

/// Packets and octets by the names of the counters.
type Counted = BTreeMap<String, (u64, u64)>;

/// A gateway and its daemon, with one collector of each version and a copy of each format, after their connections ended.
struct Scene {
    counted: Counted,
    /// Of NetFlow v5, v9, IPFIX, and IPFIX with biflows.
    collected: [Vec<Decoded>; 4],
    text: Vec<Fields>,
    csv: String,
}

impl Scene {
    fn new() -> Option<Self> {
        let net = Gateway::new(&["tshark"])?;
        net.nft(RULESET);
        let receiver = || Receiver::bind(&net.gateway, SocketAddr::new(loopback(true), 0));
        let receivers = [receiver(), receiver(), receiver(), receiver()];
        let home = Home::new("");
        let csv = home.path().join("flows.csv");
        // Without the sources, the daemon would log its own messages to the collectors.
        let mut config = format!(
            "[capture]
             set-sysctls = true
             log = \"all\"
             source = [\"10.1.2.0/24\", \"fd00:1:2::/64\"]
             [[syslog]]
             target = \"stdout\"
             records = [\"events\", \"flow\"]
             [[syslog]]
             target = \"file\"
             path = \"{}\"
             records = [\"flow\"]
             ",
            csv.display()
        );
        let versions = ["\"v5\"", "\"v9\"", "\"ipfix\"", "\"ipfix\"\nbiflow = true"];
        for (receiver, version) in receivers.iter().zip(versions) {
            let address = receiver.address();
            config += &format!(
                "[[collector]]\naddress = \"{address}\"\nrecords = [\"flow\"]\nversion = {version}\n"
            );
        }
        home.configure(&config);
        let daemon = Daemon::start(&net.gateway, &home);
        one_connection_of_each_protocol(&net);
        net.end_connections();
        // A flow of each connection, and a create and a delete of the three that are translated.
        let text = daemon.wait_for_records(4 + 2 * 3, record::parse_text);
        daemon.terminate();
        Some(Self {
            counted: counted(&net),
            collected: receivers.map(|receiver| collector::tshark(&receiver.finish())),
            text,
            csv: fs::read_to_string(csv).unwrap(),
        })
    }

    /// The values of the columns `names` in the records of a collector, in the order of protocols and sources.
    fn table(&self, collector: usize, names: &[&str]) -> Vec<String> {
        let row = |record: &Decoded| {
            let values = names.iter().map(|name| {
                let value = record.get(&format!("cflow.{name}"));
                value.map_or("-", String::as_str)
            });
            values.collect::<Vec<_>>().join(" ")
        };
        let mut rows: Vec<_> = self.collected[collector].iter().map(row).collect();
        rows.sort();
        rows
    }

    fn packets_and_octets(&self, name: &str) -> String {
        let (packets, octets) = self.counted[name];
        format!("{packets} {octets}")
    }
}

fn one_connection_of_each_protocol(net: &Gateway) {
    let (client, server) = (&net.client, &net.server);
    let http = (SERVER, 80);
    let mut tcp = Tcp::open(client, (CLIENT, 40_000), http, server, http);
    tcp.exchange(1000, 200_000);
    drop(tcp);
    let dns = (SERVER, 53);
    let mut udp = Udp::open(client, (CLIENT, 40_001), dns, server, dns);
    udp.exchange(30, 300);
    udp.request(31);
    ping(client, CLIENT, SERVER, 77, 3);
    ping(client, CLIENT6, SERVER6, 78, 2);
    // Then no packet of TCP is under way.
    wait_for("both ends of TCP to be closed", || {
        net.conntrack(&["-L", "-p", "tcp"])
            .contains("TIME_WAIT")
            .then_some(())
    });
}

fn counted(net: &Gateway) -> Counted {
    let mut command = Command::new("nft");
    let text = net
        .gateway
        .succeed(command.args(["-j", "list", "counters"]), "");
    let listed: Value = serde_json::from_str(&text).unwrap();
    let objects = listed["nftables"].as_array().unwrap().iter();
    let counters = objects.filter_map(|object| object.get("counter"));
    let number = |counter: &Value, name| counter[name].as_u64().unwrap();
    counters
        .map(|counter| {
            let name = counter["name"].as_str().unwrap().to_owned();
            (name, (number(counter, "packets"), number(counter, "bytes")))
        })
        .collect()
}

#[test]
fn flows_have_the_packets_and_octets_that_nftables_counted() {
    let Some(scene) = Scene::new() else {
        return;
    };
    assert!(scene.counted["tcp-reply"].1 > 200_000);
    assert_eq!(scene.counted["udp-original"], (2, 2 * 28 + 30 + 31));
    let count = |name: &str| scene.packets_and_octets(name);

    let packet = [
        "protocol", "srcaddr", "srcport", "dstaddr", "dstport", "packets", "octets",
    ];
    let mut over_ipv4 = [
        format!("1 {CLIENT} 0 {SERVER} 2048 {}", count("icmp-original")),
        format!("1 {SERVER} 0 {WAN} 0 {}", count("icmp-reply")),
        format!("17 {CLIENT} 40001 {SERVER} 53 {}", count("udp-original")),
        format!("17 {SERVER} 53 {WAN} 40001 {}", count("udp-reply")),
        format!("6 {CLIENT} 40000 {SERVER} 80 {}", count("tcp-original")),
        format!("6 {SERVER} 80 {WAN} 40000 {}", count("tcp-reply")),
    ];
    over_ipv4.sort();
    assert_eq!(scene.table(0, &packet), over_ipv4);

    let post_nat = [
        "post_natsource_ipv4_address",
        "post_naptsource_transport_port",
        "post_natdestination_ipv4_address",
        "post_naptdestination_transport_port",
        "direction",
    ];
    let names = [&packet[..], &["srcaddrv6", "dstaddrv6"], &post_nat].concat();
    let post_nats = [
        format!("{WAN} 0 {SERVER} 2048 1"),
        format!("{SERVER} 0 {CLIENT} 0 0"),
        format!("{WAN} 40001 {SERVER} 53 1"),
        format!("{SERVER} 53 {CLIENT} 40001 0"),
        format!("{WAN} 40000 {SERVER} 80 1"),
        format!("{SERVER} 80 {CLIENT} 40000 0"),
    ];
    let translated = over_ipv4.iter().zip(&post_nats);
    let mut expected: Vec<_> = translated
        .map(|(packet, post_nat)| format!("{packet} - - {post_nat}"))
        .collect();
    for (src, dst, kind, name) in [
        (CLIENT6, SERVER6, 128 * 256, "icmpv6-original"),
        (SERVER6, CLIENT6, 129 * 256, "icmpv6-reply"),
    ] {
        let packet = format!("58 - 0 - {kind} {}", count(name));
        expected.push(format!("{packet} {src} {dst} - - - - -"));
    }
    expected.sort();
    for templated in [1, 2] {
        assert_eq!(scene.table(templated, &names), expected);
    }
    // The reverse elements have the names of those of the original direction, of which this shows the last.
    let names = ["protocol", "packets", "octets", "biflow_direction"];
    let protocols = [(1, "icmp"), (17, "udp"), (58, "icmpv6"), (6, "tcp")];
    let replies = protocols.map(|(number, name)| {
        let reply = count(&format!("{name}-reply"));
        format!("{number} {reply} 1")
    });
    assert_eq!(scene.table(3, &names), replies);

    let fields = [
        "orig_packets",
        "orig_octets",
        "reply_packets",
        "reply_octets",
    ];
    for (_, name) in protocols {
        for event in ["delete", "flow"]
            .into_iter()
            .skip(usize::from(name == "icmpv6"))
        {
            let of_it = |line: &&Fields| line["event"] == event && line["proto"] == name;
            let lines: Vec<_> = scene.text.iter().filter(of_it).collect();
            let found: Vec<_> = fields
                .iter()
                .map(|field| lines[0][*field].as_str())
                .collect();
            let counted = ["original", "reply"].map(|side| count(&format!("{name}-{side}")));
            assert_eq!((lines.len(), found.join(" ")), (1, counted.join(" ")));
        }
    }
    assert_csv(&scene.csv, &over_ipv4);
}

/// A session over IPv6 is a comment.
fn assert_csv(csv: &str, expected: &[String]) {
    let (comments, lines): (Vec<_>, Vec<_>) = csv.lines().partition(|line| line.starts_with('#'));
    assert_eq!(comments.len(), 1, "{csv}");
    // prot, srcaddr, srcport, dstaddr, dstport, dpkts and doctets.
    let row = |line: &str| {
        let fields: Vec<_> = line.split(',').collect();
        [15, 8, 13, 9, 14, 4, 5]
            .map(|index: usize| fields[index])
            .join(" ")
    };
    let mut rows: Vec<_> = lines.into_iter().map(row).collect();
    rows.sort();
    assert_eq!(rows, expected);
}
