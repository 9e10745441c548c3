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
    Expected, ExpectedDevices, ExpectedMachine, Finding, MachineEvidence, MachineResult, Rejection,
    Verifier,
};
use attestation_verifier::ear::{self, Attested, Profile, Token};
use attestation_verifier::evidence::device::{DeviceEvidence, set_digest};
use attestation_verifier::evidence::{Evidence, Inauthentic};
use attestation_verifier::policy::AppraisalPolicy;
use attestation_verifier::transcript::{
    Devices, Processor, Subject, Transcript, Verdicts, transcribe,
};
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

impl Machine {
    /// The record of an appraisal of processor and GPU, and the verdicts.
    fn transcribe(&self, report: &[u8], devices: &[DeviceEvidence]) -> (Transcript, Verdicts) {
        let on_processor = self.amd.endorsements();
        let on_processor: Vec<&[u8]> = on_processor.iter().map(Vec::as_slice).collect();
        let on_devices = [self.lab.manifests(), self.lab.revocations(&[&self.gpu])].concat();
        let on_devices: Vec<&[u8]> = on_devices.iter().map(Vec::as_slice).collect();
        let set = set_digest(devices).unwrap();
        let subject = Subject {
            processor: Some(Processor {
                evidence: Evidence { tee: Tee::Snp, report },
                endorsements: &on_processor,
                expected: Expected {
                    report_data: &self.session.report_data(1, Some(&set)),
                    launch_blob: LAUNCH_BLOB,
                    images: &[measured(Tee::Snp, report)],
                    platforms: &[],
                },
            }),
            devices: Some(Devices {
                evidence: devices,
                endorsements: &on_devices,
                expected: ExpectedDevices {
                    nonce: &self.session.gpu_nonce(),
                    gpus: 1,
                    switches: 0,
                    chips: &[],
                },
            }),
        };
        let verifier = Verifier::new(AppraisalPolicy::parse(&self.policy).unwrap());
        transcribe(&verifier, &subject, NOW)
    }
}

#[test]
fn a_record_of_a_machine_holds_every_check_of_both() {
    let machine = Machine::new();
    let devices = [machine.device(&machine.session)];
    let report = machine.report(&devices);
    let (transcript, verdicts) = machine.transcribe(&report, &devices);
    assert!(transcript.accepted() && verdicts.accepted());
    let read = Transcript::read(&transcript.to_bytes()).unwrap();
    assert_eq!(read, transcript);
    let checks: Vec<_> = read.checks().collect();
    let devices_from = 2 + 1 + 4 + 3 + 33;
    assert_eq!(checks[devices_from..devices_from + 2], [("shape", "held"), ("origin", "held")]);
    let rest: Vec<_> = checks[devices_from + 2..].iter().map(|(id, _)| *id).collect();
    assert_eq!(
        rest,
        [
            "devices.nonce",
            "devices.count",
            "devices.distinct",
            "devices.alike",
            "gpu.products",
            "gpu.chip_info",
            "gpu.chip",
            "gpu.driver",
            "gpu.vbios",
            "gpu.fwid",
            "gpu.modes",
            "gpu.opaque",
            "gpu.revocation",
            "gpu.manifest_revocation",
            "gpu.measurements",
            "gpu.uncovered",
        ]
    );
    assert_eq!(checks[devices_from + 2 + 6], ("gpu.chip", "waived"));
    let question = read.devices().unwrap();
    assert_eq!(question.nonce.as_bytes(), &machine.session.gpu_nonce());
    assert_eq!((question.gpus, question.switches), (1, 0));
}

#[test]
fn a_record_of_a_machine_is_refused_when_either_part_is() {
    let machine = Machine::new();
    let devices = [machine.device(&machine.session)];
    let report = machine.report(&devices);
    let other = [machine.device(&Binding::from_octets(Octets([0x5f; 64])))];
    let refused = |report: &[u8], devices: &[DeviceEvidence]| {
        let (transcript, verdicts) = machine.transcribe(report, devices);
        assert_eq!(transcript.accepted(), verdicts.accepted());
        assert!(!verdicts.accepted());
        verdicts.reasons().iter().map(Finding::id).collect::<Vec<_>>()
    };
    assert_eq!(refused(&report[1..], &devices), ["shape.length"]);
    assert_eq!(refused(&machine.report(&other), &other), ["devices.nonce"]);
    assert_eq!(refused(&report, &other), ["binding.report_data", "devices.nonce"]);
    // Nothing is no machine.
    let verifier = Verifier::new(AppraisalPolicy::parse(&machine.policy).unwrap());
    let (transcript, verdicts) = transcribe(&verifier, &Subject::default(), NOW);
    assert!(!transcript.accepted() && !verdicts.accepted());
}

#[test]
fn a_token_about_a_simulated_machine_says_so_of_each_part() {
    let machine = Machine::new();
    let devices = [machine.device(&machine.session)];
    let report = machine.report(&devices);
    let (_, verdicts) = machine.transcribe(&report, &devices);
    let (processor, result) =
        (verdicts.processor.unwrap().unwrap(), verdicts.devices.unwrap().unwrap());
    let evidence = Evidence { tee: Tee::Snp, report: &report };
    let token = |profile| Token { profile, issuer: "test", issued_at: NOW, expires_at: NOW + 300 };
    let attested = Attested { processor: Some((&processor, &evidence)), devices: Some(&result) };
    let claims = ear::claims(&attested, &token(Profile::Trustee)).unwrap();
    for part in ["cpu0", "gpu0"] {
        let part = &claims["submods"][part];
        assert_eq!(part["ear.status"], "contraindicated");
        assert_eq!(part["ear.trustworthiness-vector"]["hardware"], 97);
        assert_eq!(part["cloister"]["simulated"], true);
    }
    let gpu = &claims["submods"]["gpu0"];
    // Its chip is not listed, and that is waived; what runs on it was measured.
    assert_eq!(gpu["ear.trustworthiness-vector"]["instance-identity"], 0);
    assert_eq!(gpu["ear.trustworthiness-vector"]["configuration"], 3);
    assert_eq!(gpu["ear.trustworthiness-vector"]["executables"], 3);
    assert_eq!(gpu["ear.trustworthiness-vector"]["runtime-opaque"], 2);
    let waived = gpu["cloister"]["waived"].as_array().unwrap();
    assert_eq!(waived.len(), 1);
    let evidence = &gpu["ear.veraison.annotated-evidence"]["nvidia"];
    assert_eq!(evidence["eat_nonce"], hex::encode(machine.session.gpu_nonce()));
    let alone = Attested { processor: None, devices: Some(&result) };
    let claims = ear::claims(&alone, &token(Profile::Ietf2026)).unwrap();
    assert_eq!(claims["submods"].as_object().unwrap().len(), 1);
    let gpu = claims["submods"]["gpu0"].as_object().unwrap();
    assert!(gpu.keys().all(|name| !name.contains(['.', '-'])));
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
