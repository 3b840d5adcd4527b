//! The output of records: aligned columns for people, or the daemon's lines as they came.
//!
//! The columns are those of `nattrail pending`. A column that gets a wider value keeps that width, so IPv6 needs room
//! only where there is some. Nothing from the daemon reaches a terminal as a control character.

use serde_json::{Map, Value};

use crate::cli::color::{ALARM, BOLD, CYAN, DIM, GREEN, Paint, YELLOW};
use crate::cli::control::printable;
use crate::session::GapCause;

/// The columns of events, with the widths that most values need: a time, `delete`, `icmp`, four IPv4 addresses with
/// ports, `snat`.
const COLUMNS: [(&str, usize); 8] = [
    ("TIME", 24),
    ("EVENT", 6),
    ("PROTO", 5),
    ("PRE-NAT SOURCE", 21),
    ("PRE-NAT DEST", 21),
    ("POST-NAT SOURCE", 21),
    ("POST-NAT DEST", 21),
    ("NAT", 4),
];

/// A line of the daemon.
#[derive(Debug)]
pub(super) enum Line {
    Begin,
    End,
    Error(String),
    Record(Record),
}

/// A record in the format `json`. A missing text is empty.
#[derive(Debug)]
pub(super) struct Record(Map<String, Value>);

impl Line {
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let fields = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let record = Record(fields);
        if record.0.contains_key("error") {
            return Ok(Self::Error(record.text("error")));
        }
        match record.0.get("tail").and_then(Value::as_str) {
            Some("begin") => Ok(Self::Begin),
            Some("end") => Ok(Self::End),
            Some(_) => Err("neither a begin nor an end".to_owned()),
            None if record.text("event").is_empty() => {
                Err("an object without \"event\"".to_owned())
            }
            None => Ok(Self::Record(record)),
        }
    }
}

impl Record {
    /// The text without characters that control a terminal.
    fn text(&self, name: &str) -> String {
        let text = self.0.get(name).and_then(Value::as_str);
        printable(text.unwrap_or_default())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    /// An address with its port, or the identifier of an ICMP query in its place.
    fn endpoint(&self, address: &str, port: &str, id: &str) -> String {
        let address = self.text(address);
        match self.number(port).or_else(|| self.number(id)) {
            Some(port) if address.contains(':') => format!("[{address}]:{port}"),
            Some(port) => format!("{address}:{port}"),
            None => address,
        }
    }
}

/// Shows records.
#[derive(Debug)]
pub(super) struct Printer {
    json: bool,
    paint: Paint,
    /// The number of events left to show, if there is a limit.
    left: Option<u64>,
    widths: [usize; COLUMNS.len()],
}

impl Printer {
    pub(super) fn new(json: bool, paint: Paint, count: Option<u64>) -> Self {
        Self {
            json,
            paint,
            left: count,
            widths: COLUMNS.map(|(_, width)| width),
        }
    }

    /// Whether the wanted number of events has been shown.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    pub(super) fn heading(&mut self, out: &mut Vec<u8>) {
        if !self.json {
            let cells = COLUMNS.map(|(name, _)| (name.to_owned(), BOLD));
            out.extend_from_slice(self.row(cells, "").as_bytes());
            out.push(b'\n');
        }
    }

    /// Shows a record, whose original line is `line`.
    pub(super) fn record(&mut self, record: &Record, line: &[u8], out: &mut Vec<u8>) {
        let event = record.text("event");
        let (is_gap, is_checkpoint) = (event == "gap", event == "checkpoint");
        if !(is_gap || is_checkpoint)
            && let Some(left) = &mut self.left
        {
            *left = left.saturating_sub(1);
        }
        if self.json {
            out.extend_from_slice(line);
        } else if is_gap {
            let text = format!("*** {} GAP {} ***", record.text("time"), explain(record));
            out.extend_from_slice(self.paint.text(&text, ALARM).as_bytes());
        } else if is_checkpoint {
            let [time, origin] = ["time", "origin"].map(|name| record.text(name));
            let size = record.number("size").unwrap_or_default();
            let text = format!("--- {time} CHECKPOINT the log {origin} has {size} entries ---");
            out.extend_from_slice(self.paint.text(&text, DIM).as_bytes());
        } else {
            out.extend_from_slice(self.event(record).as_bytes());
        }
        out.push(b'\n');
    }

    fn event(&mut self, record: &Record) -> String {
        let pre_src = record.endpoint("pre_src", "pre_sport", "pre_id");
        let pre_dst = record.endpoint("pre_dst", "pre_dport", "");
        let post_src = record.endpoint("post_src", "post_sport", "post_id");
        let post_dst = record.endpoint("post_dst", "post_dport", "");
        let event = record.text("event");
        let event_color = if event == "create" { GREEN } else { CYAN };
        // A translated address stands out.
        let emphasis = |post: &str, pre: &str| if post == pre { DIM } else { BOLD };
        let post_colors = [emphasis(&post_src, &pre_src), emphasis(&post_dst, &pre_dst)];
        let cells = [
            (record.text("time"), DIM),
            (event, event_color),
            (record.text("proto"), ""),
            (pre_src, ""),
            (pre_dst, ""),
            (post_src, post_colors[0]),
            (post_dst, post_colors[1]),
            (record.text("nat"), ""),
        ];
        self.row(cells, &details(record))
    }

    /// Cells of equal width, followed by the details as they are.
    fn row(&mut self, cells: [(String, &str); COLUMNS.len()], details: &str) -> String {
        let mut line = String::new();
        for (index, (text, color)) in cells.iter().enumerate() {
            let length = text.chars().count();
            self.widths[index] = self.widths[index].max(length);
            let padding = self.widths[index] - length + 1;
            line += &format!("{}{:padding$}", self.paint.text(text, color), "");
        }
        line += &self.paint.text(details, YELLOW);
        line.truncate(line.trim_end().len());
        line
    }
}

/// The optional fields of an event, by their names.
fn details(record: &Record) -> String {
    let pair = |name, first, second| {
        let (first, second) = (record.number(first)?, record.number(second)?);
        Some(format!("{name}={first}/{second}"))
    };
    let duration = record.0.get("duration").and_then(Value::as_f64);
    let mark = Some(record.text("mark")).filter(|mark| !mark.is_empty());
    let reason = Some(record.text("end_reason")).filter(|reason| !reason.is_empty());
    let inferred = record.0.get("inferred") == Some(&Value::Bool(true));
    let details = [
        pair("icmp", "icmp_type", "icmp_code"),
        duration.map(|seconds| format!("duration={seconds:.3}")),
        pair("orig", "orig_packets", "orig_octets"),
        pair("reply", "reply_packets", "reply_octets"),
        reason.map(|reason| format!("end={reason}")),
        mark.map(|mark| format!("mark={mark}")),
        record.number("zone").map(|zone| format!("zone={zone}")),
        inferred.then(|| "inferred".to_owned()),
    ];
    let details: Vec<_> = details.into_iter().flatten().collect();
    details.join(" ")
}

/// The meaning of a gap, in words.
fn explain(gap: &Record) -> String {
    let [name, from, to] = ["cause", "from", "to"].map(|name| gap.text(name));
    let mut causes = GapCause::ALL.into_iter();
    let (what, lost) = match causes.find(|cause| cause.name() == name) {
        Some(GapCause::Undelivered) => ("too much for this viewer", "events not shown here"),
        Some(cause) => describe(cause),
        None => ("a cause that this version does not know", "lost"),
    };
    let lost = gap
        .number("lost")
        .map(|number| format!(", {}", counted(number, lost)));
    format!(
        "{name}: {what}{}, from {from} to {to}",
        lost.unwrap_or_default()
    )
}

/// A cause in words, and the unit of its losses.
pub(in crate::cli) const fn describe(cause: GapCause) -> (&'static str, &'static str) {
    match cause {
        GapCause::Restart => (
            "nattrail did not run, or ended before it had sent all it knew",
            "events lost",
        ),
        GapCause::Overflow => ("the kernel's queue was full", "events lost"),
        GapCause::TableFull => ("the connection table was full", "packets dropped"),
        GapCause::InsertFailed => (
            "all ports of the NAT pool were in use, or packets raced for one",
            "packets dropped",
        ),
        GapCause::ClockStep => ("the clock was set", "lost"),
        GapCause::TrackingOff => ("connection tracking may have been off", "events lost"),
        GapCause::Undecoded => (
            "the kernel sent messages that nattrail cannot decode",
            "messages lost",
        ),
        GapCause::Expired => (
            "too many ends waited for a slow listener: these sessions were closed without the kernel's report",
            "ends lost",
        ),
        GapCause::Undelivered => ("the receiver could not take these records", "records lost"),
        GapCause::Mirror => ("a monitor port dropped frames", "frames dropped"),
    }
}

/// A number of a unit such as "events lost".
pub(in crate::cli) fn counted(number: u64, unit: &str) -> String {
    match unit.split_once("s ") {
        Some((noun, fate)) if number == 1 => format!("1 {noun} {fate}"),
        _ => format!("{number} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const CREATE: &str = r#"{"time":"2026-11-20T14:03:07.123Z","event":"create","nat":"snat","proto":"udp","pre_src":"10.1.2.3","pre_sport":40356,"pre_dst":"198.51.100.7","pre_dport":443,"post_src":"203.0.113.9","post_sport":50520,"post_dst":"198.51.100.7","post_dport":443,"id":7}"#;
    const DELETE: &str = r#"{"time":"2026-11-20T14:03:09.434Z","event":"delete","nat":"snat","proto":"udp","pre_src":"10.1.2.3","pre_sport":40356,"pre_dst":"198.51.100.7","pre_dport":443,"post_src":"203.0.113.9","post_sport":50520,"post_dst":"198.51.100.7","post_dport":443,"start":"2026-11-20T14:03:07.123Z","end":"2026-11-20T14:03:09.434Z","duration":2.311,"orig_packets":5,"orig_octets":274,"reply_packets":3,"reply_octets":180,"end_reason":"idle","mark":"0x10","zone":7,"id":7,"inferred":true}"#;
    const ICMP: &str = r#"{"time":"2026-11-20T14:03:07.123Z","event":"create","nat":"snat","proto":"icmp","pre_src":"10.1.2.3","pre_dst":"198.51.100.7","pre_id":11,"post_src":"203.0.113.9","post_dst":"198.51.100.7","post_id":12,"icmp_type":8,"icmp_code":0}"#;
    const IPV6: &str = r#"{"time":"2026-11-20T14:03:07.123Z","event":"create","nat":"none","proto":"tcp","pre_src":"2001:db8:1234:5678::1","pre_sport":40356,"pre_dst":"2001:db8::7","pre_dport":443,"post_src":"2001:db8:1234:5678::1","post_sport":40356,"post_dst":"2001:db8::7","post_dport":443}"#;

    fn shown(printer: &mut Printer, line: &str) -> String {
        let Line::Record(record) = Line::parse(line.as_bytes()).unwrap() else {
            panic!("{line}")
        };
        let mut out = Vec::new();
        printer.record(&record, line.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn plain() -> Printer {
        Printer::new(false, Paint(false), None)
    }

    #[test]
    fn every_value_is_below_its_heading() {
        let mut printer = plain();
        let mut heading = Vec::new();
        printer.heading(&mut heading);
        let heading = String::from_utf8(heading).unwrap();
        let line = shown(&mut printer, CREATE);
        let columns = [
            ("TIME", "2026-11-20T14:03:07.123Z "),
            ("EVENT", "create "),
            ("PROTO", "udp "),
            ("PRE-NAT SOURCE", "10.1.2.3:40356 "),
            ("PRE-NAT DEST", "198.51.100.7:443 "),
            ("POST-NAT SOURCE", "203.0.113.9:50520 "),
            ("POST-NAT DEST", "198.51.100.7:443 "),
            ("NAT\n", "snat\n"),
        ];
        for (name, value) in columns {
            let at = heading.find(name).unwrap();
            assert!(line[at..].starts_with(value), "{name}: {line}");
        }
    }

    #[test]
    fn a_delete_has_what_is_known_of_the_session_after_its_columns() {
        let line = shown(&mut plain(), DELETE);
        let details =
            "snat duration=2.311 orig=5/274 reply=3/180 end=idle mark=0x10 zone=7 inferred\n";
        assert!(line.ends_with(details), "{line}");
    }

    #[test]
    fn icmp_has_its_identifier_and_no_port() {
        let line = shown(&mut plain(), ICMP);
        let fields: Vec<_> = line.split_whitespace().skip(2).collect();
        let expected = [
            "icmp",
            "10.1.2.3:11",
            "198.51.100.7",
            "203.0.113.9:12",
            "198.51.100.7",
            "snat",
            "icmp=8/0",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_column_stays_as_wide_as_its_widest_value() {
        let mut printer = plain();
        let before = shown(&mut printer, CREATE);
        let wide = shown(&mut printer, IPV6);
        assert!(wide.contains(" [2001:db8:1234:5678::1]:40356 [2001:db8::7]:443     "));
        let after = shown(&mut printer, CREATE);
        assert!(after.len() > before.len());
        assert_eq!(after.find("198.51.100.7"), wide.find("[2001:db8::7]"));
    }

    #[test]
    fn colours_surround_the_same_text() {
        let mut printer = Printer::new(false, Paint(true), None);
        let line = shown(&mut printer, CREATE);
        assert!(line.contains("\x1b[1m203.0.113.9:50520\x1b[0m"), "{line:?}");
        assert!(line.contains("\x1b[2m198.51.100.7:443\x1b[0m"), "{line:?}");
        let mut text = line;
        for code in ["\x1b[0m", BOLD, DIM, GREEN, YELLOW, CYAN] {
            text = text.replace(code, "");
        }
        assert_eq!(text, shown(&mut plain(), CREATE));
    }

    #[test]
    fn gaps_are_conspicuous_and_say_what_was_lost() {
        let gap = |rest: &str| {
            let line =
                format!(r#"{{"time":"T","event":"gap","cause":{rest},"from":"A","to":"B"}}"#);
            shown(&mut plain(), &line)
        };
        assert_eq!(
            gap(r#""overflow","lost":42"#),
            "*** T GAP overflow: the kernel's queue was full, 42 events lost, from A to B ***\n"
        );
        assert_eq!(
            gap(r#""undelivered","lost":7"#),
            "*** T GAP undelivered: too much for this viewer, 7 events not shown here, from A to B ***\n"
        );
        assert_eq!(
            gap(r#""clock-step""#),
            "*** T GAP clock-step: the clock was set, from A to B ***\n"
        );
        assert_eq!(
            gap(r#""of a later version","lost":1"#),
            "*** T GAP of a later version: a cause that this version does not know, 1 lost, from A to B ***\n"
        );
        for cause in GapCause::ALL {
            let line = gap(&format!("\"{}\"", cause.name()));
            assert!(line.starts_with(&format!("*** T GAP {}: ", cause.name())));
        }
        let mut colored = Printer::new(false, Paint(true), None);
        let line = shown(&mut colored, r#"{"event":"gap","cause":"restart"}"#);
        assert!(line.starts_with("\x1b[1;37;41m*** "), "{line:?}");
    }

    #[test]
    fn json_is_the_line_as_it_came() {
        let mut printer = Printer::new(true, Paint(true), None);
        let mut out = Vec::new();
        printer.heading(&mut out);
        assert!(out.is_empty());
        assert_eq!(shown(&mut printer, DELETE), format!("{DELETE}\n"));
    }

    #[test]
    fn a_checkpoint_is_told_in_words() {
        let line = r#"{"time":"T","event":"checkpoint","origin":"nattrail/gw1","size":26}"#;
        assert_eq!(
            shown(&mut plain(), line),
            "--- T CHECKPOINT the log nattrail/gw1 has 26 entries ---\n"
        );
    }

    #[test]
    fn events_are_counted_and_other_records_are_not() {
        let mut printer = Printer::new(false, Paint(false), Some(2));
        shown(&mut printer, CREATE);
        shown(&mut printer, r#"{"event":"gap","cause":"restart"}"#);
        shown(&mut printer, r#"{"event":"checkpoint"}"#);
        assert!(!printer.is_done());
        shown(&mut printer, DELETE);
        assert!(printer.is_done());
    }

    #[test]
    fn nothing_reaches_a_terminal_that_it_would_obey() {
        let field = |name: &str| format!(r#""{name}":"\u001b[2J\r""#);
        let names = [
            "time", "event", "nat", "proto", "pre_src", "post_dst", "mark",
        ];
        let line = format!("{{{}}}", names.map(field).join(","));
        let gap =
            r#"{"event":"gap","time":"\u001b","cause":"\u001b","from":"\u0007","to":"\u009b"}"#;
        for line in [line.as_str(), gap] {
            let text = shown(&mut plain(), line);
            let text = text.strip_suffix('\n').unwrap();
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for line in ["", "[]", "null", "{}", "{\"event\":7}", "{\"tail\":\"?\"}"] {
            assert!(Line::parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
