//! Looking at a model: its loss on public data, and what it says.
//!
//! A loss is a function of the records it is taken over. These functions are for public
//! validation sets and for the owner's machine; the enclave calls none of them on private data.

use crate::engine::{CpuEngine, EngineError};
use crate::lora::{Adapter, LoraConfig};
use crate::model::Model;
use crate::real::real;
use crate::record::{Example, Prompt, RecordError, Tokeniser};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use thiserror::Error;

/// Why an evaluation failed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No example has a token to be predicted.
    #[error("no token is labelled")]
    NoLabel,
    /// A text cannot be tokenised, or ids cannot be read as text.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Mean of `-log p` over all labelled tokens of all examples, in nats.
///
/// # Errors
/// When no token is labelled, or the examples are not of the given length.
pub fn mean_loss(
    model: &Model,
    adapter: Option<&Adapter>,
    examples: &[Example],
    positions: usize,
) -> Result<f64, EvaluateError> {
    let silent = Adapter::zeros(model.config(), LoraConfig::none());
    let adapter = adapter.unwrap_or(&silent);
    let engine = CpuEngine::new(model, adapter, positions)?;
    let (mut total, mut labels) = (0.0, 0);
    for example in examples {
        total += engine.loss(adapter.values(), example)? * real(example.labels());
        labels += example.labels();
    }
    if labels == 0 { Err(EvaluateError::NoLabel) } else { Ok(total / real(labels)) }
}

/// Logits of each id of a sequence, `ids.len()` rows of the vocabulary's width.
///
/// # Errors
/// When the sequence is longer than the model allows.
pub fn logits(
    model: &Model,
    adapter: Option<&Adapter>,
    ids: &[u32],
) -> Result<Vec<Vec<f32>>, EvaluateError> {
    let silent = Adapter::zeros(model.config(), LoraConfig::none());
    let adapter = adapter.unwrap_or(&silent);
    let positions = ids.len().max(2);
    let engine = CpuEngine::new(model, adapter, positions)?;
    let example = Example::new(ids, &[], positions);
    let rows = engine.logits(adapter.values(), &example)?;
    let rows = rows.chunks_exact(model.config().vocab).take(ids.len());
    Ok(rows.map(<[f32]>::to_vec).collect())
}

/// How the next token is chosen.
pub enum Choice {
    /// The likeliest.
    Greedy,
    /// Drawn with probabilities `softmax(logits / temperature)` from this stream.
    Sampled {
        /// Above 0; 1 leaves the model's own probabilities.
        temperature: f64,
        /// Where the draws come from.
        stream: Box<ChaCha20Rng>,
    },
}

/// What the model says after a prompt: at most `tokens` tokens, or up to the end mark.
///
/// # Errors
/// When the prompt with its reply is longer than the model allows.
pub fn generate(
    model: &Model,
    adapter: Option<&Adapter>,
    tokeniser: &Tokeniser,
    prompt: Prompt<'_>,
    tokens: usize,
    choice: &mut Choice,
) -> Result<String, EvaluateError> {
    let (mut ids, end) = tokeniser.prompt(prompt)?;
    let start = ids.len();
    let silent = Adapter::zeros(model.config(), LoraConfig::none());
    let adapter = adapter.unwrap_or(&silent);
    let positions = (start + tokens).min(model.config().max_positions);
    let engine = CpuEngine::new(model, adapter, positions)?;
    while ids.len() < positions {
        let example = Example::new(&ids, &[], positions);
        let rows = engine.logits(adapter.values(), &example)?;
        let Some(row) = rows.chunks_exact(model.config().vocab).nth(ids.len() - 1) else { break };
        let next = choice.of(row);
        if Some(next) == end || model.config().eos.contains(&next) {
            break;
        }
        ids.push(next);
    }
    Ok(tokeniser.decode(ids.get(start..).unwrap_or_default())?)
}

impl Choice {
    fn of(&mut self, logits: &[f32]) -> u32 {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let place = match self {
            Self::Greedy => logits.iter().position(|logit| *logit == top),
            Self::Sampled { temperature, stream } => {
                let weight = |logit: &f32| libm::exp(f64::from(logit - top) / *temperature);
                let sum: f64 = logits.iter().map(weight).sum();
                let unit = f64::from(stream.next_u32()) / (f64::from(u32::MAX) + 1.0); // [0, 1)
                let mut left = unit * sum;
                logits.iter().map(weight).position(|weight| {
                    left -= weight;
                    left < 0.0
                })
            }
        };
        place.and_then(|place| u32::try_from(place).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::real::index;
    use rand_core::SeedableRng;

    fn base() -> Model {
        Model::load(&golden::config(), &[&golden::weights()]).unwrap()
    }

    #[test]
    fn the_mean_is_over_tokens_not_examples() {
        let model = base();
        let short = || Example::new(&[3, 4, 5], &[false, true, false], 8);
        let long = || Example::new(&[3, 9, 8, 7, 6], &[true; 5], 8);
        let of = |examples: &[Example]| mean_loss(&model, None, examples, 8).unwrap();
        let (one, four) = (of(&[short()]), of(&[long()]));
        assert!((of(&[short(), long()]) - (one + 4.0 * four) / 5.0).abs() < 1e-6);
        assert_eq!(mean_loss(&model, None, &[Example::blank(8)], 8), Err(EvaluateError::NoLabel));
    }

    #[test]
    fn gives_logits_for_each_id() {
        let model = base();
        let rows = logits(&model, None, &[3, 4, 5]).unwrap();
        assert_eq!((rows.len(), rows[0].len()), (3, golden::VOCAB));
        let one = logits(&model, None, &[3]).unwrap();
        assert_eq!(one.len(), 1);
        assert!(one[0].iter().zip(&rows[0]).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn draws_with_the_probabilities_of_the_model() {
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln()];
        assert_eq!(Choice::Greedy.of(&logits), 2);
        let stream = Box::new(ChaCha20Rng::from_seed([1; 32]));
        let mut choice = Choice::Sampled { temperature: 1.0, stream };
        let mut counts = [0_u32; 3];
        (0..8_000).for_each(|_| counts[index(choice.of(&logits))] += 1);
        // Means 1000, 2000, 5000.
        assert!((counts[0].abs_diff(1_000)) < 150 && counts[1].abs_diff(2_000) < 200, "{counts:?}");
    }

    #[test]
    fn refuses_a_sequence_longer_than_the_model() {
        let found = logits(&base(), None, &[3; 33]).unwrap_err();
        assert_eq!(
            found,
            EvaluateError::Engine(EngineError::Sequence { observed: 33, required: 32 })
        );
    }
}
