//! From the text of a file to sections and keys, as the crate `config` reads the four formats.
//!
//! A parser's message about a syntax error is made better only for the slips that are usual: text without quotes in TOML, a
//! line of INI that is neither a key nor a section.

use std::collections::{HashMap, HashSet};

use config::{FileFormat, Format as _, Value, ValueKind};

/// Reads the text. The error is what is wrong in it, with the line where the parser gives one.
pub(super) fn parse(format: FileFormat, text: &str) -> Result<HashMap<String, Value>, String> {
    let root = format.parse(None, text).map_err(|error| {
        let message = error.to_string();
        let better = match format {
            FileFormat::Toml => toml(text, &message),
            FileFormat::Ini => ini(text),
            _ => None,
        };
        better.unwrap_or(message)
    })?;
    match duplicate(text) {
        _ if format != FileFormat::Ini => Ok(root),
        Some(message) => Err(message),
        None => Ok(nested(root)),
    }
}

/// The message has the line and column, a drawing of the line, and then the reason.
fn toml(text: &str, message: &str) -> Option<String> {
    let place = message.strip_prefix("TOML parse error at line ")?;
    let (number, _) = place.split_once(',')?;
    let line = text.lines().nth(number.parse::<usize>().ok()? - 1)?.trim();
    let reason = message.lines().rev().find(|line| !line.is_empty())?;
    let is_value = reason.starts_with("invalid") || reason.starts_with("string");
    Some(if is_value && !line.contains(['"', '\'']) {
        format!(
            "line {number}: expected text in quotes, such as \"nat\" or [\"tcp\", \"udp\"], found {line}"
        )
    } else {
        format!("line {number}: {reason}; found {line}")
    })
}

fn ini(text: &str) -> Option<String> {
    let is_right = |line: &str| match line.chars().next() {
        None | Some(';' | '#') => true,
        Some('[') => line.contains(']'),
        Some('=' | ':') => false,
        Some(_) => line.contains(['=', ':']),
    };
    let mut lines = text.lines().map(str::trim).enumerate();
    let (index, line) = lines.find(|(_, line)| !is_right(line))?;
    let number = index + 1;
    Some(format!(
        "line {number}: expected key = value or [section], found {line}"
    ))
}

/// The crate keeps the last of two sections or keys of a name, and drops the first without a word: a copy of
/// `[collector.a]` whose name was not changed would cost a collector.
fn duplicate(text: &str) -> Option<String> {
    let mut seen = HashSet::new();
    let mut section = "";
    for (index, line) in text.lines().map(str::trim).enumerate() {
        let header = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let key = match (header, line.split_once(['=', ':'])) {
            (Some((name, _)), _) => {
                section = name.trim();
                ""
            }
            (None, Some((key, _))) if !line.starts_with([';', '#']) => key.trim(),
            _ => continue,
        };
        if !seen.insert((section, key)) {
            let number = index + 1;
            return Some(format!(
                "line {number}: expected each section and key once, found {line} again"
            ));
        }
    }
    None
}

/// INI has no tables in tables: `[collector.NAME]` is one by its name.
fn nested(mut root: HashMap<String, Value>) -> HashMap<String, Value> {
    let names: Vec<_> = root.keys().cloned().collect();
    for name in names {
        if let Some((section, entry)) = name.split_once('.')
            && let Some(value) = root.remove(&name)
        {
            let list = root.entry(section.to_owned());
            let list = list.or_insert_with(|| HashMap::<_, Value>::new().into());
            if let ValueKind::Table(entries) = &mut list.kind {
                entries.insert(entry.to_owned(), value);
            }
        }
    }
    root
}
