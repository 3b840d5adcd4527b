//! Finds rows in a table.

use std::fs::File;
use std::iter;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::file::metadata::{
    ColumnChunkMetaData, FooterTail, ParquetMetaData, ParquetMetaDataOptions,
    ParquetMetaDataReader, ParquetStatisticsPolicy, RowGroupMetaData,
};
use parquet::file::page_index::index_reader::decode_column_index;

use super::clause::{Clause, has_only_nulls, intersect};
use super::columns::{
    self, COUNT, Cell, DESCRIPTOR, GATEWAY_KEY, PAGE_ROWS, SINCE_KEY, UNTIL_KEY, VERSION,
    VERSION_KEY,
};
use super::page::Pages;
use super::source::{Cells, Source};
use super::{Error, Summary};
use crate::archive::row::{Millis, Row};
use crate::archive::wanted::Wanted;

/// The footer of a large file, so that it takes one read.
const TAIL: u64 = 1 << 18;
const MAGIC: &[u8] = b"PAR1";
/// So few rows are read whole rather than column by column: their pages are the same, and all are read at once.
const FEW: usize = 256;
/// Rows that are read along rather than skipped.
const GAP: usize = 64;
/// Beginning to read so many times takes as long as to read a page.
const MANY: usize = 64;

/// A file that [`super::Writer`] has written.
pub struct Table {
    pub(super) source: Arc<Source>,
    pub(super) metadata: ParquetMetaData,
    gateway: String,
    summary: Summary,
}

/// A row group, with the page locations of each column.
pub(super) struct Group<'a> {
    source: &'a Arc<Source>,
    metadata: &'a RowGroupMetaData,
    pages: Vec<Arc<Pages>>,
    rows: usize,
}

impl Table {
    /// Reads the footer.
    ///
    /// # Errors
    /// When the file cannot be read or is no table.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let source = Source::new(File::open(path)?)?;
        let footer = footer(&source)?;
        let options = ParquetMetaDataOptions::new()
            .with_schema(Arc::clone(&DESCRIPTOR))
            .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
            .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
        let decode =
            || ParquetMetaDataReader::decode_metadata_with_options(&footer, Some(&options));
        let metadata = guarded(|| Ok(decode()?)).map_err(|error| {
            if footer
                .windows(VERSION_KEY.len())
                .any(|octets| octets == VERSION_KEY.as_bytes())
            {
                return error;
            }
            Error::Foreign("another program has written it".to_owned())
        })?;
        let file = metadata.file_metadata();
        let entry = |key| {
            let entries = file.key_value_metadata().into_iter().flatten();
            entries
                .filter(|entry| entry.key == key)
                .find_map(|entry| entry.value.as_deref())
        };
        match entry(VERSION_KEY) {
            Some(VERSION) => {}
            Some(other) => {
                let why =
                    format!("its schema is version {other}, and this program reads {VERSION}");
                return Err(Error::Foreign(why));
            }
            None => return Err(Error::Foreign("another program has written it".to_owned())),
        }
        let wrong = || Error::Damaged("its footer does not fit together".to_owned());
        let millis = |key| entry(key)?.parse().ok().map(Millis::new);
        let rows = metadata.row_groups().iter().map(checked_rows);
        let rows = rows.sum::<Option<u64>>().ok_or_else(wrong)?;
        if u64::try_from(file.num_rows()) != Ok(rows) {
            return Err(wrong());
        }
        Ok(Self {
            gateway: entry(GATEWAY_KEY).ok_or_else(wrong)?.to_owned(),
            summary: Summary {
                rows,
                since: millis(SINCE_KEY).ok_or_else(wrong)?,
                until: millis(UNTIL_KEY).ok_or_else(wrong)?,
            },
            source: Arc::new(source),
            metadata,
        })
    }

    /// The gateway whose sessions these are.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// Gives each row that is wanted, in the order of their keys.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged. Rows before that place have been given.
    pub fn find(&mut self, wanted: &Wanted, each: &mut dyn FnMut(Row)) -> Result<(), Error> {
        let clauses = Clause::of(wanted);
        for metadata in self.metadata.row_groups() {
            if !clauses.iter().all(|clause| clause.may_be_in(metadata)) {
                continue;
            }
            let source = &self.source;
            let selected = guarded(|| {
                for clause in &clauses {
                    if !clause.passes_bloom_filters(metadata, source)? {
                        return Ok(None);
                    }
                }
                let group = Group::read(source, metadata)?;
                let rows = group.select(&clauses)?;
                Ok(Some((group, rows)))
            })?;
            if let Some((group, rows)) = selected {
                group.give(&rows, &mut |row| {
                    if wanted.accepts(&row) {
                        each(row);
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Gives all rows, in the order of their keys. Holds some 10 MiB of them at a time.
    ///
    /// # Errors
    /// As for [`Self::find`].
    pub fn for_each(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), Error> {
        self.find(&Wanted::alive(Millis::default()..=Millis::MAX), each)
    }
}

impl<'a> Group<'a> {
    pub(super) fn read(
        source: &'a Arc<Source>,
        metadata: &'a RowGroupMetaData,
    ) -> Result<Self, Error> {
        let rows = metadata.num_rows() as usize;
        let ranges = metadata
            .columns()
            .iter()
            .map(|chunk| chunk.offset_index_range());
        let indexes = read_together(source, ranges)?;
        let decode = |(column, index): (usize, Option<Bytes>)| {
            if has_only_nulls(metadata, column) {
                return Ok(Arc::default());
            }
            let index = index.unwrap_or_default();
            Pages::decode(&index, metadata.column(column), rows).map(Arc::new)
        };
        let pages = indexes.into_iter().enumerate().map(decode);
        Ok(Self {
            source,
            metadata,
            pages: pages.collect::<Result<_, _>>()?,
            rows,
        })
    }

    /// Rows among which are all that meet the clauses.
    fn select(&self, clauses: &[Clause]) -> Result<Vec<Range<usize>>, Error> {
        let columns: Vec<_> = clauses
            .iter()
            .flat_map(|clause| clause.columns())
            .copied()
            .collect();
        let chunks = || columns.iter().map(|column| self.metadata.column(*column));
        let indexes = read_together(
            self.source,
            chunks().map(|chunk| chunk.column_index_range()),
        )?;
        let decode = |(index, chunk): (Option<Bytes>, &ColumnChunkMetaData)| {
            index
                .map(|octets| decode_column_index(&octets, chunk.column_type()))
                .transpose()
        };
        let indexes: Vec<_> = indexes
            .into_iter()
            .zip(chunks())
            .map(decode)
            .collect::<Result<_, _>>()?;
        let mut rows: Vec<_> = iter::once(0..self.rows).collect();
        let mut first = 0;
        for clause in clauses {
            let last = first + clause.columns().len();
            if let Some(possible) = clause.rows_in(&self.pages, &indexes[first..last]) {
                rows = intersect(&rows, &possible);
            }
            first = last;
        }
        self.prefetch(&columns, &rows);
        for clause in clauses {
            let is_worth_it = rows.iter().map(Range::len).sum::<usize>() > FEW;
            if is_worth_it && !clause.holds_in_all(self.metadata) {
                rows = self.narrow(&rows, clause)?;
            }
        }
        Ok(rows)
    }

    /// Leaves out those of the rows that do not meet the clause, but for some that are between others.
    fn narrow(&self, rows: &[Range<usize>], clause: &Clause) -> Result<Vec<Range<usize>>, Error> {
        let mut columns = self.columns(clause.columns());
        if matches!(clause, Clause::Cell { .. }) {
            // The first that is not null counts.
            columns.retain(Option::is_some);
        }
        let (mut found, mut cells) = (Vec::<Range<usize>>::new(), Vec::new());
        for rows in windows(rows) {
            let mut row_at = rows.start;
            let mut take = |cells: &[Cell]| {
                if clause.accepts(cells) {
                    match found.last_mut() {
                        Some(Range { end, .. }) if row_at <= *end + GAP => *end = row_at + 1,
                        _ => found.push(row_at..row_at + 1),
                    }
                }
                row_at += 1;
            };
            if let [Some(column)] = columns.as_mut_slice() {
                column.read(&rows, |cell| take(&[cell]))?;
            } else {
                read_all(&mut columns, &rows, &mut cells)?;
                let mut row_cells = vec![None; cells.len()];
                for place in 0..rows.len() {
                    for (cell, column) in row_cells.iter_mut().zip(&cells) {
                        *cell = column[place];
                    }
                    take(&row_cells);
                }
            }
        }
        Ok(found)
    }

    fn give(&self, rows: &[Range<usize>], each: &mut dyn FnMut(Row)) -> Result<(), Error> {
        let all: [usize; COUNT] = std::array::from_fn(|column| column);
        self.prefetch(&all, rows);
        let mut columns = self.columns(&all);
        let mut cells = Vec::new();
        for rows in windows(rows) {
            guarded(|| read_all(&mut columns, &rows, &mut cells))?;
            let row = |place| columns::row(&std::array::from_fn(|column| cells[column][place]));
            for row in (0..rows.len()).map(row) {
                each(row.ok_or_else(|| Error::Damaged("a row is none of a session".to_owned()))?);
            }
        }
        Ok(())
    }

    /// `None` for those that have only nulls.
    pub(super) fn columns(&self, columns: &[usize]) -> Vec<Option<Cells>> {
        let open = |column: usize| {
            let descriptor = self.metadata.column(column).column_descr_ptr();
            Cells::new(self.source, &self.pages[column], descriptor)
        };
        let columns = columns.iter().copied();
        let open = |column| (!has_only_nulls(self.metadata, column)).then(|| open(column));
        columns.map(open).collect()
    }

    pub(super) fn prefetch(&self, columns: &[usize], rows: &[Range<usize>]) {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return;
        };
        let read = |column: &&usize| !has_only_nulls(self.metadata, **column);
        for column in columns.iter().filter(read) {
            let ranges = self.pages[*column].octets(&(first.start..last.end));
            ranges
                .into_iter()
                .for_each(|range| self.source.prefetch(range));
        }
    }
}

/// The octets of the footer.
fn footer(source: &Source) -> Result<Bytes, Error> {
    let length = source.length();
    let head = source.read(0..length.min(MAGIC.len() as u64))?;
    if !MAGIC.starts_with(&head) {
        return Err(Error::Foreign("it is not Parquet".to_owned()));
    }
    let tail = source.read(length.saturating_sub(TAIL)..length)?;
    let cut = || Error::Damaged("it ends before its footer does".to_owned());
    let (rest, end) = tail.split_last_chunk::<8>().ok_or_else(cut)?;
    let size = FooterTail::try_new(end)
        .map_err(|_| cut())?
        .metadata_length();
    if let Some(start) = rest.len().checked_sub(size) {
        return Ok(tail.slice(start..rest.len()));
    }
    let end = length - 8;
    source.read(end.checked_sub(size as u64).ok_or_else(cut)?..end)
}

/// Several ranges that are near each other, in one go.
fn read_together(
    source: &Source,
    ranges: impl Iterator<Item = Option<Range<u64>>>,
) -> Result<Vec<Option<Bytes>>, Error> {
    let ranges: Vec<_> = ranges.collect();
    let all = || ranges.iter().flatten();
    let start = all().map(|range| range.start).min().unwrap_or(0);
    let end = all().map(|range| range.end).max().unwrap_or(0);
    let octets = source.read(start..end)?;
    let part = |range: &Range<u64>| {
        octets.slice((range.start - start) as usize..(range.end - start) as usize)
    };
    Ok(ranges
        .iter()
        .map(|range| range.as_ref().map(part))
        .collect())
}

pub(super) fn read_all(
    columns: &mut [Option<Cells>],
    rows: &Range<usize>,
    cells: &mut Vec<Vec<Cell>>,
) -> Result<(), Error> {
    cells.resize_with(columns.len(), Vec::new);
    for (column, cells) in columns.iter_mut().zip(cells) {
        cells.clear();
        match column {
            Some(column) => {
                cells.reserve(rows.len());
                column.read(rows, |cell| cells.push(cell))?;
            }
            None => cells.resize(rows.len(), None),
        }
    }
    Ok(())
}

/// The same rows in ranges that are not longer than a page, and those between them where there are many ranges.
fn windows(rows: &[Range<usize>]) -> impl Iterator<Item = Range<usize>> {
    let page = |rows: &Range<usize>| rows.start / PAGE_ROWS;
    let near = rows.chunk_by(move |a, b| page(a) == page(b));
    let ranges = near.flat_map(|near| match near {
        [first, .., last] if near.len() > MANY => iter::once(first.start..last.end).collect(),
        _ => near.to_vec(),
    });
    ranges.flat_map(|rows| {
        let starts = rows.clone().step_by(PAGE_ROWS);
        starts.map(move |start| start..rows.end.min(start + PAGE_ROWS))
    })
}

/// The number of rows, when the group's metadata can be that of a group.
fn checked_rows(group: &RowGroupMetaData) -> Option<u64> {
    let are_places = |chunk: &ColumnChunkMetaData| {
        let dictionary = chunk.dictionary_page_offset().unwrap_or(0);
        dictionary >= 0 && chunk.data_page_offset() >= 0 && chunk.compressed_size() >= 0
    };
    let is_sound = group.num_columns() == COUNT && group.columns().iter().all(are_places);
    u64::try_from(group.num_rows())
        .ok()
        .filter(|rows| is_sound && *rows < 1 << 32)
}

/// Decodes what a file has. The `parquet` crate panics on some octets that it did not write.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Error::Damaged("it cannot be decoded".to_owned())))
}
