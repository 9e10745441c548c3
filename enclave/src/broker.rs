//! AKR/1, the attester's side: one session with one custodian.
//!
//! Nothing a broker says is believed before it is proven: the release must be in the custodian's log,
//! its debit in the data set's ledger, and the share must match its commitment in the manifest.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use attestation_verifier::proof::{self, ProvenRelease};
use attestation_verifier::protocol::{
    self, Challenge, Confirm, Evidence, HEADER, Hello, KEM_X_WING, KEM_X25519, KemKey, Kind,
    Logged, Message, Receipt, Release,
};
use measurement::binding::{self, Binding, Session};
use measurement::cbor::Blob;
use measurement::digest::{Hash32, of};
use measurement::log::Event;
use measurement::manifest::{Custodian, Manifest};
use measurement::octets::Octets;
use measurement::receipt::ReleaseClaim;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng as _;
use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair as _;
use sealed::{Kem, RecipientKey, Sealed, Share};

use crate::platform::Platform;
use crate::tls::Channel;

/// Why a session ends. Stays inside: the host sees at most one halt code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A frame is not the one expected.
    #[error(transparent)]
    Frame(#[from] protocol::BadFrame),
    /// The broker chose what was not offered, or a manifest it does not share.
    #[error("the challenge is not for this job: {0}")]
    Challenge(&'static str),
    /// The pipe or the channel.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The platform.
    #[error(transparent)]
    Platform(#[from] crate::platform::PlatformError),
    /// The broker refused.
    #[error("refused")]
    Refused,
    /// The share is not the one the manifest commits to, or does not open.
    #[error("the share is not the manifest's")]
    Share,
    /// The release is not proven to be logged for this session.
    #[error("release: {0}")]
    Unproven(#[from] proof::Unproven),
    /// The release is logged, but says something else.
    #[error("the logged release is not of this session: {0}")]
    WrongRelease(&'static str),
}

/// What all sessions of an attempt share.
pub struct Attester<'a> {
    /// The manifest.
    pub manifest: &'a Manifest,
    /// The launch blob that holds it.
    pub launch_blob: &'a [u8],
    /// Its approvals.
    pub approvals: &'a [u8],
    /// The key that signs confirmations and the receipt.
    pub signer: &'a Ed25519KeyPair,
    /// Certificates or collateral that the host brought.
    pub endorsements: &'a [Blob],
}

/// What a session yields.
pub struct Opened {
    /// The custodian's share.
    pub share: Share,
    /// Where it is logged.
    pub proof: measurement::receipt::ReleaseProof,
    /// What the receipt says of it.
    pub claim: ReleaseClaim,
    /// The session's binding.
    pub session: Octets<64>,
    /// The attempt that was debited.
    pub attempt: u32,
    /// The root the custodian judged the evidence under, in one word.
    pub root: String,
    /// When the lease ends, by this machine's own clock since it started.
    pub lease: Instant,
}

/// The Ed25519 public key of a pair.
pub fn public_key(pair: &Ed25519KeyPair) -> Octets<32> {
    Octets::from_slice(pair.public_key().as_ref()).unwrap_or(Octets([0; 32]))
}

fn send<M: Message>(stream: &mut impl Write, message: &M) -> io::Result<Vec<u8>> {
    let body = protocol::encode(message);
    stream.write_all(&protocol::frame(M::KIND, &body))?;
    stream.flush()?;
    Ok(body)
}

/// The end of a lease that a custodian grants until `not_after` by its clock, which showed `time`
/// after `asked`: what the wall says here is the host's word, so only time that passes is counted.
fn lease(asked: Instant, time: u64, not_after: u64) -> Result<Instant, SessionError> {
    let length = not_after.checked_sub(time).map(Duration::from_secs);
    let end = length.and_then(|length| asked.checked_add(length));
    end.ok_or(SessionError::WrongRelease("lease"))
}

fn receive<M: Message>(stream: &mut impl Read) -> Result<(M, Vec<u8>), SessionError> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let (kind, length) = protocol::read_header(header)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if kind == Kind::Refused {
        return Err(SessionError::Refused);
    }
    Ok((protocol::read(kind, &body)?, body))
}

impl Attester<'_> {
    /// Runs M1 to M6 over `stream` with the custodian that holds share `index`.
    ///
    /// # Errors
    /// [`SessionError`]; nothing was opened then.
    pub fn release<S: Read + Write>(
        &self,
        stream: S,
        index: u8,
        platform: &mut dyn Platform,
        rng: &mut ChaCha20Rng,
    ) -> Result<Opened, SessionError> {
        let custodian = self.manifest.custodian(index).ok_or(SessionError::Share)?;
        let mut channel = Channel::connect(stream, custodian.tls)?;
        let keys = Kem::ALL.map(|kem| RecipientKey::generate(kem, rng));
        let hello = self.hello(&keys, platform, rng);
        let hello_bytes = send(&mut channel, &hello)?;
        let asked = Instant::now();
        let (challenge, challenge_bytes) = receive::<Challenge>(&mut channel)?;
        let key = self.check(&challenge, &keys)?;
        let session = Session {
            nonce: &challenge.nonce,
            channel: channel.binding(),
            broker: &custodian.tls,
            kem: challenge.kem,
            recipient: key.public(),
            signer: &hello.signer,
            manifest: &hello.manifest,
            instance: &hello.instance,
            hello: &hello_bytes,
            challenge: &challenge_bytes,
        };
        let binding = session.binding();
        let report_data = binding.report_data(0, None);
        let mut cpu = platform.evidence(&report_data)?;
        cpu.endorsements.extend_from_slice(self.endorsements);
        let evidence = Evidence {
            approvals: Blob::from(self.approvals),
            cpu,
            gpus: Vec::new(),
            launch_blob: Blob::from(self.launch_blob),
        };
        send(&mut channel, &evidence)?;
        let (release, release_bytes) = receive::<Release>(&mut channel)?;
        let lease = lease(asked, challenge.time, release.not_after)?;
        let proven = self.prove(&release, custodian, index, &binding, challenge.attempt)?;
        let share = self.open(&release, &proven, index, &binding, &report_data, key)?;
        let message = Binding::confirmation(&release.id, &release_bytes);
        let signature = self.signer.sign(&message);
        let signature = Octets::from_slice(signature.as_ref()).unwrap_or(Octets([0; 64]));
        send(&mut channel, &Confirm { id: release.id, signature })?;
        let claim = ReleaseClaim {
            custodian: custodian.decision,
            debit_index: release.proof.debit.index,
            id: release.id,
            release_index: release.proof.release.index,
        };
        Ok(Opened {
            share,
            proof: release.proof,
            claim,
            session: binding.octets(),
            attempt: proven.debit.attempt,
            root: proven.release.root,
            lease,
        })
    }

    fn hello(
        &self,
        keys: &[RecipientKey; 2],
        platform: &dyn Platform,
        rng: &mut ChaCha20Rng,
    ) -> Hello {
        let mut instance = [0; 16];
        rng.fill_bytes(&mut instance);
        let kems = keys.iter().map(|key| KemKey { kem: key.kem().id(), key: key.public().into() });
        Hello {
            instance: Octets(instance),
            job: self.manifest.job,
            kems: kems.collect(),
            keys: vec![self.manifest.dataset.key],
            manifest: self.manifest.digest(),
            signer: public_key(self.signer),
            tee: platform.tee(),
            version: protocol::VERSION,
        }
    }

    fn check<'k>(
        &self,
        challenge: &Challenge,
        keys: &'k [RecipientKey; 2],
    ) -> Result<&'k RecipientKey, SessionError> {
        if challenge.policy != self.manifest.policy {
            return Err(SessionError::Challenge("another policy"));
        }
        if challenge.attempt == 0 {
            return Err(SessionError::Challenge("attempt 0"));
        }
        let offered = [KEM_X_WING, KEM_X25519].contains(&challenge.kem);
        let key = keys.iter().find(|key| key.kem().id() == challenge.kem);
        key.filter(|_| offered).ok_or(SessionError::Challenge("a kem that was not offered"))
    }

    /// The release and its debit are logged, for this session, attempt, share and ciphertext.
    fn prove(
        &self,
        release: &Release,
        custodian: &Custodian,
        index: u8,
        binding: &Binding,
        attempt: u32,
    ) -> Result<ProvenRelease, SessionError> {
        let manifest = self.manifest;
        let keeper = manifest.custodians.iter().find(|c| c.log == manifest.ledger.log);
        let keeper = keeper.ok_or(SessionError::WrongRelease("nobody keeps the ledger"))?;
        let proven = proof::release(&release.proof, custodian, &manifest.ledger, &keeper.decision)?;
        let sealed = [release.enc.0.as_slice(), release.ct.0.as_slice()].concat();
        let debit = &proven.debit;
        let logged = &proven.release;
        for (what, same) in [
            ("session", logged.session == binding.octets()),
            ("report data", *logged.report_data.as_bytes() == binding.report_data(0, None)),
            ("manifest", logged.manifest == manifest.digest()),
            ("data key", logged.dek_id == manifest.dataset.key),
            ("signer", logged.signer == public_key(self.signer)),
            ("share", logged.share_index == index && release.index == index),
            ("lease", logged.not_after == release.not_after),
            ("release id", logged.release_id == release.id),
            ("sealed share", logged.sealed_share == Hash32::<of::SealedShare>::of(&sealed)),
            ("attempt", debit.attempt == attempt),
            ("data set", debit.dataset == manifest.dataset.id),
            ("job", debit.job == manifest.job),
            ("mechanism", debit.mechanism == manifest.privacy),
        ] {
            if !same {
                return Err(SessionError::WrongRelease(what));
            }
        }
        Ok(proven)
    }

    fn open(
        &self,
        release: &Release,
        proven: &ProvenRelease,
        index: u8,
        binding: &Binding,
        report_data: &[u8; 64],
        key: &RecipientKey,
    ) -> Result<Share, SessionError> {
        let dataset = &self.manifest.dataset;
        let custodians = u8::try_from(self.manifest.custodians.len());
        let info = binding.release_info(&binding::Release {
            report_data,
            manifest: &proven.release.manifest,
            key: &dataset.key,
            index,
            threshold: self.manifest.threshold,
            custodians: custodians.map_err(|_| SessionError::Share)?,
            id: &release.id,
            not_after: release.not_after,
        });
        let sealed = Sealed { enc: release.enc.clone(), ct: release.ct.clone() };
        let value = key.open(&info, &sealed).map_err(|_| SessionError::Share)?;
        let share = Share::from_secret(index, value).map_err(|_| SessionError::Share)?;
        let commitment = dataset.commitments.get(usize::from(index).wrapping_sub(1));
        let commitment = commitment.ok_or(SessionError::Share)?;
        share.verify(&dataset.key, commitment).map_err(|_| SessionError::Share)?;
        Ok(share)
    }

    /// Hands in the receipt on a connection of its own, and checks that it was logged.
    ///
    /// # Errors
    /// [`SessionError`]; the receipt may have been logged all the same.
    pub fn hand_in<S: Read + Write>(
        &self,
        stream: S,
        index: u8,
        receipt: &Receipt,
        signed: &[u8],
        expected: &measurement::log::Receipt,
    ) -> Result<Octets<64>, SessionError> {
        let custodian = self.manifest.custodian(index).ok_or(SessionError::Share)?;
        let mut channel = Channel::connect(stream, custodian.tls)?;
        send(&mut channel, receipt)?;
        let (logged, _) = receive::<Logged>(&mut channel)?;
        let record = proof::record(
            &logged.receipt,
            &custodian.log,
            &custodian.decision,
            &self.manifest.ledger,
        )?;
        if record.event != Event::Receipt(expected.clone()) {
            return Err(SessionError::WrongRelease("receipt"));
        }
        let signature = logged.countersignature;
        if !proof::signed(&custodian.decision, signed, signature.as_bytes()) {
            return Err(SessionError::WrongRelease("countersignature"));
        }
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_counted_from_before_the_challenge_by_what_passes_here() {
        let asked = Instant::now();
        let end = lease(asked, 1_800_000_000, 1_800_000_060).unwrap();
        assert_eq!(end.duration_since(asked), Duration::from_secs(60));
        assert_eq!(lease(asked, 7, 7).unwrap(), asked);
    }

    #[test]
    fn refuses_a_lease_that_ended_before_it_began_or_never_ends() {
        for (time, not_after) in [(8, 7), (0, u64::MAX)] {
            let refused = lease(Instant::now(), time, not_after).unwrap_err();
            assert!(matches!(refused, SessionError::WrongRelease("lease")), "{refused}");
        }
    }
}
