//! The database's schema and its statements.
//!
//! `user_version` counts the migrations that were applied; they are only ever appended to. `application_id` tells the
//! file from that of another program. Sessions stand in segments ([`super::segment`]), as blobs ([`super::codec`]).
//!
//! Before a migration the database is copied to a file beside it ([`super::backup`]), for whoever has to go back to an
//! older nattrail. A database that cannot be copied is not migrated.

use std::path::Path;

use rusqlite::Connection;

use super::{Error, backup};

/// "ntrl"
pub(super) const APPLICATION_ID: i32 = 0x6e74_726c;

pub(super) const MIGRATIONS: [&str; 2] = [
    "
CREATE TABLE segment (
    first INTEGER PRIMARY KEY, -- row of its first session
    sessions BLOB NOT NULL
) STRICT;
CREATE TABLE ended (
    segment INTEGER PRIMARY KEY,
    bitmap BLOB NOT NULL -- a bit per session of the segment, the lowest of an octet first
) STRICT;
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    last_commit INTEGER
) STRICT;
INSERT INTO state (one) VALUES (1);
",
    "
ALTER TABLE state ADD COLUMN socket INTEGER; -- cookie of the event socket
ALTER TABLE state ADD COLUMN stopped INTEGER; -- drops of the socket at a planned stop, else null
CREATE TABLE export (
    address TEXT NOT NULL,
    version INTEGER NOT NULL, -- 5, 9 or 10
    domain INTEGER NOT NULL,
    port INTEGER NOT NULL, -- local
    sequence INTEGER NOT NULL
) STRICT;
",
];

pub(super) const INSERT_SEGMENT: &str = "INSERT OR REPLACE INTO segment VALUES (?, ?)";
pub(super) const DELETE_SEGMENT: &str = "DELETE FROM segment WHERE first = ?";
pub(super) const SELECT_SEGMENT: &str = "SELECT sessions FROM segment WHERE first = ?";
pub(super) const WRITE_ENDED: &str = "INSERT OR REPLACE INTO ended VALUES (?, ?)";
pub(super) const DELETE_ENDED: &str = "DELETE FROM ended WHERE segment = ?";
pub(super) const SELECT_SEGMENTS: &str =
    "SELECT first, sessions, bitmap FROM segment LEFT JOIN ended ON segment = first ORDER BY first";
pub(super) const SELECT_STATE: &str = "SELECT last_commit, socket, stopped FROM state";
pub(super) const UPDATE_STATE: &str = "UPDATE state SET last_commit = ?, socket = ?, stopped = ?";
pub(super) const SELECT_EXPORTS: &str = "SELECT * FROM export ORDER BY rowid";
pub(super) const DELETE_EXPORTS: &str = "DELETE FROM export";
pub(super) const INSERT_EXPORT: &str = "INSERT INTO export VALUES (?, ?, ?, ?, ?)";

/// A failure that does not know the file's path yet.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Refused(String),
    Backup(backup::Failure),
}

impl Failure {
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Self::Sqlite(error) => Error::of_sqlite(path, &error),
            Self::Refused(reason) => Error::Refused {
                path: path.to_owned(),
                reason,
            },
            Self::Backup(failure) => Error::Unavailable {
                path: path.to_owned(),
                reason: format!(
                    "its schema is of an earlier version, and is not changed without a copy: {failure}"
                ),
            },
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Sets the connection up for writing and applies the migrations that are missing.
pub(super) fn prepare(connection: &Connection, path: &Path) -> Result<(), Failure> {
    let version = version(connection)?;
    if (1..MIGRATIONS.len()).contains(&version) {
        let kept = backup::make(connection, path, version).map_err(Failure::Backup)?;
        log::info!(
            "pending database \"{}\": its schema goes from version {version} to {}, the file as it was is kept as \"{}\"",
            path.display(),
            MIGRATIONS.len(),
            kept.display()
        );
    }
    // Blobs of segments are large: fewer pages to link and to free. Counts for a file that is empty yet.
    connection.pragma_update(None, "page_size", 16_384)?;
    // The mode is a property of the file. A read-only one keeps its own.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;")?;
    if version == MIGRATIONS.len() {
        return Ok(());
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let migrated = migrate(connection, version);
    connection.execute_batch(if migrated.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    })?;
    Ok(migrated?)
}

/// Whether a reader understands the file.
pub(super) fn verify(connection: &Connection) -> Result<(), Failure> {
    match version(connection)? {
        0 => Err(Failure::Refused(
            "it is empty: no nattrail has written to it yet".to_owned(),
        )),
        version if version == MIGRATIONS.len() => Ok(()),
        version => Err(Failure::Refused(format!(
            "its schema is version {version}, expected {}: start the daemon once to bring it up to date",
            MIGRATIONS.len()
        ))),
    }
}

fn migrate(connection: &Connection, version: usize) -> rusqlite::Result<()> {
    for migration in &MIGRATIONS[version..] {
        connection.execute_batch(migration)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", MIGRATIONS.len() as i64)
}

/// The file's schema version; 0 for an empty one.
fn version(connection: &Connection) -> Result<usize, Failure> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if tables == 0 && version == 0 {
        return Ok(0);
    }
    if application != i64::from(APPLICATION_ID) {
        return Err(Failure::Refused(
            "it is the database of another program".to_owned(),
        ));
    }
    match usize::try_from(version) {
        Ok(version) if (1..=MIGRATIONS.len()).contains(&version) => Ok(version),
        _ => Err(Failure::Refused(format!(
            "its schema is version {version}, this nattrail knows versions up to {}: use the newer nattrail that \
             wrote it, or another pending.database",
            MIGRATIONS.len()
        ))),
    }
}
