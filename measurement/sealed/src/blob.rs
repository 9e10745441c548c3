//! A short thing, sealed whole: the adapter on its way out, a checkpoint.
//!
//! The sealed bytes are a FLOE stream with 64 KiB segments and the associated data
//! `"cloister blob" ‖ 0x00 ‖ aad`; their number follows from the number that went in
//! ([`blob_len`]), and from nothing else.

use alloc::vec::Vec;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    floe::{Decryptor, Encryptor, FloeError, HEADER_LEN, OVERHEAD, SegmentSize},
    key::DataKey,
};

const LABEL: &[u8] = b"cloister blob\0";
const SIZE: SegmentSize = SegmentSize::Kib64;

/// How many bytes [`seal_blob`] makes of `plaintext` bytes: 74, and 32 per begun 65 504.
#[must_use]
pub const fn blob_len(plaintext: usize) -> usize {
    let segments = plaintext.div_ceil(SIZE.plain());
    let segments = if segments == 0 { 1 } else { segments };
    plaintext.saturating_add(HEADER_LEN).saturating_add(segments.saturating_mul(OVERHEAD))
}

/// Seals `plaintext` under `key`, bound to `aad`, which the opener must know.
///
/// # Errors
/// [`FloeError::Cipher`], which no input causes.
pub fn seal_blob(
    key: &DataKey,
    aad: &[u8],
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, FloeError> {
    let (mut encryptor, header) = Encryptor::start(key, &labelled(aad), SIZE, rng)?;
    let mut out = Vec::with_capacity(blob_len(plaintext.len()));
    out.extend_from_slice(&header);
    let mut segments = plaintext.chunks(SIZE.plain());
    let last = segments.next_back().unwrap_or_default();
    for segment in segments {
        encryptor.segment(segment, rng, &mut out)?;
    }
    encryptor.last(last, rng, &mut out)?;
    Ok(out)
}

/// Opens what [`seal_blob`] made under the same key and for the same `aad`.
///
/// # Errors
/// [`FloeError::Truncated`], [`FloeError::Parameters`], [`FloeError::HeaderTag`] for another key
/// or another `aad`, and the findings of a segment. Nothing is returned before all is verified.
pub fn open_blob(
    key: &DataKey,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, FloeError> {
    let truncated = FloeError::Truncated { observed: sealed.len(), required: blob_len(0) };
    if sealed.len() < blob_len(0) {
        return Err(truncated);
    }
    let (header, body) = sealed.split_first_chunk().ok_or(truncated)?;
    let mut decryptor = Decryptor::start(key, &labelled(aad), SIZE, header)?;
    let mut segments = body.chunks(SIZE.sealed());
    let last = segments.next_back().unwrap_or_default();
    let mut plaintext = Zeroizing::new(Vec::with_capacity(body.len()));
    let mut buffer = Zeroizing::new(Vec::with_capacity(SIZE.sealed()));
    for segment in segments {
        buffer.clear();
        buffer.extend_from_slice(segment);
        plaintext.extend_from_slice(decryptor.segment(&mut buffer)?);
    }
    buffer.clear();
    buffer.extend_from_slice(last);
    plaintext.extend_from_slice(decryptor.last(&mut buffer)?);
    Ok(plaintext)
}

fn labelled(aad: &[u8]) -> Vec<u8> {
    [LABEL, aad].concat()
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::golden;

    const AAD: &[u8] = b"the adapter of one manifest";

    fn sealed(length: usize) -> (Vec<u8>, Vec<u8>) {
        let plaintext: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
        let blob = seal_blob(&golden::key(1), AAD, &plaintext, &mut golden::rng(1)).unwrap();
        (plaintext, blob)
    }

    fn finding(key: u8, aad: &[u8], blob: &[u8]) -> FloeError {
        open_blob(&golden::key(key), aad, blob).err().unwrap()
    }

    #[test]
    fn opens_what_was_sealed_at_every_border() {
        for length in [0, 1, 65_503, 65_504, 65_505, 131_008, 131_009] {
            let (plaintext, blob) = sealed(length);
            assert_eq!(blob.len(), blob_len(length));
            assert_eq!(*open_blob(&golden::key(1), AAD, &blob).unwrap(), plaintext);
        }
    }

    #[test]
    fn rejects_another_key_and_other_associated_data() {
        let (_, blob) = sealed(10);
        assert_eq!(finding(2, AAD, &blob), FloeError::HeaderTag);
        assert_eq!(finding(1, b"the adapter of another", &blob), FloeError::HeaderTag);
        assert_eq!(finding(1, b"", &blob), FloeError::HeaderTag);
    }

    #[test]
    fn rejects_a_flipped_bit_anywhere() {
        let (_, blob) = sealed(10);
        for at in 0..blob.len() {
            let mut forged = blob.clone();
            forged[at] ^= 1;
            match (at, finding(1, AAD, &forged)) {
                (0..10, FloeError::Parameters { .. })
                | (10..74, FloeError::HeaderTag)
                | (74..78, FloeError::SegmentMark { position: 0, .. })
                | (78.., FloeError::SegmentForged { position: 0 }) => {}
                (at, other) => panic!("byte {at}: {other:?}"),
            }
        }
    }

    #[test]
    fn rejects_every_prefix() {
        let (_, blob) = sealed(65_504 + 10);
        let first = 74 + 65_536;
        for end in (0..200).chain(first - 2..blob.len()) {
            match finding(1, AAD, &blob[..end]) {
                FloeError::Truncated { observed, required: 106 } => assert_eq!(observed, end),
                FloeError::SegmentMark { position, .. } => {
                    assert_eq!(position, u64::from(end >= first + 32));
                }
                FloeError::SegmentLength { position: 1, observed, .. } => {
                    assert_eq!(observed, end - first);
                }
                other => panic!("{end} bytes: {other:?}"),
            }
        }
    }

    #[test]
    fn rejects_trailing_bytes() {
        let (_, mut blob) = sealed(10);
        blob.push(0);
        let finding = finding(1, AAD, &blob);
        assert_eq!(finding, FloeError::SegmentMark { position: 0, observed: 42, required: 43 });
    }

    #[test]
    fn is_no_container_s_body() {
        // The label keeps a blob from being taken for a data set under the same key.
        let (mut encryptor_aad, key) = (vec![], golden::key(1));
        encryptor_aad.extend_from_slice(AAD);
        let (floe, header) =
            Encryptor::start(&key, &encryptor_aad, SIZE, &mut golden::rng(1)).unwrap();
        let mut stream = header.to_vec();
        floe.last(b"content", &mut golden::rng(2), &mut stream).unwrap();
        assert_eq!(finding(1, AAD, &stream), FloeError::HeaderTag);
    }
}
