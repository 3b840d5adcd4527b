//! More events than the receive buffer holds, and a reader that stands still.

use rustix::process::Signal;

use crate::Scene;
use crate::floods::SlowListener;
use crate::ledger::{Generator, Key, dying, now};
use crate::support::status::{ask, number};
use crate::support::wait_for;

/// Sessions per round.
const SESSIONS: u32 = 1500;
const ROUNDS: u32 = 2;

/// Thousands of sessions begin and end while the daemon is stopped. `others` were open before, and end as well.
fn unheard(scene: &Scene, generator: &mut Generator, mut others: usize) -> Vec<Key> {
    let mut made = Vec::new();
    scene.daemon.signal(Signal::STOP);
    for _ in 0..ROUNDS {
        made.extend(generator.begin_all(&scene.net, SESSIONS, others));
        scene.net.end_connections();
        others = 0;
    }
    made
}

#[test]
fn with_reliable_delivery_a_stopped_reader_with_a_tiny_buffer_loses_nothing() {
    let capture = "receive-buffer = \"4KiB\"\nresync = \"1s\"\n";
    let Some(scene) = Scene::new(capture) else {
        return;
    };
    let made = unheard(&scene, &mut Generator::new(&scene.net), 0);
    // The buffer holds a handful.
    assert!(dying(&scene.net) > made.len() - 20);
    scene.daemon.signal(Signal::CONT);
    let count = made.len() as u64;
    let metrics = scene.wait_for_deletes(count);
    assert_eq!(number(&metrics, "/events/destroy"), count);
    assert_eq!(number(&metrics, "/sessions/inferred_ends"), 0);
    assert_eq!(number(&metrics, "/events/overflows"), 0);
    assert!(number(&metrics, "/kernel/drops") > count);
    assert_eq!(dying(&scene.net), 0);
    let ledger = scene.finish();
    ledger.assert_complete(&made);
    assert!(ledger.gaps.is_empty(), "{:?}", ledger.gaps);
}

fn catch_up(slow: &SlowListener, scene: &Scene) {
    wait_for("the slow listener to catch up", || {
        slow.read();
        (dying(&scene.net) == 0).then_some(())
    });
}

#[test]
fn another_reliable_listener_that_is_slow_repeats_events_and_no_record() {
    const COUNT: u32 = 1000;
    let Some(scene) = Scene::new("resync = \"1s\"\n") else {
        return;
    };
    let slow = SlowListener::open(&scene.net.gateway);
    let mut generator = Generator::new(&scene.net);
    let made = generator.begin_all(&scene.net, COUNT, 0);
    scene.net.end_connections();
    // An event that the other listener cannot take stays in the dying list, and is sent to both again and again.
    let metrics = scene.wait_for_status("repeated events and the dying list", |metrics| {
        number(metrics, "/sessions/duplicates") > 100 && number(metrics, "/kernel/dying") > 0
    });
    assert_eq!(number(&metrics, "/sessions/deletes"), u64::from(COUNT));
    catch_up(&slow, &scene);
    // Later events are not taken for repetitions.
    let more = generator.begin_all(&scene.net, 10, 0);
    scene.net.end_connections();
    catch_up(&slow, &scene);
    let metrics = scene.wait_for_status("the end of the dying list", |metrics| {
        number(metrics, "/kernel/dying") == 0 && number(metrics, "/sessions/deletes") == 1010
    });
    assert_eq!(number(&metrics, "/sessions/inferred_ends"), 0);
    let ledger = scene.finish();
    ledger.assert_complete(&[made, more].concat());
    assert!(ledger.gaps.is_empty(), "{:?}", ledger.gaps);
}

#[test]
fn without_reliable_delivery_each_overflow_is_a_gap_with_the_number_of_lost_events() {
    const EARLY: u32 = 20;
    const LATE: u32 = 5;
    let capture = "receive-buffer = \"4KiB\"\nreliable = false\nresync = \"1s\"\n";
    let Some(scene) = Scene::new(capture) else {
        return;
    };
    // These were open before, so only an audit can find that they ended in the gap.
    let mut generator = Generator::new(&scene.net);
    let mut made = Vec::new();
    for count in 1..=EARLY {
        made.extend(generator.begin_all(&scene.net, 1, made.len()));
        scene.wait_for_status("the session to be known", |metrics| {
            number(metrics, "/sessions/creates") == u64::from(count)
        });
    }
    let from = now();
    made.extend(unheard(&scene, &mut generator, made.len()));
    let to = now();
    scene.daemon.signal(Signal::CONT);
    scene.wait_for_status("the gap, and the ends in it", |metrics| {
        number(metrics, "/gaps/overflow/count") > 0
            && number(metrics, "/sessions/inferred_ends") >= u64::from(EARLY)
            && number(metrics, "/sessions/pending") == 0
    });

    // Later events are recorded again.
    let late = generator.begin_all(&scene.net, LATE, 0);
    let before = number(&ask(&scene.home), "/sessions/deletes");
    scene.net.end_connections();
    let metrics = scene.wait_for_deletes(before + u64::from(LATE));
    made.extend(&late);

    let ledger = scene.finish();
    ledger.assert_each_once(&made);
    let missing = made.len() - ledger.sessions.len();
    let lost: u64 = ledger.gaps.iter().map(|gap| gap.lost.unwrap()).sum();
    // Each session has two events, and each event was heard or lost.
    let events = 2 * made.len() as u64;
    assert_eq!(number(&metrics, "/events/messages") + lost, events);
    assert!(
        missing > 1000 && 2 * missing as u64 <= lost,
        "{missing}, {lost}"
    );
    assert_eq!(number(&metrics, "/gaps/overflow/lost"), lost);
    assert_eq!(ledger.gaps_of("overflow").len(), ledger.gaps.len());
    let first = ledger.gaps.iter().map(|gap| gap.from).min().unwrap();
    let last = ledger.gaps.iter().map(|gap| gap.to).max().unwrap();
    assert!(first <= from && to <= last);
    for key in late {
        assert!(ledger.sessions.contains_key(&key), "{key:?} came after");
    }
}

#[test]
fn beyond_pending_max_every_session_still_has_its_two_records() {
    const COUNT: u32 = 1000;
    let Some(scene) = Scene::keeping(100, "resync = \"1s\"\n") else {
        return;
    };
    let mut generator = Generator::new(&scene.net);
    let made = generator.begin_all(&scene.net, COUNT, 0);
    let metrics = scene.wait_for_status("all creates, and an audit after them", |metrics| {
        number(metrics, "/sessions/creates") >= u64::from(COUNT)
            && number(metrics, "/events/dumped") >= u64::from(COUNT)
    });
    assert_eq!(number(&metrics, "/sessions/pending"), 100);
    assert_eq!(number(&metrics, "/sessions/beyond_max"), 900);
    assert_eq!(number(&metrics, "/sessions/unkept"), 900);
    let _ = scene.daemon.wait_for_message("pending.max");
    scene.net.end_connections();
    let metrics = scene.wait_for_deletes(COUNT.into());
    assert_eq!(number(&metrics, "/sessions/unannounced"), 0);
    let _ = scene.daemon.wait_for_message("is kept again");
    let ledger = scene.finish();
    ledger.assert_complete(&made);
    assert!(ledger.gaps.is_empty(), "{:?}", ledger.gaps);
}
