//! Which of many endorsements would be asked about a report: the question that the endorsement cache and
//! a heap of files are sorted by. Nothing is judged, so a wrong answer costs a refusal, never a yes.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use attestation_verifier::endorsement::slot;
use attestation_verifier::evidence::Evidence;
use common::amd::{Hierarchy, Shape};
use measurement::manifest::Tee;

/// The slots of a hierarchy's key, intermediate certificate, root and list.
fn slots(report: &[u8], hierarchy: &Hierarchy) -> [Option<String>; 4] {
    let evidence = Evidence { tee: Tee::Snp, report };
    let list = hierarchy.crl.clone().unwrap();
    [&hierarchy.vcek, &hierarchy.ask, &hierarchy.ark, &list].map(|part| slot(&evidence, part))
}

fn all() -> [Option<String>; 4] {
    ["key", "intermediate", "root", "revocation list"].map(|name| Some(name.into()))
}

fn milan() -> Hierarchy {
    let mut shape = Shape { ark_name: "ARK-Milan", ask_name: "SEV-Milan", ..Shape::default() };
    shape.extensions[1].1 = b"\x16\x05Milan".to_vec();
    Hierarchy::new(&shape)
}

fn vlek() -> Hierarchy {
    let mut shape = Shape { ask_name: "SEV-VLEK-Genoa", key_name: "SEV-VLEK", ..Shape::default() };
    shape.extensions[6] = ("05", b"\x16\x08CN=cloud".to_vec());
    Hierarchy::new(&shape)
}

#[test]
fn gives_each_endorsement_of_a_report_its_place_and_those_of_another_product_none() {
    let genoa = Hierarchy::new(&Shape::default());
    let report = genoa.report(|_| ());
    assert_eq!(slots(&report, &genoa), all());
    assert_eq!(slots(&report, &milan()), [const { None }; 4]);
}

#[test]
fn takes_the_intermediate_certificate_of_the_key_that_signed() {
    let (genoa, vlek) = (Hierarchy::new(&Shape::default()), vlek());
    let by_chip = genoa.report(|_| ());
    let by_provider = vlek.report(|body| {
        body[0x48] = 1 << 2;
        body[0x1a0..0x1e0].fill(0);
    });
    let [key, intermediate, root, list] = all();
    assert_eq!(slots(&by_provider, &vlek), [key, intermediate, root.clone(), list.clone()]);
    // Root and list are the same for both.
    assert_eq!(slots(&by_provider, &genoa), [None, None, root.clone(), list.clone()]);
    assert_eq!(slots(&by_chip, &vlek), [None, None, root, list]);
}

/// Before version 3 a report does not say its product: a root and a list of any may be meant.
#[test]
fn takes_any_product_for_a_report_that_names_none() {
    let genoa = Hierarchy::new(&Shape::default());
    let report = genoa.report(|body| {
        body[0] = 2;
        body[0x188..0x18b].fill(0);
        body[0x1f8..0x208].fill(0);
    });
    assert_eq!(slots(&report, &genoa), all());
    assert_eq!(slots(&report, &milan())[1..], all()[1..]);
}

#[test]
fn gives_nothing_a_place_beside_evidence_that_is_none() {
    let genoa = Hierarchy::new(&Shape::default());
    let report = genoa.report(|_| ());
    assert_eq!(slots(&report[1..], &genoa), [const { None }; 4]);
    let evidence = Evidence { tee: Tee::Snp, report: &report };
    for part in [&b""[..], b"{}", b"0", &genoa.vcek[1..], &genoa.report(|_| ())] {
        assert_eq!(slot(&evidence, part), None);
    }
}
