//! The adapter's files, read: the manifest's LoRA parameters, and nothing that rides along.
//!
//! `adapter_model.safetensors`:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | length of the header, little-endian |
//! | header | JSON object in its one spelling, padded with spaces: `__metadata__`, and per tensor `data_offsets`, `dtype`, `shape` |
//! | rest | the tensors in the order of their offsets, f32 little-endian, no gaps |

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::receipt::SIMULATED;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Case;
use super::finding::Findings;

const CONFIG: &str = "adapter: adapter_config.json";
const WEIGHTS: &str = "adapter: adapter_model.safetensors";
/// Longest header or settings that are read, in bytes.
const MAX_JSON: usize = 16 << 20;
const METADATA: &str = "__metadata__";
/// The one type of a parameter that leaves.
const DTYPE: &str = "F32";

/// A tensor of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    data_offsets: [usize; 2],
    dtype: String,
    shape: Vec<u64>,
}

/// A file whose tensors lie one behind the other.
struct File<'a> {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, (Entry, &'a [u8])>,
}

impl Case<'_> {
    /// Settings and tensors are those of the manifest's adapter: names, shapes and types.
    pub(super) fn parameters(&self, name: &str, bytes: &[u8], findings: &mut Findings) {
        match name {
            "adapter_config.json" => self.settings(bytes, findings),
            "adapter_model.safetensors" => self.tensors(bytes, findings),
            _ => (),
        }
    }

    fn tensors(&self, bytes: &[u8], findings: &mut Findings) {
        let check = ("adapter.malformed", WEIGHTS, "the file");
        let Some(file) = findings.take(check, read(bytes), "safetensors in its one spelling")
        else {
            return;
        };
        let required = self.metadata();
        if file.metadata != required {
            let check = ("adapter.metadata", WEIGHTS, "metadata");
            findings.add(check, shown(&file.metadata), shown(&required));
        }
        let listed = &self.manifest.training.adapter.tensors;
        let names: BTreeSet<_> = listed.iter().map(|tensor| tensor.name.as_str()).collect();
        for name in file.tensors.keys().filter(|name| !names.contains(name.as_str())) {
            let words = format!("tensor {name:.160}");
            findings.add(("adapter.tensor", WEIGHTS, &words), "there", "one the manifest names");
        }
        for tensor in listed {
            let words = format!("tensor {:.160}", tensor.name);
            let Some((entry, data)) = file.tensors.get(&tensor.name) else {
                findings.add(("adapter.tensor", WEIGHTS, &words), "missing", "there");
                continue;
            };
            let required: Vec<_> = tensor.shape.iter().map(|n| u64::from(*n)).collect();
            if (entry.dtype.as_str(), &entry.shape) != (DTYPE, &required) {
                let observed = format!("{:.20} {:?}", entry.dtype, entry.shape);
                let required = format!("{DTYPE} {required:?}");
                findings.add(("adapter.tensor", WEIGHTS, &words), observed, required);
            }
            let (values, _) = data.as_chunks();
            if !values.iter().all(|value| f32::from_le_bytes(*value).is_finite()) {
                let observed = "a value that is no number";
                findings.add(("adapter.tensor", WEIGHTS, &words), observed, "finite values");
            }
        }
    }

    /// What the enclave writes beside the tensors, and nobody can take off.
    fn metadata(&self) -> BTreeMap<String, String> {
        let manifest = self.manifest;
        let mut all = BTreeMap::from([
            ("cloister.job".to_owned(), manifest.job.to_string()),
            ("cloister.manifest".to_owned(), manifest.digest().to_string()),
            ("format".to_owned(), "pt".to_owned()),
        ]);
        if self.statement.predicate.simulated {
            all.insert("cloister.evidence".to_owned(), SIMULATED.to_owned());
        }
        all
    }

    /// Whatever would have the tensors read as something else than LoRA of this rank and scale.
    fn settings(&self, bytes: &[u8], findings: &mut Findings) {
        let check = ("adapter.malformed", CONFIG, "the file");
        let object = if bytes.len() > MAX_JSON {
            Err("too long".to_owned())
        } else {
            serde_json::from_slice::<Map<String, Value>>(bytes).map_err(|e| e.to_string())
        };
        let Some(object) = findings.take(check, object, "a JSON object") else { return };
        let adapter = &self.manifest.training.adapter;
        let field = |name: &str| object.get(name).unwrap_or(&Value::Null);
        let mut same = |name: &str, fine: bool, required: String| {
            if !fine {
                let observed = format!("{:.160}", field(name).to_string());
                findings.add(("adapter.setting", CONFIG, name), observed, required);
            }
        };
        same("peft_type", field("peft_type") == "LORA", "LORA".to_owned());
        same("r", field("r").as_u64() == Some(adapter.rank.into()), adapter.rank.to_string());
        let alpha = f64::from(adapter.alpha);
        let scaled = field("lora_alpha").as_f64() == Some(alpha);
        same("lora_alpha", scaled, adapter.alpha.to_string());
        let targets = field("target_modules").as_array().map(|all| all.iter().map(Value::as_str));
        let targets = targets.and_then(Iterator::collect::<Option<BTreeSet<_>>>);
        let required: BTreeSet<_> = adapter.targets.iter().map(String::as_str).collect();
        let text = format!("{required:?}");
        same("target_modules", targets.is_some_and(|targets| targets == required), text);
        for name in OFF {
            let off = match field(name) {
                Value::Null | Value::Bool(false) => true,
                Value::Object(patterns) => patterns.is_empty(),
                other => name == "bias" && other == "none",
            };
            same(name, off, "off".to_owned());
        }
    }
}

/// Settings that change what the tensors mean.
const OFF: [&str; 11] = [
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "layer_replication",
    "layers_to_transform",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "use_dora",
    "use_rslora",
];

/// Reads safetensors, or says why they are none.
fn read(bytes: &[u8]) -> Result<File<'_>, &'static str> {
    let (length, rest) = bytes.split_first_chunk().ok_or("too short")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| "too long a header")?;
    if length > MAX_JSON {
        return Err("too long a header");
    }
    let (header, data) = rest.split_at_checked(length).ok_or("cut inside its header")?;
    let header = header.trim_ascii_end();
    let object: Map<String, Value> =
        serde_json::from_slice(header).map_err(|_| "without a header")?;
    if serde_json::to_vec(&object).ok().as_deref() != Some(header) {
        return Err("spelled otherwise");
    }
    let (mut metadata, mut tensors) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in object {
        if name == METADATA {
            metadata = serde_json::from_value(value).map_err(|_| "of other metadata than texts")?;
            continue;
        }
        let entry: Entry = serde_json::from_value(value).map_err(|_| "without tensors")?;
        let [start, end] = entry.data_offsets;
        let part = data.get(start..end).ok_or("shorter than its tensors")?;
        tensors.insert(name, (entry, part));
    }
    gapless(tensors.values().map(|(entry, _)| entry), data.len())?;
    Ok(File { metadata, tensors })
}

/// Every byte is one tensor's, and each tensor has as many as its shape needs.
fn gapless<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    length: usize,
) -> Result<(), &'static str> {
    let mut ranges = Vec::new();
    for entry in entries {
        let [start, end] = entry.data_offsets;
        let values = entry.shape.iter().try_fold(4_u64, |all, n| all.checked_mul(*n));
        let observed = end.checked_sub(start).and_then(|n| u64::try_from(n).ok());
        if entry.dtype == DTYPE && values != observed {
            return Err("of other lengths than its shapes");
        }
        ranges.push((start, end));
    }
    ranges.sort_unstable();
    let end = ranges.into_iter().try_fold(0, |at, (start, end)| (start == at).then_some(end));
    if end == Some(length) { Ok(()) } else { Err("with bytes that are no tensor's") }
}

fn shown(metadata: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> =
        metadata.iter().map(|(name, value)| format!("{name:.40}={value:.100}")).collect();
    if pairs.is_empty() { "none".to_owned() } else { pairs.join(", ") }
}
