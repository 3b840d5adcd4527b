//! The kernel side: the settings of connection tracking.

pub mod sysctl;
