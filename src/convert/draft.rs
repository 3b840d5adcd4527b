//! A `nattrail.toml` in the making: sections, keys and comments (TOML 1.0).

use serde_json::Value;

use super::{Conversion, Note};
use crate::config::quoted;

/// The column at which comments are broken.
const WIDTH: usize = 118;

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub body: String,
    pub notes: Vec<Note>,
}

impl Draft {
    /// Begins a section, `[capture]` or `[[collector]]`.
    pub(super) fn section(&mut self, header: &str) {
        self.body += &format!("\n{header}\n");
    }

    /// TOML and JSON write numbers, strings and lists alike, except for one character that JSON does not escape.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into().to_string().replace('\u{7f}', "\\u007F");
        self.body += &format!("{key} = {value}\n");
    }

    /// A comment about the key that follows.
    pub(super) fn remark(&mut self, text: &str) {
        self.body += &comment(text);
    }

    /// The whole text, which names its origin and lists, in the order of that file, the settings that it lacks.
    pub(super) fn conclude(self, origin: &str) -> Conversion {
        let Self { body, mut notes } = self;
        notes.sort_by_key(|note| note.line);
        let version = env!("CARGO_PKG_VERSION");
        let mut toml = comment(&format!(
            "Converted from {} by nattrail {version}. Check it with \"nattrail check\"; every key is explained in nattrail.toml(5).",
            quoted(origin)
        ));
        if !notes.is_empty() {
            toml += "#\n# Settings without an equivalent, or with an unexpected one:\n";
        }
        for note in &notes {
            let note = note.to_string();
            let (text, verbatim) = note.split_once('\n').unwrap_or((&note, ""));
            toml += &wrapped(text, "# -", "#  ");
            toml.extend(verbatim.lines().map(|line| format!("#   {line}\n")));
        }
        toml += &body;
        Conversion { toml, notes }
    }
}

/// Comment lines of a bounded width. No character in them can end the comment.
fn comment(text: &str) -> String {
    wrapped(text, "#", "#")
}

fn wrapped(text: &str, first: &str, next: &str) -> String {
    let mut lines = String::from(first);
    let mut width = first.len();
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|c| !c.is_control()).collect();
        let length = word.chars().count();
        if width > next.len() && width + 1 + length > WIDTH {
            lines += &format!("\n{next}");
            width = next.len();
        }
        lines += &format!(" {word}");
        width += 1 + length;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_escaped() {
        let mut draft = Draft::default();
        draft.set("a", "a\"b\\c\n\u{1}\u{7f}");
        assert_eq!(draft.body, "a = \"a\\\"b\\\\c\\n\\u0001\\u007F\"\n");
    }

    #[test]
    fn a_comment_is_one_whatever_is_in_it() {
        let text = comment(&format!(
            "a\nb = 1\r\u{85}c = 2\u{2028}{}",
            "long ".repeat(60)
        ));
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
        assert!(text.lines().all(|line| line.len() <= WIDTH + 4), "{text}");
        assert!(!text.contains('\r'));
    }
}
