//! The forward pass as a graph of candle-nn's layers in which every operation has a gradient.
//!
//! candle-nn's fused operations (`rms_norm`, `softmax_last_dim`, `rope`, and the layers made of
//! them) return untracked tensors: whatever lies upstream of them would silently stop learning.
//! Their plain forms (`rms_norm_slow`, `softmax`, `rope_slow`) are tracked, and are what is used
//! here; tests ask for a gradient of every tensor. This pass is the oracle for the hand-written
//! engine and the one that pre-training differentiates; it is clear rather than fast.

use super::Weights;
use super::config::{
    Activation, Attention, Block, Config, Group, Head, Linear, Norm, NormKind, bias, weight,
};
use super::rotary::{Pairing, Rotary};
use crate::real::narrow;
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Module, loss, ops, rotary_emb};

/// The trainable part: for a linear layer's path, `(A, B, scale)` where the adapter has one.
pub(crate) type Branches<'a> = dyn Fn(&str) -> Option<(&'a Tensor, &'a Tensor, f64)> + 'a;

/// A model with its trainable part.
struct Graph<'a> {
    config: &'a Config,
    weights: &'a Weights,
    branches: &'a Branches<'a>,
}

/// Logits of a batch of token ids: `(batch, positions)` to `(batch, positions, vocab)`.
pub(crate) fn logits<'a>(
    config: &'a Config,
    weights: &'a Weights,
    branches: &'a Branches<'a>,
    ids: &Tensor,
) -> Result<Tensor> {
    let graph = Graph { config, weights, branches };
    let mut x = graph.embed(ids)?; // (batch, positions, hidden)
    for block in &config.blocks {
        x = graph.block(block, &x)?;
    }
    graph.head(&graph.norm(&config.norm, &x)?)
}

/// Mean of `-log p(target)` over some rows of the logits: `rows` counts positions through the
/// batch, and has one of the targets for each.
pub(crate) fn mean_loss(logits: &Tensor, rows: Vec<u32>, targets: Vec<u32>) -> Result<Tensor> {
    let rows = Tensor::new(rows, &Device::Cpu)?;
    let logits = logits.flatten(0, 1)?.index_select(&rows, 0)?; // (rows, vocab)
    loss::cross_entropy(&logits, &Tensor::new(targets, &Device::Cpu)?)
}

impl<'a> Graph<'a> {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        match self.weights.weight(name) {
            Some(weight) => weight.tensor(),
            None => candle_core::bail!("no tensor {name}"),
        }
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, positions) = ids.dims2()?;
        let embedding = &self.config.embedding;
        let rows = |path: &str, ids: &Tensor| -> Result<Tensor> {
            let table = self.tensor(&weight(path))?;
            candle_nn::Embedding::new(table, self.config.hidden).forward(ids)
        };
        let x = (rows(&embedding.words, ids)? * f64::from(embedding.factor))?;
        let Some(path) = &embedding.positions else { return Ok(x) };
        let last = u32::try_from(positions).unwrap_or(u32::MAX);
        let places = Tensor::arange(0, last, &Device::Cpu)?.expand((batch, positions))?;
        x + rows(path, &places.contiguous()?)?
    }

    fn block(&self, block: &Block, x: &Tensor) -> Result<Tensor> {
        let normed = self.norm(&block.attention_norm, x)?;
        let mut attended = self.attention(block, &normed)?;
        if let Some(post) = &block.attention_post_norm {
            attended = self.norm(post, &attended)?;
        }
        let middle = (x + attended)?;
        let read = match &block.forward_norm {
            Some(norm) => self.norm(norm, if block.parallel { x } else { &middle })?,
            None => normed,
        };
        let mut out = self.feed_forward(block, &read)?;
        if let Some(post) = &block.forward_post_norm {
            out = self.norm(post, &out)?;
        }
        middle + out
    }

    fn attention(&self, block: &Block, x: &Tensor) -> Result<Tensor> {
        let (batch, positions, _) = x.dims3()?;
        let config = self.config;
        let Attention { scale, rotary, head_norms, cap, .. } = &block.attention;
        let qkv = self.group(block, Group::Qkv, x)?; // (batch, positions, all heads)
        let gather = |part: usize| -> Result<Tensor> {
            let starts = (0..config.heads).map(|head| {
                let columns = config.head_columns(block, head);
                columns.get(part).copied().unwrap_or(0)
            });
            let heads = starts.map(|at| qkv.narrow(2, at, config.head_dim));
            // (batch, heads, positions, head)
            Tensor::stack(&heads.collect::<Result<Vec<_>>>()?, 1)?.contiguous()
        };
        let (mut q, mut k, v) = (gather(0)?, gather(1)?, gather(2)?);
        if let Some([of_q, of_k]) = head_norms {
            (q, k) = (self.norm(of_q, &q)?, self.norm(of_k, &k)?);
        }
        if let Some(rotary) = rotary {
            (q, k) = (rotate(rotary, &q)?, rotate(rotary, &k)?);
        }
        let mut scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * f64::from(*scale))?;
        if let Some(cap) = cap {
            scores = softly(&scores, *cap)?;
        }
        let mask = mask(block.attention.window, positions)?;
        let mixed = ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?.matmul(&v)?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch, positions, config.query_width()))?;
        self.group(block, Group::Output, &mixed)
    }

    fn feed_forward(&self, block: &Block, x: &Tensor) -> Result<Tensor> {
        let wide = self.group(block, Group::Widen, x)?;
        let activate = |x: &Tensor| match block.activation {
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::Silu => ops::silu(x),
        };
        let inside = if block.gated {
            let width = wide.dim(2)? / 2;
            (activate(&wide.narrow(2, 0, width)?.contiguous()?)? * wide.narrow(2, width, width)?)?
        } else {
            activate(&wide)?
        };
        self.group(block, Group::Narrow, &inside)
    }

    /// The members of a group, side by side.
    fn group(&self, block: &Block, group: Group, x: &Tensor) -> Result<Tensor> {
        let parts = block.group(group).iter().map(|linear| self.linear(linear, x));
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 2)
    }

    fn linear(&self, linear: &Linear, x: &Tensor) -> Result<Tensor> {
        let layer = |weight: &Tensor, bias: Option<Tensor>, x: &Tensor| {
            candle_nn::Linear::new(weight.clone(), bias).forward(x)
        };
        let with = linear.bias.then(|| self.tensor(&bias(&linear.path))).transpose()?;
        let y = layer(&self.tensor(&weight(&linear.path))?, with, x)?;
        let Some((a, b, scale)) = (self.branches)(&linear.path) else { return Ok(y) };
        y + (layer(b, None, &layer(a, None, x)?)? * scale)?
    }

    fn norm(&self, norm: &Norm, x: &Tensor) -> Result<Tensor> {
        let factor = self.tensor(&weight(&norm.path))?;
        let epsilon = narrow(norm.epsilon);
        match norm.kind {
            NormKind::Layer => {
                ops::layer_norm_slow(x, &factor, &self.tensor(&bias(&norm.path))?, epsilon)
            }
            NormKind::Rms => ops::rms_norm_slow(x, &factor, epsilon),
            NormKind::RmsPlusOne => ops::rms_norm_slow(x, &(factor + 1.0)?, epsilon),
        }
    }

    fn head(&self, x: &Tensor) -> Result<Tensor> {
        let Head { tied, bias: has_bias, cap } = self.config.head;
        let path = if tied { &self.config.embedding.words } else { Head::PATH };
        let with = has_bias.then(|| self.tensor(&bias(Head::PATH))).transpose()?;
        let logits = candle_nn::Linear::new(self.tensor(&weight(path))?, with).forward(x)?;
        cap.map_or(Ok(logits.clone()), |cap| softly(&logits, cap))
    }
}

/// `cap * tanh(x / cap)`
fn softly(x: &Tensor, cap: f32) -> Result<Tensor> {
    let cap = f64::from(cap);
    (x / cap)?.tanh()? * cap
}

/// Turns the first columns of each head: `(batch, heads, positions, head)`.
fn rotate(rotary: &Rotary, x: &Tensor) -> Result<Tensor> {
    let (_, _, positions, head) = x.dims4()?;
    let (cos, sin) = rotary.angles(positions);
    let angles = |values| Tensor::from_vec(values, (positions, rotary.width / 2), &Device::Cpu);
    let (cos, sin) = (angles(cos)?, angles(sin)?);
    let turning = x.narrow(3, 0, rotary.width)?.contiguous()?;
    let turned = match rotary.pairing {
        Pairing::Halves => rotary_emb::rope_slow(&turning, &cos, &sin)?,
        Pairing::Neighbours => rotary_emb::rope_i_slow(&turning, &cos, &sin)?,
    };
    if head == rotary.width {
        return Ok(turned);
    }
    Tensor::cat(&[&turned, &x.narrow(3, rotary.width, head - rotary.width)?], 3)
}

fn mask(window: Option<usize>, positions: usize) -> Result<Tensor> {
    let window = window.unwrap_or(usize::MAX);
    let cell = |(query, key): (usize, usize)| {
        if key <= query && query - key < window { 0.0 } else { f32::NEG_INFINITY }
    };
    let cells: Vec<f32> =
        (0..positions).flat_map(|q| (0..positions).map(move |k| (q, k))).map(cell).collect();
    Tensor::from_vec(cells, (positions, positions), &Device::Cpu)?.to_dtype(DType::F32)
}
