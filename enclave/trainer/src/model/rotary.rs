//! Rotary position embedding: which columns turn, how fast, and how the speeds are stretched for
//! longer contexts.

use crate::real::{narrow, real, single};
use core::f64::consts::PI;

/// Rotary position embedding of one block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rotary {
    /// Base of the geometric series of wavelengths.
    pub(crate) theta: f64,
    /// How many of a head's columns turn: the first ones; even.
    pub(crate) width: usize,
    pub(crate) pairing: Pairing,
    pub(crate) scaling: Scaling,
}

/// Which two columns turn together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pairing {
    /// Column i with column `i + width / 2`.
    Halves,
    /// Each even column with the next (GPT-J).
    Neighbours,
}

/// How rotary frequencies are stretched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scaling {
    /// As they are.
    Default,
    /// All frequencies divided by a factor.
    Linear(f64),
    /// Llama 3: long wavelengths stretched, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of the lowest frequencies.
        factor: f64,
        /// Where the ramp ends, in turns over the original context.
        low: f64,
        /// Where the ramp begins, in turns over the original context.
        high: f64,
        /// Context length before stretching.
        original: f64,
    },
}

impl Rotary {
    /// Cosines and sines of the angles, each `positions` rows of `width / 2`.
    ///
    /// Frequencies and angles are rounded to single precision as transformers rounds them; the
    /// functions are libm's, so that every machine gets the same bits.
    pub(crate) fn angles(&self, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies: Vec<f32> = (0..self.width / 2).map(|i| self.frequency(i)).collect();
        let angles = (0..positions)
            .flat_map(|position| frequencies.iter().map(move |f| f64::from(single(position) * f)));
        angles.map(|angle| (narrow(libm::cos(angle)), narrow(libm::sin(angle)))).unzip()
    }

    fn frequency(&self, pair: usize) -> f32 {
        let plain = libm::pow(self.theta, -2.0 * real(pair) / real(self.width));
        narrow(match self.scaling {
            Scaling::Default => plain,
            Scaling::Linear(factor) => plain / factor,
            Scaling::Llama3 { factor, low, high, original } => {
                let turns = original * plain / (2.0 * PI);
                let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - keep) * plain / factor + keep * plain
            }
        })
    }
}
