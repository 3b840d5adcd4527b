//! Room in the kernel for the load, given back at the end.
//!
//! `nf_conntrack_max` and the size of its hash table are those of the whole machine. So a process that does nothing
//! else raises them, runs the measurements in a child, and restores them however the child ends, even when it is
//! interrupted itself; only SIGKILL leaves them raised.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::network;

const DIRECTORY: &str = "/proc/sys/net/netfilter";

/// The variable that marks the child.
const CHILD: &str = "NATTRAIL_BENCH_LIMITS_RAISED";

/// Returns in a process that has room for this many connections. The first process waits for it and exits with its
/// status.
pub fn with_room_for(connections: u64) {
    if std::env::var_os(CHILD).is_some() {
        // The child must not survive a killed parent.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        return;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .expect("not a forbidden signal");
    }
    let status = {
        let _max = Raised::at_least("nf_conntrack_max", connections);
        // Four entries of two tuples each per bucket: longer chains would dominate the measurement.
        let _buckets = Raised::at_least("nf_conntrack_buckets", connections / 4);
        supervise(&interrupted)
    };
    std::process::exit(status);
}

fn supervise(interrupted: &AtomicBool) -> i32 {
    let program = std::env::current_exe().expect("a running program has a file");
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .env(CHILD, "1")
        .process_group(0);
    let mut child = command.spawn().expect("this program can be started");
    let pid = child.id();
    let status = wait(&mut child, interrupted);
    // All processes that the child has started are in its group.
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    let _ = child.wait();
    network::sweep(pid);
    status
}

fn wait(child: &mut Child, interrupted: &AtomicBool) -> i32 {
    loop {
        if interrupted.load(Ordering::Relaxed) {
            eprintln!("interrupted");
            return 130;
        }
        match child.try_wait() {
            Ok(Some(status)) => return status.code().unwrap_or(1),
            Ok(None) => thread::sleep(Duration::from_millis(50)),
            Err(error) => panic!("waiting for the measurements: {error}"),
        }
    }
}

/// A setting whose earlier value is restored on drop.
struct Raised {
    path: String,
    before: u64,
}

impl Raised {
    fn at_least(name: &str, value: u64) -> Option<Self> {
        let path = format!("{DIRECTORY}/{name}");
        let before: u64 = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        if before >= value {
            return None;
        }
        if let Err(error) = fs::write(&path, value.to_string()) {
            eprintln!("*** {path} stays at {before}: {error}; expect lost connections ***");
            return None;
        }
        Some(Self { path, before })
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, self.before.to_string()) {
            eprintln!(
                "*** {} could not be set back to {}: {error} ***",
                self.path, self.before
            );
        }
    }
}
