//! Sums by subscriber, of bounded size.
//!
//! All subscribers are counted up to a bound, which a gateway with sound sources does not reach. Beyond it those with the
//! least are forgotten, and by how much that can make the sums of the others too small is known.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::Sum;

/// So many are counted at a time, in some 25 MB.
const MOST: usize = if cfg!(test) { 8 } else { 1 << 18 };

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscribers {
    sums: HashMap<(u16, IpAddr), Sum>,
    /// By number: the first is 1.
    gateways: Vec<Rc<str>>,
    /// By so much, at most, are the sums of a subscriber too small; 0 when all were counted.
    pub short: Sum,
}

/// A subscriber and what it had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ranked {
    pub gateway: Rc<str>,
    pub address: IpAddr,
    pub sum: Sum,
}

impl Subscribers {
    /// A session of a subscriber, who is known by the number of the gateway and by the address.
    pub(super) fn add(&mut self, subscriber: (u16, IpAddr), gateway: &Rc<str>, octets: u64) {
        while self.gateways.len() < usize::from(subscriber.0) {
            self.gateways.push(gateway.clone());
        }
        self.sums.entry(subscriber).or_default().add(octets);
        if self.sums.len() > MOST {
            self.forget();
        }
    }

    /// How many there are, or at least how many when some were forgotten.
    pub fn count(&self) -> usize {
        self.sums
            .len()
            .max(if self.is_exact() { 0 } else { MOST + 1 })
    }

    pub fn is_exact(&self) -> bool {
        self.short == Sum::default()
    }

    /// Those with the most, by `rank`.
    pub fn top(&self, count: usize, rank: fn(&Sum) -> u64) -> Vec<Ranked> {
        let mut all: Vec<_> = self.sums.iter().collect();
        let key = |(subscriber, sum): &(&(u16, IpAddr), &Sum)| {
            (std::cmp::Reverse(rank(sum)), **subscriber)
        };
        if count < all.len() {
            all.select_nth_unstable_by_key(count, key);
            all.truncate(count);
        }
        all.sort_unstable_by_key(key);
        let ranked = all.into_iter().map(|(&(number, address), sum)| Ranked {
            gateway: self.gateways[usize::from(number) - 1].clone(),
            address,
            sum: *sum,
        });
        ranked.collect()
    }

    /// Forgets at least half of them: all that are neither in the upper quarter by sessions nor in that by octets.
    fn forget(&mut self) {
        let quartile = |part: fn(&Sum) -> u64| {
            let mut all: Vec<_> = self.sums.values().map(part).collect();
            let place = all.len() - all.len() / 4;
            *all.select_nth_unstable(place).1
        };
        let least = Sum {
            sessions: quartile(|sum| sum.sessions),
            octets: quartile(|sum| sum.octets),
        };
        self.sums
            .retain(|_, sum| sum.sessions > least.sessions || sum.octets > least.octets);
        self.short.sessions += least.sessions;
        self.short.octets = self.short.octets.saturating_add(least.octets);
    }
}
