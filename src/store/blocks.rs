//! The record log in the database: blocks of records, each under the serial of its first one.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};

use super::codec::checksum;
use super::run::{malformed, nanos};
use super::{execute, schema};
use crate::place::{Serial, Span};
use crate::time::Wall;
use crate::wire::record::Block;

/// A block in the database, without its records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stored {
    pub span: Span,
    pub octets: u64,
}

/// Writes a block, and returns how many octets it takes.
pub(super) fn insert(connection: &Connection, block: &Block) -> rusqlite::Result<u64> {
    let numbers = numbers(block);
    let [first, count, since, until] = numbers;
    let octets = block.bytes.len() as u64;
    let (size, sum) = (octets.cast_signed(), checksum(&block.bytes, &numbers));
    let values = params![first, count, since, until, size, sum, block.bytes];
    execute(connection, schema::INSERT_BLOCK, values)?;
    Ok(octets)
}

/// The block with the record `serial`, or the next one if that record is gone.
///
/// The inner result is an error when its records are damaged.
pub(super) fn read(
    connection: &Connection,
    serial: Serial,
) -> rusqlite::Result<Option<Result<Block, Span>>> {
    let mut select = connection.prepare_cached(schema::SELECT_BLOCK)?;
    let serial = serial.0.cast_signed();
    let found = select.query_row(params![serial, true], |row| {
        let stored = stored(row)?;
        let (sum, bytes): (u32, _) = (row.get(5)?, row.get_ref(6)?.as_blob()?);
        let mut block = Block::new(stored.span.first, Vec::new());
        block.count = u32::try_from(stored.span.end.0 - stored.span.first.0).unwrap_or(u32::MAX);
        (block.since, block.until) = (stored.span.since, stored.span.until);
        Ok(if checksum(bytes, &numbers(&block)) == sum {
            block.bytes.extend_from_slice(bytes);
            Ok(block)
        } else {
            Err(stored.span)
        })
    });
    match found {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            let span = |row: &Row<'_>| stored(row).map(|stored| Some(Err(stored.span)));
            select.query_row(params![serial, false], span)
        }
        found => found.optional(),
    }
}

/// The oldest blocks, at most `count` of them.
pub(super) fn oldest(connection: &Connection, count: usize) -> rusqlite::Result<Vec<Stored>> {
    let mut select = connection.prepare_cached(schema::SELECT_OLDEST)?;
    let rows = select.query_map([count as i64], stored)?;
    rows.collect()
}

pub(super) fn delete(connection: &Connection, first: Serial) -> rusqlite::Result<()> {
    execute(connection, schema::DELETE_BLOCK, [first.0.cast_signed()])
}

/// Octets of all blocks.
pub(super) fn octets(connection: &Connection) -> rusqlite::Result<u64> {
    let sum = connection.query_row(schema::SUM_OCTETS, [], |row| row.get::<_, i64>(0));
    sum.map(i64::cast_unsigned)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let (first, count) = (number(0)?, number(1)?);
    let end = first.checked_add(count).filter(|_| count > 0);
    let range = crate::wire::record::Malformed("a block of records is out of range");
    Ok(Stored {
        span: Span {
            first: Serial(first),
            end: Serial(end.ok_or_else(|| malformed(range))?),
            since: Wall::from_nanos(number(2)?),
            until: Wall::from_nanos(number(3)?),
        },
        octets: number(4)?,
    })
}

fn numbers(block: &Block) -> [i64; 4] {
    [
        block.first.0.cast_signed(),
        block.count.into(),
        nanos(block.since),
        nanos(block.until),
    ]
}
