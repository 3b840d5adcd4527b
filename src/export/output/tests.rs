//! The decisions of an output, with a fake transport, a log of its own and injected time.
#![allow(clippy::unwrap_used)]

use std::io;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::config::{self, Facility, Format, NatEventValues, Severity, Target, Version};
use crate::export::source::Found;
use crate::export::transport::fake::Fake;
use crate::session::Session;
use crate::time::Wall;
use crate::wire::record::Block;
use crate::wire::samples::{create, delete, nat66, snat};
use crate::wire::syslog::Host;

/// Blocks of some records each, of which the test takes away and damages what it likes.
struct Log {
    blocks: Vec<Rc<Block>>,
    damaged: Vec<Serial>,
    is_available: bool,
    pace: usize,
}

impl Log {
    fn new(records: u32, in_block: u32) -> Self {
        let mut this = Self {
            blocks: Vec::new(),
            damaged: Vec::new(),
            is_available: true,
            pace: 0,
        };
        for first in (0..records).step_by(in_block as usize) {
            this.add(first..(first + in_block).min(records));
        }
        this
    }

    fn add(&mut self, numbers: std::ops::Range<u32>) {
        let first = self.blocks.last().map_or(Serial(1), |last| last.end());
        let mut block = Block::new(first, Vec::new());
        numbers.for_each(|number| block.push(&record(number)));
        self.blocks.push(Rc::new(block));
    }

    fn evict(&mut self) -> Span {
        let block = self.blocks.remove(0);
        span(&block)
    }
}

fn span(block: &Block) -> Span {
    Span {
        first: block.first,
        end: block.end(),
        since: block.since,
        until: block.until,
    }
}

impl Source for Log {
    fn block(&mut self, serial: Serial) -> Found {
        if !self.is_available {
            return Found::Unavailable;
        }
        let found = self.blocks.iter().find(|block| block.end() > serial);
        found.map_or(Found::Nothing, |block| {
            if self.damaged.contains(&block.first) {
                Found::Damaged(span(block))
            } else {
                Found::Block(Rc::clone(block))
            }
        })
    }

    fn end(&self) -> Serial {
        self.blocks.last().map_or(Serial(1), |last| last.end())
    }

    fn pace(&self) -> usize {
        self.pace
    }
}

/// A create whose connection id is `number`, at a time of its own.
fn record(number: u32) -> Record {
    let session = Session {
        id: Some(number),
        ..snat()
    };
    Record::Event(create(session, 1_000 + u64::from(number)))
}

fn at(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(1_772_366_400_000 + millis),
        Uptime::from_millis(50_000 + millis),
    )
}

fn text() -> config::Syslog {
    config::Syslog {
        name: None,
        target: Target::Stdout,
        format: Format::Text,
        facility: Facility(22 << 3),
        severity: Severity::Informational,
        app_name: "nattrail".to_owned(),
        exporter_address: [192, 0, 2, 1].into(),
    }
}

fn ipfix() -> config::Collector {
    config::Collector {
        name: None,
        address: "192.0.2.1:4739".parse().unwrap(),
        version: Version::Ipfix,
        source: None,
        events: true,
        triplet: false,
        nat_event: NatEventValues::Rfc8158,
        destination: true,
        zone: false,
        post_nat_counters: true,
        mtu: 1500,
        template_refresh: Duration::from_secs(1800),
        template_refresh_packets: 20,
        send_buffer: None,
        observation_domain: 1,
        export_delay: Duration::ZERO,
    }
}

fn first_place() -> Place {
    Place {
        position: Position::before(Serial(1)),
        ..Place::default()
    }
}

/// An output of lines, over a fake transport.
fn lines(is_udp: bool, place: Place) -> Output {
    let host = Host {
        hostname: "gw".to_owned(),
        pid: 1,
    };
    let encoder = Encoder::of_copy(&text(), &host);
    with_fake(encoder, is_udp, place)
}

fn with_fake(encoder: Encoder, is_udp: bool, place: Place) -> Output {
    let fake = Fake {
        is_udp,
        ..Fake::default()
    };
    let transport = Transport::Fake(fake);
    let statistics = metrics::Output::default();
    Output::new("fake".to_owned(), encoder, transport, statistics, place)
}

fn fake(output: &mut Output) -> &mut Fake {
    match &mut output.transport {
        Transport::Fake(fake) => fake,
        _ => unreachable!("made with a fake"),
    }
}

/// The ids of the events, or the counts of the gaps as text, in the order in which they were taken.
fn taken(output: &mut Output) -> Vec<String> {
    let lines = fake(output).taken.iter();
    let field = |line: &str, key: &str| {
        let mut words = line.split_whitespace();
        let value = words.find_map(|word| word.strip_prefix(key));
        value.map(str::to_owned)
    };
    let of_line = |line: &Vec<u8>| {
        let line = String::from_utf8(line.clone()).unwrap();
        field(&line, "id=").unwrap_or_else(|| format!("lost {}", field(&line, "lost=").unwrap()))
    };
    lines.map(of_line).collect()
}

fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers
        .into_iter()
        .map(|number| number.to_string())
        .collect()
}

fn broken() -> Failure {
    let error = io::Error::from_raw_os_error(libc::ENETUNREACH);
    Failure::Broken(Trouble::new("send", error))
}

/// The go-back to the message of this index among those that were taken, which are no longer.
fn refuse(output: &mut Output, index: usize) -> GoBack {
    let fake = fake(output);
    let octets: Vec<_> = fake
        .taken
        .drain(index..)
        .map(|message| message.len())
        .collect();
    let sent: Vec<_> = fake.sent.drain(index..).collect();
    let amounts = sent.iter().zip(octets);
    GoBack {
        position: sent[0].0,
        since: at(0).up,
        sequence: sent[0].1.sequence,
        amount: amounts
            .map(|((_, load), octets)| Amount::of(*load, octets))
            .sum(),
    }
}

#[test]
fn records_leave_once_and_in_the_order_of_the_log() {
    let mut log = Log::new(1000, 300);
    let mut output = lines(false, first_place());
    while output.poll_timeout(log.end()).is_some() {
        output.pump(&mut log, at(0));
    }
    assert_eq!(taken(&mut output), ids(0..1000));
    assert!(output.is_settled(log.end()));
    assert_eq!(output.take_lost(), None);
    assert_eq!(output.place().position, Position::before(log.end()));
    let metrics = output.metrics(log.end());
    assert_eq!(
        (metrics.records, metrics.behind, metrics.lost),
        (1000, 0, 0)
    );
    log.add(1000..1001);
    output.pump(&mut log, at(1));
    assert_eq!(taken(&mut output), ids(0..1001));
}

#[test]
fn an_output_that_is_made_anew_goes_on_at_its_place() {
    let mut log = Log::new(100, 30);
    let mut output = lines(false, first_place());
    fake(&mut output).write_failures = (0..40).map(|_| None).chain([Some(Failure::Busy)]).collect();
    output.pump(&mut log, at(0));
    let before = taken(&mut output);
    assert_eq!(before.len(), 40);
    let mut output = lines(false, output.place());
    output.pump(&mut log, at(1));
    assert_eq!([before, taken(&mut output)].concat(), ids(0..100));
}

#[test]
fn a_receiver_that_cannot_be_reached_is_tried_again_and_gets_everything() {
    let mut log = Log::new(10, 10);
    let mut output = lines(false, first_place());
    fake(&mut output).open_failures = (0..5).map(|_| broken()).collect();
    let mut now = 0;
    let mut waits = Vec::new();
    while taken(&mut output).is_empty() {
        output.pump(&mut log, at(now));
        let next = output.poll_timeout(log.end());
        let wait = next.map_or(0, |next| next.saturating_since(at(now).up).as_millis());
        waits.push(wait);
        now += wait as u64;
    }
    // The first error is tried again at once.
    assert_eq!(waits, [5, 10, 0]);
    assert_eq!(taken(&mut output), ids(0..10));
    let metrics = output.metrics(log.end());
    assert_eq!((metrics.errors, metrics.state), (2, State::Working));
}

#[test]
fn nothing_is_tried_before_the_back_off_is_over() {
    let mut log = Log::new(10, 10);
    let mut output = lines(false, first_place());
    fake(&mut output).open_failures = (0..9).map(|_| broken()).collect();
    for _ in 0..5 {
        output.pump(&mut log, at(0));
    }
    assert_eq!(fake(&mut output).opens, 2);
    assert_eq!(output.metrics(log.end()).state, State::Failing);
}

#[test]
fn a_full_receiver_that_drains_is_tried_again_within_a_millisecond() {
    let mut log = Log::new(10, 10);
    let mut output = lines(false, first_place());
    fake(&mut output).write_failures = [None, Some(Failure::Busy)].into();
    output.pump(&mut log, at(0));
    assert_eq!(output.poll_timeout(log.end()), Some(at(1).up));
    output.pump(&mut log, at(1));
    assert_eq!(taken(&mut output), ids(0..10));
}

#[test]
fn after_a_refusal_one_probe_a_second_finds_out_when_somebody_listens() {
    let mut log = Log::new(10, 10);
    let mut output = lines(true, first_place());
    output.pump(&mut log, at(0));
    assert_eq!(taken(&mut output), ids(0..10));
    // The answer to the fourth comes only now.
    let go_back = refuse(&mut output, 3);
    fake(&mut output).refusals.push_back(go_back);
    output.pump(&mut log, at(1000));
    assert_eq!(output.metrics(log.end()).state, State::Refused);
    assert_eq!(output.place().position, Position::before(Serial(4)));
    for second in 2..5 {
        assert_eq!(output.poll_timeout(log.end()), Some(at(1000 * second).up));
        output.pump(&mut log, at(1000 * second));
        assert_eq!(taken(&mut output), ids(0..4), "one probe");
        output.pump(&mut log, at(1000 * second + 500));
        assert_eq!(taken(&mut output), ids(0..4), "no second one");
        let go_back = refuse(&mut output, 3);
        fake(&mut output).refusals.push_back(go_back);
    }
    output.pump(&mut log, at(5000));
    assert_eq!(
        taken(&mut output),
        ids(0..4),
        "another probe, which nobody refuses"
    );
    output.pump(&mut log, at(6000));
    assert_eq!(taken(&mut output), ids(0..10));
    let metrics = output.metrics(log.end());
    assert_eq!((metrics.records, metrics.refused), (10, 4));
    assert_eq!(metrics.state, State::Working);
}

#[test]
fn a_refusal_takes_sequence_numbers_back_too() {
    let mut log = Log::new(200, 100);
    let encoder = Encoder::of_collector(&ipfix(), at(0));
    let mut output = with_fake(encoder, true, first_place());
    output.pump(&mut log, at(0));
    let all = fake(&mut output).taken.clone();
    let sequences: Vec<_> = fake(&mut output)
        .sent
        .iter()
        .map(|sent| sent.1.sequence)
        .collect();
    assert!(all.len() > 3, "{} messages", all.len());
    let go_back = refuse(&mut output, 2);
    fake(&mut output).refusals.push_back(go_back);
    for second in 1..4 {
        output.pump(&mut log, at(1000 * second));
    }
    let again: Vec<_> = fake(&mut output)
        .sent
        .iter()
        .map(|sent| sent.1.sequence)
        .collect();
    assert_eq!(again[..3], sequences[..3]);
    assert_eq!(
        fake(&mut output).sent.last().unwrap().1.end,
        Position::before(log.end())
    );
    let metrics = output.metrics(log.end());
    assert_eq!(metrics.flow_records, 200, "each counts once");
    assert_eq!(metrics.messages, again.len() as u64);
}

#[test]
fn records_that_the_log_no_longer_has_are_one_gap_where_they_are_missing() {
    let mut log = Log::new(100, 10);
    let mut output = lines(false, first_place());
    fake(&mut output).write_failures = (0..15).map(|_| None).chain([Some(Failure::Busy)]).collect();
    output.pump(&mut log, at(0));
    for _ in 0..4 {
        // Of the first block it had taken all.
        output.handle_evicted(&log.evict());
    }
    assert_eq!(
        output.take_lost().map(|(missing, _)| missing.count),
        Some(25)
    );
    output.pump(&mut log, at(1));
    let expected = [ids(0..15), vec!["lost 25".to_owned()], ids(40..100)].concat();
    assert_eq!(taken(&mut output), expected);
    let metrics = output.metrics(log.end());
    assert_eq!((metrics.records, metrics.lost, metrics.gaps), (75, 25, 1));
}

#[test]
fn a_gap_that_is_not_stated_yet_goes_with_the_place() {
    let mut log = Log::new(20, 10);
    let mut output = lines(false, first_place());
    fake(&mut output).is_blocked = true;
    output.pump(&mut log, at(0));
    output.handle_evicted(&log.evict());
    output.pump(&mut log, at(1));
    let place = output.place();
    assert_eq!(place.missing.map(|missing| missing.count), Some(10));
    let mut output = lines(false, place);
    output.pump(&mut log, at(2));
    let expected = [vec!["lost 10".to_owned()], ids(10..20)].concat();
    assert_eq!(taken(&mut output), expected);
    assert_eq!(output.place().missing, None);
}

#[test]
fn a_probe_that_was_out_while_its_records_went_counts_with_them() {
    let mut log = Log::new(20, 10);
    let mut output = lines(true, first_place());
    output.pump(&mut log, at(0));
    let go_back = refuse(&mut output, 0);
    output.go_back(go_back, None, at(0));
    output.pump(&mut log, at(1000));
    assert_eq!(taken(&mut output), ids(0..1));
    output.handle_evicted(&log.evict());
    assert_eq!(output.metrics(log.end()).lost, 9);
    let go_back = refuse(&mut output, 0);
    output.go_back(go_back, None, at(1500));
    output.pump(&mut log, at(2500));
    assert_eq!(taken(&mut output), ["lost 10"]);
    assert_eq!(output.metrics(log.end()).lost, 10);
}

#[test]
fn a_range_that_went_before_older_ones_counts_and_so_do_they() {
    let mut log = Log::new(30, 10);
    let mut output = lines(false, first_place());
    fake(&mut output).is_blocked = true;
    output.pump(&mut log, at(0));
    output.handle_evicted(&span(&log.blocks.remove(1)));
    output.handle_evicted(&log.evict());
    assert_eq!(output.metrics(log.end()).lost, 20);
}

#[test]
fn templates_that_leave_before_a_gap_do_not_take_it_along() {
    for version in [Version::Ipfix, Version::NetflowV9] {
        let mut log = Log::new(40, 10);
        let collector = config::Collector {
            version,
            mtu: 576,
            triplet: true,
            zone: true,
            ..ipfix()
        };
        let mut others = Block::new(log.end(), Vec::new());
        for session in [snat(), nat66()] {
            others.push(&Record::Event(create(session, 1)));
            others.push(&Record::Event(delete(session, 1, 2)));
        }
        log.blocks.push(Rc::new(others));
        let encoder = Encoder::of_collector(&collector, at(0));
        let mut output = with_fake(encoder, false, first_place());
        output.pump(&mut log, at(0));
        // The gap comes with all templates that were needed so far.
        log.add(40..50);
        fake(&mut output).is_blocked = true;
        output.pump(&mut log, at(1));
        let begin = output.place().position;
        let span = Span {
            first: begin.serial,
            ..span(log.blocks.last().unwrap())
        };
        log.damaged.push(span.first);
        output.handle_evicted(&span);
        fake(&mut output).is_blocked = false;
        fake(&mut output).write_failures = [None, Some(Failure::Busy)].into();
        let before = output.taken.gaps;
        output.pump(&mut log, at(100));
        assert_eq!(output.taken.gaps, before);
        assert_eq!(output.place().position, begin, "{version:?}");
        output.pump(&mut log, at(200));
        assert_eq!(output.taken.gaps, before + 1);
        assert_eq!(output.place().position, Position::before(log.end()));
    }
}

#[test]
fn a_damaged_block_is_a_gap_of_its_records() {
    let mut log = Log::new(30, 10);
    log.damaged.push(Serial(11));
    let mut output = lines(false, first_place());
    for millis in 0..4 {
        output.pump(&mut log, at(millis));
    }
    let expected = [ids(0..10), vec!["lost 10".to_owned()], ids(20..30)].concat();
    assert_eq!(taken(&mut output), expected);
    assert_eq!(
        output.take_lost().map(|(missing, _)| missing.count),
        Some(10)
    );
}

#[test]
fn records_that_are_gone_with_their_times_are_gone_by_now() {
    let mut log = Log::new(10, 10);
    log.damaged.push(Serial(1));
    let block = Rc::make_mut(&mut log.blocks[0]);
    let nothing = Block::new(Serial(1), Vec::new());
    (block.since, block.until) = (nothing.since, nothing.until);
    let mut output = lines(false, first_place());
    output.pump(&mut log, at(0));
    let (missing, _) = output.take_lost().unwrap();
    assert_eq!((missing.since, missing.until), (at(0).wall, at(0).wall));
}

#[test]
fn a_database_that_cannot_be_read_now_is_waited_for() {
    let mut log = Log::new(10, 10);
    log.is_available = false;
    let mut output = lines(false, first_place());
    output.pump(&mut log, at(0));
    assert_eq!(output.poll_timeout(log.end()), Some(at(1000).up));
    log.is_available = true;
    output.pump(&mut log, at(1000));
    assert_eq!(taken(&mut output), ids(0..10));
}

#[test]
fn a_message_that_is_too_large_costs_its_record_and_says_so() {
    let mut log = Log::new(5, 5);
    let mut output = lines(false, first_place());
    fake(&mut output).write_failures = [None, None, Some(Failure::TooLarge)].into();
    output.pump(&mut log, at(0));
    assert_eq!(
        output.take_lost().map(|(missing, _)| missing.count),
        Some(1)
    );
    let expected = [ids(0..2), vec!["lost 1".to_owned()], ids(3..5)].concat();
    assert_eq!(taken(&mut output), expected);
}

#[test]
fn a_closed_standard_output_needs_no_more_and_counts_what_it_misses() {
    let mut log = Log::new(10, 10);
    let mut output = lines(false, first_place());
    let ended = Failure::Ended(Trouble::new("write", io::ErrorKind::BrokenPipe.into()));
    fake(&mut output).write_failures = [None, None, None, Some(ended)].into();
    output.pump(&mut log, at(0));
    output.pump(&mut log, at(1));
    assert_eq!(output.needed(), None);
    assert_eq!(output.poll_timeout(log.end()), None);
    let metrics = output.metrics(log.end());
    assert_eq!((metrics.records, metrics.lost), (3, 7));
    assert_eq!(metrics.state, State::Ended);
}

#[test]
fn records_that_the_format_does_not_have_are_passed_by() {
    let mut log = Log::new(0, 1);
    let mut block = Block::new(Serial(1), Vec::new());
    for _ in 0..3 {
        block.push(&Record::Event(create(nat66(), 1)));
    }
    log.blocks.push(Rc::new(block));
    let version = Version::NetflowV5;
    let encoder = Encoder::of_collector(&config::Collector { version, ..ipfix() }, at(0));
    let mut output = with_fake(encoder, true, first_place());
    output.pump(&mut log, at(0));
    let metrics = output.metrics(log.end());
    assert_eq!((metrics.records, metrics.behind), (3, 0));
    assert_eq!((metrics.not_representable, metrics.messages), (3, 0));
    assert!(output.is_settled(log.end()));
}

#[test]
fn records_that_the_format_does_not_have_count_once_however_often_they_are_read() {
    let mut block = Block::new(Serial(1), Vec::new());
    block.push(&record(0));
    for _ in 0..3 {
        block.push(&Record::Event(create(nat66(), 1)));
    }
    let mut log = Log::new(0, 1);
    log.blocks.push(Rc::new(block));
    let version = Version::NetflowV5;
    let encoder = Encoder::of_collector(&config::Collector { version, ..ipfix() }, at(0));
    let mut output = with_fake(encoder, true, first_place());
    for second in 0..5 {
        output.pump(&mut log, at(1000 * second));
        let go_back = refuse(&mut output, 0);
        output.go_back(go_back, None, at(1000 * second));
    }
    assert_eq!(output.metrics(log.end()).not_representable, 3);
}

#[test]
fn one_call_reads_only_so_many_records_that_make_no_message() {
    let mut block = Block::new(Serial(1), Vec::new());
    for _ in 0..RECORDS + 1 {
        block.push(&Record::Event(create(nat66(), 1)));
    }
    let mut log = Log::new(0, 1);
    log.blocks.push(Rc::new(block));
    let version = Version::NetflowV5;
    let encoder = Encoder::of_collector(&config::Collector { version, ..ipfix() }, at(0));
    let mut output = with_fake(encoder, true, first_place());
    output.pump(&mut log, at(0));
    assert_eq!(output.metrics(log.end()).behind, 1);
    assert_eq!(output.poll_timeout(log.end()), Some(Uptime::default()));
    output.pump(&mut log, at(0));
    assert!(output.is_settled(log.end()));
}

#[test]
fn a_backlog_leaves_over_udp_at_a_pace() {
    let mut log = Log::new(1000, 1000);
    let mut output = lines(true, first_place());
    output.pump(&mut log, at(0));
    assert_eq!(taken(&mut output).len(), LINES_PACE);
    assert_eq!(output.poll_timeout(log.end()), Some(at(2).up));
    log.pace = 100;
    output.pump(&mut log, at(2));
    assert_eq!(
        taken(&mut output).len(),
        LINES_PACE + 200,
        "twice as fast as records come"
    );
}

#[test]
fn a_collector_waits_for_its_message_to_fill_but_not_at_the_end() {
    let mut log = Log::new(1, 1);
    let config = config::Collector {
        export_delay: Duration::from_secs(1),
        ..ipfix()
    };
    let mut output = with_fake(Encoder::of_collector(&config, at(0)), true, first_place());
    output.pump(&mut log, at(0));
    assert_eq!(fake(&mut output).taken.len(), 0);
    assert_eq!(output.place().position, Position::before(Serial(1)));
    assert!(!output.is_settled(log.end()));
    assert_eq!(output.poll_timeout(log.end()), Some(at(1000).up));
    output.drain(&mut log, at(1));
    assert_eq!(fake(&mut output).taken.len(), 1);
    assert!(output.is_settled(log.end()));
}

#[derive(Clone, Debug)]
enum Step {
    Pump,
    Busy(u8),
    Broken(u8),
    /// The answer to one of the messages since the last refusal comes.
    Refuse(prop::sample::Index),
    Reopen,
    Restart,
    Evict,
    Add(u8),
    Pass(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Pump),
        1 => (0_u8..50).prop_map(Step::Busy),
        1 => (0_u8..50).prop_map(Step::Broken),
        1 => any::<prop::sample::Index>().prop_map(Step::Refuse),
        1 => Just(Step::Reopen),
        1 => Just(Step::Restart),
        1 => Just(Step::Evict),
        2 => (1_u8..40).prop_map(Step::Add),
        2 => (0_u16..2500).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Does the steps, then lets all pass that is left, and gives what was delivered and how much was lost.
fn played(is_udp: bool, steps: Vec<Step>) -> (Vec<String>, u64, u32) {
    let mut log = Log::new(0, 1);
    let mut output = lines(is_udp, first_place());
    let (mut delivered, mut number, mut now) = (Vec::new(), 0, 0);
    for step in steps {
        match step {
            Step::Pump => {
                output.pump(&mut log, at(now));
            }
            Step::Busy(after) | Step::Broken(after) => {
                let failure = match step {
                    Step::Busy(_) => Failure::Busy,
                    _ => broken(),
                };
                let failures = (0..after).map(|_| None).chain([Some(failure)]);
                fake(&mut output).write_failures = failures.collect();
            }
            Step::Refuse(index) => {
                let sent = fake(&mut output).sent.len();
                if is_udp && sent > 0 {
                    let go_back = refuse(&mut output, index.index(sent));
                    output.go_back(go_back, None, at(now));
                }
            }
            Step::Reopen => output.reopen(at(now)),
            Step::Restart => {
                delivered.extend(taken(&mut output));
                output = lines(is_udp, output.place());
            }
            Step::Evict if !log.blocks.is_empty() && log.blocks.len() > 1 => {
                output.handle_evicted(&log.evict());
            }
            Step::Evict => {}
            Step::Add(count) => {
                log.add(number..number + u32::from(count));
                number += u32::from(count);
            }
            Step::Pass(millis) => now += u64::from(millis),
        }
    }
    fake(&mut output).write_failures.clear();
    for _ in 0..200 {
        now += 1000;
        output.pump(&mut log, at(now));
    }
    assert!(output.is_settled(log.end()));
    assert_eq!(output.poll_timeout(log.end()), None);
    delivered.extend(taken(&mut output));
    (delivered, output.metrics(log.end()).lost, number)
}

proptest! {
    #[test]
    fn whatever_happens_each_record_is_delivered_once_in_order_or_stated_as_lost(
        is_udp: bool, steps in steps()
    ) {
        let (delivered, lost, number) = played(is_udp, steps);
        let mut next = 0;
        for delivered in delivered {
            match delivered.strip_prefix("lost ") {
                Some(count) => next += count.parse::<u32>().unwrap(),
                None => {
                    prop_assert_eq!(&delivered, &next.to_string());
                    next += 1;
                }
            }
        }
        prop_assert_eq!(next, number);
        prop_assert!(lost <= u64::from(number));
    }
}
