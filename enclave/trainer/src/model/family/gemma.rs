//! Gemma 2 and the text model of Gemma 3: RMSNorm by `1 + w` before and after each part, words
//! scaled by the root of the width, a gated GELU, and blocks that see a window only. Gemma 2 caps
//! its scores and logits; Gemma 3 norms its heads and turns windowed blocks at another speed.

use super::{Config, Fields, Head, NormKind, linear, model, must_be_off, norm, words};
use crate::model::config::{Activation, Attention, Block, Embedding};
use crate::model::fields::{Flag, Sizes};
use crate::model::rotary::{Rotary, Scaling};
use crate::real::{narrow, real};

struct Kind {
    family: &'static str,
    head_norms: bool,
    sliding: Vec<bool>,
    /// Of blocks that see everything, and of those that see a window.
    rotary: [Rotary; 2],
    attention_cap: Option<f64>,
    final_cap: Option<f64>,
}

/// Gemma 2: every other block, from the first on, sees a window.
pub(super) fn two(fields: &mut Fields) -> Config {
    let sizes = fields.sizes(Some(256));
    let rotary = fields.rotary("full_attention", sizes.head_dim);
    let kind = Kind {
        family: "gemma2",
        head_norms: false,
        sliding: fields.sliding(sizes.layers, |layer| layer.is_multiple_of(2)),
        rotary: [rotary; 2],
        attention_cap: fields.cap("attn_logit_softcapping", Some(50.0)),
        final_cap: fields.cap("final_logit_softcapping", Some(30.0)),
    };
    config(fields, &sizes, &kind)
}

/// Gemma 3: all blocks but every sixth see a window.
pub(super) fn three(fields: &mut Fields) -> Config {
    let sizes = fields.sizes(Some(256));
    let pattern = fields.count("sliding_window_pattern", 1024, Some(6));
    let kind = Kind {
        family: "gemma3_text",
        head_norms: true,
        sliding: fields.sliding(sizes.layers, |layer| !(layer + 1).is_multiple_of(pattern)),
        rotary: rotaries(fields, sizes.head_dim),
        attention_cap: fields.cap("attn_logit_softcapping", None),
        final_cap: fields.cap("final_logit_softcapping", None),
    };
    config(fields, &sizes, &kind)
}

/// In the old dialect windowed blocks turn with `rope_local_base_freq` and are not stretched.
fn rotaries(fields: &mut Fields, width: usize) -> [Rotary; 2] {
    let (full, local) =
        (fields.rotary("full_attention", width), fields.rotary("sliding_attention", width));
    if fields.has("rope_parameters") {
        return [full, local];
    }
    let theta = fields.positive_or("rope_local_base_freq", 10_000.0);
    let full = if fields.has("rope_theta") { full } else { Rotary { theta: 1e6, ..full } };
    [full, Rotary { theta, scaling: Scaling::Default, ..full }]
}

fn config(fields: &mut Fields, sizes: &Sizes, kind: &Kind) -> Config {
    must_be_off(fields, "use_bidirectional_attention");
    let epsilon = fields.positive_or("rms_norm_eps", 1e-6);
    let bias = fields.flag("attention_bias", Flag::Off);
    let named = if fields.has("hidden_activation") { "hidden_activation" } else { "hidden_act" };
    let activation = fields.activation(named, Activation::GeluTanh);
    let scale = narrow(1.0 / fields.positive_or("query_pre_attn_scalar", 256.0).sqrt());
    let window = fields.count("sliding_window", 1 << 24, Some(4096));
    let rms = |path: String, width| norm(NormKind::RmsPlusOne, path, width, epsilon);
    let (d, wide) = (sizes.head_dim, sizes.intermediate);
    let (hidden, queries, keys) = (sizes.hidden, sizes.heads * d, sizes.kv_heads * d);
    let block = |(layer, &sliding): (usize, &bool)| {
        let at = format!("model.layers.{layer}");
        let attention = |name: &str, inputs, outputs| {
            linear(format!("{at}.self_attn.{name}"), inputs, outputs, bias)
        };
        let forward = |name: &str, inputs, outputs| {
            linear(format!("{at}.mlp.{name}"), inputs, outputs, false)
        };
        let around = |name: &str| rms(format!("{at}.{name}_layernorm"), hidden);
        let head_norm = |name: &str| rms(format!("{at}.self_attn.{name}_norm"), d);
        let [full, local] = kind.rotary;
        Block {
            attention: Attention {
                scale,
                window: sliding.then_some(window),
                cap: kind.attention_cap.map(narrow),
                rotary: Some(if sliding { local } else { full }),
                head_norms: kind.head_norms.then(|| [head_norm("q"), head_norm("k")]),
                interleaved: false,
            },
            linears: [
                vec![
                    attention("q_proj", hidden, queries),
                    attention("k_proj", hidden, keys),
                    attention("v_proj", hidden, keys),
                ],
                vec![attention("o_proj", queries, hidden)],
                vec![forward("gate_proj", hidden, wide), forward("up_proj", hidden, wide)],
                vec![forward("down_proj", wide, hidden)],
            ],
            attention_norm: around("input"),
            attention_post_norm: Some(around("post_attention")),
            forward_norm: Some(around("pre_feedforward")),
            forward_post_norm: Some(around("post_feedforward")),
            parallel: false,
            activation,
            gated: true,
        }
    };
    let blocks = kind.sliding.iter().enumerate().map(block).collect();
    let tied = fields.flag("tie_word_embeddings", Flag::On);
    let head = Head { tied, bias: false, cap: kind.final_cap.map(narrow) };
    let embedding =
        Embedding { factor: narrow(real(hidden).sqrt()), ..words("model.embed_tokens") };
    let parts = (embedding, blocks, rms("model.norm".into(), hidden), head);
    model(fields, kind.family, "model.", sizes, parts)
}
