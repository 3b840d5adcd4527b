//! The fields of a record, as the formats `text`, `json` and `journal` name them.
//!
//! One walk feeds all three, so that a field has the same name and the same place everywhere. Scripts rely on the
//! names, which nattrail-records(7) describes: names may be added, not changed. In the journal they are upper case with
//! `NAT_` before them (`pre_src` is `NAT_PRE_SRC`).
//!
//! An unknown value has no field. The return tuple is not repeated: it is the mirror of the post-NAT tuple (for ICMP with
//! the type of the answer).

use std::net::IpAddr;

use crate::session::{
    EventKind, Gap, NatEvent, Protocol, Provenance, Record, Session, SignedCheckpoint, Tuple,
};
use crate::time::Wall;

#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Address(IpAddr),
    Base64(&'a [u8]),
    Decimal(u64),
    Hexadecimal(u32),
    /// Milliseconds.
    Duration(u64),
    Name(&'static str),
    /// The name of a log, which needs no quotes.
    Origin(&'a str),
    Protocol(Protocol),
    Time(Wall),
    Yes,
}

/// Calls `field` for every field of the record, in the order in which they are written.
#[inline]
pub(super) fn visit(record: &Record, mut field: impl FnMut(&'static str, Value<'_>)) {
    match record {
        Record::Event(event) => visit_event(event, &mut field),
        Record::Gap(gap) => visit_gap(gap, &mut field),
        Record::Checkpoint(checkpoint) => visit_checkpoint(checkpoint, &mut field),
    }
}

#[inline]
fn visit_event(event: &NatEvent, field: &mut impl FnMut(&'static str, Value<'_>)) {
    let session = &event.session;
    field("time", Value::Time(event.time));
    let name = match event.kind {
        EventKind::Create => "create",
        EventKind::Delete => "delete",
        EventKind::Flow => "flow",
    };
    field("event", Value::Name(name));
    field("nat", Value::Name(session.translation().name()));
    field("proto", Value::Protocol(session.protocol));
    visit_tuples(session, field);
    visit_rest(event, field);
    if event.provenance == Provenance::Inferred {
        field("inferred", Value::Yes);
    }
}

/// The fields behind the tuples, without the one of an inferred record.
#[inline]
pub(super) fn visit_rest(event: &NatEvent, field: &mut impl FnMut(&'static str, Value<'_>)) {
    let session = &event.session;
    if event.kind != EventKind::Create {
        visit_end(event, field);
    }
    if session.mark != 0 {
        field("mark", Value::Hexadecimal(session.mark));
    }
    if session.zone.id != 0 {
        field("zone", Value::Decimal(session.zone.id.into()));
    }
    if let Some(id) = session.id {
        field("id", Value::Decimal(id.into()));
    }
}

#[inline]
fn visit_tuples(session: &Session, field: &mut impl FnMut(&'static str, Value<'_>)) {
    let (pre, post) = (session.pre_nat(), session.post_nat());
    let names = [
        (
            pre,
            ["pre_src", "pre_sport", "pre_dst", "pre_dport", "pre_id"],
        ),
        (
            post,
            [
                "post_src",
                "post_sport",
                "post_dst",
                "post_dport",
                "post_id",
            ],
        ),
    ];
    if session.protocol.is_icmp() {
        for (tuple, [src, _, dst, _, id]) in names {
            field(src, Value::Address(tuple.src));
            field(dst, Value::Address(tuple.dst));
            field(id, Value::Decimal(tuple.src_port.into()));
        }
        let [kind, code] = pre.dst_port.to_be_bytes();
        field("icmp_type", Value::Decimal(kind.into()));
        field("icmp_code", Value::Decimal(code.into()));
        return;
    }
    let ports = has_ports(session.protocol, pre, post);
    for (tuple, [src, sport, dst, dport, _]) in names {
        field(src, Value::Address(tuple.src));
        if ports {
            field(sport, Value::Decimal(tuple.src_port.into()));
        }
        field(dst, Value::Address(tuple.dst));
        if ports {
            field(dport, Value::Decimal(tuple.dst_port.into()));
        }
    }
}

#[inline]
fn visit_end(event: &NatEvent, field: &mut impl FnMut(&'static str, Value<'_>)) {
    if let Some(start) = event.start {
        field("start", Value::Time(start));
    }
    field("end", Value::Time(event.time));
    if let Some(start) = event.start {
        // From the times as written, so that the line agrees with itself.
        let millis = event.time.as_millis().saturating_sub(start.as_millis());
        field("duration", Value::Duration(millis));
    }
    if let Some(totals) = event.totals {
        field("orig_packets", Value::Decimal(totals.original.packets));
        field("orig_octets", Value::Decimal(totals.original.octets));
        field("reply_packets", Value::Decimal(totals.reply.packets));
        field("reply_octets", Value::Decimal(totals.reply.octets));
    }
    if let Some(reason) = event.end_reason {
        field("end_reason", Value::Name(reason.name()));
    }
}

fn visit_gap(gap: &Gap, field: &mut impl FnMut(&'static str, Value<'_>)) {
    field("time", Value::Time(gap.to));
    field("event", Value::Name("gap"));
    field("cause", Value::Name(gap.cause.name()));
    field("from", Value::Time(gap.from));
    field("to", Value::Time(gap.to));
    if let Some(lost) = gap.lost {
        field("lost", Value::Decimal(lost));
    }
}

fn visit_checkpoint(
    checkpoint: &SignedCheckpoint,
    field: &mut impl FnMut(&'static str, Value<'_>),
) {
    field("time", Value::Time(checkpoint.time));
    field("event", Value::Name("checkpoint"));
    field("origin", Value::Origin(&checkpoint.origin));
    field("size", Value::Decimal(checkpoint.size));
    field("root", Value::Base64(&checkpoint.root));
    field("signature", Value::Base64(&checkpoint.signature));
}

/// Whether the ports mean anything: the kernel leaves them zero for protocols whose ports it does not know.
fn has_ports(protocol: Protocol, pre: Tuple, post: Tuple) -> bool {
    const WITH_PORTS: [Protocol; 6] = [
        Protocol::TCP,
        Protocol::UDP,
        Protocol::DCCP,
        Protocol::GRE,
        Protocol::SCTP,
        Protocol::UDPLITE,
    ];
    WITH_PORTS.contains(&protocol)
        || [pre, post]
            .iter()
            .any(|tuple| tuple.src_port != 0 || tuple.dst_port != 0)
}
