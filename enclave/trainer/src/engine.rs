//! Engines: who computes the gradient of one example's loss with respect to the adapter.
//!
//! [`CpuEngine`] is the one that trains. [`ReferenceEngine`] computes the same through candle's
//! autograd and is there to be compared with.

mod cpu;
mod kernel;
mod reference;

pub use cpu::{CpuEngine, Session};
pub use kernel::Kernel;
pub use reference::ReferenceEngine;

use crate::record::Example;
use thiserror::Error;

/// The gradient of one example's mean loss.
pub trait Engine: Sync {
    /// Everything that could change a bit of a gradient: build, kernels, shapes of accumulation.
    /// Two runs with equal identities give equal gradients, bit for bit. The step key is derived
    /// from it.
    fn identity(&self) -> &str;

    /// Writes the gradient of the example's loss, the mean over its own labelled tokens, with
    /// respect to the adapter's parameters. An example without labels has gradient zero.
    ///
    /// The work done depends on the sequence length alone, not on the example.
    ///
    /// # Errors
    /// When a length is not the engine's.
    fn gradient(
        &self,
        adapter: &[f32],
        example: &Example,
        gradient: &mut [f32],
    ) -> Result<(), EngineError>;
}

/// `c += left * right` as an engine computes it, to be timed: rows of `depth`, rows of what the
/// columns of `c` are, and rows of as many.
pub fn multiply(kernel: Kernel, left: &[f32], right: &[f32], depth: usize, c: &mut [f32]) {
    let columns = right.len().checked_div(depth).unwrap_or(0);
    let (left, right) = (kernel::View::new(left, depth), kernel::View::new(right, columns));
    kernel::product(kernel, 1.0, left, right, kernel::Target::new(c, columns));
}

/// Why an engine cannot be made or run. Says nothing of any record.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum EngineError {
    /// The adapter has another number of parameters than its layout.
    #[error("adapter has {observed} parameters, required are {required}")]
    Adapter {
        /// Parameters given.
        observed: usize,
        /// Parameters of the layout.
        required: usize,
    },
    /// The tensor library refused an operation.
    #[error("the tensor library refused an operation")]
    Backend,
    /// The sequence is longer than the model's.
    #[error("sequence length is {observed}, the model allows 2 to {required}")]
    Sequence {
        /// Length asked for.
        observed: usize,
        /// Length of the model.
        required: usize,
    },
    /// A weight is not contiguous f32 on the CPU.
    #[error("a weight is not contiguous f32 on the cpu")]
    Weights,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden::{self, Folder, noise};
    use crate::lora::{Adapter, LoraConfig};
    use crate::model::{Model, graph};
    use candle_core::{Device, Tensor};
    use safetensors::SafeTensors;

    struct Expected {
        bytes: Vec<u8>,
        json: serde_json::Value,
    }

    impl Expected {
        fn of(folder: &Folder) -> Self {
            Self { bytes: folder.read("expected.safetensors"), json: folder.json("expected.json") }
        }

        fn tensor(&self, name: &str) -> Vec<f32> {
            read(&self.bytes, name)
        }

        fn ids(&self, i: usize) -> Vec<u32> {
            serde_json::from_value(self.json["input_ids"][i].clone()).unwrap()
        }

        fn example(&self, i: usize) -> Example {
            let ids = self.ids(i);
            let prompt = usize::try_from(self.json["prompt_lens"][i].as_u64().unwrap()).unwrap();
            let learned: Vec<bool> = (0..ids.len()).map(|t| t >= prompt).collect();
            Example::new(&ids, &learned, POSITIONS)
        }

        /// A named family of tensors in the order of the adapter's flat vector.
        fn flat(&self, adapter: &Adapter, family: &str, row: Option<usize>) -> Vec<f32> {
            let part = |(name, [rows, columns], _): (String, [usize; 2], _)| {
                let all = self.tensor(&format!("{family}.{name}"));
                let size = rows * columns;
                row.map_or(all.clone(), |row| all[row * size..(row + 1) * size].to_vec())
            };
            adapter.tensors().flat_map(part).collect()
        }
    }

    const POSITIONS: usize = 24;

    fn read(bytes: &[u8], name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let view = file.tensor(name).unwrap();
        let data = view.data();
        match view.dtype() {
            safetensors::Dtype::F32 => {
                data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            }
            safetensors::Dtype::F64 => {
                data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn relative(found: &[f32], expected: &[f32]) -> f64 {
        assert_eq!(found.len(), expected.len());
        let square = |x: f64| x * x;
        let difference: f64 =
            found.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
        let size: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
        (difference / size).sqrt()
    }

    fn norm(values: &[f32]) -> f64 {
        values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt()
    }

    fn trained(name: &str) -> Option<(Model, Adapter, Expected)> {
        let folder = golden::folder(name)?;
        let model =
            Model::load(&folder.read("config.json"), &[&folder.read("model.safetensors")]).unwrap();
        let adapter = Adapter::from_peft(
            model.config(),
            &folder.read("adapter/adapter_config.json"),
            &folder.read("adapter/adapter_model.safetensors"),
        )
        .unwrap();
        Some((model, adapter, Expected::of(&folder)))
    }

    fn agrees_with_transformers(name: &str) {
        let Some((model, adapter, expected)) = trained(name) else { return };
        let silent = Adapter::zeros(model.config(), adapter.config().clone());
        let cpu = CpuEngine::new(&model, &adapter, POSITIONS).unwrap();
        let losses: Vec<f64> = serde_json::from_value(expected.json["losses"].clone()).unwrap();
        let norms: Vec<f64> = serde_json::from_value(expected.json["grad_norms"].clone()).unwrap();
        for i in 0..6 {
            let example = expected.example(i);
            for (adapter, family) in [(&silent, "base_logits"), (&adapter, "lora_logits")] {
                let logits = cpu.logits(adapter.values(), &example).unwrap();
                for (found, expected) in
                    logits.iter().zip(expected.tensor(&format!("{family}.{i}")))
                {
                    assert!(
                        (found - expected).abs() < 5e-5,
                        "{name} {family} {i}: {found} {expected}"
                    );
                }
            }
            assert!((cpu.loss(adapter.values(), &example).unwrap() - losses[i]).abs() < 2e-6);

            let reference = ReferenceEngine::new(&model, &adapter);
            let gradient_expected = expected.flat(&adapter, "grad", Some(i));
            for engine in [&cpu as &dyn Engine, &reference] {
                let mut gradient = vec![f32::NAN; adapter.values().len()];
                engine.gradient(adapter.values(), &example, &mut gradient).unwrap();
                let error = relative(&gradient, &gradient_expected);
                assert!(error < 2e-5, "{name} {} example {i}: {error}", engine.identity());
                assert!((norm(&gradient) - norms[i]).abs() < 2e-5 * norms[i]);
            }
        }
    }

    #[test]
    fn agrees_with_transformers_on_llama() {
        agrees_with_transformers("llama");
    }

    #[test]
    fn agrees_with_transformers_on_mistral() {
        agrees_with_transformers("mistral");
    }

    #[test]
    fn agrees_with_transformers_on_gpt2() {
        agrees_with_transformers("gpt2");
    }

    #[test]
    fn agrees_with_transformers_on_gptj() {
        agrees_with_transformers("gptj");
    }

    #[test]
    fn agrees_with_transformers_on_gpt_neox() {
        agrees_with_transformers("gpt_neox");
    }

    #[test]
    fn reads_sharded_bf16() {
        let Some(folder) = golden::folder("llama_sharded_bf16") else { return };
        let Some(plain) = golden::folder("llama") else { return };
        let shards = [1, 2].map(|n| folder.read(&format!("model-0000{n}-of-00002.safetensors")));
        let model = Model::load(&folder.read("config.json"), &[&shards[0], &shards[1]]).unwrap();
        let silent = Adapter::zeros(model.config(), LoraConfig::everywhere(1, 1.0).unwrap());
        let cpu = CpuEngine::new(&model, &silent, POSITIONS).unwrap();
        let (bytes, ids) = (folder.read("expected.safetensors"), Expected::of(&plain));
        for i in 0..6 {
            let logits = cpu.logits(silent.values(), &ids.example(i)).unwrap();
            for (found, expected) in logits.iter().zip(read(&bytes, &format!("base_logits.{i}"))) {
                assert!((found - expected).abs() < 5e-5);
            }
        }
    }

    /// The golden model has biases everywhere and shares one key head among two query heads.
    fn biased() -> (Model, Adapter, Example) {
        let model = Model::load(&golden::config(), &[&golden::weights()]).unwrap();
        let mut adapter = Adapter::zeros(model.config(), LoraConfig::everywhere(3, 6.0).unwrap());
        let values = noise(9, adapter.values().len(), 0.3);
        adapter.values_mut().copy_from_slice(&values);
        let ids = [1, 5, 9, 23, 4, 4, 17, 2];
        let example = Example::new(&ids, &[false, false, false, true, true, true, true, true], 11);
        (model, adapter, example)
    }

    #[test]
    fn every_adapter_tensor_gets_a_gradient() {
        let (model, adapter, example) = biased();
        let cpu = CpuEngine::new(&model, &adapter, 11).unwrap();
        for engine in [&cpu as &dyn Engine, &ReferenceEngine::new(&model, &adapter)] {
            let mut gradient = vec![0.0; adapter.values().len()];
            engine.gradient(adapter.values(), &example, &mut gradient).unwrap();
            for (name, _, place) in adapter.tensors() {
                assert!(norm(&gradient[place]) > 1e-4, "{name} {}", engine.identity());
            }
        }
    }

    #[test]
    fn both_engines_agree_with_biases_and_shared_keys() {
        let (model, adapter, example) = biased();
        let cpu = CpuEngine::new(&model, &adapter, 11).unwrap();
        let mut gradients =
            [&cpu as &dyn Engine, &ReferenceEngine::new(&model, &adapter)].map(|engine| {
                let mut gradient = vec![0.0; adapter.values().len()];
                engine.gradient(adapter.values(), &example, &mut gradient).unwrap();
                gradient
            });
        let reference = std::mem::take(&mut gradients[1]);
        assert!(relative(&gradients[0], &reference) < 1e-5);
    }

    #[test]
    fn gradients_are_the_slopes_of_the_loss() {
        let (model, mut adapter, example) = biased();
        let cpu = CpuEngine::new(&model, &adapter, 11).unwrap();
        let mut gradient = vec![0.0; adapter.values().len()];
        cpu.gradient(adapter.values(), &example, &mut gradient).unwrap();
        for at in (0..gradient.len()).step_by(37) {
            let value = adapter.values()[at];
            let mut loss = |shift: f32| {
                adapter.values_mut()[at] = value + shift;
                cpu.loss(adapter.values(), &example).unwrap()
            };
            let slope = (loss(5e-3) - loss(-5e-3)) / 1e-2;
            adapter.values_mut()[at] = value;
            assert!(
                (slope - f64::from(gradient[at])).abs() < 2e-3,
                "{at}: {slope} {}",
                gradient[at]
            );
        }
    }

    /// A small model of a family, a random adapter everywhere, an example.
    fn of_family(config: &[u8]) -> (Model, Adapter, Example) {
        let weights = golden::safetensors(&golden::random(config));
        let model = Model::load(config, &[&weights]).unwrap();
        let mut adapter = Adapter::zeros(model.config(), LoraConfig::everywhere(3, 6.0).unwrap());
        let values = noise(9, adapter.values().len(), 0.3);
        adapter.values_mut().copy_from_slice(&values);
        let ids: Vec<u32> = (0..21).map(|i| 3 + i * 7 % 20).collect();
        let example = Example::new(&ids, &[true; 20], 23);
        (model, adapter, example)
    }

    #[test]
    fn both_engines_agree_on_every_family() {
        for (family, config) in golden::families() {
            let (model, adapter, example) = of_family(&config);
            let reference = ReferenceEngine::new(&model, &adapter);
            let mut expected = vec![0.0; adapter.values().len()];
            reference.gradient(adapter.values(), &example, &mut expected).unwrap();
            for kernel in Kernel::all() {
                let cpu = CpuEngine::with_kernel(&model, &adapter, 23, kernel).unwrap();
                let mut found = vec![f32::NAN; expected.len()];
                cpu.gradient(adapter.values(), &example, &mut found).unwrap();
                let error = relative(&found, &expected);
                assert!(error < 2e-5, "{family} {}: {error}", cpu.identity());
                for (name, _, place) in adapter.tensors() {
                    assert!(norm(&found[place]) > 1e-5, "{family} {name}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_the_slopes_of_the_loss_on_every_family() {
        for (family, config) in golden::families() {
            let (model, mut adapter, example) = of_family(&config);
            let cpu = CpuEngine::new(&model, &adapter, 23).unwrap();
            let mut gradient = vec![0.0; adapter.values().len()];
            cpu.gradient(adapter.values(), &example, &mut gradient).unwrap();
            // Along the gradient of one tensor after the other, the loss climbs by its norm.
            let places: Vec<_> = adapter.tensors().map(|(name, _, place)| (name, place)).collect();
            let start = adapter.values().to_vec();
            for (name, place) in places {
                let along = &gradient[place.clone()];
                let size = norm(along);
                let mut loss = |shift: f64| {
                    adapter.values_mut().copy_from_slice(&start);
                    for (value, g) in adapter.values_mut()[place.clone()].iter_mut().zip(along) {
                        *value += (shift * f64::from(*g) / size) as f32;
                    }
                    cpu.loss(adapter.values(), &example).unwrap()
                };
                let mut slope = |h: f64| (loss(h) - loss(-h)) / (2.0 * h);
                let slope = (4.0 * slope(4e-3) - slope(8e-3)) / 3.0; // curvature cancels
                assert!(
                    (slope - size).abs() < 2e-2 * size + 1e-4,
                    "{family} {name}: {slope} {size}"
                );
            }
        }
    }

    #[test]
    fn weights_in_bf16_are_multiplied_as_they_are_or_with_what_was_rounded() {
        for (family, config) in golden::families() {
            let (_, adapter, example) = of_family(&config);
            let weights = golden::in_bf16(&golden::random(&config));
            let model = Model::load(&config, &[&weights]).unwrap();
            let reference = ReferenceEngine::new(&model, &adapter);
            let mut expected = vec![0.0; adapter.values().len()];
            reference.gradient(adapter.values(), &example, &mut expected).unwrap();
            let kernels = Kernel::all().into_iter().map(|kernel| (kernel, 2e-5));
            // Eight bits of each activation are left, and these weights are far from small.
            for (kernel, tolerance) in kernels.chain(Kernel::rounding().map(|k| (k, 0.15))) {
                let cpu = CpuEngine::with_kernel(&model, &adapter, 23, kernel).unwrap();
                let mut found = vec![f32::NAN; expected.len()];
                cpu.gradient(adapter.values(), &example, &mut found).unwrap();
                let error = relative(&found, &expected);
                assert!(error < tolerance, "{family} {}: {error}", cpu.identity());
            }
        }
    }

    #[test]
    fn a_session_continues_what_it_was_given() {
        for (family, config) in golden::families() {
            let (model, adapter, example) = of_family(&config);
            let cpu = CpuEngine::new(&model, &adapter, 23).unwrap();
            let rows = cpu.logits(adapter.values(), &example).unwrap();
            let mut session = cpu.session(adapter.values()).unwrap();
            let mut end = 0;
            for count in [7, 1, 1, 9, 1] {
                let found = session.feed(&example.ids()[end..end + count]).unwrap();
                end += count;
                let row = &rows[(end - 1) * golden::VOCAB..end * golden::VOCAB];
                assert!(relative(&found, row) < 1e-5, "{family} {end}");
            }
            assert_eq!(session.feed(&[]), Ok(Vec::new()));
            assert_eq!(
                session.feed(&[3; 5]),
                Err(EngineError::Sequence { observed: 24, required: 23 })
            );
            assert!(cpu.session(&[]).is_err());
        }
    }

    #[test]
    fn equal_kernels_give_equal_bits() {
        for (family, config) in golden::families() {
            let (model, adapter, example) = of_family(&config);
            for kernel in Kernel::all() {
                let run = || {
                    let cpu = CpuEngine::with_kernel(&model, &adapter, 23, kernel).unwrap();
                    let mut found = vec![0.0; adapter.values().len()];
                    cpu.gradient(adapter.values(), &example, &mut found).unwrap();
                    (cpu.identity().to_owned(), found)
                };
                assert_eq!(run(), run(), "{family}");
                assert!(run().0.ends_with(kernel.name()));
            }
        }
    }

    #[test]
    fn an_example_without_labels_has_gradient_zero() {
        let (model, adapter, _) = biased();
        let cpu = CpuEngine::new(&model, &adapter, 11).unwrap();
        let unlabelled = Example::new(&[1, 5, 9], &[false; 3], 11);
        for example in [Example::blank(11), unlabelled] {
            for engine in [&cpu as &dyn Engine, &ReferenceEngine::new(&model, &adapter)] {
                let mut gradient = vec![1.0; adapter.values().len()];
                engine.gradient(adapter.values(), &example, &mut gradient).unwrap();
                assert!(gradient.iter().all(|g| *g == 0.0));
            }
        }
    }

    #[test]
    fn padding_changes_nothing() {
        let (model, adapter, example) = biased();
        let ids: Vec<u32> = example.ids()[..8].to_vec();
        let learned = [false, false, false, true, true, true, true, true];
        let gradient = |positions| {
            let cpu = CpuEngine::new(&model, &adapter, positions).unwrap();
            let mut gradient = vec![0.0; adapter.values().len()];
            let example = Example::new(&ids, &learned, positions);
            cpu.gradient(adapter.values(), &example, &mut gradient).unwrap();
            gradient
        };
        assert!(relative(&gradient(8), &gradient(24)) < 1e-6);
        assert_eq!(gradient(24), gradient(24));
    }

    #[test]
    fn both_forward_passes_agree() {
        let (model, adapter, example) = biased();
        let cpu = CpuEngine::new(&model, &adapter, 11).unwrap();
        let silent = vec![0.0; adapter.values().len()];
        let ids = Tensor::new(example.ids(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let oracle = graph::logits(model.config(), model.weights(), &|_| None, &ids).unwrap();
        let oracle = oracle.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(relative(&cpu.logits(&silent, &example).unwrap(), &oracle) < 1e-6);
    }

    #[test]
    fn refuses_lengths_that_are_not_its_own() {
        let (model, adapter, example) = biased();
        let cpu = CpuEngine::new(&model, &adapter, 12).unwrap();
        let mut gradient = vec![0.0; adapter.values().len()];
        assert_eq!(
            cpu.gradient(adapter.values(), &example, &mut gradient),
            Err(EngineError::Sequence { observed: 11, required: 12 })
        );
        assert_eq!(
            cpu.gradient(&[], &Example::blank(12), &mut gradient),
            Err(EngineError::Adapter { observed: 0, required: adapter.values().len() })
        );
        assert_eq!(
            CpuEngine::new(&model, &adapter, 33).err(),
            Some(EngineError::Sequence { observed: 33, required: 32 })
        );
    }
}
