//! The metrics in Prometheus' text format, version 0.0.4, with names and units by its guides: base units (seconds, bytes),
//! `_total` for counters, a label for each dimension, no times.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::section::{Kind, Metric, Section, Value};
use super::{Histogram, Metrics, State};
use crate::time::Wall;

/// The content type of this format in HTTP.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Descriptions and samples by the name of their metric: those of one metric must stand together.
#[derive(Default)]
struct Families(BTreeMap<String, String>);

/// Labels and their values.
type Labels<'a> = [(&'a str, &'a str)];

impl Metrics {
    /// All metrics for Prometheus, a line for each sample.
    pub(crate) fn to_prometheus(&self) -> String {
        let mut families = Families::default();
        let version = [("version", self.version.as_str())];
        let (info, help) = ("nattrail_build_info", "The version that runs");
        families.describe(info, "gauge", help);
        families.sample(info, "", &version, 1.0);
        let start = "nattrail_start_time_seconds";
        let help = "When the daemon started, in seconds since 1970";
        families.describe(start, "gauge", help);
        families.sample(start, "", &[], seconds(self.started));
        for (cause, gaps) in &self.gaps {
            families.add_section(gaps, &[("cause", cause)]);
        }
        for section in self.sections() {
            families.add_section(section, &[]);
        }
        families.0.into_values().collect()
    }
}

impl Families {
    fn describe(&mut self, name: &str, kind: &str, help: &str) {
        let family = self.0.entry(name.to_owned());
        family.or_insert_with(|| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Adds all metrics of a section with these labels and the section's own.
    fn add_section(&mut self, section: &dyn Section, labels: &Labels<'_>) {
        let metrics = section.metrics();
        let labels_of = metrics.iter().filter(|metric| metric.kind == Kind::label);
        let own = labels_of.filter_map(|metric| match metric.value {
            Value::Word(word) if metric.name == "name" => Some((section.name(), word.as_str())),
            Value::Word(word) => Some((metric.name, word.as_str())),
            _ => None,
        });
        let labels: Vec<_> = labels.iter().copied().chain(own).collect();
        for metric in &metrics {
            let kind = match metric.kind {
                Kind::counter => "counter",
                Kind::gauge => "gauge",
                Kind::histogram => "histogram",
                Kind::label | Kind::detail => continue,
            };
            // A metric without a sample would be a mistake.
            if !matches!(metric.value, Value::Moment(None)) {
                let name = name_of(section.name(), metric);
                self.describe(&name, kind, metric.help);
                self.add(&name, metric, &labels);
            }
        }
    }

    fn add(&mut self, name: &str, metric: &Metric<'_>, labels: &Labels<'_>) {
        let value = match metric.value {
            Value::Number(number) | Value::Octets(number) => *number as f64,
            Value::Micros(micros) => *micros as f64 / 1e6,
            Value::Flag(flag) => f64::from(u8::from(*flag)),
            Value::Moment(moment) => moment.map_or(0.0, seconds),
            Value::Histogram(histogram) => return self.add_histogram(name, histogram, labels),
            Value::State(state) => {
                for other in State::ALL {
                    let labels = [labels, &[("state", other.name())]].concat();
                    self.sample(name, "", &labels, f64::from(u8::from(*state == other)));
                }
                return;
            }
            Value::ByProtocol(counts) => {
                for count in counts.metrics() {
                    let labels = [labels, &[("protocol", count.name)]].concat();
                    self.add(name, &count, &labels);
                }
                return;
            }
            Value::Rate(_) | Value::Word(_) => return,
        };
        self.sample(name, "", labels, value);
    }

    /// A bucket of Prometheus counts all shorter observations too.
    fn add_histogram(&mut self, name: &str, Histogram(buckets): &Histogram, labels: &Labels<'_>) {
        let (mut count, mut nanos) = (0, 0);
        for bucket in buckets {
            count += bucket.count;
            nanos += bucket.total_nanoseconds;
            let bound = match bucket.below_microseconds {
                Some(below) => (below as f64 / 1e6).to_string(),
                None => "+Inf".to_owned(),
            };
            let labels = [labels, &[("le", &bound)]].concat();
            self.sample(name, "_bucket", &labels, count as f64);
        }
        self.sample(name, "_sum", labels, nanos as f64 / 1e9);
        self.sample(name, "_count", labels, count as f64);
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &Labels<'_>, value: f64) {
        let escaped = |value: &str| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            value.replace('\n', "\\n")
        };
        let label = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
        let labels: Vec<_> = labels.iter().map(label).collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let text = self.0.entry(name.to_owned()).or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}{suffix}{labels} {value}");
    }
}

/// `nattrail_`, the section, the stem, the unit, and `_total` for a counter.
fn name_of(section: &str, metric: &Metric<'_>) -> String {
    let stem = match metric.stem() {
        // The section's name says what is counted.
        "count" => "",
        stem => stem,
    };
    let total = match metric.kind {
        Kind::counter => "total",
        _ => "",
    };
    let mut parts = vec!["nattrail", section, stem, metric.value.unit().1, total];
    parts.retain(|part| !part.is_empty());
    parts.join("_")
}

fn seconds(time: Wall) -> f64 {
    time.as_millis() as f64 / 1e3
}
