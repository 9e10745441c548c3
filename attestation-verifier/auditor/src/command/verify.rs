//! `verify` and `report`: the same judgement, as a verdict and as a page.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use auditor::case::{CannotJudge, Judged, Places, judge};
use auditor::page::{self, Form};
use auditor::verdict::{self, Verdict};
use clap::Args;

use super::{COULD_NOT_JUDGE, REJECTED, fail, print, print_json};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    places: Places,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct ReportArguments {
    #[command(flatten)]
    places: Places,
    /// Write the page here, as HTML when the name ends in .html [default: Markdown to standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON object instead of a page
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    match judge(&arguments.places) {
        Err(problem) => cannot(&problem, arguments.json),
        Ok(judged) if arguments.json => print_json(&Verdict::of(&judged), status(&judged)),
        Ok(judged) => print(&verdict::text(&judged), status(&judged)),
    }
}

pub fn report(arguments: &ReportArguments) -> ExitCode {
    let judged = match judge(&arguments.places) {
        Err(problem) => return cannot(&problem, arguments.json),
        Ok(judged) => judged,
    };
    if let Some(path) = &arguments.out {
        let html = path.extension().is_some_and(|end| end == "html");
        let form = if html { Form::Html } else { Form::Markdown };
        if let Err(problem) = fs::write(path, page::write(&judged, form)) {
            return fail(&format!("{}: {problem}", path.display()), None);
        }
        eprintln!("cloister-auditor: wrote {}", path.display());
    }
    match (&arguments.out, arguments.json) {
        (_, true) => print_json(&Verdict::of(&judged), status(&judged)),
        (Some(_), false) => print(&verdict::text(&judged), status(&judged)),
        (None, false) => print(&page::write(&judged, Form::Markdown), status(&judged)),
    }
}

fn status(judged: &Judged) -> u8 {
    if judged.verdict.is_ok() { 0 } else { REJECTED }
}

fn cannot(problem: &CannotJudge, json: bool) -> ExitCode {
    let hint = problem.hint();
    let status = fail(&format!("could not judge: {problem}"), hint.as_deref());
    if json {
        return print_json(&Verdict::could_not_judge(problem.to_string()), COULD_NOT_JUDGE);
    }
    status
}
