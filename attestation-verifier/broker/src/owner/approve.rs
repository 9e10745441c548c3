//! `approve`: an approver's Ed25519 signature over a manifest, in a DSSE envelope that several
//! approvers fill one after the other.

use std::path::{Path, PathBuf};

use attestation_verifier::proof::signed;
use measurement::digest::Digest;
use measurement::dsse::{self, Envelope, EnvelopeError, Signature};
use measurement::manifest::{self, Manifest, ManifestError};
use measurement::octets::Octets;
use ring::signature::{Ed25519KeyPair, KeyPair};
use thiserror::Error;

use super::files::{self, Audience, Existing, FileError};
use super::keys::{self, KeyError};

const MAX_MANIFEST: u64 = 64 * 1024;

/// What was approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// The manifest.
    pub manifest: Digest<Manifest>,
    /// The approver's key.
    pub approver: Octets<32>,
    /// How many approvers have signed.
    pub approvals: usize,
    /// How many must.
    pub required: u8,
}

/// Why a manifest was not approved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApproveError {
    /// The approvals so far are no envelope.
    #[error("{}: {source}", path.display())]
    Envelope {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EnvelopeError,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A signature in the envelope does not verify, or is of no approver.
    #[error("{}: the signature by {keyid} is not one of an approver over this manifest", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What the signature says of its key.
        keyid: String,
    },
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The manifest.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// The key is not among the approvers.
    #[error("the key {observed} is not among the manifest's {approvers} approvers")]
    NotAnApprover {
        /// The public key.
        observed: Octets<32>,
        /// How many approvers there are.
        approvers: usize,
    },
    /// The envelope is about another manifest.
    #[error("{}: approves another manifest, {observed}", path.display())]
    OtherManifest {
        /// The file.
        path: PathBuf,
        /// The digest of what it approves.
        observed: Digest<Manifest>,
    },
}

/// Signs the manifest at `manifest` with the key at `key`, beside the signatures that `out` holds.
///
/// # Errors
/// [`ApproveError`]; `out` is then as it was.
pub fn approve(manifest: &Path, key: &Path, out: &Path) -> Result<Approved, ApproveError> {
    let bytes = files::read(manifest, MAX_MANIFEST)?;
    let parsed = Manifest::parse(&bytes)
        .map_err(|source| ApproveError::Manifest { path: manifest.to_owned(), source })?;
    let pair = keys::read_signing_key(key)?;
    let approver = public(&pair);
    if !parsed.approvers.contains(&approver) {
        let approvers = parsed.approvers.len();
        return Err(ApproveError::NotAnApprover { observed: approver, approvers });
    }
    let mut envelope = so_far(&parsed, out)?;
    let message = envelope.signed_bytes();
    let signature = Signature::new(&approver, pair.sign(&message).as_ref());
    envelope.signatures.retain(|other| other.keyid != signature.keyid);
    envelope.signatures.push(signature);
    envelope.signatures.sort_by(|one, other| one.keyid.cmp(&other.keyid));
    files::write(out, &envelope.to_json(), Audience::Everyone, Existing::Replace)?;
    Ok(Approved {
        manifest: parsed.digest(),
        approver,
        approvals: envelope.signatures.len(),
        required: parsed.approvals,
    })
}

fn public(pair: &Ed25519KeyPair) -> Octets<32> {
    Octets::from_slice(pair.public_key().as_ref()).unwrap_or(Octets([0; 32]))
}

/// The envelope at `out`, every signature of it checked, or an empty one.
fn so_far(manifest: &Manifest, out: &Path) -> Result<Envelope, ApproveError> {
    if !out.exists() {
        return Ok(Envelope::new(manifest::PAYLOAD_TYPE, manifest.bytes()));
    }
    let cap = u64::try_from(dsse::MAX_BYTES).unwrap_or(u64::MAX);
    let path = || out.to_owned();
    let envelope = Envelope::parse(&files::read(out, cap)?, manifest::PAYLOAD_TYPE)
        .map_err(|source| ApproveError::Envelope { path: path(), source })?;
    if envelope.payload.0 != manifest.bytes() {
        let observed = Digest::of(&envelope.payload.0);
        return Err(ApproveError::OtherManifest { path: path(), observed });
    }
    let message = envelope.signed_bytes();
    for Signature { keyid, sig } in &envelope.signatures {
        let key = manifest.approvers.iter().find(|key| key.to_string() == *keyid);
        if !key.is_some_and(|key| signed(key, &message, &sig.0)) {
            return Err(ApproveError::Foreign { path: path(), keyid: keyid.clone() });
        }
    }
    Ok(envelope)
}
