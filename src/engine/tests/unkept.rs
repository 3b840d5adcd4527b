//! More sessions than are kept.

use super::*;

fn engine_of(max_pending: usize) -> Engine {
    let policy = Policy {
        max_pending,
        ..POLICY
    };
    Engine::new(Filter::new(&capture()), policy, at(0))
}

#[test]
fn the_records_of_a_session_that_is_not_kept_leave_at_their_times_and_complete() {
    let mut engine = engine_of(1);
    engine.handle_event(&new(session(1)), at(1));
    engine.handle_event(&new(session(2)), at(2));
    assert!(engine.is_full());
    assert_eq!((engine.pending(), engine.unkept()), (1, 1));
    engine.handle_event(&destroy(session(2), wall(2), wall(9)), at(9));
    let records = records(&mut engine);
    let told: Vec<_> = records
        .iter()
        .map(|event| (event.kind, event.session.original.src_port, event.start))
        .collect();
    assert_eq!(
        told,
        [
            (EventKind::Create, 1, Some(wall(1))),
            (EventKind::Create, 2, Some(wall(2))),
            (EventKind::Delete, 2, Some(wall(2))),
        ]
    );
    assert!(records[2].totals.is_some());
    assert_eq!(engine.unkept(), 0);
    assert_eq!(engine.statistics().unannounced, 0);
}

#[test]
fn a_session_from_before_the_first_that_was_not_kept_has_been_missed_and_gets_its_create() {
    let mut engine = engine_of(1);
    engine.handle_event(&new(session(1)), at(100));
    engine.handle_event(&new(session(2)), at(100));
    engine.handle_event(&destroy(session(3), wall(50), wall(101)), at(101));
    let kinds = kinds(&mut engine);
    assert_eq!(kinds[2..], [EventKind::Create, EventKind::Delete]);
    assert_eq!(engine.unkept(), 1);
}

#[test]
fn audits_do_not_announce_again_what_is_not_kept_and_keep_it_when_there_is_room() {
    let mut engine = engine_of(1);
    for port in [1, 2] {
        engine.handle_event(&new(session(port)), at(1));
    }
    let entries = [1, 2].map(|port| Flow {
        start: Some(wall(1)),
        ..flow(session(port))
    });
    for second in [10, 20] {
        engine.request_audit(at(second));
        audit(&mut engine, &entries, at(second));
    }
    assert_eq!((engine.pending(), engine.unkept()), (1, 1));

    engine.handle_event(&destroy(session(1), wall(1), wall(25)), at(25));
    engine.request_audit(at(30));
    audit(&mut engine, &entries[1..], at(30));
    assert_eq!((engine.pending(), engine.unkept()), (1, 0));
    engine.handle_event(&destroy(session(2), wall(1), wall(40)), at(40));
    use EventKind::{Create, Delete};
    assert_eq!(kinds(&mut engine), [Create, Create, Delete, Delete]);
    assert_eq!(engine.statistics().adopted, 0);
}

#[test]
fn what_an_audit_has_not_seen_of_the_unkept_is_no_longer_waited_for() {
    let mut engine = engine_of(1);
    for port in [1, 2] {
        engine.handle_event(&new(session(port)), at(1));
    }
    engine.request_audit(at(10));
    audit(&mut engine, &[flow(session(1))], at(10));
    assert_eq!(engine.unkept(), 0);
}

proptest! {
    #[test]
    fn whatever_is_kept_each_session_has_one_create_and_then_one_delete(
        max_pending in 0_usize..6,
        toggles in proptest::collection::vec(0_u16..8, 1..80),
    ) {
        let mut engine = engine_of(max_pending);
        let mut began = [None; 8];
        let mut expected = Vec::new();
        for (step, &port) in toggles.iter().enumerate() {
            let now = at(10 * step as u64);
            let kind = match began[usize::from(port)].take() {
                None => {
                    engine.handle_event(&new(session(port)), now);
                    began[usize::from(port)] = Some(now.wall);
                    EventKind::Create
                }
                Some(start) => {
                    engine.handle_event(&destroy(session(port), start, now.wall), now);
                    EventKind::Delete
                }
            };
            expected.push((kind, port));
        }
        let records = records(&mut engine);
        let told: Vec<_> = records
            .iter()
            .map(|event| (event.kind, event.session.original.src_port))
            .collect();
        prop_assert_eq!(told, expected);
        prop_assert!(engine.pending() <= max_pending);
    }
}
