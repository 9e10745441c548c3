//! GPT-2: learned positions, LayerNorm, one layer for queries, keys and values, weights stored
//! as `(inputs, outputs)` (`Conv1D`), and a head that is the embedding.

use super::{Config, Fields, Head, NormKind, model, must_be_off, norm, usual_scale};
use crate::model::config::{Activation, Attention, Block, Embedding, Linear};
use crate::model::fields::Flag;
use crate::real::single;

pub(super) fn config(fields: &mut Fields) -> Config {
    let sizes = fields.short_sizes();
    must_be_off(fields, "add_cross_attention");
    let epsilon = fields.positive_or("layer_norm_epsilon", 1e-5);
    let activation = fields.activation("activation_function", Activation::GeluTanh);
    let scaled = fields.flag("scale_attn_weights", Flag::On);
    let by_layer = fields.flag("scale_attn_by_inverse_layer_idx", Flag::Off);
    let (hidden, wide) = (sizes.hidden, sizes.intermediate);
    let layer_norm = |path: String| norm(NormKind::Layer, path, hidden, epsilon);
    let block = |layer: usize| {
        let at = format!("transformer.h.{layer}");
        let turned = |name: &str, inputs, outputs| {
            let path = format!("{at}.{name}");
            vec![Linear { path, inputs, outputs, bias: true, turned: true }]
        };
        let scale = if scaled { usual_scale(sizes.head_dim) } else { 1.0 };
        Block {
            attention: Attention {
                scale: if by_layer { scale / single(layer + 1) } else { scale },
                window: None,
                cap: None,
                rotary: None,
                head_norms: None,
                interleaved: false,
            },
            linears: [
                turned("attn.c_attn", hidden, 3 * hidden),
                turned("attn.c_proj", hidden, hidden),
                turned("mlp.c_fc", hidden, wide),
                turned("mlp.c_proj", wide, hidden),
            ],
            attention_norm: layer_norm(format!("{at}.ln_1")),
            attention_post_norm: None,
            forward_norm: Some(layer_norm(format!("{at}.ln_2"))),
            forward_post_norm: None,
            parallel: false,
            activation,
            gated: false,
        }
    };
    let blocks = (0..sizes.layers).map(block).collect();
    let embedding = Embedding {
        words: "transformer.wte".into(),
        positions: Some("transformer.wpe".into()),
        factor: 1.0,
    };
    let head = Head { tied: fields.flag("tie_word_embeddings", Flag::On), bias: false, cap: None };
    let parts = (embedding, blocks, layer_norm("transformer.ln_f".into()), head);
    model(fields, "gpt2", "transformer.", &sizes, parts)
}
