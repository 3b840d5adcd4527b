//! Colours for people: on a terminal, unless the user declines them.

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
        // An empty NO_COLOR counts as unset (no-color.org).
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Paint(match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR").is_some() => false,
            ColorChoice::Auto => out.is_terminal() && set("TERM").is_none_or(|it| it != "dumb"),
        })
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
