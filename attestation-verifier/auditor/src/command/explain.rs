//! `explain`: every field of a piece of evidence, in words.

use std::path::PathBuf;
use std::process::ExitCode;

use attestation_verifier::explain::{Field, explain};
use auditor::case::read;
use auditor::verdict::hardware;
use clap::Args;
use serde_json::json;

use super::appraise::Tee;
use super::input::{Input, LIMIT};
use super::{REJECTED, fail, print, print_json};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The report or quote
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// What kind of evidence it is [default: told by its content]
    #[arg(long)]
    tee: Option<Tee>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let bytes = match read(&arguments.evidence, LIMIT) {
        Ok(bytes) => bytes,
        Err(problem) => return fail(&problem, None),
    };
    let input = match Input::read(&bytes, arguments.tee.map(Into::into)) {
        Ok(input) => input,
        Err(findings) => {
            let text: String =
                findings.iter().map(|finding| format!("unreadable  {finding}\n")).collect();
            return print(&text, REJECTED);
        }
    };
    let evidence = input.evidence();
    let fields = match explain(&evidence) {
        Ok(fields) => fields,
        Err(problem) => return print(&format!("unreadable  {problem}\n"), REJECTED),
    };
    if arguments.json {
        let page = json!({ "tee": evidence.tee, "notes": input.notes, "fields": fields });
        return print_json(&page, 0);
    }
    for note in &input.notes {
        eprintln!("cloister-auditor: {note}");
    }
    let mut text =
        format!("unjudged  {}: `appraise` says whether it is true\n", hardware(evidence.tee));
    for Field { at, name, value, meaning } in &fields {
        text.push_str(&format!("{at:#06x}  {name}  {value}\n        {meaning}\n"));
    }
    print(&text, 0)
}
