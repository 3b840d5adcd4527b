//! `nattrail status`: asks the running daemon over its control socket.
//!
//! It waits no longer than five seconds for an answer, whatever the daemon does.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Deserialize as _;

use super::color::{ALARM, BOLD, Choice, Paint, YELLOW};
use super::control::{self, printable};
use super::{Exit, Failure, Origin, configuration, tell};
use crate::metrics::Metrics;
use crate::time::Wall;

/// An empty screen, from the upper left corner on (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The words of an answer that stand out: past losses, and states that may lead to losses.
const STRIKING: [(&str, &str); 5] = [
    ("the last until", YELLOW),
    ("state failing", ALARM),
    ("state refused", ALARM),
    ("state ended", ALARM),
    ("not available", ALARM),
];

/// The form of the output, and how often to print it.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Print the JSON object as the daemon sends it, on one line
    #[arg(long)]
    json: bool,
    /// Print what Prometheus gets, in its text format
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
    /// Print it repeatedly, every 2 seconds unless given otherwise
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    watch: Option<u32>,
    #[command(flatten)]
    color: Choice,
}

/// Prints the counters of this configuration's daemon.
pub(super) fn run(
    origin: &Origin,
    options: Options,
    out: &mut (impl Write + IsTerminal),
) -> Result<Exit, Failure> {
    let config = configuration(origin)?;
    let paint = options.color.paint(out);
    let path = control::socket(&config)?;
    let people = !options.json && !options.prometheus;
    let mut first = true;
    loop {
        let answer = ask(path).map_err(|error| control::explain(path, error))?;
        let metrics = parse(&answer).map_err(|message| control::refused(path, message))?;
        if first {
            let stranger = origin
                .config
                .as_deref()
                .and_then(|file| stranger(&metrics, file));
            let remarks = stranger.into_iter().chain(unread(&metrics));
            remarks.for_each(|message| tell("warning", &message));
        }
        if people && options.watch.is_some() && out.is_terminal() {
            out.write_all(CLEAR.as_bytes())?;
        } else if people && !first {
            out.write_all(b"\n")?;
        }
        first = false;
        match (options.json, options.prometheus) {
            (true, _) => out.write_all(&answer)?,
            (_, true) => out.write_all(metrics.to_prometheus().as_bytes())?,
            _ => out.write_all(colored(&metrics.to_string(), paint).as_bytes())?,
        }
        out.flush()?;
        match options.watch {
            Some(seconds) => thread::sleep(Duration::from_secs(seconds.into())),
            None => return Ok(Exit::Success),
        }
    }
}

/// The remark when the daemon that answered uses another file than `file`.
fn stranger(metrics: &Metrics, file: &Path) -> Option<String> {
    let theirs = match &metrics.configuration {
        None => "no configuration file".to_owned(),
        Some(theirs) => {
            let canonical = |file: &Path| fs::canonicalize(file).unwrap_or(file.to_owned());
            if canonical(Path::new(theirs)) == canonical(file) {
                return None;
            }
            format!("the configuration {}", printable(theirs))
        }
    };
    Some(format!(
        "the daemon that answers has {theirs}, not {}: to reach an instance, use --instance NAME",
        file.display()
    ))
}

/// The remark when the configuration file has changed since the daemon read it.
pub(super) fn unread(metrics: &Metrics) -> Option<String> {
    let (file, read) = (metrics.configuration.as_ref()?, metrics.configuration_read?);
    // Also a file that was moved there, whatever its own date is, and a symbolic link that leads to another.
    let found = [fs::metadata(file), fs::symlink_metadata(file)].into_iter();
    let changed = found
        .flatten()
        .map(|found| found.ctime() * 1_000_000_000 + found.ctime_nsec())
        .max()?;
    (Wall::from_nanos(changed.try_into().ok()?) > read).then(|| {
        format!(
            "{} has changed since the daemon read it at {read}: run \"nattrail reload\" to apply it",
            printable(file)
        )
    })
}

fn colored(text: &str, paint: Paint) -> String {
    let lines = text.lines().map(|line| {
        let (subject, rest) = line.split_at_checked(12).unwrap_or((line, ""));
        format!("{}{rest}\n", paint.text(subject, BOLD))
    });
    STRIKING
        .iter()
        .fold(lines.collect(), |text, (words, color)| {
            text.replace(words, &paint.text(words, color))
        })
}

/// The metrics of the daemon on `path`, as it sends them.
pub(super) fn ask(path: &Path) -> io::Result<Vec<u8>> {
    control::request(path, "status\n")
}

/// The metrics in an answer, or a message about its content.
pub(super) fn parse(answer: &[u8]) -> Result<Metrics, String> {
    let value = control::value(answer)?;
    Metrics::deserialize(&value).map_err(control::wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_and_losses_are_coloured() {
        let text = "nattrail 0.1.0, pid 7\nGaps:       restart 1, the last until 2026\nOutput:     a, state failing, lost 0\n";
        assert_eq!(colored(text, Paint(false)), text);
        let shown = colored(text, Paint(true));
        for part in [
            "\x1b[1mGaps:       \x1b[0mrestart 1, \x1b[33mthe last until\x1b[0m 2026\n",
            "\x1b[1mOutput:     \x1b[0ma, \x1b[1;37;41mstate failing\x1b[0m, lost 0\n",
        ] {
            assert!(shown.contains(part), "{shown:?}");
        }
    }
}
