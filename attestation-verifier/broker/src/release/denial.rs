//! Why a custodian says no: one finding, one code. The peer hears only retry, denied or busy.

use attestation_verifier::appraise::Rejection;
use attestation_verifier::protocol::{Answer, BadFrame};
use measurement::digest::{Digest, of};
use measurement::launch::blob::BlobError;
use measurement::log::{Code, Refusal};
use measurement::manifest::{Manifest, ManifestError};
use measurement::octets::Octets;
use measurement::privacy::accountant::AccountantError;
use thiserror::Error;

use crate::envelope::EnvelopeError;

/// One reason to refuse.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum Denial {
    /// What the data set paid cannot be bounded.
    #[error("budget: {0}")]
    Accountant(#[from] AccountantError),
    /// Too few approvers signed.
    #[error("{observed} approvers signed, the manifest requires {required}")]
    Approvals {
        /// Distinct approvers with a valid signature.
        observed: usize,
        /// How many must sign.
        required: u8,
    },
    /// The approvals are of other bytes.
    #[error("the approvals are of another manifest")]
    ApprovalsOfOther,
    /// The approvals are no envelope of a manifest.
    #[error("approvals: {0}")]
    ApprovalsShape(measurement::dsse::EnvelopeError),
    /// Another session was paid for meanwhile.
    #[error("the next attempt is {observed}, the challenge named {required}")]
    AttemptMoved {
        /// The attempt that is next now.
        observed: u32,
        /// The attempt of the challenge.
        required: u32,
    },
    /// The data set's budget does not cover the job.
    #[error("the data set would have paid epsilon {observed}, its owner allows {allowed}")]
    Budget {
        /// ε with this job.
        observed: f64,
        /// ε allowed.
        allowed: f64,
    },
    /// Too many are being served.
    #[error("busy")]
    Busy,
    /// The manifest commits to other shares.
    #[error("the manifest's {what} is not that of the share")]
    DataKey {
        /// What differs.
        what: &'static str,
    },
    /// The mechanism's δ is above the one allowed.
    #[error("the mechanism's delta is {observed}, the data set's owner allows {allowed}")]
    Delta {
        /// The mechanism's.
        observed: f64,
        /// The owner's.
        allowed: f64,
    },
    /// The share in the folder does not open any more.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The evidence.
    #[error(transparent)]
    Evidence(#[from] Rejection),
    /// The channel gives no exporter.
    #[error("the channel cannot be bound: no exported keying material")]
    Exporter,
    /// The manifest is not valid any more.
    #[error("the manifest was valid until {until}, now is {now}")]
    Expired {
        /// Its end, seconds since 1970.
        until: u64,
        /// Now.
        now: u64,
    },
    /// A frame.
    #[error(transparent)]
    Frame(#[from] BadFrame),
    /// The manifest asks for GPUs, which this build does not appraise.
    #[error("{observed} gpus, this build appraises none")]
    Gpus {
        /// GPUs asked for or sent.
        observed: usize,
    },
    /// None of the key encapsulations offered is known, or a key has the wrong length.
    #[error("no key encapsulation in common")]
    Kem,
    /// The launch blob.
    #[error(transparent)]
    LaunchBlob(#[from] BlobError),
    /// The ledger.
    #[error("ledger: {0}")]
    Ledger(Refusal),
    /// The data set's ledger is another custodian's log.
    #[error("the data set's ledger is the log {observed}, not ours")]
    LedgerElsewhere {
        /// The log.
        observed: Octets<32>,
    },
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// N_max is another than the owner's.
    #[error("the mechanism has at most {observed} units, the data set's owner says {required}")]
    MaxUnits {
        /// The mechanism's.
        observed: u64,
        /// The owner's.
        required: u64,
    },
    /// The nonce came back too late.
    #[error("the nonce is worth nothing any more")]
    Nonce,
    /// The manifest names a custodian with other keys in this place.
    #[error("custodian {index} of the manifest has another {what}")]
    NotNamed {
        /// The share's index.
        index: u8,
        /// The key that differs.
        what: &'static str,
    },
    /// The manifest is not valid yet.
    #[error("the manifest is valid from {from}, now is {now}")]
    NotYetValid {
        /// Its start, seconds since 1970.
        from: u64,
        /// Now.
        now: u64,
    },
    /// The launch blob is for another platform.
    #[error("the launch blob is not of the algorithm its platform reports")]
    OtherAlgorithm,
    /// The launch blob holds another job's manifest.
    #[error("the manifest is of job {observed}, {required} was asked for")]
    OtherJob {
        /// The manifest's.
        observed: Octets<16>,
        /// Asked for.
        required: Octets<16>,
    },
    /// The launch blob holds another manifest.
    #[error("the launch blob holds manifest {observed}, {required} was asked for")]
    OtherManifest {
        /// The one there.
        observed: Digest<Manifest>,
        /// The one asked for.
        required: Digest<Manifest>,
    },
    /// The manifest asks for another policy.
    #[error("the manifest asks for policy {observed}, ours is {required}")]
    OtherPolicy {
        /// The manifest's.
        observed: Digest<of::Policy>,
        /// Ours.
        required: Digest<of::Policy>,
    },
    /// The evidence is of another kind than announced.
    #[error("the evidence is of another kind than announced")]
    OtherTee,
    /// The receipt does not match what is known.
    #[error("receipt: {what} does not match")]
    Receipt {
        /// What does not match.
        what: &'static str,
    },
    /// The receipt's envelope or statement.
    #[error("receipt: {0}")]
    ReceiptShape(measurement::dsse::EnvelopeError),
    /// A signature over a confirmation or a receipt.
    #[error("{over} is not signed by the session's key")]
    Signature {
        /// What should be signed.
        over: &'static str,
    },
    /// Nothing is known of such a manifest.
    #[error("no share was released for manifest {manifest}")]
    UnknownManifest {
        /// The manifest.
        manifest: Digest<Manifest>,
    },
    /// No share of such a key lies here.
    #[error("{observed} keys are wanted, and one whose share lies here is required")]
    UnknownKey {
        /// How many are wanted.
        observed: usize,
    },
    /// Nobody has signed a receipt for what is to be unwrapped, or it is for another adapter.
    #[error("unwrap: {what}")]
    Unwrap {
        /// What is wrong.
        what: &'static str,
    },
    /// Another version of the protocol.
    #[error("protocol version is {observed}, this build speaks {required}")]
    Version {
        /// The version observed.
        observed: u8,
        /// Ours.
        required: u8,
    },
    /// The manifest requires witnesses, and this log has none.
    #[error("the manifest requires {required} witnesses, this log is cosigned by none")]
    Witnesses {
        /// How many.
        required: u8,
    },
    /// A wrapped share does not open.
    #[error("the wrapped share does not open")]
    Wrapped,
}

impl Denial {
    /// The finding's name, which does not change.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accountant(_) => "budget-unbounded",
            Self::Approvals { .. } => "approvals-missing",
            Self::ApprovalsOfOther => "approvals-of-other-manifest",
            Self::ApprovalsShape(_) => "approvals-malformed",
            Self::AttemptMoved { .. } => "attempt-moved",
            Self::Budget { .. } => "budget-spent",
            Self::Busy => "busy",
            Self::DataKey { .. } => "share-of-other-terms",
            Self::Delta { .. } => "delta-above-cap",
            Self::Envelope(_) => "share-unreadable",
            Self::Evidence(Rejection::Inauthentic(_)) => "evidence-inauthentic",
            Self::Evidence(Rejection::Malformed(_)) => "evidence-malformed",
            Self::Evidence(rejection) => {
                rejection.findings().first().map_or("evidence-unacceptable", |f| f.id())
            }
            Self::Exporter => "exporter-missing",
            Self::Expired { .. } => "manifest-expired",
            Self::Frame(BadFrame::TooLong { .. }) => "frame-too-long",
            Self::Frame(BadFrame::Unexpected { .. }) => "frame-out-of-order",
            Self::Frame(_) => "frame-malformed",
            Self::Gpus { .. } => "gpus-not-appraised",
            Self::Kem => "kem-unknown",
            Self::LaunchBlob(_) => "launch-blob-malformed",
            Self::Ledger(refusal) => ledger(refusal),
            Self::LedgerElsewhere { .. } => "ledger-elsewhere",
            Self::Manifest(_) => "manifest-malformed",
            Self::MaxUnits { .. } => "max-units-other",
            Self::Nonce => "nonce-expired",
            Self::NotNamed { .. } => "custodian-not-named",
            Self::NotYetValid { .. } => "manifest-not-yet-valid",
            Self::OtherAlgorithm => "launch-blob-of-other-platform",
            Self::OtherJob { .. } => "job-other",
            Self::OtherManifest { .. } => "manifest-other",
            Self::OtherPolicy { .. } => "policy-other",
            Self::OtherTee => "tee-other",
            Self::Receipt { .. } => "receipt-mismatch",
            Self::ReceiptShape(_) => "receipt-malformed",
            Self::Signature { .. } => "signature-invalid",
            Self::UnknownKey { .. } => "key-unknown",
            Self::UnknownManifest { .. } => "manifest-unknown",
            Self::Unwrap { .. } => "unwrap-unfounded",
            Self::Version { .. } => "version-other",
            Self::Witnesses { .. } => "witnesses-missing",
            Self::Wrapped => "share-does-not-open",
        }
    }

    /// [`Denial::name`] as the log writes it: a check of the policy, as `snp.debug`, becomes
    /// `snp-debug`.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        Code::try_from(self.name().replace(['.', '_'], "-")).ok()
    }

    /// What the peer hears.
    #[must_use]
    pub const fn answer(&self) -> Answer {
        match self {
            Self::Busy => Answer::Busy,
            Self::AttemptMoved { .. } | Self::Nonce => Answer::Retry,
            _ => Answer::Denied,
        }
    }
}

const fn ledger(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::LeaseEnded { .. } => "lease-ended",
        Refusal::ManifestNotAccepted { .. } => "manifest-superseded",
        Refusal::OtherUnit { .. } => "unit-other",
        Refusal::ReceiptRepeated { .. } => "receipt-repeated",
        Refusal::ReceiptWithoutRelease { .. } | Refusal::AttemptUnpaid { .. } => {
            "receipt-without-release"
        }
        Refusal::SequenceTaken { .. } => "sequence-taken",
        Refusal::SequenceWentDown { .. } => "sequence-went-down",
        Refusal::UnwrapRepeated { .. } => "unwrap-repeated",
        Refusal::UnwrapWithoutReceipt { .. } => "unwrap-without-receipt",
        _ => "ledger",
    }
}
