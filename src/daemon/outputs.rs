//! Where records go: collectors and syslog copies, side by side, none of which can hold up another.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::{self, Config};
use crate::export::collector::Collector;
use crate::export::syslog::SyslogTarget;
use crate::session::Record;
use crate::store::Export;
use crate::time::{Now, Uptime, Wall};
use crate::wire::syslog::Host;

/// How long a collector or copy that is no longer configured may still send what it has.
const CLOSING: Duration = Duration::from_secs(5);

pub struct Outputs {
    host: Host,
    receivers: Vec<Receiver>,
    copies: Vec<Copy>,
    /// Those of an earlier configuration, until they have sent what they have.
    closing: Vec<Closing>,
}

struct Closing {
    output: Output,
    deadline: Uptime,
}

enum Output {
    Receiver(Box<Receiver>),
    Copy(Box<Copy>),
}

pub struct Receiver {
    pub config: config::Collector,
    pub collector: Collector,
    progress: Progress,
}

pub struct Copy {
    pub config: config::Syslog,
    pub target: SyslogTarget,
    progress: Progress,
}

/// How far an output is behind: marks in the order of time, and what had been pushed by then.
#[derive(Debug)]
struct Progress {
    marks: VecDeque<(Wall, u64)>,
    /// All that was pushed before has left the program, or is counted as lost.
    served: Wall,
}

impl Outputs {
    /// `exports` is how far an earlier run served its collectors, `complete` until when it had sent on what it knew.
    #[must_use]
    pub fn new(
        config: &Config,
        host: Host,
        mut exports: Vec<Export>,
        complete: Wall,
        now: Now,
    ) -> Self {
        let mut this = Self {
            host,
            receivers: Vec::new(),
            copies: Vec::new(),
            closing: Vec::new(),
        };
        this.reconfigure(config, now);
        for copy in &mut this.copies {
            copy.progress.served = complete;
        }
        for Receiver {
            config,
            collector,
            progress,
        } in &mut this.receivers
        {
            progress.served = complete;
            // Two of the same go on in their order.
            if let Some(index) = exports.iter().position(|export| export.is_of(config)) {
                collector.resume(&exports.remove(index).past);
            }
        }
        this
    }

    /// Goes over to a changed configuration. What is in it as before goes on: sequence numbers, templates, queues. What is
    /// no longer in it sends what it has, for some seconds, and is closed.
    pub fn reconfigure(&mut self, config: &Config, now: Now) {
        let mut old = std::mem::take(&mut self.receivers);
        for config in &config.collectors {
            let same = old.iter().position(|receiver| receiver.config == *config);
            let receiver = match same {
                Some(index) => old.swap_remove(index),
                None => Receiver {
                    config: config.clone(),
                    collector: Collector::new(config, now),
                    progress: Progress::new(now.wall),
                },
            };
            self.receivers.push(receiver);
        }
        let deadline = now.up.saturating_add(CLOSING);
        self.closing.extend(old.into_iter().map(|receiver| Closing {
            output: Output::Receiver(Box::new(receiver)),
            deadline,
        }));
        let mut old = std::mem::take(&mut self.copies);
        for config in &config.syslog {
            let same = old.iter().position(|copy| copy.config == *config);
            let copy = match same {
                Some(index) => old.swap_remove(index),
                None => Copy {
                    config: config.clone(),
                    target: SyslogTarget::new(config, &self.host),
                    progress: Progress::new(now.wall),
                },
            };
            self.copies.push(copy);
        }
        self.closing.extend(old.into_iter().map(|copy| Closing {
            output: Output::Copy(Box::new(copy)),
            deadline,
        }));
        self.close(now);
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
        self.close(now);
    }

    /// Sends also what still waits for its message to fill, for the end of the daemon.
    pub fn drain(&mut self, now: Now) {
        for receiver in &mut self.receivers {
            receiver.collector.drain(now);
        }
        for copy in &mut self.copies {
            copy.target.flush(now);
        }
        self.close(now);
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
        let closing = self.closing.iter().map(Closing::poll_timeout);
        receivers.chain(copies).chain(closing).min()
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.receivers
            .iter()
            .all(|receiver| receiver.collector.is_idle())
            && self.copies.iter().all(|copy| copy.target.is_idle())
    }

    /// Until when every output has been served: of what the kernel had said by then, nothing waits in this program. `heard`
    /// is until when the kernel has been heard. To be called once per commit.
    pub fn served_until(&mut self, heard: Wall) -> Wall {
        let receivers = self.receivers.iter_mut().map(|receiver| {
            let statistics = receiver.collector.statistics();
            let done = statistics.packed - statistics.queued;
            receiver.progress.note(statistics.packed, done, heard)
        });
        let copies = self.copies.iter_mut().map(|copy| {
            let statistics = copy.target.statistics();
            let done = statistics.records - statistics.queued;
            copy.progress.note(statistics.records, done, heard)
        });
        receivers.chain(copies).min().unwrap_or(heard)
    }

    /// What waits to be sent, a sentence for each output where something does.
    #[must_use]
    pub fn unsent(&self) -> Vec<String> {
        let receivers = self.receivers.iter().map(Receiver::unsent);
        let copies = self.copies.iter().map(Copy::unsent);
        receivers.chain(copies).flatten().collect()
    }

    /// How far each collector has been served.
    pub fn exports(&self) -> impl Iterator<Item = Export> {
        self.receivers.iter().map(
            |Receiver {
                 config, collector, ..
             }| Export {
                address: config.address,
                version: config.version,
                domain: config.observation_domain,
                past: collector.past(),
            },
        )
    }

    #[must_use]
    pub fn receivers(&self) -> &[Receiver] {
        &self.receivers
    }

    #[must_use]
    pub fn copies(&self) -> &[Copy] {
        &self.copies
    }

    /// Lets go of closing outputs that have nothing left, or no time.
    fn close(&mut self, now: Now) {
        self.closing.retain_mut(|closing| {
            let unsent = closing.output.drain(now);
            if let Some(unsent) = unsent.as_ref().filter(|_| closing.deadline <= now.up) {
                log::warn!("no longer configured, {unsent}");
                return false;
            }
            unsent.is_some()
        });
    }
}

impl Progress {
    /// An output that is stuck for longer than so many commits is known less exactly.
    const MOST: usize = 4096;

    const fn new(now: Wall) -> Self {
        Self {
            marks: VecDeque::new(),
            served: now,
        }
    }

    fn note(&mut self, pushed: u64, done: u64, heard: Wall) -> Wall {
        if self.marks.len() < Self::MOST {
            self.marks.push_back((heard, pushed));
        }
        while let Some(&(at, _)) = self.marks.front().filter(|(_, pushed)| *pushed <= done) {
            self.served = at;
            self.marks.pop_front();
        }
        self.served
    }
}

impl Closing {
    fn poll_timeout(&self) -> Uptime {
        let next = match &self.output {
            Output::Receiver(receiver) => receiver.collector.poll_timeout(),
            Output::Copy(copy) => copy.target.poll_timeout(),
        };
        next.map_or(self.deadline, |next| next.min(self.deadline))
    }
}

impl Output {
    /// Sends what goes without waiting, and says what is left.
    fn drain(&mut self, now: Now) -> Option<String> {
        match self {
            Self::Receiver(receiver) => {
                receiver.collector.drain(now);
                receiver.unsent()
            }
            Self::Copy(copy) => {
                copy.target.flush(now);
                copy.unsent()
            }
        }
    }
}

impl Receiver {
    fn unsent(&self) -> Option<String> {
        let queued = self.collector.statistics().queued_messages;
        let address = self.config.address;
        (queued > 0).then(|| format!("collector {address}: {queued} messages not sent"))
    }
}

impl Copy {
    fn unsent(&self) -> Option<String> {
        let queued = self.target.statistics().queued;
        let name = self.target.name();
        (queued > 0).then(|| format!("{name}: {queued} records not written"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_served_until_the_last_mark_of_which_nothing_waits() {
        let at = Wall::from_secs;
        let mut progress = Progress::new(at(0));
        assert_eq!(progress.note(10, 4, at(1)), at(0));
        assert_eq!(progress.note(20, 10, at(2)), at(1));
        assert_eq!(progress.note(30, 19, at(3)), at(1));
        assert_eq!(progress.note(30, 30, at(4)), at(4));
    }
}
