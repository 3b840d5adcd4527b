//! One NetFlow or IPFIX collector over UDP: a [`Packer`], a bounded queue and a connected, non-blocking socket.
//!
//! No call blocks. What the socket cannot take now stays queued and is tried again at a deadline
//! ([`Collector::poll_timeout`]), first after 5 ms, then after twice as long each time, up to a second. The same goes for a
//! socket that cannot be opened and for a collector that cannot be reached. What does not fit into the queue, and a message
//! too large for the way, is lost: counted, logged once per change of state, and told to the collector itself: when messages can be sent again, one gap with the
//! cause `undelivered` says from when to when how many flow records were lost, so that
//! `pushed = records + queued + lost in gaps told or due`, for every sequence of failures.
//!
//! The socket is connected so that ICMP errors come back (RFC 1122 section 4.1.3.3): port unreachable shows as
//! ECONNREFUSED on the next send, and then belongs to an earlier message. That message has been counted as sent; the gap
//! for it has no count, and is told once nothing has been refused for a while.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use log::{info, warn};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect_unspec, sockopt};

use crate::config;
use crate::export::packer::{Load, Packer, Transport};
use crate::export::queue::Queue;
use crate::session::Record;
use crate::time::{Now, Uptime};

/// Most octets that wait for the socket.
const QUEUE_LIMIT: usize = 4 << 20;
/// Most messages sent in one call, so that one collector cannot keep the loop from reading the kernel's events. More than
/// the events of one turn of the loop fill, also as triplets, or the queue would grow as long as events keep coming.
const BURST: usize = 512;
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How long nothing may go wrong before a collector counts as recovered. An error that comes and goes is one change of
/// state, not many.
const RECOVERY: Duration = Duration::from_secs(10);

/// What became of the records so far, and what is queued now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Records pushed.
    pub pushed: u64,
    /// Flow records made of them: each is sent, failed, dropped or queued.
    pub packed: u64,
    /// Messages that the kernel took.
    pub messages: u64,
    /// Flow records in them.
    pub records: u64,
    /// Octets in them, without IP and UDP headers.
    pub octets: u64,
    /// Flow records in messages that are too large for the way to the collector.
    pub failed: u64,
    /// Messages to which the collector's host answered that nobody listens on the port.
    pub refused: u64,
    /// Flow records for which the queue had no room.
    pub dropped: u64,
    /// Events and gaps for which the format has no record.
    pub not_representable: u64,
    /// Gaps in the messages that the kernel took, the collector's own included.
    pub gaps: u64,
    /// Flow records that wait, for their message to fill or for the socket.
    pub queued: u64,
    /// Messages that wait for the socket.
    pub queued_messages: u64,
    /// Octets they take in the queue.
    pub queued_octets: u64,
    /// The most octets that ever waited.
    pub peak_octets: u64,
    /// Sequence number of the next message.
    pub sequence: u32,
    /// How many times the templates were sent.
    pub template_sends: u64,
}

/// What a later run needs to go on as if it were the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Past {
    /// The local port, by which collectors know an exporter too; 0 when none was chosen yet.
    pub port: u16,
    /// Sequence number of the next message.
    pub sequence: u32,
}

impl Past {
    /// By how much the sequence moves on when it is not known how far it got: 2^24, more than leaves between two commits
    /// of the store.
    const LEAP: u32 = 1 << 24;

    /// What to go on from when more has been sent since, and nobody knows how much: the collector sees a leap, and never
    /// the same number twice.
    #[must_use]
    pub const fn leaping(self) -> Self {
        Self {
            sequence: self.sequence.wrapping_add(Self::LEAP),
            ..self
        }
    }
}

#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    source: SocketAddr,
    /// The local port to get again, if the configuration leaves the choice.
    port: u16,
    send_buffer: Option<usize>,
    socket: Option<UdpSocket>,
    connected: bool,
    packer: Packer,
    queue: Queue<Load>,
    /// What the last message held that was sent.
    last: Load,
    /// Whether the last attempt to send succeeded.
    well: bool,
    last_refusal: Option<Uptime>,
    /// Nothing is sent before.
    retry: Option<Uptime>,
    /// Wait after the next error.
    wait: Duration,
    counters: Counters,
    trouble: Trouble,
}

/// The part of [`Statistics`] that is counted here.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    pushed: u64,
    messages: u64,
    records: u64,
    octets: u64,
    failed: u64,
    refused: u64,
    not_representable: u64,
    gaps: u64,
}

impl Collector {
    /// A collector whose socket is opened, bound to the configured source, when there is something to send. Until that
    /// succeeds, and until the collector can be reached, records wait in the queue.
    #[must_use]
    pub fn new(collector: &config::Collector, now: Now) -> Self {
        let unspecified = match collector.address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self {
            address: collector.address,
            source: collector.source.unwrap_or((unspecified, 0).into()),
            port: 0,
            send_buffer: collector.send_buffer,
            socket: None,
            connected: false,
            packer: Packer::new(collector, Transport::Datagram, now),
            queue: Queue::new(QUEUE_LIMIT),
            last: Load::default(),
            well: false,
            last_refusal: None,
            retry: None,
            wait: FIRST_RETRY,
            counters: Counters::default(),
            trouble: Trouble::default(),
        }
    }

    /// Goes on where an earlier run stopped, from the same port, if the configuration leaves the choice and nobody else has
    /// it now. To be called before anything is pushed.
    pub fn resume(&mut self, past: &Past) {
        self.port = past.port;
        self.packer.resume(past.sequence);
    }

    /// What a later run can go on from.
    #[must_use]
    pub fn past(&self) -> Past {
        let local = self.socket.as_ref().and_then(|it| it.local_addr().ok());
        Past {
            port: local.map_or(self.port, |local| local.port()),
            sequence: self.packer.sequence(),
        }
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Packs a record. Call [`Self::flush`] before waiting for the next one.
    pub fn push(&mut self, record: &Record, now: Now) {
        self.counters.pushed += 1;
        let result = match record {
            Record::Event(event) => self.packer.push(event, now, &mut self.queue),
            Record::Gap(gap) => self.packer.push_gap(*gap, now, &mut self.queue),
        };
        if result.is_err() {
            self.counters.not_representable += 1;
        }
        self.notice_overflow(now);
    }

    /// Finishes the message that is due and sends what is queued, up to a bound. Does nothing when called before
    /// [`Self::poll_timeout`].
    pub fn flush(&mut self, now: Now) {
        self.packer.handle_timeout(now, &mut self.queue);
        self.notice_overflow(now);
        if self.retry.is_some_and(|at| now.up < at) {
            return;
        }
        self.retry = None;
        self.probe(now);
        for _ in 0..BURST {
            if !self.send_front(now) {
                break;
            }
        }
        self.tell_losses(now);
    }

    /// Finishes the message in hand and sends what is queued, for a shutdown: call it until [`Self::is_idle`], as
    /// [`Self::poll_timeout`] says. The collector is told what it missed without waiting for a better moment.
    pub fn drain(&mut self, now: Now) {
        if self.well {
            self.packer.tell_losses(now, &mut self.queue);
        }
        self.packer.flush(now, &mut self.queue);
        self.flush(now);
    }

    /// When to call [`Self::flush`] next. Changes with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let retry = self.retry.unwrap_or_default();
        let send = if !self.queue.is_empty() {
            Some(retry)
        } else if self.packer.has_losses() && self.packer.is_idle() {
            let settled = self.last_refusal.map(|at| at.saturating_add(RECOVERY));
            Some(retry.max(settled.unwrap_or_default()))
        } else {
            None
        };
        send.into_iter().chain(self.packer.poll_timeout()).min()
    }

    /// Whether every record has left or has been given up.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.packer.is_idle() && self.queue.is_empty()
    }

    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let counters = &self.counters;
        let totals = self.packer.totals();
        let queued = self.queue.tags().map(|load| u64::from(load.records));
        Statistics {
            pushed: counters.pushed,
            packed: totals.packed,
            messages: counters.messages,
            records: counters.records,
            octets: counters.octets,
            failed: counters.failed,
            refused: counters.refused,
            dropped: totals.dropped,
            not_representable: counters.not_representable,
            gaps: counters.gaps,
            queued: queued.sum::<u64>() + u64::from(self.packer.in_hand()),
            queued_messages: self.queue.len() as u64,
            queued_octets: self.queue.used() as u64,
            peak_octets: self.queue.peak() as u64,
            sequence: self.packer.sequence(),
            template_sends: totals.template_sends,
        }
    }

    /// Tells the collector what it missed, once messages leave again and at least half of the queue is free: without that
    /// distance a collector at its limit would lose and take records in turn, and every turn would cost a gap.
    fn tell_losses(&mut self, now: Now) {
        if self.well
            && self.packer.has_losses()
            && !self.is_refusing(now)
            && self.queue.used() <= self.queue.limit() / 2
        {
            self.packer.tell_losses(now, &mut self.queue);
        }
    }

    /// Tries whether messages leave again when there is nothing else to send than what was lost.
    fn probe(&mut self, now: Now) {
        let idle = self.queue.is_empty() && self.packer.is_idle();
        if idle && self.packer.has_losses() && !self.is_refusing(now) {
            self.packer.tell_losses(now, &mut self.queue);
            self.packer.flush(now, &mut self.queue);
        }
    }

    fn is_refusing(&self, now: Now) -> bool {
        self.last_refusal
            .is_some_and(|at| now.up.saturating_since(at) < RECOVERY)
    }

    /// Sends the oldest message. False when there is none or when to wait until `retry`.
    fn send_front(&mut self, now: Now) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        if let Err(error) = self.connect() {
            self.well = false;
            self.back_off(now);
            self.notice_failure(&error, now);
            return false;
        }
        let (Some(message), Some(socket)) = (self.queue.front(), &self.socket) else {
            return false;
        };
        let Load { records, gaps, .. } = message.tag;
        let octets = message.bytes.len();
        let mut result = socket.send(message.bytes);
        if is_refused(&result) {
            result = socket.send(message.bytes);
            self.counters.refused += 1;
            self.packer.handle_refused(self.last);
            self.last_refusal = Some(now.up);
            self.notice_refusal(now);
        }
        match result {
            Ok(_) => {
                self.last = self.queue.pop().unwrap_or_default();
                self.packer.handle_sent(self.last);
                self.counters.messages += 1;
                self.counters.octets += octets as u64;
                self.counters.records += u64::from(records);
                self.counters.gaps += u64::from(gaps);
                self.well = true;
                self.wait = FIRST_RETRY;
                self.notice_success(now);
                true
            }
            Err(error) if is_temporary(&error) => {
                self.back_off(now);
                false
            }
            Err(error) => {
                if is_too_large(&error) {
                    let load = self.queue.pop().unwrap_or_default();
                    self.counters.failed += u64::from(records);
                    self.packer.handle_not_sent(octets, load);
                }
                self.disconnect();
                self.well = false;
                self.back_off(now);
                self.notice_failure(&error, now);
                false
            }
        }
    }

    /// Makes sure that there is a connected socket.
    fn connect(&mut self) -> io::Result<()> {
        if self.socket.is_none() {
            let socket = self.bind()?;
            if let Some(size) = self.send_buffer {
                sockopt::set_socket_send_buffer_size(&socket, size)?;
            }
            self.socket = Some(socket);
        }
        if let Some(socket) = &self.socket
            && !self.connected
        {
            socket.connect(self.address)?;
            self.connected = true;
        }
        Ok(())
    }

    fn bind(&self) -> io::Result<UdpSocket> {
        let again = SocketAddr::new(self.source.ip(), self.port);
        if self.source.port() == 0
            && self.port != 0
            && let Ok(socket) = bind(again)
        {
            return Ok(socket);
        }
        bind(self.source)
    }

    /// Lets the next connect choose the source address again: the kernel keeps the first one, and fails every send
    /// (EINVAL) once it has been taken from the interface.
    fn disconnect(&mut self) {
        if let Some(socket) = &self.socket {
            // What fails here fails again at the next connect, and is said there.
            let _ = connect_unspec(socket);
        }
        self.connected = false;
    }

    fn back_off(&mut self, now: Now) {
        self.retry = Some(now.up.saturating_add(self.wait));
        self.wait = (self.wait * 2).min(LAST_RETRY);
    }

    fn notice_overflow(&mut self, now: Now) {
        let dropped = self.packer.totals().dropped;
        if dropped > self.trouble.dropped {
            self.trouble.dropped = dropped;
            if self.notice(Kind::Overflow, now) {
                warn!(
                    "collector {}: {} messages wait to be sent and there is room for no more; new records are \
                     dropped and counted",
                    self.address,
                    self.queue.len()
                );
            }
        }
    }

    fn notice_refusal(&mut self, now: Now) {
        if self.notice(Kind::Refused, now) {
            warn!(
                "collector {}: its host says that nobody listens on this port; records are lost until the \
                 collector runs there",
                self.address
            );
        }
    }

    fn notice_failure(&mut self, error: &io::Error, now: Now) {
        if !self.notice(Kind::Failed, now) {
            return;
        }
        if is_too_large(error) {
            warn!(
                "collector {}: a message is too large for the way ({error}) and is lost; lower its mtu",
                self.address
            );
        } else {
            warn!(
                "collector {}: cannot send: {error}; up to {} bytes of records wait until that changes",
                self.address,
                self.queue.limit()
            );
        }
    }

    /// Takes note that something went wrong, and tells whether that is news.
    const fn notice(&mut self, kind: Kind, now: Now) -> bool {
        self.trouble.last = now.up;
        let known = self.trouble.kinds & kind.bit() != 0;
        self.trouble.kinds |= kind.bit();
        !known
    }

    fn notice_success(&mut self, now: Now) {
        let quiet = now.up.saturating_since(self.trouble.last);
        if self.trouble.kinds == 0 || quiet < RECOVERY {
            return;
        }
        let after = self.statistics();
        let before = std::mem::replace(&mut self.trouble.before, after);
        info!(
            "collector {}: takes records again; in the meantime {} messages were refused, {} records could not be \
             sent and {} were dropped",
            self.address,
            after.refused - before.refused,
            after.failed - before.failed,
            after.dropped - before.dropped,
        );
        self.trouble.kinds = 0;
    }
}

/// What went wrong since the collector was last well, so that each is logged once.
#[derive(Debug, Default)]
struct Trouble {
    /// Bits of [`Kind`]; 0 when all is well.
    kinds: u8,
    last: Uptime,
    /// The statistics when all was well last.
    before: Statistics,
    /// Dropped records that have been noticed.
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Refused,
    Failed,
    Overflow,
}

impl Kind {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

fn is_refused(result: &io::Result<usize>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Whether there is nothing to say or to repair: the socket or the device queue is full, or, when refused twice in a row,
/// the error again belongs to a message before this one.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR | libc::ECONNREFUSED)
    )
}

/// Whether the message itself is at fault. Any other error is one of the way to the collector, which may be there again
/// at the next try.
fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// A non-blocking socket with the local address `source`. Several collectors may have the same, with its port: they are
/// connected to different addresses.
fn bind(source: SocketAddr) -> io::Result<UdpSocket> {
    let family = match source {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &source)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
