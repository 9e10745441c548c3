//! Attempts, the budget, receipts and the adapter's key: what the ledger lets through, once.

use std::collections::BTreeMap;

use attestation_verifier::protocol::{Answer, Logged, Receipt, Release, Unwrap, WrappedShare};
use broker::owner::open::OpenError;
use enclave::halt::Halt;
use measurement::carrier::Stage;
use measurement::cbor::{self, Blob};
use measurement::digest::{Digest, Hash32, of};
use measurement::dsse::{Envelope, Signature};
use measurement::manifest::{Manifest, Tee};
use measurement::octets::Octets;
use measurement::receipt::{Bundle, PAYLOAD_TYPE, Statement};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};

use crate::machine::Launch;
use crate::peer::{self, Peer};
use crate::scene::{Scene, Setting};
use crate::{GOLDEN_LOG, denied, halts, launch};

#[test]
fn two_sessions_cannot_share_one_debit() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let server = scene.serve();
    let mut peers = [(); 2].map(|()| Peer::connect(&scene, server.address()));
    let sessions = peers.each_mut().map(|peer| peer.challenged(&scene));
    assert_eq!(sessions.each_ref().map(|session| session.challenge.attempt), [1, 1]);
    let [first, second] = &mut peers;
    first.say(&sessions[0].evidence(&scene));
    first.hear::<Release>().unwrap();
    second.say(&sessions[1].evidence(&scene));
    assert_eq!(second.hear::<Release>().unwrap_err(), Answer::Retry);
    drop(peers);
    server.shutdown();
    assert_eq!(denied(&scene), ["attempt-moved"]);
    assert_eq!(scene.kinds(), ["manifest", "debit", "release", "deny"]);
}

#[test]
fn a_confirmation_is_the_sessions_own_and_counts_once() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let server = scene.serve();
    let mut peer = Peer::connect(&scene, server.address());
    let session = peer.challenged(&scene);
    peer.say(&session.evidence(&scene));
    let (release, bytes) = peer.hear::<Release>().unwrap();
    let mut other = session.confirm(release.id, b"another release");
    peer.say(&other);
    assert_eq!(peer.hear::<Release>().unwrap_err(), Answer::Denied);
    assert_eq!(denied(&scene), ["signature-invalid"]);

    let mut peer = Peer::connect(&scene, server.address());
    let again = peer.challenged(&scene);
    peer.say(&again.evidence(&scene));
    let (second, second_bytes) = peer.hear::<Release>().unwrap();
    assert_ne!(second.id, release.id);
    other = session.confirm(release.id, &bytes);
    peer.say(&other);
    assert_eq!(peer.hear::<Release>().unwrap_err(), Answer::Denied);

    let mut peer = Peer::connect(&scene, server.address());
    peer.say(&again.confirm(second.id, &second_bytes));
    assert_eq!(peer.hear::<Release>().unwrap_err(), Answer::Denied);
    server.shutdown();
    assert!(!scene.kinds().contains(&"confirm"));
}

#[test]
fn a_second_attempt_is_a_second_debit_and_its_adapter_stays_sealed() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    let server = scene.serve();
    let broker = server.address().to_string();
    assert_eq!(scene.launch(&broker, |_| ()).outcome, Ok(()));
    std::fs::remove_dir_all(scene.path("adapter")).unwrap();
    let refused = scene.open(&broker, "owner/recipient.pem").unwrap_err();
    assert!(matches!(refused, OpenError::Custodians { observed: 0, .. }), "{refused}");
    server.shutdown();
    assert_eq!(denied(&scene), ["unwrap-repeated"]);
    let second = [&["unwrap"], &GOLDEN_LOG[1..], &["deny"]].concat();
    assert_eq!(scene.kinds(), [&GOLDEN_LOG[..], &second].concat());
    scene.export();
    let receipt = scene.judge().unwrap().verdict.unwrap();
    assert_eq!(receipt.statement().predicate.attempt, 2);
    let ledger = receipt.ledger().unwrap();
    assert_eq!(ledger.debits, 2);
    assert!(ledger.spent > receipt.epsilon());
}

#[test]
fn refuses_the_attempt_that_the_budget_does_not_cover() {
    let setting = Setting::golden(Tee::Snp).with(|s| s.job.push(("budget.epsilon", "8.0".into())));
    let Some(scene) = Scene::new(&setting) else { return };
    let (ended, denied) = launch(&scene, |_, _| ()).unwrap();
    assert_eq!((ended.outcome, denied), (Ok(()), Vec::new()));
    let (ended, denied) =
        launch(&scene, |_, launch| launch.stock.out = scene.path("plan")).unwrap();
    halts(&ended, Halt::Release);
    assert_eq!(denied, ["budget-spent"]);
    assert_eq!(scene.kinds(), [&GOLDEN_LOG[..], &["deny"]].concat());
}

#[test]
fn hands_the_adapters_key_to_one_recipient_once() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    let server = scene.serve();
    let broker = server.address().to_string();
    std::fs::rename(scene.path("adapter"), scene.path("first")).unwrap();
    let refused = scene.open(&broker, "owner/second.pem").unwrap_err();
    assert!(matches!(refused, OpenError::Custodians { observed: 0, .. }), "{refused}");
    assert!(!scene.path("adapter").exists());
    assert_eq!(denied(&scene), ["unwrap-repeated"]);
    // Whoever was handed it may lose it on the way, and gets the same again.
    scene.open(&broker, "owner/recipient.pem").unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let (again, first) = (format!("adapter/{name}"), format!("first/{name}"));
        assert_eq!(scene.read(&again), scene.read(&first));
    }
    server.shutdown();
    let unwraps = scene.kinds().into_iter().filter(|kind| *kind == "unwrap").count();
    assert_eq!(unwraps, 1);
}

#[test]
fn hands_the_adapters_key_to_nobody_else() {
    let Some(scene) = Scene::finished(Tee::Snp) else { return };
    let server = scene.serve();
    let manifest = scene.manifest();
    let asks = |change: fn(&mut Unwrap)| {
        let mut unwrap = Unwrap {
            attempt: 1,
            job: manifest.job,
            manifest: manifest.digest(),
            recipient: manifest.recipients[0].key,
            sealed_adapter: Hash32::of(&scene.read("adapter.sealed")),
        };
        change(&mut unwrap);
        let mut peer = Peer::connect(&scene, server.address());
        peer.say(&unwrap);
        assert_eq!(peer.hear::<Release>().unwrap_err(), Answer::Denied);
    };
    asks(|unwrap| unwrap.recipient = Octets([1; 32]));
    asks(|unwrap| unwrap.sealed_adapter = Hash32::of(b"other"));
    asks(|unwrap| unwrap.attempt = 2);
    asks(|unwrap| unwrap.job = Octets([0; 16]));
    server.shutdown();
    let expected = [("job-other", 1), ("unwrap-unfounded", 2), ("unwrap-without-receipt", 1)];
    let expected = expected.map(|(code, times)| (code.to_owned(), times));
    assert_eq!(scene.denials(), BTreeMap::from(expected));
}

#[test]
fn a_halt_after_the_debit_is_not_refunded() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let whole = scene.read("dataset.sds");
    let cut =
        |scene: &Scene, _: &mut Launch| scene.change("dataset.sds", |bytes| bytes.truncate(9));
    let (ended, _) = launch(&scene, cut).unwrap();
    halts(&ended, Halt::Dataset);
    assert_eq!(scene.kinds(), GOLDEN_LOG[..4]);
    scene.write("dataset.sds", whole);
    let (ended, _) = launch(&scene, |_, _| ()).unwrap();
    assert_eq!(ended.outcome, Ok(()));
    assert_eq!(ended.events.last().unwrap().stage, Stage::Done);
    assert_eq!(scene.kinds(), [&GOLDEN_LOG[..4], &GOLDEN_LOG[1..]].concat());
}

// Receipts.

/// A wrapped share of the adapter's key as the custodian keeps it.
#[derive(Serialize, Deserialize)]
struct Held {
    manifest: Digest<Manifest>,
    sealed_adapter: Hash32<of::SealedAdapter>,
    share: WrappedShare,
}

/// The RECEIPT of a finished scene, as its enclave handed it in.
fn handed_in(scene: &Scene) -> Receipt {
    let mut bundle = Bundle::parse(&scene.read("job.receipt")).unwrap();
    bundle.envelope.signatures.truncate(1);
    let file = scene.files("custodian/receipts").remove(0);
    let held: Held = cbor::decode(&std::fs::read(file).unwrap(), 16 << 10).unwrap();
    let envelope = Blob(bundle.envelope.to_json());
    Receipt { closing: bundle.closing, envelope, share: held.share }
}

/// What the custodian says to a changed RECEIPT, with its ledger as before the receipt.
fn hand_in(change: impl FnOnce(&Scene, &mut Receipt)) -> Option<Vec<String>> {
    let scene = Scene::finished(Tee::Snp)?;
    let mut receipt = handed_in(&scene);
    change(&scene, &mut receipt);
    let server = scene.serve();
    let mut peer = Peer::connect(&scene, server.address());
    peer.say(&receipt);
    assert_eq!(peer.hear::<Logged>().unwrap_err(), Answer::Denied);
    drop(peer);
    server.shutdown();
    assert_eq!(scene.kinds().iter().filter(|kind| **kind == "receipt").count(), 1);
    Some(denied(&scene))
}

/// Signs a changed statement with a key of the forger's own.
fn forged(receipt: &Receipt, change: impl FnOnce(&mut Statement)) -> Blob {
    let forger = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let key = Octets::from_slice(forger.public_key().as_ref()).unwrap();
    let envelope = Envelope::parse(&receipt.envelope.0, PAYLOAD_TYPE).unwrap();
    let mut statement = Statement::parse(&envelope.payload.0).unwrap();
    statement.predicate.signer = key;
    change(&mut statement);
    let mut envelope = Envelope::new(PAYLOAD_TYPE, &statement.to_json());
    let signature = forger.sign(&envelope.signed_bytes());
    envelope.signatures.push(Signature::new(&key, signature.as_ref()));
    Blob(envelope.to_json())
}

#[test]
fn refuses_a_second_receipt_of_an_attempt() {
    let Some(denied) = hand_in(|_, _| ()) else { return };
    assert_eq!(denied, ["receipt-repeated"]);
}

#[test]
fn refuses_a_receipt_that_its_enclave_did_not_sign() {
    let Some(unsigned) = hand_in(|_, receipt| {
        let mut envelope = Envelope::parse(&receipt.envelope.0, PAYLOAD_TYPE).unwrap();
        envelope.signatures[0].sig.0[0] ^= 1;
        receipt.envelope = Blob(envelope.to_json());
    }) else {
        return;
    };
    assert_eq!(unsigned, ["signature-invalid"]);
    let denied = hand_in(|_, receipt| receipt.envelope = forged(receipt, |_| ())).unwrap();
    assert_eq!(denied, ["receipt-mismatch"]);
}

#[test]
fn refuses_a_receipt_that_claims_what_the_manifest_does_not() {
    type Change = fn(&mut Statement);
    let changes: [Change; 4] = [
        |statement| statement.predicate.run.steps += 1,
        |statement| statement.predicate.dp.epsilon.0 /= 2.0,
        |statement| statement.predicate.simulated = false,
        |statement| statement.predicate.attempt = 2,
    ];
    for change in changes {
        let forge = |_: &Scene, receipt: &mut Receipt| receipt.envelope = forged(receipt, change);
        let Some(denied) = hand_in(forge) else { return };
        assert!(denied.iter().all(|code| code == "receipt-mismatch"), "{denied:?}");
    }
}

#[test]
fn refuses_a_receipt_whose_closing_evidence_is_of_something_else() {
    let Some(denied) = hand_in(|scene, receipt| {
        receipt.closing = peer::report(&scene.processor(), &[6; 64]);
    }) else {
        return;
    };
    assert_eq!(denied, ["binding-report-data"]);
}

#[test]
fn refuses_a_receipt_whose_share_of_the_adapters_key_does_not_open() {
    let Some(denied) = hand_in(|_, receipt| receipt.share.ct.0[0] ^= 1) else { return };
    assert_eq!(denied, ["share-does-not-open"]);
}

#[test]
fn refuses_a_receipt_of_a_job_it_released_nothing_to() {
    let Some(finished) = Scene::finished(Tee::Snp) else { return };
    let receipt = handed_in(&finished);
    let before = Scene::golden(Tee::Snp).unwrap();
    let server = before.serve();
    let mut peer = Peer::connect(&before, server.address());
    peer.say(&receipt);
    assert_eq!(peer.hear::<Logged>().unwrap_err(), Answer::Denied);
    server.shutdown();
    assert_eq!(denied(&before), ["manifest-unknown"]);
}
