//! Llama 2, 3 and 3.x, Mistral, Qwen2 and Qwen3: RMSNorm, rotary halves, shared key heads and a
//! gated feed-forward layer. They differ in biases, windows and normed heads.

use super::{Config, Fields, Head, Norm, NormKind, Sizes, linear, model, norm, usual_scale, words};
use crate::model::config::{Activation, Attention, Block};
use crate::model::fields::Flag;

/// Where the family's members differ.
struct Kind {
    family: &'static str,
    qkv_bias: bool,
    output_bias: bool,
    forward_bias: bool,
    head_norms: bool,
    /// The window of each block.
    windows: Vec<Option<usize>>,
}

/// Llama: `attention_bias` and `mlp_bias` say which layers have biases.
pub(super) fn llama(fields: &mut Fields) -> Config {
    let sizes = fields.sizes(None);
    let (bias, mlp) =
        (fields.flag("attention_bias", Flag::Off), fields.flag("mlp_bias", Flag::Off));
    let windows = vec![None; sizes.layers];
    config(fields, sizes, Kind { forward_bias: mlp, ..kind("llama", bias, windows) })
}

/// Mistral: every block sees a window only, where the file gives one.
pub(super) fn mistral(fields: &mut Fields) -> Config {
    let sizes = fields.sizes(None);
    let windows = vec![fields.length("sliding_window"); sizes.layers];
    config(fields, sizes, kind("mistral", false, windows))
}

/// Qwen2: queries, keys and values have biases.
pub(super) fn qwen2(fields: &mut Fields) -> Config {
    let sizes = fields.sizes(None);
    let windows = qwen_windows(fields, sizes.layers);
    config(fields, sizes, Kind { output_bias: false, ..kind("qwen2", true, windows) })
}

/// Qwen3: queries and keys are normed head by head.
pub(super) fn qwen3(fields: &mut Fields) -> Config {
    let sizes = fields.sizes(Some(128));
    let windows = qwen_windows(fields, sizes.layers);
    let bias = fields.flag("attention_bias", Flag::Off);
    config(fields, sizes, Kind { head_norms: true, ..kind("qwen3", bias, windows) })
}

fn kind(family: &'static str, attention_bias: bool, windows: Vec<Option<usize>>) -> Kind {
    Kind {
        family,
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        forward_bias: false,
        head_norms: false,
        windows,
    }
}

/// `sliding_window` stands in files that do not use it; blocks from `max_window_layers` on do.
fn qwen_windows(fields: &mut Fields, layers: usize) -> Vec<Option<usize>> {
    if !fields.flag("use_sliding_window", Flag::Off) {
        return vec![None; layers];
    }
    let window = fields.length("sliding_window");
    let first = fields.count("max_window_layers", 1 << 24, Some(28));
    let sliding = fields.sliding(layers, |layer| layer >= first);
    sliding.into_iter().map(|sliding| window.filter(|_| sliding)).collect()
}

fn config(fields: &mut Fields, sizes: Sizes, kind: Kind) -> Config {
    let epsilon = fields.positive_top("rms_norm_eps");
    let rotary = fields.rotary("full_attention", sizes.head_dim);
    let activation = fields.activation("hidden_act", Activation::Silu);
    let rms = |path: String, width| norm(NormKind::Rms, path, width, epsilon);
    let (d, wide) = (sizes.head_dim, sizes.intermediate);
    let (hidden, queries, keys) = (sizes.hidden, sizes.heads * d, sizes.kv_heads * d);
    let block = |(layer, window): (usize, &Option<usize>)| {
        let at = format!("model.layers.{layer}");
        let attention = |name: &str, inputs, outputs, bias| {
            linear(format!("{at}.self_attn.{name}"), inputs, outputs, bias)
        };
        let forward = |name: &str, inputs, outputs| {
            linear(format!("{at}.mlp.{name}"), inputs, outputs, kind.forward_bias)
        };
        let head_norm = |name: &str| -> Norm { rms(format!("{at}.self_attn.{name}"), d) };
        Block {
            attention: Attention {
                scale: usual_scale(d),
                window: *window,
                cap: None,
                rotary: Some(rotary),
                head_norms: kind.head_norms.then(|| [head_norm("q_norm"), head_norm("k_norm")]),
                interleaved: false,
            },
            linears: [
                vec![
                    attention("q_proj", hidden, queries, kind.qkv_bias),
                    attention("k_proj", hidden, keys, kind.qkv_bias),
                    attention("v_proj", hidden, keys, kind.qkv_bias),
                ],
                vec![attention("o_proj", queries, hidden, kind.output_bias)],
                vec![forward("gate_proj", hidden, wide), forward("up_proj", hidden, wide)],
                vec![forward("down_proj", wide, hidden)],
            ],
            attention_norm: rms(format!("{at}.input_layernorm"), hidden),
            attention_post_norm: None,
            forward_norm: Some(rms(format!("{at}.post_attention_layernorm"), hidden)),
            forward_post_norm: None,
            parallel: false,
            activation,
            gated: true,
        }
    };
    let blocks = kind.windows.iter().enumerate().map(block).collect();
    let head = Head { tied: fields.flag("tie_word_embeddings", Flag::Off), bias: false, cap: None };
    let parts = (words("model.embed_tokens"), blocks, rms("model.norm".into(), hidden), head);
    model(fields, kind.family, "model.", &sizes, parts)
}
