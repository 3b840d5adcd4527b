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
    if let Record::Checkpoint(_) = record {
        return checkpoint(out, record, calendar);
    }
    let mut separator: &[u8] = b"";
    fields::visit(record, |key, value| {
        out.extend_from_slice(separator);
        separator = b" ";
        out.extend_from_slice(key.as_bytes());
        out.push(b'=');
        self::value(out, value, calendar);
    });
}

/// Apart, so that other records need not look for quotes.
#[cold]
fn checkpoint(out: &mut Vec<u8>, record: &Record, calendar: &mut Calendar) {
    let mut separator = "";
    fields::visit(record, |key, value| {
        let quotes = match value {
            Value::Base64(_) => "\"",
            _ => "",
        };
        out.extend_from_slice(format!("{separator}{key}={quotes}").as_bytes());
        separator = " ";
        self::value(out, value, calendar);
        out.extend_from_slice(quotes.as_bytes());
    });
}

#[inline]
pub(super) fn value(out: &mut Vec<u8>, value: Value<'_>, calendar: &mut Calendar) {
    match value {
        Value::Address(address) => put::address(out, address),
        Value::Base64(octets) => base64(out, octets),
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
fn base64(out: &mut Vec<u8>, octets: &[u8]) {
    out.extend_from_slice(STANDARD.encode(octets).as_bytes());
}
