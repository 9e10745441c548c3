//! The shape of a model: what its blocks compute, described as data that every engine reads.
//!
//! A family (a file under `family/`) turns a `config.json` into one [`Config`]; nothing else in
//! this crate knows the name of a family.

use super::fields::Fields;
use super::rotary::Rotary;
use super::{Finding, Unusable, family};
use serde_json::Value;

/// The shape of a decoder-only model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family, as `model_type` names it.
    pub family: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocab: usize,
    /// Longest sequence the model was made for.
    pub max_positions: usize,
    /// First token of every sequence, where the model has one.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    pub(crate) embedding: Embedding,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Norm,
    pub(crate) head: Head,
    /// What all tensors but the head's begin with; some files leave it out.
    pub(crate) prefix: &'static str,
}

/// The residual stream at the start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Embedding {
    /// Module with one row a token.
    pub(crate) words: String,
    /// Module with one row a position, added to the words.
    pub(crate) positions: Option<String>,
    /// The words are multiplied by this.
    pub(crate) factor: f32,
}

/// Residual stream to logits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    /// The head is the embedding's words and is not stored.
    pub(crate) tied: bool,
    pub(crate) bias: bool,
    /// Logits are `cap * tanh(logit / cap)`.
    pub(crate) cap: Option<f32>,
}

impl Head {
    pub(crate) const PATH: &'static str = "lm_head";
}

/// A normalisation over the last axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Norm {
    pub(crate) path: String,
    pub(crate) kind: NormKind,
    /// Added under the root.
    pub(crate) epsilon: f64,
    pub(crate) width: usize,
}

/// What a normalisation computes of a row x.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NormKind {
    /// `(x - mean) / deviation * w + b`
    Layer,
    /// `x / rms * w`
    Rms,
    /// `x / rms * (1 + w)`
    RmsPlusOne,
}

/// A linear layer of a block, which an adapter may target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linear {
    /// The module's path inside the model.
    pub(crate) path: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) bias: bool,
    /// The file holds `(inputs, outputs)`: GPT-2's `Conv1D`.
    pub(crate) turned: bool,
}

impl Linear {
    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}

/// The linear layers of a block by what they read: the members of a group read the same input,
/// and their outputs stand side by side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Group {
    /// Normed residual stream to queries, keys and values.
    Qkv,
    /// Attention's result to the residual stream.
    Output,
    /// Normed residual stream to the feed-forward layer: `[gate | up]`, or its inside alone.
    Widen,
    /// The activated inside of the feed-forward layer to the residual stream.
    Narrow,
}

/// One block: attention and a feed-forward layer between residual additions.
///
/// In sequence, `m = x + post_a(attention(pre_a(x)))` and `out = m + post_f(forward(pre_f(m)))`;
/// in parallel, `out = x + attention(pre_a(x)) + forward(pre_f(x))`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Block {
    pub(crate) attention: Attention,
    pub(crate) linears: [Vec<Linear>; 4],
    /// `pre_a`
    pub(crate) attention_norm: Norm,
    /// `post_a`
    pub(crate) attention_post_norm: Option<Norm>,
    /// `pre_f`; where absent, the feed-forward layer reads what attention read.
    pub(crate) forward_norm: Option<Norm>,
    /// `post_f`
    pub(crate) forward_post_norm: Option<Norm>,
    pub(crate) parallel: bool,
    pub(crate) activation: Activation,
    /// `activation(gate) * up` instead of `activation(inside)`.
    pub(crate) gated: bool,
}

impl Block {
    /// The members of a group.
    pub(crate) fn group(&self, group: Group) -> &[Linear] {
        let [qkv, output, widen, narrow] = &self.linears;
        match group {
            Group::Qkv => qkv,
            Group::Output => output,
            Group::Widen => widen,
            Group::Narrow => narrow,
        }
    }

    pub(crate) fn norms(&self) -> impl Iterator<Item = &Norm> {
        let post = [&self.attention_post_norm, &self.forward_norm, &self.forward_post_norm];
        let heads = self.attention.head_norms.iter().flatten();
        [&self.attention_norm].into_iter().chain(post.into_iter().flatten()).chain(heads)
    }
}

/// How queries meet keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attention {
    /// Scores are multiplied by this.
    pub(crate) scale: f32,
    /// A query at position i sees keys j with `i - window < j <= i`.
    pub(crate) window: Option<usize>,
    /// Scores are `cap * tanh(score / cap)`.
    pub(crate) cap: Option<f32>,
    pub(crate) rotary: Option<Rotary>,
    /// Normalisations of each query and each key head, before rotation.
    pub(crate) head_norms: Option<[Norm; 2]>,
    /// Query, key and value of one head stand together, head after head (GPT-NeoX).
    pub(crate) interleaved: bool,
}

/// The non-linear function of the feed-forward layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Activation {
    /// `x Φ(x)`
    Gelu,
    /// GELU with the approximation by tanh.
    GeluTanh,
    /// `x sigmoid(x)`
    Silu,
}

/// Real files are a few kilobytes.
const MAX_BYTES: usize = 1 << 20;

impl Config {
    /// Reads a `config.json`. Fields that do not change what is computed are ignored, as the
    /// file belongs to another library and its digest is pinned by the manifest.
    ///
    /// # Errors
    /// Every field that is absent, unsupported or contradicts another.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unusable> {
        if bytes.len() > MAX_BYTES {
            return Err(Finding::ConfigSize { observed: bytes.len(), required: MAX_BYTES }.into());
        }
        let Ok(root @ Value::Object(_)) = serde_json::from_slice(bytes) else {
            return Err(Finding::ConfigSyntax.into());
        };
        let mut fields = Fields::new(root);
        let config = family::config(&mut fields);
        Unusable::unless_empty(fields.finish())?;
        config.ok_or_else(|| Finding::ConfigSyntax.into())
    }

    /// Paths of all linear layers of the blocks, which an adapter may target, in the order of the
    /// forward pass.
    pub fn linears(&self) -> impl Iterator<Item = &str> {
        self.all_linears().map(|(_, linear)| linear.path.as_str())
    }

    /// All linear layers of the blocks with the number of their block.
    pub(crate) fn all_linears(&self) -> impl Iterator<Item = (usize, &Linear)> {
        self.blocks
            .iter()
            .enumerate()
            .flat_map(|(layer, block)| block.linears.iter().flatten().map(move |l| (layer, l)))
    }

    /// Names and shapes of all tensors a checkpoint of this shape holds.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut all = vec![(weight(&self.embedding.words), vec![self.vocab, self.hidden])];
        if let Some(path) = &self.embedding.positions {
            all.push((weight(path), vec![self.max_positions, self.hidden]));
        }
        for block in &self.blocks {
            block.norms().for_each(|norm| norm.tensors(&mut all));
            block.linears.iter().flatten().for_each(|linear| linear.tensors(&mut all));
        }
        self.norm.tensors(&mut all);
        if !self.head.tied {
            all.push((weight(Head::PATH), vec![self.vocab, self.hidden]));
        }
        if self.head.bias {
            all.push((bias(Head::PATH), vec![self.vocab]));
        }
        all
    }

    /// The name of a tensor as [`Config::tensors`] has it, for a name in a file: files saved from
    /// the model without its head leave the prefix out, and GPT-NeoX once called the head
    /// `embed_out`.
    pub(crate) fn canonical(&self, name: &str) -> String {
        if let (Some(rest), "gpt_neox") = (name.strip_prefix("embed_out."), self.family) {
            return format!("{}.{rest}", Head::PATH);
        }
        if name.starts_with(self.prefix) || name.starts_with(Head::PATH) {
            return name.to_owned();
        }
        format!("{}{name}", self.prefix)
    }

    /// Width of all query heads together.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of queries, keys and values side by side.
    pub(crate) fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// First columns of a query head and of its key and value heads among queries, keys and
    /// values side by side.
    pub(crate) fn head_columns(&self, block: &Block, head: usize) -> [usize; 3] {
        let d = self.head_dim;
        if block.attention.interleaved {
            return [3 * head * d, (3 * head + 1) * d, (3 * head + 2) * d];
        }
        let shared = head / (self.heads / self.kv_heads);
        let keys = self.heads + shared;
        [head * d, keys * d, (keys + self.kv_heads) * d]
    }
}

/// The name of a module's weight.
pub(crate) fn weight(path: &str) -> String {
    format!("{path}.weight")
}

/// The name of a module's bias.
pub(crate) fn bias(path: &str) -> String {
    format!("{path}.bias")
}

impl Norm {
    fn tensors(&self, into: &mut Vec<(String, Vec<usize>)>) {
        if self.kind == NormKind::Layer {
            into.push((bias(&self.path), vec![self.width]));
        }
        into.push((weight(&self.path), vec![self.width]));
    }
}

impl Linear {
    fn tensors(&self, into: &mut Vec<(String, Vec<usize>)>) {
        if self.bias {
            into.push((bias(&self.path), vec![self.outputs]));
        }
        let shape =
            if self.turned { [self.inputs, self.outputs] } else { [self.outputs, self.inputs] };
        into.push((weight(&self.path), shape.to_vec()));
    }
}
