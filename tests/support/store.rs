//! The database of a running daemon.

use std::net::SocketAddr;

use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags, Params};

use super::daemon::Home;
use super::wait_for;

/// Every output has taken every record, as of the last commit.
const ALL_TAKEN: &str = "SELECT (SELECT min(serial) FROM output) = (SELECT serial FROM run)";

/// Waits until the database knows that every output has taken every record: records known to be taken are not repeated
/// after a crash.
pub fn wait_until_all_is_taken(home: &Home) {
    wait_for("the database to know that all is taken", || {
        matches!(query(home, ALL_TAKEN, []), Ok(true)).then_some(())
    });
}

/// The sequence number that a collector without a name expects next, as of the last commit.
#[must_use]
pub fn next_sequence(home: &Home, collector: SocketAddr) -> u32 {
    let key = format!("collector to {collector} as %");
    query(home, "SELECT sequence FROM output WHERE key LIKE ?", [key]).unwrap()
}

fn query<T: FromSql>(home: &Home, sql: &str, parameters: impl Params) -> rusqlite::Result<T> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(home.state().join("pending.db"), flags)?;
    connection.query_row(sql, parameters, |row| row.get(0))
}
