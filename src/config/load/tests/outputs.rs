//! Collectors and syslog targets: keys that contradict each other, outputs that collide, and their names.

#![allow(clippy::unwrap_used)]

use super::{load, message};
use crate::config::{Config, Selection};

fn collector(lines: &str) -> String {
    message(&format!("[[collector]]\naddress = \"192.0.2.1\"\n{lines}"))
}

#[test]
fn what_netflow_v5_cannot_do_is_refused() {
    let cases = [
        (
            "log-destination = false",
            "log-destination: expected true with version \"v5\", whose records cannot leave it out, found false",
        ),
        (
            "ingress-vrf = true",
            "ingress-vrf: expected false with version \"v5\", whose records have no room for it, found true",
        ),
        (
            "nat-event = \"legacy\"",
            "nat-event: expected nothing with version \"v5\", which has neither natEvent nor templates, found \"legacy\"",
        ),
        (
            "template-refresh = \"1m\"",
            "template-refresh: expected nothing with version \"v5\", which has neither natEvent nor templates, found \"1m\"",
        ),
        (
            "template-refresh-packets = 5",
            "template-refresh-packets: expected nothing with version \"v5\", which has neither natEvent nor templates, found 5",
        ),
        (
            "observation-domain = 65536",
            "observation-domain: expected at most 65535 with version \"v5\" (engine type and id), found 65536",
        ),
    ];
    for (line, expected) in cases {
        let found = collector(&format!("version = \"v5\"\n{line}"));
        assert_eq!(found, format!("n.toml: line 1: collector[0].{expected}"));
    }
}

#[test]
fn a_mistake_in_one_key_hides_no_contradiction_between_others() {
    let found = collector("version = \"v5\"\ningress-vrf = true\nmtu = 1");
    assert!(
        found.contains("collector[0].ingress-vrf: expected false"),
        "{found}"
    );
    assert!(
        found.contains("collector[0].mtu: expected a whole"),
        "{found}"
    );
}

#[test]
fn contradictions_between_the_keys_of_a_collector_are_refused() {
    let cases = [
        (
            "records = [\"triplet\"]\nlog-destination = false",
            "log-destination: expected true with records \"triplet\" and \"flow\", which carry the destination, found false",
        ),
        (
            "source-address = \"::1\"",
            "source-address: expected an IPv4 address, as that of the collector, found \"::1\"",
        ),
        (
            "records = []",
            "records: expected one or more of \"events\", \"triplet\" and \"flow\", each once, found []",
        ),
        (
            "records = [\"events\", \"events\"]",
            "records: expected one or more of \"events\", \"triplet\" and \"flow\", each once, found [\"events\", \"events\"]",
        ),
        (
            "records = [\"flow\"]\nlog-destination = false",
            "log-destination: expected true with records \"triplet\" and \"flow\", which carry the destination, found false",
        ),
        (
            "biflow = true",
            "biflow: expected false without version \"ipfix\" and records \"flow\", found true",
        ),
        (
            "version = \"v9\"\nrecords = [\"flow\"]\nbiflow = true",
            "biflow: expected false without version \"ipfix\" and records \"flow\", found true",
        ),
        (
            "[[collector]]\naddress = \"192.0.2.1:4739\"\nmtu = 1400",
            "",
        ),
    ];
    for (lines, expected) in cases {
        let expected = match expected {
            "" => "n.toml: line 3: collector[1].address: expected an address, version and observation-domain of its own, \
                   found those of collector[0]"
                .to_owned(),
            _ => format!("n.toml: line 1: collector[0].{expected}"),
        };
        assert_eq!(collector(lines), expected);
    }
    assert_eq!(
        message("[[collector]]\naddress = \"2001:db8::1\"\nmtu = 1279"),
        "n.toml: line 1: collector[0].mtu: expected at least 1280 over IPv6, found 1279"
    );
    assert_eq!(
        message("[[collector]]\naddress = \"2001:db8::1\"\nmtu = 1"),
        "n.toml: line 1: collector[0].mtu: expected a whole number from 576 to 9216, found 1",
        "one message for one mistake"
    );
}

#[test]
fn aggregation_is_for_flows_alone_and_a_rule_that_does_not_parse_is_named() {
    let rules = "aggregation = \"10.0.0.0/8=16,80-89=80\"";
    let exact = "aggregation: expected nothing unless records is [\"flow\"]: events and triplets stay exact, found \
                 \"10.0.0.0/8=16,80-89=80\"";
    let cases = [
        (rules.to_owned(), exact),
        (format!("records = [\"flow\", \"events\"]\n{rules}"), exact),
        (
            format!("records = [\"flow\"]\nbiflow = true\n{rules}"),
            "aggregation: expected nothing with biflow, as a sum has one direction, found \"10.0.0.0/8=16,80-89=80\"",
        ),
        (
            "records = [\"flow\"]\naggregation = \"10.0.0.0/8=16, 89-80=80\"".to_owned(),
            "aggregation: expected the lower port first, \"80-89=80\", found \"89-80=80\"",
        ),
        (
            "records = [\"flow\"]\naggregation = [\"10.1.0.0/8=16\"]".to_owned(),
            "aggregation: expected no bits set beyond the prefix, \"10.0.0.0/8\", found \"10.1.0.0/8=16\"",
        ),
        (
            format!("records = [\"flow\"]\naggregation-window = \"61m\"\n{rules}"),
            "aggregation-window: expected a duration from 1s to 1h, found \"61m\"",
        ),
        (
            format!(
                "records = [\"flow\"]\naggregation-window = \"40s\"\n{rules}\n[log]\nage = \"1m\""
            ),
            "aggregation-window: expected at most half of log.age, as the records of a window wait in the log, found \"40s\"",
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(
            collector(&lines),
            format!("n.toml: line 1: collector[0].{expected}")
        );
    }
}

#[test]
fn contradictions_between_the_keys_of_a_syslog_target_are_refused() {
    let cases = [
        (
            "target = \"udp\"",
            "address: expected an IP address, with or without a port, such as \"192.0.2.20:514\", found nothing",
        ),
        (
            "target = \"file\"",
            "path: expected an absolute path, found nothing",
        ),
        (
            "target = \"stdout\"\npath = \"/x\"",
            "path: expected nothing unless the target is \"local\", \"file\" or \"journal\", found \"/x\"",
        ),
        (
            "target = \"local\"\naddress = \"::1\"",
            "address: expected nothing unless the target is \"udp\", found \"::1\"",
        ),
        (
            "target = \"stdout\"\nexporter-address = \"192.0.2.1\"",
            "exporter-address: expected nothing unless the format is \"csv\", which alone has exaddr, found \"192.0.2.1\"",
        ),
        (
            "target = \"local\"\nrecords = [\"flow\", \"events\"]",
            "records: expected only one of \"events\" and \"flow\" with the format \"csv\", as both would count the traffic, found [\"flow\", \
             \"events\"]",
        ),
        (
            "target = \"stdout\"\nrecords = [\"triplet\"]",
            "records: expected \"events\", \"flow\" or both, each once, found \"triplet\"",
        ),
    ];
    for (lines, expected) in cases {
        let found = message(&format!("[[syslog]]\n{lines}"));
        assert_eq!(found, format!("n.toml: line 1: syslog[0].{expected}"));
    }
}

#[test]
fn two_targets_do_not_take_the_same_records_to_the_same_place() {
    let file = "[[syslog]]\ntarget = \"file\"\npath = \"/x\"\n";
    assert_eq!(
        message(&file.repeat(2)),
        "n.toml: line 4: syslog[1].path: expected a file of its own, found that of syslog[0]"
    );
    assert_eq!(
        message(&file.repeat(3)),
        "n.toml: line 4: syslog[1].path: expected a file of its own, found that of syslog[0]\n\
         n.toml: line 7: syslog[2].path: expected a file of its own, found that of syslog[0]"
    );
    let stdout = "[[syslog]]\ntarget = \"stdout\"\n";
    assert_eq!(
        message(&stdout.repeat(2)),
        "n.toml: line 3: syslog[1].target: expected a target of its own, found that of syslog[0]"
    );
    let journal = "[[syslog]]\ntarget = \"journal\"\n";
    assert_eq!(
        message(&format!("{journal}{journal}format = \"json\"\n")),
        "n.toml: line 3: syslog[1].target: expected a target of its own, found that of syslog[0]"
    );
    for syslog in [
        "[[syslog]]\ntarget = \"local\"\n",
        "[[syslog]]\ntarget = \"udp\"\naddress = \"192.0.2.1\"\n",
    ] {
        assert_eq!(
            message(&syslog.repeat(2)),
            format!(
                "n.toml: line {}: syslog[1].target: expected a target, format, facility, severity or app-name of its own, found \
             those of syslog[0]",
                syslog.lines().count() + 1
            )
        );
        for own in [
            "format = \"json\"",
            "facility = \"local0\"",
            "severity = \"debug\"",
            "app-name = \"nat\"",
        ] {
            let both = load(&format!("{syslog}{syslog}{own}\n")).unwrap();
            assert_eq!(both.syslog.len(), 2, "{own}");
        }
    }
}

#[test]
fn an_output_is_known_by_the_name_of_its_table_unless_a_key_gives_another() {
    let config = load(
        "[collector.near]\naddress = \"192.0.2.1\"\n[collector.far]\naddress = \"192.0.2.2\"\nname = \"10.0.0.1\"",
    );
    let names: Vec<_> = config
        .unwrap()
        .collectors
        .into_iter()
        .map(|c| c.name)
        .collect();
    assert_eq!(
        names,
        [Some("10.0.0.1".to_owned()), Some("near".to_owned())]
    );
    let listed = load("[[syslog]]\ntarget = \"stdout\"").unwrap();
    assert_eq!(listed.syslog[0].name, None);
}

#[test]
fn two_outputs_of_a_kind_have_two_names() {
    let targets = "[[syslog]]\nname = \"a\"\ntarget = \"stdout\"\n[[syslog]]\nname = \"a\"\ntarget = \"local\"";
    assert_eq!(
        message(targets),
        "n.toml: line 4: syslog[1].name: expected a name of its own, found that of syslog[0]"
    );
    let collectors = "[collector.a]\naddress = \"192.0.2.1\"\n[collector.b]\naddress = \"192.0.2.2\"\nname = \"a\"";
    assert_eq!(
        message(collectors),
        "n.toml: collector.b.name: expected a name of its own, found that of collector.a"
    );
    let kinds = "[collector.a]\naddress = \"192.0.2.1\"\n[syslog.a]\ntarget = \"stdout\"";
    assert!(load(kinds).is_ok());
}

#[test]
fn an_entry_of_a_list_is_named_with_the_line_of_its_heading() {
    let two = "# [[collector]]\n\n  [[collector]] # near\naddress = \"192.0.2.1\"\n[[collector]]\nmtu = \"x\"\naddress = \"::1\"";
    assert_eq!(
        message(two),
        "n.toml: line 5: collector[1].mtu: expected a whole number from 576 to 9216, found \"x\""
    );
    // A heading written in another way gets no line number rather than a wrong one.
    let spaced = two.replacen("[[collector]] #", "[[ collector ]] #", 1);
    assert!(message(&spaced).starts_with("n.toml: collector[1].mtu: "));
}

#[test]
fn a_copy_into_the_database_is_refused() {
    let copy =
        "[pending]\ndatabase = \"/x/nat\"\n[[syslog]]\ntarget = \"file\"\npath = \"/x//nat\"";
    assert_eq!(
        message(copy),
        "n.toml: line 3: syslog[0].path: expected another file than pending.database, found \"/x//nat\""
    );
}

#[test]
fn an_output_has_the_selection_of_capture_but_for_the_keys_that_it_sets() {
    let text = "[capture]\nlog = \"all\"\nmark = \"1\"\nzone = 3\nprotocols = [\"tcp\"]\nsource = [\"10.0.0.0/8\"]\n\
                [[collector]]\naddress = \"192.0.2.1\"\n\
                [[collector]]\naddress = \"192.0.2.2\"\nlog = \"nat\"\nmark = 7\nzone = 0\n\
                [[syslog]]\ntarget = \"stdout\"\nmark = \"\"\nzone = \"\"\nprotocols = []\nsource = \"\"\n\
                destination = [\"192.0.2.0/24\"]\n";
    let config = load(text).unwrap();
    let selections: Vec<_> = config
        .selections()
        .iter()
        .map(Selection::to_string)
        .collect();
    assert_eq!(
        selections,
        [
            "log=all mark=0x1/0xffffffff zone=3 protocols=tcp source=10.0.0.0/8",
            "log=nat mark=0x7/0xffffffff zone=0 protocols=tcp source=10.0.0.0/8",
            "log=all destination=192.0.2.0/24",
        ]
    );
    assert_eq!(config.collectors[0].selection, config.capture.selection());
}

#[test]
fn a_selection_is_narrower_unless_it_accepts_all_that_is_logged() {
    let with = |lines: &str| {
        let copy = "[[syslog]]\ntarget = \"stdout\"\n";
        load(&format!("[capture]\nmark = 1\n{copy}{lines}")).unwrap()
    };
    let narrower = |config: &Config, selection: &Selection| config.narrower(selection.clone());
    let same = with("");
    assert_eq!(narrower(&same, &same.syslog[0].selection), None);
    let any = with("log = \"all\"\nmark = \"\"\n");
    assert_eq!(narrower(&any, &any.syslog[0].selection), None);
    let capture = any.capture.selection();
    assert_eq!(narrower(&any, &capture), Some(capture));
}

#[test]
fn a_mistake_in_the_selection_of_an_output_is_named() {
    let cases = [
        ("log = \"\"", "log: expected \"nat\" or \"all\", found \"\""),
        (
            "zone = 65536",
            "zone: expected a whole number from 0 to 65535, found 65536",
        ),
        (
            "mark = \"0x1f/0xf\"",
            "mark: expected a value whose bits are all in the mask, such as 0xf/0xf, found \"0x1f/0xf\"",
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(
            collector(line),
            format!("n.toml: line 1: collector[0].{expected}")
        );
    }
}
