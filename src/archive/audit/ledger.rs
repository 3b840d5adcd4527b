//! The entries of one log: whether they agree with each other, and which files and records they name.

use std::fs;

use super::{Check, ExpectedAct, is_plain};
use crate::archive::acts::Leaf;
use crate::archive::evidence::{Digest, Entry};
use crate::archive::proof::hex;
use crate::archive::proof::merkle::Hash;
use crate::archive::row::Millis;
use crate::archive::seal::tells_of_records;
use crate::archive::tree::{Name, Order, Purge, Seal, encoded};

/// What the entries of one log have said so far.
pub(super) struct Ledger {
    gateway: String,
    /// The last seal's number, and the end of its interval.
    pub(super) number: Option<u64>,
    pub(super) until: Millis,
    /// Sessions in the spool after the last seal; `None` when its record has to be read for that.
    kept: Option<u64>,
    pub(super) seals: u64,
    pub(super) lost: u64,
    /// The last act's number: how many there were.
    pub(super) acts: u64,
    pub(super) deleted: u64,
    pub(super) purge: Option<Order>,
}

impl Ledger {
    pub(super) fn new(gateway: &str) -> Self {
        Self {
            gateway: gateway.to_owned(),
            number: None,
            until: Millis::default(),
            kept: None,
            seals: 0,
            lost: 0,
            acts: 0,
            deleted: 0,
            purge: None,
        }
    }

    pub(super) fn take(&mut self, check: &mut Check<'_>, index: u64, entry: &[u8]) {
        match Entry::read(entry) {
            Entry::Seal(seal) => {
                let record = hex(&Hash::of(entry));
                check.records.insert(seal.path(), record);
                self.seal(check, index, &seal);
            }
            Entry::Digest(digest) => self.digest(check, index, digest),
            Entry::Act(leaf) => self.act(check, index, *leaf),
            Entry::Other(_) => {}
        }
    }

    fn act(&mut self, check: &mut Check<'_>, index: u64, leaf: Leaf) {
        let mut find = |reason: String| {
            check.find(&leaf.record, format!("entry {index} of its log: {reason}"));
        };
        if encoded(&leaf.gateway) != self.gateway {
            let gateway = &leaf.gateway;
            find(format!("it is of the gateway {gateway}, not of this log's"));
        }
        if !is_plain(&leaf.record) {
            find("it is not a path below the archive".to_owned());
        }
        if leaf.number != self.acts.saturating_add(1) {
            find(format!("act {} comes after act {}", leaf.number, self.acts));
        }
        self.acts = leaf.number;
        if let Some(before) = &leaf.before {
            // The log of another gateway says nothing about the records of this one.
            let own = check.acts.values_mut();
            own.filter(|act| act.leaf.gateway == leaf.gateway && act.leaf.is_before(before))
                .for_each(|act| act.is_expired = true);
        }
        let (path, is_expired) = (leaf.record.clone(), false);
        check.acts.insert(path, ExpectedAct { leaf, is_expired });
    }

    /// The record is read, since the entry has only its hash; that is compared later.
    fn digest(&mut self, check: &mut Check<'_>, index: u64, digest: Digest) {
        let record = is_plain(&digest.record).then(|| fs::read(check.root.join(&digest.record)));
        let record = record.and_then(Result::ok);
        let seal = record.and_then(|record| serde_json::from_slice::<Seal>(&record).ok());
        match seal.filter(|seal| seal.number == digest.number && seal.path() == digest.record) {
            Some(seal) => self.seal(check, index, &seal),
            // A finding about the record says why.
            None => (self.number, self.kept) = (Some(digest.number), None),
        }
        check.records.insert(digest.record, digest.sha256);
    }

    fn seal(&mut self, check: &mut Check<'_>, index: u64, seal: &Seal) {
        for reason in self.contradictions(check, seal) {
            check.find(seal.path(), format!("entry {index} of its log: {reason}"));
        }
        if seal.replaces.is_empty() {
            (self.until, self.kept) = (seal.until, Some(seal.kept));
        }
        self.lost = self.lost.saturating_add(seal.lost);
        if let Some(Purge { order, rows, .. }) = &seal.purge {
            self.deleted = self.deleted.saturating_add(*rows);
            let further = self.purge.take().filter(|it| it.before > order.before);
            self.purge = further.or_else(|| Some(order.clone()));
        }
        self.number = Some(seal.number);
        self.seals += 1;
        check.expect(seal, true);
    }

    /// The points in which a seal contradicts itself or those before.
    fn contradictions(&self, check: &Check<'_>, seal: &Seal) -> Vec<String> {
        let mut found = Vec::new();
        let number = seal.number;
        if encoded(&seal.gateway) != self.gateway {
            found.push(format!(
                "it is of the gateway {}, not of this log's",
                seal.gateway
            ));
        }
        match self.number {
            Some(last) if number <= last => {
                found.push(format!("seal {number} comes after seal {last}"))
            }
            Some(last) if number - last > 1 => {
                found.push(format!(
                    "seals {} to {} are missing before it",
                    last + 1,
                    number - 1
                ));
            }
            _ => {}
        }
        let paths = seal
            .files
            .iter()
            .map(|file| &file.path)
            .chain(&seal.replaces);
        for path in paths.filter(|path| !is_plain(path)) {
            found.push(format!("\"{path}\" is not a path below the archive"));
        }
        let rows = total(seal.files.iter().map(|file| file.rows));
        if !seal.replaces.is_empty() {
            let known = |path: &String| check.expected.get(path).map(|file| file.rows);
            let merged: Option<Vec<_>> = seal.replaces.iter().map(known).collect();
            let deleted = seal.purge.as_ref().map_or(0, |purge| purge.rows);
            if let Some(merged) = merged
                .map(|rows| total(rows.into_iter()))
                .filter(|&it| it != rows.saturating_add(deleted))
            {
                found.push(format!(
                    "the counters do not add up: {merged} sessions were in the files before, {rows} are in files, and {deleted} \
                     were deleted"
                ));
            }
            found.extend(seal.purge.as_ref().and_then(|purge| excess(seal, purge)));
            return found;
        }
        if self.number.is_some() && seal.from != self.until {
            let (from, until) = (seal.from.wall(), self.until.wall());
            found.push(format!(
                "it tells of the time from {from} on, and the seal before until {until}"
            ));
        }
        // A log may begin later than its archive.
        let before = if number == 1 { Some(0) } else { self.kept };
        let goes = total([rows, seal.kept, seal.damaged].into_iter());
        if let Some(before) = before.filter(|before| before.saturating_add(seal.ended) != goes) {
            let Seal {
                ended,
                kept,
                damaged,
                ..
            } = seal;
            found.push(format!(
                "the counters do not add up: {before} sessions were kept before and {ended} ended, but {rows} are in \
                 files, {kept} are kept, and {damaged} were damaged"
            ));
        }
        let gaps = seal.gaps.iter().filter(|gap| tells_of_records(&gap.cause));
        let lost = total(gaps.filter_map(|gap| gap.lost));
        if lost != seal.lost {
            found.push(format!(
                "the counters do not add up: {} records were lost, and {lost} by its gaps",
                seal.lost
            ));
        }
        found
    }
}

/// The words for a file that went although its sessions ended too late.
fn excess(seal: &Seal, purge: &Purge) -> Option<String> {
    let before = purge.order.before.wall();
    let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let ended_later = |path: &&String| {
        let name = path
            .rsplit_once('/')
            .and_then(|(_, name)| name.rsplit_once('.'));
        let name = name.and_then(|(name, _)| Name::parse(name));
        let is_rewritten = seal.files.iter().any(|it| folder(&it.path) == folder(path));
        name.is_some_and(|name| name.until > before) && !is_rewritten
    };
    let path = seal.replaces.iter().find(ended_later)?;
    Some(format!(
        "the purge goes by sessions that ended before {before}, and \"{path}\" had others"
    ))
}

fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
