//! `trace`: what the operator can see of a job, from its manifest alone.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use measurement::manifest::{self, Manifest};
use measurement::trace::Trace;

use super::{fail, print, print_json};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The manifest
    #[arg(value_name = "MANIFEST")]
    manifest: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { manifest: path, json } = arguments;
    match read(path) {
        Err(problem) => fail(&format!("{}: {problem}", path.display()), None),
        Ok(manifest) if *json => print_json(&Trace::of(&manifest), 0),
        Ok(manifest) => print(&Trace::of(&manifest).to_string(), 0),
    }
}

fn read(path: &PathBuf) -> Result<Manifest, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    let most = u64::try_from(manifest::MAX_BYTES).unwrap_or(u64::MAX);
    if size > most {
        return Err(format!("has {size} bytes, a manifest has at most {most}"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    Manifest::parse(&bytes).map_err(|error| error.to_string())
}
