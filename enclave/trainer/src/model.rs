//! Base models: configuration, weights, and the checks both must pass.
//!
//! A model is read from bytes in memory, never from a mapped file: a mapped file could change
//! after its digest was checked.

pub(crate) mod config;
mod family;
mod fields;
pub(crate) mod graph;
pub(crate) mod rotary;
mod weights;

pub use config::Config;
pub(crate) use family::LINEARS;
pub(crate) use weights::{Lent, Weight, Weights, read_tensors};

use thiserror::Error;

/// A base model: its shape and its frozen weights.
pub struct Model {
    config: Config,
    weights: Weights,
}

impl Model {
    /// Reads `config.json` and the safetensors files (one, or all shards) of a base model.
    ///
    /// Tensors may be f32, f16 or bf16. Matrices of bf16 are held as they are, two bytes a
    /// parameter; everything else as f32.
    ///
    /// # Errors
    /// All findings: the fields, names, shapes, types and values that do not fit.
    pub fn load(config: &[u8], shards: &[&[u8]]) -> Result<Self, Unusable> {
        let config = Config::parse(config)?;
        let weights = Weights::read(&config, shards)?;
        Ok(Self { config, weights })
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    #[cfg(feature = "tool")]
    pub(crate) fn assemble(config: Config, weights: Weights) -> Self {
        Self { config, weights }
    }
}

/// One thing about a base model's files that does not fit.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// A field that must be there is not.
    #[error("config.json: {field} is absent")]
    ConfigAbsent {
        /// The field's name.
        field: &'static str,
    },
    /// The file is larger than any real one.
    #[error("config.json has {observed} bytes, at most {required} are read")]
    ConfigSize {
        /// Bytes given.
        observed: usize,
        /// Bytes allowed.
        required: usize,
    },
    /// The file is not a JSON object.
    #[error("config.json is not a JSON object")]
    ConfigSyntax,
    /// A field has a value that is not supported, or contradicts another.
    #[error("config.json: {field} is {observed}, required is {required}")]
    ConfigValue {
        /// The field's name.
        field: &'static str,
        /// Its value, as JSON.
        observed: String,
        /// What it must be.
        required: &'static str,
    },
    /// A tensor the configuration asks for is in no file.
    #[error("weights: {name} is absent")]
    TensorAbsent {
        /// The tensor's name.
        name: String,
    },
    /// A tensor is in more than one file.
    #[error("weights: {name} is there twice")]
    TensorDuplicate {
        /// The tensor's name.
        name: String,
    },
    /// A tensor holds a NaN or an infinity.
    #[error("weights: {name} holds a value that is not finite")]
    TensorNotFinite {
        /// The tensor's name.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("weights: {name} has shape {observed:?}, required is {required:?}")]
    TensorShape {
        /// The tensor's name.
        name: String,
        /// Its shape.
        observed: Vec<usize>,
        /// The shape the configuration implies.
        required: Vec<usize>,
    },
    /// A tensor's element type is none of f32, f16 and bf16.
    #[error("weights: {name} has type {observed}, required is F32, F16 or BF16")]
    TensorType {
        /// The tensor's name.
        name: String,
        /// Its type.
        observed: String,
    },
    /// A tensor the configuration knows nothing of.
    #[error("weights: {name} is not a tensor of this architecture")]
    TensorUnexpected {
        /// The tensor's name.
        name: String,
    },
    /// A file is not in the safetensors format.
    #[error("weights: file {shard} is not a safetensors file")]
    WeightsSyntax {
        /// Which of the files, from 0.
        shard: usize,
    },
}

/// Why a base model cannot be used: every finding, never none.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("unusable base model: {}", findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Unusable {
    findings: Vec<Finding>,
}

impl Unusable {
    /// All that was found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(crate) fn unless_empty(findings: Vec<Finding>) -> Result<(), Self> {
        if findings.is_empty() { Ok(()) } else { Err(Self { findings }) }
    }
}

impl From<Finding> for Unusable {
    fn from(finding: Finding) -> Self {
        Self { findings: vec![finding] }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden;
    use std::collections::BTreeMap;

    fn edited(field: &str, value: serde_json::Value) -> Vec<u8> {
        let mut config: serde_json::Value = serde_json::from_slice(&golden::config()).unwrap();
        config[field] = value;
        serde_json::to_vec(&config).unwrap()
    }

    fn refused(config: &[u8]) -> Vec<Finding> {
        Config::parse(config).err().unwrap().findings
    }

    #[test]
    fn reads_both_dialects_alike() {
        for family in ["gpt2", "gpt_neox", "gptj", "llama", "mistral"] {
            let Some(folder) = golden::folder(family) else { return };
            let old = Config::parse(&folder.read("config.json")).unwrap();
            let new = Config::parse(&folder.read("config.v5.json")).unwrap();
            assert_eq!(old, new, "{family}");
        }
    }

    #[test]
    fn rejects_a_config_that_is_not_an_object() {
        assert_eq!(refused(b"[]"), [Finding::ConfigSyntax]);
        assert_eq!(refused(b"{"), [Finding::ConfigSyntax]);
    }

    #[test]
    fn rejects_an_oversized_config() {
        let config = vec![b' '; (1 << 20) + 1];
        assert_eq!(
            refused(&config),
            [Finding::ConfigSize { observed: (1 << 20) + 1, required: 1 << 20 }]
        );
    }

    #[test]
    fn rejects_another_architecture() {
        assert_eq!(
            refused(&edited("model_type", "bloom".into())),
            [Finding::ConfigValue {
                field: "model_type",
                observed: "\"bloom\"".into(),
                required: "\"gemma2\", \"gemma3_text\", \"gpt2\", \"gpt_neox\", \"gptj\", \
                           \"llama\", \"mistral\", \"phi\", \"qwen2\" or \"qwen3\"",
            }]
        );
    }

    #[test]
    fn reports_every_absent_field_at_once() {
        let findings = refused(br#"{"model_type":"llama"}"#);
        let absent: Vec<_> = findings
            .iter()
            .filter_map(
                |f| if let Finding::ConfigAbsent { field } = f { Some(*field) } else { None },
            )
            .collect();
        assert_eq!(
            absent,
            [
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "vocab_size",
                "rms_norm_eps"
            ]
        );
    }

    #[test]
    fn rejects_heads_that_do_not_divide() {
        assert_eq!(
            refused(&edited("num_key_value_heads", 3.into())),
            [Finding::ConfigValue {
                field: "num_key_value_heads",
                observed: "3".into(),
                required: "a divisor of num_attention_heads",
            }]
        );
    }

    #[test]
    fn rejects_an_activation_it_does_not_compute() {
        assert_eq!(
            refused(&edited("hidden_act", "mish".into())),
            [Finding::ConfigValue {
                field: "hidden_act",
                observed: "\"mish\"".into(),
                required: "\"silu\", \"gelu\", \"gelu_new\" or \"gelu_pytorch_tanh\"",
            }]
        );
    }

    #[test]
    fn rejects_an_unknown_rope_type() {
        assert_eq!(
            refused(&edited("rope_scaling", serde_json::json!({"rope_type":"yarn","factor":2.0}))),
            [Finding::ConfigValue {
                field: "rope_type",
                observed: "\"yarn\"".into(),
                required: "\"default\", \"linear\" or \"llama3\"",
            }]
        );
    }

    /// The one row of angles at position 1 is the frequencies themselves, as cosines.
    #[test]
    fn stretches_long_wavelengths_as_llama_3_does() {
        let scaling = serde_json::json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        });
        let sines = |scaling: serde_json::Value| {
            let mut config: serde_json::Value = serde_json::from_slice(&golden::config()).unwrap();
            config["rope_scaling"] = scaling;
            config["rope_theta"] = 500_000.0.into();
            config["head_dim"] = 128.into();
            let config = Config::parse(&serde_json::to_vec(&config).unwrap()).unwrap();
            config.blocks[0].attention.rotary.unwrap().angles(2).1[64..].to_vec()
        };
        let (plain, stretched) = (sines(serde_json::Value::Null), sines(scaling));
        // Wavelengths below 8192 / 4 stay, those above 8192 are eight times as long.
        assert_eq!(plain[..29], stretched[..29]);
        assert!(plain[35..].iter().zip(&stretched[35..]).all(|(p, s)| (p / s - 8.0).abs() < 1e-4));
        assert!((29..35).all(|i| plain[i] > stretched[i] && plain[i] < 8.0 * stretched[i]));
    }

    #[test]
    fn rejects_dimensions_beyond_any_real_model() {
        assert_eq!(
            refused(&edited("vocab_size", 1_u64.wrapping_shl(40).into())),
            [Finding::ConfigValue {
                field: "vocab_size",
                observed: "1099511627776".into(),
                required: "an integer from 1 to 4194304",
            }]
        );
    }

    #[test]
    fn loads_its_own_weights() {
        assert!(Model::load(&golden::config(), &[&golden::weights()]).is_ok());
    }

    #[test]
    fn reports_every_tensor_that_does_not_fit() {
        let mut tensors = golden::tensors();
        tensors.remove("model.norm.weight");
        tensors.insert("model.extra".into(), (vec![1], vec![0.0]));
        tensors.insert("lm_head.weight".into(), (vec![2, 2], vec![0.0; 4]));
        if let Some((_, values)) = tensors.get_mut("model.embed_tokens.weight") {
            values[3] = f32::NAN;
        }
        let bytes = golden::safetensors(&tensors);
        let findings = Model::load(&golden::config(), &[&bytes]).err().unwrap().findings;
        assert_eq!(
            findings,
            [
                Finding::TensorShape {
                    name: "lm_head.weight".into(),
                    observed: vec![2, 2],
                    required: vec![golden::VOCAB, golden::HIDDEN],
                },
                Finding::TensorNotFinite { name: "model.embed_tokens.weight".into() },
                Finding::TensorUnexpected { name: "model.extra".into() },
                Finding::TensorAbsent { name: "model.norm.weight".into() },
            ]
        );
    }

    #[test]
    fn rejects_a_tensor_in_two_files() {
        let weights = golden::weights();
        let one: BTreeMap<_, _> =
            golden::tensors().into_iter().filter(|(name, _)| name == "model.norm.weight").collect();
        let findings = Model::load(&golden::config(), &[&weights, &golden::safetensors(&one)]);
        assert_eq!(
            findings.err().unwrap().findings,
            [Finding::TensorDuplicate { name: "model.norm.weight".into() }]
        );
    }

    #[test]
    fn rejects_integers_as_weights() {
        let mut bytes = golden::weights();
        let at = bytes.windows(5).position(|window| window == b"\"F32\"").unwrap();
        bytes[at..at + 5].copy_from_slice(b"\"I32\"");
        let findings = Model::load(&golden::config(), &[&bytes]).err().unwrap().findings;
        let name = "lm_head.weight".into();
        assert_eq!(findings, [Finding::TensorType { name, observed: "I32".into() }]);
    }

    #[test]
    fn never_panics_on_a_prefix() {
        let (config, weights) = (golden::config(), golden::weights());
        for end in 0..config.len() {
            assert!(Config::parse(&config[..end]).is_err());
        }
        for end in (0..weights.len()).step_by(97) {
            let findings = Model::load(&config, &[&weights[..end]]).err().unwrap().findings;
            assert_eq!(findings, [Finding::WeightsSyntax { shard: 0 }]);
        }
    }

    #[test]
    fn rejects_overlapping_and_misspelt_tensors() {
        let mut tensors = golden::tensors();
        let norm = tensors.remove("model.norm.weight").unwrap();
        tensors.insert("model.nrom.weight".into(), norm);
        let bytes = golden::safetensors(&tensors);
        assert_eq!(
            Model::load(&golden::config(), &[&bytes]).err().unwrap().findings,
            [
                Finding::TensorAbsent { name: "model.norm.weight".into() },
                Finding::TensorUnexpected { name: "model.nrom.weight".into() },
            ]
        );
        let one = BTreeMap::from([
            ("a".to_owned(), (vec![2], vec![1.0, 2.0])),
            ("b".to_owned(), (vec![2], vec![3.0, 4.0])),
        ]);
        let mut bytes = golden::safetensors(&one);
        let at = bytes.windows(6).position(|window| window == b"[8,16]").unwrap();
        bytes[at..at + 6].copy_from_slice(b"[4,12]");
        let findings = Model::load(&golden::config(), &[&bytes]).err().unwrap().findings;
        assert_eq!(findings, [Finding::WeightsSyntax { shard: 0 }]);
    }

    #[test]
    fn reports_every_tensor_of_a_missing_shard() {
        let (mut here, mut missing) = (golden::tensors(), BTreeMap::new());
        for name in ["lm_head.weight", "model.layers.1.mlp.up_proj.bias"] {
            missing.insert(name.to_owned(), here.remove(name).unwrap());
        }
        let (here, missing) = (golden::safetensors(&here), golden::safetensors(&missing));
        assert!(Model::load(&golden::config(), &[&here, &missing]).is_ok());
        let absent = |name: &str| Finding::TensorAbsent { name: name.into() };
        assert_eq!(
            Model::load(&golden::config(), &[&here]).err().unwrap().findings,
            [absent("lm_head.weight"), absent("model.layers.1.mlp.up_proj.bias")]
        );
    }

    #[test]
    fn rejects_infinities_in_bf16() {
        let mut tensors = golden::tensors();
        if let Some((_, values)) = tensors.get_mut("model.embed_tokens.weight") {
            values[3] = f32::NEG_INFINITY;
        }
        let bytes = golden::in_bf16(&tensors);
        assert_eq!(
            Model::load(&golden::config(), &[&bytes]).err().unwrap().findings,
            [Finding::TensorNotFinite { name: "model.embed_tokens.weight".into() }]
        );
    }

    #[test]
    fn ignores_stored_buffers_and_takes_names_without_the_prefix() {
        for (family, config) in golden::families() {
            let mut tensors = golden::random(&config);
            let block = tensors.keys().find(|name| name.contains(".0.")).unwrap().clone();
            let block = block.split(".0.").next().unwrap().to_owned();
            for buffer in ["attn.bias", "attn.masked_bias", "attention.rotary_emb.inv_freq"] {
                tensors.insert(format!("{block}.0.{buffer}"), (vec![1], vec![f32::NAN]));
            }
            assert!(Model::load(&config, &[&golden::safetensors(&tensors)]).is_ok(), "{family}");
            let short = tensors.into_iter().map(|(name, tensor)| {
                let short = name.strip_prefix(Config::parse(&config).unwrap().prefix);
                (short.unwrap_or(&name).to_owned(), tensor)
            });
            let short = golden::safetensors(&short.collect());
            assert!(Model::load(&config, &[&short]).is_ok(), "{family}");
        }
    }

    #[test]
    fn takes_the_old_name_of_the_head_of_gpt_neox() {
        let Some(folder) = golden::folder("gpt_neox") else { return };
        let bytes = folder.read("model.safetensors");
        let old = String::from_utf8_lossy(&bytes).find("lm_head.weight").unwrap();
        let mut renamed = bytes.clone();
        let entry = b"embed_out.weight";
        renamed.splice(old..old + 14, entry.iter().copied());
        let end = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        // Two bytes more in the header: two blanks less, or eight bytes more in all.
        renamed.splice(end + 2..end + 2, [b' '; 6]);
        renamed[..8].copy_from_slice(&u64::try_from(end).unwrap().to_le_bytes());
        assert!(Model::load(&folder.read("config.json"), &[&renamed]).is_ok());
        let gptj = golden::folder("gptj").unwrap();
        assert!(Model::load(&gptj.read("config.json"), &[&renamed]).is_err());
    }

    #[test]
    fn rejects_trailing_bytes() {
        let mut weights = golden::weights();
        weights.push(0);
        let findings = Model::load(&golden::config(), &[&weights]).err().unwrap().findings;
        assert_eq!(findings, [Finding::WeightsSyntax { shard: 0 }]);
    }
}
