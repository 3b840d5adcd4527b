//! Moving what was committed from the write-ahead log into the database, on a thread of its own.
//!
//! A commit only appends to the write-ahead log and waits for no disk; a checkpoint waits for two fsync(2)s, however
//! long the disk takes. Each checkpoint has a thread, and closing the store waits for it.
//!
//! Nobody may commit during a checkpoint ([`Checkpointer::is_busy`]): SQLite before 3.51.3 can then lose a transaction
//! (<https://www.sqlite.org/wal.html#walresetbug>). The events of that time wait in memory.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OpenFlags};

/// Octets committed between two checkpoints: roughly the growth of the write-ahead log.
const INTERVAL: u64 = 4 << 20;
/// Even a small commit takes a page of each table that it touches.
const LEAST: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Checkpointer {
    connection: Arc<Mutex<Connection>>,
    /// The latest checkpoint, which may be over.
    thread: Option<JoinHandle<()>>,
    /// Octets committed since it began.
    since: u64,
}

impl Checkpointer {
    /// For the commits of `writer`, which no longer makes checkpoints itself.
    pub(super) fn new(path: &Path, writer: &Connection) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        writer.pragma_update(None, "wal_autocheckpoint", 0)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            thread: None,
            since: 0,
        })
    }

    /// Whether a checkpoint is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Takes note of a commit of `octets`. Not to be called during a checkpoint.
    pub(super) fn note(&mut self, octets: u64) {
        self.since += octets.max(LEAST);
        if self.since < INTERVAL {
            return;
        }
        let connection = Arc::clone(&self.connection);
        let work = move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            // The next checkpoint repeats a failed one, and a commit reports what is wrong with the disk.
            let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        };
        let thread = thread::Builder::new().name("checkpoint".to_owned());
        // Without a thread the next commit tries again.
        if let Ok(thread) = thread.spawn(work) {
            self.thread = Some(thread);
            self.since = 0;
        }
    }
}

impl Drop for Checkpointer {
    /// Waits for the checkpoint that is under way: its connection must not outlive the store's lock.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // By then a panic has been reported.
            let _ = thread.join();
        }
    }
}
