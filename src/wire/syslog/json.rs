//! The format `json`: one object per line (RFC 8259), without a space in it.
//!
//! The fields are those of [`super::fields`]. Counters, ports, identifiers and durations are numbers, `inferred` is
//! `true`, everything else is a string.

use super::fields::{self, Value};
use super::put::Calendar;
use super::text;
use crate::session::Record;

pub(super) fn line(out: &mut Vec<u8>, record: &Record, calendar: &mut Calendar) {
    let mut separator = b'{';
    fields::visit(record, |key, value| {
        out.push(separator);
        separator = b',';
        // Our own keys need no escaping.
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        match value {
            Value::Yes => out.extend_from_slice(b"true"),
            Value::Decimal(_) | Value::Duration(_) => text::value(out, value, calendar),
            // None of these needs escaping: every text is a name of ours, or was checked for that.
            Value::Address(_)
            | Value::Base64(_)
            | Value::Hexadecimal(_)
            | Value::Name(_)
            | Value::Origin(_)
            | Value::Protocol(_)
            | Value::Time(_) => {
                out.push(b'"');
                text::value(out, value, calendar);
                out.push(b'"');
            }
        }
    });
    out.push(b'}');
}
