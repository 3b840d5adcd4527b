//! Packets that no ordinary socket sends: everything behind the IP header, checksums included.
//!
//! ICMP (RFC 792, 4443), GRE (RFC 2784, and version 1 of RFC 2637), SCTP (RFC 9260), DCCP (RFC 4340) and UDP-Lite (RFC 3828).

use std::net::{IpAddr, Ipv4Addr};

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const DCCP: u8 = 33;
pub const GRE: u8 = 47;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;
pub const UDPLITE: u8 = 136;
/// "Use for experimentation and testing", RFC 3692.
pub const EXPERIMENT: u8 = 253;

/// An echo request with 56 octets of data, as ping sends. The kernel fills in the checksum of ICMPv6.
#[must_use]
pub fn echo_request(ipv4: bool, id: u16, sequence: u16) -> Vec<u8> {
    let mut message = vec![if ipv4 { 8 } else { 128 }, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend([0x5a; 56]);
    if ipv4 {
        let sum = internet_checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

#[must_use]
pub fn is_echo_reply(ipv4: bool, message: &[u8], id: u16, sequence: u16) -> bool {
    let kind = if ipv4 { 0 } else { 129 };
    message.len() >= 8
        && message[0] == kind
        && message[4..6] == id.to_be_bytes()
        && message[6..8] == sequence.to_be_bytes()
}

/// GRE without options, carrying `octets` of an unknown protocol.
#[must_use]
pub fn gre(octets: usize) -> Vec<u8> {
    [vec![0, 0, 0x88, 0xb5], vec![0x5a; octets]].concat()
}

/// GRE version 1 as PPTP uses it, with its call id, and `octets` of payload.
#[must_use]
pub fn gre_pptp(call_id: u16, octets: u16) -> Vec<u8> {
    // Key and sequence number present, version 1, protocol PPP.
    let mut message = vec![0x30, 0x01, 0x88, 0x0b];
    message.extend(octets.to_be_bytes());
    message.extend(call_id.to_be_bytes());
    message.extend(1_u32.to_be_bytes());
    message.resize(message.len() + usize::from(octets), 0x5a);
    message
}

/// An SCTP packet with an INIT chunk. conntrack verifies the checksum.
#[must_use]
pub fn sctp_init(src_port: u16, dst_port: u16) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(src_port.to_be_bytes());
    message.extend(dst_port.to_be_bytes());
    message.extend([0; 8]); // verification tag 0 in an INIT, checksum
    message.extend([1, 0, 0, 20]); // INIT, 20 octets
    message.extend(0x1234_5678_u32.to_be_bytes()); // initiate tag
    message.extend(65_536_u32.to_be_bytes()); // receiver window
    message.extend([0, 1, 0, 1]); // streams out and in
    message.extend(1_u32.to_be_bytes()); // initial TSN
    let sum = crc32c(&message);
    message[8..12].copy_from_slice(&sum.to_le_bytes());
    message
}

/// A UDP-Lite datagram whose checksum covers all of it.
#[must_use]
pub fn udplite(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), octets: usize) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(from.1.to_be_bytes());
    message.extend(to.1.to_be_bytes());
    message.extend([0; 4]); // coverage 0 is everything; checksum
    message.resize(8 + octets, 0x5a);
    let sum = checksum_with_addresses(from.0, to.0, UDPLITE, &message);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A DCCP packet of type Request.
#[must_use]
pub fn dccp_request(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(from.1.to_be_bytes());
    message.extend(to.1.to_be_bytes());
    message.extend([5, 0, 0, 0]); // data offset in words; CCVal, coverage 0 is everything; checksum
    message.extend([1, 0]); // Request, with a sequence number of 48 bits
    message.extend([0, 0, 0, 0, 0, 1]);
    message.extend(0x1234_5678_u32.to_be_bytes()); // service code
    let sum = checksum_with_addresses(from.0, to.0, DCCP, &message);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A UDP datagram in an IP packet, as a capture of raw IP holds it. The UDP checksum of IPv4 is left out (RFC 768), that
/// of IPv6 is computed (RFC 8200 section 8.1).
#[must_use]
pub fn ip_udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = Vec::new();
    udp.extend(from.1.to_be_bytes());
    udp.extend(to.1.to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let mut packet = Vec::new();
    match (from.0, to.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            packet.extend([0x45, 0]);
            packet.extend((20 + length).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            let sum = internet_checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let addresses = [src.octets(), dst.octets()].concat();
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([UDP, 64]);
            packet.extend(&addresses);
            let pseudo = [
                &addresses[..],
                &[0, 0],
                &length.to_be_bytes(),
                &[0, 0, 0, UDP],
            ];
            let sum = internet_checksum(&[pseudo.concat(), udp.clone()].concat());
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        _ => panic!("{} and {} are of different families", from.0, to.0),
    }
    packet.extend(udp);
    packet
}

/// The checksum over a message and the pseudo-header of RFC 768, which several protocols share.
fn checksum_with_addresses(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, message: &[u8]) -> u16 {
    let length = u16::try_from(message.len()).unwrap();
    let mut covered = Vec::new();
    covered.extend(from.octets());
    covered.extend(to.octets());
    covered.extend([0, protocol]);
    covered.extend(length.to_be_bytes());
    covered.extend(message);
    internet_checksum(&covered)
}

/// RFC 1071.
#[must_use]
pub fn internet_checksum(data: &[u8]) -> u16 {
    let mut sum: u32 = data
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// The checksum of RFC 9260 appendix A, bit by bit.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for octet in data {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}
