//! Proofs that a custodian logged what it did, before it did it.
//!
//! The enclave opens nothing that is not in the log, and an auditor believes nothing that is not:
//! both call [`release`]. Steps for one record:
//! 1. The checkpoint is a signed note of the expected log (C2SP), with enough witness cosignatures.
//! 2. The leaf is the record's, and the custodian's decision key signed it.
//! 3. The inclusion proof leads from the leaf to the checkpoint's root (RFC 6962 §2.1.1).
//! 4. The record is the only encoding of what it says.

use alloc::format;
use alloc::string::String;

use measurement::cbor::Malformed;
use measurement::digest::Hash32;
use measurement::log::{
    COSIGNATURE, Checkpoint, Debit, Event, Leaf, Note, NoteError, NoteSignature, ProofError,
    Record, Release, key_id, origin, verify_inclusion,
};
use measurement::manifest::{Custodian, LedgerTerms};
use measurement::octets::Octets;
use measurement::receipt::{ProvenRecord, ReleaseProof};
use ring::signature::{ED25519, UnparsedPublicKey};

/// Why a record is not proven to be in a log.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unproven {
    /// A checkpoint of another log.
    #[error("checkpoint is of log {observed}, expected {required}")]
    Origin {
        /// The origin observed.
        observed: String,
        /// The origin required.
        required: String,
    },
    /// The checkpoint is not signed by the log's key.
    #[error("checkpoint is not signed by the log's key")]
    CheckpointSignature,
    /// The leaf is of another record.
    #[error("leaf is of another record")]
    Leaf,
    /// The leaf is not signed by the custodian's decision key.
    #[error("leaf is not signed by the custodian's decision key")]
    LeafSignature,
    /// The checkpoint is not a note.
    #[error("malformed checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The proof leads elsewhere.
    #[error("inclusion proof: {0}")]
    Proof(#[from] ProofError),
    /// The record is malformed.
    #[error("malformed record: {0}")]
    Record(#[from] Malformed),
    /// The record says something else.
    #[error("record is not the {required} expected")]
    Unexpected {
        /// What it should have been.
        required: &'static str,
    },
    /// Too few witnesses cosigned.
    #[error("{observed} witnesses cosigned, the manifest requires {required}")]
    Witnesses {
        /// How many cosigned.
        observed: usize,
        /// How many must.
        required: u8,
    },
}

/// Whether `signature` is `key`'s over `message` (Ed25519, RFC 8032).
#[must_use]
pub fn signed(key: &Octets<32>, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(message, signature).is_ok()
}

/// Step 1: a checkpoint of the log with key `log`, cosigned as `ledger` asks.
///
/// # Errors
/// [`Unproven`].
pub fn checkpoint(
    note: &str,
    log: &Octets<32>,
    ledger: &LedgerTerms,
) -> Result<Checkpoint, Unproven> {
    let note = Note::parse(note.as_bytes())?;
    let checkpoint = note.checkpoint()?;
    let required = origin(log.as_bytes());
    if checkpoint.origin != required {
        return Err(Unproven::Origin { observed: checkpoint.origin, required });
    }
    let by_log = note.signatures.iter().any(|line| {
        line.claims(&required, log.as_bytes()) && signed(log, note.text.as_bytes(), &line.signature)
    });
    if !by_log {
        return Err(Unproven::CheckpointSignature);
    }
    let cosigned =
        |witness: &&Octets<32>| note.signatures.iter().any(|line| cosigns(line, witness, &note));
    let observed = ledger.witnesses.iter().filter(cosigned).count();
    if observed < usize::from(ledger.quorum) {
        return Err(Unproven::Witnesses { observed, required: ledger.quorum });
    }
    Ok(checkpoint)
}

/// Whether a line is `witness`'s timestamped cosignature of `note` (C2SP tlog-cosignature, v1).
fn cosigns(line: &NoteSignature, witness: &Octets<32>, note: &Note) -> bool {
    let Some((time, signature)) = line.signature.split_first_chunk() else {
        return false;
    };
    let time = u64::from_be_bytes(*time);
    let message = format!("cosignature/v1\ntime {time}\n{}", note.text);
    line.key_id == key_id(&line.name, COSIGNATURE, witness.as_bytes())
        && signed(witness, message.as_bytes(), signature)
}

/// Steps 1 to 4: a record of the log with key `log`, decided by `decision`.
///
/// # Errors
/// [`Unproven`].
pub fn record(
    proven: &ProvenRecord,
    log: &Octets<32>,
    decision: &Octets<32>,
    ledger: &LedgerTerms,
) -> Result<Record, Unproven> {
    let checkpoint = checkpoint(&proven.checkpoint, log, ledger)?;
    let leaf = Leaf::from_slice(&proven.leaf.0).ok_or(Unproven::Leaf)?;
    if !leaf.covers(&proven.record.0) {
        return Err(Unproven::Leaf);
    }
    let by_custodian = leaf.key_hash == Hash32::of(decision.as_bytes());
    if !by_custodian || !signed(decision, &Leaf::message(&leaf.checksum), leaf.signature.as_bytes())
    {
        return Err(Unproven::LeafSignature);
    }
    let Checkpoint { size, root, .. } = checkpoint;
    verify_inclusion(&leaf.hash(), proven.index, size, &proven.path, &root)?;
    Ok(Record::parse(&proven.record.0)?)
}

/// What a custodian released, and what the ledger was debited for it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvenRelease {
    /// The debit.
    pub debit: Debit,
    /// The release.
    pub release: Release,
}

/// A release by `custodian`, and its debit in the data set's ledger, which `ledger_decision` keeps.
///
/// # Errors
/// [`Unproven`], also when the release names another debit than the one proven.
pub fn release(
    proof: &ReleaseProof,
    custodian: &Custodian,
    ledger: &LedgerTerms,
    ledger_decision: &Octets<32>,
) -> Result<ProvenRelease, Unproven> {
    let logged = record(&proof.debit, &ledger.log, ledger_decision, ledger)?;
    let Event::Debit(debit) = logged.event else {
        return Err(Unproven::Unexpected { required: "debit" });
    };
    let logged = record(&proof.release, &custodian.log, &custodian.decision, ledger)?;
    let Event::Release(release) = logged.event else {
        return Err(Unproven::Unexpected { required: "release" });
    };
    let same = release.debit == proof.debit.index
        && release.attempt == debit.attempt
        && release.manifest == debit.manifest;
    if !same {
        return Err(Unproven::Unexpected { required: "release of this debit" });
    }
    Ok(ProvenRelease { debit, release })
}
