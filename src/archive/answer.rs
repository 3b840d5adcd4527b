//! The answer to a question, out of everything that knows sessions.
//!
//! - No session is in it twice, although a session that moves from the database to the sealed files may be in several
//!   places meanwhile, and an open one may have ended since.
//! - "None" is only said to be complete when nothing is known to be missing; otherwise the answer names each [`Hole`].
//! - The order of the candidates, and so the answer, depends on the records alone.

mod coverage;
mod decide;
mod merge;
#[cfg(test)]
pub(crate) mod tests;

use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::rc::Rc;

pub use self::coverage::{Absence, Coverage, Hole};
pub(super) use self::coverage::{gateways, holes, other_gaps};
pub use self::decide::{Decider, Feature};
use self::merge::Merged;
use super::question::{Question, Role, Subject};
use super::row::{Millis, Row};
use super::wanted::Wanted;
use crate::session::{GapCause, Protocol, Provenance};

/// More sessions than a person can use or a small machine can hold.
pub const MAX_CANDIDATES: usize = 1 << 20;

/// An end may be reported this late, so that a session is open in the database at a time after its end.
const REPORT_DELAY: u64 = 10 * 60_000;

/// A place where sessions are: a database, an archive directory. Each is opened for one question.
pub trait Source {
    /// Hands over the sessions that any of `wanted` accepts, as of now. An open session counts as alive until now. What
    /// cannot be read is a problem (the object, and what to do), and all else is read nevertheless.
    fn find(&mut self, wanted: &[Wanted], each: &mut dyn FnMut(Found), problems: &mut Vec<String>);

    /// What the first [`Self::find`] was able to find: the times at or after `time` for which all records are there, and
    /// the gaps that may concern `time`.
    fn coverage(
        &mut self,
        time: &RangeInclusive<Millis>,
        problems: &mut Vec<String>,
    ) -> Vec<Coverage>;
}

/// A session as a source has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub gateway: Rc<str>,
    /// The end of an open session is the last time at which it is known to have been open.
    pub row: Row,
    pub is_open: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub question: Question,
    pub verdict: Verdict,
    /// The best first.
    pub candidates: Vec<Candidate>,
    /// What may be missing, whatever the verdict.
    pub holes: Vec<Hole>,
    /// What the question would need for a single answer.
    pub deciders: Vec<Decider>,
    /// The gateways whose records were searched.
    pub gateways: Vec<Rc<str>>,
    /// What could not be read.
    pub problems: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// One subscriber or server, by one session or several.
    One,
    /// Several of them.
    Several,
    /// A list, as it was asked for.
    Listed,
    /// None, and no record of that time is missing.
    NoneComplete,
    /// None, but records may be missing.
    NoneGap,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub gateway: Rc<str>,
    pub row: Row,
    pub is_open: bool,
    pub role: Role,
    pub fit: Fit,
    pub doubts: Vec<Doubt>,
}

/// How its life fits the time that was asked for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fit {
    Exact,
    /// Only with the skew.
    Skew,
    /// Nothing known contradicts it: the start is unknown, or the session was open when last heard of, before that time.
    Possible,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doubt {
    /// It was still open at the end of the row.
    Open,
    StartUnknown,
    /// The start of an open session was concluded and not reported.
    StartInferred,
    /// The start or the end was concluded and not reported.
    Inferred,
    /// The gateway's clock was set while the session lived.
    ClockSet,
}

/// More candidates than [`MAX_CANDIDATES`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooMany;

/// Asks all sources. They stand in the order in which a session passes through them (first the database, then the archive
/// that follows it), so that one that moves meanwhile is not missed.
pub fn answer(
    question: &Question,
    sources: &mut [Box<dyn Source + '_>],
    now: Millis,
) -> Result<Answer, TooMany> {
    let time = question.widened();
    let (mut merged, mut problems) = (Merged::default(), Vec::new());
    let mut selections = question.selections();
    collect(question, &selections, sources, &mut merged, &mut problems)?;
    if let Some(as_of) = merged.oldest_open() {
        // Some may have ended since the database was read, or before that and been reported late.
        let since = Millis::new(as_of.get().saturating_sub(REPORT_DELAY));
        for wanted in &mut selections {
            wanted.alive = since..=Millis::MAX;
        }
        collect(question, &selections, sources, &mut merged, &mut problems)?;
    }
    let mut coverage = |time: &RangeInclusive<Millis>| -> Vec<Coverage> {
        let sources = sources.iter_mut();
        sources
            .flat_map(|source| source.coverage(time, &mut problems))
            .collect()
    };
    let mut coverages = coverage(&time);
    let found = merged.into_sessions();
    let candidates = found.filter_map(|found| candidate(question, found, &coverages));
    let mut candidates: Vec<_> = candidates.collect();
    rank(question, &mut candidates);
    // An answer stands whatever is known of the time after it; that there is no other one does not.
    let is_whole = !question.is_about_one() || candidates.iter().all(|it| it.fit == Fit::Possible);
    if is_whole {
        coverages = coverage(&(*time.start()..=Millis::MAX));
    }
    problems.sort_unstable();
    problems.dedup();
    let holes = coverage::holes(&coverages, &time, now, is_whole);
    let verdict = verdict(
        question,
        &candidates,
        holes.is_empty() && problems.is_empty(),
    );
    let deciders = match verdict {
        Verdict::Several => decide::deciders(question, &candidates),
        _ => Vec::new(),
    };
    Ok(Answer {
        question: question.clone(),
        verdict,
        candidates,
        holes,
        deciders,
        gateways: coverage::gateways(&coverages),
        problems,
    })
}

fn collect(
    question: &Question,
    wanted: &[Wanted],
    sources: &mut [Box<dyn Source + '_>],
    merged: &mut Merged,
    problems: &mut Vec<String>,
) -> Result<(), TooMany> {
    for source in sources {
        let mut each = |found: Found| {
            if merged.len() <= MAX_CANDIDATES && question.role(&found.row).is_some() {
                merged.push(found);
            }
        };
        source.find(wanted, &mut each, problems);
        if merged.len() > MAX_CANDIDATES {
            return Err(TooMany);
        }
    }
    Ok(())
}

/// `None` when its life does not touch the time.
fn candidate(question: &Question, found: Found, coverages: &[Coverage]) -> Option<Candidate> {
    let Found {
        gateway,
        row,
        is_open,
    } = found;
    let role = question.role(&row)?;
    let fit = fit(question, &row, is_open)?;
    let clock_set = coverages
        .iter()
        .filter(|coverage| coverage.gateway == gateway)
        .flat_map(|coverage| &coverage.gaps)
        .filter(|gap| gap.cause == GapCause::ClockStep)
        .any(|gap| {
            let life = row.start.unwrap_or_default()..=row.end;
            overlaps(&life, &coverage::interval(gap))
        });
    let inferred = row.provenance == Provenance::Inferred;
    let doubts = [
        is_open.then_some(Doubt::Open),
        row.start.is_none().then_some(Doubt::StartUnknown),
        (inferred && is_open).then_some(Doubt::StartInferred),
        (inferred && !is_open).then_some(Doubt::Inferred),
        clock_set.then_some(Doubt::ClockSet),
    ];
    Some(Candidate {
        gateway,
        row,
        is_open,
        role,
        fit,
        doubts: doubts.into_iter().flatten().collect(),
    })
}

fn fit(question: &Question, row: &Row, is_open: bool) -> Option<Fit> {
    let widened = question.widened();
    let life = row.start.unwrap_or_default().min(row.end)..=row.end;
    if overlaps(&life, &widened) {
        let is_exact = overlaps(&life, &question.time);
        // Of a life without a beginning only the end is sure.
        let is_sure = row.start.is_some() || widened.contains(&row.end);
        return Some(match (is_sure, is_exact) {
            (false, _) => Fit::Possible,
            (true, true) => Fit::Exact,
            (true, false) => Fit::Skew,
        });
    }
    (is_open && row.end < *widened.start()).then_some(Fit::Possible)
}

fn overlaps(a: &RangeInclusive<Millis>, b: &RangeInclusive<Millis>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

/// A list goes by time. Otherwise that is first which is the most certain, and then that which began last.
fn rank(question: &Question, candidates: &mut [Candidate]) {
    let address = |candidate: &Candidate| {
        let row = &candidate.row;
        (
            row.pre.src,
            row.pre.src_port,
            row.post.dst,
            row.post.dst_port,
        )
    };
    candidates.sort_by_cached_key(|it| {
        let (row, gateway) = (&it.row, it.gateway.clone());
        let is_list = !question.is_about_one();
        let doubt = (!is_list).then_some((it.fit, row.provenance == Provenance::Inferred));
        let recent = (!is_list).then_some(Reverse(row.start));
        let totals = row
            .totals
            .map(|totals| [totals.original, totals.reply].map(|it| (it.packets, it.octets)));
        let rest = (address(it), row.zone, row.mark, totals, it.is_open);
        (doubt, recent, row.start, row.key(), gateway, rest)
    });
}

fn verdict(question: &Question, candidates: &[Candidate], is_complete: bool) -> Verdict {
    let mut sure = candidates.iter().filter(|it| it.fit < Fit::Possible);
    match sure.next() {
        None if is_complete && candidates.is_empty() => Verdict::NoneComplete,
        None => Verdict::NoneGap,
        Some(_) if !question.is_about_one() => Verdict::Listed,
        Some(first) if sure.all(|it| it.party() == first.party()) => Verdict::One,
        Some(_) => Verdict::Several,
    }
}

/// The subscriber or server, as one gateway tells it from all others.
pub type Party<'a> = (&'a str, u16, Role, std::net::IpAddr);

impl Candidate {
    pub fn party(&self) -> Party<'_> {
        let address = match self.role {
            Role::Subscriber => self.row.pre.src,
            Role::Server => self.row.post.dst,
        };
        (&self.gateway, self.row.zone, self.role, address)
    }

    /// The port of the public address.
    pub const fn public_port(&self) -> u16 {
        match self.role {
            Role::Subscriber => self.row.post.src_port,
            Role::Server => self.row.pre.dst_port,
        }
    }

    /// The other side, as the question's `to` names it.
    pub const fn peer(&self) -> (std::net::IpAddr, u16) {
        match self.role {
            Role::Subscriber => (self.row.post.dst, self.row.post.dst_port),
            Role::Server => (self.row.pre.src, self.row.pre.src_port),
        }
    }

    pub const fn protocol(&self) -> Protocol {
        self.row.protocol
    }
}

impl Answer {
    /// Whether the question lacks the port without which many subscribers share the address.
    pub const fn lacks_port(&self) -> bool {
        matches!(self.question.subject, Subject::Public { at, .. } if at.port.is_none())
    }
}
