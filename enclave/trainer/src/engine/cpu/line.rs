//! A group of frozen linear layers that read the same input, with the adapter's parts on them.

use super::super::kernel::{Kernel, Target, View, product};
use super::matrix::{Activation, Matrix};
use super::{EngineError, Lender};
use crate::lora::{Adapter, Slot};
use crate::model::Lent;
use crate::model::config::{Linear, bias, weight};
use crate::real::narrow;

/// The group: its outputs stand side by side.
pub(super) struct Line<'m> {
    kernel: Kernel,
    parts: Vec<Part<'m>>,
    inputs: usize,
    outputs: usize,
    rank: usize,
    scale: f32,
}

/// One linear layer.
struct Part<'m> {
    weight: Matrix<'m>, // (outputs, inputs)
    bias: Option<Lent<'m>>,
    slot: Option<Slot>,
    outputs: usize,
    first: usize, // column among the group's outputs
    low: usize,   // column among the group's low-rank activations
}

impl<'m> Line<'m> {
    pub(super) fn new(
        weights: &Lender<'m>,
        group: &[Linear],
        adapter: &Adapter,
        kernel: Kernel,
    ) -> Result<Self, EngineError> {
        let rank = adapter.config().rank();
        let mut line = Self {
            kernel,
            parts: Vec::with_capacity(group.len()),
            inputs: group.first().map_or(0, |linear| linear.inputs),
            outputs: 0,
            rank,
            scale: narrow(adapter.config().scale()),
        };
        for linear in group {
            let slot = adapter.slots().iter().find(|slot| slot.path == linear.path);
            line.parts.push(Part {
                weight: Matrix::new(weights, &weight(&linear.path), linear.inputs)?,
                bias: linear.bias.then(|| weights.lend(&bias(&linear.path))).transpose()?,
                slot: slot.cloned(),
                outputs: linear.outputs,
                first: line.outputs,
                low: line.low_width(),
            });
            line.outputs += linear.outputs;
        }
        Ok(line)
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn is_adapted(&self) -> bool {
        self.parts.iter().any(|part| part.slot.is_some())
    }

    fn low_width(&self) -> usize {
        self.parts.iter().filter(|part| part.slot.is_some()).count() * self.rank
    }

    /// `y = W x + b + scale B A x` side by side, and `A x` of the adapted members.
    pub(super) fn forward(&self, adapter: &[f32], x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let positions = x.len() / self.inputs;
        let mut y = vec![0.0; positions * self.outputs];
        let mut low = vec![0.0; positions * self.low_width()];
        let x = Activation::new(self.kernel, View::new(x, self.inputs));
        for part in &self.parts {
            if let Some(bias) = &part.bias {
                for y in y.chunks_exact_mut(self.outputs) {
                    let here = y.get_mut(part.first..).unwrap_or_default();
                    here.iter_mut().zip(bias.values()).for_each(|(y, bias)| *y = *bias);
                }
            }
            let into = Target::new(&mut y, self.outputs).columns(part.first, part.outputs);
            part.weight.forward(&x, into);
            if let Some((a, b)) = part.factors(adapter) {
                let width = self.low_width();
                let into = Target::new(&mut low, width).columns(part.low, self.rank);
                x.exact.times(1.0, View::new(a, self.inputs).turned(), into);
                let low = View::new(&low, width).columns(part.low, self.rank);
                let into = Target::new(&mut y, self.outputs).columns(part.first, part.outputs);
                product(self.kernel, self.scale, low, View::new(b, self.rank).turned(), into);
            }
        }
        (y, low)
    }

    /// Gradients of A and B into `gradient`, and `g_x += gᵀ W + scale gᵀ B A` where asked for.
    pub(super) fn backward(
        &self,
        adapter: &[f32],
        gradient: &mut [f32],
        (x, low): (&[f32], &[f32]),
        g: &[f32],
        mut g_x: Option<&mut [f32]>,
    ) {
        for part in &self.parts {
            let g = View::new(g, self.outputs).columns(part.first, part.outputs);
            let given = Activation::new(self.kernel, g);
            if let Some(g_x) = g_x.as_deref_mut() {
                part.weight.backward(&given, Target::new(g_x, self.inputs));
            }
            let (Some(slot), Some((a, b))) = (&part.slot, part.factors(adapter)) else { continue };
            let low = View::new(low, self.low_width()).columns(part.low, self.rank);
            let g_b = gradient.get_mut(slot.b.clone()).unwrap_or_default();
            let into = Target::new(g_b, self.rank);
            product(self.kernel, self.scale, g.turned(), low, into);
            let mut g_low = vec![0.0; g.height() * self.rank]; // (positions, rank)
            let into = Target::new(&mut g_low, self.rank);
            given.exact.times(self.scale, View::new(b, self.rank), into);
            let g_low = View::new(&g_low, self.rank);
            let g_a = gradient.get_mut(slot.a.clone()).unwrap_or_default();
            let into = Target::new(g_a, self.inputs);
            product(self.kernel, 1.0, g_low.turned(), View::new(x, self.inputs), into);
            if let Some(g_x) = g_x.as_deref_mut() {
                let into = Target::new(g_x, self.inputs);
                product(self.kernel, 1.0, g_low, View::new(a, self.inputs), into);
            }
        }
    }
}

impl Part<'_> {
    /// A and B out of the flat vector.
    fn factors<'a>(&self, adapter: &'a [f32]) -> Option<(&'a [f32], &'a [f32])> {
        let slot = self.slot.as_ref()?;
        Some((adapter.get(slot.a.clone())?, adapter.get(slot.b.clone())?))
    }
}
