//! Monitor ports: real frames to foreign stations come out as records, one for each connection with exact counters, while the
//! gateway goes on with its own NAT, and nothing ever leaves by the port.
//!
//! A veth pair is the cable from the switch; see [`scene`]. The tests of method tc need CONFIG_NET_CLS_MATCHALL and
//! CONFIG_NET_ACT_CT and say by name where they did not run, also under CI: no package can provide them.

#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines for real processes need the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

mod frames;
mod scene;
mod setup;

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::Command;

use frames::Script;
use rustix::process::Signal;
use scene::{Scene, assert_mirrored, ended, reported};
use support::gateway::{CLIENT, SERVER};
use support::netns::{Namespace, unique};
use support::packet;
use support::recipe;
use support::traffic::Udp;
use support::{record, wait_for};

/// Stations beyond the switch; the first two are also the gateway's own neighbours.
const ALICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1));
const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 80));

fn alice6() -> IpAddr {
    "2001:db8:a::1".parse().unwrap()
}

fn bob6() -> IpAddr {
    "2001:db8:b::2".parse().unwrap()
}

/// Traffic of all kinds, among it a connection with the addresses and ports of the gateway's own.
fn everything() -> Script {
    let mut script = Script::default();
    script.download((ALICE, 40_001), (BOB, 443), 8);
    script.reset((ALICE, 40_002), (BOB, 443));
    script.udp((ALICE, 40_003), (BOB, 53), 30);
    script.udp((BOB, 53), (ALICE, 40_003), 300);
    script.unreachable("192.0.2.1".parse().unwrap(), (ALICE, 40_003), (BOB, 53));
    script.echo(ALICE, BOB, 77);
    script.fragments((ALICE, 40_004), (BOB, 2049), 1800, false);
    script.fragments((ALICE, 40_005), (BOB, 2049), 1801, true);
    script.download((alice6(), 40_001), (bob6(), 443), 7);
    script.udp((alice6(), 40_003), (bob6(), 53), 31);
    script.echo(alice6(), bob6(), 78);
    script.fragments((alice6(), 40_004), (bob6(), 2049), 1900, false);
    script.vlan = Some(10);
    script.udp((ALICE, 40_010), (BOB, 53), 40);
    script.udp((BOB, 53), (ALICE, 40_010), 41);
    script.download((alice6(), 40_011), (bob6(), 80), 7);
    script.vlan = None;
    // The gateway has a connection of its own between the same ends.
    script.udp((CLIENT, 40_000), (SERVER, 53), 99);
    // What asks for an answer: a neighbour, an address, a spanning tree, a neighbour of IPv6's.
    script.other([0xff; 6], 0x0806, &arp_request());
    script.other([1, 0x80, 0xc2, 0, 0, 0], 0x0027, &[0x42; 39]);
    script.other([1, 0x80, 0xc2, 0, 0, 0xe], 0x88cc, &[2; 40]);
    script
}

/// Who has 10.1.2.1, the gateway's own address?
fn arp_request() -> Vec<u8> {
    let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 9, 0, 1];
    request.extend([0, 0, 0, 0, 0, 0, 10, 1, 2, 1]);
    request
}

const GATEWAY: &str = "
[capture]
set-sysctls = true
";

/// The gateway's own traffic, in the middle of the mirror's: the records of its daemon are this one connection.
fn own_traffic(scene: &Scene) {
    let net = &scene.net;
    let mut udp = Udp::open(
        &net.client,
        (CLIENT, 40_000),
        (SERVER, 53),
        &net.server,
        (SERVER, 53),
    );
    udp.exchange(10, 20);
}

const OWN: [(u64, u64); 2] = [(1, 38), (1, 48)];

#[test]
fn a_namespace_tells_mirrored_connections_from_the_gateways_own() {
    mirrored_in_a_namespace("nft", "", ["", ""]);
}

#[test]
fn mark_and_zone_are_in_the_records_of_mirrored_connections() {
    mirrored_in_a_namespace("nft", "mark = 0x10\nzone = 9\n", ["0x10", "9"]);
}

#[test]
fn tc_in_a_namespace_of_its_own() {
    if has_action_ct() {
        mirrored_in_a_namespace("tc", "mark = 0x10\nzone = 9\n", ["0x10", "9"]);
    }
}

fn mirrored_in_a_namespace(method: &str, marks: &str, expected: [&str; 2]) {
    let Some(scene) = Scene::new() else {
        return;
    };
    let namespace = scene.monitor.name();
    let config = format!(
        "[capture]\nnamespace = \"{namespace}\"\nlog = \"all\"\n
         [[monitor]]\ninterface = \"eth1\"\nnamespace = \"{namespace}\"\nmethod = \"{method}\"\n{marks}"
    );
    scene.succeed(&["monitor", "up"], &config);
    let (own, _home) = scene.daemon("own", GATEWAY);
    let (flows, _other) = scene.daemon("flows", &config);
    let mut script = everything();
    if method == "nft" {
        // What cannot be routed, and a second VLAN tag, are limits of this method.
        script.unseen((ALICE, 40_020), (BOB, 53), 1);
        script.vlan = Some(10);
        let mut inner = Script {
            vlan: Some(11),
            ..Script::default()
        };
        inner.unseen((ALICE, 40_021), (BOB, 53), 64);
        let tagged = [
            &inner.frames[0][..12],
            &[0x81, 0, 0, 10],
            &inner.frames[0][12..],
        ]
        .concat();
        script.frames.push(tagged);
    }
    own_traffic(&scene);
    scene.send(&script);
    let mirrored = ended(&flows, &scene.monitor, script.connections.len());
    assert_mirrored(mirrored, &script, expected);
    assert_own(&scene, &own);
    drop((own, flows));
    scene.assert_silent();
    scene.succeed(&["monitor", "down"], &config);
    scene.assert_heard();
}

/// The records of the gateway's daemon are those of its own traffic alone, without mark and zone.
fn assert_own(scene: &Scene, daemon: &support::daemon::Daemon) {
    let own = ended(daemon, &scene.net.gateway, 1);
    let tuple = (packet::UDP, (CLIENT, 40_000), (SERVER, 53));
    assert_eq!(own, [(tuple, OWN, [String::new(), String::new()])]);
}

#[test]
fn tc_beside_the_gateways_own_nat_is_told_apart_by_mark_and_zone() {
    if !has_action_ct() {
        return;
    }
    let Some(scene) = Scene::new() else {
        return;
    };
    let monitor = "[[monitor]]\ninterface = \"eth1\"\nmark = 1\n";
    scene.succeed(&["monitor", "up"], monitor);
    beside_the_gateways_own(&scene, monitor);
    scene.assert_silent();
    scene.succeed(&["monitor", "down"], monitor);
    scene.assert_heard();
}

#[test]
fn the_recipe_of_the_manual_beside_the_gateways_own_nat_is_told_apart_by_mark_and_zone() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let examples = recipe::examples("nattrail-monitor.7", "EXTERNAL");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mirror.nft"), &examples[0]).unwrap();
    let mut shell = Command::new("sh");
    shell.arg("-eu").current_dir(directory.path());
    scene.net.gateway.succeed(&mut shell, &examples[1]);
    let monitor =
        "[[monitor]]\ninterface = \"eth1\"\nmethod = \"external\"\nmark = 1\nzone = 65535\n";
    let up = scene.succeed(&["monitor", "up"], monitor);
    assert_eq!(
        up,
        "monitor eth1: nothing to set up, as its method is \"external\"\n"
    );
    beside_the_gateways_own(&scene, monitor);
    scene.assert_silent();
}

/// Two daemons in one namespace: one logs translated connections, one those with the mark.
fn beside_the_gateways_own(scene: &Scene, monitor: &str) {
    let (own, _home) = scene.daemon("own", GATEWAY);
    let config = format!("{GATEWAY}\ntable = \"flows\"\nlog = \"all\"\nmark = 1\n{monitor}");
    let (flows, _other) = scene.daemon("flows", &config);
    let script = everything();
    own_traffic(scene);
    scene.send(&script);
    let mirrored = ended(&flows, &scene.net.gateway, script.connections.len());
    assert_mirrored(mirrored, &script, ["0x1", "65535"]);
    let tuple = (packet::UDP, (CLIENT, 40_000), (SERVER, 53));
    let own = wait_for("the end of the gateway's own connection", || {
        let own = reported(&own);
        (!own.is_empty()).then_some(own)
    });
    assert_eq!(own, [(tuple, OWN, [String::new(), String::new()])]);
}

#[test]
fn frames_that_the_port_drops_are_a_gap_with_their_number() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let namespace = scene.monitor.name();
    let monitor = format!(
        "[[monitor]]\ninterface = \"eth1\"\nnamespace = \"{namespace}\"\nmethod = \"nft\"\n"
    );
    let config = format!("[capture]\nnamespace = \"{namespace}\"\nlog = \"all\"\n{monitor}");
    scene.succeed(&["monitor", "up"], &config);
    let (flows, home) = scene.daemon("flows", &config);
    // This one does not see the port's connections, so it has no gap.
    let (own, _other) = scene.daemon("own", &format!("{GATEWAY}{monitor}"));
    let mut script = Script::default();
    script.udp((ALICE, 40_003), (BOB, 53), 1000);
    scene.send(&script);
    scene.drop_frames(3);
    let gaps = || -> Vec<_> {
        let lines = flows.printed();
        let gaps = lines.iter().filter(|line| line.contains("\"gap\""));
        gaps.map(|line| record::parse_json(line)).collect()
    };
    let lost = |gaps: &[record::Fields]| -> u64 {
        gaps.iter()
            .filter_map(|gap| gap.get("lost")?.parse::<u64>().ok())
            .sum()
    };
    wait_for("a gap of three frames", || {
        (lost(&gaps()) == 3).then_some(())
    });
    assert!(
        gaps().iter().all(|gap| gap["cause"] == "mirror"),
        "{:#?}",
        gaps()
    );
    scene.succeed(&["monitor", "down"], &config);
    let message = flows.wait_for_message("expected the interface to exist");
    assert!(message.contains("monitor eth1: "), "{message}");
    wait_for("a gap without a number", || {
        gaps()
            .iter()
            .any(|gap| !gap.contains_key("lost"))
            .then_some(())
    });
    scene.succeed(&["monitor", "up"], &config);
    let _ = flows.wait_for_message("monitor eth1: the port is there again");
    let warnings = flows.logged();
    let warnings = warnings
        .iter()
        .filter(|line| line.contains("expected the interface to exist"));
    assert_eq!(warnings.count(), 1, "one line for each change of state");

    // A reload to another port states what is owed for this one.
    scene.succeed(&["monitor", "down"], &config);
    wait_for("the port to be missed again", || {
        let missed = |line: &String| line.contains("expected the interface to exist");
        (flows.logged().iter().filter(|line| missed(line)).count() == 2).then_some(())
    });
    let before = gaps().len();
    let text = fs::read_to_string(home.config()).unwrap();
    home.configure(&text.replace("\"eth1\"", "\"lo\""));
    flows.signal(Signal::HUP);
    wait_for("the gap of the port that is no longer watched", || {
        (gaps().len() > before).then_some(())
    });
    let own = own.terminate();
    assert_eq!(own.stdout, [""; 0]);
    assert!(
        !own.stderr.iter().any(|line| line.contains("eth1")),
        "{:#?}",
        own.stderr
    );
}

#[test]
fn check_names_the_step_that_fails() {
    check_names_the_step("nft");
}

#[test]
fn check_names_the_step_that_fails_with_tc() {
    if has_action_ct() {
        check_names_the_step("tc");
    }
}

fn check_names_the_step(method: &str) {
    let Some(scene) = Scene::new() else {
        return;
    };
    let namespace = scene.monitor.name();
    let config = format!(
        "[capture]\nnamespace = \"{namespace}\"\nlog = \"all\"\nset-sysctls = true\n
         [[monitor]]\ninterface = \"eth1\"\nnamespace = \"{namespace}\"\nmethod = \"{method}\"\n"
    );
    let lines = || -> Vec<String> {
        let output = scene.command(&["check"], &config);
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| line.contains(" monitor eth1: "));
        lines.map(str::to_owned).collect()
    };
    let last = |part: &str| {
        let lines = lines();
        let last = lines.last().unwrap();
        assert!(
            last.starts_with("error") && last.contains(part),
            "{lines:#?}"
        );
    };
    last("monitor eth1: interface: expected the interface to exist");
    scene.succeed(&["monitor", "up"], &config);
    last("monitor eth1: frames: expected frames to arrive within 2 s");
    let mut script = Script::default();
    script.other([0xff; 6], 0x0806, &arp_request());
    scene.while_sending(&script, || {
        last("monitor eth1: rules: expected IP packets to pass them");
    });
    script.udp((ALICE, 40_003), (BOB, 53), 30);
    scene.while_sending(&script, || {
        let lines = lines();
        assert!(
            lines.iter().all(|line| line.starts_with("ok")),
            "{lines:#?}"
        );
        assert_eq!(lines.len(), 7, "{lines:#?}");
    });
    scene.switch.ip("link set sw down");
    last("monitor eth1: interface: expected a carrier");
}

/// Whether the kernel has tc's action ct; where it does not, this says so past libtest's capture of the output.
fn has_action_ct() -> bool {
    if !support::can_run(&["tc"]) {
        return false;
    }
    let scratch = Namespace::new(unique(), "scratch");
    let tc = |line: &str| {
        let mut command = Command::new("tc");
        command
            .args(line.split(' '))
            .stderr(std::process::Stdio::null());
        scratch
            .spawn(&mut command)
            .unwrap()
            .wait()
            .unwrap()
            .success()
    };
    let filter =
        "filter add dev lo ingress matchall action ct commit zone 9 mark 1 pipe action drop";
    if tc("qdisc add dev lo clsact") && tc(filter) {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let message = format!(
        "\n*** {test} DID NOT RUN: the kernel has no CONFIG_NET_CLS_MATCHALL, CONFIG_NET_ACT_CT or CONFIG_NET_ACT_GACT ***\n"
    );
    std::io::stderr().write_all(message.as_bytes()).unwrap();
    false
}
