//! `explain`: every field of a piece of evidence, in words.

use std::path::PathBuf;
use std::process::ExitCode;

use attestation_verifier::explain::{Field, explain, explain_device};
use attestation_verifier::wire::Malformed;
use auditor::case::read;
use auditor::verdict::hardware;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::appraise::Tee;
use super::input::{Input, LIMIT};
use super::{REJECTED, fail, print, print_json};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Reports and quotes; and the certificates of a device, where they lie beside its report
    #[arg(value_name = "EVIDENCE", required = true)]
    evidence: Vec<PathBuf>,
    /// That it is a processor's, of this kind [default: told by its content]
    #[arg(long)]
    tee: Option<Tee>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One report or quote.
#[derive(Serialize)]
struct Page {
    what: String,
    fields: Vec<Field>,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let files: Result<Vec<_>, _> =
        arguments.evidence.iter().map(|path| read(path, LIMIT)).collect();
    let files = match files {
        Ok(files) => files,
        Err(problem) => return fail(&problem, None),
    };
    let input = match Input::read(&files, &[], arguments.tee.map(Into::into)) {
        Ok(input) => input,
        Err(findings) => {
            let text: String =
                findings.iter().map(|finding| format!("unreadable  {finding}\n")).collect();
            return print(&text, REJECTED);
        }
    };
    let pages = match pages(&input) {
        Ok(pages) => pages,
        Err(problem) => return print(&format!("unreadable  {problem}\n"), REJECTED),
    };
    for note in &input.notes {
        eprintln!("cloister-auditor: {note}");
    }
    if arguments.json {
        let tee = input.processor.as_ref().map(|processor| processor.tee);
        return print_json(&json!({ "tee": tee, "notes": input.notes, "pages": pages }), 0);
    }
    print(&pages.iter().map(text).collect::<String>(), 0)
}

fn pages(input: &Input) -> Result<Vec<Page>, Malformed> {
    let processor = input.processor.iter().map(|processor| {
        let what = hardware(processor.tee).to_owned();
        Ok(Page { what, fields: explain(&processor.evidence())? })
    });
    let devices = input.devices.iter().enumerate().map(|(index, device)| {
        Ok(Page { what: format!("NVIDIA device {index}"), fields: explain_device(device)? })
    });
    processor.chain(devices).collect()
}

fn text(page: &Page) -> String {
    let mut text = format!("unjudged  {}: `appraise` says whether it is true\n", page.what);
    for Field { at, name, value, meaning } in &page.fields {
        text.push_str(&format!("{at:#06x}  {name}  {value}\n        {meaning}\n"));
    }
    text
}
