//! What the enclave believes of a custodian: nothing that is not proven, whatever keys it holds.
//!
//! The custodian here has its genuine keys, log and share, verifies and pays as it should, and then
//! lies once.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use attestation_verifier::appraise::{AttestationResult, Expected, Verifier};
use attestation_verifier::evidence;
use attestation_verifier::policy::AppraisalPolicy;
use attestation_verifier::protocol::{self, Challenge, Evidence, Hello, Message, Release};
use broker::envelope::KeyEnvelope;
use broker::identity::Identity;
use broker::random;
use broker::release::{Asked, Request, decide};
use broker::store::Store;
use measurement::binding::{ALPN, Binding, EXPORTER_LABEL, Session};
use measurement::cbor::{Blob, Real};
use measurement::digest::{Digest, Hash32};
use measurement::log::{Debit, Event, Release as LoggedRelease};
use measurement::manifest::{Manifest, Tee};
use measurement::octets::Octets;
use measurement::privacy::{self, Mechanism};
use measurement::receipt::ReleaseProof;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sealed::{DataKey, Kem, Share, Threshold};

use crate::peer::{hear, say};
use crate::scene::{Scene, now};

/// What this custodian does instead of what it should; golden until a test changes it.
struct Lie {
    challenge: Change<Challenge>,
    share: Box<dyn Fn(Share) -> Share + Send>,
    logged: ChangeOfLog,
    said: Change<Release>,
}

type Change<T> = Box<dyn Fn(&mut T) + Send>;
type ChangeOfLog = Box<dyn Fn(&mut Debit, &mut LoggedRelease) + Send>;

impl Lie {
    fn none() -> Self {
        Self {
            challenge: Box::new(|_| ()),
            share: Box::new(|share| share),
            logged: Box::new(|_, _| ()),
            said: Box::new(|_| ()),
        }
    }

    fn challenge(lie: impl Fn(&mut Challenge) + Send + 'static) -> Self {
        Self { challenge: Box::new(lie), ..Self::none() }
    }

    fn logged(lie: impl Fn(&mut Debit, &mut LoggedRelease) + Send + 'static) -> Self {
        Self { logged: Box::new(lie), ..Self::none() }
    }

    fn said(lie: impl Fn(&mut Release) + Send + 'static) -> Self {
        Self { said: Box::new(lie), ..Self::none() }
    }
}

/// A custodian in its folder.
struct Custodian {
    identity: Arc<Identity>,
    store: Store,
    envelope: KeyEnvelope,
    policy: AppraisalPolicy,
    lie: Lie,
}

/// The server's side of a TLS connection.
pub type Stream = StreamOwned<ServerConnection, TcpStream>;

/// Accepts one connection as the holder of `identity`'s TLS key would.
pub fn accept(identity: &Identity, mut socket: TcpStream) -> io::Result<(Stream, [u8; 32])> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificate, key) = identity.tls();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    let channel = tls.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
    Ok((StreamOwned::new(tls, socket), channel))
}

impl Custodian {
    fn of(scene: &Scene, lie: Lie) -> Self {
        let identity = Arc::new(scene.identity());
        let policy = String::from_utf8(scene.read("policy.toml")).unwrap();
        Self {
            store: Store::open(&scene.path("custodian"), Arc::clone(&identity)).unwrap(),
            identity,
            envelope: KeyEnvelope::parse(&scene.read("shares/custodian-1.share")).unwrap(),
            policy: AppraisalPolicy::parse(&policy).unwrap(),
            lie,
        }
    }

    /// Serves one session; says what it released, if the peer let it come so far.
    fn start(mut self) -> (SocketAddr, JoinHandle<Option<Release>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = thread::spawn(move || self.serve(listener.accept().unwrap().0));
        (address, serving)
    }

    fn serve(&mut self, socket: TcpStream) -> Option<Release> {
        let (mut stream, channel) = accept(&self.identity, socket).unwrap();
        let (hello, hello_bytes) = hear::<Hello>(&mut stream).unwrap();
        let mut challenge = Challenge {
            attempt: self.store.fold().state().next_attempt(&self.envelope.dataset, &hello.job),
            checkpoint: self.store.checkpoint().to_owned(),
            kem: Kem::X25519.id(),
            nonce: Octets([5; 32]),
            policy: self.policy.digest(),
            time: now(),
            ttl: 120,
        };
        let honest = challenge.clone();
        (self.lie.challenge)(&mut challenge);
        let challenge_bytes = say(&mut stream, &challenge);
        let offered = hello.kems.iter().find(|offer| offer.kem == Kem::X25519.id()).unwrap();
        let binding = Session {
            nonce: &challenge.nonce,
            channel: &channel,
            broker: &self.identity.custodian().tls,
            kem: Kem::X25519.id(),
            recipient: &offered.key.0,
            signer: &hello.signer,
            manifest: &hello.manifest,
            instance: &hello.instance,
            hello: &hello_bytes,
            challenge: &challenge_bytes,
        }
        .binding();
        let evidence = heard::<Evidence>(&mut stream)?;
        let mut release =
            self.release(&evidence, &binding, hello.signer, &offered.key.0, honest.attempt);
        (self.lie.said)(&mut release);
        say(&mut stream, &release);
        // The confirmation, or the end.
        let _ = crate::peer::frame(&mut stream);
        Some(release)
    }

    fn appraise(
        &self,
        evidence: &Evidence,
        manifest: &Manifest,
        binding: &Binding,
    ) -> AttestationResult {
        let images: Vec<_> = manifest.images.iter().map(|image| image.measured).collect();
        let expected = Expected {
            report_data: &binding.report_data(0, None),
            launch_blob: &evidence.launch_blob.0,
            images: &images,
            platforms: &[],
        };
        let endorsements: Vec<_> =
            evidence.cpu.endorsements.iter().map(|blob| blob.0.as_slice()).collect();
        let report = evidence::Evidence { tee: evidence.cpu.tee, report: &evidence.cpu.report.0 };
        let verifier = Verifier::new(self.policy.clone());
        verifier.appraise(&report, &endorsements, &expected, now()).unwrap()
    }

    fn release(
        &mut self,
        evidence: &Evidence,
        binding: &Binding,
        signer: Octets<32>,
        recipient: &[u8],
        attempt: u32,
    ) -> Release {
        let (_, bytes) = measurement::launch::blob::read(&evidence.launch_blob.0).unwrap();
        let manifest = Manifest::parse(&bytes).unwrap();
        let result = self.appraise(evidence, &manifest, binding);
        let share = self.envelope.open(self.identity.unwrap_key()).ok().unwrap();
        let share = (self.lie.share)(share);
        let request = Request {
            manifest: &manifest,
            approvals: &evidence.approvals.0,
            envelope: &self.envelope,
            attempt,
        };
        let asked = Asked {
            custodian: self.identity.custodian(),
            policy: self.policy.digest(),
            state: self.store.fold().state(),
            now: now(),
        };
        let mut grant = decide(&request, &asked)
            .unwrap()
            .grant(
                &result,
                (binding, signer),
                &share,
                (Kem::X25519, recipient),
                &mut random::fresh().unwrap(),
            )
            .unwrap();
        let [.., Event::Debit(debit), Event::Release(logged)] = grant.events.as_mut_slice() else {
            panic!("{:?}", grant.events)
        };
        (self.lie.logged)(debit, logged);
        let places = self.store.append(grant.events, now()).unwrap();
        let [.., debit, logged] = places[..] else { panic!("{places:?}") };
        let proven = |index| self.store.proven(index).unwrap();
        Release {
            enc: grant.sealed.enc,
            ct: grant.sealed.ct,
            id: grant.id,
            index: grant.index,
            not_after: grant.not_after,
            proof: ReleaseProof { debit: proven(debit), release: proven(logged) },
        }
    }
}

/// The next message, unless the enclave hung up.
fn heard<M: Message>(stream: &mut Stream) -> Option<M> {
    let (kind, body) = crate::peer::frame(stream).ok()?;
    Some(protocol::read(kind, &body).unwrap())
}

/// What the enclave says to a custodian that lies like this.
fn believed(scene: &Scene, lie: Lie) -> Result<(), String> {
    let (address, serving) = Custodian::of(scene, lie).start();
    let opened = scene.attest(address).map(drop).map_err(|error| error.to_string());
    serving.join().unwrap();
    opened
}

fn refuses(lies: Vec<(Lie, &str)>) {
    let Some(golden) = Scene::golden(Tee::Snp) else { return };
    for (lie, finding) in lies {
        assert_eq!(believed(&golden.copy(), lie), Err(finding.to_owned()));
    }
}

#[test]
fn believes_a_custodian_that_does_not_lie() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let Some(scene) = Scene::golden(tee) else { return };
        assert_eq!(believed(&scene, Lie::none()), Ok(()));
        assert_eq!(scene.kinds(), ["manifest", "debit", "release"]);
    }
}

#[test]
fn refuses_a_challenge_of_another_policy_attempt_zero_or_a_suite_it_did_not_offer() {
    let finding = |what| format!("the challenge is not for this job: {what}");
    let (policy, attempt, suite) =
        (finding("another policy"), finding("attempt 0"), finding("a kem that was not offered"));
    refuses(vec![
        (Lie::challenge(|one| one.policy = Digest::from_bytes([0; 48])), &policy),
        (Lie::challenge(|one| one.attempt = 0), &attempt),
        (Lie::challenge(|one| one.kem = 0x10), &suite),
    ]);
}

#[test]
fn refuses_a_release_that_is_logged_for_something_else() {
    let finding = |what| format!("the logged release is not of this session: {what}");
    let texts = ["session", "report data", "data key", "signer", "release id", "sealed share"];
    let [session, data, key, signer, id, share] = texts.map(finding);
    let [mechanism, attempt] = ["mechanism", "attempt"].map(finding);
    refuses(vec![
        (Lie::logged(|_, one| one.session = Octets([0; 64])), &session),
        (Lie::logged(|_, one| one.report_data = Octets([0; 64])), &data),
        (Lie::logged(|_, one| one.dek_id = Octets([0; 32])), &key),
        (Lie::logged(|_, one| one.signer = Octets([0; 32])), &signer),
        (Lie::logged(|_, one| one.release_id = Octets([0; 16])), &id),
        (Lie::logged(|_, one| one.sealed_share = Hash32::of(b"other")), &share),
        (Lie::logged(|debit, _| debit.mechanism = cheaper(&debit.mechanism)), &mechanism),
        (Lie::challenge(|one| one.attempt = 2), &attempt),
    ]);
}

/// The same job, as if it had less noise to pay for.
fn cheaper(mechanism: &Mechanism) -> Mechanism {
    let mut terms = privacy::Terms::from(mechanism.clone());
    terms.noise_multiplier = Real(terms.noise_multiplier.0 * 2.0);
    Mechanism::new(terms).unwrap()
}

#[test]
fn opens_nothing_that_is_not_proven_to_be_logged() {
    refuses(vec![
        (
            Lie::said(|one| one.proof.release.record.0[40] ^= 1),
            "release: leaf is of another record",
        ),
        (
            Lie::said(|one| one.proof.debit.record = one.proof.release.record.clone()),
            "release: leaf is of another record",
        ),
        (
            Lie::said(|one| one.proof.release.leaf.0[50] ^= 1),
            "release: leaf is not signed by the custodian's decision key",
        ),
        (
            Lie::said(|one| {
                let checkpoint = &mut one.proof.release.checkpoint;
                *checkpoint = checkpoint.replace("\n3\n", "\n4\n");
            }),
            "release: checkpoint is not signed by the log's key",
        ),
        (
            Lie::said(|one| one.proof.debit = one.proof.release.clone()),
            "release: record is not the debit expected",
        ),
        (
            Lie::said(|one| one.proof.release = one.proof.debit.clone()),
            "release: record is not the release expected",
        ),
    ]);
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let elsewhere = Lie::said(|one| one.proof.release.path[0] = Hash32::of(b"other"));
    let refused = believed(&scene, elsewhere).unwrap_err();
    assert!(refused.starts_with("release: inclusion proof: "), "{refused}");
}

#[test]
fn refuses_a_release_whose_words_are_not_those_in_the_log() {
    let finding = |what| format!("the logged release is not of this session: {what}");
    let [id, share, sealed] = ["release id", "share", "sealed share"].map(finding);
    refuses(vec![
        (Lie::said(|one| one.id = Octets([0; 16])), &id),
        (Lie::said(|one| one.index = 2), &share),
        (Lie::said(|one| one.ct.0[0] ^= 1), &sealed),
        (Lie::said(|one| one.enc = Blob(vec![9; 32])), &sealed),
    ]);
}

#[test]
fn refuses_a_share_that_the_manifest_does_not_commit_to() {
    let other = |_| {
        let mut rng = random::fresh().unwrap();
        let key = DataKey::generate(&mut rng);
        sealed::split(&key, Threshold::new(1, 1).unwrap(), &mut rng).remove(0)
    };
    let lie = Lie { share: Box::new(other), ..Lie::none() };
    refuses(vec![(lie, "the share is not the manifest's")]);
}

#[test]
fn refuses_a_release_replayed_from_an_earlier_session() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let (address, serving) = Custodian::of(&scene, Lie::none()).start();
    scene.attest(address).unwrap();
    let first = serving.join().unwrap().unwrap();
    let replay = Lie::said(move |one| *one = first.clone());
    let refused = believed(&scene, replay).unwrap_err();
    assert_eq!(refused, "the logged release is not of this session: session");
}
