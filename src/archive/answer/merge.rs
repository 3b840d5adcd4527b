//! Sessions of several sources as one set, each session once.
//!
//! A gateway has no two sessions with the same tuples, protocol and zone at a time. So of those an open one is the same
//! session as a finished one if it began while that lived, and the finished one says more.

use std::collections::HashMap;
use std::rc::Rc;

use super::Found;
use crate::archive::row::{Millis, Row};
use crate::session::{Protocol, Tuple};

/// How much later than the time at which an event was read the kernel's start of the session may be.
const CLOCK_SLACK: u64 = 1000;

#[derive(Debug, Default)]
pub(super) struct Merged {
    groups: HashMap<Identity, Vec<Found>>,
    count: usize,
}

type Identity = (Rc<str>, Tuple, Tuple, Protocol, u16);

impl Merged {
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn push(&mut self, found: Found) {
        let row = &found.row;
        let identity = (
            found.gateway.clone(),
            row.pre,
            row.post,
            row.protocol,
            row.zone,
        );
        let group = self.groups.entry(identity).or_default();
        if !group.contains(&found) {
            group.push(found);
            self.count += 1;
        }
    }

    /// When the first of the open sessions was last known to be open.
    pub(super) fn oldest_open(&self) -> Option<Millis> {
        let all = self.groups.values().flatten();
        let open = all.filter(|found| found.is_open);
        open.map(|found| found.row.end).min()
    }

    pub(super) fn into_sessions(self) -> impl Iterator<Item = Found> {
        self.groups.into_values().flat_map(|mut group| {
            let (mut open, finished): (Vec<_>, Vec<_>) =
                group.drain(..).partition(|found| found.is_open);
            open.retain(|open| {
                let mut finished = finished.iter();
                !finished.any(|finished| is_end_of(&finished.row, &open.row))
            });
            // The same one read twice, the later time says more.
            open.sort_by_key(|found| (found.row.start, std::cmp::Reverse(found.row.end)));
            open.dedup_by_key(|found| found.row.start);
            finished.into_iter().chain(open)
        })
    }
}

/// Whether the finished session is what became of the open one.
fn is_end_of(finished: &Row, open: &Row) -> bool {
    let Some(begun) = open.start else {
        return true;
    };
    match finished.start {
        Some(start) if start == begun => true,
        Some(start) => {
            start.get() <= begun.get().saturating_add(CLOCK_SLACK) && begun < finished.end
        }
        None => begun <= finished.end,
    }
}
