//! `nattrail status`: asks the running daemon over its control socket.
//!
//! Whatever the daemon does or does not do, an answer is waited for no longer than five seconds.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::control::{Failure, PATIENCE, connect_by, left, printable};
use super::{Exit, complain, remark};
use crate::config::Config;
use crate::daemon::clock;
use crate::metrics::Metrics;
use crate::time::Uptime;

/// Longer than any answer of a daemon.
const ANSWER_LIMIT: usize = 16 << 20;

/// From the upper left corner on, an empty screen (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// How to print the answer.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub json: bool,
    /// Time between two answers; `None` for one answer.
    pub again: Option<Duration>,
    /// Whether each answer takes the place of the one before, as on a terminal.
    pub clear: bool,
}

/// Prints what the daemon of this configuration has counted. What prevents it is said on the standard error.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    form: Form,
    out: &mut impl Write,
) -> io::Result<Exit> {
    let config = match Config::load(file, environment) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            complain(&error.to_string());
            return Ok(Exit::Config);
        }
    };
    let mut first = true;
    loop {
        let Answer { text, value } = match answer(config.control.socket.as_deref(), form.json) {
            Ok(answer) => answer,
            Err(failure) => {
                complain(&failure.to_string());
                return Ok(failure.exit());
            }
        };
        if first && let Some(message) = file.and_then(|file| stranger(&value, file)) {
            remark(&message);
        }
        if form.clear {
            out.write_all(CLEAR.as_bytes())?;
        } else if !first && !form.json {
            out.write_all(b"\n")?;
        }
        first = false;
        out.write_all(text.as_bytes())?;
        out.flush()?;
        match form.again {
            Some(interval) => thread::sleep(interval),
            None => return Ok(Exit::Success),
        }
    }
}

/// What there is to say when a daemon that can be reached on `socket` within `patience` goes by another file than `file`.
pub fn find_stranger(socket: &Path, file: &Path, patience: Duration) -> Option<String> {
    let bytes = ask(socket, clock::uptime().saturating_add(patience)).ok()?;
    stranger(&serde_json::from_slice(&bytes).ok()?, file)
}

/// The same of its answer. A path that is relative is one to the directory the daemon was started in: nothing is said of it.
fn stranger(answer: &Value, file: &Path) -> Option<String> {
    let theirs = match answer.get("configuration")? {
        Value::Null => "no configuration file".to_owned(),
        Value::String(theirs) => {
            let same = same_file(Path::new(theirs), file);
            if same || !theirs.starts_with('/') {
                return None;
            }
            format!("the configuration {}", printable(theirs))
        }
        _ => return None,
    };
    Some(format!(
        "the daemon that answers has {theirs}, not {}: an instance is reached with its RUNTIME_DIRECTORY, such as \
         /run/nattrail@NAME",
        file.display()
    ))
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// What a daemon answered.
struct Answer {
    /// As it is printed, with its line feed.
    text: String,
    value: Value,
}

fn answer(socket: Option<&Path>, json: bool) -> Result<Answer, Failure> {
    let path = socket.ok_or(Failure::SwitchedOff)?;
    let refused = |message: String| Failure::Refused(path.to_owned(), message);
    let deadline = clock::uptime().saturating_add(PATIENCE);
    let bytes = ask(path, deadline).map_err(|error| Failure::explain(path, error))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| refused(format!("expected a JSON object, found: {error}")))?;
    if let Some(message) = value.get("error").and_then(Value::as_str) {
        return Err(refused(printable(message)));
    }
    let text = if json {
        String::from_utf8(bytes).map_err(|error| refused(error.to_string()))?
    } else {
        let metrics = Metrics::from_json(&bytes).map_err(|error| refused(error.to_string()))?;
        metrics.to_string()
    };
    Ok(Answer { text, value })
}

/// One request and its answer.
fn ask(path: &Path, deadline: Uptime) -> io::Result<Vec<u8>> {
    let mut stream = connect_by(path, deadline)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(b"status\n")?;
    let mut answer = Vec::new();
    let mut room = [0; 16 << 10];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut room) {
            Ok(0) if answer.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(answer),
            Ok(count) if answer.len() + count <= ANSWER_LIMIT => {
                answer.extend_from_slice(&room[..count]);
            }
            Ok(_) => return Err(ErrorKind::FileTooLarge.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
