//! Phi 1, 1.5 and 2: attention and feed-forward layer side by side on one LayerNorm, biases
//! everywhere, a part of each head turns.

use super::{Config, Fields, Head, NormKind, linear, model, must_be_off, norm, usual_scale, words};
use crate::model::config::{Activation, Attention, Block};
use crate::model::fields::Flag;

pub(super) fn config(fields: &mut Fields) -> Config {
    let sizes = fields.sizes(None);
    must_be_off(fields, "qk_layernorm");
    let epsilon = fields.positive_or("layer_norm_eps", 1e-5);
    let activation = fields.activation("hidden_act", Activation::GeluTanh);
    let turning = fields.partial("partial_rotary_factor", 0.5, sizes.head_dim);
    let rotary = fields.rotary("full_attention", turning);
    let (d, wide) = (sizes.head_dim, sizes.intermediate);
    let (hidden, queries, keys) = (sizes.hidden, sizes.heads * d, sizes.kv_heads * d);
    let layer_norm = |path: String| norm(NormKind::Layer, path, hidden, epsilon);
    let block = |layer: usize| {
        let at = format!("model.layers.{layer}");
        let one =
            |name: &str, inputs, outputs| linear(format!("{at}.{name}"), inputs, outputs, true);
        Block {
            attention: Attention {
                scale: usual_scale(d),
                window: None,
                cap: None,
                rotary: Some(rotary),
                head_norms: None,
                interleaved: false,
            },
            linears: [
                vec![
                    one("self_attn.q_proj", hidden, queries),
                    one("self_attn.k_proj", hidden, keys),
                    one("self_attn.v_proj", hidden, keys),
                ],
                vec![one("self_attn.dense", queries, hidden)],
                vec![one("mlp.fc1", hidden, wide)],
                vec![one("mlp.fc2", wide, hidden)],
            ],
            attention_norm: layer_norm(format!("{at}.input_layernorm")),
            attention_post_norm: None,
            forward_norm: None,
            forward_post_norm: None,
            parallel: true,
            activation,
            gated: false,
        }
    };
    let blocks = (0..sizes.layers).map(block).collect();
    let head = Head { tied: fields.flag("tie_word_embeddings", Flag::Off), bias: true, cap: None };
    let last = layer_norm("model.final_layernorm".into());
    let parts = (words("model.embed_tokens"), blocks, last, head);
    model(fields, "phi", "model.", &sizes, parts)
}
