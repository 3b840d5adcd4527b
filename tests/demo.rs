//! `make run` ends well by itself, leaves nothing behind when it is interrupted, and names the compiler that it needs.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use support::daemon::PROGRAM;
use support::lines::Lines;
use support::wait_for;

/// The demonstration as a child process.
struct Demo {
    child: Child,
    lines: Lines,
}

impl Demo {
    fn start() -> Option<Self> {
        let programs = ["ip", "nft", "conntrack", "socat", "ping", "awk"];
        if !support::can_run(&programs) {
            return None;
        }
        let mut child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo.sh"))
            .arg(PROGRAM)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Lines::read(child.stdout.take().unwrap());
        Some(Self { child, lines })
    }

    /// Waits for its end and asserts that nothing is left of it. Returns its exit status.
    fn end(mut self) -> Option<i32> {
        let status = wait_for("the demonstration to end", || {
            self.child.try_wait().unwrap()
        });
        let prefix = format!("nattrail-demo-{}-", self.child.id());
        let names = fs::read_dir("/run/netns").unwrap();
        let mut names = names.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        assert_eq!(names.find(|name| name.starts_with(&prefix)), None);
        status.code()
    }
}

#[test]
fn the_demonstration_finds_every_record() {
    let Some(mut demo) = Demo::start() else {
        return;
    };
    let lines = demo.lines.all();
    let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(count("event=create "), 4, "{lines:#?}");
    assert_eq!(count("event=delete "), 4, "{lines:#?}");
    assert_eq!(demo.end(), Some(0));
}

#[test]
fn an_interrupted_demonstration_leaves_nothing_behind() {
    let Some(demo) = Demo::start() else {
        return;
    };
    wait_for("the first record", || {
        let lines = demo.lines.so_far();
        lines
            .iter()
            .any(|line| line.contains("event=create "))
            .then_some(())
    });
    let pid = demo.child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_ne!(children, "", "the servers and the daemon");
    let shell = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(shell, Signal::TERM).unwrap();
    assert_eq!(demo.end(), Some(143));
    for child in children.split_whitespace() {
        wait_for("the demonstration's children to be gone", || {
            (!Path::new("/proc").join(child).exists()).then_some(())
        });
    }
}

#[test]
fn an_old_compiler_is_refused_by_its_version() {
    let programs = tempfile::tempdir().unwrap();
    for name in ["cargo", "rustc"] {
        let program = programs.path().join(name);
        fs::write(&program, "#!/bin/sh\necho rustc 1.9.0\n").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    }
    let mut make = Command::new("make");
    make.arg("cargo").current_dir(env!("CARGO_MANIFEST_DIR"));
    make.env_remove("SUDO_USER");
    let path = format!("{}:/usr/bin:/bin", programs.path().display());
    let output = make.env("PATH", path).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    let needed = concat!(
        "cargo and rustc ",
        env!("CARGO_PKG_RUST_VERSION"),
        " or later"
    );
    let expected = format!("this needs {needed}, and found 1.9.0: ");
    assert!(message.starts_with(&expected), "{message}");
    assert!(!output.status.success());
}
