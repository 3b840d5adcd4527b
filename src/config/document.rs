//! The untyped configuration: one file's sections, with the environment on top.
//!
//! `collector` and `syslog` are lists of tables (`[[collector]]`) or tables by name (`[collector.NAME]`) in every format.
//! Named ones are read in the order of their names, INI and YAML having no other order that could be relied on. Numbers in
//! variable names count in that order; one beyond the end adds an entry.

use std::collections::{BTreeMap, HashMap};

use config::{Value, ValueKind};

use super::keys::{self, KEYS, Key, Section};
use super::problem::{Problem, quoted};
use super::tree::{Table, found};

/// What every variable of the environment that configures begins with.
const PREFIX: &str = "NATTRAIL_";
/// Names the configuration file; it is for the command line to read.
pub(crate) const FILE_VARIABLE: &str = "NATTRAIL_CONFIG";

pub(super) struct Document {
    pub capture: Table,
    pub pending: Table,
    pub log: Table,
    pub control: Table,
    pub metrics: Table,
    pub collectors: Vec<Table>,
    pub syslog: Vec<Table>,
}

impl Document {
    /// Sorts what `origin` holds into sections; what has no place becomes a problem.
    pub(super) fn new(
        mut root: HashMap<String, Value>,
        origin: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut take = |section: Section| root.remove(section.name());
        let single = |section: Section, value: Option<Value>, problems: &mut Vec<Problem>| {
            let entries = value.map_or_else(HashMap::new, |value| {
                entries_of(value, section.name(), section, origin, problems)
            });
            Table::new(section, section.name().to_owned(), origin, entries)
        };
        let document = Self {
            capture: single(Section::Capture, take(Section::Capture), problems),
            pending: single(Section::Pending, take(Section::Pending), problems),
            log: single(Section::Log, take(Section::Log), problems),
            control: single(Section::Control, take(Section::Control), problems),
            metrics: single(Section::Metrics, take(Section::Metrics), problems),
            collectors: list(
                Section::Collector,
                take(Section::Collector),
                origin,
                problems,
            ),
            syslog: list(Section::Syslog, take(Section::Syslog), origin, problems),
        };
        let mut rest: Vec<_> = root.into_keys().collect();
        rest.sort();
        for name in rest {
            problems.push(Problem {
                origin: origin.to_owned(),
                key: quoted(&name),
                message: format!("unknown section, {}", section_advice(&name)),
            });
        }
        document
    }

    /// Puts the variables that begin with `NATTRAIL_` on top; others are none of our business.
    pub(super) fn overlay(
        &mut self,
        environment: impl Iterator<Item = (String, String)>,
        problems: &mut Vec<Problem>,
    ) {
        let mut variables: Vec<_> = environment
            .filter(|(name, _)| name.starts_with(PREFIX) && name != FILE_VARIABLE)
            .collect();
        variables.sort();
        let mut entries: BTreeMap<(Section, usize), Vec<(&Key, Value)>> = BTreeMap::new();
        for (name, text) in variables {
            let value = Value::new(Some(&name), text);
            match key_of_variable(&name) {
                Some((key, Some(index))) => {
                    let list = entries.entry((key.section, index)).or_default();
                    list.push((key, value));
                }
                Some((key, None)) => self.single(key.section).set(key, value),
                None => problems.push(Problem {
                    message: format!("unknown variable, {}", variable_advice(&name)),
                    key: String::new(),
                    origin: name,
                }),
            }
        }
        // In the order of the numbers, so that those beyond the end are added in their order.
        for ((section, index), values) in entries {
            let table = self.entry(section, index);
            for (key, value) in values {
                table.set(key, value);
            }
        }
    }

    fn single(&mut self, section: Section) -> &mut Table {
        match section {
            Section::Capture => &mut self.capture,
            Section::Log => &mut self.log,
            Section::Control => &mut self.control,
            Section::Metrics => &mut self.metrics,
            _ => &mut self.pending,
        }
    }

    fn entry(&mut self, section: Section, index: usize) -> &mut Table {
        let list = if section == Section::Collector {
            &mut self.collectors
        } else {
            &mut self.syslog
        };
        let index = index.min(list.len());
        if index == list.len() {
            let label = format!("{}[{index}]", section.name());
            list.push(Table::new(section, label, "environment", HashMap::new()));
        }
        &mut list[index]
    }
}

impl Table {
    fn set(&mut self, key: &Key, value: Value) {
        self.entries.insert(key.name.to_owned(), value);
    }
}

/// The name of the variable for a key; `index` for the sections that are lists.
fn variable_name(key: &Key, index: usize) -> String {
    let section = key.section.name().to_ascii_uppercase();
    let suffix = key.variable_suffix();
    if key.section.is_list() {
        format!("{PREFIX}{section}_{index}_{suffix}")
    } else {
        format!("{PREFIX}{section}_{suffix}")
    }
}

fn key_of_variable(name: &str) -> Option<(&'static Key, Option<usize>)> {
    let rest = name.strip_prefix(PREFIX)?;
    let (section, rest) = Section::ALL.into_iter().find_map(|section| {
        let upper = section.name().to_ascii_uppercase();
        let rest = rest.strip_prefix(&upper)?.strip_prefix('_')?;
        Some((section, rest))
    })?;
    let (index, rest) = if section.is_list() {
        let (digits, rest) = rest.split_once('_')?;
        (Some(digits.parse().ok()?), rest)
    } else {
        (None, rest)
    };
    let key = section.keys().find(|key| key.variable_suffix() == rest)?;
    Some((key, index))
}

fn variable_advice(name: &str) -> String {
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    let index = digits.parse().unwrap_or(0);
    let known: Vec<_> = KEYS.iter().map(|key| variable_name(key, index)).collect();
    match keys::nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}"),
        None => {
            "expected NATTRAIL_, the section, for collector and syslog a number, and the key, such as \
             NATTRAIL_CAPTURE_LOG or NATTRAIL_COLLECTOR_0_ADDRESS"
                .to_owned()
        }
    }
}

fn section_advice(name: &str) -> String {
    if let Some(near) = keys::nearest(name, Section::ALL.into_iter().map(Section::name)) {
        return format!("did you mean \"{near}\"");
    }
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!("as a key it belongs into [{}]", key.section.name());
    }
    "expected capture, pending, log, control, metrics, collector or syslog".to_owned()
}

fn entries_of(
    value: Value,
    label: &str,
    section: Section,
    origin: &str,
    problems: &mut Vec<Problem>,
) -> HashMap<String, Value> {
    match value.kind {
        ValueKind::Table(entries) => entries,
        // YAML writes a section without keys as null.
        ValueKind::Nil => HashMap::new(),
        _ => {
            problems.push(Problem {
                origin: origin.to_owned(),
                key: label.to_owned(),
                message: format!(
                    "expected a table of the keys of [{}], found {}",
                    section.name(),
                    found(&value)
                ),
            });
            HashMap::new()
        }
    }
}

fn list(
    section: Section,
    value: Option<Value>,
    origin: &str,
    problems: &mut Vec<Problem>,
) -> Vec<Table> {
    let name = section.name();
    let labelled: Vec<(String, Option<String>, Value)> = match value.map(|value| value.kind) {
        None | Some(ValueKind::Nil) => Vec::new(),
        Some(ValueKind::Array(values)) => values
            .into_iter()
            .enumerate()
            .map(|(index, value)| (format!("{name}[{index}]"), None, value))
            .collect(),
        Some(ValueKind::Table(entries)) if entries.values().all(is_table) => {
            let sorted: BTreeMap<_, _> = entries.into_iter().collect();
            sorted
                .into_iter()
                .map(|(entry, value)| (format!("{name}.{}", quoted(&entry)), Some(entry), value))
                .collect()
        }
        Some(other) => {
            let shown = match &other {
                ValueKind::Table(_) => format!("[{name}]"),
                _ => found(&Value::new(None, other)),
            };
            problems.push(Problem {
                origin: origin.to_owned(),
                key: name.to_owned(),
                message: format!("expected [[{name}]] or [{name}.NAME], found {shown}"),
            });
            Vec::new()
        }
    };
    labelled
        .into_iter()
        .map(|(label, entry, value)| {
            let mut entries = entries_of(value, &label, section, origin, problems);
            if let Some(entry) = entry {
                let named = entries.entry("name".to_owned());
                named.or_insert_with(|| Value::new(None, entry));
            }
            Table::new(section, label, origin, entries)
        })
        .collect()
}

/// A table with anything but tables in it is meant as a single entry, not as a table of entries.
fn is_table(value: &Value) -> bool {
    matches!(value.kind, ValueKind::Table(_) | ValueKind::Nil)
}
