//! RECEIPT and LOGGED: what an attempt came to, believed because hardware vouches for it.
//!
//! 1. The statement is one, and the key it names has signed its envelope.
//! 2. It says what the manifest says, and names a release of ours for this attempt, to this key,
//!    whose lease has not ended.
//! 3. The closing evidence, over this very statement, is acceptable under the same policy.
//! 4. The share of the adapter's key opens.
//! 5. The share is stored, the receipt is logged, and only then is the envelope countersigned.

use std::path::PathBuf;
use std::sync::Arc;

use attestation_verifier::appraise::AttestationResult;
use attestation_verifier::proof::signed;
use attestation_verifier::protocol::{Kind, Logged, Receipt, WrappedShare};
use measurement::binding::{adapter_share_info, closing_report_data};
use measurement::digest::{Digest, Hash32, of};
use measurement::dsse::Envelope;
use measurement::log::{self, Event, Record, Refusal};
use measurement::manifest::{Custodian, Manifest};
use measurement::octets::Octets;
use measurement::privacy::accountant::Accountant;
use measurement::receipt::{ACCOUNTANT, PAYLOAD_TYPE, Predicate, SIMULATED, Statement};
use sealed::Sealed;
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::{Line, Shared, Stop, blocking, now};
use crate::owner::files::{self, Audience, Existing};
use crate::release::Denial;
use crate::store::LoggedRelease;

/// A wrapped share of an adapter's key, and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    pub(super) manifest: Digest<Manifest>,
    pub(super) sealed_adapter: Hash32<of::SealedAdapter>,
    pub(super) share: WrappedShare,
}

pub(super) fn held_path(shared: &Shared, job: &Octets<16>, attempt: u32) -> PathBuf {
    shared.folder.join("receipts").join(format!("{job}-{attempt}.cbor"))
}

pub(super) async fn run(
    channel: &mut Channel,
    length: usize,
    shared: &Arc<Shared>,
    line: &mut Line,
    manifest: &mut Option<Digest<Manifest>>,
) -> Result<(), Stop> {
    let (receipt, _) = channel.rest::<Receipt>((Kind::Receipt, length)).await?;
    let envelope = Envelope::parse(&receipt.envelope.0, PAYLOAD_TYPE);
    let envelope = envelope.map_err(Denial::ReceiptShape)?;
    let statement = Statement::parse(&envelope.payload.0).map_err(Denial::ReceiptShape)?;
    let predicate = &statement.predicate;
    *manifest = Some(predicate.job_manifest.sha384);
    line.job = Some(predicate.job_manifest.job.to_string());
    line.manifest = Some(predicate.job_manifest.sha384.to_string());
    line.attempt = Some(predicate.attempt);
    line.root = Some(predicate.evidence.root.clone());
    let logged = blocking(shared, move |shared| log(shared, &receipt, &envelope, &statement));
    channel.send(&logged.await?).await?;
    shared.journal.write(&Line { event: "receipt", ..line.clone() });
    Ok(())
}

pub(super) fn log(
    shared: &Shared,
    receipt: &Receipt,
    envelope: &Envelope,
    statement: &Statement,
) -> Result<Logged, Stop> {
    let predicate = &statement.predicate;
    let payload = &envelope.payload.0;
    let message = envelope.signed_bytes();
    let by_signer = envelope.signatures.iter().take(1).any(|line| {
        line.keyid == predicate.signer.to_string()
            && signed(&predicate.signer, &message, &line.sig.0)
    });
    if !by_signer {
        return Err(Denial::Signature { over: "the receipt" }.into());
    }
    let (launch_blob, manifest) = shared.manifest(&predicate.job_manifest.sha384)?;
    let me = shared.identity.custodian();
    let release = released(shared, predicate, me)?;
    let index = release.release.share_index;
    let mut denials = of_manifest(predicate, &manifest);
    denials.extend(of_release(predicate, me, &release));
    denials.extend(lease(&release));
    if !denials.is_empty() {
        return Err(denials.into());
    }
    let sessions = &predicate.evidence.sessions;
    let report_data = closing_report_data(payload, &predicate.signer, sessions);
    let result = shared.appraise(&receipt.closing, &manifest, &launch_blob, &report_data)?;
    let denials = of_evidence(predicate, &result);
    if !denials.is_empty() {
        return Err(denials.into());
    }
    let digest = manifest.digest();
    opens(shared, &receipt.share, &digest, predicate.attempt, index)?;

    let sealed_adapter = predicate.outputs.sealed_adapter_sha256;
    let event = Event::Receipt(log::Receipt {
        attempt: predicate.attempt,
        closing: receipt.closing.digest(),
        job: manifest.job,
        sealed_adapter,
        statement: Digest::of(payload),
    });
    let held = Held { manifest: digest, sealed_adapter, share: receipt.share.clone() };
    let place = held_path(shared, &manifest.job, predicate.attempt);
    let mut store = shared.store();
    let record = Record { event, salt: Octets([0; 32]), time: now() };
    let findings = store.fold().state().findings(&record);
    if !findings.is_empty() {
        return Err(findings.into_iter().map(Denial::Ledger).collect::<Vec<_>>().into());
    }
    let bytes = measurement::cbor::encode(&held);
    files::write(&place, &bytes, Audience::Owner, Existing::Replace)?;
    let places = store.append(vec![record.event], record.time)?;
    let proven = places.first().and_then(|index| store.proven(*index));
    let receipt = proven.ok_or_else(|| Stop::Unable("the log gave no proof".to_owned()))?;
    Ok(Logged { countersignature: Octets(shared.identity.decide(&message)), receipt })
}

/// The release of ours that the statement names.
fn released(
    shared: &Shared,
    predicate: &Predicate,
    me: &Custodian,
) -> Result<LoggedRelease, Denial> {
    let ours = predicate.releases.iter().filter(|claim| claim.custodian == me.decision);
    let [claim] = ours.collect::<Vec<_>>()[..] else {
        return Err(Denial::Receipt { what: "our release" });
    };
    let store = shared.store();
    let logged = store.fold().release(&claim.id);
    let same = |logged: &&LoggedRelease| {
        logged.index == claim.release_index
            && logged.release.debit == claim.debit_index
            && logged.release.attempt == predicate.attempt
    };
    logged.filter(same).cloned().ok_or(Denial::Receipt { what: "our release" })
}

/// What the statement repeats of the manifest, and what follows from it.
fn of_manifest(predicate: &Predicate, manifest: &Manifest) -> Vec<Denial> {
    let mut accountant = Accountant::new();
    let composed = accountant.compose(&manifest.privacy);
    let epsilon = composed.and_then(|()| accountant.epsilon(manifest.privacy.delta.0));
    let dataset = &predicate.dataset;
    let plan = &manifest.audit;
    let planned = (plan.canaries > 0).then_some((plan.canaries, plan.guesses));
    let audited = predicate.canary_audit.as_ref().map(|audit| (audit.canaries, audit.guesses));
    mismatches([
        ("job", predicate.job_manifest.job == manifest.job),
        ("sequence", predicate.job_manifest.sequence == manifest.sequence),
        ("canary audit", audited == planned),
        ("base model", predicate.base_model == manifest.base),
        ("data set", dataset.id == manifest.dataset.id),
        ("data set's version", dataset.version == manifest.dataset.version),
        ("data set's root", dataset.ciphertext_root == manifest.dataset.root),
        ("mechanism", predicate.dp.mechanism == manifest.privacy),
        ("accountant", predicate.dp.accountant == ACCOUNTANT),
        ("epsilon", epsilon.is_ok_and(|e| e.to_bits() == predicate.dp.epsilon.0.to_bits())),
        ("steps", predicate.run.steps == manifest.privacy.steps),
    ])
}

fn of_release(predicate: &Predicate, me: &Custodian, logged: &LoggedRelease) -> Vec<Denial> {
    let release = &logged.release;
    let claims = predicate.releases.iter().map(|claim| claim.custodian);
    let place = claims.zip(&predicate.evidence.sessions).find(|(by, _)| *by == me.decision);
    mismatches([
        ("manifest", release.manifest == predicate.job_manifest.sha384),
        ("session", place.is_some_and(|(_, session)| *session == release.session)),
        ("list of sessions", predicate.releases.len() == predicate.evidence.sessions.len()),
        ("root", release.root == predicate.evidence.root),
        ("signer", release.signer == predicate.signer),
        ("simulated", predicate.simulated == (release.root == SIMULATED)),
    ])
}

/// Before the evidence is judged; the ledger looks again when the receipt is logged.
fn lease(logged: &LoggedRelease) -> Option<Denial> {
    let (observed, required) = (now(), logged.release.not_after);
    (observed > required).then_some(Denial::Ledger(Refusal::LeaseEnded { observed, required }))
}

fn of_evidence(predicate: &Predicate, result: &AttestationResult) -> Vec<Denial> {
    mismatches([
        ("kind of evidence", predicate.evidence.tee == result.tee()),
        ("image", predicate.image == *result.measured()),
        ("closing root", predicate.evidence.root == result.root().word(result.tee())),
        ("simulated", predicate.simulated == result.simulated()),
    ])
}

fn mismatches<const N: usize>(terms: [(&'static str, bool); N]) -> Vec<Denial> {
    let differ = terms.into_iter().filter(|(_, same)| !same);
    differ.map(|(what, _)| Denial::Receipt { what }).collect()
}

/// A share that does not open would be found out only when the recipient asks.
fn opens(
    shared: &Shared,
    share: &WrappedShare,
    manifest: &Digest<Manifest>,
    attempt: u32,
    index: u8,
) -> Result<(), Denial> {
    if share.index != index {
        return Err(Denial::Receipt { what: "share's index" });
    }
    let sealed = Sealed { enc: share.enc.clone(), ct: share.ct.clone() };
    let info = adapter_share_info(manifest, attempt, index);
    let opened = shared.identity.unwrap_key().open(&info, &sealed);
    opened.map(drop).map_err(|_| Denial::Wrapped)
}
