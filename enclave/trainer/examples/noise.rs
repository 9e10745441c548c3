//! How fast exact noise is made: one release of a sum of many parameters, spread over the
//! machine's threads, and the same draws on one thread. Run by `scripts/bench privacy`; the
//! argument is the number of parameters. Prints JSON.

#![allow(clippy::as_conversions, clippy::expect_used, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use measurement::cbor::Real;
use measurement::digest::Digest;
use measurement::privacy::{Adjacency, Clipping, Ledger, Mechanism, Sampler, Terms, Unit};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use trainer::dp::noise::Scale;
use trainer::dp::{AttemptSecret, GaussianMechanism, Streams, key};
use zeroize::Zeroizing;

fn main() {
    let parameters: usize =
        std::env::args().nth(1).map_or(40_000_000, |count| count.parse().expect("a number"));
    let (release, threads) = release(parameters);
    println!(
        "{}",
        serde_json::json!({
            "parameters": parameters,
            "threads": threads,
            "release_seconds": release,
            "core_draws_per_second": one_core(parameters.min(4_000_000)),
            "core_words_per_second": words(20_000_000),
        })
    );
}

fn mechanism() -> Mechanism {
    Mechanism::new(Terms {
        adjacency: Adjacency::AddOrRemoveOne,
        clipping: Clipping::Flat,
        delta: Real(1e-7),
        expected_batch: 1024,
        max_grad_norm: Real(1.0),
        max_units: 100_000,
        noise_multiplier: Real(1.1),
        physical_batch: 2048,
        records_per_unit: 1,
        sample_rate: Real(0.01),
        sampler: Sampler::TruncatedPoisson,
        steps: 1,
        unit: Unit::Record,
    })
    .unwrap()
}

/// Seconds for the noise of one step, and the threads it was spread over.
fn release(parameters: usize) -> (f64, usize) {
    let terms = mechanism();
    let mut gaussian = GaussianMechanism::new(&terms, &[parameters]).unwrap();
    let secret = AttemptSecret::new(Zeroizing::new([7; 32]));
    let state = key::state_digest(0, 1.0, &[], &[], &[]);
    let streams = Streams::derive(&secret, &Digest::of(b"bench"), "bench", &state);
    let step = Ledger::new(&terms).spend().unwrap();
    let sum = gaussian.sum();
    let begun = Instant::now();
    black_box(gaussian.privatize(step, sum, streams.noise));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    (begun.elapsed().as_secs_f64(), threads)
}

/// Draws per processor second of one thread.
fn one_core(draws: usize) -> f64 {
    let mut stream = ChaCha20Rng::from_seed([1; 32]);
    let scale = Scale::new(1.1 * f64::from(1 << 24)).unwrap();
    let begun = processor_seconds();
    let sum = (0..draws).fold(0_i64, |sum, _| sum.wrapping_add(scale.noise(&mut stream)));
    black_box(sum);
    draws as f64 / (processor_seconds() - begun)
}

/// The ceiling: 64-bit words of the same stream per processor second, nothing made of them.
fn words(count: usize) -> f64 {
    let mut stream = ChaCha20Rng::from_seed([1; 32]);
    let begun = processor_seconds();
    black_box((0..count).fold(0_u64, |sum, _| sum ^ stream.next_u64()));
    count as f64 / (processor_seconds() - begun)
}

/// What this thread has computed for, where the system says so; else what has passed.
fn processor_seconds() -> f64 {
    static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    nanoseconds.map_or_else(|| BEGUN.elapsed().as_secs_f64(), |ns| ns * 1e-9)
}
