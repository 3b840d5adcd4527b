//! A log's files (c2sp.org/tlog-tiles): their names, and reading them without trust in what they say.
//!
//! `checkpoint` is a signed note with size and root. `tile/0/…` has the hashes of the entries, 256 a file, `tile/1/…` those
//! of full files of level 0, and so on; `tile/entries/…` has the entries, each after its length in two octets. The last
//! file of a level is partial: `….p/W` with W hashes or entries.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Error;
use super::log::read_key_entry;
use super::merkle::{self, Hash, Tree};
use super::note::{Checkpoint, MAX_NOTE, Note, PublicKey};
use crate::time::Wall;

/// Hashes or entries of a full tile.
pub(super) const WIDTH: u64 = 256;
/// A tree of 2^64 leaves has no more.
pub(super) const LEVELS: u32 = 8;
/// The length of an entry is two octets in a bundle of entries.
pub const MAX_ENTRY: usize = 65_535;

/// One file of hashes or entries.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Tile {
    pub(super) kind: Kind,
    pub(super) index: u64,
    /// Up to 256.
    pub(super) width: u64,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Entries,
    /// Of a level below [`LEVELS`].
    Hashes(u32),
}

impl Kind {
    /// How many hashes or entries of this kind a log of this size has.
    pub(super) const fn count(self, size: u64) -> u64 {
        match self {
            Self::Entries => size,
            Self::Hashes(level) => size >> (8 * level),
        }
    }
}

impl Tile {
    /// The tile in which a log of this size has this hash or entry.
    pub(super) fn of(kind: Kind, at: u64, size: u64) -> Self {
        let index = at / WIDTH;
        let width = kind.count(size).saturating_sub(index * WIDTH).min(WIDTH);
        Self { kind, index, width }
    }

    /// All tiles of a kind that a log of this size has.
    pub(super) fn all(kind: Kind, size: u64) -> impl Iterator<Item = Self> {
        let tiles = kind.count(size).div_ceil(WIDTH);
        (0..tiles).map(move |index| Self::of(kind, index * WIDTH, size))
    }

    /// The name below the log's directory.
    pub(super) fn path(self) -> PathBuf {
        let mut path = PathBuf::from("tile");
        path.push(match self.kind {
            Kind::Entries => "entries".to_owned(),
            Kind::Hashes(level) => level.to_string(),
        });
        let mut digits = format!("{:03}", self.index);
        while digits.len() % 3 != 0 {
            digits.insert(0, '0');
        }
        for at in (0..digits.len()).step_by(3) {
            let is_last = at + 3 == digits.len();
            let (mark, end) = match (is_last, self.width) {
                (false, _) => ("x", ""),
                (true, WIDTH) => ("", ""),
                (true, _) => ("", ".p"),
            };
            path.push(format!("{mark}{}{end}", &digits[at..at + 3]));
        }
        if self.width < WIDTH {
            path.push(self.width.to_string());
        }
        path
    }

    /// The tile of this name; `None` for any other file.
    pub(super) fn parse(path: &Path) -> Option<Self> {
        let mut parts = path.to_str()?.strip_prefix("tile/")?.split('/');
        let kind = match parts.next()? {
            "entries" => Kind::Entries,
            level => Kind::Hashes(level.parse().ok().filter(|&level| level < LEVELS)?),
        };
        let rest: Vec<_> = parts.collect();
        let (width, rest) = match rest.split_last()? {
            (width, rest) if rest.last().is_some_and(|last| last.ends_with(".p")) => {
                (width.parse().ok()?, rest)
            }
            _ => (WIDTH, rest.as_slice()),
        };
        let digits: String = rest
            .iter()
            .flat_map(|part| part.chars())
            .filter(char::is_ascii_digit)
            .collect();
        let index = digits
            .parse()
            .ok()
            .filter(|&index: &u64| index < u64::MAX / WIDTH)?;
        let tile = Self { kind, index, width };
        (tile.path() == path && (1..=WIDTH).contains(&width)).then_some(tile)
    }
}

/// The hash over the leaves of a full tile.
pub(super) fn root(hashes: &[Hash]) -> Hash {
    hashes.iter().copied().collect::<Tree>().root()
}

/// Reads a file up to a length; a longer one is cut.
pub(super) fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(path)?
        .take(most as u64)
        .read_to_end(&mut octets)?;
    Ok(octets)
}

pub(super) fn hashes(octets: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = octets.as_chunks();
    rest.is_empty()
        .then(|| hashes.iter().copied().map(Hash).collect())
}

/// Takes apart a bundle of entries; `None` if it ends within one.
pub(super) fn entries(mut octets: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = octets.split_first_chunk() {
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        entries.push(entry);
        octets = rest;
    }
    octets.is_empty().then_some(entries)
}

/// The most octets of a tile's file; one more, so that a longer file shows.
pub(super) const fn most(kind: Kind) -> usize {
    let each = match kind {
        Kind::Entries => 2 + MAX_ENTRY,
        Kind::Hashes(_) => 32,
    };
    WIDTH as usize * each + 1
}

/// A log to read from. What it gives is not checked; see [`super::verify`].
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    note: Note,
    checkpoint: Checkpoint,
}

impl Reader {
    /// # Errors
    /// When there is no checkpoint, or something else in its place.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("checkpoint");
        let (note, checkpoint) = read_checkpoint(&path)?;
        Ok(Self::at(dir, note, checkpoint))
    }

    pub(super) fn at(dir: &Path, note: Note, checkpoint: Checkpoint) -> Self {
        let dir = dir.to_owned();
        Self {
            dir,
            note,
            checkpoint,
        }
    }

    pub const fn size(&self) -> u64 {
        self.checkpoint.size
    }

    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signed checkpoint, of which a copy elsewhere is a witness.
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// The first public key, by the word of the log itself.
    ///
    /// # Errors
    /// When the first entry does not name it.
    pub fn first_key(&self) -> Result<PublicKey, Error> {
        let named = read_key_entry(&self.entry(0)?, &self.checkpoint.origin);
        let key = named.and_then(|(_, checkpoint)| Some(checkpoint.next?.0));
        key.ok_or_else(|| Error::damaged(&self.dir, "entry 0 names no key".to_owned()))
    }

    /// The newest key of the last few hundred entries, and when it was made, by the word of the log itself.
    ///
    /// # Errors
    /// When a file of these entries is missing or damaged.
    pub fn newest_key(&self) -> Result<Option<(PublicKey, Wall)>, Error> {
        let (size, mut newest) = (self.size(), None);
        // A day has fewer entries than a tile.
        let begin = (size.saturating_sub(1) / WIDTH).saturating_sub(1) * WIDTH;
        self.for_each(begin..size, &mut |_, entry| {
            if let Some((_, named)) = read_key_entry(entry, &self.checkpoint.origin) {
                newest = named.next;
            }
        })?;
        Ok(newest)
    }

    /// # Errors
    /// When the entry's file is missing or damaged.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, Error> {
        let mut found = None;
        self.for_each(index..index.saturating_add(1), &mut |_, entry| {
            found = Some(entry.to_vec())
        })?;
        found.ok_or_else(|| Error::damaged(&self.dir, format!("there is no entry {index}")))
    }

    /// Gives the entries of a range to `each`, with their numbers.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn for_each(
        &self,
        range: Range<u64>,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), Error> {
        let range = range.start..range.end.min(self.size());
        let mut at = range.start;
        while at < range.end {
            let tile = Tile::of(Kind::Entries, at, self.size());
            let (path, octets) = self.tile(tile)?;
            let found = entries(&octets).filter(|entries| entries.len() as u64 >= tile.width);
            let found = found
                .ok_or_else(|| Error::damaged(&path, format!("expected {} entries", tile.width)))?;
            let first = tile.index * WIDTH;
            let wanted = (at - first) as usize..tile.width.min(range.end - first) as usize;
            for entry in &found[wanted] {
                each(at, entry);
                at += 1;
            }
        }
        Ok(())
    }

    /// The inclusion proof of an entry in the tree over the first `size` entries.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the log is smaller.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
        self.proof(merkle::siblings(index, size))
    }

    /// The proof that the tree over the first `size` entries begins with that over the first `old` ones.
    ///
    /// # Errors
    /// As [`Self::inclusion`].
    pub fn consistency(&self, old: u64, size: u64) -> Result<Vec<Hash>, Error> {
        self.proof(merkle::consistency(old, size))
    }

    pub(super) fn hashes(&self, tile: Tile) -> Result<Vec<Hash>, Error> {
        let (path, octets) = self.tile(tile)?;
        let found = hashes(&octets).filter(|hashes| hashes.len() as u64 >= tile.width);
        let mut found = found
            .ok_or_else(|| Error::damaged(&path, format!("expected {} hashes", tile.width)))?;
        found.truncate(tile.width as usize);
        Ok(found)
    }

    fn proof(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Hash>, Error> {
        let each = ranges.into_iter();
        each.map(|range| merkle::hash(range, &mut |level, index| self.subtree(level, index)))
            .collect()
    }

    /// The hash over the `1 << level` leaves from `index << level` on.
    fn subtree(&self, level: u32, index: u64) -> Result<Hash, Error> {
        let kind = Kind::Hashes(level / 8);
        let (first, count) = (index << (level % 8), 1 << (level % 8));
        let tile = Tile::of(kind, first, self.size());
        let at = first % WIDTH;
        let hashes = self.hashes(tile)?;
        let part = hashes.get(at as usize..(at + count) as usize);
        part.map(root).ok_or_else(|| {
            Error::damaged(&self.dir, "the log is too short for this proof".to_owned())
        })
    }

    /// A partial tile may have been removed when it was full: then the full one begins with it.
    fn tile(&self, tile: Tile) -> Result<(PathBuf, Vec<u8>), Error> {
        let path = self.dir.join(tile.path());
        match read(&path, most(tile.kind)) {
            Ok(octets) => Ok((path, octets)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && tile.width < WIDTH => self
                .tile(Tile {
                    width: WIDTH,
                    ..tile
                }),
            Err(error) => Err(Error::Io(path, error)),
        }
    }
}

/// A checkpoint's file.
///
/// # Errors
/// When there is none, or something else in its place.
pub fn read_checkpoint(path: &Path) -> Result<(Note, Checkpoint), Error> {
    let octets = read(path, MAX_NOTE + 1).map_err(|error| Error::Io(path.to_owned(), error))?;
    let damaged = |reason: &str| Error::damaged(path, reason.to_owned());
    let text = String::from_utf8(octets).map_err(|_| damaged("not a signed note"))?;
    let note: Note = text.parse().map_err(damaged)?;
    let checkpoint = note.text().parse().map_err(damaged)?;
    Ok((note, checkpoint))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_of_tiles_are_those_of_the_specification() {
        for (kind, at, size, name) in [
            (
                Kind::Hashes(0),
                1_234_067 * 256,
                u64::MAX,
                "tile/0/x001/x234/067",
            ),
            (Kind::Hashes(0), 69_999, 70_000, "tile/0/273.p/112"),
            (Kind::Hashes(0), 0, 70_000, "tile/0/000"),
            (Kind::Hashes(1), 272, 70_000, "tile/1/001.p/17"),
            (Kind::Hashes(2), 0, 70_000, "tile/2/000.p/1"),
            (Kind::Entries, 255_999, 256_000, "tile/entries/999"),
            (Kind::Entries, 256_000, 256_001, "tile/entries/x001/000.p/1"),
        ] {
            let tile = Tile::of(kind, at, size);
            assert_eq!(tile.path().to_str(), Some(name));
            assert_eq!(Tile::parse(Path::new(name)), Some(tile));
        }
    }

    #[test]
    fn other_names_are_not_those_of_tiles() {
        for name in [
            "tile",
            "tile/0",
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/0/000.p",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/x000/000",
            "tile/0/x001",
            "tile/0/001/000",
            "tile/a/000",
            "tile/0/000/x",
            "tile/8/000",
            "other/0/000",
            "tile/0/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Tile::parse(Path::new(name)), None, "{name}");
        }
    }
}
