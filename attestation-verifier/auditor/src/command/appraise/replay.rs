//! Judges again what a record is of, and compares the records.

use std::path::Path;
use std::process::ExitCode;

use attestation_verifier::appraise::Verifier;
use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::transcript::{Transcript, transcribe};
use auditor::case::read;
use measurement::digest::sha256;
use measurement::octets::Octets;
use serde_json::json;

use super::asked::Asked;
use super::{Arguments, Files, with_subject};
use crate::command::input::{Input, LIMIT};
use crate::command::{REJECTED, print, print_json};

pub fn replay(arguments: &Arguments, record: &Path) -> Result<ExitCode, String> {
    let bytes = read(record, LIMIT).map_err(|error| error.to_string())?;
    let transcript = Transcript::read(&bytes).map_err(|error| error.to_string())?;
    let files = Files::read(arguments)?;
    let mut input = files.input(arguments).map_err(|_| another("piece of evidence"))?;
    let asked = question(&transcript, &files, &mut input)?;
    let verifier = Verifier::new(files.policy.clone());
    let (again, _) = with_subject(&input, &files, &asked, |subject| {
        transcribe(&verifier, subject, transcript.at())
    });
    let recorded = if transcript.accepted() { "accepted" } else { "rejected" };
    let (word, status) =
        if again.to_bytes() == bytes { ("replayed", 0) } else { ("differs", REJECTED) };
    if arguments.json {
        let checks: Vec<_> = transcript.checks().collect();
        let page = json!({ "verdict": word, "recorded": recorded, "checks": checks });
        return Ok(print_json(&page, status));
    }
    let said = match status {
        0 => format!("the record says {recorded}, and so does this verifier, byte for byte"),
        _ => format!("the record says {recorded}; judged again it has other bytes"),
    };
    Ok(print(&format!("{word}  {said}\n"), status))
}

fn another(what: &str) -> String {
    format!("could not judge: the record is of another {what}")
}

/// What the record says was asked. The inputs that it names are put in its order, and those that it does
/// not name left out.
fn question(transcript: &Transcript, files: &Files, input: &mut Input) -> Result<Asked, String> {
    if files.policy.digest() != transcript.policy_digest() {
        return Err(another("policy"));
    }
    let mut asked = Asked::nothing();
    if transcript.processor().is_none() {
        input.processor = None;
    }
    if let Some(question) = transcript.processor() {
        let own = input.processor.as_ref();
        let same = |report: &[u8]| Octets(sha256(report)) == question.evidence;
        if !own.is_some_and(|own| own.tee == question.tee && same(&own.report)) {
            return Err(another("piece of evidence"));
        }
        if Octets(sha256(&files.launch_blob)) != question.launch_blob {
            return Err(another("launch blob"));
        }
        input.processor_endorsements = named(&question.endorsements, input)?;
        asked.report_data = question.report_data;
        asked.images.clone_from(&question.images);
        asked.platforms.clone_from(&question.platforms);
    }
    if transcript.devices().is_none() {
        input.devices.clear();
    }
    if let Some(question) = transcript.devices() {
        let digests: Vec<_> = input.devices.iter().map(DeviceEvidence::digest).collect();
        if digests != question.evidence {
            return Err(another("piece of evidence"));
        }
        input.device_endorsements = named(&question.endorsements, input)?;
        asked.nonce = question.nonce;
        asked.gpus = usize::try_from(question.gpus).unwrap_or(usize::MAX);
        asked.switches = usize::try_from(question.switches).unwrap_or(usize::MAX);
        asked.chips.clone_from(&question.chips);
    }
    Ok(asked)
}

/// The endorsements that have these digests.
fn named(digests: &[Octets<32>], input: &Input) -> Result<Vec<Vec<u8>>, String> {
    let find = |digest: &Octets<32>| {
        let mut all = input.processor_endorsements.iter().chain(&input.device_endorsements);
        let found = all.find(|item| Octets(sha256(item)) == *digest);
        found.cloned().ok_or_else(|| another(&format!("endorsement: {digest} is missing")))
    };
    digests.iter().map(find).collect()
}
