//! The format `csv`: the triplet of a finished session as flow-tools writes NetFlow v5 flows.
//!
//! Three lines when a session ends, in nfflowd's order: the pre-NAT tuple with the original counters, the post-NAT tuple
//! with the same counters, the return tuple with the reply counters. A create gives no line. The 18 fields are those of
//! `flow-export -f2 -m0xFF31EF`:
//!
//! `unix_secs,unix_nsecs,sysuptime,exaddr,dpkts,doctets,first,last,srcaddr,dstaddr,nexthop,input,output,srcport,dstport,prot,tos,tcp_flags`
//!
//! - `sysuptime`, `first` and `last` are milliseconds since boot modulo 2^32, `unix_secs` and `unix_nsecs` the time of
//!   day at `sysuptime`: what happened at `first` happened `sysuptime - first` before that. A `first` before boot or more
//!   than 49 days ago is right modulo 2^32, as in NetFlow. Where no start is known, `first` is `last`.
//! - `dpkts` and `doctets` have 32 bits in flow-tools. A larger counter is spread over as many lines of the same tuple as
//!   it takes, whose sum is exact. Without accounting they are 0.
//! - For ICMP `srcport` is the query identifier and `dstport` is type * 256 + code.
//! - `nexthop`, `input`, `output`, `tos` and `tcp_flags` are not known to conntrack and are 0. IPv6 addresses stand in the
//!   place of IPv4 ones.
//! - A gap is a comment: `# ` and the line of the format `text`. flow-tools has no field for an inferred end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;

use super::put;
use crate::session::{CounterPart, NatEvent, Tuple};
use crate::time::{BootTime, Now};

/// Calls `each` with a writer for every line of the session's end, and with whether it is the last one.
///
/// It stops when `each` breaks: a counter near 2^64 would make billions of lines.
pub(super) fn lines(
    event: &NatEvent,
    now: Now,
    exporter: IpAddr,
    mut each: impl FnMut(Line, bool) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let session = &event.session;
    let totals = event.totals.unwrap_or_default();
    let flows = [
        (session.pre_nat(), totals.original),
        (session.post_nat(), totals.original),
        (session.return_path(), totals.reply),
    ];
    let boot = BootTime::new(now);
    let template = Line {
        now,
        exporter,
        first: boot.sys_uptime(event.start.unwrap_or(event.time)),
        last: boot.sys_uptime(event.time),
        tuple: session.pre_nat(),
        counters: CounterPart {
            packets: 0,
            octets: 0,
        },
        protocol: session.protocol.0,
    };
    for (index, (tuple, counters)) in flows.into_iter().enumerate() {
        let mut parts = counters.parts();
        while let Some(counters) = parts.next() {
            let line = Line {
                tuple,
                counters,
                ..template
            };
            each(line, index == 2 && parts.len() == 0)?;
        }
    }
    ControlFlow::Continue(())
}

/// One flow, ready to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    now: Now,
    exporter: IpAddr,
    first: u32,
    last: u32,
    tuple: Tuple,
    counters: CounterPart,
    protocol: u8,
}

impl Line {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for number in [
            self.now.wall.as_secs(),
            self.now.wall.subsec_nanos().into(),
            BootTime::new(self.now).sys_uptime(self.now.wall).into(),
        ] {
            put::decimal(out, number);
            out.push(b',');
        }
        put::address(out, self.exporter);
        for number in [
            self.counters.packets.into(),
            self.counters.octets.into(),
            self.first.into(),
            self.last.into(),
        ] {
            out.push(b',');
            put::decimal(out, number);
        }
        let nexthop = match self.tuple.src {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        for address in [self.tuple.src, self.tuple.dst, nexthop] {
            out.push(b',');
            put::address(out, address);
        }
        out.extend_from_slice(b",0,0,");
        put::decimal(out, self.tuple.src_port.into());
        out.push(b',');
        put::decimal(out, self.tuple.dst_port.into());
        out.push(b',');
        put::decimal(out, self.protocol.into());
        out.extend_from_slice(b",0,0");
    }
}
