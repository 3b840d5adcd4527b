//! An output that gets only some records: the others make no message, and count as taken.

use super::*;
use crate::config::{MarkFilter, Selection};
use crate::session::{GapCause, NatEvent};

const OWN: u32 = 7;

/// An output of the records with the mark [`OWN`].
fn marked(mut scene: Scene) -> Scene {
    scene.output.own = Some(Selection {
        mark: Some(MarkFilter {
            value: OWN,
            mask: u32::MAX,
        }),
        ..Selection::ANY
    });
    scene
}

fn with_mark(number: u32, mark: u32) -> Session {
    Session {
        id: Some(number),
        mark,
        ..snat()
    }
}

fn begun(number: u32, mark: u32) -> Record {
    Record::Event(create(with_mark(number, mark), 1_000))
}

fn ended(number: u32, first: u32, last: u32) -> Record {
    Record::Event(NatEvent {
        first_mark: (first != last).then_some(first),
        ..delete(with_mark(number, last), 1_000, 2_000)
    })
}

fn gap() -> Record {
    Record::Gap(Gap {
        cause: GapCause::Overflow,
        from: Wall::from_millis(1),
        to: Wall::from_millis(2),
        lost: Some(3),
    })
}

/// The kind of event, or "lost", and the id of each line taken.
fn lines_taken(scene: &mut Scene) -> Vec<String> {
    let lines = scene.fake().taken.iter();
    let kinds: Vec<_> = lines
        .map(|line| {
            let line = std::str::from_utf8(line).unwrap();
            ["create", "delete"]
                .into_iter()
                .find(|kind| line.contains(kind))
                .unwrap_or("gap")
        })
        .collect();
    kinds
        .into_iter()
        .zip(scene.taken())
        .map(|(kind, id)| format!("{kind} {id}"))
        .collect()
}

#[test]
fn records_that_are_not_for_it_make_no_message_and_count_as_taken() {
    let others = (10..20).map(|number| begun(number, 1));
    let log = Log::of([begun(1, OWN)].into_iter().chain(others).chain([gap()]));
    let mut scene = marked(Scene::lines(false, log));
    scene.log.append((20..30).map(|number| begun(number, 1)));
    scene.pump(0);
    assert_eq!(lines_taken(&mut scene), ["create 1", "gap lost 3"]);
    assert!(scene.is_settled());
    let position = scene.output.place().position;
    assert_eq!(position, Position::before(scene.log.end()));
    assert_eq!((scene.metrics().records, scene.metrics().lost), (22, 0));
}

#[test]
fn every_delete_has_its_create_whatever_becomes_of_the_mark() {
    let log = Log::of([
        begun(1, OWN),
        begun(2, 1),
        begun(3, 1),
        ended(1, OWN, 1),
        ended(2, 1, OWN),
        ended(3, 1, 2),
    ]);
    let mut scene = marked(Scene::lines(false, log));
    scene.pump(0);
    assert_eq!(
        lines_taken(&mut scene),
        ["create 1", "delete 1", "create 2", "delete 2"]
    );
}

#[test]
fn between_the_create_and_the_delete_of_one_record_is_a_place() {
    let log = Log::of([ended(1, 1, OWN), ended(2, 1, OWN)]);
    let mut scene = marked(Scene::lines(false, log));
    scene.fail_after(1, Failure::Busy);
    scene.pump(0);
    assert_eq!(lines_taken(&mut scene), ["create 1"]);
    let place = scene.output.place();
    assert_eq!(
        place.position,
        Position {
            serial: Serial(1),
            part: 1
        }
    );
    let mut scene = marked(Scene {
        output: lines(false, place),
        log: scene.log,
    });
    scene.pump(0);
    assert_eq!(
        lines_taken(&mut scene),
        ["delete 1", "create 2", "delete 2"]
    );
}

#[test]
fn a_message_to_a_collector_takes_the_records_that_are_not_for_it_along() {
    let log = Log::of([begun(1, OWN), begun(2, 1), ended(3, 1, OWN), begun(4, 1)]);
    let mut scene = marked(Scene::flows(true, &collector(Version::Ipfix), log));
    scene.pump(0);
    let sent = &scene.fake().sent;
    assert_eq!(sent.len(), 1);
    let (_, load) = sent[0];
    assert_eq!(
        load.flow_records, 3,
        "a create, and a create with its delete"
    );
    assert_eq!(load.end, Position::before(Serial(5)));
}
