//! Makes connections: UDP datagrams, each to an address and port of its own.
//!
//! One socket, so one source port; connection number `n` goes to an address of 198.18.0.0/15 (RFC 2544, benchmarks) and
//! a port that follow from `n`. Several thousand million are distinct.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::addr::SocketAddrArg as _;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

use crate::support::gateway::CLIENT;
use crate::support::netns::Namespace;

const BATCH: u64 = 64;
const FIRST_ADDRESS: u32 = 198 << 24 | 18 << 16;
const ADDRESSES: u64 = 1 << 17;
const FIRST_PORT: u64 = 1024;
const PAYLOAD: &[u8] = b"nattrail";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the kernel can.
    Full,
    PerSecond(u64),
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "full" => Ok(Self::Full),
            Ok(rate) if rate > 0 => Ok(Self::PerSecond(rate)),
            _ => Err("expected connections per second, or \"full\"".to_owned()),
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::PerSecond(rate) => rate.fmt(f),
        }
    }
}

/// The end of the load: whichever limit comes first.
#[derive(Clone, Copy, Debug)]
pub struct Until {
    pub duration: Duration,
    pub count: u64,
}

/// The packets sent from one source port. Their numbers continue from one run to the next.
#[derive(Debug)]
pub struct Generator {
    socket: UdpSocket,
    next: u64,
}

impl Generator {
    /// Sends from `port` of the client.
    pub fn new(client: &Namespace, port: u16) -> Self {
        let socket = client.run(|| UdpSocket::bind((CLIENT, port)).unwrap());
        Self { socket, next: 0 }
    }

    /// Sends until the end, and returns the number of datagrams and the time taken.
    pub fn run(&mut self, rate: Rate, until: Until) -> (u64, Duration) {
        let begin = Instant::now();
        let mut sent = 0;
        loop {
            let elapsed = begin.elapsed();
            let left = until.count - sent;
            if elapsed >= until.duration || left == 0 {
                return (sent, elapsed);
            }
            let due = match rate {
                Rate::Full => BATCH,
                Rate::PerSecond(rate) => (elapsed.as_secs_f64() * rate as f64) as u64 - sent,
            };
            if due == 0 {
                thread::sleep(Duration::from_micros(200));
            } else {
                sent += self.send(due.min(left).min(BATCH));
            }
        }
    }

    fn send(&mut self, count: u64) -> u64 {
        let addresses: Vec<SocketAddrAny> =
            (self.next..self.next + count).map(destination).collect();
        let mut controls: Vec<_> = addresses
            .iter()
            .map(|_| SendAncillaryBuffer::default())
            .collect();
        let payload = [IoSlice::new(PAYLOAD)];
        let mut messages: Vec<_> = addresses
            .iter()
            .zip(&mut controls)
            .map(|(address, control)| MMsgHdr::new_with_addr(address, &payload, control))
            .collect();
        let sent = match sendmmsg(&self.socket, &mut messages, SendFlags::empty()) {
            Ok(sent) => sent as u64,
            // Connection tracking reports a dropped packet (its table is full) like this.
            Err(rustix::io::Errno::PERM | rustix::io::Errno::NOBUFS) => 1,
            Err(error) => panic!("sendmmsg: {error}"),
        };
        self.next += sent;
        sent
    }
}

fn destination(number: u64) -> SocketAddrAny {
    let address = Ipv4Addr::from(FIRST_ADDRESS + (number % ADDRESSES) as u32);
    let ports = u64::from(u16::MAX) - FIRST_PORT;
    let port = (FIRST_PORT + number / ADDRESSES % ports) as u16;
    SocketAddr::from(SocketAddrV4::new(address, port)).as_any()
}
