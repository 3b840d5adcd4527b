//! One target for syslog, file or journal copies: encoder, bounded queue, back-off and transport.
//!
//! Records go into the queue and from there to the transport without ever blocking. What does not fit is counted, and once
//! the target takes records again a gap with the cause `undelivered` stands in the copy itself where they are missing:
//! whoever reads only the copy sees that it is not complete. Every record pushed ends up in exactly one of
//! [`Statistics::sent`], [`Statistics::dropped`], [`Statistics::failed`] and [`Statistics::queued`].
//!
//! The log says when a target stops and begins to work or to lose, once for each change.

use std::ops::ControlFlow;
use std::time::Duration;

use super::queue::Queue;
use super::transport::{Failure, Transport, Trouble};
use crate::config::{Syslog, Target};
use crate::session::{Gap, GapCause, Record};
use crate::time::{Now, Uptime, Wall};
use crate::wire::syslog::{Encoder, Host};

/// Writes of one flush, so that a fast target cannot keep the loop from its other work. More than the events of one turn
/// of the loop make, also as three lines each.
const FLUSH_WRITES: usize = 4096;

/// Wait after a flush that was stopped by a full receiver but had sent something: it is draining, and a Unix socket holds
/// as few as ten datagrams (`net.unix.max_dgram_qlen`).
const DRAINING_DELAY: Duration = Duration::from_millis(1);
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LAST_DELAY: Duration = Duration::from_secs(1);

/// Most bytes kept while the target cannot take them.
const QUEUE: usize = 1 << 20;

/// How long a UDP receiver must not refuse anything to count as back.
const REFUSAL_MEMORY: Duration = Duration::from_secs(30);

/// How long a target must lose nothing before the log says that the loss is over. The copy itself states every one.
const LOSS_MEMORY: Duration = Duration::from_secs(10);

/// What a target has done. Records, unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Pushed, without those that the format does not write (a create in csv).
    pub records: u64,
    /// Handed to the operating system whole.
    pub sent: u64,
    /// Lost because the queue was full.
    pub dropped: u64,
    /// Lost because they could not be sent: too large for a datagram, or the standard output is closed.
    pub failed: u64,
    /// Waiting in the queue.
    pub queued: u64,
    /// Bytes in the queue.
    pub queued_bytes: u64,
    /// The most bytes there ever were in the queue.
    pub peak_bytes: u64,
    /// Datagrams that a UDP receiver refused. They are among the sent: which ones it were is not known.
    pub refused: u64,
    /// Failed attempts to open, connect or write.
    pub errors: u64,
    /// Gaps written into the copy where records are missing.
    pub own_gaps: u64,
}

/// A target and its state.
#[derive(Debug)]
pub struct SyslogTarget {
    name: String,
    encoder: Encoder,
    queue: Queue,
    transport: Transport,
    health: Health,
    /// Nothing is tried before.
    retry_at: Option<Uptime>,
    delay: Duration,
    shortfall: Option<Shortfall>,
    loss: Option<Loss>,
    last_refusal: Option<Uptime>,
    statistics: Statistics,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Health {
    Working,
    Failing,
    /// The standard output was closed.
    Ended,
}

/// A time of losses as the log sees it.
#[derive(Clone, Copy, Debug)]
struct Loss {
    lost: u64,
    last: Uptime,
}

/// Records lost and not yet stated in the copy.
#[derive(Clone, Copy, Debug)]
struct Shortfall {
    lost: u64,
    from: Wall,
    to: Wall,
}

impl SyslogTarget {
    /// A target that opens its socket or file when it has something to write.
    #[must_use]
    pub fn new(config: &Syslog, host: &Host) -> Self {
        Self::with_transport(config, host, Transport::new(&config.target), QUEUE)
    }

    fn with_transport(config: &Syslog, host: &Host, transport: Transport, queue: usize) -> Self {
        Self {
            name: name(&config.target),
            encoder: Encoder::new(config, host),
            queue: Queue::new(queue),
            transport,
            health: Health::Working,
            retry_at: None,
            delay: FIRST_DELAY,
            shortfall: None,
            loss: None,
            last_refusal: None,
            statistics: Statistics::default(),
        }
    }

    /// Queues a record. One that does not fit is counted and will be stated.
    pub fn push(&mut self, record: &Record, now: Now) {
        if !self.encoder.writes(record) {
            return;
        }
        self.statistics.records += 1;
        if self.health == Health::Ended {
            self.statistics.failed += 1;
            return;
        }
        self.state_shortfall(now);
        if self.shortfall.is_some() || !self.enqueue(record, 1, now) {
            self.statistics.dropped += 1;
            self.lose(1, record.time(), now, "its queue is full");
        }
    }

    /// Writes what can be written without blocking, up to a bound. It does nothing before its back-off is over, so it may be
    /// called at any time.
    pub fn flush(&mut self, now: Now) {
        self.end_loss(now);
        if self.health == Health::Ended || self.retry_at.is_some_and(|at| now.up < at) {
            return;
        }
        self.retry_at = None;
        let (mut progress, mut reconnected) = (false, false);
        for _ in 0..FLUSH_WRITES {
            self.state_shortfall(now);
            if self.queue.is_empty() {
                return;
            }
            match self.transport.write(&mut self.queue) {
                Ok(records) => {
                    self.statistics.sent += records;
                    self.works(now);
                    progress = true;
                }
                Err(Failure::Busy) if progress => {
                    self.retry_at = Some(now.up.saturating_add(DRAINING_DELAY));
                    return;
                }
                Err(Failure::Busy) => return self.back_off(now),
                Err(Failure::Refused) => self.refused(now),
                Err(Failure::TooLarge) => self.too_large(now),
                Err(Failure::Stalled(trouble)) => {
                    self.fails(&trouble);
                    return self.back_off(now);
                }
                // A receiver that was restarted is there again under the same name.
                Err(Failure::Broken(_)) if !reconnected => reconnected = true,
                Err(Failure::Broken(trouble)) => {
                    self.fails(&trouble);
                    return self.back_off(now);
                }
                Err(Failure::Ended(trouble)) => return self.ends(&trouble),
            }
        }
    }

    /// When to call [`SyslogTarget::flush`] next; a time in the past means at once. `None` when there is nothing to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        if !self.queue.is_empty() {
            return Some(self.retry_at.unwrap_or_default());
        }
        self.loss
            .filter(|_| self.shortfall.is_none())
            .map(|loss| loss.last.saturating_add(LOSS_MEMORY))
    }

    /// Opens the file anew (it may have been rotated away) or connects again, without waiting for a back-off to end.
    pub fn reopen(&mut self, now: Now) {
        if self.health == Health::Ended {
            return;
        }
        self.transport.close(&mut self.queue);
        self.retry_at = None;
        self.delay = FIRST_DELAY;
        match self.transport.open() {
            Err(Failure::Broken(trouble) | Failure::Stalled(trouble)) => {
                self.fails(&trouble);
                self.back_off(now);
            }
            Err(Failure::Ended(trouble)) => self.ends(&trouble),
            Ok(()) | Err(Failure::Busy | Failure::Refused | Failure::TooLarge) => {}
        }
    }

    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let Statistics {
            records,
            sent,
            dropped,
            failed,
            ..
        } = self.statistics;
        Statistics {
            queued: records - sent - dropped - failed,
            queued_bytes: self.queue.used() as u64,
            peak_bytes: self.queue.peak() as u64,
            ..self.statistics
        }
    }

    /// The target as the log names it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues all messages of a record or none.
    fn enqueue(&mut self, record: &Record, tag: u32, now: Now) -> bool {
        let Self { encoder, queue, .. } = self;
        let mark = queue.mark();
        let flow = encoder.encode(record, now, &mut |message| {
            let tag = if message.is_last { tag } else { 0 };
            match queue.push(message.bytes, tag) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        if flow.is_break() {
            queue.rollback(mark);
        }
        flow.is_continue()
    }

    fn lose(&mut self, lost: u64, time: Wall, now: Now, reason: &str) {
        let shortfall = self.shortfall.get_or_insert(Shortfall {
            lost: 0,
            from: time,
            to: time,
        });
        shortfall.lost += lost;
        shortfall.from = shortfall.from.min(time);
        shortfall.to = shortfall.to.max(time);
        let loss = self.loss.get_or_insert_with(|| {
            log::warn!("{}: {reason}, records are lost", self.name);
            Loss {
                lost: 0,
                last: now.up,
            }
        });
        loss.lost += lost;
        loss.last = now.up;
    }

    /// Says how many records were lost once none has been for a while.
    fn end_loss(&mut self, now: Now) {
        if self.shortfall.is_none()
            && let Some(Loss { lost, last }) = self.loss
            && now.up.saturating_since(last) >= LOSS_MEMORY
        {
            self.loss = None;
            log::warn!("{}: takes every record again, {lost} were lost", self.name);
        }
    }

    /// Ends a shortfall once half of the queue is free. Without that distance a target at its limit would lose and take
    /// records in turn, and every turn would cost a statement.
    fn state_shortfall(&mut self, now: Now) {
        let Some(Shortfall { lost, from, to }) = self.shortfall else {
            return;
        };
        if self.queue.used() > self.queue.limit() / 2 {
            return;
        }
        let gap = Record::Gap(Gap {
            cause: GapCause::Undelivered,
            from,
            to,
            lost: Some(lost),
        });
        if self.enqueue(&gap, 0, now) {
            self.shortfall = None;
            self.statistics.own_gaps += 1;
        }
    }

    fn works(&mut self, now: Now) {
        self.delay = FIRST_DELAY;
        // Not at the first success: a disk that is nearly full takes a little again and again.
        if self.health == Health::Failing && self.queue.is_empty() {
            self.health = Health::Working;
            log::info!("{}: works again", self.name);
        }
        if let Some(last) = self.last_refusal
            && now.up.saturating_since(last) >= REFUSAL_MEMORY
        {
            self.last_refusal = None;
            log::info!("{}: no longer refuses datagrams", self.name);
        }
    }

    fn fails(&mut self, trouble: &Trouble) {
        self.statistics.errors += 1;
        if self.health == Health::Working {
            self.health = Health::Failing;
            log::warn!(
                "{}: {trouble}; up to {} bytes of records are kept until it works again",
                self.name,
                self.queue.limit()
            );
        }
    }

    fn ends(&mut self, trouble: &Trouble) {
        self.statistics.errors += 1;
        self.statistics.failed += self.queue.clear();
        self.health = Health::Ended;
        log::warn!("{}: {trouble}; nothing more is written to it", self.name);
    }

    fn refused(&mut self, now: Now) {
        self.statistics.refused += 1;
        if self.last_refusal.replace(now.up).is_none() {
            log::warn!(
                "{}: the receiver refuses datagrams, nothing listens on that port",
                self.name
            );
        }
    }

    fn too_large(&mut self, now: Now) {
        self.statistics.errors += 1;
        let records = self.queue.pop().map_or(0, u64::from);
        self.statistics.failed += records;
        if records > 0 {
            self.lose(
                records,
                now.wall,
                now,
                "a message is too large for a datagram",
            );
        }
    }

    fn back_off(&mut self, now: Now) {
        self.retry_at = Some(now.up.saturating_add(self.delay));
        self.delay = (self.delay * 2).min(LAST_DELAY);
    }
}

fn name(target: &Target) -> String {
    match target {
        Target::File { path } => format!("file {}", path.display()),
        Target::Journal { path } => format!("journal {}", path.display()),
        Target::Local { path } => format!("syslog {}", path.display()),
        Target::Stdout => "standard output".to_owned(),
        Target::Udp { address } => format!("syslog {address} (udp)"),
    }
}

#[cfg(test)]
mod tests;
