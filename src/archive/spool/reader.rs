//! The archive as a question sees it: the spool and the sealed files, as of one moment.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::journal::{self, Manifest};
use super::run::{Cursor, Run};
use super::{Error, Place, run_path, sealed_path};
use crate::archive::gather::gather;
use crate::archive::row::{Millis, Row};
use crate::archive::tree::{ArchivedGap, Seal, Tree};
use crate::archive::wanted::Wanted;

/// How often the writer may replace what is being opened.
const TRIES: usize = 50;

/// An archive of any kind: one that is being written, or a copy without a spool.
#[derive(Debug)]
pub struct Reader {
    tree: Tree,
    spool: Option<Snapshot>,
}

#[derive(Debug)]
struct Snapshot {
    manifest: Manifest,
    runs: Vec<Run>,
    /// Those of the journal.
    rows: Vec<u8>,
    path: PathBuf,
    /// The file at this path, as far as it can be told from the next one.
    file: Option<Identity>,
    /// Runs that cannot be read.
    damaged: Option<Error>,
}

/// Device, number, and when it was made, since numbers are used again.
type Identity = (u64, u64, Option<SystemTime>);

impl Reader {
    /// # Errors
    /// When the spool cannot be read.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let tree = Tree::new(root);
        let directory = tree.spool();
        for _ in 0..TRIES {
            let path = directory.join("journal");
            // Before it is read: if it is replaced meanwhile, this is not the current one.
            let file = identity(&path);
            let contents = match journal::read(&path) {
                Err(error) if error.is_gone() => return Ok(Self { tree, spool: None }),
                contents => contents?,
            };
            let mut snapshot = Snapshot {
                manifest: contents.manifest,
                runs: Vec::new(),
                rows: contents.rows,
                path,
                file,
                damaged: None,
            };
            match snapshot.open_runs(&directory) {
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let spool = Some(snapshot);
                    return Ok(Self { tree, spool });
                }
            }
        }
        Err(Error::Damaged(
            directory,
            "a run that its journal names is missing",
        ))
    }

    /// How far the record log is in the archive; `None` for an archive that nothing writes to.
    pub fn place(&self) -> Option<Place> {
        self.spool.as_ref()?.manifest.place
    }

    /// Until when everything known is in the sealed files; `None` for an archive that nothing writes to.
    pub fn sealed_until(&self) -> Option<Millis> {
        Some(self.spool.as_ref()?.manifest.from)
    }

    /// The gateway of the rows in the spool.
    pub fn gateway(&self) -> Option<&str> {
        Some(&self.spool.as_ref()?.manifest.gateway)
    }

    /// The gaps that became known since the last seal.
    pub fn gaps(&self) -> &[ArchivedGap] {
        self.spool
            .as_ref()
            .map_or(&[], |spool| &spool.manifest.gaps)
    }

    /// The rows in the spool.
    ///
    /// # Errors
    /// When a part of it cannot be read; the rows of all other parts came nevertheless.
    pub fn find(&self, wanted: &Wanted, each: &mut dyn FnMut(Row)) -> Result<(), Error> {
        let mut result = self.journal(&mut |row| {
            if wanted.accepts(&row) {
                each(row);
            }
        });
        let runs = self.spool.as_ref().map_or(&[][..], |spool| &spool.runs);
        gather(
            runs.len(),
            |place, each| {
                if let Err(error) = runs[place].find(wanted, &mut |row| each(Ok(row))) {
                    each(Err(error));
                }
            },
            &mut |found| match found {
                Ok(row) => each(row),
                Err(error) if result.is_ok() => result = Err(error),
                Err(_) => {}
            },
        );
        result
    }

    /// The rows in the journal, in the order in which they came.
    ///
    /// # Errors
    /// When a part of the spool cannot be read, be it a run.
    pub(in crate::archive) fn journal(&self, each: &mut dyn FnMut(Row)) -> Result<(), Error> {
        let Some(spool) = &self.spool else {
            return Ok(());
        };
        let mut rest = spool.rows.as_slice();
        let mut result = Ok(());
        while !rest.is_empty() {
            match Row::decode(&mut rest) {
                Ok(row) => each(row),
                Err(_) => {
                    let path = spool.path.clone();
                    result = Err(Error::Damaged(path, "a row has an unknown form"));
                    break;
                }
            }
        }
        match &spool.damaged {
            Some(Error::Damaged(path, reason)) => {
                result.and(Err(Error::Damaged(path.clone(), reason)))
            }
            _ => result,
        }
    }

    /// The rows in the runs: those of a cursor are in the order of their keys.
    pub(in crate::archive) fn cursors(&self) -> impl Iterator<Item = Cursor<'_>> {
        let runs = self.spool.iter().flat_map(|spool| &spool.runs);
        runs.flat_map(|run| {
            let partitions: BTreeSet<_> = run.partitions().collect();
            partitions
                .into_iter()
                .map(|partition| run.cursor(partition))
        })
    }

    /// The sealed files that can have a session that was alive then, and that have no row of the spool. If one is gone when
    /// it is opened, ask again with a new reader.
    ///
    /// # Errors
    /// When a directory cannot be read; [`Error::is_gone`] when files were sealed, merged or purged since this reader was
    /// opened: ask again with a new one.
    pub fn sessions(&self, alive: &RangeInclusive<Millis>) -> Result<Vec<PathBuf>, Error> {
        let root = self.tree.root();
        let files = self.tree.session_files(alive).map_err(Error::io(root))?;
        if let Some(spool) = &self.spool
            && identity(&spool.path) != spool.file
        {
            // Files of this reader may have been replaced by some that it does not know.
            let path = spool.path.clone();
            return Err(Error::Io(path, io::ErrorKind::NotFound.into()));
        }
        let Some(Manifest {
            gateway,
            sealed,
            change,
            ..
        }) = self.manifest()
        else {
            return Ok(files.into_iter().map(|(_, path)| path).collect());
        };
        let known = files.into_iter();
        let known = known.filter(|(name, _)| !name.is_of(gateway) || name.number <= *sealed);
        let mut paths: Vec<_> = known.map(|(_, path)| path).collect();
        if let Some(Seal {
            number,
            files,
            replaces,
            ..
        }) = change.as_ref().map(|it| &it.seal)
        {
            let moved = files.iter().map(|file| &file.path).chain(replaces);
            let moved: Vec<_> = moved.map(|path| root.join(path)).collect();
            paths.retain(|path| !moved.contains(path));
            for (index, file) in files.iter().enumerate() {
                if file.since <= *alive.end() && file.until >= *alive.start() {
                    let begun = sealed_path(&self.tree.spool(), *number, index + 1);
                    let is_there = fs::exists(&begun).map_err(Error::io(&begun))?;
                    paths.push(if is_there {
                        begun
                    } else {
                        root.join(&file.path)
                    });
                }
            }
        }
        Ok(paths)
    }

    /// The seal records that can tell about the interval.
    ///
    /// # Errors
    /// When one cannot be read, or is not a seal record.
    pub fn seals(&self, interval: &RangeInclusive<Millis>) -> Result<Vec<Seal>, Error> {
        let root = self.tree.root();
        let mut seals = self.tree.seals(interval).map_err(Error::io(root))?;
        if let Some(Manifest {
            gateway,
            sealed,
            change,
            ..
        }) = self.manifest()
        {
            let last = change.as_ref().map(|change| &change.seal);
            let last_number = last.map_or(sealed + 1, |seal| seal.number);
            seals.retain(|seal| seal.gateway != *gateway || seal.number < last_number);
            seals.extend(last.cloned());
        }
        Ok(seals)
    }

    fn manifest(&self) -> Option<&Manifest> {
        self.spool.as_ref().map(|spool| &spool.manifest)
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

impl Snapshot {
    fn open_runs(&mut self, directory: &Path) -> Result<(), Error> {
        let runs = &self.manifest.runs;
        let mut result = Ok(());
        gather(
            runs.len(),
            |place, each| each(Run::open(&run_path(directory, runs[place].number))),
            &mut |run| match run {
                Ok(run) => self.runs.push(run),
                Err(error @ Error::Damaged(..)) => self.damaged = Some(error),
                Err(error) => result = Err(error),
            },
        );
        result
    }
}
