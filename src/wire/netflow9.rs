//! NetFlow version 9 (RFC 3954): the message header, the ids of its FlowSets and the form of its options templates.

use crate::time::{BootTime, Uptime};
use crate::wire::element::{Element, STATISTICS, Statistics, Value};
use crate::wire::gap::{self, GapRecord};
use crate::wire::layout::NETFLOW_9_OPTIONS;
use crate::wire::template::Template;

pub const HEADER_LEN: usize = 20;
pub const TEMPLATE_SET: u16 = 0;
pub const OPTIONS_TEMPLATE_SET: u16 = 1;
/// Sets end on a 4-byte boundary (section 5.3).
pub const ALIGNMENT: usize = 4;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Records of all FlowSets: templates, options templates and data.
    pub count: u16,
    pub boot: BootTime,
    /// When the message leaves.
    pub up: Uptime,
    /// Messages sent before this one.
    pub sequence: u32,
    pub source_id: u32,
}

impl Header {
    /// The header. Its UNIX Secs is the second that comes next, and SysUptime that of the same moment: a collector puts one
    /// to the other to place times in SysUptime (21, 22), which would be up to a second off otherwise.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let unix = self.boot.unix_millis(self.up);
        let ahead = unix.next_multiple_of(1000) - unix;
        let uptime = (self.up.as_millis() + ahead) as u32;
        // The seconds end in 2106.
        let secs = ((unix + ahead) / 1000) as u32;
        let mut bytes = [0; HEADER_LEN];
        bytes[0..2].copy_from_slice(&9_u16.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.count.to_be_bytes());
        bytes[4..8].copy_from_slice(&uptime.to_be_bytes());
        bytes[8..12].copy_from_slice(&secs.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.source_id.to_be_bytes());
        bytes
    }
}

/// The template of the exporter's statistics. Its scope is the system as a whole (section 6.1, scope type 1).
pub fn statistics_template() -> Template<Statistics> {
    Template::options(NETFLOW_9_OPTIONS, &[scope_system()], &STATISTICS)
}

/// The template of one kind of gap. The process that IPFIX has for the scope is the first option here: NetFlow v9 has no
/// such scope type.
pub fn gap_template(kind: gap::Kind) -> Template<GapRecord> {
    let mut options = vec![kind.process()];
    options.extend_from_slice(kind.elements());
    Template::options(
        NETFLOW_9_OPTIONS + 1 + kind as u16,
        &[scope_system()],
        &options,
    )
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
    Element {
        id: 1,
        name: "System",
        value: Value::U32(|_| 0),
    }
}
