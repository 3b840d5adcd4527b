//! Moving what was committed from the write-ahead log into the database, on a thread of its own.
//!
//! A commit only appends to the write-ahead log and waits for no disk; a checkpoint waits for two fsync(2)s, which take as
//! long as the disk likes. A thread begins with each checkpoint and ends with it; the store waits for it as it is closed.
//!
//! Nobody may commit while a checkpoint is under way ([`Checkpointer::is_busy`]): SQLite before 3.51.3 can lose a transaction
//! then (<https://www.sqlite.org/wal.html#walresetbug>). The events of that time wait in memory.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OpenFlags};

/// Octets that are committed between two checkpoints, roughly: as many as the write-ahead log grows by.
const INTERVAL: u64 = 4 << 20;
/// A commit of little still takes a page of each table that it touches.
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
    /// For the commits of `writer`, which no longer makes checkpoints by itself.
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

    /// Takes note of a commit of so many octets. To be called while no checkpoint is under way.
    pub(super) fn note(&mut self, octets: u64) {
        self.since += octets.max(LEAST);
        if self.since < INTERVAL {
            return;
        }
        let connection = Arc::clone(&self.connection);
        let work = move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            // A failure is tried again at the next one, and a commit says what is wrong with the disk.
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
            // A panic has been reported by then.
            let _ = thread.join();
        }
    }
}
