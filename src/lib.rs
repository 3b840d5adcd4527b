//! nattrail, a NAT-audit logger for Linux gateways.
//!
//! The life of an event, from the kernel to the collector:
//!
//! 1. [`daemon`] waits for the event socket, reads both clocks once, and takes a batch of datagrams from [`kernel`].
//! 2. [`wire::ctnetlink`] decodes a datagram into a flow: both tuples, counters, times.
//! 3. [`engine`] pairs it with the session that is pending, applies the filters, and gives [`session::Record`]s (a
//!    create, a delete, a gap) and changes for the store.
//! 4. [`store::record_log`] gives the record the next serial ([`place`]), and [`store`] writes it to SQLite once per flush:
//!    records, pending sessions and the places of the outputs in one commit, so that they are of one moment.
//! 5. [`export`] has an output for each collector and copy, which follows the log from its own place on, packs records with
//!    the codecs of [`wire`], sends as many as go without waiting, and moves its place when they count as taken.
//!
//! A restart, a reload or a receiver that is away only changes where an output stands. `daemon::takeover` decides how a run
//! begins, `daemon::keeper` when to commit, and `daemon::outputs` which output has which place.
//!
//! Beside it, [`convert`] makes a configuration of those of other programs, [`monitor`] sets up ports for mirrored traffic,
//! and [`metrics`] declares every counter once.
//!
//! Dependencies point downward only: [`cli`] → [`convert`], [`monitor`], [`daemon`] → [`store`] → [`export`], [`engine`] →
//! [`kernel`] → [`config`], [`metrics`] → [`wire`] → [`place`] → [`session`] → [`time`]. `wire`, `engine` and the
//! packing half of `export` are sans-IO: bytes, events and `now` go in, records, bytes and deadlines come out, and
//! scripts of (time, event) test them. `daemon` and `cli` read the clocks, in one place of `kernel`, which alone has
//! unsafe code.

pub mod archive;
pub mod cli;
pub mod config;
pub mod convert;
pub mod daemon;
pub mod engine;
pub mod export;
pub mod kernel;
pub mod metrics;
pub(crate) mod monitor;
pub mod place;
pub mod session;
pub mod store;
pub mod time;
pub mod wire;
