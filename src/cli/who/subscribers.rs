//! Who has a private address when: a list of the operator, as CSV.
//!
//! A line has an address or a prefix, the time from which and the time until which it holds (either may be empty), and
//! the identifier of the subscriber. A first line without an address names the columns and is skipped.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::batch::cells;
use super::moment;
use crate::archive::row::Millis;
use crate::config::Prefix;

#[derive(Debug, Default)]
pub(in crate::cli) struct Subscribers(Vec<Assignment>);

#[derive(Debug)]
struct Assignment {
    prefix: Prefix,
    time: RangeInclusive<Millis>,
    identifier: String,
}

impl Subscribers {
    /// Reads a list.
    ///
    /// # Errors
    /// The first line that is wrong: a wrong list would name the wrong person.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
        let mut assignments = Vec::new();
        for (line, text) in lines {
            let is_heading = line == 1 && !text.contains(|c: char| c.is_ascii_digit());
            if text.trim().is_empty() || text.starts_with('#') || is_heading {
                continue;
            }
            let assignment = assignment(text).map_err(|reason| format!("line {line}: {reason}"))?;
            assignments.push(assignment);
        }
        Ok(Self(assignments))
    }

    /// The identifiers of an address throughout or at some time of a session, the longest prefix only.
    pub(in crate::cli) fn of(&self, address: IpAddr, time: &RangeInclusive<Millis>) -> String {
        let holds = |it: &&Assignment| {
            let overlaps = it.time.start() <= time.end() && time.start() <= it.time.end();
            it.prefix.contains(address) && overlaps
        };
        let holding: Vec<_> = self.0.iter().filter(holds).collect();
        let longest = holding.iter().map(|it| it.prefix.length).max();
        let best = holding
            .iter()
            .filter(|it| Some(it.prefix.length) == longest);
        let mut names: Vec<_> = best.map(|it| it.identifier.as_str()).collect();
        names.dedup();
        names.join(" or ")
    }
}

fn assignment(line: &str) -> Result<Assignment, String> {
    let separator = if line.contains(';') { ';' } else { ',' };
    let cells = cells(line, separator);
    let [prefix, from, until, identifier] = cells.as_slice() else {
        let expected = "expected an address or prefix, from, until and an identifier";
        return Err(format!("{expected}, found {} columns", cells.len()));
    };
    let usual = "an address or a prefix such as 10.1.2.0/24";
    let prefix = Prefix::parse(prefix, usual)
        .map_err(|expected| format!("expected {expected}, found \"{prefix}\""))?;
    let time = |text: &str| match text {
        "" => Ok(None),
        text => moment::parse(text).map(|time| Some(time.range)),
    };
    let from = time(from)?.map_or(Millis::default(), |range| *range.start());
    let until = time(until)?.map_or(Millis::MAX, |range| *range.end());
    if until < from {
        return Err(format!(
            "expected an end after the beginning, found {} before it",
            cells[2]
        ));
    }
    if identifier.is_empty() {
        return Err("expected an identifier in the fourth column, found nothing".to_owned());
    }
    Ok(Assignment {
        prefix,
        time: from..=until,
        identifier: identifier.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const LIST: &str = "address,from,until,identifier\n\
                        10.1.2.0/24,,,network 2\n\
                        10.1.2.3,2026-11-20 00:00:00,2026-11-20 12:00:00,\"Doe, Jane\"\n\
                        10.1.2.3,2026-11-20 13:00:00,,C-4711\n";

    fn name(from: &str, until: &str) -> String {
        let time = |text: &str| *moment::parse(text).unwrap().range.start();
        let subscribers = Subscribers::parse(LIST).unwrap();
        subscribers.of("10.1.2.3".parse().unwrap(), &(time(from)..=time(until)))
    }

    #[test]
    fn the_longest_prefix_of_that_time_names_the_subscriber() {
        assert_eq!(name("2026-11-20 11:00Z", "2026-11-20 11:01Z"), "Doe, Jane");
        assert_eq!(name("2026-11-20 14:00Z", "2026-11-20 14:01Z"), "C-4711");
        assert_eq!(name("2026-11-20 12:30Z", "2026-11-20 12:31Z"), "network 2");
        assert_eq!(
            name("2026-11-20 11:00Z", "2026-11-20 14:01Z"),
            "Doe, Jane or C-4711"
        );
    }

    #[test]
    fn nobody_has_an_address_that_is_not_listed() {
        let subscribers = Subscribers::parse(LIST).unwrap();
        let always = Millis::new(0)..=Millis::MAX;
        assert_eq!(subscribers.of("10.1.3.3".parse().unwrap(), &always), "");
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let cases = [
            (
                "10.1.2.3,,,x\n10.1.2.3,x",
                "line 2: expected an address or prefix, from, until and an identifier, found 2",
            ),
            (
                "10.1.2.3/8,,,x",
                "line 1: expected no bits set beyond the prefix",
            ),
            ("10.1.2.3,soon1,,x", "line 1: expected a time such as"),
            ("10.1.2.3,,,", "line 1: expected an identifier"),
            (
                "10.1.2.3,2026-11-20,2026-11-19,x",
                "line 1: expected an end after the beginning",
            ),
        ];
        for (text, expected) in cases {
            let error = Subscribers::parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
