//! A tiny good model for tests, and the way to the shared reference vectors.

use crate::lora::write_tensors;
use crate::model::Config;
use measurement::cbor::Real;
use measurement::privacy::{Adjacency, Clipping, Mechanism, Sampler, Terms, Unit};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub(crate) const VOCAB: usize = 24;
pub(crate) const HIDDEN: usize = 8;

/// The linear layers of a Llama's block.
pub(crate) const LINEARS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(crate) fn config() -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": VOCAB,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 2,
    }))
    .unwrap()
}

/// Numbers in `±half`, the same on every run.
pub(crate) fn noise(seed: u8, count: usize, half: f32) -> Vec<f32> {
    let mut stream = ChaCha20Rng::from_seed([seed; 32]);
    let mut next = || f32::from(u16::try_from(stream.next_u32() >> 16).unwrap()) / 65536.0;
    (0..count).map(|_| (2.0 * next() - 1.0) * half).collect()
}

/// A tiny model of every family, in each of its variants: what its `config.json` says beside the
/// sizes.
pub(crate) fn families() -> Vec<(&'static str, Vec<u8>)> {
    let long = serde_json::json!({
        "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3,
        "num_attention_heads": 4, "vocab_size": VOCAB, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5,
    });
    let short = serde_json::json!({
        "n_embd": 24, "n_inner": 20, "n_layer": 3, "n_head": 4, "vocab_size": VOCAB,
        "n_positions": 32,
    });
    let stretched = serde_json::json!({
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    });
    let list = [
        ("llama", r#"{"num_key_value_heads": 2, "mlp_bias": true, "head_dim": 8}"#),
        ("mistral", r#"{"num_key_value_heads": 1, "sliding_window": 4}"#),
        (
            "qwen2",
            r#"{"use_sliding_window": true, "sliding_window": 3, "max_window_layers": 1,
                "tie_word_embeddings": true}"#,
        ),
        ("qwen3", r#"{"num_key_value_heads": 2, "head_dim": 4}"#),
        (
            "gemma2",
            r#"{"num_key_value_heads": 2, "head_dim": 4, "sliding_window": 5,
                "query_pre_attn_scalar": 10, "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 3.0}"#,
        ),
        (
            "gemma3_text",
            r#"{"num_key_value_heads": 2, "head_dim": 4, "sliding_window": 5,
                "sliding_window_pattern": 2, "query_pre_attn_scalar": 10}"#,
        ),
        ("phi", r#"{"partial_rotary_factor": 0.67}"#),
        ("gpt_neox", r#"{"rotary_pct": 0.34, "use_parallel_residual": false}"#),
        ("gpt_neox", r#"{"rotary_pct": 1.0, "hidden_act": "gelu_new", "attention_bias": false}"#),
        ("gptj", r#"{"rotary_dim": 2}"#),
        ("gpt2", r#"{"scale_attn_by_inverse_layer_idx": true}"#),
    ];
    let config = |(family, more): (&'static str, &str)| {
        let sizes = if ["gpt2", "gptj"].contains(&family) { &short } else { &long };
        let mut all = sizes.as_object().unwrap().clone();
        if family == "llama" {
            all.insert("rope_scaling".into(), stretched.clone());
        }
        all.insert("model_type".into(), family.into());
        all.extend(serde_json::from_str::<serde_json::Map<_, _>>(more).unwrap());
        (family, serde_json::to_vec(&all).unwrap())
    };
    list.into_iter().map(config).collect()
}

pub(crate) fn tensors() -> Tensors {
    random(&config())
}

/// Weights of useful size for a `config.json`, the same on every run.
pub(crate) fn random(config: &[u8]) -> Tensors {
    let all = Config::parse(config).unwrap().tensors();
    let tensor = |(i, (name, shape)): (usize, (String, Vec<usize>))| {
        let seed = u8::try_from(i).unwrap();
        let mut values = noise(seed, shape.iter().product(), 0.6);
        if name.contains("norm") {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        (name, (shape, values))
    };
    all.into_iter().enumerate().map(tensor).collect()
}

pub(crate) fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let lent = tensors.iter().map(|(n, (s, v))| (n.clone(), (s.clone(), &v[..]))).collect();
    write_tensors(&lent, &BTreeMap::new())
}

/// The same in bf16, the lower half of each value cut off.
pub(crate) fn in_bf16(tensors: &Tensors) -> Vec<u8> {
    let upper = |value: &f32| value.to_le_bytes().into_iter().skip(2);
    let cut = |values: &[f32]| values.iter().flat_map(upper).collect::<Vec<u8>>();
    let bytes: BTreeMap<_, _> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, (shape.clone(), cut(values))))
        .collect();
    let views = bytes.iter().map(|(name, (shape, data))| {
        let dtype = safetensors::Dtype::BF16;
        (name.as_str(), safetensors::tensor::TensorView::new(dtype, shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

pub(crate) fn weights() -> Vec<u8> {
    safetensors(&tensors())
}

/// A folder of reference vectors.
pub(crate) struct Folder(PathBuf);

/// The reference vectors of a model, or `None` where they are not at hand and this is not the CI.
pub(crate) fn folder(model: &str) -> Option<Folder> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/dp");
    let folder = PathBuf::from(root).join(if model == "chat" {
        "chat".into()
    } else {
        format!("models/{model}")
    });
    if folder.is_dir() {
        return Some(Folder(folder));
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the reference vectors are absent");
    println!("skipped: the reference vectors are absent");
    None
}

impl Folder {
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }

    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }
}

/// A mechanism that can be, with one change.
pub(crate) fn mechanism(change: impl FnOnce(&mut Terms)) -> Mechanism {
    let mut terms = Terms {
        adjacency: Adjacency::AddOrRemoveOne,
        clipping: Clipping::Flat,
        delta: Real(1e-7),
        expected_batch: 4,
        max_grad_norm: Real(1.0),
        max_units: 100_000,
        noise_multiplier: Real(1.1),
        physical_batch: 6,
        records_per_unit: 1,
        sample_rate: Real(0.5),
        sampler: Sampler::TruncatedPoisson,
        steps: 3,
        unit: Unit::Record,
    };
    change(&mut terms);
    Mechanism::new(terms).unwrap()
}
