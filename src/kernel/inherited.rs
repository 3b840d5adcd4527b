//! What the daemon has from whoever starts it: descriptors that the service manager has kept since an earlier run
//! (sd_listen_fds(3)), and no others; and that SIGHUP does not end it before it listens to it.
//!
//! The descriptors begin at 3, `LISTEN_FDS` is their number, `LISTEN_FDNAMES` has their names with colons between, and they are meant
//! for the process `LISTEN_PID`. The variables stay in the environment: the daemon starts no other program.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// The first one (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// More than any manager hands over.
const MOST: usize = 1024;

/// A descriptor and the name it was stored under; empty when there is none.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub name: String,
    pub descriptor: OwnedFd,
}

/// Takes the descriptors meant for this process, and makes sure that no other program would get them. To be called before
/// the process opens any of its own; there is nothing left for a second call.
#[must_use]
pub(crate) fn take() -> Vec<Inherited> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let variable = |name| std::env::var(name).ok();
    let names = announced(
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
        std::process::id(),
    );
    let numbered = (FIRST..).zip(names);
    numbered.filter_map(|(raw, name)| own(raw, name)).collect()
}

/// Lets this process, and the programs that it is or starts from now on, ignore SIGHUP until it sets up a handler: what is
/// ignored stays so over execve(2).
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
fn announced(
    pid: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
    own_pid: u32,
) -> Vec<String> {
    let parsed = |text: Option<&str>| text?.parse().ok();
    if parsed(pid) != Some(own_pid) {
        return Vec::new();
    }
    let count = count.and_then(|text| text.parse().ok()).unwrap_or(0_usize);
    let names = names.unwrap_or_default().split(':').map(str::to_owned);
    let padded = names.chain(std::iter::repeat(String::new()));
    padded.take(count.min(MOST)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(pid: &str, count: &str, names: Option<&str>) -> Vec<String> {
        announced(Some(pid), Some(count), names, 42)
    }

    #[test]
    fn every_descriptor_has_its_name() {
        assert_eq!(of("42", "2", Some("a:b")), ["a", "b"]);
    }

    #[test]
    fn names_may_be_missing() {
        assert_eq!(of("42", "2", Some("a")), ["a", ""]);
        assert_eq!(of("42", "1", None), [""]);
    }

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        assert!(of("41", "2", Some("a:b")).is_empty());
        assert!(announced(None, Some("2"), None, 42).is_empty());
    }

    #[test]
    fn nonsense_announces_nothing() {
        assert!(of("42", "-1", None).is_empty());
        assert!(of("42", "", None).is_empty());
        assert_eq!(of("42", "99999999", None).len(), MOST);
    }
}
