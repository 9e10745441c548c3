//! How a unit's gradient is bounded, and what the bound costs.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::OutOfRange;
use crate::cbor::Real;

/// How a unit's gradient is bounded by C. Whatever the rule, one unit moves the sum by at most C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clipping {
    /// Scaled down to norm C where it is longer; C follows a quantile of the norms (Andrew,
    /// Thakkar, McMahan and Ramaswamy 2021).
    Adaptive(Adaptive),
    /// Scaled down to norm C where it is longer.
    Flat,
    /// Scaled to `C g / (|g| + γ)`, whatever its norm (AUTO-S, Bu, Wang, Zha and Karypis 2022).
    Normalised {
        /// γ, the norm that is scaled to half of C.
        gamma: Real,
    },
    /// The gradient of each of the L adapted layers is scaled down to norm `C / sqrt(L)` by itself.
    PerLayer,
}

/// How the clipping norm follows a quantile. `C` of the terms is where it begins; after a step it
/// is multiplied by `exp(-rate (share - quantile))`, with the noisy share of units that were not
/// clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    /// The standard deviation of the noise on the count of units that were not clipped, less half
    /// of all: one unit moves it by a half.
    pub noise: Real,
    /// The share of units that is not to be clipped.
    pub quantile: Real,
    /// The rate of the norm's logarithm.
    pub rate: Real,
}

impl Clipping {
    /// Everything about the rule that cannot be, beside noise multiplier `sigma`.
    pub(super) fn findings(&self, sigma: f64, findings: &mut Vec<OutOfRange>) {
        let mut positive = |what, Real(observed): Real| {
            if !(observed > 0.0 && observed.is_finite()) {
                findings.push(OutOfRange::NotPositive { what, observed });
            }
        };
        match self {
            Self::Flat | Self::PerLayer => {}
            Self::Normalised { gamma } => positive("clipping gamma", *gamma),
            Self::Adaptive(Adaptive { noise, quantile, rate }) => {
                positive("quantile noise", *noise);
                positive("clipping rate", *rate);
                let Real(observed) = *quantile;
                if !(observed > 0.0 && observed < 1.0) {
                    findings.push(OutOfRange::Quantile { observed });
                }
                if noise.0 * 2.0 <= sigma {
                    let (observed, required) = (noise.0, sigma / 2.0);
                    findings.push(OutOfRange::Count { observed, required });
                }
            }
        }
    }

    /// `(σ^-2 - (2 σ_b)^-2)^(-1/2)`, rounded up: both releases together are one Gaussian with σ.
    pub(super) fn gradient_noise(&self, sigma: f64) -> f64 {
        match self {
            Self::Flat | Self::Normalised { .. } | Self::PerLayer => sigma,
            Self::Adaptive(Adaptive { noise, .. }) => {
                let part = sigma / (2.0 * noise.0);
                // A handful of roundings, each by half a unit in the last place, grow by the
                // condition of the difference.
                let left = 1.0 - part * part;
                sigma / libm::sqrt(left) * (1.0 + 8.0 * f64::EPSILON / left)
            }
        }
    }
}

impl fmt::Display for Clipping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flat => f.write_str("flat"),
            Self::Normalised { gamma } => write!(f, "normalised, gamma {}", gamma.0),
            Self::PerLayer => f.write_str("per layer"),
            Self::Adaptive(Adaptive { noise, quantile, rate }) => write!(
                f,
                "adaptive, quantile {}, rate {}, noise {} units",
                quantile.0, rate.0, noise.0
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mechanism;
    use super::super::tests::golden;
    use super::*;

    fn adaptive(noise: f64, quantile: f64, rate: f64) -> Clipping {
        Clipping::Adaptive(Adaptive {
            noise: Real(noise),
            quantile: Real(quantile),
            rate: Real(rate),
        })
    }

    fn findings(clipping: Clipping) -> Vec<OutOfRange> {
        let mut terms = golden();
        terms.clipping = clipping;
        Mechanism::new(terms).err().unwrap_or_default()
    }

    #[test]
    fn accepts_every_rule_and_carries_it_both_ways() {
        let gamma = Real(0.01);
        for clipping in [
            Clipping::Flat,
            Clipping::PerLayer,
            Clipping::Normalised { gamma },
            adaptive(1.6, 0.5, 0.2),
        ] {
            let mut terms = golden();
            terms.clipping = clipping;
            let mechanism = Mechanism::new(terms).unwrap();
            let bytes = crate::cbor::encode(&mechanism);
            assert_eq!(crate::cbor::decode(&bytes, 4096), Ok(mechanism));
        }
    }

    #[test]
    fn refuses_rules_that_cannot_be() {
        for observed in [0.0, -1.0, f64::INFINITY] {
            let expected = OutOfRange::NotPositive { what: "clipping gamma", observed };
            assert_eq!(findings(Clipping::Normalised { gamma: Real(observed) }), [expected]);
            let expected = OutOfRange::NotPositive { what: "clipping rate", observed };
            assert_eq!(findings(adaptive(2.0, 0.5, observed)), [expected]);
        }
        for observed in [0.0, 1.0, -0.5, 2.0] {
            let expected = OutOfRange::Quantile { observed };
            assert_eq!(findings(adaptive(2.0, observed, 0.2)), [expected]);
        }
        assert_eq!(findings(adaptive(2.0, f64::NAN, 0.2)).len(), 1);
    }

    #[test]
    fn refuses_a_count_that_leaves_nothing_for_the_gradient() {
        let expected = OutOfRange::Count { observed: 0.55, required: 0.55 };
        assert_eq!(findings(adaptive(0.55, 0.5, 0.2)), [expected]);
        assert_eq!(findings(adaptive(0.550_001, 0.5, 0.2)), []);
    }

    #[test]
    fn both_releases_together_are_one_gaussian_with_sigma() {
        for (sigma, noise) in [(1.1, 1.6), (0.5, 51.2), (2.0, 1.000_001)] {
            let gradient = adaptive(noise, 0.5, 0.2).gradient_noise(sigma);
            let joint = 1.0 / (gradient * gradient) + 1.0 / (4.0 * noise * noise);
            assert!(joint <= 1.0 / (sigma * sigma) * (1.0 + 1e-15), "{sigma} {noise}");
            assert!((joint * sigma * sigma - 1.0).abs() < 1e-9, "{sigma} {noise}");
        }
        assert_eq!(Clipping::PerLayer.gradient_noise(1.1), 1.1);
    }
}
