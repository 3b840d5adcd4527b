//! Blobs of the database: what was decoded decodes to the same when it is encoded again, and no flipped bit goes unnoticed.

#![no_main]

use std::net::IpAddr;

use nattrail::engine::{Baseline, Row, StoredSession};
use nattrail::place::Serial;
use nattrail::session::{
    Counters, EventKind, Gap, GapCause, NatEvent, Provenance, Record, Session, SignedCheckpoint,
    Totals,
};
use nattrail::session::{Protocol, Tuple, Zone, ZoneDirection};
use nattrail::store::codec::{Sessions, encode, seal, unseal};
use nattrail::time::Wall;
use nattrail::wire::record::Block;

libfuzzer_sys::fuzz_target!(init: nattrail_fuzz::prepare(seeds(), [""; 0]), |data: &[u8]| run(data));

fn seeds() -> Vec<Vec<u8>> {
    let (mut sessions, mut records) = (Vec::new(), Block::new(Serial(1), Vec::new()));
    let v4 = [[10, 0, 0, 1], [192, 0, 2, 1], [203, 0, 113, 9]].map(IpAddr::from);
    let v6 = [[0xfd; 16], [0x20; 16], [0x21; 16]].map(IpAddr::from);
    for (number, [inside, far, outside]) in [v4, v6].into_iter().enumerate() {
        let tuple = |src, dst| Tuple {
            src,
            dst,
            src_port: 40_000,
            dst_port: 443,
        };
        let session = Session {
            original: tuple(inside, far),
            reply: tuple(far, outside),
            protocol: Protocol::TCP,
            zone: Zone {
                id: number as u16,
                direction: ZoneDirection::Original,
            },
            id: Some(7),
            mark: number as u32,
        };
        let begun = Wall::from_secs(1_800_000_000);
        let row = Row(number as i64 + 1);
        let counters = Counters {
            packets: 300,
            octets: u64::MAX,
        };
        let totals = Totals {
            original: counters,
            reply: counters,
        };
        encode(
            &StoredSession {
                row,
                session,
                begun,
                provenance: Provenance::Inferred,
                baseline: (number == 1).then_some(Baseline {
                    time: begun,
                    totals,
                }),
            },
            &mut sessions,
        );
        for kind in [EventKind::Create, EventKind::Delete] {
            let totals = (kind == EventKind::Delete).then_some(totals);
            let provenance = Provenance::Kernel;
            records.push(&Record::Event(NatEvent {
                kind,
                session,
                time: begun,
                start: Some(begun),
                totals,
                provenance,
                end_reason: None,
                in_parts: false,
                first_mark: None,
            }));
        }
        records.push(&Record::Gap(Gap {
            cause: GapCause::Overflow,
            from: begun,
            to: begun,
            lost: Some(300),
        }));
        records.push(&Record::Checkpoint(Box::new(SignedCheckpoint {
            time: begun,
            origin: "nattrail/gw1".to_owned(),
            size: 300,
            root: [1; 32],
            signature: [2; 68],
        })));
    }
    vec![sessions, records.bytes]
}

fn run(data: &[u8]) {
    let sessions: Vec<_> = Sessions::new(data)
        .map_while(Result::ok)
        .map(|(session, _)| session)
        .collect();
    let mut blob = Vec::new();
    sessions
        .iter()
        .for_each(|session| encode(session, &mut blob));
    assert!(
        Sessions::new(&blob)
            .map(|session| session.map(|(session, _)| session))
            .eq(sessions.into_iter().map(Ok))
    );

    let read = records(&Block::new(Serial(1), data.to_vec()));
    let mut block = Block::new(Serial(1), Vec::new());
    read.iter().for_each(|record| block.push(record));
    assert_eq!(records(&block), read);

    if let Some((position, blob)) = data.split_first_chunk() {
        let mut sealed = blob.to_vec();
        seal(&mut sealed, &[1]);
        assert_eq!(unseal(&sealed, &[1]), Ok(blob));
        let position = u32::from_le_bytes(*position) as usize % (sealed.len() * 8);
        sealed[position / 8] ^= 1 << (position % 8);
        assert!(unseal(&sealed, &[1]).is_err(), "bit {position}");
    }
}

/// Those before the first that cannot be understood.
fn records(block: &Block) -> Vec<Record> {
    let mut offset = 0;
    std::iter::from_fn(|| block.record_at(&mut offset).ok().flatten()).collect()
}
