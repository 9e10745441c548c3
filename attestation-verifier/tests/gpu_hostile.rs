//! Nothing a stranger sends about devices makes the verifier panic, and nothing changed is accepted.

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

use attestation_verifier::appraise::{DevicesResult, ExpectedDevices, Rejection, Verifier};
use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::nras::{Keys, verify};
use attestation_verifier::policy::{AppraisalPolicy, STRICT};
use common::nvidia::{Lab, NONCE, NOW, Report, unchanged};
use proptest::prelude::*;

struct Golden {
    verifier: Verifier,
    report: Vec<u8>,
    chain: Vec<u8>,
    items: Vec<Vec<u8>>,
}

impl Golden {
    fn judge(
        &self,
        report: &[u8],
        chain: &[u8],
        items: &[Vec<u8>],
    ) -> Result<DevicesResult, Rejection> {
        let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
        let expected = ExpectedDevices { nonce: &NONCE, gpus: 1, switches: 0, chips: &[] };
        let evidence = [DeviceEvidence::new(report, chain)];
        self.verifier.appraise_devices(&evidence, &items, &expected, NOW)
    }
}

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let lab = Lab::new(&unchanged);
        let device = lab.gpu(7);
        let policy = AppraisalPolicy::parse(&lab.policy_from(STRICT)).unwrap();
        let evidence = device.evidence(&Report::gpu());
        let golden = Golden {
            verifier: Verifier::new(policy),
            report: evidence.report().to_vec(),
            chain: evidence.chain().to_vec(),
            items: [lab.manifests(), lab.revocations(&[&device])].concat(),
        };
        assert!(golden.judge(&golden.report, &golden.chain, &golden.items).is_ok());
        golden
    })
}

/// `bytes` with one bit flipped.
fn flipped(bytes: &[u8], at: prop::sample::Index) -> Vec<u8> {
    let bit = at.index(bytes.len() * 8);
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn rejects_arbitrary_bytes(bytes in any::<Vec<u8>>()) {
        let Golden { report, chain, items, .. } = golden();
        prop_assert!(golden().judge(&bytes, chain, items).is_err());
        prop_assert!(golden().judge(report, &bytes, items).is_err());
        prop_assert!(golden().judge(report, chain, std::slice::from_ref(&bytes)).is_err());
        prop_assert!(DeviceEvidence::read_json(&bytes).is_err());
        prop_assert!(Keys::read(&bytes).is_err());
        let keys = Keys::read(b"{\"keys\":[]}").unwrap();
        prop_assert!(verify(&bytes, &keys, &NONCE, NOW).is_err());
    }

    #[test]
    fn rejects_a_report_with_any_bit_flipped(at in any::<prop::sample::Index>()) {
        let Golden { report, chain, items, .. } = golden();
        let verdict = golden().judge(&flipped(report, at), chain, items);
        prop_assert!(!matches!(verdict, Ok(_) | Err(Rejection::Unacceptable(_))));
    }

    #[test]
    fn rejects_certificates_with_any_bit_flipped(at in any::<prop::sample::Index>()) {
        let Golden { report, chain, items, .. } = golden();
        let chain = flipped(chain, at);
        // A line feed may become another white space, of which RFC 7468 (section 3) has one more.
        let space = |byte: &&u8| byte.is_ascii_whitespace() || **byte == 0x0b;
        let letters = |text: &[u8]| text.iter().filter(|b| !space(b)).copied().collect::<Vec<_>>();
        let same = |text: &[u8]| letters(text) == letters(&golden().chain);
        prop_assert!(same(&chain) || golden().judge(report, &chain, items).is_err());
    }

    #[test]
    fn rejects_endorsements_with_any_bit_flipped(which in 0..8_usize, at in any::<prop::sample::Index>()) {
        let Golden { report, chain, items, .. } = golden();
        let mut items = items.clone();
        items[which] = flipped(&items[which], at);
        prop_assert!(golden().judge(report, chain, &items).is_err());
    }

    #[test]
    fn rejects_endorsements_cut_short_or_left_out(which in 0..8_usize, at in any::<prop::sample::Index>()) {
        let Golden { report, chain, items, .. } = golden();
        let mut cut = items.clone();
        let len = at.index(cut[which].len());
        cut[which].truncate(len);
        prop_assert!(matches!(golden().judge(report, chain, &cut), Err(Rejection::Malformed(_))));
        let mut fewer = items.clone();
        fewer.remove(which);
        prop_assert!(golden().judge(report, chain, &fewer).is_err());
    }
}
