//! The native protocol of systemd-journald: one datagram per entry, one field per line
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! Besides the fields every logger sets (`MESSAGE`, `PRIORITY`, `SYSLOG_FACILITY`, `SYSLOG_IDENTIFIER`, `SYSLOG_PID`), an
//! entry has each field of [`super::fields`] in upper case behind `NAT_`, so that `journalctl NAT_POST_SRC=192.0.2.1`
//! finds it through the journal's index. journald itself adds the time of reception and the sender.

use super::fields;
use super::put::Calendar;
use super::text;
use crate::session::Record;

/// Everything up to the value of `MESSAGE`, which must not hold a newline; the configuration allows none in the
/// identifier either.
pub(super) fn header(facility: u8, severity: u8, identifier: &str, pid: u32) -> String {
    format!(
        "PRIORITY={severity}\nSYSLOG_FACILITY={facility}\nSYSLOG_PID={pid}\n\
         SYSLOG_IDENTIFIER={identifier}\nMESSAGE="
    )
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
