//! `cloister-host measure`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use host::image::Image;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The image folder
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let measured = Image::read(&arguments.image)?.measure()?;
    super::print(&measured, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}
