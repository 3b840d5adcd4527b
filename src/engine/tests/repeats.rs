//! Ends that come again, and ends that come first.

use super::*;

/// Forgets every earlier end. The records up to here are thrown away.
fn forget_ends(engine: &mut Engine, now: Now) {
    engine.recent = RecentEnds::new(now.wall);
    while engine.poll_record().is_some() {}
}

#[test]
fn an_end_that_is_repeated_after_many_others_is_known_by_its_start() {
    let mut engine = engine();
    let ends = [(1, 10), (2, 15)].map(|(port, start)| {
        engine.handle_events(&[new(session(port))], at(start));
        destroy(session(port), wall(start), wall(20))
    });
    engine.handle_events(&ends, at(20));
    forget_ends(&mut engine, at(50));
    // A session that began while events were dropped may not have been announced.
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
    engine.handle_events(&[destroy(session(1), wall(10), wall(55))], at(60));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
}

#[test]
fn a_filter_by_mark_may_accept_at_its_end_a_session_that_it_did_not_accept_before() {
    let mut config = capture();
    config.mark = Some(MarkFilter {
        value: 1,
        mask: u32::MAX,
    });
    let mut engine = Engine::new(Filter::new([config.selection()]), POLICY, at(0));
    let mut marked = session(1);
    engine.handle_events(&[new(marked)], at(10));
    marked.mark = 1;
    forget_ends(&mut engine, at(50));
    engine.handle_events(&[destroy(marked, wall(10), wall(20))], at(60));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
}

#[test]
fn a_selection_by_mark_does_not_make_the_sessions_of_another_one_repeat_their_ends() {
    let mut marked = capture().selection();
    marked.mark = Some(MarkFilter { value: 1, mask: 1 });
    let filter = Filter::new([capture().selection(), marked]);
    let mut engine = Engine::new(filter, POLICY, at(0));
    let end = destroy(session(1), wall(10), wall(20));
    engine.handle_events(&[new(session(1))], at(10));
    engine.handle_events(&[end], at(20));
    forget_ends(&mut engine, at(50));
    engine.handle_events(&[end], at(60));
    assert_eq!(kinds(&mut engine), []);
    assert_eq!(engine.statistics().duplicates, 1);
}

/// An engine that goes on with the socket and the sessions of an earlier run, which ended at 100 s.
fn continued() -> Engine {
    let mut engine = Engine::new(Filter::new([capture().selection()]), POLICY, at(101));
    engine.restore(StoredSession {
        row: Row(1),
        session: session(1),
        begun: wall(10),
        provenance: Provenance::Kernel,
        baseline: None,
    });
    engine.handle_continued();
    engine
}

#[test]
fn a_new_that_is_repeated_to_the_next_run_is_that_of_the_same_session_if_nothing_was_missed() {
    let mut engine = continued();
    engine.handle_events(&[new(session(1))], at(102));
    assert_eq!((records(&mut engine).len(), engine.pending()), (0, 1));
    engine.handle_events(&[destroy(session(1), wall(10), wall(103))], at(103));
    assert_eq!(kinds(&mut engine), [EventKind::Delete]);
}

#[test]
fn an_end_that_is_repeated_to_the_next_run_is_known_once_an_audit_has_looked() {
    let mut engine = continued();
    let end = |port| destroy(session(port), wall(50), wall(60));
    // It may end a session whose NEW the run before missed.
    engine.handle_events(&[end(2)], at(102));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
    engine.request_audit(at(103));
    audit(&mut engine, &[started(1, 10)], at(103));
    engine.handle_events(&[end(3)], at(104));
    assert_eq!(records(&mut engine), []);
    // This run hears of it for the first time.
    engine.handle_events(&[destroy(session(4), wall(50), wall(105))], at(105));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
}

fn started(port: u16, start: u64) -> Entry {
    Entry {
        start: Some(wall(start)),
        ..flow(session(port))
    }
}

/// An engine that has missed nothing since 2 s.
fn heard() -> Engine {
    let mut engine = engine();
    engine.request_audit(at(2));
    audit(&mut engine, &[], at(2));
    engine
}

#[test]
fn an_end_that_was_reported_and_is_owed_to_another_listener_is_not_reported_again() {
    let mut engine = heard();
    engine.handle_events(&[new(session(1))], at(100));
    let end = destroy(session(1), wall(100), wall(110));
    engine.handle_events(&[end], at(110));
    assert_eq!(kinds(&mut engine).len(), 2);
    engine.request_audit(at(120));
    dump(&mut engine, &[], &[started(1, 100)], at(120));
    forget_ends(&mut engine, at(200));
    engine.handle_events(&[end], at(201));
    assert_eq!(records(&mut engine), []);
}

#[test]
fn where_the_kernel_leaves_news_out_no_end_is_taken_for_a_repetition_because_of_its_start() {
    let mut engine = heard();
    let end = |port, end| destroy(session(port), wall(60), wall(end));
    engine.handle_events(&[end(1, 100)], at(100));
    forget_ends(&mut engine, at(1000));
    engine.handle_events(&[end(2, 990)], at(1000));
    let told = records(&mut engine);
    assert_eq!(
        told.iter()
            .filter(|event| event.session.id == Some(2))
            .count(),
        2
    );
}

#[test]
fn ends_that_the_filter_leaves_out_or_that_overtook_their_beginning_do_not_mean_that_news_are_left_out()
 {
    let mut engine = heard();
    engine.handle_events(&[new(session(1))], at(10));
    let end = destroy(session(1), wall(10), wall(20));
    engine.handle_events(&[end], at(20));
    engine.handle_events(&[destroy(untranslated(2), wall(10), wall(20))], at(20));
    engine.handle_events(&[destroy(session(3), wall(20), wall(20))], at(20));
    forget_ends(&mut engine, at(50));
    engine.handle_events(&[end], at(60));
    assert_eq!(records(&mut engine), []);
}

#[test]
fn the_end_of_an_entry_that_lost_a_race_is_no_repetition() {
    let mut engine = heard();
    forget_ends(&mut engine, at(1000));
    let Event::Destroy(entry) = destroy(session(1), wall(960), wall(990)) else {
        unreachable!()
    };
    let clash = Entry {
        is_unannounced: true,
        ..entry
    };
    engine.handle_events(&[Event::Destroy(clash)], at(1000));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
}

#[test]
fn a_reload_keeps_what_was_missed_before_the_clock_was_set_back() {
    let mut engine = heard();
    engine.handle_drops(wall(5000), wall(5001));
    let mut config = capture();
    config.protocols = vec![Protocol::UDP];
    engine.reconfigure(Filter::new([config.selection()]), POLICY, at(1500));
    forget_ends(&mut engine, at(5050));
    engine.handle_events(&[destroy(session(1), wall(5000), wall(5040))], at(5050));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
}

#[test]
fn an_audit_knows_a_session_whose_new_was_read_after_the_clock_was_set_back() {
    let mut engine = heard();
    engine.handle_events(&[new(session(1))], at(1400));
    engine.request_audit(at(1500));
    audit(&mut engine, &[started(1, 5000)], at(1500));
    engine.handle_events(&[destroy(session(1), wall(5000), wall(5100))], at(5100));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
}
