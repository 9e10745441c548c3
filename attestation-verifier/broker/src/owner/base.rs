//! The base model as the manifest sees it: digests of its files, and the adapter's tensors, which
//! follow from `config.json`.
//!
//! | file | in the manifest as |
//! |---|---|
//! | `config.json` | `config` |
//! | `model.safetensors` | `weights` |
//! | `tokenizer.json` | `tokenizer` |
//! | `chat_template.jinja`, where there is one | `template` |
//!
//! Families whose blocks have Llama's linear layers: Gemma 2 and 3, Llama, Mistral, Qwen 2 and 3. The
//! trainer knows more. Tensors are named as PEFT names them and listed block by block, in the order of the
//! forward pass, `lora_A` before `lora_B`:
//! `base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight`, of `[rank, inputs]`;
//! `lora_B`, of `[outputs, rank]`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use measurement::digest::{Digest, of};
use measurement::manifest::{Adapter, Base, Tensor};
use ring::digest::{Context, SHA384};
use serde::Deserialize;
use thiserror::Error;

use super::files::{self, FileError};
use super::job::{LAYERS, Train};

const MAX_CONFIG: u64 = 1 << 20;
const MAX_LAYERS: u32 = 1024;
const MAX_WIDTH: u32 = 1 << 20;

/// Why a folder gives no base model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BaseError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A number of the configuration that cannot be.
    #[error("{}: {field} is {observed}, required is {required}", path.display())]
    Number {
        /// The configuration.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        observed: u32,
        /// What it must be.
        required: &'static str,
    },
    /// Not a configuration, or one of another family.
    #[error("{}: {problem}", path.display())]
    Syntax {
        /// The configuration.
        path: PathBuf,
        /// The parser's words.
        problem: String,
    },
}

/// The shape of a model, as far as an adapter needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    hidden: u32,
    intermediate: u32,
    layers: u32,
    queries: u32,
    keys: u32,
    /// The longest sequence the model was made for, where it says so.
    pub positions: Option<u32>,
}

#[derive(Deserialize)]
struct Config {
    model_type: Family,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    max_position_embeddings: Option<u32>,
}

/// The families whose blocks have Llama's linear layers, under Llama's names.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Family {
    Gemma2,
    #[serde(rename = "gemma3_text")]
    Gemma3,
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Family {
    /// The width of a head where the configuration does not say it, if not the model's by heads.
    fn head_dim(self) -> Option<u32> {
        match self {
            Self::Gemma2 | Self::Gemma3 => Some(256),
            Self::Qwen3 => Some(128),
            Self::Llama | Self::Mistral | Self::Qwen2 => None,
        }
    }
}

/// Reads the folder of a base model.
///
/// # Errors
/// [`BaseError`].
pub fn read(folder: &Path, name: &str) -> Result<(Base, Shape), BaseError> {
    let config = folder.join("config.json");
    let bytes = files::read(&config, MAX_CONFIG)?;
    let shape = Shape::parse(&bytes, &config)?;
    let template = folder.join("chat_template.jinja");
    let base = Base {
        config: Digest::of(&bytes),
        name: name.to_owned(),
        template: template.exists().then(|| digest_of(&template)).transpose()?,
        tokenizer: digest_of(&folder.join("tokenizer.json"))?,
        weights: digest_of(&folder.join("model.safetensors"))?,
    };
    Ok((base, shape))
}

/// SHA-384 of a file of any length.
fn digest_of(path: &Path) -> Result<Digest<of::BaseFile>, FileError> {
    let mut file = File::open(path).map_err(FileError::at(path))?;
    let mut context = Context::new(&SHA384);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(FileError::at(path))?;
        if read == 0 {
            break;
        }
        context.update(buffer.get(..read).unwrap_or_default());
    }
    let digest = context.finish();
    Ok(Digest::from_bytes(digest.as_ref().try_into().unwrap_or([0; 48])))
}

impl Shape {
    fn parse(bytes: &[u8], path: &Path) -> Result<Self, BaseError> {
        let config: Config = serde_json::from_slice(bytes)
            .map_err(|e| BaseError::Syntax { path: path.to_owned(), problem: e.to_string() })?;
        let number = |field, observed, fine: bool, required| {
            let path = path.to_owned();
            fine.then_some(()).ok_or(BaseError::Number { path, field, observed, required })
        };
        let told = config.head_dim.or(config.model_type.head_dim());
        let heads = config.num_attention_heads;
        let keys = config.num_key_value_heads.unwrap_or(heads);
        let width = |size: u32| (1..=MAX_WIDTH).contains(&size);
        let (hidden, layers) = (config.hidden_size, config.num_hidden_layers);
        number("hidden_size", hidden, width(hidden), "1 to 1048576")?;
        let intermediate = config.intermediate_size;
        number("intermediate_size", intermediate, width(intermediate), "1 to 1048576")?;
        let block = (1..=MAX_LAYERS).contains(&layers);
        number("num_hidden_layers", layers, block, "1 to 1024")?;
        number("num_attention_heads", heads, (1..=4096).contains(&heads), "1 to 4096")?;
        let divides = keys > 0 && heads.is_multiple_of(keys);
        number("num_key_value_heads", keys, divides, "a divisor of num_attention_heads")?;
        let whole = told.is_some() || hidden.is_multiple_of(heads);
        number("hidden_size", hidden, whole, "a multiple of num_attention_heads")?;
        let head = told.or(hidden.checked_div(heads)).unwrap_or(0);
        number("head_dim", head, (1..=4096).contains(&head), "1 to 4096")?;
        Ok(Self {
            hidden,
            intermediate,
            layers,
            queries: heads.saturating_mul(head),
            keys: keys.saturating_mul(head),
            positions: config.max_position_embeddings,
        })
    }

    /// The adapter that `train` asks for over this model.
    #[must_use]
    pub fn adapter(&self, train: &Train) -> Adapter {
        let Train { alpha, rank, .. } = *train;
        let asked = LAYERS.iter().filter(|name| train.layers.iter().any(|layer| layer == *name));
        let targets: Vec<String> = asked.map(|name| (*name).to_owned()).collect();
        let blocks = (0..self.layers).flat_map(|block| targets.iter().map(move |t| (block, t)));
        let tensors = blocks.flat_map(|(block, target)| self.pair(block, target, rank)).collect();
        Adapter { alpha, rank, tensors, targets }
    }

    fn pair(&self, block: u32, target: &str, rank: u32) -> [Tensor; 2] {
        let (part, inputs, outputs) = match target {
            "q_proj" => ("self_attn", self.hidden, self.queries),
            "k_proj" | "v_proj" => ("self_attn", self.hidden, self.keys),
            "o_proj" => ("self_attn", self.queries, self.hidden),
            "down_proj" => ("mlp", self.intermediate, self.hidden),
            _ => ("mlp", self.hidden, self.intermediate),
        };
        let tensor = |factor, shape| Tensor {
            name: format!(
                "base_model.model.model.layers.{block}.{part}.{target}.lora_{factor}.weight"
            ),
            shape,
        };
        [tensor('A', [rank, inputs]), tensor('B', [outputs, rank])]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;
    use crate::owner::job;

    pub(in crate::owner) const CONFIG: &str = r#"{"model_type":"llama","hidden_size":64,
        "intermediate_size":160,"num_hidden_layers":2,"num_attention_heads":4,
        "num_key_value_heads":2,"max_position_embeddings":256,"vocab_size":512}"#;

    /// A folder that looks like a base model.
    pub(in crate::owner) fn write_base(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("config.json"), CONFIG).unwrap();
        fs::write(folder.join("model.safetensors"), "weights").unwrap();
        fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    }

    fn shape(config: &str) -> Result<Shape, BaseError> {
        Shape::parse(config.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn lists_the_tensors_peft_would_save() {
        let adapter = shape(CONFIG).unwrap().adapter(&job::tests::golden().train);
        assert_eq!(adapter.tensors.len(), 2 * 7 * 2);
        let find = |name: &str| {
            let name = format!("base_model.model.model.layers.1.{name}.weight");
            adapter.tensors.iter().find(|tensor| tensor.name == name).unwrap().shape
        };
        assert_eq!(find("self_attn.q_proj.lora_A"), [8, 64]);
        assert_eq!(find("self_attn.k_proj.lora_B"), [32, 8]);
        assert_eq!(find("mlp.up_proj.lora_B"), [160, 8]);
        assert_eq!(find("mlp.down_proj.lora_A"), [8, 160]);
    }

    #[test]
    fn takes_each_familys_width_of_a_head() {
        for (family, width, said) in [
            ("mistral", 32, 48),
            ("qwen2", 32, 48),
            ("qwen3", 256, 48),
            ("gemma2", 512, 48),
            ("gemma3_text", 512, 48),
        ] {
            let config = CONFIG.replace("llama", family);
            let rows = |config: &str| {
                let adapter = shape(config).unwrap().adapter(&job::tests::golden().train);
                adapter.tensors.iter().find(|t| t.name.contains("k_proj.lora_B")).unwrap().shape[0]
            };
            assert_eq!(rows(&config), width, "{family}");
            let config = config.replace("\"hidden_size\"", "\"head_dim\":24,\"hidden_size\"");
            assert_eq!(rows(&config), said, "{family}");
        }
    }

    #[test]
    fn keeps_the_order_of_the_forward_pass_whatever_was_asked() {
        let mut train = job::tests::golden().train;
        train.layers = vec!["v_proj".into(), "q_proj".into(), "v_proj".into()];
        let adapter = shape(CONFIG).unwrap().adapter(&train);
        assert_eq!(adapter.targets, ["q_proj", "v_proj"]);
        assert!(adapter.tensors[0].name.ends_with("layers.0.self_attn.q_proj.lora_A.weight"));
    }

    #[test]
    fn digests_the_files_and_the_template_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        write_base(folder.path());
        let (base, _) = read(folder.path(), "tiny").unwrap();
        assert_eq!(base.weights, Digest::of(b"weights"));
        assert_eq!((base.config, base.template), (Digest::of(CONFIG.as_bytes()), None));
        fs::write(folder.path().join("chat_template.jinja"), "x").unwrap();
        let (base, _) = read(folder.path(), "tiny").unwrap();
        assert_eq!(base.template, Some(Digest::of(b"x")));
        fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
        fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
        assert!(matches!(read(folder.path(), "tiny"), Err(BaseError::File(_))));
    }

    #[test]
    fn refuses_another_family_and_numbers_that_cannot_be() {
        let refusal = |from: &str, to: &str| shape(&CONFIG.replace(from, to)).unwrap_err();
        let error = refusal("llama", "gpt2").to_string();
        assert!(error.contains("unknown variant `gpt2`"), "{error}");
        for (from, to, named) in [
            ("_size\":64", "_size\":0", "hidden_size"),
            ("_size\":64", "_size\":63", "hidden_size"),
            ("layers\":2", "layers\":4096", "num_hidden_layers"),
            ("heads\":2", "heads\":3", "num_key_value_heads"),
            ("heads\":4", "heads\":0", "num_attention_heads"),
        ] {
            let BaseError::Number { field, .. } = refusal(from, to) else { panic!("{to}") };
            assert_eq!(field, named);
        }
    }
}
