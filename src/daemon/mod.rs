//! The daemon.

pub mod log;
