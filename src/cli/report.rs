//! `nattrail report`: the sums of a day as text, JSON or a page with plots. They are those of [`crate::archive::report`].

mod html;
mod machine;
mod svg;
mod text;

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, ValueHint};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::color::Choice;
use super::progress::Progress;
use super::who::access::Access;
use super::who::subscribers::Subscribers;
use super::{Exit, Failure, Origin, configuration, page, who};
use crate::archive::report::{Day, Holdings, MOST_ADDRESSES, Ranked, Totals};
use crate::archive::row::Millis;
use crate::archive::sources::Sources;
use crate::time::Wall;

/// Paragraphs are wrapped by clap.
pub const AFTER_HELP: &str = "\
A session is of the day when it was open at some time of it. Octets, protocols and subscribers are those of sessions that \
ended on the day, since only the end tells how much there was. A port is in use from the start of a session to its end; it \
counts once in a minute, however many sessions share it. TCP and UDP have 64512 ports each (1024 to 65535) on a public \
address; the ports below are not counted.

Exit status:
  0   there are sessions
  1   there is none, and the records of that day are complete
  3   there is none, but records may be missing
  64  the command line is wrong
  65  the file of subscribers cannot be read
  69  there is neither a database nor an archive
  71  a file cannot be read or written
  77  a permission is missing
  78  the configuration is wrong

Examples:
  nattrail report
  nattrail report --day 2026-11-20 --html report.html
  nattrail report --day 2026-11-20 --archive /srv/nat --json";

#[derive(Args, Debug)]
pub struct Options {
    /// The day, in UTC, such as 2026-11-20 [default: yesterday]
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    day: Option<Day>,
    /// Read this archive too, such as a copy of another gateway's; may be given several times
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    archive: Vec<PathBuf>,
    /// List so many subscribers and public addresses, those with the most
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=MOST_ADDRESSES as i64))]
    top: u16,
    /// Write the report into this file, as one page with plots, instead of printing it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    html: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Name the subscribers out of this file: CSV with address or prefix, from, until and identifier
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    subscribers: Option<PathBuf>,
    #[command(flatten)]
    color: Choice,
}

/// Everything that a report shows.
struct Report {
    day: Day,
    made: Millis,
    top: usize,
    totals: Totals,
    holdings: Holdings,
    subscribers: Subscribers,
}

pub(super) fn run(
    origin: &Origin,
    options: &Options,
    now: Wall,
    out: &mut (impl Write + IsTerminal),
) -> Result<Exit, Failure> {
    let made = Millis::from(Wall::from_secs(now.as_secs()));
    let today = Day::of(made);
    let day = options.day.unwrap_or_else(|| today.before());
    if day > today {
        let message = format!("--day: expected a day up to today ({today} in UTC), found {day}");
        return Err(Failure::new(Exit::Usage, message));
    }
    let subscribers = who::subscribers(options.subscribers.as_deref())?;
    let config = configuration(origin)?;
    let sources = Sources::new(&config, &options.archive)
        .map_err(|message| Failure::new(Exit::Unavailable, message))?;
    // Before the work: it may be long.
    let file = options.html.as_deref();
    let file = file.map(|path| page::create(path).map(|file| (path, file)));
    let file = file.transpose()?;
    // All sealed files of the day are open at the same time. Those that cannot be opened are named in the report.
    let files = getrlimit(Resource::Nofile);
    let current = files.maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current, ..files });
    let mut progress = Progress::new(1_000_000, "MB");
    let (totals, holdings) = sources.day(day, made, &mut |done, all| progress.show(done, all));
    progress.clear();
    // It names subscribers, though nobody asked for one: no case is required.
    let mut access = Access::new(&config.archive, None, None);
    let count = usize::try_from(totals.sessions).unwrap_or(usize::MAX);
    access.push(json!({"report": day.to_string()}), "listed", count);
    access.write(now)?;
    let report = Report {
        day,
        made,
        top: usize::from(options.top),
        totals,
        holdings,
        subscribers,
    };
    let mut buffered = BufWriter::new(&mut *out);
    if options.json {
        writeln!(buffered, "{}", machine::json(&report))?;
    } else if file.is_none() {
        drop(buffered);
        let paint = options.color.paint(out);
        buffered = BufWriter::new(out);
        text::print(&report, paint, &mut buffered)?;
    }
    buffered.flush()?;
    drop(buffered);
    if let Some((path, file)) = file {
        page::write(path, file, &html::page(&report))?;
    }
    Ok(match (report.totals.sessions, report.is_complete()) {
        (1.., _) => Exit::Success,
        (0, true) => Exit::NoneComplete,
        (0, false) => Exit::NoneGap,
    })
}

impl Report {
    fn is_complete(&self) -> bool {
        self.holdings.holes.is_empty() && self.holdings.problems.is_empty()
    }

    /// Empty when the operator's list does not have the subscriber.
    fn name(&self, it: &Ranked) -> String {
        self.subscribers.of(it.address, &self.day.range())
    }
}

fn parse_day(text: &str) -> Result<Day, String> {
    Day::parse(text).ok_or_else(|| "expected a day such as 2026-11-20".to_owned())
}
