//! The information elements this program exports; [`super::layout`] says which of them make up which record.
//!
//! One table feeds NetFlow v9 templates, IPFIX templates and their data records: an element carries its identifier and
//! the function that takes its value, and the length in a template is that of the value's type. So no element can be in a
//! template and missing from the data, or have another length there.
//!
//! Identifiers, names and types are those of the IANA registry of IPFIX information elements (RFC 7012); NetFlow v9 uses
//! the same numbers (RFC 3954 section 8, above 127 by convention). The NAT elements are described in RFC 8158.

use crate::time::Wall;
use crate::wire::flow::Flow;
use crate::wire::gap;

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

/// The exporter's own statistics, without the scope, which is the format's own.
pub const STATISTICS: [Element<Statistics>; 5] = [
    Element::u64(160, "systemInitTimeMilliseconds", |s| s.init.as_millis()),
    Element::u64(40, "exportedOctetTotalCount", |s| s.octets),
    Element::u64(41, "exportedMessageTotalCount", |s| s.messages),
    Element::u64(42, "exportedFlowRecordTotalCount", |s| s.records),
    Element::u64(166, "notSentFlowTotalCount", |s| s.not_sent),
];

pub(super) const OCTETS: Element<Flow> = Element::u64(1, "octetDeltaCount", |f| f.forward.octets);
pub(super) const PACKETS: Element<Flow> =
    Element::u64(2, "packetDeltaCount", |f| f.forward.packets);
pub(super) const PROTOCOL: Element<Flow> = Element::u8(4, "protocolIdentifier", |f| f.protocol);
pub(super) const SRC_PORT: Element<Flow> =
    Element::u16(7, "sourceTransportPort", |f| f.packet.src_port);
pub(super) const SRC_IPV4: Element<Flow> =
    Element::u32(8, "sourceIPv4Address", |f| f.packet.src as u32);
pub(super) const DST_PORT: Element<Flow> =
    Element::u16(11, "destinationTransportPort", |f| f.packet.dst_port);
pub(super) const DST_IPV4: Element<Flow> =
    Element::u32(12, "destinationIPv4Address", |f| f.packet.dst as u32);
pub(super) const SRC_IPV6: Element<Flow> = Element::u128(27, "sourceIPv6Address", |f| f.packet.src);
pub(super) const DST_IPV6: Element<Flow> =
    Element::u128(28, "destinationIPv6Address", |f| f.packet.dst);
pub(super) const LAST_SWITCHED: Element<Flow> =
    Element::u32(21, "flowEndSysUpTime", |f| f.boot.sys_uptime(f.end));
pub(super) const FIRST_SWITCHED: Element<Flow> =
    Element::u32(22, "flowStartSysUpTime", |f| f.boot.sys_uptime(f.start));
pub(super) const METERING_PROCESS: Element<Flow> =
    Element::u32(143, "meteringProcessId", |_| gap::INFERENCE);
pub(super) const FLOW_START: Element<Flow> =
    Element::u64(152, "flowStartMilliseconds", |f| f.start.as_millis());
pub(super) const FLOW_END: Element<Flow> =
    Element::u64(153, "flowEndMilliseconds", |f| f.end.as_millis());
pub(super) const POST_NAT_SRC_IPV4: Element<Flow> =
    Element::u32(225, "postNATSourceIPv4Address", |f| f.translated.src as u32);
pub(super) const POST_NAT_DST_IPV4: Element<Flow> =
    Element::u32(226, "postNATDestinationIPv4Address", |f| {
        f.translated.dst as u32
    });
pub(super) const POST_NAPT_SRC_PORT: Element<Flow> =
    Element::u16(227, "postNAPTSourceTransportPort", |f| {
        f.translated.src_port
    });
pub(super) const POST_NAPT_DST_PORT: Element<Flow> =
    Element::u16(228, "postNAPTDestinationTransportPort", |f| {
        f.translated.dst_port
    });
pub(super) const NAT_EVENT: Element<Flow> = Element::u8(230, "natEvent", |f| f.nat_event);
pub(super) const INITIATOR_OCTETS: Element<Flow> =
    Element::u64(231, "initiatorOctets", |f| f.forward.octets);
pub(super) const RESPONDER_OCTETS: Element<Flow> =
    Element::u64(232, "responderOctets", |f| f.backward.octets);
pub(super) const INGRESS_VRF: Element<Flow> = Element::u32(234, "ingressVRFID", |f| f.zone as u32);
pub(super) const POST_NAT_SRC_IPV6: Element<Flow> =
    Element::u128(281, "postNATSourceIPv6Address", |f| f.translated.src);
pub(super) const POST_NAT_DST_IPV6: Element<Flow> =
    Element::u128(282, "postNATDestinationIPv6Address", |f| f.translated.dst);
pub(super) const INITIATOR_PACKETS: Element<Flow> =
    Element::u64(298, "initiatorPackets", |f| f.forward.packets);
pub(super) const RESPONDER_PACKETS: Element<Flow> =
    Element::u64(299, "responderPackets", |f| f.backward.packets);
pub(super) const OBSERVATION_TIME: Element<Flow> =
    Element::u64(323, "observationTimeMilliseconds", |f| {
        f.observed.as_millis()
    });
