//! The decisions of a target with a fake transport and injected time, then every transport against the real thing.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;

use super::super::transport::{Stdout, fake::Fake};
use super::*;
use crate::config::{Facility, Format, Severity};
use crate::session::{EventKind, NatEvent, Protocol, Provenance, Session, Tuple, Zone};

fn config(target: Target, queue: usize) -> Syslog {
    Syslog {
        target,
        format: Format::Text,
        facility: Facility::LOCAL6,
        severity: Severity::Informational,
        app_name: "nattrail".to_owned(),
        exporter_address: "192.0.2.1".parse().unwrap(),
        queue,
    }
}

fn host() -> Host {
    Host {
        hostname: "gw".to_owned(),
        pid: 1,
    }
}

fn target(target: Target, queue: usize) -> SyslogTarget {
    SyslogTarget::new(&config(target, queue), &host())
}

fn fake_target(queue: usize) -> SyslogTarget {
    let transport = Transport::Fake(Fake::default());
    SyslogTarget::with_transport(&config(Target::Stdout, queue), &host(), transport)
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

fn assert_balanced(statistics: &Statistics) {
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
    assert_balanced(&target.statistics());
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
    assert_balanced(&target.statistics());
}

#[test]
fn a_target_at_its_limit_does_not_take_and_lose_in_turn() {
    let mut target = fake_target(2_000);
    fake(&mut target).is_blocked = true;
    for number in 0..20 {
        target.push(&record(number, at(0)), at(0));
    }
    let dropped = target.statistics().dropped;
    // Room for one record is not enough to begin again.
    target.queue.pop();
    target.push(&record(20, at(0)), at(0));
    assert_eq!(target.statistics().dropped, dropped + 1);
}

#[test]
fn a_record_of_several_messages_is_queued_whole_or_not_at_all() {
    let mut config = config(Target::Stdout, 250);
    config.format = Format::Csv;
    let mut target =
        SyslogTarget::with_transport(&config, &host(), Transport::Fake(Fake::default()));
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
    assert_balanced(&target.statistics());
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
    assert_balanced(&target.statistics());
}

#[test]
fn one_flush_does_a_bounded_number_of_writes() {
    let mut target = fake_target(10_000_000);
    for number in 0..3000 {
        target.push(&record(number, at(0)), at(0));
    }
    target.flush(at(0));
    assert_eq!(target.statistics().sent, FLUSH_WRITES as u64);
    assert_eq!(target.poll_timeout(), Some(Uptime::default()));
}

fn bind(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn receive_all(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let mut lines = Vec::new();
    while let Ok(length) = socket.recv(&mut buffer) {
        lines.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    lines
}

fn local(path: &Path, queue: usize) -> SyslogTarget {
    target(
        Target::Local {
            path: path.to_owned(),
        },
        queue,
    )
}

#[test]
fn a_local_receiver_that_stops_reading_and_goes_on_gets_everything_or_a_statement() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let receiver = bind(&path);
    let mut target = local(&path, 20_000);
    for number in 0..2000 {
        target.push(&record(number, at(0)), at(0));
        target.flush(at(0));
    }
    assert!(target.statistics().dropped > 0);
    assert_balanced(&target.statistics());

    let mut lines = Vec::new();
    let mut millis = 0;
    while !target.is_idle() {
        lines.extend(receive_all(&receiver));
        millis += 1000;
        assert!(millis < 10_000_000);
        target.flush(at(millis));
    }
    lines.extend(receive_all(&receiver));
    let statistics = target.statistics();
    let received = lines.iter().filter(|line| number(line).is_some()).count();
    assert_eq!(received as u64, statistics.sent);
    assert_eq!(
        lines.iter().filter_map(|line| lost(line)).sum::<u64>(),
        statistics.dropped
    );
    assert_eq!(statistics.sent + statistics.dropped, 2000);
}

#[test]
fn a_local_receiver_that_is_restarted_gets_what_came_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut target = local(&path, 20_000);
    // Not there yet: ENOENT.
    target.push(&record(0, at(0)), at(0));
    target.flush(at(0));
    assert_eq!(target.health, Health::Failing);
    let receiver = bind(&path);
    drain(&mut target, at(10));
    assert_eq!(receive_all(&receiver).len(), 1);
    // Gone with its socket left behind: ECONNREFUSED.
    drop(receiver);
    target.push(&record(1, at(1000)), at(1000));
    target.flush(at(1000));
    assert_eq!(target.health, Health::Failing);
    fs::remove_file(&path).unwrap();
    let receiver = bind(&path);
    drain(&mut target, at(1010));
    let lines = receive_all(&receiver);
    assert_eq!(lines.len(), 1);
    assert_eq!(number(&lines[0]), Some(1));
    assert_eq!(target.health, Health::Working);
}

#[test]
fn udp_without_a_receiver_is_counted_and_goes_on_when_there_is_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let mut target = target(Target::Udp { address }, 20_000);
    for number in 0..10 {
        target.push(&record(number, at(0)), at(0));
    }
    drain(&mut target, at(0));
    let statistics = target.statistics();
    assert_eq!(statistics.sent, 10);
    assert!(statistics.refused > 0);
    let socket = UdpSocket::bind(address).unwrap();
    target.push(&record(10, at(1)), at(1));
    drain(&mut target, at(1));
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).unwrap();
    let datagram = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(datagram.starts_with("<182>1 2026-03-01T12:00:00.001000Z gw nattrail 1 SADD - time="));
    assert_eq!(number(&datagram), Some(10));
}

fn file(path: &Path, queue: usize) -> SyslogTarget {
    target(
        Target::File {
            path: path.to_owned(),
        },
        queue,
    )
}

fn numbers(path: &Path) -> Vec<Option<u32>> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(number).collect()
}

#[test]
fn a_rotated_file_is_left_alone_and_a_new_one_begun() {
    let directory = tempfile::tempdir().unwrap();
    let (path, rotated) = (
        directory.path().join("a.log"),
        directory.path().join("a.log.1"),
    );
    let mut target = file(&path, 20_000);
    target.push(&record(0, at(0)), at(0));
    target.flush(at(0));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    fs::rename(&path, &rotated).unwrap();
    target.push(&record(1, at(1)), at(1));
    target.flush(at(1));
    target.reopen(at(2));
    assert!(path.exists());
    target.push(&record(2, at(2)), at(2));
    target.flush(at(2));
    assert_eq!(numbers(&rotated), [Some(0), Some(1)]);
    assert_eq!(numbers(&path), [Some(2)]);
}

#[test]
fn a_line_torn_by_an_earlier_run_is_ended_before_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.log");
    fs::write(&path, "time=2026-03-01T11:59:59.000Z ev").unwrap();
    let mut target = file(&path, 20_000);
    target.push(&record(0, at(0)), at(0));
    target.flush(at(0));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(
        "time=2026-03-01T11:59:59.000Z ev\ntime=2026-03-01T12:00:00.000Z event=create"
    ));
    assert_eq!(numbers(&path), [None, Some(0)]);
}

#[test]
fn a_file_in_a_missing_directory_is_created_once_the_directory_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("later/a.log");
    let mut target = file(&path, 20_000);
    target.push(&record(0, at(0)), at(0));
    target.flush(at(0));
    assert_eq!(target.health, Health::Failing);
    fs::create_dir(directory.path().join("later")).unwrap();
    drain(&mut target, at(10));
    assert_eq!(numbers(&path), [Some(0)]);
}

#[test]
fn a_named_pipe_without_a_reader_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let status = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(status.success());
    let mut target = file(&path, 20_000);
    target.push(&record(0, at(0)), at(0));
    target.flush(at(0));
    assert_eq!(target.health, Health::Failing);
    // Opened for both, a pipe has its reader without waiting for a writer.
    let mut reader = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    drain(&mut target, at(10));
    let mut buffer = [0; 4096];
    let length = reader.read(&mut buffer).unwrap();
    assert_eq!(number(&String::from_utf8_lossy(&buffer[..length])), Some(0));
}

/// Runs the calling test again as `name`, with a tmpfs of 16 KiB of its own. `None` when this is already that run.
fn on_a_tiny_disk(name: &str) -> Option<()> {
    const DISK: &str = "NATTRAIL_TEST_DISK";
    if std::env::var_os(DISK).is_some() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg("mount -t tmpfs -o size=16k tmpfs \"$NATTRAIL_TEST_DISK\"; exec \"$@\"")
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("export::syslog::tests::{name}"),
            "--nocapture",
        ])
        .env(DISK, directory.path())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: {name} needs root to mount a file system");
        assert!(std::env::var_os("CI").is_none(), "needs root under CI");
        return Some(());
    }
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("1 passed"), "{out}\n{err}");
    Some(())
}

#[test]
fn a_full_disk_keeps_what_fits_the_queue_and_never_joins_lines() {
    if on_a_tiny_disk("a_full_disk_keeps_what_fits_the_queue_and_never_joins_lines").is_some() {
        return;
    }
    let disk = std::env::var_os("NATTRAIL_TEST_DISK").unwrap();
    let disk = Path::new(&disk);
    let (path, ballast) = (disk.join("a.log"), disk.join("ballast"));
    fs::write(&ballast, [0; 8192]).unwrap();
    let mut target = file(&path, 20_000);
    for number in 0..500 {
        target.push(&record(number, at(number.into())), at(number.into()));
        target.flush(at(number.into()));
    }
    assert_eq!(target.health, Health::Failing);
    assert!(target.statistics().dropped > 0);
    assert_balanced(&target.statistics());
    let torn = fs::read_to_string(&path).unwrap();
    assert!(
        !torn.ends_with('\n'),
        "the disk was meant to end inside a line"
    );

    // Room again: the line goes on where it stopped. The next room, in another file, begins a new one.
    fs::remove_file(&ballast).unwrap();
    target.flush(at(10_000));
    let rotated = fs::read_to_string(&path).unwrap();
    assert!(rotated.starts_with(&torn));
    assert!(rotated.len() > torn.len());
    let written = rotated.lines().count();
    assert!(
        rotated
            .lines()
            .take(written - 1)
            .all(|line| number(line).is_some())
    );
    fs::remove_file(&path).unwrap();
    target.reopen(at(20_000));
    drain(&mut target, at(20_000));

    let text = fs::read_to_string(&path).unwrap();
    let statistics = target.statistics();
    let whole = rotated
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    let recorded = whole
        .chain(text.lines())
        .filter(|line| number(line).is_some())
        .count();
    assert_eq!(recorded as u64, statistics.sent);
    assert_eq!(
        text.lines().filter_map(lost).sum::<u64>(),
        statistics.dropped
    );
    assert_eq!(statistics.sent + statistics.dropped, 500);
    assert_eq!(target.health, Health::Working);
}

#[test]
fn a_pipe_that_nobody_reads_does_not_block() {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut target = stdout(writer.into(), 20_000);
    for number in 0..5000 {
        target.push(&record(number, at(0)), at(0));
        target.flush(at(0));
    }
    let statistics = target.statistics();
    assert!(statistics.dropped > 0);
    assert_balanced(&statistics);
    // Whoever reads later gets whole lines and the statement.
    let mut text = Vec::new();
    let mut buffer = [0; 65536];
    let mut millis = 0;
    while !target.is_idle() {
        let length = reader.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..length]);
        millis += 1000;
        target.flush(at(millis));
    }
    drop(target);
    reader.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let received = text.lines().filter(|line| number(line).is_some()).count();
    assert_eq!(received as u64 + statistics.dropped, 5000);
    assert_eq!(
        text.lines().filter_map(lost).sum::<u64>(),
        statistics.dropped
    );
}

#[test]
fn a_stream_socket_as_standard_output_works_too() {
    let (mut reader, writer) = UnixStream::pair().unwrap();
    let mut target = stdout(writer.into(), 20_000);
    target.push(&record(7, at(0)), at(0));
    target.flush(at(0));
    drop(target);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(number(&text), Some(7));
}

#[test]
fn a_closed_pipe_ends_the_target() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut target = stdout(writer.into(), 20_000);
    for number in 0..3 {
        target.push(&record(number, at(0)), at(0));
        target.flush(at(0));
    }
    assert_eq!(target.health, Health::Ended);
    assert_eq!(target.statistics().failed, 3);
    assert_eq!(target.statistics().errors, 1);
}

fn stdout(fd: OwnedFd, queue: usize) -> SyslogTarget {
    let transport = Transport::Stdout(Stdout::new(Ok(fd)));
    SyslogTarget::with_transport(&config(Target::Stdout, queue), &host(), transport)
}
