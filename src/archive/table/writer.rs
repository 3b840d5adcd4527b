//! Writes a table, one row group at a time.

use std::io::{self, Write};

use bytes::Bytes;
use parquet::basic::Type;
use parquet::data_type::{
    BoolType, ByteArray, DataType, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};

use super::columns::{
    Cell, DESCRIPTOR, GROUP_ROWS, PAGE_ROWS, SINCE_KEY, UNTIL_KEY, cells, properties,
};
use super::{Error, Summary};
use crate::archive::row::{Key, Row};

/// Writes rows in the order of their keys. It holds one row group of them, and takes some 75 MiB.
pub struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    columns: Vec<Column>,
    group_rows: usize,
    /// How many rows are in `columns`.
    held: usize,
    last: Option<Key>,
    summary: Summary,
}

/// The cells of a column.
struct Column {
    values: Values,
    /// For each row 1, or 0 where it has null. Empty for a column that has no nulls.
    levels: Vec<i16>,
    is_optional: bool,
}

/// All that are not null.
enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    /// 16 octets each.
    Fixed(Vec<u8>),
}

impl<W: Write + Send> Writer<W> {
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(out: W, gateway: &str) -> Result<Self, Error> {
        Self::with_sizes(out, gateway, GROUP_ROWS, PAGE_ROWS)
    }

    pub(super) fn with_sizes(
        out: W,
        gateway: &str,
        group_rows: usize,
        page_rows: usize,
    ) -> Result<Self, Error> {
        let properties = properties(gateway, page_rows)?;
        let schema = DESCRIPTOR.root_schema_ptr();
        let file = SerializedFileWriter::new(out, schema, properties).map_err(failed)?;
        let column = |descriptor: &parquet::schema::types::ColumnDescPtr| Column {
            values: match descriptor.physical_type() {
                Type::BOOLEAN => Values::Bool(Vec::new()),
                Type::INT32 => Values::Int32(Vec::new()),
                Type::INT64 => Values::Int64(Vec::new()),
                _ => Values::Fixed(Vec::new()),
            },
            levels: Vec::new(),
            is_optional: descriptor.max_def_level() > 0,
        };
        Ok(Self {
            file,
            columns: DESCRIPTOR.columns().iter().map(column).collect(),
            group_rows,
            held: 0,
            last: None,
            summary: Summary::empty(),
        })
    }

    /// # Errors
    /// When the row belongs before the last one, or the file cannot be written.
    pub fn push(&mut self, row: &Row) -> Result<(), Error> {
        let key = row.key();
        if self.last.is_some_and(|last| last > key) {
            return Err(
                io::Error::new(io::ErrorKind::InvalidInput, "rows are not in order").into(),
            );
        }
        self.last = Some(key);
        for (column, cell) in self.columns.iter_mut().zip(cells(row)) {
            column.push(cell);
        }
        self.held += 1;
        self.summary.rows += 1;
        self.summary.since = self.summary.since.min(row.start.unwrap_or(row.end));
        self.summary.until = self.summary.until.max(row.end);
        if self.held == self.group_rows {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes the rest and the footer. It is up to the caller to sync the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<(W, Summary), Error> {
        if self.held > 0 {
            self.write_group()?;
        }
        for (key, time) in [
            (SINCE_KEY, self.summary.since),
            (UNTIL_KEY, self.summary.until),
        ] {
            let entry = KeyValue::new(key.to_owned(), time.get().to_string());
            self.file.append_key_value_metadata(entry);
        }
        let out = self.file.into_inner().map_err(failed)?;
        Ok((out, self.summary))
    }

    fn write_group(&mut self) -> Result<(), Error> {
        let mut group = self.file.next_row_group().map_err(failed)?;
        for column in &mut self.columns {
            if let Some(mut out) = group.next_column().map_err(failed)? {
                column.write(&mut out).map_err(failed)?;
                out.close().map_err(failed)?;
            }
        }
        group.close().map_err(failed)?;
        self.held = 0;
        Ok(())
    }
}

impl Column {
    fn push(&mut self, cell: Cell) {
        if self.is_optional {
            self.levels.push(cell.is_some().into());
        }
        if let Some(value) = cell {
            match &mut self.values {
                Values::Bool(values) => values.push(value != 0),
                Values::Int32(values) => values.push(value as i32),
                Values::Int64(values) => values.push(value as i64),
                Values::Fixed(values) => values.extend_from_slice(&value.to_be_bytes()),
            }
        }
    }

    /// Leaves it empty.
    fn write(&mut self, out: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = self.is_optional.then_some(self.levels.as_slice());
        match &mut self.values {
            Values::Bool(values) => write::<BoolType>(values, levels, out)?,
            Values::Int32(values) => write::<Int32Type>(values, levels, out)?,
            Values::Int64(values) => write::<Int64Type>(values, levels, out)?,
            Values::Fixed(octets) => {
                let octets = Bytes::from(std::mem::take(octets));
                let value =
                    |at| FixedLenByteArray::from(ByteArray::from(octets.slice(at..at + 16)));
                let mut values = (0..octets.len()).step_by(16).map(value).collect();
                write::<FixedLenByteArrayType>(&mut values, levels, out)?;
            }
        }
        self.levels.clear();
        Ok(())
    }
}

fn write<T: DataType>(
    values: &mut Vec<T::T>,
    levels: Option<&[i16]>,
    out: &mut SerializedColumnWriter<'_>,
) -> Result<(), ParquetError> {
    out.typed::<T>().write_batch(values, levels, None)?;
    values.clear();
    Ok(())
}

/// Only the output can be wrong.
fn failed(error: ParquetError) -> Error {
    match Error::from(error) {
        Error::Foreign(why) | Error::Damaged(why) => Error::Io(io::Error::other(why)),
        error => error,
    }
}
