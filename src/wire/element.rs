//! The information elements that this program exports; [`super::layout`] composes records of them.
//!
//! One table feeds NetFlow v9 templates, IPFIX templates and their data records: an element carries its identifier and
//! the function that takes its value, and the length in a template is that of the value's type. So no element can be in a
//! template and missing from the data, or have another length there.
//!
//! Identifiers, names and types are those of the IANA registry of IPFIX information elements (RFC 7012); NetFlow v9 uses
//! the same numbers (RFC 3954 section 8, above 127 by convention). The NAT elements are described in RFC 8158.
//!
//! IPFIX also has elements of enterprises (RFC 7011 section 3.2), and NetFlow v9 has not:
//!
//! - those of the Netfilter project, with the numbers of ulogd2 (`include/ulogd/ipfix_protocol.h`);
//! - the reverse elements of RFC 5103: the number of an element says the same of the opposite direction.

use crate::time::Wall;
use crate::wire::flow::{Flow, number};
use crate::wire::gap;

/// The Netfilter project.
const NETFILTER: u32 = 21_373;
/// The reverse elements (RFC 5103 section 6.1).
const REVERSE: u32 = 29_305;
const ENTERPRISE_BIT: u16 = 1 << 15;

/// One element of a record made from an `S`.
#[derive(Clone, Copy, Debug)]
pub struct Element<S> {
    pub id: u16,
    /// The private enterprise number of the one who gave it this identifier; 0 for the IANA registry.
    pub enterprise: u32,
    /// The name in the IANA registry.
    pub name: &'static str,
    pub(super) value: Value<S>,
}

/// How to take the value, by its width on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<S> {
    U8(fn(&S) -> u8),
    U16(fn(&S) -> u16),
    U32(fn(&S) -> u32),
    U64(fn(&S) -> u64),
    U128(fn(&S) -> u128),
}

/// A table of elements: the constant, the identifier (with the enterprise, if it has one) and name in the registry, the
/// width, and how to take the value.
macro_rules! elements {
    ($source:ty: $($constant:ident = $id:literal $(of $enterprise:ident)? $name:literal $width:ident $take:expr;)*) => {
        $(pub(super) const $constant: crate::wire::element::Element<$source> =
            crate::wire::element::Element {
                id: $id,
                enterprise: 0 $(+ $enterprise)?,
                name: $name,
                value: crate::wire::element::Value::$width($take),
            };)*
    };
}
pub(super) use elements;

/// The exporter's own statistics, for the options records.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    pub observation_domain: u32,
    /// When this exporter began to count.
    pub init: Wall,
    /// Octets of all messages before the one that holds this record.
    pub octets: u64,
    /// Messages before that one.
    pub messages: u64,
    /// Flow records in those messages.
    pub records: u64,
    /// Flow records that were made and could not be sent.
    pub not_sent: u64,
}

impl<S> Element<S> {
    /// Length on the wire in octets.
    pub const fn length(&self) -> u16 {
        match self.value {
            Value::U8(_) => 1,
            Value::U16(_) => 2,
            Value::U32(_) => 4,
            Value::U64(_) => 8,
            Value::U128(_) => 16,
        }
    }

    /// Length of its field specifier in a template.
    pub(super) const fn specifier_len(&self) -> usize {
        if self.enterprise == 0 { 4 } else { 8 }
    }

    /// Appends its field specifier (RFC 7011 section 3.2).
    pub(super) fn put_specifier(&self, out: &mut Vec<u8>) {
        let enterprise = (self.enterprise != 0).then_some(self.enterprise);
        let id = self.id | enterprise.map_or(0, |_| ENTERPRISE_BIT);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&self.length().to_be_bytes());
        out.extend(enterprise.iter().flat_map(|number| number.to_be_bytes()));
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

elements! { Statistics:
    OBSERVATION_DOMAIN = 149 "observationDomainId" U32 |s| s.observation_domain;
    INIT_TIME = 160 "systemInitTimeMilliseconds" U64 |s| s.init.as_millis();
    EXPORTED_OCTETS = 40 "exportedOctetTotalCount" U64 |s| s.octets;
    EXPORTED_MESSAGES = 41 "exportedMessageTotalCount" U64 |s| s.messages;
    EXPORTED_RECORDS = 42 "exportedFlowRecordTotalCount" U64 |s| s.records;
    NOT_SENT = 166 "notSentFlowTotalCount" U64 |s| s.not_sent;
}

/// The exporter's own statistics, without the scope, which differs by format.
pub const STATISTICS: [Element<Statistics>; 5] = [
    INIT_TIME,
    EXPORTED_OCTETS,
    EXPORTED_MESSAGES,
    EXPORTED_RECORDS,
    NOT_SENT,
];

elements! { Flow:
    OCTETS = 1 "octetDeltaCount" U64 |f| f.forward.octets;
    PACKETS = 2 "packetDeltaCount" U64 |f| f.forward.packets;
    PROTOCOL = 4 "protocolIdentifier" U8 |f| f.protocol;
    SRC_PORT = 7 "sourceTransportPort" U16 |f| f.packet.src_port;
    SRC_IPV4 = 8 "sourceIPv4Address" U32 |f| number(f.packet.src) as u32;
    DST_PORT = 11 "destinationTransportPort" U16 |f| f.packet.dst_port;
    DST_IPV4 = 12 "destinationIPv4Address" U32 |f| number(f.packet.dst) as u32;
    SRC_IPV6 = 27 "sourceIPv6Address" U128 |f| number(f.packet.src);
    DST_IPV6 = 28 "destinationIPv6Address" U128 |f| number(f.packet.dst);
    LAST_SWITCHED = 21 "flowEndSysUpTime" U32 |f| f.boot.sys_uptime(f.end);
    FIRST_SWITCHED = 22 "flowStartSysUpTime" U32 |f| f.boot.sys_uptime(f.start);
    ICMP_TYPE_IPV4 = 32 "icmpTypeCodeIPv4" U16 |f| f.packet.dst_port;
    FLOW_DIRECTION = 61 "flowDirection" U8 |f| f.direction;
    FLOW_END_REASON = 136 "flowEndReason" U8 |f| f.end_reason;
    ICMP_TYPE_IPV6 = 139 "icmpTypeCodeIPv6" U16 |f| f.packet.dst_port;
    METERING_PROCESS = 143 "meteringProcessId" U32 |_| gap::INFERENCE;
    FLOW_ID = 148 "flowId" U64 |f| f.id.into();
    FLOW_START = 152 "flowStartMilliseconds" U64 |f| f.start.as_millis();
    FLOW_END = 153 "flowEndMilliseconds" U64 |f| f.end.as_millis();
    POST_NAT_SRC_IPV4 = 225 "postNATSourceIPv4Address" U32 |f| number(f.translated.src) as u32;
    POST_NAT_DST_IPV4 = 226 "postNATDestinationIPv4Address" U32 |f| number(f.translated.dst) as u32;
    POST_NAPT_SRC_PORT = 227 "postNAPTSourceTransportPort" U16 |f| f.translated.src_port;
    POST_NAPT_DST_PORT = 228 "postNAPTDestinationTransportPort" U16 |f| f.translated.dst_port;
    NAT_EVENT = 230 "natEvent" U8 |f| f.nat_event;
    INITIATOR_OCTETS = 231 "initiatorOctets" U64 |f| f.forward.octets;
    RESPONDER_OCTETS = 232 "responderOctets" U64 |f| f.backward.octets;
    INGRESS_VRF = 234 "ingressVRFID" U32 |f| f.zone as u32;
    BIFLOW_DIRECTION = 239 "biflowDirection" U8 |_| INITIATOR;
    POST_NAT_SRC_IPV6 = 281 "postNATSourceIPv6Address" U128 |f| number(f.translated.src);
    POST_NAT_DST_IPV6 = 282 "postNATDestinationIPv6Address" U128 |f| number(f.translated.dst);
    INITIATOR_PACKETS = 298 "initiatorPackets" U64 |f| f.forward.packets;
    RESPONDER_PACKETS = 299 "responderPackets" U64 |f| f.backward.packets;
    OBSERVATION_TIME = 323 "observationTimeMilliseconds" U64 |f| f.observed.as_millis();

    MARK = 4 of NETFILTER "mark" U32 |f| f.mark;
    REVERSE_OCTETS = 1 of REVERSE "reverseOctetDeltaCount" U64 |f| f.backward.octets;
    REVERSE_PACKETS = 2 of REVERSE "reversePacketDeltaCount" U64 |f| f.backward.packets;
    REVERSE_ICMP_TYPE_IPV4 = 32 of REVERSE "reverseIcmpTypeCodeIPv4" U16 |f| f.answer;
    REVERSE_ICMP_TYPE_IPV6 = 139 of REVERSE "reverseIcmpTypeCodeIPv6" U16 |f| f.answer;
}

/// The biflowDirection of a flow whose source is the end that sent the first packet (RFC 5103 section 6.3).
const INITIATOR: u8 = 1;
