//! The Gaussian mechanism on an integer grid.
//!
//! With C the clipping norm, K = 2^24 grid steps per C and d parameters, a unit's gradient is
//! clipped to `C' = C (1 - sqrt(d) / 2K)` and rounded to the grid; rounding moves it by at most
//! `sqrt(d) / 2` grid steps, so its norm on the grid is at most K: exactly the sensitivity the
//! noise is made for. The invariant is checked in integers for every unit; a vector that broke it
//! would count as zero. Sums of integers do not depend on their order, and the noise of a coordinate
//! depends on its place alone, so no bit depends on the number of threads.

use super::key::NoiseStream;
use super::noise::Scale;
use crate::real::{narrow, nearest, real, widen};
use core::num::NonZero;
use measurement::privacy::{Mechanism, Step};
use std::thread;
use thiserror::Error;
use zeroize::Zeroizing;

/// K: grid steps per clipping norm.
const GRID: i64 = 1 << 24;

/// Neighbouring coordinates whose noise comes from one stream.
const BLOCK: usize = 4096;

/// Clips, sums and releases with noise, for a fixed number of parameters.
#[derive(Clone, Debug)]
pub struct GaussianMechanism {
    bound: Bound,
    noise: Scale,
    expected_batch: f64,
    parameters: usize,
}

/// What a unit's gradient was clipped to; travels with the sum.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound {
    norm: f64,     // C
    adjusted: f64, // C'
}

/// Why a mechanism cannot be run on a vector.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum MechanismError {
    /// The noise does not fit the grid.
    #[error("noise multiplier is {observed}, the grid holds 2^-24 to 2^26")]
    Noise {
        /// The multiplier.
        observed: f64,
    },
    /// Rounding this many parameters would use up the clipping norm.
    #[error("{observed} parameters, the grid holds {required}")]
    Parameters {
        /// Parameters.
        observed: usize,
        /// The most that leave half of the clipping norm.
        required: usize,
    },
}

/// The most parameters that leave nearly all of the norm: sqrt(d) / 2K is 2^-5.
const MAX_PARAMETERS: usize = 1 << 40;

/// A sum of clipped gradients before noise. Not `Debug`, not `Clone`, gone on drop; only
/// [`GaussianMechanism::privatize`] looks inside.
pub struct ClippedSum {
    sum: Zeroizing<Vec<i64>>,
    bound: Bound,
}

/// A gradient that may be used for anything: what follows is post-processing.
#[derive(Clone, Debug, PartialEq)]
pub struct PrivateGradient(Vec<f32>);

impl PrivateGradient {
    /// The noisy mean gradient.
    pub fn values(&self) -> &[f32] {
        &self.0
    }
}

impl GaussianMechanism {
    /// The mechanism of the manifest, for vectors of `parameters` numbers.
    ///
    /// # Errors
    /// When the grid cannot hold the noise or the vector.
    pub fn new(mechanism: &Mechanism, parameters: usize) -> Result<Self, MechanismError> {
        if parameters > MAX_PARAMETERS {
            let required = MAX_PARAMETERS;
            return Err(MechanismError::Parameters { observed: parameters, required });
        }
        let observed = mechanism.noise_multiplier.0;
        let noise = Scale::new(observed * widen(GRID)).ok_or(MechanismError::Noise { observed })?;
        let norm = mechanism.max_grad_norm.0;
        let share = real(parameters).sqrt() / (2.0 * widen(GRID));
        // 2^-40 pays for the roundings of the few double-precision operations per value.
        let adjusted = norm * (1.0 - share) * (1.0 - 9.1e-13);
        let expected_batch = f64::from(mechanism.expected_batch);
        Ok(Self { bound: Bound { norm, adjusted }, noise, expected_batch, parameters })
    }

    /// The empty sum.
    pub fn sum(&self) -> ClippedSum {
        ClippedSum { sum: Zeroizing::new(vec![0; self.parameters]), bound: self.bound }
    }

    /// Adds noise once and divides by the expected batch, a constant. An empty batch is noised
    /// like any other.
    ///
    /// Pays with `step`, consumes the sum, and uses the step's noise stream up.
    pub fn privatize(&self, step: Step, sum: ClippedSum, stream: NoiseStream) -> PrivateGradient {
        let _paid = step;
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        PrivateGradient(self.release(&sum, &stream, workers))
    }

    fn release(&self, sum: &ClippedSum, stream: &NoiseStream, workers: usize) -> Vec<f32> {
        let unit = sum.bound.norm / (widen(GRID) * self.expected_batch);
        let mut noisy = vec![0.0; sum.sum.len()];
        // Whole blocks for every worker.
        let share = noisy.len().div_ceil(workers.max(1)).next_multiple_of(BLOCK).max(BLOCK);
        thread::scope(|scope| {
            let shares = noisy.chunks_mut(share).zip(sum.sum.chunks(share));
            for (blocks, (noisy, sum)) in (0_u64..).step_by(share / BLOCK).zip(shares) {
                let mut work = move || self.add_noise(noisy, sum, unit, stream, blocks);
                if workers <= 1 {
                    work();
                } else {
                    scope.spawn(work);
                }
            }
        });
        noisy
    }

    /// Writes `(sum + noise) * unit`; the first value is that of block `first`.
    fn add_noise(
        &self,
        noisy: &mut [f32],
        sum: &[i64],
        unit: f64,
        stream: &NoiseStream,
        first: u64,
    ) {
        let blocks = noisy.chunks_mut(BLOCK).zip(sum.chunks(BLOCK));
        for (block, (noisy, sum)) in (first..).zip(blocks) {
            let mut stream = stream.block(block);
            for (noisy, sum) in noisy.iter_mut().zip(sum) {
                *noisy = narrow(widen(sum.saturating_add(self.noise.noise(&mut stream))) * unit);
            }
        }
    }
}

impl ClippedSum {
    /// Clips one unit's gradient and adds it. A gradient with a value that is not finite counts
    /// as zero: skipping the step instead would tell of it.
    pub fn add(&mut self, gradient: &[f32]) {
        let rounded = self.bound.round(gradient);
        for (sum, value) in self.sum.iter_mut().zip(rounded.iter()) {
            *sum = sum.saturating_add(*value);
        }
    }

    /// Adds what another worker summed.
    pub fn merge(&mut self, other: Self) {
        for (sum, value) in self.sum.iter_mut().zip(other.sum.iter()) {
            *sum = sum.saturating_add(*value);
        }
    }
}

impl Bound {
    /// The clipped gradient on the grid: `sum k^2 <= K^2`.
    fn round(self, gradient: &[f32]) -> Zeroizing<Vec<i64>> {
        let factor = self.factor(gradient);
        let to_grid = widen(GRID) / self.norm;
        let round = |value: &f32| nearest(f64::from(*value) * factor * to_grid);
        let rounded = Zeroizing::new(gradient.iter().map(round).collect::<Vec<_>>());
        let square = |value: &i64| u128::from(value.unsigned_abs()).pow(2);
        let total: u128 = rounded.iter().map(square).fold(0, u128::saturating_add);
        if total <= u128::from(GRID.unsigned_abs()).pow(2) {
            rounded
        } else {
            Zeroizing::new(vec![0; gradient.len()])
        }
    }

    /// `min(1, C' / norm)` with the norm rounded up; 0 where the norm is not finite.
    fn factor(self, gradient: &[f32]) -> f64 {
        let square = |value: &f32| f64::from(*value) * f64::from(*value); // exact
        let sum: f64 = gradient.iter().map(square).sum();
        // d additions and a root, each off by at most 2^-53 of its result.
        let norm = sum.sqrt() * (1.0 + (real(gradient.len()) + 8.0) * f64::EPSILON);
        if norm.is_finite() { (self.adjusted / norm).min(1.0) } else { 0.0 }
    }
}

#[cfg(test)]
impl ClippedSum {
    /// The sum before noise, in clipping norms. Exists in tests only.
    pub(crate) fn in_norms(&self) -> Vec<f64> {
        self.sum.iter().map(|sum| widen(*sum) / widen(GRID)).collect()
    }
}

#[cfg(test)]
impl PrivateGradient {
    /// In the place of a release. Exists in tests only.
    pub(crate) fn frozen(values: Vec<f32>) -> Self {
        Self(values)
    }
}

#[cfg(test)]
impl GaussianMechanism {
    /// For comparison with references that add no noise. Exists in tests only.
    pub(crate) fn without_noise(&self, sum: &ClippedSum) -> Vec<f32> {
        let unit = sum.bound.norm / (widen(GRID) * self.expected_batch);
        sum.sum.iter().map(|sum| narrow(widen(*sum) * unit)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden;
    use measurement::privacy::Ledger;
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    static_assertions::assert_not_impl_any!(ClippedSum: core::fmt::Debug, Clone, PartialEq);

    fn mechanism(clip: f64, sigma: f64, parameters: usize) -> GaussianMechanism {
        let terms = golden::mechanism(|terms| {
            terms.max_grad_norm.0 = clip;
            terms.noise_multiplier.0 = sigma;
            terms.expected_batch = 4;
        });
        GaussianMechanism::new(&terms, parameters).unwrap()
    }

    fn step() -> Step {
        Ledger::new(&golden::mechanism(|_| {})).spend().unwrap()
    }

    fn noise(seed: u8) -> NoiseStream {
        NoiseStream(ChaCha20Rng::from_seed([seed; 32]))
    }

    proptest! {
        #[test]
        fn nothing_on_the_grid_is_longer_than_the_bound(
            gradient in prop::collection::vec(prop::num::f32::ANY, 0..300),
            clip in prop::sample::select(vec![1e-3, 0.1, 1.0, 7.5, 1e4]),
        ) {
            let rounded = mechanism(clip, 1.0, gradient.len()).bound.round(&gradient);
            let total: u128 = rounded.iter().map(|k| u128::from(k.unsigned_abs()).pow(2)).sum();
            prop_assert!(total <= 1 << 48);
            prop_assert_eq!(rounded.len(), gradient.len());
        }

        #[test]
        fn clipping_keeps_the_direction_and_uses_the_norm(
            gradient in prop::collection::vec(-1e3_f32..1e3, 1..100),
        ) {
            let clip = 0.5;
            let rounded = mechanism(clip, 1.0, gradient.len()).bound.round(&gradient);
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let factor = (clip / norm).min(1.0);
            for (k, g) in rounded.iter().zip(&gradient) {
                let value = *k as f64 * clip / f64::from(1 << 24);
                prop_assert!((value - f64::from(*g) * factor).abs() < 1e-6 * clip);
            }
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_counts_as_zero() {
        let mechanism = mechanism(1.0, 1.0, 3);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut sum = mechanism.sum();
            sum.add(&[0.1, bad, 0.2]);
            assert_eq!(*sum.sum, [0, 0, 0]);
        }
    }

    #[test]
    fn an_empty_batch_is_noised() {
        let mechanism = mechanism(1.0, 1.0, 4);
        let noisy = mechanism.privatize(step(), mechanism.sum(), noise(1));
        assert!(noisy.values().iter().all(|value| *value != 0.0));
        assert_eq!(noisy, mechanism.privatize(step(), mechanism.sum(), noise(1)));
        assert_ne!(noisy, mechanism.privatize(step(), mechanism.sum(), noise(2)));
    }

    #[test]
    fn noise_has_the_deviation_of_the_bound_over_the_expected_batch() {
        let (clip, sigma, n) = (0.5, 2.0, 20_000);
        let mechanism = mechanism(clip, sigma, n);
        let mut sum = mechanism.sum();
        let mut gradient = vec![0.0; n];
        gradient[0] = 1.0;
        sum.add(&gradient);
        let noisy = mechanism.privatize(step(), sum, noise(3));
        let deviation =
            (noisy.values().iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64).sqrt();
        assert!((deviation / (sigma * clip / 4.0) - 1.0).abs() < 0.03, "{deviation}");
    }

    #[test]
    fn the_order_of_workers_changes_nothing() {
        let mechanism = mechanism(1.0, 1.0, 5);
        let gradients: Vec<Vec<f32>> = (0..7).map(|seed| golden::noise(seed, 5, 3.0)).collect();
        let forward = |order: &mut dyn Iterator<Item = &Vec<f32>>| {
            let mut total = mechanism.sum();
            for gradient in order {
                let mut part = mechanism.sum();
                part.add(gradient);
                total.merge(part);
            }
            total.sum.to_vec()
        };
        assert_eq!(forward(&mut gradients.iter()), forward(&mut gradients.iter().rev()));
    }

    #[test]
    fn the_number_of_threads_changes_no_bit_of_the_noise() {
        let parameters = 5 * BLOCK + 17;
        let mechanism = mechanism(1.0, 1.0, parameters);
        let mut sum = mechanism.sum();
        sum.add(&golden::noise(3, parameters, 1.0));
        let one = mechanism.release(&sum, &noise(1), 1);
        for workers in [2, 3, 6, 100] {
            assert_eq!(one, mechanism.release(&sum, &noise(1), workers), "{workers}");
        }
        assert!(
            mechanism
                .release(&ClippedSum { sum: Zeroizing::default(), ..sum }, &noise(1), 2)
                .is_empty()
        );
    }

    #[test]
    fn no_two_blocks_share_their_noise() {
        let mechanism = mechanism(1.0, 1.0, 3 * BLOCK);
        let noisy = mechanism.release(&mechanism.sum(), &noise(1), 2);
        let [a, b, c] = [0, 1, 2].map(|block| &noisy[block * BLOCK..][..BLOCK]);
        assert!(a != b && b != c && a != c);
    }

    #[test]
    fn refuses_what_the_grid_cannot_hold() {
        let terms = golden::mechanism(|terms| terms.noise_multiplier.0 = 1e9);
        assert_eq!(
            GaussianMechanism::new(&terms, 1).err(),
            Some(MechanismError::Noise { observed: 1e9 })
        );
        assert_eq!(
            GaussianMechanism::new(&golden::mechanism(|_| {}), MAX_PARAMETERS + 1).err(),
            Some(MechanismError::Parameters {
                observed: MAX_PARAMETERS + 1,
                required: MAX_PARAMETERS
            })
        );
    }
}
