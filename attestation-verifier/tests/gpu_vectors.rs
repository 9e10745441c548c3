//! Real evidence of GPUs and switches, and the verdict each must get.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::path::Path;

use attestation_verifier::appraise::{DevicesResult, ExpectedDevices, Rejection, Verifier};
use attestation_verifier::cache::Cache;
use attestation_verifier::endorsement::{Role, describe_for_devices, device_sources};
use attestation_verifier::evidence::device::{Architecture, DeviceEvidence, Mode};
use attestation_verifier::evidence::{Inauthentic, Place};
use attestation_verifier::explain::explain_device;
use attestation_verifier::policy::{AppraisalPolicy, EVIDENCE, STRICT};
use attestation_verifier::root::Root;
use attestation_verifier::wire::Malformed;
use common::{WAIVED, gpu_vectors, read, with};

type Verdict = Result<DevicesResult, Rejection>;

/// 2024-06-01, 2025-01-01T12:00, 2025-08-01, 2026-03-01 and 2026-11-23.
const JUNE_2024: u64 = 1_717_200_000;
const NEW_YEAR_2025: u64 = 1_735_732_800;
const AUGUST_2025: u64 = 1_754_006_400;
const MARCH_2026: u64 = 1_772_323_200;
const NOVEMBER_2026: u64 = 1_795_392_000;

/// The policy for evidence by itself: recorded evidence comes without lists and answers.
fn policy() -> String {
    EVIDENCE.to_string()
}

fn and_waiving(checks: &[&str]) -> String {
    checks.iter().fold(policy(), |policy, check| with(&policy, check, WAIVED))
}

fn hex_file(root: &Path, path: &str) -> Vec<u8> {
    hex::decode(String::from_utf8(read(root, path)).unwrap().trim()).unwrap()
}

fn device(root: &Path, folder: &str) -> DeviceEvidence {
    let report = hex_file(root, &format!("{folder}/report.hex"));
    DeviceEvidence::new(report, read(root, &format!("{folder}/chain.pem")))
}

fn judge(policy: &str, devices: &[DeviceEvidence], items: &[Vec<u8>], now: u64) -> Verdict {
    let verifier = Verifier::new(AppraisalPolicy::parse(policy).unwrap());
    let report = devices[0].report();
    let nonce: [u8; 32] = report[4..36].try_into().unwrap();
    let switches = devices.iter().filter(|one| one.report().len() < 3000).count();
    let expected =
        ExpectedDevices { nonce: &nonce, gpus: devices.len() - switches, switches, chips: &[] };
    let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
    verifier.appraise_devices(devices, &items, &expected, now)
}

/// Ids and what was observed.
fn findings(verdict: Verdict) -> Vec<(&'static str, String)> {
    match verdict {
        Err(Rejection::Unacceptable(findings)) => {
            findings.as_slice().iter().map(|f| (f.id(), f.observed().to_string())).collect()
        }
        other => panic!("expected findings, got {other:?}"),
    }
}

fn ids(verdict: Verdict) -> Vec<&'static str> {
    findings(verdict).into_iter().map(|(id, _)| id).collect()
}

fn in_device(index: usize, flaw: Inauthentic) -> Verdict {
    Err(Inauthentic::In { place: Place::Device(index), flaw: flaw.into() }.into())
}

fn in_endorsement(index: usize, flaw: Inauthentic) -> Verdict {
    Err(Inauthentic::In { place: Place::Endorsement(index), flaw: flaw.into() }.into())
}

fn malformed(flaw: Malformed) -> Verdict {
    Err(Malformed::Device { index: 0, flaw: flaw.into() }.into())
}

fn h100(root: &Path) -> (DeviceEvidence, Vec<Vec<u8>>) {
    let folder = "h100-550.90.07";
    let manifests = ["driver-rim.xml", "vbios-rim.xml"];
    let items = manifests.map(|name| read(root, &format!("{folder}/{name}")));
    (device(root, folder), items.to_vec())
}

#[test]
fn accepts_a_hopper_with_its_two_manifests() {
    let Some(root) = gpu_vectors() else { return };
    let (device, items) = h100(&root);
    let result = judge(&policy(), &[device], &items, MARCH_2026).unwrap();
    let [gpu] = result.devices() else { panic!() };
    assert_eq!(gpu.architecture(), Architecture::Hopper);
    assert_eq!(gpu.hardware_model(), "GH100 A01 GSP BROM");
    assert_eq!((gpu.driver(), gpu.vbios()), (Some("550.90.07"), Some("96.00.9F.00.01")));
    assert_eq!(gpu.mode(), Some(Mode::Spt));
    // 21 and 12, less the video decoder that is off.
    assert_eq!(gpu.matched(), 32);
    assert_eq!(gpu.manifests().len(), 2);
    assert_eq!(gpu.pdi().to_string(), "431d480fe5e87274");
    assert_eq!(gpu.root(), &Root::BuiltIn);
    assert!(!result.simulated());
    let waived: Vec<_> = result.waived().iter().map(|waived| waived.check).collect();
    assert_eq!(waived, ["gpu.chip", "nvswitch.chip"]);
}

#[test]
fn rejects_under_the_strict_policy_what_comes_without_revocation_lists() {
    let Some(root) = gpu_vectors() else { return };
    let (device, items) = h100(&root);
    assert_eq!(
        findings(judge(STRICT, &[device], &items, MARCH_2026)),
        [
            (
                "gpu.revocation",
                "device 0: device identity certificate unknown, device provisioner certificate \
                 unknown, device family certificate unknown"
                    .to_string()
            ),
            (
                "gpu.manifest_revocation",
                "device 0: manifest signer certificate unknown, manifest issuer certificate \
                 unknown, manifest authority certificate unknown, manifest signer certificate \
                 unknown, manifest issuer certificate unknown, manifest authority certificate \
                 unknown"
                    .to_string()
            ),
        ]
    );
}

#[test]
fn rejects_a_manifest_whose_signer_has_expired() {
    let Some(root) = gpu_vectors() else { return };
    let (device, items) = h100(&root);
    let expired = Inauthentic::Expired {
        role: Role::ManifestSigner,
        now: NOVEMBER_2026,
        until: 1_780_279_709,
    };
    let verdict = judge(&policy(), std::slice::from_ref(&device), &items, NOVEMBER_2026);
    assert_eq!(verdict, in_endorsement(0, expired));
    // The VBIOS manifest's signer came later.
    let early = Inauthentic::NotYetValid {
        role: Role::ManifestSigner,
        now: AUGUST_2025,
        from: 1_767_811_161,
    };
    assert_eq!(judge(&policy(), &[device], &items, AUGUST_2025), in_endorsement(1, early));
}

#[test]
fn rejects_an_old_hopper_that_does_not_name_its_firmware() {
    let Some(root) = gpu_vectors() else { return };
    let folder = "h100-545.00-nofwid";
    let items =
        ["driver-rim.xml", "vbios-rim.xml"].map(|name| read(&root, &format!("{folder}/{name}")));
    let devices = [device(&root, folder)];
    let verdict = judge(&policy(), &devices, &items, JUNE_2024);
    assert_eq!(ids(verdict), ["gpu.driver", "gpu.fwid", "gpu.modes"]);
    // All else about it is right.
    let policy = and_waiving(&["gpu.driver", "gpu.fwid", "gpu.modes"]);
    let result = judge(&policy, &devices, &items, JUNE_2024).unwrap();
    assert_eq!(result.devices()[0].matched(), 32);
}

#[test]
fn rejects_values_of_another_revision_of_the_same_manifest() {
    let Some(root) = gpu_vectors() else { return };
    let folder = "h100-545.00-nofwid";
    let items = ["driver-rim.xml", "vbios-rim-other-revision.xml"]
        .map(|name| read(&root, &format!("{folder}/{name}")));
    let policy = and_waiving(&["gpu.driver", "gpu.fwid", "gpu.modes"]);
    let seen = findings(judge(&policy, &[device(&root, folder)], &items, JUNE_2024));
    let starts: Vec<_> = seen
        .iter()
        .map(|(id, observed)| {
            assert_eq!(*id, "gpu.measurements");
            observed.split(" of ").next().unwrap()
        })
        .collect();
    let indexes = [1, 2, 3, 9].map(|index| format!("device 0: index {index}"));
    assert_eq!(starts, indexes);
}

#[test]
fn rejects_two_manifests_for_one_firmware() {
    let Some(root) = gpu_vectors() else { return };
    let folder = "h100-545.00-nofwid";
    let names = ["driver-rim.xml", "vbios-rim.xml", "vbios-rim-other-revision.xml"];
    let items = names.map(|name| read(&root, &format!("{folder}/{name}")));
    let policy = and_waiving(&["gpu.driver", "gpu.fwid", "gpu.modes"]);
    let devices = [device(&root, folder)];
    assert_eq!(
        findings(judge(&policy, &devices, &items, JUNE_2024)),
        [("gpu.measurements", "device 0: 2 manifests of GH100 vbios 96.00.5E.00.01".to_string())]
    );
    // The same one twice is one.
    let twice = [items[0].clone(), items[1].clone(), items[1].clone(), items[0].clone()];
    assert!(judge(&policy, &devices, &twice, JUNE_2024).is_ok());
}

#[test]
fn rejects_a_blackwell_without_manifests_and_finds_all_else_right() {
    let Some(root) = gpu_vectors() else { return };
    let devices = [device(&root, "gb100-575.32")];
    assert_eq!(
        findings(judge(&policy(), &devices, &[], NOVEMBER_2026)),
        [
            ("gpu.modes", "device 0: not reported".to_string()),
            ("gpu.measurements", "device 0: no manifest of GB100 driver 575.32".to_string()),
            ("gpu.measurements", "device 0: no manifest of GB100 vbios 97.00.88.00.0F".to_string()),
        ]
    );
    let policy = and_waiving(&["gpu.modes", "gpu.measurements"]);
    let result = judge(&policy, &devices, &[], NOVEMBER_2026).unwrap();
    assert_eq!(result.devices()[0].architecture(), Architecture::Blackwell);
    assert_eq!(
        devices[0].manifest_ids().unwrap(),
        ["NV_GPU_CC_DRIVER_GB100_575.32", "NV_GPU_VBIOS_G525_0220_886_970088000F"]
    );
}

fn ppcie(root: &Path) -> Vec<DeviceEvidence> {
    ["gpu_evidence.json", "switch_evidence.json"]
        .iter()
        .flat_map(|name| {
            let json = read(root, &format!("ppcie-8gpu-4switch/{name}"));
            DeviceEvidence::read_json(&json).unwrap()
        })
        .collect()
}

#[test]
fn accepts_eight_gpus_and_four_switches_that_are_one_machine() {
    let Some(root) = gpu_vectors() else { return };
    let devices = ppcie(&root);
    let policy = and_waiving(&["gpu.measurements", "nvswitch.measurements"]);
    let result = judge(&policy, &devices, &[], NOVEMBER_2026).unwrap();
    assert_eq!(result.devices().len(), 12);
    assert_eq!(result.devices()[7].mode(), Some(Mode::Ppcie));
    assert_eq!(hex::encode(result.nonce())[..12], *"4760e30534a0");
    assert_eq!(devices[11].manifest_ids().unwrap(), ["NV_SWITCH_BIOS_5612_0002_890_9610730001"]);
}

#[test]
fn rejects_a_machine_that_is_not_whole() {
    let Some(root) = gpu_vectors() else { return };
    let devices = ppcie(&root);
    let policy = and_waiving(&["gpu.measurements", "nvswitch.measurements"]);
    let topology = |devices: &[DeviceEvidence]| {
        let seen = findings(judge(&policy, devices, &[], NOVEMBER_2026));
        assert!(seen.iter().all(|(id, _)| *id == "nvswitch.topology"));
        seen.into_iter().map(|(_, observed)| observed).collect::<Vec<_>>()
    };
    // One switch short: each GPU names one that is not there.
    let seen = topology(&devices[..11]);
    assert_eq!(seen[0], "8 gpus and 3 switches");
    assert_eq!(seen.len(), 9);
    // One GPU short: each switch names one that is not there.
    let seen = topology(&devices[1..]);
    assert_eq!(seen[0], "7 gpus and 4 switches");
    assert_eq!(seen[1..], [7, 8, 9, 10].map(|index| format!("device {index} names other gpus")));
    // Without any switch.
    assert_eq!(topology(&devices[..1]), ["1 gpus and 0 switches", "device 0 names other switches"]);
}

#[test]
fn rejects_one_device_that_is_shown_twice() {
    let Some(root) = gpu_vectors() else { return };
    let mut devices = ppcie(&root);
    devices[7] = devices[0].clone();
    let policy = and_waiving(&["gpu.measurements", "nvswitch.measurements"]);
    let seen = findings(judge(&policy, &devices, &[], NOVEMBER_2026));
    assert_eq!(seen[0], ("devices.distinct", "device 0 and device 7 are one".to_string()));
    assert!(seen[1..].iter().all(|(id, _)| *id == "nvswitch.topology"));
}

#[test]
fn rejects_a_device_of_another_session_among_the_others() {
    let Some(root) = gpu_vectors() else { return };
    let mut devices = ppcie(&root);
    devices.push(device(&root, "h100-580.95.05-trailing-byte"));
    let cut = hex_file(&root, "h100-580.95.05-trailing-byte/report.hex");
    let chain = read(&root, "h100-580.95.05-trailing-byte/chain.pem");
    devices[12] = DeviceEvidence::new(&cut[..cut.len() - 1], chain);
    let policy = and_waiving(&["gpu.measurements", "nvswitch.measurements"]);
    let seen = ids(judge(&policy, &devices, &[], NOVEMBER_2026));
    assert_eq!(seen[..2], ["devices.nonce", "devices.alike"]);
    assert!(seen[2..].iter().all(|id| *id == "nvswitch.topology"));
}

#[test]
fn rejects_another_number_of_devices_than_the_job_has() {
    let Some(root) = gpu_vectors() else { return };
    let (device, items) = h100(&root);
    let verifier = Verifier::new(AppraisalPolicy::parse(&policy()).unwrap());
    let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
    let nonce = [7; 32];
    let chips = [[9; 8].into_octets()];
    let expected = ExpectedDevices { nonce: &nonce, gpus: 2, switches: 0, chips: &chips };
    let verdict = verifier.appraise_devices(&[device], &items, &expected, MARCH_2026);
    assert_eq!(ids(verdict), ["devices.nonce", "devices.count", "gpu.chip"]);
}

trait IntoOctets {
    fn into_octets(self) -> measurement::octets::Octets<8>;
}

impl IntoOctets for [u8; 8] {
    fn into_octets(self) -> measurement::octets::Octets<8> {
        measurement::octets::Octets(self)
    }
}

#[test]
fn accepts_a_switch_with_its_manifest() {
    let Some(root) = gpu_vectors() else { return };
    let items = [read(&root, "ls10-switch/rim.xml")];
    let devices = [device(&root, "ls10-switch")];
    let result = judge(&policy(), &devices, &items, NOVEMBER_2026).unwrap();
    assert_eq!(result.devices()[0].matched(), 31);
    assert_eq!(result.devices()[0].architecture(), Architecture::Ls10);
    assert_eq!(result.devices()[0].vbios(), Some("96.10.55.00.01"));
}

#[test]
fn rejects_an_edited_manifest_of_an_expired_signer() {
    let Some(root) = gpu_vectors() else { return };
    let folder = "h100-570.124.03-expired-rim";
    let devices = [device(&root, folder)];
    let items = [read(&root, &format!("{folder}/driver-rim.xml"))];
    let verdict = judge(&policy(), &devices, &items, NEW_YEAR_2025);
    assert_eq!(verdict, in_endorsement(0, Inauthentic::Digest { over: "reference manifest" }));
    let expired = Inauthentic::Expired {
        role: Role::ManifestSigner,
        now: NOVEMBER_2026,
        until: 1_735_776_000,
    };
    assert_eq!(judge(&policy(), &devices, &items, NOVEMBER_2026), in_endorsement(0, expired));
    // The report is right.
    let policy = and_waiving(&["gpu.measurements"]);
    assert!(judge(&policy, &devices, &[], NOVEMBER_2026).is_ok());
}

#[test]
fn rejects_a_trailing_byte() {
    let Some(root) = gpu_vectors() else { return };
    let folder = "h100-580.95.05-trailing-byte";
    let trailing = Malformed::TrailingBytes { part: "device report", observed: 1 };
    let verdict = judge(&policy(), &[device(&root, folder)], &[], NOVEMBER_2026);
    assert_eq!(verdict, malformed(trailing));

    let report = hex_file(&root, &format!("{folder}/report.hex"));
    let chain = read(&root, &format!("{folder}/chain.pem"));
    let devices = [DeviceEvidence::new(&report[..report.len() - 1], chain)];
    let policy = and_waiving(&["gpu.measurements"]);
    assert!(judge(&policy, &devices, &[], NOVEMBER_2026).is_ok());
}

#[test]
fn rejects_values_of_an_older_revision_of_a_vbios_manifest() {
    let Some(root) = gpu_vectors() else { return };
    let folder = "h100-580.95.05-trailing-byte";
    let report = hex_file(&root, &format!("{folder}/report.hex"));
    let chain = read(&root, &format!("{folder}/chain.pem"));
    let devices = [DeviceEvidence::new(&report[..report.len() - 1], chain)];
    let items = [read(&root, &format!("{folder}/vbios-rim-old-revision.xml"))];
    let seen = findings(judge(&policy(), &devices, &items, AUGUST_2025));
    let [driver, vbios] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(driver.1, "device 0: no manifest of GH100 driver 580.95.05");
    assert!(vbios.1.starts_with("device 0: index 9 of 96.00.74.00.1A is "), "{}", vbios.1);
}

#[test]
fn rejects_a_report_under_the_chain_of_another_device() {
    let Some(root) = gpu_vectors() else { return };
    let report = hex_file(&root, "negative/report-wrong-chain.hex");
    let chain = read(&root, "negative/report-wrong-chain.chain.pem");
    let verdict = judge(&policy(), &[DeviceEvidence::new(report, chain)], &[], NOVEMBER_2026);
    assert_eq!(verdict, in_device(0, Inauthentic::Signature { over: "device report" }));
}

#[test]
fn rejects_chains_that_lack_certificates() {
    let Some(root) = gpu_vectors() else { return };
    let report = hex_file(&root, "h100-550.90.07/report.hex");
    for (name, observed) in [("chain-root-only", 1), ("chain-missing-intermediate", 4)] {
        let chain = read(&root, &format!("negative/{name}.pem"));
        let devices = [DeviceEvidence::new(report.clone(), chain)];
        let flaw = Inauthentic::ChainLength { observed, required: 5 };
        assert_eq!(judge(&policy(), &devices, &[], NOVEMBER_2026), in_device(0, flaw));
    }
}

#[test]
fn rejects_manifests_that_were_tampered_with() {
    let Some(root) = gpu_vectors() else { return };
    let (device, _) = h100(&root);
    let verdict = |name: &str, now| {
        let items = [read(&root, &format!("negative/{name}.xml"))];
        judge(&policy(), std::slice::from_ref(&device), &items, now)
    };
    assert_eq!(
        verdict("driver-rim-bad-signature", NOVEMBER_2026),
        in_endorsement(0, Inauthentic::Signature { over: "reference manifest" })
    );
    assert_eq!(
        verdict("switch-rim-bad-digest", AUGUST_2025),
        in_endorsement(0, Inauthentic::Digest { over: "reference manifest" })
    );
    assert_eq!(
        verdict("rim-debug-root", NOVEMBER_2026),
        in_endorsement(0, Inauthentic::UnknownRoot)
    );
}

#[test]
fn rejects_a_genuine_manifest_of_another_firmware() {
    let Some(root) = gpu_vectors() else { return };
    let (device, mut items) = h100(&root);
    items[0] = read(&root, "rims/NV_GPU_DRIVER_GH100_550.144.03.xml");
    assert_eq!(
        findings(judge(&policy(), &[device], &items, MARCH_2026)),
        [("gpu.measurements", "device 0: no manifest of GH100 driver 550.90.07".to_string())]
    );
}

#[test]
fn verifies_every_genuine_manifest_in_its_time() {
    let Some(root) = gpu_vectors() else { return };
    let (device, _) = h100(&root);
    let policy = and_waiving(&["gpu.measurements"]);
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("rims")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let items = [read(&root, &format!("rims/{name}"))];
        let judge = |now| judge(&policy, std::slice::from_ref(&device), &items, now);
        assert!(judge(AUGUST_2025).is_ok(), "{name}");
        if name.starts_with("NV_GPU_VBIOS") {
            assert!(judge(NOVEMBER_2026).is_err(), "{name}");
        }
        count += 1;
    }
    assert_eq!(count, 8);
}

#[test]
fn holds_a_served_manifest_to_the_name_it_is_served_under() {
    use base64ct::{Base64, Encoding};
    let Some(root) = gpu_vectors() else { return };
    let (device, items) = h100(&root);
    assert_eq!(
        device.manifest_ids().unwrap(),
        ["NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"]
    );
    let served = |id: &str, xml: &[u8], of: &[u8]| {
        let sum = hex::encode(measurement::digest::sha256(of));
        let rim = Base64::encode_string(xml);
        serde_json::json!({ "id": id, "rim": rim, "sha256": sum, "rim_format": "TCG" })
            .to_string()
            .into_bytes()
    };
    let verdict = |id: &str, of: &[u8]| {
        let items = [items[0].clone(), served(id, &items[1], of)];
        judge(&policy(), std::slice::from_ref(&device), &items, MARCH_2026)
    };
    assert!(verdict("NV_GPU_VBIOS_1010_0200_882_96009F0001", &items[1]).is_ok());
    // Another board's.
    assert_eq!(
        ids(verdict("NV_GPU_VBIOS_1010_0210_886_96009F0001", &items[1])),
        ["gpu.measurements"]
    );
    let flaw =
        Malformed::Endorsement { index: 1, problem: "is not the manifest that its sha-256 names" };
    assert_eq!(verdict("x", b"other"), Err(flaw.into()));
}

#[test]
fn rejects_labels_that_the_report_does_not_bear_out() {
    let Some(root) = gpu_vectors() else { return };
    let json = String::from_utf8(read(&root, "ppcie-8gpu-4switch/gpu_evidence.json")).unwrap();
    let policy = and_waiving(&["gpu.measurements"]);
    let verdict = |from: &str, to: &str| {
        let devices = DeviceEvidence::read_json(json.replacen(from, to, 1).as_bytes()).unwrap();
        judge(&policy, &devices, &[], NOVEMBER_2026)
    };
    let label = |label| in_device(0, Inauthentic::Label { label });
    assert_eq!(verdict("4760e3", "4760e4"), label("nonce"));
    assert_eq!(verdict("\"590.12\"", "\"590.13\""), label("driver_version"));
    assert_eq!(verdict("96.00.A5", "96.00.A6"), label("vbios_version"));
    let labelled = Architecture::Blackwell;
    let flaw = Inauthentic::Architecture { labelled, certificates: Architecture::Hopper };
    assert_eq!(verdict("HOPPER", "BLACKWELL"), in_device(0, flaw));
}

#[test]
fn rejects_every_byte_of_a_report_flipped_and_every_prefix() {
    let Some(root) = gpu_vectors() else { return };
    let (device, _) = h100(&root);
    let verifier = Verifier::new(AppraisalPolicy::parse(&policy()).unwrap());
    let nonce: [u8; 32] = device.report()[4..36].try_into().unwrap();
    let expected = ExpectedDevices { nonce: &nonce, gpus: 1, switches: 0, chips: &[] };
    let mut cache = Cache::new(1);
    let mut refuses = |report: Vec<u8>| {
        let devices = [DeviceEvidence::new(report, device.chain())];
        // Without manifests: what a flip changes is found before they are looked at.
        verifier
            .appraise_devices_with(&mut cache, &devices, &[], &expected, MARCH_2026)
            .unwrap_err()
    };
    for at in 0..device.report().len() {
        let mut report = device.report().to_vec();
        report[at] ^= 1 << (at % 8);
        let rejection = refuses(report);
        assert!(!matches!(rejection, Rejection::Unacceptable(_)), "byte {at}: {rejection}");
    }
    for len in 0..device.report().len() {
        let rejection = refuses(device.report()[..len].to_vec());
        assert!(matches!(rejection, Rejection::Malformed(_)), "prefix {len}: {rejection}");
    }
}

#[test]
fn knows_the_other_encoding_of_a_signature_for_the_same_evidence() {
    const ORDER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffff\
                         c7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let Some(root) = gpu_vectors() else { return };
    let (device, items) = h100(&root);
    let mut report = device.report().to_vec();
    let at = report.len() - 48;
    // n - s is as good as s: no one can refuse it, so the signature is no part of the identity.
    let mut borrow = 0;
    for (place, digit) in hex::decode(ORDER).unwrap().iter().enumerate().rev() {
        let difference = i16::from(*digit) - i16::from(report[at + place]) - borrow;
        borrow = i16::from(difference < 0);
        report[at + place] = difference.rem_euclid(256) as u8;
    }
    assert_ne!(report, device.report());
    let other = DeviceEvidence::new(report, device.chain());
    let identity = |device| judge(&policy(), &[device], &items, MARCH_2026).unwrap().identity();
    assert_eq!(identity(other), identity(device));
}

#[test]
fn rejects_a_manifest_with_any_byte_changed_or_cut_short() {
    let Some(root) = gpu_vectors() else { return };
    let (device, items) = h100(&root);
    let chain = &device.chain();
    let devices = [DeviceEvidence::new(device.report(), *chain)];
    let xml = &items[0];
    let policy = policy();
    // Every seventh byte, for time: each costs the verification of a whole manifest.
    for at in (0..xml.len()).step_by(7) {
        let mut changed = xml.clone();
        changed[at] ^= 1;
        let items = [changed, items[1].clone()];
        let verdict = judge(&policy, &devices, &items, MARCH_2026);
        assert!(verdict.is_err(), "byte {at}");
    }
    for len in (0..xml.len() - 1).step_by(53) {
        let items = [xml[..len].to_vec(), items[1].clone()];
        let verdict = judge(&policy, &devices, &items, MARCH_2026);
        assert!(matches!(verdict, Err(Rejection::Malformed(_))), "prefix {len}: {verdict:?}");
    }
}

#[test]
fn says_what_to_get_for_a_device() {
    let Some(root) = gpu_vectors() else { return };
    let urls = |folder: &str| -> Vec<String> {
        let sources = device_sources(&device(&root, folder)).unwrap();
        sources.into_iter().map(|source| source.url).collect()
    };
    assert_eq!(
        urls("gb100-575.32"),
        [
            "https://rim.attestation.nvidia.com/v1/rim/NV_GPU_CC_DRIVER_GB100_575.32",
            "https://rim.attestation.nvidia.com/v1/rim/NV_GPU_VBIOS_G525_0220_886_970088000F",
            "http://crl.ndis.nvidia.com/crl/l1-root.crl",
            "http://crl.ndis.nvidia.com/crl/l2-gb100.crl",
            "http://crl.ndis.nvidia.com/crl-corim/l1-corim.crl",
            "http://ocsp.ndis.nvidia.com",
        ]
    );
    assert!(urls("ls10-switch")[0].ends_with("/NV_SWITCH_BIOS_5612_0002_890_9610550001"));
    assert!(urls("ls10-switch")[2].ends_with("/l2-gh100.crl"));
}

#[test]
fn tells_what_a_manifest_is_and_until_when_it_is_good() {
    let Some(root) = gpu_vectors() else { return };
    let [described] = &describe_for_devices(&h100(&root).1[0]).unwrap()[..] else { panic!() };
    assert_eq!(described.what, "reference manifest");
    assert_eq!(described.subject, "GH100 550.90.07");
    assert_eq!((described.from, described.until), (1_717_207_709, 1_780_279_709));
    assert!(describe_for_devices(b"").is_err());
}

#[test]
fn explains_every_field_of_a_report_at_its_place() {
    let Some(root) = gpu_vectors() else { return };
    for (folder, count) in [("h100-550.90.07", 24), ("gb100-575.32", 25), ("ls10-switch", 17)] {
        let device = device(&root, folder);
        let fields = explain_device(&device).unwrap();
        assert_eq!(fields.len(), count, "{folder}");
        assert_eq!(fields.last().unwrap().at, device.report().len() - 96);
        for field in fields.iter().filter(|field| field.at > 45 && field.value.len() == 2) {
            // One byte in hexadecimal: it stands behind its type and size.
            let byte = hex::encode(&device.report()[field.at + 4..][..1]);
            assert_eq!(field.value, byte, "{folder} {}", field.name);
        }
        assert!(fields.iter().all(|field| !field.name.starts_with("unknown")));
    }
    let fields = explain_device(&h100(&root).0).unwrap();
    let value = |name| &*fields.iter().find(|field| field.name == name).unwrap().value;
    assert_eq!(value("chip"), "GH100");
    assert_eq!(value("driver version"), "550.90.07");
    assert_eq!(value("project"), "1010");
    assert_eq!(value("nvdec0 status"), "55");
    assert_eq!(value("measurements"), "64, 26 of them not zero");
}
