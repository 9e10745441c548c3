//! NVIDIA's device report in words: DMTF DSP0274 1.1, and NVIDIA's opaque data.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Field, Page};
use crate::endorsement::nvidia::Chip;
use crate::evidence::device::{Device, DeviceEvidence, Kind};
use crate::wire::Malformed;
use crate::wire::opaque::Fields;

/// Every field of a device's evidence: its certificates first, then the report in its order.
///
/// # Errors
/// When it has not the shape of evidence.
pub fn explain_device(evidence: &DeviceEvidence) -> Result<Vec<Field>, Malformed> {
    let device = Device::parse(evidence)?;
    let mut page = Page::default();
    names(&mut page, &device);
    let report = &device.report;
    page.digest(
        4,
        "nonce",
        &report.nonce,
        ("what the verifier asked with: binds the report to a session", "answers no one"),
    );
    let count = report.measurements.len();
    let set = report.measurements.iter().filter(|value| **value != [0; 48]).count();
    page.add(
        41,
        "measurements",
        format!("{count}, {set} of them not zero"),
        "what the firmware measures to; the reference manifests say what is right",
    );
    let nonce_at = 45 + count * 55;
    page.digest(
        nonce_at,
        "responder nonce",
        &report.responder_nonce,
        ("drawn by the device, new for each report", "not drawn by an honest device"),
    );
    let switch = matches!(device.kind, Some((_, Kind::Switch(_))));
    opaque(&mut page, nonce_at + 34, &report.opaque, switch);
    page.add(
        report.signed.len(),
        "signature",
        "ECDSA P-384, 96 bytes",
        "by the device key, over everything above, the request included; explain does not verify it",
    );
    Ok(page.0)
}

fn names(page: &mut Page, device: &Device<'_>) {
    let places = [
        "the key that signs reports, certified by the device itself at each start of its firmware",
        "the device, for life",
        "the maker's authority that certified the device",
        "the authority of this family of devices",
        "NVIDIA's root; the verifier pins it",
    ];
    for (certificate, meaning) in device.certificates.iter().zip(places) {
        let name = certificate.common_name().unwrap_or_default();
        page.add(0, "certificate", name, meaning);
    }
    let chip = device.kind.as_ref().map_or("unknown", |(chip, _)| Chip::name(chip));
    page.add(0, "chip", chip, "from the first certificate's name; manifests are per chip");
}

fn opaque(page: &mut Page, from: usize, fields: &Fields<'_>, switch: bool) {
    let mut at = from;
    for (kind, value) in fields.iter() {
        let (name, meaning) = meaning(kind, switch);
        page.add(at, name, shown(value), meaning);
        at += 4 + value.len();
    }
}

/// A text as a text, short values in hexadecimal, long ones by their beginning.
fn shown(value: &[u8]) -> String {
    let text = value.strip_suffix(b"\0").unwrap_or(value);
    let text = text.trim_ascii_end();
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let (text, padding) = text.split_at_checked(end).unwrap_or((text, &[]));
    let plain = text.len() > 1 && text.iter().all(u8::is_ascii_graphic);
    match core::str::from_utf8(text) {
        Ok(text) if plain && padding.iter().all(|byte| *byte == 0) => text.into(),
        _ => match value.get(..48) {
            Some(head) if value.len() > 48 => {
                format!("{}… ({} bytes)", hex::encode(head), value.len())
            }
            _ => hex::encode(value),
        },
    }
}

fn meaning(kind: u16, switch: bool) -> (&'static str, &'static str) {
    const UNUSED: &str = "not judged";
    match (kind, switch) {
        (3, _) => ("driver version", "of the driver's manifest; the policy has a floor"),
        (6, false) => ("vbios version", "five bytes, the fourth first; the policy has a floor"),
        (6, true) => ("bios version", "of the switch's manifest; the policy has a floor"),
        (11, _) => ("nvdec0 status", "aa: the video decoder is on, and its firmware counts"),
        (12, _) => ("measurement counts", UNUSED),
        (14, _) => ("board id", UNUSED),
        (15, _) => ("chip sku", "with project and project sku the name of the vbios manifest"),
        (17, _) => ("project", "part of the name of the vbios manifest"),
        (18, _) => ("project sku", "part of the name of the vbios manifest"),
        (20, _) => ("firmware id", "the firmware that signed; must be the one certified"),
        (21, _) => ("protected pcie status", "aa: eight gpus and four switches work as one"),
        (22, false) => ("switch ids", "of the switch at each link, reversed; zero for none"),
        (22, true) => ("device id", "must be the one of its identity certificate"),
        (25, true) => ("lock status", "1: the switch's configuration is locked"),
        (26, true) => ("gpu ids", "of the gpus at its ports, then a map of ports"),
        (34, false) => ("opaque data version", "0 or 1 is known"),
        (35, false) => ("chip info", "must be the chip of the certificates"),
        (36, false) => ("feature flag", "0 one gpu alone, 1 several, 2 several with switches"),
        (1..=25, _) | (26..=27, true) | (32..=36, false) => ("opaque field", UNUSED),
        _ => ("unknown opaque field", "this verifier does not know it; the policy refuses it"),
    }
}
