//! The format `text`: one line of `key=value` pairs, a space between them.
//!
//! No value holds a space or a quotation mark. Base64 may end with an equals sign, and is quoted; nothing else is: addresses,
//! numbers, times, names from closed sets and the name of a log are all there is. The fields are those of [`super::fields`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fields::{self, Value};
use super::put::{self, Calendar};
use crate::session::Record;

pub(super) fn line(out: &mut Vec<u8>, record: &Record, calendar: &mut Calendar) {
    let mut separator: &[u8] = b"";
    fields::visit(record, |key, value| {
        out.extend_from_slice(separator);
        separator = b" ";
        out.extend_from_slice(key.as_bytes());
        out.push(b'=');
        match value {
            Value::Base64(octets) => base64(out, octets, b"\""),
            value => self::value(out, value, calendar),
        }
    });
}

#[inline]
pub(super) fn value(out: &mut Vec<u8>, value: Value<'_>, calendar: &mut Calendar) {
    match value {
        Value::Address(address) => put::address(out, address),
        Value::Base64(octets) => base64(out, octets, b""),
        Value::Decimal(number) => put::decimal(out, number),
        Value::Duration(millis) => put::seconds(out, millis),
        Value::Hexadecimal(number) => put::hexadecimal(out, number),
        Value::Name(name) | Value::Origin(name) => out.extend_from_slice(name.as_bytes()),
        Value::Protocol(protocol) => match protocol.name() {
            Some(name) => out.extend_from_slice(name.as_bytes()),
            None => put::decimal(out, protocol.0.into()),
        },
        Value::Time(time) => calendar.rfc3339::<3>(out, time),
        Value::Yes => out.extend_from_slice(b"yes"),
    }
}

/// Only a checkpoint has it: the code for other records is faster without this in it.
#[cold]
#[inline(never)]
fn base64(out: &mut Vec<u8>, octets: &[u8], quotes: &[u8]) {
    for part in [quotes, STANDARD.encode(octets).as_bytes(), quotes] {
        out.extend_from_slice(part);
    }
}
