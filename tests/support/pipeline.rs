//! The way of an event from the datagram to the bytes of one output, in memory: no socket, no file, no clock.

#![allow(dead_code, reason = "every program uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ops::ControlFlow;
use std::time::Duration;

use nattrail::config::{Collector, Config, Format, Syslog, Version};
use nattrail::engine::{Engine, Filter, Policy};
use nattrail::export::packer::{Load, Packer, Transport};
use nattrail::export::queue::Queue;
use nattrail::export::view::{self, Line, View};
use nattrail::session::{NatEvent, Record};
use nattrail::time::{Now, Uptime, Wall};
use nattrail::wire::ctnetlink::Event;
use nattrail::wire::netlink::Messages;
use nattrail::wire::syslog::{Encoder, Host, Message};

use super::datagram::{self, DESTROY, NEW, STOP};

pub const NOW: Now = Now::new(Wall::from_millis(STOP), Uptime::from_millis(100_000));

/// What the records become.
pub enum Outputs {
    /// Events, or else triplets.
    Collector(Version, bool),
    Copy(Format),
    /// The lines of a viewer with this filter.
    View(&'static str, Reading),
}

/// What a viewer does with its lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    Everything,
    Nothing,
}

enum Sink {
    Collector(Packer, Queue<Load>),
    Copy(Encoder),
    View(Box<View>, Line, Reading),
}

pub struct Pipeline {
    engine: Engine,
    sink: Sink,
    new: Vec<u8>,
    destroy: Vec<u8>,
    now: Now,
    /// Numbers do not come again: with one time of start for all of them, that would be a repeated end.
    next: u32,
    records: u64,
}

impl Pipeline {
    pub fn new(outputs: Outputs) -> Self {
        Self {
            engine: engine(),
            sink: match outputs {
                Outputs::Collector(version, events) => {
                    let packer = packer(version, events);
                    Sink::Collector(packer, Queue::new(1 << 20))
                }
                Outputs::Copy(format) => Sink::Copy(encoder(format)),
                Outputs::View(filter, reading) => {
                    let view = View::new(view::filter::Filter::parse(filter).unwrap());
                    Sink::View(Box::new(view), Line::default(), reading)
                }
            },
            new: datagram::bytes(NEW),
            destroy: datagram::bytes(DESTROY),
            now: NOW,
            next: 0,
            records: 0,
        }
    }

    /// Begins so many sessions, a second later ends them, and takes all changes for the store in between and at last.
    pub fn round(&mut self, sessions: u32) {
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
                self.engine.handle_event(&decode(datagram), self.now);
                while let Some(record) = self.engine.poll_record() {
                    self.sink.take(&record, self.now);
                    self.records += 1;
                }
            }
            while self.engine.handle_committed() {}
            self.now.wall = self.now.wall.saturating_add(Duration::from_secs(1));
            self.now.up = self.now.up.saturating_add(Duration::from_secs(1));
        }
    }

    /// Records of all rounds.
    pub fn records(&self) -> u64 {
        self.records
    }
}

impl Sink {
    fn take(&mut self, record: &Record, now: Now) {
        match self {
            Self::Collector(packer, queue) => {
                pack(packer, record, now, queue);
            }
            Self::Copy(encoder) => {
                write(encoder, record, now);
            }
            Self::View(view, line, reading) => {
                line.clear();
                view.push(record, line, now);
                if *reading == Reading::Everything {
                    view.consume(view.contiguous().len());
                }
            }
        }
    }
}

/// Packs the record and throws away the messages that are complete. Returns their octets.
pub fn pack(packer: &mut Packer, record: &Record, now: Now, queue: &mut Queue<Load>) -> usize {
    packer.push(event(record), now, queue).unwrap();
    let mut octets = 0;
    while let Some(message) = queue.front() {
        octets += message.bytes.len();
        let load = message.tag;
        queue.pop();
        packer.handle_sent(load);
    }
    octets
}

/// Returns the octets of the record's lines.
pub fn write(encoder: &mut Encoder, record: &Record, now: Now) -> usize {
    let mut octets = 0;
    let _ = encoder.encode(record, now, &mut |message: Message<'_>| {
        octets += message.bytes.len();
        ControlFlow::Continue(())
    });
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
        engine.handle_event(&decode(&datagram::bytes(hex)), NOW);
        engine.poll_record().unwrap()
    })
}

pub fn packer(version: Version, events: bool) -> Packer {
    let mut collector: Collector =
        loaded("[[collector]]\naddress = \"127.0.0.1\"\n").collectors[0].clone();
    collector.version = version;
    (collector.events, collector.triplet) = (events, !events);
    Packer::new(&collector, Transport::Datagram, NOW)
}

pub fn encoder(format: Format) -> Encoder {
    let mut copy: Syslog = Config::default().syslog[0].clone();
    copy.format = format;
    let host = Host {
        hostname: "gw".to_owned(),
        pid: 411,
    };
    Encoder::new(&copy.style(), &host)
}

fn loaded(text: &str) -> Config {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Config::load(Some(file.path()), std::iter::empty())
        .unwrap()
        .config
}

fn event(record: &Record) -> &NatEvent {
    let Record::Event(event) = record else {
        panic!("a gap nobody made")
    };
    event
}
