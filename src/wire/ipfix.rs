//! IPFIX (RFC 7011): the message header, the ids of its sets and the form of its options templates.

use crate::time::Wall;
use crate::wire::element::{OBSERVATION_DOMAIN, STATISTICS, Statistics};
use crate::wire::gap::{self, GapRecord};
use crate::wire::layout::IPFIX_OPTIONS;
use crate::wire::template::Template;

pub const HEADER_LEN: usize = 16;
pub const TEMPLATE_SET: u16 = 2;
pub const OPTIONS_TEMPLATE_SET: u16 = 3;
/// Sets are not padded (section 3.3.1 leaves it open).
pub const ALIGNMENT: usize = 1;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Length of the message in octets, this header included.
    pub length: u16,
    /// When the message leaves.
    pub export_time: Wall,
    /// Data records sent before this message in this transport session and observation domain (section 3.1), options
    /// data included.
    pub sequence: u32,
    pub observation_domain: u32,
}

impl Header {
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        // The export time ends in 2106 (section 5.2).
        let export_time = self.export_time.as_secs() as u32;
        let mut bytes = [0; HEADER_LEN];
        bytes[0..2].copy_from_slice(&10_u16.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4..8].copy_from_slice(&export_time.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.observation_domain.to_be_bytes());
        bytes
    }
}

/// The template of the exporter's statistics. Its scope is the observation domain, as that of the metering process
/// statistics (section 4.1).
pub fn statistics_template() -> Template<Statistics> {
    Template::options(IPFIX_OPTIONS, &[OBSERVATION_DOMAIN], &STATISTICS)
}

/// The template of one kind of gap. Its scope is that of the reliability statistics: the metering process in the
/// observation domain (section 4.2), or the exporting process (section 4.3).
pub fn gap_template(kind: gap::Kind) -> Template<GapRecord> {
    let id = IPFIX_OPTIONS + 1 + kind as u16;
    match kind {
        gap::Kind::Unsent => Template::options(id, &[kind.process()], kind.elements()),
        gap::Kind::Missed | gap::Kind::Refused | gap::Kind::Uncounted => {
            let scope = [gap::OBSERVATION_DOMAIN, kind.process()];
            Template::options(id, &scope, kind.elements())
        }
    }
}

/// Appends an options template record: id, field count, scope field count and fields, the scope first (section
/// 3.4.2.2).
pub fn put_options_definition<S>(template: &Template<S>, out: &mut Vec<u8>) {
    out.extend_from_slice(&template.id().to_be_bytes());
    out.extend_from_slice(&template.field_count().to_be_bytes());
    out.extend_from_slice(&template.scope_fields().to_be_bytes());
    template.put_fields(out);
}
