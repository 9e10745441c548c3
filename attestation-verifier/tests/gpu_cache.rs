//! A cache changes the cost of a verdict on devices and nothing else.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use attestation_verifier::appraise::{DevicesResult, ExpectedDevices, Rejection, Verifier};
use attestation_verifier::cache::Cache;
use attestation_verifier::endorsement::Role;
use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::evidence::{Inauthentic, Place};
use attestation_verifier::policy::{AppraisalPolicy, STRICT};
use common::nvidia::{Change, Device, Key, Lab, NONCE, NOW, Report, Spec, unchanged};
use common::{WAIVED, with};

struct Case {
    lab: Lab,
    device: Device,
    items: Vec<Vec<u8>>,
    policy: String,
    cache: Cache,
}

impl Case {
    fn new() -> Self {
        Self::of(&unchanged)
    }

    fn of(change: Change<'_>) -> Self {
        let lab = Lab::new(change);
        let device = lab.gpu(7);
        let items = [lab.manifests(), lab.revocations(&[&device])].concat();
        Self { policy: lab.policy_from(STRICT), lab, device, items, cache: Cache::new(4) }
    }

    fn judge(&mut self, evidence: DeviceEvidence, now: u64) -> Result<DevicesResult, Rejection> {
        let items: Vec<&[u8]> = self.items.iter().map(Vec::as_slice).collect();
        let expected = ExpectedDevices { nonce: &NONCE, gpus: 1, switches: 0, chips: &[] };
        let verifier = Verifier::new(AppraisalPolicy::parse(&self.policy).unwrap());
        let evidence = [evidence];
        let cold = verifier.appraise_devices(&evidence, &items, &expected, now);
        let cache = &mut self.cache;
        let warm = verifier.appraise_devices_with(cache, &evidence, &items, &expected, now);
        assert_eq!(cold, warm);
        warm
    }

    fn golden(&mut self, now: u64) -> Result<DevicesResult, Rejection> {
        let evidence = self.device.evidence(&Report::gpu());
        self.judge(evidence, now)
    }
}

#[test]
fn holds_one_entry_for_the_same_devices_and_endorsements() {
    let mut case = Case::new();
    for _ in 0..3 {
        assert!(case.golden(NOW).is_ok());
        assert_eq!(case.cache.len(), 1);
    }
    // Another order of the same endorsements, another policy, another device.
    case.items.swap(0, 1);
    assert!(case.golden(NOW).is_ok());
    assert_eq!(case.cache.len(), 2);
    case.policy = with(&case.policy, "gpu.fwid", WAIVED);
    assert!(case.golden(NOW).is_ok());
    assert_eq!(case.cache.len(), 3);
    case.device = case.lab.gpu(8);
    assert!(case.golden(NOW).is_err(), "no answer is about it");
    assert_eq!(case.cache.len(), 4);
}

#[test]
fn still_judges_each_report() {
    let mut case = Case::new();
    assert!(case.golden(NOW).is_ok());
    let ids = |verdict: Result<DevicesResult, Rejection>| match verdict {
        Err(Rejection::Unacceptable(findings)) => findings.ids(),
        other => panic!("{other:?}"),
    };
    let differs = case.device.evidence(&Report::gpu().measuring(3, [9; 48]));
    assert_eq!(ids(case.judge(differs, NOW)), ["gpu.measurements"]);
    let forged = Report::gpu().signed_by(&Key::new());
    let forged = DeviceEvidence::new(forged, case.device.chain.clone());
    let flaw = Inauthentic::Signature { over: "device report" };
    let flaw = Inauthentic::In { place: Place::Device(0), flaw: flaw.into() };
    assert_eq!(case.judge(forged, NOW), Err(flaw.into()));
    let other = case.device.evidence(&Report::gpu().with(20, Some(&[1; 48])));
    let flaw = Inauthentic::In { place: Place::Device(0), flaw: Inauthentic::Fwid.into() };
    assert_eq!(case.judge(other, NOW), Err(flaw.into()));
    assert_eq!(case.cache.len(), 1);
}

#[test]
fn lets_nothing_outlive_its_time() {
    let mut case = Case::new();
    assert!(case.golden(NOW).is_ok());
    // Lists and answers are of another time, certificates are not.
    let stale = case.golden(NOW + 10).unwrap_err();
    let ids: Vec<_> = stale.findings().iter().map(|finding| finding.id()).collect();
    assert_eq!(ids, ["gpu.revocation", "gpu.manifest_revocation"]);
    let role = Role::DeviceKey;
    let late = Inauthentic::Expired { role, now: NOW + 1001, until: NOW + 1000 };
    let late = Inauthentic::In { place: Place::Device(0), flaw: late.into() };
    assert_eq!(case.golden(NOW + 1001), Err(late.into()));
    assert!(case.golden(NOW).is_ok());
}

#[test]
fn lets_nothing_be_used_before_its_time() {
    // One certificate is younger than the others, and one dies first.
    let change = |place: &str, spec: &mut Spec| match place {
        "provisioner" => spec.dates.0 = NOW - 5,
        "manifest issuer" => spec.dates.1 = NOW + 5,
        _ => {}
    };
    let mut case = Case::of(&change);
    assert!(case.golden(NOW).is_ok());
    assert!(case.golden(NOW - 5).is_ok() && case.golden(NOW + 5).is_ok());
    assert_eq!(case.cache.len(), 1);
    let early =
        Inauthentic::NotYetValid { role: Role::DeviceProvisioner, now: NOW - 6, from: NOW - 5 };
    let early = Inauthentic::In { place: Place::Device(0), flaw: early.into() };
    assert_eq!(case.golden(NOW - 6), Err(early.into()));
    let late = Inauthentic::Expired { role: Role::ManifestIssuer, now: NOW + 6, until: NOW + 5 };
    let late = Inauthentic::In { place: Place::Endorsement(0), flaw: late.into() };
    assert_eq!(case.golden(NOW + 6), Err(late.into()));
}

#[test]
fn keeps_nothing_that_was_refused() {
    let mut case = Case::new();
    case.items[0] = case.lab.sign_by(&common::nvidia::Manifest::driver(), &Key::new());
    assert!(case.golden(NOW).is_err());
    assert!(case.cache.is_empty());
}
