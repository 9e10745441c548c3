//! The privacy loss of a composition, from above and from below.
//!
//! 1. Every run's step is put on one grid (`lattice`), with a tilt theta (`saddle`): masses
//!    `w_i = p_i e^(theta l_i - K)`, about 1 in total.
//! 2. The tilted sum lies in a window, but for a mass that is bounded by Chernoff's inequality.
//! 3. Transforms, modulo the window: the product of the runs' T-th powers.
//! 4. Untilted, summed from the top: with `D_j = sum_{i>j} y_i e^(-theta (l_i - l_j)) (1 - e^-(l_i - l_j))`
//!    delta(l_j) is `e^(K - theta l_j) D_j`, and D follows from its neighbour by additions of positive
//!    numbers alone. Between two points of the grid delta is linear in e^epsilon.
//!
//! Errors, each added to the bound from above and taken from the one from below:
//! - what the grid leaves out above is charged to delta (steps times the tail);
//! - masses: `e^(T error)`; losses: `loss_error * (sum of |loss| + q)`, moves epsilon;
//! - outside the window: a tilted mass W moves delta by at most
//!   `W e^(K - theta epsilon) max_u e^(-theta u) (1 - e^-u)`, and so does its alias inside;
//! - transforms: every tilted mass, by a bound that is summed up over the frequencies;
//! - additions: by their number.

use alloc::vec::Vec;

use super::ULP;
use super::fft::{Complex, Transform, for_mirrored};
use super::float::{floor, real, signed};
use super::lattice::{Lattice, discretise};
use super::saddle::{Atoms, Cumulants, Plan, Run, Target, plan, shape_maximum, short, total};

/// Powers below `e^` of this are left out, and their bound is added to the error.
const LN_NEGLIGIBLE: f64 = -55.0;
/// Largest window: 2^20 points, 60 MiB with all tables.
const MAX_LOG_POINTS: u32 = 20;
/// Below this size a finer grid costs nothing.
const FREE_LOG_POINTS: u32 = 13;
/// At most how many times finer.
const FINER: f64 = 16.0;
/// How much coarser a grid may become to fit the next smaller size.
const COARSER: f64 = 1.4;
/// Smallest window.
const MIN_LOG_POINTS: u32 = 6;
/// Largest tilt over a cell, so that nothing underflows on the way down the grid.
const MAX_LN_STEP: f64 = 300.0;
/// Added to a sum, or taken from it, for what underflows all the same.
const UNDERFLOW: f64 = 1e-280;
/// Attempts at a coarser grid.
const MAX_ATTEMPTS: u32 = 12;
/// How far off the planned epsilon may be, relative.
const GUESS: f64 = 0.1;
/// How often it is corrected.
const MAX_GUESSES: u32 = 4;
/// Points of the last sum between two exact exponentials.
const STRIDE: usize = 64;

/// The composition of all runs, seen from one side.
pub(super) struct Composition {
    theta: f64,
    spacing: f64,
    /// Tilted masses from above (real part) and from below (imaginary part), highest loss first.
    values: Vec<Complex>,
    /// The loss at index 0.
    base: f64,
    /// Index of the first value.
    top: i64,
    /// Multiplies the losses' bound on errors: sum of |loss| is at most the sum plus this.
    offset: f64,
    loss_error: f64,
    upper: Bound,
    lower: Bound,
}

/// What one of the two laws needs to be summed.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// T K.
    ln_scale: f64,
    /// Relative error of a sum.
    error: f64,
    /// Error of each tilted mass.
    noise: f64,
    /// W times the maximum.
    outside: f64,
    /// Part of P beyond the grid.
    beyond: f64,
}

impl Composition {
    /// Composes `runs` for an answer near `target`; `None` where the numbers do not fit.
    pub(super) fn new(runs: &[Run], target: Target) -> Option<Self> {
        let first = plan(runs, target, None)?;
        let mut guess = first.epsilon;
        let mut all = Self::planned(runs, first)?;
        let Target::Delta(delta) = target else { return Some(all) };
        // Where the saddle point's epsilon was off, the cells were weighed for another one.
        for _ in 0..MAX_GUESSES {
            match all.upper(delta) {
                Some(epsilon) if (epsilon - guess).abs() > GUESS * epsilon => {
                    guess = epsilon;
                    let again = plan(runs, target, Some(epsilon))?;
                    all = Self::planned(runs, again)?;
                }
                _ => break,
            }
        }
        Some(all)
    }

    fn planned(runs: &[Run], mut plan: Plan) -> Option<Self> {
        for attempt in 0..MAX_ATTEMPTS {
            if plan.theta * plan.spacing > MAX_LN_STEP {
                return None;
            }
            let lattices = runs.iter().zip(&plan.runs).map(|(run, part)| {
                discretise(&run.pair, &plan, part).map(|lattice| (lattice, run.steps))
            });
            let factor = match lattices.collect::<Option<Vec<_>>>() {
                None => 4.0,
                Some(lattices) => {
                    let window = Window::new(&lattices, &plan)?;
                    match (window.fit(), attempt) {
                        (Fit::Well(log_points), _) | (Fit::Better(log_points, _), 1..) => {
                            return compose(&lattices, &plan, &window, log_points);
                        }
                        (Fit::Better(_, factor), _) | (Fit::Not(factor), _) => factor,
                    }
                }
            };
            plan.spacing = short(plan.spacing * factor);
            for part in &mut plan.runs {
                part.coarseness *= if factor < 1.0 { factor } else { 1.0 };
            }
        }
        None
    }

    pub(super) const fn spacing(&self) -> f64 {
        self.spacing
    }

    pub(super) fn points(&self) -> u64 {
        u64::try_from(self.values.len()).unwrap_or(u64::MAX)
    }

    /// The least epsilon >= 0 that is certain to hold at `delta`; `None` when the errors alone cost
    /// more.
    pub(super) fn upper(&self, delta: f64) -> Option<f64> {
        let bound = &self.upper;
        let share = 1.0 - bound.beyond / delta * (1.0 + 4.0 * ULP);
        if share <= 0.0 {
            return None;
        }
        let error = 1.0 + bound.error;
        let level = Level { factor: share / error, offset: -bound.outside / error - UNDERFLOW };
        // What is no number is no bound either: it would never be crossed.
        let parts = [level.factor, level.offset, bound.noise, bound.ln_scale, self.shift(1.0)];
        if !parts.iter().all(|part| part.is_finite()) {
            return None;
        }
        let masses = self.values.iter().map(|value| value.re.max(0.0) + bound.noise);
        let epsilon = self.crossing(masses, bound.ln_scale, delta, level)?;
        Some((epsilon + self.shift(epsilon)).max(0.0))
    }

    /// An epsilon >= 0 that is certain not to hold at `delta`, or 0.
    pub(super) fn lower(&self, delta: f64) -> f64 {
        let bound = &self.lower;
        let error = (1.0 - bound.error).max(f64::MIN_POSITIVE);
        let level = Level { factor: 1.0 / error, offset: bound.outside / error + UNDERFLOW };
        let masses = self.values.iter().map(|value| (value.im - bound.noise).max(0.0));
        match self.crossing(masses, bound.ln_scale, delta, level) {
            Some(epsilon) => (epsilon - self.shift(epsilon)).max(0.0),
            None => 0.0,
        }
    }

    /// The delta that is certain to hold at `epsilon`.
    pub(super) fn delta(&self, epsilon: f64) -> f64 {
        let (bound, epsilon) = (&self.upper, epsilon - self.shift(epsilon));
        let step = Step::new(self.theta, self.spacing);
        let (mut sum, mut index) = (Sum::default(), self.top);
        let at = |index| self.base + signed(index) * self.spacing;
        let mut loss = at(index);
        for value in &self.values {
            if at(index) <= epsilon {
                break;
            }
            loss = at(index);
            let mass = value.re.max(0.0) + bound.noise;
            sum = Sum { value: step.sum(sum), weight: mass + step.keep * sum.weight };
            index -= 1;
        }
        let gap = (loss - epsilon).max(0.0);
        let inside = sum.value + -libm::expm1(-gap) * sum.weight;
        let ln_scale = |at: f64| libm::exp(bound.ln_scale - self.theta * at);
        let delta = inside * (1.0 + bound.error) * ln_scale(loss)
            + bound.outside * ln_scale(epsilon)
            + bound.beyond;
        let delta = delta * (1.0 + 1e-12);
        if delta.is_nan() { 1.0 } else { delta.min(1.0) }
    }

    /// How far errors of the losses may move epsilon.
    fn shift(&self, epsilon: f64) -> f64 {
        self.loss_error * (epsilon.abs() + self.offset) + 8.0 * ULP * epsilon.abs()
    }

    /// From the top down, the first epsilon not below 0 (nor what the losses' errors make of it) at which `D = factor * delta + offset`, with both sides
    /// scaled by `e^(theta epsilon - K)`; `None` when that is so at the very top, or nowhere in the
    /// window.
    fn crossing(
        &self,
        masses: impl Iterator<Item = f64>,
        ln_scale: f64,
        delta: f64,
        level: Level,
    ) -> Option<f64> {
        let step = Step::new(self.theta, self.spacing);
        let (mut above, mut index) = (Sum::default(), self.top);
        let floor = -2.0 * self.shift(0.0);
        let mut threshold = 0.0;
        for (count, mass) in masses.enumerate() {
            let loss = self.base + signed(index) * self.spacing;
            if count % STRIDE == 0 {
                let over = loss + self.spacing;
                threshold = libm::exp(libm::log(delta) + self.theta * over - ln_scale);
            }
            // `above` and `threshold` belong to the point above `loss`.
            let sum = step.sum(above);
            if sum > level.factor * threshold * step.tilt + level.offset {
                let wanted = level.factor * threshold + level.offset / step.tilt;
                let part = ((wanted - above.value) / above.weight).clamp(0.0, step.shrink);
                let epsilon = loss + self.spacing + libm::log1p(-part);
                return (count > 0 && epsilon.is_finite()).then_some(epsilon);
            }
            if loss <= floor {
                return Some(floor);
            }
            above = Sum { value: sum, weight: mass + step.keep * above.weight };
            threshold *= step.tilt;
            index -= 1;
        }
        None
    }
}

/// The right-hand side of a crossing.
#[derive(Clone, Copy, Debug)]
struct Level {
    factor: f64,
    offset: f64,
}

/// D and V at a point of the grid: `V_j = sum_{i>=j} y_i e^(-(theta + 1) (l_i - l_j))`.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    value: f64,
    weight: f64,
}

/// One step down the grid: `D_j = e^(-theta h) (D_{j+1} + (1 - e^-h) V_{j+1})`.
struct Step {
    /// `e^(-theta h)`.
    tilt: f64,
    /// `1 - e^-h`.
    shrink: f64,
    /// `e^(-(theta + 1) h)`.
    keep: f64,
}

impl Step {
    fn new(theta: f64, spacing: f64) -> Self {
        Self {
            tilt: libm::exp(-theta * spacing),
            shrink: -libm::expm1(-spacing),
            keep: libm::exp(-(theta + 1.0) * spacing),
        }
    }

    fn sum(&self, above: Sum) -> f64 {
        self.tilt * (above.value + self.shrink * above.weight)
    }
}

/// One of the two laws of all runs.
struct Law {
    runs: Vec<(Atoms, f64)>,
    /// `T K(theta)`.
    ln_scale: f64,
}

impl Law {
    fn new(
        lattices: &[(Lattice, u64)],
        plan: &Plan,
        mass: impl Fn(&super::lattice::Atom) -> f64 + Copy,
    ) -> Self {
        let one = |(lattice, steps): &(Lattice, u64)| {
            let loss = |index| lattice.origin + signed(index) * plan.spacing;
            let atoms = lattice.atoms.iter().map(|atom| (mass(atom), loss(atom.index)));
            (Atoms::new(atoms), real(*steps))
        };
        let runs: Vec<_> = lattices.iter().map(one).collect();
        let ln_scale = total(&runs, plan.theta).value;
        Self { runs, ln_scale }
    }

    /// `ln` of the tilted mass beyond `edge`: above it for `turn > 0`, below for `turn < 0`.
    fn ln_beyond(&self, theta: f64, turn: f64, edge: f64) -> f64 {
        total(&self.runs, theta + turn).value - self.ln_scale - turn * edge
    }
}

/// How a window fits a transform: its size, and by what to multiply the spacing.
enum Fit {
    Better(u32, f64),
    Not(f64),
    Well(u32),
}

/// Where the tilted sum is.
struct Window {
    /// The loss at index 0.
    base: f64,
    upper: Law,
    lower: Law,
    /// Chernoff's exponents, and the indices they lead to; no exponent where the sum itself ends.
    top: (Option<f64>, i64),
    bottom: (Option<f64>, i64),
}

impl Window {
    fn new(lattices: &[(Lattice, u64)], plan: &Plan) -> Option<Self> {
        let upper = Law::new(lattices, plan, |atom| atom.upper);
        let lower = Law::new(lattices, plan, |atom| atom.lower);
        let Cumulants { variance, .. } = total(&upper.runs, plan.theta);
        let unit = 1.0 / libm::sqrt(variance).max(plan.spacing);
        let edge = |sign: f64| {
            let turns = (0..14_u32).map(|i| sign * unit * 0.1 * libm::pow(1.6, f64::from(i)));
            let edges = turns.map(|turn| {
                (turn, (upper.ln_beyond(plan.theta, turn, 0.0) - plan.ln_outside) / turn)
            });
            edges.min_by(|(_, a), (_, b)| (sign * a).total_cmp(&(sign * b)))
        };
        let ends = |pick: fn(&Lattice) -> Option<i64>| {
            let mut sum = 0_i64;
            for (lattice, steps) in lattices {
                let steps = i64::try_from(*steps).ok()?;
                sum = sum.checked_add(pick(lattice)?.checked_mul(steps)?)?;
            }
            Some(sum)
        };
        let last = ends(|lattice| lattice.atoms.last().map(|atom| atom.index));
        let first = ends(|lattice| lattice.atoms.first().map(|atom| atom.index));
        let base: f64 = lattices.iter().map(|(lattice, steps)| lattice.origin * real(*steps)).sum();
        let (turn, at) = edge(1.0)?;
        let at = floor((at - base) / plan.spacing).saturating_add(2);
        let top = match last {
            Some(last) if last <= at => (None, last),
            _ => (Some(turn), at),
        };
        let (turn, at) = edge(-1.0)?;
        let at = floor((at - base) / plan.spacing).saturating_sub(1);
        let bottom = match first {
            Some(first) if first >= at => (None, first),
            _ => (Some(turn), at),
        };
        Some(Self { base, upper, lower, top, bottom })
    }

    /// K of both laws of a run.
    fn scales(&self, run: usize, plan: &Plan) -> Option<(f64, f64)> {
        let scale =
            |law: &Law| law.runs.get(run).map(|(atoms, _)| atoms.cumulants(plan.theta).value);
        scale(&self.upper).zip(scale(&self.lower))
    }

    fn fit(&self) -> Fit {
        let points = signed(self.top.1.saturating_sub(self.bottom.1).saturating_add(1)).max(1.0);
        let size = |log: u32| libm::exp2(f64::from(log));
        let free = points / size(FREE_LOG_POINTS);
        let needed = (MIN_LOG_POINTS..=MAX_LOG_POINTS).find(|log| size(*log) >= points);
        match needed {
            None => Fit::Not(points / size(MAX_LOG_POINTS) * 1.03),
            Some(log) if free < 0.7 => Fit::Better(log, free.max(1.0 / FINER) / 0.97),
            Some(log) if log > FREE_LOG_POINTS && points <= COARSER * size(log - 1) => {
                Fit::Better(log, points / size(log - 1) * 1.03)
            }
            Some(log) => Fit::Well(log),
        }
    }

    /// W: tilted mass of a law outside the points from `bottom` to the window's top.
    fn outside(&self, law: &Law, plan: &Plan, bottom: i64) -> f64 {
        let beyond = |turn: Option<f64>, index: i64| {
            turn.map_or(0.0, |turn| {
                libm::exp(law.ln_beyond(plan.theta, turn, self.base + signed(index) * plan.spacing))
            })
        };
        let sum = beyond(self.top.0, self.top.1.saturating_add(1))
            + beyond(self.bottom.0, bottom.saturating_sub(1));
        if sum.is_nan() { f64::INFINITY } else { sum * 1.001 }
    }
}

fn compose(
    lattices: &[(Lattice, u64)],
    plan: &Plan,
    window: &Window,
    log_points: u32,
) -> Option<Composition> {
    let (noise, values) = match lattices {
        // Nothing to compose, and so nothing to transform.
        [(lattice, 1)] => {
            let length = 1_usize.checked_shl(log_points)?;
            ((0.0, 0.0), tilted(lattice, plan, window.scales(0, plan)?, length)?.0)
        }
        _ => Spectrum::new(lattices, plan, window, log_points)?.invert(),
    };
    let points = values.len();
    let top = window.top.1;
    let bottom = top.checked_sub(i64::try_from(points).ok()?)?.checked_add(1)?;
    let values = downward(values, top)?;
    let mass: f64 = values.iter().map(|value| value.re).sum();
    if !((mass - 1.0).abs() < 1e-3 && values.iter().all(|value| value.re.is_finite())) {
        return None;
    }
    let mut errors = Errors::default();
    for (lattice, steps) in lattices {
        errors.add(lattice, real(*steps), plan);
    }
    let last = 8.0 * ULP * (signed(top.saturating_sub(bottom)) + 1000.0);
    let peak = shape_maximum(plan.theta);
    let reach = window.base.abs() + signed(top).abs().max(signed(bottom).abs()) * plan.spacing;
    let bound = |law: &Law, noise: f64, beyond: f64| Bound {
        ln_scale: law.ln_scale,
        error: 1.01
            * libm::expm1(
                errors.masses + last + 8.0 * ULP * (law.ln_scale.abs() + plan.theta * reach),
            ),
        noise,
        outside: window.outside(law, plan, bottom) * peak,
        beyond,
    };
    let beyond =
        lattices.iter().zip(&plan.runs).map(|((_, steps), run)| real(*steps) * run.upper_tail);
    let beyond = beyond.sum::<f64>() * (1.0 + 1e-12);
    Some(Composition {
        theta: plan.theta,
        spacing: plan.spacing,
        values,
        base: window.base,
        top,
        offset: errors.offset,
        loss_error: errors.losses * 1.01,
        upper: bound(&window.upper, noise.0, beyond),
        lower: bound(&window.lower, noise.1, 0.0),
    })
}

/// Values by index modulo their number, from `top` down.
fn downward(values: Vec<Complex>, top: i64) -> Option<Vec<Complex>> {
    let length = i64::try_from(values.len()).ok()?;
    let place = usize::try_from(top.rem_euclid(length)).ok()?;
    let (head, tail) = values.split_at_checked(place.checked_add(1)?)?;
    Some(head.iter().rev().chain(tail.iter().rev()).copied().collect())
}

/// Errors that grow with the steps.
#[derive(Clone, Copy, Debug, Default)]
struct Errors {
    masses: f64,
    losses: f64,
    offset: f64,
}

impl Errors {
    fn add(&mut self, lattice: &Lattice, steps: f64, plan: &Plan) {
        let end = |atom: Option<&super::lattice::Atom>| {
            atom.map_or(0.0, |atom| lattice.origin.abs() + signed(atom.index).abs() * plan.spacing)
        };
        let reach = end(lattice.atoms.first()).max(end(lattice.atoms.last()));
        self.masses += steps * (lattice.error + 8.0 * ULP * (4.0 + 2.0 * plan.theta * reach));
        self.losses = self.losses.max(lattice.loss_error);
        self.offset += steps * (2.0 * (-lattice.lowest).max(0.0) + lattice.q);
    }
}

/// The product of powers of transforms.
struct Spectrum {
    transform: Transform,
    /// Both laws packed, in bit-reversed order.
    values: Vec<Complex>,
    /// Bounds on the errors of both, for every mirrored pair.
    errors: Vec<(f64, f64)>,
}

/// The transforms of both laws at a frequency.
#[derive(Clone, Copy)]
struct Packed {
    upper: Complex,
    lower: Complex,
}

impl Packed {
    fn unpack(value: Complex, mirrored: Complex) -> Self {
        let (sum, difference) = (value + mirrored.conj(), value - mirrored.conj());
        Self {
            upper: sum.scale(0.5),
            lower: Complex { re: difference.im * 0.5, im: -difference.re * 0.5 },
        }
    }

    fn pack(self) -> (Complex, Complex) {
        let Self { upper, lower } = self;
        let here = Complex { re: upper.re - lower.im, im: upper.im + lower.re };
        (here, Complex { re: upper.re + lower.im, im: lower.re - upper.im })
    }
}

/// A power of a value that is known up to an error.
#[derive(Clone, Copy)]
struct Power {
    value: Complex,
    /// Bound on the value, error included.
    size: f64,
    error: f64,
}

impl Power {
    fn new(base: Complex, error: f64, steps: u64) -> Self {
        let exponent = real(steps);
        let squared = base.norm_squared();
        // ln x <= x - 1, and 2ab <= a^2 / c + c b^2.
        let square_bound = squared * (1.0 + 1e-9) + 1.1e9 * error * error;
        if exponent * (square_bound - 1.0) / 2.0 < LN_NEGLIGIBLE {
            let negligible = libm::exp(LN_NEGLIGIBLE);
            return Self { value: Complex::default(), size: negligible, error: negligible };
        }
        let bound = libm::sqrt(squared) * (1.0 + 4.0 * ULP) + error;
        let value = base.power(steps);
        let size = value_power(bound, steps) * (1.0 + 8.0 * ULP * exponent);
        let relative = exponent * (error / bound + 8.0 * ULP);
        Self { value, size, error: size * relative.min(2.0) }
    }

    /// The product with a value known up to `error`, and its error.
    fn times(self, value: Complex, error: f64) -> (Complex, f64) {
        let size = value.norm() * (1.0 + 4.0 * ULP);
        let error = error * self.size + size * (self.error + 4.0 * ULP * self.size);
        (value * self.value, error)
    }
}

fn value_power(base: f64, exponent: u64) -> f64 {
    let (mut result, mut square, mut rest) = (1.0, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result *= square;
        }
        square *= square;
        rest >>= 1;
    }
    result
}

impl Spectrum {
    fn new(
        lattices: &[(Lattice, u64)],
        plan: &Plan,
        window: &Window,
        log_points: u32,
    ) -> Option<Self> {
        let length = 1_usize.checked_shl(log_points)?;
        let transform = Transform::new(log_points);
        let one = Packed { upper: Complex::ONE, lower: Complex::ONE }.pack().0;
        let mut values = alloc::vec![one; length];
        let mut errors = alloc::vec![(0.0, 0.0); length / 2 + 1];
        for (at, (lattice, steps)) in lattices.iter().enumerate() {
            let (mut data, size) = tilted(lattice, plan, window.scales(at, plan)?, length)?;
            transform.forward(&mut data);
            let error = (transform.error() + 4.0 * ULP) * size;
            let mut errors = errors.iter_mut();
            for_mirrored(&mut values, &mut data, |(value, base), other| {
                let Some(errors) = errors.next() else { return };
                let (mirror, opposite) =
                    other.as_ref().map_or((*value, *base), |(value, base)| (**value, **base));
                let (before, base) =
                    (Packed::unpack(*value, mirror), Packed::unpack(*base, opposite));
                let upper = Power::new(base.upper, error, *steps).times(before.upper, errors.0);
                let lower = Power::new(base.lower, error, *steps).times(before.lower, errors.1);
                // Packing rounds each by a part of both.
                let packing = 8.0 * ULP * (upper.0.norm() + lower.0.norm());
                *errors = (upper.1 + packing, lower.1 + packing);
                let (here, there) = Packed { upper: upper.0, lower: lower.0 }.pack();
                *value = here;
                if let Some((mirror, _)) = other {
                    *mirror = there;
                }
            });
        }
        Some(Self { transform, values, errors })
    }

    /// Bounds on the errors of the tilted masses of both laws, and these masses by index.
    fn invert(mut self) -> ((f64, f64), Vec<Complex>) {
        let count = real(u64::try_from(self.values.len()).unwrap_or(u64::MAX));
        let size: f64 = self.values.iter().map(|value| value.norm()).sum();
        let own = (self.transform.error() + 4.0 * ULP) * size;
        let twice = |errors: f64| (2.0 * errors + own) / count * 1.001;
        let upper = self.errors.iter().map(|(upper, _)| upper).sum();
        let lower = self.errors.iter().map(|(_, lower)| lower).sum();
        self.transform.inverse(&mut self.values);
        for value in &mut self.values {
            *value = value.scale(1.0 / count);
        }
        ((twice(upper), twice(lower)), self.values)
    }
}

/// Tilted masses of both laws by index modulo the length, and the sum of their sizes.
fn tilted(
    lattice: &Lattice,
    plan: &Plan,
    scales: (f64, f64),
    length: usize,
) -> Option<(Vec<Complex>, f64)> {
    let mut data = alloc::vec![Complex::default(); length];
    let (modulus, mut size) = (i64::try_from(length).ok()?, 0.0);
    for atom in &lattice.atoms {
        let exponent = plan.theta * (lattice.origin + signed(atom.index) * plan.spacing);
        let weigh = |mass: f64, scale: f64| {
            if mass > 0.0 { libm::exp(libm::log(mass) + exponent - scale) } else { 0.0 }
        };
        let value = Complex { re: weigh(atom.upper, scales.0), im: weigh(atom.lower, scales.1) };
        let place = usize::try_from(atom.index.rem_euclid(modulus)).ok()?;
        let slot = data.get_mut(place)?;
        *slot = *slot + value;
        size += value.re + value.im;
    }
    size.is_finite().then_some((data, size * 1.000_001))
}

#[cfg(test)]
mod tests;
