//! What a command answers, and a session to ask for.

#![allow(dead_code, reason = "every test program uses its own part of this")]

use std::process::Output;

use nattrail::archive::row::{Millis, Row};
use nattrail::session::{Counters, Protocol, Provenance, Totals, Tuple};

pub fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A session with 198.51.100.7:443, whose public address is 203.0.113.9; times are in milliseconds since 1970.
pub fn row(subscriber: &str, port: u16, protocol: Protocol, start: u64, end: u64) -> Row {
    let tuple = |src: &str, src_port| Tuple {
        src: src.parse().unwrap(),
        dst: "198.51.100.7".parse().unwrap(),
        src_port,
        dst_port: 443,
    };
    let counters = |octets| Counters { packets: 3, octets };
    Row {
        pre: tuple(subscriber, 40_356),
        post: tuple("203.0.113.9", port),
        protocol,
        start: Some(Millis::new(start)),
        end: Millis::new(end),
        totals: Some(Totals {
            original: counters(274),
            reply: counters(180),
        }),
        mark: 0,
        zone: 0,
        provenance: Provenance::Kernel,
    }
}
