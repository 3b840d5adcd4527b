//! Counters of sessions that may have gone through a flowtable that does not count.

use super::*;

/// Whether the record of a session with this lifetime has counters.
fn is_counted(engine: &mut Engine, session: Session, start: u64, end: u64) -> bool {
    engine.handle_events(&[destroy(session, wall(start), wall(end))], at(end));
    let delete = records(engine).pop().unwrap();
    assert_eq!(delete.kind, EventKind::Delete);
    delete.totals.is_some()
}

#[test]
fn sessions_that_live_beside_a_flowtable_that_does_not_count_have_no_counters() {
    let mut engine = engine();
    engine.handle_uncounted(false, wall(0), wall(10));
    assert!(is_counted(&mut engine, session(1), 1, 11));
    // It was made at some time since the last check.
    engine.handle_uncounted(true, wall(10), wall(20));
    assert!(is_counted(&mut engine, session(2), 1, 9));
    assert!(!is_counted(&mut engine, session(3), 1, 11));
    assert!(!is_counted(&mut engine, session(4), 30, 31));
}

#[test]
fn sessions_that_begin_after_the_flowtable_counts_have_counters() {
    let mut engine = engine();
    engine.handle_uncounted(true, wall(0), wall(10));
    engine.handle_uncounted(false, wall(10), wall(20));
    engine.handle_uncounted(false, wall(20), wall(30));
    assert!(!is_counted(&mut engine, session(1), 19, 50));
    assert!(is_counted(&mut engine, session(2), 21, 50));
}

#[test]
fn a_clock_that_is_set_back_gives_no_session_counters() {
    let mut engine = engine();
    engine.handle_uncounted(false, wall(0), wall(1000));
    engine.handle_uncounted(true, wall(1000), wall(1001));
    engine.handle_uncounted(true, wall(1001), wall(500));
    assert!(!is_counted(&mut engine, session(1), 501, 502));
    engine.handle_uncounted(false, wall(500), wall(510));
    assert!(!is_counted(&mut engine, session(2), 1001, 520));
}

#[test]
fn protocols_that_are_never_offloaded_keep_their_counters() {
    let mut engine = engine();
    engine.handle_uncounted(true, wall(0), wall(10));
    for (protocol, counted) in [
        (Protocol::ICMP, true),
        (Protocol::SCTP, true),
        (Protocol::TCP, false),
        (Protocol::GRE, false),
    ] {
        let session = Session {
            protocol,
            ..session(1)
        };
        assert_eq!(
            is_counted(&mut engine, session, 11, 12),
            counted,
            "{protocol:?}"
        );
    }
}
