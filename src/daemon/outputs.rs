//! Where records go: collectors and syslog copies, side by side, none of which can hold up another.

use crate::config::{self, Config};
use crate::export::collector::Collector;
use crate::export::syslog::SyslogTarget;
use crate::session::Record;
use crate::time::{Now, Uptime};
use crate::wire::syslog::Host;

pub struct Outputs {
    host: Host,
    receivers: Vec<Receiver>,
    copies: Vec<Copy>,
}

pub struct Receiver {
    pub config: config::Collector,
    pub collector: Collector,
}

pub struct Copy {
    pub config: config::Syslog,
    pub target: SyslogTarget,
}

impl Outputs {
    #[must_use]
    pub fn new(config: &Config, host: Host, now: Now) -> Self {
        let mut this = Self {
            host,
            receivers: Vec::new(),
            copies: Vec::new(),
        };
        this.reconfigure(config, now);
        this
    }

    /// Goes over to a changed configuration. What is in it as before goes on: sequence numbers, templates, queues. What is
    /// no longer in it sends what it can at once and is closed.
    pub fn reconfigure(&mut self, config: &Config, now: Now) {
        let mut old = std::mem::take(&mut self.receivers);
        for config in &config.collectors {
            let same = old.iter().position(|receiver| receiver.config == *config);
            let receiver = match same {
                Some(index) => old.swap_remove(index),
                None => Receiver {
                    config: config.clone(),
                    collector: Collector::new(config, now),
                },
            };
            self.receivers.push(receiver);
        }
        for mut receiver in old {
            receiver.collector.drain(now);
        }
        let mut old = std::mem::take(&mut self.copies);
        for config in &config.syslog {
            let same = old.iter().position(|copy| copy.config == *config);
            let copy = match same {
                Some(index) => old.swap_remove(index),
                None => Copy {
                    config: config.clone(),
                    target: SyslogTarget::new(config, &self.host),
                },
            };
            self.copies.push(copy);
        }
        for mut copy in old {
            copy.target.flush(now);
        }
    }

    /// Opens files and sockets of the copies anew, for logrotate.
    pub fn reopen(&mut self, now: Now) {
        for copy in &mut self.copies {
            copy.target.reopen(now);
        }
    }

    pub fn push(&mut self, record: &Record, now: Now) {
        for receiver in &mut self.receivers {
            receiver.collector.push(record, now);
        }
        for copy in &mut self.copies {
            copy.target.push(record, now);
        }
    }

    /// Sends what is due and what goes without waiting.
    pub fn flush(&mut self, now: Now) {
        for receiver in &mut self.receivers {
            receiver.collector.flush(now);
        }
        for copy in &mut self.copies {
            copy.target.flush(now);
        }
    }

    /// Sends also what still waits for its message to fill, for the end of the daemon.
    pub fn drain(&mut self, now: Now) {
        for receiver in &mut self.receivers {
            receiver.collector.drain(now);
        }
        for copy in &mut self.copies {
            copy.target.flush(now);
        }
    }

    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let receivers = self
            .receivers
            .iter()
            .filter_map(|receiver| receiver.collector.poll_timeout());
        let copies = self
            .copies
            .iter()
            .filter_map(|copy| copy.target.poll_timeout());
        receivers.chain(copies).min()
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.receivers
            .iter()
            .all(|receiver| receiver.collector.is_idle())
            && self.copies.iter().all(|copy| copy.target.is_idle())
    }

    #[must_use]
    pub fn receivers(&self) -> &[Receiver] {
        &self.receivers
    }

    #[must_use]
    pub fn copies(&self) -> &[Copy] {
        &self.copies
    }
}
