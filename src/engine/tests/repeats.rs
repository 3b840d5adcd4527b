//! Ends that come again, and ends that come first.

use super::*;

/// Ends of other sessions, so many that an end that came before is no longer remembered.
fn forget_ends(engine: &mut Engine, now: Now) {
    engine.recent = RecentEnds::new(1);
    for number in 0..9 {
        let mut other = session(number);
        (other.id, other.mark) = (Some(1 << 31), 1);
        let start = now.wall.saturating_sub(Duration::from_secs(1));
        engine.handle_event(&new(other), now);
        engine.handle_event(&destroy(other, start, now.wall), now);
    }
    while engine.poll_record().is_some() {}
}

#[test]
fn an_end_that_is_repeated_after_many_others_is_known_by_its_start() {
    let mut engine = engine();
    let ends = [(1, 10), (2, 15)].map(|(port, start)| {
        engine.handle_event(&new(session(port)), at(start));
        destroy(session(port), wall(start), wall(20))
    });
    engine.handle_events(&ends, at(20));
    forget_ends(&mut engine, at(50));
    // Of one that began when events were dropped nobody knows whether it was announced.
    engine.handle_drops(wall(14), wall(16));
    engine.handle_events(&ends, at(60));
    let told = records(&mut engine);
    assert_eq!(
        told.iter().map(|event| event.kind).collect::<Vec<_>>(),
        [EventKind::Create, EventKind::Delete]
    );
    assert_eq!(told[0].session.id, Some(2));
    assert_eq!(engine.statistics().duplicates, 1);
}

#[test]
fn the_end_of_a_session_that_the_kernel_was_told_not_to_announce_gives_both_records() {
    let mut engine = engine();
    forget_ends(&mut engine, at(50));
    engine.handle_event(&destroy(session(1), wall(10), wall(55)), at(60));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
}

#[test]
fn a_filter_by_mark_may_accept_at_its_end_a_session_that_it_did_not_accept_before() {
    let mut config = capture();
    config.mark = Some(MarkFilter {
        value: 1,
        mask: u32::MAX,
    });
    let mut engine = Engine::new(Filter::new(&config), POLICY, at(0));
    let mut marked = session(1);
    engine.handle_event(&new(marked), at(10));
    marked.mark = 1;
    forget_ends(&mut engine, at(50));
    engine.handle_event(&destroy(marked, wall(10), wall(20)), at(60));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
}

/// An engine that goes on with the socket and the sessions of an earlier run, which ended at 100 s.
fn continued() -> Engine {
    let mut engine = Engine::new(Filter::new(&capture()), POLICY, at(101));
    engine.restore(StoredSession {
        row: Row(1),
        session: session(1),
        begun: wall(10),
        provenance: Provenance::Kernel,
    });
    engine.handle_continued(wall(100), at(101));
    engine
}

#[test]
fn a_new_that_is_repeated_to_the_next_run_is_that_of_the_same_session_if_nothing_was_missed() {
    let mut engine = continued();
    engine.handle_event(&new(session(1)), at(102));
    assert_eq!((records(&mut engine).len(), engine.pending()), (0, 1));
    engine.handle_event(&destroy(session(1), wall(10), wall(103)), at(103));
    assert_eq!(kinds(&mut engine), [EventKind::Delete]);
}

#[test]
fn an_end_that_is_repeated_to_the_next_run_is_known_by_its_start_unless_it_began_in_between() {
    let mut engine = continued();
    forget_ends(&mut engine, at(110));
    for (port, start) in [(2, 50), (3, 100)] {
        engine.handle_event(&destroy(session(port), wall(start), wall(105)), at(111));
    }
    let told = records(&mut engine);
    assert!(told.iter().all(|event| event.session.id == Some(3)));
    assert_eq!(told.len(), 2);
}
