//! Synthetic sessions of a carrier-grade NAT in one hour: the same ones in each run, with the spread that makes columns hard
//! to compress where real ones are (times to the millisecond, counters, ports), and with repetition where real ones have it
//! (popular servers, resolvers).

use std::net::{IpAddr, Ipv4Addr};

use nattrail::archive::row::{Millis, Row};
use nattrail::session::{Counters, Protocol, Provenance, Totals, Tuple};

pub const SUBSCRIBERS: u64 = 20_000;
pub const ADDRESSES: u64 = 64;
/// 2026-11-20T14:00:00Z.
pub const FROM: u64 = 1_795_183_200_000;
pub const HOUR: u64 = 3_600_000;

/// Servers of the web, by popularity.
const SERVERS: f64 = 60_000.0;
/// Addresses of a server farm that are one after the other.
const FARM: u64 = 16;

pub struct Cgn {
    state: u64,
    /// Whether a subscriber always has the same public address (RFC 4787 REQ-2, nftables' `persistent`).
    bound: bool,
}

impl Cgn {
    pub const fn new(bound: bool) -> Self {
        Self { state: 7, bound }
    }

    /// Sessions behind one of the public addresses, in the order in which they end.
    pub fn sessions(&mut self, address: u64, count: u64) -> Vec<Row> {
        (0..count)
            .map(|index| self.session(address, FROM + HOUR * index / count))
            .collect()
    }

    pub fn public(address: u64) -> IpAddr {
        IpAddr::from(Ipv4Addr::from(0xcb00_7100 + address as u32))
    }

    pub fn subscriber(index: u64) -> IpAddr {
        IpAddr::from(Ipv4Addr::from(0x6440_0000 + index as u32))
    }

    fn session(&mut self, address: u64, end: u64) -> Row {
        // A quarter of the subscribers has half of the sessions.
        let rank = (self.unit() * self.unit().max(0.5)).sqrt();
        let subscriber = if self.bound {
            (rank * (SUBSCRIBERS / ADDRESSES) as f64) as u64 * ADDRESSES + address
        } else {
            (rank * SUBSCRIBERS as f64) as u64
        };
        let ephemeral = if subscriber.is_multiple_of(2) {
            32_768..61_000
        } else {
            49_152..65_536
        };
        let port = self.within(ephemeral) as u16;
        let kept = self.one_in(2);
        let post_port = if kept {
            port
        } else {
            self.within(1024..65_536) as u16
        };
        let (protocol, server, life, totals) = self.exchange();
        let to = |src, src_port| Tuple {
            src,
            dst: IpAddr::from(Ipv4Addr::from(server.0)),
            src_port,
            dst_port: server.1,
        };
        Row {
            pre: to(Self::subscriber(subscriber), port),
            post: to(Self::public(address), post_port),
            protocol,
            start: (!self.one_in(1000)).then(|| Millis::new(end - life)),
            end: Millis::new(end),
            totals: Some(totals),
            mark: 0,
            zone: 0,
            provenance: if self.one_in(5000) {
                Provenance::Inferred
            } else {
                Provenance::Kernel
            },
        }
    }

    /// What a subscriber does: with which server, for how long conntrack keeps it (its time-outs included), and how much.
    fn exchange(&mut self) -> (Protocol, (u32, u16), u64, Totals) {
        // The kernel looks for sessions that have timed out every few seconds.
        let noticed = self.within(0..4_000);
        match self.within(0..100) {
            0..25 => {
                let resolvers = [
                    0x0808_0808,
                    0x0808_0404,
                    0x0101_0101,
                    0x0909_0909,
                    0x0a00_0035,
                ];
                let resolver = resolvers[self.within(0..5) as usize];
                let packets = if self.one_in(12) { 2 } else { 1 };
                let octets = (
                    packets * self.within(52..90),
                    packets * self.within(80..420),
                );
                let life = 30_000 + self.within(4..60) + noticed;
                (
                    Protocol::UDP,
                    (resolver, 53),
                    life,
                    totals(packets, packets, octets),
                )
            }
            25..70 => {
                let port = if self.one_in(12) { 80 } else { 443 };
                let life = if self.one_in(3) { 10_000 } else { 120_000 };
                let life = life + self.spread(9_000.0, 1.6, 1_500_000) + noticed;
                let (packets, answers) = self.packets(13.0);
                let octets = (
                    self.octets(packets, 52, 300),
                    self.octets(answers, 90, 1400),
                );
                (
                    Protocol::TCP,
                    (self.server(), port),
                    life,
                    totals(packets, answers, octets),
                )
            }
            70..85 => {
                let life = 120_000 + self.spread(12_000.0, 1.5, 1_500_000) + noticed;
                let (packets, answers) = self.packets(18.0);
                let octets = (
                    self.octets(packets, 70, 400),
                    self.octets(answers, 100, 1280),
                );
                (
                    Protocol::UDP,
                    (self.server(), 443),
                    life,
                    totals(packets, answers, octets),
                )
            }
            85..98 => {
                // Peers, games, calls: any address and port, often without an answer.
                let peer = (self.next() as u32, self.within(1024..65_536) as u16);
                let packets = self.within(1..4);
                let answers = if self.one_in(2) { packets } else { 0 };
                let octets = (
                    packets * self.within(48..150),
                    answers * self.within(48..400),
                );
                let protocol = if self.one_in(4) {
                    Protocol::TCP
                } else {
                    Protocol::UDP
                };
                (
                    protocol,
                    peer,
                    30_000 + self.spread(500.0, 2.0, 500_000) + noticed,
                    totals(packets, answers, octets),
                )
            }
            _ => {
                let octets = (84, 84);
                (
                    Protocol::ICMP,
                    (self.server(), 8 << 8),
                    30_000 + noticed,
                    totals(1, 1, octets),
                )
            }
        }
    }

    /// By Zipf's law.
    fn server(&mut self) -> u32 {
        let rank = SERVERS.powf(self.unit()) as u64;
        let farm = mix(rank / FARM) as u32;
        farm & !0xff | (farm & 0xf0).wrapping_add(rank as u32 % 64) & 0xff
    }

    fn packets(&mut self, median: f64) -> (u64, u64) {
        let packets = 3 + self.spread(median, 1.3, 1_000_000);
        (packets, (packets as f64 * (0.6 + self.unit())) as u64 + 1)
    }

    fn octets(&mut self, packets: u64, least: u64, most: u64) -> u64 {
        packets * least + (packets as f64 * (most - least) as f64 * self.unit()) as u64
    }

    /// Log-normal; the sum of four uniform numbers stands for the normal one.
    fn spread(&mut self, median: f64, sigma: f64, most: u64) -> u64 {
        let normal = (0..4).map(|_| self.unit()).sum::<f64>() - 2.0;
        ((median * (normal * 1.732 * sigma).exp()) as u64).min(most)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.within(0..count) == 0
    }

    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// SplitMix64.
    const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }
}

const fn totals(packets: u64, answers: u64, octets: (u64, u64)) -> Totals {
    Totals {
        original: Counters {
            packets,
            octets: octets.0,
        },
        reply: Counters {
            packets: answers,
            octets: octets.1,
        },
    }
}

const fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
