//! AdamW with decoupled weight decay and bias correction, and learning-rate schedules.
//!
//! It sees private gradients only; all it does is post-processing.

use crate::real::narrow;
use core::f64::consts::PI;
use measurement::manifest::{self, Schedule, Shape};

/// AdamW (Loshchilov and Hutter 2017) over one flat vector, in PyTorch's order of operations.
#[derive(Clone, Debug)]
pub struct AdamW {
    settings: manifest::AdamW,
    first: Vec<f32>,
    second: Vec<f32>,
    updates: u32,
}

impl AdamW {
    /// Both moments zero, for `parameters` numbers.
    pub fn new(settings: manifest::AdamW, parameters: usize) -> Self {
        Self { settings, first: vec![0.0; parameters], second: vec![0.0; parameters], updates: 0 }
    }

    /// The first moment.
    pub fn first(&self) -> &[f32] {
        &self.first
    }

    /// The second moment.
    pub fn second(&self) -> &[f32] {
        &self.second
    }

    /// One update with the given learning rate.
    pub fn update(&mut self, values: &mut [f32], gradient: &[f32], rate: f64) {
        self.updates = self.updates.saturating_add(1);
        let manifest::AdamW { beta1, beta2, epsilon, weight_decay, .. } = self.settings;
        let updates = f64::from(self.updates);
        let keep = narrow(1.0 - rate * weight_decay.0);
        let step = narrow(rate / (1.0 - libm::pow(beta1.0, updates)));
        let root = narrow((1.0 - libm::pow(beta2.0, updates)).sqrt());
        let (beta1, beta2, epsilon) = (narrow(beta1.0), narrow(beta2.0), narrow(epsilon.0));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for (((first, second), value), g) in moments.zip(values).zip(gradient) {
            *first = beta1 * *first + (1.0 - beta1) * g;
            *second = beta2 * *second + (1.0 - beta2) * g * g;
            *value = *value * keep - step * *first / (second.sqrt() / root + epsilon);
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
    let length = f64::from(steps.saturating_sub(warmup).max(1));
    let done = (f64::from(step - warmup) / length).min(1.0);
    peak * match shape {
        Shape::Constant => 1.0,
        Shape::Cosine => 0.5 * (1.0 + libm::cos(PI * done)),
        Shape::Linear => 1.0 - done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(shape: Shape, warmup: u32) -> Vec<f64> {
        (0..8).map(|t| learning_rate(&Schedule { shape, warmup }, 2.0, t, 8)).collect()
    }

    #[test]
    fn schedules_have_their_shapes() {
        assert_eq!(rates(Shape::Constant, 0), [2.0; 8]);
        assert_eq!(rates(Shape::Constant, 3), [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(rates(Shape::Linear, 0), [2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25]);
        let cosine = rates(Shape::Cosine, 0);
        assert_eq!(cosine[0], 2.0);
        assert!((cosine[4] - 1.0).abs() < 1e-12);
        assert!(cosine.windows(2).all(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn survives_a_warmup_longer_than_training() {
        assert!(rates(Shape::Linear, 100).iter().all(|rate| *rate > 0.0 && *rate < 2.0));
    }
}
