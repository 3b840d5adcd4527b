//! nattrail, a NAT-audit logger for Linux gateways.

pub mod config;
pub mod export;
pub mod session;
pub mod time;
pub mod wire;
