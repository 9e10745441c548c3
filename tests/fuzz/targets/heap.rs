//! A heap of endorsements, sorted and picked from: nothing is lost but what is used, nothing is made up,
//! never a panic.
#![no_main]

use std::sync::LazyLock;

use attestation_verifier::endorsement::{DeviceNeeds, sort};
use attestation_verifier::evidence::Evidence;
use attestation_verifier::evidence::device::DeviceEvidence;
use libfuzzer_sys::fuzz_target;
use measurement::manifest::Tee;

static NEEDS: LazyLock<DeviceNeeds> = LazyLock::new(|| {
    let json = include_bytes!("../corpus/device_json/gpu.json");
    let devices = DeviceEvidence::read_json(json).expect("the seed is evidence");
    DeviceNeeds::of(&devices).expect("the seed is well formed")
});

fuzz_target!(|bytes: &[u8]| {
    // Files are cut where three bytes stand that end none of them.
    let mut items = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(3).position(|window| window == b"\xff\xfe\xfd") {
        items.push(&rest[..at]);
        rest = &rest[at + 3..];
    }
    items.push(rest);
    let alone = sort(&items, None);
    assert!(alone.processor.is_empty(), "there is no processor");
    let report = bytes.get(..0x4a0).unwrap_or(bytes);
    for tee in [Tee::Snp, Tee::Tdx] {
        let evidence = Evidence { tee, report };
        let _ = sort(&items, Some(&evidence));
    }
    for item in &items {
        let _ = NEEDS.slot(item);
    }
});
