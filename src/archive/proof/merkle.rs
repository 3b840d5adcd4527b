//! Merkle tree hashes of RFC 9162 section 2.1: roots, inclusion proofs and consistency proofs.
//!
//! [`Tree`] takes leaves one by one and keeps one hash per level. The functions that make proofs ask for the hashes of
//! complete subtrees, wherever those are kept. Proofs are checked by the algorithms of sections 2.1.3.2 and 2.1.4.2, which
//! know nothing of how they were made.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use super::base64;

/// The octets before what is hashed tell leaves and nodes apart.
pub(super) const LEAF: u8 = 0;
const NODE: u8 = 1;

/// A SHA-256 hash. As text it is base64, as in the notes of the log.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Hash(pub [u8; 32]);

impl Hash {
    pub fn of(octets: &[u8]) -> Self {
        Self::from_digest(&digest(&SHA256, octets))
    }

    /// The hash of an entry as a leaf.
    pub fn leaf(entry: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[LEAF]);
        context.update(entry);
        Self::from_digest(&context.finish())
    }

    /// The hash of two subtrees.
    pub fn node(left: Self, right: Self) -> Self {
        let mut octets = [NODE; 65];
        octets[1..33].copy_from_slice(&left.0);
        octets[33..].copy_from_slice(&right.0);
        Self::of(&octets)
    }

    fn from_digest(digest: &ring::digest::Digest) -> Self {
        let mut octets = [0; 32];
        octets.copy_from_slice(digest.as_ref());
        Self(octets)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64::encode(&self.0))
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets = base64::decode(text).and_then(|octets| octets.try_into().ok());
        octets.map(Self).ok_or("not a hash in base64")
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A tree that grows at its right end.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    size: u64,
    /// The complete subtrees, the largest first: one for each bit that is set in `size`.
    peaks: Vec<Hash>,
}

impl Tree {
    pub const fn size(&self) -> u64 {
        self.size
    }

    pub fn push(&mut self, leaf: Hash) {
        let mut subtree = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                subtree = Hash::node(left, subtree);
            }
        }
        self.peaks.push(subtree);
        self.size += 1;
    }

    /// The hash of no octets if the tree is empty.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().copied();
        let last = peaks.next().unwrap_or_else(|| Hash::of(b""));
        peaks.fold(last, |right, left| Hash::node(left, right))
    }
}

impl FromIterator<Hash> for Tree {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }
}

/// The leaves whose hashes make up the inclusion proof of a leaf: one range per hash, in the order of the proof.
pub fn siblings(index: u64, size: u64) -> Vec<Range<u64>> {
    let (mut all, mut found) = (0..size, Vec::new());
    while all.end - all.start > 1 {
        let middle = split(&all);
        if index < middle {
            found.push(middle..all.end);
            all.end = middle;
        } else {
            found.push(all.start..middle);
            all.start = middle;
        }
    }
    found.reverse();
    found
}

/// The leaves whose hashes make up the proof that the tree of `size` leaves begins with that of `old` leaves.
pub fn consistency(old: u64, size: u64) -> Vec<Range<u64>> {
    let (mut all, mut found) = (0..size, Vec::new());
    if old == 0 || old >= size {
        return found;
    }
    while all.end != old {
        let middle = split(&all);
        if old <= middle {
            found.push(middle..all.end);
            all.end = middle;
        } else {
            found.push(all.start..middle);
            all.start = middle;
        }
    }
    if all.start != 0 {
        found.push(all);
    }
    found.reverse();
    found
}

/// The hash over a range of leaves that [`siblings`] or [`consistency`] named, from those of complete subtrees: `subtree`
/// gives the hash over the leaves from `index << level` on, `1 << level` in number.
///
/// # Errors
/// The first one of `subtree`.
pub fn hash<E>(
    range: Range<u64>,
    subtree: &mut dyn FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Hash, E> {
    let length = range.end - range.start;
    if length.is_power_of_two() {
        return subtree(length.ilog2(), range.start / length);
    }
    if length == 0 {
        return Ok(Hash::of(b""));
    }
    let middle = split(&range);
    let left = hash(range.start..middle, subtree)?;
    Ok(Hash::node(left, hash(middle..range.end, subtree)?))
}

/// The root that follows from a leaf and its inclusion proof; `None` if the proof is not of the right length.
pub fn root_of(leaf: Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut root) = (index, size - 1, leaf);
    for &sibling in proof {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            root = Hash::node(sibling, root);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            root = Hash::node(root, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(root)
}

/// Whether the proof shows that the tree of the second size and root begins with that of the first.
pub fn is_consistent(old: (u64, Hash), new: (u64, Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (size, root)) = (old, new);
    if old_size == size || old_size == 0 {
        return proof.is_empty() && (old_size == 0 || old_root == root);
    }
    let whole = old_size.is_power_of_two().then_some(old_root);
    let mut hashes = whole.into_iter().chain(proof.iter().copied());
    let (Some(first), true) = (hashes.next(), old_size < size) else {
        return false;
    };
    let (mut at, mut last) = (old_size - 1, size - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut old_found, mut found) = (first, first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_found = Hash::node(hash, old_found);
            found = Hash::node(hash, found);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            found = Hash::node(found, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && old_found == old_root && found == root
}

/// Where the left subtree ends: it has the largest power of two of leaves that leaves something to the right.
const fn split(range: &Range<u64>) -> u64 {
    range.start + (1 << (range.end - range.start - 1).ilog2())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// The leaves of the tests of Certificate Transparency, and the roots over the first 0 to 8 of them.
    const LEAVES: [&[u8]; 8] = [
        b"",
        b"\0",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        for (size, expected) in ROOTS.iter().enumerate() {
            let tree: Tree = LEAVES[..size].iter().map(|leaf| Hash::leaf(leaf)).collect();
            let root: String = tree.root().0.iter().map(|o| format!("{o:02x}")).collect();
            assert_eq!(root, *expected);
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|i| Hash::leaf(&i.to_be_bytes())).collect()
    }

    fn root(leaves: &[Hash]) -> Hash {
        leaves.iter().copied().collect::<Tree>().root()
    }

    fn proof(leaves: &[Hash], ranges: Vec<Range<u64>>) -> Vec<Hash> {
        let mut subtree = |level, index: u64| {
            let first = index as usize;
            Ok::<_, Infallible>(root(&leaves[first << level..(first + 1) << level]))
        };
        let each = ranges.into_iter();
        each.map(|range| hash(range, &mut subtree).unwrap())
            .collect()
    }

    #[test]
    fn every_leaf_of_every_small_tree_has_a_proof_and_no_other_leaf_passes() {
        for size in 1..=40 {
            let leaves = leaves(size);
            for index in 0..size {
                let proof = proof(&leaves, siblings(index, size));
                for other in 0..size {
                    let found = root_of(leaves[index as usize], other, size, &proof);
                    assert_eq!(found == Some(root(&leaves)), index == other);
                }
            }
        }
    }

    #[test]
    fn a_tree_that_begins_otherwise_is_not_consistent() {
        for size in 1..=40_usize {
            let new = leaves(size as u64);
            for old_size in 1..=size {
                let proof = proof(&new, consistency(old_size as u64, size as u64));
                let (old, end) = (root(&new[..old_size]), (size as u64, root(&new)));
                assert!(is_consistent((old_size as u64, old), end, &proof));
                let mut other = new[..old_size].to_vec();
                other[old_size / 2] = Hash::default();
                let other = (old_size as u64, root(&other));
                assert!(!is_consistent(other, end, &proof));
            }
        }
    }

    proptest! {
        #[test]
        fn an_inclusion_proof_with_a_flipped_bit_does_not_pass(
            size in 2_u64..300, index in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(),
        ) {
            let (leaves, index) = (leaves(size), index.index(size as usize));
            let mut proof = proof(&leaves, siblings(index as u64, size));
            let bit = bit.index(proof.len() * 256);
            proof[bit / 256].0[bit / 8 % 32] ^= 1 << (bit % 8);
            let found = root_of(leaves[index], index as u64, size, &proof);
            prop_assert_ne!(found, Some(root(&leaves)));
        }

        #[test]
        fn no_proof_makes_the_check_panic(
            index in any::<u64>(), sizes in any::<(u64, u64)>(), length in 0_usize..70,
        ) {
            let proof = vec![Hash::default(); length];
            root_of(Hash::default(), index, sizes.0, &proof);
            is_consistent((sizes.0, Hash::default()), (sizes.1, Hash::default()), &proof);
        }
    }
}
