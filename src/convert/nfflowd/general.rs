//! Reading the format of Perl's Config::General, which is Apache's with additions: `<block>` and `</block>`, `option
//! value` or `option = value`, comments, lines continued with a backslash. Its here-documents and C-style comments have
//! no use in such a file: they are refused.

use super::super::{Note, Settings, unquoted};
use crate::config::quoted;

/// Reads a whole file. Every setting keeps the number of its first line.
pub(super) fn parse(text: &str) -> Result<Settings, Note> {
    let mut settings = Settings::default();
    let mut open: Vec<(String, usize)> = Vec::new();
    let mut lines = text.trim_start_matches('\u{feff}').lines().zip(1..);
    while let Some((first, line)) = lines.next() {
        let unfit = |message: String| Err(Note::new(line, "", message));
        let mut text = without_comment(first);
        while let Some(kept) = text.strip_suffix('\\') {
            let next = lines.next().map_or("", |(next, _)| next);
            text = format!("{kept}{}", without_comment(next.trim_start()));
        }
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        if text.starts_with("/*") {
            return unfit("expected a comment to begin with #, found /*".to_owned());
        } else if let Some(name) = text.strip_prefix("</") {
            let name = name.trim_end_matches('>').trim();
            match open.pop() {
                Some((block, _)) if block.split(' ').next() == Some(name) => {}
                other => {
                    let expected = match other {
                        Some((block, _)) => format!("</{}>", quoted(&block)),
                        None => "a block to be open".to_owned(),
                    };
                    return unfit(format!("expected {expected}, found </{}>", quoted(name)));
                }
            }
        } else if text.starts_with('<') && !text.starts_with("<<") {
            let name = text[1..].strip_suffix('>').unwrap_or_default();
            let words: Vec<_> = name.split_whitespace().collect();
            if words.is_empty() {
                let found = quoted(text);
                return unfit(format!(
                    "expected a block such as <flow_send>, found {found}"
                ));
            }
            open.push((words.join(" "), line));
        } else {
            let (name, value) = split(text);
            if value.starts_with("<<") {
                return unfit("expected the value on one line, found a here-document".to_owned());
            }
            let blocks = open.iter().map(|(block, _)| block.as_str());
            let path: Vec<_> = blocks.chain([name]).collect();
            settings.add(&path.join("."), unquoted(value), line);
        }
    }
    match open.pop() {
        None => Ok(settings),
        Some((name, line)) => {
            let message = "expected its end further down, found none";
            Err(Note::new(line, &format!("<{}>", quoted(&name)), message))
        }
    }
}

/// `name value`, `name = value` or `name=value`; `<<include FILE>>` is an option of that name.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches('<');
    let end = text
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start();
    (name, rest.strip_prefix('=').unwrap_or(rest).trim_start())
}

/// A comment begins with a `#` at the beginning of a line or after white space; `\#` is none.
fn without_comment(line: &str) -> String {
    let begins = |at: usize| {
        line[..at]
            .chars()
            .next_back()
            .is_none_or(char::is_whitespace)
    };
    let comment = line.match_indices('#').find(|(at, _)| begins(*at));
    let kept = comment.map_or(line, |(at, _)| &line[..at]);
    kept.trim_end().replace("\\#", "#")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn settings(text: &str) -> Vec<(usize, String, String)> {
        let settings = parse(text).unwrap().0.into_iter();
        settings
            .map(|setting| (setting.line, setting.name, setting.value))
            .collect()
    }

    fn expected(settings: &[(usize, &str, &str)]) -> Vec<(usize, String, String)> {
        let settings = settings.iter();
        settings
            .map(|(line, name, value)| (*line, (*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn settings_keep_their_lines_and_the_names_of_their_blocks() {
        let text =
            "# first\n<a>\n  x 1\n  y = two words # comment\n  <b  i>\n z=\"q\"\n  </b>\n</a>\n";
        let found = [
            (3, "a.x", "1"),
            (4, "a.y", "two words"),
            (6, "a.b i.z", "q"),
        ];
        assert_eq!(settings(text), expected(&found));
    }

    #[test]
    fn continued_lines_comments_and_includes_are_read() {
        let text = "a one \\\n   two\ne a\\#b#c\n<<include other.conf>>\r\nf 'g'\r\n";
        let found = [
            (1, "a", "one two"),
            (3, "e", "a#b#c"),
            (4, "include", "other.conf>>"),
            (5, "f", "g"),
        ];
        assert_eq!(settings(text), expected(&found));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_line() {
        let cases = [
            ("<a>\nx 1\n", "line 1: <a>: expected its end"),
            ("<a>\n</b>\n", "line 2: expected </a>, found </b>"),
            (
                "x 1\n</a>\n",
                "line 2: expected a block to be open, found </a>",
            ),
            (
                "<a\n",
                "line 1: expected a block such as <flow_send>, found <a",
            ),
            ("<>\n", "line 1: expected a block such as <flow_send>"),
            ("a <<E\nb\n", "line 1: expected the value on one line"),
            (" /* a\n", "line 1: expected a comment to begin with #"),
        ];
        for (text, expected) in cases {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
