//! Every byte of every accepted report and quote flipped in turn, and every prefix: refused, without a
//! panic. Endorsements are verified once, which the cache is for.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::path::Path;

use attestation_verifier::appraise::{AttestationResult, Expected, Rejection, Verifier};
use attestation_verifier::cache::Cache;
use attestation_verifier::evidence::{Evidence, unpadded};
use attestation_verifier::pin;
use attestation_verifier::policy::{AppraisalPolicy, EVIDENCE};
use common::amd::{Hierarchy, LAUNCH_BLOB, NOW, Shape};
use common::{read, vectors};
use measurement::launch::Measured;
use measurement::manifest::Tee;

/// One piece of golden evidence and a verifier that has seen it before.
struct Desk {
    verifier: Verifier,
    cache: Cache,
    tee: Tee,
    golden: Vec<u8>,
    endorsements: Vec<Vec<u8>>,
    launch_blob: &'static [u8],
    at: u64,
    images: [Measured; 1],
    report_data: [u8; 64],
}

impl Desk {
    fn new(policy: &str, tee: Tee, golden: Vec<u8>, endorsements: Vec<Vec<u8>>, at: u64) -> Self {
        let evidence = Evidence { tee, report: &golden };
        let images = [pin::measured(&evidence).unwrap()];
        let report_data = pin::report_data(&evidence).unwrap();
        Self {
            verifier: Verifier::new(AppraisalPolicy::parse(policy).unwrap()),
            cache: Cache::new(8),
            tee,
            golden,
            endorsements,
            launch_blob: LAUNCH_BLOB,
            at,
            images,
            report_data,
        }
    }

    fn judge(&mut self, report: &[u8]) -> Result<AttestationResult, Rejection> {
        let endorsements: Vec<&[u8]> = self.endorsements.iter().map(Vec::as_slice).collect();
        let expected = Expected {
            report_data: &self.report_data,
            launch_blob: self.launch_blob,
            images: &self.images,
            platforms: &[],
        };
        let evidence = Evidence { tee: self.tee, report };
        self.verifier.appraise_with(&mut self.cache, &evidence, &endorsements, &expected, self.at)
    }

    fn refuses_every_flip_and_prefix(&mut self, name: &str) {
        let golden = self.golden.clone();
        assert!(self.judge(&golden).is_ok(), "{name}: {:?}", self.judge(&golden));
        let mut changed = golden.clone();
        for at in 0..golden.len() {
            for mask in [0x01, 0x80] {
                changed[at] ^= mask;
                assert!(self.judge(&changed).is_err(), "{name}: byte {at:#x} ^ {mask:#x}");
                changed[at] ^= mask;
            }
        }
        for len in 0..golden.len() {
            assert!(self.judge(&golden[..len]).is_err(), "{name}: {len} bytes");
        }
        assert!(self.judge(&golden).is_ok(), "{name}");
    }
}

fn recorded(root: &Path, path: &str, endorsements: &[&str], at: u64) -> Desk {
    let evidence = read(root, path);
    let tee = if path.starts_with("tdx") { Tee::Tdx } else { Tee::Snp };
    let golden = match tee {
        Tee::Tdx => unpadded(&evidence).unwrap().to_vec(),
        Tee::Snp => evidence,
    };
    let endorsements = endorsements.iter().map(|path| read(root, path)).collect();
    Desk::new(EVIDENCE, tee, golden, endorsements, at)
}

#[test]
fn refuses_every_flip_and_prefix_of_a_simulated_report() {
    let hierarchy = Hierarchy::new(&Shape::default());
    let report = hierarchy.report(|_| {});
    let policy = hierarchy.policy();
    let mut desk = Desk::new(&policy, Tee::Snp, report, hierarchy.endorsements(), NOW);
    desk.refuses_every_flip_and_prefix("simulated");
}

#[test]
fn refuses_every_flip_and_prefix_of_recorded_reports() {
    let Some(root) = vectors() else { return };
    for (name, vek, product, at) in [
        ("genoa-v5", "vcek.der", "genoa", 1_772_500_000),
        ("turin-v5-azure", "vcek.pem", "turin", 1_772_000_000),
    ] {
        let report = format!("snp/reports/{name}/report.bin");
        let vek = format!("snp/reports/{name}/{vek}");
        let [ask, ark] = ["ask", "ark"].map(|kind| format!("snp/roots/{product}_{kind}.pem"));
        recorded(&root, &report, &[&vek, &ask, &ark], at).refuses_every_flip_and_prefix(name);
    }
}

#[cfg(feature = "tdx-collateral")]
#[test]
fn refuses_every_flip_and_prefix_of_recorded_quotes() {
    let Some(root) = vectors() else { return };
    for (name, collateral, at) in [
        ("dcapqvl-v4-b0c06f", "dcapqvl-v4-b0c06f", 1_750_414_563),
        ("dcapqvl-v5-bt4-b0c06f", "dcapqvl-v5-bt4-b0c06f", 1_791_504_586),
        ("gotdx-v5-bt3-90c06f", "assembled-90c06f-2026-03", 1_774_000_000),
    ] {
        let quote = format!("tdx/quotes/{name}.bin");
        let collateral = format!("tdx/collateral/{collateral}.collateral.json");
        recorded(&root, &quote, &[&collateral], at).refuses_every_flip_and_prefix(name);
    }
}

mod cache {
    use super::*;
    use common::with;

    fn desk() -> (Hierarchy, Desk) {
        let hierarchy = Hierarchy::new(&Shape::default());
        let (policy, report) = (hierarchy.policy(), hierarchy.report(|_| {}));
        let desk = Desk::new(&policy, Tee::Snp, report, hierarchy.endorsements(), NOW);
        (hierarchy, desk)
    }

    fn id(result: &Result<AttestationResult, Rejection>) -> &'static str {
        common::reasons(result).first().copied().unwrap_or("accepted")
    }

    #[test]
    fn gives_the_same_result_warm_as_cold() {
        let (_, mut desk) = desk();
        let golden = desk.golden.clone();
        let cold = desk.judge(&golden).unwrap();
        assert_eq!(desk.cache.len(), 1);
        assert_eq!(desk.judge(&golden).unwrap(), cold);
        assert_eq!(desk.cache.len(), 1);
    }

    #[test]
    fn serves_nothing_past_the_dates_of_its_certificates() {
        let (_, mut desk) = desk();
        let golden = desk.golden.clone();
        desk.judge(&golden).unwrap();
        desk.at = NOW + 1001;
        assert_eq!(id(&desk.judge(&golden)), "origin.expired");
        desk.at = NOW - 1001;
        assert_eq!(id(&desk.judge(&golden)), "origin.not_yet_valid");
    }

    /// Warmed at `NOW`, it says what it would say cold, at `times`; returns how often that was yes.
    fn agrees_at(desk: &mut Desk, times: impl Iterator<Item = u64>) -> usize {
        let golden = desk.golden.clone();
        desk.at = NOW;
        desk.judge(&golden).unwrap();
        let mut accepted = 0;
        for at in times {
            desk.at = at;
            let warm = desk.judge(&golden);
            let kept = core::mem::replace(&mut desk.cache, Cache::new(0));
            assert_eq!(warm, desk.judge(&golden), "{} after", at as i64 - NOW as i64);
            desk.cache = kept;
            accepted += usize::from(warm.is_ok());
        }
        accepted
    }

    #[test]
    fn says_warm_what_it_says_cold_at_every_second() {
        let shape = Shape {
            ask_dates: (NOW - 3, NOW + 1000),
            key_dates: (NOW - 1000, NOW + 4),
            ..Shape::default()
        };
        let hierarchy = Hierarchy::new(&shape);
        let (policy, report) = (hierarchy.policy(), hierarchy.report(|_| {}));
        let mut desk = Desk::new(&policy, Tee::Snp, report, hierarchy.endorsements(), NOW);
        // From three seconds before to four after, both included.
        assert_eq!(agrees_at(&mut desk, NOW - 6..NOW + 7), 8);
    }

    #[cfg(feature = "tdx-collateral")]
    #[test]
    fn says_warm_of_a_quote_what_it_says_cold_at_every_second() {
        use common::intel::{Platform, Shape};

        type Change = fn(&mut Shape);
        let windows: [(Change, usize); 5] = [
            // Lists and documents: from ten seconds before to the last before ten after.
            (|_| {}, 20),
            (|shape| shape.root_list = (NOW - 2, NOW + 3, Vec::new()), 5),
            (|shape| shape.ca_list = (NOW, NOW + 1, Vec::new()), 1),
            (|shape| shape.pck_dates = (NOW - 1, NOW + 2), 4),
            (|shape| shape.signer_dates = (NOW - 4, NOW + 1), 6),
        ];
        for (change, accepted) in windows {
            let mut shape = Shape::default();
            change(&mut shape);
            let platform = Platform::new(&shape);
            let collateral = vec![platform.collateral.clone()];
            let (policy, quote) = (platform.policy(), platform.quote.clone());
            let mut desk = Desk::new(&policy, Tee::Tdx, quote, collateral, NOW);
            assert_eq!(agrees_at(&mut desk, NOW - 14..NOW + 15), accepted);
        }
    }

    #[test]
    fn judges_the_freshness_of_a_list_each_time() {
        let (_, mut desk) = desk();
        let golden = desk.golden.clone();
        desk.judge(&golden).unwrap();
        desk.at = NOW + 10;
        assert_eq!(id(&desk.judge(&golden)), "snp.crl");
    }

    #[test]
    fn serves_no_one_with_other_endorsements_or_another_policy() {
        let (hierarchy, mut desk) = desk();
        let golden = desk.golden.clone();
        desk.judge(&golden).unwrap();
        desk.endorsements[3] =
            Hierarchy::new(&Shape { crl: Some((NOW - 1, NOW + 1, vec![2])), ..Shape::default() })
                .crl
                .unwrap();
        assert_eq!(id(&desk.judge(&golden)), "origin.revoked");
        desk.endorsements = hierarchy.endorsements();
        // The same cache, and a policy that does not believe the root.
        desk.verifier = Verifier::new(AppraisalPolicy::parse(EVIDENCE).unwrap());
        assert_eq!(id(&desk.judge(&golden)), "origin.unknown_root");
        let other = with(&hierarchy.policy(), "snp.vmpl", "{ require = [1] }");
        desk.verifier = Verifier::new(AppraisalPolicy::parse(&other).unwrap());
        assert_eq!(id(&desk.judge(&golden)), "snp.vmpl");
        assert_eq!(desk.cache.len(), 2);
    }

    #[test]
    fn keeps_no_failure_and_no_more_than_its_limit() {
        let (_, mut desk) = desk();
        let golden = desk.golden.clone();
        desk.cache = Cache::new(0);
        desk.judge(&golden).unwrap();
        assert!(desk.cache.is_empty());
        desk.cache = Cache::new(2);
        for days in 0..4 {
            desk.endorsements[3] = Hierarchy::new(&Shape {
                crl: Some((NOW - 1, NOW + 100 + days, vec![])),
                ..Shape::default()
            })
            .crl
            .unwrap();
            desk.judge(&golden).unwrap();
        }
        assert_eq!(desk.cache.len(), 2);
        desk.endorsements.truncate(2);
        desk.endorsements.remove(0);
        assert!(desk.judge(&golden).is_err());
        assert_eq!(desk.cache.len(), 2);
    }

    #[cfg(feature = "tdx-collateral")]
    #[test]
    fn serves_quotes_of_one_platform_and_checks_each_signature() {
        use common::intel::{Platform, Shape};

        let platform = Platform::new(&Shape::default());
        let policy = platform.policy();
        let golden = platform.quote.clone();
        let mut desk =
            Desk::new(&policy, Tee::Tdx, golden.clone(), vec![platform.collateral.clone()], NOW);
        let cold = desk.judge(&golden).unwrap();
        assert_eq!(desk.judge(&golden).unwrap(), cold);
        assert_eq!(desk.cache.len(), 1);
        let mut forged = golden.clone();
        forged[48 + 0x88] ^= 1;
        assert_eq!(id(&desk.judge(&forged)), "origin.signature");
        desk.at = NOW + 10;
        assert_eq!(id(&desk.judge(&golden)), "origin.expired");
        // What Intel judges by is part of the key: other attributes are another question.
        desk.at = NOW;
        let mut other = golden.clone();
        other[48 + 0x7b] ^= 0x40;
        assert_eq!(id(&desk.judge(&other)), "origin.signature");
        assert_eq!(desk.cache.len(), 1);
    }
}
