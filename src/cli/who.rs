//! `nattrail who`: who was behind a public address and port at some time.
//!
//! The command line, the requests in the forms in which they arrive, and the answer as text, JSON, CSV or a page. The
//! answer itself is [`crate::archive::answer`].

pub(super) mod access;
mod batch;
mod html;
pub(super) mod machine;
mod moment;
pub(super) mod print;
mod proof;
mod reply;
mod request;
pub(super) mod subscribers;
pub(super) mod words;

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, ValueHint};

use self::access::Access;
use self::html::Matter;
use self::moment::Moment;
use self::reply::Reply;
use self::request::{Request, endpoint};
use self::subscribers::Subscribers;
use super::color::{Choice, Paint};
use super::progress::Progress;
use super::{Exit, Failure, Origin, cannot, configuration, page, tell};
use crate::archive::answer::{self, MAX_CANDIDATES, Verdict};
use crate::archive::question::{Endpoint, Question, Subject};
use crate::archive::row::Millis;
use crate::archive::sources::Sources;
use crate::config::{Prefix, values};
use crate::session::Protocol;
use crate::time::Wall;

/// Paragraphs are wrapped by clap.
pub const AFTER_HELP: &str = "\
The answer comes from the sessions that are open at this gateway, from its record log, from its archive, and from every \
directory of --archive. A session counts when it was alive at the time, or at most the skew before or after it. Without a \
protocol or a port there may be many candidates; the answer says what would decide between them.

TIME is \"2026-11-20 14:30:00\", \"2026-11-20T14:30:00.250Z\", \"2026-11-20 15:30:00 +01:00\", \"20.11.2026 14:30\", \"Fri, 20 Nov \
2026 14:30:00 +0000\", \"20/Nov/2026:14:30:00 +0000\", or seconds since 1970 as \"@1795185000\". Without a zone it is UTC. \
Abbreviations such as CET are refused. A time in whole seconds is all of that second, and a date alone all of that day.

Each lookup is written into the access log before its answer is printed; see nattrail-archive(5).

A batch is CSV, with or without a heading; lines with an address, a port and a time; lines of tcpdump -tttt; ARF or X-ARF; \
or ACNS XML. A request that cannot be read is reported, and the others are answered.

Exit status:
  0   one subscriber or server; for --subscriber and --server, at least one session
  1   none, and the records of that time are complete
  2   several: ambiguous
  3   none, but records may be missing
  64  the command line is wrong
  65  a request, or a file of subscribers, cannot be read
  69  there is neither a database nor an archive; or there is no proof of the answer, which is printed nevertheless
  71  a file cannot be read or written
  77  a permission is missing
  78  the configuration is wrong
A batch ends with 65, or else with the largest of 0 to 3.

Examples:
  nattrail who 203.0.113.9:50520 --proto udp --at \"2026-11-20 14:30:00\"
  nattrail who 203.0.113.9:50520 --at \"20/Nov/2026:15:30:00 +0100\" --to 198.51.100.7:443 --skew 2s
  nattrail who --subscriber 10.1.2.3 --from 2026-11-20 --until 2026-11-21 --csv
  nattrail who --batch request.xml --case 4711 --html answer.html
  nattrail who 203.0.113.9:50520 --proto udp --at \"2026-11-20 14:30:00\" --proof session.proof";

/// The sessions that are asked for.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("time").args(["at", "from"])))]
pub(super) struct Selection {
    /// The public address and its port: `203.0.113.9:50520` or `[2001:db8::1]:443`
    #[arg(value_name = "ADDRESS:PORT", value_parser = parse_endpoint, requires = "time")]
    address: Option<Endpoint>,
    /// The sessions of this subscriber or network
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix, requires = "time")]
    subscriber: Option<Prefix>,
    /// The sessions with this server
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_endpoint, requires = "time")]
    server: Option<Endpoint>,
    /// The time
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    at: Option<Moment>,
    /// The beginning of an interval
    #[arg(long, value_name = "TIME", value_parser = moment::parse, requires = "until")]
    from: Option<Moment>,
    /// The end of the interval
    #[arg(long, value_name = "TIME", value_parser = moment::parse, requires = "from")]
    until: Option<Moment>,
    /// Look this much before and after the time as well, since clocks differ
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_skew)]
    skew: Duration,
    /// Only this protocol, by name or number
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_protocol)]
    proto: Option<Protocol>,
    /// Only sessions with this other side, which the public address reached or was reached by
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_endpoint, conflicts_with_all = ["subscriber", "server"])]
    to: Option<Endpoint>,
}

/// The question, and the form of the answer.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("subject").required(true).args(["address", "subscriber", "server", "batch"])))]
pub struct Options {
    #[command(flatten)]
    selection: Selection,
    /// Answer each request in this file ("-": standard input)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["time", "to", "proto"])]
    batch: Option<PathBuf>,
    /// Ask this archive too, such as a copy of another gateway's; may be given several times
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    archive: Vec<PathBuf>,
    /// Print JSON, one object for each request
    #[arg(long)]
    json: bool,
    /// Print comma-separated values, the first line the names of the columns
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Also write the answer into this file, as one page to print or attach
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    html: Option<PathBuf>,
    /// Write a proof of the session into this file; the answer has to be one session that is sealed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "batch")]
    proof: Option<PathBuf>,
    /// The case that the request belongs to
    #[arg(long, value_name = "REFERENCE")]
    case: Option<String>,
    /// The reason for the request
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Name the subscribers out of this file: CSV with address or prefix, from, until and identifier
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    subscribers: Option<PathBuf>,
    #[command(flatten)]
    color: Choice,
}

/// A question, or the reason why there is none.
struct Asked {
    line: Option<usize>,
    question: Result<(Question, bool), String>,
}

/// Answers all questions.
pub(super) fn run(
    origin: &Origin,
    options: Options,
    now: Wall,
    out: &mut (impl Write + IsTerminal),
) -> Result<Exit, Failure> {
    let asked = asked(&options)?;
    let count = asked.len() as u64;
    let subscribers = subscribers(options.subscribers.as_deref())?;
    let config = configuration(origin)?;
    let (case, reason) = (options.case.as_deref(), options.reason.as_deref());
    access::check_case(&config.archive, case)?;
    let access = Access::new(&config.archive, case, reason);
    let sources = Sources::new(&config, &options.archive)
        .map_err(|message| Failure::new(Exit::Unavailable, message))?;
    // Before the work: it may be long.
    let page = options
        .html
        .as_deref()
        .map(|path| page::create(path).map(|file| (path, file)));
    let page = page.transpose()?;
    let is_terminal = out.is_terminal();
    let mut answers = Answers {
        options: &options,
        paint: options.color.paint(out),
        out,
        text: Vec::new(),
        access,
        subscribers,
        sources,
        now: now.into(),
        sections: String::new(),
        exit: Exit::Success,
        unproved: None,
    };
    answers.begin()?;
    // On a terminal the answers themselves show it.
    let is_shown = options.batch.is_some() && !is_terminal;
    let mut progress = Progress::new(1, "requests");
    for (done, asked) in (1..).zip(asked) {
        answers.add(asked)?;
        if is_shown {
            progress.show(done, count);
        }
    }
    progress.clear();
    answers.flush()?;
    if let Some((path, file)) = page {
        let matter = Matter {
            case: options.case.as_deref(),
            reason: options.reason.as_deref(),
            now: now.into(),
        };
        page::write(path, file, &html::page(&matter, &answers.sections))?;
    }
    answers.unproved.map_or(Ok(answers.exit), Err)
}

struct Answers<'a, W: Write> {
    options: &'a Options,
    paint: Paint,
    out: &'a mut W,
    /// Answers that are not printed yet.
    text: Vec<u8>,
    access: Access,
    subscribers: Subscribers,
    sources: Sources,
    now: Millis,
    /// Those of the page.
    sections: String,
    exit: Exit,
    /// Why there is no proof.
    unproved: Option<Failure>,
}

impl<W: Write> Answers<'_, W> {
    fn begin(&mut self) -> io::Result<()> {
        if self.options.csv {
            writeln!(self.text, "{}", machine::CSV)?;
        }
        Ok(())
    }

    /// Prints the answers, once they are in the access log.
    fn flush(&mut self) -> Result<(), Failure> {
        self.access.write(self.now.wall())?;
        self.out.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }

    fn add(&mut self, asked: Asked) -> Result<(), Failure> {
        let (question, is_assumed_utc) = match asked.question {
            Ok(question) => question,
            Err(reason) => {
                return self.refuse(asked.line.unwrap_or_default(), &reason);
            }
        };
        let answer = answer::answer(&question, &mut self.sources.open(), self.now);
        let Ok(answer) = answer else {
            let message = format!(
                "the answer has more than {MAX_CANDIDATES} sessions: ask for a shorter time, a port, or a protocol"
            );
            return match asked.line {
                Some(line) => self.refuse(line, &message),
                None => Err(Failure::new(Exit::Usage, message)),
            };
        };
        self.exit = worse(self.exit, exit_of(answer.verdict));
        self.access.add(&answer);
        if self.options.batch.is_none() || self.access.is_full() {
            self.flush()?;
        }
        let reply = Reply {
            line: asked.line,
            answer: &answer,
            subscribers: &self.subscribers,
            is_assumed_utc,
        };
        let proof = self.options.proof.as_deref().map(|path| {
            let proof = proof::write(path, &answer, self.sources.directories());
            proof.unwrap_or_else(|failure| {
                let text = format!("There is no proof: {}.", failure.message);
                self.unproved = Some(failure);
                text
            })
        });
        if self.options.html.is_some() {
            self.sections += &html::section(&reply, proof.as_deref());
        }
        if self.options.json {
            let mut object = machine::json(&reply);
            let matter = [
                ("case", &self.options.case),
                ("reason", &self.options.reason),
            ];
            for (name, text) in matter {
                if let Some(text) = text {
                    object[name] = text.as_str().into();
                }
            }
            writeln!(self.text, "{object}")?;
        } else if self.options.csv {
            machine::csv(&reply, &mut self.text)?;
            for problem in &answer.problems {
                tell("warning", problem);
            }
        } else {
            print::print(&reply, self.paint, &mut self.text)?;
            if self.options.batch.is_some() {
                writeln!(self.text)?;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, line: usize, reason: &str) -> Result<(), Failure> {
        self.exit = Exit::Data;
        if self.options.json {
            let object = serde_json::json!({"line": line, "error": reason});
            writeln!(self.text, "{object}")?;
        } else {
            self.flush()?;
            self.out.flush()?;
            tell(
                "error",
                &format!("line {line}: {}", super::control::printable(reason)),
            );
        }
        if self.options.html.is_some() {
            self.sections += &html::unread(line, reason);
        }
        Ok(())
    }
}

/// Those of the operator's list, if there is one.
pub(super) fn subscribers(path: Option<&Path>) -> Result<Subscribers, Failure> {
    let Some(path) = path else {
        return Ok(Subscribers::default());
    };
    let wrong = |error| Failure::new(Exit::Data, format!("\"{}\": {error}", path.display()));
    Subscribers::parse(&read(path)?).map_err(wrong)
}

fn asked(options: &Options) -> Result<Vec<Asked>, Failure> {
    if let Some(path) = &options.batch {
        let entries = batch::read(&read(path)?);
        if entries.is_empty() {
            let path = path.display();
            let message = format!("\"{path}\": expected requests, found none");
            return Err(Failure::new(Exit::Data, message));
        }
        let asked = entries.into_iter().map(|entry| Asked {
            line: Some(entry.line),
            question: entry
                .request
                .map(|request| question_of(request, options.selection.skew)),
        });
        return Ok(asked.collect());
    }
    Ok(vec![Asked {
        line: None,
        question: Ok(options.selection.question()?),
    }])
}

impl Selection {
    /// The question, and whether its time had no zone.
    pub(super) fn question(&self) -> Result<(Question, bool), Failure> {
        let (time, is_assumed_utc) = match (&self.at, &self.from, &self.until) {
            (Some(at), ..) => (at.range.clone(), at.is_assumed_utc),
            (None, Some(from), Some(until)) => {
                let range = *from.range.start()..=*until.range.end();
                (range, from.is_assumed_utc || until.is_assumed_utc)
            }
            // clap has seen to that.
            _ => {
                return Err(Failure::new(
                    Exit::Usage,
                    "expected --at, or --from and --until",
                ));
            }
        };
        if time.is_empty() {
            let message = "--until: expected a time after that of --from, found one before it";
            return Err(Failure::new(Exit::Usage, message));
        }
        let subject = match (self.address, self.subscriber, self.server) {
            (_, Some(prefix), _) => Subject::Subscriber(prefix),
            (_, _, Some(server)) => Subject::Server(server),
            (Some(at), ..) => Subject::Public { at, to: self.to },
            _ => return Err(Failure::new(Exit::Usage, "expected an address")),
        };
        let question = Question {
            subject,
            protocol: self.proto,
            time,
            skew: self.skew,
        };
        Ok((question, is_assumed_utc))
    }
}

fn question_of(request: Request, skew: Duration) -> (Question, bool) {
    let question = Question {
        subject: Subject::Public {
            at: request.at,
            to: request.to,
        },
        protocol: request.protocol,
        time: request.time.range,
        skew,
    };
    (question, request.time.is_assumed_utc)
}

const fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::One | Verdict::Listed => Exit::Success,
        Verdict::NoneComplete => Exit::NoneComplete,
        Verdict::Several => Exit::Several,
        Verdict::NoneGap => Exit::NoneGap,
    }
}

fn worse(a: Exit, b: Exit) -> Exit {
    if a as u8 >= b as u8 { a } else { b }
}

/// Reads a file, or the standard input. Text that is not UTF-8 is replaced: one wrong letter stops no batch.
fn read(path: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => io::stdin().read_to_end(&mut bytes).map(|_| ()),
        false => fs::read(path).map(|read| bytes = read),
    };
    read.map_err(|error| cannot(path, "be read", &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    let expected = "expected an address with or without a port, such as `203.0.113.9:50520` or `[2001:db8::1]:443`";
    endpoint(text).ok_or_else(|| expected.to_owned())
}

fn parse_prefix(text: &str) -> Result<Prefix, String> {
    let usual = "an address or a prefix such as 10.1.2.0/24";
    Prefix::parse(text, usual).map_err(|expected| format!("expected {expected}"))
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    Protocol::parse(text).ok_or_else(|| "expected a protocol such as tcp, udp or 47".to_owned())
}

fn parse_skew(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(86_400);
    values::duration(Duration::ZERO..=most)(text)
        .map_err(|_| "expected a duration from 0s to 1d such as 2s or 500ms".to_owned())
}
