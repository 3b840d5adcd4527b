//! What would decide between several candidates, out of what differs between them.

use std::collections::HashMap;
use std::hash::Hash;

use super::{Candidate, Fit, overlaps};
use crate::archive::question::{Question, Subject};

/// A detail that the question lacks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decider {
    pub feature: Feature,
    /// It alone leaves one subscriber or server, whatever its value.
    pub is_enough: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Feature {
    /// The port of the public address.
    Port,
    Protocol,
    Destination,
    DestinationPort,
    /// The time, more exactly.
    Time,
    Gateway,
}

impl Feature {
    /// Scripts rely on these names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Port => "source-port",
            Self::Protocol => "protocol",
            Self::Destination => "destination",
            Self::DestinationPort => "destination-port",
            Self::Time => "time",
            Self::Gateway => "gateway",
        }
    }
}

/// To compare the lives of more candidates than this pair by pair takes too long.
const MOST_LIVES: usize = 256;

pub(super) fn deciders(question: &Question, candidates: &[Candidate]) -> Vec<Decider> {
    let sure: Vec<_> = candidates
        .iter()
        .filter(|it| it.fit < Fit::Possible)
        .collect();
    let Subject::Public { at, to } = question.subject else {
        return Vec::new();
    };
    let port = at.port.is_none().then(|| by(&sure, |it| it.public_port()));
    let protocol = question
        .protocol
        .is_none()
        .then(|| by(&sure, |it| it.protocol()));
    let destination = to.is_none().then(|| by(&sure, |it| it.peer().0));
    let has_to_port = to.is_some_and(|to| to.port.is_some());
    let destination_port = (!has_to_port).then(|| by(&sure, |it| it.peer().1));
    let all = [
        (Feature::Port, port.flatten()),
        (Feature::Protocol, protocol.flatten()),
        (Feature::Destination, destination.flatten()),
        (Feature::DestinationPort, destination_port.flatten()),
        (Feature::Time, by_time(&sure)),
        (
            Feature::Gateway,
            by(&sure, |it| (it.gateway.clone(), it.row.zone)),
        ),
    ];
    let deciders = all.into_iter().filter_map(|(feature, is_enough)| {
        is_enough.map(|is_enough| Decider { feature, is_enough })
    });
    deciders.collect()
}

/// `None` when all have the same value; else whether no two parties have the same.
fn by<V: Eq + Hash>(candidates: &[&Candidate], value: impl Fn(&Candidate) -> V) -> Option<bool> {
    let mut parties = HashMap::new();
    let mut is_enough = true;
    for candidate in candidates {
        let party = candidate.party();
        is_enough &= *parties.entry(value(candidate)).or_insert(party) == party;
    }
    (parties.len() > 1).then_some(is_enough)
}

/// `None` when all were alive at once.
fn by_time(candidates: &[&Candidate]) -> Option<bool> {
    let life = |it: &Candidate| it.row.start.unwrap_or_default().min(it.row.end)..=it.row.end;
    let last_start = candidates.iter().map(|it| *life(it).start()).max()?;
    let first_end = candidates.iter().map(|it| it.row.end).min()?;
    let apart = |a: &&Candidate| {
        let mut others = candidates.iter().filter(|b| b.party() != a.party());
        others.all(|b| !overlaps(&life(a), &life(b)))
    };
    let is_enough = candidates.len() <= MOST_LIVES && candidates.iter().all(apart);
    (last_start > first_end).then_some(is_enough)
}
