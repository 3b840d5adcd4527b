//! The archive beside the real daemon on real NAT: every record comes into it once, whatever ends either process.

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

mod answers;
mod chaos;
mod disk;
mod scene;
mod witnesses;
