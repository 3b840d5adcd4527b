//! Times as requests write them.
//!
//! ISO 8601 and its relatives, RFC 2822, the common log format of web servers, and seconds since 1970. A time without a
//! zone is UTC. Abbreviations of zones are refused: several mean different offsets in different countries, and none says
//! whether the writer thought of summer time.

use std::ops::RangeInclusive;

use time::{Date, Month, Time, UtcOffset};

use crate::archive::row::Millis;

/// A time, as precise as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Moment {
    /// From its first millisecond to its last: a time in whole seconds is that second.
    pub(super) range: RangeInclusive<Millis>,
    /// Whether it has no zone and is taken as UTC.
    pub(super) is_assumed_utc: bool,
}

const EXPECTED: &str = "expected a time such as \"2026-11-20 14:30:00\" (UTC), \"2026-11-20T15:30:00.250+01:00\", \
     \"Fri, 20 Nov 2026 14:30:00 +0000\", \"20/Nov/2026:14:30:00 +0000\" or \"@1795185000\"";

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Reads a time.
///
/// # Errors
/// What was expected, what was found and what to do.
pub(super) fn parse(text: &str) -> Result<Moment, String> {
    let trimmed = text.trim().trim_matches(['[', ']', '"']).trim();
    let unknown = || format!("{EXPECTED}; found \"{text}\"");
    if let Some(seconds) = since_1970(trimmed) {
        return moment(seconds.ok_or_else(unknown)?, 0, false).ok_or_else(unknown);
    }
    let (date, rest) = split_date(trimmed).ok_or_else(unknown)?;
    if rest.is_empty() {
        let midnight = date.midnight().assume_utc().unix_timestamp_nanos() / 1_000_000;
        return moment(midnight, 86_399_999, true).ok_or_else(unknown);
    }
    let digits = |c: char| c.is_ascii_digit() || c == ':' || c == '.' || c == ',';
    let (clock, zone) = rest.split_at(rest.find(|c| !digits(c)).unwrap_or(rest.len()));
    let clock = clock_of(clock).ok_or_else(unknown)?;
    let zone = zone.trim();
    let offset = offset_of(zone).map_err(|problem| match problem {
        Zone::Abbreviation => format!(
            "expected an offset from UTC such as +01:00, found \"{zone}\" in \"{text}\": abbreviations are ambiguous (CST is \
             -06:00 in Chicago and +08:00 in Shanghai) and leave summer time open; ask the sender, and write the offset"
        ),
        Zone::Unknown => unknown(),
    })?;
    let local = date
        .with_time(clock.time)
        .assume_utc()
        .unix_timestamp_nanos()
        / 1_000_000;
    let first = local - i128::from(offset.unwrap_or(UtcOffset::UTC).whole_seconds()) * 1000;
    moment(first, clock.width, offset.is_none()).ok_or_else(unknown)
}

/// `None` outside of the range of [`Millis`].
fn moment(first: i128, width: u64, is_assumed_utc: bool) -> Option<Moment> {
    let first = u64::try_from(first).ok()?;
    let last = first.checked_add(width)?;
    (last <= Millis::MAX.get()).then(|| Moment {
        range: Millis::new(first)..=Millis::new(last),
        is_assumed_utc,
    })
}

/// Milliseconds of `@1700000000.25` or `1700000000`; the inner `None` for an `@` without a number.
fn since_1970(text: &str) -> Option<Option<i128>> {
    let (number, is_marked) = match text.strip_prefix('@') {
        Some(number) => (number, true),
        None => (text, false),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = are_digits(whole) && are_digits(fraction) && !whole.is_empty();
    let seconds = whole.parse::<u64>().ok().filter(|_| is_number);
    let millis =
        seconds.map(|seconds| i128::from(seconds) * 1000 + i128::from(millis_of(fraction)));
    // Ten digits are the years from 2001 to 2286, and no date.
    (is_marked || whole.len() == 10 && is_number).then_some(millis)
}

/// The first three digits of a fraction of a second.
fn millis_of(fraction: &str) -> u16 {
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
}

/// The date at the beginning, and the text from the time of day on, which is empty for a date alone.
fn split_date(text: &str) -> Option<(Date, &str)> {
    let weekday = text.get(..3).filter(|name| {
        let mut days = WEEKDAYS.iter();
        days.any(|day| day.eq_ignore_ascii_case(name))
    });
    let text = match weekday {
        Some(_) => text[3..].trim_start_matches([',', ' ']),
        None => text,
    };
    let mut parts = text.splitn(3, ['-', '/', '.', ' ']);
    let (first, second, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let separator = text[first.len()..].chars().next()?;
    let end = rest.find(['T', 't', ' ', ':']).unwrap_or(rest.len());
    let (third, clock) = rest.split_at(end);
    let (year, month, day) = match (separator, first.len()) {
        ('-' | '/', 4) => (first, second.parse().ok()?, third),
        // 20/11/2026 and 11/20/2026 cannot be told apart; the dots and the names can.
        ('.', 1 | 2) => (third, second.parse().ok()?, first),
        ('-' | '/' | ' ', 1 | 2) => (third, month_of(second)?, first),
        _ => return None,
    };
    let is_year = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    let year: i32 = year.parse().ok().filter(|_| is_year)?;
    let month = Month::try_from(month).ok()?;
    let date = Date::from_calendar_date(year, month, day.parse().ok()?).ok()?;
    let clock = clock.get(1..).unwrap_or_default().trim_start();
    (end == rest.len() || !clock.is_empty()).then_some((date, clock))
}

fn month_of(name: &str) -> Option<u8> {
    let at = MONTHS
        .iter()
        .position(|month| month.eq_ignore_ascii_case(name))?;
    Some(at as u8 + 1)
}

struct Clock {
    time: Time,
    /// Milliseconds from the first to the last that it may mean.
    width: u64,
}

/// `14:30`, `14:30:00`, `14:30:00.25`.
fn clock_of(text: &str) -> Option<Clock> {
    let (whole, fraction) = match text.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let two = |part: &str| (part.len() == 2).then(|| part.parse::<u8>().ok()).flatten();
    let parts: Option<Vec<u8>> = whole.split(':').map(two).collect();
    let (hour, minute, second, width) = match (parts?.as_slice(), fraction) {
        (&[hour, minute], None) => (hour, minute, 0, 59_999),
        (&[hour, minute, second], None) => (hour, minute, second, 999),
        (&[hour, minute, second], Some(_)) => (hour, minute, second, 0),
        _ => return None,
    };
    let fraction = fraction.unwrap_or("0");
    let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let millis = is_number.then(|| millis_of(fraction))?;
    let time = Time::from_hms_milli(hour, minute, second, millis).ok()?;
    Some(Clock { time, width })
}

enum Zone {
    Abbreviation,
    Unknown,
}

/// `None` for no zone. A comment after an offset (RFC 2822 section 3.2.3) is ignored.
fn offset_of(text: &str) -> Result<Option<UtcOffset>, Zone> {
    let (zone, comment) = text.split_once(" (").unwrap_or((text, ")"));
    if !comment.ends_with(')') {
        return Err(Zone::Unknown);
    }
    let names = ["Z", "UTC", "GMT", "UT"];
    if names.iter().any(|name| name.eq_ignore_ascii_case(zone)) {
        return Ok(Some(UtcOffset::UTC));
    }
    if zone.is_empty() {
        return Ok(None);
    }
    if zone.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err(Zone::Abbreviation);
    }
    let (sign, digits) = match zone.split_at_checked(1) {
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        _ => return Err(Zone::Unknown),
    };
    let digits = match digits.len() {
        5 if digits.as_bytes()[2] == b':' => digits.replacen(':', "", 1),
        2 => format!("{digits}00"),
        _ => digits.to_owned(),
    };
    let is_number = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: Option<u16> = digits.parse().ok().filter(|_| is_number);
    let number = number.ok_or(Zone::Unknown)?;
    let (hours, minutes) = ((number / 100) as i8, (number % 100) as i8);
    // Offsets go from -12:00 to +14:00.
    if hours > 14 || minutes > 59 {
        return Err(Zone::Unknown);
    }
    let offset = UtcOffset::from_hms(sign * hours, sign * minutes, 0);
    offset.map(Some).map_err(|_| Zone::Unknown)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// 2026-11-20T14:30:00Z.
    const AT: u64 = 1_795_185_000_000;

    #[test]
    fn the_usual_spellings_are_the_same_time() {
        let cases = [
            ("2026-11-20 14:30:00", 999),
            ("2026-11-20T14:30:00Z", 999),
            ("2026-11-20T14:30:00z", 999),
            ("2026/11/20 14:30:00 UTC", 999),
            ("2026-11-20T15:30:00+01:00", 999),
            ("2026-11-20 15:30:00 +0100", 999),
            ("2026-11-20 15:30:00+01", 999),
            ("2026-11-20 09:00:00 -05:30", 999),
            ("2026-11-20 14:30", 59_999),
            ("2026-11-20T14:30:00.000Z", 0),
            ("2026-11-20 14:30:00,000", 0),
            ("20.11.2026 14:30:00", 999),
            ("20-Nov-2026 14:30:00", 999),
            ("Fri, 20 Nov 2026 15:30:00 +0100", 999),
            ("Fri 20 Nov 2026 15:30:00 +0100 (CET)", 999),
            ("20 Nov 2026 14:30:00 GMT", 999),
            ("20/Nov/2026:15:30:00 +0100", 999),
            ("[20/Nov/2026:15:30:00 +0100]", 999),
            ("@1795185000", 0),
            ("@1795185000.0009", 0),
            ("1795185000", 0),
        ];
        for (text, width) in cases {
            let range = parse(text).unwrap().range;
            assert_eq!(range, Millis::new(AT)..=Millis::new(AT + width), "{text}");
        }
    }

    #[test]
    fn a_date_alone_is_all_of_that_day() {
        let day = Millis::new(1_795_132_800_000)..=Millis::new(1_795_219_199_999);
        for text in ["2026-11-20", "20.11.2026", "20 Nov 2026"] {
            let expected = Moment {
                range: day.clone(),
                is_assumed_utc: true,
            };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_fraction_is_read_to_the_millisecond() {
        for (text, millis) in [("5", 500), ("25", 250), ("123456", 123), ("001", 1)] {
            let range = parse(&format!("2026-11-20 14:30:00.{text}")).unwrap().range;
            assert_eq!(range.start().get(), AT + millis, "{text}");
            let range = parse(&format!("@1795185000.{text}")).unwrap().range;
            assert_eq!(range.start().get(), AT + millis, "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_taken_as_utc_and_known_to_be() {
        assert!(parse("2026-11-20 14:30:00").unwrap().is_assumed_utc);
        for text in [
            "2026-11-20 14:30:00Z",
            "@1795185000",
            "20 Nov 2026 14:30:00 +0000",
        ] {
            assert!(!parse(text).unwrap().is_assumed_utc, "{text}");
        }
    }

    #[test]
    fn an_abbreviation_of_a_zone_is_refused_with_the_reason() {
        for text in ["2026-11-20 14:30:00 CET", "Fri, 20 Nov 2026 14:30:00 EST"] {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with("expected an offset from UTC such as +01:00"),
                "{error}"
            );
            assert!(error.contains("abbreviations are ambiguous"), "{error}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_examples() {
        let cases = [
            "",
            "now",
            "@",
            "@x",
            "@-1",
            "14:30:00",
            "2026-11-20T",
            "2026-11-31 00:00:00",
            "2026-13-01 00:00:00",
            "2026-11-20 24:00:00",
            "2026-11-20 14:60:00",
            "2026-11-20 14:30:61",
            "20/11/2026 14:30:00",
            "11/20/2026 14:30:00",
            "20 November 2026 14:30:00",
            "2026-11-20 14:30:00 +1",
            "2026-11-20 14:30:00 +15:00",
            "2026-11-20 14:30:00 +01:60",
            "2026-11-20 14:30:00.",
            "2026-11-20 14:30.5",
            "1969-12-31 23:59:59",
            "26-11-20 14:30:00",
            "2026-11-20 14:30:00 Z x",
            "udp 20 Nov 2026 14:30:00",
            "Freitag, 20 Nov 2026 14:30:00",
        ];
        for text in cases {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with("expected a time such as"),
                "{text}: {error}"
            );
            assert!(
                error.ends_with(&format!("found \"{text}\"")),
                "{text}: {error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", digits in "[0-9:T/ .,+@Zé-]{0,40}") {
            let _ = (parse(&text), parse(&digits));
        }

        #[test]
        fn a_time_that_records_have_is_read_back(millis in 0_u64..4_000_000_000_000) {
            let text = Millis::new(millis).wall().to_string();
            let range = parse(&text).unwrap().range;
            prop_assert_eq!(range, Millis::new(millis)..=Millis::new(millis));
        }
    }
}
