//! Times in which the kernel does not count packets although accounting is on: while an nftables flowtable lacks `counter`.
//!
//! The packets of a flow in such a flowtable bypass connection tracking, and no event reveals it: the status bit
//! `IPS_OFFLOAD` is cleared before the end is reported (`flow_offload_teardown` in
//! `net/netfilter/nf_flow_table_core.c`), and entries that tc's `act_ct` offloads have it too and are counted. So the
//! records of every session that may have been in one go without counters: no counters are better than false ones.

use crate::session::Protocol;
use crate::time::Wall;
use crate::wire::ctnetlink::Entry;

#[derive(Debug, Default)]
pub(super) struct Uncounted {
    /// The first and the last time at which there may have been such a flowtable.
    span: Option<(Wall, Wall)>,
    is_there: bool,
}

impl Uncounted {
    /// Takes note whether there is one now. The last check was at `before`.
    pub(super) fn note(&mut self, is_there: bool, before: Wall, now: Wall) {
        if is_there || self.is_there {
            // It never shrinks, also where the clock was set back.
            let (from, to) = self.span.unwrap_or((before, now));
            self.span = Some((from.min(now), to.max(now)));
        }
        self.is_there = is_there;
    }

    /// Whether packets of a session with this lifetime, `flow` at its end, may not have been counted.
    pub(super) fn may_have(&self, flow: &Entry, start: Option<Wall>, end: Wall) -> bool {
        // The protocols that `nft_flow_offload_eval` takes.
        let protocols = [Protocol::TCP, Protocol::UDP, Protocol::GRE];
        let is_eligible = protocols.contains(&flow.session.protocol);
        is_eligible
            && self.span.is_some_and(|(from, to)| {
                from <= end && (self.is_there || start.is_none_or(|start| start <= to))
            })
    }
}
