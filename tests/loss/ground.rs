//! The environment of the daemon: connections from before it, its nftables table, its network namespace.

use std::process::Command;

use crate::ledger::Generator;
use crate::support::daemon::{CAPTURE, Daemon, Home, STDOUT_TEXT};
use crate::support::gateway::{CLIENT, Gateway, MASQUERADE, SERVER};
use crate::support::netns::{Namespace, succeed, unique};
use crate::support::record::parse_text;
use crate::support::status::number;
use crate::support::traffic::Udp;
use crate::{Scene, home};

/// Connections are made before the daemon, with this value of `nf_conntrack_events`. Returns how many ends the kernel
/// reports.
fn made_before(events: &str) -> Option<u64> {
    const COUNT: u64 = 300;
    let net = Gateway::new(&[])?;
    net.nft(MASQUERADE);
    net.keep_accounts();
    net.gateway
        .sysctl("net/netfilter/nf_conntrack_events", events);
    let made = Generator::new(&net).begin_all(&net, COUNT as u32, 0);

    let scene = Scene::on(net, "resync = \"1s\"\n");
    scene.wait_for_status("the connections to be adopted", |metrics| {
        number(metrics, "/sessions/adopted") == COUNT
    });
    scene.net.end_connections();
    let metrics = scene.wait_for_deletes(COUNT);
    let reported = number(&metrics, "/events/destroy");
    assert_eq!(
        reported + number(&metrics, "/sessions/inferred_ends"),
        COUNT
    );
    assert_eq!(number(&metrics, "/events/messages"), reported);
    let ledger = scene.finish();
    ledger.assert_complete(&made);
    let records = ledger.sessions.values().flatten();
    let inferred = records.filter(|record| record.contains_key("inferred"));
    assert_eq!(inferred.count() as u64, 2 * COUNT - reported);
    Some(reported)
}

#[test]
fn connections_whose_end_the_kernel_never_reports_are_closed_by_an_audit() {
    let reported = made_before("0").unwrap_or(0);
    assert_eq!(reported, 0);
}

#[test]
fn connections_made_while_the_kernel_reported_only_to_listeners_are_complete() {
    // A listener anywhere on the machine counts: beside other tests, the ends may be reported.
    made_before("2");
}

#[test]
fn after_the_ttl_what_the_kernel_no_longer_has_is_closed_and_what_it_has_stays() {
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    net.nft(MASQUERADE);
    // Neither beginning nor end is reported: audits find both, here the first one and the one at the TTL.
    net.gateway.sysctl("net/netfilter/nf_conntrack_events", "0");
    let (client, server) = (&net.client, &net.server);
    let open = |port| Udp::open(client, (CLIENT, port), (SERVER, 53), server, (SERVER, 53));
    for port in [40_001, 40_002] {
        open(port).request(10);
    }
    let home = Home::new(&format!(
        "{CAPTURE}resync = \"0s\"\n{STDOUT_TEXT}\n[pending]\nttl = \"2s\"\n"
    ));
    let daemon = Daemon::start(&net.gateway, &home);
    assert_eq!(daemon.wait_for_records(2, parse_text).len(), 2);
    net.conntrack(&["-D", "-p", "udp", "--orig-port-src", "40001"]);
    let records = daemon.wait_for_records(3, parse_text);
    let delete = &records[2];
    assert_eq!(
        [&delete["event"], &delete["pre_sport"], &delete["inferred"]],
        ["delete", "40001", "yes"]
    );
    let ended = daemon.terminate();
    assert_eq!(ended.stdout.len(), 3, "{:#?}", ended.stdout);
}

#[test]
fn a_ruleset_that_is_flushed_is_a_gap_and_tracking_is_on_again() {
    let Some(scene) = Scene::new("log = \"all\"\n") else {
        return;
    };
    let mut generator = Generator::new(&scene.net);
    let mut made = generator.begin_all(&scene.net, 10, 0);
    scene.wait_for_status("the sessions", |metrics| {
        number(metrics, "/sessions/creates") == 10
    });
    scene.net.nft("flush ruleset");
    let metrics = scene.wait_for_status("the gap", |metrics| {
        number(metrics, "/gaps/tracking-off/count") == 1
    });
    assert_eq!(number(&metrics, "/gaps/tracking-off/lost"), 0);
    let listed = scene
        .net
        .gateway
        .succeed(Command::new("nft").args(["list", "tables"]), "");
    assert_eq!(listed, "table inet nattrail\n");
    let message = scene.daemon.wait_for_message("nattrail restored it");
    assert!(message.contains("\"inet nattrail\""), "{message}");

    scene.net.end_connections();
    scene.wait_for_deletes(10);
    made.extend(generator.begin_all(&scene.net, 10, 0));
    scene.net.end_connections();
    scene.wait_for_deletes(20);
    let ledger = scene.finish();
    ledger.assert_complete(&made);
    assert_eq!(ledger.gaps_of("tracking-off").len(), ledger.gaps.len());
    assert!(ledger.gaps[0].from <= ledger.gaps[0].to);
}

#[test]
fn a_rule_that_is_flushed_from_its_table_is_a_gap_and_made_again() {
    let Some(scene) = Scene::new("") else {
        return;
    };
    // Only the daemon's rule keeps tracking on: nobody translates the addresses now.
    scene.net.nft("flush table inet nattrail");
    scene.wait_for_status("the gap", |metrics| {
        number(metrics, "/gaps/tracking-off/count") == 1
    });
    let listed = scene.net.gateway.succeed(
        Command::new("nft").args(["list", "table", "inet", "nattrail"]),
        "",
    );
    assert!(listed.contains("ct state new"), "{listed}");
    let mut generator = Generator::new(&scene.net);
    let made = generator.begin_all(&scene.net, 10, 0);
    scene.net.end_connections();
    scene.wait_for_deletes(10);
    let ledger = scene.finish();
    ledger.assert_complete(&made);
    assert_eq!(ledger.gaps.len(), 1);
}

#[test]
fn events_that_are_switched_off_are_a_gap_and_on_again_and_what_is_open_then_is_adopted() {
    const EVENTS: &str = "net/netfilter/nf_conntrack_events";
    let Some(scene) = Scene::new("") else {
        return;
    };
    let mut generator = Generator::new(&scene.net);
    scene.net.gateway.sysctl(EVENTS, "0");
    let mut made = generator.begin_all(&scene.net, 10, 0);
    let _ = scene.daemon.wait_for_message("found 0");
    let _ = scene.daemon.wait_for_message("reported again");
    assert_eq!(scene.net.gateway.read_sysctl(EVENTS).trim(), "1");
    scene.wait_for_status("those that nobody reported", |metrics| {
        number(metrics, "/sessions/creates") == 10
    });
    made.extend(generator.begin_all(&scene.net, 10, 10));
    scene.wait_for_status("those that were reported", |metrics| {
        number(metrics, "/sessions/creates") == 20
    });
    let ledger = scene.finish();
    assert_eq!(ledger.sessions.len(), made.len());
    let gaps = ledger.gaps_of("tracking-off");
    assert_eq!((gaps.len(), ledger.gaps.len()), (2, 2));
    assert!(gaps[0].to <= gaps[1].from, "{gaps:?}");
}

/// A daemon in one namespace that reads another.
fn reading(other: &Namespace) -> Home {
    Home::new(&format!(
        "{CAPTURE}namespace = \"{}\"\n{STDOUT_TEXT}",
        other.name()
    ))
}

#[test]
fn a_namespace_that_is_made_anew_ends_the_daemon_with_a_message() {
    if !crate::support::can_run(&["ip", "nft"]) {
        return;
    }
    let group = unique();
    let (own, other) = (Namespace::new(group, "own"), Namespace::new(group, "other"));
    for again in [true, false] {
        let home = reading(&other);
        let daemon = Daemon::spawn(&own, &mut home.command());
        let _ = daemon.wait_for_message("started");
        succeed(
            Command::new("ip").args(["netns", "delete", other.name()]),
            "",
        );
        if again {
            succeed(Command::new("ip").args(["netns", "add", other.name()]), "");
        }
        let ended = daemon.wait();
        assert!(!ended.status.success(), "{:?}", ended.status);
        assert_eq!(ended.status.code(), Some(71), "{:#?}", ended.stderr);
        if !again {
            // The end of the test deletes it.
            succeed(Command::new("ip").args(["netns", "add", other.name()]), "");
        }
        let message = ended.stderr.join("\n");
        assert!(
            message.contains("capture.namespace was removed or made anew"),
            "{message}"
        );
    }
}

#[test]
fn a_second_daemon_with_the_same_table_is_refused() {
    let Some(scene) = Scene::new("") else {
        return;
    };
    let other = home("");
    let second = Daemon::spawn(&scene.net.gateway, &mut other.command()).wait();
    assert_eq!(second.status.code(), Some(69), "{:#?}", second.stderr);
    let message = second.stderr.last().unwrap();
    assert!(
        message.contains("\"inet nattrail\"") && message.contains("capture.table"),
        "{message}"
    );
    let listed = scene
        .net
        .gateway
        .succeed(Command::new("nft").args(["list", "tables"]), "");
    assert!(listed.contains("table inet nattrail\n"), "{listed}");
    scene.finish().assert_complete(&[]);
}
