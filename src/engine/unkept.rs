//! Sessions that began when no more could be kept: their create record has left, and nothing else is known of them.
//!
//! So the end of one cannot be told from that of a session whose beginning was missed. As long as there may be such
//! sessions, an unknown one that began after the first of them is taken for one of them, and gets no second create.

use super::CLOCK_SLACK;
use crate::time::Wall;

#[derive(Debug, Default)]
pub(super) struct Unkept {
    /// How many there may be, at most.
    count: u64,
    /// Of those, the ones that the audit under way has seen, or that began during it.
    confirmed: u64,
    /// When the first of them began.
    since: Wall,
}

impl Unkept {
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn add(&mut self, begun: Wall) {
        self.since = if self.count == 0 {
            begun
        } else {
            self.since.min(begun)
        };
        self.count += 1;
        self.confirmed += 1;
    }

    /// Whether an unknown session that the kernel says began at `start` may be one of them.
    pub(super) fn may_contain(&self, start: Option<Wall>) -> bool {
        self.count > 0 && start.is_none_or(|start| start.saturating_add(CLOCK_SLACK) >= self.since)
    }

    /// One has ended, or can be kept after all. Returns false when it cannot have been one of them.
    pub(super) fn take(&mut self, start: Option<Wall>) -> bool {
        let taken = self.may_contain(start);
        if taken {
            self.count -= 1;
            self.confirmed = self.confirmed.saturating_sub(1);
        }
        taken
    }

    pub(super) fn handle_audit_begin(&mut self) {
        self.confirmed = 0;
    }

    /// The audit has found one of them in the kernel's table.
    pub(super) fn confirm(&mut self) {
        self.confirmed += 1;
    }

    /// The audit is over: more than it has seen there are not.
    pub(super) fn handle_audit_end(&mut self) {
        self.count = self.count.min(self.confirmed);
    }
}
