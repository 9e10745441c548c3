//! The sample policies: each parses, says what it is, and judges recorded evidence as its page promises.

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

use attestation_verifier::evidence::unwrapped;
use attestation_verifier::policy::{AWS, AZURE, AppraisalPolicy, EVIDENCE, GCP, STRICT};
use common::{appraise, read, reasons, vectors};
use measurement::manifest::Tee;
use serde_json::Value;

struct Case {
    id: String,
    tee: Tee,
    evidence: Vec<u8>,
    endorsements: Vec<Vec<u8>>,
    at: u64,
    crypto: String,
    policy: String,
}

impl Case {
    fn all(root: &Path) -> Vec<Self> {
        let cases: Value = serde_json::from_slice(&read(root, "cases.json")).unwrap();
        cases["cases"].as_array().unwrap().iter().map(|case| Self::load(root, case)).collect()
    }

    fn load(root: &Path, case: &Value) -> Self {
        let text = |key: &str| case[key].as_str().unwrap().to_string();
        let keys = ["vek", "intermediate", "ark", "collateral"];
        let endorsements = keys.iter().filter_map(|key| case[*key].as_str());
        let tee = if text("tee") == "tdx" { Tee::Tdx } else { Tee::Snp };
        let mut evidence = read(root, &text("evidence"));
        if tee == Tee::Tdx
            && let Ok(quote) = attestation_verifier::evidence::unpadded(&evidence)
        {
            evidence = quote.to_vec();
        }
        Self {
            id: text("id"),
            tee,
            evidence,
            endorsements: endorsements.map(|path| read(root, path)).collect(),
            at: case["verify_at"].as_u64().unwrap(),
            crypto: text("crypto"),
            policy: text("policy"),
        }
    }

    fn find(root: &Path, id: &str) -> Self {
        Self::all(root).into_iter().find(|case| case.id == id).expect(id)
    }

    fn reasons(&self, policy: &str) -> Vec<&'static str> {
        let verdict = appraise(policy, self.tee, &self.evidence, &self.endorsements, b"", self.at);
        reasons(&verdict)
    }
}

#[test]
fn every_sample_parses_and_names_every_check_of_its_sections() {
    for policy in [STRICT, EVIDENCE, AZURE, GCP, AWS] {
        AppraisalPolicy::parse(policy).unwrap();
        // A person can read it: every section is introduced, and nothing is waived without words.
        assert!(policy.starts_with('#'));
        assert!(policy.lines().filter(|line| line.trim_start().starts_with('#')).count() > 8);
    }
    for (policy, tdx, gpu) in [(AZURE, false, true), (AWS, false, false), (GCP, true, true)] {
        assert_eq!(policy.contains("\n[tdx]\n"), tdx);
        assert_eq!(policy.contains("\n[gpu]\n"), gpu);
        assert!(!policy.contains("\n[nvswitch]\n"), "no provider has confidential switches");
    }
}

#[test]
fn the_policy_for_evidence_alone_is_the_strict_one_but_for_a_few_lines() {
    let body = |policy: &'static str| &policy[policy.find("[binding]").unwrap()..];
    let (strict, alone) = (body(STRICT), body(EVIDENCE));
    let differing: Vec<_> = strict
        .lines()
        .zip(alone.lines())
        .filter(|(strict, alone)| strict != alone)
        .map(|(strict, _)| strict.split('=').next().unwrap().trim())
        .collect();
    let devices = ["revocation", "manifest_revocation"].repeat(2);
    assert_eq!(differing[..4], ["challenge", "launch_blob", "crl", "rtmr3"]);
    assert_eq!(differing[4..], devices);
    assert_eq!(strict.lines().count(), alone.lines().count());
}

#[test]
fn gives_every_recorded_case_its_verdict_without_a_job() {
    let Some(root) = vectors() else { return };
    for case in Case::all(&root) {
        if case.tee == Tee::Tdx && cfg!(not(feature = "tdx-collateral")) {
            continue;
        }
        let reasons = case.reasons(EVIDENCE);
        let authentic =
            !reasons.iter().any(|id| id.starts_with("shape.") || id.starts_with("origin."));
        assert_eq!(authentic, case.crypto == "accept", "{}: {reasons:?}", case.id);
        let product = ["snp.products", "snp.tcb_floor"];
        match case.policy.as_str() {
            "accept" => assert!(reasons.is_empty(), "{}: {reasons:?}", case.id),
            "product" => assert_eq!(reasons, product, "{}", case.id),
            _ => assert!(!reasons.is_empty(), "{}", case.id),
        }
    }
}

#[test]
fn judges_guests_of_azure() {
    let Some(root) = vectors() else { return };
    let accepted: [&str; 0] = [];
    assert_eq!(Case::find(&root, "snp/turin-v5-azure").reasons(AZURE), accepted);
    let milan = ["snp.products", "snp.tcb_floor"];
    assert_eq!(Case::find(&root, "snp/milan-v3-azure").reasons(AZURE), milan);
    // Somebody else's guest on the same kind of machine.
    let stranger = ["snp.id_key", "snp.guest_svn"];
    let mut found = Case::find(&root, "snp/genoa-v5").reasons(AZURE);
    found.retain(|id| stranger.contains(id));
    found.sort_unstable();
    assert_eq!(found, ["snp.guest_svn", "snp.id_key"]);
}

#[cfg(feature = "tdx-collateral")]
#[test]
fn judges_guests_of_google_and_refuses_quotes_of_azure() {
    let Some(root) = vectors() else { return };
    let google = Case::find(&root, "tdx/gcp-cos113-v4-00806f05");
    assert_eq!(google.reasons(GCP), ["binding.challenge"]);
    let azure = Case::find(&root, "tdx/azure-v4-no-septve-00806f05");
    assert_eq!(azure.reasons(AZURE), ["policy.section"]);
    assert!(azure.reasons(GCP).contains(&"tdx.sept_ve_disable"));
}

#[test]
fn judges_guests_of_aws() {
    let Some(root) = vectors() else { return };
    let guest = Case::find(&root, "snp/milan-v3-vlek-vmpl1");
    // It was asked for at level 1, on firmware ahead of the committed one, and came without a list.
    assert_eq!(guest.reasons(AWS), ["snp.crl", "snp.vmpl", "snp.provisional_firmware"]);
    let azure = Case::find(&root, "snp/turin-v5-azure").reasons(AWS);
    assert!(azure.contains(&"snp.signers"), "{azure:?}");
}

#[test]
fn judges_gpus_of_azure_and_of_google_and_refuses_those_of_aws() {
    use attestation_verifier::appraise::{ExpectedDevices, Finding, Verifier};
    use attestation_verifier::evidence::device::DeviceEvidence;

    let Some(root) = common::gpu_vectors() else { return };
    let judge = |folder: &str, policy: &str| {
        let text = String::from_utf8(read(&root, &format!("{folder}/report.hex"))).unwrap();
        let report = hex::decode(text.trim()).unwrap();
        let device = DeviceEvidence::new(report, read(&root, &format!("{folder}/chain.pem")));
        let names = ["driver-rim.xml", "vbios-rim.xml", "rim.xml"];
        let paths = names.map(|name| format!("{folder}/{name}"));
        let there = paths.iter().filter(|path| root.join(path).is_file());
        let items: Vec<_> = there.map(|path| read(&root, path)).collect();
        let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
        let nonce = device.nonce().unwrap();
        let switches = usize::from(folder.starts_with("ls10"));
        let expected = ExpectedDevices { nonce: &nonce, gpus: 1 - switches, switches, chips: &[] };
        let verifier = Verifier::new(AppraisalPolicy::parse(policy).unwrap());
        let verdict = verifier.appraise_devices(&[device], &items, &expected, 1_772_323_200);
        let reasons = verdict.err().map(|rejection| rejection.reasons()).unwrap_or_default();
        reasons.iter().map(Finding::id).collect::<Vec<_>>()
    };
    let hopper = "h100-550.90.07";
    assert!(judge(hopper, AZURE).is_empty());
    // Google's, as the strict one, asks for what recorded evidence comes without.
    assert_eq!(judge(hopper, GCP), ["gpu.revocation", "gpu.manifest_revocation"]);
    assert_eq!(judge(hopper, AWS), ["policy.section"]);
    let blackwell = judge("gb100-575.32", AZURE);
    assert_eq!(blackwell[..4], ["gpu.products", "gpu.driver", "gpu.vbios", "gpu.modes"]);
    assert_eq!(judge("ls10-switch", AZURE), ["origin.not_yet_valid"]);
}

fn hcl(root: &Path) -> (Vec<u8>, Vec<Vec<u8>>) {
    let wrapper: Value =
        serde_json::from_slice(&read(root, "snp/reports/milan-az-hcl/evidence.json")).unwrap();
    let bytes = |key: &str| {
        use base64ct::Encoding;
        let text = wrapper["evidence"][key].as_str().unwrap().trim_end_matches('=').to_string();
        base64ct::Base64UrlUnpadded::decode_vec(&text).unwrap()
    };
    let chain = ["snp/roots/milan_ask.pem", "snp/roots/milan_ark.pem"].map(|path| read(root, path));
    (bytes("hcl_report"), [vec![bytes("vcek")], chain.to_vec()].concat())
}

#[test]
fn takes_azures_wrapper_off_and_judges_what_is_inside() {
    let Some(root) = vectors() else { return };
    let (wrapper, endorsements) = hcl(&root);
    let inside = unwrapped(&wrapper).unwrap();
    assert_eq!(inside.user_data, Some([0; 64]));
    assert!(inside.runtime.starts_with(b"{\"keys\":[{\"kid\":\"HCLAkPub\""));
    let verdict = appraise(AZURE, Tee::Snp, inside.report, &endorsements, b"", 1_740_000_000);
    assert_eq!(reasons(&verdict), ["snp.products", "snp.tcb_floor"]);
}

#[test]
fn refuses_every_flip_and_every_prefix_of_azures_wrapper() {
    let Some(root) = vectors() else { return };
    let (wrapper, endorsements) = hcl(&root);
    let used = 0x20 + 1184 + 20 + 1110;
    for at in 0..wrapper.len() {
        let mut changed = wrapper.clone();
        changed[at] ^= 1;
        // The status in the header says nothing, and the report is judged by its signature.
        let report = 0x20..0x20 + 1184;
        if (0x10..0x14).contains(&at) {
            continue;
        }
        match unwrapped(&changed) {
            Err(_) => {}
            Ok(inside) => {
                assert!(report.contains(&at), "{at:#x}");
                let verdict =
                    appraise(AZURE, Tee::Snp, inside.report, &endorsements, b"", 1_740_000_000);
                assert!(verdict.is_err());
            }
        }
    }
    for len in 0..used {
        assert!(unwrapped(&wrapper[..len]).is_err(), "{len}");
    }
    assert!(unwrapped(&wrapper[..used]).is_ok());
    let mut longer = wrapper.clone();
    longer.resize(16 * 1024, 0);
    assert!(unwrapped(&longer).is_ok());
    longer.push(0);
    assert!(unwrapped(&longer).is_err());
}
