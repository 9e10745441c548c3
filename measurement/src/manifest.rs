//! The job manifest: the contract every party hashes, identified by the digest of its exact bytes.
//!
//! What the manifest does not hold, the enclave does not believe: broker pins, data roots, the
//! mechanism, the shape of training and of the adapter all come from here.

mod training;

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::cbor::{self, Blob, Malformed};
use crate::digest::{Digest, Hash32, of};
use crate::launch::Measured;
use crate::octets::Octets;
use crate::privacy::{Mechanism, OutOfRange};

pub use self::training::{AdamW, Adapter, Optimiser, Schedule, Sgd, Shape, Tensor, Training};

/// The most bytes a manifest has.
pub const MAX_BYTES: usize = 64 * 1024;
/// The format this build reads and writes.
pub const VERSION: u8 = 1;
/// DSSE payload type of a manifest that approvers sign.
pub const PAYLOAD_TYPE: &str = "application/vnd.cloister.job-manifest+cbor";

/// What kind of CPU evidence an image gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

/// All that a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// How many of the approvers must have signed.
    pub approvals: u8,
    /// Ed25519 keys of those who may approve.
    pub approvers: Vec<Octets<32>>,
    /// What is tested before the adapter leaves.
    pub audit: AuditPlan,
    /// The base model.
    pub base: Base,
    /// The key custodians; share `i` lies with the custodian at index `i - 1`.
    pub custodians: Vec<Custodian>,
    /// The sealed data set.
    pub dataset: Dataset,
    /// How many confidential GPUs the job needs.
    pub gpus: u8,
    /// The images that may run the job.
    pub images: Vec<Image>,
    /// The job's identity.
    pub job: Octets<16>,
    /// The data set's ledger.
    pub ledger: LedgerTerms,
    /// Chip identities (SNP CHIP_ID, TDX PPID) that may run the job; none means any.
    pub platforms: Vec<Blob>,
    /// The appraisal policy every custodian applies.
    pub policy: Digest<of::Policy>,
    /// The differentially private mechanism.
    pub privacy: Mechanism,
    /// Who may open the adapter.
    pub recipients: Vec<Recipient>,
    /// Rises with every manifest for a data set; a lower one is refused.
    pub sequence: u64,
    /// How many custodians must release their share.
    pub threshold: u8,
    /// The shape of training and of the adapter.
    pub training: Training,
    /// When the manifest holds.
    pub valid: Validity,
    /// The manifest's format.
    pub version: u8,
}

/// What is tested before the adapter leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditPlan {
    /// How many canaries are drawn; each joins training by a fair coin.
    pub canaries: u32,
    /// How many canaries with the best and as many with the worst score the test guesses on.
    pub guesses: u32,
}

/// The base model, file by file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// `config.json`.
    pub config: Digest<of::BaseFile>,
    /// A name for people; nothing follows from it.
    pub name: String,
    /// The chat template, where the tokenizer brings one.
    pub template: Option<Digest<of::BaseFile>>,
    /// `tokenizer.json`.
    pub tokenizer: Digest<of::BaseFile>,
    /// `model.safetensors`.
    pub weights: Digest<of::BaseFile>,
}

/// A key custodian and the keys it is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// Ed25519 key that signs release statements and log leaves.
    pub decision: Octets<32>,
    /// Ed25519 key that signs the checkpoints of its log.
    pub log: Octets<32>,
    /// A name for people; nothing follows from it.
    pub name: String,
    /// SHA-256 of the SubjectPublicKeyInfo its TLS server proves possession of.
    pub tls: Hash32<of::Spki>,
    /// X25519 key that data shares and adapter shares are wrapped to.
    pub unwrap: Octets<32>,
}

/// The sealed data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Commitments to the shares, in the custodians' order.
    pub commitments: Vec<Octets<32>>,
    /// The data set's identity.
    pub id: Octets<16>,
    /// The data key's identity.
    pub key: Octets<32>,
    /// The Merkle root of the sealed file.
    pub root: Hash32<of::Dataset>,
    /// The data set's version.
    pub version: u64,
}

/// One image that may run the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// What the hardware measures when this image is launched in its shape.
    pub measured: Measured,
    /// The image's files, in any order, so that a host can tell a broken download.
    pub parts: Vec<Part>,
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// SHA-384 of the file.
    pub digest: Digest<of::Part>,
    /// Its name in the image folder.
    pub name: String,
}

/// The data set's one ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerTerms {
    /// Ed25519 key of the log that holds the ledger.
    pub log: Octets<32>,
    /// How many witnesses must have cosigned.
    pub quorum: u8,
    /// Ed25519 keys of the witnesses.
    pub witnesses: Vec<Octets<32>>,
}

/// Who may open the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// X25519 key.
    pub key: Octets<32>,
    /// A name for people; nothing follows from it.
    pub name: String,
}

/// When the manifest holds, in seconds since 1970 (UTC), ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validity {
    /// Not after.
    pub not_after: u64,
    /// Not before.
    pub not_before: u64,
}

/// Why bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the deterministic encoding of a manifest.
    #[error("malformed manifest: {0}")]
    Malformed(#[from] Malformed),
    /// Well-formed, but it cannot be run; all reasons.
    #[error("manifest cannot be run: {}", list(.0))]
    Unlawful(Vec<Finding>),
}

fn list(findings: &[Finding]) -> String {
    use core::fmt::Write as _;
    let mut text = String::new();
    for finding in findings {
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{finding}");
    }
    text
}

/// Why a manifest cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// Too few approvers for the approvals asked for, or none asked for.
    #[error("asks for {approvals} approvals of {approvers} approvers")]
    Approvals {
        /// How many must sign.
        approvals: u8,
        /// How many may.
        approvers: usize,
    },
    /// Not as many share commitments as custodians.
    #[error("{commitments} share commitments for {custodians} custodians")]
    Commitments {
        /// Commitments.
        commitments: usize,
        /// Custodians.
        custodians: usize,
    },
    /// A list that must not be empty is.
    #[error("names no {what}")]
    Empty {
        /// Which list.
        what: &'static str,
    },
    /// A number of the mechanism.
    #[error(transparent)]
    Mechanism(#[from] OutOfRange),
    /// A number of training out of range.
    #[error("{what} is out of range")]
    Range {
        /// Which number.
        what: &'static str,
    },
    /// The same key twice in a list of keys.
    #[error("names the same {what} twice")]
    Repeated {
        /// Which list.
        what: &'static str,
    },
    /// More custodians needed than there are, or none.
    #[error("threshold is {threshold} of {custodians} custodians")]
    Threshold {
        /// m.
        threshold: u8,
        /// n.
        custodians: usize,
    },
    /// Ends before it begins.
    #[error("valid from {not_before} to {not_after}")]
    Validity {
        /// The start.
        not_before: u64,
        /// The end.
        not_after: u64,
    },
    /// Another format.
    #[error("format version is {observed}, this build reads {VERSION}")]
    Version {
        /// The version observed.
        observed: u8,
    },
    /// More witnesses needed than there are.
    #[error("witness quorum is {quorum} of {witnesses}")]
    Witnesses {
        /// How many must cosign.
        quorum: u8,
        /// How many may.
        witnesses: usize,
    },
}

/// A manifest that can be run, with the bytes that say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    terms: Terms,
}

impl Manifest {
    /// Parses exact bytes.
    ///
    /// # Errors
    /// [`ManifestError`], with everything that keeps the manifest from being run.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let terms: Terms = cbor::decode(bytes, MAX_BYTES)?;
        let findings = terms.findings();
        if findings.is_empty() {
            Ok(Self { bytes: bytes.to_vec(), terms })
        } else {
            Err(ManifestError::Unlawful(findings))
        }
    }

    /// Writes `terms` down.
    ///
    /// # Errors
    /// As [`Manifest::parse`]: what could not be read is not written.
    pub fn write(terms: &Terms) -> Result<Self, ManifestError> {
        Self::parse(&cbor::encode(terms))
    }

    /// The exact bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The manifest's identity: SHA-384 of its exact bytes.
    #[must_use]
    pub fn digest(&self) -> Digest<Manifest> {
        Digest::of(&self.bytes)
    }

    /// The custodian that holds share `index` (from 1).
    #[must_use]
    pub fn custodian(&self, index: u8) -> Option<&Custodian> {
        self.custodians.get(usize::from(index).checked_sub(1)?)
    }
}

impl Deref for Manifest {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

impl Terms {
    /// Everything that keeps these terms from being run.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.version != VERSION {
            findings.push(Finding::Version { observed: self.version });
        }
        let Validity { not_after, not_before } = self.valid;
        if not_before > not_after {
            findings.push(Finding::Validity { not_before, not_after });
        }
        self.parties(&mut findings);
        self.lists(&mut findings);
        self.numbers(&mut findings);
        findings
    }

    fn parties(&self, findings: &mut Vec<Finding>) {
        let custodians = self.custodians.len();
        let approvers = self.approvers.len();
        let witnesses = self.ledger.witnesses.len();
        if self.threshold == 0 || usize::from(self.threshold) > custodians || custodians > 255 {
            findings.push(Finding::Threshold { threshold: self.threshold, custodians });
        }
        if self.approvals == 0 || usize::from(self.approvals) > approvers {
            findings.push(Finding::Approvals { approvals: self.approvals, approvers });
        }
        if usize::from(self.ledger.quorum) > witnesses {
            findings.push(Finding::Witnesses { quorum: self.ledger.quorum, witnesses });
        }
        let commitments = self.dataset.commitments.len();
        if commitments != custodians {
            findings.push(Finding::Commitments { commitments, custodians });
        }
        let keys = |key: fn(&Custodian) -> Octets<32>| self.custodians.iter().map(key).collect();
        for (what, list) in [
            ("approver", self.approvers.clone()),
            ("witness", self.ledger.witnesses.clone()),
            ("recipient", self.recipients.iter().map(|r| r.key).collect()),
            ("custodian's decision key", keys(|c| c.decision)),
            ("custodian's tls key", keys(|c| c.tls.octets())),
        ] {
            if repeats(list) {
                findings.push(Finding::Repeated { what });
            }
        }
    }

    fn lists(&self, findings: &mut Vec<Finding>) {
        let adapter = &self.training.adapter;
        for (what, empty) in [
            ("image", self.images.is_empty()),
            ("recipient", self.recipients.is_empty()),
            ("target layer", adapter.targets.is_empty()),
            ("adapter tensor", adapter.tensors.is_empty()),
        ] {
            if empty {
                findings.push(Finding::Empty { what });
            }
        }
    }

    fn numbers(&self, findings: &mut Vec<Finding>) {
        self.training.findings(self.privacy.steps, findings);
        if self.audit.guesses.saturating_mul(2) > self.audit.canaries {
            findings.push(Finding::Range { what: "audit guesses" });
        }
    }
}

fn repeats(mut keys: Vec<Octets<32>>) -> bool {
    keys.sort_unstable();
    keys.windows(2).any(|pair| matches!(pair, [left, right] if left == right))
}
