//! What the tests of this package share: where the vectors lie, edits of a policy, and a small
//! simulated AMD hierarchy.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    missing_docs
)]

use std::fs;
use std::path::PathBuf;

use attestation_verifier::appraise::{AttestationResult, Expected, Rejection, Verifier};
use attestation_verifier::evidence::Evidence;
use attestation_verifier::policy::AppraisalPolicy;
use measurement::launch::Measured;
use measurement::manifest::Tee;
use measurement::octets::Octets;

pub mod amd;
#[cfg(feature = "tdx-collateral")]
pub mod intel;
pub mod nvidia;

/// The processors' vectors.
pub fn vectors() -> Option<PathBuf> {
    folder("cpu")
}

/// The devices' vectors.
pub fn gpu_vectors() -> Option<PathBuf> {
    folder("gpu")
}

/// A folder of vectors. Absent, a developer's machine skips the test and CI fails it.
fn folder(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors"));
    let root = root.join(name);
    if root.is_dir() {
        return Some(root);
    }
    assert!(std::env::var_os("CI").is_none(), "the vectors are missing");
    eprintln!("skipped: the vectors are missing");
    None
}

pub fn read(root: &std::path::Path, path: &str) -> Vec<u8> {
    fs::read(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `policy` with the check `section.name` replaced.
pub fn with(policy: &str, check: &str, value: &str) -> String {
    let (section, name) = check.split_once('.').expect("section.name");
    let (mut here, mut inside, mut replaced) = (false, false, false);
    let mut lines = Vec::new();
    for line in policy.lines() {
        if let Some(header) = line.strip_prefix('[') {
            here = header.starts_with(&format!("{section}]"));
        }
        let key = line.split('=').next().unwrap_or_default().trim();
        if here && key == name {
            (inside, replaced) = (true, true);
            lines.push(format!("{name} = {value}"));
        }
        if !inside {
            lines.push(line.to_string());
        }
        // A requirement may go over several lines; it ends with its closing brace.
        if inside && line.trim_end().ends_with('}') && !line.trim_start().starts_with("{ cpu") {
            inside = false;
        }
    }
    assert!(replaced, "the policy has no check {check}");
    lines.join("\n")
}

pub const WAIVED: &str = "{ waived = \"for this test\" }";

/// Appraises `report` against exactly what it says of itself.
pub fn appraise(
    policy: &str,
    tee: Tee,
    report: &[u8],
    endorsements: &[Vec<u8>],
    launch_blob: &[u8],
    now: u64,
) -> Result<AttestationResult, Rejection> {
    let verifier = Verifier::new(AppraisalPolicy::parse(policy).unwrap_or_else(|e| panic!("{e}")));
    let measured = measured(tee, report);
    let at = if tee == Tee::Snp { 0x50 } else { tdx_body(report) + 520 };
    let report_data = slice(report, at).unwrap_or([0; 64]);
    let endorsements: Vec<&[u8]> = endorsements.iter().map(Vec::as_slice).collect();
    let expected =
        Expected { report_data: &report_data, launch_blob, images: &[measured], platforms: &[] };
    verifier.appraise(&Evidence { tee, report }, &endorsements, &expected, now)
}

fn tdx_body(quote: &[u8]) -> usize {
    if quote.first() == Some(&5) { 54 } else { 48 }
}

fn slice<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

pub fn measured(tee: Tee, report: &[u8]) -> Measured {
    let octets = |at| Octets(slice(report, at).unwrap_or([0; 48]));
    match tee {
        Tee::Snp => Measured::Snp { launch_digest: octets(0x90) },
        Tee::Tdx => {
            let body = tdx_body(report);
            Measured::Tdx {
                mrtd: octets(body + 136),
                rtmr0: octets(body + 328),
                rtmr1: octets(body + 376),
                rtmr2: octets(body + 424),
            }
        }
    }
}

/// The ids of every reason, whichever step it comes from; none when it was accepted.
pub fn reasons(result: &Result<AttestationResult, Rejection>) -> Vec<&'static str> {
    let reasons = result.as_ref().err().map(Rejection::reasons).unwrap_or_default();
    reasons.iter().map(attestation_verifier::appraise::Finding::id).collect()
}

/// The ids of the findings; panics when the rejection is of another kind.
pub fn ids(result: Result<AttestationResult, Rejection>) -> Vec<&'static str> {
    match result {
        Err(Rejection::Unacceptable(findings)) => findings.ids(),
        other => panic!("expected findings, got {other:?}"),
    }
}
