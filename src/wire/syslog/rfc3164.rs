//! The header of RFC 3164, for a local syslog socket: `<PRI>Mmm dd hh:mm:ss TAG[PID]: `, without a host name, as the C
//! library writes it.
//!
//! The stamp is UTC. The RFC's is local time without saying which, and the C libraries disagree (musl writes UTC). rsyslog's
//! imuxsock and journald put the time of reception in its place, so it is seen only by a receiver that was told to trust
//! it, and every format but `rfc5424` says its time in full in the message itself.

use super::put::{self, Calendar};
use crate::time::Wall;

#[derive(Debug)]
pub(super) struct Header {
    priority: u8,
    /// `TAG[PID]: ` with the space before it.
    tag: Vec<u8>,
}

impl Header {
    pub(super) fn new(priority: u8, app_name: &str, pid: u32) -> Self {
        // The configuration allows only what a receiver takes for a part of the tag (section 4.1.3).
        let mut tag = vec![b' '];
        tag.extend(app_name.bytes().take(32));
        tag.push(b'[');
        put::decimal(&mut tag, pid.into());
        tag.extend_from_slice(b"]: ");
        Self { priority, tag }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, time: Wall, calendar: &mut Calendar) {
        out.push(b'<');
        put::decimal(out, self.priority.into());
        out.push(b'>');
        calendar.rfc3164(out, time);
        out.extend_from_slice(&self.tag);
    }
}
