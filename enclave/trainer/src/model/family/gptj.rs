//! GPT-J: attention and feed-forward layer side by side on one LayerNorm, rotary neighbours over
//! the first columns of a head, a head with a bias.

use super::{Config, Fields, Head, NormKind, linear, model, norm, usual_scale, words};
use crate::model::config::{Activation, Attention, Block};
use crate::model::fields::Flag;
use crate::model::rotary::{Pairing, Rotary};

pub(super) fn config(fields: &mut Fields) -> Config {
    let sizes = fields.short_sizes();
    let epsilon = fields.positive_or("layer_norm_epsilon", 1e-5);
    let activation = fields.activation("activation_function", Activation::GeluTanh);
    let turning = fields.count("rotary_dim", 4096, Some(64));
    let fits = turning <= sizes.head_dim && turning.is_multiple_of(2);
    fields.check("rotary_dim", fits, "even and at most the width of a head");
    let rotary = fields.rotary("full_attention", turning.min(sizes.head_dim));
    let rotary = Rotary { pairing: Pairing::Neighbours, ..rotary };
    let (hidden, wide) = (sizes.hidden, sizes.intermediate);
    let layer_norm = |path: String| norm(NormKind::Layer, path, hidden, epsilon);
    let block = |layer: usize| {
        let at = format!("transformer.h.{layer}");
        let attention = |name: &str| linear(format!("{at}.attn.{name}"), hidden, hidden, false);
        let forward =
            |name: &str, inputs, outputs| linear(format!("{at}.mlp.{name}"), inputs, outputs, true);
        Block {
            attention: Attention {
                scale: usual_scale(sizes.head_dim),
                window: None,
                cap: None,
                rotary: Some(rotary),
                head_norms: None,
                interleaved: false,
            },
            linears: [
                vec![attention("q_proj"), attention("k_proj"), attention("v_proj")],
                vec![attention("out_proj")],
                vec![forward("fc_in", hidden, wide)],
                vec![forward("fc_out", wide, hidden)],
            ],
            attention_norm: layer_norm(format!("{at}.ln_1")),
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
    let parts = (words("transformer.wte"), blocks, layer_norm("transformer.ln_f".into()), head);
    model(fields, "gptj", "transformer.", &sizes, parts)
}
