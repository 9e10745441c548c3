//! The engine that trains: one example at a time, forward and backward by hand, block by block.
//!
//! The example runs to completion, so what lies in the gradient buffer at the end *is* the
//! per-example gradient: no batched factors, no hooks, no second backward. Frozen weights get no
//! gradient. Every position is computed, labelled or not, padding or not.
//!
//! Notation: x is the residual stream, g a gradient with respect to what follows it, low a
//! low-rank activation `x Aᵀ`. Shapes stand at the end of the lines.

mod attention;
mod block;
mod line;
mod matrix;
mod norm;

use super::kernel::{Kernel, Target, View, exponentials, soften};
use super::{Engine, EngineError};
use crate::lora::Adapter;
use crate::model::config::{Head, bias, weight};
use crate::model::{Config, Lent, Model, Weight};
use crate::real::{index, narrow};
use crate::record::Example;
use block::{Block, Tape};
use matrix::{Activation, Matrix};
use norm::Norm;

/// Trains on the CPU in f32 with the kernels of this crate. The same bits on every machine that
/// chooses the same kernel, with any number of threads.
pub struct CpuEngine<'m> {
    config: &'m Config,
    kernel: Kernel,
    words: Matrix<'m>,          // (vocab, hidden)
    places: Option<Matrix<'m>>, // (positions of the model, hidden)
    blocks: Vec<Block<'m>>,
    norm: Norm<'m>,
    head: Matrix<'m>, // (vocab, hidden)
    head_bias: Option<Lent<'m>>,
    positions: usize,
    parameters: usize,
    first: usize, // the lowest block that has a part of the adapter
    identity: String,
}

/// About so many logits exist at a time.
const LOGITS: usize = 1 << 23;

impl<'m> CpuEngine<'m> {
    /// An engine for sequences of `positions` tokens and adapters of the shape of `adapter`, on
    /// the fastest kernel this machine has.
    ///
    /// # Errors
    /// When the model does not allow that length.
    pub fn new(model: &'m Model, adapter: &Adapter, positions: usize) -> Result<Self, EngineError> {
        Self::with_kernel(model, adapter, positions, Kernel::fastest())
    }

    /// The same on a kernel of choice: the portable one gives the same bits on every machine.
    ///
    /// # Errors
    /// When the model does not allow that length.
    pub fn with_kernel(
        model: &'m Model,
        adapter: &Adapter,
        positions: usize,
        kernel: Kernel,
    ) -> Result<Self, EngineError> {
        let config = model.config();
        if !(2..=config.max_positions).contains(&positions) {
            let required = config.max_positions;
            return Err(EngineError::Sequence { observed: positions, required });
        }
        let weights = Lender(model);
        let block = |block| Block::new(&weights, block, adapter, positions, kernel);
        let blocks = config.blocks.iter().map(block).collect::<Result<Vec<_>, _>>()?;
        let head = if config.head.tied { &config.embedding.words } else { Head::PATH };
        let with_bias = config.head.bias.then(|| weights.lend(&bias(Head::PATH)));
        let matrix = |path: &str| Matrix::new(&weights, &weight(path), config.hidden);
        let places = config.embedding.positions.as_deref().map(matrix);
        Ok(Self {
            config,
            kernel,
            words: matrix(&config.embedding.words)?,
            places: places.transpose()?,
            first: blocks.iter().position(Block::is_adapted).unwrap_or(blocks.len()),
            blocks,
            norm: Norm::new(&weights, &config.norm)?,
            head: matrix(head)?,
            head_bias: with_bias.transpose()?,
            positions,
            parameters: adapter.values().len(),
            identity: format!(
                "trainer/{} cpu/2 f32 {} {}",
                env!("CARGO_PKG_VERSION"),
                std::env::consts::ARCH,
                kernel.name(),
            ),
        })
    }

    /// The kernel that products are computed with.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Logits at every position, `(positions, vocab)`.
    ///
    /// # Errors
    /// When a length is not the engine's.
    pub fn logits(&self, adapter: &[f32], example: &Example) -> Result<Vec<f32>, EngineError> {
        self.check(adapter, example)?;
        let x = self.forward(adapter, example).1;
        Ok(self.capped(self.head(&x)))
    }

    /// A text that grows, with what earlier positions need not be computed for again.
    ///
    /// # Errors
    /// When the adapter has another number of parameters.
    pub fn session<'a>(&'a self, adapter: &'a [f32]) -> Result<Session<'a, 'm>, EngineError> {
        self.check_adapter(adapter)?;
        let caches = self.blocks.iter().map(|_| Vec::new()).collect();
        Ok(Session { engine: self, adapter, caches, position: 0 })
    }

    fn capped(&self, mut logits: Vec<f32>) -> Vec<f32> {
        if let Some(cap) = self.config.head.cap {
            let mut slopes = vec![0.0; logits.len()];
            soften(cap, &mut logits, &mut slopes);
        }
        logits
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

    fn check_adapter(&self, adapter: &[f32]) -> Result<(), EngineError> {
        let (observed, required) = (adapter.len(), self.parameters);
        let fits = observed == required;
        if fits { Ok(()) } else { Err(EngineError::Adapter { observed, required }) }
    }

    fn check(&self, adapter: &[f32], example: &Example) -> Result<(), EngineError> {
        self.check_adapter(adapter)?;
        if example.ids().len() != self.positions {
            let (observed, required) = (example.ids().len(), self.positions);
            return Err(EngineError::Sequence { observed, required });
        }
        Ok(())
    }

    /// Tapes of all blocks, and the normed output of the last with its input.
    fn forward(&self, adapter: &[f32], example: &Example) -> (Vec<Tape>, Vec<f32>, Vec<f32>) {
        let mut x = self.embed(example.ids(), 0); // (positions, hidden)
        let mut tapes = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let mut cache = Vec::new();
            let (mut tape, out) = block.forward(adapter, x, &mut cache);
            tape.attention.qkv = cache;
            tapes.push(tape);
            x = out;
        }
        let normed = self.norm.rows(&x);
        (tapes, normed, x)
    }

    /// The residual stream of ids at positions from `first` on.
    fn embed(&self, ids: &[u32], first: usize) -> Vec<f32> {
        let factor = self.config.embedding.factor;
        let mut x = Vec::with_capacity(ids.len() * self.config.hidden);
        for &id in ids {
            self.words.append(index(id), factor, &mut x);
        }
        if let Some(places) = &self.places {
            let mut added = Vec::with_capacity(x.len());
            (first..first + ids.len()).for_each(|place| places.append(place, 1.0, &mut added));
            x.iter_mut().zip(added).for_each(|(x, place)| *x += place);
        }
        x
    }

    /// Logits before they are capped, of some rows.
    fn head(&self, x: &[f32]) -> Vec<f32> {
        let (hidden, vocab) = (self.config.hidden, self.config.vocab);
        let mut logits = match &self.head_bias {
            Some(bias) => bias.values().repeat(x.len() / hidden),
            None => vec![0.0; x.len() / hidden * vocab],
        };
        let x = Activation::new(self.kernel, View::new(x, hidden));
        self.head.forward(&x, Target::new(&mut logits, vocab));
        logits
    }

    /// The mean loss; leaves in `x` (the last block's normed output) its gradient.
    fn cross_entropy(&self, x: &mut [f32], example: &Example) -> f64 {
        let (hidden, vocab) = (self.config.hidden, self.config.vocab);
        let share = example.share();
        let mut loss = 0.0;
        let mut targets = example.targets();
        let most = (LOGITS / vocab).clamp(1, self.positions);
        let mut slopes = self.config.head.cap.map(|cap| (cap, vec![0.0; vocab]));
        for stripe in x.chunks_mut(most * hidden) {
            let mut logits = self.head(stripe); // (rows, vocab)
            for row in logits.chunks_exact_mut(vocab) {
                let (target, learned) = targets.next().unwrap_or((0, false));
                let weight = if learned { share } else { 0.0 };
                if let Some((cap, slopes)) = &mut slopes {
                    soften(*cap, row, slopes);
                }
                loss += f64::from(weight) * softmax_loss(row, index(target), weight);
                if let Some((_, slopes)) = &slopes {
                    row.iter_mut().zip(slopes).for_each(|(g, slope)| *g *= slope);
                }
            }
            stripe.fill(0.0);
            let g = Activation::new(self.kernel, View::new(&logits, vocab));
            self.head.backward(&g, Target::new(stripe, hidden));
        }
        loss
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
        let mut g = vec![0.0; x.len()]; // (positions, hidden)
        self.norm.backward(&x, &g_normed, &mut g);
        let blocks = self.blocks.iter().zip(tapes).enumerate().skip(self.first);
        for (layer, (block, tape)) in blocks.rev() {
            g = block.backward(adapter, gradient, &tape, g, layer > self.first);
        }
        Ok(())
    }
}

/// A text that grows: keys and values of earlier positions are kept, block by block.
pub struct Session<'a, 'm> {
    engine: &'a CpuEngine<'m>,
    adapter: &'a [f32],
    caches: Vec<Vec<f32>>, // (positions so far, queries, keys and values) each
    position: usize,
}

impl Session<'_, '_> {
    /// Goes on with some ids; the logits after the last of them. Empty without ids.
    ///
    /// # Errors
    /// When the text becomes longer than the engine's sequences.
    pub fn feed(&mut self, ids: &[u32]) -> Result<Vec<f32>, EngineError> {
        let Self { engine, adapter, caches, position } = self;
        let end = *position + ids.len();
        if end > engine.positions {
            return Err(EngineError::Sequence { observed: end, required: engine.positions });
        }
        let mut x = engine.embed(ids, *position);
        *position = end;
        for (block, cache) in engine.blocks.iter().zip(caches) {
            x = block.forward(adapter, x, cache).1;
        }
        let last = x.chunks_exact(engine.config.hidden).next_back().unwrap_or_default();
        let normed = engine.norm.rows(last);
        Ok(if normed.is_empty() { normed } else { engine.capped(engine.head(&normed)) })
    }
}

/// A model whose weights are lent by name.
struct Lender<'m>(&'m Model);

impl<'m> Lender<'m> {
    fn weight(&self, name: &str) -> Result<&'m Weight, EngineError> {
        self.0.weights().weight(name).ok_or(EngineError::Weights)
    }

    fn lend(&self, name: &str) -> Result<Lent<'m>, EngineError> {
        match self.weight(name)? {
            Weight::Single(tensor) => Lent::new(tensor).ok_or(EngineError::Weights),
            Weight::Brain { .. } => Err(EngineError::Weights),
        }
    }

    fn config(&self) -> &'m Config {
        self.0.config()
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
