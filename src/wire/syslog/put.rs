//! Writers of numbers, addresses and times.
//!
//! They append to a byte vector and do not go through `core::fmt`, which costs several times as much on a path that
//! every record takes many times.

use std::io::Write as _;
use std::net::IpAddr;

use crate::time::Wall;

const SECS_PER_DAY: u64 = 86_400;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// "00" to "99", end to end.
const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut number = 0;
    while number < 100 {
        pairs[2 * number] = b'0' + (number / 10) as u8;
        pairs[2 * number + 1] = b'0' + (number % 10) as u8;
        number += 1;
    }
    pairs
};

/// The decimal digits of each octet, with a dot after them, and how many digits there are.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([0; 4], 0); 256];
    let mut number = 0;
    while number < 256 {
        let (text, length) = &mut octets[number];
        let digits = [number / 100, number / 10 % 10, number % 10];
        let mut first = 0;
        while first < 2 && digits[first] == 0 {
            first += 1;
        }
        while first < 3 {
            text[*length as usize] = b'0' + digits[first] as u8;
            *length += 1;
            first += 1;
        }
        text[*length as usize] = b'.';
        number += 1;
    }
    octets
};

/// Appends `length` octets, at most `SIZE`, for the caller to write in place: copied from another buffer, they would be read
/// before the processor has finished writing them, and it would stall.
fn grow<const SIZE: usize>(out: &mut Vec<u8>, length: usize) -> &mut [u8] {
    let start = out.len();
    // A length that the compiler knows takes a fraction of the time.
    out.extend_from_slice(&[0; SIZE]);
    out.truncate(start + length);
    &mut out[start..]
}

pub(super) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut at = number.checked_ilog10().unwrap_or(0) as usize + 1;
    let digits = grow::<20>(out, at);
    while number >= 100 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(pair(number % 100));
        number /= 100;
    }
    if number >= 10 {
        digits[..2].copy_from_slice(pair(number));
    } else {
        digits[0] = b'0' + number as u8;
    }
}

/// The lowest `WIDTH` digits, with leading zeros.
pub(super) fn padded<const WIDTH: usize>(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; WIDTH];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits);
}

/// `0x` and at least one digit.
pub(super) fn hexadecimal(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(b"0x");
    let digits = (u32::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(number >> (4 * digit) & 0xf) as usize]);
    }
}

/// Dotted decimal, or the form of RFC 5952.
pub(super) fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let start = out.len();
            let text = grow::<16>(out, 16);
            let mut end = 0;
            for octet in address.octets() {
                let (digits, length) = OCTETS[usize::from(octet)];
                text[end..end + 4].copy_from_slice(&digits);
                end += usize::from(length) + 1;
            }
            // Without the last dot.
            out.truncate(start + end - 1);
        }
        IpAddr::V6(address) => {
            // Writing into a vector cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}

/// Milliseconds as seconds with three decimals.
pub(super) fn seconds(out: &mut Vec<u8>, millis: u64) {
    decimal(out, millis / 1000);
    out.push(b'.');
    padded::<3>(out, millis % 1000);
}

/// Writes points in time, always UTC, and remembers the last date it worked out: consecutive records share it.
#[derive(Debug)]
pub(super) struct Calendar {
    /// Days since 1970-01-01.
    day: u64,
    date: [u8; 10],
    month: &'static [u8; 3],
    /// Padded with a space, as RFC 3164 wants it.
    day_of_month: [u8; 2],
}

impl Calendar {
    pub(super) const fn new() -> Self {
        Self {
            day: 0,
            date: *b"1970-01-01",
            month: MONTHS[0],
            day_of_month: *b" 1",
        }
    }

    /// RFC 3339 with `DIGITS` decimals, at most nine: `2026-03-01T12:00:00.000Z`.
    pub(super) fn rfc3339<const DIGITS: usize>(&mut self, out: &mut Vec<u8>, time: Wall) {
        self.turn_to(time);
        out.extend_from_slice(&self.date);
        out.push(b'T');
        clock(out, time);
        out.push(b'.');
        let decimals = u64::from(time.subsec_nanos()) / 10_u64.pow(9 - DIGITS as u32);
        padded::<DIGITS>(out, decimals);
        out.push(b'Z');
    }

    /// The stamp of RFC 3164: `Mar  1 12:00:00`.
    pub(super) fn rfc3164(&mut self, out: &mut Vec<u8>, time: Wall) {
        self.turn_to(time);
        out.extend_from_slice(self.month);
        out.push(b' ');
        out.extend_from_slice(&self.day_of_month);
        out.push(b' ');
        clock(out, time);
    }

    fn turn_to(&mut self, time: Wall) {
        let day = time.as_secs() / SECS_PER_DAY;
        if day == self.day {
            return;
        }
        let date = time.to_utc().date();
        // A Wall ends in 2554, so the year is positive and has four digits.
        let year = u64::from(date.year().unsigned_abs());
        let (month, day_of_month) = (u8::from(date.month()), u64::from(date.day()));
        self.date[0..2].copy_from_slice(pair(year / 100));
        self.date[2..4].copy_from_slice(pair(year % 100));
        self.date[5..7].copy_from_slice(pair(month.into()));
        self.date[8..10].copy_from_slice(pair(day_of_month));
        self.month = MONTHS[usize::from(month) - 1];
        self.day_of_month.copy_from_slice(pair(day_of_month));
        if day_of_month < 10 {
            self.day_of_month[0] = b' ';
        }
        self.day = day;
    }
}

/// `hh:mm:ss` of the day.
fn clock(out: &mut Vec<u8>, time: Wall) {
    let second = time.as_secs() % SECS_PER_DAY;
    let mut text = *b"00:00:00";
    text[0..2].copy_from_slice(pair(second / 3600));
    text[3..5].copy_from_slice(pair(second / 60 % 60));
    text[6..8].copy_from_slice(pair(second % 60));
    out.extend_from_slice(&text);
}

/// The two digits of a number below 100.
fn pair(number: u64) -> &'static [u8] {
    let at = 2 * number as usize;
    &PAIRS[at..at + 2]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_day_is_padded_as_each_rfc_wants_it() {
        let mut calendar = Calendar::new();
        // 2026-03-01T09:08:07.006005004Z
        let time = Wall::from_nanos(1_772_356_087_006_005_004);
        assert_eq!(
            written(|out| calendar.rfc3339::<3>(out, time)),
            "2026-03-01T09:08:07.006Z"
        );
        assert_eq!(
            written(|out| calendar.rfc3339::<6>(out, time)),
            "2026-03-01T09:08:07.006005Z"
        );
        assert_eq!(
            written(|out| calendar.rfc3164(out, time)),
            "Mar  1 09:08:07"
        );
    }

    #[test]
    fn the_first_day_needs_no_turning() {
        assert_eq!(
            written(|out| Calendar::new().rfc3164(out, Wall::default())),
            "Jan  1 00:00:00"
        );
    }

    proptest! {
        #[test]
        fn numbers_and_addresses_are_written_as_the_standard_library_does(number: u64, v4: [u8; 4], v6: u128) {
            for number in [number, number % 1000, number % 10] {
                prop_assert_eq!(written(|out| decimal(out, number)), number.to_string());
            }
            let short = number as u32 >> (number % 32);
            prop_assert_eq!(written(|out| hexadecimal(out, short)), format!("{short:#x}"));
            let (v4, v6) = (IpAddr::from(v4), IpAddr::from(std::net::Ipv6Addr::from(v6)));
            prop_assert_eq!(written(|out| address(out, v4)), v4.to_string());
            prop_assert_eq!(written(|out| address(out, v6)), v6.to_string());
        }

        #[test]
        fn times_read_back_as_the_same_millisecond(nanos: u64, other: u64) {
            let mut calendar = Calendar::new();
            for nanos in [nanos, other, nanos] {
                let text = written(|out| calendar.rfc3339::<3>(out, Wall::from_nanos(nanos)));
                let read = ::time::OffsetDateTime::parse(&text, &Rfc3339).unwrap();
                prop_assert_eq!(read.unix_timestamp_nanos() / 1_000_000, i128::from(nanos / 1_000_000));
            }
        }
    }
}
