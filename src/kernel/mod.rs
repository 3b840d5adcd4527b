//! The kernel side: netlink sockets, network namespaces, the nftables table and the settings of connection tracking.
//!
//! The only part of the program with `unsafe` code; each block says why it is sound.

pub(crate) mod clock;
pub mod conntrack;
pub(crate) mod dump;
pub(crate) mod errqueue;
pub(crate) mod filter;
pub(crate) mod inherited;
pub mod namespace;
pub(crate) mod netdev;
pub(crate) mod nftables;
pub(crate) mod sysctl;
pub(crate) mod tracking;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// As the host calls itself.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

fn borrow(socket: &mnl::Socket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor belongs to `socket`, which the borrow cannot outlive.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// Sets a socket option that rustix does not have.
///
/// # Safety
/// If the option takes a pointer within `value`, it must be one that is good for this call.
unsafe fn set_option<T>(
    socket: impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call, and pointer and length are those of `value`, which is only read.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
