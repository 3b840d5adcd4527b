//! A gap in NetFlow v9 and IPFIX: an options data record in the form of the reliability statistics of RFC 7011.
//!
//! Section 4.2 has a record for what a metering process did not process, section 4.3 one for what an exporting process
//! did not send. A loss between the packet and this program is the former: nattrail's metering process is
//! connection tracking, the kernel's queue and the daemon. A loss on the way to a collector is the latter.
//! Both records have a scope that identifies the process, a counter, and the times of the first and the last loss. For
//! the times both sections want an observationTime element, and so the same one twice, which some collectors refuse. A
//! gap has flowStartMilliseconds (152) and flowEndMilliseconds (153) instead, as the aggregate of the missing flows.
//!
//! | kind | process | count in the interval | count since the start |
//! |---|---|---|---|
//! | missed | meteringProcessId (143) | deltaFlowCount (3) | notSentFlowTotalCount (166) |
//! | refused | meteringProcessId (143) | droppedPacketDeltaCount (133) | ignoredPacketTotalCount (164) |
//! | unsent | exportingProcessId (144) | deltaFlowCount (3) | notSentFlowTotalCount (166) |
//! | uncounted | meteringProcessId (143) | | |
//!
//! - The counters of sections 4.2 and 4.3 are totals: a collector that misses one record learns the whole loss from the
//!   next. The loss in this interval needs a delta counter as well. For flows the registry has one, "the count of
//!   Original Flows contributing to this Aggregated Flow" (RFC 7015): a gap is the aggregate of all that is known of
//!   the missing flows. For packets that connection tracking refused it has one by name.
//! - 166 is also the total of events that capture lost: it counts flow records "dropped by the Metering Process or by
//!   the Exporting Process", and conntrack events are flow records in all but form. A packet that connection tracking
//!   or a monitor port drops never becomes a flow record: it is ignored (164).
//! - The octets and packets that the sections want beside these counters (165, 167, 168) are left out. They are not
//!   known, and a zero would claim that they are. For the same reason a gap without a count has a template without one.
//! - No element gives the cause. The registry's text elements name interfaces, selectors and domains, and a value
//!   squeezed into one of them, or under someone else's enterprise number, would be worse than none. So the identifier
//!   of the process tells the causes apart ([`process`]): every way to lose events is a stage of its own. Inferred
//!   records have an identifier too ([`INFERENCE`]).

use crate::session::{Gap, GapCause};
use crate::wire::element::{Element, elements};

/// The values of a gap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GapRecord {
    pub observation_domain: u32,
    pub gap: Gap,
    /// All losses by this cause since the start, this interval included, as far as they are known.
    pub total: u64,
}

/// The template that a gap needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Events that did not reach the daemon.
    Missed,
    /// Packets that connection tracking or a monitor port dropped.
    Refused,
    /// Records that did not leave.
    Unsent,
    /// Nothing is known but the interval.
    Uncounted,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Missed, Self::Refused, Self::Unsent, Self::Uncounted];

    pub const fn of(gap: &Gap) -> Self {
        if gap.lost.is_none() {
            return Self::Uncounted;
        }
        match gap.cause {
            GapCause::Restart
            | GapCause::Overflow
            | GapCause::ClockStep
            | GapCause::TrackingOff
            | GapCause::Undecoded
            | GapCause::Expired => Self::Missed,
            GapCause::TableFull | GapCause::InsertFailed | GapCause::Mirror => Self::Refused,
            GapCause::Undelivered => Self::Unsent,
        }
    }

    /// The element that identifies the process.
    pub(super) const fn process(self) -> Element<GapRecord> {
        match self {
            Self::Missed | Self::Refused | Self::Uncounted => METERING_PROCESS,
            Self::Unsent => EXPORTING_PROCESS,
        }
    }

    /// The elements after the process.
    pub(super) const fn elements(self) -> &'static [Element<GapRecord>] {
        match self {
            Self::Missed | Self::Unsent => &[FIRST, LAST, LOST_FLOWS, ALL_LOST_FLOWS],
            Self::Refused => &[FIRST, LAST, LOST_PACKETS, ALL_LOST_PACKETS],
            Self::Uncounted => &[FIRST, LAST],
        }
    }
}

/// The meteringProcessId of flow records that were inferred and not observed ([`Provenance::Inferred`]). Observed ones
/// have none.
///
/// [`Provenance::Inferred`]: crate::session::Provenance::Inferred
pub const INFERENCE: u32 = 9;

/// The meteringProcessId or exportingProcessId that stands for a cause. Collectors' configurations rely on these values.
pub const fn process(cause: GapCause) -> u32 {
    match cause {
        GapCause::Restart => 1,
        GapCause::Overflow => 2,
        GapCause::TableFull => 3,
        GapCause::InsertFailed => 4,
        GapCause::ClockStep => 5,
        GapCause::Undelivered => 6,
        GapCause::TrackingOff => 7,
        GapCause::Undecoded => 8,
        // 9 is INFERENCE.
        GapCause::Expired => 10,
        GapCause::Mirror => 11,
    }
}

elements! { GapRecord:
    OBSERVATION_DOMAIN = 149 "observationDomainId" U32 |g| g.observation_domain;
    METERING_PROCESS = 143 "meteringProcessId" U32 |g| process(g.gap.cause);
    EXPORTING_PROCESS = 144 "exportingProcessId" U32 |g| process(g.gap.cause);
    FIRST = 152 "flowStartMilliseconds" U64 |g| g.gap.from.as_millis();
    LAST = 153 "flowEndMilliseconds" U64 |g| g.gap.to.as_millis();
    LOST_FLOWS = 3 "deltaFlowCount" U64 lost;
    ALL_LOST_FLOWS = 166 "notSentFlowTotalCount" U64 |g| g.total;
    LOST_PACKETS = 133 "droppedPacketDeltaCount" U64 lost;
    ALL_LOST_PACKETS = 164 "ignoredPacketTotalCount" U64 |g| g.total;
}

/// Only templates of gaps with a count have these elements.
fn lost(record: &GapRecord) -> u64 {
    record.gap.lost.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;
    use crate::wire::dialect::Dialect;
    use crate::wire::template::Template;

    fn layout(template: &Template<GapRecord>) -> String {
        let field = |element: &Element<_>| format!("{}/{}", element.id, element.length());
        let fields: Vec<_> = template.elements().iter().map(field).collect();
        fields.join(" ")
    }

    #[test]
    fn ipfix_has_the_layout_of_the_reliability_statistics() {
        let layouts = Kind::ALL.map(|kind| layout(&Dialect::Ipfix.gap_template(kind)));
        assert_eq!(
            layouts,
            [
                "149/4 143/4 152/8 153/8 3/8 166/8",
                "149/4 143/4 152/8 153/8 133/8 164/8",
                "144/4 152/8 153/8 3/8 166/8",
                "149/4 143/4 152/8 153/8",
            ]
        );
    }

    #[test]
    fn netflow_9_has_the_same_within_the_scope_of_the_system() {
        let layouts = Kind::ALL.map(|kind| layout(&Dialect::NetflowV9.gap_template(kind)));
        assert_eq!(
            layouts,
            [
                "1/4 143/4 152/8 153/8 3/8 166/8",
                "1/4 143/4 152/8 153/8 133/8 164/8",
                "1/4 144/4 152/8 153/8 3/8 166/8",
                "1/4 143/4 152/8 153/8",
            ]
        );
    }

    #[test]
    fn a_gap_without_a_count_never_claims_one() {
        for cause in GapCause::ALL {
            let gap = |lost| Gap {
                cause,
                from: Wall::default(),
                to: Wall::default(),
                lost,
            };
            assert_eq!(Kind::of(&gap(None)), Kind::Uncounted);
            assert_ne!(Kind::of(&gap(Some(0))), Kind::Uncounted);
        }
    }

    #[test]
    fn no_two_causes_share_a_process() {
        let processes: Vec<_> = GapCause::ALL.map(process).into();
        assert_eq!(processes, [1, 2, 3, 4, 5, 7, 8, 10, 6, 11]);
        assert!(!processes.contains(&INFERENCE));
    }

    #[test]
    fn identifiers_are_known_to_an_independent_decoder_by_the_same_name() {
        use netflow_parser::variable_versions::ipfix::lookup::IPFixField;

        for kind in Kind::ALL {
            for element in [kind.process()].iter().chain(kind.elements()) {
                let theirs = format!("{:?}", IPFixField::new(element.id, None)).to_lowercase();
                let ours = element.name.to_lowercase();
                assert!(theirs.contains(&ours), "{ours}: {theirs}");
            }
        }
    }
}
