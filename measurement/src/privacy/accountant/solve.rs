//! Solving for one term of a mechanism. Whatever is returned was priced, and is within the target.

use alloc::vec::Vec;

use super::float::real;
use super::{Accountant, AccountantError};
use crate::cbor::Real;
use crate::privacy::{Adjacency, Mechanism, OutOfRange, Terms, Unit};

/// Width of the bracket at which a search stops, relative.
const BRACKET: f64 = 5e-5;
/// Where [`solve_noise_multiplier`] looks.
const NOISE_MULTIPLIERS: core::ops::RangeInclusive<f64> = 0.015_625..=16_777_216.0;
/// The least sample rate that [`Sampling::solve`] finds.
const LEAST_RATE: f64 = 1e-12;
/// Prices of a search after its bracket is known; ten are usual.
const MAX_PRICES: u32 = 64;

/// The smallest noise multiplier, to a relative 1e-4 from above, at which `terms` cost at most
/// `target` at their δ; the noise multiplier in `terms` is not looked at.
///
/// # Errors
/// Why there is none: terms that cannot be, a target that is not positive, or a cost that no noise
/// brings down to the target.
pub fn solve_noise_multiplier(target: f64, terms: &Terms) -> Result<f64, AccountantError> {
    let at = |sigma| Terms { noise_multiplier: Real(sigma), ..terms.clone() };
    noise_multiplier(&Search::new(target, |sigma| price(at(sigma)))?)
}

/// The largest sample rate, to a relative 1e-4 from below, at which `terms` cost at most `target` at
/// their δ; the sample rate in `terms` is not looked at.
///
/// # Errors
/// As [`solve_noise_multiplier`].
pub fn solve_sample_rate(target: f64, terms: &Terms) -> Result<f64, AccountantError> {
    let at = |rate| Terms { sample_rate: Real(rate), ..terms.clone() };
    // Of fewer than one unit a step is no sample; rounded up.
    let floor = (1.0 / real(terms.max_units.max(1)) * (1.0 + f64::EPSILON)).min(1.0);
    sample_rate(&Search::new(target, |rate| price(at(rate)))?, floor)
}

/// The largest number of steps at which `terms` cost at most `target` at their δ; the number of steps
/// in `terms` is not looked at.
///
/// # Errors
/// As [`solve_noise_multiplier`].
pub fn solve_steps(target: f64, terms: &Terms) -> Result<u32, AccountantError> {
    let at = |steps| Terms { steps: whole(steps), ..terms.clone() };
    steps(&Search::new(target, |steps| price(at(steps)))?)
}

/// Poisson sampling whose batch has no cap and whose number of units nobody looks at: what other
/// accountants compute.
///
/// ```
/// use measurement::privacy::Adjacency;
/// use measurement::privacy::accountant::{Sampling, Unknown};
///
/// let asked = Sampling {
///     adjacency: Adjacency::AddOrRemoveOne,
///     delta: 1e-5,
///     noise_multiplier: 1.0,
///     sample_rate: 0.01,
///     steps: 1000,
/// };
/// let bounds = asked.spent()?.bounds(asked.delta)?;
/// assert!(1.828 < bounds.lower && bounds.upper < 1.829);
/// let solved = asked.solve(Unknown::Steps, 2.0)?;
/// assert!(solved.steps > 1100 && solved.spent()?.epsilon(1e-5)? <= 2.0);
/// # Ok::<(), measurement::privacy::accountant::AccountantError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Which data sets count as neighbours.
    pub adjacency: Adjacency,
    /// δ.
    pub delta: f64,
    /// σ.
    pub noise_multiplier: f64,
    /// q.
    pub sample_rate: f64,
    /// T.
    pub steps: u32,
}

/// What is solved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The δ that holds at ε.
    Delta,
    /// The smallest σ.
    NoiseMultiplier,
    /// The largest q.
    SampleRate,
    /// The largest T.
    Steps,
}

impl Sampling {
    /// What all steps cost.
    ///
    /// # Errors
    /// [`AccountantError::Impossible`] with everything that cannot be.
    pub fn spent(&self) -> Result<Accountant, AccountantError> {
        let mut findings = Vec::new();
        let Self { adjacency, delta, noise_multiplier, sample_rate, steps } = *self;
        if !(sample_rate > 0.0 && sample_rate <= 1.0) {
            findings.push(OutOfRange::SampleRate { observed: sample_rate });
        }
        if !(noise_multiplier > 0.0 && noise_multiplier.is_finite()) {
            let what = "noise multiplier";
            findings.push(OutOfRange::NotPositive { what, observed: noise_multiplier });
        }
        if steps == 0 {
            findings.push(OutOfRange::Zero { what: "steps" });
        }
        if !(delta > 0.0 && delta < 1.0) {
            findings.push(OutOfRange::Delta { observed: delta, max_units: 1 });
        }
        if !findings.is_empty() {
            return Err(AccountantError::Impossible(findings));
        }
        let mut spent = Accountant::new();
        spent.add(sample_rate, noise_multiplier, steps);
        spent.neighbours = Some((Unit::Record, adjacency));
        Ok(spent)
    }

    /// The same with one term replaced by the best at which ε is at most `target`.
    ///
    /// # Errors
    /// As [`solve_noise_multiplier`].
    pub fn solve(&self, unknown: Unknown, target: f64) -> Result<Self, AccountantError> {
        let asked = *self;
        let price = |asked: Self| asked.spent()?.epsilon(asked.delta);
        match unknown {
            Unknown::Delta => {
                let delta = Self { delta: 0.5, ..asked }.spent()?.delta(target)?;
                Ok(Self { delta, ..asked })
            }
            Unknown::NoiseMultiplier => {
                let at = |noise_multiplier| Self { noise_multiplier, ..asked };
                noise_multiplier(&Search::new(target, |sigma| price(at(sigma)))?).map(at)
            }
            Unknown::SampleRate => {
                let at = |sample_rate| Self { sample_rate, ..asked };
                sample_rate(&Search::new(target, |rate| price(at(rate)))?, LEAST_RATE).map(at)
            }
            Unknown::Steps => {
                let at = |steps| Self { steps, ..asked };
                steps(&Search::new(target, |steps| price(at(whole(steps))))?).map(at)
            }
        }
    }
}

fn price(terms: Terms) -> Result<f64, AccountantError> {
    let delta = terms.delta.0;
    let mechanism = Mechanism::new(terms).map_err(AccountantError::Impossible)?;
    let mut spent = Accountant::new();
    spent.compose(&mechanism)?;
    spent.epsilon(delta)
}

fn noise_multiplier<F>(search: &Search<F>) -> Result<f64, AccountantError>
where
    F: Fn(f64) -> Result<f64, AccountantError>,
{
    let (floor, ceiling) = (*NOISE_MULTIPLIERS.start(), *NOISE_MULTIPLIERS.end());
    let mut inside = 1.0;
    while !search.fits(inside) {
        if inside >= ceiling {
            return Err(search.unreachable(inside));
        }
        inside *= 2.0;
    }
    let mut outside = inside / 2.0;
    while outside >= floor && search.fits(outside) {
        inside = outside;
        outside /= 2.0;
    }
    if inside <= floor {
        return Ok(inside);
    }
    Ok(search.close(inside, outside, |x| x, BRACKET))
}

fn sample_rate<F>(search: &Search<F>, floor: f64) -> Result<f64, AccountantError>
where
    F: Fn(f64) -> Result<f64, AccountantError>,
{
    let mut outside = 1.0;
    if search.fits(outside) {
        return Ok(outside);
    }
    while outside > floor {
        let inside = (outside / 4.0).max(floor);
        if search.fits(inside) {
            return Ok(search.close(inside, outside, |x| x, BRACKET));
        }
        outside = inside;
    }
    Err(search.unreachable(floor))
}

fn steps<F>(search: &Search<F>) -> Result<u32, AccountantError>
where
    F: Fn(f64) -> Result<f64, AccountantError>,
{
    let mut inside = 1.0;
    if !search.fits(inside) {
        return Err(search.unreachable(inside));
    }
    let most = f64::from(u32::MAX);
    let mut outside = 2.0;
    while search.fits(outside) {
        if outside >= most {
            return Ok(u32::MAX);
        }
        inside = outside;
        outside = (outside * 4.0).min(most);
    }
    Ok(whole(search.close(inside, outside, libm::floor, 0.0)))
}

/// The nearest number of steps not above `steps`.
fn whole(steps: f64) -> u32 {
    u32::try_from(super::float::floor(steps)).unwrap_or(u32::MAX)
}

/// A search along one term.
struct Search<F> {
    target: f64,
    price: F,
}

impl<F: Fn(f64) -> Result<f64, AccountantError>> Search<F> {
    fn new(target: f64, price: F) -> Result<Self, AccountantError> {
        if target > 0.0 && target.is_finite() {
            Ok(Self { target, price })
        } else {
            Err(AccountantError::Epsilon { observed: target })
        }
    }

    fn fits(&self, x: f64) -> bool {
        (self.price)(x).is_ok_and(|epsilon| epsilon <= self.target)
    }

    fn unreachable(&self, x: f64) -> AccountantError {
        match (self.price)(x) {
            Ok(least) => AccountantError::Unreachable { target: self.target, least },
            Err(error) => error,
        }
    }

    /// The good end of a bracket, closed until its ends are within `width` or nothing lies between.
    /// The price is nearly a power of the term, so a line through the logarithms says where to look:
    /// on either side of the answer in turn, and in the middle every third time.
    fn close(&self, good: f64, bad: f64, round: impl Fn(f64) -> f64, width: f64) -> f64 {
        let price = |x: f64| (self.price)(x).ok().filter(|price| *price > 0.0).map(libm::log);
        let (mut good, mut bad) = ((good, price(good)), (bad, price(bad)));
        for turn in 0..MAX_PRICES {
            let (from, to) = (libm::log(good.0), libm::log(bad.0));
            if (to - from).abs() <= width {
                break;
            }
            let slope = good.1.zip(bad.1).map(|(a, b)| (libm::log(self.target) - a) / (b - a));
            let part = match (turn % 3, slope.filter(|part| part.is_finite())) {
                (0, Some(part)) => part - 0.4 * width.max(1e-6) / (to - from).abs(),
                (1, Some(part)) => part + 0.4 * width.max(1e-6) / (to - from).abs(),
                _ => 0.5,
            };
            let part = part.clamp(0.01, 0.99);
            let (low, high) = (good.0.min(bad.0), good.0.max(bad.0));
            let mut x = round(libm::exp(from + part * (to - from)));
            if x <= low || x >= high {
                x = round(f64::midpoint(low, high));
                if x <= low || x >= high {
                    break;
                }
            }
            let observed = (self.price)(x);
            let log = observed.as_ref().ok().copied().filter(|price| *price > 0.0).map(libm::log);
            if observed.is_ok_and(|epsilon| epsilon <= self.target) {
                good = (x, log);
            } else {
                bad = (x, log);
            }
        }
        good.0
    }
}
