//! The key envelope: what the data owner hands to one custodian, once per data key.
//!
//! Deterministic CBOR, in a file `<custodian>.share`. The share is wrapped by HPKE to the
//! custodian's unwrap key, and `info` is the deterministic CBOR of
//! `["cloister key envelope", dataset, key, [index, threshold], commitments, [epsilon, delta],
//! max_units]`: with any other terms the share does not open. So whoever carries the file cannot
//! raise the budget, and cannot lower the threshold.
//!
//! | field | holds |
//! |---|---|
//! | `budget` | `{delta, epsilon}`: the most that all jobs on the data set may cost |
//! | `commitments` | what the manifest says of each share, in the custodians' order; its length is n |
//! | `dataset` | the data set's identity, through all its versions |
//! | `index` | the share's place, from 1 |
//! | `key` | the data key's name |
//! | `max_units` | `N_max`, the public upper bound on the number of privacy units |
//! | `share` | `{ct, enc}`: the wrapped share |
//! | `threshold` | m |

use measurement::cbor::{self, Malformed, Real};
use measurement::octets::Octets;
use rand_core::CryptoRng;
use sealed::{Kem, RecipientKey, Sealed, Share, ShareError, Threshold, WrapError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most bytes of an envelope: 255 commitments and a little.
pub const MAX_BYTES: usize = 16 * 1024;

const LABEL: &str = "cloister key envelope";

/// The most that all jobs on a data set may cost, by the owner's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// δ of the sum of all jobs.
    pub delta: Real,
    /// ε of the sum of all jobs, at that δ.
    pub epsilon: Real,
}

/// What an envelope says in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The most that all jobs on the data set may cost.
    pub budget: Budget,
    /// Commitments to all shares, in the custodians' order.
    pub commitments: Vec<Octets<32>>,
    /// The data set's identity.
    pub dataset: Octets<16>,
    /// The data key's name.
    pub key: Octets<32>,
    /// The public upper bound on the number of privacy units.
    pub max_units: u64,
    /// How many shares rebuild the key.
    pub threshold: u8,
}

/// One custodian's share, wrapped, with the terms it was handed over under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEnvelope {
    /// The most that all jobs on the data set may cost.
    pub budget: Budget,
    /// Commitments to all shares, in the custodians' order.
    pub commitments: Vec<Octets<32>>,
    /// The data set's identity.
    pub dataset: Octets<16>,
    /// The share's place, from 1.
    pub index: u8,
    /// The data key's name.
    pub key: Octets<32>,
    /// The public upper bound on the number of privacy units.
    pub max_units: u64,
    /// The wrapped share.
    pub share: Sealed,
    /// How many shares rebuild the key.
    pub threshold: u8,
}

/// Why an envelope gives no share.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not the deterministic encoding of an envelope.
    #[error("malformed key envelope: {0}")]
    Malformed(#[from] Malformed),
    /// A budget that is none.
    #[error(
        "key envelope: budget of epsilon {epsilon} at delta {delta} is not positive, delta below 1"
    )]
    Budget {
        /// ε.
        epsilon: f64,
        /// δ.
        delta: f64,
    },
    /// Index, threshold and commitments do not fit together.
    #[error("key envelope: share {index}, threshold {threshold}, {commitments} commitments")]
    Shape {
        /// The share's place.
        index: u8,
        /// m.
        threshold: u8,
        /// n.
        commitments: usize,
    },
    /// The share is not the one committed to.
    #[error("key envelope: {0}")]
    Share(#[from] ShareError),
    /// Wrapped to another key, or its terms were altered.
    #[error("key envelope: {0}")]
    Wrap(#[from] WrapError),
}

impl KeyEnvelope {
    /// Wraps `share` to a custodian's X25519 key under the terms of `label`.
    ///
    /// # Errors
    /// [`WrapError::Public`] for a key that is none, [`WrapError::Info`] for too many custodians.
    pub fn seal(
        label: &Label,
        share: &Share,
        custodian: &Octets<32>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, WrapError> {
        let Label { budget, dataset, key, max_units, threshold, .. } = *label;
        let commitments = label.commitments.clone();
        let empty = Sealed { enc: cbor::Blob(Vec::new()), ct: cbor::Blob(Vec::new()) };
        let index = share.index();
        let mut envelope =
            Self { budget, commitments, dataset, index, key, max_units, share: empty, threshold };
        let info = envelope.info();
        let public = custodian.as_bytes();
        envelope.share =
            share.expose(|value| sealed::seal(Kem::X25519, public, &info, value, rng))?;
        Ok(envelope)
    }

    /// Reads an envelope, strictly.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`], [`EnvelopeError::Budget`], [`EnvelopeError::Shape`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope: Self = cbor::decode(bytes, MAX_BYTES)?;
        let (Real(epsilon), Real(delta)) = (envelope.budget.epsilon, envelope.budget.delta);
        if !(epsilon > 0.0 && delta > 0.0 && delta < 1.0) {
            return Err(EnvelopeError::Budget { epsilon, delta });
        }
        envelope.threshold()?;
        Ok(envelope)
    }

    /// The envelope's only encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// How many shares there are and how many are needed.
    ///
    /// # Errors
    /// [`EnvelopeError::Shape`] when the numbers do not fit together.
    pub fn threshold(&self) -> Result<Threshold, EnvelopeError> {
        let (index, threshold) = (self.index, self.threshold);
        let shape = EnvelopeError::Shape { index, threshold, commitments: self.commitments.len() };
        match u8::try_from(self.commitments.len()) {
            Ok(n) if (1..=n).contains(&index) => Threshold::new(threshold, n).map_err(|_| shape),
            _ => Err(shape),
        }
    }

    /// Opens the share with the custodian's key and checks it against its commitment.
    ///
    /// # Errors
    /// [`EnvelopeError::Wrap`] for another key or altered terms, [`EnvelopeError::Share`] for a
    /// share that is not the one committed to, [`EnvelopeError::Shape`].
    pub fn open(&self, custodian: &RecipientKey) -> Result<Share, EnvelopeError> {
        self.threshold()?;
        let value = custodian.open(&self.info(), &self.share)?;
        let share = Share::from_secret(self.index, value)?;
        let place = usize::from(self.index).saturating_sub(1);
        let commitment = self.commitments.get(place).copied().unwrap_or(Octets([0; 32]));
        share.verify(&self.key, &commitment)?;
        Ok(share)
    }

    fn info(&self) -> Vec<u8> {
        cbor::encode(&(
            LABEL,
            self.dataset,
            self.key,
            (self.index, self.threshold),
            &self.commitments,
            (self.budget.epsilon, self.budget.delta),
            self.max_units,
        ))
    }
}

#[cfg(test)]
mod tests {
    use sealed::DataKey;

    use super::*;
    use crate::random;

    fn golden() -> (KeyEnvelope, RecipientKey) {
        let mut rng = random::fresh().unwrap();
        let custodian = RecipientKey::generate(Kem::X25519, &mut rng);
        let key = DataKey::generate(&mut rng);
        let shares = sealed::split(&key, Threshold::new(2, 3).unwrap(), &mut rng);
        let label = Label {
            budget: Budget { delta: Real(1e-5), epsilon: Real(8.0) },
            commitments: shares.iter().map(|share| share.commitment(&key.id())).collect(),
            dataset: Octets([7; 16]),
            key: key.id(),
            max_units: 256,
            threshold: 2,
        };
        let public = Octets::from_slice(custodian.public()).unwrap();
        let envelope = KeyEnvelope::seal(&label, &shares[1], &public, &mut rng).unwrap();
        (envelope, custodian)
    }

    fn refusal(change: impl FnOnce(&mut KeyEnvelope)) -> EnvelopeError {
        let (mut envelope, custodian) = golden();
        change(&mut envelope);
        let parsed = KeyEnvelope::parse(&envelope.to_bytes());
        parsed.and_then(|envelope| envelope.open(&custodian)).err().unwrap()
    }

    #[test]
    fn opens_for_its_custodian_after_the_journey() {
        let (envelope, custodian) = golden();
        let bytes = envelope.to_bytes();
        assert!(bytes.len() < MAX_BYTES);
        assert_eq!(KeyEnvelope::parse(&bytes).unwrap(), envelope);
        assert_eq!(envelope.open(&custodian).ok().unwrap().index(), 2);
    }

    #[test]
    fn rejects_terms_that_were_altered_on_the_way() {
        let opening = EnvelopeError::Wrap(WrapError::Opening);
        assert_eq!(refusal(|e| e.budget.epsilon = Real(80.0)), opening);
        assert_eq!(refusal(|e| e.budget.delta = Real(0.1)), opening);
        assert_eq!(refusal(|e| e.commitments[0] = Octets([0; 32])), opening);
        assert_eq!(refusal(|e| e.dataset = Octets([8; 16])), opening);
        assert_eq!(refusal(|e| e.index = 1), opening);
        assert_eq!(refusal(|e| e.key = Octets([0; 32])), opening);
        assert_eq!(refusal(|e| e.max_units = 257), opening);
        assert_eq!(refusal(|e| e.threshold = 1), opening);
        assert_eq!(refusal(|e| e.share.ct.0[0] ^= 1), opening);
    }

    #[test]
    fn rejects_numbers_that_do_not_fit_together() {
        let shape = |index, threshold| EnvelopeError::Shape { index, threshold, commitments: 3 };
        assert_eq!(refusal(|e| e.index = 0), shape(0, 2));
        assert_eq!(refusal(|e| e.index = 4), shape(4, 2));
        assert_eq!(refusal(|e| e.threshold = 0), shape(2, 0));
        assert_eq!(refusal(|e| e.threshold = 4), shape(2, 4));
    }

    #[test]
    fn rejects_a_budget_that_is_none() {
        for (epsilon, delta) in [(0.0, 1e-5), (-1.0, 1e-5), (8.0, 0.0), (8.0, 1.0)] {
            let change = |e: &mut KeyEnvelope| {
                e.budget = Budget { delta: Real(delta), epsilon: Real(epsilon) };
            };
            assert_eq!(refusal(change), EnvelopeError::Budget { epsilon, delta });
        }
    }

    #[test]
    fn rejects_another_custodian() {
        let (envelope, _) = golden();
        let (_, other) = golden();
        let finding = envelope.open(&other).err().unwrap();
        assert_eq!(finding, EnvelopeError::Wrap(WrapError::Opening));
    }

    #[test]
    fn never_panics_on_a_prefix() {
        let bytes = golden().0.to_bytes();
        for end in 0..bytes.len() {
            assert!(KeyEnvelope::parse(&bytes[..end]).is_err());
        }
    }
}
