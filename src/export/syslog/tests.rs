//! The decisions of a target, with a fake transport and injected time.
#![allow(clippy::unwrap_used)]

mod transports;

use std::collections::VecDeque;
use std::io;

use super::super::transport::fake::Fake;
use super::*;
use crate::config::{Facility, Format, Severity};
use crate::session::{EventKind, NatEvent, Protocol, Provenance, Session, Tuple, Zone};

fn config(target: Target) -> Syslog {
    Syslog {
        name: None,
        target,
        format: Format::Text,
        facility: Facility::LOCAL6,
        severity: Severity::Informational,
        app_name: "nattrail".to_owned(),
        exporter_address: "192.0.2.1".parse().unwrap(),
    }
}

fn host() -> Host {
    Host {
        hostname: "gw".to_owned(),
        pid: 1,
    }
}

fn target(target: Target, queue: usize) -> SyslogTarget {
    let transport = Transport::new(&target);
    SyslogTarget::with_transport(&config(target), &host(), transport, queue)
}

fn fake_target(queue: usize) -> SyslogTarget {
    let transport = Transport::Fake(Fake::default());
    SyslogTarget::with_transport(&config(Target::Stdout), &host(), transport, queue)
}

fn fake(target: &mut SyslogTarget) -> &mut Fake {
    match &mut target.transport {
        Transport::Fake(fake) => fake,
        _ => unreachable!("made by fake_target"),
    }
}

/// Milliseconds after an arbitrary begin, on both clocks.
fn at(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(1_772_366_400_000 + millis),
        Uptime::from_millis(50_000 + millis),
    )
}

/// A create whose connection id is `number`, so that it can be told from others.
fn record(number: u32, now: Now) -> Record {
    let tuple = |src: &str, dst: &str, dst_port| Tuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        src_port: 1000,
        dst_port,
    };
    Record::Event(NatEvent {
        kind: EventKind::Create,
        session: Session {
            original: tuple("10.0.0.7", "198.51.100.5", 443),
            reply: tuple("198.51.100.5", "192.0.2.1", 1000),
            protocol: Protocol::TCP,
            zone: Zone::default(),
            id: Some(number),
            mark: 0,
        },
        time: now.wall,
        start: Some(now.wall),
        totals: None,
        provenance: Provenance::Kernel,
    })
}

/// The number a record was made with; `None` for any other line.
fn number(line: &str) -> Option<u32> {
    let (_, id) = line.split_once(" id=")?;
    id.trim_end().parse().ok()
}

fn lost(line: &str) -> Option<u64> {
    let (_, lost) = line.split_once(" lost=")?;
    assert!(line.contains("event=gap cause=undelivered"), "{line}");
    lost.trim_end().parse().ok()
}

fn trouble() -> Trouble {
    Trouble::new("send", io::Error::from_raw_os_error(libc::ENOENT))
}

fn assert_balanced(target: &SyslogTarget) {
    let statistics = target.statistics();
    let queued: u64 = target.queue.tags().map(u64::from).sum();
    assert_eq!(statistics.queued, queued);
    assert_eq!(
        statistics.records,
        statistics.sent + statistics.dropped + statistics.failed + statistics.queued,
        "{statistics:?}"
    );
}

/// Flushes at each deadline until nothing is queued, for at most ten simulated minutes.
fn drain(target: &mut SyslogTarget, from: Now) {
    let mut now = from;
    while !target.is_idle() {
        let up = now.up.max(target.poll_timeout().unwrap());
        let passed = up.saturating_since(now.up);
        now = Now::new(now.wall.saturating_add(passed), up);
        assert!(now.up.saturating_since(from.up) < Duration::from_secs(600));
        target.flush(now);
    }
}

#[test]
fn records_leave_in_order() {
    let mut target = fake_target(10_000);
    for number in 0..3 {
        target.push(&record(number, at(0)), at(0));
    }
    assert_eq!(target.poll_timeout(), Some(Uptime::default()));
    target.flush(at(0));
    let numbers: Vec<_> = fake(&mut target)
        .taken
        .iter()
        .map(|line| number(line))
        .collect();
    assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
    assert_eq!(target.statistics().sent, 3);
    assert_eq!(target.poll_timeout(), None);
    assert!(target.is_idle());
}

#[test]
fn a_receiver_without_room_is_tried_again_after_growing_waits() {
    let mut target = fake_target(10_000);
    fake(&mut target).is_blocked = true;
    target.push(&record(0, at(0)), at(0));
    let mut waits = Vec::new();
    let mut now = at(0);
    for _ in 0..10 {
        target.flush(now);
        let next = target.poll_timeout().unwrap();
        waits.push(next.saturating_since(now.up).as_millis());
        now = Now::new(now.wall, next);
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    fake(&mut target).is_blocked = false;
    target.flush(now);
    assert_eq!(target.statistics().sent, 1);
    assert_eq!(target.delay, FIRST_DELAY);
}

#[test]
fn nothing_is_tried_before_the_back_off_is_over() {
    let mut target = fake_target(10_000);
    fake(&mut target).is_blocked = true;
    target.push(&record(0, at(0)), at(0));
    target.flush(at(0));
    fake(&mut target).is_blocked = false;
    target.flush(at(4));
    assert_eq!(target.statistics().sent, 0);
    target.flush(at(5));
    assert_eq!(target.statistics().sent, 1);
}

#[test]
fn a_receiver_that_is_draining_is_tried_again_soon() {
    let mut target = fake_target(10_000);
    fake(&mut target).write_failures = VecDeque::from([None, Some(Failure::Busy)]);
    target.push(&record(0, at(0)), at(0));
    target.push(&record(1, at(0)), at(0));
    target.flush(at(0));
    assert_eq!(target.statistics().sent, 1);
    assert_eq!(target.poll_timeout(), Some(at(1).up));
}

#[test]
fn what_does_not_fit_is_counted_and_stated_where_it_is_missing() {
    let mut target = fake_target(2_000);
    fake(&mut target).is_blocked = true;
    for number in 0..20 {
        target.push(&record(number, at(number.into())), at(number.into()));
    }
    target.flush(at(20));
    let dropped = target.statistics().dropped;
    assert!(dropped > 0);
    assert_balanced(&target);
    fake(&mut target).is_blocked = false;
    drain(&mut target, at(20));
    target.push(&record(100, at(30)), at(30));
    drain(&mut target, at(30));

    let taken = &fake(&mut target).taken;
    let kept = taken
        .iter()
        .take_while(|line| number(line).is_some())
        .count();
    assert_eq!(kept as u64 + dropped, 20);
    assert_eq!(lost(&taken[kept]), Some(dropped));
    // From the first record that was lost to the last one.
    assert!(taken[kept].contains(&format!(
        "from=2026-03-01T12:00:00.{kept:03}Z to=2026-03-01T12:00:00.019Z"
    )));
    assert_eq!(number(&taken[kept + 1]), Some(100));
    assert_eq!(taken.len(), kept + 2);
    assert_balanced(&target);
}

#[test]
fn a_target_at_its_limit_does_not_take_and_lose_in_turn() {
    let mut target = fake_target(2_000);
    fake(&mut target).is_blocked = true;
    for number in 0..20 {
        target.push(&record(number, at(0)), at(0));
    }
    let (queued, dropped) = (target.queue.len(), target.statistics().dropped);
    // Room for one record, or for a statement, is not enough to begin again.
    target.queue.pop();
    target.push(&record(20, at(0)), at(0));
    assert_eq!(target.statistics().dropped, dropped + 1);
    assert_eq!(target.queue.len(), queued - 1);
}

#[test]
fn a_record_of_several_messages_is_queued_whole_or_not_at_all() {
    let mut config = config(Target::Stdout);
    config.format = Format::Csv;
    let mut target =
        SyslogTarget::with_transport(&config, &host(), Transport::Fake(Fake::default()), 250);
    let Record::Event(mut event) = record(0, at(0)) else {
        unreachable!("an event");
    };
    target.push(&Record::Event(event), at(0));
    assert_eq!(
        target.statistics().records,
        0,
        "csv has no line for a create"
    );
    event.kind = EventKind::Delete;
    target.push(&Record::Event(event), at(0));
    assert!(target.is_idle());
    assert_eq!(target.statistics().dropped, 1);
}

#[test]
fn the_log_counts_a_loss_as_over_after_a_while_without_one() {
    let mut target = fake_target(2_000);
    fake(&mut target).is_blocked = true;
    for number in 0..20 {
        target.push(&record(number, at(0)), at(0));
    }
    fake(&mut target).is_blocked = false;
    drain(&mut target, at(1));
    assert_eq!(target.poll_timeout(), Some(at(10_000).up));
    target.flush(at(9_999));
    assert!(target.loss.is_some());
    target.flush(at(10_000));
    assert!(target.loss.is_none());
    assert_eq!(target.poll_timeout(), None);
}

#[test]
fn a_receiver_that_was_restarted_is_connected_again_at_once() {
    let mut target = fake_target(10_000);
    fake(&mut target).write_failures = VecDeque::from([None, Some(Failure::Broken(trouble()))]);
    target.push(&record(0, at(0)), at(0));
    target.push(&record(1, at(0)), at(0));
    target.flush(at(0));
    assert_eq!(target.statistics().sent, 2);
    assert_eq!(target.statistics().errors, 0);
    assert_eq!(fake(&mut target).opens, 2);
}

#[test]
fn a_receiver_that_is_away_is_tried_again_later_and_loses_nothing() {
    let mut target = fake_target(10_000);
    fake(&mut target).open_failures = (0..4).map(|_| Failure::Broken(trouble())).collect();
    target.push(&record(0, at(0)), at(0));
    target.flush(at(0));
    assert_eq!(target.health, Health::Failing);
    assert_eq!(target.poll_timeout(), Some(at(5).up));
    target.flush(at(5));
    assert_eq!(target.poll_timeout(), Some(at(15).up));
    target.flush(at(15));
    assert_eq!(target.health, Health::Working);
    assert_eq!(target.statistics().sent, 1);
    assert_eq!(target.statistics().errors, 2);
}

#[test]
fn a_message_too_large_is_dropped_and_stated() {
    let mut target = fake_target(10_000);
    fake(&mut target).write_failures = VecDeque::from([Some(Failure::TooLarge)]);
    target.push(&record(0, at(0)), at(0));
    target.push(&record(1, at(0)), at(0));
    target.flush(at(0));
    let taken = &fake(&mut target).taken;
    assert_eq!((number(&taken[0]), lost(&taken[1])), (Some(1), Some(1)));
    assert_eq!(target.statistics().failed, 1);
    assert_balanced(&target);
}

#[test]
fn a_refused_datagram_is_counted_and_the_next_one_sent() {
    let mut target = fake_target(10_000);
    fake(&mut target).write_failures = VecDeque::from([None, Some(Failure::Refused)]);
    for number in 0..3 {
        target.push(&record(number, at(0)), at(0));
    }
    target.flush(at(0));
    assert_eq!(
        (target.statistics().sent, target.statistics().refused),
        (3, 1)
    );
    assert!(target.last_refusal.is_some());
    target.push(&record(3, at(40_000)), at(40_000));
    target.flush(at(40_000));
    assert!(target.last_refusal.is_none());
}

#[test]
fn an_ended_target_counts_everything_as_failed() {
    let mut target = fake_target(10_000);
    fake(&mut target).write_failures = VecDeque::from([None, Some(Failure::Ended(trouble()))]);
    for number in 0..3 {
        target.push(&record(number, at(0)), at(0));
    }
    target.flush(at(0));
    target.push(&record(3, at(0)), at(0));
    target.reopen(at(0));
    target.flush(at(0));
    assert_eq!(target.poll_timeout(), None);
    assert_eq!(
        (target.statistics().sent, target.statistics().failed),
        (1, 3)
    );
    assert_balanced(&target);
}

#[test]
fn one_flush_does_a_bounded_number_of_writes() {
    let mut target = fake_target(10_000_000);
    for number in 0..2 * FLUSH_WRITES as u32 {
        target.push(&record(number, at(0)), at(0));
    }
    target.flush(at(0));
    assert_eq!(target.statistics().sent, FLUSH_WRITES as u64);
    assert_eq!(target.poll_timeout(), Some(Uptime::default()));
}
