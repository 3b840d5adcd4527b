//! The parts of a seal: merging sorted runs, writing a sealed file, and what of the runs cannot be read.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use crate::archive::disk::{self, Output};
use crate::archive::proof::rows::RowTree;
use crate::archive::row::{Key, Millis, Row};
use crate::archive::spool::{Cursor, Error, RunInfo, RunWriter, prefix};
use crate::archive::table::{self, Writer};
use crate::archive::tree::{ArchivedGap, Name, Partition, Seal, SealedFile};
use crate::session::{Gap, GapCause};

/// Gives the rows of all cursors in the order of their keys.
pub fn merge(
    cursors: &mut [Cursor<'_>],
    mut each: impl FnMut(&Row, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut heap = BinaryHeap::with_capacity(cursors.len());
    let mut rows = Vec::with_capacity(cursors.len());
    for (index, cursor) in cursors.iter_mut().enumerate() {
        let row = cursor.next()?;
        heap.extend(row.as_ref().map(|(row, _)| Reverse((order(row), index))));
        rows.push(row);
    }
    while let Some(mut least) = heap.peek_mut() {
        let Reverse((key, index)) = &mut *least;
        let cursor = &mut cursors[*index];
        if let Some((row, octets)) = &rows[*index] {
            each(row, cursor.octets(octets.clone()))?;
        }
        rows[*index] = cursor.next()?;
        match &rows[*index] {
            Some((row, _)) => *key = order(row),
            None => {
                PeekMut::pop(least);
            }
        }
    }
    Ok(())
}

/// Most comparisons end with the first part.
fn order(row: &Row) -> (u64, Key) {
    let key = row.key();
    (prefix(&key), key)
}

/// A sealed file that is being written.
pub struct FileWriter {
    path: PathBuf,
    table: Writer<Hashed>,
    rows: RowTree,
    since: Millis,
    until: Millis,
}

impl FileWriter {
    pub fn create(path: &Path, gateway: &str) -> Result<Self, Error> {
        let out = Hashed {
            out: BufWriter::with_capacity(1 << 18, Output::create(path, disk::FILE)?),
            context: Context::new(&SHA256),
        };
        Ok(Self {
            path: path.into(),
            table: Writer::new(out, gateway).map_err(unreadable(path))?,
            rows: RowTree::default(),
            since: Millis::MAX,
            until: Millis::default(),
        })
    }

    pub fn push(&mut self, row: &Row) -> Result<(), Error> {
        self.rows.push(row);
        // As a question understands a row: one without a start may have begun at any time.
        self.since = self.since.min(row.start.unwrap_or_default()).min(row.end);
        self.until = self.until.max(row.end);
        self.table.push(row).map_err(unreadable(&self.path))
    }

    /// When it returns, the disk has the file, though maybe not its name.
    pub fn finish(self, partition: Partition, seal: &Seal) -> Result<SealedFile, Error> {
        let (hashed, _) = self.table.finish().map_err(unreadable(&self.path))?;
        let out = hashed.out.into_inner().map_err(|error| error.into_error());
        out.and_then(|out| out.sync())
            .map_err(Error::io(&self.path))?;
        // Part 0 is the record.
        let part = seal.files.len() as u32 + 1;
        let name = Name::new(&seal.gateway, self.since..=self.until, seal.number, part);
        let digest = hashed.context.finish();
        Ok(SealedFile {
            path: format!("{}/{name}.parquet", partition.folder()),
            rows: self.rows.rows(),
            since: self.since,
            until: self.until,
            sha256: digest
                .as_ref()
                .iter()
                .map(|octet| format!("{octet:02x}"))
                .collect(),
            row_root: self.rows.root(),
        })
    }
}

struct Hashed {
    out: BufWriter<Output>,
    context: Context,
}

impl Write for Hashed {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.out.write(octets)?;
        self.context.update(&octets[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The rows that stay in the spool, as a new run.
pub struct Kept {
    path: PathBuf,
    info: RunInfo,
    run: Option<RunWriter>,
}

impl Kept {
    pub const fn new(path: PathBuf, number: u64) -> Self {
        Self {
            path,
            info: RunInfo::empty(number),
            run: None,
        }
    }

    pub fn push(&mut self, partition: Partition, row: &Row, octets: &[u8]) -> Result<(), Error> {
        if self.run.is_none() {
            self.run = Some(RunWriter::create(&self.path)?);
        }
        self.info.add(row.end);
        let run = self.run.as_mut();
        run.map_or(Ok(()), |run| run.push(partition, &row.key(), octets))
    }

    pub fn finish(self) -> Result<Option<RunInfo>, Error> {
        let Some(run) = self.run else { return Ok(None) };
        run.finish()?;
        Ok(Some(self.info))
    }
}

/// By the number of the run: what is known of it, and how many rows cannot be read.
#[derive(Default)]
pub struct Damage(BTreeMap<u64, (RunInfo, u64)>);

impl Damage {
    pub fn note(&mut self, info: &RunInfo, rows: u64) {
        if rows > 0 {
            self.0
                .entry(info.number)
                .or_insert_with(|| (info.clone(), 0))
                .1 += rows;
        }
    }

    pub fn runs(&self) -> Vec<u64> {
        self.0.keys().copied().collect()
    }

    pub fn rows(&self) -> u64 {
        self.0.values().map(|(_, rows)| rows).sum()
    }

    pub fn gaps(&self) -> impl Iterator<Item = ArchivedGap> {
        self.0.values().map(|(info, rows)| {
            ArchivedGap::from(&Gap {
                cause: GapCause::Undelivered,
                from: info.since.wall(),
                to: info.until.wall(),
                lost: Some(*rows),
            })
        })
    }
}

pub fn unreadable(path: &Path) -> impl FnOnce(table::Error) -> Error {
    |error| {
        Error::io(path)(match error {
            table::Error::Io(error) => error,
            error => io::Error::other(error.to_string()),
        })
    }
}
