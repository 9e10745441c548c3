//! Firmware and kernels that a launch digest is computed from: refused or measured, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use measurement::launch::{Image, Parts};

const SNP: &str = r#"{"platform":"snp","cpu":"EPYC-Genoa","vcpus":1,"memory_mib":512,"guest_features":1}"#;

fuzz_target!(|bytes: &[u8]| {
    let snp: Image = serde_json_image(SNP);
    let parts = Parts { firmware: bytes, kernel: b"kernel", initrd: b"initrd", cmdline: "quiet" };
    let _ = snp.measure(&parts);
    let parts = Parts { firmware: b"", kernel: bytes, initrd: bytes, cmdline: "quiet" };
    let _ = snp.measure(&parts);
    let order = measurement::launch::tdx::PageOrder::SinglePass;
    let _ = measurement::launch::tdx::mrtd(bytes, order);
});

fn serde_json_image(json: &str) -> Image {
    serde_json::from_str(json).expect("the shape is fixed")
}
