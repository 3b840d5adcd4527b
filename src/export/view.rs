//! Live views: the records that a viewer (`nattrail tail`) gets, as lines of the format `json`.
//!
//! Guarantees:
//! - A record that a viewer does not want costs the test of its filter. A wanted one that it cannot take is counted
//!   before it is written as text, and its own stream states it once there is room: a gap with the cause `undelivered`,
//!   as in the copies.
//! - A record is written as text once, however many views want it.
//! - A view holds at most [`QUEUE_LIMIT`] and takes at most [`LINES_PER_SECOND`] lines, which bounds the memory and the
//!   work for a viewer, whatever it does. Nothing is allocated per record once its queue has grown.
//! - Gaps pass every filter: they may hide records that the viewer waits for. They have room of their own in the queue.
//! - Checkpoints are for viewers without a filter.

pub mod filter;

use std::ops::ControlFlow;
use std::time::Duration;

use self::filter::Filter;
use super::queue::Queue;
use crate::place::Missing;
use crate::session::Record;
use crate::time::{Now, Uptime, Wall};
use crate::wire::syslog::Encoder;

/// The most bytes that wait for a viewer: more than the events of one turn of the loop. The buffer may be twice as large.
pub const QUEUE_LIMIT: usize = 512 << 10;
/// Octets of the queue reserved for gaps and for the last line. No line of an event is as long.
const RESERVE: usize = 8 << 10;
/// More than a person, a terminal or most pipes take, and too little to be felt elsewhere in the loop.
pub const LINES_PER_SECOND: u32 = 10_000;

/// Lines in place of records.
const BEGIN: &[u8] = b"{\"tail\":\"begin\"}\n";
const END: &[u8] = b"{\"tail\":\"end\"}\n";

/// The text of the current record, which views share.
#[derive(Debug)]
pub struct Line {
    encoder: Encoder,
    bytes: Vec<u8>,
}

/// The lines of one viewer.
#[derive(Debug)]
pub struct View {
    filter: Filter,
    queue: Queue<()>,
    /// Lines left until the end of the second.
    left: u32,
    second_ends: Uptime,
    /// Events missed and not yet stated.
    shortfall: Option<Missing>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            encoder: Encoder::json_lines(),
            bytes: Vec::with_capacity(1024),
        }
    }
}

impl Line {
    /// Forgets the earlier record.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    fn of(&mut self, record: &Record, now: Now) -> &[u8] {
        if self.bytes.is_empty() {
            let Self { encoder, bytes } = self;
            let _ = encoder.encode_as_it_is(record, now, &mut |message| {
                bytes.extend_from_slice(message.bytes);
                ControlFlow::Continue(())
            });
        }
        &self.bytes
    }
}

impl View {
    /// A view that begins now, and says so in its first line.
    pub fn new(filter: Filter) -> Self {
        let mut queue = Queue::new();
        queue.push(BEGIN, ());
        Self {
            filter,
            queue,
            left: LINES_PER_SECOND,
            second_ends: Uptime::default(),
            shortfall: None,
        }
    }

    /// Queues the record, if it is wanted and there is room. `line` was cleared after the earlier record.
    pub fn push(&mut self, record: &Record, line: &mut Line, now: Now) {
        match record {
            Record::Event(_) | Record::Checkpoint(_) => {
                let is_wanted = match record {
                    Record::Event(event) => self.filter.accepts(event),
                    _ => self.filter == Filter::default(),
                };
                if !is_wanted {
                    return;
                }
                self.handle_timeout(now, line);
                if self.shortfall.is_some() || !self.takes(now) {
                    return self.miss(record.time());
                }
                self.left -= 1;
            }
            Record::Gap(_) => self.state_shortfall(now, line),
        }
        if !put(&mut self.queue, line.of(record, now)) {
            self.miss(record.time());
        }
    }

    /// States the missed records, if there is room again. Spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Now, line: &mut Line) {
        if self.shortfall.is_some() && self.has_recovered() && self.takes(now) {
            self.state_shortfall(now, line);
        }
    }

    /// When to call [`View::handle_timeout`], provided that the viewer reads meanwhile.
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let due = self.shortfall.is_some() && self.has_recovered();
        due.then_some(if self.left > 0 {
            Uptime::default()
        } else {
            self.second_ends
        })
    }

    /// Announces that no more records come. This reaches only a viewer that has read the rest.
    pub fn end(&mut self, now: Now, line: &mut Line) {
        self.state_shortfall(now, line);
        // Without room there is no last line.
        put(&mut self.queue, END);
    }

    /// The text that waits to be written.
    pub fn contiguous(&self) -> &[u8] {
        self.queue.contiguous()
    }

    /// Takes note that `count` of these bytes have been written.
    pub fn consume(&mut self, count: usize) {
        self.queue.consume(count, |()| ());
    }

    /// Whether there is room for an event.
    fn takes(&mut self, now: Now) -> bool {
        if now.up >= self.second_ends {
            self.left = LINES_PER_SECOND;
            self.second_ends = now.up.saturating_add(Duration::from_secs(1));
        }
        self.left > 0 && self.queue.used() < QUEUE_LIMIT - RESERVE
    }

    /// After a miss half of the queue has to be free: otherwise a viewer at its limit would miss and get events in
    /// turn, and every turn would cost a statement.
    fn has_recovered(&self) -> bool {
        self.queue.used() <= QUEUE_LIMIT / 2
    }

    fn miss(&mut self, time: Wall) {
        let one = Missing {
            count: 1,
            since: time,
            until: time,
        };
        self.shortfall = Some(self.shortfall.map_or(one, |missing| missing.and(one)));
    }

    fn state_shortfall(&mut self, now: Now, line: &mut Line) {
        let Some(missing) = self.shortfall else {
            return;
        };
        let gap = Record::Gap(missing.gap());
        let queue = &mut self.queue;
        let flow = line
            .encoder
            .encode(&gap, now, &mut |message| match put(queue, message.bytes) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            });
        if flow.is_continue() {
            self.shortfall = None;
        }
    }
}

/// Queues a line if there is room for it.
fn put(queue: &mut Queue<()>, line: &[u8]) -> bool {
    let fits = queue.used() + line.len() <= QUEUE_LIMIT;
    if fits {
        queue.push(line, ());
    }
    fits
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::Value;

    use super::*;
    use crate::session::{
        EventKind, Gap, GapCause, NatEvent, Protocol, Provenance, Session, Tuple, Zone,
    };

    /// A delete is shown once, although it is a flow, too.
    #[test]
    fn flows_are_shown_as_events_of_their_own() {
        let part = |kind| {
            let created = NatEvent::create(session(), Wall::from_secs(7), Provenance::Kernel);
            Record::Event(NatEvent { kind, ..created })
        };
        let kinds = |filter| -> Vec<_> {
            let mut scene = Scene::new(filter);
            scene.push(&part(EventKind::Flow));
            scene.push(&part(EventKind::Delete));
            let lines = scene.read().into_iter();
            let record = |line: String| serde_json::from_str::<Value>(&line).unwrap();
            lines.map(|line| record(line)["event"].clone()).collect()
        };
        assert_eq!(kinds(""), ["flow", "delete"]);
        assert_eq!(kinds("event=flow"), ["flow"]);
        assert_eq!(kinds("event=delete"), ["delete"]);
    }

    struct Scene {
        view: View,
        line: Line,
        now: Now,
    }

    impl Scene {
        fn new(filter: &str) -> Self {
            let mut scene = Self {
                view: View::new(Filter::parse(filter).unwrap()),
                line: Line::default(),
                now: Now::new(Wall::from_secs(1_000), Uptime::from_millis(1_000)),
            };
            assert_eq!(scene.read(), ["{\"tail\":\"begin\"}"]);
            scene
        }

        /// An event of TCP, at a time of its own.
        fn event(&mut self, number: u64) {
            let event = NatEvent::create(session(), Wall::from_secs(number), Provenance::Kernel);
            self.push(&Record::Event(event));
        }

        fn push(&mut self, record: &Record) {
            self.line.clear();
            self.view.push(record, &mut self.line, self.now);
        }

        fn pass(&mut self, millis: u64) {
            self.now.up = self.now.up.saturating_add(Duration::from_millis(millis));
            self.view.handle_timeout(self.now, &mut self.line);
        }

        fn read(&mut self) -> Vec<String> {
            let text = String::from_utf8(self.view.contiguous().to_vec()).unwrap();
            self.view.consume(text.len());
            text.lines().map(str::to_owned).collect()
        }

        /// Pushes until something has been missed, and returns how many events were taken.
        fn fill(&mut self) -> u64 {
            let mut number = 0;
            while self.view.shortfall.is_none() {
                number += 1;
                self.event(number);
            }
            number - 1
        }
    }

    fn session() -> Session {
        let tuple = |port| Tuple {
            src: [10, 1, 2, 3].into(),
            dst: [198, 51, 100, 7].into(),
            src_port: port,
            dst_port: 443,
        };
        Session {
            original: tuple(40_000),
            reply: tuple(50_001),
            protocol: Protocol::TCP,
            zone: Zone::default(),
            id: None,
            mark: 0,
        }
    }

    fn gap() -> Record {
        Record::Gap(Gap {
            cause: GapCause::Overflow,
            from: Wall::from_secs(1),
            to: Wall::from_secs(2),
            lost: Some(3),
        })
    }

    fn parsed(line: &str) -> Value {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn what_the_filter_refuses_is_neither_shown_nor_missed() {
        let mut scene = Scene::new("proto=udp");
        for number in 0..u64::from(LINES_PER_SECOND) * 2 {
            scene.event(number);
        }
        assert!(scene.view.shortfall.is_none());
        assert_eq!(scene.read(), Vec::<String>::new());
        assert!(scene.line.bytes.is_empty());
    }

    #[test]
    fn a_gap_passes_every_filter() {
        let mut scene = Scene::new("proto=udp");
        scene.push(&gap());
        assert_eq!(parsed(&scene.read()[0])["cause"], "overflow");
    }

    #[test]
    fn a_checkpoint_is_for_those_who_want_all() {
        let record = crate::wire::samples::checkpoint(7);
        let mut scene = Scene::new("proto=udp");
        scene.push(&record);
        assert_eq!(scene.read(), [""; 0]);
        let mut scene = Scene::new("");
        scene.push(&record);
        assert_eq!(parsed(&scene.read()[0])["origin"], "nattrail/gw1");
    }

    #[test]
    fn what_does_not_fit_is_stated_once_half_of_the_queue_is_free() {
        let mut scene = Scene::new("");
        let taken = scene.fill();
        for number in 0..9 {
            scene.event(taken + 2 + number);
        }
        let waiting = scene.view.contiguous().len();
        assert!(waiting < QUEUE_LIMIT);
        assert_eq!(scene.view.poll_timeout(), None);
        scene.view.consume(waiting / 4);
        scene.pass(0);
        assert!(scene.view.shortfall.is_some());
        scene.read();
        assert_eq!(scene.view.poll_timeout(), Some(Uptime::default()));
        scene.pass(0);
        assert_eq!(scene.view.poll_timeout(), None);
        scene.event(5_000);
        let lines = scene.read();
        assert_eq!(lines.len(), 2);
        let stated = parsed(&lines[0]);
        assert_eq!(stated["event"], "gap");
        assert_eq!(stated["cause"], "undelivered");
        assert_eq!(stated["lost"], 10);
        let at = |seconds| Wall::from_secs(seconds).to_string();
        assert_eq!(stated["from"], at(taken + 1));
        assert_eq!(stated["to"], at(taken + 10));
    }

    #[test]
    fn lines_beyond_those_of_a_second_are_missed_before_they_are_written() {
        let mut scene = Scene::new("");
        let most = u64::from(LINES_PER_SECOND);
        let mut shown = 0;
        for number in 0..most + 500 {
            scene.event(number);
            shown += scene.read().len() as u64;
        }
        assert_eq!(shown, most);
        assert!(scene.line.bytes.is_empty());
        let due = scene.view.poll_timeout().unwrap();
        assert_eq!(due, scene.now.up.saturating_add(Duration::from_secs(1)));
        scene.pass(999);
        assert_eq!(scene.read().len(), 0);
        scene.pass(1);
        let lines = scene.read();
        assert_eq!(lines.len(), 1);
        assert_eq!(parsed(&lines[0])["lost"], 500);
        scene.event(0);
        assert_eq!(scene.read().len(), 1);
    }

    #[test]
    fn a_gap_finds_room_in_a_full_queue_after_what_was_missed_before_it() {
        let mut scene = Scene::new("");
        scene.fill();
        scene.push(&gap());
        let lines = scene.read();
        let [.., missed, gap] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        assert_eq!(parsed(missed)["lost"], 1);
        assert_eq!(parsed(gap)["cause"], "overflow");
    }

    #[test]
    fn what_has_no_room_at_all_is_counted_however_long_nobody_reads() {
        let mut scene = Scene::new("");
        scene.fill();
        for _ in 0..2_000 {
            scene.push(&gap());
        }
        assert!(scene.view.contiguous().len() <= QUEUE_LIMIT);
        let shown = scene.read();
        scene.pass(0);
        let stated: u64 = scene
            .read()
            .iter()
            .chain(&shown)
            .map(|line| parsed(line))
            .filter(|line| line["cause"] == "undelivered")
            .map(|line| line["lost"].as_u64().unwrap())
            .sum();
        let gaps = shown
            .iter()
            .filter(|line| line.contains("overflow"))
            .count();
        assert_eq!(stated, 1 + 2_000 - gaps as u64);
    }

    #[test]
    fn the_end_states_what_was_missed_and_says_goodbye() {
        let mut scene = Scene::new("");
        scene.fill();
        scene.view.end(scene.now, &mut scene.line);
        let lines = scene.read();
        let [.., missed, end] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        assert_eq!(parsed(missed)["lost"], 1);
        assert_eq!(end, "{\"tail\":\"end\"}");
    }

    #[test]
    fn views_share_the_text_of_a_record() {
        let mut scene = Scene::new("");
        let mut other = View::new(Filter::default());
        other.consume(BEGIN.len());
        scene.event(1);
        let text = scene.line.bytes.clone();
        // A new line would differ: the line is shared as it is.
        other.push(&gap(), &mut scene.line, scene.now);
        assert_eq!(other.contiguous(), text);
        assert_eq!(scene.view.contiguous(), text);
    }
}
