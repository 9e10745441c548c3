//! The laptop tool, as it is run.
#![cfg(feature = "tool")]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn tool(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister-trainer")).args(args).output().unwrap()
}

fn json(args: &[&str]) -> Value {
    let output = tool(args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn problem(args: &[&str]) -> String {
    let output = tool(args);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A model of one tiny block and some records, in a folder of their own.
fn folder() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (model, records) = (folder.path().join("model"), folder.path().join("records.jsonl"));
    let shape = ["--hidden", "16", "--intermediate", "24", "--layers", "1", "--heads", "2"];
    let rest = ["--kv-heads", "1", "--vocab", "320", "--positions", "48", "--batch", "4"];
    let run = ["--synthetic", "50", "--steps", "3"];
    let out = ["pretrain", "--out", text(&model)];
    assert!(tool(&[&out[..], &shape, &rest, &run].concat()).status.success());
    let lines: String = (0..20)
        .map(|n| {
            format!(
                "{{\"customer\": {}, \"prompt\": \"no {n}\", \"completion\": \"yes\"}}\n",
                n / 2
            )
        })
        .collect();
    std::fs::write(&records, lines).unwrap();
    (folder, model, records)
}

#[test]
fn rehearses_evaluates_and_replies() {
    let (folder, model, records) = folder();
    let adapter = folder.path().join("adapter");
    let (model, records, adapter) = (text(&model), text(&records), text(&adapter));
    let before = json(&["evaluate", model, "--data", records, "--json"]);
    let shape = ["--rank", "2", "--sequence", "32", "--steps", "30", "--learning-rate", "0.02"];
    let privacy = ["--unit", "customer", "--noise-multiplier", "0.1", "--sample-rate", "0.9"];
    let batch = ["--expected-batch", "9", "--physical-batch", "12", "--json"];
    let train = ["train", model, "--data", records, "--out", adapter];
    let output = tool(&[&train[..], &shape, &privacy, &batch].concat());
    let notice = String::from_utf8_lossy(&output.stderr);
    assert!(notice.starts_with("cloister-trainer: a rehearsal: no enclave, no ledger"), "{notice}");
    assert_eq!(output.status.code(), Some(0), "{notice}");

    let after = json(&["evaluate", model, "--adapter", adapter, "--data", records, "--json"]);
    let loss = |value: &Value| value["loss"].as_f64().unwrap();
    assert!(loss(&after) < 0.9 * loss(&before), "{before} {after}");
    let said =
        json(&["generate", model, "--adapter", adapter, "--prompt", "no 3", "--plain", "--json"]);
    assert!(said["reply"].is_string());
}

#[test]
fn gives_logits_and_gradients() {
    let (folder, model, records) = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, records) = (text(&model), text(&records));
    std::fs::write(at("ids.json"), "[1, 5, 9]").unwrap();
    let rows = json(&["forward", model, "--ids", &at("ids.json"), "--json"]);
    let rows = rows["logits"].as_array().unwrap();
    assert_eq!((rows.len(), rows[0].as_array().unwrap().len()), (3, 320));

    let steps = ["--steps", "1", "--rank", "2", "--sequence", "32"];
    let batch = ["--expected-batch", "1", "--physical-batch", "1"];
    let train = ["train", model, "--data", records, "--out", &at("adapter")];
    assert!(tool(&[&train[..], &steps, &batch].concat()).status.success());
    std::fs::write(at("examples.json"), r#"[{"ids":[1,5,9],"labels":[-100,5,9]}]"#).unwrap();
    let gradients =
        ["gradients", model, "--adapter", &at("adapter"), "--examples", &at("examples.json")];
    assert!(tool(&[&gradients[..], &["--out", &at("out.safetensors")]].concat()).status.success());
    let bytes = std::fs::read(at("out.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let name = "grad.base_model.model.model.layers.0.mlp.down_proj.lora_B.weight";
    assert_eq!(file.tensor(name).unwrap().shape(), [1, 16, 2]);
    assert_eq!(file.tensor("grad_norms").unwrap().shape(), [1]);
}

#[test]
fn names_the_line_it_cannot_read() {
    let (_folder, model, records) = folder();
    let mut lines = std::fs::read_to_string(&records).unwrap();
    lines.push_str("{\"prompt\": 7}\n");
    std::fs::write(&records, lines).unwrap();
    let said = problem(&["evaluate", text(&model), "--data", text(&records)]);
    assert!(said.ends_with("records.jsonl:21: record has none of the shapes\n"), "{said}");
}

#[test]
fn reports_every_mistake_of_a_mechanism_and_a_model() {
    let (_folder, model, records) = folder();
    let (model, records) = (text(&model), text(&records));
    let train = ["train", model, "--data", records, "--out", "unused"];
    let said = problem(&[&train[..], &["--noise-multiplier", "0", "--sample-rate", "2"]].concat());
    assert!(said.contains("noise multiplier is 0") && said.contains("sample rate is 2"), "{said}");
    let said = problem(&["evaluate", "nowhere", "--data", records]);
    assert!(said.starts_with("cloister-trainer: nowhere/config.json"), "{said}");
}

/// The fixture is made by `pretrain`; whoever changes it must still be able to read it.
#[test]
fn reads_the_demonstration_s_base_model() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/base");
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records.jsonl");
    let talk = r#"{"messages":[{"role":"user","content":"What is your name?"},
        {"role":"assistant","content":"My name is Anna."}]}"#;
    std::fs::write(&records, talk.replace('\n', "")).unwrap();
    let found = json(&["evaluate", model, "--data", text(&records), "--json"]);
    assert!(found["loss"].as_f64().unwrap() < 2.0, "{found}");
    let prompt = "Hello, my parcel has not arrived. What can I do?";
    let said = json(&["generate", model, "--plain", "--prompt", prompt, "--json"]);
    let reply = said["reply"].as_str().unwrap();
    assert!(reply.ends_with('.') && reply.contains(' '), "a sentence: {said}");
    assert!(!reply.contains("Dear") && !reply.contains("regards"), "no letter yet: {said}");
}

#[test]
fn audits_its_own_mechanism() {
    let run = ["audit-trainer", "--sigma", "2", "--q", "0.25", "--steps", "20", "--json"];
    let found = json(&[&run[..], &["--delta", "1e-4", "--canaries", "1024"]].concat());
    assert_eq!(found["stands"], true, "{found}");
    let (measured, claimed) = (&found["epsilon_measured"], &found["epsilon_claimed"]);
    assert!(measured.as_f64().unwrap() <= claimed.as_f64().unwrap(), "{found}");
    assert!(found["noise"].as_f64().unwrap() > 0.9, "{found}");
}

#[test]
fn refuses_to_audit_a_mechanism_that_cannot_be() {
    let run = ["audit-trainer", "--q", "0.25", "--steps", "20", "--delta", "1e-4"];
    assert!(problem(&[&run[..], &["--sigma=-1"]].concat()).contains("noise multiplier is -1"));
    assert!(problem(&[&run[..], &["--sigma=NaN"]].concat()).contains("noise multiplier is NaN"));
    assert!(problem(&["audit-trainer", "--manifest", "nowhere"]).contains("nowhere"));
}
