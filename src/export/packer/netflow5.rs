//! Packing for NetFlow v5: up to 30 records behind a header whose sequence number counts flows.

use crate::config;
use crate::export::encoder::{Load, NotRepresentable};
use crate::export::packer::Assembly;
use crate::export::queue::Queue;
use crate::session::{EventKind, NatEvent};
use crate::time::{BootTime, Now};
use crate::wire::netflow5::{self, HEADER_LEN, Header, MAX_RECORDS, RECORD_LEN, Record};

#[derive(Debug)]
pub(super) struct Packer {
    pub(super) assembly: Assembly,
    /// Flows packed so far.
    pub(super) sequence: u32,
    boot: BootTime,
    events: bool,
    triplet: bool,
    post_nat_counters: bool,
    engine: u16,
}

impl Packer {
    pub(super) fn new(collector: &config::Collector) -> Self {
        Self {
            assembly: Assembly::new(collector),
            sequence: 0,
            boot: BootTime::default(),
            events: collector.events,
            triplet: collector.triplet,
            post_nat_counters: collector.post_nat_counters,
            engine: collector.observation_domain as u16,
        }
    }

    pub(super) fn push(
        &mut self,
        event: &NatEvent,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        if self.events {
            for record in netflow5::dummy_flows(event)? {
                self.put(&record, now, done);
            }
        }
        if self.triplet && event.kind == EventKind::Delete {
            for record in netflow5::triplet(event, self.post_nat_counters)? {
                self.put(&record, now, done);
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, now: Now, done: &mut Queue<Load>) {
        let header = Header {
            count: self.assembly.load.flow_records,
            boot: self.boot,
            up: now.up,
            sequence: self.sequence,
            engine: self.engine,
        };
        let flows = self.assembly.load.flow_records;
        self.assembly
            .finish(&header.to_bytes(), self.sequence, done);
        self.sequence = self.sequence.wrapping_add(flows.into());
    }

    fn put(&mut self, record: &Record, now: Now, done: &mut Queue<Load>) {
        if self.assembly.skips() {
            return;
        }
        if self.is_full() {
            self.finish(now, done);
        }
        if self.assembly.is_idle() {
            self.assembly.begin(HEADER_LEN);
            self.boot = BootTime::new(now);
        }
        record.put(self.boot, &mut self.assembly.bytes);
        self.assembly.count_record(now);
    }

    fn is_full(&self) -> bool {
        usize::from(self.assembly.load.flow_records) == MAX_RECORDS
            || self.assembly.bytes.len() + RECORD_LEN > self.assembly.max_len
    }
}
