//! The records that tshark and nfdump must read in the daemon's messages, according to conntrack.
//!
//! Names and spellings are the decoders' own: tshark's display filter fields, nfdump's JSON members. nfdump shows less
//! than tshark; it omits the same fields, or gets them wrong, with every exporter:
//!
//! - ICMP has no ports there, and its type comes from the source port (v5, IPFIX) or is missing (v9)
//! - its v9 reader takes the time of the event as the start of the session (since 1.7.5)
//! - its IPFIX reader knows neither the post-NAT addresses of IPv6 nor the counters of both directions

use std::net::IpAddr;

use super::collector::Decoded;
use super::conntrack::{Flow, Kind, Packet, Side};
use super::packet;

/// An event of conntrack's, and the daemon's time for it, which is verified elsewhere.
#[derive(Clone, Debug)]
pub struct Event {
    pub flow: Flow,
    /// Milliseconds since 1970.
    pub time: u64,
}

impl Event {
    fn is_end(&self) -> bool {
        self.flow.kind == Kind::Destroy
    }

    fn is_ipv4(&self) -> bool {
        self.flow.original.src.is_ipv4()
    }
}

/// The two versions with templates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Templated {
    V9,
    Ipfix,
}

/// A NAT event in v9 or IPFIX as tshark shows it, with RFC 8158's values.
#[must_use]
pub fn tshark_event(event: &Event) -> Decoded {
    let (pre, post) = (event.flow.pre_nat(), event.flow.post_nat());
    let mut record = Decoded::new();
    put(
        &mut record,
        "cflow.observation_time_milliseconds",
        event.time,
    );
    put(&mut record, "cflow.nat_event", nat_event(event));
    put(&mut record, "cflow.protocol", event.flow.protocol);
    tshark_packet(&mut record, &pre);
    let names = if event.is_ipv4() {
        [
            "cflow.post_natsource_ipv4_address",
            "cflow.post_natdestination_ipv4_address",
        ]
    } else {
        [
            "cflow.post_nat_source_ipv6_address",
            "cflow.post_nat_destination_ipv6_address",
        ]
    };
    put(&mut record, names[0], post.src);
    put(&mut record, names[1], post.dst);
    put(
        &mut record,
        "cflow.post_naptsource_transport_port",
        post.src_port,
    );
    put(
        &mut record,
        "cflow.post_naptdestination_transport_port",
        post.dst_port,
    );
    if event.is_end() {
        let Flow {
            original, reply, ..
        } = &event.flow;
        tshark_times(&mut record, event);
        put(
            &mut record,
            "cflow.initiator_octets",
            original.octets.unwrap(),
        );
        put(
            &mut record,
            "cflow.initiator_packets",
            original.packets.unwrap(),
        );
        put(&mut record, "cflow.responder_octets", reply.octets.unwrap());
        put(
            &mut record,
            "cflow.responder_packets",
            reply.packets.unwrap(),
        );
    }
    record
}

/// The three flows of a finished session in v9 or IPFIX as tshark shows them; none for a create.
#[must_use]
pub fn tshark_triplet(event: &Event) -> Vec<Decoded> {
    triplet(event)
        .into_iter()
        .map(|(packet, counters)| {
            let mut record = Decoded::new();
            tshark_packet(&mut record, &packet);
            put(&mut record, "cflow.protocol", event.flow.protocol);
            put(&mut record, "cflow.octets", counters.octets.unwrap());
            put(&mut record, "cflow.packets", counters.packets.unwrap());
            tshark_times(&mut record, event);
            record
        })
        .collect()
}

/// The dummy flows of an event in NetFlow v5 as tshark shows them: one per translation, none for IPv6.
#[must_use]
pub fn tshark_v5_dummies(event: &Event) -> Vec<Decoded> {
    v5_dummies(event)
        .into_iter()
        .map(|dummy| {
            let flags = if event.is_end() { "0x05" } else { "0x12" };
            let mut record = tshark_v5(&dummy.packet, event, flags);
            put(&mut record, "cflow.nexthop", dummy.next_hop);
            put(&mut record, "cflow.srcas", dummy.src_as);
            put(&mut record, "cflow.dstas", dummy.dst_as);
            put(&mut record, "cflow.packets", 0);
            put(&mut record, "cflow.octets", 0);
            put(&mut record, "cflow.timestart", event.time);
            put(&mut record, "cflow.timeend", event.time);
            record
        })
        .collect()
}

/// The three flows of a finished session in NetFlow v5 as tshark shows them.
#[must_use]
pub fn tshark_v5_triplet(event: &Event) -> Vec<Decoded> {
    if !event.is_ipv4() {
        return Vec::new();
    }
    triplet(event)
        .into_iter()
        .map(|(packet, counters)| {
            let mut record = tshark_v5(&packet, event, "0x00");
            put(&mut record, "cflow.nexthop", "0.0.0.0");
            put(&mut record, "cflow.srcas", 0);
            put(&mut record, "cflow.dstas", 0);
            put(&mut record, "cflow.packets", counters.packets.unwrap());
            put(&mut record, "cflow.octets", counters.octets.unwrap());
            put(
                &mut record,
                "cflow.timestart",
                event.flow.start.unwrap() / 1_000_000,
            );
            put(
                &mut record,
                "cflow.timeend",
                event.flow.stop.unwrap() / 1_000_000,
            );
            record
        })
        .collect()
}

/// A NAT event as nfdump shows it.
#[must_use]
pub fn nfdump_event(event: &Event, version: Templated) -> Decoded {
    let (pre, post) = (event.flow.pre_nat(), event.flow.post_nat());
    let mut record = Decoded::new();
    nfdump_packet(&mut record, &pre, event.flow.protocol);
    put(&mut record, "nat_event_id", nat_event(event));
    put(&mut record, "t_event", event.time);
    if event.is_ipv4() || version == Templated::V9 {
        let digit = if event.is_ipv4() { 4 } else { 6 };
        put(&mut record, &format!("src{digit}_xlt_ip"), post.src);
        put(&mut record, &format!("dst{digit}_xlt_ip"), post.dst);
    }
    put(&mut record, "src_xlt_port", post.src_port);
    put(&mut record, "dst_xlt_port", post.dst_port);
    if event.is_end() {
        nfdump_times(&mut record, event);
    }
    if event.is_end() && version == Templated::V9 {
        record.remove("first");
        nfdump_counters(&mut record, "in", &event.flow.original);
        nfdump_counters(&mut record, "out", &event.flow.reply);
    }
    record
}

/// The three flows of a finished session as nfdump shows them, in any version.
#[must_use]
pub fn nfdump_triplet(event: &Event) -> Vec<Decoded> {
    triplet(event)
        .into_iter()
        .map(|(packet, counters)| {
            let mut record = Decoded::new();
            nfdump_packet(&mut record, &packet, event.flow.protocol);
            nfdump_times(&mut record, event);
            nfdump_counters(&mut record, "in", counters);
            record
        })
        .collect()
}

/// The dummy flows of an event in NetFlow v5 as nfdump shows them.
#[must_use]
pub fn nfdump_v5_dummies(event: &Event) -> Vec<Decoded> {
    v5_dummies(event)
        .into_iter()
        .map(|dummy| {
            let mut record = Decoded::new();
            nfdump_packet(&mut record, &dummy.packet, event.flow.protocol);
            put(&mut record, "ip4_next_hop", dummy.next_hop);
            put(&mut record, "src_as", dummy.src_as);
            put(&mut record, "dst_as", dummy.dst_as);
            put(&mut record, "in_packets", 0);
            put(&mut record, "in_bytes", 0);
            put(&mut record, "first", event.time);
            put(&mut record, "last", event.time);
            if event.flow.protocol != packet::ICMP {
                let flags = if event.is_end() {
                    ".....R.F"
                } else {
                    "...A..S."
                };
                put(&mut record, "tcp_flags", flags);
            }
            record
        })
        .collect()
}

/// The fields of a dummy flow besides its times.
struct Dummy {
    packet: Packet,
    next_hop: IpAddr,
    src_as: u16,
    dst_as: u16,
}

fn v5_dummies(event: &Event) -> Vec<Dummy> {
    let (pre, post) = (event.flow.pre_nat(), event.flow.post_nat());
    if !event.is_ipv4() {
        return Vec::new();
    }
    let packet = Packet {
        src: pre.src,
        src_port: pre.src_port,
        dst: post.dst,
        dst_port: post.dst_port,
    };
    let nat = event.flow.nat();
    let snat = nat.contains("snat").then_some(Dummy {
        packet,
        next_hop: post.src,
        src_as: post.src_port,
        dst_as: 0,
    });
    let dnat = nat.contains("dnat").then_some(Dummy {
        packet,
        next_hop: pre.dst,
        src_as: 0,
        dst_as: pre.dst_port,
    });
    [snat, dnat].into_iter().flatten().collect()
}

fn triplet(event: &Event) -> Vec<(Packet, &Side)> {
    if !event.is_end() {
        return Vec::new();
    }
    let flow = &event.flow;
    vec![
        (flow.pre_nat(), &flow.original),
        (flow.post_nat(), &flow.original),
        (flow.return_path(), &flow.reply),
    ]
}

/// RFC 8158 has values only for sessions of NAT44.
fn nat_event(event: &Event) -> u8 {
    match (event.is_ipv4(), event.is_end()) {
        (true, false) => 4,
        (true, true) => 5,
        (false, false) => 1,
        (false, true) => 2,
    }
}

fn tshark_v5(packet: &Packet, event: &Event, flags: &str) -> Decoded {
    let mut record = Decoded::new();
    tshark_packet(&mut record, packet);
    put(&mut record, "cflow.protocol", event.flow.protocol);
    put(&mut record, "cflow.tcpflags", flags);
    // These fields are unknown to conntrack.
    for name in ["inputint", "outputint", "srcmask", "dstmask"] {
        put(&mut record, &format!("cflow.{name}"), 0);
    }
    put(&mut record, "cflow.tos", "0x00");
    record
}

fn tshark_packet(record: &mut Decoded, packet: &Packet) {
    let suffix = if packet.src.is_ipv4() { "" } else { "v6" };
    put(record, &format!("cflow.srcaddr{suffix}"), packet.src);
    put(record, &format!("cflow.dstaddr{suffix}"), packet.dst);
    put(record, "cflow.srcport", packet.src_port);
    put(record, "cflow.dstport", packet.dst_port);
}

fn tshark_times(record: &mut Decoded, event: &Event) {
    let Flow { start, stop, .. } = event.flow;
    put(record, "cflow.abstimestart", start.unwrap() / 1_000_000);
    put(record, "cflow.abstimeend", stop.unwrap() / 1_000_000);
}

fn nfdump_packet(record: &mut Decoded, packet: &Packet, protocol: u8) {
    let digit = if packet.src.is_ipv4() { 4 } else { 6 };
    put(record, "proto", protocol);
    put(record, &format!("src{digit}_addr"), packet.src);
    put(record, &format!("dst{digit}_addr"), packet.dst);
    if !matches!(protocol, packet::ICMP | packet::ICMPV6) {
        put(record, "src_port", packet.src_port);
        put(record, "dst_port", packet.dst_port);
    }
}

fn nfdump_times(record: &mut Decoded, event: &Event) {
    let Flow { start, stop, .. } = event.flow;
    put(record, "first", start.unwrap() / 1_000_000);
    put(record, "last", stop.unwrap() / 1_000_000);
}

fn nfdump_counters(record: &mut Decoded, direction: &str, side: &Side) {
    put(
        record,
        &format!("{direction}_packets"),
        side.packets.unwrap(),
    );
    put(record, &format!("{direction}_bytes"), side.octets.unwrap());
}

fn put(record: &mut Decoded, name: &str, value: impl ToString) {
    record.insert(name.to_owned(), value.to_string());
}
