//! Network namespaces of a test: made with `ip netns`, entered by a thread with setns(2), gone on drop.
//!
//! A socket belongs for good to the namespace of the thread that made it; a child process inherits the namespace of the
//! thread that forked it. So a closure run inside a namespace may hand out sockets and children.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{io, process, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Names are `nattrail-test-PID-NUMBER-ROLE`: unique on the machine, with the pid of their owner.
const PREFIX: &str = "nattrail-test-";
const DIRECTORY: &str = "/run/netns";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A unique number for the names of a test.
pub fn unique() -> u32 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// A network namespace that is deleted on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// An empty namespace with its loopback interface up.
    pub fn new(group: u32, role: &str) -> Self {
        static PREPARE: Once = Once::new();
        PREPARE.call_once(|| {
            load_modules();
            sweep();
        });

        let name = format!("{PREFIX}{}-{group}-{role}", process::id());
        succeed(Command::new("ip").args(["netns", "add", &name]), "");
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that represents it.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs `work` in a thread that has entered the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(self.path()).unwrap();
                    move_into_link_name_space(
                        std::os::fd::AsFd::as_fd(&file),
                        Some(LinkNameSpaceType::Network),
                    )
                    .unwrap();
                    work()
                })
                .join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a program inside the namespace.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())
    }

    /// Runs a program inside the namespace and returns its standard output.
    ///
    /// # Panics
    /// When the program fails.
    pub fn succeed(&self, command: &mut Command, input: &str) -> String {
        self.run(|| succeed(command, input))
    }

    /// Runs `ip` commands, one per line.
    pub fn ip(&self, batch: &str) {
        succeed(
            Command::new("ip").args(["-n", &self.name, "-batch", "-"]),
            batch,
        );
    }

    /// Sets a kernel parameter of the namespace; `name` with slashes, below `/proc/sys`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys").join(name);
        self.run(|| fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// A kernel parameter of the namespace, without the line end.
    pub fn read_sysctl(&self, name: &str) -> String {
        let path = Path::new("/proc/sys").join(name);
        self.run(|| fs::read_to_string(&path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim_end()
            .to_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // This asserts nothing: a panic here while another one unwinds would abort the whole test program.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

/// Runs a program and returns its standard output.
///
/// # Panics
/// When the program cannot be started or fails.
pub fn succeed(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // Every input here is far below the size of a pipe, so this cannot wait for the program to read.
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\ninput:\n{input}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where connection tracking is a module, its settings exist only once it is loaded. Where it is built in, or modprobe is
/// missing, this does nothing.
fn load_modules() {
    let _ = Command::new("modprobe")
        .args(["-aq", "nf_conntrack", "nf_conntrack_netlink"])
        .status();
}

/// Removes the namespaces of test processes that have ended, and ends the programs in them.
fn sweep() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        let Some(owner) = owner else { continue };
        if Path::new("/proc").join(owner.to_string()).exists() {
            continue;
        }
        let pids = Command::new("ip")
            .args(["netns", "pids", &name])
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for pid in pids.unwrap_or_default().split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", pid]).status();
        }
        let _ = Command::new("ip").args(["netns", "delete", &name]).status();
    }
}
