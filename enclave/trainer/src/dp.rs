//! Differential privacy: who is drawn, what is clipped, and which noise is added.
//!
//! Everything random in step `t` comes from one key, made of the attempt's secret, the manifest,
//! the engine's identity and the state at `t` ([`key`]). The batch and the noise are two streams
//! under that key, so neither can repeat without the other.

mod clipping;
pub mod key;
pub mod mechanism;
pub mod noise;
pub mod sampler;

pub use key::{AttemptSecret, State, Streams};
pub use mechanism::{ClippedSum, GaussianMechanism, MechanismError, PrivateGradient};
pub use sampler::Batch;

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

/// A uniform integer below `bound`, without bias. 0 for a bound of 0.
fn below(stream: &mut ChaCha20Rng, bound: u64) -> u64 {
    let Some(reject_from) = u64::MAX.checked_rem(bound).map(|rest| u64::MAX - rest) else {
        return 0;
    };
    loop {
        let draw = stream.next_u64();
        if draw < reject_from {
            return draw % bound;
        }
    }
}
