//! Setting a monitor port up and taking it down: everything is then as it was, also after a failure in the middle, and
//! what cannot be a monitor port is refused before anything is done.

use std::process::{Command, Stdio};

use crate::scene::Scene;
use crate::support::netns::Namespace;
use crate::support::wait_for;

/// A monitor of method nft in the scene's namespace.
fn monitor(scene: &Scene, interface: &str) -> String {
    let namespace = scene.monitor.name();
    format!(
        "[[monitor]]\ninterface = \"{interface}\"\nnamespace = \"{namespace}\"\nmethod = \"nft\"\nmark = 1\n"
    )
}

/// Interfaces, addresses, routes, rules, qdiscs and parameters of a namespace.
fn state(namespace: &Namespace) -> String {
    let run = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).stderr(Stdio::null());
        namespace.succeed(&mut command, "")
    };
    [
        "ip -details link; ip address; tc qdisc show",
        "ip -4 rule; ip -4 route show table all; ip -6 rule; ip -6 route show table all | sort",
        "nft list ruleset",
        // Counters, and secrets that a read makes.
        "cd /proc/sys/net; grep -rs '' ipv4 ipv6 netfilter | grep -v -e nf_conntrack_count -e stable_secret | sort",
    ]
    .map(run)
    .join("")
}

fn states(scene: &Scene) -> String {
    format!(
        "{}\n---- monitor\n{}",
        state(&scene.net.gateway),
        state(&scene.monitor)
    )
}

/// Waits until both namespaces are as before: an address of IPv6's is tentative for a moment.
fn assert_as_before(scene: &Scene, before: &str) {
    let mut now = String::new();
    let is_same = || {
        now = states(scene);
        (now == before).then_some(())
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(8);
    if crate::support::wait_until(deadline, is_same).is_none() {
        assert_eq!(before, states(scene));
    }
}

/// A scene whose addresses have settled.
fn settled() -> Option<Scene> {
    let scene = Scene::new()?;
    scene.net.gateway.ip("link set eth1 up");
    wait_for("addresses to settle", || {
        (!states(&scene).contains("tentative")).then_some(())
    });
    Some(scene)
}

#[test]
fn down_leaves_everything_as_it_was_and_up_twice_is_no_error() {
    let Some(scene) = settled() else {
        return;
    };
    let (config, before) = (monitor(&scene, "eth1"), states(&scene));
    assert_eq!(
        scene.succeed(&["monitor", "down"], &config),
        "monitor eth1: nothing to take down\n"
    );
    assert_eq!(
        scene.succeed(&["monitor", "up"], &config),
        "monitor eth1: up\n"
    );
    let up = state(&scene.monitor);
    for part in [
        "NOARP,PROMISC",
        "addrgenmode none",
        "set host",
        "ct mark set 0x00000001",
    ] {
        assert!(up.contains(part), "{part}: {up}");
    }
    assert_eq!(
        scene.succeed(&["monitor", "up", "eth1"], &config),
        "monitor eth1: up\n"
    );
    // Without the section: it is known what was done.
    let other = config.replace("mark = 1", "zone = 7");
    assert_eq!(
        scene.succeed(&["monitor", "down", "eth1"], &other),
        "monitor eth1: down\n"
    );
    assert_as_before(&scene, &before);
    scene.succeed(&["monitor", "up"], &config);
    let rehearsed = scene.succeed(&["monitor", "down", "eth1", "--dry-run"], "");
    assert!(rehearsed.contains("netns $$"), "{rehearsed}");
    assert_eq!(
        scene.succeed(&["monitor", "down", "eth1"], ""),
        "monitor eth1: down\n"
    );
    assert_as_before(&scene, &before);
}

#[test]
fn two_ports_share_a_namespace_and_one_goes_without_the_other() {
    let Some(scene) = settled() else {
        return;
    };
    scene.net.gateway.ip("link add eth2 type veth peer name far
             link add eth3 type veth peer name far3");
    // Two spellings of one namespace.
    let one = monitor(&scene, "eth1");
    let two = monitor(&scene, "eth2").replace("namespace = \"", "namespace = \"/var/run/netns/");
    let before = states(&scene);
    scene.succeed(&["monitor", "up"], &format!("{one}{two}"));
    let rehearsed = scene.fail(&["monitor", "up", "--dry-run"], &one);
    assert!(rehearsed.contains("found it up"), "{rehearsed}");
    let third = monitor(&scene, "eth3");
    let commands = scene.succeed(&["monitor", "up", "--dry-run"], &third);
    assert!(commands.contains("eth3"), "{commands}");
    let rehearsed = scene.succeed(&["monitor", "down", "--dry-run"], &one);
    assert!(
        rehearsed.contains("conf/eth1/rp_filter") && !rehearsed.contains("ip_forward"),
        "{rehearsed}"
    );
    scene.succeed(&["monitor", "down"], &one);
    assert_eq!(scene.monitor.read_sysctl("net/ipv4/ip_forward"), "1");
    assert!(state(&scene.monitor).contains("default via 192.0.0.8 dev s-eth2"));
    scene.succeed(&["monitor", "down"], &two);
    assert_as_before(&scene, &before);
}

#[test]
fn a_failure_in_the_middle_undoes_what_was_done_before() {
    let Some(scene) = settled() else {
        return;
    };
    let config = monitor(&scene, "eth1");
    // The sink's name is taken.
    scene
        .monitor
        .ip("link add s-eth1 type veth peer name other");
    let before = states(&scene);
    let message = scene.fail(&["monitor", "up"], &config);
    assert!(
        message.starts_with("error: monitor eth1: cannot make the sink: ip says: "),
        "{message}"
    );
    assert!(
        message.ends_with("everything is as it was before"),
        "{message}"
    );
    assert_as_before(&scene, &before);
}

#[test]
fn what_was_set_up_halfway_at_a_crash_is_taken_down() {
    let Some(scene) = settled() else {
        return;
    };
    let (config, before) = (monitor(&scene, "eth1"), states(&scene));
    scene.succeed(&["monitor", "up"], &config);
    // As if it had ended after its first steps, in the middle of writing about another.
    let journal = scene.home.runtime().join("eth1.json");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, format!("{text}{{\"namespace\":null,\"wh")).unwrap();
    scene.monitor.ip("link delete s-eth1");
    let nft = ["delete", "table", "inet", "nattrail-monitor-eth1"];
    scene.monitor.succeed(Command::new("nft").args(nft), "");
    assert_eq!(
        scene.succeed(&["monitor", "down"], &config),
        "monitor eth1: down\n"
    );
    assert_as_before(&scene, &before);
}

#[test]
fn a_namespace_that_is_gone_with_everything_in_it_is_taken_down() {
    let Some(scene) = settled() else {
        return;
    };
    let (config, before) = (monitor(&scene, "eth1"), state(&scene.net.gateway));
    scene.succeed(&["monitor", "up"], &config);
    let mut delete = Command::new("ip");
    let deleted = delete
        .args(["netns", "delete", scene.monitor.name()])
        .status();
    assert!(deleted.unwrap().success());
    assert_eq!(
        scene.succeed(&["monitor", "down"], &config),
        "monitor eth1: down\n"
    );
    assert_eq!(
        scene.succeed(&["monitor", "down"], &config),
        "monitor eth1: nothing to take down\n"
    );
    let after = state(&scene.net.gateway);
    assert!(
        before.contains("eth1") && !after.contains("eth1"),
        "a veth goes with its namespace: {after}"
    );
    // Its owner deletes it.
    let mut add = Command::new("ip");
    assert!(
        add.args(["netns", "add", scene.monitor.name()])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_dry_run_prints_what_a_shell_takes_and_does_nothing() {
    let Some(scene) = settled() else {
        return;
    };
    let (config, before) = (monitor(&scene, "eth1"), states(&scene));
    let commands = scene.succeed(&["monitor", "up", "--dry-run"], &config);
    assert_eq!(
        scene.succeed(&["monitor", "down", "--dry-run"], &config),
        ""
    );
    assert_as_before(&scene, &before);
    scene.net.gateway.succeed(
        Command::new("sh").args(["-eu"]).stdout(Stdio::null()),
        &commands,
    );
    let by_hand = state(&scene.monitor);
    assert!(by_hand.contains("to connection tracking"), "{by_hand}");
}

#[test]
fn a_port_that_is_used_for_something_else_is_refused_before_anything_is_done() {
    let Some(scene) = settled() else {
        return;
    };
    let gateway = &scene.net.gateway;
    gateway.ip("link add bridge0 type bridge
         link add port type veth peer name far
         link set port master bridge0
         link add outside type veth peer name internet
         link set outside up
         route add default dev outside
         link add outside6 type veth peer name internet6
         link set outside6 up
         route add default dev outside6 metric 5
         link add routed type veth peer name routed-far
         link set routed up
         route add 10.77.0.0/16 dev routed
         link add lower type veth peer name lower-far
         link add upper link lower type macvlan");
    wait_for("addresses to settle", || {
        (!states(&scene).contains("tentative")).then_some(())
    });
    let before = states(&scene);
    for (interface, found) in [
        (
            "eth9",
            "expected the interface to exist, found none of that name: \"ip link\" lists them",
        ),
        ("lo", "expected a port, found the loopback interface"),
        (
            "port",
            "expected an interface of its own, found a port of bridge0 (bridge)",
        ),
        (
            "outside",
            "expected an interface without routes, found the default route",
        ),
        (
            "outside6",
            "expected an interface without routes, found the default route",
        ),
        (
            "lan",
            "expected an interface without addresses, found 10.1.2.1 on it",
        ),
        (
            "routed",
            "expected an interface without routes, found one to 10.77.0.0/16",
        ),
        (
            "lower",
            "expected an interface of its own, found upper on top of it",
        ),
    ] {
        for config in [
            monitor(&scene, interface),
            format!("[[monitor]]\ninterface = \"{interface}\"\n"),
        ] {
            for arguments in [&["monitor", "up"][..], &["monitor", "up", "--dry-run"]] {
                let message = scene.fail(arguments, &config);
                let expected = format!("error: monitor {interface}: {found}");
                assert!(message.starts_with(&expected), "{message}");
            }
        }
    }
    assert_as_before(&scene, &before);
}

#[test]
fn a_namespace_that_cannot_be_is_refused() {
    let Some(scene) = settled() else {
        return;
    };
    let own = format!("/run/netns/{}", scene.net.gateway.name());
    let own = monitor(&scene, "eth1").replace(scene.monitor.name(), &own);
    let absent = monitor(&scene, "eth1").replace(scene.monitor.name(), "not-there");
    let before = states(&scene);
    let message = scene.fail(&["monitor", "up"], &own);
    let expected = "error: monitor eth1: expected a namespace of its own with method \"nft\", found the one in which this";
    assert!(message.starts_with(expected), "{message}");
    let message = scene.fail(&["monitor", "up"], &absent);
    let expected = "error: monitor eth1: network namespace \"/run/netns/not-there\": No such file or directory (os error 2): \
                    make the namespace first";
    assert!(message.starts_with(expected), "{message}");
    assert_as_before(&scene, &before);

    scene.monitor.ip("link add uplink type veth peer name far
         link set uplink up
         route add 192.0.2.0/24 dev uplink");
    let before = states(&scene);
    let message = scene.fail(&["monitor", "up"], &monitor(&scene, "eth1"));
    let expected = "error: monitor eth1: expected a namespace without routes with method \"nft\", found one to 192.0.2.0/24 by uplink";
    assert!(message.starts_with(expected), "{message}");
    assert_as_before(&scene, &before);
}

#[test]
fn names_that_the_configuration_does_not_have_are_refused() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let config = monitor(&scene, "eth1");
    assert_eq!(
        scene.fail(&["monitor", "up", "eth7"], &config),
        "error: expected a monitor \"eth7\" in the configuration, found eth1"
    );
    assert_eq!(
        scene.fail(&["monitor", "up"], ""),
        "error: expected a [[monitor]] section in the configuration, found none: nattrail-monitor(7) has examples"
    );
}

#[test]
fn tc_says_which_options_the_kernel_lacks_or_leaves_everything_as_it_was() {
    let Some(scene) = settled() else {
        return;
    };
    let config = "[[monitor]]\ninterface = \"eth1\"\n";
    let before = states(&scene);
    let output = scene.command(&["monitor", "up"], config);
    if output.status.success() {
        scene.succeed(&["monitor", "down"], config);
    } else {
        let message = String::from_utf8(output.stderr).unwrap();
        for part in [
            "CONFIG_NET_ACT_CT",
            "CONFIG_NET_CLS_MATCHALL",
            "method = \"nft\" with a namespace",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
    assert_as_before(&scene, &before);
}
