//! A processor and its devices as one machine: each change to one part, and what must be said.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use attestation_verifier::appraise::{
    ExpectedMachine, MachineEvidence, MachineResult, Rejection, Verifier,
};
use attestation_verifier::evidence::device::{DeviceEvidence, set_digest};
use attestation_verifier::evidence::{Evidence, Inauthentic};
use attestation_verifier::policy::AppraisalPolicy;
use common::amd::{Hierarchy, LAUNCH_BLOB, NOW, Shape};
use common::measured;
use common::nvidia::{self, Device, Lab, Report, unchanged};
use measurement::binding::Binding;
use measurement::manifest::Tee;
use measurement::octets::Octets;

const _: () = assert!(NOW == nvidia::NOW);

/// A Genoa and one GPU, and everything that goes with them.
struct Machine {
    amd: Hierarchy,
    lab: Lab,
    gpu: Device,
    session: Binding,
    policy: String,
}

impl Machine {
    fn new() -> Self {
        let amd = Hierarchy::new(&Shape::default());
        let lab = Lab::new(&unchanged);
        let policy = lab.policy_from(&amd.policy());
        let session = Binding::from_octets(Octets([0x5e; 64]));
        Self { gpu: lab.gpu(7), amd, lab, session, policy }
    }

    /// What the GPU signs for `session`.
    fn device(&self, session: &Binding) -> DeviceEvidence {
        let report = Report { nonce: session.gpu_nonce(), ..Report::gpu() };
        self.gpu.evidence(&report)
    }

    /// What the processor signs for this session and `devices`.
    fn report(&self, devices: &[DeviceEvidence]) -> Vec<u8> {
        let set = set_digest(devices).unwrap();
        let data = self.session.report_data(devices.len() as u8, Some(&set));
        self.amd.report(|body| body[0x50..0x90].copy_from_slice(&data))
    }

    fn judge(&self, report: &[u8], devices: &[DeviceEvidence]) -> Result<MachineResult, Rejection> {
        let endorsements = self.amd.endorsements();
        let endorsements: Vec<&[u8]> = endorsements.iter().map(Vec::as_slice).collect();
        let items = [self.lab.manifests(), self.lab.revocations(&[&self.gpu])].concat();
        let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
        let evidence = MachineEvidence {
            processor: Evidence { tee: Tee::Snp, report },
            processor_endorsements: &endorsements,
            devices,
            device_endorsements: &items,
        };
        let expected = ExpectedMachine {
            session: &self.session,
            launch_blob: LAUNCH_BLOB,
            images: &[measured(Tee::Snp, report)],
            platforms: &[],
            gpus: 1,
            switches: 0,
            chips: &[],
        };
        let policy = AppraisalPolicy::parse(&self.policy).unwrap();
        Verifier::new(policy).appraise_machine(&evidence, &expected, NOW)
    }
}

#[track_caller]
fn ids(verdict: Result<MachineResult, Rejection>) -> Vec<&'static str> {
    match verdict {
        Err(Rejection::Unacceptable(findings)) => findings.ids(),
        other => panic!("expected findings, got {other:?}"),
    }
}

#[test]
fn accepts_a_processor_that_vouches_for_its_gpu() {
    let machine = Machine::new();
    let devices = [machine.device(&machine.session)];
    let result = machine.judge(&machine.report(&devices), &devices).unwrap();
    assert!(result.simulated());
    assert_eq!(result.processor().tee(), Tee::Snp);
    assert_eq!(result.devices().nonce(), &machine.session.gpu_nonce());
    assert_eq!(result.processor().policy_digest(), result.devices().policy_digest());
}

#[test]
fn rejects_a_gpu_that_the_processor_did_not_vouch_for() {
    let machine = Machine::new();
    let devices = [machine.device(&machine.session)];
    let report = machine.report(&devices);
    // The same GPU, asked once more.
    let again = [machine.device(&machine.session)];
    assert_eq!(ids(machine.judge(&report, &again)), ["binding.report_data"]);
    // A processor that answers the session without any GPU.
    let alone = machine.session.report_data(0, None);
    let alone = machine.amd.report(|body| body[0x50..0x90].copy_from_slice(&alone));
    assert_eq!(ids(machine.judge(&alone, &devices)), ["binding.report_data"]);
}

#[test]
fn rejects_a_gpu_of_another_session_though_the_processor_vouches_for_it() {
    let machine = Machine::new();
    let other = Binding::from_octets(Octets([0x5f; 64]));
    let devices = [machine.device(&other)];
    assert_eq!(ids(machine.judge(&machine.report(&devices), &devices)), ["devices.nonce"]);
}

#[test]
fn lists_what_is_wrong_with_both() {
    let machine = Machine::new();
    let other = Binding::from_octets(Octets([0x5f; 64]));
    let report = machine.report(&[machine.device(&machine.session)]);
    let seen = ids(machine.judge(&report, &[machine.device(&other)]));
    assert_eq!(seen, ["binding.report_data", "devices.nonce"]);
}

#[test]
fn names_what_is_inauthentic_before_what_is_unacceptable() {
    let mut machine = Machine::new();
    let devices = [machine.device(&machine.session)];
    let other = machine.report(&[machine.device(&machine.session)]);
    machine.policy = machine.policy.replace("platform = \"nvidia\"", "platform = \"tdx\"");
    let verdict = machine.judge(&other, &devices);
    let Err(Rejection::Inauthentic(Inauthentic::In { flaw, .. })) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(*flaw, Inauthentic::UnknownRoot);
}

#[test]
fn digests_a_set_of_devices_in_one_order() {
    let machine = Machine::new();
    let other = machine.lab.gpu(8);
    let one = machine.device(&machine.session);
    let two = other.evidence(&Report::gpu());
    let set = |devices: &[&DeviceEvidence]| {
        let devices: Vec<_> = devices.iter().map(|one| (*one).clone()).collect();
        set_digest(&devices).unwrap()
    };
    assert_eq!(set(&[&one, &two]), set(&[&two, &one]));
    assert_ne!(set(&[&one, &two]), set(&[&one]));
    assert_ne!(set(&[&one, &one]), set(&[&one]));
    assert_ne!(set(&[&one]), set(&[]));
}
