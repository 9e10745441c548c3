//! Making a small base model from public text: a byte-level BPE tokenizer and a Llama trained
//! from scratch, all parameters, without any privacy.
//!
//! For demonstrations and tests, where a real base model would be too large. Same recipe and
//! text, same files.

pub mod corpus;

use crate::lora::write_tensors;
use crate::model::{Config, Lent, Model, Weights, graph};
use crate::optimiser::learning_rate;
use crate::real::{index_of, narrow, real};
use candle_core::{Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use measurement::manifest::{Schedule, Shape};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use thiserror::Error;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

/// Ends a text that is no message, and fills up batches.
const END_OF_TEXT: &str = "<|endoftext|>";
const MARKS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// Shape and schedule of a small model.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the feed-forward layer.
    pub intermediate: u32,
    /// Number of blocks.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Ids of the tokenizer.
    pub vocab: u32,
    /// Longest sequence.
    pub positions: u32,
    /// Texts per step.
    pub batch: u32,
    /// Steps.
    pub steps: u32,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Seed of initialisation and order.
    pub seed: u8,
}

/// Why no model was made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PretrainError {
    /// The tensor library refused an operation.
    #[error("the tensor library refused: {0}")]
    Backend(#[from] candle_core::Error),
    /// The shape is not one of a Llama.
    #[error(transparent)]
    Shape(#[from] crate::model::Unusable),
    /// There is nothing to learn from.
    #[error("no text to learn from")]
    NoText,
    /// No tokenizer could be made of the text.
    #[error("no tokenizer could be made of the text")]
    Tokenizer,
}

/// The files of a model folder, by name.
pub type Folder = BTreeMap<&'static str, Vec<u8>>;

/// Makes a tokenizer and trains a model on texts; `on_step` gets the number of steps done and the
/// step's loss. Texts may hold the marks of ChatML. `spelled` is further text that only the
/// tokenizer learns from.
///
/// # Errors
/// When there is no text, or the shape is not one of a Llama.
pub fn pretrain(
    texts: &[String],
    spelled: &[String],
    recipe: &Recipe,
    on_step: &mut dyn FnMut(u32, f64),
) -> Result<(Folder, Model), PretrainError> {
    let tokenizer = tokenizer(&[texts, spelled], index_of(recipe.vocab))?;
    let config_json = config_json(recipe);
    let config = Config::parse(config_json.to_string().as_bytes())?;
    let encode = |text: &String| {
        let encoding = tokenizer.encode_fast(text.as_str(), false).ok()?;
        let mut ids = encoding.get_ids().to_vec();
        ids.truncate(config.max_positions);
        (ids.len() > 1).then_some(ids)
    };
    let texts: Vec<Vec<u32>> = texts.iter().filter_map(encode).collect();
    if texts.is_empty() {
        return Err(PretrainError::NoText);
    }
    let mut network = Network::new(config, recipe)?;
    let mut order = Order::new(texts.len(), recipe.seed);
    for done in 1..=recipe.steps {
        let batch: Vec<&Vec<u32>> =
            (0..recipe.batch).filter_map(|_| texts.get(order.next())).collect();
        on_step(done, network.step(&batch, recipe, done - 1)?);
    }
    let files = Folder::from([
        ("config.json", pretty(&config_json)),
        ("generation_config.json", pretty(&generation_json())),
        ("model.safetensors", network.safetensors()),
        (
            "tokenizer.json",
            tokenizer.to_string(false).map_err(|_| PretrainError::Tokenizer)?.into_bytes(),
        ),
        ("tokenizer_config.json", pretty(&tokenizer_json(recipe))),
    ]);
    Ok((files, Model::assemble(network.config, network.weights)))
}

fn tokenizer(texts: &[&[String]; 2], vocab: usize) -> Result<tokenizers::Tokenizer, PretrainError> {
    let special = [END_OF_TEXT, MARKS[0], MARKS[1]].map(|mark| AddedToken::from(mark, true));
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.to_vec())
        .build();
    let byte_level = ByteLevel::new(false, false, true);
    let mut tokenizer = TokenizerBuilder::default()
        .with_model(BPE::default())
        .with_normalizer(None::<tokenizers::NormalizerWrapper>)
        .with_pre_tokenizer(Some(byte_level))
        .with_post_processor(None::<tokenizers::PostProcessorWrapper>)
        .with_decoder(Some(byte_level))
        .build()
        .map_err(|_| PretrainError::Tokenizer)?;
    // Marks are single tokens; what lies between them is what merges are learned from.
    let all = texts.iter().copied().flatten();
    let plain = all.flat_map(|text| text.split(MARKS[0])).flat_map(|part| part.split(MARKS[1]));
    tokenizer.train(&mut trainer, plain).map_err(|_| PretrainError::Tokenizer)?;
    tokenizers::Tokenizer::from_bytes(
        serde_json::to_vec(&tokenizer).map_err(|_| PretrainError::Tokenizer)?,
    )
    .map_err(|_| PretrainError::Tokenizer)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn config_json(recipe: &Recipe) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "bos_token_id": null,
        "eos_token_id": 2,
        "head_dim": recipe.hidden / recipe.heads.max(1),
        "hidden_act": "silu",
        "hidden_size": recipe.hidden,
        "intermediate_size": recipe.intermediate,
        "max_position_embeddings": recipe.positions,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": recipe.heads,
        "num_hidden_layers": recipe.layers,
        "num_key_value_heads": recipe.kv_heads,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-5,
        "rope_scaling": null,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "vocab_size": recipe.vocab,
    })
}

fn generation_json() -> Value {
    json!({"eos_token_id": [2, 0], "pad_token_id": 0})
}

fn tokenizer_json(recipe: &Recipe) -> Value {
    let template = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
                    message['content'] + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt \
                    %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    json!({
        "chat_template": template,
        "clean_up_tokenization_spaces": false,
        "eos_token": MARKS[1],
        "model_max_length": recipe.positions,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
}

/// Texts in a new random order each time all were seen.
struct Order {
    places: Vec<usize>,
    at: usize,
    stream: ChaCha20Rng,
}

impl Order {
    fn new(count: usize, seed: u8) -> Self {
        let places = (0..count).collect();
        Self { places, at: count, stream: ChaCha20Rng::from_seed([seed; 32]) }
    }

    fn next(&mut self) -> usize {
        if self.at >= self.places.len() {
            self.at = 0;
            for end in (1..self.places.len()).rev() {
                let bound = u64::try_from(end + 1).unwrap_or(u64::MAX);
                let other = usize::try_from(self.stream.next_u64() % bound).unwrap_or(0);
                self.places.swap(end, other);
            }
        }
        self.at += 1;
        self.places.get(self.at - 1).copied().unwrap_or(0)
    }
}

/// All parameters, as variables that candle-nn's optimiser moves.
struct Network {
    config: Config,
    vars: BTreeMap<String, Var>,
    weights: Weights,
    optimiser: AdamW,
}

impl Network {
    fn new(config: Config, recipe: &Recipe) -> Result<Self, PretrainError> {
        let mut stream = ChaCha20Rng::from_seed([recipe.seed.wrapping_add(1); 32]);
        let mut vars = BTreeMap::new();
        let tensors: BTreeMap<_, _> = config.tensors().into_iter().collect();
        for (name, shape) in tensors {
            let count = shape.iter().product();
            let into_residual = name.contains("o_proj") || name.contains("down_proj");
            let spread =
                0.06 / if into_residual { (2.0 * real(config.blocks.len())).sqrt() } else { 1.0 };
            let values = match &shape[..] {
                [_] => vec![1.0; count],
                _ => (0..count).map(|_| narrow(spread * normal(&mut stream))).collect(),
            };
            vars.insert(name, Var::from_vec(values, shape, &Device::Cpu)?);
        }
        let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        let weights = Weights::assemble(tensors.collect());
        let settings =
            ParamsAdamW { lr: recipe.learning_rate, beta2: 0.98, ..ParamsAdamW::default() };
        let optimiser = AdamW::new(vars.values().cloned().collect(), settings)?;
        Ok(Self { config, vars, weights, optimiser })
    }

    /// One update on a batch, padded to its longest text; the loss per token before it.
    fn step(
        &mut self,
        batch: &[&Vec<u32>],
        recipe: &Recipe,
        step: u32,
    ) -> Result<f64, PretrainError> {
        let width = batch.iter().map(|ids| ids.len()).max().unwrap_or(2);
        let (mut ids, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for text in batch {
            let start = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            let next = text.get(1..).unwrap_or_default();
            rows.extend((start..).zip(next).map(|(row, _)| row));
            targets.extend(next);
            ids.extend_from_slice(text);
            ids.resize(ids.len() + width - text.len(), 0);
        }
        let ids = Tensor::from_vec(ids, (batch.len(), width), &Device::Cpu)?;
        let logits = graph::logits(&self.config, &self.weights, &|_| None, &ids)?;
        let loss = graph::mean_loss(&logits, rows, targets)?;
        let schedule = Schedule { shape: Shape::Cosine, warmup: recipe.steps / 20 };
        let rate = learning_rate(&schedule, recipe.learning_rate, step, recipe.steps);
        self.optimiser.set_learning_rate(rate);
        self.optimiser.backward_step(&loss)?;
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }

    fn safetensors(&self) -> Vec<u8> {
        let lent: BTreeMap<_, _> = self
            .vars
            .iter()
            .filter_map(|(name, var)| Some((name, var.dims(), Lent::new(var.as_tensor())?)))
            .map(|(name, dims, lent)| (name.clone(), (dims.to_vec(), lent)))
            .collect();
        let tensors = lent
            .iter()
            .map(|(name, (shape, lent))| (name.clone(), (shape.clone(), lent.values())))
            .collect();
        write_tensors(&tensors, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))
    }
}

/// Nearly normal, for initial values: twelve uniform numbers less six.
fn normal(stream: &mut ChaCha20Rng) -> f64 {
    let unit = |stream: &mut ChaCha20Rng| f64::from(stream.next_u32()) / f64::from(u32::MAX);
    (0..12).map(|_| unit(stream)).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Prompt, Template, Tokeniser};

    fn recipe() -> Recipe {
        Recipe {
            hidden: 16,
            intermediate: 24,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            vocab: 320,
            positions: 32,
            batch: 4,
            steps: 40,
            learning_rate: 1e-2,
            seed: 1,
        }
    }

    #[test]
    fn learns_and_writes_files_that_load() {
        let texts = corpus::texts(60, 1);
        let mut losses = Vec::new();
        let (files, _) =
            pretrain(&texts, &[], &recipe(), &mut |_, loss| losses.push(loss)).unwrap();
        assert!(losses[39] < 0.8 * losses[0], "{losses:?}");
        let model = Model::load(&files["config.json"], &[&files["model.safetensors"]]).unwrap();
        let tokeniser = Tokeniser::read(&files["tokenizer.json"], model.config(), 32).unwrap();
        assert_eq!(tokeniser.template(), Template::ChatMl);
        let (ids, end) = tokeniser.prompt(Prompt::Message("hello")).unwrap();
        assert_eq!((ids[0], end), (1, Some(2)));
        assert_eq!(tokeniser.decode(&ids).unwrap(), "user\nhelloassistant\n");
    }

    #[test]
    fn the_same_recipe_and_text_give_the_same_files() {
        let texts = corpus::texts(20, 1);
        let recipe = Recipe { steps: 2, ..recipe() };
        let make = || pretrain(&texts, &[], &recipe, &mut |_, _| {}).unwrap().0;
        assert_eq!(make(), make());
    }
}
