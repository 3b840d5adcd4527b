//! The resources that a program and its children have used, from /proc.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// CPU time of a process and its descendants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Time on a CPU, as the scheduler counts it.
    pub total: Duration,
    /// Shares in user mode and in the kernel, in the coarser measure of clock ticks.
    pub user: Duration,
    pub system: Duration,
}

impl Cpu {
    pub fn of(pid: u32) -> Self {
        let mut sum = Self::default();
        for pid in family(pid) {
            let directory = Path::new("/proc").join(pid.to_string());
            let tasks = fs::read_dir(directory.join("task")).into_iter().flatten();
            for task in tasks.flatten() {
                sum.total += Duration::from_nanos(number(&task.path().join("schedstat"), 0));
            }
            // Fields 14 and 15; the second is a name in parentheses that may have spaces.
            let stat = fs::read_to_string(directory.join("stat")).unwrap_or_default();
            let rest = stat.rsplit(')').next().unwrap_or_default();
            let mut ticks = rest.split_whitespace().skip(11).flat_map(str::parse);
            let mut time = || Duration::from_millis(ticks.next().unwrap_or(0) * tick_millis());
            sum.user += time();
            sum.system += time();
        }
        sum
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            total: self.total.saturating_sub(before.total),
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

/// A value of `/proc/PID/status` (`VmRSS`, `VmHWM`) in octets, of a process and its descendants.
pub fn memory(pid: u32, name: &str) -> u64 {
    let of = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    };
    family(pid).iter().map(of).sum()
}

/// A process and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().flat_map(str::parse::<u32>));
        }
    }
    pids
}

/// Waits until the program is almost idle. Returns false if it is not after `patience`.
pub fn wait_until_idle(pid: u32, patience: Duration) -> bool {
    const LOOK: Duration = Duration::from_millis(1200);
    const IDLE: Duration = Duration::from_millis(6);
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let before = Cpu::of(pid);
        thread::sleep(LOOK);
        if Cpu::of(pid).since(before).total < IDLE {
            return true;
        }
    }
    false
}

fn tick_millis() -> u64 {
    1000 / rustix::param::clock_ticks_per_second().max(1)
}

fn number(path: &Path, column: usize) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.split_whitespace().nth(column);
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}
