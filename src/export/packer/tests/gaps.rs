//! Gaps on the wire, and the events that their totals count.

use super::*;
use crate::session::{Gap, GapCause};

/// A gap of the second after [`START`].
pub(super) fn gap(cause: GapCause, lost: Option<u64>) -> Gap {
    Gap {
        cause,
        from: Wall::from_millis(START),
        to: Wall::from_millis(START + 1000),
        lost,
    }
}

fn push_gap(script: &mut Script, gap: Gap) {
    if gap.cause == GapCause::Undelivered {
        script.packer.count_lost(gap.lost.unwrap());
    }
    script.try_push(&Record::Gap(gap), 0).unwrap();
}

fn push_one_of_each_kind(script: &mut Script) {
    push_gap(script, gap(GapCause::Restart, None));
    push_gap(script, gap(GapCause::Overflow, Some(5)));
    push_gap(script, gap(GapCause::TableFull, Some(7)));
    push_gap(script, gap(GapCause::Undelivered, Some(1)));
}

/// `START` and a second after it, in milliseconds.
const TIMES: &str = "000001a1faa21280 000001a1faa21668";

#[test]
fn gaps_are_ipfix_options_data_byte_for_byte() {
    let mut script = Script::new(&collector(Version::Ipfix));
    script.send(&started(), 0);
    let mut back = gap(GapCause::ClockStep, None);
    std::mem::swap(&mut back.from, &mut back.to);
    push_gap(&mut script, gap(GapCause::Restart, None));
    push_gap(&mut script, back);
    push_gap(&mut script, gap(GapCause::Overflow, Some(5)));
    push_gap(&mut script, gap(GapCause::TableFull, Some(7)));
    push_gap(&mut script, gap(GapCause::InsertFailed, Some(9)));
    push_gap(&mut script, gap(GapCause::Undelivered, Some(11)));
    push_gap(&mut script, gap(GapCause::Overflow, Some(6)));
    let expected = format!(
        // One flow record and the statistics come before.
        "000a 0120 6b00ac90 00000002 0a0b0c0d
         0204 001c 0a0b0c0d 00000001 {TIMES}
         0204 001c 0a0b0c0d 00000005 000001a1faa21668 000001a1faa21280
         0201 002c 0a0b0c0d 00000002 {TIMES} 0000000000000005 0000000000000005
         0202 002c 0a0b0c0d 00000003 {TIMES} 0000000000000007 0000000000000007
         0202 002c 0a0b0c0d 00000004 {TIMES} 0000000000000009 0000000000000009
         0203 0028 00000006 {TIMES} 000000000000000b 000000000000000b
         0201 002c 0a0b0c0d 00000002 {TIMES} 0000000000000006 000000000000000b"
    );
    assert_eq!(script.flush(0), [hex(&expected)]);
    // Gaps count as data records.
    assert_eq!(sequence(&script.send(&started(), 0)[0]), 9);
}

#[test]
fn gaps_are_netflow_9_options_data_byte_for_byte() {
    let mut script = Script::new(&collector(Version::NetflowV9));
    script.send(&started(), 0);
    push_gap(&mut script, gap(GapCause::Restart, None));
    push_gap(&mut script, gap(GapCause::Overflow, Some(5)));
    push_gap(&mut script, gap(GapCause::TableFull, Some(7)));
    push_gap(&mut script, gap(GapCause::Undelivered, Some(11)));
    let expected = format!(
        "0009 0004 0036ee80 6b00ac90 00000001 0a0b0c0d
         0214 001c 00000000 00000001 {TIMES}
         0211 002c 00000000 00000002 {TIMES} 0000000000000005 0000000000000005
         0212 002c 00000000 00000003 {TIMES} 0000000000000007 0000000000000007
         0213 002c 00000000 00000006 {TIMES} 000000000000000b 000000000000000b"
    );
    assert_eq!(script.flush(0), [hex(&expected)]);
    assert_eq!(sequence(&script.send(&started(), 0)[0]), 2);
}

#[test]
fn gaps_are_read_back_by_an_independent_decoder() {
    // The decoder reports the scope of NetFlow v9 elsewhere.
    for (version, scope) in [(Version::Ipfix, "168496141 "), (Version::NetflowV9, "")] {
        let mut script = Script::new(&collector(version));
        push_one_of_each_kind(&mut script);
        let decoded = decode(&script.flush(0));
        assert_eq!(decoded.templates, 5);
        assert_eq!(
            decoded.options[1..],
            [
                format!("{scope}1 +0 +1000"),
                format!("{scope}2 +0 +1000 5 5"),
                format!("{scope}3 +0 +1000 7 7"),
                "6 +0 +1000 1 1".to_owned(),
            ],
            "{version:?}"
        );
    }
}

#[test]
fn a_gap_leaves_when_a_record_would() {
    let mut script = Script::new(&collector(Version::Ipfix));
    push_gap(&mut script, gap(GapCause::Restart, None));
    assert_eq!(script.packer.poll_timeout(), Some(at(1000).up));
    assert!(script.timeout(999).is_empty());
    assert_eq!(decode(&script.timeout(1000)).options.len(), 2);
}

#[test]
fn netflow_5_has_no_record_for_a_gap() {
    let mut script = Script::new(&collector(Version::NetflowV5));
    for cause in GapCause::ALL {
        let result = script.try_push(&Record::Gap(gap(cause, Some(1))), 0);
        assert_eq!(result, Err(NotRepresentable));
    }
    assert!(script.packer.is_idle());
}

#[test]
fn the_total_of_a_cause_goes_on_from_gap_to_gap() {
    for (cause, process) in [(GapCause::Undelivered, 6), (GapCause::Overflow, 2)] {
        let mut script = Script::new(&collector(Version::Ipfix));
        push_gap(&mut script, gap(cause, Some(2)));
        push_gap(&mut script, gap(cause, Some(3)));
        let options = decode(&script.flush(0)).options;
        let told: Vec<_> = options[1..]
            .iter()
            .map(|row| row.trim_start_matches("168496141 "))
            .collect();
        let expected = [
            format!("{process} +0 +1000 2 2"),
            format!("{process} +0 +1000 3 5"),
        ];
        assert_eq!(told, expected);
    }
}

/// This holds for a gap in a finished message and for one in the message in hand.
#[test]
fn a_gap_that_is_packed_again_counts_once() {
    for is_finished in [true, false] {
        let mut script = Script::new(&collector(Version::Ipfix));
        let record = Record::Gap(gap(GapCause::Overflow, Some(5)));
        script.try_push(&record, 0).unwrap();
        if is_finished {
            script.packer.flush(at(0), &mut script.done);
        }
        let finished = script.take_with_loads();
        let back = finished
            .iter()
            .map(|(bytes, load)| Amount::of(*load, bytes.len()))
            .sum();
        script.packer.go_back(0, back);
        script.next = Serial(1);
        script.try_push(&record, 0).unwrap();
        push_gap(&mut script, gap(GapCause::Overflow, Some(6)));
        assert_eq!(
            decode(&script.flush(0)).options[1..],
            ["168496141 2 +0 +1000 5 5", "168496141 2 +0 +1000 6 11"]
        );
    }
}
