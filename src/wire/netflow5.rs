//! NetFlow version 5 (Cisco, "NetFlow Export Datagram Format"): NAT events as dummy flows, sessions as triplets, and
//! the traffic of each direction.
//!
//! The dummy flows are those of ipt_NETFLOW's `natevents`: source = pre-NAT source, destination = post-NAT destination,
//! the translated source in next hop and src_as, or the pre-NAT destination in next hop and dst_as. A session that has
//! both translations makes two records; one that has none (they are logged on request) makes one with zeros there.
//!
//! A record that the format cannot hold, such as one of IPv6, is refused. Counters have 32 bits: a larger one is split
//! over several records, no two of them alike, whose sum is exact. The format cannot leave out an unknown value:
//! unknown counters are zero, and an unknown start equals the end.

use std::net::{IpAddr, Ipv4Addr};

use crate::session::{EventKind, NatEvent, Translation, Tuple};
use crate::time::{BootTime, Uptime, Wall};
use crate::wire::flow::{Family, Flow, NatEventValues, NotRepresentable, number};

pub const HEADER_LEN: usize = 24;
pub const RECORD_LEN: usize = 48;
/// Records in one message.
pub const MAX_RECORDS: usize = 30;

/// The header of a message of `count` records that leaves at `up`. `sequence` is the number of flows sent before;
/// `engine` has the engine type in the high byte and the engine id in the low one.
pub fn header(
    count: u16,
    boot: BootTime,
    up: Uptime,
    sequence: u32,
    engine: u16,
) -> [u8; HEADER_LEN] {
    let unix = boot.unix_millis(up);
    let secs = (unix / 1000) as u32;
    let nanos = (unix % 1000) as u32 * 1_000_000;
    let mut bytes = [0; HEADER_LEN];
    bytes[0..2].copy_from_slice(&5_u16.to_be_bytes());
    bytes[2..4].copy_from_slice(&count.to_be_bytes());
    bytes[4..8].copy_from_slice(&(up.as_millis() as u32).to_be_bytes());
    bytes[8..12].copy_from_slice(&secs.to_be_bytes());
    bytes[12..16].copy_from_slice(&nanos.to_be_bytes());
    bytes[16..20].copy_from_slice(&sequence.to_be_bytes());
    bytes[20..22].copy_from_slice(&engine.to_be_bytes());
    // The last two bytes, sampling mode and interval, are zero: nothing is sampled.
    bytes
}

/// One flow record. Interfaces, type of service and masks are always zero: conntrack knows none of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub next_hop: Ipv4Addr,
    pub packets: u32,
    pub octets: u32,
    pub first: Wall,
    pub last: Wall,
    pub src_port: u16,
    pub dst_port: u16,
    pub tcp_flags: u8,
    pub protocol: u8,
    pub src_as: u16,
    pub dst_as: u16,
}

impl Record {
    /// The record of `flow` for this packet, with nothing counted.
    fn new(flow: &Flow, packet: Tuple) -> Self {
        Self {
            src: address(packet.src),
            dst: address(packet.dst),
            next_hop: Ipv4Addr::UNSPECIFIED,
            packets: 0,
            octets: 0,
            first: flow.start,
            last: flow.end,
            src_port: packet.src_port,
            dst_port: packet.dst_port,
            tcp_flags: 0,
            protocol: flow.protocol,
            src_as: 0,
            dst_as: 0,
        }
    }

    /// Appends the record, [`RECORD_LEN`] bytes.
    pub fn put(&self, boot: BootTime, out: &mut Vec<u8>) {
        let mut bytes = [0; RECORD_LEN];
        bytes[0..4].copy_from_slice(&self.src.octets());
        bytes[4..8].copy_from_slice(&self.dst.octets());
        bytes[8..12].copy_from_slice(&self.next_hop.octets());
        bytes[16..20].copy_from_slice(&self.packets.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.octets.to_be_bytes());
        bytes[24..28].copy_from_slice(&boot.sys_uptime(self.first).to_be_bytes());
        bytes[28..32].copy_from_slice(&boot.sys_uptime(self.last).to_be_bytes());
        bytes[32..34].copy_from_slice(&self.src_port.to_be_bytes());
        bytes[34..36].copy_from_slice(&self.dst_port.to_be_bytes());
        bytes[37] = self.tcp_flags;
        bytes[38] = self.protocol;
        bytes[40..42].copy_from_slice(&self.src_as.to_be_bytes());
        bytes[42..44].copy_from_slice(&self.dst_as.to_be_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// The dummy flows of a NAT event: one, or two when source and destination were translated.
///
/// # Errors
/// When the addresses are not IPv4.
pub fn dummy_flows(event: &NatEvent) -> Result<impl Iterator<Item = Record>, NotRepresentable> {
    let flow = match Flow::nat_event(event, NatEventValues::Legacy) {
        Ok((Family::Ipv4, flow)) => flow,
        _ => return Err(NotRepresentable),
    };
    let (pre, post) = (flow.packet, flow.translated);
    let untranslated = Record {
        tcp_flags: match event.kind {
            EventKind::Create => SYN | ACK,
            EventKind::Delete | EventKind::Flow => FIN | RST,
        },
        dst: address(post.dst),
        dst_port: post.dst_port,
        first: event.time,
        ..Record::new(&flow, pre)
    };
    let snat = Record {
        next_hop: address(post.src),
        src_as: post.src_port,
        ..untranslated
    };
    let dnat = Record {
        next_hop: address(pre.dst),
        dst_as: pre.dst_port,
        ..untranslated
    };
    let Translation {
        snat: is_snat,
        dnat: is_dnat,
    } = event.session.translation();
    let records = match (is_snat, is_dnat) {
        (true, true) => [Some(snat), Some(dnat)],
        (true, false) => [Some(snat), None],
        (false, true) => [Some(dnat), None],
        (false, false) => [Some(untranslated), None],
    };
    Ok(records.into_iter().flatten())
}

/// The pre-NAT, post-NAT and return flow of a finished session, each split over as many records as its counters need.
///
/// # Errors
/// When the addresses are not IPv4, or a counter would need more than 65,536 records. None of the flows is exported then.
pub fn triplet(
    event: &NatEvent,
    post_nat_counters: bool,
) -> Result<impl Iterator<Item = Record>, NotRepresentable> {
    let flows = match Flow::triplet(event, post_nat_counters) {
        Ok((Family::Ipv4, flows)) => flows,
        _ => return Err(NotRepresentable),
    };
    let [Some(pre_nat), Some(post_nat), Some(return_path)] = flows.map(split) else {
        return Err(NotRepresentable);
    };
    Ok(pre_nat.chain(post_nat).chain(return_path))
}

/// The original and the reply direction of the traffic that an event stands for, as they come in, each split over as many
/// records as its counters need.
///
/// # Errors
/// As for [`triplet`].
pub fn directions(event: &NatEvent) -> Result<impl Iterator<Item = Record>, NotRepresentable> {
    let flows = match Flow::directions(event) {
        Ok((Family::Ipv4, flows)) => flows,
        _ => return Err(NotRepresentable),
    };
    let [original, reply] = flows.map(|flow| flow.map(|flow| split(flow).ok_or(NotRepresentable)));
    let (original, reply) = (original.transpose()?, reply.transpose()?);
    Ok(original.into_iter().chain(reply).flatten())
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The flow in as many records as its counters need.
fn split(flow: Flow) -> Option<impl Iterator<Item = Record>> {
    let record = Record::new(&flow, flow.packet);
    let parts = flow.forward.parts()?;
    Some(parts.map(move |part| Record {
        packets: part.packets,
        octets: part.octets,
        ..record
    }))
}

const fn address(address: IpAddr) -> Ipv4Addr {
    Ipv4Addr::from_bits(number(address) as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::session::{Counters, Session, Totals};
    use crate::time::Now;
    use crate::wire::samples::{
        create, delete, dnat, gre, hairpin, hex, icmp, nat66, snat, totals, untranslated,
    };

    /// The clocks of the reference capture: SysUptime was about to wrap.
    const UP: u64 = 0xfffb_ab58;
    const WALL: u64 = 1_795_206_288_000;

    fn now() -> Now {
        Now::new(Wall::from_millis(WALL), Uptime::from_millis(UP))
    }

    fn bytes(records: impl Iterator<Item = Record>) -> Vec<u8> {
        let mut out = Vec::new();
        records.for_each(|record| record.put(BootTime::new(now()), &mut out));
        out
    }

    fn only(session: Session) -> Record {
        let records: Vec<_> = dummy_flows(&create(session, WALL)).unwrap().collect();
        assert_eq!(records.len(), 1, "{records:?}");
        records[0]
    }

    #[test]
    fn dummy_flows_equal_those_of_the_reference_exporter() {
        let started = WALL - (UP - 0xfffb_9a88);
        let ended = WALL - (UP - 0xfffb_a300);
        assert_eq!(
            bytes(dummy_flows(&create(snat(), started)).unwrap()),
            hex(
                "0a010203 cb007107 cb007109 00000000 00000000 00000000 fffb9a88 fffb9a88
                 9da4 01bb 00 12 06 00 c558 0000 00 00 0000"
            )
        );
        assert_eq!(
            bytes(dummy_flows(&delete(snat(), started, ended)).unwrap()),
            hex(
                "0a010203 cb007107 cb007109 00000000 00000000 00000000 fffba300 fffba300
                 9da4 01bb 00 05 06 00 c558 0000 00 00 0000"
            )
        );
    }

    #[test]
    fn the_header_has_the_documented_layout() {
        let (boot, up) = (BootTime::new(now()), Uptime::from_millis(UP + 7));
        // 7 ms are 0x6acfc0 ns.
        assert_eq!(
            header(4, boot, up, 0x0102_0304, 0x0506)[..],
            hex("0005 0004 fffbab5f 6b00ac90 006acfc0 01020304 05 06 0000")
        );
    }

    #[test]
    fn dnat_puts_the_public_address_into_the_next_hop() {
        let record = only(dnat());
        assert_eq!(
            (record.src.octets(), record.src_port),
            ([198, 51, 100, 5], 33000)
        );
        assert_eq!(
            (record.dst.octets(), record.dst_port),
            ([10, 0, 0, 80], 8080)
        );
        assert_eq!(record.next_hop.octets(), [203, 0, 113, 9]);
        assert_eq!((record.src_as, record.dst_as), (0, 80));
    }

    #[test]
    fn both_translations_make_two_records() {
        let records: Vec<_> = dummy_flows(&create(hairpin(), WALL)).unwrap().collect();
        let [snat, dnat] = records[..] else {
            panic!("{records:?}")
        };
        assert_eq!(
            (snat.next_hop.octets(), snat.src_as, snat.dst_as),
            ([10, 0, 0, 1], 6000, 0)
        );
        assert_eq!(
            (dnat.next_hop.octets(), dnat.src_as, dnat.dst_as),
            ([203, 0, 113, 9], 0, 53)
        );
        for record in [snat, dnat] {
            assert_eq!(
                (record.src.octets(), record.src_port),
                ([10, 0, 0, 3], 5000)
            );
            assert_eq!(
                (record.dst.octets(), record.dst_port),
                ([10, 0, 0, 53], 5353)
            );
        }
    }

    #[test]
    fn an_untranslated_session_makes_one_record_without_next_hop() {
        let record = only(untranslated());
        assert_eq!(record.next_hop, Ipv4Addr::UNSPECIFIED);
        assert_eq!((record.src_as, record.dst_as), (0, 0));
    }

    #[test]
    fn icmp_has_identifiers_as_source_ports_and_the_type_as_destination_port() {
        let record = only(icmp());
        assert_eq!((record.src_port, record.dst_port), (321, 0x0800));
        assert_eq!((record.src_as, record.dst_as), (654, 0));
        let event = delete(icmp(), WALL, WALL);
        let ports: Vec<_> = triplet(&event, true)
            .unwrap()
            .map(|record| (record.src_port, record.dst_port))
            .collect();
        assert_eq!(ports, [(321, 0x0800), (654, 0x0800), (654, 0)]);
    }

    #[test]
    fn gre_has_its_keys_as_ports() {
        let record = only(gre());
        assert_eq!(
            (record.protocol, record.src_port, record.dst_port),
            (47, 0x1111, 0x2222)
        );
        assert_eq!(record.src_as, 0x1111);
    }

    #[test]
    fn ipv6_is_not_representable() {
        assert_eq!(
            dummy_flows(&create(nat66(), WALL)).err(),
            Some(NotRepresentable)
        );
        assert_eq!(
            triplet(&delete(nat66(), WALL, WALL), true).err(),
            Some(NotRepresentable)
        );
    }

    #[test]
    fn a_triplet_is_pre_nat_post_nat_and_return() {
        let event = NatEvent {
            totals: Some(totals([4, 3], [218, 216])),
            ..delete(snat(), WALL - 0x1000, WALL - 0x1)
        };
        assert_eq!(
            bytes(triplet(&event, true).unwrap()),
            hex(
                "0a010203 cb007107 00000000 00000000 00000004 000000da fffb9b58 fffbab57
                 9da4 01bb 00 00 06 00 0000 0000 00 00 0000
                 cb007109 cb007107 00000000 00000000 00000004 000000da fffb9b58 fffbab57
                 c558 01bb 00 00 06 00 0000 0000 00 00 0000
                 cb007107 cb007109 00000000 00000000 00000003 000000d8 fffb9b58 fffbab57
                 01bb c558 00 00 06 00 0000 0000 00 00 0000"
            )
        );
    }

    #[test]
    fn the_post_nat_counters_may_be_left_out() {
        let event = NatEvent {
            totals: Some(totals([4, 3], [218, 216])),
            ..delete(snat(), WALL, WALL)
        };
        let counters: Vec<_> = triplet(&event, false)
            .unwrap()
            .map(|record| (record.packets, record.octets))
            .collect();
        assert_eq!(counters, [(4, 218), (0, 0), (3, 216)]);
    }

    #[test]
    fn a_flow_without_a_known_start_begins_when_it_ends() {
        let event = NatEvent {
            start: None,
            ..delete(snat(), WALL, WALL - 5)
        };
        for record in triplet(&event, true).unwrap() {
            assert_eq!(record.first, Wall::from_millis(WALL - 5));
            assert_eq!(record.last, record.first);
        }
    }

    #[test]
    fn damaged_counters_are_refused() {
        let event = |octets| NatEvent {
            totals: Some(totals([1, 1], [1, octets])),
            ..delete(snat(), WALL, WALL)
        };
        assert_eq!(triplet(&event(1 << 40), true).unwrap().count(), 259);
        assert_eq!(triplet(&event(1 << 48), true).err(), Some(NotRepresentable));
    }

    proptest! {
        #[test]
        fn split_counters_add_up(octets in 0_u64..1 << 44, packets in 0_u64..1 << 36) {
            let event = NatEvent {
                totals: Some(Totals {
                    original: Counters { packets, octets },
                    reply: Counters::default(),
                }),
                ..delete(snat(), WALL, WALL)
            };
            let records: Vec<_> = triplet(&event, false).unwrap().collect();
            let sum = |value: fn(&Record) -> u32| -> u64 {
                records.iter().map(|record| u64::from(value(record))).sum()
            };
            prop_assert_eq!(sum(|record| record.octets), octets);
            prop_assert_eq!(sum(|record| record.packets), packets);
            prop_assert!(records.windows(2).all(|pair| pair[0] != pair[1]));
            let parts = records.len() as u64 - 2;
            if packets >= parts {
                let flow = &records[..parts as usize];
                prop_assert!(flow.iter().all(|record| record.octets == 0 || record.packets > 0));
            }
        }

        #[test]
        fn a_collector_gets_the_time_back_to_the_millisecond(
            up in 0_u64..1 << 40,
            // The header's seconds end in 2106.
            wall in 0_u64..4_294_000_000_000,
            ago in 0_u64..=BootTime::SPAN.as_millis() as u64,
            waited in 0_u64..100_000,
        ) {
            // `wall` may be below `up`: the clock of the machine has not been set yet.
            let boot = BootTime::new(Now::new(Wall::from_millis(wall), Uptime::from_millis(up)));
            let sent = up + waited;
            prop_assume!(ago <= wall);
            let time = wall - ago;
            let header = header(1, boot, Uptime::from_millis(sent), 0, 0);
            let field = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            let unix = u64::from(field(8)) * 1000 + u64::from(field(12)) / 1_000_000;
            let age = field(4).wrapping_sub(boot.sys_uptime(Wall::from_millis(time)));
            prop_assert_eq!(unix - u64::from(age), time);
        }

        #[test]
        fn a_time_in_the_future_wraps_the_same_way(ahead in 0_u64..1 << 31) {
            let first = BootTime::new(now()).sys_uptime(Wall::from_millis(WALL + ahead));
            prop_assert_eq!(u64::from(first.wrapping_sub(UP as u32)), ahead);
        }
    }
}
