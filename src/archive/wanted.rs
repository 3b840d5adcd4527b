//! The rows that a question asks for.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::row::{Millis, Row};
use crate::config::Prefix;
use crate::session::Protocol;

/// A selection of rows. Every part that is `Some` has to match.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The session was alive at some moment of it, bounds included. One without a start may have begun at any time.
    pub alive: RangeInclusive<Millis>,
    pub protocol: Option<Protocol>,
    /// The public side of SNAT.
    pub post_src: Option<IpAddr>,
    pub post_sport: Option<u16>,
    /// The subscriber.
    pub pre_src: Option<Prefix>,
    /// The public side of DNAT.
    pub pre_dst: Option<IpAddr>,
    pub pre_dport: Option<u16>,
    /// The server, as it sees itself.
    pub post_dst: Option<IpAddr>,
    pub post_dport: Option<u16>,
    /// Only sessions whose destination is translated as well, which many files have none of.
    pub has_dnat: bool,
}

impl Wanted {
    /// Every session that was alive then.
    pub const fn alive(alive: RangeInclusive<Millis>) -> Self {
        Self {
            alive,
            protocol: None,
            post_src: None,
            post_sport: None,
            pre_src: None,
            pre_dst: None,
            pre_dport: None,
            post_dst: None,
            post_dport: None,
            has_dnat: false,
        }
    }

    pub fn accepts(&self, row: &Row) -> bool {
        let start = row.start.unwrap_or_default().min(row.end);
        start <= *self.alive.end()
            && row.end >= *self.alive.start()
            && (!self.has_dnat || row.has_dnat())
            && is(self.protocol, row.protocol)
            && is(self.post_src, row.post.src)
            && is(self.post_sport, row.post.src_port)
            && is(self.pre_dst, row.pre.dst)
            && is(self.pre_dport, row.pre.dst_port)
            && is(self.post_dst, row.post.dst)
            && is(self.post_dport, row.post.dst_port)
            && self
                .pre_src
                .is_none_or(|prefix| prefix.contains(row.pre.src))
    }
}

fn is<T: PartialEq>(wanted: Option<T>, found: T) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}
