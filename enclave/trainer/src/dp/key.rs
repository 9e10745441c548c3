//! The key of a step.
//!
//! ```text
//! root  = HMAC-SHA-512(secret, frame("cloister/trainer/step-key/v1", manifest, engine, state))
//! batch = HMAC-SHA-512(root, frame("cloister/trainer/batch/v1"))[..32]
//! noise = HMAC-SHA-512(root, frame("cloister/trainer/noise/v1"))[..32]
//!         ChaCha20's nonce i for the i-th block of coordinates
//! frame = each part as u64 length, big-endian, and its bytes
//! ```
//!
//! The argument that this is safe to replay is in the crate's README.

use measurement::digest::{Digest, sha384, sha512};
use measurement::manifest::Manifest;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use zeroize::Zeroizing;

const STEP: &[u8] = b"cloister/trainer/step-key/v1";
const BATCH: &[u8] = b"cloister/trainer/batch/v1";
const NOISE: &[u8] = b"cloister/trainer/noise/v1";
const STATE: &[u8] = b"cloister/trainer/state/v2";
const ADAPTER: &[u8] = b"cloister/trainer/adapter-init/v1";

/// What one attempt at a job must not share with any other: 32 bytes from the operating system,
/// drawn in the enclave when the attempt begins. Not `Debug`, not `Clone`, gone on drop.
pub struct AttemptSecret(Zeroizing<[u8; 32]>);

impl AttemptSecret {
    /// Takes 32 bytes fresh from the operating system's generator, or those of a sealed
    /// checkpoint of the same attempt. Never anything a custodian or owner could know.
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// Lends the secret to `f` and to nothing after it.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        f(&self.0)
    }
}

/// Names the digest of a training state.
pub enum State {}

/// The digest of all that training carries from step to step: parameters, both moments, and the
/// clipping norm.
pub fn state_digest(
    step: u32,
    norm: f64,
    adapter: &[f32],
    first: &[f32],
    second: &[f32],
) -> Digest<State> {
    let part = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        sha384(&bytes)
    };
    let parts = [part(adapter), part(first), part(second)];
    let [adapter, first, second] = &parts;
    let norm = norm.to_bits().to_be_bytes();
    Digest::of(&frame(&[STATE, &step.to_be_bytes(), &norm, adapter, first, second]))
}

/// The public seed of the adapter's initial values.
pub fn adapter_seed(manifest: &Digest<Manifest>) -> [u8; 32] {
    *half(&sha512(&frame(&[ADAPTER, manifest.as_bytes()])))
}

/// Both streams of one step. Made together, spent together.
pub struct Streams {
    /// Decides who is in the batch.
    pub batch: BatchStream,
    /// Becomes noise.
    pub noise: NoiseStream,
}

/// Decides who is in the batch, and nothing else.
pub struct BatchStream(pub(crate) ChaCha20Rng);

/// Becomes noise, and nothing else.
pub struct NoiseStream(pub(crate) ChaCha20Rng);

impl NoiseStream {
    /// The stream of one block of coordinates; no two blocks share one.
    pub(crate) fn block(&self, block: u64) -> ChaCha20Rng {
        let mut stream = self.0.clone();
        stream.set_stream(block);
        stream
    }
}

impl Streams {
    /// The streams of the step that begins in `state`.
    pub fn derive(
        secret: &AttemptSecret,
        manifest: &Digest<Manifest>,
        engine: &str,
        state: &Digest<State>,
    ) -> Self {
        let context = frame(&[STEP, manifest.as_bytes(), engine.as_bytes(), state.as_bytes()]);
        let root = secret.expose(|secret| hmac(secret, &context));
        let stream = |label| {
            let key = hmac(&*root, &frame(&[label]));
            ChaCha20Rng::from_seed(*half(&key))
        };
        Self { batch: BatchStream(stream(BATCH)), noise: NoiseStream(stream(NOISE)) }
    }
}

/// Length and bytes of each part, so that no two lists of parts share an encoding.
fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let mut framed = Vec::new();
    for part in parts {
        // A slice's length is below 2^63.
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(part);
    }
    framed
}

const BLOCK: usize = 128;

/// HMAC-SHA-512 (RFC 2104) for keys no longer than a block, which all keys here are.
fn hmac(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 64]> {
    let padded = |mask: u8| {
        let mut block = Zeroizing::new(vec![mask; BLOCK]);
        block.iter_mut().zip(key).for_each(|(block, key)| *block ^= key);
        block
    };
    let mut inner = padded(0x36);
    inner.extend_from_slice(message);
    let inner = Zeroizing::new(sha512(&inner));
    let mut outer = padded(0x5c);
    outer.extend_from_slice(&*inner);
    Zeroizing::new(sha512(&outer))
}

fn half(bytes: &[u8; 64]) -> &[u8; 32] {
    bytes.first_chunk().unwrap_or(&[0; 32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::Rng;
    use std::collections::BTreeSet;

    static_assertions::assert_not_impl_any!(AttemptSecret: core::fmt::Debug, Clone, PartialEq);

    fn secret(byte: u8) -> AttemptSecret {
        AttemptSecret::new(Zeroizing::new([byte; 32]))
    }

    fn first_words(mut streams: Streams) -> [u64; 2] {
        [streams.batch.0.next_u64(), streams.noise.0.next_u64()]
    }

    #[test]
    fn hmac_matches_rfc_4231() {
        let found = hmac(b"Jefe", b"what do ya want for nothing?");
        let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        );
    }

    #[test]
    fn the_same_secret_and_state_give_the_same_streams() {
        let derive = || {
            let state = state_digest(3, 1.0, &[1.0, 2.0], &[0.0, 0.5], &[0.25, 0.0]);
            first_words(Streams::derive(&secret(1), &Digest::of(b"m"), "engine", &state))
        };
        assert_eq!(derive(), derive());
    }

    #[test]
    fn any_change_gives_other_streams() {
        let state =
            |t, a: f32, m: f32, v: f32| state_digest(t, 1.0, &[a, 2.0], &[m, 0.5], &[v, 0.0]);
        let norm = state_digest(3, 1.000_000_000_000_001, &[1.0, 2.0], &[0.0, 0.5], &[0.25, 0.0]);
        let derive = |s, manifest: &[u8], engine, state| {
            first_words(Streams::derive(&secret(s), &Digest::of(manifest), engine, &state))
        };
        let all = [
            derive(1, b"m", "engine", state(3, 1.0, 0.0, 0.25)),
            derive(2, b"m", "engine", state(3, 1.0, 0.0, 0.25)),
            derive(1, b"n", "engine", state(3, 1.0, 0.0, 0.25)),
            derive(1, b"m", "engine2", state(3, 1.0, 0.0, 0.25)),
            derive(1, b"m", "engine", state(4, 1.0, 0.0, 0.25)),
            derive(1, b"m", "engine", state(3, 1.000_000_1, 0.0, 0.25)),
            derive(1, b"m", "engine", state(3, 1.0, -0.0, 0.25)),
            derive(1, b"m", "engine", state(3, 1.0, 0.0, 0.250_000_03)),
            derive(1, b"m", "engine", norm),
        ];
        let distinct: BTreeSet<u64> = all.iter().flatten().copied().collect();
        assert_eq!(distinct.len(), 18);
    }

    #[test]
    fn framing_separates_neighbouring_parts() {
        assert_ne!(frame(&[b"ab", b"c"]), frame(&[b"a", b"bc"]));
        assert_ne!(frame(&[b"ab"]), frame(&[b"ab", b""]));
    }
}
