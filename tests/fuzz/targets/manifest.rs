//! The door to CBOR and the manifest behind it: what is accepted is what would be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use measurement::cbor;
use measurement::manifest::{Manifest, Terms};

fuzz_target!(|bytes: &[u8]| {
    let scanned = cbor::scan(bytes).is_ok();
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert!(scanned);
        assert_eq!(cbor::encode::<Terms>(&manifest), bytes);
    }
});
