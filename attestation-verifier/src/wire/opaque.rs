//! The opaque data of NVIDIA's reports: fields of `u16` type, `u16` size and value.
//!
//! GPUs and switches share the format and not the types. A known field has its known size; an
//! unknown one is kept by its type, for the policy to judge. A type that comes twice is refused.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::{Malformed, Reader};

/// Most fields of a report: the most seen is 17.
const FIELD_LIMIT: usize = 64;

/// The fields, told apart by type only.
pub(crate) struct Fields<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Fields<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut fields: Vec<(u16, &[u8])> = Vec::new();
        while !reader.rest().is_empty() {
            if fields.len() == FIELD_LIMIT {
                return Err(Malformed::TooLong {
                    part: "list of opaque fields",
                    observed: FIELD_LIMIT + 1,
                    limit: FIELD_LIMIT,
                });
            }
            let kind: u16 = reader.field("opaque field")?;
            let size: u16 = reader.field("opaque field")?;
            let value = reader.bytes("opaque field", size.into())?;
            let seen = fields.iter().any(|(other, _)| *other == kind);
            if seen || kind == 0 || kind == 255 {
                return Err(Malformed::Unknown {
                    field: "opaque field type",
                    observed: kind.into(),
                });
            }
            fields.push((kind, value));
        }
        Ok(Self(fields))
    }

    /// Types and values, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        self.0.iter().copied()
    }

    fn value(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value)
    }

    /// A field of exactly `N` bytes.
    fn array<const N: usize>(
        &self,
        kind: u16,
        part: &'static str,
    ) -> Result<Option<[u8; N]>, Malformed> {
        let length = |value: &'a [u8]| {
            value.try_into().map_err(|_| Malformed::Length {
                part,
                observed: value.len(),
                required: N,
            })
        };
        self.value(kind).map(length).transpose()
    }

    /// Printable ASCII with nothing but zero bytes after it.
    fn text(&self, kind: u16, part: &'static str) -> Result<Option<String>, Malformed> {
        let Some(value) = self.value(kind) else {
            return Ok(None);
        };
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        let (text, padding) = value.split_at_checked(end).unwrap_or((value, &[]));
        let plain = text.iter().all(u8::is_ascii_graphic) && padding.iter().all(|byte| *byte == 0);
        match core::str::from_utf8(text) {
            Ok(text) if plain && text.len() <= 32 => Ok(Some(text.into())),
            _ => Err(Malformed::Text { part, problem: "is not a short plain text" }),
        }
    }

    /// 8-byte ids, one after the other.
    fn ids(&self, kind: u16, part: &'static str) -> Result<Vec<[u8; 8]>, Malformed> {
        let value = self.value(kind).unwrap_or_default();
        let (ids, rest) = value.as_chunks::<8>();
        if !rest.is_empty() || ids.len() > 32 {
            return Err(Malformed::Text { part, problem: "is not a list of ids" });
        }
        Ok(ids.to_vec())
    }

    fn toggle(&self, kind: u16, part: &'static str) -> Result<Option<bool>, Malformed> {
        match self.array(kind, part)? {
            None => Ok(None),
            Some([0xaa]) => Ok(Some(true)),
            Some([0x55]) => Ok(Some(false)),
            Some([other]) => Err(Malformed::Unknown { field: part, observed: other.into() }),
        }
    }

    fn unknown(&self, known: &[core::ops::RangeInclusive<u16>]) -> Vec<u16> {
        let kinds = self.0.iter().map(|(kind, _)| *kind);
        kinds.filter(|kind| !known.iter().any(|range| range.contains(kind))).collect()
    }
}

/// How a GPU is partitioned and what protects its links.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// Several GPUs, each protecting its own memory, with encrypted links (Blackwell).
    Mpt,
    /// Several GPUs and their switches as one, "Protected PCIe" (Hopper).
    Ppcie,
    /// One GPU, passed through alone.
    Spt,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mpt => "mpt",
            Self::Ppcie => "ppcie",
            Self::Spt => "spt",
        })
    }
}

/// What the opaque data of a GPU says.
pub(crate) struct GpuFields {
    pub(crate) driver: Option<String>,
    /// In the form of reference manifests: `96.00.9F.00.01`.
    pub(crate) vbios: Option<String>,
    pub(crate) chip: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) project_sku: Option<String>,
    pub(crate) chip_sku: Option<String>,
    pub(crate) nvdec0: Option<bool>,
    pub(crate) fwid: Option<[u8; 48]>,
    pub(crate) protected_pcie: Option<bool>,
    pub(crate) feature: Option<Mode>,
    /// One per link, byte-reversed against what the switch says of itself.
    pub(crate) switch_pdis: Vec<[u8; 8]>,
    pub(crate) unknown: Vec<u16>,
}

impl GpuFields {
    const KNOWN: [core::ops::RangeInclusive<u16>; 2] = [1..=25, 32..=36];

    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, Malformed> {
        if let Some(version) = fields.array(34, "opaque data version")?
            && u16::from_le_bytes(version) > 1
        {
            return Err(Malformed::Unknown {
                field: "opaque data version",
                observed: u16::from_le_bytes(version).into(),
            });
        }
        Ok(Self {
            driver: fields.text(3, "driver version")?,
            vbios: fields.array(6, "vbios version")?.map(vbios),
            chip: fields.text(35, "chip info")?,
            project: fields.text(17, "project")?,
            project_sku: fields.text(18, "project sku")?,
            chip_sku: fields.text(15, "chip sku")?,
            nvdec0: fields.toggle(11, "nvdec0 status")?,
            fwid: fields.array(20, "firmware id")?,
            protected_pcie: fields.toggle(21, "protected pcie status")?,
            feature: fields.array(36, "feature flag")?.map(mode).transpose()?,
            switch_pdis: fields.ids(22, "switch ids")?,
            unknown: fields.unknown(&Self::KNOWN),
        })
    }

    /// The mode, where the report says it in at least one of two ways and not in two.
    pub(crate) fn mode(&self) -> Result<Mode, &'static str> {
        match (self.feature, self.protected_pcie) {
            (Some(Mode::Ppcie), Some(false)) | (Some(Mode::Spt), Some(true)) => {
                Err("contradicted by the protected pcie status")
            }
            (Some(mode), _) => Ok(mode),
            (None, Some(true)) => Ok(Mode::Ppcie),
            (None, Some(false)) => Ok(Mode::Spt),
            (None, None) => Err("not reported"),
        }
    }
}

fn mode(flag: [u8; 2]) -> Result<Mode, Malformed> {
    match u16::from_le_bytes(flag) {
        0 => Ok(Mode::Spt),
        1 => Ok(Mode::Mpt),
        2 => Ok(Mode::Ppcie),
        other => Err(Malformed::Unknown { field: "feature flag", observed: other.into() }),
    }
}

/// `00 9f 00 96 01 00 00 00` is 96.00.9F.00.01.
fn vbios([b0, b1, b2, b3, b4, ..]: [u8; 8]) -> String {
    alloc::format!("{b3:02X}.{b2:02X}.{b1:02X}.{b0:02X}.{b4:02X}")
}

/// What the opaque data of an NVSwitch says.
pub(crate) struct SwitchFields {
    pub(crate) bios: Option<String>,
    pub(crate) device_pdi: Option<[u8; 8]>,
    /// Not every BIOS reports it.
    pub(crate) fwid: Option<[u8; 48]>,
    pub(crate) gpu_pdis: Vec<[u8; 8]>,
    pub(crate) locked: Option<u16>,
    pub(crate) unknown: Vec<u16>,
}

impl SwitchFields {
    const KNOWN: [core::ops::RangeInclusive<u16>; 1] = [1..=27];

    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, Malformed> {
        // Eight ids, then a map of ports.
        let gpus: Option<[u8; 128]> = fields.array(26, "gpu ids")?;
        let gpu_pdis = gpus.iter().flat_map(|bytes| bytes.as_chunks::<8>().0.iter().take(8));
        Ok(Self {
            bios: fields.text(6, "bios version")?.map(|bios| bios.to_ascii_uppercase()),
            device_pdi: fields.array(22, "device id")?,
            fwid: fields.array(20, "firmware id")?,
            gpu_pdis: gpu_pdis.copied().collect(),
            locked: fields.array(25, "lock status")?.map(u16::from_le_bytes),
            unknown: fields.unknown(&Self::KNOWN),
        })
    }
}
