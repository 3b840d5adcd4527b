//! The sums of a day: `nattrail report` without its command line and its files.
//!
//! [`Sums`] takes sessions gateway by gateway and, of a gateway, public address by public address, as sealed files sort
//! them. Its memory does not depend on their number: 40 MB for the ports of one address, and bounded lists of
//! [subscribers](top) and addresses. What it counts is exact, unless the lists say otherwise.
//!
//! A session is *of* the day when it was alive at some time of it. Octets and sessions of protocols and subscribers are
//! those of sessions that *ended* on the day, so that the sums of days add up: only the end of a session tells its octets.

mod ports;
#[cfg(test)]
mod tests;
mod top;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;

use time::macros::format_description;
use time::{Date, OffsetDateTime};

use self::ports::Ports;
pub use self::ports::{Kind, Use};
pub use self::top::{Ranked, Subscribers};
use super::answer::Hole;
use super::proof::note::PublicKey;
use super::row::{Brief, Millis};
use super::tree::DAY;
use crate::session::Protocol;
use crate::time::Wall;

pub const MINUTES: usize = 1440;
const MINUTE: u64 = 60_000;
/// So many public addresses are listed at most.
pub const MOST_ADDRESSES: usize = 4096;

/// A day of UTC, counted since 1970.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Day(u32);

/// Sessions, and their octets as far as the kernel counted them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sum {
    pub sessions: u64,
    pub octets: u64,
}

/// The sessions of a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// Alive on the day, and those of them that began or ended on it, or were open when last heard of.
    pub sessions: u64,
    pub begun: u64,
    pub ended: Sum,
    pub open: u64,
    /// Nothing is known of the start; they count from their end on.
    pub without_start: u64,
    /// Ended on the day, without counters.
    pub uncounted: u64,
    /// Of each minute, sessions that began in it.
    pub begun_by_minute: Vec<u64>,
    /// Of each minute, sessions that were open at some time of it.
    pub open_by_minute: Vec<u64>,
    /// Those that ended on the day, the most frequent first.
    pub protocols: Vec<(Protocol, Sum)>,
    pub subscribers: Subscribers,
    /// The one with the highest peak first; at most [`MOST_ADDRESSES`].
    pub addresses: Vec<PublicAddress>,
    /// All there are.
    pub address_count: u64,
}

/// An address of a gateway that sources were translated to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicAddress {
    pub gateway: Rc<str>,
    pub address: IpAddr,
    /// Alive on the day.
    pub sessions: u64,
    /// By [`Kind`].
    pub ports: [Use; Kind::ALL.len()],
}

/// Where the sessions of a day are, and the state of its records.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// Sealed files that can have sessions of the day.
    pub files: u64,
    pub octets: u64,
    /// Sessions of the day by where they are.
    pub sealed: u64,
    pub unsealed: u64,
    pub open: u64,
    /// Sessions whose ports could not be counted, because too many were not archived yet.
    pub without_ports: u64,
    pub gateways: Vec<Rc<str>>,
    /// Reasons why sessions may be missing.
    pub holes: Vec<Hole>,
    /// Gaps on the day that hide no session, such as packets that found no free port.
    pub other_gaps: Vec<Hole>,
    pub logs: Vec<EvidenceLog>,
    /// Files that could not be read, with the reason.
    pub problems: Vec<String>,
}

/// An evidence log, by its own word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EvidenceLog {
    pub gateway: String,
    /// Size of the newest checkpoint.
    pub entries: u64,
    /// When the file of the newest checkpoint was written.
    pub written: Option<Wall>,
    /// The newest key, and when it was made.
    pub key: Option<(PublicKey, Wall)>,
}

/// Adds sessions up. They come by [`Self::begin`] of a gateway and then of an address.
#[derive(Debug)]
pub struct Sums {
    day: Day,
    totals: Totals,
    /// How many more are open in a minute than in the one before.
    opened: Vec<i64>,
    protocols: Vec<Sum>,
    gateway: Rc<str>,
    gateways: u16,
    ports: Ports,
    /// The address that sessions are added to, and how many it has.
    address: Option<(IpAddr, u64)>,
    addresses: BinaryHeap<Reverse<Listed>>,
}

/// An address by its highest peak.
#[derive(Debug, Eq, PartialEq)]
struct Listed(u32, PublicAddress);

impl Day {
    pub fn of(time: Millis) -> Self {
        // 48 bits of milliseconds are fewer days than 32 bits.
        Self((time.get() / DAY) as u32)
    }

    /// `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        let date = Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
        let seconds = date.midnight().assume_utc().unix_timestamp();
        let days = u64::try_from(seconds).ok()? * 1000 / DAY;
        u32::try_from(days).ok().map(Self)
    }

    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    pub fn range(self) -> RangeInclusive<Millis> {
        let first = u64::from(self.0) * DAY;
        Millis::new(first)..=Millis::new(first + DAY - 1)
    }

    /// The minute of a time that is on the day.
    pub fn minute(self, time: Millis) -> Option<usize> {
        let since = time.get().checked_sub(self.range().start().get())?;
        (since < DAY).then_some((since / MINUTE) as usize)
    }

    /// The minutes that an interval touches.
    pub fn minutes(self, interval: &RangeInclusive<Millis>) -> Option<RangeInclusive<usize>> {
        let (first, last) = (*self.range().start(), *self.range().end());
        let (from, to) = (first.max(*interval.start()), last.min(*interval.end()));
        Some(self.minute(from)?..=self.minute(to)?).filter(|minutes| !minutes.is_empty())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date: OffsetDateTime = self.range().start().wall().to_utc();
        write!(f, "{}", date.date())
    }
}

impl Sum {
    pub const fn add(&mut self, octets: u64) {
        self.sessions += 1;
        self.octets = self.octets.saturating_add(octets);
    }
}

impl Sums {
    pub fn new(day: Day) -> Self {
        Self {
            day,
            totals: Totals {
                sessions: 0,
                begun: 0,
                ended: Sum::default(),
                open: 0,
                without_start: 0,
                uncounted: 0,
                begun_by_minute: vec![0; MINUTES],
                open_by_minute: Vec::new(),
                protocols: Vec::new(),
                subscribers: Subscribers::default(),
                addresses: Vec::new(),
                address_count: 0,
            },
            opened: vec![0; MINUTES + 1],
            protocols: vec![Sum::default(); 256],
            gateway: "".into(),
            gateways: 0,
            ports: Ports::default(),
            address: None,
            addresses: BinaryHeap::new(),
        }
    }

    /// The sessions that come now are those of this gateway. No other comes between two calls for the same one.
    pub fn begin(&mut self, gateway: &Rc<str>) {
        if self.gateways > 0 && self.gateway == *gateway {
            return;
        }
        self.end_address();
        self.gateway = gateway.clone();
        self.gateways = self.gateways.saturating_add(1);
    }

    /// Sessions of a gateway with the same post-NAT source come one after the other.
    pub fn add(&mut self, session: &Brief) {
        let life = session.life();
        let Some(minutes) = self.day.minutes(&life) else {
            return;
        };
        self.count(session, &minutes);
        if !session.has_snat {
            return;
        }
        match &mut self.address {
            Some((address, sessions)) if *address == session.post_src => *sessions += 1,
            _ => {
                self.end_address();
                self.address = Some((session.post_src, 1));
            }
        }
        self.ports
            .add(session.protocol, session.post_sport, minutes);
    }

    /// Adds a session in any order, which the ports in use then lack.
    pub fn add_without_ports(&mut self, session: &Brief) {
        if let Some(minutes) = self.day.minutes(&session.life()) {
            self.count(session, &minutes);
        }
    }

    pub fn finish(mut self) -> Totals {
        self.end_address();
        let mut open = 0;
        let by_minute = self.opened[..MINUTES].iter().map(|more| {
            open += more;
            open.unsigned_abs()
        });
        self.totals.open_by_minute = by_minute.collect();
        let protocols = (0..=u8::MAX).map(Protocol).zip(self.protocols);
        let mut protocols: Vec<_> = protocols.filter(|(_, sum)| sum.sessions > 0).collect();
        protocols.sort_by_key(|(protocol, sum)| (Reverse(sum.sessions), protocol.0));
        self.totals.protocols = protocols;
        let addresses = self.addresses.into_sorted_vec().into_iter();
        self.totals.addresses = addresses
            .map(|Reverse(Listed(_, address))| address)
            .collect();
        self.totals
    }

    fn count(&mut self, session: &Brief, minutes: &RangeInclusive<usize>) {
        let totals = &mut self.totals;
        totals.sessions += 1;
        self.opened[*minutes.start()] += 1;
        self.opened[*minutes.end() + 1] -= 1;
        match session.start.map(|start| self.day.minute(start)) {
            Some(Some(minute)) => {
                totals.begun += 1;
                totals.begun_by_minute[minute] += 1;
            }
            Some(None) => {}
            None => totals.without_start += 1,
        }
        if session.is_open {
            totals.open += 1;
        } else if self.day.minute(session.end).is_some() {
            let octets = session.octets.unwrap_or_default();
            totals.uncounted += u64::from(session.octets.is_none());
            totals.ended.add(octets);
            self.protocols[usize::from(session.protocol.0)].add(octets);
            if session.has_snat {
                let subscriber = (self.gateways, session.pre_src);
                totals.subscribers.add(subscriber, &self.gateway, octets);
            }
        }
    }

    fn end_address(&mut self) {
        let Some((address, sessions)) = self.address.take() else {
            return;
        };
        self.totals.address_count += 1;
        let ports = self.ports.take();
        let peak = ports.iter().map(|it| it.peak).max().unwrap_or_default();
        let gateway = self.gateway.clone();
        let address = PublicAddress {
            gateway,
            address,
            sessions,
            ports,
        };
        self.addresses.push(Reverse(Listed(peak, address)));
        if self.addresses.len() > MOST_ADDRESSES {
            self.addresses.pop();
        }
    }
}

impl Ord for Listed {
    /// The larger is the more used one, or the first of several.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |Self(peak, it): &Self| {
            (
                *peak,
                it.sessions,
                Reverse(it.address),
                Reverse(it.gateway.clone()),
            )
        };
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
