//! Training steps on a randomly initialised Llama, timed: tokens per CPU-second, peak memory and
//! the share of this machine's GEMM rate. `scripts/bench train` sets it beside its peers.
#![expect(clippy::as_conversions, reason = "figures for a person")]

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use measurement::cbor::Real;
use measurement::digest::Digest;
use measurement::manifest::{self, Schedule, Shape, Training};
use measurement::privacy::{Adjacency, Clipping, Mechanism, Sampler, Terms, Unit};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Instant;
use trainer::dp::AttemptSecret;
use trainer::engine::{CpuEngine, Engine, Kernel, multiply};
use trainer::lora::{Adapter, LoraConfig, write_named};
use trainer::model::{Config, Model};
use trainer::optimiser::Optimiser;
use trainer::record::Example;
use trainer::train::{Attempt, Units, initial_adapter, tensor_list};
use zeroize::Zeroizing;

/// Times training steps on a random Llama; prints one JSON object.
#[derive(Parser)]
struct Cli {
    /// Size of the model.
    #[arg(long, value_enum, default_value_t = Size::Small)]
    model: Size,
    /// Whether steps clip and add noise.
    #[arg(long, value_enum, default_value_t = Mode::Private)]
    mode: Mode,
    /// Whether the base model is held in bf16 and activations are rounded for it.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// Sequences a step.
    #[arg(long, default_value_t = 16)]
    batch: u32,
    /// Tokens a sequence.
    #[arg(long, default_value_t = 256)]
    seq: u32,
    /// Inner dimension of the adapter, on all linear layers of the blocks.
    #[arg(long, default_value_t = 16)]
    rank: u32,
    /// Timed steps.
    #[arg(long, default_value_t = 5)]
    steps: u32,
    /// Steps before them.
    #[arg(long, default_value_t = 1)]
    warmup: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// With the mechanism.
    Private,
    /// The same gradients, summed as they are.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Precision {
    /// Everything in f32.
    F32,
    /// Base weights and what they multiply in bf16.
    Bf16,
}

impl Precision {
    fn kernel(self) -> anyhow::Result<Kernel> {
        match self {
            Self::F32 => Ok(Kernel::fastest()),
            Self::Bf16 => Kernel::rounding().context("no instructions for bf16 here"),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Size {
    /// 64 wide, 2 blocks.
    Tiny,
    /// 512 wide, 8 blocks.
    Small,
    /// 768 wide, 12 blocks.
    #[value(name = "110m")]
    Large,
}

impl Size {
    /// Hidden, intermediate, blocks, query heads, key heads, vocabulary.
    fn sizes(self) -> [u32; 6] {
        match self {
            Self::Tiny => [64, 172, 2, 4, 2, 256],
            Self::Small => [512, 1376, 8, 8, 8, 4096],
            Self::Large => [768, 2048, 12, 12, 12, 16_000],
        }
    }

    fn config(self) -> Vec<u8> {
        let [hidden, intermediate, layers, heads, kv_heads, vocab] = self.sizes();
        let config = json!({
            "model_type": "llama", "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "vocab_size": vocab, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 4096, "tie_word_embeddings": false,
        });
        config.to_string().into_bytes()
    }

    /// Floating-point operations of a forward and a backward pass over one sequence: frozen
    /// products twice, the adapter's thrice, attention seven times a product of its triangle.
    fn operations(self, positions: f64, rank: f64) -> f64 {
        let [hidden, intermediate, layers, _, _, vocab] = self.sizes().map(f64::from);
        let block = 4.0 * hidden * hidden + 3.0 * hidden * intermediate;
        let low = rank * (8.0 * hidden + 3.0 * (hidden + intermediate));
        let attention = 3.5 * positions * hidden;
        2.0 * positions * (layers * (2.0 * block + 3.0 * low + attention) + 2.0 * hidden * vocab)
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let config = cli.model.config();
    let model = {
        let weights = random_weights(&Config::parse(&config)?, cli.precision)?;
        Model::load(&config, &[&weights])?
    };
    let training = training(&cli, &model)?;
    let mechanism = mechanism(&cli)?;
    let digest = Digest::of(b"cloister/trainer/speed/v1");
    let start = initial_adapter(&model, &training, &digest)?;
    let engine = CpuEngine::with_kernel(&model, &start, cli.seq as usize, cli.precision.kernel()?)?;
    let examples = examples(&cli);
    let mut times = Times { warmup: cli.warmup, cpu: Vec::new(), wall: Vec::new() };
    match cli.mode {
        Mode::Private => {
            let positions = cli.seq as usize;
            let units = Units::new(examples.into_iter().map(|e| vec![e]).collect(), positions);
            let secret = AttemptSecret::new(Zeroizing::new([7; 32]));
            let mut attempt =
                Attempt::begin(&engine, start, &training, &mechanism, secret, digest)?;
            for step in 0..cli.warmup + cli.steps {
                times.measure(step, || Ok(attempt.step(&units)?))?;
            }
        }
        Mode::Plain => {
            let mut adapter = start;
            let mut optimiser = Optimiser::new(training.optimiser, adapter.values().len());
            for step in 0..cli.warmup + cli.steps {
                times.measure(step, || {
                    let sum = plain_sum(&engine, &adapter, &examples)?;
                    optimiser.update(adapter.values_mut(), &sum, 0.0, 1e-3);
                    Ok(())
                })?;
            }
        }
    }
    let peak = peak_mebibytes()?;
    let Times { mut cpu, mut wall, .. } = times;
    let tokens = f64::from(cli.batch * cli.seq);
    let operations = cli.model.operations(f64::from(cli.seq), f64::from(cli.rank));
    let rate = f64::from(cli.batch) * operations / median(&mut cpu) / 1e9;
    let gemm = gemm_rate(&engine)?;
    println!(
        "{}",
        json!({
            "mode": format!("cloister-{:?}", cli.mode).to_lowercase(),
            "precision": format!("{:?}", cli.precision).to_lowercase(),
            "identity": engine.identity(),
            "cpu_median_s": median(&mut cpu),
            "cpu_min_s": cpu.iter().copied().fold(f64::INFINITY, f64::min),
            "wall_median_s": median(&mut wall),
            "tok_per_cpu_s": tokens / median(&mut cpu),
            "peak_rss_mib": peak,
            "gemm_gflops": gemm,
            "step_gflops": rate,
            "gemm_share": rate / gemm,
        })
    );
    Ok(())
}

/// CPU and wall seconds of each step after the first few.
struct Times {
    warmup: u32,
    cpu: Vec<f64>,
    wall: Vec<f64>,
}

impl Times {
    fn measure(
        &mut self,
        step: u32,
        run: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (before, clock) = (cpu_seconds()?, Instant::now());
        run()?;
        if step >= self.warmup {
            self.cpu.push(cpu_seconds()? - before);
            self.wall.push(clock.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// Values of the size a real model starts with, from a fixed stream.
fn random_weights(config: &Config, precision: Precision) -> anyhow::Result<Vec<u8>> {
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.07
    };
    let mut tensors = BTreeMap::new();
    for (name, shape) in config.tensors() {
        let count = shape.iter().product();
        let values = match shape.len() {
            1 => vec![1.0; count],
            _ => (0..count).map(|_| next()).collect(),
        };
        tensors.insert(name, (shape, values));
    }
    if precision == Precision::F32 {
        return Ok(write_named(&tensors));
    }
    let upper = |value: &f32| value.to_le_bytes().into_iter().skip(2);
    let cut = |values: &[f32]| values.iter().flat_map(upper).collect::<Vec<u8>>();
    let bytes: BTreeMap<_, (_, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, (shape.clone(), cut(values))))
        .collect();
    let views = bytes.iter().map(|(name, (shape, data))| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, shape.clone(), data);
        Ok((name.as_str(), view?))
    });
    Ok(safetensors::serialize(views.collect::<anyhow::Result<Vec<_>>>()?, None)?)
}

fn examples(cli: &Cli) -> Vec<Example> {
    let vocab = cli.model.sizes()[5];
    let ids = |n: u32| (0..cli.seq).map(move |t| (n * 7919 + t * 104_729) % vocab).collect();
    let example = |ids: Vec<u32>| Example::new(&ids, &vec![true; ids.len()], ids.len());
    (0..cli.batch).map(ids).map(example).collect()
}

fn training(cli: &Cli, model: &Model) -> anyhow::Result<Training> {
    let config = LoraConfig::everywhere(cli.rank as usize, f64::from(2 * cli.rank))?;
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    Ok(Training {
        adapter: manifest::Adapter {
            alpha: 2 * cli.rank,
            rank: cli.rank,
            targets: targets.map(str::to_owned).to_vec(),
            tensors: tensor_list(model, &config),
        },
        checkpoint: 0,
        heartbeat: 1,
        optimiser: manifest::Optimiser::Adamw(manifest::AdamW {
            beta1: Real(0.9),
            beta2: Real(0.999),
            epsilon: Real(1e-8),
            learning_rate: Real(1e-3),
            weight_decay: Real(0.01),
        }),
        schedule: Schedule { shape: Shape::Constant, warmup: 0 },
        sequence: cli.seq,
    })
}

fn mechanism(cli: &Cli) -> anyhow::Result<Mechanism> {
    let terms = Terms {
        adjacency: Adjacency::AddOrRemoveOne,
        clipping: Clipping::Flat,
        delta: Real(1e-7),
        expected_batch: cli.batch,
        max_grad_norm: Real(1.0),
        max_units: 1_000_000,
        noise_multiplier: Real(1.0),
        physical_batch: cli.batch,
        records_per_unit: 1,
        sample_rate: Real(0.5),
        sampler: Sampler::TruncatedPoisson,
        steps: cli.warmup + cli.steps,
        unit: Unit::Record,
    };
    Mechanism::new(terms).map_err(|findings| anyhow::anyhow!("{findings:?}"))
}

fn plain_sum(
    engine: &CpuEngine<'_>,
    adapter: &Adapter,
    examples: &[Example],
) -> anyhow::Result<Vec<f32>> {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = |worker: usize| {
        let mut sum = vec![0.0_f32; adapter.values().len()];
        let mut gradient = sum.clone();
        for example in examples.iter().skip(worker).step_by(workers) {
            engine.gradient(adapter.values(), example, &mut gradient)?;
            sum.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g / examples.len() as f32);
        }
        anyhow::Ok(sum)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (1..workers).map(|w| scope.spawn(move || part(w))).collect();
        let mut total = part(0)?;
        for worker in running {
            let other = worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
            total.iter_mut().zip(&other).for_each(|(total, other)| *total += other);
        }
        Ok(total)
    })
}

/// The best rate at which the engine's kernel multiplies matrices that fit its caches, GFLOP per
/// CPU-second.
fn gemm_rate(engine: &CpuEngine<'_>) -> anyhow::Result<f64> {
    let [rows, depth, columns] = [252, 512, 1536];
    let (left, right) = (vec![0.5; rows * depth], vec![0.25; depth * columns]);
    let mut c = vec![0.0; rows * columns];
    let operations = 2.0 * (rows * depth * columns) as f64;
    let mut best: f64 = 0.0;
    for _ in 0..20 {
        let before = cpu_seconds()?;
        let mut count = 0.0;
        while cpu_seconds()? - before < 0.1 {
            multiply(engine.kernel(), &left, &right, depth, &mut c);
            count += 1.0;
        }
        best = best.max(count * operations / (cpu_seconds()? - before) / 1e9);
    }
    ensure!(c.iter().all(|value| value.is_finite()), "the product is not finite");
    Ok(best)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// User and system time of this process, all threads.
fn cpu_seconds() -> anyhow::Result<f64> {
    let whole = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = whole.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = ticks(12).zip(ticks(13)).context("/proc/self/stat")?;
    Ok((user + system) / 100.0)
}

fn peak_mebibytes() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kibibytes.context("/proc/self/status")? / 1024.0)
}
