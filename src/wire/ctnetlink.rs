//! Conntrack messages of nfnetlink: events and dump replies in, dump requests out.
//!
//! Follows `include/uapi/linux/netfilter/nfnetlink_conntrack.h` and `net/netfilter/nf_conntrack_netlink.c`. Attribute
//! values are in network byte order. Unknown attributes are skipped, as newer kernels add some; a missing tuple or a
//! value of the wrong length makes the message [`Malformed`]. No input panics, nothing is allocated.

use std::net::IpAddr;

use super::netlink::{self, Attribute, Malformed, Message};
use crate::session::{Counters, EndReason, Protocol, Session, Totals, Tuple, Zone, ZoneDirection};
use crate::time::Wall;

/// `IPS_SRC_NAT | IPS_DST_NAT` of `CTA_STATUS`.
pub const STATUS_NAT_MASK: u32 = 0x30;
/// `IPS_NAT_CLASH`.
const STATUS_NAT_CLASH: u32 = 1 << 12;

/// The content of a conntrack message about a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    pub session: Session,
    /// Present when `nf_conntrack_acct` was on when the connection was made.
    pub totals: Option<Totals>,
    /// Present when `nf_conntrack_timestamp` was on when the connection was made; not in NEW.
    pub start: Option<Wall>,
    /// The true end, corrected by the kernel for the delay of expiry; only in DESTROY.
    pub stop: Option<Wall>,
    /// When the event happened; only kernels since 6.14 report it.
    pub event_time: Option<Wall>,
    /// The kernel sent no NEW: another packet of the connection won the race for its place in the table.
    pub is_unannounced: bool,
    /// Only in DESTROY. `None` when the entry was deleted before its time; for TCP and SCTP also from kernels before 5.11.
    pub end_reason: Option<EndReason>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    New(Entry),
    Destroy(Entry),
}

/// The tables that can be dumped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listing {
    /// The connections.
    Table,
    /// Connections that have ended, and whose DESTROY could not be delivered yet.
    Dying,
}

/// One message in answer to a dump request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DumpReply {
    Entry(Entry),
    Done,
    /// The kernel refused or broke off the dump, with this error number.
    Error(i32),
}

impl Event {
    /// Decodes a message of the NEW and DESTROY multicast groups; `None` for messages of other types and for updates.
    pub fn decode(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        match message.kind {
            MESSAGE_NEW if message.flags & netlink::NLM_F_CREATE != 0 => {
                let (entry, _) = decode_entry(message.payload)?;
                Ok(Some(Self::New(entry)))
            }
            MESSAGE_DELETE => {
                let (entry, ending) = decode_entry(message.payload)?;
                let end_reason = ending.reason(entry.session.protocol, message.port);
                Ok(Some(Self::Destroy(Entry {
                    end_reason,
                    ..entry
                })))
            }
            _ => Ok(None),
        }
    }
}

impl DumpReply {
    /// Decodes a message in answer to [`dump_request`]; `None` for messages of other types.
    pub fn decode(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        match message.kind {
            MESSAGE_NEW => decode_entry(message.payload).map(|(entry, _)| Some(Self::Entry(entry))),
            // The payload of DONE is the dump's own error number, negative as in an ERROR.
            netlink::NLMSG_DONE | netlink::NLMSG_ERROR => match message.error_number() {
                Ok(0) => Ok(Some(Self::Done)),
                Ok(number) => Ok(Some(Self::Error(number))),
                Err(_) if message.kind == netlink::NLMSG_DONE => Ok(Some(Self::Done)),
                Err(malformed) => Err(malformed),
            },
            _ => Ok(None),
        }
    }
}

/// A request for a whole listing, of both families.
pub(crate) fn dump_request(listing: Listing, sequence: u32) -> Vec<u8> {
    let kind = match listing {
        Listing::Table => MESSAGE_GET,
        Listing::Dying => MESSAGE_GET_DYING,
    };
    netlink::request(kind, netlink::NLM_F_DUMP, sequence, 0, &[])
}

pub(crate) const SUBSYSTEM_CTNETLINK: u16 = 1 << 8;
pub(crate) const MESSAGE_NEW: u16 = SUBSYSTEM_CTNETLINK;
const MESSAGE_GET: u16 = SUBSYSTEM_CTNETLINK | 1;
const MESSAGE_GET_DYING: u16 = SUBSYSTEM_CTNETLINK | 6;
pub(crate) const MESSAGE_DELETE: u16 = SUBSYSTEM_CTNETLINK | 2;

pub(crate) const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
pub(crate) const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
pub(crate) const CTA_MARK: u16 = 8;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TIMESTAMP: u16 = 20;
const CTA_TIMESTAMP_EVENT: u16 = 27;

const CTA_TUPLE_IP: u16 = 1;
pub(crate) const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;

const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;

pub(crate) const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;

const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_SCTP: u16 = 3;
/// The same for both.
const CTA_PROTOINFO_STATE: u16 = 1;

const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;

/// The attributes of a DESTROY that tell why the entry went (since Linux 5.11).
#[derive(Clone, Copy, Debug, Default)]
struct Ending {
    /// The state of TCP or SCTP (`enum tcp_conntrack`, `enum sctp_conntrack`).
    state: Option<u8>,
    /// Seconds until it would have expired; absent when it has.
    timeout: u32,
}

impl Ending {
    /// The reason why an entry that went at the request of this netlink port ended.
    const fn reason(self, protocol: Protocol, port: u32) -> Option<EndReason> {
        let is_closed = match (protocol, self.state) {
            // From FIN_WAIT to CLOSE.
            (Protocol::TCP, Some(state)) => matches!(state, 4..=8),
            // CLOSED, and from SHUTDOWN_SENT to SHUTDOWN_ACK_SENT.
            (Protocol::SCTP, Some(state)) => matches!(state, 1 | 5..=7),
            (Protocol::TCP | Protocol::SCTP, None) => return None,
            _ => false,
        };
        match (port, self.timeout) {
            (1.., _) => None,
            _ if is_closed => Some(EndReason::Detected),
            (0, 0) => Some(EndReason::Idle),
            // The kernel deleted it to make room, or because an address of the gateway has gone.
            (0, 1..) => None,
        }
    }
}

fn decode_entry(payload: &[u8]) -> Result<(Entry, Ending), Malformed> {
    let (mut original, mut reply) = (None, None);
    let (mut counters_original, mut counters_reply) = (None, None);
    let (mut id, mut mark, mut zone) = (None, 0, None);
    let (mut start, mut stop, mut event_time) = (None, None, None);
    let (mut status, mut ending) = (0, Ending::default());
    for attribute in netlink::attributes(payload)? {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_ORIG => original = Some(decode_tuple(&attribute)?),
            CTA_TUPLE_REPLY => reply = Some(decode_tuple(&attribute)?),
            CTA_STATUS => status = attribute.be32()?,
            CTA_PROTOINFO => ending.state = decode_state(&attribute)?,
            CTA_TIMEOUT => ending.timeout = attribute.be32()?,
            CTA_MARK => mark = attribute.be32()?,
            CTA_COUNTERS_ORIG => counters_original = Some(decode_counters(&attribute)?),
            CTA_COUNTERS_REPLY => counters_reply = Some(decode_counters(&attribute)?),
            CTA_ID => id = Some(attribute.be32()?),
            CTA_ZONE => zone = Some(attribute.be16()?),
            CTA_TIMESTAMP => (start, stop) = decode_timestamps(&attribute)?,
            CTA_TIMESTAMP_EVENT => event_time = Some(Wall::from_nanos(attribute.be64()?)),
            _ => {}
        }
    }
    let (original, protocol, original_zone) = original.ok_or(Malformed)?;
    let (reply, reply_protocol, reply_zone) = reply.ok_or(Malformed)?;
    if protocol != reply_protocol || original.src.is_ipv4() != reply.src.is_ipv4() {
        return Err(Malformed);
    }
    let entry = Entry {
        session: Session {
            original,
            reply,
            protocol,
            zone: zone_of(zone, original_zone, reply_zone),
            id,
            mark,
        },
        totals: counters_original
            .zip(counters_reply)
            .map(|(original, reply)| Totals { original, reply }),
        start,
        stop,
        event_time,
        is_unannounced: status & STATUS_NAT_CLASH != 0,
        end_reason: None,
    };
    Ok((entry, ending))
}

/// A tuple, its protocol, and its zone where that applies to one direction only.
type DecodedTuple = (Tuple, Protocol, Option<u16>);

fn decode_tuple(attribute: &Attribute<'_>) -> Result<DecodedTuple, Malformed> {
    let (mut addresses, mut ports, mut zone) = (None, None, None);
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_IP => addresses = Some(decode_addresses(&attribute)?),
            CTA_TUPLE_PROTO => ports = Some(decode_ports(&attribute)?),
            CTA_TUPLE_ZONE => zone = Some(attribute.be16()?),
            _ => {}
        }
    }
    let (src, dst) = addresses.ok_or(Malformed)?;
    let (protocol, src_port, dst_port) = ports.ok_or(Malformed)?;
    let tuple = Tuple {
        src,
        dst,
        src_port,
        dst_port,
    };
    Ok((tuple, protocol, zone))
}

fn decode_addresses(attribute: &Attribute<'_>) -> Result<(IpAddr, IpAddr), Malformed> {
    let (mut src, mut dst) = (None, None);
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_IP_V4_SRC => src = Some(IpAddr::from(attribute.array::<4>()?)),
            CTA_IP_V4_DST => dst = Some(IpAddr::from(attribute.array::<4>()?)),
            CTA_IP_V6_SRC => src = Some(IpAddr::from(attribute.array::<16>()?)),
            CTA_IP_V6_DST => dst = Some(IpAddr::from(attribute.array::<16>()?)),
            _ => {}
        }
    }
    match (src, dst) {
        (Some(src), Some(dst)) if src.is_ipv4() == dst.is_ipv4() => Ok((src, dst)),
        _ => Err(Malformed),
    }
}

fn decode_ports(attribute: &Attribute<'_>) -> Result<(Protocol, u16, u16), Malformed> {
    let mut protocol = None;
    let (mut src_port, mut dst_port, mut icmp_type, mut icmp_code) = (0, 0, 0, 0);
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_PROTO_NUM => protocol = Some(Protocol(attribute.u8()?)),
            CTA_PROTO_SRC_PORT | CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => {
                src_port = attribute.be16()?;
            }
            CTA_PROTO_DST_PORT => dst_port = attribute.be16()?,
            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => icmp_type = attribute.u8()?,
            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => icmp_code = attribute.u8()?,
            _ => {}
        }
    }
    let protocol = protocol.ok_or(Malformed)?;
    if protocol.is_icmp() {
        dst_port = u16::from_be_bytes([icmp_type, icmp_code]);
    }
    Ok((protocol, src_port, dst_port))
}

fn decode_counters(attribute: &Attribute<'_>) -> Result<Counters, Malformed> {
    let mut counters = Counters::default();
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_COUNTERS_PACKETS => counters.packets = attribute.be64()?,
            CTA_COUNTERS_BYTES => counters.octets = attribute.be64()?,
            _ => {}
        }
    }
    Ok(counters)
}

fn decode_state(attribute: &Attribute<'_>) -> Result<Option<u8>, Malformed> {
    for protocol in attribute.nested() {
        let protocol = protocol?;
        if !matches!(protocol.kind, CTA_PROTOINFO_TCP | CTA_PROTOINFO_SCTP) {
            continue;
        }
        for attribute in protocol.nested() {
            let attribute = attribute?;
            if attribute.kind == CTA_PROTOINFO_STATE {
                return attribute.u8().map(Some);
            }
        }
    }
    Ok(None)
}

fn decode_timestamps(attribute: &Attribute<'_>) -> Result<(Option<Wall>, Option<Wall>), Malformed> {
    let (mut start, mut stop) = (None, None);
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TIMESTAMP_START => start = Some(Wall::from_nanos(attribute.be64()?)),
            CTA_TIMESTAMP_STOP => stop = Some(Wall::from_nanos(attribute.be64()?)),
            _ => {}
        }
    }
    // The kernel allocates the extension before it fills it: 0 means that the time is not set yet.
    let set = |time: &Wall| *time != Wall::default();
    Ok((start.filter(set), stop.filter(set)))
}

/// `CTA_ZONE` is the zone of both directions; a zone of one direction is within that direction's tuple.
const fn zone_of(both: Option<u16>, original: Option<u16>, reply: Option<u16>) -> Zone {
    let (id, direction) = match (both, original, reply) {
        (Some(id), _, _) => (id, ZoneDirection::Both),
        (None, Some(id), _) => (id, ZoneDirection::Original),
        (None, None, Some(id)) => (id, ZoneDirection::Reply),
        (None, None, None) => (0, ZoneDirection::Both),
    };
    Zone { id, direction }
}

#[cfg(test)]
mod tests;
