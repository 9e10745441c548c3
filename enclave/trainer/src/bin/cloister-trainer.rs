//! The laptop tool: look at models and adapters, rehearse training, make a small base model.
//!
//! Nothing it does is protected: no enclave, no ledger, no receipt. It says so where it matters.

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use measurement::cbor::Real;
use measurement::digest::Digest;
use measurement::manifest::{self, Schedule, Shape, Training};
use measurement::privacy::{Adjacency, Clipping, Mechanism, Sampler, Terms, Unit};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::dp::AttemptSecret;
use trainer::engine::{CpuEngine, Engine, Kernel};
use trainer::evaluate::{self, Choice};
use trainer::lora::{Adapter, LoraConfig};
use trainer::model::Model;
use trainer::pretrain::{self, Recipe, corpus};
use trainer::record::{Example, Prompt, Record, Tokeniser};
use trainer::train::{self, Attempt, Units};
use zeroize::Zeroizing;

/// Look at models and adapters, rehearse training on this machine, make a small base model.
#[derive(Parser)]
#[command(name = "cloister-trainer", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Attack this build's mechanism, and print what was measured beside the claimed epsilon.
    AuditTrainer(trainer::audit::command::Arguments),
    /// Logits of each token of a sequence.
    Forward(Forward),
    /// Gradients of each example's mean loss with respect to an adapter.
    Gradients(Gradients),
    /// Mean loss per labelled token on public records.
    Evaluate(Evaluate),
    /// One reply to a prompt.
    Generate(Generate),
    /// Rehearse training with differential privacy on this machine. Nothing is protected.
    Train(Box<Train>),
    /// Make a small base model from public text.
    Pretrain(Pretrain),
}

#[derive(Args)]
struct Base {
    /// Folder with config.json, model.safetensors (or its shards) and, for text, tokenizer.json.
    model: PathBuf,
    /// Folder with adapter_config.json and adapter_model.safetensors.
    #[arg(long)]
    adapter: Option<PathBuf>,
}

#[derive(Args)]
struct Forward {
    #[command(flatten)]
    base: Base,
    /// JSON file with a list of token ids.
    #[arg(long)]
    ids: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Gradients {
    #[command(flatten)]
    base: Base,
    /// JSON file with a list of {"ids", "labels"}; -100 marks a label without loss.
    #[arg(long)]
    examples: PathBuf,
    /// Where to write grad.NAME, losses and grad_norms.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
struct Evaluate {
    #[command(flatten)]
    base: Base,
    /// Records, one JSON object a line.
    #[arg(long)]
    data: PathBuf,
    /// Tokens of every example; the model's own length where absent.
    #[arg(long)]
    sequence: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Generate {
    #[command(flatten)]
    base: Base,
    /// What the user says.
    #[arg(long)]
    prompt: String,
    /// Go on with the text as it is, as learned from prompt and completion, instead of replying
    /// to it as a message.
    #[arg(long)]
    plain: bool,
    /// The longest reply, in tokens.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Draw at this temperature instead of taking the likeliest token.
    #[arg(long)]
    temperature: Option<f64>,
    /// Draw from that many of the likeliest tokens only.
    #[arg(long, requires = "temperature")]
    top_k: Option<usize>,
    /// Draw from the fewest tokens only that have this probability together.
    #[arg(long, requires = "temperature")]
    top_p: Option<f64>,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    seed: u8,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Train {
    /// Folder with config.json, model.safetensors (or its shards) and tokenizer.json.
    model: PathBuf,
    /// Records, one JSON object a line.
    #[arg(long)]
    data: PathBuf,
    /// Folder to write the adapter to.
    #[arg(long)]
    out: PathBuf,
    /// Field whose value makes records one privacy unit; every record by itself where absent.
    #[arg(long)]
    unit: Option<String>,
    /// Inner dimension of the adapter.
    #[arg(long, default_value_t = 8)]
    rank: u32,
    /// The branch is scaled by alpha over rank.
    #[arg(long, default_value_t = 16)]
    alpha: u32,
    /// Linear layers to adapt, by the ends of their paths.
    #[arg(long, value_delimiter = ',', default_value = "all-linear")]
    targets: Vec<String>,
    /// Round activations to bf16 where the base model's weights are bf16: faster, on processors
    /// that have instructions for it.
    #[arg(long)]
    bf16: bool,
    /// Tokens of every example.
    #[arg(long, default_value_t = 96)]
    sequence: u32,
    /// Steps.
    #[arg(long, default_value_t = 60)]
    steps: u32,
    /// Probability that a unit joins a step.
    #[arg(long, default_value_t = 0.25)]
    sample_rate: f64,
    /// The constant the noisy sum is divided by, in units.
    #[arg(long, default_value_t = 16)]
    expected_batch: u32,
    /// Slots every step computes.
    #[arg(long, default_value_t = 48)]
    physical_batch: u32,
    /// Records of a sampled unit that a step looks at.
    #[arg(long, default_value_t = 1)]
    records_per_unit: u32,
    /// Public upper bound on the number of units.
    #[arg(long, default_value_t = 4096)]
    max_units: u64,
    /// Norm a unit's gradient is clipped to.
    #[arg(long, default_value_t = 1.0)]
    max_grad_norm: f64,
    /// Standard deviation of the noise as a multiple of that norm.
    #[arg(long, default_value_t = 1.0)]
    noise_multiplier: f64,
    /// Peak learning rate.
    #[arg(long, default_value_t = 5e-3)]
    learning_rate: f64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Pretrain {
    /// Public text: one JSON object with "text" or "messages" a line, or plain paragraphs.
    #[arg(long, conflicts_with = "synthetic")]
    data: Option<PathBuf>,
    /// Write that many short texts instead.
    #[arg(long, default_value_t = 20_000)]
    synthetic: usize,
    /// Folder to write the model to.
    #[arg(long)]
    out: PathBuf,
    /// Width of the residual stream.
    #[arg(long, default_value_t = 64)]
    hidden: u32,
    /// Width of the feed-forward layer.
    #[arg(long, default_value_t = 160)]
    intermediate: u32,
    /// Blocks.
    #[arg(long, default_value_t = 2)]
    layers: u32,
    /// Query heads.
    #[arg(long, default_value_t = 4)]
    heads: u32,
    /// Key and value heads.
    #[arg(long, default_value_t = 2)]
    kv_heads: u32,
    /// Ids of the tokenizer.
    #[arg(long, default_value_t = 1024)]
    vocab: u32,
    /// Longest sequence.
    #[arg(long, default_value_t = 128)]
    positions: u32,
    /// Texts a step.
    #[arg(long, default_value_t = 16)]
    batch: u32,
    /// Steps.
    #[arg(long, default_value_t = 1_500)]
    steps: u32,
    /// Peak learning rate.
    #[arg(long, default_value_t = 8e-3)]
    learning_rate: f64,
    /// Seed of text, initial values and order.
    #[arg(long, default_value_t = 1)]
    seed: u8,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::AuditTrainer(args) => {
            return trainer::audit::command::run(&args, operating_system_random());
        }
        Verb::Forward(args) => forward(&args),
        Verb::Gradients(args) => gradients(&args),
        Verb::Evaluate(args) => evaluate(&args),
        Verb::Generate(args) => generate(&args),
        Verb::Train(args) => rehearse(&args),
        Verb::Pretrain(args) => make_base(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloister-trainer: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn forward(args: &Forward) -> anyhow::Result<()> {
    let (model, adapter) = args.base.load()?;
    let ids: Vec<u32> = read_json(&args.ids)?;
    let limit = model.config().vocab;
    let known = |id: &u32| usize::try_from(*id).is_ok_and(|id| id < limit);
    ensure!(ids.iter().all(known), "{}: an id is not below {limit}", args.ids.display());
    let logits = evaluate::logits(&model, adapter.as_ref(), &ids)?;
    if args.json {
        println!("{}", json!({"logits": logits}));
        return Ok(());
    }
    for row in logits {
        let text: Vec<String> = row.iter().map(f32::to_string).collect();
        println!("{}", text.join(" "));
    }
    Ok(())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Labelled {
    ids: Vec<u32>,
    labels: Vec<i64>,
}

fn gradients(args: &Gradients) -> anyhow::Result<()> {
    let (model, adapter) = args.base.load()?;
    let adapter = adapter.context("--adapter is needed: gradients are taken with respect to it")?;
    let examples: Vec<Labelled> = read_json(&args.examples)?;
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
    let limit = model.config().vocab;
    for labelled in &examples {
        let Labelled { ids, labels } = labelled;
        ensure!(ids.len() == labels.len(), "as many labels as ids are needed");
        let mut marked = ids.iter().zip(labels);
        let own = |(id, label): (&u32, &i64)| *label == -100 || *label == i64::from(*id);
        ensure!(marked.all(own), "a label is its own id, or -100");
        let known = |id: &u32| usize::try_from(*id).is_ok_and(|id| id < limit);
        ensure!(ids.iter().all(known), "{}: an id is not below {limit}", args.examples.display());
        let learned: Vec<bool> = labels.iter().map(|label| *label >= 0).collect();
        let positions = ids.len().max(2);
        let example = Example::new(ids, &learned, positions);
        let engine = CpuEngine::new(&model, &adapter, positions)?;
        let mut gradient = vec![0.0; adapter.values().len()];
        engine.gradient(adapter.values(), &example, &mut gradient)?;
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let loss = engine.loss(adapter.values(), &example)?;
        for (name, value) in [("grad_norms", norm), ("losses", loss)] {
            let entry =
                tensors.entry(name.into()).or_insert_with(|| (vec![examples.len()], vec![]));
            entry.1.push(value.to_string().parse()?);
        }
        for (name, [rows, columns], place) in adapter.tensors() {
            let shape = || (vec![examples.len(), rows, columns], vec![]);
            let entry = tensors.entry(format!("grad.{name}")).or_insert_with(shape);
            entry.1.extend_from_slice(gradient.get(place).unwrap_or_default());
        }
    }
    let bytes = trainer::lora::write_named(&tensors);
    std::fs::write(&args.out, bytes).with_context(|| args.out.display().to_string())
}

fn evaluate(args: &Evaluate) -> anyhow::Result<()> {
    let (model, adapter) = args.base.load()?;
    let positions = args.sequence.unwrap_or(model.config().max_positions);
    let tokeniser = tokeniser(&args.base.model, &model, positions)?;
    let records = read_records(&args.data)?;
    let example = |(line, record): (usize, Record)| {
        tokeniser.example(&record).with_context(|| format!("{}:{line}", args.data.display()))
    };
    let examples = records.into_iter().map(example).collect::<anyhow::Result<Vec<_>>>()?;
    let loss = evaluate::mean_loss(&model, adapter.as_ref(), &examples, positions)?;
    if args.json {
        println!("{}", json!({"loss": loss, "perplexity": loss.exp(), "records": examples.len()}));
    } else {
        println!("loss {loss:.4} nats per token over {} records", examples.len());
    }
    Ok(())
}

fn generate(args: &Generate) -> anyhow::Result<()> {
    let (model, adapter) = args.base.load()?;
    let tokeniser = tokeniser(&args.base.model, &model, model.config().max_positions)?;
    let mut choice = match args.temperature {
        Some(temperature) => {
            ensure!(temperature > 0.0, "--temperature must be above 0");
            ensure!(args.top_k != Some(0), "--top-k must be above 0");
            let part = |p: f64| p > 0.0 && p <= 1.0;
            ensure!(args.top_p.is_none_or(part), "--top-p must be above 0 and at most 1");
            let stream = Box::new(ChaCha20Rng::from_seed([args.seed; 32]));
            Choice::Sampled { temperature, top_k: args.top_k, top_p: args.top_p, stream }
        }
        None => Choice::Greedy,
    };
    let adapter = adapter.as_ref();
    let prompt =
        if args.plain { Prompt::Text(&args.prompt) } else { Prompt::Message(&args.prompt) };
    let reply = evaluate::generate(&model, adapter, &tokeniser, prompt, args.tokens, &mut choice)?;
    if args.json {
        println!("{}", json!({"prompt": args.prompt, "reply": reply}));
    } else {
        println!("{reply}");
    }
    Ok(())
}

fn rehearse(args: &Train) -> anyhow::Result<()> {
    eprintln!(
        "cloister-trainer: a rehearsal: no enclave, no ledger, no receipt; epsilon is not claimed"
    );
    let model = load_model(&args.model)?;
    let positions = usize::try_from(args.sequence)?;
    let tokeniser = tokeniser(&args.model, &model, positions)?;
    let mut units: BTreeMap<String, Vec<Example>> = BTreeMap::new();
    for (line, record) in read_records(&args.data)? {
        let key = match &args.unit {
            Some(field) => record
                .expose(|bytes| {
                    serde_json::from_slice::<Value>(bytes).ok()?.get(field).map(Value::to_string)
                })
                .with_context(|| format!("{}:{line}: no field {field}", args.data.display()))?,
            None => line.to_string(),
        };
        let example = tokeniser
            .example(&record)
            .with_context(|| format!("{}:{line}", args.data.display()))?;
        units.entry(key).or_default().push(example);
    }
    let units = Units::new(units.into_values().collect(), positions);
    let mechanism = args.mechanism()?;
    let training = args.training(&model)?;
    let bar = progress(u64::from(args.steps));
    let kernel = if args.bf16 {
        Kernel::rounding().context("--bf16: this processor has no instructions for it")?
    } else {
        Kernel::fastest()
    };
    let digest = Digest::of(b"cloister/trainer/rehearsal/v1");
    let start = train::initial_adapter(&model, &training, &digest)?;
    let engine = CpuEngine::with_kernel(&model, &start, positions, kernel)?;
    let secret = AttemptSecret::new(operating_system_random()?);
    let mut attempt =
        Attempt::begin(&engine, start.clone(), &training, &mechanism, secret, digest)?;
    for _ in 0..args.steps {
        attempt.step(&units)?;
        bar.inc(1);
    }
    let adapter = attempt.finish(&start)?;
    bar.finish_and_clear();
    let name = args.model.file_name().map(|name| name.to_string_lossy().into_owned());
    let metadata = BTreeMap::from([("cloister.evidence".to_owned(), "NONE: rehearsal".to_owned())]);
    let files = adapter.to_peft(&name.unwrap_or_default(), &metadata);
    write_folder(
        &args.out,
        [("adapter_config.json", files.config), ("adapter_model.safetensors", files.weights)],
    )?;
    let out = args.out.display().to_string();
    if args.json {
        println!("{}", json!({"adapter": out, "steps": args.steps}));
    } else {
        println!("{out}");
    }
    Ok(())
}

impl Train {
    fn mechanism(&self) -> anyhow::Result<Mechanism> {
        let terms = Terms {
            adjacency: Adjacency::AddOrRemoveOne,
            clipping: Clipping::Flat,
            delta: Real(1e-9),
            expected_batch: self.expected_batch,
            max_grad_norm: Real(self.max_grad_norm),
            max_units: self.max_units,
            noise_multiplier: Real(self.noise_multiplier),
            physical_batch: self.physical_batch,
            records_per_unit: self.records_per_unit,
            sample_rate: Real(self.sample_rate),
            sampler: Sampler::TruncatedPoisson,
            steps: self.steps,
            unit: self.unit.clone().map_or(Unit::Record, Unit::Field),
        };
        Mechanism::new(terms).map_err(|findings| {
            let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", text.join("; "))
        })
    }

    fn training(&self, model: &Model) -> anyhow::Result<Training> {
        let targets = self.targets.iter().map(String::as_str);
        let config = LoraConfig::new(usize::try_from(self.rank)?, f64::from(self.alpha), targets)?;
        Ok(Training {
            adapter: manifest::Adapter {
                alpha: self.alpha,
                rank: self.rank,
                targets: self.targets.clone(),
                tensors: train::tensor_list(model, &config),
            },
            checkpoint: 0,
            heartbeat: 1,
            optimiser: manifest::Optimiser::Adamw(manifest::AdamW {
                beta1: Real(0.9),
                beta2: Real(0.999),
                epsilon: Real(1e-8),
                learning_rate: Real(self.learning_rate),
                weight_decay: Real(0.0),
            }),
            schedule: Schedule { shape: Shape::Linear, warmup: self.steps / 20 },
            sequence: self.sequence,
        })
    }
}

fn make_base(args: &Pretrain) -> anyhow::Result<()> {
    let (texts, spelled) = match &args.data {
        Some(path) => (public_texts(path)?, Vec::new()),
        None => (corpus::texts(args.synthetic, args.seed), corpus::vocabulary()),
    };
    let recipe = Recipe {
        hidden: args.hidden,
        intermediate: args.intermediate,
        layers: args.layers,
        heads: args.heads,
        kv_heads: args.kv_heads,
        vocab: args.vocab,
        positions: args.positions,
        batch: args.batch,
        steps: args.steps,
        learning_rate: args.learning_rate,
        seed: args.seed,
    };
    let bar = progress(u64::from(args.steps));
    let (files, _) = pretrain::pretrain(&texts, &spelled, &recipe, &mut |done, loss| {
        bar.inc(1);
        bar.set_message(format!("loss {loss:.3}"));
        if bar.is_hidden() && done.is_multiple_of(100) {
            eprintln!("cloister-trainer: step {done} of {}, loss {loss:.3}", args.steps);
        }
    })?;
    bar.finish_and_clear();
    write_folder(&args.out, files)?;
    println!("{}", args.out.display());
    Ok(())
}

fn public_texts(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        return Ok(text.split("\n\n").map(|part| part.trim().to_owned()).collect());
    }
    let line = |(at, line): (usize, &str)| {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), at + 1))?;
        if let Some(text) = value.get("text").and_then(Value::as_str) {
            return Ok(text.to_owned());
        }
        let Some(messages) = value.get("messages").and_then(Value::as_array) else {
            bail!("{}:{}: neither text nor messages", path.display(), at + 1);
        };
        let part = |message: &Value, name: &str| {
            message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Ok(messages
            .iter()
            .map(|m| format!("<|im_start|>{}\n{}<|im_end|>", part(m, "role"), part(m, "content")))
            .collect())
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}

impl Base {
    fn load(&self) -> anyhow::Result<(Model, Option<Adapter>)> {
        let model = load_model(&self.model)?;
        let adapter = match &self.adapter {
            Some(folder) => {
                let config = read(&folder.join("adapter_config.json"))?;
                let weights = read(&folder.join("adapter_model.safetensors"))?;
                Some(Adapter::from_peft(model.config(), &config, &weights)?)
            }
            None => None,
        };
        Ok((model, adapter))
    }
}

fn load_model(folder: &Path) -> anyhow::Result<Model> {
    let config = read(&folder.join("config.json"))?;
    let index = folder.join("model.safetensors.index.json");
    let shards = if index.exists() {
        let index: Value = read_json(&index)?;
        let map = index.get("weight_map").and_then(Value::as_object).context("no weight_map")?;
        let names: std::collections::BTreeSet<_> = map.values().filter_map(Value::as_str).collect();
        ensure!(names.iter().all(|name| !name.contains(['/', '\\'])), "a shard lies elsewhere");
        names.into_iter().map(|name| read(&folder.join(name))).collect::<Result<Vec<_>, _>>()?
    } else {
        vec![read(&folder.join("model.safetensors"))?]
    };
    let shards: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    Ok(Model::load(&config, &shards)?)
}

/// With the chat template beside it, if there is one.
fn tokeniser(folder: &Path, model: &Model, positions: usize) -> anyhow::Result<Tokeniser> {
    let tokenizer = read(&folder.join("tokenizer.json"))?;
    let tokeniser = Tokeniser::read(&tokenizer, model.config(), positions)?;
    let template = folder.join("chat_template.jinja");
    Ok(if template.exists() { tokeniser.with_template(&read(&template)?)? } else { tokeniser })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    serde_json::from_slice(&read(path)?).with_context(|| path.display().to_string())
}

/// Records with the numbers of their lines; blank lines are passed over.
fn read_records(path: &Path) -> anyhow::Result<Vec<(usize, Record)>> {
    let bytes = Zeroizing::new(read(path)?);
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    Ok(filled.map(|(at, line)| (at + 1, Record::new(line.to_vec()))).collect())
}

fn write_folder<'a>(
    folder: &Path,
    files: impl IntoIterator<Item = (&'a str, Vec<u8>)>,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn operating_system_random() -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    std::fs::File::open("/dev/urandom")?.read_exact(&mut *bytes)?;
    Ok(bytes)
}

fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} steps  {eta} left  {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
