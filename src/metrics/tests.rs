//! The metrics in each form: for people, and names that programs rely on.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

/// A daemon with one of everything and no two numbers alike.
fn sample() -> Metrics {
    let by_protocol = |first| ByProtocol {
        tcp: first,
        udp: first + 1,
        icmp: first + 2,
        icmpv6: first + 3,
        gre: first + 4,
        sctp: first + 5,
        other: first + 6,
    };
    let at = |seconds: u64| Wall::from_millis(1_700_000_000_123 + 1000 * seconds);
    let gaps = [
        ("overflow", 0, 0, None),
        ("restart", 1, 0, Some(at(0))),
        ("table-full", 2, 400, None),
        ("undelivered", 3, 20, Some(at(60))),
    ];
    let bucket = |below_microseconds, count| Bucket {
        below_microseconds,
        count,
        total_nanoseconds: 1_500 * count,
    };
    Metrics {
        version: "0.1.0".to_owned(),
        pid: 411,
        time: at(7_500),
        started: at(0),
        uptime_seconds: 7_500,
        namespace: Some("blue".to_owned()),
        configuration: Some("/etc/nattrail/nattrail.toml".to_owned()),
        configuration_read: Some(at(0)),
        confinement: Confinement {
            capabilities: vec!["CAP_NET_ADMIN".to_owned()],
            no_new_privileges: true,
        },
        events: Events {
            new: 1_204,
            destroy: 1_100,
            new_by_protocol: by_protocol(1_000),
            destroy_by_protocol: by_protocol(10),
            messages: 2_305,
            batches: 800,
            dumped: 20,
            dumped_malformed: 0,
            malformed: 1,
            foreign: 2,
            overflows: 3,
        },
        kernel: Kernel {
            receive_buffer_octets: 128 << 20,
            queued_octets: 1_536,
            drops: 4,
            table_entries: 110,
            table_limit: 262_144,
            dying: 6,
        },
        sessions: Sessions {
            pending: 104,
            max: 4_000_000,
            beyond_max: 14,
            unkept: 3,
            forgotten: 2,
            pending_peak: 2_031,
            pending_peak_time: Some(at(3_600)),
            restored: 5,
            creates: 1_199,
            deletes: 1_100,
            unannounced: 6,
            adopted: 7,
            inferred_ends: 8,
            duplicates: 9,
            filtered: 12,
            audits: 13,
            flows: 15,
            sweeps: 16,
        },
        rates: Rates {
            creates_1s: 202.0,
            creates_1min: 180.25,
            creates_5min: 150.0,
            deletes_1s: 190.0,
            deletes_1min: 177.1,
            deletes_5min: 149.2,
        },
        gaps: gaps
            .map(|(cause, count, lost, last)| (cause.to_owned(), Gaps { count, lost, last }))
            .into(),
        store: Store {
            available: true,
            commits: 7_500,
            failed: 1,
            set_aside: 2,
            longest_commit_microseconds: 2_100,
            commit_histogram: Histogram(vec![bucket(Some(1_024), 7_000), bucket(None, 500)]),
        },
        log: Log {
            records: 2_303,
            serial: 9_303,
            oldest: 9_001,
            octets: 81_920,
            limit_octets: 1 << 30,
        },
        turns: Turns {
            count: 90_000,
            longest_microseconds: 12_300,
            longest_last_minute_microseconds: 210,
            histogram: Histogram(vec![
                bucket(Some(32), 0),
                bucket(Some(64), 80_000),
                bucket(Some(16_384), 9_999),
                bucket(None, 1),
            ]),
        },
        outputs: vec![output()],
    }
}

fn output() -> Output {
    Output {
        name: "collector 192.0.2.10:4739".to_owned(),
        format: "ipfix".to_owned(),
        target: "udp".to_owned(),
        selection: "log=nat zone=3".to_owned(),
        state: State::Refused,
        records: 2_280,
        behind: 3,
        lost: 20,
        not_representable: 2,
        flow_records: 2_298,
        messages: 160,
        octets: 200_000,
        gaps: 4,
        refused: 10,
        errors: 1,
        sequence: 2_250,
        template_sends: 9,
        observation_domain: 5,
    }
}

/// Every name in the object with its path; a list has one entry, with `[]` for its index.
fn names(value: &Value, way: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if way.is_empty() { "" } else { "." };
                names(value, &format!("{way}{dot}{name}"), found);
            }
        }
        Value::Array(values) => names(&values[0], &format!("{way}[]"), found),
        _ => found.push(way.to_owned()),
    }
}

/// The names that programs rely on: they may be added here, and never change or go.
const NAMES: &str = "
version pid time started uptime_seconds namespace configuration
confinement.capabilities[] confinement.no_new_privileges
events.new events.destroy
events.new_by_protocol.tcp events.new_by_protocol.udp events.new_by_protocol.icmp events.new_by_protocol.icmpv6
events.new_by_protocol.gre events.new_by_protocol.sctp events.new_by_protocol.other
events.destroy_by_protocol.tcp events.destroy_by_protocol.udp events.destroy_by_protocol.icmp
events.destroy_by_protocol.icmpv6 events.destroy_by_protocol.gre events.destroy_by_protocol.sctp
events.destroy_by_protocol.other
events.messages events.batches events.dumped events.dumped_malformed events.malformed events.foreign events.overflows
kernel.receive_buffer_octets kernel.queued_octets kernel.drops
kernel.table_entries kernel.table_limit kernel.dying
sessions.pending sessions.max sessions.beyond_max sessions.unkept sessions.forgotten
sessions.pending_peak sessions.pending_peak_time sessions.restored sessions.creates sessions.deletes
sessions.unannounced sessions.adopted sessions.inferred_ends sessions.duplicates sessions.filtered sessions.audits
sessions.flows sessions.sweeps
rates.creates_1s rates.creates_1min rates.creates_5min rates.deletes_1s rates.deletes_1min rates.deletes_5min
gaps.overflow.count gaps.overflow.lost gaps.overflow.last
gaps.restart.count gaps.restart.lost gaps.restart.last
gaps.table-full.count gaps.table-full.lost gaps.table-full.last
gaps.undelivered.count gaps.undelivered.lost gaps.undelivered.last
log.records log.serial log.oldest log.octets log.limit_octets
store.available store.commits store.failed store.set_aside store.longest_commit_microseconds
store.commit_histogram[].below_microseconds store.commit_histogram[].count store.commit_histogram[].total_nanoseconds
turns.count turns.longest_microseconds turns.longest_last_minute_microseconds
turns.histogram[].below_microseconds turns.histogram[].count turns.histogram[].total_nanoseconds
outputs[].name outputs[].format outputs[].target outputs[].selection outputs[].state outputs[].records outputs[].behind outputs[].lost
outputs[].not_representable outputs[].flow_records outputs[].messages outputs[].octets outputs[].gaps
outputs[].refused outputs[].errors outputs[].sequence outputs[].template_sends outputs[].observation_domain
";

#[test]
fn the_names_in_json_are_the_ones_that_were_promised() {
    let value = serde_json::from_str(&sample().to_json()).unwrap();
    let mut found = Vec::new();
    names(&value, "", &mut found);
    for name in NAMES.split_whitespace() {
        assert!(found.iter().any(|found| found == name), "{name} is gone");
    }
}

#[test]
fn json_is_read_back_as_it_was() {
    let json = sample().to_json();
    assert!(!json.contains('\n'));
    assert!(
        json.contains("\"started\":\"2023-11-14T22:13:20.123Z\""),
        "{json}"
    );
    assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), sample());
}

#[test]
fn another_version_may_know_more_or_less() {
    let known = r#"{"pid":5,"events":{"new":7,"later":1},"later":{}}"#;
    let known: Metrics = serde_json::from_str(known).unwrap();
    assert_eq!((known.pid, known.events.new), (5, 7));
    assert_eq!(known.sessions, Sessions::default());
}

#[test]
fn every_protocol_is_counted_once() {
    let mut counts = ByProtocol::default();
    for number in 0..=255 {
        counts.count(Protocol(number));
    }
    let expected = ByProtocol {
        tcp: 1,
        udp: 1,
        icmp: 1,
        icmpv6: 1,
        gre: 1,
        sctp: 1,
        other: 250,
    };
    assert_eq!(counts, expected);
}

#[test]
fn for_people_each_subject_has_a_line() {
    let expected = "\
nattrail 0.1.0, pid 411, running 2h05m since 2023-11-14T22:13:20.123Z
Settings:   configuration /etc/nattrail/nattrail.toml, network namespace blue
Confined:   capabilities CAP_NET_ADMIN; no new privileges
Gaps:       overflow 0; restart 1, the last until 2023-11-14T22:13:20.123Z; table-full 2, lost 400;
            undelivered 3, lost 20, the last until 2023-11-14T22:14:20.123Z
Sessions:   creates 1199, deletes 1100, pending 104, max 4000000, pending peak 2031,
            pending peak time 2023-11-14T23:13:20.123Z, beyond max 14, unkept 3, forgotten 2, restored 5,
            unannounced 6, adopted 7, inferred ends 8, duplicates 9, filtered 12, audits 13, flows 15,
            sweeps 16
Rates:      creates 1s 202.0/s, creates 1min 180.2/s, creates 5min 150.0/s, deletes 1s 190.0/s,
            deletes 1min 177.1/s, deletes 5min 149.2/s
Events:     new 1204, destroy 1100, messages 2305, batches 800, dumped 20, dumped malformed 0, malformed 1,
            foreign 2, overflows 3,
            new by protocol (tcp 1000, udp 1001, icmp 1002, icmpv6 1003, gre 1004, sctp 1005, other 1006),
            destroy by protocol (tcp 10, udp 11, icmp 12, icmpv6 13, gre 14, sctp 15, other 16)
Kernel:     receive buffer 128.0 MiB, queued 1.5 KiB, drops 4, table entries 110, table limit 262144, dying 6
Log:        records 2303, serial 9303, oldest 9001, octets 80.0 KiB, limit 1.0 GiB
Database:   available, commits 7500, failed 1, set aside 2, longest commit 2.1 ms,
            commit histogram (<1.0 ms 7000, longer 500)
Turns:      count 90000, longest 12.3 ms, longest last minute 210 us,
            histogram (<64 us 80000, <16.4 ms 9999, longer 1)
Output:     collector 192.0.2.10:4739, format ipfix, target udp, selection log=nat zone=3, state refused,
            records 2280, behind 3, lost 20, not representable 2, flow records 2298, messages 160,
            octets 195.3 KiB, gaps 4, refused 10, errors 1, sequence 2250, template sends 9,
            observation domain 5
";
    assert_eq!(sample().to_string(), expected);
}

#[test]
fn for_prometheus_names_units_and_labels_follow_its_guides() {
    let text = sample().to_prometheus();
    for expected in [
        "# HELP nattrail_sessions_creates_total Sessions whose create record left\n# TYPE nattrail_sessions_creates_total counter\nnattrail_sessions_creates_total 1199\n",
        "# TYPE nattrail_sessions_pending gauge\nnattrail_sessions_pending 104\n",
        "\nnattrail_build_info{version=\"0.1.0\"} 1\n",
        "\nnattrail_start_time_seconds 1700000000.123\n",
        "\nnattrail_sessions_pending_peak_timestamp_seconds 1700003600.123\n",
        "\nnattrail_events_new_total{protocol=\"udp\"} 1001\n",
        "\nnattrail_kernel_receive_buffer_bytes 134217728\n",
        "\nnattrail_gaps_total{cause=\"undelivered\"} 3\n",
        "\nnattrail_gaps_lost_total{cause=\"undelivered\"} 20\n",
        "\nnattrail_store_available 1\n",
        "\nnattrail_store_longest_commit_seconds 0.0021\n",
        "\nnattrail_log_limit_bytes 1073741824\n",
        "\nnattrail_output_bytes_total{output=\"collector 192.0.2.10:4739\",format=\"ipfix\",target=\"udp\"} 200000\n",
        ",target=\"udp\",state=\"working\"} 0\n",
        ",target=\"udp\",state=\"refused\"} 1\n",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    for (metric, reason) in [
        ("nattrail_rates", "rate() computes them"),
        ("nattrail_events_new ", "the protocols add up to it"),
        (
            "nattrail_gaps_last_timestamp_seconds{cause=\"overflow\"}",
            "there was none",
        ),
    ] {
        assert!(!text.contains(metric), "{metric}: {reason}");
    }
}

#[test]
fn a_histogram_for_prometheus_counts_what_took_as_long_or_less() {
    let text = sample().to_prometheus();
    let lines = text.lines();
    let lines: Vec<_> = lines
        .filter_map(|line| line.strip_prefix("nattrail_turns_duration_seconds"))
        .collect();
    let expected = [
        "_bucket{le=\"0.000032\"} 0",
        "_bucket{le=\"0.000064\"} 80000",
        "_bucket{le=\"0.016384\"} 89999",
        "_bucket{le=\"+Inf\"} 90000",
        "_sum 0.135",
        "_count 90000",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_ends_a_label_for_prometheus_is_escaped() {
    let mut metrics = Metrics::default();
    metrics.outputs.push(Output {
        name: "file /a\"b\\c\nd".to_owned(),
        ..Output::default()
    });
    let expected = r#"nattrail_output_behind{output="file /a\"b\\c\nd",format="",target=""} 0"#;
    let text = metrics.to_prometheus();
    assert!(text.lines().any(|line| line == expected), "{text}");
}

/// The names of metrics in a text, without the suffixes of histograms.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c: char| !is_part(c) && !c.is_ascii_digit());
    let names = words.filter(|word| word.starts_with("nattrail_"));
    names
        .map(|name| name.strip_suffix("_bucket").unwrap_or(name))
        .collect()
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_there_are() {
    let page = sample().to_prometheus();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let known: BTreeSet<_> = types.filter_map(|line| line.split(' ').next()).collect();
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    for file in ["prometheus/nattrail.rules.yml", "grafana/nattrail.json"] {
        let text = fs::read_to_string(conf.join(file)).unwrap();
        let named = metrics_in(&text);
        assert!(named.len() > 8, "{file}: {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn the_dashboard_is_json_with_a_query_in_every_panel() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../conf/grafana/nattrail.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    for panel in panels {
        let queries = panel["targets"].as_array().unwrap();
        let filled = |query: &Value| query["expr"].as_str().is_some_and(|text| !text.is_empty());
        assert!(!queries.is_empty() && queries.iter().all(filled), "{panel}");
        assert!(panel["gridPos"]["w"].is_u64(), "{panel}");
    }
}
