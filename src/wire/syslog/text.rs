//! The format `text`: one line of `key=value` pairs, a space between them.
//!
//! No value holds a space, a quotation mark or an equals sign, so none is quoted: addresses, numbers, times and names
//! from closed sets are all there is. The fields are those of [`super::fields`].

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
        self::value(out, value, calendar);
    });
}

#[inline]
pub(super) fn value(out: &mut Vec<u8>, value: Value, calendar: &mut Calendar) {
    match value {
        Value::Address(address) => put::address(out, address),
        Value::Decimal(number) => put::decimal(out, number),
        Value::Duration(millis) => put::seconds(out, millis),
        Value::Hexadecimal(number) => put::hexadecimal(out, number),
        Value::Name(name) => out.extend_from_slice(name.as_bytes()),
        Value::Protocol(protocol) => match protocol.name() {
            Some(name) => out.extend_from_slice(name.as_bytes()),
            None => put::decimal(out, protocol.0.into()),
        },
        Value::Time(time) => calendar.rfc3339::<3>(out, time),
        Value::Yes => out.extend_from_slice(b"yes"),
    }
}
