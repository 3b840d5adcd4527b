//! Names and folders, and the files that a listing finds for an interval.
#![allow(clippy::unwrap_used)]

use tempfile::TempDir;

use super::*;

/// The first hour of 2025-11-20.
const BEGIN: u64 = 1_763_596_800_000;

fn seal(number: u64, from: u64, until: u64) -> Seal {
    Seal {
        schema: 1,
        gateway: "gw/1".to_owned(),
        software: String::new(),
        number,
        from: Millis::new(from),
        until: Millis::new(until),
        begun: 0,
        ended: 0,
        kept: 0,
        damaged: 0,
        lost: 0,
        gaps: Vec::new(),
        files: Vec::new(),
        replaces: Vec::new(),
        purge: None,
    }
}

fn write(root: &Path, seal: &Seal) {
    let path = root.join(seal.path());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_vec(seal).unwrap()).unwrap();
}

fn numbers(tree: &Tree, first: u64, last: u64) -> Vec<u64> {
    let seals = tree
        .seals(&(Millis::new(first)..=Millis::new(last)))
        .unwrap();
    let mut numbers: Vec<_> = seals.iter().map(|seal| seal.number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_name_tells_what_is_in_the_file() {
    let reach = Millis::new(BEGIN + 999)..=Millis::new(BEGIN + 3_600_001);
    let name = Name::new("gw-1/a b", reach, 17, 2);
    assert_eq!(
        name.to_string(),
        "gw-1%2Fa%20b-20251120T000000Z-20251120T010001Z-17-2"
    );
    assert_eq!(Name::parse(&name.to_string()), Some(name));
    for foreign in [
        "",
        "part-0",
        "gw-x-20251120T010001Z-17-2",
        "20251120T000000Z-20251120T010001Z-1-1",
    ] {
        assert_eq!(Name::parse(foreign), None, "{foreign}");
    }
}

#[test]
fn partitions_are_named_by_the_time_of_the_end_in_utc() {
    let end = Millis::new(BEGIN + 13 * HOUR + 5);
    let folders = Partition::ALL.map(|(partition, _)| partition(end).folder());
    let expected = [
        "sessions/date=2025-11-20/hour=13",
        "days/date=2025-11-20",
        "long/date=2025-11-20",
        "longer/month=2025-11",
    ];
    assert_eq!(folders, expected);
}

#[test]
fn the_seals_of_an_interval_are_found_by_their_names() {
    let root = TempDir::new().unwrap();
    let tree = Tree::new(root.path());
    for hour in 0..48 {
        write(
            root.path(),
            &seal(hour, BEGIN + hour * HOUR, BEGIN + (hour + 1) * HOUR),
        );
    }
    // Three days in which nobody sealed.
    write(root.path(), &seal(48, BEGIN + 2 * DAY, BEGIN + 5 * DAY));
    // It tells of a gap that began a day and a half before.
    let mut late = seal(49, BEGIN + 5 * DAY, BEGIN + 5 * DAY + HOUR);
    late.gaps.push(ArchivedGap {
        cause: "restart".to_owned(),
        from: Millis::new(BEGIN + 4 * DAY - 12 * HOUR),
        to: late.from,
        lost: None,
    });
    write(root.path(), &late);
    fs::write(root.path().join("seals/date=2025-11-20/notes.txt"), "mine").unwrap();

    assert_eq!(numbers(&tree, BEGIN + 10, BEGIN + 20), [0]);
    assert_eq!(
        numbers(&tree, BEGIN + 23 * HOUR + 2_000, BEGIN + 24 * HOUR + 10),
        [23, 24]
    );
    assert_eq!(numbers(&tree, BEGIN + 3 * DAY, BEGIN + 3 * DAY), [48]);
    assert_eq!(numbers(&tree, BEGIN + 4 * DAY, BEGIN + 4 * DAY), [48, 49]);
    assert_eq!(numbers(&tree, BEGIN + 9 * DAY, BEGIN + 9 * DAY), [0_u64; 0]);
    assert_eq!(tree.last_number("gw/1").unwrap(), 49);
    assert_eq!(tree.last_number("gw").unwrap(), 0);
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let root = TempDir::new().unwrap();
    let seal = seal(1, BEGIN, BEGIN + HOUR);
    write(root.path(), &seal);
    fs::write(root.path().join(seal.path()), "{}").unwrap();
    let all = Millis::MIN..=Millis::MAX;
    let error = Tree::new(root.path()).seals(&all).unwrap_err().to_string();
    assert!(
        error.contains(&seal.path()) && error.contains("not a seal record"),
        "{error}"
    );
}
