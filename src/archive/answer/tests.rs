//! Answers out of sources in memory: verdicts, ranks, what decides, and what may be missing.
#![allow(clippy::unwrap_used)]

mod property;

use std::time::Duration;

use super::*;
use crate::archive::question::{Endpoint, SKEW};
use crate::archive::tree::{Order, Purge};
use crate::config::Prefix;
use crate::session::{Gap, NatEvent, Session};
use crate::time::Wall;
use crate::wire::samples::{delete, dnat, snat};

/// Some sessions, as any source has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) found: Vec<Found>,
    pub(crate) coverage: Vec<Coverage>,
    pub(crate) problem: Option<String>,
}

impl Source for Memory {
    fn find(&mut self, wanted: &[Wanted], each: &mut dyn FnMut(Found), problems: &mut Vec<String>) {
        for found in &self.found {
            let mut row = found.row;
            if found.is_open {
                row.end = Millis::MAX;
            }
            if wanted.iter().any(|wanted| wanted.accepts(&row)) {
                each(found.clone());
            }
        }
        problems.extend(self.problem.clone());
    }

    fn coverage(&mut self, _: &RangeInclusive<Millis>, _: &mut Vec<String>) -> Vec<Coverage> {
        self.coverage.clone()
    }
}

const NOW: u64 = 10_000_000;

fn finished(event: NatEvent) -> Found {
    Found {
        gateway: "gw".into(),
        row: Row::of(&event).unwrap(),
        is_open: false,
    }
}

fn ended(session: Session, start: u64, end: u64) -> Found {
    finished(delete(session, start, end))
}

fn open(session: Session, start: u64, as_of: u64) -> Found {
    Found {
        is_open: true,
        ..ended(session, start, as_of)
    }
}

/// Everything is known until now.
fn complete() -> Coverage {
    Coverage {
        gateway: "gw".into(),
        known: vec![Millis::new(0)..Millis::new(NOW + 1)],
        gaps: Vec::new(),
        open: Some(Millis::new(NOW)),
        purges: Vec::new(),
    }
}

fn gap(cause: GapCause, from: u64, to: u64) -> Gap {
    Gap {
        cause,
        from: Wall::from_millis(from),
        to: Wall::from_millis(to),
        lost: Some(7),
    }
}

/// Who was 203.0.113.9:50520 at that time?
fn question(at: u64) -> Question {
    Question {
        subject: Subject::Public {
            at: Endpoint {
                address: "203.0.113.9".parse().unwrap(),
                port: Some(50520),
            },
            to: None,
        },
        protocol: None,
        time: Millis::new(at)..=Millis::new(at),
        skew: SKEW,
    }
}

fn ask(question: &Question, found: Vec<Found>, coverage: Vec<Coverage>) -> Answer {
    let memory = Memory {
        found,
        coverage,
        problem: None,
    };
    answer(question, &mut [Box::new(memory)], Millis::new(NOW)).unwrap()
}

fn known(question: &Question, found: Vec<Found>) -> Answer {
    ask(question, found, vec![complete()])
}

/// The same session of another subscriber.
fn of(subscriber: &str) -> Session {
    let mut session = snat();
    session.original.src = subscriber.parse().unwrap();
    session
}

fn features(answer: &Answer) -> Vec<(&'static str, bool)> {
    let deciders = answer.deciders.iter();
    deciders
        .map(|it| (it.feature.name(), it.is_enough))
        .collect()
}

#[test]
fn one_session_is_one_answer() {
    let answer = known(&question(50_000), vec![ended(snat(), 40_000, 60_000)]);
    assert_eq!(answer.verdict, Verdict::One);
    let candidate = &answer.candidates[0];
    assert_eq!(
        candidate.party(),
        ("gw", 0, Role::Subscriber, "10.1.2.3".parse().unwrap())
    );
    assert_eq!(
        (candidate.fit, candidate.doubts.as_slice()),
        (Fit::Exact, &[][..])
    );
    assert_eq!(answer.holes, []);
}

#[test]
fn a_session_is_found_within_the_skew_and_not_beyond() {
    let session = || vec![ended(snat(), 40_000, 60_000)];
    for (at, fit) in [
        (38_999, None),
        (39_000, Some(Fit::Skew)),
        (39_999, Some(Fit::Skew)),
        (40_000, Some(Fit::Exact)),
        (60_000, Some(Fit::Exact)),
        (60_001, Some(Fit::Skew)),
        (61_000, Some(Fit::Skew)),
        (61_001, None),
    ] {
        let answer = known(&question(at), session());
        assert_eq!(answer.candidates.first().map(|it| it.fit), fit, "{at}");
    }
    let exact = Question {
        skew: Duration::ZERO,
        ..question(60_001)
    };
    assert_eq!(known(&exact, session()).verdict, Verdict::NoneComplete);
}

#[test]
fn sessions_of_one_subscriber_are_one_answer_and_those_of_two_are_several() {
    let mut other = snat();
    other.original.dst_port = 80;
    other.reply.src_port = 80;
    let both = vec![ended(snat(), 40_000, 60_000), ended(other, 45_000, 60_000)];
    let answer = known(&question(50_000), both);
    assert_eq!((answer.verdict, answer.candidates.len()), (Verdict::One, 2));
    let mut foreign = of("10.9.9.9");
    foreign.original.dst_port = 80;
    foreign.reply.src_port = 80;
    let both = vec![
        ended(snat(), 40_000, 60_000),
        ended(foreign, 45_000, 60_000),
    ];
    let answer = known(&question(50_000), both);
    assert_eq!(answer.verdict, Verdict::Several);
    assert_eq!(features(&answer), [("destination-port", true)]);
}

#[test]
fn what_would_decide_follows_from_what_differs() {
    let mut udp = of("10.9.9.9");
    udp.protocol = Protocol::UDP;
    let answer = known(
        &question(50_000),
        vec![ended(snat(), 40_000, 49_500), ended(udp, 50_500, 60_000)],
    );
    assert_eq!(features(&answer), [("protocol", true), ("time", true)]);
    let third = of("10.8.8.8");
    let found = vec![
        ended(snat(), 40_000, 49_500),
        ended(udp, 50_500, 60_000),
        ended(third, 49_600, 49_700),
    ];
    let answer = known(&question(50_000), found.clone());
    assert_eq!(features(&answer), [("protocol", false), ("time", true)]);
    let tcp = Question {
        protocol: Some(Protocol::TCP),
        ..question(50_000)
    };
    assert_eq!(features(&known(&tcp, found)), [("time", true)]);
    let mut elsewhere = ended(of("10.9.9.9"), 40_000, 60_000);
    elsewhere.gateway = "other".into();
    let found = vec![ended(snat(), 40_000, 60_000), elsewhere];
    let answer = known(&question(50_000), found);
    assert_eq!(features(&answer), [("gateway", true)]);
}

#[test]
fn without_a_port_everybody_behind_the_address_is_a_candidate() {
    let mut question = question(50_000);
    question.subject = Subject::Public {
        at: Endpoint {
            address: "203.0.113.9".parse().unwrap(),
            port: None,
        },
        to: None,
    };
    let mut second = of("10.9.9.9");
    second.reply.dst_port = 50521;
    let found = vec![ended(snat(), 40_000, 60_000), ended(second, 45_000, 60_000)];
    let answer = known(&question, found);
    assert!(answer.lacks_port());
    assert_eq!(answer.verdict, Verdict::Several);
    assert_eq!(features(&answer), [("source-port", true)]);
}

#[test]
fn the_best_candidate_is_first() {
    let mut inferred = delete(of("10.0.0.1"), 49_000, 51_000);
    inferred.provenance = Provenance::Inferred;
    let mut startless = delete(of("10.0.0.5"), 0, 70_000);
    startless.start = None;
    let found = vec![
        finished(startless),
        ended(of("10.0.0.4"), 50_001, 60_000),
        finished(inferred),
        ended(of("10.0.0.3"), 40_000, 60_000),
        ended(of("10.0.0.2"), 45_000, 60_000),
    ];
    let answer = known(&question(50_000), found);
    let order: Vec<_> = answer
        .candidates
        .iter()
        .map(|it| it.row.pre.src.to_string())
        .collect();
    assert_eq!(
        order,
        ["10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.4", "10.0.0.5"]
    );
    let doubts: Vec<_> = answer
        .candidates
        .iter()
        .map(|it| it.doubts.as_slice())
        .collect();
    assert_eq!(
        doubts,
        [
            &[][..],
            &[],
            &[Doubt::Inferred],
            &[],
            &[Doubt::StartUnknown]
        ]
    );
}

#[test]
fn port_forwarding_is_found_by_the_public_side() {
    let mut question = question(50_000);
    let at = |port| Endpoint {
        address: "203.0.113.9".parse().unwrap(),
        port: Some(port),
    };
    question.subject = Subject::Public {
        at: at(80),
        to: None,
    };
    let found = || vec![ended(dnat(), 40_000, 60_000), ended(snat(), 40_000, 60_000)];
    let answer = known(&question, found());
    let party = ("gw", 0, Role::Server, "10.0.0.80".parse().unwrap());
    assert_eq!(
        (answer.verdict, answer.candidates[0].party()),
        (Verdict::One, party)
    );
    let peer = |port| {
        Some(Endpoint {
            address: "198.51.100.5".parse().unwrap(),
            port,
        })
    };
    for (to, verdict) in [
        (peer(None), Verdict::One),
        (peer(Some(33000)), Verdict::One),
        (peer(Some(33001)), Verdict::NoneComplete),
    ] {
        question.subject = Subject::Public { at: at(80), to };
        assert_eq!(known(&question, found()).verdict, verdict, "{to:?}");
    }
}

#[test]
fn reverse_questions_list_sessions_by_time() {
    let found = || {
        vec![
            ended(of("10.1.2.4"), 45_000, 60_000),
            ended(snat(), 40_000, 60_000),
        ]
    };
    let mut question = question(50_000);
    question.subject = Subject::Subscriber(Prefix::parse("10.1.2.0/24", "").unwrap());
    let answer = known(&question, found());
    let starts: Vec<_> = answer.candidates.iter().map(|it| it.row.start).collect();
    assert_eq!(answer.verdict, Verdict::Listed);
    assert_eq!(
        starts,
        [Some(Millis::new(40_000)), Some(Millis::new(45_000))]
    );
    let server = |port| {
        Subject::Server(Endpoint {
            address: "203.0.113.7".parse().unwrap(),
            port,
        })
    };
    for (subject, count) in [
        (server(None), 2),
        (server(Some(443)), 2),
        (server(Some(80)), 0),
    ] {
        question.subject = subject;
        assert_eq!(known(&question, found()).candidates.len(), count);
    }
}

#[test]
fn an_open_session_is_alive_until_it_was_last_seen_and_possible_after_that() {
    let answer = known(&question(50_000), vec![open(snat(), 40_000, 60_000)]);
    assert_eq!(
        (answer.verdict, answer.candidates[0].fit),
        (Verdict::One, Fit::Exact)
    );
    assert_eq!(answer.candidates[0].doubts, [Doubt::Open]);
    let answer = known(&question(70_000), vec![open(snat(), 40_000, 60_000)]);
    assert_eq!(
        (answer.verdict, answer.candidates[0].fit),
        (Verdict::NoneGap, Fit::Possible)
    );
}

#[test]
fn an_open_session_that_has_ended_meanwhile_is_not_found_after_its_end() {
    let found = vec![open(snat(), 40_000, 70_000), ended(snat(), 40_000, 60_000)];
    let answer = known(&question(50_000), found.clone());
    assert_eq!(
        (answer.candidates.len(), answer.candidates[0].is_open),
        (1, false)
    );
    // The question's time has the open session only.
    let answer = known(&question(65_000), found);
    assert_eq!(answer.verdict, Verdict::NoneComplete);
}

#[test]
fn a_session_with_the_tuples_of_one_before_is_another() {
    let found = vec![open(snat(), 60_001, 70_000), ended(snat(), 40_000, 60_000)];
    assert_eq!(known(&question(60_000), found).candidates.len(), 2);
}

#[test]
fn none_is_complete_only_where_nothing_is_missing() {
    let of_gap = |gap| Coverage {
        gaps: vec![gap],
        ..complete()
    };
    let range = |from, until| Coverage {
        known: vec![Millis::new(from)..Millis::new(until)],
        ..complete()
    };
    let offline = Coverage {
        open: None,
        ..complete()
    };
    let holey = Coverage {
        known: [range(0, 60_000).known, range(70_000, NOW + 1).known].concat(),
        ..complete()
    };
    let cases: [(Vec<Coverage>, &[&str]); 15] = [
        (vec![complete()], &[]),
        (vec![], &["no-records"]),
        (vec![range(5, 5)], &["no-records"]),
        (vec![range(50_000, NOW + 1)], &["missing-records"]),
        (vec![range(0, 50_000)], &["after-last-record"]),
        (vec![range(0, 50_000), range(50_000, NOW + 1)], &[]),
        (vec![offline.clone()], &["open-sessions"]),
        (vec![offline, complete()], &[]),
        (vec![holey], &["missing-records"]),
        (
            vec![of_gap(gap(GapCause::Overflow, 50_900, 51_500))],
            &["overflow"],
        ),
        (vec![of_gap(gap(GapCause::Overflow, 51_001, 52_000))], &[]),
        (vec![of_gap(gap(GapCause::TableFull, 49_000, 51_000))], &[]),
        (
            vec![of_gap(gap(GapCause::ClockStep, 52_000, 48_000))],
            &["clock-step"],
        ),
        (
            vec![of_gap(gap(GapCause::Undelivered, 60_000, 70_000))],
            &["undelivered"],
        ),
        (
            vec![of_gap(gap(GapCause::Undelivered, 30_000, 40_000))],
            &[],
        ),
    ];
    for (coverage, expected) in cases {
        let answer = ask(&question(50_000), vec![], coverage.clone());
        let names: Vec<_> = answer
            .holes
            .iter()
            .map(|hole| hole.absence.name())
            .collect();
        assert_eq!(names, expected, "{coverage:?}");
        let verdict = match expected {
            [] => Verdict::NoneComplete,
            _ => Verdict::NoneGap,
        };
        assert_eq!(answer.verdict, verdict, "{coverage:?}");
    }
}

#[test]
fn none_is_not_complete_where_sessions_were_deleted() {
    let purge = |until, before, rule: &str| Purge {
        order: Order {
            rule: rule.to_owned(),
            before: Millis::new(before),
            at: Millis::new(NOW),
            act: None,
        },
        since: Millis::new(40_000),
        until: Millis::new(until),
        rows: 1,
    };
    let coverage = Coverage {
        purges: vec![
            purge(60_000, 60_000, "2d"),
            purge(80_000, 70_000, "1d"),
            purge(45_000, 90_000, "by hand"),
        ],
        ..complete()
    };
    let rules = |at| {
        let answer = ask(&question(at), vec![], vec![coverage.clone()]);
        let rules = answer.holes.into_iter().filter_map(|it| it.purge);
        (answer.verdict, rules.map(|it| it.rule).collect::<Vec<_>>())
    };
    let complete = (Verdict::NoneComplete, vec![]);
    assert_eq!(rules(35_000), complete);
    assert_eq!(
        rules(44_000),
        (Verdict::NoneGap, vec!["by hand".to_owned()])
    );
    assert_eq!(rules(50_000), (Verdict::NoneGap, vec!["1d".to_owned()]));
    // All that was deleted had ended before.
    assert_eq!(rules(75_000), complete);
}

#[test]
fn an_answer_tells_the_gaps_of_its_time_and_a_list_those_of_later_times_too() {
    let coverage = Coverage {
        known: vec![Millis::new(0)..Millis::new(55_000)],
        gaps: vec![
            gap(GapCause::Undelivered, 50_500, 52_000),
            gap(GapCause::Undelivered, 60_000, 70_000),
        ],
        open: None,
        ..complete()
    };
    let asked = |question: &Question| {
        let found = vec![ended(snat(), 40_000, 60_000)];
        let answer = ask(question, found, vec![coverage.clone()]);
        let holes = answer.holes.iter();
        let holes = holes.map(|it| (it.absence.name(), it.from.get())).collect();
        (answer.verdict, holes)
    };
    let near = ("undelivered", 50_500);
    assert_eq!(asked(&question(50_000)), (Verdict::One, vec![near]));
    let mut list = question(50_000);
    list.subject = Subject::Subscriber(Prefix::parse("10.1.2.3", "").unwrap());
    let later = [("open-sessions", 55_000), near, ("undelivered", 60_000)];
    assert_eq!(asked(&list), (Verdict::Listed, later.to_vec()));
}

#[test]
fn a_hole_has_its_gateway_interval_and_loss() {
    let coverage = Coverage {
        gaps: vec![gap(GapCause::Restart, 45_000, 55_000)],
        ..complete()
    };
    let answer = ask(&question(50_000), vec![], vec![coverage.clone(), coverage]);
    let expected = Hole {
        gateway: Some("gw".into()),
        absence: Absence::Gap(GapCause::Restart),
        from: Millis::new(45_000),
        to: Some(Millis::new(55_000)),
        lost: Some(7),
        purge: None,
    };
    assert_eq!(answer.holes, [expected]);
}

#[test]
fn the_future_has_no_records_yet() {
    let answer = known(&question(NOW + 5_000), vec![]);
    assert_eq!(answer.holes.len(), 1);
    assert_eq!(answer.holes[0].absence, Absence::Future);
    let answer = known(&question(NOW), vec![]);
    let hole = &answer.holes[0];
    assert_eq!(
        (hole.absence, hole.from),
        (Absence::Future, Millis::new(NOW))
    );
}

#[test]
fn a_source_that_cannot_be_read_makes_none_incomplete_and_costs_no_other_answer() {
    let broken = Memory {
        problem: Some("\"a.parquet\" is cut short".to_owned()),
        ..Memory::default()
    };
    let sound = |found| Memory {
        found,
        coverage: vec![complete()],
        problem: None,
    };
    let ask = |found| {
        let mut sources: [Box<dyn Source>; 2] = [Box::new(broken.clone()), Box::new(sound(found))];
        answer(&question(50_000), &mut sources, Millis::new(NOW)).unwrap()
    };
    let none = ask(vec![]);
    assert_eq!((none.verdict, none.problems.len()), (Verdict::NoneGap, 1));
    let one = ask(vec![ended(snat(), 40_000, 60_000)]);
    assert_eq!((one.verdict, one.problems.len()), (Verdict::One, 1));
}

#[test]
fn a_clock_that_was_set_casts_doubt_on_the_sessions_of_that_time() {
    let coverage = Coverage {
        gaps: vec![gap(GapCause::ClockStep, 45_000, 44_000)],
        ..complete()
    };
    let found = vec![
        ended(snat(), 40_000, 60_000),
        ended(of("10.9.9.9"), 49_000, 60_000),
    ];
    let answer = ask(&question(50_000), found, vec![coverage]);
    let doubts: Vec<_> = answer
        .candidates
        .iter()
        .map(|it| it.doubts.as_slice())
        .collect();
    assert_eq!(doubts, [&[][..], &[Doubt::ClockSet]]);
}
