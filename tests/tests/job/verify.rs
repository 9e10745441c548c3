//! `cloister verify` on a finished job, and on twenty mutated copies of each of its artefacts: all
//! are refused, each with a finding that names the artefact and the check.
//!
//! Mutations are pseudo-random from a fixed seed: bits flipped, ends cut off. What is printed with a
//! failure is the mutation.

use measurement::digest::sha256;
use measurement::manifest::Tee;

use crate::scene::{Scene, copy_folder};

const MUTATIONS: u32 = 20;

/// One way to damage a file.
#[derive(Debug)]
enum Mutation {
    /// Bit `bit` of byte `at`.
    Flip { at: usize, bit: u8 },
    /// Only this many bytes are left.
    Cut { left: usize },
}

impl Mutation {
    /// The mutation with this number of a file of `length` bytes: three flips, then a cut.
    fn nth(name: &str, number: u32, length: usize) -> Self {
        let seed = sha256(format!("mutation {number} of {name}").as_bytes());
        let drawn = u64::from_be_bytes(*seed.first_chunk().unwrap());
        let at = usize::try_from(drawn % length as u64).unwrap();
        if number % 4 == 3 { Self::Cut { left: at } } else { Self::Flip { at, bit: seed[8] % 8 } }
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        match *self {
            Self::Flip { at, bit } => bytes[at] ^= 1 << bit,
            Self::Cut { left } => bytes.truncate(left),
        }
    }
}

/// Twenty mutations of one file: each is refused with nothing but findings of `artefacts` (of any,
/// where there are none), the first of which is among `ids`.
fn refuses(scene: &Scene, name: &str, artefacts: &[&str], ids: &[&str]) {
    let golden = scene.read(name);
    for number in 0..MUTATIONS {
        let mutation = Mutation::nth(name, number, golden.len());
        scene.change(name, |bytes| mutation.apply(bytes));
        let findings = match scene.judge().unwrap().verdict {
            Ok(_) => panic!("{name} {mutation:?} was not found"),
            Err(findings) => findings,
        };
        for one in &findings {
            let named = artefacts.iter().any(|artefact| *artefact == one.artefact);
            assert!(named || artefacts.is_empty(), "{name} {mutation:?}: {one}");
            assert!(!one.check.is_empty() && one.observed != one.required, "{one}");
        }
        assert!(ids.contains(&findings[0].id.as_str()), "{name} {mutation:?}: {findings:?}");
        scene.write(name, &golden);
    }
    assert_eq!(scene.findings(), [""; 0]);
}

#[test]
fn accepts_the_finished_jobs_of_both_platforms() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let Some(scene) = Scene::finished(tee) else { return };
        let judged = scene.judge().unwrap();
        let text = auditor::verdict::text(&judged);
        assert!(text.starts_with("verified  SIMULATED  receipt "), "{text}");
        let checked = [
            "receipt",
            "approvals",
            "policy",
            "evidence",
            "image",
            "log",
            "manifest",
            "sealed adapter",
            "adapter",
            "dataset",
            "base",
        ];
        assert_eq!(judged.checked, checked);
        assert_eq!(judged.not_checked, ["adapter: README.md"]);
    }
}

/// What the first finding about a mutated receipt may be.
const OF_RECEIPT: [&str; 18] = [
    "approvals.manifest",
    "approvals.payload_type",
    "approvals.quorum",
    "approvals.repeated",
    "approvals.signature",
    "evidence.inauthentic",
    "evidence.malformed",
    "manifest.file",
    "receipt.closing",
    "receipt.countersignatures",
    "receipt.launch_blob",
    "receipt.malformed",
    "receipt.payload_type",
    "receipt.release_proof",
    "receipt.repeated_signature",
    "receipt.signature",
    "receipt.statement",
    "receipt.stray_signature",
];

#[test]
fn refuses_every_mutation_of_the_receipt() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    // What is changed inside the receipt may contradict every artefact beside it.
    refuses(&scene, "job.receipt", &[], &OF_RECEIPT);
    let Some(scene) = Scene::finished(Tee::Tdx) else { return };
    refuses(&scene, "job.receipt", &[], &OF_RECEIPT);
}

#[test]
fn refuses_every_mutation_of_the_manifest_and_the_policy() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    refuses(&scene, "manifest.cbor", &["manifest"], &["manifest.file"]);
    refuses(&scene, "policy.toml", &["policy"], &["policy.digest"]);
}

#[test]
fn refuses_every_mutation_of_the_image() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let Some(scene) = Scene::finished(tee) else { return };
        for part in ["firmware.fd", "kernel", "initrd", "cmdline", "image.json"] {
            let artefact = format!("image: {part}");
            refuses(&scene, &format!("image/{part}"), &[&artefact, "image"], &["image.part"]);
        }
    }
}

#[test]
fn refuses_every_mutation_of_the_sealed_data_set() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    refuses(&scene, "dataset.sds", &["dataset"], &["dataset.root", "dataset.malformed"]);
}

#[test]
fn refuses_every_mutation_of_the_adapter_sealed_and_opened() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    refuses(&scene, "adapter.sealed", &["sealed adapter"], &["sealed_adapter.digest"]);
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let artefact = format!("adapter: {name}");
        refuses(&scene, &format!("adapter/{name}"), &[&artefact], &["adapter.digest"]);
    }
}

#[test]
fn refuses_every_mutation_of_the_base_model() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let artefact = format!("base: {name}");
        refuses(&scene, &format!("base/{name}"), &[&artefact], &["base.digest"]);
    }
}

#[test]
fn refuses_every_mutation_of_every_file_of_the_log() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    let files = scene.files("log");
    assert!(files.len() >= 9, "{files:?}");
    for file in files {
        let name = file.strip_prefix(scene.path("")).unwrap().display().to_string();
        let id = match name.strip_prefix("log/").unwrap().split_once('/') {
            Some(("records", _)) => "log.leaf",
            Some(_) => "log.tiles",
            None => "log.checkpoint",
        };
        refuses(&scene, &name, &["log", &name.replacen("log/", "log: ", 1)], &[id]);
    }
}

#[test]
fn a_file_beside_the_adapter_that_the_receipt_does_not_name_is_refused() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    scene.write("adapter/pytorch_model.bin", "pickle");
    assert_eq!(scene.findings(), ["adapter.extra adapter: pytorch_model.bin"]);
    std::fs::remove_file(scene.path("adapter/pytorch_model.bin")).unwrap();
    std::fs::remove_file(scene.path("adapter/adapter_config.json")).unwrap();
    assert_eq!(scene.findings(), ["adapter.missing adapter: adapter_config.json"]);
}

#[test]
fn the_artefacts_of_another_job_are_refused() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    let Some(other) = Scene::finished(Tee::Tdx) else { return };
    for (name, finding) in [
        ("manifest.cbor", "manifest.file manifest"),
        ("policy.toml", "policy.digest policy"),
        ("adapter.sealed", "sealed_adapter.digest sealed adapter"),
        ("dataset.sds", "dataset.root dataset"),
        ("adapter/adapter_model.safetensors", "adapter.digest adapter: adapter_model.safetensors"),
    ] {
        let golden = scene.read(name);
        scene.write(name, other.read(name));
        assert_eq!(scene.findings(), [finding]);
        scene.write(name, golden);
    }
    std::fs::remove_dir_all(scene.path("log")).unwrap();
    std::fs::create_dir(scene.path("log")).unwrap();
    copy_folder(&other.path("log"), &scene.path("log"));
    assert_eq!(scene.findings()[0], "log.checkpoint log", "{:?}", scene.findings());
}

#[test]
fn mutations_are_the_same_in_every_run() {
    let drawn = |number| format!("{:?}", Mutation::nth("a", number, 1000));
    assert_eq!([drawn(0), drawn(3)], ["Flip { at: 739, bit: 4 }", "Cut { left: 987 }"]);
}
