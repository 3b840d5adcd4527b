//! The file of a table, and the cells of a column in it.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::schema::types::ColumnDescPtr;
use rustix::fs::{Advice, fadvise};
use zstd::bulk::Decompressor;

use super::Error;
use super::columns::Cell;
use super::page::{Pages, Reader};

/// More than any part of a file that is read at once: a footer, the page indexes of a row group, a page.
pub const MOST_OCTETS: u64 = 8 << 20;

/// A file that is read at several places.
pub struct Source {
    file: File,
    length: u64,
    decompressor: Mutex<Decompressor<'static>>,
}

/// Reads the cells of a column chunk from its beginning on.
pub struct Cells {
    reader: ColumnReader,
    /// The next row.
    at: usize,
}

impl Source {
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Self {
            length: file.metadata()?.len(),
            file,
            decompressor: Mutex::new(Decompressor::new()?),
        })
    }

    pub const fn length(&self) -> u64 {
        self.length
    }

    /// # Errors
    /// When the file ends before, or the range is larger than any that belongs together.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let length = range.end.checked_sub(range.start);
        match length.filter(|length| range.end <= self.length && *length <= MOST_OCTETS) {
            Some(length) => {
                let mut octets = vec![0; length as usize];
                self.file.read_exact_at(&mut octets, range.start)?;
                Ok(octets.into())
            }
            None => {
                let found = format!("it has {} octets and refers to {range:?}", self.length);
                Err(Error::Damaged(found))
            }
        }
    }

    /// Lets the kernel read several ranges at once; [`Self::read`] then finds them in memory.
    pub fn prefetch(&self, range: Range<u64>) {
        if let Some(length) = NonZero::new(range.end.saturating_sub(range.start)) {
            // Without it they are read one after the other.
            let _ = fadvise(&self.file, range.start, Some(length), Advice::WillNeed);
        }
    }

    /// # Errors
    /// When these are not `size` octets, compressed.
    pub fn decompress(&self, octets: &[u8], size: usize) -> Result<Vec<u8>, Error> {
        // It begins anew with each call.
        let mut decompressor = self
            .decompressor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let plain = if size == 0 {
            Ok(Vec::new())
        } else {
            decompressor.decompress(octets, size)
        };
        let plain = plain.ok().filter(|plain| plain.len() == size);
        plain.ok_or_else(|| Error::Damaged("a page cannot be decompressed".to_owned()))
    }
}

impl Cells {
    pub fn new(source: &Arc<Source>, pages: &Arc<Pages>, column: ColumnDescPtr) -> Self {
        let pages = Reader::new(Arc::clone(source), Arc::clone(pages));
        let reader = get_column_reader(column, Box::new(pages));
        Self { reader, at: 0 }
    }

    /// Gives the cells of rows that are none of those before.
    ///
    /// # Errors
    /// When there are fewer, or they cannot be decoded.
    pub fn read(&mut self, rows: &Range<usize>, each: impl FnMut(Cell)) -> Result<(), Error> {
        let (skipped, count) = (rows.start - self.at, rows.len());
        self.at = rows.end;
        match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => {
                read(reader, skipped, count, each, |value| Some((*value).into()))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                read(reader, skipped, count, each, |value| {
                    Some((*value as u32).into())
                })
            }
            ColumnReader::Int64ColumnReader(reader) => {
                read(reader, skipped, count, each, |value| {
                    Some((*value as u64).into())
                })
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                let number = |octets: &[u8]| octets.try_into().ok().map(u128::from_be_bytes);
                read(reader, skipped, count, each, |value| number(value.data()))
            }
            _ => Err(Error::Damaged("a column of another type".to_owned())),
        }
    }
}

fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    skipped: usize,
    count: usize,
    mut each: impl FnMut(Cell),
    cell: impl Fn(&T::T) -> Cell,
) -> Result<(), Error> {
    let (mut levels, mut values) = (Vec::new(), Vec::with_capacity(count));
    let found = reader.skip_records(skipped)?
        + reader
            .read_records(count, Some(&mut levels), None, &mut values)?
            .0;
    if found != skipped + count {
        return Err(Error::Damaged(
            "a column ends before its row group".to_owned(),
        ));
    }
    let mut values = values.iter();
    if levels.len() == values.len() || levels.is_empty() {
        values.for_each(|value| each(cell(value)));
    } else {
        let mut next = |level| {
            if level == 0 {
                None
            } else {
                values.next().and_then(&cell)
            }
        };
        levels.into_iter().for_each(|level| each(next(level)));
    }
    Ok(())
}
