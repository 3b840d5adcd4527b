//! A machine that stops at any operation leaves a log that reopens with all that it had accepted.

use proptest::prelude::*;

use super::*;
use crate::archive::disk::faults::{self, Fault};

/// How the machine stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// The process ends, and the machine goes on.
    Process,
    /// What was not synced is lost.
    Power,
    /// So is all of it but the first half of the changes of names.
    PowerButSomeNames,
}

const STOPS: [Stop; 3] = [Stop::Process, Stop::Power, Stop::PowerButSomeNames];

/// Opens the log and appends entries of three days until the machine stops at an operation, from 1 on. Returns whether it
/// stopped; `accepted` gets the entries whose append returned.
fn run(
    place: &Place,
    first_day: u64,
    operation: u64,
    stop: Stop,
    accepted: &mut Vec<String>,
) -> bool {
    faults::begin(operation, Fault::End);
    let opened = Log::open(&place.log(), &place.keys(), ORIGIN, at(first_day, 0));
    let _ = opened.and_then(|mut log| {
        for (day, secs) in [(0, 1), (0, 2), (1, 1), (2, 1)] {
            let day = first_day + day;
            let entry = entry(day, secs);
            log.append(entry.as_bytes(), at(day, secs))?;
            accepted.push(entry);
        }
        Ok(())
    });
    let has_stopped = faults::end();
    match stop {
        Stop::Process => {}
        Stop::Power => faults::lose_power(place.0.path(), |_| 0),
        Stop::PowerButSomeNames => faults::lose_power(place.0.path(), |names| names / 2),
    }
    has_stopped
}

/// Checks that the log has what was accepted, and besides at most one entry per stop, and goes on.
fn assert_whole(place: &Place, accepted: &[String], stops: usize) {
    place
        .open(at(50, 0))
        .append(b"{\"last\":true}", at(50, 0))
        .unwrap();
    let found = place.entries();
    let mut rest = found.iter();
    for entry in accepted {
        assert!(
            rest.any(|found| found == entry),
            "{entry} is missing in {found:?}"
        );
    }
    assert!(found.len() <= accepted.len() + stops + 1, "{found:?}");
    let report = verify(&place.log(), None, &[], at(0, 0), &mut |_, _| ()).unwrap();
    assert_eq!(report.findings, []);
    // The last key alone is left.
    let secrets: Vec<_> = files(&place.keys())
        .iter()
        .filter(|file| fs::read_to_string(file).unwrap().starts_with("PRIVATE"))
        .map(|file| file.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(secrets, ["current"]);
}

#[test]
fn a_machine_that_stops_at_any_operation_loses_nothing_that_was_accepted() {
    // Each operation in one of the ways, at least.
    for (first, stop) in (1..).zip(STOPS) {
        for operation in faults::operations(first, STOPS.len()) {
            let (place, mut accepted) = (Place::new(), Vec::new());
            let has_stopped = run(&place, 0, operation, stop, &mut accepted);
            assert_whole(&place, &accepted, 1);
            if !has_stopped {
                assert!(operation > 100, "only {operation} operations");
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn so_does_one_that_stops_again_and_again(
        stops in prop::collection::vec((1_u64..200, prop::sample::select(&STOPS)), 2..5),
    ) {
        let (place, mut accepted) = (Place::new(), Vec::new());
        for (run_number, &(operation, stop)) in (0..).zip(&stops) {
            run(&place, run_number * 3, operation, stop, &mut accepted);
        }
        assert_whole(&place, &accepted, stops.len());
    }
}

#[test]
fn an_append_that_failed_can_be_tried_again() {
    let place = Place::new();
    drop(place.open(at(0, 0)));
    for operation in 1..=20 {
        let mut log = place.open(at(0, 0));
        faults::begin(operation, Fault::End);
        let entry = entry(0, operation);
        log.append(entry.as_bytes(), at(0, 1)).unwrap_err();
        faults::end();
        let reader = log.reader(at(0, 1)).unwrap();
        if reader.entry(reader.size() - 1).unwrap() != entry.as_bytes() {
            log.append(entry.as_bytes(), at(0, 1)).unwrap();
        }
        drop(log);
        let found = place.entries();
        assert_eq!(found.iter().filter(|found| **found == entry).count(), 1);
        assert_eq!(place.report().findings, []);
    }
}
