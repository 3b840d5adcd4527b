//! The metrics in Prometheus' text format, version 0.0.4, with names and units by its guides: base units (seconds, bytes),
//! `_total` for counters, a label for each dimension, no times.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::section::{Kind, Metric, Section, Value};
use super::{Histogram, Metrics, State, Time};

/// The content type of this format in HTTP.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The samples by the name of their metric: those of one stand together.
#[derive(Default)]
struct Families(BTreeMap<String, Family>);

struct Family {
    name: String,
    /// Its description and its samples.
    text: String,
}

/// Labels and their values.
type Labels<'a> = [(&'a str, &'a str)];

impl Metrics {
    /// All that Prometheus is to know, a line for each sample.
    pub(crate) fn to_prometheus(&self) -> String {
        let mut families = Families::default();
        let version = [("version", self.version.as_str())];
        let info = families.family("nattrail_build_info", "gauge", "The version that runs");
        info.sample("", &version, 1);
        let help = "When the daemon started, in seconds since 1970";
        let start = families.family("nattrail_start_time_seconds", "gauge", help);
        start.sample("", &[], seconds(self.started));
        for (cause, gaps) in &self.gaps {
            families.add(gaps, &[("cause", cause)]);
        }
        for section in self.sections() {
            families.add(section, &[]);
        }
        let families = families.0.into_values();
        families.map(|family| family.text).collect()
    }
}

impl Families {
    fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Family {
        let family = self.0.entry(name.to_owned());
        family.or_insert_with(|| Family {
            name: name.to_owned(),
            text: format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
        })
    }

    /// All of a section with these labels, and those that are in it.
    fn add(&mut self, section: &dyn Section, labels: &Labels<'_>) {
        let metrics = section.metrics();
        let own = metrics.iter().filter_map(|metric| match metric.value {
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
                self.family(&name, kind, metric.help).add(metric, &labels);
            }
        }
    }
}

impl Family {
    fn add(&mut self, metric: &Metric<'_>, labels: &Labels<'_>) {
        match metric.value {
            Value::Number(number) | Value::Octets(number) => self.sample("", labels, number),
            Value::Micros(micros) => self.sample("", labels, *micros as f64 / 1e6),
            Value::Flag(flag) => self.sample("", labels, u8::from(*flag)),
            Value::Moment(moment) => self.sample("", labels, moment.map_or(0.0, seconds)),
            Value::Histogram(histogram) => self.add_histogram(histogram, labels),
            Value::State(state) => {
                for other in State::ALL {
                    let labels = [labels, &[("state", other.name())]].concat();
                    self.sample("", &labels, u8::from(*state == other));
                }
            }
            Value::ByProtocol(counts) => {
                for count in counts.metrics() {
                    let labels = [labels, &[("protocol", count.name)]].concat();
                    self.add(&count, &labels);
                }
            }
            Value::Rate(_) | Value::Word(_) => {}
        }
    }

    /// Buckets count what took as long or less.
    fn add_histogram(&mut self, Histogram(buckets): &Histogram, labels: &Labels<'_>) {
        let (mut count, mut nanos) = (0, 0);
        for bucket in buckets {
            count += bucket.count;
            nanos += bucket.total_nanoseconds;
            if let Some(below) = bucket.below_microseconds {
                let bound = (below as f64 / 1e6).to_string();
                self.sample("_bucket", &[labels, &[("le", &bound)]].concat(), count);
            }
        }
        self.sample("_bucket", &[labels, &[("le", "+Inf")]].concat(), count);
        self.sample("_sum", labels, nanos as f64 / 1e9);
        self.sample("_count", labels, count);
    }

    fn sample(&mut self, suffix: &str, labels: &Labels<'_>, value: impl Display) {
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
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{}{suffix}{labels} {value}", self.name);
    }
}

/// `nattrail_`, the section, what it is, its unit; `_total` where it is a counter.
fn name_of(section: &str, metric: &Metric<'_>) -> String {
    let stem = match metric.stem() {
        // How many of what the section is about.
        "count" => "",
        stem => stem,
    };
    let stem = stem.replace("histogram", "duration");
    let unit = match metric.value {
        Value::Octets(_) => "bytes",
        Value::Micros(_) | Value::Histogram(_) => "seconds",
        Value::Moment(_) => "timestamp_seconds",
        _ => "",
    };
    let total = match metric.kind {
        Kind::counter => "total",
        _ => "",
    };
    let parts = ["nattrail", section, &stem, unit, total];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("_")
}

fn seconds(Time(time): Time) -> f64 {
    time.as_millis() as f64 / 1e3
}
