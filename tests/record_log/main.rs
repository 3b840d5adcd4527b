//! The record log and the outputs that follow it: records that wait for a receiver survive whatever happens to the daemon.
//!
//! The real daemon on real NAT, with IPFIX, NetFlow v9 and v5, syslog over UDP and to a local socket, a file and a
//! journal at once. Every session is compared with the records that each of the seven took.

#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines for real processes need the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "shared with the tests of losses")]
#[path = "../loss/ledger.rs"]
mod ledger;

#[allow(dead_code, reason = "shared with the benchmark")]
#[path = "../bench/generator.rs"]
mod generator;

mod account;
mod away;
mod backlog;
mod bounds;
mod changes;
mod damage;
mod flaps;
mod read;
mod scene;
mod unusable;
