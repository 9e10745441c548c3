//! One step as a pair of distributions on the real line, and its privacy loss.
//!
//! In units of the clipping norm, with `n` the density of N(0, s^2) and `n1` that of N(1, s^2):
//!
//! | side | P | Q |
//! |---|---|---|
//! | remove | (1-q) n + q n1 | n |
//! | add | n | (1-q) n + q n1 |
//! | replace | (1-q) n + q n1 | (1-q) n + q n(-1) |
//!
//! The loss is `L(x) = ln P(x)/Q(x)`. The add side runs along `-x`, so that every loss grows with its
//! argument. Add and remove dominate each its side of the subsampled mechanism, and compositions of
//! them (Zhu, Dong, Wang 2022); replace is the pair of Lebeda, Regehr, Kamath, Steinke 2024 (arXiv
//! 2405.20769): opposite gradients of full norm.

use core::f64::consts::{FRAC_1_SQRT_2, PI};

/// Rounds of [`Pair::origin`].
const ALIGNMENTS: u32 = 40;

/// Which of two neighbours the output is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// From the one without the unit.
    Add,
    /// From the one with the unit.
    Remove,
    /// Both have a unit, of opposite gradients; the same from either.
    Replace,
}

/// A Poisson-subsampled Gaussian step, seen from one side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pair {
    side: Side,
    q: f64,
    /// `1 - q`.
    p: f64,
    ln_q: f64,
    sigma: f64,
    variance: f64,
}

impl Pair {
    /// Needs `0 < q <= 1` and `sigma > 0`.
    pub(super) fn new(side: Side, q: f64, sigma: f64) -> Self {
        Self { side, q, p: 1.0 - q, ln_q: libm::log(q), sigma, variance: sigma * sigma }
    }

    pub(super) const fn sigma(&self) -> f64 {
        self.sigma
    }

    pub(super) const fn q(&self) -> f64 {
        self.q
    }

    /// Density of P.
    pub(super) fn density(&self, x: f64) -> f64 {
        let bell = |x: f64| libm::exp(-x * x / (2.0 * self.variance));
        let scale = 1.0 / (self.sigma * libm::sqrt(2.0 * PI));
        match self.side {
            Side::Add => scale * bell(x),
            Side::Remove | Side::Replace => scale * (self.p * bell(x) + self.q * bell(x - 1.0)),
        }
    }

    /// P's mass between two points, as a difference of error functions.
    pub(super) fn between(&self, from: f64, to: f64) -> f64 {
        let normal = |centre: f64| {
            let (a, b) = ((from - centre) / self.sigma, (to - centre) / self.sigma);
            // On the side where both are small.
            let (a, b) = if a > 0.0 { (-b, -a) } else { (a, b) };
            (libm::erfc(-b * FRAC_1_SQRT_2) - libm::erfc(-a * FRAC_1_SQRT_2)) / 2.0
        };
        match self.side {
            Side::Add => normal(0.0),
            Side::Remove | Side::Replace => self.p * normal(0.0) + self.q * normal(1.0),
        }
    }

    /// Distance from the nearest centre of P.
    pub(super) fn distance(&self, x: f64) -> f64 {
        match self.side {
            Side::Add => x.abs(),
            Side::Remove | Side::Replace => x.abs().min((x - 1.0).abs()),
        }
    }

    /// The exponents `t` of the ratios `e^t` of the shifted Gaussians to the one at 0: right, left.
    fn exponents(&self, x: f64) -> (f64, f64) {
        match self.side {
            Side::Add => ((-x - 0.5) / self.variance, 0.0),
            Side::Remove => ((x - 0.5) / self.variance, 0.0),
            Side::Replace => ((x - 0.5) / self.variance, (-x - 0.5) / self.variance),
        }
    }

    /// The largest exponent in size that occurs between two points.
    pub(super) fn exponent_size(&self, from: f64, to: f64) -> f64 {
        (from.abs().max(to.abs()) + 0.5) / self.variance
    }

    /// L(x).
    pub(super) fn loss(&self, x: f64) -> f64 {
        let (right, left) = self.exponents(x);
        match self.side {
            Side::Add => -self.ln_mixture(right),
            Side::Remove => self.ln_mixture(right),
            Side::Replace => self.ln_mixture(right) - self.ln_mixture(left),
        }
    }

    /// `ln(1 - q + q e^t)`.
    fn ln_mixture(&self, t: f64) -> f64 {
        if self.q >= 1.0 {
            return t;
        }
        if t > 700.0 {
            return t + self.ln_q;
        }
        let sum = self.p + self.q * libm::exp(t);
        if sum < 0.5 { libm::log(sum) } else { libm::log1p(self.q * libm::expm1(t)) }
    }

    /// `dL/dx`, times the variance: the weight of the shifted parts.
    pub(super) fn weight(&self, x: f64) -> f64 {
        let weight = |t: f64| libm::exp(t + self.ln_q - self.ln_mixture(t)).min(1.0);
        let (right, left) = self.exponents(x);
        match self.side {
            Side::Add | Side::Remove => weight(right),
            Side::Replace => weight(right) + weight(left),
        }
    }

    /// The x at which the loss is `loss`; infinite beyond its range.
    pub(super) fn point(&self, loss: f64) -> f64 {
        match self.side {
            Side::Add => -self.point_of_mixture(-loss),
            Side::Remove => self.point_of_mixture(loss),
            Side::Replace => {
                let half = loss.abs() / 2.0;
                libm::copysign(self.variance * (half + self.ln_ratio(half)), loss)
            }
        }
    }

    /// The x at which `ln(1 - q + q e^t)` is `value`.
    fn point_of_mixture(&self, value: f64) -> f64 {
        let exponent = if self.q >= 1.0 {
            value
        } else if value > 30.0 {
            value + libm::log1p(-self.p * libm::exp(-value)) - self.ln_q
        } else {
            let excess =
                if value < -0.5 { libm::exp(value) - self.p } else { libm::expm1(value) + self.q };
            if excess <= 0.0 {
                return f64::NEG_INFINITY;
            }
            libm::log(excess / self.q)
        };
        self.variance * exponent + 0.5
    }

    /// `asinh((1-q) sinh(half) e^(1/2s^2) / q)`: with `E = e^(x/s^2)` and `k = e^(-1/2s^2)`, the loss
    /// `2 half` is where `q k E^2 - 2 (1-q) sinh(half) e^half E - q k e^(2 half) = 0`.
    fn ln_ratio(&self, half: f64) -> f64 {
        if self.p <= 0.0 || half <= 0.0 {
            return 0.0;
        }
        let ln_size = 0.5 / self.variance + libm::log(self.p) - self.ln_q;
        let ln_argument = ln_size + ln_sinh(half);
        if ln_argument > 300.0 {
            core::f64::consts::LN_2 + ln_argument
        } else {
            libm::asinh(libm::exp(ln_argument))
        }
    }

    /// An x above which P has at most `tail`.
    pub(super) fn upper_end(&self, tail: f64) -> f64 {
        match self.side {
            Side::Add => self.sigma * quantile(tail),
            Side::Remove | Side::Replace => {
                let half = tail / 2.0;
                let right = 1.0 + self.sigma * quantile(half / self.q);
                if self.p > half { right.max(self.sigma * quantile(half / self.p)) } else { right }
            }
        }
    }

    /// An x below which P has at most `tail`.
    pub(super) fn lower_end(&self, tail: f64) -> f64 {
        match self.side {
            Side::Add => -self.sigma * quantile(tail),
            Side::Remove | Side::Replace => {
                let half = tail / 2.0;
                let right = 1.0 - self.sigma * quantile(half / self.q);
                if self.p > half { right.min(-self.sigma * quantile(half / self.p)) } else { right }
            }
        }
    }

    /// Where a point of the grid should lie: where losses crowd together at the end of their range, so
    /// that what is below it, taken to it, makes up for what the next cell above costs the law from
    /// below (`lattice`, `H` against the least of `A` and a quarter of the cell's mass times width).
    pub(super) fn origin(&self, spacing: f64) -> f64 {
        if self.p <= 0.0 || self.side == Side::Replace {
            return 0.0;
        }
        let end = libm::log(self.p);
        let (mut low, mut high) = (0.0, spacing);
        while !self.outweighs(end + high, spacing) && high < 1e9 * spacing {
            low = high;
            high *= 2.0;
        }
        for _ in 0..ALIGNMENTS {
            let middle = f64::midpoint(low, high);
            if self.outweighs(end + middle, spacing) {
                high = middle;
            } else {
                low = middle;
            }
        }
        if self.side == Side::Add { -(end + high) } else { end + high }
    }

    /// Whether `e^loss Q - P` of the losses below `loss` is more than the cell above it needs, with P
    /// the mixture.
    fn outweighs(&self, loss: f64, spacing: f64) -> bool {
        let below = |loss: f64| {
            let x = self.point_of_mixture(loss);
            let normal = |x: f64| libm::erfc(-x * FRAC_1_SQRT_2 / self.sigma) / 2.0;
            (self.p * normal(x) + self.q * normal(x - 1.0), normal(x))
        };
        let (here, above) = (below(loss), below(loss + spacing));
        let scale = libm::exp(loss);
        let (mass, other) = (above.0 - here.0, above.1 - here.1);
        let need = (mass - scale * other).min(mass * spacing / 4.0);
        scale * here.1 - here.0 >= need
    }

    /// The middle of the region where both parts of the mixture weigh the same, and its scale.
    pub(super) fn transition(&self) -> (f64, f64) {
        let odds = if self.p > 0.0 { libm::log(self.p) - self.ln_q } else { 0.0 };
        let middle = 0.5 + self.variance * odds;
        (if self.side == Side::Add { -middle } else { middle }, self.variance)
    }
}

/// `ln sinh(x)` for `x > 0`.
fn ln_sinh(x: f64) -> f64 {
    if x > 20.0 { x - core::f64::consts::LN_2 } else { libm::log(libm::sinh(x)) }
}

/// A z at which the normal tail is at most `tail`: it is at most `e^(-z^2/2) / 2`.
fn quantile(tail: f64) -> f64 {
    if tail >= 0.5 { 0.0 } else { libm::sqrt(-2.0 * libm::log(2.0 * tail)) }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    const SIDES: [Side; 3] = [Side::Add, Side::Remove, Side::Replace];

    #[test]
    fn loss_and_point_undo_each_other() {
        for side in SIDES {
            for q in [1e-6, 0.01, 0.5, 0.999, 1.0] {
                for sigma in [0.2, 1.0, 30.0] {
                    let pair = Pair::new(side, q, sigma);
                    for step in -40..=80 {
                        let x = f64::from(step) * 0.1 * sigma;
                        let loss = pair.loss(x);
                        let error = pair.loss(pair.point(loss)) - loss;
                        assert!(
                            error.abs() <= 1e-13 * (loss.abs() + q),
                            "{side:?} {q} {sigma} {x}"
                        );
                        assert!(pair.loss(x + 0.01 * sigma) >= loss);
                    }
                }
            }
        }
    }

    #[test]
    fn weight_is_the_slope_of_the_loss() {
        for side in SIDES {
            let pair = Pair::new(side, 0.3, 0.8);
            for step in -30..=30 {
                let x = f64::from(step) * 0.1;
                let slope = (pair.loss(x + 1e-5) - pair.loss(x - 1e-5)) / 2e-5;
                assert!((slope * 0.64 - pair.weight(x)).abs() < 1e-8, "{side:?} {x}");
            }
        }
    }

    #[test]
    fn losses_of_add_and_remove_are_opposite() {
        let (add, remove) = (Pair::new(Side::Add, 0.1, 0.7), Pair::new(Side::Remove, 0.1, 0.7));
        assert_eq!(add.loss(-1.3), -remove.loss(1.3));
        assert_eq!(add.point(-0.5), -remove.point(0.5));
        assert_eq!(remove.point(-0.2), f64::NEG_INFINITY);
    }

    #[test]
    fn ends_leave_no_more_than_the_tail() {
        for side in SIDES {
            for q in [1e-5, 0.2, 1.0] {
                let pair = Pair::new(side, q, 0.9);
                let (from, to) = (pair.lower_end(1e-6), pair.upper_end(1e-6));
                let width = (to - from) / 4000.0;
                let inside: f64 = (0..4000)
                    .map(|i| pair.density(from + width * (f64::from(i) + 0.5)) * width)
                    .sum();
                assert!((1.0 - 2e-6 - 1e-12..1.0).contains(&inside), "{side:?} {q}: {inside}");
            }
        }
    }
}
