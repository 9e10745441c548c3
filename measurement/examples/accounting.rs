//! How long the accountant takes for each row of the reference vectors: processor seconds of one
//! thread, the mean of as many calls as fill a tenth of a second, beside both bounds. Run by
//! `scripts/bench privacy`, which sets peers beside it; the argument is the file of vectors. Prints
//! JSON.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use std::hint::black_box;
use std::time::Instant;

use measurement::privacy::Adjacency;
use measurement::privacy::accountant::Sampling;
use serde_json::{Value, json};

fn main() {
    let path = std::env::args().nth(1).expect("the vectors");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let rows = vectors["rows"].as_array().unwrap().iter().map(price);
    println!("{}", Value::Array(rows.collect()));
}

fn price(row: &Value) -> Value {
    let number = |name: &str| row[name].as_f64().unwrap();
    let sampling = Sampling {
        adjacency: Adjacency::AddOrRemoveOne,
        delta: number("delta"),
        noise_multiplier: number("sigma"),
        sample_rate: number("q"),
        steps: number("steps") as u32,
    };
    let price = || sampling.spent().and_then(|spent| spent.bounds(sampling.delta)).unwrap();
    let bounds = price();
    let (mut calls, begun) = (0_u32, processor_seconds());
    let seconds = loop {
        black_box(price());
        calls += 1;
        let passed = processor_seconds() - begun;
        if passed > 0.1 {
            break passed / f64::from(calls);
        }
    };
    json!({ "seconds": seconds, "upper": bounds.upper, "lower": bounds.lower })
}

/// What this thread has computed for, where the system says so; else what has passed.
fn processor_seconds() -> f64 {
    static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    nanoseconds.map_or_else(|| BEGUN.elapsed().as_secs_f64(), |ns| ns * 1e-9)
}
