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
//! Options templates have different ids in the two dialects, as their scopes differ:
//!
//! | IPFIX | NetFlow v9 | layout |
//! |---|---|---|
//! | 512 | 528 | the exporter's statistics |
//! | 513 to 516 | 529 to 532 | gaps, in the order of [`gap::Kind`](super::gap::Kind) |
//!
//! 256 to 266 are not used: they had several meanings in versions before the first release.
//!
//! An unknown value has no element, rather than a zero that would claim to be known. Element 143 alone marks an
//! inferred record, be it a create, a delete or a flow: flowEndReason (136) has no such value, and a create has no end.

use crate::session::{EventKind, NatEvent, Provenance};
use crate::wire::dialect::Dialect;
use crate::wire::element::{
    DST_IPV4, DST_IPV6, DST_PORT, FIRST_SWITCHED, FLOW_END, FLOW_START, INGRESS_VRF,
    INITIATOR_OCTETS, INITIATOR_PACKETS, LAST_SWITCHED, METERING_PROCESS, NAT_EVENT,
    OBSERVATION_TIME, OCTETS, PACKETS, POST_NAPT_DST_PORT, POST_NAPT_SRC_PORT, POST_NAT_DST_IPV4,
    POST_NAT_DST_IPV6, POST_NAT_SRC_IPV4, POST_NAT_SRC_IPV6, PROTOCOL, RESPONDER_OCTETS,
    RESPONDER_PACKETS, SRC_IPV4, SRC_IPV6, SRC_PORT,
};
use crate::wire::flow::{Family, Flow};
use crate::wire::template::Template;

/// The id of the template without any of the bits.
const FIRST: u16 = 1024;
const IPV6: u16 = 1;
const ZONE: u16 = 2;
const INFERRED: u16 = 4;
const START: u16 = 8;
const COUNTERS: u16 = 16;
const NO_DESTINATION: u16 = 32;
const DELETE: u16 = 64;
const FLOW: u16 = 128;
const NETFLOW_9_FLOW: u16 = 192;

/// The properties that determine the elements of a flow record: the bits of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout(u16);

impl Layout {
    /// The layout of the NAT event: a NAT44 session event of RFC 8158 section 5.5, with the post-NAT destination, or its
    /// IPv6 twin. A delete adds what is known at the end of a session.
    pub fn event(event: &NatEvent, family: Family, destination: bool, zone: bool) -> Self {
        let kind = match event.kind {
            EventKind::Create => 0,
            EventKind::Delete | EventKind::Flow => DELETE | known(event),
        };
        let destination = bit(NO_DESTINATION, !destination);
        Self(kind | destination | common(event, family, zone))
    }

    /// The layout of the flows of the session that `event` ended.
    pub fn flow(event: &NatEvent, family: Family, dialect: Dialect, zone: bool) -> Self {
        let kind = match dialect {
            Dialect::Ipfix => FLOW,
            Dialect::NetflowV9 => NETFLOW_9_FLOW,
        };
        Self(kind | known(event) | common(event, family, zone))
    }

    /// The id of the template.
    pub const fn id(self) -> u16 {
        FIRST + self.0
    }

    pub fn template(self) -> Template<Flow> {
        let [src, dst, post_nat_src, post_nat_dst] = if self.has(IPV6) {
            [SRC_IPV6, DST_IPV6, POST_NAT_SRC_IPV6, POST_NAT_DST_IPV6]
        } else {
            [SRC_IPV4, DST_IPV4, POST_NAT_SRC_IPV4, POST_NAT_DST_IPV4]
        };
        let mut elements = Vec::new();
        if self.has(FLOW) {
            elements.extend([src, dst, SRC_PORT, DST_PORT, PROTOCOL]);
            if self.has(COUNTERS) {
                elements.extend([OCTETS, PACKETS]);
            }
            // In NetFlow v9 many collectors know only these two, and read one of them alone as a flow since boot.
            if self.has(START | NETFLOW_9_FLOW) {
                elements.extend([FIRST_SWITCHED, LAST_SWITCHED]);
            }
            elements.extend(self.has(START).then_some(FLOW_START));
            elements.push(FLOW_END);
        } else {
            elements.extend([OBSERVATION_TIME, NAT_EVENT, PROTOCOL]);
            elements.extend([src, SRC_PORT, post_nat_src, POST_NAPT_SRC_PORT]);
            if !self.has(NO_DESTINATION) {
                elements.extend([dst, DST_PORT, post_nat_dst, POST_NAPT_DST_PORT]);
            }
        }
        elements.extend(self.has(ZONE).then_some(INGRESS_VRF));
        if !self.has(FLOW) && self.has(DELETE) {
            elements.extend(self.has(START).then_some(FLOW_START));
            elements.push(FLOW_END);
            if self.has(COUNTERS) {
                elements.extend([INITIATOR_OCTETS, INITIATOR_PACKETS]);
                elements.extend([RESPONDER_OCTETS, RESPONDER_PACKETS]);
            }
        }
        elements.extend(self.has(INFERRED).then_some(METERING_PROCESS));
        Template::new(self.id(), elements)
    }

    const fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
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
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::session::Totals;
    use crate::wire::gap;
    use crate::wire::samples::{create, delete, snat};

    const DIALECTS: [Dialect; 2] = [Dialect::Ipfix, Dialect::NetflowV9];
    const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    fn fields<S>(template: &Template<S>) -> String {
        let fields: Vec<_> = template
            .elements()
            .iter()
            .map(|element| format!("{}/{}", element.id, element.length()))
            .collect();
        fields.join(" ")
    }

    /// The end of a session whose start and counters are known.
    fn whole() -> NatEvent {
        NatEvent {
            totals: Some(Totals::default()),
            ..delete(snat(), 0, 0)
        }
    }

    /// A create and a delete with every combination of known and unknown values.
    fn events() -> Vec<NatEvent> {
        let mut events = Vec::new();
        for provenance in [Provenance::Kernel, Provenance::Inferred] {
            events.push(NatEvent {
                provenance,
                ..create(snat(), 0)
            });
            for start in [None, whole().start] {
                for totals in [None, whole().totals] {
                    events.push(NatEvent {
                        provenance,
                        start,
                        totals,
                        ..whole()
                    });
                }
            }
        }
        events
    }

    /// All layouts of all configurations, with the bits of the table that they have.
    fn layouts() -> Vec<(Layout, u16)> {
        let mut layouts = Vec::new();
        let bit = |bit, set: bool| bit * u16::from(set);
        for event in events() {
            let ended = event.kind == EventKind::Delete;
            for (family, zone) in FAMILIES
                .map(|family| [(family, false), (family, true)])
                .concat()
            {
                let common = bit(1, family == Family::Ipv6)
                    + bit(2, zone)
                    + bit(4, event.provenance == Provenance::Inferred)
                    + bit(8, ended && event.start.is_some())
                    + bit(16, ended && event.totals.is_some());
                for destination in [true, false] {
                    let layout = Layout::event(&event, family, destination, zone);
                    let bits = common + bit(32, !destination) + bit(64, ended);
                    layouts.push((layout, bits));
                }
                for dialect in DIALECTS.into_iter().filter(|_| ended) {
                    let layout = Layout::flow(&event, family, dialect, zone);
                    let bits = common + 128 + bit(64, dialect == Dialect::NetflowV9);
                    layouts.push((layout, bits));
                }
            }
        }
        layouts
    }

    /// The fields of every template, options templates included, by id.
    fn templates() -> Vec<(u16, String)> {
        let entry = |id, fields: String| (id, fields);
        let flows = layouts().into_iter().map(|(layout, _)| layout.template());
        let mut templates: Vec<_> = flows.map(|flow| entry(flow.id(), fields(&flow))).collect();
        for dialect in DIALECTS {
            let statistics = dialect.statistics_template();
            templates.push(entry(statistics.id(), fields(&statistics)));
            for gap in gap::Kind::ALL.map(|kind| dialect.gap_template(kind)) {
                templates.push(entry(gap.id(), fields(&gap)));
            }
        }
        templates
    }

    #[test]
    fn no_two_layouts_that_differ_share_an_id() {
        let mut known = BTreeMap::new();
        for (id, fields) in templates() {
            let before = known.entry(id).or_insert_with(|| fields.clone());
            assert_eq!(*before, fields, "{id}");
        }
        // Creates, deletes, flows of either dialect, statistics and gaps of either dialect.
        assert_eq!(known.len(), 16 + 64 + 2 * 32 + 2 * (1 + 4));
        // Only flows without a start are alike in both dialects.
        assert_eq!(known.keys().find(|id| (256..=266).contains(*id)), None);
        let different: HashSet<_> = known.values().collect();
        assert_eq!(different.len(), known.len() - 16);
    }

    #[test]
    fn no_template_has_an_element_twice() {
        for (id, fields) in templates() {
            let all: Vec<_> = fields.split(' ').collect();
            let different: HashSet<_> = all.iter().collect();
            assert_eq!(different.len(), all.len(), "{id}: {fields}");
        }
    }

    #[test]
    fn ids_are_those_of_the_manual() {
        let manual = include_str!("../../packaging/deb/man/nattrail-records.7");
        let rows = [
            ("1", "IPv6"),
            ("2", "with the zone"),
            ("4", "inferred"),
            ("8", "with the start"),
            ("16", "with counters"),
            ("32", "without destination"),
            ("64", "delete"),
            ("128", "flow of a triplet, IPFIX"),
            ("192", "flow of a triplet, v9"),
            ("512", "statistics, IPFIX"),
            ("513 to 516", "gaps, IPFIX"),
            ("528", "statistics, v9"),
            ("529 to 532", "gaps, v9"),
        ];
        for (id, layout) in rows {
            let row = format!(".TP 12\n.B {id}\n{layout}");
            assert!(manual.contains(&row), "{row}");
        }
        for (layout, bits) in layouts() {
            assert_eq!(layout.id(), 1024 + bits, "{layout:?}");
        }
        for (dialect, first) in DIALECTS.into_iter().zip([512, 528]) {
            assert_eq!(dialect.statistics_template().id(), first);
            let gaps = gap::Kind::ALL.map(|kind| dialect.gap_template(kind).id());
            assert_eq!(gaps, [1, 2, 3, 4].map(|kind| first + kind));
        }
    }

    #[test]
    fn the_session_record_has_the_documented_order() {
        let event = |event: &NatEvent, family, destination, zone| {
            fields(&Layout::event(event, family, destination, zone).template())
        };
        let begun = create(snat(), 0);
        assert_eq!(
            event(&begun, Family::Ipv4, true, false),
            "323/8 230/1 4/1 8/4 7/2 225/4 227/2 12/4 11/2 226/4 228/2"
        );
        assert_eq!(
            event(&whole(), Family::Ipv4, true, true),
            "323/8 230/1 4/1 8/4 7/2 225/4 227/2 12/4 11/2 226/4 228/2 234/4 \
             152/8 153/8 231/8 298/8 232/8 299/8"
        );
        assert_eq!(
            event(&whole(), Family::Ipv6, true, false),
            "323/8 230/1 4/1 27/16 7/2 281/16 227/2 28/16 11/2 282/16 228/2 \
             152/8 153/8 231/8 298/8 232/8 299/8"
        );
        assert_eq!(
            event(&begun, Family::Ipv4, false, true),
            "323/8 230/1 4/1 8/4 7/2 225/4 227/2 234/4"
        );
        assert_eq!(
            event(&begun, Family::Ipv6, false, false),
            "323/8 230/1 4/1 27/16 7/2 281/16 227/2"
        );
    }

    #[test]
    fn what_is_not_known_at_the_end_has_no_element() {
        let event =
            |event: NatEvent| fields(&Layout::event(&event, Family::Ipv4, false, false).template());
        let translation = "323/8 230/1 4/1 8/4 7/2 225/4 227/2";
        let no_counters = delete(snat(), 0, 0);
        let no_start = NatEvent {
            start: None,
            ..no_counters
        };
        assert_eq!(event(no_counters), format!("{translation} 152/8 153/8"));
        assert_eq!(event(no_start), format!("{translation} 153/8"));
        let flow = |dialect| {
            [no_counters, no_start]
                .map(|event| fields(&Layout::flow(&event, Family::Ipv4, dialect, false).template()))
        };
        let packet = "8/4 12/4 7/2 11/2 4/1";
        assert_eq!(
            flow(Dialect::Ipfix),
            [format!("{packet} 152/8 153/8"), format!("{packet} 153/8")]
        );
        assert_eq!(
            flow(Dialect::NetflowV9),
            [
                format!("{packet} 22/4 21/4 152/8 153/8"),
                format!("{packet} 153/8")
            ]
        );
    }

    #[test]
    fn a_record_that_was_inferred_says_so_after_all_else() {
        for event in events() {
            let observed = NatEvent {
                provenance: Provenance::Kernel,
                ..event
            };
            let inferred = NatEvent {
                provenance: Provenance::Inferred,
                ..event
            };
            let [without, with] = [observed, inferred]
                .map(|event| fields(&Layout::event(&event, Family::Ipv6, true, true).template()));
            assert_eq!(with, format!("{without} 143/4"));
            let [without, with] = [observed, inferred].map(|event| {
                fields(&Layout::flow(&event, Family::Ipv4, Dialect::NetflowV9, true).template())
            });
            assert_eq!(with, format!("{without} 143/4"));
        }
    }

    #[test]
    fn the_flow_record_has_the_documented_order() {
        let flow = |family, dialect, zone| {
            fields(&Layout::flow(&whole(), family, dialect, zone).template())
        };
        assert_eq!(
            flow(Family::Ipv4, Dialect::Ipfix, false),
            "8/4 12/4 7/2 11/2 4/1 1/8 2/8 152/8 153/8"
        );
        assert_eq!(
            flow(Family::Ipv6, Dialect::NetflowV9, true),
            "27/16 28/16 7/2 11/2 4/1 1/8 2/8 22/4 21/4 152/8 153/8 234/4"
        );
    }

    #[test]
    fn identifiers_are_known_to_an_independent_decoder_by_the_same_name() {
        use netflow_parser::variable_versions::ipfix::lookup::IPFixField;

        let flows = layouts().into_iter().map(|(layout, _)| layout.template());
        let mut names: HashSet<_> = flows
            .flat_map(|flow| flow.elements().to_vec())
            .map(|element| (element.id, element.name))
            .collect();
        let statistics = crate::wire::element::STATISTICS.iter();
        names.extend(statistics.map(|element| (element.id, element.name)));
        for (id, name) in names {
            let theirs = format!("{:?}", IPFixField::new(id, None)).to_lowercase();
            assert!(
                theirs.contains(&name.to_lowercase()),
                "{id} {name}: {theirs}"
            );
        }
    }
}
