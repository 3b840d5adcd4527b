//! A machine that stops at any operation leaves a log that reopens with all that it had accepted.

use proptest::prelude::*;

use super::super::disk::Disk;
use super::super::disk::faults::Faults;
use super::*;

/// Opens the log and appends entries of three days until the machine stops after some operations. Returns whether it
/// stopped; `accepted` gets the entries whose append returned.
fn run(
    place: &Place,
    first_day: u64,
    left: Option<u32>,
    loses_names: bool,
    accepted: &mut Vec<String>,
) -> bool {
    let limbo = tempfile::tempdir_in(place.0.path()).unwrap();
    let faults = Faults {
        left: left.into(),
        limbo: loses_names.then(|| limbo.path().to_owned()),
        ..Faults::default()
    };
    let log = Log::open_on(
        Disk { faults },
        &place.log(),
        &place.keys(),
        ORIGIN,
        at(first_day, 0),
    );
    let Ok(mut log) = log else { return true };
    for (day, secs) in [
        (first_day, 1),
        (first_day, 2),
        (first_day + 1, 1),
        (first_day + 2, 1),
    ] {
        let entry = entry(day, secs);
        if log.append(entry.as_bytes(), at(day, secs)).is_err() {
            return true;
        }
        accepted.push(entry);
    }
    false
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
    for loses_names in [false, true] {
        for left in 0.. {
            let (place, mut accepted) = (Place::new(), Vec::new());
            let has_stopped = run(&place, 0, Some(left), loses_names, &mut accepted);
            assert_whole(&place, &accepted, 1);
            if !has_stopped {
                assert!(left > 50, "{left}");
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn so_does_one_that_stops_again_and_again(
        stops in prop::collection::vec((0_u32..90, any::<bool>()), 2..5),
    ) {
        let (place, mut accepted) = (Place::new(), Vec::new());
        for (run_number, &(left, loses_names)) in (0..).zip(&stops) {
            run(&place, run_number * 3, Some(left), loses_names, &mut accepted);
        }
        assert_whole(&place, &accepted, stops.len());
    }
}

#[test]
fn an_append_that_failed_can_be_tried_again() {
    let place = Place::new();
    drop(place.open(at(0, 0)));
    for left in 0..12 {
        let disk = Disk::default();
        let mut log = Log::open_on(disk, &place.log(), &place.keys(), ORIGIN, at(0, 0)).unwrap();
        log.disk().faults.left.set(Some(left));
        let entry = entry(0, left.into());
        log.append(entry.as_bytes(), at(0, 1)).unwrap_err();
        log.disk().faults.left.set(None);
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
