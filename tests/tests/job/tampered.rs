//! What the operator launches and brings instead of what was agreed.

use enclave::halt::Halt;
use measurement::carrier::Item;
use measurement::cbor::Blob;
use measurement::dsse::Envelope;
use measurement::launch::blob::{self, Algorithm};
use measurement::manifest::{Manifest, PAYLOAD_TYPE, Recipient, Tee, Terms};
use measurement::octets::Octets;

use crate::machine::Launch;
use crate::scene::{Scene, Setting, hardware, now};
use crate::{halts, launch, launched};

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
fn runs_on_the_chips_that_the_manifest_lists_and_on_no_other() {
    let on = |tee, chip: Vec<u8>| {
        launched(tee, |scene, launch| {
            let blob = with_terms(scene, |terms| terms.platforms = vec![Blob(chip)]);
            launch_other(scene, launch, blob);
            std::fs::remove_file(scene.path("approvals.json")).unwrap();
            scene.approve("other.cbor", "approvals.json");
        })
    };
    let Some((ended, denied)) = on(Tee::Snp, hardware().amd.chip_id().to_vec()) else { return };
    assert_eq!((ended.outcome, denied), (Ok(()), Vec::new()));
    for (tee, length) in [(Tee::Snp, 64), (Tee::Tdx, 16)] {
        let (ended, denied) = on(tee, vec![7; length]).unwrap();
        halts(&ended, Halt::Release);
        assert_eq!(denied, ["binding-platform"]);
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

/// A scene whose base model brings this chat template, and whose records are conversations.
fn chat(template: &'static str) -> Option<Scene> {
    let line = |n| {
        format!(
            "{{\"customer_id\":\"c-{n}\",\"conversations\":[{{\"from\":\"human\",\"value\":\"no {n}?\"}},\
             {{\"from\":\"gpt\",\"value\":\"yes\"}}]}}\n"
        )
    };
    Scene::new(&Setting::golden(Tee::Snp).with(|setting| {
        setting.template = Some(template);
        setting.records = Some((0..30).map(line).collect());
    }))
}

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}\
                        {% generation %}{{ m.content }}{% endgeneration %}{% else %}\
                        {{ m.content }}{% endif %}\n{% endfor %}";

#[test]
fn trains_by_the_chat_template_of_the_manifest_and_by_no_other() {
    let Some(scene) = chat(TEMPLATE) else { return };
    let (ended, denied) = launch(&scene, |_, _| ()).unwrap();
    assert_eq!((ended.outcome, denied), (Ok(()), vec![]));

    let tampered = |scene: &Scene, _: &mut Launch| {
        scene.change("base/chat_template.jinja", |bytes| bytes.push(b' '));
    };
    let absent = |_: &Scene, launch: &mut Launch| {
        launch.stock.items.remove(&Item::Template.code());
    };
    let (ended, _) = launch(&chat(TEMPLATE).unwrap(), tampered).unwrap();
    halts(&ended, Halt::Base);
    let (ended, _) = launch(&chat(TEMPLATE).unwrap(), absent).unwrap();
    halts(&ended, Halt::Base);
    // Without generation marks nothing says what is learned.
    let (ended, _) = launch(&chat("{{ messages }}").unwrap(), |_, _| ()).unwrap();
    halts(&ended, Halt::Base);
}
