//! The selection of logged sessions, and the daemon's preparations at its start: the scope, the filters, mark and zone,
//! its own table that keeps connection tracking on, the kernel's settings.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::conntrack::{Flow, Watch};
use support::daemon::{CAPTURE, Daemon, Home, PROGRAM, STDOUT_TEXT};
use support::gateway::{CLIENT, CLIENT6, Gateway, MASQUERADE, NEIGHBOUR, SERVER, SERVER6};
use support::scene::{Scene, destroyed};
use support::traffic::{Udp, ping};
use support::{packet, record, wait_for};

#[test]
fn mark_and_zone_are_in_the_record() {
    let ruleset = format!(
        "{MASQUERADE}
         table ip mangle {{
           chain raw {{
             type filter hook prerouting priority raw
             ct zone set 7
           }}
           chain forward {{
             type filter hook forward priority mangle
             udp dport 53 ct mark set 0xbeef
           }}
         }}"
    );
    let Some(scene) = Scene::new(&ruleset, "") else {
        return;
    };
    scene
        .udp((CLIENT, 40_000), (SERVER, 53), (SERVER, 53))
        .exchange(1, 1);
    let events = scene.compare_translated(&[(packet::UDP, "snat")]);
    assert_eq!(destroyed(&events).zone, 7);
    assert_eq!(destroyed(&events).mark, 0xbeef);
}

#[test]
fn untranslated_connections_are_logged_only_when_asked_for() {
    let everything = "log = \"all\"\n";
    for (capture, expected) in [("", 1), (everything, 2)] {
        let Some(scene) = Scene::new(
            "table ip nat {
               chain postrouting {
                 type nat hook postrouting priority srcnat
                 oifname wan udp dport 53 masquerade
               }
             }",
            capture,
        ) else {
            return;
        };
        for port in [53, 123] {
            scene
                .udp((CLIENT, 40_000 + port), (SERVER, port), (SERVER, port))
                .exchange(1, 1);
        }
        let events = scene.compare(|flow| capture == everything || flow.nat() != "none");
        assert_eq!(events.len(), 2 * expected);
    }
}

/// Sends one datagram from each of two hosts to each of two ports, marked by the port, and expects those that pass the
/// filter.
fn filtered(filter: &str, passes: impl Fn(&Flow) -> bool, expected: usize) {
    let ruleset = format!(
        "{MASQUERADE}
         table ip mangle {{
           chain forward {{
             type filter hook forward priority mangle
             udp dport 53 ct mark set 0x135
             udp dport 123 ct mark set 0x246
           }}
         }}"
    );
    let Some(scene) = Scene::new(&ruleset, filter) else {
        return;
    };
    for host in [CLIENT, NEIGHBOUR] {
        for port in [53, 123] {
            scene
                .udp((host, 40_000 + port), (SERVER, port), (SERVER, port))
                .exchange(1, 1);
        }
    }
    ping(&scene.net.client, CLIENT, SERVER, 1, 1);
    ping(&scene.net.client, CLIENT6, SERVER6, 1, 1);
    let events = scene.compare(passes);
    assert_eq!(events.len(), 2 * expected);
}

#[test]
fn filter_by_mark() {
    filtered("mark = \"0x30/0xf0\"\n", |flow| flow.mark == 0x135, 2);
}

#[test]
fn filter_by_protocol() {
    filtered(
        "protocols = [\"icmp\", 58]\n",
        |flow| matches!(flow.protocol, packet::ICMP | packet::ICMPV6),
        2,
    );
}

#[test]
fn filter_by_source() {
    filtered(
        "source = [\"10.1.2.4/31\", \"fd00:1::/32\"]\n",
        |flow| flow.original.src == NEIGHBOUR || flow.original.src == CLIENT6,
        3,
    );
}

#[test]
fn filter_by_destination() {
    filtered(
        "destination = [\"2001:db8::/32\"]\n",
        |flow| flow.original.dst == SERVER6,
        1,
    );
}

/// The gateway translates DNS only, marks NTP, and has a zone for another port.
#[test]
fn each_copy_gets_the_connections_of_its_own_selection() {
    let ruleset = "
        table ip nat {
          chain postrouting {
            type nat hook postrouting priority srcnat
            oifname wan udp dport 53 masquerade
          }
        }
        table ip mangle {
          chain raw {
            type filter hook prerouting priority raw
            udp dport 4000 ct zone set 9
            udp sport 4000 ct zone set 9
          }
          chain forward {
            type filter hook forward priority mangle
            udp dport 123 ct mark set 0x77
          }
        }";
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    net.nft(ruleset);
    let home = Home::new("");
    let copies = ["nat", "marked", "zone", "all", "default"];
    let own = [
        "log = \"nat\"",
        "log = \"all\"\nmark = \"0x70/0xf0\"",
        "log = \"all\"\nzone = 9",
        "log = \"all\"\nprotocols = [\"udp\"]",
        "",
    ];
    let copies = copies.map(|name| home.path().join(format!("{name}.json")));
    let mut configuration = format!("{CAPTURE}source = [\"10.0.0.0/8\"]\n");
    for (path, own) in copies.iter().zip(own) {
        let path = path.display();
        configuration += &format!(
            "[[syslog]]\ntarget = \"file\"\npath = \"{path}\"\nformat = \"json\"\n{own}\n"
        );
    }
    home.configure(&configuration);
    let daemon = Daemon::start(&net.gateway, &home);
    let watch = Watch::start(&net.gateway);
    for port in [53, 123, 4000, 5000] {
        let from = (CLIENT, 40_000 + port);
        let to = (SERVER, port);
        Udp::open(&net.client, from, to, &net.server, to).exchange(1, 1);
    }
    ping(&net.client, CLIENT6, SERVER6, 1, 1);
    watch.wait_for_new(&net.table());
    net.end_connections();
    let events = watch.wait_for_ends(|flow| flow.protocol == packet::UDP);
    assert_eq!(events.len(), 2 * 4);
    let records = |path: &Path| -> Vec<(String, String)> {
        let lines = fs::read_to_string(path).unwrap_or_default();
        let records = lines.lines().map(record::parse_json);
        let mut kinds: Vec<_> = records
            .map(|record| (record["pre_dport"].clone(), record["event"].clone()))
            .collect();
        kinds.sort();
        kinds
    };
    let both = |ports: &[&str]| -> Vec<(String, String)> {
        let of =
            |port: &&str| ["create", "delete"].map(|kind| ((*port).to_owned(), kind.to_owned()));
        ports.iter().flat_map(of).collect()
    };
    let ports: [&[&str]; 5] = [
        &["53"],
        &["123"],
        &["4000"],
        &["123", "4000", "5000", "53"],
        &["53"],
    ];
    wait_for("the records of all copies", || {
        let mut pairs = copies.iter().zip(ports);
        let has_all = pairs.all(|(path, ports)| records(path).len() >= 2 * ports.len());
        has_all.then_some(())
    });
    daemon.terminate();
    for (path, ports) in copies.iter().zip(ports) {
        assert_eq!(records(path), both(ports), "{}", path.display());
    }
}

#[test]
fn the_own_table_keeps_connection_tracking_on_and_goes_with_the_daemon() {
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    // No rule of the gateway needs connection tracking: without the daemon's table nothing is tracked.
    let home = Home::new(&format!("{CAPTURE}log = \"all\"\n{STDOUT_TEXT}"));
    let daemon = Daemon::start(&net.gateway, &home);
    let tables = || {
        net.gateway
            .succeed(Command::new("nft").args(["list", "tables"]), "")
    };
    wait_for("the daemon's table", || {
        (tables() == "table inet nattrail\n").then_some(())
    });
    ping(&net.client, CLIENT, SERVER, 9, 1);
    let records = daemon.wait_for_records(1, record::parse_text);
    assert_eq!(records[0]["event"], "create");
    daemon.terminate();
    assert_eq!(tables(), "");
}

#[test]
fn with_no_configuration_events_go_to_the_standard_output() {
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    net.nft(MASQUERADE);
    net.keep_accounts();
    let home = Home::new("");
    let mut command = Command::new(PROGRAM);
    command.arg("run");
    home.dress(&mut command);
    let mut daemon = Daemon::spawn(&net.gateway, &mut command);
    daemon.wait_until_ready(&net.gateway);
    let watch = Watch::start(&net.gateway);
    ping(&net.client, CLIENT, SERVER, 9, 1);
    watch.wait_for_new(&net.table());
    net.end_connections();
    let events = watch.wait_for_ends(|_| true);
    let records = daemon.wait_for_records(2, record::parse_text);
    record::assert_records(&records, &events);
    daemon.terminate();
    assert!(home.state().join("pending.db").exists());
}

#[test]
fn what_the_kernel_does_not_keep_is_said_at_start() {
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    for name in ["events", "acct", "timestamp"] {
        net.gateway
            .sysctl(&format!("net/netfilter/nf_conntrack_{name}"), "0");
    }
    let home = Home::new(STDOUT_TEXT);
    let daemon = Daemon::spawn(&net.gateway, &mut home.command());
    for (name, consequence) in [
        ("events", "nothing can be logged"),
        ("acct", "no packets and octets"),
        ("timestamp", "the times at which nattrail learns of them"),
    ] {
        let message = daemon.wait_for_message(&format!("nf_conntrack_{name}: expected 1, found 0"));
        assert!(message.ends_with(consequence), "{message}");
    }
    daemon.terminate();
}
