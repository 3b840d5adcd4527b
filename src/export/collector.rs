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
use rustix::net::sockopt;

use crate::config;
use crate::export::packer::{Packer, Transport};
use crate::export::queue::Queue;
use crate::session::Record;
use crate::time::{Now, Uptime};

/// Most octets that wait for the socket.
const QUEUE_LIMIT: usize = 4 << 20;
/// Most messages sent in one call, so that one collector cannot keep the loop from reading the kernel's events.
const BURST: usize = 64;
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
    /// # Errors
    /// When the socket cannot be made or bound, such as to an address this machine does not have.
    pub fn new(collector: &config::Collector, now: Now) -> io::Result<Self> {
        let unspecified = match collector.address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let source = collector.source.unwrap_or((unspecified, 0).into());
        let socket = UdpSocket::bind(source)?;
        socket.set_nonblocking(true)?;
        if let Some(size) = collector.send_buffer {
            sockopt::set_socket_send_buffer_size(&socket, size)?;
        }
        Ok(Self {
            address: collector.address,
            socket,
            connected: false,
            packer: Packer::new(collector, Transport::Datagram, now),
            queue: Queue::new(QUEUE_LIMIT),
            retry: None,
            wait: FIRST_RETRY,
            counters: Counters::default(),
            trouble: Trouble::default(),
        })
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
                self.back_off(now);
                self.notice_failure(&error, now);
                false
            }
        }
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::{NatEventValues, Version};
    use crate::session::{Gap, GapCause, NatEvent};
    use crate::time::Wall;
    use crate::wire::samples::{create, nat66, snat};

    fn config(address: SocketAddr, version: Version) -> config::Collector {
        config::Collector {
            address,
            version,
            source: None,
            events: true,
            triplet: false,
            nat_event: NatEventValues::Rfc8158,
            destination: true,
            zone: false,
            post_nat_counters: true,
            mtu: 1500,
            template_refresh: Duration::from_secs(1800),
            template_refresh_packets: 20,
            send_buffer: None,
            observation_domain: 1,
            export_delay: Duration::from_secs(1),
        }
    }

    fn at(millis: u64) -> Now {
        Now::new(
            Wall::from_millis(1_795_206_288_000 + millis),
            Uptime::from_millis(3_600_000 + millis),
        )
    }

    fn event() -> NatEvent {
        create(snat(), 1_795_206_288_000)
    }

    fn receiver() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn receive(socket: &UdpSocket) -> Vec<u8> {
        let mut bytes = [0; 2000];
        let length = socket.recv(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    fn exporter(address: SocketAddr, version: Version) -> Collector {
        Collector::new(&config(address, version), at(0)).unwrap()
    }

    #[test]
    fn records_arrive_when_their_message_is_due() {
        let (socket, address) = receiver();
        let mut collector = exporter(address, Version::NetflowV5);
        collector.push(&Record::Event(event()), at(0));
        collector.push(&Record::Event(event()), at(10));
        assert_eq!(collector.poll_timeout(), Some(at(1000).up));
        collector.flush(at(999));
        assert_eq!(collector.statistics().messages, 0);
        collector.flush(at(1000));
        assert_eq!(receive(&socket).len(), 24 + 2 * 48);
        let statistics = collector.statistics();
        assert_eq!(
            (
                statistics.messages,
                statistics.records,
                statistics.octets,
                statistics.sequence
            ),
            (1, 2, 120, 2)
        );
        assert!(collector.is_idle());
        assert_eq!(collector.poll_timeout(), None);
    }

    #[test]
    fn draining_sends_the_message_in_hand() {
        let (socket, address) = receiver();
        let mut collector = exporter(address, Version::Ipfix);
        collector.push(&Record::Event(event()), at(0));
        assert!(!collector.is_idle());
        collector.drain(at(1));
        assert!(collector.is_idle());
        assert_eq!(receive(&socket)[..2], [0, 10]);
        assert_eq!(collector.statistics().template_sends, 1);
    }

    #[test]
    fn messages_come_from_the_configured_source() {
        let (socket, address) = receiver();
        let config = config::Collector {
            source: Some("127.0.0.77:0".parse().unwrap()),
            ..config(address, Version::NetflowV5)
        };
        let mut collector = Collector::new(&config, at(0)).unwrap();
        collector.push(&Record::Event(event()), at(0));
        collector.drain(at(0));
        let (_, from) = socket.recv_from(&mut [0; 2000]).unwrap();
        assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 77]));
    }

    #[test]
    fn a_source_that_is_not_this_machines_is_an_error() {
        let config = config::Collector {
            source: Some("192.0.2.1:0".parse().unwrap()),
            ..config("127.0.0.1:2055".parse().unwrap(), Version::NetflowV5)
        };
        let error = Collector::new(&config, at(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn a_refused_port_is_counted_and_no_later_message_is_lost() {
        let (socket, address) = receiver();
        drop(socket);
        let mut collector = exporter(address, Version::Ipfix);
        // The first is lost without a word; the second learns of it and is lost in turn.
        for millis in [0, 1] {
            collector.push(&Record::Event(event()), at(millis));
            collector.drain(at(millis));
        }
        assert_eq!(collector.statistics().refused, 1);
        assert!(collector.is_idle());

        let socket = UdpSocket::bind(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        collector.push(&Record::Event(event()), at(2));
        collector.drain(at(2));
        let statistics = collector.statistics();
        assert_eq!((statistics.refused, statistics.messages), (2, 3));
        // The templates went with the refused messages, so they come again.
        assert!(receive(&socket).len() > 200);
        assert_ne!(collector.trouble.kinds, 0);

        for millis in [10_002, 10_003] {
            collector.push(&Record::Event(event()), at(millis));
            collector.drain(at(millis));
        }
        assert_eq!(collector.statistics().refused, 2);
        assert_eq!(collector.trouble.kinds, 0);
    }

    #[test]
    fn an_unreachable_collector_keeps_its_records_and_backs_off() {
        // A socket bound to the loopback address has no way to any other (EINVAL).
        let config = config::Collector {
            source: Some("127.0.0.1:0".parse().unwrap()),
            ..config("192.0.2.1:2055".parse().unwrap(), Version::NetflowV5)
        };
        let mut collector = Collector::new(&config, at(0)).unwrap();
        collector.push(&Record::Event(event()), at(0));
        let mut tries = Vec::new();
        let mut now = 0;
        for _ in 0..11 {
            collector.drain(at(now));
            let next = collector.poll_timeout().unwrap();
            let wait = next.saturating_since(at(now).up).as_millis() as u64;
            tries.push(wait);
            // Not before its time.
            collector.flush(at(now + wait - 1));
            assert_eq!(collector.poll_timeout(), Some(next));
            now += wait;
        }
        assert_eq!(tries, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
        assert_eq!(collector.statistics().queued_messages, 1);
    }

    #[test]
    fn a_message_that_cannot_be_sent_is_counted_and_the_next_one_tried_later() {
        let (socket, address) = receiver();
        let mut collector = exporter(address, Version::Ipfix);
        for _ in 0..2 {
            collector.push(&Record::Event(event()), at(0));
            collector.packer.flush(at(0), &mut collector.queue);
        }
        // Every send now fails with EPIPE.
        let working = collector.socket.try_clone().unwrap();
        collector.socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        collector.socket.connect(address).unwrap();
        collector.connected = true;
        rustix::net::shutdown(&collector.socket, rustix::net::Shutdown::Write).unwrap();
        collector.flush(at(0));
        let statistics = collector.statistics();
        assert_eq!((statistics.failed, statistics.queued_messages), (1, 1));
        assert_eq!(collector.poll_timeout(), Some(at(5).up));

        working.connect(address).unwrap();
        collector.socket = working;
        collector.flush(at(5));
        assert_eq!(collector.statistics().records, 1);
        assert!(receive(&socket).len() < 100);
        // The templates were in the message that was lost.
        collector.push(&Record::Event(event()), at(6));
        collector.drain(at(6));
        assert!(receive(&socket).len() > 200);
    }

    #[test]
    fn what_the_queue_cannot_hold_is_dropped_and_counted() {
        let (socket, address) = receiver();
        drop(socket);
        let mut collector = exporter(address, Version::NetflowV5);
        // Nothing is flushed, as while a full socket is waited for.
        for _ in 0..100_000 {
            collector.push(&Record::Event(event()), at(0));
        }
        let statistics = collector.statistics();
        let queued = statistics.queued_messages * 30;
        assert!(statistics.dropped > 0);
        assert!(queued + statistics.dropped + 30 > 100_000);
        assert!(statistics.queued_octets <= QUEUE_LIMIT as u64);
        assert_eq!(statistics.peak_octets, statistics.queued_octets);
    }

    #[test]
    fn one_call_sends_no_more_than_a_burst() {
        let (_socket, address) = receiver();
        let mut collector = exporter(address, Version::NetflowV5);
        for _ in 0..30 * (BURST + 6) {
            collector.push(&Record::Event(event()), at(0));
        }
        collector.drain(at(0));
        assert_eq!(collector.statistics().messages, BURST as u64);
        // The rest is due at once.
        assert!(collector.poll_timeout().unwrap() <= at(0).up);
        collector.flush(at(0));
        assert!(collector.is_idle());
    }

    #[test]
    fn what_has_no_record_is_counted() {
        let (_socket, address) = receiver();
        let mut collector = exporter(address, Version::NetflowV5);
        collector.push(&Record::Event(create(nat66(), 0)), at(0));
        collector.push(
            &Record::Gap(Gap {
                cause: GapCause::Restart,
                from: at(0).wall,
                to: at(1).wall,
                lost: None,
            }),
            at(1),
        );
        let statistics = collector.statistics();
        assert_eq!((statistics.not_representable, statistics.gaps), (1, 1));
        assert!(collector.is_idle());
    }
}
