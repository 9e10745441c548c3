//! The families: each file turns one kind of `config.json` into a [`Config`].
//!
//! To add one: write a file that names the tensors of a block and says what stands where
//! ([`Block`]), give it a line in [`config`] and in [`SUPPORTED`], its linear layers' names in
//! [`LINEARS`], and a small model in the tests of `engine`. No engine and no kernel changes.

mod gemma;
mod gpt2;
mod gpt_neox;
mod gptj;
mod llama;
mod phi;

use super::config::{Block, Config, Embedding, Head, Linear, Norm, NormKind};
use super::fields::{Fields, Sizes};
use serde_json::Value;

/// What a refusal of an unknown family says.
const SUPPORTED: &str = "\"gemma2\", \"gemma3_text\", \"gpt2\", \"gpt_neox\", \"gptj\", \
                         \"llama\", \"mistral\", \"phi\", \"qwen2\" or \"qwen3\"";

/// Last parts of the paths of all families' linear layers, in the order of the forward pass.
pub(crate) const LINEARS: [&str; 19] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "query_key_value",
    "c_attn",
    "o_proj",
    "out_proj",
    "dense",
    "gate_proj",
    "up_proj",
    "dense_h_to_4h",
    "c_fc",
    "fc_in",
    "fc1",
    "down_proj",
    "dense_4h_to_h",
    "c_proj",
    "fc_out",
    "fc2",
];

/// The shape of the model a file describes; `None` where the family is not known.
pub(super) fn config(fields: &mut Fields) -> Option<Config> {
    let family = fields.value("model_type");
    match family.as_str() {
        Some("gemma2") => Some(gemma::two(fields)),
        Some("gemma3_text") => Some(gemma::three(fields)),
        Some("gpt2") => Some(gpt2::config(fields)),
        Some("gpt_neox") => Some(gpt_neox::config(fields)),
        Some("gptj") => Some(gptj::config(fields)),
        Some("llama") => Some(llama::llama(fields)),
        Some("mistral") => Some(llama::mistral(fields)),
        Some("phi") => Some(phi::config(fields)),
        Some("qwen2") => Some(llama::qwen2(fields)),
        Some("qwen3") => Some(llama::qwen3(fields)),
        _ => {
            fields.refuse("model_type", &family, SUPPORTED);
            None
        }
    }
}

/// A whole model out of its parts, with what all files say in the same fields.
fn model(
    fields: &mut Fields,
    family: &'static str,
    prefix: &'static str,
    sizes: &Sizes,
    parts: (Embedding, Vec<Block>, Norm, Head),
) -> Config {
    let (embedding, blocks, norm, head) = parts;
    Config {
        family,
        prefix,
        hidden: sizes.hidden,
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_dim: sizes.head_dim,
        vocab: sizes.vocab,
        max_positions: sizes.max_positions,
        bos: fields.tokens("bos_token_id").first().copied(),
        eos: fields.tokens("eos_token_id"),
        embedding,
        blocks,
        norm,
        head,
    }
}

/// A linear layer.
fn linear(path: String, inputs: usize, outputs: usize, bias: bool) -> Linear {
    Linear { path, inputs, outputs, bias, turned: false }
}

/// A normalisation.
fn norm(kind: NormKind, path: String, width: usize, epsilon: f64) -> Norm {
    Norm { path, kind, epsilon, width }
}

/// One over the root of a head's width.
fn usual_scale(head_dim: usize) -> f32 {
    crate::real::narrow(1.0 / crate::real::real(head_dim).sqrt())
}

/// Words alone, as they are.
fn words(path: &str) -> Embedding {
    Embedding { words: path.to_owned(), positions: None, factor: 1.0 }
}

/// Refuses a switch that would change what is computed.
fn must_be_off(fields: &mut Fields, field: &'static str) {
    let value = fields.value(field);
    if !matches!(value, Value::Null | Value::Bool(false)) {
        fields.refuse(field, &value, "false");
    }
}
