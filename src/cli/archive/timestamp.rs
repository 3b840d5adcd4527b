//! `nattrail archive timestamp`: has an authority outside sign when the archive's log had its present state.
//!
//! The archiver itself has no network. This is a process of its own, which runs a program of the operator's choice without a
//! shell, gives it a bounded time and takes a bounded answer. What is not a token about the very checkpoint is not stored.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::archive::evidence;
use crate::archive::proof::timestamp::{self, MAX_ANSWER, Token};
use crate::archive::proof::{self, tiles::read_checkpoint};
use crate::cli::control::printable;
use crate::cli::{Exit, Failure, cannot};
use crate::config::{Archive, values};
use crate::kernel::host_name;

/// As much of the program's standard error as a message quotes.
const MAX_WORDS: u64 = 2048;

#[derive(clap::Args, Debug)]
pub struct Options {
    /// End the program of archive.timestamp after this time
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_timeout)]
    timeout: Duration,
}

pub(super) fn run(
    config: &Archive,
    options: &Options,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let Some((program, arguments)) = config.timestamp.split_first() else {
        let message = "archive.timestamp: expected a program and its arguments, found none; nattrail-proof(7) has an example";
        return Err(Failure::new(Exit::Config, message));
    };
    let gateway = config.gateway.clone().unwrap_or_else(host_name);
    let log = evidence::log_directory(&config.directory, &gateway);
    let (note, checkpoint) = read_checkpoint(&log.join("checkpoint")).map_err(explain)?;
    let (note, size) = (note.to_string(), checkpoint.size);
    let origin = &checkpoint.origin;
    if timestamp::is_stored(&log, size, &note) {
        writeln!(
            out,
            "the log {origin} has a time stamp over its {size} entries already"
        )?;
        return Ok(Exit::Success);
    }
    let refuse = |reason: String| {
        let message = format!("archive.timestamp: \"{program}\": {}", printable(&reason));
        Failure::new(Exit::Unavailable, message)
    };
    let mut nonce = [0; 8];
    let random = SystemRandom::new().fill(&mut nonce);
    random.map_err(|_| Failure::new(Exit::Os, "the system gives no random octets"))?;
    let request = timestamp::request(note.as_bytes(), nonce);
    let mut command = Command::new(program);
    command.args(arguments);
    let answer = ask(command, &request, options.timeout).map_err(refuse)?;
    let token = Token::read(&answer).map_err(refuse)?;
    if !token.is_about(note.as_bytes()) {
        let reason = "the token is about other octets than those of the checkpoint";
        return Err(refuse(reason.to_owned()));
    }
    if !token.answers(nonce) {
        let reason =
            "the token has another nonce than the request: it is an answer to another request";
        return Err(refuse(reason.to_owned()));
    }
    timestamp::store(&log, size, &note, &answer).map_err(explain)?;
    let time = token.time;
    writeln!(
        out,
        "the log {origin} had {size} entries at {time}, says the authority"
    )?;
    Ok(Exit::Success)
}

fn explain(error: proof::Error) -> Failure {
    match error {
        proof::Error::Io(path, error) => cannot(&path, "be read or written", &error),
        error => Failure::new(Exit::Unavailable, error),
    }
}

/// The end of a program, and what it printed.
type Ended = io::Result<(ExitStatus, Vec<u8>, Vec<u8>)>;

/// Runs a command with this input, and returns its output.
fn ask(mut command: Command, input: &[u8], timeout: Duration) -> Result<Vec<u8>, String> {
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // A group of its own, so that those whom it starts end with it.
    let spawned = streams.stderr(Stdio::piped()).process_group(0).spawn();
    let mut child = spawned.map_err(|error| format!("cannot be started: {error}"))?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(mut stdin) = child.stdin.take() {
        // It has room in a pipe; a program that does not read it has a reason, and says so.
        let _ = stdin.write_all(input);
    }
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(finish(child)));
    let ended = receiver.recv_timeout(timeout);
    if let (Err(_), Some(group)) = (&ended, group) {
        // It has not been waited for, so the number is still its own.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let ended = ended.map_err(|_| format!("gave no answer within {timeout:?}, and was ended"))?;
    let (status, answer, words) = ended.map_err(|error| format!("cannot be read: {error}"))?;
    if answer.len() > MAX_ANSWER {
        return Err(format!(
            "printed more than {MAX_ANSWER} octets, which no answer has"
        ));
    }
    if !status.success() {
        let words = String::from_utf8_lossy(&words);
        let words = words.trim().replace('\n', "; ");
        return Err(format!("ended with {status}: {words}"));
    }
    Ok(answer)
}

/// Reads both outputs to their end or their bound, and waits.
fn finish(mut child: Child) -> Ended {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let words = thread::spawn(move || {
        let mut words = Vec::new();
        let mut stderr = stderr?;
        stderr
            .by_ref()
            .take(MAX_WORDS)
            .read_to_end(&mut words)
            .ok()?;
        let _ = io::copy(&mut stderr, &mut io::sink());
        Some(words)
    });
    let mut answer = Vec::new();
    if let Some(stdout) = stdout {
        // Then the program finds its output closed.
        stdout
            .take(MAX_ANSWER as u64 + 1)
            .read_to_end(&mut answer)?;
    }
    let status = child.wait()?;
    let words = words.join().ok().flatten().unwrap_or_default();
    Ok((status, answer, words))
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    values::at_least_a_second(text)
        .map_err(|_| "expected a duration of at least 1s, such as \"1m\"".to_owned())
}
