//! Records and sessions as octets: the program's own form, in which the database keeps them.
//!
//! Little endian, addresses in network order, no padding. A session:
//!
//! | octets | |
//! |---|---|
//! | 1 | flags: 1 IPv6, 2 inferred, 4 has an id, 8 has a mark, 16 has a zone, 32 and 64 the zone's direction (0 both, 1 original, 2 reply) |
//! | 1 | protocol |
//! | 4, 4, 2 | id, mark and zone, each where the flags say so |
//! | 2 × 4 | ports: original source and destination, reply source and destination |
//! | 4 or 16 × 4 | addresses, in the same order |
//!
//! A record begins with its kind: 0 create, 1 delete, 2 gap, 3 checkpoint, 16 flow (a part of a session's traffic), 17 delete of
//! a session that is accounted in parts. Events but creates add 4 when they have a start, 8 with counters, 32 with the mark at the
//! beginning, and 64 times the reason of the end, if that is known. An event goes on with its time (8), the session, and, where
//! the kind says so, the first mark (4), the start (8) and the packets and octets of both directions (LEB128). A gap goes on with its cause (1), both times (8 each), and how many were lost, plus one (LEB128;
//! 0 when that is not known). A checkpoint goes on with its time (8), the size (LEB128), root (32), signature (68), and the
//! length of its name (1) and the name. A create of a translated IPv4 connection takes 39 octets, its delete 47 without counters and
//! 51 or more with them.
//!
//! Whatever the octets, decoding does not panic.

use std::net::IpAddr;

use crate::place::Serial;
use crate::session::{
    Counters, EndReason, EventKind, Gap, GapCause, NatEvent, Protocol, Provenance, Record, Session,
    SignedCheckpoint, Totals, Tuple, Zone, ZoneDirection,
};
use crate::time::Wall;

const IPV6: u8 = 1;
const INFERRED: u8 = 2;
const HAS_ID: u8 = 4;
const HAS_MARK: u8 = 8;
const HAS_ZONE: u8 = 16;
const DIRECTION_SHIFT: u8 = 5;

const CREATE: u8 = 0;
const DELETE: u8 = 1;
const GAP: u8 = 2;
const CHECKPOINT: u8 = 3;
const FLOW: u8 = 16;
const DELETE_IN_PARTS: u8 = 17;
const HAS_START: u8 = 4;
const HAS_TOTALS: u8 = 8;
const HAS_FIRST_MARK: u8 = 32;
const REASON_SHIFT: u8 = 6;

/// Consecutive records, in the order of their serials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    pub first: Serial,
    pub count: u32,
    /// The earliest and the latest time of any record in it.
    pub since: Wall,
    pub until: Wall,
    pub bytes: Vec<u8>,
}

impl Block {
    /// An empty block, which begins with the record `first`.
    pub const fn new(first: Serial, bytes: Vec<u8>) -> Self {
        Self {
            first,
            count: 0,
            since: Wall::from_nanos(u64::MAX),
            until: Wall::from_nanos(0),
            bytes,
        }
    }

    /// The serial after that of the last record.
    pub const fn end(&self) -> Serial {
        Serial(self.first.0 + self.count as u64)
    }

    pub fn push(&mut self, record: &Record) {
        put_record(record, &mut self.bytes);
        self.count += 1;
        self.since = self.since.min(record.since());
        self.until = self.until.max(record.time());
    }

    /// Decodes the record that begins at `offset`, and moves `offset` behind it. `None` at the end of the block.
    ///
    /// # Errors
    /// When the octets there are not those of a record.
    #[inline]
    pub fn record_at(&self, offset: &mut usize) -> Result<Option<Record>, Malformed> {
        let rest = self.bytes.get(*offset..).ok_or(Malformed("too short"))?;
        if rest.is_empty() {
            return Ok(None);
        }
        let mut reader = Reader(rest);
        let record = reader.record()?;
        *offset = self.bytes.len() - reader.0.len();
        Ok(Some(record))
    }
}

/// Octets that no daemon writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

fn put_record(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Event(event) => put_event(event, out),
        Record::Gap(gap) => {
            out.extend_from_slice(&[GAP, gap.cause as u8]);
            put_time(gap.from, out);
            put_time(gap.to, out);
            put_number(gap.lost.map_or(0, |lost| lost.saturating_add(1)), out);
        }
        Record::Checkpoint(checkpoint) => {
            out.push(CHECKPOINT);
            put_time(checkpoint.time, out);
            put_number(checkpoint.size, out);
            out.extend_from_slice(&checkpoint.root);
            out.extend_from_slice(&checkpoint.signature);
            // A name is at most 255 octets long.
            out.push(checkpoint.origin.len() as u8);
            out.extend_from_slice(checkpoint.origin.as_bytes());
        }
    }
}

fn put_event(event: &NatEvent, out: &mut Vec<u8>) {
    let kind = match event.kind {
        EventKind::Create => CREATE,
        EventKind::Delete if event.in_parts => DELETE_IN_PARTS,
        EventKind::Delete => DELETE,
        EventKind::Flow => FLOW,
    };
    // The start of a create is its time.
    let start = event.start.filter(|_| kind != CREATE);
    let flags = flag(start.is_some(), HAS_START)
        | flag(event.totals.is_some(), HAS_TOTALS)
        | flag(event.first_mark.is_some(), HAS_FIRST_MARK)
        | event.end_reason.map_or(0, |reason| reason as u8) << REASON_SHIFT;
    out.push(kind | flags);
    put_time(event.time, out);
    put_session(&event.session, event.provenance, out);
    if let Some(mark) = event.first_mark {
        out.extend_from_slice(&mark.to_le_bytes());
    }
    if let Some(start) = start {
        put_time(start, out);
    }
    if let Some(Totals { original, reply }) = event.totals {
        for counters in [original, reply] {
            put_number(counters.packets, out);
            put_number(counters.octets, out);
        }
    }
}

/// Appends a session.
pub fn put_session(session: &Session, provenance: Provenance, out: &mut Vec<u8>) {
    let flags = (session.zone.direction as u8) << DIRECTION_SHIFT
        | flag(!session.is_ipv4(), IPV6)
        | flag(provenance == Provenance::Inferred, INFERRED)
        | flag(session.id.is_some(), HAS_ID)
        | flag(session.mark != 0, HAS_MARK)
        | flag(session.zone.id != 0, HAS_ZONE);
    out.extend_from_slice(&[flags, session.protocol.0]);
    if let Some(id) = session.id {
        out.extend_from_slice(&id.to_le_bytes());
    }
    if session.mark != 0 {
        out.extend_from_slice(&session.mark.to_le_bytes());
    }
    if session.zone.id != 0 {
        out.extend_from_slice(&session.zone.id.to_le_bytes());
    }
    let tuples = [&session.original, &session.reply];
    for tuple in tuples {
        out.extend_from_slice(&tuple.src_port.to_le_bytes());
        out.extend_from_slice(&tuple.dst_port.to_le_bytes());
    }
    for address in tuples.into_iter().flat_map(|tuple| [tuple.src, tuple.dst]) {
        match address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
    }
}

const fn flag(is_set: bool, flag: u8) -> u8 {
    if is_set { flag } else { 0 }
}

fn put_time(time: Wall, out: &mut Vec<u8>) {
    out.extend_from_slice(&time.as_nanos().to_le_bytes());
}

/// LEB128: seven bits an octet, the lowest first, and no octet more than needed.
pub fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes values off the beginning of some octets.
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// Checks the length once for all four.
    fn take_four<const N: usize>(&mut self) -> Result<[[u8; N]; 4], Malformed> {
        let (chunks, _) = self.0.as_chunks();
        let four = chunks.first_chunk().ok_or(Malformed("too short"))?;
        self.0 = &self.0[4 * N..];
        Ok(*four)
    }

    #[inline]
    pub fn session(&mut self) -> Result<(Session, Provenance), Malformed> {
        let [flags, protocol] = self.take()?;
        let direction = match flags >> DIRECTION_SHIFT {
            0 => ZoneDirection::Both,
            1 => ZoneDirection::Original,
            2 => ZoneDirection::Reply,
            _ => return Err(Malformed("unknown flags of a session")),
        };
        let has = |flag| flags & flag != 0;
        let id = has(HAS_ID).then(|| self.take()).transpose()?;
        let mark = has(HAS_MARK).then(|| self.take()).transpose()?;
        let zone = has(HAS_ZONE).then(|| self.take()).transpose()?;
        let ports: [u8; 8] = self.take()?;
        let port = |index| u16::from_le_bytes([ports[2 * index], ports[2 * index + 1]]);
        let addresses: [IpAddr; 4] = if has(IPV6) {
            self.take_four::<16>()?.map(IpAddr::from)
        } else {
            self.take_four::<4>()?.map(IpAddr::from)
        };
        let tuple = |first| Tuple {
            src: addresses[first],
            dst: addresses[first + 1],
            src_port: port(first),
            dst_port: port(first + 1),
        };
        let session = Session {
            original: tuple(0),
            reply: tuple(2),
            protocol: Protocol(protocol),
            zone: Zone {
                id: zone.map_or(0, u16::from_le_bytes),
                direction,
            },
            id: id.map(u32::from_le_bytes),
            mark: mark.map_or(0, u32::from_le_bytes),
        };
        let provenance = if has(INFERRED) {
            Provenance::Inferred
        } else {
            Provenance::Kernel
        };
        Ok((session, provenance))
    }

    pub fn time(&mut self) -> Result<Wall, Malformed> {
        Ok(Wall::from_nanos(u64::from_le_bytes(self.take()?)))
    }

    #[inline]
    fn record(&mut self) -> Result<Record, Malformed> {
        let [kind] = self.take()?;
        let has = |flag| kind & flag != 0;
        let end_reason = match kind >> REASON_SHIFT {
            0 => None,
            1 => Some(EndReason::Idle),
            2 => Some(EndReason::Active),
            _ => Some(EndReason::Detected),
        };
        let is_a = kind & !(HAS_START | HAS_TOTALS | HAS_FIRST_MARK) & !(3 << REASON_SHIFT);
        let event_kind = match is_a {
            CREATE => EventKind::Create,
            DELETE | DELETE_IN_PARTS => EventKind::Delete,
            FLOW => EventKind::Flow,
            GAP if kind == GAP => return self.gap().map(Record::Gap),
            CHECKPOINT if kind == CHECKPOINT => return self.checkpoint().map(Record::Checkpoint),
            _ => return Err(Malformed("unknown kind of a record")),
        };
        let time = self.time()?;
        let (session, provenance) = self.session()?;
        let first_mark = has(HAS_FIRST_MARK).then(|| self.take()).transpose()?;
        let start = has(HAS_START).then(|| self.time()).transpose()?;
        let totals = has(HAS_TOTALS).then(|| self.totals()).transpose()?;
        Ok(Record::Event(NatEvent {
            kind: event_kind,
            session,
            time,
            start: if event_kind == EventKind::Create {
                Some(time)
            } else {
                start
            },
            totals,
            provenance,
            end_reason,
            in_parts: is_a == DELETE_IN_PARTS,
            first_mark: first_mark.map(u32::from_le_bytes),
        }))
    }

    fn gap(&mut self) -> Result<Gap, Malformed> {
        let [cause] = self.take()?;
        let cause = GapCause::ALL.into_iter().find(|one| *one as u8 == cause);
        Ok(Gap {
            cause: cause.ok_or(Malformed("unknown cause of a gap"))?,
            from: self.time()?,
            to: self.time()?,
            lost: self.number()?.checked_sub(1),
        })
    }

    fn checkpoint(&mut self) -> Result<Box<SignedCheckpoint>, Malformed> {
        let (time, size) = (self.time()?, self.number()?);
        let (root, signature) = (self.take()?, self.take()?);
        let [length] = self.take()?;
        let parts = self.0.split_at_checked(length.into());
        let (origin, rest) = parts.ok_or(Malformed("too short"))?;
        self.0 = rest;
        let origin = str::from_utf8(origin).ok();
        let origin = origin.filter(|origin| SignedCheckpoint::is_origin(origin));
        Ok(Box::new(SignedCheckpoint {
            time,
            origin: origin.ok_or(Malformed("not the name of a log"))?.to_owned(),
            size,
            root,
            signature,
        }))
    }

    pub fn totals(&mut self) -> Result<Totals, Malformed> {
        let mut counters = || {
            Ok(Counters {
                packets: self.number()?,
                octets: self.number()?,
            })
        };
        Ok(Totals {
            original: counters()?,
            reply: counters()?,
        })
    }

    /// The reverse of [`put_number`], which takes nothing that it does not write.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let [octet] = self.take()?;
            let bits = u64::from(octet & 0x7f);
            number |= bits << shift;
            if octet & 0x80 == 0 {
                let is_shortest = (octet != 0 || shift == 0) && bits << shift >> shift == bits;
                return is_shortest
                    .then_some(number)
                    .ok_or(Malformed("a number in another form"));
            }
        }
        Err(Malformed("a number that is too long"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::samples::{create, delete, sessions, snat};

    fn records() -> impl Strategy<Value = Record> {
        let provenance = prop_oneof![Just(Provenance::Kernel), Just(Provenance::Inferred)];
        let kind = prop_oneof![
            Just((EventKind::Delete, false)),
            Just((EventKind::Delete, true)),
            Just((EventKind::Flow, false)),
            Just((EventKind::Create, false)),
        ];
        let reason = prop::sample::select(vec![
            None,
            Some(EndReason::Idle),
            Some(EndReason::Active),
            Some(EndReason::Detected),
        ]);
        let counters =
            any::<(u64, u64)>().prop_map(|(packets, octets)| Counters { packets, octets });
        let totals =
            (counters.clone(), counters).prop_map(|(original, reply)| Totals { original, reply });
        let event = (
            sessions(),
            any::<(u64, Option<u64>, Option<u32>)>(),
            (kind, reason),
            option::of(totals),
            provenance,
        )
            .prop_map(
                |(session, (time, start, first_mark), kind, totals, provenance)| {
                    let ((kind, in_parts), end_reason) = kind;
                    let create = NatEvent::create(session, Wall::from_nanos(time), provenance);
                    Record::Event(match kind {
                        EventKind::Create => create,
                        _ => NatEvent {
                            kind,
                            start: start.map(Wall::from_nanos),
                            totals,
                            end_reason,
                            in_parts,
                            first_mark,
                            ..create
                        },
                    })
                },
            );
        let lost = option::of(0..u64::MAX);
        let cause = prop::sample::select(GapCause::ALL.to_vec());
        let gap = (cause, any::<(u64, u64)>(), lost).prop_map(|(cause, (from, to), lost)| {
            Record::Gap(Gap {
                cause,
                from: Wall::from_nanos(from),
                to: Wall::from_nanos(to),
                lost,
            })
        });
        let octets = any::<(u64, u64, [u8; 32], [[u8; 17]; 4])>();
        let checkpoint = ("[!#-*.-<>-Z_-z|~-]{1,255}", octets).prop_map(
            |(origin, (time, size, root, signature))| {
                Record::Checkpoint(Box::new(SignedCheckpoint {
                    time: Wall::from_nanos(time),
                    origin,
                    size,
                    root,
                    signature: signature.concat().try_into().unwrap(),
                }))
            },
        );
        prop_oneof![4 => event, 1 => gap, 1 => checkpoint]
    }

    fn decoded(block: &Block) -> Result<Vec<Record>, Malformed> {
        let mut offset = 0;
        std::iter::from_fn(|| block.record_at(&mut offset).transpose()).collect()
    }

    proptest! {
        #[test]
        fn a_block_gives_back_the_records_that_were_pushed(
            records in proptest::collection::vec(records(), 0..6)
        ) {
            let mut block = Block::new(Serial(7), Vec::new());
            records.iter().for_each(|record| block.push(record));
            prop_assert_eq!(block.end(), Serial(7 + records.len() as u64));
            prop_assert_eq!(decoded(&block), Ok(records));
        }

        #[test]
        fn random_octets_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut reader = Reader(&bytes);
            while reader.record().is_ok() {}
        }
    }

    #[test]
    fn a_block_knows_the_times_of_its_records() {
        let mut block = Block::new(Serial(1), Vec::new());
        block.push(&Record::Event(create(snat(), 5_000)));
        block.push(&Record::Gap(Gap {
            cause: GapCause::Restart,
            from: Wall::from_millis(2_000),
            to: Wall::from_millis(9_000),
            lost: None,
        }));
        let times = (block.since.as_millis(), block.until.as_millis());
        assert_eq!(times, (2_000, 9_000));
    }

    #[test]
    fn the_usual_records_take_what_the_module_says() {
        let size = |event| {
            let mut block = Block::new(Serial(1), Vec::new());
            block.push(&Record::Event(event));
            block.bytes.len()
        };
        let session = Session {
            id: Some(7),
            ..snat()
        };
        assert_eq!(size(create(session, 1_000)), 39);
        let ended = delete(session, 1_000, 2_000);
        assert_eq!(size(ended), 47);
    }
}
