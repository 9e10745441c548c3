//! What is claimed about privacy, by whom it is spent, and how it is recomputed.
//!
//! One value describes the mechanism: [`Mechanism`]. The trainer runs it, the ledger stores it (never
//! a scalar ε), the accountant composes it, and the auditor recomputes it to the same bit.

pub mod accountant;
pub mod audit;
mod clipping;

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::cbor::Real;

pub use self::clipping::{Adaptive, Clipping};

/// Which data sets count as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adjacency {
    /// One privacy unit is added or removed.
    AddOrRemoveOne,
    /// One privacy unit becomes another one; their number is public.
    ReplaceOne,
    /// One privacy unit becomes one whose gradient is zero; their number is public.
    ZeroOut,
}

/// How the batch of a step is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// Every unit joins every step independently with the sample rate; units beyond the physical
    /// batch are dropped, and that is accounted.
    TruncatedPoisson,
}

/// Whose participation is hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// All records that share the value of a field.
    Field(String),
    /// Every record by itself.
    Record,
}

/// All that changes privacy, and nothing that only changes speed. Public constants, declared before
/// data is opened and never derived from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Which data sets count as neighbours.
    pub adjacency: Adjacency,
    /// How a unit's gradient is bounded by C.
    pub clipping: Clipping,
    /// δ, the probability left out of the promise.
    pub delta: Real,
    /// B̄, the constant the noisy sum is divided by, in units.
    pub expected_batch: u32,
    /// C, the L2 norm a unit's gradient is clipped to.
    pub max_grad_norm: Real,
    /// N_max, a public upper bound on the number of units.
    pub max_units: u64,
    /// σ, the noise's standard deviation as a multiple of C.
    pub noise_multiplier: Real,
    /// M, the number of slots every step computes; more sampled units than that are dropped.
    pub physical_batch: u32,
    /// k, the number of a sampled unit's records that a step looks at.
    pub records_per_unit: u32,
    /// q, the probability that a unit joins a step.
    pub sample_rate: Real,
    /// How the batch is drawn.
    pub sampler: Sampler,
    /// T, the number of steps, fixed in advance.
    pub steps: u32,
    /// Whose participation is hidden.
    pub unit: Unit,
}

/// A term of the mechanism that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OutOfRange {
    /// The released count of clipped units leaves no privacy for the gradient.
    #[error("quantile noise is {observed}, must be above half of the noise multiplier, {required}")]
    Count {
        /// The deviation of the count's noise, in units.
        observed: f64,
        /// σ / 2.
        required: f64,
    },
    /// δ is not in (0, 1/N_max).
    #[error(
        "delta is {observed}, must be above 0 and below one over the {max_units} units allowed"
    )]
    Delta {
        /// The δ observed.
        observed: f64,
        /// N_max.
        max_units: u64,
    },
    /// A count is zero.
    #[error("{what} is 0, must be at least 1")]
    Zero {
        /// Which count.
        what: &'static str,
    },
    /// Not finite, or not above zero.
    #[error("{what} is {observed}, must be above 0 and finite")]
    NotPositive {
        /// Which number.
        what: &'static str,
        /// Its value.
        observed: f64,
    },
    /// The physical batch cannot even hold the expected batch.
    #[error("physical batch is {observed}, must hold the expected batch of {required}")]
    PhysicalBatch {
        /// M.
        observed: u32,
        /// B̄.
        required: u32,
    },
    /// The quantile of clipping is not in (0, 1).
    #[error("clipping quantile is {observed}, must be above 0 and below 1")]
    Quantile {
        /// The quantile observed.
        observed: f64,
    },
    /// q is not in (0, 1].
    #[error("sample rate is {observed}, must be above 0 and at most 1")]
    SampleRate {
        /// The q observed.
        observed: f64,
    },
    /// Less than one unit is expected in a step.
    #[error("sample rate {sample_rate} of {max_units} units is less than one unit a step")]
    TooRare {
        /// q.
        sample_rate: f64,
        /// N_max.
        max_units: u64,
    },
}

impl Terms {
    /// Everything about these terms that cannot be.
    #[must_use]
    pub fn findings(&self) -> Vec<OutOfRange> {
        let mut findings = Vec::new();
        for (what, count) in [
            ("expected batch", self.expected_batch),
            ("physical batch", self.physical_batch),
            ("records per unit", self.records_per_unit),
            ("steps", self.steps),
        ] {
            if count == 0 {
                findings.push(OutOfRange::Zero { what });
            }
        }
        for (what, Real(observed)) in
            [("max grad norm", self.max_grad_norm), ("noise multiplier", self.noise_multiplier)]
        {
            if !(observed > 0.0 && observed.is_finite()) {
                findings.push(OutOfRange::NotPositive { what, observed });
            }
        }
        self.clipping.findings(self.noise_multiplier.0, &mut findings);
        self.rates(&mut findings);
        if self.physical_batch < self.expected_batch {
            findings.push(OutOfRange::PhysicalBatch {
                observed: self.physical_batch,
                required: self.expected_batch,
            });
        }
        findings
    }

    fn rates(&self, findings: &mut Vec<OutOfRange>) {
        let max_units = self.max_units;
        let units = exact(max_units);
        let Real(observed) = self.sample_rate;
        if !(observed > 0.0 && observed <= 1.0) {
            findings.push(OutOfRange::SampleRate { observed });
        } else if observed * units < 1.0 {
            findings.push(OutOfRange::TooRare { sample_rate: observed, max_units });
        }
        let Real(observed) = self.delta;
        if !(observed > 0.0 && observed * units < 1.0) {
            findings.push(OutOfRange::Delta { observed, max_units });
        }
    }
}

/// Counts are capped far below 2^53, where a float is exact.
fn exact(count: u64) -> f64 {
    #[expect(clippy::as_conversions, reason = "no lossless conversion exists; rounds at 2^53")]
    let value = count as f64;
    value
}

/// Terms that can be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Terms", into = "Terms")]
pub struct Mechanism(Terms);

impl Mechanism {
    /// Accepts terms without a finding.
    ///
    /// # Errors
    /// All findings of [`Terms::findings`].
    pub fn new(terms: Terms) -> Result<Self, Vec<OutOfRange>> {
        let findings = terms.findings();
        if findings.is_empty() { Ok(Self(terms)) } else { Err(findings) }
    }

    /// q as a threshold: a unit joins when a uniform 64-bit number is below it. Rounded up, so the
    /// accounted q (see [`Mechanism::accounted_rate`]) is the one that is run.
    #[must_use]
    pub fn sample_threshold(&self) -> u128 {
        let scaled = libm::ceil(self.sample_rate.0 * 18_446_744_073_709_551_616.0);
        #[expect(clippy::as_conversions, reason = "saturates; 0 < scaled <= 2^64")]
        let threshold = scaled as u128;
        threshold
    }

    /// The noise's standard deviation on the sum of gradients, as a multiple of the norm they are
    /// clipped to: σ, or more where a part of the privacy pays for the count of clipped units. σ
    /// is the noise of both together, and what the accountant is told.
    #[must_use]
    pub fn gradient_noise(&self) -> f64 {
        self.clipping.gradient_noise(self.noise_multiplier.0)
    }

    /// The sample rate that [`Mechanism::sample_threshold`] realises, rounded up.
    #[must_use]
    pub fn accounted_rate(&self) -> f64 {
        #[expect(clippy::as_conversions, reason = "at most 2^64, of 53 significant bits")]
        let threshold = self.sample_threshold() as f64;
        (threshold / 18_446_744_073_709_551_616.0).min(1.0)
    }
}

impl Deref for Mechanism {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.0
    }
}

impl From<Mechanism> for Terms {
    fn from(mechanism: Mechanism) -> Self {
        mechanism.0
    }
}

/// The first term that cannot be, for serde, which has room for one.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unlawful(pub OutOfRange);

impl TryFrom<Terms> for Mechanism {
    type Error = Unlawful;

    fn try_from(terms: Terms) -> Result<Self, Unlawful> {
        match terms.findings().first() {
            Some(finding) => Err(Unlawful(*finding)),
            None => Ok(Self(terms)),
        }
    }
}

/// The steps a job may still take. Spending comes before drawing noise: a crash costs privacy, and
/// never gains any.
#[derive(Debug)]
pub struct Ledger {
    spent: u32,
    steps: u32,
}

/// The right to one noisy release. Neither copied nor made elsewhere.
#[derive(Debug)]
pub struct Step(u32);

impl Step {
    /// Which step this is, from 0.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.0
    }
}

/// All steps are spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {steps} steps are spent")]
pub struct Exhausted {
    /// T.
    pub steps: u32,
}

impl Ledger {
    /// A ledger with all steps of `mechanism` left.
    #[must_use]
    pub fn new(mechanism: &Mechanism) -> Self {
        Self { spent: 0, steps: mechanism.steps }
    }

    /// Spends one step.
    ///
    /// # Errors
    /// [`Exhausted`] for the step after the last.
    pub fn spend(&mut self) -> Result<Step, Exhausted> {
        if self.spent >= self.steps {
            return Err(Exhausted { steps: self.steps });
        }
        let step = Step(self.spent);
        self.spent += 1;
        Ok(step)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Terms that can be; the tests change one at a time.
    pub(crate) fn golden() -> Terms {
        Terms {
            adjacency: Adjacency::AddOrRemoveOne,
            clipping: Clipping::Flat,
            delta: Real(1e-4),
            expected_batch: 32,
            max_grad_norm: Real(1.0),
            max_units: 512,
            noise_multiplier: Real(1.1),
            physical_batch: 64,
            records_per_unit: 1,
            sample_rate: Real(0.0625),
            sampler: Sampler::TruncatedPoisson,
            steps: 20,
            unit: Unit::Field("customer_id".into()),
        }
    }

    fn findings(change: impl FnOnce(&mut Terms)) -> Vec<OutOfRange> {
        let mut terms = golden();
        change(&mut terms);
        Mechanism::new(terms).err().unwrap_or_default()
    }

    #[test]
    fn accepts_the_golden_terms_and_carries_them_both_ways() {
        let mechanism = Mechanism::new(golden()).unwrap();
        let bytes = crate::cbor::encode(&mechanism);
        assert_eq!(crate::cbor::decode(&bytes, 4096), Ok(mechanism));
    }

    #[test]
    fn refuses_a_delta_that_promises_nothing() {
        for observed in [0.0, -1e-9, 1.0 / 512.0, 0.5, 1.0] {
            let expected = OutOfRange::Delta { observed, max_units: 512 };
            assert_eq!(findings(|t| t.delta = Real(observed)), [expected]);
        }
        assert_eq!(findings(|t| t.delta = Real(f64::NAN)).len(), 1);
    }

    #[test]
    fn refuses_rates_outside_zero_to_one_and_below_one_unit() {
        for observed in [0.0, -0.1, 1.000_001, f64::INFINITY] {
            let expected = OutOfRange::SampleRate { observed };
            assert_eq!(findings(|t| t.sample_rate = Real(observed)), [expected]);
        }
        let rare = OutOfRange::TooRare { sample_rate: 0.001, max_units: 512 };
        assert_eq!(findings(|t| t.sample_rate = Real(0.001)), [rare]);
    }

    #[test]
    fn refuses_noise_and_norms_that_are_not_positive() {
        for observed in [0.0, -1.0, f64::INFINITY] {
            let what = "noise multiplier";
            let expected = OutOfRange::NotPositive { what, observed };
            assert_eq!(findings(|t| t.noise_multiplier = Real(observed)), [expected]);
        }
    }

    #[test]
    fn names_everything_that_is_wrong_at_once() {
        let all = findings(|t| {
            t.steps = 0;
            t.sample_rate = Real(2.0);
            t.physical_batch = 3;
        });
        assert_eq!(all.len(), 3, "{all:?}");
    }

    #[test]
    fn refuses_the_step_after_the_last() {
        let mut terms = golden();
        terms.steps = 2;
        let mut ledger = Ledger::new(&Mechanism::new(terms).unwrap());
        assert_eq!(ledger.spend().unwrap().index(), 0);
        assert_eq!(ledger.spend().unwrap().index(), 1);
        assert_eq!(ledger.spend().unwrap_err(), Exhausted { steps: 2 });
    }

    #[test]
    fn runs_no_smaller_rate_than_it_accounts() {
        for rate in [1.0, 0.1, 1e-9, 0.062_5] {
            let mut terms = golden();
            terms.sample_rate = Real(rate);
            terms.max_units = 1 << 40;
            terms.delta = Real(1e-15);
            let mechanism = Mechanism::new(terms).unwrap();
            assert!(mechanism.accounted_rate() >= rate);
            assert!(mechanism.accounted_rate() <= rate * (1.0 + 1e-9));
        }
    }
}
