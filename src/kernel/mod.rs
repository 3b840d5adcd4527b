//! The kernel side: netlink sockets, network namespaces, the nftables table and the settings of connection tracking.
//!
//! The only part of the program with `unsafe` code; each block says why it is sound.

pub mod conntrack;
pub mod filter;
pub mod inherited;
pub mod landlock;
pub mod namespace;
pub mod nftables;
pub mod sysctl;
pub mod tracking;

use std::os::fd::{AsRawFd, BorrowedFd};

fn borrow(socket: &mnl::Socket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor belongs to `socket`, which the borrow cannot outlive.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}
