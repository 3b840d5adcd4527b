//! The information elements this program exports, and which of them make up which record.
//!
//! One table feeds NetFlow v9 templates, IPFIX templates and their data records: an element carries its identifier and
//! the function that takes its value, and the length in a template is that of the value's type. So no element can be in a
//! template and missing from the data, or have another length there.
//!
//! Identifiers, names and types are those of the IANA registry of IPFIX information elements (RFC 7012); NetFlow v9 uses
//! the same numbers (RFC 3954 section 8, above 127 by convention). The NAT elements are described in RFC 8158.

use crate::time::Wall;
use crate::wire::flow::{Family, Flow};

/// One element of a record made from an `S`.
#[derive(Debug)]
pub struct Element<S> {
    pub id: u16,
    /// The name in the IANA registry.
    pub name: &'static str,
    value: Value<S>,
}

/// How to take the value, by its width on the wire.
#[derive(Debug)]
enum Value<S> {
    U8(fn(&S) -> u8),
    U16(fn(&S) -> u16),
    U32(fn(&S) -> u32),
    U64(fn(&S) -> u64),
    U128(fn(&S) -> u128),
}

/// The exporter's own statistics, for the options records.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    pub observation_domain: u32,
    /// When this exporter began to count.
    pub init: Wall,
    /// Octets of all messages before the one that says so.
    pub octets: u64,
    /// Messages before the one that says so.
    pub messages: u64,
    /// Flow records in those messages.
    pub records: u64,
    /// Flow records that were made and could not be sent.
    pub not_sent: u64,
}

impl<S> Element<S> {
    const fn u8(id: u16, name: &'static str, take: fn(&S) -> u8) -> Self {
        let value = Value::U8(take);
        Self { id, name, value }
    }

    const fn u16(id: u16, name: &'static str, take: fn(&S) -> u16) -> Self {
        let value = Value::U16(take);
        Self { id, name, value }
    }

    /// An element of four octets.
    pub(super) const fn u32(id: u16, name: &'static str, take: fn(&S) -> u32) -> Self {
        let value = Value::U32(take);
        Self { id, name, value }
    }

    /// An element of eight octets.
    pub(super) const fn u64(id: u16, name: &'static str, take: fn(&S) -> u64) -> Self {
        let value = Value::U64(take);
        Self { id, name, value }
    }

    const fn u128(id: u16, name: &'static str, take: fn(&S) -> u128) -> Self {
        let value = Value::U128(take);
        Self { id, name, value }
    }

    /// Length on the wire in octets.
    #[must_use]
    pub const fn length(&self) -> u16 {
        match self.value {
            Value::U8(_) => 1,
            Value::U16(_) => 2,
            Value::U32(_) => 4,
            Value::U64(_) => 8,
            Value::U128(_) => 16,
        }
    }

    /// Appends the value that `source` has for this element.
    #[inline]
    pub fn put(&self, source: &S, out: &mut Vec<u8>) {
        match self.value {
            Value::U8(take) => out.push(take(source)),
            Value::U16(take) => out.extend_from_slice(&take(source).to_be_bytes()),
            Value::U32(take) => out.extend_from_slice(&take(source).to_be_bytes()),
            Value::U64(take) => out.extend_from_slice(&take(source).to_be_bytes()),
            Value::U128(take) => out.extend_from_slice(&take(source).to_be_bytes()),
        }
    }
}

// Deriving these would ask for `S: Clone`.
impl<S> Clone for Element<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Element<S> {}

impl<S> Clone for Value<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Value<S> {}

/// The elements of a NAT event: a NAT44 session event of RFC 8158 section 5.5, with the post-NAT destination, or its
/// IPv6 twin. `counters` adds what is known at the end of a session.
#[must_use]
pub fn nat_event(
    family: Family,
    destination: bool,
    zone: bool,
    counters: bool,
) -> Vec<Element<Flow>> {
    let addresses = Addresses::of(family);
    let mut elements = vec![
        OBSERVATION_TIME,
        NAT_EVENT,
        PROTOCOL,
        addresses.src,
        SRC_PORT,
        addresses.post_nat_src,
        POST_NAPT_SRC_PORT,
    ];
    if destination {
        elements.extend([
            addresses.dst,
            DST_PORT,
            addresses.post_nat_dst,
            POST_NAPT_DST_PORT,
        ]);
    }
    if zone {
        elements.push(INGRESS_VRF);
    }
    if counters {
        elements.extend([
            FLOW_START,
            FLOW_END,
            INITIATOR_OCTETS,
            INITIATOR_PACKETS,
            RESPONDER_OCTETS,
            RESPONDER_PACKETS,
        ]);
    }
    elements
}

/// The elements of one flow of a triplet.
#[must_use]
pub fn flow(family: Family, zone: bool) -> Vec<Element<Flow>> {
    let addresses = Addresses::of(family);
    let mut elements = vec![
        addresses.src,
        addresses.dst,
        SRC_PORT,
        DST_PORT,
        PROTOCOL,
        OCTETS,
        PACKETS,
        FLOW_START,
        FLOW_END,
    ];
    if zone {
        elements.push(INGRESS_VRF);
    }
    elements
}

/// The exporter's own statistics, without the scope, which is the format's own.
pub const STATISTICS: [Element<Statistics>; 5] = [
    Element::u64(160, "systemInitTimeMilliseconds", |s| s.init.as_millis()),
    Element::u64(40, "exportedOctetTotalCount", |s| s.octets),
    Element::u64(41, "exportedMessageTotalCount", |s| s.messages),
    Element::u64(42, "exportedFlowRecordTotalCount", |s| s.records),
    Element::u64(166, "notSentFlowTotalCount", |s| s.not_sent),
];

const OCTETS: Element<Flow> = Element::u64(1, "octetDeltaCount", |f| f.forward.octets);
const PACKETS: Element<Flow> = Element::u64(2, "packetDeltaCount", |f| f.forward.packets);
const PROTOCOL: Element<Flow> = Element::u8(4, "protocolIdentifier", |f| f.protocol);
const SRC_PORT: Element<Flow> = Element::u16(7, "sourceTransportPort", |f| f.packet.src_port);
const SRC_IPV4: Element<Flow> = Element::u32(8, "sourceIPv4Address", |f| f.packet.src as u32);
const DST_PORT: Element<Flow> = Element::u16(11, "destinationTransportPort", |f| f.packet.dst_port);
const DST_IPV4: Element<Flow> = Element::u32(12, "destinationIPv4Address", |f| f.packet.dst as u32);
const SRC_IPV6: Element<Flow> = Element::u128(27, "sourceIPv6Address", |f| f.packet.src);
const DST_IPV6: Element<Flow> = Element::u128(28, "destinationIPv6Address", |f| f.packet.dst);
const FLOW_START: Element<Flow> =
    Element::u64(152, "flowStartMilliseconds", |f| f.start.as_millis());
const FLOW_END: Element<Flow> = Element::u64(153, "flowEndMilliseconds", |f| f.end.as_millis());
const POST_NAT_SRC_IPV4: Element<Flow> =
    Element::u32(225, "postNATSourceIPv4Address", |f| f.translated.src as u32);
const POST_NAT_DST_IPV4: Element<Flow> = Element::u32(226, "postNATDestinationIPv4Address", |f| {
    f.translated.dst as u32
});
const POST_NAPT_SRC_PORT: Element<Flow> = Element::u16(227, "postNAPTSourceTransportPort", |f| {
    f.translated.src_port
});
const POST_NAPT_DST_PORT: Element<Flow> =
    Element::u16(228, "postNAPTDestinationTransportPort", |f| {
        f.translated.dst_port
    });
const NAT_EVENT: Element<Flow> = Element::u8(230, "natEvent", |f| f.nat_event);
const INITIATOR_OCTETS: Element<Flow> = Element::u64(231, "initiatorOctets", |f| f.forward.octets);
const RESPONDER_OCTETS: Element<Flow> = Element::u64(232, "responderOctets", |f| f.backward.octets);
const INGRESS_VRF: Element<Flow> = Element::u32(234, "ingressVRFID", |f| f.zone as u32);
const POST_NAT_SRC_IPV6: Element<Flow> =
    Element::u128(281, "postNATSourceIPv6Address", |f| f.translated.src);
const POST_NAT_DST_IPV6: Element<Flow> =
    Element::u128(282, "postNATDestinationIPv6Address", |f| f.translated.dst);
const INITIATOR_PACKETS: Element<Flow> =
    Element::u64(298, "initiatorPackets", |f| f.forward.packets);
const RESPONDER_PACKETS: Element<Flow> =
    Element::u64(299, "responderPackets", |f| f.backward.packets);
const OBSERVATION_TIME: Element<Flow> = Element::u64(323, "observationTimeMilliseconds", |f| {
    f.observed.as_millis()
});

struct Addresses {
    src: Element<Flow>,
    dst: Element<Flow>,
    post_nat_src: Element<Flow>,
    post_nat_dst: Element<Flow>,
}

impl Addresses {
    const fn of(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self {
                src: SRC_IPV4,
                dst: DST_IPV4,
                post_nat_src: POST_NAT_SRC_IPV4,
                post_nat_dst: POST_NAT_DST_IPV4,
            },
            Family::Ipv6 => Self {
                src: SRC_IPV6,
                dst: DST_IPV6,
                post_nat_src: POST_NAT_SRC_IPV6,
                post_nat_dst: POST_NAT_DST_IPV6,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(elements: &[Element<Flow>]) -> String {
        let fields: Vec<_> = elements
            .iter()
            .map(|element| format!("{}/{}", element.id, element.length()))
            .collect();
        fields.join(" ")
    }

    #[test]
    fn the_ipv4_session_record_has_the_documented_order() {
        assert_eq!(
            layout(&nat_event(Family::Ipv4, true, false, false)),
            "323/8 230/1 4/1 8/4 7/2 225/4 227/2 12/4 11/2 226/4 228/2"
        );
        assert_eq!(
            layout(&nat_event(Family::Ipv4, true, true, true)),
            "323/8 230/1 4/1 8/4 7/2 225/4 227/2 12/4 11/2 226/4 228/2 234/4 \
             152/8 153/8 231/8 298/8 232/8 299/8"
        );
    }

    #[test]
    fn the_ipv6_session_record_is_its_twin() {
        assert_eq!(
            layout(&nat_event(Family::Ipv6, true, false, true)),
            "323/8 230/1 4/1 27/16 7/2 281/16 227/2 28/16 11/2 282/16 228/2 \
             152/8 153/8 231/8 298/8 232/8 299/8"
        );
    }

    #[test]
    fn a_suppressed_destination_is_in_no_template() {
        assert_eq!(
            layout(&nat_event(Family::Ipv4, false, true, false)),
            "323/8 230/1 4/1 8/4 7/2 225/4 227/2 234/4"
        );
        assert_eq!(
            layout(&nat_event(Family::Ipv6, false, false, false)),
            "323/8 230/1 4/1 27/16 7/2 281/16 227/2"
        );
    }

    #[test]
    fn the_flow_record_has_the_documented_order() {
        assert_eq!(
            layout(&flow(Family::Ipv4, false)),
            "8/4 12/4 7/2 11/2 4/1 1/8 2/8 152/8 153/8"
        );
        assert_eq!(
            layout(&flow(Family::Ipv6, true)),
            "27/16 28/16 7/2 11/2 4/1 1/8 2/8 152/8 153/8 234/4"
        );
    }

    #[test]
    fn identifiers_are_known_to_an_independent_decoder_by_the_same_name() {
        use netflow_parser::variable_versions::ipfix::lookup::IPFixField;

        let mut elements = nat_event(Family::Ipv4, true, true, true);
        elements.extend(nat_event(Family::Ipv6, true, true, true));
        elements.extend(flow(Family::Ipv4, true));
        let flows = elements.iter().map(|element| (element.id, element.name));
        let statistics = STATISTICS.iter().map(|element| (element.id, element.name));
        for (id, name) in flows.chain(statistics) {
            let theirs = format!("{:?}", IPFixField::new(id, None)).to_lowercase();
            assert!(
                theirs.contains(&name.to_lowercase()),
                "{id} {name}: {theirs}"
            );
        }
    }
}
