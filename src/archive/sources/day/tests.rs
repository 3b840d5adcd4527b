//! The sessions of a day out of a real database, spool and sealed files.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::archive::row::Row;
use crate::archive::sources::tests::{BEGIN, Gateway, HOUR, NOW, numbered};
use crate::archive::spool::Place;
use crate::wire::samples::delete;

fn day(gateway: &Gateway) -> (Totals, Holdings) {
    let sources = gateway.sources();
    let day = Day::of(Millis::new(BEGIN));
    sources.day(day, Millis::new(NOW), &mut |_, _| {})
}

/// A session by its public port and its minutes after the beginning of the archive.
fn brief((port, start, end): (u16, u64, u64)) -> Brief {
    let [start, end] = [start, end].map(|minute| BEGIN + minute * 60_000);
    Brief::from(&Row::of(&delete(numbered(port), start, end)).unwrap())
}

#[test]
fn each_session_counts_once_wherever_it_is() {
    let mut gateway = Gateway::new();
    gateway.archive(2001, BEGIN, BEGIN + 10);
    gateway.archive(2002, BEGIN, BEGIN + 20);
    gateway.spool.seal(Millis::new(BEGIN + HOUR)).unwrap();
    gateway.archive(2003, BEGIN, BEGIN + HOUR + 1);
    gateway.log(2004, BEGIN, BEGIN + HOUR + 2);
    gateway.write(&[2005, 2006]);
    let (totals, holdings) = day(&gateway);
    assert_eq!(holdings.problems, [""; 0]);
    assert_eq!(
        (holdings.sealed, holdings.unsealed, holdings.open),
        (2, 2, 2)
    );
    assert_eq!(
        (totals.sessions, totals.open, totals.ended.sessions),
        (6, 2, 4)
    );
    assert_eq!(totals.addresses.len(), 1);
    assert_eq!(totals.addresses[0].ports[0].all, 6);
}

#[test]
fn a_session_that_ends_while_it_is_read_is_still_open() {
    let mut gateway = Gateway::new();
    gateway.log(2001, BEGIN, NOW);
    gateway.log(2002, BEGIN, NOW + 1);
    gateway.archive(2003, BEGIN, NOW + 2);
    gateway.write(&[2002, 2003]);
    let (totals, _) = day(&gateway);
    assert_eq!(
        (totals.sessions, totals.open, totals.ended.sessions),
        (3, 2, 1)
    );
}

#[test]
fn what_is_too_much_to_sort_is_counted_without_its_ports() {
    let mut gateway = Gateway::new();
    for port in 2000..2100 {
        gateway.log(port, BEGIN, BEGIN + 1);
    }
    gateway.write(&[]);
    let (totals, holdings) = day(&gateway);
    assert_eq!((totals.sessions, totals.ended.sessions), (100, 100));
    assert_eq!(holdings.without_ports, 36);
    assert_eq!(totals.addresses[0].ports[0].all, 64);
    assert_eq!(holdings.unsealed, 100);
}

#[test]
fn progress_goes_up_to_the_size_of_the_files() {
    let mut gateway = Gateway::new();
    gateway.archive(2001, BEGIN, BEGIN + 10);
    gateway.spool.seal(Millis::new(BEGIN + HOUR)).unwrap();
    let mut seen = Vec::new();
    let day = Day::of(Millis::new(BEGIN));
    let sources = gateway.sources();
    let (_, holdings) = sources.day(day, Millis::new(NOW), &mut |done, all| {
        seen.push((done, all))
    });
    assert_eq!(seen, [(holdings.octets, holdings.octets)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn seals_and_merges_do_not_change_the_sums(
        sessions in prop::collection::vec((2000..2040_u16, 0..200_u64, 0..2000_u64, any::<u8>()), 0..60),
    ) {
        let mut gateway = Gateway::new();
        let mut sums = Sums::new(Day::of(Millis::new(BEGIN)));
        sums.begin(&"gw".into());
        let mut hour = 0;
        for (port, start, length, act) in sessions {
            // What ends later is in a later seal.
            let end = hour * 60 + start + length;
            let session = (port, end - length, end);
            sums.add(&brief(session));
            gateway.spool.push(&Row::of(&delete(
                numbered(port),
                BEGIN + session.1 * 60_000,
                BEGIN + session.2 * 60_000,
            )).unwrap());
            gateway.spool.commit(Place { run: 1, next: 1 }).unwrap();
            if act % 8 == 0 {
                hour += 1;
                gateway.spool.seal(Millis::new(BEGIN + hour * HOUR)).unwrap();
            }
            if act % 32 == 8 {
                gateway.spool.compact(Millis::new(BEGIN)).unwrap();
            }
        }
        let (totals, holdings) = day(&gateway);
        prop_assert_eq!(holdings.problems, Vec::<String>::new());
        prop_assert_eq!(totals, sums.finish());
    }
}
