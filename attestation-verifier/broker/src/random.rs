//! Randomness: 32 bytes from the operating system, stretched by ChaCha20.
//!
//! The operating system may refuse once, at the beginning, where the caller can still say so; what
//! follows cannot fail.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

/// The operating system gives no randomness.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the operating system gives no randomness")]
pub struct NoRandomness;

/// A fresh generator, seeded by the operating system.
///
/// # Errors
/// [`NoRandomness`].
pub fn fresh() -> Result<ChaCha20Rng, NoRandomness> {
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(seed.as_mut_slice()).map_err(|_| NoRandomness)?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

#[cfg(test)]
mod tests {
    use rand_core::Rng;

    use super::*;

    #[test]
    fn never_gives_the_same_stream_twice() {
        let draw = || fresh().unwrap().next_u64();
        assert_ne!(draw(), draw());
    }
}
