//! The service where there is no systemd: a daemon in the background, a pid file in the runtime directory, an LSB script
//! for the start of the machine. What it logs goes to the local syslog.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::super::{Exit, complain, environment, remark};
use super::background::{self, Outcome};
use super::pidfile::{PidFile, Running, State};
use super::{Action, Service};
use crate::config::{Config, Target, runtime_directory};
use crate::daemon::clock;

/// How long a daemon may take to end: it hands out what is queued for two seconds, and writes its store.
const PATIENCE: Duration = Duration::from_secs(30);
const DIRECTORY_MODE: u32 = 0o750;
const SCRIPT: &str = "/etc/init.d/nattrail";

/// What prevents the command, with its exit status.
struct Failure(Exit, String);

type Done = Result<String, Failure>;

impl Failure {
    fn of(what: impl Into<String>, error: &io::Error) -> Self {
        let what = what.into();
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Self(Exit::NoPermission, format!("{what}: {error}; run as root"));
        }
        Self(Exit::Os, format!("{what}: {error}"))
    }
}

/// Does what is asked, and says what became of it.
pub fn run(action: Action, service: &Service, file: Option<PathBuf>) -> Exit {
    let daemon = Daemon::new(service, file);
    let done = match action {
        Action::Start => daemon.start(),
        Action::Stop => daemon.stop(),
        Action::Restart => daemon.restart(),
        Action::Reload => daemon.reload(),
        Action::Install => daemon.install(service),
    };
    match done {
        Ok(message) => {
            // Nobody is left to be told when the standard output is gone.
            let _ = writeln!(io::stdout(), "{message}");
            Exit::Success
        }
        Err(Failure(exit, message)) => {
            complain(&message);
            exit
        }
    }
}

struct Daemon {
    name: String,
    file: Option<PathBuf>,
    /// The directories that a service manager would name, where they are not those of the environment.
    directories: Vec<(&'static str, String)>,
    runtime: PathBuf,
    pid_file: PidFile,
}

impl Daemon {
    fn new(service: &Service, file: Option<PathBuf>) -> Self {
        let name = service.name();
        // As the template's unit has them.
        let directories = match service.instance {
            Some(_) => vec![
                ("STATE_DIRECTORY", format!("/var/lib/{name}")),
                ("RUNTIME_DIRECTORY", format!("/run/{name}")),
            ],
            None => Vec::new(),
        };
        let runtime = runtime_directory(&overlaid(&directories));
        Self {
            name,
            file,
            directories,
            pid_file: PidFile::new(runtime.join("nattrail.pid")),
            runtime,
        }
    }

    fn start(&self) -> Done {
        if let State::Running(Running { pid, .. }) = self.state()? {
            let pid = pid.as_raw_nonzero();
            return Ok(format!("{} is running already, process {pid}", self.name));
        }
        self.check()?;
        self.launch()
    }

    fn launch(&self) -> Done {
        self.make_directory()?;
        let claimed = self.pid_file.claim();
        let Some(claim) = claimed.map_err(|error| self.about_file(&error))? else {
            let message = format!("{} is being started by another process", self.name);
            return Err(Failure(Exit::Unavailable, message));
        };
        let started = background::start(
            self.file.as_deref(),
            &self.directories,
            &self.runtime,
            claim,
        );
        let started =
            started.map_err(|error| Failure::of(format!("cannot start {}", self.name), &error));
        match started? {
            Outcome::Ready(pid) => Ok(format!(
                "{} is running, process {}; it logs to syslog",
                self.name,
                pid.as_raw_nonzero()
            )),
            Outcome::Ended(status) => {
                // What stays is stale, which shows.
                let _ = self.pid_file.clear();
                let code = status.code().and_then(Exit::of_code);
                let message = format!("{} could not be started: {status}", self.name);
                Err(Failure(code.unwrap_or(Exit::Os), message))
            }
            Outcome::Slow(pid) => {
                let message = format!(
                    "{} did not become ready within 90 s; process {} goes on, its log in syslog may say why",
                    self.name,
                    pid.as_raw_nonzero()
                );
                Err(Failure(Exit::Unavailable, message))
            }
        }
    }

    fn stop(&self) -> Done {
        let running = match self.state()? {
            State::Running(running) => running,
            State::Starting => return Err(self.starting()),
            State::Stopped => {
                // What stays is stale, which shows.
                let _ = self.pid_file.clear();
                return Ok(format!("{} is not running", self.name));
            }
        };
        let pid = running.pid.as_raw_nonzero();
        self.signal(&running, Signal::TERM)?;
        if !ends(&running)
            .map_err(|error| Failure::of(format!("cannot wait for process {pid}"), &error))?
        {
            let message = format!(
                "{} has not ended within 30 s: process {pid} goes on; what it has not written yet is lost with \"kill -9 {pid}\"",
                self.name
            );
            return Err(Failure(Exit::Unavailable, message));
        }
        self.pid_file
            .clear()
            .map_err(|error| self.about_file(&error))?;
        Ok(format!("{} has stopped, process {pid}", self.name))
    }

    /// A configuration that is wrong leaves the daemon running.
    fn restart(&self) -> Done {
        self.check()?;
        let stopped = self.stop()?;
        Ok(format!("{stopped}\n{}", self.launch()?))
    }

    /// The daemon reopens its files in any case, and keeps its configuration when the new one is wrong.
    fn reload(&self) -> Done {
        let running = match self.state()? {
            State::Running(running) => running,
            State::Starting => return Err(self.starting()),
            State::Stopped => {
                let message = format!("{0} is not running: \"{0} start\" starts it", self.name);
                return Err(Failure(Exit::Unavailable, message));
            }
        };
        self.signal(&running, Signal::HUP)?;
        self.check()?;
        Ok(format!(
            "{} reads its configuration again, process {}",
            self.name,
            running.pid.as_raw_nonzero()
        ))
    }

    fn install(&self, service: &Service) -> Done {
        if service.instance.is_some() {
            let message = format!(
                "{SCRIPT} starts the main instance only: let a script of its own run \"nattrail start\" with the name of {}",
                self.name
            );
            return Err(Failure(Exit::Usage, message));
        }
        if !Path::new(SCRIPT).exists() {
            let message =
                format!("expected the script {SCRIPT}, found none: the package nattrail brings it");
            return Err(Failure(Exit::Unavailable, message));
        }
        let status = Command::new("update-rc.d")
            .args(["nattrail", "defaults"])
            .status();
        let status = status.map_err(|error| Failure::of("cannot run update-rc.d", &error))?;
        if !status.success() {
            let message = format!("update-rc.d nattrail defaults: {status}");
            return Err(Failure(Exit::Os, message));
        }
        let started = self.start()?;
        Ok(format!(
            "{SCRIPT} is registered: nattrail starts when the machine starts\n{started}"
        ))
    }

    fn state(&self) -> Result<State, Failure> {
        self.pid_file
            .find()
            .map_err(|error| self.about_file(&error))
    }

    fn about_file(&self, error: &io::Error) -> Failure {
        let what = format!(
            "cannot use the pid file \"{}\"",
            self.pid_file.path().display()
        );
        Failure::of(what, error)
    }

    fn starting(&self) -> Failure {
        let message = format!("{} is being started: try again", self.name);
        Failure(Exit::Unavailable, message)
    }

    fn signal(&self, running: &Running, signal: Signal) -> Result<(), Failure> {
        match pidfd_send_signal(&running.process, signal) {
            // It has just ended, which is what a stop waits for.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => {
                let what = format!("cannot signal {}", self.name);
                Err(Failure::of(what, &error.into()))
            }
        }
    }

    /// Whether a daemon could go by the configuration: what is wrong is said here, where somebody reads it.
    fn check(&self) -> Result<(), Failure> {
        let loaded = Config::load(
            self.file.as_deref(),
            overlaid(&self.directories).into_iter(),
        );
        let loaded = loaded.map_err(|error| Failure(Exit::Config, error.to_string()))?;
        let origin = loaded.file.map_or_else(
            || "no configuration file".to_owned(),
            |file| file.display().to_string(),
        );
        let printed = |target: &Target| matches!(target, Target::Stdout);
        if loaded
            .config
            .syslog
            .iter()
            .any(|syslog| printed(&syslog.target))
        {
            let message = format!(
                "{origin}: records would go to the standard output, which a daemon in the background does not have: add a \
                 [[collector]], or a [[syslog]] of target \"local\" or \"file\""
            );
            return Err(Failure(Exit::Config, message));
        }
        let absent = |target: &Target| match target {
            Target::Journal { path } if !path.exists() => Some(path.display().to_string()),
            _ => None,
        };
        let copies = &loaded.config.syslog;
        let missing: Vec<_> = copies
            .iter()
            .filter_map(|syslog| absent(&syslog.target))
            .collect();
        if let Some(path) = missing.first()
            && missing.len() == copies.len()
            && loaded.config.collectors.is_empty()
        {
            let message = format!(
                "{origin}: every record would be lost: the journal is not there ({path}), and there is no other output: use \
                 target = \"local\" without systemd, or add a [[collector]]"
            );
            return Err(Failure(Exit::Config, message));
        }
        for path in missing {
            remark(&format!(
                "the journal is not there ({path}), and records for it are lost: use target = \"local\" without systemd"
            ));
        }
        Ok(())
    }

    /// For the pid file and the control socket, if only this directory is missing.
    fn make_directory(&self) -> Result<(), Failure> {
        let path = &self.runtime;
        let made = match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            // What the umask has taken away.
            Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE)),
            Err(_) if path.is_dir() => Ok(()),
            Err(error) => Err(error),
        };
        let what = || format!("cannot make the runtime directory \"{}\"", path.display());
        made.map_err(|error| Failure::of(what(), &error))
    }
}

/// The environment as the daemon is to have it.
fn overlaid(directories: &[(&str, String)]) -> Vec<(String, String)> {
    let replaced = |name: &str| directories.iter().any(|(other, _)| *other == name);
    let own = directories
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    environment()
        .filter(|(name, _)| !replaced(name))
        .chain(own)
        .collect()
}

/// Waits for the end of the process; `false` when that does not come in time.
fn ends(running: &Running) -> io::Result<bool> {
    let deadline = clock::uptime().saturating_add(PATIENCE);
    loop {
        let left = deadline.saturating_since(clock::uptime());
        let mut ended = [PollFd::new(&running.process, PollFlags::IN)];
        let left = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut ended, Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
