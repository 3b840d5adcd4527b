//! The command line: arguments in, a subcommand called, its outcome as an exit status of sysexits(3).

mod check;
mod control;
mod convert;
mod pending;
mod run;
mod service;
mod status;
mod tail;
mod version;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, ValueHint};

use self::service::Action;
use crate::config::FILE_VARIABLE;
use crate::daemon::clock;

/// How the program ends, by the numbers of sysexits(3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    Success = 0,
    /// The command line is wrong.
    Usage = 64,
    /// A file to convert is not what it should be.
    Data = 65,
    /// A collector, a target or a service of the kernel is not there.
    Unavailable = 69,
    /// The operating system refused something.
    Os = 71,
    /// A capability or the permission to a file is missing.
    NoPermission = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// NAT-audit logger: writes down every address translation of this gateway.
#[derive(Debug, Parser)]
#[command(name = "nattrail", version, arg_required_else_help = true)]
struct Arguments {
    /// Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if
    /// there]
    #[arg(short, long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const CHECK_STATUSES: &str = "\
Exit status: that of the worst line.
  0   all is well, or there are warnings only: the daemon can do its work, the records may lack something
  69  something is not there: a route, a socket, events of the kernel; or the daemon that runs loses records; with
      --strict also for warnings
  71  the system refused to say
  77  a permission is missing
  78  the configuration is wrong";

#[derive(Debug, Subcommand)]
enum Command {
    /// Log translations until a signal ends it (SIGHUP: read the configuration again, SIGUSR1: log statistics)
    Run,
    /// Start the service, by systemctl where systemd runs, else by the init script, and wait until it is ready
    Start(service::Options),
    /// Stop the service, and wait until it has ended
    Stop(service::Options),
    /// Stop the service if it runs, and start it
    Restart(service::Options),
    /// Let the running service read its configuration again and reopen its files
    Reload(service::Options),
    /// Start the service now and whenever the machine starts
    Install(service::Options),
    /// Check configuration, permissions, kernel settings, collectors, syslog targets, and how the daemon fares if it runs
    #[command(after_help = CHECK_STATUSES)]
    Check {
        /// Fail for warnings too
        #[arg(long)]
        strict: bool,
        /// Print an array of JSON objects
        #[arg(long)]
        json: bool,
    },
    /// List the connections that were open at the daemon's last flush
    Pending(pending::Form),
    /// Ask the running daemon what it has counted
    Status {
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
    },
    /// Write the configuration of another program as nattrail's, and name what has no equivalent
    Convert {
        /// Whose configuration it is
        program: convert::Program,
        /// Its configuration file; - for the standard input
        file: PathBuf,
        /// Write to this file, which must not exist, instead of the standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show events as they happen, from the running daemon
    #[command(after_help = tail::AFTER_HELP)]
    Tail(tail::Options),
    /// Print the version
    Version,
}

/// The command line as clap knows it: what manual and completions are held against.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => dispatch(arguments),
        Err(error) => {
            // Nobody is left to be told when neither output can be written to.
            let _ = error.print();
            if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Success.into()
            }
        }
    }
}

fn dispatch(arguments: Arguments) -> ExitCode {
    let option = arguments.config;
    let file = configuration_file(option.clone(), std::env::var_os(FILE_VARIABLE));
    let file = file.as_deref();
    let serve = |action, options| service::run(action, options, option.as_deref()).into();
    let exit = match arguments.command {
        Command::Start(options) => return serve(Action::Start, options),
        Command::Stop(options) => return serve(Action::Stop, options),
        Command::Restart(options) => return serve(Action::Restart, options),
        Command::Reload(options) => return serve(Action::Reload, options),
        Command::Install(options) => return serve(Action::Install, options),
        Command::Run => run::run(file),
        Command::Check { strict, json } => {
            let form = check::Form { strict, json };
            printed(|out| check::run(file, environment(), form, out))
        }
        Command::Pending(form) => {
            let now = clock::read().wall;
            printed(|out| pending::run(file, environment(), form, now, out))
        }
        Command::Status {
            json,
            prometheus,
            watch,
        } => {
            let audience = match (json, prometheus) {
                (true, _) => status::Audience::Json,
                (_, true) => status::Audience::Prometheus,
                _ => status::Audience::People,
            };
            let people = audience == status::Audience::People;
            let form = status::Form {
                audience,
                again: watch.map(|seconds| Duration::from_secs(seconds.into())),
                clear: watch.is_some() && people && io::stdout().is_terminal(),
            };
            printed(|out| status::run(file, environment(), form, out))
        }
        Command::Convert {
            program,
            file,
            output,
        } => printed(|out| convert::run(program, &file, output.as_deref(), out)),
        Command::Tail(options) => printed(|out| tail::run(file, environment(), options, out)),
        Command::Version => printed(|out| version::run(out)),
    };
    exit.into()
}

/// Runs a command that prints to the standard output.
fn printed(command: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<Exit>) -> Exit {
    let mut out = io::stdout().lock();
    match command(&mut out).and_then(|exit| out.flush().map(|()| exit)) {
        Ok(exit) => exit,
        // Whoever reads has seen enough, as in "nattrail pending | head".
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
        Err(error) => {
            complain(&format!("standard output: {error}"));
            Exit::Os
        }
    }
}

/// Says on the standard error what prevents the command, in one write.
fn complain(message: &str) {
    tell("error", message);
}

/// Says what the user should know about what the command does all the same.
fn remark(message: &str) {
    tell("warning", message);
}

fn tell(word: &str, message: &str) {
    let lines: String = message
        .lines()
        .map(|line| format!("{word}: {line}\n"))
        .collect();
    // Nobody is left to be told when the standard error is gone.
    let _ = io::stderr().write_all(lines.as_bytes());
}

/// The option decides, then the variable; an empty variable is the same as none.
fn configuration_file(option: Option<PathBuf>, variable: Option<OsString>) -> Option<PathBuf> {
    option.or_else(|| {
        let variable = variable.filter(|value| !value.is_empty());
        variable.map(|value| Path::new(&value).to_path_buf())
    })
}

/// The process's environment. What is not UTF-8 is replaced, and then refused as a value where it matters.
fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn the_option_goes_before_the_variable() {
        let file = |option: Option<&str>, variable: Option<&str>| {
            configuration_file(option.map(PathBuf::from), variable.map(OsString::from))
        };
        assert_eq!(file(Some("/a"), Some("/b")), Some(PathBuf::from("/a")));
        assert_eq!(file(None, Some("/b")), Some(PathBuf::from("/b")));
        assert_eq!(file(None, Some("")), None);
    }
}
