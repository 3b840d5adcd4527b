//! The rows that hold the state of a run and the places of its outputs.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::codec::checksum;
use super::{execute, schema};
use crate::place::{Missing, Place, Position, Serial};
use crate::time::Wall;
use crate::wire::record::Malformed;

/// The run that wrote to the database last, as a later run finds it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LastRun {
    /// The end of the time in which somebody listened; `None` when nothing was ever committed.
    pub heard: Option<Wall>,
    /// [Cookie](crate::kernel::conntrack::EventSocket::cookie) of the socket that it listened with.
    pub socket: Option<u64>,
    /// Drops of that socket that were accounted for when the run ended as planned; `None` after a crash.
    pub stopped: Option<u32>,
    /// Pending sessions that the database holds.
    pub sessions: u64,
    /// The serial of the next record.
    pub next: Serial,
}

impl Default for LastRun {
    /// The state of an empty database.
    fn default() -> Self {
        Self {
            heard: None,
            socket: None,
            stopped: None,
            sessions: 0,
            next: Serial(1),
        }
    }
}

impl LastRun {
    fn numbers(&self) -> [i64; 5] {
        [
            self.heard.map_or(0, nanos),
            self.socket.map_or(-1, u64::cast_signed),
            self.stopped.map_or(-1, i64::from),
            self.sessions.cast_signed(),
            self.next.0.cast_signed(),
        ]
    }
}

pub(super) fn read(connection: &Connection) -> rusqlite::Result<LastRun> {
    let row = |row: &Row<'_>| {
        let heard: i64 = row.get(0)?;
        let run = LastRun {
            heard: (heard != 0).then(|| Wall::from_nanos(heard.cast_unsigned())),
            socket: row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned),
            stopped: row.get(2)?,
            sessions: row.get::<_, i64>(3)?.cast_unsigned(),
            next: Serial(row.get::<_, i64>(4)?.cast_unsigned()),
        };
        verify(row.get(5)?, checksum(&[], &run.numbers())).map(|()| run)
    };
    let run = connection.query_row(schema::SELECT_RUN, [], row);
    Ok(run.optional()?.unwrap_or_default())
}

pub(super) fn write(connection: &Connection, run: &LastRun) -> rusqlite::Result<()> {
    let numbers = run.numbers();
    let [heard, _, _, sessions, next] = numbers;
    let (socket, sum) = (run.socket.map(u64::cast_signed), checksum(&[], &numbers));
    let values = params![heard, socket, run.stopped, sessions, next, sum];
    execute(connection, schema::WRITE_RUN, values)
}

/// The beginning of a run in the log. A later run may number its records from below the last of an earlier one, where
/// that had not written them, or a loss of power took them back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin {
    /// When the run began, which tells it from others.
    pub run: Wall,
    pub first: Serial,
}

/// Origins that are kept.
const ORIGINS: u32 = 1000;

/// The latest runs, in their order.
pub(super) fn read_origins(connection: &Connection) -> rusqlite::Result<Vec<Origin>> {
    let mut statement = connection.prepare_cached(schema::SELECT_ORIGINS)?;
    let rows = statement.query_map([], |row| {
        let numbers: [i64; 2] = [row.get(0)?, row.get(1)?];
        verify(row.get(2)?, checksum(&[], &numbers))?;
        Ok(Origin {
            run: Wall::from_nanos(numbers[0].cast_unsigned()),
            first: Serial(numbers[1].cast_unsigned()),
        })
    })?;
    rows.collect()
}

pub(super) fn write_origin(connection: &Connection, origin: Origin) -> rusqlite::Result<()> {
    let numbers = [nanos(origin.run), origin.first.0.cast_signed()];
    let sum = checksum(&[], &numbers);
    execute(
        connection,
        schema::INSERT_ORIGIN,
        params![numbers[0], numbers[1], sum],
    )?;
    execute(connection, schema::DELETE_ORIGINS, [ORIGINS])
}

/// The place of each output, by the key that identifies the output.
pub type Places = Vec<(String, Place)>;

pub(super) fn read_places(connection: &Connection) -> rusqlite::Result<Places> {
    let mut statement = connection.prepare(schema::SELECT_OUTPUTS)?;
    let rows = statement.query_map([], |row| {
        let key: String = row.get(0)?;
        let lost: i64 = row.get(5)?;
        let place = Place {
            position: Position {
                serial: Serial(row.get::<_, i64>(1)?.cast_unsigned()),
                part: row.get(2)?,
            },
            port: row.get(3)?,
            sequence: row.get(4)?,
            missing: (lost != 0).then_some(Missing {
                count: lost.cast_unsigned(),
                since: Wall::from_nanos(row.get::<_, i64>(6)?.cast_unsigned()),
                until: Wall::from_nanos(row.get::<_, i64>(7)?.cast_unsigned()),
            }),
            refused: row.get(8)?,
        };
        verify(row.get(9)?, checksum(key.as_bytes(), &numbers(&place)))?;
        Ok((key, place))
    })?;
    rows.collect()
}

/// Writes the place of each output, instead of all earlier rows.
pub(super) fn write_places(
    connection: &Connection,
    places: &[(String, Place)],
) -> rusqlite::Result<()> {
    execute(connection, schema::DELETE_OUTPUTS, [])?;
    let mut insert = connection.prepare_cached(schema::INSERT_OUTPUT)?;
    for (key, place) in places {
        let numbers = numbers(place);
        let [serial, part, port, sequence, lost, since, until, refused] = numbers;
        let sum = checksum(key.as_bytes(), &numbers);
        insert.execute(params![
            key, serial, part, port, sequence, lost, since, until, refused, sum
        ])?;
    }
    Ok(())
}

fn numbers(place: &Place) -> [i64; 8] {
    let missing = place.missing;
    [
        place.position.serial.0.cast_signed(),
        place.position.part.into(),
        place.port.into(),
        place.sequence.into(),
        missing.map_or(0, |missing| missing.count.cast_signed()),
        missing.map_or(0, |missing| nanos(missing.since)),
        missing.map_or(0, |missing| nanos(missing.until)),
        place.refused.into(),
    ]
}

fn verify(stored: u32, computed: u32) -> rusqlite::Result<()> {
    if stored == computed {
        Ok(())
    } else {
        Err(malformed(Malformed("a checksum does not match")))
    }
}

/// As an error of the database, which [`super::Error`] takes for damage.
pub(super) fn malformed(reason: Malformed) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(reason))
}

pub(super) const fn nanos(time: Wall) -> i64 {
    time.as_nanos().cast_signed()
}
