//! Records that an output cannot get: they are counted, and stated where they are missing.

use super::*;

#[test]
fn records_that_the_log_no_longer_has_are_one_gap_where_they_are_missing() {
    let mut scene = Scene::lines(false, Log::new(100, 10));
    scene.fail_after(15, Failure::Busy);
    scene.pump(0);
    for _ in 0..4 {
        // The output had taken the whole first block.
        scene.evict();
    }
    assert_eq!(scene.take_lost(), Some(25));
    scene.pump(1);
    let expected = [ids(0..15), vec!["lost 25".to_owned()], ids(40..100)].concat();
    assert_eq!(scene.taken(), expected);
    let metrics = scene.metrics();
    assert_eq!((metrics.records, metrics.lost, metrics.gaps), (75, 25, 1));
}

#[test]
fn a_gap_that_is_not_stated_yet_goes_with_the_place() {
    let mut scene = Scene::lines(false, Log::new(20, 10));
    scene.fake().is_blocked = true;
    scene.pump(0);
    scene.evict();
    scene.pump(1);
    let place = scene.output.place();
    assert_eq!(place.missing.map(|missing| missing.count), Some(10));
    scene.restart();
    scene.pump(2);
    let expected = [vec!["lost 10".to_owned()], ids(10..20)].concat();
    assert_eq!(scene.taken(), expected);
    assert_eq!(scene.output.place().missing, None);
}

#[test]
fn a_probe_that_was_out_while_its_records_went_counts_with_them() {
    let mut scene = Scene::lines(true, Log::new(20, 10));
    scene.pump(0);
    scene.refuse(0, 0);
    scene.pump(1000);
    assert_eq!(scene.taken(), ids(0..1));
    scene.evict();
    assert_eq!(scene.metrics().lost, 9);
    scene.refuse(0, 1500);
    scene.pump(2500);
    assert_eq!(scene.taken(), ["lost 10"]);
    assert_eq!(scene.metrics().lost, 10);
}

#[test]
fn a_range_that_went_before_older_ones_counts_and_so_do_they() {
    let mut scene = Scene::lines(false, Log::new(30, 10));
    scene.fake().is_blocked = true;
    scene.pump(0);
    scene
        .output
        .handle_evicted(&span(&scene.log.blocks.remove(1)));
    scene.evict();
    assert_eq!(scene.metrics().lost, 20);
}

#[test]
fn templates_that_leave_before_a_gap_do_not_take_it_along() {
    for version in [Version::Ipfix, Version::NetflowV9] {
        let collector = config::Collector {
            mtu: 576,
            triplet: true,
            ingress_vrf: true,
            ..collector(version)
        };
        let mut scene = Scene::flows(false, &collector, Log::new(40, 10));
        let others = [snat(), nat66()].map(|session| [create(session, 1), delete(session, 1, 2)]);
        scene
            .log
            .append(others.concat().into_iter().map(Record::Event));
        scene.pump(0);
        // The gap comes with all templates needed so far.
        scene.log.add(40..50);
        scene.fake().is_blocked = true;
        scene.pump(1);
        let begin = scene.output.place().position;
        let span = Span {
            first: begin.serial,
            ..span(scene.log.blocks.last().unwrap())
        };
        scene.log.damaged.push(span.first);
        scene.output.handle_evicted(&span);
        scene.fake().is_blocked = false;
        scene.fake().write_failures = [None, Some(Failure::Busy)].into();
        let before = scene.output.taken.gaps;
        scene.pump(100);
        assert_eq!(scene.output.taken.gaps, before);
        assert_eq!(scene.output.place().position, begin, "{version:?}");
        scene.pump(200);
        assert_eq!(scene.output.taken.gaps, before + 1);
        assert_eq!(
            scene.output.place().position,
            Position::before(scene.log.end())
        );
    }
}

#[test]
fn a_damaged_block_is_a_gap_of_its_records() {
    let mut scene = Scene::lines(false, Log::new(30, 10));
    scene.log.damaged.push(Serial(11));
    for millis in 0..4 {
        scene.pump(millis);
    }
    let expected = [ids(0..10), vec!["lost 10".to_owned()], ids(20..30)].concat();
    assert_eq!(scene.taken(), expected);
    assert_eq!(scene.take_lost(), Some(10));
}

#[test]
fn records_that_are_gone_with_their_times_are_gone_by_now() {
    let mut scene = Scene::lines(false, Log::new(10, 10));
    scene.log.damaged.push(Serial(1));
    let block = Rc::make_mut(&mut scene.log.blocks[0]);
    let nothing = Block::new(Serial(1), Vec::new());
    (block.since, block.until) = (nothing.since, nothing.until);
    scene.pump(0);
    let (missing, _) = scene.output.take_lost().unwrap();
    assert_eq!((missing.since, missing.until), (at(0).wall, at(0).wall));
}

#[test]
fn a_message_that_is_too_large_costs_its_record_and_says_so() {
    let mut scene = Scene::lines(false, Log::new(5, 5));
    scene.fake().write_failures = [None, None, Some(Failure::TooLarge)].into();
    scene.pump(0);
    assert_eq!(scene.take_lost(), Some(1));
    let expected = [ids(0..2), vec!["lost 1".to_owned()], ids(3..5)].concat();
    assert_eq!(scene.taken(), expected);
}

#[test]
fn a_closed_standard_output_needs_no_more_and_counts_what_it_misses() {
    let mut scene = Scene::lines(false, Log::new(10, 10));
    let ended = Failure::Ended(Trouble::new("write", io::ErrorKind::BrokenPipe.into()));
    scene.fake().write_failures = [None, None, None, Some(ended)].into();
    scene.pump(0);
    scene.pump(1);
    assert_eq!(scene.output.needed(), None);
    assert_eq!(scene.poll_timeout(), None);
    let metrics = scene.metrics();
    assert_eq!((metrics.records, metrics.lost), (3, 7));
    assert_eq!(metrics.state, State::Ended);
}
