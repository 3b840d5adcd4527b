//! The path of an event from the datagram to the bytes of one output, in memory: no socket, no file, no clock.

#![allow(dead_code, reason = "every program uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use nattrail::config::{Config, Format, Version};
use nattrail::engine::{Engine, Filter, Policy};
use nattrail::export::encoder::{Encoder, Load};
use nattrail::export::queue::Queue;
use nattrail::export::source::{Found, Source as _};
use nattrail::export::view::{self, Line, View};
use nattrail::place::Serial;
use nattrail::session::Record;
use nattrail::store::record_log::{Reading as LogReading, RecordLog};
use nattrail::time::{Now, Uptime, Wall};
use nattrail::wire::ctnetlink::Event;
use nattrail::wire::netlink::Messages;
use nattrail::wire::syslog::Host;

use super::datagram::{self, DESTROY, NEW, STOP};

pub const NOW: Now = Now::new(Wall::from_millis(STOP), Uptime::from_millis(100_000));

/// The form of the records.
pub enum Outputs {
    /// With these kinds of records, as in the configuration, here and below.
    Collector(Version, &'static str),
    Copy(Format, &'static str),
    /// The lines of a viewer with this filter.
    View(&'static str, Reading),
}

/// The way in which a viewer reads its lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    Everything,
    Nothing,
}

enum Sink {
    /// It follows the log.
    Output(Encoder, Queue<Load>),
    /// It gets records as they arise.
    View(Box<View>, Line, Reading),
}

pub struct Pipeline {
    engine: Engine,
    log: RecordLog,
    sink: Sink,
    /// The first record that the output has not received.
    delivered: Serial,
    octets: u64,
    new: Vec<u8>,
    destroy: Vec<u8>,
    now: Now,
    /// Numbers never recur: as all sessions have one start time, a recurrence would be a repeated end.
    next: u32,
}

impl Pipeline {
    pub fn new(outputs: Outputs) -> Self {
        Self {
            engine: engine(),
            log: RecordLog::new(Serial(1)),
            sink: match outputs {
                Outputs::Collector(version, records) => {
                    Sink::Output(flow_encoder(version, records), Queue::new())
                }
                Outputs::Copy(format, records) => {
                    Sink::Output(line_encoder(format, records), Queue::new())
                }
                Outputs::View(filter, reading) => {
                    let view = View::new(view::filter::Filter::parse(filter).unwrap());
                    Sink::View(Box::new(view), Line::default(), reading)
                }
            },
            delivered: Serial(1),
            octets: 0,
            new: datagram::bytes(NEW),
            destroy: datagram::bytes(DESTROY),
            now: NOW,
            next: 0,
        }
    }

    /// Begins `sessions` sessions and ends them a second later; all are in the log and not yet readable there. Takes
    /// all changes for the store in between and at the end.
    pub fn hear(&mut self, sessions: u32) {
        let first = self.next;
        self.next += sessions;
        for destroy in [false, true] {
            for number in first..self.next {
                let datagram = if destroy {
                    &mut self.destroy
                } else {
                    &mut self.new
                };
                datagram::renumber(datagram, number);
                self.engine.handle_events(&[decode(datagram)], self.now);
                while let Some(record) = self.engine.poll_record() {
                    self.log.push(&record);
                    self.sink.show(&record, self.now);
                }
            }
            while self.engine.handle_committed() {}
            self.now.wall = self.now.wall.saturating_add(Duration::from_secs(1));
            self.now.up = self.now.up.saturating_add(Duration::from_secs(1));
        }
    }

    /// Makes the log readable, as a commit does.
    pub fn commit(&mut self) {
        self.log.close_block();
        let since = Duration::from_secs(2);
        let evicted = self.log.handle_not_stored(self.delivered, since);
        assert_eq!(evicted, None);
    }

    /// Encodes the log's records for the output, and throws away finished messages.
    pub fn deliver(&mut self) {
        let Sink::Output(encoder, queue) = &mut self.sink else {
            return;
        };
        let mut source = LogReading {
            log: &mut self.log,
            store: None,
        };
        while let Found::Block(block) = source.block(self.delivered) {
            let mut offset = 0;
            while let Some(record) = block.record_at(&mut offset).unwrap() {
                let octets = encode(encoder, &record, self.delivered, self.now, queue);
                self.octets += octets as u64;
                self.delivered.0 += 1;
            }
        }
    }

    /// Records that entered the log.
    pub fn records(&self) -> u64 {
        self.log.next().0 - 1
    }

    /// Records that the output has received, and the octets of their messages.
    pub fn delivered(&self) -> (u64, u64) {
        (self.delivered.0 - 1, self.octets)
    }
}

impl Sink {
    fn show(&mut self, record: &Record, now: Now) {
        if let Self::View(view, line, reading) = self {
            line.clear();
            view.push(record, line, now);
            if *reading == Reading::Everything {
                view.consume(view.contiguous().len());
            }
        }
    }
}

/// Encodes the record and throws away finished messages. Returns their octets.
pub fn encode(
    encoder: &mut Encoder,
    record: &Record,
    serial: Serial,
    now: Now,
    queue: &mut Queue<Load>,
) -> usize {
    encoder.push(record, serial, 0, now, queue).unwrap();
    let mut octets = 0;
    while let Some(message) = queue.front() {
        octets += message.bytes.len();
        queue.pop();
    }
    octets
}

pub fn decode(datagram: &[u8]) -> Event {
    let message = Messages::new(datagram).next().unwrap().unwrap();
    Event::decode(&message).unwrap().unwrap()
}

pub fn engine() -> Engine {
    let config = Config::default();
    Engine::new(Filter::new(&config.capture), Policy::new(&config), NOW)
}

/// The create and the delete of one session.
pub fn records() -> [Record; 2] {
    let mut engine = engine();
    [NEW, DESTROY].map(|hex| {
        engine.handle_events(&[decode(&datagram::bytes(hex))], NOW);
        engine.poll_record().unwrap()
    })
}

pub fn flow_encoder(version: Version, records: &str) -> Encoder {
    let version = version.name();
    let config = loaded(&format!(
        "[[collector]]\naddress = \"127.0.0.1\"\nversion = \"{version}\"\nrecords = {records}\n"
    ));
    Encoder::of_collector(&config.collectors[0], NOW)
}

pub fn line_encoder(format: Format, records: &str) -> Encoder {
    let format = format.name();
    let config = loaded(&format!(
        "[[syslog]]\ntarget = \"stdout\"\nformat = \"{format}\"\nrecords = {records}\n"
    ));
    let copy = &config.syslog[0];
    let host = Host {
        hostname: "gw".to_owned(),
        pid: 411,
    };
    Encoder::of_copy(copy, &host)
}

fn loaded(text: &str) -> Config {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Config::load(Some(file.path()), std::iter::empty())
        .unwrap()
        .config
}
