//! The SEV-SNP attestation report.
//!
//! AMD SEV Secure Nested Paging Firmware ABI Specification (56860), table "ATTESTATION_REPORT",
//! versions 2, 3 and 5. 1184 bytes: what is signed, then the signature. Other versions are unknown
//! and refused, because an unknown version may give a reserved byte a meaning.

use alloc::vec::Vec;

use crate::wire::{Malformed, layout, reversed, zero};

layout! {
    /// Bytes `0x000..0x2a0`: what the VCEK or VLEK signs.
    Body, 0x2a0 {
        0x000 version: u32,
        0x004 guest_svn: u32,
        0x008 policy: u64,
        0x010 family_id: [u8; 16],
        0x020 image_id: [u8; 16],
        0x030 vmpl: u32,
        0x034 signature_algorithm: u32,
        0x038 current_tcb: [u8; 8],
        0x040 platform_info: u64,
        0x048 key_info: u32,
        0x04c reserved_04c: u32,
        0x050 report_data: [u8; 64],
        0x090 measurement: [u8; 48],
        0x0c0 host_data: [u8; 32],
        0x0e0 id_key_digest: [u8; 48],
        0x110 author_key_digest: [u8; 48],
        0x140 report_id: [u8; 32],
        0x160 report_id_ma: [u8; 32],
        0x180 reported_tcb: [u8; 8],
        0x188 cpuid_family: u8,
        0x189 cpuid_model: u8,
        0x18a cpuid_stepping: u8,
        0x18b reserved_18b: [u8; 21],
        0x1a0 chip_id: [u8; 64],
        0x1e0 committed_tcb: [u8; 8],
        0x1e8 current_build: u8,
        0x1e9 current_minor: u8,
        0x1ea current_major: u8,
        0x1eb reserved_1eb: u8,
        0x1ec committed_build: u8,
        0x1ed committed_minor: u8,
        0x1ee committed_major: u8,
        0x1ef reserved_1ef: u8,
        0x1f0 launch_tcb: [u8; 8],
        0x1f8 launch_mitigations: u64,
        0x200 current_mitigations: u64,
        0x208 reserved_208: [u8; 152],
    }
}

layout! {
    /// Bytes `0x2a0..0x4a0`: ECDSA P-384 with SHA-384, `r` and `s` little-endian in 72 bytes each.
    Signature, 0x200 {
        0x000 r: [u8; 48],
        0x030 r_padding: [u8; 24],
        0x048 s: [u8; 48],
        0x078 s_padding: [u8; 24],
        0x090 reserved: [u8; 368],
    }
}

/// Bytes of a report.
pub(crate) const REPORT_SIZE: usize = 0x4a0;

const _: () = assert!(Body::SIZE + Signature::SIZE == REPORT_SIZE);

/// ECDSA P-384 with SHA-384.
const ECDSA_P384_SHA384: u32 = 1;

/// Bits of `key_info` that have a meaning: author key, masked chip key, signing key (4:2).
const KEY_INFO_KNOWN: u32 = 0b1_1111;

/// A report whose shape is right. Whether it is genuine is another question.
pub(crate) struct Report<'a> {
    pub(crate) body: Body,
    /// The bytes that are signed, as they arrived.
    pub(crate) signed: &'a [u8],
    /// `r || s`, big-endian, 48 bytes each.
    pub(crate) signature: Vec<u8>,
}

impl<'a> Report<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let wrong_length =
            Malformed::Length { part: "snp report", observed: bytes.len(), required: REPORT_SIZE };
        let Some((signed, rest)) = bytes.split_at_checked(Body::SIZE) else {
            return Err(wrong_length);
        };
        let (Some(body), Some(signature)) = (Body::read(signed), Signature::read(rest)) else {
            return Err(wrong_length);
        };
        body.check()?;
        Ok(Self { body, signed, signature: signature.check()? })
    }
}

impl Body {
    /// The version decides which bytes are reserved.
    fn check(&self) -> Result<(), Malformed> {
        match self.version {
            2 => {
                zero("cpuid", &[self.cpuid_family, self.cpuid_model, self.cpuid_stepping])?;
                self.check_no_mitigations()?;
            }
            3 => self.check_no_mitigations()?,
            5 => {}
            other => {
                return Err(Malformed::Unknown {
                    field: "snp report version",
                    observed: other.into(),
                });
            }
        }
        zero("0x04c..0x050", &self.reserved_04c.to_le_bytes())?;
        zero("0x18b..0x1a0", &self.reserved_18b)?;
        zero("0x1eb", &[self.reserved_1eb])?;
        zero("0x1ef", &[self.reserved_1ef])?;
        zero("0x208..0x2a0", &self.reserved_208)?;
        zero("key info", &(self.key_info & !KEY_INFO_KNOWN).to_le_bytes())?;
        if self.signature_algorithm != ECDSA_P384_SHA384 {
            return Err(Malformed::Unknown {
                field: "signature algorithm",
                observed: self.signature_algorithm.into(),
            });
        }
        Ok(())
    }

    /// Version 5 brought the mitigation vectors; before it the bytes are reserved.
    fn check_no_mitigations(&self) -> Result<(), Malformed> {
        zero("0x1f8..0x200", &self.launch_mitigations.to_le_bytes())?;
        zero("0x200..0x208", &self.current_mitigations.to_le_bytes())
    }
}

impl Signature {
    fn check(&self) -> Result<Vec<u8>, Malformed> {
        zero("padding of r", &self.r_padding)?;
        zero("padding of s", &self.s_padding)?;
        zero("0x330..0x4a0", &self.reserved)?;
        let mut fixed = reversed(&self.r);
        fixed.extend(reversed(&self.s));
        Ok(fixed)
    }
}
