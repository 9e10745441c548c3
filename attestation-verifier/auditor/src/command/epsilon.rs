//! `epsilon`: what a mechanism costs, by the accountant of every receipt.

use std::process::ExitCode;

use auditor::verdict::rounded_up;
use clap::Args;
use measurement::cbor::Real;
use measurement::privacy::accountant::{self, Accountant};
use measurement::privacy::{Adjacency, Mechanism, Sampler, Terms, Unit};
use serde::Serialize;

use super::{fail, print, print_json};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The noise multiplier
    #[arg(long, value_name = "S")]
    sigma: f64,
    /// The probability that a unit joins a step
    #[arg(long, value_name = "Q")]
    q: f64,
    /// The number of steps
    #[arg(long, value_name = "T")]
    steps: u32,
    /// The probability left out of the promise
    #[arg(long, value_name = "D")]
    delta: f64,
    /// The public bound on the number of units [default: the least of which one joins a step]
    #[arg(long, value_name = "N")]
    max_units: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What the mechanism costs. No lower bound is computed in this version.
#[derive(Serialize)]
struct Cost {
    epsilon_upper: f64,
    delta: f64,
    method: &'static str,
    max_units: u32,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let cost = match cost(arguments) {
        Ok(cost) => cost,
        Err(problem) => return fail(&problem, None),
    };
    if arguments.json {
        return print_json(&cost, 0);
    }
    let shown = rounded_up(cost.epsilon_upper);
    let text = format!(
        "epsilon <= {shown} at delta {:e}\n  method       {}, Poisson sampling without a cap on the \
         batch\n  adjacency    one unit more or less, of at most {}\n",
        cost.delta, cost.method, cost.max_units,
    );
    print(&text, 0)
}

fn cost(arguments: &Arguments) -> Result<Cost, String> {
    let max_units = arguments.max_units.unwrap_or_else(|| least_units(arguments.q));
    let terms = Terms {
        adjacency: Adjacency::AddOrRemoveOne,
        delta: Real(arguments.delta),
        expected_batch: 1,
        max_grad_norm: Real(1.0),
        max_units: max_units.into(),
        noise_multiplier: Real(arguments.sigma),
        // A batch that holds every unit drops none.
        physical_batch: max_units,
        records_per_unit: 1,
        sample_rate: Real(arguments.q),
        sampler: Sampler::TruncatedPoisson,
        steps: arguments.steps,
        unit: Unit::Record,
    };
    let mechanism = Mechanism::new(terms).map_err(|findings| {
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    })?;
    let mut spent = Accountant::new();
    spent.compose(&mechanism).map_err(|error| error.to_string())?;
    let epsilon_upper = spent.epsilon(arguments.delta).map_err(|error| error.to_string())?;
    Ok(Cost { epsilon_upper, delta: arguments.delta, method: accountant::NAME, max_units })
}

/// The least number of units of which one is expected in a step.
fn least_units(q: f64) -> u32 {
    let units = (1.0 / q).ceil().clamp(1.0, f64::from(u32::MAX));
    #[expect(clippy::as_conversions, reason = "clamped; a q that is no number saturates to 0")]
    let units = units as u32;
    units
}
