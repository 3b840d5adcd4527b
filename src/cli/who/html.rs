//! The answer as one page to print or to attach: no script, nothing from outside, readable on a telephone and on A4.

use super::print::{cells, columns};
use super::reply::Reply;
use super::words;
use crate::archive::answer::Verdict;
use crate::archive::row::Millis;
use crate::cli::page::{self, escaped, heading, list, paragraph};

/// What the whole page is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matter<'a> {
    pub(super) case: Option<&'a str>,
    pub(super) reason: Option<&'a str>,
    /// When the question was asked.
    pub(super) now: Millis,
}

/// The page with the given sections.
pub(super) fn page(matter: &Matter<'_>, sections: &str) -> String {
    let facts = [
        ("Case", matter.case.unwrap_or("none given").to_owned()),
        ("Reason", matter.reason.unwrap_or("none given").to_owned()),
        ("Asked at", words::instant(matter.now)),
        (
            "Program",
            concat!("nattrail ", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
    ];
    let title = match matter.case {
        Some(case) => format!("Address translation record, case {case}"),
        None => "Address translation record".to_owned(),
    };
    let body = list(&facts) + sections;
    let footer =
        "Pre-NAT is a packet as the gateway received it, post-NAT the same packet as it left.";
    page::page(&title, &body, footer)
}

/// One answer. `proof` is the text that lets a reader check it.
pub(super) fn section(reply: &Reply<'_>, proof: Option<&str>) -> String {
    let answer = reply.answer;
    let mut html = String::from("<section>\n");
    let line = reply.line.map(|line| format!(" (request of line {line})"));
    heading(
        "h2",
        &format!("Question{}", line.unwrap_or_default()),
        &mut html,
    );
    paragraph(None, &words::question(&answer.question), &mut html);
    heading("h2", "Answer", &mut html);
    let class = format!("verdict {}", super::machine::verdict(answer.verdict));
    paragraph(Some(&class), &words::verdict(answer), &mut html);
    for name in reply.subscriber_names() {
        paragraph(None, &format!("Subscriber: {name}"), &mut html);
    }
    for note in words::notes(answer, reply.is_assumed_utc) {
        paragraph(None, &note, &mut html);
    }
    for (rank, candidate) in (1..).zip(&answer.candidates) {
        let names = columns().map(label);
        let mut facts: Vec<_> = names.into_iter().zip(cells(candidate)).collect();
        facts.push(("Subscriber", reply.name(candidate)));
        facts.retain(|(_, value)| !value.is_empty());
        let heading = format!("<article>\n<h4>Session {rank}</h4>\n");
        html += &(heading + &list(&facts) + "</article>\n");
    }
    heading("h2", "Gaps", &mut html);
    let problems = answer.problems.iter().cloned();
    let missing: Vec<_> = answer
        .holes
        .iter()
        .map(words::hole)
        .chain(problems)
        .collect();
    let none = match answer.verdict {
        Verdict::NoneGap => "No gap is recorded, but the sessions above are uncertain.",
        _ => "No gap is known that concerns this time.",
    };
    match missing.as_slice() {
        [] => paragraph(None, none, &mut html),
        missing => missing.iter().for_each(|it| paragraph(None, it, &mut html)),
    }
    heading("h2", "Proof", &mut html);
    match proof {
        Some(proof) => html += &format!("<pre>{}</pre>\n", escaped(proof)),
        None => paragraph(None, "No proof is attached to this answer.", &mut html),
    }
    html + "</section>\n"
}

/// The request of a line that could not be read.
pub(super) fn unread(line: usize, reason: &str) -> String {
    let mut html = String::from("<section>\n");
    heading("h2", &format!("Request of line {line}"), &mut html);
    paragraph(
        Some("verdict none-gap"),
        &format!("It could not be read: {reason}"),
        &mut html,
    );
    html + "</section>\n"
}

/// The heading of a column as a label.
fn label(column: &'static str) -> &'static str {
    match column {
        "GATEWAY" => "Gateway",
        "PROTO" => "Protocol",
        "PRE-NAT SOURCE" => "Pre-NAT source",
        "POST-NAT SOURCE" => "Post-NAT source",
        "POST-NAT DEST" => "Destination",
        "START (UTC)" => "Start",
        "END (UTC)" => "End",
        "OUT/IN OCTETS" => "Octets sent/received",
        _ => "Certainty",
    }
}
