//! `nattrail start` and its siblings: the requests to systemctl where systemd runs, and elsewhere the real init script,
//! with the real start-stop-daemon, setpriv, logger and daemon.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use support::daemon::{Home, PROGRAM};
use support::netns::{Namespace, unique};
use support::{can_run, wait_for};

const COPY: &str = "[[syslog]]\ntarget = \"file\"\npath = \"/var/log/nattrail/nat.log\"\n";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/nattrail.init");

/// A machine without systemd: the script, the user, a syslog, and directories of its own. It lives until it is killed.
const INIT: &str = r#"
set -e
mount -t tmpfs none /mnt
mkdir -p /mnt/etc/init.d /mnt/etc/default /mnt/etc/nattrail /mnt/dev
cp "$2" /mnt/etc/init.d/nattrail
chmod 755 /mnt/etc/init.d/nattrail
cp /etc/passwd /etc/group /mnt/etc/
echo 'nattrail:x:970:970::/nonexistent:/usr/sbin/nologin' >>/mnt/etc/passwd
echo 'nattrail:x:970:' >>/mnt/etc/group
echo DAEMON=/run/program/nattrail >/mnt/etc/default/nattrail
mount -t tmpfs none /run
mkdir /run/program
touch /run/program/nattrail
mount --bind "$1" /run/program/nattrail
mount -t tmpfs none /var/lib
mount -t tmpfs none /var/log
mount -t tmpfs none /mnt/dev
mknod -m 666 /mnt/dev/null c 1 3
ln -s "$3" /mnt/dev/log
mount --bind /mnt/dev /dev
mount --bind /mnt/etc /etc
echo ready
exec sleep infinity
"#;

/// A machine of one network namespace and one mount namespace, whose daemon ends with it.
struct Machine {
    _namespace: Namespace,
    init: Child,
    home: Home,
    syslog: UnixDatagram,
}

/// The output of a command and its exit status.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Machine {
    fn new(name: &str) -> Option<Self> {
        let needed = [
            "ip",
            "unshare",
            "nsenter",
            "start-stop-daemon",
            "setpriv",
            "logger",
        ];
        if !can_run(&needed) {
            return None;
        }
        let home = Home::new("");
        let log = home.path().join("log");
        let syslog = UnixDatagram::bind(&log).unwrap();
        syslog.set_nonblocking(true).unwrap();
        let namespace = Namespace::new(unique(), name);
        let mut init = Command::new("unshare");
        init.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            INIT,
            "sh",
        ])
        .args([PROGRAM, SCRIPT])
        .arg(log);
        home.dress(&mut init);
        let mut init = namespace.spawn(init.stderr(Stdio::inherit())).unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(init.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let machine = Self {
            _namespace: namespace,
            init,
            home,
            syslog,
        };
        machine.configure(COPY);
        Some(machine)
    }

    /// The host's path to a path of the machine.
    fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init.id()))
    }

    fn configure(&self, text: &str) {
        fs::write(self.inside("/etc/nattrail/nattrail.toml"), text).unwrap();
    }

    /// The pipes of the command end with it: if one stayed open in the daemon, this would wait for the daemon's end.
    fn run(&self, words: &[&str]) -> Said {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--net", "--target", &self.init.id().to_string()])
            .args(words);
        self.home.dress(&mut command);
        command
            .env_remove("RUNTIME_DIRECTORY")
            .env_remove("STATE_DIRECTORY");
        said(command.output().unwrap())
    }

    fn nattrail(&self, words: &[&str]) -> Said {
        self.run(&[&["/run/program/nattrail"], words].concat())
    }

    fn script(&self, action: &str) -> i32 {
        self.run(&["/etc/init.d/nattrail", action]).code
    }

    /// # Panics
    /// When the command fails.
    fn succeed(&self, action: &str) {
        let said = self.nattrail(&[action]);
        assert_eq!(said.code, 0, "{action}: {}{}", said.stdout, said.stderr);
    }

    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.inside("/run/nattrail.pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    /// The status that the daemon gives on its control socket.
    fn status(&self) -> serde_json::Value {
        let said = self.nattrail(&["status", "--json"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        serde_json::from_str(&said.stdout).unwrap()
    }

    /// Waits for such a line in syslog; returns all lines so far.
    fn wait_for_log(&self, part: &str) -> Vec<String> {
        let mut room = [0; 2048];
        let mut lines = Vec::new();
        wait_for(part, || {
            while let Ok(count) = self.syslog.recv(&mut room) {
                lines.push(String::from_utf8_lossy(&room[..count]).into_owned());
            }
            lines.iter().any(|line| line.contains(part)).then_some(())
        });
        lines
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.script("stop");
        self.init.kill().unwrap();
        self.init.wait().unwrap();
    }
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A process that has ended may still be a zombie: its parent is not this test.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let stat = stat.unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}

#[test]
fn the_script_starts_a_daemon_that_answers_as_its_own_user_with_one_capability() {
    let Some(machine) = Machine::new("start") else {
        return;
    };
    machine.succeed("start");
    let pid = machine.pid();
    let number = pid.as_raw_nonzero().get();
    assert_eq!(machine.status()["pid"], number, "answers at once");
    let held = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
    for line in [
        "Uid:\t970\t970\t970\t970",
        "Gid:\t970\t970\t970\t970",
        "Umask:\t0027",
        "CapBnd:\t0000000000001000",
        "CapEff:\t0000000000001000",
        "NoNewPrivs:\t1",
    ] {
        assert!(held.contains(line), "{line}: {held}");
    }
    let left: Vec<_> = fs::read_dir(machine.inside("/run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("nattrail."))
        .collect();
    assert_eq!(
        left,
        ["nattrail.pid"],
        "the pipe of the log has no name any more"
    );
    assert_eq!(machine.script("status"), 0);
    machine.succeed("start");
    assert_eq!(machine.pid(), pid, "a second start finds the first");
}

#[test]
fn stop_waits_for_the_end_and_another_stop_has_nothing_to_do() {
    let Some(machine) = Machine::new("stop") else {
        return;
    };
    machine.succeed("start");
    let pid = machine.pid();
    machine.succeed("stop");
    assert!(!is_alive(pid));
    assert_eq!(machine.script("status"), 3);
    machine.succeed("stop");
}

#[test]
fn restart_replaces_the_daemon_and_starts_one_where_there_is_none() {
    let Some(machine) = Machine::new("restart") else {
        return;
    };
    machine.succeed("restart");
    let first = machine.pid();
    machine.succeed("restart");
    assert!(!is_alive(first));
    assert_eq!(
        machine.status()["pid"],
        machine.pid().as_raw_nonzero().get()
    );
}

#[test]
fn a_wrong_configuration_starts_nothing_and_does_not_cost_the_running_daemon() {
    let Some(machine) = Machine::new("wrong") else {
        return;
    };
    machine.configure("[capture]\nlgo = \"nat\"\n");
    let refused = |action| {
        let said = machine.nattrail(&[action]);
        assert_eq!(said.code, 78, "{}", said.stderr);
        assert!(
            said.stderr.contains("did you mean \"log\""),
            "{}",
            said.stderr
        );
        // 6 is "program is not configured" (LSB).
        assert_eq!(machine.script(action), 6);
    };
    refused("start");
    assert_eq!(machine.script("status"), 3);
    machine.configure(COPY);
    machine.succeed("start");
    let pid = machine.pid();
    machine.configure("[capture]\nlgo = \"nat\"\n");
    refused("restart");
    assert!(is_alive(pid));
    assert_eq!(machine.nattrail(&["reload"]).code, 78);
    assert!(is_alive(pid));
}

#[test]
fn reload_lets_the_daemon_read_its_configuration_again() {
    let Some(machine) = Machine::new("reload") else {
        return;
    };
    assert_eq!(
        machine.nattrail(&["reload"]).code,
        7,
        "is not running (LSB)"
    );
    machine.succeed("start");
    let count = |machine: &Machine| {
        let status = machine.status();
        let outputs = status["outputs"].as_array().unwrap().iter();
        let names = outputs.map(|output| output["name"].as_str().unwrap());
        names.filter(|name| name.starts_with("collector ")).count()
    };
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
        let file = machine.inside("/run/nattrail.pid");
        let started = thread::scope(|scope| {
            let start = scope.spawn(|| machine.nattrail(&["start"]));
            // There is no pause between two looks: the daemon listens only milliseconds later.
            while !start.is_finished() {
                let text = fs::read_to_string(&file).unwrap_or_default();
                if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) {
                    kill_process(pid, Signal::HUP).unwrap();
                    break;
                }
            }
            start.join().unwrap()
        });
        assert_eq!(started.code, 0, "{}", started.stderr);
        machine.succeed("stop");
    }
}

#[test]
fn a_daemon_that_cannot_start_is_said_to_have_ended_and_its_log_says_why() {
    let Some(machine) = Machine::new("fails") else {
        return;
    };
    machine.configure(&format!(
        "[capture]\nnamespace = \"nattrail-test-none\"\n{COPY}"
    ));
    let said = machine.nattrail(&["start"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("has ended at once"), "{}", said.stderr);
    machine.wait_for_log("nattrail-test-none");
    assert_eq!(machine.script("status"), 3);
}

#[test]
fn records_for_nothing_but_a_journal_that_is_not_there_are_refused() {
    let Some(machine) = Machine::new("lost") else {
        return;
    };
    let journal = "[[syslog]]\ntarget = \"journal\"\n";
    machine.configure(journal);
    let said = machine.nattrail(&["start"]);
    assert_eq!(said.code, 78, "{}", said.stderr);
    assert!(
        said.stderr.contains("use target = \"local\""),
        "{}",
        said.stderr
    );
    machine.configure(&format!(
        "{journal}[[collector]]\naddress = \"127.0.0.1:2055\"\n"
    ));
    machine.succeed("start");
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
    // The number now belongs to another process.
    let mut stranger = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    fs::write(
        machine.inside("/run/nattrail.pid"),
        format!("{}\n", stranger.id()),
    )
    .unwrap();
    machine.succeed("stop");
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
    machine.succeed("start");
    assert_ne!(
        machine.pid().as_raw_nonzero().get().cast_unsigned(),
        stranger.id()
    );
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn the_daemon_logs_to_syslog_with_its_priorities() {
    let Some(machine) = Machine::new("log") else {
        return;
    };
    machine.succeed("start");
    let tag = format!(" nattrail[{}]: ", machine.pid().as_raw_nonzero());
    let mut lines = machine.wait_for_log("nattrail 0.1.0 started");
    machine.configure("[capture]\nlgo = \"nat\"\n");
    kill_process(machine.pid(), Signal::HUP).unwrap();
    lines.extend(machine.wait_for_log("did you mean"));
    machine.succeed("stop");
    lines.extend(machine.wait_for_log("pending, kept in the database"));
    assert!(lines.iter().all(|line| line.contains(&tag)), "{lines:#?}");
    let priority = |part: &str| {
        let line = lines.iter().find(|line| line.contains(part)).unwrap();
        line.split_once('>').unwrap().0.to_owned()
    };
    // Facility daemon (3): error and information.
    assert_eq!(priority("did you mean"), "<27");
    assert_eq!(priority("nattrail 0.1.0 started"), "<30");
}

#[test]
fn an_instance_has_files_of_its_own() {
    let Some(machine) = Machine::new("instance") else {
        return;
    };
    let blue = "[[syslog]]\ntarget = \"local\"\n[capture]\ntable = \"blue\"\n";
    fs::write(machine.inside("/etc/nattrail/blue.toml"), blue).unwrap();
    let said = machine.nattrail(&["start", "--instance", "blue"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for path in [
        "/run/nattrail@blue.pid",
        "/var/lib/nattrail@blue/pending.db",
    ] {
        assert!(machine.inside(path).exists(), "{path}");
    }
    assert_eq!(
        machine.script("status"),
        3,
        "the main instance does not run"
    );
    let said = machine.nattrail(&["status", "--instance", "blue"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    assert!(
        said.stdout
            .contains("configuration /etc/nattrail/blue.toml")
    );
    let said = machine.nattrail(&["--instance", "blue", "check"]);
    assert!(
        said.stdout
            .contains("ok      database /var/lib/nattrail@blue/pending.db: writable")
    );
    assert!(
        said.stdout
            .contains("running, on control socket /run/nattrail@blue/control.sock")
    );
    let said = machine.nattrail(&["pending", "--instance=blue"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let said = machine.nattrail(&["stop", "--instance", "blue"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(!machine.inside("/run/nattrail@blue.pid").exists());
    let said = machine.nattrail(&["check", "--instance", "blue"]);
    assert!(
        said.stdout.contains("pending.db: writable"),
        "{}",
        said.stdout
    );
}

/// Runs the command where systemd seems to run and `systemctl` records its arguments and exits with a status.
fn with_systemctl(home: &Home, status: i32, arguments: &[&str]) -> (Said, String) {
    let asked = home.path().join("asked");
    let programs = home.path().join("bin");
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
    home.dress(&mut command);
    let said = said(command.output().unwrap());
    (said, fs::read_to_string(asked).unwrap_or_default())
}

#[test]
fn where_systemd_runs_systemctl_does_it_and_its_status_is_handed_on() {
    if !can_run(&["unshare"]) {
        return;
    }
    let home = Home::new(COPY);
    let (said, asked) = with_systemctl(&home, 0, &["install"]);
    assert_eq!(
        (said.code, asked.as_str()),
        (0, "enable --now nattrail.service\n")
    );
    assert!(
        said.stdout.contains("it also starts with the machine"),
        "{}",
        said.stdout
    );
    let (said, asked) = with_systemctl(&home, 5, &["restart", "--instance", "blue"]);
    assert_eq!(
        (said.code, asked.as_str()),
        (5, "restart nattrail@blue.service\n")
    );
    assert!(
        said.stderr.contains("journalctl -u nattrail@blue.service"),
        "{}",
        said.stderr
    );
}

#[test]
fn systemctl_does_not_stop_what_runs_for_a_configuration_that_is_wrong() {
    if !can_run(&["unshare"]) {
        return;
    }
    let home = Home::new(COPY);
    home.configure("[capture]\nlgo = \"nat\"\n");
    for (arguments, file) in [
        (&["restart"][..], "/etc/nattrail/nattrail.toml"),
        (&["reload"], "/etc/nattrail/nattrail.toml"),
        (&["start"], "/etc/nattrail/nattrail.toml"),
        (
            &["restart", "--instance", "blue"],
            "/etc/nattrail/blue.toml",
        ),
    ] {
        let (said, asked) = with_systemctl(&home, 0, arguments);
        assert_eq!((said.code, asked.as_str()), (78, ""), "{arguments:?}");
        let expected = format!("error: {file}: capture.lgo: unknown key, did you mean \"log\"");
        assert!(said.stderr.contains(&expected), "{}", said.stderr);
    }
    for action in ["restart", "install", "start"] {
        let (said, asked) = with_systemctl(&home, 0, &[action, "--instance", "red"]);
        assert_eq!((said.code, asked.as_str()), (78, ""), "{action}");
        let expected =
            "error: /etc/nattrail/red.toml: expected a readable text file, found: No such file";
        assert!(said.stderr.contains(expected), "{}", said.stderr);
    }
    home.configure(COPY);
    let (said, asked) = with_systemctl(&home, 0, &["reload"]);
    assert_eq!(
        (said.code, asked.as_str()),
        (0, "reload nattrail.service\n")
    );
}

#[test]
fn a_configuration_that_systemd_would_not_use_is_refused() {
    if !can_run(&["unshare"]) {
        return;
    }
    let home = Home::new(COPY);
    let (said, asked) = with_systemctl(&home, 0, &["start", "--config", "/etc/other.toml"]);
    assert_eq!((said.code, asked.as_str()), (64, ""));
    assert!(said.stderr.contains("/etc/other.toml"), "{}", said.stderr);
}
