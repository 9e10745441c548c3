//! Reports of GPUs and switches: refused, never a panic. The certificates have only the right name.
#![no_main]

use std::sync::LazyLock;

use attestation_verifier::appraise::{ExpectedDevices, Verifier};
use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::policy::{AppraisalPolicy, STRICT};
use libfuzzer_sys::fuzz_target;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(AppraisalPolicy::parse(STRICT).expect("the sample policy parses"))
});

fuzz_target!(|bytes: &[u8]| {
    let expected = ExpectedDevices { nonce: &[0; 32], gpus: 1, switches: 0, chips: &[] };
    for chain in [GPU, SWITCH] {
        let evidence = DeviceEvidence::new(bytes, chain);
        let _ = evidence.manifest_ids();
        let judged = VERIFIER.appraise_devices(&[evidence], &[], &expected, 1_790_000_000);
        assert!(judged.is_err(), "no root stands behind it");
    }
    let evidence = DeviceEvidence::new(*b"", bytes);
    assert!(evidence.manifest_ids().is_err(), "it has no report");
});

/// Of "GH100 A01 GSP FMC LF", by itself.
const GPU: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIB0jCCAVigAwIBAgIUGbKLXhr1EGucjOU0mXtNjwYXmnkwCgYIKoZIzj0EAwMw\n\
HzEdMBsGA1UEAwwUR0gxMDAgQTAxIEdTUCBGTUMgTEYwIBcNMjYxMTIzMjM0MDMz\n\
WhgPMjEwOTAxMTIyMzQwMzNaMB8xHTAbBgNVBAMMFEdIMTAwIEEwMSBHU1AgRk1D\n\
IExGMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE0hC0L1MVDT38jdm4YtRmgFW7rfd+\n\
WTRhEjh2xXXh9Y736+vnzT/dZcctDKngLrnhJVbG07Dd9SFdZH2wqzDrFTnGlctd\n\
Oi4BCOaHH8ubmqzr1bZrEHcm3HWrFki7qdJLo1MwUTAdBgNVHQ4EFgQUcYHecyey\n\
iGyK73vVpsY7XxWhu64wHwYDVR0jBBgwFoAUcYHecyeyiGyK73vVpsY7XxWhu64w\n\
DwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAwNoADBlAjEAix8yREUTetII+238\n\
QQ7fpHCECHkujYvL3wfugqpdcn833iVpJ/vWdkMDVzayzHE4AjARrU2CLg6pXjZy\n\
oijSPx0EUdx0DH9Utq1d0k4lotZh4aUs0QeTvCeUY/k8LelEuz8=\n\
-----END CERTIFICATE-----\n\
";

/// Of "LS_10 A01 FSP FMC LF", by itself.
const SWITCH: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIB0zCCAVigAwIBAgIUccXfprEJxV6XYPQZa+Gs2xAA+cgwCgYIKoZIzj0EAwMw\n\
HzEdMBsGA1UEAwwUTFNfMTAgQTAxIEZTUCBGTUMgTEYwIBcNMjYxMTIzMjM0MDMz\n\
WhgPMjEwOTAxMTIyMzQwMzNaMB8xHTAbBgNVBAMMFExTXzEwIEEwMSBGU1AgRk1D\n\
IExGMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE/aUzEvJWGW4aQdWW9EDDzD2ILxxB\n\
AIkLxcAzjMzLnIbLlgSBqbaqM9agjqszk+XcnrSidhQ5UMyheb/RuNM/RaLpbmTj\n\
f3AI+41yPqLD+nPV91QLd/QfJ4eO9w5MdUYlo1MwUTAdBgNVHQ4EFgQU3DpGUECo\n\
oA6QMun1kqjZzAB76D4wHwYDVR0jBBgwFoAU3DpGUECooA6QMun1kqjZzAB76D4w\n\
DwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAwNpADBmAjEA90Dd5wcY8m78aeuU\n\
zbmd8O8Ys9GumU8LjOfPKiOQHBFEzwBtlyrkz9UlHPpElsHPAjEAqc+PAXx/ros5\n\
+KA6NKIUhwwKppJodXBitD/iQ4dupaOguhaxo87VP4QhkF1Taj5G\n\
-----END CERTIFICATE-----\n\
";
