//! The changes that the store has to learn of: sessions that have begun, and rows of those that have ended. A session whose
//! baseline has moved gets a new row, and its old one goes in the same commit.

use std::collections::VecDeque;

use super::table::{Slot, Table};
use super::{Engine, Row, StoredSession};

/// The most sessions, begun or ended, handed to the store at a time: a commit must not hold up the loop for long.
pub(super) const MAX_CHANGES: usize = 1 << 16;

/// The changes that make the store hold exactly the pending sessions, or a part of it.
#[derive(Debug)]
pub struct Changes<'a> {
    table: &'a Table,
    begun: &'a VecDeque<(Slot, Row)>,
    ended: &'a [Row],
    /// Whether these are all changes.
    pub whole: bool,
}

impl Changes<'_> {
    /// Sessions to insert, in the order of their rows.
    pub fn begun(&self) -> impl Iterator<Item = StoredSession> {
        let present = |&(slot, row)| {
            let pending = self.table.written_as(slot, row)?;
            let baseline = self.table.baseline(slot);
            Some(pending.to_stored(row, baseline))
        };
        self.begun.iter().take(MAX_CHANGES).filter_map(present)
    }

    /// Rows to delete: first those of sessions that have ended.
    pub fn ended(&self) -> impl Iterator<Item = Row> {
        let replaced = |&(slot, row)| {
            let pending = self.table.written_as(slot, row)?;
            (pending.row != row).then_some(pending.row)
        };
        let begun = match self.table.has_no_baselines() {
            true => 0,
            false => MAX_CHANGES,
        };
        let replaced = self.begun.iter().take(begun).filter_map(replaced);
        self.ended.iter().copied().chain(replaced)
    }
}

impl Engine {
    /// The changes that the store does not know yet, or a bounded part of them. Answer with
    /// [`handle_committed`](Self::handle_committed) or [`handle_commit_failed`](Self::handle_commit_failed).
    pub fn changes(&self) -> Changes<'_> {
        Changes {
            table: &self.table,
            begun: &self.begun,
            // In any order: a row is used only once.
            ended: &self.ended[self.ended.len().saturating_sub(MAX_CHANGES)..],
            whole: self.begun.len().max(self.ended.len()) <= MAX_CHANGES,
        }
    }

    /// Sessions that the store has to learn of, begun or ended.
    pub fn changes_waiting(&self) -> usize {
        self.begun.len().max(self.ended.len())
    }

    /// The store has the changes. Returns whether there are more.
    pub fn handle_committed(&mut self) -> bool {
        let taken = self.begun.len().min(MAX_CHANGES);
        for (slot, row) in self.begun.drain(..taken) {
            self.table.handle_written(slot, row);
        }
        let left = self.ended.len().saturating_sub(MAX_CHANGES);
        self.ended.truncate(left);
        !(self.begun.is_empty() && self.ended.is_empty())
    }

    /// The store does not have the changes: they stay, for the next attempt.
    pub fn handle_commit_failed(&mut self) {
        let table = &self.table;
        self.begun
            .retain(|&(slot, row)| table.written_as(slot, row).is_some());
    }

    /// The store was replaced by an empty one: every pending session has to be written to it.
    pub fn handle_store_replaced(&mut self) {
        self.ended.clear();
        for (_, pending) in self.table.iter_mut() {
            pending.stored = false;
        }
        self.handle_store_opened();
    }

    /// The store was opened, and its sessions were restored. Those that began before get rows above theirs.
    pub fn handle_store_opened(&mut self) {
        self.begun.clear();
        for slot in self.table.slots(0, usize::MAX) {
            if let Some(row) = self.table.write_anew(slot, self.next_row) {
                self.begun.push_back((slot, row));
                self.next_row = Row(row.0 + 1);
            }
        }
    }

    /// Has the store replace a session that it has. One that waits to be written is going to be written as it then is.
    pub(super) fn rewrite(&mut self, slot: Slot) {
        if self.table.replace(slot, self.next_row) {
            self.begun.push_back((slot, self.next_row));
            self.next_row = Row(self.next_row.0 + 1);
        }
    }
}
