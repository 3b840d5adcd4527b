//! The statistics that SIGUSR1 writes to the log, in the manner of `/proc/net/stat/ipt_netflow`.

use std::fmt::{self, Display, Formatter};

use super::outputs::{Copy, Outputs, Receiver};
use super::{capture, keeper};
use crate::engine;

/// Everything that is counted, at one moment. Displayed one subject per line.
pub struct Report<'a> {
    pub running: std::time::Duration,
    pub capture: &'a capture::Statistics,
    pub drops: u32,
    pub receive_buffer: usize,
    pub engine: &'a engine::Statistics,
    pub pending: usize,
    pub store: &'a keeper::Statistics,
    pub store_failing: bool,
    pub outputs: &'a Outputs,
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            capture,
            engine,
            store,
            ..
        } = self;
        writeln!(
            f,
            "nattrail {}, running {} s; natevents count start {}, stop {}",
            env!("CARGO_PKG_VERSION"),
            self.running.as_secs(),
            engine.creates,
            engine.deletes
        )?;
        writeln!(
            f,
            "Kernel: events {} (new {}, destroy {}) in {} batches, dumped {}, malformed {}, unusable {}, overflows {}; \
             buffer {} bytes, full {} times",
            capture.events,
            engine.new_events,
            engine.destroy_events,
            capture.batches,
            capture.dumped,
            capture.malformed,
            capture.unusable,
            capture.overflows,
            self.receive_buffer,
            self.drops
        )?;
        writeln!(
            f,
            "Sessions: pending {} (peak {}), unannounced {}, adopted {}, inferred ends {}, duplicates {}, filtered {}, \
             audits {}",
            self.pending,
            engine.pending_peak,
            engine.unannounced,
            engine.adopted,
            engine.inferred_ends,
            engine.duplicates,
            engine.filtered,
            engine.audits
        )?;
        write!(
            f,
            "Store: commits {}, failed {}, set aside {}, {}",
            store.commits,
            store.failed,
            store.set_aside,
            if self.store_failing {
                "not available"
            } else {
                "available"
            }
        )?;
        for receiver in self.outputs.receivers() {
            writeln!(f)?;
            write_receiver(f, receiver)?;
        }
        for copy in self.outputs.copies() {
            writeln!(f)?;
            write_copy(f, copy)?;
        }
        Ok(())
    }
}

fn write_receiver(f: &mut Formatter<'_>, receiver: &Receiver) -> fmt::Result {
    let address = receiver.config.address;
    let statistics = receiver.collector.statistics();
    write!(
        f,
        "Collector {address}: sent {} records and {} gaps in {} messages, {} octets; failed {}, refused {}, dropped {}, not \
         representable {}; queued {} messages, {} octets (peak {}); sequence {}, templates sent {}",
        statistics.records,
        statistics.gaps,
        statistics.messages,
        statistics.octets,
        statistics.failed,
        statistics.refused,
        statistics.dropped,
        statistics.not_representable,
        statistics.queued_messages,
        statistics.queued_octets,
        statistics.peak_octets,
        statistics.sequence,
        statistics.template_sends
    )
}

fn write_copy(f: &mut Formatter<'_>, copy: &Copy) -> fmt::Result {
    let statistics = copy.target.statistics();
    write!(
        f,
        "Syslog {}: sent {}, dropped {}, failed {}, refused {}, queued {} ({} bytes, peak {}), errors {}",
        copy.target.name(),
        statistics.sent,
        statistics.dropped,
        statistics.failed,
        statistics.refused,
        statistics.queued,
        statistics.queued_bytes,
        statistics.peak_bytes,
        statistics.errors
    )
}
