//! Any sessions, in any of the places that a session passes through, and in two of them at a hand-over.

use proptest::prelude::*;

use super::*;

/// A life of the same public address and port, and how far it has got on its way.
#[derive(Clone, Debug)]
struct Life {
    session: Session,
    start: u64,
    end: u64,
    stage: usize,
    /// Also in the place before, or, when it is in the log, still in the list of pending sessions.
    is_handed_over: bool,
}

/// When the list of pending sessions was written.
const AS_OF: u64 = 600_000;

const PLACES: usize = 4;

fn lives() -> impl Strategy<Value = Vec<Life>> {
    // A few subscribers and destinations; a pause keeps sessions with the same tuples apart.
    let life = (
        0_u8..3,
        0_u16..3,
        1_u64..90_000,
        1_u64..90_000,
        0..PLACES,
        any::<bool>(),
    );
    prop::collection::vec(life, 0..12).prop_map(|lives| {
        let mut ends = std::collections::HashMap::new();
        let lives =
            lives
                .into_iter()
                .map(|(subscriber, port, pause, length, stage, is_handed_over)| {
                    let mut session = of(&format!("10.1.2.{subscriber}"));
                    session.original.dst_port = 443 + port;
                    session.reply.src_port = 443 + port;
                    let last: &mut u64 = ends.entry((subscriber, port)).or_default();
                    let start = *last + pause;
                    let end = start + length;
                    *last = end;
                    Life {
                        session,
                        start,
                        end,
                        stage,
                        is_handed_over,
                    }
                });
        lives.filter(|life| life.start < AS_OF).collect()
    })
}

/// The four places: pending, log, spool, sealed.
fn sources(lives: &[Life]) -> Vec<Box<dyn Source>> {
    let mut places = vec![Memory::default(); PLACES];
    for life in lives {
        let finished = ended(life.session, life.start, life.end);
        let pending = open(life.session, life.start, AS_OF);
        if life.end > AS_OF {
            places[0].found.push(pending);
            // It ended after the list was written.
            if life.is_handed_over {
                places[1].found.push(finished);
            }
            continue;
        }
        let stage = life.stage.max(1);
        places[stage].found.push(finished.clone());
        match stage {
            // An end that was reported late.
            1 if life.is_handed_over => places[0].found.push(pending),
            _ if life.is_handed_over => places[stage - 1].found.push(finished),
            _ => {}
        }
    }
    places[0].coverage.push(complete());
    let boxed = places
        .into_iter()
        .map(|place| Box::new(place) as Box<dyn Source>);
    boxed.collect()
}

fn asked(lives: &[Life], question: &Question) -> Answer {
    answer(question, &mut sources(lives), Millis::new(NOW)).unwrap()
}

proptest! {
    #[test]
    fn a_list_has_each_session_once(lives in lives()) {
        let mut question = question(0);
        question.subject = Subject::Subscriber(Prefix::parse("10.1.2.0/24", "").unwrap());
        question.time = Millis::new(0)..=Millis::new(AS_OF);
        let answer = asked(&lives, &question);
        let mut found: Vec<_> = answer
            .candidates
            .iter()
            .map(|it| (it.row.pre.src, it.row.pre.dst_port, it.row.start.unwrap().get()))
            .collect();
        let mut expected: Vec<_> = lives
            .iter()
            .map(|it| (it.session.original.src, it.session.original.dst_port, it.start))
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_session_is_found_at_any_moment_of_its_life_and_at_none_outside(
        lives in lives(), at in 0..AS_OF - 1_000, skew in 0_u64..2_000,
    ) {
        let mut question = question(at);
        question.skew = Duration::from_millis(skew.min(1_000));
        let (from, until) = (at.saturating_sub(skew.min(1_000)), at + skew.min(1_000));
        let answer = asked(&lives, &question);
        let mut found: Vec<_> = answer
            .candidates
            .iter()
            .map(|it| (it.row.start.unwrap().get(), it.fit == Fit::Exact))
            .collect();
        let alive = lives.iter().filter(|it| it.start <= until && it.end >= from);
        let mut expected: Vec<_> =
            alive.map(|it| (it.start, it.start <= at && it.end >= at)).collect();
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
