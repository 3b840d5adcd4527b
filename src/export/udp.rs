//! A UDP socket that finds out which datagrams did not arrive, as far as anybody reports it.
//!
//! The socket is connected and the kernel keeps the ICMP errors for it ([`crate::kernel::errqueue`]), each with the
//! beginning of the refused datagram: port unreachable from the receiver's host (RFC 1122 section 4.1.3.3), host or
//! network unreachable from a router or from our own neighbour discovery. The datagrams of the last seconds are
//! remembered to find the first refused one: all before it count as taken, it and all after it do not.
//!
//! The local port stays the same as long as the object lives, over route failures and changed addresses: collectors
//! identify an exporter by it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect_unspec, sockopt};

use super::encoder::{Amount, Load};
use crate::kernel::errqueue;
use crate::place::Position;
use crate::time::{Now, Uptime};

/// How long a datagram is remembered. An answer of the receiver's host takes a round trip, and neighbour discovery gives up
/// after three seconds.
const MEMORY: Duration = Duration::from_secs(4);
/// A refusal that quotes too little to identify the datagram may be about any of this time.
const ROUND_TRIP: Duration = Duration::from_secs(1);
/// For so long after a probe that nobody refused, a refusal may still be about it: hosts answer seldom ([`super::peer`]).
const SILENCE: Duration = Duration::from_millis(1100);
/// The most datagrams remembered.
const MOST: usize = 1 << 16;
/// Octets of a datagram that identify it. An answer of Linux quotes 520 or more, RFC 792 requires none.
const TELLING: usize = 400;

#[derive(Debug)]
pub(super) struct Udp {
    peer: SocketAddr,
    source: SocketAddr,
    /// The local port to bind again, where the configuration leaves the choice.
    port: u16,
    send_buffer: Option<usize>,
    socket: Option<UdpSocket>,
    connected: bool,
    /// The latest datagrams, as long as an answer may still come.
    sent: VecDeque<Sent>,
    doubt: Option<Doubt>,
}

/// A refusal was recent, so the next refused datagram may not be the first that did not arrive.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// Datagrams sent since then have not been answered.
    since: Uptime,
    /// Set once a probe was not refused.
    until: Option<Uptime>,
}

/// A datagram that the kernel took.
#[derive(Clone, Copy, Debug)]
struct Sent {
    begin: Position,
    load: Load,
    octets: u16,
    at: Uptime,
    sum: u32,
}

/// The place to continue at after a refusal.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoBack {
    pub(super) position: Position,
    pub(super) sequence: u32,
    /// The sum of the messages from there on that had counted as taken.
    pub(super) amount: Amount,
    /// When the first of these messages was sent.
    pub(super) since: Uptime,
}

impl Udp {
    pub(super) fn new(peer: SocketAddr, source: SocketAddr, send_buffer: Option<usize>) -> Self {
        Self {
            peer,
            source,
            port: 0,
            send_buffer,
            socket: None,
            connected: false,
            sent: VecDeque::new(),
            doubt: None,
        }
    }

    /// Sends from this port, if the configuration leaves the choice and nobody else has it by then. `refused`: the
    /// receiver refused the last datagram.
    pub(super) fn go_on(&mut self, port: u16, refused: bool) {
        self.port = port;
        if refused {
            self.doubt(Uptime::default());
        }
    }

    /// The local port; 0 before there is one.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// The receiver's address, unless it is this host, which does not limit the rate of its answers.
    pub(super) fn host(&self) -> Option<IpAddr> {
        Some(self.peer.ip()).filter(|host| !host.is_loopback())
    }

    /// The first message that may still be answered.
    pub(super) fn earliest(&self) -> Option<Position> {
        self.sent.front().map(|sent| sent.begin)
    }

    /// The place to continue at if the next refusal is about everything in doubt.
    pub(super) fn doubtful(&self) -> Option<(Position, u32)> {
        let since = self.doubt?.since;
        let first = self.sent.iter().find(|sent| sent.at >= since)?;
        Some((first.begin, first.load.sequence))
    }

    /// Doubts all datagrams sent since `since`, until a probe is not refused.
    pub(super) const fn doubt(&mut self, since: Uptime) {
        self.doubt = Some(Doubt { since, until: None });
    }

    /// Takes note that nobody refused the probe.
    pub(super) fn settle(&mut self, now: Now) {
        if let Some(doubt) = &mut self.doubt {
            doubt.until = Some(now.up.saturating_add(SILENCE));
        }
    }

    /// Makes sure that there is a connected socket. Returns whether its port is another one than before.
    ///
    /// # Errors
    /// The kernel's error: usually that there is no route.
    pub(super) fn open(&mut self) -> io::Result<bool> {
        let mut moved = false;
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let (socket, port) = self.bind()?;
                moved = self.port != 0 && self.port != port;
                self.port = port;
                socket
            }
        };
        let socket = self.socket.insert(socket);
        if !self.connected {
            socket.connect(self.peer)?;
            self.connected = true;
        }
        Ok(moved)
    }

    /// Sends a datagram that begins at `begin`.
    ///
    /// # Errors
    /// The kernel's error, about this datagram or an earlier one.
    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        begin: Position,
        load: Load,
        now: Now,
    ) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        socket.send(bytes)?;
        if self.sent.len() == MOST {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            begin,
            load,
            // No datagram is longer than 65,535.
            octets: bytes.len() as u16,
            at: now.up,
            sum: sum(bytes),
        });
        Ok(())
    }

    /// Lets the next [`Self::open`] choose the source address again: the kernel keeps the first one, and fails every
    /// send (EINVAL) once the interface has lost it. The port is kept by binding it again, as dissolving the
    /// association releases a port that the kernel chose.
    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        if let Some(socket) = self.socket.take() {
            let dissolved = connect_unspec(&socket);
            let again = SocketAddr::new(self.source.ip(), self.port);
            let bound = socket.local_addr().is_ok_and(|local| local.port() != 0)
                || rustix::net::bind(&socket, &again).is_ok();
            if dissolved.is_ok() && bound {
                self.socket = Some(socket);
            }
        }
    }

    /// Whether an answer to a datagram may still come. Forgets the datagrams that were sent long enough ago.
    pub(super) fn awaits_answers(&mut self, now: Now) -> bool {
        let is_open = self.doubt.is_some_and(|doubt| doubt.until.is_none());
        while let Some(oldest) = self.sent.front()
            && now.up.saturating_since(oldest.at) > MEMORY
            && !is_open
        {
            self.sent.pop_front();
        }
        !self.sent.is_empty()
    }

    /// Reads the answers that have come. After a refusal, the earliest refused datagram tells where to continue.
    pub(super) fn take_refusal(&mut self, now: Now) -> Option<GoBack> {
        let socket = self.socket.as_ref()?;
        let mut quoted = [0; TELLING];
        let mut first = None;
        while let Some(length) = errqueue::take_error(socket, &mut quoted) {
            let refused = earliest(&self.sent, &quoted[..length], now);
            first = first.into_iter().chain(refused).min();
        }
        let mut first = first?;
        let at = self.sent[first].at;
        let doubt = self
            .doubt
            .filter(|doubt| doubt.until.is_none_or(|until| at <= until));
        if let Some(doubt) = doubt {
            let is_doubtful = |sent: &Sent| sent.at >= doubt.since;
            first = self
                .sent
                .iter()
                .position(is_doubtful)
                .unwrap_or(first)
                .min(first);
        }
        let refused = self.sent.split_off(first);
        self.sent.clear();
        let Sent {
            begin, load, at, ..
        } = refused[0];
        self.doubt(at);
        let amounts = refused
            .iter()
            .map(|sent| Amount::of(sent.load, sent.octets.into()));
        Some(GoBack {
            position: begin,
            sequence: load.sequence,
            amount: amounts.sum(),
            since: at,
        })
    }

    /// A non-blocking socket with the configured local address, and its port. Several outputs may have the same address
    /// and port: they are connected to different receivers.
    fn bind(&self) -> io::Result<(UdpSocket, u16)> {
        let family = match self.peer {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        errqueue::keep_errors(&socket, self.peer.is_ipv4())?;
        if let Some(size) = self.send_buffer {
            sockopt::set_socket_send_buffer_size(&socket, size)?;
        }
        let again = SocketAddr::new(self.source.ip(), self.port);
        let is_wanted = self.source.port() == 0 && self.port != 0;
        if !(is_wanted && rustix::net::bind(&socket, &again).is_ok()) {
            rustix::net::bind(&socket, &self.source)?;
        }
        let socket = UdpSocket::from(socket);
        let port = socket.local_addr()?.port();
        Ok((socket, port))
    }
}

/// The index of the datagram that begins with `quoted`, or of the earliest that may.
fn earliest(sent: &VecDeque<Sent>, quoted: &[u8], now: Now) -> Option<usize> {
    let mut was_long_enough = false;
    let mut known = (0, sum(&[]));
    let found = sent.iter().position(|sent| {
        let telling = usize::from(sent.octets).min(TELLING);
        if quoted.len() < telling {
            return false;
        }
        was_long_enough = true;
        if known.0 != telling {
            known = (telling, sum(&quoted[..telling]));
        }
        known.1 == sent.sum
    });
    // A datagram that was quoted whole and is not found was never sent (EMSGSIZE), or the output has already gone back to it.
    let recent = |sent: &Sent| now.up.saturating_since(sent.at) <= ROUND_TRIP;
    found.or_else(|| {
        let unknown = !was_long_enough;
        unknown.then(|| sent.iter().position(recent)).flatten()
    })
}

fn sum(bytes: &[u8]) -> u32 {
    crc32fast::hash(&bytes[..bytes.len().min(TELLING)])
}
