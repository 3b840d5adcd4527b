//! The record log: every record that left the engine, until all followers have taken it.
//!
//! The newest records are in memory, in blocks. A block goes to the database with the next commit, and only then may its
//! records leave: after a crash nobody has seen a record that the next run does not know. Followers read the newest records
//! from memory, and a backlog from the database. Without a database records leave from memory, which is bounded.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::{Error, Store};
use crate::export::source::{Found, PACE, Source};
use crate::place::{Serial, Span};
use crate::session::Record;
use crate::wire::record::Block;

/// Octets after which a block is full.
const BLOCK: usize = 1 << 20;
/// Octets of blocks that stay in memory although the database has them.
const NEWEST: usize = 16 << 20;
/// Octets of blocks in memory while there is no database to write them to: some 1.3 million records.
const WITHOUT_STORE: usize = 64 << 20;

#[derive(Debug)]
pub struct RecordLog {
    /// The oldest first, without a hole between them.
    blocks: VecDeque<Rc<Block>>,
    octets: usize,
    /// The block to which records are added.
    open: Block,
    /// The serial after the last one that the database has.
    stored: Serial,
    /// The serial after the last one that may leave.
    readable: Serial,
    /// Records that arrive in one [`PACE`], as of the latest commit.
    pace: usize,
    /// The block last read from the database: followers with a backlog are often at the same place.
    read: Option<Rc<Block>>,
}

impl RecordLog {
    /// An empty log whose first record gets `first`.
    pub fn new(first: Serial) -> Self {
        Self {
            blocks: VecDeque::new(),
            octets: 0,
            open: Block::new(first, Vec::new()),
            stored: first,
            readable: first,
            pace: 0,
            read: None,
        }
    }

    pub fn push(&mut self, record: &Record) {
        self.open.push(record);
        if self.open.bytes.len() >= BLOCK {
            self.close_block();
        }
    }

    /// The serial of the next record.
    pub const fn next(&self) -> Serial {
        self.open.end()
    }

    /// The serial after the last record that may leave.
    pub const fn readable(&self) -> Serial {
        self.readable
    }

    /// Records that wait for the next commit.
    pub const fn waiting(&self) -> u64 {
        self.next().0 - self.readable.0
    }

    /// Ends the open block, so that a commit covers every record.
    pub fn close_block(&mut self) {
        if self.open.count > 0 {
            let next = Block::new(self.open.end(), Vec::with_capacity(self.open.bytes.len()));
            let block = std::mem::replace(&mut self.open, next);
            self.octets += block.bytes.len();
            self.blocks.push_back(Rc::new(block));
        }
    }

    /// Blocks that the database does not have yet. The open one is not among them.
    pub fn unstored(&self) -> impl Iterator<Item = &Block> {
        let from = self
            .blocks
            .partition_point(|block| block.first < self.stored);
        self.blocks.range(from..).map(Rc::as_ref)
    }

    /// The database has all blocks. `needed` is the first record that a follower still needs, `since` the time since
    /// the commit before.
    pub fn handle_stored(&mut self, needed: Serial, since: Duration) {
        self.stored = self.open.first;
        self.release(since);
        self.forget_before(needed);
        while self.octets > NEWEST {
            self.forget_oldest();
        }
    }

    /// The database no longer has the blocks before `end`, although a follower needs them.
    pub fn handle_evicted(&mut self, end: Serial) {
        self.forget_before(end);
        self.read.take_if(|block| block.end() <= end);
    }

    /// There is no database to write to, and records leave all the same. Returns the oldest block if not all have room.
    /// Call it until it returns `None`.
    pub fn handle_not_stored(&mut self, needed: Serial, since: Duration) -> Option<Span> {
        self.release(since);
        self.forget_before(needed);
        if self.octets <= WITHOUT_STORE {
            return None;
        }
        self.forget_oldest().map(|block| Span {
            first: block.first,
            end: block.end(),
            since: block.since,
            until: block.until,
        })
    }

    /// The database was replaced by an empty one. Returns the first serial that is left.
    pub fn handle_store_replaced(&mut self) -> Serial {
        let first = self
            .blocks
            .front()
            .map_or(self.open.first, |block| block.first);
        self.stored = first;
        self.read = None;
        first
    }

    fn release(&mut self, since: Duration) {
        let latest = self.open.first.0 - self.readable.0;
        if latest > 0 {
            let ticks = since.as_nanos() / PACE.as_nanos();
            self.pace = (u128::from(latest) / ticks.max(1)) as usize;
            self.readable = self.open.first;
        }
    }

    fn forget_before(&mut self, end: Serial) {
        while self
            .blocks
            .front()
            .is_some_and(|oldest| oldest.end() <= end)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> Option<Rc<Block>> {
        let block = self.blocks.pop_front()?;
        self.octets -= block.bytes.len();
        Some(block)
    }
}

/// The log as followers read it.
pub struct Reading<'a> {
    pub log: &'a mut RecordLog,
    pub store: Option<&'a Store>,
}

impl Source for Reading<'_> {
    fn block(&mut self, serial: Serial) -> Found {
        let log = &mut *self.log;
        if serial >= log.readable {
            return Found::Nothing;
        }
        let after = log.blocks.partition_point(|block| block.first <= serial);
        if let Some(block) = after.checked_sub(1).map(|index| &log.blocks[index]) {
            return Found::Block(Rc::clone(block));
        }
        if let Some(block) = &log.read
            && (block.first..block.end()).contains(&serial)
        {
            return Found::Block(Rc::clone(block));
        }
        match self.store.map(|store| store.block(serial)) {
            Some(Ok(Some(Ok(block)))) => Found::Block(Rc::clone(log.read.insert(Rc::new(block)))),
            Some(Ok(Some(Err(mut span)))) => {
                // The row may be damaged as well.
                let next = log.blocks.front().map_or(log.readable, |block| block.first);
                span.end = span
                    .end
                    .clamp(Serial(serial.0 + 1), next.max(Serial(serial.0 + 1)));
                span.first = span.first.clamp(serial, span.end);
                Found::Damaged(span)
            }
            // Nobody got the serials before these, or nobody can know any more.
            Some(Ok(None) | Err(Error::Damaged(_))) => match log.blocks.front() {
                Some(block) => Found::Block(Rc::clone(block)),
                None => Found::Damaged(Span {
                    first: serial,
                    end: log.readable,
                    since: log.open.since,
                    until: log.open.until,
                }),
            },
            Some(Err(_)) | None => Found::Unavailable,
        }
    }

    fn end(&self) -> Serial {
        self.log.readable
    }

    fn pace(&self) -> usize {
        self.log.pace
    }
}

#[cfg(test)]
mod tests;
