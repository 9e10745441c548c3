//! What the tests start from: keys anyone can write down, and a source that repeats itself.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use zeroize::Zeroizing;

use crate::key::DataKey;

/// The key whose 32 bytes are all `byte`.
pub(crate) fn key(byte: u8) -> DataKey {
    DataKey::from_secret(Zeroizing::new([byte; 32]))
}

/// A source of the same bytes every time.
pub(crate) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}
