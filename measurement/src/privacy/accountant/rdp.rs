//! Rényi divergence of one Poisson-subsampled Gaussian step, never rounded down.
//!
//! Adjacency: one unit more or less. `A(a)` is the `a`-th moment of the likelihood ratio between
//! `(1-q) N(0, s^2) + q N(1, s^2)` and `N(0, s^2)`, and the divergence of order `a` is
//! `ln A(a) / (a - 1)` (Mironov, Talwar, Zhang, arXiv 1908.10530, section 3.3; the other direction
//! is smaller, theorem 5).
//!
//! Everything is a logarithm with a bound on its own rounding error, so that sums can be rounded
//! against us. There is no cut-off that could hide mass: whole orders are finite sums of positive
//! terms, and the series of a fractional order is left at a positive term of its alternating,
//! shrinking tail, which is an upper bound of the whole.

use alloc::vec::Vec;

use super::ULP;

/// Terms this far (in logarithms) below the largest one are beneath every rounding error.
const NEGLIGIBLE: f64 = 40.0;

/// Longest series of a fractional order; its tail is bounded, so this costs tightness only.
const MAX_TERMS: u32 = 256;

/// `1.05..=3.0` in steps of 0.05, in twentieths.
const FINE: core::ops::RangeInclusive<u32> = 21..=60;

/// `3.1..=10.9` in steps of 0.1, in tenths.
const COARSE: core::ops::RangeInclusive<u32> = 31..=109;

/// `11..=64`, then a geometric ladder for large noise and small rates.
const WHOLE: core::ops::RangeInclusive<u32> = 11..=64;
const LADDER: [u32; 16] =
    [72, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024];

/// The orders the accountant keeps, in ascending order; the same list for every mechanism.
pub(super) fn orders() -> impl Iterator<Item = Order> {
    FINE.map(|n| Order::ratio(n, 20))
        .chain(COARSE.map(|n| Order::ratio(n, 10)))
        .chain(WHOLE.map(Order::Whole))
        .chain(LADDER.into_iter().map(Order::Whole))
}

/// A Rényi order above 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    Fraction(f64),
    Whole(u32),
}

impl Order {
    fn ratio(numerator: u32, denominator: u32) -> Self {
        if numerator.is_multiple_of(denominator) {
            Self::Whole(numerator / denominator)
        } else {
            Self::Fraction(f64::from(numerator) / f64::from(denominator))
        }
    }

    pub(super) fn value(self) -> f64 {
        match self {
            Self::Fraction(value) => value,
            Self::Whole(value) => f64::from(value),
        }
    }

    /// Divergence of one step at sample rate `0 < q <= 1` and noise multiplier `sigma > 0`: an
    /// upper bound, `+inf` where doubles cannot hold it.
    pub(super) fn step(self, q: f64, sigma: f64) -> f64 {
        let order = self.value();
        let rdp = if q >= 1.0 {
            order / (2.0 * sigma * sigma)
        } else {
            let step = Step { ln_q: libm::log(q), ln_p: libm::log1p(-q), sigma };
            let moment = match self {
                Self::Fraction(order) => step.fractional(order),
                Self::Whole(order) => step.whole(order),
            };
            moment / (order - 1.0)
        };
        if rdp.is_nan() { f64::INFINITY } else { rdp.max(0.0) * (1.0 + 8.0 * ULP) }
    }

    /// Epsilon at `delta`, given the total divergence (Canonne, Kamath, Steinke, arXiv 2004.00010,
    /// proposition 12; Bretagnolle-Huber where that gives zero).
    pub(super) fn epsilon(self, rdp: f64, delta: f64) -> f64 {
        if zero_epsilon_delta(rdp) <= delta {
            return 0.0;
        }
        let order = self.value();
        let epsilon =
            rdp + libm::log1p(-1.0 / order) - (libm::log(delta) + libm::log(order)) / (order - 1.0);
        let magnitude = rdp + (libm::log(delta).abs() + libm::log(order)) / (order - 1.0);
        (epsilon + 16.0 * ULP * (1.0 + magnitude)).max(0.0)
    }

    /// Delta at `epsilon >= 0`, given the total divergence; at most 1.
    pub(super) fn delta(self, rdp: f64, epsilon: f64) -> f64 {
        let order = self.value();
        let slope = (order - 1.0) * (rdp - epsilon + libm::log1p(-1.0 / order));
        let magnitude = (order - 1.0) * (rdp + epsilon + 1.0) + libm::log(order);
        let ln_delta = slope - libm::log(order) + 16.0 * ULP * magnitude;
        let delta = libm::exp(ln_delta) * (1.0 + 8.0 * ULP);
        if delta.is_nan() { 1.0 } else { delta.min(zero_epsilon_delta(rdp)) }
    }
}

/// The delta at which epsilon is zero: total variation is at most `sqrt(1 - e^-KL)`, and every
/// order bounds KL.
fn zero_epsilon_delta(rdp: f64) -> f64 {
    (libm::sqrt(-libm::expm1(-rdp)) * (1.0 + 8.0 * ULP)).min(1.0)
}

/// The logarithm of a positive number, and how far rounding may have moved it.
#[derive(Clone, Copy)]
struct Log {
    value: f64,
    error: f64,
}

impl Log {
    /// The sum of `parts`, each within two units in the last place.
    fn product(parts: &[f64], error: f64) -> Self {
        let magnitude: f64 = parts.iter().map(|part| part.abs()).sum();
        Self { value: parts.iter().sum(), error: error + 16.0 * ULP * magnitude }
    }
}

/// One step: `ln q`, `ln(1-q)` and the noise multiplier.
struct Step {
    ln_q: f64,
    ln_p: f64,
    sigma: f64,
}

impl Step {
    /// `ln A(a)` for a whole order, by `A - 1 = sum_{i>=2} C(a,i) q^i (1-q)^(a-i) (e^y_i - 1)` with
    /// `y_i = (i^2 - i) / (2 s^2)`: all terms positive, so nothing cancels however small `q` is.
    fn whole(&self, order: u32) -> f64 {
        let a = f64::from(order);
        let mut binomial = Binomial::new(a);
        let mut terms = Vec::new();
        for i in 0..=order {
            let i = f64::from(i);
            if i >= 2.0 {
                let growth = ln_expm1(self.exponent(i));
                let parts = [binomial.ln, i * self.ln_q, (a - i) * self.ln_p, growth];
                terms.push(Log::product(&parts, binomial.error));
            }
            binomial.advance();
        }
        let excess = ln_sum(&terms, &[]);
        if excess > 30.0 { excess + libm::exp(-excess) } else { libm::log1p(libm::exp(excess)) }
    }

    /// `ln A(a)` for a fractional order: two series, left and right of the point `z0` where the two
    /// parts of the mixture weigh the same. On each side the integrands shrink with `i`, and beyond
    /// `ceil(a)` the binomials shrink and alternate in sign.
    fn fractional(&self, order: f64) -> f64 {
        let z0 = self.sigma * self.sigma * (self.ln_p - self.ln_q) + 0.5;
        let mut binomial = Binomial::new(order);
        let (mut positive, mut negative) = (Vec::new(), Vec::new());
        let mut largest = f64::NEG_INFINITY;
        for i in 0.. {
            let terms = if binomial.negative { &mut negative } else { &mut positive };
            let ends_above = !binomial.negative && f64::from(i) > order;
            let left = self.left(&binomial, f64::from(i), z0);
            let right = self.right(&binomial, f64::from(i), z0);
            let larger = left.value.max(right.value);
            largest = largest.max(larger);
            terms.extend([left, right]);
            if ends_above && (larger < largest - NEGLIGIBLE || i >= MAX_TERMS) {
                break;
            }
            binomial.advance();
        }
        ln_sum(&positive, &negative)
    }

    /// A term left of `z0`: `|C(a,i)| q^i (1-q)^(a-i) e^{(i^2-i)/(2 s^2)} Pr[N(i, s^2) < z0]`.
    fn left(&self, binomial: &Binomial, i: f64, z0: f64) -> Log {
        self.term(binomial, i, binomial.order - i, i - z0)
    }

    /// A term right of `z0`, with `j = a - i`: the same with `j` in the place of `i`, and
    /// `Pr[N(j, s^2) > z0]`.
    fn right(&self, binomial: &Binomial, i: f64, z0: f64) -> Log {
        let j = binomial.order - i;
        self.term(binomial, j, i, z0 - j)
    }

    fn term(&self, binomial: &Binomial, j: f64, k: f64, gap: f64) -> Log {
        let x = gap / (core::f64::consts::SQRT_2 * self.sigma);
        let error = binomial.error + 8.0 * ULP * (self.mass_error(j, x) + self.exponent_size(j));
        let parts = [binomial.ln, j * self.ln_q, k * self.ln_p, self.exponent(j), ln_tail(x)];
        Log::product(&parts, error)
    }

    /// How much `ln_tail(x)` moves, in units of `8 ULP`: `x` is a difference of numbers as large as
    /// `spread`, and the slope of `ln erfc` is at most `2x + 1.2`, and nothing left of -6.
    fn mass_error(&self, j: f64, x: f64) -> f64 {
        if x < -6.0 {
            return 0.0;
        }
        let z0 = self.sigma * self.sigma * (self.ln_p.abs() + self.ln_q.abs());
        let spread = (j.abs() + z0 + 1.0) / self.sigma;
        1.0 + spread * (2.0 * x.max(0.0) + 1.2)
    }

    fn exponent(&self, i: f64) -> f64 {
        (i * i - i) / (2.0 * self.sigma * self.sigma)
    }

    /// Size of the numbers whose difference is the exponent.
    fn exponent_size(&self, i: f64) -> f64 {
        (i * i + i.abs()) / (2.0 * self.sigma * self.sigma)
    }
}

/// `ln |C(a, i)|` for `i = 0, 1, 2, ..` by its recurrence, with sign and accumulated rounding.
struct Binomial {
    order: f64,
    i: f64,
    ln: f64,
    error: f64,
    negative: bool,
}

impl Binomial {
    fn new(order: f64) -> Self {
        Self { order, i: 0.0, ln: 0.0, error: 0.0, negative: false }
    }

    fn advance(&mut self) {
        let factor = (self.order - self.i) / (self.i + 1.0);
        self.negative ^= factor < 0.0;
        let step = libm::log(factor.abs());
        self.ln += step;
        self.error += 4.0 * ULP * (1.0 + step.abs() + self.ln.abs());
        self.i += 1.0;
    }
}

/// Upper bound of `ln(sum of positive - sum of negative)`; `-inf` for nothing.
fn ln_sum(positive: &[Log], negative: &[Log]) -> f64 {
    let largest = positive.iter().map(|term| term.value).fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    let scaled = |term: &Log, sign: f64| {
        let error = term.error + 4.0 * ULP * (term.value.abs() + largest.abs());
        libm::exp(term.value - largest + sign * error)
    };
    let gained: f64 = positive.iter().map(|term| scaled(term, 1.0)).sum();
    let lost: f64 = negative.iter().map(|term| scaled(term, -1.0)).sum();
    let count = f64::from(u32::try_from(positive.len() + negative.len()).unwrap_or(u32::MAX));
    let total = (gained - lost + (count + 8.0) * ULP * (gained + lost)).max(f64::MIN_POSITIVE);
    largest + libm::log(total) + 4.0 * ULP * largest.abs()
}

/// `ln(e^y - 1)` for `y > 0`.
fn ln_expm1(y: f64) -> f64 {
    if y > 30.0 { y + libm::log1p(-libm::exp(-y)) } else { libm::log(libm::expm1(y)) }
}

/// `ln(erfc(x) / 2)`, also where `erfc` underflows: from 20 on by the asymptotic series (DLMF
/// 7.12.1), whose first omitted term is below 1e-15 there.
pub(super) fn ln_tail(x: f64) -> f64 {
    if x < 20.0 {
        return libm::log(0.5 * libm::erfc(x));
    }
    let step = -0.5 / (x * x);
    let (mut sum, mut term) = (0.0, 1.0);
    for odd in [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0] {
        term *= odd * step;
        sum += term;
    }
    -x * x - libm::log(x) - LN_2_SQRT_PI + libm::log1p(sum)
}

/// `ln(2 sqrt(pi))`.
const LN_2_SQRT_PI: f64 = 1.265_512_123_484_645_4;
