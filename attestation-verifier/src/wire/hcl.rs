//! What Azure puts around an SNP report: the report of the Host Compatibility Layer, its paravisor,
//! which a guest reads from its virtual TPM (NV index 0x01400001).
//!
//! Microsoft, "Attestation report structure" of confidential VMs; all numbers little-endian. Header
//! (32) || SNP report (1184) || request data (20) || runtime data, and after the size that the
//! header declares only zeros. The runtime data are JSON, and REPORT_DATA is their digest, filled up
//! with zeros: the report vouches for them, and they name the key of the virtual TPM and 64 bytes of
//! the guest's own.

use measurement::digest::{sha256, sha384, sha512};

use crate::wire::snp::REPORT_SIZE;
use crate::wire::{Malformed, Reader, layout, zero};

layout! {
    Header, 0x20 {
        0x00 signature: [u8; 4],
        0x04 version: u32,
        0x08 size: u32,
        0x0c request: u32,
        0x10 _status: u32,
        0x14 reserved: [u8; 12],
    }
}

layout! {
    /// Stands behind the report.
    Request, 0x14 {
        0x00 size: u32,
        0x04 version: u32,
        0x08 report: u32,
        0x0c digest: u32,
        0x10 runtime_size: u32,
    }
}

pub(crate) const SIGNATURE: [u8; 4] = *b"HCLA";

/// The wrapper lives in a TPM's NV index: the largest seen has 2600 bytes.
const LIMIT: usize = 16 * 1024;
/// A request for attestation, and evidence of SNP.
const ATTESTATION: u32 = 2;
const SNP: u32 = 2;
/// Where REPORT_DATA lies in a report.
const REPORT_DATA: core::ops::Range<usize> = 0x50..0x90;

/// The report and the runtime data that it vouches for.
pub(crate) struct Wrapper<'a> {
    pub(crate) report: &'a [u8],
    pub(crate) runtime: &'a [u8],
}

impl<'a> Wrapper<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > LIMIT {
            let (part, observed) = ("azure wrapper", bytes.len());
            return Err(Malformed::TooLong { part, observed, limit: LIMIT });
        }
        let mut reader = Reader::new(bytes);
        let header = read_header(&mut reader)?;
        let report = reader.bytes("snp report", REPORT_SIZE)?;
        let request = read_request(&mut reader)?;
        let part = "runtime data";
        let size = usize::try_from(request.runtime_size);
        let runtime = reader.bytes(part, size.map_err(|_| Malformed::Truncated { part })?)?;
        zero("tail of the azure wrapper", reader.rest())?;
        check_sizes(&header, &request)?;
        if !bound(report, runtime, request.digest)? {
            return Err(Malformed::Unbound { part });
        }
        Ok(Self { report, runtime })
    }
}

fn read_header(reader: &mut Reader<'_>) -> Result<Header, Malformed> {
    let part = "azure wrapper";
    let header = reader.bytes(part, Header::SIZE)?;
    let header = Header::read(header).ok_or(Malformed::Truncated { part })?;
    known("azure wrapper signature", u32::from_le_bytes(header.signature), &[SIGNATURE_WORD])?;
    known("azure wrapper version", header.version, &[1, 2])?;
    known("azure wrapper request", header.request, &[ATTESTATION])?;
    zero("azure wrapper 0x14..0x20", &header.reserved)?;
    Ok(header)
}

fn read_request(reader: &mut Reader<'_>) -> Result<Request, Malformed> {
    let part = "azure request data";
    let request = reader.bytes(part, Request::SIZE)?;
    let request = Request::read(request).ok_or(Malformed::Truncated { part })?;
    known("azure request version", request.version, &[1])?;
    known("azure request report", request.report, &[SNP])?;
    Ok(request)
}

/// Each of the three sizes follows from the others.
fn check_sizes(header: &Header, request: &Request) -> Result<(), Malformed> {
    let runtime = u64::from(request.runtime_size);
    let equal = |part, observed: u32, required: u64| {
        if u64::from(observed) == required {
            return Ok(());
        }
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let (observed, required) = (size(observed.into()), size(required));
        Err(Malformed::Length { part, observed, required })
    };
    equal("azure request data", request.size, runtime.saturating_add(20))?;
    // Status, size and the like of the header are counted in; checked on recorded evidence.
    equal("azure wrapper", header.size, runtime.saturating_add(0x20 + 1184 + 20))
}

/// Whether REPORT_DATA is the digest of `runtime`, filled up with zeros.
fn bound(report: &[u8], runtime: &[u8], digest: u32) -> Result<bool, Malformed> {
    let mut required = [0; 64];
    let mut put = |digest: &[u8]| {
        required.iter_mut().zip(digest).for_each(|(byte, from)| *byte = *from);
    };
    match digest {
        1 => put(&sha256(runtime)),
        2 => put(&sha384(runtime)),
        3 => put(&sha512(runtime)),
        _ => {
            let (field, observed) = ("azure runtime digest", digest.into());
            return Err(Malformed::Unknown { field, observed });
        }
    }
    Ok(report.get(REPORT_DATA) == Some(required.as_slice()))
}

const SIGNATURE_WORD: u32 = u32::from_le_bytes(SIGNATURE);

fn known(field: &'static str, observed: u32, known: &[u32]) -> Result<(), Malformed> {
    if known.contains(&observed) {
        return Ok(());
    }
    Err(Malformed::Unknown { field, observed: observed.into() })
}
