//! nattrail, a NAT-audit logger for Linux gateways.

pub mod config;
pub mod daemon;
pub mod kernel;
pub mod session;
pub mod time;
