//! A question to the archive: who was behind a public address at some time, or what did a subscriber or a server do.
//!
//! # Skew
//! A time in a request is that of another clock, most often in whole seconds, and records have whole milliseconds. So a
//! question looks at [`SKEW`] before and after the time as well: enough for two clocks that follow NTP and for a server
//! that logs when it answers, and too short for most gateways to give a port to somebody else.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::row::{Millis, Row};
use super::wanted::Wanted;
use crate::config::Prefix;
use crate::session::Protocol;

/// The skew unless the question has another.
pub const SKEW: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub subject: Subject,
    pub protocol: Option<Protocol>,
    /// The time as it was asked: a time in whole seconds is all of that second.
    pub time: RangeInclusive<Millis>,
    pub skew: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subject {
    /// Who used this public address, or who was reached by it (port forwarding). `to` is the other side.
    Public { at: Endpoint, to: Option<Endpoint> },
    /// Every session of these subscribers.
    Subscriber(Prefix),
    /// Every session with this server.
    Server(Endpoint),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: Option<u16>,
}

/// The side of a session that a question is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// The pre-NAT source: it began the session.
    Subscriber,
    /// The post-NAT destination: the session was forwarded to it.
    Server,
}

impl Question {
    /// The time with the skew.
    pub fn widened(&self) -> RangeInclusive<Millis> {
        let skew = u64::try_from(self.skew.as_millis()).unwrap_or(u64::MAX);
        let (from, until) = (self.time.start().get(), self.time.end().get());
        Millis::new(from.saturating_sub(skew))..=Millis::new(until.saturating_add(skew))
    }

    /// Whether it asks for one session rather than for a list.
    pub const fn is_about_one(&self) -> bool {
        matches!(self.subject, Subject::Public { .. })
    }

    /// The selections that together have every row of the answer; [`Self::role`] says which of their rows are in it.
    pub fn selections(&self) -> Vec<Wanted> {
        let any = Wanted {
            protocol: self.protocol,
            ..Wanted::alive(self.widened())
        };
        match self.subject {
            Subject::Public { at, to } => vec![
                Wanted {
                    post_src: Some(at.address),
                    post_sport: at.port,
                    post_dst: to.map(|to| to.address),
                    post_dport: to.and_then(|to| to.port),
                    ..any.clone()
                },
                Wanted {
                    pre_dst: Some(at.address),
                    pre_dport: at.port,
                    has_dnat: true,
                    pre_src: to.map(|to| host(to.address)),
                    ..any
                },
            ],
            Subject::Subscriber(prefix) => vec![Wanted {
                pre_src: Some(prefix),
                ..any
            }],
            Subject::Server(server) => vec![
                Wanted {
                    post_dst: Some(server.address),
                    post_dport: server.port,
                    ..any.clone()
                },
                Wanted {
                    pre_dst: Some(server.address),
                    pre_dport: server.port,
                    has_dnat: true,
                    ..any
                },
            ],
        }
    }

    /// The side of the session that is in the answer, whatever its times; `None` when the session is not in the answer.
    pub fn role(&self, row: &Row) -> Option<Role> {
        if self.protocol.is_some_and(|wanted| wanted != row.protocol) {
            return None;
        }
        let (pre, post) = (row.pre, row.post);
        match self.subject {
            Subject::Public { at, to } => {
                let to_fits = |address, port| to.is_none_or(|to| to.is(address, port));
                if at.is(post.src, post.src_port) && to_fits(post.dst, post.dst_port) {
                    return Some(Role::Subscriber);
                }
                let is_reached = row.has_dnat() && at.is(pre.dst, pre.dst_port);
                (is_reached && to_fits(pre.src, pre.src_port)).then_some(Role::Server)
            }
            Subject::Subscriber(prefix) => prefix.contains(pre.src).then_some(Role::Subscriber),
            Subject::Server(server) => {
                let is = server.is(post.dst, post.dst_port) || server.is(pre.dst, pre.dst_port);
                is.then_some(Role::Subscriber)
            }
        }
    }
}

impl Endpoint {
    fn is(self, address: IpAddr, port: u16) -> bool {
        self.address == address && self.port.is_none_or(|wanted| wanted == port)
    }
}

const fn host(address: IpAddr) -> Prefix {
    let length = if address.is_ipv4() { 32 } else { 128 };
    Prefix { address, length }
}
