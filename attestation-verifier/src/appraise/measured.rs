//! What a device measures, held against its reference manifests.
//!
//! Value `i` of a manifest is measurement `i + 1` of a report, at `i` in ours. Every active value of
//! every manifest of the device is compared, those that are zero too, but for one: the video decoder's
//! firmware, where the device reports that the decoder is off.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::endorsement::manifest::Reference;
use crate::endorsement::nvidia::Claims;
use crate::evidence::device::{Kind, Software};
use crate::wire::rim::Edition;

/// The index of the video decoder's firmware.
const NVDEC0: u8 = 35;

/// The outcome for one device.
#[derive(Default)]
pub(crate) struct Measured {
    /// Manifests the device was held against, by position.
    pub(crate) used: Vec<usize>,
    /// What is wrong.
    pub(crate) problems: Vec<String>,
    /// Indexes that no manifest speaks of and that are not zero.
    pub(crate) uncovered: Vec<usize>,
    pub(crate) matched: usize,
}

pub(crate) fn compare(claims: &Claims, references: &[&Reference]) -> Measured {
    let mut measured = Measured::default();
    let wanted = claims.kind.software(&claims.chip);
    for software in &wanted {
        match find(claims, software, references) {
            Ok(at) => measured.used.push(at),
            Err(problem) => measured.problems.push(problem),
        }
    }
    let complete = measured.used.len() == wanted.len();
    let mut seen = Vec::new();
    for reference in measured.used.clone().iter().filter_map(|at| references.get(*at)) {
        compare_one(claims, reference, &mut seen, &mut measured);
    }
    if complete {
        let values = claims.measurements.iter().enumerate();
        let bare = values.filter(|(index, value)| {
            **value != [0; 48] && !seen.iter().any(|other| usize::from(*other) == *index)
        });
        measured.uncovered = bare.map(|(index, _)| index).collect();
    }
    measured
}

fn compare_one(
    claims: &Claims,
    reference: &Reference,
    seen: &mut Vec<u8>,
    measured: &mut Measured,
) {
    let version = &reference.manifest.version;
    for golden in &reference.manifest.golden {
        let index = golden.index;
        if seen.contains(&index) {
            measured.problems.push(format!("index {index} is in both manifests"));
            continue;
        }
        seen.push(index);
        if index == NVDEC0 && decoder_is_off(&claims.kind) {
            continue;
        }
        match claims.measurements.get(usize::from(index)) {
            None => measured.problems.push(format!("index {index} of {version} is missing")),
            Some(value) if golden.alternatives.contains(value) => measured.matched += 1,
            Some(value) => {
                let value = hex::encode(value);
                let problem = format!("index {index} of {version} is {value}");
                measured.problems.push(problem);
            }
        }
    }
}

fn decoder_is_off(kind: &Kind) -> bool {
    matches!(kind, Kind::Gpu(fields) if fields.nvdec0 == Some(false))
}

/// The one manifest for `software` on this chip. A manifest that came with the name it is served
/// under must have the right one: the name tells boards apart, the manifest does not.
fn find(claims: &Claims, software: &Software, references: &[&Reference]) -> Result<usize, String> {
    let chip = claims.chip.name();
    let edition = match claims.kind {
        Kind::Gpu(_) => Edition::Gpu,
        Kind::Switch(_) => Edition::Switch,
    };
    let Some(version) = &software.version else {
        return Err(format!("{} version is not reported", software.what));
    };
    let fits = |reference: &Reference| {
        let manifest = &reference.manifest;
        let named = |id: &String| {
            software.manifest_id.as_ref().is_some_and(|wanted| wanted.eq_ignore_ascii_case(id))
        };
        manifest.edition == edition
            && manifest.product == chip
            && manifest.version.eq_ignore_ascii_case(version)
            && reference.id.as_ref().is_none_or(named)
    };
    let mut found = Vec::<(usize, &Reference)>::new();
    for (at, reference) in references.iter().enumerate().filter(|(_, one)| fits(one)) {
        if found.iter().all(|(_, other)| other.sha256 != reference.sha256) {
            found.push((at, reference));
        }
    }
    match found.as_slice() {
        [(at, _)] => Ok(*at),
        [] => Err(format!("no manifest of {chip} {} {version}", software.what)),
        more => Err(format!("{} manifests of {chip} {} {version}", more.len(), software.what)),
    }
}
