//! Moving what was committed from the write-ahead log into the database, on a thread of its own.
//!
//! A commit only appends to the write-ahead log and waits for no disk; a checkpoint waits for two fsync(2)s, which take as
//! long as the disk likes. SQLite lets one connection write while another one checkpoints (`PASSIVE`). The thread has nothing
//! but its connection, and ends with the store.

use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OpenFlags};

/// Octets that are committed between two checkpoints, roughly: as many as the write-ahead log grows by.
const INTERVAL: u64 = 4 << 20;
/// A commit of little still takes a page of each table that it touches.
const LEAST: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Octets committed since the last request.
    since: u64,
}

impl Checkpointer {
    /// Starts the thread. Where that fails SQLite checkpoints within the commits, as it does by itself.
    pub(super) fn start(path: &Path, writer: &Connection) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let (wake, requests) = sync_channel(1);
        let work = move || {
            while let Ok(()) = requests.recv() {
                // A failure is tried again at the next request, and a commit says what is wrong with the disk.
                let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            }
        };
        let thread = thread::Builder::new().name("checkpoint".to_owned());
        let thread = thread.spawn(work).ok();
        if thread.is_some() {
            writer.pragma_update(None, "wal_autocheckpoint", 0)?;
        }
        Ok(Self {
            wake: thread.is_some().then_some(wake),
            thread,
            since: 0,
        })
    }

    /// Takes note of a commit of so many octets.
    pub(super) fn note(&mut self, octets: u64) {
        self.since += octets.max(LEAST);
        if self.since >= INTERVAL
            && let Some(wake) = &self.wake
        {
            match wake.try_send(()) {
                // One that waits already does for both.
                Ok(()) | Err(TrySendError::Full(())) => self.since = 0,
                Err(TrySendError::Disconnected(())) => self.wake = None,
            }
        }
    }
}

impl Drop for Checkpointer {
    /// Waits for the checkpoint that is under way: its connection must not outlive the store's lock.
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by then.
            let _ = thread.join();
        }
    }
}
