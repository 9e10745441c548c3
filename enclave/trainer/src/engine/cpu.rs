//! The engine that trains: one example at a time, forward and backward by hand, block by block.
//!
//! The example runs to completion, so what lies in the gradient buffer at the end *is* the
//! per-example gradient: no batched factors, no hooks, no second backward. Frozen weights get no
//! gradient. Every position is computed, labelled or not, padding or not.
//!
//! Notation: x is the residual stream, g a gradient with respect to what follows it, h a low-rank
//! activation `x Aᵀ`. Shapes stand at the end of the lines.

use super::kernel::{
    axpy, dot, exponentials, gated, multiply, multiply_transposed, outer, ungated,
};
use super::{Engine, EngineError};
use crate::lora::{Adapter, Slot};
use crate::model::{Config, Lent, Model, Projection};
use crate::real::{index, narrow, real, single};
use crate::record::Example;

/// Trains on the CPU in f32 with the kernels of this crate. The same bits on every machine of an
/// architecture, as neither the instruction set nor the number of threads changes an order of
/// summation.
pub struct CpuEngine<'m> {
    config: &'m Config,
    embedding: Lent<'m>,
    blocks: Vec<Block<'m>>,
    norm: Lent<'m>,
    head: Lent<'m>,
    rotary: (Vec<f32>, Vec<f32>), // (positions, head / 2) each
    positions: usize,
    rank: usize,
    scale: f32,
    parameters: usize,
    identity: String,
}

struct Block<'m> {
    input_norm: Lent<'m>,
    post_norm: Lent<'m>,
    linears: Vec<Line<'m>>,
}

/// A frozen linear layer with the place of its adapter, if it has one.
struct Line<'m> {
    projection: Projection,
    weight: Lent<'m>,
    bias: Option<Lent<'m>>,
    slot: Option<Slot>,
    inputs: usize,
    outputs: usize,
}

/// What the backward pass needs of one block.
#[derive(Default)]
struct Tape {
    x: Vec<f32>, // (positions, hidden)
    attention: Attention,
    middle: Vec<f32>,   // (positions, hidden)
    gate: Vec<f32>,     // (positions, intermediate)
    up: Vec<f32>,       // (positions, intermediate)
    low: [Vec<f32>; 7], // (positions, rank), by projection
}

#[derive(Default)]
struct Attention {
    q: Vec<f32>,      // (positions, heads * head), rotated
    k: Vec<f32>,      // (positions, kv heads * head), rotated
    v: Vec<f32>,      // (positions, kv heads * head)
    p: Vec<Vec<f32>>, // (rows, keys up to the last row) by head and stripe of rows
    mixed: Vec<f32>,  // (positions, heads * head)
}

/// Attention weights are computed in stripes of this many rows: keys after a stripe are not
/// multiplied at all.
const STRIPE: usize = 16;
/// About so many logits exist at a time.
const LOGITS: usize = 1 << 20;

impl<'m> CpuEngine<'m> {
    /// An engine for sequences of `positions` tokens and adapters of the shape of `adapter`.
    ///
    /// # Errors
    /// When the model does not allow that length.
    pub fn new(model: &'m Model, adapter: &Adapter, positions: usize) -> Result<Self, EngineError> {
        let config = model.config();
        if !(2..=config.max_positions).contains(&positions) {
            let required = config.max_positions;
            return Err(EngineError::Sequence { observed: positions, required });
        }
        let lend = |tensor| Lent::new(tensor).ok_or(EngineError::Weights);
        let weights = model.weights();
        let mut blocks = Vec::with_capacity(config.layers);
        for (layer, block) in weights.layers.iter().enumerate() {
            let mut linears = Vec::new();
            for (projection, linear) in block.linears() {
                let (inputs, outputs) = config.widths(projection);
                let here = |slot: &&Slot| slot.layer == layer && slot.projection == projection;
                linears.push(Line {
                    projection,
                    weight: lend(linear.weight())?,
                    bias: linear.bias().map(lend).transpose()?,
                    slot: adapter.slots().iter().find(here).cloned(),
                    inputs,
                    outputs,
                });
            }
            blocks.push(Block {
                input_norm: lend(&block.input_norm)?,
                post_norm: lend(&block.post_norm)?,
                linears,
            });
        }
        Ok(Self {
            config,
            embedding: lend(weights.embedding.embeddings())?,
            blocks,
            norm: lend(&weights.norm)?,
            head: lend(weights.head.weight())?,
            rotary: config.rotary(positions),
            positions,
            rank: adapter.config().rank(),
            scale: narrow(adapter.config().scale()),
            parameters: adapter.values().len(),
            identity: format!(
                "trainer/{} cpu/1 f32 quads {}",
                env!("CARGO_PKG_VERSION"),
                std::env::consts::ARCH
            ),
        })
    }

    /// Logits at every position, `(positions, vocab)`.
    ///
    /// # Errors
    /// When a length is not the engine's.
    pub fn logits(&self, adapter: &[f32], example: &Example) -> Result<Vec<f32>, EngineError> {
        self.check(adapter, example)?;
        let x = self.forward(adapter, example).1;
        let mut logits = vec![0.0; self.positions * self.config.vocab];
        multiply_transposed(&mut logits, 1.0, &x, self.head.values(), self.config.hidden);
        Ok(logits)
    }

    /// The example's loss: the mean of `-log p` over its labelled tokens, 0 where it has none.
    ///
    /// A function of the example: for public data only.
    ///
    /// # Errors
    /// When a length is not the engine's.
    pub fn loss(&self, adapter: &[f32], example: &Example) -> Result<f64, EngineError> {
        self.check(adapter, example)?;
        let mut x = self.forward(adapter, example).1;
        Ok(self.cross_entropy(&mut x, example))
    }

    fn check(&self, adapter: &[f32], example: &Example) -> Result<(), EngineError> {
        if adapter.len() != self.parameters {
            let required = self.parameters;
            return Err(EngineError::Adapter { observed: adapter.len(), required });
        }
        if example.ids().len() != self.positions {
            let (observed, required) = (example.ids().len(), self.positions);
            return Err(EngineError::Sequence { observed, required });
        }
        Ok(())
    }

    /// Tapes of all blocks, and the normed output of the last with its input.
    fn forward(&self, adapter: &[f32], example: &Example) -> (Vec<Tape>, Vec<f32>, Vec<f32>) {
        let hidden = self.config.hidden;
        let mut x = Vec::with_capacity(self.positions * hidden); // (positions, hidden)
        for &id in example.ids() {
            let start = index(id) * hidden;
            match self.embedding.values().get(start..start + hidden) {
                Some(row) => x.extend_from_slice(row),
                None => x.resize(x.len() + hidden, 0.0),
            }
        }
        let mut tapes = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let mut tape = Tape::default();
            x = self.forward_block(block, adapter, x, &mut tape);
            tapes.push(tape);
        }
        let normed = self.rms_norm(&x, &self.norm);
        (tapes, normed, x)
    }

    fn forward_block(
        &self,
        block: &Block<'_>,
        adapter: &[f32],
        x: Vec<f32>,
        tape: &mut Tape,
    ) -> Vec<f32> {
        let Tape { low, attention, .. } = tape;
        let normed = self.rms_norm(&x, &block.input_norm);
        let mut apply = |projection: Projection, x: &[f32], y: &mut Vec<f32>| {
            if let Some((line, low)) = block.line(projection, low) {
                self.apply(line, adapter, x, y, low);
            }
        };
        apply(Projection::Q, &normed, &mut attention.q);
        apply(Projection::K, &normed, &mut attention.k);
        apply(Projection::V, &normed, &mut attention.v);
        self.rotate(&mut attention.q, 1.0);
        self.rotate(&mut attention.k, 1.0);
        self.attend(attention);
        let mut middle = Vec::new();
        apply(Projection::O, &attention.mixed, &mut middle);
        axpy(&mut middle, 1.0, &x);

        let normed = self.rms_norm(&middle, &block.post_norm);
        apply(Projection::Gate, &normed, &mut tape.gate);
        apply(Projection::Up, &normed, &mut tape.up);
        let gated = gated(&tape.gate, &tape.up);
        let mut out = Vec::new();
        apply(Projection::Down, &gated, &mut out);
        axpy(&mut out, 1.0, &middle);
        tape.x = x;
        tape.middle = middle;
        out
    }

    /// `y = W x + b + scale B A x`; keeps `A x` in `low`.
    fn apply(
        &self,
        line: &Line<'_>,
        adapter: &[f32],
        x: &[f32],
        y: &mut Vec<f32>,
        low: &mut Vec<f32>,
    ) {
        y.clear();
        match &line.bias {
            Some(bias) => (0..self.positions).for_each(|_| y.extend_from_slice(bias.values())),
            None => y.resize(self.positions * line.outputs, 0.0),
        }
        multiply_transposed(y, 1.0, x, line.weight.values(), line.inputs);
        if let Some((a, b)) = line.factors(adapter) {
            low.clear();
            low.resize(self.positions * self.rank, 0.0);
            multiply_transposed(low, 1.0, x, a, line.inputs);
            multiply_transposed(y, self.scale, low, b, self.rank);
        }
    }

    fn rms_norm(&self, x: &[f32], weight: &Lent<'_>) -> Vec<f32> {
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(self.config.hidden) {
            let inverse = self.inverse_rms(row);
            y.extend(row.iter().zip(weight.values()).map(|(x, w)| x * inverse * w));
        }
        y
    }

    fn inverse_rms(&self, row: &[f32]) -> f32 {
        let mean = dot(row, row) / single(row.len());
        1.0 / (mean + narrow(self.config.rms_epsilon)).sqrt()
    }

    /// Turns the two halves of each head by the position's angles, or back (`sign` -1).
    fn rotate(&self, x: &mut [f32], sign: f32) {
        let (head, half) = (self.config.head_dim, self.config.head_dim / 2);
        let width = x.len() / self.positions;
        let (cos, sin) = (self.rotary.0.chunks_exact(half), self.rotary.1.chunks_exact(half));
        for ((row, cos), sin) in x.chunks_exact_mut(width).zip(cos).zip(sin) {
            for pair in row.chunks_exact_mut(head) {
                let (left, right) = pair.split_at_mut(half);
                for (((left, right), cos), sin) in left.iter_mut().zip(right).zip(cos).zip(sin) {
                    let (l, r) = (*left, *right);
                    *left = l * cos - sign * r * sin;
                    *right = r * cos + sign * l * sin;
                }
            }
        }
    }

    fn attend(&self, attention: &mut Attention) {
        let head = self.config.head_dim;
        let Attention { q, k, v, p, mixed } = attention;
        mixed.resize(q.len(), 0.0);
        for place in 0..self.config.heads {
            let (of_q, of_k) = (self.columns_of_query(place), self.columns_of_key(place));
            let (q, k, v) = (of_q.gather(q), of_k.gather(k), of_k.gather(v)); // (positions, head)
            for (stripe, q) in q.chunks(STRIPE * head).enumerate() {
                let start = stripe * STRIPE;
                let end = start + q.len() / head;
                let seen = ..end * head;
                let (k, v) = (k.get(seen).unwrap_or_default(), v.get(seen).unwrap_or_default());
                let mut weights = vec![0.0; q.len() / head * end]; // (rows, end)
                multiply_transposed(&mut weights, self.attention_scale(), q, k, head);
                for (query, row) in (start..).zip(weights.chunks_exact_mut(end)) {
                    self.attention_row(query, row);
                }
                let mut out = vec![0.0; q.len()]; // (rows, head)
                multiply(&mut out, 1.0, &weights, v, head);
                of_q.add(mixed, start, &out);
                p.push(weights);
            }
        }
    }

    /// Softmax over the keys a query sees; 0 for the others.
    fn attention_row(&self, query: usize, row: &mut [f32]) {
        let first = self.first_key(query);
        let (before, rest) = row.split_at_mut(first);
        let (seen, after) = rest.split_at_mut(query + 1 - first);
        exponentials(seen);
        let share = 1.0 / seen.iter().sum::<f32>();
        seen.iter_mut().for_each(|weight| *weight *= share);
        before.fill(0.0);
        after.fill(0.0);
    }

    fn attention_scale(&self) -> f32 {
        narrow(1.0 / real(self.config.head_dim).sqrt())
    }

    fn first_key(&self, query: usize) -> usize {
        self.config.window.map_or(0, |window| (query + 1).saturating_sub(window))
    }

    fn columns_of_query(&self, head: usize) -> Columns {
        let start = head * self.config.head_dim;
        Columns { width: self.config.query_width(), start, length: self.config.head_dim }
    }

    fn columns_of_key(&self, head: usize) -> Columns {
        let start = head / (self.config.heads / self.config.kv_heads) * self.config.head_dim;
        Columns { width: self.config.key_width(), start, length: self.config.head_dim }
    }

    /// The mean loss; leaves in `x` (the last block's normed output) its gradient.
    fn cross_entropy(&self, x: &mut [f32], example: &Example) -> f64 {
        let hidden = self.config.hidden;
        let head = self.head.values();
        let share = example.share();
        let mut loss = 0.0;
        let mut targets = example.targets();
        let most = (LOGITS / self.config.vocab).clamp(STRIPE, self.positions.max(STRIPE));
        let mut logits = vec![0.0; most * self.config.vocab];
        for stripe in x.chunks_mut(most * hidden) {
            let rows = stripe.len() / hidden;
            let logits = logits.get_mut(..rows * self.config.vocab).unwrap_or_default();
            logits.fill(0.0);
            multiply_transposed(logits, 1.0, stripe, head, hidden);
            for row in logits.chunks_exact_mut(self.config.vocab) {
                let (target, learned) = targets.next().unwrap_or((0, false));
                let weight = if learned { share } else { 0.0 };
                loss += f64::from(weight) * softmax_loss(row, index(target), weight);
            }
            stripe.fill(0.0);
            multiply(stripe, 1.0, logits, head, hidden);
        }
        loss
    }

    fn backward_block(
        &self,
        block: &Block<'_>,
        tape: &mut Tape,
        pass: &mut Pass<'_>,
        x_needed: bool,
    ) {
        // Feed-forward: out = middle + down(gated(gate(n), up(n))), n = norm(middle).
        let gated = gated(&tape.gate, &tape.up);
        let mut g_gated = vec![0.0; gated.len()]; // (positions, intermediate)
        let g = std::mem::take(&mut pass.g);
        self.backward(block, Projection::Down, &gated, &g, Some(&mut g_gated), tape, pass);
        let (g_gate, g_up) = ungated(&tape.gate, &tape.up, &g_gated);
        let normed = self.rms_norm(&tape.middle, &block.post_norm);
        let mut g_normed = vec![0.0; normed.len()]; // (positions, hidden)
        self.backward(block, Projection::Gate, &normed, &g_gate, Some(&mut g_normed), tape, pass);
        self.backward(block, Projection::Up, &normed, &g_up, Some(&mut g_normed), tape, pass);
        let mut g = g;
        self.backward_norm(&tape.middle, &block.post_norm, &g_normed, &mut g);

        // Attention: middle = x + o(attend(rotate(q(n)), rotate(k(n)), v(n))), n = norm(x).
        let mixed = std::mem::take(&mut tape.attention.mixed);
        let mut g_mixed = vec![0.0; mixed.len()]; // (positions, heads * head)
        self.backward(block, Projection::O, &mixed, &g, Some(&mut g_mixed), tape, pass);
        let [g_q, g_k, g_v] = self.backward_attention(&tape.attention, &g_mixed);
        let normed = self.rms_norm(&tape.x, &block.input_norm);
        g_normed.fill(0.0);
        for (projection, g) in [(Projection::Q, g_q), (Projection::K, g_k), (Projection::V, g_v)] {
            let into = x_needed.then_some(&mut g_normed[..]);
            self.backward(block, projection, &normed, &g, into, tape, pass);
        }
        if x_needed {
            self.backward_norm(&tape.x, &block.input_norm, &g_normed, &mut g);
        }
        pass.g = g;
    }

    /// Gradients of A and B, and `g_x += gᵀ W + scale gᵀ B A`.
    #[expect(clippy::too_many_arguments, reason = "one linear layer's inputs and outputs")]
    fn backward(
        &self,
        block: &Block<'_>,
        projection: Projection,
        x: &[f32],
        g: &[f32],
        mut g_x: Option<&mut [f32]>,
        tape: &mut Tape,
        pass: &mut Pass<'_>,
    ) {
        let Some((line, low)) = block.line(projection, &mut tape.low) else { return };
        if let (Some(slot), Some((a, b))) = (&line.slot, line.factors(pass.adapter)) {
            let mut g_low = vec![0.0; low.len()]; // (positions, rank)
            multiply(&mut g_low, self.scale, g, b, self.rank);
            let g_b = pass.gradient.get_mut(slot.b.clone()).unwrap_or_default();
            outer(g_b, self.scale, g, low, self.rank);
            let g_a = pass.gradient.get_mut(slot.a.clone()).unwrap_or_default();
            outer(g_a, 1.0, &g_low, x, line.inputs);
            if let Some(g_x) = g_x.as_deref_mut() {
                multiply(g_x, 1.0, &g_low, a, line.inputs);
            }
        }
        if let Some(g_x) = g_x {
            multiply(g_x, 1.0, g, line.weight.values(), line.inputs);
        }
    }

    /// `g_x += d norm(x) / d x · g`.
    fn backward_norm(&self, x: &[f32], weight: &Lent<'_>, g: &[f32], g_x: &mut [f32]) {
        let hidden = self.config.hidden;
        let rows = x.chunks_exact(hidden).zip(g.chunks_exact(hidden));
        for ((x, g), g_x) in rows.zip(g_x.chunks_exact_mut(hidden)) {
            let inverse = self.inverse_rms(x);
            let weighted: Vec<f32> = g.iter().zip(weight.values()).map(|(g, w)| g * w).collect();
            let along = inverse * inverse * inverse * dot(&weighted, x) / single(hidden);
            axpy(g_x, inverse, &weighted);
            axpy(g_x, -along, x);
        }
    }

    /// Gradients before rotation of q, k and v.
    fn backward_attention(&self, attention: &Attention, g_mixed: &[f32]) -> [Vec<f32>; 3] {
        let head = self.config.head_dim;
        let Attention { q, k, v, p, .. } = attention;
        let (mut g_q, mut g_k) = (vec![0.0; q.len()], vec![0.0; k.len()]);
        let mut g_v = vec![0.0; v.len()];
        let stripes = self.positions.div_ceil(STRIPE);
        for (place, p) in p.chunks(stripes).enumerate() {
            let (of_q, of_k) = (self.columns_of_query(place), self.columns_of_key(place));
            let (q, k, v) = (of_q.gather(q), of_k.gather(k), of_k.gather(v)); // (positions, head)
            let g = of_q.gather(g_mixed); // (positions, head)
            let (mut own_q, mut own_k) = (vec![0.0; q.len()], vec![0.0; k.len()]);
            let mut own_v = vec![0.0; v.len()];
            let rows = STRIPE * head;
            let queries = q.chunks(rows).zip(own_q.chunks_mut(rows));
            for (((q, own_q), g), p) in queries.zip(g.chunks(rows)).zip(p) {
                let end = p.len() * head / q.len();
                let seen = ..end * head;
                let (k, v) = (k.get(seen).unwrap_or_default(), v.get(seen).unwrap_or_default());
                let mut g_p = vec![0.0; p.len()]; // (rows, end)
                multiply_transposed(&mut g_p, 1.0, g, v, head);
                outer(own_v.get_mut(seen).unwrap_or_default(), 1.0, p, g, head);
                for (p, g_p) in p.chunks_exact(end).zip(g_p.chunks_exact_mut(end)) {
                    let mean = dot(p, g_p);
                    g_p.iter_mut().zip(p).for_each(|(g_p, p)| *g_p = p * (*g_p - mean));
                }
                multiply(own_q, self.attention_scale(), &g_p, k, head);
                let own_k = own_k.get_mut(seen).unwrap_or_default();
                outer(own_k, self.attention_scale(), &g_p, q, head);
            }
            of_q.add(&mut g_q, 0, &own_q);
            of_k.add(&mut g_k, 0, &own_k);
            of_k.add(&mut g_v, 0, &own_v);
        }
        self.rotate(&mut g_q, -1.0);
        self.rotate(&mut g_k, -1.0);
        [g_q, g_k, g_v]
    }
}

impl Engine for CpuEngine<'_> {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn gradient(
        &self,
        adapter: &[f32],
        example: &Example,
        gradient: &mut [f32],
    ) -> Result<(), EngineError> {
        self.check(adapter, example)?;
        self.check(gradient, example)?;
        gradient.fill(0.0);
        let (tapes, mut g_normed, x) = self.forward(adapter, example);
        self.cross_entropy(&mut g_normed, example);
        let mut pass = Pass { adapter, gradient, g: vec![0.0; x.len()] };
        self.backward_norm(&x, &self.norm, &g_normed, &mut pass.g);
        for (layer, (block, mut tape)) in self.blocks.iter().zip(tapes).enumerate().rev() {
            self.backward_block(block, &mut tape, &mut pass, layer > 0);
        }
        Ok(())
    }
}

/// What the backward pass carries from block to block.
struct Pass<'a> {
    adapter: &'a [f32],
    gradient: &'a mut [f32],
    g: Vec<f32>, // (positions, hidden)
}

impl<'m> Block<'m> {
    fn line<'a>(
        &'a self,
        projection: Projection,
        low: &'a mut [Vec<f32>; 7],
    ) -> Option<(&'a Line<'m>, &'a mut Vec<f32>)> {
        self.linears.iter().zip(low).find(|(line, _)| line.projection == projection)
    }
}

impl Line<'_> {
    /// A and B out of the flat vector.
    fn factors<'a>(&self, adapter: &'a [f32]) -> Option<(&'a [f32], &'a [f32])> {
        let slot = self.slot.as_ref()?;
        Some((adapter.get(slot.a.clone())?, adapter.get(slot.b.clone())?))
    }
}

/// The columns of one head in a row-major matrix.
#[derive(Clone, Copy)]
struct Columns {
    width: usize,
    start: usize,
    length: usize,
}

impl Columns {
    /// The head's columns, row by row.
    fn gather(self, matrix: &[f32]) -> Vec<f32> {
        let end = self.start + self.length;
        let rows = matrix.chunks_exact(self.width);
        rows.flat_map(|row| row.get(self.start..end).unwrap_or_default()).copied().collect()
    }

    /// Adds rows of the head's columns, from row `first` on.
    fn add(self, matrix: &mut [f32], first: usize, rows: &[f32]) {
        let end = self.start + self.length;
        let into = matrix.chunks_exact_mut(self.width).skip(first);
        for (into, row) in into.zip(rows.chunks_exact(self.length)) {
            axpy(into.get_mut(self.start..end).unwrap_or_default(), 1.0, row);
        }
    }
}

/// `-log p(target)`; turns logits into `weight * (p - onehot)`.
fn softmax_loss(row: &mut [f32], target: usize, weight: f32) -> f64 {
    let chosen = row.get(target).copied();
    let top = exponentials(row);
    let sum: f64 = row.iter().copied().map(f64::from).sum();
    let factor = narrow(f64::from(weight) / sum);
    row.iter_mut().for_each(|value| *value *= factor);
    if let Some(value) = row.get_mut(target) {
        *value -= weight;
    }
    libm::log(sum) - f64::from(chosen.unwrap_or(top) - top)
}
