//! Which sessions the store holds, in segments.
//!
//! The sessions that one commit brings are written together, as one blob: a segment. When a session ends, its bit in the
//! segment's bitmap is set; when all have ended, the segment is deleted, then or in one of the next commits. So a session
//! costs the store some bytes and a bit, not a row to be inserted and found again. Segments that have nearly emptied are
//! written together as a new one.
//!
//! This is the directory of the segments, in memory: rows in ascending order, in and over the segments.

use crate::engine::Row;

/// Most sessions in a segment.
pub(super) const MAX_SESSIONS: usize = 1 << 16;
/// Small segments are written as one as long as they have no more live sessions than this, all together; one is small up to
/// a quarter of it.
const SMALL: usize = 4096;
/// Empty segments deleted in a commit, at most: the pages of each are read and freed one by one.
const MAX_DELETED: usize = 4;
/// So many small neighbours are written as one in a commit, at least and at most.
const MIN_MERGED: usize = 16;
const MAX_MERGED: usize = 64;

#[derive(Debug)]
pub(super) struct Segment {
    rows: Vec<Row>,
    ended: Bitmap,
    live: usize,
    /// Whether sessions have ended since the bitmap was written.
    dirty: bool,
    /// Whether it is no longer in the file.
    deleted: bool,
}

/// The change that a commit makes to a segment in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    WriteEnded,
    Delete,
}

impl Segment {
    /// # Panics
    /// If there are no rows; a segment is never empty.
    pub(super) fn new(rows: Vec<Row>) -> Self {
        assert!(!rows.is_empty(), "a segment has at least one session");
        let (ended, live) = (Bitmap::new(rows.len()), rows.len());
        Self {
            rows,
            ended,
            live,
            dirty: false,
            deleted: false,
        }
    }

    /// Number of its first session, which is the segment's name.
    pub(super) fn first(&self) -> Row {
        self.rows[0]
    }

    pub(super) fn is_live(&self, index: usize) -> bool {
        !bit(&self.ended.0, index)
    }

    /// Sessions that have not ended.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    pub(super) fn bitmap(&self) -> &[u8] {
        &self.ended.0
    }

    fn end(&mut self, index: usize) {
        if !self.ended.insert(index) {
            self.live -= 1;
            self.dirty = true;
        }
    }

    /// `deleted` counts those that are deleted in the same commit.
    fn due(&self, deleted: &mut usize) -> Option<Due> {
        if self.is_empty() && *deleted < MAX_DELETED {
            *deleted += 1;
            return Some(Due::Delete);
        }
        self.dirty.then_some(Due::WriteEnded)
    }

    /// Whether it is large and three quarters or more of it have ended.
    fn is_shrunken(&self) -> bool {
        !self.is_small() && self.live > 0 && self.live * 4 <= self.rows.len()
    }

    /// Whether it is small as it was written.
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
    /// When the rows are not in ascending order, in the segment and after the others, or the bitmap is not theirs.
    pub(super) fn load(
        &mut self,
        rows: Vec<Row>,
        bitmap: Option<&[u8]>,
    ) -> Result<&Segment, String> {
        let last = self.0.last().and_then(|segment| segment.rows.last());
        if rows.is_empty() || !rows.is_sorted_by(|a, b| a < b) || last >= rows.first() {
            return Err("its sessions are not in ascending order".to_owned());
        }
        let mut segment = Segment::new(rows);
        if let Some(bitmap) = bitmap {
            if bitmap.len() != segment.ended.0.len() {
                return Err("its bitmap has another length".to_owned());
            }
            let ended = (0..segment.rows.len()).filter(|index| bit(bitmap, *index));
            for index in ended {
                segment.end(index);
            }
            segment.dirty = false;
        }
        self.0.push(segment);
        Ok(&self.0[self.0.len() - 1])
    }

    /// Takes note that the session has ended. Again is harmless, as is a row that is not stored.
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

    /// The changes that a commit makes to the segments that are there.
    pub(super) fn due(&self) -> impl Iterator<Item = (Due, &Segment)> {
        let mut deleted = 0;
        self.0
            .iter()
            .filter_map(move |segment| Some((segment.due(&mut deleted)?, segment)))
    }

    /// Neighbours that are better written as one segment: a large one that has nearly emptied, or many small ones.
    pub(super) fn mergeable(&self) -> Option<&[Segment]> {
        let mut run: &[Segment] = &[];
        let mut start = 0;
        let mut live = 0;
        for (index, segment) in self.0.iter().enumerate() {
            if segment.is_shrunken() {
                return Some(&self.0[index..=index]);
            }
            if !segment.is_small() || live + segment.live > SMALL || run.len() == MAX_MERGED {
                if run.len() >= MIN_MERGED {
                    return Some(run);
                }
                (start, live) = (index, 0);
                if !segment.is_small() {
                    start = index + 1;
                }
            }
            if segment.is_small() {
                live += segment.live;
                run = &self.0[start..=index];
            } else {
                run = &[];
            }
        }
        (run.len() >= MIN_MERGED).then_some(run)
    }

    /// The commit has succeeded: the changes that were [`Self::due`] are in the file, `merged` stands for the segments from
    /// its first row to its last, and `fresh` are new.
    pub(super) fn handle_committed(&mut self, merged: Option<Merged>, fresh: Vec<Segment>) {
        let mut deleted = 0;
        for segment in &mut self.0 {
            segment.deleted = segment.due(&mut deleted) == Some(Due::Delete);
            segment.dirty = false;
        }
        if let Some(Merged {
            segment,
            from,
            count,
        }) = merged
        {
            let at = self.0.partition_point(|segment| segment.first() < from);
            self.0.splice(at..at + count, segment);
        }
        self.0.retain(|segment| !segment.deleted);
        self.0.extend(fresh);
    }
}

/// Where a row stands among rows in ascending order. Rows are counted without holes but for sessions that had ended by the
/// first commit, so that it stands as far from the first as its number, or a little before: a binary search among millions
/// in memory costs more than all else that the end of a session does.
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

/// Neighbouring segments that were written as one.
#[derive(Debug)]
pub(super) struct Merged {
    /// `None` when nothing was left of them.
    pub(super) segment: Option<Segment>,
    /// First row of the first of them.
    pub(super) from: Row,
    pub(super) count: usize,
}

/// A bit per session, the lowest of an octet first.
#[derive(Debug)]
struct Bitmap(Vec<u8>);

impl Bitmap {
    fn new(bits: usize) -> Self {
        Self(vec![0; bits.div_ceil(8)])
    }

    /// Sets the bit and says whether it was set before.
    fn insert(&mut self, bit: usize) -> bool {
        let before = self::bit(&self.0, bit);
        self.0[bit / 8] |= 1 << (bit % 8);
        before
    }
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
