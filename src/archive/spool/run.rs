//! A run: rows of the spool in the order in which they are sealed, with an index; immutable.
//!
//! Canonical octets of rows, sorted by partition and key, in blocks of at most 512 rows of one partition; then the index,
//! 44 octets for each block (big endian: offset 8, length 4, rows 4, CRC-32 of the block 4, partition 5, and of the first
//! row 1 + 16 + 2 for the family, the post-NAT source and its port); then the number of blocks (4), the CRC-32 of the index
//! (4), and `NATRUN01`. Every octet that is used was checked before; lengths are bounded by those of the file.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::Error;
use crate::archive::disk::{self, Output};
use crate::archive::row::{Key, Row};
use crate::archive::tree::Partition;
use crate::archive::wanted::Wanted;

const ROWS_PER_BLOCK: u32 = if cfg!(test) { 4 } else { 512 };
const ENTRY: usize = 44;
const TRAILER: usize = 16;
const MAGIC: &[u8; 8] = b"NATRUN01";

/// No row has more octets.
const MAX_ROW: u64 = 160;

/// A run that is being written.
#[derive(Debug)]
pub struct RunWriter {
    path: PathBuf,
    out: BufWriter<Output>,
    block: Vec<u8>,
    /// That of the block, without its length and checksum yet.
    entry: Option<Entry>,
    index: Vec<Entry>,
    offset: u64,
}

#[derive(Debug)]
pub struct Run {
    path: PathBuf,
    file: File,
    index: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u64,
    length: u32,
    rows: u32,
    checksum: u32,
    partition: Partition,
    /// Of the first row.
    post_src: IpAddr,
    post_sport: u16,
}

/// The rows of one partition of a run, in order.
#[derive(Debug)]
pub struct Cursor<'a> {
    run: &'a Run,
    entries: std::slice::Iter<'a, Entry>,
    block: Vec<u8>,
    /// The first octet of the block that was not taken.
    at: usize,
    /// Rows in blocks that cannot be read again.
    pub damaged: u64,
}

impl RunWriter {
    pub fn create(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: path.into(),
            out: BufWriter::with_capacity(1 << 18, Output::create(path, disk::FILE)?),
            block: Vec::new(),
            entry: None,
            index: Vec::new(),
            offset: 0,
        })
    }

    /// Rows come in the order of partition and key. `octets` are those of the row.
    pub fn push(&mut self, partition: Partition, key: &Key, octets: &[u8]) -> Result<(), Error> {
        let is_full = |entry: &Entry| entry.rows == ROWS_PER_BLOCK || entry.partition != partition;
        if self.entry.as_ref().is_some_and(is_full) {
            self.end_block()?;
        }
        let entry = self.entry.get_or_insert(Entry {
            offset: self.offset,
            length: 0,
            rows: 0,
            checksum: 0,
            partition,
            post_src: key.post_src,
            post_sport: key.post_sport,
        });
        entry.rows += 1;
        self.block.extend_from_slice(octets);
        Ok(())
    }

    /// When it returns, the disk has the file, though maybe not its name.
    pub fn finish(mut self) -> Result<(), Error> {
        self.end_block()?;
        let mut index = Vec::with_capacity(self.index.len() * ENTRY);
        for entry in &self.index {
            entry.encode(&mut index);
        }
        let (count, checksum) = (self.index.len() as u32, crc32fast::hash(&index));
        index.extend_from_slice(&count.to_be_bytes());
        index.extend_from_slice(&checksum.to_be_bytes());
        index.extend_from_slice(MAGIC);
        let written = self.out.write_all(&index);
        let out = written.and_then(|()| self.out.into_inner().map_err(|error| error.into_error()));
        out.and_then(|out| out.sync())
            .map_err(Error::io(&self.path))
    }

    fn end_block(&mut self) -> Result<(), Error> {
        if let Some(entry) = self.entry.take() {
            // 512 rows fit 32 bits.
            let length = self.block.len() as u32;
            self.offset += u64::from(length);
            self.index.push(Entry {
                length,
                checksum: crc32fast::hash(&self.block),
                ..entry
            });
            let written = self.out.write_all(&self.block);
            written.map_err(Error::io(&self.path))?;
            self.block.clear();
        }
        Ok(())
    }
}

impl Run {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let damaged = |reason| Error::Damaged(path.into(), reason);
        let length = file.metadata().map_err(Error::io(path))?.len();
        let mut trailer = [0; TRAILER];
        let end = length.checked_sub(TRAILER as u64);
        let end = end.ok_or_else(|| damaged("it is cut short"))?;
        file.read_exact_at(&mut trailer, end)
            .map_err(Error::io(path))?;
        let [c0, c1, c2, c3, s0, s1, s2, s3, magic @ ..] = trailer;
        let (count, checksum) = ([c0, c1, c2, c3], [s0, s1, s2, s3]);
        let size = u64::from(u32::from_be_bytes(count)) * ENTRY as u64;
        let begin = end.checked_sub(size).filter(|_| magic == *MAGIC);
        let begin = begin.ok_or_else(|| damaged("it has no index"))?;
        let mut octets = vec![0; size as usize];
        file.read_exact_at(&mut octets, begin)
            .map_err(Error::io(path))?;
        if crc32fast::hash(&octets) != u32::from_be_bytes(checksum) {
            return Err(damaged("the checksum of its index is wrong"));
        }
        let (entries, _) = octets.as_chunks::<ENTRY>();
        let index: Option<Vec<_>> = entries.iter().map(Entry::decode).collect();
        let index = index.ok_or_else(|| damaged("its index has an unknown form"))?;
        let mut offset = 0;
        let is_whole = |entry: &Entry| {
            let is_next = entry.offset == offset;
            offset += u64::from(entry.length);
            is_next && u64::from(entry.length) <= MAX_ROW * u64::from(ROWS_PER_BLOCK)
        };
        if index.iter().all(is_whole) && offset == begin {
            let path = path.into();
            Ok(Self { path, file, index })
        } else {
            Err(damaged("its index does not fit its length"))
        }
    }

    pub fn partitions(&self) -> impl Iterator<Item = Partition> {
        self.index.iter().map(|entry| entry.partition)
    }

    pub fn find(&self, wanted: &Wanted, each: &mut dyn FnMut(Row)) -> Result<(), Error> {
        let mut block = Vec::new();
        let mut result = Ok(());
        for entries in self.index.chunk_by(|a, b| a.partition == b.partition) {
            for entry in narrow(entries, wanted) {
                let found = self.read(entry, &mut block).and_then(|()| {
                    let mut rest = block.as_slice();
                    while !rest.is_empty() {
                        let row = self.take(&mut rest)?;
                        if wanted.accepts(&row) {
                            each(row);
                        }
                    }
                    Ok(())
                });
                result = result.and(found);
            }
        }
        result
    }

    pub fn cursor(&self, partition: Partition) -> Cursor<'_> {
        let begin = self
            .index
            .partition_point(|entry| entry.partition < partition);
        let end = self
            .index
            .partition_point(|entry| entry.partition <= partition);
        Cursor {
            run: self,
            entries: self.index[begin..end].iter(),
            block: Vec::new(),
            at: 0,
            damaged: 0,
        }
    }

    fn read(&self, entry: &Entry, block: &mut Vec<u8>) -> Result<(), Error> {
        block.resize(entry.length as usize, 0);
        let read = self.file.read_exact_at(block, entry.offset);
        match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("it is cut short"))
            }
            Err(error) => Err(Error::io(&self.path)(error)),
            Ok(()) if crc32fast::hash(block) != entry.checksum => {
                Err(self.damaged("the checksum of a block is wrong"))
            }
            Ok(()) => Ok(()),
        }
    }

    fn take(&self, octets: &mut &[u8]) -> Result<Row, Error> {
        Row::decode(octets).map_err(|_| self.damaged("a row has an unknown form"))
    }

    fn damaged(&self, reason: &'static str) -> Error {
        Error::Damaged(self.path.clone(), reason)
    }
}

impl Cursor<'_> {
    /// The next row and its octets. The rows of a damaged block are counted and left out.
    pub fn next(&mut self) -> Result<Option<(Row, std::ops::Range<usize>)>, Error> {
        while self.at == self.block.len() {
            let Some(entry) = self.entries.next() else {
                return Ok(None);
            };
            self.at = 0;
            match self.run.read(entry, &mut self.block) {
                Err(Error::Damaged(..)) => {
                    self.damaged += u64::from(entry.rows);
                    self.block.clear();
                }
                read => read?,
            }
        }
        let mut rest = &self.block[self.at..];
        let row = self.run.take(&mut rest)?;
        let octets = self.at..self.block.len() - rest.len();
        self.at = octets.end;
        Ok(Some((row, octets)))
    }

    pub fn octets(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.block[range]
    }
}

/// The blocks that can have such a row. They are of one partition.
fn narrow<'a>(entries: &'a [Entry], wanted: &Wanted) -> &'a [Entry] {
    let Some(post_src) = wanted.post_src else {
        return entries;
    };
    let least = (post_src, wanted.post_sport.unwrap_or(0));
    let most = (post_src, wanted.post_sport.unwrap_or(u16::MAX));
    let first = |entry: &Entry| (entry.post_src, entry.post_sport);
    // The block before the first that begins with such a row can end with some.
    let begin = entries.partition_point(|entry| first(entry) < least);
    let end = entries.partition_point(|entry| first(entry) <= most);
    &entries[begin.saturating_sub(1)..end]
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_be_bytes());
        for number in [self.length, self.rows, self.checksum] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.partition.to_octets());
        let (family, address) = match self.post_src {
            IpAddr::V4(address) => (4, u128::from(address.to_bits())),
            IpAddr::V6(address) => (6, address.to_bits()),
        };
        out.push(family);
        out.extend_from_slice(&address.to_be_bytes());
        out.extend_from_slice(&self.post_sport.to_be_bytes());
    }

    fn decode(octets: &[u8; ENTRY]) -> Option<Self> {
        let (offset, rest) = octets.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (rows, rest) = rest.split_first_chunk::<4>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        let (partition, rest) = rest.split_first_chunk::<5>()?;
        let (family, rest) = rest.split_first()?;
        let (address, port) = rest.split_first_chunk::<16>()?;
        let address = u128::from_be_bytes(*address);
        Some(Self {
            offset: u64::from_be_bytes(*offset),
            length: u32::from_be_bytes(*length),
            rows: u32::from_be_bytes(*rows),
            checksum: u32::from_be_bytes(*checksum),
            partition: Partition::from_octets(*partition)?,
            post_src: match family {
                4 => IpAddr::V4(u32::try_from(address).ok()?.into()),
                _ => IpAddr::V6(address.into()),
            },
            post_sport: u16::from_be_bytes(port.try_into().ok()?),
        })
    }
}
