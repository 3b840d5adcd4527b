//! Blobs of the database: pending sessions as octets, and the checksum that every blob and row ends with.
//!
//! A pending session is its row (8 octets, little endian), when it began (8, nanoseconds since 1970) and the session as
//! [`crate::wire::record`] writes it: 46 octets in all for IPv4 with an id. If it is accounted in parts, the highest bit of
//! the row is set, and its baseline follows: the time (8), and packets and octets of both directions (LEB128).
//!
//! The checksum is a CRC-32 over the key of the row and all its values. SQLite finds damage to its own structure, but not to
//! the values: one flipped bit in an address would make somebody else's session end.

use crate::engine::{Baseline, Row, StoredSession};
use crate::wire::record::{Malformed, Reader, put_number, put_session};

/// The highest row of an earlier run: those of this run have to lie above, and no daemon counts that far.
const LAST_ROW: i64 = i64::MAX / 2;

/// In a row: whether the session has a baseline.
const HAS_BASELINE: i64 = i64::MIN;

const CHECKSUM_LEN: usize = 4;

/// Appends the session to `out`.
pub fn encode(stored: &StoredSession, out: &mut Vec<u8>) {
    let flag = stored.baseline.map_or(0, |_| HAS_BASELINE);
    out.extend_from_slice(&(stored.row.0 | flag).to_le_bytes());
    out.extend_from_slice(&stored.begun.as_nanos().to_le_bytes());
    put_session(&stored.session, stored.provenance, out);
    if let Some(Baseline { time, totals }) = stored.baseline {
        out.extend_from_slice(&time.as_nanos().to_le_bytes());
        for counters in [totals.original, totals.reply] {
            put_number(counters.packets, out);
            put_number(counters.octets, out);
        }
    }
}

/// The sessions of a blob, each with its octets. The first undecodable one ends the iteration, with a reason.
pub struct Sessions<'a> {
    rest: &'a [u8],
}

impl<'a> Sessions<'a> {
    pub const fn new(blob: &'a [u8]) -> Self {
        Self { rest: blob }
    }
}

impl<'a> Iterator for Sessions<'a> {
    type Item = Result<(StoredSession, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut reader = Reader(self.rest);
        let decoded = decode(&mut reader);
        let (bytes, rest) = self.rest.split_at(self.rest.len() - reader.0.len());
        self.rest = if decoded.is_ok() { rest } else { &[] };
        Some(decoded.map(|session| (session, bytes)))
    }
}

fn decode(reader: &mut Reader<'_>) -> Result<StoredSession, Malformed> {
    let first = i64::from_le_bytes(reader.take()?);
    let row = first & !HAS_BASELINE;
    if !(0..=LAST_ROW).contains(&row) {
        return Err(Malformed("the number of a session is out of range"));
    }
    let begun = reader.time()?;
    let (session, provenance) = reader.session()?;
    let mut baseline = || {
        Ok(Baseline {
            time: reader.time()?,
            totals: reader.totals()?,
        })
    };
    let baseline = (first < 0).then(&mut baseline).transpose()?;
    Ok(StoredSession {
        row: Row(row),
        session,
        begun,
        provenance,
        baseline,
    })
}

/// Appends the checksum of the blob and of the numbers beside it in its row.
pub fn seal(blob: &mut Vec<u8>, beside: &[i64]) {
    let sum = checksum(blob, beside);
    blob.extend_from_slice(&sum.to_le_bytes());
}

/// The blob without its checksum.
///
/// # Errors
/// When the checksum does not match.
pub fn unseal<'a>(sealed: &'a [u8], beside: &[i64]) -> Result<&'a [u8], Malformed> {
    let length = sealed.len().checked_sub(CHECKSUM_LEN);
    let (blob, sum) = sealed.split_at(length.ok_or(Malformed("its checksum is missing"))?);
    if sum == checksum(blob, beside).to_le_bytes() {
        Ok(blob)
    } else {
        Err(Malformed("its checksum does not match"))
    }
}

/// The checksum of a row: of its text or blob, and of its numbers.
pub(super) fn checksum(blob: &[u8], numbers: &[i64]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(blob);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::session::{Counters, Provenance, Totals};
    use crate::time::Wall;
    use crate::wire::samples::sessions;

    fn stored() -> impl Strategy<Value = StoredSession> {
        let rest = (0..=LAST_ROW, any::<u64>(), any::<bool>());
        let baseline = any::<Option<(u64, [u64; 4])>>().prop_map(|some| {
            some.map(
                |(time, [packets, octets, reply_packets, reply_octets])| Baseline {
                    time: Wall::from_nanos(time),
                    totals: Totals {
                        original: Counters { packets, octets },
                        reply: Counters {
                            packets: reply_packets,
                            octets: reply_octets,
                        },
                    },
                },
            )
        });
        (sessions(), rest, baseline).prop_map(|(session, (row, begun, inferred), baseline)| {
            StoredSession {
                row: Row(row),
                session,
                begun: Wall::from_nanos(begun),
                provenance: if inferred {
                    Provenance::Inferred
                } else {
                    Provenance::Kernel
                },
                baseline,
            }
        })
    }

    proptest! {
        #[test]
        fn sessions_come_back_as_they_were_encoded(
            sessions in proptest::collection::vec(stored(), 0..5)
        ) {
            let mut blob = Vec::new();
            for session in &sessions {
                encode(session, &mut blob);
            }
            let decoded: Vec<_> = Sessions::new(&blob).map(|session| session.unwrap().0).collect();
            prop_assert_eq!(decoded, sessions);
        }

        #[test]
        fn random_octets_never_panic(blob in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Sessions::new(&blob).count();
        }

        #[test]
        fn one_flipped_bit_is_found_wherever_it_is(
            blob in proptest::collection::vec(any::<u8>(), 0..64), key: i64, bit: prop::sample::Index
        ) {
            let mut sealed = blob.clone();
            seal(&mut sealed, &[key]);
            prop_assert_eq!(unseal(&sealed, &[key]), Ok(blob.as_slice()));
            prop_assert!(unseal(&sealed, &[key ^ 1]).is_err());
            let bit = bit.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(unseal(&sealed, &[key]).is_err());
        }
    }
}
