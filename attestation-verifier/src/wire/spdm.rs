//! NVIDIA's attestation report: an SPDM 1.1 request for measurements and the answer to it.
//!
//! DMTF DSP0274 1.1, `GET_MEASUREMENTS` and `MEASUREMENTS`, as the drivers of GPUs and switches hand
//! it out: the 37 bytes of the request, then the response. Integers are little-endian. What is signed
//! is everything before the last 96 bytes, the request included: that is how a nonce is bound.

use alloc::vec;
use alloc::vec::Vec;

use crate::wire::opaque::Fields;
use crate::wire::{Malformed, Reader, layout};

layout! {
    /// The request, `GET_MEASUREMENTS`.
    Request, 37 {
        0 version: u8,
        1 code: u8,
        2 attributes: u8,
        3 operation: u8,
        4 nonce: [u8; 32],
        36 slot: u8,
    }
}

layout! {
    /// The response, `MEASUREMENTS`, up to its record.
    Header, 8 {
        0 version: u8,
        1 code: u8,
        2 param1: u8,
        3 param2: u8,
        4 blocks: u8,
        5 record_length: [u8; 3],
    }
}

layout! {
    /// One measurement.
    Block, 55 {
        0 index: u8,
        1 specification: u8,
        2 size: u16,
        4 kind: u8,
        5 value_size: u16,
        7 value: [u8; 48],
    }
}

/// What the driver interface can return at most.
pub(crate) const REPORT_LIMIT: usize = 0x2000;
/// ECDSA P-384: `r || s`, big-endian.
pub(crate) const SIGNATURE_SIZE: usize = 96;

/// A report whose shape is right. Whether it is genuine is another question.
pub(crate) struct Report<'a> {
    /// The requester's.
    pub(crate) nonce: [u8; 32],
    /// The device's.
    pub(crate) responder_nonce: [u8; 32],
    /// Measurement `i + 1` at `i`.
    pub(crate) measurements: Vec<[u8; 48]>,
    pub(crate) opaque: Fields<'a>,
    /// The bytes that are signed, as they arrived.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl<'a> Report<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > REPORT_LIMIT {
            return Err(Malformed::TooLong {
                part: "device report",
                observed: bytes.len(),
                limit: REPORT_LIMIT,
            });
        }
        let mut reader = Reader::new(bytes);
        let truncated = |part| Malformed::Truncated { part };
        let request = Request::read(reader.bytes("request", Request::SIZE)?)
            .ok_or(truncated("request"))?
            .check()?;
        let header = Header::read(reader.bytes("response", Header::SIZE)?)
            .ok_or(truncated("response"))?
            .check()?;
        let [a, b, c] = header.record_length;
        let len = usize::try_from(u32::from_le_bytes([a, b, c, 0]))
            .map_err(|_| truncated("measurement record"))?;
        let measurements = read_record(header.blocks, reader.bytes("measurement record", len)?)?;
        let responder_nonce = reader.field("responder nonce")?;
        let opaque_length: u16 = reader.field("opaque data")?;
        let opaque = Fields::parse(reader.bytes("opaque data", opaque_length.into())?)?;
        let signature = reader.bytes("signature", SIGNATURE_SIZE)?;
        reader.end("device report")?;
        let signed = bytes.get(..bytes.len() - SIGNATURE_SIZE).ok_or(truncated("signature"))?;
        let nonce = request.nonce;
        Ok(Self { nonce, responder_nonce, measurements, opaque, signed, signature })
    }
}

impl Request {
    /// Asks for all blocks, signed, with the key of slot 0.
    fn check(self) -> Result<Self, Malformed> {
        exactly("request version", self.version, 0x11)?;
        exactly("request code", self.code, 0xe0)?;
        exactly("request attributes", self.attributes, 0x01)?;
        exactly("request operation", self.operation, 0xff)?;
        exactly("request slot", self.slot, 0)?;
        Ok(self)
    }
}

impl Header {
    fn check(self) -> Result<Self, Malformed> {
        exactly("response version", self.version, 0x11)?;
        exactly("response code", self.code, 0x60)?;
        exactly("response param1", self.param1, 0)?;
        exactly("response param2", self.param2, 0)?;
        Ok(self)
    }
}

/// As many blocks as declared, each index from 1 on exactly once.
fn read_record(blocks: u8, record: &[u8]) -> Result<Vec<[u8; 48]>, Malformed> {
    let count = usize::from(blocks);
    let required = count * Block::SIZE;
    if count == 0 || record.len() != required {
        let observed = record.len();
        return Err(Malformed::Length { part: "measurement record", observed, required });
    }
    let mut measurements = vec![None; count];
    for bytes in record.chunks_exact(Block::SIZE) {
        let block =
            Block::read(bytes).ok_or(Malformed::Truncated { part: "measurement record" })?;
        exactly("measurement specification", block.specification, 1)?;
        exactly("measurement size", block.size, 51)?;
        exactly("measurement type", block.kind, 1)?;
        exactly("measurement value size", block.value_size, 48)?;
        let place = usize::from(block.index)
            .checked_sub(1)
            .and_then(|index| measurements.get_mut(index))
            .filter(|place: &&mut Option<_>| place.is_none())
            .ok_or(Malformed::Unknown {
                field: "measurement index",
                observed: block.index.into(),
            })?;
        *place = Some(block.value);
    }
    // As many places as blocks, and no place was filled twice: none is empty.
    Ok(measurements.into_iter().flatten().collect())
}

fn exactly<T: Into<u64>>(field: &'static str, observed: T, required: u64) -> Result<(), Malformed> {
    let observed = observed.into();
    if observed == required { Ok(()) } else { Err(Malformed::Unknown { field, observed }) }
}
