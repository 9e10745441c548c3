//! The program from outside: statuses, first lines, and what it says when it cannot judge.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn auditor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister-auditor")).args(arguments).output().unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A folder in which everything that is required lies, and nothing is right.
fn desk(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    for sub in ["image", "log"] {
        fs::create_dir_all(folder.join(sub)).unwrap();
    }
    for file in [
        "receipt.json",
        "policy.toml",
        "image/kernel",
        "image/initrd",
        "image/cmdline",
        "image/firmware.fd",
        "image/image.json",
        "log/checkpoint",
    ] {
        fs::write(folder.join(file), "x").unwrap();
    }
    folder
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

#[test]
fn cannot_judge_without_what_is_required_and_says_what_is_missing() {
    for (file, artefact) in [
        ("receipt.json", "receipt"),
        ("policy.toml", "policy"),
        ("image/kernel", "image: kernel"),
        ("image/image.json", "image: image.json"),
    ] {
        let folder = desk(&format!("missing-{}", artefact.replace([':', ' '], "-")));
        fs::remove_file(folder.join(file)).unwrap();
        let output = auditor(&["verify", &path(&folder, "receipt.json")]);
        assert_eq!(output.status.code(), Some(2), "{file}");
        let required = format!("cloister-auditor: could not judge: {artefact} is missing");
        assert!(err(&output).starts_with(&required), "{}", err(&output));
        assert_eq!(out(&output), "");
    }
}

#[test]
fn cannot_judge_without_a_log_and_says_so_in_json_too() {
    let folder = desk("no-log");
    fs::remove_dir_all(folder.join("log")).unwrap();
    let output = auditor(&["verify", &path(&folder, "receipt.json"), "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("hint: say where it is with --log"), "{}", err(&output));
    let json: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(json["verdict"], "could not judge");
    assert!(json["problem"].as_str().unwrap().starts_with("log is missing"));
}

#[test]
fn an_optional_file_that_is_named_must_be_there() {
    let folder = desk("named");
    let absent = path(&folder, "absent.sds");
    let output = auditor(&["verify", &path(&folder, "receipt.json"), "--dataset", &absent]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("dataset is missing"), "{}", err(&output));
}

#[test]
fn rejects_what_is_no_receipt_and_lists_what_was_not_checked() {
    let folder = desk("no-receipt");
    let receipt = path(&folder, "receipt.json");
    let output = auditor(&["verify", &receipt]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        out(&output),
        format!(
            "rejected  {receipt}\n  finding      receipt: the receipt is not a dsse envelope, \
             required is a receipt that prints back to the same bytes  [receipt.malformed]\n  \
             not checked  manifest, sealed adapter, adapter, dataset, base\n"
        )
    );
    let output = auditor(&["verify", &receipt, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(json["verdict"], "rejected");
    assert_eq!(json["findings"][0]["id"], "receipt.malformed");
    assert_eq!(json["not_checked"].as_array().unwrap().len(), 5);
    assert!(json["simulated"].is_null());
}

#[test]
fn a_data_set_that_is_none_is_a_finding() {
    let folder = desk("dataset");
    fs::write(folder.join("dataset.sds"), "not sealed at all").unwrap();
    let output = auditor(&["verify", &path(&folder, "receipt.json"), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(json["findings"][1]["id"], "dataset.malformed");
}

#[test]
fn a_rejected_receipt_has_a_page_and_the_same_status() {
    let folder = desk("report");
    let page = path(&folder, "page.html");
    let output = auditor(&["report", &path(&folder, "receipt.json"), "--out", &page]);
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).starts_with("rejected  "));
    assert!(fs::read_to_string(page).unwrap().contains("<h1>Rejected training receipt</h1>"));
    let output = auditor(&["report", &path(&folder, "receipt.json")]);
    assert!(out(&output).starts_with("# Rejected training receipt\n"));
}

#[test]
fn epsilon_prints_both_bounds_and_how_they_came_about() {
    let arguments =
        ["epsilon", "--sigma", "1", "--q", "0.01", "--steps", "1000", "--delta", "1e-5"];
    let output = auditor(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let first = "epsilon <= 1.83 at delta 1e-5, and not below 1.82\n";
    assert!(out(&output).starts_with(first), "{}", out(&output));
    let json: serde_json::Value =
        serde_json::from_str(&out(&auditor(&[&arguments[..], &["--json"]].concat()))).unwrap();
    let number = |key: &str| json[key].as_f64().unwrap();
    let (upper, lower) = (number("epsilon_upper"), number("epsilon_lower"));
    assert!(lower <= 1.828_236_7 && 1.828_236_6 <= upper && upper - lower < 1e-3, "{json}");
    assert!(number("epsilon_renyi") > upper);
    assert_eq!(json["method"], "cloister-pld/1");
    assert!(json["grid"]["spacing"].as_f64().unwrap() > 0.0);
    assert!(json["solved"].is_null() && json["attack"].is_null());
    let third = out(&auditor(&[&arguments[..], &["--third-opinion"]].concat()));
    assert!(third.contains("  variables    epsilon between 1.81 and 1.84\n"), "{third}");
}

#[test]
fn epsilon_solves_for_the_one_term_left_out() {
    let given = [("--sigma", "1.2"), ("--q", "0.02"), ("--steps", "500"), ("--delta", "1e-6")];
    for (out_of, name) in [(0, "sigma"), (1, "q"), (2, "steps"), (3, "delta")] {
        let mut arguments = vec!["epsilon", "--target-epsilon", "2", "--json"];
        for (at, (flag, value)) in given.iter().enumerate() {
            if at != out_of {
                arguments.extend([flag, value]);
            }
        }
        let output = auditor(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let json: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!(json["solved"], name);
        let upper = json["epsilon_upper"].as_f64().unwrap();
        assert!(upper <= 2.000_5 && upper > 1.99, "{name}: {upper}");
    }
    for arguments in [
        &["epsilon", "--target-epsilon", "2", "--sigma", "1", "--q", "0.1"][..],
        &[
            "epsilon",
            "--target-epsilon",
            "2",
            "--sigma",
            "1",
            "--q",
            "0.1",
            "--steps",
            "9",
            "--delta",
            "1e-5",
        ],
        &["epsilon", "--target-epsilon", "-2", "--q", "0.1", "--steps", "9", "--delta", "1e-5"],
    ] {
        let output = auditor(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn epsilon_tells_units_neighbours_and_attackers() {
    let arguments = [
        "epsilon",
        "--sigma",
        "2",
        "--q",
        "1",
        "--steps",
        "4",
        "--delta",
        "1e-5",
        "--unit",
        "customer_id",
        "--adjacency",
        "replace-one",
        "--max-units",
        "512",
        "--attack",
    ];
    let output = auditor(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for part in
        ["customer_id", "one unit is another one, of at most 512", "closed form", "advantage"]
    {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
    let json: serde_json::Value =
        serde_json::from_str(&out(&auditor(&[&arguments[..], &["--json"]].concat()))).unwrap();
    // Two normals a distance 2 apart.
    assert!((json["epsilon_upper"].as_f64().unwrap() - 9.997_256_146).abs() < 1e-6, "{json}");
    assert!((json["attack"]["advantage"].as_f64().unwrap() - 0.682_689).abs() < 1e-4, "{json}");
}

#[test]
fn epsilon_refuses_what_cannot_be() {
    for (sigma, q, delta) in [("0", "0.1", "1e-5"), ("1", "2", "1e-5"), ("1", "0.1", "0.5")] {
        let arguments = [
            "epsilon",
            "--sigma",
            sigma,
            "--q",
            q,
            "--steps",
            "10",
            "--delta",
            delta,
            "--max-units",
            "10",
        ];
        let output = auditor(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(err(&output).starts_with("cloister-auditor: "));
    }
    for (sigma, q, steps, delta) in [
        ("NaN", "0.1", "9", "1e-5"),
        ("1", "NaN", "9", "1e-5"),
        ("1", "0.1", "0", "1e-5"),
        ("1", "0.1", "9", "1"),
    ] {
        let arguments = ["epsilon", "--sigma", sigma, "--q", q, "--steps", steps, "--delta", delta];
        let output = auditor(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(err(&output).starts_with("cloister-auditor: "));
    }
}

#[test]
fn replay_says_why_an_image_has_no_measurement() {
    let folder = desk("replay");
    let output = auditor(&["replay", "--image", &path(&folder, "image")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("image.json"), "{}", err(&output));
    let output = auditor(&["replay", "--image", &path(&folder, "absent")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("image is missing"), "{}", err(&output));
}

#[test]
fn appraise_rejects_what_is_no_report() {
    let folder = desk("appraise");
    fs::write(folder.join("policy.toml"), attestation_verifier::policy::STRICT).unwrap();
    let (report, policy) = (path(&folder, "receipt.json"), path(&folder, "policy.toml"));
    let challenge = "00".repeat(64);
    let output = auditor(&[
        "appraise",
        "--tee",
        "snp",
        "--evidence",
        &report,
        "--policy",
        &policy,
        "--report-data",
        &challenge,
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let json: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(json["verdict"], "rejected");
    assert_eq!(json["findings"][0]["id"], "shape.length");
}

#[test]
fn refuses_to_trace_what_is_no_manifest() {
    let folder = desk("trace");
    let output = auditor(&["trace", &path(&folder, "receipt.json")]);
    assert_eq!((output.status.code(), out(&output)), (Some(2), String::new()));
    assert!(err(&output).contains("receipt.json: malformed manifest"), "{}", err(&output));
    fs::write(folder.join("long"), vec![0; 70_000]).unwrap();
    let output = auditor(&["trace", &path(&folder, "long")]);
    assert!(err(&output).contains("has 70000 bytes, a manifest has at most 65536"));
    assert_eq!(output.status.code(), Some(2));
}
