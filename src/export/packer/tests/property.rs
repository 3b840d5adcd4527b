//! Whatever the events, the configuration and the time: messages fit, are readable and hold everything.

use proptest::prelude::*;

use super::*;
use crate::session::EndReason;

pub(super) fn any_session() -> impl Strategy<Value = Session> {
    let sessions = prop::sample::select(vec![
        snat(),
        dnat(),
        hairpin(),
        untranslated(),
        icmp(),
        gre(),
        nat66(),
    ]);
    (sessions, 0_u32..2).prop_map(|(session, mark)| Session { mark, ..session })
}

/// The end of a session, or of a part of it.
pub(super) fn any_end() -> impl Strategy<Value = NatEvent> {
    let kind = prop::sample::select(vec![
        (EventKind::Delete, false),
        (EventKind::Delete, true),
        (EventKind::Flow, false),
    ]);
    let reason = prop::sample::select(vec![None, Some(EndReason::Idle), Some(EndReason::Detected)]);
    let octets = prop::option::of((0_u64..1 << 40, 0_u64..3));
    (any_session(), kind, reason, octets).prop_map(
        |(session, (kind, in_parts), end_reason, octets)| NatEvent {
            kind,
            in_parts,
            end_reason,
            totals: octets
                .map(|(octets, replies)| totals([octets / 100, replies], [octets, 99 * replies])),
            ..delete(session, START, START + 9)
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Event(NatEvent),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let begun = any_session().prop_map(|session| Step::Event(create(session, START)));
    let ended = any_end().prop_map(Step::Event);
    prop_oneof![4 => begun, 5 => ended, 1 => (0_u64..1_000_000).prop_map(Step::Wait)]
}

pub(super) fn any_collector() -> impl Strategy<Value = config::Collector> {
    (
        prop::sample::select(vec![Version::NetflowV5, Version::NetflowV9, Version::Ipfix]),
        1_u8..1 << 3,
        any::<(bool, bool)>(),
        (576_u16..=1500, 1_u32..5, any::<bool>()),
    )
        .prop_map(
            |(version, kinds, (ingress_vrf, biflow), (mtu, refresh, ipv6))| {
                let address = if ipv6 {
                    "[2001:db8::1]:2055"
                } else {
                    "192.0.2.1:2055"
                };
                config::Collector {
                    address: address.parse().unwrap(),
                    events: kinds & 1 != 0,
                    triplet: kinds & 2 != 0,
                    flow: kinds & 4 != 0,
                    biflow: biflow && version == Version::Ipfix,
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
    let triplet = collector.triplet && event.kind == EventKind::Delete;
    let is_flow_enough = collector.flow && event.session.translation().is_none();
    let of_events = collector.events && event.kind != EventKind::Flow && !is_flow_enough;
    let packets = event
        .totals
        .map(|totals| [totals.original.packets, totals.reply.packets]);
    let directions = match packets {
        Some(packets) => packets.into_iter().filter(|count| *count > 0).count(),
        None => 1,
    };
    let flows = match directions {
        _ if !(collector.flow && event.is_flow()) => 0,
        1.. if collector.biflow => 1,
        _ => directions,
    };
    usize::from(of_events) + 3 * usize::from(triplet) + flows
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
