//! The Gaussian mechanism on an integer grid.
//!
//! Units' gradients are bounded and rounded to the grid (`clipping`), and summed as integers: sums
//! do not depend on their order, and the noise of a coordinate depends on its place alone, so no
//! bit depends on the number of threads.
//!
//! Where the clipping norm follows a quantile, the count of units that were not clipped, each less
//! a half, is one coordinate more, with noise of its own deviation from a block of its own. Both
//! noises together are those of one Gaussian with σ ([`Mechanism::gradient_noise`]); the norm of the
//! next step is post-processing.

use super::clipping::{Bound, GRID};
use super::key::NoiseStream;
use super::noise::Scale;
use crate::real::{narrow, widen};
use core::num::NonZero;
use measurement::privacy::{Adaptive, Clipping, Mechanism, Step};
use std::thread;
use thiserror::Error;
use zeroize::Zeroizing;

/// Neighbouring coordinates whose noise comes from one stream.
const BLOCK: usize = 4096;

/// The block of noise that the count of clipped units gets; no coordinate's.
const COUNT: u64 = u64::MAX;

/// The norm that follows a quantile stays within this factor of where it began.
const MAX_DRIFT: f64 = 1_048_576.0;

/// Clips, sums and releases with noise, for a fixed number of parameters.
#[derive(Clone, Debug)]
pub struct GaussianMechanism {
    bound: Bound,
    start: f64, // C of the first step
    follows: Option<(Adaptive, Scale)>,
    multiplier: f64,
    noise: Scale,
    expected_batch: f64,
}

/// Why a mechanism cannot be run on a vector.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum MechanismError {
    /// The noise does not fit the grid.
    #[error("noise is {observed}, the grid holds 2^-24 to 2^26")]
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
    /// Units that were not clipped less units that were: twice the count that is released.
    unclipped: Zeroizing<i64>,
    bound: Bound,
}

/// A gradient that may be used for anything: what follows is post-processing.
#[derive(Clone, Debug, PartialEq)]
pub struct PrivateGradient {
    values: Vec<f32>,
    noise_variance: f64,
}

impl PrivateGradient {
    /// The noisy mean gradient.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The variance of the noise in each value: public, as the mechanism is.
    pub fn noise_variance(&self) -> f64 {
        self.noise_variance
    }
}

impl GaussianMechanism {
    /// The mechanism of the manifest, for vectors made of layers of these lengths.
    ///
    /// # Errors
    /// When the grid cannot hold the noise or the vector.
    pub fn new(mechanism: &Mechanism, layers: &[usize]) -> Result<Self, MechanismError> {
        let start = mechanism.max_grad_norm.0;
        let bound = Bound::new(&mechanism.clipping, start, layers);
        let (observed, required) = (bound.parameters(), MAX_PARAMETERS);
        if observed > required {
            return Err(MechanismError::Parameters { observed, required });
        }
        let scale = |observed: f64| {
            Scale::new(observed * widen(GRID)).ok_or(MechanismError::Noise { observed })
        };
        let multiplier = mechanism.gradient_noise();
        let noise = scale(multiplier)?;
        let follows = match mechanism.clipping {
            Clipping::Adaptive(adaptive) => Some((adaptive, scale(adaptive.noise.0)?)),
            Clipping::Flat | Clipping::Normalised { .. } | Clipping::PerLayer => None,
        };
        let expected_batch = f64::from(mechanism.expected_batch);
        Ok(Self { bound, start, follows, multiplier, noise, expected_batch })
    }

    /// The empty sum.
    pub fn sum(&self) -> ClippedSum {
        ClippedSum {
            sum: Zeroizing::new(vec![0; self.bound.parameters()]),
            unclipped: Zeroizing::new(0),
            bound: self.bound.clone(),
        }
    }

    /// The clipping norm of the next step.
    pub fn clipping_norm(&self) -> f64 {
        self.bound.norm
    }

    /// Adds noise once and divides by the expected batch, a constant. An empty batch is noised
    /// like any other.
    ///
    /// Pays with `step`, consumes the sum, and uses the step's noise stream up.
    pub fn privatize(
        &mut self,
        step: Step,
        sum: ClippedSum,
        stream: NoiseStream,
    ) -> PrivateGradient {
        let _paid = step;
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        let values = self.release(&sum, &stream, workers);
        let noise_variance = (self.multiplier * sum.bound.norm / self.expected_batch).powi(2);
        self.follow(*sum.unclipped, &stream);
        PrivateGradient { values, noise_variance }
    }

    /// Releases the count where the norm follows a quantile, and moves the norm.
    fn follow(&mut self, twice: i64, stream: &NoiseStream) {
        let Some((Adaptive { quantile, rate, .. }, scale)) = &self.follows else { return };
        let noise = scale.noise(&mut stream.block(COUNT));
        let count = widen(twice.saturating_mul(GRID / 2).saturating_add(noise)) / widen(GRID);
        let share = count / self.expected_batch + 0.5;
        let norm = self.bound.norm * libm::exp(-rate.0 * (share - quantile.0));
        self.bound.norm = norm.clamp(self.start / MAX_DRIFT, self.start * MAX_DRIFT);
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
        self.accumulate(gradient, 1);
    }

    /// Takes the time of [`ClippedSum::add`] for a slot that nobody fills.
    pub fn add_nobody(&mut self) {
        let blank = vec![0.0; self.sum.len()];
        self.accumulate(&blank, 0);
    }

    fn accumulate(&mut self, gradient: &[f32], units: i64) {
        let bounded = self.bound.round(gradient);
        for (sum, value) in self.sum.iter_mut().zip(bounded.values.iter()) {
            *sum = sum.saturating_add(value.saturating_mul(units));
        }
        *self.unclipped += if bounded.whole { units } else { -units };
    }

    /// Adds what another worker summed.
    pub fn merge(&mut self, other: Self) {
        for (sum, value) in self.sum.iter_mut().zip(other.sum.iter()) {
            *sum = sum.saturating_add(*value);
        }
        *self.unclipped += *other.unclipped;
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
        Self { values, noise_variance: 0.0 }
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
    use measurement::cbor::Real;
    use measurement::privacy::Ledger;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    static_assertions::assert_not_impl_any!(ClippedSum: core::fmt::Debug, Clone, PartialEq);

    fn mechanism(clip: f64, sigma: f64, parameters: usize) -> GaussianMechanism {
        let terms = golden::mechanism(|terms| {
            terms.max_grad_norm.0 = clip;
            terms.noise_multiplier.0 = sigma;
            terms.expected_batch = 4;
        });
        GaussianMechanism::new(&terms, &[parameters]).unwrap()
    }

    fn step() -> Step {
        Ledger::new(&golden::mechanism(|_| {})).spend().unwrap()
    }

    fn noise(seed: u8) -> NoiseStream {
        NoiseStream(ChaCha20Rng::from_seed([seed; 32]))
    }

    #[test]
    fn an_empty_batch_is_noised() {
        let mut mechanism = mechanism(1.0, 1.0, 4);
        let empty = || mechanism.sum();
        let [first, again, other] = [empty(), empty(), empty()];
        let noisy = mechanism.privatize(step(), first, noise(1));
        assert!(noisy.values().iter().all(|value| *value != 0.0));
        assert_eq!(noisy, mechanism.privatize(step(), again, noise(1)));
        assert_ne!(noisy, mechanism.privatize(step(), other, noise(2)));
    }

    #[test]
    fn noise_has_the_deviation_of_the_bound_over_the_expected_batch() {
        let (clip, sigma, n) = (0.5, 2.0, 20_000);
        let mut mechanism = mechanism(clip, sigma, n);
        let mut sum = mechanism.sum();
        let mut gradient = vec![0.0; n];
        gradient[0] = 1.0;
        sum.add(&gradient);
        let noisy = mechanism.privatize(step(), sum, noise(3));
        let deviation =
            (noisy.values().iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64).sqrt();
        assert!((deviation / (sigma * clip / 4.0) - 1.0).abs() < 0.03, "{deviation}");
        assert!((noisy.noise_variance() - (sigma * clip / 4.0).powi(2)).abs() < 1e-12);
    }

    /// The release of nothing, over all threads, as it is in training.
    #[test]
    fn ten_million_draws_fill_the_cells_of_the_normal() {
        const CELLS: usize = 256; // from -4 to 4, and one for each tail
        let n = 10_000_000;
        let mechanism = mechanism(1.0, 1.0, n);
        let noisy = mechanism.release(&mechanism.sum(), &noise(9), 4);
        let mut counts = vec![0_u32; CELLS + 2];
        let (mut squares, mut neighbours, mut last) = (0.0, 0.0, 0.0);
        for value in &noisy {
            let z = f64::from(*value) * 4.0; // over the expected batch
            let cell = (z + 4.0) / 8.0 * CELLS as f64;
            counts[(cell.floor() + 1.0).clamp(0.0, CELLS as f64 + 1.0) as usize] += 1;
            squares += z * z;
            neighbours += z * last;
            last = z;
        }
        let below = |z: f64| 0.5 * libm::erfc(-z / 2.0_f64.sqrt());
        let edge = |cell: usize| match cell {
            0 => 0.0,
            cell if cell > CELLS + 1 => 1.0,
            cell => below(8.0 * (cell - 1) as f64 / CELLS as f64 - 4.0),
        };
        let distance: f64 = (0..CELLS + 2)
            .map(|cell| {
                let expected = (edge(cell + 1) - edge(cell)) * n as f64;
                (f64::from(counts[cell]) - expected).powi(2) / expected
            })
            .sum();
        // Chi-squared with 257 degrees of freedom: mean 257, deviation 22.7.
        assert!((257.0 - 6.0 * 22.7..257.0 + 6.0 * 22.7).contains(&distance), "{distance}");
        let root = (n as f64).sqrt();
        assert!((squares / n as f64 - 1.0).abs() < 6.0 * 2.0_f64.sqrt() / root, "{squares}");
        assert!(neighbours.abs() < 6.0 * root, "{neighbours}");
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

    fn adaptive(noise: f64, rate: f64) -> (Mechanism, GaussianMechanism) {
        let terms = golden::mechanism(|terms| {
            terms.noise_multiplier.0 = 0.8;
            terms.expected_batch = 100;
            terms.physical_batch = 200;
            terms.clipping = Clipping::Adaptive(Adaptive {
                noise: Real(noise),
                quantile: Real(0.5),
                rate: Real(rate),
            });
        });
        let mechanism = GaussianMechanism::new(&terms, &[3000]).unwrap();
        (terms, mechanism)
    }

    #[test]
    fn the_norm_follows_the_quantile_and_the_sum_with_it() {
        let (_, mut mechanism) = adaptive(5.0, 0.2);
        let mut unit = vec![0.0; 3000];
        for round in 0..60_u8 {
            let mut sum = mechanism.sum();
            for length in 1..=100_u8 {
                unit[0] = 0.05 * f32::from(length);
                sum.add(&unit);
            }
            mechanism.privatize(step(), sum, noise(round));
        }
        // Half of the norms, 0.05 to 5, are below 2.5.
        let norm = mechanism.clipping_norm();
        assert!((norm - 2.5).abs() < 0.4, "{norm}");
        assert_eq!(mechanism.sum().bound.norm, norm);
    }

    #[test]
    fn the_count_and_the_gradient_share_one_gaussian() {
        let (terms, mut mechanism) = adaptive(2.0, 1.0);
        // The gradient's noise, in clipping norms.
        let (mut squares, mut counts) = (0.0, 0.0);
        for round in 0..200_u8 {
            mechanism.bound.norm = 1.0;
            let noisy = mechanism.privatize(step(), mechanism.sum(), noise(round));
            squares += noisy.values().iter().map(|v| f64::from(*v * 100.0).powi(2)).sum::<f64>();
            counts += (mechanism.clipping_norm().ln() * 100.0).powi(2);
        }
        let gradient = squares / (200.0 * 3000.0);
        assert!((gradient / terms.gradient_noise().powi(2) - 1.0).abs() < 0.01, "{gradient}");
        assert!((counts / 200.0 / 4.0 - 1.0).abs() < 0.5, "{counts}");
        let exact = 1.0 / terms.gradient_noise().powi(2) + 1.0 / 16.0;
        assert!((exact - 1.0 / 0.64).abs() < 1e-9);
    }

    #[test]
    fn a_slot_that_nobody_fills_moves_neither_sum_nor_count() {
        let (_, mechanism) = adaptive(5.0, 0.2);
        let mut sum = mechanism.sum();
        sum.add_nobody();
        assert_eq!((*sum.unclipped, sum.sum.iter().all(|value| *value == 0)), (0, true));
        sum.add(&[0.0; 3000]);
        sum.add(&[1.0; 3000]);
        sum.add(&[f32::NAN; 3000]);
        assert_eq!(*sum.unclipped, -1);
    }

    #[test]
    fn refuses_what_the_grid_cannot_hold() {
        let terms = golden::mechanism(|terms| terms.noise_multiplier.0 = 1e9);
        assert_eq!(
            GaussianMechanism::new(&terms, &[1]).err(),
            Some(MechanismError::Noise { observed: 1e9 })
        );
        assert_eq!(
            GaussianMechanism::new(&golden::mechanism(|_| {}), &[MAX_PARAMETERS, 1]).err(),
            Some(MechanismError::Parameters {
                observed: MAX_PARAMETERS + 1,
                required: MAX_PARAMETERS
            })
        );
    }
}
