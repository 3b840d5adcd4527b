//! NetFlow version 9 (RFC 3954): the message header, the ids of its FlowSets and the form of its options templates.

use crate::time::{Now, Wall};
use crate::wire::element::{Element, STATISTICS, Statistics};
use crate::wire::gap::{self, GapRecord};
use crate::wire::template::Template;

pub const HEADER_LEN: usize = 20;
pub const TEMPLATE_SET: u16 = 0;
pub const OPTIONS_TEMPLATE_SET: u16 = 1;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Records of all FlowSets: templates, options templates and data.
    pub count: u16,
    /// When the message leaves.
    pub now: Now,
    /// Messages sent before this one.
    pub sequence: u32,
    pub source_id: u32,
}

impl Header {
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..2].copy_from_slice(&9_u16.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.count.to_be_bytes());
        bytes[4..8].copy_from_slice(&(self.now.up.as_millis() as u32).to_be_bytes());
        bytes[8..12].copy_from_slice(&unix_secs(self.now.wall).to_be_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.source_id.to_be_bytes());
        bytes
    }
}

/// The template of the exporter's statistics. Its scope is the system as a whole (section 6.1, scope type 1).
#[must_use]
pub fn statistics_template(id: u16) -> Template<Statistics> {
    Template::options(id, &[scope_system()], &STATISTICS)
}

/// The template of one kind of gap. The process that IPFIX has for the scope is the first option here: NetFlow v9 has no
/// such scope type.
#[must_use]
pub fn gap_template(id: u16, kind: gap::Kind) -> Template<GapRecord> {
    let mut options = vec![kind.process()];
    options.extend_from_slice(kind.elements());
    Template::options(id, &[scope_system()], &options)
}

/// Appends an options template record: id, octets of the scope's and of the other field specifiers, and the fields, the
/// scope first (section 6.1).
pub fn put_options_definition<S>(template: &Template<S>, out: &mut Vec<u8>) {
    let scope_len = 4 * template.scope_fields();
    let options_len = 4 * template.field_count() - scope_len;
    out.extend_from_slice(&template.id().to_be_bytes());
    out.extend_from_slice(&scope_len.to_be_bytes());
    out.extend_from_slice(&options_len.to_be_bytes());
    template.put_fields(out);
}

fn scope_system<S>() -> Element<S> {
    Element::u32(1, "System", |_| 0)
}

/// The header field ends in 2106.
const fn unix_secs(wall: Wall) -> u32 {
    wall.as_secs() as u32
}
