//! What the store remembers of a run besides its sessions: how far it got, and how it ended.

use std::net::SocketAddr;

use rusqlite::{Row, Statement, params};

use crate::config::{Collector, Version};
use crate::export::collector::Past;
use crate::time::Wall;

/// The run that wrote to the store last, as a later one finds it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LastRun {
    /// Until then somebody listened; `None` when nothing was ever written.
    pub last_commit: Option<Wall>,
    /// [Cookie](crate::kernel::conntrack::EventSocket::cookie) of the socket it listened with.
    pub socket: Option<u64>,
    /// Drops of that socket that were accounted for when the run ended as planned; `None` after a crash.
    pub stopped: Option<u32>,
    pub exports: Vec<Export>,
}

/// How far one collector was served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Export {
    pub address: SocketAddr,
    pub version: Version,
    pub domain: u32,
    pub past: Past,
}

impl Export {
    /// Whether this is about the collector.
    #[must_use]
    pub fn is_of(&self, collector: &Collector) -> bool {
        (self.address, self.version, self.domain)
            == (
                collector.address,
                collector.version,
                collector.observation_domain,
            )
    }
}

/// What a commit writes of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run<'a> {
    pub socket: Option<u64>,
    /// See [`LastRun::stopped`]: `Some` makes this the last commit of the run.
    pub stopped: Option<u32>,
    pub exports: &'a [Export],
}

pub(super) fn read_state(row: &Row<'_>) -> rusqlite::Result<LastRun> {
    let last_commit: Option<i64> = row.get(0)?;
    let socket: Option<i64> = row.get(1)?;
    Ok(LastRun {
        last_commit: last_commit.map(|nanos| Wall::from_nanos(nanos.cast_unsigned())),
        socket: socket.map(i64::cast_unsigned),
        stopped: row.get(2)?,
        exports: Vec::new(),
    })
}

/// Reads a row of the table `export`; the error says which column holds what no daemon writes.
pub(super) fn read_export(row: &Row<'_>) -> Result<Export, String> {
    let text: String = row.get(0).map_err(|error| error.to_string())?;
    let address = text
        .parse()
        .map_err(|_| format!("unexpected address: \"{text}\""))?;
    let version = match integer::<u8>(row, 1)? {
        5 => Version::NetflowV5,
        9 => Version::NetflowV9,
        10 => Version::Ipfix,
        other => return Err(format!("unexpected version: {other}")),
    };
    Ok(Export {
        address,
        version,
        domain: integer(row, 2)?,
        past: Past {
            port: integer(row, 3)?,
            sequence: integer(row, 4)?,
        },
    })
}

/// Binds and executes the insert.
pub(super) fn insert_export(
    statement: &mut Statement<'_>,
    export: &Export,
) -> rusqlite::Result<()> {
    let version = match export.version {
        Version::NetflowV5 => 5,
        Version::NetflowV9 => 9,
        Version::Ipfix => 10,
    };
    statement.execute(params![
        export.address.to_string(),
        version,
        export.domain,
        export.past.port,
        export.past.sequence,
    ])?;
    Ok(())
}

fn integer<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> Result<T, String> {
    let number: i64 = row.get(column).map_err(|error| error.to_string())?;
    T::try_from(number).map_err(|_| format!("unexpected number in column {column}: {number}"))
}
