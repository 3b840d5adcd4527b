//! The rows that a question asks for.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::row::{Millis, Row};
use crate::config::Prefix;
use crate::session::Protocol;

/// A selection of rows. Every part that is `Some` has to match. Holds keep it as JSON.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Wanted {
    /// The session was alive at some moment of it, bounds included. One without a start may have begun at any time.
    pub alive: RangeInclusive<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The public side of SNAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_src: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_sport: Option<u16>,
    /// The subscriber.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_src: Option<Prefix>,
    /// The public side of DNAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_dst: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_dport: Option<u16>,
    /// The server, as it sees itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_dst: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_dport: Option<u16>,
    /// Only sessions whose destination is translated as well, which many files have none of.
    #[serde(default)]
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
