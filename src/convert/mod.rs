//! Configurations of other programs as nattrail's (and [`leases`] as a list of subscribers): their text in, a `nattrail.toml` out, and a note for each setting
//! that has no place in it.
//!
//! Nothing is dropped silently: every setting of a file is either in the result or in a note with its line. The loader
//! always accepts the result; where that is not possible (no collector is left), the only result is a note with the
//! reason. Sans-IO: no file is opened here.

mod draft;
pub mod ipt_netflow;
pub mod leases;
pub mod nfflowd;
#[cfg(test)]
mod testing;

use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::config::{quoted, values};

/// The result of the conversion of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversion {
    /// A whole `nattrail.toml`, with the notes in comments.
    pub toml: String,
    pub notes: Vec<Note>,
}

/// A setting without an equivalent, or with an unexpected one, and an alternative.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// The line of the setting, counted from 1; 0 for a note about the file as a whole.
    line: usize,
    /// The setting by its name; empty when it has none.
    setting: String,
    message: String,
}

impl Note {
    fn new(line: usize, setting: &str, message: impl Into<String>) -> Self {
        Self {
            line,
            setting: setting.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.setting.is_empty() {
            write!(f, "{}: ", self.setting)?;
        }
        f.write_str(&self.message)
    }
}

/// One setting of a file; its name includes those of the blocks around it: `ct2ft.ttl`.
#[derive(Debug)]
struct Setting {
    name: String,
    value: String,
    line: usize,
    /// Whether the conversion has looked at it.
    seen: Cell<bool>,
}

impl Setting {
    fn note(&self, message: impl Into<String>) -> Note {
        Note::new(self.line, &self.name, message)
    }

    /// A note that its value is unexpected, and on the value used instead.
    fn unexpected(&self, expected: &str, outcome: &str) -> Note {
        let found = quoted(&self.value);
        self.note(format!("expected {expected}, found \"{found}\": {outcome}"))
    }
}

/// The settings of a file in their order.
#[derive(Debug, Default)]
struct Settings(Vec<Setting>);

impl Settings {
    fn add(&mut self, name: &str, value: &str, line: usize) {
        self.0.push(Setting {
            name: quoted(name),
            value: value.to_owned(),
            line,
            seen: Cell::new(false),
        });
    }

    /// All of this name.
    fn all(&self, name: &str) -> Vec<&Setting> {
        let all = self.0.iter().filter(|setting| setting.name == name);
        all.inspect(|setting| setting.seen.set(true)).collect()
    }

    /// The last one of this name, which overrides those before it.
    fn last(&self, name: &str, notes: &mut Vec<Note>) -> Option<&Setting> {
        let mut all = self.0.iter().rev().filter(|setting| setting.name == name);
        let last = all.next()?;
        last.seen.set(true);
        for earlier in all {
            if !earlier.seen.replace(true) {
                notes.push(earlier.note(format!("overridden in line {}", last.line)));
            }
        }
        Some(last)
    }

    /// Adds a note with the reason for each setting that the conversion has not looked at.
    fn explain_rest(&self, reason: impl Fn(&str) -> &'static str, notes: &mut Vec<Note>) {
        for setting in self.0.iter().filter(|setting| !setting.seen.get()) {
            notes.push(setting.note(reason(&setting.name)));
        }
    }
}

/// The text without the quotes around it.
fn unquoted(text: &str) -> &str {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

/// A valid destination.
fn destination(ip: IpAddr, port: u16) -> Option<SocketAddr> {
    values::destination(0)(&SocketAddr::new(ip, port).to_string()).ok()
}
