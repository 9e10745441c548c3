//! The forward pass as a graph of candle-nn's layers in which every operation has a gradient.
//!
//! candle-nn's fused operations (`rms_norm`, `softmax_last_dim`, `rope`, and the layers made of
//! them) return untracked tensors: whatever lies upstream of them would silently stop learning.
//! Their plain forms (`rms_norm_slow`, `softmax`, `rope_slow`) are tracked, and are what is used
//! here; tests ask for a gradient of every tensor. This pass is the oracle for the hand-written
//! engine and the one that pre-training differentiates; it is clear rather than fast.

use super::{Config, Projection, Weights};
use crate::real::{narrow, real};
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Linear, Module, loss, ops, rotary_emb};

/// The trainable part: for a layer and projection, `(A, B, scale)` where the adapter has one.
pub(crate) type Branches<'a> =
    dyn Fn(usize, Projection) -> Option<(&'a Tensor, &'a Tensor, f64)> + 'a;

/// Logits of a batch of token ids: `(batch, positions)` to `(batch, positions, vocab)`.
pub(crate) fn logits(
    config: &Config,
    weights: &Weights,
    branches: &Branches<'_>,
    ids: &Tensor,
) -> Result<Tensor> {
    let (batch, positions) = ids.dims2()?;
    let (cos, sin) = config.rotary(positions);
    let shape = (positions, config.head_dim / 2);
    let cos = Tensor::from_vec(cos, shape, &Device::Cpu)?;
    let sin = Tensor::from_vec(sin, shape, &Device::Cpu)?;
    let mask = mask(config, positions)?;

    let mut x = weights.embedding.forward(ids)?; // (batch, positions, hidden)
    for (layer, block) in weights.layers.iter().enumerate() {
        let apply = |projection: Projection, x: &Tensor| -> Result<Tensor> {
            let found = block.linears().find(|(other, _)| *other == projection);
            let Some((_, linear)) = found else { candle_core::bail!("no such projection") };
            project(linear, branches(layer, projection), x)
        };
        let heads = |x: Tensor, count: usize| {
            x.reshape((batch, positions, count, config.head_dim))?.transpose(1, 2)?.contiguous()
        };
        let normed = rms_norm(config, &block.input_norm, &x)?;
        let q = heads(apply(Projection::Q, &normed)?, config.heads)?;
        let k = heads(apply(Projection::K, &normed)?, config.kv_heads)?;
        let (q, k) =
            (rotary_emb::rope_slow(&q, &cos, &sin)?, rotary_emb::rope_slow(&k, &cos, &sin)?);
        let v = heads(apply(Projection::V, &normed)?, config.kv_heads)?;
        let (k, v) = (repeat(config, &k)?, repeat(config, &v)?); // (batch, heads, positions, head)
        let scale = 1.0 / real(config.head_dim).sqrt();
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?;
        let attended = ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?.matmul(&v)?;
        let attended =
            attended.transpose(1, 2)?.reshape((batch, positions, config.query_width()))?;
        x = (x + apply(Projection::O, &attended)?)?;
        let normed = rms_norm(config, &block.post_norm, &x)?;
        let gate = ops::silu(&apply(Projection::Gate, &normed)?)?;
        let gated = (gate * apply(Projection::Up, &normed)?)?;
        x = (x + apply(Projection::Down, &gated)?)?;
    }
    weights.head.forward(&rms_norm(config, &weights.norm, &x)?)
}

/// Mean of `-log p(target)` over some rows of the logits: `rows` counts positions through the
/// batch, and has one of the targets for each.
pub(crate) fn mean_loss(logits: &Tensor, rows: Vec<u32>, targets: Vec<u32>) -> Result<Tensor> {
    let rows = Tensor::new(rows, &Device::Cpu)?;
    let logits = logits.flatten(0, 1)?.index_select(&rows, 0)?; // (rows, vocab)
    loss::cross_entropy(&logits, &Tensor::new(targets, &Device::Cpu)?)
}

fn project(linear: &Linear, branch: Option<(&Tensor, &Tensor, f64)>, x: &Tensor) -> Result<Tensor> {
    let y = linear.forward(x)?;
    let Some((a, b, scale)) = branch else { return Ok(y) };
    let [a, b] = [a, b].map(|factor| Linear::new(factor.clone(), None));
    y + (b.forward(&a.forward(x)?)? * scale)?
}

fn rms_norm(config: &Config, weight: &Tensor, x: &Tensor) -> Result<Tensor> {
    ops::rms_norm_slow(x, weight, narrow(config.rms_epsilon))
}

/// Each key head serves `heads / kv_heads` neighbouring query heads.
fn repeat(config: &Config, x: &Tensor) -> Result<Tensor> {
    let (batch, kv_heads, positions, head) = x.dims4()?;
    let times = config.heads / config.kv_heads;
    x.unsqueeze(2)?.expand((batch, kv_heads, times, positions, head))?.contiguous()?.reshape((
        batch,
        config.heads,
        positions,
        head,
    ))
}

fn mask(config: &Config, positions: usize) -> Result<Tensor> {
    let window = config.window.unwrap_or(usize::MAX);
    let cell = |(query, key): (usize, usize)| {
        if key <= query && query - key < window { 0.0 } else { f32::NEG_INFINITY }
    };
    let cells: Vec<f32> =
        (0..positions).flat_map(|q| (0..positions).map(move |k| (q, k))).map(cell).collect();
    Tensor::from_vec(cells, (positions, positions), &Device::Cpu)?.to_dtype(DType::F32)
}
