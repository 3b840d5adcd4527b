//! The report for people: tables, and the sentences that the page has as well.
//!
//! Names come out of files: nothing of them reaches a terminal as a control character.

use std::io::{self, Write};

use super::Report;
use crate::archive::answer::Absence;
use crate::archive::report::{Kind, PublicAddress, Ranked, Sum, Use};
use crate::cli::color::{BOLD, CYAN, DIM, Paint, YELLOW};
use crate::cli::control::printable;
use crate::cli::who::print::aligned;
use crate::cli::who::words;

/// So many gaps are listed; the rest is counted. JSON has all.
pub(super) const MOST_GAPS: usize = 50;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Minutes for which a block stands.
const BLOCK: usize = 20;

/// A heading and rows.
pub(super) struct Table {
    pub(super) heading: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

pub(super) fn print(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let title = |text: &str| paint.text(text, BOLD);
    writeln!(out, "{}", title(&heading(report)))?;
    writeln!(out, "{}", verdict(report))?;
    for (word, color, list) in [
        ("May be missing:", YELLOW, missing(report)),
        ("Note:", DIM, other_gaps(report)),
    ] {
        for it in list {
            writeln!(out, "{} {}", paint.text(word, color), printable(&it))?;
        }
    }
    let mut section = |name: &str, note: &str, table: &Table| -> io::Result<()> {
        writeln!(out, "\n{}", title(name))?;
        if !note.is_empty() {
            writeln!(out, "{note}")?;
        }
        if !table.rows.is_empty() {
            aligned(&table.heading, &table.rows, paint, out)?;
        }
        Ok(())
    };
    let none = Table {
        heading: Vec::new(),
        rows: Vec::new(),
    };
    if report.totals.sessions > 0 {
        let minutes = &report.totals;
        let lines = [
            ("began in a minute  ", &minutes.begun_by_minute),
            ("open in a minute   ", &minutes.open_by_minute),
        ];
        let lines = lines.map(|(name, values)| {
            let blocks = paint.text(&sparkline(values), CYAN);
            format!("{name}{blocks}  at most {}", peak(values))
        });
        let hours =
            "                   00          04          08          12          16          20";
        let facts = sessions(report).into_iter();
        let facts: Vec<_> = facts
            .map(|(name, value)| format!("{name:<19}{value}"))
            .collect();
        let note = format!("{}\n{}\n{hours}", facts.join("\n"), lines.join("\n"));
        section("Sessions", &note, &none)?;
        section("Ports in use", &ports_note(report), &addresses(report))?;
        let subscribers_note = subscribers_note(report);
        section(
            "Subscribers by octets",
            &subscribers_note,
            &subscribers(report, |sum| sum.octets),
        )?;
        section(
            "Subscribers by sessions",
            "",
            &subscribers(report, |sum| sum.sessions),
        )?;
        section("Protocols", "", &protocols(report))?;
    }
    let facts = archive(report).into_iter();
    let facts: Vec<_> = facts
        .map(|(name, value)| format!("{name:<19}{}", printable(&value)))
        .collect();
    section("Archive and proof", &facts.join("\n"), &none)
}

pub(super) fn heading(report: &Report) -> String {
    format!("Address translation on {} (UTC)", report.day)
}

/// The number of sessions and whether it is all of them, in one sentence.
pub(super) fn verdict(report: &Report) -> String {
    let sessions = report.totals.sessions;
    match (sessions, report.is_complete()) {
        (0, true) => "There was no session on that day. Its records are complete.".to_owned(),
        (0, false) => "No session of that day is known, but records may be missing.".to_owned(),
        (1.., true) => format!(
            "{} sessions. The records of that day are complete.",
            grouped(sessions)
        ),
        (1.., false) => format!("{} sessions. Records may be missing.", grouped(sessions)),
    }
}

/// Reasons why sessions may be missing, a sentence each.
pub(super) fn missing(report: &Report) -> Vec<String> {
    let holdings = &report.holdings;
    let problems = holdings.problems.iter().cloned();
    limited(
        problems
            .chain(holdings.holes.iter().map(words::hole))
            .collect(),
    )
}

/// Gaps that hide no session, a sentence each.
pub(super) fn other_gaps(report: &Report) -> Vec<String> {
    limited(report.holdings.other_gaps.iter().map(words::hole).collect())
}

fn limited(all: Vec<String>) -> Vec<String> {
    let rest = all.len().saturating_sub(MOST_GAPS);
    let mut listed: Vec<_> = all.into_iter().take(MOST_GAPS).collect();
    listed.extend((rest > 0).then(|| format!("{rest} more; --json has all of them")));
    listed
}

pub(super) fn sessions(report: &Report) -> Vec<(&'static str, String)> {
    let totals = &report.totals;
    let mut facts = vec![
        ("open on the day", grouped(totals.sessions)),
        ("began on it", grouped(totals.begun)),
        (
            "ended on it",
            format!(
                "{}, with {} octets ({}) in both directions",
                grouped(totals.ended.sessions),
                grouped(totals.ended.octets),
                octets(totals.ended.octets)
            ),
        ),
    ];
    let optional = [
        ("open when asked", totals.open),
        ("start not known", totals.without_start),
        ("without counters", totals.uncounted),
    ];
    let optional = optional.into_iter().filter(|(_, number)| *number > 0);
    facts.extend(optional.map(|(name, number)| (name, grouped(number))));
    facts
}

/// `1,234 at 14:03`
pub(super) fn peak(values: &[u64]) -> String {
    let most = values.iter().copied().max().unwrap_or_default();
    let minute = values.iter().position(|value| *value == most);
    format!("{} at {}", grouped(most), clock(minute.unwrap_or_default()))
}

pub(super) fn ports_note(report: &Report) -> String {
    let totals = &report.totals;
    let mut note = "The most ports of a public address that were in use in the same minute. 100 % are the 64,512 ports from 1024 to \
                    65535 that each protocol has; a port may serve several sessions with different destinations."
        .to_owned();
    let shown = totals.addresses.len().min(report.top) as u64;
    if shown < totals.address_count {
        note += &format!(
            " {shown} of {} addresses are shown.",
            grouped(totals.address_count)
        );
    }
    if report.holdings.without_ports > 0 {
        note += &format!(
            " The ports of {} sessions are not counted, because too many are not archived yet.",
            grouped(report.holdings.without_ports)
        );
    }
    note
}

pub(super) fn addresses(report: &Report) -> Table {
    let heading = [
        "GATEWAY",
        "ADDRESS",
        "SESSIONS",
        "TCP PORTS",
        "UDP PORTS",
        "ICMP IDS",
    ];
    let rows =
        listed(report).iter().map(|it| {
            let mut cells = vec![
                printable(&it.gateway),
                it.address.to_string(),
                grouped(it.sessions),
            ];
            cells.extend(Kind::ALL.into_iter().zip(&it.ports).map(
                |(kind, ports)| match ports.peak {
                    0 => "none".to_owned(),
                    _ => format!("{} at {}", of_available(kind, ports), clock(ports.minute)),
                },
            ));
            cells
        });
    Table {
        heading: heading.map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

/// The addresses that are shown.
pub(super) fn listed(report: &Report) -> &[PublicAddress] {
    let all = &report.totals.addresses;
    &all[..all.len().min(report.top)]
}

/// `1,234 (1.9 %)`
pub(super) fn of_available(kind: Kind, ports: &Use) -> String {
    let peak = grouped(ports.peak.into());
    match kind {
        Kind::Icmp => peak,
        Kind::Tcp | Kind::Udp => format!("{peak} ({:.1} %)", share(kind, ports)),
    }
}

/// In per cent.
pub(super) fn share(kind: Kind, ports: &Use) -> f64 {
    100.0 * f64::from(ports.peak) / f64::from(kind.available())
}

pub(super) fn subscribers_note(report: &Report) -> String {
    let subscribers = &report.totals.subscribers;
    let count = grouped(subscribers.count() as u64);
    if subscribers.is_exact() {
        return format!("{count} subscribers had sessions that ended on the day.");
    }
    let Sum { sessions, octets } = subscribers.short;
    format!(
        "At least {count} subscribers had sessions that ended on the day: too many to count each. The numbers of a subscriber \
         may be too small by up to {} sessions and {} octets.",
        grouped(sessions),
        grouped(octets)
    )
}

pub(super) fn subscribers(report: &Report, rank: fn(&Sum) -> u64) -> Table {
    let ranked = report.totals.subscribers.top(report.top, rank);
    let name = |it: &Ranked| report.name(it);
    let has_names = ranked.iter().any(|it| !name(it).is_empty());
    let rows = ranked.iter().map(|it| {
        let mut cells = vec![printable(&it.gateway), it.address.to_string()];
        cells.extend([grouped(it.sum.sessions), octets(it.sum.octets)]);
        cells.extend(has_names.then(|| printable(&name(it))));
        cells
    });
    let mut heading = ["GATEWAY", "ADDRESS", "SESSIONS", "OCTETS"]
        .map(str::to_owned)
        .to_vec();
    heading.extend(has_names.then(|| "SUBSCRIBER".to_owned()));
    Table {
        rows: rows.collect(),
        heading,
    }
}

pub(super) fn protocols(report: &Report) -> Table {
    let rows = report.totals.protocols.iter().map(|(protocol, sum)| {
        vec![
            protocol.to_string(),
            grouped(sum.sessions),
            octets(sum.octets),
        ]
    });
    Table {
        heading: ["PROTOCOL", "SESSIONS", "OCTETS"].map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

pub(super) fn archive(report: &Report) -> Vec<(&'static str, String)> {
    let holdings = &report.holdings;
    let mut facts = vec![
        ("gateways", holdings.gateways.join(", ")),
        (
            "sealed files",
            format!(
                "{} with {}, and in them {} sessions of the day",
                grouped(holdings.files),
                octets(holdings.octets),
                grouped(holdings.sealed)
            ),
        ),
        (
            "not sealed yet",
            format!(
                "{} sessions, {} of them still open",
                grouped(holdings.unsealed + holdings.open),
                grouped(holdings.open)
            ),
        ),
        ("records until", records_until(report)),
    ];
    for log in &holdings.logs {
        let written = log
            .written
            .map(|it| format!(", checkpoint of {}", words::instant(it.into())));
        let key = log.key.as_ref();
        let key = key
            .map(|(key, made)| format!(", newest key {key} of {}", words::instant((*made).into())));
        facts.push((
            "evidence log",
            format!(
                "{}: {} entries{}{}",
                log.gateway,
                grouped(log.entries),
                written.unwrap_or_default(),
                key.unwrap_or_default()
            ),
        ));
    }
    let proof = match holdings.logs.is_empty() {
        true => "there is no evidence log: nothing shows that the files are as they were sealed",
        false => "not checked here: \"nattrail verify\" compares the files with the log",
    };
    facts.push(("proof", proof.to_owned()));
    facts
}

/// Until when the records of the day are there, but for gaps.
fn records_until(report: &Report) -> String {
    let range = report.day.range();
    let holes = report.holdings.holes.iter();
    let holes = holes.filter(|hole| !matches!(hole.absence, Absence::Gap(_)));
    match holes.map(|hole| hole.from).min() {
        Some(first) if first <= *range.start() => "they begin later, or there are none".to_owned(),
        Some(first) if first <= *range.end() => words::instant(first),
        _ => "the end of the day".to_owned(),
    }
}

fn sparkline(values: &[u64]) -> String {
    let most = values.iter().copied().max().unwrap_or_default().max(1);
    let blocks = values.chunks(BLOCK).map(|values| {
        let value = values.iter().copied().max().unwrap_or_default();
        BLOCKS[(value * (BLOCKS.len() as u64 - 1)).div_ceil(most) as usize]
    });
    blocks.collect()
}

/// `14:03`
pub(super) fn clock(minute: usize) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// `1,234,567`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// `12.3 GB`
pub(super) fn octets(number: u64) -> String {
    let units = [
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1000),
    ];
    match units.into_iter().find(|(_, size)| number >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", number as f64 / size as f64),
        None => format!("{number} B"),
    }
}
