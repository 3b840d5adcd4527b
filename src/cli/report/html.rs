//! The report as one page, with a plot and a table of each list.

use std::collections::BTreeMap;

use super::Report;
use super::svg::{self, Bar};
use super::text::{self, Table};
use crate::archive::report::{Kind, MINUTES, Sum};
use crate::archive::row::Millis;
use crate::cli::page::{self, escaped, heading, list, paragraph};
use crate::cli::who::words;

/// A label of a bar is cut after so many characters; the table has all of it.
const LABEL: usize = 44;

pub(super) fn page(report: &Report) -> String {
    let mut html = list(&[
        ("Gateways", report.holdings.gateways.join(", ")),
        ("Made at", words::instant(report.made)),
        (
            "Program",
            concat!("nattrail ", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
    ]);
    let class = match (report.is_complete(), report.totals.sessions) {
        (true, _) => "verdict one",
        (false, 1..) => "verdict several",
        (false, 0) => "verdict none-gap",
    };
    paragraph(Some(class), &text::verdict(report), &mut html);
    if report.totals.sessions > 0 {
        sessions(report, &mut html);
    }
    gaps(report, &mut html);
    if report.totals.sessions > 0 {
        ports(report, &mut html);
        subscribers(report, &mut html);
        protocols(report, &mut html);
    }
    heading("h2", "Archive and proof", &mut html);
    html += &capitalized(text::archive(report));
    let footer = "A session is of the day when it was open at some time of it; octets, protocols and subscribers are those of \
                  sessions that ended on it.";
    page::page(&text::heading(report), &html, footer)
}

fn sessions(report: &Report, html: &mut String) {
    heading("h2", "Sessions", html);
    *html += &capitalized(text::sessions(report));
    let totals = &report.totals;
    let plots = [
        ("Sessions that began, by minute", &totals.begun_by_minute),
        ("Sessions that were open, by minute", &totals.open_by_minute),
    ];
    for (title, values) in plots {
        let most = format!("At most {}.", text::peak(values));
        heading("h3", title, html);
        figure(&svg::minutes(title, &most, values), html);
        paragraph(None, &most, html);
        let hours = values
            .chunks(MINUTES / 24)
            .enumerate()
            .map(|(hour, values)| {
                let most = values.iter().copied().max().unwrap_or_default();
                vec![text::clock(hour * 60), text::grouped(most)]
            });
        let table = Table {
            heading: ["Hour from", "At most in a minute"]
                .map(str::to_owned)
                .into(),
            rows: hours.collect(),
        };
        *html += "<details>\n<summary>As a table, by hour</summary>\n";
        write_table(&table, html);
        *html += "</details>\n";
    }
}

fn gaps(report: &Report, html: &mut String) {
    heading("h2", "Gaps", html);
    let (missing, others) = (text::missing(report), text::other_gaps(report));
    if missing.is_empty() {
        paragraph(None, "No record of that day is missing.", html);
    }
    let mut lanes: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    let holdings = &report.holdings;
    for hole in holdings.holes.iter().chain(&holdings.other_gaps) {
        let to = hole.to.unwrap_or(Millis::MAX);
        let Some(minutes) = report.day.minutes(&(hole.from..=to)) else {
            continue;
        };
        let gateway = hole.gateway.as_deref().unwrap_or_default();
        let name = format!("{gateway} {}", hole.absence.name());
        let lane = lanes.entry(name.trim().to_owned());
        lane.or_insert_with(|| vec![false; MINUTES])[minutes].fill(true);
    }
    let lanes: Vec<_> = lanes.into_iter().take(text::MOST_GAPS).collect();
    if !lanes.is_empty() {
        let description = "A bar for each time of the day with a gap; the lists below have each.";
        figure(&svg::timeline("Gaps on the day", description, &lanes), html);
    }
    for (title, list) in [
        ("Records may be missing", missing),
        ("Other gaps, which hide no session", others),
    ] {
        if !list.is_empty() {
            heading("h3", title, html);
            let items: String = list
                .iter()
                .map(|it| format!("<li>{}</li>\n", escaped(it)))
                .collect();
            *html += &format!("<ul>\n{items}</ul>\n");
        }
    }
}

fn ports(report: &Report, html: &mut String) {
    heading("h2", "Ports in use", html);
    paragraph(None, &text::ports_note(report), html);
    let addresses = text::listed(report).iter();
    let bars = addresses.flat_map(|it| {
        let kinds = [Kind::Tcp, Kind::Udp].into_iter().zip(&it.ports);
        kinds.map(|(kind, ports)| Bar {
            label: cut(&format!("{} {}", it.address, kind.name())),
            value: text::of_available(kind, ports),
            share: text::share(kind, ports) / 100.0,
        })
    });
    let bars: Vec<_> = bars.collect();
    if !bars.is_empty() {
        let description = "A bar of the whole width is all 64,512 ports.";
        figure(
            &svg::bars("Ports in use by public address", description, &bars),
            html,
        );
        write_table(&text::addresses(report), html);
    }
}

fn subscribers(report: &Report, html: &mut String) {
    heading("h2", "Subscribers", html);
    paragraph(None, &text::subscribers_note(report), html);
    ranking(report, "octets", |sum| sum.octets, text::octets, html);
    ranking(report, "sessions", |sum| sum.sessions, text::grouped, html);
}

fn ranking(
    report: &Report,
    unit: &str,
    rank: fn(&Sum) -> u64,
    word: fn(u64) -> String,
    html: &mut String,
) {
    let ranked = report.totals.subscribers.top(report.top, rank);
    let Some(first) = ranked.first() else {
        return;
    };
    let most = rank(&first.sum).max(1) as f64;
    let bars = ranked.iter().map(|it| Bar {
        label: cut(&format!("{} {}", it.address, report.name(it))),
        value: word(rank(&it.sum)),
        share: rank(&it.sum) as f64 / most,
    });
    let title = format!("Subscribers with the most {unit}");
    let description = format!("A bar of the whole width is the most {unit} of a subscriber.");
    heading("h3", &format!("By {unit}"), html);
    figure(
        &svg::bars(&title, &description, &bars.collect::<Vec<_>>()),
        html,
    );
    write_table(&text::subscribers(report, rank), html);
}

fn protocols(report: &Report, html: &mut String) {
    heading("h2", "Protocols", html);
    let all = report.totals.ended.sessions.max(1) as f64;
    let protocols = report.totals.protocols.iter().take(report.top);
    let bars = protocols.map(|(protocol, sum)| {
        let share = sum.sessions as f64 / all;
        Bar {
            label: protocol.to_string(),
            value: format!("{:.1} % of the sessions", share * 100.0),
            share,
        }
    });
    let bars: Vec<_> = bars.collect();
    if !bars.is_empty() {
        let description = "A bar of the whole width is all sessions that ended on the day.";
        figure(&svg::bars("Sessions by protocol", description, &bars), html);
        write_table(&text::protocols(report), html);
    }
}

fn figure(svg: &str, html: &mut String) {
    *html += &format!("<figure>\n{svg}</figure>\n");
}

/// Cells that begin with a digit and are no address are numbers.
fn write_table(table: &Table, html: &mut String) {
    let is_number = |cell: &str| {
        let number = |c: char| c.is_ascii_digit() || ",.() %kMGTB-".contains(c);
        cell.chars().all(number) && cell.matches('.').count() < 2
    };
    let is_numeric: Vec<_> = (0..table.heading.len())
        .map(|column| table.rows.iter().all(|row| is_number(&row[column])))
        .collect();
    let row = |cells: &[String], tag: &str| {
        let cells = cells.iter().zip(&is_numeric).map(|(cell, is_numeric)| {
            let class = if *is_numeric { " class=\"n\"" } else { "" };
            // A number stays beside its unit.
            let cell = cell.replace(" %", "\u{a0}%").replace(" (", "\u{a0}(");
            format!("<{tag}{class}>{}</{tag}>", escaped(&cell))
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let heading: Vec<_> = table
        .heading
        .iter()
        .map(|it| sentence(&it.to_lowercase()))
        .collect();
    *html += "<div class=\"wide\"><table>\n<thead>\n";
    *html += &row(&heading, "th");
    *html += "</thead>\n<tbody>\n";
    table
        .rows
        .iter()
        .for_each(|cells| *html += &row(cells, "td"));
    *html += "</tbody>\n</table></div>\n";
}

fn capitalized(facts: Vec<(&str, String)>) -> String {
    let names: Vec<_> = facts.iter().map(|(name, _)| sentence(name)).collect();
    let facts = names.iter().zip(facts);
    let facts: Vec<_> = facts
        .map(|(name, (_, value))| (name.as_str(), value))
        .collect();
    list(&facts)
}

/// With a capital letter at the beginning, and in the names of protocols.
fn sentence(text: &str) -> String {
    let text = ["tcp", "udp", "icmp"]
        .into_iter()
        .fold(text.to_owned(), |text, name| {
            text.replace(name, &name.to_uppercase())
        });
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn cut(label: &str) -> String {
    let label = label.trim();
    match label.chars().count() {
        0..=LABEL => label.to_owned(),
        _ => label.chars().take(LABEL - 1).chain(['…']).collect(),
    }
}
