//! The shape of training: constants, so that nothing the host sees follows from a record.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Finding;
use crate::cbor::Real;

/// The shape of training: constants, so that nothing the host sees follows from a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The adapter.
    pub adapter: Adapter,
    /// A sealed checkpoint every so many steps; 0 means none, and a restart is a new attempt.
    pub checkpoint: u32,
    /// An event every so many steps.
    pub heartbeat: u32,
    /// What becomes of a noisy gradient.
    pub optimiser: Optimiser,
    /// How the learning rate changes over the steps.
    pub schedule: Schedule,
    /// Tokens of every example, truncated and padded to this.
    pub sequence: u32,
}

/// The adapter: LoRA matrices (Hu et al. 2021) with these names, shapes and type f32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// The branch is scaled by `alpha / rank`.
    pub alpha: u32,
    /// The inner dimension.
    pub rank: u32,
    /// Names of the linear layers that get a branch, as PEFT's `target_modules`.
    pub targets: Vec<String>,
    /// Every tensor that leaves, and no other does.
    pub tensors: Vec<Tensor>,
}

/// One tensor of the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// PEFT's name.
    pub name: String,
    /// Rows and columns.
    pub shape: [u32; 2],
}

/// What becomes of a noisy gradient. All of it is post-processing: it changes no ε.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimiser {
    /// AdamW as it is used without noise.
    Adamw(AdamW),
    /// AdamW that takes the noise's known variance out of the second moment, which the noise would
    /// otherwise rule (DP-AdamBC, Tang, Shpilevskiy and Lécuyer 2023).
    DpAdamw {
        /// The settings of AdamW; its epsilon is not used.
        adamw: AdamW,
        /// The least second moment, as a variance: γ'.
        floor: Real,
    },
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
}

/// AdamW with decoupled weight decay (Loshchilov and Hutter 2017) and bias correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: Real,
    /// Decay of the second moment.
    pub beta2: Real,
    /// Added to the root of the second moment.
    pub epsilon: Real,
    /// The peak learning rate.
    pub learning_rate: Real,
    /// Decoupled weight decay.
    pub weight_decay: Real,
}

/// Stochastic gradient descent with momentum and decoupled weight decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    /// The peak learning rate.
    pub learning_rate: Real,
    /// What stays of the last update; 0 for none.
    pub momentum: Real,
    /// Decoupled weight decay.
    pub weight_decay: Real,
}

/// How the learning rate changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The shape after warm-up.
    pub shape: Shape,
    /// Steps over which the rate rises linearly from zero.
    pub warmup: u32,
}

/// The learning rate's shape after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Stays.
    Constant,
    /// Falls to zero along half a cosine.
    Cosine,
    /// Falls to zero linearly.
    Linear,
    /// Stays, and falls to zero linearly over the last steps (warm-up, stable, decay).
    Wsd {
        /// Steps over which the rate falls.
        decay: u32,
    },
}

impl Optimiser {
    /// The peak learning rate.
    #[must_use]
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Adamw(adamw) | Self::DpAdamw { adamw, .. } => adamw.learning_rate.0,
            Self::Sgd(sgd) => sgd.learning_rate.0,
        }
    }

    fn findings(&self, findings: &mut Vec<Finding>) {
        let part = |value: Real| (0.0..1.0).contains(&value.0);
        let positive = |value: Real| value.0 > 0.0 && value.0.is_finite();
        let mut check = |what, fine: bool| {
            if !fine {
                findings.push(Finding::Range { what });
            }
        };
        match self {
            Self::Adamw(adamw) | Self::DpAdamw { adamw, .. } => {
                check("learning rate", positive(adamw.learning_rate));
                check("beta1", part(adamw.beta1));
                check("beta2", part(adamw.beta2));
                check("optimiser epsilon", positive(adamw.epsilon));
                check("weight decay", part(adamw.weight_decay));
            }
            Self::Sgd(sgd) => {
                check("learning rate", positive(sgd.learning_rate));
                check("momentum", part(sgd.momentum));
                check("weight decay", part(sgd.weight_decay));
            }
        }
        if let Self::DpAdamw { floor, .. } = self {
            check("optimiser floor", positive(*floor));
        }
    }
}

impl Training {
    /// Adds the numbers that are out of range, for a mechanism of so many steps.
    pub(super) fn findings(&self, steps: u32, findings: &mut Vec<Finding>) {
        let Self { adapter, heartbeat, schedule, sequence, .. } = self;
        let falls = match schedule.shape {
            Shape::Wsd { decay } => decay,
            Shape::Constant | Shape::Cosine | Shape::Linear => 0,
        };
        for (what, fine) in [
            ("adapter rank", (1..=256).contains(&adapter.rank)),
            ("adapter alpha", (1..=65_536).contains(&adapter.alpha)),
            ("sequence length", (2..=1 << 20).contains(sequence)),
            ("heartbeat", *heartbeat > 0),
            ("schedule decay", schedule.warmup.checked_add(falls).is_some_and(|n| n <= steps)),
        ] {
            if !fine {
                findings.push(Finding::Range { what });
            }
        }
        self.optimiser.findings(findings);
    }
}
