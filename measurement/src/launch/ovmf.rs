//! What a firmware image says about its own launch: the OVMF table of GUIDs at its end, the SEV
//! metadata and the TDVF metadata that this table points to.
//!
//! 1. The table ends 32 bytes before the end of the image with the footer entry. An entry is
//!    `data | length: u16 | GUID`, its length counts all three, and entries are read downwards
//!    (edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`).
//! 2. SEV metadata: `"ASEV" | length | version 1 | count`, then `gpa | size | type` each
//!    (edk2, `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`).
//! 3. TDVF metadata: `"TDVF" | length | version 1 | count`, then 32-byte sections
//!    (Intel TDX Virtual Firmware Design Guide, section 11).

use alloc::vec::Vec;

use super::{LaunchError, PAGE};

/// A GUID in the mixed byte order of UEFI.
pub(super) const fn guid(a: u32, b: u16, c: u16, tail: [u8; 8]) -> [u8; 16] {
    let [a0, a1, a2, a3] = a.to_le_bytes();
    let [b0, b1] = b.to_le_bytes();
    let [c0, c1] = c.to_le_bytes();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tail;
    [a0, a1, a2, a3, b0, b1, c0, c1, t0, t1, t2, t3, t4, t5, t6, t7]
}

pub(super) fn slice(bytes: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(length)?)
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    slice(bytes, at, N)?.try_into().ok()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    array(bytes, at).map(u16::from_le_bytes).map(usize::from)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// A `u32` of the firmware as an offset or a length.
pub(super) fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at)?.try_into().ok()
}

/// The GUIDs of the table that matter for a launch.
mod entry {
    use super::guid;

    pub(super) const FOOTER: [u8; 16] =
        guid(0x96b5_82de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
    pub(super) const SEV_ES_RESET: [u8; 16] =
        guid(0x00f7_71de, 0x1a7e, 0x4fcb, [0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e]);
    pub(super) const SEV_HASH_TABLE: [u8; 16] =
        guid(0x7255_371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]);
    pub(super) const SEV_METADATA: [u8; 16] =
        guid(0xdc88_6566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]);
    pub(super) const TDX_METADATA: [u8; 16] =
        guid(0xe47a_6535, 0x984a, 0x4798, [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2]);
}

const HEADER: usize = 18;
const BYTES_AFTER_TABLE: usize = 32;
const ENTRIES_CAP: usize = 64;
const SECTIONS_CAP: usize = 64;

/// The table of GUIDs at the end of a firmware image.
pub(super) struct Table<'a> {
    firmware: &'a [u8],
    entries: Vec<([u8; 16], &'a [u8])>,
}

impl<'a> Table<'a> {
    pub(super) fn parse(firmware: &'a [u8]) -> Result<Self, LaunchError> {
        let malformed = LaunchError::Firmware { what: "guid table", at: firmware.len() };
        let entries = read_table(firmware).ok_or(malformed)?;
        for (index, (guid, _)) in entries.iter().enumerate() {
            if entries.iter().skip(index.saturating_add(1)).any(|(other, _)| other == guid) {
                return Err(malformed);
            }
        }
        Ok(Self { firmware, entries })
    }

    fn find(&self, guid: &[u8; 16]) -> Option<&'a [u8]> {
        self.entries.iter().find(|(entry, _)| entry == guid).map(|(_, data)| *data)
    }

    /// Guest-physical address of the table of kernel hashes, where the firmware reserves one.
    pub(super) fn hash_table_gpa(&self) -> Option<u32> {
        u32_at(self.find(&entry::SEV_HASH_TABLE)?, 0).filter(|gpa| *gpa != 0)
    }

    /// Where the processors other than the first one start.
    pub(super) fn reset_eip(&self) -> Option<u32> {
        u32_at(self.find(&entry::SEV_ES_RESET)?, 0)
    }

    pub(super) fn sev_sections(&self) -> Result<Vec<SevSection>, LaunchError> {
        self.metadata(&entry::SEV_METADATA, "sev metadata", *b"ASEV", SevSection::read)
    }

    pub(super) fn tdvf_sections(&self) -> Result<Vec<TdvfSection>, LaunchError> {
        self.metadata(&entry::TDX_METADATA, "tdvf metadata", *b"TDVF", TdvfSection::read)
    }

    /// The records of a metadata block, which the table finds by its distance from the end.
    fn metadata<T, const N: usize>(
        &self,
        guid: &[u8; 16],
        what: &'static str,
        magic: [u8; 4],
        read: impl Fn(&[u8; N]) -> Option<T>,
    ) -> Result<Vec<T>, LaunchError> {
        let from_end = self.find(guid).and_then(|data| size_at(data, 0));
        let start = from_end.and_then(|from_end| self.firmware.len().checked_sub(from_end));
        let at = start.unwrap_or(self.firmware.len());
        let records = read_records(self.firmware, at, magic, N);
        let records = records.ok_or(LaunchError::Firmware { what, at })?;
        let (records, _) = records.as_chunks();
        let records: Option<Vec<T>> = records.iter().map(read).collect();
        records.ok_or(LaunchError::Firmware { what, at })
    }
}

fn read_table(firmware: &[u8]) -> Option<Vec<([u8; 16], &[u8])>> {
    let end = firmware.len().checked_sub(BYTES_AFTER_TABLE)?;
    let footer = end.checked_sub(HEADER)?;
    if array(firmware, footer.checked_add(2)?)? != entry::FOOTER {
        return None;
    }
    let mut rest = firmware.get(end.checked_sub(u16_at(firmware, footer)?)?..footer)?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let header = rest.len().checked_sub(HEADER)?;
        let start = rest.len().checked_sub(u16_at(rest, header)?)?;
        let guid = array(rest, header.checked_add(2)?)?;
        entries.push((guid, rest.get(start..header)?));
        rest = rest.get(..start)?;
        if entries.len() > ENTRIES_CAP {
            return None;
        }
    }
    Some(entries)
}

fn read_records(firmware: &[u8], start: usize, magic: [u8; 4], record: usize) -> Option<&[u8]> {
    let header = slice(firmware, start, 16)?;
    let (length, version) = (size_at(header, 4)?, u32_at(header, 8)?);
    let count = size_at(header, 12)?;
    let body = count.checked_mul(record)?;
    let sound = header.starts_with(&magic)
        && version == 1
        && (1..=SECTIONS_CAP).contains(&count)
        && length == body.checked_add(16)?;
    sound.then(|| slice(firmware, start.checked_add(16)?, body))?
}

/// A range that the loader adds to a guest before the first instruction (SEV-SNP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SevSection {
    /// First guest-physical address, a multiple of 4096.
    pub gpa: u32,
    /// Bytes, a multiple of 4096.
    pub size: u32,
    /// What the pages are for.
    pub kind: SevSectionKind,
}

impl SevSection {
    fn read(record: &[u8; 12]) -> Option<Self> {
        let kind = SevSectionKind::from_code(u32_at(record, 8)?)?;
        Some(Self { gpa: u32_at(record, 0)?, size: u32_at(record, 4)?, kind })
    }
}

/// Types of SEV metadata sections that QEMU knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SevSectionKind {
    /// 3: filled by the processor's firmware, contents not measured.
    Cpuid,
    /// 0x10: the table of kernel, initrd and command line hashes, measured with its contents.
    KernelHashes,
    /// 1: measured as zero pages.
    Memory,
    /// 2: filled by the processor's firmware, contents not measured.
    Secrets,
    /// 4: the SVSM calling area, measured as zero pages.
    SvsmCallingArea,
}

impl SevSectionKind {
    /// The kind with this number in the metadata.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Memory),
            2 => Some(Self::Secrets),
            3 => Some(Self::Cpuid),
            4 => Some(Self::SvsmCallingArea),
            0x10 => Some(Self::KernelHashes),
            _ => None,
        }
    }
}

/// A range that the loader adds to a trust domain (TDX).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TdvfSection {
    pub(super) data_offset: u32,
    pub(super) raw_size: u32,
    pub(super) gpa: u64,
    pub(super) size: u64,
    pub(super) kind: TdvfSectionKind,
    /// Attribute bit 0, `MR_EXTEND`: the contents are measured.
    pub(super) extended: bool,
    /// Attribute bit 1, `PAGE_AUG`: the pages are not added at launch.
    pub(super) augmented: bool,
}

/// Types of TDVF sections (TDX Virtual Firmware Design Guide, table 11-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TdvfSectionKind {
    /// 0, "BFV": code.
    Code,
    /// 1, "CFV": configuration, the variable store.
    Configuration,
    /// 2, "TD_HOB".
    HandOff,
    /// 3, "TempMem".
    Temporary,
}

impl TdvfSection {
    fn read(record: &[u8; 32]) -> Option<Self> {
        let attributes = u32_at(record, 28)?;
        let kind = match u32_at(record, 24)? {
            0 => TdvfSectionKind::Code,
            1 => TdvfSectionKind::Configuration,
            2 => TdvfSectionKind::HandOff,
            3 => TdvfSectionKind::Temporary,
            _ => return None,
        };
        let section = Self {
            data_offset: u32_at(record, 0)?,
            raw_size: u32_at(record, 4)?,
            gpa: u64_at(record, 8)?,
            size: u64_at(record, 16)?,
            kind,
            extended: attributes & 1 != 0,
            augmented: attributes & 2 != 0,
        };
        (attributes <= 3 && section.is_sound()).then_some(section)
    }

    /// Whole pages that do not wrap around; what is measured or loaded is in the file entirely.
    fn is_sound(&self) -> bool {
        let page = u64::from(PAGE);
        let loaded = matches!(self.kind, TdvfSectionKind::Code | TdvfSectionKind::Configuration);
        self.gpa.is_multiple_of(page)
            && self.size.is_multiple_of(page)
            && self.size != 0
            && self.gpa.checked_add(self.size).is_some()
            && if loaded { u64::from(self.raw_size) == self.size } else { self.raw_size == 0 }
            && (loaded || !self.extended)
    }

    /// The section's bytes in the image: empty for memory that starts out zero.
    pub(super) fn data<'a>(&self, firmware: &'a [u8]) -> Result<&'a [u8], LaunchError> {
        let range = self.data_offset.try_into().ok().zip(self.raw_size.try_into().ok());
        range.and_then(|(at, length)| slice(firmware, at, length)).ok_or(LaunchError::Firmware {
            what: "tdvf section",
            at: self.data_offset.try_into().unwrap_or(usize::MAX),
        })
    }
}
