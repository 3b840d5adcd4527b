//! Moving what was committed from the write-ahead log into the database, on a thread of its own.
//!
//! A commit only appends to the write-ahead log and waits for no disk; a checkpoint waits for two fsync(2)s, which take as
//! long as the disk likes. The thread has nothing but its connection, and ends with the store.
//!
//! Nobody may commit while a checkpoint is under way ([`Checkpointer::is_busy`]): SQLite before 3.51.3 can lose a transaction
//! then (<https://www.sqlite.org/wal.html#walresetbug>). The events of that time wait in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
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
    /// From a request until it has been served.
    busy: Arc<AtomicBool>,
    /// Octets committed since the last request.
    since: u64,
}

impl Checkpointer {
    /// Starts the thread. Where that fails SQLite checkpoints within the commits, as it does by itself.
    pub(super) fn start(path: &Path, writer: &Connection) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let (wake, requests) = sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let is_busy = Arc::clone(&busy);
        let work = move || {
            while let Ok(()) = requests.recv() {
                // A failure is tried again at the next request, and a commit says what is wrong with the disk.
                let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                is_busy.store(false, Ordering::Release);
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
            busy,
            since: 0,
        })
    }

    /// Whether a checkpoint is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Takes note of a commit of so many octets. To be called while no checkpoint is under way.
    pub(super) fn note(&mut self, octets: u64) {
        self.since += octets.max(LEAST);
        if self.since >= INTERVAL
            && let Some(wake) = &self.wake
        {
            self.since = 0;
            self.busy.store(true, Ordering::Release);
            if wake.try_send(()).is_err() {
                // The thread is gone, and SQLite's own bound on the write-ahead log was lifted: it grows until the next start.
                self.wake = None;
                self.busy.store(false, Ordering::Release);
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
