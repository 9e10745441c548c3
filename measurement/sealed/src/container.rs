//! `SDS1`: a data set, sealed under one key, in a file whose length says nothing of how much is
//! in it.
//!
//! ```text
//! off   len  field
//! 0     8    magic "SDS1\r\n\x1a\n"
//! 8     4    u32be H, at most 65 536
//! 12    H    public header, deterministic CBOR with text keys (see Header)
//! 12+H  74   FLOE header; associated data "SDS1 aad" ‖ 0x00 ‖ SHA-256(bytes[0 .. 12+H])
//! 86+H  …    FLOE segments of the plaintext:
//!
//! plaintext  len          field
//!            capacity     records, one after the other, then zeros
//!            24 × n_max   index: one entry per record, then zeros
//!            64           footer
//!
//! entry   u64be offset ‖ u32be length ‖ u32be flags (0) ‖ u64be unit id (not 0)
//! footer  "SDSFOOT1" ‖ u64be records_end ‖ u64be index_off ‖ u64be N ‖ u64be units ‖ 24 zeros
//! ```
//!
//! `capacity` and `n_max` are public constants in the header, and so the length of the file is a
//! function of its header. The **root** of a data set is the RFC 6962 Merkle root whose leaf 0 is
//! `bytes[0 .. 86+H]` and whose leaf j is segment j − 1, as sealed.

use measurement::{
    cbor::Malformed,
    digest::{Hash32, of::Dataset, sha256},
    octets::Octets,
};
use thiserror::Error;

use crate::floe::FloeError;

mod header;
mod index;
mod reader;
mod writer;

pub use header::Header;
pub use index::IndexError;
pub use reader::{Reader, Records};
pub use writer::Writer;

/// The first eight bytes of a container.
pub const MAGIC: [u8; 8] = *b"SDS1\r\n\x1a\n";

/// The longest public header, in bytes.
pub const MAX_HEADER: u32 = 65_536;

/// The most segments a container may have: 256 TiB of them at 64 KiB.
pub const MAX_SEGMENTS: u64 = 1 << 32;

/// What is wrong with a container, or with what is put into it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The records do not fit the public capacity.
    #[error("the records need {observed} bytes, the header's capacity is {allowed}")]
    Capacity {
        /// Bytes that would be needed, with the record refused.
        observed: u64,
        /// Bytes there are.
        allowed: u64,
    },
    /// A record without content.
    #[error("record {record} is empty")]
    EmptyRecord {
        /// Number of the record, from 0.
        record: u64,
    },
    /// Not one index entry for each record.
    #[error("{observed} index entries for {required} records")]
    Entries {
        /// Entries told.
        observed: u64,
        /// Records sealed.
        required: u64,
    },
    /// A segment or the FLOE header.
    #[error(transparent)]
    Floe(#[from] FloeError),
    /// The header is not the deterministic CBOR of one.
    #[error("malformed header: {0}")]
    Header(#[from] Malformed),
    /// The header is too long.
    #[error("the header has {observed} bytes, at most {MAX_HEADER} are accepted")]
    HeaderLength {
        /// The length that the file gives.
        observed: u32,
    },
    /// The index or the footer.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Not a container.
    #[error("the file begins with {observed}, not with the sealed data set's magic")]
    Magic {
        /// The first eight bytes.
        observed: Octets<8>,
    },
    /// There is not so much memory.
    #[error("{required} bytes of memory are required")]
    Memory {
        /// Bytes asked for.
        required: u64,
    },
    /// The index entries are of other units or lengths than the records, or in another order.
    #[error("the index entries are not those of the records")]
    OtherEntries,
    /// A record was offered after padding began.
    #[error("padding has begun, no record can follow")]
    PaddingBegun,
    /// One record is longer than an index entry can say.
    #[error("record {record} has {observed} bytes, at most 4294967295 are accepted")]
    RecordLength {
        /// Number of the record, from 0.
        record: u64,
        /// Its length in bytes.
        observed: usize,
    },
    /// More records than the public maximum.
    #[error("there are more than the header's {allowed} records")]
    Records {
        /// The header's `n_max`.
        allowed: u64,
    },
    /// A validly sealed file, yet not the one asked for.
    #[error("the data set's root is {observed}, the manifest requires {required}")]
    Root {
        /// Root of the file at hand.
        observed: Hash32<Dataset>,
        /// Root that was asked for.
        required: Hash32<Dataset>,
    },
    /// The header's constants make no container that may exist.
    #[error("capacity {capacity} and n_max {n_max} make more than {MAX_SEGMENTS} segments")]
    Size {
        /// Bytes for records.
        capacity: u64,
        /// Index entries.
        n_max: u64,
    },
    /// Another cipher suite.
    #[error("the suite is {observed}, 1 is required")]
    Suite {
        /// The header's suite.
        observed: u16,
    },
    /// More plaintext than the reader is willing to hold.
    #[error("the plaintext has {observed} bytes, at most {allowed} are accepted")]
    TooLarge {
        /// Bytes that the header's constants make.
        observed: u64,
        /// The reader's limit.
        allowed: u64,
    },
    /// Bytes after the last segment.
    #[error("bytes follow the container's {length}")]
    TrailingBytes {
        /// Length of the container.
        length: u64,
    },
    /// The file ends early.
    #[error("the file ends after {observed} bytes, at least {required} are required")]
    Truncated {
        /// Bytes there were.
        observed: u64,
        /// Bytes there must be, as far as was known.
        required: u64,
    },
    /// Unit 0 is what unused index entries say.
    #[error("record {record} belongs to unit 0, which is none")]
    UnitZero {
        /// Number of the record, from 0.
        record: u64,
    },
    /// Another version of the format.
    #[error("the container's version is {observed}, 1 is required")]
    Version {
        /// The header's version.
        observed: u16,
    },
    /// Sealed under another key.
    #[error("the data set is sealed under the key {observed}, the key at hand is {required}")]
    WrongKey {
        /// Name of the key in the header.
        observed: Octets<32>,
        /// Name of the key at hand.
        required: Octets<32>,
    },
}

/// FLOE's associated data for a container that begins with `prefix`, `bytes[0 .. 12+H]`.
fn floe_aad(prefix: &[u8]) -> [u8; 41] {
    let mut aad = [0; 41];
    let parts = b"SDS1 aad\0".iter().copied().chain(sha256(prefix));
    for (to, from) in aad.iter_mut().zip(parts) {
        *to = from;
    }
    aad
}

#[cfg(test)]
mod tests;
