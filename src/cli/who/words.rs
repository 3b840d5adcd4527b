//! Question and answer in sentences, for the terminal and the page. All times are UTC.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::request::is_private;
use crate::archive::answer::{Absence, Answer, Candidate, Doubt, Feature, Fit, Hole, Verdict};
use crate::archive::question::{Endpoint, Question, Role, Subject};
use crate::archive::row::Millis;
use crate::archive::tree::Order;
use crate::cli::tail::print::{counted, describe};
use crate::session::GapCause;

/// The question in one sentence.
pub(super) fn question(question: &Question) -> String {
    let protocol = question.protocol.map(|protocol| format!(" by {protocol}"));
    let protocol = protocol.unwrap_or_default();
    let time = time(question);
    match question.subject {
        Subject::Public { at, to } => {
            let to = to
                .map(|to| format!(" with {}", endpoint(to)))
                .unwrap_or_default();
            format!("Who used {}{protocol}{to} {time}?", endpoint(at))
        }
        Subject::Subscriber(prefix) => {
            format!(
                "What did the subscriber {} do{protocol} {time}?",
                network(prefix)
            )
        }
        Subject::Server(server) => {
            format!(
                "Who reached the server {}{protocol} {time}?",
                endpoint(server)
            )
        }
    }
}

/// The verdict in whole sentences.
pub(super) fn verdict(answer: &Answer) -> String {
    let question = &answer.question;
    let time = time(question);
    let count = sessions(answer.candidates.len());
    match (answer.verdict, question.subject) {
        (Verdict::One, _) => one(answer),
        (Verdict::Several, Subject::Public { at, .. }) => {
            let sure = answer.candidates.iter().filter(|it| it.fit < Fit::Possible);
            let parties: BTreeSet<_> = sure.map(Candidate::party).collect();
            let parties = parties.len();
            let public = endpoint(at);
            let decided = decided(answer);
            format!(
                "Ambiguous: {parties} different parties used {public} {time}, in {count}. {decided}"
            )
        }
        (Verdict::Listed | Verdict::Several, Subject::Server(server)) => {
            format!(
                "The server {} was reached in {count} {time}.",
                endpoint(server)
            )
        }
        (Verdict::Listed | Verdict::Several, Subject::Subscriber(prefix)) => {
            format!("The subscriber {} had {count} {time}.", network(prefix))
        }
        (Verdict::Listed, Subject::Public { .. }) => one(answer),
        (Verdict::NoneComplete, _) => {
            let s = if answer.gateways.len() > 1 { "s" } else { "" };
            let gateways = answer.gateways.join(", ");
            format!(
                "Nobody: there was no such session {time}. The records of that time are complete (gateway{s} {gateways})."
            )
        }
        (Verdict::NoneGap, _) => {
            let possible = match answer.candidates.len() {
                0 => "",
                1 => " It may have been the session below, but that is not certain.",
                _ => " It may have been one of the sessions below, but that is not certain.",
            };
            format!(
                "Not known: no such session is recorded {time}, but records may be missing, so this does not show that there \
                 was none.{possible}"
            )
        }
    }
}

fn one(answer: &Answer) -> String {
    let candidate = &answer.candidates[0];
    let (time, row) = (time(&answer.question), &candidate.row);
    let gateway = &candidate.gateway;
    let sure = answer
        .candidates
        .iter()
        .filter(|it| it.fit < Fit::Possible)
        .count();
    let (ways, only) = match sure {
        1 => ("in one session".to_owned(), "it"),
        count => (format!("in {}", sessions(count)), "the nearest"),
    };
    let public = |address, port| {
        endpoint(Endpoint {
            address,
            port: Some(port),
        })
    };
    let sentence = match candidate.role {
        Role::Subscriber => {
            let public = public(row.post.src, row.post.src_port);
            let who = match row.pre.src == row.post.src {
                true => format!("The host {} itself, without another address,", row.pre.src),
                false => format!("The subscriber {} behind gateway {gateway}", row.pre.src),
            };
            format!("{who} used {public} {time}, {ways}.")
        }
        Role::Server => {
            let public = public(row.pre.dst, row.pre.dst_port);
            let server = public_of_server(candidate);
            format!(
                "The server {server} behind gateway {gateway} was reached by {public} {time}, {ways}."
            )
        }
    };
    let near = match (candidate.fit, answer.question.skew) {
        (Fit::Skew, skew) => {
            format!(
                " At the exact time there was none; {only} lies within {} of it.",
                duration(skew)
            )
        }
        _ => String::new(),
    };
    sentence + &near
}

fn public_of_server(candidate: &Candidate) -> String {
    endpoint(Endpoint {
        address: candidate.row.post.dst,
        port: Some(candidate.row.post.dst_port),
    })
}

/// What would leave one candidate.
fn decided(answer: &Answer) -> String {
    let names = |is_enough: bool| -> Vec<&str> {
        let deciders = answer
            .deciders
            .iter()
            .filter(|it| it.is_enough == is_enough);
        deciders.map(|it| feature(it.feature)).collect()
    };
    let (enough, part) = (names(true), names(false));
    let enough =
        (!enough.is_empty()).then(|| format!("One of these would decide: {}.", enough.join(", ")));
    let part = (!part.is_empty()).then(|| format!("These would leave fewer: {}.", part.join(", ")));
    let sentences: Vec<_> = enough.into_iter().chain(part).collect();
    match sentences.as_slice() {
        [] => "Nothing that a request can say tells them apart.".to_owned(),
        sentences => sentences.join(" "),
    }
}

const fn feature(feature: Feature) -> &'static str {
    match feature {
        Feature::Port => "the source port",
        Feature::Protocol => "the protocol",
        Feature::Destination => "the destination address",
        Feature::DestinationPort => "the destination port",
        Feature::Time => "a more exact time",
        Feature::Gateway => "the gateway",
    }
}

/// What the reader has to know beside the verdict.
pub(super) fn notes(answer: &Answer, is_assumed_utc: bool) -> Vec<String> {
    let question = &answer.question;
    let mut notes = Vec::new();
    let Subject::Public { at, .. } = question.subject else {
        notes.extend(is_assumed_utc.then(no_zone));
        return notes;
    };
    if answer.lacks_port() {
        notes.push(
            "The source port is missing. Many subscribers share a public address at the same time, and only the port tells \
             them apart (RFC 6302, RFC 6888): ask the sender for it."
                .to_owned(),
        );
    }
    let protocols = answer.candidates.iter().map(|it| it.row.protocol);
    if question.protocol.is_none() && protocols.collect::<BTreeSet<_>>().len() > 1 {
        notes.push(
            "The protocol is missing. A port of TCP and the same port of UDP may belong to different subscribers: ask the \
             sender for it."
                .to_owned(),
        );
    }
    if is_private(at.address) && answer.verdict != Verdict::One {
        notes.push(format!(
            "{0} is not a public address but one of a subscriber: --subscriber {0} with --from and --until lists the \
             sessions of a subscriber.",
            at.address
        ));
    }
    notes.extend(is_assumed_utc.then(no_zone));
    notes
}

fn no_zone() -> String {
    "The time was given without a zone and was taken as UTC.".to_owned()
}

/// What may be missing, in one sentence.
pub(in crate::cli) fn hole(hole: &Hole) -> String {
    let gateway = hole
        .gateway
        .as_ref()
        .map(|name| format!("gateway {name}: "));
    let from = instant(hole.from);
    let to = hole.to.map_or_else(|| "now".to_owned(), instant);
    let sentence = match hole.absence {
        Absence::Gap(cause) => {
            let (what, unit) = match cause {
                GapCause::Undelivered => ("the archive could not take these records", "records lost"),
                cause => describe(cause),
            };
            let lost = match hole.lost {
                Some(lost) => counted(lost, unit),
                None => "how many records are lost is not known".to_owned(),
            };
            format!("{what}, from {from} to {to}; {lost}")
        }
        Absence::Missing => {
            format!("no record from {from} to {to} is here: the archive began later, or they were not copied, or deleted")
        }
        Absence::Purged => {
            let Some(Order { rule, at, act, .. }) = &hole.purge else {
                return format!("the sessions that ended before {to} were deleted");
            };
            let by_hand = if act.is_some() { " by hand" } else { "" };
            format!(
                "the sessions that ended before {to} were deleted on {}{by_hand} under the rule \"{rule}\", but for those that \
                 were held",
                date(*at)
            )
        }
        Absence::After => {
            format!("there is no record from {from} to {to}: the records end before; ask again when the gateway has written on")
        }
        Absence::Future => format!("the time from {from} to {to} had not come when the question was asked"),
        Absence::Open => {
            format!("sessions that were still open at {from} are not in this copy; ask the gateway itself, or a later copy")
        }
        Absence::Nothing => {
            "no record of that time or later was found: name the directory of an archive that has that time (--archive), or ask \
             where the daemon runs"
                .to_owned()
        }
    };
    gateway.unwrap_or_default() + &sentence
}

/// The certainty of a candidate.
pub(super) fn certainty(candidate: &Candidate) -> String {
    let fit = match (candidate.fit, candidate.is_open) {
        (Fit::Exact, _) => None,
        (Fit::Skew, _) => Some("near"),
        (Fit::Possible, true) => Some("possible: last seen before the time"),
        (Fit::Possible, false) => Some("possible: the start is not known"),
    };
    let doubts = candidate.doubts.iter().map(|doubt| match doubt {
        Doubt::Open => "still open",
        Doubt::StartUnknown => "start unknown",
        Doubt::StartInferred => "start inferred",
        Doubt::Inferred => "start or end inferred",
        Doubt::ClockSet => "clock set meanwhile",
    });
    let words: Vec<_> = fit.into_iter().chain(doubts).collect();
    words.join(", ")
}

/// The time of a question, with a preposition.
pub(super) fn time(question: &Question) -> String {
    let (from, until) = (question.time.start(), question.time.end());
    let width = until.get() - from.get();
    let skew = match question.skew {
        Duration::ZERO => String::new(),
        skew => format!(" (±{})", duration(skew)),
    };
    match width {
        0 => format!("at {}{skew}", instant(*from)),
        999 => format!("at {}{skew}", instant(Millis::new(from.get()))),
        _ => format!("between {} and {}{skew}", instant(*from), instant(*until)),
    }
}

/// `2026-11-20 14:30:00 UTC`, with milliseconds where there are some.
pub(in crate::cli) fn instant(time: Millis) -> String {
    format!("{} UTC", bare(time).trim_end_matches(".000"))
}

/// `2026-11-20`
fn date(time: Millis) -> String {
    bare(time).chars().take(10).collect()
}

/// `2026-11-20 14:30:00.000`
pub(super) fn bare(time: Millis) -> String {
    time.wall().to_string().replace('T', " ").replace('Z', "")
}

fn duration(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (seconds, 0) => format!("{seconds} s"),
        _ => format!("{} ms", duration.as_millis()),
    }
}

pub(super) fn endpoint(endpoint: Endpoint) -> String {
    match endpoint.port {
        Some(port) => std::net::SocketAddr::new(endpoint.address, port).to_string(),
        None => endpoint.address.to_string(),
    }
}

fn network(prefix: crate::config::Prefix) -> String {
    let full = if prefix.address.is_ipv4() { 32 } else { 128 };
    match prefix.length == full {
        true => prefix.address.to_string(),
        false => prefix.to_string(),
    }
}

fn sessions(count: usize) -> String {
    match count {
        1 => "1 session".to_owned(),
        count => format!("{count} sessions"),
    }
}

/// The life of a candidate.
pub(super) fn life(candidate: &Candidate) -> RangeInclusive<Millis> {
    let row = &candidate.row;
    row.start.unwrap_or_default().min(row.end)..=row.end
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::rc::Rc;

    use super::*;
    use crate::archive::answer::{Coverage, Decider, Found, Source, answer};
    use crate::archive::row::Row;
    use crate::archive::wanted::Wanted;
    use crate::session::{NatEvent, Session};
    use crate::wire::samples::{delete, dnat, snat, untranslated};

    /// Everything until 100 s, with these sessions.
    struct Memory(Vec<Found>);

    impl Source for Memory {
        fn find(&mut self, _: &[Wanted], each: &mut dyn FnMut(Found), _: &mut Vec<String>) {
            self.0.iter().cloned().for_each(each);
        }

        fn coverage(&mut self, _: &RangeInclusive<Millis>, _: &mut Vec<String>) -> Vec<Coverage> {
            vec![Coverage {
                gateway: "gw".into(),
                known: Vec::from([Millis::new(0)..Millis::new(100_000)]),
                gaps: Vec::new(),
                purges: Vec::new(),
                open: Some(Millis::new(100_000)),
            }]
        }
    }

    fn found(event: &NatEvent) -> Found {
        Found {
            gateway: Rc::from("gw"),
            row: Row::of(event).unwrap(),
            is_open: false,
        }
    }

    fn ask(at: &str, time: u64, sessions: Vec<Found>) -> Answer {
        let question = Question {
            subject: Subject::Public {
                at: super::super::request::endpoint(at).unwrap(),
                to: None,
            },
            protocol: None,
            time: Millis::new(time)..=Millis::new(time),
            skew: Duration::from_millis(1_500),
        };
        let mut sources: [Box<dyn Source>; 1] = [Box::new(Memory(sessions))];
        answer(&question, &mut sources, Millis::new(100_000)).unwrap()
    }

    fn said(at: &str, time: u64, session: Session) -> String {
        verdict(&ask(
            at,
            time,
            vec![found(&delete(session, 10_000, 20_000))],
        ))
    }

    #[test]
    fn the_sentence_names_subscriber_server_or_host() {
        let time = "at 1970-01-01 00:00:15 UTC (±1500 ms), in one session.";
        let cases = [
            (
                snat(),
                "203.0.113.9:50520",
                "The subscriber 10.1.2.3 behind gateway gw used 203.0.113.9:50520",
            ),
            (
                dnat(),
                "203.0.113.9:80",
                "The server 10.0.0.80:8080 behind gateway gw was reached by 203.0.113.9:80",
            ),
            (
                untranslated(),
                "10.0.0.3:5000",
                "The host 10.0.0.3 itself, without another address, used 10.0.0.3:5000",
            ),
        ];
        for (session, at, expected) in cases {
            assert_eq!(said(at, 15_000, session), format!("{expected} {time}"));
        }
    }

    #[test]
    fn a_session_that_is_only_near_is_said_to_be() {
        let text = said("203.0.113.9:50520", 21_000, snat());
        assert!(
            text.ends_with("At the exact time there was none; it lies within 1500 ms of it."),
            "{text}"
        );
    }

    #[test]
    fn complete_records_say_nobody() {
        let answer = ask("203.0.113.9:1", 15_000, Vec::new());
        assert_eq!(
            verdict(&answer),
            "Nobody: there was no such session at 1970-01-01 00:00:15 UTC (±1500 ms). The records of that time are complete \
             (gateway gw)."
        );
    }

    #[test]
    fn a_deletion_is_told_with_its_time_its_rule_and_its_day() {
        let order = Order {
            rule: "365d".to_owned(),
            before: Millis::new(86_400_000),
            at: Millis::new(366 * 86_400_000),
            act: None,
        };
        let mut purged = Hole {
            gateway: Some("gw".into()),
            absence: Absence::Purged,
            from: Millis::new(15_000),
            to: Some(order.before),
            lost: None,
            purge: Some(order),
        };
        assert_eq!(
            hole(&purged),
            "gateway gw: the sessions that ended before 1970-01-02 00:00:00 UTC were deleted on 1971-01-02 under the rule \
             \"365d\", but for those that were held"
        );
        purged.purge.as_mut().unwrap().act = Some("acts/1".to_owned());
        assert!(hole(&purged).contains("were deleted on 1971-01-02 by hand under the rule"));
    }

    #[test]
    fn an_open_session_before_the_time_is_only_possible() {
        let mut open = found(&delete(snat(), 10_000, 20_000));
        open.is_open = true;
        let answer = ask("203.0.113.9:50520", 90_000, vec![open]);
        let text = verdict(&answer);
        assert!(text.starts_with("Not known: "), "{text}");
        assert!(
            text.ends_with("It may have been the session below, but that is not certain."),
            "{text}"
        );
        let certainty = certainty(&answer.candidates[0]);
        assert_eq!(certainty, "possible: last seen before the time, still open");
    }

    #[test]
    fn what_would_decide_is_said_apart_from_what_would_leave_fewer() {
        let mut other = snat();
        other.original.src = "10.9.9.9".parse().unwrap();
        let both = [snat(), other].map(|session| found(&delete(session, 10_000, 20_000)));
        let mut answer = ask("203.0.113.9:50520", 15_000, both.into());
        assert!(verdict(&answer).ends_with("Nothing that a request can say tells them apart."));
        let decider = |feature, is_enough| Decider { feature, is_enough };
        answer.deciders = vec![
            decider(Feature::Protocol, false),
            decider(Feature::Destination, true),
            decider(Feature::Time, true),
        ];
        let expected = "One of these would decide: the destination address, a more exact time. These would leave fewer: the \
                        protocol.";
        assert!(verdict(&answer).ends_with(expected), "{}", verdict(&answer));
    }
}
