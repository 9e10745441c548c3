//! The root of a sealed data set, recomputed from its ciphertext without a key.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `"SDS1\r\n\x1a\n"` |
//! | 8 | 4 | `u32be` H, at most 65 536 |
//! | 12 | H | public header |
//! | 12 + H | 10 | FLOE parameters `00 00 ‖ u32be segment_len ‖ 00000020` |
//! | 22 + H | 64 | FLOE IV and header tag |
//! | 86 + H | … | segments of `segment_len` bytes, the last one shorter or as long |
//!
//! Leaf 0 is everything before the first segment, leaf j is segment j − 1. Nothing is believed of the
//! header but where the leaves end: a file with another header has another root.

use std::io::{self, Read};

use measurement::dataset::Commitment;
use measurement::digest::{Hash32, of};

const MAGIC: &[u8; 8] = b"SDS1\r\n\x1a\n";
const MAX_HEADER: u32 = 65_536;
/// FLOE parameters, IV and header tag.
const FLOE: usize = 74;
/// Segment lengths there are, in bytes.
const SEGMENTS: [u32; 3] = [4096, 65_536, 1 << 20];

/// Why a file has no root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The header is too long.
    #[error("a header of {observed} bytes, at most {MAX_HEADER} are accepted")]
    Header {
        /// Its length.
        observed: u32,
    },
    /// The file cannot be read, or ends before its first segment.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not a sealed data set.
    #[error("not a sealed data set")]
    Magic,
    /// Segments of a length that is not used.
    #[error("segments of {observed} bytes, 4096, 65536 or 1048576 are known")]
    Segment {
        /// The length.
        observed: u32,
    },
}

/// Reads a sealed data set to its end, holding one segment.
///
/// # Errors
/// [`DatasetError`].
pub fn root(file: &mut impl Read) -> Result<Hash32<of::Dataset>, DatasetError> {
    let mut start = [0; 12];
    file.read_exact(&mut start)?;
    let (magic, length) = start.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(DatasetError::Magic);
    }
    let observed = u32::from_be_bytes(length.try_into().map_err(|_| DatasetError::Magic)?);
    if observed > MAX_HEADER {
        return Err(DatasetError::Header { observed });
    }
    let header = usize::try_from(observed).map_err(|_| DatasetError::Header { observed })?;
    let mut first = start.to_vec();
    first.resize(start.len() + header + FLOE, 0);
    let (_, rest) = first.split_at_mut(start.len());
    file.read_exact(rest)?;
    let segment = segment_len(rest.get(header..).unwrap_or_default())?;
    let mut commitment = Commitment::new();
    commitment.push(&first);
    let mut leaf = Vec::new();
    loop {
        leaf.clear();
        file.take(segment.into()).read_to_end(&mut leaf)?;
        if leaf.is_empty() {
            return Ok(commitment.root());
        }
        commitment.push(&leaf);
    }
}

/// Bytes of a segment, from FLOE's parameters.
fn segment_len(floe: &[u8]) -> Result<u32, DatasetError> {
    let bytes = floe.get(2..6).and_then(|bytes| bytes.try_into().ok());
    let observed = u32::from_be_bytes(bytes.ok_or(DatasetError::Magic)?);
    if SEGMENTS.contains(&observed) {
        Ok(observed)
    } else {
        Err(DatasetError::Segment { observed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(segments: usize) -> Vec<u8> {
        let mut file = [&MAGIC[..], &5_u32.to_be_bytes(), b"hello"].concat();
        file.extend([&[0, 0][..], &4096_u32.to_be_bytes(), &32_u32.to_be_bytes()].concat());
        file.extend([7; 64]);
        file.extend((0..segments).map(|at| u8::try_from(at % 251).unwrap()));
        file
    }

    #[test]
    fn the_root_is_that_of_the_leaves() {
        let file = file(4096 + 100);
        let mut commitment = Commitment::new();
        let (first, segments) = file.split_at(12 + 5 + FLOE);
        commitment.push(first);
        segments.chunks(4096).for_each(|leaf| commitment.push(leaf));
        assert_eq!(root(&mut &file[..]).unwrap(), commitment.root());
    }

    #[test]
    fn every_flipped_bit_changes_the_root_or_is_refused() {
        let golden = file(5000);
        let expected = root(&mut &golden[..]).unwrap();
        for at in (0..golden.len()).step_by(37) {
            let mut changed = golden.clone();
            changed[at] ^= 1;
            assert!(root(&mut &changed[..]).map_or(true, |root| root != expected), "byte {at}");
        }
    }

    #[test]
    fn never_panics_on_a_prefix_and_never_gives_the_root() {
        let golden = file(5000);
        let expected = root(&mut &golden[..]).unwrap();
        for end in 0..golden.len() {
            assert!(root(&mut &golden[..end]).map_or(true, |root| root != expected), "{end}");
        }
    }

    #[test]
    fn refuses_another_magic_a_long_header_and_odd_segments() {
        let with = |at: usize, bytes: &[u8]| {
            let mut file = file(10);
            file[at..at + bytes.len()].copy_from_slice(bytes);
            root(&mut &file[..]).unwrap_err().to_string()
        };
        assert_eq!(with(0, b"X"), "not a sealed data set");
        assert_eq!(
            with(8, &65_537_u32.to_be_bytes()),
            "a header of 65537 bytes, at most 65536 are accepted"
        );
        assert_eq!(
            with(19, &4097_u32.to_be_bytes()),
            "segments of 4097 bytes, 4096, 65536 or 1048576 are known"
        );
    }
}
