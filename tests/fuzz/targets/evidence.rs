//! Reports, quotes and endorsements under the strict policy: refused or judged, never a panic.
#![no_main]

use std::sync::LazyLock;

use attestation_verifier::appraise::{Expected, Verifier};
use attestation_verifier::endorsement::{describe, parts, slot, sources};
use attestation_verifier::evidence::{Evidence, recognise, unpadded, unwrapped};
use attestation_verifier::explain::explain;
use attestation_verifier::pin;
use attestation_verifier::policy::AppraisalPolicy;
use attestation_verifier::transcript::Transcript;
use libfuzzer_sys::fuzz_target;
use measurement::manifest::Tee;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let strict = include_str!("../../../attestation-verifier/policies/strict.toml");
    Verifier::new(AppraisalPolicy::parse(strict).expect("the sample policy parses"))
});

fuzz_target!(|bytes: &[u8]| {
    // The first bytes are evidence, the rest is one endorsement.
    let (report, endorsement) = bytes.split_at(bytes.len().min(0x4a0));
    let expected =
        Expected { report_data: &[0; 64], launch_blob: b"", images: &[], platforms: &[] };
    for tee in [Tee::Snp, Tee::Tdx] {
        let evidence = Evidence { tee, report };
        let judged = VERIFIER.appraise(&evidence, &[endorsement], &expected, 1_790_000_000);
        assert!(judged.is_err(), "no image is acceptable");
        let whole = Evidence { tee, report: bytes };
        let _ = pin::measured(&whole);
        let _ = pin::launched_with(&whole, b"");
    }
    let _ = unpadded(bytes);
    if let Ok(wrapped) = unwrapped(bytes) {
        assert_eq!(wrapped.report.len(), 0x4a0);
    }
    if let Some(tee) = recognise(bytes) {
        let whole = Evidence { tee, report: bytes };
        if explain(&whole).is_ok() {
            let _ = sources(&whole);
            let _ = slot(&whole, endorsement);
        }
    }
    if describe(bytes).is_ok() {
        assert!(parts(bytes).is_ok());
    }
    if let Ok(transcript) = Transcript::read(bytes) {
        assert_eq!(transcript.to_bytes(), bytes);
    }
    let _ = pin::spki(bytes);
});
