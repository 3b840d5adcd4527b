//! Taking typed values out of a tree of untyped ones, without stopping at the first mistake.
//!
//! Rules that hold for every format, since INI and the environment know nothing but text: a value may be written as text, a
//! list as text with commas, and for a key without default the empty text (or null) is the same as leaving it out. Mistakes
//! are collected, each with the file or variable it came from.

use std::collections::HashMap;

use config::{FileFormat, Format, Value, ValueKind};

use super::keys::{self, Key, Preset, Section};
use super::problem::{Problem, quoted};

/// Why a text is not a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Wrong {
    /// It is not what the key's table entry says it must be.
    Value,
    /// It is not this, which is more to the point than the table entry.
    Expected(String),
}

pub(super) type Parsed<T> = Result<T, Wrong>;

impl Wrong {
    /// The expectation; `usual` where the value itself has nothing more to the point.
    pub(crate) fn expected(self, usual: &str) -> String {
        match self {
            Self::Value => usual.to_owned(),
            Self::Expected(expected) => expected,
        }
    }
}

/// One section, or one entry of a list of sections.
pub(super) struct Table {
    pub section: Section,
    /// `capture`, `collector[0]` or `collector.NAME`.
    pub label: String,
    pub origin: String,
    pub entries: HashMap<String, Value>,
}

impl Table {
    pub(super) fn new(
        section: Section,
        label: String,
        origin: &str,
        entries: HashMap<String, Value>,
    ) -> Self {
        Self {
            section,
            label,
            origin: origin.to_owned(),
            entries,
        }
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.entries.insert(name.to_owned(), value);
    }

    /// The value of the key, or its preset. `None` after a mistake, which is then among the `problems`; also for a key
    /// that varies or is unset by default and was left out.
    pub(super) fn take<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Parsed<T>,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let (key, value) = self.value(name, problems)?;
        self.parsed(key, &value, parse, problems)
    }

    /// The same for a list.
    pub(super) fn take_list<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Parsed<T>,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<T>> {
        let (key, value) = self.value(name, problems)?;
        let elements = match &value.kind {
            ValueKind::Array(elements) => elements.clone(),
            ValueKind::String(text) if text.trim().is_empty() => Vec::new(),
            ValueKind::String(text) => {
                let origin = value.origin().map(str::to_owned);
                let parts = text.split(',');
                parts
                    .map(|part| Value::new(origin.as_ref(), part.trim()))
                    .collect()
            }
            _ => vec![value],
        };
        // Of all of them, to find each mistake.
        let parsed: Vec<_> = elements
            .iter()
            .map(|element| self.parsed(key, element, &parse, problems))
            .collect();
        parsed.into_iter().collect()
    }

    /// Whether the key is set to something.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|value| !is_blank(value))
    }

    /// Whether the key is set, be it to the empty text.
    pub(super) fn is_given(&self, name: &str) -> bool {
        let value = self.entries.get(name);
        value.is_some_and(|value| !matches!(value.kind, ValueKind::Nil))
    }

    /// Adds a mistake about a key: one that is right by itself, but not together with others, or has no value.
    pub(super) fn conflict(
        &self,
        name: &str,
        message: impl Into<String>,
        problems: &mut Vec<Problem>,
    ) {
        let origin = self.entries.get(name).and_then(Value::origin);
        problems.push(Problem::new(
            origin.unwrap_or(&self.origin),
            format!("{}.{}", self.label, quoted(name)),
            message,
        ));
    }

    /// Adds a mistake about a key that was left out.
    pub(super) fn missing(&self, name: &str, problems: &mut Vec<Problem>) {
        let expected = self
            .section
            .find(name)
            .map_or("a value", |key| key.expected);
        self.conflict(
            name,
            format!("expected {expected}, found nothing"),
            problems,
        );
    }

    /// Names every key that there is not.
    pub(super) fn finish(&self, problems: &mut Vec<Problem>) {
        let names = self.entries.keys();
        let mut unknown: Vec<_> = names
            .filter(|name| self.section.find(name).is_none())
            .collect();
        unknown.sort();
        for name in unknown {
            let advice = advice(self.section, name);
            self.conflict(name, format!("unknown key, {advice}"), problems);
        }
    }

    fn value(&self, name: &str, problems: &mut Vec<Problem>) -> Option<(&'static Key, Value)> {
        let key = self
            .section
            .find(name)
            .expect("every key that is taken is in the table");
        let given = match key.preset {
            Preset::Value(_) => self.is_given(name),
            _ => self.is_set(name),
        };
        let value = match key.preset {
            _ if given => self.entries.get(name).cloned()?,
            Preset::Value(text) => literal(text),
            Preset::Required(_) => {
                self.missing(name, problems);
                return None;
            }
            Preset::Unset | Preset::Varies(_) => return None,
        };
        Some((key, value))
    }

    fn parsed<T>(
        &self,
        key: &Key,
        value: &Value,
        parse: impl Fn(&str) -> Parsed<T>,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let text = text_of(value).ok_or(Wrong::Value);
        let wrong = match text.and_then(|text| parse(text.trim())) {
            Ok(parsed) => return Some(parsed),
            Err(wrong) => wrong.expected(key.expected),
        };
        let message = format!("expected {wrong}, found {}", found(value));
        self.conflict(key.name, message, problems);
        None
    }
}

/// A value the way a message shows it.
pub(super) fn found(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::String(text) => format!("\"{}\"", quoted(text)),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        scalar => scalar.to_string(),
    }
}

/// A value written in TOML's notation in the table of keys.
fn literal(text: &str) -> Value {
    let mut document = FileFormat::Toml
        .parse(None, &format!("value = {text}"))
        .expect("every preset in the table is a TOML value");
    document
        .remove("value")
        .expect("the line above assigns this key")
}

fn is_blank(value: &Value) -> bool {
    match &value.kind {
        ValueKind::Nil => true,
        ValueKind::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

/// Scalars have one text in every format; a fraction, a list and a table have none.
fn text_of(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::Nil | ValueKind::Float(_) | ValueKind::Table(_) | ValueKind::Array(_) => None,
        scalar => Some(scalar.to_string()),
    }
}

fn advice(section: Section, name: &str) -> String {
    let known = || section.keys().iter().map(|key| key.name);
    if let Some(near) = keys::nearest(name, known()) {
        return format!("did you mean \"{near}\"");
    }
    if let Some(key) = keys::all().find(|key| key.name == name) {
        return format!("it belongs into [{}]", key.section.name());
    }
    format!("expected one of {}", known().collect::<Vec<_>>().join(", "))
}
