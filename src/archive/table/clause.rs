//! A question as conditions on columns, and the rows of a row group that can meet them.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use parquet::basic::Type;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::Error;
use super::columns::{
    END, POST_DPORT, POST_DST, POST_SPORT, POST_SRC, PRE_DPORT, PRE_DST, PRE_SRC, PROTO, START,
    address,
};
use super::page::Pages;
use super::source::Source;
use crate::archive::wanted::Wanted;

/// A condition on a row, as exact as its columns allow; [`Wanted::accepts`] has the last word.
pub enum Clause {
    /// The cell of the first column is in the range, or if it is null, that of the second one.
    Cell {
        columns: Vec<usize>,
        range: RangeInclusive<u128>,
    },
    Alive(RangeInclusive<u128>),
}

impl Clause {
    /// Those first that leave the fewest rows for the least reading.
    pub fn of(wanted: &Wanted) -> Vec<Self> {
        let is = |columns: &[usize], value: Option<u128>| {
            value.map(|value| Self::Cell {
                columns: columns.to_vec(),
                range: value..=value,
            })
        };
        let host = |columns: &[usize], host: Option<std::net::IpAddr>| {
            let host = host?;
            let family = usize::from(host.is_ipv6());
            let columns: Vec<_> = columns.iter().map(|column| column + family).collect();
            is(&columns, Some(address(host)))
        };
        let subscriber = wanted.pre_src.map(|prefix| {
            let is_ipv6 = prefix.address.is_ipv6();
            let (first, bits) = (address(prefix.address), if is_ipv6 { 128 } else { 32 });
            let others = u128::MAX.checked_shr(128 - bits + u32::from(prefix.length));
            Self::Cell {
                columns: vec![PRE_SRC + usize::from(is_ipv6)],
                range: first..=first | others.unwrap_or(0),
            }
        });
        let protocol = wanted.protocol.map(|protocol| protocol.0.into());
        let alive = u128::from(wanted.alive.start().get())..=u128::from(wanted.alive.end().get());
        let dnat = wanted.has_dnat.then(|| Self::Cell {
            columns: vec![POST_DST, POST_DST + 1],
            range: 0..=u128::MAX,
        });
        let clauses = [
            // The page index tells where there is any.
            dnat,
            host(&[POST_SRC], wanted.post_src),
            is(&[POST_SPORT], wanted.post_sport.map(Into::into)),
            subscriber,
            host(&[PRE_DST], wanted.pre_dst),
            host(&[POST_DST, PRE_DST], wanted.post_dst),
            is(&[PRE_DPORT], wanted.pre_dport.map(Into::into)),
            is(&[POST_DPORT, PRE_DPORT], wanted.post_dport.map(Into::into)),
            is(&[PROTO], protocol),
            Some(Self::Alive(alive)),
        ];
        clauses.into_iter().flatten().collect()
    }

    /// The columns that [`Self::accepts`] takes a cell of, each.
    pub fn columns(&self) -> &[usize] {
        match self {
            Self::Cell { columns, .. } => columns,
            Self::Alive(_) => &[START, END],
        }
    }

    pub fn accepts(&self, cells: &[Option<u128>]) -> bool {
        match self {
            Self::Cell { range, .. } => {
                let cell = cells.iter().find_map(|cell| *cell);
                cell.is_some_and(|value| range.contains(&value))
            }
            Self::Alive(alive) => {
                let (start, end) = (cells[0].unwrap_or(0), cells[1].unwrap_or(u128::MAX));
                start.min(end) <= *alive.end() && end >= *alive.start()
            }
        }
    }

    /// Whether a row of the group can meet it, by what the footer says.
    pub fn may_be_in(&self, group: &RowGroupMetaData) -> bool {
        match self {
            Self::Cell { columns, range } => columns.iter().any(|column| {
                let is_within = |(least, most): (u128, u128)| range_meets(range, least, most);
                extremes(group, *column).is_none_or(is_within)
            }),
            Self::Alive(alive) => {
                let is_without_start = || {
                    let statistics = group.column(START).statistics();
                    statistics.and_then(|all| all.null_count_opt()) != Some(0)
                };
                let begins_after =
                    |column| extremes(group, column).is_some_and(|(least, _)| least > *alive.end());
                let ended_before =
                    extremes(group, END).is_some_and(|(_, most)| most < *alive.start());
                let begins_after = begins_after(START) && begins_after(END);
                !ended_before && (!begins_after || is_without_start())
            }
        }
    }

    /// Whether the footer says that every row of the group meets it.
    pub fn holds_in_all(&self, group: &RowGroupMetaData) -> bool {
        let Self::Alive(alive) = self else {
            return false;
        };
        let began = extremes(group, START).is_some_and(|(_, most)| most <= *alive.end());
        let ended = extremes(group, END).is_some_and(|(least, _)| least >= *alive.start());
        began && ended
    }

    /// Whether a row of the group can meet it, by its bloom filters.
    pub fn passes_bloom_filters(
        &self,
        group: &RowGroupMetaData,
        source: &Source,
    ) -> Result<bool, Error> {
        let Self::Cell { columns, range } = self else {
            return Ok(true);
        };
        for column in columns {
            let chunk = group.column(*column);
            let is_one = range.start() == range.end();
            let (Some(offset), Some(length), true) = (
                chunk.bloom_filter_offset(),
                chunk.bloom_filter_length(),
                is_one,
            ) else {
                return Ok(true);
            };
            let offset = u64::try_from(offset).unwrap_or(u64::MAX);
            let end = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            let filter = Sbbf::from_bytes(&source.read(offset..end)?)?;
            let value = range.start();
            let has = match chunk.column_type() {
                Type::INT32 => filter.check(&(*value as i32)),
                _ => filter.check(value.to_be_bytes().as_slice()),
            };
            if has {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Those rows that are not excluded by the column index of each column, as far as it has one.
    pub fn rows_in(
        &self,
        pages: &[Arc<Pages>],
        indexes: &[Option<ColumnIndexMetaData>],
    ) -> Option<Vec<Range<usize>>> {
        let Self::Cell { columns, range } = self else {
            return None;
        };
        let mut rows = Vec::new();
        for (column, index) in columns.iter().zip(indexes) {
            let pages = &pages[*column];
            let index = index.as_ref()?;
            let may_be_in = |page: &usize| {
                page_extremes(index, *page)
                    .is_some_and(|(least, most)| range_meets(range, least, most))
            };
            rows.extend(
                (0..pages.count())
                    .filter(may_be_in)
                    .map(|page| pages.rows(page)),
            );
        }
        rows.sort_unstable_by_key(|rows| rows.start);
        Some(merge(rows))
    }
}

/// Sorted ranges, with those as one that overlap or follow each other.
fn merge(ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The rows that are in both.
pub fn intersect(some: &[Range<usize>], others: &[Range<usize>]) -> Vec<Range<usize>> {
    let (mut both, mut at) = (Vec::new(), 0);
    for one in some {
        while others.get(at).is_some_and(|other| other.end <= one.start) {
            at += 1;
        }
        let overlaps = others[at..]
            .iter()
            .take_while(|other| other.start < one.end);
        both.extend(overlaps.map(|other| other.start.max(one.start)..other.end.min(one.end)));
    }
    both
}

fn range_meets(range: &RangeInclusive<u128>, least: u128, most: u128) -> bool {
    *range.start() <= most && least <= *range.end()
}

/// Whether the footer says that the chunk has no other cells.
pub fn has_only_nulls(group: &RowGroupMetaData, column: usize) -> bool {
    let statistics = group.column(column).statistics();
    let nulls = statistics.and_then(|all| all.null_count_opt());
    nulls == Some(group.num_rows() as u64)
}

/// The least and the greatest cell of a chunk; `None` when it does not say.
fn extremes(group: &RowGroupMetaData, column: usize) -> Option<(u128, u128)> {
    if has_only_nulls(group, column) {
        // No range meets this one.
        return Some((u128::MAX, 0));
    }
    let statistics = group.column(column).statistics()?;
    let little = |octets: &[u8]| match *octets {
        [a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d]).into()),
        [a, b, c, d, e, f, g, h] => Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]).into()),
        _ => octets.try_into().ok().map(u128::from_be_bytes),
    };
    Some((
        little(statistics.min_bytes_opt()?)?,
        little(statistics.max_bytes_opt()?)?,
    ))
}

/// The least and the greatest cell of a page; `None` when it has only nulls.
fn page_extremes(index: &ColumnIndexMetaData, page: usize) -> Option<(u128, u128)> {
    // Octets of another length are as good as an unknown value: the page is read.
    let big = |octets: &[u8], unknown| octets.try_into().map_or(unknown, u128::from_be_bytes);
    match index {
        ColumnIndexMetaData::INT32(index) if (page as u64) < index.num_pages() => Some((
            (*index.min_value(page)? as u32).into(),
            (*index.max_value(page)? as u32).into(),
        )),
        ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(index) if (page as u64) < index.num_pages() => {
            Some((
                big(index.min_value(page)?, 0),
                big(index.max_value(page)?, u128::MAX),
            ))
        }
        _ => Some((0, u128::MAX)),
    }
}
