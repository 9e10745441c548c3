//! Frozen weights: safetensors bytes to f32 tensors, with every mismatch reported.

use super::{Config, Finding, Projection, Unusable};
use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor};
use candle_nn::{Embedding, Linear};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::{BTreeMap, BTreeSet};

/// All weights of a model, as contiguous f32 tensors on the CPU.
pub(crate) struct Weights {
    pub(crate) embedding: Embedding, // (vocab, hidden)
    pub(crate) layers: Vec<Block>,
    pub(crate) norm: Tensor, // (hidden)
    pub(crate) head: Linear, // (vocab, hidden); the embedding itself where tied
}

/// The weights of one block.
pub(crate) struct Block {
    pub(crate) input_norm: Tensor, // (hidden)
    pub(crate) post_norm: Tensor,  // (hidden)
    linears: Vec<(Projection, Linear)>,
}

impl Block {
    pub(crate) fn linears(&self) -> impl Iterator<Item = (Projection, &Linear)> {
        self.linears.iter().map(|(projection, linear)| (*projection, linear))
    }
}

impl Weights {
    pub(crate) fn read(config: &Config, shards: &[&[u8]]) -> Result<Self, Unusable> {
        let required = config.tensors().into_iter().collect();
        let mut tensors = read_tensors(&required, shards, |name| is_legacy(config, name))?;
        Self::assemble(config, &mut |name| {
            let absent = || Finding::TensorAbsent { name: name.to_owned() }.into();
            tensors.remove(name).ok_or_else(absent)
        })
    }

    /// Puts tensors in their places; `take` is asked once for each name of
    /// [`Config::tensors`].
    pub(crate) fn assemble<E>(
        config: &Config,
        take: &mut impl FnMut(&str) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let mut linears = Vec::with_capacity(Projection::ALL.len());
            for projection in Projection::ALL {
                let path = projection.path(layer);
                let bias = config.has_bias(projection).then(|| take(&format!("{path}.bias")));
                let weight = take(&format!("{path}.weight"))?; // (outputs, inputs)
                let linear = Linear::new(weight, bias.transpose()?);
                linears.push((projection, linear));
            }
            layers.push(Block {
                input_norm: take(&format!("model.layers.{layer}.input_layernorm.weight"))?,
                post_norm: take(&format!("model.layers.{layer}.post_attention_layernorm.weight"))?,
                linears,
            });
        }
        let words = take("model.embed_tokens.weight")?;
        let head = if config.tied { words.clone() } else { take("lm_head.weight")? };
        Ok(Self {
            embedding: Embedding::new(words, config.hidden),
            layers,
            norm: take("model.norm.weight")?,
            head: Linear::new(head, None),
        })
    }
}

/// The tensors named in `required`, in their shapes, from one or more safetensors files.
///
/// # Errors
/// Every tensor that is absent, unexpected (unless `ignored`), twice there, of another shape or
/// type, or not finite; every file that is not safetensors.
pub(crate) fn read_tensors(
    required: &BTreeMap<String, Vec<usize>>,
    shards: &[&[u8]],
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
            if views.insert(name.to_owned(), view).is_some() {
                findings.push(Finding::TensorDuplicate { name: name.to_owned() });
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
    name.ends_with(".rotary_emb.inv_freq") || (config.tied && name == "lm_head.weight")
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
