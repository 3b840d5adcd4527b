//! The ports of one public address that are in use in each minute of a day.
//!
//! A port counts once in a minute, however many sessions to different destinations share it then. Nothing is estimated: a
//! port that is in use has a bitmap of the minutes of the day, 180 octets.

use std::mem;
use std::ops::RangeInclusive;

use super::MINUTES;
use crate::session::Protocol;

const WORDS: usize = MINUTES.div_ceil(64);
const NONE: u32 = u32::MAX;
const NUMBERS: usize = 1 << 16;

/// Ports that are counted apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Tcp,
    Udp,
    /// Identifiers of queries, of ICMP and ICMPv6.
    Icmp,
}

/// How many ports of an address were in use. Of TCP and UDP, those from 1024 on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Use {
    /// In the same minute.
    pub peak: u32,
    /// The first minute with so many.
    pub minute: usize,
    /// At any time of the day.
    pub all: u32,
}

#[derive(Debug)]
pub struct Ports {
    /// Of each kind and port, its place in `bitmaps`.
    places: Vec<u32>,
    bitmaps: Vec<[u64; WORDS]>,
    /// The kinds and ports of `bitmaps`.
    used: Vec<usize>,
    /// Of each kind and minute.
    counts: [Vec<u32>; Kind::ALL.len()],
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// How many there are: the ports from 1024 to 65535, or all identifiers.
    pub const fn available(self) -> u32 {
        match self {
            Self::Tcp | Self::Udp => 65_536 - 1024,
            Self::Icmp => 65_536,
        }
    }

    /// `None` for other protocols, and for ports below 1024: translation gives them to few sessions.
    fn of(protocol: Protocol, port: u16) -> Option<Self> {
        match protocol {
            Protocol::TCP if port >= 1024 => Some(Self::Tcp),
            Protocol::UDP if port >= 1024 => Some(Self::Udp),
            _ if protocol.is_icmp() => Some(Self::Icmp),
            _ => None,
        }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            places: vec![NONE; Kind::ALL.len() * NUMBERS],
            bitmaps: Vec::new(),
            used: Vec::new(),
            counts: std::array::from_fn(|_| vec![0; MINUTES]),
        }
    }
}

impl Ports {
    /// The port was in use in these minutes.
    pub fn add(&mut self, protocol: Protocol, port: u16, minutes: RangeInclusive<usize>) {
        let Some(kind) = Kind::of(protocol, port) else {
            return;
        };
        let number = kind as usize * NUMBERS + usize::from(port);
        if self.places[number] == NONE {
            self.places[number] = self.bitmaps.len() as u32;
            self.bitmaps.push([0; WORDS]);
            self.used.push(number);
        }
        let bitmap = &mut self.bitmaps[self.places[number] as usize];
        let counts = &mut self.counts[kind as usize];
        let (first, last) = (*minutes.start(), *minutes.end());
        for word in first / 64..=last / 64 {
            let from = first.saturating_sub(word * 64);
            let to = (last - word * 64).min(63);
            let mask = u64::MAX << from & u64::MAX >> (63 - to);
            let mut added = mask & !bitmap[word];
            bitmap[word] |= mask;
            while added != 0 {
                counts[word * 64 + added.trailing_zeros() as usize] += 1;
                added &= added - 1;
            }
        }
    }

    /// The ports that were in use, by kind. Then it begins anew.
    pub fn take(&mut self) -> [Use; Kind::ALL.len()] {
        let mut uses = [Use::default(); Kind::ALL.len()];
        for number in mem::take(&mut self.used) {
            self.places[number] = NONE;
            uses[number / NUMBERS].all += 1;
        }
        self.bitmaps.clear();
        for (it, counts) in uses.iter_mut().zip(&mut self.counts) {
            it.peak = counts.iter().copied().max().unwrap_or_default();
            let first = counts.iter().position(|count| *count == it.peak);
            it.minute = first.unwrap_or_default();
            counts.fill(0);
        }
        uses
    }
}
