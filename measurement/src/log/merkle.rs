//! The Merkle tree of RFC 6962 section 2 with SHA-256, its proofs, and their verification (RFC 9162
//! sections 2.1.3.2 and 2.1.4.2).

use alloc::vec::Vec;

use crate::digest::{Hash32, of};

/// Hash of one leaf: `SHA-256(0x00 || entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash32<of::Node> {
    let mut bytes = Vec::with_capacity(1 + entry.len());
    bytes.push(0);
    bytes.extend_from_slice(entry);
    Hash32::of(&bytes)
}

/// Root of the tree with no leaves: `SHA-256("")`.
pub fn empty_root() -> Hash32<of::Node> {
    Hash32::of(&[])
}

/// Hash of an inner node: `SHA-256(0x01 || left || right)`.
fn node_hash(left: &Hash32<of::Node>, right: &Hash32<of::Node>) -> Hash32<of::Node> {
    let mut bytes = Vec::with_capacity(65);
    bytes.push(1);
    bytes.extend_from_slice(left.as_bytes());
    bytes.extend_from_slice(right.as_bytes());
    Hash32::of(&bytes)
}

/// An append-only tree held in memory: the hash of every complete, aligned subtree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// `levels[l][i]` covers the leaves `i 2^l .. (i+1) 2^l`.
    levels: Vec<Vec<Hash32<of::Node>>>,
}

impl Tree {
    /// The tree with no leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `SHA-256(0x00 || entry)` and returns the entry's index.
    pub fn append(&mut self, entry: &[u8]) -> u64 {
        self.append_hash(leaf_hash(entry))
    }

    /// Appends a leaf hash and returns the leaf's index.
    pub fn append_hash(&mut self, leaf: Hash32<of::Node>) -> u64 {
        let index = self.size();
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(row) = self.levels.get_mut(level) else { break };
            row.push(hash);
            match row.as_slice() {
                [.., left, right] if row.len().is_multiple_of(2) => hash = node_hash(left, right),
                _ => break,
            }
        }
        index
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |row| wide(row.len()))
    }

    /// Root of the whole tree.
    pub fn root(&self) -> Hash32<of::Node> {
        self.range(0, self.size()).unwrap_or_else(empty_root)
    }

    /// Root as it was at `size` leaves, or `None` if the tree is smaller.
    pub fn root_at(&self, size: u64) -> Option<Hash32<of::Node>> {
        if size == 0 { Some(empty_root()) } else { self.range(0, size) }
    }

    /// Hash of the complete subtree over the leaves `index 2^level .. (index+1) 2^level`.
    pub fn node(&self, level: u32, index: u64) -> Option<Hash32<of::Node>> {
        let row = self.levels.get(usize::try_from(level).ok()?)?;
        row.get(usize::try_from(index).ok()?).copied()
    }

    /// Audit path of the leaf `index` in the tree of `size` leaves, from the leaf upwards; `None`
    /// unless `index < size <= self.size()`.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Option<Vec<Hash32<of::Node>>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut start, mut end) = (0, size);
        let mut path = Vec::new();
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
            }
        }
        path.reverse();
        Some(path)
    }

    /// Proof that the tree of `old` leaves is a prefix of the tree of `new` leaves; empty when
    /// `old` is 0 or equal to `new`, `None` unless `old <= new <= self.size()`.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Option<Vec<Hash32<of::Node>>> {
        if old > new || new > self.size() {
            return None;
        }
        if old == 0 || old == new {
            return Some(Vec::new());
        }
        let (mut start, mut end) = (0, new);
        let mut path = Vec::new();
        while end != old {
            let middle = start + split(end - start);
            if old <= middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
            }
        }
        // The verifier knows the old root already when the old tree is one complete subtree.
        if start != 0 {
            path.push(self.range(start, end)?);
        }
        path.reverse();
        Some(path)
    }

    /// Hash over the leaves `start..end`, which is not empty and whose first complete part is
    /// aligned, as every range that splitting visits.
    fn range(&self, start: u64, end: u64) -> Option<Hash32<of::Node>> {
        let count = end.checked_sub(start)?;
        if count.is_power_of_two() {
            return self.node(count.trailing_zeros(), start >> count.trailing_zeros());
        }
        if count == 0 {
            return None;
        }
        let middle = start + split(count);
        Some(node_hash(&self.range(start, middle)?, &self.range(middle, end)?))
    }
}

/// Checks that the leaf with hash `leaf` is number `index` of the tree of `size` leaves with this
/// root.
///
/// # Errors
/// The first way in which the proof fails.
pub fn verify_inclusion(
    leaf: &Hash32<of::Node>,
    index: u64,
    size: u64,
    path: &[Hash32<of::Node>],
    root: &Hash32<of::Node>,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::IndexOutOfRange { index, size });
    }
    let mut climb = Climb { position: index, last: size - 1 };
    let mut hash = *leaf;
    for sibling in path {
        hash = match climb.sibling() {
            Some(Side::Left) => node_hash(sibling, &hash),
            Some(Side::Right) => node_hash(&hash, sibling),
            None => return Err(ProofError::PathTooLong { observed: path.len() }),
        };
    }
    climb.finish(path, &[(hash, *root)])
}

/// Checks that the tree of `old_size` leaves with root `old_root` is a prefix of the tree of
/// `new_size` leaves with root `new_root`.
///
/// # Errors
/// The first way in which the proof fails.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash32<of::Node>,
    new_size: u64,
    new_root: &Hash32<of::Node>,
    path: &[Hash32<of::Node>],
) -> Result<(), ProofError> {
    if old_size > new_size {
        return Err(ProofError::Shrunk { old: old_size, new: new_size });
    }
    if old_size == 0 || old_size == new_size {
        let top = Climb { position: 0, last: 0 };
        let required = if old_size == 0 { empty_root() } else { *new_root };
        return match path {
            [] => top.finish(path, &[(*old_root, required)]),
            _ => Err(ProofError::PathTooLong { observed: path.len() }),
        };
    }
    // An old tree that is one complete subtree is the first hash itself.
    let (first, siblings) = match path.split_first() {
        _ if old_size.is_power_of_two() => (*old_root, path),
        Some((first, siblings)) => (*first, siblings),
        None => return Err(ProofError::PathTooShort { observed: 0 }),
    };
    let level = (old_size - 1).trailing_ones();
    let mut climb = Climb { position: (old_size - 1) >> level, last: (new_size - 1) >> level };
    let (mut old, mut new) = (first, first);
    for sibling in siblings {
        match climb.sibling() {
            Some(Side::Left) => {
                old = node_hash(sibling, &old);
                new = node_hash(sibling, &new);
            }
            Some(Side::Right) => new = node_hash(&new, sibling),
            None => return Err(ProofError::PathTooLong { observed: path.len() }),
        }
    }
    climb.finish(path, &[(old, *old_root), (new, *new_root)])
}

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The leaf's index is outside the tree.
    #[error("leaf {index} is not in a tree of {size}")]
    IndexOutOfRange {
        /// The leaf's index.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// Hashes are left over.
    #[error("the proof of {observed} hashes is too long")]
    PathTooLong {
        /// Hashes in the proof.
        observed: usize,
    },
    /// Hashes are missing.
    #[error("the proof of {observed} hashes is too short")]
    PathTooShort {
        /// Hashes in the proof.
        observed: usize,
    },
    /// The hashes lead elsewhere.
    #[error("the proof leads to root {observed}, the tree has {required}")]
    RootMismatch {
        /// Root that the proof leads to.
        observed: Hash32<of::Node>,
        /// Root that was given.
        required: Hash32<of::Node>,
    },
    /// The log lost leaves.
    #[error("the tree went from {old} leaves to {new}")]
    Shrunk {
        /// Leaves before.
        old: u64,
        /// Leaves now.
        new: u64,
    },
}

/// The way from a node to the root: the node's position in its level, and that of the last one.
struct Climb {
    position: u64,
    last: u64,
}

/// Where a sibling stands.
enum Side {
    Left,
    Right,
}

impl Climb {
    /// Goes one hash up; `None` at the root.
    fn sibling(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let left = self.position % 2 == 1 || self.position == self.last;
        if left {
            // A last node without a sibling rises as it is.
            let rise = self.position.trailing_zeros();
            self.position >>= rise;
            self.last >>= rise;
        }
        self.position >>= 1;
        self.last >>= 1;
        Some(if left { Side::Left } else { Side::Right })
    }

    /// The end of a verification: nothing is left to climb, and the roots agree.
    fn finish(
        &self,
        path: &[Hash32<of::Node>],
        roots: &[(Hash32<of::Node>, Hash32<of::Node>)],
    ) -> Result<(), ProofError> {
        if self.last != 0 {
            return Err(ProofError::PathTooShort { observed: path.len() });
        }
        match roots.iter().find(|(observed, required)| observed != required) {
            Some(&(observed, required)) => Err(ProofError::RootMismatch { observed, required }),
            None => Ok(()),
        }
    }
}

/// Largest power of two below `count`, for `count >= 2`.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// A length as the wire counts it; `usize` has at most 64 bits on every platform we build for.
fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
