//! The untyped configuration: one file's sections, with the environment on top.
//!
//! `collector`, `syslog` and `monitor` are lists of tables (`[[collector]]`) or tables by name (`[collector.NAME]`) in every
//! format. Named ones are read in the order of their names, as INI and YAML have no other reliable order. Numbers in variable
//! names count in that order; one beyond the end adds an entry.

use std::collections::{BTreeMap, HashMap};

use config::{Value, ValueKind};

use super::keys::{self, Key, Section};
use super::problem::{Problem, quoted};
use super::tree::{Table, found};

/// The prefix of all environment variables that configure nattrail.
const PREFIX: &str = "NATTRAIL_";
/// The variable that names the configuration file, which the command line reads.
pub(crate) const FILE_VARIABLE: &str = "NATTRAIL_CONFIG";

pub(super) struct Document {
    /// The tables of each section: exactly one, even if empty, for a section that is no list.
    sections: BTreeMap<Section, Vec<Table>>,
    /// Mistakes that belong to no table.
    problems: Vec<Problem>,
}

impl Document {
    /// Sorts the content of `origin` into sections; anything without a place becomes a problem.
    pub(super) fn new(mut root: HashMap<String, Value>, origin: &str) -> Self {
        let mut problems = Vec::new();
        let mut sections = BTreeMap::new();
        for section in Section::ALL {
            let value = root
                .remove(section.name())
                .unwrap_or_else(|| ValueKind::Nil.into());
            let tables = if section.is_list() {
                list(section, value, origin, &mut problems)
            } else {
                let label = section.name().to_owned();
                vec![Table::new(section, label, origin, value)]
            };
            sections.insert(section, tables);
        }
        let mut rest: Vec<_> = root.into_keys().collect();
        rest.sort();
        for name in rest {
            let advice = keys::advice(&name, &Section::ALL.map(Section::name));
            let message = format!("unknown section, {advice}");
            problems.push(Problem::new(origin, quoted(&name), message));
        }
        Self { sections, problems }
    }

    /// The entries of a list.
    pub(super) fn list(&mut self, section: Section) -> &mut Vec<Table> {
        self.sections.entry(section).or_default()
    }

    /// The table of a section that is no list.
    pub(super) fn single(&mut self, section: Section) -> &mut Table {
        self.entry(section, 0)
    }

    /// Puts the variables that begin with `NATTRAIL_` on top; others are ignored.
    pub(super) fn overlay(&mut self, environment: &BTreeMap<String, String>) {
        // The order is that of the numbers, in which those beyond the end are added.
        let mut entries: BTreeMap<(Section, usize), Vec<_>> = BTreeMap::new();
        for (name, text) in environment {
            if !name.starts_with(PREFIX) || name == FILE_VARIABLE {
                continue;
            }
            let Some((key, index)) = key_of_variable(name) else {
                let message = format!("unknown variable, {}", variable_advice(name));
                self.problems.push(Problem::new(quoted(name), "", message));
                continue;
            };
            let values = entries.entry((key.section, index)).or_default();
            values.push((key.name, Value::new(Some(name), text.as_str())));
        }
        for ((section, index), values) in entries {
            let table = self.entry(section, index);
            for (name, value) in values {
                table.set(name, value);
            }
        }
    }

    /// The entry with that number; a new one for a number beyond the end.
    pub(super) fn entry(&mut self, section: Section, index: usize) -> &mut Table {
        let list = self.list(section);
        let index = index.min(list.len());
        if index == list.len() {
            let label = format!("{}[{index}]", section.name());
            list.push(Table::new(
                section,
                label,
                "environment",
                ValueKind::Nil.into(),
            ));
        }
        &mut list[index]
    }

    /// All mistakes, in the order of the sections.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let tables = self.sections.into_values().flatten();
        let found = tables.flat_map(|table| table.problems);
        self.problems.into_iter().chain(found).collect()
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

fn key_of_variable(name: &str) -> Option<(&'static Key, usize)> {
    let (section, rest) = name.strip_prefix(PREFIX)?.split_once('_')?;
    let numbered = || {
        let (digits, suffix) = rest.split_once('_')?;
        Some((digits.parse().ok()?, suffix))
    };
    keys::all().find_map(|key| {
        let is_list = key.section.is_list();
        let (index, suffix) = if is_list { numbered()? } else { (0, rest) };
        let is_key = key.section.name().to_ascii_uppercase() == section;
        (is_key && key.variable_suffix() == suffix).then_some((key, index))
    })
}

fn variable_advice(name: &str) -> String {
    let mut words = name.split('_').skip(2);
    let index = words.find_map(|word| word.parse().ok()).unwrap_or(0);
    let known: Vec<_> = keys::all().map(|key| variable_name(key, index)).collect();
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    match keys::nearest(name, &known) {
        Some(near) => format!("did you mean {near}"),
        None => {
            "expected NATTRAIL_, the section, for collector and syslog a number, and the key, such as \
             NATTRAIL_CAPTURE_LOG or NATTRAIL_COLLECTOR_0_ADDRESS"
                .to_owned()
        }
    }
}

/// The entries of a list, one by one or by name.
fn list(section: Section, value: Value, origin: &str, problems: &mut Vec<Problem>) -> Vec<Table> {
    let name = section.name();
    let table = |label, value| Table::new(section, label, origin, value);
    match value.kind {
        ValueKind::Nil => Vec::new(),
        ValueKind::Array(values) => {
            let values = values.into_iter().enumerate();
            values
                .map(|(index, value)| {
                    let line = value.origin().map(|line| format!("{origin}: {line}"));
                    let label = format!("{name}[{index}]");
                    Table::new(section, label, line.as_deref().unwrap_or(origin), value)
                })
                .collect()
        }
        ValueKind::Table(entries) if entries.values().all(is_table) => {
            let sorted: BTreeMap<_, _> = entries.into_iter().collect();
            let named = sorted.into_iter().map(|(entry, value)| {
                let mut table = table(format!("{name}.{}", quoted(&entry)), value);
                let own = table.entries.entry("name".to_owned());
                own.or_insert_with(|| entry.into());
                table
            });
            named.collect()
        }
        _ => {
            let shown = match &value.kind {
                ValueKind::Table(_) => format!("[{name}]"),
                _ => found(&value),
            };
            let message = format!("expected [[{name}]] or [{name}.NAME], found {shown}");
            problems.push(Problem::new(origin, name, message));
            Vec::new()
        }
    }
}

/// A table that holds anything but tables is a single entry, not a table of entries.
fn is_table(value: &Value) -> bool {
    matches!(value.kind, ValueKind::Table(_) | ValueKind::Nil)
}
