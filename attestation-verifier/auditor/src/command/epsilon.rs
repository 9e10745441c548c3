//! `epsilon`: what a mechanism costs, by the accountant of every receipt.
//!
//! With `--target-epsilon` one of σ, q, T and δ is left out, and solved for: the value printed was
//! priced, and is within the target.

use std::process::ExitCode;

use auditor::verdict::{rounded_down, rounded_up};
use clap::{Args, ValueEnum};
use measurement::cbor::Real;
use measurement::privacy::accountant::{self, Accountant, AccountantError, Bounds, Method};
use measurement::privacy::accountant::{Sampling, Unknown};
use measurement::privacy::{Adjacency, Clipping, Mechanism, Sampler, Terms, Unit};
use serde::Serialize;

use super::{fail, print, print_json};

/// False positive rates at which attackers are shown.
const FALSE_POSITIVES: [f64; 2] = [1e-3, 1e-2];

#[derive(Debug, Args)]
pub struct Arguments {
    /// The noise multiplier
    #[arg(long, value_name = "S", required_unless_present = "target_epsilon")]
    sigma: Option<f64>,
    /// The probability that a unit joins a step
    #[arg(long, value_name = "Q", required_unless_present = "target_epsilon")]
    q: Option<f64>,
    /// The number of steps
    #[arg(long, value_name = "T", required_unless_present = "target_epsilon")]
    steps: Option<u32>,
    /// The probability left out of the promise
    #[arg(long, value_name = "D", required_unless_present = "target_epsilon")]
    delta: Option<f64>,
    /// Solve for the one of --sigma, --q, --steps and --delta that is left out
    #[arg(long, value_name = "E")]
    target_epsilon: Option<f64>,
    /// Whose participation is hidden: "record", or the name of a field
    #[arg(long, value_name = "UNIT", default_value = "record")]
    unit: String,
    /// Which data sets count as neighbours
    #[arg(long, value_enum, default_value_t = Neighbours::AddOrRemoveOne)]
    adjacency: Neighbours,
    /// The public bound on the number of units, which delta and q are then held against
    #[arg(long, value_name = "N")]
    max_units: Option<u32>,
    /// Also print what privacy random variables make of it, a third opinion (slow)
    #[arg(long)]
    third_opinion: bool,
    /// Also print what the best attack achieves
    #[arg(long)]
    attack: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Which data sets count as neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Neighbours {
    /// One unit is added or removed
    AddOrRemoveOne,
    /// One unit becomes another one
    ReplaceOne,
    /// One unit becomes one whose gradient is zero
    ZeroOut,
}

impl From<Neighbours> for Adjacency {
    fn from(neighbours: Neighbours) -> Self {
        match neighbours {
            Neighbours::AddOrRemoveOne => Self::AddOrRemoveOne,
            Neighbours::ReplaceOne => Self::ReplaceOne,
            Neighbours::ZeroOut => Self::ZeroOut,
        }
    }
}

/// What the mechanism costs.
#[derive(Serialize)]
struct Cost {
    epsilon_upper: f64,
    epsilon_lower: f64,
    delta: f64,
    sigma: f64,
    q: f64,
    steps: u32,
    /// What was solved for.
    solved: Option<&'static str>,
    method: &'static str,
    /// How the method computed it; no grid in closed form.
    computation: &'static str,
    grid: Option<Grid>,
    /// The second opinion, an upper bound too; absent where it is infinite.
    epsilon_renyi: Option<f64>,
    /// The third opinion, from both sides; absent where it has none.
    epsilon_random_variables: Option<[f64; 2]>,
    unit: String,
    adjacency: Adjacency,
    max_units: Option<u32>,
    attack: Option<Attack>,
}

#[derive(Serialize)]
struct Grid {
    spacing: f64,
    points: u64,
}

/// Bounds on whoever tries to tell whether a unit was there.
#[derive(Serialize)]
struct Attack {
    advantage: f64,
    true_positive: Vec<TruePositive>,
}

#[derive(Serialize)]
struct TruePositive {
    at_false_positive: f64,
    at_most: f64,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let cost = match cost(arguments) {
        Ok(cost) => cost,
        Err(problem) => return fail(&problem, None),
    };
    if arguments.json { print_json(&cost, 0) } else { print(&text(&cost), 0) }
}

fn text(cost: &Cost) -> String {
    let (upper, lower) = (rounded_up(cost.epsilon_upper), rounded_down(cost.epsilon_lower));
    let computation = match &cost.grid {
        Some(Grid { spacing, points }) => {
            format!("{}, grid {spacing:e}, {points} points", cost.computation)
        }
        None => cost.computation.to_owned(),
    };
    let neighbours = match cost.adjacency {
        Adjacency::AddOrRemoveOne => "one unit more or less",
        Adjacency::ReplaceOne => "one unit is another one",
        Adjacency::ZeroOut => "one unit's gradient is zero",
    };
    let within = cost.max_units.map_or(String::new(), |most| format!(", of at most {most}"));
    let solved = cost.solved.map_or(String::new(), |what| format!("  solved for   {what}\n"));
    let mut text = format!(
        "epsilon <= {upper} at delta {:e}, and not below {lower}\n{solved}  mechanism    sigma {}, q \
         {}, {} steps\n  method       {}, {computation}; Poisson sampling without a cap on the \
         batch\n  unit         {}\n  adjacency    {neighbours}{within}\n",
        cost.delta, cost.sigma, cost.q, cost.steps, cost.method, cost.unit,
    );
    if let Some(renyi) = cost.epsilon_renyi {
        text += &format!("  renyi        epsilon <= {}\n", rounded_up(renyi));
    }
    if let Some([lower, upper]) = cost.epsilon_random_variables {
        let (lower, upper) = (rounded_down(lower), rounded_up(upper));
        text += &format!("  variables    epsilon between {lower} and {upper}\n");
    }
    if let Some(attack) = &cost.attack {
        text += &format!("  advantage    <= {:.4}\n", attack.advantage);
        for TruePositive { at_false_positive, at_most } in &attack.true_positive {
            text += &format!(
                "  attack       true positives <= {at_most:.4} at {at_false_positive:e}\n"
            );
        }
    }
    text
}

fn cost(arguments: &Arguments) -> Result<Cost, String> {
    let (asked, solved) = asked(arguments)?;
    held_against_units(arguments, &asked)?;
    let words = |error: AccountantError| error.to_string();
    let spent = asked.spent().map_err(words)?;
    let Bounds { lower, upper, method } = spent.bounds(asked.delta).map_err(words)?;
    let (computation, grid) = match method {
        Method::Gaussian => ("closed form", None),
        Method::Grid { spacing, points } => {
            ("privacy loss distribution", Some(Grid { spacing, points }))
        }
        Method::Renyi => ("renyi divergence, no bound from below", None),
    };
    let renyi = spent.renyi_epsilon(asked.delta).map_err(words)?;
    Ok(Cost {
        epsilon_upper: upper,
        epsilon_lower: lower,
        delta: asked.delta,
        sigma: asked.noise_multiplier,
        q: asked.sample_rate,
        steps: asked.steps,
        solved,
        method: accountant::NAME,
        computation,
        grid,
        epsilon_renyi: renyi.is_finite().then_some(renyi),
        epsilon_random_variables: if arguments.third_opinion {
            let estimate = spent.random_variables_epsilon(asked.delta).map_err(words)?;
            estimate.map(|estimate| [estimate.lower, estimate.upper])
        } else {
            None
        },
        unit: arguments.unit.clone(),
        adjacency: asked.adjacency,
        max_units: arguments.max_units,
        attack: arguments.attack.then(|| attack(&spent)).transpose().map_err(words)?,
    })
}

/// The mechanism, what was left out of it solved for.
fn asked(arguments: &Arguments) -> Result<(Sampling, Option<&'static str>), String> {
    let Arguments { sigma, q, steps, delta, .. } = *arguments;
    let open: Vec<_> = [
        (sigma.is_none(), "sigma", Unknown::NoiseMultiplier),
        (q.is_none(), "q", Unknown::SampleRate),
        (steps.is_none(), "steps", Unknown::Steps),
        (delta.is_none(), "delta", Unknown::Delta),
    ]
    .into_iter()
    .filter(|(open, ..)| *open)
    .collect();
    let given = Sampling {
        adjacency: arguments.adjacency.into(),
        delta: delta.unwrap_or(0.5),
        noise_multiplier: sigma.unwrap_or(1.0),
        sample_rate: q.unwrap_or(1.0),
        steps: steps.unwrap_or(1),
    };
    match (arguments.target_epsilon, open.as_slice()) {
        (None, []) => Ok((given, None)),
        (Some(target), [(_, name, unknown)]) => {
            let solved = given.solve(*unknown, target).map_err(|error| error.to_string())?;
            Ok((solved, Some(name)))
        }
        (_, open) => Err(format!(
            "{} of sigma, q, steps and delta are left out, must be one with a target epsilon",
            open.len()
        )),
    }
}

/// δ and q make sense for the units there may be.
fn held_against_units(arguments: &Arguments, asked: &Sampling) -> Result<(), String> {
    let Some(max_units) = arguments.max_units else { return Ok(()) };
    let terms = Terms {
        adjacency: asked.adjacency,
        clipping: Clipping::Flat,
        delta: Real(asked.delta),
        expected_batch: 1,
        max_grad_norm: Real(1.0),
        max_units: max_units.into(),
        noise_multiplier: Real(asked.noise_multiplier),
        // A batch that holds every unit drops none.
        physical_batch: max_units,
        records_per_unit: 1,
        sample_rate: Real(asked.sample_rate),
        sampler: Sampler::TruncatedPoisson,
        steps: asked.steps,
        unit: Unit::Record,
    };
    Mechanism::new(terms)
        .map(|_| ())
        .map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn attack(spent: &Accountant) -> Result<Attack, AccountantError> {
    let attack = spent.attack()?;
    let rate = |at| TruePositive { at_false_positive: at, at_most: attack.true_positive(at) };
    let true_positive = FALSE_POSITIVES.map(rate).into();
    Ok(Attack { advantage: attack.advantage(), true_positive })
}
