//! Restored sessions, and audits of the kernel's table and of the dying list.

use super::*;

#[test]
fn a_restored_session_goes_on_and_ends_with_its_own_start() {
    let mut engine = engine();
    engine.restore(StoredSession {
        row: Row(41),
        session: session(1),
        begun: wall(0),
        provenance: Provenance::Kernel,
        baseline: None,
    });
    engine.request_audit(at(100));
    audit(&mut engine, &[flow(session(1))], at(100));
    assert_eq!((records(&mut engine).len(), engine.pending()), (0, 1));

    engine.handle_events(&[new(session(2))], at(101));
    assert!(engine.changes().begun().next().unwrap().row > Row(41));
    engine.handle_events(&[Event::Destroy(flow(session(1)))], at(102));
    assert_eq!(records(&mut engine)[1].start, Some(wall(0)));
    assert_eq!(ended(&engine), [Row(41)]);
}

#[test]
fn a_session_that_was_adopted_before_the_store_could_be_opened_takes_its_stored_place() {
    let mut engine = engine();
    engine.request_audit(at(100));
    audit(&mut engine, &[flow(session(1))], at(100));
    engine.restore(StoredSession {
        row: Row(41),
        session: session(1),
        begun: wall(0),
        provenance: Provenance::Kernel,
        baseline: None,
    });
    assert_eq!((engine.pending(), engine.changes().begun().count()), (1, 0));
    engine.handle_events(&[Event::Destroy(flow(session(1)))], at(102));
    assert_eq!(records(&mut engine)[1].start, Some(wall(0)));
    assert_eq!(ended(&engine), [Row(41)]);
}

#[test]
fn the_first_audit_closes_what_ended_while_nobody_listened_and_adopts_what_began() {
    let mut engine = engine();
    engine.restore(StoredSession {
        row: Row(1),
        session: session(1),
        begun: wall(0),
        provenance: Provenance::Kernel,
        baseline: None,
    });
    engine.request_audit(at(100));
    let unknown = Entry {
        start: Some(wall(50)),
        ..flow(session(2))
    };
    audit(&mut engine, &[unknown, flow(untranslated(3))], at(100));
    let records = records(&mut engine);
    assert_eq!(records.len(), 2);
    assert_eq!(
        (records[0].kind, records[0].time),
        (EventKind::Create, wall(50))
    );
    assert_eq!(
        (records[1].kind, records[1].time),
        (EventKind::Delete, wall(100))
    );
    assert!(
        records
            .iter()
            .all(|event| event.provenance == Provenance::Inferred)
    );
}

#[test]
fn an_event_that_was_queued_during_the_dump_is_not_overruled_by_it() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(1));
    engine.request_audit(at(100));
    // Gone from the table, and its DESTROY still in the queue.
    dump(&mut engine, &[], &[], at(100));
    engine.handle_timeout(at(100));
    engine.handle_events(&[destroy(session(1), wall(1), wall(99))], at(100));
    engine.handle_events_drained(at(100));
    engine.handle_timeout(at(100));
    let records = records(&mut engine);
    assert_eq!(records.len(), 2);
    assert_eq!(
        (records[1].provenance, records[1].time),
        (Provenance::Kernel, wall(99))
    );
}

#[test]
fn a_session_in_the_dying_list_is_not_closed_since_its_destroy_is_still_owed() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(1));
    engine.request_audit(at(100));
    dump(
        &mut engine,
        &[],
        &[flow(session(1)), flow(session(2))],
        at(100),
    );
    engine.handle_events_drained(at(100));
    engine.handle_timeout(at(100));
    assert_eq!((engine.pending(), engine.dying()), (1, 2));
    assert_eq!(
        kinds(&mut engine),
        [EventKind::Create],
        "the unknown one comes with its DESTROY"
    );
}

#[test]
fn the_destroy_of_a_session_that_was_closed_by_an_audit_gives_nothing_more() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(10));
    engine.request_audit(at(20));
    audit(&mut engine, &[], at(20));
    engine.handle_events(&[destroy(session(1), wall(10), wall(15))], at(30));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
    assert_eq!(engine.statistics().duplicates, 1);
}

#[test]
fn an_entry_whose_end_was_read_before_its_piece_of_the_dump_is_not_adopted() {
    let mut engine = engine();
    engine.request_audit(at(100));
    assert_eq!(engine.poll_dump(at(100)), Some(Listing::Table));
    engine.handle_events(&[destroy(session(1), wall(1), wall(99))], at(100));
    let entry = Entry {
        start: Some(wall(1)),
        ..flow(session(1))
    };
    engine.handle_dumped(&entry, at(100));
    assert_eq!((engine.pending(), engine.statistics().adopted), (0, 0));
}

#[test]
fn without_kernel_timestamps_an_entry_that_has_ended_is_not_adopted_either() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(99));
    engine.request_audit(at(100));
    assert_eq!(engine.poll_dump(at(100)), Some(Listing::Table));
    engine.handle_events(&[Event::Destroy(flow(session(1)))], at(100));
    engine.handle_dumped(&flow(session(1)), at(100));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
    assert_eq!(engine.pending(), 0);
}

#[test]
fn a_new_with_the_tuples_and_id_of_a_session_of_an_earlier_run_closes_that_one() {
    let mut engine = engine();
    engine.restore(StoredSession {
        row: Row(1),
        session: session(1),
        begun: wall(0),
        provenance: Provenance::Kernel,
        baseline: None,
    });
    engine.handle_events(&[new(session(1))], at(100));
    let records = records(&mut engine);
    assert_eq!(
        records.iter().map(|event| event.kind).collect::<Vec<_>>(),
        [EventKind::Delete, EventKind::Create]
    );
    assert_eq!(
        (records[0].provenance, records[0].start),
        (Provenance::Inferred, Some(wall(0)))
    );
    assert_eq!(records[1].time, wall(100));
}

#[test]
fn audits_keep_a_pause_however_often_they_are_asked_for() {
    let mut engine = engine();
    engine.request_audit(at(100));
    audit(&mut engine, &[], at(100));
    engine.request_audit(at(101));
    assert_eq!(engine.poll_dump(at(104)), None);
    assert_eq!(engine.poll_dump(at(105)), Some(Listing::Table));
}

#[test]
fn after_the_ttl_a_session_is_closed_if_the_kernel_no_longer_has_it_and_stays_if_it_has() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(0));
    engine.handle_events(&[new(session(2))], at(0));
    let due = engine.poll_timeout().unwrap();
    assert_eq!(due, at(0).up.saturating_add(TTL));
    assert_eq!(engine.poll_dump(at(TTL.as_secs() - 1)), None);

    let end = at(TTL.as_secs());
    audit(&mut engine, &[flow(session(2))], end);
    let delete = records(&mut engine)[2];
    assert_eq!(
        (delete.session.id, delete.start, delete.time),
        (Some(1), Some(wall(0)), end.wall)
    );
    assert_eq!(delete.provenance, Provenance::Inferred);
    assert_eq!(engine.pending(), 1);
    assert_eq!(engine.poll_timeout(), Some(end.up.saturating_add(TTL)));
}

#[test]
fn with_a_resync_audits_come_at_its_interval_also_when_nothing_is_pending() {
    let mut engine = engine();
    let resync = Duration::from_secs(600);
    let policy = Policy {
        resync: Some(resync),
        ..POLICY
    };
    engine.reconfigure(Filter::new([capture().selection()]), policy, at(0));
    for now in [600, 1200] {
        assert_eq!(engine.poll_timeout(), Some(at(now).up));
        audit(&mut engine, &[], at(now));
    }
    assert_eq!(engine.statistics().audits, 2);
}

#[test]
fn a_failed_dump_closes_nothing_and_is_asked_for_again() {
    let mut engine = engine();
    engine.restore(StoredSession {
        row: Row(1),
        session: session(1),
        begun: wall(0),
        provenance: Provenance::Kernel,
        baseline: None,
    });
    engine.request_audit(at(1));
    assert_eq!(engine.poll_dump(at(1)), Some(Listing::Table));
    engine.handle_dump_failed(at(2));
    engine.handle_events_drained(at(2));
    engine.handle_timeout(at(2));
    assert_eq!(engine.pending(), 1);
    assert_eq!(engine.poll_dump(at(11)), None);
    audit(&mut engine, &[], at(12));
    assert_eq!(kinds(&mut engine), [EventKind::Delete]);
}

#[test]
fn a_dump_in_doubt_closes_nothing_and_the_audit_is_repeated() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(0));
    engine.request_audit(at(10));
    assert_eq!(engine.poll_dump(at(10)), Some(Listing::Table));
    engine.handle_dump_end();
    assert_eq!(engine.poll_dump(at(10)), Some(Listing::Dying));
    engine.handle_dump_in_doubt(at(10));
    engine.handle_events_drained(at(10));
    engine.handle_timeout(at(10));
    assert_eq!((engine.pending(), engine.poll_dump(at(69))), (1, None));
    audit(&mut engine, &[], at(70));
    assert_eq!(engine.pending(), 0);
}

#[test]
fn a_large_table_is_closed_in_slices() {
    let mut engine = engine();
    for port in 0..10_000 {
        engine.restore(StoredSession {
            row: Row(i64::from(port)),
            session: session(port),
            begun: wall(0),
            provenance: Provenance::Kernel,
            baseline: None,
        });
    }
    engine.request_audit(at(1));
    audit(&mut engine, &[], at(1));
    let mut turns = 1;
    while engine.poll_timeout().is_some_and(|due| due <= at(1).up) {
        engine.handle_timeout(at(1));
        turns += 1;
    }
    assert_eq!((engine.pending(), turns), (0, 10));
    assert_eq!(records(&mut engine).len(), 10_000);
}

/// An audit at `now` that finds `present` in the table, and a dying list too long to be complete.
fn audit_in_doubt(engine: &mut Engine, present: &[Entry], now: Now) {
    engine.request_audit(now);
    assert_eq!(engine.poll_dump(now), Some(Listing::Table));
    for entry in present {
        engine.handle_dumped(entry, now);
    }
    engine.handle_dump_end();
    assert_eq!(engine.poll_dump(now), Some(Listing::Dying));
    engine.handle_dump_in_doubt(now);
    engine.handle_events_drained(now);
    while engine.poll_timeout().is_some_and(|due| due <= now.up) {
        engine.handle_timeout(now);
    }
}

#[test]
fn audits_in_doubt_close_nothing_however_many_there_are_and_leave_the_ends_to_the_kernel() {
    let mut engine = engine();
    for port in [1, 2] {
        engine.handle_events(&[new(session(port))], at(1));
    }
    for second in (100..2000).step_by(100) {
        audit_in_doubt(&mut engine, &[], at(second));
    }
    assert_eq!(engine.pending(), 2);
    for port in [1, 2] {
        engine.handle_events(&[destroy(session(port), wall(1), wall(90))], at(3000));
    }
    let records = records(&mut engine);
    assert_eq!(records.len(), 4);
    assert!(records[2..].iter().all(|end| end.time == wall(90)));
}

#[test]
fn audits_in_doubt_are_a_minute_apart_whoever_asks() {
    let mut engine = engine();
    audit_in_doubt(&mut engine, &[], at(10));
    engine.request_audit(at(20));
    assert_eq!(engine.poll_dump(at(69)), None);
    assert_eq!(engine.poll_dump(at(70)), Some(Listing::Table));
}

#[test]
fn after_the_ttl_audits_in_doubt_close_what_they_have_not_found_and_a_gap_says_so() {
    let mut engine = engine();
    for port in [1, 2] {
        engine.handle_events(&[new(session(port))], at(1));
    }
    let end = 100 + TTL.as_secs();
    for second in [100, 200, end] {
        let seen = (second == 200).then(|| flow(session(2)));
        audit_in_doubt(&mut engine, seen.as_slice(), at(second));
    }
    let mut told = Vec::new();
    while let Some(record) = engine.poll_record() {
        told.push(record);
    }
    let [_, _, Record::Event(delete), Record::Gap(gap)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (delete.session.id, delete.provenance),
        (Some(1), Provenance::Inferred)
    );
    let expected = Gap {
        cause: GapCause::Expired,
        from: wall(100),
        to: wall(end),
        lost: Some(1),
    };
    assert_eq!(gap, expected);

    // An inferred end is never contradicted.
    engine.handle_events(&[destroy(session(1), wall(1), wall(90))], at(end + 1));
    assert_eq!(records(&mut engine), []);
}

#[test]
fn after_the_ttl_sessions_that_were_not_kept_are_forgotten_with_a_gap_and_still_have_their_ends() {
    let policy = Policy {
        max_pending: 1,
        ..POLICY
    };
    let mut engine = Engine::new(Filter::new([capture().selection()]), policy, at(0));
    engine.request_audit(at(2));
    audit(&mut engine, &[], at(2));
    for port in [1, 2] {
        engine.handle_events(&[new(session(port))], at(100));
    }
    let end = 200 + TTL.as_secs();
    for second in [200, end] {
        audit_in_doubt(&mut engine, &[flow(session(1))], at(second));
    }
    assert_eq!((engine.unkept(), engine.statistics().forgotten), (0, 1));
    let mut gaps = 0;
    while let Some(record) = engine.poll_record() {
        gaps += usize::from(matches!(record, Record::Gap(_)));
    }
    assert_eq!(gaps, 1);
    engine.recent = RecentEnds::new(wall(end + 10));
    engine.handle_events(&[destroy(session(2), wall(100), wall(150))], at(end + 11));
    assert!(kinds(&mut engine).contains(&EventKind::Delete));
}

#[test]
fn an_inferred_end_of_a_session_whose_new_was_read_late_is_not_contradicted() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(103));
    let end = 200 + TTL.as_secs();
    for second in [200, end] {
        audit_in_doubt(&mut engine, &[], at(second));
    }
    assert_eq!(kinds(&mut engine).len(), 2);
    engine.handle_events(&[destroy(session(1), wall(100), wall(150))], at(end + 1));
    assert_eq!(records(&mut engine), []);
}
