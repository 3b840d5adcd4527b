//! Messages of a real kernel, cut and changed.

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

/// The reason in a DESTROY of this protocol and state that came at the request of a port.
fn reason(protocol: Protocol, state: Option<u8>, timeout: u32, port: u32) -> Option<EndReason> {
    let mut datagram = bytes(DESTROY_UDP);
    datagram[12..16].copy_from_slice(&port.to_ne_bytes());
    let number = [5, 0, CTA_PROTO_NUM as u8, 0, Protocol::UDP.0];
    while let Some(index) = datagram.windows(5).position(|octets| octets == number) {
        datagram[index + 4] = protocol.0;
        if protocol == Protocol::UDP {
            break;
        }
    }
    append(&mut datagram, CTA_TIMEOUT, &timeout.to_be_bytes());
    if let Some(state) = state {
        let [kind, _] = match protocol {
            Protocol::TCP => CTA_PROTOINFO_TCP,
            _ => CTA_PROTOINFO_SCTP,
        }
        .to_ne_bytes();
        let nested = [12, 0, kind, 0x80, 5, 0, 1, 0, state, 0, 0, 0];
        append(&mut datagram, CTA_PROTOINFO, &nested);
    }
    match decode(&datagram) {
        Ok(Some(Event::Destroy(entry))) => entry.end_reason,
        other => panic!("not a DESTROY: {other:?}"),
    }
}

#[test]
#[cfg(target_endian = "little")]
fn an_end_tells_whether_the_connection_was_closed_expired_or_was_deleted() {
    let (closed, idle) = (Some(EndReason::Detected), Some(EndReason::Idle));
    // NONE to SYN_SENT2 of TCP, and NONE to HEARTBEAT_SENT of SCTP.
    for (protocol, states, closing) in [
        (Protocol::TCP, 0..=9, vec![4, 5, 6, 7, 8]),
        (Protocol::SCTP, 0..=8, vec![1, 5, 6, 7]),
    ] {
        for state in states {
            let expected = closing.contains(&state).then_some(EndReason::Detected);
            assert_eq!(reason(protocol, Some(state), 0, 0), expected.or(idle));
            assert_eq!(reason(protocol, Some(state), 9, 0), expected, "{state}");
            assert_eq!(reason(protocol, Some(state), 0, 77), None);
        }
        assert_eq!(reason(protocol, None, 0, 0), None);
    }
    assert_eq!(reason(Protocol::UDP, None, 0, 0), idle);
    assert_eq!(reason(Protocol::UDP, None, 9, 0), None);
    assert_eq!(reason(Protocol::UDP, None, 0, 77), None);
    assert_eq!(reason(Protocol::TCP, Some(7), 119, 0), closed);
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
            port: 0,
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
        let message = Message { kind, flags: netlink::NLM_F_CREATE, sequence: 0, port: 0, payload: &payload };
        let _ = (Event::decode(&message), DumpReply::decode(&message));
    }

    #[test]
    fn a_damaged_event_never_panics(position in 16_usize..244, value: u8) {
        let mut datagram = bytes(DESTROY_UDP);
        datagram[position] = value;
        let _ = decode(&datagram);
    }
}
