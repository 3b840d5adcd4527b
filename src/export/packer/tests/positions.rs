//! Positions: packed again from the end of any message on, every flow record arrives once and in order.

use std::slice::from_ref;

use proptest::prelude::*;

use super::decoding::decode_each;
use super::gaps::gap;
use super::property::{any_collector, any_end, any_session};
use super::*;
use crate::session::GapCause;

/// Creates and deletes, most of which make several flow records.
fn many(version: Version) -> (config::Collector, Vec<Record>) {
    let config = config::Collector {
        triplet: true,
        flow: true,
        mtu: 576,
        ..collector(version)
    };
    let split = NatEvent {
        // In v5 each of the triplet's flows with the original counters becomes two.
        totals: Some(totals([9, 3], [5_000_000_000, 216])),
        ..delete(snat(), START, START + 5)
    };
    let events = [
        started(),
        ended(dnat()),
        create(hairpin(), START),
        ended(hairpin()),
        split,
    ];
    let records = events.iter().cycle().take(60).copied().map(Record::Event);
    (config, records.collect())
}

/// A packer and what it has made of `records` from a position on, up to the end.
fn packed_from(
    config: &config::Collector,
    records: &[Record],
    position: Position,
    sequence: u32,
) -> Vec<(Vec<u8>, Load)> {
    let mut script = Script::new(config);
    script.packer.go_back(sequence, Amount::default());
    for (serial, record) in (1..).map(Serial).zip(records) {
        let skip = match serial.cmp(&position.serial) {
            std::cmp::Ordering::Less => continue,
            std::cmp::Ordering::Equal => position.part,
            std::cmp::Ordering::Greater => 0,
        };
        let _ = script
            .packer
            .push(from_ref(record), serial, skip, at(0), &mut script.done);
    }
    script.packer.flush(at(0), &mut script.done);
    script.take_with_loads()
}

fn flows(messages: &[(Vec<u8>, Load)]) -> Vec<String> {
    let messages: Vec<_> = messages.iter().map(|(bytes, _)| bytes.clone()).collect();
    decode(&messages).flows
}

#[test]
fn a_checkpoint_is_no_part_of_a_message_and_holds_up_no_place() {
    for version in ALL {
        let mut script = Script::new(&collector(version));
        script.try_push(&checkpoint(START), 0).unwrap();
        assert!(script.packer.is_idle() && script.take().is_empty());
        script.push(&started(), 0);
        script.try_push(&checkpoint(START), 0).unwrap();
        script.packer.flush(at(0), &mut script.done);
        let [(_, load)] = script.take_with_loads()[..] else {
            panic!("{version:?}")
        };
        assert_eq!((load.flow_records, load.gaps), (1, 0), "{version:?}");
        assert_eq!(load.end, Position::after(Serial(3)), "{version:?}");
    }
}

#[test]
fn from_the_end_of_any_message_on_the_same_flow_records_come_once() {
    for version in ALL {
        let (config, records) = many(version);
        let whole = packed_from(&config, &records, Position::before(Serial(1)), 0);
        let straddling = whole.iter().filter(|(_, load)| load.end.part > 0).count();
        assert!(straddling > 2, "{version:?}: {straddling}");
        for count in 1..whole.len() {
            let (taken, rest) = whole.split_at(count);
            let again = packed_from(
                &config,
                &records,
                taken[count - 1].1.end,
                rest[0].1.sequence,
            );
            let both = [flows(taken), flows(&again)].concat();
            assert_eq!(both, flows(&whole), "{version:?} after {count} messages");
        }
    }
}

#[test]
fn the_last_message_ends_after_the_last_record() {
    for version in ALL {
        let (config, records) = many(version);
        let whole = packed_from(&config, &records, Position::before(Serial(1)), 0);
        let end = Position::after(Serial(records.len() as u64));
        assert_eq!(whole.last().unwrap().1.end, end);
        assert_eq!(packed_from(&config, &records, end, 0), []);
    }
}

/// They end with the message before them, so that nobody waits for them.
#[test]
fn records_of_which_the_format_has_no_form_end_the_message_before_them() {
    let ipv6 = Record::Event(create(nat66(), START));
    let gap = Record::Gap(gap(GapCause::Overflow, Some(3)));
    for unknown in [ipv6, gap] {
        let mut script = Script::new(&collector(Version::NetflowV5));
        script.push(&started(), 0);
        assert_eq!(script.try_push(&unknown, 0), Err(NotRepresentable));
        script.packer.flush(at(0), &mut script.done);
        // Nor does such a record move the message after it when it comes first or between two messages.
        assert_eq!(script.try_push(&unknown, 0), Err(NotRepresentable));
        script.push(&started(), 0);
        script.packer.flush(at(0), &mut script.done);
        let ends: Vec<_> = script
            .take_with_loads()
            .iter()
            .map(|(_, load)| load.end)
            .collect();
        assert_eq!(ends, [2, 4].map(|last| Position::after(Serial(last))));
    }
}

/// A triplet's flows that cannot be packed do not hold up the event before them.
#[test]
fn a_record_that_is_packed_in_part_ends_like_others() {
    let config = config::Collector {
        triplet: true,
        ..collector(Version::NetflowV5)
    };
    // More than 65,536 parts of 32 bits.
    let immense = NatEvent {
        totals: Some(totals([1, 1], [u64::MAX, 1])),
        ..delete(snat(), START, START + 5)
    };
    let mut script = Script::new(&config);
    let result = script.try_push(&Record::Event(immense), 0);
    assert_eq!(result, Err(NotRepresentable));
    script.packer.flush(at(0), &mut script.done);
    let messages = script.take_with_loads();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].1.end, Position::after(Serial(1)));
    assert_eq!(messages[0].1.flow_records, 1);
}

#[test]
fn after_going_back_the_sequence_goes_on_from_there_and_templates_come_first() {
    for version in ALL {
        let (config, records) = many(version);
        let mut script = Script::new(&config);
        for record in &records {
            script.try_push(record, 0).unwrap();
        }
        // One more record is in hand.
        let first = script.take_with_loads();
        assert!(!script.packer.is_idle());
        let (kept, refused) = first.split_at(2);
        let amounts = refused
            .iter()
            .map(|(bytes, load)| Amount::of(*load, bytes.len()));
        let to = refused[0].1.sequence;
        script.packer.go_back(to, amounts.sum());
        assert!(script.packer.is_idle());
        assert_eq!(script.packer.sequence(), to);
        assert_eq!(script.packer.poll_timeout(), None);

        let position = kept[1].1.end;
        script.next = position.serial;
        for (index, record) in records
            .iter()
            .enumerate()
            .skip(position.serial.0 as usize - 1)
        {
            let serial = Serial(index as u64 + 1);
            let skip = if serial == position.serial {
                position.part
            } else {
                0
            };
            script
                .packer
                .push(from_ref(record), serial, skip, at(0), &mut script.done)
                .unwrap();
        }
        script.packer.flush(at(0), &mut script.done);
        let again = script.take_with_loads();
        assert_eq!(sequence(&again[0].0), to);
        if version != Version::NetflowV5 {
            // The collector may know none of them.
            let alone: Vec<_> = again.iter().map(|(bytes, _)| bytes.clone()).collect();
            let first = &decode_each(&alone)[0];
            assert!(first.templates > 0 && again[0].0.len() <= config.max_message());
        }
        let arrived = [kept, &again].concat();
        let whole = packed_from(&config, &records, Position::before(Serial(1)), 0);
        assert_eq!(flows(&arrived), flows(&whole), "{version:?}");
    }
}

/// Records, and the fate of the messages made of them.
#[derive(Clone, Debug)]
enum Step {
    Event(NatEvent),
    Gap(GapCause, Option<u64>),
    Flush,
    /// The oldest message is taken.
    Take,
    /// Throws away the messages that have not been taken.
    ThrowAway,
    /// The receiver turns out to have refused the last messages taken.
    Refuse(usize),
    /// Another run goes on.
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let begun = any_session().prop_map(|session| Step::Event(create(session, START)));
    let ended = any_end().prop_map(Step::Event);
    // Outputs state these gaps themselves, apart from the log.
    let causes = GapCause::ALL.into_iter();
    let causes: Vec<_> = causes
        .filter(|cause| *cause != GapCause::Undelivered)
        .collect();
    let lost = prop::option::of(0_u64..1000);
    let gap = (prop::sample::select(causes), lost);
    prop_oneof![
        8 => begun,
        8 => ended,
        2 => gap.prop_map(|(cause, lost)| Step::Gap(cause, lost)),
        3 => Just(Step::Flush),
        6 => Just(Step::Take),
        1 => Just(Step::ThrowAway),
        1 => (1_usize..4).prop_map(Step::Refuse),
        1 => Just(Step::Restart),
    ]
}

/// A collector that takes messages, and a packer that follows a log for it.
struct Follower<'a> {
    config: &'a config::Collector,
    packer: Encoder,
    done: Queue<Load>,
    log: Vec<Record>,
    /// The number of records in the log that are packed.
    packed: usize,
    position: Position,
    /// Each message with the position at which it begins.
    taken: Vec<(Position, Vec<u8>, Load)>,
    /// For each run, the messages taken before it, and the first record that it packed.
    begins: Vec<(usize, usize)>,
}

impl<'a> Follower<'a> {
    fn new(config: &'a config::Collector) -> Self {
        Self {
            config,
            packer: Encoder::of_collector(config, at(0)),
            done: Queue::new(),
            log: Vec::new(),
            packed: 0,
            position: Position::before(Serial(1)),
            taken: Vec::new(),
            begins: vec![(0, 0)],
        }
    }

    fn pack_all(&mut self) {
        while let Some(record) = self.log.get(self.packed) {
            self.packed += 1;
            let serial = Serial(self.packed as u64);
            let is_begun = serial == self.position.serial;
            let skip = if is_begun { self.position.part } else { 0 };
            let done = &mut self.done;
            let _ = self
                .packer
                .push(from_ref(record), serial, skip, at(0), done);
        }
    }

    fn take(&mut self) {
        if let Some(message) = self.done.front() {
            let (bytes, load) = (message.bytes.to_vec(), message.tag);
            self.taken.push((self.position, bytes, load));
            self.position = load.end;
            self.done.pop();
        }
    }

    fn sequence(&self) -> u32 {
        let front = self.done.front();
        front.map_or(self.packer.sequence(), |front| front.tag.sequence)
    }

    /// Throws away the messages not taken, and the last `refused` of those taken.
    fn go_back(&mut self, refused: usize) {
        let (this_run, _) = self.begins.last().unwrap();
        let from = self.taken.len() - refused.min(self.taken.len() - this_run);
        let entries = self.done.entries();
        let mut back: Amount = entries.map(|(octets, load)| Amount::of(load, octets)).sum();
        let mut sequence = self.sequence();
        let refused = self.taken.split_off(from);
        for (_, bytes, load) in &refused {
            back += Amount::of(*load, bytes.len());
        }
        if let Some((begin, _, load)) = refused.first() {
            (self.position, sequence) = (*begin, load.sequence);
        }
        self.done.clear();
        self.packer.go_back(sequence, back);
        self.packed = self.position.serial.0 as usize - 1;
    }

    fn restart(&mut self) {
        let sequence = self.sequence();
        self.packer = Encoder::of_collector(self.config, at(0));
        self.packer.go_back(sequence, Amount::default());
        self.done.clear();
        self.packed = self.position.serial.0 as usize - 1;
        self.begins.push((self.taken.len(), self.packed));
    }

    fn handle(&mut self, step: &Step) {
        match step {
            Step::Event(event) => self.log.push(Record::Event(*event)),
            Step::Gap(cause, lost) => self.log.push(Record::Gap(gap(*cause, *lost))),
            Step::Flush => self.packer.flush(at(0), &mut self.done),
            Step::Take => self.take(),
            Step::ThrowAway => self.go_back(0),
            Step::Refuse(count) => self.go_back(*count),
            Step::Restart => self.restart(),
        }
        self.pack_all();
    }

    fn finish(&mut self) {
        self.packer.flush(at(0), &mut self.done);
        while !self.done.is_empty() {
            self.take();
        }
    }
}

/// Checks a gap as the decoder reads it. Its run packed the log from `first` on, and the total is that of this packing:
/// when a gap is packed again, those after it are already known. Nothing is counted twice.
fn assert_told(row: &str, log: &[Record], index: usize, first: usize) {
    let Record::Gap(gap) = log[index] else {
        panic!("no gap");
    };
    let total = |records: &[Record]| -> u64 {
        let of_cause = |record: &Record| match record {
            Record::Gap(other) if other.cause == gap.cause => other.lost,
            _ => None,
        };
        records.iter().filter_map(of_cause).sum()
    };
    let begin = format!("{} +0 +1000", crate::wire::gap::process(gap.cause));
    let Some(lost) = gap.lost else {
        return assert_eq!(row, begin);
    };
    let (rest, told) = row.rsplit_once(' ').unwrap();
    assert_eq!(rest, format!("{begin} {lost}"));
    let range = total(&log[first..=index])..=total(&log[first..]);
    assert!(range.contains(&told.parse().unwrap()), "{row}: {range:?}");
}

proptest! {
    #[test]
    fn whatever_is_packed_again_all_arrives_once_in_order_and_is_counted_once(
        config in any_collector(),
        steps in prop::collection::vec(any_step(), 0..200),
    ) {
        let mut follower = Follower::new(&config);
        steps.iter().for_each(|step| follower.handle(step));
        follower.finish();
        let messages: Vec<_> = follower.taken.iter().map(|(_, bytes, _)| bytes.clone()).collect();
        let arrived = decode_each(&messages);

        // A packer that never packs anything twice.
        let mut straight = Script::new(&config);
        for record in &follower.log {
            let _ = straight.try_push(record, 0);
        }
        let flows: Vec<_> = arrived.iter().flat_map(|message| message.flows.clone()).collect();
        prop_assert_eq!(flows, decode(&straight.flush(0)).flows);

        let is_gap = |index: &usize| matches!(follower.log[*index], Record::Gap(_));
        let mut gaps = (0..follower.log.len()).filter(is_gap);
        let (mut octets, mut records) = (0, 0);
        for (index, message) in arrived.iter().enumerate() {
            prop_assert!(messages[index].len() <= config.max_message());
            let flows = message.flows.len();
            let counts = match config.version {
                Version::NetflowV5 => flows,
                Version::NetflowV9 => 1,
                Version::Ipfix => flows + message.options.len(),
            };
            if let Some(next) = messages.get(index + 1) {
                prop_assert_eq!(sequence(&messages[index]) + counts as u32, sequence(next));
            }
            let begun = follower.begins.iter().rfind(|(begin, _)| *begin <= index);
            let (begin, first) = *begun.unwrap();
            if begin == index {
                (octets, records) = (0, 0);
            }
            for row in &message.options {
                let row = row.trim_start_matches("168496141 ");
                // Statistics have no process id before the time.
                if row.starts_with('+') {
                    prop_assert_eq!(row, format!("+0 {octets} {} {records} 0", index - begin));
                } else {
                    assert_told(row, &follower.log, gaps.next().unwrap(), first);
                }
            }
            octets += messages[index].len();
            records += flows;
        }
        prop_assert!(config.version == Version::NetflowV5 || gaps.next().is_none());
    }
}
