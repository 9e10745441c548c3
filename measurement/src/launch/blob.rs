//! The launch blob: the job manifest as the host hands it to the guest, and whose digest the
//! hardware reports.
//!
//! It is a CoCo Initdata document, version 0.1.0, so that existing tools can read it, with one
//! entry and one spelling:
//!
//! ```toml
//! version = "0.1.0"
//! algorithm = "sha256"
//!
//! [data]
//! "manifest.cbor" = "omFhAWFiAg=="
//! ```
//!
//! Each line ends with a line feed. `algorithm` is the hash whose value the platform reports:
//! `sha256` for HOST_DATA (SEV-SNP), `sha384` for MRCONFIGID (TDX). The value is base64 with padding
//! (RFC 4648 §4). The blob is data from the host: the guest believes it only because the digest of
//! its exact bytes is in its own report.

use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding};

use crate::digest::{sha256, sha384};

/// Longest blob accepted, in bytes.
pub const CAP: usize = 256 << 10;

/// The hash whose value the platform reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256, which fills HOST_DATA of SEV-SNP.
    Sha256,
    /// SHA-384, which fills MRCONFIGID of TDX.
    Sha384,
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
        }
    }
}

/// Why bytes are no launch blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The value is not the base64 of a manifest.
    #[error("the manifest in the launch blob is not padded base64")]
    Base64,
    /// The document is not spelled as this module spells it.
    #[error("the launch blob is not the one spelling of initdata 0.1.0 with manifest.cbor")]
    Spelling,
    /// The document is too long.
    #[error("the launch blob has {observed} bytes, at most {CAP} are accepted")]
    TooLong {
        /// Its length in bytes.
        observed: usize,
    },
}

/// Writes the blob that holds `manifest`. Only a blob of at most [`CAP`] bytes can be read back.
pub fn write(manifest: &[u8], algorithm: Algorithm) -> Vec<u8> {
    let mut text = head(algorithm);
    text.push_str(&Base64::encode_string(manifest));
    text.push_str(TAIL);
    text.into_bytes()
}

/// Reads a blob: its algorithm and its manifest. Accepts exactly what [`write`] writes.
pub fn read(blob: &[u8]) -> Result<(Algorithm, Vec<u8>), BlobError> {
    if blob.len() > CAP {
        return Err(BlobError::TooLong { observed: blob.len() });
    }
    let text = core::str::from_utf8(blob).map_err(|_| BlobError::Spelling)?;
    let (algorithm, value) = [Algorithm::Sha256, Algorithm::Sha384]
        .into_iter()
        .find_map(|algorithm| Some((algorithm, text.strip_prefix(head(algorithm).as_str())?)))
        .ok_or(BlobError::Spelling)?;
    let value = value.strip_suffix(TAIL).ok_or(BlobError::Spelling)?;
    let manifest = Base64::decode_vec(value).map_err(|_| BlobError::Base64)?;
    if write(&manifest, algorithm) == blob {
        Ok((algorithm, manifest))
    } else {
        Err(BlobError::Spelling)
    }
}

/// HOST_DATA of a guest that was given this blob (SEV-SNP).
pub fn host_data(blob: &[u8]) -> [u8; 32] {
    sha256(blob)
}

/// MRCONFIGID of a guest that was given this blob (TDX).
pub fn mr_config_id(blob: &[u8]) -> [u8; 48] {
    sha384(blob)
}

fn head(algorithm: Algorithm) -> String {
    let mut head = String::from("version = \"0.1.0\"\nalgorithm = \"");
    head.push_str(algorithm.name());
    head.push_str("\"\n\n[data]\n\"manifest.cbor\" = \"");
    head
}

const TAIL: &str = "\"\n";

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &[u8] = b"\xa2\x61a\x01\x61b\x02";
    const GOLDEN: &str = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\
                          \"manifest.cbor\" = \"omFhAWFiAg==\"\n";

    #[test]
    fn writes_the_documented_spelling_and_reads_it_back() {
        assert_eq!(write(MANIFEST, Algorithm::Sha256), GOLDEN.as_bytes());
        for algorithm in [Algorithm::Sha256, Algorithm::Sha384] {
            for manifest in [&MANIFEST[..0], &MANIFEST[..1], &MANIFEST[..2], MANIFEST] {
                let blob = write(manifest, algorithm);
                assert_eq!(read(&blob), Ok((algorithm, manifest.to_vec())));
            }
        }
    }

    #[test]
    fn rejects_every_other_spelling() {
        for (from, to) in [
            ("0.1.0", "0.1.1"),
            ("sha256", "sha512"),
            ("sha256", "SHA256"),
            (" = ", "="),
            ("\n\n", "\n"),
            ("\n", "\r\n"),
            ("\"manifest.cbor\"", "manifest.cbor"),
            ("manifest.cbor", "manifest.json"),
            (
                "version = \"0.1.0\"\nalgorithm = \"sha256\"",
                "algorithm = \"sha256\"\nversion = \"0.1.0\"",
            ),
            ("==\"\n", "==\""),
            ("==\"\n", "==\"\n\n"),
            ("==\"\n", "==\"\n# note\n"),
            ("==\"\n", "==\"\n\"more\" = \"\"\n"),
            ("version", " version"),
        ] {
            let blob = GOLDEN.replace(from, to);
            assert_ne!(blob, GOLDEN, "{from:?}");
            let error = read(blob.as_bytes()).unwrap_err();
            assert!(matches!(error, BlobError::Spelling | BlobError::Base64), "{to:?}");
        }
        assert_eq!(read(&[GOLDEN.as_bytes(), b"\xff"].concat()), Err(BlobError::Spelling));
    }

    #[test]
    fn rejects_a_second_encoding_of_the_same_manifest() {
        for value in
            ["omFhAWFiAh==", "omFhAWFiAg=", "omFhAWFiAg", "omFh\\nAWFiAg==", "omFhAWFi-g=="]
        {
            let blob = GOLDEN.replace("omFhAWFiAg==", value);
            let error = read(blob.as_bytes()).unwrap_err();
            assert!(matches!(error, BlobError::Spelling | BlobError::Base64), "{value}");
        }
    }

    #[test]
    fn refuses_more_than_the_cap() {
        let blob = write(&[7; CAP], Algorithm::Sha384);
        assert_eq!(read(&blob), Err(BlobError::TooLong { observed: blob.len() }));
    }

    #[test]
    fn rejects_every_prefix() {
        for length in 0..GOLDEN.len() {
            assert!(read(&GOLDEN.as_bytes()[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn every_bit_changes_both_digests() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut blob = GOLDEN.as_bytes().to_vec();
            blob[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(host_data(&blob), host_data(GOLDEN.as_bytes()));
            assert_ne!(mr_config_id(&blob), mr_config_id(GOLDEN.as_bytes()));
        }
    }
}
