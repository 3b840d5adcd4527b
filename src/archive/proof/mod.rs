//! Proof: the archive holds what it was given, all of it, unchanged since it was signed.
//!
//! [`log`] is an append-only Merkle log of entries (seal records and the like, whose content is not this module's matter), in
//! the static files of c2sp.org/tlog-tiles ([`tiles`]) with a signed checkpoint ([`note`]). An entry is on the disk and signed
//! when its append returns. [`rows`] is the tree over the rows of a sealed file; its root stands in an entry, as
//! `files[].row_root` of a JSON object, beside `files[].rows`. [`verify`] checks a whole log, and [`bundle`] shows one entry
//! and one row to somebody who has only the first public key.
//!
//! **Keys.** There is one key per day that has entries. An entry that begins with the origin of the log names a key: it is a
//! note with the checkpoint over all entries before it and the next public key, signed by the key so far (the first by
//! itself). The key that entry `i` names signs the checkpoints of `i + 2` entries on, so that there is exactly one key for
//! each size, and the signatures of past days over all that came before stay in the log. The private key before is
//! overwritten then ([`keys`]). Who steals the key of a day cannot change the days before.
//!
//! nattrail-proof(7) has the formats, and a recipe by which others check them.

pub mod bundle;
pub mod log;
pub mod merkle;
pub mod note;
pub mod rows;
pub mod tiles;
pub mod timestamp;
pub mod verify;
pub mod witness;

mod keys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::disk;

/// Why a log cannot be read or written.
#[derive(Debug)]
pub enum Error {
    Io(PathBuf, io::Error),
    /// The file is not what the log needs there, and why.
    Damaged(PathBuf, String),
    /// Another process writes the log.
    Locked(PathBuf),
    /// The private key of this log is missing.
    NoKey(PathBuf),
    /// No log can have this origin.
    Name(String),
    /// An entry has more octets than [`tiles::MAX_ENTRY`].
    TooLong(usize),
    /// An entry begins like one that names a key.
    Reserved,
}

impl Error {
    pub(super) fn damaged(path: &Path, reason: String) -> Self {
        Self::Damaged(path.to_owned(), reason)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(path, reason) => write!(f, "{}: {reason}", path.display()),
            Self::Locked(path) => write!(f, "{}: another process has the log open", path.display()),
            Self::NoKey(dir) => write!(
                f,
                "{}: the private key of this log is missing; restore the directory of its keys, or move the log away to \
                 begin another",
                dir.display()
            ),
            Self::Name(name) => write!(
                f,
                "\"{name}\" cannot name a log: expected a name without spaces and without +, such as gw1.example/nattrail"
            ),
            Self::TooLong(length) => write!(
                f,
                "an entry of {length} octets: the log takes at most {} in one",
                tiles::MAX_ENTRY
            ),
            Self::Reserved => f.write_str("an entry begins like one that names a key of the log"),
        }
    }
}

impl std::error::Error for Error {}

impl From<disk::Error> for Error {
    fn from(disk::Error(path, error): disk::Error) -> Self {
        Self::Io(path, error)
    }
}

/// As `sha256sum` prints it.
pub(super) fn hex(hash: &merkle::Hash) -> String {
    hash.0.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Base64 as in RFC 4648 section 4, in its one canonical form.
mod base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    pub(super) fn encode(octets: &[u8]) -> String {
        STANDARD.encode(octets)
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        STANDARD.decode(text).ok()
    }

    /// For serde.
    pub(super) mod octets {
        use serde::de::Error as _;
        use serde::{Deserialize as _, Deserializer, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            octets: &[u8],
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.serialize_str(&super::encode(octets))
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Vec<u8>, D::Error> {
            let text = String::deserialize(from)?;
            super::decode(&text).ok_or_else(|| D::Error::custom("not base64"))
        }
    }
}
