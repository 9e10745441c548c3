//! The log as files (C2SP tlog-tiles): hash tiles `tile/<L>/<N>[.p/<W>]` of at most 256 hashes, and
//! entry bundles `tile/entries/<N>[.p/<W>]` of at most 256 entries, each behind its length as a
//! big-endian u16.
//!
//! Steps of [`read`]:
//! 1. Every entry of the checkpoint's size is there, and its bundle holds nothing else.
//! 2. The tree over the entries has the checkpoint's root.
//! 3. Every hash tile is there and says the same as the tree.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::merkle::{Tree, leaf_hash};
use super::note::Checkpoint;
use crate::digest::{Hash32, of};

/// Entries accepted by [`read`].
pub const MAX_ENTRIES: u64 = 1 << 20;

/// Hashes or entries in a full tile.
const FULL: u64 = 256;

/// One file of the log: what it holds, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    content: Content,
    index: u64,
    width: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Entries,
    Hashes(u32),
}

impl Tile {
    /// The same tile when it is full.
    fn full(self) -> Self {
        Self { width: FULL, ..self }
    }

    /// Positions of what the tile holds, at its level.
    fn positions(self) -> core::ops::Range<u64> {
        let start = self.index.saturating_mul(FULL);
        start..start.saturating_add(self.width)
    }
}

/// The path of the file in the log's directory.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut index = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            index = format!("x{:03}/{index}", rest % 1000);
            rest /= 1000;
        }
        match self.content {
            Content::Entries => write!(f, "tile/entries/{index}")?,
            Content::Hashes(level) => write!(f, "tile/{level}/{index}")?,
        }
        if self.width < FULL { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// The files to write when a log grows from `since` to `tree.size()` entries; `since` 0 gives the
/// whole log. `entries` are all entries of the log, in order. Full tiles never change again.
///
/// # Errors
/// [`TileError`] when the entries are not those of the tree, or one is longer than 65,535 bytes.
pub fn write<E: AsRef<[u8]>>(
    tree: &Tree,
    entries: &[E],
    since: u64,
) -> Result<Vec<(String, Vec<u8>)>, TileError> {
    let observed = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    if observed != tree.size() {
        return Err(TileError::EntryCount { observed, required: tree.size() });
    }
    let files = tiles(since, tree.size()).into_iter().map(|tile| {
        let bytes = match tile.content {
            Content::Entries => bundle(tile, tree, entries)?,
            Content::Hashes(level) => hashes(tile, level, tree)?,
        };
        Ok((tile.to_string(), bytes))
    });
    files.collect()
}

/// Reads a whole log and checks it against `checkpoint`, whose signature is checked elsewhere.
/// `fetch` gives the bytes of a file, or `None`; it decides how many bytes it is willing to carry.
/// A partial tile may be missing where the full one has come instead.
///
/// # Errors
/// The first file that is missing or says something else than the checkpoint.
pub fn read(
    checkpoint: &Checkpoint,
    mut fetch: impl FnMut(&str) -> Option<Vec<u8>>,
) -> Result<(Tree, Vec<Vec<u8>>), TileError> {
    if checkpoint.size > MAX_ENTRIES {
        return Err(TileError::ManyEntries { observed: checkpoint.size });
    }
    let tiles = tiles(0, checkpoint.size);
    let (mut tree, mut entries) = (Tree::new(), Vec::new());
    for tile in tiles.iter().filter(|tile| tile.content == Content::Entries) {
        let (found, bytes) = find(*tile, &mut fetch)?;
        let held = unbundle(found, &bytes)?;
        for entry in held.into_iter().zip(tile.positions()).map(|(entry, _)| entry) {
            tree.append(entry);
            entries.push(entry.to_vec());
        }
    }
    if tree.root() != checkpoint.root {
        return Err(TileError::RootMismatch { observed: tree.root(), required: checkpoint.root });
    }
    for tile in tiles {
        let Content::Hashes(level) = tile.content else { continue };
        let (found, bytes) = find(tile, &mut fetch)?;
        let ours = hashes(tile, level, &tree)?;
        let whole = u64::try_from(bytes.len()) == Ok(found.width.saturating_mul(32));
        if !whole || !bytes.starts_with(&ours) {
            return Err(TileError::TileMismatch { tile: found });
        }
    }
    Ok((tree, entries))
}

/// Why files are not the log of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// A bundle does not hold exactly its entries.
    #[error("{tile} does not hold exactly its entries")]
    Bundle {
        /// The file.
        tile: Tile,
    },
    /// The entries to write are not as many as the tree's leaves.
    #[error("{observed} entries for a tree of {required}")]
    EntryCount {
        /// Entries given.
        observed: u64,
        /// Leaves in the tree.
        required: u64,
    },
    /// An entry to write is not the tree's leaf, or does not fit a bundle.
    #[error("entry {index} is not the leaf of the tree, or longer than 65535 bytes")]
    EntryMismatch {
        /// The entry.
        index: u64,
    },
    /// More entries than accepted.
    #[error("{observed} entries, at most {MAX_ENTRIES} are accepted")]
    ManyEntries {
        /// Entries in the log.
        observed: u64,
    },
    /// A file is not there.
    #[error("{tile} is missing")]
    Missing {
        /// The file.
        tile: Tile,
    },
    /// The entries have another root.
    #[error("the entries have root {observed}, the checkpoint {required}")]
    RootMismatch {
        /// Root of the entries.
        observed: Hash32<of::Node>,
        /// Root in the checkpoint.
        required: Hash32<of::Node>,
    },
    /// A hash tile does not hold exactly the tree's hashes.
    #[error("{tile} does not hold the hashes of the entries")]
    TileMismatch {
        /// The file.
        tile: Tile,
    },
}

/// The tiles that change when a log grows from `old` to `new` entries.
fn tiles(old: u64, new: u64) -> Vec<Tile> {
    let mut tiles = grown(Content::Entries, old, new);
    for level in 0..8 {
        let (old, new) = (old >> (8 * level), new >> (8 * level));
        tiles.extend(grown(Content::Hashes(level), old, new));
    }
    tiles
}

/// The tiles of one row that goes from `old` to `new` items.
fn grown(content: Content, old: u64, new: u64) -> Vec<Tile> {
    if old >= new {
        return Vec::new();
    }
    let (first, last) = (old / FULL, new / FULL);
    let mut tiles: Vec<_> =
        (first..last).map(|index| Tile { content, index, width: FULL }).collect();
    let width = new % FULL;
    if width > 0 {
        tiles.push(Tile { content, index: last, width });
    }
    tiles
}

/// The tile's bytes, or those of the full tile in its place.
fn find(
    tile: Tile,
    fetch: &mut impl FnMut(&str) -> Option<Vec<u8>>,
) -> Result<(Tile, Vec<u8>), TileError> {
    if let Some(bytes) = fetch(&tile.to_string()) {
        return Ok((tile, bytes));
    }
    let full = tile.full();
    let bytes = if full == tile { None } else { fetch(&full.to_string()) };
    bytes.map(|bytes| (full, bytes)).ok_or(TileError::Missing { tile })
}

fn hashes(tile: Tile, level: u32, tree: &Tree) -> Result<Vec<u8>, TileError> {
    let mut bytes = Vec::new();
    for position in tile.positions() {
        let node = tree.node(8 * level, position).ok_or(TileError::TileMismatch { tile })?;
        bytes.extend_from_slice(node.as_bytes());
    }
    Ok(bytes)
}

fn bundle<E: AsRef<[u8]>>(tile: Tile, tree: &Tree, entries: &[E]) -> Result<Vec<u8>, TileError> {
    let mut bytes = Vec::new();
    for index in tile.positions() {
        let mismatch = TileError::EntryMismatch { index };
        let position = usize::try_from(index).map_err(|_| mismatch)?;
        let entry = entries.get(position).ok_or(mismatch)?.as_ref();
        let length = u16::try_from(entry.len()).map_err(|_| mismatch)?;
        if tree.node(0, index) != Some(leaf_hash(entry)) {
            return Err(mismatch);
        }
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// Exactly the tile's number of entries, and nothing after them.
fn unbundle(tile: Tile, bytes: &[u8]) -> Result<Vec<&[u8]>, TileError> {
    let malformed = TileError::Bundle { tile };
    let mut entries = Vec::new();
    let mut rest = bytes;
    for _ in 0..tile.width {
        let (length, after) = rest.split_first_chunk().ok_or(malformed)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or(malformed)?;
        entries.push(entry);
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(malformed) }
}
