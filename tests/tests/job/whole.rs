//! What must work, and what it shows.

use host::progress;
use measurement::carrier::{Event, HEADER, HOST_PORT, Item, Kind, read_header};
use measurement::manifest::Tee;
use measurement::trace::Trace;

use crate::machine::Ended;
use crate::scene::{Scene, Setting};
use crate::{GOLDEN_LOG, denied, launch};

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
                let event = Event::from_bytes(bytes).unwrap();
                let (name, step, steps) = (progress::name(event.stage), event.step, event.steps);
                text += &format!("event   {name} {step}/{steps}, {length} bytes\n");
            }
            _ => panic!("{kind:?}"),
        }
    }
    text
}

/// The events among what the host is told.
fn events(ended: &Ended) -> Vec<Event> {
    let mut bytes = ended.written[HOST_PORT].as_slice();
    let mut events = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        let (kind, length) = read_header(*header).unwrap();
        let (payload, rest) = rest.split_at(length);
        bytes = rest;
        events.extend((kind == Kind::Event).then(|| Event::from_bytes(payload).unwrap()));
    }
    events
}

#[test]
fn the_host_hears_the_same_whatever_the_records_are() {
    let many: String = (0..30)
        .map(|n| format!("{{\"customer_id\":\"c-{n}\",\"text\":\"{}\"}}\n", "word ".repeat(n + 1)))
        .collect();
    // One unit, whose one record is many times longer than the context.
    let one = format!("{{\"customer_id\":\"c\",\"text\":\"{}\"}}\n", "long ".repeat(4000));
    let mut all = Vec::new();
    for records in [None, Some(many), Some(one)] {
        let setting = Setting::golden(Tee::Snp).with(|s| s.records = records);
        let Some(scene) = Scene::new(&setting) else { return };
        let (ended, _) = launch(&scene, |_, _| ()).unwrap();
        assert_eq!(ended.outcome, Ok(()));
        assert_eq!(events(&ended), Trace::of(&scene.manifest()).events());
        all.push(heard(&ended));
    }
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
    // The receipt names the engine's kernels, which are the processor's; all else is golden.
    let (_, rest) = all[0].split_once("Receipt, ").unwrap();
    let length = rest.split_once(' ').unwrap().0;
    let golden = include_str!("../../vectors/session.txt").replace("(length)", length);
    assert_eq!(all[0], golden);
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
