//! The content of one data record, independent of its format: a NAT event, one of the three flows of a finished session
//! (pre-NAT, post-NAT and return), or one direction of its traffic.
//!
//! A [`Flow`] always holds addresses of one family, so that a template of that family can take them as plain [`number`]s.

use std::net::IpAddr;

use crate::session::{Counters, EventKind, NatEvent, Totals, Translation, Tuple};
use crate::time::{BootTime, Wall};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// The values that every template draws from; the template decides which of them a record holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    /// When the NAT event happened.
    pub observed: Wall,
    /// The natEvent value (RFC 8158 section 4.3).
    pub nat_event: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// The packet as it came in.
    pub packet: Tuple,
    /// The packet as it left.
    pub translated: Tuple,
    pub start: Wall,
    pub end: Wall,
    /// The reference of times in SysUptime, the same for a whole message.
    pub boot: BootTime,
    /// Counters of the direction in which `packet` travels.
    pub forward: Counters,
    /// Counters of the opposite direction.
    pub backward: Counters,
    /// The type and the code of the ICMP message that answers `packet`.
    pub answer: u16,
    /// Conntrack zone id; 0 is the default zone.
    pub zone: u16,
    /// The connection mark; 0 when none is set.
    pub mark: u32,
    /// The kernel's id of the connection.
    pub id: u32,
    /// The flowEndReason value.
    pub end_reason: u8,
    /// The flowDirection value.
    pub direction: u8,
}

/// The flowDirection values: `packet` comes from the side of the translated addresses, or goes there.
const INGRESS: u8 = 0;
const EGRESS: u8 = 1;

/// The natEvent values of create and delete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NatEventValues {
    /// 4 and 5 (NAT44 session create and delete); 1 and 2 for IPv6, for which the RFC has none.
    Rfc8158,
    /// 1 and 2 for every family.
    Legacy,
}

/// The format has no record for an event or a gap: the addresses are of another family or of two, a counter is out of
/// range, or NetFlow v5 has no such record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotRepresentable;

impl Flow {
    /// The flow of a NAT event. An unknown start is replaced by the end, and every other unknown value by zero; a layout
    /// without these elements shows that they are not known.
    pub fn nat_event(
        event: &NatEvent,
        values: NatEventValues,
    ) -> Result<(Family, Self), NotRepresentable> {
        let session = &event.session;
        let family = family(event)?;
        let totals = event.totals.unwrap_or_default();
        let flow = Self {
            observed: event.time,
            nat_event: nat_event_value(event.kind, family, values),
            protocol: session.protocol.0,
            packet: session.pre_nat(),
            translated: session.post_nat(),
            start: event.start.unwrap_or(event.time),
            end: event.time,
            boot: BootTime::default(),
            forward: totals.original,
            backward: totals.reply,
            answer: session.reply.dst_port,
            zone: session.zone.id,
            mark: session.mark,
            id: session.id.unwrap_or_default(),
            end_reason: event.end_reason.map_or(0, |reason| reason as u8),
            direction: flow_direction(session.translation()).unwrap_or_default(),
        };
        Ok((family, flow))
    }

    /// The pre-NAT, the post-NAT and the return flow of a finished session. The post-NAT flow repeats the counters of
    /// the pre-NAT flow, or has zeros when `post_nat_counters` is false.
    pub fn triplet(
        event: &NatEvent,
        post_nat_counters: bool,
    ) -> Result<(Family, [Self; 3]), NotRepresentable> {
        // A flow record has no natEvent element: the values do not matter.
        let (family, pre_nat) = Self::nat_event(event, NatEventValues::Legacy)?;
        let Totals { original, reply } = event.totals.unwrap_or_default();
        let post_nat = Self {
            packet: pre_nat.translated,
            forward: if post_nat_counters {
                original
            } else {
                Counters::default()
            },
            ..pre_nat
        };
        let return_path = Self {
            packet: event.session.return_path(),
            forward: reply,
            backward: original,
            ..pre_nat
        };
        Ok((family, [pre_nat, post_nat, return_path]))
    }

    /// The original and the reply direction of the traffic that an event stands for ([`NatEvent::is_flow`]), each as it comes
    /// in and as it leaves. A direction without packets makes no flow; without counters there is the original one alone.
    pub fn directions(event: &NatEvent) -> Result<(Family, [Option<Self>; 2]), NotRepresentable> {
        let (family, original) = Self::original(event)?;
        let Some(totals) = event.totals else {
            return Ok((family, [Some(original), None]));
        };
        let reversed = NatEvent {
            session: event.session.reversed(),
            totals: Some(Totals {
                original: totals.reply,
                reply: totals.original,
            }),
            ..*event
        };
        let reply = Self {
            direction: INGRESS + EGRESS - original.direction,
            ..Self::original(&reversed)?.1
        };
        let flows = [original, reply].map(|flow| (flow.forward.packets > 0).then_some(flow));
        Ok((family, flows))
    }

    /// Both directions in one (RFC 5103), from the end that sent the first packet to the other one. There is none if its
    /// counters say that no packet passed.
    pub fn biflow(event: &NatEvent) -> Result<(Family, Option<Self>), NotRepresentable> {
        let (family, flow) = Self::original(event)?;
        let is_silent = event
            .totals
            .is_some_and(|totals| totals.original.packets == 0 && totals.reply.packets == 0);
        Ok((family, (!is_silent).then_some(flow)))
    }

    /// The traffic of the original direction.
    ///
    /// ICMP has no source port here: that of a NAT event is the query's identifier, but other exporters of traffic send 0, and
    /// nfdump takes another value for type and code.
    fn original(event: &NatEvent) -> Result<(Family, Self), NotRepresentable> {
        let (family, mut flow) = Self::nat_event(event, NatEventValues::Legacy)?;
        if event.session.protocol.is_icmp() {
            (flow.packet.src_port, flow.translated.src_port) = (0, 0);
        }
        Ok((family, flow))
    }
}

/// The flowDirection of packets in the original direction: source NAT hides those who are inside, destination NAT leads in.
/// With both or neither, nothing tells which side is which.
pub(super) const fn flow_direction(translation: Translation) -> Option<u8> {
    match translation {
        Translation {
            snat: true,
            dnat: false,
        } => Some(EGRESS),
        Translation {
            snat: false,
            dnat: true,
        } => Some(INGRESS),
        _ => None,
    }
}

const fn nat_event_value(kind: EventKind, family: Family, values: NatEventValues) -> u8 {
    match (values, family, kind) {
        (NatEventValues::Rfc8158, Family::Ipv4, EventKind::Create) => 4,
        (NatEventValues::Rfc8158, Family::Ipv4, _) => 5,
        // RFC 8158 has no value for IPv6-to-IPv6: the historic, unspecific ones are at least not wrong.
        (_, _, EventKind::Create) => 1,
        (_, _, _) => 2,
    }
}

fn family(event: &NatEvent) -> Result<Family, NotRepresentable> {
    let (original, reply) = (&event.session.original, &event.session.reply);
    let addresses = [original.src, original.dst, reply.src, reply.dst];
    if addresses.iter().all(IpAddr::is_ipv4) {
        Ok(Family::Ipv4)
    } else if addresses.iter().all(IpAddr::is_ipv6) {
        Ok(Family::Ipv6)
    } else {
        Err(NotRepresentable)
    }
}

/// An IPv4 address is in the low 32 bits.
pub const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u128,
        IpAddr::V6(address) => address.to_bits(),
    }
}
