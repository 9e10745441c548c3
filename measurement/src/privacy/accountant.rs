//! How much privacy mechanisms have cost: an upper bound on ε, to the same bit on every machine.
//!
//! Steps of [`Accountant::epsilon`]:
//! 1. Rényi divergence of one step at every order (`rdp`), times the steps, summed over
//!    mechanisms.
//! 2. Conversion to (ε, δ') at the order that gives least (Canonne, Kamath, Steinke 2020).
//! 3. The cap on the physical batch (`truncation`): with η the chance that any step drops a unit,
//!    (ε, δ') of the ideal sampler is (ε, δ' + (1 + e^ε) η) of the real one, since each of the two
//!    neighbours' outputs moves by at most η in total variation. ε is therefore taken at a δ' that
//!    leaves room for the charge.
//!
//! Every rounding is against us.

mod rdp;
mod truncation;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use self::rdp::{Order, orders};
use self::truncation::{drops, real, smallest_cap};
use super::{Mechanism, OutOfRange, Terms, Unit};
use crate::cbor::Real;

/// Name and version of this accountant, for receipts: another number may differ only where this
/// differs.
pub const NAME: &str = "cloister-rdp/1";

/// Width of the bracket at which [`solve_noise_multiplier`] stops, relative.
const BRACKET: f64 = 5e-5;
/// Where [`solve_noise_multiplier`] looks.
const NOISE_MULTIPLIERS: core::ops::RangeInclusive<f64> = 0.015_625..=16_777_216.0;
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
/// use measurement::privacy::{Adjacency, Mechanism, Sampler, Terms, Unit};
///
/// let mut terms = Terms {
///     adjacency: Adjacency::AddOrRemoveOne,
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
/// # Ok::<(), measurement::privacy::accountant::AccountantError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Accountant {
    /// Total divergence, one for each of [`orders`].
    spent: Vec<f64>,
    /// η: chance that the cap on the physical batch ever dropped a unit.
    dropped: f64,
    /// Largest N_max composed.
    max_units: u64,
    unit: Option<Unit>,
}

impl Default for Accountant {
    fn default() -> Self {
        Self::new()
    }
}

impl Accountant {
    /// Nothing spent.
    pub fn new() -> Self {
        let spent = orders().map(|_| 0.0).collect();
        Self { spent, dropped: 0.0, max_units: 0, unit: None }
    }

    /// Adds all steps of `mechanism`.
    ///
    /// # Errors
    /// [`AccountantError::OtherUnit`] when it hides another kind of unit than what was composed
    /// before: there is no common neighbourhood in which the two add up.
    pub fn compose(&mut self, mechanism: &Mechanism) -> Result<(), AccountantError> {
        if self.unit.as_ref().is_some_and(|unit| *unit != mechanism.unit) {
            return Err(AccountantError::OtherUnit);
        }
        let (rate, steps) = (mechanism.accounted_rate(), mechanism.steps);
        self.add(rate, mechanism.noise_multiplier.0, steps);
        let cap = u64::from(mechanism.physical_batch);
        let dropped = drops(mechanism.max_units, rate, cap, steps);
        self.dropped = (self.dropped + dropped) * (1.0 + f64::EPSILON);
        self.max_units = self.max_units.max(mechanism.max_units);
        self.unit = Some(mechanism.unit.clone());
        Ok(())
    }

    /// Adds `steps` of the sampler without a cap.
    fn add(&mut self, rate: f64, sigma: f64, steps: u32) {
        for (spent, order) in self.spent.iter_mut().zip(orders()) {
            let steps = order.step(rate, sigma) * f64::from(steps);
            *spent = (*spent + steps) * (1.0 + f64::EPSILON);
        }
    }

    /// The ε that holds at `delta`: never too small.
    ///
    /// # Errors
    /// - [`AccountantError::Delta`] unless 0 < δ < 1/N_max of every mechanism.
    /// - [`AccountantError::Truncation`] when δ does not cover the units that may be dropped.
    /// - [`AccountantError::Unbounded`] when no order gives a number.
    pub fn epsilon(&self, delta: f64) -> Result<f64, AccountantError> {
        let units = real(self.max_units.max(1));
        if !(delta > 0.0 && delta * units < 1.0) {
            return Err(AccountantError::Delta { observed: delta, max_units: self.max_units });
        }
        let (mut rest, mut charge) = (delta, 0.0);
        for _ in 0..MAX_DESCENT {
            let epsilon = self.ideal_epsilon(rest);
            if !epsilon.is_finite() {
                return Err(AccountantError::Unbounded);
            }
            charge = self.truncation_charge(epsilon);
            if rest + charge <= delta {
                return Ok(epsilon);
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
        let ideal = self.best(|order, spent| order.delta(spent, epsilon));
        Ok((ideal + self.truncation_charge(epsilon)).min(1.0))
    }

    /// ε of the sampler without a cap.
    fn ideal_epsilon(&self, delta: f64) -> f64 {
        self.best(|order, spent| order.epsilon(spent, delta))
    }

    /// The least that any order promises; every order's promise holds.
    fn best(&self, promise: impl Fn(Order, f64) -> f64) -> f64 {
        let promises = self.spent.iter().zip(orders()).map(|(spent, order)| promise(order, *spent));
        promises.fold(f64::INFINITY, f64::min)
    }

    /// `(1 + e^epsilon) eta`.
    fn truncation_charge(&self, epsilon: f64) -> f64 {
        if self.dropped > 0.0 {
            (1.0 + libm::exp(epsilon)) * self.dropped * (1.0 + 1e-12)
        } else {
            0.0
        }
    }
}

/// The smallest noise multiplier, to a relative 1e-4 from above, at which `terms` cost at most
/// `target` at their δ; the noise multiplier in `terms` is not looked at.
///
/// # Errors
/// Why there is none: terms that cannot be, a target that is not positive, or a cost that no noise
/// brings down to the target.
pub fn solve_noise_multiplier(target: f64, terms: &Terms) -> Result<f64, AccountantError> {
    if !(target > 0.0 && target.is_finite()) {
        return Err(AccountantError::Epsilon { observed: target });
    }
    let cost = |sigma: f64| {
        let mut spent = Accountant::new();
        spent.compose(&with_noise(terms, sigma)?)?;
        spent.epsilon(terms.delta.0)
    };
    let fits = |sigma: f64| cost(sigma).is_ok_and(|epsilon| epsilon <= target);
    let (floor, ceiling) = (*NOISE_MULTIPLIERS.start(), *NOISE_MULTIPLIERS.end());
    let mut upper = 1.0;
    while !fits(upper) {
        if upper >= ceiling {
            let least = cost(upper)?;
            return Err(AccountantError::Unreachable { target, least });
        }
        upper *= 2.0;
    }
    let mut lower = upper / 2.0;
    while lower >= floor && fits(lower) {
        upper = lower;
        lower /= 2.0;
    }
    while upper > lower * (1.0 + BRACKET) && upper > floor {
        let middle = libm::sqrt(lower * upper);
        if fits(middle) {
            upper = middle;
        } else {
            lower = middle;
        }
    }
    let epsilon = cost(upper)?;
    if epsilon <= target {
        Ok(upper)
    } else {
        Err(AccountantError::Unreachable { target, least: epsilon })
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
    /// Mechanisms over different kinds of unit do not compose.
    #[error("the mechanism hides another kind of unit than those before it")]
    OtherUnit,
    /// δ does not cover the units that the physical batch may drop.
    #[error("dropped units cost a delta of {observed}, all of {delta}: enlarge the physical batch")]
    Truncation {
        /// What they cost at the ε reached.
        observed: f64,
        /// The δ asked for.
        delta: f64,
    },
    /// No order gives a finite number.
    #[error("epsilon is not bounded")]
    Unbounded,
    /// No noise is enough.
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
