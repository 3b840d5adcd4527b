//! The proof of one session: its row, the path to the root over the rows of its sealed file, and the entry that names it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{Entry, WIDTH, log_directory};
use crate::archive::proof;
use crate::archive::proof::bundle::{Bundle, Shown};
use crate::archive::proof::note::PublicKey;
use crate::archive::proof::rows::{RowPath, RowProof};
use crate::archive::proof::tiles::Reader;
use crate::archive::row::Row;
use crate::archive::spool;
use crate::archive::table::{self, Table};
use crate::archive::tree::Name;
use crate::archive::wanted::Wanted;

/// A bundle that was checked.
#[derive(Debug)]
pub struct Proof {
    pub bundle: Bundle,
    pub shown: Shown,
    /// By the word of the log itself.
    pub first_key: PublicKey,
}

/// Why there is no proof of a session.
#[derive(Debug)]
pub enum Unproved {
    /// No sealed file of this archive has it.
    NotSealed,
    /// This file has it, and no entry names the file.
    NotSigned(PathBuf),
    /// The file is not the one that the entry names.
    Changed(PathBuf),
    Table(PathBuf, table::Error),
    Archive(spool::Error),
    Log(proof::Error),
}

/// Proves that the sealed files of an archive have this row.
///
/// # Errors
/// When they do not, or the log does not tell of it.
pub fn prove(root: &Path, gateway: &str, row: &Row) -> Result<Proof, Unproved> {
    let (path, index, rows) = find(root, gateway, row)?;
    let unreadable = |error| Unproved::Table(path.clone(), error);
    let log = match Reader::open(&log_directory(root, gateway)) {
        Err(proof::Error::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Unproved::NotSigned(path));
        }
        log => log.map_err(Unproved::Log)?,
    };
    let relative = path.strip_prefix(root).unwrap_or(&path);
    let entry = entry_of(&log, &relative.to_string_lossy()).map_err(Unproved::Log)?;
    let entry = entry.ok_or_else(|| Unproved::NotSigned(path.clone()))?;
    let changed = || Unproved::Changed(path.clone());
    let mut steps = RowPath::new(index, rows).ok_or_else(changed)?;
    let mut table = Table::open(&path).map_err(unreadable)?;
    table
        .for_each(&mut |row| steps.push(&row))
        .map_err(unreadable)?;
    let steps: RowProof = steps.finish().ok_or_else(changed)?;
    let bundle = Bundle::make(&log, entry, Some(steps)).map_err(Unproved::Log)?;
    let first_key = log.first_key().map_err(Unproved::Log)?;
    let shown = bundle.check(&first_key).map_err(|_| changed())?;
    Ok(Proof {
        bundle,
        shown,
        first_key,
    })
}

/// How often files may be sealed, merged or purged while they are listed.
const TRIES: usize = 20;

/// The sealed file with this row, the number of the row in it, and how many it has.
fn find(root: &Path, gateway: &str, row: &Row) -> Result<(PathBuf, u64, u64), Unproved> {
    let wanted = Wanted {
        protocol: Some(row.protocol),
        post_src: Some(row.post.src),
        post_sport: Some(row.post.src_port),
        ..Wanted::alive(row.end..=row.end)
    };
    let list = || spool::Reader::open(root)?.sessions(&wanted.alive);
    let is_gone = |listed: &Result<_, spool::Error>| listed.as_ref().is_err_and(|it| it.is_gone());
    let mut listed = list();
    for _ in 0..TRIES {
        if !is_gone(&listed) {
            break;
        }
        listed = list();
    }
    for path in listed.map_err(Unproved::Archive)? {
        let unreadable = |error| Unproved::Table(path.clone(), error);
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.and_then(Name::parse);
        if name.is_some_and(|name| !name.is_of(gateway)) {
            continue;
        }
        let mut table = Table::open(&path).map_err(unreadable)?;
        let mut is_here = false;
        let found = table.find(&wanted, &mut |found| is_here |= found == *row);
        found.map_err(unreadable)?;
        if !is_here {
            continue;
        }
        let (mut index, mut rows) = (None, 0);
        let read = table.for_each(&mut |found| {
            if found == *row {
                index.get_or_insert(rows);
            }
            rows += 1;
        });
        read.map_err(unreadable)?;
        if let Some(index) = index {
            return Ok((path, index, rows));
        }
    }
    Err(Unproved::NotSealed)
}

/// The entry of the seal that made this file.
fn entry_of(log: &Reader, path: &str) -> Result<Option<u64>, proof::Error> {
    let mut end = log.size();
    let mut found = None;
    while end > 0 && found.is_none() {
        let begin = (end - 1) / WIDTH * WIDTH;
        log.for_each(begin..end, &mut |index, entry| {
            // Parsing all of them would take long.
            let mut parts = entry.windows(path.len());
            if parts.any(|part| part == path.as_bytes())
                && let Entry::Seal(seal) = Entry::read(entry)
                && seal.files.iter().any(|file| file.path == path)
            {
                found = Some(index);
            }
        })?;
        end = begin;
    }
    Ok(found)
}

impl fmt::Display for Unproved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSealed => f.write_str("no sealed file has the session yet"),
            Self::NotSigned(path) => write!(
                f,
                "\"{}\" has the session, and no entry of its evidence log names the file: \"nattrail archive run\" signs a \
                 seal within seconds, unless its record is too long for an entry; ask again then",
                path.display()
            ),
            Self::Changed(path) => write!(
                f,
                "\"{}\" is not the file that its evidence log names; see \"nattrail verify\"",
                path.display()
            ),
            Self::Table(path, error) => write!(f, "\"{}\" {error}", path.display()),
            Self::Archive(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
        }
    }
}
