extern crate std;

use std::prelude::v1::*;

use proptest::prelude::*;

use super::{entries, tree};
use crate::digest::{Hash32, of};
use crate::log::{ProofError, Tree, empty_root, leaf_hash, verify_consistency, verify_inclusion};

type Node = Hash32<of::Node>;

/// The inputs of the Certificate Transparency reference tree, and its roots by size.
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
const A: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const B: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const C: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
const D: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const E: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const F: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";

fn reference() -> Tree {
    let mut tree = Tree::new();
    for input in INPUTS {
        tree.append(&hex::decode(input).unwrap());
    }
    tree
}

fn nodes(texts: &[&str]) -> Vec<Node> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn equals_the_reference_tree_at_every_size() {
    let tree = reference();
    assert_eq!(empty_root().to_string(), ROOTS[0]);
    assert_eq!(Tree::new().root().to_string(), ROOTS[0]);
    for (size, root) in (0..).zip(ROOTS) {
        assert_eq!(tree.root_at(size).unwrap().to_string(), root, "{size} leaves");
    }
    assert_eq!(tree.root().to_string(), ROOTS[8]);
    assert_eq!(tree.root_at(9), None);
}

#[test]
fn gives_the_reference_proofs() {
    let tree = reference();
    for (index, size, path) in [
        (0, 1, &[][..]),
        (0, 8, &[A, B, C]),
        (5, 8, &[D, E, ROOTS[4]]),
        (2, 3, &[ROOTS[2]]),
        (1, 5, &[ROOTS[1], B, D]),
    ] {
        assert_eq!(tree.inclusion_proof(index, size).unwrap(), nodes(path), "{index} of {size}");
    }
    for (old, new, path) in
        [(1, 1, &[][..]), (1, 8, &[A, B, C]), (6, 8, &[F, E, ROOTS[4]]), (2, 5, &[B, D])]
    {
        assert_eq!(tree.consistency_proof(old, new).unwrap(), nodes(path), "{old} to {new}");
    }
}

#[test]
fn gives_no_proof_outside_the_tree() {
    let tree = reference();
    assert_eq!(tree.inclusion_proof(8, 8), None);
    assert_eq!(tree.inclusion_proof(0, 9), None);
    assert_eq!(tree.consistency_proof(5, 4), None);
    assert_eq!(tree.consistency_proof(5, 9), None);
}

#[test]
fn includes_every_leaf_at_every_size_and_nothing_else() {
    let tree = tree(70);
    for size in 1..=70 {
        let root = tree.root_at(size).unwrap();
        for index in 0..size {
            let path = tree.inclusion_proof(index, size).unwrap();
            let leaf = leaf_hash(&index.to_be_bytes());
            assert_eq!(verify_inclusion(&leaf, index, size, &path, &root), Ok(()));
            let other = leaf_hash(&(index + 1).to_be_bytes());
            let refusal = verify_inclusion(&other, index, size, &path, &root).unwrap_err();
            assert!(matches!(refusal, ProofError::RootMismatch { .. }), "{refusal}");
            if size > 1 {
                assert!(verify_inclusion(&leaf, (index + 1) % size, size, &path, &root).is_err());
            }
        }
    }
}

#[test]
fn every_size_is_a_prefix_of_every_larger_one() {
    let tree = tree(70);
    for new in 0..=70 {
        let new_root = tree.root_at(new).unwrap();
        for old in 0..=new {
            let old_root = tree.root_at(old).unwrap();
            let path = tree.consistency_proof(old, new).unwrap();
            assert_eq!(verify_consistency(old, &old_root, new, &new_root, &path), Ok(()));
            let other = leaf_hash(b"another history");
            assert!(verify_consistency(old, &other, new, &new_root, &path).is_err());
            if old != 0 {
                assert!(verify_consistency(old, &old_root, new, &other, &path).is_err());
            }
        }
    }
}

#[test]
fn refuses_an_index_outside_the_tree() {
    let refusal = ProofError::IndexOutOfRange { index: 3, size: 3 };
    assert_eq!(verify_inclusion(&empty_root(), 3, 3, &[], &empty_root()), Err(refusal));
}

#[test]
fn refuses_a_log_that_lost_leaves() {
    let refusal = ProofError::Shrunk { old: 5, new: 4 };
    assert_eq!(verify_consistency(5, &empty_root(), 4, &empty_root(), &[]), Err(refusal));
}

#[test]
fn refuses_a_second_root_for_one_size() {
    let (one, other) = (tree(7).root(), leaf_hash(b"other"));
    let refusal = ProofError::RootMismatch { observed: one, required: other };
    assert_eq!(verify_consistency(7, &one, 7, &other, &[]), Err(refusal));
}

#[test]
fn refuses_a_proof_where_none_is_needed() {
    let (tree, extra) = (tree(7), leaf_hash(b"extra"));
    let refusal = ProofError::PathTooLong { observed: 1 };
    let root = tree.root();
    assert_eq!(verify_consistency(7, &root, 7, &root, &[extra]), Err(refusal));
    assert_eq!(verify_consistency(0, &empty_root(), 7, &root, &[extra]), Err(refusal));
}

#[test]
fn refuses_a_proof_that_is_too_short_or_too_long() {
    let tree = tree(13);
    for index in 0..13_u64 {
        let leaf = leaf_hash(&index.to_be_bytes());
        let mut path = tree.inclusion_proof(index, 13).unwrap();
        let length = path.len();
        path.push(leaf);
        let refusal = ProofError::PathTooLong { observed: length + 1 };
        assert_eq!(verify_inclusion(&leaf, index, 13, &path, &tree.root()), Err(refusal));
        path.truncate(length - 1);
        let refusal = ProofError::PathTooShort { observed: length - 1 };
        assert_eq!(verify_inclusion(&leaf, index, 13, &path, &tree.root()), Err(refusal));
    }
    let old = tree.root_at(5).unwrap();
    let empty = verify_consistency(5, &old, 13, &tree.root(), &[]);
    assert_eq!(empty, Err(ProofError::PathTooShort { observed: 0 }));
}

#[test]
fn survives_sizes_no_tree_has() {
    let node = empty_root();
    let path = [node; 70];
    for size in [1, 2, u64::MAX - 1, u64::MAX] {
        for index in [0, 1, size - 1] {
            assert!(verify_inclusion(&node, index, size, &path, &node).is_err());
            assert!(verify_consistency(index.max(1), &node, size, &node, &path).is_err());
        }
    }
}

proptest! {
    #[test]
    fn refuses_a_proof_with_one_bit_changed(
        size in 2_u64..70, pick: u64, hash: prop::sample::Index, bit in 0_usize..256,
    ) {
        let tree = tree(size);
        let index = pick % size;
        let mut path = tree.inclusion_proof(index, size).unwrap();
        let changed = hash.index(path.len());
        let mut bytes = *path[changed].as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        path[changed] = Hash32::from_bytes(bytes);
        let leaf = leaf_hash(&index.to_be_bytes());
        let refusal = verify_inclusion(&leaf, index, size, &path, &tree.root());
        let elsewhere = matches!(refusal, Err(ProofError::RootMismatch { .. }));
        prop_assert!(elsewhere);
    }

    #[test]
    fn refuses_a_history_with_one_leaf_changed(old in 1_u64..70, more in 1_u64..20, at: u64) {
        let honest = tree(old + more);
        let mut forged = Tree::new();
        for mut entry in entries(old + more) {
            if forged.size() == at % old {
                entry.push(0);
            }
            forged.append(&entry);
        }
        let path = forged.consistency_proof(old, old + more).unwrap();
        let old_root = honest.root_at(old).unwrap();
        prop_assert!(verify_consistency(old, &old_root, old + more, &forged.root(), &path).is_err());
    }
}
