//! Taking typed values out of a tree of untyped ones, without stopping at the first mistake.
//!
//! Every key is taken once; what is left in a section at its end is unknown. Rules that hold for every format, since INI
//! and the environment know nothing but text: a value may be written as text, a list as text with commas, and for a key
//! without default the empty text (or null) is the same as leaving it out. Mistakes are collected, each with the file
//! or variable it came from.

use std::borrow::Cow;
use std::collections::HashMap;

use config::{FileFormat, Format, Value, ValueKind};

use super::keys::{self, KEYS, Key, Preset, Section};
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
    /// What was expected; `usual` where the value itself has nothing more to the point.
    #[must_use]
    pub(crate) fn expected(self, usual: &str) -> String {
        match self {
            Self::Value => usual.to_owned(),
            Self::Expected(expected) => expected,
        }
    }
}

/// One section, or one entry of a list of sections, while its keys are taken.
pub(super) struct Table {
    pub section: Section,
    /// `capture`, `collector[0]` or `collector.NAME`.
    pub label: String,
    pub origin: String,
    pub entries: HashMap<String, Value>,
    /// Where the values taken so far came from, for mistakes that show only later.
    taken: HashMap<&'static str, String>,
}

impl Table {
    #[must_use]
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
            taken: HashMap::new(),
        }
    }

    /// The value of the key, or its preset. `None` after a mistake, which is then among the `problems`; also for a key
    /// that varies or is unset by default and was left out.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Parsed<T>,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let (key, value) = self.take_value(name, problems)?;
        let result = match text_of(&value) {
            Some(text) => parse(text.trim()),
            None => Err(Wrong::Value),
        };
        self.keep(key, &value, result, problems)
    }

    /// The same for a list.
    pub(super) fn take_list<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Parsed<T>,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<T>> {
        let (key, value) = self.take_value(name, problems)?;
        let elements = match value.kind {
            ValueKind::Array(elements) => elements,
            ValueKind::String(text) if text.trim().is_empty() => Vec::new(),
            ValueKind::String(ref text) => text
                .split(',')
                .map(|part| element(&value, part.trim()))
                .collect(),
            _ => vec![value],
        };
        let mut list = Vec::with_capacity(elements.len());
        let mut complete = true;
        for value in &elements {
            let result = match text_of(value) {
                Some(text) => parse(text.trim()),
                None => Err(Wrong::Value),
            };
            match self.keep(key, value, result, problems) {
                Some(element) => list.push(element),
                None => complete = false,
            }
        }
        complete.then_some(list)
    }

    /// Whether the key is set to something, and not yet taken.
    #[must_use]
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|value| !is_blank(value))
    }

    /// Whether the key is set, be it to the empty text, and not yet taken.
    #[must_use]
    pub(super) fn is_given(&self, name: &str) -> bool {
        let value = self.entries.get(name);
        value.is_some_and(|value| !matches!(value.kind, ValueKind::Nil))
    }

    /// Adds a mistake about a key that is right by itself, but not together with others.
    pub(super) fn conflict(
        &self,
        name: &str,
        message: impl Into<String>,
        problems: &mut Vec<Problem>,
    ) {
        let waiting = self.entries.get(name).and_then(Value::origin);
        let origin = waiting.or_else(|| self.taken.get(name).map(String::as_str));
        problems.push(Problem {
            origin: origin.unwrap_or(&self.origin).to_owned(),
            key: format!("{}.{name}", self.label),
            message: message.into(),
        });
    }

    /// Adds a mistake about a key that was left out.
    pub(super) fn missing(&self, name: &str, problems: &mut Vec<Problem>) {
        let expected = keys::find(self.section, name).map_or("a value", |key| key.expected);
        problems.push(Problem {
            origin: self.origin.clone(),
            key: format!("{}.{name}", self.label),
            message: format!("expected {expected}, found nothing"),
        });
    }

    /// Every key that nobody took is unknown.
    pub(super) fn finish(self, problems: &mut Vec<Problem>) {
        let mut rest: Vec<_> = self.entries.into_iter().collect();
        rest.sort_by(|left, right| left.0.cmp(&right.0));
        for (name, value) in rest {
            problems.push(Problem {
                origin: value.origin().unwrap_or(&self.origin).to_owned(),
                key: format!("{}.{}", self.label, quoted(&name)),
                message: format!("unknown key, {}", advice(self.section, &name)),
            });
        }
    }

    fn take_value(
        &mut self,
        name: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<(&'static Key, Value)> {
        let key = keys::find(self.section, name).expect("every key that is taken is in the table");
        let given = self.entries.remove(name);
        let given = given.filter(|value| match key.preset {
            Preset::Value(_) => !matches!(value.kind, ValueKind::Nil),
            _ => !is_blank(value),
        });
        match (given, key.preset) {
            (Some(value), _) => {
                if let Some(origin) = value.origin() {
                    self.taken.insert(key.name, origin.to_owned());
                }
                Some((key, value))
            }
            (None, Preset::Value(text)) => Some((key, literal(text))),
            (None, Preset::Required(_)) => {
                self.missing(name, problems);
                None
            }
            (None, Preset::Unset | Preset::Varies(_)) => None,
        }
    }

    fn keep<T>(
        &self,
        key: &Key,
        value: &Value,
        result: Parsed<T>,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let expected = match result {
            Ok(parsed) => return Some(parsed),
            Err(wrong) => wrong.expected(key.expected),
        };
        problems.push(Problem {
            origin: value.origin().unwrap_or(&self.origin).to_owned(),
            key: format!("{}.{}", self.label, key.name),
            message: format!("expected {expected}, found {}", found(value)),
        });
        None
    }
}

/// A value the way a message shows it.
#[must_use]
pub(super) fn found(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::String(text) => format!("\"{}\"", quoted(text)),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::Float(number) => number.to_string(),
        _ => text_of(value).unwrap_or_default().into_owned(),
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
fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match &value.kind {
        ValueKind::String(text) => Some(Cow::Borrowed(text)),
        ValueKind::Boolean(flag) => Some(flag.to_string().into()),
        ValueKind::I64(number) => Some(number.to_string().into()),
        ValueKind::I128(number) => Some(number.to_string().into()),
        ValueKind::U64(number) => Some(number.to_string().into()),
        ValueKind::U128(number) => Some(number.to_string().into()),
        ValueKind::Nil | ValueKind::Float(_) | ValueKind::Table(_) | ValueKind::Array(_) => None,
    }
}

fn element(list: &Value, text: &str) -> Value {
    Value::new(list.origin().map(str::to_owned).as_ref(), text)
}

fn advice(section: Section, name: &str) -> String {
    if let Some(near) = keys::nearest(name, section.keys().map(|key| key.name)) {
        return format!("did you mean \"{near}\"");
    }
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!("it belongs into [{}]", key.section.name());
    }
    let known: Vec<_> = section.keys().map(|key| key.name).collect();
    format!("expected one of {}", known.join(", "))
}
