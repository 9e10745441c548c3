//! A folder of endorsements. Each file is one certificate, list or document, named by its SHA-256.
//!
//! The folder is not trusted: what it holds is judged like anything else, and an attacker who controls
//! it can at most stop the appraisal. Its rule is about time. Nothing is given out before its time
//! or past it, so that an old revocation list never passes for silence.

use std::fs;
use std::path::Path;

use attestation_verifier::endorsement::{Described, describe, parts, slot};
use attestation_verifier::evidence::Evidence;
use auditor::case::read;
use measurement::digest::sha256;

use crate::command::input::LIMIT;

/// Most files that are looked at.
const COUNT_LIMIT: usize = 4096;

/// Files every part of `item`. The inner error says why it was refused: what it is not, or that its
/// time is over.
pub fn file(
    folder: &Path,
    item: &[u8],
    now: u64,
) -> Result<Result<Vec<Described>, String>, String> {
    let parts = match parts(item) {
        Ok(parts) => parts,
        Err(problem) => return Ok(Err(problem.to_owned())),
    };
    let mut filed = Vec::new();
    for part in &parts {
        let described = describe(part)?;
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

/// What the folder has for `evidence` that `given` lacks: for each place the newest that is in its
/// time.
pub fn pick(
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
            describe(&bytes).is_ok_and(|parts| parts.iter().all(|one| is_current(one, now)));
        if named && in_time {
            all.push(bytes);
        }
    }
    Ok(all)
}

fn is_current(item: &Described, now: u64) -> bool {
    item.from <= now && now <= item.until
}
