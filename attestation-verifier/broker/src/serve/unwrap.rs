//! UNWRAP and UNWRAPPED: the share of an adapter's key, to one recipient, once per job.
//!
//! Whoever asks, the share is sealed to a key that the manifest names; so asking needs no proof of
//! that key. The first recipient asked for wins, by the ledger; asking again for the same one gives
//! the same bytes.

use std::path::PathBuf;
use std::sync::Arc;

use attestation_verifier::protocol::{Kind, Unwrap, Unwrapped};
use measurement::binding::{adapter_share_info, unwrap_info};
use measurement::cbor::{self, Blob};
use measurement::digest::Digest;
use measurement::log::{self, Event, Record, Refusal};
use measurement::manifest::Manifest;
use measurement::octets::Octets;
use sealed::{Kem, Sealed};
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::receipt::{Held, held_path};
use super::{Line, Shared, Stop, blocking, now};
use crate::owner::files::{self, Audience, Existing};
use crate::random;
use crate::release::Denial;
use crate::store::Store;

const MAX_HELD: u64 = 16 << 10;

/// What was handed out, so that it can be handed out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    attempt: u32,
    ct: Blob,
    enc: Blob,
    index: u8,
    recipient: Octets<32>,
}

pub(super) async fn run(
    channel: &mut Channel,
    length: usize,
    shared: &Arc<Shared>,
    line: &mut Line,
    manifest: &mut Option<Digest<Manifest>>,
) -> Result<(), Stop> {
    let (unwrap, _) = channel.rest::<Unwrap>((Kind::Unwrap, length)).await?;
    *manifest = Some(unwrap.manifest);
    line.job = Some(unwrap.job.to_string());
    line.manifest = Some(unwrap.manifest.to_string());
    line.attempt = Some(unwrap.attempt);
    let unwrapped = blocking(shared, move |shared| hand_out(shared, &unwrap)).await?;
    channel.send(&unwrapped).await?;
    shared.journal.write(&Line { event: "unwrapped", ..line.clone() });
    Ok(())
}

fn hand_out(shared: &Shared, unwrap: &Unwrap) -> Result<Unwrapped, Stop> {
    let (_, manifest) = shared.manifest(&unwrap.manifest)?;
    if manifest.job != unwrap.job {
        let (observed, required) = (manifest.job, unwrap.job);
        return Err(Denial::OtherJob { observed, required }.into());
    }
    if !manifest.recipients.iter().any(|known| known.key == unwrap.recipient) {
        return Err(Denial::Unwrap { what: "the manifest names no such recipient" }.into());
    }
    let mut store = shared.store();
    let held = held(shared, &store, unwrap)?;
    let job = unwrap.job;
    let first = store.fold().unwrapped(&job).cloned();
    let index = match first {
        Some((index, first)) => {
            if (first.recipient, first.attempt) != (unwrap.recipient, unwrap.attempt) {
                let recipient = first.recipient;
                return Err(Denial::Ledger(Refusal::UnwrapRepeated { recipient }).into());
            }
            index
        }
        None => swap(shared, &mut store, unwrap, &held)?,
    };
    let given: Given = read(&given_path(shared, &job))?;
    let proven = store.proven(index);
    let proven = proven.ok_or_else(|| Stop::Unable("the log gave no proof".to_owned()))?;
    Ok(Unwrapped { ct: given.ct, enc: given.enc, index: given.index, unwrap: proven })
}

/// The share that came with the receipt of this attempt and this adapter.
fn held(shared: &Shared, store: &Store, unwrap: &Unwrap) -> Result<Held, Stop> {
    let job = store.fold().state().job(&unwrap.job);
    let Some(receipt) = job.and_then(|job| job.receipt(unwrap.attempt)) else {
        let attempt = unwrap.attempt;
        return Err(Denial::Ledger(Refusal::UnwrapWithoutReceipt { attempt }).into());
    };
    let held: Held = read(&held_path(shared, &unwrap.job, unwrap.attempt))?;
    let same = receipt.sealed_adapter == unwrap.sealed_adapter
        && held.sealed_adapter == unwrap.sealed_adapter
        && held.manifest == unwrap.manifest;
    if same { Ok(held) } else { Err(Denial::Unwrap { what: "another adapter or manifest" }.into()) }
}

/// Seals the share to the recipient, keeps what will be sent, and has the ledger swap.
fn swap(shared: &Shared, store: &mut Store, unwrap: &Unwrap, held: &Held) -> Result<u64, Stop> {
    let Unwrap { attempt, job, recipient, .. } = *unwrap;
    let event = Event::Unwrap(log::Unwrap { attempt, job, recipient });
    let record = Record { event, salt: Octets([0; 32]), time: now() };
    let findings = store.fold().state().findings(&record);
    if !findings.is_empty() {
        return Err(findings.into_iter().map(Denial::Ledger).collect::<Vec<_>>().into());
    }
    let index = held.share.index;
    let wrapped = Sealed { enc: held.share.enc.clone(), ct: held.share.ct.clone() };
    let info = adapter_share_info(&held.manifest, attempt, index);
    let key = shared.identity.unwrap_key();
    let value = key.open(&info, &wrapped).map_err(|_| Denial::Wrapped)?;
    let info = unwrap_info(&held.manifest, attempt, index, &recipient);
    let mut rng = random::fresh()?;
    let sealed = sealed::seal(Kem::X25519, recipient.as_bytes(), &info, &value, &mut rng);
    let Sealed { enc, ct } = sealed.map_err(|_| Denial::Kem)?;
    let given = cbor::encode(&Given { attempt, ct, enc, index, recipient });
    files::write(&given_path(shared, &job), &given, Audience::Owner, Existing::Replace)?;
    let places = store.append(vec![record.event], record.time)?;
    places.first().copied().ok_or_else(|| Stop::Unable("the log gave no place".to_owned()))
}

fn given_path(shared: &Shared, job: &Octets<16>) -> PathBuf {
    shared.folder.join("unwraps").join(format!("{job}.cbor"))
}

fn read<T: Serialize + serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<T, Stop> {
    let bytes = files::read(path, MAX_HELD)?;
    let why = |error| Stop::Unable(format!("{}: {error}", path.display()));
    cbor::decode(&bytes, bytes.len()).map_err(why)
}
