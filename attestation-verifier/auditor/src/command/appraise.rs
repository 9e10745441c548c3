//! `appraise`: one piece of evidence under one policy, or a record of that once more.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation_verifier::appraise::{AttestationResult, Expected, Finding, Rejection, Verifier};
use attestation_verifier::evidence::Evidence;
use attestation_verifier::pin;
use attestation_verifier::policy::{self, AppraisalPolicy};
use attestation_verifier::receipt::describe;
use attestation_verifier::transcript::{Question, Transcript, transcribe};
use auditor::case::read;
use auditor::verdict::hardware;
use clap::{Args, ValueEnum};
use measurement::digest::sha256;
use measurement::launch::Measured;
use measurement::manifest;
use measurement::octets::Octets;
use measurement::receipt::SIMULATED;
use serde_json::{Value, json};

use super::endorse::shelf;
use super::input::{Input, LIMIT};
use super::{COULD_NOT_JUDGE, REJECTED, fail, print, print_json};

#[derive(Debug, Args)]
pub struct Arguments {
    /// What kind of evidence it is [default: told by its content]
    #[arg(long)]
    tee: Option<Tee>,
    /// The report or quote, as it came: raw, padded, in Azure's wrapper, or with its endorsements in a
    /// bundle of ours
    #[arg(long, value_name = "FILE", required = true)]
    evidence: PathBuf,
    /// A certificate, revocation list or collateral; may be repeated
    #[arg(long, value_name = "FILE", num_args = 1..)]
    endorsement: Vec<PathBuf>,
    /// Take what is missing from this folder of endorsements (`endorse add`)
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The appraisal policy [default: the strict one, for evidence without a job]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The 64 bytes that the evidence must carry, in hex [default: whatever it carries]
    #[arg(long, value_name = "HEX")]
    report_data: Option<Octets<64>>,
    /// The launch blob that it was launched with
    #[arg(long, value_name = "FILE")]
    launch_blob: Option<PathBuf>,
    /// The launch measurement that is expected, as `replay --json` prints it; without it any image is
    #[arg(long, value_name = "JSON")]
    measured: Option<String>,
    /// Judge at this time, in seconds since 1970 [default: now]
    #[arg(long, value_name = "UNIX")]
    at: Option<u64>,
    /// Write a record of the appraisal here
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
    /// Make the appraisal that this record is of once more, and compare
    #[arg(long, value_name = "TRANSCRIPT", conflicts_with_all = ["at", "report_data", "measured"])]
    replay: Option<PathBuf>,
    /// Write the result here as an EAR, a JSON Web Token
    #[arg(long, value_name = "FILE", requires = "ear_key")]
    ear: Option<PathBuf>,
    /// The Ed25519 key (PKCS #8, DER) that signs the token
    #[arg(long, value_name = "FILE")]
    ear_key: Option<PathBuf>,
    /// The names of the token's claims
    #[arg(long, value_enum, default_value_t = EarProfile::Trustee)]
    ear_profile: EarProfile,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Tee {
    Snp,
    Tdx,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum EarProfile {
    /// As Trustee's broker reads them
    Trustee,
    /// As the IETF draft has them since March 2026
    Ietf2026,
}

impl From<Tee> for manifest::Tee {
    fn from(tee: Tee) -> Self {
        match tee {
            Tee::Snp => Self::Snp,
            Tee::Tdx => Self::Tdx,
        }
    }
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let judged = match &arguments.replay {
        Some(record) => replay(arguments, record),
        None => appraise(arguments).map(|outcome| outcome.show(arguments.json)),
    };
    judged.unwrap_or_else(|problem| fail(&problem, None))
}

/// What came of an appraisal.
struct Outcome {
    verdict: Result<AttestationResult, Vec<Finding>>,
    /// Whether something to judge with is missing.
    incomplete: bool,
    /// What was not asked for, and so not judged.
    not_judged: Vec<&'static str>,
    notes: Vec<String>,
    at: u64,
}

fn appraise(arguments: &Arguments) -> Result<Outcome, String> {
    let files = Files::read(arguments)?;
    let at = arguments.at.unwrap_or_else(now);
    let input = match Input::read(&files.evidence, arguments.tee.map(Into::into)) {
        Ok(input) => input,
        Err(findings) => return Ok(Outcome::malformed(findings, at)),
    };
    let evidence = input.evidence();
    let mut endorsements = [input.endorsements.clone(), files.endorsements.clone()].concat();
    if let Some(folder) = &arguments.cache {
        endorsements.extend(shelf::pick(folder, &evidence, &endorsements, at)?);
    }
    let endorsements: Vec<_> = endorsements.iter().map(Vec::as_slice).collect();
    let asked = Asked::read(arguments, &files, &evidence)?;
    let expected = Expected {
        report_data: asked.report_data.as_bytes(),
        launch_blob: &files.launch_blob,
        images: &asked.images,
        platforms: &[],
    };
    let verifier = Verifier::new(files.policy.clone());
    let (transcript, verdict) = transcribe(&verifier, &evidence, &endorsements, &expected, at);
    if let Some(path) = &arguments.transcript {
        write(path, &transcript.to_bytes())?;
    }
    if let (Some(path), Some(key), Ok(result)) = (&arguments.ear, &arguments.ear_key, &verdict) {
        write(path, token(arguments.ear_profile, result, &evidence, key)?.as_bytes())?;
    }
    let incomplete = verdict.as_ref().is_err_and(Rejection::could_not_judge);
    let mut verdict = verdict.map_err(|rejection| rejection.reasons());
    if let (true, Ok(_)) = (arguments.launch_blob.is_some(), &verdict)
        && pin::launched_with(&evidence, &files.launch_blob) != Ok(true)
    {
        verdict = Err(vec![Finding::about(
            "binding.launch_blob",
            "another launch blob".into(),
            "the one given".into(),
        )]);
    }
    Ok(Outcome { verdict, incomplete, not_judged: asked.not_judged, notes: input.notes, at })
}

/// The files an appraisal needs.
struct Files {
    evidence: Vec<u8>,
    endorsements: Vec<Vec<u8>>,
    launch_blob: Vec<u8>,
    policy: AppraisalPolicy,
}

impl Files {
    fn read(arguments: &Arguments) -> Result<Self, String> {
        let file = |path: &PathBuf| read(path, LIMIT).map_err(|error| error.to_string());
        let policy = match &arguments.policy {
            None => AppraisalPolicy::parse(policy::EVIDENCE),
            Some(path) => {
                let text = String::from_utf8(file(path)?).map_err(|error| error.to_string())?;
                AppraisalPolicy::parse(&text)
            }
        };
        let name = arguments.policy.as_ref().map(|path| format!("{}: ", path.display()));
        Ok(Self {
            evidence: file(&arguments.evidence)?,
            endorsements: arguments.endorsement.iter().map(file).collect::<Result<_, _>>()?,
            launch_blob: arguments.launch_blob.as_ref().map(file).transpose()?.unwrap_or_default(),
            policy: policy.map_err(|error| format!("{}{error}", name.unwrap_or_default()))?,
        })
    }
}

/// What the evidence is held to. Where nothing was asked it is held to what it says of itself.
struct Asked {
    report_data: Octets<64>,
    images: Vec<Measured>,
    not_judged: Vec<&'static str>,
}

impl Asked {
    fn read(arguments: &Arguments, files: &Files, evidence: &Evidence<'_>) -> Result<Self, String> {
        let mut not_judged = Vec::new();
        let own = pin::report_data(evidence).unwrap_or([0; 64]);
        let report_data = arguments.report_data.unwrap_or_else(|| {
            not_judged.push("binding.report_data");
            Octets(own)
        });
        let measured: Option<Measured> = match &arguments.measured {
            Some(text) => Some(serde_json::from_str(text).map_err(|error| error.to_string())?),
            None => {
                not_judged.push("binding.image");
                pin::measured(evidence).ok()
            }
        };
        if files.launch_blob.is_empty() {
            not_judged.push("binding.launch_blob");
        }
        Ok(Self { report_data, images: measured.into_iter().collect(), not_judged })
    }
}

/// Judges again what a record is of, and compares the records.
fn replay(arguments: &Arguments, record: &Path) -> Result<ExitCode, String> {
    let bytes = read(record, LIMIT).map_err(|error| error.to_string())?;
    let transcript = Transcript::read(&bytes).map_err(|error| error.to_string())?;
    let question = transcript.question();
    let files = Files::read(arguments)?;
    let input = Input::read(&files.evidence, Some(question.tee))
        .map_err(|_| "could not judge: the record is of another piece of evidence".to_owned())?;
    let evidence = input.evidence();
    let endorsements = same_inputs(&question, &files, &input)?;
    let expected = Expected {
        report_data: question.report_data.as_bytes(),
        launch_blob: &files.launch_blob,
        images: &question.images,
        platforms: &question.platforms,
    };
    let verifier = Verifier::new(files.policy.clone());
    let (again, _) = transcribe(&verifier, &evidence, &endorsements, &expected, question.at);
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

/// The files whose digests the record has, in its order.
fn same_inputs<'a>(
    question: &Question,
    files: &'a Files,
    input: &'a Input<'_>,
) -> Result<Vec<&'a [u8]>, String> {
    let missing = |what: &str| format!("could not judge: the record is of another {what}");
    if Octets(sha256(input.evidence().report)) != question.evidence {
        return Err(missing("piece of evidence"));
    }
    if Octets(sha256(&files.launch_blob)) != question.launch_blob {
        return Err(missing("launch blob"));
    }
    if files.policy.digest() != question.policy {
        return Err(missing("policy"));
    }
    let find = |digest: &Octets<32>| {
        let mut all = input.endorsements.iter().chain(&files.endorsements).map(Vec::as_slice);
        all.find(|item| Octets(sha256(item)) == *digest)
            .ok_or_else(|| missing(&format!("endorsement: {digest} is missing")))
    };
    question.endorsements.iter().map(find).collect()
}

fn token(
    profile: EarProfile,
    result: &AttestationResult,
    evidence: &Evidence<'_>,
    key: &Path,
) -> Result<String, String> {
    use attestation_verifier::ear;
    use ring::signature::Ed25519KeyPair;

    let pkcs8 = read(key, LIMIT).map_err(|error| error.to_string())?;
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)
        .map_err(|error| format!("{}: {error}", key.display()))?;
    let issued_at = now();
    let token = ear::Token {
        profile: match profile {
            EarProfile::Trustee => ear::Profile::Trustee,
            EarProfile::Ietf2026 => ear::Profile::Ietf2026,
        },
        issuer: "cloister-auditor",
        issued_at,
        expires_at: issued_at.saturating_add(300),
    };
    let claims = ear::claims(result, evidence, &token).map_err(|error| error.to_string())?;
    let input = ear::signing_input(&claims, ear::Algorithm::EdDsa);
    Ok(ear::token(&input, key.sign(input.as_bytes()).as_ref()))
}

impl Outcome {
    fn malformed(findings: Vec<Finding>, at: u64) -> Self {
        let (not_judged, notes) = (Vec::new(), Vec::new());
        Self { verdict: Err(findings), incomplete: false, not_judged, notes, at }
    }

    fn findings(&self) -> &[Finding] {
        self.verdict.as_ref().err().map_or(&[], Vec::as_slice)
    }

    fn word(&self) -> (&'static str, u8) {
        match self {
            Self { incomplete: true, .. } => ("could not judge", COULD_NOT_JUDGE),
            _ if self.findings().is_empty() => ("accepted", 0),
            _ => ("rejected", REJECTED),
        }
    }

    /// Shape, origin, and the session it was asked for.
    fn format(&self) -> &'static str {
        let of_format = |finding: &Finding| {
            let id = finding.id();
            id.starts_with("shape.") || id.starts_with("origin.") || id == "binding.report_data"
        };
        if self.findings().iter().any(of_format) { "reject" } else { "accept" }
    }

    fn show(&self, json: bool) -> ExitCode {
        let (word, status) = self.word();
        for note in &self.notes {
            eprintln!("cloister-auditor: {note}");
        }
        if json {
            return print_json(&self.json(word), status);
        }
        print(&self.text(word), status)
    }

    fn json(&self, word: &str) -> Value {
        let policy = if self.findings().is_empty() { "accept" } else { "reject" };
        let result = self.verdict.as_ref().ok();
        json!({
            "verdict": word,
            "format": self.format(),
            "policy": policy,
            "findings": self.findings(),
            "not_judged": self.not_judged,
            "at": self.at,
            "simulated": result.is_some_and(AttestationResult::simulated),
            "result": result,
            "notes": self.notes,
        })
    }

    fn text(&self, word: &str) -> String {
        let mut text = match &self.verdict {
            Ok(result) => accepted(word, result),
            Err(_) => format!("{word}  evidence\n"),
        };
        for finding in self.findings() {
            text.push_str(&format!("  finding      {finding}\n"));
        }
        for check in &self.not_judged {
            text.push_str(&format!("  not judged   {check}: nothing was asked for\n"));
        }
        text
    }
}

fn accepted(word: &str, result: &AttestationResult) -> String {
    let mark = if result.simulated() { format!("{SIMULATED}  ") } else { String::new() };
    let mut text = format!(
        "{word}  {mark}{}\n  root         {}\n  platform     {}\n  image        {}\n",
        hardware(result.tee()),
        result.root(),
        result.tcb(),
        describe(result.measured()),
    );
    for waived in result.waived() {
        text.push_str(&format!("  waived       {}: {}\n", waived.check, waived.because));
    }
    text
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|problem| format!("{}: {problem}", path.display()))
}
