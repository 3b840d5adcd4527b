//! nattrail, a NAT-audit logger for Linux gateways.
//!
//! The life of an event, from the kernel to the collector:
//!
//! 1. [`daemon`] waits for the event socket, reads both clocks once, and takes a batch of datagrams from [`kernel`].
//! 2. [`wire::ctnetlink`] decodes a datagram into a flow: both tuples, counters, times.
//! 3. [`engine`] pairs it with the session that is pending, applies the filters, and gives [`session::Record`]s (a
//!    create, a delete, a gap) and changes for the store.
//! 4. [`export`] packs each record for each collector and copy with the codecs of [`wire`], and sends what goes without
//!    waiting.
//! 5. [`store`] writes which sessions are pending to SQLite, once per flush: what began and ended in between never gets
//!    there.
//!
//! Beside it, [`convert`] makes a configuration of those of other programs.
//!
//! Dependencies point downward only: [`cli`] → [`convert`], [`daemon`] → [`kernel`], [`store`], [`export`], [`engine`] →
//! [`wire`] → [`metrics`], [`session`], [`time`], [`config`]. `wire`, `engine` and the packing half of `export` are sans-IO: bytes,
//! events and `now` go in, records, bytes and deadlines come out, so that scripts of (time, event) test them. Only
//! `daemon` reads a clock, only `kernel` has unsafe code.

pub mod cli;
pub mod config;
mod convert;
mod daemon;
pub mod engine;
pub mod export;
pub mod kernel;
pub mod metrics;
pub mod place;
pub mod session;
pub mod store;
pub mod time;
pub mod wire;
