//! Pure codecs: bytes in or bytes out, no socket, no file, no clock.

pub mod syslog;
