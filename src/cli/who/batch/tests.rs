//! Requests in the spellings in which they arrive, and those that cannot be read.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::archive::question::Endpoint;

/// A request in short: the public end, the time, the protocol, the other end.
fn brief(request: &Request) -> String {
    let end = |end: Endpoint| match end.port {
        Some(port) => format!("{}#{port}", end.address),
        None => end.address.to_string(),
    };
    let mut text = format!("{} {}", end(request.at), request.time.range.start().wall());
    text.extend(request.protocol.map(|protocol| format!(" {protocol}")));
    text.extend(request.to.map(|to| format!(" > {}", end(to))));
    text
}

/// Each request with its line, or the beginning of the reason.
fn all(text: &str) -> Vec<String> {
    let entries = read(text).into_iter();
    let brief = entries.map(|entry| match entry.request {
        Ok(request) => format!("{}: {}", entry.line, brief(&request)),
        Err(reason) => format!("{}: {reason}", entry.line),
    });
    brief.collect()
}

const PLAIN: &str = "1: 203.0.113.9#50520 2026-11-20T14:30:00.000Z";

#[test]
fn a_line_has_address_port_and_time_in_the_usual_spellings() {
    let cases = [
        "203.0.113.9:50520 2026-11-20 14:30:00",
        "203.0.113.9 50520 2026-11-20 14:30:00",
        "203.0.113.9 port 50520 2026-11-20T14:30:00Z",
        "203.0.113.9,50520,2026-11-20 15:30:00 +01:00",
        "203.0.113.9;50520;20.11.2026 14:30:00",
        "203.0.113.9\t50520\t20/Nov/2026:15:30:00 +0100",
        "\"203.0.113.9:50520\", \"Fri, 20 Nov 2026 14:30:00 +0000\"",
        "2026-11-20 14:30:00 203.0.113.9:50520",
        "2026-11-20T14:30:00Z | 203.0.113.9 | 50520",
        "@1795185000 203.0.113.9:50520",
        "1795185000,203.0.113.9,50520",
        "case 4711: 203.0.113.9:50520 (2026-11-20 14:30:00 UTC)",
    ];
    for text in cases {
        assert_eq!(all(text), [PLAIN], "{text}");
    }
}

#[test]
fn a_line_may_have_protocol_and_destination() {
    let expected = format!("{PLAIN} udp > 198.51.100.7#443");
    let cases = [
        "2026-11-20 14:30:00 203.0.113.9 50520 udp 198.51.100.7 443",
        "2026-11-20 14:30:00 UDP 203.0.113.9:50520 -> 198.51.100.7:443",
        "203.0.113.9:50520 198.51.100.7:443 2026-11-20 14:30:00 UDP",
        "2026-11-20 14:30:00.000000 IP 203.0.113.9.50520 > 198.51.100.7.443: UDP, length 64",
    ];
    for text in cases {
        assert_eq!(all(text), [expected.as_str()], "{text}");
    }
}

#[test]
fn a_packet_of_tcpdump_is_read() {
    let line = "2026-11-20 14:30:00.100000 IP 203.0.113.9.50520 > 198.51.100.7.443: Flags [S], seq 1, win 64240, length 0";
    assert_eq!(
        all(line),
        ["1: 203.0.113.9#50520 2026-11-20T14:30:00.100Z tcp > 198.51.100.7#443"]
    );
    let line =
        "2026-11-20 14:30:00.1 IP6 2001:db8::1.50520 > 2001:db8::7.53: 1+ A? example.org. (29)";
    assert_eq!(
        all(line),
        ["1: 2001:db8::1#50520 2026-11-20T14:30:00.100Z > 2001:db8::7#53"]
    );
}

#[test]
fn columns_may_be_named_and_in_any_order() {
    let text = "Timestamp;Protocol;Source IP;Source Port;Dst-IP;dst_port;Case\n\
                2026-11-20 14:30:00;UDP;203.0.113.9;50520;198.51.100.7;443;12\n\
                \"2026-11-20 14:30:01\";;\"203.0.113.9\";;;;\"a; b\"\n";
    assert_eq!(
        all(text),
        [
            "2: 203.0.113.9#50520 2026-11-20T14:30:00.000Z udp > 198.51.100.7#443",
            "3: 203.0.113.9 2026-11-20T14:30:01.000Z",
        ]
    );
    let text = "date,time,ip,port\n2026-11-20,14:30:00,203.0.113.9,50520\n";
    assert_eq!(all(text), [PLAIN.replacen('1', "2", 1)]);
}

#[test]
fn a_line_that_cannot_be_read_is_reported_and_the_others_are_read() {
    let text = "# from the police\n\nhello\n203.0.113.9:50520 2026-11-20 14:30:00\n\
                203.0.113.9:50520 2026-11-20 14:30:00 CET\n203.0.113.9 99999 yesterday\n";
    let all = all(text);
    assert_eq!(all.len(), 4);
    assert!(
        all[0].starts_with("3: expected an address and a time"),
        "{all:?}"
    );
    assert_eq!(all[1], PLAIN.replacen('1', "4", 1));
    assert!(
        all[2].starts_with("5: expected an offset from UTC"),
        "{all:?}"
    );
    assert!(all[3].contains("found no time in"), "{all:?}");
}

#[test]
fn a_number_that_does_not_follow_an_address_is_no_port() {
    let text = "4711 203.0.113.9 2026-11-20 14:30:00";
    assert_eq!(all(text), ["1: 203.0.113.9 2026-11-20T14:30:00.000Z"]);
}

#[test]
fn x_arf_is_read_as_mail_fields_and_as_json() {
    let fields = "Version: 0.2\nReport-Type: login-attack\nSource: 203.0.113.9\nSource-Type: ipv4\nSource-Port: 50520\n\
                  Date: Fri, 20 Nov 2026 14:30:00 +0000\nAttachment: none\n";
    assert_eq!(all(fields), [PLAIN.replacen('1', "3", 1)]);
    let json = r#"{"Version": "2", "Report": {"ReportType": "Spam", "Date": "2026-11-20T14:30:00Z", "SourceIp": "203.0.113.9",
        "SourcePort": 50520, "DestinationIp": "198.51.100.7", "DestinationPort": 25, "Protocol": "tcp"}}"#;
    assert_eq!(all(json), [format!("{PLAIN} tcp > 198.51.100.7#25")]);
    let v4 = "\n[{\"source_identifier\":\"203.0.113.9\",\"source_port\":50520,\"timestamp\":\"2026-11-20T14:30:00Z\"}]";
    assert_eq!(all(v4), [PLAIN.replacen('1', "2", 1)]);
}

#[test]
fn arf_is_read_out_of_its_mail() {
    let text = "From: <abuse@example.com>\nDate: Sat, 21 Nov 2026 08:00:00 +0000\nSubject: report\n\n\
                --part\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nVersion: 1\n\
                Arrival-Date: Fri, 20 Nov 2026 14:30:00 +0000\nSource-IP: 203.0.113.9\nSource-Port: 50520\n\n--part--\n";
    assert_eq!(all(text), [PLAIN.replacen('1', "11", 1)]);
}

#[test]
fn a_report_without_a_time_is_reported() {
    let found = all("Source: 203.0.113.9\nSource-Port: 50520\n");
    assert_eq!(found, ["1: expected a time, found none"]);
    assert!(all("{\"ip\":\"203.0.113.9\",")[0].starts_with("1: expected JSON"));
}

#[test]
fn acns_is_read_also_within_a_mail() {
    let source = |ip: &str, port: &str, time: &str| {
        format!(
            "<Source>\n<TimeStamp>{time}</TimeStamp>\n<IP_Address>{ip}</IP_Address>\n{port}<Type>BitTorrent</Type>\n</Source>\n"
        )
    };
    let text = format!(
        "Dear Sir\n- ----Start ACNS XML\n<?xml version=\"1.0\"?>\n<Infringement xmlns=\"http://www.acns.net/ACNS\">\n\
         <Content><TimeStamp>2020-01-01T00:00:00Z</TimeStamp></Content>\n{}{}</Infringement>\n",
        source(
            "203.0.113.9",
            "<Port>50520</Port>\n",
            "2026-11-20T14:30:00Z"
        ),
        source("198.51.100.1", "", "2026-11-20T14:31:00Z"),
    );
    assert_eq!(
        all(&text),
        [
            PLAIN.replacen('1', "8", 1),
            "14: 198.51.100.1 2026-11-20T14:31:00.000Z".to_owned(),
        ]
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}", markup in "[<>/A-Za-z_:{}\\[\\]\", .0-9\n-]{0,200}") {
        read(&text);
        read(&markup);
        read(&format!("<IP_Address>{markup}"));
        read(&format!("Source: {markup}"));
    }

    #[test]
    fn every_line_of_text_has_one_answer(lines in prop::collection::vec("[a-z0-9.:]{1,20}", 0..9)) {
        let entries = read(&lines.join("\n"));
        prop_assert!(entries.len() <= lines.len());
    }
}
