//! The HOSTNAME and the MSGID of RFC 5424, and the structured data `nsess`.
//!
//! `nsess` with MSGID SADD and SDEL is the vocabulary of draft-ietf-behave-syslog-nat-logging, which VPP speaks too:
//!
//! | parameter | value |
//! |---|---|
//! | ISADDR ISPORT | pre-NAT source: how the inside knows itself |
//! | XSADDR XSPORT | post-NAT source: how the outside knows it |
//! | XDADDR XDPORT | post-NAT destination: how the outside is known |
//! | IDADDR IDPORT | pre-NAT destination: what the inside believes it speaks to |
//! | PROTO | protocol number |
//!
//! A flow has the MSGID FLOW, `nsess` as above and a second element, `nflow`, with the fields that the format `text` has
//! behind the tuples, by the same names.
//!
//! Section 7 of the RFC reserves names without an enterprise number for IANA; the draft and VPP use the bare `nsess`, and a
//! receiver looks for that; `nflow` goes with it. For ICMP a source port is the query identifier and a destination port is
//! type * 256 + code. The TIMESTAMP is the time of the event. An inferred record has `inferred=yes` for its MSG; a gap has the MSGID GAP, a
//! checkpoint CHECKPOINT, and both have no structured data and the line of the format `text` for their MSG.

use super::fields;
use super::put::{self, Calendar};
use super::text;
use crate::session::{EventKind, NatEvent, Provenance, Record};

pub(super) const fn message_id(record: &Record) -> &'static [u8] {
    match record {
        Record::Event(event) => match event.kind {
            EventKind::Create => b"SADD",
            EventKind::Delete => b"SDEL",
            EventKind::Flow => b"FLOW",
        },
        Record::Gap(_) => b"GAP",
        Record::Checkpoint(_) => b"CHECKPOINT",
    }
}

/// MSGID, structured data and, where there is one, the message.
pub(super) fn body(out: &mut Vec<u8>, record: &Record, calendar: &mut Calendar) {
    out.extend_from_slice(message_id(record));
    match record {
        Record::Event(event) => structured_data(out, event, calendar),
        Record::Gap(_) | Record::Checkpoint(_) => {
            out.extend_from_slice(b" - ");
            text::line(out, record, calendar);
        }
    }
}

fn structured_data(out: &mut Vec<u8>, event: &NatEvent, calendar: &mut Calendar) {
    let (pre, post) = (event.session.pre_nat(), event.session.post_nat());
    out.extend_from_slice(b" [nsess");
    for (address, port, number, value) in [
        (b" ISADDR=\"", b"\" ISPORT=\"", pre.src_port, pre.src),
        (b" XSADDR=\"", b"\" XSPORT=\"", post.src_port, post.src),
        (b" XDADDR=\"", b"\" XDPORT=\"", post.dst_port, post.dst),
        (b" IDADDR=\"", b"\" IDPORT=\"", pre.dst_port, pre.dst),
    ] {
        out.extend_from_slice(address);
        put::address(out, value);
        out.extend_from_slice(port);
        put::decimal(out, number.into());
        out.push(b'"');
    }
    out.extend_from_slice(b" PROTO=\"");
    put::decimal(out, event.session.protocol.0.into());
    out.extend_from_slice(b"\"]");
    if event.kind == EventKind::Flow {
        out.extend_from_slice(b"[nflow");
        fields::visit_rest(event, &mut |key, value| {
            out.push(b' ');
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"=\"");
            text::value(out, value, calendar);
            out.push(b'"');
        });
        out.push(b']');
    }
    if event.provenance == Provenance::Inferred {
        out.extend_from_slice(b" inferred=yes");
    }
}

/// HOSTNAME: printable US-ASCII without spaces, at most 255 characters, `-` when there is none.
pub(super) fn host_name(text: &str) -> String {
    let printable = |byte: u8| {
        if byte.is_ascii_graphic() {
            byte.into()
        } else {
            '_'
        }
    };
    match text {
        "" => "-".to_owned(),
        _ => text.bytes().take(255).map(printable).collect(),
    }
}
