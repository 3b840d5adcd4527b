//! A Debian system with its own systemd, booted in a container: made once by mmdebstrap from this machine's package
//! archive, kept as an archive file, unpacked into memory for each boot.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::lines::Lines;
use crate::support::netns::{succeed, unique};
use crate::support::{can_run, wait_until};

/// The packages that these tests need, beyond mmdebstrap's minimal set: systemd; the dependencies of the package, as
/// the container has no network to fetch them; and the optional ones that it works with.
const PACKAGES: &str = "dbus,iproute2,jq,libmnl0,libnftnl11,libsqlite3-0,logrotate,nftables,rsyslog,systemd,systemd-sysv";

/// The time that a boot, a shutdown or dpkg may take on a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// Whether containers can be made here; see [`can_run`].
pub fn is_possible() -> bool {
    can_run(&[
        "apt-get",
        "mmdebstrap",
        "nsenter",
        "setpriv",
        "systemd-nspawn",
        "tar",
        "unshare",
    ])
}

/// A release of Debian and this machine's source of packages.
#[derive(Debug)]
pub struct Release {
    pub codename: String,
    pub mirror: String,
}

impl Release {
    /// The release that this machine runs.
    ///
    /// # Panics
    /// When apt knows no archive of it.
    pub fn of_this_machine() -> Self {
        let text = fs::read_to_string("/etc/os-release").unwrap();
        let codename = text
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .expect("Debian names its releases")
            .to_owned();
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", "$(REPO_URI)"]);
        apt.args(["Created-By: Packages", "Label: Debian", "Component: main"]);
        apt.arg(format!("Codename: {codename}"));
        let mirrors = succeed(&mut apt, "");
        let mirror = mirrors.lines().next();
        let mirror = mirror.unwrap_or_else(|| panic!("apt knows no archive of {codename}"));
        Self {
            mirror: mirror.to_owned(),
            codename,
        }
    }

    /// The archive of a minimal system, made unless there is one from the last week.
    pub fn archive(&self) -> PathBuf {
        const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let archive = directory.join(format!("{}.tar.gz", self.codename));
        let recipe = directory.join(format!("{}.recipe", self.codename));
        let age = fs::metadata(&archive).and_then(|metadata| metadata.modified());
        let is_fresh = age.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < WEEK));
        if is_fresh && fs::read_to_string(&recipe).is_ok_and(|text| text == PACKAGES) {
            return archive;
        }
        let unfinished = directory.join(format!("unfinished-{}.tar.gz", self.codename));
        let mut mmdebstrap = Command::new("mmdebstrap");
        mmdebstrap.args(["--variant=minbase", "--include", PACKAGES]);
        mmdebstrap.arg(&self.codename).arg(&unfinished);
        succeed(mmdebstrap.arg(&self.mirror), "");
        fs::write(recipe, PACKAGES).unwrap();
        fs::rename(unfinished, &archive).unwrap();
        archive
    }
}

/// A running container; switched off on drop.
#[derive(Debug)]
pub struct Container {
    unshare: Child,
    console: Lines,
    /// Its own first process, by its pid on this machine.
    init: u32,
}

impl Container {
    /// Boots and waits until systemd has started everything.
    ///
    /// # Panics
    /// When that fails.
    pub fn boot(archive: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/package/boot.sh");
        // The container ends with this process in any case: the first process of a PID namespace takes all others with it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--mount-proc"]);
        command.args(["--pid", "--fork", "--kill-child", script]);
        command.arg(archive);
        command.arg(format!("{}-{}", std::process::id(), unique()));
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut unshare = command.spawn().unwrap();
        let console = Lines::read(unshare.stdout.take().unwrap());
        let mut container = Self {
            unshare,
            console,
            init: 0,
        };
        container.wait_until_up();
        container
    }

    /// Runs a script in the container and returns what it wrote to its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, script: &str) -> String {
        succeed(&mut self.command("bash", ["-euc", script]), "")
    }

    /// The same, with any outcome.
    pub fn attempt(&self, script: &str) -> Output {
        self.command("bash", ["-euc", script]).output().unwrap()
    }

    /// Whether a script succeeds.
    pub fn holds(&self, script: &str) -> bool {
        self.attempt(script).status.success()
    }

    /// Waits until a script succeeds.
    ///
    /// # Panics
    /// When the script does not succeed within the time of the slowest action here; with the journal's messages.
    pub fn wait_for(&self, script: &str) {
        let done = wait_until(Instant::now() + LONG, || self.holds(script).then_some(()));
        assert!(
            done.is_some(),
            "waited {LONG:?} in vain for: {script}\n{}",
            self.run("journalctl --no-pager --lines=50")
        );
    }

    /// Runs a program of this machine in the container's network.
    pub fn with_network(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command.args(["--net", program]).args(arguments);
        succeed(&mut command, "")
    }

    /// Runs `work` in a thread inside a network namespace of the container, given by its name there.
    pub fn within<T: Send>(&self, namespace: &str, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path(&format!("/run/netns/{namespace}"))).unwrap();
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                let descriptor = std::os::fd::AsFd::as_fd(&file);
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(descriptor, kind).unwrap();
                work()
            });
            entered.join().unwrap()
        })
    }

    /// This machine's path to a path of the container.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Reboots as an administrator does.
    pub fn reboot(&mut self) {
        // The connection ends with the system: its outcome means nothing.
        let _ = self.attempt("systemctl reboot");
        let before = self.init;
        let gone = wait_until(Instant::now() + LONG, || {
            let init = self.find_init();
            init.is_some_and(|init| init != before).then_some(())
        });
        assert!(
            gone.is_some(),
            "it did not go down and come back: {}",
            self.said()
        );
        self.wait_until_up();
    }

    fn wait_until_up(&mut self) {
        let up = wait_until(Instant::now() + LONG, || {
            let ended = self.unshare.try_wait().unwrap();
            assert!(ended.is_none(), "the container ended: {}", self.said());
            self.init = self.find_init()?;
            let state = self.attempt("systemctl is-system-running").stdout;
            (state == b"running\n" || state == b"degraded\n").then_some(())
        });
        assert!(up.is_some(), "the container did not start: {}", self.said());
        let failed = self.run("systemctl --failed --plain --no-legend");
        assert_eq!(failed, "", "units that failed at boot");
    }

    /// The first process of the innermost PID namespace: a child of nspawn, which is a child of the script started by
    /// unshare.
    fn find_init(&self) -> Option<u32> {
        let script = children(self.unshare.id());
        let nspawn = script.into_iter().flat_map(children);
        nspawn.flat_map(children).find(|child| {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let pids = status.lines().find(|line| line.starts_with("NSpid:"));
            let pids: Vec<&str> = pids.unwrap_or_default().split_whitespace().collect();
            pids.len() >= 4 && pids.last() == Some(&"1")
        })
    }

    fn said(&self) -> String {
        self.console.so_far().join("\n")
    }

    fn command<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command.args(["--all", "--root", "--wd", "env", "--ignore-environment"]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]);
        command.args(["HOME=/root", "DEBIAN_FRONTEND=noninteractive"]);
        command.arg(program).args(arguments).stdin(Stdio::null());
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its child dies with it, and so does everything else. This frees the memory of the system.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // This removes its control groups once its last processes are gone, and those of killed tests.
        let sweep = "mount -t cgroup2 cgroup2 /mnt
            for try in 1 2 3 4 5 6 7 8 9; do
                find /mnt/nattrail-test-* -depth -type d -exec rmdir {} + 2>/dev/null && break
                sleep 0.1
            done";
        let _ = Command::new("unshare")
            .args(["--mount", "sh", "-c", sweep])
            .status();
    }
}

fn children(process: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let numbers = children.split_whitespace();
    numbers.filter_map(|child| child.parse().ok()).collect()
}
