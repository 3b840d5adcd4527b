//! Properties that all formats have in common, for any record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::session::EndReason;

fn any_tuple(v6: bool) -> impl Strategy<Value = Tuple> {
    (any::<u128>(), any::<u128>(), any::<u16>(), any::<u16>()).prop_map(
        move |(src, dst, src_port, dst_port)| {
            let address = |bits: u128| -> IpAddr {
                if v6 {
                    Ipv6Addr::from(bits).into()
                } else {
                    Ipv4Addr::from(bits as u32).into()
                }
            };
            Tuple {
                src: address(src),
                dst: address(dst),
                src_port,
                dst_port,
            }
        },
    )
}

fn any_session() -> impl Strategy<Value = Session> {
    (
        any::<bool>().prop_flat_map(|v6| (any_tuple(v6), any_tuple(v6))),
        prop_oneof![Just(1_u8), Just(6), Just(17), Just(47), any::<u8>()],
        any::<u16>(),
        any::<Option<u32>>(),
        prop_oneof![Just(0), any::<u32>()],
    )
        .prop_map(|((original, reply), protocol, zone, id, mark)| Session {
            original,
            reply,
            protocol: Protocol(protocol),
            zone: Zone {
                id: zone,
                ..Zone::default()
            },
            id,
            mark,
        })
}

fn any_record() -> impl Strategy<Value = Record> {
    let event = (
        any_session(),
        any::<bool>(),
        any::<u64>(),
        any::<Option<u64>>(),
        any::<Option<[u64; 4]>>(),
        any::<bool>(),
        prop::sample::select(vec![None, Some(EndReason::Idle), Some(EndReason::Active)]),
    )
        .prop_map(|(session, ends, time, start, counters, inferred, reason)| {
            Record::Event(NatEvent {
                kind: if ends {
                    EventKind::Delete
                } else {
                    EventKind::Create
                },
                session,
                time: Wall::from_nanos(time),
                start: start.map(Wall::from_nanos),
                totals: counters.map(|[a, b, c, d]| Totals {
                    original: Counters {
                        packets: a,
                        octets: b,
                    },
                    reply: Counters {
                        packets: c,
                        octets: d,
                    },
                }),
                provenance: if inferred {
                    Provenance::Inferred
                } else {
                    Provenance::Kernel
                },
                end_reason: reason,
                in_parts: false,
                first_mark: None,
            })
        });
    let gap = (any::<u64>(), any::<u64>(), any::<Option<u64>>()).prop_map(|(from, to, lost)| {
        Record::Gap(Gap {
            cause: GapCause::Undelivered,
            from: Wall::from_nanos(from),
            to: Wall::from_nanos(to),
            lost,
        })
    });
    prop_oneof![9 => event, 1 => gap]
}

/// The lines of a record, at most `most` of them.
fn csv_lines(record: &Record, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let _ = encoder(stdout(), Format::Csv).encode(record, NOW, &mut |message| {
        lines.push(String::from_utf8(message.bytes.to_vec()).unwrap());
        if lines.len() < most {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    lines
}

proptest! {
    #[test]
    fn json_parses_and_says_the_same_as_text_and_the_journal(record in any_record()) {
        let json = message(stdout(), Format::Json, &record);
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
        let line = text(&record);
        let pairs: Vec<(&str, &str)> = line
            .trim_end()
            .split(' ')
            .map(|pair| pair.split_once('=').unwrap())
            .collect();
        prop_assert_eq!(pairs.len(), object.len());
        let entry = message(journal(), Format::Text, &record);
        for (key, value) in pairs {
            match &object[key] {
                serde_json::Value::String(text) => prop_assert_eq!(text, value),
                serde_json::Value::Bool(true) => prop_assert_eq!(value, "yes"),
                // Not by its Display, which loses digits of a long duration.
                serde_json::Value::Number(_) => prop_assert!(json.contains(&format!("\"{key}\":{value}")), "{key}"),
                other => prop_assert!(false, "{key} is {other}"),
            }
            let field = format!("\nNAT_{}={value}\n", key.to_uppercase());
            prop_assert!(entry.contains(&field), "{field:?} is not in {entry:?}");
        }
    }

    #[test]
    fn csv_has_18_fields_or_a_comment_that_flow_import_skips(record in any_record()) {
        for line in csv_lines(&record, 10) {
            prop_assert!(line.len() < 1023, "{line}");
            prop_assert!(line.starts_with("# ") || line.split(',').count() == 18, "{line}");
            prop_assert!(line.starts_with("# ") || !line.contains(':'), "{line}");
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        }
    }
}
