//! Mistakes in the configuration, and how many of them are said.
//!
//! A file can be wrong in as many places as it has bytes, and what it calls its keys can be as long. Neither decides how
//! much is logged: at most [`MOST`] mistakes are kept, the others are counted, and what a message quotes is cut.

use std::borrow::Cow;
use std::fmt;

/// Most mistakes that are said one by one.
const MOST: usize = 50;

/// Most characters of a name or value from the file in a message.
const QUOTED: usize = 80;

/// A mistake in the configuration: where it is, which key, what was expected and what was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The file, or the variable of the environment.
    pub origin: String,
    /// The key with its section, or the section; empty where the origin says it all.
    pub key: String,
    pub message: String,
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

/// The mistakes found so far, in the order they were found.
#[derive(Debug, Default)]
pub struct Problems {
    kept: Vec<Problem>,
    beyond: usize,
}

impl Problems {
    /// Adds a mistake; it is put into words only if there is room for it.
    pub fn add(&mut self, problem: impl FnOnce() -> Problem) {
        if self.kept.len() < MOST {
            self.kept.push(problem());
        } else {
            self.beyond += 1;
        }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The mistakes, and last how many more there are in `origin`.
    #[must_use]
    pub fn into_vec(self, origin: &str) -> Vec<Problem> {
        let mut list = self.kept;
        if self.beyond > 0 {
            list.push(Problem {
                origin: origin.to_owned(),
                key: String::new(),
                message: format!("and {} more", self.beyond),
            });
        }
        list
    }
}

/// A name or value from the file as a message quotes it: without control characters, and of bounded length.
#[must_use]
pub fn quoted(text: &str) -> String {
    cut(text, QUOTED).escape_debug().to_string()
}

/// At most `limit` characters of the text; what is missing is shown as `…`.
#[must_use]
pub fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    match text.char_indices().nth(limit) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(count: usize) -> Vec<Problem> {
        let mut problems = Problems::default();
        for index in 0..count {
            problems.add(|| Problem {
                origin: "n.toml".to_owned(),
                key: format!("capture.k{index}"),
                message: "unknown key".to_owned(),
            });
        }
        problems.into_vec("n.toml")
    }

    #[test]
    fn fifty_mistakes_are_said_one_by_one() {
        assert_eq!(problems(50).len(), 50);
        assert_eq!(problems(50)[49].key, "capture.k49");
    }

    #[test]
    fn mistakes_beyond_that_are_counted() {
        let list = problems(190_000);
        assert_eq!(list.len(), 51);
        assert_eq!(list[50].to_string(), "n.toml: and 189950 more");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(quoted("log"), "log");
        assert_eq!(quoted(&"ü".repeat(80)), "ü".repeat(80));
        assert_eq!(quoted(&"ü".repeat(81)), format!("{}…", "ü".repeat(80)));
    }

    #[test]
    fn a_name_cannot_begin_a_line_of_the_log() {
        assert_eq!(quoted("a\nerror: \u{1b}[2J"), "a\\nerror: \\u{1b}[2J");
    }
}
