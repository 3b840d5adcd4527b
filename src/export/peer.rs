//! A host to which datagrams go, as the outputs that send there share it.
//!
//! Linux answers a peer once a second, after six answers at once (`net.ipv4.icmp_ratelimit`), whatever the port. Silence is
//! consent only while nobody else has just been answered. So the outputs to one host probe it in turn, and when one of them
//! is refused the others look whether they are too.

use std::cell::Cell;
use std::time::Duration;

use crate::time::Uptime;

/// Time between probes.
const SPARING: Duration = Duration::from_millis(1100);

#[derive(Debug, Default)]
pub struct Peer {
    /// When it may be probed next.
    turn: Cell<Uptime>,
    /// Since when one of the outputs is refused, by the latest to find out.
    alarm: Cell<Option<Uptime>>,
}

impl Peer {
    /// When to probe, at the earliest at `from`.
    pub(super) fn take_turn(&self, from: Uptime) -> Uptime {
        let at = self.turn.get().max(from);
        self.turn.set(at.saturating_add(SPARING));
        at
    }

    pub(super) fn raise_alarm(&self, since: Uptime) {
        self.alarm.set(Some(since));
    }

    pub(super) fn alarm(&self) -> Option<Uptime> {
        self.alarm.get()
    }
}
