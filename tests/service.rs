//! The service commands on a machine without systemd, with the real daemon: `nattrail start` and the rest.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::daemon::{Home, PROGRAM};
use support::netns::{Namespace, unique};
use support::{can_run, wait_for};

/// A machine of one namespace, whose daemon is ended with it.
struct Machine {
    namespace: Namespace,
    home: Home,
}

/// What a command said and how it ended.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Machine {
    fn new(name: &str) -> Option<Self> {
        can_run(&["ip"]).then(|| {
            let home = Home::new("");
            let machine = Self {
                namespace: Namespace::new(unique(), name),
                home,
            };
            machine.configure("");
            machine
        })
    }

    fn configure(&self, more: &str) {
        let log = self.home.path().join("nat.log");
        self.home.configure(&format!(
            "[[syslog]]\ntarget = \"file\"\npath = \"{}\"\n{more}",
            log.display()
        ));
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args([action, "--no-systemd", "--config"]);
        command.arg(self.home.config());
        self.home.dress(&mut command);
        command
    }

    fn nattrail(&self, action: &str) -> Said {
        self.output(&mut self.command(action))
    }

    /// The pipes of the command end with it: were one left open in the daemon, this would wait for the daemon's end.
    fn output(&self, command: &mut Command) -> Said {
        let child = self.namespace.spawn(command).unwrap();
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        Said {
            code: status.code().unwrap(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// # Panics
    /// When the command fails.
    fn succeed(&self, action: &str) -> String {
        let said = self.nattrail(action);
        assert_eq!(said.code, 0, "{action}: {}", said.stderr);
        said.stdout
    }

    fn pid_file(&self) -> PathBuf {
        self.home.runtime().join("nattrail.pid")
    }

    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.pid_file()).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    /// What the daemon says of itself on its control socket.
    fn status(&self) -> serde_json::Value {
        let mut command = Command::new(PROGRAM);
        command
            .args(["status", "--json", "--config"])
            .arg(self.home.config());
        self.home.dress(&mut command);
        let said = self.output(&mut command);
        assert_eq!(said.code, 0, "{}", said.stderr);
        serde_json::from_str(&said.stdout).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.pid_file().exists() {
            self.nattrail("stop");
        }
    }
}

/// What has ended may not have been waited for yet: its parent is not this test.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let stat = stat.unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}

#[test]
fn start_returns_when_the_daemon_is_ready_and_in_a_session_of_its_own() {
    let Some(machine) = Machine::new("start") else {
        return;
    };
    let said = machine.nattrail("start");
    assert_eq!(said.code, 0, "{}", said.stderr);
    let pid = machine.pid();
    let expected = format!("nattrail is running, process {}", pid.as_raw_nonzero());
    assert!(said.stdout.starts_with(&expected), "{}", said.stdout);
    assert!(
        said.stderr.contains("nattrail 0.1.0 started"),
        "shows the log: {}",
        said.stderr
    );
    assert_eq!(
        machine.status()["pid"],
        pid.as_raw_nonzero().get(),
        "answers at once"
    );
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    // State, parent, process group, session, terminal (proc_pid_stat(5)).
    let number = pid.as_raw_nonzero().to_string();
    assert_eq!(fields[2..5], [number.as_str(), number.as_str(), "0"]);
    let files = fs::read_dir(machine.home.runtime()).unwrap();
    let mut files: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["control.sock", "nattrail.pid"],
        "nothing else is left"
    );
}

#[test]
fn a_second_start_finds_the_first() {
    let Some(machine) = Machine::new("second") else {
        return;
    };
    machine.succeed("start");
    let pid = machine.pid();
    assert!(machine.succeed("start").contains("is running already"));
    assert_eq!(machine.pid(), pid);
}

#[test]
fn starts_at_the_same_time_give_one_daemon() {
    let Some(machine) = Machine::new("race") else {
        return;
    };
    let children: Vec<_> = (0..5)
        .map(|_| {
            machine
                .namespace
                .spawn(&mut machine.command("start"))
                .unwrap()
        })
        .collect();
    let outputs: Vec<_> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    let said = |part: &str| {
        let texts = outputs
            .iter()
            .map(|output| String::from_utf8_lossy(&output.stdout));
        texts.filter(|text| text.contains(part)).count()
    };
    assert_eq!(said("is running, process"), 1);
    assert!(is_alive(machine.pid()));
}

#[test]
fn stop_waits_for_the_end_and_another_stop_has_nothing_to_do() {
    let Some(machine) = Machine::new("stop") else {
        return;
    };
    machine.succeed("start");
    let pid = machine.pid();
    assert!(machine.succeed("stop").contains("has stopped"));
    assert!(!is_alive(pid));
    assert!(!machine.pid_file().exists());
    assert_eq!(machine.succeed("stop"), "nattrail is not running\n");
}

#[test]
fn restart_replaces_the_daemon_and_starts_one_where_there_is_none() {
    let Some(machine) = Machine::new("restart") else {
        return;
    };
    assert!(machine.succeed("restart").contains("is running, process"));
    let first = machine.pid();
    machine.succeed("restart");
    assert!(!is_alive(first));
    assert_ne!(machine.pid(), first);
    assert_eq!(
        machine.status()["pid"],
        machine.pid().as_raw_nonzero().get()
    );
}

#[test]
fn a_wrong_configuration_does_not_cost_the_running_daemon() {
    let Some(machine) = Machine::new("wrong") else {
        return;
    };
    machine.succeed("start");
    let pid = machine.pid();
    machine.configure("[capture]\nlgo = \"nat\"\n");
    for action in ["restart", "reload"] {
        let said = machine.nattrail(action);
        assert_eq!(said.code, 78, "{}", said.stderr);
        assert!(
            said.stderr.contains("did you mean \"log\""),
            "{}",
            said.stderr
        );
    }
    assert_eq!(machine.pid(), pid);
    assert!(is_alive(pid));
}

#[test]
fn reload_lets_the_daemon_read_its_configuration_again() {
    let Some(machine) = Machine::new("reload") else {
        return;
    };
    let said = machine.nattrail("reload");
    assert_eq!(said.code, 69, "{}", said.stderr);
    machine.succeed("start");
    let count = |machine: &Machine| machine.status()["collectors"].as_array().unwrap().len();
    assert_eq!(count(&machine), 0);
    machine.configure("[[collector]]\naddress = \"127.0.0.1:2055\"\nversion = \"v9\"\n");
    machine.succeed("reload");
    wait_for("the collector", || (count(&machine) == 1).then_some(()));
}

#[test]
fn a_reload_does_not_end_a_daemon_that_does_not_listen_yet() {
    let Some(machine) = Machine::new("early") else {
        return;
    };
    for _ in 0..8 {
        let mut start = machine
            .namespace
            .spawn(&mut machine.command("start"))
            .unwrap();
        // Without a pause between two looks: the daemon listens some milliseconds later.
        let pid = loop {
            let text = fs::read_to_string(machine.pid_file()).unwrap_or_default();
            if let Some(number) = text.strip_suffix('\n') {
                break Pid::from_raw(number.parse().unwrap()).unwrap();
            }
            assert!(start.try_wait().unwrap().is_none(), "no pid file");
        };
        kill_process(pid, Signal::HUP).unwrap();
        let output = start.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        machine.succeed("stop");
    }
}

#[test]
fn a_daemon_that_cannot_start_says_why_and_hands_on_its_status() {
    let Some(machine) = Machine::new("fails") else {
        return;
    };
    machine.configure("[capture]\nnamespace = \"nattrail-test-none\"\n");
    let said = machine.nattrail("start");
    assert_eq!(said.code, 71, "{}", said.stderr);
    assert!(
        said.stderr.contains("nattrail-test-none"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("could not be started"),
        "{}",
        said.stderr
    );
    assert!(!machine.pid_file().exists());
}

#[test]
fn records_for_a_standard_output_that_is_not_there_are_refused() {
    let Some(machine) = Machine::new("stdout") else {
        return;
    };
    machine.home.configure("[capture]\nlog = \"nat\"\n");
    let said = machine.nattrail("start");
    assert_eq!(said.code, 78);
    assert!(said.stderr.contains("standard output"), "{}", said.stderr);
}

#[test]
fn records_for_nothing_but_a_journal_that_is_not_there_are_refused() {
    let Some(machine) = Machine::new("lost") else {
        return;
    };
    let journal = "[[syslog]]\ntarget = \"journal\"\npath = \"/nonexistent/journal\"\n";
    machine.home.configure(journal);
    let said = machine.nattrail("start");
    assert_eq!(said.code, 78, "{}", said.stderr);
    for part in ["(/nonexistent/journal)", "use target = \"local\""] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    assert!(!machine.pid_file().exists());
    let collector = "[[collector]]\naddress = \"127.0.0.1:2055\"\nversion = \"v9\"\n";
    machine.home.configure(&format!("{journal}{collector}"));
    machine.succeed("start");
}

#[test]
fn records_for_a_journal_that_is_not_there_are_mentioned() {
    let Some(machine) = Machine::new("journal") else {
        return;
    };
    machine.configure("[[syslog]]\ntarget = \"journal\"\npath = \"/nonexistent/journal\"\n");
    let said = machine.nattrail("start");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        said.stderr
            .contains("warning: the journal is not there (/nonexistent/journal)"),
        "{}",
        said.stderr
    );
}

#[test]
fn after_a_kill_the_pid_file_is_stale_and_nobody_is_signalled() {
    let Some(machine) = Machine::new("stale") else {
        return;
    };
    machine.succeed("start");
    let pid = machine.pid();
    kill_process(pid, Signal::KILL).unwrap();
    wait_for("its end", || (!is_alive(pid)).then_some(()));
    // The number is now that of another process.
    let mut stranger = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut file = fs::File::create(machine.pid_file()).unwrap();
    writeln!(file, "{}", stranger.id()).unwrap();
    drop(file);
    assert_eq!(machine.succeed("stop"), "nattrail is not running\n");
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(machine.succeed("start").contains("is running, process"));
}

#[test]
fn the_daemon_logs_to_syslog_and_says_nothing_of_a_service_manager() {
    let Some(machine) = Machine::new("log") else {
        return;
    };
    assert!(can_run(&["unshare"]));
    let path = machine.home.path().join("log");
    let syslog = UnixDatagram::bind(&path).unwrap();
    syslog.set_nonblocking(true).unwrap();
    // A mount namespace whose /dev/log is this one.
    let script = "mount -t tmpfs none /mnt && mknod -m 666 /mnt/null c 1 3 && ln -s \"$0\" /mnt/log && \
                  mount --bind /mnt /dev && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&path);
    command.args([PROGRAM, "start", "--no-systemd", "--config"]);
    command.arg(machine.home.config());
    machine.home.dress(&mut command);
    let said = machine.output(&mut command);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let tag = format!(" nattrail[{}]: ", machine.pid().as_raw_nonzero());
    let mut lines = received(&syslog);
    machine.succeed("reload");
    wait_for("the reload in syslog", || {
        lines.extend(received(&syslog));
        let read = |line: &String| line.contains("configuration read again");
        lines.iter().any(read).then_some(())
    });
    machine.succeed("stop");
    lines.extend(received(&syslog));
    assert!(lines.iter().all(|line| line.contains(&tag)), "{lines:#?}");
    let about = |part: &str| lines.iter().any(|line| line.contains(part));
    assert!(about("nattrail 0.1.0 started"), "{lines:#?}");
    assert!(about("sessions stay pending"), "{lines:#?}");
    assert!(!about("service manager"), "{lines:#?}");
}

fn received(socket: &UnixDatagram) -> Vec<String> {
    let mut room = [0; 2048];
    let datagrams = std::iter::from_fn(|| {
        let count = socket.recv(&mut room).ok()?;
        Some(String::from_utf8_lossy(&room[..count]).into_owned())
    });
    datagrams.collect()
}

#[test]
fn a_path_that_is_relative_is_that_of_the_caller() {
    let Some(machine) = Machine::new("relative") else {
        return;
    };
    let mut command = Command::new(PROGRAM);
    command.args(["start", "--no-systemd", "--config", "nattrail.toml"]);
    machine.home.dress(&mut command);
    command.current_dir(machine.home.path());
    let said = machine.output(&mut command);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let file = machine.home.config().display().to_string();
    assert!(machine.status().to_string().contains(&file));
}

/// Runs the command where systemd seems to run and `systemctl` writes down what it was asked and ends with a status.
fn with_systemctl(machine: &Machine, status: i32, arguments: &[&str]) -> (Said, String) {
    let asked = machine.home.path().join("asked");
    let programs = machine.home.path().join("bin");
    fs::create_dir_all(&programs).unwrap();
    let systemctl = programs.join("systemctl");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >{}\nexit {status}\n",
        asked.display()
    );
    fs::write(&systemctl, script).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let booted = "mount -t tmpfs none /run && mkdir -p /run/systemd/system && mount -t tmpfs none /etc && \
                  mkdir /etc/nattrail && cp \"$0/../nattrail.toml\" /etc/nattrail/ && \
                  cp \"$0/../nattrail.toml\" /etc/nattrail/blue.toml && PATH=$0:$PATH exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", booted]).arg(&programs);
    command.arg(PROGRAM).args(arguments);
    machine.home.dress(&mut command);
    let said = machine.output(&mut command);
    (said, fs::read_to_string(asked).unwrap_or_default())
}

#[test]
fn where_systemd_runs_systemctl_does_it_and_its_status_is_handed_on() {
    let Some(machine) = Machine::new("systemd") else {
        return;
    };
    assert!(can_run(&["unshare"]));
    let (said, asked) = with_systemctl(&machine, 0, &["install"]);
    assert_eq!(
        (said.code, asked.as_str()),
        (0, "enable --now nattrail.service\n")
    );
    assert!(
        said.stdout.contains("when the machine starts"),
        "{}",
        said.stdout
    );
    let (said, asked) = with_systemctl(&machine, 5, &["restart", "--instance", "blue"]);
    assert_eq!(
        (said.code, asked.as_str()),
        (5, "restart nattrail@blue.service\n")
    );
    assert!(
        said.stderr.contains("journalctl -u nattrail@blue.service"),
        "{}",
        said.stderr
    );
    assert!(!machine.pid_file().exists());
}

#[test]
fn systemctl_does_not_stop_what_runs_for_a_configuration_that_is_wrong() {
    let Some(machine) = Machine::new("wrong") else {
        return;
    };
    assert!(can_run(&["unshare"]));
    machine.configure("[capture]\nlgo = \"nat\"\n");
    for (arguments, file) in [
        (&["restart"][..], "/etc/nattrail/nattrail.toml"),
        (&["reload"], "/etc/nattrail/nattrail.toml"),
        (
            &["restart", "--instance", "blue"],
            "/etc/nattrail/blue.toml",
        ),
    ] {
        let (said, asked) = with_systemctl(&machine, 0, arguments);
        assert_eq!((said.code, asked.as_str()), (78, ""), "{arguments:?}");
        let expected = format!("error: {file}: capture.lgo: unknown key, did you mean \"log\"");
        assert!(said.stderr.contains(&expected), "{}", said.stderr);
    }
    let (said, asked) = with_systemctl(&machine, 0, &["restart", "--instance", "red"]);
    assert_eq!((said.code, asked.as_str()), (78, ""));
    assert!(
        said.stderr.contains("/etc/nattrail/red.toml"),
        "{}",
        said.stderr
    );
    machine.configure("");
    let (said, asked) = with_systemctl(&machine, 0, &["reload"]);
    assert_eq!(
        (said.code, asked.as_str()),
        (0, "reload nattrail.service\n")
    );
}

#[test]
fn a_configuration_that_systemd_would_not_use_is_refused() {
    let Some(machine) = Machine::new("unit") else {
        return;
    };
    assert!(can_run(&["unshare"]));
    let (said, asked) = with_systemctl(&machine, 0, &["start", "--config", "/etc/other.toml"]);
    assert_eq!((said.code, asked.as_str()), (64, ""));
    assert!(said.stderr.contains("/etc/other.toml"), "{}", said.stderr);
}
