//! The parts in which NetFlow version 9 (RFC 3954) and IPFIX (RFC 7011) differ: the message header, the ids of sets
//! (FlowSets), and options templates.

use crate::time::{BootTime, Uptime, Wall};
use crate::wire::element::{Element, OBSERVATION_DOMAIN, STATISTICS, Statistics, Value};
use crate::wire::gap::{self, GapRecord};
use crate::wire::template::Template;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    NetflowV9,
    Ipfix,
}

pub const NETFLOW_9_HEADER_LEN: usize = 20;
pub const IPFIX_HEADER_LEN: usize = 16;

/// The header of a NetFlow v9 message that leaves at `up`. `count` is the number of records in all FlowSets: templates,
/// options templates and data. `sequence` is the number of messages sent before.
///
/// UNIX Secs is the time rounded up to a whole second, and SysUptime is of that same moment: a collector relates the
/// two to place times in SysUptime (21, 22), which would be up to a second off otherwise.
pub fn netflow_9_header(
    count: u16,
    boot: BootTime,
    up: Uptime,
    sequence: u32,
    source_id: u32,
) -> [u8; NETFLOW_9_HEADER_LEN] {
    let unix = boot.unix_millis(up);
    let ahead = unix.next_multiple_of(1000) - unix;
    let uptime = (up.as_millis() + ahead) as u32;
    // The seconds end in 2106.
    let secs = ((unix + ahead) / 1000) as u32;
    let mut bytes = [0; NETFLOW_9_HEADER_LEN];
    bytes[0..2].copy_from_slice(&9_u16.to_be_bytes());
    bytes[2..4].copy_from_slice(&count.to_be_bytes());
    bytes[4..8].copy_from_slice(&uptime.to_be_bytes());
    bytes[8..12].copy_from_slice(&secs.to_be_bytes());
    bytes[12..16].copy_from_slice(&sequence.to_be_bytes());
    bytes[16..20].copy_from_slice(&source_id.to_be_bytes());
    bytes
}

/// The header of an IPFIX message of `length` octets, this header included. `sequence` is the number of data records,
/// options data included, sent before in this transport session and observation domain (section 3.1).
pub fn ipfix_header(
    length: u16,
    export_time: Wall,
    sequence: u32,
    observation_domain: u32,
) -> [u8; IPFIX_HEADER_LEN] {
    // The export time ends in 2106 (section 5.2).
    let export_time = export_time.as_secs() as u32;
    let mut bytes = [0; IPFIX_HEADER_LEN];
    bytes[0..2].copy_from_slice(&10_u16.to_be_bytes());
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes[4..8].copy_from_slice(&export_time.to_be_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_be_bytes());
    bytes[12..16].copy_from_slice(&observation_domain.to_be_bytes());
    bytes
}

impl Dialect {
    /// The id of the template set; the options template set has the next one.
    pub const fn template_set(self) -> u16 {
        match self {
            Self::NetflowV9 => 0,
            Self::Ipfix => 2,
        }
    }

    /// The template of the exporter's statistics. Its scope is the system as a whole (section 6.1, scope type 1), and in IPFIX
    /// the observation domain, as in the metering process statistics (section 4.1).
    pub fn statistics_template(self) -> Template<Statistics> {
        let (id, scope) = match self {
            Self::NetflowV9 => (528, system()),
            Self::Ipfix => (512, OBSERVATION_DOMAIN),
        };
        Template::options(id, 1, [&[scope], &STATISTICS[..]].concat())
    }

    /// The template of one kind of gap. Its scope in IPFIX is that of the reliability statistics: the metering process in the
    /// observation domain (section 4.2), or the exporting process (section 4.3). NetFlow v9 has no such scope type: there the
    /// process is the first option.
    pub fn gap_template(self, kind: gap::Kind) -> Template<GapRecord> {
        let (domain, process) = (gap::OBSERVATION_DOMAIN, kind.process());
        let (first, scope_fields, before): (_, _, &[_]) = match (self, kind) {
            (Self::NetflowV9, _) => (529, 1, &[system(), process]),
            (Self::Ipfix, gap::Kind::Unsent) => (513, 1, &[process]),
            (Self::Ipfix, _) => (513, 2, &[domain, process]),
        };
        let elements = [before, kind.elements()].concat();
        Template::options(first + kind as u16, scope_fields, elements)
    }

    /// Appends an options template record: its id, the size of its scope, and its fields, the scope first.
    pub fn put_options_definition<S>(self, template: &Template<S>, out: &mut Vec<u8>) {
        let (fields, scope) = (template.field_count(), template.scope_fields());
        let counts = match self {
            // Octets of the scope's and of the other field specifiers (section 6.1), none of which is an enterprise's.
            Self::NetflowV9 => [4 * scope, 4 * (fields - scope)],
            // All fields and those of the scope (section 3.4.2.2).
            Self::Ipfix => [fields, scope],
        };
        for number in [template.id(), counts[0], counts[1]] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        template.put_fields(out);
    }
}

/// The scope of NetFlow v9.
fn system<S>() -> Element<S> {
    Element {
        id: 1,
        enterprise: 0,
        name: "System",
        value: Value::U32(|_| 0),
    }
}
