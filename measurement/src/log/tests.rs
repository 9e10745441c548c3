//! The log against known answers, and against everything that should be refused.

extern crate std;

mod merkle;
mod note;
mod record;
mod state;
mod tiles;

use std::prelude::v1::*;

use super::Tree;

/// A tree of `size` leaves, each its own number.
fn tree(size: u64) -> Tree {
    let mut tree = Tree::new();
    for entry in entries(size) {
        tree.append(&entry);
    }
    tree
}

fn entries(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(|i| i.to_be_bytes().to_vec()).collect()
}
