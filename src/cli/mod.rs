//! The command line: arguments in, a subcommand called, its outcome as an exit status of sysexits(3).

mod archive;
mod check;
mod color;
mod control;
mod convert;
mod monitor;
mod page;
mod pending;
mod progress;
mod report;
mod run;
mod service;
mod status;
mod tail;
mod verify;
mod who;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueHint};

use crate::config::{self, Config, FILE_VARIABLE, Loaded};
use crate::kernel::clock;

/// The exit status of the program, by the numbers of sysexits(3), which begin with 64.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    Success = 0,
    /// `nattrail who`: nobody, by complete records. `nattrail report`: no session.
    NoneComplete = 1,
    /// `nattrail who`: several candidates.
    Several = 2,
    /// `nattrail who`: nobody, but records may be missing. `nattrail report`: no session, the same.
    NoneGap = 3,
    /// `nattrail verify`: something is wrong.
    Unsound = 4,
    /// The command line is wrong.
    Usage = 64,
    /// A file to convert is not in the expected format.
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

impl From<&config::Error> for Exit {
    fn from(error: &config::Error) -> Self {
        match error.0.iter().all(|problem| problem.is_denied) {
            true => Self::NoPermission,
            false => Self::Config,
        }
    }
}

/// NAT-audit logger: writes down every address translation of this gateway.
#[derive(Debug, Parser)]
#[command(name = "nattrail", version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    origin: Origin,
    #[command(subcommand)]
    command: Command,
}

/// The daemon that a command is about.
#[derive(Clone, Debug, Default, clap::Args)]
struct Origin {
    /// Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if
    /// there]
    #[arg(short, long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket
    #[arg(long, value_name = "NAME", global = true, value_parser = service::instance)]
    instance: Option<String>,
}

impl Origin {
    fn load(&self) -> Result<Loaded, config::Error> {
        Config::load(self.config.as_deref(), self.environment())
    }

    fn environment(&self) -> impl Iterator<Item = (String, String)> {
        // The directories that systemd and the init script give to the instance.
        let own = self.instance.iter().flat_map(|name| {
            let roots = [
                ("STATE_DIRECTORY", "/var/lib"),
                ("RUNTIME_DIRECTORY", "/run"),
            ];
            roots.map(|(variable, root)| (variable.to_owned(), format!("{root}/nattrail@{name}")))
        });
        environment().chain(own)
    }
}

const CHECK_STATUSES: &str = "\
Exit status: that of the worst line.
  0   all is well, or there are warnings only: the daemon can do its work, the records may lack something
  69  something is not there: a route, a socket, events of the kernel; or the running daemon loses records; with
      --strict also for warnings
  71  the system gave no answer
  77  a permission is missing
  78  the configuration is wrong";

#[derive(Debug, Subcommand)]
enum Command {
    /// Log translations until a signal ends it (SIGHUP: read the configuration again, SIGUSR1: log statistics)
    Run,
    #[command(flatten)]
    Service(service::Action),
    /// Check configuration, permissions, kernel settings, collectors, syslog targets, and a running daemon
    #[command(after_help = CHECK_STATUSES)]
    Check(check::Form),
    /// Keep finished connections for years
    #[command(subcommand)]
    Archive(archive::Action),
    /// Set up ports to which switches mirror traffic, and take them down
    #[command(subcommand, after_help = monitor::AFTER_HELP)]
    Monitor(monitor::Action),
    /// List the connections that were open at the daemon's last flush
    Pending(pending::Form),
    /// Show the counters of the running daemon
    Status(status::Options),
    /// Write the configuration of another program as nattrail's, and name the settings without an equivalent; or leases of a
    /// DHCP server as a list of subscribers
    Convert(convert::Options),
    /// Show events as they happen, from the running daemon
    #[command(after_help = tail::AFTER_HELP)]
    Tail(tail::Options),
    /// Find out who was behind a public address and port at some time
    #[command(after_help = who::AFTER_HELP)]
    Who(Box<who::Options>),
    /// Show the sums of a day: sessions, subscribers, ports in use, gaps, and the state of the archive
    #[command(after_help = report::AFTER_HELP)]
    Report(report::Options),
    /// Check an archive against its evidence log, or a proof of one session, without the daemon
    #[command(after_help = verify::AFTER_HELP)]
    Verify(verify::Options),
    /// Print the version
    Version,
}

/// The command line as clap knows it, for comparison with manual and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => dispatch(arguments),
        Err(error) => {
            // With both outputs gone, nobody is left to be told.
            let _ = error.print();
            match error.use_stderr() {
                true => Exit::Usage.into(),
                false => Exit::Success.into(),
            }
        }
    }
}

fn dispatch(arguments: Arguments) -> ExitCode {
    let given = arguments.origin;
    let instance = given.instance.clone();
    let file = given.config.clone();
    let file = file.or(instance.as_deref().map(service::file));
    let config = configuration_file(file, std::env::var_os(FILE_VARIABLE));
    let origin = Origin { config, instance };
    let exit = match arguments.command {
        Command::Service(action) => return service::run(&action, &given),
        Command::Run => run::run(&origin),
        Command::Check(form) => printed(|out| check::run(&origin, form, out)),
        Command::Archive(action) => printed(|out| archive::run(&origin, &action, out)),
        Command::Monitor(action) => printed(|out| monitor::run(&origin, &action, out)),
        Command::Pending(form) => {
            printed(|out| pending::run(&origin, form, clock::read().wall, out))
        }
        Command::Status(options) => printed(|out| status::run(&origin, options, out)),
        Command::Convert(options) => printed(|out| convert::run(&options, out)),
        Command::Tail(options) => printed(|out| tail::run(&origin, options, out)),
        Command::Who(options) => {
            printed(|out| who::run(&origin, *options, clock::read().wall, out))
        }
        Command::Report(options) => {
            printed(|out| report::run(&origin, &options, clock::read().wall, out))
        }
        Command::Verify(options) => {
            printed(|out| verify::run(&origin, &options, clock::read().wall, out))
        }
        Command::Version => printed(|out| {
            writeln!(out, "nattrail {}", env!("CARGO_PKG_VERSION"))?;
            Ok(Exit::Success)
        }),
    };
    exit.into()
}

/// The exit status for an error of the system.
fn exit_of(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Unavailable,
    }
}

/// `what` is like "be read".
fn cannot(path: &Path, what: &str, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Os,
    };
    Failure::new(
        exit,
        format!("\"{}\" cannot {what}: {error}", path.display()),
    )
}

/// The reason why a command ends early, and its exit status.
struct Failure {
    exit: Exit,
    /// For the standard error, a line for each mistake; empty when there is nothing to say.
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl ToString) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::new(Exit::from(&error), error)
    }
}

/// For the standard output; code that fails otherwise explains its error itself.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // The reader has seen enough, as in "nattrail pending | head".
            return Self::new(Exit::Success, "");
        }
        Self::new(Exit::Os, format!("standard output: {error}"))
    }
}

/// Runs a command that prints to the standard output.
fn printed(command: impl FnOnce(&mut io::StdoutLock<'_>) -> Result<Exit, Failure>) -> Exit {
    let mut out = io::stdout().lock();
    let flushed = command(&mut out).and_then(|exit| Ok(out.flush().map(|()| exit)?));
    flushed.unwrap_or_else(|failure| {
        tell("error", &failure.message);
        failure.exit
    })
}

/// The configuration, with the variables of this process. A daemon goes on while its file is wrong, and can be asked: most
/// often by the default socket and database.
fn configuration(origin: &Origin) -> Result<Config, Failure> {
    let error = match origin.load() {
        Ok(loaded) => return Ok(loaded.config),
        Err(error) => error,
    };
    let is_there = origin.config.as_deref().is_none_or(Path::exists);
    let presets = Config::of_environment(origin.environment());
    if let (true, Exit::Config, Ok(config)) = (is_there, Exit::from(&error), presets) {
        tell("warning", &error.to_string());
        tell(
            "warning",
            "the file is not used, but the default socket and database",
        );
        return Ok(config);
    }
    Err(error.into())
}

/// Writes a message to the standard error, in one write: an "error" prevents the command, a "warning" does not.
fn tell(word: &str, message: &str) {
    let lines = message.lines().map(|line| format!("{word}: {line}\n"));
    // With the standard error gone, nobody is left to be told.
    let _ = io::stderr().write_all(lines.collect::<String>().as_bytes());
}

/// The option decides, then the variable; an empty variable is the same as none.
fn configuration_file(option: Option<PathBuf>, variable: Option<OsString>) -> Option<PathBuf> {
    let variable = variable.filter(|value| !value.is_empty());
    option.or_else(|| variable.map(PathBuf::from))
}

/// The process's environment. Text that is not UTF-8 is replaced, and then refused as a value where it matters.
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
