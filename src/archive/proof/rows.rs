//! The Merkle tree over the rows of a sealed file: its leaves are the canonical octets of the rows, in the order of the file.

use serde::{Deserialize, Serialize};

use super::merkle::{Hash, LEAF, Tree, root_of, siblings};
use crate::archive::row::Row;

/// The root over rows as they are written.
#[derive(Debug, Default)]
pub struct RowTree {
    tree: Tree,
    octets: Vec<u8>,
}

impl RowTree {
    pub fn push(&mut self, row: &Row) {
        self.octets.clear();
        self.octets.push(LEAF);
        row.encode(&mut self.octets);
        self.tree.push(Hash::of(&self.octets));
    }

    pub const fn rows(&self) -> u64 {
        self.tree.size()
    }

    pub fn root(&self) -> Hash {
        self.tree.root()
    }
}

/// The path from one row to the root, from a second pass over all rows.
#[derive(Debug)]
pub struct RowPath {
    index: u64,
    next: u64,
    /// For each hash of the path, the leaf after its last one and the tree over its leaves, by the order of leaves.
    parts: Vec<(u64, RowTree)>,
    row: Option<Row>,
}

impl RowPath {
    /// `None` if there is no such row.
    pub fn new(index: u64, rows: u64) -> Option<Self> {
        let mut ends: Vec<_> = siblings(index, rows).iter().map(|part| part.end).collect();
        ends.sort_unstable();
        (index < rows).then(|| Self {
            index,
            next: 0,
            parts: ends
                .into_iter()
                .map(|end| (end, RowTree::default()))
                .collect(),
            row: None,
        })
    }

    /// Takes the next row of the file.
    pub fn push(&mut self, row: &Row) {
        if self.next == self.index {
            self.row = Some(*row);
        } else {
            let part = self.parts.partition_point(|&(end, _)| end <= self.next);
            if let Some((_, tree)) = self.parts.get_mut(part) {
                tree.push(row);
            }
        }
        self.next += 1;
    }

    /// `None` unless exactly the rows of the file were pushed.
    pub fn finish(self) -> Option<RowProof> {
        let rows = self
            .parts
            .last()
            .map_or(1, |&(end, _)| end.max(self.index + 1));
        let mut octets = Vec::new();
        self.row?.encode(&mut octets);
        let root = |part: std::ops::Range<u64>| {
            let found = self.parts.binary_search_by_key(&part.end, |&(end, _)| end);
            found.ok().map(|found| self.parts[found].1.root())
        };
        let path = siblings(self.index, rows).into_iter().map(root);
        (self.next == rows).then_some(RowProof {
            octets,
            index: self.index,
            rows,
            path: path.collect::<Option<_>>()?,
        })
    }
}

/// A row and its path to the root over the rows of its file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RowProof {
    /// The row in canonical form.
    #[serde(with = "super::base64::octets")]
    pub octets: Vec<u8>,
    /// Its place in the file, from 0 on.
    pub index: u64,
    /// The number of rows in the file.
    pub rows: u64,
    pub path: Vec<Hash>,
}

impl RowProof {
    /// The row, and the root that follows from it; `None` if the octets or the path cannot be those of a row.
    pub fn check(&self) -> Option<(Row, Hash)> {
        let mut octets = self.octets.as_slice();
        let row = Row::decode(&mut octets)
            .ok()
            .filter(|_| octets.is_empty())?;
        let root = root_of(Hash::leaf(&self.octets), self.index, self.rows, &self.path)?;
        Some((row, root))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::archive::row::tests::rows;

    proptest! {
        #[test]
        fn every_row_has_a_path_to_the_root_over_the_rows(rows in prop::collection::vec(rows(), 1..40)) {
            let mut tree = RowTree::default();
            rows.iter().for_each(|row| tree.push(row));
            for (index, row) in rows.iter().enumerate() {
                let mut path = RowPath::new(index as u64, tree.rows()).unwrap();
                rows.iter().for_each(|row| path.push(row));
                let proof = path.finish().unwrap();
                prop_assert_eq!(proof.check(), Some((*row, tree.root())));
            }
        }

        #[test]
        fn other_than_all_rows_of_the_file_make_no_path(row in rows(), rows in 1_u64..40, pushed in 0_u64..42) {
            let mut path = RowPath::new(rows / 2, rows).unwrap();
            (0..pushed).for_each(|_| path.push(&row));
            prop_assert_eq!(path.finish().is_some(), pushed == rows);
        }
    }
}
