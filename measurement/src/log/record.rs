//! What the log's leaves stand for: salted records in deterministic CBOR.
//!
//! Records stay private; the public leaf holds only a checksum, and the salt keeps anyone from
//! guessing what is behind it. A record is the map `{"event": {kind: fields}, "salt", "time"}`.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::cbor::{self, Malformed};
use crate::digest::{Digest, Hash32, of};
use crate::manifest::Manifest;
use crate::octets::Octets;
use crate::privacy::Mechanism;

/// Longest record accepted, in bytes.
pub const MAX_RECORD: usize = 4096;

/// Longest finding code, in bytes.
pub const MAX_CODE: usize = 64;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What happened.
    pub event: Event,
    /// 32 random bytes, so that the checksum says nothing of the rest.
    pub salt: Octets<32>,
    /// When, in seconds since 1970, by the custodian's clock.
    pub time: u64,
}

impl Record {
    /// The record's only encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Malformed`] unless the bytes are the one encoding of a record of at most [`MAX_RECORD`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        cbor::decode(bytes, MAX_RECORD)
    }

    /// SHA-256 of the record's bytes.
    pub fn digest(&self) -> Hash32<of::Record> {
        Hash32::of(&self.to_bytes())
    }
}

/// What happened, by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Event {
    /// A checkpoint of a running attempt was taken in: resuming from it needs no new debit.
    Commit(Commit),
    /// The enclave said that it opened a release.
    Confirm(Confirm),
    /// An attempt was paid for: the worst case of the manifest.
    Debit(Debit),
    /// A request was refused.
    Deny(Deny),
    /// A manifest was accepted: from now on it is the only one its data set pays for.
    Manifest(Accepted),
    /// An attempt ended with a receipt.
    Receipt(Receipt),
    /// A share of a data key is about to leave.
    Release(Release),
    /// The job's adapter key was handed to a recipient.
    Unwrap(Unwrap),
}

/// A manifest was accepted for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The data set it is for.
    pub dataset: Octets<16>,
    /// The job.
    pub job: Octets<16>,
    /// Its manifest.
    pub manifest: Digest<Manifest>,
    /// The manifest's number, which rises with every manifest for the data set.
    pub sequence: u64,
}

/// An attempt was paid for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debit {
    /// Number of the attempt within the job: 1, 2, 3, ...
    pub attempt: u32,
    /// The data set that pays.
    pub dataset: Octets<16>,
    /// The job.
    pub job: Octets<16>,
    /// Its manifest.
    pub manifest: Digest<Manifest>,
    /// What is paid for. Never a scalar epsilon: an auditor composes mechanisms.
    pub mechanism: Mechanism,
}

/// A share of a data key is about to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The attempt that was paid for.
    pub attempt: u32,
    /// Index of the debit's leaf in the ledger log.
    pub debit: u64,
    /// The data key.
    pub dek_id: Octets<32>,
    /// The job's manifest.
    pub manifest: Digest<Manifest>,
    /// When the lease ends, in seconds since 1970: nothing of the attempt is taken in after it.
    pub not_after: u64,
    /// Chosen by the custodian for this release.
    pub release_id: Octets<16>,
    /// REPORT_DATA of the evidence that was appraised.
    pub report_data: Octets<64>,
    /// The root it was judged under: a vendor, a private root's name, or `SIMULATED`.
    pub root: String,
    /// Digest of what was sealed to the enclave: `SHA-256(enc || ct)`.
    pub sealed_share: Hash32<of::SealedShare>,
    /// The session's binding (BT).
    pub session: Octets<64>,
    /// Which share.
    pub share_index: u8,
    /// The Ed25519 key that the session spoke for: the only one that may sign the receipt.
    pub signer: Octets<32>,
}

/// The enclave said that it opened a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The release.
    pub release_id: Octets<16>,
    /// The enclave's Ed25519 signature over it.
    pub signature: Octets<64>,
}

/// An attempt ended with a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The attempt.
    pub attempt: u32,
    /// The closing evidence as it was judged: [`crate::receipt::CpuEvidence::digest`].
    pub closing: Hash32<of::Evidence>,
    /// The job.
    pub job: Octets<16>,
    /// The adapter as it left.
    pub sealed_adapter: Hash32<of::SealedAdapter>,
    /// The receipt's statement.
    pub statement: Digest<of::Statement>,
}

/// A checkpoint of a running attempt was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The attempt.
    pub attempt: u32,
    /// Digest of the sealed checkpoint.
    pub head: Octets<32>,
    /// The job.
    pub job: Octets<16>,
    /// Steps done; goes up within an attempt.
    pub step: u32,
}

/// The job's adapter key was handed to a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unwrap {
    /// The attempt whose adapter it is: the one plaintext of the job.
    pub attempt: u32,
    /// The job.
    pub job: Octets<16>,
    /// The recipient's key, as the manifest names it.
    pub recipient: Octets<32>,
}

/// A request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// The first finding, as a code.
    pub code: Code,
    /// The manifest that was asked for.
    pub manifest: Digest<Manifest>,
}

/// The name of a finding: 1 to 64 lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code(String);

impl Code {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Code {
    type Error = NotACode;

    fn try_from(text: String) -> Result<Self, NotACode> {
        let fits = (1..=MAX_CODE).contains(&text.len());
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if fits && text.bytes().all(plain) { Ok(Self(text)) } else { Err(NotACode) }
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.0
    }
}

/// A text that is not the name of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a finding's code is 1 to {MAX_CODE} lower-case letters, digits and hyphens")]
pub struct NotACode;
