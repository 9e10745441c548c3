use std::io::Read as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use attestation_verifier::protocol::{self, Answer, Kind, Refused, Unwrap, Unwrapped};
use measurement::binding::{ALPN, unwrap_info};
use measurement::cbor::Real;
use measurement::dsse::{Envelope, Signature};
use measurement::launch::Measured;
use measurement::launch::blob::Algorithm;
use measurement::log::{
    Checkpoint, Event, Leaf, Note, NoteSignature, Record, Tree, Unwrap as LoggedUnwrap, origin,
};
use measurement::manifest::{PAYLOAD_TYPE as MANIFEST, Tee};
use measurement::receipt::{self as claims, CpuEvidence, Predicate, ProvenRecord, Subject};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sealed::{DataKey, Kem, Threshold};

use super::*;
use crate::owner::plan::tests::Fixture as Planned;
use crate::random;

/// What a custodian of these tests does instead of what it should.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    AnotherKey,
    AnotherRecipientLogged,
    Denied,
    OldRecord,
    Unlogged,
    WrongIndex,
    WrongShare,
}

/// A custodian's keys.
struct Keys {
    tls: CertifiedKey<rcgen::KeyPair>,
    decision: Arc<Ed25519KeyPair>,
    log: Arc<Ed25519KeyPair>,
}

impl Keys {
    fn new() -> Self {
        let pair = || {
            let rng = ring::rand::SystemRandom::new();
            let der = Ed25519KeyPair::generate_pkcs8(&rng).unwrap();
            Arc::new(Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap())
        };
        let tls = generate_simple_self_signed(Vec::new()).unwrap();
        Self { tls, decision: pair(), log: pair() }
    }
}

fn public(pair: &Ed25519KeyPair) -> Octets<32> {
    Octets::from_slice(pair.public_key().as_ref()).unwrap()
}

fn signature<const N: usize>(pair: &Ed25519KeyPair, message: &[u8]) -> [u8; N] {
    pair.sign(message).as_ref().try_into().unwrap()
}

/// A finished job: manifest, sealed adapter, receipt, and three custodians.
struct Fixture {
    planned: Planned,
    keys: Vec<Keys>,
    manifest: Manifest,
    shares: Vec<Share>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|_| ())
    }

    /// With a change to the statement before it is signed.
    fn with(change: impl FnOnce(&mut Statement)) -> Self {
        let mut planned = Planned::new();
        let keys: Vec<_> = (0..3).map(|_| Keys::new()).collect();
        for (custodian, keys) in planned.sealed.custodians.iter_mut().zip(&keys) {
            custodian.decision = public(&keys.decision);
            custodian.log = public(&keys.log);
            custodian.tls = attestation_verifier::pin::spki(keys.tls.cert.der()).unwrap();
        }
        let manifest = planned.plan().unwrap().manifest;
        let mut rng = random::fresh().unwrap();
        let key = DataKey::generate(&mut rng);
        let package =
            Package { config: Blob(b"{\"r\":8}".to_vec()), weights: Blob(b"tensors".to_vec()) };
        let aad = adapter_aad(&manifest.digest(), 1);
        let plain = cbor::encode(&package);
        let sealed = sealed::seal_blob(&key, &aad, &plain, &mut rng).unwrap();
        let shares = sealed::split(&key, Threshold::new(2, 3).unwrap(), &mut rng);
        let fixture = Self { planned, keys, manifest, shares };
        fs::write(fixture.path("adapter.sealed"), &sealed).unwrap();
        let mut statement = fixture.statement(&sealed);
        change(&mut statement);
        fs::write(fixture.path("job.receipt"), fixture.bundle(statement).to_json()).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.planned.path(name)
    }

    fn statement(&self, sealed: &[u8]) -> Statement {
        let manifest = &self.manifest;
        let predicate = Predicate {
            attempt: 1,
            base_model: manifest.base.clone(),
            canary_audit: None,
            dataset: claims::DatasetClaim {
                ciphertext_root: manifest.dataset.root,
                id: manifest.dataset.id,
                version: 1,
            },
            dp: claims::DpClaim {
                accountant: "pld".into(),
                epsilon: Real(7.991),
                epsilon_host: claims::NOT_CLAIMED.into(),
                mechanism: manifest.privacy.clone(),
            },
            evidence: claims::EvidenceClaim {
                root: SIMULATED.into(),
                sessions: Vec::new(),
                tee: Tee::Snp,
            },
            image: Measured::Snp { launch_digest: Octets([5; 48]) },
            job_manifest: claims::ManifestClaim {
                job: manifest.job,
                sequence: 1,
                sha384: manifest.digest(),
            },
            outputs: claims::OutputsClaim { sealed_adapter_sha256: Hash32::of(sealed) },
            releases: Vec::new(),
            run: claims::RunClaim {
                engine: "test".into(),
                secret_commitment: Octets([0; 32]),
                steps: 40,
            },
            signer: public(&self.keys[0].decision),
            simulated: true,
        };
        let subject = vec![Subject::new(CONFIG, b"{\"r\":8}"), Subject::new(WEIGHTS, b"tensors")];
        Statement::new(subject, predicate)
    }

    fn bundle(&self, statement: Statement) -> Bundle {
        // The enclave's key is played by the first custodian's.
        let signer = &self.keys[0].decision;
        let mut envelope = Envelope::new(PAYLOAD_TYPE, &statement.to_json());
        let by_signer: [u8; 64] = signature(signer, &envelope.signed_bytes());
        envelope.signatures.push(Signature::new(&public(signer), &by_signer));
        Bundle {
            approvals: Envelope::new(MANIFEST, self.manifest.bytes()),
            closing: CpuEvidence {
                endorsements: Vec::new(),
                report: Blob(Vec::new()),
                tee: Tee::Snp,
            },
            envelope,
            launch_blob: Blob(blob::write(self.manifest.bytes(), Algorithm::Sha256)),
            releases: Vec::new(),
        }
    }

    /// Opens with a broker for each of `faults`, in the custodians' order.
    fn open(&self, faults: &[Fault]) -> Result<Opened, OpenError> {
        let (addresses, threads): (Vec<_>, Vec<_>) =
            (0..).zip(faults).map(|(n, fault)| self.broker(n, *fault)).unzip();
        let opened = open(&Request {
            receipt: &self.path("job.receipt"),
            sealed: &self.path("adapter.sealed"),
            key: &self.path("job/recipient.pem"),
            manifest: Some(&self.path("plan/manifest.cbor")),
            brokers: &addresses,
            out: &self.path("adapter"),
        });
        // Whoever was not asked is woken and goes.
        addresses.iter().for_each(|address| drop(std::net::TcpStream::connect(address)));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        opened
    }

    /// A custodian that answers one connection.
    fn broker(&self, n: usize, fault: Fault) -> (String, JoinHandle<()>) {
        let stranger = Keys::new();
        let keys = if fault == Fault::AnotherKey { &stranger } else { &self.keys[n] };
        let config = server_config(&keys.tls);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer = self.answerer(n, fault);
        let thread = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
            let mut header = [0; protocol::HEADER];
            if tls.read_exact(&mut header).is_err() {
                return;
            }
            let (kind, length) = protocol::read_header(header).unwrap();
            let mut body = vec![0; length];
            tls.read_exact(&mut body).unwrap();
            let request: Unwrap = protocol::read(kind, &body).unwrap();
            tls.write_all(&answer(&request)).unwrap();
            tls.conn.send_close_notify();
            let _ = tls.flush();
        });
        (address, thread)
    }

    /// What custodian `n` says to a request, as a frame.
    fn answerer(&self, n: usize, fault: Fault) -> impl Fn(&Unwrap) -> Vec<u8> + Send + use<> {
        let index = u8::try_from(n).unwrap() + 1;
        let value = self.shares[n].expose(|value| *value);
        let log = keep_log(&self.keys[n], fault);
        move |request| {
            if fault == Fault::Denied {
                let refused = Refused { answer: Answer::Denied };
                return protocol::frame(Kind::Refused, &protocol::encode(&refused));
            }
            let (manifest, attempt) = (&request.manifest, request.attempt);
            let info = unwrap_info(manifest, attempt, index, &request.recipient);
            let mut rng = random::fresh().unwrap();
            let mut value = value;
            value[0] ^= u8::from(fault == Fault::WrongShare);
            let public = request.recipient.as_bytes();
            let sealed = sealed::seal(Kem::X25519, public, &info, &value, &mut rng).unwrap();
            let index = if fault == Fault::WrongIndex { index + 1 } else { index };
            let unwrap = log(request);
            let answer = Unwrapped { ct: sealed.ct, enc: sealed.enc, index, unwrap };
            protocol::frame(Kind::Unwrapped, &protocol::encode(&answer))
        }
    }
}

fn server_config(tls: &CertifiedKey<rcgen::KeyPair>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(tls.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![tls.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// A log of three records, the second of which is the unwrapping.
fn keep_log(keys: &Keys, fault: Fault) -> impl Fn(&Unwrap) -> ProvenRecord + Send + use<> {
    let (decision, log) = (Arc::clone(&keys.decision), Arc::clone(&keys.log));
    move |request| {
        let logged = |attempt, recipient| Record {
            event: Event::Unwrap(LoggedUnwrap { attempt, job: request.job, recipient }),
            salt: Octets([3; 32]),
            time: 1_800_000_000,
        };
        let record = match fault {
            Fault::AnotherRecipientLogged => logged(request.attempt, Octets([0; 32])),
            Fault::OldRecord => logged(request.attempt + 1, request.recipient),
            _ => logged(request.attempt, request.recipient),
        };
        let bytes = record.to_bytes();
        let by_custodian = signature(&decision, &Leaf::message(&Leaf::checksum(&bytes)));
        let leaf = Leaf::new(&bytes, by_custodian, public(&decision).as_bytes());
        let mut tree = Tree::new();
        tree.append(b"a leaf before");
        let index = tree.append(&leaf.to_bytes());
        tree.append(b"a leaf behind");
        let name = origin(public(&log).as_bytes());
        let root = if fault == Fault::Unlogged { Hash32::of(b"other") } else { tree.root() };
        let text = Checkpoint { origin: name.clone(), size: 3, root }.to_string();
        let by_log = signature(&log, text.as_bytes());
        let line = NoteSignature::ed25519(&name, public(&log).as_bytes(), by_log);
        ProvenRecord {
            checkpoint: Note { text, signatures: vec![line] }.to_string(),
            index,
            leaf: Blob(leaf.to_bytes()),
            path: tree.inclusion_proof(index, 3).unwrap(),
            record: Blob(bytes),
        }
    }
}

fn refusals(error: OpenError) -> Vec<UnwrapError> {
    let OpenError::Custodians { refusals, .. } = error else { panic!("{error}") };
    refusals.into_iter().map(|(_, refusal)| refusal).collect()
}

#[test]
fn opens_the_adapter_with_two_of_three_custodians() {
    let fixture = Fixture::new();
    let opened = fixture.open(&[Fault::None, Fault::Denied, Fault::None]).unwrap();
    assert_eq!(opened.custodians, ["custodian-1", "custodian-3"]);
    assert!(opened.simulated);
    let read = |name: &str| fs::read(fixture.path("adapter").join(name)).unwrap();
    assert_eq!((read(CONFIG), read(WEIGHTS)), (b"{\"r\":8}".to_vec(), b"tensors".to_vec()));
    let page = String::from_utf8(read("README.md")).unwrap();
    assert!(page.contains("**SIMULATED**"), "{page}");
    assert!(page.contains("epsilon <= 8.00 at delta 0.0001, over 40 steps"), "{page}");
}

#[test]
fn asks_no_more_custodians_than_are_needed() {
    let opened = Fixture::new().open(&[Fault::None, Fault::None, Fault::None]).unwrap();
    assert_eq!(opened.custodians, ["custodian-1", "custodian-2"]);
}

#[test]
fn says_what_each_custodian_refused() {
    let fixture = Fixture::new();
    let error = fixture.open(&[Fault::None, Fault::Denied, Fault::AnotherKey]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 custodians released their share of the adapter's key, 2 are required"
    );
    let refusals = refusals(error);
    assert!(matches!(refusals[0], UnwrapError::Refused(Answer::Denied)));
    assert!(matches!(refusals[1], UnwrapError::Io(_)));
    assert!(!fixture.path("adapter").exists());
}

#[test]
fn counts_no_share_that_was_not_logged_first() {
    let fixture = Fixture::new();
    let faults = [Fault::Unlogged, Fault::AnotherRecipientLogged, Fault::OldRecord];
    let refusals = refusals(fixture.open(&faults).unwrap_err());
    assert!(matches!(refusals[0], UnwrapError::Unproven(_)), "{:?}", refusals[0]);
    assert!(matches!(refusals[1], UnwrapError::OtherRecord), "{:?}", refusals[1]);
    assert!(matches!(refusals[2], UnwrapError::OtherRecord), "{:?}", refusals[2]);
}

#[test]
fn counts_no_share_of_another_place() {
    let fixture = Fixture::new();
    let refusals = refusals(fixture.open(&[Fault::WrongIndex]).unwrap_err());
    assert!(matches!(refusals[0], UnwrapError::Index { observed: 2, required: 1 }));
}

#[test]
fn opens_nothing_with_a_false_share() {
    let fixture = Fixture::new();
    let error = fixture.open(&[Fault::WrongShare, Fault::None]).unwrap_err();
    assert!(matches!(error, OpenError::Sealed(FloeError::HeaderTag)), "{error}");
    assert!(!fixture.path("adapter").exists());
}

#[test]
fn refuses_a_sealed_adapter_that_was_altered() {
    let fixture = Fixture::new();
    let path = fixture.path("adapter.sealed");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = fixture.open(&[]).unwrap_err();
    assert!(matches!(error, OpenError::SealedDigest { .. }), "{error}");
}

#[test]
fn refuses_a_receipt_that_was_altered() {
    let fixture = Fixture::new();
    let path = fixture.path("job.receipt");
    let good = fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(211) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        // Approvals and evidence are the auditor's to judge; all else is noticed before any
        // custodian is asked.
        match fixture.open(&[]).unwrap_err() {
            OpenError::Receipt(_)
            | OpenError::LaunchBlob(_)
            | OpenError::Manifest(_)
            | OpenError::OtherManifest { .. }
            | OpenError::Signature { .. }
            | OpenError::Custodians { .. } => {}
            other => panic!("byte {at}: {other}"),
        }
    }
    let text = String::from_utf8(good).unwrap();
    fs::write(&path, text.replace("launchBlob", "launchBlog")).unwrap();
    assert!(matches!(fixture.open(&[]), Err(OpenError::Receipt(EnvelopeError::Malformed))));
}

#[test]
fn refuses_a_statement_signed_by_another_key() {
    let fixture = Fixture::with(|statement| statement.predicate.signer = Octets([1; 32]));
    let error = fixture.open(&[]).unwrap_err();
    assert!(matches!(error, OpenError::Signature { .. }), "{error}");
}

#[test]
fn refuses_a_statement_about_another_manifest() {
    let fixture = Fixture::with(|statement| {
        statement.predicate.job_manifest.sha384 = Digest::of(b"another");
    });
    let OpenError::OtherManifest { what, .. } = fixture.open(&[]).unwrap_err() else {
        panic!("opened")
    };
    assert_eq!(what, "the statement's manifest");
}

#[test]
fn refuses_a_receipt_of_another_manifest_than_the_one_approved() {
    let fixture = Fixture::new();
    fixture.planned.plan().unwrap();
    let OpenError::OtherManifest { what, .. } = fixture.open(&[]).unwrap_err() else {
        panic!("opened")
    };
    assert_eq!(what, "manifest");
}

#[test]
fn refuses_files_that_the_statement_does_not_name() {
    let fixture = Fixture::with(|statement| {
        statement.subject[1] = Subject::new(WEIGHTS, b"other tensors");
    });
    let error = fixture.open(&[Fault::None, Fault::None]).unwrap_err();
    assert!(matches!(error, OpenError::FileDigest { name: WEIGHTS, .. }), "{error}");
    let fixture = Fixture::with(|statement| drop(statement.subject.remove(0)));
    let error = fixture.open(&[Fault::None, Fault::None]).unwrap_err().to_string();
    assert!(error.ends_with("the receipt names no such file"), "{error}");
    assert!(!fixture.path("adapter").exists());
}

#[test]
fn refuses_a_key_that_is_no_recipient() {
    let fixture = Fixture::new();
    let key = fixture.path("job/recipient.pem");
    fs::remove_file(&key).unwrap();
    fs::remove_file(fixture.path("job/recipient.pem.pub")).unwrap();
    keys::generate(&key, keys::Purpose::Receive).unwrap();
    let error = fixture.open(&[]).unwrap_err();
    assert!(matches!(error, OpenError::NotARecipient { recipients: 1, .. }), "{error}");
}
