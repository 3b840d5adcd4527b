//! Records of the daemon, compared with their expected content according to conntrack.
//!
//! The expectation is built from conntrack's text and from the documented names of the fields, without any code of the
//! program under test.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::conntrack::{Flow, Kind, Side};
use super::packet;

/// The fields of one record, by name.
pub type Fields = BTreeMap<String, String>;

/// The most that the time of a create may differ from the start of the session. The kernel takes the former when it reports
/// the connection, the latter microseconds before, on entering it in its table: unless the CPU is taken away in between.
const REPORTING: i64 = 250;

/// A line of the format `text`.
#[must_use]
pub fn parse_text(line: &str) -> Fields {
    line.split(' ')
        .map(|field| {
            let (key, value) = field
                .split_once('=')
                .unwrap_or_else(|| panic!("{field:?} is no key=value in {line:?}"));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// A line of the format `json`, its values as the format `text` writes them.
#[must_use]
pub fn parse_json(line: &str) -> Fields {
    let object: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    object
        .into_iter()
        .map(|(key, value)| {
            let text = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Bool(true) => "yes".to_owned(),
                serde_json::Value::Number(number) if key == "duration" => {
                    format!("{:.3}", number.as_f64().unwrap())
                }
                other => other.to_string(),
            };
            (key, text)
        })
        .collect()
}

/// The record that a NEW or DESTROY event must make, apart from `time` in a create.
#[must_use]
pub fn expected(flow: &Flow) -> Fields {
    let mut fields = Fields::new();
    let mut put = |key: &str, value: &dyn ToString| {
        fields.insert(key.to_owned(), value.to_string());
    };
    let (original, reply) = (&flow.original, &flow.reply);
    put("nat", &flow.nat());
    put("proto", &protocol_name(flow.protocol));
    put("pre_src", &original.src);
    put("pre_dst", &original.dst);
    put("post_src", &reply.dst);
    put("post_dst", &reply.src);
    if let Some(icmp) = original.icmp {
        put("pre_id", &icmp.id);
        put("post_id", &reply.icmp.unwrap().id);
        put("icmp_type", &icmp.r#type);
        put("icmp_code", &icmp.code);
    } else if has_ports(flow) {
        put("pre_sport", &original.src_port);
        put("pre_dport", &original.dst_port);
        put("post_sport", &reply.dst_port);
        put("post_dport", &reply.src_port);
    }
    if flow.mark != 0 {
        put("mark", &format!("{:#x}", flow.mark));
    }
    if flow.zone != 0 {
        put("zone", &flow.zone);
    }
    put("id", &flow.id);
    match flow.kind {
        Kind::New => put("event", &"create"),
        Kind::Destroy => {
            put("event", &"delete");
            let (start, stop) = (millis(flow.start), millis(flow.stop));
            put("start", &rfc3339(start));
            put("end", &rfc3339(stop));
            put("time", &rfc3339(stop));
            let duration = stop - start;
            put(
                "duration",
                &format!("{}.{:03}", duration / 1000, duration % 1000),
            );
            put_counters(&mut put, "orig", original);
            put_counters(&mut put, "reply", reply);
        }
        Kind::Entry => panic!("an entry of the table is no event: {flow:?}"),
    }
    fields
}

/// Asserts that the records are those of the events, field by field and in order.
///
/// # Panics
/// At the first difference.
pub fn assert_records(records: &[Fields], events: &[Flow]) {
    for (index, event) in events.iter().enumerate() {
        let record = records
            .get(index)
            .unwrap_or_else(|| panic!("no record for {event:#?}\nin {records:#?}"));
        assert_record(record, event, &events[index..]);
    }
    assert_eq!(
        records.len(),
        events.len(),
        "more records than events: {:#?}",
        &records[events.len()..],
    );
}

/// `from_here` are the event and those after it.
fn assert_record(record: &Fields, event: &Flow, from_here: &[Flow]) {
    let mut rest = record.clone();
    if event.kind == Kind::Destroy {
        // conntrack(8) does not say why a connection ended.
        rest.remove("end_reason");
    }
    if event.kind == Kind::New {
        let time = rest.remove("time").expect("a create has its time");
        // Only the end of a connection has the kernel's own start time.
        let start = from_here
            .iter()
            .find(|other| other.kind == Kind::Destroy && other.original == counted(event, other))
            .map(|other| millis(other.start));
        if let Some(start) = start {
            let off = parse_millis(&time) - i64::try_from(start).unwrap();
            assert!(
                off.abs() <= REPORTING,
                "time={time} is {off} ms off the start in {record:#?}"
            );
        }
    }
    let mut event = event.clone();
    if let (Kind::Destroy, Some(told)) = (event.kind, rest.get("start")) {
        // It is the time of the create when that is at most a millisecond off.
        let told = u64::try_from(parse_millis(told)).unwrap();
        let off = told.abs_diff(millis(event.start));
        assert!(off <= 1, "start is {off} ms off in {record:#?}");
        event.start = Some(told * 1_000_000);
    }
    assert_eq!(rest, expected(&event), "from {event:#?}");
}

/// The original side of a NEW event with the counters of its DESTROY, so that the two can be compared.
fn counted(event: &Flow, destroy: &Flow) -> Side {
    Side {
        packets: destroy.original.packets,
        octets: destroy.original.octets,
        ..event.original.clone()
    }
}

fn put_counters(put: &mut impl FnMut(&str, &dyn ToString), name: &str, side: &Side) {
    put(&format!("{name}_packets"), &side.packets.unwrap());
    put(&format!("{name}_octets"), &side.octets.unwrap());
}

fn has_ports(flow: &Flow) -> bool {
    matches!(
        flow.protocol,
        packet::TCP | packet::UDP | packet::DCCP | packet::GRE | packet::SCTP | packet::UDPLITE
    )
}

fn protocol_name(number: u8) -> String {
    let name = match number {
        packet::ICMP => "icmp",
        packet::TCP => "tcp",
        packet::UDP => "udp",
        packet::DCCP => "dccp",
        packet::GRE => "gre",
        packet::ICMPV6 => "icmpv6",
        packet::SCTP => "sctp",
        packet::UDPLITE => "udplite",
        other => return other.to_string(),
    };
    name.to_owned()
}

fn millis(nanos: Option<u64>) -> u64 {
    nanos.expect("the kernel keeps timestamps") / 1_000_000
}

/// Milliseconds since 1970 as the daemon writes them.
#[must_use]
pub fn rfc3339(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1000).unwrap();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        millis % 1000,
    )
}

/// Milliseconds since 1970 of an RFC 3339 time.
#[must_use]
pub fn parse_millis(text: &str) -> i64 {
    let time =
        OffsetDateTime::parse(text, &Rfc3339).unwrap_or_else(|error| panic!("{text}: {error}"));
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap()
}
