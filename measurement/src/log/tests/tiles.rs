extern crate std;

use std::collections::BTreeMap;
use std::prelude::v1::*;

use super::{entries, tree};
use crate::log::tiles::{MAX_ENTRIES, TileError, read, write};
use crate::log::{Checkpoint, Tree};

type Files = BTreeMap<String, Vec<u8>>;

const MISMATCH: &str = "tile/0/002 does not hold the hashes of the entries";

fn files(size: u64) -> Files {
    write(&tree(size), &entries(size), 0).unwrap().into_iter().collect()
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint { origin: "example.org/log".into(), size, root: tree(size).root() }
}

fn reading(files: &Files, size: u64) -> Result<(Tree, Vec<Vec<u8>>), TileError> {
    read(&checkpoint(size), |path| files.get(path).cloned())
}

/// The finding after one change to the files of a log of 700 entries.
fn refusal(change: impl FnOnce(&mut Files)) -> String {
    let mut files = files(700);
    change(&mut files);
    reading(&files, 700).unwrap_err().to_string()
}

#[test]
fn lays_files_out_as_the_format_says() {
    let paths = |size| files(size).into_keys().collect::<Vec<_>>();
    assert_eq!(paths(0), [""; 0]);
    assert_eq!(paths(1), ["tile/0/000.p/1", "tile/entries/000.p/1"]);
    assert_eq!(paths(256), ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]);
    assert_eq!(
        paths(700),
        [
            "tile/0/000",
            "tile/0/001",
            "tile/0/002.p/188",
            "tile/1/000.p/2",
            "tile/entries/000",
            "tile/entries/001",
            "tile/entries/002.p/188",
        ]
    );
    let all = files(256 * 256 + 1);
    for path in ["tile/0/255", "tile/0/256.p/1", "tile/1/000", "tile/2/000.p/1"] {
        assert!(all.contains_key(path), "{path}");
    }
    assert!(!all.keys().any(|path| path.starts_with("tile/1/001") || path.starts_with("tile/3")));
}

#[test]
fn writes_large_indices_in_groups_of_three_digits() {
    let size = 256 * 1001;
    let paths: Vec<_> = write(&tree(size), &entries(size), size - 1)
        .unwrap()
        .into_iter()
        .map(|file| file.0)
        .collect();
    assert_eq!(paths, ["tile/entries/x001/000", "tile/0/x001/000", "tile/1/003.p/233"],);
}

#[test]
fn puts_hashes_and_length_prefixed_entries_in_the_files() {
    let (tree, files) = (tree(257), files(257));
    assert_eq!(files["tile/0/001.p/1"], tree.node(0, 256).unwrap().as_bytes());
    assert_eq!(files["tile/1/000.p/1"], tree.root_at(256).unwrap().as_bytes());
    assert_eq!(files["tile/entries/001.p/1"], [0, 8, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(files["tile/0/000"].len(), 256 * 32);
}

#[test]
fn rebuilds_the_log_from_its_files() {
    for size in [0, 1, 2, 255, 256, 257, 511, 512, 700] {
        assert_eq!(reading(&files(size), size), Ok((tree(size), entries(size))), "{size}");
    }
}

#[test]
fn a_log_written_bit_by_bit_holds_the_same_files() {
    let mut grown = Files::new();
    let sizes = [0, 1, 3, 200, 256, 300, 600, 700];
    for pair in sizes.windows(2) {
        grown.extend(write(&tree(pair[1]), &entries(pair[1]), pair[0]).unwrap());
    }
    let whole = files(700);
    assert!(whole.iter().all(|(path, bytes)| grown.get(path) == Some(bytes)));
    for size in sizes {
        assert_eq!(reading(&grown, size), Ok((tree(size), entries(size))), "{size}");
    }
}

#[test]
fn takes_a_full_tile_in_the_place_of_a_partial_one() {
    let (mut full, partial) = (files(768), files(700));
    full.insert("tile/1/000.p/2".into(), partial["tile/1/000.p/2"].clone());
    assert!(!full.contains_key("tile/0/002.p/188"));
    assert_eq!(reading(&full, 700).unwrap().1, entries(700));
    full.get_mut("tile/0/002").unwrap().pop();
    assert_eq!(reading(&full, 700).unwrap_err().to_string(), MISMATCH);
}

#[test]
fn refuses_missing_files() {
    for path in files(700).into_keys() {
        let finding = refusal(|files| drop(files.remove(&path)));
        assert_eq!(finding, format!("{path} is missing"));
    }
}

#[test]
fn refuses_any_changed_byte() {
    for path in files(700).into_keys() {
        for at in [0, 1, 2, 9, 40] {
            let finding = refusal(|files| files.get_mut(&path).unwrap()[at] ^= 1);
            let named = finding.starts_with(&path) || finding.starts_with("the entries have root");
            assert!(named, "{path} {at}: {finding}");
        }
    }
}

#[test]
fn refuses_files_that_are_cut_or_go_on() {
    for path in files(700).into_keys() {
        let cut = refusal(|files| {
            files.get_mut(&path).unwrap().pop();
        });
        let extended = refusal(|files| files.get_mut(&path).unwrap().push(0));
        assert!(cut.starts_with(&path) && extended.starts_with(&path), "{cut} {extended}");
    }
}

#[test]
fn never_panics_on_a_prefix_of_a_bundle() {
    let whole = files(3)["tile/entries/000.p/3"].clone();
    for end in 0..whole.len() {
        let mut files = files(3);
        files.insert("tile/entries/000.p/3".into(), whole[..end].to_vec());
        let finding = reading(&files, 3).unwrap_err();
        assert!(matches!(finding, TileError::Bundle { .. }), "{end}: {finding}");
    }
}

#[test]
fn refuses_another_history_under_the_same_checkpoint() {
    let mut other = entries(5);
    other[2] = b"another".to_vec();
    let mut forged = Tree::new();
    for entry in &other {
        forged.append(entry);
    }
    let files: Files = write(&forged, &other, 0).unwrap().into_iter().collect();
    let refusal = TileError::RootMismatch { observed: forged.root(), required: tree(5).root() };
    assert_eq!(reading(&files, 5), Err(refusal));
}

#[test]
fn refuses_a_size_that_would_fill_the_memory() {
    let huge = Checkpoint { size: MAX_ENTRIES + 1, ..checkpoint(1) };
    let refusal = TileError::ManyEntries { observed: MAX_ENTRIES + 1 };
    assert_eq!(read(&huge, |_| unreachable!("fetches nothing")), Err(refusal));
}

#[test]
fn refuses_to_write_entries_that_are_not_the_trees() {
    let refusal = TileError::EntryCount { observed: 2, required: 3 };
    assert_eq!(write(&tree(3), &entries(2), 0), Err(refusal));
    let mut other = entries(3);
    other[1].push(0);
    assert_eq!(write(&tree(3), &other, 0), Err(TileError::EntryMismatch { index: 1 }));
    let mut long = Tree::new();
    let entry = vec![0; 65_536];
    long.append(&entry);
    assert_eq!(write(&long, &[entry], 0), Err(TileError::EntryMismatch { index: 0 }));
}
