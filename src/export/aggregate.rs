//! Aggregation of flows: those of a window that are alike under the rules become one.
//!
//! The rules are those of the module ipt_NETFLOW (`aggregation` in its README): of the netmask rules the first that
//! matches an address holds for it, and of the port rules the first that matches a port, for source and destination alike.
//! Ports are those of TCP, UDP, UDP-Lite, SCTP and DCCP. Flows are alike when protocol, addresses and ports are equal
//! then, and so are zone and mark where the records show these. Guarantees:
//!
//! - Packets and octets add up exactly. A window ends early rather than that a sum leaves its range, or that it has more
//!   than [`MOST`] sums.
//! - A window is all or nothing: its messages but the last end before its first record, and the last one before the record
//!   after it. Whatever happens before that one is taken, all its records are aggregated again.
//! - It ends at a gap, which thus stays in its place.
//! - It ends before the record log has no more room for its records.
//!
//! The translated ends, the id and the direction of a connection have no meaning in a sum, and are left out.

use std::ops::RangeInclusive;
use std::time::Duration;

use hashbrown::HashMap;

use super::encoder::{Load, NotRepresentable};
use super::packer::{Message, Packer};
use super::queue::Queue;
use crate::config::{self, AggregationRule, Prefix, Version, values};
use crate::place::Serial;
use crate::session::{
    Counters, EndReason, EventKind, NatEvent, Protocol, Provenance, Record, Session, Totals, Tuple,
    Zone,
};
use crate::time::{Now, Uptime, Wall};
use crate::wire::flow::{Family, Flow};

/// The sums of a window. They take some 12 MiB, and leave in one turn of the loop.
const MOST: usize = 1 << 16;

/// A packer for the sums.
#[derive(Debug)]
pub struct Aggregator {
    packer: Packer,
    nets: Vec<(Prefix, u8)>,
    ports: Vec<(RangeInclusive<u16>, u16)>,
    length: Duration,
    most_records: u64,
    version: Version,
    has_zone: bool,
    window: Option<Window>,
    sums: HashMap<Key, Sum>,
    /// The record after the last one.
    next: Serial,
}

#[derive(Debug)]
struct Window {
    first: Serial,
    due: Uptime,
    /// The same by the times of the records: those of a backlog are read much faster than they came.
    until: Wall,
    /// All its counters.
    total: Counters,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    packet: Tuple,
    protocol: Protocol,
    zone: Zone,
    mark: u32,
    is_inferred: bool,
    is_counted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sum {
    counters: Counters,
    start: Option<Wall>,
    end: Wall,
    /// `None` unless all agree.
    reason: Option<EndReason>,
}

impl Aggregator {
    pub(super) fn new(packer: Packer, collector: &config::Collector) -> Self {
        let (mut nets, mut ports) = (Vec::new(), Vec::new());
        for rule in &collector.aggregation {
            match rule {
                AggregationRule::Net(prefix, kept) => nets.push((*prefix, *kept)),
                AggregationRule::Ports(range, port) => ports.push((range.clone(), *port)),
            }
        }
        Self {
            packer,
            nets,
            ports,
            length: collector.aggregation_window,
            most_records: collector.aggregation_records,
            version: collector.version,
            has_zone: collector.ingress_vrf,
            window: None,
            sums: HashMap::new(),
            next: Serial::default(),
        }
    }

    /// Adds the flow of a record to its window, or packs a gap after the window's messages.
    ///
    /// # Errors
    /// [`NotRepresentable`]; the window is without it then.
    pub(super) fn push(
        &mut self,
        records: &[Record],
        serial: Serial,
        skip: u32,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        let is_long = |window: &Window| serial.0 - window.first.0 >= self.most_records;
        if self.window.as_ref().is_some_and(is_long) {
            self.close(now, done);
        }
        let mut result = Ok(());
        let mut gap = &[][..];
        for record in records {
            match record {
                Record::Event(event) if event.is_flow() => {
                    result = self.add(event, serial, skip, now, done);
                }
                Record::Gap(_) => {
                    self.close(now, done);
                    gap = records;
                }
                _ => {}
            }
        }
        self.next = Serial(serial.0 + 1);
        if self.window.is_none() {
            // Also without a gap, the message in hand now ends after the record.
            result = result.and(self.packer.push(gap, serial, skip, now, done));
        }
        result
    }

    /// Ends the window, or finishes the message, that is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Now, done: &mut Queue<Load>) {
        if self.window.as_ref().is_some_and(|it| it.due <= now.up) {
            self.close(now, done);
        }
        self.packer.handle_timeout(now, done);
    }

    pub(super) fn poll_timeout(&self) -> Option<Uptime> {
        let window = self.window.as_ref().map(|window| window.due);
        let message = self.packer.message().poll_timeout();
        window.into_iter().chain(message).min()
    }

    /// Ends the window and finishes its last message.
    pub(super) fn flush(&mut self, now: Now, done: &mut Queue<Load>) {
        self.close(now, done);
        self.packer.message_mut().flush(now, done);
    }

    /// The first record of the window, if there is one.
    pub(super) fn first(&self) -> Option<Serial> {
        self.window.as_ref().map(|window| window.first)
    }

    /// Forgets the window, whose records come again.
    pub(super) fn forget(&mut self) {
        self.window = None;
        self.sums.clear();
    }

    pub(super) fn message(&self) -> &Message {
        self.packer.message()
    }

    pub(super) fn message_mut(&mut self) -> &mut Message {
        self.packer.message_mut()
    }

    fn add(
        &mut self,
        event: &NatEvent,
        serial: Serial,
        skip: u32,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        let (family, flows) = Flow::directions(event)?;
        if family == Family::Ipv6 && self.version == Version::NetflowV5 {
            return Err(NotRepresentable);
        }
        let totals = event.totals.unwrap_or_default();
        let both = self.sum(totals.original, totals.reply);
        let both = both.ok_or(NotRepresentable)?;
        // An output that aggregated nothing before may have sent one direction already.
        let flows = flows.iter().flatten().skip(skip as usize);
        let mut flows = flows.peekable();
        if flows.peek().is_none() {
            return Ok(());
        }
        let total = |window: &Window| self.sum(window.total, both);
        let goes_on = self.window.as_ref().filter(|window| {
            let is_in_time = now.up < window.due && event.time < window.until;
            is_in_time && self.sums.len() + 2 <= MOST
        });
        let total = match goes_on.and_then(total) {
            Some(total) => total,
            None => {
                self.close(now, done);
                both
            }
        };
        let window = self.window.get_or_insert_with(|| Window {
            first: serial,
            due: now.up.saturating_add(self.length),
            until: event.time.saturating_add(self.length),
            total,
        });
        window.total = total;
        for flow in flows {
            let key = self.key(event, flow);
            let one = Sum {
                counters: flow.forward,
                start: event.start,
                end: event.time,
                reason: event.end_reason,
            };
            let entry = self.sums.entry(key);
            entry.and_modify(|sum| sum.add(&one)).or_insert(one);
        }
        Ok(())
    }

    /// The sum, unless a record has no room for it.
    fn sum(&self, one: Counters, other: Counters) -> Option<Counters> {
        let sum = Counters {
            packets: one.packets.checked_add(other.packets)?,
            octets: one.octets.checked_add(other.octets)?,
        };
        (self.version != Version::NetflowV5 || sum.parts().is_some()).then_some(sum)
    }

    fn key(&self, event: &NatEvent, flow: &Flow) -> Key {
        let session = &event.session;
        let packet = Tuple {
            src: self.masked(flow.packet.src),
            dst: self.masked(flow.packet.dst),
            ..flow.packet
        };
        let has_mark = self.version == Version::Ipfix;
        Key {
            packet: match session.protocol {
                Protocol::TCP
                | Protocol::UDP
                | Protocol::UDPLITE
                | Protocol::SCTP
                | Protocol::DCCP => Tuple {
                    src_port: self.port(packet.src_port),
                    dst_port: self.port(packet.dst_port),
                    ..packet
                },
                _ => packet,
            },
            protocol: session.protocol,
            zone: if self.has_zone {
                session.zone
            } else {
                Zone::default()
            },
            mark: if has_mark { session.mark } else { 0 },
            is_inferred: event.provenance == Provenance::Inferred,
            is_counted: event.totals.is_some(),
        }
    }

    fn masked(&self, address: std::net::IpAddr) -> std::net::IpAddr {
        let mut rules = self.nets.iter();
        let rule = rules.find(|(prefix, _)| prefix.contains(address));
        rule.map_or(address, |(_, kept)| values::network_of(address, *kept))
    }

    fn port(&self, port: u16) -> u16 {
        let mut rules = self.ports.iter();
        let rule = rules.find(|(range, _)| range.contains(&port));
        rule.map_or(port, |(_, other)| *other)
    }

    /// Packs the sums, and finishes the last message.
    fn close(&mut self, now: Now, done: &mut Queue<Load>) {
        if let Some(window) = self.window.take() {
            let sums = self.sums.drain();
            let events = sums.map(|(key, sum)| key.event(&sum));
            self.packer
                .push_whole(events, window.first, self.next, now, done);
        }
    }
}

impl Sum {
    fn add(&mut self, other: &Self) {
        // No sum is larger than the window's total, which fits.
        self.counters.packets += other.counters.packets;
        self.counters.octets += other.counters.octets;
        self.start = self.start.zip(other.start).map(|(one, two)| one.min(two));
        self.end = self.end.max(other.end);
        self.reason = self.reason.filter(|reason| Some(*reason) == other.reason);
    }
}

impl Key {
    /// A flow in the one direction, untranslated.
    fn event(&self, sum: &Sum) -> NatEvent {
        let packet = self.packet;
        let (src_port, dst_port) = if self.protocol.is_icmp() {
            (packet.src_port, packet.dst_port)
        } else {
            (packet.dst_port, packet.src_port)
        };
        let session = Session {
            original: packet,
            reply: Tuple {
                src: packet.dst,
                dst: packet.src,
                src_port,
                dst_port,
            },
            protocol: self.protocol,
            zone: self.zone,
            id: None,
            mark: self.mark,
        };
        let provenance = if self.is_inferred {
            Provenance::Inferred
        } else {
            Provenance::Kernel
        };
        NatEvent {
            kind: EventKind::Flow,
            start: sum.start,
            totals: self.is_counted.then(|| Totals {
                original: sum.counters,
                reply: Counters::default(),
            }),
            end_reason: sum.reason,
            ..NatEvent::create(session, sum.end, provenance)
        }
    }
}

#[cfg(test)]
mod tests;
