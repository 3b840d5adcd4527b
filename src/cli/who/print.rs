//! The answer for people: sentences, and a table of the sessions below them.
//!
//! Names come out of files: nothing of them reaches a terminal as a control character.

use std::io::{self, Write};

use super::reply::Reply;
use super::words;
use crate::archive::answer::{Candidate, Verdict};
use crate::archive::question::Endpoint;
use crate::cli::color::{ALARM, BOLD, DIM, GREEN, Paint, YELLOW};
use crate::cli::control::printable;

const COLUMNS: [&str; 9] = [
    "GATEWAY",
    "PROTO",
    "PRE-NAT SOURCE",
    "POST-NAT SOURCE",
    "POST-NAT DEST",
    "START (UTC)",
    "END (UTC)",
    "OUT/IN OCTETS",
    "CERTAINTY",
];

/// Prints one answer.
pub(super) fn print(reply: &Reply<'_>, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let answer = reply.answer;
    if let Some(line) = reply.line {
        writeln!(
            out,
            "{}",
            paint.text(&format!("Request of line {line}"), BOLD)
        )?;
    }
    writeln!(out, "{}", words::question(&answer.question))?;
    let color = match answer.verdict {
        Verdict::One | Verdict::Listed => GREEN,
        Verdict::Several => YELLOW,
        Verdict::NoneComplete => BOLD,
        Verdict::NoneGap => ALARM,
    };
    writeln!(
        out,
        "{}",
        paint.text(&printable(&words::verdict(answer)), color)
    )?;
    for name in reply.subscriber_names() {
        writeln!(out, "Subscriber: {}", paint.text(&printable(&name), BOLD))?;
    }
    for note in words::notes(answer, reply.is_assumed_utc) {
        writeln!(out, "Note: {note}")?;
    }
    let problems = answer.problems.iter().cloned();
    for missing in answer.holes.iter().map(words::hole).chain(problems) {
        let missing = printable(&missing);
        writeln!(out, "{} {missing}", paint.text("May be missing:", YELLOW))?;
    }
    if !answer.candidates.is_empty() {
        writeln!(out)?;
        table(reply, paint, out)?;
    }
    Ok(())
}

fn table(reply: &Reply<'_>, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let candidates = &reply.answer.candidates;
    let names: Vec<_> = candidates.iter().map(|it| reply.name(it)).collect();
    let has_names = names.iter().any(|name| !name.is_empty());
    let mut heading: Vec<_> = COLUMNS.map(str::to_owned).into();
    heading.extend(has_names.then(|| "SUBSCRIBER".to_owned()));
    let rows = candidates.iter().zip(names).map(|(candidate, name)| {
        let mut cells: Vec<_> = cells(candidate).map(|cell| printable(&cell)).into();
        cells.extend(has_names.then(|| printable(&name)));
        cells
    });
    let rows: Vec<_> = rows.collect();
    aligned(&heading, &rows, paint, out)
}

/// A table with a heading.
pub(in crate::cli) fn aligned(
    heading: &Vec<String>,
    rows: &[Vec<String>],
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let width = |column: usize| {
        let all = std::iter::once(heading).chain(rows);
        all.map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    writeln!(out, "{}", paint.text(&line(heading), DIM))?;
    for row in rows {
        writeln!(out, "{}", line(row))?;
    }
    Ok(())
}

/// The cells of [`COLUMNS`]. What is not known is a hyphen.
pub(super) fn cells(candidate: &Candidate) -> [String; COLUMNS.len()] {
    let row = &candidate.row;
    let end = |address, port| words::endpoint(Endpoint { address, port });
    let ports = !row.protocol.is_icmp();
    let destination = end(row.post.dst, ports.then_some(row.post.dst_port));
    let octets = row
        .totals
        .map(|totals| format!("{}/{}", totals.original.octets, totals.reply.octets));
    let unknown = || "-".to_owned();
    let ended = match candidate.is_open {
        true => unknown(),
        false => words::bare(row.end),
    };
    [
        candidate.gateway.to_string(),
        row.protocol.to_string(),
        end(row.pre.src, Some(row.pre.src_port)),
        end(row.post.src, Some(row.post.src_port)),
        match row.has_dnat() {
            true => format!(
                "{destination} (asked for {})",
                end(row.pre.dst, Some(row.pre.dst_port))
            ),
            false => destination,
        },
        row.start.map_or_else(unknown, words::bare),
        ended,
        octets.unwrap_or_else(unknown),
        words::certainty(candidate),
    ]
}

/// The names of [`cells`].
pub(super) const fn columns() -> [&'static str; COLUMNS.len()] {
    COLUMNS
}
