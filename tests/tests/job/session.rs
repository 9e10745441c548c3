//! Evidence belongs to one session on one connection, whoever stands between its ends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use attestation_verifier::protocol::{
    self, Answer, Challenge, Evidence, KEM_X_WING, KemKey, Release,
};
use broker::identity::Identity;
use broker::random;
use broker::serve::{Journal, Server};
use enclave::broker::SessionError;
use enclave::halt::Halt;
use measurement::cbor::Blob;
use measurement::manifest::Tee;
use sealed::{Kem, RecipientKey};

use crate::custodian::accept;
use crate::peer::{self, Challenged, Peer};
use crate::scene::Scene;
use crate::{GOLDEN_LOG, denied, halts};

/// What the custodian answers to evidence, denies, and logs.
type Answered = (Result<Release, Answer>, Vec<String>, Vec<&'static str>);

/// A session by hand, with one change to its evidence.
fn answered(tee: Tee, change: impl FnOnce(&Scene, &Challenged, &mut Evidence)) -> Option<Answered> {
    let scene = Scene::golden(tee)?;
    let server = scene.serve();
    let mut peer = Peer::connect(&scene, server.address());
    let challenged = peer.challenged(&scene);
    let mut evidence = challenged.evidence(&scene);
    change(&scene, &challenged, &mut evidence);
    peer.say(&evidence);
    let answer = peer.hear::<Release>().map(|(release, _)| release);
    drop(peer);
    server.shutdown();
    Some((answer, denied(&scene), scene.kinds()))
}

#[test]
fn releases_to_evidence_of_this_very_session() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let Some((answer, denied, kinds)) = answered(tee, |_, _, _| ()) else { return };
        assert_eq!(answer.unwrap().index, 1);
        assert_eq!(denied, [""; 0]);
        assert_eq!(kinds, GOLDEN_LOG[..3]);
    }
}

#[test]
fn refuses_evidence_replayed_from_another_connection() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let Some(scene) = Scene::golden(tee) else { return };
        let server = scene.serve();
        let mut first = Peer::connect(&scene, server.address());
        let evidence = first.challenged(&scene).evidence(&scene);
        first.say(&evidence);
        first.hear::<Release>().unwrap();
        let mut second = Peer::connect(&scene, server.address());
        second.challenged(&scene);
        second.say(&evidence);
        assert_eq!(second.hear::<Release>().unwrap_err(), Answer::Denied);
        drop((first, second));
        server.shutdown();
        assert_eq!(denied(&scene), ["binding-report-data"]);
        assert_eq!(scene.kinds(), ["manifest", "debit", "release", "deny"]);
    }
}

#[test]
fn refuses_evidence_that_is_made_for_everyone() {
    let constant = |scene: &Scene, _: &Challenged, evidence: &mut Evidence| {
        evidence.cpu = peer::report(&scene.processor(), &[0; 64]);
    };
    let Some((answer, denied, kinds)) = answered(Tee::Snp, constant) else { return };
    assert_eq!(answer.unwrap_err(), Answer::Denied);
    assert_eq!((denied, kinds), (vec!["binding-report-data".to_owned()], vec!["deny"]));
}

#[test]
fn refuses_gpu_evidence_where_the_manifest_has_no_gpu() {
    let gpu = |_: &Scene, _: &Challenged, evidence: &mut Evidence| {
        evidence.gpus.push(Blob(vec![1]));
    };
    let Some((answer, denied, _)) = answered(Tee::Snp, gpu) else { return };
    assert_eq!(answer.unwrap_err(), Answer::Denied);
    assert_eq!(denied, ["gpus-not-appraised"]);
}

#[test]
fn a_nonce_is_taken_once() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let server = scene.serve();
    let mut peer = Peer::connect(&scene, server.address());
    let evidence = peer.challenged(&scene).evidence(&scene);
    peer.say(&evidence);
    peer.hear::<Release>().unwrap();
    peer.say(&evidence);
    assert_eq!(peer.hear::<Release>().unwrap_err(), Answer::Denied);
    assert!(peer.hung_up());
    server.shutdown();
    assert_eq!(denied(&scene), ["frame-out-of-order"]);
    assert_eq!(scene.kinds(), ["manifest", "debit", "release", "deny"]);
}

#[test]
fn prefers_the_kem_that_outlives_a_quantum_computer() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let server = scene.serve();
    let mut rng = random::fresh().unwrap();
    let mut peer = Peer::connect(&scene, server.address());
    let mut hello = peer.challenged(&scene).hello;
    hello.kems.push(KemKey {
        kem: KEM_X_WING,
        key: RecipientKey::generate(Kem::XWing, &mut rng).public().into(),
    });
    let mut peer = Peer::connect(&scene, server.address());
    peer.say(&hello);
    assert_eq!(peer.hear::<Challenge>().unwrap().0.kem, KEM_X_WING);
    drop(peer);
    server.shutdown();
}

#[test]
fn turns_away_more_connections_than_it_serves() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let server = scene.serve();
    let mut held: Vec<_> = (0..65).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    let mut last = held.pop().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!(last.read(&mut [0]), Ok(0)));
    held[0].set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(held[0].read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(held);
    // Places come free as the custodian notices that their holders are gone.
    let admitted = (0..500).find_map(|_| {
        let peer = Peer::admitted(&scene, server.address());
        peer.map_err(|_| thread::sleep(Duration::from_millis(20))).ok()
    });
    assert_eq!(admitted.unwrap().challenged(&scene).challenge.attempt, 1);
    server.shutdown();
}

// Someone in the middle.

/// Accepts one connection with the TLS key of `identity`, and passes every message on to the
/// custodian over a connection of its own. Says how many it could read.
fn relay(
    identity: Identity,
    scene: &Scene,
    custodian: SocketAddr,
) -> (SocketAddr, JoinHandle<io::Result<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut onward = Peer::connect(scene, custodian);
    let relaying = thread::spawn(move || {
        let (mut enclave, _) = accept(&identity, listener.accept()?.0)?;
        let mut read = 0;
        // HELLO, CHALLENGE, EVIDENCE, and whatever the custodian says to that.
        for (to_enclave, number) in [(false, 1), (true, 2), (false, 3), (true, 4)] {
            let (from, to): (&mut dyn Read, &mut dyn Write) = if to_enclave {
                (onward.stream(), &mut enclave)
            } else {
                (&mut enclave, onward.stream())
            };
            let (kind, body) = peer::frame(from)?;
            to.write_all(&protocol::frame(kind, &body))?;
            to.flush()?;
            read = number;
        }
        Ok(read)
    });
    (address, relaying)
}

#[test]
fn a_relay_that_terminates_tls_reads_nothing() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let server = scene.serve();
    broker::custodian::init(&scene.path("stranger"), "stranger").unwrap();
    let stranger = Identity::load(&scene.path("stranger")).unwrap();
    let (address, relaying) = relay(stranger, &scene, server.address());
    let refused = scene.attest(address).err().unwrap();
    let SessionError::Io(error) = refused else { panic!("{refused}") };
    let why = "invalid peer certificate: ApplicationVerificationFailure";
    assert!(error.to_string().contains(why), "{error}");
    relaying.join().unwrap().unwrap_err();
    server.shutdown();
    assert_eq!(scene.kinds(), [""; 0]);
}

#[test]
fn a_relay_with_the_custodians_stolen_tls_key_is_found_by_the_exporter() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let Some(scene) = Scene::golden(tee) else { return };
        let server = scene.serve();
        let (address, relaying) = relay(scene.identity(), &scene, server.address());
        let refused = scene.attest(address).err().unwrap();
        assert!(matches!(refused, SessionError::Refused), "{refused}");
        assert_eq!(relaying.join().unwrap().unwrap(), 4);
        server.shutdown();
        assert_eq!(denied(&scene), ["binding-report-data"]);
        assert_eq!(scene.kinds(), ["deny"]);
    }
}

#[test]
fn a_broker_with_another_key_hears_no_word() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    broker::custodian::init(&scene.path("stranger"), "custodian-1").unwrap();
    let policy = String::from_utf8(scene.read("policy.toml")).unwrap();
    let listen = ([127, 0, 0, 1], 0).into();
    let stranger =
        Server::start(&scene.path("stranger"), &policy, listen, Journal::Silent).unwrap();
    let ended = scene.launch(&stranger.address().to_string(), |_| ());
    halts(&ended, Halt::Release);
    assert_eq!(ended.moved.unwrap().connections, 1);
    assert_eq!(stranger.denials(), 0);
    stranger.shutdown();
}

#[test]
fn recorded_bytes_open_no_second_session() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let server = scene.serve();
    let (address, recording) = record(server.address());
    scene.attest(address).unwrap();
    let recorded = recording.join().unwrap();
    let confirmed = ["manifest", "debit", "release", "confirm"];
    assert_eq!(scene.kinds(), confirmed);
    let mut again = TcpStream::connect(server.address()).unwrap();
    again.write_all(&recorded).unwrap();
    let mut heard = Vec::new();
    let _ = again.read_to_end(&mut heard);
    server.shutdown();
    assert_eq!(scene.kinds(), confirmed);
}

/// Passes one connection on as it comes, and keeps what the enclave sends.
fn record(custodian: SocketAddr) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let recording = thread::spawn(move || {
        let mut enclave = listener.accept().unwrap().0;
        let mut onward = TcpStream::connect(custodian).unwrap();
        let (mut back, mut to_enclave) =
            (onward.try_clone().unwrap(), enclave.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut back, &mut to_enclave));
        let (mut kept, mut bytes) = (Vec::new(), [0; 4096]);
        loop {
            let length = enclave.read(&mut bytes).unwrap();
            if length == 0 {
                let _ = onward.shutdown(Shutdown::Write);
                // The custodian hangs up once it has logged the confirmation.
                let _ = onward.read(&mut bytes);
                return kept;
            }
            kept.extend(&bytes[..length]);
            onward.write_all(&bytes[..length]).unwrap();
        }
    });
    (address, recording)
}
