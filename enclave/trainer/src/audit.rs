//! The white-box audit: how much the running mechanism tells the strongest attacker there is.
//!
//! 1. Every canary is a privacy unit whose gradient lies on a coordinate of its own, longer than the
//!    clipping norm. A fair coin decides whether it takes part.
//! 2. The sampler, the clipping, the grid and the noise are those of training; the releases are
//!    looked at, which nobody outside the enclave ever can.
//! 3. A canary's score is its privacy loss, summed over the steps: by the lemma of Neyman and Pearson
//!    no other test of these releases does better.
//! 4. Canaries share neither coins nor noise, so their outcomes are independent, and
//!    [`Counts::independent`] bounds ε from below. Thresholds are parts of the claimed ε, fixed
//!    before anything is drawn.
//! 5. The releases on the coordinates of canaries that took no part are noise alone, whose deviation
//!    must be the declared one.
//!
//! A bound above the claimed ε, or noise of another deviation, refutes the trainer; nothing proves
//! it. No more canaries take part in a run than fill the expected batch, so that none is dropped for
//! want of a slot.

#[cfg(feature = "tool")]
pub mod command;

use crate::dp::{AttemptSecret, Batch, GaussianMechanism, MechanismError, Streams, key};
use crate::real::{index_of, narrow};
use measurement::digest::Digest;
use measurement::privacy::accountant::{Accountant, AccountantError, Bounds};
use measurement::privacy::audit::{AuditError, Confidence, Counts, Scores};
use measurement::privacy::{Exhausted, Ledger, Mechanism, Step};
use rand_core::Rng;
use thiserror::Error;

/// Parts of the claimed ε that are tried as thresholds.
const THRESHOLDS: u32 = 8;
/// Standard deviations by which the noise's own may be off: once in 10^9 audits.
const NOISE_DEVIATIONS: f64 = 6.1;
/// The most canaries that share a run; their gradients are as long.
const MAX_GROUP: u32 = 1024;

/// Why there is no audit.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum WhiteBoxError {
    /// The mechanism has no ε to compare with.
    #[error(transparent)]
    Accountant(#[from] AccountantError),
    /// The scores or the confidence.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The grid does not hold the mechanism.
    #[error(transparent)]
    Mechanism(#[from] MechanismError),
    /// More steps were taken than there are.
    #[error(transparent)]
    Spent(#[from] Exhausted),
}

/// What the audit found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// ε by the accountant, from both sides.
    pub claimed: Bounds,
    /// A lower bound on ε by the attack.
    pub measured: f64,
    /// The noise's deviation, in parts of the declared one.
    pub noise: f64,
    /// By how much the noise's deviation may be off.
    pub noise_tolerance: f64,
    /// The chance that a canary that took part has the higher score of two.
    pub ranking: f64,
    /// Canaries that took part, and canaries that did not.
    pub canaries: [usize; 2],
}

impl Report {
    /// Whether nothing was found against the trainer.
    pub fn stands(&self) -> bool {
        self.measured <= self.claimed.upper && (self.noise - 1.0).abs() <= self.noise_tolerance
    }
}

/// One step of a trainer, as the audit drives it.
pub(crate) trait Subject {
    /// Draws among units with these gradients, clips, sums and releases.
    fn step(&mut self, step: Step, streams: Streams, units: &[Vec<f32>]) -> Vec<f32>;
}

/// The step that trains.
struct Trainer<'m> {
    mechanism: &'m Mechanism,
    gaussian: GaussianMechanism,
}

impl Subject for Trainer<'_> {
    fn step(&mut self, step: Step, streams: Streams, units: &[Vec<f32>]) -> Vec<f32> {
        let batch = Batch::draw(self.mechanism, &vec![1; units.len()], streams.batch);
        let mut sum = self.gaussian.sum();
        for gradient in batch.slots().iter().filter_map(|slot| units.get(slot.unit)) {
            sum.add(gradient);
        }
        self.gaussian.privatize(step, sum, streams.noise).values().to_vec()
    }
}

/// Audits the mechanism with this many canaries; `significance` is the chance that an honest
/// mechanism is refuted by the bound.
///
/// # Errors
/// [`WhiteBoxError`]; also when by chance no canary took part, or all did.
pub fn white_box(
    mechanism: &Mechanism,
    canaries: u32,
    significance: f64,
    secret: &AttemptSecret,
) -> Result<Report, WhiteBoxError> {
    let group = group(mechanism);
    let gaussian = GaussianMechanism::new(mechanism, &[index_of(group)])?;
    let trainer = Trainer { mechanism, gaussian };
    attack(mechanism, trainer, canaries, significance, secret)
}

/// How many canaries share a run: with half of them in it, half of the expected batch is drawn.
fn group(mechanism: &Mechanism) -> u32 {
    let units = f64::from(mechanism.expected_batch) / mechanism.sample_rate.0;
    (1..=MAX_GROUP).rev().find(|group| f64::from(*group) <= units).unwrap_or(1)
}

fn attack(
    mechanism: &Mechanism,
    mut subject: impl Subject,
    canaries: u32,
    significance: f64,
    secret: &AttemptSecret,
) -> Result<Report, WhiteBoxError> {
    let confidence = Confidence::new(significance, mechanism.delta.0)?;
    let mut spent = Accountant::new();
    spent.compose(mechanism)?;
    let claimed = spent.bounds(mechanism.delta.0)?;
    let mut found = Found::default();
    for run in 0..canaries.div_ceil(group(mechanism)) {
        found.run(mechanism, &mut subject, run, secret)?;
    }
    let noise = (found.squares / found.releases.max(1.0)).sqrt();
    let scores = Scores::new(found.inside, found.outside)?;
    let thresholds = (0..THRESHOLDS).map(|k| claimed.upper * f64::from(k) / f64::from(THRESHOLDS));
    let bound =
        |threshold| scores.at(threshold).independent(confidence.shared(index_of(THRESHOLDS)));
    let Counts { inside, outside, .. } = scores.at(0.0);
    Ok(Report {
        claimed,
        measured: thresholds.map(bound).fold(0.0, f64::max),
        noise,
        noise_tolerance: NOISE_DEVIATIONS / (2.0 * found.releases).sqrt(),
        ranking: scores.ranking(),
        canaries: [inside, outside],
    })
}

/// What the runs have shown so far.
#[derive(Default)]
struct Found {
    inside: Vec<f64>,
    outside: Vec<f64>,
    /// Sum of squares of noise alone, in deviations, and how many there were.
    squares: f64,
    releases: f64,
}

impl Found {
    fn run(
        &mut self,
        mechanism: &Mechanism,
        subject: &mut impl Subject,
        run: u32,
        secret: &AttemptSecret,
    ) -> Result<(), WhiteBoxError> {
        let streams = |part: &str, step| {
            let run = Digest::of(format!("cloister/trainer/audit/{part}/{run}").as_bytes());
            Streams::derive(secret, &run, "audit", &key::state_digest(step, 1.0, &[], &[], &[]))
        };
        let size = index_of(group(mechanism));
        let mut coins = streams("coins", 0).batch.0;
        let inside: Vec<bool> = (0..size).map(|_| coins.next_u64() >> 63 == 1).collect();
        let units = canaries(&inside, narrow(2.0 * mechanism.max_grad_norm.0));
        let mut losses = vec![0.0; size];
        let mut ledger = Ledger::new(mechanism);
        let unit = f64::from(mechanism.expected_batch) / mechanism.max_grad_norm.0;
        for at in 0..mechanism.steps {
            let released = subject.step(ledger.spend()?, streams("step", at), &units);
            for ((loss, value), inside) in losses.iter_mut().zip(&released).zip(&inside) {
                let x = f64::from(*value) * unit;
                *loss += privacy_loss(mechanism, x);
                if !inside {
                    self.squares += (x / mechanism.noise_multiplier.0).powi(2);
                    self.releases += 1.0;
                }
            }
        }
        for (loss, inside) in losses.into_iter().zip(inside) {
            if inside { self.inside.push(loss) } else { self.outside.push(loss) }
        }
        Ok(())
    }
}

/// The gradients of the canaries that take part, each alone on its coordinate.
fn canaries(inside: &[bool], length: f32) -> Vec<Vec<f32>> {
    let gradient = |place: usize| {
        let mut gradient = vec![0.0; inside.len()];
        gradient.iter_mut().skip(place).take(1).for_each(|value| *value = length);
        gradient
    };
    (0_usize..)
        .zip(inside)
        .filter(|(_, inside)| **inside)
        .map(|(place, _)| gradient(place))
        .collect()
}

/// `ln((1 - q) + q N(x; 1, σ²) / N(x; 0, σ²))`, with x in clipping norms.
fn privacy_loss(mechanism: &Mechanism, x: f64) -> f64 {
    let (q, sigma) = (mechanism.accounted_rate(), mechanism.noise_multiplier.0);
    let exponent = (2.0 * x - 1.0) / (2.0 * sigma * sigma);
    if exponent > 0.0 {
        exponent + libm::log(q + (1.0 - q) * libm::exp(-exponent))
    } else {
        libm::log1p(q * libm::expm1(exponent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use zeroize::Zeroizing;

    fn mechanism() -> Mechanism {
        golden::mechanism(|terms| {
            terms.delta.0 = 1e-5;
            terms.max_units = 256;
            terms.expected_batch = 64;
            terms.physical_batch = 256;
            terms.sample_rate.0 = 0.25;
            terms.noise_multiplier.0 = 2.0;
            terms.steps = 48;
        })
    }

    fn secret() -> AttemptSecret {
        AttemptSecret::new(Zeroizing::new([9; 32]))
    }

    fn gaussian(sigma: f64) -> GaussianMechanism {
        let mut terms = measurement::privacy::Terms::from(mechanism());
        terms.noise_multiplier.0 = sigma;
        let mechanism = Mechanism::new(terms).unwrap();
        GaussianMechanism::new(&mechanism, &[index_of(group(&mechanism))]).unwrap()
    }

    fn audit(subject: impl Subject) -> Report {
        attack(&mechanism(), subject, 2048, 0.05, &secret()).unwrap()
    }

    #[test]
    fn the_trainer_stands_and_the_bound_is_not_idle() {
        let found = white_box(&mechanism(), 2048, 0.05, &secret()).unwrap();
        assert!(found.stands(), "{found:?}");
        // So few canaries cannot show all of it.
        assert!(found.measured > 0.2 * found.claimed.lower, "{found:?}");
        assert_eq!(found.canaries.iter().sum::<usize>(), 2048);
    }

    /// Noise that is a millionth of what is declared: off, but for the grid.
    #[test]
    fn finds_noise_that_is_off() {
        let mechanism = mechanism();
        let found = audit(Trainer { mechanism: &mechanism, gaussian: gaussian(1e-6) });
        assert!(!found.stands());
        assert!(found.noise < 1e-5, "{found:?}");
    }

    #[test]
    fn finds_noise_that_is_a_fraction_too_small() {
        let mechanism = mechanism();
        let found = audit(Trainer { mechanism: &mechanism, gaussian: gaussian(2.0 * 0.95) });
        assert!(!found.stands(), "{found:?}");
    }

    /// Adds the noise of a step for every few units.
    struct NoisePerMicroBatch<'m>(Trainer<'m>);

    impl Subject for NoisePerMicroBatch<'_> {
        fn step(&mut self, step: Step, streams: Streams, units: &[Vec<f32>]) -> Vec<f32> {
            let mut other = self.0.gaussian.sum();
            other.add(&vec![0.0; units.first().map_or(0, Vec::len)]);
            let again = Ledger::new(self.0.mechanism).spend().unwrap();
            let second = Streams::derive(
                &secret(),
                &Digest::of(b"second"),
                "audit",
                &key::state_digest(step.index(), 1.0, &[], &[], &[]),
            );
            let extra = self.0.gaussian.privatize(again, other, second.noise);
            let first = self.0.step(step, streams, units);
            first.iter().zip(extra.values()).map(|(a, b)| a + b).collect()
        }
    }

    #[test]
    fn finds_noise_for_every_micro_batch() {
        let mechanism = mechanism();
        let trainer = Trainer { mechanism: &mechanism, gaussian: gaussian(2.0) };
        let found = audit(NoisePerMicroBatch(trainer));
        assert!(!found.stands());
        assert!((found.noise - 2.0_f64.sqrt()).abs() < 0.05, "{found:?}");
    }

    /// Draws everyone, whatever the rate.
    struct Everyone<'m>(Trainer<'m>);

    impl Subject for Everyone<'_> {
        fn step(&mut self, step: Step, streams: Streams, units: &[Vec<f32>]) -> Vec<f32> {
            let mut sum = self.0.gaussian.sum();
            units.iter().for_each(|gradient| sum.add(gradient));
            self.0.gaussian.privatize(step, sum, streams.noise).values().to_vec()
        }
    }

    #[test]
    fn finds_a_sampler_that_takes_everyone() {
        let mechanism = golden::mechanism(|terms| {
            *terms = mechanism().into();
            terms.sample_rate.0 = 0.01;
            terms.steps = 24;
        });
        let gaussian = GaussianMechanism::new(&mechanism, &[index_of(group(&mechanism))]).unwrap();
        let trainer = Trainer { mechanism: &mechanism, gaussian };
        let found = attack(&mechanism, Everyone(trainer), 2048, 0.05, &secret()).unwrap();
        assert!(found.measured > found.claimed.upper, "{found:?}");
    }

    #[test]
    fn losses_are_those_of_the_definition() {
        let mechanism = mechanism();
        for x in [-3.0_f64, 0.0, 0.5, 1.0, 4.0] {
            let normal = |mean: f64| (-(x - mean).powi(2) / (2.0 * 4.0)).exp();
            let expected = (0.75 + 0.25 * normal(1.0) / normal(0.0)).ln();
            assert!((privacy_loss(&mechanism, x) - expected).abs() < 1e-12);
        }
        assert!(privacy_loss(&mechanism, 1e6).is_finite());
    }

    #[test]
    fn refuses_a_confidence_that_means_nothing() {
        let found = white_box(&mechanism(), 8, 0.0, &secret());
        let expected = AuditError::Significance { observed: 0.0 };
        assert_eq!(found, Err(WhiteBoxError::Audit(expected)));
        let found = white_box(&mechanism(), 0, 0.05, &secret());
        assert_eq!(found, Err(AuditError::OneSided { inside: 0, outside: 0 }.into()));
    }
}
