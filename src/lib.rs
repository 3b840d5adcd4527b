//! nattrail, a NAT-audit logger for Linux gateways.

pub mod config;
pub mod daemon;
pub mod engine;
pub mod export;
pub mod kernel;
pub mod session;
pub mod store;
pub mod time;
pub mod wire;
