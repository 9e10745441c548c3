//! The floor plan is a test: who may import whom, what the measured image is made of, and that the
//! README claims nothing without a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Package, floor, and what it may import of ours. A package imports from floors below its own.
const FLOOR_PLAN: &[(&str, u8, &[&str])] = &[
    ("measurement", 0, &[]),
    ("sealed", 1, &["measurement"]),
    ("attestation-verifier", 1, &["measurement"]),
    ("trainer", 1, &["measurement"]),
    ("auditor", 2, &["attestation-verifier", "measurement"]),
    ("broker", 2, &["attestation-verifier", "measurement", "sealed"]),
    ("enclave", 2, &["attestation-verifier", "measurement", "sealed", "trainer"]),
    ("host", 2, &["measurement"]),
    (
        "tests",
        3,
        &[
            "attestation-verifier",
            "auditor",
            "broker",
            "enclave",
            "host",
            "measurement",
            "sealed",
            "trainer",
        ],
    ),
];

/// Outside crates that a package of the measured image names itself, each with its reason.
const IMAGE: &[(&str, &str)] = &[
    ("base64ct", "base64 of notes and envelopes, constant time"),
    ("candle-core", "tensors and the reference engine"),
    ("candle-nn", "the reference engine's layers"),
    ("der", "X.509 extensions, byte for byte"),
    ("hex", "digests as text"),
    ("hpke", "RFC 9180: X25519 and X-Wing"),
    ("libm", "the accountant's mathematics, the same bits everywhere"),
    ("minijinja", "chat templates, with fuel and without clock or files"),
    ("minijinja-contrib", "the methods of Python's strings in them"),
    ("rand_chacha", "batch and noise streams"),
    ("rand_core", "the traits of both"),
    ("ring", "AES-GCM, SHA-2, Ed25519, ECDSA, RSA-PSS, entropy"),
    ("rustix", "mounts, modules, locked memory, without unsafe of ours"),
    ("rustls", "TLS 1.3 to the brokers"),
    ("safetensors", "the gate reads back what leaves"),
    ("serde", "types that travel"),
    ("serde_cbor", "deterministic CBOR behind one door"),
    ("serde_json", "statements, envelopes, model configurations"),
    ("sev", "the SNP guest device"),
    ("sha2", "digests in code without an allocator's or platform's help"),
    ("tdx_attest", "the TDREPORT call"),
    ("thiserror", "error types"),
    ("tokenizers", "tokenizer.json"),
    ("toml", "appraisal policies, in the verifier the image shares"),
    ("x509-cert", "certificates"),
    ("zeroize", "secrets are gone on drop"),
];

/// None of these may be anywhere in the measured image.
const NEVER_IN_IMAGE: &[&str] =
    &["axum", "clap", "curl", "dcap-qvl", "hyper", "openssl", "reqwest", "tokio", "ureq"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(arguments)
        .args(["--offline", "--locked"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints text")
}

/// Package to the names of what it depends on, tests and build scripts left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let json = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&json).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|one| one["kind"].is_null())
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    packages.iter().map(|p| (p["name"].as_str().unwrap().to_owned(), names(p))).collect()
}

#[test]
fn packages_import_only_what_the_floor_plan_allows() {
    let found = dependencies();
    let planned: BTreeSet<_> = FLOOR_PLAN.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), planned, "packages");
    for (name, _, allowed) in FLOOR_PLAN {
        let allowed: BTreeSet<_> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let ours: BTreeSet<_> = found[*name].intersection(&planned).cloned().collect();
        assert!(ours.is_subset(&allowed), "{name} imports {ours:?}, may import {allowed:?}");
    }
}

#[test]
fn the_floor_plan_has_no_circle_and_no_sideways_import() {
    let floor = |name: &str| FLOOR_PLAN.iter().find(|(n, ..)| *n == name).unwrap().1;
    for (name, own, allowed) in FLOOR_PLAN {
        for below in *allowed {
            assert!(floor(below) < *own, "{name} may not import {below}");
        }
    }
}

#[test]
fn the_measured_image_names_only_the_dependencies_on_the_list() {
    let found = dependencies();
    let image = ["measurement", "sealed", "attestation-verifier", "trainer", "enclave"];
    let planned: BTreeSet<_> = FLOOR_PLAN.iter().map(|(name, ..)| *name).collect();
    // The laptop tool's and Intel's collateral are features the image does not have.
    let optional = ["anyhow", "clap", "dcap-qvl", "getrandom", "indicatif"];
    let named: BTreeSet<_> = image
        .iter()
        .flat_map(|package| &found[*package])
        .map(String::as_str)
        .filter(|name| !planned.contains(name) && !optional.contains(name))
        .collect();
    let listed: BTreeSet<_> = IMAGE.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, listed);
}

#[test]
fn the_measured_image_is_made_of_the_crates_on_record() {
    let tree = cargo(&[
        "tree",
        "-p",
        "enclave",
        "-e",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--format",
        "{p}",
    ]);
    let found: BTreeSet<_> =
        tree.lines().filter_map(|line| line.split(' ').next()).filter(|n| !n.is_empty()).collect();
    for never in NEVER_IN_IMAGE {
        assert!(!found.contains(never), "{never} is in the measured image");
    }
    let record = include_str!("../vectors/image.crates");
    let recorded: BTreeSet<_> =
        record.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let new: Vec<_> = found.difference(&recorded).collect();
    let gone: Vec<_> = recorded.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "new: {new:?}, gone: {gone:?}");
}

#[test]
fn the_pure_packages_call_neither_files_nor_network_nor_clock() {
    for folder in ["measurement/src", "measurement/sealed/src", "attestation-verifier/src"] {
        let lib = fs::read_to_string(root().join(folder).join("lib.rs")).unwrap();
        assert!(lib.contains("#![no_std]"), "{folder} has the standard library at hand");
        for file in sources(&root().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            // Tests may read vectors; they stand at the end of a file or in files of their own.
            let code = text.split("#[cfg(test)]").next().unwrap();
            let is_test = file.to_string_lossy().contains("tests");
            for word in ["std::fs", "std::net", "std::time", "SystemTime", "SystemRandom"] {
                assert!(is_test || !code.contains(word), "{} says {word}", file.display());
            }
        }
    }
}

#[test]
fn every_claim_of_the_readme_has_a_status_and_a_test_that_exists() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rows: Vec<_> = readme.lines().filter(|line| line.starts_with("| C")).collect();
    assert!(rows.len() >= 10, "the table of claims has {} rows", rows.len());
    let all: String = sources(&root())
        .iter()
        .filter(|path| !path.starts_with(root().join("target")))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, id, _, status, tests, _] = cells[..] else { panic!("{row}") };
        let statuses = ["recorded real evidence", "real hardware", "simulated", "software"];
        assert!(statuses.contains(&status), "{id}: status {status}");
        for test in tests.split(',').map(|test| test.trim().trim_matches('`')) {
            assert!(all.contains(&format!("fn {test}(")), "{id}: no test {test}");
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
