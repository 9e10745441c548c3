//! Wrapping 32 secret bytes to a public key: HPKE (RFC 9180) base mode with HKDF-SHA256 and
//! AES-256-GCM, and one of two KEMs. The associated data are empty; `info` holds what the secret
//! is bound to.

use alloc::vec::Vec;

use hpke::{
    Deserializable, HpkeError, OpModeR, OpModeS, Serializable,
    aead::AesGcm256,
    kdf::HkdfSha256,
    kem::{X25519HkdfSha256, XWing},
    single_shot_open, single_shot_seal_with_rng,
};
use measurement::{
    cbor::{self, Blob},
    octets::Octets,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::share::{Share, ShareError, Threshold};

/// The longest `info`, in bytes.
pub const MAX_INFO: usize = 60 * 1024;

/// Bytes of a wrapped secret: 32 and a tag of 16.
pub const CT_LEN: usize = 48;

const SHARE_LABEL: &str = "cloister share";

/// How the recipient's key is made and met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kem {
    /// DHKEM(X25519, HKDF-SHA256), `0x0020` (RFC 9180 §7.1).
    X25519,
    /// X-Wing: ML-KEM-768 and X25519, `0x647a` (draft-ietf-hpke-pq).
    XWing,
}

impl Kem {
    /// Both of them, the one to prefer first.
    pub const ALL: [Self; 2] = [Self::XWing, Self::X25519];

    /// The number in IANA's registry of HPKE KEMs.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::X25519 => 0x0020,
            Self::XWing => 0x647a,
        }
    }

    /// The KEM with this number.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kem| kem.id() == id)
    }

    /// Bytes of a public key.
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::XWing => 1216,
        }
    }

    /// Bytes of an encapsulated key.
    #[must_use]
    pub const fn enc_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::XWing => 1120,
        }
    }
}

/// A wrapped secret. Public: whoever relays it learns nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// The encapsulated key, [`Kem::enc_len`] bytes.
    pub enc: Blob,
    /// The ciphertext and its tag, [`CT_LEN`] bytes.
    pub ct: Blob,
}

/// Why a secret was not wrapped or not unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WrapError {
    /// A ciphertext of another length than 32 bytes and a tag have.
    #[error("the wrapped secret has {observed} bytes, {CT_LEN} are required")]
    Ciphertext {
        /// Its length.
        observed: usize,
    },
    /// An encapsulated key of the wrong length, or of a point of small order.
    #[error("the encapsulated key of {observed} bytes is not one for kem {kem:#06x}")]
    Encapsulated {
        /// The KEM's number.
        kem: u16,
        /// Its length.
        observed: usize,
    },
    /// More `info` than is ever needed.
    #[error("info has {observed} bytes, at most {MAX_INFO} are accepted")]
    Info {
        /// Its length.
        observed: usize,
    },
    /// Another KEM is required here.
    #[error("the key is for kem {observed:#06x}, {required:#06x} is required")]
    Kem {
        /// Number of the key's KEM.
        observed: u16,
        /// Number of the KEM required.
        required: u16,
    },
    /// Not wrapped to this key, not for this `info`, or altered.
    #[error("the wrapped secret does not open: another key, another binding, or altered")]
    Opening,
    /// A public key of the wrong length, or of a point of small order.
    #[error("the public key of {observed} bytes is not one for kem {kem:#06x}")]
    Public {
        /// The KEM's number.
        kem: u16,
        /// Its length.
        observed: usize,
    },
    /// What came out is no share.
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// A recipient's key pair.
///
/// Not `Debug`, `Display`, `Clone`, `PartialEq` or serialisable; the secret half, 32 bytes for
/// both KEMs, is gone from memory on drop.
pub struct RecipientKey {
    kem: Kem,
    secret: Zeroizing<[u8; 32]>,
    public: Vec<u8>,
}

impl RecipientKey {
    /// Draws a key pair.
    pub fn generate(kem: Kem, rng: &mut impl CryptoRng) -> Self {
        match kem {
            Kem::X25519 => Self::draw::<X25519HkdfSha256>(kem, rng),
            Kem::XWing => Self::draw::<XWing>(kem, rng),
        }
    }

    /// Takes over a secret half: an X25519 scalar, or an X-Wing seed.
    #[must_use]
    pub fn from_secret(kem: Kem, secret: Zeroizing<[u8; 32]>) -> Self {
        let public = match kem {
            Kem::X25519 => public::<X25519HkdfSha256>(&secret),
            Kem::XWing => public::<XWing>(&secret),
        };
        Self { kem, secret, public }
    }

    /// The KEM this key is for.
    #[must_use]
    pub const fn kem(&self) -> Kem {
        self.kem
    }

    /// The public half, [`Kem::public_len`] bytes.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Lends the secret half to `f` and to nothing after it.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        f(&self.secret)
    }

    /// Opens what was wrapped to this key under the same `info`.
    ///
    /// # Errors
    /// [`WrapError::Info`], [`WrapError::Ciphertext`], [`WrapError::Encapsulated`],
    /// [`WrapError::Opening`].
    pub fn open(&self, info: &[u8], sealed: &Sealed) -> Result<Zeroizing<[u8; 32]>, WrapError> {
        if info.len() > MAX_INFO {
            return Err(WrapError::Info { observed: info.len() });
        }
        if sealed.ct.0.len() != CT_LEN {
            return Err(WrapError::Ciphertext { observed: sealed.ct.0.len() });
        }
        match self.kem {
            Kem::X25519 => self.open_with::<X25519HkdfSha256>(info, sealed),
            Kem::XWing => self.open_with::<XWing>(info, sealed),
        }
    }

    fn draw<K: hpke::Kem>(kem: Kem, rng: &mut impl CryptoRng) -> Self {
        let (secret, _) = K::gen_keypair_with_rng(rng);
        let mut bytes = Zeroizing::new([0; 32]);
        secret.write_exact(bytes.as_mut_slice());
        Self::from_secret(kem, bytes)
    }

    fn open_with<K: hpke::Kem>(
        &self,
        info: &[u8],
        sealed: &Sealed,
    ) -> Result<Zeroizing<[u8; 32]>, WrapError> {
        let (kem, observed) = (self.kem.id(), sealed.enc.0.len());
        let malformed = WrapError::Encapsulated { kem, observed };
        if observed != self.kem.enc_len() {
            return Err(malformed);
        }
        let enc = K::EncappedKey::from_bytes(&sealed.enc.0).map_err(|_| malformed.clone())?;
        let secret =
            K::PrivateKey::from_bytes(self.secret.as_slice()).map_err(|_| WrapError::Opening)?;
        let opened = single_shot_open::<AesGcm256, HkdfSha256, K>(
            &OpModeR::Base,
            &secret,
            &enc,
            info,
            &sealed.ct.0,
            &[],
        );
        let opened = Zeroizing::new(opened.map_err(|error| match error {
            HpkeError::DecapError | HpkeError::ValidationError => malformed,
            _ => WrapError::Opening,
        })?);
        exactly_32(&opened).ok_or(WrapError::Opening)
    }
}

/// Wraps 32 secret bytes to `public`, bound to `info`.
///
/// # Errors
/// [`WrapError::Info`], and [`WrapError::Public`] for a key that is none.
pub fn seal(
    kem: Kem,
    public: &[u8],
    info: &[u8],
    secret: &[u8; 32],
    rng: &mut impl CryptoRng,
) -> Result<Sealed, WrapError> {
    if info.len() > MAX_INFO {
        return Err(WrapError::Info { observed: info.len() });
    }
    let sealed = match kem {
        Kem::X25519 => seal_with::<X25519HkdfSha256>(public, info, secret, rng),
        Kem::XWing => seal_with::<XWing>(public, info, secret, rng),
    };
    sealed.ok_or(WrapError::Public { kem: kem.id(), observed: public.len() })
}

/// Wraps a share to a custodian's X25519 key, bound to the key's name, the share's place and the
/// threshold: `info` is the deterministic CBOR of `["cloister share", dek_id, index, m, n]`.
///
/// # Errors
/// [`WrapError::Public`].
pub fn wrap_share(
    custodian: &[u8],
    share: &Share,
    dek_id: &Octets<32>,
    threshold: Threshold,
    rng: &mut impl CryptoRng,
) -> Result<Sealed, WrapError> {
    let info = share_info(dek_id, share.index(), threshold);
    share.expose(|value| seal(Kem::X25519, custodian, &info, value, rng))
}

/// Unwraps the share at place `index` with the custodian's key.
///
/// # Errors
/// [`WrapError::Kem`] for a key of another kind, [`WrapError::Share`] for place 0, and as
/// [`RecipientKey::open`].
pub fn unwrap_share(
    custodian: &RecipientKey,
    sealed: &Sealed,
    dek_id: &Octets<32>,
    index: u8,
    threshold: Threshold,
) -> Result<Share, WrapError> {
    let (observed, required) = (custodian.kem().id(), Kem::X25519.id());
    if observed != required {
        return Err(WrapError::Kem { observed, required });
    }
    let value = custodian.open(&share_info(dek_id, index, threshold), sealed)?;
    Ok(Share::from_secret(index, value)?)
}

fn share_info(dek_id: &Octets<32>, index: u8, threshold: Threshold) -> Vec<u8> {
    cbor::encode(&(SHARE_LABEL, dek_id, index, threshold.m(), threshold.n()))
}

fn seal_with<K: hpke::Kem>(
    public: &[u8],
    info: &[u8],
    secret: &[u8; 32],
    rng: &mut impl CryptoRng,
) -> Option<Sealed> {
    let public = K::PublicKey::from_bytes(public).ok()?;
    let (enc, ct) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(
        &OpModeS::Base,
        &public,
        info,
        secret,
        &[],
        rng,
    )
    .ok()?;
    Some(Sealed { enc: Blob(enc.to_bytes().to_vec()), ct: Blob(ct) })
}

/// The public half. Any 32 bytes are a secret half for both KEMs, so the lengths always fit.
fn public<K: hpke::Kem>(secret: &[u8; 32]) -> Vec<u8> {
    K::PrivateKey::from_bytes(secret)
        .map(|secret| K::sk_to_pk(&secret).to_bytes().to_vec())
        .unwrap_or_default()
}

fn exactly_32(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if bytes.len() != 32 {
        return None;
    }
    let mut out = Zeroizing::new([0; 32]);
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    Some(out)
}

#[cfg(test)]
mod tests;
