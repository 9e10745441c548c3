//! Frozen weights: safetensors bytes to f32 tensors, with every mismatch reported.

use super::{Config, Finding, Unusable};
use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::{BTreeMap, BTreeSet};

/// All weights of a model by name, as contiguous f32 tensors on the CPU. A linear layer's weight
/// is `(outputs, inputs)`, however the file holds it.
pub(crate) struct Weights(BTreeMap<String, Tensor>);

impl Weights {
    pub(crate) fn read(config: &Config, shards: &[&[u8]]) -> Result<Self, Unusable> {
        let required = config.tensors().into_iter().collect();
        let canonical = |name: &str| config.canonical(name);
        let mut tensors =
            read_tensors(&required, shards, canonical, |name| is_legacy(config, name))?;
        for (_, linear) in config.all_linears().filter(|(_, linear)| linear.turned) {
            if let Some(tensor) = tensors.get_mut(&super::config::weight(&linear.path)) {
                let refused = |_| Finding::TensorAbsent { name: linear.path.clone() };
                *tensor = tensor.t().and_then(|t| t.contiguous()).map_err(refused)?;
            }
        }
        Ok(Self(tensors))
    }

    /// Weights that are variables of an optimiser.
    #[cfg(feature = "tool")]
    pub(crate) fn assemble(tensors: BTreeMap<String, Tensor>) -> Self {
        Self(tensors)
    }

    /// The tensor of that name.
    pub(crate) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }
}

/// The tensors named in `required`, in their shapes, from one or more safetensors files whose
/// names `canonical` turns into those of `required`.
///
/// # Errors
/// Every tensor that is absent, unexpected (unless `ignored`), twice there, of another shape or
/// type, or not finite; every file that is not safetensors.
pub(crate) fn read_tensors(
    required: &BTreeMap<String, Vec<usize>>,
    shards: &[&[u8]],
    canonical: impl Fn(&str) -> String,
    ignored: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Tensor>, Unusable> {
    let mut findings = Vec::new();
    let mut views: BTreeMap<String, TensorView<'_>> = BTreeMap::new();
    for (shard, bytes) in shards.iter().enumerate() {
        let Ok(file) = SafeTensors::deserialize(bytes) else {
            findings.push(Finding::WeightsSyntax { shard });
            continue;
        };
        for (name, view) in file.iter() {
            let name = canonical(name);
            if views.insert(name.clone(), view).is_some() {
                findings.push(Finding::TensorDuplicate { name });
            }
        }
    }
    Unusable::unless_empty(findings)?;

    let mut findings = Vec::new();
    let mut tensors = BTreeMap::new();
    let names: BTreeSet<&String> = required.keys().chain(views.keys()).collect();
    for name in names {
        match (required.get(name), views.get(name)) {
            (Some(shape), Some(view)) => match read_tensor(name, view, shape) {
                Ok(tensor) => _ = tensors.insert(name.clone(), tensor),
                Err(finding) => findings.push(finding),
            },
            (Some(_), None) => findings.push(Finding::TensorAbsent { name: name.clone() }),
            (None, Some(_)) if !ignored(name) => {
                findings.push(Finding::TensorUnexpected { name: name.clone() });
            }
            _ => {}
        }
    }
    Unusable::unless_empty(findings)?;
    Ok(tensors)
}

/// Buffers and copies that old checkpoints carry and that are computed anew here.
fn is_legacy(config: &Config, name: &str) -> bool {
    const BUFFERS: [&str; 5] = [
        ".rotary_emb.inv_freq",
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
    ];
    BUFFERS.iter().any(|end| name.ends_with(end))
        || (config.head.tied && name == super::config::weight(super::config::Head::PATH))
}

fn read_tensor(name: &str, view: &TensorView<'_>, shape: &[usize]) -> Result<Tensor, Finding> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => {
            return Err(Finding::TensorType {
                name: name.to_owned(),
                observed: format!("{other:?}"),
            });
        }
    };
    if view.shape() != shape {
        return Err(Finding::TensorShape {
            name: name.to_owned(),
            observed: view.shape().to_vec(),
            required: shape.to_vec(),
        });
    }
    let tensor = Tensor::from_raw_buffer(view.data(), dtype, shape, &Device::Cpu)
        .and_then(|tensor| tensor.to_dtype(DType::F32))
        .map_err(|_| Finding::TensorAbsent { name: name.to_owned() })?;
    let finite = Lent::new(&tensor).is_some_and(|lent| lent.values().iter().all(|v| v.is_finite()));
    if finite { Ok(tensor) } else { Err(Finding::TensorNotFinite { name: name.to_owned() }) }
}

/// A tensor's values, lent for as long as the tensor is.
pub(crate) struct Lent<'m> {
    storage: StorageRef<'m>,
    start: usize,
    end: usize,
}

impl<'m> Lent<'m> {
    /// `None` unless the tensor is contiguous f32 on the CPU, as every loaded weight is.
    pub(crate) fn new(tensor: &'m Tensor) -> Option<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, end) = layout.contiguous_offsets()?;
        match &*storage {
            Storage::Cpu(CpuStorage::F32(values)) => values.get(start..end)?,
            _ => return None,
        };
        Some(Self { storage, start, end })
    }

    /// The values, row by row.
    pub(crate) fn values(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => {
                values.get(self.start..self.end).unwrap_or_default()
            }
            _ => &[],
        }
    }
}
