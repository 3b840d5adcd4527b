//! The ways in which records leave the program: outputs, each with an encoder, a transport and a place in the record log;
//! and live views.

mod aggregate;
pub mod encoder;
pub(crate) mod file;
pub mod follower;
mod losses;
pub mod output;
mod packer;
pub mod peer;
pub mod queue;
#[cfg(test)]
mod samples;
pub mod source;
pub mod stream;
mod transport;
mod udp;
pub mod view;
