//! Which elements make up which record, and the ids of the templates.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::session::{EndReason, Session, Totals};
use crate::wire::gap;
use crate::wire::samples::{create, delete, dnat, hairpin, hex, icmp, ping, snat, untranslated};

const DIALECTS: [Dialect; 2] = [Dialect::Ipfix, Dialect::NetflowV9];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

fn fields<S>(template: &Template<S>) -> String {
    let fields: Vec<_> = template
        .elements()
        .iter()
        .map(|element| match element.enterprise {
            0 => format!("{}/{}", element.id, element.length()),
            enterprise => format!("{enterprise}:{}/{}", element.id, element.length()),
        })
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
                let layout = Layout::triplet(&event, family, dialect, zone);
                let bits = common + 128 + bit(64, dialect == Dialect::NetflowV9);
                layouts.push((layout, bits));
            }
        }
    }
    layouts
}

/// The same for traffic.
fn layouts_of_traffic() -> Vec<(Layout, u16)> {
    let bit = |bit, set: bool| bit * u16::from(set);
    let mut layouts = Vec::new();
    for event in events().into_iter().filter(NatEvent::is_flow) {
        for (session, of_session) in [
            (untranslated(), 0),
            (ping(), 64),
            (icmp(), 32 + 64 + 512),
            (dnat(), 32 + 512),
            (hairpin(), 32),
        ] {
            for choice in 0..1 << 5 {
                let chosen = |index: u16| choice >> index & 1 != 0;
                let (zone, mark, biflow) = (chosen(0), chosen(1), chosen(2));
                let event = NatEvent {
                    session: Session {
                        mark: mark.into(),
                        id: chosen(3).then_some(7),
                        ..session
                    },
                    end_reason: chosen(4).then_some(EndReason::Idle),
                    ..event
                };
                for (family, dialect) in FAMILIES
                    .map(|family| DIALECTS.map(|one| (family, one)))
                    .concat()
                {
                    let layout = Layout::traffic(&event, family, dialect, zone, biflow);
                    let ipfix = dialect == Dialect::Ipfix;
                    let bits = bit(1, family == Family::Ipv6)
                        + bit(2, zone)
                        + bit(4, event.provenance == Provenance::Inferred)
                        + bit(8, event.start.is_some())
                        + bit(16, event.totals.is_some())
                        + of_session
                        + bit(128, chosen(4))
                        + bit(256, chosen(3) && ipfix)
                        + bit(1024, mark && ipfix)
                        + bit(2048, biflow && ipfix)
                        + bit(4096, !ipfix);
                    layouts.push((layout, bits));
                }
            }
        }
    }
    layouts
}

/// The fields of every template, options templates included, by id.
fn templates() -> Vec<(u16, String)> {
    let entry = |id, fields: String| (id, fields);
    let flows = [layouts(), layouts_of_traffic()].concat().into_iter();
    let flows = flows.map(|(layout, _)| layout.template());
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
    // Creates, deletes, triplets of either dialect, statistics and gaps of either dialect.
    let before = 16 + 64 + 2 * 32 + 2 * (1 + 4);
    // Those of traffic: 64 choices, five sessions, and then eight more choices in IPFIX and none in v9.
    assert_eq!(known.len(), before + (1 << 6) * 5 * (8 + 1));
    assert_eq!(known.keys().find(|id| (256..=266).contains(*id)), None);
    // In both dialects, triplets and traffic without a start and without what NetFlow v9 has no element for are alike;
    // so is a triplet and traffic of which nothing more is known.
    let different: HashSet<_> = known.values().collect();
    let triplets = 16;
    assert_eq!(different.len(), known.len() - triplets - (1 << 5) * 5 - 48);
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
    let manual = include_str!("../../../packaging/deb/man/nattrail-records.7");
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
        ("32", "translated"),
        ("64", "ICMP"),
        ("128", "with the reason of the end"),
        ("256", "with the kernel's id, IPFIX"),
        ("512", "with the direction"),
        ("1024", "with the mark, IPFIX"),
        ("2048", "both directions, IPFIX"),
        ("4096", "NetFlow v9"),
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
    for (layout, bits) in layouts_of_traffic() {
        assert_eq!(layout.id(), 2048 + bits, "{layout:?}");
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
            .map(|event| fields(&Layout::triplet(&event, Family::Ipv4, dialect, false).template()))
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
            fields(&Layout::triplet(&event, Family::Ipv4, Dialect::NetflowV9, true).template())
        });
        assert_eq!(with, format!("{without} 143/4"));
    }
}

#[test]
fn the_flow_record_has_the_documented_order() {
    let flow = |family, dialect, zone| {
        fields(&Layout::triplet(&whole(), family, dialect, zone).template())
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
fn the_record_of_traffic_has_the_documented_order() {
    let traffic = |session, family, dialect, zone, biflow| {
        let event = NatEvent {
            session: Session { mark: 1, ..session },
            end_reason: Some(EndReason::Active),
            provenance: Provenance::Inferred,
            ..whole()
        };
        fields(&Layout::traffic(&event, family, dialect, zone, biflow).template())
    };
    assert_eq!(
        traffic(snat(), Family::Ipv4, Dialect::Ipfix, true, false),
        "8/4 12/4 7/2 11/2 4/1 1/8 2/8 152/8 153/8 225/4 226/4 227/2 228/2 136/1 148/8 61/1 234/4 21373:4/4 143/4"
    );
    assert_eq!(
        traffic(icmp(), Family::Ipv6, Dialect::NetflowV9, false, false),
        "27/16 28/16 7/2 11/2 4/1 1/8 2/8 22/4 21/4 152/8 153/8 281/16 282/16 227/2 228/2 139/2 136/1 61/1 143/4"
    );
    assert_eq!(
        traffic(icmp(), Family::Ipv4, Dialect::Ipfix, false, true),
        "8/4 12/4 7/2 11/2 4/1 1/8 2/8 152/8 153/8 225/4 226/4 227/2 228/2 29305:32/2 32/2 136/1 148/8 61/1 21373:4/4 \
         239/1 29305:1/8 29305:2/8 143/4"
    );
    let nothing_known = NatEvent {
        session: Session {
            id: None,
            ..untranslated()
        },
        start: None,
        totals: None,
        ..whole()
    };
    for dialect in DIALECTS {
        let layout = Layout::traffic(&nothing_known, Family::Ipv4, dialect, false, false);
        assert_eq!(fields(&layout.template()), "8/4 12/4 7/2 11/2 4/1 153/8");
    }
}

#[test]
fn the_length_of_a_template_and_of_its_records_is_that_of_their_octets() {
    let (_, flow) = Flow::nat_event(&whole(), crate::wire::flow::NatEventValues::Legacy).unwrap();
    for (layout, _) in [layouts(), layouts_of_traffic()].concat() {
        let template = layout.template();
        let (mut definition, mut record) = (Vec::new(), Vec::new());
        template.put_definition(&mut definition);
        template.put_record(&flow, &mut record);
        assert_eq!(definition.len(), template.definition_len(), "{layout:?}");
        assert_eq!(record.len(), template.record_len(), "{layout:?}");
    }
}

#[test]
fn elements_of_enterprises_have_their_number_behind_them() {
    let event = NatEvent {
        session: Session {
            mark: 1,
            ..untranslated()
        },
        ..whole()
    };
    let layout = Layout::traffic(&event, Family::Ipv4, Dialect::Ipfix, false, true);
    let mut out = Vec::new();
    layout.template().put_definition(&mut out);
    let expected = hex(
        "1518 000e 0008 0004 000c 0004 0007 0002 000b 0002 0004 0001 0001 0008 0002 0008 0098 0008 0099 0008
         0094 0008 8004 0004 0000537d 00ef 0001 8001 0008 00007279 8002 0008 00007279",
    );
    assert_eq!(out, expected);
}

#[test]
fn identifiers_are_known_to_an_independent_decoder_by_the_same_name() {
    use netflow_parser::variable_versions::ipfix::lookup::IPFixField;

    let flows = [layouts(), layouts_of_traffic()].concat().into_iter();
    let flows = flows.map(|(layout, _)| layout.template());
    let mut names: HashSet<_> = flows
        .flat_map(|flow| flow.elements().to_vec())
        .map(|element| (element.id, element.enterprise, element.name))
        .collect();
    let statistics = crate::wire::element::STATISTICS.iter();
    names.extend(statistics.map(|element| (element.id, 0, element.name)));
    // Nobody registers those of the Netfilter project.
    assert!(names.remove(&(4, 21_373, "mark")));
    for (id, enterprise, name) in names {
        let enterprise = (enterprise != 0).then_some(enterprise);
        let theirs = format!("{:?}", IPFixField::new(id, enterprise)).to_lowercase();
        assert!(
            theirs.contains(&name.to_lowercase()),
            "{id} {name}: {theirs}"
        );
    }
}
