//! Datagrams of the event socket: a 6.18 kernel's events for one UDP packet through masquerade, with accounting and
//! timestamps.

#![allow(dead_code, reason = "every test program uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub const NEW: &str = "a0000000000100060000000000000000020000003400018014000180080001000a01020308000200cb0071071c\
    000280050001001100000006000200cc7c00000600030000350000340002801400018008000100cb00710708000200cb0071091c00028005\
    00010011000000060002000035000006000300cc7c000008000c00feca343a0800030000000198080007000000001e0c001b0018e9ddb206\
    a071ef";
pub const DESTROY: &str = "f40000000201000000000000a9300000020000003400018014000180080001000a01020308000200cb00710\
    71c000280050001001100000006000200cc7c00000600030000350000340002801400018008000100cb00710708000200cb0071091c00028\
    00500010011000000060002000035000006000300cc7c000008000c00feca343a0800030000000398080007000000001d1c0009800c00010\
    000000000000000010c000200000000000000001f1c000a800c00010000000000000000000c00020000000000000000001c0014800c00010\
    018e9ddb206a070ff0c00020018e9ddb23d4414a60c001b0018e9ddb23d4414d6";

/// The kernel's times in whole milliseconds.
pub const START: u64 = 0x18e9_ddb2_06a0_70ff / 1_000_000;
pub const STOP: u64 = 0x18e9_ddb2_3d44_14a6 / 1_000_000;

pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(digit).collect()
}

/// The far end's address in both tuples, and `CTA_ID`. [`NEW`] and [`DESTROY`] have them at the same places.
const FAR_END: [usize; 2] = [40, 84];
const ID: usize = 128;

/// Turns the datagram into that of session number `number`: another far end and another id.
pub fn renumber(datagram: &mut [u8], number: u32) {
    let far_end = (10 << 24 | number & 0x00ff_ffff).to_be_bytes();
    for at in FAR_END {
        datagram[at..at + 4].copy_from_slice(&far_end);
    }
    datagram[ID..ID + 4].copy_from_slice(&number.to_be_bytes());
}
