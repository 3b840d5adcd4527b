//! Syntax errors in words for people: which line, what was expected, what was found.
//!
//! The parsers say what their grammar misses; here the line they stop at is looked at for the slips that are usual. Where
//! it is none of these, the parser's reason stays, beside the line.

use config::{FileFormat, Format as _};

use super::problem::quoted;

/// What is wrong with the text that a parser has refused with this message, which is one line.
#[must_use]
pub fn explain(format: FileFormat, text: &str, message: String) -> String {
    let better = match format {
        FileFormat::Toml => toml(text, &message),
        FileFormat::Ini => ini(text),
        _ => None,
    };
    better.unwrap_or(message)
}

fn toml(text: &str, message: &str) -> Option<String> {
    let rest = message.strip_prefix("TOML parse error at line ")?;
    let (number, rest) = rest.split_once(", column ")?;
    let (_, reason) = rest.split_once(": ")?;
    let line = number.parse::<usize>().ok()?.checked_sub(1)?;
    let line = text.lines().nth(line)?.trim();
    Some(match unquoted_value(line) {
        Some(suggestion) => format!(
            "line {number}: expected text in quotes, {suggestion}, found {}",
            shown(line)
        ),
        None => format!("line {number}: {reason}; found {}", shown(line)),
    })
}

/// `key = "value"` for `key = value`, and the same for the elements of a list.
fn unquoted_value(line: &str) -> Option<String> {
    let (key, rest) = line.split_once('=')?;
    let value = rest.split('#').next()?.trim();
    let is_bare = |text: &str| !text.is_empty() && !text.contains(['"', '\'', '[', ']', '{', '}']);
    let is_value = |text: &str| FileFormat::Toml.parse(None, &format!("a = {text}")).is_ok();
    let put = |text: &str| {
        if is_value(text) {
            text.to_owned()
        } else {
            format!("\"{text}\"")
        }
    };
    if is_value(value) {
        return None;
    }
    let list = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let suggestion = match list {
        Some(list) => {
            let elements: Vec<_> = list.split(',').map(str::trim).collect();
            let elements = elements.into_iter().filter(|element| !element.is_empty());
            let elements: Vec<_> = elements
                .map(|text| is_bare(text).then(|| put(text)))
                .collect();
            format!(
                "[{}]",
                elements.into_iter().collect::<Option<Vec<_>>>()?.join(", ")
            )
        }
        None if is_bare(value) => put(value),
        None => return None,
    };
    let whole = format!("{} = {suggestion}", key.trim());
    let helps = FileFormat::Toml.parse(None, &whole).is_ok();
    helps.then(|| shown(&whole))
}

fn ini(text: &str) -> Option<String> {
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let expected = if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        } else if line.starts_with('[') {
            if line.contains(']') {
                continue;
            }
            "a ] behind the name of the section"
        } else {
            match line.split_once(['=', ':']) {
                Some((name, _)) if name.trim().is_empty() => "the name of a key before the =",
                Some((_, value)) if is_open(value.trim()) => "a quote at the end of the value",
                Some(_) => continue,
                None => "key = value, or a [section]",
            }
        };
        return Some(format!(
            "line {}: expected {expected}, found {}",
            index + 1,
            shown(line)
        ));
    }
    None
}

/// Whether a quote begins that does not end.
fn is_open(value: &str) -> bool {
    let rest = value.strip_prefix('"').map(|rest| (rest, '"'));
    let rest = rest.or_else(|| value.strip_prefix('\'').map(|rest| (rest, '\'')));
    rest.is_some_and(|(rest, quote)| !rest.contains(quote))
}

/// A line as a message shows it, where nothing else is in quotes.
fn shown(line: &str) -> String {
    quoted(line).replace("\\\"", "\"").replace("\\'", "'")
}
