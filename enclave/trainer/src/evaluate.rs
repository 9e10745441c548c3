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

/// `log p` of each id but the first, given all before it, in nats.
///
/// # Errors
/// When the sequence is longer than the model allows.
pub fn log_probabilities(
    model: &Model,
    adapter: Option<&Adapter>,
    ids: &[u32],
) -> Result<Vec<f64>, EvaluateError> {
    let rows = logits(model, adapter, ids)?;
    let of = |(row, id): (&Vec<f32>, &u32)| {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|logit| libm::exp(f64::from(logit - top))).sum();
        let logit = row.get(crate::real::index(*id)).copied().unwrap_or(f32::NEG_INFINITY);
        f64::from(logit - top) - libm::log(sum)
    };
    Ok(rows.iter().zip(ids.iter().skip(1)).map(of).collect())
}

/// How the next token is chosen.
pub enum Choice {
    /// The likeliest.
    Greedy,
    /// Drawn with probabilities `softmax(logits / temperature)` from this stream, among the
    /// likeliest only where one of the two limits is set.
    Sampled {
        /// Above 0; 1 leaves the model's own probabilities.
        temperature: f64,
        /// At most so many tokens are drawn from.
        top_k: Option<usize>,
        /// Only the fewest tokens are drawn from that have this probability together.
        top_p: Option<f64>,
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
    let mut session = engine.session(adapter.values())?;
    let mut row = session.feed(&ids)?;
    while ids.len() < positions && !row.is_empty() {
        let next = choice.of(&row);
        if Some(next) == end || model.config().eos.contains(&next) {
            break;
        }
        ids.push(next);
        if ids.len() < positions {
            row = session.feed(&[next])?;
        }
    }
    Ok(tokeniser.decode(ids.get(start..).unwrap_or_default())?)
}

impl Choice {
    fn of(&mut self, logits: &[f32]) -> u32 {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let place = match self {
            Self::Greedy => logits.iter().position(|logit| *logit == top),
            Self::Sampled { temperature, top_k, top_p, stream } => {
                let weight = |(place, logit): (usize, &f32)| {
                    (place, libm::exp(f64::from(logit - top) / *temperature))
                };
                let mut weights: Vec<_> = logits.iter().enumerate().map(weight).collect();
                if top_k.is_some() || top_p.is_some() {
                    keep_likeliest(&mut weights, *top_k, *top_p);
                }
                let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
                let unit = f64::from(stream.next_u32()) / (f64::from(u32::MAX) + 1.0); // [0, 1)
                let mut left = unit * sum;
                let chosen = weights.iter().find(|(_, weight)| {
                    left -= weight;
                    left < 0.0
                });
                chosen.map(|(place, _)| *place)
            }
        };
        place.and_then(|place| u32::try_from(place).ok()).unwrap_or(0)
    }
}

/// The likeliest first, and no more of them than both limits allow; at least one stays.
fn keep_likeliest(weights: &mut Vec<(usize, f64)>, top_k: Option<usize>, top_p: Option<f64>) {
    weights.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    weights.truncate(top_k.unwrap_or(usize::MAX).max(1));
    let Some(top_p) = top_p else { return };
    let enough = top_p * weights.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut sum = 0.0;
    let kept = weights.iter().take_while(|(_, weight)| {
        let go_on = sum < enough;
        sum += weight;
        go_on
    });
    let kept = kept.count().max(1);
    weights.truncate(kept);
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
        let mut choice = Choice::Sampled { temperature: 1.0, top_k: None, top_p: None, stream };
        let mut counts = [0_u32; 3];
        (0..8_000).for_each(|_| counts[index(choice.of(&logits))] += 1);
        // Means 1000, 2000, 5000.
        assert!((counts[0].abs_diff(1_000)) < 150 && counts[1].abs_diff(2_000) < 200, "{counts:?}");
    }

    #[test]
    fn draws_among_the_likeliest_only() {
        let logits = [1.0_f32.ln(), 2.0_f32.ln(), 5.0_f32.ln()];
        let drawn = |top_k, top_p| {
            let stream = Box::new(ChaCha20Rng::from_seed([1; 32]));
            let mut choice = Choice::Sampled { temperature: 1.0, top_k, top_p, stream };
            (0..200).map(|_| choice.of(&logits)).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(drawn(None, None).len(), 3);
        assert_eq!(drawn(Some(2), None), [1, 2].into());
        assert_eq!(drawn(Some(1), None), [2].into());
        assert_eq!(drawn(Some(0), None), [2].into());
        assert_eq!(drawn(None, Some(0.6)), [2].into());
        assert_eq!(drawn(None, Some(0.7)), [1, 2].into());
        assert_eq!(drawn(None, Some(1.0)).len(), 3);
        assert_eq!(drawn(Some(2), Some(0.9)), [1, 2].into());
    }

    #[test]
    fn log_probabilities_are_the_loss_token_by_token() {
        let model = base();
        let ids = [3, 9, 8, 7, 6];
        let found = log_probabilities(&model, None, &ids).unwrap();
        let loss = mean_loss(&model, None, &[Example::new(&ids, &[true; 5], 5)], 5).unwrap();
        assert_eq!(found.len(), 4);
        assert!((found.iter().sum::<f64>() / 4.0 + loss).abs() < 1e-6);
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
