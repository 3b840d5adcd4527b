//! The step from the text of a file to sections and keys, as the crate `config` reads the four formats.
//!
//! A parser's message about a syntax error is improved only for the usual slips: text without quotes in TOML, and a
//! line of INI that is neither a key nor a section.

use std::collections::{HashMap, HashSet};

use config::{FileFormat, Format as _, Value, ValueKind};

/// Reads the text. The error names the fault, with its line if the parser gives one.
pub(super) fn parse(format: FileFormat, text: &str) -> Result<HashMap<String, Value>, String> {
    // JSON's parser keeps the last of two keys of a name, too. To YAML, of which JSON is a part, they are a mistake.
    if format == FileFormat::Json
        && let Err(error) = FileFormat::Yaml.parse(None, text)
        && error.to_string().contains("duplicated")
    {
        return Err(error.to_string());
    }
    match format.parse(None, text) {
        Ok(root) if format == FileFormat::Toml => Ok(placed(root, text)),
        Ok(root) if format != FileFormat::Ini => Ok(root),
        Ok(root) => ini(text, true).map_or_else(|| Ok(nested(root)), Err),
        Err(error) => {
            let message = error.to_string();
            let better = match format {
                FileFormat::Toml => toml(text, &message),
                FileFormat::Ini => ini(text, false),
                _ => None,
            };
            Err(better.unwrap_or(message))
        }
    }
}

/// Gives the entries of lists the lines of their headings as origins, which the parser does not provide.
fn placed(mut root: HashMap<String, Value>, text: &str) -> HashMap<String, Value> {
    for (name, value) in &mut root {
        let heading = format!("[[{name}]]");
        let lines = text.lines().zip(1..);
        let lines = lines.filter(|(line, _)| line.trim().starts_with(&heading));
        match &mut value.kind {
            ValueKind::Array(entries) if entries.len() == lines.clone().count() => {
                for (entry, (_, number)) in entries.iter_mut().zip(lines) {
                    let line = format!("line {number}");
                    *entry = Value::new(Some(&line), entry.kind.clone());
                }
            }
            _ => {}
        }
    }
    root
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

/// The crate keeps the last of two sections or keys of a name, and silently drops the first: a copy of `[collector.a]`
/// with an unchanged name would cost a collector.
fn ini(text: &str, is_parsed: bool) -> Option<String> {
    let mut seen = HashSet::new();
    let mut section = "";
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        let key = match line.strip_prefix('[').map(|rest| rest.split_once(']')) {
            _ if line.is_empty() || line.starts_with([';', '#']) => continue,
            Some(Some((name, _))) => {
                section = name.trim();
                Some("")
            }
            Some(None) => None,
            None => {
                let key = line.split_once(['=', ':']).map(|(key, _)| key.trim());
                key.filter(|key| !key.is_empty())
            }
        };
        let expected = match key {
            Some(key) if seen.insert((section, key)) => continue,
            Some(_) => format!("each section and key once, found {line} again"),
            // The parser knows better, for example when a value continues on the next line.
            None if is_parsed => continue,
            None => format!("key = value or [section], found {line}"),
        };
        return Some(format!("line {number}: expected {expected}"));
    }
    None
}

/// INI has no tables in tables: the name of `[collector.NAME]` makes it one.
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
