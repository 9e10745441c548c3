//! A frozen matrix as the engine holds it, and an activation as products read it.

use super::super::kernel::{Brain, Kernel, Left, Target, View, rounded, widen};
use super::{EngineError, Lender};
use crate::model::{Lent, Weight};

/// A frozen matrix, `(rows, width)`.
pub(super) struct Matrix<'m> {
    values: Values<'m>,
    width: usize,
}

enum Values<'m> {
    Brain(Brain<'m>),
    Single(Lent<'m>),
}

impl<'m> Matrix<'m> {
    pub(super) fn new(weights: &Lender<'m>, name: &str, width: usize) -> Result<Self, EngineError> {
        let values = match weights.weight(name)? {
            Weight::Brain { pairs, .. } => Values::Brain(Brain::new(pairs, width)),
            Weight::Single(tensor) => {
                Values::Single(Lent::new(tensor).ok_or(EngineError::Weights)?)
            }
        };
        Ok(Self { values, width })
    }

    /// `c += x selfᵀ`
    pub(super) fn forward(&self, x: &Activation, c: Target<'_>) {
        match (&self.values, &x.rounded) {
            (Values::Single(lent), _) => {
                x.exact.times(1.0, View::new(lent.values(), self.width).turned(), c);
            }
            (Values::Brain(brain), None) => x.exact.times(1.0, brain.turned(), c),
            (Values::Brain(brain), Some(rounded)) => rounded.times(1.0, brain.turned(), c),
        }
    }

    /// `c += g self`
    pub(super) fn backward(&self, g: &Activation, c: Target<'_>) {
        match (&self.values, &g.rounded) {
            (Values::Single(lent), _) => {
                g.exact.times(1.0, View::new(lent.values(), self.width), c);
            }
            (Values::Brain(brain), None) => g.exact.times(1.0, *brain, c),
            (Values::Brain(brain), Some(rounded)) => rounded.times(1.0, *brain, c),
        }
    }

    /// Appends a row times a factor; zeros where there is no such row.
    pub(super) fn append(&self, row: usize, factor: f32, into: &mut Vec<f32>) {
        let end = into.len() + self.width;
        match &self.values {
            Values::Brain(brain) => {
                let values = brain.row(row).iter().flat_map(|pair| widen(*pair));
                into.extend(values.map(|value| value * factor));
            }
            Values::Single(lent) => {
                let start = row * self.width;
                let values = lent.values().get(start..start + self.width).unwrap_or_default();
                into.extend(values.iter().map(|value| value * factor));
            }
        }
        into.resize(end, 0.0);
    }
}

/// The left side of products with frozen matrices and with the adapter.
pub(super) struct Activation {
    pub(super) exact: Left,
    rounded: Option<Left<u32>>,
}

impl Activation {
    pub(super) fn new(kernel: Kernel, view: View<'_>) -> Self {
        let round = || {
            let pairs = rounded(view);
            Left::new(kernel, View::new(&pairs, pairs.len() / view.height().max(1)))
        };
        Self { exact: Left::new(kernel, view), rounded: kernel.rounds().then(round) }
    }
}
