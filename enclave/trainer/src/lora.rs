//! Low-rank adapters (LoRA) over the linear layers of the blocks, with PEFT's meaning:
//! `y = W x + (alpha / rank) B A x`, or `alpha / sqrt(rank)` where rank-stabilised.
//!
//! All parameters lie in one flat vector, so that clipping, noise and the optimiser see one
//! vector and no tensor can be forgotten.

mod peft;

#[cfg(any(feature = "tool", test))]
pub(crate) use peft::write_tensors;

pub use peft::{Files, Finding, Unusable, write_named};

use crate::model::{Config, LINEARS, Lent, Weight};
use core::ops::Range;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use thiserror::Error;

/// Rank, scale and targets of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    rank: usize,
    alpha: f64,
    scaling: Scaling,
    targets: Vec<String>,
}

/// How the scale follows from alpha and the rank.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scaling {
    /// Alpha over the rank.
    Plain,
    /// Alpha over the root of the rank (rsLoRA, arXiv:2312.03732).
    RankStabilised,
}

/// Why a [`LoraConfig`] cannot be made.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum LoraConfigError {
    /// The scale's numerator is not a positive number.
    #[error("lora alpha is {observed}, required is a positive number")]
    Alpha {
        /// The value given.
        observed: f64,
    },
    /// No layer would be adapted.
    #[error("lora targets no layer")]
    NoTarget,
    /// The rank is zero or larger than any layer is wide.
    #[error("lora rank is {observed}, required is 1 to {required}")]
    Rank {
        /// The value given.
        observed: usize,
        /// The largest allowed.
        required: usize,
    },
    /// A target is not a linear layer of a block.
    #[error("lora target {observed} is not a linear layer of a block")]
    UnknownTarget {
        /// The name given.
        observed: String,
    },
}

const MAX_RANK: usize = 1024;

impl LoraConfig {
    /// Rank `1..=1024`, a positive alpha, and the targets in any order: ends of the paths of linear
    /// layers (`q_proj`, `mlp.c_proj`), or `all-linear` alone.
    ///
    /// # Errors
    /// The first of the three that does not hold.
    pub fn new<'a>(
        rank: usize,
        alpha: f64,
        targets: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LoraConfigError> {
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(LoraConfigError::Rank { observed: rank, required: MAX_RANK });
        }
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(LoraConfigError::Alpha { observed: alpha });
        }
        let find = |name: &str| match place(name) {
            Some(place) => Ok((place, name.to_owned())),
            None => Err(LoraConfigError::UnknownTarget { observed: name.to_owned() }),
        };
        let mut targets = targets.into_iter().map(find).collect::<Result<Vec<_>, _>>()?;
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() {
            return Err(LoraConfigError::NoTarget);
        }
        let targets = targets.into_iter().map(|(_, name)| name).collect();
        Ok(Self { rank, alpha, scaling: Scaling::Plain, targets })
    }

    /// All linear layers of the blocks.
    ///
    /// # Errors
    /// As [`LoraConfig::new`].
    pub fn everywhere(rank: usize, alpha: f64) -> Result<Self, LoraConfigError> {
        Self::new(rank, alpha, [EVERYWHERE])
    }

    /// The same with another scaling.
    #[must_use]
    pub fn scaled(self, scaling: Scaling) -> Self {
        Self { scaling, ..self }
    }

    /// No layer at all: the base model as it is.
    pub(crate) fn none() -> Self {
        Self { rank: 1, alpha: 1.0, scaling: Scaling::Plain, targets: Vec::new() }
    }

    /// Width of the bottleneck.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Numerator of the scale.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// How the scale follows from alpha and the rank.
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// What the branch is multiplied with.
    pub fn scale(&self) -> f64 {
        let rank = crate::real::real(self.rank);
        self.alpha / if self.scaling == Scaling::Plain { rank } else { rank.sqrt() }
    }

    /// The adapted layers, in the order of the forward pass.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// The targets that name no linear layer of a model.
    pub(crate) fn unknown(&self, model: &Config) -> Option<LoraConfigError> {
        let unknown = |target: &&String| {
            *target != EVERYWHERE && !model.linears().any(|path| names(target, path))
        };
        let observed = self.targets.iter().find(unknown)?.clone();
        Some(LoraConfigError::UnknownTarget { observed })
    }

    fn adapts(&self, path: &str) -> bool {
        self.targets.iter().any(|target| target == EVERYWHERE || names(target, path))
    }
}

/// PEFT's name for all linear layers of the blocks.
const EVERYWHERE: &str = "all-linear";

/// Whether a target is the end of a module's path, as PEFT compares them.
fn names(target: &str, path: &str) -> bool {
    path.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Where a target stands in the forward pass of the family that has it.
fn place(target: &str) -> Option<usize> {
    let last = target.rsplit('.').next().unwrap_or(target);
    if target == EVERYWHERE {
        return Some(0);
    }
    LINEARS.iter().position(|name| *name == last)
}

/// Where one layer's pair of factors lies in the flat vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// The linear layer's path inside the model.
    pub path: String,
    /// Inputs of the linear layer: A is `(rank, inputs)`.
    pub inputs: usize,
    /// Outputs of the linear layer: B is `(outputs, rank)`.
    pub outputs: usize,
    /// A, row by row.
    pub a: Range<usize>,
    /// B, row by row.
    pub b: Range<usize>,
}

impl Slot {
    /// PEFT's names of A and B with their shapes and places.
    pub fn tensors(&self, rank: usize) -> [(String, [usize; 2], Range<usize>); 2] {
        let name = |factor| format!("base_model.model.{}.lora_{factor}.weight", self.path);
        [
            (name('A'), [rank, self.inputs], self.a.clone()),
            (name('B'), [self.outputs, rank], self.b.clone()),
        ]
    }
}

/// An adapter's parameters and where each lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    config: LoraConfig,
    slots: Vec<Slot>,
    values: Vec<f32>,
    turned: bool, // the base holds its weights as (inputs, outputs)
}

impl Adapter {
    /// An untrained adapter: A uniform in `±1/sqrt(inputs)` as PEFT's Kaiming initialisation,
    /// drawn from a ChaCha20 stream; B zero, so that it changes nothing yet.
    ///
    /// The seed is public: it holds no secret and protects none.
    ///
    /// # Errors
    /// When the model has no layer of a target's name.
    pub fn fresh(
        model: &Config,
        config: LoraConfig,
        seed: [u8; 32],
    ) -> Result<Self, LoraConfigError> {
        if let Some(unknown) = config.unknown(model) {
            return Err(unknown);
        }
        let mut adapter = Self::zeros(model, config);
        let mut stream = ChaCha20Rng::from_seed(seed);
        for slot in &adapter.slots {
            let bound = 1.0 / crate::real::real(slot.inputs).sqrt();
            for value in adapter.values.get_mut(slot.a.clone()).unwrap_or_default() {
                let unit = f64::from(stream.next_u32()) / f64::from(u32::MAX); // 0 to 1
                *value = crate::real::narrow((2.0 * unit - 1.0) * bound);
            }
        }
        Ok(adapter)
    }

    pub(crate) fn zeros(model: &Config, mut config: LoraConfig) -> Self {
        let mut slots = Vec::new();
        let mut end = 0;
        let mut place = |length: usize| {
            let start = end;
            end += length;
            start..end
        };
        let mut turned = false;
        for (_, linear) in model.all_linears().filter(|(_, l)| config.adapts(&l.path)) {
            let (inputs, outputs) = (linear.inputs, linear.outputs);
            let a = place(config.rank * inputs);
            let b = place(outputs * config.rank);
            turned |= linear.turned;
            slots.push(Slot { path: linear.path.clone(), inputs, outputs, a, b });
        }
        if config.targets == [EVERYWHERE] {
            config.targets.clear();
            for (_, linear) in model.all_linears() {
                if !config.targets.iter().any(|target| target == linear.name()) {
                    config.targets.push(linear.name().to_owned());
                }
            }
        }
        Self { config, slots, values: vec![0.0; end], turned }
    }

    /// Rank, scale and targets.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The places of all factors, in order.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// All parameters.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All parameters, to be changed in place.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// PEFT's names with shapes and places, in the order of the flat vector.
    pub fn tensors(&self) -> impl Iterator<Item = (String, [usize; 2], Range<usize>)> {
        self.slots.iter().flat_map(|slot| slot.tensors(self.config.rank))
    }

    /// The values of one tensor.
    pub fn tensor(&self, place: &Range<usize>) -> &[f32] {
        self.values.get(place.clone()).unwrap_or_default()
    }

    fn fill(&mut self, tensors: &BTreeMap<String, Weight>) {
        let places: Vec<_> = self.tensors().collect();
        for (name, _, place) in places {
            let tensor = tensors.get(&name).and_then(|weight| weight.tensor().ok());
            let lent = tensor.as_ref().and_then(Lent::new);
            if let (Some(lent), Some(values)) = (lent, self.values.get_mut(place)) {
                values.copy_from_slice(lent.values());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden;

    #[test]
    fn draws_the_same_adapter_from_the_same_seed() {
        let model = Config::parse(&golden::config()).unwrap();
        let fresh = |seed| {
            Adapter::fresh(&model, LoraConfig::everywhere(4, 8.0).unwrap(), [seed; 32]).unwrap()
        };
        assert_eq!(fresh(1), fresh(1));
        assert_ne!(fresh(1), fresh(2));
    }

    #[test]
    fn starts_with_a_bounded_a_and_a_zero_b() {
        let model = Config::parse(&golden::config()).unwrap();
        let adapter =
            Adapter::fresh(&model, LoraConfig::everywhere(4, 8.0).unwrap(), [7; 32]).unwrap();
        for slot in adapter.slots() {
            let bound = 1.0 / (slot.inputs as f32).sqrt();
            let a = adapter.tensor(&slot.a);
            assert!(a.iter().all(|v| v.abs() <= bound) && a.iter().any(|v| v.abs() > bound / 2.0));
            assert!(adapter.tensor(&slot.b).iter().all(|v| *v == 0.0));
        }
    }

    #[test]
    fn covers_the_vector_without_gap_or_overlap() {
        let model = Config::parse(&golden::config()).unwrap();
        let adapter = Adapter::zeros(&model, LoraConfig::everywhere(4, 8.0).unwrap());
        let mut end = 0;
        for (_, [rows, columns], place) in adapter.tensors() {
            assert_eq!(place.start, end);
            assert_eq!(place.len(), rows * columns);
            end = place.end;
        }
        assert_eq!(end, adapter.values().len());
    }

    #[test]
    fn rejects_bad_configurations() {
        use LoraConfigError::*;
        let new = |rank, alpha, targets: &[&str]| {
            LoraConfig::new(rank, alpha, targets.iter().copied()).unwrap_err()
        };
        assert_eq!(new(0, 8.0, &["q_proj"]), Rank { observed: 0, required: 1024 });
        assert_eq!(new(4, -1.0, &["q_proj"]), Alpha { observed: -1.0 });
        assert_eq!(new(4, 8.0, &[]), NoTarget);
        assert_eq!(new(4, 8.0, &["lm_head"]), UnknownTarget { observed: "lm_head".into() });
        assert!(matches!(new(4, f64::NAN, &["q_proj"]), Alpha { .. }));
    }

    #[test]
    fn rejects_a_target_of_another_family() {
        let model = Config::parse(&golden::config()).unwrap();
        let config = LoraConfig::new(4, 8.0, ["q_proj", "c_attn"]).unwrap();
        assert_eq!(
            Adapter::fresh(&model, config, [0; 32]).unwrap_err(),
            LoraConfigError::UnknownTarget { observed: "c_attn".into() }
        );
    }

    #[test]
    fn a_target_is_the_end_of_a_path() {
        let model = Config::parse(&golden::config()).unwrap();
        let paths = |target: &str| {
            let config = LoraConfig::new(1, 1.0, [target]).unwrap();
            let slots = Adapter::zeros(&model, config).slots;
            slots.into_iter().map(|slot| slot.path).collect::<Vec<_>>()
        };
        assert_eq!(paths("layers.1.mlp.up_proj"), ["model.layers.1.mlp.up_proj"]);
        assert_eq!(paths("up_proj").len(), 2);
        assert_eq!(paths("ayers.1.mlp.up_proj"), [""; 0]);
    }

    #[test]
    fn a_rank_stabilised_scale_is_over_the_root() {
        let config = LoraConfig::everywhere(16, 8.0).unwrap();
        assert_eq!((config.scale(), config.scaled(Scaling::RankStabilised).scale()), (0.5, 2.0));
    }
}
