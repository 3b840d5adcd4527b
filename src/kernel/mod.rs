//! The kernel side: netlink sockets, network namespaces, the nftables table and the settings of connection tracking.
//!
//! The only part of the program with `unsafe` code; each block says why it is sound.

pub mod conntrack;
pub mod filter;
pub mod inherited;
pub mod namespace;
pub mod nftables;
pub mod sysctl;
