//! Shamir's secret sharing over GF(2⁸), byte by byte, m of n.
//!
//! Share `x` of a key is the value at `x` of 32 polynomials of degree m − 1, one per byte, whose
//! constant terms are the key and whose other coefficients are uniform in 0..=255. That a leading
//! coefficient may be zero is what makes m − 1 shares say nothing (RUSTSEC-2024-0398 is the
//! defect of a dealer that never draws a zero).

use alloc::vec::Vec;

use measurement::{digest::sha256, octets::Octets};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::{DataKey, same};

mod field;

const LABEL: &[u8] = b"akr/1 share";

/// How many shares exist, and how many are needed: `1 <= m <= n <= 255`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    m: u8,
    n: u8,
}

impl Threshold {
    /// Accepts `1 <= m <= n`.
    ///
    /// # Errors
    /// [`ShareError::Threshold`] for any other pair.
    pub const fn new(m: u8, n: u8) -> Result<Self, ShareError> {
        if m == 0 || m > n {
            return Err(ShareError::Threshold { m, n });
        }
        Ok(Self { m, n })
    }

    /// How many shares rebuild the key.
    #[must_use]
    pub const fn m(self) -> u8 {
        self.m
    }

    /// How many shares there are.
    #[must_use]
    pub const fn n(self) -> u8 {
        self.n
    }
}

/// One custodian's part of a key: 32 bytes at a place `1..=255`.
///
/// Not `Debug`, `Display`, `Clone`, `PartialEq` or serialisable, and gone from memory on drop.
pub struct Share {
    index: u8,
    value: Zeroizing<[u8; 32]>,
}

impl Share {
    /// Puts a share together from what was stored or unwrapped.
    ///
    /// # Errors
    /// [`ShareError::IndexZero`]: place 0 is the key itself.
    pub fn from_secret(index: u8, value: Zeroizing<[u8; 32]>) -> Result<Self, ShareError> {
        if index == 0 {
            return Err(ShareError::IndexZero);
        }
        Ok(Self { index, value })
    }

    /// The place of this share, `1..=n`. Public.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// Lends the 32 bytes to `f` and to nothing after it.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        f(&self.value)
    }

    /// What the manifest says of this share:
    /// `SHA-256("akr/1 share" ‖ dek_id ‖ u8 index ‖ 32 bytes)`.
    #[must_use]
    pub fn commitment(&self, dek_id: &Octets<32>) -> Octets<32> {
        let mut message = Zeroizing::new(Vec::with_capacity(LABEL.len() + 65));
        message.extend_from_slice(LABEL);
        message.extend_from_slice(&dek_id.0);
        message.push(self.index);
        message.extend_from_slice(self.value.as_slice());
        Octets(sha256(&message))
    }

    /// Whether this is the share that `commitment` was made of.
    ///
    /// # Errors
    /// [`ShareError::Commitment`] if it is not.
    pub fn verify(&self, dek_id: &Octets<32>, commitment: &Octets<32>) -> Result<(), ShareError> {
        let observed = self.commitment(dek_id);
        if observed != *commitment {
            let (index, required) = (self.index, *commitment);
            return Err(ShareError::Commitment { index, observed, required });
        }
        Ok(())
    }
}

/// Why shares do not make a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The share is not the one committed to.
    #[error("share {index} has commitment {observed}, the manifest requires {required}")]
    Commitment {
        /// Place of the share.
        index: u8,
        /// Commitment of the share at hand.
        observed: Octets<32>,
        /// Commitment that was published.
        required: Octets<32>,
    },
    /// Two shares claim one place.
    #[error("share {index} is there twice")]
    Duplicate {
        /// The place.
        index: u8,
    },
    /// A share beyond the first m is not on the polynomial that those define.
    #[error("share {index} does not agree with the first ones")]
    Inconsistent {
        /// Place of the first share that disagrees.
        index: u8,
    },
    /// Place 0 is the key itself.
    #[error("a share's index is 0, at least 1 is required")]
    IndexZero,
    /// The shares make another key than the one asked for.
    #[error("the shares make the key {observed}, the manifest requires {required}")]
    Key {
        /// Name of the key that came out.
        observed: Octets<32>,
        /// Name of the key that was asked for.
        required: Octets<32>,
    },
    /// No such threshold.
    #[error("threshold {m} of {n} is not 1 <= m <= n")]
    Threshold {
        /// Shares needed.
        m: u8,
        /// Shares made.
        n: u8,
    },
    /// Fewer than m shares.
    #[error("there are {observed} shares, {required} are required")]
    TooFew {
        /// Shares at hand.
        observed: usize,
        /// Shares needed.
        required: u8,
    },
}

/// Splits a key: n shares, at the places `1..=n`, of which any m rebuild it.
pub fn split(key: &DataKey, threshold: Threshold, rng: &mut impl CryptoRng) -> Vec<Share> {
    let polynomial = draw(key, threshold, rng);
    (1..=threshold.n).map(|index| Share { index, value: evaluate(&polynomial, index) }).collect()
}

/// Rebuilds a key from at least `m` shares at different places. Shares beyond the first `m` must
/// lie on the same polynomial. Nothing here tells a false share among exactly `m`: check
/// [`Share::verify`] first, or use [`recover`].
///
/// # Errors
/// [`ShareError::TooFew`], [`ShareError::Duplicate`], [`ShareError::Inconsistent`], and
/// [`ShareError::Threshold`] for `m = 0`.
pub fn combine(shares: &[Share], m: u8) -> Result<DataKey, ShareError> {
    if m == 0 {
        return Err(ShareError::Threshold { m, n: u8::try_from(shares.len()).unwrap_or(u8::MAX) });
    }
    if let Some(index) = first_duplicate(shares) {
        return Err(ShareError::Duplicate { index });
    }
    let (first, further) = shares
        .split_at_checked(usize::from(m))
        .ok_or(ShareError::TooFew { observed: shares.len(), required: m })?;
    for share in further {
        if !same(&interpolate(first, share.index), &share.value) {
            return Err(ShareError::Inconsistent { index: share.index });
        }
    }
    Ok(DataKey::from_secret(interpolate(first, 0)))
}

/// [`combine`], and the key must have the name `dek_id`.
///
/// # Errors
/// As [`combine`], and [`ShareError::Key`].
pub fn recover(shares: &[Share], m: u8, dek_id: &Octets<32>) -> Result<DataKey, ShareError> {
    let key = combine(shares, m)?;
    let observed = key.id();
    if observed != *dek_id {
        return Err(ShareError::Key { observed, required: *dek_id });
    }
    Ok(key)
}

/// Coefficients, highest power first, the key last: m rows of 32.
fn draw(key: &DataKey, threshold: Threshold, rng: &mut impl CryptoRng) -> Vec<Zeroizing<[u8; 32]>> {
    let mut rows = Vec::with_capacity(usize::from(threshold.m));
    for _ in 1..threshold.m {
        let mut row = Zeroizing::new([0; 32]);
        rng.fill_bytes(row.as_mut_slice());
        rows.push(row);
    }
    rows.push(Zeroizing::new(key.expose(|bytes| *bytes)));
    rows
}

/// Horner's rule at `x`, on all 32 bytes.
fn evaluate(rows: &[Zeroizing<[u8; 32]>], x: u8) -> Zeroizing<[u8; 32]> {
    let mut value = Zeroizing::new([0; 32]);
    for row in rows {
        for (sum, coefficient) in value.iter_mut().zip(row.iter()) {
            *sum = field::mul(*sum, x) ^ coefficient;
        }
    }
    value
}

/// Lagrange's formula at `x`, through all of `shares`.
fn interpolate(shares: &[Share], x: u8) -> Zeroizing<[u8; 32]> {
    let mut value = Zeroizing::new([0; 32]);
    for share in shares {
        let weight = weight(shares, share.index, x);
        for (sum, byte) in value.iter_mut().zip(share.value.iter()) {
            *sum ^= field::mul(weight, *byte);
        }
    }
    value
}

/// The Lagrange basis polynomial of the place `at`, at `x`. Of public values only.
fn weight(shares: &[Share], at: u8, x: u8) -> u8 {
    shares.iter().map(|share| share.index).filter(|index| *index != at).fold(1, |product, index| {
        field::mul(product, field::mul(x ^ index, field::inverse(at ^ index)))
    })
}

fn first_duplicate(shares: &[Share]) -> Option<u8> {
    let mut indices: Vec<u8> = shares.iter().map(|share| share.index).collect();
    indices.sort_unstable();
    indices.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
