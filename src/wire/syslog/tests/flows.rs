//! Copies of flows, alone and beside events.

use super::*;
use crate::session::EndReason;

/// The lines of a copy of flows, and of events if wanted, each with whether it is the last of its record.
fn lines(events: bool, target: Target, format: Format, event: &NatEvent) -> Vec<(String, bool)> {
    let mut encoder = Encoder {
        events,
        flow: true,
        ..encoder(target, format)
    };
    let mut lines = Vec::new();
    let _ = encoder.encode(&Record::Event(*event), NOW, &mut |message| {
        let text = String::from_utf8(message.bytes.to_vec()).unwrap();
        lines.push((text, message.is_last));
        ControlFlow::Continue(())
    });
    lines
}

fn line(target: Target, format: Format, event: &NatEvent) -> String {
    let mut lines = lines(false, target, format, event);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let (line, is_last) = lines.remove(0);
    assert!(is_last);
    line
}

fn csv(event: &NatEvent) -> Vec<String> {
    let lines = lines(false, stdout(), Format::Csv, event).into_iter();
    lines.map(|(line, _)| line).collect()
}

fn closed(session: Session) -> NatEvent {
    NatEvent {
        end_reason: Some(EndReason::Detected),
        ..delete(session)
    }
}

#[test]
fn a_flow_is_a_line_with_the_fields_of_a_delete() {
    let mut event = closed(snat());
    (event.session.mark, event.session.zone.id) = (0xa0, 3);
    event.session.id = Some(7);
    assert_eq!(
        line(stdout(), Format::Text, &event),
        "time=2026-03-01T12:01:02.345Z event=flow nat=snat proto=tcp pre_src=10.0.0.7 pre_sport=40000 \
         pre_dst=198.51.100.5 pre_dport=443 post_src=192.0.2.1 post_sport=61000 post_dst=198.51.100.5 post_dport=443 \
         start=2026-03-01T12:00:00.000Z end=2026-03-01T12:01:02.345Z duration=62.345 orig_packets=10 orig_octets=1200 \
         reply_packets=8 reply_octets=64000 end_reason=closed mark=0xa0 zone=3 id=7\n"
    );
    let json = line(stdout(), Format::Json, &event);
    for field in [r#""event":"flow","#, r#""end_reason":"closed","#] {
        assert!(json.contains(field), "{json}");
    }
    let entry = line(journal(), Format::Json, &event);
    for field in [
        "\nNAT_EVENT=flow\n",
        "\nNAT_END_REASON=closed\n",
        r#"MESSAGE={"time""#,
    ] {
        assert!(entry.contains(field), "{entry}");
    }
    assert!(entry.contains(json.trim_end()), "{entry}");
}

#[test]
fn the_reasons_of_an_end_have_the_names_that_scripts_rely_on() {
    for (reason, name) in [
        (EndReason::Idle, "idle"),
        (EndReason::Active, "active"),
        (EndReason::Detected, "closed"),
    ] {
        let event = NatEvent {
            end_reason: Some(reason),
            ..delete(untranslated())
        };
        let text = text(&Record::Event(event));
        assert!(text.ends_with(&format!(" end_reason={name}\n")), "{text}");
    }
}

#[test]
fn rfc5424_has_the_tuples_of_a_flow_and_an_element_of_its_own() {
    let mut event = closed(snat());
    event.session.id = Some(7);
    event.provenance = Provenance::Inferred;
    assert_eq!(
        line(udp(), Format::Rfc5424, &event),
        "<182>1 2026-03-01T12:01:02.345678Z gw1.example.net nattrail 321 FLOW [nsess ISADDR=\"10.0.0.7\" ISPORT=\"40000\" \
         XSADDR=\"192.0.2.1\" XSPORT=\"61000\" XDADDR=\"198.51.100.5\" XDPORT=\"443\" IDADDR=\"198.51.100.5\" IDPORT=\"443\" \
         PROTO=\"6\"][nflow start=\"2026-03-01T12:00:00.000Z\" end=\"2026-03-01T12:01:02.345Z\" duration=\"62.345\" \
         orig_packets=\"10\" orig_octets=\"1200\" reply_packets=\"8\" reply_octets=\"64000\" end_reason=\"closed\" \
         id=\"7\"] inferred=yes"
    );
    let header = "<182>1 2026-03-01T12:01:02.345678Z gw1.example.net nattrail 321 FLOW - time=";
    assert!(line(udp(), Format::Text, &event).starts_with(header));
}

#[test]
fn csv_has_one_line_for_each_direction() {
    assert_eq!(
        csv(&delete(snat())),
        [
            "1772366463,345678901,3600000,192.0.2.1,10,1200,3536655,3599000,10.0.0.7,198.51.100.5,0.0.0.0,0,0,40000,443,6,0,0\n",
            "1772366463,345678901,3600000,192.0.2.1,8,64000,3536655,3599000,198.51.100.5,192.0.2.1,0.0.0.0,0,0,443,61000,6,0,0\n",
        ]
    );
    let ports = |event: &NatEvent| -> Vec<String> {
        let field = |line: &String| {
            line.split(',')
                .skip(13)
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        };
        csv(event).iter().map(field).collect()
    };
    assert_eq!(ports(&delete(icmp())), ["0 2048", "0 0"]);
    let mut one_way = delete(snat());
    one_way.totals = one_way.totals.map(|totals| Totals {
        reply: Counters::default(),
        ..totals
    });
    assert_eq!(ports(&one_way), ["40000 443"]);
    one_way.totals = Some(Totals::default());
    assert_eq!(csv(&one_way), [""; 0]);
    let comment = line(stdout(), Format::Text, &delete(nat66()));
    assert_eq!(csv(&delete(nat66())), [format!("# {comment}")]);
}

/// With events and flows, a delete is both.
#[test]
fn each_copy_has_the_lines_that_it_wants() {
    let (begun, whole) = (create(snat()), delete(snat()));
    let Record::Event(begun) = begun else {
        panic!("{begun:?}")
    };
    let part = NatEvent {
        kind: EventKind::Flow,
        ..whole
    };
    let in_parts = NatEvent {
        in_parts: true,
        ..whole
    };
    let found = |events, event: &NatEvent| -> Vec<_> {
        let lines = lines(events, stdout(), Format::Text, event).into_iter();
        let kind = |line: String| line.split(' ').nth(1).unwrap().to_owned();
        lines.map(|(line, is_last)| (kind(line), is_last)).collect()
    };
    let line = |kind: &str, is_last| (format!("event={kind}"), is_last);
    for (event, alone, beside) in [
        (begun, vec![], vec![line("create", true)]),
        (part, vec![line("flow", true)], vec![line("flow", true)]),
        (in_parts, vec![], vec![line("delete", true)]),
        (
            whole,
            vec![line("flow", true)],
            vec![line("delete", false), line("flow", true)],
        ),
    ] {
        assert_eq!(found(false, &event), alone, "{event:?}");
        assert_eq!(found(true, &event), beside, "{event:?}");
    }
    assert_eq!(messages(stdout(), Format::Text, &Record::Event(part)), []);
    // Only translated connections make events beside flows.
    assert_eq!(found(true, &delete(untranslated())), [line("flow", true)]);
}
