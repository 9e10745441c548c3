//! JSON about devices: evidence, manifests as they are served, tokens and key sets of the remote
//! service.
#![no_main]

use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::nras::{Keys, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for evidence in DeviceEvidence::read_json(bytes).into_iter().flatten() {
        let _ = evidence.manifest_ids();
    }
    let keys = Keys::read(bytes);
    let none = Keys::read(b"{\"keys\":[]}").expect("an empty set is one");
    assert!(verify(bytes, &none, &[0; 32], 1_790_000_000).is_err(), "no key signed it");
    if let Ok(keys) = keys {
        let _ = verify(bytes, &keys, &[0; 32], 1_790_000_000);
    }
});
