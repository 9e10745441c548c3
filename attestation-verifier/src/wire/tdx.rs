//! The TDX quote, versions 4 and 5.
//!
//! Intel TDX DCAP Quoting Library API, appendix "Quote Format", and Intel TDX Module ABI
//! Specification (348551), `TDREPORT_STRUCT`. A quote is
//! header (48) || body || `u32` length || signature data; a version 5 quote puts `u16` type and
//! `u32` size before the body. Signature data is
//! signature (64) || attestation key (64) || certification data of type 6, which holds
//! QE report (384) || its signature (64) || `u16` length || authentication data || certification
//! data of type 5 (the PCK certificate chain as PEM). All lengths must meet exactly, and nothing
//! may follow.

use alloc::vec::Vec;

use crate::wire::{Malformed, Reader, layout, zero};

layout! {
    /// Bytes `0..48`.
    Header, 0x30 {
        0x00 version: u16,
        0x02 attestation_key_type: u16,
        0x04 tee_type: u32,
        0x08 reserved: u32,
        0x0c vendor: [u8; 16],
        0x1c _user_data: [u8; 20],
    }
}

layout! {
    /// Body of type 2: the TD report of TDX 1.0.
    TdReport, 0x248 {
        0x000 tee_tcb_svn: [u8; 16],
        0x010 mr_seam: [u8; 48],
        0x040 mr_signer_seam: [u8; 48],
        0x070 seam_attributes: u64,
        0x078 td_attributes: u64,
        0x080 xfam: u64,
        0x088 mr_td: [u8; 48],
        0x0b8 mr_config_id: [u8; 48],
        0x0e8 mr_owner: [u8; 48],
        0x118 mr_owner_config: [u8; 48],
        0x148 rtmr0: [u8; 48],
        0x178 rtmr1: [u8; 48],
        0x1a8 rtmr2: [u8; 48],
        0x1d8 rtmr3: [u8; 48],
        0x208 report_data: [u8; 64],
    }
}

layout! {
    /// What a body of type 3 adds: TDX 1.5.
    Relaunch, 0x40 {
        0x00 tee_tcb_svn2: [u8; 16],
        0x10 mr_service_td: [u8; 48],
    }
}

layout! {
    /// What a body of type 4 adds to type 3: TDX 1.5 extended.
    Extended, 0xed {
        0x00 vm_id: u8,
        0x01 td_id: [u8; 32],
        0x21 device_info: [u8; 48],
        0x51 init_service_td_hash: [u8; 48],
        0x81 init_service_td_attributes: [u8; 8],
        0x89 _init_cpu_svn: [u8; 16],
        0x99 _init_tee_tcb_svn: [u8; 16],
        0xa9 _init_tee_fmspc: [u8; 12],
        0xb5 current_service_td_hash: [u8; 48],
        0xe5 current_service_td_attributes: [u8; 8],
    }
}

layout! {
    /// The report of the quoting enclave, which vouches for the attestation key.
    #[cfg_attr(
        not(feature = "tdx-collateral"),
        expect(dead_code, reason = "the feature judges it")
    )]
    QeReport, 0x180 {
        0x000 _cpu_svn: [u8; 16],
        0x010 _misc_select: u32,
        0x014 _reserved_014: [u8; 28],
        0x030 _attributes: [u8; 16],
        0x040 _mr_enclave: [u8; 32],
        0x060 _reserved_060: [u8; 32],
        0x080 mr_signer: [u8; 32],
        0x0a0 _reserved_0a0: [u8; 96],
        0x100 isv_prod_id: u16,
        0x102 isv_svn: u16,
        0x104 _reserved_104: [u8; 60],
        0x140 key_digest: [u8; 32],
        0x160 key_digest_tail: [u8; 32],
    }
}

const ECDSA_P256: u16 = 2;
const TEE_TDX: u32 = 0x81;
const CERTIFICATION_QE_REPORT: u16 = 6;
const CERTIFICATION_PCK_CHAIN: u16 = 5;

/// The quoting enclave is Intel's: 939a7233-f79c-4ca9-940a-0db3957f0607.
const VENDOR_INTEL: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];

/// No honest quote comes near: the largest seen has 5247 bytes.
const QUOTE_LIMIT: usize = 64 * 1024;

/// A quote whose shape is right. Whether it is genuine is another question.
#[cfg_attr(not(feature = "tdx-collateral"), expect(dead_code, reason = "the feature judges it"))]
pub(crate) struct Quote<'a> {
    pub(crate) report: TdReport,
    pub(crate) relaunch: Option<Relaunch>,
    pub(crate) extended: Option<Extended>,
    /// Over `signed`: `r || s`, big-endian.
    pub(crate) signature: [u8; 64],
    pub(crate) attestation_key: [u8; 64],
    /// What stands behind the signature, and is the same for every quote of one quoting enclave:
    /// attestation key, QE report and its signature, PCK chain.
    pub(crate) authority: &'a [u8],
    pub(crate) qe_report: QeReport,
    pub(crate) qe_authentication: &'a [u8],
    /// PEM, as it arrived.
    pub(crate) pck_chain: &'a [u8],
    /// The quote, as it arrived.
    pub(crate) bytes: &'a [u8],
    /// Header and body: what the attestation key signs.
    pub(crate) signed: &'a [u8],
}

impl<'a> Quote<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (quote, rest) = Self::parse_prefix(bytes)?;
        match rest.len() {
            0 => Ok(quote),
            observed => Err(Malformed::TrailingBytes { part: "quote", observed }),
        }
    }

    /// All that Intel's judgement depends on beside the collateral and the time: what stands behind the
    /// quote's signature, and what the quote says of module, attributes and service TDs. The
    /// signature over it is another matter.
    pub(crate) fn judged_by_intel(&self) -> Vec<u8> {
        let report = &self.report;
        let mut judged = Vec::with_capacity(self.authority.len().saturating_add(512));
        judged.extend_from_slice(&report.tee_tcb_svn);
        judged.extend_from_slice(&report.mr_signer_seam);
        judged.extend_from_slice(&report.seam_attributes.to_le_bytes());
        judged.extend_from_slice(&report.td_attributes.to_le_bytes());
        judged.push(u8::from(self.relaunch.is_some()));
        judged.push(u8::from(self.extended.is_some()));
        if let Some(relaunch) = &self.relaunch {
            judged.extend_from_slice(&relaunch.tee_tcb_svn2);
            judged.extend_from_slice(&relaunch.mr_service_td);
        }
        judged.extend_from_slice(self.authority);
        judged
    }

    /// Reads the quote at the start of `bytes`, and returns what follows it.
    pub(crate) fn parse_prefix(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        if bytes.len() > QUOTE_LIMIT {
            return Err(Malformed::TooLong {
                part: "quote",
                observed: bytes.len(),
                limit: QUOTE_LIMIT,
            });
        }
        let mut reader = Reader::new(bytes);
        let version = read_header(&mut reader)?;
        let (report, relaunch, extended) = read_body(&mut reader, version)?;
        let signed = before(bytes, reader.rest());
        let signature_data = reader.sized("signature data")?;
        let rest = reader.rest();
        let authority = Authority::parse(signature_data)?;
        let quote = Self {
            report,
            relaunch,
            extended,
            signature: authority.signature,
            attestation_key: authority.attestation_key,
            authority: authority.bytes,
            qe_report: authority.qe_report,
            qe_authentication: authority.qe_authentication,
            pck_chain: authority.pck_chain,
            bytes: before(bytes, rest),
            signed,
        };
        Ok((quote, rest))
    }
}

/// What stands before `rest`, which is a tail of `bytes`.
fn before<'a>(bytes: &'a [u8], rest: &[u8]) -> &'a [u8] {
    let len = bytes.len().saturating_sub(rest.len());
    bytes.get(..len).unwrap_or(bytes)
}

fn read_header(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    let bytes = reader.bytes("quote header", Header::SIZE)?;
    let header = Header::read(bytes).ok_or(Malformed::Truncated { part: "quote header" })?;
    let unknown = |field, observed| Err(Malformed::Unknown { field, observed });
    if !matches!(header.version, 4 | 5) {
        return unknown("quote version", header.version.into());
    }
    if header.attestation_key_type != ECDSA_P256 {
        return unknown("attestation key type", header.attestation_key_type.into());
    }
    if header.tee_type != TEE_TDX {
        return unknown("tee type", header.tee_type.into());
    }
    if header.vendor != VENDOR_INTEL {
        let [a, b, c, d, ..] = header.vendor;
        return unknown("quoting enclave vendor", u32::from_be_bytes([a, b, c, d]).into());
    }
    zero("quote header 8..12", &header.reserved.to_le_bytes())?;
    Ok(header.version)
}

type Body = (TdReport, Option<Relaunch>, Option<Extended>);

fn read_body(reader: &mut Reader<'_>, version: u16) -> Result<Body, Malformed> {
    let body_type = if version == 4 { 2 } else { read_body_type(reader)? };
    let report = read(reader, "td report", TdReport::SIZE, TdReport::read)?;
    let relaunch = match body_type {
        3 | 4 => Some(read(reader, "td report 1.5", Relaunch::SIZE, Relaunch::read)?),
        _ => None,
    };
    let extended = match body_type {
        4 => Some(read(reader, "td report 1.5 extended", Extended::SIZE, Extended::read)?),
        _ => None,
    };
    Ok((report, relaunch, extended))
}

/// The type and size in front of the body of a version 5 quote.
fn read_body_type(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    let body_type: u16 = reader.field("body type")?;
    let observed: u32 = reader.field("body size")?;
    let required = match body_type {
        2 => 584,
        3 => 648,
        4 => 885,
        _ => {
            return Err(Malformed::Unknown { field: "body type", observed: body_type.into() });
        }
    };
    if observed != required {
        return Err(Malformed::BodySize { body_type, observed, required });
    }
    Ok(body_type)
}

const _: () = assert!(TdReport::SIZE == 584);
const _: () = assert!(TdReport::SIZE + Relaunch::SIZE == 648);
const _: () = assert!(TdReport::SIZE + Relaunch::SIZE + Extended::SIZE == 885);

fn read<T>(
    reader: &mut Reader<'_>,
    part: &'static str,
    size: usize,
    read: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, Malformed> {
    read(reader.bytes(part, size)?).ok_or(Malformed::Truncated { part })
}

/// What stands behind the quote's signature.
struct Authority<'a> {
    signature: [u8; 64],
    bytes: &'a [u8],
    attestation_key: [u8; 64],
    qe_report: QeReport,
    qe_authentication: &'a [u8],
    pck_chain: &'a [u8],
}

impl<'a> Authority<'a> {
    fn parse(signature_data: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(signature_data);
        let signature = reader.field("quote signature")?;
        let bytes = reader.rest();
        let attestation_key = reader.field("attestation key")?;
        let certification = certification(&mut reader, CERTIFICATION_QE_REPORT)?;
        reader.end("signature data")?;

        let mut reader = Reader::new(certification);
        let qe_report = read(&mut reader, "qe report", QeReport::SIZE, QeReport::read)?;
        let _signature: [u8; 64] = reader.field("qe report signature")?;
        let len: u16 = reader.field("qe authentication data")?;
        let qe_authentication = reader.bytes("qe authentication data", len.into())?;
        let pck_chain = self::certification(&mut reader, CERTIFICATION_PCK_CHAIN)?;
        reader.end("qe certification data")?;
        Ok(Self { signature, bytes, attestation_key, qe_report, qe_authentication, pck_chain })
    }
}

fn certification<'a>(reader: &mut Reader<'a>, required: u16) -> Result<&'a [u8], Malformed> {
    let observed: u16 = reader.field("certification data type")?;
    if observed != required {
        return Err(Malformed::Unknown {
            field: "certification data type",
            observed: observed.into(),
        });
    }
    reader.sized("certification data")
}
