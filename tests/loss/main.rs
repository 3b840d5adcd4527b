//! Nothing is lost silently: the records hold every session that the kernel made, and gaps cover those that are missing.
//!
//! The real daemon stands on a gateway in namespaces, and the tests do everything that can make it miss an event: a
//! receive buffer that is too small, a stopped reader, another slow listener, connections that were never announced,
//! exhausted ports, reused tuples, a removed ruleset or namespace, and kill -9 at random. Each test compares the
//! sessions that it made (no two have the same tuple, or their number is known) with the records, and with the counters
//! of `nattrail status`.

#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "how long a real process takes needs the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod floods;
#[path = "../bench/generator.rs"]
mod generator;
mod ground;
mod ledger;
#[path = "../bench/network.rs"]
#[expect(dead_code, reason = "the benchmark needs more of it")]
mod network;
mod overload;
mod tuples;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use ledger::Ledger;
use support::daemon::{CAPTURE, Daemon, Home};
use support::gateway::{Gateway, MASQUERADE};
use support::status::{ask, assert_conserved, number};
use support::wait_until;

/// The time that a test waits for slow work of the kernel, such as delivering out of its dying list.
const LONG: Duration = Duration::from_secs(60);

/// A masquerading gateway with the daemon on it, which writes its records to a file.
struct Scene {
    // Dropped in this order: the daemon before its environment.
    daemon: Daemon,
    home: Home,
    net: Gateway,
}

impl Scene {
    /// `capture` holds further keys of that section.
    fn new(capture: &str) -> Option<Self> {
        let net = Gateway::new(&[])?;
        net.nft(MASQUERADE);
        Some(Self::on(net, capture))
    }

    /// The same, with at most `max_pending` sessions kept.
    fn keeping(max_pending: usize, capture: &str) -> Option<Self> {
        let net = Gateway::new(&[])?;
        net.nft(MASQUERADE);
        let home = home(capture);
        let config = config_for(&records(&home), capture);
        home.configure(&config.replace("[pending]", &format!("[pending]\nmax = {max_pending}")));
        Some(Self::at(net, home))
    }

    fn on(net: Gateway, capture: &str) -> Self {
        Self::at(net, home(capture))
    }

    fn at(net: Gateway, home: Home) -> Self {
        let daemon = Daemon::start(&net.gateway, &home);
        let _ = daemon.wait_for_message("started");
        Self { daemon, home, net }
    }

    /// The daemon's status, once `is_so` holds.
    fn wait_for_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let answer = wait_until(Instant::now() + LONG, || {
            let metrics = ask(&self.home);
            assert_conserved(&metrics);
            is_so(&metrics).then_some(metrics)
        });
        answer.unwrap_or_else(|| panic!("waited {LONG:?} for {what} in {:#}", ask(&self.home)))
    }

    /// Waits for this many ends, with nothing left open.
    fn wait_for_deletes(&self, count: u64) -> Value {
        self.wait_for_status(&format!("{count} deletes"), |metrics| {
            number(metrics, "/sessions/deletes") >= count
                && number(metrics, "/sessions/pending") == 0
        })
    }

    /// Ends the daemon by a planned stop, and reads its records.
    fn finish(self) -> Ledger {
        self.daemon.terminate();
        Ledger::read(&records(&self.home))
    }
}

fn home(capture: &str) -> Home {
    let home = Home::new("");
    home.configure(&config_for(&records(&home), capture));
    home
}

/// A configuration that writes records to this file.
fn config_for(records: &Path, capture: &str) -> String {
    format!(
        "{CAPTURE}{capture}
         [pending]
         flush = \"100ms\"
         [[syslog]]
         name = \"records\"
         target = \"file\"
         path = \"{}\"
         format = \"json\"
         ",
        records.display()
    )
}

fn records(home: &Home) -> PathBuf {
    home.path().join("records.json")
}
