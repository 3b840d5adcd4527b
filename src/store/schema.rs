//! The database's schema and its statements.
//!
//! `application_id` and `user_version` in the file's header tell it from the databases of other programs and versions. No
//! checksum covers that header, so the table `run` repeats the version, and a flipped bit in the header is corrected.
//!
//! Sessions are stored in segments ([`super::segment`]) and records in blocks, both as blobs. With a row for each,
//! sqlite3 could show them, but the whole daemon would take twice the CPU (measured: 8.3 instead of 4.1 µs per
//! connection); `nattrail pending` prints the sessions instead.

use rusqlite::Connection;

use super::Error;

/// "ntrl"
pub(super) const APPLICATION_ID: i64 = 0x6e74_726c;
/// The version that this nattrail writes.
const VERSION: i64 = 5;

const TABLES: &str = "
CREATE TABLE segment (
    first INTEGER PRIMARY KEY, -- number of its first session
    sessions BLOB NOT NULL
) STRICT;
CREATE TABLE ended (
    segment INTEGER PRIMARY KEY,
    bitmap BLOB NOT NULL -- a bit per session of the segment, the lowest of an octet first
) STRICT;
CREATE TABLE log (
    first INTEGER PRIMARY KEY, -- serial of its first record
    count INTEGER NOT NULL,
    since INTEGER NOT NULL, -- the earliest and the latest time of a record, nanoseconds since 1970
    until INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    records BLOB NOT NULL
) STRICT;
CREATE TABLE output (
    key TEXT PRIMARY KEY,
    serial INTEGER NOT NULL, -- the record that it takes next
    part INTEGER NOT NULL, -- messages of that record that it has taken
    port INTEGER NOT NULL, -- local
    sequence INTEGER NOT NULL,
    lost INTEGER NOT NULL, -- records that it has not been told of yet: how many, and of when
    lost_from INTEGER NOT NULL,
    lost_to INTEGER NOT NULL,
    refused INTEGER NOT NULL, -- 1 when its host refused the last message, else 0
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE run (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL, -- of this schema
    heard INTEGER NOT NULL, -- until then the kernel was listened to; 0 before the first commit
    socket INTEGER, -- cookie of the event socket
    stopped INTEGER, -- drops of the socket at a planned stop, else null
    sessions INTEGER NOT NULL, -- pending ones
    serial INTEGER NOT NULL, -- of the next record
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE origin ( -- the latest runs
    number INTEGER PRIMARY KEY, -- in their order
    run INTEGER NOT NULL, -- when it began, nanoseconds since 1970, which tells it from the others
    first INTEGER NOT NULL, -- serial of its first record
    checksum INTEGER NOT NULL
) STRICT;
";

pub(super) const INSERT_SEGMENT: &str = "INSERT OR REPLACE INTO segment VALUES (?, ?)";
pub(super) const DELETE_SEGMENT: &str = "DELETE FROM segment WHERE first = ?";
pub(super) const SELECT_SEGMENT: &str = "SELECT sessions FROM segment WHERE first = ?";
pub(super) const WRITE_ENDED: &str = "INSERT OR REPLACE INTO ended VALUES (?, ?)";
pub(super) const DELETE_ENDED: &str = "DELETE FROM ended WHERE segment = ?";
pub(super) const SELECT_SEGMENTS: &str =
    "SELECT first, sessions, bitmap FROM segment LEFT JOIN ended ON segment = first ORDER BY first";
pub(super) const INSERT_BLOCK: &str = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)";
/// The block of a record, or the next one if that record is gone. The records, which may be on damaged pages, are read
/// only on demand.
pub(super) const SELECT_BLOCK: &str = "
SELECT first, count, since, until, octets, checksum, CASE WHEN ?2 THEN records END FROM log
WHERE first >= coalesce((SELECT max(first) FROM log WHERE first <= ?1), 0) AND first + count > ?1 ORDER BY first LIMIT 1";
pub(super) const SELECT_OLDEST: &str =
    "SELECT first, count, since, until, octets FROM log ORDER BY first LIMIT ?";
pub(super) const DELETE_BLOCK: &str = "DELETE FROM log WHERE first = ?";
pub(super) const DELETE_BLOCKS: &str = "DELETE FROM log";
pub(super) const SUM_OCTETS: &str = "SELECT coalesce(sum(octets), 0) FROM log";
pub(super) const SELECT_OUTPUTS: &str = "SELECT * FROM output ORDER BY rowid";
pub(super) const DELETE_OUTPUTS: &str = "DELETE FROM output";
pub(super) const INSERT_OUTPUT: &str = "INSERT INTO output VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const SELECT_RUN: &str =
    "SELECT heard, socket, stopped, sessions, serial, checksum FROM run";
pub(super) const WRITE_RUN: &str = "INSERT OR REPLACE INTO run VALUES (1, 5, ?, ?, ?, ?, ?, ?)";
pub(super) const SELECT_ORIGINS: &str = "SELECT run, first, checksum FROM origin ORDER BY number";
pub(super) const INSERT_ORIGIN: &str =
    "INSERT INTO origin SELECT coalesce(max(number), 0) + 1, ?, ?, ? FROM origin";
pub(super) const DELETE_ORIGINS: &str =
    "DELETE FROM origin WHERE number <= (SELECT max(number) FROM origin) - ?";

/// Whether the database is still empty, without changing it. A database of another program is an error.
pub(super) fn is_empty(connection: &Connection) -> Result<bool, Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    if count("SELECT count(*) FROM sqlite_master")? == 0 && version == 0 {
        return Ok(true);
    }
    let is_marked = count("SELECT count(*) FROM pragma_table_info('run') WHERE name = 'version'")?;
    let version = match (is_marked, application) {
        (1, _) => count("SELECT coalesce(max(version), 5) FROM run")?,
        (_, APPLICATION_ID) => version,
        _ => {
            let reason = "it is the database of another program";
            return Err(Error::Refused(reason.to_owned()));
        }
    };
    match version {
        VERSION => Ok(false),
        0..VERSION => Err(Error::Damaged(format!(
            "its schema is version {version}, of before the first release"
        ))),
        _ => Err(Error::Refused(format!(
            "its schema is version {version}, this nattrail knows versions up to {VERSION}: use the newer nattrail that wrote \
             it, or another pending.database"
        ))),
    }
}

/// Sets up the connection for writing, and an empty database for sessions and records.
pub(super) fn prepare(connection: &Connection, is_empty: bool) -> rusqlite::Result<()> {
    // Blobs are large, and fewer pages are faster to link and to free. This affects only an empty file.
    connection.pragma_update(None, "page_size", 16_384)?;
    // The mode is a property of the file. A read-only one keeps its own.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864;",
    )?;
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let header = (number("application_id")?, number("user_version")?);
    if !is_empty && header == (APPLICATION_ID, VERSION) {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    if is_empty {
        transaction.execute_batch(TABLES)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
