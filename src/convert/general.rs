//! Reading the format of Perl's Config::General, which is Apache's with additions: `<block>` and `</block>`, `option
//! value` or `option = value`, comments, lines continued with a backslash, here-documents.
//!
//! Every option keeps the line it began in. What would need another file (an include) is an option of the name `include`.

use super::Unfit;
use crate::config::quoted;

/// Blocks in each other that are read; the deepest that means anything is three.
const DEEPEST: usize = 16;

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Block {
    /// `name`, or `name ident` for `<name ident>`.
    pub name: String,
    pub line: usize,
    pub options: Vec<Setting>,
    pub blocks: Vec<Block>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Setting {
    pub name: String,
    pub value: String,
    pub line: usize,
}

/// Reads a whole file into a block without a name.
pub(super) fn parse(text: &str) -> Result<Block, Unfit> {
    let mut open = vec![Block::default()];
    let mut lines = Lines::new(text);
    while let Some((line, text)) = lines.next_logical() {
        let text = text.trim();
        if let Some(name) = text.strip_prefix("<<").and_then(included) {
            add(&mut open, setting("include", name, line));
        } else if let Some(tag) = text.strip_prefix("</") {
            close(&mut open, tag, line)?;
        } else if let Some(tag) = text.strip_prefix('<') {
            begin(&mut open, tag, line)?;
        } else if !text.is_empty() {
            let (name, value) = split(text);
            let value = match value.strip_prefix("<<") {
                Some(end) => lines.here_document(end.trim(), line)?,
                None => unquoted(value).to_owned(),
            };
            add(&mut open, setting(name, &value, line));
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(root), true) => Ok(root),
        (unclosed, _) => {
            let Block { name, line, .. } = unclosed.unwrap_or_default();
            let message = "expected its end further down, found none";
            Err(Unfit::new(line, &format!("<{}>", quoted(&name)), message))
        }
    }
}

fn setting(name: &str, value: &str, line: usize) -> Setting {
    Setting {
        name: name.to_owned(),
        value: value.to_owned(),
        line,
    }
}

fn add(open: &mut [Block], setting: Setting) {
    if let Some(block) = open.last_mut() {
        block.options.push(setting);
    }
}

/// `<name>`, `<name ident>`, or `<name/>`, which is empty.
fn begin(open: &mut Vec<Block>, tag: &str, line: usize) -> Result<(), Unfit> {
    let Some(tag) = tag.strip_suffix('>') else {
        let message = format!(
            "expected a block such as <flow_send>, found \"<{}\"",
            quoted(tag)
        );
        return Err(Unfit::new(line, "", message));
    };
    let (name, empty) = match tag.strip_suffix('/') {
        Some(name) => (name, true),
        None => (tag, false),
    };
    let name = name.trim();
    let (kind, ident) = name.split_once(char::is_whitespace).unwrap_or((name, ""));
    let words = [unquoted(kind), unquoted(ident.trim_start())];
    if kind.is_empty() {
        return Err(Unfit::new(
            line,
            "",
            "expected a name between < and >, found none",
        ));
    }
    if open.len() > DEEPEST {
        let message = format!("expected at most {DEEPEST} blocks in each other, found more");
        return Err(Unfit::new(line, "", message));
    }
    open.push(Block {
        name: words.join(" ").trim_end().to_owned(),
        line,
        ..Block::default()
    });
    if empty {
        leave(open);
    }
    Ok(())
}

fn close(open: &mut Vec<Block>, tag: &str, line: usize) -> Result<(), Unfit> {
    let name = tag.strip_suffix('>').unwrap_or(tag).trim();
    let expected = match open.last() {
        Some(block) if open.len() > 1 => block.name.split(' ').next().unwrap_or_default(),
        _ => {
            let message = format!("expected a block to be open, found </{}>", quoted(name));
            return Err(Unfit::new(line, "", message));
        }
    };
    if unquoted(name) != expected {
        let message = format!(
            "expected </{}>, found </{}>",
            quoted(expected),
            quoted(name)
        );
        return Err(Unfit::new(line, "", message));
    }
    leave(open);
    Ok(())
}

/// Puts the innermost open block into the one around it.
fn leave(open: &mut Vec<Block>) {
    if let Some(block) = open.pop()
        && let Some(around) = open.last_mut()
    {
        around.blocks.push(block);
    }
}

/// The file of `<<include FILE>>`.
fn included(rest: &str) -> Option<&str> {
    let inner = rest.strip_suffix(">>")?.trim();
    inner.strip_prefix("include").map(str::trim)
}

/// `name value`, `name = value` or `name=value`.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start();
    (name, rest.strip_prefix('=').unwrap_or(rest).trim_start())
}

fn unquoted(text: &str) -> &str {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

/// The lines of the file without comments, continued ones joined.
struct Lines<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            lines: text.trim_start_matches('\u{feff}').lines().enumerate(),
        }
    }

    fn next_logical(&mut self) -> Option<(usize, String)> {
        let (index, first) = self.lines.next()?;
        if first.trim_start().starts_with("/*") {
            self.skip_comment(first);
            return Some((index + 1, String::new()));
        }
        let mut text = without_comment(first);
        while let Some(kept) = text.strip_suffix('\\') {
            let Some((_, next)) = self.lines.next() else {
                text = kept.to_owned();
                break;
            };
            text = format!("{kept}{}", without_comment(next.trim_start()));
        }
        Some((index + 1, text))
    }

    /// A comment as in C ends at the end of a line.
    fn skip_comment(&mut self, first: &str) {
        let mut line = first;
        while !line.trim_end().ends_with("*/") {
            match self.lines.next() {
                Some((_, next)) => line = next,
                None => break,
            }
        }
    }

    fn here_document(&mut self, end: &str, line: usize) -> Result<String, Unfit> {
        let mut value = Vec::new();
        for (_, text) in self.lines.by_ref() {
            if text.trim() == end {
                return Ok(value.join("\n"));
            }
            value.push(text.trim_end());
        }
        let message = format!(
            "expected a line \"{}\" further down, found none",
            quoted(end)
        );
        Err(Unfit::new(line, "", message))
    }
}

/// A comment begins with a `#` at the begin of a line or behind white space; `\#` is none.
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

    fn options(block: &Block) -> Vec<(usize, &str, &str)> {
        let all = block.options.iter();
        all.map(|option| (option.line, option.name.as_str(), option.value.as_str()))
            .collect()
    }

    #[test]
    fn blocks_and_options_keep_their_lines() {
        let text = "# first\n<a>\n  x 1\n  y = two words # comment\n  <b \"i j\">\n z=\"q\"\n  </b>\n</a>\n<c/>\n";
        let root = parse(text).unwrap();
        let a = &root.blocks[0];
        assert_eq!(
            (a.name.as_str(), a.line, options(a)),
            ("a", 2, vec![(3, "x", "1"), (4, "y", "two words")])
        );
        let b = &a.blocks[0];
        assert_eq!(
            (b.name.as_str(), options(b)),
            ("b i j", vec![(6, "z", "q")])
        );
        assert_eq!(root.blocks[1].name, "c");
    }

    #[test]
    fn continued_lines_here_documents_comments_and_includes_are_read() {
        let text = "a one \\\n   two\nb <<END\n x\n y\nEND\n/* c 1\nd 2 */\ne a\\#b#c\n<<include other.conf>>\r\nf 'g'\r\n";
        let root = parse(text).unwrap();
        let expected = vec![
            (1, "a", "one two"),
            (3, "b", " x\n y"),
            (9, "e", "a#b#c"),
            (10, "include", "other.conf"),
            (11, "f", "g"),
        ];
        assert_eq!(options(&root), expected);
    }

    #[test]
    fn blocks_that_do_not_match_are_refused_with_their_line() {
        let cases = [
            ("<a>\nx 1\n", "line 1: <a>: expected its end"),
            ("<a>\n</b>\n", "line 2: expected </a>, found </b>"),
            (
                "x 1\n</a>\n",
                "line 2: expected a block to be open, found </a>",
            ),
            (
                "<a\n",
                "line 1: expected a block such as <flow_send>, found \"<a\"",
            ),
            ("<>\n", "line 1: expected a name"),
            ("a <<E\nb\n", "line 1: expected a line \"E\""),
        ];
        for (text, expected) in cases {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
        assert!(parse(&"<a>\n".repeat(100_000)).is_err());
    }
}
