//! The log as it is written: each entry is on the disk, and signed, when [`Log::append`] returns.
//!
//! Files get their content under another name and are synced before they are renamed; the checkpoint comes last, first
//! among the [keys](super::keys), then in the log. What a machine that stopped has left beyond the checkpoint is written
//! anew. On the first day that differs from that of the key, an entry names the next key: see [`super`].

use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::keys::{DatedKey, Keys};
use super::merkle::Hash;
use super::note::{Checkpoint, Note, is_name};
use super::tiles::{Kind, LEVELS, MAX_ENTRY, Reader, Tile, WIDTH, read_checkpoint, root};
use crate::archive::disk;
use crate::time::Wall;

#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    origin: String,
    keys: Keys,
    /// What the files say; `None` after an error, when they have to be read again.
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    key: DatedKey,
    /// The entries of the last partial bundle, each after its length.
    bundle: Vec<u8>,
    /// The last partial tile of each level.
    tiles: [Vec<Hash>; LEVELS as usize],
    size: u64,
    note: Note,
}

impl Log {
    /// Opens the log in `dir`, or begins one; `keys` is a directory of its own, which no copy of the archive includes. The
    /// origin is a name like `gw1.example/nattrail`, the log's own for ever.
    ///
    /// # Errors
    /// When the log is not as it was signed last, when its private key is missing, and when somebody else has it open.
    pub fn open(dir: &Path, keys: &Path, origin: &str, now: Wall) -> Result<Self, Error> {
        if !is_name(origin) {
            return Err(Error::Name(origin.to_owned()));
        }
        let keys = Keys::open(keys, origin)?;
        disk::create_directory(dir, disk::DIRECTORY)?;
        let mut log = Self {
            dir: dir.to_owned(),
            origin: origin.to_owned(),
            keys,
            state: None,
        };
        log.state = Some(log.load(now)?);
        Ok(log)
    }

    /// Appends an entry, and returns its number. After an error it may be in the log or not: [`Self::reader`] tells.
    ///
    /// # Errors
    /// When it is too long or looks like a key entry, and when a file cannot be written.
    pub fn append(&mut self, entry: &[u8], now: Wall) -> Result<u64, Error> {
        if entry.len() > MAX_ENTRY {
            return Err(Error::TooLong(entry.len()));
        }
        if is_key_entry(entry, &self.origin) {
            return Err(Error::Reserved);
        }
        let mut state = self.take(now)?;
        if day(state.key.made) != day(now) {
            let next = self
                .keys
                .next()?
                .map_or_else(|| self.keys.make_next(now), Ok)?;
            let named = self.key_entry(&state, &next, &state.key);
            self.write(&mut state, &named)?;
            state = self.load(now)?;
        }
        self.write(&mut state, entry)?;
        let index = state.size - 1;
        self.state = Some(state);
        Ok(index)
    }

    /// The log as it is on the disk now, after what an error has left undone.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reader(&mut self, now: Wall) -> Result<Reader, Error> {
        let state = self.take(now)?;
        self.state = Some(state);
        Reader::open(&self.dir)
    }

    /// The newest checkpoint; `None` after an error.
    pub fn note(&self) -> Option<&Note> {
        self.state.as_ref().map(|state| &state.note)
    }

    fn take(&mut self, now: Wall) -> Result<State, Error> {
        self.state.take().map_or_else(|| self.load(now), Ok)
    }

    fn load(&self, now: Wall) -> Result<State, Error> {
        let signed = match read_checkpoint(&self.keys.path("checkpoint")) {
            Err(Error::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => None,
            signed => Some(signed?),
        };
        let public = self.dir.join("checkpoint");
        let Some((note, checkpoint)) = signed else {
            return if public.exists() {
                Err(self.no_key())
            } else {
                self.begin(now)
            };
        };
        let size = checkpoint.size;
        let reader = Reader::at(&self.dir, note.clone(), checkpoint.clone());
        let (bundle, tiles) = self.last_tiles(&reader)?;
        let last = reader.entry(size.saturating_sub(1))?;
        let key = self.key_after(&last, &note)?;
        if read_checkpoint(&public)
            .ok()
            .is_none_or(|(found, _)| found.text() != note.text())
        {
            self.publish(&note)?;
        }
        Ok(State {
            key,
            bundle,
            tiles,
            size,
            note,
        })
    }

    /// Signs the first entry, which names the first key. A key that is there already has signed nothing.
    fn begin(&self, now: Wall) -> Result<State, Error> {
        let key = self
            .keys
            .current()?
            .map_or_else(|| self.keys.make_current(now), Ok)?;
        let entry = Checkpoint {
            origin: self.origin.clone(),
            size: 0,
            root: Hash::of(b""),
            next: None,
        };
        let mut state = State {
            note: Note::sign(entry.to_string(), &key.key),
            key,
            bundle: Vec::new(),
            tiles: Default::default(),
            size: 0,
        };
        let entry = self.key_entry(&state, &state.key, &state.key);
        self.write(&mut state, &entry)?;
        Ok(state)
    }

    /// The key that signs after the last entry.
    fn key_after(&self, last: &[u8], note: &Note) -> Result<DatedKey, Error> {
        let is_named = |key: &DatedKey| match read_key_entry(last, &self.origin) {
            Some((
                _,
                Checkpoint {
                    next: Some((named, _)),
                    ..
                },
            )) => named == *key.key.public(),
            _ => note.is_signed_by(key.key.public()),
        };
        // The current one is overwritten, in part at worst, if the machine stopped during the switch.
        if self.keys.next()?.as_ref().is_some_and(is_named) {
            self.keys.switch()?;
        }
        self.keys
            .current()?
            .filter(is_named)
            .ok_or_else(|| self.no_key())
    }

    /// The last partial bundle, and the last partial tile of each level.
    fn last_tiles(
        &self,
        reader: &Reader,
    ) -> Result<(Vec<u8>, [Vec<Hash>; LEVELS as usize]), Error> {
        let size = reader.size();
        let mut tiles: [Vec<Hash>; LEVELS as usize] = Default::default();
        for (level, tile) in (0..).zip(&mut tiles) {
            let kind = Kind::Hashes(level);
            let count = kind.count(size);
            if !count.is_multiple_of(WIDTH) {
                *tile = reader.hashes(Tile::of(kind, count - 1, size))?;
            }
        }
        let mut bundle = Vec::new();
        let mut leaves = Vec::new();
        reader.for_each(size - size % WIDTH..size, &mut |_, entry| {
            leaves.push(Hash::leaf(entry));
            put(entry, &mut bundle);
        })?;
        if root_over(&tiles) != reader.checkpoint().root || leaves != tiles[0] {
            let reason = format!(
                "its files are not those of the checkpoint of {size} entries that was signed last; restore the newest copy"
            );
            return Err(Error::damaged(&self.dir, reason));
        }
        Ok((bundle, tiles))
    }

    /// An entry that names a key: the checkpoint before it, signed by the key so far.
    fn key_entry(&self, state: &State, named: &DatedKey, by: &DatedKey) -> Vec<u8> {
        let checkpoint = Checkpoint {
            origin: self.origin.clone(),
            size: state.size,
            root: root_over(&state.tiles),
            next: Some((named.key.public().clone(), named.made)),
        };
        Note::sign(checkpoint.to_string(), &by.key)
            .to_string()
            .into_bytes()
    }

    fn write(&self, state: &mut State, entry: &[u8]) -> Result<(), Error> {
        let files = state.push(entry);
        for (tile, octets) in &files {
            let path = self.dir.join(tile.path());
            disk::create_directory(path.parent().unwrap_or(&self.dir), disk::DIRECTORY)?;
            self.replace(&path, octets)?;
        }
        let checkpoint = Checkpoint {
            origin: self.origin.clone(),
            size: state.size,
            root: root_over(&state.tiles),
            next: None,
        };
        state.note = Note::sign(checkpoint.to_string(), &state.key.key);
        self.keys.replace("checkpoint", &state.note.to_string())?;
        self.publish(&state.note)?;
        // The partial ones before a full one are of no more use, and do no harm.
        for (tile, _) in files.iter().filter(|(tile, _)| tile.width == WIDTH) {
            let partial = Tile { width: 1, ..*tile }.path();
            if let Some(dir) = partial.parent() {
                let _ = disk::remove(&self.dir.join(dir));
            }
        }
        Ok(())
    }

    fn publish(&self, note: &Note) -> Result<(), Error> {
        self.replace(&self.dir.join("checkpoint"), note.to_string().as_bytes())
    }

    fn replace(&self, path: &Path, octets: &[u8]) -> Result<(), Error> {
        Ok(disk::replace(
            path,
            &self.dir.join("new"),
            octets,
            disk::FILE,
        )?)
    }

    fn no_key(&self) -> Error {
        Error::NoKey(self.dir.clone())
    }
}

impl State {
    /// Returns the files that change, with their content.
    fn push(&mut self, entry: &[u8]) -> Vec<(Tile, Vec<u8>)> {
        self.size += 1;
        put(entry, &mut self.bundle);
        let mut files = vec![(
            Tile::of(Kind::Entries, self.size - 1, self.size),
            self.bundle.clone(),
        )];
        let mut hash = Hash::leaf(entry);
        for (level, tile) in (0..).zip(&mut self.tiles) {
            tile.push(hash);
            let kind = Kind::Hashes(level);
            let octets = tile.iter().flat_map(|hash| hash.0).collect();
            files.push((Tile::of(kind, kind.count(self.size) - 1, self.size), octets));
            if (tile.len() as u64) < WIDTH {
                break;
            }
            hash = root(tile);
            tile.clear();
        }
        if self.tiles[0].is_empty() {
            self.bundle.clear();
        }
        files
    }
}

/// Whether the entry claims to be one that names a key: it begins with the origin.
pub(super) fn is_key_entry(entry: &[u8], origin: &str) -> bool {
    let rest = entry.strip_prefix(origin.as_bytes());
    rest.is_some_and(|rest| rest.starts_with(b"\n"))
}

/// The note of a key entry and the checkpoint in it; `None` for any other entry.
pub(super) fn read_key_entry(entry: &[u8], origin: &str) -> Option<(Note, Checkpoint)> {
    let text = std::str::from_utf8(entry)
        .ok()
        .filter(|_| is_key_entry(entry, origin))?;
    let note: Note = text.parse().ok()?;
    let checkpoint: Checkpoint = note.text().parse().ok()?;
    checkpoint.next.is_some().then_some((note, checkpoint))
}

/// The root over the last partial tiles of all levels: what is left of each level is to the right of the level above.
fn root_over(tiles: &[Vec<Hash>]) -> Hash {
    let mut rest = None;
    for tile in tiles {
        let hashes: Vec<_> = tile.iter().copied().chain(rest).collect();
        rest = (!hashes.is_empty()).then(|| root(&hashes));
    }
    rest.unwrap_or_else(|| Hash::of(b""))
}

fn put(entry: &[u8], bundle: &mut Vec<u8>) {
    // `append` has refused a longer one, and a key entry is short.
    let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
}

const fn day(time: Wall) -> u64 {
    time.as_secs() / 86_400
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::super::note::PrivateKey;
    use super::*;

    /// Writes a log of these entries over that in `dir`, as somebody does who has one key.
    pub(in super::super) fn write(dir: &Path, entries: &[Vec<u8>], key: &PrivateKey) {
        let mut tiles: [Vec<Hash>; LEVELS as usize] = Default::default();
        tiles[0] = entries.iter().map(|entry| Hash::leaf(entry)).collect();
        let mut bundle = Vec::new();
        entries.iter().for_each(|entry| put(entry, &mut bundle));
        let size = entries.len() as u64;
        let hashes: Vec<u8> = tiles[0].iter().flat_map(|hash| hash.0).collect();
        fs::remove_dir_all(dir.join("tile")).unwrap();
        for (kind, octets) in [(Kind::Entries, bundle), (Kind::Hashes(0), hashes)] {
            let path = dir.join(Tile::of(kind, 0, size).path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, octets).unwrap();
        }
        let checkpoint = Checkpoint {
            origin: key.public().name().to_owned(),
            size,
            root: root_over(&tiles),
            next: None,
        };
        let note = Note::sign(checkpoint.to_string(), key);
        fs::write(dir.join("checkpoint"), note.to_string()).unwrap();
    }
}
