//! A window of aggregated flows is all or nothing in the log.

use proptest::prelude::*;

use super::*;
use crate::session::NatEvent;
use crate::wire::samples::totals;

/// Longer than any test but those of its end.
const WINDOW: u64 = 60_000;

/// An output of NetFlow v5. A rule makes all sources alike; the destinations stay apart.
fn aggregated(is_udp: bool, log: Log, place: Place) -> Scene {
    let collector = config::Collector {
        events: false,
        flow: true,
        aggregation: vec!["10.0.0.0/8=8".parse().unwrap()],
        ..collector(Version::NetflowV5)
    };
    let encoder = Encoder::of_collector(&collector, at(0));
    Scene {
        output: with_fake(encoder, is_udp, place),
        log,
    }
}

/// The end of a session with one packet, to one of so many destinations.
fn flow(number: u32, destinations: u32) -> Record {
    let mut session = with_id(number);
    session.original.dst = std::net::Ipv4Addr::from_bits(number % destinations).into();
    session.reply.src = session.original.dst;
    Record::Event(NatEvent {
        totals: Some(totals([1, 0], [100, 0])),
        ..delete(session, 1_000, 2_000)
    })
}

fn with_id(number: u32) -> Session {
    Session {
        id: Some(number),
        ..snat()
    }
}

/// All packets of the messages that were taken.
fn packets(scene: &mut Scene) -> u32 {
    let taken = &scene.fake().taken;
    let flows = taken.iter().flat_map(|message| message[24..].chunks(48));
    flows
        .map(|flow| u32::from_be_bytes(flow[16..20].try_into().unwrap()))
        .sum()
}

fn drain(scene: &mut Scene, millis: u64) {
    for turn in 0..100 {
        scene
            .output
            .drain(&mut scene.log, at(millis + 1_000 * turn));
    }
}

fn position(scene: &Scene) -> Position {
    scene.output.place().position
}

#[test]
fn the_place_stays_at_the_first_record_of_an_open_window() {
    let creates = [record(1), record(2)];
    let flows = (3..13).map(|number| flow(number, 2));
    let log = Log::of(creates.into_iter().chain(flows));
    let mut scene = aggregated(false, log, first_place());
    scene.pump(0);
    assert_eq!(packets(&mut scene), 0);
    assert_eq!(position(&scene), Position::before(Serial(3)));
    assert_eq!(scene.metrics().behind, 10);
    assert_eq!(scene.poll_timeout(), Some(at(WINDOW).up));
    scene.pump(WINDOW);
    assert_eq!((packets(&mut scene), scene.fake().taken.len()), (10, 1));
    assert_eq!(scene.metrics().flow_records, 2);
    assert!(scene.is_settled());
}

#[test]
fn a_planned_stop_ends_the_window_and_a_hand_over_leaves_its_records() {
    let log = || Log::of((0..10).map(|number| flow(number, 2)));
    let mut scene = aggregated(false, log(), first_place());
    scene.pump(0);
    scene.output.hand_over(&mut scene.log, at(1));
    assert_eq!(packets(&mut scene), 0);
    let mut next = aggregated(false, log(), scene.output.place());
    next.output.drain(&mut next.log, at(2));
    assert_eq!(packets(&mut next), 10);
    assert!(next.is_settled());
}

#[test]
fn a_window_that_was_taken_in_part_is_repeated_whole() {
    let mut scene = aggregated(
        false,
        Log::of((0..100).map(|number| flow(number, 100))),
        first_place(),
    );
    scene.pump(0);
    scene.fail_after(2, Failure::Busy);
    scene.pump(WINDOW);
    assert_eq!(packets(&mut scene), 60);
    let place = scene.output.place();
    assert_eq!(place.position, Position::before(Serial(1)));
    let mut next = aggregated(false, scene.log, place);
    drain(&mut next, WINDOW);
    assert_eq!(packets(&mut next), 100);
}

#[test]
fn a_window_has_the_records_that_the_log_gives_up_meanwhile() {
    let mut log = Log::of((0..10).map(|number| flow(number, 2)));
    log.append((10..30).map(|number| flow(number, 2)));
    let mut scene = aggregated(false, log, first_place());
    scene.pump(0);
    scene.evict();
    scene.log.append((30..40).map(|number| flow(number, 2)));
    scene.pump(1);
    scene.pump(WINDOW);
    assert_eq!(packets(&mut scene), 40);
    assert_eq!((scene.metrics().records, scene.metrics().lost), (40, 0));
}

#[test]
fn a_window_that_has_to_be_made_anew_goes_on_with_the_rest_of_its_records() {
    let mut log = Log::of((0..10).map(|number| flow(number, 2)));
    log.append((10..30).map(|number| flow(number, 2)));
    let mut scene = aggregated(false, log, first_place());
    scene.pump(0);
    scene.evict();
    let place = scene.output.place();
    let mut scene = aggregated(false, scene.log, place);
    scene.pump(1);
    assert_eq!(scene.take_lost(), Some(10));
    drain(&mut scene, 1);
    assert_eq!(packets(&mut scene), 20);
    assert_eq!((scene.metrics().records, scene.metrics().lost), (20, 10));
}

#[test]
fn a_window_whose_message_is_too_large_for_the_path_is_lost_whole() {
    let mut scene = aggregated(
        false,
        Log::of((0..100).map(|number| flow(number, 100))),
        first_place(),
    );
    scene.pump(0);
    scene.log.append((100..110).map(|number| flow(number, 2)));
    scene.fail_after(1, Failure::TooLarge);
    scene.pump(WINDOW);
    drain(&mut scene, 2 * WINDOW);
    assert_eq!(scene.metrics().lost, 100);
    assert_eq!(packets(&mut scene), 30 + 10);
    assert!(scene.is_settled());
}

#[test]
fn nothing_is_tried_before_a_window_ends() {
    let mut scene = aggregated(
        false,
        Log::of((0..10).map(|number| flow(number, 2))),
        first_place(),
    );
    scene.pump(0);
    scene.fake().is_open = false;
    scene.fake().open_failures.push_back(broken());
    scene.output.reopen(at(1));
    scene.pump(100);
    assert_eq!(scene.poll_timeout(), Some(at(WINDOW).up));
    scene.pump(WINDOW);
    assert_eq!(packets(&mut scene), 10);
    assert_eq!(scene.metrics().state, State::Working);
}

#[test]
fn a_probe_waits_for_no_window() {
    let place = Place {
        refused: true,
        ..first_place()
    };
    let log = Log::of((0..10).map(|number| flow(number, 2)));
    let mut scene = aggregated(true, log, place);
    scene.pump(0);
    assert_eq!(packets(&mut scene), 10);
}

#[derive(Clone, Debug)]
enum Step {
    Pump,
    Drain,
    Busy(u8),
    Broken(u8),
    Refuse(prop::sample::Index),
    Reopen,
    Restart,
    Add(u8),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Pump),
        1 => Just(Step::Drain),
        1 => (0_u8..4).prop_map(Step::Busy),
        1 => (0_u8..4).prop_map(Step::Broken),
        1 => any::<prop::sample::Index>().prop_map(Step::Refuse),
        1 => Just(Step::Reopen),
        1 => Just(Step::Restart),
        3 => (1_u8..40).prop_map(Step::Add),
        3 => (0_u64..90_000).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// A window has one message here, which is taken or not.
    #[test]
    fn every_packet_is_delivered_once_whatever_happens(is_udp: bool, steps in steps()) {
        let mut scene = aggregated(is_udp, Log::new(0, 1), first_place());
        let (mut delivered, mut number, mut now) = (0, 0, 0);
        for step in steps {
            match step {
                Step::Pump => scene.pump(now),
                Step::Drain => scene.output.drain(&mut scene.log, at(now)),
                Step::Busy(after) => scene.fail_after(after.into(), Failure::Busy),
                Step::Broken(after) => scene.fail_after(after.into(), broken()),
                Step::Refuse(index) => {
                    let sent = scene.fake().sent.len();
                    if is_udp && sent > 0 {
                        scene.refuse(index.index(sent), now);
                    }
                }
                Step::Reopen => scene.output.reopen(at(now)),
                Step::Restart => {
                    delivered += packets(&mut scene);
                    let place = scene.output.place();
                    scene = aggregated(is_udp, scene.log, place);
                }
                Step::Add(count) => {
                    let end = number + u32::from(count);
                    scene.log.append((number..end).map(|number| flow(number, 5)));
                    number = end;
                }
                Step::Pass(millis) => now += millis,
            }
        }
        scene.fake().write_failures.clear();
        for _ in 0..200 {
            now += WINDOW;
            scene.pump(now);
        }
        prop_assert!(scene.is_settled());
        delivered += packets(&mut scene);
        prop_assert_eq!(delivered, number);
        prop_assert_eq!(scene.metrics().lost, 0);
    }
}
