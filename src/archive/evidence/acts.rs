//! The records of acts: each is in its file before its entry is in the log, and has its number once. A record whose entry is
//! missing, since the process ended in between or the disk was full, gets that before the next record is written.

use std::io;
use std::path::Path;

use super::{Entry, Evidence};
use crate::archive::acts::{self, Act, Leaf, Notice, Record};
use crate::archive::disk;
use crate::archive::proof::log::Log;
use crate::archive::proof::merkle::Hash;
use crate::archive::proof::tiles::Reader;
use crate::archive::proof::{self, hex};
use crate::time::Wall;

/// The last act in the log. Its record tells whether a notice has been taken; it may be deleted by its age.
#[derive(Debug)]
pub(super) struct LastAct {
    number: u64,
    record: Option<Record>,
}

impl Evidence {
    /// Records an act, and returns its record. A notice that was recorded last, by a process that ended before it could
    /// delete it, is not recorded again.
    ///
    /// # Errors
    /// Then the same call later goes on.
    pub fn record(
        &mut self,
        notice: Notice,
        uid: Option<u32>,
        now: Wall,
    ) -> Result<Record, proof::Error> {
        let mut log = match self.log.take() {
            Some(log) => log,
            None => self.open(now)?,
        };
        let recorded = self.record_in(&mut log, notice, uid, now);
        if recorded.is_ok() {
            self.log = Some(log);
        }
        recorded
    }

    fn record_in(
        &mut self,
        log: &mut Log,
        notice: Notice,
        uid: Option<u32>,
        now: Wall,
    ) -> Result<Record, proof::Error> {
        // After an error, the log has to tell.
        let last = match self.last_act.take() {
            Some(last) => last,
            None => {
                let last = self.last_act(&log.reader(now)?)?;
                self.finish(last, log, now)?
            }
        };
        if let Some(record) = &last.record
            && (&record.notice, record.uid) == (&notice, uid)
        {
            let record = record.clone();
            self.last_act = Some(last);
            return Ok(record);
        }
        let record = Record {
            gateway: self.gateway.clone(),
            number: last.number + 1,
            taken: now.into(),
            uid,
            notice,
        };
        let path = self.tree.root().join(record.path());
        let at = |error: serde_json::Error| proof::Error::Io(path.clone(), error.into());
        let octets = serde_json::to_vec_pretty(&record).map_err(at)?;
        disk::create_directory(path.parent().unwrap_or(&path), disk::DIRECTORY)?;
        disk::replace(&path, &path.with_extension("part"), &octets, disk::FILE)?;
        log.append(&entry(&record, &octets).map_err(at)?, now)?;
        self.last_act = Some(LastAct {
            number: record.number,
            record: Some(record.clone()),
        });
        Ok(record)
    }

    /// Deletes lookups from before that date, in whole days. Returns how many files there were.
    ///
    /// # Errors
    /// Then the same call later goes on.
    pub fn expire(&mut self, keep: &str, before: String, now: Wall) -> Result<bool, proof::Error> {
        let root = self.tree.root().to_owned();
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| proof::Error::Io(path, error)
        };
        let found = acts::lookups_before(&root, &before).map_err(at(&root))?;
        if found.is_empty() {
            return Ok(false);
        }
        let keep = keep.to_owned();
        let notice = Notice::new(Act::Expire { keep, before }, now.into()).map_err(at(&root))?;
        self.record(notice, None, now)?;
        for folder in found {
            disk::remove(&folder)?;
        }
        Ok(true)
    }

    /// Puts the record after the last one into the log, where there is one.
    fn finish(&self, last: LastAct, log: &mut Log, now: Wall) -> Result<LastAct, proof::Error> {
        let (root, number) = (self.tree.root(), last.number + 1);
        let found = acts::begun(root, &self.gateway, number);
        let found = found.map_err(|error| proof::Error::Io(root.to_owned(), error))?;
        let Some((record, octets)) = found else {
            return Ok(last);
        };
        let at =
            |error: serde_json::Error| proof::Error::Io(root.join(record.path()), error.into());
        log.append(&entry(&record, &octets).map_err(at)?, now)?;
        let record = Some(record);
        Ok(LastAct { number, record })
    }

    fn last_act(&self, log: &Reader) -> Result<LastAct, proof::Error> {
        let leaf = super::last(log, |entry| match entry {
            Entry::Act(leaf) => Some(leaf),
            _ => None,
        })?;
        let record = leaf
            .as_ref()
            .and_then(|leaf| acts::read(&self.tree.root().join(&leaf.record)).ok());
        Ok(LastAct {
            number: leaf.map_or(0, |leaf: Box<Leaf>| leaf.number),
            record,
        })
    }
}

fn entry(record: &Record, octets: &[u8]) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Leaf {
        act: record.notice.act.name().to_owned(),
        gateway: record.gateway.clone(),
        number: record.number,
        record: record.path(),
        sha256: hex(&Hash::of(octets)),
        before: match &record.notice.act {
            Act::Expire { before, .. } => Some(before.clone()),
            _ => None,
        },
    })
}
