//! Reading `config.json` field by field, in the two dialects real checkpoints carry.
//!
//! Up to transformers 4 the rotary base stands at the top level as `rope_theta` with an optional
//! `rope_scaling`; transformers 5 writes both into `rope_parameters`, one object for all blocks or
//! one for each kind of block.

use super::Finding;
use super::config::Activation;
use super::rotary::{Pairing, Rotary, Scaling};
use serde_json::Value;

/// The object being read and what was wrong with it so far.
pub(super) struct Fields {
    root: Value,
    findings: Vec<Finding>,
}

/// Sizes every family has.
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) intermediate: usize,
    pub(super) vocab: usize,
    pub(super) max_positions: usize,
}

const MAX_HEADS: usize = 4096;
const MAX_LAYERS: usize = 1024;
const MAX_POSITIONS: usize = 1 << 24;
const MAX_VOCAB: usize = 1 << 22;
const MAX_WIDTH: usize = 1 << 20;

impl Fields {
    pub(super) fn new(root: Value) -> Self {
        Self { root, findings: Vec::new() }
    }

    /// All that was wrong.
    pub(super) fn finish(self) -> Vec<Finding> {
        self.findings
    }

    /// Sizes under the names most families use.
    pub(super) fn sizes(&mut self, head_dim: Option<usize>) -> Sizes {
        let hidden = self.count("hidden_size", MAX_WIDTH, None);
        let intermediate = self.count("intermediate_size", MAX_WIDTH, None);
        let layers = self.count("num_hidden_layers", MAX_LAYERS, None);
        let heads = self.count("num_attention_heads", MAX_HEADS, None);
        let kv_heads = self.count("num_key_value_heads", MAX_HEADS, Some(heads));
        self.check(
            "num_key_value_heads",
            heads.is_multiple_of(kv_heads),
            "a divisor of num_attention_heads",
        );
        if !self.has("head_dim") && head_dim.is_none() {
            let divides = hidden.is_multiple_of(heads);
            self.check("hidden_size", divides, "a multiple of num_attention_heads");
        }
        let head_dim = head_dim.unwrap_or(hidden / heads);
        let head_dim = self.count("head_dim", MAX_HEADS, Some(head_dim));
        self.check("head_dim", head_dim.is_multiple_of(2) && head_dim > 0, "even and positive");
        let vocab = self.count("vocab_size", MAX_VOCAB, None);
        let max_positions = self.count("max_position_embeddings", MAX_POSITIONS, Some(2048));
        Sizes { hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, max_positions }
    }

    /// Sizes under the names GPT-2 and GPT-J use.
    pub(super) fn short_sizes(&mut self) -> Sizes {
        let hidden = self.count("n_embd", MAX_WIDTH, None);
        let layers = self.count("n_layer", MAX_LAYERS, None);
        let heads = self.count("n_head", MAX_HEADS, None);
        self.check("n_embd", hidden.is_multiple_of(heads), "a multiple of n_head");
        let intermediate = self.count("n_inner", MAX_WIDTH, Some(4 * hidden));
        let vocab = self.count("vocab_size", MAX_VOCAB, None);
        let max_positions = self.count("n_positions", MAX_POSITIONS, Some(1024));
        let (kv_heads, head_dim) = (heads, (hidden / heads).max(1));
        Sizes { hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, max_positions }
    }

    /// The rotary embedding of blocks of a kind (`full_attention`, `sliding_attention`), over the
    /// first `width` columns of a head.
    pub(super) fn rotary(&mut self, kind: &str, width: usize) -> Rotary {
        let object = |value: Option<&Value>| value.filter(|v| v.is_object()).cloned();
        let parameters = object(self.root.get("rope_parameters"));
        let of_kind = parameters.as_ref().and_then(|p| object(p.get(kind)));
        let parameters = of_kind.or(parameters);
        let stretched = parameters.clone().or_else(|| object(self.root.get("rope_scaling")));
        let theta = parameters
            .as_ref()
            .and_then(|p| p.get("rope_theta"))
            .or_else(|| self.root.get("rope_theta"))
            .or_else(|| self.root.get("rotary_emb_base"))
            .cloned()
            .unwrap_or_else(|| Value::from(10_000.0));
        let theta = self.positive("rope_theta", &theta);
        let scaling = self.scaling(&stretched.unwrap_or(Value::Null));
        Rotary { theta, width, pairing: Pairing::Halves, scaling }
    }

    /// How many columns of a head turn: a part of them, rounded down, at least two.
    pub(super) fn partial(&mut self, name: &'static str, default: f64, head_dim: usize) -> usize {
        let parameters = self.root.get("rope_parameters");
        let part = parameters.and_then(|p| p.get("partial_rotary_factor"));
        let part = part.or_else(|| self.root.get(name)).cloned();
        let part = part.filter(|v| !v.is_null()).unwrap_or_else(|| Value::from(default));
        let width = self.positive(name, &part) * crate::real::real(head_dim);
        let width = usize::try_from(crate::real::nearest(libm::floor(width))).unwrap_or(0);
        if width > head_dim || !width.is_multiple_of(2) || width == 0 {
            self.refuse(name, &part, "a part of a head that is an even number of columns");
        }
        width.clamp(2, head_dim.max(2))
    }

    fn scaling(&mut self, object: &Value) -> Scaling {
        let kind = object.get("rope_type").or_else(|| object.get("type")).cloned();
        let kind = kind.unwrap_or_else(|| Value::from("default"));
        let mut number =
            |name: &'static str| self.positive(name, object.get(name).unwrap_or(&Value::Null));
        match kind.as_str() {
            Some("default") => Scaling::Default,
            Some("linear") => Scaling::Linear(number("factor")),
            Some("llama3") => Scaling::Llama3 {
                factor: number("factor"),
                low: number("low_freq_factor"),
                high: number("high_freq_factor"),
                original: number("original_max_position_embeddings"),
            },
            _ => {
                self.refuse("rope_type", &kind, "\"default\", \"linear\" or \"llama3\"");
                Scaling::Default
            }
        }
    }

    /// The activation under one of its names.
    pub(super) fn activation(&mut self, field: &'static str, default: Activation) -> Activation {
        match self.value(field).as_str() {
            None if !self.has(field) => default,
            Some("silu" | "swish") => Activation::Silu,
            Some("gelu") => Activation::Gelu,
            Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            _ => {
                let required = "\"silu\", \"gelu\", \"gelu_new\" or \"gelu_pytorch_tanh\"";
                self.refuse(field, &self.value(field), required);
                default
            }
        }
    }

    /// Which blocks see a window only: as `layer_types` says, or `default` by number of the block.
    pub(super) fn sliding(&mut self, layers: usize, default: impl Fn(usize) -> bool) -> Vec<bool> {
        let listed = self.value("layer_types");
        let one = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Some(true),
            Some("full_attention") => Some(false),
            _ => None,
        };
        let kinds = match &listed {
            Value::Null => return (0..layers).map(default).collect(),
            Value::Array(kinds) => kinds.iter().map(one).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        kinds.filter(|kinds| kinds.len() == layers).unwrap_or_else(|| {
            let required = "\"full_attention\" or \"sliding_attention\" for each block";
            self.refuse("layer_types", &listed, required);
            vec![false; layers]
        })
    }

    /// Notes a value that is absent or not what it must be.
    pub(super) fn refuse(&mut self, field: &'static str, observed: &Value, required: &'static str) {
        self.findings.push(if observed.is_null() {
            Finding::ConfigAbsent { field }
        } else {
            Finding::ConfigValue { field, observed: observed.to_string(), required }
        });
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.root.get(field).is_some_and(|value| !value.is_null())
    }

    pub(super) fn value(&self, field: &str) -> Value {
        self.root.get(field).cloned().unwrap_or(Value::Null)
    }

    pub(super) fn check(&mut self, field: &'static str, holds: bool, required: &'static str) {
        if !holds && self.has(field) {
            self.refuse(field, &self.value(field), required);
        }
    }

    /// A length from 1 on, where the field is there.
    pub(super) fn length(&mut self, field: &'static str) -> Option<usize> {
        self.has(field).then(|| self.count(field, MAX_POSITIONS, None))
    }

    /// A positive integer; 1 stands for what could not be read, so that later checks can divide.
    pub(super) fn count(
        &mut self,
        field: &'static str,
        cap: usize,
        default: Option<usize>,
    ) -> usize {
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

    /// A positive number at the top level.
    pub(super) fn positive_top(&mut self, field: &'static str) -> f64 {
        self.positive(field, &self.value(field))
    }

    /// A positive number at the top level, where it is there.
    pub(super) fn positive_or(&mut self, field: &'static str, default: f64) -> f64 {
        if self.has(field) { self.positive_top(field) } else { default }
    }

    /// A positive number that an explicit `null` turns off and an absent one leaves at `default`.
    pub(super) fn cap(&mut self, field: &'static str, default: Option<f64>) -> Option<f64> {
        if self.root.get(field).is_none() {
            return default;
        }
        self.has(field).then(|| self.positive_top(field))
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

    pub(super) fn flag(&mut self, field: &'static str, default: Flag) -> bool {
        match self.value(field) {
            Value::Null => matches!(default, Flag::On),
            Value::Bool(flag) => flag,
            other => {
                self.refuse(field, &other, "true or false");
                false
            }
        }
    }

    /// A token id, or a list of them.
    pub(super) fn tokens(&mut self, field: &'static str) -> Vec<u32> {
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

/// What an absent flag means.
#[derive(Clone, Copy)]
pub(super) enum Flag {
    On,
    Off,
}

const fn range(cap: usize) -> &'static str {
    match cap {
        MAX_WIDTH => "an integer from 1 to 1048576",
        MAX_VOCAB => "an integer from 1 to 4194304",
        MAX_LAYERS => "an integer from 1 to 1024",
        MAX_HEADS => "an integer from 1 to 4096",
        _ => "an integer from 1 to 16777216",
    }
}
