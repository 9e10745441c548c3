//! Reference manifests, revocation lists and OCSP answers beside a genuine simulated GPU: judged,
//! never a panic, and never enough.
#![no_main]

use std::sync::LazyLock;

use attestation_verifier::appraise::{ExpectedDevices, Verifier};
use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::policy::{AppraisalPolicy, STRICT, with_root};
use libfuzzer_sys::fuzz_target;

static GPU: LazyLock<Vec<DeviceEvidence>> = LazyLock::new(|| {
    let json = include_bytes!("../corpus/device_json/gpu.json");
    DeviceEvidence::read_json(json).expect("the seed is evidence")
});

/// The strict policy, believing the root of the seed's chain.
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let chain = String::from_utf8_lossy(GPU[0].chain());
    let root = chain.trim_end().rfind("-----BEGIN").expect("the seed has certificates");
    let policy = with_root(STRICT, "seed", "simulated", "nvidia", &chain[root..]);
    Verifier::new(AppraisalPolicy::parse(&policy).expect("the policy parses"))
});

fuzz_target!(|bytes: &[u8]| {
    let expected = ExpectedDevices { nonce: &[0x4e; 32], gpus: 1, switches: 0, chips: &[] };
    let judged = VERIFIER.appraise_devices(&GPU, &[bytes], &expected, 1_780_000_000);
    assert!(judged.is_err(), "one endorsement is not enough");
});
