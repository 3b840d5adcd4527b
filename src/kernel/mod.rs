//! The kernel side: netlink sockets, network namespaces, the nftables table and the settings of connection tracking.
//!
//! The only part of the program with `unsafe` code; each block says why it is sound.

pub mod conntrack;
pub(crate) mod errqueue;
pub(crate) mod filter;
pub(crate) mod inherited;
pub mod namespace;
pub(crate) mod nftables;
pub(crate) mod sysctl;
pub(crate) mod tracking;

use std::os::fd::{AsRawFd, BorrowedFd};

fn borrow(socket: &mnl::Socket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor belongs to `socket`, which the borrow cannot outlive.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}
