//! The index and the footer: which record is where, and whose it is.

use alloc::vec::Vec;

use measurement::octets::Octets;
use thiserror::Error;
use zeroize::Zeroizing;

use super::header::{Layout, to_u64};

/// Bytes of an index entry.
pub(super) const ENTRY_LEN: usize = 24;

/// Bytes of the footer.
pub(super) const FOOTER_LEN: usize = 64;

const FOOTER_MAGIC: [u8; 8] = *b"SDSFOOT1";

/// What is wrong with an index or a footer that was validly sealed: its sealer lied or erred.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The footer counts more records than there are entries.
    #[error("the footer counts {observed} records, at most {allowed} are accepted")]
    Count {
        /// The footer's count.
        observed: u64,
        /// Entries there are.
        allowed: u64,
    },
    /// A flag that has no meaning.
    #[error("record {record} has flags {observed:#010x}, none are known")]
    Flags {
        /// Number of the record, from 0.
        record: u64,
        /// Its flags.
        observed: u32,
    },
    /// The footer does not begin as one.
    #[error("the footer begins with {observed}, not with its magic")]
    FooterMagic {
        /// Its first eight bytes.
        observed: Octets<8>,
    },
    /// The footer's last 24 bytes are not zero.
    #[error("the footer's reserved bytes are not zero")]
    FooterReserved,
    /// The index is not where the header's constants put it.
    #[error("the footer puts the index at {observed}, {required} is required")]
    IndexOffset {
        /// The footer's offset.
        observed: u64,
        /// The header's capacity.
        required: u64,
    },
    /// A record is empty, or reaches beyond the capacity.
    #[error("record {record} has {observed} bytes, 1 to {allowed} are accepted")]
    Length {
        /// Number of the record, from 0.
        record: u64,
        /// Its length.
        observed: u64,
        /// Bytes from its beginning to the capacity's end.
        allowed: u64,
    },
    /// Records overlap, leave a gap, or are out of order.
    #[error("record {record} begins at {observed}, {required} is required")]
    Offset {
        /// Number of the record, from 0.
        record: u64,
        /// Its offset.
        observed: u64,
        /// Where the one before it ends.
        required: u64,
    },
    /// Something is left between the records and the index.
    #[error("the padding is not all zeros")]
    Padding,
    /// The footer's end of the records is not the end of the last one.
    #[error("the footer ends the records at {observed}, {required} is required")]
    RecordsEnd {
        /// The footer's end.
        observed: u64,
        /// Where the last record ends.
        required: u64,
    },
    /// A record belongs to no unit.
    #[error("record {record} belongs to unit 0, which is none")]
    UnitZero {
        /// Number of the record, from 0.
        record: u64,
    },
    /// The footer's count of units is not that of the index.
    #[error("the footer counts {observed} units, the index has {required}")]
    Units {
        /// The footer's count.
        observed: u64,
        /// Different unit ids in the index.
        required: u64,
    },
    /// Something is left in the unused entries.
    #[error("the unused index entries are not all zeros")]
    Unused,
}

/// Where one record is.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) flags: u32,
    pub(super) unit: u64,
}

impl Entry {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&self.unit.to_be_bytes());
    }

    pub(super) fn read(bytes: &[u8; ENTRY_LEN]) -> Self {
        let mut fields = Fields(bytes.as_slice());
        let offset = u64::from_be_bytes(fields.take());
        let length = u32::from_be_bytes(fields.take());
        let flags = u32::from_be_bytes(fields.take());
        Self { offset, length, flags, unit: u64::from_be_bytes(fields.take()) }
    }
}

/// What closes the plaintext.
#[derive(Clone, Copy)]
pub(super) struct Footer {
    pub(super) records_end: u64,
    pub(super) index_off: u64,
    pub(super) records: u64,
    pub(super) units: u64,
}

impl Footer {
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_LEN);
        out.extend_from_slice(&FOOTER_MAGIC);
        for field in [self.records_end, self.index_off, self.records, self.units] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out.resize(FOOTER_LEN, 0);
        out
    }

    fn read(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut fields = Fields(bytes);
        let observed = fields.take();
        if observed != FOOTER_MAGIC {
            return Err(IndexError::FooterMagic { observed: Octets(observed) });
        }
        let [records_end, index_off, records, units] =
            core::array::from_fn(|_| u64::from_be_bytes(fields.take()));
        if fields.0.iter().any(|byte| *byte != 0) {
            return Err(IndexError::FooterReserved);
        }
        Ok(Self { records_end, index_off, records, units })
    }
}

/// What a checked plaintext holds.
#[derive(Clone, Copy)]
pub(super) struct Contents {
    /// Offset of the index.
    pub(super) index: usize,
    /// Records.
    pub(super) records: usize,
    /// Different units.
    pub(super) units: u64,
}

/// Checks every byte of a plaintext that is not a record's.
pub(super) fn check(plain: &[u8], layout: &Layout) -> Result<Contents, IndexError> {
    let index_at = usize::try_from(layout.capacity).unwrap_or(usize::MAX);
    let (region, rest) = plain.split_at_checked(index_at).unwrap_or((plain, &[]));
    let footer_at = rest.len().saturating_sub(FOOTER_LEN);
    let (index, footer) = rest.split_at_checked(footer_at).unwrap_or((rest, &[]));
    let footer = Footer::read(footer)?;
    let (entries, _) = index.as_chunks::<ENTRY_LEN>();
    let (used, unused) = usize::try_from(footer.records)
        .ok()
        .and_then(|records| entries.split_at_checked(records))
        .ok_or(IndexError::Count { observed: footer.records, allowed: layout.n_max })?;
    let end = check_entries(used, layout.capacity)?;
    check_footer(footer, layout, end)?;
    if unused.as_flattened().iter().any(|byte| *byte != 0) {
        return Err(IndexError::Unused);
    }
    let padding = usize::try_from(end).ok().and_then(|end| region.get(end..)).unwrap_or_default();
    if padding.iter().fold(0, |sum, byte| sum | byte) != 0 {
        return Err(IndexError::Padding);
    }
    let units = distinct_units(used);
    if footer.units != units {
        return Err(IndexError::Units { observed: footer.units, required: units });
    }
    Ok(Contents { index: index_at, records: used.len(), units })
}

/// Records follow each other without a gap; returns where the last one ends.
fn check_entries(entries: &[[u8; ENTRY_LEN]], capacity: u64) -> Result<u64, IndexError> {
    let mut end = 0;
    for (record, bytes) in (0..).zip(entries) {
        let entry = Entry::read(bytes);
        if entry.offset != end {
            return Err(IndexError::Offset { record, observed: entry.offset, required: end });
        }
        let (observed, allowed) = (u64::from(entry.length), capacity.saturating_sub(end));
        if observed == 0 || observed > allowed {
            return Err(IndexError::Length { record, observed, allowed });
        }
        if entry.flags != 0 {
            return Err(IndexError::Flags { record, observed: entry.flags });
        }
        if entry.unit == 0 {
            return Err(IndexError::UnitZero { record });
        }
        end = end.saturating_add(observed);
    }
    Ok(end)
}

fn check_footer(footer: Footer, layout: &Layout, end: u64) -> Result<(), IndexError> {
    let (observed, required) = (footer.index_off, layout.capacity);
    if observed != required {
        return Err(IndexError::IndexOffset { observed, required });
    }
    if footer.records_end != end {
        return Err(IndexError::RecordsEnd { observed: footer.records_end, required: end });
    }
    Ok(())
}

/// How many different unit ids the entries hold.
fn distinct_units(entries: &[[u8; ENTRY_LEN]]) -> u64 {
    let mut units = Zeroizing::new(Vec::with_capacity(entries.len()));
    units.extend(entries.iter().map(|bytes| Entry::read(bytes).unit));
    units.sort_unstable();
    units.dedup();
    to_u64(units.len())
}

/// Takes big-endian fields off the front; what is not there reads as zeros.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}
