//! The archive's evidence logs: the record of each seal and of each act becomes an entry, exactly once and in order.
//!
//! | below the root | |
//! |---|---|
//! | `log/GATEWAY/` | the log of a gateway ([`proof::log`]), copied with the archive |
//! | `spool/keys/GATEWAY/` | its private keys, which no copy includes |
//!
//! An entry is the octets of the seal record's file, so that the file can be compared with it. A record that is longer than
//! an entry may be is named by a [`Digest`]; only a seal of hundreds of files or gaps has one. A record that is not in the
//! log yet is found by its number, whatever ended the process in between. A record of an [act](super::acts) may be deleted
//! some day, so that its entry is a [`Leaf`] with its hash.

mod acts;
mod prove;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::acts::LastAct;
pub use self::prove::{Proof, Unproved, prove};
use super::acts::Leaf;
use super::proof::log::Log;
use super::proof::merkle::Hash;
use super::proof::note::Note;
use super::proof::tiles::{MAX_ENTRY, Reader};
use super::proof::{self, hex};
use super::row::Millis;
use super::tree::{Name, Seal, Tree, encoded};
use crate::time::Wall;

/// So many entries are appended at a time, so that an archive without a log gets one little by little.
const PIECE: usize = 64;
/// Entries of a tile, for a look back from the end.
const WIDTH: u64 = 256;

/// An entry.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    Seal(Box<Seal>),
    Act(Box<Leaf>),
    Digest(Digest),
    /// Of a later version of this program, or one that names a key.
    Other(serde::de::IgnoredAny),
}

/// The entry for a seal record that is too long for one.
#[derive(Debug, Deserialize, Serialize)]
pub struct Digest {
    pub gateway: String,
    pub number: u64,
    /// The path of the record, relative to the root.
    pub record: String,
    pub sha256: String,
}

/// The one writer of a gateway's log.
#[derive(Debug)]
pub struct Evidence {
    tree: Tree,
    gateway: String,
    /// `None` before the first time, and after an error that may be over when it is opened anew.
    log: Option<Log>,
    /// The last seal in the log; `None` when that has to be looked up.
    last: Option<Last>,
    /// The same of acts.
    last_act: Option<LastAct>,
    /// Whether a seal was appended that [`Self::take_news`] has not told of.
    has_news: bool,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    until: Millis,
}

impl Entry {
    pub fn read(entry: &[u8]) -> Self {
        serde_json::from_slice(entry).unwrap_or(Self::Other(serde::de::IgnoredAny))
    }
}

/// The directory of a gateway's log.
pub fn log_directory(root: &Path, gateway: &str) -> PathBuf {
    root.join("log").join(encoded(gateway))
}

/// The name of the log in its checkpoints and keys. `gateway` is the name of its directory.
pub fn origin(gateway: &str) -> String {
    format!("nattrail/{gateway}")
}

/// The directories of all logs, by the gateways that name them.
///
/// # Errors
/// When the directory cannot be read; one that does not exist has none.
pub fn logs(root: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(root.join("log")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut logs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && path.is_dir()
        {
            logs.push((name.to_owned(), path));
        }
    }
    logs.sort();
    Ok(logs)
}

impl Evidence {
    pub fn new(root: &Path, gateway: &str) -> Self {
        Self {
            tree: Tree::new(root),
            gateway: gateway.to_owned(),
            log: None,
            last: None,
            last_act: None,
            has_news: false,
        }
    }

    /// Appends the records of seals up to this number that the log does not have, or some of them. Returns whether the log
    /// has all of them.
    ///
    /// # Errors
    /// Then the same call later goes on.
    pub fn append(&mut self, sealed: u64, now: Wall) -> Result<bool, proof::Error> {
        if self.last.is_some_and(|last| last.number >= sealed) {
            return Ok(true);
        }
        let mut log = match self.log.take() {
            Some(log) => log,
            None => self.open(now)?,
        };
        let appended = self.append_to(&mut log, sealed, now);
        match appended {
            Ok(_) => self.log = Some(log),
            Err(_) => self.last = None,
        }
        appended
    }

    /// The newest checkpoint, once after each seal that was appended.
    pub fn take_news(&mut self) -> Option<Note> {
        let note = self.log.as_ref()?.note()?.clone();
        std::mem::take(&mut self.has_news).then_some(note)
    }

    fn open(&self, now: Wall) -> Result<Log, proof::Error> {
        let root = self.tree.root();
        let keys = self.tree.spool().join("keys").join(encoded(&self.gateway));
        let (directory, origin) = (
            log_directory(root, &self.gateway),
            origin(&encoded(&self.gateway)),
        );
        Log::open(&directory, &keys, &origin, now)
    }

    fn append_to(&mut self, log: &mut Log, sealed: u64, now: Wall) -> Result<bool, proof::Error> {
        let mut last = match self.last {
            Some(last) => last,
            None => last_seal(&log.reader(now)?)?,
        };
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| proof::Error::Io(path, error)
        };
        let found = self.tree.seal_files_since(last.until);
        let records: Vec<(Name, PathBuf)> = found
            .map_err(at(self.tree.root()))?
            .into_iter()
            .filter(|(name, _)| name.is_of(&self.gateway) && name.number > last.number)
            .collect();
        let is_all = records.len() <= PIECE;
        for (_, path) in records.iter().take(PIECE) {
            let record = fs::read(path).map_err(at(path))?;
            let seal: Seal = serde_json::from_slice(&record)
                .map_err(|error| proof::Error::damaged(path, error.to_string()))?;
            let digest = || {
                let record = Digest {
                    gateway: seal.gateway.clone(),
                    number: seal.number,
                    record: seal.path(),
                    sha256: hex(&Hash::of(&record)),
                };
                serde_json::to_vec(&record).map_err(|error| at(path)(error.into()))
            };
            match record.len() {
                ..=MAX_ENTRY => log.append(&record, now)?,
                _ => log.append(&digest()?, now)?,
            };
            last = Last {
                number: seal.number,
                until: seal.until,
            };
            self.last = Some(last);
            self.has_news = true;
        }
        if is_all {
            // A record that is gone never comes: the hole in the numbers tells of it.
            let number = last.number.max(sealed);
            self.last = Some(Last { number, ..last });
        }
        Ok(is_all)
    }
}

/// The last seal in the log: that with the highest number, which is the last one there.
fn last_seal(log: &Reader) -> Result<Last, proof::Error> {
    let found = last(log, |entry| match entry {
        Entry::Seal(seal) => Some((seal.number, seal.until)),
        // Its record's name tells the time; all of them will do.
        Entry::Digest(digest) => Some((digest.number, Millis::default())),
        Entry::Act(_) | Entry::Other(_) => None,
    })?;
    let (number, until) = found.unwrap_or_default();
    Ok(Last { number, until })
}

/// Looks for the last entry of a kind, tile by tile from the end.
fn last<T>(
    log: &Reader,
    mut select: impl FnMut(Entry) -> Option<T>,
) -> Result<Option<T>, proof::Error> {
    let mut end = log.size();
    while end > 0 {
        let begin = (end - 1) / WIDTH * WIDTH;
        let mut last = None;
        log.for_each(begin..end, &mut |_, entry| {
            last = select(Entry::read(entry)).or(last.take());
        })?;
        if last.is_some() {
            return Ok(last);
        }
        end = begin;
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
