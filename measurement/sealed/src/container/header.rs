//! The public header, and the shape of the file that follows from it.

use alloc::vec::Vec;

use measurement::{
    cbor,
    digest::{Hash32, of::Dataset},
    octets::Octets,
    privacy::Unit,
};
use serde::{Deserialize, Serialize};

use super::{ContainerError, MAGIC, MAX_HEADER, MAX_SEGMENTS, index::ENTRY_LEN, index::FOOTER_LEN};
use crate::floe::{HEADER_LEN, OVERHEAD, SegmentSize};

/// What everyone may know of a sealed data set. Nothing in it may depend on the records but
/// through a salted commitment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Bytes for records and their padding, a public constant.
    pub capacity: u64,
    /// When the set was sealed, in seconds since 1970.
    pub created: u64,
    /// Which data set this is, through all its versions.
    pub dataset_id: Octets<16>,
    /// Which version of it.
    pub dataset_version: u64,
    /// Name of the key it is sealed under ([`crate::DataKey::id`]).
    pub dek_id: Octets<32>,
    /// Salted commitment to the report of what was minimised before sealing, if anything was.
    pub minimisation: Option<Octets<32>>,
    /// Index entries, a public constant: at most so many records.
    pub n_max: u64,
    /// Root of the version before this one.
    pub previous_root: Option<Hash32<Dataset>>,
    /// Whose participation in the set is hidden.
    pub privacy_unit: Unit,
    /// SHA-256 of the description of what one record holds.
    pub schema: Octets<32>,
    /// Bytes of a sealed segment: 4096, 65536 or 1048576.
    pub segment_len: u32,
    /// Cipher suite: 1, FLOE-GCM-256-SHA384.
    pub suite: u16,
    /// Version of this format: 1.
    pub version: u16,
}

impl Header {
    /// The version of the format.
    pub const VERSION: u16 = 1;
    /// FLOE-GCM-256-SHA384.
    pub const SUITE: u16 = 1;

    /// Bytes of the whole file, whatever is in it.
    ///
    /// # Errors
    /// As [`crate::Writer::new`] for a header that makes no container.
    pub fn file_len(&self) -> Result<u64, ContainerError> {
        Ok(self.layout()?.file_len)
    }

    /// Magic, length and header: `bytes[0 .. 12+H]`.
    pub(super) fn prefix(&self) -> Result<Vec<u8>, ContainerError> {
        let header = cbor::encode(self);
        let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
        if length > MAX_HEADER {
            return Err(ContainerError::HeaderLength { observed: length });
        }
        Ok([&MAGIC[..], &length.to_be_bytes(), &header].concat())
    }

    /// Reads a header, as strictly as it is written.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ContainerError> {
        let cap = usize::try_from(MAX_HEADER).unwrap_or(usize::MAX);
        Ok(cbor::decode(bytes, cap)?)
    }

    /// Checks the constants and works out the file's shape.
    pub(super) fn layout(&self) -> Result<Layout, ContainerError> {
        if self.version != Self::VERSION {
            return Err(ContainerError::Version { observed: self.version });
        }
        if self.suite != Self::SUITE {
            return Err(ContainerError::Suite { observed: self.suite });
        }
        let segment = SegmentSize::try_from(self.segment_len)?;
        let (capacity, n_max) = (self.capacity, self.n_max);
        self.shape(segment).ok_or(ContainerError::Size { capacity, n_max })
    }

    fn shape(&self, segment: SegmentSize) -> Option<Layout> {
        let index = self.n_max.checked_mul(to_u64(ENTRY_LEN))?;
        let plain = self.capacity.checked_add(index)?.checked_add(to_u64(FOOTER_LEN))?;
        let inner_segments = plain.checked_sub(1)?.checked_div(to_u64(segment.plain()))?;
        let segments = inner_segments.checked_add(1)?;
        if segments > MAX_SEGMENTS {
            return None;
        }
        let last = plain.checked_sub(inner_segments.checked_mul(to_u64(segment.plain()))?)?;
        let last_sealed = usize::try_from(last).ok()?.checked_add(OVERHEAD)?;
        let prefix = self.prefix().ok()?.len().checked_add(HEADER_LEN)?;
        let sealed = plain.checked_add(segments.checked_mul(to_u64(OVERHEAD))?)?;
        Some(Layout {
            capacity: self.capacity,
            n_max: self.n_max,
            segment,
            inner_segments,
            last_sealed,
            plain,
            file_len: sealed.checked_add(to_u64(prefix))?,
        })
    }
}

/// The shape of a file: all of it follows from the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) capacity: u64,
    pub(super) n_max: u64,
    pub(super) segment: SegmentSize,
    /// Segments before the last one.
    pub(super) inner_segments: u64,
    /// Bytes of the last segment, sealed.
    pub(super) last_sealed: usize,
    /// Bytes of plaintext.
    pub(super) plain: u64,
    /// Bytes of the file.
    pub(super) file_len: u64,
}

/// `usize` is at most 64 bits on every platform Rust has.
pub(super) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
