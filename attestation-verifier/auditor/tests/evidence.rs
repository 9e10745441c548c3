//! `appraise`, `explain` and `endorse` from outside, on recorded evidence.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn auditor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister-auditor")).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", out(output), String::from_utf8_lossy(&output.stderr)))
}

/// The vectors' folder. Absent, a developer's machine skips the test and CI fails it.
fn vectors() -> Option<PathBuf> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/cpu"));
    if root.is_dir() {
        return Some(root);
    }
    assert!(std::env::var_os("CI").is_none(), "the vectors are missing");
    eprintln!("skipped: the vectors are missing");
    None
}

fn desk(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The arguments that judge a recorded case.
fn arguments(root: &Path, case: &Value) -> Vec<String> {
    let file = |path: &str| text(&root.join(path));
    let mut arguments = vec!["appraise".to_owned(), "--evidence".to_owned()];
    arguments.push(file(case["evidence"].as_str().unwrap()));
    for key in ["vek", "intermediate", "ark", "collateral"] {
        if let Some(path) = case[key].as_str() {
            arguments.extend(["--endorsement".to_owned(), file(path)]);
        }
    }
    arguments.extend(["--at".to_owned(), case["verify_at"].to_string()]);
    arguments
}

fn cases(root: &Path) -> Vec<Value> {
    let cases: Value = serde_json::from_slice(&fs::read(root.join("cases.json")).unwrap()).unwrap();
    cases["cases"].as_array().unwrap().clone()
}

fn case(root: &Path, id: &str) -> Value {
    cases(root).into_iter().find(|case| case["id"] == id).unwrap()
}

fn run(mut arguments: Vec<String>, more: &[&str]) -> Output {
    arguments.extend(more.iter().map(ToString::to_string));
    auditor(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn gives_every_recorded_case_its_verdict() {
    let Some(root) = vectors() else { return };
    for case in cases(&root) {
        let output = run(arguments(&root, &case), &["--json"]);
        let (id, json) = (&case["id"], json(&output));
        assert_eq!(json["format"], case["crypto"], "{id}: {json}");
        // Milan is refused by default.
        let policy =
            if case["policy"] == "product" { "reject" } else { case["policy"].as_str().unwrap() };
        assert_eq!(json["policy"], policy, "{id}: {json}");
        let accepted = policy == "accept";
        assert_eq!(output.status.code(), Some(i32::from(!accepted)), "{id}");
        assert_eq!(json["findings"].as_array().unwrap().is_empty(), accepted, "{id}");
        for finding in json["findings"].as_array().unwrap() {
            assert!(["id", "observed", "required"].iter().all(|key| finding[*key].is_string()));
        }
    }
}

#[test]
fn says_in_words_what_it_found_and_what_it_was_not_asked() {
    let Some(root) = vectors() else { return };
    let output = run(arguments(&root, &case(&root, "snp/turin-v5-azure")), &[]);
    let said = out(&output);
    assert!(said.starts_with("accepted  "), "{said}");
    assert!(said.contains("not judged   binding.report_data: nothing was asked for"), "{said}");
    let challenge = "01".repeat(64);
    let output = run(
        arguments(&root, &case(&root, "snp/turin-v5-azure")),
        &["--report-data", &challenge, "--json"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["format"], "reject");
    assert_eq!(json(&output)["findings"][0]["id"], "binding.report_data");
    let said = out(&run(
        arguments(&root, &case(&root, "snp/turin-v5-azure")),
        &["--report-data", &challenge],
    ));
    let [verdict, finding, advice, ..] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("{said}")
    };
    assert_eq!(verdict, "rejected  evidence");
    assert!(finding.starts_with("  finding      binding.report_data is "), "{said}");
    assert!(advice.starts_with("    do         replayed or misrouted: ask for new"), "{said}");
}

#[test]
fn cannot_judge_without_endorsements_or_with_files_it_cannot_read() {
    let Some(root) = vectors() else { return };
    let report = text(&root.join("snp/reports/genoa-v5/report.bin"));
    let output = auditor(&["appraise", "--evidence", &report, "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let said = json(&output);
    assert_eq!(said["verdict"], "could not judge");
    assert_eq!(said["findings"][0]["id"], "origin.missing");
    let output = auditor(&["appraise", "--evidence", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(out(&output), "");
}

#[test]
fn takes_azures_wrapper_and_our_bundle_for_evidence() {
    use base64ct::Encoding;
    use measurement::cbor::{Blob, encode};
    use measurement::manifest::Tee;
    use measurement::receipt::CpuEvidence;

    let Some(root) = vectors() else { return };
    let folder = desk("wrapper");
    let wrapper: Value = serde_json::from_slice(
        &fs::read(root.join("snp/reports/milan-az-hcl/evidence.json")).unwrap(),
    )
    .unwrap();
    let bytes = |key: &str| {
        let text = wrapper["evidence"][key].as_str().unwrap().trim_end_matches('=');
        base64ct::Base64UrlUnpadded::decode_vec(text).unwrap()
    };
    fs::write(folder.join("hcl.bin"), bytes("hcl_report")).unwrap();
    fs::write(folder.join("vcek.der"), bytes("vcek")).unwrap();
    let file = |name: &str| text(&folder.join(name));
    let root_file = |name: &str| text(&root.join("snp/roots").join(name));
    let output = auditor(&[
        "appraise",
        "--json",
        "--at",
        "1740000000",
        "--evidence",
        &file("hcl.bin"),
        "--endorsement",
        &file("vcek.der"),
        &root_file("milan_ask.pem"),
    ]);
    let said = json(&output);
    assert_eq!((&said["format"], &said["policy"]), (&"accept".into(), &"reject".into()), "{said}");
    assert!(said["notes"][0].as_str().unwrap().starts_with("azure's wrapper"));

    let output = auditor(&[
        "appraise",
        "--json",
        "--at",
        "1740000000",
        "--evidence",
        &text(&root.join("snp/reports/milan-az-hcl/evidence.json")),
        "--endorsement",
        &root_file("milan_ask.pem"),
    ]);
    assert_eq!(json(&output)["format"], "accept", "{}", out(&output));

    let bundle = CpuEvidence {
        tee: Tee::Snp,
        report: Blob(fs::read(root.join("snp/reports/genoa-v5/report.bin")).unwrap()),
        endorsements: ["snp/reports/genoa-v5/vcek.der", "snp/roots/genoa_ask.pem"]
            .map(|path| Blob(fs::read(root.join(path)).unwrap()))
            .to_vec(),
    };
    fs::write(folder.join("bundle.cbor"), encode(&bundle)).unwrap();
    let output =
        auditor(&["appraise", "--evidence", &file("bundle.cbor"), "--at", "1772500000", "--json"]);
    assert_eq!(json(&output)["verdict"], "accepted");
}

#[test]
fn writes_a_record_that_comes_out_the_same_again_and_only_then() {
    let Some(root) = vectors() else { return };
    let folder = desk("record");
    let record = text(&folder.join("record.cbor"));
    let case = case(&root, "tdx/gotdx-v5-bt3-90c06f");
    let judged = arguments(&root, &case);
    assert!(run(judged.clone(), &["--transcript", &record]).status.success());
    // Whoever replays needs the same files, and no time.
    let without_time: Vec<_> = judged[..judged.len() - 2].to_vec();
    let output = run(without_time.clone(), &["--replay", &record]);
    assert!(output.status.success(), "{}", out(&output));
    assert!(out(&output).starts_with("replayed  the record says accepted"), "{}", out(&output));
    let again = run(without_time.clone(), &["--replay", &record, "--json"]);
    assert_eq!(json(&again)["recorded"], "accepted");

    // A record that claims another verdict.
    let golden = fs::read(&record).unwrap();
    let at = golden.windows(9).position(|window| window == b"\x68accepted").unwrap() + 9;
    let mut forged = golden.clone();
    forged[at] = 0xf4;
    fs::write(&record, &forged).unwrap();
    let output = run(without_time.clone(), &["--replay", &record]);
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).starts_with("differs  the record says rejected"));

    // Other inputs than the record's: nothing can be said.
    fs::write(&record, &golden).unwrap();
    let other = arguments(&root, &self::case(&root, "tdx/dcapqvl-v4-b0c06f"));
    let output = run(other[..other.len() - 2].to_vec(), &["--replay", &record]);
    assert_eq!(output.status.code(), Some(2));
    fs::write(&record, b"no record").unwrap();
    assert_eq!(run(without_time, &["--replay", &record]).status.code(), Some(2));
}

#[test]
fn writes_a_token_that_its_key_signed() {
    use base64ct::{Base64UrlUnpadded, Encoding};
    use ring::rand::SystemRandom;
    use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

    let Some(root) = vectors() else { return };
    let folder = desk("token");
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    fs::write(folder.join("key"), pkcs8.as_ref()).unwrap();
    let (token, key_file) = (text(&folder.join("token")), text(&folder.join("key")));
    let judged = arguments(&root, &case(&root, "tdx/dstack-v4-rtmr3-90c06f"));
    let output = run(judged, &["--ear", &token, "--ear-key", &key_file]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let jwt = fs::read_to_string(&token).unwrap();
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let decode = |part: &str| Base64UrlUnpadded::decode_vec(part).unwrap();
    UnparsedPublicKey::new(&ED25519, key.public_key().as_ref())
        .verify(signed.as_bytes(), &decode(signature))
        .unwrap();
    let claims: Value = serde_json::from_slice(&decode(signed.split_once('.').unwrap().1)).unwrap();
    let cpu = &claims["submods"]["cpu0"];
    assert_eq!(cpu["ear.status"], "affirming");
    assert_eq!(cpu["ear.veraison.annotated-evidence"]["tdx"]["tcb_status"], "UpToDate");
}

#[test]
fn explains_evidence_and_refuses_what_is_none() {
    let Some(root) = vectors() else { return };
    let debug = text(&root.join("tdx/quotes/trustee-v4-debug-50806f.bin"));
    let output = auditor(&["explain", &debug]);
    assert!(output.status.success());
    assert!(out(&output).starts_with("unjudged  "));
    assert!(out(&output).contains("the host CAN READ the guest's memory"));
    let page = json(&auditor(&["explain", &debug, "--json"]));
    assert_eq!(page["tee"], "tdx");
    assert!(page["pages"][0]["fields"].as_array().unwrap().len() > 30);
    let none = text(&root.join("tdx/quotes/tdreport-1024.bin"));
    assert_eq!(auditor(&["explain", &none]).status.code(), Some(1));
    assert_eq!(auditor(&["explain", "/nowhere/at/all"]).status.code(), Some(2));
}

#[test]
fn keeps_endorsements_and_gives_none_out_past_its_time() {
    let Some(root) = vectors() else { return };
    let folder = desk("shelf");
    let cache = text(&folder.join("cache"));
    let file = |path: &str| text(&root.join(path));
    let quote = file("tdx/quotes/gotdx-v5-bt3-90c06f.bin");
    let sources = out(&auditor(&["endorse", "fetch", &quote]));
    assert!(sources.contains("tcb?fmspc=90c06f000000"), "{sources}");

    let pieces = [
        "tcb_info_90c06f000000.json",
        "tcb_info_50806f000000.json",
        "td_qe_identity.json",
        "tcb_signing_chain.pem",
        "pck_crl_platform.der",
        "root_ca_crl.der",
    ]
    .map(|name| file(&format!("tdx/collateral/cai/{name}")));
    let add = |at: &str| {
        let mut arguments = vec!["endorse", "add", "--cache", &cache, "--at", at, "--json"];
        arguments.extend(pieces.iter().map(String::as_str));
        auditor(&arguments)
    };
    // A day too late none of what ends is taken.
    let late = add("1776400000");
    assert_eq!(late.status.code(), Some(1));
    assert!(json(&late)["refused"].as_array().unwrap().len() >= 4, "{}", out(&late));
    let output = add("1774000000");
    assert!(output.status.success(), "{}", out(&output));
    let judge = |at: &str| {
        auditor(&["appraise", "--evidence", &quote, "--cache", &cache, "--at", at, "--json"])
    };
    let said = json(&judge("1774000000"));
    assert_eq!(said["verdict"], "accepted", "{said}");
    // Past their time they are not given out, so nothing is there to judge with.
    let late = judge("1779000000");
    assert_eq!(late.status.code(), Some(2), "{}", out(&late));
    assert_eq!(json(&late)["findings"][0]["id"], "origin.missing");

    // A file that is not what its name says is passed over.
    for entry in fs::read_dir(folder.join("cache")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(judge("1774000000").status.code(), Some(2));
}

#[test]
fn keeps_the_chains_of_several_chips_and_finds_the_right_one() {
    let Some(root) = vectors() else { return };
    let folder = desk("chips");
    let cache = text(&folder.join("cache"));
    let file = |path: &str| text(&root.join(path));
    let chains = [
        "snp/reports/genoa-v5/vcek.der",
        "snp/reports/turin-v5-azure/vcek.pem",
        "snp/reports/milan-v3-azure/vcek.pem",
        "snp/roots/genoa_ask.pem",
        "snp/roots/genoa_asvk.pem",
        "snp/roots/genoa_ark.pem",
        "snp/roots/turin_ask.pem",
        "snp/roots/milan_ask.pem",
        "snp/roots/milan_asvk.pem",
    ]
    .map(file);
    let mut arguments = vec!["endorse", "add", "--cache", &cache, "--at", "1772500000"];
    arguments.extend(chains.iter().map(String::as_str));
    let output = auditor(&arguments);
    assert!(output.status.success(), "{}", out(&output));
    for (name, accepted) in
        [("genoa-v5", true), ("turin-v5-azure", true), ("milan-v3-azure", false)]
    {
        let report = file(&format!("snp/reports/{name}/report.bin"));
        let said = json(&auditor(&[
            "appraise",
            "--evidence",
            &report,
            "--cache",
            &cache,
            "--at",
            "1772500000",
            "--json",
        ]));
        assert_eq!(said["format"], "accept", "{name}: {said}");
        assert_eq!(said["policy"] == "accept", accepted, "{name}: {said}");
    }
    let vlek = file("snp/reports/milan-v3-vlek-vmpl1/vlek.der");
    let output = auditor(&["endorse", "add", &vlek, "--cache", &cache, "--at", "1772500000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).starts_with("refused  "), "{}", out(&output));
}

/// A table of certificates as hosts hand it to guests.
fn table(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut at = 24 * (entries.len() + 1);
    let (mut head, mut body) = (Vec::new(), Vec::new());
    for (guid, bytes) in entries {
        head.extend(hex::decode(guid.replace('-', "")).unwrap());
        head.extend(u32::try_from(at).unwrap().to_le_bytes());
        head.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        body.extend(bytes);
        at += bytes.len();
    }
    [head, vec![0; 24], body].concat()
}

#[test]
fn takes_reports_and_certificates_in_every_form_they_are_stored_in() {
    use base64ct::{Base64, Encoding};

    let Some(root) = vectors() else { return };
    let folder = desk("forms");
    let file = |path: &str| root.join(path);
    let report = fs::read(file("snp/reports/genoa-v5/report.bin")).unwrap();
    let vcek = fs::read(file("snp/reports/genoa-v5/vcek.der")).unwrap();
    let ask = fs::read(file("snp/roots/genoa_ask.pem")).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).unwrap();
        text(&folder.join(name))
    };
    let judge = |evidence: &[String], endorsements: &[String]| {
        let mut arguments = vec!["appraise", "--json", "--at", "1772500000", "--evidence"];
        arguments.extend(evidence.iter().map(String::as_str));
        if !endorsements.is_empty() {
            arguments.push("--endorsement");
            arguments.extend(endorsements.iter().map(String::as_str));
        }
        json(&auditor(&arguments))
    };
    let vcek_file = write("vcek.der", &vcek);
    let ask_file = write("ask.pem", &ask);
    let chain = [vcek_file.clone(), ask_file.clone()];
    let said = format!("subject=SEV-Genoa\n{}\nthat was it\n", String::from_utf8_lossy(&ask));
    for (name, bytes) in [
        ("report.hex", hex::encode(&report).into_bytes()),
        ("report.b64", Base64::encode_string(&report).into_bytes()),
        ("report.json", serde_json::json!({ "report": hex::encode(&report) }).to_string().into()),
    ] {
        let page = judge(&[write(name, &bytes)], &chain);
        assert_eq!(page["verdict"], "accepted", "{name}: {page}");
    }
    let report_file = write("report.bin", &report);
    // Certificates as text, among what tools print, and beside the evidence.
    let vcek_text = write("vcek.b64", Base64::encode_string(&vcek).as_bytes());
    let ask_text = write("ask.txt", said.as_bytes());
    let page = judge(std::slice::from_ref(&report_file), &[vcek_text, ask_text]);
    assert_eq!(page["verdict"], "accepted", "{page}");
    let page = judge(&[report_file.clone(), vcek_file, ask_file], &[]);
    assert_eq!(page["verdict"], "accepted", "{page}");
    // In the host's table, behind the report or by itself, in either order of a GUID's bytes.
    let entries = [
        ("63da758d-e664-4564-adc5-f4b93be8accd", vcek.clone()),
        ("79b3b74a-acbb-e44f-a02f-05aef327c782", ask.clone()),
    ];
    let page = judge(&[write("extended.bin", &[report.clone(), table(&entries)].concat())], &[]);
    assert_eq!(page["verdict"], "accepted", "{page}");
    let page = judge(&[report_file], &[write("table.bin", &table(&entries))]);
    assert_eq!(page["verdict"], "accepted", "{page}");
    // Anything else behind a report is a byte too many.
    let mut broken = table(&entries);
    broken[0] ^= 1;
    for rest in [vec![0], vec![0; 24], broken] {
        let page = judge(&[write("extended.bin", &[report.clone(), rest].concat())], &chain);
        assert_eq!((&page["format"], &page["policy"]), (&"reject".into(), &"reject".into()));
    }
}

#[test]
fn takes_event_logs_beside_quotes_and_quotes_with_their_logs() {
    let Some(root) = vectors() else { return };
    let file = |path: &str| text(&root.join(path));
    let judge = |evidence: &[&str], collateral: &str, at: &str| {
        let evidence: Vec<_> = evidence.iter().map(|path| file(path)).collect();
        let collateral = file(&format!("tdx/collateral/{collateral}.collateral.json"));
        let mut arguments = vec!["appraise", "--json", "--at", at, "--endorsement", &collateral];
        arguments.push("--evidence");
        arguments.extend(evidence.iter().map(String::as_str));
        let page = json(&auditor(&arguments));
        let ids: Vec<_> =
            page["findings"].as_array().unwrap().iter().map(|f| f["id"].clone()).collect();
        (page["format"].clone(), ids)
    };
    let march = ("assembled-90c06f-2026-03", "1774000000");
    let whole = ["ccel/dstack-quote-report.json"];
    assert_eq!(judge(&whole, march.0, march.1), ("accept".into(), vec![]));
    let october = ("assembled-00806f05-2025-10", "1760982530");
    let quote = "tdx/quotes/gcp-cos113-v4-00806f05.bin";
    let own = [quote, "ccel/gcp-cos113.ccel.bin"];
    let challenge = vec!["binding.challenge".into()];
    assert_eq!(judge(&own, october.0, october.1), ("accept".into(), challenge));
    // Another machine's log tells a tale.
    let other = [quote, "ccel/attrs-live.ccel.bin"];
    let (format, ids) = judge(&other, october.0, october.1);
    assert_eq!(format, "accept");
    assert!(ids.contains(&"tdx.event_log".into()), "{ids:?}");
}
