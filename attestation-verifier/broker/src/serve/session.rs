//! HELLO, CHALLENGE, EVIDENCE, RELEASE, CONFIRM: one session, on one connection, in one task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation_verifier::proof::signed;
use attestation_verifier::protocol::{
    self, Challenge, Confirm, Evidence, Hello, Kind, Release, VERSION,
};
use measurement::binding::{Binding, Session};
use measurement::digest::Digest;
use measurement::log::{self, Event};
use measurement::manifest::Manifest;
use measurement::octets::Octets;
use measurement::receipt::ReleaseProof;
use rand_core::Rng as _;
use sealed::Kem;

use super::channel::Channel;
use super::{Line, Shared, Stop, blocking, now};
use crate::envelope::KeyEnvelope;
use crate::owner::files::{self, Audience, Existing};
use crate::random;
use crate::release::{self, Denial, Request};

/// How long a nonce is worth something, in seconds.
const TTL: u32 = 120;

/// A session between CHALLENGE and EVIDENCE. It is moved into the verification, and its nonce with
/// it: a second EVIDENCE finds nothing to be checked against.
struct Begun {
    hello: Hello,
    hello_bytes: Vec<u8>,
    challenge: Challenge,
    challenge_bytes: Vec<u8>,
    channel: [u8; 32],
    envelope: KeyEnvelope,
    kem: Kem,
    recipient: Vec<u8>,
}

impl Begun {
    /// Recomputed from this end of the connection.
    fn binding(&self, shared: &Shared) -> Binding {
        let session = Session {
            nonce: &self.challenge.nonce,
            channel: &self.channel,
            broker: &shared.identity.custodian().tls,
            kem: self.kem.id(),
            recipient: &self.recipient,
            signer: &self.hello.signer,
            manifest: &self.hello.manifest,
            instance: &self.hello.instance,
            hello: &self.hello_bytes,
            challenge: &self.challenge_bytes,
        };
        session.binding()
    }
}

/// What is left of a session between RELEASE and CONFIRM.
struct Granted {
    release: Release,
    signer: Octets<32>,
    attempt: u32,
    root: String,
}

pub(super) async fn run(
    channel: &mut Channel,
    header: (Kind, usize),
    shared: &Arc<Shared>,
    line: &mut Line,
    manifest: &mut Option<Digest<Manifest>>,
) -> Result<(), Stop> {
    let (hello, hello_bytes) = channel.rest::<Hello>(header).await?;
    *manifest = Some(hello.manifest);
    line.job = Some(hello.job.to_string());
    line.manifest = Some(hello.manifest.to_string());
    let binding = *channel.binding();
    let begun = blocking(shared, move |shared| begin(shared, hello, hello_bytes, binding)).await?;
    let deadline = Instant::now() + Duration::from_secs(u64::from(TTL));
    channel.send(&begun.challenge).await?;

    let (evidence, _) = channel.receive::<Evidence>().await?;
    if Instant::now() > deadline {
        return Err(Denial::Nonce.into());
    }
    let granted = blocking(shared, move |shared| grant(shared, begun, &evidence)).await?;
    let bytes = channel.send(&granted.release).await?;
    line.attempt = Some(granted.attempt);
    line.root = Some(granted.root.clone());
    line.release = Some(granted.release.id.to_string());
    shared.journal.write(&Line { event: "released", ..line.clone() });

    let (confirm, _) = channel.receive::<Confirm>().await?;
    blocking(shared, move |shared| confirmed(shared, &granted, &bytes, &confirm)).await?;
    shared.journal.write(&Line { event: "confirmed", ..line.clone() });
    Ok(())
}

/// M1: whose share, for which attempt, sealed how; and a nonce.
fn begin(
    shared: &Shared,
    hello: Hello,
    hello_bytes: Vec<u8>,
    channel: [u8; 32],
) -> Result<Begun, Stop> {
    if hello.version != VERSION {
        return Err(Denial::Version { observed: hello.version, required: VERSION }.into());
    }
    let unknown = Denial::UnknownKey { observed: hello.keys.len() };
    let [key] = hello.keys.as_slice() else { return Err(unknown.into()) };
    let envelope = shared.share(key)?.ok_or(unknown)?;
    let (kem, recipient) = choose(&hello).ok_or(Denial::Kem)?;
    let mut nonce = Octets([0; 32]);
    random::fresh()?.fill_bytes(&mut nonce.0);
    let store = shared.store();
    let challenge = Challenge {
        attempt: store.fold().state().next_attempt(&envelope.dataset, &hello.job),
        checkpoint: store.checkpoint().to_owned(),
        kem: kem.id(),
        nonce,
        policy: shared.policy,
        time: now(),
        ttl: TTL,
    };
    drop(store);
    let challenge_bytes = protocol::encode(&challenge);
    Ok(Begun { hello, hello_bytes, challenge, challenge_bytes, channel, envelope, kem, recipient })
}

/// The best key encapsulation of those offered exactly once with a key of the right length.
fn choose(hello: &Hello) -> Option<(Kem, Vec<u8>)> {
    Kem::ALL.into_iter().find_map(|kem| {
        let mut offered = hello.kems.iter().filter(|offer| offer.kem == kem.id());
        match (offered.next(), offered.next()) {
            (Some(offer), None) if offer.key.0.len() == kem.public_len() => {
                Some((kem, offer.key.0.clone()))
            }
            _ => None,
        }
    })
}

/// M3 to M5: verify, pay, log, and only then hand out.
fn grant(shared: &Shared, begun: Begun, evidence: &Evidence) -> Result<Granted, Stop> {
    let Begun { hello, envelope, kem, recipient, .. } = &begun;
    let launch_blob = &evidence.launch_blob.0;
    let manifest = release::open(launch_blob, hello)?;
    if !evidence.gpus.is_empty() {
        return Err(Denial::Gpus { observed: evidence.gpus.len() }.into());
    }
    if evidence.cpu.tee != hello.tee {
        return Err(Denial::OtherTee.into());
    }
    let request = Request {
        manifest: &manifest,
        approvals: &evidence.approvals.0,
        envelope,
        attempt: begun.challenge.attempt,
    };
    release::decide(&request, &shared.asked(&shared.state()))?;
    let binding = begun.binding(shared);
    let result =
        shared.appraise(&evidence.cpu, &manifest, launch_blob, &binding.report_data(0, None))?;
    let share = envelope.open(shared.identity.unwrap_key()).map_err(Denial::from)?;
    let mut rng = random::fresh()?;

    let mut store = shared.store();
    let asked = shared.asked(store.fold().state());
    // Again, on the ledger as it is now: from here on nobody else writes to it.
    let decision = release::decide(&request, &asked)?;
    let attempt = decision.attempt();
    let grant = decision
        .grant(&result, (&binding, hello.signer), &share, (*kem, recipient), &mut rng)
        .map_err(|_| Denial::Kem)?;
    let place = shared.manifest_path(&manifest.digest());
    files::write(&place, launch_blob, Audience::Owner, Existing::Replace)?;
    let places = store.append(grant.events, now())?;
    let [.., debit, released] = places.as_slice() else {
        return Err(Stop::Unable("the ledger gave no places".to_owned()));
    };
    let (Some(debit), Some(released)) = (store.proven(*debit), store.proven(*released)) else {
        return Err(Stop::Unable("the ledger gave no proof".to_owned()));
    };
    drop(store);
    let release = Release {
        enc: grant.sealed.enc,
        ct: grant.sealed.ct,
        id: grant.id,
        index: grant.index,
        not_after: grant.not_after,
        proof: ReleaseProof { debit, release: released },
    };
    let root = result.root().word(result.tee());
    Ok(Granted { release, signer: hello.signer, attempt, root })
}

/// M6: the enclave says that it opened the release.
fn confirmed(
    shared: &Shared,
    granted: &Granted,
    release: &[u8],
    confirm: &Confirm,
) -> Result<(), Stop> {
    let id = granted.release.id;
    let message = Binding::confirmation(&id, release);
    let by_session = signed(&granted.signer, &message, confirm.signature.as_bytes());
    if confirm.id != id || !by_session {
        return Err(Denial::Signature { over: "the confirmation" }.into());
    }
    let event = Event::Confirm(log::Confirm { release_id: id, signature: confirm.signature });
    shared.store().append(vec![event], now())?;
    Ok(())
}
