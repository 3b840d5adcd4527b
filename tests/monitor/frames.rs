//! Frames between foreign stations, as a switch mirrors them, and the connections that they are.
//!
//! Each packet is noted when it is built, if connection tracking is to count it: so the expectation comes from what was
//! sent alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::support::packet::{self, internet_checksum};

/// Neither is any interface's of the test.
const CLIENT_STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER_STATION: [u8; 6] = [2, 0, 0, 0, 0, 2];

const ETHERTYPE_VLAN: u16 = 0x8100;

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;
pub const RST: u8 = 4;

/// A connection by the packet that begins it: protocol, source and destination. ICMP has its identifier as both ports.
pub type Tuple = (u8, (IpAddr, u16), (IpAddr, u16));

/// Packets and octets of a connection, in both directions.
pub type Counts = [(u64, u64); 2];

/// Frames to be sent, and the connections that they make.
#[derive(Debug, Default)]
pub struct Script {
    pub frames: Vec<Vec<u8>>,
    pub connections: BTreeMap<Tuple, Counts>,
    /// The VLAN of the next frames.
    pub vlan: Option<u16>,
}

impl Script {
    /// A UDP datagram. The one that begins a connection decides its direction.
    pub fn udp(&mut self, from: (IpAddr, u16), to: (IpAddr, u16), octets: usize) {
        let mut datagram = ports(from.1, to.1);
        datagram.extend(u16::try_from(8 + octets).unwrap().to_be_bytes());
        datagram.extend([0, 0]);
        datagram.resize(8 + octets, 0x5a);
        self.packet((packet::UDP, from, to), datagram, 6);
    }

    /// A TCP segment.
    pub fn tcp(
        &mut self,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
        flags: u8,
        place: [u32; 2],
        octets: usize,
    ) {
        let segment = segment(from.1, to.1, flags, place, octets);
        self.packet((packet::TCP, from, to), segment, 16);
    }

    /// A TCP connection: a handshake, `octets` from the server in segments of 1,000, acknowledgements, and its end. The
    /// mirror loses the third segment, has the fourth twice, and exchanges the fifth and the sixth.
    pub fn download(&mut self, client: (IpAddr, u16), server: (IpAddr, u16), segments: u32) {
        self.tcp(client, server, SYN, [100, 0], 0);
        self.tcp(server, client, SYN | ACK, [500, 101], 0);
        self.tcp(client, server, ACK, [101, 501], 0);
        self.tcp(client, server, ACK, [101, 501], 77);
        let mut order: Vec<_> = (0..segments).filter(|index| *index != 2).collect();
        order.insert(3, 3);
        order.swap(4, 5);
        for index in order {
            self.tcp(server, client, ACK, [501 + index * 1000, 178], 1000);
            self.tcp(client, server, ACK, [178, 501 + (index + 1) * 1000], 0);
        }
        let end = 501 + segments * 1000;
        self.tcp(server, client, FIN | ACK, [end, 178], 0);
        self.tcp(client, server, FIN | ACK, [178, end + 1], 0);
        self.tcp(server, client, ACK, [end + 1, 179], 0);
    }

    /// A segment in the middle of a connection and its answer, with which it ends.
    pub fn reset(&mut self, client: (IpAddr, u16), server: (IpAddr, u16)) {
        self.tcp(client, server, ACK, [7000, 9000], 10);
        self.tcp(server, client, ACK, [9000, 7010], 20);
        self.tcp(server, client, RST | ACK, [9020, 7010], 0);
    }

    /// An echo request and its answer.
    pub fn echo(&mut self, from: IpAddr, to: IpAddr, id: u16) {
        let (protocol, kinds) = match from {
            IpAddr::V4(_) => (packet::ICMP, [8, 0]),
            IpAddr::V6(_) => (packet::ICMPV6, [128, 129]),
        };
        for (kind, from, to) in [(kinds[0], from, to), (kinds[1], to, from)] {
            let mut message = vec![kind, 0, 0, 0];
            message.extend(id.to_be_bytes());
            message.extend([0, 1]);
            message.resize(64, 0x5a);
            if protocol == packet::ICMP {
                let sum = internet_checksum(&message);
                message[2..4].copy_from_slice(&sum.to_be_bytes());
                self.note((protocol, (from, id), (to, id)), 20 + message.len());
                self.frame_of(from, to, protocol, &message, 64);
            } else {
                self.packet((protocol, (from, id), (to, id)), message, 2);
            }
        }
    }

    /// A UDP datagram in two fragments, the second before the first if `swapped`. conntrack counts the whole packet.
    pub fn fragments(
        &mut self,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
        octets: usize,
        swapped: bool,
    ) {
        let mut datagram = ports(from.1, to.1);
        datagram.extend(u16::try_from(8 + octets).unwrap().to_be_bytes());
        datagram.extend([0, 0]);
        datagram.resize(8 + octets, 0x5a);
        check(from.0, to.0, packet::UDP, &mut datagram, 6);
        self.note((packet::UDP, from, to), header(from.0) + datagram.len());
        let (first, second) = datagram.split_at(800);
        let id = from.1;
        let mut frames = [(first, 0, true), (second, 800, false)].map(|(part, offset, more)| {
            ip_fragment(from.0, to.0, packet::UDP, part, 64, id, offset, more)
        });
        if swapped {
            frames.reverse();
        }
        for ip in frames {
            self.ethernet(from.0.is_ipv4(), &ip);
        }
    }

    /// A UDP datagram that is not tracked.
    pub fn unseen(&mut self, from: (IpAddr, u16), to: (IpAddr, u16), ttl: u8) {
        let mut datagram = ports(from.1, to.1);
        datagram.extend([0, 20, 0, 0]);
        datagram.resize(20, 0x5a);
        check(from.0, to.0, packet::UDP, &mut datagram, 6);
        self.frame_of(from.0, to.0, packet::UDP, &datagram, ttl);
    }

    /// An ICMP error about a packet: it belongs to that packet's connection, which does not count it.
    pub fn unreachable(&mut self, router: IpAddr, from: (IpAddr, u16), to: (IpAddr, u16)) {
        let mut datagram = ports(from.1, to.1);
        datagram.extend([0, 8, 0, 0]);
        check(from.0, to.0, packet::UDP, &mut datagram, 6);
        let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
        message.extend(ip_fragment(
            from.0,
            to.0,
            packet::UDP,
            &datagram,
            64,
            0,
            0,
            false,
        ));
        let sum = internet_checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.frame_of(router, from.0, packet::ICMP, &message, 64);
    }

    /// A frame of another protocol than IP, to a station or to all.
    pub fn other(&mut self, to: [u8; 6], ethertype: u16, payload: &[u8]) {
        self.frames
            .push([&to[..], &CLIENT_STATION, &ethertype.to_be_bytes(), payload].concat());
    }

    fn packet(&mut self, tuple: Tuple, mut payload: Vec<u8>, checksum: usize) {
        let (protocol, from, to) = tuple;
        check(from.0, to.0, protocol, &mut payload, checksum);
        self.note(tuple, header(from.0) + payload.len());
        self.frame_of(from.0, to.0, protocol, &payload, 64);
    }

    fn note(&mut self, (protocol, from, to): Tuple, octets: usize) {
        let (key, direction) = match self.connections.contains_key(&(protocol, to, from)) {
            true => ((protocol, to, from), 1),
            false => ((protocol, from, to), 0),
        };
        let counts = &mut self.connections.entry(key).or_default()[direction];
        counts.0 += 1;
        counts.1 += octets as u64;
    }

    fn frame_of(&mut self, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8], ttl: u8) {
        let ip = ip_fragment(from, to, protocol, payload, ttl, 0, 0, false);
        self.ethernet(from.is_ipv4(), &ip);
    }

    fn ethernet(&mut self, is_ipv4: bool, ip: &[u8]) {
        let ethertype = if is_ipv4 { 0x0800_u16 } else { 0x86dd };
        let mut frame = [SERVER_STATION, CLIENT_STATION].concat();
        if let Some(vlan) = self.vlan {
            frame.extend(ETHERTYPE_VLAN.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend(ip);
        self.frames.push(frame);
    }
}

fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes()].concat()
}

fn segment(
    from: u16,
    to: u16,
    flags: u8,
    [sequence, acknowledged]: [u32; 2],
    octets: usize,
) -> Vec<u8> {
    let mut segment = ports(from, to);
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.resize(20 + octets, 0x5a);
    segment
}

const fn header(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

/// Fills in the checksum over the payload and the pseudo-header (RFC 768, RFC 8200 section 8.1).
fn check(from: IpAddr, to: IpAddr, protocol: u8, payload: &mut [u8], at: usize) {
    let mut covered = [octets(from), octets(to)].concat();
    covered.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    covered.extend([0, 0, 0, protocol]);
    covered.extend(&*payload);
    let sum = internet_checksum(&covered);
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// An IP packet: a fragment of one, if there is more behind it or something before it.
#[allow(
    clippy::too_many_arguments,
    reason = "these are the fields of a header"
)]
fn ip_fragment(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    part: &[u8],
    ttl: u8,
    id: u16,
    offset: u16,
    more: bool,
) -> Vec<u8> {
    let is_fragment = more || offset > 0;
    let length = u16::try_from(part.len()).unwrap();
    let mut ip = Vec::new();
    if from.is_ipv4() {
        ip.extend([0x45, 0]);
        ip.extend((20 + length).to_be_bytes());
        ip.extend(id.to_be_bytes());
        ip.extend(((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
        ip.extend([ttl, protocol, 0, 0]);
        ip.extend(octets(from));
        ip.extend(octets(to));
        let sum = internet_checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let (next, extra) = if is_fragment { (44, 8) } else { (protocol, 0) };
        ip.extend([0x60, 0, 0, 0]);
        ip.extend((length + extra).to_be_bytes());
        ip.extend([next, ttl]);
        ip.extend(octets(from));
        ip.extend(octets(to));
        if is_fragment {
            ip.extend([protocol, 0]);
            ip.extend((offset | u16::from(more)).to_be_bytes());
            ip.extend(u32::from(id).to_be_bytes());
        }
    }
    ip.extend(part);
    ip
}
