//! One NetFlow or IPFIX collector over UDP: a [`Packer`], a bounded queue and a connected, non-blocking socket.
//!
//! No call blocks. What the socket cannot take now stays queued and is tried again at a deadline
//! ([`Collector::poll_timeout`]), first after 5 ms, then after twice as long each time, up to a second. What does not fit
//! into the queue and what the network refuses to carry is counted, and said once per change of state.
//!
//! The socket is connected so that ICMP errors come back (RFC 1122 section 4.1.3.3): port unreachable shows as
//! ECONNREFUSED on the next send, and then belongs to an earlier message.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use log::{info, warn};
use rustix::net::{connect_unspec, sockopt};

use crate::config;
use crate::export::packer::{Packer, Progress, Transport};
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
    /// Messages that the kernel took.
    pub messages: u64,
    /// Flow records in them.
    pub records: u64,
    /// Octets in them, without IP and UDP headers.
    pub octets: u64,
    /// Flow records in messages that could not be sent.
    pub failed: u64,
    /// Messages to which the collector's host answered that nobody listens on the port.
    pub refused: u64,
    /// Flow records for which the queue had no room.
    pub dropped: u64,
    /// Events for which the format has no record.
    pub not_representable: u64,
    /// Gaps, for which there is no record in any of the formats.
    pub gaps: u64,
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

/// What a later run needs to go on as if it were the same: collectors know an exporter by its address and port too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Past {
    /// The local port.
    pub port: u16,
    pub progress: Progress,
}

#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    socket: UdpSocket,
    connected: bool,
    packer: Packer,
    queue: Queue,
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
    messages: u64,
    records: u64,
    octets: u64,
    failed: u64,
    refused: u64,
    not_representable: u64,
    gaps: u64,
}

impl Collector {
    /// Opens the socket, bound to the configured source. A collector that cannot be reached yet is no error: its
    /// records wait in the queue.
    ///
    /// With a `past`, sequence numbers go on from there, and the socket gets the same port again, if the configuration
    /// leaves the choice and nobody else has it now.
    ///
    /// # Errors
    /// When the socket cannot be made or bound, such as to an address this machine does not have.
    pub fn new(collector: &config::Collector, past: Option<&Past>, now: Now) -> io::Result<Self> {
        let socket = bind(collector, past.map(|past| past.port))?;
        socket.set_nonblocking(true)?;
        if let Some(size) = collector.send_buffer {
            sockopt::set_socket_send_buffer_size(&socket, size)?;
        }
        let mut packer = Packer::new(collector, Transport::Datagram, now);
        if let Some(past) = past {
            packer.resume(&past.progress);
        }
        Ok(Self {
            address: collector.address,
            socket,
            connected: false,
            packer,
            queue: Queue::new(QUEUE_LIMIT),
            retry: None,
            wait: FIRST_RETRY,
            counters: Counters::default(),
            trouble: Trouble::default(),
        })
    }

    /// What a later run can go on from.
    #[must_use]
    pub fn past(&self) -> Past {
        Past {
            // 0, which is any, where the kernel does not tell.
            port: self.socket.local_addr().map_or(0, |local| local.port()),
            progress: self.packer.progress(),
        }
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Packs a record. Call [`Self::flush`] before waiting for the next one.
    pub fn push(&mut self, record: &Record, now: Now) {
        match record {
            Record::Event(event) => {
                let result = self.packer.push(event, now, &mut self.queue);
                if result.is_err() {
                    self.counters.not_representable += 1;
                }
                self.notice_overflow(now);
            }
            Record::Gap(_) => self.counters.gaps += 1,
        }
    }

    /// Finishes the message that is due and sends what is queued, up to 64 messages. Does nothing when called before
    /// [`Self::poll_timeout`].
    pub fn flush(&mut self, now: Now) {
        self.packer.handle_timeout(now, &mut self.queue);
        self.notice_overflow(now);
        if self.queue.is_empty() || self.retry.is_some_and(|at| now.up < at) {
            return;
        }
        self.retry = None;
        for _ in 0..BURST {
            if !self.send_front(now) {
                break;
            }
        }
    }

    /// Finishes the message in hand and sends what is queued, for a shutdown: call it until [`Self::is_idle`], as
    /// [`Self::poll_timeout`] says.
    pub fn drain(&mut self, now: Now) {
        self.packer.flush(now, &mut self.queue);
        self.flush(now);
    }

    /// When to call [`Self::flush`] next. Changes with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let send = if self.queue.is_empty() {
            None
        } else {
            Some(self.retry.unwrap_or_default())
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
        Statistics {
            messages: counters.messages,
            records: counters.records,
            octets: counters.octets,
            failed: counters.failed,
            refused: counters.refused,
            dropped: totals.dropped,
            not_representable: counters.not_representable,
            gaps: counters.gaps,
            queued_messages: self.queue.len() as u64,
            queued_octets: self.queue.used() as u64,
            peak_octets: self.queue.peak() as u64,
            sequence: self.packer.sequence(),
            template_sends: totals.template_sends,
        }
    }

    /// Sends the oldest message. False when there is none or when to wait until `retry`.
    fn send_front(&mut self, now: Now) -> bool {
        let Some(message) = self.queue.front() else {
            return false;
        };
        if !self.connected {
            if let Err(error) = self.socket.connect(self.address) {
                self.back_off(now);
                self.notice_failure(&error, now);
                return false;
            }
            self.connected = true;
        }
        let mut result = self.socket.send(message.bytes);
        let refused = is_refused(&result);
        if refused {
            result = self.socket.send(message.bytes);
        }
        let octets = message.bytes.len();
        if refused {
            self.counters.refused += 1;
            // The message that was refused may have had the templates.
            self.packer.resend_templates();
            self.notice_refusal(now);
        }
        match result {
            Ok(_) => {
                self.counters.messages += 1;
                self.counters.octets += octets as u64;
                self.counters.records += u64::from(self.queue.pop().unwrap_or_default());
                self.wait = FIRST_RETRY;
                self.notice_success(now);
                true
            }
            Err(error) if is_temporary(&error) => {
                self.back_off(now);
                false
            }
            Err(error) => {
                let records = self.queue.pop().unwrap_or_default();
                self.counters.failed += u64::from(records);
                self.packer.handle_not_sent(octets, records);
                self.disconnect();
                self.back_off(now);
                self.notice_failure(&error, now);
                false
            }
        }
    }

    /// Lets the next connect choose the source address again: the kernel keeps the first one, and fails every send
    /// (EINVAL) once it has been taken from the interface.
    fn disconnect(&mut self) {
        // What fails here fails again at the next connect, and is said there.
        let _ = connect_unspec(&self.socket);
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
        if self.notice(Kind::Failed, now) {
            warn!("collector {}: cannot send: {error}", self.address);
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

fn bind(collector: &config::Collector, port: Option<u16>) -> io::Result<UdpSocket> {
    let unspecified = match collector.address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let source = collector.source.unwrap_or((unspecified, 0).into());
    let again = port.filter(|_| source.port() == 0);
    match again.map(|port| UdpSocket::bind((source.ip(), port))) {
        Some(Ok(socket)) => Ok(socket),
        _ => UdpSocket::bind(source),
    }
}

fn is_refused(result: &io::Result<usize>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Whether the same message may pass later: the socket or the device queue is full, or, when refused twice in a row, the
/// error again belongs to a message before this one.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR | libc::ECONNREFUSED)
    )
}

#[cfg(test)]
mod tests;
