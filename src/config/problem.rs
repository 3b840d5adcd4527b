//! Mistakes in the configuration.

use std::fmt;

/// A mistake in the configuration: its place, the key, the expectation and the finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The file, or the variable of the environment.
    pub origin: String,
    /// The key with its section, or the section; empty when the origin is enough.
    pub key: String,
    pub message: String,
    /// Whether it is not a mistake, but a file that may not be read.
    pub is_denied: bool,
}

impl Problem {
    pub(super) fn new(
        origin: impl Into<String>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            origin: origin.into(),
            key: key.into(),
            message: message.into(),
            is_denied: false,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A name or value from the file as a message quotes it: on one line.
pub(crate) fn quoted(text: &str) -> String {
    text.escape_debug().to_string()
}
