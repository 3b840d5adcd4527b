//! Sessions that are accounted in parts.

use std::collections::BTreeMap;

use super::*;
use crate::session::EndReason;

const TIMEOUT: u64 = 40;

fn accounting() -> Engine {
    let policy = Policy {
        active_timeout: Some(Duration::from_secs(TIMEOUT)),
        ..POLICY
    };
    Engine::new(Filter::new([capture().selection()]), policy, at(0))
}

/// An entry of the table that has transferred so much since its start.
fn entry(port: u16, start: u64, octets: u64) -> Entry {
    Entry {
        totals: Some(totals(octets)),
        start: Some(wall(start)),
        ..flow(session(port))
    }
}

fn end(port: u16, start: u64, octets: u64, stop: u64) -> Event {
    Event::Destroy(Entry {
        stop: Some(wall(stop)),
        end_reason: Some(EndReason::Detected),
        ..entry(port, start, octets)
    })
}

/// A sweep at `now`, and the records of it.
fn sweep(engine: &mut Engine, entries: &[Entry], now: u64) -> Vec<NatEvent> {
    assert!(engine.poll_sweep(true, at(now)).is_some());
    assert_eq!(engine.poll_sweep(true, at(now)), None, "asked for once");
    engine.handle_swept(entries, at(now));
    engine.handle_sweep_end(at(now));
    records(engine)
}

/// Kind, beginning and end, octets of the original direction.
fn told(events: &[NatEvent]) -> Vec<(EventKind, u64, u64, Option<u64>)> {
    let seconds = |time: Wall| time.saturating_since(wall(0)).as_secs();
    let tell = |event: &NatEvent| {
        let octets = event.totals.map(|totals| totals.original.octets);
        (
            event.kind,
            seconds(event.start.unwrap()),
            seconds(event.time),
            octets,
        )
    };
    events.iter().map(tell).collect()
}

/// An engine with a session that began at 1 s and has been reported up to 300 octets at 40 s.
fn reported() -> Engine {
    let mut engine = accounting();
    engine.handle_events(&[new(session(1))], at(1));
    records(&mut engine);
    let part = sweep(&mut engine, &[entry(1, 1, 300)], 40);
    assert_eq!(told(&part), [(EventKind::Flow, 1, 40, Some(300))]);
    engine
}

#[test]
fn a_long_session_is_reported_in_parts_that_add_up_to_its_delete() {
    let mut engine = reported();
    let part = sweep(&mut engine, &[entry(1, 1, 1000)], 80);
    assert_eq!(told(&part), [(EventKind::Flow, 40, 80, Some(700))]);
    assert_eq!(part[0].end_reason, Some(EndReason::Active));
    engine.handle_events(&[end(1, 1, 1200, 90)], at(91));
    let last = records(&mut engine);
    let expected = [
        (EventKind::Flow, 80, 90, Some(200)),
        (EventKind::Delete, 1, 90, Some(1200)),
    ];
    assert_eq!(told(&last), expected);
    assert_eq!(
        last[0].totals.unwrap().reply,
        Counters {
            packets: 6,
            octets: 600
        }
    );
    assert!(
        last.iter()
            .all(|event| event.end_reason == Some(EndReason::Detected))
    );
    assert_eq!([last[0].in_parts, last[1].in_parts], [false, true]);
    assert_eq!(
        (engine.statistics().flows, engine.statistics().sweeps),
        (3, 2)
    );
}

#[test]
fn a_session_that_was_never_reported_has_its_delete_alone() {
    let mut engine = accounting();
    engine.handle_events(&[new(session(1))], at(1));
    assert_eq!(sweep(&mut engine, &[entry(1, 1, 300)], 30).len(), 1);
    engine.handle_events(&[end(1, 1, 1200, 31)], at(32));
    let delete = records(&mut engine).pop().unwrap();
    assert!(!delete.in_parts && delete.is_flow());
}

#[test]
fn a_session_is_due_when_its_last_report_is_three_quarters_of_the_timeout_old() {
    let mut engine = reported();
    assert_eq!(sweep(&mut engine, &[entry(1, 1, 400)], 69), []);
    assert_eq!(sweep(&mut engine, &[entry(1, 1, 400)], 79).len(), 1);
    // The beginning counts where nothing was reported, also where only the daemon knows it.
    engine.handle_events(&[new(session(2))], at(80));
    let unstamped = Entry {
        start: None,
        ..entry(2, 0, 50)
    };
    records(&mut engine);
    assert_eq!(sweep(&mut engine, &[unstamped], 109), []);
    assert_eq!(sweep(&mut engine, &[unstamped], 119).len(), 1);
}

#[test]
fn a_session_without_traffic_is_not_reported_and_its_next_part_begins_where_the_last_one_ended() {
    let mut engine = reported();
    assert_eq!(sweep(&mut engine, &[entry(1, 1, 300)], 80), []);
    let part = sweep(&mut engine, &[entry(1, 1, 301)], 120);
    assert_eq!(told(&part), [(EventKind::Flow, 40, 120, Some(1))]);
    engine.handle_events(&[end(1, 1, 301, 130)], at(131));
    let expected = [(EventKind::Delete, 1, 130, Some(301))];
    let delete = records(&mut engine);
    assert_eq!(told(&delete), expected);
    assert!(delete[0].in_parts);
}

#[test]
fn counters_that_were_set_to_zero_begin_anew() {
    let mut engine = reported();
    let part = sweep(&mut engine, &[entry(1, 1, 200)], 80);
    assert_eq!(told(&part), [(EventKind::Flow, 40, 80, Some(200))]);
    engine.handle_events(&[end(1, 1, 100, 90)], at(91));
    assert_eq!(records(&mut engine)[0].totals, Some(totals(100)));
}

#[test]
fn where_nothing_is_counted_a_session_is_not_reported_and_a_last_part_marks_the_end_of_one_that_was()
 {
    let mut engine = reported();
    let unknown = Entry {
        totals: None,
        ..entry(1, 1, 0)
    };
    assert_eq!(sweep(&mut engine, &[unknown], 80), []);
    engine.handle_uncounted(true, wall(81), wall(82));
    assert_eq!(sweep(&mut engine, &[entry(1, 1, 400)], 120), []);
    engine.handle_events(&[end(1, 1, 500, 130)], at(131));
    let expected = [
        (EventKind::Flow, 40, 130, None),
        (EventKind::Delete, 1, 130, None),
    ];
    assert_eq!(told(&records(&mut engine)), expected);
}

#[test]
fn an_end_that_nobody_heard_has_an_inferred_last_part() {
    let mut engine = reported();
    engine.request_audit(at(100));
    audit(&mut engine, &[], at(100));
    let last = records(&mut engine);
    let expected = [
        (EventKind::Flow, 40, 100, None),
        (EventKind::Delete, 1, 100, None),
    ];
    assert_eq!(told(&last), expected);
    assert!(last[1].in_parts);
    let inferred = |event: &NatEvent| event.provenance == Provenance::Inferred;
    assert!(last.iter().all(inferred));
}

#[test]
fn a_sweep_neither_adopts_nor_confirms_a_session() {
    let mut engine = accounting();
    engine.handle_events(&[new(session(1))], at(1));
    engine.request_audit(at(40));
    dump(&mut engine, &[], &[], at(40));
    records(&mut engine);
    let entries = [entry(1, 1, 5), entry(2, 1, 5)];
    assert_eq!(sweep(&mut engine, &entries, 40).len(), 1);
    engine.handle_events_drained(at(40));
    engine.handle_timeout(at(40));
    assert_eq!(engine.pending(), 0);
}

#[test]
fn a_stale_entry_is_not_taken_for_the_next_session_with_its_tuples_and_id() {
    let mut engine = accounting();
    engine.handle_events(&[new(session(1))], at(1));
    // The kernel made the piece before these events, and it is handled after them.
    engine.handle_events(&[end(1, 1, 500, 50), new(session(1))], at(50));
    records(&mut engine);
    assert_eq!(sweep(&mut engine, &[entry(1, 1, 400)], 50), []);
    engine.handle_events(&[end(1, 50, 70, 60)], at(60));
    assert_eq!(
        told(&records(&mut engine)),
        [(EventKind::Delete, 50, 60, Some(70))]
    );
}

#[test]
fn without_a_working_store_a_sweep_waits() {
    let mut engine = accounting();
    assert_eq!(engine.poll_sweep(false, at(0)), None);
    assert_eq!(engine.poll_timeout(), Some(at(10).up));
    assert!(engine.poll_sweep(true, at(10)).is_some());
}

#[test]
fn four_sweeps_begin_in_the_time_of_the_timeout_and_a_failed_one_is_repeated() {
    let mut engine = accounting();
    assert_eq!(engine.poll_timeout(), Some(at(0).up));
    assert_eq!(
        engine.poll_sweep(true, at(0)),
        Some(Duration::from_secs(10))
    );
    assert_eq!(engine.poll_timeout(), None);
    engine.handle_sweep_end(at(4));
    assert_eq!(engine.poll_timeout(), Some(at(10).up));
    assert_eq!(engine.poll_sweep(true, at(9)), None);
    assert!(engine.poll_sweep(true, at(10)).is_some());
    // A late one is followed by the next at once.
    engine.handle_sweep_end(at(25));
    assert!(engine.poll_sweep(true, at(25)).is_some());
    engine.handle_sweep_failed(at(26));
    assert_eq!(engine.poll_timeout(), Some(at(36).up));
}

#[test]
fn a_reload_turns_it_on_and_off_and_what_was_begun_in_parts_ends_in_parts() {
    let mut engine = reported();
    let on = engine.policy;
    engine.reconfigure(Filter::new([capture().selection()]), POLICY, at(41));
    assert_eq!(engine.poll_sweep(true, at(100)), None);
    engine.handle_swept(&[entry(1, 1, 400)], at(100));
    assert_eq!(records(&mut engine), []);
    engine.handle_events(&[new(session(2))], at(100));
    engine.handle_events(&[end(1, 1, 500, 110), end(2, 100, 7, 110)], at(111));
    let expected = [
        (EventKind::Create, 100, 100, None),
        (EventKind::Flow, 40, 110, Some(200)),
        (EventKind::Delete, 1, 110, Some(500)),
        (EventKind::Delete, 100, 110, Some(7)),
    ];
    assert_eq!(told(&records(&mut engine)), expected);
    engine.reconfigure(Filter::new([capture().selection()]), on, at(120));
    assert!(engine.poll_sweep(true, at(120)).is_some());
}

#[test]
fn a_mark_that_has_changed_is_told_with_the_one_at_the_beginning() {
    let mut engine = accounting();
    engine.handle_events(&[new(session(1))], at(1));
    records(&mut engine);
    let mut marked = entry(1, 1, 300);
    marked.session.mark = 7;
    let part = sweep(&mut engine, &[marked], 40);
    engine.handle_events(&[Event::Destroy(marked)], at(50));
    let delete = records(&mut engine);
    for event in [part[0], delete[0]] {
        assert_eq!((event.session.mark, event.first_mark), (7, Some(0)));
    }
}

#[test]
fn after_the_clock_was_set_back_sessions_are_still_reported() {
    let mut engine = accounting();
    engine.handle_events(&[new(session(1))], at(1000));
    records(&mut engine);
    let early = Now::new(wall(10), at(1100).up);
    engine.poll_sweep(true, early);
    engine.handle_swept(&[entry(1, 1000, 300)], early);
    let part = records(&mut engine);
    assert_eq!(told(&part), [(EventKind::Flow, 1000, 1000, Some(300))]);
}

#[test]
fn sessions_beyond_the_most_that_are_kept_are_reported_at_their_end_alone() {
    let mut engine = accounting();
    engine.policy.max_pending = 0;
    engine.handle_events(&[new(session(1))], at(1));
    records(&mut engine);
    assert_eq!(sweep(&mut engine, &[entry(1, 1, 300)], 50), []);
    engine.handle_events(&[end(1, 1, 400, 60)], at(60));
    assert!(records(&mut engine)[0].is_flow());
}

#[test]
fn a_report_replaces_the_session_in_the_store_once_per_commit() {
    let mut engine = accounting();
    engine.handle_events(&[new(session(1))], at(1));
    let first = engine.changes().begun().next().unwrap();
    assert_eq!(first.baseline, None);
    engine.handle_committed();
    for (time, octets) in [(40, 300), (80, 500)] {
        sweep(&mut engine, &[entry(1, 1, octets)], time);
    }
    let changes = engine.changes();
    assert_eq!(ended(&engine), [first.row]);
    let begun: Vec<_> = changes.begun().collect();
    let baseline = Some(Baseline {
        time: wall(80),
        totals: totals(500),
    });
    assert_eq!((begun.len(), begun[0].baseline), (1, baseline));
    assert!(begun[0].row > first.row);
    engine.handle_committed();
    engine.handle_events(&[end(1, 1, 600, 90)], at(91));
    assert_eq!(ended(&engine), [begun[0].row]);
}

#[test]
fn a_part_and_the_baseline_after_it_are_in_one_commit_however_many_changes_wait() {
    let mut engine = reported();
    let first = engine.changes().begun().next().unwrap();
    engine.handle_committed();
    let begin = |engine: &mut Engine, numbers: std::ops::Range<usize>| {
        for number in numbers {
            let session = Session {
                id: Some(1_000_000 + number as u32),
                ..session(2 + (number % 50_000) as u16)
            };
            engine.handle_events(&[new(session)], at(79));
        }
        records(engine);
    };
    begin(&mut engine, 0..MAX_CHANGES - 1);
    assert_eq!(sweep(&mut engine, &[entry(1, 1, 1000)], 80).len(), 1);
    begin(&mut engine, MAX_CHANGES..MAX_CHANGES + 10);
    let changes = engine.changes();
    assert!(!changes.whole);
    assert_eq!(ended(&engine), [first.row]);
    let last = changes.begun().last().unwrap();
    assert_eq!(
        (last.session.id, last.baseline.unwrap().time),
        (session(1).id, wall(80))
    );

    // The part waits until the first commit takes its baseline.
    begin(&mut engine, 2 * MAX_CHANGES..3 * MAX_CHANGES);
    assert_eq!(sweep(&mut engine, &[entry(1, 1, 1500)], 120), []);
    while engine.handle_committed() {}
    let part = sweep(&mut engine, &[entry(1, 1, 1500)], 130);
    assert_eq!(told(&part), [(EventKind::Flow, 80, 130, Some(500))]);
    assert_eq!(ended(&engine), [last.row]);
}

#[test]
fn a_session_that_ends_before_its_new_baseline_is_stored_is_gone_from_the_store() {
    let mut engine = reported();
    let first = engine.changes().begun().next().unwrap();
    engine.handle_committed();
    sweep(&mut engine, &[entry(1, 1, 1000)], 80);
    engine.handle_events(&[end(1, 1, 1200, 90)], at(91));
    assert_eq!(engine.changes().begun().count(), 0);
    assert_eq!(ended(&engine), [first.row]);
}

#[test]
fn a_store_that_opens_late_does_not_undo_what_was_reported_meanwhile() {
    let mut engine = accounting();
    engine.request_audit(at(50));
    audit(&mut engine, &[entry(1, 1, 300)], at(50));
    sweep(&mut engine, &[entry(1, 1, 300)], 50);
    let stored = StoredSession {
        row: Row(41),
        session: session(1),
        begun: wall(1),
        provenance: Provenance::Kernel,
        baseline: Some(Baseline {
            time: wall(20),
            totals: totals(100),
        }),
    };
    engine.restore(stored);
    engine.handle_store_opened();
    assert_eq!(ended(&engine), [Row(41)]);
    engine.handle_events(&[end(1, 1, 500, 60)], at(61));
    let rest = records(&mut engine).swap_remove(0);
    assert_eq!(rest.totals, Some(totals(200)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Transfer(u16, u64),
    Sweep,
    Audit,
    Commit,
    CommitFails,
    Restart,
    Kill,
    ReplaceStore,
    End(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let port = || 0..4_u16;
    prop_oneof![
        6 => (port(), 0..5000_u64).prop_map(|(port, octets)| Step::Transfer(port, octets)),
        6 => Just(Step::Sweep),
        1 => Just(Step::Audit),
        3 => Just(Step::Commit),
        1 => Just(Step::CommitFails),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => Just(Step::ReplaceStore),
        1 => port().prop_map(Step::End),
    ]
}

/// Sessions, their store, and the log of the same commits.
struct Scene {
    engine: Engine,
    /// Beginning and octets of the sessions that are open.
    open: BTreeMap<u16, (u64, u64)>,
    store: BTreeMap<Row, StoredSession>,
    log: Vec<NatEvent>,
    /// Not committed.
    fresh: Vec<NatEvent>,
    now: u64,
}

impl Scene {
    fn entries(&self) -> Vec<Entry> {
        let open = self.open.iter();
        open.map(|(port, (start, octets))| entry(*port, *start, *octets))
            .collect()
    }

    fn commit(&mut self) {
        let changes = self.engine.changes();
        for row in changes.ended() {
            assert!(
                self.store.remove(&row).is_some(),
                "a row that was not there"
            );
        }
        for stored in changes.begun() {
            assert!(
                self.store.insert(stored.row, stored).is_none(),
                "a row twice"
            );
        }
        self.engine.handle_committed();
        self.log.append(&mut self.fresh);
    }

    /// The next run, with the state of the last commit.
    fn run(&mut self) {
        self.fresh.clear();
        self.engine = Engine::new(self.engine.filter.clone(), self.engine.policy, at(self.now));
        for stored in self.store.values() {
            self.engine.restore(*stored);
        }
        self.engine.handle_store_opened();
        self.audit();
    }

    fn audit(&mut self) {
        self.now += 10;
        self.engine.request_audit(at(self.now));
        let entries = self.entries();
        audit(&mut self.engine, &entries, at(self.now));
    }

    fn end(&mut self, port: u16) {
        let (start, octets) = self.open.remove(&port).unwrap();
        let end = end(port, start, octets, self.now);
        self.engine.handle_events(&[end], at(self.now));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Transfer(port, more) => {
                let is_new = !self.open.contains_key(&port);
                let (_, octets) = self.open.entry(port).or_insert((self.now, 0));
                *octets += more;
                if is_new {
                    self.engine
                        .handle_events(&[new(session(port))], at(self.now));
                }
            }
            Step::Sweep => {
                let entries = self.entries();
                self.engine.poll_sweep(true, at(self.now));
                self.engine.handle_swept(&entries, at(self.now));
                self.engine.handle_sweep_end(at(self.now));
            }
            Step::Audit => self.audit(),
            Step::Commit => self.commit(),
            Step::CommitFails => self.engine.handle_commit_failed(),
            Step::Restart => {
                self.commit();
                self.run();
            }
            Step::Kill => self.run(),
            Step::ReplaceStore => {
                self.fresh.append(&mut records(&mut self.engine));
                self.store.clear();
                self.engine.handle_store_replaced();
                self.commit();
            }
            // A crash forgets what has ended since the last commit: its end would be inferred, without counters.
            Step::End(port) if self.open.contains_key(&port) => {
                self.end(port);
                self.fresh.append(&mut records(&mut self.engine));
                self.commit();
            }
            Step::End(_) => {}
        }
        self.fresh.append(&mut records(&mut self.engine));
    }
}

proptest! {
    #[test]
    fn parts_add_up_to_the_delete_whatever_happens_in_between(
        steps in proptest::collection::vec((step(), 0..30_u64), 0..120)
    ) {
        let mut scene = Scene {
            engine: accounting(),
            open: BTreeMap::new(),
            store: BTreeMap::new(),
            log: Vec::new(),
            fresh: Vec::new(),
            now: 10,
        };
        for (step, time) in steps {
            scene.now += time;
            scene.step(step);
        }
        for port in 0..4 {
            scene.now += 1;
            scene.step(Step::End(port));
        }
        for port in 0..4 {
            let (mut sum, mut until) = (Totals::default(), None);
            let of_port = |event: &&NatEvent| event.session.original.src_port == port;
            for event in scene.log.iter().filter(of_port) {
                match event.kind {
                    EventKind::Create => {}
                    EventKind::Flow => {
                        let part = event.totals.unwrap();
                        prop_assert_ne!(part, Totals::default());
                        prop_assert!(until.is_none() || event.start == until);
                        until = Some(event.time);
                        for (sum, part) in [
                            (&mut sum.original, part.original),
                            (&mut sum.reply, part.reply),
                        ] {
                            sum.packets += part.packets;
                            sum.octets += part.octets;
                        }
                    }
                    EventKind::Delete => {
                        prop_assert_eq!(event.in_parts, until.is_some());
                        if event.in_parts {
                            prop_assert_eq!(Some(sum), event.totals);
                        }
                        (sum, until) = (Totals::default(), None);
                    }
                }
            }
        }
    }
}
