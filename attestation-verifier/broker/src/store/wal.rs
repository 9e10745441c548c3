//! The write-ahead log: what happened, in the order it happened, before anyone hears of it.
//!
//! Entries follow each other without a header:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | length of leaf and record, big-endian |
//! | 8 | the first bytes of SHA-256 over leaf and record: finds torn and rotten entries |
//! | 128 | the leaf |
//! | 1..=4096 | the record |

use measurement::digest::sha256;
use measurement::log::{LEAF_LEN, MAX_RECORD};

const HEAD: usize = 12;

/// A leaf and the record behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) leaf: [u8; LEAF_LEN],
    pub(super) record: Vec<u8>,
}

/// Appends an entry's bytes to `out`.
pub(super) fn write(entry: &Entry, out: &mut Vec<u8>) {
    let body = [entry.leaf.as_slice(), &entry.record].concat();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&checksum(&body));
    out.extend_from_slice(&body);
}

/// All whole entries up to the first that is not, and how many bytes they fill.
pub(super) fn read(bytes: &[u8]) -> (Vec<Entry>, usize) {
    let (mut entries, mut at) = (Vec::new(), 0);
    while let Some((entry, length)) = bytes.get(at..).and_then(first) {
        entries.push(entry);
        at += length;
    }
    (entries, at)
}

fn first(bytes: &[u8]) -> Option<(Entry, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if !(LEAF_LEN + 1..=LEAF_LEN + MAX_RECORD).contains(&length) {
        return None;
    }
    let body = rest.get(..length)?;
    let (leaf, record) = body.split_first_chunk()?;
    let whole = checksum(body) == *sum;
    whole.then(|| (Entry { leaf: *leaf, record: record.to_vec() }, HEAD + length))
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = sha256(body);
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> (Vec<Entry>, Vec<u8>) {
        let entry = |n| Entry { leaf: [n; LEAF_LEN], record: vec![n; 20] };
        let entries = vec![entry(1), entry(2), entry(3)];
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| write(entry, &mut bytes));
        (entries, bytes)
    }

    #[test]
    fn reads_whole_entries_and_stops_at_every_torn_end() {
        let (entries, bytes) = golden();
        assert_eq!(read(&bytes), (entries.clone(), bytes.len()));
        let one = bytes.len() / 3;
        for end in 0..bytes.len() {
            let whole = end / one;
            assert_eq!(read(&bytes[..end]), (entries[..whole].to_vec(), whole * one));
        }
    }

    #[test]
    fn stops_at_every_flipped_bit() {
        let (entries, bytes) = golden();
        let one = bytes.len() / 3;
        for at in 0..bytes.len() * 8 {
            let mut rotten = bytes.clone();
            rotten[at / 8] ^= 1 << (at % 8);
            let whole = at / 8 / one;
            assert_eq!(read(&rotten), (entries[..whole].to_vec(), whole * one), "bit {at}");
        }
    }
}
