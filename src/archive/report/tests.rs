//! The sums of random sessions against a count that goes through all of them for each figure.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// 2026-11-20.
const DAY_NUMBER: u64 = 20_777;
const FROM: u64 = DAY_NUMBER * DAY;

fn day() -> Day {
    Day::of(Millis::new(FROM))
}

/// Sessions of few addresses and ports, around the day.
fn sessions() -> impl Strategy<Value = Vec<Brief>> {
    let time = FROM - 2 * DAY / 24..FROM + DAY + 2 * DAY / 24;
    let life = prop_oneof![0..2 * MINUTE, 0..DAY * 2];
    let start = (any::<bool>(), time.clone(), life);
    let kind = prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(47)];
    let rest = (
        0..3_u8,
        1020..1030_u16,
        kind,
        0..6_u8,
        any::<[bool; 3]>(),
        0..9_u64,
    );
    let session = (start, rest).prop_map(
        |((has_start, end, life), (public, port, protocol, subscriber, flags, octets))| Brief {
            post_src: [203, 0, 113, public].into(),
            post_sport: port,
            protocol: Protocol(protocol),
            pre_src: [10, 0, 0, subscriber].into(),
            has_snat: flags[0] || flags[1],
            start: (has_start || flags[1]).then(|| Millis::new(end - life)),
            end: Millis::new(end),
            octets: flags[2].then_some(octets),
            is_open: flags[0] && flags[2],
        },
    );
    prop::collection::vec(session, 0..60)
}

fn sums(sessions: &[Brief]) -> Totals {
    let mut sorted = sessions.to_vec();
    sorted.sort_by_key(|it| it.post_src);
    let mut sums = Sums::new(day());
    sums.begin(&"gw".into());
    sorted.iter().for_each(|it| sums.add(it));
    sums.finish()
}

/// The sessions that were alive in a minute of the day.
fn alive(sessions: &[Brief], minute: usize) -> impl Iterator<Item = &Brief> {
    let first = FROM + minute as u64 * MINUTE;
    sessions.iter().filter(move |it| {
        let start = it.start.unwrap_or(it.end).get();
        start < first + MINUTE && it.end.get() >= first
    })
}

fn ended(sessions: &[Brief]) -> Vec<Brief> {
    let on_day = |it: &&Brief| !it.is_open && (FROM..FROM + DAY).contains(&it.end.get());
    sessions.iter().filter(on_day).copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sessions_are_counted_by_minute(sessions in sessions()) {
        let totals = sums(&sessions);
        let mut all = BTreeSet::new();
        for minute in 0..MINUTES {
            let first = FROM + minute as u64 * MINUTE;
            let begun = sessions.iter().filter_map(|it| it.start);
            let begun = begun.filter(|it| (first..first + MINUTE).contains(&it.get())).count();
            prop_assert_eq!(totals.begun_by_minute[minute], begun as u64);
            let open = alive(&sessions, minute).count();
            prop_assert_eq!(totals.open_by_minute[minute], open as u64);
            all.extend(alive(&sessions, minute).map(std::ptr::from_ref));
        }
        prop_assert_eq!(totals.sessions, all.len() as u64);
        prop_assert_eq!(totals.begun, totals.begun_by_minute.iter().sum::<u64>());
    }

    #[test]
    fn ports_are_counted_once_in_a_minute(sessions in sessions()) {
        let totals = sums(&sessions);
        let mut found = BTreeMap::new();
        for it in &totals.addresses {
            found.insert(it.address, it.ports);
        }
        let mut naive: BTreeMap<IpAddr, [Use; 3]> = BTreeMap::new();
        let mut all: BTreeSet<(IpAddr, usize, u16)> = BTreeSet::new();
        for minute in 0..MINUTES {
            let mut used = BTreeSet::new();
            for it in alive(&sessions, minute).filter(|it| it.has_snat) {
                naive.entry(it.post_src).or_default();
                let kind = match it.protocol.0 {
                    6 if it.post_sport >= 1024 => 0,
                    17 if it.post_sport >= 1024 => 1,
                    1 | 58 => 2,
                    _ => continue,
                };
                used.insert((it.post_src, kind, it.post_sport));
            }
            for (address, uses) in &mut naive {
                for (kind, it) in uses.iter_mut().enumerate() {
                    let ports = used.iter().filter(|port| (port.0, port.1) == (*address, kind));
                    let count = ports.count() as u32;
                    if count > it.peak {
                        (it.peak, it.minute) = (count, minute);
                    }
                }
            }
            all.append(&mut used);
        }
        for (address, kind, _) in all {
            naive.get_mut(&address).unwrap()[kind].all += 1;
        }
        prop_assert_eq!(found, naive);
        prop_assert_eq!(totals.address_count, totals.addresses.len() as u64);
    }

    #[test]
    fn protocols_and_subscribers_have_the_sessions_that_ended(sessions in sessions()) {
        let totals = sums(&sessions);
        let ended = ended(&sessions);
        let sum = |filter: &dyn Fn(&Brief) -> bool| {
            let mut sum = Sum::default();
            ended.iter().filter(|it| filter(it)).for_each(|it| sum.add(it.octets.unwrap_or(0)));
            sum
        };
        prop_assert_eq!(totals.ended, sum(&|_| true));
        for (protocol, found) in &totals.protocols {
            prop_assert_eq!(*found, sum(&|it| it.protocol == *protocol));
        }
        prop_assert_eq!(
            totals.protocols.iter().map(|(_, sum)| sum.sessions).sum::<u64>(),
            totals.ended.sessions
        );
        let top = totals.subscribers.top(3, |sum| sum.octets);
        for it in &top {
            prop_assert_eq!(it.sum, sum(&|session| session.has_snat && session.pre_src == it.address));
        }
        let mut octets: Vec<_> = (0..6).map(|last| {
            sum(&|it| it.has_snat && it.pre_src == IpAddr::from([10, 0, 0, last]))
        }).filter(|it| it.sessions > 0).map(|it| it.octets).collect();
        octets.sort_unstable_by_key(|it| Reverse(*it));
        octets.truncate(3);
        prop_assert_eq!(top.iter().map(|it| it.sum.octets).collect::<Vec<_>>(), octets);
    }

    #[test]
    fn a_flood_of_subscribers_is_bounded_and_its_error_is_known(
        addresses in prop::collection::vec((0..40_u8, 0..100_u64), 0..400),
    ) {
        let mut subscribers = Subscribers::default();
        let mut naive: BTreeMap<u8, Sum> = BTreeMap::new();
        for (address, octets) in addresses {
            subscribers.add((1, [10, 0, 0, address].into()), &"gw".into(), octets);
            naive.entry(address).or_default().add(octets);
        }
        let top = subscribers.top(usize::MAX, |sum| sum.sessions);
        prop_assert!(top.len() <= 8);
        for (address, sum) in &naive {
            let address = IpAddr::from([10, 0, 0, *address]);
            let found = top.iter().find(|it| it.address == address);
            let found = found.map_or(Sum::default(), |it| it.sum);
            prop_assert!(found.sessions <= sum.sessions && found.octets <= sum.octets);
            prop_assert!(found.sessions + subscribers.short.sessions >= sum.sessions);
            prop_assert!(found.octets + subscribers.short.octets >= sum.octets);
        }
        prop_assert!(subscribers.count() <= naive.len());
        prop_assert_eq!(subscribers.is_exact(), naive.len() <= 8 || subscribers.short == Sum::default());
    }
}

#[test]
fn gateways_with_the_same_private_addresses_are_told_apart() {
    let session = Brief {
        post_src: [203, 0, 113, 9].into(),
        post_sport: 5000,
        protocol: Protocol::UDP,
        pre_src: [10, 0, 0, 1].into(),
        has_snat: true,
        start: Some(Millis::new(FROM)),
        end: Millis::new(FROM + 1),
        octets: Some(1),
        is_open: false,
    };
    let mut sums = Sums::new(day());
    for gateway in ["gw1", "gw2"] {
        sums.begin(&gateway.into());
        sums.add(&session);
    }
    let totals = sums.finish();
    let top = totals.subscribers.top(9, |sum| sum.sessions);
    let names: Vec<_> = top.iter().map(|it| &*it.gateway).collect();
    assert_eq!(names, ["gw1", "gw2"]);
    let addresses: Vec<_> = totals.addresses.iter().map(|it| &*it.gateway).collect();
    assert_eq!(addresses, ["gw1", "gw2"]);
}

#[test]
fn days_are_those_of_the_calendar() {
    assert_eq!(Day::parse("2026-11-20"), Some(day()));
    assert_eq!(day().to_string(), "2026-11-20");
    assert_eq!(day().before().to_string(), "2026-11-19");
    for text in ["", "20.11.2026", "2026-11-31", "1969-12-31", "2026-11-20 "] {
        assert_eq!(Day::parse(text), None, "{text}");
    }
}
