//! Pure codecs: ctnetlink in, NetFlow, IPFIX and syslog out.
//!
//! Nothing here opens a socket, touches a file or reads a clock. Decoders never panic, whatever the bytes; every length
//! is checked before it is used. Encoders append to a buffer of the caller and cannot fail.

pub mod ctnetlink;
pub mod ctstats;
pub mod dialect;
pub mod element;
pub mod flow;
pub mod gap;
pub mod layout;
pub mod netflow5;
pub mod netlink;
pub mod record;
#[cfg(test)]
pub(crate) mod samples;
pub mod syslog;
pub mod template;
