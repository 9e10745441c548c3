//! What a cap on the physical batch costs.
//!
//! The sampler drops what exceeds `M` units in a step. The real run then differs from the analysed
//! one with probability at most `T Pr[Bin(N_max, q) > M]`, on either of two neighbours, whatever
//! the true number of units below `N_max` is.

use super::float::real;

/// Terms of the tail summed one by one before the rest is bounded by a geometric series.
const TERMS: u32 = 4096;

/// Upper bound of `Pr[Bin(n, q) > cap]` for `0 < q <= 1`.
pub(super) fn exceeds(n: u64, q: f64, cap: u64) -> f64 {
    if cap >= n {
        return 0.0;
    }
    let (n, first) = (real(n), real(cap) + 1.0);
    if q >= 1.0 || first <= n * q {
        return 1.0;
    }
    let ln_first = ln_binomial(n, first, q);
    (libm::exp(ln_first) * tail_over_first(n, first, q / (1.0 - q)) * (1.0 + 1e-12)).min(1.0)
}

/// Upper bound of the chance that any of `steps` steps drops a unit.
pub(super) fn drops(n: u64, q: f64, cap: u64, steps: u32) -> f64 {
    (exceeds(n, q, cap) * f64::from(steps) * (1.0 + f64::EPSILON)).min(1.0)
}

/// Smallest cap at which [`drops`] is at most `allowed`.
pub(super) fn smallest_cap(n: u64, q: f64, steps: u32, allowed: f64) -> u64 {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        if drops(n, q, middle, steps) <= allowed {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    high
}

/// `ln Pr[Bin(n, q) = k]`, plus its rounding error.
fn ln_binomial(n: f64, k: f64, q: f64) -> f64 {
    let parts = [
        libm::lgamma(n + 1.0),
        -libm::lgamma(k + 1.0),
        -libm::lgamma(n - k + 1.0),
        k * libm::log(q),
        (n - k) * libm::log1p(-q),
    ];
    let magnitude: f64 = parts.iter().map(|part| part.abs()).sum();
    parts.iter().sum::<f64>() + 8.0 * f64::EPSILON * magnitude
}

/// `Pr[X >= k] / Pr[X = k]` for `k > n q`, where the ratios of neighbouring terms are below 1 and
/// shrink.
fn tail_over_first(n: f64, k: f64, odds: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for i in 0..TERMS {
        let i = f64::from(i);
        let ratio = (n - k - i).max(0.0) / (k + i + 1.0) * odds;
        if term < 1e-17 || i + 1.0 >= f64::from(TERMS) {
            return if ratio < 1.0 { sum + term * ratio / (1.0 - ratio) } else { f64::INFINITY };
        }
        term *= ratio;
        sum += term;
    }
    f64::INFINITY
}
