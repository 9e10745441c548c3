//! `appraise`: one piece of evidence under one policy.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation_verifier::appraise::{AttestationResult, Expected, Rejection, Verifier};
use attestation_verifier::evidence::Evidence;
use attestation_verifier::pin;
use attestation_verifier::policy::AppraisalPolicy;
use attestation_verifier::receipt::describe;
use auditor::case::read;
use auditor::verdict::hardware;
use clap::{Args, ValueEnum};
use measurement::launch::Measured;
use measurement::manifest;
use measurement::octets::Octets;
use measurement::receipt::SIMULATED;
use serde_json::json;

use super::{REJECTED, fail, print, print_json};

/// Most bytes of any of the files.
const LIMIT: u64 = 1 << 20;

#[derive(Debug, Args)]
pub struct Arguments {
    /// What kind of evidence it is
    #[arg(long)]
    tee: Tee,
    /// The report or quote
    #[arg(long, value_name = "FILE")]
    evidence: PathBuf,
    /// A certificate, revocation list or collateral; may be repeated
    #[arg(long, value_name = "FILE")]
    endorsement: Vec<PathBuf>,
    /// The appraisal policy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The 64 bytes that the evidence must carry, in hex
    #[arg(long, value_name = "HEX")]
    report_data: Octets<64>,
    /// The launch blob that it was launched with
    #[arg(long, value_name = "FILE")]
    launch_blob: Option<PathBuf>,
    /// The launch measurement that is expected, as `replay --json` prints it; without it any image is
    #[arg(long, value_name = "JSON")]
    measured: Option<String>,
    /// Judge at this time, in seconds since 1970 [default: now]
    #[arg(long, value_name = "UNIX")]
    at: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Tee {
    Snp,
    Tdx,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    match appraise(arguments) {
        Err(problem) => fail(&problem, None),
        Ok(Ok(result)) => accepted(&result, arguments.json),
        Ok(Err(rejection)) => refused(&rejection, arguments.json),
    }
}

fn appraise(arguments: &Arguments) -> Result<Result<AttestationResult, Rejection>, String> {
    let file = |path: &PathBuf| read(path, LIMIT).map_err(|error| error.to_string());
    let report = file(&arguments.evidence)?;
    let endorsements = arguments.endorsement.iter().map(file).collect::<Result<Vec<_>, _>>()?;
    let endorsements: Vec<_> = endorsements.iter().map(Vec::as_slice).collect();
    let launch_blob = arguments.launch_blob.as_ref().map(file).transpose()?.unwrap_or_default();
    let policy = String::from_utf8(file(&arguments.policy)?).map_err(|error| error.to_string())?;
    let policy = AppraisalPolicy::parse(&policy)
        .map_err(|error| format!("{}: {error}", arguments.policy.display()))?;
    let tee = match arguments.tee {
        Tee::Snp => manifest::Tee::Snp,
        Tee::Tdx => manifest::Tee::Tdx,
    };
    let evidence = Evidence { tee, report: &report };
    let measured: Option<Measured> = match &arguments.measured {
        Some(text) => Some(serde_json::from_str(text).map_err(|error| error.to_string())?),
        None => pin::measured(&evidence).ok(),
    };
    let images: Vec<_> = measured.into_iter().collect();
    let expected = Expected {
        report_data: arguments.report_data.as_bytes(),
        launch_blob: &launch_blob,
        images: &images,
        platforms: &[],
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let at = arguments.at.unwrap_or(now);
    Ok(Verifier::new(policy).appraise(&evidence, &endorsements, &expected, at))
}

fn accepted(result: &AttestationResult, json: bool) -> ExitCode {
    if json {
        let result = json!({
            "verdict": "accepted", "simulated": result.simulated(), "result": result,
            "findings": [],
        });
        return print_json(&result, 0);
    }
    let mark = if result.simulated() { format!("{SIMULATED}  ") } else { String::new() };
    let mut text = format!(
        "accepted  {mark}{}\n  root         {}\n  platform     {}\n  image        {}\n",
        hardware(result.tee()),
        result.root(),
        result.tcb(),
        describe(result.measured()),
    );
    for waived in result.waived() {
        text.push_str(&format!("  waived       {}: {}\n", waived.check, waived.because));
    }
    print(&text, 0)
}

fn refused(rejection: &Rejection, json: bool) -> ExitCode {
    let findings = rejection.findings();
    if json {
        let problem = rejection.to_string();
        let verdict = json!({ "verdict": "rejected", "problem": problem, "findings": findings });
        return print_json(&verdict, REJECTED);
    }
    let mut text = "rejected  evidence\n".to_owned();
    for finding in findings {
        text.push_str(&format!("  finding      {finding}\n"));
    }
    if findings.is_empty() {
        text.push_str(&format!("  finding      {rejection}\n"));
    }
    print(&text, REJECTED)
}
