//! Reads the columns that sums need of all rows of a table, a few rows at a time.

use std::ops::{Range, RangeInclusive};

use super::clause::Clause;
use super::columns::{
    COUNTERS, Cell, END, POST_SPORT, POST_SRC, PRE_SPORT, PRE_SRC, PROTO, START, address_of,
};
use super::reader::{Group, Table, guarded, read_all};
use super::source::Cells;
use super::{Error, Summary};
use crate::archive::row::{Brief, Millis};
use crate::archive::wanted::Wanted;
use crate::session::Protocol;

/// So many rows at a time: their cells stay in the cache of the processor, and many files can be read at once.
const WINDOW: usize = 1024;

const COLUMNS: [usize; 11] = [
    POST_SRC,
    POST_SRC + 1,
    POST_SPORT,
    PROTO,
    START,
    END,
    PRE_SRC,
    PRE_SRC + 1,
    PRE_SPORT,
    COUNTERS + 1,
    COUNTERS + 3,
];

/// Gives the rows of a table whose sessions were alive at some time, in the order of their keys. After an error it ends.
pub struct Scan {
    table: Table,
    alive: RangeInclusive<Millis>,
    group: usize,
    /// Those of the group before.
    columns: Vec<Option<Cells>>,
    /// Rows of that group that were not read yet.
    rows: Range<usize>,
    cells: Vec<Vec<Cell>>,
    /// Rows in `cells` that were not given yet.
    window: Range<usize>,
}

impl Scan {
    pub const fn new(table: Table, alive: RangeInclusive<Millis>) -> Self {
        Self {
            table,
            alive,
            group: 0,
            columns: Vec::new(),
            rows: 0..0,
            cells: Vec::new(),
            window: 0..0,
        }
    }

    pub const fn summary(&self) -> Summary {
        self.table.summary()
    }

    fn next_row(&mut self) -> Result<Option<Brief>, Error> {
        loop {
            for place in self.window.by_ref() {
                let wrong = || Error::Damaged("a row is none of a session".to_owned());
                let brief = brief(&self.cells, place).ok_or_else(wrong)?;
                // A row without a start is only known to have been alive at its end.
                let life = brief.life();
                if life.start() <= self.alive.end() && life.end() >= self.alive.start() {
                    return Ok(Some(brief));
                }
            }
            if self.rows.is_empty() && !self.begin_group()? {
                return Ok(None);
            }
            let rows = self.rows.start..self.rows.end.min(self.rows.start + WINDOW);
            guarded(|| read_all(&mut self.columns, &rows, &mut self.cells))?;
            self.rows.start = rows.end;
            self.window = 0..rows.len();
        }
    }

    /// Returns whether there is one that can have such rows.
    fn begin_group(&mut self) -> Result<bool, Error> {
        let clauses = Clause::of(&Wanted::alive(self.alive.clone()));
        let groups = self.table.metadata.row_groups();
        while let Some(metadata) = groups.get(self.group) {
            self.group += 1;
            if clauses.iter().all(|clause| clause.may_be_in(metadata)) {
                let group = guarded(|| Group::read(&self.table.source, metadata))?;
                self.rows = 0..metadata.num_rows() as usize;
                group.prefetch(&COLUMNS, std::slice::from_ref(&self.rows));
                self.columns = group.columns(&COLUMNS);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Iterator for Scan {
    type Item = Result<Brief, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_row();
        if next.is_err() {
            (self.group, self.rows, self.window) = (usize::MAX, 0..0, 0..0);
        }
        next.transpose()
    }
}

/// `None` for cells that no row has.
fn brief(cells: &[Vec<Cell>], place: usize) -> Option<Brief> {
    let cell = |column: usize| cells[column][place];
    let counter = |column| cell(column).and_then(|octets| u64::try_from(octets).ok());
    let (post_src, pre_src) = (address_of(cell(0), cell(1))?, address_of(cell(6), cell(7))?);
    let start = cell(4).map(u64::try_from).transpose().ok()?;
    Some(Brief {
        post_src,
        post_sport: cell(2)?.try_into().ok()?,
        protocol: Protocol(cell(3)?.try_into().ok()?),
        pre_src,
        has_snat: post_src != pre_src || cell(8).is_some(),
        start: start.map(Millis::new),
        end: Millis::new(cell(5)?.try_into().ok()?),
        octets: counter(9)
            .zip(counter(10))
            .map(|(sent, received)| sent.saturating_add(received)),
        is_open: false,
    })
}
