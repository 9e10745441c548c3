//! The laptop tool, as it is run.
#![cfg(feature = "tool")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::too_many_lines
)]

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

/// All families with reference vectors, through the tool as it is run.
#[test]
fn agrees_with_transformers_and_peft() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/dp/models");
    if !Path::new(root).is_dir() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the reference vectors are absent");
        println!("skipped: the reference vectors are absent");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    for family in ["gpt2", "gpt_neox", "gptj", "llama", "mistral"] {
        let model = format!("{root}/{family}");
        let text = std::fs::read_to_string(format!("{model}/expected.json")).unwrap();
        let facts: Value = serde_json::from_str(&text).unwrap();
        let tolerance = |name: &str| facts["tolerance"][name].as_f64().unwrap();
        let bytes = std::fs::read(format!("{model}/expected.safetensors")).unwrap();
        let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let path = |name: &str| text_of(&out.path().join(name));
        let examples: Vec<Value> = (0..6)
            .map(|i| {
                let ids = facts["input_ids"][i].as_array().unwrap();
                let prompt = facts["prompt_lens"][i].as_u64().unwrap().max(1) as usize;
                let label =
                    |(t, id): (usize, &Value)| if t < prompt { (-100).into() } else { id.clone() };
                let labels: Vec<Value> = ids.iter().enumerate().map(label).collect();
                serde_json::json!({"ids": ids, "labels": labels})
            })
            .collect();
        let adapter = format!("{model}/adapter");
        for (i, example) in examples.iter().enumerate() {
            std::fs::write(path("ids.json"), example["ids"].to_string()).unwrap();
            for (more, name) in [(&[][..], "base"), (&["--adapter", &adapter], "lora")] {
                let args = ["forward", &model, "--ids", &path("ids.json"), "--json"];
                let found = json(&[&args[..], more].concat());
                let rows = found["logits"].as_array().unwrap().iter();
                let found: Vec<f64> = rows
                    .flat_map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()))
                    .collect();
                let wanted = reals(&expected, &format!("{name}_logits.{i}"));
                assert_eq!(found.len(), wanted.len());
                let worst =
                    found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < tolerance("logits_abs"), "{family} {name} {i}: {worst}");
            }
        }
        std::fs::write(path("examples.json"), Value::from(examples).to_string()).unwrap();
        let args = ["gradients", &model, "--adapter", &adapter, "--examples"];
        let to = [&path("examples.json")[..], "--out", &path("out.safetensors")];
        assert!(tool(&[&args[..], &to].concat()).status.success());
        let bytes = std::fs::read(path("out.safetensors")).unwrap();
        let found = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let near = reals(&found, "losses").into_iter().zip(reals(&expected, "losses"));
        near.for_each(|(a, b)| assert!((a - b).abs() < tolerance("loss_abs"), "{family}"));
        let names: Vec<_> =
            expected.names().into_iter().filter(|name| name.starts_with("grad.")).collect();
        assert!(!names.is_empty());
        for name in names {
            let (found, wanted) = (reals(&found, name), reals(&expected, name));
            let square = |x: f64| x * x;
            let error: f64 = found.iter().zip(&wanted).map(|(a, b)| square(a - b)).sum();
            let size: f64 = wanted.iter().copied().map(square).sum();
            let error = (error / size).sqrt();
            assert!(error < tolerance("grad_rel_l2"), "{family} {name}: {error}");
        }
    }
}

fn text_of(path: &Path) -> String {
    text(path).to_owned()
}

fn reals(file: &safetensors::SafeTensors<'_>, name: &str) -> Vec<f64> {
    let view = file.tensor(name).unwrap();
    match view.dtype() {
        safetensors::Dtype::F32 => {
            view.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
        }
        _ => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
    }
}

/// The base model of this test is in f32, so that there is nothing to round.
#[test]
fn rehearses_in_bf16_where_the_processor_can() {
    let (folder, model, records) = folder();
    let adapter = folder.path().join("adapter");
    let train = ["train", text(&model), "--data", text(&records), "--out", text(&adapter)];
    let steps = ["--steps", "1", "--rank", "2", "--sequence", "32", "--bf16"];
    let batch = ["--expected-batch", "1", "--physical-batch", "1"];
    let args = [&train[..], &steps, &batch].concat();
    if trainer::engine::Kernel::rounding().is_some() {
        assert!(tool(&args).status.success());
    } else {
        assert!(problem(&args).contains("--bf16: this processor has no instructions for it"));
    }
}

#[test]
fn names_what_it_cannot_use() {
    let (folder, model, records) = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, records) = (text(&model), text(&records));
    std::fs::write(at("ids.json"), "[1, 320]").unwrap();
    let said = problem(&["forward", model, "--ids", &at("ids.json")]);
    assert!(said.ends_with("ids.json: an id is not below 320\n"), "{said}");
    std::fs::write(at("ids.json"), format!("{:?}", [1; 49])).unwrap();
    let said = problem(&["forward", model, "--ids", &at("ids.json")]);
    assert!(said.contains("sequence length is 49, the model allows 2 to 48"), "{said}");

    let train = ["train", model, "--data", records, "--out", &at("adapter")];
    let steps = ["--steps", "1", "--rank", "2", "--sequence", "32"];
    let batch = ["--expected-batch", "1", "--physical-batch", "1"];
    assert!(tool(&[&train[..], &steps, &batch].concat()).status.success());
    let gradients = |json: &str| {
        std::fs::write(at("examples.json"), json).unwrap();
        let args = ["gradients", model, "--adapter", &at("adapter"), "--examples"];
        problem(&[&args[..], &[&at("examples.json"), "--out", "unused"]].concat())
    };
    assert!(gradients(r#"[{"ids":[1,320],"labels":[1,320]}]"#).contains("an id is not below 320"));
    assert!(gradients(r#"[{"ids":[1,2],"labels":[1]}]"#).contains("as many labels as ids"));
    assert!(gradients(r#"[{"ids":[1,2],"labels":[1,3]}]"#).contains("a label is its own id"));

    // An adapter of another base, and a shard that the index names and that is not there.
    let edit = |name: &str, from: &str, to: &str| {
        let old = std::fs::read_to_string(at(name)).unwrap();
        assert!(old.contains(from));
        std::fs::write(at(name), old.replace(from, to)).unwrap();
    };
    edit("adapter/adapter_config.json", "\"o_proj\"", "\"c_attn\"");
    let said = problem(&["forward", model, "--ids", "x", "--adapter", &at("adapter")]);
    assert!(said.contains("lora target c_attn is not a linear layer"), "{said}");
    let index = r#"{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}"#;
    std::fs::write(at("model/model.safetensors.index.json"), index).unwrap();
    let said = problem(&["forward", model, "--ids", "x"]);
    assert!(said.contains("model/model-2.safetensors: No such file"), "{said}");
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
