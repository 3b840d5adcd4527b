//! `nattrail status`: asks the running daemon over its control socket.
//!
//! Whatever the daemon does or does not do, an answer is waited for no longer than five seconds.

use std::fs;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::Value;

use super::control::{self, PATIENCE, left, printable};
use super::{Exit, Failure, configuration, tell};
use crate::kernel::clock;
use crate::metrics::Metrics;

/// Longer than any answer of a daemon.
const ANSWER_LIMIT: usize = 16 << 20;

/// From the upper left corner on, an empty screen (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// For whom to print the answer, and how often.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Print the JSON object as the daemon sends it, on one line
    #[arg(long)]
    json: bool,
    /// Print what Prometheus gets, in its text format
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
    /// Print it again and again, every 2 seconds if not said otherwise
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    watch: Option<u32>,
}

/// Prints what the daemon of this configuration has counted.
pub(super) fn run(
    file: Option<&Path>,
    options: Options,
    out: &mut (impl Write + IsTerminal),
) -> Result<Exit, Failure> {
    let config = configuration(file)?;
    let path = control::socket(&config)?;
    let people = !options.json && !options.prometheus;
    let mut first = true;
    loop {
        let answer = ask(path).map_err(|error| control::explain(path, error))?;
        let metrics = parse(&answer).map_err(|message| control::refused(path, message))?;
        if first && let Some(message) = file.and_then(|file| stranger(&metrics, file)) {
            tell("warning", &message);
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
            _ => write!(out, "{metrics}")?,
        }
        out.flush()?;
        match options.watch {
            Some(seconds) => thread::sleep(Duration::from_secs(seconds.into())),
            None => return Ok(Exit::Success),
        }
    }
}

/// The remark when the daemon that answered goes by another file than `file`. A path that is relative is one to the
/// directory it was started in: nothing is said of it.
pub(super) fn stranger(metrics: &Metrics, file: &Path) -> Option<String> {
    let theirs = match &metrics.configuration {
        None => "no configuration file".to_owned(),
        Some(theirs) => {
            let canonical = |file: &Path| fs::canonicalize(file).unwrap_or(file.to_owned());
            let same = canonical(Path::new(theirs)) == canonical(file);
            if same || !theirs.starts_with('/') {
                return None;
            }
            format!("the configuration {}", printable(theirs))
        }
    };
    Some(format!(
        "the daemon that answers has {theirs}, not {}: an instance is reached with its RUNTIME_DIRECTORY, such as \
         /run/nattrail@NAME",
        file.display()
    ))
}

/// The answer of the daemon on `path`.
pub(super) fn ask(path: &Path) -> io::Result<Vec<u8>> {
    let deadline = clock::uptime().saturating_add(PATIENCE);
    let mut stream = control::ask(path, "status\n", deadline)?;
    let mut answer = Vec::new();
    let mut room = [0; 16 << 10];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut room) {
            Ok(0) if answer.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(answer),
            Ok(_) if answer.len() > ANSWER_LIMIT => return Err(ErrorKind::FileTooLarge.into()),
            Ok(count) => answer.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The metrics in an answer, or what is there instead.
pub(super) fn parse(answer: &[u8]) -> Result<Metrics, String> {
    let wrong = |error| format!("expected a JSON object, found: {error}");
    let value: Value = serde_json::from_slice(answer).map_err(wrong)?;
    match value["error"].as_str() {
        Some(message) => Err(printable(message)),
        None => Metrics::deserialize(&value).map_err(wrong),
    }
}
