//! The output gate: the only maker of what may leave, and a closed list.
//!
//! An adapter passes when its files, read back from their bytes, hold exactly the tensors the
//! manifest lists: LoRA parameters, of type f32, of those shapes, finite, and no other.

use std::collections::{BTreeMap, BTreeSet};

use measurement::cbor::{self, Blob};
use measurement::manifest::Manifest;
use measurement::receipt::{SIMULATED, Subject};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use trainer::lora::Adapter;

use crate::halt::Halt;

/// PEFT's file of settings.
pub const CONFIG: &str = "adapter_config.json";
/// PEFT's file of tensors.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// The most bytes a package of an adapter has.
pub const MAX_PACKAGE: usize = 1 << 30;

/// The adapter's files as they are sealed together.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// `adapter_config.json`.
    pub config: Blob,
    /// `adapter_model.safetensors`.
    pub weights: Blob,
}

/// An adapter that may leave.
pub struct Gated(Package);

impl Gated {
    /// Lets an adapter pass, or halts the job.
    ///
    /// # Errors
    /// [`Halt::Training`] when the files hold anything but what the manifest lists.
    pub fn adapter(manifest: &Manifest, adapter: &Adapter, simulated: bool) -> Result<Self, Halt> {
        let mut metadata = BTreeMap::from([
            ("cloister.job".to_owned(), manifest.job.to_string()),
            ("cloister.manifest".to_owned(), manifest.digest().to_string()),
        ]);
        if simulated {
            metadata.insert("cloister.evidence".to_owned(), SIMULATED.to_owned());
        }
        let files = adapter.to_peft(&manifest.base.name, &metadata);
        let names = metadata.keys().map(String::as_str).chain(["format"]);
        if !listed(manifest, &files.weights, &names.collect()) {
            return Err(Halt::Training);
        }
        Ok(Self(Package { config: Blob(files.config), weights: Blob(files.weights) }))
    }

    /// The files, as the receipt names them.
    pub fn subjects(&self) -> Vec<Subject> {
        vec![Subject::new(CONFIG, &self.0.config.0), Subject::new(WEIGHTS, &self.0.weights.0)]
    }

    /// The bytes to seal.
    pub fn package(&self) -> Vec<u8> {
        cbor::encode(&self.0)
    }
}

/// Whether a safetensors file holds the manifest's tensors and the given metadata, and no more.
fn listed(manifest: &Manifest, bytes: &[u8], metadata: &BTreeSet<&str>) -> bool {
    let Ok((_, header)) = SafeTensors::read_metadata(bytes) else {
        return false;
    };
    let known = |names: &std::collections::HashMap<String, String>| {
        names.len() == metadata.len() && names.keys().all(|name| metadata.contains(name.as_str()))
    };
    let Ok(file) = SafeTensors::deserialize(bytes) else {
        return false;
    };
    let tensors = &manifest.training.adapter.tensors;
    let each = tensors.iter().all(|listed| {
        file.tensor(&listed.name).is_ok_and(|tensor| {
            let shape: Vec<_> = listed.shape.iter().map(|n| usize::try_from(*n).ok()).collect();
            let (values, rest) = tensor.data().as_chunks::<4>();
            tensor.dtype() == Dtype::F32
                && tensor.shape().iter().map(|n| Some(*n)).eq(shape)
                && rest.is_empty()
                && values.iter().all(|value| f32::from_le_bytes(*value).is_finite())
        })
    });
    header.metadata().as_ref().is_some_and(known) && each && file.len() == tensors.len()
}
