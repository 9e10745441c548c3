//! Gradients on the integer grid, of bounded norm.
//!
//! With C the clipping norm, K = 2^24 grid steps per C and d parameters, a gradient is scaled to at
//! most `C' = C - C sqrt(d) / 2K` and rounded to the grid; rounding moves it by at most `sqrt(d) / 2`
//! grid steps, so its norm on the grid is at most K. By layers, each of the L parts of d_l
//! parameters is scaled to at most `C / sqrt(L) - C sqrt(d_l) / 2K`, and the squares add up to the
//! same. The invariant is checked in integers for every unit; a vector that broke it would count as
//! zero.

use crate::real::{nearest, real, widen};
use measurement::privacy::Clipping;
use zeroize::Zeroizing;

/// K: grid steps per clipping norm.
pub(super) const GRID: i64 = 1 << 24;

/// Pays for the roundings of the few double-precision operations per value: 2^-40.
const ROUNDINGS: f64 = 9.1e-13;

/// What a unit's gradient is bounded by; travels with the sum.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    /// C.
    pub(super) norm: f64,
    /// γ of normalised gradients; infinite norms stay shorter, others are scaled to C alone.
    gamma: Option<f64>,
    /// Lengths of the parts that are scaled by themselves.
    parts: Vec<usize>,
}

/// A gradient on the grid, and whether it is as long as it was.
pub(super) struct Bounded {
    pub(super) values: Zeroizing<Vec<i64>>,
    pub(super) whole: bool,
}

impl Bound {
    /// The bound of a rule at norm `norm`, over layers of these lengths.
    pub(super) fn new(rule: &Clipping, norm: f64, layers: &[usize]) -> Self {
        let (gamma, by_layer) = match rule {
            Clipping::Flat | Clipping::Adaptive(_) => (None, false),
            Clipping::Normalised { gamma } => (Some(gamma.0), false),
            Clipping::PerLayer => (None, true),
        };
        let parts = if by_layer { layers.to_vec() } else { vec![layers.iter().sum()] };
        Self { norm, gamma, parts }
    }

    pub(super) fn parameters(&self) -> usize {
        self.parts.iter().sum()
    }

    /// The bounded gradient on the grid: `sum k^2 <= K^2`. One with a value that is not finite
    /// counts as zero.
    pub(super) fn round(&self, gradient: &[f32]) -> Bounded {
        let to_grid = widen(GRID) / self.norm;
        let mut values = Zeroizing::new(Vec::with_capacity(gradient.len()));
        let (mut rest, mut finite, mut whole) = (gradient, true, true);
        for length in &self.parts {
            let (part, after) = rest.split_at_checked(*length).unwrap_or((rest, &[]));
            rest = after;
            let factor = self.factor(part);
            finite &= factor.is_some();
            whole &= factor == Some(1.0);
            let scale = factor.unwrap_or(0.0) * to_grid;
            values.extend(part.iter().map(|value| nearest(f64::from(*value) * scale)));
        }
        let square = |value: &i64| u128::from(value.unsigned_abs()).pow(2);
        let total: u128 = values.iter().map(square).fold(0, u128::saturating_add);
        if !finite || total > u128::from(GRID.unsigned_abs()).pow(2) {
            values.fill(0);
        }
        Bounded { values, whole }
    }

    /// By how much a part is scaled; `None` where its norm, rounded up, is not finite.
    fn factor(&self, part: &[f32]) -> Option<f64> {
        let square = |value: &f32| f64::from(*value) * f64::from(*value); // exact
        let sum: f64 = part.iter().map(square).sum();
        // d additions and a root, each off by at most 2^-53 of its result.
        let norm = sum.sqrt() * (1.0 + (real(part.len()) + 8.0) * f64::EPSILON);
        let parts = real(self.parts.len());
        let share = 1.0 / parts.sqrt() - real(part.len()).sqrt() / (2.0 * widen(GRID));
        let most = self.norm * share.max(0.0) * (1.0 - ROUNDINGS);
        norm.is_finite().then(|| match self.gamma {
            Some(gamma) => most / (norm + gamma),
            None => (most / norm).min(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden;
    use measurement::cbor::Real;
    use proptest::prelude::*;

    const NORMALISED: Clipping = Clipping::Normalised { gamma: Real(0.01) };

    fn values(rule: Clipping, clip: f64, layers: &[usize], gradient: &[f32]) -> Vec<f64> {
        let bounded = Bound::new(&rule, clip, layers).round(gradient);
        bounded.values.iter().map(|k| *k as f64 * clip / GRID as f64).collect()
    }

    fn norm(values: &[f64]) -> f64 {
        values.iter().map(|value| value * value).sum::<f64>().sqrt()
    }

    proptest! {
        #[test]
        fn nothing_on_the_grid_is_longer_than_the_bound(
            gradient in prop::collection::vec(prop::num::f32::ANY, 0..300),
            clip in prop::sample::select(vec![1e-3, 0.1, 1.0, 7.5, 1e4]),
            rule in prop::sample::select(vec![Clipping::Flat, Clipping::PerLayer, NORMALISED]),
            layers in 1_usize..9,
        ) {
            let whole = gradient.len();
            let mut lengths = vec![whole / layers; layers];
            lengths[0] += whole % layers;
            let bounded = Bound::new(&rule, clip, &lengths).round(&gradient);
            let square = |k: &i64| u128::from(k.unsigned_abs()).pow(2);
            prop_assert!(bounded.values.iter().map(square).sum::<u128>() <= 1 << 48);
            prop_assert_eq!(bounded.values.len(), gradient.len());
        }

        #[test]
        fn clipping_keeps_the_direction_and_uses_the_norm(
            gradient in prop::collection::vec(-1e3_f32..1e3, 1..100),
        ) {
            let clip = 0.5;
            let reals: Vec<f64> = gradient.iter().map(|g| f64::from(*g)).collect();
            let factor = (clip / norm(&reals)).min(1.0);
            for (value, g) in values(Clipping::Flat, clip, &[gradient.len()], &gradient).iter().zip(&reals) {
                prop_assert!((value - g * factor).abs() < 1e-6 * clip);
            }
        }
    }

    #[test]
    fn short_gradients_stay_as_they_are_and_long_ones_do_not() {
        let bound = Bound::new(&Clipping::Flat, 1.0, &[2]);
        assert!(bound.round(&[0.3, 0.4]).whole);
        assert!(!bound.round(&[3.0, 4.0]).whole);
        assert!(bound.round(&[0.0, 0.0]).whole);
        assert!(!bound.round(&[f32::NAN, 0.0]).whole);
    }

    #[test]
    fn every_layer_is_clipped_by_itself() {
        let found = values(Clipping::PerLayer, 1.0, &[1, 2, 1], &[9.0, 0.3, 0.4, -0.2]);
        let part = 1.0 / 3.0_f64.sqrt();
        let expected = [part, 0.3, 0.4, -0.2];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        let long = golden::noise(1, 90, 50.0);
        assert!((norm(&values(Clipping::PerLayer, 2.0, &[30; 3], &long)) - 2.0).abs() < 1e-5);
    }

    #[test]
    fn normalised_gradients_have_nearly_one_norm() {
        for length in [0.1_f32, 1.0, 1e3] {
            let found = values(NORMALISED, 1.0, &[2], &[0.6 * length, 0.8 * length]);
            let expected = f64::from(length) / (f64::from(length) + 0.01);
            assert!((norm(&found) - expected).abs() < 1e-6, "{found:?}");
        }
        assert_eq!(values(NORMALISED, 1.0, &[2], &[0.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn a_gradient_that_is_not_finite_counts_as_zero() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for rule in [Clipping::Flat, Clipping::PerLayer, NORMALISED] {
                assert_eq!(values(rule, 1.0, &[1, 2], &[0.1, bad, 0.2]), [0.0; 3]);
            }
        }
    }
}
