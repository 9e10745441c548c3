//! The verdict on a receipt: everything it claims, recomputed from the bytes at hand.
//!
//! 1. The bundle prints back to the same bytes; the statement too, and the key it names signed it.
//! 2. The launch blob holds the manifest, which enough approvers signed and which names the policy.
//! 3. The statement says of job, data set, base model and mechanism what the manifest says.
//! 4. Every release is proven to be logged for this manifest, session, root and signer, and its
//!    debit paid for this mechanism; enough custodians released, and as many countersigned.
//! 5. The log's files are one log, which holds all of that and the receipt.
//! 6. The closing evidence vouches for the statement under the policy, at the time the receipt was
//!    logged; root, image and SIMULATED are what the statement says.
//! 7. The image's parts measure to what the evidence reports.
//! 8. The accountant comes to the same ε, to the bit.
//! 9. Adapter, sealed adapter, data set and base model are the ones named; the adapter holds the
//!    manifest's LoRA parameters and nothing else.
//!
//! All findings are collected; a step is left out only where what it stands on is missing.

use alloc::vec::Vec;

use measurement::digest::{Digest, Hash32, of};
use measurement::manifest::Manifest;
use measurement::receipt::{Bundle, Statement};

use crate::appraise::AttestationResult;
use crate::policy::Waived;

mod adapter;
mod finding;
mod hardware;
mod ledger;
mod outputs;
mod papers;

pub use finding::Finding;
pub use hardware::describe;
pub use ledger::Ledger;
pub use outputs::ADAPTER_PAGE;

use finding::Findings;

/// The closed list of files that leave as an adapter.
pub const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// Gives the bytes of a file of the log, by its path in the log's folder.
pub type Fetch<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// The files of an image folder.
#[derive(Clone, Copy, Debug)]
pub struct ImageFiles<'a> {
    /// `cmdline`.
    pub cmdline: &'a [u8],
    /// `firmware.fd`.
    pub firmware: &'a [u8],
    /// `initrd`.
    pub initrd: &'a [u8],
    /// `kernel`.
    pub kernel: &'a [u8],
    /// `image.json`.
    pub shape: &'a [u8],
}

impl<'a> ImageFiles<'a> {
    /// A file by its name in the folder.
    fn file(&self, name: &str) -> Option<&'a [u8]> {
        Some(match name {
            "cmdline" => self.cmdline,
            "firmware.fd" => self.firmware,
            "image.json" => self.shape,
            "initrd" => self.initrd,
            "kernel" => self.kernel,
            _ => return None,
        })
    }
}

/// What there is to judge. What is `None` is not checked, and whoever reports the verdict says so.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The adapter's files, by name.
    pub adapter: Option<&'a [(&'a str, &'a [u8])]>,
    /// When the evidence is to be judged, in seconds since 1970. Without it: when the receipt was
    /// logged; without a log, when the last share was released. Both are the custodians' word, which
    /// the log keeps them to, so that an old receipt does not turn bad when a certificate expires.
    pub at: Option<u64>,
    /// The base model's files, by name, with their SHA-384.
    pub base: Option<&'a [(&'a str, Digest<of::BaseFile>)]>,
    /// The receipt bundle's exact bytes.
    pub bundle: &'a [u8],
    /// The root of the sealed data set, recomputed from its file.
    pub dataset: Option<Hash32<of::Dataset>>,
    /// The image.
    pub image: ImageFiles<'a>,
    /// The files of the data set's ledger: `checkpoint`, `tile/…`, `records/N.cbor`.
    pub log: Option<Fetch<'a>>,
    /// The manifest's file.
    pub manifest: Option<&'a [u8]>,
    /// The appraisal policy's exact bytes.
    pub policy: &'a [u8],
    /// The sealed adapter's exact bytes.
    pub sealed_adapter: Option<&'a [u8]>,
}

/// A receipt whose every claim holds. Only [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedReceipt {
    attestation: AttestationResult,
    epsilon: f64,
    judged_at: u64,
    ledger: Option<Ledger>,
    manifest: Manifest,
    statement: Statement,
    statement_digest: Digest<of::Statement>,
}

impl VerifiedReceipt {
    /// The verdict on the closing evidence.
    #[must_use]
    pub const fn attestation(&self) -> &AttestationResult {
        &self.attestation
    }

    /// δ.
    #[must_use]
    pub fn delta(&self) -> f64 {
        self.manifest.privacy.delta.0
    }

    /// ε for whoever holds the adapter, recomputed.
    #[must_use]
    pub const fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// The time the evidence was judged at, in seconds since 1970.
    #[must_use]
    pub const fn judged_at(&self) -> u64 {
        self.judged_at
    }

    /// What the log says, where there was one.
    #[must_use]
    pub const fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// The job's manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the hardware was only simulated.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.attestation.simulated()
    }

    /// What the receipt says.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// SHA-384 of the statement's exact bytes: the receipt's name.
    #[must_use]
    pub const fn statement_digest(&self) -> Digest<of::Statement> {
        self.statement_digest
    }

    /// The checks that the policy waived, with its reasons.
    #[must_use]
    pub fn waived(&self) -> &[Waived] {
        self.attestation.waived()
    }
}

/// A receipt whose papers could be read, on its way through the checks.
struct Case<'a> {
    bundle: &'a Bundle,
    manifest: &'a Manifest,
    statement: &'a Statement,
}

/// Judges a receipt. The one door to a [`VerifiedReceipt`].
///
/// # Errors
/// Everything that is wrong with the receipt or with a file it speaks of; never empty.
pub fn verify(inputs: &Inputs<'_>) -> Result<VerifiedReceipt, Vec<Finding>> {
    let mut findings = Findings::default();
    let bundle = findings.take(
        ("receipt.malformed", "receipt", "the receipt"),
        Bundle::parse(inputs.bundle),
        "a receipt that prints back to the same bytes",
    );
    let verified = bundle.and_then(|bundle| judge(inputs, &bundle, &mut findings));
    match verified {
        Some(verified) if findings.0.is_empty() => Ok(verified),
        _ => {
            if findings.0.is_empty() {
                let check = ("receipt.unjudged", "receipt", "the verdict");
                findings.add(check, "none", "one");
            }
            Err(findings.0)
        }
    }
}

fn judge(inputs: &Inputs<'_>, bundle: &Bundle, findings: &mut Findings) -> Option<VerifiedReceipt> {
    let statement = papers::statement(bundle, findings);
    let manifest = papers::manifest(bundle, inputs.manifest, findings)?;
    papers::approvals(&bundle.approvals, &manifest, findings);
    let policy = papers::policy(inputs.policy, &manifest, findings);
    let statement = statement?;
    let case = Case { bundle, manifest: &manifest, statement: &statement };
    case.claims(findings);
    case.countersignatures(findings);
    let released_at = case.releases(findings);
    let ledger = inputs.log.and_then(|fetch| case.log(fetch, findings));
    let epsilon = case.privacy(findings);
    case.image(&inputs.image, findings);
    case.files(inputs, findings);
    let logged_at = ledger.map(|ledger| ledger.receipt_time);
    let judged_at = inputs.at.or(logged_at).or(released_at)?;
    let attestation = case.evidence(&policy?, judged_at, findings)?;
    let statement_digest = Digest::of(&bundle.envelope.payload.0);
    let epsilon = epsilon?;
    Some(VerifiedReceipt {
        attestation,
        epsilon,
        judged_at,
        ledger,
        manifest,
        statement,
        statement_digest,
    })
}

impl Case<'_> {
    fn files(&self, inputs: &Inputs<'_>, findings: &mut Findings) {
        if let Some(sealed) = inputs.sealed_adapter {
            self.sealed_adapter(sealed, findings);
        }
        if let Some(files) = inputs.adapter {
            self.adapter(files, findings);
        }
        if let Some(root) = inputs.dataset {
            self.dataset(root, findings);
        }
        if let Some(files) = inputs.base {
            self.base(files, findings);
        }
    }
}

#[cfg(test)]
mod tests;
