//! `endorse`: what to fetch for a piece of evidence, and a folder that keeps what a person fetched.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation_verifier::endorsement::{Source, device_sources, sources};
use attestation_verifier::wire::Malformed;
use auditor::case::read;
use clap::{Args, Subcommand};
use serde_json::json;

use super::appraise::Tee;
use super::input::{Input, LIMIT};
use super::{REJECTED, fail, print, print_json};

pub mod shelf;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List where the endorsements of a piece of evidence are to be had; nothing is fetched
    Fetch {
        /// Reports and quotes; and the certificates of a device, where they lie beside its report
        #[arg(value_name = "EVIDENCE", required = true)]
        evidence: Vec<PathBuf>,
        /// That it is a processor's, of this kind [default: told by its content]
        #[arg(long)]
        tee: Option<Tee>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// File what was fetched into a folder that gives nothing out past its time
    Add {
        /// Certificates, revocation lists, TCB info, QE identity, collateral, reference manifests or OCSP
        /// answers
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The folder
        #[arg(long, value_name = "DIR")]
        cache: PathBuf,
        /// Judge dates at this time, in seconds since 1970 [default: now]
        #[arg(long, value_name = "UNIX")]
        at: Option<u64>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let result = match &arguments.verb {
        Verb::Fetch { evidence, tee, json } => fetch(evidence, *tee, *json),
        Verb::Add { files, cache, at, json } => add(files, cache, *at, *json),
    };
    result.unwrap_or_else(|problem| fail(&problem, None))
}

fn fetch(evidence: &[PathBuf], tee: Option<Tee>, json: bool) -> Result<ExitCode, String> {
    let files: Result<Vec<_>, _> = evidence.iter().map(|path| read(path, LIMIT)).collect();
    let files = files.map_err(|error| error.to_string())?;
    let input = Input::read(&files, &[], tee.map(Into::into)).map_err(|findings| {
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    })?;
    let sources = all_sources(&input).map_err(|problem| problem.to_string())?;
    if json {
        return Ok(print_json(&json!({ "sources": sources }), 0));
    }
    let mut text = String::new();
    for source in &sources {
        let note =
            if source.note.is_empty() { String::new() } else { format!("  # {}", source.note) };
        let url = if source.url.is_empty() { "(no address)" } else { &source.url };
        text.push_str(&format!("{}\n    {url}{note}\n", source.what));
    }
    Ok(print(&text, 0))
}

/// What the processor and each device need, the same thing once.
fn all_sources(input: &Input) -> Result<Vec<Source>, Malformed> {
    let mut all = match &input.processor {
        Some(processor) => sources(&processor.evidence())?,
        None => Vec::new(),
    };
    for device in &input.devices {
        for source in device_sources(device)? {
            if !all.contains(&source) {
                all.push(source);
            }
        }
    }
    Ok(all)
}

fn add(files: &[PathBuf], cache: &Path, at: Option<u64>, json: bool) -> Result<ExitCode, String> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = at.unwrap_or(clock);
    let (mut filed, mut refused) = (Vec::new(), Vec::new());
    for path in files {
        let bytes = read(path, LIMIT).map_err(|error| error.to_string())?;
        match shelf::file(cache, &bytes, now)? {
            Ok(items) => filed.extend(items),
            Err(problem) => refused.push(format!("{}: {problem}", path.display())),
        }
    }
    let status = if refused.is_empty() { 0 } else { REJECTED };
    if json {
        return Ok(print_json(&json!({ "filed": filed, "refused": refused }), status));
    }
    let mut text = String::new();
    for item in &filed {
        text.push_str(&format!(
            "filed    {} of {} until {}\n",
            item.what, item.subject, item.until
        ));
    }
    for problem in &refused {
        text.push_str(&format!("refused  {problem}\n"));
    }
    Ok(print(&text, status))
}
