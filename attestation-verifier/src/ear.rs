//! The attestation result for others to read: EAT Attestation Results (EAR) as a JWT.
//!
//! Claim names are Trustee's, which its key broker and its clients read today; the names of the IETF
//! draft since March 2026, in which dots and hyphens became underscores, are behind
//! [`Profile::Ietf2026`]. Only an [`AttestationResult`] becomes a token, so there is no token about a
//! refusal. What was judged under a simulated root is `contraindicated`, whatever else is true of it.
//!
//! No key is held here. [`signing_input`] is what to sign, and [`token`] puts the signature behind it.

use alloc::format;
use alloc::string::{String, ToString};
use core::ops::Range;

use base64ct::{Base64UrlUnpadded, Encoding};
use measurement::digest::sha384;
use measurement::manifest::Tee;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::appraise::{AttestationResult, Tcb};
use crate::endorsement::amd::SnpTcb;
use crate::evidence::Evidence;
use crate::wire::Malformed;
use crate::wire::snp::Report;
use crate::wire::tdx::{Quote, TdReport};

/// Which names the claims have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Profile {
    /// `tag:github.com,2024:confidential-containers/Trustee`.
    Trustee,
    /// `tag:ietf.org,2026:rats/ear#03`.
    Ietf2026,
}

/// How the token is to be signed (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA P-256 with SHA-256, signature as `r || s`.
    Es256,
    /// ECDSA P-384 with SHA-384, signature as `r || s`.
    Es384,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }
}

/// What a token says beside the result.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// Names of the claims.
    pub profile: Profile,
    /// Who issues it: claim `iss`.
    pub issuer: &'a str,
    /// When, in seconds since 1970: claim `iat`.
    pub issued_at: u64,
    /// Until when it may be believed, in seconds since 1970: claim `exp`.
    pub expires_at: u64,
}

/// Why there is no token.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum EarError {
    /// The evidence is not the one that the result is about.
    #[error("the result is about other evidence")]
    AnotherEvidence,
    /// The evidence cannot be read.
    #[error("malformed evidence: {0}")]
    Malformed(#[from] Malformed),
}

/// The claims about `result`, which was made from `evidence`.
///
/// # Errors
/// When `evidence` is not what `result` is about.
pub fn claims(
    result: &AttestationResult,
    evidence: &Evidence<'_>,
    token: &Token<'_>,
) -> Result<Value, EarError> {
    let annotated = annotated(result, evidence)?;
    let vector = vector(result);
    let status = if result.simulated() { "contraindicated" } else { "affirming" };
    let policy = result.policy_digest().to_string();
    let verifier = json!({
        "build": format!("attestation-verifier {}", env!("CARGO_PKG_VERSION")),
        "developer": "cloister",
    });
    let cloister = json!({
        "identity": result.identity(),
        "root": result.root().to_string(),
        "simulated": result.simulated(),
        "waived": result.waived(),
    });
    let head = json!({
        "iat": token.issued_at,
        "exp": token.expires_at,
        "iss": token.issuer,
    });
    let body = match token.profile {
        Profile::Trustee => json!({
            "eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
            "ear.verifier-id": verifier,
            "submods": { "cpu0": {
                "ear.status": status,
                "ear.trustworthiness-vector": vector,
                "ear.appraisal-policy-id": policy,
                "ear.veraison.annotated-evidence": annotated,
                "cloister": cloister,
            }},
        }),
        Profile::Ietf2026 => json!({
            "eat_profile": "tag:ietf.org,2026:rats/ear#03",
            "ear_verifier_id": verifier,
            "submods": { "cpu0": {
                "ear_status": status,
                "ear_trustworthiness_vector": underscored(vector),
                "ear_appraisal_policy_id": policy,
                "ear_attester_claims": annotated,
                "cloister": cloister,
            }},
        }),
    };
    Ok(merged(head, body))
}

/// What is to be signed: the header and the claims, each in base64url, with a dot between them (RFC
/// 7515 §5.1).
pub fn signing_input(claims: &Value, algorithm: Algorithm) -> String {
    let header = json!({ "alg": algorithm.name(), "typ": "JWT" }).to_string();
    let [header, claims] =
        [header, claims.to_string()].map(|part| Base64UrlUnpadded::encode_string(part.as_bytes()));
    format!("{header}.{claims}")
}

/// The token: what was signed, and the signature.
pub fn token(signing_input: &str, signature: &[u8]) -> String {
    format!("{signing_input}.{}", Base64UrlUnpadded::encode_string(signature))
}

/// AR4SI's vector. Nothing is claimed of what no evidence here speaks of: file system, storage, data.
fn vector(result: &AttestationResult) -> Value {
    // 97: hardware that should be recognised and is not; 2: passed its verification.
    let hardware = if result.simulated() { 97 } else { 2 };
    // 2: known and approved; 3: no known weakness, where a check was waived.
    let configuration = if result.waived().is_empty() { 2 } else { 3 };
    let waives = |check| result.waived().iter().any(|waived| waived.check == check);
    json!({
        // 2: this very machine is known; 0: nothing is claimed.
        "instance-identity": if waives("binding.platform") { 0 } else { 2 },
        "configuration": configuration,
        // 3: only approved executables were loaded during boot.
        "executables": if waives("binding.image") { 0 } else { 3 },
        "file-system": 0,
        "hardware": hardware,
        // 2: memory is encrypted.
        "runtime-opaque": 2,
        "storage-opaque": 0,
        "sourced-data": 0,
    })
}

fn underscored(vector: Value) -> Value {
    match vector {
        Value::Object(map) => {
            map.into_iter().map(|(name, value)| (name.replace('-', "_"), value)).collect()
        }
        other => other,
    }
}

fn merged(head: Value, body: Value) -> Value {
    let mut all = Map::new();
    for part in [head, body] {
        if let Value::Object(map) = part {
            all.extend(map);
        }
    }
    Value::Object(all)
}

/// The evidence under Trustee's names, as it puts them into its tokens.
fn annotated(result: &AttestationResult, evidence: &Evidence<'_>) -> Result<Value, EarError> {
    let (signed, claims) = match evidence.tee {
        Tee::Snp => {
            let report = Report::parse(evidence.report)?;
            (report.signed, snp(&report, result))
        }
        Tee::Tdx => {
            let quote = Quote::parse(evidence.report)?;
            (quote.signed, tdx(&quote, result))
        }
    };
    if result.identity().0 == sha384(signed) { Ok(claims) } else { Err(EarError::AnotherEvidence) }
}

fn snp(report: &Report<'_>, result: &AttestationResult) -> Value {
    let body = &report.body;
    let bit = |field: u64, bit: u32| field.checked_shr(bit).unwrap_or(0) & 1 == 1;
    let [minor, major, ..] = body.policy.to_le_bytes();
    let tcb = match result.tcb() {
        Tcb::Snp(SnpTcb { fmc, bootloader, tee, snp, microcode }) => json!({
            "fmc": fmc, "bootloader": bootloader, "tee": tee, "snp": snp, "microcode": microcode,
        }),
        Tcb::Tdx(_) => Value::Null,
    };
    json!({
        "report_data": hex::encode(body.report_data),
        "init_data": hex::encode(body.host_data),
        "snp": { "evidence": {
            "version": body.version,
            "vmpl": body.vmpl,
            "measurement": hex::encode(body.measurement),
            "report_data": hex::encode(body.report_data),
            "host_data": hex::encode(body.host_data),
            "chip_id": hex::encode(body.chip_id),
            "reported_tcb": tcb,
            "policy": {
                "abi_major": major,
                "abi_minor": minor,
                "smt_allowed": bit(body.policy, 16),
                "migrate_ma_allowed": bit(body.policy, 18),
                "debug_allowed": bit(body.policy, 19),
                "single_socket_required": bit(body.policy, 20),
            },
            "plat_info": {
                "smt_enabled": bit(body.platform_info, 0),
                "tsme_enabled": bit(body.platform_info, 1),
                "ecc_enabled": bit(body.platform_info, 2),
                "rapl_disabled": bit(body.platform_info, 3),
                "ciphertext_hiding_enabled": bit(body.platform_info, 4),
                "alias_check_complete": bit(body.platform_info, 5),
            },
        }},
    })
}

fn tdx(quote: &Quote<'_>, result: &AttestationResult) -> Value {
    let report = &quote.report;
    let bit = |bit: u32| report.td_attributes.checked_shr(bit).unwrap_or(0) & 1 == 1;
    let (status, advisories) = match result.tcb() {
        Tcb::Tdx(tcb) => (tcb.status.as_str(), tcb.advisories.as_slice()),
        Tcb::Snp(_) => ("", [].as_slice()),
    };
    json!({
        "report_data": hex::encode(report.report_data),
        "init_data": hex::encode(report.mr_config_id),
        "tdx": {
            "tcb_status": status,
            "advisory_ids": advisories,
            // Expired collateral is refused.
            "collateral_expiration_status": "0",
            "td_attributes": {
                "debug": bit(0),
                "septve_disable": bit(28),
                "protection_keys": bit(30),
                "key_locker": bit(31),
                "perfmon": bit(63),
            },
            "quote": { "header": header(quote.signed), "body": body(report) },
        },
    })
}

fn header(quote: &[u8]) -> Value {
    let field = |range: Range<usize>| hex::encode(quote.get(range).unwrap_or_default());
    json!({
        "version": field(0..2),
        "att_key_type": field(2..4),
        "tee_type": field(4..8),
        "reserved": field(8..12),
        "vendor_id": field(12..28),
        "user_data": field(28..48),
    })
}

fn body(report: &TdReport) -> Value {
    json!({
        "tcb_svn": hex::encode(report.tee_tcb_svn),
        "mr_seam": hex::encode(report.mr_seam),
        "mrsigner_seam": hex::encode(report.mr_signer_seam),
        "seam_attributes": hex::encode(report.seam_attributes.to_le_bytes()),
        "td_attributes": hex::encode(report.td_attributes.to_le_bytes()),
        "xfam": hex::encode(report.xfam.to_le_bytes()),
        "mr_td": hex::encode(report.mr_td),
        "mr_config_id": hex::encode(report.mr_config_id),
        "mr_owner": hex::encode(report.mr_owner),
        "mr_owner_config": hex::encode(report.mr_owner_config),
        "rtmr_0": hex::encode(report.rtmr0),
        "rtmr_1": hex::encode(report.rtmr1),
        "rtmr_2": hex::encode(report.rtmr2),
        "rtmr_3": hex::encode(report.rtmr3),
        "report_data": hex::encode(report.report_data),
    })
}
