//! Checks a log offline: every octet of its files, its keys from the first one on, and that nothing is cut off.
//!
//! All is computed anew from the entries. If their root is not that of the checkpoint, but that of the tiles of level 0 is,
//! the entries were changed, otherwise the tiles: so that findings name the file at fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Error;
use super::log::{is_key_entry, read_key_entry};
use super::merkle::{Hash, Tree};
use super::note::{Checkpoint, Note, PublicKey};
use super::tiles::{Kind, LEVELS, Tile, WIDTH, entries, hashes, most, read, read_checkpoint, root};
use super::timestamp;
use crate::time::Wall;

/// Files beyond the checkpoint may be those of an append that goes on, or that the machine's stop has cut off, but not
/// for long.
const TAIL: Duration = Duration::from_secs(3_600);

/// What a log says, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    /// Nothing but the findings counts unless this is empty.
    pub findings: Vec<Finding>,
    pub size: u64,
    pub root: Hash,
    /// The keys so far, with the entries that name them.
    pub epochs: Vec<Epoch>,
    /// The sizes of which there is a time stamp, and the times that these say. Nobody has checked that of the authority.
    pub stamps: Vec<(u64, Wall)>,
}

/// A key, which signs checkpoints from two entries after its own on, to the one after that of the next key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Epoch {
    pub entry: u64,
    pub key: PublicKey,
    pub made: Wall,
}

#[derive(Debug, Eq, PartialEq)]
pub struct Finding {
    /// Below the directory of the log.
    pub file: PathBuf,
    pub fault: Fault,
}

#[derive(Debug, Eq, PartialEq)]
pub enum Fault {
    Missing,
    Unreadable(String),
    /// The log has no such file.
    Added,
    /// It has fewer or more entries or hashes than its name says, or ends within one.
    Length,
    /// This entry is not the one that was logged.
    Entry(u64),
    /// This hash is not that of the entries below it.
    Hash(u64),
    /// The checkpoint is not that of the entries.
    Root,
    /// The checkpoint is that of another log.
    Origin(String),
    /// The first entry does not name the key that was given.
    FirstKey,
    /// This entry should name a key, and be signed over all entries before it.
    KeyEntry(u64),
    /// The key that signed (the checkpoint of this size) is not named in the log, or not by the key before it.
    MissingEpoch(u64),
    /// It is signed by a key of the log, before or after its time.
    OutsideEpoch(u64),
    /// The signature of the right key is not one of this text.
    Signature(u64),
    /// A witness saw more entries.
    CutOff {
        size: u64,
        witnessed: u64,
    },
    /// A witness saw other entries below this number.
    Rewritten(u64),
    /// It was written beyond the checkpoint, and no checkpoint followed.
    Unsigned,
}

/// Checks the log in `dir`. `first` is the first public key as it was published; without it, the log's own word is taken for
/// it. Witnesses are checkpoints of the log that were kept elsewhere. Each entry is given to `each`; it counts when the
/// report has no finding.
///
/// # Errors
/// When the directory cannot be read.
pub fn verify(
    dir: &Path,
    first: Option<&PublicKey>,
    witnesses: &[(Note, Checkpoint)],
    now: Wall,
    each: &mut dyn FnMut(u64, &[u8]),
) -> Result<Report, Error> {
    let mut check = Check {
        dir,
        files: BTreeMap::new(),
        stamped: Vec::new(),
        report: Report::default(),
    };
    let oldest = SystemTime::UNIX_EPOCH + Duration::from_nanos(now.saturating_sub(TAIL).as_nanos());
    let mut others = Vec::new();
    check
        .list(Path::new(""), &mut others)
        .map_err(|error| Error::Io(dir.to_owned(), error))?;
    let mut stamps = BTreeSet::new();
    for (path, changed) in others {
        let (stamp, is_young) = (timestamp::Kind::parse(&path), changed > oldest);
        let is_new = path.ends_with("new") && path.components().count() <= 2 && is_young;
        match stamp {
            // Its checkpoint comes next.
            Some((size, timestamp::Kind::Answer)) if is_young && !has_note(dir, size) => {}
            Some((size, _)) => drop(stamps.insert(size)),
            None if path == Path::new("checkpoint") || is_new => {}
            None => check.find(path, Fault::Added),
        }
    }
    check.stamped = check.stamps(&stamps);
    let (note, checkpoint) = match read_checkpoint(&dir.join("checkpoint")) {
        Ok(found) => found,
        Err(error) => {
            check.find("checkpoint".into(), unusable(error));
            return Ok(check.report);
        }
    };
    check.report.size = checkpoint.size;
    check.report.root = checkpoint.root;
    check.run(&note, &checkpoint, first, witnesses, oldest, each);
    Ok(check.report)
}

fn has_note(dir: &Path, size: u64) -> bool {
    dir.join(timestamp::Kind::Checkpoint.path(size)).exists()
}

struct Check<'a> {
    dir: &'a Path,
    /// Tiles that are there, and when they were changed last.
    files: BTreeMap<Tile, SystemTime>,
    /// Checkpoints beside a time stamp.
    stamped: Vec<(Note, Checkpoint)>,
    report: Report,
}

impl Check<'_> {
    fn find(&mut self, file: PathBuf, fault: Fault) {
        self.report.findings.push(Finding { file, fault });
    }

    /// Lists the files below `dir`.
    fn list(&mut self, dir: &Path, others: &mut Vec<(PathBuf, SystemTime)>) -> io::Result<()> {
        for item in fs::read_dir(self.dir.join(dir))? {
            let item = item?;
            let path = dir.join(item.file_name());
            let metadata = item.metadata()?;
            if metadata.is_dir() {
                self.list(&path, others)?;
                continue;
            }
            match Tile::parse(&path).filter(|_| metadata.is_file()) {
                Some(tile) => drop(self.files.insert(tile, metadata.modified()?)),
                None => others.push((path, metadata.modified()?)),
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        note: &Note,
        checkpoint: &Checkpoint,
        first: Option<&PublicKey>,
        witnesses: &[(Note, Checkpoint)],
        oldest: SystemTime,
        each: &mut dyn FnMut(u64, &[u8]),
    ) {
        let origin = checkpoint.origin.as_str();
        let stamped = std::mem::take(&mut self.stamped);
        if first.is_some_and(|first| first.name() != origin) {
            self.find("checkpoint".into(), Fault::Origin(origin.to_owned()));
        }
        let mut key_entries = Vec::new();
        let mut leaves = self.leaves(Kind::Entries, &mut |index, entry| {
            if is_key_entry(entry, origin) || index == 0 {
                key_entries.push((index, entry.to_vec()));
            }
            each(index, entry);
        });
        let is_whole = leaves.len() as u64 == checkpoint.size;
        if !(is_whole && root(&leaves) == checkpoint.root) {
            let tiles = self.leaves(Kind::Hashes(0), &mut |_, _| ());
            if tiles.len() as u64 == checkpoint.size && root(&tiles) == checkpoint.root {
                leaves = tiles;
            } else {
                self.find("checkpoint".into(), Fault::Root);
            }
        }
        self.check_tiles(&leaves, oldest);
        let roots = Roots::over(
            &leaves,
            key_entries
                .iter()
                .map(|&(index, _)| index)
                .chain(witnesses.iter().chain(&stamped).map(|(_, seen)| seen.size)),
        );
        self.check_keys(&key_entries, origin, first, &roots);
        let file = Path::new("checkpoint");
        self.check_signature(file, note, checkpoint.size);
        for (note, seen) in &stamped {
            let path = timestamp::Kind::Checkpoint.path(seen.size);
            self.check_witnesses(Path::new(&path), &[(note, seen)], checkpoint, &roots);
        }
        let witnesses: Vec<_> = witnesses.iter().map(|(note, seen)| (note, seen)).collect();
        self.check_witnesses(file, &witnesses, checkpoint, &roots);
    }

    /// Compares checkpoints that somebody kept with the log.
    fn check_witnesses(
        &mut self,
        file: &Path,
        witnesses: &[(&Note, &Checkpoint)],
        checkpoint: &Checkpoint,
        roots: &Roots,
    ) {
        // Of the thousands that a copy may have, those that say most.
        let (mut cut_off, mut rewritten) = (None, None);
        for (note, seen) in witnesses {
            match seen.size {
                _ if seen.origin != checkpoint.origin => {
                    self.find(file.to_owned(), Fault::Origin(seen.origin.clone()));
                }
                at if at > checkpoint.size => cut_off = cut_off.max(Some(at)),
                at if roots.at(at) != Some(seen.root) => {
                    rewritten = Some(rewritten.map_or(at, |before: u64| before.min(at)));
                }
                at => self.check_signature(file, note, at),
            }
        }
        let size = checkpoint.size;
        let cut_off = cut_off.map(|witnessed| Fault::CutOff { size, witnessed });
        for fault in cut_off.into_iter().chain(rewritten.map(Fault::Rewritten)) {
            self.find(file.to_owned(), fault);
        }
    }

    /// Reads the checkpoints of which there is a time stamp, each with one about its very octets.
    fn stamps(&mut self, sizes: &BTreeSet<u64>) -> Vec<(Note, Checkpoint)> {
        let mut found = Vec::new();
        for &size in sizes {
            let path = timestamp::Kind::Checkpoint.path(size);
            let (note, checkpoint) = match read_checkpoint(&self.dir.join(&path)) {
                Ok(found) if found.1.size == size => found,
                Ok(_) => {
                    let reason = "the checkpoint is not of the size that its name says";
                    self.find(path.into(), Fault::Unreadable(reason.to_owned()));
                    continue;
                }
                Err(error) => {
                    self.find(path.into(), unusable(error));
                    continue;
                }
            };
            match timestamp::read(self.dir, size, &note.to_string()) {
                Ok(token) => self.report.stamps.push((size, token.time)),
                Err(error) => {
                    let path = timestamp::Kind::Answer.path(size);
                    self.find(path.into(), unreadable(&error));
                }
            }
            found.push((note, checkpoint));
        }
        found
    }

    /// The hashes of the entries up to the size, by the files of one kind. Those of a file that is of no use are zero.
    fn leaves(&mut self, kind: Kind, each: &mut dyn FnMut(u64, &[u8])) -> Vec<Hash> {
        // The checkpoint may say any number: more than half of the files missing is as good as all.
        let files = self.files.keys().filter(|tile| tile.kind == kind).count();
        let count = 2 * files + 1;
        let mut leaves = Vec::new();
        for tile in Tile::all(kind, self.report.size).take(count) {
            let file = self.file(tile).unwrap_or(tile);
            let octets = read(&self.dir.join(file.path()), most(kind)).unwrap_or_default();
            let found = match kind {
                Kind::Entries => entries(&octets).map(|entries| {
                    let entries = entries.into_iter().take(tile.width as usize);
                    let numbered = (tile.index * WIDTH..).zip(entries);
                    numbered
                        .map(|(index, entry)| {
                            each(index, entry);
                            Hash::leaf(entry)
                        })
                        .collect()
                }),
                Kind::Hashes(_) => hashes(&octets),
            };
            let mut found = found.unwrap_or_default();
            found.resize(tile.width as usize, Hash::default());
            leaves.append(&mut found);
        }
        leaves
    }

    /// The file of a tile: a full one is as good as a partial one.
    fn file(&self, tile: Tile) -> Option<Tile> {
        let full = Tile {
            width: WIDTH,
            ..tile
        };
        [tile, full]
            .into_iter()
            .find(|tile| self.files.contains_key(tile))
    }

    /// Compares all tiles with the hashes of the entries.
    fn check_tiles(&mut self, leaves: &[Hash], oldest: SystemTime) {
        let size = self.report.size;
        let mut levels = vec![leaves.to_vec()];
        for level in 1..LEVELS as usize {
            let full = levels[level - 1].chunks_exact(WIDTH as usize);
            levels.push(full.map(root).collect());
        }
        for level in 0..=LEVELS {
            let kind = level.checked_sub(1).map_or(Kind::Entries, Kind::Hashes);
            let needed = Tile::all(kind, size).take(levels[0].len() / WIDTH as usize + 2);
            let missing: Vec<_> = needed.filter(|&tile| self.file(tile).is_none()).collect();
            for tile in missing {
                self.find(tile.path(), Fault::Missing);
            }
        }
        for (tile, changed) in std::mem::take(&mut self.files) {
            let expected = match tile.kind {
                Kind::Entries => leaves,
                Kind::Hashes(level) => &levels[level as usize],
            };
            let fault = match self.check_tile(tile, expected) {
                Err(fault) => fault,
                Ok(true) if changed <= oldest => Fault::Unsigned,
                Ok(_) => continue,
            };
            self.find(tile.path(), fault);
        }
    }

    /// Whether a sound tile goes beyond the checkpoint.
    fn check_tile(&self, tile: Tile, expected: &[Hash]) -> Result<bool, Fault> {
        let first = tile.index * WIDTH;
        let path = self.dir.join(tile.path());
        let octets = read(&path, most(tile.kind)).map_err(|error| unreadable(&error))?;
        let found = match tile.kind {
            Kind::Entries => {
                entries(&octets).map(|entries| entries.into_iter().map(Hash::leaf).collect())
            }
            Kind::Hashes(_) => hashes(&octets),
        };
        let is_beyond = first + tile.width > expected.len() as u64;
        let Some(found) = found.filter(|found: &Vec<_>| found.len() as u64 == tile.width) else {
            return if is_beyond && first >= expected.len() as u64 {
                Ok(true)
            } else {
                Err(Fault::Length)
            };
        };
        let expected = expected.get(first as usize..).unwrap_or_default();
        match found
            .iter()
            .zip(expected)
            .position(|(found, expected)| found != expected)
        {
            // The octets beyond the checkpoint are nobody's word.
            None => Ok(is_beyond),
            Some(at) => Err(match tile.kind {
                Kind::Entries => Fault::Entry(first + at as u64),
                Kind::Hashes(_) => Fault::Hash(first + at as u64),
            }),
        }
    }

    /// Walks the keys, each named by an entry that the one before has signed.
    fn check_keys(
        &mut self,
        key_entries: &[(u64, Vec<u8>)],
        origin: &str,
        first: Option<&PublicKey>,
        roots: &Roots,
    ) {
        for (index, entry) in key_entries {
            let file = Tile::of(Kind::Entries, *index, self.report.size).path();
            let Some((note, at)) = read_key_entry(entry, origin) else {
                self.find(file, Fault::KeyEntry(*index));
                continue;
            };
            let Some((key, made)) = at.next else { continue };
            if at.size != *index || roots.at(*index) != Some(at.root) {
                self.find(file.clone(), Fault::KeyEntry(*index));
            }
            let signer = self.report.epochs.last().map_or(&key, |epoch| &epoch.key);
            if !note.is_signed_by(signer) {
                let fault = self.fault_of(&note, signer, *index);
                self.find(file.clone(), fault);
            }
            if self.report.epochs.is_empty()
                && (*index != 0 || first.is_some_and(|first| *first != key))
            {
                self.find(file, Fault::FirstKey);
            }
            let entry = *index;
            self.report.epochs.push(Epoch { entry, key, made });
        }
    }

    fn check_signature(&mut self, file: &Path, note: &Note, size: u64) {
        let signs = |epoch: &&Epoch| epoch.entry + 1 < size || epoch.entry == 0;
        let signer = self
            .report
            .epochs
            .iter()
            .rfind(signs)
            .map(|epoch| &epoch.key);
        let fault = match signer {
            Some(signer) if note.is_signed_by(signer) => return,
            Some(signer) => self.fault_of(note, signer, size),
            None => Fault::MissingEpoch(size),
        };
        self.find(file.to_owned(), fault);
    }

    /// Why a note is not signed by the key whose turn it is.
    fn fault_of(&self, note: &Note, signer: &PublicKey, size: u64) -> Fault {
        let mut known = self.report.epochs.iter();
        if note.names(signer) {
            Fault::Signature(size)
        } else if known.any(|epoch| note.is_signed_by(&epoch.key)) {
            Fault::OutsideEpoch(size)
        } else {
            Fault::MissingEpoch(size)
        }
    }
}

/// The roots over the first entries, for some numbers of them.
struct Roots(BTreeMap<u64, Hash>);

impl Roots {
    fn over(leaves: &[Hash], sizes: impl Iterator<Item = u64>) -> Self {
        let mut roots: BTreeMap<_, _> = sizes.map(|size| (size, Hash::default())).collect();
        let mut tree = Tree::default();
        let mut leaves = leaves.iter();
        roots.retain(|&size, root| {
            while tree.size() < size {
                match leaves.next() {
                    Some(&leaf) => tree.push(leaf),
                    None => return false,
                }
            }
            *root = tree.root();
            true
        });
        Self(roots)
    }

    fn at(&self, size: u64) -> Option<Hash> {
        self.0.get(&size).copied()
    }
}

fn unusable(error: Error) -> Fault {
    match error {
        Error::Io(_, error) => unreadable(&error),
        Error::Damaged(_, reason) => Fault::Unreadable(reason),
        error => Fault::Unreadable(error.to_string()),
    }
}

fn unreadable(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound => Fault::Missing,
        _ => Fault::Unreadable(error.to_string()),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        match &self.fault {
            Fault::Missing => f.write_str("the file is missing"),
            Fault::Unreadable(reason) => f.write_str(reason),
            Fault::Added => f.write_str("the file does not belong to the log"),
            Fault::Length => f.write_str("the file was cut off or added to"),
            Fault::Entry(entry) => write!(f, "entry {entry} was changed"),
            Fault::Hash(hash) => write!(f, "hash {hash} was changed"),
            Fault::Root => f.write_str("the checkpoint is not that of the entries"),
            Fault::Origin(origin) => {
                write!(f, "this is the checkpoint of another log, \"{origin}\"")
            }
            Fault::FirstKey => f.write_str("the log does not begin with the key that was given"),
            Fault::KeyEntry(entry) => {
                write!(
                    f,
                    "entry {entry} does not name a key as of the entries before it"
                )
            }
            Fault::MissingEpoch(size) => {
                write!(
                    f,
                    "at {size} entries a key has signed that the log does not name: a key epoch is missing"
                )
            }
            Fault::OutsideEpoch(size) => {
                write!(f, "at {size} entries a key has signed outside of its epoch")
            }
            Fault::Signature(size) => write!(f, "the signature at {size} entries is not valid"),
            Fault::CutOff { size, witnessed } => {
                write!(
                    f,
                    "the log is cut off: it has {size} entries, and a witness saw {witnessed}"
                )
            }
            Fault::Rewritten(size) => {
                write!(
                    f,
                    "the first {size} entries are not those that a witness saw"
                )
            }
            Fault::Unsigned => f.write_str("it was written over an hour ago and never signed"),
        }
    }
}
