//! PEFT's adapter format: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! The safetensors file is written here and not by the crate, whose metadata is a hash map:
//! equal adapters must be equal bytes.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | length of the header, little-endian |
//! | header | JSON object, names in ascending order, padded with spaces to a multiple of 8 |
//! | rest | tensors in the header's order, f32 little-endian, no gaps |

use super::{Adapter, LoraConfig, LoraConfigError, Scaling};
use crate::model::{self, Config, read_tensors};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use thiserror::Error;

/// The two files of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// `adapter_config.json`
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`
    pub weights: Vec<u8>,
}

/// One thing about an adapter's files that does not fit.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// `adapter_config.json` is not a JSON object, or has more than a mebibyte.
    #[error("adapter_config.json is not a JSON object of at most {required} bytes")]
    ConfigSyntax {
        /// Bytes allowed.
        required: usize,
    },
    /// A field asks for something that is not computed here.
    #[error("adapter_config.json: {field} is {observed}, required is {required}")]
    ConfigValue {
        /// The field's name.
        field: &'static str,
        /// Its value, as JSON.
        observed: String,
        /// What it must be.
        required: &'static str,
    },
    /// Rank, scale or targets.
    #[error("adapter_config.json: {0}")]
    Lora(#[from] LoraConfigError),
    /// A tensor.
    #[error("adapter {0}")]
    Tensor(model::Finding),
}

/// Why an adapter cannot be used: every finding, never none.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("unusable adapter: {}", findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Unusable {
    findings: Vec<Finding>,
}

impl Unusable {
    /// All that was found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

const MAX_BYTES: usize = 1 << 20;

impl Adapter {
    /// The adapter in PEFT's format; equal adapters give equal bytes.
    ///
    /// `base` is the name written as `base_model_name_or_path`; `metadata` goes into the
    /// safetensors header beside `format`.
    pub fn to_peft(&self, base: &str, metadata: &BTreeMap<String, String>) -> Files {
        let mut metadata = metadata.clone();
        metadata.insert("format".into(), "pt".into());
        let tensors = self
            .tensors()
            .map(|(name, shape, place)| (name, (shape.to_vec(), self.tensor(&place))))
            .collect();
        Files { config: self.peft_config(base), weights: write_tensors(&tensors, &metadata) }
    }

    fn peft_config(&self, base: &str) -> Vec<u8> {
        let config = self.config();
        let targets = config.targets().to_vec();
        let whole = crate::real::nearest(config.alpha());
        let alpha = if crate::real::widen(whole) == config.alpha() {
            Value::from(whole)
        } else {
            Value::from(config.alpha())
        };
        let fields = [
            ("base_model_name_or_path", Value::from(base)),
            ("bias", Value::from("none")),
            ("fan_in_fan_out", Value::from(self.turned)),
            ("inference_mode", Value::from(true)),
            ("init_lora_weights", Value::from(true)),
            ("lora_alpha", alpha),
            ("lora_dropout", Value::from(0.0)),
            ("modules_to_save", Value::Null),
            ("peft_type", Value::from("LORA")),
            ("r", Value::from(config.rank())),
            ("target_modules", Value::from(targets)),
            ("task_type", Value::from("CAUSAL_LM")),
            ("use_dora", Value::from(false)),
            ("use_rslora", Value::from(config.scaling() == Scaling::RankStabilised)),
        ];
        let object: Map<String, Value> =
            fields.map(|(name, v)| (name.to_owned(), v)).into_iter().collect();
        let mut text = format!("{:#}", Value::Object(object));
        text.push('\n');
        text.into_bytes()
    }

    /// Reads an adapter for a model of the given shape.
    ///
    /// # Errors
    /// All findings: settings that are not computed here, and tensors that are absent,
    /// unexpected, of another shape or type, or not finite.
    pub fn from_peft(model: &Config, config: &[u8], weights: &[u8]) -> Result<Self, Unusable> {
        let config = read_config(config).map_err(|findings| Unusable { findings })?;
        if let Some(unknown) = config.unknown(model) {
            return Err(Unusable { findings: vec![unknown.into()] });
        }
        let mut adapter = Self::zeros(model, config);
        let required = adapter.tensors().map(|(name, shape, _)| (name, shape.to_vec())).collect();
        let tensors =
            read_tensors(&required, &[weights], str::to_owned, |_| false).map_err(|unusable| {
                let findings = unusable.findings().iter().cloned().map(Finding::Tensor).collect();
                Unusable { findings }
            })?;
        adapter.fill(&tensors);
        Ok(adapter)
    }
}

fn read_config(bytes: &[u8]) -> Result<LoraConfig, Vec<Finding>> {
    let syntax = || vec![Finding::ConfigSyntax { required: MAX_BYTES }];
    if bytes.len() > MAX_BYTES {
        return Err(syntax());
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(bytes) else { return Err(syntax()) };
    let mut findings = uncomputed(&object);
    let mut refuse = |field, observed: &Value, required| {
        findings.push(Finding::ConfigValue { field, observed: observed.to_string(), required });
    };
    let field = |name: &str| object.get(name).unwrap_or(&Value::Null);
    let rank = field("r").as_u64().and_then(|rank| usize::try_from(rank).ok());
    let targets = field("target_modules")
        .as_array()
        .and_then(|names| names.iter().map(Value::as_str).collect::<Option<Vec<_>>>())
        .or_else(|| (*field("target_modules") == "all-linear").then(|| vec!["all-linear"]));
    let (Some(rank), Some(alpha), Some(targets)) = (rank, field("lora_alpha").as_f64(), targets)
    else {
        if rank.is_none() {
            refuse("r", field("r"), "an integer");
        }
        if field("lora_alpha").as_f64().is_none() {
            refuse("lora_alpha", field("lora_alpha"), "a number");
        }
        if field("target_modules") != "all-linear" && !field("target_modules").is_array() {
            refuse("target_modules", field("target_modules"), "a list of names or \"all-linear\"");
        }
        return Err(findings);
    };
    match LoraConfig::new(rank, alpha, targets) {
        Ok(config) if findings.is_empty() => Ok(if *field("use_rslora") == true {
            config.scaled(Scaling::RankStabilised)
        } else {
            config
        }),
        Ok(_) => Err(findings),
        Err(error) => {
            findings.push(error.into());
            Err(findings)
        }
    }
}

/// Settings that ask for something that is not computed here.
fn uncomputed(object: &Map<String, Value>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut refuse = |field, observed: &Value, required| {
        findings.push(Finding::ConfigValue { field, observed: observed.to_string(), required });
    };
    let field = |name: &str| object.get(name).unwrap_or(&Value::Null);

    // What would change the computation must be absent or off. `fan_in_fan_out` says how the base
    // stores its weights, which PEFT corrects by the base itself.
    if field("peft_type") != "LORA" {
        refuse("peft_type", field("peft_type"), "\"LORA\"");
    }
    if !field("bias").is_null() && field("bias") != "none" {
        refuse("bias", field("bias"), "\"none\"");
    }
    for name in ["use_dora", "lora_bias", "use_qalora"] {
        if !matches!(field(name), Value::Null | Value::Bool(false)) {
            refuse(name, field(name), "false");
        }
    }
    for name in ["fan_in_fan_out", "use_rslora"] {
        if !matches!(field(name), Value::Null | Value::Bool(_)) {
            refuse(name, field(name), "true or false");
        }
    }
    for name in ["modules_to_save", "layers_to_transform", "layer_replication", "target_parameters"]
    {
        if !field(name).is_null() {
            refuse(name, field(name), "null");
        }
    }
    for name in ["rank_pattern", "alpha_pattern"] {
        if !(field(name).is_null() || *field(name) == json!({})) {
            refuse(name, field(name), "empty");
        }
    }
    findings
}

/// Named tensors as safetensors bytes; the same tensors give the same bytes.
pub fn write_named(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Vec<u8> {
    let lent = tensors
        .iter()
        .map(|(name, (shape, values))| (name.clone(), (shape.clone(), values.as_slice())));
    write_tensors(&lent.collect(), &BTreeMap::new())
}

/// Named tensors as safetensors bytes.
pub(crate) fn write_tensors(
    tensors: &BTreeMap<String, (Vec<usize>, &[f32])>,
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!(metadata));
    let mut data = Vec::new();
    for (name, (shape, values)) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = json!({"data_offsets": [start, data.len()], "dtype": "F32", "shape": shape});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = u64::try_from(header.len()).unwrap_or(u64::MAX);
    [&length.to_le_bytes()[..], &header, &data].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden;

    fn trained() -> (Config, Adapter) {
        let model = Config::parse(&golden::config()).unwrap();
        let config = LoraConfig::everywhere(4, 8.0).unwrap();
        let mut adapter = Adapter::fresh(&model, config, [3; 32]).unwrap();
        for (i, value) in adapter.values_mut().iter_mut().enumerate() {
            *value += (i % 7) as f32 * 0.01;
        }
        (model, adapter)
    }

    fn simulated() -> BTreeMap<String, String> {
        [("evidence", "SIMULATED"), ("manifest", "00ff")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    #[test]
    fn reads_what_it_wrote() {
        let (model, adapter) = trained();
        let files = adapter.to_peft("base", &simulated());
        assert_eq!(Adapter::from_peft(&model, &files.config, &files.weights).unwrap(), adapter);
        assert_eq!(files, adapter.to_peft("base", &simulated()));
    }

    #[test]
    fn carries_the_metadata() {
        let (_, adapter) = trained();
        let files = adapter.to_peft("base", &simulated());
        let (_, header) = safetensors::SafeTensors::read_metadata(&files.weights).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        assert_eq!(metadata.get("evidence").unwrap(), "SIMULATED");
        assert_eq!(metadata.get("format").unwrap(), "pt");
    }

    #[test]
    fn reads_an_adapter_peft_wrote() {
        let Some(llama) = golden::folder("llama") else { return };
        let model = Config::parse(&llama.read("config.json")).unwrap();
        let adapter = Adapter::from_peft(
            &model,
            &llama.read("adapter/adapter_config.json"),
            &llama.read("adapter/adapter_model.safetensors"),
        )
        .unwrap();
        assert_eq!((adapter.config().rank(), adapter.config().alpha()), (4, 8.0));
        assert_eq!(adapter.config().targets(), golden::LINEARS);
    }

    fn refused(change: impl FnOnce(&mut Value)) -> Vec<Finding> {
        let (model, adapter) = trained();
        let files = adapter.to_peft("base", &simulated());
        let mut config: Value = serde_json::from_slice(&files.config).unwrap();
        change(&mut config);
        let config = serde_json::to_vec(&config).unwrap();
        Adapter::from_peft(&model, &config, &files.weights).unwrap_err().findings
    }

    #[test]
    fn rejects_settings_it_does_not_compute() {
        let findings = refused(|config| {
            config["use_dora"] = true.into();
            config["bias"] = "all".into();
            config["modules_to_save"] = json!(["lm_head"]);
        });
        let value = |field, observed: &str, required| Finding::ConfigValue {
            field,
            observed: observed.into(),
            required,
        };
        assert_eq!(
            findings,
            [
                value("bias", "\"all\"", "\"none\""),
                value("use_dora", "true", "false"),
                value("modules_to_save", "[\"lm_head\"]", "null"),
            ]
        );
    }

    #[test]
    fn rejects_tensors_of_another_rank() {
        let findings = refused(|config| config["r"] = 2.into());
        assert_eq!(findings.len(), 28);
        assert!(
            findings
                .iter()
                .all(|f| matches!(f, Finding::Tensor(model::Finding::TensorShape { .. })))
        );
    }

    #[test]
    fn rejects_a_target_outside_the_blocks() {
        assert_eq!(
            refused(|config| config["target_modules"] = json!(["lm_head"])),
            [Finding::Lora(LoraConfigError::UnknownTarget { observed: "lm_head".into() })]
        );
    }

    #[test]
    fn never_panics_on_a_prefix() {
        let (model, adapter) = trained();
        let files = adapter.to_peft("base", &simulated());
        for end in 0..files.config.len() - 1 {
            assert!(Adapter::from_peft(&model, &files.config[..end], &files.weights).is_err());
        }
        for end in (0..files.weights.len()).step_by(101) {
            assert!(Adapter::from_peft(&model, &files.config, &files.weights[..end]).is_err());
        }
    }
}
