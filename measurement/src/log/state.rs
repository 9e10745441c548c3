//! The ledger: a fold of the log, and nothing that is not in the log.
//!
//! It keeps mechanisms, never a scalar ε, and refuses a record that would let privacy be spent
//! twice or a plaintext leave twice. There is no record that gives budget back.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::record::{Accepted, Commit, Confirm, Debit, Event, Receipt, Record, Release, Unwrap};
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::octets::Octets;
use crate::privacy::Mechanism;
use crate::privacy::accountant::{Accountant, AccountantError};

/// What the records of one ledger log add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    size: u64,
    datasets: BTreeMap<Octets<16>, Dataset>,
    /// By index of the leaf.
    debits: BTreeMap<u64, Debit>,
    jobs: BTreeMap<Octets<16>, Job>,
    /// By release identifier.
    releases: BTreeMap<Octets<16>, Lease>,
    /// Debit, data key and share index of every release.
    shares: BTreeSet<(u64, Octets<32>, u8)>,
}

/// What the ledger knows of a data set.
#[derive(Clone, Debug, Default, PartialEq)]
struct Dataset {
    /// The manifest accepted last.
    manifest: Option<Accepted>,
    mechanisms: Vec<Mechanism>,
}

/// What the ledger knows of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    /// Whether the enclave said that it opened the share.
    confirmed: bool,
    not_after: u64,
}

/// What the ledger knows of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// Last attempt paid for, by data set.
    attempts: BTreeMap<Octets<16>, u32>,
    /// When the first lease of an attempt ends, by attempt.
    leases: BTreeMap<u32, u64>,
    commits: BTreeMap<u32, Commit>,
    receipts: BTreeMap<u32, Receipt>,
    unwrapped: Option<Unwrap>,
}

impl Job {
    /// The number of attempts that `dataset` paid for.
    pub fn attempts(&self, dataset: &Octets<16>) -> u32 {
        self.attempts.get(dataset).copied().unwrap_or(0)
    }

    /// Whether a share of a data key left for the attempt.
    pub fn released(&self, attempt: u32) -> bool {
        self.leases.contains_key(&attempt)
    }

    /// When the attempt's lease ends, in seconds since 1970: the first one, where several shares left.
    pub fn lease(&self, attempt: u32) -> Option<u64> {
        self.leases.get(&attempt).copied()
    }

    /// The last checkpoint taken in for the attempt.
    pub fn commit(&self, attempt: u32) -> Option<&Commit> {
        self.commits.get(&attempt)
    }

    /// The attempt's receipt.
    pub fn receipt(&self, attempt: u32) -> Option<&Receipt> {
        self.receipts.get(&attempt)
    }

    /// Who was handed the key of which adapter.
    pub fn unwrapped(&self) -> Option<&Unwrap> {
        self.unwrapped.as_ref()
    }

    fn paid(&self, attempt: u32) -> bool {
        attempt >= 1 && self.attempts.values().any(|last| *last >= attempt)
    }
}

impl State {
    /// Folds all records of a log, in order.
    ///
    /// # Errors
    /// The first record that must not be there, with everything that is wrong about it.
    pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Self, FoldError> {
        let mut state = Self::default();
        for record in records {
            state.apply(record)?;
        }
        Ok(state)
    }

    /// Number of records folded, which is the index of the next leaf.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is known of a job.
    pub fn job(&self, job: &Octets<16>) -> Option<&Job> {
        self.jobs.get(job)
    }

    /// The number that the next attempt of `job` at `dataset` must carry.
    pub fn next_attempt(&self, dataset: &Octets<16>, job: &Octets<16>) -> u32 {
        self.job(job).map_or(0, |job| job.attempts(dataset)).saturating_add(1)
    }

    /// The debit at a leaf.
    pub fn debit(&self, index: u64) -> Option<&Debit> {
        self.debits.get(&index)
    }

    /// The manifest accepted last for `dataset`: the only one it pays for.
    pub fn manifest(&self, dataset: &Octets<16>) -> Option<&Accepted> {
        self.datasets.get(dataset)?.manifest.as_ref()
    }

    /// Every mechanism that `dataset` paid for, in order.
    pub fn mechanisms(&self, dataset: &Octets<16>) -> &[Mechanism] {
        self.datasets.get(dataset).map_or(&[], |dataset| dataset.mechanisms.as_slice())
    }

    /// The composition of every mechanism that `dataset` paid for.
    ///
    /// # Errors
    /// As [`Accountant::compose`]; the fold refuses the only case.
    pub fn spent(&self, dataset: &Octets<16>) -> Result<Accountant, AccountantError> {
        let mut accountant = Accountant::new();
        for mechanism in self.mechanisms(dataset) {
            accountant.compose(mechanism)?;
        }
        Ok(accountant)
    }

    /// Everything that forbids `record` as the next one; empty when it may be appended.
    pub fn findings(&self, record: &Record) -> Vec<Refusal> {
        match &record.event {
            Event::Commit(commit) => self.judge_commit(commit),
            Event::Confirm(confirm) => self.judge_confirm(confirm, record.time),
            Event::Debit(debit) => self.judge_debit(debit),
            Event::Deny(_) => Vec::new(),
            Event::Manifest(accepted) => self.judge_manifest(accepted),
            Event::Receipt(receipt) => self.judge_receipt(receipt, record.time),
            Event::Release(release) => self.judge_release(release),
            Event::Unwrap(unwrap) => self.judge_unwrap(unwrap),
        }
    }

    /// Folds the next record and returns its index.
    ///
    /// # Errors
    /// [`FoldError`] with everything that forbids it; the state stays as it was.
    pub fn apply(&mut self, record: &Record) -> Result<u64, FoldError> {
        let index = self.size;
        let findings = self.findings(record);
        if !findings.is_empty() {
            return Err(FoldError { index, findings });
        }
        self.take(index, &record.event);
        self.size = index.saturating_add(1);
        Ok(index)
    }

    fn take(&mut self, index: u64, event: &Event) {
        match event {
            Event::Commit(commit) => {
                self.job_mut(commit.job).commits.insert(commit.attempt, commit.clone());
            }
            Event::Confirm(confirm) => {
                if let Some(lease) = self.releases.get_mut(&confirm.release_id) {
                    lease.confirmed = true;
                }
            }
            Event::Debit(debit) => {
                self.job_mut(debit.job).attempts.insert(debit.dataset, debit.attempt);
                self.dataset_mut(debit.dataset).mechanisms.push(debit.mechanism.clone());
                self.debits.insert(index, debit.clone());
            }
            Event::Deny(_) => {}
            Event::Manifest(accepted) => {
                self.dataset_mut(accepted.dataset).manifest = Some(accepted.clone());
            }
            Event::Receipt(receipt) => {
                self.job_mut(receipt.job).receipts.insert(receipt.attempt, receipt.clone());
            }
            Event::Release(release) => {
                let not_after = release.not_after;
                let lease = Lease { confirmed: false, not_after };
                self.releases.insert(release.release_id, lease);
                self.shares.insert((release.debit, release.dek_id, release.share_index));
                if let Some(job) = self.debits.get(&release.debit).map(|debit| debit.job) {
                    let leases = &mut self.job_mut(job).leases;
                    let end = leases.entry(release.attempt).or_insert(not_after);
                    *end = not_after.min(*end);
                }
            }
            Event::Unwrap(unwrap) => {
                self.job_mut(unwrap.job).unwrapped = Some(unwrap.clone());
            }
        }
    }

    fn dataset_mut(&mut self, dataset: Octets<16>) -> &mut Dataset {
        self.datasets.entry(dataset).or_default()
    }

    fn job_mut(&mut self, job: Octets<16>) -> &mut Job {
        self.jobs.entry(job).or_default()
    }

    fn judge_manifest(&self, accepted: &Accepted) -> Vec<Refusal> {
        let mut findings = Vec::new();
        if let Some(last) = self.manifest(&accepted.dataset) {
            let (observed, required) = (accepted.sequence, last.sequence);
            if observed < required {
                findings.push(Refusal::SequenceWentDown { observed, required });
            } else if observed == required && accepted != last {
                findings.push(Refusal::SequenceTaken { sequence: observed });
            }
        }
        findings
    }

    fn judge_debit(&self, debit: &Debit) -> Vec<Refusal> {
        let mut findings = Vec::new();
        let accepted = self.manifest(&debit.dataset);
        if accepted.is_none_or(|last| (last.job, last.manifest) != (debit.job, debit.manifest)) {
            findings.push(Refusal::ManifestNotAccepted { manifest: debit.manifest });
        }
        let (observed, required) = (debit.attempt, self.next_attempt(&debit.dataset, &debit.job));
        if observed != required {
            findings.push(Refusal::AttemptOutOfOrder { observed, required });
        }
        let before = self.mechanisms(&debit.dataset).first();
        if before.is_some_and(|before| before.unit != debit.mechanism.unit) {
            findings.push(Refusal::OtherUnit { dataset: debit.dataset });
        }
        findings
    }

    fn judge_release(&self, release: &Release) -> Vec<Refusal> {
        let mut findings = Vec::new();
        match self.debit(release.debit) {
            None => findings.push(Refusal::ReleaseWithoutDebit { debit: release.debit }),
            Some(debit) => {
                if (debit.attempt, debit.manifest) != (release.attempt, release.manifest) {
                    findings.push(Refusal::ReleaseOfOtherDebit { debit: release.debit });
                }
            }
        }
        if self.shares.contains(&(release.debit, release.dek_id, release.share_index)) {
            findings.push(Refusal::DebitUsed { debit: release.debit });
        }
        if self.releases.contains_key(&release.release_id) {
            findings.push(Refusal::ReleaseRepeated { release_id: release.release_id });
        }
        findings
    }

    fn judge_confirm(&self, confirm: &Confirm, time: u64) -> Vec<Refusal> {
        let release_id = confirm.release_id;
        let Some(lease) = self.releases.get(&release_id) else {
            return [Refusal::ConfirmWithoutRelease { release_id }].into();
        };
        let mut findings = Vec::new();
        if lease.confirmed {
            findings.push(Refusal::ConfirmRepeated { release_id });
        }
        findings.extend(ended(lease.not_after, time));
        findings
    }

    fn judge_commit(&self, commit: &Commit) -> Vec<Refusal> {
        let mut findings = self.unpaid(&commit.job, commit.attempt);
        let last = self.job(&commit.job).and_then(|job| job.commit(commit.attempt));
        if let Some(last) = last.filter(|last| commit.step <= last.step) {
            findings.push(Refusal::StepWentDown { observed: commit.step, required: last.step });
        }
        findings
    }

    fn judge_receipt(&self, receipt: &Receipt, time: u64) -> Vec<Refusal> {
        let attempt = receipt.attempt;
        let mut findings = self.unpaid(&receipt.job, attempt);
        let job = self.job(&receipt.job);
        match job.and_then(|job| job.lease(attempt)) {
            None => findings.push(Refusal::ReceiptWithoutRelease { attempt }),
            Some(not_after) => findings.extend(ended(not_after, time)),
        }
        if job.is_some_and(|job| job.receipt(attempt).is_some()) {
            findings.push(Refusal::ReceiptRepeated { attempt });
        }
        findings
    }

    fn judge_unwrap(&self, unwrap: &Unwrap) -> Vec<Refusal> {
        let mut findings = Vec::new();
        let job = self.job(&unwrap.job);
        if job.and_then(|job| job.receipt(unwrap.attempt)).is_none() {
            findings.push(Refusal::UnwrapWithoutReceipt { attempt: unwrap.attempt });
        }
        if let Some(first) = job.and_then(Job::unwrapped) {
            findings.push(Refusal::UnwrapRepeated { recipient: first.recipient });
        }
        findings
    }

    fn unpaid(&self, job: &Octets<16>, attempt: u32) -> Vec<Refusal> {
        match self.job(job) {
            Some(job) if job.paid(attempt) => Vec::new(),
            _ => [Refusal::AttemptUnpaid { attempt }].into(),
        }
    }
}

fn ended(not_after: u64, time: u64) -> Option<Refusal> {
    let ended = Refusal::LeaseEnded { observed: time, required: not_after };
    (time > not_after).then_some(ended)
}

/// A record that must not follow the ones before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {index}: {}", list(.findings))]
pub struct FoldError {
    /// Index of the record.
    pub index: u64,
    /// Everything that is wrong about it; never empty.
    pub findings: Vec<Refusal>,
}

fn list(findings: &[Refusal]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// One reason why a record must not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Attempts are numbered 1, 2, 3, ... at every data set.
    #[error("the attempt is number {observed}, the next one is {required}")]
    AttemptOutOfOrder {
        /// Number in the record.
        observed: u32,
        /// Number that is next.
        required: u32,
    },
    /// No data set paid for the attempt.
    #[error("attempt {attempt} has no debit")]
    AttemptUnpaid {
        /// The attempt.
        attempt: u32,
    },
    /// A release is confirmed once.
    #[error("release {release_id} is confirmed already")]
    ConfirmRepeated {
        /// The release.
        release_id: Octets<16>,
    },
    /// Only what was released can be confirmed.
    #[error("release {release_id} is not in the log")]
    ConfirmWithoutRelease {
        /// The release.
        release_id: Octets<16>,
    },
    /// A debit pays for one release of each share: a restart is a new debit.
    #[error("the share was released for the debit at leaf {debit} already")]
    DebitUsed {
        /// Leaf of the debit.
        debit: u64,
    },
    /// Nothing of an attempt is taken in after its lease.
    #[error("the lease ended at {required}, this is at {observed}")]
    LeaseEnded {
        /// When the record was made, seconds since 1970.
        observed: u64,
        /// When the lease ended.
        required: u64,
    },
    /// Only the manifest accepted last for the data set can be paid for.
    #[error("manifest {manifest} is not the one accepted last for the job and data set")]
    ManifestNotAccepted {
        /// Manifest in the record.
        manifest: Digest<Manifest>,
    },
    /// All mechanisms of a data set hide the same unit, or they do not compose.
    #[error("the mechanism hides another unit than those before it at data set {dataset}")]
    OtherUnit {
        /// The data set.
        dataset: Octets<16>,
    },
    /// An attempt ends once.
    #[error("attempt {attempt} has a receipt already")]
    ReceiptRepeated {
        /// The attempt.
        attempt: u32,
    },
    /// Nothing can come of data that was not released.
    #[error("no share was released for attempt {attempt}")]
    ReceiptWithoutRelease {
        /// The attempt.
        attempt: u32,
    },
    /// The debit is of another attempt or manifest.
    #[error("the debit at leaf {debit} is of another attempt or manifest")]
    ReleaseOfOtherDebit {
        /// Leaf of the debit.
        debit: u64,
    },
    /// Release identifiers are unique.
    #[error("release {release_id} is in the log already")]
    ReleaseRepeated {
        /// The release.
        release_id: Octets<16>,
    },
    /// Pay first.
    #[error("leaf {debit} is not a debit")]
    ReleaseWithoutDebit {
        /// Leaf where the debit should be.
        debit: u64,
    },
    /// Two manifests of a job have the same number.
    #[error("manifest sequence {sequence} belongs to another manifest")]
    SequenceTaken {
        /// The number.
        sequence: u64,
    },
    /// Manifests do not go back.
    #[error("manifest sequence went down to {observed} from {required}")]
    SequenceWentDown {
        /// Number in the record.
        observed: u64,
        /// Number reached before.
        required: u64,
    },
    /// Checkpoints go forward.
    #[error("step {observed} was committed after step {required}")]
    StepWentDown {
        /// Step in the record.
        observed: u32,
        /// Step reached before.
        required: u32,
    },
    /// One plaintext per job.
    #[error("the job's adapter was unwrapped already, for {recipient}")]
    UnwrapRepeated {
        /// Who has it.
        recipient: Octets<32>,
    },
    /// Only the adapter of a receipt is handed out.
    #[error("attempt {attempt} has no receipt")]
    UnwrapWithoutReceipt {
        /// The attempt.
        attempt: u32,
    },
}
