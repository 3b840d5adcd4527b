//! The shared vocabulary: tuples, sessions and the records made of them.
//!
//! Terms follow the conntrack code of the kernel (`include/net/netfilter/nf_conntrack_tuple.h`) and RFC 8158. Nothing
//! here does any IO; every type is plain data, and all but a checkpoint's name is of a fixed size.

use std::fmt;
use std::net::IpAddr;

use crate::time::Wall;

/// A transport protocol by its IANA number. All 256 values are valid; the ones conntrack knows have names.
#[derive(
    Clone, Copy, Debug, serde::Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Serialize,
)]
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

    pub fn name(self) -> Option<&'static str> {
        let mut names = Self::NAMES.iter();
        names.find_map(|(protocol, name)| (*protocol == self).then_some(*name))
    }

    /// A protocol by name (`tcp`, in any case) or by number (`6`).
    pub fn parse(text: &str) -> Option<Self> {
        let mut names = Self::NAMES.iter();
        match names.find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            Some((protocol, _)) => Some(*protocol),
            None => text.parse().ok().map(Self),
        }
    }

    /// ICMP and ICMPv6 have a query identifier, a type and a code where others have two ports.
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

/// The translated sides. Both may be set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Translation {
    pub snat: bool,
    pub dnat: bool,
}

impl Translation {
    pub const fn is_none(self) -> bool {
        !self.snat && !self.dnat
    }

    /// `snat`, `dnat`, `snat+dnat` or `none`.
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
    pub const fn pre_nat(&self) -> Tuple {
        self.original
    }

    /// The same packet as it left the gateway.
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

    /// The same connection for the one who looks from the far side: the answers are the packets.
    pub const fn reversed(&self) -> Self {
        Self {
            original: self.reply,
            reply: self.original,
            ..*self
        }
    }

    /// The answer as it arrives from the far side.
    pub const fn return_path(&self) -> Tuple {
        self.reply
    }

    pub fn translation(&self) -> Translation {
        let (pre, post) = (self.pre_nat(), self.post_nat());
        Translation {
            snat: pre.src != post.src || pre.src_port != post.src_port,
            dnat: pre.dst != post.dst || pre.dst_port != post.dst_port,
        }
    }

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
    /// The most parts, good for about 280 TB. Counters beyond that are damaged rather than large.
    const MAX_PARTS: u64 = 1 << 16;

    /// The counters in as few parts as fit 32 bits, at least one, no two of them alike: collectors drop apparent
    /// repetitions. Their sums are exact. The parts are even, so that octets go with packets in every part as far as
    /// there are packets for it; only the larger counter grows by at least one from part to part.
    ///
    /// `None` for counters that would need more than 65,536 parts.
    pub fn parts(self) -> Option<impl ExactSizeIterator<Item = CounterPart>> {
        const MOST: u64 = u32::MAX as u64;
        let largest = self.packets.max(self.octets);
        let mut count = largest.div_ceil(MOST).clamp(1, Self::MAX_PARTS);
        // Among parts that differ, only the last can be `u32::MAX`.
        if largest > count * MOST - steps(count) {
            count += 1;
        }
        let share = move |total: u64, index: u64| {
            let (total, step) = if total == largest {
                (total - steps(count), index)
            } else {
                (total, 0)
            };
            // The remainder goes to the last parts.
            let more = index >= count - total % count;
            // `count` is chosen so that this fits.
            (total / count + u64::from(more) + step) as u32
        };
        (count <= Self::MAX_PARTS).then(|| {
            // A count of parts fits an usize.
            (0..count as usize).map(move |index| CounterPart {
                packets: share(self.packets, index as u64),
                octets: share(self.octets, index as u64),
            })
        })
    }
}

/// The sum 0 + 1 + … of that many parts.
const fn steps(count: u64) -> u64 {
    count * (count - 1) / 2
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
    /// No NAT event: a part of the traffic of a session that is accounted in parts (`capture.active-timeout`).
    Flow,
}

/// Why a flow record ends (flowEndReason in the IANA registry, RFC 5102 section 5.11.3), as far as connection tracking knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndReason {
    /// Nothing came any more.
    Idle = 1,
    /// The session goes on: it has lasted for the active timeout.
    Active = 2,
    /// The ends closed the connection, or one of them reset it.
    Detected = 3,
}

impl EndReason {
    /// The reason as every text format writes it. Scripts rely on these names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Detected => "closed",
        }
    }
}

/// How a record came to be known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Provenance {
    /// The kernel reported it.
    Kernel,
    /// Concluded from the kernel's table, which no longer (or already) has it: times are bounds, not measurements.
    Inferred,
}

/// The creation or the deletion of a session (RFC 8158 section 4.3), or a part of its traffic.
///
/// The flow of a session is its delete, with its start, end and all counters. A session that is accounted in parts has
/// [`EventKind::Flow`]s instead, whose counters add up to those of the delete: see [`NatEvent::is_flow`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NatEvent {
    pub kind: EventKind,
    pub session: Session,
    /// When it happened: the start for a create, the end for a delete and for a part.
    pub time: Wall,
    /// Start of the session, or of its part; `None` when nothing known bounds it (a delete without a create, and no kernel
    /// timestamps).
    pub start: Option<Wall>,
    /// Counters at the end, or those of the part alone; `None` in a create and where the kernel does not account.
    pub totals: Option<Totals>,
    pub provenance: Provenance,
    /// `None` in a create, and where it is not known.
    pub end_reason: Option<EndReason>,
    /// Whether this is the delete of a session that is accounted in parts.
    pub in_parts: bool,
    /// The connection mark at the beginning, in a delete or a part whose session has another one by now.
    pub first_mark: Option<u32>,
}

impl NatEvent {
    /// The creation of a session.
    pub const fn create(session: Session, time: Wall, provenance: Provenance) -> Self {
        Self {
            kind: EventKind::Create,
            session,
            time,
            start: Some(time),
            totals: None,
            provenance,
            end_reason: None,
            in_parts: false,
            first_mark: None,
        }
    }

    /// Whether an output of NAT events tells of it. Beside flows, a connection that is not translated has its flow alone.
    pub fn is_nat_event(&self, is_beside_flows: bool) -> bool {
        let is_flow_enough = || is_beside_flows && self.session.translation().is_none();
        self.kind != EventKind::Flow && !is_flow_enough()
    }

    /// Whether it stands for traffic that no other event stands for.
    pub const fn is_flow(&self) -> bool {
        match self.kind {
            EventKind::Create => false,
            EventKind::Delete => !self.in_parts,
            EventKind::Flow => true,
        }
    }
}

/// Why events may have been missed. Each cause has its own meaning of [`Gap::lost`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GapCause {
    /// The daemon was not running, or ended before it had sent all it knew. Lost: not known, since a session may have
    /// begun and ended meanwhile.
    Restart,
    /// The kernel's queue to the daemon overflowed. Lost: the events for which it had no room (`sk_drops`).
    Overflow,
    /// Connection tracking had no room for another session and dropped the packet that would have begun one
    /// (`nf_conntrack_max`, statistic `drop`). Lost: those packets. Senders repeat unanswered packets, so there were
    /// at most as many sessions, and none of them was translated.
    TableFull,
    /// Connection tracking dropped the first packet of a session because its translated tuple was taken (statistic
    /// `insert_failed`): all ports of the NAT pool were in use, or two packets raced for one tuple. The kernel does not
    /// say which. Lost: those packets, as for [`GapCause::TableFull`].
    InsertFailed,
    /// The system's clock was set. The interval goes from what it said before to what it says after, in either
    /// direction. Lost: nothing, but the times of records from before and after cannot be compared.
    ClockStep,
    /// Connection tracking may have been off because the nftables rule that keeps it on was gone, or its events were
    /// switched off. Lost: not known.
    TrackingOff,
    /// Messages of the kernel could not be decoded. Lost: those messages.
    Undecoded,
    /// Throughout the TTL more ends waited for some listener than could be listed, so the sessions that were no longer
    /// in the table were closed. Lost: their end times and counters.
    Expired,
    /// The records were known, but this receiver could not take them. Lost: those records, in the receiver's own unit
    /// (flow records for a collector).
    Undelivered,
    /// A monitor port dropped mirrored frames before connection tracking saw them: its ring or the backlog was full, or they
    /// were too long. Lost: those frames, so that counters are too low, and a session of few packets may be missing. The
    /// gateway translated none of them.
    Mirror,
}

impl GapCause {
    pub const ALL: [Self; 10] = [
        Self::Restart,
        Self::Overflow,
        Self::TableFull,
        Self::InsertFailed,
        Self::ClockStep,
        Self::TrackingOff,
        Self::Undecoded,
        Self::Expired,
        Self::Undelivered,
        Self::Mirror,
    ];

    /// Whether sessions that the gateway translates may have begun or ended unnoticed.
    pub const fn may_hide_sessions(self) -> bool {
        matches!(
            self,
            Self::Restart | Self::Overflow | Self::TrackingOff | Self::Undecoded
        )
    }

    /// The cause as every text format writes it. Scripts rely on these names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Overflow => "overflow",
            Self::TableFull => "table-full",
            Self::InsertFailed => "insert-failed",
            Self::ClockStep => "clock-step",
            Self::TrackingOff => "tracking-off",
            Self::Undecoded => "undecoded",
            Self::Expired => "expired",
            Self::Undelivered => "undelivered",
            Self::Mirror => "mirror",
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
    /// How many were lost, where that is known; the cause tells the unit.
    pub lost: Option<u64>,
}

/// The size and the root of the archive's evidence log, signed (nattrail-proof(7)). Copies of it elsewhere are witnesses: with
/// one of them, a log that was cut off or written anew is found out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedCheckpoint {
    /// When the daemon heard of it.
    pub time: Wall,
    /// The name of the log: see [`Self::is_origin`].
    pub origin: String,
    /// Entries of the log.
    pub size: u64,
    pub root: [u8; 32],
    /// The ID of the key and its signature, as a signed note has them.
    pub signature: [u8; 68],
}

impl SignedCheckpoint {
    /// Whether a log of nattrail can have this name, and every text format takes it as it is.
    pub fn is_origin(name: &str) -> bool {
        let is_plain = |c: char| c.is_ascii_graphic() && !"\"\\+=,{}".contains(c);
        !name.is_empty() && name.len() <= 255 && name.chars().all(is_plain)
    }
}

/// A record that leaves the program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    Event(NatEvent),
    Gap(Gap),
    /// For textual copies only. Boxed, as it is rare: the others are no larger for it.
    Checkpoint(Box<SignedCheckpoint>),
}

impl Record {
    /// The earliest time in it: the event's, or the beginning of a gap.
    pub fn since(&self) -> Wall {
        match self {
            Self::Event(event) => event.time,
            Self::Gap(gap) => gap.from.min(gap.to),
            Self::Checkpoint(checkpoint) => checkpoint.time,
        }
    }

    /// When it happened: the event's time, the end of a gap.
    pub fn time(&self) -> Wall {
        match self {
            Self::Event(event) => event.time,
            Self::Gap(gap) => gap.to,
            Self::Checkpoint(checkpoint) => checkpoint.time,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// Among them those at which one more part is needed.
    fn any_counter() -> impl Strategy<Value = u64> {
        let near = (0_u64..1 << 12, -9_i64..9)
            .prop_map(|(parts, off)| (parts * u64::from(u32::MAX)).saturating_add_signed(off));
        let near_steps = (1_u64..1 << 12, -9_i64..9).prop_map(|(parts, off)| {
            (parts * u64::from(u32::MAX) - steps(parts)).saturating_add_signed(off)
        });
        prop_oneof![0_u64..1 << 44, 0_u64..100, near, near_steps]
    }

    #[test]
    fn damaged_counters_have_no_parts() {
        let parts = |packets, octets| Counters { packets, octets }.parts().map(|all| all.len());
        let most = (1 << 16) * u64::from(u32::MAX) - steps(1 << 16);
        assert_eq!(parts(1, most), Some(1 << 16));
        assert_eq!(parts(most, most), Some(1 << 16));
        for damaged in [most + 1, 1 << 48, 1 << 63, u64::MAX] {
            assert_eq!(parts(1, damaged), None);
            assert_eq!(parts(damaged, 1), None);
        }
    }

    proptest! {
        #[test]
        fn counters_in_parts_have_exact_sums_and_no_two_parts_are_alike(
            (packets, octets) in (any_counter(), any_counter()),
        ) {
            let parts: Vec<_> = Counters { packets, octets }.parts().unwrap().collect();
            prop_assert_eq!(parts.iter().map(|part| u64::from(part.packets)).sum::<u64>(), packets);
            prop_assert_eq!(parts.iter().map(|part| u64::from(part.octets)).sum::<u64>(), octets);
            let grows = |value: fn(&CounterPart) -> u32| {
                parts.windows(2).all(|pair| value(&pair[0]) < value(&pair[1]))
            };
            prop_assert!(grows(|part| part.packets) || grows(|part| part.octets));
            // One part fewer could not hold the larger counter in numbers that differ.
            let (largest, fewer) = (packets.max(octets), parts.len() as u64 - 1);
            let held: u64 = (0..fewer).map(|step| u64::from(u32::MAX) - step).sum();
            prop_assert!(fewer == 0 || held < largest);
        }
    }
}
