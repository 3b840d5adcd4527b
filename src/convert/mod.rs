//! Configurations of other programs as nattrail's: their text in, a `nattrail.toml` out, and a note for each thing they say
//! that has no place in it.
//!
//! Nothing is dropped silently: whatever a file says is either in the result or in a note with its line. The result is
//! always one that the loader accepts; where that is not possible (no collector is left), there is no result but an
//! [`Unfit`]. Sans-IO: no file is opened here.

mod draft;
mod general;
pub(crate) mod ipt_netflow;
pub(crate) mod nfflowd;
#[cfg(test)]
mod testing;

use std::fmt;

use self::draft::Draft;

/// What became of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conversion {
    /// A whole `nattrail.toml`, with the notes in comments.
    pub toml: String,
    pub notes: Vec<Note>,
}

/// Something that has no equivalent, or another one than it seems, and what to do instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Note {
    /// Where it is said, counted from 1; 0 for what the file as a whole says, or does not say.
    pub line: usize,
    /// The option by its name; empty where it has none.
    pub option: String,
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.option.is_empty() {
            write!(f, "{}: ", self.option)?;
        }
        f.write_str(&self.message)
    }
}

/// Why nothing can be made of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Unfit(pub Note);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unfit {}

impl Unfit {
    fn new(line: usize, option: &str, message: impl Into<String>) -> Self {
        Self(Note {
            line,
            option: option.to_owned(),
            message: message.into(),
        })
    }
}

/// The notes so far.
#[derive(Debug, Default)]
struct Notes(Vec<Note>);

impl Notes {
    fn add(&mut self, line: usize, option: &str, message: impl Into<String>) {
        self.0.push(Unfit::new(line, option, message).0);
    }

    /// The result, with the notes in the order of the file.
    fn conclude(mut self, origin: &str, draft: &Draft) -> Conversion {
        self.0.sort_by_key(|note| note.line);
        Conversion {
            toml: draft.finish(origin, &self.0),
            notes: self.0,
        }
    }
}
