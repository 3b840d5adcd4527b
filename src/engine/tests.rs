//! Scripts of (time, event) → records, without a socket, a store or a clock.

#![allow(clippy::unwrap_used)]

mod audits;
mod filter;
mod parts;
mod repeats;
mod uncounted;
mod unkept;

use std::net::IpAddr;

use proptest::prelude::*;

use super::changes::MAX_CHANGES;
use super::*;
use crate::config::{LogScope, MarkFilter};
use crate::session::{Counters, GapCause, Protocol, Totals, Tuple, Zone};
use crate::wire::ctnetlink::Listing;

const TTL: Duration = Duration::from_secs(7 * 86_400);
const POLICY: Policy = Policy {
    ttl: TTL,
    resync: None,
    max_pending: usize::MAX,
    active_timeout: None,
};

pub(super) fn capture() -> crate::config::Capture {
    crate::config::Capture {
        namespace: None,
        table: "nattrail".to_owned(),
        log: LogScope::Nat,
        mark: None,
        zone: None,
        protocols: Vec::new(),
        source: Vec::new(),
        destination: Vec::new(),
        set_sysctls: false,
        receive_buffer: 1 << 20,
        reliable: true,
        resync: None,
        active_timeout: None,
    }
}

fn engine() -> Engine {
    Engine::new(Filter::new([capture().selection()]), POLICY, at(0))
}

fn at(seconds: u64) -> Now {
    Now::new(wall(seconds), Uptime::from_millis(seconds * 1000))
}

fn wall(seconds: u64) -> Wall {
    Wall::from_secs(1_800_000_000 + seconds)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// UDP from a client behind SNAT, identified by its source port.
pub(super) fn session(port: u16) -> Session {
    let (client, server, gateway) = ("10.0.0.2", "198.51.100.7", "203.0.113.9");
    Session {
        original: Tuple {
            src: address(client),
            dst: address(server),
            src_port: port,
            dst_port: 53,
        },
        reply: Tuple {
            src: address(server),
            dst: address(gateway),
            src_port: 53,
            dst_port: port,
        },
        protocol: Protocol::UDP,
        zone: Zone::default(),
        id: Some(u32::from(port)),
        mark: 0,
    }
}

fn untranslated(port: u16) -> Session {
    let mut session = session(port);
    session.reply.dst = session.original.src;
    session
}

fn flow(session: Session) -> Entry {
    Entry {
        session,
        totals: None,
        start: None,
        stop: None,
        event_time: None,
        is_unannounced: false,
        end_reason: None,
    }
}

fn new(session: Session) -> Event {
    Event::New(flow(session))
}

/// A DESTROY of a kernel with accounting and timestamps.
fn destroy(session: Session, start: Wall, stop: Wall) -> Event {
    let totals = Totals {
        original: Counters {
            packets: 1,
            octets: 60,
        },
        reply: Counters {
            packets: 2,
            octets: 120,
        },
    };
    Event::Destroy(Entry {
        totals: Some(totals),
        start: Some(start),
        stop: Some(stop),
        ..flow(session)
    })
}

/// Counters of so many octets, a hundred in each packet, and three times as many in reply.
pub(super) fn totals(octets: u64) -> Totals {
    let counters = |octets| Counters {
        packets: octets / 100,
        octets,
    };
    Totals {
        original: counters(octets),
        reply: counters(3 * octets),
    }
}

fn records(engine: &mut Engine) -> Vec<NatEvent> {
    let mut records = Vec::new();
    while let Some(record) = engine.poll_record() {
        if let Record::Event(event) = record {
            records.push(event);
        }
    }
    records
}

fn ended(engine: &Engine) -> Vec<Row> {
    engine.changes().ended().collect()
}

fn kinds(engine: &mut Engine) -> Vec<EventKind> {
    records(engine).iter().map(|event| event.kind).collect()
}

/// The dumps of an audit at `now` that finds `present` in the kernel's table and `dying` in its dying list.
fn dump(engine: &mut Engine, present: &[Entry], dying: &[Entry], now: Now) {
    for (listing, flows) in [(Listing::Table, present), (Listing::Dying, dying)] {
        assert_eq!(engine.poll_dump(now), Some(listing));
        assert_eq!(engine.poll_dump(now), None, "asked for once");
        for flow in flows {
            engine.handle_dumped(flow, now);
        }
        engine.handle_dump_end();
    }
}

/// A whole audit at `now` that finds `present` in the kernel's table.
fn audit(engine: &mut Engine, present: &[Entry], now: Now) {
    dump(engine, present, &[], now);
    engine.handle_events_drained(now);
    engine.handle_timeout(now);
    // Sessions that are not kept are checked in pieces.
    while engine.unkept() > 0 && engine.poll_timeout().is_some_and(|due| due <= now.up) {
        engine.handle_timeout(now);
    }
}

#[test]
fn a_create_leaves_at_new_and_a_delete_with_the_kernels_times_at_destroy() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(10));
    let created = records(&mut engine);
    assert_eq!(created.len(), 1);
    assert_eq!(
        (created[0].kind, created[0].time),
        (EventKind::Create, wall(10))
    );

    engine.handle_events(&[destroy(session(1), wall(9), wall(20))], at(30));
    let deleted = records(&mut engine);
    assert_eq!(deleted.len(), 1);
    assert_eq!(
        (deleted[0].start, deleted[0].time),
        (Some(wall(9)), wall(20))
    );
    assert_eq!(deleted[0].totals.unwrap().reply.octets, 120);
    assert_eq!(deleted[0].provenance, Provenance::Kernel);
    assert_eq!(engine.pending(), 0);
}

#[test]
fn the_time_of_the_event_is_preferred_to_the_time_of_reading() {
    let mut engine = engine();
    let event = Event::New(Entry {
        event_time: Some(wall(5)),
        ..flow(session(1))
    });
    engine.handle_events(&[event], at(10));
    assert_eq!(records(&mut engine)[0].time, wall(5));
}

#[test]
fn both_records_have_the_same_beginning_although_the_kernel_dates_it_twice() {
    let mut engine = engine();
    let some = Duration::from_micros(30);
    for start in [wall(5).saturating_sub(some), wall(5).saturating_add(some)] {
        let event = Event::New(Entry {
            event_time: Some(wall(5)),
            ..flow(session(1))
        });
        engine.handle_events(&[event, destroy(session(1), start, wall(9))], at(10));
        let records = records(&mut engine);
        assert_eq!(records[1].start, Some(records[0].time));
    }
}

#[test]
fn whatever_the_clock_says_at_the_start_there_is_room_for_rows() {
    for nanos in [0, 4_294_967_296_000_000_000, u64::MAX] {
        let first = Row::first(Wall::from_nanos(nanos));
        assert!((0..=1 << 62).contains(&first.0), "{first:?}");
    }
}

#[test]
fn without_kernel_timestamps_the_delete_has_the_start_of_the_create() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(10));
    engine.handle_events(&[Event::Destroy(flow(session(1)))], at(30));
    let delete = records(&mut engine)[1];
    assert_eq!((delete.start, delete.time), (Some(wall(10)), wall(30)));
}

#[test]
fn a_destroy_without_new_makes_the_create_with_the_true_start_and_then_the_delete() {
    let mut engine = engine();
    engine.handle_events(&[destroy(session(1), wall(3), wall(20))], at(30));
    let records = records(&mut engine);
    assert_eq!(
        (records[0].kind, records[0].time),
        (EventKind::Create, wall(3))
    );
    assert_eq!(
        (records[1].kind, records[1].time),
        (EventKind::Delete, wall(20))
    );
    assert!(
        records
            .iter()
            .all(|event| event.provenance == Provenance::Kernel)
    );
}

#[test]
fn a_destroy_without_new_and_without_times_says_that_its_create_is_inferred() {
    let mut engine = engine();
    engine.handle_events(&[Event::Destroy(flow(session(1)))], at(30));
    let records = records(&mut engine);
    assert_eq!(
        (records[0].time, records[0].provenance),
        (wall(30), Provenance::Inferred)
    );
    assert_eq!(
        (records[1].start, records[1].provenance),
        (None, Provenance::Kernel)
    );
}

#[test]
fn a_delete_whose_start_is_only_when_the_session_was_found_says_that_it_is_inferred() {
    let mut engine = engine();
    engine.request_audit(at(100));
    audit(&mut engine, &[flow(session(1))], at(100));
    engine.handle_events(&[Event::Destroy(flow(session(1)))], at(110));
    let delete = records(&mut engine)[1];
    assert_eq!(
        (delete.start, delete.provenance),
        (Some(wall(100)), Provenance::Inferred)
    );
}

#[test]
fn a_repeated_new_and_a_repeated_destroy_give_nothing() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(10));
    engine.handle_events(&[new(session(1))], at(10));
    engine.handle_events(&[destroy(session(1), wall(10), wall(20))], at(30));
    engine.handle_events(&[destroy(session(1), wall(10), wall(20))], at(31));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
    assert_eq!(engine.statistics().duplicates, 2);
}

#[test]
fn the_same_tuples_and_id_again_are_another_session() {
    let mut engine = engine();
    for start in [10, 50] {
        engine.handle_events(&[new(session(1))], at(start));
        engine.handle_events(
            &[destroy(session(1), wall(start), wall(start + 5))],
            at(start + 6),
        );
    }
    assert_eq!(records(&mut engine).len(), 4);
    assert_eq!(engine.statistics().duplicates, 0);
}

#[test]
fn a_late_destroy_is_paired_with_its_own_create_and_not_with_the_next() {
    let mut engine = engine();
    let (first, second) = (
        session(1),
        Session {
            id: Some(99),
            ..session(1)
        },
    );
    engine.handle_events(&[new(first)], at(10));
    engine.handle_events(&[new(second)], at(20));
    engine.handle_events(&[destroy(second, wall(20), wall(25))], at(30));
    engine.handle_events(&[destroy(first, wall(10), wall(15))], at(31));
    let deletes: Vec<_> = records(&mut engine).split_off(2);
    assert_eq!(deletes.len(), 2, "each delete has a create already");
    assert_eq!(
        (deletes[0].session.id, deletes[0].start),
        (Some(99), Some(wall(20)))
    );
    assert_eq!(
        (deletes[1].session.id, deletes[1].start),
        (Some(1), Some(wall(10)))
    );
}

#[test]
fn a_session_that_began_after_the_pending_one_with_its_id_is_not_paired_with_it() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(10));
    engine.handle_drops(wall(98), wall(102));
    engine.handle_events(&[destroy(session(1), wall(100), wall(105))], at(110));
    assert_eq!(
        kinds(&mut engine),
        [EventKind::Create, EventKind::Create, EventKind::Delete]
    );
    assert_eq!(engine.pending(), 1);
}

#[test]
fn a_session_that_seems_to_have_begun_after_its_new_was_read_is_the_same_if_nothing_was_missed() {
    let mut engine = engine();
    // The clock was set back before the NEW was read.
    engine.handle_events(&[new(session(1))], at(10));
    engine.handle_events(&[destroy(session(1), wall(100), wall(105))], at(15));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
    assert_eq!(engine.pending(), 0);
}

#[test]
fn a_record_never_ends_before_it_begins_when_the_clock_is_set_back() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(10));
    engine.handle_events(&[destroy(session(1), wall(10), wall(4))], at(4));
    assert_eq!(records(&mut engine)[1].time, wall(10));
}

#[test]
fn a_session_that_was_announced_gets_its_delete_though_the_filter_no_longer_accepts_it() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(1));
    let mut capture = capture();
    capture.protocols = vec![Protocol::TCP];
    engine.reconfigure(Filter::new([capture.selection()]), POLICY, at(2));
    assert!(!engine.accepts_all_pending());
    engine.handle_events(&[destroy(session(1), wall(1), wall(3))], at(3));
    assert_eq!(kinds(&mut engine), [EventKind::Create, EventKind::Delete]);
    assert!(engine.accepts_all_pending());
}

#[test]
fn sessions_shorter_than_the_flush_never_reach_the_store() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(1));
    engine.handle_events(&[destroy(session(1), wall(1), wall(1))], at(1));
    let changes = engine.changes();
    assert_eq!((changes.begun().count(), changes.ended().count()), (0, 0));
}

#[test]
fn the_store_is_told_of_each_beginning_and_end_once() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(1));
    let row = engine.changes().begun().next().unwrap().row;
    engine.handle_committed();
    assert_eq!(engine.changes().begun().count(), 0);

    engine.handle_events(&[destroy(session(1), wall(1), wall(2))], at(2));
    assert_eq!(ended(&engine), [row]);
    engine.handle_committed();
    assert_eq!(ended(&engine), []);
}

#[test]
fn changes_survive_a_failed_commit() {
    let mut engine = engine();
    engine.handle_events(&[new(session(1))], at(1));
    engine.handle_events(&[new(session(2))], at(1));
    engine.handle_committed();
    engine.handle_events(&[new(session(3))], at(2));
    engine.handle_events(&[destroy(session(1), wall(1), wall(2))], at(2));
    engine.handle_commit_failed();
    let changes = engine.changes();
    assert_eq!((changes.begun().count(), changes.ended().count()), (1, 1));
}

#[test]
fn a_replaced_store_is_told_of_every_pending_session() {
    let mut engine = engine();
    for port in 1..=3 {
        engine.handle_events(&[new(session(port))], at(1));
    }
    engine.handle_committed();
    engine.handle_events(&[destroy(session(2), wall(1), wall(2))], at(2));
    engine.handle_store_replaced();
    let changes = engine.changes();
    assert_eq!((changes.begun().count(), changes.ended().count()), (2, 0));
}

#[test]
fn a_gap_is_a_record_and_asks_for_an_audit() {
    let mut engine = engine();
    let gap = Gap {
        cause: GapCause::Overflow,
        from: wall(1),
        to: wall(2),
        lost: None,
    };
    engine.handle_gap(gap, at(2));
    assert_eq!(engine.poll_record(), Some(Record::Gap(gap)));
    assert_eq!(engine.poll_dump(at(2)), Some(Listing::Table));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    New(u16),
    Destroy(u16),
    RepeatLastDestroy,
    Commit,
    CommitFails,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u16).prop_map(Step::New),
        (0..4_u16).prop_map(Step::Destroy),
        Just(Step::RepeatLastDestroy),
        Just(Step::Commit),
        Just(Step::CommitFails),
    ]
}

proptest! {
    /// Creates minus deletes are the pending sessions, every delete has its create before it, and the store (a set of
    /// rows) ends up with exactly the pending ones.
    #[test]
    fn whatever_the_order_creates_and_deletes_balance(steps in proptest::collection::vec(step(), 0..60)) {
        let mut engine = engine();
        let mut store = std::collections::BTreeSet::new();
        let mut live = std::collections::BTreeMap::new();
        let mut last = None;
        for (second, step) in steps.into_iter().chain([Step::Commit]).enumerate() {
            let now = at(10 * second as u64);
            match step {
                Step::New(port) if !live.contains_key(&port) => {
                    live.insert(port, now.wall);
                    engine.handle_events(&[new(session(port))], now);
                }
                Step::Destroy(port) => {
                    let start = live.remove(&port).unwrap_or(wall(10 * second as u64));
                    let event = destroy(session(port), start, now.wall);
                    last = Some(event);
                    engine.handle_events(&[event], now);
                }
                Step::RepeatLastDestroy => if let Some(event) = &last {
                    engine.handle_events(&[*event], now);
                },
                Step::Commit => {
                    let changes = engine.changes();
                    store.extend(changes.begun().map(|pending| pending.row));
                    for row in changes.ended() {
                        prop_assert!(store.remove(&row));
                    }
                    engine.handle_committed();
                }
                Step::CommitFails => engine.handle_commit_failed(),
                Step::New(_) => {}
            }
        }
        prop_assert_eq!(store.len(), live.len());
        prop_assert_eq!(engine.pending(), live.len());
        let mut open = std::collections::BTreeMap::new();
        for event in records(&mut engine) {
            let count: &mut i32 = open.entry(event.session.original.src_port).or_default();
            *count += if event.kind == EventKind::Create { 1 } else { -1 };
            prop_assert!((0..=1).contains(count));
        }
        prop_assert_eq!(open.values().sum::<i32>() as usize, live.len());
    }
}

#[test]
fn what_a_commit_takes_is_bounded_and_the_rest_follows() {
    const COUNT: u32 = MAX_CHANGES as u32 + 10;
    let numbered = |number: u32| Session {
        id: Some(number),
        ..session((number % 50_000) as u16)
    };
    let mut engine = engine();
    for number in 0..COUNT {
        engine.handle_events(&[new(numbered(number))], at(1));
    }
    assert_eq!(engine.changes().begun().count(), MAX_CHANGES);
    assert!(!engine.changes().whole);
    assert!(engine.handle_committed());
    assert_eq!(engine.changes().begun().count(), 10);
    assert!(engine.changes().whole);
    assert!(!engine.handle_committed());

    for number in 0..COUNT {
        engine.handle_events(&[Event::Destroy(flow(numbered(number)))], at(2));
    }
    let mut ended: Vec<_> = ended(&engine);
    assert_eq!(ended.len(), MAX_CHANGES);
    assert!(!engine.changes().whole);
    assert!(engine.handle_committed());
    ended.extend(engine.changes().ended());
    assert!(!engine.handle_committed());
    ended.sort_unstable();
    ended.dedup();
    assert_eq!(ended.len(), MAX_CHANGES + 10);
}
