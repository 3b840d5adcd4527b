//! Times in which the beginnings of sessions may have been missed.
//!
//! The DESTROY of an unknown session is either the end of one whose NEW was never read, or the repetition of an end:
//! the kernel sends it again to every listener until each that wants reliable delivery has it. Where
//! [`recent`](super::recent) cannot tell the two apart, the start of the session can: a NEW is missed only while nobody
//! listens or the socket drops events.
//!
//! Such a time is over once an audit has found the sessions that began in it and are still open.

use super::CLOCK_SLACK;
use crate::time::Wall;

/// The most spans kept apart. Beyond that, the latest one grows.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Unheard {
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    from: Wall,
    to: Wall,
    /// The last audit begun before it ended.
    audit: u32,
}

impl Unheard {
    /// Takes note of a time in which beginnings may have been missed. The span is a second longer at both ends, since
    /// the kernel and the daemon read the clock at different moments.
    pub(super) fn note(&mut self, from: Wall, to: Wall, audit: u32) {
        let (from, to) = (from.min(to), to.max(from));
        let new = Span {
            from: from.saturating_sub(CLOCK_SLACK),
            to: to.saturating_add(CLOCK_SLACK),
            audit,
        };
        let is_full = self.spans.len() >= MOST;
        match self.spans.last_mut() {
            Some(last) if is_full || new.from <= last.to && last.from <= new.to => {
                last.from = last.from.min(new.from);
                last.to = last.to.max(new.to);
                last.audit = last.audit.max(audit);
            }
            _ => self.spans.push(new),
        }
    }

    /// Whether the NEW of a session that began at `start` may have been missed.
    pub(super) fn may_hide(&self, start: Wall) -> bool {
        let hides = |span: &Span| span.from <= start && start <= span.to;
        self.spans.iter().any(hides)
    }

    /// Whether anything may have been missed after `time`.
    pub(super) fn is_after(&self, time: Wall) -> bool {
        self.spans.iter().any(|span| span.to >= time)
    }

    /// Audit number `audit` has found every session that is open.
    pub(super) fn forget_before(&mut self, audit: u32) {
        self.spans.retain(|span| span.audit >= audit);
    }
}
