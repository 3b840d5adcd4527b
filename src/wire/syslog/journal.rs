//! The native protocol of systemd-journald: one datagram per entry, one field per line
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! Besides the fields every logger sets (`MESSAGE`, `PRIORITY`, `SYSLOG_FACILITY`, `SYSLOG_IDENTIFIER`, `SYSLOG_PID`), an
//! entry has each field of [`super::fields`] in upper case behind `NAT_`, so that `journalctl NAT_POST_SRC=192.0.2.1`
//! finds it through the journal's index. journald itself writes down when it took the entry and who sent it.

use super::fields;
use super::put::{self, Calendar};
use super::text;
use crate::session::Record;

#[derive(Debug)]
pub(super) struct Header(Vec<u8>);

impl Header {
    pub(super) fn new(facility: u8, severity: u8, identifier: &str, pid: u32) -> Self {
        let mut out = Vec::new();
        let mut number = |name: &[u8], value: u32| {
            out.extend_from_slice(name);
            put::decimal(&mut out, value.into());
            out.push(b'\n');
        };
        number(b"PRIORITY=", severity.into());
        number(b"SYSLOG_FACILITY=", facility.into());
        number(b"SYSLOG_PID=", pid);
        // The configuration allows no line feed in it.
        out.extend_from_slice(b"SYSLOG_IDENTIFIER=");
        out.extend_from_slice(identifier.as_bytes());
        out.push(b'\n');
        Self(out)
    }

    /// Everything up to the value of `MESSAGE`, which must not hold a newline.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
        out.extend_from_slice(b"MESSAGE=");
    }
}

/// The text that follows the value of `MESSAGE`.
pub(super) fn fields(out: &mut Vec<u8>, record: &Record, calendar: &mut Calendar) {
    out.push(b'\n');
    fields::visit(record, |key, value| {
        out.extend_from_slice(b"NAT_");
        let start = out.len();
        out.extend_from_slice(key.as_bytes());
        out[start..].make_ascii_uppercase();
        out.push(b'=');
        text::value(out, value, calendar);
        out.push(b'\n');
    });
}
