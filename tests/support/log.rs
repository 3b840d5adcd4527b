//! The record log without a database, for an output driven by hand.

#![allow(dead_code, reason = "every program uses its own part of this")]

use nattrail::export::output::Output;
use nattrail::export::source::PACE;
use nattrail::metrics;
use nattrail::place::{Place, Position, Serial};
use nattrail::session::Record;
use nattrail::store::record_log::{Reading, RecordLog};
use nattrail::time::{Now, Uptime};

/// The place at which an output to an empty log begins.
pub const BEGIN: Place = Place {
    position: Position::before(Serial(1)),
    port: 0,
    sequence: 0,
    missing: None,
    refused: false,
};

/// An output and the log that it follows.
pub struct Followed {
    log: RecordLog,
    pub output: Output,
}

impl Followed {
    /// `output` begins at [`BEGIN`].
    pub fn new(output: Output) -> Self {
        Self {
            log: RecordLog::new(Serial(1)),
            output,
        }
    }

    /// Adds records, which may leave at once.
    pub fn push(&mut self, records: &[Record]) {
        records.iter().for_each(|record| self.log.push(record));
        self.log.close_block();
        let evicted = self.log.handle_not_stored(Serial(1), PACE);
        assert_eq!(evicted, None, "the log has room for what a test needs");
    }

    /// Writes as much as goes without waiting, unfinished messages included.
    pub fn drain(&mut self, now: Now) {
        let mut reading = Reading {
            log: &mut self.log,
            store: None,
        };
        self.output.drain(&mut reading, now);
    }

    pub fn metrics(&self) -> metrics::Output {
        self.output.metrics(self.log.readable())
    }

    /// Whether every record was taken.
    pub fn is_through(&self) -> bool {
        self.metrics().behind == 0
    }

    pub fn poll_timeout(&self) -> Option<Uptime> {
        self.output.poll_timeout(self.log.readable())
    }
}
