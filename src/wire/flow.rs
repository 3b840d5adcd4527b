//! The content of one data record, independent of its format: a NAT event, or one of the three flows of a
//! finished session (pre-NAT, post-NAT and return).
//!
//! A [`Flow`] always holds addresses of one family, so that a template of that family can take them as plain [`number`]s.

use std::net::IpAddr;

use crate::session::{Counters, EventKind, NatEvent, Totals, Tuple};
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
    /// Conntrack zone id; 0 is the default zone.
    pub zone: u16,
}

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
    /// The flow of a NAT event. An unknown start is replaced by the end, and unknown counters by zeros; a layout
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
            zone: session.zone.id,
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
