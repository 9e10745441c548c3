//! `config.json` of the Llama family, in the two dialects real checkpoints carry.
//!
//! Up to transformers 4 the rotary base stands at the top level as `rope_theta` with an optional
//! `rope_scaling`; transformers 5 writes both into `rope_parameters`.

use super::{Finding, Unusable};
use crate::real::{narrow, real, single};
use core::f64::consts::PI;
use serde_json::Value;

/// The shape of a Llama-family model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocab: usize,
    /// Longest sequence the model was made for.
    pub max_positions: usize,
    /// Added under the root of RMSNorm.
    pub rms_epsilon: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// The head is the transposed embedding and is absent from the file.
    pub tied: bool,
    /// q, k, v and o have biases.
    pub attention_bias: bool,
    /// gate, up and down have biases.
    pub mlp_bias: bool,
    /// A query at position i sees keys j with `i - window < j <= i`.
    pub window: Option<usize>,
    /// First token of every sequence, where the model has one.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// Rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the series is stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are stretched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// As they are.
    Default,
    /// All frequencies divided by a factor.
    Linear(f64),
    /// Llama 3: long wavelengths stretched, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of the lowest frequencies.
        factor: f64,
        /// Where the ramp ends, in turns over the original context.
        low: f64,
        /// Where the ramp begins, in turns over the original context.
        high: f64,
        /// Context length before stretching.
        original: f64,
    },
}

/// The linear layers of a block, which an adapter may target.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Projection {
    /// `self_attn.q_proj`
    Q,
    /// `self_attn.k_proj`
    K,
    /// `self_attn.v_proj`
    V,
    /// `self_attn.o_proj`
    O,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

impl Projection {
    /// All seven, in the order of the forward pass.
    pub const ALL: [Self; 7] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The name PEFT's `target_modules` uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The projection of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.name() == name)
    }

    /// The module's path inside the model, without a leading dot.
    pub fn path(self, layer: usize) -> String {
        let part = if self.in_attention() { "self_attn" } else { "mlp" };
        format!("model.layers.{layer}.{part}.{}", self.name())
    }

    pub(crate) const fn in_attention(self) -> bool {
        matches!(self, Self::Q | Self::K | Self::V | Self::O)
    }
}

/// Real files are a few kilobytes.
const MAX_BYTES: usize = 1 << 20;
const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCAB: usize = 1 << 22;

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
        let mut fields = Fields { root, findings: Vec::new() };
        let config = fields.config();
        Unusable::unless_empty(fields.findings)?;
        Ok(config)
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Inputs and outputs of a linear layer.
    pub fn widths(&self, projection: Projection) -> (usize, usize) {
        match projection {
            Projection::Q => (self.hidden, self.query_width()),
            Projection::K | Projection::V => (self.hidden, self.key_width()),
            Projection::O => (self.query_width(), self.hidden),
            Projection::Gate | Projection::Up => (self.hidden, self.intermediate),
            Projection::Down => (self.intermediate, self.hidden),
        }
    }

    /// Whether a linear layer has a bias.
    pub fn has_bias(&self, projection: Projection) -> bool {
        if projection.in_attention() { self.attention_bias } else { self.mlp_bias }
    }

    /// Names and shapes of all tensors a checkpoint of this shape holds.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut all = vec![("model.embed_tokens.weight".into(), vec![self.vocab, self.hidden])];
        for layer in 0..self.layers {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                all.push((format!("model.layers.{layer}.{norm}.weight"), vec![self.hidden]));
            }
            for projection in Projection::ALL {
                let (inputs, outputs) = self.widths(projection);
                let path = projection.path(layer);
                if self.has_bias(projection) {
                    all.push((format!("{path}.bias"), vec![outputs]));
                }
                all.push((format!("{path}.weight"), vec![outputs, inputs]));
            }
        }
        all.push(("model.norm.weight".into(), vec![self.hidden]));
        if !self.tied {
            all.push(("lm_head.weight".into(), vec![self.vocab, self.hidden]));
        }
        all
    }

    /// Cosines and sines of the rotary angles, each `positions` rows of `head_dim / 2`.
    ///
    /// Frequencies and angles are rounded to single precision as transformers rounds them; the
    /// functions are libm's, so that every machine gets the same bits.
    pub(crate) fn rotary(&self, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies: Vec<f32> = (0..self.head_dim / 2).map(|i| self.frequency(i)).collect();
        let angles = (0..positions)
            .flat_map(|position| frequencies.iter().map(move |f| f64::from(single(position) * f)));
        angles.map(|angle| (narrow(libm::cos(angle)), narrow(libm::sin(angle)))).unzip()
    }

    fn frequency(&self, pair: usize) -> f32 {
        let plain = libm::pow(self.rope.theta, -2.0 * real(pair) / real(self.head_dim));
        narrow(match self.rope.scaling {
            RopeScaling::Default => plain,
            RopeScaling::Linear(factor) => plain / factor,
            RopeScaling::Llama3 { factor, low, high, original } => {
                let turns = original * plain / (2.0 * PI);
                let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - keep) * plain / factor + keep * plain
            }
        })
    }
}

/// The object being read and what was wrong with it so far.
struct Fields {
    root: Value,
    findings: Vec<Finding>,
}

impl Fields {
    fn config(&mut self) -> Config {
        self.one_of("model_type", &["llama", "mistral"], "\"llama\" or \"mistral\"");
        if self.root.get("hidden_act").is_some() {
            self.one_of("hidden_act", &["silu"], "\"silu\"");
        }
        let hidden = self.count("hidden_size", MAX_WIDTH, None);
        let intermediate = self.count("intermediate_size", MAX_WIDTH, None);
        let layers = self.count("num_hidden_layers", 1024, None);
        let heads = self.count("num_attention_heads", 4096, None);
        let kv_heads = self.count("num_key_value_heads", 4096, Some(heads));
        self.check(
            "num_key_value_heads",
            heads.is_multiple_of(kv_heads),
            "a divisor of num_attention_heads",
        );
        if !self.has("head_dim") {
            self.check(
                "hidden_size",
                hidden.is_multiple_of(heads),
                "a multiple of num_attention_heads",
            );
        }
        let head_dim = self.count("head_dim", 4096, Some(hidden / heads));
        self.check("head_dim", head_dim.is_multiple_of(2) && head_dim > 0, "even and positive");
        Config {
            hidden,
            intermediate,
            layers,
            heads,
            kv_heads,
            head_dim,
            vocab: self.count("vocab_size", MAX_VOCAB, None),
            max_positions: self.count("max_position_embeddings", 1 << 24, Some(2048)),
            rms_epsilon: self.positive_top("rms_norm_eps"),
            rope: self.rope(),
            tied: self.flag("tie_word_embeddings"),
            attention_bias: self.flag("attention_bias"),
            mlp_bias: self.flag("mlp_bias"),
            window: self.has("sliding_window").then(|| self.count("sliding_window", 1 << 24, None)),
            bos: self.tokens("bos_token_id").first().copied(),
            eos: self.tokens("eos_token_id"),
        }
    }

    fn rope(&mut self) -> Rope {
        let object = |name| self.root.get(name).filter(|v| v.is_object()).cloned();
        let parameters = object("rope_parameters");
        let scaling = parameters.clone().or_else(|| object("rope_scaling")).unwrap_or(Value::Null);
        let theta = parameters
            .as_ref()
            .and_then(|p| p.get("rope_theta"))
            .or_else(|| self.root.get("rope_theta"))
            .cloned()
            .unwrap_or_else(|| Value::from(10_000.0));
        Rope { theta: self.positive("rope_theta", &theta), scaling: self.scaling(&scaling) }
    }

    fn scaling(&mut self, object: &Value) -> RopeScaling {
        let kind = object.get("rope_type").or_else(|| object.get("type")).cloned();
        let kind = kind.unwrap_or_else(|| Value::from("default"));
        let mut number =
            |name: &'static str| self.positive(name, object.get(name).unwrap_or(&Value::Null));
        match kind.as_str() {
            Some("default") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear(number("factor")),
            Some("llama3") => RopeScaling::Llama3 {
                factor: number("factor"),
                low: number("low_freq_factor"),
                high: number("high_freq_factor"),
                original: number("original_max_position_embeddings"),
            },
            _ => {
                self.refuse("rope_type", &kind, "\"default\", \"linear\" or \"llama3\"");
                RopeScaling::Default
            }
        }
    }

    fn refuse(&mut self, field: &'static str, observed: &Value, required: &'static str) {
        self.findings.push(if observed.is_null() {
            Finding::ConfigAbsent { field }
        } else {
            Finding::ConfigValue { field, observed: observed.to_string(), required }
        });
    }

    fn has(&self, field: &str) -> bool {
        self.root.get(field).is_some_and(|value| !value.is_null())
    }

    fn value(&self, field: &str) -> Value {
        self.root.get(field).cloned().unwrap_or(Value::Null)
    }

    fn check(&mut self, field: &'static str, holds: bool, required: &'static str) {
        if !holds && self.has(field) {
            self.refuse(field, &self.value(field), required);
        }
    }

    fn one_of(&mut self, field: &'static str, allowed: &[&str], required: &'static str) {
        let value = self.value(field);
        if !value.as_str().is_some_and(|text| allowed.contains(&text)) {
            self.refuse(field, &value, required);
        }
    }

    /// A positive integer; 1 stands for what could not be read, so that later checks can divide.
    fn count(&mut self, field: &'static str, cap: usize, default: Option<usize>) -> usize {
        let value = self.value(field);
        if let (true, Some(default)) = (value.is_null(), default) {
            return default;
        }
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=cap).contains(&n) => n,
            _ => {
                self.refuse(field, &value, range(cap));
                1
            }
        }
    }

    fn positive_top(&mut self, field: &'static str) -> f64 {
        self.positive(field, &self.value(field))
    }

    fn positive(&mut self, field: &'static str, value: &Value) -> f64 {
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() => number,
            _ => {
                self.refuse(field, value, "a positive number");
                1.0
            }
        }
    }

    fn flag(&mut self, field: &'static str) -> bool {
        match self.value(field) {
            Value::Null => false,
            Value::Bool(flag) => flag,
            other => {
                self.refuse(field, &other, "true or false");
                false
            }
        }
    }

    /// A token id, or a list of them.
    fn tokens(&mut self, field: &'static str) -> Vec<u32> {
        let value = self.value(field);
        let vocab = self.value("vocab_size").as_u64().unwrap_or(u64::MAX);
        let id = |value: &Value| {
            value.as_u64().filter(|id| *id < vocab).and_then(|id| u32::try_from(id).ok())
        };
        let ids = match &value {
            Value::Null => Some(Vec::new()),
            Value::Array(many) => many.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        ids.unwrap_or_else(|| {
            self.refuse(field, &value, "token ids below vocab_size");
            Vec::new()
        })
    }
}

const fn range(cap: usize) -> &'static str {
    match cap {
        MAX_WIDTH => "an integer from 1 to 1048576",
        MAX_VOCAB => "an integer from 1 to 4194304",
        1024 => "an integer from 1 to 1024",
        4096 => "an integer from 1 to 4096",
        _ => "an integer from 1 to 16777216",
    }
}
