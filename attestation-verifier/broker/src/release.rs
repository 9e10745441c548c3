//! The release policy: whether this custodian hands its share to this session, and at what price.
//!
//! Steps, cheap ones first; every finding of [`decide`] is collected:
//! 1. [`open`]: the launch blob holds the manifest that was asked for.
//! 2. [`decide`]: enough approvers signed; the manifest holds now, names this custodian and its
//!    policy, and its ledger is this custodian's log; the data set's owner allows the job, and the
//!    ledger accepts it.
//! 3. `Verifier::appraise`, whose result [`Decision::grant`] asks for.
//! 4. [`Decision::grant`]: the share is sealed in memory, and what must be logged before it leaves
//!    is returned beside it.

use std::collections::BTreeSet;

use attestation_verifier::appraise::AttestationResult;
use attestation_verifier::proof::signed;
use attestation_verifier::protocol::Hello;
use measurement::binding::{self, Binding};
use measurement::digest::{Digest, Hash32, of};
use measurement::dsse::Envelope;
use measurement::launch::blob::{self, Algorithm};
use measurement::log::{Accepted, Debit, Event, Record, Release, State};
use measurement::manifest::{Custodian, Manifest, PAYLOAD_TYPE, Tee};
use measurement::octets::Octets;
use rand_core::CryptoRng;
use sealed::{Kem, Sealed, Share, WrapError};

use crate::envelope::KeyEnvelope;

mod denial;

pub use denial::Denial;

/// The longest lease, in seconds: a day, or less where the manifest ends before. The enclave learns
/// its end with the share and halts there; the ledger takes no confirmation and no receipt after it.
pub const LEASE: u64 = 24 * 60 * 60;
/// The most signatures of approvals that are looked at.
const MAX_SIGNATURES: usize = 255;

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The manifest, from the launch blob.
    pub manifest: &'a Manifest,
    /// Its approvals, as they came.
    pub approvals: &'a [u8],
    /// The share that lies here.
    pub envelope: &'a KeyEnvelope,
    /// The attempt that the challenge named.
    pub attempt: u32,
}

/// Who is asked, and when.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// This custodian.
    pub custodian: &'a Custodian,
    /// The policy it appraises by.
    pub policy: Digest<of::Policy>,
    /// Its ledger.
    pub state: &'a State,
    /// Its clock, in seconds since 1970.
    pub now: u64,
}

/// The release policy's yes, before evidence: only [`decide`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    accepted: Accepted,
    new: bool,
    debit: Debit,
    next: u64,
    index: u8,
    threshold: u8,
    custodians: u8,
    key: Octets<32>,
    now: u64,
    /// When the lease will end.
    not_after: u64,
}

/// What was asked for, taken from a launch blob.
///
/// # Errors
/// [`Denial`].
pub fn open(launch_blob: &[u8], hello: &Hello) -> Result<Manifest, Denial> {
    let (algorithm, manifest) = blob::read(launch_blob)?;
    let required = match hello.tee {
        Tee::Snp => Algorithm::Sha256,
        Tee::Tdx => Algorithm::Sha384,
    };
    if algorithm != required {
        return Err(Denial::OtherAlgorithm);
    }
    let manifest = Manifest::parse(&manifest)?;
    let (observed, required) = (manifest.digest(), hello.manifest);
    if observed != required {
        return Err(Denial::OtherManifest { observed, required });
    }
    let (observed, required) = (manifest.job, hello.job);
    if observed != required {
        return Err(Denial::OtherJob { observed, required });
    }
    Ok(manifest)
}

/// Whether the share may be released, should the evidence be acceptable.
///
/// # Errors
/// Every [`Denial`]; never empty.
pub fn decide(request: &Request<'_>, asked: &Asked<'_>) -> Result<Decision, Vec<Denial>> {
    let mut denials = Vec::new();
    denials.extend(approvals(request.manifest, request.approvals).err());
    denials.extend(validity(request.manifest, asked.now));
    denials.extend(named(request.manifest, request.envelope.index, asked));
    denials.extend(key_terms(request.manifest, request.envelope));
    denials.extend(budget(request, asked.state));
    let decision = price(request, asked);
    denials.extend(ledger(&decision, request, asked.state));
    if denials.is_empty() { Ok(decision) } else { Err(denials) }
}

/// Approvals are a DSSE envelope of the manifest's exact bytes; a key counts once.
fn approvals(manifest: &Manifest, json: &[u8]) -> Result<(), Denial> {
    let envelope = Envelope::parse(json, PAYLOAD_TYPE).map_err(Denial::ApprovalsShape)?;
    if envelope.payload.0 != manifest.bytes() {
        return Err(Denial::ApprovalsOfOther);
    }
    let message = envelope.signed_bytes();
    let mut approved = BTreeSet::new();
    for line in envelope.signatures.iter().take(MAX_SIGNATURES) {
        let approver = manifest.approvers.iter().find(|key| key.to_string() == line.keyid);
        if let Some(key) = approver.filter(|key| signed(key, &message, &line.sig.0)) {
            approved.insert(*key);
        }
    }
    if approved.len() < usize::from(manifest.approvals) {
        return Err(Denial::Approvals { observed: approved.len(), required: manifest.approvals });
    }
    Ok(())
}

fn validity(manifest: &Manifest, now: u64) -> Option<Denial> {
    let (from, until) = (manifest.valid.not_before, manifest.valid.not_after);
    if now < from {
        Some(Denial::NotYetValid { from, now })
    } else if now > until {
        Some(Denial::Expired { until, now })
    } else {
        None
    }
}

/// The manifest names this custodian in the share's place, its policy and its log.
fn named(manifest: &Manifest, index: u8, asked: &Asked<'_>) -> Vec<Denial> {
    let mut denials = Vec::new();
    let me = asked.custodian;
    match manifest.custodian(index) {
        None => denials.push(Denial::NotNamed { index, what: "count" }),
        Some(there) => {
            for (what, same) in [
                ("decision key", there.decision == me.decision),
                ("log key", there.log == me.log),
                ("tls key", there.tls == me.tls),
                ("unwrap key", there.unwrap == me.unwrap),
            ] {
                if !same {
                    denials.push(Denial::NotNamed { index, what });
                }
            }
        }
    }
    let (observed, required) = (manifest.policy, asked.policy);
    if observed != required {
        denials.push(Denial::OtherPolicy { observed, required });
    }
    if manifest.ledger.log != me.log {
        denials.push(Denial::LedgerElsewhere { observed: manifest.ledger.log });
    }
    if manifest.ledger.quorum > 0 {
        denials.push(Denial::Witnesses { required: manifest.ledger.quorum });
    }
    if manifest.gpus > 0 {
        denials.push(Denial::Gpus { observed: usize::from(manifest.gpus) });
    }
    denials
}

/// The share is one of those that the manifest speaks of.
fn key_terms(manifest: &Manifest, envelope: &KeyEnvelope) -> Vec<Denial> {
    let dataset = &manifest.dataset;
    let terms = [
        ("data set", dataset.id == envelope.dataset),
        ("data key", dataset.key == envelope.key),
        ("list of commitments", dataset.commitments == envelope.commitments),
        ("threshold", manifest.threshold == envelope.threshold),
    ];
    let differ = terms.into_iter().filter(|(_, same)| !same);
    differ.map(|(what, _)| Denial::DataKey { what }).collect()
}

/// What the data set paid, and this job, stay within what its owner allows.
fn budget(request: &Request<'_>, state: &State) -> Vec<Denial> {
    let mut denials = Vec::new();
    let (mechanism, envelope) = (&request.manifest.privacy, request.envelope);
    let (observed, required) = (mechanism.max_units, envelope.max_units);
    if observed != required {
        denials.push(Denial::MaxUnits { observed, required });
    }
    let allowed = envelope.budget.delta.0;
    if mechanism.delta.0 > allowed {
        denials.push(Denial::Delta { observed: mechanism.delta.0, allowed });
    }
    let total = state.spent(&envelope.dataset).and_then(|mut spent| {
        spent.compose(mechanism)?;
        spent.epsilon(allowed)
    });
    match total {
        Ok(observed) if observed <= envelope.budget.epsilon.0 => {}
        Ok(observed) => {
            denials.push(Denial::Budget { observed, allowed: envelope.budget.epsilon.0 });
        }
        Err(error) => denials.push(error.into()),
    }
    denials
}

fn price(request: &Request<'_>, asked: &Asked<'_>) -> Decision {
    let manifest = request.manifest;
    let (dataset, job, digest) = (manifest.dataset.id, manifest.job, manifest.digest());
    let accepted = Accepted { dataset, job, manifest: digest, sequence: manifest.sequence };
    let debit = Debit {
        attempt: request.attempt,
        dataset,
        job,
        manifest: digest,
        mechanism: manifest.privacy.clone(),
    };
    Decision {
        new: asked.state.manifest(&dataset) != Some(&accepted),
        accepted,
        debit,
        next: asked.state.size(),
        index: request.envelope.index,
        threshold: manifest.threshold,
        custodians: u8::try_from(manifest.custodians.len()).unwrap_or(u8::MAX),
        key: manifest.dataset.key,
        now: asked.now,
        not_after: asked.now.saturating_add(LEASE).min(manifest.valid.not_after),
    }
}

/// The ledger takes the manifest, and then the debit.
fn ledger(decision: &Decision, request: &Request<'_>, state: &State) -> Vec<Denial> {
    let (dataset, job) = (&decision.debit.dataset, &decision.debit.job);
    let (observed, required) = (state.next_attempt(dataset, job), request.attempt);
    if observed != required {
        return vec![Denial::AttemptMoved { observed, required }];
    }
    let record = |event| Record { event, salt: Octets([0; 32]), time: decision.now };
    let mut state = state.clone();
    if decision.new {
        let manifest = record(Event::Manifest(decision.accepted.clone()));
        if let Err(error) = state.apply(&manifest) {
            return error.findings.into_iter().map(Denial::Ledger).collect();
        }
    }
    let debit = record(Event::Debit(decision.debit.clone()));
    state.findings(&debit).into_iter().map(Denial::Ledger).collect()
}

/// A share sealed to a session, and what must be in the log before it leaves.
pub struct Grant {
    /// The release's identity.
    pub id: Octets<16>,
    /// The share's index.
    pub index: u8,
    /// When the lease ends, seconds since 1970.
    pub not_after: u64,
    /// The sealed share.
    pub sealed: Sealed,
    /// A new manifest, if it is one; the debit; the release.
    pub events: Vec<Event>,
}

impl Decision {
    /// Seals `share` to `recipient` in memory, for the session of `binding`, which spoke for `signer`
    /// and whose evidence `result` is about.
    ///
    /// # Errors
    /// [`WrapError::Public`] for a recipient that is no key.
    pub fn grant(
        self,
        result: &AttestationResult,
        (binding, signer): (&Binding, Octets<32>),
        share: &Share,
        (kem, recipient): (Kem, &[u8]),
        rng: &mut impl CryptoRng,
    ) -> Result<Grant, WrapError> {
        let mut id = Octets([0; 16]);
        rng.fill_bytes(&mut id.0);
        let not_after = self.not_after;
        let report_data = result.report_data();
        let info = binding.release_info(&binding::Release {
            report_data,
            manifest: &self.debit.manifest,
            key: &self.key,
            index: self.index,
            threshold: self.threshold,
            custodians: self.custodians,
            id: &id,
            not_after,
        });
        let sealed = share.expose(|value| sealed::seal(kem, recipient, &info, value, rng))?;
        let bytes = [sealed.enc.0.as_slice(), &sealed.ct.0].concat();
        let release = Release {
            attempt: self.debit.attempt,
            debit: self.next.saturating_add(u64::from(self.new)),
            dek_id: self.key,
            manifest: self.debit.manifest,
            not_after,
            release_id: id,
            report_data: Octets(*report_data),
            root: result.root().word(result.tee()),
            sealed_share: Hash32::of(&bytes),
            session: binding.octets(),
            share_index: self.index,
            signer,
        };
        let mut events = Vec::new();
        if self.new {
            events.push(Event::Manifest(self.accepted));
        }
        events.extend([Event::Debit(self.debit), Event::Release(release)]);
        Ok(Grant { id, index: self.index, not_after, sealed, events })
    }

    /// The attempt that is paid for.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.debit.attempt
    }
}

#[cfg(test)]
pub(crate) mod tests;
