//! Attacks on TDX evidence: one golden quote with its collateral under a test root, one change each, and
//! the finding that each must get. What is signed is signed again after the change.

#![cfg(feature = "tdx-collateral")]
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::collections::BTreeSet;

use attestation_verifier::appraise::Rejection;
use common::amd::{Hierarchy, LAUNCH_BLOB, NOW};
use common::intel::{By, FMSPC, INSTANCE, PPID, Platform, Shape};
use common::{appraise, reasons, with};
use measurement::manifest::Tee;
use serde_json::Value;

/// One thing that is tried: golden until an attack changes it.
#[derive(Default)]
struct Attempt {
    shape: Shape,
    policy: Vec<(&'static str, String)>,
    endorsements: Option<Endorse>,
    /// Judged by a policy that does not name the test's root.
    rootless: bool,
}

impl Attempt {
    fn reasons(&self) -> Vec<&'static str> {
        let platform = Platform::new(&self.shape);
        let named = if self.rootless {
            attestation_verifier::policy::STRICT.to_string()
        } else {
            platform.policy()
        };
        let policy =
            self.policy.iter().fold(named, |policy, (check, value)| with(&policy, check, value));
        let mut endorsements = vec![platform.collateral.clone()];
        if let Some(change) = self.endorsements {
            change(&mut endorsements, &platform);
        }
        let quote = &platform.quote;
        reasons(&appraise(&policy, Tee::Tdx, quote, &endorsements, LAUNCH_BLOB, NOW))
    }
}

struct Attack {
    name: String,
    ids: Vec<&'static str>,
    change: Box<dyn Fn(&mut Attempt)>,
}

type Attacks = Vec<Attack>;

/// A change of the endorsements.
type Endorse = fn(&mut Vec<Vec<u8>>, &Platform);

fn add(
    attacks: &mut Attacks,
    name: impl Into<String>,
    ids: &[&'static str],
    change: impl Fn(&mut Attempt) + 'static,
) {
    attacks.push(Attack { name: name.into(), ids: ids.to_vec(), change: Box::new(change) });
}

/// A change of the TD report, signed.
fn body(attacks: &mut Attacks, name: &str, ids: &[&'static str], at: usize, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    add(attacks, name, ids, move |attempt| put_body(attempt, at, bytes.clone()));
}

fn put_body(attempt: &mut Attempt, at: usize, bytes: Vec<u8>) {
    let edit = move |body: &mut Vec<u8>| body[at..at + bytes.len()].copy_from_slice(&bytes);
    attempt.shape.body.push(Box::new(edit));
}

/// A change of the header, signed.
fn header(attacks: &mut Attacks, name: &str, ids: &[&'static str], at: usize, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    add(attacks, name, ids, move |attempt| {
        let bytes = bytes.clone();
        let edit = move |header: &mut Vec<u8>| header[at..at + bytes.len()].copy_from_slice(&bytes);
        attempt.shape.header.push(Box::new(edit));
    });
}

/// A change of the quoting enclave's report, signed by the PCK.
fn qe(attacks: &mut Attacks, name: &str, ids: &[&'static str], at: usize, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    add(attacks, name, ids, move |attempt| {
        let bytes = bytes.clone();
        let edit = move |report: &mut Vec<u8>| report[at..at + bytes.len()].copy_from_slice(&bytes);
        attempt.shape.qe.push(Box::new(edit));
    });
}

/// A change of the quote when all is signed.
fn raw(attacks: &mut Attacks, name: &str, ids: &[&'static str], edit: fn(&mut Vec<u8>)) {
    add(attacks, name, ids, move |attempt| attempt.shape.quote.push(Box::new(edit)));
}

/// A change of the TCB info, signed.
fn tcb_info(attacks: &mut Attacks, name: &str, ids: &[&'static str], edit: fn(&mut Value)) {
    add(attacks, name, ids, move |attempt| attempt.shape.tcb_info.push(document(edit)));
}

/// A change of the QE identity, signed.
fn qe_identity(attacks: &mut Attacks, name: &str, ids: &[&'static str], edit: fn(&mut Value)) {
    add(attacks, name, ids, move |attempt| attempt.shape.qe_identity.push(document(edit)));
}

fn document(edit: fn(&mut Value)) -> Box<dyn Fn(&mut String)> {
    Box::new(move |text| {
        let mut json: Value = serde_json::from_str(text).unwrap();
        edit(&mut json);
        *text = json.to_string();
    })
}

/// A change of the collateral when all is signed.
fn collateral(attacks: &mut Attacks, name: &str, ids: &[&'static str], edit: fn(&mut Value)) {
    add(attacks, name, ids, move |attempt| attempt.shape.collateral.push(Box::new(edit)));
}

fn policy(attacks: &mut Attacks, check: &'static str, value: &str) {
    let value = value.to_string();
    let name = format!("golden quote, but the policy asks for another {check}: {value}");
    add(attacks, name, &[check], move |attempt| attempt.policy.push((check, value.clone())));
}

/// Where the signature data of a version 4 quote begin.
const DATA: usize = 48 + 584 + 4;

fn shape_attacks(all: &mut Attacks) {
    let unknown = &["shape.unknown"];
    for version in [0_u8, 1, 2, 3, 6] {
        header(all, &format!("quote version {version}"), unknown, 0, &[version]);
    }
    for kind in [0_u8, 1, 3] {
        header(all, &format!("attestation key type {kind}"), unknown, 2, &[kind]);
    }
    header(all, "an SGX quote", unknown, 4, &[0]);
    header(all, "an unknown tee", unknown, 4, &[0x82]);
    for at in 8..12 {
        header(all, &format!("header byte {at} set"), &["shape.reserved"], at, &[1]);
    }
    header(all, "another vendor's quoting enclave", unknown, 12, &[0]);
    header(all, "another vendor in the last byte", unknown, 27, &[0]);
    for body_type in [0_u8, 1, 5] {
        add(all, format!("version 5 with body type {body_type}"), unknown, move |attempt| {
            attempt.shape.version = 5;
            attempt.shape.quote.push(Box::new(move |quote| quote[48] = body_type));
        });
    }
    for (declared, body_type) in [(648_u16, 2_u16), (885, 2), (584, 3), (885, 3), (648, 4)] {
        let name = format!("body type {body_type} with {declared} bytes");
        add(all, name, &["shape.body_size"], move |attempt| {
            (attempt.shape.version, attempt.shape.body_type) = (5, body_type);
            let edit = move |quote: &mut Vec<u8>| {
                quote[50..52].copy_from_slice(&declared.to_le_bytes());
            };
            attempt.shape.quote.push(Box::new(edit));
        });
    }
    let trailing = &["shape.trailing_bytes"];
    raw(all, "a zero byte after the quote", trailing, |quote| quote.push(0));
    raw(all, "a byte after the quote", trailing, |quote| quote.push(1));
    raw(all, "a quote twice", trailing, |quote| quote.extend(quote.clone()));
    let cut = &["shape.truncated"];
    raw(all, "a quote cut by one byte", cut, |quote| quote.truncate(quote.len() - 1));
    raw(all, "no quote", cut, Vec::clear);
    raw(all, "a header alone", cut, |quote| quote.truncate(48));
    raw(all, "signature data one byte longer than said", cut, |quote| quote[DATA - 4] -= 1);
    raw(all, "signature data of four gigabytes", cut, |quote| quote[DATA - 4..DATA].fill(0xff));
    raw(all, "certification data of type 5 outside", unknown, |quote| quote[DATA + 128] = 5);
    raw(all, "certification data of type 1 inside", unknown, |quote| {
        quote[DATA + 128 + 6 + 448 + 34] = 1;
    });
    raw(all, "authentication data of 64 KiB", cut, |quote| {
        quote[DATA + 128 + 6 + 448..][..2].fill(0xff);
    });
    raw(all, "a quote padded to its limit", trailing, |quote| quote.resize(65536, 0));
    raw(all, "a quote past its limit", &["shape.too_long"], |quote| quote.resize(65537, 0));
}

fn signature_attacks(all: &mut Attacks) {
    let forged = &["origin.signature"];
    add(all, "a quote that a stranger signed", forged, |a| a.shape.quote_by = By::Stranger);
    add(all, "a QE report that a stranger signed", forged, |a| a.shape.qe_by = By::Stranger);
    add(all, "a QE report that the PCK CA signed", forged, |a| a.shape.qe_by = By::Ca);
    raw(all, "r of the quote flipped", forged, |quote| quote[DATA] ^= 1);
    raw(all, "s of the quote flipped", forged, |quote| quote[DATA + 63] ^= 1);
    raw(all, "r of the quote zero", forged, |quote| quote[DATA..DATA + 32].fill(0));
    raw(all, "s of the quote zero", forged, |quote| quote[DATA + 32..DATA + 64].fill(0));
    raw(all, "measurement changed after signing", forged, |quote| quote[48 + 0x88] ^= 1);
    raw(all, "report data changed after signing", forged, |quote| quote[48 + 0x208] ^= 1);
    raw(all, "attributes changed after signing", forged, |quote| quote[48 + 0x7b] ^= 0x40);
    raw(all, "user data changed after signing", forged, |quote| quote[28] ^= 1);
    let key = &["origin.attestation_key"];
    raw(all, "another attestation key", key, |quote| quote[DATA + 64] ^= 1);
    raw(all, "other authentication data", key, |quote| quote[DATA + 128 + 6 + 450] ^= 1);
    qe(all, "the QE vouches for another key", key, 320, &[0]);
    qe(all, "the QE vouches for more than a key", key, 352, &[1]);
    qe(all, "the QE vouches for more in the last byte", key, 383, &[1]);
    raw(all, "the QE report changed after signing", forged, |quote| quote[DATA + 134 + 258] = 7);
    raw(all, "the QE report's signature flipped", forged, |quote| quote[DATA + 134 + 384] ^= 1);
}

fn enclave_attacks(all: &mut Attacks) {
    let identity = &["origin.qe_identity"];
    qe(all, "another maker's quoting enclave", identity, 128, &[0]);
    qe(all, "another product of the same maker", identity, 256, &[1]);
    qe(all, "a debuggable quoting enclave", identity, 48, &[0x17]);
    qe(all, "a quoting enclave that is not initialised", identity, 48, &[0x14]);
    qe(all, "a quoting enclave with a provisioning key less", identity, 48, &[0x01]);
    qe(all, "a quoting enclave that selects more state", identity, 16, &[1]);
    qe(all, "a quoting enclave older than any level", identity, 258, &[3]);
    let old = &["tdx.advisories", "tdx.tcb_status"];
    qe(all, "an outdated quoting enclave", old, 258, &[5]);
    qe(all, "a revoked quoting enclave", &["origin.tcb_revoked"], 258, &[4]);
    add(all, "a debuggable quoting enclave that the identity allows", identity, |attempt| {
        attempt.shape.qe.push(Box::new(|report| report[48] = 0x17));
        attempt.shape.qe_identity.push(document(|json| {
            json["attributesMask"] = "00000000000000000000000000000000".into();
        }));
    });
}

fn certificate_attacks(all: &mut Attacks) {
    let (expired, early) = (&["origin.expired"], &["origin.not_yet_valid"]);
    let (past, soon) = ((NOW - 2, NOW - 1), (NOW + 1, NOW + 2));
    add(all, "the PCK expired a second ago", expired, move |a| a.shape.pck_dates = past);
    add(all, "the PCK begins in a second", early, move |a| a.shape.pck_dates = soon);
    add(all, "the PCK CA expired a second ago", expired, move |a| a.shape.ca_dates = past);
    add(all, "the PCK CA begins in a second", early, move |a| a.shape.ca_dates = soon);
    add(all, "the TCB signer expired a second ago", expired, move |a| a.shape.signer_dates = past);
    add(all, "the TCB signer begins in a second", early, move |a| a.shape.signer_dates = soon);
    add(all, "the root expired a second ago", expired, move |a| a.shape.root_dates = past);
    add(all, "the root begins in a second", early, move |a| a.shape.root_dates = soon);
    let unusable = &["origin.unusable"];
    for name in ["Intel SGX PCK Certificate 2", "Intel SGX TCB Signing", ""] {
        let title = format!("the PCK certificate is called {name:?}");
        add(all, title, unusable, move |attempt| attempt.shape.pck_name = name);
    }
    for name in ["Intel SGX PCK CA", "Intel SGX TCB Signing"] {
        let title = format!("the PCK CA is called {name:?}");
        add(all, title, unusable, move |attempt| attempt.shape.ca_name = name);
    }
    add(all, "the TCB signer is called otherwise", unusable, |attempt| {
        attempt.shape.signer_name = "Intel SGX PCK Platform CA";
    });
    add(all, "the root is not believed", &["origin.unknown_root"], |a| a.rootless = true);
    add(all, "the PCK CA may sign no certificates", &["origin.collateral"], |attempt| {
        attempt.shape.ca_is_authority = false;
    });
    add(all, "a PCK certificate that the root signed", &["origin.signature"], |attempt| {
        attempt.shape.pck_by = By::Root;
    });
    add(all, "a PCK certificate that a stranger signed", &["origin.signature"], |attempt| {
        attempt.shape.pck_by = By::Stranger;
    });
    let mut chain = |name: &str, edit: fn(&mut String)| {
        add(all, name, unusable, move |attempt| attempt.shape.pem.push(Box::new(edit)));
    };
    chain("no certificates", String::clear);
    chain("two certificates", |pem| {
        let last = pem.rfind("-----BEGIN").unwrap();
        pem.truncate(last);
    });
    chain("four certificates", |pem| {
        let last = pem[pem.rfind("-----BEGIN").unwrap()..].to_string();
        pem.push_str(&last);
    });
    chain("spaces for line ends", |pem| *pem = pem.replace('\n', " "));
    chain("one line end of another kind", |pem| *pem = pem.replacen('\n', "\r", 2));
    chain("an empty line between certificates", |pem| {
        *pem = pem.replace("\n-----BEGIN", "\n\n-----BEGIN")
    });
    chain("lines of 76 characters", |pem| {
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        *pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", &text[..76]);
    });
    chain("text before the certificates", |pem| pem.insert(0, '#'));
    chain("text after the certificates", |pem| pem.push('#'));
    chain("two line ends after the certificates", |pem| pem.push('\n'));
    chain("two NULs after the certificates", |pem| pem.push_str("\0\0"));
    chain("other labels", |pem| *pem = pem.replace("CERTIFICATE", "X509 CRL"));
}

fn revocation_attacks(all: &mut Attacks) {
    let (expired, early) = (&["origin.expired"], &["origin.not_yet_valid"]);
    add(all, "the root's list ends now", expired, |a| a.shape.root_list = (NOW - 9, NOW, vec![]));
    add(all, "the CA's list ends now", expired, |a| a.shape.ca_list = (NOW - 9, NOW, vec![]));
    add(all, "the root's list begins in a second", early, |attempt| {
        attempt.shape.root_list = (NOW + 1, NOW + 2, vec![]);
    });
    add(all, "the CA's list begins in a second", early, |attempt| {
        attempt.shape.ca_list = (NOW + 1, NOW + 2, vec![]);
    });
    let revoked = &["origin.revoked"];
    let root =
        move |serial: u8| move |attempt: &mut Attempt| attempt.shape.root_list.2 = vec![serial];
    add(all, "the PCK CA is revoked", revoked, root(2));
    add(all, "the TCB signer is revoked", revoked, root(3));
    add(all, "the root is revoked", revoked, root(1));
    add(all, "the PCK is revoked", revoked, |attempt| {
        attempt.shape.ca_list.2 = vec![9, 4];
    });
    let forged = &["origin.signature"];
    add(all, "a root's list that the CA signed", forged, |a| a.shape.root_list_by = By::Ca);
    add(all, "a CA's list that a stranger signed", forged, |a| a.shape.ca_list_by = By::Stranger);
    add(all, "a root's list that a stranger signed", forged, |attempt| {
        attempt.shape.root_list_by = By::Stranger;
    });
    let issuer = &["origin.issuer"];
    collateral(all, "the root's list in both places", issuer, |json| {
        json["pck_crl"] = json["root_ca_crl"].clone();
    });
    collateral(all, "the lists swapped", issuer, |json| {
        let root = json["root_ca_crl"].take();
        json["root_ca_crl"] = json["pck_crl"].take();
        json["pck_crl"] = root;
    });
    collateral(all, "an empty list", &["origin.unusable"], |json| json["pck_crl"] = "".into());
}

fn collateral_attacks(all: &mut Attacks) {
    let mut edit = |name: &str, ids: &[&'static str], change: Endorse| {
        add(all, name, ids, move |attempt| attempt.endorsements = Some(change));
    };
    edit("no collateral", &["origin.missing"], |all, _| all.clear());
    edit("collateral twice", &["origin.surplus"], |all, _| all.push(all[0].clone()));
    edit("the root beside the collateral", &["origin.surplus"], |all, platform| {
        all.push(platform.root.clone());
    });
    edit("collateral cut by one byte", &["shape.endorsement"], |all, _| all[0].truncate(100));
    edit("collateral of another platform's hierarchy", &["origin.signature"], |all, _| {
        all[0] = Platform::new(&Shape::default()).collateral;
    });
    let shape = &["shape.endorsement"];
    collateral(all, "a field that is not known", shape, |json| json["note"] = "x".into());
    collateral(all, "no QE identity", shape, |json| {
        json.as_object_mut().unwrap().remove("qe_identity");
    });
    collateral(all, "a signature that is not hexadecimal", shape, |json| {
        json["tcb_info_signature"] = "zz".into();
    });
    let forged = &["origin.signature"];
    collateral(all, "TCB info changed after signing", forged, |json| {
        let text = json["tcb_info"].as_str().unwrap();
        json["tcb_info"] = text.replace("SWHardeningNeeded", "UpToDate").into();
    });
    collateral(all, "QE identity changed after signing", forged, |json| {
        let text = json["qe_identity"].as_str().unwrap();
        json["qe_identity"] = text.replace("INTEL-SA-00615", "").into();
    });
    collateral(all, "a space before the TCB info", forged, |json| {
        json["tcb_info"] = format!(" {}", json["tcb_info"].as_str().unwrap()).into();
    });
    collateral(all, "a cut signature", &["origin.collateral"], |json| {
        let text = json["tcb_info_signature"].as_str().unwrap();
        json["tcb_info_signature"] = text[..62].into();
    });
    for (name, by) in [("the PCK CA", By::Ca), ("the PCK", By::Pck), ("a stranger", By::Stranger)] {
        add(all, format!("TCB info that {name} signed"), forged, move |attempt| {
            attempt.shape.tcb_info_by = by;
        });
        add(all, format!("QE identity that {name} signed"), forged, move |attempt| {
            attempt.shape.qe_identity_by = by;
        });
    }
    collateral(all, "the PCK CA's chain for the TCB signer's", &["origin.unusable"], |json| {
        json["tcb_info_issuer_chain"] = json["pck_crl_issuer_chain"].clone();
    });
    collateral(all, "no chain for the QE identity", &["origin.unusable"], |json| {
        json["qe_identity_issuer_chain"] = "".into();
    });
    add(all, "collateral of another FMSPC", &["origin.fmspc"], |attempt| {
        attempt.shape.fmspc = [0; 6];
    });
    add(all, "a platform with another PCE id", &["origin.pce_id"], |a| a.shape.pce_id = [0, 1]);
    tcb_info(all, "TCB info of another PCE id", &["origin.pce_id"], |json| {
        json["pceId"] = "0001".into()
    });
}

/// The golden collateral as Intel's service hands it out: TCB info, QE identity, their signer with the
/// root, the root's list and the CA's.
fn in_pieces(endorsements: &mut Vec<Vec<u8>>) {
    let whole: Value = serde_json::from_slice(&endorsements[0]).unwrap();
    let text = |key: &str| whole[key].as_str().unwrap();
    let document = |name: &str, key: &str| {
        let signature = text(&format!("{key}_signature"));
        format!("{{\"{name}\":{},\"signature\":\"{signature}\"}}", text(key)).into_bytes()
    };
    *endorsements = vec![
        document("tcbInfo", "tcb_info"),
        document("enclaveIdentity", "qe_identity"),
        text("tcb_info_issuer_chain").into(),
        hex::decode(text("root_ca_crl")).unwrap(),
        hex::decode(text("pck_crl")).unwrap(),
    ];
}

/// All pieces but one, or one more.
fn without(all: &mut Vec<Vec<u8>>, at: usize) {
    in_pieces(all);
    all.remove(at);
}

fn beside(all: &mut Vec<Vec<u8>>, more: impl Fn(&[Vec<u8>]) -> Vec<u8>) {
    in_pieces(all);
    all.push(more(all));
}

/// A document with one text for another.
fn replaced(all: &mut Vec<Vec<u8>>, at: usize, from: &str, to: &str) {
    in_pieces(all);
    let text = String::from_utf8(all[at].clone()).unwrap();
    assert!(text.contains(from));
    all[at] = text.replacen(from, to, 1).into_bytes();
}

fn stranger() -> Vec<Vec<u8>> {
    let mut all = vec![Platform::new(&Shape::default()).collateral];
    in_pieces(&mut all);
    all
}

fn piece_attacks(all: &mut Attacks) {
    let mut edit = |name: &str, ids: &[&'static str], change: Endorse| {
        add(all, format!("in pieces: {name}"), ids, move |attempt| {
            attempt.endorsements = Some(change);
        });
    };
    let missing = &["origin.missing"];
    edit("no TCB info", missing, |all, _| without(all, 0));
    edit("no QE identity", missing, |all, _| without(all, 1));
    edit("no signer", missing, |all, _| without(all, 2));
    edit("no list of the root", missing, |all, _| without(all, 3));
    edit("no list of the CA", missing, |all, _| without(all, 4));
    edit("the PCK CA for the signer", missing, |all, _| {
        let whole: Value = serde_json::from_slice(&all[0]).unwrap();
        in_pieces(all);
        all[2] = whole["pck_crl_issuer_chain"].as_str().unwrap().into();
    });
    let surplus = &["origin.surplus"];
    edit("TCB info twice", surplus, |all, _| beside(all, |all| all[0].clone()));
    edit("QE identity twice", surplus, |all, _| beside(all, |all| all[1].clone()));
    edit("the root's list twice", surplus, |all, _| beside(all, |all| all[3].clone()));
    edit("the whole beside them", surplus, |all, platform| {
        in_pieces(all);
        all.push(platform.collateral.clone());
    });
    edit("two signers", surplus, |all, _| {
        let chain = String::from_utf8(stranger().remove(2)).unwrap();
        let signer = chain[..chain.rfind("-----BEGIN").unwrap()].to_string();
        beside(all, |_| signer.clone().into_bytes());
    });
    edit("another root", &["origin.unknown_root"], |all, _| {
        in_pieces(all);
        all[2] = stranger().remove(2);
    });
    let forged = &["origin.signature"];
    edit("TCB info of another hierarchy", forged, |all, _| {
        in_pieces(all);
        all[0] = stranger().remove(0);
    });
    edit("TCB info changed", forged, |all, _| {
        replaced(all, 0, "SWHardeningNeeded", "UpToDate");
    });
    edit("a space before the TCB info", forged, |all, _| replaced(all, 0, ":{", ": {"));
    edit("a space after the QE identity", forged, |all, _| {
        replaced(all, 1, ",\"signature\"", " ,\"signature\"");
    });
    let shape = &["shape.endorsement"];
    edit("TCB info without its signature", shape, |all, _| {
        replaced(all, 0, ",\"signature\"", ",\"signed\"");
    });
    edit("a signature that is not hexadecimal", shape, |all, _| {
        replaced(all, 1, ",\"signature\":\"", ",\"signature\":\"x");
    });
    edit("text after the signature", shape, |all, _| {
        in_pieces(all);
        all[0].push(b'x');
    });
}

fn document_attacks(all: &mut Attacks) {
    let kind = &["origin.document"];
    tcb_info(all, "TCB info of SGX", kind, |json| json["id"] = "SGX".into());
    tcb_info(all, "TCB info of version 2", kind, |json| json["version"] = 2.into());
    tcb_info(all, "TCB info of version 4", kind, |json| json["version"] = 4.into());
    tcb_info(all, "TCB info of another type", kind, |json| json["tcbType"] = 1.into());
    tcb_info(all, "TCB info without a type", kind, |json| {
        json.as_object_mut().unwrap().remove("tcbType");
    });
    qe_identity(all, "QE identity of SGX", kind, |json| json["id"] = "QE".into());
    qe_identity(all, "QE identity of the QvE", kind, |json| json["id"] = "QVE".into());
    qe_identity(all, "QE identity of version 3", kind, |json| json["version"] = 3.into());
    qe_identity(all, "QE identity of version 1", kind, |json| json["version"] = 1.into());
    let numbers = &["origin.evaluation_numbers"];
    tcb_info(all, "TCB info of an older evaluation", numbers, |json| {
        json["tcbEvaluationDataNumber"] = 19.into();
    });
    qe_identity(all, "QE identity of an older evaluation", numbers, |json| {
        json["tcbEvaluationDataNumber"] = 19.into();
    });
    add(all, "both of an evaluation below the floor", &["tdx.evaluation_number"], |attempt| {
        let old: fn(&mut Value) = |json| json["tcbEvaluationDataNumber"] = 17.into();
        attempt.shape.tcb_info.push(document(old));
        attempt.shape.qe_identity.push(document(old));
    });
    let (expired, early) = (&["origin.expired"], &["origin.not_yet_valid"]);
    tcb_info(all, "TCB info of the future", early, |json| {
        json["issueDate"] = "2027-01-01T00:00:00Z".into();
    });
    tcb_info(all, "expired TCB info", expired, |json| {
        json["nextUpdate"] = "2026-01-01T00:00:00Z".into();
    });
    qe_identity(all, "QE identity of the future", early, |json| {
        json["issueDate"] = "2027-01-01T00:00:00Z".into();
    });
    qe_identity(all, "expired QE identity", expired, |json| {
        json["nextUpdate"] = "2026-01-01T00:00:00Z".into();
    });
    let collateral = &["origin.collateral"];
    tcb_info(all, "a date that is none", collateral, |json| json["issueDate"] = "today".into());
    let unusable = &["origin.unusable"];
    tcb_info(all, "TCB info nested past its limit", unusable, |json| {
        let mut nested = Value::Null;
        for _ in 0..17 {
            nested = Value::Array(vec![nested]);
        }
        json["more"] = nested;
    });
    tcb_info(all, "TCB info without an evaluation", unusable, |json| {
        json.as_object_mut().unwrap().remove("tcbEvaluationDataNumber");
    });
    tcb_info(all, "TCB info that is an array", unusable, |json| *json = Value::Array(Vec::new()));
}

fn level_attacks(all: &mut Attacks) {
    let none = &["origin.tcb_level"];
    let svn =
        |index: usize, svn: u8| move |attempt: &mut Attempt| attempt.shape.cpu_svn[index] = svn;
    for index in [2_usize, 3, 4, 5, 7] {
        let name = format!("SGX component {index} below every level");
        add(all, name, none, svn(index, 0));
    }
    add(all, "SGX component 0 below every level", none, svn(0, 1));
    add(all, "the PCE below every level", none, |attempt| attempt.shape.pce_svn = 10);
    let old = &["tdx.advisories", "tdx.tcb_status"];
    add(all, "a platform that needs hardening", old, svn(0, 3));
    add(all, "an outdated platform", old, |attempt| {
        attempt.shape.cpu_svn[0] = 3;
        attempt.shape.cpu_svn[1] = 3;
    });
    add(all, "a revoked platform", &["origin.tcb_revoked"], svn(0, 2));
    body(all, "microcode below every level", none, 2, &[1]);
    body(all, "a module that no identity names", &["origin.tdx_module"], 1, &[9]);
    body(all, "a module below every level", &["origin.tdx_module"], 0, &[4]);
    body(all, "an outdated module", &["tdx.tcb_status"], 0, &[6]);
    body(all, "a revoked module", &["origin.tcb_revoked"], 0, &[5]);
    body(all, "a module of version 0 at an old svn", none, 0, &[4, 0]);
    body(all, "a module that another maker signed", &["origin.tdx_module"], 0x40, &[1]);
    body(all, "a module with attributes", &["origin.tdx_module"], 0x70, &[1]);
    body(all, "a module with an attribute at the end", &["origin.tdx_module"], 0x77, &[0x80]);
    tcb_info(all, "no module at all", &["origin.tdx_module"], |json| {
        json.as_object_mut().unwrap().remove("tdxModule");
    });
    tcb_info(all, "no levels at all", none, |json| json["tcbLevels"] = Value::Array(Vec::new()));
    tcb_info(all, "a status that is no status of a platform", &["origin.collateral"], |json| {
        json["tcbLevels"][0]["tcbStatus"] = "TDRelaunchAdvised".into();
    });
    tcb_info(all, "a status that is not known", &["origin.collateral"], |json| {
        json["tcbLevels"][0]["tcbStatus"] = "Fine".into();
    });
    tcb_info(all, "levels of fifteen components", &["origin.collateral"], |json| {
        json["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].as_array_mut().unwrap().pop();
    });
    tcb_info(all, "an advisory at an accepted level", &["tdx.advisories"], |json| {
        json["tcbLevels"][0]["advisoryIDs"] = Value::Array(vec!["INTEL-SA-09999".into()]);
    });
    tcb_info(all, "configuration needed", &["tdx.tcb_status"], |json| {
        json["tcbLevels"][0]["tcbStatus"] = "ConfigurationNeeded".into();
    });
    let relaunch = |svn: [u8; 3], svn2: [u8; 3]| {
        move |attempt: &mut Attempt| {
            (attempt.shape.version, attempt.shape.body_type) = (5, 3);
            put_body(attempt, 0, svn.to_vec());
            put_body(attempt, 0x248, svn2.to_vec());
        }
    };
    let (good, old_module) = ([11, 1, 4], [6, 1, 4]);
    add(all, "relaunch advised", &["tdx.tcb_status"], relaunch(old_module, good));
    add(all, "an older module now than at launch", &["tdx.tcb_status"], relaunch(good, old_module));
    add(all, "a revoked module now", &["origin.tcb_revoked"], relaunch(good, [5, 1, 4]));
    add(all, "a module now that no identity names", none, relaunch(good, [11, 9, 4]));
    add(all, "microcode now below every level", none, relaunch(good, [11, 1, 1]));
    add(all, "older microcode now than at launch", old, relaunch(good, [11, 1, 3]));
}

fn attribute_attacks(all: &mut Attacks) {
    const GOLDEN: u64 = 0x1000_0000;
    for bit in 0..64_u32 {
        let ids: &[&str] = match bit {
            0..=7 => &["tdx.debug"],
            17 => &["tdx.service_td"],
            28 => &["tdx.sept_ve_disable"],
            29 => &["tdx.migration"],
            30 => &[],
            _ => &["tdx.attributes"],
        };
        let name = format!("td attribute bit {bit} flipped");
        body(all, &name, ids, 0x78, &(GOLDEN ^ (1 << bit)).to_le_bytes());
    }
    const XFAM: u64 = 0x0006_02e7;
    for bit in 0..64_u32 {
        let allowed = 0x0006_5ae7_u64;
        let set = XFAM & (1 << bit) != 0;
        let ids: &[&str] = match bit {
            0 | 1 => &["tdx.xfam"],
            _ if set || allowed & (1 << bit) != 0 => &[],
            _ => &["tdx.xfam"],
        };
        let name = format!("xfam bit {bit} flipped");
        body(all, &name, ids, 0x80, &(XFAM ^ (1 << bit)).to_le_bytes());
    }
    add(
        all,
        "a guest of Azure: no attributes, no registers",
        &["tdx.sept_ve_disable"],
        |attempt| {
            put_body(attempt, 0x78, vec![0; 8]);
            put_body(attempt, 0x148, vec![0; 192]);
        },
    );
    body(all, "no challenge answered", &["binding.challenge"], 0x208, &[0; 64]);
    body(all, "another launch blob", &["binding.launch_blob"], 0xb8, &[0]);
    body(all, "no launch blob", &["binding.launch_blob"], 0xb8, &[0; 48]);
    body(all, "an owner", &["tdx.mr_owner"], 0xe8, &[1]);
    body(all, "an owner's configuration", &["tdx.mr_owner_config"], 0x118, &[1]);
    body(all, "a guest that recorded something", &["tdx.rtmr3"], 0x1d8, &[1]);
    let service = |at: usize| {
        move |attempt: &mut Attempt| {
            (attempt.shape.version, attempt.shape.body_type) = (5, 4);
            put_body(attempt, at, vec![1]);
        }
    };
    let bound = &["tdx.service_td"];
    add(all, "a service TD is bound", bound, |attempt| {
        (attempt.shape.version, attempt.shape.body_type) = (5, 3);
        put_body(attempt, 0x258, vec![1]);
    });
    add(all, "a service TD was bound at creation", bound, service(0x288 + 0x51));
    add(all, "a service TD with attributes at creation", bound, service(0x288 + 0x81));
    add(all, "a service TD is bound since", bound, service(0x288 + 0xb5));
    add(all, "a service TD with attributes since", bound, service(0x288 + 0xe5));
}

fn policy_attacks(all: &mut Attacks) {
    let hex = |bytes: usize| format!("{{ require = [\"{}\"] }}", "ab".repeat(bytes));
    for check in ["tdx.mr_seam", "tdx.mr_td", "tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2"] {
        policy(all, check, &hex(48));
    }
    for check in ["tdx.mr_config_id", "tdx.mr_owner", "tdx.mr_owner_config", "tdx.rtmr3"] {
        policy(all, check, &hex(48));
    }
    policy(all, "tdx.mr_config_id", "{ require = \"zero\" }");
    policy(all, "tdx.ppid", &hex(16));
    policy(all, "tdx.platform_instance", &hex(16));
    for check in ["tdx.smt", "tdx.dynamic_platform", "tdx.cached_keys"] {
        policy(all, check, "{ require = [\"off\"] }");
    }
    policy(all, "tdx.evaluation_number", "{ require = 21 }");
    policy(all, "tdx.evaluation_number", "{ require = [{ since = \"2030-01-01\", least = 1 }] }");
    policy(all, "tdx.tcb_status", "{ require = [\"SWHardeningNeeded\", \"OutOfDate\"] }");
    policy(all, "tdx.tee_tcb_svn", "{ require = \"0c000000000000000000000000000000\" }");
    policy(all, "tdx.tee_tcb_svn", "{ require = \"0b010400000000000000000000000001\" }");
    policy(all, "tdx.xfam", "{ require = \"0x00000000000000e7\" }");
    policy(all, "binding.platform", "{ require = \"listed\" }");
    add(all, "the module now is below the policy's floor", &["tdx.tee_tcb_svn"], |attempt| {
        let floor = "{ require = \"0b010400000000000000000000000000\" }";
        attempt.policy.push(("tdx.tee_tcb_svn", floor.into()));
        let accepted = "{ require = [\"UpToDate\", \"OutOfDate\"] }";
        attempt.policy.push(("tdx.tcb_status", accepted.into()));
        (attempt.shape.version, attempt.shape.body_type) = (5, 3);
        put_body(attempt, 0x248, vec![6]);
    });
}

fn attacks() -> Attacks {
    let mut all = Vec::new();
    shape_attacks(&mut all);
    signature_attacks(&mut all);
    enclave_attacks(&mut all);
    certificate_attacks(&mut all);
    revocation_attacks(&mut all);
    collateral_attacks(&mut all);
    piece_attacks(&mut all);
    document_attacks(&mut all);
    level_attacks(&mut all);
    attribute_attacks(&mut all);
    policy_attacks(&mut all);
    all
}

#[test]
fn gives_every_attack_its_finding() {
    let mut wrong = Vec::new();
    for Attack { name, ids, change } in attacks() {
        let mut attempt = Attempt::default();
        change(&mut attempt);
        let seen = attempt.reasons();
        if seen != ids {
            wrong.push(format!("{name}: {seen:?}, required {ids:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_each_attack_once_and_knows_at_least_150() {
    let attacks = attacks();
    let names: BTreeSet<_> = attacks.iter().map(|attack| attack.name.clone()).collect();
    assert_eq!(names.len(), attacks.len());
    // Not counting single bits of one field.
    let generated = ["td attribute bit", "xfam bit"];
    let named = names.iter().filter(|name| !generated.iter().any(|head| name.starts_with(head)));
    let named = named.count();
    assert!(named >= 150, "{named}");
}

#[test]
fn accepts_the_golden_quote_of_each_version_and_body() {
    let golden: [&str; 0] = [];
    for (version, body_type) in [(4, 2), (5, 2), (5, 3), (5, 4)] {
        let mut attempt = Attempt::default();
        (attempt.shape.version, attempt.shape.body_type) = (version, body_type);
        assert_eq!(attempt.reasons(), golden, "{version} {body_type}");
    }
    let mut attempt = Attempt::default();
    attempt.shape.ca_name = "Intel SGX PCK Processor CA";
    assert_eq!(attempt.reasons(), golden);
    for (check, value) in [
        ("tdx.ppid", hex::encode(PPID)),
        ("tdx.platform_instance", hex::encode(INSTANCE)),
        ("tdx.mr_td", "11".repeat(48)),
        ("tdx.rtmr0", "20".repeat(48)),
        ("tdx.mr_seam", "5e".repeat(48)),
    ] {
        let mut attempt = Attempt::default();
        attempt.policy.push((check, format!("{{ require = [\"{value}\"] }}")));
        assert_eq!(attempt.reasons(), golden, "{check}");
    }
    assert_ne!(FMSPC, [0; 6]);
}

/// Both levels of a platform that was relaunched, whichever is the worse.
#[test]
fn names_an_advisory_of_launch_and_of_now_once() {
    let mut attempt = Attempt::default();
    (attempt.shape.version, attempt.shape.body_type) = (5, 3);
    put_body(&mut attempt, 0, vec![11, 1, 3]);
    put_body(&mut attempt, 0x248, vec![12, 1, 3]);
    let platform = Platform::new(&attempt.shape);
    let (policy, items) = (platform.policy(), [platform.collateral.clone()]);
    let verdict = appraise(&policy, Tee::Tdx, &platform.quote, &items, LAUNCH_BLOB, NOW);
    let Err(Rejection::Unacceptable(findings)) = verdict else { panic!("{verdict:?}") };
    let advisories = findings.as_slice().iter().find(|finding| finding.id() == "tdx.advisories");
    assert_eq!(advisories.unwrap().observed(), "INTEL-SA-01397");
}

#[test]
fn says_which_field_of_a_document_is_of_another_kind() {
    let flaw = |edit: fn(&mut Attempt)| {
        let mut attempt = Attempt::default();
        edit(&mut attempt);
        let platform = Platform::new(&attempt.shape);
        let (policy, items) = (platform.policy(), [platform.collateral.clone()]);
        let verdict = appraise(&policy, Tee::Tdx, &platform.quote, &items, LAUNCH_BLOB, NOW);
        verdict.unwrap_err().to_string()
    };
    let sgx = flaw(|attempt| {
        attempt.shape.tcb_info.push(document(|json| json["tcbType"] = 1.into()));
    });
    assert!(sgx.ends_with("tcb info has tcbType 1, required 0"), "{sgx}");
    let typed = flaw(|attempt| {
        attempt.shape.qe_identity.push(document(|json| json["tcbType"] = 0.into()));
    });
    assert!(typed.ends_with("qe identity has tcbType 0, required absent"), "{typed}");
}

/// Whatever is Intel's beside a report of AMD's, whole or in pieces, one piece alone too.
#[test]
fn refuses_endorsements_of_intel_beside_a_report_of_amd() {
    let golden: [&str; 0] = [];
    let amd = Hierarchy::new(&common::amd::Shape::default());
    let report = amd.report(|_| ());
    let judge = |more: &[Vec<u8>]| {
        let items = [&amd.endorsements(), more].concat();
        reasons(&appraise(&amd.policy(), Tee::Snp, &report, &items, LAUNCH_BLOB, NOW))
    };
    assert_eq!(judge(&[]), golden);
    let mut pieces = stranger();
    assert_eq!(judge(&[Platform::new(&Shape::default()).collateral]), ["origin.surplus"]);
    assert_eq!(judge(&pieces[..1]), ["origin.surplus"]);
    assert_eq!(judge(&pieces.split_off(1)[..1]), ["origin.surplus"]);
}

#[test]
fn accepts_collateral_in_pieces_in_any_order() {
    let golden: [&str; 0] = [];
    let orders: [Endorse; 3] = [
        |all, _| in_pieces(all),
        |all, _| {
            in_pieces(all);
            all.reverse();
        },
        // With the PCK CA and its root, as the answer with the CA's list has them.
        |all, _| {
            let whole: Value = serde_json::from_slice(&all[0]).unwrap();
            in_pieces(all);
            all.push(whole["pck_crl_issuer_chain"].as_str().unwrap().into());
        },
    ];
    for (index, order) in orders.into_iter().enumerate() {
        let attempt = Attempt { endorsements: Some(order), ..Attempt::default() };
        assert_eq!(attempt.reasons(), golden, "{index}");
    }
}

#[test]
fn accepts_a_quote_that_meets_every_check_there_is() {
    let listed = |byte: &str, len: usize| format!("{{ require = [\"{}\"] }}", byte.repeat(len));
    let golden: [&str; 0] = [];
    let mut attempt = Attempt {
        policy: vec![
            ("tdx.cached_keys", "{ require = [\"on\"] }".into()),
            ("tdx.dynamic_platform", "{ require = [\"on\"] }".into()),
            ("tdx.mr_config_id", listed("c1", 48)),
            ("tdx.mr_owner", listed("c2", 48)),
            ("tdx.mr_owner_config", listed("c3", 48)),
            ("tdx.mr_seam", listed("5e", 48)),
            ("tdx.mr_td", listed("11", 48)),
            ("tdx.platform_instance", listed("71", 16)),
            ("tdx.ppid", listed("70", 16)),
            ("tdx.rtmr0", listed("20", 48)),
            ("tdx.rtmr1", listed("21", 48)),
            ("tdx.rtmr2", listed("22", 48)),
            ("tdx.rtmr3", listed("c4", 48)),
            ("tdx.smt", "{ require = [\"on\"] }".into()),
            ("tdx.tee_tcb_svn", "{ require = \"0b010400000000000000000000000000\" }".into()),
            ("binding.launch_blob", common::WAIVED.into()),
        ],
        ..Attempt::default()
    };
    put_body(&mut attempt, 0xb8, vec![0xc1; 48]);
    put_body(&mut attempt, 0xe8, vec![0xc2; 48]);
    put_body(&mut attempt, 0x118, vec![0xc3; 48]);
    put_body(&mut attempt, 0x1d8, vec![0xc4; 48]);
    assert_eq!(attempt.reasons(), golden);

    // A worse platform where a policy says so, by status and by advisory.
    let mut attempt = Attempt::default();
    attempt.shape.cpu_svn[0] = 3;
    attempt.policy =
        vec![("tdx.tcb_status", "{ require = [\"UpToDate\", \"SWHardeningNeeded\"] }".into())];
    assert_eq!(attempt.reasons(), ["tdx.advisories"]);
    attempt.policy.push(("tdx.advisories", "{ require = [\"INTEL-SA-00001\"] }".into()));
    assert_eq!(attempt.reasons(), golden);
}

#[test]
fn accepts_the_forms_of_pem_that_quoting_services_write() {
    let golden: [&str; 0] = [];
    let forms: [fn(&mut String); 3] = [
        |pem| pem.push('\0'),
        |pem| *pem = pem.trim_end().to_string(),
        |pem| *pem = pem.replace('\n', "\r\n"),
    ];
    for (index, form) in forms.into_iter().enumerate() {
        let mut attempt = Attempt::default();
        attempt.shape.pem.push(Box::new(form));
        assert_eq!(attempt.reasons(), golden, "{index}");
    }
}
