//! The second opinion: tokens of NVIDIA's remote service.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use attestation_verifier::appraise::{DevicesResult, ExpectedDevices, Verifier};
use attestation_verifier::nras::{Keys, NrasError, Opinion, verify};
use attestation_verifier::policy::{AppraisalPolicy, STRICT};
use base64ct::{Base64UrlUnpadded, Encoding};
use common::nvidia::{Key, Lab, NONCE, NOW, Report, unchanged};
use common::{gpu_vectors, read};
use measurement::digest::sha256;
use serde_json::{Value, json};

const KID: &str = "nv-eat-kid-test";

fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

fn key_set(key: &Key) -> Vec<u8> {
    let point = key.public();
    let (x, y) = (encode(&point[1..49]), encode(&point[49..]));
    let ours = json!({ "kty": "EC", "crv": "P-384", "kid": KID, "x": x, "y": y, "use": "sig" });
    let other = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "other" });
    json!({ "keys": [other, ours] }).to_string().into_bytes()
}

/// A token about one device, with the ueid in decimal.
struct Token {
    key: Key,
    header: Value,
    overall: Value,
    device: Value,
    /// Put in place of the digest of the device's token.
    digest: Option<String>,
    also: Vec<(String, String)>,
}

impl Token {
    fn new(ueid: &str) -> Self {
        let common = json!({
            "iss": "https://nras.attestation.nvidia.com",
            "eat_nonce": hex::encode(NONCE),
            "nbf": NOW - 10,
            "iat": NOW - 10,
            "exp": NOW + 3590,
        });
        let with = |more: Value| {
            let mut all = common.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            Value::Object(all)
        };
        let chain = json!({
            "x-nvidia-cert-status": "valid",
            "x-nvidia-cert-ocsp-status": "good",
            "x-nvidia-cert-revocation-reason": null,
        });
        Self {
            key: Key::new(),
            header: json!({ "alg": "ES384", "kid": KID }),
            overall: with(json!({
                "sub": "NVIDIA-PLATFORM-ATTESTATION",
                "x-nvidia-ver": "3.0",
                "x-nvidia-overall-att-result": true,
            })),
            device: with(json!({
                "ueid": ueid,
                "hwmodel": "GH100 A01 GSP BROM",
                "oemid": "5703",
                "measres": "success",
                "dbgstat": "disabled",
                "secboot": true,
                "x-nvidia-gpu-arch-check": true,
                "x-nvidia-gpu-driver-version": "580.95.05",
                "x-nvidia-gpu-vbios-version": "96.00.9F.00.01",
                "x-nvidia-gpu-attestation-report-cert-chain": chain,
                "x-nvidia-mismatch-measurement-records": null,
            })),
            digest: None,
            also: Vec::new(),
        }
    }

    fn jwt(&self, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            encode(self.header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = encode(&self.key.sign_fixed(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn bytes(&self) -> Vec<u8> {
        let device = self.jwt(&self.device);
        let digest = hex::encode(sha256(device.as_bytes()));
        let digest = self.digest.clone().unwrap_or(digest);
        let mut overall = self.overall.clone();
        overall["submods"] = json!({ "GPU-0": ["DIGEST", ["SHA-256", digest]] });
        let mut devices = json!({ "GPU-0": device });
        for (name, jwt) in &self.also {
            devices[name.as_str()] = json!(jwt);
        }
        json!([["JWT", self.jwt(&overall)], devices]).to_string().into_bytes()
    }

    fn verify(&self) -> Result<Opinion, NrasError> {
        verify(&self.bytes(), &Keys::read(&key_set(&self.key)).unwrap(), &NONCE, NOW)
    }
}

/// A device that was judged here, and its UEID in decimal.
fn judged() -> (DevicesResult, String) {
    let lab = Lab::new(&unchanged);
    let device = lab.gpu(7);
    let verifier = Verifier::new(AppraisalPolicy::parse(&lab.policy_from(STRICT)).unwrap());
    let items = [lab.manifests(), lab.revocations(&[&device])].concat();
    let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
    let expected = ExpectedDevices { nonce: &NONCE, gpus: 1, switches: 0, chips: &[] };
    let evidence = [device.evidence(&Report::gpu())];
    let result = verifier.appraise_devices(&evidence, &items, &expected, NOW).unwrap();
    let mut serial = [0; 16];
    serial[7..].copy_from_slice(&device.key.serial);
    (result, u128::from_be_bytes(serial).to_string())
}

#[test]
fn accepts_a_token_about_the_devices_that_were_judged_here() {
    let (result, ueid) = judged();
    let opinion = Token::new(&ueid).verify().unwrap();
    assert_eq!(opinion.agrees_with(&result), Ok(()));
    assert_eq!(opinion.expires(), NOW + 3590);
}

#[test]
fn rejects_a_token_about_other_devices_or_other_versions() {
    let (result, ueid) = judged();
    let stranger = Token::new("12345").verify().unwrap();
    let devices = NrasError::Devices { observed: 1, required: 1, missing: ueid.clone() };
    assert_eq!(stranger.agrees_with(&result), Err(devices));
    for (claim, value, name, required) in [
        ("hwmodel", "GB100 A01 GSP BROM", "hwmodel", "GH100 A01 GSP BROM"),
        ("x-nvidia-gpu-driver-version", "580.95.06", "driver version", "580.95.05"),
        ("x-nvidia-gpu-vbios-version", "96.00.9F.00.02", "vbios version", "96.00.9F.00.01"),
    ] {
        let mut token = Token::new(&ueid);
        token.device[claim] = json!(value);
        let differs = NrasError::Claim {
            token: ueid.clone(),
            claim: name.into(),
            observed: value.into(),
            required: required.into(),
        };
        assert_eq!(token.verify().unwrap().agrees_with(&result), Err(differs));
    }
}

#[test]
fn rejects_a_token_whose_claims_are_not_those_of_success() {
    let failed = |token: &Token, name: &str, claim: &str| match token.verify() {
        Err(NrasError::Claim { token, claim: seen, .. }) => {
            assert_eq!((token.as_str(), seen.as_str()), (name, claim));
        }
        other => panic!("{claim}: {other:?}"),
    };
    for (claim, value) in [
        ("iss", json!("NVAT-LOCAL-VERIFIER")),
        ("eat_nonce", json!("00")),
        ("nbf", json!("yesterday")),
        ("exp", Value::Null),
        ("sub", json!("x")),
        ("x-nvidia-ver", json!("2.0")),
        ("x-nvidia-overall-att-result", json!(false)),
        ("x-nvidia-overall-att-result", json!("true")),
    ] {
        let mut token = Token::new("1");
        token.overall[claim] = value;
        failed(&token, "overall token", claim);
    }
    for (claim, value) in [
        ("iss", json!("https://nras.attestation.nvidia.com/")),
        ("eat_nonce", json!(hex::encode([1; 32]))),
        ("measres", json!("fail")),
        ("dbgstat", json!("enabled")),
        ("secboot", json!(false)),
        ("secboot", Value::Null),
        ("oemid", json!("1")),
        ("ueid", json!(1)),
        ("hwmodel", Value::Null),
        ("x-nvidia-gpu-arch-check", json!(false)),
        ("x-nvidia-gpu-something-new", json!(false)),
        ("x-nvidia-mismatch-measurement-records", json!([{ "index": 9 }])),
        ("x-nvidia-error-details", json!({ "code": 4003 })),
    ] {
        let mut token = Token::new("1");
        token.device[claim] = value;
        failed(&token, "GPU-0", claim);
    }
    let chain = "x-nvidia-gpu-attestation-report-cert-chain";
    for (name, value) in [
        ("x-nvidia-cert-status", json!("expired")),
        ("x-nvidia-cert-ocsp-status", json!("revoked")),
        ("x-nvidia-cert-revocation-reason", json!("hold")),
    ] {
        let mut token = Token::new("1");
        token.device[chain][name] = value;
        failed(&token, "GPU-0", &format!("{chain}.{name}"));
    }
    for (from, until) in [(NOW - 10, NOW), (NOW + 1, NOW + 10)] {
        let mut token = Token::new("1");
        token.overall["nbf"] = json!(from);
        token.overall["exp"] = json!(until);
        failed(&token, "overall token", "exp");
    }
}

#[test]
fn rejects_tokens_that_are_not_signed_by_the_service() {
    let token = Token::new("1");
    let judge = |bytes: &[u8], keys: &[u8]| verify(bytes, &Keys::read(keys).unwrap(), &NONCE, NOW);
    let signature = NrasError::Signature { token: "overall token".into() };
    assert_eq!(judge(&token.bytes(), &key_set(&Key::new())), Err(signature));
    let none = json!({ "keys": [] }).to_string();
    assert_eq!(judge(&token.bytes(), none.as_bytes()), Err(NrasError::Key { kid: KID.into() }));
    // The same id twice is no one's.
    let twice = String::from_utf8(key_set(&token.key)).unwrap().replace(
        "{\"keys\":[",
        &String::from_utf8(key_set(&token.key)).unwrap().replace("]}", ","),
    );
    assert_eq!(judge(&token.bytes(), twice.as_bytes()), Err(NrasError::Key { kid: KID.into() }));

    for algorithm in ["none", "HS384", "ES256", "es384"] {
        let mut token = Token::new("1");
        token.header = json!({ "alg": algorithm, "kid": KID });
        let (token_name, observed) = ("overall token".into(), algorithm.into());
        let refused = NrasError::Algorithm { token: token_name, observed };
        assert_eq!(token.verify(), Err(refused));
    }
    let mut token = Token::new("1");
    token.header = json!({ "alg": "ES384", "kid": KID, "crit": ["b64"] });
    assert!(matches!(token.verify(), Err(NrasError::Malformed { .. })));
}

#[test]
fn rejects_submodules_that_the_overall_token_does_not_name() {
    let mut token = Token::new("1");
    token.digest = Some("00".repeat(32));
    assert_eq!(token.verify(), Err(NrasError::Digest { token: "GPU-0".into() }));
    let mut token = Token::new("1");
    let jwt = token.jwt(&token.device);
    token.also.push(("GPU-1".into(), jwt));
    let problem = "has other submodules than its overall token";
    assert_eq!(token.verify(), Err(NrasError::Malformed { part: "token", problem }));
}

#[test]
fn rejects_tokens_of_another_shape_and_every_prefix() {
    let token = Token::new("1");
    let keys = Keys::read(&key_set(&token.key)).unwrap();
    let judge = |bytes: &[u8]| verify(bytes, &keys, &NONCE, NOW);
    let bytes = token.bytes();
    for len in 0..bytes.len() {
        assert!(matches!(judge(&bytes[..len]), Err(NrasError::Malformed { .. })), "{len}");
    }
    let text = String::from_utf8(bytes).unwrap();
    for (from, to) in [
        ("\"JWT\"", "\"CWT\""),
        ("\"GPU-0\":", "\"GPU-0\":\"\",\"GPU-0\":"),
        ("[[", "[[\"\","),
        ("}]", "},1]"),
        ("eyJ", "eyJ="),
        ("eyJ", "+yJ"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        assert!(matches!(judge(changed.as_bytes()), Err(NrasError::Malformed { .. })), "{from}");
    }
    let long = vec![b' '; (1 << 20) + 1];
    let problem = "is longer than any honest one";
    assert_eq!(judge(&long), Err(NrasError::Malformed { part: "token", problem }));
    assert!(matches!(Keys::read(&long), Err(NrasError::Malformed { part: "key set", .. })));
    assert!(matches!(Keys::read(b"[]"), Err(NrasError::Malformed { part: "key set", .. })));
    let short = String::from_utf8(key_set(&token.key)).unwrap().replace("\"x\":\"", "\"x\":\"AA");
    assert!(matches!(Keys::read(short.as_bytes()), Err(NrasError::Malformed { .. })));
}

#[test]
fn rejects_a_real_token_whose_key_is_long_gone() {
    let Some(root) = gpu_vectors() else { return };
    let token = read(&root, "h100-550.90.07/nras-eat-v3.json");
    let report = read(&root, "h100-550.90.07/report.hex");
    let nonce: [u8; 32] = hex::decode(&report[8..72]).unwrap().try_into().unwrap();
    let at = 1_749_602_000;
    let none = Keys::read(b"{\"keys\":[]}").unwrap();
    let kid = "nv-eat-kid-prod-20250609211310110-93b13aa1-17e4-4c14-9d33-dba2323329f2";
    assert_eq!(verify(&token, &none, &nonce, at), Err(NrasError::Key { kid: kid.into() }));
    // Under a key of that name which is another.
    let keys = String::from_utf8(key_set(&Key::new())).unwrap().replace(KID, kid);
    let keys = Keys::read(keys.as_bytes()).unwrap();
    let signature = NrasError::Signature { token: "overall token".into() };
    assert_eq!(verify(&token, &keys, &nonce, at), Err(signature));
}

#[test]
fn rejects_what_nvidias_local_tool_says_of_itself() {
    let Some(root) = gpu_vectors() else { return };
    let claims = read(&root, "claims/nvattest-h100-claims-v3.json");
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let token = claims["detached_eat"].to_string();
    let keys = Keys::read(&key_set(&Key::new())).unwrap();
    let verdict = verify(token.as_bytes(), &keys, &[0x11; 32], 1_784_208_000);
    let (token, observed) = ("overall token".into(), "none".into());
    assert_eq!(verdict, Err(NrasError::Algorithm { token, observed }));
}
