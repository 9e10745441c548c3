//! Reports, quotes and endorsements under the strict policy: refused or judged, never a panic.
#![no_main]

use std::sync::LazyLock;

use attestation_verifier::appraise::{Expected, Verifier};
use attestation_verifier::evidence::{Evidence, unpadded};
use attestation_verifier::pin;
use attestation_verifier::policy::AppraisalPolicy;
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
    let _ = pin::spki(bytes);
});
