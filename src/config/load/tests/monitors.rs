//! Monitor ports: keys that contradict each other, and what follows from others.

#![allow(clippy::unwrap_used)]

use super::{load, message};

#[test]
fn contradictions_between_the_keys_of_a_monitor_are_refused() {
    let cases = [
        (
            "",
            "interface: expected the name of an interface: at most 15 letters, digits, \"-\", \"_\" and \".\", found nothing",
        ),
        (
            "interface = \"eth1\"\nmethod = \"nft\"",
            "namespace: expected a namespace of its own with method \"nft\", found nothing: the gateway's firewall and NAT \
             would act on mirrored packets; make one (\"ip netns add monitor\"), or use method \"tc\"",
        ),
        (
            "interface = \"eth1\"\nmethod = \"external\"",
            "mark: expected a mark or a zone without a namespace, found neither: one of them tells mirrored connections \
             from the gateway's own",
        ),
        (
            "interface = \"eth1\"\nmark = \"0\"",
            "mark: expected a connection mark from 1 to 4294967295, decimal or with 0x, found \"0\"",
        ),
        (
            "interface = \"-f\"",
            "interface: expected the name of an interface: at most 15 letters, digits, \"-\", \"_\" and \".\", found \"-f\"",
        ),
    ];
    for (lines, expected) in cases {
        let found = message(&format!("[[monitor]]\n{lines}"));
        assert_eq!(found, format!("n.toml: line 1: monitor[0].{expected}"));
    }
}

#[test]
fn two_monitors_do_not_share_an_interface() {
    assert_eq!(
        message("[monitor.a]\ninterface = \"eth1\"\n[monitor.b]\ninterface = \"eth1\"\n"),
        "n.toml: monitor.b.interface: expected an interface of its own, found that of monitor.a"
    );
}

#[test]
fn mirrored_connections_get_a_zone_of_their_own_where_the_gateway_has_its_own() {
    let zones = |lines: &str| {
        let config = load(&format!("[[monitor]]\ninterface = \"eth1\"\n{lines}")).unwrap();
        (config.monitors[0].mark, config.monitors[0].zone)
    };
    assert_eq!(zones(""), (None, Some(65_535)));
    assert_eq!(zones("mark = 0x10"), (Some(16), Some(65_535)));
    assert_eq!(zones("zone = 9"), (None, Some(9)));
    assert_eq!(zones("namespace = \"m\""), (None, None));
    assert_eq!(
        zones("namespace = \"m\"\nmethod = \"nft\"\nzone = 7"),
        (None, Some(7))
    );
    assert_eq!(zones("mark = 1\nmethod = \"external\""), (Some(1), None));
}
