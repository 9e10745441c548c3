//! The Gaussian mechanism in closed form.
//!
//! `delta(epsilon) = Q(a) - e^epsilon Q(b)`, `a, b = epsilon / mu -+ mu / 2` (Balle and Wang 2018,
//! theorem 8), and steps compose by adding `mu^2`. Each value comes with a bound on its own error.

use super::ULP;
use super::rdp::ln_tail;

/// Halvings of the interval; the ends are neighbours long before.
const HALVINGS: u32 = 200;

/// The least epsilon certain to hold at `delta`, and one certain not to hold, or 0.
pub(super) fn epsilon(mu: f64, delta: f64) -> Option<(f64, f64)> {
    // Q(a) alone is below e^(-a^2/2).
    let far = mu * (mu / 2.0 + libm::sqrt(-2.0 * libm::log(delta))) * (1.0 + 1e-6);
    if !far.is_finite() {
        return None;
    }
    let above = |epsilon: f64| least_and_most(mu, epsilon).1 > delta;
    let below = |epsilon: f64| least_and_most(mu, epsilon).0 < delta;
    if above(far) {
        return None;
    }
    let (_, upper) = halve(far, above);
    let (lower, _) = halve(far, |epsilon| !below(epsilon));
    Some((upper, lower))
}

/// Ends of the step of `left`, which holds at 0 and below the step: `(0, 0)` where it does not.
fn halve(far: f64, left: impl Fn(f64) -> bool) -> (f64, f64) {
    let (mut from, mut to) = (0.0, far);
    if !left(from) {
        return (0.0, 0.0);
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(from, to);
        if left(middle) {
            from = middle;
        } else {
            to = middle;
        }
    }
    (from, to)
}

/// Bounds on delta.
pub(super) fn least_and_most(mu: f64, epsilon: f64) -> (f64, f64) {
    if mu <= 0.0 {
        return (0.0, 0.0);
    }
    let (a, b) = (epsilon / mu - mu / 2.0, epsilon / mu + mu / 2.0);
    let tail = |x: f64| ln_tail(x * core::f64::consts::FRAC_1_SQRT_2);
    let (first, second) = (libm::exp(tail(a)), libm::exp(epsilon + tail(b)));
    let error = 16.0 * ULP * (8.0 + a * a + b * b + epsilon) * first;
    let delta = first - second;
    let (least, most) = (delta - error, delta + error + f64::MIN_POSITIVE);
    if most.is_nan() { (0.0, 1.0) } else { (least.max(0.0), most.min(1.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_values_known_to_fifty_digits() {
        for (mu, delta, exact) in [
            (1.0, 1e-5, 4.377_178_095_681_22),
            (2.0, 1e-5, 9.997_256_146_434_38),
            (10.0 / 3.0, 1e-5, 19.130_767_834_36),
        ] {
            let (upper, lower) = epsilon(mu, delta).unwrap();
            assert!(lower <= upper && upper - lower < 1e-9 * upper, "{lower} {upper}");
            assert!((upper - exact).abs() < 1e-8, "{upper} {exact}");
        }
    }

    #[test]
    fn promises_nothing_it_cannot() {
        for mu in [0.0, 1e-300, 1e-9, 1e9, 1e300] {
            for delta in [1e-300, 1e-30, 0.5] {
                if let Some((upper, lower)) = epsilon(mu, delta) {
                    assert!(lower <= upper, "{mu} {delta}");
                }
            }
        }
        assert_eq!(epsilon(1e-3, 0.1), Some((0.0, 0.0)));
    }
}
