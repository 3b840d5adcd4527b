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
        string(out, key.as_bytes());
        out.push(b':');
        match value {
            Value::Name(name) => string(out, name.as_bytes()),
            Value::Yes => out.extend_from_slice(b"true"),
            Value::Decimal(_) | Value::Duration(_) => text::value(out, value, calendar),
            Value::Address(_) | Value::Hexadecimal(_) | Value::Protocol(_) | Value::Time(_) => {
                out.push(b'"');
                text::value(out, value, calendar);
                out.push(b'"');
            }
        }
    });
    out.push(b'}');
}

/// A string with what RFC 8259 section 7 says must be escaped.
fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if text.iter().any(|byte| must_be_escaped(*byte)) {
        for byte in text {
            escaped(out, *byte);
        }
    } else {
        out.extend_from_slice(text);
    }
    out.push(b'"');
}

const fn must_be_escaped(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0x00..=0x1f)
}

fn escaped(out: &mut Vec<u8>, byte: u8) {
    if !must_be_escaped(byte) {
        out.push(byte);
    } else if byte >= 0x20 {
        out.extend_from_slice(&[b'\\', byte]);
    } else {
        out.extend_from_slice(b"\\u00");
        out.push(b'0' + (byte >> 4));
        out.push(b"0123456789abcdef"[usize::from(byte & 0xf)]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_control_character_quote_and_backslash_is_escaped() {
        let mut out = Vec::new();
        string(&mut out, b"a\"b\\c\n\x01\x1f d");
        assert_eq!(out, br#""a\"b\\c\u000a\u0001\u001f d""#);
        let all: String = (0_u8..0x80).map(char::from).collect();
        let mut out = Vec::new();
        string(&mut out, all.as_bytes());
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), all);
    }
}
