//! The receipt: what a job says of itself, as an in-toto Statement (v1) that the enclave signs.
//!
//! The statement is an output, and bound by the gate's closed list: no count of units, no digest of
//! plaintext, no metric of training. Everything in it follows from the manifest, from sealed bytes,
//! from the adapter (which is differentially private) or from hardware.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::cbor::{Blob, Real};
use crate::digest::{Digest, Hash32, of};
use crate::dsse::{Envelope, EnvelopeError, parse_printed, print};
use crate::launch::Measured;
use crate::manifest::{Base, Manifest, Tee};
use crate::octets::Octets;
use crate::privacy::Mechanism;

/// DSSE payload type of an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The statement's type.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The predicate's type.
pub const PREDICATE_TYPE: &str = "urn:cloister:attestation:training-receipt:v1";
/// The most bytes a bundle has.
pub const MAX_BUNDLE: usize = 8 << 20;
/// What is said of the host's ε: timing and access are kept constant, and no number is claimed.
pub const NOT_CLAIMED: &str = "not claimed";
/// Who composes ε in this version.
pub const ACCOUNTANT: &str = crate::privacy::accountant::NAME;
/// The word that nothing can take off what was judged under a simulated root.
pub const SIMULATED: &str = "SIMULATED";

/// An in-toto Statement about the files of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// The adapter's files.
    pub subject: Vec<Subject>,
    /// What is said of them.
    pub predicate: Predicate,
}

/// One file of the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The file's name.
    pub name: String,
    /// `sha256` to hex.
    pub digest: BTreeMap<String, Hash32<of::File>>,
}

impl Subject {
    /// A file and its SHA-256.
    #[must_use]
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let digest = BTreeMap::from([("sha256".to_string(), Hash32::of(bytes))]);
        Self { name: name.to_string(), digest }
    }

    /// The file's SHA-256.
    #[must_use]
    pub fn sha256(&self) -> Option<Hash32<of::File>> {
        self.digest.get("sha256").copied()
    }
}

/// What a job says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Predicate {
    /// Which attempt at the job this was, from 1.
    pub attempt: u32,
    /// The base model, as in the manifest.
    pub base_model: Base,
    /// What was tested on planted canaries; none when the manifest plans none.
    pub canary_audit: Option<CanaryAudit>,
    /// The sealed data set.
    pub dataset: DatasetClaim,
    /// What is promised about privacy.
    pub dp: DpClaim,
    /// The evidence that opened the job.
    pub evidence: EvidenceClaim,
    /// What ran.
    pub image: Measured,
    /// The manifest.
    pub job_manifest: ManifestClaim,
    /// What left.
    pub outputs: OutputsClaim,
    /// Who released a share, and where that is logged.
    pub releases: Vec<ReleaseClaim>,
    /// How it ran.
    pub run: RunClaim,
    /// The enclave's Ed25519 key, which the closing evidence vouches for.
    pub signer: Octets<32>,
    /// The job's evidence was judged under a simulated root.
    pub simulated: bool,
}

/// What was tested on planted canaries (Steinke, Nasr and Jagielski 2023): post-processing of the
/// adapter and of the enclave's own coins, so it costs no privacy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CanaryAudit {
    /// Canaries drawn; each joined by a fair coin.
    pub canaries: u32,
    /// A lower bound of ε at 95 % confidence. It finds bugs; it certifies nothing.
    pub epsilon_lower: Real,
    /// Guesses made, fixed in the manifest.
    pub guesses: u32,
    /// Guesses that were right.
    pub right: u32,
}

/// The sealed data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DatasetClaim {
    /// The Merkle root of the sealed file.
    pub ciphertext_root: Hash32<of::Dataset>,
    /// The data set's identity.
    pub id: Octets<16>,
    /// The data set's version.
    pub version: u64,
}

/// What is promised about privacy, to whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DpClaim {
    /// Who composed it: name and version.
    pub accountant: String,
    /// An upper bound of ε for whoever holds the adapter, at the mechanism's δ.
    pub epsilon: Real,
    /// ε for the host, which sees timing: [`NOT_CLAIMED`].
    pub epsilon_host: String,
    /// What ran, from which ε is recomputed.
    pub mechanism: Mechanism,
}

/// The evidence that opened the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EvidenceClaim {
    /// What the custodians judged it under: a vendor, a private root's name, or [`SIMULATED`].
    pub root: String,
    /// The bindings of the sessions, in the releases' order.
    pub sessions: Vec<Octets<64>>,
    /// What kind it is.
    pub tee: Tee,
}

/// The manifest and who approved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ManifestClaim {
    /// The job's identity.
    pub job: Octets<16>,
    /// The manifest's sequence number.
    pub sequence: u64,
    /// SHA-384 of the manifest's exact bytes.
    pub sha384: Digest<Manifest>,
}

/// What left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OutputsClaim {
    /// SHA-256 of the sealed adapter.
    pub sealed_adapter_sha256: Hash32<of::SealedAdapter>,
}

/// A released share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReleaseClaim {
    /// The custodian's decision key.
    pub custodian: Octets<32>,
    /// The debit's position in the ledger.
    pub debit_index: u64,
    /// The release's identity.
    pub id: Octets<16>,
    /// The release's position in the custodian's log.
    pub release_index: u64,
}

/// How it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RunClaim {
    /// The engine: its build and the kernels it chose.
    pub engine: String,
    /// A salted commitment to the attempt's secret; the salt stays inside.
    pub secret_commitment: Octets<32>,
    /// Steps taken.
    pub steps: u32,
}

impl Statement {
    /// A statement about `subject`.
    #[must_use]
    pub fn new(subject: Vec<Subject>, predicate: Predicate) -> Self {
        Self {
            statement_type: STATEMENT_TYPE.to_string(),
            predicate_type: PREDICATE_TYPE.to_string(),
            subject,
            predicate,
        }
    }

    /// The statement's exact bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        print(self)
    }

    /// Reads a statement that prints back to the same bytes.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`] for anything else, another type included.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        let statement: Self = parse_printed(json, MAX_BUNDLE)?;
        let known = statement.statement_type == STATEMENT_TYPE
            && statement.predicate_type == PREDICATE_TYPE;
        if known { Ok(statement) } else { Err(EnvelopeError::Malformed) }
    }
}

/// CPU evidence with what vouches for its signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuEvidence {
    /// Certificates, revocation lists or collateral, recognised by content.
    pub endorsements: Vec<Blob>,
    /// The report or quote.
    pub report: Blob,
    /// What kind it is.
    pub tee: Tee,
}

impl CpuEvidence {
    /// Digest of report and endorsements, in the encoding they travel in. An endorsement may have
    /// bytes that no signature covers (the letters of a PEM file, a certificate that is not used);
    /// whoever logs the evidence says with this which bytes it saw.
    #[must_use]
    pub fn digest(&self) -> Hash32<of::Evidence> {
        Hash32::of(&crate::cbor::encode(self))
    }
}

/// A record of a log, with the proof that it is there. In an audit's eyes a record without its proof
/// never happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenRecord {
    /// The signed checkpoint (a C2SP note) that the proof leads to.
    pub checkpoint: String,
    /// The record's position.
    pub index: u64,
    /// The 128 bytes of its leaf.
    pub leaf: Blob,
    /// The inclusion proof's hashes (RFC 6962 §2.1.1).
    pub path: Vec<Hash32<of::Node>>,
    /// The record's exact bytes.
    pub record: Blob,
}

/// What one custodian logged before it released its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseProof {
    /// The debit in the data set's ledger.
    pub debit: ProvenRecord,
    /// The release.
    pub release: ProvenRecord,
}

/// Everything an auditor needs beside the image, the data set's file and the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Bundle {
    /// The approvals of the manifest.
    pub approvals: Envelope,
    /// The evidence collected over the finished statement, see
    /// [`crate::binding::closing_report_data`].
    pub closing: CpuEvidence,
    /// The statement, signed by the enclave and countersigned by the custodians.
    pub envelope: Envelope,
    /// The launch blob, which holds the manifest.
    pub launch_blob: Blob,
    /// What the custodians logged before they released.
    pub releases: Vec<ReleaseProof>,
}

impl Bundle {
    /// The bundle's exact bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        print(self)
    }

    /// Reads a bundle that prints back to the same bytes.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        parse_printed(json, MAX_BUNDLE)
    }
}
