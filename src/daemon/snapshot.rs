//! The daemon's metrics at one moment, gathered from its parts.

use super::Daemon;
use crate::metrics::{Kernel, Log, Metrics, Sessions, Store};

impl Daemon {
    pub(super) fn metrics(&mut self) -> Metrics {
        let now = self.now;
        let running = now.up.saturating_since(self.started.up);
        let namespace = self.config.capture.namespace.as_ref();
        let (tracking, memory) = (self.watch.statistics(), self.capture.memory());
        let log = self.keeper.log();
        let outputs = self.outputs.metrics(log.next());
        Metrics {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            time: now.wall,
            started: self.started.wall,
            uptime_seconds: running.as_secs(),
            namespace: namespace.map(|namespace| namespace.0.display().to_string()),
            configuration: self.file.as_ref().map(|file| {
                let absolute = std::path::absolute(file);
                absolute.as_ref().unwrap_or(file).display().to_string()
            }),
            configuration_read: self.file.as_ref().map(|_| self.read),
            confinement: self.confinement.clone(),
            sessions: Sessions {
                pending: self.engine.pending() as u64,
                max: self.config.pending.max as u64,
                pending_peak_time: self.meter.peak_time(),
                unkept: self.engine.unkept() as u64,
                ..self.engine.statistics().clone()
            },
            rates: self.meter.rates(now),
            events: self.capture.statistics().clone(),
            kernel: Kernel {
                receive_buffer_octets: memory.size.into(),
                queued_octets: memory.queued.into(),
                drops: memory.drops.into(),
                table_entries: tracking.entries.into(),
                table_limit: tracking.max_entries.into(),
                dying: self.engine.dying(),
            },
            gaps: self.meter.gaps(),
            log: Log {
                records: self.meter.records(),
                serial: log.next().0 - 1,
                oldest: self.outputs.needed(log.next()).0,
                octets: self.keeper.log_octets(),
                limit_octets: self.config.log.size,
            },
            store: Store {
                available: !self.keeper.is_failing(),
                ..self.keeper.statistics().clone()
            },
            turns: self.meter.turns(now),
            outputs,
        }
    }
}
