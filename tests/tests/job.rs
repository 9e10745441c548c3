//! Whole sessions, from sealed records to the auditor's verdict, and what each tampering gets.
//!
//! Three see a tampering: the enclave, which halts with a code; the custodian, which denies and logs
//! why; the auditor (`verify.rs`). Each test changes one thing and asserts who saw what.

mod common;

use std::collections::BTreeMap;

use attestation_verifier::protocol::{Answer, Evidence, Release, Unwrap};
use broker::owner::open::OpenError;
use common::launch::{Ended, Launch};
use common::peer::{Challenged, Peer};
use common::{Scene, Setting, now};
use enclave::halt::Halt;
use host::progress;
use measurement::carrier::{HEADER, HOST_PORT, Item, Kind, Stage, read_header};
use measurement::digest::Hash32;
use measurement::dsse::Envelope;
use measurement::launch::blob::{self, Algorithm};
use measurement::manifest::{Manifest, PAYLOAD_TYPE, Recipient, Tee, Terms};
use measurement::octets::Octets;

/// What a custodian's log holds of a job that went well.
const GOLDEN_LOG: [&str; 5] = ["manifest", "debit", "release", "confirm", "receipt"];

/// Launches the golden scene with one change: how it ended, and what the custodian denied.
fn launched(tee: Tee, change: impl FnOnce(&Scene, &mut Launch)) -> Option<(Ended, Vec<String>)> {
    launch(&Scene::golden(tee)?, change)
}

fn launch(scene: &Scene, change: impl FnOnce(&Scene, &mut Launch)) -> Option<(Ended, Vec<String>)> {
    let server = scene.serve();
    let ended = scene.launch(&server.address().to_string(), |launch| change(scene, launch));
    server.shutdown();
    Some((ended, denied(scene)))
}

/// The codes of what the custodian denied.
fn denied(scene: &Scene) -> Vec<String> {
    let codes = scene.denials().into_iter();
    codes.flat_map(|(code, times)| (0..times).map(move |_| code.clone())).collect()
}

/// Nothing leaves a launch that halts.
fn halts(ended: &Ended, halt: Halt) {
    assert_eq!(ended.outcome, Err(halt));
    let ending = ended.ending.as_ref().unwrap();
    assert_eq!((ending.stage, ending.outputs.len()), (halt.stage(), 0));
}

// What must work.

#[test]
fn one_attested_job_end_to_end() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let Some(scene) = Scene::finished(tee) else { return };
        let judged = scene.judge().unwrap();
        let receipt = judged.verdict.unwrap();
        assert!(receipt.simulated());
        assert_eq!(receipt.statement().predicate.attempt, 1);
        assert!(receipt.epsilon() <= 8.0 && receipt.epsilon() > 7.9, "{}", receipt.epsilon());
        assert_eq!(judged.not_checked, ["adapter: README.md"]);
        assert_eq!(scene.kinds(), [&GOLDEN_LOG[..], &["unwrap"]].concat());
        assert_eq!(denied(&scene), [""; 0]);
        let page = String::from_utf8(scene.read("adapter/README.md")).unwrap();
        assert!(page.contains("**SIMULATED**"), "{page}");
    }
}

/// What the host is told, frame by frame: every event, and the lengths of everything.
fn heard(ended: &Ended) -> String {
    let mut bytes = ended.written[HOST_PORT].as_slice();
    let (mut text, mut pieces) = (String::new(), 0);
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        let (kind, length) = read_header(*header).unwrap();
        let (payload, rest) = rest.split_at(length);
        bytes = rest;
        let item = |code: &u8| Item::from_code(*code).unwrap();
        match (kind, payload) {
            (Kind::Want, [code]) => text += &format!("want    {:?}\n", item(code)),
            (Kind::Output, [code]) => text += &format!("output  {:?}", item(code)),
            (Kind::Piece, piece) => pieces += piece.len(),
            (Kind::End, []) => {
                text += &format!(", {pieces} bytes\n");
                pieces = 0;
            }
            (Kind::Event, bytes) => {
                let event = measurement::carrier::Event::from_bytes(bytes).unwrap();
                let (name, step, steps) = (progress::name(event.stage), event.step, event.steps);
                text += &format!("event   {name} {step}/{steps}, {length} bytes\n");
            }
            _ => panic!("{kind:?}"),
        }
    }
    text
}

#[test]
fn the_host_hears_the_same_whatever_the_records_are() {
    let many: String = (0..30)
        .map(|n| format!("{{\"customer_id\":\"c-{n}\",\"text\":\"{}\"}}\n", "word ".repeat(n + 1)))
        .collect();
    // One unit, whose one record is many times longer than the context.
    let one = format!("{{\"customer_id\":\"c\",\"text\":\"{}\"}}\n", "long ".repeat(4000));
    let golden = include_str!("../vectors/session.txt");
    for records in [None, Some(many), Some(one)] {
        let setting = Setting::golden(Tee::Snp).with(|s| s.records = records);
        let Some(scene) = Scene::new(&setting) else { return };
        let (ended, _) = launch(&scene, |_, _| ()).unwrap();
        assert_eq!(ended.outcome, Ok(()));
        assert_eq!(heard(&ended), golden);
    }
}

#[test]
fn nothing_that_leaves_the_enclave_or_lies_with_others_holds_a_record() {
    let Some(scene) = Scene::golden(Tee::Snp) else { return };
    let server = scene.serve();
    let ended = scene.launch(&server.address().to_string(), |_| ());
    assert_eq!(ended.outcome, Ok(()));
    server.shutdown();
    let tickets = String::from_utf8(scene.read("owner/tickets.jsonl")).unwrap();
    // (The name of the unit's field is public: it is what privacy is promised for.)
    let words = ["\"prompt\"", "c-0000", "example.com", "Northwind"];
    assert!(words.iter().all(|word| tickets.contains(word)), "{tickets}");
    let mut elsewhere: Vec<_> = ended.written.into_values().collect();
    elsewhere.extend(["dataset.sds", "job.receipt", "adapter.sealed"].map(|name| scene.read(name)));
    for file in scene.files("custodian").into_iter().chain(scene.files("shares")) {
        elsewhere.push(std::fs::read(file).unwrap());
    }
    for bytes in elsewhere {
        for word in words {
            assert!(!bytes.windows(word.len()).any(|part| part == word.as_bytes()), "{word}");
        }
    }
}

// What is launched.

#[test]
fn refuses_a_tampered_image_and_command_line() {
    for (tee, part) in [
        (Tee::Snp, "kernel"),
        (Tee::Snp, "initrd"),
        (Tee::Snp, "cmdline"),
        (Tee::Tdx, "kernel"),
        (Tee::Tdx, "initrd"),
        (Tee::Tdx, "cmdline"),
    ] {
        let Some((ended, denied)) = launched(tee, |scene, _| {
            scene.change(&format!("image/{part}"), |bytes| *bytes.last_mut().unwrap() ^= 1);
        }) else {
            return;
        };
        halts(&ended, Halt::Release);
        assert_eq!(denied, ["binding-image"], "{tee:?} {part}");
    }
}

#[test]
fn refuses_another_launch_blob_than_the_hardware_was_given() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let other = |scene: &Scene, launch: &mut Launch| {
            let blob = with_terms(scene, |terms| terms.sequence += 1);
            scene.write("other.blob", blob);
            launch.stock.insert(Item::LaunchBlob, scene.path("other.blob"));
        };
        let Some((ended, denied)) = launched(tee, other) else { return };
        halts(&ended, Halt::Platform);
        assert_eq!(denied, [""; 0]);
    }
}

/// The launch blob of a manifest with one change.
fn with_terms(scene: &Scene, change: impl FnOnce(&mut Terms)) -> Vec<u8> {
    let mut terms: Terms = (*scene.manifest()).clone();
    change(&mut terms);
    let manifest = Manifest::write(&terms).unwrap();
    scene.write("other.cbor", manifest.bytes());
    let algorithm = match scene.tee {
        Tee::Snp => Algorithm::Sha256,
        Tee::Tdx => Algorithm::Sha384,
    };
    blob::write(manifest.bytes(), algorithm)
}

/// The operator launches another manifest than the one approved, and the hardware says so.
fn launch_other(scene: &Scene, launch: &mut Launch, blob: Vec<u8>) {
    scene.write("other.blob", &blob);
    launch.stock.insert(Item::LaunchBlob, scene.path("other.blob"));
    launch.launch_blob = blob;
}

#[test]
fn refuses_a_tampered_manifest() {
    let thief = |terms: &mut Terms| {
        terms.recipients = vec![Recipient { key: Octets([9; 32]), name: "operator".into() }];
    };
    let Some((ended, denied)) = launched(Tee::Snp, |scene, launch| {
        launch_other(scene, launch, with_terms(scene, thief));
    }) else {
        return;
    };
    halts(&ended, Halt::Release);
    assert_eq!(denied, ["approvals-of-other-manifest"]);

    let (ended, denied) = launched(Tee::Snp, |scene, launch| {
        launch_other(scene, launch, with_terms(scene, thief));
        let unsigned = Envelope::new(PAYLOAD_TYPE, &scene.read("other.cbor"));
        scene.write("approvals.json", unsigned.to_json());
    })
    .unwrap();
    halts(&ended, Halt::Release);
    assert_eq!(denied, ["approvals-missing"]);

    let (ended, denied) = launched(Tee::Snp, |scene, launch| {
        let mut blob = scene.read("plan/launch.blob");
        let middle = blob.len() / 2;
        blob[middle] = if blob[middle] == b'A' { b'B' } else { b'A' };
        launch_other(scene, launch, blob);
    })
    .unwrap();
    halts(&ended, Halt::Manifest);
    assert_eq!(denied, [""; 0]);
}

#[test]
fn refuses_a_manifest_outside_its_time() {
    const DAY: u64 = 86_400;
    for (planned, code) in
        [(now() - 31 * DAY, "manifest-expired"), (now() + DAY, "manifest-not-yet-valid")]
    {
        let setting = Setting::golden(Tee::Snp).with(|s| s.planned = planned);
        let Some(scene) = Scene::new(&setting) else { return };
        let (ended, denied) = launch(&scene, |_, _| ()).unwrap();
        halts(&ended, Halt::Release);
        assert_eq!(denied, [code]);
    }
}

#[test]
fn a_production_custodian_refuses_simulated_evidence() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let setting = Setting::golden(tee).with(|s| s.simulated_root = false);
        let Some(scene) = Scene::new(&setting) else { return };
        let (ended, denied) = launch(&scene, |_, _| ()).unwrap();
        halts(&ended, Halt::Release);
        assert_eq!(denied, ["evidence-inauthentic"]);
    }
}

#[test]
fn refuses_a_report_that_was_changed_after_it_was_signed() {
    for tee in [Tee::Snp, Tee::Tdx] {
        // A byte of the platform's TCB in both formats, which the enclave itself does not look at.
        let flip = |_: &Scene, launch: &mut Launch| launch.report = |report| report[0x180] ^= 1;
        let Some((ended, denied)) = launched(tee, flip) else { return };
        halts(&ended, Halt::Release);
        assert_eq!(denied, ["evidence-inauthentic"], "{tee:?}");
    }
}

// What the host brings.

/// Launches with a changed file; the custodian has no objection, the enclave has.
fn refuses_file(name: &str, halt: Halt, change: impl FnOnce(&Scene, &mut Vec<u8>)) {
    let brings = |scene: &Scene, _: &mut Launch| scene.change(name, |bytes| change(scene, bytes));
    let Some((ended, denied)) = launched(Tee::Snp, brings) else { return };
    halts(&ended, halt);
    assert_eq!(denied, [""; 0], "{name}");
}

#[test]
fn refuses_a_tampered_sealed_file() {
    refuses_file("dataset.sds", Halt::Dataset, |_, bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    refuses_file("dataset.sds", Halt::Dataset, |_, bytes| bytes.truncate(bytes.len() - 1));
    refuses_file("dataset.sds", Halt::Dataset, |_, bytes| bytes.clear());
    refuses_file("dataset.sds", Halt::Dataset, |_, bytes| bytes.push(0));
}

#[test]
fn refuses_another_valid_file_under_the_same_key() {
    refuses_file("dataset.sds", Halt::Dataset, |scene, bytes| *bytes = scene.seal_again());
}

#[test]
fn refuses_reordered_segments_of_a_sealed_file() {
    // Room for several segments of 64 KiB.
    let setting =
        Setting::golden(Tee::Snp).with(|s| s.job.push(("data.capacity", (4 << 16).to_string())));
    let Some(scene) = Scene::new(&setting) else { return };
    let (ended, denied) = launch(&scene, |scene, _| {
        scene.change("dataset.sds", |bytes| {
            let second = bytes.len() - 2 * 65_536;
            let (before, after) = bytes.split_at_mut(second);
            before[second - 65_536..].swap_with_slice(&mut after[..65_536]);
        });
    })
    .unwrap();
    halts(&ended, Halt::Dataset);
    assert_eq!(denied, [""; 0]);
}

#[test]
fn refuses_another_base_model() {
    for name in ["base/config.json", "base/model.safetensors", "base/tokenizer.json"] {
        refuses_file(name, Halt::Base, |_, bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    }
}

#[test]
fn halts_when_the_host_brings_nothing() {
    for (item, halt) in [
        (Item::LaunchBlob, Halt::Manifest),
        (Item::Approvals, Halt::Manifest),
        (Item::Dataset, Halt::Dataset),
        (Item::BaseConfig, Halt::Base),
        (Item::BaseWeights, Halt::Base),
        (Item::Tokenizer, Halt::Base),
    ] {
        let absent = |_: &Scene, launch: &mut Launch| {
            launch.stock.items.remove(&item.code());
        };
        let Some((ended, denied)) = launched(Tee::Snp, absent) else { return };
        halts(&ended, halt);
        assert_eq!(denied, [""; 0], "{item:?}");
    }
}

// Evidence and its connection.

/// A session by hand, with one change to its evidence: what the custodian answers, and logs.
fn answered(
    tee: Tee,
    change: impl FnOnce(&Scene, &Challenged, &mut Evidence),
) -> Option<(Result<Release, Answer>, Vec<String>, Vec<&'static str>)> {
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
        evidence.cpu = common::peer::report(&scene.processor(), &[0; 64]);
    };
    let Some((answer, denied, kinds)) = answered(Tee::Snp, constant) else { return };
    assert_eq!(answer.unwrap_err(), Answer::Denied);
    assert_eq!((denied, kinds), (vec!["binding-report-data".to_owned()], vec!["deny"]));
}

#[test]
fn refuses_gpu_evidence_where_the_manifest_has_no_gpu() {
    let gpu = |_: &Scene, _: &Challenged, evidence: &mut Evidence| {
        evidence.gpus.push(measurement::cbor::Blob(vec![1]));
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

// Attempts and the ledger.

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
