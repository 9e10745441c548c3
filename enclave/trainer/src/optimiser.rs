//! Optimisers and learning-rate schedules.
//!
//! They see private gradients only; all they do is post-processing.
//!
//! | | update of value w with noisy gradient g at rate r |
//! |---|---|
//! | AdamW | `w (1 - r d) - r m' / (sqrt(v') + ε)`, m', v' the moments without their bias to zero |
//! | DP-AdamW | `w (1 - r d) - r m' / sqrt(max(v' - (σ C / B̄)², γ'))` |
//! | SGD | `w (1 - r d) - r u`, `u = μ u + g` |

use crate::real::narrow;
use core::f64::consts::PI;
use measurement::manifest::{self, AdamW, Schedule, Sgd, Shape};

/// An optimiser over one flat vector, in PyTorch's order of operations.
#[derive(Clone, Debug)]
pub struct Optimiser {
    settings: manifest::Optimiser,
    first: Vec<f32>,
    second: Vec<f32>,
    updates: u32,
}

impl Optimiser {
    /// All moments zero, for `parameters` numbers.
    pub fn new(settings: manifest::Optimiser, parameters: usize) -> Self {
        let second = match settings {
            manifest::Optimiser::Adamw(_) | manifest::Optimiser::DpAdamw { .. } => parameters,
            manifest::Optimiser::Sgd(_) => 0,
        };
        let (first, second) = (vec![0.0; parameters], vec![0.0; second]);
        Self { settings, first, second, updates: 0 }
    }

    /// The first moment, or the last update.
    pub fn first(&self) -> &[f32] {
        &self.first
    }

    /// The second moment; empty where there is none.
    pub fn second(&self) -> &[f32] {
        &self.second
    }

    /// One update with the given learning rate, by a gradient that holds noise of this variance.
    pub fn update(&mut self, values: &mut [f32], gradient: &[f32], noise_variance: f64, rate: f64) {
        self.updates = self.updates.saturating_add(1);
        match self.settings {
            manifest::Optimiser::Adamw(adamw) => {
                let root = narrow(self.unbiased(adamw.beta2.0).sqrt());
                let epsilon = narrow(adamw.epsilon.0);
                self.adam(adamw, values, gradient, rate, |v| v.sqrt() / root + epsilon);
            }
            manifest::Optimiser::DpAdamw { adamw, floor } => {
                let unbiased = self.unbiased(adamw.beta2.0);
                self.adam(adamw, values, gradient, rate, |v| {
                    narrow((f64::from(v) / unbiased - noise_variance).max(floor.0).sqrt())
                });
            }
            manifest::Optimiser::Sgd(sgd) => self.sgd(sgd, values, gradient, rate),
        }
    }

    /// `1 - beta^updates`: what a moment that began at zero has of its mean.
    fn unbiased(&self, beta: f64) -> f64 {
        1.0 - libm::pow(beta, f64::from(self.updates))
    }

    fn adam(
        &mut self,
        settings: AdamW,
        values: &mut [f32],
        gradient: &[f32],
        rate: f64,
        scale: impl Fn(f32) -> f32,
    ) {
        let keep = narrow(1.0 - rate * settings.weight_decay.0);
        let step = narrow(rate / self.unbiased(settings.beta1.0));
        let (beta1, beta2) = (narrow(settings.beta1.0), narrow(settings.beta2.0));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for (((first, second), value), g) in moments.zip(values).zip(gradient) {
            *first = beta1 * *first + (1.0 - beta1) * g;
            *second = beta2 * *second + (1.0 - beta2) * g * g;
            *value = *value * keep - step * *first / scale(*second);
        }
    }

    fn sgd(&mut self, settings: Sgd, values: &mut [f32], gradient: &[f32], rate: f64) {
        let keep = narrow(1.0 - rate * settings.weight_decay.0);
        let (momentum, rate) = (narrow(settings.momentum.0), narrow(rate));
        for ((update, value), g) in self.first.iter_mut().zip(values).zip(gradient) {
            *update = momentum * *update + g;
            *value = *value * keep - rate * *update;
        }
    }
}

/// The learning rate of step `step` of `steps`, from 0.
///
/// Warm-up rises linearly and gives no step away: its first step has one part in `warmup + 1` of
/// the peak. After it the rate stays, or falls towards zero, which it would reach at `steps`.
pub fn learning_rate(schedule: &Schedule, peak: f64, step: u32, steps: u32) -> f64 {
    let Schedule { shape, warmup } = *schedule;
    if step < warmup {
        return peak * f64::from(step + 1) / (f64::from(warmup) + 1.0);
    }
    let left = f64::from(steps.saturating_sub(step));
    let length = f64::from(steps.saturating_sub(warmup).max(1));
    let done = (f64::from(step - warmup) / length).min(1.0);
    peak * match shape {
        Shape::Constant => 1.0,
        Shape::Cosine => 0.5 * (1.0 + libm::cos(PI * done)),
        Shape::Linear => 1.0 - done,
        Shape::Wsd { decay } => (left / (f64::from(decay) + 1.0)).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use measurement::cbor::Real;

    fn rates(shape: Shape, warmup: u32) -> Vec<f64> {
        (0..8).map(|t| learning_rate(&Schedule { shape, warmup }, 2.0, t, 8)).collect()
    }

    fn adamw() -> AdamW {
        AdamW {
            beta1: Real(0.9),
            beta2: Real(0.999),
            epsilon: Real(1e-8),
            learning_rate: Real(0.01),
            weight_decay: Real(0.1),
        }
    }

    /// Ten updates of one value by a loop in double precision beside ours.
    fn beside(
        settings: manifest::Optimiser,
        noise_variance: f64,
        mut reference: impl FnMut(f64, f64, i32) -> f64,
    ) {
        let mut optimiser = Optimiser::new(settings, 1);
        let (mut value, mut expected) = ([0.5_f32], 0.5);
        for (t, g) in (1..).zip(golden::noise(4, 10, 1.0)) {
            optimiser.update(&mut value, &[g], noise_variance, 0.01);
            expected = reference(expected, f64::from(g), t);
            assert!((f64::from(value[0]) - expected).abs() < 1e-5, "{t}: {value:?} {expected}");
        }
    }

    #[test]
    fn adamw_is_the_published_algorithm() {
        let (mut m, mut v) = (0.0, 0.0);
        beside(manifest::Optimiser::Adamw(adamw()), 0.04, |w, g, t| {
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m, v) = (m / (1.0 - 0.9_f64.powi(t)), v / (1.0 - 0.999_f64.powi(t)));
            w - 0.01 * 0.1 * w - 0.01 * m / (v.sqrt() + 1e-8)
        });
    }

    #[test]
    fn dp_adamw_takes_the_noise_out_of_the_second_moment() {
        let settings = manifest::Optimiser::DpAdamw { adamw: adamw(), floor: Real(1e-3) };
        let (mut m, mut v) = (0.0, 0.0);
        let mut floored = 0;
        beside(settings, 0.3, |w, g, t| {
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m, v) = (m / (1.0 - 0.9_f64.powi(t)), v / (1.0 - 0.999_f64.powi(t)));
            floored += u32::from(v - 0.3 < 1e-3);
            w - 0.01 * 0.1 * w - 0.01 * m / (v - 0.3).max(1e-3).sqrt()
        });
        assert!((1..10).contains(&floored), "both sides of the floor are tried: {floored}");
    }

    #[test]
    fn sgd_keeps_its_momentum_and_no_second_moment() {
        let settings =
            Sgd { learning_rate: Real(0.01), momentum: Real(0.9), weight_decay: Real(0.1) };
        let mut u = 0.0;
        beside(manifest::Optimiser::Sgd(settings), 0.0, |w, g, _| {
            u = 0.9 * u + g;
            w - 0.01 * 0.1 * w - 0.01 * u
        });
        let sgd = Optimiser::new(manifest::Optimiser::Sgd(settings), 3);
        assert_eq!((sgd.first().len(), sgd.second().len()), (3, 0));
    }

    #[test]
    fn schedules_have_their_shapes() {
        assert_eq!(rates(Shape::Constant, 0), [2.0; 8]);
        assert_eq!(rates(Shape::Constant, 3), [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(rates(Shape::Linear, 0), [2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25]);
        let wsd = Shape::Wsd { decay: 3 };
        assert_eq!(rates(wsd, 1), [1.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5]);
        let cosine = rates(Shape::Cosine, 0);
        assert_eq!(cosine[0], 2.0);
        assert!((cosine[4] - 1.0).abs() < 1e-12);
        assert!(cosine.windows(2).all(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn no_schedule_has_a_step_without_a_rate() {
        for shape in [Shape::Constant, Shape::Cosine, Shape::Linear, Shape::Wsd { decay: 8 }] {
            for warmup in [0, 3, 8, 100] {
                let rates = rates(shape, warmup);
                assert!(rates.iter().all(|rate| *rate > 0.0 && *rate <= 2.0), "{rates:?}");
            }
        }
    }
}
