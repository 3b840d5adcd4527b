//! The daemon's own log, on the standard error.
//!
//! Under systemd each line begins with its priority (sd-daemon(3): `<4>`), so that the journal files it under the right
//! one; elsewhere with a word for people. A line is one write(2), so that lines of several processes do not mix, and a
//! closed standard error costs the line, never the daemon.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// How a line shows its level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prefix {
    /// `<4>`, for the journal.
    Priority,
    /// `warning: `, for people; nothing before information.
    Word,
}

impl Prefix {
    /// What fits the standard error: systemd sets `JOURNAL_STREAM` when it goes to the journal (systemd.exec(5)).
    #[must_use]
    pub fn from_environment() -> Self {
        if std::env::var_os("JOURNAL_STREAM").is_some() {
            Self::Priority
        } else {
            Self::Word
        }
    }

    const fn of(self, level: Level) -> &'static str {
        match (self, level) {
            (Self::Priority, Level::Error) => "<3>",
            (Self::Priority, Level::Warn) => "<4>",
            (Self::Priority, Level::Info) => "<6>",
            (Self::Priority, Level::Debug | Level::Trace) => "<7>",
            (Self::Word, Level::Error) => "error: ",
            (Self::Word, Level::Warn) => "warning: ",
            (Self::Word, Level::Info) => "",
            (Self::Word, Level::Debug | Level::Trace) => "debug: ",
        }
    }
}

/// Makes everything up to `info` go to the standard error. The first call decides; later ones change nothing.
pub fn install(prefix: Prefix) {
    if log::set_boxed_logger(Box::new(Stderr { prefix })).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

struct Stderr {
    prefix: Prefix,
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = format(self.prefix, record);
            // Nobody is left to be told that the standard error is gone.
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// The record as text that ends in a line feed; each of its lines has the prefix.
fn format(prefix: Prefix, record: &Record<'_>) -> String {
    let message = record.args().to_string();
    let mut text = String::with_capacity(message.len() + 16);
    for line in message.lines() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}{line}", prefix.of(record.level()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(prefix: Prefix, level: Level, message: &str) -> String {
        format(
            prefix,
            &Record::builder()
                .level(level)
                .args(format_args!("{message}"))
                .build(),
        )
    }

    #[test]
    fn the_journal_gets_priorities() {
        assert_eq!(text(Prefix::Priority, Level::Error, "a"), "<3>a\n");
        assert_eq!(text(Prefix::Priority, Level::Warn, "a"), "<4>a\n");
        assert_eq!(text(Prefix::Priority, Level::Info, "a"), "<6>a\n");
    }

    #[test]
    fn people_get_words() {
        assert_eq!(text(Prefix::Word, Level::Error, "a"), "error: a\n");
        assert_eq!(text(Prefix::Word, Level::Warn, "a"), "warning: a\n");
        assert_eq!(text(Prefix::Word, Level::Info, "a"), "a\n");
    }

    #[test]
    fn every_line_of_a_message_has_its_level() {
        assert_eq!(text(Prefix::Priority, Level::Error, "a\nb"), "<3>a\n<3>b\n");
    }

    #[test]
    fn debug_messages_are_left_out() {
        let logger = Stderr {
            prefix: Prefix::Word,
        };
        let enabled = |level| logger.enabled(&Metadata::builder().level(level).build());
        assert!(enabled(Level::Info));
        assert!(!enabled(Level::Debug));
    }
}
