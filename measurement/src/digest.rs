//! Digests that remember what they are digests of.

use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::octets::{NotHex, Octets};

/// SHA-256 of `bytes` (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// SHA-384 of `bytes` (FIPS 180-4).
pub fn sha384(bytes: &[u8]) -> [u8; 48] {
    sha2::Sha384::digest(bytes).into()
}

/// SHA-512 of `bytes` (FIPS 180-4).
pub fn sha512(bytes: &[u8]) -> [u8; 64] {
    sha2::Sha512::digest(bytes).into()
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident, $size:literal, $hash:path) => {
        $(#[$doc])*
        pub struct $name<T: ?Sized> {
            bytes: Octets<$size>,
            of: PhantomData<fn() -> T>,
        }

        impl<T: ?Sized> $name<T> {
            /// Hashes exact bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self::from_bytes($hash(bytes))
            }

            /// Takes a digest that was read from evidence or from a document.
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self { bytes: Octets(bytes), of: PhantomData }
            }

            /// The digest's bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                self.bytes.as_bytes()
            }

            /// The digest's bytes without their meaning.
            pub const fn octets(&self) -> Octets<$size> {
                self.bytes
            }
        }

        impl<T: ?Sized> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T: ?Sized> Copy for $name<T> {}

        impl<T: ?Sized> PartialEq for $name<T> {
            fn eq(&self, other: &Self) -> bool {
                self.bytes == other.bytes
            }
        }

        impl<T: ?Sized> Eq for $name<T> {}

        impl<T: ?Sized> PartialOrd for $name<T> {
            fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl<T: ?Sized> Ord for $name<T> {
            fn cmp(&self, other: &Self) -> core::cmp::Ordering {
                self.bytes.cmp(&other.bytes)
            }
        }

        impl<T: ?Sized> core::hash::Hash for $name<T> {
            fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
                self.bytes.hash(state);
            }
        }

        impl<T: ?Sized> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.bytes.fmt(f)
            }
        }

        impl<T: ?Sized> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.bytes, f)
            }
        }

        impl<T: ?Sized> FromStr for $name<T> {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                text.parse().map(|Octets(bytes)| Self::from_bytes(bytes))
            }
        }

        impl<T: ?Sized> AsRef<[u8]> for $name<T> {
            fn as_ref(&self) -> &[u8] {
                self.bytes.as_ref()
            }
        }

        impl<T: ?Sized> Serialize for $name<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.bytes.serialize(serializer)
            }
        }

        impl<'de, T: ?Sized> Deserialize<'de> for $name<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Octets::deserialize(deserializer).map(|Octets(bytes)| Self::from_bytes(bytes))
            }
        }
    };
}

digest_type!(
    /// SHA-384 of a `T`: `Digest<Manifest>` is not `Digest<Policy>`.
    Digest, 48, sha384
);
digest_type!(
    /// SHA-256 of a `T`, where a format fixes that length (X.509 pins, RFC 6962, in-toto).
    Hash32, 32, sha256
);

/// What a digest can be a digest of. None of these can be made: they are names.
pub mod of {
    macro_rules! names {
        ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
            $($(#[$doc])* pub enum $name {})*
        };
    }

    names! {
        /// A message's received bytes.
        Message,
        /// One file of a base model.
        BaseFile,
        /// The Merkle tree of a sealed data set (RFC 6962).
        Dataset,
        /// Evidence as it was collected: report or quote, with its endorsements.
        Evidence,
        /// A file that leaves in the adapter's folder.
        File,
        /// The evidence of all GPUs of a session.
        GpuSet,
        /// A public key for HPKE, as encoded.
        KemKey,
        /// One node or leaf of the log.
        Node,
        /// One part of an image: firmware, kernel, initrd, command line.
        Part,
        /// An appraisal policy's exact bytes.
        Policy,
        /// A record of the log.
        Record,
        /// The sealed adapter's exact bytes.
        SealedAdapter,
        /// What a custodian sealed to the enclave.
        SealedShare,
        /// An Ed25519 public key.
        Signer,
        /// A SubjectPublicKeyInfo in DER (RFC 5280).
        Spki,
        /// An in-toto statement's exact bytes.
        Statement,
    }
}
