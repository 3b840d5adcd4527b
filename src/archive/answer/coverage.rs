//! The times whose records are complete, and what may be missing from an answer.
//!
//! A session is archived when it has ended. So a question about a time needs the records of that time and of all time
//! after it, and the sessions that are still open. A gap in the events of the kernel only hides sessions that began and
//! ended within it: those open before or after it are found in the kernel's table. Records that were known but did not
//! get into the archive ([`GapCause::Undelivered`]) may be those of any session that was open until then. A purge hides the
//! sessions that ended before its time, and may leave others that were alive as well.

use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

use super::overlaps;
use crate::archive::row::Millis;
use crate::archive::tree::{Order, Purge};
use crate::session::{Gap, GapCause};

/// What a source knows of one gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Coverage {
    pub gateway: Rc<str>,
    /// Every record of these times is there.
    pub known: Vec<Range<Millis>>,
    pub gaps: Vec<Gap>,
    /// When the list of open sessions was written, if there is one.
    pub open: Option<Millis>,
    /// What was deleted of the time.
    pub purges: Vec<Purge>,
}

/// A reason why a session may be missing from the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hole {
    /// `None` when it is not one gateway's.
    pub gateway: Option<Rc<str>>,
    pub absence: Absence,
    pub from: Millis,
    /// `None` when it has not ended.
    pub to: Option<Millis>,
    pub lost: Option<u64>,
    /// The deletion that went furthest, for [`Absence::Purged`].
    pub purge: Option<Order>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Absence {
    /// A gap record says so.
    Gap(GapCause),
    /// No record of a time before others is here: the archive began later, or it was not copied, or deleted by hand.
    Missing,
    /// Sessions were deleted that were alive then, and ended before a time.
    Purged,
    /// The records end earlier.
    After,
    /// That time has not come.
    Future,
    /// The sessions that were open when the records end are not here.
    Open,
    /// There is no record of that time or later.
    Nothing,
}

impl Absence {
    /// Scripts rely on these names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap(cause) => cause.name(),
            Self::Missing => "missing-records",
            Self::Purged => "purged",
            Self::After => "after-last-record",
            Self::Future => "future",
            Self::Open => "open-sessions",
            Self::Nothing => "no-records",
        }
    }
}

/// The gateways, each once, by name.
pub(in crate::archive) fn gateways(coverages: &[Coverage]) -> Vec<Rc<str>> {
    let mut names: Vec<_> = coverages.iter().map(|it| it.gateway.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Everything that may be missing from an answer about `time`. With `is_whole`, also records of later times that a
/// session might have been in: the coverage then has to go on to now.
pub(in crate::archive) fn holes(
    coverages: &[Coverage],
    time: &RangeInclusive<Millis>,
    now: Millis,
    is_whole: bool,
) -> Vec<Hole> {
    let (from, until) = (*time.start(), *time.end());
    let mut holes = Vec::new();
    if until > now {
        holes.push(hole(Absence::Future, from.max(now), Some(until)));
    }
    if from > now {
        return holes;
    }
    let gateways = gateways(coverages);
    if gateways.is_empty() {
        holes.push(hole(Absence::Nothing, from, Some(until)));
    }
    for gateway in gateways {
        let own: Vec<_> = coverages
            .iter()
            .filter(|it| it.gateway == gateway)
            .collect();
        let first = holes.len();
        let mut unknown = unknown(&own, from, until.min(now));
        unknown.retain(|hole| is_whole || hole.from <= until && hole.to.is_some());
        holes.append(&mut unknown);
        let purges = own.iter().flat_map(|it| &it.purges);
        let purges = purges.filter(|purge| concerned(purge, time));
        let last = purges.max_by_key(|purge| (purge.order.before, purge.order.at));
        holes.extend(last.map(|purge| Hole {
            purge: Some(purge.order.clone()),
            ..hole(Absence::Purged, from, Some(purge.order.before))
        }));
        let mut gaps: Vec<_> = own.iter().flat_map(|it| &it.gaps).copied().collect();
        gaps.sort_by_key(|gap| (gap.from, gap.to, gap.cause.name()));
        gaps.dedup();
        gaps.retain(|gap| concerns(gap, time, is_whole));
        holes.extend(gaps.iter().map(|gap| hole_of(gap, &gateway)));
        for hole in &mut holes[first..] {
            hole.gateway = Some(gateway.clone());
        }
    }
    holes
}

/// The gaps at that time that are none of the holes of it: they hide no session.
pub(in crate::archive) fn other_gaps(
    coverages: &[Coverage],
    time: &RangeInclusive<Millis>,
) -> Vec<Hole> {
    let mut others = Vec::new();
    for it in coverages {
        let is_other = |gap: &&Gap| overlaps(&interval(gap), time) && !concerns(gap, time, true);
        let gaps = it.gaps.iter().filter(is_other);
        others.extend(gaps.map(|gap| hole_of(gap, &it.gateway)));
    }
    others.sort_by(|a, b| {
        let key = |it: &Hole| (it.from, it.to, it.absence.name(), it.lost);
        (&a.gateway, key(a)).cmp(&(&b.gateway, key(b)))
    });
    others.dedup();
    others
}

/// The interval of a gap, whichever way a clock was set.
pub(super) fn interval(gap: &Gap) -> RangeInclusive<Millis> {
    gap.from.min(gap.to).into()..=gap.from.max(gap.to).into()
}

/// Whether a session of that time may be missing because of it.
fn concerns(gap: &Gap, time: &RangeInclusive<Millis>, is_whole: bool) -> bool {
    let interval = interval(gap);
    match gap.cause {
        GapCause::Undelivered if is_whole => interval.end() >= time.start(),
        GapCause::Undelivered | GapCause::ClockStep => overlaps(&interval, time),
        cause => cause.may_hide_sessions() && overlaps(&interval, time),
    }
}

/// Whether it may have deleted sessions that were alive then.
fn concerned(purge: &Purge, time: &RangeInclusive<Millis>) -> bool {
    overlaps(&(purge.since..=purge.until), time) && purge.order.before > *time.start()
}

/// The times without records, of one gateway.
fn unknown(own: &[&Coverage], from: Millis, until: Millis) -> Vec<Hole> {
    let mut known: Vec<_> = own.iter().flat_map(|it| &it.known).cloned().collect();
    known.retain(|range| range.start < range.end && range.end > from);
    known.sort_by_key(|range| range.start);
    let mut holes = Vec::new();
    let mut end = from;
    for range in &known {
        if end < range.start {
            holes.push(hole(Absence::Missing, end, Some(range.start)));
        }
        end = end.max(range.end);
    }
    if known.is_empty() {
        return vec![hole(Absence::Nothing, from, Some(until))];
    }
    if until >= end {
        holes.push(hole(Absence::After, end, Some(until)));
    }
    if own.iter().all(|it| it.open.is_none()) {
        holes.push(hole(Absence::Open, end, None));
    }
    holes
}

fn hole_of(gap: &Gap, gateway: &Rc<str>) -> Hole {
    let (from, to) = interval(gap).into_inner();
    Hole {
        gateway: Some(gateway.clone()),
        lost: gap.lost,
        ..hole(Absence::Gap(gap.cause), from, Some(to))
    }
}

const fn hole(absence: Absence, from: Millis, to: Option<Millis>) -> Hole {
    Hole {
        gateway: None,
        absence,
        from,
        to,
        lost: None,
        purge: None,
    }
}
