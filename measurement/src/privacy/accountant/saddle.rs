//! Where to tilt, and how fine a grid must be.
//!
//! Nothing here is part of a proof: whatever tilt and grid are chosen, the bounds computed with them
//! hold. The choices decide how tight they are.
//!
//! With `K` the cumulant generating function of a step's loss, the tilt `theta` is where the saddle
//! point approximation of delta (Gaussian around the tilted mean, `e^(-theta u) (1 - e^-u)` beyond
//! epsilon) meets the target. The transforms run at a little less, three quarters for an
//! ordinary delta: a rare large loss weighs
//! less there, which shortens the window, and the rounding noise is still far below delta. Splitting cells of width `w` at their ends raises `K(theta)` by
//! `theta (theta + 1) / 12` times the tilted mean of `w^2`, and so epsilon by `T (theta + 1) / 12`
//! times that mean: this is what the grid's budget is solved from. A cell of width
//! `c * density^(-1/3)` spends the budget with the fewest cells.

use alloc::vec::Vec;
use core::f64::consts::PI;

use super::pair::Pair;

/// Excess of epsilon by discretisation that is aimed at, relative.
const TOLERANCE: f64 = 1e-4;
/// Epsilon is resolved to no less than this part of a standard deviation.
const RESOLUTION: f64 = 0.05;
/// Points of the sums that stand for integrals over a step.
const POINTS: u32 = 768;
/// Part of delta, over all steps, that is left above the grid and charged.
const UPPER_TAIL: f64 = 1e-5;
/// Probability, over all steps, that a loss below the grid is moved up or dropped.
const LOWER_TAIL: f64 = 1e-6;
/// How much smaller the transforms' tilt is than the saddle point's, and the number of standard
/// deviations beyond which it is so by the same number of them.
const LESS_TILT: f64 = 0.25;
const FULL_DEVIATIONS: f64 = 5.0;
/// Part of delta that the tilted mass outside the window may stand for.
const OUTSIDE: f64 = 1e-7;
/// Part of epsilon by which the cells around it are narrow at least.
const NEAR: f64 = 0.03;
/// The delta of an epsilon that no loss reaches, about.
const NO_DELTA: f64 = 1e-100;
/// The largest tilt that is looked for.
const MAX_TILT: f64 = 1e15;

/// A number of equal steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) pair: Pair,
    pub(super) steps: u64,
}

/// What is asked of the composition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Delta(f64),
    Epsilon(f64),
}

/// Masses and losses.
pub(super) struct Atoms {
    ln_mass: Vec<f64>,
    loss: Vec<f64>,
}

/// `K(theta)` and its first two derivatives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cumulants {
    pub(super) value: f64,
    pub(super) mean: f64,
    pub(super) variance: f64,
}

impl Tilt {
    pub(super) const fn theta(&self) -> f64 {
        self.theta
    }
}

impl Atoms {
    /// Keeps what has mass.
    pub(super) fn new(atoms: impl Iterator<Item = (f64, f64)>) -> Self {
        let (mut ln_mass, mut losses) = (Vec::new(), Vec::new());
        for (mass, loss) in atoms {
            if mass > 0.0 {
                ln_mass.push(libm::log(mass));
                losses.push(loss);
            }
        }
        Self { ln_mass, loss: losses }
    }

    /// `ln E[e^(theta min(loss, cap))]`.
    fn capped(&self, theta: f64, cap: f64) -> f64 {
        let exponents = || self.ln_mass.iter().zip(&self.loss).map(|(m, l)| m + theta * l.min(cap));
        let largest = exponents().fold(f64::NEG_INFINITY, f64::max);
        largest + libm::log(exponents().map(|exponent| libm::exp(exponent - largest)).sum())
    }

    pub(super) fn cumulants(&self, theta: f64) -> Cumulants {
        let exponents = || self.ln_mass.iter().zip(&self.loss).map(|(m, l)| (m + theta * l, *l));
        let largest = exponents().map(|(e, _)| e).fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return Cumulants { value: largest, mean: 0.0, variance: 0.0 };
        }
        // Moments about the likeliest loss, so that a narrow tilted law does not cancel.
        let mut at = 0.0;
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for (exponent, loss) in exponents() {
            if exponent >= largest {
                at = loss;
            }
        }
        for (exponent, loss) in exponents() {
            if exponent > largest - 60.0 {
                let weight = libm::exp(exponent - largest);
                let offset = loss - at;
                sum += weight;
                first += weight * offset;
                second += weight * offset * offset;
            }
        }
        let mean = first / sum;
        let variance = (second / sum - mean * mean).max(0.0);
        Cumulants { value: largest + libm::log(sum), mean: at + mean, variance }
    }
}

/// The sum of the runs' cumulants.
pub(super) fn total(runs: &[(Atoms, f64)], theta: f64) -> Cumulants {
    let mut total = Cumulants::default();
    for (atoms, steps) in runs {
        let one = atoms.cumulants(theta);
        total.value += steps * one.value;
        total.mean += steps * one.mean;
        total.variance += steps * one.variance;
    }
    total
}

/// How the cells are weighed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tilt {
    /// Tilt of the saddle point.
    theta: f64,
    /// Epsilon, about.
    cap: f64,
    /// ln of the sum of the tilted masses.
    ln_scale: f64,
    /// Width of the region of one large loss that decides: of the sum without a tilt, or more.
    spread: f64,
    /// Weight of a loss of epsilon, which alone takes all the others there.
    peak: f64,
}

/// What the discretisation of one run needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunPlan {
    /// Part of P beyond the grid's upper end.
    pub(super) upper_tail: f64,
    /// Part of P before the grid's lower end.
    pub(super) lower_tail: f64,
    /// How the cells are weighed.
    pub(super) tilt: Tilt,
    /// `c` of the cells' width.
    pub(super) coarseness: f64,
}

/// Tilt and grid.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Tilt of the transforms.
    pub(super) theta: f64,
    /// Epsilon, about.
    pub(super) epsilon: f64,
    /// `ln` of the tilted mass that may be left outside of the window, on either side.
    pub(super) ln_outside: f64,
    /// The grid's spacing: few significant bits, so that multiples are exact.
    pub(super) spacing: f64,
    pub(super) runs: Vec<RunPlan>,
}

/// Plans a composition, with what is known of its epsilon; `None` where doubles cannot hold it.
pub(super) fn plan(runs: &[Run], target: Target, known: Option<f64>) -> Option<Plan> {
    let steps: f64 = runs.iter().map(|run| super::float::real(run.steps)).sum();
    let mut delta = match target {
        Target::Delta(delta) => delta,
        Target::Epsilon(_) => 1e-6,
    };
    let mut sampled = sample(runs, delta, steps);
    let mut theta = tilt(&sampled, target);
    if let Target::Epsilon(_) = target {
        // The tail to be cut depends on the answer: once more, with a first idea of it. Where no loss
        // reaches epsilon there is next to none.
        delta = theta.map_or(NO_DELTA, |theta| {
            libm::exp(ln_delta(theta, total(&sampled, theta)).clamp(-600.0, -1e-3))
        });
        sampled = sample(runs, delta, steps);
        theta = tilt(&sampled, target).or(Some(1.0));
    }
    let saddle = theta?;
    let epsilon = match target {
        Target::Delta(delta) => known.unwrap_or_else(|| least_epsilon(&sampled, saddle, delta)),
        Target::Epsilon(epsilon) => epsilon,
    };
    let deviations = libm::sqrt(-2.0 * libm::log(delta));
    let theta = saddle * (1.0 - LESS_TILT * (FULL_DEVIATIONS / deviations).min(1.0));
    let all = total(&sampled, theta);
    let ln_outside =
        libm::log(OUTSIDE * delta) - all.value + theta * epsilon - libm::log(shape_maximum(theta));
    let spread = libm::sqrt(total(&sampled, 0.0).variance).max(f64::MIN_POSITIVE);
    let scale = epsilon.max(RESOLUTION * libm::sqrt(all.variance));
    let budget = 12.0 * TOLERANCE * scale / (steps * (1.0 + saddle));
    let spacing = short(libm::sqrt(budget / 2.0).min(0.1 / (1.0 + saddle)));
    let plans = runs.iter().zip(&sampled).map(|(run, (atoms, _))| {
        let tilt = Tilt {
            theta: saddle,
            cap: epsilon,
            ln_scale: atoms.capped(saddle, epsilon),
            spread: spread.max(NEAR * epsilon),
            peak: 0.4 / (spread * delta * saddle * (saddle + 1.0)).max(1e-300),
        };
        let extent = cube_root_integral(run, &tilt, delta, steps);
        RunPlan {
            upper_tail: upper_tail(delta, steps),
            lower_tail: LOWER_TAIL / steps,
            tilt,
            coarseness: libm::sqrt(budget / (4.0 * extent)),
        }
    });
    let ln_outside = ln_outside.clamp(-80.0, -12.0);
    let plan = Plan { theta, epsilon, ln_outside, spacing, runs: plans.collect() };
    (spacing > 1e-250 && spacing.is_finite() && theta.is_finite()).then_some(plan)
}

/// A spacing of at most 20 significant bits, rounded down.
pub(super) fn short(spacing: f64) -> f64 {
    f64::from_bits(spacing.to_bits() & !((1 << 33) - 1))
}

fn upper_tail(delta: f64, steps: f64) -> f64 {
    (UPPER_TAIL * delta / steps).max(1e-300)
}

/// Points between the ends of a run's step, with their width.
fn points(run: &Run, delta: f64, steps: f64) -> (impl Iterator<Item = f64> + Clone, f64) {
    let from = run.pair.lower_end(LOWER_TAIL / steps);
    let to = run.pair.upper_end(upper_tail(delta, steps)).max(from);
    let width = (to - from) / f64::from(POINTS);
    ((0..POINTS).map(move |i| from + width * (f64::from(i) + 0.5)), width)
}

fn sample(runs: &[Run], delta: f64, steps: f64) -> Vec<(Atoms, f64)> {
    let one = |run: &Run| {
        let (points, width) = points(run, delta, steps);
        let atoms = points.map(|x| (run.pair.density(x) * width, run.pair.loss(x)));
        (Atoms::new(atoms), super::float::real(run.steps))
    };
    runs.iter().map(one).collect()
}

/// The saddle point approximation of ln delta at epsilon = the tilted mean.
fn ln_delta(theta: f64, all: Cumulants) -> f64 {
    let spread = theta * libm::sqrt(2.0 * PI * all.variance);
    all.value - theta * all.mean - libm::log1p(theta) - libm::log1p(spread)
}

/// The least epsilon that the approximation gives at `delta` for tilts up to the saddle point's; where
/// rare large losses spoil it, a smaller tilt knows better.
fn least_epsilon(sampled: &[(Atoms, f64)], saddle: f64, delta: f64) -> f64 {
    let epsilons = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5].map(|part| {
        let theta = (part * saddle).max(1e-9);
        let all = total(sampled, theta);
        let ln_at_mean = ln_delta(theta, all);
        all.mean + (ln_at_mean - libm::log(delta)) / theta
    });
    epsilons.into_iter().fold(f64::INFINITY, f64::min).max(0.0)
}

/// `max_u e^(-theta u) (1 - e^-u)`, rounded up.
pub(super) fn shape_maximum(theta: f64) -> f64 {
    let ln_power = if theta > 0.0 { -theta * libm::log1p(1.0 / theta) } else { 0.0 };
    libm::exp(ln_power) / (1.0 + theta) * 1.000_001
}

/// `None` where no tilt takes the mean as far.
fn tilt(sampled: &[(Atoms, f64)], target: Target) -> Option<f64> {
    let beyond = |theta: f64| {
        let all = total(sampled, theta);
        match target {
            Target::Delta(delta) => ln_delta(theta, all) <= libm::log(delta),
            Target::Epsilon(epsilon) => all.mean >= epsilon,
        }
    };
    if beyond(0.0) {
        return Some(0.0);
    }
    let mut upper = 1.0;
    let mut lower = 1e-6;
    while !beyond(upper) {
        lower = upper;
        upper *= 8.0;
        if upper > MAX_TILT {
            return None;
        }
    }
    for _ in 0..16 {
        let middle = libm::sqrt(lower * upper);
        if beyond(middle) {
            upper = middle;
        } else {
            lower = middle;
        }
    }
    Some(upper)
}

/// The integral over the losses of the cube root of their tilted density.
fn cube_root_integral(run: &Run, tilt: &Tilt, delta: f64, steps: f64) -> f64 {
    let (points, width) = points(run, delta, steps);
    let terms = points.map(|x| {
        let slope = run.pair.weight(x) / (run.pair.sigma() * run.pair.sigma());
        libm::cbrt(weight(&run.pair, tilt, x) * slope * slope) * width
    });
    terms.sum::<f64>().max(f64::MIN_POSITIVE)
}

/// The tilted density in x, as it counts for the budget.
///
/// What a cell adds to delta goes with `delta''(epsilon - l) / delta(epsilon)`: `e^(theta l)`, until
/// one large loss takes a typical sum past epsilon; a loss beyond that bends delta hardly any more.
pub(super) fn weight(pair: &Pair, tilt: &Tilt, x: f64) -> f64 {
    let loss = pair.loss(x);
    let exponent = tilt.theta * loss.min(tilt.cap) - tilt.ln_scale;
    let missing = (tilt.cap - loss) / tilt.spread;
    let jump = tilt.peak * libm::exp(-missing * missing / 2.0);
    pair.density(x) * (libm::exp(exponent.min(700.0)) + jump)
}
