//! Taking typed values out of a tree of untyped ones, without stopping at the first mistake.
//!
//! These rules hold for every format, since INI and the environment have only text: a value may be written as text, a
//! list as text with commas, and for a key without default the empty text (or null) is the same as leaving it out.
//! Mistakes are collected, each with its file or variable.

use std::collections::HashMap;

use config::{Value, ValueKind};

use super::keys::{self, Key, Preset, Section};
use super::problem::{Problem, quoted};

/// The error is the expectation; `None` for the one in the table of keys.
pub(super) type Parsed<T> = Result<T, Option<String>>;

/// Makes a struct of fields that are `None` after a mistake. It evaluates all of them first, to find each mistake.
macro_rules! every {
    ($type:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {{
        $($(let $field = $value;)?)*
        match ($($field,)*) {
            ($(Some($field),)*) => Some($type { $($field),* }),
            _ => None,
        }
    }};
}
pub(super) use every;

/// One section, or one entry of a list of sections.
pub(super) struct Table {
    section: Section,
    /// `capture`, `collector[0]` or `collector.NAME`.
    pub label: String,
    origin: String,
    pub entries: HashMap<String, Value>,
    /// The mistakes found so far.
    pub problems: Vec<Problem>,
}

impl Table {
    pub(super) fn new(section: Section, label: String, origin: &str, value: Value) -> Self {
        let mut problems = Vec::new();
        let entries = match value.kind {
            ValueKind::Table(entries) => entries,
            // YAML writes a section without keys as null.
            ValueKind::Nil => HashMap::new(),
            _ => {
                let (name, found) = (section.name(), found(&value));
                let message = format!("expected a table of the keys of [{name}], found {found}");
                problems.push(Problem::new(origin, &label, message));
                HashMap::new()
            }
        };
        Self {
            section,
            label,
            origin: origin.to_owned(),
            entries,
            problems,
        }
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.entries.insert(name.to_owned(), value.into());
    }

    /// Sets a key that was left out.
    pub(super) fn set_default(&mut self, name: &str, value: impl Into<Value>) {
        if self.given(self.key(name)).is_none() {
            self.set(name, value);
        }
    }

    /// The value of the key, or its preset. `None` after a mistake, which is then among the `problems`; also for a key
    /// without a preset value that is not set.
    pub(super) fn take<T>(&mut self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let (key, value) = self.value(name)?;
        self.parsed(key, &value, parse)
    }

    /// The same for a list.
    pub(super) fn take_list<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<Vec<T>> {
        let (key, value) = self.value(name)?;
        let elements = match value.kind {
            ValueKind::Array(elements) => elements,
            ValueKind::String(text) if text.trim().is_empty() => Vec::new(),
            ValueKind::String(text) => text.split(',').map(|part| part.trim().into()).collect(),
            _ => vec![value],
        };
        // All elements are parsed, to find each mistake.
        let parsed: Vec<_> = elements
            .iter()
            .map(|element| self.parsed(key, element, &parse))
            .collect();
        parsed.into_iter().collect()
    }

    /// The value of a key that inherits another one's unless it is set. Here, the empty text is a value.
    pub(super) fn take_or<T: Clone>(
        &mut self,
        name: &str,
        inherited: &T,
        take: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) -> Option<T> {
        match self.given(self.key(name)) {
            Some(_) => take(self, name),
            None => Some(inherited.clone()),
        }
    }

    /// Whether the key is set to something.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|value| !is_blank(value))
    }

    /// Adds a mistake if the key is set to a value that is valid by itself, but wrong together with others.
    pub(super) fn refuse_if(&mut self, is_wrong: bool, name: &str, expected: &str) {
        if is_wrong && self.is_set(name) {
            self.refuse(name, expected);
        }
    }

    /// Adds a mistake: the value, or its absence, contradicts the table of keys.
    pub(super) fn refuse_value(&mut self, name: &str) {
        self.refuse(name, self.key(name).expected);
    }

    fn refuse(&mut self, name: &str, expected: &str) {
        let found = self.entries.get(name).map_or("nothing".to_owned(), found);
        self.complain(name, format!("expected {expected}, found {found}"));
    }

    /// Adds a mistake about a key, with its own message.
    pub(super) fn complain(&mut self, name: &str, message: String) {
        let origin = self.entries.get(name).and_then(Value::origin);
        let key = format!("{}.{}", self.label, quoted(name));
        let problem = Problem::new(origin.unwrap_or(&self.origin), key, message);
        self.problems.push(problem);
    }

    /// Adds a mistake for every unknown key.
    pub(super) fn finish(&mut self) {
        let known: Vec<_> = self.section.keys().iter().map(|key| key.name).collect();
        let names = self.entries.keys().cloned();
        let mut unknown: Vec<_> = names
            .filter(|name| !known.contains(&name.as_str()))
            .collect();
        unknown.sort();
        for name in unknown {
            let advice = keys::advice(&name, &known);
            self.complain(&name, format!("unknown key, {advice}"));
        }
    }

    fn key(&self, name: &str) -> &'static Key {
        let mut keys = self.section.keys().iter();
        keys.find(|key| key.name == name)
            .expect("every key that the program asks for is in the table of keys")
    }

    /// The value of the key, if it was set. The empty text is a value only where the default is another value.
    fn given(&self, key: &Key) -> Option<&Value> {
        let value = self.entries.get(key.name)?;
        let is_given = match key.preset {
            Preset::Value(_) | Preset::Inherited(_) => !matches!(value.kind, ValueKind::Nil),
            _ => !is_blank(value),
        };
        is_given.then_some(value)
    }

    fn value(&mut self, name: &str) -> Option<(&'static Key, Value)> {
        let key = self.key(name);
        let value = match (self.given(key), key.preset) {
            (Some(value), _) => value.clone(),
            (None, Preset::Value(text)) => {
                serde_json::from_str(text).expect("every preset is a value in JSON as in TOML")
            }
            (None, Preset::Required(_)) => {
                self.refuse_value(name);
                return None;
            }
            (None, Preset::Unset | Preset::Varies(_) | Preset::Inherited(_)) => return None,
        };
        Some((key, value))
    }

    fn parsed<T>(
        &mut self,
        key: &Key,
        value: &Value,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<T> {
        let text = text_of(value).ok_or(None);
        let expected = match text.and_then(|text| parse(text.trim())) {
            Ok(parsed) => return Some(parsed),
            Err(expected) => expected.unwrap_or_else(|| key.expected.to_owned()),
        };
        let message = format!("expected {expected}, found {}", found(value));
        self.complain(key.name, message);
        None
    }
}

/// A value as messages show it.
pub(super) fn found(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::String(text) => format!("\"{}\"", quoted(text)),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(found).collect();
            format!("[{}]", elements.join(", "))
        }
        scalar => scalar.to_string(),
    }
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
