//! The guarantees of an output, whatever happens to the log, the receiver and the output.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Pump,
    Busy(u8),
    Broken(u8),
    /// The answer to one of the messages since the last refusal arrives.
    Refuse(prop::sample::Index),
    Reopen,
    Restart,
    Evict,
    Add(u8),
    Pass(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Pump),
        1 => (0_u8..50).prop_map(Step::Busy),
        1 => (0_u8..50).prop_map(Step::Broken),
        1 => any::<prop::sample::Index>().prop_map(Step::Refuse),
        1 => Just(Step::Reopen),
        1 => Just(Step::Restart),
        1 => Just(Step::Evict),
        2 => (1_u8..40).prop_map(Step::Add),
        2 => (0_u16..2500).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Does the steps, then lets the rest pass, and returns the delivered records and the number of lost ones.
fn played(is_udp: bool, steps: Vec<Step>) -> (Vec<String>, u64, u32) {
    let mut scene = Scene::lines(is_udp, Log::new(0, 1));
    let (mut delivered, mut number, mut now) = (Vec::new(), 0, 0);
    for step in steps {
        match step {
            Step::Pump => scene.pump(now),
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
                delivered.extend(scene.taken());
                scene.restart();
            }
            Step::Evict if scene.log.blocks.len() > 1 => scene.evict(),
            Step::Evict => {}
            Step::Add(count) => {
                scene.log.add(number..number + u32::from(count));
                number += u32::from(count);
            }
            Step::Pass(millis) => now += u64::from(millis),
        }
    }
    scene.fake().write_failures.clear();
    for _ in 0..200 {
        now += 1000;
        scene.pump(now);
    }
    assert!(scene.is_settled());
    assert_eq!(scene.poll_timeout(), None);
    delivered.extend(scene.taken());
    (delivered, scene.metrics().lost, number)
}

proptest! {
    #[test]
    fn whatever_happens_each_record_is_delivered_once_in_order_or_stated_as_lost(
        is_udp: bool, steps in steps()
    ) {
        let (delivered, lost, number) = played(is_udp, steps);
        let mut next = 0;
        for delivered in delivered {
            match delivered.strip_prefix("lost ") {
                Some(count) => next += count.parse::<u32>().unwrap(),
                None => {
                    prop_assert_eq!(&delivered, &next.to_string());
                    next += 1;
                }
            }
        }
        prop_assert_eq!(next, number);
        prop_assert!(lost <= u64::from(number));
    }
}
