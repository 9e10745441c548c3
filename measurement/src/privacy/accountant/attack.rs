//! What the budget means: how well the best test tells two neighbours apart.
//!
//! For every ε, a test of false positive rate α has a true positive rate of at most
//! `min(δ + e^ε α, 1 - e^-ε (1 - δ - α))` with δ = δ(ε) (Kairouz, Oh, Viswanath 2015; Dong, Roth, Su
//! 2019, section 2): the trade-off curve is the envelope of these lines. Every δ is from above, and so
//! is what is said about the attacker.

use alloc::vec::Vec;

use super::pld::Composition;
use super::saddle::Target;
use super::{Accountant, AccountantError, Ideal, Order, gaussian};

/// δ beyond which the curve is not followed.
const LEAST_DELTA: f64 = 1e-9;
/// Compositions, each sharp around one ε.
const TARGETS: u32 = 6;
/// Lines of the envelope.
const LINES: u32 = 400;

/// A point of the trade-off curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// How often the test claims a unit that was not there.
    pub false_positive: f64,
    /// How often it claims one that was, at most.
    pub true_positive: f64,
}

/// Bounds on any attack that tells whether a unit was there, whatever else the attacker knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Attack {
    /// ε and δ of the envelope's lines, ε from 0 up.
    lines: Vec<(f64, f64)>,
}

impl Attack {
    /// The largest difference of true and false positive rate: twice what a bet at even odds wins
    /// above one half.
    #[must_use]
    pub fn advantage(&self) -> f64 {
        self.lines.first().map_or(1.0, |(_, delta)| *delta)
    }

    /// The largest true positive rate at a false positive rate; 1 outside of [0, 1].
    #[must_use]
    pub fn true_positive(&self, false_positive: f64) -> f64 {
        if !(0.0..=1.0).contains(&false_positive) {
            return 1.0;
        }
        let rates = self.lines.iter().map(|(epsilon, delta)| {
            let steep = delta + libm::exp(*epsilon) * false_positive;
            let flat = 1.0 - libm::exp(-epsilon) * (1.0 - delta - false_positive);
            steep.min(flat) * (1.0 + 1e-12)
        });
        rates.fold(1.0, f64::min)
    }

    /// The trade-off curve at `points` false positive rates, evenly spaced from 0 to 1.
    #[must_use]
    pub fn trade_off(&self, points: u32) -> Vec<Point> {
        let last = f64::from(points.saturating_sub(1).max(1));
        let rates = (0..points).map(|i| f64::from(i) / last);
        rates
            .map(|false_positive| {
                let true_positive = self.true_positive(false_positive);
                Point { false_positive, true_positive }
            })
            .collect()
    }
}

impl Accountant {
    /// What the best attack achieves against everything composed.
    ///
    /// # Errors
    /// [`AccountantError::Unbounded`] when no method gives a number.
    pub fn attack(&self) -> Result<Attack, AccountantError> {
        let far = match self.upper(&self.ideal(Target::Delta(LEAST_DELTA)), LEAST_DELTA) {
            Some((epsilon, _)) if !self.runs.is_empty() => epsilon,
            Some(_) => 0.0,
            None => return Err(AccountantError::Unbounded),
        };
        let share = |i: u32, of: u32| far * f64::from(i) / f64::from(of - 1);
        let ideals: Vec<_> =
            (0..TARGETS).map(|i| self.ideal(Target::Epsilon(share(i, TARGETS)))).collect();
        let line = |epsilon: f64| {
            let deltas = ideals.iter().map(|ideal| match ideal {
                Ideal::Gaussian(mu) => gaussian::least_and_most(*mu, epsilon).1,
                Ideal::Grid(sides, other) if epsilon >= *other => largest(sides, epsilon),
                // The other side is not known there.
                Ideal::Grid(..) => 1.0,
                Ideal::Renyi => self.renyi(|order: Order, spent| order.delta(spent, epsilon)),
            });
            let delta = deltas.fold(1.0, f64::min) + self.truncation_charge(epsilon);
            (epsilon, delta.min(1.0))
        };
        Ok(Attack { lines: (0..LINES).map(|i| line(share(i, LINES))).collect() })
    }
}

fn largest(sides: &[Composition], epsilon: f64) -> f64 {
    sides.iter().map(|side| side.delta(epsilon)).fold(0.0, f64::max)
}
