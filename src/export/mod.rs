//! What carries records out of the program: one target or collector each, with its own queue and back-off.

pub mod collector;
pub mod packer;
pub mod queue;
pub mod stream;
pub mod syslog;
mod transport;
pub mod view;
