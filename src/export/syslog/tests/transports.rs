//! A target and each of its transports against real sockets, files, pipes and a full disk.

use std::fs;
use std::io::{self, Read as _};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;

use rustix::pty::OpenptFlags;

use super::super::super::transport::Stdout;
use super::*;

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
    assert_balanced(&target);

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
fn a_reopen_connects_to_whoever_has_the_name_now() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let before = bind(&path);
    let mut target = local(&path, 20_000);
    target.push(&record(0, at(0)), at(0));
    target.flush(at(0));
    fs::remove_file(&path).unwrap();
    let after = bind(&path);
    target.reopen(at(1));
    target.push(&record(1, at(1)), at(1));
    target.flush(at(1));
    assert_eq!(
        (receive_all(&before).len(), receive_all(&after).len()),
        (1, 1)
    );
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
    // The umask may take the group's right away.
    assert_eq!(mode & 0o737, 0o600, "{mode:o}");
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
    target.push(&record(1, at(1)), at(1));
    target.flush(at(1));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(
        "time=2026-03-01T11:59:59.000Z ev\ntime=2026-03-01T12:00:00.000Z event=create"
    ));
    assert_eq!(numbers(&path), [None, Some(0), Some(1)]);
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
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: {name} needs root to mount a file system");
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "needs root under CI"
        );
        return Some(());
    }
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg("mount -t tmpfs -o size=16k tmpfs \"$NATTRAIL_TEST_DISK\"; exec \"$@\"")
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("export::syslog::tests::transports::{name}"),
            "--nocapture",
        ])
        .env(DISK, directory.path())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
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
    assert_balanced(&target);
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
    assert!(
        !rotated.ends_with('\n'),
        "the disk was meant to end inside a line"
    );
    assert!(text.lines().all(|line| line.starts_with("time=")), "{text}");
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
    assert_balanced(&target);
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
fn a_terminal_that_nobody_reads_does_not_block() {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    let mut target = stdout(terminal, 1 << 20);
    for number in 0..1000 {
        target.push(&record(number, at(0)), at(0));
    }
    target.flush(at(0));
    let statistics = target.statistics();
    assert!(
        statistics.sent > 0 && statistics.queued > 0,
        "{statistics:?}"
    );
    assert_eq!(statistics.sent + statistics.queued, 1000);
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
    SyslogTarget::with_transport(&config(Target::Stdout), &host(), transport, queue)
}
