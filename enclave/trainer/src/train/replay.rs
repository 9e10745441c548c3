//! Record and replay (arXiv 2602.17454): the trainer runs on a data set and on the same without one
//! unit, with the same coins for the others, and the outputs of the first run's releases are put in
//! the place of the second's. Whatever then differs, differs by the unit: nothing but the sums
//! before noise may, by one clipping norm at most; what the host could count may not at all.

use super::tests::{base, secret, training};
use super::*;
use crate::golden;
use core::sync::atomic::{AtomicUsize, Ordering};
use measurement::cbor::Real;
use measurement::privacy::{Adaptive, Clipping};
use rand_core::Rng;

const POSITIONS: usize = 9;
const STEPS: u32 = 12;

/// What a trainer does in one step before noise.
struct Inputs {
    /// What each release of the step adds noise of deviation σ to, in clipping norms.
    releases: Vec<Vec<f64>>,
    /// Gradients computed: what the host could time.
    work: usize,
}

/// A trainer that can be recorded and replayed.
trait Replayable {
    fn gather(&mut self, units: &Units) -> Inputs;
    /// Goes on from the noisy outcome of the step.
    fn apply(&mut self, noisy: &PrivateGradient);
}

#[derive(Debug, PartialEq)]
enum Finding {
    /// More or fewer releases than one.
    Releases(usize),
    /// The sums are further apart than the clipping norm.
    Sensitivity,
    /// The host could tell the runs apart.
    Trace,
}

/// Both runs, step by step; the first finding ends them.
fn replay(
    mut recorded: impl Replayable,
    mut replayed: impl Replayable,
    whole: &Units,
    without_one: &Units,
) -> Option<Finding> {
    for step in 0..STEPS {
        let (one, other) = (recorded.gather(whole), replayed.gather(without_one));
        if one.releases.len() != 1 {
            return Some(Finding::Releases(one.releases.len()));
        }
        if one.work != other.work || other.releases.len() != 1 {
            return Some(Finding::Trace);
        }
        let pairs = one.releases[0].iter().zip(&other.releases[0]);
        let square: f64 = pairs.map(|(a, b)| (a - b).powi(2)).sum();
        if square > 1.0 + 1e-12 {
            return Some(Finding::Sensitivity);
        }
        let frozen = golden::noise(u8::try_from(step).unwrap(), one.releases[0].len(), 0.3);
        let frozen = PrivateGradient::frozen(frozen);
        recorded.apply(&frozen);
        replayed.apply(&frozen);
    }
    None
}

/// Opposed gradients, far beyond the clipping norm; those of units 0, 2, 4, … fill one tensor more
/// than those of the others.
struct Opposed(AtomicUsize);

impl Engine for Opposed {
    fn identity(&self) -> &str {
        "opposed"
    }

    fn gradient(
        &self,
        _: &[f32],
        example: &Example,
        gradient: &mut [f32],
    ) -> Result<(), EngineError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let mark = example.ids()[0];
        let value = if mark.is_multiple_of(2) { 30.0 } else { -30.0 };
        gradient.fill(if example.labels() > 0 { value } else { 0.0 });
        Ok(())
    }
}

fn unit(mark: u32) -> Vec<Example> {
    vec![Example::new(&[mark; 5], &[true; 5], POSITIONS)]
}

/// Units with the one to be left out at the end, so that the others meet the same coins.
fn data(out: u32) -> (Units, Units) {
    let others = || (0..7).filter(move |mark| *mark != out).map(unit);
    let whole = others().chain([unit(out)]).collect();
    (Units::new(whole, POSITIONS), Units::new(others().collect(), POSITIONS))
}

fn mechanism(clipping: Clipping) -> Mechanism {
    golden::mechanism(|terms| {
        terms.clipping = clipping;
        terms.steps = STEPS;
        terms.expected_batch = 4;
        terms.physical_batch = 8;
        terms.records_per_unit = 2;
    })
}

fn attempt<'e, E: Engine>(engine: &'e E, start: &Adapter, base: &Model) -> Attempt<'e, E> {
    attempt_with(Clipping::Flat, engine, start, base)
}

fn attempt_with<'e, E: Engine>(
    clipping: Clipping,
    engine: &'e E,
    start: &Adapter,
    base: &Model,
) -> Attempt<'e, E> {
    let (training, mechanism) = (training(base), mechanism(clipping));
    let digest = Digest::of(b"m");
    Attempt::begin(engine, start.clone(), &training, &mechanism, secret(7), digest).unwrap()
}

/// The trainer itself.
struct Honest<'e, E: Engine> {
    attempt: Attempt<'e, E>,
    calls: &'e AtomicUsize,
    at: u32,
}

impl<E: Engine> Replayable for Honest<'_, E> {
    fn gather(&mut self, units: &Units) -> Inputs {
        let before = self.calls.load(Ordering::Relaxed);
        let gathered = self.attempt.gather(units).unwrap();
        self.at = gathered.step.index();
        let work = self.calls.load(Ordering::Relaxed) - before;
        Inputs { releases: vec![gathered.sum.in_norms()], work }
    }

    fn apply(&mut self, noisy: &PrivateGradient) {
        self.attempt.apply(self.at, noisy).unwrap();
    }
}

/// The same trainer with one thing wrong in how it comes to the sum.
struct Faulty<'e> {
    attempt: Attempt<'e, Opposed>,
    at: u32,
    fault: fn(&Attempt<'e, Opposed>, &Units, Streams) -> Vec<Vec<f64>>,
}

impl Replayable for Faulty<'_> {
    fn gather(&mut self, units: &Units) -> Inputs {
        self.at = self.attempt.ledger.spend().unwrap().index();
        let streams = self.attempt.streams(self.at);
        Inputs { releases: (self.fault)(&self.attempt, units, streams), work: 0 }
    }

    fn apply(&mut self, noisy: &PrivateGradient) {
        self.attempt.apply(self.at, noisy).unwrap();
    }
}

fn replay_faulty(
    fault: for<'e> fn(&Attempt<'e, Opposed>, &Units, Streams) -> Vec<Vec<f64>>,
) -> Vec<Option<Finding>> {
    let base = base();
    let start = initial_adapter(&base, &training(&base), &Digest::of(b"m")).unwrap();
    let engine = Opposed(AtomicUsize::new(0));
    let one = |out| {
        let (whole, without_one) = data(out);
        let faulty = || Faulty { attempt: attempt(&engine, &start, &base), at: 0, fault };
        replay(faulty(), faulty(), &whole, &without_one)
    };
    (0..7).map(one).collect()
}

fn drawn(attempt: &Attempt<'_, Opposed>, units: &Units, streams: Streams) -> Vec<usize> {
    let batch = Batch::draw(&attempt.mechanism, &units.records(), streams.batch);
    batch.slots().iter().map(|slot| slot.unit).collect()
}

fn gradient(attempt: &Attempt<'_, Opposed>, units: &Units, unit: usize) -> Vec<f32> {
    let mut gradient = vec![0.0; attempt.adapter.values().len()];
    let example = units.example(unit, 0);
    attempt.engine.gradient(attempt.adapter.values(), example, &mut gradient).unwrap();
    gradient
}

fn sum(attempt: &Attempt<'_, Opposed>, units: &Units, chosen: &[usize]) -> Vec<f64> {
    let mut sum = attempt.gaussian.sum();
    chosen.iter().for_each(|unit| sum.add(&gradient(attempt, units, *unit)));
    sum.in_norms()
}

#[test]
fn without_one_unit_nothing_changes_but_the_sum_by_one_clipping_norm() {
    let base = base();
    let start = initial_adapter(&base, &training(&base), &Digest::of(b"m")).unwrap();
    for out in 0..7 {
        let engine = Opposed(AtomicUsize::new(0));
        let (whole, without_one) = data(out);
        let honest =
            || Honest { attempt: attempt(&engine, &start, &base), calls: &engine.0, at: 0 };
        assert_eq!(replay(honest(), honest(), &whole, &without_one), None, "{out}");
        // Every slot of every step was computed, twice.
        assert_eq!(engine.0.into_inner(), 2 * 12 * 8 * 2);
    }
}

#[test]
fn without_one_unit_the_sum_differs_by_one_clipping_norm_whatever_the_clipping() {
    let base = base();
    let start = initial_adapter(&base, &training(&base), &Digest::of(b"m")).unwrap();
    let (noise, quantile, rate) = (Real(2.0), Real(0.5), Real(0.2));
    for clipping in [
        Clipping::Adaptive(Adaptive { noise, quantile, rate }),
        Clipping::Normalised { gamma: Real(0.01) },
        Clipping::PerLayer,
    ] {
        let engine = Opposed(AtomicUsize::new(0));
        let (whole, without_one) = data(2);
        let honest = || Honest {
            attempt: attempt_with(clipping, &engine, &start, &base),
            calls: &engine.0,
            at: 0,
        };
        assert_eq!(replay(honest(), honest(), &whole, &without_one), None, "{clipping}");
    }
}

#[test]
fn without_one_unit_real_gradients_differ_by_one_clipping_norm() {
    let base = base();
    let start = initial_adapter(&base, &training(&base), &Digest::of(b"m")).unwrap();
    let engine = CpuEngine::new(&base, &start, POSITIONS).unwrap();
    let calls = AtomicUsize::new(0);
    let (whole, without_one) = data(3);
    let honest = || Honest { attempt: attempt(&engine, &start, &base), calls: &calls, at: 0 };
    assert_eq!(replay(honest(), honest(), &whole, &without_one), None);
}

/// Divides by how many there were, and declares the expected batch.
#[test]
fn finds_the_mean_over_the_batch() {
    let found = replay_faulty(|attempt, units, streams| {
        let chosen = drawn(attempt, units, streams);
        let scale = f64::from(attempt.mechanism.expected_batch) / real(chosen.len().max(1));
        vec![sum(attempt, units, &chosen).into_iter().map(|v| v * scale).collect()]
    });
    assert!(found.iter().all(|found| *found == Some(Finding::Sensitivity)), "{found:?}");
}

/// Always the same number of units, another one in the place of the one that is not there.
#[test]
fn finds_batches_of_a_fixed_size() {
    let found = replay_faulty(|attempt, units, streams| {
        let mut stream = streams.batch.0;
        let mut order: Vec<(u64, usize)> =
            (0..units.units.len()).map(|unit| (stream.next_u64(), unit)).collect();
        order.sort_unstable();
        let chosen: Vec<usize> = order.iter().take(4).map(|(_, unit)| *unit).collect();
        vec![sum(attempt, units, &chosen)]
    });
    assert!(found.iter().all(|found| *found == Some(Finding::Sensitivity)), "{found:?}");
}

/// Clips every tensor to the whole norm.
#[test]
fn finds_clipping_by_tensor_at_the_whole_norm() {
    let found = replay_faulty(|attempt, units, streams| {
        let mut sum = attempt.gaussian.sum();
        for unit in drawn(attempt, units, streams) {
            let whole = gradient(attempt, units, unit);
            for (.., place) in attempt.adapter.tensors() {
                let mut part = vec![0.0; whole.len()];
                part[place.clone()].copy_from_slice(&whole[place]);
                sum.add(&part);
            }
        }
        vec![sum.in_norms()]
    });
    assert!(found.iter().all(|found| *found == Some(Finding::Sensitivity)), "{found:?}");
}

/// Releases as many sums as there are pairs of units.
#[test]
fn finds_noise_for_every_micro_batch() {
    let found = replay_faulty(|attempt, units, streams| {
        let chosen = drawn(attempt, units, streams);
        chosen.chunks(2).map(|pair| sum(attempt, units, pair)).collect()
    });
    assert!(found.iter().all(|found| matches!(found, Some(Finding::Releases(_)))), "{found:?}");
}

/// Stops computing where the batch ends.
#[test]
fn finds_work_that_follows_the_batch() {
    struct Hasty<'e>(Honest<'e, Opposed>, u32);
    impl Replayable for Hasty<'_> {
        fn gather(&mut self, units: &Units) -> Inputs {
            let streams = self.0.attempt.streams(self.1);
            self.1 += 1;
            let work = drawn(&self.0.attempt, units, streams).len();
            Inputs { work, ..self.0.gather(units) }
        }
        fn apply(&mut self, noisy: &PrivateGradient) {
            self.0.apply(noisy);
        }
    }
    let base = base();
    let start = initial_adapter(&base, &training(&base), &Digest::of(b"m")).unwrap();
    let engine = Opposed(AtomicUsize::new(0));
    let (whole, without_one) = data(5);
    let hasty =
        || Hasty(Honest { attempt: attempt(&engine, &start, &base), calls: &engine.0, at: 0 }, 0);
    assert_eq!(replay(hasty(), hasty(), &whole, &without_one), Some(Finding::Trace));
}
