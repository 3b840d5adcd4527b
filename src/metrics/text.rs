//! The metrics for people: a subject per line, names before numbers.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::section::{Metric, Section, Value};
use super::{Confinement, Gaps, Metrics};
use crate::time::Age;

/// Columns before the first entry of a line.
const MARGIN: usize = 12;
/// Columns after which an entry goes to the next line.
const WIDTH: usize = 110;

impl Display for Metrics {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let uptime = Age(Duration::from_secs(self.uptime_seconds));
        writeln!(
            f,
            "nattrail {}, pid {}, running {uptime} since {}",
            self.version, self.pid, self.started
        )?;
        let own = "the one it was started in";
        let namespace = self.namespace.as_deref().unwrap_or(own);
        let file = self.configuration.as_deref().unwrap_or("built-in");
        writeln!(
            f,
            "Settings:   configuration {file}, network namespace {namespace}"
        )?;
        writeln!(f, "Confined:   {}", self.confinement)?;
        write_entries("gaps", "; ", self.gaps.iter().map(gap), f)?;
        for section in self.sections() {
            let subject = match section.name() {
                "store" => "database",
                name => name,
            };
            let metrics = section.metrics();
            write_entries(subject, ", ", metrics.iter().filter_map(entry), f)?;
        }
        Ok(())
    }
}

impl Display for Confinement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let held = match self.capabilities.as_slice() {
            [] => "no capabilities".to_owned(),
            held => format!("capabilities {}", held.join(" ")),
        };
        let privileges = match self.no_new_privileges {
            true => "no new privileges",
            false => "new privileges possible",
        };
        write!(f, "{held}; {privileges}")
    }
}

/// Puts as many entries on a line as fit.
fn write_entries(
    subject: &str,
    separator: &str,
    entries: impl Iterator<Item = String>,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let (first, rest) = subject.split_at(1);
    let mut line = format!("{}{rest}:", first.to_uppercase());
    for (index, entry) in entries.enumerate() {
        let separator = if index == 0 { "" } else { separator };
        line += separator;
        if index > 0 && line.len() + entry.len() > WIDTH {
            writeln!(f, "{}", line.trim_end())?;
            line.clear();
        }
        // This pads only a line that has just begun.
        line = format!("{line:<MARGIN$}{entry}");
    }
    writeln!(f, "{line}")
}

/// A cause, its number of gaps, their losses, and when the last one ended.
fn gap((cause, gaps): (&String, &Gaps)) -> String {
    let Gaps { count, lost, last } = gaps;
    let lost = match lost {
        0 => String::new(),
        lost => format!(", lost {lost}"),
    };
    let last = last.map_or_else(String::new, |last| format!(", the last until {last}"));
    format!("{cause} {count}{lost}{last}")
}

/// The name and the value; nothing where there is no value.
fn entry(metric: &Metric<'_>) -> Option<String> {
    let name = match metric.value {
        // The value carries its unit.
        Value::Octets(_) | Value::Micros(_) if !metric.stem().is_empty() => metric.stem(),
        _ => metric.name,
    };
    let name = name.replace('_', " ");
    Some(match metric.value {
        Value::Number(number) => format!("{name} {number}"),
        Value::Octets(octets) => format!("{name} {}", Octets(*octets)),
        Value::Micros(micros) => format!("{name} {}", Micros(*micros)),
        Value::Rate(rate) => format!("{name} {rate:.1}/s"),
        Value::Flag(flag) => format!("{}{name}", if *flag { "" } else { "not " }),
        Value::Word(word) if word.is_empty() => return None,
        Value::Word(word) if name == "name" => word.clone(),
        Value::Word(word) => format!("{name} {word}"),
        Value::Moment(moment) => format!("{name} {}", (*moment)?),
        Value::State(state) => format!("{name} {}", state.name()),
        Value::Histogram(histogram) => {
            let full = histogram.0.iter().filter(|bucket| bucket.count > 0);
            let counts = full.map(|bucket| match bucket.below_microseconds {
                Some(micros) => format!("<{} {}", Micros(micros), bucket.count),
                None => format!("longer {}", bucket.count),
            });
            within(&name, &counts.collect::<Vec<_>>())?
        }
        Value::ByProtocol(counts) => {
            let counts = counts.metrics().into_iter();
            let counts = counts.filter(|count| !matches!(count.value, Value::Number(0)));
            let counts = counts.filter_map(|count| entry(&count));
            within(&name, &counts.collect::<Vec<_>>())?
        }
    })
}

/// Several values of one name, if there are any.
fn within(name: &str, entries: &[String]) -> Option<String> {
    (!entries.is_empty()).then(|| format!("{name} ({})", entries.join(", ")))
}

/// `512 B`, `1.5 KiB`, `128.0 MiB`.
struct Octets(u64);

impl Display for Octets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.iter().find(|(_, bits)| self.0 >> bits > 0) {
            Some((unit, bits)) => write!(f, "{:.1} {unit}", self.0 as f64 / (1_u64 << bits) as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// `64 us`, `1.0 ms`, `2.1 s`.
struct Micros(u64);

impl Display for Micros {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let value = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} us", self.0),
            1_000..1_000_000 => write!(f, "{:.1} ms", value / 1e3),
            _ => write!(f, "{:.1} s", value / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_a_unit_that_keeps_them_short() {
        assert_eq!(Octets(1023).to_string(), "1023 B");
        assert_eq!(Octets(1536).to_string(), "1.5 KiB");
        assert_eq!(Octets(128 << 20).to_string(), "128.0 MiB");
        assert_eq!(Octets(u64::MAX).to_string(), "16777216.0 TiB");
        assert_eq!(Micros(999).to_string(), "999 us");
        assert_eq!(Micros(1_024).to_string(), "1.0 ms");
        assert_eq!(Micros(2_097_152).to_string(), "2.1 s");
    }
}
