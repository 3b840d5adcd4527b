//! Viewers of every kind, even those that do not read or that send unasked.

use super::*;
use crate::export::view::QUEUE_LIMIT;
use crate::session::{NatEvent, Protocol, Provenance, Session, Tuple, Zone};

const BEGIN: &str = "{\"tail\":\"begin\"}\n";

fn record(protocol: Protocol) -> Record {
    let tuple = |port| Tuple {
        src: [10, 1, 2, 3].into(),
        dst: [198, 51, 100, 7].into(),
        src_port: port,
        dst_port: 443,
    };
    Record::Event(NatEvent::create(
        Session {
            original: tuple(40_000),
            reply: tuple(50_001),
            protocol,
            zone: Zone::default(),
            id: None,
            mark: 0,
        },
        Wall::default(),
        Provenance::Kernel,
    ))
}

impl Scene {
    /// A viewer that has got its first line.
    fn viewer(&mut self, words: &str) -> Peer {
        let mut peer = self.connect();
        peer.write_all(format!("tail{words}\n").as_bytes()).unwrap();
        assert_eq!(self.turn(""), 0);
        assert_eq!(heard(&peer), (BEGIN.to_owned(), false));
        peer
    }

    /// One turn with `count` events of the protocol.
    fn events(&mut self, protocol: Protocol, count: usize) {
        for _ in 0..count {
            self.control.show(&record(protocol), self.now());
        }
        self.turn("");
    }

    /// Everything that waits for the viewer, which reads until nothing more comes.
    fn read(&mut self, peer: &Peer) -> Vec<serde_json::Value> {
        let mut read = String::new();
        loop {
            let (text, ended) = heard(peer);
            assert!(!ended);
            if text.is_empty() {
                break;
            }
            read += &text;
            self.turn("");
        }
        read.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Turns with more records than the viewers' sockets and queues hold.
    fn flood(&mut self) {
        for _ in 0..10 {
            self.events(Protocol::TCP, 1_000);
        }
    }
}

#[test]
fn each_viewer_gets_what_it_asked_for() {
    let mut scene = Scene::new();
    assert!(!scene.control.is_watched());
    let all = scene.viewer("");
    let udp = scene.viewer(" proto=udp");
    assert!(scene.control.is_watched());
    scene.events(Protocol::TCP, 2);
    scene.events(Protocol::UDP, 1);
    assert_eq!(scene.read(&all).len(), 3);
    let [line] = scene.read(&udp).try_into().unwrap();
    assert_eq!(line["proto"], "udp");
    assert_eq!(scene.control.poll_timeout(), None);
}

#[test]
fn a_filter_that_is_wrong_is_answered_with_what_was_expected() {
    let mut scene = Scene::new();
    let mut peer = scene.connect();
    peer.write_all(b"tail proto=tcp host=1.2.3.4\n").unwrap();
    scene.turn("");
    let (text, ended) = heard(&peer);
    assert!(
        text.starts_with("{\"error\":\"expected src, dst,"),
        "{text}"
    );
    assert!(ended);
    assert!(!scene.control.is_watched());
}

#[test]
fn a_viewer_that_ends_its_sending_goes_on_viewing() {
    let mut scene = Scene::new();
    let peer = scene.viewer("");
    peer.shutdown(Shutdown::Write).unwrap();
    scene.turn("");
    scene.events(Protocol::TCP, 1);
    assert_eq!(scene.read(&peer).len(), 1);
}

#[test]
fn a_viewer_that_goes_is_forgotten_also_while_nothing_happens() {
    let mut scene = Scene::new();
    let peer = scene.viewer("");
    drop(peer);
    scene.turn("");
    assert!(!scene.control.is_watched());
}

#[test]
fn a_viewer_stays_for_longer_than_the_patience_of_a_request() {
    let mut scene = Scene::new();
    let peer = scene.viewer("");
    scene.millis += 3_600_000;
    scene.events(Protocol::TCP, 1);
    assert_eq!(scene.read(&peer).len(), 1);
}

#[test]
fn what_a_viewer_sends_after_its_request_is_never_read() {
    let mut scene = Scene::new();
    let mut peer = scene.viewer("");
    let mut sent = 0;
    while let Ok(count) = peer.write(&[b'x'; 4096]) {
        sent += count;
        assert!(sent < 1 << 24);
        scene.turn("");
    }
    scene.events(Protocol::TCP, 1);
    assert_eq!(scene.read(&peer).len(), 1);
}

#[test]
fn one_that_does_not_read_is_told_what_it_missed_when_it_does() {
    let mut scene = Scene::new();
    let slow = scene.viewer("");
    let quick = scene.viewer("");
    for _ in 0..9 {
        scene.events(Protocol::TCP, 1_000);
        assert_eq!(scene.read(&quick).len(), 1_000);
    }
    // The daemon does not try again and again.
    assert_eq!(scene.control.poll_timeout(), None);
    let (mut shown, mut missed) = (0, 0);
    for line in scene.read(&slow) {
        match line["lost"].as_u64() {
            Some(lost) => missed += lost,
            None => shown += 1,
        }
    }
    assert!(missed > 0);
    assert_eq!(shown + missed, 9_000);
}

#[test]
fn what_waits_for_viewers_is_bounded() {
    let mut scene = Scene::new();
    let _viewers: Vec<Peer> = (0..VIEWERS).map(|_| scene.viewer("")).collect();
    for _ in 0..2 {
        scene.millis += 1_000;
        scene.flood();
    }
    for client in scene.control.server.clients.iter().flatten() {
        let Phase::Waiting(Wanted::Records(viewer)) = &client.phase else {
            panic!("{client:?}")
        };
        assert!(viewer.view.contiguous().len() <= QUEUE_LIMIT);
    }
}

#[test]
fn a_ninth_viewer_is_refused_while_the_others_read_and_status_is_answered() {
    let mut scene = Scene::new();
    let viewers: Vec<Peer> = (0..VIEWERS).map(|_| scene.viewer("")).collect();
    scene.millis += 3_600_000;
    scene.events(Protocol::TCP, 1);
    let mut ninth = scene.connect();
    ninth.write_all(b"tail\n").unwrap();
    scene.turn("");
    let (text, ended) = heard(&ninth);
    assert!(
        text.starts_with("{\"error\":\"8 others are viewing"),
        "{text}"
    );
    assert!(ended);
    for viewer in &viewers {
        assert_eq!(scene.read(viewer).len(), 1);
    }
    let mut asking = scene.connect();
    asking.write_all(b"status\n").unwrap();
    assert_eq!(scene.turn("{}"), 1);
    assert_eq!(heard(&asking), ("{}\n".to_owned(), true));
}

#[test]
fn who_has_read_nothing_for_a_minute_makes_room_for_another() {
    let mut scene = Scene::new();
    let viewers: Vec<Peer> = (0..VIEWERS).map(|_| scene.viewer("")).collect();
    scene.flood();
    for viewer in &viewers[1..] {
        scene.read(viewer);
    }
    scene.turn("");
    scene.millis += 59_999;
    let mut early = scene.connect();
    early.write_all(b"tail\n").unwrap();
    scene.turn("");
    assert!(heard(&early).0.contains("others are viewing"));
    scene.millis += 1;
    scene.viewer("");
    // The data that the kernel had taken for it can still be read, then the end.
    assert!(heard(&viewers[0]).1);
    assert!(!heard(&viewers[1]).1);
}

#[test]
fn a_daemon_that_stops_says_so_to_who_has_read_the_rest() {
    let mut scene = Scene::new();
    let [reading, stuck] = [scene.viewer(""), scene.viewer("")];
    scene.flood();
    scene.read(&reading);
    let now = scene.now();
    scene.control.farewell(now);
    let (text, _) = heard(&reading);
    assert!(text.ends_with("{\"tail\":\"end\"}\n"), "{text}");
    drop(scene);
    assert!(!heard(&stuck).0.contains("{\"tail\":\"end\"}"));
}
