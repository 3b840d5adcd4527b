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

/// For whom to print the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Audience {
    People,
    /// As the daemon sends it.
    Json,
    Prometheus,
}

/// How to print the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub audience: Audience,
    /// Time between two answers; `None` for one answer.
    pub again: Option<Duration>,
    /// Whether each answer takes the place of the one before, as on a terminal.
    pub clear: bool,
}

/// Prints what the daemon of this configuration has counted. What prevents it is said on the standard error.
///
/// # Errors
/// When `out` cannot be written to.
pub(super) fn run(
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
        let Answer { text, value } = match answer(config.control.socket.as_deref(), form.audience) {
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
        } else if !first && form.audience == Audience::People {
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

/// What there is to say when the daemon that answered goes by another file than `file`. A path that is relative is one to the
/// directory it was started in: nothing is said of it.
pub(super) fn stranger(answer: &Value, file: &Path) -> Option<String> {
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

fn answer(socket: Option<&Path>, audience: Audience) -> Result<Answer, Failure> {
    let path = socket.ok_or(Failure::SwitchedOff)?;
    let refused = |message: String| Failure::Refused(path.to_owned(), message);
    let deadline = clock::uptime().saturating_add(PATIENCE);
    let bytes = ask(path, deadline).map_err(|error| Failure::explain(path, error))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| refused(format!("expected a JSON object, found: {error}")))?;
    if let Some(message) = value.get("error").and_then(Value::as_str) {
        return Err(refused(printable(message)));
    }
    let metrics = || Metrics::from_json(&bytes).map_err(|error| refused(error.to_string()));
    let text = match audience {
        Audience::People => metrics()?.to_string(),
        Audience::Prometheus => metrics()?.to_prometheus(),
        Audience::Json => String::from_utf8(bytes).map_err(|error| refused(error.to_string()))?,
    };
    Ok(Answer { text, value })
}

/// One request and its answer.
pub(super) fn ask(path: &Path, deadline: Uptime) -> io::Result<Vec<u8>> {
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
