//! What the hardware says, before anyone has judged it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use measurement::manifest::Tee;
use serde::Deserialize;
use thiserror::Error;

use crate::appraise::Finding;
use crate::endorsement::Role;
use crate::endorsement::amd::{Product, Signer};
use crate::wire::{Malformed, hcl, snp, tdx, zero};

pub mod device;

/// A report or quote as it arrived. Nothing about it is believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Evidence<'a> {
    /// Which format the sender says it is.
    pub tee: Tee,
    /// An SNP report of exactly 1184 bytes, or a TDX quote with nothing after it.
    pub report: &'a [u8],
}

/// The quote at the start of `bytes`, without the zero bytes some quoting services put after it.
///
/// [`crate::appraise::Verifier::appraise`] refuses bytes after a quote, zero or not, so that one
/// quote has one encoding. Whoever collects a quote from a service that pads calls this first.
///
/// # Errors
/// When the bytes do not start with a quote, or something but zeros follows it.
pub fn unpadded(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let (quote, rest) = tdx::Quote::parse_prefix(bytes)?;
    match zero("tail", rest) {
        Ok(()) => Ok(quote.bytes),
        Err(_) => Err(Malformed::TrailingBytes { part: "quote", observed: rest.len() }),
    }
}

/// What kind of evidence `bytes` claim to be, by their first bytes and length; none when they look
/// like neither. Nothing is judged.
pub fn recognise(bytes: &[u8]) -> Option<Tee> {
    // Version, key type, TEE: only a quote has 0x81 at 4. There a report has its guest SVN.
    if let [3..=6, 0, _, 0, 0x81, 0, 0, 0, ..] = bytes {
        return Some(Tee::Tdx);
    }
    let version = matches!(bytes, [1..=0xf, 0, 0, 0, ..]);
    (version && bytes.len() == snp::REPORT_SIZE).then_some(Tee::Snp)
}

/// An SNP report as Azure's paravisor hands it to the guest: with the runtime data that its report
/// data are the digest of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wrapped<'a> {
    /// The SNP report, 1184 bytes.
    pub report: &'a [u8],
    /// JSON: the keys of the virtual TPM, the configuration of the machine, the guest's own data.
    pub runtime: &'a [u8],
    /// The 64 bytes that the guest had its paravisor bind, if it did.
    pub user_data: Option<[u8; 64]>,
}

/// Whether `bytes` claim to be Azure's wrapper.
pub fn is_wrapped(bytes: &[u8]) -> bool {
    bytes.starts_with(&hcl::SIGNATURE)
}

/// Takes Azure's wrapper off, after checking that the report names what lies beside it. The report is
/// as untrusted as before; once it has been appraised, so have the runtime data been.
///
/// # Errors
/// When the wrapper has not the shape of one, or the report carries the digest of other runtime data.
pub fn unwrapped(bytes: &[u8]) -> Result<Wrapped<'_>, Malformed> {
    #[derive(Deserialize)]
    struct Runtime {
        #[serde(rename = "user-data")]
        user_data: Option<String>,
    }

    let hcl::Wrapper { report, runtime } = hcl::Wrapper::parse(bytes)?;
    let (field, observed) = ("azure runtime data", 0);
    let unknown = Malformed::Unknown { field, observed };
    let json: Runtime = serde_json::from_slice(runtime).map_err(|_| unknown.clone())?;
    let user_data = json.user_data.map(|text| {
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes).map(|()| bytes)
    });
    Ok(Wrapped { report, runtime, user_data: user_data.transpose().map_err(|_| unknown)? })
}

/// Why well-formed evidence does not come from where it says.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Inauthentic {
    /// The sender says one architecture, the device's certificates another.
    #[error("the evidence is labelled {labelled}, its certificates are of {certificates}")]
    Architecture {
        /// As labelled.
        labelled: device::Architecture,
        /// From the certificates.
        certificates: device::Architecture,
    },
    /// The quoting enclave vouches for another attestation key.
    #[error("the quoting enclave's report does not vouch for the attestation key")]
    AttestationKey,
    /// A chain has another number of certificates than its hierarchy has levels.
    #[error("a chain of {observed} certificates, its hierarchy has {required}")]
    ChainLength {
        /// Certificates seen.
        observed: usize,
        /// Certificates of such a chain.
        required: usize,
    },
    /// The chip that the report names is not the one its key belongs to.
    #[error("the report's chip id is not the hardware id of its key certificate")]
    ChipId,
    /// Intel's collateral, or a signature judged with it, was refused.
    #[error("refused with Intel's collateral: {reason}")]
    Collateral {
        /// In the words of the library that judges it.
        reason: String,
    },
    /// This build lacks what it takes to judge such evidence.
    #[error("could not judge: built without {feature}")]
    CouldNotJudge {
        /// The missing feature of this crate.
        feature: &'static str,
    },
    /// A processor that this verifier does not know.
    #[error("no known product has cpu family {family:#x} model {model:#x}")]
    Cpu {
        /// CPUID family, extended family included.
        family: u8,
        /// CPUID model, extended model included.
        model: u8,
    },
    /// The device key was certified for another device than the one that certifies it.
    #[error("the device key's certificate does not vouch for the device's identity key")]
    DeviceIdentity,
    /// A document is not the one whose digest is signed.
    #[error("the digest of the {over} is not the one that is signed")]
    Digest {
        /// What is digested.
        over: &'static str,
    },
    /// A document of Intel's is of another kind than its place asks for.
    #[error("{document} has {field} {observed}, required {required}")]
    Document {
        /// TCB info or QE identity.
        document: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        observed: String,
        /// The only value that is known.
        required: &'static str,
    },
    /// TCB info and QE identity come from different evaluations.
    #[error("tcb info is of evaluation {tcb_info}, qe identity of {qe_identity}")]
    EvaluationNumbers {
        /// `tcbEvaluationDataNumber` of the TCB info.
        tcb_info: u64,
        /// `tcbEvaluationDataNumber` of the QE identity.
        qe_identity: u64,
    },
    /// Something has expired.
    #[error("{role} was valid until {until}, now is {now}")]
    Expired {
        /// What expired.
        role: Role,
        /// Seconds since 1970.
        now: u64,
        /// Seconds since 1970.
        until: u64,
    },
    /// A certificate extension is missing, doubled, ill-encoded or has another value.
    #[error("{role}: extension {extension} {problem}")]
    Extension {
        /// Whose extension.
        role: Role,
        /// Its name in the vendor's specification.
        extension: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The collateral is of another kind of platform.
    #[error("the platform's fmspc is {observed}, the collateral is of {required}")]
    Fmspc {
        /// From the PCK certificate, in hexadecimal.
        observed: String,
        /// From the TCB info, in hexadecimal.
        required: String,
    },
    /// The firmware that signed the report is not the one whose key was certified.
    #[error("the firmware id of the report is not the one of the device key's certificate")]
    Fwid,
    /// One of several devices or endorsements.
    #[error("{place}: {flaw}")]
    In {
        /// Which one.
        place: Place,
        /// What is wrong with it.
        flaw: Box<Inauthentic>,
    },
    /// A certificate was not issued by the one above it.
    #[error("{role} names another issuer")]
    Issuer {
        /// Which one.
        role: Role,
    },
    /// The sender labels evidence with something that it does not say.
    #[error("the label {label} is not what the report says")]
    Label {
        /// Which label.
        label: &'static str,
    },
    /// A needed endorsement did not come.
    #[error("{role} is missing")]
    Missing {
        /// Which one.
        role: Role,
    },
    /// The hypervisor keeps the chip's key from this guest, so no one can say which chip it is.
    #[error("the report was not signed by a key of the chip")]
    NotSigned,
    /// Something is not valid yet.
    #[error("{role} is valid from {from}, now is {now}")]
    NotYetValid {
        /// What is too young.
        role: Role,
        /// Seconds since 1970.
        from: u64,
        /// Seconds since 1970.
        now: u64,
    },
    /// The PCE that certified the key is not the one the TCB info is about.
    #[error("the platform's pce id is not the one of the tcb info")]
    PceId,
    /// A switch gives another device id than its certificate.
    #[error("the switch's device id is not the one of its identity certificate")]
    Pdi,
    /// The report says one product, its certificates another.
    #[error("the report is of a {report}, its certificates are of a {certificates}")]
    Product {
        /// From the CPUID fields of the report.
        report: Product,
        /// From the certificate chain.
        certificates: Product,
    },
    /// A certificate has been revoked.
    #[error("{role} has been revoked")]
    Revoked {
        /// Which one.
        role: Role,
    },
    /// A signature does not verify.
    #[error("signature over the {over} does not verify")]
    Signature {
        /// What is signed.
        over: &'static str,
    },
    /// The report says one kind of signer, its certificates another.
    #[error("the report is signed by a {report}, its certificate is a {certificate}")]
    SignerKind {
        /// From `key_info` of the report.
        report: Signer,
        /// From the key's certificate.
        certificate: Signer,
    },
    /// More than one of what there must be one of, or one of what there must be none of.
    #[error("{role} came more than once, or has no place here")]
    Surplus {
        /// Which one.
        role: Role,
    },
    /// The TCB that the key certificate is for is not the one that the report claims.
    #[error("{component} is {report} in the report, {certificate} in its key certificate")]
    Tcb {
        /// The component.
        component: &'static str,
        /// From `reported_tcb`.
        report: u8,
        /// From the certificate.
        certificate: u8,
    },
    /// A TCB version sets bytes that its product reserves.
    #[error("{field} sets bytes that a {product} reserves")]
    TcbReserved {
        /// The field of the report.
        field: &'static str,
        /// The product.
        product: Product,
    },
    /// No root that is built in or named by the policy stands behind the chain.
    #[error("no root of the policy stands behind the certificates")]
    UnknownRoot,
    /// A certificate is not usable for its place.
    #[error("{role} {problem}")]
    Unusable {
        /// Which one.
        role: Role,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Which one of several.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Place {
    /// A device, by its position in the evidence, from zero.
    Device(usize),
    /// An endorsement, by its position in the list, from zero.
    Endorsement(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(index) => write!(f, "device {index}"),
            Self::Endorsement(index) => write!(f, "endorsement {index}"),
        }
    }
}

impl Inauthentic {
    /// The id of this flaw: `origin.` and a name that does not change.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Architecture { .. } => "origin.architecture",
            Self::AttestationKey => "origin.attestation_key",
            Self::ChainLength { .. } => "origin.chain_length",
            Self::ChipId => "origin.chip_id",
            Self::Collateral { reason } => collateral_id(reason),
            Self::CouldNotJudge { .. } => "origin.could_not_judge",
            Self::Cpu { .. } => "origin.cpu",
            Self::DeviceIdentity => "origin.device_identity",
            Self::Digest { .. } => "origin.digest",
            Self::Document { .. } => "origin.document",
            Self::EvaluationNumbers { .. } => "origin.evaluation_numbers",
            Self::Expired { .. } => "origin.expired",
            Self::Extension { .. } => "origin.extension",
            Self::Fmspc { .. } => "origin.fmspc",
            Self::Fwid => "origin.fwid",
            Self::In { flaw, .. } => flaw.id(),
            Self::Issuer { .. } => "origin.issuer",
            Self::Label { .. } => "origin.label",
            Self::Missing { .. } => "origin.missing",
            Self::NotSigned => "origin.not_signed",
            Self::NotYetValid { .. } => "origin.not_yet_valid",
            Self::PceId => "origin.pce_id",
            Self::Pdi => "origin.pdi",
            Self::Product { .. } => "origin.product",
            Self::Revoked { .. } => "origin.revoked",
            Self::Signature { .. } => "origin.signature",
            Self::SignerKind { .. } => "origin.signer_kind",
            Self::Surplus { .. } => "origin.surplus",
            Self::Tcb { .. } => "origin.tcb",
            Self::TcbReserved { .. } => "origin.tcb_reserved",
            Self::UnknownRoot => "origin.unknown_root",
            Self::Unusable { .. } => "origin.unusable",
        }
    }

    /// This flaw as a finding.
    pub(crate) fn finding(&self) -> Finding {
        let (observed, required) = match self {
            Self::Architecture { labelled, certificates } => {
                (labelled.to_string(), certificates.to_string())
            }
            Self::ChainLength { observed, required } => {
                (format!("{observed} certificates"), required.to_string())
            }
            Self::Cpu { family, model } => {
                (format!("family {family:#x} model {model:#x}"), "a known product".into())
            }
            Self::Document { document, field, observed, required } => {
                (format!("{document} with {field} {observed}"), (*required).into())
            }
            Self::EvaluationNumbers { tcb_info, qe_identity } => {
                (format!("tcb info {tcb_info}, qe identity {qe_identity}"), "one evaluation".into())
            }
            Self::Expired { role, now, until } => {
                (format!("{role} until {until}"), format!("valid at {now}"))
            }
            Self::Fmspc { observed, required } => (observed.clone(), required.clone()),
            Self::In { place, flaw } => {
                let inner = flaw.finding();
                (format!("{place}: {}", inner.observed()), inner.required().into())
            }
            Self::NotYetValid { role, from, now } => {
                (format!("{role} from {from}"), format!("valid at {now}"))
            }
            Self::Product { report, certificates } => {
                (report.to_string(), certificates.to_string())
            }
            Self::SignerKind { report, certificate } => {
                (report.to_string(), certificate.to_string())
            }
            Self::Tcb { component, report, certificate } => {
                (format!("{component} {report}"), format!("{component} {certificate}"))
            }
            other => (other.to_string(), other.remedy().into()),
        };
        Finding::new(self.id(), observed, required)
    }

    /// What would be right instead, where the error does not say.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "present; `cloister endorse fetch` says where to get it",
            Self::Surplus { .. } => "one of each",
            Self::UnknownRoot => "a built-in root, or one that the policy names",
            Self::CouldNotJudge { .. } => "a build that can judge it",
            Self::NotSigned => "a report signed by a vcek or vlek",
            Self::ChipId => "the chip of the key certificate",
            _ => "genuine",
        }
    }
}

/// What `dcap-qvl` refused, told from its words. They may change with its version: the tests hold
/// each id to an attack.
fn collateral_id(reason: &str) -> &'static str {
    const WORDS: [(&str, &str); 18] = [
        ("Identity expired", "origin.expired"),
        ("TCBInfo expired", "origin.expired"),
        ("issue date is in the future", "origin.not_yet_valid"),
        ("InvalidCrlSignature", "origin.signature"),
        ("No matching TCB level", "origin.tcb_level"),
        ("Failed to evaluate the current TDX TCB", "origin.tcb_level"),
        ("TCB status is invalid: Revoked", "origin.tcb_revoked"),
        ("TDX module", "origin.tdx_module"),
        ("SERVTD_EXT", "origin.td_attributes"),
        ("TD attributes", "origin.td_attributes"),
        ("SEPT_VE_DISABLE", "origin.td_attributes"),
        ("TD migration", "origin.td_attributes"),
        ("CertRevoked", "origin.revoked"),
        ("Signature is invalid", "origin.signature"),
        ("signature is invalid", "origin.signature"),
        ("BadSignature", "origin.signature"),
        ("InvalidSignature", "origin.signature"),
        ("QE ", "origin.qe_identity"),
    ];
    WORDS
        .iter()
        .find(|(words, _)| reason.contains(words))
        .map_or("origin.collateral", |(_, id)| *id)
}
