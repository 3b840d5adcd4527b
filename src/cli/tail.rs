//! `nattrail tail`: shows the events as they happen, asking the running daemon over its control socket.
//!
//! The daemon filters and drops excess events ([`crate::export::view`]); this command reads the lines as fast as the
//! standard output takes them, and shows them. It ends when the output is closed, even while nothing happens.

pub(super) mod print;

use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use self::print::{Line, Printer};
use super::color::Choice;
use super::control::{self, PATIENCE, left, printable};
use super::{Exit, Failure, Origin, configuration};
use crate::export::view::filter::Filter;
use crate::kernel::clock;
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
duration in seconds and the packets/octets of both directions (orig, reply). A line that begins with *** is a gap: the \
events that may be missing, and the cause. Gaps pass every filter. Without a \
filter, a line that begins with --- is a checkpoint of the archive's log. Neither counts for -n. Times are UTC.

A viewer that reads too slowly, or wants more than 10000 lines per second, misses events and is told how many, as a gap (in JSON \
with the cause \"undelivered\"). The daemon waits for no viewer: collectors and copies lose nothing.

Exit status: 0 when the count is reached or the output is closed; 64 usage; 69 when no daemon answers, or it stops or is \
restarted; 77 without permission for the control socket; 78 configuration.

Examples:
  nattrail tail --src 10.1.2.3                         a subscriber's events
  nattrail tail --post 203.0.113.9:50001               who has this public address and port
  nattrail tail --proto udp --dst :53 --event create   each new DNS query
  nattrail tail --json -n 100 > sample.json            a hundred events for a program";

/// The events to show, and their form.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    filter: Filter,
    /// End after this many events
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one JSON object per line, with the names of the copies' format json
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    color: Choice,
}

/// Shows events until the count is reached, the output is closed or the daemon stops.
pub(super) fn run(
    origin: &Origin,
    options: Options,
    out: &mut (impl Write + AsFd + IsTerminal),
) -> Result<Exit, Failure> {
    let checked = options.filter.check();
    checked.map_err(|error| Failure::new(Exit::Usage, error))?;
    let config = configuration(origin)?;
    let path = control::socket(&config)?;
    let deadline = clock::uptime().saturating_add(PATIENCE);
    let explain = |error| control::explain(path, error);
    let request = format!("tail{}\n", options.filter);
    let stream = control::ask(path, &request, deadline).map_err(explain)?;
    stream.set_nonblocking(true).map_err(explain)?;
    let mut session = Session {
        path,
        stream: BufReader::new(stream),
        deadline: Some(deadline),
        unread: Vec::new(),
        printer: Printer::new(options.json, options.color.paint(out), options.count),
    };
    while session.wait(out).map_err(explain)? {
        let mut text = Vec::new();
        let done = session.read(&mut text);
        out.write_all(&text)?;
        out.flush()?;
        if done? {
            break;
        }
    }
    Ok(Exit::Success)
}

/// A connection to a daemon that shows its events.
struct Session<'a> {
    path: &'a Path,
    stream: BufReader<UnixStream>,
    /// The deadline for the daemon's first line, until that has come.
    deadline: Option<Uptime>,
    /// The beginning of a line whose end has not come yet.
    unread: Vec<u8>,
    printer: Printer,
}

impl Session<'_> {
    /// Waits until the daemon sends something. Returns whether anyone still reads `out`.
    fn wait(&self, out: &impl AsFd) -> io::Result<bool> {
        let left = self.deadline.map(left).transpose()?;
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        // A pipe without a reader and a terminal that hung up report it unasked; a file never does.
        let mut fds = [
            PollFd::new(self.stream.get_ref(), PollFlags::IN),
            PollFd::new(out, PollFlags::empty()),
        ];
        if retry_on_intr(|| poll(&mut fds, timeout.as_ref()))? == 0 {
            return Err(ErrorKind::TimedOut.into());
        }
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        Ok(!fds[1].revents().intersects(gone))
    }

    /// Reads everything there is, and writes the output into `text`. Returns whether that was all.
    fn read(&mut self, text: &mut Vec<u8>) -> Result<bool, Failure> {
        loop {
            let mut stream = self.stream.by_ref().take(LINE_LIMIT as u64);
            let read = stream.read_until(b'\n', &mut self.unread);
            if self.unread.pop_if(|last| *last == b'\n').is_some() {
                let line = mem::take(&mut self.unread);
                if self.take_line(&line, text)? {
                    return Ok(true);
                }
            } else if self.unread.len() > LINE_LIMIT {
                return Err(control::refused(self.path, "a line of more than 64 KiB"));
            } else {
                match read {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(self.lost(error)),
                    Ok(0) => return Err(self.lost(ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {}
                }
            }
            if self.stream.buffer().is_empty() {
                return Ok(false);
            }
        }
    }

    /// Returns whether that was the last line to show.
    fn take_line(&mut self, line: &[u8], text: &mut Vec<u8>) -> Result<bool, Failure> {
        match Line::parse(line) {
            Ok(Line::Begin) => {
                self.deadline = None;
                self.printer.heading(text);
            }
            Ok(Line::End) => {
                return Err(self.ended(
                    "has stopped or is being restarted",
                    "start this again when it runs",
                ));
            }
            Ok(Line::Error(message)) => {
                return Err(control::refused(self.path, printable(&message)));
            }
            Ok(Line::Record(record)) => self.printer.record(&record, line, text),
            Err(error) => {
                let message = format!("expected a record, found: {error}");
                return Err(control::refused(self.path, message));
            }
        }
        Ok(self.printer.is_done())
    }

    /// The reason why a stream ended. A daemon that has too many clients closes without an answer.
    fn lost(&self, error: io::Error) -> Failure {
        if self.deadline.is_some() {
            return control::explain(self.path, error);
        }
        self.ended(
            "has closed the connection without a word",
            "it may have ended, or this viewer read nothing while others wanted its place; \"nattrail status\" says which",
        )
    }

    fn ended(&self, how: &str, advice: &str) -> Failure {
        let path = self.path.display();
        let message =
            format!("the daemon on \"{path}\" {how}; later events are not shown: {advice}");
        Failure::new(Exit::Unavailable, message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::color::Paint;
    use super::*;

    /// The output of a session for the given words of a daemon.
    fn heard(words: &[&str]) -> (String, Result<bool, Failure>) {
        let (stream, mut daemon) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut session = Session {
            path: Path::new("/s"),
            stream: BufReader::new(stream),
            deadline: Some(Uptime::default()),
            unread: Vec::new(),
            printer: Printer::new(true, Paint(false), Some(2)),
        };
        let mut text = Vec::new();
        for part in words {
            daemon.write_all(part.as_bytes()).unwrap();
            let ending = session.read(&mut text);
            if !matches!(ending, Ok(false)) {
                return (String::from_utf8(text).unwrap(), ending);
            }
        }
        drop(daemon);
        let ending = session.read(&mut text);
        (String::from_utf8(text).unwrap(), ending)
    }

    fn message(ending: Result<bool, Failure>) -> String {
        match ending {
            Err(failure) => failure.message,
            Ok(_) => panic!("no failure"),
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
        assert!(matches!(ending, Ok(true)));
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
