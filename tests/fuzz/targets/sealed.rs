//! Sealed containers and blobs: refused or opened, never a panic.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use measurement::digest::Hash32;
use sealed::{DataKey, Reader, open_blob};

/// The generator's stream does not matter: the key only has to be there.
struct Zeros;

static KEY: LazyLock<DataKey> = LazyLock::new(|| DataKey::generate(&mut Zeros));

impl rand_core::TryRng for Zeros {
    type Error = core::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0)
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0)
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.fill(7);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Zeros {}

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(&KEY, Hash32::from_bytes([0; 32]), 1 << 20);
    let fed = bytes.chunks(97).try_for_each(|piece| reader.feed(piece));
    assert!(fed.is_err() || reader.finish().is_err(), "nothing has this root");
    assert!(open_blob(&KEY, b"", bytes).is_err(), "nothing was sealed");
});
