//! The daemon's metrics at one moment, gathered from its parts.

use super::Daemon;
use super::meter::micros;
use super::outputs::{Copy, Receiver};
use crate::config::{self, Version};
use crate::metrics::{Collector, Events, Kernel, Metrics, Sessions, Store, Syslog, Time};

impl Daemon {
    pub(super) fn metrics(&mut self) -> Metrics {
        let now = self.now;
        let running = now.up.saturating_since(self.started.up);
        let namespace = self.config.capture.namespace.as_ref();
        Metrics {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            time: Time(now.wall),
            started: Time(self.started.wall),
            uptime_seconds: running.as_secs(),
            namespace: namespace.map(|namespace| namespace.0.display().to_string()),
            configuration: self.file.as_ref().map(|file| file.display().to_string()),
            confinement: self.confinement.summary().clone(),
            events: self.events(),
            kernel: self.kernel(),
            sessions: self.sessions(),
            rates: self.meter.rates(now),
            gaps: self.meter.gaps(),
            store: self.store(),
            turns: self.meter.turns(now),
            collectors: self.outputs.receivers().iter().map(collector).collect(),
            syslog: self.outputs.copies().iter().map(syslog).collect(),
        }
    }

    fn events(&self) -> Events {
        let (capture, engine) = (self.capture.statistics(), self.engine.statistics());
        Events {
            new: engine.new_events,
            destroy: engine.destroy_events,
            new_by_protocol: capture.new_by_protocol,
            destroy_by_protocol: capture.destroy_by_protocol,
            messages: capture.events,
            batches: capture.batches,
            dumped: capture.dumped,
            dumped_malformed: capture.dumped_malformed,
            malformed: capture.malformed,
            foreign: capture.foreign,
            overflows: capture.overflows,
        }
    }

    fn kernel(&self) -> Kernel {
        let tracking = self.watch.statistics();
        Kernel {
            receive_buffer_octets: self.capture.receive_buffer() as u64,
            queued_octets: self.capture.queued().into(),
            drops: self.capture.drops().into(),
            table_entries: tracking.entries.into(),
            table_limit: tracking.max_entries.into(),
            dying: self.engine.dying(),
        }
    }

    fn sessions(&self) -> Sessions {
        let engine = self.engine.statistics();
        Sessions {
            pending: self.engine.pending() as u64,
            max: self.config.pending.max as u64,
            beyond_max: engine.beyond_max,
            unkept: self.engine.unkept() as u64,
            forgotten: engine.forgotten,
            pending_peak: engine.pending_peak as u64,
            pending_peak_time: self.meter.peak_time(),
            restored: engine.restored,
            creates: engine.creates,
            deletes: engine.deletes,
            unannounced: engine.unannounced,
            adopted: engine.adopted,
            inferred_ends: engine.inferred_ends,
            duplicates: engine.duplicates,
            filtered: engine.filtered,
            audits: engine.audits,
        }
    }

    fn store(&self) -> Store {
        let store = self.keeper.statistics();
        Store {
            available: !self.keeper.is_failing(),
            commits: store.commits,
            failed: store.failed,
            set_aside: store.set_aside,
            longest_commit_microseconds: micros(store.longest_commit),
        }
    }
}

fn collector(receiver: &Receiver) -> Collector {
    let config::Collector {
        address,
        version,
        observation_domain,
        ..
    } = &receiver.config;
    let version = match version {
        Version::NetflowV5 => "v5",
        Version::NetflowV9 => "v9",
        Version::Ipfix => "ipfix",
    };
    let statistics = receiver.collector.statistics();
    Collector {
        address: address.to_string(),
        version: version.to_owned(),
        observation_domain: *observation_domain,
        records: statistics.pushed,
        not_representable: statistics.not_representable,
        flow_records: statistics.packed,
        sent: statistics.records,
        failed: statistics.failed,
        dropped: statistics.dropped,
        queued: statistics.queued,
        messages: statistics.messages,
        octets: statistics.octets,
        gaps: statistics.gaps,
        refused: statistics.refused,
        queued_messages: statistics.queued_messages,
        queued_octets: statistics.queued_octets,
        peak_octets: statistics.peak_octets,
        sequence: statistics.sequence,
        template_sends: statistics.template_sends,
    }
}

fn syslog(copy: &Copy) -> Syslog {
    let statistics = copy.target.statistics();
    Syslog {
        target: copy.target.name().to_owned(),
        records: statistics.records,
        sent: statistics.sent,
        failed: statistics.failed,
        dropped: statistics.dropped,
        queued: statistics.queued,
        refused: statistics.refused,
        errors: statistics.errors,
        own_gaps: statistics.own_gaps,
        queued_octets: statistics.queued_bytes,
        peak_octets: statistics.peak_bytes,
    }
}
