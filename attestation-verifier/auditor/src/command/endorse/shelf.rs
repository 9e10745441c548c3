//! A folder of endorsements. Each file is one certificate, list or document, named by its SHA-256.
//!
//! The folder is not trusted: what it holds is judged like anything else, and an attacker who controls
//! it can at most stop the appraisal. Its rule is about time. Nothing is given out before its time
//! or past it, so that an old revocation list never passes for silence.

use std::fs;
use std::path::Path;

use attestation_verifier::endorsement::{
    Described, DeviceNeeds, describe, describe_for_devices, parts, slot,
};
use attestation_verifier::evidence::Evidence;
use attestation_verifier::evidence::device::DeviceEvidence;
use auditor::case::read;
use measurement::digest::sha256;

use crate::command::input::{Input, LIMIT};

/// Most files that are looked at.
const COUNT_LIMIT: usize = 4096;

/// Files every part of `item`. The inner error says why it was refused: what it is not, or that its
/// time is over.
pub fn file(
    folder: &Path,
    item: &[u8],
    now: u64,
) -> Result<Result<Vec<Described>, String>, String> {
    let parts = match (parts(item), describe_for_devices(item)) {
        (Ok(parts), _) => parts,
        (Err(_), Ok(_)) => vec![item.to_vec()],
        (Err(problem), Err(_)) => return Ok(Err(problem.to_owned())),
    };
    let mut filed = Vec::new();
    for part in &parts {
        let described = described(part)?;
        if let Some(stale) = described.iter().find(|one| !is_current(one, now)) {
            let Described { what, from, until, .. } = stale;
            return Ok(Err(format!("{what} is of {from} to {until}, now is {now}")));
        }
        filed.extend(described);
    }
    let failed = |problem: std::io::Error| format!("{}: {problem}", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    for part in &parts {
        let name = hex::encode(sha256(part));
        let draft = folder.join(format!("{name}.{}.draft", std::process::id()));
        fs::write(&draft, part).map_err(failed)?;
        fs::rename(&draft, folder.join(name)).map_err(failed)?;
    }
    Ok(Ok(filed))
}

/// Adds what the folder has for the evidence and `input` lacks.
pub fn complete(folder: &Path, input: &mut Input, now: u64) -> Result<(), String> {
    if let Some(processor) = &input.processor {
        let picked = pick(folder, &processor.evidence(), &input.processor_endorsements, now)?;
        input.processor_endorsements.extend(picked);
    }
    let picked = pick_for_devices(folder, &input.devices, &input.device_endorsements, now)?;
    input.device_endorsements.extend(picked);
    Ok(())
}

/// What the folder has for `devices` that `given` lacks: manifests first, and then what speaks for their
/// signers and for the devices.
fn pick_for_devices(
    folder: &Path,
    devices: &[DeviceEvidence],
    given: &[Vec<u8>],
    now: u64,
) -> Result<Vec<Vec<u8>>, String> {
    // Malformed evidence needs nothing to be refused.
    let Ok(mut needs) = DeviceNeeds::of(devices) else { return Ok(Vec::new()) };
    let kept = if devices.is_empty() { Vec::new() } else { current(folder, now)? };
    given.iter().for_each(|item| needs.add(item));
    let manifests =
        newest(&kept, given, |item| needs.slot(item).filter(|slot| slot.starts_with("manifest ")))?;
    manifests.iter().for_each(|item| needs.add(item));
    let rest = newest(&kept, given, |item| {
        needs.slot(item).filter(|slot| !slot.starts_with("manifest "))
    })?;
    Ok([manifests, rest].concat())
}

/// Of what has a slot that nothing `given` has, the newest for each.
fn newest(
    kept: &[Vec<u8>],
    given: &[Vec<u8>],
    slot: impl Fn(&[u8]) -> Option<String>,
) -> Result<Vec<Vec<u8>>, String> {
    let given: Vec<_> = given.iter().filter_map(|item| slot(item)).collect();
    let mut picked: Vec<(String, u64, &Vec<u8>)> = Vec::new();
    for item in kept {
        let Some(slot) = slot(item).filter(|slot| !given.contains(slot)) else { continue };
        let from = described(item)?.iter().map(|one| one.from).max().unwrap_or(0);
        match picked.iter_mut().find(|(other, ..)| *other == slot) {
            Some(held) if held.1 < from => *held = (slot, from, item),
            Some(_) => {}
            None => picked.push((slot, from, item)),
        }
    }
    Ok(picked.into_iter().map(|(_, _, item)| item.clone()).collect())
}

/// What an endorsement is, of processors or of devices.
fn described(item: &[u8]) -> Result<Vec<Described>, &'static str> {
    describe(item).or_else(|problem| describe_for_devices(item).map_err(|_| problem))
}

/// What the folder has for `evidence` that `given` lacks: for each place the newest that is in its
/// time.
fn pick(
    folder: &Path,
    evidence: &Evidence<'_>,
    given: &[Vec<u8>],
    now: u64,
) -> Result<Vec<Vec<u8>>, String> {
    let given: Vec<_> = given
        .iter()
        .flat_map(|item| parts(item).unwrap_or_default())
        .filter_map(|part| slot(evidence, &part))
        .collect();
    let mut picked: Vec<(String, u64, Vec<u8>)> = Vec::new();
    for part in current(folder, now)? {
        let Some(slot) = slot(evidence, &part).filter(|slot| !given.contains(slot)) else {
            continue;
        };
        let from = describe(&part)?.iter().map(|one| one.from).max().unwrap_or(0);
        match picked.iter_mut().find(|(other, ..)| *other == slot) {
            Some(held) if held.1 < from => *held = (slot, from, part),
            Some(_) => {}
            None => picked.push((slot, from, part)),
        }
    }
    // Collateral in one piece leaves no place for others.
    let whole = "collateral";
    if given.iter().any(|slot| slot == whole) {
        picked.clear();
    } else if given.is_empty() && picked.iter().any(|(slot, ..)| slot == whole) {
        picked.retain(|(slot, ..)| slot == whole);
    } else {
        picked.retain(|(slot, ..)| slot != whole);
    }
    Ok(picked.into_iter().map(|(_, _, part)| part).collect())
}

/// Every file that is what its name says, and in its time.
fn current(folder: &Path, now: u64) -> Result<Vec<Vec<u8>>, String> {
    let failed = |problem: std::io::Error| format!("{}: {problem}", folder.display());
    let mut all = Vec::new();
    let mut entries: Vec<_> =
        fs::read_dir(folder).map_err(failed)?.take(COUNT_LIMIT).filter_map(Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(bytes) = read(&entry.path(), LIMIT) else { continue };
        let named = entry.file_name().to_string_lossy() == hex::encode(sha256(&bytes));
        let in_time =
            described(&bytes).is_ok_and(|parts| parts.iter().all(|one| is_current(one, now)));
        if named && in_time {
            all.push(bytes);
        }
    }
    Ok(all)
}

fn is_current(item: &Described, now: u64) -> bool {
    item.from <= now && now <= item.until
}
