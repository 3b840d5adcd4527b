//! A table: the rows of a sealed file, in Parquet. Nothing outside of this module knows that format.
//!
//! What goes in comes out: the times to the millisecond, and all else. [`Writer`] takes rows in the order of their keys
//! and holds one row group of them. [`Table`] reads no more of a file than a question needs: the footer, then the page
//! indexes of the row groups that can have an answer, then pages. Whatever the octets of the file, it says what is wrong
//! with them, and neither panics nor takes more memory for them than for a sound file.
//!
//! [`Scan`] reads few columns of many rows. [`columns`] has the schema, [`page`] and [`source`] read columns, [`clause`] turns a question into conditions on them.

mod clause;
mod columns;
mod page;
mod reader;
mod scan;
mod source;
mod writer;

use std::{fmt, io};

use parquet::errors::ParquetError;

pub use reader::Table;
pub use scan::Scan;
pub use writer::Writer;

use super::row::Millis;

/// What a table holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Summary {
    pub rows: u64,
    /// The earliest start, or end of a row that has none. Later than `until` when there are no rows.
    pub since: Millis,
    /// The latest end.
    pub until: Millis,
}

#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    /// Not a file of this program, or of a later version of it. How that shows.
    Foreign(String),
    /// Cut short, or changed.
    Damaged(String),
}

/// Goes after the name of the file.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot be read or written: {error}"),
            Self::Foreign(why) => write!(f, "is not a file of this archive: {why}"),
            Self::Damaged(why) => write!(f, "is damaged: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ParquetError> for Error {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(error) => match error.downcast::<Self>() {
                Ok(error) => *error,
                Err(error) => match error.downcast() {
                    Ok(error) => Self::Io(*error),
                    Err(error) => Self::Damaged(error.to_string()),
                },
            },
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl Summary {
    fn empty() -> Self {
        Self {
            rows: 0,
            since: Millis::MAX,
            until: Millis::default(),
        }
    }
}

#[cfg(test)]
mod tests;
