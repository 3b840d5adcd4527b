//! Datagrams of the kernel: an entry that was decoded decodes to the same when it is encoded again.

#![no_main]

use std::net::IpAddr;

use nattrail::session::{Counters, EndReason, Protocol, Tuple, ZoneDirection};
use nattrail::wire::ctnetlink::{DumpReply, Entry, Event};
use nattrail::wire::netlink::{Message, Messages};

#[path = "../../../support/datagram.rs"]
mod datagram;

libfuzzer_sys::fuzz_target!(init: nattrail_fuzz::prepare(seeds(), [""; 0]), |data: &[u8]| run(data));

/// `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK`.
const NEW: u16 = 0x100;
const DELETE: u16 = 0x102;
const NLM_F_CREATE: u16 = 0x400;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;

/// A message of the kernel, and everything else that an entry can have.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = [datagram::NEW, datagram::DESTROY]
        .map(datagram::bytes)
        .into();
    let Some(Ok(Some(Event::Destroy(entry)))) = events(&seeds[1]).next() else {
        unreachable!("the kernel's datagram is an event");
    };
    let addresses = ["fd00::3", "2001:db8::7"].map(|text| text.parse::<IpAddr>());
    for (protocol, direction) in [
        (1, ZoneDirection::Both),
        (58, ZoneDirection::Original),
        (47, ZoneDirection::Reply),
    ] {
        let mut entry = entry;
        entry.session.protocol.0 = protocol;
        entry.session.zone.id = 7;
        entry.session.zone.direction = direction;
        entry.session.mark = 16;
        entry.is_unannounced = true;
        entry.end_reason = Some(EndReason::Idle);
        if protocol != 1
            && let [Ok(src), Ok(dst)] = addresses
        {
            (entry.session.original.src, entry.session.original.dst) = (src, dst);
            (entry.session.reply.src, entry.session.reply.dst) = (dst, src);
        }
        seeds.push(message(NEW, &payload(&entry)));
        seeds.push(message(DELETE, &payload(&entry)));
        entry.session.protocol.0 = 6;
        entry.end_reason = Some(EndReason::Detected);
        seeds.push(message(DELETE, &payload(&entry)));
    }
    // Two in one datagram, and the end of a dump.
    seeds.push([seeds[0].as_slice(), &seeds[1]].concat());
    seeds.push([message(3, &[0; 4]), message(2, &[0xff; 20])].concat());
    seeds
}

fn run(data: &[u8]) {
    for message in Messages::new(data).map_while(Result::ok) {
        let _ = DumpReply::decode(&message);
        if let Ok(Some(event)) = Event::decode(&message) {
            let (Event::New(entry) | Event::Destroy(entry)) = &event;
            let payload = payload(entry);
            let message = Message {
                payload: &payload,
                ..message
            };
            assert_eq!(Event::decode(&message), Ok(Some(event)));
        }
    }
}

fn events(
    datagram: &[u8],
) -> impl Iterator<Item = Result<Option<Event>, nattrail::wire::netlink::Malformed>> {
    Messages::new(datagram).map(|message| Event::decode(&message?))
}

fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = 16 + payload.len() as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_CREATE.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(payload);
    message
}

/// As `nf_conntrack_netlink.c` writes it.
fn payload(entry: &Entry) -> Vec<u8> {
    let session = &entry.session;
    let zone = |direction| (session.zone.direction == direction).then_some(session.zone.id);
    let mut out = vec![2, 0, 0, 0];
    let tuples = [
        (1, &session.original, ZoneDirection::Original),
        (2, &session.reply, ZoneDirection::Reply),
    ];
    for (kind, tuple, direction) in tuples {
        put(
            &mut out,
            NESTED | kind,
            &put_tuple(tuple, session.protocol.0, zone(direction)),
        );
    }
    put(
        &mut out,
        3,
        &(u32::from(entry.is_unannounced) << 12).to_be_bytes(),
    );
    // A timeout is left, or a state that TCP and SCTP have in common.
    match (entry.end_reason, session.protocol) {
        (Some(reason), Protocol::TCP | Protocol::SCTP) => {
            let mut state = Vec::new();
            let number = if reason == EndReason::Detected { 7 } else { 3 };
            put(&mut state, 1, &[number]);
            let mut nested = Vec::new();
            put(&mut nested, NESTED | 1, &state);
            put(&mut out, NESTED | 4, &nested);
        }
        (Some(_), _) => {}
        (None, _) => put(&mut out, 7, &9_u32.to_be_bytes()),
    }
    put(&mut out, 8, &session.mark.to_be_bytes());
    if let Some(totals) = entry.totals {
        for (kind, Counters { packets, octets }) in [(9, totals.original), (10, totals.reply)] {
            put(&mut out, NESTED | kind, &pair(Some(packets), Some(octets)));
        }
    }
    if let Some(id) = session.id {
        put(&mut out, 12, &id.to_be_bytes());
    }
    if let Some(id) = zone(ZoneDirection::Both) {
        put(&mut out, 18, &id.to_be_bytes());
    }
    let nanos = |time: Option<nattrail::time::Wall>| time.map(nattrail::time::Wall::as_nanos);
    put(
        &mut out,
        NESTED | 20,
        &pair(nanos(entry.start), nanos(entry.stop)),
    );
    if let Some(time) = nanos(entry.event_time) {
        put(&mut out, 27, &time.to_be_bytes());
    }
    out
}

fn put_tuple(tuple: &Tuple, protocol: u8, zone: Option<u16>) -> Vec<u8> {
    let (mut addresses, mut ports, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, address) in [(1, tuple.src), (2, tuple.dst)] {
        match address {
            IpAddr::V4(address) => put(&mut addresses, kind, &address.octets()),
            IpAddr::V6(address) => put(&mut addresses, kind + 2, &address.octets()),
        }
    }
    put(&mut ports, 1, &[protocol]);
    let [kind, code] = tuple.dst_port.to_be_bytes();
    let icmp = match protocol {
        1 => 4,
        58 => 7,
        _ => 0,
    };
    put(&mut ports, icmp.max(2), &tuple.src_port.to_be_bytes());
    if icmp > 0 {
        put(&mut ports, icmp + 1, &[kind]);
        put(&mut ports, icmp + 2, &[code]);
    } else {
        put(&mut ports, 3, &[kind, code]);
    }
    put(&mut out, NESTED | 1, &addresses);
    put(&mut out, NESTED | 2, &ports);
    if let Some(zone) = zone {
        put(&mut out, 3, &zone.to_be_bytes());
    }
    out
}

fn pair(first: Option<u64>, second: Option<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, number) in [(1, first), (2, second)] {
        if let Some(number) = number {
            put(&mut out, kind, &number.to_be_bytes());
        }
    }
    out
}

/// Appends an attribute.
fn put(out: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    out.extend((4 + payload.len() as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
}
