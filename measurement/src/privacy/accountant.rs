//! How much privacy mechanisms have cost: certified bounds on ε from both sides, to the same bit on
//! every machine.
//!
//! Steps of [`Accountant::bounds`]:
//! 1. The steps of equal mechanisms are added up, and the runs sorted: the order in which they came
//!    changes no bit. Steps that everyone takes part in are one Gaussian.
//! 2. Everyone always takes part: the closed form (`gaussian`). Else one step's privacy loss (`pair`)
//!    on a grid, from above and from below (`lattice`), composed by exponentially tilted transforms
//!    (`saddle`, `fft`, `pld`); for each side of the adjacency on its own, and the larger of both.
//! 3. The cap on the physical batch (`truncation`): with η the chance that any step drops a unit,
//!    (ε, δ') of the ideal sampler is (ε, δ' + (1 + e^ε) η) of the real one, since each of the two
//!    neighbours' outputs moves by at most η in total variation. ε is therefore taken at a δ' that
//!    leaves room for the charge, and the bound from below at one that owes it.
//!
//! Every rounding is against us. Rényi divergence (`rdp`) is the second opinion, and the only one
//! where the numbers leave the range of a grid.

mod attack;
mod fft;
mod float;
mod gaussian;
mod lattice;
mod pair;
mod pld;
mod prv;
mod rdp;
mod saddle;
mod solve;
mod truncation;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use self::float::real;
use self::pair::{Pair, Side};
use self::pld::Composition;
use self::rdp::{Order, orders};
use self::saddle::{Run, Target};
use self::truncation::{drops, smallest_cap};
use super::{Adjacency, Mechanism, OutOfRange, Terms, Unit};
use crate::cbor::Real;

pub use self::attack::{Attack, Point};
pub use self::prv::Estimate;
pub use self::solve::{Sampling, Unknown, solve_noise_multiplier, solve_sample_rate, solve_steps};

/// Name and version of this accountant, for receipts: another number may differ only where this
/// differs.
pub const NAME: &str = "cloister-pld/1";

/// Half a unit in the last place of 1.
const ULP: f64 = f64::EPSILON / 2.0;
/// Noise multipliers that are put on a grid.
const GRID_NOISE: core::ops::RangeInclusive<f64> = 1e-3..=1e9;
/// What rounding the sum of Gaussians up may have cost the bound from below: a part of their mu, of
/// which the losses are at most mu (mu / 2 + 40).
const ROUNDED: f64 = 1e-12;
/// Iterations after which [`Accountant::epsilon`] says that δ does not cover the dropped units; four
/// are usual.
const MAX_DESCENT: u32 = 1000;
/// The part of δ that [`smallest_physical_batch`] is willing to spend on dropped units.
const TRUNCATION_SHARE: f64 = 1e-3;

/// What a data set has paid so far: the composition of mechanisms over one kind of unit.
///
/// ```
/// use measurement::cbor::Real;
/// use measurement::privacy::accountant::{Accountant, smallest_physical_batch};
/// use measurement::privacy::accountant::solve_noise_multiplier;
/// use measurement::privacy::{Adjacency, Clipping, Mechanism, Sampler, Terms, Unit};
///
/// let mut terms = Terms {
///     adjacency: Adjacency::AddOrRemoveOne,
///     clipping: Clipping::Flat,
///     delta: Real(1e-6),
///     expected_batch: 64,
///     max_grad_norm: Real(1.0),
///     max_units: 10_000,
///     noise_multiplier: Real(1.0),
///     physical_batch: 64,
///     records_per_unit: 1,
///     sample_rate: Real(0.0064),
///     sampler: Sampler::TruncatedPoisson,
///     steps: 500,
///     unit: Unit::Record,
/// };
/// terms.physical_batch = smallest_physical_batch(3.0, &terms)?;
/// terms.noise_multiplier = Real(solve_noise_multiplier(3.0, &terms)?);
///
/// let mechanism = Mechanism::new(terms).unwrap();
/// let mut spent = Accountant::new();
/// spent.compose(&mechanism)?;
/// let epsilon = spent.epsilon(mechanism.delta.0)?;
/// assert!(epsilon <= 3.0 && epsilon > 2.99);
/// let bounds = spent.bounds(mechanism.delta.0)?;
/// assert!(bounds.upper == epsilon && bounds.lower > 0.999 * epsilon);
/// # Ok::<(), measurement::privacy::accountant::AccountantError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Accountant {
    /// Sorted by rate and noise, each once.
    runs: Vec<Spent>,
    /// Chances that a cap on the physical batch dropped a unit, one for each mechanism, sorted.
    dropped: Vec<f64>,
    /// Largest N_max composed.
    max_units: u64,
    neighbours: Option<(Unit, Adjacency)>,
}

/// Equal steps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spent {
    rate: f64,
    sigma: f64,
    steps: u64,
}

/// ε from both sides: no smaller one than `lower` holds, and `upper` does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Certain not to hold, or 0.
    pub lower: f64,
    /// Certain to hold.
    pub upper: f64,
    /// How they were computed.
    pub method: Method,
}

/// How bounds were computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// In closed form: everyone takes part in every step.
    Gaussian,
    /// As a privacy loss distribution.
    Grid {
        /// Spacing of the losses, in the direction that costs more.
        spacing: f64,
        /// Points of its transform.
        points: u64,
    },
    /// By Rényi divergence, which has no bound from below.
    Renyi,
}

/// A composition of the sampler without a cap, for a δ or an ε.
enum Ideal {
    Gaussian(f64),
    /// Of both sides, or of the one that is known to cost more; and an epsilon that the other one
    /// costs at most.
    Grid(Vec<Composition>, f64),
    Renyi,
}

impl Default for Accountant {
    fn default() -> Self {
        Self::new()
    }
}

impl Accountant {
    /// Nothing spent.
    #[must_use]
    pub const fn new() -> Self {
        Self { runs: Vec::new(), dropped: Vec::new(), max_units: 0, neighbours: None }
    }

    /// Adds all steps of `mechanism`.
    ///
    /// # Errors
    /// [`AccountantError::OtherUnit`] when it hides another kind of unit, or counts others as
    /// neighbours, than what was composed before: there is no common neighbourhood in which the two
    /// add up.
    pub fn compose(&mut self, mechanism: &Mechanism) -> Result<(), AccountantError> {
        let neighbours = (mechanism.unit.clone(), mechanism.adjacency);
        if self.neighbours.as_ref().is_some_and(|before| *before != neighbours) {
            return Err(AccountantError::OtherUnit);
        }
        let (rate, steps) = (mechanism.accounted_rate(), mechanism.steps);
        self.add(rate, mechanism.noise_multiplier.0, steps);
        let cap = u64::from(mechanism.physical_batch);
        let dropped = drops(mechanism.max_units, rate, cap, steps);
        if dropped > 0.0 {
            let at = self.dropped.partition_point(|other| *other < dropped);
            self.dropped.insert(at, dropped);
        }
        self.max_units = self.max_units.max(mechanism.max_units);
        self.neighbours = Some(neighbours);
        Ok(())
    }

    /// Adds `steps` of the sampler without a cap.
    fn add(&mut self, rate: f64, sigma: f64, steps: u32) {
        let steps = u64::from(steps);
        let key = |run: &Spent| (run.rate.to_bits(), run.sigma.to_bits());
        let new = Spent { rate, sigma, steps };
        match self.runs.binary_search_by_key(&key(&new), key) {
            Ok(at) => {
                if let Some(run) = self.runs.get_mut(at) {
                    run.steps = run.steps.saturating_add(steps);
                }
            }
            Err(at) => self.runs.insert(at, new),
        }
    }

    /// The ε that holds at `delta`: never too small.
    ///
    /// # Errors
    /// - [`AccountantError::Delta`] unless 0 < δ < 1/N_max of every mechanism.
    /// - [`AccountantError::Truncation`] when δ does not cover the units that may be dropped.
    /// - [`AccountantError::Unbounded`] when no method gives a number.
    pub fn epsilon(&self, delta: f64) -> Result<f64, AccountantError> {
        self.bounds(delta).map(|bounds| bounds.upper)
    }

    /// ε at `delta` from both sides.
    ///
    /// # Errors
    /// As [`Accountant::epsilon`].
    pub fn bounds(&self, delta: f64) -> Result<Bounds, AccountantError> {
        let units = real(self.max_units.max(1));
        if !(delta > 0.0 && delta * units < 1.0) {
            return Err(AccountantError::Delta { observed: delta, max_units: self.max_units });
        }
        if self.runs.is_empty() {
            return Ok(Bounds { lower: 0.0, upper: 0.0, method: Method::Gaussian });
        }
        let ideal = self.ideal(Target::Delta(delta));
        let (mut rest, mut charge) = (delta, 0.0);
        for _ in 0..MAX_DESCENT {
            let Some((upper, method)) = self.upper(&ideal, rest) else {
                return Err(AccountantError::Unbounded);
            };
            charge = self.truncation_charge(upper);
            if rest + charge <= delta {
                let lower = self.lower(&ideal, delta + charge).min(upper);
                return Ok(Bounds { lower, upper, method });
            }
            // The charge grows as `rest` shrinks, so this descends to the largest `rest` that fits;
            // the last factor makes it arrive.
            rest = (delta - charge) * (1.0 - 1e-9);
            if rest <= 0.0 {
                break;
            }
        }
        Err(AccountantError::Truncation { observed: charge, delta })
    }

    /// The δ that holds at `epsilon`: never too small, at most 1.
    ///
    /// # Errors
    /// [`AccountantError::Epsilon`] unless 0 <= ε is finite.
    pub fn delta(&self, epsilon: f64) -> Result<f64, AccountantError> {
        if !(epsilon >= 0.0 && epsilon.is_finite()) {
            return Err(AccountantError::Epsilon { observed: epsilon });
        }
        let ideal = match self.ideal(Target::Epsilon(epsilon)) {
            Ideal::Gaussian(mu) => gaussian::least_and_most(mu, epsilon).1,
            Ideal::Grid(sides, _) => {
                sides.iter().map(|side| side.delta(epsilon)).fold(0.0, f64::max)
            }
            Ideal::Renyi => self.renyi(|order, spent| order.delta(spent, epsilon)),
        };
        Ok((ideal + self.truncation_charge(epsilon)).min(1.0))
    }

    /// The second opinion: ε at `delta` by Rényi divergence, for the sampler without a cap. Never too
    /// small, and larger than [`Accountant::epsilon`]; infinite where no order gives a number.
    ///
    /// # Errors
    /// [`AccountantError::Delta`] unless 0 < δ < 1.
    pub fn renyi_epsilon(&self, delta: f64) -> Result<f64, AccountantError> {
        if !(delta > 0.0 && delta < 1.0) {
            return Err(AccountantError::Delta { observed: delta, max_units: self.max_units });
        }
        Ok(self.renyi(|order, spent| order.epsilon(spent, delta)))
    }

    /// Where a Gaussian centred at the other neighbour's clipped sum is, in units of the noise: 2
    /// where a unit may become its opposite.
    fn reach(&self) -> f64 {
        match self.neighbours {
            Some((_, Adjacency::ReplaceOne)) => 2.0,
            _ => 1.0,
        }
    }

    fn sides(&self) -> &'static [Side] {
        match self.neighbours {
            Some((_, Adjacency::ReplaceOne)) => &[Side::Replace],
            _ => &[Side::Remove, Side::Add],
        }
    }

    /// The third opinion: ε at `delta` by privacy random variables, for the sampler without a cap,
    /// with an error of 1 % of ε (0.01 where ε is larger than 1); `None` for ε = 0, below δ = 1e-10 and
    /// where the numbers do not fit. It takes no account of rounding errors.
    ///
    /// # Errors
    /// [`AccountantError::Delta`] unless 0 < δ < 1.
    pub fn random_variables_epsilon(
        &self,
        delta: f64,
    ) -> Result<Option<Estimate>, AccountantError> {
        let whole = self.renyi_epsilon(delta / 4000.0)?;
        let certified = self.upper(&self.ideal(Target::Delta(delta)), delta);
        let Some((certified, _)) = certified.filter(|(epsilon, _)| *epsilon > 0.0) else {
            return Ok(None);
        };
        let error = 0.01 * certified.min(1.0);
        let steps: u64 = self.runs.iter().map(|run| run.steps).fold(0, u64::saturating_add);
        // Large losses of one step: part of delta that it may be beyond the grid.
        let alone = delta / 8000.0 / real(steps.max(1));
        let mut reach = whole.max(error) + 3.0 * error;
        let mut sides = Vec::new();
        for side in self.sides() {
            let run =
                |run: &Spent| Run { pair: Pair::new(*side, run.rate, run.sigma), steps: run.steps };
            let runs: Vec<_> = self.runs.iter().map(run).collect();
            for Run { pair, .. } in &runs {
                let far = pair.loss(pair.upper_end(alone)).max(-pair.loss(pair.lower_end(alone)));
                reach = reach.max(far);
            }
            sides.push(runs);
        }
        let of = |runs: &Vec<Run>| prv::estimate(runs, delta, error, reach);
        let larger = |a: Estimate, b: Estimate| if a.upper >= b.upper { a } else { b };
        let known = sides.iter().map(of).collect::<Option<Vec<_>>>();
        Ok(known.and_then(|known| known.into_iter().reduce(larger)))
    }

    /// mu of the steps that everyone takes part in, rounded up.
    fn everyone(&self) -> f64 {
        let everyone = self.runs.iter().filter(|run| run.rate >= 1.0);
        let squared: f64 = everyone.map(|run| real(run.steps) / (run.sigma * run.sigma)).sum();
        libm::sqrt(squared) * (1.0 + 0.25 * ROUNDED)
    }

    fn ideal(&self, target: Target) -> Ideal {
        let mu = self.everyone();
        let mut runs: Vec<_> = self.runs.iter().copied().filter(|run| run.rate < 1.0).collect();
        if runs.is_empty() {
            return Ideal::Gaussian(mu * self.reach());
        }
        if mu > 0.0 {
            runs.push(Spent { rate: 1.0, sigma: 1.0 / mu, steps: 1 });
        }
        if !runs.iter().all(|run| GRID_NOISE.contains(&run.sigma)) {
            return Ideal::Renyi;
        }
        let compose = |side: Side| {
            let run =
                |run: &Spent| Run { pair: Pair::new(side, run.rate, run.sigma), steps: run.steps };
            Composition::new(&runs.iter().map(run).collect::<Vec<_>>(), target)
        };
        let [side, others @ ..] = self.sides() else { return Ideal::Renyi };
        let Some(first) = compose(*side) else { return Ideal::Renyi };
        let mut sides = alloc::vec![first];
        let pure = self.pure();
        let known = |first: &Composition| match target {
            Target::Delta(delta) => first.upper(delta).is_some_and(|epsilon| epsilon >= pure),
            Target::Epsilon(epsilon) => epsilon >= pure,
        };
        for other in others {
            if sides.first().is_some_and(known) {
                return Ideal::Grid(sides, pure);
            }
            match (compose(*other), target) {
                (Some(other), _) => sides.push(other),
                (None, Target::Delta(_)) if pure.is_finite() => return Ideal::Grid(sides, pure),
                _ => return Ideal::Renyi,
            }
        }
        Ideal::Grid(sides, 0.0)
    }

    /// The largest loss there can be on the side of the data set without the unit: that of a unit
    /// that took part in no step. Rounded up.
    fn pure(&self) -> f64 {
        let losses = self.runs.iter().map(|run| -libm::log1p(-run.rate) * real(run.steps));
        losses.sum::<f64>() * (1.0 + ROUNDED)
    }

    fn upper(&self, ideal: &Ideal, delta: f64) -> Option<(f64, Method)> {
        let known = match ideal {
            Ideal::Gaussian(mu) => {
                gaussian::epsilon(*mu, delta).map(|(upper, _)| (upper, Method::Gaussian))
            }
            Ideal::Grid(sides, other) => sides
                .iter()
                .map(|side| {
                    let (spacing, points) = (side.spacing(), side.points());
                    let upper = side.upper(delta).map(|upper| upper.max(*other));
                    upper.map(|upper| (upper, Method::Grid { spacing, points }))
                })
                .reduce(|a, b| a.zip(b).map(|(a, b)| if a.0 >= b.0 { a } else { b }))
                .flatten(),
            Ideal::Renyi => None,
        };
        let renyi = || (self.renyi(|order, spent| order.epsilon(spent, delta)), Method::Renyi);
        Some(known.unwrap_or_else(renyi)).filter(|(epsilon, _)| epsilon.is_finite())
    }

    fn lower(&self, ideal: &Ideal, delta: f64) -> f64 {
        if delta >= 1.0 {
            return 0.0;
        }
        let lower = match ideal {
            Ideal::Gaussian(mu) => gaussian::epsilon(*mu, delta).map_or(0.0, |(_, lower)| lower),
            Ideal::Grid(sides, _) => sides.iter().map(|side| side.lower(delta)).fold(0.0, f64::max),
            Ideal::Renyi => 0.0,
        };
        let mu = self.everyone() * self.reach();
        (lower - ROUNDED * mu * (mu + 40.0)).max(0.0)
    }

    /// The least that any order promises; every order's promise holds.
    fn renyi(&self, promise: impl Fn(Order, f64) -> f64) -> f64 {
        let promises = orders().map(|order| promise(order, self.divergence(order)));
        promises.fold(f64::INFINITY, f64::min)
    }

    /// Rényi divergence of everything. Sampling is left out where a unit may become another one,
    /// which is dominated by everyone's taking part.
    fn divergence(&self, order: Order) -> f64 {
        let replaced = self.reach() > 1.0;
        let mut sum = 0.0;
        for run in &self.runs {
            let (rate, sigma) =
                if replaced { (1.0, run.sigma / 2.0) } else { (run.rate, run.sigma) };
            sum = (sum + order.step(rate, sigma) * real(run.steps)) * (1.0 + f64::EPSILON);
        }
        sum
    }

    /// `(1 + e^epsilon) eta`.
    fn truncation_charge(&self, epsilon: f64) -> f64 {
        let dropped: f64 = self.dropped.iter().sum();
        if dropped > 0.0 { (1.0 + libm::exp(epsilon)) * dropped * (1.0 + 1e-12) } else { 0.0 }
    }
}

/// The smallest physical batch whose dropped units cost at most a thousandth of δ at `epsilon`; the
/// physical batch and the noise multiplier in `terms` are not looked at.
///
/// # Errors
/// Terms that cannot be, an ε that is not a number above zero, or no such batch below 2^32.
pub fn smallest_physical_batch(epsilon: f64, terms: &Terms) -> Result<u32, AccountantError> {
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        return Err(AccountantError::Epsilon { observed: epsilon });
    }
    let open = Terms { physical_batch: u32::MAX, ..terms.clone() };
    let mechanism = with_noise(&open, 1.0)?;
    let allowed = terms.delta.0 * TRUNCATION_SHARE / (1.0 + libm::exp(epsilon));
    let rate = mechanism.accounted_rate();
    let cap = smallest_cap(mechanism.max_units, rate, mechanism.steps, allowed);
    match u32::try_from(cap) {
        Ok(cap) => Ok(cap.max(terms.expected_batch)),
        Err(_) => Err(AccountantError::Truncation { observed: 1.0, delta: terms.delta.0 }),
    }
}

/// Why there is no number.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountantError {
    /// δ is not in (0, 1/N_max).
    #[error(
        "delta is {observed}, must be above 0 and below one over the {max_units} units allowed"
    )]
    Delta {
        /// The δ asked for.
        observed: f64,
        /// N_max.
        max_units: u64,
    },
    /// ε is not a number that can be promised.
    #[error("epsilon is {observed}, must be finite and not below 0")]
    Epsilon {
        /// The ε asked for.
        observed: f64,
    },
    /// The terms cannot be.
    #[error("{}", impossible(.0))]
    Impossible(Vec<OutOfRange>),
    /// Mechanisms over different kinds of unit, or of neighbour, do not compose.
    #[error("the mechanism hides another kind of unit, or of neighbour, than those before it")]
    OtherUnit,
    /// δ does not cover the units that the physical batch may drop.
    #[error("dropped units cost a delta of {observed}, all of {delta}: enlarge the physical batch")]
    Truncation {
        /// What they cost at the ε reached.
        observed: f64,
        /// The δ asked for.
        delta: f64,
    },
    /// No method gives a finite number.
    #[error("epsilon is not bounded")]
    Unbounded,
    /// Nothing within reach of what is solved for is enough.
    #[error("epsilon is at least {least}, cannot be brought to {target}")]
    Unreachable {
        /// The ε asked for.
        target: f64,
        /// The least ε found.
        least: f64,
    },
}

fn with_noise(terms: &Terms, sigma: f64) -> Result<Mechanism, AccountantError> {
    let terms = Terms { noise_multiplier: Real(sigma), ..terms.clone() };
    Mechanism::new(terms).map_err(AccountantError::Impossible)
}

fn impossible(findings: &[OutOfRange]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
