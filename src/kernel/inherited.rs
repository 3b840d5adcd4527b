//! Descriptors from the process that starts the daemon, which are only those that the service manager has kept since an
//! earlier run (sd_listen_fds(3)); and protection against a SIGHUP that arrives before the daemon handles it.
//!
//! The descriptors begin at 3, `LISTEN_FDS` is their number, `LISTEN_FDNAMES` has their names, separated by colons, and
//! they are for the process `LISTEN_PID`. The variables stay in the environment: the daemon starts no other program.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// The first one (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// A descriptor and the name under which it was stored; empty when it has none.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub name: String,
    pub descriptor: OwnedFd,
}

/// Takes the descriptors meant for this process, and makes sure that no other program gets them. Call it before the
/// process opens any of its own; a second call finds nothing.
pub(crate) fn take() -> Vec<Inherited> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Vec::new();
    }
    let names = announced(&variable("LISTEN_FDS"), &variable("LISTEN_FDNAMES"));
    let numbered = (FIRST..).zip(names);
    numbered.filter_map(|(raw, name)| own(raw, name)).collect()
}

/// Lets this process, and the programs that it starts or becomes from now on, ignore SIGHUP until it sets up a handler:
/// an ignored signal stays ignored over execve(2).
pub(crate) fn ignore_hangup() {
    // SAFETY: no handler is set up that could run. It cannot fail: SIGHUP is a signal that may be ignored.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

fn own(raw: RawFd, name: String) -> Option<Inherited> {
    // SAFETY: the borrow ends with the next statement; if nothing is open under this number, that fails with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    fcntl_setfd(borrowed, FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, the manager opened it for this process to own, and `take` gets here once for each number.
    let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
    Some(Inherited { name, descriptor })
}

/// One name for each descriptor that was announced.
fn announced(count: &str, names: &str) -> Vec<String> {
    let names = names.split(':').map(str::to_owned);
    let padded = names.chain(std::iter::repeat(String::new()));
    padded.take(count.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_has_its_name() {
        assert_eq!(announced("2", "a:b"), ["a", "b"]);
    }

    #[test]
    fn names_may_be_missing() {
        assert_eq!(announced("2", "a"), ["a", ""]);
        assert_eq!(announced("1", ""), [""]);
    }

    #[test]
    fn nonsense_announces_nothing() {
        assert!(announced("-1", "").is_empty());
        assert!(announced("", "").is_empty());
    }
}
