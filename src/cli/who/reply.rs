//! An answer with what the command line knows besides.

use std::collections::BTreeSet;

use super::subscribers::Subscribers;
use super::words;
use crate::archive::answer::{Answer, Candidate, Verdict};
use crate::archive::question::Role;

/// The most names in a sentence.
const MOST_NAMES: usize = 5;

#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    /// The line of the request, when there are many.
    pub(super) line: Option<usize>,
    pub(super) answer: &'a Answer,
    pub(super) subscribers: &'a Subscribers,
    pub(super) is_assumed_utc: bool,
}

impl Reply<'_> {
    /// The subscriber of a session, out of the operator's list; empty when it is not there.
    pub(super) fn name(&self, candidate: &Candidate) -> String {
        let address = match candidate.role {
            Role::Subscriber => candidate.row.pre.src,
            Role::Server => candidate.row.post.dst,
        };
        self.subscribers.of(address, &words::life(candidate))
    }

    /// The subscribers that an answer without ambiguity names.
    pub(super) fn subscriber_names(&self) -> Vec<String> {
        if self.answer.verdict != Verdict::One {
            return Vec::new();
        }
        let names = self.answer.candidates.iter().map(|it| self.name(it));
        let names: BTreeSet<_> = names.filter(|name| !name.is_empty()).collect();
        names.into_iter().take(MOST_NAMES).collect()
    }
}
