//! The ways in which records leave the program: outputs, each with an encoder, a transport and a place in the record log;
//! and live views.

pub mod encoder;
pub mod output;
pub mod packer;
pub mod queue;
pub mod source;
pub mod stream;
mod transport;
mod udp;
pub mod view;
