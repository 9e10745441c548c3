//! `open`: the adapter's one-time key from the custodians, and the adapter's files from that.
//!
//! 1. The receipt: its statement's digests are those of the manifest in its launch blob and of the
//!    sealed adapter at hand, and its signer signed it. (Whether the receipt itself is to be believed
//!    is the auditor's to say: `cloister verify`.)
//! 2. UNWRAP with one custodian after the other, until the threshold: TLS 1.3, its key pinned by the
//!    manifest. A share counts when the custodian has proven that it logged handing it out.
//! 3. The key opens the sealed adapter; the files are those the statement names.
//! 4. The files, and a page about them, in a folder.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use attestation_verifier::proof::signed;
use measurement::binding::adapter_aad;
use measurement::cbor::{self, Blob, Malformed};
use measurement::digest::{Digest, Hash32, of};
use measurement::dsse::EnvelopeError;
use measurement::launch::blob::{self, BlobError};
use measurement::manifest::{Manifest, ManifestError};
use measurement::octets::Octets;
use measurement::receipt::{Bundle, MAX_BUNDLE, PAYLOAD_TYPE, SIMULATED, Statement};
use sealed::{FloeError, RecipientKey, Share, ShareError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::files::{self, Audience, Draft, Existing, FileError};
use super::keys::{self, KeyError};

mod channel;
mod unwrap;

pub use unwrap::UnwrapError;

const MAX_SEALED: u64 = 2 << 30;
/// The most bytes a package of an adapter has.
const MAX_PACKAGE: usize = 1 << 30;
/// PEFT's file of settings.
pub const CONFIG: &str = "adapter_config.json";
/// PEFT's file of tensors.
pub const WEIGHTS: &str = "adapter_model.safetensors";

/// What is to be opened.
pub struct Request<'a> {
    /// The receipt bundle.
    pub receipt: &'a Path,
    /// The sealed adapter.
    pub sealed: &'a Path,
    /// The recipient's secret key file.
    pub key: &'a Path,
    /// The manifest that the caller approved, if it is to be that one.
    pub manifest: Option<&'a Path>,
    /// Addresses of custodians, `host:port`, in any order.
    pub brokers: &'a [String],
    /// The folder for the adapter.
    pub out: &'a Path,
}

/// What was opened.
#[derive(Clone, Debug, Serialize)]
pub struct Opened {
    /// The manifest.
    pub manifest: Digest<Manifest>,
    /// The files written.
    pub files: Vec<PathBuf>,
    /// ε for whoever holds the adapter, as the receipt states it.
    pub epsilon: f64,
    /// δ.
    pub delta: f64,
    /// The job's evidence was judged under a simulated root.
    pub simulated: bool,
    /// Names of the custodians who released a share.
    pub custodians: Vec<String>,
}

/// The adapter's files as the enclave seals them together.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    config: Blob,
    weights: Blob,
}

/// Why no adapter was opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Too few custodians gave their share; what each said.
    #[error(
        "{observed} custodians released their share of the adapter's key, {required} are required"
    )]
    Custodians {
        /// How many did.
        observed: usize,
        /// How many must.
        required: u8,
        /// Address and reason of each that did not.
        refusals: Vec<(String, UnwrapError)>,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file in the package is not the one in the statement.
    #[error("adapter: {name} has sha256 {observed}, the receipt names {required}")]
    FileDigest {
        /// The file.
        name: &'static str,
        /// Its digest.
        observed: Hash32<of::File>,
        /// The statement's.
        required: String,
    },
    /// The recipient's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The launch blob in the receipt.
    #[error("receipt: {0}")]
    LaunchBlob(#[from] BlobError),
    /// The manifest in the receipt.
    #[error("receipt: {0}")]
    Manifest(#[from] ManifestError),
    /// The key is not among the recipients.
    #[error("the key {observed} is not among the manifest's {recipients} recipients")]
    NotARecipient {
        /// The public key.
        observed: Octets<32>,
        /// How many recipients there are.
        recipients: usize,
    },
    /// Not the manifest the caller approved, or not the one the statement is about.
    #[error("receipt: {what} is {observed}, expected {required}")]
    OtherManifest {
        /// Which digest.
        what: &'static str,
        /// Its value.
        observed: Digest<Manifest>,
        /// What it should be.
        required: Digest<Manifest>,
    },
    /// The package is not the adapter's.
    #[error("sealed adapter: malformed package: {0}")]
    Package(#[from] Malformed),
    /// Not a receipt.
    #[error("receipt: {0}")]
    Receipt(#[from] EnvelopeError),
    /// The sealed adapter does not open under the key.
    #[error("sealed adapter: {0}")]
    Sealed(#[from] FloeError),
    /// Another sealed adapter than the statement's.
    #[error("sealed adapter: sha256 is {observed}, the receipt names {required}")]
    SealedDigest {
        /// The file's.
        observed: Hash32<of::SealedAdapter>,
        /// The statement's.
        required: Hash32<of::SealedAdapter>,
    },
    /// Shares that do not make a key.
    #[error("adapter's key: {0}")]
    Share(#[from] ShareError),
    /// The statement is not signed by the key it names.
    #[error("receipt: the statement is not signed by its enclave's key {signer}")]
    Signature {
        /// The key.
        signer: Octets<32>,
    },
}

/// Opens an adapter.
///
/// # Errors
/// [`OpenError`]; then no file of the adapter is written.
pub fn open(request: &Request<'_>) -> Result<Opened, OpenError> {
    let cap = u64::try_from(MAX_BUNDLE).unwrap_or(u64::MAX);
    let (manifest, statement) = read_receipt(&files::read(request.receipt, cap)?)?;
    if let Some(path) = request.manifest {
        let required = Digest::of(&files::read(path, cap)?);
        same("manifest", manifest.digest(), required)?;
    }
    let sealed = files::read(request.sealed, MAX_SEALED)?;
    check_sealed(&sealed, &statement)?;
    let key = keys::read_recipient_key(request.key)?;
    check_recipient(&manifest, &key)?;
    let wanted = unwrap::Wanted::new(&manifest, &statement);
    let (shares, custodians) = collect(request, &wanted, &manifest, &key)?;
    let data_key = sealed::combine(&shares, manifest.threshold)?;
    let aad = adapter_aad(&manifest.digest(), statement.predicate.attempt);
    let plain = sealed::open_blob(&data_key, &aad, &sealed)?;
    let package: Package = cbor::decode(&plain, MAX_PACKAGE)?;
    check_file(CONFIG, &package.config.0, &statement)?;
    check_file(WEIGHTS, &package.weights.0, &statement)?;
    let page = page(&manifest, &statement);
    let files = write(request.out, &package, &page)?;
    let dp = &statement.predicate.dp;
    Ok(Opened {
        manifest: manifest.digest(),
        files,
        epsilon: dp.epsilon.0,
        delta: dp.mechanism.delta.0,
        simulated: statement.predicate.simulated,
        custodians,
    })
}

/// Step 1, of the receipt alone.
fn read_receipt(json: &[u8]) -> Result<(Manifest, Statement), OpenError> {
    let bundle = Bundle::parse(json)?;
    if bundle.envelope.payload_type != PAYLOAD_TYPE {
        let observed = bundle.envelope.payload_type;
        return Err(EnvelopeError::PayloadType { observed, required: PAYLOAD_TYPE }.into());
    }
    let statement = Statement::parse(&bundle.envelope.payload.0)?;
    let (_, manifest) = blob::read(&bundle.launch_blob.0)?;
    let manifest = Manifest::parse(&manifest)?;
    same("the statement's manifest", statement.predicate.job_manifest.sha384, manifest.digest())?;
    let signer = statement.predicate.signer;
    let message = bundle.envelope.signed_bytes();
    if bundle.envelope.signatures.iter().any(|line| signed(&signer, &message, &line.sig.0)) {
        return Ok((manifest, statement));
    }
    Err(OpenError::Signature { signer })
}

fn same(
    what: &'static str,
    observed: Digest<Manifest>,
    required: Digest<Manifest>,
) -> Result<(), OpenError> {
    if observed == required {
        return Ok(());
    }
    Err(OpenError::OtherManifest { what, observed, required })
}

fn check_sealed(sealed: &[u8], statement: &Statement) -> Result<(), OpenError> {
    let observed = Hash32::of(sealed);
    let required = statement.predicate.outputs.sealed_adapter_sha256;
    if observed == required {
        return Ok(());
    }
    Err(OpenError::SealedDigest { observed, required })
}

fn check_recipient(manifest: &Manifest, key: &RecipientKey) -> Result<(), OpenError> {
    let observed = Octets::from_slice(key.public()).unwrap_or(Octets([0; 32]));
    if manifest.recipients.iter().any(|recipient| recipient.key == observed) {
        return Ok(());
    }
    Err(OpenError::NotARecipient { observed, recipients: manifest.recipients.len() })
}

fn check_file(name: &'static str, bytes: &[u8], statement: &Statement) -> Result<(), OpenError> {
    let observed = Hash32::of(bytes);
    let subject = statement.subject.iter().find(|subject| subject.name == name);
    match subject.and_then(|subject| subject.sha256()) {
        Some(required) if required == observed => Ok(()),
        other => {
            let required = other.map_or_else(|| "no such file".to_owned(), |hash| hash.to_string());
            Err(OpenError::FileDigest { name, observed, required })
        }
    }
}

/// Step 2: one custodian after the other, and no more than are needed.
fn collect(
    request: &Request<'_>,
    wanted: &unwrap::Wanted<'_>,
    manifest: &Manifest,
    key: &RecipientKey,
) -> Result<(Vec<Share>, Vec<String>), OpenError> {
    let (mut shares, mut names, mut refusals) = (Vec::<Share>::new(), Vec::new(), Vec::new());
    for address in request.brokers {
        if shares.len() >= usize::from(manifest.threshold) {
            break;
        }
        match unwrap::share(address, wanted, key) {
            // Two addresses of one custodian are one custodian.
            Ok(share) if shares.iter().any(|other| other.index() == share.index()) => {}
            Ok(share) => {
                let custodian = manifest.custodian(share.index());
                names.push(custodian.map(|one| one.name.clone()).unwrap_or_default());
                shares.push(share);
            }
            Err(error) => refusals.push((address.clone(), error)),
        }
    }
    if shares.len() < usize::from(manifest.threshold) {
        let (observed, required) = (shares.len(), manifest.threshold);
        return Err(OpenError::Custodians { observed, required, refusals });
    }
    Ok((shares, names))
}

fn write(folder: &Path, package: &Package, page: &str) -> Result<Vec<PathBuf>, FileError> {
    fs::create_dir_all(folder).map_err(FileError::at(folder))?;
    let mut drafts = Vec::new();
    for (name, bytes) in [
        (CONFIG, &*package.config.0),
        (WEIGHTS, &*package.weights.0),
        ("README.md", page.as_bytes()),
    ] {
        let path = folder.join(name);
        let mut draft = Draft::create(&path, Audience::Everyone, Existing::Keep)?;
        draft.write_all(bytes).map_err(FileError::at(&path))?;
        drafts.push((path, draft));
    }
    drafts.into_iter().map(|(path, draft)| draft.publish().map(|()| path)).collect()
}

/// The adapter's page, as model hubs show it.
fn page(manifest: &Manifest, statement: &Statement) -> String {
    let predicate = &statement.predicate;
    let mechanism = &predicate.dp.mechanism;
    let epsilon = (predicate.dp.epsilon.0 * 100.0).ceil() / 100.0;
    let mut page = format!(
        "---\nbase_model: {}\nlibrary_name: peft\ntags: [lora, differential-privacy]\n---\n\n",
        manifest.base.name
    );
    if predicate.simulated {
        // Writing to a string cannot fail.
        let _ =
            writeln!(page, "**{SIMULATED}**: no confidential hardware vouches for this adapter.\n");
    }
    let _ = write!(
        page,
        "A LoRA adapter of rank {}, trained on sealed records with differential privacy:\n\
         epsilon <= {epsilon:.2} at delta {}, over {} steps, for each privacy unit.\n\n\
         | | |\n|---|---|\n| manifest | `{}` |\n| data set | `{}` version {} |\n\
         | judged under | {} |\n| base weights | `{}` |\n",
        manifest.training.adapter.rank,
        mechanism.delta.0,
        mechanism.steps,
        manifest.digest(),
        predicate.dataset.id,
        predicate.dataset.version,
        predicate.evidence.root,
        manifest.base.weights,
    );
    page
}

#[cfg(test)]
mod tests;
