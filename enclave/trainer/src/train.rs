//! Training: a fixed number of steps of constant shape.
//!
//! Every step:
//! 1. spends one step of the ledger,
//! 2. derives both streams from the state as it is,
//! 3. draws the batch,
//! 4. computes `physical_batch * records_per_unit` gradients, whatever was drawn: blank examples
//!    take the places that are left,
//! 5. clips each unit's mean gradient into the sum,
//! 6. releases the sum with noise, and
//! 7. updates the adapter.
//!
//! Nothing but the adapter comes out: no loss, no norm, no count. The tests record a run and replay
//! it without one unit: before the noise nothing but the sum differs, by one clipping norm at most.

use crate::dp::key::{self, NoiseStream};
use crate::dp::{
    AttemptSecret, Batch, ClippedSum, GaussianMechanism, MechanismError, PrivateGradient, Streams,
};
use crate::engine::{CpuEngine, Engine, EngineError};
use crate::lora::{Adapter, LoraConfig, LoraConfigError};
use crate::model::Model;
use crate::optimiser::{Optimiser, learning_rate};
use crate::real::{index, index_of, real};
use crate::record::Example;
use core::num::NonZero;
use measurement::digest::Digest;
use measurement::manifest::{Manifest, Tensor, Training};
use measurement::privacy::{Exhausted, Ledger, Mechanism, Step};
use std::panic::resume_unwind;
use thiserror::Error;
use zeroize::Zeroizing;

/// Examples by privacy unit, all of one length. Secret, the number of units included.
pub struct Units {
    units: Vec<Vec<Example>>,
    blank: Example,
}

impl Units {
    /// Takes the examples of each unit, made for sequences of `positions` ids.
    pub fn new(units: Vec<Vec<Example>>, positions: usize) -> Self {
        Self { units, blank: Example::blank(positions) }
    }

    fn records(&self) -> Zeroizing<Vec<usize>> {
        Zeroizing::new(self.units.iter().map(Vec::len).collect())
    }

    fn example(&self, unit: usize, record: usize) -> &Example {
        self.units.get(unit).and_then(|unit| unit.get(record)).unwrap_or(&self.blank)
    }
}

/// Why training ends without an adapter. Says nothing of any record.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum TrainError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The adapter's settings.
    #[error(transparent)]
    Lora(#[from] LoraConfigError),
    /// The mechanism does not fit the adapter.
    #[error(transparent)]
    Mechanism(#[from] MechanismError),
    /// The manifest lists other tensors than its settings give for this base model.
    #[error("the manifest's adapter tensors are not those of its settings for this model")]
    Tensors,
    /// More units than the mechanism was accounted for.
    #[error("more privacy units than the mechanism allows")]
    TooManyUnits,
    /// No step is left.
    #[error(transparent)]
    Spent(#[from] Exhausted),
    /// A tensor of the adapter is still what it was at the start.
    #[error("an adapter tensor was not trained")]
    Unmoved,
}

/// Trains an adapter with differential privacy.
///
/// `on_step` is called with the number of steps done, after each step: it learns nothing that the
/// manifest does not say.
///
/// # Errors
/// When manifest, model and data do not fit together, or a tensor was not trained.
pub fn train(
    base: &Model,
    units: &Units,
    training: &Training,
    mechanism: &Mechanism,
    secret: AttemptSecret,
    manifest: &Digest<Manifest>,
    on_step: &mut dyn FnMut(u32),
) -> Result<Adapter, TrainError> {
    let start = initial_adapter(base, training, manifest)?;
    let engine = CpuEngine::new(base, &start, index_of(training.sequence))?;
    let mut attempt =
        Attempt::begin(&engine, start.clone(), training, mechanism, secret, *manifest)?;
    for done in 1..=mechanism.steps {
        attempt.step(units)?;
        on_step(done);
    }
    attempt.finish(&start)
}

/// The adapter a job begins with: public, as its seed is.
///
/// # Errors
/// When the settings are out of range, or the manifest lists other tensors than they give.
pub fn initial_adapter(
    base: &Model,
    training: &Training,
    manifest: &Digest<Manifest>,
) -> Result<Adapter, TrainError> {
    let wanted = &training.adapter;
    let targets = wanted.targets.iter().map(String::as_str);
    let config = LoraConfig::new(index_of(wanted.rank), f64::from(wanted.alpha), targets)?;
    let adapter = Adapter::fresh(base.config(), config, key::adapter_seed(manifest))?;
    let mut listed: Vec<_> =
        wanted.tensors.iter().map(|t| (t.name.clone(), t.shape.map(index))).collect();
    let mut made: Vec<_> = adapter.tensors().map(|(name, shape, _)| (name, shape)).collect();
    listed.sort_unstable();
    made.sort_unstable();
    if listed == made { Ok(adapter) } else { Err(TrainError::Tensors) }
}

/// The tensors an adapter of these settings has on this model: the manifest's list.
pub fn tensor_list(base: &Model, config: &LoraConfig) -> Vec<Tensor> {
    let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let adapter = Adapter::zeros(base.config(), config.clone());
    adapter.tensors().map(|(name, shape, _)| Tensor { name, shape: shape.map(short) }).collect()
}

/// A step that is paid for, before its noise.
struct Gathered {
    step: Step,
    sum: ClippedSum,
    noise: NoiseStream,
}

/// The part of the peak learning rate from which on a step must move every tensor; below it a
/// step may be less than the distance of two neighbouring numbers.
const WATCHED: f64 = 0.1;

/// Whether no tensor is what it was. Noise moves all of them, so this tells of no record.
fn moved(before: &Adapter, after: &Adapter) -> bool {
    after.tensors().all(|(_, _, place)| before.tensor(&place) != after.tensor(&place))
}

/// One attempt at a job: the adapter, the optimiser, the ledger of steps, and the secret.
pub struct Attempt<'e, E: Engine> {
    engine: &'e E,
    adapter: Adapter,
    optimiser: Optimiser,
    training: Training,
    mechanism: Mechanism,
    gaussian: GaussianMechanism,
    ledger: Ledger,
    secret: AttemptSecret,
    manifest: Digest<Manifest>,
    workers: usize,
}

impl<'e, E: Engine> Attempt<'e, E> {
    /// An attempt with all its steps before it.
    ///
    /// # Errors
    /// When the mechanism does not fit the adapter.
    pub fn begin(
        engine: &'e E,
        adapter: Adapter,
        training: &Training,
        mechanism: &Mechanism,
        secret: AttemptSecret,
        manifest: Digest<Manifest>,
    ) -> Result<Self, TrainError> {
        let parameters = adapter.values().len();
        let layers: Vec<usize> =
            adapter.slots().iter().map(|slot| slot.a.len() + slot.b.len()).collect();
        Ok(Self {
            engine,
            optimiser: Optimiser::new(training.optimiser, parameters),
            adapter,
            training: training.clone(),
            gaussian: GaussianMechanism::new(mechanism, &layers)?,
            ledger: Ledger::new(mechanism),
            mechanism: mechanism.clone(),
            secret,
            manifest,
            workers: std::thread::available_parallelism().map_or(1, NonZero::get),
        })
    }

    /// The adapter as it is now.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// Takes one step.
    ///
    /// # Errors
    /// When no step is left, or the data does not fit the mechanism or the engine.
    pub fn step(&mut self, units: &Units) -> Result<(), TrainError> {
        let Gathered { step, sum, noise } = self.gather(units)?; // 1 to 5
        let at = step.index();
        let gradient = self.gaussian.privatize(step, sum, noise); // 6
        self.apply(at, &gradient) // 7
    }

    fn gather(&mut self, units: &Units) -> Result<Gathered, TrainError> {
        if u64::try_from(units.units.len()).is_ok_and(|count| count > self.mechanism.max_units) {
            return Err(TrainError::TooManyUnits);
        }
        let step = self.ledger.spend()?; // 1
        let streams = self.streams(step.index()); // 2
        let batch = Batch::draw(&self.mechanism, &units.records(), streams.batch); // 3
        let sum = self.clipped_sum(units, &batch)?; // 4, 5
        Ok(Gathered { step, sum, noise: streams.noise })
    }

    /// The streams of step `at`, from the state as it is.
    fn streams(&self, at: u32) -> Streams {
        let (first, second) = (self.optimiser.first(), self.optimiser.second());
        let norm = self.gaussian.clipping_norm();
        let state = key::state_digest(at, norm, self.adapter.values(), first, second);
        Streams::derive(&self.secret, &self.manifest, self.engine.identity(), &state)
    }

    fn apply(&mut self, at: u32, gradient: &PrivateGradient) -> Result<(), TrainError> {
        let peak = self.training.optimiser.learning_rate();
        let rate = learning_rate(&self.training.schedule, peak, at, self.mechanism.steps);
        let before = (rate >= WATCHED * peak).then(|| self.adapter.clone());
        let (values, variance) = (gradient.values(), gradient.noise_variance());
        self.optimiser.update(self.adapter.values_mut(), values, variance, rate);
        if before.is_none_or(|before| moved(&before, &self.adapter)) {
            Ok(())
        } else {
            Err(TrainError::Unmoved)
        }
    }

    /// Ends the attempt and hands out the adapter.
    ///
    /// # Errors
    /// When a tensor is still what it was in `start`.
    pub fn finish(self, start: &Adapter) -> Result<Adapter, TrainError> {
        if moved(start, &self.adapter) { Ok(self.adapter) } else { Err(TrainError::Unmoved) }
    }

    /// Slot `i` of the physical batch goes to worker `i mod workers`; sums of integers do not
    /// depend on who summed what.
    fn clipped_sum(&self, units: &Units, batch: &Batch) -> Result<ClippedSum, EngineError> {
        let slots = index_of(self.mechanism.physical_batch);
        let workers = self.workers.clamp(1, slots.max(1));
        std::thread::scope(|scope| {
            let work = |worker| move || self.part(units, batch, (worker..slots).step_by(workers));
            let running: Vec<_> = (1..workers).map(|worker| scope.spawn(work(worker))).collect();
            let mut total = work(0)()?;
            for worker in running {
                let part = worker.join().unwrap_or_else(|panic| resume_unwind(panic));
                total.merge(part?);
            }
            Ok(total)
        })
    }

    fn part(
        &self,
        units: &Units,
        batch: &Batch,
        slots: impl Iterator<Item = usize>,
    ) -> Result<ClippedSum, EngineError> {
        let parameters = self.adapter.values().len();
        let mut sum = self.gaussian.sum();
        let mut gradient = Zeroizing::new(vec![0.0; parameters]);
        let mut mean = Zeroizing::new(vec![0.0; parameters]);
        for slot in slots {
            mean.fill(0.0);
            let drawn = batch.slots().get(slot);
            let count = drawn.map_or(0, |slot| slot.records.len());
            let share = crate::real::narrow(1.0 / real(count.max(1)));
            for place in 0..index_of(self.mechanism.records_per_unit) {
                let record = drawn.and_then(|slot| Some((slot.unit, slot.records.get(place)?)));
                let (example, share) = match record {
                    Some((unit, record)) => (units.example(unit, *record), share),
                    None => (&units.blank, 0.0),
                };
                self.engine.gradient(self.adapter.values(), example, &mut gradient)?;
                for (mean, value) in mean.iter_mut().zip(gradient.iter()) {
                    *mean += share * value;
                }
            }
            match drawn {
                Some(_) => sum.add(&mean),
                None => sum.add_nobody(),
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod replay;

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use measurement::cbor::Real;
    use measurement::manifest::{self, Schedule, Shape};
    use measurement::privacy::Clipping;

    const POSITIONS: usize = 9;

    pub(super) fn training(base: &Model) -> Training {
        let config = LoraConfig::everywhere(2, 4.0).unwrap();
        let tensors = tensor_list(base, &config);
        let targets = golden::LINEARS.map(str::to_owned).to_vec();
        Training {
            adapter: manifest::Adapter { alpha: 4, rank: 2, targets, tensors },
            checkpoint: 0,
            heartbeat: 1,
            optimiser: manifest::Optimiser::Adamw(manifest::AdamW {
                beta1: Real(0.9),
                beta2: Real(0.999),
                epsilon: Real(1e-8),
                learning_rate: Real(0.01),
                weight_decay: Real(0.01),
            }),
            schedule: Schedule { shape: Shape::Linear, warmup: 1 },
            sequence: POSITIONS as u32,
        }
    }

    pub(super) fn base() -> Model {
        Model::load(&golden::config(), &[&golden::weights()]).unwrap()
    }

    fn example(seed: u32) -> Example {
        let ids: Vec<u32> = (0..7).map(|i| 3 + (seed * 5 + i * 7) % 20).collect();
        Example::new(&ids, &[true; 7], POSITIONS)
    }

    fn units() -> Units {
        let units = (0..8).map(|u| (0..=u % 3).map(|r| example(u * 3 + r)).collect()).collect();
        Units::new(units, POSITIONS)
    }

    pub(super) fn secret(byte: u8) -> AttemptSecret {
        AttemptSecret::new(Zeroizing::new([byte; 32]))
    }

    fn run(secret_byte: u8, manifest: &[u8], units: &Units) -> Adapter {
        let base = base();
        train(
            &base,
            units,
            &training(&base),
            &golden::mechanism(|terms| terms.records_per_unit = 2),
            secret(secret_byte),
            &Digest::of(manifest),
            &mut |_| {},
        )
        .unwrap()
    }

    #[test]
    fn an_identical_replay_is_identical_and_anything_else_is_not() {
        let first = run(1, b"manifest", &units());
        assert_eq!(first, run(1, b"manifest", &units()));
        assert_ne!(first, run(2, b"manifest", &units()));
        assert_ne!(first, run(1, b"another", &units()));
        let mut fewer = units();
        fewer.units.pop();
        assert_ne!(first, run(1, b"manifest", &fewer));
    }

    #[test]
    fn the_number_of_workers_changes_nothing() {
        let base = base();
        let (training, mechanism) = (training(&base), golden::mechanism(|_| {}));
        let start = initial_adapter(&base, &training, &Digest::of(b"m")).unwrap();
        let engine = CpuEngine::new(&base, &start, POSITIONS).unwrap();
        let with = |workers| {
            let mut attempt = Attempt::begin(
                &engine,
                start.clone(),
                &training,
                &mechanism,
                secret(1),
                Digest::of(b"m"),
            )
            .unwrap();
            attempt.workers = workers;
            attempt.step(&units()).unwrap();
            attempt.adapter
        };
        let one = with(1);
        assert_eq!(one, with(2));
        assert_eq!(one, with(5));
        assert_eq!(one, with(100));
    }

    #[test]
    fn noise_moves_every_tensor_even_without_data() {
        let none = Units::new(Vec::new(), POSITIONS);
        let adapter = run(1, b"manifest", &none);
        assert_ne!(adapter, run(2, b"manifest", &none));
    }

    #[test]
    fn reports_each_step_once_it_is_done() {
        let base = base();
        let mut seen = Vec::new();
        let manifest = Digest::of(b"m");
        let mechanism = golden::mechanism(|_| {});
        train(&base, &units(), &training(&base), &mechanism, secret(1), &manifest, &mut |done| {
            seen.push(done);
        })
        .unwrap();
        assert_eq!(seen, [1, 2, 3]);
    }

    #[test]
    fn refuses_the_step_after_the_last() {
        let base = base();
        let (training, mechanism) = (training(&base), golden::mechanism(|terms| terms.steps = 1));
        let start = initial_adapter(&base, &training, &Digest::of(b"m")).unwrap();
        let engine = CpuEngine::new(&base, &start, POSITIONS).unwrap();
        let mut attempt =
            Attempt::begin(&engine, start, &training, &mechanism, secret(1), Digest::of(b"m"))
                .unwrap();
        attempt.step(&units()).unwrap();
        assert_eq!(attempt.step(&units()), Err(TrainError::Spent(Exhausted { steps: 1 })));
    }

    #[test]
    fn refuses_more_units_than_were_accounted_for() {
        let base = base();
        let (training, mechanism) =
            (training(&base), golden::mechanism(|terms| terms.max_units = 7));
        let found = train(
            &base,
            &units(),
            &training,
            &mechanism,
            secret(1),
            &Digest::of(b"m"),
            &mut |_| {},
        );
        assert_eq!(found, Err(TrainError::TooManyUnits));
    }

    #[test]
    fn refuses_a_manifest_that_lists_other_tensors() {
        let base = base();
        let changed = |change: fn(&mut Training)| {
            let mut training = training(&base);
            change(&mut training);
            initial_adapter(&base, &training, &Digest::of(b"m")).err()
        };
        assert_eq!(changed(|t| _ = t.adapter.tensors.pop()), Some(TrainError::Tensors));
        assert_eq!(changed(|t| t.adapter.tensors[0].shape = [1, 1]), Some(TrainError::Tensors));
        assert_eq!(changed(|t| t.adapter.rank = 3), Some(TrainError::Tensors));
        assert_eq!(changed(|_| {}), None);
    }

    #[test]
    fn refuses_an_adapter_tensor_that_did_not_move() {
        let base = base();
        let training = training(&base);
        let start = initial_adapter(&base, &training, &Digest::of(b"m")).unwrap();
        let engine = CpuEngine::new(&base, &start, POSITIONS).unwrap();
        let mechanism = golden::mechanism(|_| {});
        let attempt = Attempt::begin(
            &engine,
            start.clone(),
            &training,
            &mechanism,
            secret(1),
            Digest::of(b"m"),
        )
        .unwrap();
        assert_eq!(attempt.finish(&start), Err(TrainError::Unmoved));
    }

    #[test]
    fn refuses_a_step_that_leaves_a_tensor_where_it_was() {
        let base = base();
        let training = training(&base);
        let start = initial_adapter(&base, &training, &Digest::of(b"m")).unwrap();
        let engine = CpuEngine::new(&base, &start, POSITIONS).unwrap();
        let mechanism = golden::mechanism(|_| {});
        let digest = Digest::of(b"m");
        let mut attempt =
            Attempt::begin(&engine, start.clone(), &training, &mechanism, secret(1), digest)
                .unwrap();
        let mut gradient = vec![1.0; start.values().len()];
        attempt.apply(0, &PrivateGradient::frozen(gradient.clone())).unwrap();
        // The first tensor gets neither a gradient nor, as its moments are gone, an update.
        let (.., place) = start.tensors().next().unwrap();
        gradient[place.clone()].fill(0.0);
        attempt.optimiser = Optimiser::new(training.optimiser, gradient.len());
        attempt.adapter.values_mut()[place].fill(0.0);
        let found = attempt.apply(0, &PrivateGradient::frozen(gradient));
        assert_eq!(found, Err(TrainError::Unmoved));
    }

    #[test]
    fn every_optimiser_and_every_clipping_trains_and_replays() {
        let manifest::Optimiser::Adamw(adamw) = training(&base()).optimiser else { panic!() };
        let (learning_rate, weight_decay) = (adamw.learning_rate, adamw.weight_decay);
        let sgd = manifest::Sgd { learning_rate, momentum: Real(0.9), weight_decay };
        let (noise, quantile, rate) = (Real(2.0), Real(0.5), Real(0.2));
        let run = |optimiser, clipping| {
            let base = base();
            let mut training = training(&base);
            training.optimiser = optimiser;
            let mechanism = golden::mechanism(|terms| terms.clipping = clipping);
            let (secret, digest) = (secret(1), Digest::of(b"m"));
            train(&base, &units(), &training, &mechanism, secret, &digest, &mut |_| {}).unwrap()
        };
        let mut all = Vec::new();
        for optimiser in [
            manifest::Optimiser::Adamw(adamw),
            manifest::Optimiser::DpAdamw { adamw, floor: Real(1e-8) },
            manifest::Optimiser::Sgd(sgd),
        ] {
            for clipping in [
                Clipping::Adaptive(measurement::privacy::Adaptive { noise, quantile, rate }),
                Clipping::Flat,
                Clipping::Normalised { gamma: Real(0.01) },
                Clipping::PerLayer,
            ] {
                let adapter = run(optimiser, clipping);
                assert_eq!(adapter, run(optimiser, clipping));
                assert!(!all.contains(&adapter), "{clipping}");
                all.push(adapter);
            }
        }
    }

    /// Counts gradients, and returns what it is told to.
    struct Fake {
        calls: AtomicUsize,
        value: f32,
    }

    impl Engine for Fake {
        fn identity(&self) -> &str {
            "fake"
        }

        fn gradient(
            &self,
            _: &[f32],
            example: &Example,
            gradient: &mut [f32],
        ) -> Result<(), EngineError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            gradient.fill(if example.labels() > 0 { self.value } else { 0.0 });
            Ok(())
        }
    }

    fn with_fake(value: f32, units: &Units) -> (Adapter, usize) {
        let base = base();
        let training = training(&base);
        let mechanism = golden::mechanism(|terms| terms.records_per_unit = 3);
        let start = initial_adapter(&base, &training, &Digest::of(b"m")).unwrap();
        let engine = Fake { calls: AtomicUsize::new(0), value };
        let mut attempt =
            Attempt::begin(&engine, start, &training, &mechanism, secret(1), Digest::of(b"m"))
                .unwrap();
        attempt.step(units).unwrap();
        (attempt.adapter, engine.calls.into_inner())
    }

    #[test]
    fn a_step_does_the_same_work_whoever_is_drawn() {
        let none = Units::new(Vec::new(), POSITIONS);
        assert_eq!(with_fake(1.0, &none).1, 18);
        assert_eq!(with_fake(1.0, &units()).1, 18);
    }

    #[test]
    fn units_of_nothing_to_learn_and_one_unit_alone_take_the_same_work() {
        let empty = || Example::new(&[], &[], POSITIONS);
        let one_token = || Example::new(&[3], &[true], POSITIONS);
        let idle = (0..8).map(|u| vec![if u % 2 == 0 { empty() } else { one_token() }]).collect();
        let (none, work) = with_fake(1.0, &Units::new(idle, POSITIONS));
        assert_eq!((work, none), (18, with_fake(0.0, &units()).0));
        let alone = Units::new(vec![vec![example(1)]], POSITIONS);
        assert_eq!(with_fake(1.0, &alone).1, 18);
    }

    #[test]
    fn a_gradient_that_is_not_finite_trains_like_no_gradient() {
        assert_eq!(with_fake(f32::NAN, &units()).0, with_fake(0.0, &units()).0);
        assert_ne!(with_fake(1.0, &units()).0, with_fake(0.0, &units()).0);
    }

    /// Runs the reference's loop: six examples, every one in every step, no noise.
    #[test]
    #[expect(clippy::too_many_lines, reason = "one reference loop, line for line")]
    fn three_steps_without_noise_agree_with_pytorch() {
        let Some(folder) = golden::folder("llama") else { return };
        let model =
            Model::load(&folder.read("config.json"), &[&folder.read("model.safetensors")]).unwrap();
        let read = |name| folder.read(name);
        let mut adapter = Adapter::from_peft(
            model.config(),
            &read("adapter/adapter_config.json"),
            &read("adapter/adapter_model.safetensors"),
        )
        .unwrap();
        let (json, bytes) = (folder.json("expected.json"), read("expected.safetensors"));
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let flat = |adapter: &Adapter, family: &str| -> Vec<f32> {
            let part = |(name, ..): (String, [usize; 2], core::ops::Range<usize>)| {
                file.tensor(&format!("{family}.{name}")).unwrap().data().to_vec()
            };
            let bytes: Vec<u8> = adapter.tensors().flat_map(part).collect();
            bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        let engine = CpuEngine::new(&model, &adapter, 24).unwrap();
        let parameters = adapter.values().len();
        let terms =
            golden::mechanism(|terms| terms.max_grad_norm = Real(json["clip"].as_f64().unwrap()));
        let gaussian = GaussianMechanism::new(&terms, &[parameters]).unwrap();
        let users: Vec<usize> = serde_json::from_value(json["users"].clone()).unwrap();
        let manifest::Optimiser::Adamw(mut settings) = training(&base()).optimiser else {
            panic!()
        };
        (settings.learning_rate, settings.weight_decay) = (Real(0.01), Real(0.1));
        let mut optimiser = Optimiser::new(manifest::Optimiser::Adamw(settings), parameters);

        let gradients = |adapter: &Adapter| -> Vec<Vec<f32>> {
            let one = |i: usize| {
                let ids: Vec<u32> = serde_json::from_value(json["input_ids"][i].clone()).unwrap();
                let prompt = json["prompt_lens"][i].as_u64().unwrap() as usize;
                let learned: Vec<bool> = (0..ids.len()).map(|t| t >= prompt).collect();
                let mut gradient = vec![0.0; parameters];
                let example = Example::new(&ids, &learned, 24);
                engine.gradient(adapter.values(), &example, &mut gradient).unwrap();
                gradient
            };
            (0..6).map(one).collect()
        };
        let close = |found: &[f32], expected: &[f32], tolerance: f64| {
            let (mut off, mut size) = (0.0, 0.0);
            for (a, b) in found.iter().zip(expected) {
                off += (f64::from(*a) - f64::from(*b)).powi(2);
                size += f64::from(*b).powi(2);
            }
            assert!((off / size).sqrt() < tolerance, "{}", (off / size).sqrt());
        };

        for step in 0..3 {
            let each = gradients(&adapter);
            let mut sum = gaussian.sum();
            each.iter().for_each(|gradient| sum.add(gradient));
            let mean = gaussian.without_noise(&sum);
            if step == 0 {
                close(&mean, &flat(&adapter, "clipped_mean"), 2e-5);
                let mut sum = gaussian.sum();
                for user in 0..4 {
                    let own: Vec<_> = (0..6).filter(|i| users[*i] == user).collect();
                    let mean = |at: usize| {
                        own.iter().map(|i| each[*i][at]).sum::<f32>() / own.len() as f32
                    };
                    sum.add(&(0..parameters).map(mean).collect::<Vec<_>>());
                }
                let sum: Vec<f32> = gaussian.without_noise(&sum).iter().map(|v| v * 4.0).collect();
                close(&sum, &flat(&adapter, "user_clipped_sum"), 2e-5);
                let normalised = golden::mechanism(|terms| {
                    terms.clipping = Clipping::Normalised { gamma: Real(0.01) };
                    terms.expected_batch = 1;
                });
                let normalised = GaussianMechanism::new(&normalised, &[parameters]).unwrap();
                let mut sum = normalised.sum();
                each.iter().for_each(|gradient| sum.add(gradient));
                close(&normalised.without_noise(&sum), &flat(&adapter, "auto_s_sum"), 2e-5);
            }
            optimiser.update(adapter.values_mut(), &mean, 0.0, 0.01);
        }
        for (found, expected) in adapter.values().iter().zip(flat(&adapter, "adamw_after3")) {
            assert!((found - expected).abs() < 2e-4, "{found} {expected}");
        }
    }
}
