//! Whatever the events, the configuration and the time: messages fit, are readable and hold everything.

use proptest::prelude::*;

use super::*;

pub(super) fn any_session() -> impl Strategy<Value = Session> {
    prop::sample::select(vec![
        snat(),
        dnat(),
        hairpin(),
        untranslated(),
        icmp(),
        gre(),
        nat66(),
    ])
}

#[derive(Clone, Debug)]
enum Step {
    Event(NatEvent),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let event = (
        any_session(),
        any::<bool>(),
        prop::option::of(0_u64..1 << 40),
    )
        .prop_map(|(session, begins, octets)| {
            Step::Event(if begins {
                create(session, START)
            } else {
                NatEvent {
                    totals: octets.map(|octets| totals([octets / 100, 1], [octets, 99])),
                    ..delete(session, START, START + 9)
                }
            })
        });
    prop_oneof![9 => event, 1 => (0_u64..1_000_000).prop_map(Step::Wait)]
}

pub(super) fn any_collector() -> impl Strategy<Value = config::Collector> {
    (
        prop::sample::select(vec![Version::NetflowV5, Version::NetflowV9, Version::Ipfix]),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        (576_u16..=1500, 1_u32..5, any::<bool>()),
    )
        .prop_map(
            |(version, triplet, events, ingress_vrf, (mtu, refresh, ipv6))| {
                let address = if ipv6 {
                    "[2001:db8::1]:2055"
                } else {
                    "192.0.2.1:2055"
                };
                config::Collector {
                    address: address.parse().unwrap(),
                    triplet,
                    events: events || !triplet,
                    ingress_vrf,
                    mtu,
                    template_refresh_packets: refresh,
                    ..collector(version)
                }
            },
        )
}

/// How many flow records a v9 or IPFIX collector gets for `event`.
fn expected_records(collector: &config::Collector, event: &NatEvent) -> usize {
    let flows = collector.triplet && event.kind == EventKind::Delete;
    usize::from(collector.events) + 3 * usize::from(flows)
}

proptest! {
    #[test]
    fn every_message_fits_and_can_be_read(
        collector in any_collector(),
        steps in prop::collection::vec(any_step(), 0..120),
    ) {
        let mut script = Script::new(&collector);
        let (mut millis, mut expected, mut messages) = (0, 0, Vec::new());
        for step in &steps {
            match step {
                Step::Wait(time) => {
                    millis += time;
                    messages.extend(script.timeout(millis));
                }
                Step::Event(event) => {
                    let result = script.try_push(&Record::Event(*event), millis);
                    let refused = collector.version == Version::NetflowV5
                        && !event.session.is_ipv4()
                        && expected_records(&collector, event) > 0;
                    prop_assert_eq!(result.is_err(), refused);
                    expected += expected_records(&collector, event);
                }
            }
        }
        messages.extend(script.flush(millis));
        prop_assert!(messages.iter().all(|message| message.len() <= collector.max_message()));
        let decoded = decode(&messages);
        prop_assert_eq!(decoded.flows.len() as u64, script.totals().flow_records);
        if collector.version != Version::NetflowV5 {
            prop_assert_eq!(decoded.flows.len(), expected);
        }
        let octets: usize = messages.iter().map(Vec::len).sum();
        prop_assert_eq!(octets as u64, script.totals().octets);
    }
}
