//! The journal: what was committed since the last run, and what the spool consists of.
//!
//! A frame is the length of its content (4, big endian), the CRC-32 of length and content (4), and the content: the length
//! of the head (4), the head in JSON, and canonical octets of rows. The first frame tells the state of the spool when the
//! journal was begun, and each further one is a commit. A frame that is not whole ends the journal: it was never committed,
//! or, where the disk damaged it, the place goes back to the commit before, and the record log has the rest or says that it
//! does not.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Place};
use crate::archive::disk::{self, Output, rename, sync_directory};
use crate::archive::row::Millis;
use crate::archive::tree::{ArchivedGap, Seal};

/// No frame has more octets. A commit of a million rows has about 42 MB.
const MAX_FRAME: u32 = 1 << 28;

const FORMAT: u32 = 1;

/// What the spool consists of beside the rows in the journal.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Manifest {
    pub format: u32,
    pub gateway: String,
    pub place: Option<Place>,
    /// The number of the last seal.
    pub sealed: u64,
    /// Until when everything is sealed.
    pub from: Millis,
    pub runs: Vec<RunInfo>,
    /// The number of the next run.
    pub next_run: u64,
    /// What arrived since the last seal.
    pub begun: u64,
    pub ended: u64,
    pub gaps: Vec<ArchivedGap>,
    /// The last seal, while its files may not be in their places yet.
    pub change: Option<Change>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RunInfo {
    pub number: u64,
    pub rows: u64,
    /// The earliest and the latest end of a row.
    pub since: Millis,
    pub until: Millis,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Change {
    pub seal: Seal,
    /// The numbers of runs that could not be read.
    pub damaged: Vec<u64>,
}

#[derive(Debug, Deserialize, Serialize)]
pub enum Head {
    Begin(Box<Manifest>),
    Commit {
        place: Place,
        rows: u64,
        begun: u64,
        gaps: Vec<ArchivedGap>,
    },
    /// The files of the last seal are in their places.
    Finished,
}

/// All that a journal tells.
#[derive(Debug)]
pub struct Contents {
    pub manifest: Manifest,
    pub rows: Vec<u8>,
    /// The end of the last whole frame.
    pub end: u64,
}

impl Manifest {
    pub const fn new(gateway: String, sealed: u64, from: Millis) -> Self {
        Self {
            format: FORMAT,
            gateway,
            place: None,
            sealed,
            from,
            runs: Vec::new(),
            next_run: 1,
            begun: 0,
            ended: 0,
            gaps: Vec::new(),
            change: None,
        }
    }

    /// What a frame after the first one changes.
    pub fn apply(&mut self, head: Head) {
        match head {
            Head::Begin(manifest) => *self = *manifest,
            Head::Commit {
                place,
                rows,
                begun,
                mut gaps,
            } => {
                self.place = Some(place);
                self.ended += rows;
                self.begun += begun;
                self.gaps.append(&mut gaps);
            }
            Head::Finished => self.change = None,
        }
    }
}

impl RunInfo {
    pub const fn empty(number: u64) -> Self {
        Self {
            number,
            rows: 0,
            since: Millis::MAX,
            until: Millis::MIN,
        }
    }

    pub fn add(&mut self, end: Millis) {
        self.rows += 1;
        self.since = self.since.min(end);
        self.until = self.until.max(end);
    }
}

/// Begins the journal of `directory` anew, in one step: until it returns, the old one is valid. When it fails at
/// [`sync_directory`] the new one is in place, but a loss of power may bring the old one back.
pub fn begin(directory: &Path, manifest: &Manifest) -> Result<Output, Error> {
    let new = directory.join("journal.new");
    let mut journal = Output::create(&new, disk::FILE)?;
    let frame = frame(&Head::Begin(Box::new(manifest.clone())), &[])?;
    journal.append(&frame).map_err(Error::io(&new))?;
    // Now the disk also has the names of the files that the manifest refers to.
    sync_directory(directory)?;
    rename(&new, &directory.join("journal"))?;
    Ok(journal)
}

pub fn frame(head: &Head, rows: &[u8]) -> Result<Vec<u8>, Error> {
    let head = serde_json::to_vec(head).map_err(|error| Error::TooLarge(error.to_string()))?;
    let length = u32::try_from(4 + head.len() + rows.len()).ok();
    let length = length
        .filter(|length| *length <= MAX_FRAME)
        .ok_or_else(|| {
            Error::TooLarge(format!("{} octets in one commit", head.len() + rows.len()))
        })?;
    let mut frame = Vec::with_capacity(8 + length as usize);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&(head.len() as u32).to_be_bytes());
    frame.extend_from_slice(&head);
    frame.extend_from_slice(rows);
    let checksum = checksum(length, &frame[8..]);
    frame[4..8].copy_from_slice(&checksum.to_be_bytes());
    Ok(frame)
}

/// Reads the journal as far as it is whole.
pub fn read(path: &Path) -> Result<Contents, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut reader = BufReader::new(file);
    let (mut rows, mut end, mut manifest) = (Vec::new(), 0, None::<Manifest>);
    let mut content = Vec::new();
    let mut header = [0; 8];
    while length - end >= 8 {
        reader.read_exact(&mut header).map_err(Error::io(path))?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let size = u32::from_be_bytes([l0, l1, l2, l3]);
        if !(4..=MAX_FRAME).contains(&size) || length - end - 8 < u64::from(size) {
            break;
        }
        content.resize(size as usize, 0);
        reader.read_exact(&mut content).map_err(Error::io(path))?;
        if checksum(size, &content) != u32::from_be_bytes([c0, c1, c2, c3]) {
            break;
        }
        let Some((head, octets)) = split(&content) else {
            break;
        };
        match (&mut manifest, head) {
            (None, Head::Begin(begin)) if begin.format == FORMAT => manifest = Some(*begin),
            (Some(manifest), head @ (Head::Commit { .. } | Head::Finished)) => manifest.apply(head),
            _ => break,
        }
        rows.extend_from_slice(octets);
        end += 8 + u64::from(size);
    }
    let manifest = manifest.ok_or_else(|| {
        Error::Damaged(path.into(), "it does not begin with the state of a spool")
    })?;
    Ok(Contents {
        manifest,
        rows,
        end,
    })
}

fn split(content: &[u8]) -> Option<(Head, &[u8])> {
    let (length, rest) = content.split_first_chunk()?;
    let (head, rows) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((serde_json::from_slice(head).ok()?, rows))
}

fn checksum(length: u32, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_be_bytes());
    hasher.update(content);
    hasher.finalize()
}
