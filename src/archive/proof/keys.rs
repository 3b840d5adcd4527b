//! The private keys of a log: one signs, and the next one waits to be named in the log.
//!
//! - `current` signs, unless the last entry of the log names `next`: then the one replaces the other, after it was
//!   overwritten. At any moment one of both is the log's, whenever the machine stops.
//! - `next` is made, and on the disk, before any entry names it; one that was made and not named is named later. So a key
//!   never has two successors.
//! - `checkpoint` is the one that was signed last. It is written before the log's own: a log that is restored from an older
//!   copy cannot go on, and sign something else than before.
//!
//! A file that is overwritten in place may leave its octets elsewhere: on flash, in a copy-on-write file system, in backups.

use std::io;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::note::PrivateKey;
use super::tiles::read;
use super::{Error, base64};
use crate::archive::disk::{self, Lock};
use crate::time::Wall;

/// A private key and when it was made.
#[derive(Debug)]
pub(super) struct DatedKey {
    pub(super) key: PrivateKey,
    pub(super) made: Wall,
}

#[derive(Debug)]
pub(super) struct Keys {
    dir: PathBuf,
    origin: String,
    _lock: Lock,
}

const CURRENT: &str = "current";
const NEXT: &str = "next";
const PREFIX: &str = "PRIVATE+KEY+";
/// Of files that their owner alone may read.
const MODE: u32 = 0o600;

impl Keys {
    pub(super) fn open(dir: &Path, origin: &str) -> Result<Self, Error> {
        disk::create_directory(dir, 0o700)?;
        let path = dir.join("lock");
        let lock = Lock::take(&path, MODE)?.ok_or(Error::Locked(path))?;
        Ok(Self {
            dir: dir.to_owned(),
            origin: origin.to_owned(),
            _lock: lock,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `None` if there is none, or if it was overwritten already.
    pub(super) fn current(&self) -> Result<Option<DatedKey>, Error> {
        self.read(CURRENT)
    }

    pub(super) fn next(&self) -> Result<Option<DatedKey>, Error> {
        self.read(NEXT)
    }

    pub(super) fn make_current(&self, now: Wall) -> Result<DatedKey, Error> {
        self.make(CURRENT, now)
    }

    pub(super) fn make_next(&self, now: Wall) -> Result<DatedKey, Error> {
        self.make(NEXT, now)
    }

    /// Overwrites the current key, and puts the next one in its place.
    pub(super) fn switch(&self) -> Result<(), Error> {
        let (current, next) = (self.path(CURRENT), self.path(NEXT));
        disk::erase(&current)?;
        disk::rename(&next, &current)?;
        Ok(disk::sync_directory(&self.dir)?)
    }

    /// Writes a file beside the keys, and its name, to the disk.
    pub(super) fn replace(&self, name: &str, text: &str) -> Result<(), Error> {
        let (path, by) = (self.path(name), self.path("new"));
        Ok(disk::replace(&path, &by, text.as_bytes(), MODE)?)
    }

    fn make(&self, name: &str, now: Wall) -> Result<DatedKey, Error> {
        let mut seed = [0; 32];
        let random = SystemRandom::new().fill(&mut seed);
        let key = random
            .ok()
            .and_then(|()| PrivateKey::new(&self.origin, &seed));
        let key = key.ok_or_else(|| {
            Error::Io(
                self.path(name),
                io::Error::other("the system gives no random octets"),
            )
        })?;
        self.replace(name, &text(&key, &seed, now))?;
        Ok(DatedKey { key, made: now })
    }

    fn read(&self, name: &str) -> Result<Option<DatedKey>, Error> {
        let path = self.path(name);
        let octets = match read(&path, 4_096) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            octets => octets.map_err(|error| Error::Io(path.clone(), error))?,
        };
        if octets.iter().all(|&octet| octet == 0) {
            return Ok(None);
        }
        let key = || {
            let text_read = std::str::from_utf8(&octets).ok()?;
            let (first, made) = text_read.strip_suffix('\n')?.split_once('\n')?;
            let mut parts = first.strip_prefix(PREFIX)?.splitn(3, '+').skip(2);
            let seed = base64::decode(parts.next()?)?;
            let (_, seed) = seed.split_first()?;
            let (key, made) = (PrivateKey::new(&self.origin, seed)?, Wall::parse(made)?);
            (text(&key, seed, made) == text_read).then_some(DatedKey { key, made })
        };
        let expected = || {
            Error::damaged(
                &path,
                format!("expected a private key of \"{}\"", self.origin),
            )
        };
        key().map(Some).ok_or_else(expected)
    }
}

/// The form that other programs for notes take, and when it was made.
fn text(key: &PrivateKey, seed: &[u8], made: Wall) -> String {
    let id = u32::from_be_bytes(key.public().id());
    let octets = base64::encode(&[&[1], seed].concat());
    format!(
        "{PREFIX}{}+{id:08x}+{octets}\n{made}\n",
        key.public().name()
    )
}
