//! What a custodian does by hand: make a folder, take in a share, look at the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use measurement::digest::{Hash32, of};
use measurement::log::{Event, State};
use measurement::manifest::Custodian;
use measurement::octets::Octets;
use serde::Serialize;
use thiserror::Error;

use crate::envelope::{self, EnvelopeError, KeyEnvelope};
use crate::identity::{Identity, IdentityError};
use crate::owner::files::{self, Audience, Existing, FileError};
use crate::serve::share_path;
use crate::store::{self, Store, StoreError};

/// Why a folder was not made or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CustodianError {
    /// The share.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The same key lies here under other terms.
    #[error("a share of key {key} lies here already, under other terms")]
    OtherTerms {
        /// The key.
        key: Octets<32>,
    },
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes keys and an empty log in `folder`.
///
/// # Errors
/// [`CustodianError`]; nothing that is there is replaced.
pub fn init(folder: &Path, name: &str) -> Result<Custodian, CustodianError> {
    let identity = Identity::create(folder, name)?;
    Store::create(folder)?;
    Ok(identity.custodian().clone())
}

/// A share that was taken in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Imported {
    /// How many custodians there are.
    pub custodians: usize,
    /// The data set.
    pub dataset: Octets<16>,
    /// δ at which the budget holds.
    pub delta: f64,
    /// The most that all jobs may cost.
    pub epsilon: f64,
    /// The share's place, from 1.
    pub index: u8,
    /// The data key.
    pub key: Octets<32>,
    /// The public upper bound on the number of privacy units.
    pub max_units: u64,
    /// How many shares rebuild the key.
    pub threshold: u8,
}

/// Takes in the share at `file`: it opens with this custodian's key, and is the one committed to. It
/// is stored as it came, still wrapped. The terms of a share that is here never change.
///
/// # Errors
/// [`CustodianError`].
pub fn import(folder: &Path, file: &Path) -> Result<Imported, CustodianError> {
    let identity = Identity::load(folder)?;
    let cap = u64::try_from(envelope::MAX_BYTES).unwrap_or(u64::MAX);
    let bytes = files::read(file, cap)?;
    let envelope = KeyEnvelope::parse(&bytes)?;
    drop(envelope.open(identity.unwrap_key())?);
    let place = share_path(folder, &envelope.key);
    if place.exists() {
        if files::read(&place, cap)? != bytes {
            return Err(CustodianError::OtherTerms { key: envelope.key });
        }
    } else {
        files::write(&place, &bytes, Audience::Owner, Existing::Keep)?;
    }
    Ok(Imported {
        custodians: envelope.commitments.len(),
        dataset: envelope.dataset,
        delta: envelope.budget.delta.0,
        epsilon: envelope.budget.epsilon.0,
        index: envelope.index,
        key: envelope.key,
        max_units: envelope.max_units,
        threshold: envelope.threshold,
    })
}

/// What the log adds up to.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    /// Records in the log.
    pub size: u64,
    /// Its root.
    pub root: Hash32<of::Node>,
    /// By data set.
    pub datasets: Vec<Spent>,
    /// Requests that were refused and logged, by code.
    pub denials: BTreeMap<String, u64>,
}

/// What a data set paid.
#[derive(Clone, Debug, Serialize)]
pub struct Spent {
    /// The data set.
    pub dataset: Octets<16>,
    /// Attempts paid for.
    pub debits: usize,
    /// An upper bound of ε over all of them.
    pub epsilon: Option<f64>,
    /// δ at which it holds: the owner's, or where no share lies here, the largest of the jobs.
    pub delta: Option<f64>,
    /// The owner's ε.
    pub budget: Option<f64>,
    /// Its jobs.
    pub jobs: Vec<JobSpent>,
}

/// What became of a job.
#[derive(Clone, Debug, Serialize)]
pub struct JobSpent {
    /// The job.
    pub job: Octets<16>,
    /// Attempts paid for.
    pub attempts: u32,
    /// Attempts that ended with a receipt.
    pub receipts: Vec<u32>,
    /// Who was handed the adapter's key.
    pub unwrapped: Option<Octets<32>>,
}

/// Folds the log in `folder`, whether or not a service runs on it.
///
/// # Errors
/// [`CustodianError`].
pub fn ledger(folder: &Path) -> Result<Ledger, CustodianError> {
    let (fold, checkpoint) = store::view(folder)?;
    let caps = caps(folder)?;
    let mut jobs = BTreeMap::<_, BTreeSet<_>>::new();
    let mut denials = BTreeMap::<_, u64>::new();
    for event in fold.events() {
        match event {
            Event::Debit(debit) => {
                jobs.entry(debit.dataset).or_default().insert(debit.job);
            }
            Event::Deny(deny) => *denials.entry(deny.code.as_str().to_owned()).or_default() += 1,
            _ => {}
        }
    }
    let spent = |(dataset, jobs)| spent(fold.state(), dataset, jobs, caps.get(&dataset));
    let datasets = jobs.into_iter().map(spent).collect();
    Ok(Ledger { size: checkpoint.size, root: checkpoint.root, datasets, denials })
}

fn spent(
    state: &State,
    dataset: Octets<16>,
    jobs: BTreeSet<Octets<16>>,
    cap: Option<&(f64, f64)>,
) -> Spent {
    let mechanisms = state.mechanisms(&dataset);
    let deltas = mechanisms.iter().map(|mechanism| mechanism.delta.0);
    let delta = cap.map(|(_, delta)| *delta).or_else(|| deltas.reduce(f64::max));
    let spent = state.spent(&dataset).ok();
    let epsilon = delta.and_then(|delta| spent?.epsilon(delta).ok());
    Spent {
        dataset,
        debits: mechanisms.len(),
        epsilon,
        delta,
        budget: cap.map(|(epsilon, _)| *epsilon),
        jobs: jobs.into_iter().map(|job| of_job(state, &dataset, job)).collect(),
    }
}

fn of_job(state: &State, dataset: &Octets<16>, id: Octets<16>) -> JobSpent {
    let job = state.job(&id);
    let attempts = job.map_or(0, |job| job.attempts(dataset));
    let ended = |attempt: &u32| job.is_some_and(|job| job.receipt(*attempt).is_some());
    let unwrapped = job.and_then(|job| job.unwrapped()).map(|unwrap| unwrap.recipient);
    JobSpent { job: id, attempts, receipts: (1..=attempts).filter(ended).collect(), unwrapped }
}

/// ε and δ of the owners whose shares lie here, the strictest where there are several.
fn caps(folder: &Path) -> Result<BTreeMap<Octets<16>, (f64, f64)>, CustodianError> {
    let mut caps = BTreeMap::new();
    let shares = folder.join("shares");
    for entry in fs::read_dir(&shares).map_err(FileError::at(&shares))? {
        let path = entry.map_err(FileError::at(&shares))?.path();
        if path.extension().is_none_or(|extension| extension != "share") {
            continue;
        }
        let cap = u64::try_from(envelope::MAX_BYTES).unwrap_or(u64::MAX);
        let envelope = KeyEnvelope::parse(&files::read(&path, cap)?)?;
        let this = (envelope.budget.epsilon.0, envelope.budget.delta.0);
        let there = caps.entry(envelope.dataset).or_insert(this);
        if this.0 < there.0 {
            *there = this;
        }
    }
    Ok(caps)
}

/// A number for people, rounded up to three decimals: what it bounds is never above it.
#[must_use]
pub fn up(epsilon: f64) -> String {
    format!("{:.3}", (epsilon * 1000.0).ceil() / 1000.0)
}
