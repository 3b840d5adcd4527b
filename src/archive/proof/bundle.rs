//! What shows one entry of a log, and one row of a file that it tells of, to somebody who has only the first public key.
//!
//! The text is a c2sp.org/tlog-proof of the entry; the rest stands in its line `extra`, as JSON in base64. The checkpoint is
//! signed by the key of the entry's own epoch: for an epoch that has ended it is the one in the entry that names the next
//! key. So a key that was stolen later, or the key of another day, cannot make a bundle for this entry.
//!
//! A bundle is read only if it is exactly the text that this program writes for it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::log::{is_key_entry, read_key_entry};
use super::merkle::{Hash, root_of};
use super::note::{Checkpoint, Note, PublicKey};
use super::rows::RowProof;
use super::tiles::Reader;
use super::{Error, base64};
use crate::archive::row::Row;
use crate::time::Wall;

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    extra: Extra,
    index: u64,
    path: Vec<Hash>,
    note: Note,
}

/// The part that a reader of tlog-proof leaves alone.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Extra {
    #[serde(with = "super::base64::octets")]
    entry: Vec<u8>,
    /// The entries that name the keys up to this one's.
    keys: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<RowProof>,
}

/// What a bundle shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    pub origin: String,
    pub index: u64,
    pub entry: Vec<u8>,
    /// When the key was made that signed, by the gateway's clock: the entry is not older, and not younger than the next key.
    pub since: Wall,
    pub row: Option<Row>,
}

/// Why a bundle shows nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flaw {
    /// The text is not that of a bundle.
    Text,
    /// It is of another log than the key.
    Origin,
    /// The first key that it names is not the one that was given.
    FirstKey,
    /// This key entry is not signed by the key before it, or out of order.
    Key(usize),
    /// The entry is not of the epoch of the key that signed the checkpoint.
    Epoch,
    /// The key of the epoch has not signed the checkpoint.
    Signature,
    /// The path does not lead from the entry to the root of the checkpoint.
    Entry,
    /// The path does not lead from the row to a root that the entry names.
    Row,
}

const TITLE: &str = "c2sp.org/tlog-proof@v1";

impl Bundle {
    /// # Errors
    /// When the log cannot be read, or has no such entry, or it names a key.
    pub fn make(log: &Reader, index: u64, row: Option<RowProof>) -> Result<Self, Error> {
        let origin = &log.checkpoint().origin;
        let entry = log.entry(index)?;
        if is_key_entry(&entry, origin) {
            return Err(Error::Reserved);
        }
        let (mut keys, mut after) = (Vec::new(), None);
        log.for_each(0..log.size(), &mut |at, entry| {
            let Some(found) = read_key_entry(entry, origin) else {
                return;
            };
            if at < index {
                keys.push(found.0.to_string());
            } else {
                after.get_or_insert(found);
            }
        })?;
        let (note, checkpoint) =
            after.unwrap_or_else(|| (log.note().clone(), log.checkpoint().clone()));
        Ok(Self {
            path: log.inclusion(index, checkpoint.size)?,
            extra: Extra { entry, keys, row },
            index,
            note,
        })
    }

    /// The first key by the word of the bundle itself, for one whose key is not known otherwise.
    pub fn first_key(&self) -> Option<PublicKey> {
        let checkpoint: Checkpoint = self.note.text().parse().ok()?;
        let first = self.extra.keys.first()?;
        let (_, named) = read_key_entry(first.as_bytes(), &checkpoint.origin)?;
        Some(named.next?.0)
    }

    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, first: &PublicKey) -> Result<Shown, Flaw> {
        let origin = first.name();
        let checkpoint: Checkpoint = self.note.text().parse().map_err(|_| Flaw::Text)?;
        if checkpoint.origin != origin {
            return Err(Flaw::Origin);
        }
        let mut signer: Option<(PublicKey, Wall, u64)> = None;
        for (number, entry) in self.extra.keys.iter().enumerate() {
            let read = read_key_entry(entry.as_bytes(), origin);
            let (note, at) = read.ok_or(Flaw::Key(number))?;
            let (named, made) = at.next.ok_or(Flaw::Key(number))?;
            let by = signer.as_ref().map_or(first, |(key, _, _)| key);
            let is_next = signer
                .as_ref()
                .map_or(at.size == 0, |(_, _, last)| at.size > *last);
            if signer.is_none() && named != *first {
                return Err(Flaw::FirstKey);
            }
            if !(note.is_signed_by(by) && is_next) {
                return Err(Flaw::Key(number));
            }
            signer = Some((named, made, at.size));
        }
        let (signer, since, named) = signer.ok_or(Flaw::FirstKey)?;
        if self.index <= named {
            return Err(Flaw::Epoch);
        }
        if !self.note.is_signed_by(&signer) {
            return Err(Flaw::Signature);
        }
        let entry = self.extra.entry.clone();
        if root_of(Hash::leaf(&entry), self.index, checkpoint.size, &self.path)
            != Some(checkpoint.root)
        {
            return Err(Flaw::Entry);
        }
        Ok(Shown {
            origin: checkpoint.origin,
            index: self.index,
            row: self
                .extra
                .row
                .as_ref()
                .map(|proof| row(proof, &entry))
                .transpose()?,
            entry,
            since,
        })
    }
}

/// The row, if its path leads to a root that the entry names.
fn row(proof: &RowProof, entry: &[u8]) -> Result<Row, Flaw> {
    let (row, root) = proof.check().ok_or(Flaw::Row)?;
    let entry: Value = serde_json::from_slice(entry).map_err(|_| Flaw::Row)?;
    let names =
        |file: &Value| file["row_root"] == root.to_string().as_str() && file["rows"] == proof.rows;
    let is_named = entry["files"]
        .as_array()
        .is_some_and(|files| files.iter().any(names));
    is_named.then_some(row).ok_or(Flaw::Row)
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra = serde_json::to_vec(&self.extra).map_err(|_| fmt::Error)?;
        writeln!(
            f,
            "{TITLE}\nextra {}\nindex {}",
            base64::encode(&extra),
            self.index
        )?;
        self.path
            .iter()
            .try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.note)
    }
}

impl FromStr for Bundle {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (proof, note) = text.split_once("\n\n")?;
            let mut lines = proof.lines().skip(1);
            let extra = base64::decode(lines.next()?.strip_prefix("extra ")?)?;
            let found = Self {
                extra: serde_json::from_slice(&extra).ok()?,
                index: lines.next()?.strip_prefix("index ")?.parse().ok()?,
                path: lines.map(|line| line.parse().ok()).collect::<Option<_>>()?,
                note: note.parse().ok()?,
            };
            (found.to_string() == text).then_some(found)
        };
        read().ok_or(Flaw::Text)
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("not a proof as nattrail writes it"),
            Self::Origin => f.write_str("the checkpoint is not of the log that the key belongs to"),
            Self::FirstKey => {
                f.write_str("the first key that it names is not the one that was given")
            }
            Self::Key(number) => write!(f, "key entry {number} is not signed by the key before it"),
            Self::Epoch => {
                f.write_str("the entry is older than the key that signed the checkpoint")
            }
            Self::Signature => {
                f.write_str("the checkpoint is not signed by the key of the entry's day")
            }
            Self::Entry => f.write_str("the path does not lead from the entry to the checkpoint"),
            Self::Row => {
                f.write_str("the path does not lead from the row to a file that the entry names")
            }
        }
    }
}

#[cfg(test)]
impl Bundle {
    /// This bundle's keys and checkpoint with the entry of another.
    pub(super) fn with_entry_of(mut self, other: &Self, path: Vec<Hash>) -> Self {
        self.extra.entry.clone_from(&other.extra.entry);
        self.index = other.index;
        self.path = path;
        self
    }
}
