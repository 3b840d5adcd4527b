//! The common parts of tests on a real kernel: network namespaces, a throw-away gateway, traffic, the daemon as a child
//! process, and the tools whose output is compared with the daemon's.
//!
//! Everything made here is unique to its test, so that tests run side by side, and goes away when its value is dropped,
//! even while a panic unwinds. The next test process removes the leavings of a killed one.

#![allow(dead_code, reason = "every test program uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines for real processes need the real clock"
)]

pub mod collector;
pub mod conntrack;
pub mod daemon;
pub mod decoded;
pub mod gateway;
pub mod lines;
pub mod manager;
pub mod netns;
pub mod packet;
pub mod recipe;
pub mod record;
pub mod scene;
pub mod status;
pub mod store;
pub mod traffic;

use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// The time that a test waits for something that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a test that needs root and these programs can run.
///
/// Where it cannot, this says so ([`did_not_run`]).
///
/// # Panics
/// Under `CI=true`, where every test has to run.
#[must_use]
pub fn can_run(programs: &[&str]) -> bool {
    let mut missing = Vec::new();
    if !may_administer_namespaces() {
        missing.push("root (CAP_NET_ADMIN and CAP_SYS_ADMIN)".to_owned());
    }
    missing.extend(
        programs
            .iter()
            .filter(|program| find_program(program).is_none())
            .map(|program| format!("the program {program}")),
    );
    if missing.is_empty() {
        return true;
    }
    did_not_run(&missing.join(" and "));
    false
}

/// Says past libtest's capture of the output that the test did not run, because a test that did not run must not look
/// like one that passed.
///
/// # Panics
/// Under `CI=true`, where every test has to run.
pub fn did_not_run(missing: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let message = format!(
        "\n*** {test} DID NOT RUN: it needs {missing}; `make test` or `make engines` provides it ***\n"
    );
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
    std::io::stderr().write_all(message.as_bytes()).unwrap();
}

/// The path of a program, also in the directories where Debian keeps the administrator's.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Calls `probe` again and again until it has an answer.
///
/// # Panics
/// After [`PATIENCE`], naming what it waited for.
pub fn wait_for<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    wait_until(Instant::now() + PATIENCE, probe)
        .unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Calls `probe` again and again until it has an answer or the time is over.
pub fn wait_until<T>(deadline: Instant, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn may_administer_namespaces() -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    effective & (1 << CAP_NET_ADMIN) != 0 && effective & (1 << CAP_SYS_ADMIN) != 0
}
