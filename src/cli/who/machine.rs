//! The answer for programs: JSON and CSV. Names may be added, not changed.
//!
//! A session has the names of its record in the copies ([`crate::wire::syslog`]).

use std::io::{self, Write};
use std::ops::ControlFlow;

use serde_json::{Map, Value, json};

use super::reply::Reply;
use super::words;
use crate::archive::answer::{Candidate, Doubt, Fit, Hole, Verdict};
use crate::archive::question::{Endpoint, Question, Role, Subject};
use crate::cli::control::printable;
use crate::session::{
    EventKind, NatEvent, Provenance, Record, Session, Tuple, Zone, ZoneDirection,
};
use crate::time::{Now, Uptime};
use crate::wire::syslog::{Encoder, Message};

/// Scripts rely on these names.
pub(super) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::One => "one",
        Verdict::Several => "several",
        Verdict::Listed => "listed",
        Verdict::NoneComplete => "none-complete",
        Verdict::NoneGap => "none-gap",
    }
}

const fn fit(fit: Fit) -> &'static str {
    match fit {
        Fit::Exact => "exact",
        Fit::Skew => "skew",
        Fit::Possible => "possible",
    }
}

const fn doubt(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Open => "open",
        Doubt::StartUnknown => "start-unknown",
        Doubt::StartInferred => "start-inferred",
        Doubt::Inferred => "inferred",
        Doubt::ClockSet => "clock-set",
    }
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Subscriber => "subscriber",
        Role::Server => "server",
    }
}

/// One JSON object.
pub(super) fn json(reply: &Reply<'_>) -> Value {
    let answer = reply.answer;
    let mut encoder = Encoder::json_lines();
    let sessions = answer.candidates.iter();
    let sessions: Vec<_> = sessions
        .map(|it| session(reply, it, &mut encoder))
        .collect();
    let deciders = answer.deciders.iter();
    let deciders = deciders.map(|it| json!({"needed": it.feature.name(), "enough": it.is_enough}));
    let mut object = json!({
        "question": question(&answer.question),
        "verdict": verdict(answer.verdict),
        "sentence": words::verdict(answer),
        "notes": words::notes(answer, reply.is_assumed_utc),
        "deciders": deciders.collect::<Vec<_>>(),
        "gateways": answer.gateways.iter().map(|name| &**name).collect::<Vec<_>>(),
        "gaps": answer.holes.iter().map(hole).collect::<Vec<_>>(),
        "problems": answer.problems,
        "sessions": sessions,
    });
    if let Some(line) = reply.line {
        object["line"] = line.into();
    }
    object
}

pub(in crate::cli) fn question(question: &Question) -> Value {
    let mut object = json!({
        "from": question.time.start().wall(),
        "until": question.time.end().wall(),
        "skew": question.skew.as_secs_f64(),
    });
    let mut put = |name: &str, value: Value| object[name] = value;
    let mut put_end = |names: [&str; 2], end: Endpoint| {
        put(names[0], end.address.to_string().into());
        if let Some(port) = end.port {
            put(names[1], port.into());
        }
    };
    match question.subject {
        Subject::Public { at, to } => {
            put_end(["address", "port"], at);
            if let Some(to) = to {
                put_end(["to", "to_port"], to);
            }
        }
        Subject::Subscriber(prefix) => put("subscriber", prefix.to_string().into()),
        Subject::Server(server) => put_end(["server", "server_port"], server),
    }
    if let Some(protocol) = question.protocol {
        object["proto"] = protocol.to_string().into();
    }
    object
}

pub(in crate::cli) fn hole(hole: &Hole) -> Value {
    let mut object = json!({
        "cause": hole.absence.name(),
        "from": hole.from.wall(),
        "sentence": words::hole(hole),
    });
    if let Some(gateway) = &hole.gateway {
        object["gateway"] = (**gateway).into();
    }
    if let Some(to) = hole.to {
        object["to"] = json!(to.wall());
    }
    if let Some(lost) = hole.lost {
        object["lost"] = lost.into();
    }
    object
}

fn session(reply: &Reply<'_>, candidate: &Candidate, encoder: &mut Encoder) -> Value {
    let mut object = Map::new();
    let record = Record::Event(event(candidate));
    let now = Now::new(record.time(), Uptime::default());
    let _ = encoder.encode(&record, now, &mut |message: Message<'_>| {
        // The encoder writes an object.
        object = serde_json::from_slice(message.bytes).unwrap_or_default();
        ControlFlow::Break(())
    });
    // They are those of one record and not of the session.
    for name in ["time", "event"] {
        object.remove(name);
    }
    if candidate.is_open {
        object.insert("seen".to_owned(), json!(candidate.row.end.wall()));
        object.insert(
            "start".to_owned(),
            json!(candidate.row.start.map(|it| it.wall())),
        );
    }
    object.insert("gateway".to_owned(), (*candidate.gateway).into());
    object.insert("role".to_owned(), role(candidate.role).into());
    object.insert("fit".to_owned(), fit(candidate.fit).into());
    object.insert("open".to_owned(), candidate.is_open.into());
    let doubts: Vec<_> = candidate.doubts.iter().map(|it| doubt(*it)).collect();
    object.insert("doubts".to_owned(), json!(doubts));
    let name = reply.name(candidate);
    if !name.is_empty() {
        object.insert("subscriber".to_owned(), name.into());
    }
    object.into()
}

/// The session's record: its end, or its beginning while it is open.
fn event(candidate: &Candidate) -> NatEvent {
    let row = &candidate.row;
    let (src_port, dst_port) = match row.protocol.is_icmp() {
        true => (row.post.src_port, 0),
        false => (row.post.dst_port, row.post.src_port),
    };
    let (kind, time) = match candidate.is_open {
        true => (EventKind::Create, row.start.unwrap_or(row.end)),
        false => (EventKind::Delete, row.end),
    };
    NatEvent {
        kind,
        session: Session {
            original: row.pre,
            reply: Tuple {
                src: row.post.dst,
                dst: row.post.src,
                src_port,
                dst_port,
            },
            protocol: row.protocol,
            zone: Zone {
                id: row.zone,
                direction: ZoneDirection::Both,
            },
            id: None,
            mark: row.mark,
        },
        time: time.wall(),
        start: row.start.map(|start| start.wall()),
        totals: row.totals,
        provenance: row.provenance,
        end_reason: None,
        in_parts: false,
        first_mark: None,
    }
}

/// The columns of [`csv`].
pub(super) const CSV: &str = "line,verdict,rank,gateway,role,fit,start,end,open,nat,proto,pre_src,pre_sport,pre_dst,pre_dport,post_src,\
     post_sport,post_dst,post_dport,orig_packets,orig_octets,reply_packets,reply_octets,mark,zone,inferred,subscriber";

/// One line for each session, or one with the verdict alone.
pub(super) fn csv(reply: &Reply<'_>, out: &mut impl Write) -> io::Result<()> {
    let verdict = verdict(reply.answer.verdict);
    let line = reply.line.map(|line| line.to_string()).unwrap_or_default();
    if reply.answer.candidates.is_empty() {
        let empty = ",".repeat(CSV.matches(',').count() - 1);
        return writeln!(out, "{line},{verdict}{empty}");
    }
    for (rank, candidate) in (1..).zip(&reply.answer.candidates) {
        let row = &candidate.row;
        let time = |time: Option<crate::archive::row::Millis>| {
            time.map(|time| time.wall().to_string()).unwrap_or_default()
        };
        let yes = |is: bool| if is { "yes" } else { "no" };
        let mut cells = vec![line.clone(), verdict.to_owned(), rank.to_string()];
        cells.extend([quoted(&candidate.gateway), role(candidate.role).to_owned()]);
        cells.extend([fit(candidate.fit).to_owned(), time(row.start)]);
        cells.extend([time((!candidate.is_open).then_some(row.end))]);
        let translation = event(candidate).session.translation().name();
        cells.extend([yes(candidate.is_open).to_owned(), translation.to_owned()]);
        cells.push(row.protocol.to_string());
        for tuple in [row.pre, row.post] {
            cells.extend([tuple.src.to_string(), tuple.src_port.to_string()]);
            cells.extend([tuple.dst.to_string(), tuple.dst_port.to_string()]);
        }
        let counters = row.totals.map(|totals| [totals.original, totals.reply]);
        for counters in counters.map_or([None; 2], |both| both.map(Some)) {
            let text = |number: Option<u64>| number.map(|it| it.to_string()).unwrap_or_default();
            cells.push(text(counters.map(|it| it.packets)));
            cells.push(text(counters.map(|it| it.octets)));
        }
        cells.extend([format!("{:#x}", row.mark), row.zone.to_string()]);
        cells.push(yes(row.provenance == Provenance::Inferred).to_owned());
        cells.push(quoted(&reply.name(candidate)));
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

/// A cell of CSV (RFC 4180). A terminal may show it.
fn quoted(text: &str) -> String {
    let text = printable(text);
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}
