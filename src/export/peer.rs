//! A host to which datagrams go, as the outputs that send there share it.
//!
//! Linux answers a peer once a second, after six answers at once (`net.ipv4.icmp_ratelimit`), whatever the port. So
//! silence means consent only when no one else has just been answered: the outputs to one host probe it in turn, and
//! when it refuses one of them, the others probe it too.

use std::cell::Cell;
use std::time::Duration;

use crate::time::Uptime;

/// Time between probes.
const SPARING: Duration = Duration::from_millis(1100);

#[derive(Debug, Default)]
pub struct Peer {
    /// The time from which it may be probed next.
    turn: Cell<Uptime>,
    /// Since when one of the outputs is refused, by the latest to find out.
    alarm: Cell<Option<Uptime>>,
}

impl Peer {
    /// The time of the next probe, at the earliest `from`.
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
