//! Gaps: what they are on the wire, and that no loss goes untold or is told twice.

use proptest::prelude::*;

use super::*;
use crate::session::GapCause;

/// A gap of the second after [`START`].
fn gap(cause: GapCause, lost: Option<u64>) -> Gap {
    Gap {
        cause,
        from: Wall::from_millis(START),
        to: Wall::from_millis(START + 1000),
        lost,
    }
}

fn push_gap(script: &mut Script, gap: Gap) {
    script
        .packer
        .push_gap(gap, at(0), &mut script.done)
        .unwrap();
}

/// The oldest message is lost on its way.
fn fail(script: &mut Script) {
    let octets = script.done.front().unwrap().bytes.len();
    let load = script.done.pop().unwrap();
    script.packer.handle_not_sent(octets, load);
}

fn push_one_of_each_kind(script: &mut Script) {
    push_gap(script, gap(GapCause::Restart, None));
    push_gap(script, gap(GapCause::Overflow, Some(5)));
    push_gap(script, gap(GapCause::TableFull, Some(7)));
    // One flow record is lost and told.
    script.push(&started(), 0);
    script.packer.flush(at(0), &mut script.done);
    fail(script);
    script.packer.tell_losses(at(0), &mut script.done);
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
        // One flow record and the statistics before.
        "000a 0118 6b00ac90 00000002 0a0b0c0d
         010a 0034 0a0b0c0d 00000001 {TIMES} 0a0b0c0d 00000005 000001a1faa21668 000001a1faa21280
         0107 002c 0a0b0c0d 00000002 {TIMES} 0000000000000005 0000000000000005
         0108 0054 0a0b0c0d 00000003 {TIMES} 0000000000000007 0000000000000007
         0a0b0c0d 00000004 {TIMES} 0000000000000009 0000000000000009
         0109 0028 00000006 {TIMES} 000000000000000b 000000000000000b
         0107 002c 0a0b0c0d 00000002 {TIMES} 0000000000000006 000000000000000b"
    );
    assert_eq!(script.flush(0), [hex(&expected)]);
    // They count as data records.
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
         010a 001c 00000000 00000001 {TIMES}
         0107 002c 00000000 00000002 {TIMES} 0000000000000005 0000000000000005
         0108 002c 00000000 00000003 {TIMES} 0000000000000007 0000000000000007
         0109 002c 00000000 00000006 {TIMES} 000000000000000b 000000000000000b"
    );
    assert_eq!(script.flush(0), [hex(&expected)]);
    assert_eq!(sequence(&script.send(&started(), 0)[0]), 2);
}

#[test]
fn gaps_are_read_back_by_an_independent_decoder() {
    // What the decoder has for the scope of NetFlow v9 is elsewhere.
    for (version, scope) in [(Version::Ipfix, "168496141 "), (Version::NetflowV9, "")] {
        let mut script = Script::new(&collector(version));
        push_one_of_each_kind(&mut script);
        let decoded = decode(&script.flush(0));
        assert_eq!(decoded.templates, 9);
        assert_eq!(
            decoded.options[1..],
            [
                format!("{scope}1 +0 +1000"),
                format!("{scope}2 +0 +1000 5 5"),
                format!("{scope}3 +0 +1000 7 7"),
                "6 +0 +0 1 1".to_owned(),
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
    let result = script
        .packer
        .push_gap(gap(GapCause::Restart, None), at(0), &mut script.done);
    assert_eq!(result, Err(NotRepresentable));
    script.push(&started(), 0);
    script.packer.flush(at(0), &mut script.done);
    fail(&mut script);
    assert!(!script.packer.has_losses());
    assert_eq!(script.packer.totals().not_sent, 1);
}

#[test]
fn the_total_goes_on_where_the_interval_begins_anew() {
    let mut script = Script::new(&collector(Version::Ipfix));
    for (lost, expected) in [(2, "6 +0 +0 2 2"), (3, "6 +0 +0 3 5")] {
        (0..lost).for_each(|_| script.push(&started(), 0));
        script.packer.flush(at(0), &mut script.done);
        fail(&mut script);
        assert!(script.packer.has_losses());
        script.packer.tell_losses(at(0), &mut script.done);
        assert!(!script.packer.has_losses());
        // With the templates, which were in the message that was lost.
        assert_eq!(decode(&script.flush(0)).options[1], expected);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Event(u64),
    Gap(GapCause, Option<u64>),
    Timeout,
    Send,
    Fail,
    Refuse,
    Tell,
}

fn any_step() -> impl Strategy<Value = Step> {
    let cause = prop::sample::select(GapCause::ALL[..5].to_vec());
    let lost = prop::option::of(0_u64..1000);
    prop_oneof![
        12 => (0_u64..100_000).prop_map(Step::Event),
        1 => (cause, lost).prop_map(|(cause, lost)| Step::Gap(cause, lost)),
        2 => Just(Step::Timeout),
        3 => Just(Step::Send),
        3 => Just(Step::Fail),
        1 => Just(Step::Refuse),
        2 => Just(Step::Tell),
    ]
}

/// Sum of the counts of each cause, by process; last the uncounted ones.
fn told(options: &[String]) -> [u64; 7] {
    let mut told = [0; 7];
    for record in options {
        // Statistics have six values: the domain, the time and four counts.
        let values: Vec<_> = record.split(' ').collect();
        match values[..] {
            ["168496141", process, _, _, lost, _] if !process.starts_with('+') => {
                told[process.parse::<usize>().unwrap() - 1] += lost.parse::<u64>().unwrap();
            }
            ["6", _, _, lost, _] => told[5] += lost.parse::<u64>().unwrap(),
            ["168496141", _, _, _] => told[6] += 1,
            ["168496141", time, ..] if time.starts_with('+') => {}
            _ => panic!("{record}"),
        }
    }
    told
}

proptest! {
    /// With a queue of three messages, whatever leaves, fails or is refused.
    #[test]
    fn what_arrives_and_what_gaps_admit_is_what_was_pushed(
        steps in prop::collection::vec(any_step(), 0..300),
        refresh in 1_u32..5,
    ) {
        let config = config::Collector { template_refresh_packets: refresh, mtu: 576, ..collector(Version::Ipfix) };
        let mut packer = Packer::new(&config, Transport::Datagram, at(0));
        let mut done = Queue::<Load>::new(3 * 600);
        let (mut arrived, mut last) = (Vec::new(), Load::default());
        let (mut pushed, mut lost, mut refused) = (1, [0; 5], false);
        let send = |packer: &mut Packer, done: &mut Queue<Load>, arrived: &mut Vec<_>, last: &mut Load| {
            if let Some(message) = done.front() {
                arrived.push(message.bytes.to_vec());
                *last = done.pop().unwrap();
                packer.handle_sent(*last);
            }
        };
        // The collector knows the templates, whatever is lost later.
        packer.push(&started(), at(0), &mut done).unwrap();
        packer.flush(at(0), &mut done);
        send(&mut packer, &mut done, &mut arrived, &mut last);
        for step in steps {
            match step {
                Step::Event(millis) => {
                    packer.push(&create(snat(), START + millis), at(0), &mut done).unwrap();
                    pushed += 1;
                }
                Step::Gap(cause, count) => {
                    packer.push_gap(gap(cause, count), at(0), &mut done).unwrap();
                    lost[cause as usize] += count.unwrap_or_default();
                }
                Step::Timeout => packer.flush(at(0), &mut done),
                Step::Send => send(&mut packer, &mut done, &mut arrived, &mut last),
                Step::Fail => {
                    if let Some(message) = done.front() {
                        let octets = message.bytes.len();
                        let load = done.pop().unwrap();
                        packer.handle_not_sent(octets, load);
                    }
                }
                Step::Refuse => {
                    packer.handle_refused(last);
                    // What left last is as good as never sent, and can be refused once.
                    if last != Load::default() {
                        refused = true;
                        last = Load::default();
                    }
                }
                Step::Tell => packer.tell_losses(at(0), &mut done),
            }
        }
        // Everything leaves in the end.
        while packer.has_losses() || !packer.is_idle() || !done.is_empty() {
            while !done.is_empty() {
                send(&mut packer, &mut done, &mut arrived, &mut last);
            }
            packer.tell_losses(at(0), &mut done);
            packer.flush(at(0), &mut done);
        }
        let decoded = decode(&arrived);
        let told = told(&decoded.options);
        let flows = decoded.flows.len() as u64;
        prop_assert_eq!(flows, packer.totals().records);
        prop_assert_eq!(flows + packer.totals().not_sent, pushed);
        if refused {
            // Told twice rather than never.
            prop_assert!(flows + told[5] >= pushed);
            prop_assert!(told[..5].iter().zip(lost).all(|(told, lost)| *told >= lost));
        } else {
            prop_assert_eq!(flows + told[5], pushed);
            prop_assert_eq!(&told[..5], &lost);
        }
    }
}
