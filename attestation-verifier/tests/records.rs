//! What is said about evidence and verdicts: transcripts, tokens, explanations, and where endorsements
//! are to be had.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use attestation_verifier::appraise::{AttestationResult, Expected, Rejection, Verifier};
use attestation_verifier::ear::{self, Algorithm, Attested, EarError, Profile, Token};
use attestation_verifier::endorsement::{describe, parts, slot, sources};
use attestation_verifier::evidence::{Evidence, recognise, unpadded};
use attestation_verifier::explain::explain;
use attestation_verifier::policy::AppraisalPolicy;
use attestation_verifier::transcript::{Processor, Subject, Transcript, Unreadable, transcribe};
use common::amd::{Hierarchy, LAUNCH_BLOB, NOW, Shape};
use common::{measured, read, vectors};
use measurement::manifest::Tee;
use serde_json::Value;

struct Desk {
    policy: String,
    report: Vec<u8>,
    endorsements: Vec<Vec<u8>>,
}

impl Desk {
    fn new() -> Self {
        let hierarchy = Hierarchy::new(&Shape::default());
        Self {
            policy: hierarchy.policy(),
            report: hierarchy.report(|_| {}),
            endorsements: hierarchy.endorsements(),
        }
    }

    fn evidence(&self) -> Evidence<'_> {
        Evidence { tee: Tee::Snp, report: &self.report }
    }

    fn transcribe(&self) -> (Transcript, Result<AttestationResult, Rejection>) {
        let verifier = Verifier::new(AppraisalPolicy::parse(&self.policy).unwrap());
        let endorsements: Vec<&[u8]> = self.endorsements.iter().map(Vec::as_slice).collect();
        let expected = Expected {
            report_data: &[0x77; 64],
            launch_blob: LAUNCH_BLOB,
            images: &[measured(Tee::Snp, &self.report)],
            platforms: &[],
        };
        let (evidence, endorsements) = (self.evidence(), endorsements.as_slice());
        let processor = Some(Processor { evidence, endorsements, expected });
        let subject = Subject { processor, devices: None };
        let (transcript, verdicts) = transcribe(&verifier, &subject, NOW);
        assert_eq!(transcript.accepted(), verdicts.accepted());
        (transcript, verdicts.processor.unwrap())
    }

    fn claims(&self, result: &AttestationResult, profile: Profile) -> Value {
        let evidence = self.evidence();
        let attested = Attested { processor: Some((result, &evidence)), devices: None };
        ear::claims(&attested, &token(profile)).unwrap()
    }
}

#[test]
fn a_transcript_holds_every_check_and_comes_out_the_same_again() {
    let desk = Desk::new();
    let (transcript, verdict) = desk.transcribe();
    verdict.unwrap();
    let bytes = transcript.to_bytes();
    assert_eq!(desk.transcribe().0.to_bytes(), bytes);
    let read = Transcript::read(&bytes).unwrap();
    assert_eq!(read, transcript);
    assert!(read.accepted());
    let checks: Vec<_> = read.checks().collect();
    assert_eq!(checks[..2], [("shape", "held"), ("origin", "held")]);
    // Four of the binding and report data, three that are always made, and one per line of the policy.
    assert_eq!(checks.len(), 2 + 1 + 4 + 3 + 33);
    assert!(checks.contains(&("snp.debug", "held")));
    assert!(checks.contains(&("snp.id_key", "waived")));
    assert_eq!(read.at(), NOW);
    assert_eq!(read.processor().unwrap().endorsements.len(), 4);
    assert_eq!(read.devices(), None);
}

#[test]
fn a_transcript_of_a_refusal_says_how_far_it_came() {
    let mut desk = Desk::new();
    desk.policy = common::with(&desk.policy, "snp.guest_svn", "{ require = 9 }");
    let (transcript, verdict) = desk.transcribe();
    assert!(verdict.is_err() && !transcript.accepted());
    assert!(transcript.checks().any(|check| check == ("snp.guest_svn", "failed")));
    desk.endorsements.remove(0);
    let (transcript, _) = desk.transcribe();
    let checks: Vec<_> = transcript.checks().collect();
    assert_eq!(checks, [("shape", "held"), ("origin.missing", "failed")]);
    desk.report.pop();
    let (transcript, _) = desk.transcribe();
    assert_eq!(transcript.checks().collect::<Vec<_>>(), [("shape.length", "failed")]);
}

#[test]
fn a_transcript_with_any_flip_is_another_or_none() {
    let desk = Desk::new();
    let golden = desk.transcribe().0.to_bytes();
    for at in 0..golden.len() {
        let mut changed = golden.clone();
        changed[at] ^= 1;
        if let Ok(read) = Transcript::read(&changed) {
            assert_eq!(read.to_bytes(), changed);
            assert_ne!(read.to_bytes(), golden);
        }
        assert!(Transcript::read(&golden[..at]).is_err());
    }
    assert!(matches!(Transcript::read(b""), Err(Unreadable::Encoding(_))));
}

fn token(profile: Profile) -> Token<'static> {
    Token { profile, issuer: "test", issued_at: NOW, expires_at: NOW + 300 }
}

#[test]
fn a_token_bears_trustees_names_and_says_simulated() {
    let desk = Desk::new();
    let result = desk.transcribe().1.unwrap();
    let claims = desk.claims(&result, Profile::Trustee);
    assert_eq!(claims["eat_profile"], "tag:github.com,2024:confidential-containers/Trustee");
    assert_eq!(claims["iat"], NOW);
    let cpu = &claims["submods"]["cpu0"];
    assert_eq!(cpu["ear.status"], "contraindicated");
    assert_eq!(cpu["ear.trustworthiness-vector"]["hardware"], 97);
    assert_eq!(cpu["ear.trustworthiness-vector"]["executables"], 3);
    assert_eq!(cpu["ear.appraisal-policy-id"], result.policy_digest().to_string());
    let evidence = &cpu["ear.veraison.annotated-evidence"];
    assert_eq!(evidence["snp"]["evidence"]["measurement"], "11".repeat(48));
    assert_eq!(evidence["snp"]["evidence"]["reported_tcb"]["microcode"], 84);
    assert_eq!(evidence["snp"]["evidence"]["policy"]["debug_allowed"], false);
    assert_eq!(cpu["cloister"]["simulated"], true);
}

#[test]
fn a_token_of_the_ietf_profile_has_no_dots_and_no_hyphens() {
    let desk = Desk::new();
    let result = desk.transcribe().1.unwrap();
    let claims = desk.claims(&result, Profile::Ietf2026);
    assert_eq!(claims["eat_profile"], "tag:ietf.org,2026:rats/ear#03");
    let cpu = claims["submods"]["cpu0"].as_object().unwrap();
    assert!(cpu.keys().all(|name| !name.contains(['.', '-'])));
    assert_eq!(cpu["ear_trustworthiness_vector"]["runtime_opaque"], 2);
    assert!(cpu["ear_attester_claims"]["snp"].is_object());
}

#[test]
fn a_token_is_what_was_signed_and_its_signature() {
    use base64ct::{Base64UrlUnpadded, Encoding};
    use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

    let desk = Desk::new();
    let result = desk.transcribe().1.unwrap();
    let claims = desk.claims(&result, Profile::Trustee);
    let input = ear::signing_input(&claims, Algorithm::EdDsa);
    assert_eq!(input, ear::signing_input(&claims, Algorithm::EdDsa));
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let jwt = ear::token(&input, key.sign(input.as_bytes()).as_ref());
    let parts: Vec<_> = jwt.split('.').collect();
    let decode = |part: &str| Base64UrlUnpadded::decode_vec(part).unwrap();
    let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
    assert_eq!(header["alg"], "EdDSA");
    let again: Value = serde_json::from_slice(&decode(parts[1])).unwrap();
    assert_eq!(again, claims);
    UnparsedPublicKey::new(&ED25519, key.public_key().as_ref())
        .verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &decode(parts[2]))
        .unwrap();
}

#[test]
fn there_is_no_token_about_other_evidence() {
    let desk = Desk::new();
    let result = desk.transcribe().1.unwrap();
    let mut other = desk.report.clone();
    other[0x90] ^= 1;
    let claims = |report: &[u8]| {
        let evidence = Evidence { tee: Tee::Snp, report };
        let attested = Attested { processor: Some((&result, &evidence)), devices: None };
        ear::claims(&attested, &token(Profile::Trustee))
    };
    assert_eq!(claims(&other), Err(EarError::AnotherEvidence));
    assert!(matches!(claims(&other[1..]), Err(EarError::Malformed(_))));
    let nothing = ear::claims(&Attested::default(), &token(Profile::Trustee));
    assert_eq!(nothing, Err(EarError::NothingAttested));
}

fn value<'a>(fields: &'a [attestation_verifier::explain::Field], name: &str) -> (&'a str, &'a str) {
    let field = fields.iter().find(|field| field.name == name).unwrap_or_else(|| panic!("{name}"));
    (&field.value, &field.meaning)
}

#[test]
fn explains_every_field_of_a_report() {
    let desk = Desk::new();
    let fields = explain(&desk.evidence()).unwrap();
    assert!(fields.len() > 40);
    assert!(fields.windows(2).all(|pair| pair[0].at <= pair[1].at), "in order");
    assert!(fields.iter().all(|field| !field.value.is_empty() && !field.meaning.is_empty()));
    assert_eq!(value(&fields, "VERSION").0, "5");
    assert_eq!(value(&fields, "CPUID").1, "Genoa");
    assert_eq!(value(&fields, "POLICY.DEBUG"), ("bit 19 clear", "no debugging from outside"));
    assert_eq!(value(&fields, "REPORTED_TCB").0, "fmc 0 bootloader 10 tee 0 snp 23 microcode 84");
    assert_eq!(value(&fields, "PLATFORM_INFO.ALIAS_CHECK_COMPLETE").0, "bit 5 set");
    let cut = Evidence { tee: Tee::Snp, report: &desk.report[..100] };
    assert!(explain(&cut).is_err());
}

#[test]
fn explains_every_recorded_report_and_quote() {
    let Some(root) = vectors() else { return };
    for name in ["milan-v2-debug", "milan-v3-vlek-vmpl1", "turin-v5-azure", "genoa-v5"] {
        let report = read(&root, &format!("snp/reports/{name}/report.bin"));
        assert_eq!(recognise(&report), Some(Tee::Snp));
        explain(&Evidence { tee: Tee::Snp, report: &report }).unwrap();
    }
    let debug = read(&root, "snp/reports/milan-v2-debug/report.bin");
    let fields = explain(&Evidence { tee: Tee::Snp, report: &debug }).unwrap();
    assert!(value(&fields, "POLICY.DEBUG").1.contains("MAY READ"));
    for name in ["trustee-v4-debug-50806f", "dcapqvl-v5-bt4-b0c06f", "gotdx-v5-bt3-90c06f"] {
        let bytes = read(&root, &format!("tdx/quotes/{name}.bin"));
        assert_eq!(recognise(&bytes), Some(Tee::Tdx));
        let quote = unpadded(&bytes).unwrap();
        let fields = explain(&Evidence { tee: Tee::Tdx, report: quote }).unwrap();
        let register = fields.iter().find(|field| field.name == "RTMR0").unwrap();
        assert_eq!(hex::encode(&quote[register.at..register.at + 48]), register.value);
        let data = fields.iter().find(|field| field.name == "REPORTDATA").unwrap();
        assert_eq!(hex::encode(&quote[data.at..data.at + 64]), data.value);
        let debug = value(&fields, "DEBUG").0 == "bit 0 set";
        assert_eq!(debug, name.contains("debug"));
    }
    assert_eq!(recognise(&read(&root, "tdx/quotes/tdreport-1024.bin")), None);
    assert_eq!(recognise(b""), None);
}

#[test]
fn says_where_the_endorsements_of_a_report_are() {
    let Some(root) = vectors() else { return };
    let list = |name: &str| {
        let report = read(&root, &format!("snp/reports/{name}/report.bin"));
        let sources = sources(&Evidence { tee: Tee::Snp, report: &report }).unwrap();
        sources.into_iter().map(|source| source.url).collect::<Vec<_>>()
    };
    let kds = "https://kdsintf.amd.com";
    let turin = list("turin-v5-azure");
    assert!(turin[0].starts_with(&format!("{kds}/vcek/v1/Turin/5979")), "{turin:?}");
    assert!(turin[0].ends_with("?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81"));
    assert_eq!(turin[0].len(), kds.len() + "/vcek/v1/Turin/".len() + 16 + 51);
    assert_eq!(
        turin[1..],
        [format!("{kds}/vcek/v1/Turin/cert_chain"), format!("{kds}/vcek/v1/Turin/crl")]
    );
    let genoa = list("genoa-v5");
    assert!(genoa[0].ends_with("?blSPL=10&teeSPL=00&snpSPL=27&ucodeSPL=27"), "{genoa:?}");
    let vlek = list("milan-v3-vlek-vmpl1");
    assert_eq!(
        vlek[..2],
        [format!("{kds}/vlek/v1/Milan/cert_chain"), format!("{kds}/vlek/v1/Milan/crl")]
    );
}

#[test]
fn says_where_the_endorsements_of_a_quote_are() {
    let Some(root) = vectors() else { return };
    let bytes = read(&root, "tdx/quotes/gotdx-v5-bt3-90c06f.bin");
    let list = sources(&Evidence { tee: Tee::Tdx, report: &bytes }).unwrap();
    let urls: Vec<_> = list.iter().map(|source| source.url.as_str()).collect();
    assert!(urls[0].ends_with("/tdx/certification/v4/tcb?fmspc=90c06f000000"), "{urls:?}");
    assert!(urls[2].contains("ca=platform"));
}

#[test]
fn tells_endorsements_and_their_time_by_content() {
    let Some(root) = vectors() else { return };
    let what = |path: &str| {
        let item = read(&root, path);
        describe(&item).unwrap().into_iter().map(|one| one.what).collect::<Vec<_>>()
    };
    assert_eq!(what("snp/roots/genoa_ask.pem"), ["certificate"]);
    assert_eq!(what("tdx/collateral/cai/root_ca_crl.der"), ["revocation list"]);
    assert_eq!(what("tdx/collateral/cai/tcb_info_90c06f000000.json"), ["TCB info"]);
    assert_eq!(what("tdx/collateral/cai/td_qe_identity.json"), ["QE identity"]);
    assert_eq!(what("tdx/collateral/cai/tcb_signing_chain.pem"), ["certificate", "certificate"]);
    let whole = what("tdx/collateral/assembled-90c06f-2026-03.collateral.json");
    assert_eq!(whole[..4], ["TCB info", "QE identity", "revocation list", "revocation list"]);
    assert!(describe(b"nothing").is_err());
    assert!(parts(b"{}").is_err());
}

#[test]
fn picks_the_slot_of_each_endorsement() {
    let Some(root) = vectors() else { return };
    let report = read(&root, "snp/reports/genoa-v5/report.bin");
    let genoa = Evidence { tee: Tee::Snp, report: &report };
    let snp = |path: &str| slot(&genoa, &parts(&read(&root, path)).unwrap()[0]);
    assert_eq!(snp("snp/reports/genoa-v5/vcek.der").as_deref(), Some("key"));
    assert_eq!(snp("snp/reports/turin-v5-azure/vcek.pem"), None);
    assert_eq!(snp("snp/roots/genoa_ask.pem").as_deref(), Some("intermediate"));
    assert_eq!(snp("snp/roots/genoa_asvk.pem"), None);
    assert_eq!(snp("snp/roots/genoa_ark.pem").as_deref(), Some("root"));
    assert_eq!(snp("snp/roots/milan_ark.pem"), None);
    // From version 3 on a report says its product; before, either may be meant.
    let slot_of = |name: &str| {
        let report = read(&root, &format!("snp/reports/{name}/report.bin"));
        let evidence = Evidence { tee: Tee::Snp, report: &report };
        slot(&evidence, &parts(&read(&root, "snp/roots/genoa_ask.pem")).unwrap()[0])
    };
    assert_eq!(slot_of("milan-v3-azure"), None);
    assert_eq!(slot_of("milan-v2-debug").as_deref(), Some("intermediate"));
    let quote = read(&root, "tdx/quotes/gotdx-v5-bt3-90c06f.bin");
    let quote = Evidence { tee: Tee::Tdx, report: &quote };
    let tdx = |path: &str| slot(&quote, &parts(&read(&root, path)).unwrap()[0]);
    assert_eq!(tdx("tdx/collateral/cai/tcb_info_90c06f000000.json").as_deref(), Some("tcb info"));
    assert_eq!(tdx("tdx/collateral/cai/tcb_info_50806f000000.json"), None);
    assert_eq!(tdx("tdx/collateral/cai/td_qe_identity.json").as_deref(), Some("qe identity"));
    assert_eq!(tdx("tdx/collateral/cai/tcb_signing_chain.pem").as_deref(), Some("tcb signer"));
    let list = tdx("tdx/collateral/cai/pck_crl_platform.der");
    assert_eq!(list.as_deref(), Some("ca's revocation list"));
    let whole = tdx("tdx/collateral/assembled-90c06f-2026-03.collateral.json");
    assert_eq!(whole.as_deref(), Some("collateral"));
}

#[cfg(feature = "tdx-collateral")]
mod pieces {
    use super::*;
    use attestation_verifier::policy::EVIDENCE;
    use common::{appraise, reasons};

    const PIECES: [&str; 5] = [
        "tdx/collateral/cai/tcb_info_90c06f000000.json",
        "tdx/collateral/cai/td_qe_identity.json",
        "tdx/collateral/cai/tcb_signing_chain.pem",
        "tdx/collateral/cai/pck_crl_platform.der",
        "tdx/collateral/cai/root_ca_crl.der",
    ];

    fn judge(edit: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<&'static str> {
        let Some(root) = vectors() else { return Vec::new() };
        let quote = read(&root, "tdx/quotes/gotdx-v5-bt3-90c06f.bin");
        let mut pieces: Vec<_> = PIECES.iter().map(|path| read(&root, path)).collect();
        edit(&mut pieces);
        reasons(&appraise(EVIDENCE, Tee::Tdx, &quote, &pieces, b"", 1_774_000_000))
    }

    #[test]
    fn accepts_intels_answers_as_they_came_in_any_order() {
        let none: [&str; 0] = [];
        assert_eq!(judge(|_| {}), none);
        assert_eq!(judge(|pieces| pieces.reverse()), none);
        // The chain of the other document is the same.
        assert_eq!(judge(|pieces| pieces.push(pieces[2].clone())), none);
    }

    #[test]
    fn refuses_pieces_that_are_missing_twice_or_of_another_platform() {
        if vectors().is_none() {
            return;
        }
        for index in 0..5 {
            assert_eq!(judge(|pieces| drop(pieces.remove(index))), ["origin.missing"], "{index}");
        }
        for index in [0, 1, 3, 4] {
            let twice = judge(|pieces| pieces.push(pieces[index].clone()));
            assert_eq!(twice, ["origin.surplus"], "{index}");
        }
        let other = judge(|pieces| {
            let root = vectors().unwrap();
            pieces[0] = read(&root, "tdx/collateral/cai/tcb_info_50806f000000.json");
        });
        assert_eq!(other, ["origin.fmspc"]);
        let amd = judge(|pieces| pieces.push(read(&vectors().unwrap(), "snp/roots/genoa_ark.pem")));
        assert_eq!(amd, ["origin.unknown_root"]);
        let ask = judge(|pieces| pieces.push(read(&vectors().unwrap(), "snp/roots/genoa_ask.pem")));
        assert_eq!(ask, ["origin.surplus"]);
        let unsigned = judge(|pieces| {
            let text = String::from_utf8(pieces[0].clone()).unwrap();
            pieces[0] = text.replace("\"signature\"", "\"signed\"").into_bytes();
        });
        assert_eq!(unsigned, ["shape.endorsement"]);
    }
}
