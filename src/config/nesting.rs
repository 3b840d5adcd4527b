//! Refusing, before it reaches a parser, a text that would grow or nest without bound in one.
//!
//! The YAML parser descends once per level of nesting and copies a node for each alias of it, so that a small file can
//! overflow the stack or fill the memory of the running daemon; the TOML parser bounds brackets and dotted keys, but not
//! their product. Here the same text goes through the scanner of the same parser, token by token and without recursion, so
//! that what is a comment, a quote or an anchor is not a matter of opinion. JSON is left to its parser, which refuses more
//! than 128 levels; INI has none.

use config::FileFormat;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;
use yaml_rust2::scanner::{Scanner, Token, TokenType};

use super::problem::quoted;

/// Most levels of lists and tables in each other. The deepest that means anything is four: the elements of a list in an
/// entry of `collector` or `syslog`.
const DEEPEST: usize = 16;

/// Whether the parser of the format can be given the text; what is wrong with its syntax is for that parser to say.
///
/// # Errors
/// What was expected and found, and in which line.
pub fn check(format: FileFormat, text: &str) -> Result<(), String> {
    match format {
        FileFormat::Toml => toml(text),
        FileFormat::Yaml => yaml(text),
        _ => Ok(()),
    }
}

fn yaml(text: &str) -> Result<(), String> {
    use TokenType as T;

    let mut depth = 0_usize;
    // The scanner ends at an error; the parser, whose scanner ends there too, says it.
    for Token(mark, token) in Scanner::new(text.chars()) {
        let found = match token {
            T::BlockSequenceStart
            | T::BlockMappingStart
            | T::FlowSequenceStart
            | T::FlowMappingStart => {
                depth += 1;
                if depth > DEEPEST {
                    return Err(too_deep(mark.line()));
                }
                continue;
            }
            T::BlockEnd | T::FlowSequenceEnd | T::FlowMappingEnd => {
                depth = depth.saturating_sub(1);
                continue;
            }
            T::Alias(name) => format!(
                "the alias *{} (text that begins with * needs quotes)",
                quoted(&name)
            ),
            T::Anchor(name) => format!(
                "the anchor &{} (text that begins with & needs quotes)",
                quoted(&name)
            ),
            // Each tag that uses one is as long as the directive says.
            T::TagDirective(..) => "the directive %TAG".to_owned(),
            _ => continue,
        };
        return Err(format!(
            "line {}: expected every value written out, found {found}",
            mark.line()
        ));
    }
    Ok(())
}

/// A dotted key nests as deep as it has dots. In a bracket that is open, they count until the next comma.
fn toml(text: &str) -> Result<(), String> {
    let mut dots = vec![0_usize];
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => dots.push(0),
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket if dots.len() > 1 => {
                dots.pop();
            }
            TokenKind::Dot => {
                if let Some(innermost) = dots.last_mut() {
                    *innermost += 1;
                }
            }
            TokenKind::Comma => {
                if let Some(innermost) = dots.last_mut() {
                    *innermost = 0;
                }
            }
            // Outside brackets it ends the statement.
            TokenKind::Newline if dots.len() == 1 => dots[0] = 0,
            _ => continue,
        }
        if dots.len() - 1 + dots.iter().sum::<usize>() > DEEPEST {
            let before = &text.as_bytes()[..token.span().start()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            return Err(too_deep(line));
        }
    }
    Ok(())
}

fn too_deep(line: usize) -> String {
    format!("line {line}: expected at most {DEEPEST} levels of lists and tables, found more")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use config::{Format as _, Value, ValueKind};
    use proptest::prelude::*;

    use super::*;

    fn refusal(format: FileFormat, text: &str) -> String {
        check(format, text).unwrap_err()
    }

    fn is_accepted(format: FileFormat, text: &str) -> bool {
        check(format, text).is_ok() && format.parse(None, text).is_ok()
    }

    #[test]
    fn yaml_that_nests_too_deep_is_refused_with_its_line() {
        let message = "line 2: expected at most 16 levels of lists and tables, found more";
        for deep in ["- ", "? ", ": ", "[", "{a: ", "- ? ", "? - "] {
            let text = format!("# a comment\n{}", deep.repeat(200));
            assert_eq!(refusal(FileFormat::Yaml, &text), message, "{deep}");
        }
        let steps: String = (0..100)
            .map(|level| format!("{}a:\n", " ".repeat(level)))
            .collect();
        assert!(refusal(FileFormat::Yaml, &steps).starts_with("line 17: "));
    }

    #[test]
    fn yaml_with_an_anchor_or_alias_is_refused_with_its_line() {
        let alias = "the alias *b (text that begins with * needs quotes)";
        let anchor = "the anchor &b (text that begins with & needs quotes)";
        for (text, found) in [
            ("capture:\n  log: &b nat", anchor),
            ("capture:\n  log: *b", alias),
            ("- x\n- [&b 1]", anchor),
            ("- x\n- [*b]", alias),
            ("a: 'x'\n<<: *b", alias),
            (
                "# a\n%TAG ! tag:x,2000:\n---\na: !b c",
                "the directive %TAG",
            ),
        ] {
            let expected = format!("line 2: expected every value written out, found {found}");
            assert_eq!(refusal(FileFormat::Yaml, text), expected, "{text}");
        }
    }

    #[test]
    fn a_star_or_ampersand_in_a_value_or_comment_is_no_alias() {
        for text in [
            "a: '*b' # *c &d",
            "a: \"&b\"",
            "a: b*c & d *e &f",
            "a: |\n  *b\n  &c\n",
            "a: >-\n  &c\n",
            "a: 'it''s *b\n  &c'",
            "a: \"\\\" *b\n  &c\"",
            "a: b\n  &c *d",
            "'*a': 1",
            "a: [b*, c&, '&d']",
            "a: http://b/?c&d=*",
        ] {
            assert!(is_accepted(FileFormat::Yaml, text), "{text}");
        }
    }

    #[test]
    fn toml_that_nests_too_deep_is_refused_with_its_line() {
        let message = "line 2: expected at most 16 levels of lists and tables, found more";
        let dotted = format!("a{}", ".a".repeat(10));
        let product = format!("b = 1\n{}", format!("{dotted} = {{").repeat(10));
        assert_eq!(refusal(FileFormat::Toml, &product), message);
        for deep in ["[", "{a = ", "a.", "a . 'b' . "] {
            let text = format!("b = 1\na = {}", deep.repeat(1000));
            assert_eq!(refusal(FileFormat::Toml, &text), message, "{deep}");
        }
    }

    #[test]
    fn brackets_and_dots_that_do_not_nest_are_accepted() {
        let many = "[1.5, 2.5, { a.b = 1.5, c.d = 2.5 }],\n".repeat(50);
        let text = format!(
            "a = [\n{many}]\nb.c = \"{0}\" # {0}\nd.e = '''\n{0}\n'''\n[[f.g]]\n[h.'{0}']\n{1}",
            "[{.".repeat(50),
            (0..50)
                .map(|index| format!("i.j.k{index} = 1.5\n"))
                .collect::<String>()
        );
        assert!(is_accepted(FileFormat::Toml, &text), "{text}");
    }

    /// Levels of lists and tables in the value.
    fn depth(value: &Value) -> usize {
        match &value.kind {
            ValueKind::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
            ValueKind::Table(table) => 1 + table.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn pieces(all: &'static [&'static str]) -> impl Strategy<Value = String> {
        let piece = prop::sample::select(all);
        prop::collection::vec((piece, 1..30_usize), 0..12).prop_map(|list| {
            let repeated = list.iter().map(|(piece, times)| piece.repeat(*times));
            repeated.collect()
        })
    }

    proptest! {
        #[test]
        fn yaml_that_is_accepted_is_shallow(
            text in pieces(&["- ", "? ", ": ", "a", "a: ", "a:\n", "[", "]", "{", "}", ",", "\n", " ", "  ", "'", "\"", "#", "---\n"]),
        ) {
            // The scanner sees no token for a list that is indented as the key above it: every other level.
            if check(FileFormat::Yaml, &text).is_ok() && let Ok(root) = FileFormat::Yaml.parse(None, &text) {
                let depth = root.values().map(depth).max().unwrap_or(0);
                prop_assert!(depth <= 2 * DEEPEST, "{depth}");
            }
        }

        #[test]
        fn toml_that_is_accepted_is_shallow(
            text in pieces(&["a", ".", "=", "a=", "a.", "a={", "{", "}", "[", "]", "[a]\n", "[[a]]\n", ",", "\n", "'", "\"", "#", "1"]),
        ) {
            // The table that a header opens, and the keys in it.
            if check(FileFormat::Toml, &text).is_ok() && let Ok(root) = FileFormat::Toml.parse(None, &text) {
                let depth = root.values().map(depth).max().unwrap_or(0);
                prop_assert!(depth <= 2 * DEEPEST + 2, "{depth}");
            }
        }
    }
}
