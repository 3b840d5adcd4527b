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
use crate::session::{Counters, NatEvent, Tuple};
use crate::time::{Now, Wall};

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
    let template = Line {
        now,
        exporter,
        first: sys_uptime(event.start.unwrap_or(event.time), now),
        last: sys_uptime(event.time, now),
        tuple: session.pre_nat(),
        counters: Counters::default(),
        protocol: session.protocol.0,
    };
    for (index, (tuple, counters)) in flows.into_iter().enumerate() {
        let parts = parts(counters);
        for part in 0..parts {
            let line = Line {
                tuple,
                counters: Counters {
                    packets: share(counters.packets, part, parts),
                    octets: share(counters.octets, part, parts),
                },
                ..template
            };
            each(line, index == 2 && part + 1 == parts)?;
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
    counters: Counters,
    protocol: u8,
}

impl Line {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for number in [
            self.now.wall.as_secs(),
            self.now.wall.subsec_nanos().into(),
            sys_uptime(self.now.wall, self.now).into(),
        ] {
            put::decimal(out, number);
            out.push(b',');
        }
        put::address(out, self.exporter);
        for number in [
            self.counters.packets,
            self.counters.octets,
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

/// The SysUptime at `time`, by its distance from `now`: milliseconds since boot modulo 2^32.
const fn sys_uptime(time: Wall, now: Now) -> u32 {
    (now.up.as_millis() as i64).wrapping_add(put::millis_between(now.wall, time)) as u32
}

/// How many lines it takes to write both counters with 32 bits each.
fn parts(counters: Counters) -> u64 {
    const MAX: u64 = u32::MAX as u64;
    counters.packets.max(counters.octets).div_ceil(MAX).max(1)
}

/// The part of `total` that falls on line `part` of `parts`: as even as can be, and exact in the sum.
fn share(total: u64, part: u64, parts: u64) -> u64 {
    if parts == 1 {
        return total;
    }
    let up_to = |part: u64| u128::from(total) * u128::from(part) / u128::from(parts);
    // At most `total`, which has 64 bits.
    (up_to(part + 1) - up_to(part)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Uptime;

    #[test]
    fn uptime_wraps_as_in_netflow() {
        let now = Now::new(
            Wall::from_millis(1_000_000),
            Uptime::from_millis((1 << 32) + 5),
        );
        assert_eq!(sys_uptime(now.wall, now), 5);
        assert_eq!(sys_uptime(Wall::from_millis(999_990), now), u32::MAX - 4);
        assert_eq!(sys_uptime(Wall::from_millis(1_000_010), now), 15);
    }

    #[test]
    fn a_time_before_boot_is_right_modulo_the_wrap() {
        let now = Now::new(Wall::from_millis(1_000_000), Uptime::from_millis(10));
        let first = sys_uptime(Wall::from_millis(0), now);
        assert_eq!(10_u32.wrapping_sub(first), 1_000_000);
    }

    proptest! {
        #[test]
        fn shares_fit_32_bits_and_their_sum_is_exact(packets in 0_u64..1 << 44, octets in 0_u64..1 << 44) {
            let parts = parts(Counters { packets, octets });
            for total in [packets, octets] {
                let shares: Vec<u64> = (0..parts).map(|part| share(total, part, parts)).collect();
                prop_assert!(shares.iter().all(|share| *share <= u64::from(u32::MAX)));
                prop_assert_eq!(shares.iter().sum::<u64>(), total);
            }
        }
    }
}
