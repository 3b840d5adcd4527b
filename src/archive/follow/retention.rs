//! What people left in the inbox, and the deletion of what is too old.
//!
//! How old a session is counts from the end of the last seal, or from now if that is earlier: neither a clock of this
//! process alone nor one of the daemon alone deletes anything. When that end went on by more than a day at once, since
//! nothing was sealed for so long or a clock was set, it counts from before that until a day of the new time was sealed.

use std::io;
use std::time::Duration;

use super::{DAY, Error, Follow, HOUR};
use crate::archive::acts::{self, Act, Record};
use crate::archive::disk;
use crate::archive::row::Millis;
use crate::archive::spool;
use crate::archive::tree::{Order, Seal, Tree, date};
use crate::config::values;
use crate::time::Wall;

/// For how long which records are kept; `None` for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    pub sessions: Option<Duration>,
    pub lookups: Option<Duration>,
    /// The hour of the last look for records that are too old.
    looked: Option<u64>,
    /// The day before which there are no such sessions.
    purged: Option<u64>,
}

impl Retention {
    pub const fn new(sessions: Option<Duration>, lookups: Option<Duration>) -> Self {
        Self {
            sessions,
            lookups,
            looked: None,
            purged: None,
        }
    }
}

impl Follow {
    /// Takes what people left in the inbox, and returns the records of purges that they wanted. `own` is the user of this
    /// process. A purge that fails is logged and not tried again: nothing behind it may wait for what a person has to mend.
    ///
    /// # Errors
    /// Then the same call later goes on.
    pub fn act(&mut self, own: u32, now: Wall) -> Result<Vec<Seal>, Error> {
        let mut purged = Vec::new();
        if self.spool.is_none() {
            return Ok(purged);
        }
        let inbox = |error| spool::Error::Io(self.root.join("inbox"), error);
        for waiting in acts::waiting(&self.root).map_err(inbox)? {
            let (path, uid) = (waiting.path.clone(), waiting.uid);
            match waiting.granted(own) {
                Ok(notice) => {
                    let record = self.evidence.record(notice, Some(uid), now)?;
                    if !matches!(record.notice.act, Act::Lookup { .. }) {
                        let (name, path) = (record.notice.act.name(), record.path());
                        log::info!("a {name} of the user {uid}: \"{path}\"");
                    }
                    match self.carry_out(&record, now) {
                        Ok(mut seals) => purged.append(&mut seals),
                        Err(error) => log::warn!("the order {}: {error}", record.path()),
                    }
                }
                Err(reason) => {
                    // Its name is that person's, too, and could be several lines.
                    log::warn!("the notice {path:?} of the user {uid} {reason}; it is deleted");
                }
            }
            // Its owner may have been faster.
            disk::remove(&path).map_err(spool::Error::from)?;
        }
        Ok(purged)
    }

    fn carry_out(&mut self, record: &Record, now: Wall) -> Result<Vec<Seal>, Error> {
        let Act::Purge { keep } = &record.notice.act else {
            return Ok(Vec::new());
        };
        match values::days(keep) {
            Ok(keep) => self.purge(keep, Some(record.path()), now),
            Err(_) => {
                log::warn!(
                    "{}: \"{keep}\" is no number of days; nothing is deleted",
                    record.path()
                );
                Ok(Vec::new())
            }
        }
    }

    /// Deletes what is too old, once a day, and returns the records of purges. It comes after a [step](Self::step) that
    /// leaves nothing to read, and after [`Self::act`], since a hold may wait there.
    ///
    /// # Errors
    /// Then the same call goes on an hour later.
    pub fn expire(&mut self, now: Wall) -> Result<Vec<Seal>, Error> {
        let Some(spool) = &self.spool else {
            return Ok(Vec::new());
        };
        let Retention {
            sessions, lookups, ..
        } = self.retention;
        let hour = spool.sealed_until().min(now.into()).get() / HOUR;
        let is_new = self.retention.looked.replace(hour) != Some(hour);
        if !is_new || sessions.or(lookups).is_none() {
            return Ok(Vec::new());
        }
        if let Some(keep) = lookups {
            let before = date(self.before(keep, now)?);
            self.evidence.expire(&rule(keep), before, now)?;
        }
        let Some(keep) = sessions else {
            return Ok(Vec::new());
        };
        let day = self.before(keep, now)?.get() / DAY;
        if self.retention.purged >= Some(day) {
            return Ok(Vec::new());
        }
        let seals = self.purge(keep, None, now)?;
        self.retention.purged = Some(day);
        Ok(seals)
    }

    fn purge(
        &mut self,
        keep: Duration,
        act: Option<String>,
        now: Wall,
    ) -> Result<Vec<Seal>, Error> {
        let order = Order {
            rule: rule(keep),
            before: self.before(keep, now)?,
            at: now.into(),
            act,
        };
        let unreadable = |error| spool::Error::Io(self.root.clone(), error);
        let held = acts::held(&self.root, &self.gateway).map_err(unreadable)?;
        let mut spool = match self.spool.take() {
            Some(spool) => spool,
            None => self.open(now)?,
        };
        let seals = spool.purge(&order, &held)?;
        self.spool = Some(spool);
        Ok(seals)
    }

    /// The time of the oldest records that are kept.
    fn before(&self, keep: Duration, now: Wall) -> Result<Millis, Error> {
        let sealed = self
            .spool
            .as_ref()
            .map_or(Millis::MAX, |spool| spool.sealed_until());
        let unreadable = |error| spool::Error::Io(self.root.clone(), error);
        let known = self.trusted(sealed.min(now.into())).map_err(unreadable)?;
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        Ok(Millis::new(known.get().saturating_sub(keep)))
    }

    /// The time until which the archive went on step by step.
    fn trusted(&self, latest: Millis) -> io::Result<Millis> {
        let day_ago = Millis::new(latest.get().saturating_sub(DAY));
        let seals = Tree::new(&self.root).seals(&(day_ago..=latest))?;
        let is_leap = |seal: &&Seal| {
            let length = seal.until.get().saturating_sub(seal.from.get());
            let is_recent = day_ago < seal.until && seal.until <= latest;
            seal.gateway == self.gateway && is_recent && length > DAY
        };
        let leaps = seals.iter().filter(is_leap);
        Ok(leaps.map(|seal| seal.from).fold(latest, Millis::min))
    }
}

fn rule(keep: Duration) -> String {
    format!("{}d", keep.as_secs() * 1_000 / DAY)
}
