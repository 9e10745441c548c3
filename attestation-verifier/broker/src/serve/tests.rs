//! What a stranger can do over the wire without evidence.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use attestation_verifier::protocol::{
    self, Challenge, Hello, KEM_X25519, KemKey, Message, Refused, Unwrap, VERSION,
};
use measurement::binding::ALPN;
use measurement::cbor::{Blob, Real};
use measurement::digest::Hash32;
use measurement::manifest::Tee;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use sealed::{DataKey, Threshold};

use super::*;
use crate::envelope::{Budget, Label};
use crate::{custodian, random, store};

mod receipts;

const POLICY: &str = include_str!("../../../policies/strict.toml");
const MANIFEST: Digest<Manifest> = Digest::from_bytes([5; 48]);

/// These tests are about what comes after the handshake.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

struct Running {
    folder: tempfile::TempDir,
    server: Server,
    key: Octets<32>,
}

fn running() -> Running {
    running_with(channel::FRAME)
}

fn running_with(patience: Duration) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("custodian");
    let public = custodian::init(&path, "wire").unwrap();
    let mut rng = random::fresh().unwrap();
    let key = DataKey::generate(&mut rng);
    let shares = sealed::split(&key, Threshold::new(1, 1).unwrap(), &mut rng);
    let label = Label {
        budget: Budget { delta: Real(1e-5), epsilon: Real(8.0) },
        commitments: vec![shares[0].commitment(&key.id())],
        dataset: Octets([7; 16]),
        key: key.id(),
        max_units: 10,
        threshold: 1,
    };
    let envelope = KeyEnvelope::seal(&label, &shares[0], &public.unwrap, &mut rng).unwrap();
    let file = folder.path().join("a.share");
    std::fs::write(&file, envelope.to_bytes()).unwrap();
    assert_eq!(custodian::import(&path, &file).unwrap().index, 1);
    let listen = ([127, 0, 0, 1], 0).into();
    let server = Server::patient(&path, POLICY, listen, Journal::Silent, patience).unwrap();
    Running { folder, server, key: key.id() }
}

struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    fn connect(server: &Server, alpn: &[u8]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from("broker.invalid").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        Self(StreamOwned::new(tls, TcpStream::connect(server.address()).unwrap()))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
        self.0.flush().unwrap();
    }

    fn say<M: Message>(&mut self, message: &M) {
        self.send(&protocol::frame(M::KIND, &protocol::encode(message)));
    }

    fn hear<M: Message>(&mut self) -> M {
        let mut header = [0; protocol::HEADER];
        self.0.read_exact(&mut header).unwrap();
        let (kind, length) = protocol::read_header(header).unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        protocol::read(kind, &body).unwrap()
    }
}

fn hello(key: Octets<32>) -> Hello {
    Hello {
        instance: Octets([1; 16]),
        job: Octets([2; 16]),
        kems: vec![KemKey { kem: KEM_X25519, key: Blob(vec![3; 32]) }],
        keys: vec![key],
        manifest: MANIFEST,
        signer: Octets([6; 32]),
        tee: Tee::Snp,
        version: VERSION,
    }
}

/// Says `first`, and what follows; hears a refusal; and finds its code in the log.
fn refusal(bytes: impl FnOnce(&Running, &mut Client)) -> (Answer, Vec<String>) {
    let running = running();
    let mut client = Client::connect(&running.server, ALPN);
    bytes(&running, &mut client);
    let refused: Refused = client.hear();
    let path = running.folder.path().join("custodian");
    running.server.shutdown();
    let (fold, _) = store::view(&path).unwrap();
    let codes = fold.events().iter().map(|event| match event {
        Event::Deny(deny) => deny.code.as_str().to_owned(),
        other => panic!("{other:?}"),
    });
    (refused.answer, codes.collect())
}

#[test]
fn a_challenge_names_the_first_attempt_and_our_policy() {
    let running = running();
    let mut client = Client::connect(&running.server, ALPN);
    client.say(&hello(running.key));
    let challenge: Challenge = client.hear();
    assert_eq!((challenge.attempt, challenge.kem), (1, KEM_X25519));
    assert_eq!(challenge.policy, AppraisalPolicy::parse(POLICY).unwrap().digest());
    let mut again = Client::connect(&running.server, ALPN);
    again.say(&hello(running.key));
    assert_ne!(again.hear::<Challenge>().nonce, challenge.nonce);
    drop((client, again));
    running.server.shutdown();
}

#[test]
fn denies_a_key_whose_share_is_not_here_and_logs_why() {
    let (answer, codes) = refusal(|_, client| client.say(&hello(Octets([0; 32]))));
    assert_eq!((answer, codes), (Answer::Denied, vec!["key-unknown".to_owned()]));
}

#[test]
fn denies_another_version_two_keys_and_no_kem_in_common() {
    let denied = |change: fn(&mut Hello)| {
        let (answer, codes) = refusal(|running, client| {
            let mut hello = hello(running.key);
            change(&mut hello);
            client.say(&hello);
        });
        assert_eq!(answer, Answer::Denied);
        codes
    };
    assert_eq!(denied(|hello| hello.version = 2), ["version-other"]);
    assert_eq!(denied(|hello| hello.keys.push(Octets([0; 32]))), ["key-unknown"]);
    assert_eq!(denied(|hello| hello.kems[0].kem = 1), ["kem-unknown"]);
    assert_eq!(denied(|hello| hello.kems.push(hello.kems[0].clone())), ["kem-unknown"]);
}

#[test]
fn denies_frames_over_the_cap_out_of_order_and_malformed() {
    // Before HELLO nothing is known that a denial could be logged about.
    let nothing = Vec::<String>::new();
    let over = refusal(|_, client| client.send(&[0, 0, 0x20, 1, 1]));
    assert_eq!(over, (Answer::Denied, nothing.clone()));
    let confirm = refusal(|_, client| client.send(&[0, 0, 0, 1, 6]));
    assert_eq!(confirm, (Answer::Denied, nothing.clone()));
    let unknown = refusal(|_, client| client.send(&[0, 0, 0, 1, 200]));
    assert_eq!(unknown, (Answer::Denied, nothing.clone()));
    let malformed = refusal(|_, client| client.send(&[0, 0, 0, 1, 1, 0xa0]));
    assert_eq!(malformed, (Answer::Denied, nothing));
    let twice = refusal(|running, client| {
        client.say(&hello(running.key));
        let _: Challenge = client.hear();
        client.say(&hello(running.key));
    });
    assert_eq!(twice, (Answer::Denied, vec!["frame-out-of-order".to_owned()]));
}

#[test]
fn denies_to_unwrap_what_was_never_released() {
    let denied = refusal(|_, client| {
        client.say(&Unwrap {
            attempt: 1,
            job: Octets([2; 16]),
            manifest: MANIFEST,
            recipient: Octets([3; 32]),
            sealed_adapter: Hash32::from_bytes([4; 32]),
        });
    });
    assert_eq!(denied, (Answer::Denied, vec!["manifest-unknown".to_owned()]));
}

#[test]
fn hangs_up_on_another_protocol_and_on_a_stranger_without_tls() {
    let running = running();
    let mut client = Client::connect(&running.server, b"http/1.1");
    assert!(client.0.read(&mut [0]).is_err());
    let mut plain = TcpStream::connect(running.server.address()).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard);
    assert!(heard.len() < 32, "{heard:?}");
    running.server.shutdown();
}

#[test]
fn hangs_up_on_a_session_that_stalls_and_frees_its_place() {
    let running = running_with(Duration::from_millis(300));
    let stalled = |said: &[u8]| {
        let mut client = Client::connect(&running.server, ALPN);
        client.say(&hello(running.key));
        let _: Challenge = client.hear();
        client.send(said);
        let begin = std::time::Instant::now();
        let mut heard = Vec::new();
        // The end of a connection without TLS's farewell is an error; either way it is over.
        let _ = client.0.read_to_end(&mut heard);
        assert_eq!(heard.len(), 0, "nothing is said to who says nothing");
        assert!(begin.elapsed() < Duration::from_secs(20));
    };
    // Silent after CHALLENGE; in the middle of a header; in the middle of a body.
    stalled(&[]);
    stalled(&[0, 0]);
    stalled(&[0, 0, 1, 0, 3, 0xa1]);
    assert_eq!(running.server.shared.store().fold().state().size(), 0);
    running.server.shutdown();
}

#[test]
fn logs_no_more_denials_than_it_has_room_for() {
    let running = running();
    for _ in 0..DENIALS + 2 {
        running.server.shared.denied(&[Denial::Nonce], Some(MANIFEST));
    }
    assert_eq!(running.server.denials(), DENIALS + 2);
    assert_eq!(running.server.shared.store().fold().state().size(), DENIALS);
    running.server.shutdown();
}

#[test]
fn a_second_service_does_not_start_on_the_same_folder() {
    let running = running();
    let path = running.folder.path().join("custodian");
    let listen = ([127, 0, 0, 1], 0).into();
    let refused = Server::start(&path, POLICY, listen, Journal::Silent).err().unwrap();
    assert!(matches!(refused, StartError::Store(StoreError::Locked { .. })), "{refused}");
    running.server.shutdown();
    assert!(Server::start(&path, POLICY, listen, Journal::Silent).is_ok());
}
