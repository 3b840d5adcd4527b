//! Where records go: collectors and syslog copies, side by side, none of which can hold up another.

use std::time::Duration;

use crate::config::{self, Config};
use crate::export::collector::{Collector, Past};
use crate::export::syslog::SyslogTarget;
use crate::session::Record;
use crate::store::Export;
use crate::time::{Now, Uptime};
use crate::wire::syslog::Host;

/// Wait before a collector's socket that could not be opened is tried again.
const REOPEN: Duration = Duration::from_secs(5);

pub struct Outputs {
    host: Host,
    receivers: Vec<Receiver>,
    copies: Vec<Copy>,
}

/// A collector, from the moment its socket could be opened.
pub struct Receiver {
    pub config: config::Collector,
    state: State,
    /// Where to go on from when the socket can be opened.
    past: Option<Past>,
    /// Records that came while there was no socket.
    pub unsent: u64,
}

enum State {
    Open(Box<Collector>),
    Closed { retry_at: Uptime },
}

pub struct Copy {
    pub config: config::Syslog,
    pub target: SyslogTarget,
}

impl Outputs {
    /// `exports` is how far an earlier run served its collectors.
    #[must_use]
    pub fn new(config: &Config, host: Host, mut exports: Vec<Export>, now: Now) -> Self {
        let open = |config| Receiver::open(config, take_past(&mut exports, config), now);
        Self {
            receivers: config.collectors.iter().map(open).collect(),
            copies: config
                .syslog
                .iter()
                .map(|config| Copy::new(config, &host))
                .collect(),
            host,
        }
    }

    /// Goes over to a changed configuration. What is in it as before goes on: sequence numbers, templates, queues. What is
    /// no longer in it sends what it can at once and is closed; what has only changed goes on with its sequence numbers.
    pub fn reconfigure(&mut self, config: &Config, now: Now) {
        let mut old = std::mem::take(&mut self.receivers);
        let mut same: Vec<Option<Receiver>> = config
            .collectors
            .iter()
            .map(|config| {
                let index = old.iter().position(|receiver| receiver.config == *config)?;
                Some(old.remove(index))
            })
            .collect();
        let mut exports = Vec::new();
        for mut receiver in old {
            receiver.drain(now);
            exports.extend(receiver.export());
        }
        for (config, same) in config.collectors.iter().zip(&mut same) {
            let receiver = same
                .take()
                .unwrap_or_else(|| Receiver::open(config, take_past(&mut exports, config), now));
            self.receivers.push(receiver);
        }
        let mut old = std::mem::take(&mut self.copies);
        for config in &config.syslog {
            let same = old.iter().position(|copy| copy.config == *config);
            let copy = match same {
                Some(index) => old.swap_remove(index),
                None => Copy::new(config, &self.host),
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
            receiver.push(record, now);
        }
        for copy in &mut self.copies {
            copy.target.push(record, now);
        }
    }

    /// Sends what is due and what goes without waiting.
    pub fn flush(&mut self, now: Now) {
        for receiver in &mut self.receivers {
            receiver.flush(now);
        }
        for copy in &mut self.copies {
            copy.target.flush(now);
        }
    }

    /// Sends also what still waits for its message to fill, for the end of the daemon.
    pub fn drain(&mut self, now: Now) {
        for receiver in &mut self.receivers {
            receiver.drain(now);
        }
        for copy in &mut self.copies {
            copy.target.flush(now);
        }
    }

    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let receivers = self.receivers.iter().filter_map(Receiver::poll_timeout);
        let copies = self
            .copies
            .iter()
            .filter_map(|copy| copy.target.poll_timeout());
        receivers.chain(copies).min()
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.receivers.iter().all(Receiver::is_idle)
            && self.copies.iter().all(|copy| copy.target.is_idle())
    }

    /// How far each collector has been served.
    pub fn exports(&self) -> impl Iterator<Item = Export> {
        self.receivers.iter().filter_map(Receiver::export)
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

impl Receiver {
    fn open(config: &config::Collector, past: Option<Past>, now: Now) -> Self {
        let mut this = Self {
            config: config.clone(),
            state: State::Closed { retry_at: now.up },
            past,
            unsent: 0,
        };
        if let Err(error) = this.reopen(now) {
            log::warn!(
                "collector {}: cannot open a socket: {error}; trying again every 5 s, its records are lost meanwhile",
                config.address
            );
        }
        this
    }

    /// The collector, while its socket is open.
    #[must_use]
    pub fn collector(&self) -> Option<&Collector> {
        match &self.state {
            State::Open(collector) => Some(collector),
            State::Closed { .. } => None,
        }
    }

    fn export(&self) -> Option<Export> {
        Some(Export {
            address: self.config.address,
            version: self.config.version,
            domain: self.config.observation_domain,
            past: self.collector().map(Collector::past).or(self.past)?,
        })
    }

    fn reopen(&mut self, now: Now) -> std::io::Result<()> {
        match Collector::new(&self.config, self.past.as_ref(), now) {
            Ok(collector) => {
                self.state = State::Open(Box::new(collector));
                Ok(())
            }
            Err(error) => {
                self.state = State::Closed {
                    retry_at: now.up.saturating_add(REOPEN),
                };
                Err(error)
            }
        }
    }

    fn push(&mut self, record: &Record, now: Now) {
        match &mut self.state {
            State::Open(collector) => collector.push(record, now),
            State::Closed { .. } => self.unsent += 1,
        }
    }

    fn flush(&mut self, now: Now) {
        match &mut self.state {
            State::Open(collector) => collector.flush(now),
            State::Closed { retry_at } if *retry_at <= now.up => {
                if self.reopen(now).is_ok() {
                    let (address, unsent) = (self.config.address, self.unsent);
                    log::info!(
                        "collector {address}: socket opened, {unsent} records were lost before"
                    );
                }
            }
            State::Closed { .. } => {}
        }
    }

    fn drain(&mut self, now: Now) {
        if let State::Open(collector) = &mut self.state {
            collector.drain(now);
        }
    }

    fn poll_timeout(&self) -> Option<Uptime> {
        match &self.state {
            State::Open(collector) => collector.poll_timeout(),
            State::Closed { retry_at } => Some(*retry_at),
        }
    }

    fn is_idle(&self) -> bool {
        match &self.state {
            State::Open(collector) => collector.is_idle(),
            State::Closed { .. } => true,
        }
    }
}

impl Copy {
    fn new(config: &config::Syslog, host: &Host) -> Self {
        Self {
            config: config.clone(),
            target: SyslogTarget::new(config, host),
        }
    }
}

/// Takes the first of the exports that is about the collector.
fn take_past(exports: &mut Vec<Export>, config: &config::Collector) -> Option<Past> {
    let index = exports.iter().position(|export| export.is_of(config))?;
    Some(exports.remove(index).past)
}
