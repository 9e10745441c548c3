//! A quote and its collateral, one behind the other, through the whole appraisal: refused or judged,
//! never a panic, and with a warm cache no otherwise than without.
#![no_main]

use std::sync::{LazyLock, Mutex};

use attestation_verifier::appraise::{Expected, Verifier};
use attestation_verifier::cache::Cache;
use attestation_verifier::evidence::{Evidence, unpadded};
use attestation_verifier::explain::explain;
use attestation_verifier::pin;
use attestation_verifier::policy::{AppraisalPolicy, EVIDENCE};
use libfuzzer_sys::fuzz_target;
use measurement::manifest::Tee;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(AppraisalPolicy::parse(EVIDENCE).expect("the sample policy parses"))
});
static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(|| Mutex::new(Cache::new(16)));

fuzz_target!(|bytes: &[u8]| {
    // Collateral is the first JSON object; no honest quote holds one.
    let at = bytes.windows(2).position(|window| window == b"{\"").unwrap_or(bytes.len());
    let (quote, collateral) = bytes.split_at(at);
    let quote = unpadded(quote).unwrap_or(quote);
    let evidence = Evidence { tee: Tee::Tdx, report: quote };
    let images: Vec<_> = pin::measured(&evidence).into_iter().collect();
    let report_data = pin::report_data(&evidence).unwrap_or([0; 64]);
    let expected =
        Expected { report_data: &report_data, launch_blob: b"", images: &images, platforms: &[] };
    // When the recorded collateral is valid.
    let now = 1_774_000_000;
    let cold = VERIFIER.appraise(&evidence, &[collateral], &expected, now);
    let mut cache = CACHE.lock().expect("no fuzzer thread panicked");
    let warm = VERIFIER.appraise_with(&mut cache, &evidence, &[collateral], &expected, now);
    assert_eq!(cold, warm);
    assert_eq!(explain(&evidence).is_ok(), !images.is_empty());
});
