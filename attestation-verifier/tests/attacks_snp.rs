//! Attacks on SNP evidence: one golden report under a test root, one change each, and the finding that
//! each must get. What is changed in the signed part is signed again.

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

use common::amd::{Hierarchy, LAUNCH_BLOB, NOW, PSS_SHORT_SALT, Shape};
use common::nvidia::critical_extension;
use common::{appraise, reasons, with};
use measurement::manifest::Tee;

/// One thing that is tried: golden until an attack changes it.
struct Attempt {
    shape: Shape,
    /// Before the signature.
    body: Vec<(usize, Vec<u8>)>,
    /// After it.
    raw: Vec<(usize, Vec<u8>)>,
    /// The last change to the report.
    cut: Option<fn(&mut Vec<u8>)>,
    endorsements: Option<Endorse>,
    policy: Vec<(&'static str, String)>,
    tee: Tee,
}

impl Attempt {
    fn golden() -> Self {
        Self {
            shape: Shape::default(),
            body: Vec::new(),
            raw: Vec::new(),
            cut: None,
            endorsements: None,
            policy: Vec::new(),
            tee: Tee::Snp,
        }
    }

    fn reasons(&self) -> Vec<&'static str> {
        let hierarchy = Hierarchy::new(&self.shape);
        let mut report = hierarchy.report(|body| {
            for (at, bytes) in &self.body {
                body[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        });
        for (at, bytes) in &self.raw {
            report[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        if let Some(cut) = self.cut {
            cut(&mut report);
        }
        let mut endorsements = hierarchy.endorsements();
        if let Some(change) = self.endorsements {
            change(&mut endorsements, &hierarchy);
        }
        let policy = self
            .policy
            .iter()
            .fold(hierarchy.policy(), |policy, (check, value)| with(&policy, check, value));
        reasons(&appraise(&policy, self.tee, &report, &endorsements, LAUNCH_BLOB, NOW))
    }
}

struct Attack {
    name: String,
    ids: Vec<&'static str>,
    change: Box<dyn Fn(&mut Attempt)>,
}

type Attacks = Vec<Attack>;

/// A change of the endorsements.
type Endorse = fn(&mut Vec<Vec<u8>>, &Hierarchy);

fn add(
    attacks: &mut Attacks,
    name: impl Into<String>,
    ids: &[&'static str],
    change: impl Fn(&mut Attempt) + 'static,
) {
    attacks.push(Attack { name: name.into(), ids: ids.to_vec(), change: Box::new(change) });
}

/// A change of signed bytes.
fn body(attacks: &mut Attacks, name: &str, ids: &[&'static str], at: usize, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    add(attacks, name, ids, move |attempt| attempt.body.push((at, bytes.clone())));
}

/// A change of bytes after the signature.
fn raw(attacks: &mut Attacks, name: &str, ids: &[&'static str], at: usize, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    add(attacks, name, ids, move |attempt| attempt.raw.push((at, bytes.clone())));
}

/// The golden report under a stricter policy.
fn policy(attacks: &mut Attacks, check: &'static str, value: &str) {
    let value = value.to_string();
    let name = format!("golden report, but the policy asks for another {check}");
    add(attacks, name, &[check], move |attempt| attempt.policy.push((check, value.clone())));
}

const GOLDEN_POLICY: u64 = 0x3_0000;
const GOLDEN_PLATFORM: u64 = 0x25;

fn shape_attacks(all: &mut Attacks) {
    for version in [0_u8, 1, 4, 6, 7, 255] {
        body(all, &format!("report version {version}"), &["shape.unknown"], 0, &[version]);
    }
    body(all, "report version 5 with a high byte", &["shape.unknown"], 3, &[1]);
    body(all, "version 3 with mitigation vectors", &["shape.reserved"], 0, &[3]);
    body(all, "version 2 with a cpuid", &["shape.reserved"], 0, &[2]);
    for algorithm in [0_u8, 2, 3] {
        let name = format!("signature algorithm {algorithm}");
        body(all, &name, &["shape.unknown"], 0x34, &[algorithm]);
    }
    for bit in 5..32 {
        let name = format!("key info bit {bit}");
        body(all, &name, &["shape.reserved"], 0x48, &(1_u32 << bit).to_le_bytes());
    }
    let reserved = (0x4c..0x50).chain(0x18b..0x1a0).chain([0x1eb, 0x1ef]).chain(0x208..0x2a0);
    for at in reserved {
        body(all, &format!("reserved byte {at:#x}"), &["shape.reserved"], at, &[1]);
    }
    for at in (0x2d0..0x2e8).chain(0x318..0x4a0) {
        raw(all, &format!("padding byte {at:#x}"), &["shape.reserved"], at, &[0x80]);
    }
    type Cut = fn(&mut Vec<u8>);
    let lengths: [(&str, Cut); 4] = [
        ("no report", Vec::clear),
        ("a report cut by one byte", |report| report.truncate(1183)),
        ("a report with a zero byte after it", |report| report.push(0)),
        ("a report twice", |report| report.extend(report.clone())),
    ];
    for (name, cut) in lengths {
        add(all, name, &["shape.length"], move |attempt| attempt.cut = Some(cut));
    }
    add(all, "a report that calls itself a quote", &["shape.unknown"], |a| a.tee = Tee::Tdx);
}

/// The order of P-384, little-endian.
fn order() -> Vec<u8> {
    let mut order = common::amd::hex(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    );
    order.reverse();
    order
}

fn signature_attacks(all: &mut Attacks) {
    let ids = &["origin.signature"];
    raw(all, "r is zero", ids, 0x2a0, &[0; 48]);
    raw(all, "s is zero", ids, 0x2e8, &[0; 48]);
    raw(all, "r is the order of the curve", ids, 0x2a0, &order());
    raw(all, "s is the order of the curve", ids, 0x2e8, &order());
    raw(all, "r is all ones", ids, 0x2a0, &[0xff; 48]);
    raw(all, "r and s are one", ids, 0x2a0, &[1]);
    add(all, "r and s are swapped", ids, |attempt| {
        attempt.cut = Some(|report| {
            let r = report[0x2a0..0x2d0].to_vec();
            report.copy_within(0x2e8..0x318, 0x2a0);
            report[0x2e8..0x318].copy_from_slice(&r);
        });
    });
    add(all, "the signature is big-endian", ids, |attempt| {
        attempt.cut = Some(|report| {
            report[0x2a0..0x2d0].reverse();
            report[0x2e8..0x318].reverse();
        });
    });
    raw(all, "report data changed after signing", ids, 0x50, &[0x78]);
    raw(all, "measurement changed after signing", ids, 0x90, &[0x12]);
    raw(all, "host data changed after signing", ids, 0xc0, &[0x12]);
    raw(all, "guest policy changed after signing", ids, 0x0a, &[0x07]);
    raw(all, "platform info changed after signing", ids, 0x40, &[0x65]);
    raw(all, "launch tcb changed after signing", ids, 0x1f7, &[85]);
    raw(all, "report id changed after signing", ids, 0x140, &[1]);
    add(all, "the key certificate of another chip's key", ids, |attempt| {
        attempt.endorsements = Some(|all, _| all[0] = Hierarchy::new(&Shape::default()).vcek);
    });
}

fn signer_attacks(all: &mut Attacks) {
    body(all, "a vlek's report with a vcek", &["origin.signer_kind"], 0x48, &[1 << 2]);
    for kind in 2..8_u8 {
        let name = format!("signing key kind {kind}");
        body(all, &name, &["origin.not_signed"], 0x48, &[kind << 2]);
    }
    body(all, "the chip's key is masked", &["origin.not_signed"], 0x48, &[1 << 1]);
    add(all, "a vcek under the intermediate of vleks", &["origin.issuer"], |attempt| {
        attempt.shape.ask_name = "SEV-VLEK-Genoa";
    });
    add(all, "a vlek under the intermediate of vceks", &["origin.issuer"], |attempt| {
        attempt.shape.key_name = "SEV-VLEK";
        attempt.shape.extensions[6] = ("05", b"\x16\x08CN=cloud".to_vec());
    });
    for name in ["VCEK", "SEV-VCEK ", "sev-vcek", "SEV-VCEK\0", "SEV-ASK"] {
        let title = format!("the key certificate is called {name:?}");
        add(all, title, &["origin.unusable"], move |attempt| attempt.shape.key_name = name);
    }
    body(all, "the cpu is a Milan's", &["origin.product"], 0x188, &[0x19, 0x01]);
    body(all, "the cpu is a Turin's", &["origin.product"], 0x188, &[0x1a, 0x02]);
    body(all, "the cpu is a Venice's", &["origin.cpu"], 0x188, &[0x1a, 0x50]);
    body(all, "the cpu is a Rome's", &["origin.cpu"], 0x188, &[0x17, 0x31]);
    body(all, "the cpu is of family 0", &["origin.cpu"], 0x188, &[0, 0]);
    body(all, "the cpu is between products", &["origin.cpu"], 0x188, &[0x19, 0x20]);
    body(all, "the cpu is a Bergamo's at Genoa's tcb", &["snp.tcb_floor"], 0x188, &[0x19, 0xa0]);
    body(all, "the cpu is a model without a floor", &["snp.tcb_floor"], 0x188, &[0x19, 0x12]);
    // The first and the last model of each product, and those beside them.
    for (cpu, ids) in [
        ([0x19, 0x0f], "origin.product"),
        ([0x19, 0x10], "snp.tcb_floor"),
        ([0x19, 0x1f], "snp.tcb_floor"),
        ([0x19, 0x9f], "origin.cpu"),
        ([0x19, 0xaf], "snp.tcb_floor"),
        ([0x19, 0xb0], "origin.cpu"),
        ([0x1a, 0x00], "origin.product"),
        ([0x1a, 0x11], "origin.product"),
        ([0x1a, 0x12], "origin.cpu"),
        ([0x18, 0x11], "origin.cpu"),
        ([0x1b, 0x02], "origin.cpu"),
    ] {
        let [family, model] = cpu;
        body(all, &format!("the cpu is {family:02x}/{model:02x}"), &[ids], 0x188, &cpu);
    }
    for name in ["SEV-Milan", "SEV-Turin", "SEV-Venice", "SEV-", "Genoa"] {
        let ids: &[&str] = if name.ends_with("Milan") || name.ends_with("Turin") {
            &["origin.extension"]
        } else {
            &["origin.issuer"]
        };
        let title = format!("the intermediate is called {name:?}");
        add(all, title, ids, move |attempt| attempt.shape.ask_name = name);
    }
    for at in 0x1a0..0x1a4 {
        body(all, &format!("chip id byte {at:#x}"), &["origin.chip_id"], at, &[0]);
    }
    body(all, "the last byte of the chip id", &["origin.chip_id"], 0x1df, &[0]);
    body(all, "the chip id is hidden", &["origin.chip_id"], 0x1a0, &[0; 64]);
    add(all, "chip and certificate both hide the chip", &["origin.chip_id"], |attempt| {
        attempt.shape.extensions[6].1 = vec![0; 64];
        attempt.body.push((0x1a0, vec![0; 64]));
    });
}

fn tcb_attacks(all: &mut Attacks) {
    for (name, at) in [("bootloader", 0), ("tee", 1), ("snp", 6), ("microcode", 7)] {
        let golden = [10_u8, 0, 0, 0, 0, 0, 23, 84][at];
        body(all, &format!("reported {name} one up"), &["origin.tcb"], 0x180 + at, &[golden + 1]);
        if golden > 0 {
            let title = format!("reported {name} one down");
            body(all, &title, &["origin.tcb"], 0x180 + at, &[golden - 1]);
            // The certificate goes down with it: authentic, and below the floor.
            let title = format!("{name} one below the floor, with its own key");
            add(all, title, &["snp.tcb_floor"], move |attempt| {
                let index = [2, 3, 0, 0, 0, 0, 4, 5][at];
                attempt.shape.extensions[index].1[2] = golden - 1;
                attempt.body.push((0x180 + at, vec![golden - 1]));
            });
            let title = format!("launched with {name} one below the floor");
            body(all, &title, &["snp.tcb_floor"], 0x1f0 + at, &[golden - 1]);
            let title = format!("committed {name} below the reported one");
            let ids = &["snp.tcb_order", "snp.provisional_firmware"];
            body(all, &title, ids, 0x1e0 + at, &[golden - 1]);
            let title = format!("current {name} below the committed one");
            body(all, &title, ids, 0x38 + at, &[golden - 1]);
        }
        let title = format!("current {name} ahead of the committed one");
        body(all, &title, &["snp.provisional_firmware"], 0x38 + at, &[golden + 1]);
        let title = format!("launched with a {name} ahead of the current one");
        body(all, &title, &["snp.tcb_order"], 0x1f0 + at, &[golden + 1]);
    }
    for (field, at) in
        [("reported", 0x180), ("current", 0x38), ("committed", 0x1e0), ("launch", 0x1f0)]
    {
        for gap in 2..6 {
            let title = format!("{field} tcb sets its reserved byte {gap}");
            body(all, &title, &["origin.tcb_reserved"], at + gap, &[1]);
        }
    }
    let provisional = &["snp.provisional_firmware"];
    body(all, "firmware build ahead of the committed one", provisional, 0x1e8, &[50]);
    body(all, "firmware minor ahead of the committed one", provisional, 0x1e9, &[56]);
    body(all, "firmware major ahead of the committed one", provisional, 0x1ea, &[2]);
    let behind = &["snp.tcb_order", "snp.provisional_firmware"];
    body(all, "firmware behind the committed one", behind, 0x1ec, &[50]);
    add(all, "firmware below the floor", &["snp.firmware"], |attempt| {
        attempt.body.push((0x1e8, vec![49, 54, 1, 0, 49, 54, 1, 0]));
    });
    let rollback = &["snp.firmware", "snp.provisional_firmware"];
    body(all, "firmware that can go below the floor", rollback, 0x1ec, &[49, 54, 1]);
    body(all, "not mitigated at launch", &["snp.mitigations"], 0x1f8, &[0]);
    body(all, "not mitigated now", &["snp.mitigations"], 0x200, &[0]);
    body(all, "mitigated against something else", &["snp.mitigations"], 0x200, &[0xfd]);
}

fn certificate_attacks(all: &mut Attacks) {
    let set = |index: usize, value: &'static [u8]| {
        move |attempt: &mut Attempt| attempt.shape.extensions[index].1 = value.to_vec()
    };
    let names = ["structVersion", "productName", "blSPL", "teeSPL", "snpSPL", "ucodeSPL", "hwID"];
    let ids = &["origin.extension"];
    for (index, name) in names.into_iter().enumerate() {
        add(all, format!("the certificate lacks {name}"), ids, move |attempt| {
            attempt.shape.extensions.remove(index);
        });
        add(all, format!("{name} comes twice"), &["shape.endorsement"], move |attempt| {
            let again = attempt.shape.extensions[index].clone();
            attempt.shape.extensions.push(again);
        });
        add(all, format!("{name} is empty"), ids, set(index, &[]));
    }
    add(all, "structVersion 2", ids, set(0, &[2, 1, 2]));
    add(all, "structVersion negative", ids, set(0, &[2, 1, 0x80]));
    add(all, "productName of another product", ids, set(1, b"\x16\x05Milan"));
    add(all, "productName with a tail", ids, set(1, b"\x16\x06Genoa2"));
    add(all, "productName in UTF-8", ids, set(1, b"\x0c\x05Genoa"));
    add(all, "snpSPL in two bytes where one would do", ids, set(4, &[2, 2, 0, 23]));
    add(all, "snpSPL in a long length", ids, set(4, &[2, 0x81, 1, 23]));
    add(all, "snpSPL with a byte after it", ids, set(4, &[2, 1, 23, 0]));
    add(all, "snpSPL as octets", ids, set(4, &[4, 1, 23]));
    add(all, "snpSPL above 255", ids, set(4, &[2, 2, 1, 23]));
    add(all, "hwID of 63 bytes", ids, set(6, &[0x5a; 63]));
    add(all, "hwID of 8 bytes on a Genoa", ids, set(6, &[0x5a; 8]));
    add(all, "hwID of another chip", &["origin.chip_id"], set(6, &[0x5b; 64]));
    let added = |arcs: &'static str, value: &'static [u8]| {
        move |attempt: &mut Attempt| attempt.shape.extensions.push((arcs, value.to_vec()))
    };
    add(all, "a vcek with a provider", ids, added("05", b"\x16\x02CN"));
    add(all, "an fmc on a Genoa", ids, added("0309", &[2, 1, 0]));
    for arc in ["0304", "0305", "0306", "0307"] {
        add(all, format!("reserved spl {arc} set"), ids, added(arc, &[2, 1, 1]));
    }
    add(all, "an extension without a meaning", ids, added("06", &[2, 1, 1]));
    let expired = &["origin.expired"];
    let early = &["origin.not_yet_valid"];
    add(all, "the vcek expired a second ago", expired, |a| a.shape.key_dates = (NOW - 2, NOW - 1));
    add(all, "the vcek begins in a second", early, |a| a.shape.key_dates = (NOW + 1, NOW + 2));
    add(all, "the ask expired a second ago", expired, |a| a.shape.ask_dates = (NOW - 2, NOW - 1));
    add(all, "the ask begins in a second", early, |a| a.shape.ask_dates = (NOW + 1, NOW + 2));
    add(all, "the ask is no authority", &["origin.unusable"], |a| a.shape.ask_is_authority = false);
    add(all, "the ask signed itself", &["origin.signature"], |a| {
        a.shape.ask_signed_by_itself = true
    });
    for (at, name) in ["ask", "vcek"].into_iter().enumerate() {
        add(all, format!("the {name} says another salt"), &["origin.signature"], move |attempt| {
            attempt.shape.algorithms[at] = PSS_SHORT_SALT;
        });
        let title = format!("the {name} has a critical extension that no one knows");
        add(all, title, &["origin.unusable"], move |attempt| {
            attempt.shape.further[at] = critical_extension("2b0601", &[5, 0]);
        });
    }
}

fn endorsement_attacks(all: &mut Attacks) {
    let mut edit = |name: &str, ids: &[&'static str], change: Endorse| {
        add(all, name, ids, move |attempt| attempt.endorsements = Some(change));
    };
    edit("no endorsements", &["origin.missing"], |all, _| all.clear());
    edit("no vcek", &["origin.missing"], |all, _| drop(all.remove(0)));
    edit("no ask", &["origin.missing"], |all, _| drop(all.remove(1)));
    edit("two vceks", &["origin.surplus"], |all, h| all.push(h.vcek.clone()));
    edit("two asks", &["origin.surplus"], |all, h| all.push(h.ask.clone()));
    edit("two arks", &["origin.surplus"], |all, h| all.push(h.ark.clone()));
    edit("two revocation lists", &["origin.surplus"], |all, h| all.push(h.crl.clone().unwrap()));
    edit("the ark of another ceremony", &["origin.unknown_root"], |all, _| {
        all[2] = Hierarchy::new(&Shape::default()).ark;
    });
    edit("the ark of another product", &["origin.issuer"], |all, _| {
        all[2] = Hierarchy::new(&Shape { ark_name: "ARK-Milan", ..Shape::default() }).ark;
    });
    edit("the ask in the place of the ark", &["origin.missing"], |all, h| {
        all[1] = h.ark.clone();
        all.remove(2);
    });
    edit("nonsense beside the chain", &["shape.endorsement"], |all, _| all.push(b"ask".to_vec()));
    edit("an empty endorsement", &["shape.endorsement"], |all, _| all.push(Vec::new()));
    edit("a cut vcek", &["shape.endorsement"], |all, _| all[0].truncate(900));
    edit("a vcek with a byte after it", &["shape.endorsement"], |all, _| all[0].push(0));
    edit("PEM of something else", &["shape.endorsement"], |all, _| {
        all.push(b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n".to_vec());
    });
    edit("JSON nested past its limit", &["shape.endorsement"], |all, _| {
        all.push(["{\"a\":".repeat(17), "0".into(), "}".repeat(17)].concat().into_bytes());
    });
    edit("the vcek's signature flipped", &["origin.signature"], |all, _| {
        let last = all[0].len() - 1;
        all[0][last] ^= 1;
    });
    edit("the ask's signature flipped", &["origin.signature"], |all, _| {
        let last = all[1].len() - 1;
        all[1][last] ^= 1;
    });
    edit("the list's signature flipped", &["origin.signature"], |all, _| {
        let last = all[3].len() - 1;
        all[3][last] ^= 1;
    });
}

/// Each limit, and one past it.
fn limit_attacks(all: &mut Attacks) {
    let mut edit = |name: &str, ids: &[&'static str], change: Endorse| {
        add(all, name, ids, move |attempt| attempt.endorsements = Some(change));
    };
    edit("seventeen endorsements", &["shape.too_long"], |all, h| {
        *all = vec![h.ask.clone(); 17];
    });
    edit("sixteen endorsements, fifteen too many", &["origin.surplus"], |all, h| {
        *all = vec![h.ask.clone(); 16];
    });
    edit("seventeen certificates in one file", &["shape.endorsement"], |all, h| {
        use base64ct::{Base64, Encoding};
        let text = Base64::encode_string(&h.ask);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        *all = vec![pem.repeat(17).into_bytes()];
    });
    edit("sixteen certificates in one file", &["origin.surplus"], |all, h| {
        use base64ct::{Base64, Encoding};
        let text = Base64::encode_string(&h.ask);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        *all = vec![pem.repeat(16).into_bytes()];
    });
    edit("an endorsement past its limit", &["shape.endorsement"], |all, _| {
        all.push(vec![0x30; (1 << 20) + 1]);
    });
}

fn revocation_attacks(all: &mut Attacks) {
    let crl = |this: u64, next: u64, serials: &'static [u8]| {
        move |attempt: &mut Attempt| attempt.shape.crl = Some((this, next, serials.to_vec()))
    };
    add(all, "no revocation list", &["snp.crl"], |attempt| attempt.shape.crl = None);
    add(all, "a list that ends now", &["snp.crl"], crl(NOW - 2, NOW, &[]));
    add(all, "a list that begins in a second", &["snp.crl"], crl(NOW + 1, NOW + 2, &[]));
    add(all, "the ask is revoked", &["origin.revoked"], crl(NOW - 1, NOW + 1, &[2]));
    add(
        all,
        "the ask is revoked by an old list",
        &["origin.revoked"],
        crl(NOW - 9, NOW - 8, &[7, 2]),
    );
    add(all, "the ark is revoked", &["origin.revoked"], crl(NOW - 1, NOW + 1, &[1]));
    add(all, "the asvk is revoked", &["origin.revoked"], |attempt| {
        attempt.shape.crl = Some((NOW - 1, NOW + 1, vec![2]));
        vlek(attempt);
    });
    add(all, "a list that the ask signed", &["origin.signature"], |a| a.shape.crl_by_ask = true);
    add(all, "a list that says another salt", &["origin.unusable"], |attempt| {
        attempt.shape.algorithms[2] = PSS_SHORT_SALT;
    });
    add(all, "a list of some reasons only", &["shape.endorsement"], |attempt| {
        attempt.shape.further[2] = critical_extension("551d1c", &[0x30, 0]);
    });
    add(all, "a list of another root", &["origin.issuer"], |attempt| {
        attempt.endorsements = Some(|all, _| {
            let shape = Shape { ark_name: "ARK-Turin", ..Shape::default() };
            all[3] = Hierarchy::new(&shape).crl.unwrap();
        });
    });
}

/// Makes the golden report one of a VLEK of the cloud `CN=cloud`.
fn vlek(attempt: &mut Attempt) {
    attempt.shape.ask_name = "SEV-VLEK-Genoa";
    attempt.shape.key_name = "SEV-VLEK";
    attempt.shape.extensions[6] = ("05", b"\x16\x08CN=cloud".to_vec());
    attempt.body.push((0x48, vec![1 << 2]));
    attempt.body.push((0x1a0, vec![0; 64]));
}

fn vlek_attacks(all: &mut Attacks) {
    add(all, "a vlek where only vceks are accepted", &["snp.signers"], vlek);
    let accepted = |attempt: &mut Attempt, csp: &str| {
        vlek(attempt);
        attempt.policy.push(("snp.signers", "{ require = [\"vlek\"] }".into()));
        attempt.policy.push(("snp.csp", format!("{{ require = [\"{csp}\"] }}")));
    };
    add(all, "a vlek of another provider", &["snp.csp"], move |a| accepted(a, "CN=other"));
    add(all, "a vlek of no provider", &["origin.extension"], move |attempt| {
        accepted(attempt, "CN=cloud");
        attempt.shape.extensions.pop();
    });
    add(all, "a vlek with a hwID", &["origin.extension"], move |attempt| {
        accepted(attempt, "CN=cloud");
        attempt.shape.extensions.push(("04", vec![0x5a; 64]));
    });
    add(all, "a vcek's report with a vlek", &["origin.signer_kind"], move |attempt| {
        accepted(attempt, "CN=cloud");
        attempt.body.push((0x48, vec![0]));
    });
    add(all, "a vlek's provider in UTF-8", &["origin.extension"], move |attempt| {
        accepted(attempt, "CN=cloud");
        attempt.shape.extensions[6].1[0] = 0x0c;
    });
    add(
        all,
        "a vlek's provider that is longer than it says",
        &["origin.extension"],
        move |attempt| {
            accepted(attempt, "CN=cloud");
            attempt.shape.extensions[6].1[1] = 7;
        },
    );
    add(all, "a vlek's provider that is not ASCII", &["origin.extension"], move |attempt| {
        accepted(attempt, "CN=cloud");
        attempt.shape.extensions[6].1.splice(7..9, "é".bytes());
    });
    add(all, "a vlek where the job lists chips", &["snp.chip_id"], move |attempt| {
        accepted(attempt, "CN=cloud");
        let zero = format!("{{ require = [\"{}\"] }}", "00".repeat(64));
        attempt.policy.push(("snp.chip_id", zero));
    });
}

/// Makes the golden report one of a Turin: another layout of the TCB, and a short chip id.
fn turin(attempt: &mut Attempt) {
    let shape = &mut attempt.shape;
    (shape.ark_name, shape.ask_name) = ("ARK-Turin", "SEV-Turin");
    let number = |value: u8| vec![2, 1, value];
    shape.extensions = vec![
        ("01", number(1)),
        ("02", b"\x16\x05Turin".to_vec()),
        ("0301", number(1)),
        ("0302", number(1)),
        ("0303", number(4)),
        ("0308", number(81)),
        ("04", vec![0x5a; 8]),
        ("0309", number(1)),
    ];
    for at in TCB_FIELDS {
        attempt.body.push((at, vec![1, 1, 1, 4, 0, 0, 0, 81]));
    }
    attempt.body.push((0x188, vec![0x1a, 0x02]));
    attempt.body.push((0x1a8, vec![0; 56]));
}

/// Where a report has its reported, current, committed and launch TCB.
const TCB_FIELDS: [usize; 4] = [0x180, 0x38, 0x1e0, 0x1f0];

fn turin_attacks(all: &mut Attacks) {
    let mut of = |name: &str, ids: &[&'static str], change: fn(&mut Attempt)| {
        add(all, format!("a Turin: {name}"), ids, move |attempt| {
            turin(attempt);
            change(attempt);
        });
    };
    let extension = &["origin.extension"];
    of("no fmcSPL", extension, |a| drop(a.shape.extensions.pop()));
    of("an fmcSPL in two bytes", extension, |a| a.shape.extensions[7].1 = vec![2, 2, 0, 1]);
    of("a hwID of 64 bytes", extension, |a| a.shape.extensions[6].1 = vec![0x5a; 64]);
    of("a hwID of 7 bytes", extension, |a| a.shape.extensions[6].1 = vec![0x5a; 7]);
    of("an fmc that the certificate has not", &["origin.tcb"], |attempt| {
        attempt.shape.extensions[7].1[2] = 2;
    });
    of("an fmc one below the floor, with its own key", &["snp.tcb_floor"], |attempt| {
        attempt.shape.extensions[7].1[2] = 0;
        attempt.body.push((0x180, vec![0]));
    });
    of("launched with an fmc one below the floor", &["snp.tcb_floor"], |attempt| {
        attempt.body.push((0x1f0, vec![0]));
    });
    let order = &["snp.tcb_order", "snp.provisional_firmware"];
    of("current fmc below the committed one", order, |a| a.body.push((0x38, vec![0])));
    of("the tcb in the layout of a Genoa", &["origin.tcb_reserved"], |attempt| {
        attempt.body.push((0x180, vec![1, 1, 0, 0, 0, 0, 4, 81]));
    });
    let chip = &["origin.chip_id"];
    of("a chip id that goes on after 8 bytes", chip, |a| a.body.push((0x1a8, vec![1])));
    of("a chip id whose last byte is set", chip, |a| a.body.push((0x1df, vec![1])));
    of("another chip", chip, |attempt| attempt.body.push((0x1a7, vec![0x5b])));
    of("chip and certificate both hide the chip", chip, |attempt| {
        attempt.shape.extensions[6].1 = vec![0; 8];
        attempt.body.push((0x1a0, vec![0; 8]));
    });
    of("a model without a floor", &["snp.tcb_floor"], |a| a.body.push((0x189, vec![0x11])));
    for field in TCB_FIELDS {
        for gap in 4..7 {
            let title = format!("a Turin: reserved byte {gap} of the tcb at {field:#x} set");
            add(all, title, &["origin.tcb_reserved"], move |attempt| {
                turin(attempt);
                attempt.body.push((field + gap, vec![1]));
            });
        }
    }
}

fn guest_attacks(all: &mut Attacks) {
    for level in [1_u8, 2, 3, 4] {
        body(all, &format!("asked for at vmpl {level}"), &["snp.vmpl"], 0x30, &[level]);
    }
    let host = &["snp.host_requested", "snp.vmpl"];
    body(all, "asked for by the host", host, 0x30, &[0xff; 4]);
    for bit in 0..64_u32 {
        let flipped = GOLDEN_POLICY ^ (1 << bit);
        let ids: &[&str] = match bit {
            // The low byte is the abi's minor version, which firmware 1.55 covers up to 55.
            6 | 7 => &[],
            0..=5 | 16 | 20 | 22..=25 => &[],
            // Major version 1 is covered, with minor 0.
            8 => &[],
            9..=15 | 17 => &["snp.guest_policy"],
            18 => &["snp.migration"],
            19 => &["snp.debug"],
            21 => &["snp.cxl"],
            _ => &["snp.guest_policy"],
        };
        let name = format!("guest policy bit {bit} flipped");
        body(all, &name, ids, 0x08, &flipped.to_le_bytes());
    }
    let newer = 0x3_0000_u64 | (1 << 8) | 56;
    body(all, "an abi that the firmware lacks", &["snp.guest_policy"], 0x08, &newer.to_le_bytes());
    body(all, "a migration agent", &["snp.migration"], 0x160, &[0]);
    body(all, "a migration agent in the last byte", &["snp.migration"], 0x17f, &[0xfe]);
    body(all, "a zero migration agent", &["snp.migration"], 0x160, &[0; 32]);
    body(all, "no challenge answered", &["binding.challenge"], 0x50, &[0; 64]);
    body(all, "another launch blob", &["binding.launch_blob"], 0xc0, &[0]);
    body(all, "no launch blob", &["binding.launch_blob"], 0xc0, &[0; 32]);
}

fn platform_attacks(all: &mut Attacks) {
    for bit in 0..64_u32 {
        let ids: &[&str] = match bit {
            0..=4 | 6 | 7 => &[],
            5 => &["snp.alias_check"],
            _ => &["snp.platform_bits"],
        };
        let flipped = GOLDEN_PLATFORM ^ (1 << bit);
        let name = format!("platform info bit {bit} flipped");
        body(all, &name, ids, 0x40, &flipped.to_le_bytes());
    }
    let demanding: [(&str, &str, u64, u64); 10] = [
        ("snp.smt", "{ require = [\"off\"] }", GOLDEN_POLICY, GOLDEN_PLATFORM & !1),
        ("snp.smt", "{ require = [\"off\"] }", GOLDEN_POLICY & !(1 << 16), GOLDEN_PLATFORM),
        ("snp.tsme", "{ require = \"on\" }", GOLDEN_POLICY, GOLDEN_PLATFORM),
        ("snp.ecc", "{ require = \"on\" }", GOLDEN_POLICY, GOLDEN_PLATFORM & !4),
        ("snp.rapl_disabled", "{ require = \"enforced\" }", GOLDEN_POLICY, GOLDEN_PLATFORM | 8),
        (
            "snp.rapl_disabled",
            "{ require = \"enforced\" }",
            GOLDEN_POLICY | 1 << 23,
            GOLDEN_PLATFORM,
        ),
        (
            "snp.ciphertext_hiding",
            "{ require = \"enforced\" }",
            GOLDEN_POLICY,
            GOLDEN_PLATFORM | 16,
        ),
        (
            "snp.ciphertext_hiding",
            "{ require = \"enforced\" }",
            GOLDEN_POLICY | 1 << 24,
            GOLDEN_PLATFORM,
        ),
        ("snp.iommu", "{ require = \"on\" }", GOLDEN_POLICY, GOLDEN_PLATFORM),
        ("snp.trusted_io", "{ require = \"forbidden\" }", GOLDEN_POLICY, GOLDEN_PLATFORM | 128),
    ];
    for (index, (check, value, guest, platform)) in demanding.into_iter().enumerate() {
        let name = format!("{check} on one side only, case {index}");
        add(all, name, &[check], move |attempt| {
            attempt.policy.push((check, value.into()));
            attempt.body.push((0x08, guest.to_le_bytes().to_vec()));
            attempt.body.push((0x40, platform.to_le_bytes().to_vec()));
        });
    }
}

fn policy_attacks(all: &mut Attacks) {
    let hex = |bytes: usize| format!("{{ require = [\"{}\"] }}", "ab".repeat(bytes));
    policy(all, "snp.author_key", &hex(48));
    policy(all, "snp.chip_id", &hex(64));
    policy(all, "snp.family_id", &hex(16));
    policy(all, "snp.firmware", "{ require = \"1.55.50\" }");
    policy(all, "snp.guest_svn", "{ require = 1 }");
    policy(all, "snp.host_data", &hex(32));
    policy(all, "snp.id_key", &hex(48));
    policy(all, "snp.image_id", &hex(16));
    policy(all, "snp.measurement", &hex(48));
    policy(all, "snp.memory_aes_256_xts", "{ require = \"on\" }");
    policy(all, "snp.page_swap_disabled", "{ require = \"on\" }");
    policy(all, "snp.products", "{ require = [\"turin\", \"milan\"] }");
    policy(all, "snp.report_versions", "{ require = [2, 3] }");
    policy(all, "snp.signers", "{ require = [\"vlek\"] }");
    policy(all, "snp.single_socket", "{ require = \"on\" }");
    policy(all, "snp.vmpl", "{ require = [1] }");
    policy(all, "binding.platform", "{ require = \"listed\" }");
    add(all, "an author key digest without an author key", &["snp.author_key"], move |attempt| {
        attempt
            .policy
            .push(("snp.author_key", format!("{{ require = [\"{}\"] }}", "cd".repeat(48))));
        attempt.body.push((0x110, vec![0xcd; 48]));
    });
}

fn attacks() -> Attacks {
    let mut all = Vec::new();
    shape_attacks(&mut all);
    signature_attacks(&mut all);
    signer_attacks(&mut all);
    tcb_attacks(&mut all);
    certificate_attacks(&mut all);
    endorsement_attacks(&mut all);
    limit_attacks(&mut all);
    revocation_attacks(&mut all);
    vlek_attacks(&mut all);
    turin_attacks(&mut all);
    guest_attacks(&mut all);
    platform_attacks(&mut all);
    policy_attacks(&mut all);
    all
}

#[test]
fn gives_every_attack_its_finding() {
    let mut wrong = Vec::new();
    for Attack { name, ids, change } in attacks() {
        let mut attempt = Attempt::golden();
        change(&mut attempt);
        let seen = attempt.reasons();
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
    // Not counting single bytes and bits of one field.
    let generated =
        ["reserved byte", "padding byte", "key info bit", "guest policy bit", "platform info bit"];
    let named = names.iter().filter(|name| !generated.iter().any(|head| name.starts_with(head)));
    let named = named.count();
    assert!(named >= 150, "{named}");
}

#[test]
fn accepts_a_report_that_meets_every_check_there_is() {
    let on = "{ require = \"on\" }".to_string();
    let enforced = "{ require = \"enforced\" }".to_string();
    let listed = |byte: &str, len: usize| format!("{{ require = [\"{}\"] }}", byte.repeat(len));
    let mut attempt = Attempt::golden();
    attempt.policy = vec![
        ("snp.author_key", listed("c1", 48)),
        ("snp.chip_id", listed("5a", 64)),
        ("snp.ciphertext_hiding", enforced.clone()),
        ("snp.ecc", on.clone()),
        ("snp.family_id", listed("c2", 16)),
        ("snp.guest_svn", "{ require = 7 }".into()),
        ("snp.host_data", listed("c3", 32)),
        ("snp.id_key", listed("c4", 48)),
        ("snp.image_id", listed("c5", 16)),
        ("snp.iommu", on.clone()),
        ("snp.measurement", listed("11", 48)),
        ("snp.memory_aes_256_xts", on.clone()),
        (
            "snp.mitigations",
            "{ require = { bits = [0, 1, 63], reports_without = \"refused\" } }".into(),
        ),
        ("snp.page_swap_disabled", on.clone()),
        ("snp.rapl_disabled", enforced),
        ("snp.single_socket", on.clone()),
        ("snp.smt", "{ require = [\"off\"] }".into()),
        ("snp.trusted_io", "{ require = \"forbidden\" }".into()),
        ("snp.tsme", on),
        ("binding.launch_blob", common::WAIVED.into()),
    ];
    let guest = 1_u64 << 17 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25;
    attempt.body = vec![
        (0x04, vec![7]),
        (0x08, guest.to_le_bytes().to_vec()),
        (0x10, vec![0xc2; 16]),
        (0x20, vec![0xc5; 16]),
        (0x40, vec![0x7e]),
        (0x48, vec![1]),
        (0xc0, vec![0xc3; 32]),
        (0xe0, vec![0xc4; 48]),
        (0x110, vec![0xc1; 48]),
        (0x1f8, [3, 0, 0, 0, 0, 0, 0, 0x80].repeat(2)),
    ];
    let accepted: [&str; 0] = [];
    assert_eq!(attempt.reasons(), accepted);
    // Version 3 says nothing of mitigations, and this policy does not take silence.
    attempt.body.push((0, vec![3]));
    attempt.body.push((0x1f8, vec![0; 16]));
    assert_eq!(attempt.reasons(), ["snp.mitigations"]);
}

#[test]
fn accepts_the_golden_report_the_golden_vlek_and_the_golden_turin() {
    let golden: [&str; 0] = [];
    assert_eq!(Attempt::golden().reasons(), golden);
    let mut attempt = Attempt::golden();
    turin(&mut attempt);
    assert_eq!(attempt.reasons(), golden);
    let mut attempt = Attempt::golden();
    vlek(&mut attempt);
    attempt.policy.push(("snp.signers", "{ require = [\"vlek\"] }".into()));
    attempt.policy.push(("snp.csp", "{ require = [\"CN=cloud\"] }".into()));
    assert_eq!(attempt.reasons(), golden);
}

#[test]
fn accepts_what_is_exactly_at_its_limit_and_nothing_beyond() {
    let golden: [&str; 0] = [];
    // The guest policy's ABI: the firmware's own, and one more.
    let abi = |minor: u8, major: u8| {
        let mut attempt = Attempt::golden();
        attempt.body.push((0x08, vec![minor, major]));
        attempt.reasons()
    };
    assert_eq!(abi(55, 1), golden);
    assert_eq!(abi(56, 1), ["snp.guest_policy"]);
    assert_eq!(abi(0, 2), ["snp.guest_policy"]);
    let firmware = |least: &str| {
        let mut attempt = Attempt::golden();
        attempt.policy.push(("snp.firmware", format!("{{ require = \"{least}\" }}")));
        attempt.reasons()
    };
    assert_eq!(firmware("1.55.49"), golden);
    assert_eq!(firmware("1.55.50"), ["snp.firmware"]);
    // The first and the last second of each certificate.
    for dates in [(NOW, NOW + 9), (NOW - 9, NOW)] {
        let shape = Shape { ask_dates: dates, key_dates: dates, ..Shape::default() };
        let attempt = Attempt { shape, ..Attempt::golden() };
        assert_eq!(attempt.reasons(), golden);
    }
}
