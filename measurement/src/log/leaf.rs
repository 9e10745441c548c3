//! The 128-byte leaf of a Sigsum log: it says that a key holder signed a record, not what it says.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | checksum: `SHA-256(SHA-256(record))` |
//! | 32 | 64 | Ed25519 signature over `"sigsum.org/v1/tree-leaf" 0x00 checksum` |
//! | 96 | 32 | key hash: SHA-256 of the signer's public key |

use alloc::vec::Vec;

use super::merkle::leaf_hash;
use crate::digest::{Hash32, of, sha256};
use crate::octets::Octets;

/// Bytes of a leaf.
pub const LEAF_LEN: usize = 128;

/// What the signature of a leaf covers before the checksum.
const NAMESPACE: &[u8] = b"sigsum.org/v1/tree-leaf\0";

/// One leaf of the public log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// `SHA-256(SHA-256(record))`.
    pub checksum: Octets<32>,
    /// Ed25519, over [`Leaf::message`]; checked upstairs.
    pub signature: Octets<64>,
    /// SHA-256 of the signer's Ed25519 public key.
    pub key_hash: Hash32<of::Signer>,
}

impl Leaf {
    /// The checksum of a record's exact bytes.
    pub fn checksum(record: &[u8]) -> Octets<32> {
        Octets(sha256(&sha256(record)))
    }

    /// The bytes that the signer of a record with this checksum signs.
    pub fn message(checksum: &Octets<32>) -> Vec<u8> {
        let mut bytes = NAMESPACE.to_vec();
        bytes.extend_from_slice(checksum.as_ref());
        bytes
    }

    /// The leaf of `record`, signed by the holder of `public_key`.
    pub fn new(record: &[u8], signature: [u8; 64], public_key: &[u8; 32]) -> Self {
        Self {
            checksum: Self::checksum(record),
            signature: Octets(signature),
            key_hash: Hash32::of(public_key),
        }
    }

    /// Reads a leaf from exactly 128 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let (checksum, rest) = bytes.split_first_chunk()?;
        let (signature, rest) = rest.split_first_chunk()?;
        let key_hash = rest.try_into().ok()?;
        Some(Self {
            checksum: Octets(*checksum),
            signature: Octets(*signature),
            key_hash: Hash32::from_bytes(key_hash),
        })
    }

    /// The leaf's bytes, which are the entry of the log.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.checksum.as_ref(), self.signature.as_ref(), self.key_hash.as_ref()].concat()
    }

    /// The leaf's hash in the Merkle tree.
    pub fn hash(&self) -> Hash32<of::Node> {
        leaf_hash(&self.to_bytes())
    }

    /// Whether this is the leaf of these exact bytes.
    pub fn covers(&self, record: &[u8]) -> bool {
        self.checksum == Self::checksum(record)
    }
}
