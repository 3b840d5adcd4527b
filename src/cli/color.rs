//! Colours for people: on a terminal, unless they are unwanted.

use std::ffi::OsStr;
use std::io::IsTerminal;

use clap::ColorChoice;

/// Select graphic rendition (ECMA-48 8.3.117).
const RESET: &str = "\x1b[0m";
pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const DIM: &str = "\x1b[2m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const YELLOW: &str = "\x1b[33m";
pub(super) const CYAN: &str = "\x1b[36m";
pub(super) const ALARM: &str = "\x1b[1;37;41m";

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Choice {
    /// Use colours: auto is on a terminal, unless NO_COLOR is set or TERM is dumb
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

impl Choice {
    pub(super) fn paint(self, out: &impl IsTerminal) -> Paint {
        let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
        let (no_color, term) = (no_color.as_deref(), term.as_deref());
        Paint(is_colored(self.color, out.is_terminal(), no_color, term))
    }
}

/// Whether to use colours. An empty NO_COLOR counts as none (no-color.org).
fn is_colored(
    choice: ColorChoice,
    on_terminal: bool,
    no_color: Option<&OsStr>,
    term: Option<&OsStr>,
) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            on_terminal
                && no_color.is_none_or(OsStr::is_empty)
                && term.is_none_or(|term| term != "dumb")
        }
    }
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(pub bool);

impl Paint {
    pub(super) fn text(self, text: &str, color: &str) -> String {
        if !self.0 || color.is_empty() || text.is_empty() {
            return text.to_owned();
        }
        format!("{color}{text}{RESET}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_unless_they_are_unwanted() {
        let dumb = Some(OsStr::new("dumb"));
        let (empty, set) = (Some(OsStr::new("")), Some(OsStr::new("1")));
        assert!(is_colored(ColorChoice::Auto, true, None, None));
        assert!(is_colored(
            ColorChoice::Auto,
            true,
            empty,
            Some(OsStr::new("xterm"))
        ));
        assert!(!is_colored(ColorChoice::Auto, false, None, None));
        assert!(!is_colored(ColorChoice::Auto, true, set, None));
        assert!(!is_colored(ColorChoice::Auto, true, None, dumb));
        assert!(is_colored(ColorChoice::Always, false, set, dumb));
        assert!(!is_colored(ColorChoice::Never, true, None, None));
    }
}
