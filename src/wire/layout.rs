//! The layouts of flow records in NetFlow v9 and IPFIX: which elements make up which record, and the id of its template.
//!
//! A collector identifies a template by exporter, domain and id. It may still hold the one of an earlier configuration,
//! or miss the message that redefines it. So no id ever changes its meaning: it is a function of the layout alone, the
//! same in every configuration and every release. A layout that has to change gets another id.
//!
//! The id of a flow record's template is 1024 and the sum of these:
//!
//! | bit | layout |
//! |---|---|
//! | 1 | IPv6 |
//! | 2 | with the conntrack zone (234) |
//! | 4 | inferred: with meteringProcessId (143), which is [`gap::INFERENCE`](super::gap::INFERENCE) |
//! | 8 | with the start (152; in the flows of NetFlow v9 also 22, 21) |
//! | 16 | with counters (231, 298, 232, 299; in flows 1, 2) |
//! | 32 | without destination (12, 11, 226, 228) |
//! | 0, 64, 128, 192 | create, delete, flow of a triplet in IPFIX, flow of a triplet in NetFlow v9 |
//!
//! The id of the template for traffic (`records = ["flow"]`) is 2048 and the sum of these:
//!
//! | bit | layout |
//! |---|---|
//! | 1 to 16 | as above, with the counters 1, 2 and in a biflow 29305/1, 29305/2 |
//! | 32 | translated: with 225, 226, 227, 228 or 281, 282, 227, 228 |
//! | 64 | ICMP: with 32 or 139, and before it in a biflow 29305/32 or 29305/139 |
//! | 128 | with the reason of the end (136) |
//! | 256 | with the kernel's id of the connection (148); in IPFIX only, as nfdump takes a NetFlow v9 record with it for a firewall's event |
//! | 512 | with the direction (61) |
//! | 1024 | with the connection mark (21373/4); in IPFIX only |
//! | 2048 | both directions in one record (239), a biflow; in IPFIX only |
//! | 4096 | NetFlow v9: with the start also 22, 21 |
//!
//! Options templates have different ids in the two dialects, as their scopes differ:
//!
//! | IPFIX | NetFlow v9 | layout |
//! |---|---|---|
//! | 512 | 528 | the exporter's statistics |
//! | 513 to 516 | 529 to 532 | gaps, in the order of [`gap::Kind`](super::gap::Kind) |
//!
//! `29305/1` is element 1 of the enterprise 29305. 256 to 266 are not used: they had several meanings in versions before the first release.
//!
//! An unknown value has no element, rather than a zero that would claim to be known. Element 143 alone marks an
//! inferred record, be it a create, a delete or a flow: flowEndReason (136) has no such value, and a create has no end.

use crate::session::{EventKind, NatEvent, Provenance};
use crate::wire::dialect::Dialect;
use crate::wire::element::{
    BIFLOW_DIRECTION, DST_IPV4, DST_IPV6, DST_PORT, Element, FIRST_SWITCHED, FLOW_DIRECTION,
    FLOW_END, FLOW_END_REASON, FLOW_ID, FLOW_START, ICMP_TYPE_IPV4, ICMP_TYPE_IPV6, INGRESS_VRF,
    INITIATOR_OCTETS, INITIATOR_PACKETS, LAST_SWITCHED, MARK, METERING_PROCESS, NAT_EVENT,
    OBSERVATION_TIME, OCTETS, PACKETS, POST_NAPT_DST_PORT, POST_NAPT_SRC_PORT, POST_NAT_DST_IPV4,
    POST_NAT_DST_IPV6, POST_NAT_SRC_IPV4, POST_NAT_SRC_IPV6, PROTOCOL, RESPONDER_OCTETS,
    RESPONDER_PACKETS, REVERSE_ICMP_TYPE_IPV4, REVERSE_ICMP_TYPE_IPV6, REVERSE_OCTETS,
    REVERSE_PACKETS, SRC_IPV4, SRC_IPV6, SRC_PORT,
};
use crate::wire::flow::{Family, Flow, flow_direction};
use crate::wire::template::Template;

/// The ids of the templates without any of the bits: of NAT events and triplets, and of traffic.
const FIRST: u16 = 1024;
const FIRST_OF_TRAFFIC: u16 = 2048;
const IPV6: u16 = 1;
const ZONE: u16 = 2;
const INFERRED: u16 = 4;
const START: u16 = 8;
const COUNTERS: u16 = 16;
const NO_DESTINATION: u16 = 32;
const DELETE: u16 = 64;
const FLOW: u16 = 128;
const NETFLOW_9_FLOW: u16 = 192;

/// These bits are of traffic.
const TRANSLATED: u16 = 32;
const ICMP: u16 = 64;
const END_REASON: u16 = 128;
const ID: u16 = 256;
const DIRECTION: u16 = 512;
const WITH_MARK: u16 = 1024;
const BIFLOW: u16 = 2048;
const NETFLOW_9: u16 = 4096;

/// The properties that determine the elements of a flow record: the bits of one of the tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    first: u16,
    bits: u16,
}

impl Layout {
    /// The layout of the NAT event: a NAT44 session event of RFC 8158 section 5.5, with the post-NAT destination, or its
    /// IPv6 twin. A delete adds what is known at the end of a session.
    pub fn event(event: &NatEvent, family: Family, destination: bool, zone: bool) -> Self {
        let kind = match event.kind {
            EventKind::Create => 0,
            EventKind::Delete | EventKind::Flow => DELETE | known(event),
        };
        let destination = bit(NO_DESTINATION, !destination);
        Self {
            first: FIRST,
            bits: kind | destination | common(event, family, zone),
        }
    }

    /// The layout of the triplet of the session that `event` ended.
    pub fn triplet(event: &NatEvent, family: Family, dialect: Dialect, zone: bool) -> Self {
        let kind = match dialect {
            Dialect::Ipfix => FLOW,
            Dialect::NetflowV9 => NETFLOW_9_FLOW,
        };
        Self {
            first: FIRST,
            bits: kind | known(event) | common(event, family, zone),
        }
    }

    /// The layout of a direction of the traffic that `event` stands for, or in a `biflow` of both.
    pub fn traffic(
        event: &NatEvent,
        family: Family,
        dialect: Dialect,
        zone: bool,
        biflow: bool,
    ) -> Self {
        let session = &event.session;
        let translation = session.translation();
        let of_dialect = match dialect {
            Dialect::NetflowV9 => NETFLOW_9,
            Dialect::Ipfix => {
                let known = bit(ID, session.id.is_some()) | bit(WITH_MARK, session.mark != 0);
                known | bit(BIFLOW, biflow)
            }
        };
        let bits = bit(TRANSLATED, !translation.is_none())
            | bit(ICMP, session.protocol.is_icmp())
            | bit(END_REASON, event.end_reason.is_some())
            | bit(DIRECTION, flow_direction(translation).is_some());
        Self {
            first: FIRST_OF_TRAFFIC,
            bits: of_dialect | bits | known(event) | common(event, family, zone),
        }
    }

    /// The id of the template.
    pub const fn id(self) -> u16 {
        self.first + self.bits
    }

    pub fn template(self) -> Template<Flow> {
        let elements = if self.first == FIRST_OF_TRAFFIC {
            self.of_traffic()
        } else if self.has(FLOW) {
            self.of_triplet()
        } else {
            self.of_event()
        };
        Template::new(self.id(), elements)
    }

    fn of_event(self) -> Vec<Element<Flow>> {
        let [src, dst, post_nat_src, post_nat_dst] = self.addresses();
        let mut elements = vec![OBSERVATION_TIME, NAT_EVENT, PROTOCOL];
        elements.extend([src, SRC_PORT, post_nat_src, POST_NAPT_SRC_PORT]);
        if !self.has(NO_DESTINATION) {
            elements.extend([dst, DST_PORT, post_nat_dst, POST_NAPT_DST_PORT]);
        }
        elements.extend(self.has(ZONE).then_some(INGRESS_VRF));
        if self.has(DELETE) {
            elements.extend(self.has(START).then_some(FLOW_START));
            elements.push(FLOW_END);
            if self.has(COUNTERS) {
                elements.extend([INITIATOR_OCTETS, INITIATOR_PACKETS]);
                elements.extend([RESPONDER_OCTETS, RESPONDER_PACKETS]);
            }
        }
        elements.extend(self.has(INFERRED).then_some(METERING_PROCESS));
        elements
    }

    fn of_triplet(self) -> Vec<Element<Flow>> {
        let mut elements = self.packet(NETFLOW_9_FLOW);
        elements.extend(self.has(ZONE).then_some(INGRESS_VRF));
        elements.extend(self.has(INFERRED).then_some(METERING_PROCESS));
        elements
    }

    fn of_traffic(self) -> Vec<Element<Flow>> {
        let [_, _, post_nat_src, post_nat_dst] = self.addresses();
        let (icmp_type, reverse_icmp_type) = if self.has(IPV6) {
            (ICMP_TYPE_IPV6, REVERSE_ICMP_TYPE_IPV6)
        } else {
            (ICMP_TYPE_IPV4, REVERSE_ICMP_TYPE_IPV4)
        };
        let mut elements = self.packet(NETFLOW_9);
        if self.has(TRANSLATED) {
            elements.extend([post_nat_src, post_nat_dst]);
            elements.extend([POST_NAPT_SRC_PORT, POST_NAPT_DST_PORT]);
        }
        for (bits, element) in [
            // nfdump reads the last of both as the type of the packet.
            (BIFLOW | ICMP, reverse_icmp_type),
            (ICMP, icmp_type),
            (END_REASON, FLOW_END_REASON),
            (ID, FLOW_ID),
            (DIRECTION, FLOW_DIRECTION),
            (ZONE, INGRESS_VRF),
            (WITH_MARK, MARK),
            (BIFLOW, BIFLOW_DIRECTION),
            (BIFLOW | COUNTERS, REVERSE_OCTETS),
            (BIFLOW | COUNTERS, REVERSE_PACKETS),
            (INFERRED, METERING_PROCESS),
        ] {
            elements.extend(self.has(bits).then_some(element));
        }
        elements
    }

    /// One tuple with its counters and times, in NetFlow v9 also in SysUptime.
    fn packet(self, netflow_9: u16) -> Vec<Element<Flow>> {
        let [src, dst, ..] = self.addresses();
        let mut elements = vec![src, dst, SRC_PORT, DST_PORT, PROTOCOL];
        if self.has(COUNTERS) {
            elements.extend([OCTETS, PACKETS]);
        }
        // In NetFlow v9 many collectors know only these two, and read one of them alone as a flow since boot.
        if self.has(START | netflow_9) {
            elements.extend([FIRST_SWITCHED, LAST_SWITCHED]);
        }
        elements.extend(self.has(START).then_some(FLOW_START));
        elements.push(FLOW_END);
        elements
    }

    /// Source and destination, before and after the translation.
    const fn addresses(self) -> [Element<Flow>; 4] {
        if self.has(IPV6) {
            [SRC_IPV6, DST_IPV6, POST_NAT_SRC_IPV6, POST_NAT_DST_IPV6]
        } else {
            [SRC_IPV4, DST_IPV4, POST_NAT_SRC_IPV4, POST_NAT_DST_IPV4]
        }
    }

    const fn has(self, bits: u16) -> bool {
        self.bits & bits == bits
    }
}

fn common(event: &NatEvent, family: Family, zone: bool) -> u16 {
    let inferred = event.provenance == Provenance::Inferred;
    bit(IPV6, family == Family::Ipv6) | bit(ZONE, zone) | bit(INFERRED, inferred)
}

/// The properties of the session that are known at its end.
fn known(event: &NatEvent) -> u16 {
    bit(START, event.start.is_some()) | bit(COUNTERS, event.totals.is_some())
}

const fn bit(bit: u16, is_set: bool) -> u16 {
    if is_set { bit } else { 0 }
}

#[cfg(test)]
mod tests;
