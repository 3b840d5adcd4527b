//! Conntrack messages of nfnetlink: events and dump replies in, dump requests out.
//!
//! Follows `include/uapi/linux/netfilter/nfnetlink_conntrack.h` and `net/netfilter/nf_conntrack_netlink.c`. Attribute
//! values are in network byte order. Unknown attributes are skipped, as newer kernels add some; a missing tuple or a
//! value of the wrong length makes the message [`Malformed`]. No input panics, nothing is allocated.

use std::net::IpAddr;

use super::netlink::{self, Attribute, Malformed, Message};
use crate::session::{Counters, Protocol, Session, Totals, Tuple, Zone, ZoneDirection};
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
                decode_entry(message.payload).map(|entry| Some(Self::New(entry)))
            }
            MESSAGE_DELETE => decode_entry(message.payload).map(|entry| Some(Self::Destroy(entry))),
            _ => Ok(None),
        }
    }
}

impl DumpReply {
    /// Decodes a message in answer to [`dump_request`]; `None` for messages of other types.
    pub fn decode(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        match message.kind {
            MESSAGE_NEW => decode_entry(message.payload).map(|entry| Some(Self::Entry(entry))),
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

const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;

fn decode_entry(payload: &[u8]) -> Result<Entry, Malformed> {
    let (mut original, mut reply) = (None, None);
    let (mut counters_original, mut counters_reply) = (None, None);
    let (mut id, mut mark, mut zone) = (None, 0, None);
    let (mut start, mut stop, mut event_time) = (None, None, None);
    let mut status = 0;
    for attribute in netlink::attributes(payload)? {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_ORIG => original = Some(decode_tuple(&attribute)?),
            CTA_TUPLE_REPLY => reply = Some(decode_tuple(&attribute)?),
            CTA_STATUS => status = attribute.be32()?,
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
    Ok(Entry {
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
    })
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::super::netlink::Messages;
    use super::*;

    // Events of a 6.18 kernel (little endian) for connections through masquerade, with accounting and timestamps.
    const NEW_UDP: &str = "a0000000000100060000000000000000020000003400018014000180080001000a010203\
        08000200cb0071071c000280050001001100000006000200cc7c00000600030000350000340002801400018008000100\
        cb00710708000200cb0071091c0002800500010011000000060002000035000006000300cc7c000008000c00feca343a\
        0800030000000198080007000000001e0c001b0018e9ddb206a071ef";
    const DESTROY_UDP: &str = "f40000000201000000000000a9300000020000003400018014000180080001000a01\
        020308000200cb0071071c000280050001001100000006000200cc7c0000060003000035000034000280140001800800\
        0100cb00710708000200cb0071091c0002800500010011000000060002000035000006000300cc7c000008000c00feca\
        343a0800030000000398080007000000001d1c0009800c00010000000000000000010c000200000000000000001f1c00\
        0a800c00010000000000000000000c00020000000000000000001c0014800c00010018e9ddb206a070ff0c00020018e9\
        ddb23d4414a60c001b0018e9ddb23d4414d6";
    const NEW_ICMP: &str = "b0000000000100060000000000000000020000003c00018014000180080001000a010203\
        08000200cb0071072400028005000100010000000600040030a50000050005000800000005000600000000003c000280\
        1400018008000100cb00710708000200cb0071092400028005000100010000000600040030a500000500050000000000\
        050006000000000008000c0031231c880800030000000198080007000000001e0c001b0018e9ddb218df2120";
    const DESTROY_ICMPV6: &str = "340100000201000000000000a93000000a000000540001802c00018014000300fd\
        0000000000000000000000000000031400040020010db800000000000000000000000724000280050001003a00000006\
        00070030a7000005000800800000000500090000000000540002802c0001801400030020010db8000000000000000000\
        0000071400040020010db800000000000000000000000924000280050001003a0000000600070030a700000500080081\
        000000050009000000000008000c00ec005eb1080003000000039a080007000000001d1c0009800c0001000000000000\
        0000010c00020000000000000000681c000a800c00010000000000000000010c00020000000000000000681c0014800c\
        00010018e9ddb22b1fdaea0c00020018e9ddb23d422f410c001b0018e9ddb23d423019";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits
            .chunks(2)
            .map(|digits| pair(digits).unwrap())
            .collect()
    }

    fn decode(datagram: &[u8]) -> Result<Option<Event>, Malformed> {
        Event::decode(&Messages::new(datagram).next().unwrap()?)
    }

    fn tuple(src: &str, dst: &str, src_port: u16, dst_port: u16) -> Tuple {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        Tuple {
            src,
            dst,
            src_port,
            dst_port,
        }
    }

    /// Appends an attribute at the end of the only message of `datagram`.
    fn append(datagram: &mut Vec<u8>, kind: u16, payload: &[u8]) {
        datagram.extend(u16::try_from(4 + payload.len()).unwrap().to_ne_bytes());
        datagram.extend(kind.to_ne_bytes());
        datagram.extend(payload);
        datagram.resize(datagram.len().next_multiple_of(4), 0);
        let length = u32::try_from(datagram.len()).unwrap();
        datagram[..4].copy_from_slice(&length.to_ne_bytes());
    }

    #[test]
    fn a_new_udp_connection_has_both_tuples_and_the_time_of_the_event() {
        let Ok(Some(Event::New(entry))) = decode(&bytes(NEW_UDP)) else {
            panic!("not a NEW")
        };
        assert_eq!(entry.session.protocol, Protocol::UDP);
        assert_eq!(
            entry.session.original,
            tuple("10.1.2.3", "203.0.113.7", 52348, 53)
        );
        assert_eq!(
            entry.session.reply,
            tuple("203.0.113.7", "203.0.113.9", 53, 52348)
        );
        assert_eq!(entry.session.id, Some(0xfeca_343a));
        assert_eq!(
            (entry.session.mark, entry.session.zone),
            (0, Zone::default())
        );
        assert_eq!(
            entry.event_time,
            Some(Wall::from_nanos(0x18e9_ddb2_06a0_71ef))
        );
        assert_eq!((entry.totals, entry.start, entry.stop), (None, None, None));
        assert_eq!(entry.session.translation().name(), "snat");
    }

    #[test]
    fn a_destroyed_udp_connection_has_counters_and_both_times() {
        let Ok(Some(Event::Destroy(entry))) = decode(&bytes(DESTROY_UDP)) else {
            panic!("not a DESTROY")
        };
        let original = Counters {
            packets: 1,
            octets: 31,
        };
        assert_eq!(
            entry.totals,
            Some(Totals {
                original,
                reply: Counters::default()
            })
        );
        assert_eq!(entry.start, Some(Wall::from_nanos(0x18e9_ddb2_06a0_70ff)));
        assert_eq!(entry.stop, Some(Wall::from_nanos(0x18e9_ddb2_3d44_14a6)));
    }

    #[test]
    fn icmp_has_its_identifier_as_source_and_type_and_code_as_destination() {
        let Ok(Some(Event::New(entry))) = decode(&bytes(NEW_ICMP)) else {
            panic!("not a NEW")
        };
        assert_eq!(entry.session.protocol, Protocol::ICMP);
        assert_eq!(
            entry.session.original,
            tuple("10.1.2.3", "203.0.113.7", 0x30a5, 8 * 256)
        );
        assert_eq!(
            entry.session.reply,
            tuple("203.0.113.7", "203.0.113.9", 0x30a5, 0)
        );
        let post = tuple("203.0.113.9", "203.0.113.7", 0x30a5, 8 * 256);
        assert_eq!(entry.session.post_nat(), post);
        assert_eq!(entry.session.translation().name(), "snat");
    }

    #[test]
    fn icmpv6_through_nat66_is_understood() {
        let Ok(Some(Event::Destroy(entry))) = decode(&bytes(DESTROY_ICMPV6)) else {
            panic!("not a DESTROY")
        };
        assert_eq!(entry.session.protocol, Protocol::ICMPV6);
        assert_eq!(
            entry.session.pre_nat(),
            tuple("fd00::3", "2001:db8::7", 0x30a7, 128 * 256)
        );
        assert_eq!(
            entry.session.post_nat(),
            tuple("2001:db8::9", "2001:db8::7", 0x30a7, 128 * 256)
        );
        assert_eq!(
            entry.session.return_path(),
            tuple("2001:db8::7", "2001:db8::9", 0x30a7, 129 * 256)
        );
    }

    #[test]
    fn mark_and_zone_are_read_when_they_are_there() {
        let mut datagram = bytes(NEW_UDP);
        append(&mut datagram, CTA_MARK, &[0, 0, 1, 2]);
        append(&mut datagram, CTA_ZONE, &[0, 7]);
        append(&mut datagram, 200, b"of a later kernel");
        let Ok(Some(Event::New(entry))) = decode(&datagram) else {
            panic!("not a NEW")
        };
        assert_eq!(entry.session.mark, 0x102);
        assert_eq!(
            entry.session.zone,
            Zone {
                id: 7,
                direction: ZoneDirection::Both
            }
        );
    }

    #[test]
    fn a_zone_of_one_direction_keeps_its_direction() {
        let direction = |both, original, reply| zone_of(both, original, reply).direction;
        assert_eq!(direction(None, Some(7), None), ZoneDirection::Original);
        assert_eq!(direction(None, None, Some(7)), ZoneDirection::Reply);
        assert_eq!(direction(Some(7), None, None), ZoneDirection::Both);
    }

    #[test]
    fn an_update_is_not_an_event() {
        let mut datagram = bytes(NEW_UDP);
        datagram[6..8].copy_from_slice(&0_u16.to_ne_bytes());
        assert_eq!(decode(&datagram), Ok(None));
    }

    #[test]
    fn a_tuple_of_another_protocol_in_the_reply_is_malformed() {
        let mut datagram = bytes(NEW_UDP);
        let reply_protocol = datagram.iter().rposition(|&byte| byte == 17).unwrap();
        datagram[reply_protocol] = 6;
        assert_eq!(decode(&datagram), Err(Malformed));
    }

    #[test]
    fn the_end_of_a_dump_and_its_errors_are_told_apart() {
        let reply = |kind, number: i32| {
            let payload = number.to_ne_bytes();
            DumpReply::decode(&Message {
                kind,
                flags: 0,
                sequence: 1,
                payload: &payload,
            })
        };
        assert_eq!(reply(netlink::NLMSG_DONE, 0), Ok(Some(DumpReply::Done)));
        assert_eq!(
            reply(netlink::NLMSG_DONE, -4),
            Ok(Some(DumpReply::Error(4)))
        );
        assert_eq!(
            reply(netlink::NLMSG_ERROR, -1),
            Ok(Some(DumpReply::Error(1)))
        );
    }

    #[test]
    fn the_dump_request_is_the_one_the_kernel_expects() {
        let mut expected = bytes("14000000 0101 0103 2a000000 00000000 00000000");
        if cfg!(target_endian = "big") {
            expected = bytes("00000014 0101 0301 0000002a 00000000 00000000");
        }
        let request = dump_request(Listing::Table, 42);
        assert_eq!(request.as_slice(), expected);
    }

    #[test]
    fn no_prefix_of_a_message_is_taken_for_a_whole_one() {
        for hex in [NEW_UDP, DESTROY_UDP, NEW_ICMP, DESTROY_ICMPV6] {
            let whole = bytes(hex);
            for length in 1..whole.len() {
                assert_eq!(decode(&whole[..length]), Err(Malformed), "{length} bytes");
            }
        }
    }

    #[test]
    fn no_prefix_with_a_matching_length_panics() {
        let whole = bytes(DESTROY_UDP);
        for length in netlink::HEADER_LEN..whole.len() {
            let mut datagram = whole[..length].to_vec();
            datagram[..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
            let _ = decode(&datagram);
        }
    }

    proptest! {
        #[test]
        fn random_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..400), delete: bool) {
            let kind = if delete { MESSAGE_DELETE } else { MESSAGE_NEW };
            let message = Message { kind, flags: netlink::NLM_F_CREATE, sequence: 0, payload: &payload };
            let _ = (Event::decode(&message), DumpReply::decode(&message));
        }

        #[test]
        fn a_damaged_event_never_panics(position in 16_usize..244, value: u8) {
            let mut datagram = bytes(DESTROY_UDP);
            datagram[position] = value;
            let _ = decode(&datagram);
        }
    }
}
