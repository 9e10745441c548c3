//! `plan`: everything resolved, priced and written down, before anything is spent.
//!
//! 1. The data set: its root recomputed, and its terms the same as job.toml's.
//! 2. The images, the base model, the appraisal policy, the keys: their digests.
//! 3. The mechanism: the smallest physical batch that costs almost nothing of δ, then the smallest
//!    noise that keeps ε. What that costs at the owner's δ must be within the owner's budget.
//! 4. The manifest, its launch blob, and a listing for people.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use attestation_verifier::policy::{AppraisalPolicy, PolicyError};
use attestation_verifier::root::Root;
use measurement::cbor::Real;
use measurement::launch::Measured;
use measurement::launch::blob::{self, Algorithm};
use measurement::manifest::{
    self, Custodian, Image, LedgerTerms, Manifest, ManifestError, Recipient, Tee, Training,
    Validity,
};
use measurement::octets::Octets;
use measurement::privacy::accountant::{
    Accountant, AccountantError, smallest_physical_batch, solve_noise_multiplier,
};
use measurement::privacy::{Mechanism, OutOfRange, Terms};
use rand_core::Rng;
use thiserror::Error;

use super::base::{self, BaseError, Shape};
use super::dataset::{DatasetError, Facts, Sidecar};
use super::files::{self, Audience, Existing, FileError};
use super::image::{self, ImageError};
use super::job::Job;
use super::keys::{KeyError, PublicKey, Purpose};
use crate::random::{self, NoRandomness};

mod listing;

pub use listing::Listing;

const MAX_POLICY: u64 = 256 * 1024;
/// A custodian's clock may be behind by this, in seconds.
const CLOCK_SKEW: u64 = 300;
const DAY: u64 = 86_400;

/// What is to be planned.
pub struct Request<'a> {
    /// The job.
    pub job: &'a Job,
    /// Image folders.
    pub images: &'a [PathBuf],
    /// The base model's folder.
    pub base: &'a Path,
    /// The sealed data set.
    pub dataset: &'a Path,
    /// The appraisal policy.
    pub policy: &'a Path,
    /// The custodians, in any order.
    pub custodians: &'a [Custodian],
    /// The folder for what is written.
    pub out: &'a Path,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// A setting of job.toml that the sealed data set contradicts.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{setting} is {observed}, the data set was sealed for {required}")]
pub struct Disagreement {
    /// The setting.
    pub setting: &'static str,
    /// Its value.
    pub observed: String,
    /// What the data set says.
    pub required: String,
}

/// Why there is no plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No noise, or no batch, does what is asked.
    #[error("privacy: {0}")]
    Accountant(#[from] AccountantError),
    /// The base model.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The job would cost more than the owner allows.
    #[error("{setting} is {allowed}, the job costs {observed}")]
    Budget {
        /// The setting.
        setting: &'static str,
        /// What the job costs.
        observed: f64,
        /// What the owner allows.
        allowed: f64,
    },
    /// Other custodians than those the data set was sealed for.
    #[error("the custodians are {}, the data set was sealed for {}", observed.join(", "), required.join(", "))]
    Custodians {
        /// Names of those given.
        observed: Vec<String>,
        /// Names of those the data set was sealed for.
        required: Vec<String>,
    },
    /// The data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// job.toml and the data set do not agree; everywhere.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Disagree(Vec<Disagreement>),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A public key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No such custodian.
    #[error("ledger.custodian is {name:?}, which is not among the custodians")]
    Ledger {
        /// The name in job.toml.
        name: String,
    },
    /// The manifest cannot be run.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The mechanism cannot be; everything about it.
    #[error("privacy: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Mechanism(Vec<OutOfRange>),
    /// The optimiser has not the fields of its kind.
    #[error("train.optimiser has not the fields of its kind")]
    Optimiser,
    /// The appraisal policy.
    #[error("{}: {source}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PolicyError,
    },
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The model cannot hold the examples.
    #[error("train.sequence is {observed}, the base model holds {allowed} tokens")]
    Sequence {
        /// The setting.
        observed: u32,
        /// The model's.
        allowed: u32,
    },
    /// The threat model is not TOML.
    #[error("{}: {problem}", path.display())]
    Threat {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        problem: String,
    },
}

/// A plan, written down.
#[derive(Debug)]
pub struct Plan {
    /// The manifest.
    pub manifest: Manifest,
    /// What it says, for people.
    pub listing: Listing,
    /// The files written.
    pub files: Vec<PathBuf>,
}

/// Plans a job.
///
/// # Errors
/// [`PlanError`]; then nothing is written.
pub fn plan(request: &Request<'_>) -> Result<Plan, PlanError> {
    let images = request.images.iter().map(|folder| image::read(folder));
    compose(request, images.collect::<Result<_, _>>()?)
}

fn compose(request: &Request<'_>, images: Vec<Image>) -> Result<Plan, PlanError> {
    let job = request.job;
    let (sidecar, custodians) = dataset(request)?;
    let (base, shape) = base::read(request.base, &job.base.name)?;
    if let Some(allowed) = shape.positions.filter(|allowed| job.train.sequence > *allowed) {
        return Err(PlanError::Sequence { observed: job.train.sequence, allowed });
    }
    let policy = read_policy(request.policy)?;
    let threat = read_threat(&job.path(&job.job.threat))?;
    let privacy = mechanism(job)?;
    let costs = costs(&privacy, job)?;
    let training = training(job, &shape)?;
    let mut identity = [0; 16];
    random::fresh()?.fill_bytes(&mut identity);
    let manifest = Manifest::write(&manifest::Terms {
        approvals: job.approval.required,
        approvers: public_keys(job, &job.approval.approvers, Purpose::Approve)?
            .into_iter()
            .map(|public| public.key)
            .collect(),
        audit: job.audit,
        base,
        ledger: ledger(job, &custodians)?,
        custodians,
        dataset: sidecar.dataset,
        gpus: 0,
        images,
        job: Octets(identity),
        platforms: Vec::new(),
        policy: policy.digest(),
        privacy,
        recipients: public_keys(job, &job.output.recipients, Purpose::Receive)?
            .into_iter()
            .map(|PublicKey { key, name, .. }| Recipient { key, name })
            .collect(),
        sequence: job.job.sequence,
        threshold: sidecar.threshold,
        training,
        valid: validity(request),
        version: manifest::VERSION,
    })?;
    let listing = Listing::new(&manifest, job, costs, &policy, threat);
    let files = write(request.out, &manifest, &listing)?;
    Ok(Plan { manifest, listing, files })
}

fn training(job: &Job, shape: &Shape) -> Result<Training, PlanError> {
    let (optimiser, schedule) = job.optimiser().ok_or(PlanError::Optimiser)?;
    Ok(Training {
        adapter: shape.adapter(&job.train),
        checkpoint: job.train.checkpoint,
        heartbeat: job.train.heartbeat,
        optimiser,
        schedule,
        sequence: job.train.sequence,
    })
}

fn validity(request: &Request<'_>) -> Validity {
    let term = u64::from(request.job.job.valid_days).saturating_mul(DAY);
    Validity {
        not_after: request.now.saturating_add(term),
        not_before: request.now.saturating_sub(CLOCK_SKEW),
    }
}

/// Step 1: what lies beside the data set is believed where the file and job.toml say the same.
/// Returns the custodians in the order of the shares.
fn dataset(request: &Request<'_>) -> Result<(Sidecar, Vec<Custodian>), PlanError> {
    let facts = Facts::read(request.dataset)?;
    let sidecar = Sidecar::read(request.dataset)?;
    let (job, header, dataset) = (request.job, &facts.header, &sidecar.dataset);
    let cap = job.cap();
    let unit = job.open_terms().unit;
    let disagreements: Vec<_> = [
        ("dataset root", dataset.root.to_string(), facts.root.to_string()),
        ("dataset id", dataset.id.to_string(), header.dataset_id.to_string()),
        ("dataset version", dataset.version.to_string(), header.dataset_version.to_string()),
        ("data key", dataset.key.to_string(), header.dek_id.to_string()),
        ("data.capacity", job.data.capacity.to_string(), header.capacity.to_string()),
        ("data.max_records", job.data.max_records.to_string(), header.n_max.to_string()),
        ("data.max_units", job.data.max_units.to_string(), sidecar.max_units.to_string()),
        ("data.unit", format!("{unit:?}"), format!("{:?}", header.privacy_unit)),
        ("budget.epsilon", cap.epsilon.0.to_string(), sidecar.budget.epsilon.0.to_string()),
        ("budget.delta", cap.delta.0.to_string(), sidecar.budget.delta.0.to_string()),
    ]
    .into_iter()
    .filter(|(_, observed, required)| observed != required)
    .map(|(setting, observed, required)| Disagreement { setting, observed, required })
    .collect();
    if !disagreements.is_empty() {
        return Err(PlanError::Disagree(disagreements));
    }
    let custodians = in_order(request.custodians, &sidecar.custodians)?;
    Ok((sidecar, custodians))
}

/// A custodian may have renewed its keys since; its name and its share's place stay.
fn in_order(given: &[Custodian], sealed_for: &[Custodian]) -> Result<Vec<Custodian>, PlanError> {
    let names = |all: &[Custodian]| all.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let find = |one: &Custodian| given.iter().find(|other| other.name == one.name).cloned();
    match sealed_for.iter().map(find).collect::<Option<Vec<_>>>() {
        Some(ordered) if given.len() == sealed_for.len() => Ok(ordered),
        _ => {
            let (observed, required) = (names(given), names(sealed_for));
            Err(PlanError::Custodians { observed, required })
        }
    }
}

fn ledger(job: &Job, custodians: &[Custodian]) -> Result<LedgerTerms, PlanError> {
    let name = job.ledger.custodian.as_ref();
    let keeper = custodians.iter().find(|one| name.is_none_or(|name| *name == one.name));
    let keeper =
        keeper.ok_or_else(|| PlanError::Ledger { name: name.cloned().unwrap_or_default() })?;
    Ok(LedgerTerms { log: keeper.log, quorum: 0, witnesses: Vec::new() })
}

fn read_policy(path: &Path) -> Result<AppraisalPolicy, PlanError> {
    let text = files::read_text(path, MAX_POLICY)?;
    AppraisalPolicy::parse(&text)
        .map_err(|source| PlanError::Policy { path: path.to_owned(), source })
}

fn read_threat(path: &Path) -> Result<listing::Threat, PlanError> {
    let text = files::read_text(path, MAX_POLICY)?;
    toml::from_str(&text).map_err(|e| PlanError::Threat {
        path: path.to_owned(),
        problem: e.to_string().trim_end().to_owned(),
    })
}

fn public_keys(job: &Job, paths: &[PathBuf], purpose: Purpose) -> Result<Vec<PublicKey>, KeyError> {
    paths.iter().map(|path| PublicKey::read(&job.path(path), purpose)).collect()
}

/// Step 3: batch first, noise second.
fn mechanism(job: &Job) -> Result<Mechanism, PlanError> {
    let open = job.open_terms();
    let physical_batch = match job.train.physical_batch {
        Some(batch) => batch,
        None => smallest_physical_batch(job.privacy.epsilon, &open)?,
    };
    let terms = Terms { physical_batch, ..open };
    let sigma = solve_noise_multiplier(job.privacy.epsilon, &terms)?;
    Mechanism::new(Terms { noise_multiplier: Real(sigma), ..terms }).map_err(PlanError::Mechanism)
}

/// ε of the job, at its own δ and at the owner's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// At the job's δ.
    pub epsilon: f64,
    /// At the budget's δ.
    pub at_budget: f64,
}

fn costs(mechanism: &Mechanism, job: &Job) -> Result<Costs, PlanError> {
    let mut spent = Accountant::new();
    spent.compose(mechanism)?;
    let over = |setting, observed, allowed| Err(PlanError::Budget { setting, observed, allowed });
    if job.privacy.delta > job.budget.delta {
        return over("budget.delta", job.privacy.delta, job.budget.delta);
    }
    let epsilon = spent.epsilon(mechanism.delta.0)?;
    let at_budget = spent.epsilon(job.budget.delta)?;
    if at_budget > job.budget.epsilon {
        return over("budget.epsilon", at_budget, job.budget.epsilon);
    }
    Ok(Costs { epsilon, at_budget })
}

/// The kind of evidence an image gives.
fn tee(image: &Image) -> Tee {
    match image.measured {
        Measured::Snp { .. } => Tee::Snp,
        Measured::Tdx { .. } => Tee::Tdx,
    }
}

/// `manifest.cbor`, `listing.txt`, and one launch blob for each platform: `launch.blob` where there
/// is one platform, `launch-snp.blob` and `launch-tdx.blob` where there are two.
fn write(folder: &Path, manifest: &Manifest, listing: &Listing) -> Result<Vec<PathBuf>, FileError> {
    let platforms: BTreeSet<_> = manifest.images.iter().map(tee).collect();
    let mut all = vec![
        ("manifest.cbor", manifest.bytes().to_vec()),
        ("listing.txt", listing.to_string().into_bytes()),
    ];
    for platform in &platforms {
        let (algorithm, own) = match platform {
            Tee::Snp => (Algorithm::Sha256, "launch-snp.blob"),
            Tee::Tdx => (Algorithm::Sha384, "launch-tdx.blob"),
        };
        let name = if platforms.len() == 1 { "launch.blob" } else { own };
        all.push((name, blob::write(manifest.bytes(), algorithm)));
    }
    fs::create_dir_all(folder).map_err(FileError::at(folder))?;
    let mut paths = Vec::new();
    for (name, bytes) in all {
        let path = folder.join(name);
        files::write(&path, &bytes, Audience::Everyone, Existing::Replace)?;
        paths.push(path);
    }
    Ok(paths)
}

/// Names of the simulated roots that a policy believes.
fn simulated_roots(policy: &AppraisalPolicy) -> Vec<String> {
    let name = |root: &Root| match root {
        Root::Simulated(name) => Some(name.clone()),
        _ => None,
    };
    policy.further_roots().filter_map(name).collect()
}

#[cfg(test)]
pub(super) mod tests;
