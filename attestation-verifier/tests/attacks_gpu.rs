//! Attacks on the evidence of a GPU: one golden machine under test roots, one change each, and the
//! finding that each must get. What is changed in a signed part is signed again.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use attestation_verifier::appraise::{ExpectedDevices, Finding, Verifier};
use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::policy::{AppraisalPolicy, STRICT};
use common::amd::hex;
use common::nvidia::{
    Device, Key, Lab, Manifest, NONCE, NOW, Ocsp, Party, Report, Spec, critical_extension, name,
    resource, revocation_list, revocation_list_by, sign, unchanged,
};
use common::{WAIVED, with};
use measurement::octets::Octets;

/// What no attack has touched: made once, for keys take their time.
static GOLDEN: LazyLock<Attempt> = LazyLock::new(|| Attempt::changed(&unchanged));

/// One thing that is tried: golden until an attack changes it.
#[derive(Clone)]
struct Attempt {
    lab: Lab,
    devices: Vec<DeviceEvidence>,
    gpu: Device,
    report: Report,
    /// Before the signature.
    body: Vec<(usize, u8)>,
    /// After it.
    cut: Option<fn(&mut Vec<u8>)>,
    manifests: Vec<Vec<u8>>,
    revocations: Vec<Vec<u8>>,
    policy: Vec<(&'static str, String)>,
    nonce: [u8; 32],
    count: (usize, usize),
    chips: Vec<Octets<8>>,
}

impl Attempt {
    fn changed(change: common::nvidia::Change<'_>) -> Self {
        let lab = Lab::new(change);
        let gpu = lab.device("GH100 A01 GSP", "41", 0x1122_3344_5566_7788, change);
        Self {
            manifests: lab.manifests(),
            revocations: lab.revocations(&[&gpu]),
            devices: Vec::new(),
            report: Report::gpu(),
            body: Vec::new(),
            cut: None,
            policy: Vec::new(),
            nonce: NONCE,
            count: (1, 0),
            chips: Vec::new(),
            gpu,
            lab,
        }
    }

    fn reasons(mut self) -> Vec<&'static str> {
        let mut body = self.report.body();
        for (at, value) in &self.body {
            body[*at] = *value;
        }
        let mut report = sign(body, &self.gpu.key.key);
        if let Some(cut) = self.cut {
            cut(&mut report);
        }
        self.devices.insert(0, DeviceEvidence::new(report, self.gpu.chain.clone()));
        let golden = self.lab.policy_from(STRICT);
        let policy =
            self.policy.iter().fold(golden, |policy, (check, value)| with(&policy, check, value));
        let items = [self.manifests, self.revocations].concat();
        let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
        let (gpus, switches) = self.count;
        let expected = ExpectedDevices { nonce: &self.nonce, gpus, switches, chips: &self.chips };
        let verifier = Verifier::new(AppraisalPolicy::parse(&policy).unwrap());
        let verdict = verifier.appraise_devices(&self.devices, &items, &expected, NOW);
        let reasons = verdict.err().map(|rejection| rejection.reasons()).unwrap_or_default();
        reasons.iter().map(Finding::id).collect()
    }
}

struct Attack {
    name: String,
    ids: Vec<&'static str>,
    run: Box<dyn Fn() -> Attempt>,
}

type Attacks = Vec<Attack>;

fn add(
    attacks: &mut Attacks,
    name: impl Into<String>,
    ids: &[&'static str],
    change: impl Fn(&mut Attempt) + 'static,
) {
    let run = move || {
        let mut attempt = GOLDEN.clone();
        change(&mut attempt);
        attempt
    };
    attacks.push(Attack { name: name.into(), ids: ids.to_vec(), run: Box::new(run) });
}

/// A change of one certificate, by its place.
fn certificate(
    attacks: &mut Attacks,
    place: &'static str,
    what: &str,
    id: &'static str,
    change: impl Fn(&mut Spec) + 'static,
) {
    let run = move || {
        Attempt::changed(&|at, spec| {
            if at == place {
                change(spec);
            }
        })
    };
    attacks.push(Attack { name: format!("{place}: {what}"), ids: vec![id], run: Box::new(run) });
}

fn byte(attacks: &mut Attacks, name: &str, id: &'static str, at: usize, value: u8) {
    add(attacks, name, &[id], move |attempt| attempt.body.push((at, value)));
}

fn field(
    attacks: &mut Attacks,
    name: &str,
    ids: &[&'static str],
    kind: u16,
    value: Option<&'static [u8]>,
) {
    add(attacks, name, ids, move |attempt| {
        attempt.report = attempt.report.clone().with(kind, value);
    });
}

fn message_attacks(all: &mut Attacks) {
    let unknown = "shape.unknown";
    for (name, at, value) in [
        ("request of another version", 0, 0x12),
        ("request for something else", 1, 0xe1),
        ("request for no signature", 2, 0),
        ("request for one measurement", 3, 1),
        ("request to another slot", 36, 1),
        ("response of another version", 37, 0x12),
        ("response that is an error", 38, 0x7f),
        ("response with a first parameter", 39, 1),
        ("response with a second parameter", 40, 1),
        ("block of another specification", 46, 2),
        ("block of another kind", 49, 2),
    ] {
        byte(all, name, unknown, at, value);
    }
    for (name, at, value) in [("block that is not the first", 45, 2), ("block zero", 45, 0)] {
        byte(all, name, unknown, at, value);
    }
    byte(all, "block of another size", unknown, 47, 52);
    byte(all, "value of another size", unknown, 50, 32);
    byte(all, "one block more than there are", "shape.length", 41, 65);
    byte(all, "one block fewer than there are", "shape.length", 41, 63);
    byte(all, "record one byte longer", "shape.length", 42, 0xc1);
    type Cut = fn(&mut Vec<u8>);
    let cuts: [(&str, &'static str, Cut); 5] = [
        ("no report", "shape.truncated", Vec::clear),
        ("only a request", "shape.truncated", |report| report.truncate(37)),
        ("a byte too few", "shape.truncated", |report| report.truncate(report.len() - 1)),
        ("a byte too many", "shape.trailing_bytes", |report| report.push(0)),
        ("another report behind it", "shape.trailing_bytes", |report| {
            report.extend(report.clone());
        }),
    ];
    for (name, id, cut) in cuts {
        add(all, name, &[id], move |attempt| attempt.cut = Some(cut));
    }
    for (name, at) in [("nonce", 4), ("response code", 38), ("measurement", 60)] {
        let flip: Cut = match at {
            4 => |report| report[4] ^= 1,
            38 => |report| report[37] ^= 1,
            _ => |report| report[60] ^= 1,
        };
        let id = if at == 38 { "shape.unknown" } else { "origin.signature" };
        add(all, format!("{name} changed after the signature"), &[id], move |attempt| {
            attempt.cut = Some(flip);
        });
    }
    let half: Cut = |report| {
        let at = report.len() - 96;
        report[at..].fill(0);
    };
    add(all, "a signature of zeros", &["origin.signature"], move |a| a.cut = Some(half));
}

fn field_attacks(all: &mut Attacks) {
    let unknown: &[&'static str] = &["shape.unknown"];
    let length: &[&'static str] = &["shape.length"];
    let text: &[&'static str] = &["shape.text"];
    field(all, "firmware id left out", &["gpu.fwid"], 20, None);
    field(all, "firmware id of other firmware", &["origin.fwid"], 20, Some(&[0xf1; 48]));
    field(all, "firmware id of zeros", &["origin.fwid"], 20, Some(&[0; 48]));
    field(all, "firmware id a byte short", length, 20, Some(&[0xf0; 47]));
    field(all, "vbios version a byte short", length, 6, Some(&[0; 7]));
    field(all, "driver version with a second text", text, 3, Some(b"580.95.05\0x"));
    field(all, "driver version of other characters", text, 3, Some(b"580.95.05\n"));
    field(all, "driver version left out", &["gpu.driver", "gpu.measurements"], 3, None);
    field(all, "vbios version left out", &["gpu.vbios", "gpu.measurements"], 6, None);
    field(all, "older driver", &["gpu.driver", "gpu.measurements"], 3, Some(b"580.95.04\0"));
    field(
        all,
        "driver of an older branch",
        &["gpu.driver", "gpu.measurements"],
        3,
        Some(b"545.00\0"),
    );
    let between = ["gpu.driver", "gpu.measurements"];
    field(all, "driver of a branch between two floors", &between, 3, Some(b"565.57.01\0"));
    let older: &[u8] = &[0, 0x5d, 0, 0x96, 1, 0, 0, 0];
    field(all, "older vbios", &["gpu.vbios", "gpu.measurements"], 6, Some(older));
    let other: &[u8] = &[0, 0x9f, 0, 0x95, 1, 0, 0, 0];
    field(all, "vbios of another line", &["gpu.vbios", "gpu.measurements"], 6, Some(other));
    field(all, "decoder neither on nor off", unknown, 11, Some(&[0]));
    field(all, "decoder on, its firmware unmeasured", &["gpu.measurements"], 11, Some(&[0xaa]));
    field(all, "decoder not spoken of", &["gpu.measurements"], 11, None);
    field(all, "links neither on nor off", unknown, 21, Some(&[1]));
    field(all, "links on, and alone", &["gpu.modes"], 21, Some(&[0xaa]));
    field(all, "several with switches, links off", &["gpu.modes"], 36, Some(&[2, 0]));
    field(all, "mode of no one", unknown, 36, Some(&[3, 0]));
    field(all, "mode with a high byte", unknown, 36, Some(&[0, 1]));
    field(all, "mode of one byte", length, 36, Some(&[0]));
    field(all, "opaque data of another version", unknown, 34, Some(&[2, 0]));
    field(all, "chip info of another chip", &["gpu.chip_info"], 35, Some(b"GB100\0"));
    field(all, "switch ids with a rest", text, 22, Some(&[0; 9]));
    field(all, "field without a type", unknown, 0, Some(&[]));
    field(all, "field of the invalid type", unknown, 255, Some(&[]));
    for kind in [26_u16, 27, 31, 37, 100, 254, 256, 0xffff] {
        let name = format!("field {kind} that no one knows");
        field(all, &name, &["gpu.opaque"], kind, Some(&[1]));
    }
    add(all, "field that comes twice", unknown, |attempt| {
        let first = attempt.report.opaque[0].clone();
        attempt.report.opaque.push(first);
    });
    add(all, "mode not spoken of at all", &["gpu.modes"], |attempt| {
        attempt.report = attempt.report.clone().with(36, None).with(21, None);
    });
}

fn measurement_attacks(all: &mut Attacks) {
    for index in [1, 2, 3, 4, 5, 6, 7, 8, 40] {
        let name = format!("measurement {index} of other firmware");
        add(all, name, &["gpu.measurements"], move |attempt| {
            attempt.report = attempt.report.clone().measuring(index, [0xee; 48]);
        });
        let name = format!("measurement {index} zero");
        add(all, name, &["gpu.measurements"], move |attempt| {
            attempt.report = attempt.report.clone().measuring(index, [0; 48]);
        });
    }
    for index in [9, 10, 34, 36, 50, 60, 63] {
        let name = format!("measurement {index} of which no manifest speaks");
        add(all, name, &["gpu.uncovered"], move |attempt| {
            attempt.report = attempt.report.clone().measuring(index, [1; 48]);
        });
    }
    add(all, "report that ends before a measurement", &["gpu.measurements"], |attempt| {
        attempt.report.measurements.truncate(40);
    });
    add(all, "measurements in each other's places", &["gpu.measurements"; 2], |attempt| {
        attempt.report = attempt.report.clone().measuring(1, [2; 48]).measuring(2, [1; 48]);
    });
}

#[expect(clippy::too_many_lines, reason = "a table of attacks")]
fn certificate_attacks(all: &mut Attacks) {
    const DEVICE: [&str; 5] = ["key", "identity", "provisioner", "family", "root"];
    const MANIFEST: [&str; 4] =
        ["manifest signer", "manifest issuer", "manifest authority", "manifest root"];
    for place in DEVICE.into_iter().chain(MANIFEST) {
        let expired = |spec: &mut Spec| spec.dates = (NOW - 9, NOW - 1);
        certificate(all, place, "expired", "origin.expired", expired);
        let early = |spec: &mut Spec| spec.dates = (NOW + 1, NOW + 9);
        certificate(all, place, "not yet valid", "origin.not_yet_valid", early);
        if place.ends_with("root") {
            continue;
        }
        certificate(all, place, "signed by another key", "origin.signature", |s| s.forged = true);
        let other = |spec: &mut Spec| spec.issuer = name("Another", None);
        certificate(all, place, "of another issuer", "origin.issuer", other);
        let weak = |spec: &mut Spec| spec.algorithm = "300a06082a8648ce3d040301";
        certificate(all, place, "of another algorithm", "origin.unusable", weak);
        let critical = critical_extension("2b0601", &[5, 0]);
        certificate(all, place, "with a critical extension", "origin.unusable", move |spec| {
            spec.extensions.extend(&critical);
        });
        let leaf = ["key", "manifest signer"].contains(&place);
        let (what, constraints) =
            if leaf { ("an authority", "30030101ff") } else { ("no authority", "3000") };
        certificate(all, place, what, "origin.unusable", move |spec| {
            spec.constraints = Some(constraints);
        });
        let (what, usage) =
            if leaf { ("may not sign", "03020106") } else { ("may not certify", "03020780") };
        certificate(all, place, what, "origin.unusable", move |spec| spec.usage = usage);
    }
    for (what, common) in [
        ("of an older chip", "GA100 A01 GSP FMC LF"),
        ("of another processor of the chip", "GH100 A01 FSP FMC LF"),
        ("in small letters", "gh100 A01 GSP FMC LF"),
        ("of no chip", "NVIDIA Device Identity CA"),
    ] {
        certificate(all, "key", what, "origin.unusable", move |spec| {
            spec.subject = name(common, None);
        });
    }
    for (what, serial) in [("without an id", None), ("with a short id", Some("4111223344556677"))] {
        certificate(all, "identity", what, "origin.unusable", move |spec| {
            spec.subject = name("GH100 A01 GSP BROM", serial);
        });
    }
    certificate(all, "identity", "of another stepping", "origin.unusable", |spec| {
        spec.subject = name("GH100 A02 GSP BROM", Some("411122334455667788"));
    });
    certificate(all, "key", "without dice", "origin.extension", |spec| spec.extensions.clear());
    let stranger = common::nvidia::composite(&Key::new().spki(), &[0xf0; 48]);
    certificate(
        all,
        "key",
        "certified for another device",
        "origin.device_identity",
        move |spec| {
            spec.extensions.clone_from(&stranger);
        },
    );
    add(all, "chain of another device", &["origin.signature"], |attempt| {
        attempt.gpu.chain = attempt.lab.gpu(9).chain;
    });
    add(all, "chain without its root", &["origin.unknown_root"], |attempt| {
        let at = attempt.gpu.chain.rfind("-----BEGIN").unwrap();
        attempt.gpu.chain.truncate(at);
    });
    add(all, "chain with its root twice", &["origin.chain_length"], |attempt| {
        let at = attempt.gpu.chain.rfind("-----BEGIN").unwrap();
        let root = attempt.gpu.chain[at..].to_string();
        attempt.gpu.chain.push_str(&root);
    });
    add(all, "no chain", &["origin.missing"], |attempt| attempt.gpu.chain.clear());
    add(all, "chain of text", &["shape.text"], |attempt| attempt.gpu.chain = "a chain".into());
    add(all, "chain to a root of its own", &["origin.unknown_root"], |attempt| {
        let own = Lab::new(&unchanged);
        attempt.gpu = own.gpu(0x1122_3344_5566_7788);
    });
}

#[expect(clippy::too_many_lines, reason = "a table of attacks")]
fn manifest_attacks(all: &mut Attacks) {
    let signature: &[&'static str] = &["origin.signature"];
    let endorsement: &[&'static str] = &["shape.endorsement"];
    let measurements: &[&'static str] = &["gpu.measurements"];
    add(all, "manifest signed by a stranger", signature, |attempt| {
        attempt.manifests[0] = attempt.lab.sign_by(&Manifest::driver(), &Key::new());
    });
    add(all, "manifest signed by its signer's issuer", signature, |attempt| {
        let key = &attempt.lab.manifest_issuer.key;
        attempt.manifests[0] = attempt.lab.sign_by(&Manifest::driver(), key);
    });
    add(all, "manifest signed by the device", signature, |attempt| {
        attempt.manifests[0] = attempt.lab.sign_by(&Manifest::driver(), &attempt.gpu.key.key);
    });
    add(all, "manifest changed after it was signed", &["origin.digest"], |attempt| {
        let text = String::from_utf8(attempt.manifests[0].clone()).unwrap();
        let (from, to) = ("04".repeat(48), "ee".repeat(48));
        assert!(text.contains(&from));
        attempt.manifests[0] = text.replace(&from, &to).into_bytes();
    });
    add(all, "manifest under a root of its own", &["origin.unknown_root"], |attempt| {
        attempt.manifests = Lab::new(&unchanged).manifests();
    });
    for (name, at) in [("driver", 0), ("vbios", 1)] {
        add(all, format!("no manifest of the {name}"), measurements, move |attempt| {
            drop(attempt.manifests.remove(at));
        });
    }
    add(all, "two manifests of one driver", measurements, |attempt| {
        let other = Manifest::new("GPU", common::nvidia::DRIVER, &[1, 2, 3, 4, 35]);
        let other = other.edit("name=\"Measurement_1\"", "name=\"Other_1\"");
        attempt.manifests.push(attempt.lab.sign(&other));
    });
    for (name, from, to) in [
        ("for another chip", "product=\"GH100\"", "product=\"GB100\""),
        ("for a switch", "edition=\"GPU\"", "edition=\"SWITCH\""),
        ("of another driver", "colloquialVersion=\"580.95.05", "colloquialVersion=\"580.95.06"),
    ] {
        add(all, format!("manifest {name}"), measurements, move |attempt| {
            attempt.manifests[0] = attempt.lab.sign(&Manifest::driver().edit(from, to));
        });
    }
    for (name, from, to) in [
        ("with a second signature", "{signature}</Soft", "{signature}{signature}</Soft"),
        ("with text after its signature", "{signature}</Soft", "{signature}x</Soft"),
        (
            "with a resource outside its payload",
            "</ns0:Payload>\n",
            "</ns0:Payload>\n<ns0:Resource></ns0:Resource>",
        ),
        ("with a second payload", "<ns0:Payload>", "<ns0:Payload></ns0:Payload>\n<ns0:Payload>"),
        ("of another maker", "\"5703\"", "\"5704\""),
        ("with an index twice", "index=\"2\"", "index=\"1\""),
        ("with an index of two spellings", "index=\"2\"", "index=\"02\""),
        ("neither active nor not", "active=\"True\"", "active=\"TRUE\""),
        ("with no alternative", "alternatives=\"1\"", "alternatives=\"0\""),
        ("with an alternative too few", "alternatives=\"1\"", "alternatives=\"2\""),
        ("with shorter digests", "size=\"48\"", "size=\"32\""),
        ("with a document type", "<SoftwareIdentity", "<!DOCTYPE x><SoftwareIdentity"),
        ("with a comment", "<ns0:Payload>\n", "<ns0:Payload>\n<!-- x -->"),
        ("with an entity", "Corporation\"></ns0", "&amp;\"></ns0"),
    ] {
        add(all, format!("manifest {name}"), endorsement, move |attempt| {
            attempt.manifests[0] = attempt.lab.sign(&Manifest::driver().edit(from, to));
        });
    }
    for (name, from, to) in [
        ("signed with sha-1", "#ecdsa-sha384", "#ecdsa-sha1"),
        ("signed with a shared key", "#ecdsa-sha384", "#hmac-sha384"),
        ("digested otherwise", "more#sha384", "more#sha224"),
        ("whose signature is over a part", "<ds:Reference URI=\"\">", "<ds:Reference URI=\"#x\">"),
        ("that is transformed otherwise", "#enveloped-signature", "#base64"),
    ] {
        add(all, format!("manifest {name}"), endorsement, move |attempt| {
            let mut manifest = Manifest::driver();
            assert!(manifest.signed_info.contains(from));
            manifest.signed_info = manifest.signed_info.replace(from, to);
            attempt.manifests[0] = attempt.lab.sign(&manifest);
        });
    }
    add(all, "manifest that names its key by value", endorsement, |attempt| {
        let key_info = "<ds:KeyInfo><ds:KeyValue></ds:KeyValue><ds:X509Data>{certificates}\
                        </ds:X509Data></ds:KeyInfo>";
        let manifest = Manifest { key_info: key_info.into(), ..Manifest::driver() };
        attempt.manifests[0] = attempt.lab.sign(&manifest);
    });
    add(all, "an index in both manifests", measurements, |attempt| {
        let mut vbios = Manifest::vbios();
        vbios.resources.push(resource(4, "True", &[[4; 48]]));
        attempt.manifests[1] = attempt.lab.sign(&vbios);
    });
    add(all, "a value that should be zero", measurements, |attempt| {
        let mut driver = Manifest::driver();
        driver.resources[3] = resource(4, "True", &[[0; 48]]);
        attempt.manifests[0] = attempt.lab.sign(&driver);
    });
    add(all, "a measurement that is no longer active", &["gpu.uncovered"], |attempt| {
        let mut driver = Manifest::driver();
        driver.resources[3] = resource(4, "False", &[[4; 48]]);
        attempt.manifests[0] = attempt.lab.sign(&driver);
    });
}

#[expect(clippy::too_many_lines, reason = "a table of attacks")]
fn revocation_attacks(all: &mut Attacks) {
    let window = (NOW - 10, NOW + 10);
    let revoked: &[&'static str] = &["origin.revoked"];
    type Of = fn(&Attempt) -> (&Party, &Party);
    let places: [(&str, Of); 6] = [
        ("family", |a| (&a.lab.family, &a.lab.root)),
        ("provisioner", |a| (&a.lab.provisioner, &a.lab.family)),
        ("identity", |a| (&a.gpu.identity, &a.lab.provisioner)),
        ("manifest authority", |a| (&a.lab.manifest_authority, &a.lab.manifest_root)),
        ("manifest issuer", |a| (&a.lab.manifest_issuer, &a.lab.manifest_authority)),
        ("manifest signer", |a| (&a.lab.manifest_signer, &a.lab.manifest_issuer)),
    ];
    for (place, of) in places {
        add(all, format!("{place} on a list"), revoked, move |attempt| {
            let (party, issuer) = of(attempt);
            let list = revocation_list(issuer, window, &[&party.serial]);
            attempt.revocations.push(list);
        });
        add(all, format!("{place} on a list of long ago"), revoked, move |attempt| {
            let (party, issuer) = of(attempt);
            let list = revocation_list(issuer, (1, 2), &[&party.serial]);
            attempt.revocations.push(list);
        });
        add(all, format!("{place} revoked by an answer"), revoked, move |attempt| {
            let (party, issuer) = of(attempt);
            let answer = Ocsp { status: Ocsp::revoked(Some(1)), ..Ocsp::good(party, issuer) };
            let answer = answer.answer();
            attempt.revocations.push(answer);
        });
        add(all, format!("{place} on hold"), revoked, move |attempt| {
            let (party, issuer) = of(attempt);
            let answer = Ocsp { status: Ocsp::revoked(Some(6)), ..Ocsp::good(party, issuer) };
            let answer = answer.answer();
            attempt.revocations.push(answer);
        });
    }
    for (name, then) in [("revoked", Ocsp::revoked(Some(1))), ("on hold", Ocsp::revoked(Some(6)))] {
        add(all, format!("answer of good, then of {name}"), revoked, move |attempt| {
            let good = Ocsp::good(&attempt.gpu.identity, &attempt.lab.provisioner);
            let answer = Ocsp { then: then.clone(), ..good }.answer();
            attempt.revocations[5] = answer;
        });
    }
    add(all, "list that another key signed", &["origin.signature"], |attempt| {
        let name = &attempt.lab.family.name;
        let list = revocation_list_by(name, &Key::new(), (NOW - 10, NOW + 10), &[]);
        attempt.revocations[1] = list;
    });
    add(all, "answer that another key signed", &["origin.signature"], |attempt| {
        let good = Ocsp::good(&attempt.gpu.identity, &attempt.lab.provisioner);
        let answer = Ocsp { forged: true, ..good }.answer();
        attempt.revocations[5] = answer;
    });
    for (name, at) in [("family", 0), ("provisioner", 1), ("identity", 5)] {
        add(all, format!("nothing about the {name}"), &["gpu.revocation"], move |attempt| {
            drop(attempt.revocations.remove(at));
        });
    }
    for (name, at) in [("manifest authority", 2), ("manifest issuer", 3), ("manifest signer", 4)] {
        let ids = &["gpu.manifest_revocation"];
        add(all, format!("nothing about the {name}"), ids, move |attempt| {
            drop(attempt.revocations.remove(at));
        });
    }
    for (name, window) in [("of yesterday", (NOW - 10, NOW)), ("of tomorrow", (NOW + 1, NOW + 9))] {
        add(all, format!("list {name}"), &["gpu.revocation"], move |attempt| {
            attempt.revocations[1] = revocation_list(&attempt.lab.family, window, &[]);
        });
        add(all, format!("answer {name}"), &["gpu.revocation"], move |attempt| {
            let good = Ocsp::good(&attempt.gpu.identity, &attempt.lab.provisioner);
            let answer = Ocsp { window: (window.0, Some(window.1)), ..good }.answer();
            attempt.revocations[5] = answer;
        });
    }
    add(all, "answer without an end", &["gpu.revocation"], |attempt| {
        let good = Ocsp::good(&attempt.gpu.identity, &attempt.lab.provisioner);
        let answer = Ocsp { window: (NOW - 10, None), ..good }.answer();
        attempt.revocations[5] = answer;
    });
    add(all, "answer that knows nothing", &["gpu.revocation"], |attempt| {
        let good = Ocsp::good(&attempt.gpu.identity, &attempt.lab.provisioner);
        let answer = Ocsp { status: hex("8200"), ..good }.answer();
        attempt.revocations[5] = answer;
    });
}

fn session_attacks(all: &mut Attacks) {
    add(all, "another nonce", &["devices.nonce"], |attempt| attempt.nonce[31] ^= 1);
    add(all, "one GPU where there should be two", &["devices.count"], |a| a.count = (2, 0));
    add(all, "a GPU where there should be none", &["devices.count"], |a| a.count = (0, 0));
    add(all, "a GPU where there should be a switch", &["devices.count"], |a| a.count = (0, 1));
    add(all, "a device that is not listed", &["gpu.chip"], |a| a.chips = vec![Octets([9; 8])]);
    let twice: &[&'static str] = &["devices.count", "devices.distinct"];
    add(all, "one GPU shown twice", twice, |attempt| {
        attempt.devices.push(attempt.gpu.evidence(&attempt.report));
    });
    add(all, "one GPU asked twice", &["devices.distinct"], |attempt| {
        attempt.count = (2, 0);
        let again = Report { responder_nonce: [3; 32], ..attempt.report.clone() };
        attempt.devices.push(attempt.gpu.evidence(&again));
    });
    add(all, "a second GPU of another session", &["devices.nonce"], |attempt| {
        attempt.count = (2, 0);
        let second = attempt.lab.gpu(9);
        let other = Report { nonce: [1; 32], responder_nonce: [3; 32], ..attempt.report.clone() };
        attempt.devices.push(second.evidence(&other));
        attempt.revocations.push(Ocsp::good(&second.identity, &attempt.lab.provisioner).answer());
    });
    add(all, "a GPU alone beside one of several", &["devices.alike"], |attempt| {
        attempt.count = (2, 0);
        let second = attempt.lab.gpu(9);
        let other = Report { responder_nonce: [3; 32], ..attempt.report.clone() };
        attempt.devices.push(second.evidence(&other.with(36, Some(&[1, 0]))));
        attempt.revocations.push(Ocsp::good(&second.identity, &attempt.lab.provisioner).answer());
    });
    for (check, value) in [
        ("gpu.products", "{ require = [\"GB100\"] }"),
        ("gpu.chip", "{ require = \"listed\" }"),
        ("gpu.modes", "{ require = [\"ppcie\", \"mpt\"] }"),
        ("gpu.driver", "{ require = [\"580.95.06\"] }"),
        ("gpu.vbios", "{ require = [\"96.00.9F.00.02\"] }"),
    ] {
        let name = format!("golden report, but the policy asks for another {check}");
        add(all, name, &[check], move |attempt| attempt.policy.push((check, value.into())));
    }
}

fn attacks() -> Attacks {
    let mut all = Vec::new();
    message_attacks(&mut all);
    field_attacks(&mut all);
    measurement_attacks(&mut all);
    certificate_attacks(&mut all);
    manifest_attacks(&mut all);
    revocation_attacks(&mut all);
    session_attacks(&mut all);
    all
}

#[test]
fn gives_every_attack_its_finding() {
    let mut wrong = Vec::new();
    for Attack { name, ids, run } in attacks() {
        let seen = run().reasons();
        if seen != ids {
            wrong.push(format!("{name}: {seen:?}, required {ids:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_each_attack_once_and_knows_at_least_150() {
    let attacks = attacks();
    let names: BTreeSet<_> = attacks.iter().map(|attack| attack.name.clone()).collect();
    assert_eq!(names.len(), attacks.len());
    // Not counting single measurements.
    let named = names.iter().filter(|name| !name.starts_with("measurement ")).count();
    assert!(named >= 150, "{named}");
}

#[test]
fn accepts_the_golden_gpu_and_what_is_exactly_at_its_limit() {
    let golden: [&str; 0] = [];
    assert_eq!(GOLDEN.clone().reasons(), golden);
    for (check, value) in [
        ("gpu.driver", "{ require = [\"580.95.05\"] }"),
        ("gpu.vbios", "{ require = [\"96.00.9F.00.01\"] }"),
        ("gpu.revocation", WAIVED),
    ] {
        let mut attempt = GOLDEN.clone();
        attempt.policy.push((check, value.into()));
        assert_eq!(attempt.reasons(), golden, "{check}");
    }
    // The longest report a driver hands out, filled with a field that no one knows, and one more.
    for (total, ids) in [(0x2000, ["gpu.opaque"]), (0x2001, ["shape.too_long"])] {
        let mut attempt = GOLDEN.clone();
        let used = attempt.report.body().len() + 96 + 4;
        attempt.report.opaque.push((100, vec![0; total - used]));
        assert_eq!(attempt.reasons(), ids);
    }
    // The longest version is a version, of no driver that is known.
    for (length, ids) in [(32, vec!["gpu.driver", "gpu.measurements"]), (33, vec!["shape.text"])] {
        let mut attempt = GOLDEN.clone();
        let version = [vec![b'5'; length], vec![0]].concat();
        attempt.report = attempt.report.with(3, Some(&version));
        assert_eq!(attempt.reasons(), ids);
    }
    let mut attempt = GOLDEN.clone();
    attempt.chips = vec![Octets([9; 8]), Octets(0x1122_3344_5566_7788_u64.to_be_bytes())];
    assert_eq!(attempt.reasons(), golden);
    // The first and the last second of a certificate.
    for dates in [(NOW, NOW + 9), (NOW - 9, NOW)] {
        let attempt = Attempt::changed(&|_, spec| spec.dates = dates);
        assert_eq!(attempt.reasons(), golden);
    }
}
