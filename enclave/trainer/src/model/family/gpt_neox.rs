//! GPT-NeoX and Pythia: query, key and value of a head stand together in one layer, attention and
//! feed-forward layer side by side on a LayerNorm each, a part of each head turns.

use super::{Config, Fields, Head, NormKind, linear, model, norm, usual_scale, words};
use crate::model::config::{Activation, Attention, Block};
use crate::model::fields::Flag;

pub(super) fn config(fields: &mut Fields) -> Config {
    let sizes = fields.sizes(None);
    let epsilon = fields.positive_or("layer_norm_eps", 1e-5);
    let activation = fields.activation("hidden_act", Activation::Gelu);
    let bias = fields.flag("attention_bias", Flag::On);
    let parallel = fields.flag("use_parallel_residual", Flag::On);
    let turning = fields.partial("rotary_pct", 0.25, sizes.head_dim);
    let rotary = fields.rotary("full_attention", turning);
    let (hidden, wide) = (sizes.hidden, sizes.intermediate);
    let layer_norm = |path: String| norm(NormKind::Layer, path, hidden, epsilon);
    let block = |layer: usize| {
        let at = format!("gpt_neox.layers.{layer}");
        let one = |name: &str, inputs, outputs, bias| {
            vec![linear(format!("{at}.{name}"), inputs, outputs, bias)]
        };
        Block {
            attention: Attention {
                scale: usual_scale(sizes.head_dim),
                window: None,
                cap: None,
                rotary: Some(rotary),
                head_norms: None,
                interleaved: true,
            },
            linears: [
                one("attention.query_key_value", hidden, 3 * hidden, bias),
                one("attention.dense", hidden, hidden, bias),
                one("mlp.dense_h_to_4h", hidden, wide, true),
                one("mlp.dense_4h_to_h", wide, hidden, true),
            ],
            attention_norm: layer_norm(format!("{at}.input_layernorm")),
            attention_post_norm: None,
            forward_norm: Some(layer_norm(format!("{at}.post_attention_layernorm"))),
            forward_post_norm: None,
            parallel,
            activation,
            gated: false,
        }
    };
    let blocks = (0..sizes.layers).map(block).collect();
    let head = Head { tied: fields.flag("tie_word_embeddings", Flag::Off), bias: false, cap: None };
    let last = layer_norm("gpt_neox.final_layer_norm".into());
    let parts = (words("gpt_neox.embed_in"), blocks, last, head);
    model(fields, "gpt_neox", "gpt_neox.", &sizes, parts)
}
