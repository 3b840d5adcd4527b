//! More sessions than are kept.

use super::*;

fn engine_of(max_pending: usize) -> Engine {
    let policy = Policy {
        max_pending,
        ..POLICY
    };
    Engine::new(Filter::new([capture().selection()]), policy, at(0))
}

#[test]
fn the_records_of_a_session_that_is_not_kept_leave_at_their_times_and_complete() {
    let mut engine = engine_of(1);
    engine.handle_events(&[new(session(1))], at(1));
    engine.handle_events(&[new(session(2))], at(2));
    assert!(engine.is_full());
    assert_eq!((engine.pending(), engine.unkept()), (1, 1));
    engine.handle_events(&[destroy(session(2), wall(2), wall(9))], at(9));
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
    engine.handle_events(&[new(session(1))], at(100));
    engine.handle_events(&[new(session(2))], at(100));
    engine.handle_events(&[destroy(session(3), wall(50), wall(101))], at(101));
    let kinds = kinds(&mut engine);
    assert_eq!(kinds[2..], [EventKind::Create, EventKind::Delete]);
    assert_eq!(engine.unkept(), 1);
}

#[test]
fn audits_do_not_announce_again_what_is_not_kept_and_keep_it_when_there_is_room() {
    let mut engine = engine_of(1);
    for port in [1, 2] {
        engine.handle_events(&[new(session(port))], at(1));
    }
    let entries = [1, 2].map(|port| Entry {
        start: Some(wall(1)),
        ..flow(session(port))
    });
    for second in [10, 20] {
        engine.request_audit(at(second));
        audit(&mut engine, &entries, at(second));
    }
    assert_eq!((engine.pending(), engine.unkept()), (1, 1));

    engine.handle_events(&[destroy(session(1), wall(1), wall(25))], at(25));
    engine.request_audit(at(30));
    audit(&mut engine, &entries[1..], at(30));
    assert_eq!((engine.pending(), engine.unkept()), (1, 0));
    engine.handle_events(&[destroy(session(2), wall(1), wall(40))], at(40));
    use EventKind::{Create, Delete};
    assert_eq!(kinds(&mut engine), [Create, Create, Delete, Delete]);
    assert_eq!(engine.statistics().adopted, 0);
}

#[test]
fn what_an_audit_has_not_seen_of_the_unkept_is_no_longer_waited_for() {
    let mut engine = engine_of(1);
    for port in [1, 2] {
        engine.handle_events(&[new(session(port))], at(1));
    }
    engine.request_audit(at(10));
    audit(&mut engine, &[flow(session(1))], at(10));
    assert_eq!((engine.unkept(), engine.statistics().forgotten), (0, 1));
}

proptest! {
    #[test]
    fn whatever_is_kept_each_session_has_one_create_and_then_one_delete(
        max_pending in 0_usize..9,
        toggles in proptest::collection::vec(0_u16..8, 1..80),
    ) {
        let mut engine = engine_of(max_pending);
        let mut began = [None; 8];
        let mut expected = Vec::new();
        for (step, &port) in toggles.iter().enumerate() {
            let now = at(10 * step as u64);
            let kind = match began[usize::from(port)].take() {
                None => {
                    engine.handle_events(&[new(session(port))], now);
                    began[usize::from(port)] = Some(now.wall);
                    EventKind::Create
                }
                Some(start) => {
                    engine.handle_events(&[destroy(session(port), start, now.wall)], now);
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

#[test]
fn ends_during_an_audit_do_not_let_it_forget_the_living() {
    let mut engine = engine_of(1);
    for port in 1..=5 {
        engine.handle_events(&[new(session(port))], at(1));
    }
    assert_eq!(engine.unkept(), 4);
    engine.request_audit(at(10));
    assert!(engine.poll_dump(at(10)).is_some());
    let entry = |port| Entry {
        start: Some(wall(1)),
        ..flow(session(port))
    };
    engine.handle_dumped(&entry(1), at(10));
    engine.handle_dumped(&entry(2), at(10));
    engine.handle_dumped(&entry(3), at(10));
    // It ends before the dump reaches it.
    engine.handle_events(&[destroy(session(4), wall(1), wall(10))], at(10));
    engine.handle_dumped(&entry(5), at(10));
    engine.handle_dump_end();
    assert!(engine.poll_dump(at(10)).is_some());
    engine.handle_dump_end();
    engine.handle_events_drained(at(10));
    for _ in 0..20 {
        engine.handle_timeout(at(10));
    }
    assert!(engine.poll_timeout().is_none_or(|due| due > at(10).up));
    assert_eq!((engine.unkept(), engine.statistics().forgotten), (3, 0));
}

#[test]
fn one_in_the_dying_list_is_waited_for() {
    let mut engine = engine_of(1);
    for port in [1, 2] {
        engine.handle_events(&[new(session(port))], at(1));
    }
    let entry = |port| Entry {
        start: Some(wall(1)),
        ..flow(session(port))
    };
    engine.request_audit(at(10));
    assert!(engine.poll_dump(at(10)).is_some());
    engine.handle_dumped(&entry(1), at(10));
    engine.handle_dump_end();
    assert!(engine.poll_dump(at(10)).is_some());
    engine.handle_dumped(&entry(2), at(10));
    engine.handle_dump_end();
    engine.handle_events_drained(at(10));
    engine.handle_timeout(at(10));
    engine.handle_events(&[destroy(session(2), wall(1), wall(9))], at(20));
    use EventKind::{Create, Delete};
    assert_eq!(kinds(&mut engine), [Create, Create, Delete]);
}

#[test]
fn a_session_whose_new_was_missed_is_announced_by_an_audit_and_not_kept() {
    let mut engine = engine_of(1);
    for port in [1, 2] {
        engine.handle_events(&[new(session(port))], at(1));
    }
    // The NEW of 3 was lost.
    let entry = |port, s| Entry {
        start: Some(wall(s)),
        ..flow(session(port))
    };
    engine.request_audit(at(10));
    audit(
        &mut engine,
        &[entry(1, 1), entry(2, 1), entry(3, 5)],
        at(10),
    );
    engine.handle_events(&[destroy(session(3), wall(5), wall(20))], at(20));
    engine.handle_events(&[destroy(session(2), wall(1), wall(21))], at(21));
    let told: Vec<_> = records(&mut engine)
        .iter()
        .map(|e| (e.kind, e.session.original.src_port))
        .collect();
    use EventKind::{Create, Delete};
    assert_eq!(
        told,
        [
            (Create, 1),
            (Create, 2),
            (Create, 3),
            (Delete, 3),
            (Delete, 2)
        ]
    );
}

#[test]
fn a_repeated_new_of_one_that_is_not_kept_gives_nothing() {
    let mut engine = engine_of(1);
    engine.handle_events(&[new(session(2))], at(1));
    for second in [1, 2] {
        engine.handle_events(&[new(session(1))], at(second));
    }
    assert_eq!(kinds(&mut engine), [EventKind::Create; 2]);
    assert_eq!(engine.statistics().duplicates, 1);
}

#[test]
fn one_that_a_changed_filter_leaves_out_still_has_its_end() {
    let mut engine = engine_of(1);
    for port in [2, 1] {
        engine.handle_events(&[new(session(port))], at(1));
    }
    let mut narrow = capture();
    narrow.protocols = vec![Protocol::TCP];
    engine.reconfigure(Filter::new([narrow.selection()]), engine.policy, at(2));
    assert!(!engine.accepts_all_pending(), "the kernel must not filter");
    engine.handle_events(&[destroy(session(2), wall(1), wall(3))], at(3));
    assert!(!engine.accepts_all_pending());
    engine.handle_events(&[destroy(session(1), wall(1), wall(3))], at(3));
    assert!(engine.accepts_all_pending());
    use EventKind::{Create, Delete};
    assert_eq!(kinds(&mut engine), [Create, Create, Delete, Delete]);
}

#[test]
fn beyond_what_is_known_by_a_fingerprint_all_records_leave_and_the_counts_add_up() {
    let mut engine = engine_of(1);
    engine.max_unkept = 4;
    for port in 1..=7 {
        engine.handle_events(&[new(session(port))], at(1));
    }
    assert_eq!((engine.pending(), engine.unkept()), (1, 4));
    assert_eq!(engine.statistics().forgotten, 2);
    for port in 1..=7 {
        engine.handle_events(&[destroy(session(port), wall(1), wall(2))], at(2));
    }
    let deletes = |event: &&NatEvent| event.kind == EventKind::Delete;
    assert_eq!(records(&mut engine).iter().filter(deletes).count(), 7);
    let statistics = engine.statistics();
    assert_eq!(
        statistics.creates,
        statistics.deletes + statistics.forgotten
    );
}
