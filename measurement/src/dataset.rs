//! The commitment to a sealed data set: an RFC 6962 Merkle root over its ciphertext.
//!
//! Leaf 0 is the file up to its first segment, leaf `j` is segment `j`. An auditor recomputes the
//! root without a key; an enclave refuses a second validly sealed file under the same key.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::digest::{Hash32, of};

/// Folds leaves into a root, holding one hash per level.
#[derive(Debug, Clone, Default)]
pub struct Commitment {
    /// Roots of perfect subtrees, largest first, each with its number of leaves.
    peaks: Vec<(u64, [u8; 32])>,
}

impl Commitment {
    /// An empty commitment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next leaf's bytes.
    pub fn push(&mut self, leaf: &[u8]) {
        let hash = Sha256::new().chain_update([0]).chain_update(leaf).finalize();
        let mut right = (1_u64, hash.into());
        while let Some((leaves, left)) = self.peaks.pop() {
            if leaves != right.0 {
                self.peaks.push((leaves, left));
                break;
            }
            right = (leaves.saturating_mul(2), node(&left, &right.1));
        }
        self.peaks.push(right);
    }

    /// The Merkle tree hash of the leaves so far (RFC 6962 §2.1).
    pub fn root(&self) -> Hash32<of::Dataset> {
        let mut peaks = self.peaks.iter().rev().map(|(_, hash)| *hash);
        let root = match peaks.next() {
            Some(last) => peaks.fold(last, |right, left| node(&left, &right)),
            None => Sha256::digest([]).into(),
        };
        Hash32::from_bytes(root)
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    /// The tree of RFC 6962's reference implementation: its eight inputs and their roots.
    const INPUTS: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    const ROOTS: [(usize, &str); 3] = [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ];

    #[test]
    fn equals_the_reference_tree() {
        for (leaves, root) in ROOTS {
            let mut commitment = Commitment::new();
            for input in INPUTS.iter().take(leaves) {
                commitment.push(&hex::decode(input).unwrap());
            }
            assert_eq!(commitment.root().to_string(), root, "{leaves} leaves");
        }
    }

    #[test]
    fn tells_order_number_and_content_apart() {
        let roots: Vec<_> = [&[b"a", b"b"][..], &[b"b", b"a"], &[b"a"], &[b"a", b"b", b"b"]]
            .iter()
            .map(|leaves| {
                let mut commitment = Commitment::new();
                leaves.iter().for_each(|leaf| commitment.push(*leaf));
                commitment.root()
            })
            .collect();
        for (i, left) in roots.iter().enumerate() {
            assert!(roots.iter().skip(i + 1).all(|right| left != right));
        }
    }
}
