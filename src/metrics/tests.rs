//! The metrics in both forms: what a person reads, and names that programs rely on.

#![allow(clippy::unwrap_used)]

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
    let at = |seconds: u64| Time(Wall::from_millis(1_700_000_000_123 + 1000 * seconds));
    let gaps = [
        ("overflow", 0, 0, None),
        ("restart", 1, 0, Some(at(0))),
        ("table-full", 2, 400, None),
    ];
    let bucket = |below_microseconds, turns| Bucket {
        below_microseconds,
        turns,
    };
    Metrics {
        version: "0.1.0".to_owned(),
        pid: 411,
        time: at(7_500),
        started: at(0),
        uptime_seconds: 7_500,
        namespace: Some("blue".to_owned()),
        configuration: Some("/etc/nattrail/nattrail.toml".to_owned()),
        confinement: Confinement {
            capabilities: vec!["CAP_NET_ADMIN".to_owned()],
            no_new_privileges: true,
            landlock_abi: Some(6),
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
        },
        turns: Turns {
            count: 90_000,
            longest_microseconds: 12_300,
            longest_last_minute_microseconds: 210,
            histogram: vec![
                bucket(Some(32), 0),
                bucket(Some(64), 80_000),
                bucket(Some(16_384), 9_999),
                bucket(None, 1),
            ],
        },
        collectors: vec![collector()],
        syslog: vec![Syslog {
            target: "file /var/log/nat.log".to_owned(),
            records: 1_100,
            sent: 1_000,
            failed: 1,
            dropped: 90,
            queued: 9,
            refused: 2,
            errors: 3,
            own_gaps: 4,
            queued_octets: 999,
            peak_octets: 2_048,
        }],
    }
}

fn collector() -> Collector {
    Collector {
        address: "192.0.2.10:4739".to_owned(),
        version: "ipfix".to_owned(),
        observation_domain: 1,
        records: 2_304,
        not_representable: 2,
        gaps: 3,
        flow_records: 2_298,
        sent: 2_200,
        failed: 50,
        dropped: 40,
        queued: 8,
        messages: 160,
        octets: 200_000,
        refused: 10,
        queued_messages: 1,
        queued_octets: 1_400,
        peak_octets: 3_000,
        sequence: 2_250,
        template_sends: 9,
    }
}

/// Every name in the object with its way there; lists have one entry, and `[]` for its number.
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

/// What programs rely on: names may be added here, and never change or go.
const NAMES: &str = "
version pid time started uptime_seconds namespace configuration
confinement.capabilities[] confinement.no_new_privileges confinement.landlock_abi
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
rates.creates_1s rates.creates_1min rates.creates_5min rates.deletes_1s rates.deletes_1min rates.deletes_5min
gaps.overflow.count gaps.overflow.lost gaps.overflow.last
gaps.restart.count gaps.restart.lost gaps.restart.last
gaps.table-full.count gaps.table-full.lost gaps.table-full.last
store.available store.commits store.failed store.set_aside store.longest_commit_microseconds
turns.count turns.longest_microseconds turns.longest_last_minute_microseconds
turns.histogram[].below_microseconds turns.histogram[].turns
collectors[].address collectors[].version collectors[].observation_domain collectors[].records
collectors[].not_representable collectors[].gaps collectors[].flow_records collectors[].sent
collectors[].failed collectors[].dropped collectors[].queued collectors[].messages collectors[].octets
collectors[].refused collectors[].queued_messages collectors[].queued_octets collectors[].peak_octets
collectors[].sequence collectors[].template_sends
syslog[].target syslog[].records syslog[].sent syslog[].failed syslog[].dropped syslog[].queued syslog[].refused
syslog[].errors syslog[].own_gaps syslog[].queued_octets syslog[].peak_octets
";

#[test]
fn the_names_in_json_are_the_ones_that_were_promised() {
    let value = serde_json::from_str(&sample().to_json()).unwrap();
    let mut found = Vec::new();
    names(&value, "", &mut found);
    found.sort();
    let mut expected: Vec<_> = NAMES.split_whitespace().map(str::to_owned).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn json_is_read_back_as_it_was() {
    let json = sample().to_json();
    assert!(!json.contains('\n'));
    assert!(
        json.contains("\"started\":\"2023-11-14T22:13:20.123Z\""),
        "{json}"
    );
    assert_eq!(Metrics::from_json(json.as_bytes()).unwrap(), sample());
}

#[test]
fn another_version_may_know_more_or_less() {
    let known = Metrics::from_json(br#"{"pid":5,"events":{"new":7,"later":1},"later":{}}"#);
    let known = known.unwrap();
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
Confined:   capabilities CAP_NET_ADMIN; no new privileges; files by Landlock ABI 6
Natevents:  count start 1199, stop 1100
Rate:       start 202.0/s, 1 min 180.2/s, 5 min 150.0/s
            stop  190.0/s, 1 min 177.1/s, 5 min 149.2/s
Sessions:   pending 104 (peak 2031 reached 2023-11-14T23:13:20.123Z), max 4000000, beyond it 14 (3 now, 2 forgotten), restored 5
            unannounced 6, adopted 7, inferred ends 8, duplicates 9, filtered 12, audits 13
Events:     new 1204, destroy 1100 in 2305 messages, 800 batches, dumped 20, malformed 1, foreign 2, overflows 3
  by protocol        tcp        udp       icmp     icmpv6        gre       sctp      other
  new               1000       1001       1002       1003       1004       1005       1006
  destroy             10         11         12         13         14         15         16
Kernel:     receive buffer 128.0 MiB, queued 1.5 KiB, full 4 times; table 110 of 262144, dying 6
Gaps:       overflow 0; restart 1, the last until 2023-11-14T22:13:20.123Z; table-full 2, lost 400
Store:      available, commits 7500, failed 1, set aside 2, longest commit 2.1 ms
Loop:       turns 90000, longest 12.3 ms (in the last minute 210 us)
            <64 us 80000, <16.4 ms 9999, longer 1
Collector 192.0.2.10:4739, ipfix
  flow records sent 2200, failed 50, dropped 40, queued 8; messages 160 (195.3 KiB), refused 10
  records 2304, not representable 2, gaps sent 3
  queue 1 messages, 1.4 KiB (peak 2.9 KiB); sequence 2250, templates sent 9 times
Copies to file /var/log/nat.log
  records sent 1000, failed 1, dropped 90, queued 9; refused 2, errors 3, gaps of its own 4
  queue 999 B (peak 2.0 KiB)
";
    assert_eq!(sample().to_string(), expected);
}
