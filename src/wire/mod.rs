//! Pure codecs: values in, bytes out. Nothing here opens a socket or reads a clock.

pub mod element;
pub mod flow;
pub mod ipfix;
pub mod netflow5;
pub mod netflow9;
pub mod template;

#[cfg(test)]
pub(crate) mod samples;
