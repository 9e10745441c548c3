//! Real TDX quotes from real machines, with the verdicts that `cases.json` gives them.

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

use attestation_verifier::appraise::{AttestationResult, Rejection};
use attestation_verifier::evidence::{Inauthentic, unpadded};
use attestation_verifier::policy::STRICT;
use attestation_verifier::wire::Malformed;
use common::{WAIVED, appraise, read, vectors, with};
use measurement::manifest::Tee;
use serde_json::Value;

/// The strict policy without what no recorded evidence can meet: our own launch blob; and as it
/// would have been when the oldest quote was made, in evaluation 17.
fn field_policy() -> String {
    let policy = with(STRICT, "binding.launch_blob", WAIVED);
    with(&policy, "tdx.evaluation_number", "{ require = 17 }")
}

#[cfg_attr(
    not(feature = "tdx-collateral"),
    expect(dead_code, reason = "verdicts need the feature")
)]
struct Case {
    id: String,
    quote: Vec<u8>,
    collateral: Vec<Vec<u8>>,
    at: u64,
    crypto: String,
    policy: String,
    status: Option<String>,
}

impl Case {
    fn all(root: &Path) -> Vec<Self> {
        let cases: Value = serde_json::from_slice(&read(root, "cases.json")).unwrap();
        let cases = cases["cases"].as_array().unwrap();
        let tdx = cases.iter().filter(|case| case["tee"] == "tdx");
        tdx.map(|case| Self::load(root, case)).collect()
    }

    fn load(root: &Path, case: &Value) -> Self {
        let text = |key: &str| case[key].as_str().unwrap().to_string();
        let collateral = case["collateral"].as_str();
        Self {
            id: text("id"),
            quote: read(root, &text("evidence")),
            collateral: collateral.map(|path| read(root, path)).into_iter().collect(),
            at: case["verify_at"].as_u64().unwrap(),
            crypto: text("crypto"),
            policy: text("policy"),
            status: case["tcb_status"].as_str().map(String::from),
        }
    }

    fn find(root: &Path, id: &str) -> Self {
        Self::all(root).into_iter().find(|case| case.id == id).expect(id)
    }

    /// The quote without padding, where there is only padding.
    fn trimmed(mut self) -> Self {
        if let Ok(quote) = unpadded(&self.quote) {
            self.quote = quote.to_vec();
        }
        self
    }

    fn judge(&self, policy: &str) -> Result<AttestationResult, Rejection> {
        appraise(policy, Tee::Tdx, &self.quote, &self.collateral, b"", self.at)
    }
}

#[cfg(not(feature = "tdx-collateral"))]
#[test]
fn refuses_to_judge_quotes_without_the_feature() {
    let Some(root) = vectors() else { return };
    let case = Case::find(&root, "tdx/dcapqvl-v4-b0c06f").trimmed();
    let feature = "tdx-collateral";
    let rejection = case.judge(&field_policy()).unwrap_err();
    assert_eq!(rejection, Rejection::Inauthentic(Inauthentic::CouldNotJudge { feature }));
    assert_eq!(
        rejection.to_string(),
        "inauthentic evidence: could not judge: built without tdx-collateral"
    );
}

#[test]
fn refuses_bytes_after_a_quote_and_takes_only_zeros_off() {
    let Some(root) = vectors() else { return };
    for (id, observed) in [("dcapqvl-v4-b0c06f", 70), ("gcp-cos113-v4-00806f05", 3065)] {
        let case = Case::find(&root, &format!("tdx/{id}"));
        let flaw = Malformed::TrailingBytes { part: "quote", observed };
        assert_eq!(case.judge(&field_policy()), Err(Rejection::Malformed(flaw)));
        assert_eq!(unpadded(&case.quote).unwrap().len(), case.quote.len() - observed);
    }
    let case = Case::find(&root, "tdx/gotdx-v4-50806f-trailing");
    let flaw = Malformed::TrailingBytes { part: "quote", observed: 39 };
    assert_eq!(unpadded(&case.quote), Err(flaw));
}

#[test]
fn refuses_every_prefix_without_panicking() {
    let Some(root) = vectors() else { return };
    for case in Case::all(&root) {
        let case = case.trimmed();
        // One has bytes after it that cannot be taken off.
        let tail = if case.id.ends_with("-trailing") { 39 } else { 0 };
        let len = case.quote.len() - tail;
        for cut in (0..len).filter(|cut| cut % 7 == 0 || cut + 8 > len || *cut < 1100) {
            assert!(unpadded(&case.quote[..cut]).is_err(), "{} {cut}", case.id);
        }
    }
}

#[test]
fn refuses_lengths_types_and_versions_it_does_not_know() {
    let Some(root) = vectors() else { return };
    let quote = Case::find(&root, "tdx/dcapqvl-v5-bt4-b0c06f").quote;
    let changed = |at: usize, bytes: &[u8]| {
        let mut quote = quote.clone();
        quote[at..at + bytes.len()].copy_from_slice(bytes);
        unpadded(&quote).unwrap_err()
    };
    let unknown = |field, observed| Malformed::Unknown { field, observed };
    assert_eq!(changed(0, &[3]), unknown("quote version", 3));
    assert_eq!(changed(2, &[3]), unknown("attestation key type", 3));
    assert_eq!(changed(4, &[0]), unknown("tee type", 0));
    assert_eq!(changed(8, &[1]), Malformed::Reserved { field: "quote header 8..12" });
    assert_eq!(changed(12, &[0]), unknown("quoting enclave vendor", 0x009a_7233));
    assert_eq!(changed(48, &[1]), unknown("body type", 1));
    let (body_type, observed, required) = (4, 648, 885);
    let size = Malformed::BodySize { body_type, observed, required };
    assert_eq!(changed(50, &[0x88, 0x02]), size);
    let data = 54 + 885;
    assert_eq!(changed(data, &[0xff; 4]), Malformed::Truncated { part: "signature data" });
    assert_eq!(changed(data + 132, &[5]), unknown("certification data type", 5));
    let cut = Malformed::Truncated { part: "certification data" };
    assert_eq!(changed(data + 134, &[0xff; 4]), cut);
    let part = "qe authentication data";
    assert_eq!(changed(data + 138 + 448, &[0xff; 2]), Malformed::Truncated { part });
    // One byte less inside leaves one byte over outside.
    let part = "signature data";
    let one_less =
        (u32::from_le_bytes(quote[data + 134..data + 138].try_into().unwrap()) - 1).to_le_bytes();
    assert!(
        matches!(
            changed(data + 134, &one_less),
            Malformed::TrailingBytes { .. } | Malformed::Truncated { .. }
        ),
        "{part}"
    );
}

#[cfg(feature = "tdx-collateral")]
mod judged {
    use super::*;
    use attestation_verifier::appraise::Tcb;
    use attestation_verifier::endorsement::Role;
    use attestation_verifier::root::Root;
    use common::ids;

    #[test]
    fn gives_every_recorded_quote_its_verdict() {
        let Some(root) = vectors() else { return };
        // This one's RTMR3 is in use; a policy may say that it knows why.
        let policy = with(&field_policy(), "tdx.rtmr3", WAIVED);
        for case in Case::all(&root) {
            let case = case.trimmed();
            let (id, result) = (&case.id, case.judge(&policy));
            match (case.crypto.as_str(), case.policy.as_str(), &result) {
                ("accept", "accept", Ok(accepted)) => {
                    assert_eq!(accepted.root(), &Root::BuiltIn);
                    let Tcb::Tdx(tcb) = accepted.tcb() else { panic!("{id}") };
                    assert_eq!(Some(&tcb.status), case.status.as_ref());
                    assert_eq!(accepted.platform_id().len(), 16);
                }
                ("accept", "reject", Err(Rejection::Unacceptable(_))) => {}
                ("reject", "reject", Err(Rejection::Inauthentic(_) | Rejection::Malformed(_))) => {}
                other => panic!("{id}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_every_reason_against_a_recorded_quote() {
        let Some(root) = vectors() else { return };
        let findings = |id: &str| {
            ids(Case::find(&root, &format!("tdx/{id}")).trimmed().judge(&field_policy()))
        };
        // Its platform is old for collateral of 2026.
        assert_eq!(
            findings("trustee-v4-debug-50806f"),
            ["tdx.debug", "tdx.advisories", "tdx.tcb_status"]
        );
        assert_eq!(findings("azure-v4-no-septve-00806f05"), ["tdx.sept_ve_disable"]);
        assert_eq!(findings("gcp-cos113-v4-00806f05"), ["binding.challenge"]);
        assert_eq!(
            findings("automata-v4-00806f05"),
            ["binding.challenge", "tdx.advisories", "tdx.tcb_status"]
        );
        assert_eq!(findings("dstack-v4-rtmr3-90c06f"), ["tdx.rtmr3"]);
    }

    #[test]
    fn names_the_flaw_of_every_recorded_quote_that_is_inauthentic() {
        let Some(root) = vectors() else { return };
        let reason = |id: &str| match Case::find(&root, &format!("tdx/{id}"))
            .trimmed()
            .judge(&field_policy())
        {
            Err(Rejection::Inauthentic(Inauthentic::Collateral { reason })) => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason("trustee-v5-bt3-servicetd-90c06f").contains("No matching TCB level"));
        let flaw =
            |id: &str| Case::find(&root, &format!("tdx/{id}")).trimmed().judge(&field_policy());
        assert_eq!(
            flaw("dcapqvl-v4-b0c06f-wrong-fmspc"),
            Err(Rejection::Inauthentic(Inauthentic::Fmspc {
                observed: "b0c06f000000".into(),
                required: "90c06f000000".into(),
            }))
        );
        let role = Role::RevocationList;
        assert!(matches!(
            flaw("dcapqvl-v4-b0c06f-late"),
            Err(Rejection::Inauthentic(Inauthentic::Expired { role: seen, .. })) if seen == role
        ));
        let early = flaw("dcapqvl-v4-b0c06f-early");
        assert!(
            matches!(early, Err(Rejection::Inauthentic(Inauthentic::NotYetValid { .. }))),
            "{early:?}"
        );
        assert_eq!(
            flaw("tdreport-1024"),
            Err(Rejection::Malformed(Malformed::Unknown { field: "quote version", observed: 129 }))
        );
    }

    #[test]
    fn rejects_service_tds_by_finding_where_the_platform_is_good() {
        let Some(root) = vectors() else { return };
        let policy =
            with(&field_policy(), "tdx.attributes", "{ require = \"0x0000000000000000\" }");
        let case = Case::find(&root, "tdx/gotdx-v5-bt3-90c06f");
        assert!(case.judge(&policy).is_ok());
        for (check, value) in [
            ("tdx.evaluation_number", "{ require = 19 }"),
            ("tdx.mr_seam", &format!("{{ require = [\"{}\"] }}", "00".repeat(48))),
            ("tdx.smt", "{ require = [\"off\"] }"),
            ("tdx.dynamic_platform", "{ require = [\"off\"] }"),
            ("tdx.tcb_status", "{ require = [\"OutOfDate\"] }"),
            ("tdx.tee_tcb_svn", "{ require = \"0c010400000000000000000000000000\" }"),
            ("tdx.xfam", "{ require = \"0x00000000000000e7\" }"),
        ] {
            let policy = with(&policy, check, value);
            assert_eq!(ids(case.judge(&policy)), [check]);
        }
    }

    #[test]
    fn rejects_a_flip_of_any_signed_byte_and_of_the_key() {
        let Some(root) = vectors() else { return };
        let mut case = Case::find(&root, "tdx/gotdx-v5-bt3-90c06f");
        let policy = field_policy();
        let body = 54..54 + 648;
        let key = 54 + 648 + 4 + 64..54 + 648 + 4 + 128;
        for at in (28..48).chain(body).step_by(13) {
            case.quote[at] ^= 1;
            let result = case.judge(&policy);
            assert!(matches!(result, Err(Rejection::Inauthentic(_))), "{at}: {result:?}");
            case.quote[at] ^= 1;
        }
        for at in key {
            case.quote[at] ^= 1;
            let flaw = Rejection::Inauthentic(Inauthentic::AttestationKey);
            assert_eq!(case.judge(&policy), Err(flaw));
            case.quote[at] ^= 1;
        }
    }

    fn changed_collateral(root: &Path, change: impl FnOnce(&mut Value)) -> Rejection {
        let mut case = Case::find(root, "tdx/gotdx-v5-bt3-90c06f");
        let mut collateral: Value = serde_json::from_slice(&case.collateral[0]).unwrap();
        change(&mut collateral);
        case.collateral[0] = serde_json::to_vec(&collateral).unwrap();
        case.judge(&field_policy()).unwrap_err()
    }

    #[test]
    fn rejects_collateral_of_two_evaluations_or_another_pce() {
        let Some(root) = vectors() else { return };
        let rejection = changed_collateral(&root, |collateral| {
            let text = collateral["qe_identity"].as_str().unwrap();
            collateral["qe_identity"] = text.replace("Number\":18", "Number\":17").into();
        });
        let (tcb_info, qe_identity) = (18, 17);
        let flaw = Inauthentic::EvaluationNumbers { tcb_info, qe_identity };
        assert_eq!(rejection, Rejection::Inauthentic(flaw));
        // The signature over the TCB info stands before the PCE id inside it.
        let rejection = changed_collateral(&root, |collateral| {
            let text = collateral["tcb_info"].as_str().unwrap();
            collateral["tcb_info"] = text.replace("pceId\":\"0000", "pceId\":\"0001").into();
        });
        assert!(rejection.to_string().contains("Signature is invalid for tcb_info"), "{rejection}");
    }

    #[test]
    fn rejects_collateral_that_is_none() {
        let Some(root) = vectors() else { return };
        let malformed =
            |index, problem| Rejection::Malformed(Malformed::Endorsement { index, problem });
        let problem = "not a QuoteCollateralV3 object";
        let added = changed_collateral(&root, |collateral| collateral["note"] = "x".into());
        assert_eq!(added, malformed(0, problem));
        let removed = changed_collateral(&root, |collateral| {
            collateral.as_object_mut().unwrap().remove("pck_crl");
        });
        assert_eq!(removed, malformed(0, problem));
        let odd = changed_collateral(&root, |collateral| collateral["pck_crl"] = "abc".into());
        assert_eq!(odd, malformed(0, problem));
        let role = Role::RevocationList;
        let swapped = changed_collateral(&root, |collateral| {
            collateral["pck_crl"] = collateral["root_ca_crl"].clone();
        });
        assert_eq!(swapped, Rejection::Inauthentic(Inauthentic::Issuer { role }));

        let mut case = Case::find(&root, "tdx/gotdx-v5-bt3-90c06f");
        let role = Role::TcbSigner;
        case.collateral.push(case.collateral[0].clone());
        let surplus = Rejection::Inauthentic(Inauthentic::Surplus { role });
        assert_eq!(case.judge(&field_policy()), Err(surplus));
        case.collateral.clear();
        let missing = Rejection::Inauthentic(Inauthentic::Missing { role });
        assert_eq!(case.judge(&field_policy()), Err(missing));
    }

    #[test]
    fn rejects_collateral_signed_by_another_certificate_of_the_root() {
        let Some(root) = vectors() else { return };
        let rejection = changed_collateral(&root, |collateral| {
            collateral["tcb_info_issuer_chain"] = collateral["pck_crl_issuer_chain"].clone();
        });
        let (role, problem) =
            (Role::TcbSigner, "has another name than its place in Intel's hierarchy");
        let flaw = Inauthentic::Unusable { role, problem };
        assert_eq!(rejection, Rejection::Inauthentic(flaw));
    }

    #[test]
    fn ignores_a_pck_chain_inside_the_collateral() {
        let Some(root) = vectors() else { return };
        let mut case = Case::find(&root, "tdx/dcapqvl-v5-bt4-b0c06f");
        let mut collateral: Value = serde_json::from_slice(&case.collateral[0]).unwrap();
        assert!(collateral["pck_certificate_chain"].is_string());
        collateral["pck_certificate_chain"] = "another platform's".into();
        case.collateral[0] = serde_json::to_vec(&collateral).unwrap();
        let policy = with(&field_policy(), "tdx.rtmr3", WAIVED);
        case.judge(&policy).unwrap();
    }

    #[test]
    fn holds_a_quote_to_the_floor_of_its_time() {
        let Some(root) = vectors() else { return };
        let floors = |day: &str| {
            let floors = format!(
                "{{ require = [{{ since = \"2020-01-01\", least = 18 }}, \
                 {{ since = \"{day}\", least = 19 }}] }}"
            );
            with(&field_policy(), "tdx.evaluation_number", &floors)
        };
        // Of evaluation 18, judged on 2026-03-20.
        let mut case = Case::find(&root, "tdx/gotdx-v5-bt3-90c06f");
        case.judge(&floors("2026-03-21")).unwrap();
        // From the first second of the day on.
        let midnight = 1_773_964_800;
        case.at = midnight - 1;
        case.judge(&floors("2026-03-20")).unwrap();
        case.at = midnight;
        let rejection = case.judge(&floors("2026-03-20")).unwrap_err();
        assert_eq!(
            rejection.to_string(),
            "unacceptable evidence: tdx.evaluation_number is 18, policy requires at least 18 since \
             2020-01-01, at least 19 since 2026-03-20"
        );
    }

    #[test]
    fn holds_an_event_log_to_the_registers_of_its_quote() {
        let Some(root) = vectors() else { return };
        let policy = with(&field_policy(), "tdx.rtmr3", WAIVED);
        let log = |name: &str| read(&root, &format!("ccel/{name}"));
        let mut dstack = Case::find(&root, "tdx/dstack-v4-rtmr3-90c06f").trimmed();
        dstack.collateral.push(log("dstack-quote-report.json"));
        dstack.judge(&policy).unwrap();
        dstack.collateral[1] = log("gcp-cos113.ccel.bin");
        assert_eq!(ids(dstack.judge(&policy)), ["tdx.event_log"]);
        // A log that leaves the events of a register out tells of a guest that was not launched so; what
        // the guest itself recorded, it need not tell.
        let whole: Value = serde_json::from_slice(&log("dstack-quote-report.json")).unwrap();
        let events: Vec<Value> =
            serde_json::from_str(whole["event_log"].as_str().unwrap()).unwrap();
        for register in 0..4 {
            let mut kept = events.clone();
            kept.retain(|event| event["imr"] != register);
            let text = serde_json::to_string(&kept).unwrap();
            let log = serde_json::json!({ "event_log": text }).to_string();
            dstack.collateral[1] = log.into_bytes();
            let verdict = dstack.judge(&policy);
            match register {
                3 => assert!(verdict.is_ok(), "{verdict:?}"),
                _ => assert_eq!(ids(verdict), ["tdx.event_log"], "rtmr{register}"),
            }
        }
        let mut google = Case::find(&root, "tdx/gcp-cos113-v4-00806f05").trimmed();
        google.collateral.push(log("gcp-cos113.ccel.bin"));
        assert_eq!(ids(google.judge(&policy)), ["binding.challenge"]);
        let last = google.collateral[1].iter().rposition(|byte| ![0, 0xff].contains(byte)).unwrap();
        google.collateral[1].truncate(last);
        let rejection = google.judge(&policy).unwrap_err();
        assert!(matches!(rejection, Rejection::Malformed(Malformed::Endorsement { .. })));
    }

    /// What `dcap-qvl` refuses we refuse; what it takes and we do not is for a check of ours.
    #[test]
    fn agrees_with_dcap_qvl_on_every_recorded_quote() {
        use dcap_qvl::QuoteCollateralV3;
        use dcap_qvl::verify::QuoteVerifier;

        let Some(root) = vectors() else { return };
        let policy = with(&field_policy(), "tdx.rtmr3", WAIVED);
        for case in Case::all(&root) {
            let Some(collateral) = case.collateral.first() else { continue };
            let mut collateral: QuoteCollateralV3 = serde_json::from_slice(collateral).unwrap();
            collateral.pck_certificate_chain = None;
            let (quote, at) = (case.quote.clone(), case.at);
            let theirs = QuoteVerifier::new_prod().verify(&quote, &collateral, at);
            let case = case.trimmed();
            let (id, ours) = (&case.id, case.judge(&policy));
            match (&theirs, &ours) {
                (Ok(theirs), Ok(ours)) => {
                    let Tcb::Tdx(tcb) = ours.tcb() else { panic!("{id}") };
                    assert_eq!(tcb.status, theirs.status, "{id}");
                    assert_eq!(tcb.advisories, theirs.advisory_ids, "{id}");
                    assert_eq!(ours.platform_id(), theirs.ppid, "{id}");
                }
                // Theirs is no policy: it accepts any status and an unanswered challenge.
                (Ok(theirs), Err(Rejection::Unacceptable(findings))) => {
                    let ids = findings.ids();
                    let outdated = theirs.status != "UpToDate";
                    assert_eq!(ids.contains(&"tdx.tcb_status"), outdated, "{id}");
                    assert!(outdated || ids == ["binding.challenge"], "{id}: {ids:?}");
                }
                (Ok(_), Err(flaw)) => panic!("{id}: they accept, we say {flaw}"),
                (Err(_), Err(_)) => {}
                (Err(flaw), Ok(_)) => panic!("{id}: we accept, they say {flaw}"),
            }
        }
    }

    #[test]
    fn rejects_quotes_with_certificates_of_amd_beside_them() {
        let Some(root) = vectors() else { return };
        let mut case = Case::find(&root, "tdx/gotdx-v5-bt3-90c06f");
        case.collateral.push(read(&root, "snp/roots/genoa_ark.pem"));
        let flaw = Inauthentic::Surplus { role: Role::Key };
        assert_eq!(case.judge(&field_policy()), Err(Rejection::Inauthentic(flaw)));
    }
}
