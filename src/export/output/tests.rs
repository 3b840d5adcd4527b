//! The decisions of an output, with a fake transport, a log of its own and injected time.
#![allow(clippy::unwrap_used)]

mod losses;
mod property;

use std::io;
use std::rc::Rc;

use super::*;
use crate::config::{self, Facility, Format, Severity, Target, Version};
use crate::export::samples;
use crate::export::source::Found;
use crate::export::transport::fake::Fake;
use crate::session::Session;
use crate::time::Wall;
use crate::wire::record::Block;
use crate::wire::samples::{create, delete, nat66, snat};
use crate::wire::syslog::Host;

/// Blocks of some records each, which the test may remove or damage.
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

    /// One block.
    fn of(records: impl IntoIterator<Item = Record>) -> Self {
        let mut this = Self::new(0, 1);
        this.append(records);
        this
    }

    fn add(&mut self, numbers: std::ops::Range<u32>) {
        self.append(numbers.map(record));
    }

    fn append(&mut self, records: impl IntoIterator<Item = Record>) {
        let mut block = Block::new(self.end(), Vec::new());
        for record in records {
            block.push(&record);
        }
        self.blocks.push(Rc::new(block));
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

/// A create that NetFlow v5 cannot represent.
fn unknown() -> Record {
    Record::Event(create(nat66(), 1))
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
        events: true,
        flow: false,
        facility: Facility(22 << 3),
        severity: Severity::Informational,
        app_name: "nattrail".to_owned(),
        exporter_address: [192, 0, 2, 1].into(),
    }
}

/// A collector that gets each record at once.
fn collector(version: Version) -> config::Collector {
    config::Collector {
        export_delay: Duration::ZERO,
        ..samples::collector(version)
    }
}

/// An output over a fake transport, and the log that it follows from the first record on.
struct Scene {
    log: Log,
    output: Output,
}

impl Scene {
    /// An output of lines.
    fn lines(is_udp: bool, log: Log) -> Self {
        Self {
            log,
            output: lines(is_udp, first_place()),
        }
    }

    /// An output of flow records.
    fn flows(is_udp: bool, collector: &config::Collector, log: Log) -> Self {
        let encoder = Encoder::of_collector(collector, at(0));
        Self {
            log,
            output: with_fake(encoder, is_udp, first_place()),
        }
    }

    fn pump(&mut self, millis: u64) {
        self.output.pump(&mut self.log, at(millis));
    }

    /// Makes the output of lines anew, at its place.
    fn restart(&mut self) {
        let is_udp = self.fake().is_udp;
        self.output = lines(is_udp, self.output.place());
    }

    fn evict(&mut self) {
        let block = self.log.blocks.remove(0);
        self.output.handle_evicted(&span(&block));
    }

    /// Lets the next `count` writes succeed, and then one fail.
    fn fail_after(&mut self, count: usize, failure: Failure) {
        let successes = (0..count).map(|_| None);
        self.fake().write_failures = successes.chain([Some(failure)]).collect();
    }

    /// Delivers the answer that the taken message with this index was refused.
    fn refuse(&mut self, index: usize, millis: u64) {
        let go_back = self.go_back(index);
        self.output.go_back(go_back, None, at(millis));
    }

    /// Queues the same answer to be read.
    fn answer(&mut self, index: usize) {
        let go_back = self.go_back(index);
        self.fake().refusals.push_back(go_back);
    }

    /// Goes back to the message with this index: it and the ones after it no longer count as taken.
    fn go_back(&mut self, index: usize) -> GoBack {
        let fake = self.fake();
        let octets: Vec<_> = fake.taken.drain(index..).map(|taken| taken.len()).collect();
        let sent: Vec<_> = fake.sent.drain(index..).collect();
        let messages = sent.iter().zip(octets);
        GoBack {
            position: sent[0].0,
            since: at(0).up,
            sequence: sent[0].1.sequence,
            amount: messages
                .map(|((_, load), octets)| Amount::of(*load, octets))
                .sum(),
        }
    }

    fn fake(&mut self) -> &mut Fake {
        match &mut self.output.transport {
            Transport::Fake(fake) => fake,
            _ => unreachable!("made with a fake"),
        }
    }

    /// The ids of the events, or the counts of the gaps as text, in the order in which they were taken.
    fn taken(&mut self) -> Vec<String> {
        let field = |line: &str, key: &str| {
            let mut words = line.split_whitespace();
            let value = words.find_map(|word| word.strip_prefix(key));
            value.map(str::to_owned)
        };
        let of_line = |line: &Vec<u8>| {
            let line = std::str::from_utf8(line).unwrap();
            field(line, "id=").unwrap_or_else(|| format!("lost {}", field(line, "lost=").unwrap()))
        };
        self.fake().taken.iter().map(of_line).collect()
    }

    /// How many records were found to be lost since the last call.
    fn take_lost(&mut self) -> Option<u64> {
        self.output.take_lost().map(|(missing, _)| missing.count)
    }

    fn poll_timeout(&self) -> Option<Uptime> {
        self.output.poll_timeout(self.log.end())
    }

    fn is_settled(&self) -> bool {
        self.output.is_settled(self.log.end())
    }

    fn metrics(&self) -> metrics::Output {
        self.output.metrics(self.log.end())
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

#[test]
fn records_leave_once_and_in_the_order_of_the_log() {
    let mut scene = Scene::lines(false, Log::new(1000, 300));
    while scene.poll_timeout().is_some() {
        scene.pump(0);
    }
    assert_eq!(scene.taken(), ids(0..1000));
    assert!(scene.is_settled());
    assert_eq!(scene.output.take_lost(), None);
    assert_eq!(
        scene.output.place().position,
        Position::before(scene.log.end())
    );
    let metrics = scene.metrics();
    assert_eq!(
        (metrics.records, metrics.behind, metrics.lost),
        (1000, 0, 0)
    );
    scene.log.add(1000..1001);
    scene.pump(1);
    assert_eq!(scene.taken(), ids(0..1001));
}

#[test]
fn an_output_that_is_made_anew_goes_on_at_its_place() {
    let mut scene = Scene::lines(false, Log::new(100, 30));
    scene.fail_after(40, Failure::Busy);
    scene.pump(0);
    let before = scene.taken();
    assert_eq!(before.len(), 40);
    scene.restart();
    scene.pump(1);
    assert_eq!([before, scene.taken()].concat(), ids(0..100));
}

#[test]
fn a_receiver_that_cannot_be_reached_is_tried_again_and_gets_everything() {
    let mut scene = Scene::lines(false, Log::new(10, 10));
    scene.fake().open_failures = (0..5).map(|_| broken()).collect();
    let mut now = 0;
    let mut waits = Vec::new();
    while scene.taken().is_empty() {
        scene.pump(now);
        let next = scene.poll_timeout();
        let wait = next.map_or(0, |next| next.saturating_since(at(now).up).as_millis());
        waits.push(wait);
        now += wait as u64;
    }
    // The first error is tried again at once.
    assert_eq!(waits, [5, 10, 0]);
    assert_eq!(scene.taken(), ids(0..10));
    let metrics = scene.metrics();
    assert_eq!((metrics.errors, metrics.state), (2, State::Working));
}

#[test]
fn what_cannot_be_opened_does_not_work_again_before_it_can_although_nothing_waits_for_it() {
    let mut scene = Scene::lines(false, Log::new(0, 1));
    scene.fake().open_failures = (0..3).map(|_| broken()).collect();
    scene.output.reopen(at(0));
    let mut states = Vec::new();
    for _ in 0..3 {
        let next = scene.poll_timeout().unwrap();
        scene.pump(next.saturating_since(at(0).up).as_millis() as u64);
        states.push(scene.metrics().state);
    }
    assert_eq!(states, [State::Failing, State::Failing, State::Working]);
    assert_eq!(scene.poll_timeout(), None);
}

#[test]
fn nothing_is_tried_before_the_back_off_is_over() {
    let mut scene = Scene::lines(false, Log::new(10, 10));
    scene.fake().open_failures = (0..9).map(|_| broken()).collect();
    for _ in 0..5 {
        scene.pump(0);
    }
    assert_eq!(scene.fake().opens, 2);
    assert_eq!(scene.metrics().state, State::Failing);
}

#[test]
fn a_full_receiver_that_drains_is_tried_again_within_a_millisecond() {
    let mut scene = Scene::lines(false, Log::new(10, 10));
    scene.fake().write_failures = [None, Some(Failure::Busy)].into();
    scene.pump(0);
    assert_eq!(scene.poll_timeout(), Some(at(1).up));
    scene.pump(1);
    assert_eq!(scene.taken(), ids(0..10));
}

#[test]
fn after_a_refusal_one_probe_a_second_finds_out_when_somebody_listens() {
    let mut scene = Scene::lines(true, Log::new(10, 10));
    scene.pump(0);
    assert_eq!(scene.taken(), ids(0..10));
    // The answer to the fourth comes late.
    scene.answer(3);
    scene.pump(1000);
    assert_eq!(scene.metrics().state, State::Refused);
    assert_eq!(scene.output.place().position, Position::before(Serial(4)));
    for second in 2..5 {
        assert_eq!(scene.poll_timeout(), Some(at(1000 * second).up));
        scene.pump(1000 * second);
        assert_eq!(scene.taken(), ids(0..4), "one probe");
        scene.pump(1000 * second + 500);
        assert_eq!(scene.taken(), ids(0..4), "no second one");
        scene.answer(3);
    }
    scene.pump(5000);
    assert_eq!(
        scene.taken(),
        ids(0..4),
        "another probe, which nobody refuses"
    );
    scene.pump(6000);
    assert_eq!(scene.taken(), ids(0..10));
    let metrics = scene.metrics();
    assert_eq!((metrics.records, metrics.refused), (10, 4));
    assert_eq!(metrics.state, State::Working);
}

fn sequences_of(fake: &Fake) -> Vec<u32> {
    fake.sent.iter().map(|(_, load)| load.sequence).collect()
}

#[test]
fn a_refusal_takes_sequence_numbers_back_too() {
    let mut scene = Scene::flows(true, &collector(Version::Ipfix), Log::new(200, 100));
    scene.pump(0);
    let sequences = sequences_of(scene.fake());
    assert!(sequences.len() > 3, "{} messages", sequences.len());
    scene.answer(2);
    for second in 1..4 {
        scene.pump(1000 * second);
    }
    let again = sequences_of(scene.fake());
    assert_eq!(again[..3], sequences[..3]);
    let (_, last) = scene.fake().sent.last().unwrap();
    assert_eq!(last.end, Position::before(Serial(201)));
    let metrics = scene.metrics();
    assert_eq!(metrics.flow_records, 200, "each counts once");
    assert_eq!(metrics.messages, again.len() as u64);
}

#[test]
fn a_database_that_cannot_be_read_now_is_waited_for() {
    let mut scene = Scene::lines(false, Log::new(10, 10));
    scene.log.is_available = false;
    scene.pump(0);
    assert_eq!(scene.poll_timeout(), Some(at(1000).up));
    scene.log.is_available = true;
    scene.pump(1000);
    assert_eq!(scene.taken(), ids(0..10));
}

#[test]
fn records_that_the_format_does_not_have_are_passed_by() {
    let log = Log::of((0..3).map(|_| unknown()));
    let mut scene = Scene::flows(true, &collector(Version::NetflowV5), log);
    scene.pump(0);
    let metrics = scene.metrics();
    assert_eq!((metrics.records, metrics.behind), (3, 0));
    assert_eq!((metrics.not_representable, metrics.messages), (3, 0));
    assert!(scene.is_settled());
}

#[test]
fn records_that_the_format_does_not_have_count_once_however_often_they_are_read() {
    let log = Log::of([record(0), unknown(), unknown(), unknown()]);
    let mut scene = Scene::flows(true, &collector(Version::NetflowV5), log);
    for second in 0..5 {
        scene.pump(1000 * second);
        scene.refuse(0, 1000 * second);
    }
    assert_eq!(scene.metrics().not_representable, 3);
}

#[test]
fn one_call_reads_only_so_many_records_that_make_no_message() {
    let log = Log::of((0..RECORDS + 1).map(|_| unknown()));
    let mut scene = Scene::flows(true, &collector(Version::NetflowV5), log);
    scene.pump(0);
    assert_eq!(scene.metrics().behind, 1);
    assert_eq!(scene.poll_timeout(), Some(Uptime::default()));
    scene.pump(0);
    assert!(scene.is_settled());
}

#[test]
fn a_backlog_leaves_over_udp_at_a_pace() {
    let mut scene = Scene::lines(true, Log::new(1000, 1000));
    scene.pump(0);
    assert_eq!(scene.taken().len(), LINES_PACE);
    assert_eq!(scene.poll_timeout(), Some(at(2).up));
    scene.log.pace = 100;
    scene.pump(2);
    assert_eq!(
        scene.taken().len(),
        LINES_PACE + 200,
        "twice as fast as records come"
    );
}

#[test]
fn a_collector_waits_for_its_message_to_fill_but_not_at_the_end() {
    let collector = samples::collector(Version::Ipfix);
    assert_eq!(collector.export_delay, Duration::from_secs(1));
    let mut scene = Scene::flows(true, &collector, Log::new(1, 1));
    scene.pump(0);
    assert_eq!(scene.fake().taken.len(), 0);
    assert_eq!(scene.output.place().position, Position::before(Serial(1)));
    assert!(!scene.is_settled());
    assert_eq!(scene.poll_timeout(), Some(at(1000).up));
    scene.output.drain(&mut scene.log, at(1));
    assert_eq!(scene.fake().taken.len(), 1);
    assert!(scene.is_settled());
}
