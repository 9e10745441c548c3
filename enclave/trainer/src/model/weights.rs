//! Frozen weights: safetensors bytes to f32 tensors, or bf16 matrices as they are, with every
//! mismatch reported.

use super::{Config, Finding, Unusable};
use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::{BTreeMap, BTreeSet};

/// All weights of a model by name. A linear layer's weight is `(outputs, inputs)`, however the
/// file holds it.
pub(crate) struct Weights(BTreeMap<String, Weight>);

/// One tensor of a model.
pub(crate) enum Weight {
    /// A matrix of bf16 with rows of an even width: two neighbours in a word, the first one low.
    Brain {
        /// Row by row.
        pairs: Vec<u32>,
        /// Rows and columns.
        shape: [usize; 2],
    },
    /// Contiguous f32 on the CPU.
    Single(Tensor),
}

impl Weight {
    /// As f32; a matrix of bf16 is widened anew each time.
    pub(crate) fn tensor(&self) -> candle_core::Result<Tensor> {
        match self {
            Self::Single(tensor) => Ok(tensor.clone()),
            Self::Brain { pairs, shape } => {
                let values: Vec<f32> = pairs
                    .iter()
                    .flat_map(|pair| [pair << 16, pair & 0xffff_0000].map(f32::from_bits))
                    .collect();
                Tensor::from_vec(values, shape, &Device::Cpu)
            }
        }
    }
}

impl Weights {
    pub(crate) fn read(config: &Config, shards: &[&[u8]]) -> Result<Self, Unusable> {
        let required = config.tensors().into_iter().collect();
        let canonical = |name: &str| config.canonical(name);
        let mut tensors =
            read_tensors(&required, shards, canonical, |name| is_legacy(config, name))?;
        for (_, linear) in config.all_linears().filter(|(_, linear)| linear.turned) {
            if let Some(weight) = tensors.get_mut(&super::config::weight(&linear.path)) {
                let refused = |_| Finding::TensorAbsent { name: linear.path.clone() };
                let turned = weight.tensor().and_then(|t| t.t()?.contiguous());
                *weight = Weight::Single(turned.map_err(refused)?);
            }
        }
        Ok(Self(tensors))
    }

    /// Weights that are variables of an optimiser.
    #[cfg(feature = "tool")]
    pub(crate) fn assemble(tensors: BTreeMap<String, Tensor>) -> Self {
        Self(tensors.into_iter().map(|(name, tensor)| (name, Weight::Single(tensor))).collect())
    }

    /// The tensor of that name.
    pub(crate) fn weight(&self, name: &str) -> Option<&Weight> {
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
) -> Result<BTreeMap<String, Weight>, Unusable> {
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

fn read_tensor(name: &str, view: &TensorView<'_>, shape: &[usize]) -> Result<Weight, Finding> {
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
    let not_finite = || Finding::TensorNotFinite { name: name.to_owned() };
    if let (DType::BF16, [rows, columns]) = (dtype, shape)
        && columns.is_multiple_of(2)
    {
        let pairs: Vec<u32> =
            view.data().as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let finite = |half: u32| half & 0x7f80 != 0x7f80;
        let all = pairs.iter().all(|pair| finite(*pair) && finite(pair >> 16));
        let weight = Weight::Brain { pairs, shape: [*rows, *columns] };
        return if all { Ok(weight) } else { Err(not_finite()) };
    }
    let tensor = Tensor::from_raw_buffer(view.data(), dtype, shape, &Device::Cpu)
        .and_then(|tensor| tensor.to_dtype(DType::F32))
        .map_err(|_| Finding::TensorAbsent { name: name.to_owned() })?;
    let finite = Lent::new(&tensor).is_some_and(|lent| lent.values().iter().all(|v| v.is_finite()));
    if finite { Ok(Weight::Single(tensor)) } else { Err(not_finite()) }
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
