//! The sessions in the store, in segments.
//!
//! The sessions that began before one commit are written together, as one blob: a segment. When a session ends, its bit
//! in the segment's bitmap is set; when all have ended, that commit or one of the next deletes the segment. So a
//! session costs the store some bytes and a bit, not a row to be inserted and found again. Segments that have nearly
//! emptied are rewritten together as a new one.
//!
//! This is the directory of the segments, in memory: rows ascend within and across the segments.

use std::ops::RangeInclusive;

use crate::engine::Row;
use crate::wire::record::Malformed;

/// The most sessions in a segment.
pub(super) const MAX_SESSIONS: usize = 1 << 16;
/// The most live sessions of small segments that are rewritten as one; a segment of at most a quarter of this is small.
const SMALL: usize = 4096;
/// The most empty segments that a commit deletes: the pages of each are read and freed one by one.
const MAX_DELETED: usize = 4;
/// The least and the most small neighbours that a commit rewrites as one segment.
const MIN_MERGED: usize = 16;
const MAX_MERGED: usize = 64;

/// The sessions that were written together, one or more.
#[derive(Debug)]
pub(super) struct Segment {
    rows: Box<[Row]>,
    /// A bit per session, the lowest of an octet first.
    ended: Box<[u8]>,
    live: usize,
    /// Whether sessions have ended since the bitmap was written.
    dirty: bool,
}

impl Segment {
    pub(super) fn new(rows: Box<[Row]>) -> Self {
        let (ended, live) = (vec![0; rows.len().div_ceil(8)].into(), rows.len());
        Self {
            rows,
            ended,
            live,
            dirty: false,
        }
    }

    /// The number of its first session, which identifies the segment.
    pub(super) fn first(&self) -> Row {
        self.rows[0]
    }

    pub(super) fn is_live(&self, index: usize) -> bool {
        !bit(&self.ended, index)
    }

    /// Sessions that have not ended.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    pub(super) fn bitmap(&self) -> &[u8] {
        &self.ended
    }

    fn end(&mut self, index: usize) {
        if self.is_live(index) {
            self.ended[index / 8] |= 1 << (index % 8);
            self.live -= 1;
            self.dirty = true;
        }
    }

    /// Whether it is large and at least three quarters of it have ended.
    fn is_shrunken(&self) -> bool {
        !self.is_small() && self.live > 0 && self.live * 4 <= self.rows.len()
    }

    /// Whether it was small when it was written.
    fn is_small(&self) -> bool {
        self.rows.len() <= SMALL / 4
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.live == 0
    }
}

/// The segments in the order of their rows.
#[derive(Debug, Default)]
pub(super) struct Directory(Vec<Segment>);

impl Directory {
    /// Adds a segment that was read from the file, with the bitmap of those that have ended, if there is one.
    ///
    /// # Errors
    /// When the rows do not ascend within the segment and after the others, or the bitmap has another length.
    pub(super) fn load(
        &mut self,
        rows: Box<[Row]>,
        bitmap: Option<&[u8]>,
    ) -> Result<&Segment, Malformed> {
        let last = self.0.last().and_then(|segment| segment.rows.last());
        if rows.is_empty() || !rows.is_sorted_by(|a, b| a < b) || last >= rows.first() {
            return Err(Malformed("its sessions are not in ascending order"));
        }
        let mut segment = Segment::new(rows);
        if let Some(bitmap) = bitmap {
            if bitmap.len() != segment.ended.len() {
                return Err(Malformed("its bitmap has another length"));
            }
            let ended = (0..segment.rows.len()).filter(|index| bit(bitmap, *index));
            ended.for_each(|index| segment.end(index));
            segment.dirty = false;
        }
        self.0.push(segment);
        Ok(&self.0[self.0.len() - 1])
    }

    /// Takes note that the session has ended. Repeating this is harmless, as is a row that is not stored.
    pub(super) fn end(&mut self, row: Row) {
        let after = self.0.partition_point(|segment| segment.first() <= row);
        if let Some(segment) = after.checked_sub(1).map(|index| &mut self.0[index])
            && let Some(index) = index_of(&segment.rows, row)
        {
            segment.end(index);
        }
    }

    /// Sessions that have not ended.
    pub(super) fn live(&self) -> usize {
        self.0.iter().map(Segment::live).sum()
    }

    /// The segments whose bitmaps a commit writes.
    pub(super) fn dirty(&self) -> impl Iterator<Item = &Segment> {
        self.0.iter().filter(|segment| segment.dirty)
    }

    /// The segments that a commit deletes, as all their sessions have ended.
    pub(super) fn deletable(&self) -> impl Iterator<Item = &Segment> {
        let empty = self.0.iter().filter(|segment| segment.is_empty());
        empty.take(MAX_DELETED)
    }

    /// Neighbours that are better rewritten as one segment: a large one that has nearly emptied, or many small ones.
    pub(super) fn mergeable(&self) -> Option<&[Segment]> {
        if let Some(index) = self.0.iter().position(Segment::is_shrunken) {
            return Some(&self.0[index..=index]);
        }
        let mut neighbours = self.0.split(|segment| !segment.is_small());
        neighbours.find_map(|mut small| {
            while small.len() >= MIN_MERGED {
                let mut live = 0;
                let fitting = small.iter().take(MAX_MERGED).take_while(|segment| {
                    live += segment.live;
                    live <= SMALL
                });
                let (run, rest) = small.split_at(fitting.count());
                if run.len() >= MIN_MERGED {
                    return Some(run);
                }
                small = rest;
            }
            None
        })
    }

    /// The commit has succeeded: the segments that were [`Self::dirty`] and [`Self::deletable`] are written and
    /// deleted, `merged` replaces the segments of its rows, and `fresh` are new.
    pub(super) fn handle_committed(&mut self, merged: Option<Merged>, fresh: Vec<Segment>) {
        let mut deleted = 0;
        self.0.retain_mut(|segment| {
            segment.dirty = false;
            deleted += usize::from(segment.is_empty());
            !segment.is_empty() || deleted > MAX_DELETED
        });
        if let Some(Merged { segment, rows }) = merged {
            let begin = self
                .0
                .partition_point(|other| other.first() < *rows.start());
            let end = self.0.partition_point(|other| other.first() <= *rows.end());
            self.0.splice(begin..end, segment);
        }
        self.0.extend(fresh);
    }
}

/// The index of a row among ascending rows. Only sessions that ended before their first commit leave holes, so the
/// index is the distance from the first row, or a little less: a binary search among millions in memory costs more than
/// all else that the end of a session does.
fn index_of(rows: &[Row], row: Row) -> Option<usize> {
    let distance = usize::try_from(row.0.checked_sub(rows.first()?.0)?).ok()?;
    let mut end = distance.saturating_add(1).min(rows.len());
    let mut step = 1;
    loop {
        let begin = end.saturating_sub(step);
        if begin == 0 || rows[begin] <= row {
            let found = rows[begin..end].binary_search(&row);
            return found.ok().map(|index| begin + index);
        }
        (end, step) = (begin, step * 2);
    }
}

/// Neighbouring segments that were rewritten as one.
#[derive(Debug)]
pub(super) struct Merged {
    /// `None` when nothing was left of them.
    pub(super) segment: Option<Segment>,
    /// The first rows of the first and of the last of them.
    pub(super) rows: RangeInclusive<Row>,
}

fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap[index / 8] & (1 << (index % 8)) != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_is_found_where_it_stands_whatever_the_holes(
            holes in proptest::collection::vec(1_i64..5, 1..200), first in 0_i64..9, sought in -1_i64..1000
        ) {
            let rows: Vec<_> = holes.iter().scan(first, |row, hole| {
                *row += hole;
                Some(Row(*row))
            }).collect();
            let expected = rows.iter().position(|row| row.0 == sought);
            prop_assert_eq!(index_of(&rows, Row(sought)), expected);
        }
    }
}
