//! A session as a row of the table `pending`, in the order of its columns.

use std::net::IpAddr;

use rusqlite::types::ValueRef;
use rusqlite::{Row, Statement, params};

use crate::engine::{self, Pending, StoredSession};
use crate::session::{Protocol, Provenance, Session, Tuple, Zone, ZoneDirection};
use crate::time::Wall;

/// Binds and executes the insert.
pub(super) fn insert(statement: &mut Statement<'_>, pending: &Pending) -> rusqlite::Result<()> {
    let session = &pending.session;
    let mut octets = [[0; 16]; 4];
    let [original_src, original_dst, reply_src, reply_dst] = &mut octets;
    statement.execute(params![
        pending.row.0,
        session.protocol.0,
        blob(session.original.src, original_src),
        blob(session.original.dst, original_dst),
        session.original.src_port,
        session.original.dst_port,
        blob(session.reply.src, reply_src),
        blob(session.reply.dst, reply_dst),
        session.reply.src_port,
        session.reply.dst_port,
        session.zone.id,
        session.zone.direction as u8,
        session.id,
        session.mark,
        pending.begun.as_nanos().cast_signed(),
        pending.provenance == Provenance::Inferred,
    ])?;
    Ok(())
}

/// Reads a row; the error says which column holds what no daemon writes.
pub(super) fn read(row: &Row<'_>) -> Result<StoredSession, String> {
    let tuple = |first: usize| {
        Ok::<_, String>(Tuple {
            src: address(row, first)?,
            dst: address(row, first + 1)?,
            src_port: integer(row, first + 2)?,
            dst_port: integer(row, first + 3)?,
        })
    };
    let (original, reply) = (tuple(2)?, tuple(6)?);
    if original.src.is_ipv4() != reply.src.is_ipv4() {
        return Err(format!(
            "session {}: mixed address families",
            number(row, 0)?
        ));
    }
    let direction = match integer::<u8>(row, 11)? {
        0 => ZoneDirection::Both,
        1 => ZoneDirection::Original,
        2 => ZoneDirection::Reply,
        other => return Err(unexpected(row, 11, &other.to_string())),
    };
    let id = match row.get_ref(12) {
        Ok(ValueRef::Null) => None,
        _ => Some(integer(row, 12)?),
    };
    Ok(StoredSession {
        row: engine::Row(number(row, 0)?),
        session: Session {
            original,
            reply,
            protocol: Protocol(integer(row, 1)?),
            zone: Zone {
                id: integer(row, 10)?,
                direction,
            },
            id,
            mark: integer(row, 13)?,
        },
        begun: Wall::from_nanos(integer(row, 14)?),
        provenance: match number(row, 15)? {
            0 => Provenance::Kernel,
            _ => Provenance::Inferred,
        },
    })
}

fn blob(address: IpAddr, room: &mut [u8; 16]) -> &[u8] {
    match address {
        IpAddr::V4(address) => {
            room[..4].copy_from_slice(&address.octets());
            &room[..4]
        }
        IpAddr::V6(address) => {
            *room = address.octets();
            room
        }
    }
}

fn address(row: &Row<'_>, column: usize) -> Result<IpAddr, String> {
    let bytes = match row.get_ref(column) {
        Ok(ValueRef::Blob(bytes)) => bytes,
        _ => return Err(unexpected(row, column, "no blob")),
    };
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| unexpected(row, column, &format!("{} bytes", bytes.len())))
}

pub(super) fn integer<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> Result<T, String> {
    let number = number(row, column)?;
    T::try_from(number).map_err(|_| unexpected(row, column, &number.to_string()))
}

fn number(row: &Row<'_>, column: usize) -> Result<i64, String> {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(number)) => Ok(number),
        _ => Err(unexpected(row, column, "no integer")),
    }
}

fn unexpected(row: &Row<'_>, column: usize, found: &str) -> String {
    let statement = row.as_ref();
    format!(
        "unexpected value in column {}: {found}",
        statement.column_name(column).unwrap_or("?")
    )
}
