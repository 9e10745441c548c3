//! The oracle: candle's autograd over the plain graph, one example at a time.

use super::{Engine, EngineError};
use crate::lora::Adapter;
use crate::model::{Lent, Model, graph};
use crate::record::Example;
use candle_core::{Device, Tensor, Var};
use std::collections::BTreeMap;

/// Computes gradients by automatic differentiation. Several times slower than
/// [`CpuEngine`](super::CpuEngine) and hungry for memory: for comparison, and for small models.
pub struct ReferenceEngine<'m> {
    model: &'m Model,
    shape: Adapter,
    identity: String,
}

impl<'m> ReferenceEngine<'m> {
    /// An engine for adapters of the shape of `adapter`.
    pub fn new(model: &'m Model, adapter: &Adapter) -> Self {
        let identity = format!(
            "trainer/{} candle/0.11 f32 {} avx={} fma={}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            candle_core::utils::with_avx(),
            cfg!(target_feature = "fma"),
        );
        Self { model, shape: adapter.clone(), identity }
    }

    fn differentiate(
        &self,
        adapter: &[f32],
        example: &Example,
        gradient: &mut [f32],
    ) -> candle_core::Result<()> {
        gradient.fill(0.0);
        if example.labels() == 0 {
            return Ok(()); // the mean over nothing
        }
        let rank = self.shape.config().rank();
        let scale = self.shape.config().scale();
        let mut factors = BTreeMap::new();
        for slot in self.shape.slots() {
            let var = |place: &core::ops::Range<usize>, shape: (usize, usize)| {
                let values = adapter.get(place.clone()).unwrap_or_default();
                Var::from_slice(values, shape, &Device::Cpu)
            };
            let pair = (var(&slot.a, (rank, slot.inputs))?, var(&slot.b, (slot.outputs, rank))?);
            factors.insert(slot.path.as_str(), pair);
        }
        let branches = |path: &str| {
            let (a, b) = factors.get(path)?;
            Some((a.as_tensor(), b.as_tensor(), scale))
        };
        let ids = Tensor::new(example.ids(), &Device::Cpu)?.unsqueeze(0)?;
        let logits = graph::logits(self.model.config(), self.model.weights(), &branches, &ids)?;
        let learned = (0..).zip(example.targets()).filter(|(_, (_, learned))| *learned);
        let (rows, targets) = learned.map(|(row, (target, _))| (row, target)).unzip();
        let gradients = graph::mean_loss(&logits, rows, targets)?.backward()?;
        for slot in self.shape.slots() {
            let Some((a, b)) = factors.get(slot.path.as_str()) else { continue };
            for (var, place) in [(a, &slot.a), (b, &slot.b)] {
                let Some(found) = gradients.get(var.as_tensor()) else { continue };
                let found = found.contiguous()?;
                if let (Some(lent), Some(out)) =
                    (Lent::new(&found), gradient.get_mut(place.clone()))
                {
                    out.copy_from_slice(lent.values());
                }
            }
        }
        Ok(())
    }
}

impl Engine for ReferenceEngine<'_> {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn gradient(
        &self,
        adapter: &[f32],
        example: &Example,
        gradient: &mut [f32],
    ) -> Result<(), EngineError> {
        let required = self.shape.values().len();
        for observed in [adapter.len(), gradient.len()] {
            if observed != required {
                return Err(EngineError::Adapter { observed, required });
            }
        }
        self.differentiate(adapter, example, gradient).map_err(|_| EngineError::Backend)
    }
}
