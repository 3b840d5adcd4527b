//! The shared vocabulary: tuples, sessions and the records made of them.
//!
//! Terms follow the conntrack code of the kernel (`include/net/netfilter/nf_conntrack_tuple.h`) and RFC 8158. Nothing
//! here does any IO; every type is plain data of a fixed size.

use std::fmt;
use std::net::IpAddr;

use crate::time::Wall;

/// A transport protocol by its IANA number. All 256 values are valid; the ones conntrack knows have names.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Protocol(pub u8);

impl Protocol {
    pub const ICMP: Self = Self(1);
    pub const TCP: Self = Self(6);
    pub const UDP: Self = Self(17);
    pub const DCCP: Self = Self(33);
    pub const GRE: Self = Self(47);
    pub const ICMPV6: Self = Self(58);
    pub const SCTP: Self = Self(132);
    pub const UDPLITE: Self = Self(136);

    const NAMES: [(Self, &str); 8] = [
        (Self::ICMP, "icmp"),
        (Self::TCP, "tcp"),
        (Self::UDP, "udp"),
        (Self::DCCP, "dccp"),
        (Self::GRE, "gre"),
        (Self::ICMPV6, "icmpv6"),
        (Self::SCTP, "sctp"),
        (Self::UDPLITE, "udplite"),
    ];

    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES
            .iter()
            .find(|(protocol, _)| *protocol == self)
            .map(|(_, name)| *name)
    }

    /// A protocol by name (`tcp`, in any case) or by number (`6`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = Self::NAMES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text))
            .map(|(protocol, _)| *protocol);
        named.or_else(|| text.parse().ok().map(Self))
    }

    /// ICMP and ICMPv6 have a query identifier, a type and a code where others have two ports.
    #[must_use]
    pub const fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// One direction of a connection.
///
/// For ICMP and ICMPv6 `src_port` is the query identifier and `dst_port` is type * 256 + code (NetFlow's convention). For
/// GRE the ports are the keys (PPTP call ids). Protocols without ports have zeros.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub src_port: u16,
    pub dst_port: u16,
}

/// A conntrack zone: its id and the direction it applies to. Id 0 is the default zone.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Zone {
    pub id: u16,
    pub direction: ZoneDirection,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ZoneDirection {
    #[default]
    Both,
    Original,
    Reply,
}

/// What was translated. Both may be set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Translation {
    pub snat: bool,
    pub dnat: bool,
}

impl Translation {
    #[must_use]
    pub const fn is_none(self) -> bool {
        !self.snat && !self.dnat
    }

    /// `snat`, `dnat`, `snat+dnat` or `none`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.snat, self.dnat) {
            (false, false) => "none",
            (true, false) => "snat",
            (false, true) => "dnat",
            (true, true) => "snat+dnat",
        }
    }
}

/// A tracked connection, as conntrack identifies it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Session {
    pub original: Tuple,
    pub reply: Tuple,
    pub protocol: Protocol,
    pub zone: Zone,
    /// `CTA_ID`: stable over the life of the connection, but not unique over time.
    pub id: Option<u32>,
    /// The connection mark; 0 when none is set.
    pub mark: u32,
}

impl Session {
    /// The packet as the gateway received it.
    #[must_use]
    pub const fn pre_nat(&self) -> Tuple {
        self.original
    }

    /// The same packet as it left the gateway.
    #[must_use]
    pub const fn post_nat(&self) -> Tuple {
        let (src_port, dst_port) = if self.protocol.is_icmp() {
            // The reply tuple's type is that of the answer; what left is still the original query.
            (self.reply.src_port, self.original.dst_port)
        } else {
            (self.reply.dst_port, self.reply.src_port)
        };
        Tuple {
            src: self.reply.dst,
            dst: self.reply.src,
            src_port,
            dst_port,
        }
    }

    /// The answer as it arrives from the far side.
    #[must_use]
    pub const fn return_path(&self) -> Tuple {
        self.reply
    }

    #[must_use]
    pub fn translation(&self) -> Translation {
        let (pre, post) = (self.pre_nat(), self.post_nat());
        Translation {
            snat: pre.src != post.src || pre.src_port != post.src_port,
            dnat: pre.dst != post.dst || pre.dst_port != post.dst_port,
        }
    }

    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.original.src.is_ipv4()
    }
}

/// Packets and octets of one direction, as the kernel counted them (layer 3 octets).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    pub packets: u64,
    pub octets: u64,
}

/// A part of some [`Counters`], for formats with counters of 32 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CounterPart {
    pub packets: u32,
    pub octets: u32,
}

impl Counters {
    /// The counters in as few parts as fit 32 bits, at least one; their sums are exact. Spread evenly, so that octets go with
    /// packets in every part as far as there are packets for it.
    pub fn parts(self) -> impl ExactSizeIterator<Item = CounterPart> {
        let largest = self.packets.max(self.octets);
        // A quotient of two 64-bit numbers by nearly 2^32 has 33 bits at most.
        let count = largest.div_ceil(u64::from(u32::MAX)).max(1) as usize;
        (0..count).map(move |index| CounterPart {
            packets: share(self.packets, index, count),
            octets: share(self.octets, index, count),
        })
    }
}

/// The share of part number `index` in `total`: what is left over goes to the first ones. Fits, by the choice of `count`.
const fn share(total: u64, index: usize, count: usize) -> u32 {
    let (index, count) = (index as u64, count as u64);
    (total / count) as u32 + (index < total % count) as u32
}

/// The counters of both directions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    pub original: Counters,
    pub reply: Counters,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventKind {
    Create,
    Delete,
}

/// How a record came to be known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Provenance {
    /// The kernel reported it.
    Kernel,
    /// Concluded from what the kernel no longer (or already) has: times are bounds, not measurements.
    Inferred,
}

/// The creation or the deletion of a session (RFC 8158 section 4.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NatEvent {
    pub kind: EventKind,
    pub session: Session,
    /// When it happened: the start for a create, the end for a delete.
    pub time: Wall,
    /// Start of the session; `None` when nothing known bounds it (a delete without a create, and no kernel timestamps).
    pub start: Option<Wall>,
    /// Counters at the end; `None` in a create and where the kernel does not account.
    pub totals: Option<Totals>,
    pub provenance: Provenance,
}

/// Why events may have been missed. Each cause has its own meaning of [`Gap::lost`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GapCause {
    /// The daemon did not run, or had not sent on all it knew when it ended. Lost: not known, since a session may have begun
    /// and ended meanwhile.
    Restart,
    /// The kernel's queue to the daemon overflowed. Lost: the events for which it had no room (`sk_drops`).
    Overflow,
    /// Connection tracking had no room for another session and dropped the packet that would have begun one
    /// (`nf_conntrack_max`, statistic `drop`). Lost: those packets. A sender repeats what is not answered, so there were
    /// at most as many sessions, and none of them was translated.
    TableFull,
    /// Connection tracking dropped the first packet of a session because its translated tuple was taken (statistic
    /// `insert_failed`): all ports of the NAT pool were in use, or two packets raced for one tuple. The kernel does not
    /// say which. Lost: those packets, as for [`GapCause::TableFull`].
    InsertFailed,
    /// The system's clock was set. The interval goes from what it said before to what it says after, in either
    /// direction. Lost: nothing, but the times of records from before and after cannot be compared.
    ClockStep,
    /// Connection tracking may have been off: the nftables table that keeps it on had been removed. Lost: not known.
    TrackingOff,
    /// What the kernel sent could not be understood. Lost: those messages.
    Undecoded,
    /// The records were known, but this receiver could not take them. Lost: those records, in the receiver's own unit
    /// (flow records for a collector).
    Undelivered,
}

impl GapCause {
    pub const ALL: [Self; 8] = [
        Self::Restart,
        Self::Overflow,
        Self::TableFull,
        Self::InsertFailed,
        Self::ClockStep,
        Self::TrackingOff,
        Self::Undecoded,
        Self::Undelivered,
    ];

    /// The cause as every text format writes it. Scripts rely on these names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Overflow => "overflow",
            Self::TableFull => "table-full",
            Self::InsertFailed => "insert-failed",
            Self::ClockStep => "clock-step",
            Self::TrackingOff => "tracking-off",
            Self::Undecoded => "undecoded",
            Self::Undelivered => "undelivered",
        }
    }
}

/// An interval in which events may have been missed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    pub cause: GapCause,
    pub from: Wall,
    /// Not before `from`, except for a [`GapCause::ClockStep`] back.
    pub to: Wall,
    /// How many were lost, where that is known; of what, says the cause.
    pub lost: Option<u64>,
}

/// What leaves the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Record {
    Event(NatEvent),
    Gap(Gap),
}

impl Record {
    /// When it happened: the event's time, the end of a gap.
    #[must_use]
    pub const fn time(&self) -> Wall {
        match self {
            Self::Event(event) => event.time,
            Self::Gap(gap) => gap.to,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counters_in_parts_have_exact_sums(packets in 0_u64..1 << 44, octets in 0_u64..1 << 44) {
            let parts: Vec<_> = Counters { packets, octets }.parts().collect();
            prop_assert_eq!(parts.iter().map(|part| u64::from(part.packets)).sum::<u64>(), packets);
            prop_assert_eq!(parts.iter().map(|part| u64::from(part.octets)).sum::<u64>(), octets);
            prop_assert_eq!(parts.len() as u64, packets.max(octets).div_ceil(u64::from(u32::MAX)).max(1));
        }
    }
}
