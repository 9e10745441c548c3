//! Lower bounds on ε from an attack: what was certainly leaked, at a stated confidence.
//!
//! An attack gives every canary a score; canaries were in the training or not by a fair coin. Those
//! with a score at or above a threshold are guessed to have been in. Two bounds follow from the
//! counts, each violated with at most the probability `significance`:
//!
//! - [`Counts::independent`] for canaries whose outcomes are independent (separate runs, or parts
//!   of one run that share neither gradient nor noise): Clopper and Pearson's intervals for both
//!   error rates, half of the significance each, in `ln((TPR - δ) / FPR)` (Nasr and others 2021).
//! - [`Counts::one_run`] for canaries of one run (Steinke, Nasr and Jagielski 2023, theorem 5.2).
//!
//! Where the threshold was not fixed in advance, [`Scores::best`] tries all that matter and shares
//! the significance out among them (Bonferroni).

use alloc::vec::Vec;

/// The most canaries an audit takes.
pub const MAX_CANARIES: usize = 1 << 20;
/// Halvings of an interval of probabilities, or of ε.
const HALVINGS: u32 = 60;
/// The largest ε that is looked for; no count below [`MAX_CANARIES`] shows as much.
const FAR: f64 = 64.0;

/// Why scores or a confidence cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// δ is not in [0, 1).
    #[error("delta is {observed}, must be at least 0 and below 1")]
    Delta {
        /// The δ observed.
        observed: f64,
    },
    /// More canaries than anyone plants.
    #[error("{observed} canaries, at most {MAX_CANARIES} are judged")]
    Many {
        /// Canaries given.
        observed: usize,
    },
    /// No canary was in, or none was out.
    #[error("{inside} canaries were in and {outside} were not, must be at least 1 of each")]
    OneSided {
        /// Canaries in.
        inside: usize,
        /// Canaries not in.
        outside: usize,
    },
    /// A score is not a number.
    #[error("a score is not a number")]
    Score,
    /// The significance is not in (0, 1/2).
    #[error("significance is {observed}, must be above 0 and below a half")]
    Significance {
        /// The significance observed.
        observed: f64,
    },
}

/// With which probability a bound may be wrong, and at which δ it is meant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    significance: f64,
    delta: f64,
}

impl Confidence {
    /// Accepts a significance in (0, 1/2) and δ in [0, 1).
    ///
    /// # Errors
    /// What is out of range, the significance first.
    pub fn new(significance: f64, delta: f64) -> Result<Self, AuditError> {
        if !(significance > 0.0 && significance < 0.5) {
            return Err(AuditError::Significance { observed: significance });
        }
        if !(0.0..1.0).contains(&delta) {
            return Err(AuditError::Delta { observed: delta });
        }
        Ok(Self { significance, delta })
    }

    /// The confidence of each of several bounds of which the largest is taken.
    #[must_use]
    pub fn shared(self, bounds: usize) -> Self {
        Self { significance: self.significance / real(bounds.max(1)), ..self }
    }
}

/// The scores of canaries that were in and of those that were not; higher means more likely in.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    inside: Vec<f64>,
    outside: Vec<f64>,
}

/// How an attack fared at one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Canaries that were in.
    pub inside: usize,
    /// Canaries that were not.
    pub outside: usize,
    /// Of those in, how many were guessed to be.
    pub true_positives: usize,
    /// Of those not in, how many were guessed to be.
    pub false_positives: usize,
}

impl Scores {
    /// Takes scores, at least one on either side.
    ///
    /// # Errors
    /// [`AuditError::Many`], [`AuditError::OneSided`], [`AuditError::Score`].
    pub fn new(mut inside: Vec<f64>, mut outside: Vec<f64>) -> Result<Self, AuditError> {
        let observed = inside.len().saturating_add(outside.len());
        if observed > MAX_CANARIES {
            return Err(AuditError::Many { observed });
        }
        if inside.is_empty() || outside.is_empty() {
            return Err(AuditError::OneSided { inside: inside.len(), outside: outside.len() });
        }
        if inside.iter().chain(&outside).any(|score| score.is_nan()) {
            return Err(AuditError::Score);
        }
        inside.sort_unstable_by(f64::total_cmp);
        outside.sort_unstable_by(f64::total_cmp);
        Ok(Self { inside, outside })
    }

    /// How the attack fares that guesses "in" from `threshold` on.
    #[must_use]
    pub fn at(&self, threshold: f64) -> Counts {
        let from = |scores: &[f64]| scores.len() - scores.partition_point(|s| *s < threshold);
        Counts {
            inside: self.inside.len(),
            outside: self.outside.len(),
            true_positives: from(&self.inside),
            false_positives: from(&self.outside),
        }
    }

    /// The largest of a bound over all thresholds that matter, the significance shared out.
    #[must_use]
    pub fn best(&self, bound: fn(Counts, Confidence) -> f64, confidence: Confidence) -> f64 {
        let counts = self.frontier();
        let each = confidence.shared(counts.len());
        counts.into_iter().map(|counts| bound(counts, each)).fold(0.0, f64::max)
    }

    /// Counts at the corners of the convex hull of the attack's trade-off curve: no other
    /// threshold, nor a coin between two, does better.
    fn frontier(&self) -> Vec<Counts> {
        let mut thresholds: Vec<f64> = self.inside.iter().chain(&self.outside).copied().collect();
        thresholds.push(f64::INFINITY);
        thresholds.sort_unstable_by(f64::total_cmp);
        thresholds.dedup();
        let mut hull: Vec<Counts> = Vec::new();
        for threshold in thresholds {
            let next = self.at(threshold);
            while let [.., before, last] = hull.as_slice()
                && !turns(*before, *last, next)
            {
                hull.pop();
            }
            hull.push(next);
        }
        hull
    }

    /// The chance that a canary that was in has a higher score than one that was not.
    #[must_use]
    pub fn ranking(&self) -> f64 {
        let below = |score: &f64| self.outside.partition_point(|other| other < score);
        let up_to = |score: &f64| self.outside.partition_point(|other| other <= score);
        let twice: f64 = self.inside.iter().map(|score| real(below(score) + up_to(score))).sum();
        twice / (2.0 * real(self.inside.len()) * real(self.outside.len()))
    }
}

/// Whether `last` lies strictly outside the line from `before` to `next`; thresholds rise.
fn turns(before: Counts, last: Counts, next: Counts) -> bool {
    let step = |from: Counts, to: Counts| {
        (
            real(from.true_positives - to.true_positives),
            real(from.false_positives - to.false_positives),
        )
    };
    let ((first_in, first_out), (then_in, then_out)) = (step(before, last), step(last, next));
    first_out * then_in > then_out * first_in
}

impl Counts {
    /// A lower bound on ε for canaries whose outcomes are independent of each other.
    #[must_use]
    pub fn independent(self, confidence: Confidence) -> f64 {
        let Confidence { significance, delta } = confidence;
        let half = significance / 2.0;
        let missed = self.inside.saturating_sub(self.true_positives);
        let hit = 1.0 - at_most(missed, self.inside, half);
        let wrong = at_most(self.false_positives, self.outside, half);
        if hit > delta { libm::log((hit - delta) / wrong).max(0.0) } else { 0.0 }
    }

    /// A lower bound on ε for canaries of one run.
    #[must_use]
    pub fn one_run(self, confidence: Confidence) -> f64 {
        let Confidence { significance, delta } = confidence;
        let canaries = self.inside.saturating_add(self.outside);
        let guesses = self.true_positives.saturating_add(self.false_positives);
        let refuted = |epsilon| {
            p_value(canaries, guesses, self.true_positives, epsilon, delta) <= significance
        };
        last(FAR, refuted)
    }
}

/// The chance that (ε, δ) lets `correct` of `guesses` guesses on `canaries` canaries be right, at
/// most: theorem 5.2 with fair coins.
fn p_value(canaries: usize, guesses: usize, correct: usize, epsilon: f64, delta: f64) -> f64 {
    let tails = tails(guesses, 1.0 / (1.0 + libm::exp(-epsilon)));
    let tail = |count: usize| tails.get(count).copied().unwrap_or(0.0);
    let beta = tail(correct);
    let rise = |i: usize| (tail(correct - i) - beta) / real(i);
    let alpha = (1..=correct).map(rise).fold(0.0, f64::max);
    (beta + alpha * delta * 2.0 * real(canaries)).min(1.0)
}

/// `Pr[Bin(n, p) >= k]` for k from 0 to n.
fn tails(n: usize, p: f64) -> Vec<f64> {
    let mut tails: Vec<f64> = (0..=n).map(|k| libm::exp(ln_mass(k, n, p))).collect();
    let mut sum = 0.0;
    for tail in tails.iter_mut().rev() {
        sum += *tail;
        *tail = f64::min(sum, 1.0);
    }
    tails
}

/// `ln Pr[Bin(n, p) = k]`.
fn ln_mass(k: usize, n: usize, p: f64) -> f64 {
    let ln_factorial = |n: usize| libm::lgamma(real(n) + 1.0);
    let ways = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let power =
        |base: f64, exponent: usize| if exponent == 0 { 0.0 } else { real(exponent) * base };
    ways + power(libm::log(p), k) + power(libm::log1p(-p), n - k)
}

/// Clopper and Pearson: the success rate is below this, but for the chance `significance` to see no
/// more than `successes` in `trials`.
fn at_most(successes: usize, trials: usize, significance: f64) -> f64 {
    if successes >= trials {
        return 1.0;
    }
    let seen = |p: f64| (0..=successes).map(|k| libm::exp(ln_mass(k, trials, p))).sum::<f64>();
    let (mut from, mut to) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(from, to);
        if seen(middle) > significance {
            from = middle;
        } else {
            to = middle;
        }
    }
    to
}

/// The last number up to `far` for which `holds`, which holds up to some point only; 0 for none.
fn last(far: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut from, mut to) = (0.0, far);
    if !holds(from) {
        return 0.0;
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(from, to);
        if holds(middle) {
            from = middle;
        } else {
            to = middle;
        }
    }
    from
}

/// A count as a real; exact, as all are below 2^53.
fn real(count: usize) -> f64 {
    #[expect(clippy::as_conversions, reason = "counts are capped far below 2^53")]
    let value = count as f64;
    value
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    extern crate std;

    fn vectors() -> Option<Value> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/dp/auditing.json");
        let Ok(text) = std::fs::read(path) else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the vectors are absent");
            std::println!("skipped: the vectors are absent");
            return None;
        };
        Some(serde_json::from_slice(&text).unwrap())
    }

    fn number(row: &Value, name: &str) -> f64 {
        row[name].as_f64().unwrap()
    }

    fn count(row: &Value, name: &str) -> usize {
        usize::try_from(row[name].as_u64().unwrap()).unwrap()
    }

    fn scores(case: &Value) -> Scores {
        let list = |name: &str| serde_json::from_value(case[name].clone()).unwrap();
        Scores::new(list("in_scores"), list("out_scores")).unwrap()
    }

    #[test]
    fn bounds_are_those_of_the_published_auditor() {
        let Some(vectors) = vectors() else { return };
        let close = |found: f64, row: &Value, name: &str| {
            let expected = number(row, name);
            assert!((found - expected).abs() < 2e-6, "{name}: {found} {expected}");
        };
        for case in vectors["canary_cases"].as_array().unwrap() {
            let scores = scores(case);
            for row in case["results"].as_array().unwrap() {
                let confidence =
                    Confidence::new(number(row, "significance"), number(row, "delta")).unwrap();
                let at = scores.at(number(row, "threshold"));
                close(at.independent(confidence), row, "clopper_pearson_at_threshold");
                close(at.one_run(confidence), row, "one_run_at_threshold");
                let best = |bound| scores.best(bound, confidence);
                close(best(Counts::independent), row, "clopper_pearson_bonferroni");
                close(best(Counts::one_run), row, "one_run_bonferroni");
            }
        }
    }

    #[test]
    fn the_test_of_one_run_is_the_published_one() {
        let Some(vectors) = vectors() else { return };
        for row in vectors["one_run_p_values"].as_array().unwrap() {
            let (m, n, v) = (count(row, "m"), count(row, "n_guess"), count(row, "n_correct"));
            let (epsilon, delta) = (number(row, "eps"), number(row, "delta"));
            let found = p_value(m, n, v, epsilon, delta);
            assert!((found - number(row, "p")).abs() < 1e-10, "{found} {row}");
            let counts =
                Counts { inside: m - n, outside: n, true_positives: v, false_positives: n - v };
            let found = counts.one_run(Confidence::new(0.05, delta).unwrap());
            assert!((found - number(row, "eps_lower_95")).abs() < 2e-6, "{found} {row}");
        }
    }

    #[test]
    fn a_bound_is_wrong_no_more_often_than_it_says() {
        // Randomised response at ε = 1: the attack is right with probability e / (1 + e).
        let right = 1.0 / (1.0 + libm::exp(-1.0));
        let confidence = Confidence::new(0.05, 0.0).unwrap();
        let n = 60;
        // Sum the probability of every outcome whose bound is above the truth.
        let mut wrong = 0.0;
        for hits in 0..=n {
            for alarms in 0..=n {
                let counts =
                    Counts { inside: n, outside: n, true_positives: hits, false_positives: alarms };
                if counts.independent(confidence) > 1.0 {
                    let chance = ln_mass(hits, n, right) + ln_mass(alarms, n, 1.0 - right);
                    wrong += libm::exp(chance);
                }
            }
        }
        assert!(wrong < 0.05 && wrong > 1e-6, "{wrong}");
    }

    #[test]
    fn tails_and_intervals_are_those_of_small_cases() {
        assert_eq!(tails(2, 0.5), [1.0, 0.75, 0.25]);
        // No success in n trials: 1 - α^(1/n).
        let expected = 1.0 - libm::pow(0.05, 0.1);
        assert!((at_most(0, 10, 0.05) - expected).abs() < 1e-12);
        assert_eq!(at_most(10, 10, 0.05), 1.0);
    }

    #[test]
    fn ranks_pairs_and_halves_ties() {
        let scores = Scores::new([1.0, 2.0].into(), [0.0, 2.0].into()).unwrap();
        assert_eq!(scores.ranking(), 2.5 / 4.0);
    }

    #[test]
    fn refuses_scores_and_confidences_that_mean_nothing() {
        assert_eq!(
            Scores::new([1.0].into(), Vec::new()),
            Err(AuditError::OneSided { inside: 1, outside: 0 })
        );
        assert_eq!(Scores::new([f64::NAN].into(), [0.0].into()), Err(AuditError::Score));
        let many = Scores::new(alloc::vec![0.0; MAX_CANARIES], [0.0].into());
        assert_eq!(many, Err(AuditError::Many { observed: MAX_CANARIES + 1 }));
        for observed in [0.0, -0.1, 0.5, 1.0] {
            let expected = Err(AuditError::Significance { observed });
            assert_eq!(Confidence::new(observed, 0.1), expected);
        }
        assert!(Confidence::new(f64::NAN, 0.1).is_err());
        for observed in [-1e-9, 1.0, 2.0] {
            assert_eq!(Confidence::new(0.05, observed), Err(AuditError::Delta { observed }));
        }
    }
}
