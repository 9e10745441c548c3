//! `appraise`, `explain` and `endorse` from outside, on recorded evidence of GPUs and switches, alone and
//! beside a processor's.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

/// 2024-06-01, 2025-01-01T12:00, 2025-08-01, 2026-03-01 and 2026-11-23.
const JUNE_2024: &str = "1717200000";
const NEW_YEAR_2025: &str = "1735732800";
const AUGUST_2025: &str = "1754006400";
const MARCH_2026: &str = "1772323200";
const NOVEMBER_2026: &str = "1795392000";

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
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors"));
    if root.is_dir() {
        return Some(root);
    }
    assert!(std::env::var_os("CI").is_none(), "the vectors are missing");
    eprintln!("skipped: the vectors are missing");
    None
}

fn desk(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("devices-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// `appraise --json` of files below the vectors of GPUs (absolute paths stay), at a time.
fn judge(root: &Path, evidence: &[&str], endorsements: &[&str], at: &str) -> Output {
    judge_more(root, evidence, endorsements, at, &[])
}

fn judge_more(
    root: &Path,
    evidence: &[&str],
    endorsements: &[&str],
    at: &str,
    more: &[&str],
) -> Output {
    let file = |path: &&str| root.join("gpu").join(path).display().to_string();
    let mut arguments = vec!["appraise".to_owned(), "--json".to_owned(), "--evidence".to_owned()];
    arguments.extend(evidence.iter().map(file));
    if !endorsements.is_empty() {
        arguments.push("--endorsement".to_owned());
        arguments.extend(endorsements.iter().map(file));
    }
    if !at.is_empty() {
        arguments.extend(["--at".to_owned(), at.to_owned()]);
    }
    arguments.extend(more.iter().map(ToString::to_string));
    auditor(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn ids(page: &Value) -> Vec<&str> {
    page["findings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

struct Case {
    what: &'static str,
    evidence: &'static [&'static str],
    endorsements: &'static [&'static str],
    at: &'static str,
    format: &'static str,
    /// None means accepted.
    findings: &'static [&'static str],
}

const H100: &str = "h100-550.90.07/report.hex";
const H100_CHAIN: &str = "h100-550.90.07/chain.pem";
const H100_DRIVER: &str = "h100-550.90.07/driver-rim.xml";
const H100_VBIOS: &str = "h100-550.90.07/vbios-rim.xml";

/// Every case of the vectors' table, with the verdict it gives.
const CASES: &[Case] = &[
    Case {
        what: "an H100 with its two manifests",
        evidence: &[H100],
        endorsements: &[H100_CHAIN, H100_DRIVER, H100_VBIOS],
        at: MARCH_2026,
        format: "accept",
        findings: &[],
    },
    Case {
        what: "the same after a manifest's signer has expired",
        evidence: &[H100],
        endorsements: &[H100_CHAIN, H100_DRIVER, H100_VBIOS],
        at: NOVEMBER_2026,
        format: "reject",
        findings: &["origin.expired"],
    },
    Case {
        what: "a token of the remote service whose keys are gone",
        evidence: &["h100-550.90.07/nras-eat-v3.json"],
        endorsements: &[],
        at: NOVEMBER_2026,
        format: "reject",
        findings: &["nras.opinion", "shape.evidence"],
    },
    Case {
        what: "an unsigned token of NVIDIA's own tool",
        evidence: &["claims/nvattest-h100-claims-v3.json"],
        endorsements: &[],
        at: NOVEMBER_2026,
        format: "reject",
        findings: &["nras.opinion", "shape.evidence"],
    },
    Case {
        what: "an old H100 that does not name its firmware",
        evidence: &["h100-545.00-nofwid/report.hex", "h100-545.00-nofwid/chain.pem"],
        endorsements: &["h100-545.00-nofwid/driver-rim.xml", "h100-545.00-nofwid/vbios-rim.xml"],
        at: JUNE_2024,
        format: "accept",
        findings: &["gpu.driver", "gpu.fwid", "gpu.modes"],
    },
    Case {
        what: "the same with another revision of a manifest",
        evidence: &["h100-545.00-nofwid/report.hex", "h100-545.00-nofwid/chain.pem"],
        endorsements: &[
            "h100-545.00-nofwid/driver-rim.xml",
            "h100-545.00-nofwid/vbios-rim-other-revision.xml",
        ],
        at: JUNE_2024,
        format: "accept",
        findings: &[
            "gpu.driver",
            "gpu.fwid",
            "gpu.modes",
            "gpu.measurements",
            "gpu.measurements",
            "gpu.measurements",
            "gpu.measurements",
        ],
    },
    Case {
        what: "a Blackwell without manifests",
        evidence: &["gb100-575.32/report.hex"],
        endorsements: &["gb100-575.32/chain.pem"],
        at: NOVEMBER_2026,
        format: "accept",
        findings: &["gpu.modes", "gpu.measurements", "gpu.measurements"],
    },
    Case {
        what: "a switch with its manifest",
        evidence: &["ls10-switch/report.hex"],
        endorsements: &["ls10-switch/chain.pem", "ls10-switch/rim.xml"],
        at: NOVEMBER_2026,
        format: "accept",
        findings: &[],
    },
    Case {
        what: "an edited manifest in its time",
        evidence: &["h100-570.124.03-expired-rim/report.hex"],
        endorsements: &[
            "h100-570.124.03-expired-rim/chain.pem",
            "h100-570.124.03-expired-rim/driver-rim.xml",
        ],
        at: NEW_YEAR_2025,
        format: "reject",
        findings: &["origin.digest"],
    },
    Case {
        what: "the same past its time",
        evidence: &["h100-570.124.03-expired-rim/report.hex"],
        endorsements: &[
            "h100-570.124.03-expired-rim/chain.pem",
            "h100-570.124.03-expired-rim/driver-rim.xml",
        ],
        at: NOVEMBER_2026,
        format: "reject",
        findings: &["origin.expired"],
    },
    Case {
        what: "the same report without the manifest",
        evidence: &["h100-570.124.03-expired-rim/report.hex"],
        endorsements: &["h100-570.124.03-expired-rim/chain.pem"],
        at: NOVEMBER_2026,
        format: "accept",
        findings: &["gpu.measurements", "gpu.measurements"],
    },
    Case {
        what: "a byte too many",
        evidence: &["h100-580.95.05-trailing-byte/report.hex"],
        endorsements: &["h100-580.95.05-trailing-byte/chain.pem"],
        at: NOVEMBER_2026,
        format: "reject",
        findings: &["shape.trailing_bytes"],
    },
    Case {
        what: "a report with another device's chain",
        evidence: &["negative/report-wrong-chain.hex"],
        endorsements: &["negative/report-wrong-chain.chain.pem"],
        at: NOVEMBER_2026,
        format: "reject",
        findings: &["origin.signature"],
    },
    Case {
        what: "a chain of the root alone",
        evidence: &[H100],
        endorsements: &["negative/chain-root-only.pem"],
        at: MARCH_2026,
        format: "reject",
        findings: &["origin.chain_length"],
    },
    Case {
        what: "a chain without an intermediate",
        evidence: &[H100],
        endorsements: &["negative/chain-missing-intermediate.pem"],
        at: MARCH_2026,
        format: "reject",
        findings: &["origin.chain_length"],
    },
    Case {
        what: "a manifest with another signature",
        evidence: &[H100],
        endorsements: &[H100_CHAIN, "negative/driver-rim-bad-signature.xml"],
        at: NOVEMBER_2026,
        format: "reject",
        findings: &["origin.signature"],
    },
    Case {
        what: "a manifest under the root for debugging",
        evidence: &[H100],
        endorsements: &[H100_CHAIN, "negative/rim-debug-root.xml"],
        at: NOVEMBER_2026,
        format: "reject",
        findings: &["origin.unknown_root"],
    },
    Case {
        what: "a switch's manifest with other content",
        evidence: &["ls10-switch/report.hex"],
        endorsements: &["ls10-switch/chain.pem", "negative/switch-rim-bad-digest.xml"],
        at: AUGUST_2025,
        format: "reject",
        findings: &["origin.digest"],
    },
    Case {
        what: "an authority that stands in no chain here",
        evidence: &[H100],
        endorsements: &[H100_CHAIN, H100_DRIVER, H100_VBIOS, "roots/incorrect_rim_root.pem"],
        at: MARCH_2026,
        format: "reject",
        findings: &["shape.endorsement"],
    },
    Case {
        what: "an authority of AMD's",
        evidence: &[H100],
        endorsements: &[H100_CHAIN, H100_DRIVER, H100_VBIOS, "../cpu/snp/roots/milan_asvk.pem"],
        at: MARCH_2026,
        format: "reject",
        findings: &["shape.endorsement"],
    },
    Case {
        what: "the believed roots beside all else",
        evidence: &[H100],
        endorsements: &[
            "roots/verifier_device_root.pem",
            H100_CHAIN,
            H100_DRIVER,
            H100_VBIOS,
            "roots/verifier_RIM_root.pem",
        ],
        at: MARCH_2026,
        format: "accept",
        findings: &[],
    },
];

#[test]
fn gives_every_recorded_device_its_verdict() {
    let Some(root) = vectors() else { return };
    for Case { what, evidence, endorsements, at, format, findings } in CASES {
        let output = judge(&root, evidence, endorsements, at);
        let page = json(&output);
        assert_eq!(ids(&page), *findings, "{what}: {page}");
        assert_eq!(page["format"], *format, "{what}: {page}");
        let policy = if findings.is_empty() { "accept" } else { "reject" };
        assert_eq!(page["policy"], policy, "{what}");
        assert_eq!(output.status.code(), Some(i32::from(!findings.is_empty())), "{what}");
    }
}

#[test]
fn gives_every_genuine_manifest_its_verdict_at_both_ends_of_its_time() {
    let Some(root) = vectors() else { return };
    let mut count = 0;
    for entry in fs::read_dir(root.join("gpu/rims")).unwrap() {
        let path = format!("rims/{}", entry.unwrap().file_name().display());
        let page = json(&judge(&root, &[H100, H100_CHAIN], &[&path], AUGUST_2025));
        assert_eq!(page["format"], "accept", "{path}: {page}");
        let late = json(&judge(&root, &[H100, H100_CHAIN], &[&path], NOVEMBER_2026));
        let expired = !path.contains("DRIVER");
        assert_eq!(late["format"] == "reject", expired, "{path}: {late}");
        count += 1;
    }
    assert_eq!(count, 8);
}

const PPCIE: [&str; 2] =
    ["ppcie-8gpu-4switch/gpu_evidence.json", "ppcie-8gpu-4switch/switch_evidence.json"];

#[test]
fn judges_a_whole_machine_of_gpus_and_switches() {
    let Some(root) = vectors() else { return };
    let page = json(&judge(&root, &PPCIE, &[], NOVEMBER_2026));
    assert_eq!(page["format"], "accept", "{page}");
    // Only the manifests are missing: each GPU's two, and each switch's one.
    let wanted = [vec!["gpu.measurements"; 16], vec!["nvswitch.measurements"; 4]].concat();
    assert_eq!(ids(&page), wanted);
    let nonce = "4760e30534a0621357d458b1a7936551b5dc4cd1e69718adf7ed9fb0252a537e";
    let more = ["--nonce", nonce, "--gpus", "8", "--switches", "4"];
    let page = json(&judge_more(&root, &PPCIE, &[], NOVEMBER_2026, &more));
    assert_eq!(page["not_judged"], json!([]));
    assert_eq!(ids(&page), wanted, "{page}");
    let more = ["--nonce", &"00".repeat(32), "--gpus", "4"];
    let page = json(&judge_more(&root, &PPCIE, &[], NOVEMBER_2026, &more));
    assert_eq!(page["format"], "reject");
    assert_eq!(ids(&page)[11..13], ["devices.nonce", "devices.count"]);
    // GPUs in this mode without their switches are no machine.
    let page = json(&judge(&root, &PPCIE[..1], &[], NOVEMBER_2026));
    assert_eq!(ids(&page)[16..], vec!["nvswitch.topology"; 9]);
}

#[test]
fn recognises_evidence_in_every_form_it_is_stored_in() {
    let Some(root) = vectors() else { return };
    let folder = desk("forms");
    let gpu = root.join("gpu");
    let text = fs::read_to_string(gpu.join(H100)).unwrap();
    let report = hex::decode(text.trim()).unwrap();
    let chain = fs::read(gpu.join(H100_CHAIN)).unwrap();
    let (report64, chain64) = (Base64::encode_string(&report), Base64::encode_string(&chain));
    let nonce = hex::encode(&report[4..36]);
    let wrapped: String = report64
        .as_bytes()
        .chunks(76)
        .map(|line| String::from_utf8(line.to_vec()).unwrap() + "\n")
        .collect();
    let item = json!({ "evidence": report64, "certificate": chain64 });
    let labelled = json!({
        "arch": "HOPPER", "nonce": nonce, "evidence": report64, "certificate": chain64,
        "driver_version": "550.90.07", "vbios_version": "96.00.9F.00.01", "version": "1.0",
    });
    let forms: Vec<(&str, Vec<u8>, bool)> = vec![
        ("raw", report.clone(), true),
        ("upper", text.to_uppercase().into_bytes(), true),
        ("0x", format!("0x{}", text.trim()).into_bytes(), true),
        ("base64", report64.clone().into_bytes(), true),
        ("lines", wrapped.into_bytes(), true),
        ("list", json!([labelled]).to_string().into_bytes(), false),
        ("tool", json!({ "evidences": [labelled], "result_code": 0 }).to_string().into(), false),
        ("one", item.to_string().into_bytes(), false),
        (
            "request",
            json!({ "nonce": nonce, "arch": "Hopper", "evidence_list": [item] }).to_string().into(),
            false,
        ),
        (
            "old",
            json!({ "attestationReportHexStr": text.trim(), "certChainBase64Encoded": chain64 })
                .to_string()
                .into_bytes(),
            false,
        ),
        (
            "plain",
            json!({ "evidence": text.trim(), "certificate": String::from_utf8_lossy(&chain) })
                .to_string()
                .into_bytes(),
            false,
        ),
    ];
    for (name, bytes, bare) in forms {
        let file = write(&folder, name, bytes);
        let mut endorsements = vec![H100_DRIVER, H100_VBIOS];
        if bare {
            endorsements.insert(0, H100_CHAIN);
        }
        let page = json(&judge(&root, &[&file], &endorsements, MARCH_2026));
        assert_eq!(page["verdict"], "accepted", "{name}: {page}");
    }
    // A label is held against the report, in whichever form it came.
    let labelled = json!({ "nonce": "11".repeat(32), "arch": "HOPPER", "evidence_list": [item] });
    let file = write(&folder, "false", labelled.to_string());
    let page = json(&judge(&root, &[&file], &[H100_DRIVER, H100_VBIOS], MARCH_2026));
    assert_eq!((ids(&page), &page["format"]), (vec!["origin.label"], &json!("reject")));
}

#[test]
fn puts_a_chain_together_from_certificates_in_any_order() {
    let Some(root) = vectors() else { return };
    let folder = desk("chain");
    let pem = fs::read_to_string(root.join("gpu").join(H100_CHAIN)).unwrap();
    let end = "-----END CERTIFICATE-----";
    let blocks: Vec<String> =
        pem.split_inclusive(end).filter(|block| block.contains(end)).map(Into::into).collect();
    assert_eq!(blocks.len(), 5);
    let mut files: Vec<String> = blocks
        .iter()
        .enumerate()
        .map(|(index, block)| {
            let body: String = block.lines().filter(|line| !line.contains("-----")).collect();
            let der = Base64::decode_vec(&body).unwrap();
            write(&folder, &format!("{index}.der"), der)
        })
        .collect();
    files.rotate_left(2);
    let mut endorsements: Vec<&str> = files.iter().map(String::as_str).collect();
    endorsements.extend([H100_DRIVER, H100_VBIOS]);
    let page = json(&judge(&root, &[H100], &endorsements, MARCH_2026));
    assert_eq!(page["verdict"], "accepted", "{page}");
    // One certificate short is one short.
    endorsements.remove(0);
    let page = json(&judge(&root, &[H100], &endorsements, MARCH_2026));
    assert_eq!(page["format"], "reject", "{page}");
    // Two reports and one file with both chains.
    let chains = fs::read_to_string(root.join("gpu/ls10-switch/chain.pem")).unwrap();
    let both = write(&folder, "both.pem", format!("{pem}\n{chains}"));
    let reports = [H100, "ls10-switch/report.hex"];
    let page = json(&judge(&root, &reports, &[&both, H100_DRIVER, H100_VBIOS], MARCH_2026));
    // Both are genuine and answer one nonce, but they are no machine.
    assert_eq!(page["format"], "accept", "{page}");
    assert!(ids(&page).contains(&"nvswitch.topology"), "{page}");
}

#[test]
fn cannot_judge_a_device_without_its_certificates() {
    let Some(root) = vectors() else { return };
    let output = judge(&root, &[H100], &[H100_DRIVER, H100_VBIOS], MARCH_2026);
    let page = json(&output);
    assert_eq!(page["verdict"], "could not judge", "{page}");
    assert_eq!(ids(&page), ["origin.missing"]);
    assert_eq!(output.status.code(), Some(2));
}

const GENOA: [&str; 3] = [
    "../cpu/snp/reports/genoa-v5/report.bin",
    "../cpu/snp/reports/genoa-v5/vcek.der",
    "../cpu/snp/roots/genoa_ask.pem",
];

#[test]
fn judges_a_processor_and_its_devices_together() {
    let Some(root) = vectors() else { return };
    let at = "1772500000";
    let [report, vcek, ask] = GENOA;
    let mixed = [H100_DRIVER, ask, H100_CHAIN, vcek, H100_VBIOS];
    let output = judge(&root, &[H100, report], &mixed, at);
    let page = json(&output);
    assert_eq!(page["verdict"], "accepted", "{page}");
    assert_eq!(page["result"]["processor"]["tee"], "snp");
    assert_eq!(page["result"]["devices"]["devices"][0]["chip"], "GH100");
    let not_judged = page["not_judged"].as_array().unwrap();
    assert!(not_judged.contains(&json!("binding.session")), "{page}");

    // They answer no session in common.
    let session = ["--session", &"5e".repeat(64)];
    let page = json(&judge_more(&root, &[H100, report], &mixed, at, &session));
    assert_eq!(page["format"], "reject");
    assert_eq!(ids(&page), ["binding.report_data", "devices.nonce"], "{page}");
    assert!(!page["not_judged"].as_array().unwrap().contains(&json!("binding.session")));

    // What is wrong with either is wrong with the machine; what is missing of one does not excuse the
    // other.
    let page = json(&judge(&root, &[H100, report], &[H100_CHAIN, vcek, ask], at));
    assert_eq!(ids(&page), ["gpu.measurements", "gpu.measurements"]);
    let output = judge(&root, &[H100, report], &[H100_CHAIN, H100_DRIVER, H100_VBIOS], at);
    assert_eq!((output.status.code(), ids(&json(&output))), (Some(2), vec!["origin.missing"]));
    let output = judge(&root, &[H100, report], &[H100_CHAIN], at);
    assert_eq!(output.status.code(), Some(1));

    // A quote with collateral in one piece, beside the same GPU.
    let quote = "../cpu/tdx/quotes/gotdx-v5-bt3-90c06f.bin";
    let collateral = "../cpu/tdx/collateral/assembled-90c06f-2026-03.collateral.json";
    let mixed = [H100_CHAIN, collateral, H100_DRIVER, H100_VBIOS];
    let page = json(&judge(&root, &[quote, H100], &mixed, "1774000000"));
    assert_eq!(page["verdict"], "accepted", "{page}");
    // And in pieces, whose lists and certificates are sorted from the device's.
    let pieces = [
        "tcb_info_90c06f000000.json",
        "td_qe_identity.json",
        "tcb_signing_chain.pem",
        "pck_crl_platform.der",
        "root_ca_crl.der",
    ]
    .map(|name| format!("../cpu/tdx/collateral/cai/{name}"));
    let mut mixed: Vec<&str> = pieces.iter().map(String::as_str).collect();
    mixed.extend([H100_CHAIN, H100_DRIVER, H100_VBIOS]);
    let page = json(&judge(&root, &[quote, H100], &mixed, "1774000000"));
    assert_eq!(page["verdict"], "accepted", "{page}");
}

#[test]
fn refuses_two_processors_for_one_machine() {
    let Some(root) = vectors() else { return };
    let other = "../cpu/snp/reports/turin-v5-azure/report.bin";
    let output = judge(&root, &[GENOA[0], other], &[], "1772500000");
    assert_eq!((output.status.code(), ids(&json(&output))), (Some(1), vec!["shape.evidence"]));
}

#[test]
fn writes_a_record_of_a_machine_that_comes_out_the_same_again_and_only_then() {
    let Some(root) = vectors() else { return };
    let folder = desk("record");
    let record = folder.join("record.cbor").display().to_string();
    let at = "1772500000";
    let evidence = [H100, GENOA[0]];
    let items = [H100_CHAIN, H100_DRIVER, H100_VBIOS, GENOA[1], GENOA[2]];
    let output = judge_more(&root, &evidence, &items, at, &["--transcript", &record]);
    assert!(output.status.success());
    let replay = |evidence: &[&str], items: &[&str]| {
        judge_more(&root, evidence, items, "", &["--replay", &record])
    };
    let output = replay(&evidence, &items);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = json(&output);
    assert_eq!((&page["verdict"], &page["recorded"]), (&json!("replayed"), &json!("accepted")));
    let checks = page["checks"].as_array().unwrap();
    assert!(checks.contains(&json!(["gpu.measurements", "held"])), "{page}");
    assert!(checks.contains(&json!(["snp.debug", "held"])));
    // In another order, and with a file too many, they are the same inputs.
    let mut shuffled = items;
    shuffled.reverse();
    let more = [&shuffled[..], &["rims/NV_GPU_DRIVER_GH100_550.144.03.xml"]].concat();
    assert!(replay(&evidence, &more).status.success());
    // Another device, another processor, or a manifest that is missing, is another question.
    let switch = ["ls10-switch/report.hex", GENOA[0]];
    assert_eq!(replay(&switch, &items).status.code(), Some(2));
    assert_eq!(replay(&[H100], &items).status.code(), Some(2));
    assert_eq!(replay(&evidence, &items[..2]).status.code(), Some(2));

    // A record of a refusal is a record too.
    let bare = &items[..1];
    let refused = judge_more(&root, &[H100], bare, at, &["--transcript", &record]);
    assert_eq!(refused.status.code(), Some(1));
    let page = json(&replay(&[H100], bare));
    assert_eq!((&page["verdict"], &page["recorded"]), (&json!("replayed"), &json!("rejected")));
    let golden = fs::read(&record).unwrap();
    let at = golden.windows(9).position(|window| window == b"\x68accepted").unwrap() + 9;
    let mut forged = golden;
    forged[at] = 0xf5;
    fs::write(&record, forged).unwrap();
    let output = replay(&[H100], bare);
    assert_eq!((output.status.code(), &json(&output)["verdict"]), (Some(1), &json!("differs")));
}

#[test]
fn writes_a_token_about_a_machine() {
    use base64ct::Base64UrlUnpadded;
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;

    let Some(root) = vectors() else { return };
    let folder = desk("token");
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = write(&folder, "key", pkcs8.as_ref());
    let token = folder.join("token").display().to_string();
    let items = [H100_CHAIN, H100_DRIVER, H100_VBIOS, GENOA[1], GENOA[2]];
    let more = ["--ear", &token, "--ear-key", &key];
    let output = judge_more(&root, &[H100, GENOA[0]], &items, "1772500000", &more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let jwt = fs::read_to_string(&token).unwrap();
    let payload = Base64UrlUnpadded::decode_vec(jwt.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    let submodules = claims["submods"].as_object().unwrap();
    assert_eq!(submodules.keys().collect::<Vec<_>>(), ["cpu0", "gpu0"]);
    let gpu = &submodules["gpu0"];
    assert_eq!(gpu["ear.status"], "affirming");
    assert_eq!(gpu["ear.trustworthiness-vector"]["executables"], 3);
    assert_eq!(gpu["ear.trustworthiness-vector"]["hardware"], 2);
    assert_eq!(gpu["ear.veraison.annotated-evidence"]["nvidia"]["driver_version"], "550.90.07");
    // Of what was refused there is no token.
    fs::remove_file(&token).unwrap();
    judge_more(&root, &[H100, GENOA[0]], &[H100_CHAIN], "1772500000", &more);
    assert!(!Path::new(&token).exists());
}

#[test]
fn takes_the_remote_service_for_a_second_opinion_only_under_keys_that_were_vouched_for() {
    let Some(root) = vectors() else { return };
    let folder = desk("opinion");
    let token = "h100-550.90.07/nras-eat-v3.json";
    let items = [H100_CHAIN, H100_DRIVER, H100_VBIOS];
    let judged = |more: &[&str]| judge_more(&root, &[H100, token], &items, MARCH_2026, more);
    let page = json(&judged(&[]));
    assert_eq!((ids(&page), &page["policy"]), (vec!["nras.opinion"], &json!("reject")));
    assert!(page["findings"][0]["observed"].as_str().unwrap().starts_with("no key "), "{page}");
    // Keys of another day.
    let keys = write(&folder, "keys", br#"{"keys":[{"kty":"EC","crv":"P-384","kid":"x"}]}"#);
    let page = json(&judged(&["--nras-keys", &keys]));
    assert_eq!(ids(&page), ["nras.opinion"]);
    // Keys among the endorsements are no one's word.
    let output = judge(&root, &[H100], &[H100_CHAIN, H100_DRIVER, H100_VBIOS, &keys], MARCH_2026);
    assert_eq!(ids(&json(&output)), ["shape.endorsement"]);
}

#[test]
fn explains_devices_and_says_what_they_need() {
    let Some(root) = vectors() else { return };
    let file = |path: &str| root.join("gpu").join(path).display().to_string();
    let output = auditor(&["explain", &file(H100), &file(H100_CHAIN)]);
    assert!(output.status.success());
    let said = out(&output);
    assert!(said.starts_with("unjudged  NVIDIA device 0"), "{said}");
    assert!(said.contains("driver version  550.90.07"), "{said}");
    assert!(said.contains("certificate  GH100 A01 GSP FMC LF"), "{said}");
    let page = json(&auditor(&["explain", "--json", &file(PPCIE[0]), &file(PPCIE[1])]));
    assert_eq!(page["pages"].as_array().unwrap().len(), 12);

    let said = out(&auditor(&["endorse", "fetch", &file(H100), &file(H100_CHAIN)]));
    assert!(
        said.contains("/v1/rim/NV_GPU_DRIVER_GH100_550.90.07\n")
            || said.contains("/v1/rim/NV_GPU_DRIVER_GH100_550.90.07  #"),
        "{said}"
    );
    assert!(said.contains("NV_GPU_VBIOS_1010_0200_882_96009F0001"), "{said}");
    let page = json(&auditor(&["endorse", "fetch", "--json", &file(PPCIE[0]), &file(PPCIE[1])]));
    // One driver, one VBIOS, one BIOS; three lists and the responder.
    assert_eq!(page["sources"].as_array().unwrap().len(), 7, "{page}");
}

#[test]
fn keeps_manifests_and_gives_none_out_past_its_time() {
    let Some(root) = vectors() else { return };
    let folder = desk("shelf");
    let cache = folder.join("cache").display().to_string();
    let file = |path: &str| root.join("gpu").join(path).display().to_string();
    let add = |at: &str, paths: &[&str]| {
        let files: Vec<_> = paths.iter().map(|path| file(path)).collect();
        let mut arguments = vec!["endorse", "add", "--json", "--cache", &cache, "--at", at];
        arguments.extend(files.iter().map(String::as_str));
        auditor(&arguments)
    };
    let late = add(NOVEMBER_2026, &[H100_DRIVER, H100_VBIOS]);
    assert_eq!(json(&late)["refused"].as_array().unwrap().len(), 1, "{}", out(&late));
    let others = ["rims/NV_GPU_DRIVER_GH100_550.144.03.xml", GENOA[1], GENOA[2]];
    assert!(add(MARCH_2026, &[&others[..], &[H100_DRIVER, H100_VBIOS]].concat()).status.success());
    let judged = |evidence: &[&str], at: &str| {
        judge_more(&root, evidence, &[H100_CHAIN], at, &["--cache", &cache])
    };
    let page = json(&judged(&[H100], MARCH_2026));
    assert_eq!(page["verdict"], "accepted", "{page}");
    let page = json(&judged(&[H100, GENOA[0]], "1772500000"));
    assert_eq!(page["verdict"], "accepted", "{page}");
    // The driver's manifest is past its time: not given out, so there is none.
    let page = json(&judged(&[H100], NOVEMBER_2026));
    assert_eq!(ids(&page), ["gpu.measurements"], "{page}");
}
