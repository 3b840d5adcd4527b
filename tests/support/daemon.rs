//! The real daemon as a child process in the gateway's namespace.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::conntrack::is_listening;
use super::lines::Lines;
use super::netns::Namespace;
use super::record::Fields;
use super::wait_for;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_nattrail");

/// The configuration's beginning in most tests: the daemon switches on the settings that the records need.
pub const CAPTURE: &str = "
[capture]
set-sysctls = true
";

/// NAT events on the standard output as text.
pub const STDOUT_TEXT: &str = "
[[syslog]]
target = \"stdout\"
format = \"text\"
";

/// The same as JSON.
pub const STDOUT_JSON: &str = "
[[syslog]]
target = \"stdout\"
format = \"json\"
";

/// The files that outlive the daemon: its configuration, its state directory and its runtime directory.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
}

impl Home {
    #[must_use]
    pub fn new(config: &str) -> Self {
        let home = Self {
            directory: TempDir::with_prefix("nattrail-test-").unwrap(),
        };
        fs::create_dir(home.state()).unwrap();
        home.configure(config);
        home
    }

    /// Replaces the configuration file.
    pub fn configure(&self, config: &str) {
        fs::write(self.config(), config).unwrap();
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("nattrail.toml")
    }

    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The runtime directory, which the daemon makes.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.path().join("run")
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `nattrail run` with this configuration and state.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--config"]).arg(self.config());
        self.dress(&mut command);
        command
    }

    /// The environment of a daemon started by hand.
    pub fn dress(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("STATE_DIRECTORY", self.state())
            .env("RUNTIME_DIRECTORY", self.runtime())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }
}

/// A running daemon; killed on drop.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// The end of a daemon.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
}

impl Daemon {
    /// Starts the daemon and returns when it receives the kernel's events and the kernel keeps the data that the records need.
    ///
    /// # Panics
    /// When it ends instead, with its messages.
    #[must_use]
    pub fn start(namespace: &Namespace, home: &Home) -> Self {
        let mut daemon = Self::spawn(namespace, &mut home.command());
        daemon.wait_until_ready(namespace);
        daemon
    }

    /// Starts a command in the namespace, whatever its outcome. Its log is seen here only if its standard error is the
    /// default pipe.
    #[must_use]
    pub fn spawn(namespace: &Namespace, command: &mut Command) -> Self {
        let mut child = namespace.spawn(command).unwrap();
        Self {
            stdout: Lines::read(child.stdout.take().unwrap()),
            stderr: match child.stderr.take() {
                Some(stderr) => Lines::read(stderr),
                None => Lines::read(io::empty()),
            },
            child,
        }
    }

    pub fn wait_until_ready(&mut self, namespace: &Namespace) {
        let pid = self.pid();
        wait_for("the daemon to listen", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "the daemon ended: {status}\n{}",
                    self.stderr.all().join("\n")
                );
            }
            let keeps = |name: &str| {
                namespace.read_sysctl(&format!("net/netfilter/nf_conntrack_{name}")) == "1"
            };
            (is_listening(pid) && keeps("events") && keeps("acct") && keeps("timestamp"))
                .then_some(())
        });
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines that it has printed so far.
    #[must_use]
    pub fn printed(&self) -> Vec<String> {
        self.stdout.so_far()
    }

    /// The lines that it has logged so far.
    #[must_use]
    pub fn logged(&self) -> Vec<String> {
        self.stderr.so_far()
    }

    /// The records on the standard output, once there are `count` of them.
    #[must_use]
    pub fn wait_for_records(&self, count: usize, parse: fn(&str) -> Fields) -> Vec<Fields> {
        wait_for(
            &format!("{count} records; there are {:#?}", self.printed()),
            || {
                let lines = self.printed();
                (lines.len() >= count).then_some(lines)
            },
        )
        .iter()
        .map(|line| parse(line))
        .collect()
    }

    /// The first line of the log that contains `part`.
    #[must_use]
    pub fn wait_for_message(&self, part: &str) -> String {
        wait_for(&format!("{part:?} in the log"), || {
            self.logged().into_iter().find(|line| line.contains(part))
        })
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Asks it to finish.
    ///
    /// # Panics
    /// When it does not exit with status 0.
    pub fn terminate(self) -> Ended {
        self.signal(Signal::TERM);
        let ended = self.wait();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr.join("\n"));
        ended
    }

    /// The same, within `limit`.
    ///
    /// # Panics
    /// When it takes longer, or does not exit with status 0.
    pub fn terminate_within(self, limit: Duration) -> Ended {
        let begun = Instant::now();
        let ended = self.terminate();
        let taken = begun.elapsed();
        assert!(taken < limit, "it took {taken:?} to end");
        ended
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        let ended = self.wait();
        assert_eq!(
            ended.status.signal(),
            Some(9),
            "{}",
            ended.stderr.join("\n")
        );
        ended
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Ended {
        let status = wait_for("the daemon to end", || self.child.try_wait().unwrap());
        Ended {
            status,
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // libtest shows this only for a failed test.
            for (did, lines) in [("printed", &self.stdout), ("logged", &self.stderr)] {
                let lines = lines.so_far();
                let last = &lines[lines.len().saturating_sub(20)..];
                eprintln!("the daemon {did}, at last: {last:#?}");
            }
        }
    }
}
