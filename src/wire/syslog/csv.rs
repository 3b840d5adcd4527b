//! The format `csv`: the triplet of a finished session, or the flows of its traffic, as flow-tools writes NetFlow v5 flows.
//!
//! Three lines when a session ends, those of [`triplet`](crate::wire::netflow5::triplet): the pre-NAT tuple with the
//! original counters, the post-NAT tuple with the same counters, the return tuple with the reply counters. A create
//! gives no line. A copy of flows has those of [`directions`](crate::wire::netflow5::directions) instead. The 18 fields
//! are those of `flow-export -f2 -m0xFF31EF`:
//!
//! `unix_secs,unix_nsecs,sysuptime,exaddr,dpkts,doctets,first,last,srcaddr,dstaddr,nexthop,input,output,srcport,dstport,prot,tos,tcp_flags`
//!
//! - `sysuptime`, `first` and `last` are milliseconds since boot modulo 2^32, `unix_secs` and `unix_nsecs` the time of
//!   day at `sysuptime`. `first` lies `sysuptime - first` before that, even before boot, but at most
//!   [`BootTime::SPAN`], to which an older start is clamped. Where the start is not known, `first` is `last`.
//! - `dpkts` and `doctets` have 32 bits in flow-tools. A larger counter is spread over as many lines of the same tuple as
//!   it takes, no two of them alike, whose sum is exact. Without accounting they are 0.
//! - For ICMP `srcport` is the query identifier, or 0 in a flow, and `dstport` is type * 256 + code.
//! - `nexthop`, `input`, `output`, `tos` and `tcp_flags` are not known to conntrack and are 0.
//!
//! A record that flow-tools cannot hold is a comment: `# ` and the line of the format `text`, below the 1023 octets that
//! `flow-import` takes for one line. These are gaps, checkpoints, and the ends of sessions over IPv6 or with damaged counters.
//! flow-tools has no field for an inferred end.

use std::net::Ipv4Addr;

use super::put;
use crate::session::{EventKind, NatEvent};
use crate::time::{BootTime, Now};
use crate::wire::flow::NotRepresentable;
use crate::wire::netflow5::{self, Record};

/// The flows that make the lines of a delete or of a flow.
pub(super) fn flows(event: &NatEvent) -> Result<impl Iterator<Item = Record>, NotRepresentable> {
    let (triplet, directions) = match event.kind {
        EventKind::Flow => (None, Some(netflow5::directions(event)?)),
        _ => (Some(netflow5::triplet(event, true)?), None),
    };
    let triplet = triplet.into_iter().flatten();
    Ok(triplet.chain(directions.into_iter().flatten()))
}

/// The first fields of a line, which say nothing about the session.
pub(super) fn head(out: &mut Vec<u8>, now: Now, exporter: Ipv4Addr) {
    let sys_uptime = BootTime::new(now).sys_uptime(now.wall);
    let (secs, nsecs) = (now.wall.as_secs(), now.wall.subsec_nanos());
    for number in [secs, nsecs.into(), sys_uptime.into()] {
        put::decimal(out, number);
        out.push(b',');
    }
    put::address(out, exporter.into());
}

/// The other fields. `now` is that of the head.
pub(super) fn tail(out: &mut Vec<u8>, record: &Record, now: Now) {
    let boot = BootTime::new(now);
    for number in [
        record.packets,
        record.octets,
        boot.sys_uptime(record.first),
        boot.sys_uptime(record.last),
    ] {
        out.push(b',');
        put::decimal(out, number.into());
    }
    for address in [record.src, record.dst] {
        out.push(b',');
        put::address(out, address.into());
    }
    out.extend_from_slice(b",0.0.0.0,0,0,");
    put::decimal(out, record.src_port.into());
    out.push(b',');
    put::decimal(out, record.dst_port.into());
    out.push(b',');
    put::decimal(out, record.protocol.into());
    out.extend_from_slice(b",0,0");
}
