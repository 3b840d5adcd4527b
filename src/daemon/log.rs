//! The daemon's own log, on the standard error.
//!
//! Under systemd, and the init script's logger(1), each line begins with its priority (sd-daemon(3): `<4>`), by which the
//! journal or syslog files it; elsewhere with a word for people. A line is one write(2): lines of processes do not mix.
//!
//! The daemon never waits for a reader: a line that the standard error does not take at once (a full pipe, a stopped
//! terminal, a stopped journald, a closed one) is lost as a whole and counted, and once lines are taken again, one
//! states how many were lost.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::export::stream::Stream;

/// How a line shows its level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Prefix {
    /// `<4>`, for the journal and syslog.
    Priority,
    /// `warning: `, for people; nothing for information.
    Word,
}

impl Prefix {
    const fn of(self, level: Level) -> &'static str {
        match (self, level) {
            (Self::Priority, Level::Error) => "<3>",
            (Self::Priority, Level::Warn) => "<4>",
            (Self::Priority, _) => "<6>",
            (Self::Word, Level::Error) => "error: ",
            (Self::Word, Level::Warn) => "warning: ",
            (Self::Word, _) => "",
        }
    }
}

/// Sends everything up to `info` to the standard error, in the form that fits it: systemd sets `JOURNAL_STREAM` when
/// the standard error is the journal (systemd.exec(5)). The first call decides; later ones change nothing.
///
/// `log::logger().flush()` states a loss as soon as possible, without waiting for the next message.
pub(crate) fn install() {
    let prefix = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => Prefix::Priority,
        None => Prefix::Word,
    };
    let fd = io::stderr().as_fd().try_clone_to_owned();
    if let Ok(fd) = fd
        && log::set_boxed_logger(Box::new(Stderr::new(prefix, fd))).is_ok()
    {
        log::set_max_level(LevelFilter::Info);
    }
}

/// A number of things in words.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

struct Stderr(Mutex<Output>);

/// The receiver of the lines, and the count of lost ones.
struct Output {
    prefix: Prefix,
    stream: Stream,
    /// The rest of a line that was taken in part, which precedes anything else.
    rest: Vec<u8>,
    /// Lines lost since the last one that was taken.
    lost: u64,
}

impl Stderr {
    fn new(prefix: Prefix, fd: OwnedFd) -> Self {
        Self(Mutex::new(Output {
            prefix,
            stream: Stream::new(fd),
            rest: Vec::new(),
            lost: 0,
        }))
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        // An output that a panic interrupted may lose or repeat a line, which is no reason to fall silent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        let mut output = self.output();
        for line in record.args().to_string().lines() {
            let prefix = output.prefix.of(record.level());
            output.push(&format!("{prefix}{line}\n"));
        }
    }

    fn flush(&self) {
        self.output().settle();
    }
}

impl Output {
    /// Writes the line, or counts it.
    fn push(&mut self, line: &str) {
        if !(self.settle() && self.write(line)) {
            self.lost += 1;
        }
    }

    /// States the lost lines if that is possible now. Returns whether every loss is stated.
    fn settle(&mut self) -> bool {
        self.finish();
        if self.lost > 0 {
            let notice = format!(
                "{}log lines lost here: {}, the standard error did not take them\n",
                self.prefix.of(Level::Warn),
                self.lost
            );
            if self.write(&notice) {
                self.lost = 0;
            }
        }
        self.lost == 0
    }

    /// Writes as much of the line as goes. Returns whether any of it was taken: then the rest will follow.
    fn write(&mut self, line: &str) -> bool {
        if !self.rest.is_empty() {
            return false;
        }
        self.rest.extend_from_slice(line.as_bytes());
        self.finish();
        let taken = self.rest.len() < line.len();
        if !taken {
            self.rest.clear();
        }
        taken
    }

    fn finish(&mut self) {
        while !self.rest.is_empty() {
            // Nobody is left to be told of an error.
            match self.stream.write(&self.rest).unwrap_or(0) {
                0 => return,
                taken => drop(self.rest.drain(..taken)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{PipeReader, Read as _};

    use rustix::fs::{OFlags, fcntl_setfl};
    use rustix::pty::OpenptFlags;

    use super::*;

    fn text(prefix: Prefix, level: Level, message: &str) -> String {
        let (mut reader, logger) = piped(prefix);
        let args = format_args!("{message}");
        logger.log(&Record::builder().level(level).args(args).build());
        read(&mut reader)
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
        let (_reader, writer) = io::pipe().unwrap();
        let logger = Stderr::new(Prefix::Word, writer.into());
        let enabled = |level| logger.enabled(&Metadata::builder().level(level).build());
        assert!(enabled(Level::Info));
        assert!(!enabled(Level::Debug));
    }

    fn log(logger: &Stderr, message: &str) {
        logger.log(
            &Record::builder()
                .level(Level::Info)
                .args(format_args!("{message}"))
                .build(),
        );
    }

    /// A logger into a pipe that is read without waiting.
    fn piped(prefix: Prefix) -> (PipeReader, Stderr) {
        let (reader, writer) = io::pipe().unwrap();
        fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
        (reader, Stderr::new(prefix, writer.into()))
    }

    /// The text that can be read at once.
    fn read(reader: &mut impl io::Read) -> String {
        let mut text = Vec::new();
        let error = reader.read_to_end(&mut text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        String::from_utf8(text).unwrap()
    }

    fn lost(line: &str) -> Option<usize> {
        let number = line.strip_prefix("warning: log lines lost here: ")?;
        let number = number.strip_suffix(", the standard error did not take them")?;
        number.parse().ok()
    }

    #[test]
    fn lines_that_a_full_pipe_did_not_take_are_stated_before_the_next() {
        let (mut reader, logger) = piped(Prefix::Word);
        let message = "x".repeat(70);
        for _ in 0..2000 {
            log(&logger, &format!("{message}\n{message}"));
        }
        let before = read(&mut reader);
        assert!(before.lines().all(|line| line == message), "{before}");
        log(&logger, "after");
        let after = read(&mut reader);
        let lines: Vec<_> = after.lines().collect();
        assert_eq!(lines.len(), 2, "{after}");
        assert_eq!(lines[1], "after");
        assert_eq!(before.lines().count() + lost(lines[0]).unwrap(), 4000);
        log(&logger, "later");
        assert_eq!(read(&mut reader), "later\n", "stated once");
    }

    #[test]
    fn a_loss_is_stated_without_another_message() {
        let (mut reader, logger) = piped(Prefix::Word);
        for _ in 0..2000 {
            log(&logger, &"x".repeat(70));
        }
        logger.flush();
        let taken = read(&mut reader).lines().count();
        logger.flush();
        logger.flush();
        let notice = read(&mut reader);
        assert_eq!(lost(notice.trim_end()), Some(2000 - taken), "{notice}");
    }

    #[test]
    fn a_line_longer_than_a_write_arrives_whole() {
        let (mut reader, logger) = piped(Prefix::Word);
        let long = "y".repeat(10_000);
        for _ in 0..20 {
            log(&logger, &long);
        }
        let mut text = read(&mut reader);
        logger.flush();
        text += &read(&mut reader);
        let (notices, lines): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| lost(line).is_some());
        assert!(lines.iter().all(|line| **line == long));
        assert_eq!(notices.len(), 1);
        assert_eq!(lines.len() + lost(notices[0]).unwrap(), 20);
    }

    #[test]
    fn a_terminal_that_nobody_reads_does_not_block() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        let mut master = std::fs::File::from(master);
        let logger = Stderr::new(Prefix::Word, terminal);
        let message = "z".repeat(70);
        for _ in 0..2000 {
            log(&logger, &message);
        }
        let mut text = String::new();
        // The kernel hands over a terminal's output at its own time and in its own portions, so there may be room again
        // between two lines, and several notices.
        let accounted = |text: &str| {
            let whole = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let (notices, lines): (Vec<_>, Vec<_>) = whole
                .map(str::trim_end)
                .partition(|line| lost(line).is_some());
            assert!(lines.iter().all(|line| **line == message), "{text}");
            lines.len() + notices.into_iter().flat_map(lost).sum::<usize>()
        };
        for _ in 0..10_000_000 {
            let mut buffer = [0; 4096];
            let length = master.read(&mut buffer).unwrap_or(0);
            text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            logger.flush();
            if length > 0 && accounted(&text) == 2000 {
                break;
            }
        }
        assert_eq!(accounted(&text), 2000);
    }

    #[test]
    fn a_closed_standard_error_costs_the_line_only() {
        let (reader, logger) = piped(Prefix::Word);
        drop(reader);
        log(&logger, "to nobody");
        assert_eq!(logger.output().lost, 1);
    }
}
