//! One block, forward and backward.

use super::super::kernel::{Kernel, activate, axpy, slope};
use super::attention::{Attention, Trace};
use super::line::Line;
use super::norm::Norm;
use super::{EngineError, Lender};
use crate::lora::Adapter;
use crate::model::config::{self, Activation, Group};

pub(super) struct Block<'m> {
    attention: Attention<'m>,
    qkv: Line<'m>,
    output: Line<'m>,
    widen: Line<'m>,
    narrow: Line<'m>,
    attention_norm: Norm<'m>,
    attention_post_norm: Option<Norm<'m>>,
    forward_norm: Option<Norm<'m>>,
    forward_post_norm: Option<Norm<'m>>,
    parallel: bool,
    activation: Activation,
    gated: bool,
}

/// What the backward pass needs of one block.
pub(super) struct Tape {
    x: Vec<f32>, // (positions, hidden)
    pub(super) attention: Trace,
    attended: Option<Vec<f32>>, // (positions, hidden), where it is normed
    middle: Vec<f32>,           // (positions, hidden)
    wide: Vec<f32>,             // (positions, outputs of widen)
    out: Option<Vec<f32>>,      // (positions, hidden), where it is normed
    low: [Vec<f32>; 4],         // (positions, rank * adapted members), by group
}

impl<'m> Block<'m> {
    pub(super) fn new(
        weights: &Lender<'m>,
        block: &config::Block,
        adapter: &Adapter,
        positions: usize,
        kernel: Kernel,
    ) -> Result<Self, EngineError> {
        let line = |group| Line::new(weights, block.group(group), adapter, kernel);
        let norm = |norm: &Option<config::Norm>| {
            norm.as_ref().map(|norm| Norm::new(weights, norm)).transpose()
        };
        Ok(Self {
            attention: Attention::new(weights, block, positions, kernel)?,
            qkv: line(Group::Qkv)?,
            output: line(Group::Output)?,
            widen: line(Group::Widen)?,
            narrow: line(Group::Narrow)?,
            attention_norm: Norm::new(weights, &block.attention_norm)?,
            attention_post_norm: norm(&block.attention_post_norm)?,
            forward_norm: norm(&block.forward_norm)?,
            forward_post_norm: norm(&block.forward_post_norm)?,
            parallel: block.parallel,
            activation: block.activation,
            gated: block.gated,
        })
    }

    /// Whether the adapter has a part here.
    pub(super) fn is_adapted(&self) -> bool {
        [&self.qkv, &self.output, &self.widen, &self.narrow].iter().any(|line| line.is_adapted())
    }

    /// The block over positions that come after those in `cache`, whose queries, keys and values
    /// join them there. The tape is whole once it has the cache.
    pub(super) fn forward(
        &self,
        adapter: &[f32],
        x: Vec<f32>,
        cache: &mut Vec<f32>,
    ) -> (Tape, Vec<f32>) {
        let normed = self.attention_norm.rows(&x);
        let (qkv, low_qkv) = self.qkv.forward(adapter, &normed);
        let (raw, mixed) = self.attention.forward(qkv, cache);
        let attention = Trace { raw, qkv: Vec::new(), mixed };
        let (attended, low_output) = self.output.forward(adapter, &attention.mixed);
        let (mut middle, attended) = after(self.attention_post_norm.as_ref(), attended);
        axpy(&mut middle, 1.0, &x);

        let read = self.read(&x, &middle);
        let (wide, low_widen) = self.widen.forward(adapter, read.as_deref().unwrap_or(&normed));
        let inside = self.activate(&wide);
        let (out, low_narrow) = self.narrow.forward(adapter, &inside);
        let (mut sum, out) = after(self.forward_post_norm.as_ref(), out);
        axpy(&mut sum, 1.0, &middle);
        let low = [low_qkv, low_output, low_widen, low_narrow];
        (Tape { x, attention, attended, middle, wide, out, low }, sum)
    }

    /// What the feed-forward layer reads, where it has a norm of its own.
    fn read(&self, x: &[f32], middle: &[f32]) -> Option<Vec<f32>> {
        let norm = self.forward_norm.as_ref()?;
        Some(norm.rows(if self.parallel { x } else { middle }))
    }

    /// The gradient of x, of which the adapter's goes into `gradient`. Where x is not
    /// `x_needed`, its gradient is left out as far as it is of no use.
    pub(super) fn backward(
        &self,
        adapter: &[f32],
        gradient: &mut [f32],
        tape: &Tape,
        g: Vec<f32>,
        x_needed: bool,
    ) -> Vec<f32> {
        let [low_qkv, low_output, low_widen, low_narrow] = &tape.low;
        let normed = self.attention_norm.rows(&tape.x);
        let mut g_normed = vec![0.0; normed.len()]; // (positions, hidden)

        // The feed-forward layer: sum = middle + post(narrow(activate(widen(read)))).
        let g_out = before(self.forward_post_norm.as_ref(), &tape.out, &g);
        let inside = self.activate(&tape.wide);
        let mut g_inside = vec![0.0; inside.len()];
        let given = g_out.as_deref().unwrap_or(&g);
        self.narrow.backward(adapter, gradient, (&inside, low_narrow), given, Some(&mut g_inside));
        let g_wide = self.slope(&tape.wide, &g_inside);
        let read = self.read(&tape.x, &tape.middle);
        let mut g_read = vec![0.0; normed.len()]; // (positions, hidden)
        let given = (read.as_deref().unwrap_or(&normed), &low_widen[..]);
        self.widen.backward(adapter, gradient, given, &g_wide, Some(&mut g_read));
        let mut g_middle = g; // (positions, hidden); of x and of middle where in sequence
        let mut g_x = None; // what reaches x beside it
        match (&self.forward_norm, self.parallel) {
            (Some(norm), false) => norm.backward(&tape.middle, &g_read, &mut g_middle),
            (Some(norm), true) => {
                let mut own = vec![0.0; normed.len()];
                norm.backward(&tape.x, &g_read, &mut own);
                g_x = Some(own);
            }
            (None, _) => g_normed = g_read,
        }

        // Attention: middle = x + post(output(attend(qkv(normed)))).
        let g_attended = before(self.attention_post_norm.as_ref(), &tape.attended, &g_middle);
        let mixed = &tape.attention.mixed;
        let mut g_mixed = vec![0.0; mixed.len()]; // (positions, heads * head)
        let given = g_attended.as_deref().unwrap_or(&g_middle);
        self.output.backward(adapter, gradient, (mixed, low_output), given, Some(&mut g_mixed));
        let g_qkv = self.attention.backward(&tape.attention, &g_mixed);
        let into = x_needed.then_some(&mut g_normed[..]);
        self.qkv.backward(adapter, gradient, (&normed, low_qkv), &g_qkv, into);
        if x_needed {
            self.attention_norm.backward(&tape.x, &g_normed, &mut g_middle);
        }
        if let Some(g_x) = g_x {
            axpy(&mut g_middle, 1.0, &g_x);
        }
        g_middle
    }

    fn activate(&self, wide: &[f32]) -> Vec<f32> {
        let outputs = self.widen.outputs();
        let width = self.width();
        let mut inside = vec![0.0; wide.len() / outputs * width];
        for (wide, out) in wide.chunks_exact(outputs).zip(inside.chunks_exact_mut(width)) {
            let (gate, up) = wide.split_at(width);
            activate(self.activation, gate, up, out);
        }
        inside
    }

    /// The gradient of what [`Block::activate`] was given.
    fn slope(&self, wide: &[f32], g: &[f32]) -> Vec<f32> {
        let (outputs, width) = (self.widen.outputs(), self.width());
        let mut g_wide = vec![0.0; wide.len()];
        let rows = wide.chunks_exact(outputs).zip(g.chunks_exact(width));
        for ((wide, g), g_wide) in rows.zip(g_wide.chunks_exact_mut(outputs)) {
            let ((gate, up), (g_gate, g_up)) = (wide.split_at(width), g_wide.split_at_mut(width));
            slope(self.activation, gate, up, g, g_gate, g_up);
        }
        g_wide
    }

    /// Width of the activated inside.
    fn width(&self) -> usize {
        self.widen.outputs() / if self.gated { 2 } else { 1 }
    }
}

/// What a part adds to the residual stream, and, where it is normed, what it was before.
fn after(norm: Option<&Norm<'_>>, y: Vec<f32>) -> (Vec<f32>, Option<Vec<f32>>) {
    match norm {
        Some(norm) => (norm.rows(&y), Some(y)),
        None => (y, None),
    }
}

/// The gradient of what was normed; `None` where nothing was, and it is `g` itself.
fn before(norm: Option<&Norm<'_>>, y: &Option<Vec<f32>>, g: &[f32]) -> Option<Vec<f32>> {
    let (norm, y) = (norm?, y.as_ref()?);
    let mut g_y = vec![0.0; y.len()];
    norm.backward(y, g, &mut g_y);
    Some(g_y)
}
