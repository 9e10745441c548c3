//! What the hardware says, before anyone has judged it.

use alloc::boxed::Box;
use core::fmt;

use measurement::manifest::Tee;
use thiserror::Error;

use crate::endorsement::Role;
use crate::endorsement::amd::{Product, Signer};
use crate::wire::{Malformed, tdx, zero};

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
        reason: alloc::string::String,
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
    /// More than one of what there must be one of.
    #[error("{role} came more than once")]
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
