//! The exact bytes of every format.
#![allow(clippy::unwrap_used)]

mod flows;
mod property;

use std::path::PathBuf;

use super::*;
use crate::session::{
    Counters, Gap, GapCause, NatEvent, Protocol, Provenance, Session, Totals, Tuple, Zone,
};
use crate::time::{Uptime, Wall};

/// 2026-03-01T12:00:00Z
const START: Wall = Wall::from_secs(1_772_366_400);
/// 2026-03-01T12:01:02.345678901Z
const END: Wall = Wall::from_nanos(1_772_366_462_345_678_901);
/// A second after the end, an hour after boot.
const NOW: Now = Now::new(
    Wall::from_nanos(1_772_366_463_345_678_901),
    Uptime::from_millis(3_600_000),
);

fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
    Tuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        src_port,
        dst_port,
    }
}

fn session(protocol: Protocol, original: Tuple, reply: Tuple) -> Session {
    Session {
        original,
        reply,
        protocol,
        zone: Zone::default(),
        id: None,
        mark: 0,
    }
}

fn snat() -> Session {
    session(
        Protocol::TCP,
        tuple("10.0.0.7", 40000, "198.51.100.5", 443),
        tuple("198.51.100.5", 443, "192.0.2.1", 61000),
    )
}

fn dnat() -> Session {
    session(
        Protocol::UDP,
        tuple("203.0.113.9", 5353, "192.0.2.1", 53),
        tuple("10.0.0.53", 5300, "203.0.113.9", 5353),
    )
}

fn both() -> Session {
    session(
        Protocol::TCP,
        tuple("10.0.0.7", 40000, "192.0.2.1", 80),
        tuple("10.0.0.80", 8080, "10.0.0.1", 40000),
    )
}

fn icmp() -> Session {
    session(
        Protocol::ICMP,
        tuple("10.0.0.7", 77, "198.51.100.5", 8 * 256),
        tuple("198.51.100.5", 4077, "192.0.2.1", 0),
    )
}

fn gre() -> Session {
    session(
        Protocol::GRE,
        tuple("10.0.0.7", 1, "198.51.100.5", 2),
        tuple("198.51.100.5", 2, "192.0.2.1", 3),
    )
}

fn untranslated() -> Session {
    session(
        Protocol::UDP,
        tuple("10.0.0.7", 40000, "198.51.100.5", 53),
        tuple("198.51.100.5", 53, "10.0.0.7", 40000),
    )
}

fn nat66() -> Session {
    session(
        Protocol::TCP,
        tuple("fd00::7", 40000, "2001:db8::5", 443),
        tuple("2001:db8::5", 443, "2001:db8:1::1", 40000),
    )
}

fn create(session: Session) -> Record {
    Record::Event(NatEvent::create(session, START, Provenance::Kernel))
}

fn delete(session: Session) -> NatEvent {
    NatEvent {
        kind: EventKind::Delete,
        time: END,
        start: Some(START),
        totals: Some(Totals {
            original: Counters {
                packets: 10,
                octets: 1200,
            },
            reply: Counters {
                packets: 8,
                octets: 64000,
            },
        }),
        ..NatEvent::create(session, START, Provenance::Kernel)
    }
}

fn gap(lost: Option<u64>) -> Record {
    Record::Gap(Gap {
        cause: GapCause::Overflow,
        from: START,
        to: END,
        lost,
    })
}

fn stdout() -> Target {
    Target::Stdout
}

fn local() -> Target {
    Target::Local {
        path: PathBuf::from("/dev/log"),
    }
}

fn udp() -> Target {
    Target::Udp {
        address: "192.0.2.99:514".parse().unwrap(),
    }
}

fn journal() -> Target {
    Target::Journal {
        path: PathBuf::from("/run/systemd/journal/socket"),
    }
}

fn encoder(target: Target, format: Format) -> Encoder {
    encoder_of("gw1.example.net", target, format)
}

fn encoder_of(host_name: &str, target: Target, format: Format) -> Encoder {
    let style = Style {
        target: &target,
        format,
        events: true,
        flow: false,
        facility: Facility(22 << 3),
        severity: Severity::Informational,
        app_name: "nattrail",
        exporter_address: "192.0.2.1".parse().unwrap(),
    };
    let host = Host {
        hostname: host_name.to_owned(),
        pid: 321,
    };
    Encoder::new(&style, &host)
}

/// The messages of a record and, for each, whether it is the last.
fn messages(target: Target, format: Format, record: &Record) -> Vec<(String, bool)> {
    let mut messages = Vec::new();
    let flow = encoder(target, format).encode(record, NOW, &mut |message| {
        let text = String::from_utf8(message.bytes.to_vec()).unwrap();
        messages.push((text, message.is_last));
        ControlFlow::Continue(())
    });
    assert_eq!(flow, ControlFlow::Continue(()));
    messages
}

/// The one message of a record.
fn message(target: Target, format: Format, record: &Record) -> String {
    let mut messages = messages(target, format, record);
    assert_eq!(messages.len(), 1);
    let (text, is_last) = messages.remove(0);
    assert!(is_last);
    text
}

fn text(record: &Record) -> String {
    message(stdout(), Format::Text, record)
}

fn csv(record: &Record) -> Vec<String> {
    messages(stdout(), Format::Csv, record)
        .into_iter()
        .map(|(line, _)| line)
        .collect()
}

#[test]
fn text_of_a_source_translation() {
    assert_eq!(
        text(&create(snat())),
        "time=2026-03-01T12:00:00.000Z event=create nat=snat proto=tcp pre_src=10.0.0.7 pre_sport=40000 \
         pre_dst=198.51.100.5 pre_dport=443 post_src=192.0.2.1 post_sport=61000 post_dst=198.51.100.5 post_dport=443\n"
    );
    assert_eq!(
        text(&Record::Event(delete(snat()))),
        "time=2026-03-01T12:01:02.345Z event=delete nat=snat proto=tcp pre_src=10.0.0.7 pre_sport=40000 \
         pre_dst=198.51.100.5 pre_dport=443 post_src=192.0.2.1 post_sport=61000 post_dst=198.51.100.5 post_dport=443 \
         start=2026-03-01T12:00:00.000Z end=2026-03-01T12:01:02.345Z duration=62.345 orig_packets=10 orig_octets=1200 \
         reply_packets=8 reply_octets=64000\n"
    );
}

#[test]
fn text_of_a_destination_translation() {
    assert_eq!(
        text(&create(dnat())),
        "time=2026-03-01T12:00:00.000Z event=create nat=dnat proto=udp pre_src=203.0.113.9 pre_sport=5353 \
         pre_dst=192.0.2.1 pre_dport=53 post_src=203.0.113.9 post_sport=5353 post_dst=10.0.0.53 post_dport=5300\n"
    );
}

#[test]
fn text_of_both_translations_at_once() {
    assert_eq!(
        text(&create(both())),
        "time=2026-03-01T12:00:00.000Z event=create nat=snat+dnat proto=tcp pre_src=10.0.0.7 pre_sport=40000 \
         pre_dst=192.0.2.1 pre_dport=80 post_src=10.0.0.1 post_sport=40000 post_dst=10.0.0.80 post_dport=8080\n"
    );
}

#[test]
fn text_of_icmp_has_an_identifier_in_place_of_ports() {
    assert_eq!(
        text(&create(icmp())),
        "time=2026-03-01T12:00:00.000Z event=create nat=snat proto=icmp pre_src=10.0.0.7 pre_dst=198.51.100.5 pre_id=77 \
         post_src=192.0.2.1 post_dst=198.51.100.5 post_id=4077 icmp_type=8 icmp_code=0\n"
    );
}

#[test]
fn text_of_gre_has_its_keys_as_ports() {
    assert_eq!(
        text(&create(gre())),
        "time=2026-03-01T12:00:00.000Z event=create nat=snat proto=gre pre_src=10.0.0.7 pre_sport=1 \
         pre_dst=198.51.100.5 pre_dport=2 post_src=192.0.2.1 post_sport=3 post_dst=198.51.100.5 post_dport=2\n"
    );
}

#[test]
fn text_of_a_protocol_without_ports_leaves_them_out() {
    let session = session(
        Protocol(50),
        tuple("10.0.0.7", 0, "198.51.100.5", 0),
        tuple("198.51.100.5", 0, "192.0.2.1", 0),
    );
    assert_eq!(
        text(&create(session)),
        "time=2026-03-01T12:00:00.000Z event=create nat=snat proto=50 pre_src=10.0.0.7 pre_dst=198.51.100.5 \
         post_src=192.0.2.1 post_dst=198.51.100.5\n"
    );
}

#[test]
fn text_of_ipv6() {
    assert_eq!(
        text(&create(nat66())),
        "time=2026-03-01T12:00:00.000Z event=create nat=snat proto=tcp pre_src=fd00::7 pre_sport=40000 \
         pre_dst=2001:db8::5 pre_dport=443 post_src=2001:db8:1::1 post_sport=40000 post_dst=2001:db8::5 post_dport=443\n"
    );
}

#[test]
fn text_of_an_inferred_end_says_so_and_leaves_out_what_is_not_known() {
    let mut event = delete(snat());
    event.provenance = Provenance::Inferred;
    event.start = None;
    event.totals = None;
    event.session.mark = 0xa0;
    event.session.zone.id = 3;
    event.session.id = Some(4_000_000_000);
    assert_eq!(
        text(&Record::Event(event)),
        "time=2026-03-01T12:01:02.345Z event=delete nat=snat proto=tcp pre_src=10.0.0.7 pre_sport=40000 \
         pre_dst=198.51.100.5 pre_dport=443 post_src=192.0.2.1 post_sport=61000 post_dst=198.51.100.5 post_dport=443 \
         end=2026-03-01T12:01:02.345Z mark=0xa0 zone=3 id=4000000000 inferred=yes\n"
    );
}

#[test]
fn text_of_a_gap() {
    assert_eq!(
        text(&gap(Some(12))),
        "time=2026-03-01T12:01:02.345Z event=gap cause=overflow from=2026-03-01T12:00:00.000Z \
         to=2026-03-01T12:01:02.345Z lost=12\n"
    );
    assert!(!text(&gap(None)).contains("lost"));
}

#[test]
fn the_causes_of_gaps_have_the_names_that_scripts_rely_on() {
    let names = [
        "restart",
        "overflow",
        "table-full",
        "insert-failed",
        "clock-step",
        "tracking-off",
        "undecoded",
        "expired",
        "undelivered",
        "mirror",
    ];
    for (cause, name) in GapCause::ALL.into_iter().zip(names) {
        let record = Record::Gap(Gap {
            cause,
            from: START,
            to: END,
            lost: None,
        });
        assert!(text(&record).contains(&format!(" cause={name} ")));
        let json = message(stdout(), Format::Json, &record);
        assert!(json.contains(&format!(r#""cause":"{name}""#)), "{json}");
        let entry = message(journal(), Format::Text, &record);
        assert!(entry.contains(&format!("\nNAT_CAUSE={name}\n")), "{entry}");
        let datagram = message(udp(), Format::Rfc5424, &record);
        assert!(
            datagram.contains(&format!(
                " GAP - time=2026-03-01T12:01:02.345Z event=gap cause={name} "
            )),
            "{datagram}"
        );
    }
}

#[test]
fn a_clock_that_was_set_back_has_its_times_in_that_order() {
    let step = Record::Gap(Gap {
        cause: GapCause::ClockStep,
        from: END,
        to: START,
        lost: None,
    });
    assert_eq!(
        text(&step),
        "time=2026-03-01T12:00:00.000Z event=gap cause=clock-step from=2026-03-01T12:01:02.345Z \
         to=2026-03-01T12:00:00.000Z\n"
    );
}

#[test]
fn json_has_numbers_as_numbers() {
    let mut event = delete(snat());
    event.session.mark = 1;
    event.provenance = Provenance::Inferred;
    assert_eq!(
        message(stdout(), Format::Json, &Record::Event(event)),
        concat!(
            r#"{"time":"2026-03-01T12:01:02.345Z","event":"delete","nat":"snat","proto":"tcp","pre_src":"10.0.0.7","#,
            r#""pre_sport":40000,"pre_dst":"198.51.100.5","pre_dport":443,"post_src":"192.0.2.1","post_sport":61000,"#,
            r#""post_dst":"198.51.100.5","post_dport":443,"start":"2026-03-01T12:00:00.000Z","#,
            r#""end":"2026-03-01T12:01:02.345Z","duration":62.345,"orig_packets":10,"orig_octets":1200,"#,
            r#""reply_packets":8,"reply_octets":64000,"mark":"0x1","inferred":true}"#,
            "\n"
        )
    );
}

#[test]
fn csv_is_the_triplet_of_a_finished_session() {
    assert_eq!(csv(&create(snat())), [""; 0]);
    assert_eq!(
        csv(&Record::Event(delete(snat()))),
        [
            "1772366463,345678901,3600000,192.0.2.1,10,1200,3536655,3599000,10.0.0.7,198.51.100.5,0.0.0.0,0,0,40000,443,6,0,0\n",
            "1772366463,345678901,3600000,192.0.2.1,10,1200,3536655,3599000,192.0.2.1,198.51.100.5,0.0.0.0,0,0,61000,443,6,0,0\n",
            "1772366463,345678901,3600000,192.0.2.1,8,64000,3536655,3599000,198.51.100.5,192.0.2.1,0.0.0.0,0,0,443,61000,6,0,0\n",
        ]
    );
    let last: Vec<bool> = messages(stdout(), Format::Csv, &Record::Event(delete(snat())))
        .into_iter()
        .map(|(_, is_last)| is_last)
        .collect();
    assert_eq!(last, [false, false, true]);
}

#[test]
fn csv_without_start_and_counters_has_zeros_and_the_end() {
    let mut event = delete(icmp());
    event.start = None;
    event.totals = None;
    assert_eq!(
        csv(&Record::Event(event)),
        [
            "1772366463,345678901,3600000,192.0.2.1,0,0,3599000,3599000,10.0.0.7,198.51.100.5,0.0.0.0,0,0,77,2048,1,0,0\n",
            "1772366463,345678901,3600000,192.0.2.1,0,0,3599000,3599000,192.0.2.1,198.51.100.5,0.0.0.0,0,0,4077,2048,1,0,0\n",
            "1772366463,345678901,3600000,192.0.2.1,0,0,3599000,3599000,198.51.100.5,192.0.2.1,0.0.0.0,0,0,4077,0,1,0,0\n",
        ]
    );
}

/// flow-import skips lines that begin with `#`, and takes what follows 1023 octets for another line.
#[test]
fn csv_has_comments_for_what_flow_tools_cannot_hold() {
    let mut damaged = delete(snat());
    damaged.totals = Some(Totals {
        original: Counters {
            packets: u64::MAX,
            octets: u64::MAX,
        },
        reply: Counters::default(),
    });
    let mut mixed = delete(snat());
    mixed.session.reply = nat66().reply;
    for event in [delete(nat66()), damaged, mixed] {
        let record = Record::Event(event);
        assert_eq!(csv(&record), [format!("# {}", text(&record))]);
    }
    assert_eq!(csv(&gap(Some(3))), [format!("# {}", text(&gap(Some(3))))]);
    assert_eq!(csv(&create(nat66())), [""; 0]);
}

#[test]
fn csv_has_the_oldest_start_that_a_reader_gets_back() {
    let mut event = delete(snat());
    event.start = Some(Wall::default());
    // sysuptime is 3,600,000: 2^32 - 3,600,000 ms earlier is 7,200,000 modulo 2^32.
    for line in csv(&Record::Event(event)) {
        assert_eq!(line.split(',').nth(6), Some("7200000"));
    }
}

#[test]
fn csv_spreads_a_large_counter_over_lines_with_the_same_tuple() {
    let mut event = delete(snat());
    event.totals = Some(Totals {
        original: Counters {
            packets: 3,
            octets: (1 << 32) + 10,
        },
        reply: Counters::default(),
    });
    let lines = csv(&Record::Event(event));
    let counters: Vec<(u64, u64)> = lines
        .iter()
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            (fields[4].parse().unwrap(), fields[5].parse().unwrap())
        })
        .collect();
    let half = (1 << 31) + 5;
    let parts = [(1, half - 1), (2, half + 1)];
    assert_eq!(counters, [&parts[..], &parts, &[(0, 0)]].concat());
}

#[test]
fn csv_stops_when_the_receiver_has_enough() {
    let mut event = delete(snat());
    event.totals = Some(Totals {
        original: Counters {
            packets: 1 << 40,
            octets: 1 << 47,
        },
        reply: Counters::default(),
    });
    let mut count = 0;
    let flow = encoder(stdout(), Format::Csv).encode(&Record::Event(event), NOW, &mut |_| {
        count += 1;
        if count == 100 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!((flow, count), (ControlFlow::Break(()), 100));
}

#[test]
fn csv_of_a_gap_is_a_comment() {
    assert_eq!(csv(&gap(Some(12))), [format!("# {}", text(&gap(Some(12))))]);
}

#[test]
fn rfc5424_over_udp_has_the_session_as_structured_data() {
    assert_eq!(
        message(udp(), Format::Rfc5424, &create(snat())),
        "<182>1 2026-03-01T12:00:00.000000Z gw1.example.net nattrail 321 SADD [nsess ISADDR=\"10.0.0.7\" ISPORT=\"40000\" \
         XSADDR=\"192.0.2.1\" XSPORT=\"61000\" XDADDR=\"198.51.100.5\" XDPORT=\"443\" IDADDR=\"198.51.100.5\" IDPORT=\"443\" \
         PROTO=\"6\"]"
    );
    assert_eq!(
        message(udp(), Format::Rfc5424, &Record::Event(delete(both()))),
        "<182>1 2026-03-01T12:01:02.345678Z gw1.example.net nattrail 321 SDEL [nsess ISADDR=\"10.0.0.7\" ISPORT=\"40000\" \
         XSADDR=\"10.0.0.1\" XSPORT=\"40000\" XDADDR=\"10.0.0.80\" XDPORT=\"8080\" IDADDR=\"192.0.2.1\" IDPORT=\"80\" \
         PROTO=\"6\"]"
    );
}

#[test]
fn rfc5424_says_inferred_and_gap_in_its_message() {
    let mut event = delete(snat());
    event.provenance = Provenance::Inferred;
    let inferred = message(udp(), Format::Rfc5424, &Record::Event(event));
    assert!(inferred.ends_with("PROTO=\"6\"] inferred=yes"));
    assert_eq!(
        message(udp(), Format::Rfc5424, &gap(None)),
        "<182>1 2026-03-01T12:01:02.345678Z gw1.example.net nattrail 321 GAP - time=2026-03-01T12:01:02.345Z event=gap \
         cause=overflow from=2026-03-01T12:00:00.000Z to=2026-03-01T12:01:02.345Z"
    );
}

#[test]
fn udp_puts_the_line_of_the_other_formats_behind_an_rfc5424_header() {
    let header = "<182>1 2026-03-01T12:01:02.345678Z gw1.example.net nattrail 321 SDEL - ";
    let record = Record::Event(delete(dnat()));
    let line = text(&record);
    assert_eq!(
        message(udp(), Format::Text, &record),
        format!("{header}{}", line.trim_end())
    );
    for ((datagram, _), line) in messages(udp(), Format::Csv, &record)
        .iter()
        .zip(csv(&record))
    {
        assert_eq!(*datagram, format!("{header}{}", line.trim_end()));
    }
}

#[test]
fn local_puts_the_line_behind_an_rfc3164_header() {
    let record = create(gre());
    let header = "<182>Mar  1 12:00:00 nattrail[321]: ";
    assert_eq!(
        message(local(), Format::Text, &record),
        format!("{header}{}", text(&record).trim_end())
    );
    let body = message(local(), Format::Rfc5424, &record);
    assert!(
        body.starts_with("<182>Mar  1 12:00:00 nattrail[321]: SADD [nsess ISADDR=\"10.0.0.7\" ")
    );
}

#[test]
fn a_file_has_whole_rfc5424_messages_as_lines() {
    let record = create(snat());
    let datagram = message(udp(), Format::Rfc5424, &record);
    assert_eq!(
        message(stdout(), Format::Rfc5424, &record),
        format!("{datagram}\n")
    );
}

#[test]
fn the_journal_gets_the_line_and_every_field() {
    let record = create(icmp());
    assert_eq!(
        message(journal(), Format::Text, &record),
        format!(
            "PRIORITY=6\nSYSLOG_FACILITY=22\nSYSLOG_PID=321\nSYSLOG_IDENTIFIER=nattrail\nMESSAGE={}\
             NAT_TIME=2026-03-01T12:00:00.000Z\nNAT_EVENT=create\nNAT_NAT=snat\nNAT_PROTO=icmp\nNAT_PRE_SRC=10.0.0.7\n\
             NAT_PRE_DST=198.51.100.5\nNAT_PRE_ID=77\nNAT_POST_SRC=192.0.2.1\nNAT_POST_DST=198.51.100.5\n\
             NAT_POST_ID=4077\nNAT_ICMP_TYPE=8\nNAT_ICMP_CODE=0\n",
            text(&record)
        )
    );
}

#[test]
fn a_host_name_cannot_break_the_header() {
    for (host_name, field) in [("", "-"), ("two words\n<1>", "two_words_<1>")] {
        let mut encoder = encoder_of(host_name, udp(), Format::Text);
        let mut text = String::new();
        let _ = encoder.encode(&gap(None), NOW, &mut |message| {
            text = String::from_utf8(message.bytes.to_vec()).unwrap();
            ControlFlow::Continue(())
        });
        let header = format!("<182>1 2026-03-01T12:01:02.345678Z {field} nattrail 321 GAP - ");
        assert!(text.starts_with(&header), "{text}");
    }
}
