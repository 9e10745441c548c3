//! The attestation result for others to read: EAT Attestation Results (EAR) as a JWT.
//!
//! Claim names are Trustee's, which its key broker and its clients read today; the names of the IETF
//! draft since March 2026, in which dots and hyphens became underscores, are behind
//! [`Profile::Ietf2026`]. Only an [`AttestationResult`] or a [`DevicesResult`] becomes a token, so there
//! is no token about a refusal. What was judged under a simulated root is `contraindicated`, whatever else is true of it.
//!
//! No key is held here. [`signing_input`] is what to sign, and [`token`] puts the signature behind it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use base64ct::{Base64UrlUnpadded, Encoding};
use measurement::digest::sha384;
use measurement::manifest::Tee;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::appraise::{AttestationResult, DeviceResult, DevicesResult, Tcb};
use crate::endorsement::amd::SnpTcb;
use crate::evidence::Evidence;
use crate::evidence::device::Architecture;
use crate::policy::Waived;
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
    /// There is nothing to speak of.
    #[error("nothing was attested")]
    NothingAttested,
}

/// What a token is about. Only what was accepted can be here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attested<'a> {
    /// The processor's result, and the evidence it was made from.
    pub processor: Option<(&'a AttestationResult, &'a Evidence<'a>)>,
    /// The devices' result.
    pub devices: Option<&'a DevicesResult>,
}

/// The claims about what was `attested`: a submodule `cpu0`, and `gpu0`, `gpu1`, …, `nvswitch0`, … in
/// the order of the devices' evidence.
///
/// # Errors
/// When the evidence is not what the processor's result is about, or nothing was attested.
pub fn claims(attested: &Attested<'_>, token: &Token<'_>) -> Result<Value, EarError> {
    let mut submodules = Map::new();
    if let Some((result, evidence)) = attested.processor {
        let appraisal = Appraisal::of_processor(result, annotated(result, evidence)?);
        submodules.insert("cpu0".into(), appraisal.written(token.profile));
    }
    if let Some(result) = attested.devices {
        let mut seen = [0_usize; 2];
        for device in result.devices() {
            let [gpus, switches] = &mut seen;
            let (kind, count) = match device.architecture() {
                Architecture::Ls10 => ("nvswitch", switches),
                _ => ("gpu", gpus),
            };
            let name = format!("{kind}{count}");
            *count = count.saturating_add(1);
            let appraisal = Appraisal::of_device(result, device);
            submodules.insert(name, appraisal.written(token.profile));
        }
    }
    if submodules.is_empty() {
        return Err(EarError::NothingAttested);
    }
    let (profile, verifier) = match token.profile {
        Profile::Trustee => {
            ("tag:github.com,2024:confidential-containers/Trustee", "ear.verifier-id")
        }
        Profile::Ietf2026 => ("tag:ietf.org,2026:rats/ear#03", "ear_verifier_id"),
    };
    Ok(json!({
        "eat_profile": profile,
        "iat": token.issued_at,
        "exp": token.expires_at,
        "iss": token.issuer,
        verifier: {
            "build": format!("attestation-verifier {}", env!("CARGO_PKG_VERSION")),
            "developer": "cloister",
        },
        "submods": submodules,
    }))
}

/// What is said of one part, under names of no profile yet.
struct Appraisal {
    simulated: bool,
    vector: Value,
    policy: String,
    annotated: Value,
    cloister: Value,
}

impl Appraisal {
    fn of_processor(result: &AttestationResult, annotated: Value) -> Self {
        Self {
            simulated: result.simulated(),
            vector: vector(result),
            policy: result.policy_digest().to_string(),
            annotated,
            cloister: json!({
                "identity": result.identity(),
                "root": result.root().to_string(),
                "simulated": result.simulated(),
                "waived": result.waived(),
            }),
        }
    }

    fn of_device(result: &DevicesResult, device: &DeviceResult) -> Self {
        Self {
            simulated: device.simulated(),
            vector: device_vector(result, device),
            policy: result.policy_digest().to_string(),
            annotated: nvidia(result, device),
            cloister: json!({
                "identity": result.identity(),
                "root": device.root().to_string(),
                "simulated": device.simulated(),
                "waived": waived(result, device).collect::<Vec<_>>(),
            }),
        }
    }

    fn written(self, profile: Profile) -> Value {
        let status = if self.simulated { "contraindicated" } else { "affirming" };
        match profile {
            Profile::Trustee => json!({
                "ear.status": status,
                "ear.trustworthiness-vector": self.vector,
                "ear.appraisal-policy-id": self.policy,
                "ear.veraison.annotated-evidence": self.annotated,
                "cloister": self.cloister,
            }),
            Profile::Ietf2026 => json!({
                "ear_status": status,
                "ear_trustworthiness_vector": underscored(self.vector),
                "ear_appraisal_policy_id": self.policy,
                "ear_attester_claims": self.annotated,
                "cloister": self.cloister,
            }),
        }
    }
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

/// The same of a device. A GPU's memory is protected in each of the modes that a policy can ask for.
fn device_vector(result: &DevicesResult, device: &DeviceResult) -> Value {
    let waives =
        |check: &str| waived(result, device).any(|one| one.check.split('.').nth(1) == Some(check));
    json!({
        "instance-identity": if waives("chip") { 0 } else { 2 },
        "configuration": if waived(result, device).next().is_none() { 2 } else { 3 },
        "executables": if waives("measurements") { 0 } else { 3 },
        "file-system": 0,
        "hardware": if device.simulated() { 97 } else { 2 },
        "runtime-opaque": if device.mode().is_none() || waives("modes") { 0 } else { 2 },
        "storage-opaque": 0,
        "sourced-data": 0,
    })
}

/// The waivers for devices of this kind.
fn waived<'a>(
    result: &'a DevicesResult,
    device: &DeviceResult,
) -> impl Iterator<Item = &'a Waived> {
    let section = match device.architecture() {
        Architecture::Ls10 => "nvswitch.",
        _ => "gpu.",
    };
    result.waived().iter().filter(move |waived| waived.check.starts_with(section))
}

/// A device under NVIDIA's names for claims. Nothing is said that the report does not: NVIDIA's
/// `secboot` and `dbgstat` are no more than `measres` over again.
fn nvidia(result: &DevicesResult, device: &DeviceResult) -> Value {
    json!({ "nvidia": {
        "eat_nonce": hex::encode(result.nonce()),
        "hwmodel": device.hardware_model(),
        "oemid": "5703",
        "ueid": device.ueid(),
        "arch": device.architecture(),
        "driver_version": device.driver(),
        "vbios_version": device.vbios(),
        "mode": device.mode(),
        "pdi": device.pdi(),
        "manifests": device.manifests(),
        "matched_measurements": device.matched(),
    }})
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
