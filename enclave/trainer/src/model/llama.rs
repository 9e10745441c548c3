//! The forward pass as a candle graph in which every operation has a gradient.
//!
//! candle-nn's fused softmax, RMSNorm and rotary operations return untracked tensors: whatever
//! lies upstream of them would silently stop learning. None of them is used here. This pass is
//! the oracle for the hand-written engine and the one that pre-training differentiates; it is
//! clear rather than fast.

use super::{Config, Linear, Projection, Weights};
use candle_core::{D, DType, Device, Result, Tensor};

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

    let mut x = weights.embedding.index_select(&ids.flatten_all()?, 0)?; // (batch * positions, hidden)
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
        let q = rotate(&heads(apply(Projection::Q, &normed)?, config.heads)?, &cos, &sin)?;
        let k = rotate(&heads(apply(Projection::K, &normed)?, config.kv_heads)?, &cos, &sin)?;
        let v = heads(apply(Projection::V, &normed)?, config.kv_heads)?;
        let (k, v) = (repeat(config, &k)?, repeat(config, &v)?); // (batch, heads, positions, head)
        let scale = 1.0 / crate::real::real(config.head_dim).sqrt();
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?;
        let attended = softmax(&scores.broadcast_add(&mask)?)?.matmul(&v)?;
        let attended =
            attended.transpose(1, 2)?.reshape((batch * positions, config.query_width()))?;
        x = (x + apply(Projection::O, &attended)?)?;
        let normed = rms_norm(config, &block.post_norm, &x)?;
        let gated = (apply(Projection::Gate, &normed)?.silu()? * apply(Projection::Up, &normed)?)?;
        x = (x + apply(Projection::Down, &gated)?)?;
    }
    let x = rms_norm(config, &weights.norm, &x)?;
    x.matmul(&weights.head.t()?)?.reshape((batch, positions, config.vocab))
}

/// Sum over rows of `weight * -log p(target)`, in f32. Targets and weights are `(rows)`.
pub(crate) fn weighted_loss(logits: &Tensor, targets: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let logits = logits.flatten(0, 1)?; // (rows, vocab)
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let normaliser = shifted.exp()?.sum(D::Minus1)?.log()?;
    let chosen = shifted.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?;
    ((normaliser - chosen)? * weights)?.sum_all()
}

fn project(linear: &Linear, branch: Option<(&Tensor, &Tensor, f64)>, x: &Tensor) -> Result<Tensor> {
    let mut y = x.matmul(&linear.weight.t()?)?;
    if let Some(bias) = &linear.bias {
        y = y.broadcast_add(bias)?;
    }
    match branch {
        Some((a, b, scale)) => y + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * scale)?,
        None => Ok(y),
    }
}

fn rms_norm(config: &Config, weight: &Tensor, x: &Tensor) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + config.rms_epsilon)?.sqrt()?)?.broadcast_mul(weight)
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// Rotates the two halves of each head: `(batch, heads, positions, head)`.
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (left, right) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let turned_left = (left.broadcast_mul(cos)? - right.broadcast_mul(sin)?)?;
    let turned_right = (right.broadcast_mul(cos)? + left.broadcast_mul(sin)?)?;
    Tensor::cat(&[turned_left, turned_right], D::Minus1)
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
