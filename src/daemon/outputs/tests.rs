//! The place in the log at which an output goes on, over restarts and reloads.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use super::*;
use crate::export::source::PACE;
use crate::session::Record;
use crate::store::record_log::{Reading, RecordLog};
use crate::time::Wall;
use crate::wire::samples::{create, delete, snat, untranslated};

const NEXT: Serial = Serial(100);

fn at_millis(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(1_795_206_288_000 + millis),
        Uptime::from_millis(3_600_000 + millis),
    )
}

fn config(outputs: &str) -> Config {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), outputs).unwrap();
    let loaded = Config::load(Some(file.path()), std::iter::empty());
    loaded.unwrap().config
}

fn host() -> Host {
    Host {
        hostname: "gw".to_owned(),
        pid: 411,
    }
}

/// A place each part of which differs from that of other places.
fn place(serial: u64) -> Place {
    Place {
        position: Position {
            serial: Serial(serial),
            part: 2,
        },
        port: 50_000 + serial as u16,
        sequence: 7_000 + serial as u32,
        missing: Some(Missing {
            count: serial,
            since: Wall::from_secs(1),
            until: Wall::from_secs(2),
        }),
        refused: false,
    }
}

fn outputs(configuration: &str, places: Places, session: WireSession) -> Outputs {
    let now = at_millis(0);
    Outputs::new(&config(configuration), host(), places, session, NEXT, now)
}

/// The places of the outputs of a configuration, from first to last, after a planned restart.
fn continued(configuration: &str, places: &[(&str, u64)]) -> Vec<Place> {
    let places = places
        .iter()
        .map(|(key, serial)| ((*key).to_owned(), place(*serial)));
    let outputs = outputs(configuration, places.collect(), WireSession::Continued);
    outputs.places().map(|(_, place)| place).collect()
}

const IPFIX: &str =
    "[[collector]]\naddress = \"127.0.0.1:2055\"\nversion = \"ipfix\"\nobservation-domain = 7\n";
const V9: &str =
    "[[collector]]\naddress = \"127.0.0.1:2055\"\nversion = \"v9\"\nobservation-domain = 7\n";
const NAMED: &str = "[[collector]]\nname = \"a\"\naddress = \"127.0.0.1:2055\"\n";
const OF_IPFIX: &str = "collector to 127.0.0.1:2055 as ipfix 7";
const OF_NAMED: &str = "collector a as 127.0.0.1:2055 ipfix 1";
const OF_V9: &str = "collector to 127.0.0.1:2055 as v9 7";

#[test]
fn an_output_goes_on_where_it_stood_with_its_port_and_sequence() {
    for (configuration, key) in [(IPFIX, OF_IPFIX), (V9, OF_V9), (NAMED, OF_NAMED)] {
        assert_eq!(continued(configuration, &[(key, 5)]), [place(5)], "{key}");
    }
}

#[test]
fn a_new_wire_session_keeps_the_place_in_the_log_and_what_is_missing() {
    let places = vec![(OF_IPFIX.to_owned(), place(5))];
    let outputs = outputs(IPFIX, places, WireSession::New);
    let places: Vec<_> = outputs.places().map(|(_, place)| place).collect();
    assert_eq!(places, [without_session(place(5))]);
}

#[test]
fn an_output_that_nobody_knows_begins_with_the_next_record() {
    let other = OF_NAMED.replace("collector a", "collector b");
    assert_eq!(continued(NAMED, &[(&other, 5)]), [at(NEXT)]);
}

#[test]
fn another_address_of_the_same_name_goes_on_in_a_new_wire_session() {
    let elsewhere = OF_NAMED.replace("127.0.0.1", "127.0.0.9");
    assert_eq!(
        continued(NAMED, &[(&elsewhere, 5)]),
        [without_session(place(5))]
    );
}

#[test]
fn another_version_at_the_same_destination_goes_on_in_a_new_wire_session() {
    assert_eq!(continued(V9, &[(OF_IPFIX, 5)]), [without_session(place(5))]);
}

/// In either order, the new one does not take the place of one that is still there.
#[test]
fn one_more_output_at_the_same_destination_costs_the_other_nothing() {
    assert_eq!(
        continued(&[V9, IPFIX].concat(), &[(OF_IPFIX, 5)]),
        [at(NEXT), place(5)]
    );
    assert_eq!(
        continued(&[IPFIX, V9].concat(), &[(OF_IPFIX, 5)]),
        [place(5), at(NEXT)]
    );
    assert_eq!(
        continued(&[V9, IPFIX].concat(), &[(OF_IPFIX, 5), (OF_V9, 6)]),
        [place(6), place(5)]
    );
}

#[test]
fn a_copy_with_another_format_goes_on_too() {
    let copy = "[[syslog]]\ntarget = \"udp\"\naddress = \"127.0.0.1:514\"\nformat = \"json\"\n";
    let places = continued(copy, &[("copy to 127.0.0.1:514 as Text 22 6 nattrail", 5)]);
    assert_eq!(
        places[0].position,
        Position::before(place(5).position.serial)
    );
}

/// A log and the outputs that follow it, over reloads.
struct Scene {
    log: RecordLog,
    outputs: Outputs,
}

impl Scene {
    fn new(configuration: &str) -> Self {
        let outputs = outputs(configuration, Places::new(), WireSession::New);
        Self {
            log: RecordLog::new(NEXT),
            outputs,
        }
    }

    fn push(&mut self, count: usize) {
        for _ in 0..count {
            self.log.push(&Record::Event(create(snat(), 1_000)));
        }
        self.log.close_block();
        assert_eq!(self.log.handle_not_stored(NEXT, PACE), None);
    }

    fn pump(&mut self, millis: u64) {
        let mut reading = Reading {
            log: &mut self.log,
            store: None,
        };
        self.outputs.pump(&mut reading, at_millis(millis));
        assert_eq!(self.outputs.take_lost().next(), None);
    }

    fn reload(&mut self, configuration: &str, millis: u64) {
        let next = self.log.next();
        let mut reading = Reading {
            log: &mut self.log,
            store: None,
        };
        let (config, now) = (config(configuration), at_millis(millis));
        self.outputs.reconfigure(&config, next, &mut reading, now);
    }

    fn places(&self) -> Vec<Place> {
        self.outputs.places().map(|(_, place)| place).collect()
    }
}

fn receiver() -> (std::net::UdpSocket, String) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let wait = Some(Duration::from_secs(10));
    socket.set_read_timeout(wait).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, format!("[[collector]]\naddress = \"{address}\"\n"))
}

fn received(socket: &std::net::UdpSocket) -> (u32, std::net::SocketAddr) {
    let mut bytes = [0; 9000];
    let (_, from) = socket.recv_from(&mut bytes).unwrap();
    (u32::from_be_bytes(bytes[8..12].try_into().unwrap()), from)
}

#[test]
fn a_reload_that_changes_an_output_keeps_its_place_port_and_sequence() {
    let (socket, collector) = receiver();
    let mut scene = Scene::new(&collector);
    scene.push(3);
    scene.pump(0);
    scene.pump(2_000);
    let (first, from) = received(&socket);
    assert_eq!(first, 0);

    // One more record is in hand when the configuration changes.
    scene.push(1);
    scene.pump(2_001);
    scene.reload(
        &format!("{collector}mtu = 1400\nexport-delay = \"10ms\"\n"),
        2_002,
    );
    scene.push(1);
    scene.pump(2_003);
    scene.pump(3_000);
    let metrics = &scene.outputs.metrics(scene.log.readable())[0];
    assert_eq!((metrics.records, metrics.behind, metrics.lost), (5, 0, 0));
    assert_eq!(metrics.flow_records, 5);
    let mut expected = 4;
    while expected < scene.places()[0].sequence {
        // Flow records and the statistics.
        let (sequence, again) = received(&socket);
        assert_eq!((sequence, again), (expected, from));
        expected += if sequence == 4 { 1 } else { 2 };
    }
}

#[test]
fn a_reload_changes_the_selection_of_an_output_at_its_place() {
    let (socket, collector) = receiver();
    let mut scene = Scene::new(&collector);
    scene.push(3);
    scene.pump(0);
    scene.pump(2_000);
    assert_eq!(received(&socket).0, 0);
    let metrics = |scene: &Scene| scene.outputs.metrics(scene.log.readable())[0].clone();
    for (selection, flow_records) in [("zone = 9\n", 3), ("zone = 0\n", 6)] {
        scene.reload(&format!("{collector}{selection}"), 2_001);
        scene.push(3);
        scene.pump(2_002);
        scene.pump(4_000);
        assert_eq!(metrics(&scene).flow_records, flow_records, "{selection}");
        assert_eq!((metrics(&scene).behind, metrics(&scene).lost), (0, 0));
    }
    assert_eq!(metrics(&scene).records, 9);
    assert_eq!(metrics(&scene).selection, "log=nat zone=0");
}

#[test]
fn an_output_does_not_get_what_another_one_selected_that_a_reload_removed() {
    let (_socket, auditors) = receiver();
    let traffic = "[[syslog]]\ntarget = \"file\"\npath = \"/dev/null\"\nlog = \"all\"\n";
    let mut scene = Scene::new(&format!("{auditors}{traffic}"));
    scene.reload(&auditors, 1);
    scene
        .log
        .push(&Record::Event(delete(untranslated(), 1_000, 2_000)));
    scene.push(1);
    scene.pump(2);
    scene.pump(2_000);
    let metrics = &scene.outputs.metrics(scene.log.readable())[0];
    assert_eq!((metrics.records, metrics.flow_records), (2, 1));
}

#[test]
fn a_reload_to_other_kinds_of_records_goes_on_at_the_beginning_of_a_record() {
    let part = Position {
        serial: NEXT,
        part: 1,
    };
    for (kinds, expected) in [
        ("[\"events\", \"triplet\"]", part),
        ("[\"triplet\"]", Position::before(NEXT)),
    ] {
        let with = |kinds| format!("{NAMED}records = {kinds}\n");
        let mut scene = Scene::new("");
        let mut place = place(NEXT.0);
        place.position = part;
        let places = vec![(OF_NAMED.to_owned(), place)];
        let both = with("[\"events\", \"triplet\"]");
        scene.outputs = outputs(&both, places, WireSession::Continued);
        scene.reload(&format!("{}mtu = 1400\n", with(kinds)), 1);
        assert_eq!(scene.places()[0].position, expected, "{kinds}");
    }
}

#[test]
fn a_reload_to_another_version_begins_a_new_wire_session_at_the_same_place() {
    let (socket, collector) = receiver();
    let mut scene = Scene::new(&collector);
    scene.push(3);
    scene.pump(0);
    scene.pump(2_000);
    let (_, from) = received(&socket);
    scene.reload(&format!("{collector}observation-domain = 9\n"), 2_001);
    let place = scene.places()[0];
    assert_eq!(
        (place.position, place.sequence),
        (Position::before(scene.log.next()), 0)
    );
    scene.push(1);
    scene.pump(2_002);
    scene.pump(4_000);
    let (sequence, again) = received(&socket);
    assert_eq!(sequence, 0);
    assert_ne!(again.port(), from.port());
}

#[test]
fn a_reload_with_one_more_output_at_the_same_destination_costs_the_other_nothing() {
    let mut scene = Scene::new(IPFIX);
    scene.push(3);
    let before = scene.places();
    scene.reload(&[V9, IPFIX].concat(), 1);
    assert_eq!(scene.places(), [at(scene.log.next()), before[0]]);
}

#[test]
fn the_log_is_needed_from_the_place_of_the_last_output_on() {
    let mut scene = Scene::new(IPFIX);
    scene.push(3);
    assert_eq!(scene.outputs.needed(scene.log.next()), NEXT);
}

#[test]
fn the_log_keeps_what_the_archive_has_not_taken_until_it_is_forgotten() {
    let mut outputs = outputs("", Places::new(), WireSession::New);
    let taken = |outputs: &mut Outputs, serial| {
        outputs.handle_archived(Serial(serial), Serial(200), at_millis(0))
    };
    let copies = outputs.places().count();
    taken(&mut outputs, 150).unwrap();
    let (key, archive) = outputs.places().last().unwrap();
    assert_eq!(
        (key, archive.position),
        ("archive", Position::before(Serial(150)))
    );
    taken(&mut outputs, 50).unwrap();
    assert_eq!(outputs.needed(Serial(200)), Serial(50));
    let refused = taken(&mut outputs, 201).unwrap_err();
    assert!(
        refused.contains("records before 200; found it at 201"),
        "{refused}"
    );
    outputs.forget_archive();
    assert_eq!(outputs.places().count(), copies);
    assert_eq!(outputs.needed(Serial(200)), NEXT);
}

#[test]
fn the_archive_goes_on_after_a_restart_and_counts_what_the_log_gave_up() {
    let places = vec![("archive".to_owned(), place(40))];
    let mut outputs = outputs("", places, WireSession::New);
    let (_, archive) = outputs.places().last().unwrap();
    assert_eq!(archive.position, Position::before(Serial(40)));
    assert_eq!(archive.missing.unwrap().count, 40);
    outputs.handle_evicted(&Span {
        first: Serial(70),
        end: Serial(90),
        since: Wall::from_secs(3),
        until: Wall::from_secs(4),
    });
    let (_, archive) = outputs.places().last().unwrap();
    let missing = archive.missing.unwrap();
    assert_eq!((missing.count, missing.until), (50, Wall::from_secs(4)));
    let lost: u64 = outputs.take_lost().map(|(missing, _)| missing.count).sum();
    assert_eq!(lost, 10);
    outputs
        .handle_archived(Serial(95), Serial(100), at_millis(0))
        .unwrap();
    let metrics = outputs.metrics(Serial(100)).pop().unwrap();
    assert_eq!((metrics.records, metrics.behind, metrics.lost), (5, 5, 10));
}
