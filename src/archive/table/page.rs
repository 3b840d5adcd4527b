//! Pages: where those of a column chunk are, and what is in them.
//!
//! The `parquet` crate has a reader of pages as well. It makes a context of zstd for each column chunk, which takes half
//! of the time of a small question, and allocates whatever a header says.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::index_reader::decode_offset_index;

use super::Error;
use super::source::{MOST_OCTETS, Source};

/// The pages of a column chunk; none of one that need not be read.
#[derive(Default)]
pub struct Pages {
    /// Of each data page.
    first_rows: Vec<usize>,
    octets: Vec<Range<u64>>,
    dictionary: Range<u64>,
    /// Of the whole chunk.
    rows: usize,
}

/// Reads the pages of a column chunk, or leaves them out without having read them.
pub struct Reader {
    source: Arc<Source>,
    pages: Arc<Pages>,
    has_dictionary: bool,
    next: usize,
}

/// The header of a page.
struct Header {
    kind: u64,
    /// Without compression.
    size: u64,
    compressed: u64,
    values: u64,
    encoding: u64,
}

/// Numbers of the format.
const DATA: u64 = 0;
const DICTIONARY: u64 = 2;

impl Pages {
    /// Takes them from the offset index of the chunk.
    ///
    /// # Errors
    /// When the index is not one of a chunk with so many rows.
    pub fn decode(octets: &[u8], chunk: &ColumnChunkMetaData, rows: usize) -> Result<Self, Error> {
        let wrong = || Error::Damaged("a page index is not that of its row group".to_owned());
        // The crate allocates what the length says.
        if list_length(octets).ok_or_else(wrong)? > octets.len() as u64 {
            return Err(wrong());
        }
        let index = decode_offset_index(octets)?;
        let (mut first_rows, mut places) = (Vec::new(), Vec::new());
        for page in index.page_locations() {
            let start = u64::try_from(page.offset).map_err(|_| wrong())?;
            let size = u64::try_from(page.compressed_page_size).map_err(|_| wrong())?;
            first_rows.push(usize::try_from(page.first_row_index).map_err(|_| wrong())?);
            places.push(start..start + size);
        }
        let ends = first_rows.iter().skip(1).chain([&rows]);
        if first_rows.first() != Some(&0) || !first_rows.iter().zip(ends).all(|(a, b)| a < b) {
            return Err(wrong());
        }
        Ok(Self {
            dictionary: chunk.byte_range().0..places[0].start,
            first_rows,
            octets: places,
            rows,
        })
    }

    pub fn count(&self) -> usize {
        self.first_rows.len()
    }

    pub fn rows(&self, page: usize) -> Range<usize> {
        let first = |page| self.first_rows.get(page).copied().unwrap_or(self.rows);
        first(page)..first(page + 1)
    }

    /// Where the dictionary and the pages with any of these rows are in the file.
    pub fn octets(&self, rows: &Range<usize>) -> [Range<u64>; 2] {
        let first = self
            .first_rows
            .partition_point(|first| *first <= rows.start);
        let last = self.first_rows.partition_point(|first| *first < rows.end);
        let (first, last) = (
            &self.octets[first.max(1) - 1],
            &self.octets[last.max(1) - 1],
        );
        [self.dictionary.clone(), first.start..last.end]
    }
}

impl Reader {
    pub fn new(source: Arc<Source>, pages: Arc<Pages>) -> Self {
        let has_dictionary = pages.dictionary.start < pages.dictionary.end;
        Self {
            source,
            pages,
            has_dictionary,
            next: 0,
        }
    }

    fn read(&self, place: &Range<u64>) -> Result<Page, Error> {
        let octets = self.source.read(place.clone())?;
        let mut rest = octets.as_ref();
        let wrong = || Error::Damaged("a page is none".to_owned());
        let header = Header::take(&mut rest).ok_or_else(wrong)?;
        if header.size > MOST_OCTETS || header.compressed != rest.len() as u64 {
            return Err(wrong());
        }
        let octets = self.source.decompress(rest, header.size as usize)?;
        let encoding = match header.encoding {
            0 => Encoding::PLAIN,
            3 => Encoding::RLE,
            5 => Encoding::DELTA_BINARY_PACKED,
            8 => Encoding::RLE_DICTIONARY,
            _ => return Err(wrong()),
        };
        // A value of a dictionary has at least an octet.
        let is_dictionary = header.kind == DICTIONARY && header.values <= header.size;
        let num_values = u32::try_from(header.values).map_err(|_| wrong())?;
        let buf = Bytes::from(octets);
        match header.kind {
            DATA => Ok(Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            }),
            _ if is_dictionary => Ok(Page::DictionaryPage {
                buf,
                num_values,
                encoding,
                is_sorted: false,
            }),
            _ => Err(wrong()),
        }
    }
}

impl PageReader for Reader {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let place = if self.has_dictionary {
            Some(&self.pages.dictionary)
        } else {
            self.pages.octets.get(self.next)
        };
        let page = place.map(|place| self.read(place)).transpose();
        self.skip_next_page()?;
        page.map_err(|error| ParquetError::External(Box::new(error)))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        let is_dict = self.has_dictionary;
        Ok(
            (is_dict || self.next < self.pages.count()).then(|| PageMetadata {
                num_rows: (!is_dict).then(|| self.pages.rows(self.next).len()),
                num_levels: None,
                is_dict,
            }),
        )
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        if !std::mem::take(&mut self.has_dictionary) {
            self.next += 1;
        }
        Ok(())
    }
}

impl Iterator for Reader {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl Header {
    /// In Thrift's compact protocol, with the fields that [`super::Writer`] writes: three integers, and those of a data
    /// page (two more after them) or of a dictionary (and that it is not sorted) as a structure.
    fn take(octets: &mut &[u8]) -> Option<Self> {
        let (kind, size, compressed) = (integer(octets)?, integer(octets)?, integer(octets)?);
        expect(octets, if kind == DATA { 0x2c } else { 0x4c })?;
        let (values, encoding) = (integer(octets)?, integer(octets)?);
        if kind == DATA {
            // The encodings of levels.
            integer(octets)?;
            integer(octets)?;
        } else {
            expect(octets, 0x12)?;
        }
        expect(octets, 0)?;
        expect(octets, 0)?;
        Some(Self {
            kind,
            size,
            compressed,
            values,
            encoding,
        })
    }
}

/// A field that is an integer, and the next one after that before it.
fn integer(octets: &mut &[u8]) -> Option<u64> {
    expect(octets, 0x15)?;
    // ZigZag; none of them is negative.
    varint(octets).map(|number| number >> 1)
}

fn expect(octets: &mut &[u8], expected: u8) -> Option<()> {
    let (first, rest) = octets.split_first()?;
    *octets = rest;
    (*first == expected).then_some(())
}

/// The length of the list that is the first field of a structure.
fn list_length(octets: &[u8]) -> Option<u64> {
    match octets {
        [0x19, head, rest @ ..] if *head >> 4 == 15 => varint(&mut { rest }),
        [0x19, head, ..] => Some((head >> 4).into()),
        _ => None,
    }
}

/// LEB128, as Thrift's compact protocol has it.
fn varint(octets: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (first, rest) = octets.split_first()?;
        *octets = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
