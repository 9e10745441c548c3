//! `audit-trainer`: the white-box audit of this build's mechanism, on this machine.

use super::{Report, white_box};
use crate::dp::AttemptSecret;
use crate::real::nearest;
use anyhow::{Context, bail};
use clap::Args;
use measurement::cbor::Real;
use measurement::manifest::Manifest;
use measurement::privacy::accountant::smallest_physical_batch;
use measurement::privacy::{Adjacency, Clipping, Mechanism, Sampler, Terms, Unit};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Which mechanism, and how hard to try.
#[derive(Args)]
pub struct Arguments {
    /// Audit the mechanism of a manifest.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sigma", "q", "steps", "delta"])]
    manifest: Option<PathBuf>,
    /// The noise multiplier.
    #[arg(long, value_name = "S", required_unless_present = "manifest")]
    sigma: Option<f64>,
    /// The probability that a unit joins a step.
    #[arg(long, value_name = "Q", required_unless_present = "manifest")]
    q: Option<f64>,
    /// The number of steps.
    #[arg(long, value_name = "T", required_unless_present = "manifest")]
    steps: Option<u32>,
    /// The probability left out of the promise.
    #[arg(long, value_name = "D", required_unless_present = "manifest")]
    delta: Option<f64>,
    /// Canaries; half of them take part.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    canaries: u32,
    /// The chance that the bound is wrong.
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    significance: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// An ε up to which the cap on the batch costs nothing.
const MANY: f64 = 10.0;

/// Prints the measured bound beside the claimed ε. Status 0: nothing was found; 1: the trainer is
/// refuted; 2: there is no randomness, no such manifest, or no such mechanism.
pub fn run(arguments: &Arguments, secret: anyhow::Result<Zeroizing<[u8; 32]>>) -> ExitCode {
    match judge(arguments, secret) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("cloister-trainer: {problem:#}");
            ExitCode::from(2)
        }
    }
}

fn judge(
    arguments: &Arguments,
    secret: anyhow::Result<Zeroizing<[u8; 32]>>,
) -> anyhow::Result<bool> {
    let mechanism = arguments.mechanism()?;
    let (canaries, significance) = (arguments.canaries, arguments.significance);
    let report = white_box(&mechanism, canaries, significance, &AttemptSecret::new(secret?))?;
    if arguments.json {
        println!("{}", as_json(&report, &mechanism, significance));
    } else {
        print!("{}", text(&report, &mechanism, significance));
    }
    Ok(report.stands())
}

impl Arguments {
    fn mechanism(&self) -> anyhow::Result<Mechanism> {
        if let Some(path) = &self.manifest {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            let manifest = Manifest::parse(&bytes).with_context(|| path.display().to_string())?;
            return Ok(manifest.privacy.clone());
        }
        let (Some(sigma), Some(q), Some(steps), Some(delta)) =
            (self.sigma, self.q, self.steps, self.delta)
        else {
            bail!("sigma, q, steps and delta are needed");
        };
        let mut terms = Terms {
            adjacency: Adjacency::AddOrRemoveOne,
            clipping: Clipping::Flat,
            delta: Real(delta),
            expected_batch: 256,
            max_grad_norm: Real(1.0),
            max_units: 1,
            noise_multiplier: Real(sigma),
            physical_batch: 256,
            records_per_unit: 1,
            sample_rate: Real(q),
            sampler: Sampler::TruncatedPoisson,
            steps,
            unit: Unit::Record,
        };
        // As many units as the batch is expected of; what cannot be is found below.
        let units = (f64::from(terms.expected_batch) / q).ceil();
        terms.max_units = u64::try_from(nearest(units)).unwrap_or(1).max(1);
        if terms.findings().is_empty() {
            terms.physical_batch = smallest_physical_batch(MANY, &terms)?;
        }
        Mechanism::new(terms).map_err(|findings| {
            let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", text.join("; "))
        })
    }
}

fn as_json(report: &Report, mechanism: &Mechanism, significance: f64) -> serde_json::Value {
    let [inside, outside] = report.canaries;
    json!({
        "stands": report.stands(),
        "epsilon_claimed": report.claimed.upper,
        "epsilon_claimed_lower": report.claimed.lower,
        "epsilon_measured": report.measured,
        "significance": significance,
        "delta": mechanism.delta.0,
        "sigma": mechanism.noise_multiplier.0,
        "q": mechanism.sample_rate.0,
        "steps": mechanism.steps,
        "noise": report.noise,
        "noise_tolerance": report.noise_tolerance,
        "ranking": report.ranking,
        "canaries_in": inside,
        "canaries_out": outside,
    })
}

fn text(report: &Report, mechanism: &Mechanism, significance: f64) -> String {
    let verdict = if report.stands() { "stands" } else { "refuted" };
    let [inside, outside] = report.canaries;
    format!(
        "{verdict}  epsilon >= {:.4} measured, <= {:.4} claimed, at delta {:e}\n  \
         mechanism  sigma {}, q {}, {} steps\n  \
         attack     {inside} canaries in, {outside} not; ranks {:.4} of pairs right; wrong with \
         probability {significance}\n  \
         noise      {:.6} of the declared deviation, off by at most {:.6} by chance\n",
        (report.measured * 1e4).floor() / 1e4,
        (report.claimed.upper * 1e4).ceil() / 1e4,
        mechanism.delta.0,
        mechanism.noise_multiplier.0,
        mechanism.sample_rate.0,
        mechanism.steps,
        report.ranking,
        report.noise,
        report.noise_tolerance,
    )
}
