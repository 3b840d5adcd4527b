//! Deleting sessions whose time is over.
//!
//! A purge goes by whole days (UTC), so that each file of an hour or a day goes as a whole. A file of sessions that lasted
//! for more than a day is that of a month: it is written anew with the sessions that ended later. Sessions that somebody
//! holds stay, in a smaller file of the same directory; a file of which nothing is to go is not touched. The files of other
//! gateways are none of ours.

use std::io;
use std::path::{Path, PathBuf};
use std::{mem, slice};

use super::{Error, Merged, Millis, Seal, Spool, Table, table};
use crate::archive::row::Row;
use crate::archive::tree::{DAY, Name, OfEnd, Order, Purge};
use crate::archive::wanted::Wanted;

/// A record names so many files at most: with as many that are written anew, it still fits an entry of the evidence log.
const FILES: usize = if cfg!(test) { 3 } else { 64 };

type File = (OfEnd, Name, PathBuf);

impl Spool {
    /// Deletes the sessions that ended before the day (UTC) of `order.before`, and before that in which the last seal
    /// ended, but for those that any of `held` accepts. Returns its records, each of some files; none when there was
    /// nothing to delete.
    ///
    /// # Errors
    /// When a file cannot be read, all others were purged. Otherwise, the same call later goes on with it.
    pub fn purge(&mut self, order: &Order, held: &[Wanted]) -> Result<Vec<Seal>, Error> {
        self.finish_seal()?;
        let before = order.before.min(self.manifest.from).get();
        let order = Order {
            before: Millis::new(before - before % DAY),
            ..order.clone()
        };
        let files = self.tree.ended_before(order.before);
        let mut files = files.map_err(Error::io(self.tree.root()))?;
        files.retain(|(_, name, _)| name.is_of(&self.manifest.gateway));
        let (mut rest, mut seals, mut all_read) = (files.iter(), Vec::new(), Ok(()));
        loop {
            match self.write_purged(&mut rest, &order, held, &mut all_read) {
                Ok(None) => return all_read.map(|()| seals),
                Ok(Some(merged)) => {
                    self.end_journal()?;
                    seals.push(self.commit_seal(self.manifest.runs.clone(), merged)?);
                }
                Err(error) => return Err(self.undo(error)),
            }
        }
    }

    /// Writes what stays of the next files of which something goes; `None` when there are no more.
    fn write_purged(
        &self,
        files: &mut slice::Iter<'_, File>,
        order: &Order,
        held: &[Wanted],
        all_read: &mut Result<(), Error>,
    ) -> Result<Option<Merged>, Error> {
        let mut seal = self.new_rewriting();
        let mut purge = Purge {
            order: order.clone(),
            since: Millis::MAX,
            until: Millis::MIN,
            rows: 0,
        };
        for (of_end, name, path) in files {
            let mut remains = match Remains::of(path, name, order.before, held) {
                Ok(remains) => remains,
                Err(error) => {
                    let error = io::Error::other(format!(
                        "{error}; its sessions cannot be deleted one by one"
                    ));
                    let error = Error::Io(path.clone(), error);
                    *all_read = mem::replace(all_read, Ok(())).and(Err(error));
                    continue;
                }
            };
            let summary = remains.table.summary();
            if remains.rows == summary.rows {
                continue;
            }
            if remains.rows > 0 {
                let to = of_end(summary.until);
                let mut runs = Vec::new();
                for index in 0..remains.selections.len() {
                    runs.push(
                        self.write_run(&seal, index, to, path, |each| remains.give(index, each))?,
                    );
                }
                let file = self.merge_runs(&seal, &runs, to)?;
                seal.files.push(file);
            }
            self.replace(&mut seal, path);
            purge.since = purge.since.min(name.since.into());
            purge.until = purge.until.max(name.until.into());
            purge.rows += summary.rows.saturating_sub(remains.rows);
            if seal.replaces.len() == FILES {
                break;
            }
        }
        if seal.replaces.is_empty() {
            return Ok(None);
        }
        seal.purge = Some(purge);
        Ok(Some(Merged::rewritten(seal)))
    }
}

/// What stays of a file.
struct Remains<'a> {
    table: Table,
    before: Millis,
    held: Vec<&'a Wanted>,
    /// Together they accept all rows that stay.
    selections: Vec<Wanted>,
    rows: u64,
}

impl<'a> Remains<'a> {
    fn of(
        path: &Path,
        name: &Name,
        before: Millis,
        held: &'a [Wanted],
    ) -> Result<Self, table::Error> {
        let table = Table::open(path)?;
        let concerns = |wanted: &&Wanted| {
            Millis::from(name.since) <= *wanted.alive.end()
                && Millis::from(name.until) >= *wanted.alive.start()
        };
        let held: Vec<_> = held.iter().filter(concerns).collect();
        // Of a file that is over, only what is held is read.
        let selections = match table.summary().until < before {
            true => held.iter().copied().cloned().collect(),
            false => vec![Wanted::alive(Millis::MIN..=Millis::MAX)],
        };
        let mut remains = Self {
            table,
            before,
            held,
            selections,
            rows: 0,
        };
        let mut rows = 0;
        for index in 0..remains.selections.len() {
            remains.give(index, &mut |_| rows += 1)?;
        }
        Ok(Self { rows, ..remains })
    }

    /// Gives the rows that stay, are in this selection, and are in none before it; sorted.
    fn give(&mut self, index: usize, each: &mut dyn FnMut(Row)) -> Result<(), table::Error> {
        let (before, held) = (self.before, &self.held);
        let (earlier, selections) = self.selections.split_at(index);
        let stays = |row: &Row| row.end >= before || held.iter().any(|it| it.accepts(row));
        self.table.find(&selections[0], &mut |row| {
            if stays(&row) && !earlier.iter().any(|it| it.accepts(&row)) {
                each(row);
            }
        })
    }
}
