//! Options of ipt_NETFLOW, and the result of each: a key, or a note with its line.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::super::testing::{load, loaded};
use super::*;
use crate::config::{Collector, Config, LogScope, NatEventValues, Version};

fn converted(text: &str) -> (Config, Vec<String>) {
    loaded(&convert(text, "ipt_NETFLOW.conf").unwrap())
}

fn said(notes: &[String], prefix: &str) -> bool {
    notes.iter().any(|note| note.starts_with(prefix))
}

#[test]
fn the_usual_line_becomes_a_collector() {
    let text = "options ipt_NETFLOW destination=192.0.2.10:2055 protocol=9 natevents=1 targets=0\n";
    let (config, notes) = converted(text);
    assert_eq!(notes, [""; 0]);
    assert_eq!(config.capture.log, LogScope::Nat);
    let [collector] = config.collectors.as_slice() else {
        panic!("{:?}", config.collectors);
    };
    assert_eq!(collector.address.to_string(), "192.0.2.10:2055");
    assert_eq!(collector.version, Version::NetflowV9);
    assert_eq!(collector.nat_event, NatEventValues::Legacy);
    assert_eq!(collector.observation_domain, 0);
    assert!(collector.events && !collector.triplet && collector.log_destination);
    assert_eq!(
        (collector.source_address, collector.send_buffer),
        (None, None)
    );
    assert_eq!(config.syslog, [], "no copies but those that were asked for");
}

#[test]
fn continued_lines_comments_and_quotes_are_read_with_their_lines() {
    let text = "\
# flows \\
  options ipt_NETFLOW protocol=10
options ipt-netflow destination=\"192.0.2.10:2055 192.0.2.11\" \\
        refresh-rate=40 timeout_rate=5 \\
        engine_id=0x10 sndbuf=1048576 natevents=1 protocol=10 \\
        hashsize=65536
";
    let (config, notes) = converted(text);
    let addresses: Vec<_> = config
        .collectors
        .iter()
        .map(|to| to.address.to_string())
        .collect();
    assert_eq!(addresses, ["192.0.2.10:2055", "192.0.2.11:2055"]);
    let collector = &config.collectors[1];
    assert_eq!(collector.version, Version::Ipfix);
    assert_eq!(collector.template_refresh_packets, 40);
    assert_eq!(collector.template_refresh.as_secs(), 300);
    assert_eq!(collector.observation_domain, 16);
    assert_eq!(collector.send_buffer, Some(1 << 20));
    assert!(said(&notes, "line 6: hashsize: no equivalent"), "{notes:?}");
}

#[test]
fn every_form_of_a_destination_is_read() {
    let cases = [
        ("192.0.2.1", "192.0.2.1:2055", None),
        ("192.0.2.1:9995", "192.0.2.1:9995", None),
        (
            "192.0.2.1:9995@192.0.2.2",
            "192.0.2.1:9995",
            Some("192.0.2.2"),
        ),
        (
            "192.0.2.1@192.0.2.2%eth0",
            "192.0.2.1:2055",
            Some("192.0.2.2"),
        ),
        ("192.0.2.1@0.0.0.0", "192.0.2.1:2055", None),
        ("2001:db8::1", "[2001:db8::1]:2055", None),
        ("[2001:db8::1]", "[2001:db8::1]:2055", None),
        ("[2001:db8::1]:9995", "[2001:db8::1]:9995", None),
        ("2001:db8::1p9995", "[2001:db8::1]:9995", None),
        ("2001:db8::1#9995", "[2001:db8::1]:9995", None),
        (
            "[2001:db8::1]:9995@2001:db8::2%eth0",
            "[2001:db8::1]:9995",
            Some("2001:db8::2"),
        ),
    ];
    for (text, address, source) in cases {
        let destination = Destination::parse(text).unwrap();
        assert_eq!(destination.address.to_string(), address, "{text}");
        let found = destination.source.map(|ip| ip.to_string());
        assert_eq!(found.as_deref(), source, "{text}");
    }
    for text in [
        "",
        "host",
        "192.0.2.1:0",
        "192.0.2.1:70000",
        "0.0.0.0",
        "192.0.2.1@::1",
        "[2001:db8::1",
        ":2055",
    ] {
        assert!(Destination::parse(text).is_err(), "{text}");
    }
}

#[test]
fn what_a_destination_loses_is_said() {
    let text = "options ipt_NETFLOW natevents=1 destination=192.0.2.1:2055%eth1,nowhere;192.0.2.1:2055,192.0.2.3\n";
    let (config, notes) = converted(text);
    assert_eq!(config.collectors.len(), 2);
    let expected = [
        "line 1: destination: \"192.0.2.1:2055%eth1\": nattrail has no equivalent of \"%eth1\"",
        "line 1: destination: expected address:port, and perhaps @source and %interface, found \"nowhere\": left out",
        "line 1: destination: \"192.0.2.1:2055\": a duplicate, left out",
    ];
    for prefix in expected {
        assert!(said(&notes, prefix), "{prefix}\n{notes:#?}");
    }
}

#[test]
fn sysctl_lines_are_read_and_override_what_is_before_them() {
    let text = "\
options ipt_NETFLOW protocol=5 natevents=1
net.ipv4.ip_forward = 1
net.netflow.protocol = 9
-net/netflow/refresh-rate=30
; a comment
net.netflow.destination = 192.0.2.1:2055,192.0.2.2:2055
";
    let (config, notes) = converted(text);
    assert_eq!(config.collectors.len(), 2);
    assert_eq!(config.collectors[0].version, Version::NetflowV9);
    assert_eq!(config.collectors[0].template_refresh_packets, 30);
    assert!(
        said(&notes, "line 1: protocol: overridden in line 3"),
        "{notes:?}"
    );
    assert!(
        said(&notes, "lines that are not about ipt_NETFLOW: 1;"),
        "{notes:?}"
    );
}

#[test]
fn version_5_has_no_templates_and_8_bits_of_a_domain() {
    let text = "options ipt_NETFLOW destination=192.0.2.1 natevents=1 engine_id=258 refresh-rate=9";
    let (config, notes) = converted(text);
    assert_eq!(config.collectors[0].version, Version::NetflowV5);
    assert_eq!(config.collectors[0].observation_domain, 2);
    assert!(said(&notes, "line 1: refresh_rate: not used"), "{notes:?}");
    assert!(
        said(&notes, "line 1: engine_id: NetFlow v5 has 8 bits"),
        "{notes:?}"
    );
}

#[test]
fn every_option_of_the_module_without_equivalent_is_named_with_its_line() {
    let options = [
        "debug",
        "exportcpu",
        "flush",
        "hashsize",
        "hooks_mark",
        "hooks_mark_mask",
        "inactive_timeout",
        "maxflows",
        "nfevents_limit",
        "promisc",
        "sampler",
        "scan-min",
        "snmp-rules",
    ];
    for (index, option) in options.iter().enumerate() {
        let above = "# \n".repeat(index);
        let text =
            format!("{above}options ipt_NETFLOW {option}=1 natevents=1 destination=192.0.2.1\n");
        let (_, notes) = converted(&text);
        let prefix = format!("line {}: {}: no", index + 1, option.replace('-', "_"));
        assert!(said(&notes, &prefix), "{prefix}\n{notes:#?}");
    }
}

#[test]
fn what_is_unknown_wrong_or_off_is_said() {
    let text = "\
alias netflow ipt_NETFLOW
softdep ipt_NETFLOW pre: nf_conntrack
options ipt_NETFLOW destintion=1 protocol=7 sndbuf=100 engine_id=x refresh-rate=0
";
    let (config, notes) = converted(text);
    assert_eq!(
        config.collectors[0].address.to_string(),
        DEFAULT_DESTINATION
    );
    assert_eq!(config.collectors[0].send_buffer, Some(4096));
    let expected = [
        "natevents: NAT events were off",
        "destination: not given",
        "rules with -j NETFLOW or hooks chose the packets",
        "line 1: alias: not an option",
        "line 2: softdep: not an option",
        "line 3: destintion: unknown",
        "line 3: protocol: expected 5, 9 or 10",
        "line 3: sndbuf: expected 4096 to 1073741824 bytes",
        "line 3: engine_id: expected a number",
        "line 3: refresh_rate: expected a number",
    ];
    for prefix in expected {
        assert!(said(&notes, prefix), "{prefix}\n{notes:#?}");
    }
}

/// Each collector's records, and whether it gets all connections.
fn streams(options: &str) -> Vec<(Vec<&'static str>, LogScope, u32, usize)> {
    let text = format!("options ipt_NETFLOW destination=192.0.2.1 engine_id=7 {options}\n");
    let collectors = converted(&text).0.collectors;
    let stream = |to: &Collector| {
        let kinds = [(to.events, "events"), (to.flow, "flow")];
        let kinds = kinds.into_iter().filter(|(sent, _)| *sent);
        (
            kinds.map(|(_, kind)| kind).collect(),
            to.selection.log,
            to.observation_domain,
            to.aggregation.len(),
        )
    };
    collectors.iter().map(stream).collect()
}

#[test]
fn accounting_becomes_flows_with_nat_events_beside_them() {
    use LogScope::{All, Nat};
    for (options, expected) in [
        ("natevents=1 targets=0", vec![(vec!["events"], Nat, 7, 0)]),
        ("", vec![(vec!["flow"], All, 7, 0)]),
        ("targets=0", vec![(vec!["events"], Nat, 7, 0)]),
        ("targets=0 hooks=forward", vec![(vec!["flow"], All, 7, 0)]),
        ("natevents=1", vec![(vec!["events", "flow"], All, 7, 0)]),
        (
            "aggregation=10.0.0.0/8=16,80-89=80",
            vec![(vec!["flow"], All, 7, 2)],
        ),
        (
            "natevents=1 aggregation=10.0.0.0/8=16",
            vec![(vec!["events"], Nat, 7, 0), (vec!["flow"], All, 8, 1)],
        ),
        (
            "natevents=1 targets=0 aggregation=10.0.0.0/8=16",
            vec![(vec!["events"], Nat, 7, 0)],
        ),
    ] {
        assert_eq!(streams(options), expected, "{options}");
    }
}

#[test]
fn the_timeout_of_active_flows_is_the_modules_or_its_default() {
    let timeout = |options: &str| {
        let text = format!("options ipt_NETFLOW destination=192.0.2.1 {options}\n");
        converted(&text).0.capture.active_timeout
    };
    let seconds = |count| Some(Duration::from_secs(count));
    assert_eq!(timeout(""), seconds(1800));
    assert_eq!(timeout("active_timeout=300"), seconds(300));
    assert_eq!(timeout("active_timeout=x"), seconds(1800));
    assert_eq!(timeout("active_timeout=300 targets=0"), None);
}

#[test]
fn an_unusable_rule_of_aggregation_is_left_out_and_said() {
    let rules = "10.0.0.0/8=99,80=8080,x";
    let text = format!("options ipt_NETFLOW destination=192.0.2.1 aggregation={rules}\n");
    let (config, notes) = converted(&text);
    assert_eq!(config.collectors[0].aggregation.len(), 1);
    for rule in ["10.0.0.0/8=99", "x"] {
        let found = format!("found \"{rule}\": left out");
        assert!(notes.iter().any(|note| note.contains(&found)), "{notes:#?}");
    }
}

#[test]
fn the_line_of_etc_modules_counts() {
    let (config, _) = converted("loop\nipt_NETFLOW destination=192.0.2.1:9 natevents=1\n");
    assert_eq!(config.collectors[0].address.port(), 9);
}

#[test]
fn without_options_or_a_destination_there_is_no_result() {
    let cases = [
        (
            "options nf_conntrack hashsize=1\n",
            "expected \"options ipt_NETFLOW …\"",
        ),
        (
            "# options ipt_NETFLOW destination=192.0.2.1\n",
            "expected \"options ipt_NETFLOW …\"",
        ),
        (
            "options ipt_NETFLOW destination=\n",
            "line 1: destination: expected an address to export to",
        ),
        (
            "\noptions ipt_NETFLOW destination=a,b\n",
            "line 2: destination: expected an address to export to",
        ),
    ];
    for (text, expected) in cases {
        let message = convert(text, "a").unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn numbers_are_read_as_the_kernel_does() {
    let cases = [
        ("12", Some(12)),
        ("0x1F", Some(31)),
        ("010", Some(8)),
        ("-1", Some(-1)),
        ("0", Some(0)),
    ];
    for (text, number) in cases {
        assert_eq!(integer(text), number, "{text}");
    }
    for text in ["", "0x", "08", "1k", "--1", "99999999999", "+-1"] {
        assert_eq!(integer(text), None, "{text}");
    }
}

fn option() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "destination",
        "protocol",
        "natevents",
        "engine_id",
        "sndbuf",
        "refresh_rate",
        "timeout-rate",
        "active_timeout",
        "aggregation",
        "targets",
        "sampler",
        "x",
    ]);
    let values = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec!["5", "9", "10", "0", "1"]).prop_map(str::to_owned),
        "[0-9a-f.:,@%\\[\\]p#]{0,40}",
        "[0-9.:/=,-]{0,40}",
        "192\\.0\\.2\\.[1-9](:[0-9]{1,5})?(@192\\.0\\.2\\.9)?(%eth[01])?",
        "\\PC{0,20}",
    ];
    (names, values).prop_map(|(name, value)| format!("{name}={value}"))
}

proptest! {
    #[test]
    fn whatever_is_converted_is_loaded(
        options in prop::collection::vec(option(), 0..12),
        sysctl in any::<bool>(),
        noise in any::<String>(),
    ) {
        let text = if sysctl {
            let lines: Vec<_> = options.iter().map(|option| format!("net.netflow.{option}")).collect();
            lines.join("\n")
        } else {
            format!("options ipt_NETFLOW {}", options.join(" "))
        };
        if let Ok(conversion) = convert(&format!("{noise}\n{text}"), &noise) {
            load(&conversion);
        }
    }
}
