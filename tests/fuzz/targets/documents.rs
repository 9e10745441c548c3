//! JSON and TOML documents: receipts, statements, envelopes, launch blobs, policies.
#![no_main]

use attestation_verifier::policy::AppraisalPolicy;
use libfuzzer_sys::fuzz_target;
use measurement::launch::blob;
use measurement::receipt::{Bundle, Statement};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = Bundle::parse(bytes) {
        assert_eq!(bundle.to_json(), bytes);
    }
    if let Ok(statement) = Statement::parse(bytes) {
        assert_eq!(statement.to_json(), bytes);
    }
    if let Ok((algorithm, manifest)) = blob::read(bytes) {
        assert_eq!(blob::write(&manifest, algorithm), bytes);
    }
    if let Ok(text) = core::str::from_utf8(bytes) {
        let _ = AppraisalPolicy::parse(text);
    }
});
