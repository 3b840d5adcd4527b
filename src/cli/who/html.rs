//! The answer as one page to print or to attach: no script, nothing from outside, readable on a telephone and on A4.

use std::fmt::Write as _;

use super::print::{cells, columns};
use super::reply::Reply;
use super::words;
use crate::archive::answer::Verdict;
use crate::archive::row::Millis;

/// What the whole page is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matter<'a> {
    pub(super) case: Option<&'a str>,
    pub(super) reason: Option<&'a str>,
    /// When the question was asked.
    pub(super) now: Millis,
}

const STYLE: &str = "\
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:16px/1.45 system-ui,sans-serif;color:#111;background:#fff;max-width:60em;margin:0 auto;padding:1em;overflow-wrap:anywhere}
h1{font-size:1.4em;margin:0 0 .5em}
h2{font-size:1.15em;margin:1.5em 0 .5em}
h3{font-size:1em;margin:1em 0 .3em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1em;margin:.5em 0}
dt{color:#555}
dd{margin:0}
.verdict{border-left:.4em solid #555;background:#f3f3f3;padding:.6em .8em;font-weight:600}
.one,.listed{border-color:#1a7f37}
.several{border-color:#bf8700}
.none-gap{border-color:#b3261e}
article{break-inside:avoid;border:1px solid #bbb;padding:.5em .8em;margin:.6em 0}
article h4{font-size:1em;margin:0}
pre{white-space:pre-wrap;font-size:.85em}
footer{margin-top:2em;border-top:1px solid #bbb;padding-top:.5em;color:#555;font-size:.9em}
@media(max-width:30em){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.4em}}
@page{size:A4;margin:18mm}
@media print{body{font-size:10.5pt;max-width:none;padding:0}}
";

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
    let (title, facts) = (escaped(&title), list(&facts));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{facts}{sections}\
         <footer>All times are UTC. Pre-NAT is a packet as the gateway received it, post-NAT the same packet as it left.</footer>\n\
         </body>\n</html>\n"
    )
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

fn list(facts: &[(&str, String)]) -> String {
    let mut html = String::from("<dl>\n");
    for (name, value) in facts {
        // Writing into a string cannot fail.
        let _ = writeln!(
            html,
            "<dt>{}</dt><dd>{}</dd>",
            escaped(name),
            escaped(value)
        );
    }
    html + "</dl>\n"
}

fn heading(level: &str, text: &str, html: &mut String) {
    let _ = writeln!(html, "<{level}>{}</{level}>", escaped(text));
}

fn paragraph(class: Option<&str>, text: &str, html: &mut String) {
    let class = class
        .map(|class| format!(" class=\"{class}\""))
        .unwrap_or_default();
    let _ = writeln!(html, "<p{class}>{}</p>", escaped(text));
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            c if c.is_control() => html.push(' '),
            c => html.push(c),
        }
    }
    html
}
