//! `nattrail tail`: shows the events as they happen, asking the running daemon over its control socket.
//!
//! The daemon filters and drops what is too much ([`crate::export::view`]); here the lines are read as fast as the standard
//! output takes them, and shown. It ends when the output is closed, also while nothing happens.

mod print;

use std::ffi::OsStr;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use self::print::{Line, Printer};
use super::control::{Failure, PATIENCE, connect_by, left, printable};
use super::{Exit, complain};
use crate::config::{Config, MarkFilter};
use crate::daemon::clock;
use crate::export::view::filter::{self, End, Filter};
use crate::session::{EventKind, Protocol};
use crate::time::Uptime;

/// Longer than any line of a daemon.
const LINE_LIMIT: usize = 64 << 10;

/// Paragraphs are wrapped by clap.
pub const AFTER_HELP: &str = "\
END is an address, a prefix, or one of them with a port: 10.1.2.3, 10.0.0.0/8, 203.0.113.9:50001, 10.0.0.0/8:53, \
[2001:db8::1]:443, [2001:db8::/32]:443, :443. The port of an ICMP source is the identifier of its query. An option may \
be given several times, or with several values between commas: one of them has to match. Different options have to match \
together. At most 16 values in all.

A line has the session before translation (PRE-NAT) and after it (POST-NAT). The delete that ends a session has its \
duration in seconds and the packets/octets of both directions (orig, reply). A line that begins with *** is a gap: what \
may have been missed, and why. Gaps pass every filter, and do not count for -n. Times are UTC.

Whoever reads too slowly, or wants more than 10000 lines per second, misses events and is told how many, as a gap (in JSON \
with the cause \"undelivered\"). The daemon waits for nobody: collectors and copies lose nothing.

Exit status: 0 when the count is reached or the output is closed; 64 usage; 69 when no daemon answers, or it stops or is \
restarted; 77 without permission for the control socket; 78 configuration.

Examples:
  nattrail tail --src 10.1.2.3                         what a subscriber does
  nattrail tail --post 203.0.113.9:50001               who has this public address and port
  nattrail tail --proto udp --dst :53 --event create   each new DNS query
  nattrail tail --json -n 100 > sample.json            a hundred events for a program";

/// What to show, and how.
#[derive(Args, Debug)]
pub struct Options {
    /// Only sessions with this source before translation
    #[arg(long, value_name = "END", value_delimiter = ',')]
    src: Vec<End>,
    /// Only sessions with this destination before translation
    #[arg(long, value_name = "END", value_delimiter = ',')]
    dst: Vec<End>,
    /// Only sessions with this source or destination after translation
    #[arg(long, value_name = "END", value_delimiter = ',')]
    post: Vec<End>,
    /// Only sessions of this protocol, by name or number
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',', value_parser = filter::protocol)]
    proto: Vec<Protocol>,
    /// Only sessions whose mark, as far as the mask goes, is this
    #[arg(long, value_name = "VALUE[/MASK]", value_delimiter = ',')]
    mark: Vec<MarkFilter>,
    /// Only sessions in this conntrack zone
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    zone: Vec<u16>,
    /// Only these events: create or delete
    #[arg(long, value_name = "EVENT", value_delimiter = ',', value_parser = filter::kind)]
    event: Vec<EventKind>,
    /// End after so many events
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one JSON object per line, with the names of the copies' format json
    #[arg(long)]
    json: bool,
    /// Use colours: auto is on a terminal, unless NO_COLOR is set or TERM is dumb
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    color: Color,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// Whether to use colours. An empty NO_COLOR counts as none (no-color.org).
    fn is_on(self, on_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                on_terminal
                    && no_color.is_none_or(OsStr::is_empty)
                    && term.is_none_or(|term| term != "dumb")
            }
        }
    }
}

/// Why nothing more is shown.
enum Ending {
    /// All that was wanted has been shown.
    Counted,
    /// Nobody reads it.
    Closed,
    Failed(Failure),
}

/// Shows events until the count is reached, the output is closed or the daemon stops. What prevents it is said on the
/// standard error.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    options: Options,
    out: &mut (impl Write + AsFd + IsTerminal),
) -> io::Result<Exit> {
    let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
    let on_terminal = out.is_terminal();
    let colored = options
        .color
        .is_on(on_terminal, no_color.as_deref(), term.as_deref());
    let printer = Printer::new(options.json, colored, options.count);
    let filter = Filter {
        src: options.src,
        dst: options.dst,
        post: options.post,
        protocols: options.proto,
        marks: options.mark,
        zones: options.zone,
        kinds: options.event,
    };
    if let Err(error) = filter.check() {
        complain(&error);
        return Ok(Exit::Usage);
    }
    let config = match Config::load(file, environment) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            complain(&error.to_string());
            return Ok(Exit::Config);
        }
    };
    match show(config.control.socket.as_deref(), &filter, printer, out)? {
        Ending::Counted | Ending::Closed => Ok(Exit::Success),
        Ending::Failed(failure) => {
            complain(&failure.to_string());
            Ok(failure.exit())
        }
    }
}

fn show(
    socket: Option<&Path>,
    filter: &Filter,
    printer: Printer,
    out: &mut (impl Write + AsFd),
) -> io::Result<Ending> {
    let Some(path) = socket else {
        return Ok(Ending::Failed(Failure::SwitchedOff));
    };
    let deadline = clock::uptime().saturating_add(PATIENCE);
    let stream = match ask(path, filter, deadline) {
        Ok(stream) => stream,
        Err(error) => return Ok(Ending::Failed(Failure::explain(path, error))),
    };
    let mut session = Session {
        path,
        stream,
        deadline: Some(deadline),
        unread: Vec::new(),
        printer,
    };
    loop {
        match session.wait(out) {
            Ok(true) => {}
            Ok(false) => return Ok(Ending::Closed),
            Err(error) => return Ok(Ending::Failed(Failure::explain(path, error))),
        }
        let mut text = Vec::new();
        let ending = session.read(&mut text);
        out.write_all(&text)?;
        out.flush()?;
        if let Some(ending) = ending {
            return Ok(ending);
        }
    }
}

fn ask(path: &Path, filter: &Filter, deadline: Uptime) -> io::Result<UnixStream> {
    let mut stream = connect_by(path, deadline)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(format!("tail{filter}\n").as_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A connection to a daemon that is asked to show its events.
struct Session<'a> {
    path: &'a Path,
    stream: UnixStream,
    /// When it has to have begun, until it has.
    deadline: Option<Uptime>,
    /// The begin of a line whose end has not come yet.
    unread: Vec<u8>,
    printer: Printer,
}

impl Session<'_> {
    /// Waits until the daemon has said something. Returns whether anyone still reads `out`.
    fn wait(&self, out: &impl AsFd) -> io::Result<bool> {
        loop {
            let timeout = self.deadline.map(left).transpose()?;
            let timeout = timeout.map(|left| Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            });
            // A pipe without a reader and a terminal that hung up say so unasked; a file never does.
            let mut fds = [
                PollFd::new(&self.stream, PollFlags::IN),
                PollFd::new(out, PollFlags::empty()),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => {
                    let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
                    return Ok(!fds[1].revents().intersects(gone));
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what there is, and writes into `text` what is to be shown.
    fn read(&mut self, text: &mut Vec<u8>) -> Option<Ending> {
        let mut room = [0; 64 << 10];
        match self.stream.read(&mut room) {
            Ok(0) => Some(Ending::Failed(self.end_of_stream())),
            Ok(count) => {
                self.unread.extend_from_slice(&room[..count]);
                self.take_lines(text)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                None
            }
            Err(error) if self.deadline.is_some() => {
                Some(Ending::Failed(Failure::explain(self.path, error)))
            }
            Err(_) => Some(Ending::Failed(self.end_of_stream())),
        }
    }

    fn take_lines(&mut self, text: &mut Vec<u8>) -> Option<Ending> {
        let mut start = 0;
        let mut ending = None;
        while let Some(length) = self.unread[start..].iter().position(|byte| *byte == b'\n')
            && ending.is_none()
        {
            let line = &self.unread[start..start + length];
            start += length + 1;
            ending = match Line::parse(line) {
                Ok(Line::Begin) => {
                    self.deadline = None;
                    self.printer.heading(text);
                    None
                }
                Ok(Line::End) => Some(Ending::Failed(Failure::Stopped(self.path.to_owned()))),
                Ok(Line::Error(message)) => Some(self.refused(printable(&message))),
                Ok(Line::Record(record)) => {
                    self.printer.record(&record, line, text);
                    self.printer.is_done().then_some(Ending::Counted)
                }
                Err(error) => Some(self.refused(format!("expected a record, found: {error}"))),
            };
        }
        self.unread.drain(..start);
        if ending.is_none() && self.unread.len() > LINE_LIMIT {
            ending = Some(self.refused("a line of more than 64 KiB".to_owned()));
        }
        ending
    }

    fn refused(&self, message: String) -> Ending {
        Ending::Failed(Failure::Refused(self.path.to_owned(), message))
    }

    /// A daemon that has too many clients closes without an answer.
    fn end_of_stream(&self) -> Failure {
        if self.deadline.is_some() {
            Failure::explain(self.path, ErrorKind::UnexpectedEof.into())
        } else {
            Failure::Gone(self.path.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn colours_are_for_terminals_unless_they_are_unwanted() {
        let dumb = Some(OsStr::new("dumb"));
        let (empty, set) = (Some(OsStr::new("")), Some(OsStr::new("1")));
        assert!(Color::Auto.is_on(true, None, None));
        assert!(Color::Auto.is_on(true, empty, Some(OsStr::new("xterm"))));
        assert!(!Color::Auto.is_on(false, None, None));
        assert!(!Color::Auto.is_on(true, set, None));
        assert!(!Color::Auto.is_on(true, None, dumb));
        assert!(Color::Always.is_on(false, set, dumb));
        assert!(!Color::Never.is_on(true, None, None));
    }

    /// What a session makes of a daemon's words.
    fn heard(words: &[&str]) -> (String, Option<Ending>) {
        let (stream, mut daemon) = UnixStream::pair().unwrap();
        let mut session = Session {
            path: Path::new("/s"),
            stream,
            deadline: Some(Uptime::default()),
            unread: Vec::new(),
            printer: Printer::new(true, false, Some(2)),
        };
        let mut text = Vec::new();
        for part in words {
            daemon.write_all(part.as_bytes()).unwrap();
            let ending = session.read(&mut text);
            if ending.is_some() {
                return (String::from_utf8(text).unwrap(), ending);
            }
        }
        drop(daemon);
        let ending = session.read(&mut text);
        (String::from_utf8(text).unwrap(), ending)
    }

    fn message(ending: Option<Ending>) -> String {
        match ending {
            Some(Ending::Failed(failure)) => failure.to_string(),
            _ => panic!("no failure"),
        }
    }

    #[test]
    fn lines_may_come_in_any_pieces_and_end_with_the_count() {
        let words = [
            "{\"tail\":\"begin\"}\n{\"event\":\"cre",
            "ate\"}\n{\"event\":\"gap\",\"cause\":\"restart\"}\n",
            "{\"event\":\"delete\"}\n{\"event\":\"create\"}\n",
        ];
        let (text, ending) = heard(&words);
        assert_eq!(
            text,
            "{\"event\":\"create\"}\n{\"event\":\"gap\",\"cause\":\"restart\"}\n{\"event\":\"delete\"}\n"
        );
        assert!(matches!(ending, Some(Ending::Counted)));
    }

    #[test]
    fn how_the_daemon_went_is_told_apart() {
        let begin = "{\"tail\":\"begin\"}\n";
        let said = |words: &[&str]| message(heard(words).1);
        assert!(
            said(&[begin, "{\"tail\":\"end\"}\n"]).contains("has stopped or is being restarted")
        );
        assert!(said(&[begin]).contains("has closed the connection without a word"));
        assert!(said(&[]).contains("did not answer"));
        assert!(said(&["{\"error\":\"no\\u001b[2J\"}\n"]).ends_with("answered: no?[2J"));
        assert!(said(&["hello\n"]).contains("expected a record, found: "));
        assert!(said(&["[]\n"]).contains("expected a record, found: "));
        let long = "x".repeat(LINE_LIMIT / 2 + 1);
        assert!(said(&[&long, &long]).ends_with("a line of more than 64 KiB"));
    }
}
