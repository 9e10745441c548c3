//! Nothing a stranger sends makes the verifier panic, and nothing changed is accepted.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::sync::OnceLock;

use attestation_verifier::evidence::unpadded;
use attestation_verifier::policy::{AppraisalPolicy, STRICT};
use common::amd::{Hierarchy, LAUNCH_BLOB, NOW, Shape};
use common::appraise;
use measurement::manifest::Tee;
use proptest::prelude::*;

struct Golden {
    policy: String,
    report: Vec<u8>,
    endorsements: Vec<Vec<u8>>,
}

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let hierarchy = Hierarchy::new(&Shape::default());
        Golden {
            policy: hierarchy.policy(),
            report: hierarchy.report(|_| {}),
            endorsements: hierarchy.endorsements(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rejects_arbitrary_bytes(report in any::<Vec<u8>>(), item in any::<Vec<u8>>()) {
        for tee in [Tee::Snp, Tee::Tdx] {
            let items = [item.clone()];
            prop_assert!(appraise(STRICT, tee, &report, &items, LAUNCH_BLOB, NOW).is_err());
        }
        prop_assert!(unpadded(&report).is_err());
    }

    #[test]
    fn rejects_a_report_with_any_bit_flipped(bit in 0..1184_usize * 8) {
        let Golden { policy, report, endorsements } = golden();
        let mut report = report.clone();
        report[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(appraise(policy, Tee::Snp, &report, endorsements, LAUNCH_BLOB, NOW).is_err());
    }

    #[test]
    fn rejects_endorsements_with_any_bit_flipped(which in 0..4_usize, at in any::<prop::sample::Index>()) {
        let Golden { policy, report, endorsements } = golden();
        let mut endorsements = endorsements.clone();
        let bit = at.index(endorsements[which].len() * 8);
        endorsements[which][bit / 8] ^= 1 << (bit % 8);
        prop_assert!(appraise(policy, Tee::Snp, report, &endorsements, LAUNCH_BLOB, NOW).is_err());
    }

    #[test]
    fn rejects_endorsements_cut_short(which in 0..4_usize, at in any::<prop::sample::Index>()) {
        let Golden { policy, report, endorsements } = golden();
        let mut endorsements = endorsements.clone();
        let len = at.index(endorsements[which].len());
        endorsements[which].truncate(len);
        prop_assert!(appraise(policy, Tee::Snp, report, &endorsements, LAUNCH_BLOB, NOW).is_err());
    }

    #[test]
    fn reads_any_policy_text_without_panicking(text in ".{0,400}", at in any::<prop::sample::Index>()) {
        let _ = AppraisalPolicy::parse(&text);
        // A policy cut anywhere before its last check lacks that check; only between the sections
        // is it whole, for those before.
        let last = STRICT.rfind("\ntopology").unwrap();
        let whole = |next: &str| {
            let header = STRICT.find(next).unwrap();
            STRICT[..header].trim_end().len()..header + 1
        };
        let between = ["[tdx]", "[gpu]", "[nvswitch]"].map(whole);
        let cut = at.index(last);
        let parsed = AppraisalPolicy::parse(&STRICT[..cut]);
        prop_assert_eq!(parsed.is_ok(), between.iter().any(|range| range.contains(&cut)));
    }
}

#[cfg(feature = "tdx-collateral")]
mod quotes {
    use super::*;
    use common::intel::{Platform, Shape};

    fn golden() -> &'static (String, Platform) {
        static GOLDEN: OnceLock<(String, Platform)> = OnceLock::new();
        GOLDEN.get_or_init(|| {
            let platform = Platform::new(&Shape::default());
            (platform.policy(), platform)
        })
    }

    fn judge(quote: &[u8], collateral: Vec<u8>) -> bool {
        let policy = &golden().0;
        appraise(policy, Tee::Tdx, quote, &[collateral], LAUNCH_BLOB, NOW).is_ok()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn rejects_a_quote_with_any_bit_flipped(at in any::<prop::sample::Index>()) {
            let (_, platform) = golden();
            let mut quote = platform.quote.clone();
            let bit = at.index(quote.len() * 8);
            quote[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!judge(&quote, platform.collateral.clone()));
        }

        /// Of the collateral some bytes say nothing: hexadecimal has two cases, and one chain is not used.
        #[test]
        fn reads_any_changed_collateral_without_panicking(
            at in any::<prop::sample::Index>(),
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let (_, platform) = golden();
            let mut collateral = platform.collateral.clone();
            let at = at.index(collateral.len());
            collateral.splice(at..(at + bytes.len()).min(collateral.len()), bytes);
            let _ = judge(&platform.quote, collateral);
        }

        #[test]
        fn rejects_collateral_cut_anywhere(at in any::<prop::sample::Index>()) {
            let (_, platform) = golden();
            let cut = at.index(platform.collateral.len());
            prop_assert!(!judge(&platform.quote, platform.collateral[..cut].to_vec()));
        }
    }
}
