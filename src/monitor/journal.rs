//! The journal of a set-up: the acts that undo it, each written before what it undoes is done.
//!
//! It is a file of its own for each interface, in `$RUNTIME_DIRECTORY` or `/run/nattrail-monitor`, one JSON object per line.
//! A lock on that directory keeps commands apart. A restart of the machine loses it, with everything that was set up.
//!
//! Two ports may share a namespace: a parameter of it is given back its value with the last of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::act::Act;

const DIRECTORY: &str = "/run/nattrail-monitor";

pub(super) struct Journal {
    path: PathBuf,
    /// The acts in the journals of other ports.
    others: Vec<Act>,
    _lock: File,
}

impl Journal {
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        fs::create_dir_all(directory())?;
        let lock = File::open(directory())?;
        lock.lock()?;
        let path = path(interface);
        Ok(Self {
            others: others(&path)?,
            path,
            _lock: lock,
        })
    }

    /// The acts that take an interface down, in their order; none if it is not set up.
    pub(super) fn look(interface: &str) -> io::Result<Vec<Act>> {
        let path = path(interface);
        Ok(undoing(read(&path)?, &others(&path)?))
    }

    /// The same for the interface of this journal.
    pub(super) fn acts(&self) -> io::Result<Vec<Act>> {
        Ok(undoing(read(&self.path)?, &self.others))
    }

    /// Notes an act, or that of another port for the same parameter: its value is the earlier one.
    pub(super) fn note(&self, act: &Act) -> io::Result<()> {
        let earlier = self
            .others
            .iter()
            .find(|other| other.is_same_parameter(act));
        let line = serde_json::to_string(earlier.unwrap_or(act))? + "\n";
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).open(&self.path)?;
        file.write_all(line.as_bytes())
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            found => Ok(found?.len()),
        }
    }

    /// Forgets what was noted beyond that length.
    pub(super) fn cut(&self, length: u64) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(&self.path)?
            .set_len(length)
    }

    /// Nothing is left to undo.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn directory() -> PathBuf {
    let directory = std::env::var_os("RUNTIME_DIRECTORY").filter(|it| !it.is_empty());
    directory.map_or_else(|| DIRECTORY.into(), PathBuf::from)
}

fn path(interface: &str) -> PathBuf {
    directory().join(format!("{interface}.json"))
}

/// The last act comes first. Parameters that other ports still need stay as they are.
fn undoing(mut acts: Vec<Act>, others: &[Act]) -> Vec<Act> {
    acts.retain(|act| !others.iter().any(|other| other.is_same_parameter(act)));
    acts.reverse();
    acts
}

/// The acts in the journals of other ports than that of `path`.
fn others(path: &Path) -> io::Result<Vec<Act>> {
    let entries = match fs::read_dir(directory()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut others = Vec::new();
    for entry in entries {
        let other = entry?.path();
        if other != path && other.extension().is_some_and(|it| it == "json") {
            others.extend(read(&other)?);
        }
    }
    Ok(others)
}

fn read(path: &Path) -> io::Result<Vec<Act>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A line that a crash cut off belongs to an act that was not done.
fn parse(text: &str) -> Vec<Act> {
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
