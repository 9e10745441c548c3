//! A third opinion: privacy random variables as in Gopi, Lee, Wutschitz 2021 (arXiv 2106.02848).
//!
//! Nothing is shared with the certified bounds but the pair's formulas and the transform: masses are
//! differences of distribution functions, rounded to the nearest point of the grid, shifted so that
//! the mean is right, and composed without a tilt. Theorem 5.5 there bounds the error: with a spacing
//! of `h = e / sqrt(T ln(12 / d) / 2)` on `[-L, L]`, delta at epsilon lies between the estimates' at
//! `epsilon + e` less d and at `epsilon - e` plus d. Rounding errors are not looked at, so a delta
//! below 1e-10 gets no answer.

use alloc::vec::Vec;

use super::fft::{Complex, Transform, for_mirrored};
use super::float::{floor, real, signed};
use super::saddle::Run;

/// Error in delta that is allowed for, as a part of delta.
const DELTA_ERROR: f64 = 1e-3;
/// The least delta that doubles can resolve without a tilt.
const LEAST_DELTA: f64 = 1e-10;
/// Intervals of the mean's integral.
const POINTS: u32 = 8192;
/// Largest transform.
const MAX_LOG_POINTS: u32 = 20;

/// Bounds and their middle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// By the theorem, not below 0.
    pub lower: f64,
    /// What the discretised variables give.
    pub middle: f64,
    /// By the theorem.
    pub upper: f64,
}

/// Epsilon at `delta` from one side, with an error of `error`, on losses up to `reach`; `None` where
/// the numbers do not fit.
pub(super) fn estimate(runs: &[Run], delta: f64, error: f64, reach: f64) -> Option<Estimate> {
    if delta < LEAST_DELTA {
        return None;
    }
    let slack = DELTA_ERROR * delta;
    let steps: f64 = runs.iter().map(|run| real(run.steps)).sum();
    let spacing = error / libm::sqrt(steps / 2.0 * libm::log(12.0 / slack));
    let log_points =
        (8..=MAX_LOG_POINTS).find(|log| libm::exp2(f64::from(*log)) * spacing >= 2.0 * reach)?;
    let (masses, shift) = compose(runs, spacing, log_points)?;
    let at = |delta: f64| crossing(&masses, spacing, shift, delta);
    Some(Estimate {
        lower: (at(delta + slack) - error).max(0.0),
        middle: at(delta),
        upper: at(delta - slack) + error,
    })
}

/// Masses of the sum from the lowest point to the highest, and what their losses are to be shifted by.
fn compose(runs: &[Run], spacing: f64, log_points: u32) -> Option<(Vec<f64>, f64)> {
    let length = 1_usize.checked_shl(log_points)?;
    let half = libm::exp2(f64::from(log_points) - 1.0);
    let transform = Transform::new(log_points);
    let mut product = alloc::vec![Complex::ONE; length];
    let mut shift = 0.0;
    for run in runs {
        let (mut data, mean, cells) = step(run, spacing, half, length)?;
        shift += real(run.steps) * (mean - cells);
        transform.forward(&mut data);
        for_mirrored(&mut product, &mut data, |(value, base), other| {
            *value = *value * base.power(run.steps);
            if let Some((value, base)) = other {
                *value = *value * base.power(run.steps);
            }
        });
    }
    transform.inverse(&mut product);
    let scale = 1.0 / (2.0 * half);
    // Index 0 comes first and negative ones last.
    let (positive, negative) = product.split_at_checked(length / 2)?;
    let masses = negative.iter().chain(positive).map(|value| (value.re * scale).max(0.0));
    Some((masses.collect(), shift))
}

/// Masses of a step's cells around the points of the grid, the step's mean and theirs.
fn step(run: &Run, spacing: f64, half: f64, length: usize) -> Option<(Vec<Complex>, f64, f64)> {
    let mut data = alloc::vec![Complex::default(); length];
    let modulus = i64::try_from(length).ok()?;
    let end = (half - 0.5) * spacing;
    let (from, to) = (run.pair.point(-end), run.pair.point(end));
    let range = run.pair.lower_end(1e-18)..run.pair.upper_end(1e-18);
    let (from, to) = (from.max(range.start), to.min(range.end));
    let (mut x, mut index) = (from, floor(run.pair.loss(from) / spacing + 0.5));
    let (mut total, mut cells) = (0.0, 0.0);
    while x < to {
        let loss = signed(index) * spacing;
        let next = run.pair.point(loss + spacing / 2.0).clamp(x, to);
        let mass = run.pair.between(x, next);
        let slot = data.get_mut(usize::try_from(index.rem_euclid(modulus)).ok()?)?;
        slot.re += mass;
        total += mass;
        cells += mass * loss;
        (x, index) = (next, index.checked_add(1)?);
    }
    for value in &mut data {
        *value = value.scale(1.0 / total);
    }
    Some((data, mean(run, from, to), cells / total))
}

/// The mean of the loss between two points, by the trapezoid rule, which hardly errs on Gaussians.
fn mean(run: &Run, from: f64, to: f64) -> f64 {
    let width = (to - from) / f64::from(POINTS);
    let points = (0..=POINTS).map(|i| from + width * f64::from(i));
    let sum = |(mass, losses): (f64, f64), x: f64| {
        let density = run.pair.density(x);
        (mass + density, losses + density * run.pair.loss(x))
    };
    let (mass, losses) = points.fold((0.0, 0.0), sum);
    losses / mass
}

/// The least epsilon >= 0 at which delta is met.
fn crossing(masses: &[f64], spacing: f64, shift: f64, delta: f64) -> f64 {
    let shrink = -libm::expm1(-spacing);
    let (mut sum, mut weight) = (0.0, 0.0);
    let last = signed(i64::try_from(masses.len() / 2).unwrap_or(i64::MAX)) - 1.0;
    let mut loss = last * spacing + shift;
    for mass in masses.iter().rev() {
        let below: f64 = sum + shrink * weight;
        if below > delta {
            let part: f64 = ((delta - sum) / weight).clamp(0.0, shrink);
            return (loss + spacing + libm::log1p(-part)).max(0.0);
        }
        if loss <= 0.0 {
            return 0.0;
        }
        (sum, weight) = (below, mass + (1.0 - shrink) * weight);
        loss -= spacing;
    }
    0.0
}
