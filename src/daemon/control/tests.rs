//! The real socket under clients of every kind, with time injected: nothing here waits.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as Peer;
use std::path::PathBuf;
use std::time::Duration;

use mio::{Events, Poll};
use tempfile::TempDir;

use super::super::exchange::{ACCEPTS, PATIENCE};
use super::*;
use crate::time::Wall;

mod viewers;

const FIRST: Token = Token(3);

struct Scene {
    directory: TempDir,
    poll: Poll,
    control: Control,
    millis: u64,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let poll = Poll::new().unwrap();
        let path = directory.path().join("run/control.sock");
        let control = Control::open(&path, poll.registry(), FIRST).unwrap();
        Self {
            directory,
            poll,
            control,
            millis: 1_000,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("run/control.sock")
    }

    fn now(&self) -> Now {
        Now::new(
            Wall::from_millis(self.millis),
            Uptime::from_millis(self.millis),
        )
    }

    fn connect(&self) -> Peer {
        let peer = Peer::connect(self.path()).unwrap();
        peer.set_nonblocking(true).unwrap();
        peer
    }

    /// One turn of the loop, which answers every request with `answer`.
    fn turn(&mut self, answer: &str) -> usize {
        let mut ready = Events::with_capacity(64);
        self.poll.poll(&mut ready, Some(Duration::ZERO)).unwrap();
        for event in &ready {
            self.control.handle_ready(event.token());
        }
        let now = self.now();
        self.control.handle_timeout(self.poll.registry(), now);
        let waiting = self.control.server.waiting();
        let asking = waiting
            .filter(|wanted| matches!(wanted, Wanted::Status))
            .count();
        assert_eq!(self.control.wants_status(), asking > 0);
        self.control.handle_status(answer);
        asking
    }

    fn clients(&self) -> usize {
        self.control.server.clients.iter().flatten().count()
    }
}

/// Everything there is to read, and whether more will come.
fn heard(mut peer: &Peer) -> (String, bool) {
    let mut bytes = Vec::new();
    let ended = match peer.read_to_end(&mut bytes) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    (String::from_utf8(bytes).unwrap(), ended)
}

#[test]
fn a_request_is_answered_with_one_line_and_the_end() {
    let mut scene = Scene::new();
    let mut peer = scene.connect();
    peer.write_all(b"status\n").unwrap();
    assert_eq!(scene.turn("{}"), 1);
    assert_eq!(heard(&peer), ("{}\n".to_owned(), true));
    assert_eq!(scene.clients(), 0);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut scene = Scene::new();
    let mut peer = scene.connect();
    for byte in b"status" {
        peer.write_all(&[*byte]).unwrap();
        assert_eq!(scene.turn("{}"), 0);
    }
    peer.write_all(b"\n").unwrap();
    assert_eq!(scene.turn("{}"), 1);
    assert_eq!(heard(&peer), ("{}\n".to_owned(), true));
}

#[test]
fn a_request_may_end_with_the_stream() {
    let mut scene = Scene::new();
    let mut peer = scene.connect();
    peer.write_all(b"status").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(scene.turn("{}"), 1);
    assert_eq!(heard(&peer), ("{}\n".to_owned(), true));
}

#[test]
fn garbage_is_answered_with_an_error() {
    let mut scene = Scene::new();
    let requests: [&[u8]; 4] = [b"\n", b"stat\n", b"\xff\x00\"\\\n", b"status status\n"];
    for request in requests {
        let mut peer = scene.connect();
        peer.write_all(request).unwrap();
        assert_eq!(scene.turn("{}"), 0);
        let (text, ended) = heard(&peer);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let message = value["error"].as_str().unwrap();
        assert!(
            message.starts_with(
                "expected \"status\", \"tail\", \"archived\" or \"checkpoint\", found "
            ),
            "{message}"
        );
        assert!(ended);
    }
    assert_eq!(scene.clients(), 0);
}

#[test]
fn the_archive_says_how_far_it_is_and_hears_that_it_was_understood() {
    let mut scene = Scene::new();
    for (request, next, answer) in [
        ("archived 7\n", Some(Serial(7)), "{\"archived\":7}\n"),
        ("archived never\n", None, "{\"archived\":null}\n"),
    ] {
        let mut peer = scene.connect();
        peer.write_all(request.as_bytes()).unwrap();
        scene.turn("{}");
        let mut heard_by_daemon = Vec::new();
        scene.control.handle_archive(|word| {
            let Word::Archived(next) = word else { panic!() };
            heard_by_daemon.push(next);
            Ok(())
        });
        assert_eq!(heard_by_daemon, [next]);
        assert_eq!(heard(&peer), (answer.to_owned(), true));
    }
    let mut peer = scene.connect();
    peer.write_all(b"archived 8\n").unwrap();
    scene.turn("{}");
    scene.control.handle_archive(|_| Err("too far".to_owned()));
    assert_eq!(heard(&peer).0, "{\"error\":\"too far\"}\n");
    assert_eq!(scene.clients(), 0);
}

#[test]
fn a_checkpoint_of_the_archive_is_taken_only_if_it_is_one() {
    let mut scene = Scene::new();
    let base64 = |octets: usize| format!("{}{}=", "A".repeat(octets.div_ceil(3) * 4 - 2), "A");
    let right = format!("nattrail/gw1 26 {} {}", base64(32), base64(68));
    for (words, is_taken) in [
        (right.clone(), true),
        (right.replace("gw1", "gw\u{7}1"), false),
        (right.replace(" 26 ", " 26"), false),
        (right.replace("= ", "A= "), false),
        (right.replace("gw1", &"g".repeat(250)), false),
        (String::new(), false),
    ] {
        let mut peer = scene.connect();
        peer.write_all(format!("checkpoint {words}\n").as_bytes())
            .unwrap();
        scene.turn("{}");
        let mut taken = Vec::new();
        scene.control.handle_archive(|word| {
            taken.push(word);
            Ok(())
        });
        assert_eq!(taken.len(), usize::from(is_taken), "{words}");
        let answer = heard(&peer).0;
        assert_eq!(answer == "{\"checkpoint\":26}\n", is_taken, "{answer}");
    }
}

#[test]
fn a_flood_of_garbage_is_read_no_further_than_the_limit() {
    let mut scene = Scene::new();
    let mut peer = scene.connect();
    // The request is as long as the kernel takes.
    while peer.write(&[b'x'; 4096]).is_ok() {}
    scene.turn("{}");
    let (text, ended) = heard(&peer);
    assert_eq!(
        text,
        "{\"error\":\"expected a line of at most 1024 bytes\"}\n"
    );
    assert!(ended);
    assert_eq!(scene.clients(), 0);
}

#[test]
fn a_client_that_says_nothing_is_closed_after_five_seconds() {
    let mut scene = Scene::new();
    let peer = scene.connect();
    scene.turn("{}");
    let deadline = scene.now().up.saturating_add(PATIENCE);
    assert_eq!(scene.control.poll_timeout(), Some(deadline));
    scene.millis += 4_999;
    scene.turn("{}");
    assert_eq!(heard(&peer), (String::new(), false));
    scene.millis += 1;
    scene.turn("{}");
    assert_eq!(heard(&peer), (String::new(), true));
    assert_eq!(scene.control.poll_timeout(), None);
}

#[test]
fn a_client_that_never_reads_costs_one_answer_and_five_seconds() {
    let mut scene = Scene::new();
    let mut peer = scene.connect();
    peer.write_all(b"status\n").unwrap();
    // The answer exceeds the kernel's buffer of a socket.
    let long = "x".repeat(ANSWER_LIMIT - 1);
    assert_eq!(scene.turn(&long), 1);
    assert_eq!(scene.clients(), 1);
    for _ in 0..3 {
        assert_eq!(scene.turn(&long), 0);
    }
    scene.millis += 5_000;
    scene.turn(&long);
    assert_eq!(scene.clients(), 0);
}

#[test]
fn a_slow_reader_gets_a_long_answer_whole() {
    let mut scene = Scene::new();
    let mut peer = scene.connect();
    peer.write_all(b"status\n").unwrap();
    let long = "x".repeat(ANSWER_LIMIT - 1);
    scene.turn(&long);
    let mut read = String::new();
    for _ in 0..1_000 {
        let (text, ended) = heard(&peer);
        read += &text;
        if ended {
            break;
        }
        scene.turn(&long);
    }
    assert_eq!(read, long + "\n");
}

#[test]
fn an_answer_beyond_the_limit_is_replaced_by_an_error() {
    let mut scene = Scene::new();
    let mut peer = scene.connect();
    peer.write_all(b"status\n").unwrap();
    scene.turn(&"x".repeat(ANSWER_LIMIT));
    let (text, _) = heard(&peer);
    assert_eq!(
        text,
        "{\"error\":\"the answer would be longer than 1 MiB\"}\n"
    );
}

#[test]
fn a_client_that_goes_before_its_answer_is_forgotten() {
    let mut scene = Scene::new();
    let mut peer = scene.connect();
    peer.write_all(b"status\n").unwrap();
    drop(peer);
    assert_eq!(scene.turn("{}"), 1);
    let silent = scene.connect();
    scene.turn("{}");
    drop(silent);
    scene.turn("{}");
    assert_eq!(scene.clients(), 0);
}

#[test]
fn of_a_hundred_at_once_sixteen_are_served_and_the_others_closed() {
    let mut scene = Scene::new();
    // The backlog is shorter than a hundred.
    let mut peers: Vec<Peer> = (0..50).map(|_| scene.connect()).collect();
    scene.turn("{}");
    scene.turn("{}");
    peers.extend((0..50).map(|_| scene.connect()));
    for _ in 0..2 {
        scene.turn("{}");
        assert_eq!(scene.clients(), CLIENTS);
    }
    let closed = peers.iter().filter(|peer| heard(peer).1).count();
    assert_eq!(closed, 100 - CLIENTS);
    // The first ones are served all the same, and then there is room again.
    for mut peer in &peers[..CLIENTS] {
        peer.write_all(b"status\n").unwrap();
    }
    assert_eq!(scene.turn("{}"), CLIENTS);
    let mut late = scene.connect();
    late.write_all(b"status\n").unwrap();
    assert_eq!(scene.turn("{}"), 1);
    assert_eq!(heard(&late), ("{}\n".to_owned(), true));
}

#[test]
fn connections_beyond_those_of_one_turn_need_no_new_event() {
    let mut scene = Scene::new();
    let _peers: Vec<Peer> = (0..ACCEPTS + 1).map(|_| scene.connect()).collect();
    scene.turn("{}");
    assert_eq!(scene.control.poll_timeout(), Some(Uptime::default()));
    scene
        .control
        .handle_timeout(scene.poll.registry(), scene.now());
    assert_ne!(scene.control.poll_timeout(), Some(Uptime::default()));
}

#[test]
fn the_socket_and_a_directory_made_for_it_are_closed_to_others() {
    let scene = Scene::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&scene.path()), 0o660);
    assert_eq!(mode(scene.path().parent().unwrap()), 0o750);
}

#[test]
fn a_directory_that_is_there_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let (_file, _listener) = SocketFile::bind(&directory.path().join("s")).unwrap();
    let mode = fs::metadata(directory.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o711);
}

#[test]
fn the_file_goes_with_the_socket() {
    let scene = Scene::new();
    let path = scene.path();
    drop(scene.control);
    assert!(!path.exists());
}

#[test]
fn a_socket_of_a_dead_daemon_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    // std leaves the file behind, as a killed daemon does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let (_file, _listener) = SocketFile::bind(&path).unwrap();
    Peer::connect(&path).unwrap();
}

#[test]
fn a_socket_of_a_living_daemon_is_left_alone_also_when_it_does_not_accept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let (_file, _listener) = SocketFile::bind(&path).unwrap();
    let taken = || SocketFile::bind(&path).is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
    // Each attempt takes a place in the backlog, which nobody empties here.
    for _ in 0..100 {
        assert!(taken());
    }
}

#[test]
fn another_file_is_not_removed_for_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    fs::write(&path, "precious").unwrap();
    let error = SocketFile::bind(&path).unwrap_err();
    assert!(error.to_string().contains("found another file"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no/such/s");
    let message = SocketFile::bind(&path).unwrap_err().to_string();
    assert!(
        message.starts_with("cannot make its directory \""),
        "{message}"
    );
    assert!(message.contains("no/such\": No such file"), "{message}");
}
