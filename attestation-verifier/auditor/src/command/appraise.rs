//! `appraise`: evidence under one policy, or a record of that once more.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation_verifier::appraise::{Expected, ExpectedDevices, Finding, Verifier};
use attestation_verifier::pin;
use attestation_verifier::policy::{self, AppraisalPolicy};
use attestation_verifier::transcript::{Devices, Processor, Subject, Verdicts, transcribe};
use auditor::case::read;
use clap::{Args, ValueEnum};
use measurement::manifest;
use measurement::octets::Octets;

use self::asked::Asked;
use self::outcome::Outcome;
use super::endorse::shelf;
use super::fail;
use super::input::{Input, LIMIT};

mod asked;
mod opinion;
mod outcome;
mod replay;
mod token;

#[derive(Debug, Args)]
pub struct Arguments {
    /// That it is a processor's, of this kind [default: told by its content]
    #[arg(long)]
    tee: Option<Tee>,
    /// A processor's report or quote, reports of GPUs and switches, or both, as they came: raw, in
    /// hexadecimal or base64, padded, in Azure's wrapper, in NVIDIA's JSON, or in a bundle of ours; may
    /// be repeated
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    evidence: Vec<PathBuf>,
    /// A certificate or chain, revocation list, collateral, reference manifest, OCSP answer or event
    /// log; may be repeated
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
    /// The 32 bytes that every device must answer, in hex [default: whatever they answer]
    #[arg(long, value_name = "HEX")]
    nonce: Option<Octets<32>>,
    /// The session that processor and devices must answer together, 64 bytes in hex; it stands for
    /// --report-data and --nonce
    #[arg(long, value_name = "HEX", conflicts_with_all = ["report_data", "nonce"])]
    session: Option<Octets<64>>,
    /// How many GPUs there must be [default: as many as there are]
    #[arg(long, value_name = "COUNT")]
    gpus: Option<usize>,
    /// How many NVSwitches there must be [default: as many as there are]
    #[arg(long, value_name = "COUNT")]
    switches: Option<usize>,
    /// The keys of NVIDIA's remote service (JWKS), for a token of it among the evidence. You vouch for
    /// them
    #[arg(long, value_name = "FILE")]
    nras_keys: Option<PathBuf>,
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
    #[arg(long, value_name = "TRANSCRIPT", conflicts_with_all = ["at", "report_data", "measured", "nonce", "session", "gpus", "switches"])]
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
        Some(record) => replay::replay(arguments, record),
        None => appraise(arguments).map(|outcome| outcome.show(arguments.json)),
    };
    judged.unwrap_or_else(|problem| fail(&problem, None))
}

fn appraise(arguments: &Arguments) -> Result<Outcome, String> {
    let files = Files::read(arguments)?;
    let at = arguments.at.unwrap_or_else(now);
    let mut input = match files.input(arguments) {
        Ok(input) => input,
        Err(findings) => return Ok(Outcome::malformed(findings, at)),
    };
    if let Some(folder) = &arguments.cache {
        shelf::complete(folder, &mut input, at)?;
    }
    let asked = Asked::read(arguments, &input)?;
    let verifier = Verifier::new(files.policy.clone());
    let (transcript, verdicts) =
        with_subject(&input, &files, &asked, |subject| transcribe(&verifier, subject, at));
    if let Some(path) = &arguments.transcript {
        write(path, &transcript.to_bytes())?;
    }
    if let (Some(path), Some(key), true) = (&arguments.ear, &arguments.ear_key, verdicts.accepted())
    {
        write(path, token::made(arguments.ear_profile, &verdicts, &input, key)?.as_bytes())?;
    }
    let mut further = wrong_blob(arguments, &files, &input, &verdicts);
    further.extend(opinion::judge(&input.opinions, &files.nras_keys, &verdicts, at));
    Ok(Outcome { verdicts, further, not_judged: asked.not_judged, notes: input.notes, at })
}

/// Lends what is to be judged, put together, to `judge`.
fn with_subject<T>(
    input: &Input,
    files: &Files,
    asked: &Asked,
    judge: impl FnOnce(&Subject<'_>) -> T,
) -> T {
    let on_processor: Vec<&[u8]> = input.processor_endorsements.iter().map(Vec::as_slice).collect();
    let on_devices: Vec<&[u8]> = input.device_endorsements.iter().map(Vec::as_slice).collect();
    let processor = input.processor.as_ref().map(|processor| Processor {
        evidence: processor.evidence(),
        endorsements: &on_processor,
        expected: Expected {
            report_data: asked.report_data.as_bytes(),
            launch_blob: &files.launch_blob,
            images: &asked.images,
            platforms: &asked.platforms,
        },
    });
    let devices = (!input.devices.is_empty()).then(|| Devices {
        evidence: &input.devices,
        endorsements: &on_devices,
        expected: ExpectedDevices {
            nonce: asked.nonce.as_bytes(),
            gpus: asked.gpus,
            switches: asked.switches,
            chips: &asked.chips,
        },
    });
    judge(&Subject { processor, devices })
}

/// A launch blob that was given is held against the evidence even where the policy does not ask for it.
fn wrong_blob(
    arguments: &Arguments,
    files: &Files,
    input: &Input,
    verdicts: &Verdicts,
) -> Vec<Finding> {
    let accepted = matches!(verdicts.processor, Some(Ok(_)));
    match &input.processor {
        Some(processor) if accepted && arguments.launch_blob.is_some() => {
            let same = pin::launched_with(&processor.evidence(), &files.launch_blob) == Ok(true);
            let observed = "another launch blob".into();
            let finding =
                || Finding::about("binding.launch_blob", observed, "the one given".into());
            if same { Vec::new() } else { vec![finding()] }
        }
        _ => Vec::new(),
    }
}

/// The files an appraisal needs.
struct Files {
    evidence: Vec<Vec<u8>>,
    endorsements: Vec<Vec<u8>>,
    launch_blob: Vec<u8>,
    policy: AppraisalPolicy,
    nras_keys: Option<Vec<u8>>,
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
            evidence: arguments.evidence.iter().map(file).collect::<Result<_, _>>()?,
            endorsements: arguments.endorsement.iter().map(file).collect::<Result<_, _>>()?,
            launch_blob: arguments.launch_blob.as_ref().map(file).transpose()?.unwrap_or_default(),
            policy: policy.map_err(|error| format!("{}{error}", name.unwrap_or_default()))?,
            nras_keys: arguments.nras_keys.as_ref().map(file).transpose()?,
        })
    }

    fn input(&self, arguments: &Arguments) -> Result<Input, Vec<Finding>> {
        Input::read(&self.evidence, &self.endorsements, arguments.tee.map(Into::into))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|problem| format!("{}: {problem}", path.display()))
}
